"""Bytes in are bytes out: every framing of a request with every framing of a response, at the sizes where buffers begin and end, in
pieces of any size, both ways.

What is sent follows from a seed. A test that fails names the seed and the exchange; the same seed sends the same bytes in the same
pieces again.
"""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from data_plane import DataPlane, origin_config
from faulty import Message, Origin, Wire, client

SIZES = (0, 1, 4095, 4096, 4097, 65535, 65536, 65537, 1 << 20)
REQUESTS = ("length", "chunked")
RESPONSES = ("length", "chunked", "close")


def content(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def cut(data: bytes, draw: random.Random, most: int) -> Iterator[bytes]:
    """The data in pieces of random size, mostly of a similar order of magnitude, some of them tiny."""
    at = 0
    while at < len(data):
        n = draw.choice((1, 2, draw.randint(1, 64), draw.randint(1, most), draw.randint(1, most)))
        yield data[at : at + n]
        at += n


def chunks(data: bytes, draw: random.Random) -> bytes:
    """The data in chunks of random size, with everything that the grammar allows in a chunk's line."""
    out = []
    for piece in cut(data, draw, max(64, len(data) // 5)):
        size = f"{len(piece):x}"
        size = draw.choice((size, size.upper(), f"000{size}", f"{size};name", f'{size};name="va;lue"'))
        out.append(size.encode() + b"\r\n" + piece + b"\r\n")
    return b"".join(out) + draw.choice((b"0", b"000", b"0;last")) + b"\r\n\r\n"


def framed(data: bytes, framing: str, draw: random.Random) -> bytes:
    """The end of a head, and the content as it goes over the wire."""
    if framing == "length":
        return b"content-length: %d\r\n\r\n" % len(data) + data
    if framing == "chunked":
        return b"transfer-encoding: chunked\r\n\r\n" + chunks(data, draw)
    return b"\r\n" + data


def send_in_pieces(wire: Wire, data: bytes, draw: random.Random) -> None:
    for piece in cut(data, draw, draw.choice((100, 5000, 100_000)) if len(data) < 100_000 else 100_000):
        wire.send(piece)


def mirror(origin: Origin, wire: Wire) -> None:
    """Target: /FRAMING/SIZE/SEED of the response. What it got of the request is kept for the test."""
    while (request := wire.request()) is not None:
        origin.requests.append(request)
        framing, size, seed = request.target.split("/")[1:4]
        draw = random.Random(int(seed))
        send_in_pieces(wire, b"HTTP/1.1 200 OK\r\n" + framed(content(int(seed), int(size)), framing, draw), draw)
        if framing == "close":
            return


@contextmanager
def standing() -> Iterator[tuple[Origin, DataPlane]]:
    with Origin(mirror) as origin, DataPlane(origin_config(origin.port)) as plane:
        yield origin, plane


def exchange(wire: Wire, request: tuple[str, int], response: tuple[str, int], seed: int) -> Message:
    draw = random.Random(seed ^ 1)
    head = f"POST /{response[0]}/{response[1]}/{seed} HTTP/1.1\r\nhost: test\r\n".encode()
    # Sent from a thread of its own: an answer may begin to fill the way back while the request is still going out.
    data = head + framed(content(seed ^ 2, request[1]), request[0], draw)
    sender = threading.Thread(target=send_in_pieces, args=(wire, data, draw), daemon=True)
    sender.start()
    answered = wire.response("POST")
    sender.join(20)
    return answered


@pytest.mark.parametrize("response", RESPONSES)
@pytest.mark.parametrize("request_framing", REQUESTS)
def test_every_size_in_every_framing(request_framing: str, response: str) -> None:
    """Each size once as a request's and once as a response's, on one connection for all."""
    sizes = list(zip(SIZES, reversed(SIZES), strict=True))
    with standing() as (origin, plane), client(plane.port) as wire:
        for number, (size_in, size_out) in enumerate(sizes):
            seed = 1000 + number
            answered = exchange(wire, (request_framing, size_in), (response, size_out), seed)
            said = f"{request_framing} {size_in} -> {response} {size_out}, seed {seed}"
            assert origin.requests[-1].body == content(seed ^ 2, size_in), said
            assert answered.body == content(seed, size_out), said
            # what the client has is framed afresh
            framing = {key for key, _ in answered.fields} & {"content-length", "transfer-encoding"}
            assert framing == ({"content-length"} if response == "length" else {"transfer-encoding"}), said
        assert len(origin.requests) == len(SIZES)
        bytes_in_out = [(record["bytes_in"], record["bytes_out"]) for record in plane.records(len(SIZES))]
        assert bytes_in_out == sizes


@pytest.mark.parametrize("seed", range(3))
def test_any_sizes_in_any_framing(seed: int) -> None:
    draw = random.Random(seed)
    with standing() as (origin, plane), client(plane.port) as wire:
        for number in range(40):
            size_in, size_out = (
                draw.choice((draw.randint(0, 100), draw.randint(0, 20_000), draw.randint(0, 200_000))) for _ in "io"
            )
            request, response = draw.choice(REQUESTS), draw.choice(RESPONSES)
            each = draw.getrandbits(32)
            answered = exchange(wire, (request, size_in), (response, size_out), each)
            said = f"seed {seed}, exchange {number}: {request} {size_in} -> {response} {size_out}"
            assert origin.requests[-1].body == content(each ^ 2, size_in), said
            assert answered.body == content(each, size_out), said


@pytest.mark.parametrize("response", RESPONSES)
@pytest.mark.parametrize("request_framing", REQUESTS)
def test_both_ways_at_once(request_framing: str, response: str) -> None:
    """An origin that answers with what it gets, while it gets it."""
    size = 1 << 20

    def echo(origin: Origin, wire: Wire) -> None:
        head = wire.head()
        assert head is not None
        start = {"length": b"content-length: %d\r\n\r\n" % size, "chunked": b"transfer-encoding: chunked\r\n\r\n", "close": b"\r\n"}
        wire.send(b"HTTP/1.1 200 OK\r\n" + start[response])

        def give(piece: bytes) -> None:
            wire.send(b"%x\r\n%s\r\n" % (len(piece), piece) if response == "chunked" else piece)

        if head.get("transfer-encoding") == "chunked":
            while (n := int(wire.line() or b"", 16)) > 0:
                give(wire.exactly(n, head))
                wire.exactly(2, head)
            wire.line()
        else:
            left = size
            while left:
                piece = wire.receive(min(left, 50_000))
                give(piece)
                left -= len(piece)
        if response == "chunked":
            wire.send(b"0\r\n\r\n")

    with Origin(echo) as origin, DataPlane(origin_config(origin.port)) as plane:
        for seed in range(3):
            draw = random.Random(seed)
            data = content(seed, size)
            with client(plane.port) as wire:
                request = b"POST / HTTP/1.1\r\nhost: test\r\n" + framed(data, request_framing, draw)
                sender = threading.Thread(target=send_in_pieces, args=(wire, request, draw), daemon=True)
                sender.start()
                assert wire.response("POST").body == data, f"seed {seed}"
                sender.join(20)


@pytest.mark.parametrize("response", RESPONSES)
def test_a_client_of_http_1_0_gets_the_same_bytes(response: str) -> None:
    """It knows no chunks: what has no length ends with the connection."""
    with standing() as (_, plane):
        for seed, size in enumerate(SIZES):
            with client(plane.port) as wire:
                wire.send(f"GET /{response}/{size}/{seed} HTTP/1.0\r\nhost: test\r\n\r\n".encode())
                answered = wire.response()
                assert answered.body == content(seed, size), f"{response} {size}"
                assert answered.get("transfer-encoding") is None
