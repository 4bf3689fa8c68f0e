"""Much content over HTTP/2: what is written at once, what the socket does not take, and what is gathered arrive as one whole."""

import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import h2.events
import h2.settings
import pytest
from conftest import Connect
from h2bench import H2Client
from wirebench import Gateway, Origin, OriginWire

CONFIG = """
listeners: [{name: web, port: 8080}]
routes: [{name: all, rules: [{backendRefs: [{name: site}]}]}]
clusters: [{name: site, endpoints: ["127.0.0.1:1"]}]
"""
LENGTH = 3_000_001
CONTENT = random.Random(5).randbytes(LENGTH)


@contextmanager
def sending(origin: OriginWire, data: bytes) -> Iterator[None]:
    """The origin sends while the client does what it does."""
    thread = threading.Thread(target=origin.send, args=(data,))
    thread.start()
    try:
        yield
    finally:
        thread.join(30)
        assert not thread.is_alive()


def wide(connect: Connect, *, window: int = 1 << 24, buffer: int = 0) -> H2Client:
    """A client with windows of this size, and a small buffer in the kernel if it says so."""
    wire = connect()
    if buffer:
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    client = H2Client(wire, settings={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
    client.h2.increment_flow_control_window(1 << 24)
    client.flush()
    return client


@pytest.mark.parametrize("buffer", [0, 100_000])
@pytest.mark.parametrize("window", [1 << 24, 50_000])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_download_arrives_as_it_was_sent(connect: Connect, site: Origin, framing: str, window: int, buffer: int) -> None:
    client = wide(connect, window=window, buffer=buffer)
    stream = client.ask()
    origin = site.accept()
    origin.request()
    data = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LENGTH + CONTENT
    if framing == "chunked":
        data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (LENGTH, CONTENT)
    with sending(origin, data):
        _, body = client.answer(stream)
    assert body == CONTENT


def test_nothing_is_held_back_when_the_origin_pauses(connect: Connect, site: Origin, gateway: Gateway) -> None:
    """Not in the hope of more: neither by the kernel nor before it."""
    client = wide(connect)
    stream = client.ask()
    origin = site.accept()
    origin.request()
    with sending(origin, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (LENGTH + 1) + CONTENT):
        client.until(lambda: len(client.body(stream)) == LENGTH)
    assert not client.find(h2.events.StreamEnded, stream)
    origin.send("x")
    assert client.answer(stream)[1] == CONTENT + b"x"


def test_answers_of_many_streams_in_one_turn(connect: Connect, site: Origin, gateway: Gateway) -> None:
    """More than one write of the output holds, and none of it in pieces that are large by themselves."""
    client = wide(connect)
    streams = {client.ask(f"/{n}"): n for n in range(40)}
    origins = [site.accept() for _ in streams]
    numbers = [int(origin.request().split(b" ")[1][1:]) for origin in origins]
    gateway.turn()
    for origin, number in zip(origins, numbers, strict=True):
        origin.send(b"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n" + CONTENT[number : number + 20000])
    for stream, number in streams.items():
        assert client.answer(stream)[1] == CONTENT[number : number + 20000]


def test_a_small_answer_beside_a_download(connect: Connect, site: Origin) -> None:
    client = wide(connect)
    large = client.ask("/large")
    first = site.accept()
    first.request()
    with sending(first, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (2 * LENGTH) + CONTENT):
        client.until(lambda: len(client.body(large)) > 100_000)
        small = client.ask("/small")
        second = site.accept()
        second.request()
        second.ok("small")
        assert client.answer(small)[1] == b"small"
    with sending(first, CONTENT):
        assert client.answer(large)[1] == CONTENT + CONTENT


def test_a_client_that_leaves_in_the_middle_ends_the_download(connect: Connect, site: Origin, gateway: Gateway) -> None:
    client = wide(connect, buffer=100_000)
    stream = client.ask()
    origin = site.accept()
    origin.request()
    with sending(origin, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (2 * LENGTH) + CONTENT):
        client.until(lambda: client.body(stream))
        client.wire.reset()
    assert gateway.log()[0]["flags"] == "DC"
    origin.ended()
