"""The floods of HTTP/2 on real sockets: classes D1 to D9 from clients, D14 from origins. Each ends its connection, with a counter;
memory stays, no more reaches an origin than streams are allowed, and a clean client beside it is served.
"""

import contextlib
import select
import socket
import threading
from collections.abc import Callable, Iterator
from itertools import count

import pytest
from data_plane import DataPlane, origin_config
from faulty import Origin, Wire, get
from h2frames import (
    ACK,
    CALM,
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    GET,
    GOAWAY,
    HEADERS,
    OK,
    PING,
    POST,
    PREFACE,
    PRIORITY,
    PROTOCOL,
    SETTINGS,
    STREAM_CLOSED,
    Speaker,
    data,
    frame,
    frames,
    rst,
    setting,
    settings,
    update,
)

PATIENCE = 20.0
MIB = 1 << 20
BIG = b"x" * MIB
Frames = Iterator[bytes]


class Holding(Origin):
    """Counts the requests that it has, and answers those for /clean alone, until it is closed."""

    def __init__(self) -> None:
        super().__init__(self.hold)
        self.held = self.most = 0
        self.lock = threading.Lock()

    def hold(self, origin: Origin, wire: Wire) -> None:
        while (request := wire.request()) is not None:
            self.requests.append(request)
            if request.target != "/clean":
                with self.lock:
                    self.held += 1
                    self.most = max(self.most, self.held)
                try:
                    wire.sock.settimeout(None)
                    with contextlib.suppress(OSError):
                        wire.sock.recv(1)
                finally:
                    with self.lock:
                        self.held -= 1
                return
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def attack(port: int, sent: Frames, *, read: bool = True, first: bytes = settings(), most: int = 1 << 28) -> int:
    """Sends until the gateway takes no more, and reads unless told otherwise. The error of its GOAWAY; -1: none was to be read."""
    total, got = 0, bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock, contextlib.suppress(ConnectionError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(PREFACE + first + frame(SETTINGS, ACK))
        try:
            for piece in sent:
                sock.sendall(piece)
                total += len(piece)
                assert total < most, "it may go on for ever"
                if read and select.select([sock], [], [], 0)[0]:
                    if not (came := sock.recv(1 << 16)):
                        break
                    got += came
        finally:
            while select.select([sock], [], [], PATIENCE)[0] and (came := sock.recv(1 << 16)):
                got += came
    ends = [each for each in frames(bytes(got[: whole(got)])) if each.type == GOAWAY]
    return ends[-1].code if ends else -1


def whole(got: bytes | bytearray) -> int:
    """Where the last whole frame ends."""
    at = 0
    while len(got) >= at + 9 and len(got) >= (end := at + 9 + int.from_bytes(got[at : at + 3], "big")):
        at = end
    return at


def asked(speaker: Speaker, *more: Callable[[int], bytes], post: bool = False) -> Frames:
    """One request after another, each followed by something."""
    for stream in count(1, 2):
        head = speaker.headers(stream, POST if post else GET, not post)
        yield head
        for each in more:
            yield each(stream)


def rapid() -> Frames:
    return asked(Speaker(), rst)


def made(piece: Callable[[int], bytes], post: bool = False) -> Callable[[], Frames]:
    return lambda: asked(Speaker(), piece, post=post)


def continued(piece: bytes) -> Callable[[], Frames]:
    def sent() -> Frames:
        yield frame(HEADERS, 0, 1, b"\x82")
        while True:
            yield frame(CONTINUATION, 0, 1, piece)

    return sent


def bomb() -> Frames:
    """One entry of the table, 15,000 times in each request."""
    speaker = Speaker()
    yield speaker.headers(1, [*GET, (b"a", b"")])
    for stream in count(3, 2):
        yield frame(HEADERS, END_HEADERS | END_STREAM, stream, speaker.encoder.encode(GET) + b"\xbe" * 15000)


def crumbs() -> Frames:
    """A cookie in thousands of pieces: they count as fields, before they are joined."""
    speaker = Speaker()
    for stream in count(1, 2):
        yield speaker.headers(stream, [*GET, *[(b"cookie", b"")] * 3000])


def resizing() -> Frames:
    for stream in count(1, 2):
        yield frame(HEADERS, END_HEADERS | END_STREAM, stream, b"\x20\x3f\xe1\x1f" * 8 + Speaker().encoder.encode(GET)[3:])


def again(piece: bytes, *before: bytes) -> Callable[[], Frames]:
    def sent() -> Frames:
        yield from before
        while True:
            yield piece * 100

    return sent


OPEN = Speaker().headers(1, POST, end=False)
# by name: what is sent, the error of the connection, the faults that count it, and whether the client reads
ATTACKS: dict[str, tuple[Callable[[], Frames], int, set[str], bool]] = {
    "D1 rapid reset": (rapid, CALM, {"flood_reset"}, True),
    "D2 increment of nothing": (made(lambda s: update(s, 0)), PROTOCOL, {"h2_frame"}, True),
    "D2 window beyond its bound": (made(lambda s: update(s, 0x7FFFFFFF)), CALM, {"h2_window", "flood_fault"}, True),
    "D2 priority of 3 bytes": (made(lambda s: frame(PRIORITY, 0, s, b"abc")), 6, {"h2_frame_size"}, True),
    "D2 priority on itself": (made(lambda s: frame(PRIORITY, 0, s, s.to_bytes(4, "big") + b"x")), PROTOCOL, {"h2_frame"}, True),
    "D2 head after the end": (made(lambda s: frame(HEADERS, 5, s, b"\x82")), STREAM_CLOSED, {"h2_stream"}, True),
    "D2 content after the end": (made(lambda s: data(s, b"x")), STREAM_CLOSED, {"h2_stream"}, True),
    "D3 continuation": (continued(b"\x00" * 16384), CALM, {"flood_block"}, True),
    "D3 empty continuation": (continued(b""), CALM, {"flood_block"}, True),
    "D4 references": (bomb, CALM, {"fields_many", "flood_fault"}, True),
    "D4 cookie crumbs": (crumbs, CALM, {"fields_many", "flood_fault"}, True),
    "D6 ping": (again(frame(PING, payload=b"12345678")), CALM, {"flood_ping"}, False),
    "D6 settings": (again(settings((4, 65535))), CALM, {"flood_settings"}, False),
    "D7 empty content": (again(data(1), OPEN), CALM, {"flood_empty"}, False),
    "D7 padding": (again(data(1, b"x", padding=255), OPEN), CALM, {"flood_empty"}, True),
    "D8 priority": (again(frame(PRIORITY, 0, 1, b"\0\0\0\0\x10")), CALM, {"flood_control"}, False),
    "D8 updates": (again(update(0, 1)), CALM, {"flood_control"}, False),
    "D8 unknown frames": (again(frame(77)), CALM, {"flood_control"}, False),
    "D8 settings of many entries": (again(frame(SETTINGS, payload=setting(4, 65535) * 65)), CALM, {"flood_settings"}, False),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_flood_of_a_client(name: str) -> None:
    sent, code, faults, read = ATTACKS[name]
    origin = Holding()
    with origin, DataPlane(origin_config(origin.port), log="off") as plane:
        assert get(plane.port, "/clean").status == 200
        attack(plane.port, sent(), read=read)  # what is made once is there
        before, seen = plane.memory(), len(origin.requests)
        told = {attack(plane.port, sent(), read=read) for _ in range(8)}
        # who does not read may find the connection reset before it sees why
        assert told <= {code, -1} and (not read or code in told)
        assert set(plane.faults()) >= faults and set(plane.faults()) <= {*faults, "h2_stall"}
        assert len(origin.requests) - seen <= 8 * 300 and origin.most <= 200, (len(origin.requests), origin.most)
        # every request of a connection that is gone was given up at its origin
        plane.until(lambda: origin.held == 0)
        plane.until(lambda: plane.ask("connections")["open"] == 0)
        assert get(plane.port, "/clean").status == 200
        assert plane.memory() - before < 4 * MIB


def test_d9_five_hundred_readers_of_nothing_hold_little_and_stop_their_origins() -> None:
    """1 MiB for each, of which nobody takes a byte: what waits is bounded, and so is what the origin gets rid of."""
    taken: list[int] = []

    def send(origin: Origin, wire: Wire) -> None:
        if wire.request() is None:
            return
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (4 * MIB))
        mine = len(taken)
        taken.append(0)
        for _ in range(4 * MIB // 16384):
            wire.send(BIG[:16384])
            taken[mine] += 16384

    with Origin(send) as origin, DataPlane(origin_config(origin.port), log="off") as plane, contextlib.ExitStack() as open_:
        get_one(plane.port, open_)
        plane.until(lambda: len(taken) == 1)
        before = plane.memory()
        for _ in range(500):
            get_one(plane.port, open_)
        plane.until(lambda: len(taken) == 501)
        last = -1
        while last != (last := sum(taken)):
            plane.ask("connections")
        each = (plane.memory() - before) / 500
        print(f"{each / 1024:.0f} KiB each, {last / 501 / 1024:.0f} KiB sent by each origin")
        assert each < 192 * 1024


def get_one(port: int, open_: contextlib.ExitStack) -> None:
    sock = open_.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE))
    sock.sendall(PREFACE + settings((4, 0)) + frame(SETTINGS, ACK) + Speaker().headers(1, GET))


