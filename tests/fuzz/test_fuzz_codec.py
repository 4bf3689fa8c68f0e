"""Bounded mutation fuzzing of every entry of the codecs. Under `make sanitize` an over-read of one byte ends the run.

Each input also keeps the invariants that hold for all inputs: the same answer in pieces as whole, writing and reading back, a
normal form that is stable. The seed is printed with a failure; GW_FUZZ_SEED repeats one, GW_FUZZ_SECONDS gives each target longer.
"""

import os
import random
import time
from collections.abc import Callable, Iterator

import h2frames
import pytest
from hellos import alpn_list, build, build_message, message_of, real_hello, records, server_name, versions

from gateway._core import h2probe, h2test, selftest

SEED = int(os.environ.get("GW_FUZZ_SEED", "20251125"))
SECONDS = float(os.environ.get("GW_FUZZ_SECONDS", "1.5"))
LEAST = 200  # inputs, however slow the machine is

REQUESTS = [
    b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: x\r\nAccept: */*\r\n\r\n",
    b"POST http://A.example:80/a/../b%7e?c HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0012\r\nX: \t y \r\n\r\n",
    b"GET /c HTTP/1.1\r\nHost: [::1]:80\r\nConnection: Upgrade, x-y\r\nUpgrade: h2c, websocket/13 ,h2\r\nX-Y: 1\r\n\r\n",
    b"PUT /%c3%a4//. HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTE: trailers, x\r\nExpect: 100-continue\r\n\r\n",
    b"\r\nOPTIONS * HTTP/1.0\r\nMax-Forwards: 3\r\nConnection: keep-alive\r\nHTTP2-Settings: a\r\nKeep-Alive: 1\r\n\r\n",
]
RESPONSES = [
    b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 40\r\nConnection: close, a\r\nA: 1\r\n\r\n",
    b"HTTP/1.0 404\r\nTransfer-Encoding: chunked\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket, h2c\r\nConnection: upgrade\r\n\r\n",
    b"HTTP/1.1 304 \xff\r\nContent-Length: 007\r\nTransfer-Encoding: identity\r\n\r\n",
]
BODIES = [
    b"5\r\nhello\r\n0\r\n\r\nGET /",
    b'a;x=y; z = "q\\"r" ;w\r\n0123456789\r\n000;v\r\nX-A: 1 \r\nB:\r\n\r\n',
    b"1\r\na\r\n" * 40 + b"0\r\nx: " + b"y" * 200 + b"\r\n\r\n",
]
PATHS = [b"/a/b/../c/./d//e", b"/%2e%2E/%41%c3%a4%e0%a0%80", b"/..;/.%3b", b"/...", b"/a%2fb%5c%00", b"/%f0%90%80%80/.."]
AUTHORITIES = [b"a.example:8080", b"[2001:db8::1.2.3.4]:443", b"A.", b"1.2.3.4", b"[::]", b"x_y-z.example.:65535"]
PROXIES = [
    b"PROXY TCP4 192.0.2.1 198.51.100.255 56324 443\r\nGET",
    b"PROXY TCP6 2001:db8::1 ::ffff:1.2.3.4 1 65535\r\n",
    b"PROXY UNKNOWN x\r\n",
    b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x00\x50\x01\xbb",
    b"\r\n\r\n\x00\r\nQUIT\n\x21\x21\x00\x24" + bytes(range(36)),
]
HELLOS = [
    real_hello("name.example", alpn=["h2", "http/1.1"]),
    records(message_of(real_hello("name.example")), [1, 2, 3, 4, 100]),
    build(versions(0x0304, 0x0303), server_name(b"A.example"), alpn_list(b"h2", b"h3"), (0x0A0A, b"")),
    records(build_message([server_name(b"A.example")], session=b"s" * 32), [7] * 20),
    records(build_message(None)),
]
BLOCKS = [
    bytes.fromhex("828684418cf1e3c2e5f23a6ba0ab90f4ff5886a8eb10649cbf408825a849e95ba97d7f8925a849e95bb8e8b4bf"),
    bytes.fromhex("203fe11f8286040c2f73616d706c652f70617468100870617373776f726406736563726574be6003613d316003623d32"),
    bytes.fromhex("48033330325885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3"),
    b"\x82\x87\x84\x41\x01a" + b"\x40\x03x-a\x7f\x81\x01" + b"v" * 256 + b"\xbe" * 3 + b"\x0f\x0d\x0215",
]
CODES = [
    bytes.fromhex("d07abe941054d444a8200595040b8166e082a62d1bff"),
    bytes.fromhex("fffffffa7fffffffe8fe"),
    b"\x00" * 9,
    b"\xff\xff\xc7",
]
FRAMES = [
    bytes.fromhex("000000040100000000"),
    bytes.fromhex("00000c040000000000000300000064000400010000"),
    bytes.fromhex("00000a012d000000010100000003ff82868400"),
    bytes.fromhex("0000050009000000030268690000"),
    bytes.fromhex("000004080000000000000000010000080600000000000102030405060708"),
]
PIECES = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b"\x00",
    b"\x7f",
    b"\x80",
    b"\xff",
    b":",
    b";",
    b",",
    b'"',
    b"\\",
    b"%",
    b"/",
    b".",
    b"[",
]
PIECES += [
    b"0",
    b"ffffffffffffffff",
    b"7fffffffffffffff",
    b"9223372036854775808",
    b"a" * 300,
    b"a:\r\n" * 110,
    b"Content-Length: 1\r\n",
]
PIECES += [
    b"Transfer-Encoding: chunked\r\n",
    b"Host: b\r\n",
    b"Connection: x\r\n",
    b"Upgrade: h2c\r\n",
    b"_",
    b"#",
    b"?",
    b"@",
    b"%2e",
    b"%2f",
]


def mutate(rng: random.Random, seeds: list[bytes]) -> bytes:
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice([1, 1, 2, 3, 5, 9])):
        at = rng.randrange(len(data) + 1)
        what = rng.randrange(7)
        if what == 0:
            data[at:at] = rng.choice(PIECES)
        elif what == 1 and at < len(data):
            data[at] = rng.randrange(256)
        elif what == 2 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif what == 3:
            del data[at : at + rng.choice([1, 1, 2, 8])]
        elif what == 4:
            del data[at:]
        elif what == 5:
            data[at:at] = data[at : at + rng.randrange(40)]
        else:
            other = rng.choice(seeds)
            data[at:] = other[rng.randrange(len(other) + 1) :]
    return bytes(data[:6000])


def check_request(rng: random.Random, data: bytes) -> None:
    limits = {"max_count": rng.choice([3, 100]), "max_bytes": rng.choice([60, 32768]), "max_line": rng.choice([20, 8192])}
    whole = selftest.parse_request(data, **limits)
    for cuts in (rng.randrange(1, 9), [rng.randrange(len(data) + 1) for _ in range(3)]):
        pieces = selftest.parse_request(data, cuts, **limits)
        # Two faults in one head may be met in another order; that it is refused never depends on how it arrives.
        assert bool(pieces["fault"]) is bool(whole["fault"])
        assert whole["fault"] or pieces == whole
    if not whole["used"]:
        return
    written = selftest.reencode_request(data, connection=rng.randrange(3))
    again = selftest.parse_request(written, max_count=200, max_bytes=1 << 20, max_line=1 << 20)
    assert (again["fault"], again["used"]) == (None, len(written))
    for key in ("method", "path", "query", "host", "port", "authority"):
        assert again[key] == whole[key], key
    if whole["framing"]:
        assert (again["framing"], again["length"]) == (whole["framing"], whole["length"])


def check_response(rng: random.Random, data: bytes) -> None:
    method = rng.choice([1, 2, 9])
    whole = selftest.parse_response(data, request_method=method)
    pieces = selftest.parse_response(data, rng.randrange(1, 9), request_method=method)
    assert bool(pieces["fault"]) is bool(whole["fault"])
    assert whole["fault"] or pieces == whole
    if whole["used"]:
        connection = 3 if whole["status"] == 101 else rng.randrange(3)
        written = selftest.reencode_response(data, request_method=method, connection=connection, keep_length=method == 2)
        again = selftest.parse_response(written, request_method=method)
        assert (again["fault"], again["used"], again["status"]) == (None, len(written), whole["status"])
        assert (again["framing"], again["length"]) == (whole["framing"], whole["length"] if whole["framing"] or method == 2 else 0)


def check_body(rng: random.Random, data: bytes) -> None:
    framing = rng.choice([0, 1, 2, 2, 2, 2, 2, 3])
    length = rng.choice([0, 1, 7, len(data), 2**63 - 1])
    whole = selftest.decode_body(data, framing=framing, length=length)
    for cuts in (1, rng.randrange(1, 40), [rng.randrange(len(data) + 1) for _ in range(4)]):
        assert selftest.decode_body(data, cuts, framing=framing, length=length) == whole
    short = selftest.decode_body(data, framing=framing, length=length, keep_trailers=False)
    assert {**short, "trailers": None} == {**whole, "trailers": None}
    assert not whole["end"] or whole["eof"] is None
    if whole["end"] and whole["trailers"]:
        kept = selftest.filter_trailer_fields(whole["trailers"])
        assert selftest.decode_body(selftest.encode_last_chunk(whole["trailers"]))["trailers"] == kept


def check_path(rng: random.Random, data: bytes) -> None:
    result = selftest.normalise(data)
    if result is not None:
        assert selftest.normalise(result) == result
        assert not {b".", b".."} & set(result.split(b"/")) and b"//" not in result and len(result) <= len(data)


def check_authority(rng: random.Random, data: bytes) -> None:
    found = selftest.split_authority(data)
    if found and data:
        host, port = found
        assert selftest.split_authority(host + (b":%d" % port if port else b"")) == found
    selftest.read_ipv4(data)
    selftest.read_ipv6(data)
    selftest.read_ipv6(data[1:])
    selftest.read_port(data)
    selftest.read_length(data)
    selftest.token(data)
    selftest.name_is_token(data)
    selftest.value_is_clean(data)


def check_proxy(rng: random.Random, data: bytes) -> None:
    answer = selftest.read_proxy_header(data)
    if answer["used"]:
        assert selftest.read_proxy_header(data[: answer["used"]]) == answer
        assert selftest.read_proxy_header(data[: answer["used"] - 1]) == {"fault": None, "used": 0}


def check_hello(rng: random.Random, data: bytes) -> None:
    whole = selftest.read_client_hello(data)
    for n in [rng.randrange(len(data) + 1) for _ in range(6)]:
        short = selftest.read_client_hello(data[:n])
        if short["used"] or short["fault"]:
            assert short == whole
        else:
            assert n < short["wants"] <= 32768
    if whole["used"]:
        assert selftest.read_client_hello(data[: whole["used"]]) == whole
        assert selftest.read_client_hello(data[: whole["used"] - 1])["used"] == 0
        name = whole["name"]
        assert name is None or selftest.split_authority(name) == (name, 0)
    selftest.is_http_instead(data)


def check_block(rng: random.Random, data: bytes) -> None:
    """Two blocks on one table: whatever they are, the table stays sound (the reader looks), and the limits hold."""
    reader = h2test.HpackReader()
    most = {"max_count": rng.choice([3, 100]), "max_list": rng.choice([200, 32768]), "max_target": rng.choice([5, 8192])}
    for piece in (data[: rng.randrange(len(data) + 1)], data, data[rng.randrange(len(data) + 1) :]):
        kind = rng.choice(["request", "request", "response", "trailers"])
        head = reader.read(piece, kind, validate=rng.random() < 0.7, ended=rng.random() < 0.5, method=rng.choice([1, 2, 9]), **most)
        assert reader.facts()[3] <= 8192
        if head["fault"] == "hpack":
            return
        if head["fault"] is None:
            assert head["list"] <= most["max_list"] and head["count"] <= most["max_count"]
            pairs = [(name, value) for name, value, hop, drop in head["fields"] if not hop and not drop]
            again = h2test.HpackReader().read(h2test.HpackWriter().write(pairs, "trailers"), "trailers", max_list=1 << 20)
            names = {b"host", b"content-length", b"connection", b"keep-alive", b"proxy-connection", b"te", b"upgrade"}
            names |= {b"transfer-encoding", b"http2-settings"}
            assert [(name, value) for name, value, _, _ in again["fields"]] == [pair for pair in pairs if pair[0] not in names]


def check_code(rng: random.Random, data: bytes) -> None:
    text = h2test.huffman_read(data)
    if text is not None:
        assert h2test.huffman_write(text) == data
    assert h2test.huffman_read(h2test.huffman_write(data)) == data


def check_frame(rng: random.Random, data: bytes) -> None:
    if len(data) >= 9:
        length, type_, flags, stream, _ = h2test.frame_head(data, rng.choice([16384, 1 << 24]))
        assert h2test.put_frame_head(length, type_, flags, stream)[:9] == data[:5] + bytes([data[5] & 127]) + data[6:9]
        h2test.headers_piece(flags, stream, data[9:])
        h2test.padding(flags, length, data[9:10] or b"\x00")
    fault, settings = h2test.read_settings(data[: len(data) // 6 * 6], rng.random() < 0.5)
    assert fault or (settings["window"] <= 0x7FFFFFFF and 16384 <= settings["frame"] <= 16777215 and settings["push"] <= 1)
    urgency, _ = h2test.read_priority(data)
    assert urgency <= 7
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(3))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    assert h2test.join_pieces(pieces) == data


def session_seeds() -> list[bytes]:
    """What clients and origins say, whole conversations of one side."""
    speaker = h2frames.Speaker()
    begin = h2frames.PREFACE + h2frames.settings((4, 70000), (1, 100)) + h2frames.frame(h2frames.SETTINGS, h2frames.ACK)
    post = [*h2frames.POST, (b"content-length", b"8"), (b"priority", b"u=1, i")]
    requests = (
        speaker.headers(1, h2frames.GET)
        + speaker.headers(3, post, end=False)
        + h2frames.data(3, b"abc", padding=4)
        + h2frames.update(0, 5000)
        + h2frames.data(3, b"defgh")
        + speaker.headers(3, [(b"x-sum", b"1")])
        + h2frames.rst(1)
        + h2frames.frame(h2frames.PING, 0, 0, b"12345678")
        + speaker.headers(5, [(b":method", b"CONNECT"), (b":protocol", b"websocket"), *h2frames.GET[1:]], end=False)
        + h2frames.data(5, b"x" * 50)
        + h2frames.frame(h2frames.PRIORITY, 0, 5, b"\x00\x00\x00\x03\x10")
        + h2frames.goaway(0)
    )
    speaker = h2frames.Speaker()
    responses = (
        h2frames.settings((3, 10))
        + h2frames.frame(h2frames.SETTINGS, h2frames.ACK)
        + speaker.headers(1, [(b":status", b"103")], end=False)
        + speaker.headers(1, [*h2frames.OK, (b"content-length", b"5")], end=False)
        + h2frames.data(1, b"hello", True)
        + speaker.headers(3, h2frames.OK, end=False)
        + h2frames.data(3, b"y" * 30)
        + speaker.headers(3, [(b"grpc-status", b"0")])
        + h2frames.goaway(3)
    )
    return [begin + requests, responses, begin + requests[:60] + responses]


def check_session(rng: random.Random, data: bytes) -> None:
    """Whatever a peer says: the books are right after each piece, each stream ends once, and how the bytes come changes nothing."""
    seed, told = rng.random(), []
    for piece in (0, rng.randrange(1, 40)):
        ours = random.Random(seed)
        is_server = ours.random() < 0.5
        session = h2probe.Session(
            is_server, window=ours.choice([100, 65535]), connection_window=65535, held=ours.choice([10, 5000])
        )
        opened, gone = set(), []
        for _ in range(0 if is_server else 4):
            opened.add(session.open([(b":method", b"POST"), (b":path", b"/"), (b":authority", b"a")], has_more=True))
        session.feed(data, piece)
        session.output(ours.choice([5, 100000]))
        events = session.events
        told.append([event for event in events if event[0] not in ("data", "drained")])
        for stream in sorted(session.streams()):
            what = ours.randrange(5)
            if what == 0:
                session.reset(stream)
            elif what == 1:
                session.pause(stream)
            elif is_server:
                session.respond(stream, [(b":status", b"200")])
                if stream in session.streams():
                    session.send(stream, b"z" * ours.choice([0, 10, 90000]))
                    session.finish(stream, [(b"x", b"1")] if what == 2 else None)
        session.output()
        session.feed(data[len(data) // 2 :], piece)
        session.tick(ours.choice([2000, 10**6]))
        session.output()
        for stream in sorted(session.streams()):
            session.resume(stream)
        session.close()
        events += session.events
        opened |= {event[1] for event in events if event[0] == "open"}
        gone = [event[1] for event in events if event[0] == "gone"]
        assert len(gone) == len(set(gone)) and set(gone) == opened
        assert session.facts()["held"] == session.facts()["withheld"] == 0
    assert told[0] == told[1]


TARGETS: dict[str, tuple[Callable[[random.Random, bytes], None], list[bytes]]] = {
    "request": (check_request, REQUESTS),
    "response": (check_response, RESPONSES),
    "body": (check_body, BODIES),
    "path": (check_path, PATHS),
    "authority": (check_authority, AUTHORITIES),
    "proxy": (check_proxy, PROXIES),
    "hello": (check_hello, HELLOS),
    "block": (check_block, BLOCKS),
    "code": (check_code, CODES),
    "frame": (check_frame, FRAMES),
    "session": (check_session, session_seeds()),
}


def inputs(rng: random.Random, seeds: list[bytes]) -> Iterator[bytes]:
    """The seeds themselves and each of their prefixes, then mutations until the time is over."""
    for seed in seeds:
        yield from (seed[:n] for n in range(0, len(seed) + 1, 1 if len(seed) < 300 else 7))
    end = time.monotonic() + SECONDS
    tried = 0
    while tried < LEAST or time.monotonic() < end:
        tried += 1
        yield mutate(rng, seeds)


@pytest.mark.parametrize("target", TARGETS)
def test_fuzz(target: str) -> None:
    check, seeds = TARGETS[target]
    rng = random.Random(f"{SEED} {target}")
    for data in inputs(rng, seeds):
        try:
            check(rng, data)
        except Exception as problem:
            problem.add_note(f"GW_FUZZ_SEED={SEED} target={target} input={data!r}")
            raise


def test_random_bytes() -> None:
    """Bytes without any shape: nothing but the first checks should ever see them, and they must not fall over."""
    rng = random.Random(SEED)
    for _ in range(500):
        data = rng.randbytes(rng.randrange(64))
        for check, _seeds in TARGETS.values():
            check(rng, data)