# ---- origins


def origin_of(*pieces: bytes, head: bool = False) -> Callable[[Origin, Wire], None]:
    """An origin of HTTP/2 that takes what comes, and says the same again and again until it is cut off."""

    def script(origin: Origin, wire: Wire) -> None:
        sock = wire.sock
        sock.sendall(settings() + frame(SETTINGS, ACK))
        got = b""
        while not any(each.type == HEADERS for each in frames(got[: len(PREFACE) + whole(got[len(PREFACE) :])])):
            got += sock.recv(1 << 16)
        if head:
            sock.sendall(Speaker().headers(1, OK, end=False))
        sock.sendall(pieces[0])
        with contextlib.suppress(OSError):
            for n in count():
                sock.sendall((pieces[1] if len(pieces) > 1 else pieces[0]) * 50)
                assert n < 1 << 16, "it may go on for ever"

    return script


MORE = frame(CONTINUATION, 0, 1, b"\0" * 16384)
FLOODS = {
    "ping": (origin_of(frame(PING, payload=b"12345678")), "flood_ping"),
    "settings": (origin_of(settings((4, 65535))), "flood_settings"),
    "updates": (origin_of(update(0, 1)), "flood_control"),
    "unknown frames": (origin_of(frame(77)), "flood_control"),
    "continuation": (origin_of(frame(HEADERS, 0, 1, b"\x88"), MORE), "flood_block"),
    "empty continuation": (origin_of(frame(HEADERS, 0, 1, b"\x88"), frame(CONTINUATION, 0, 1)), "flood_block"),
    "a field of 1 MiB": (origin_of(frame(HEADERS, 0, 1, b"\x88\0\x01a\x7f\xff\xff\x3f"), MORE), "flood_block"),
}  # fmt: skip


@pytest.mark.parametrize("name", FLOODS)
def test_d14_a_flood_of_an_origin(name: str) -> None:
    """502, the connection closed, memory as before."""
    script, fault = FLOODS[name]
    with Origin(script) as origin, DataPlane(origin_config(origin.port, cluster={"protocol": "HTTP2"})) as plane:
        assert get(plane.port).status == 502
        before = plane.memory()
        for _ in range(5):
            assert get(plane.port).status == 502
        assert set(plane.faults()) == {fault}
        assert {(each["status"], each["detail"]) for each in plane.records(6)} == {(502, fault)}
        plane.until(lambda: origin.open == 0)
        assert plane.memory() - before < 2 * MIB


def test_d14_empty_content_of_an_origin_ends_the_answer() -> None:
    with Origin(origin_of(data(1), head=True)) as origin, DataPlane(
        origin_config(origin.port, cluster={"protocol": "HTTP2"})
    ) as plane:
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", plane.port), timeout=PATIENCE) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
                got = b""
                while came := sock.recv(1 << 16):
                    got += came
            assert got.startswith(b"HTTP/1.1 200 ") and not got.endswith(b"0\r\n\r\n")
        assert set(plane.faults()) == {"flood_empty"}
        assert {each["flags"] for each in plane.records(5)} == {"UC"}
        plane.until(lambda: origin.open == 0)
