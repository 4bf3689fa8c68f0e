"""Who does not read makes the other side stop, and costs the gateway a bounded piece of memory: seen from outside, as resident
bytes of its process and as what the faster side could get rid of.

The kernel's buffers are not the gateway's: they are what the faster side can fill, some MiB a connection, and nothing after that.
"""

import random
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from data_plane import DataPlane, origin_config
from faulty import SECONDS, Message, Origin, Script, Wire, answer, client, get
from until import wait_until

N = 20
MIB = 1 << 20
SIZE = 64 * MIB
EACH = 256 * 1024
PIECE = random.Random(20).randbytes(MIB)
CRUMBS = b"".join(b"40\r\n" + PIECE[i : i + 64] + b"\r\n" for i in range(0, MIB, 64))
BLANK = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n"
HEADS = {
    "length": f"content-length: {SIZE}\r\n\r\n".encode(),
    "chunked": b"transfer-encoding: chunked\r\n\r\n",
    "crumbs": b"transfer-encoding: chunked\r\n\r\n",
    "close": b"\r\n",
}


class Flow:
    """What one side of a connection got rid of. It stops when it is told to, and not by an error."""

    def __init__(self) -> None:
        self.sent = 0
        self.stopped = threading.Event()
        self._thread = threading.Thread(daemon=True)

    def pour(self, wire: Wire, pieces: Iterator[bytes]) -> None:
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                while not select.select([], [wire.sock], [], 0.05)[1]:
                    if self.stopped.is_set():
                        return
                n = wire.sock.send(rest[:65536], socket.MSG_DONTWAIT)
                self.sent += n
                rest = rest[n:]

    def start(self, wire: Wire, pieces: Iterator[bytes]) -> None:
        self._thread = threading.Thread(target=self.pour, args=(wire, pieces), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.stopped.set()
        if self._thread.ident:
            self._thread.join(SECONDS)


def narrow_client(port: int) -> Wire:
    """A client with a small receive buffer: what it does not read stays with the gateway soon."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    sock.settimeout(SECONDS)
    sock.connect(("127.0.0.1", port))
    return Wire(sock)


def widen(wire: Wire) -> None:
    """From here on it reads, and in large pieces."""
    wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MIB)


def wait_until_still(value: Callable[[], int]) -> None:
    """Until the number did not change for a quarter of a second. On a machine that stood still meanwhile this is too early, which
    makes what is checked afterwards easier and not harder."""
    last, since = value(), time.monotonic()

    def is_still() -> bool:
        nonlocal last, since
        if (now := value()) != last:
            last, since = now, time.monotonic()
        return time.monotonic() - since > 0.25

    wait_until(is_still)


def pieces_of(framing: str) -> Iterator[bytes]:
    for _ in range(SIZE // MIB):
        if framing == "crumbs":
            yield CRUMBS
        elif framing == "chunked":
            yield b"%x\r\n" % MIB + PIECE + b"\r\n"
        else:
            yield PIECE


def content_of(wire: Wire, head: Message, n: int) -> bytes:
    """The first n bytes of the content at least, without what frames it."""
    if head.get("transfer-encoding") != "chunked":
        return wire.exactly(n, Message())
    got = bytearray()
    while len(got) < n:
        got += wire.exactly(int(wire.line() or b"", 16), Message())
        assert wire.exactly(2, Message()) == b"\r\n"
    return bytes(got)


def is_stream(got: bytes) -> bool:
    """Whether it is the beginning of what everybody sends here."""
    return got == (PIECE * (len(got) // MIB + 1))[: len(got)]


def in_flight(plane: DataPlane) -> list[dict[str, int]]:
    return [row for row in plane.ask("connections")["rows"] if row.get("path") == "/large"]


def endless(flows: list[Flow], framing: str) -> Script:
    """Answers with SIZE bytes, counted; / is answered at once."""

    def script(origin: Origin, wire: Wire) -> None:
        while (request := wire.request()) is not None:
            if request.target == "/":
                wire.send(answer(b"ok"))
                continue
            wire.send(b"HTTP/1.1 200 OK\r\n" + HEADS[framing])
            flows.append(Flow())
            flows[-1].stopped = origin.stop
            flows[-1].pour(wire, pieces_of(framing))
            return

    return script


@pytest.mark.parametrize("framing", HEADS)
def test_clients_that_do_not_read_stop_their_origins(framing: str) -> None:
    """Twenty answers of 64 MiB each that nobody reads; then two of them are, and go on."""
    flows: list[Flow] = []
    with Origin(endless(flows, framing)) as origin, DataPlane(origin_config(origin.port)) as plane, ExitStack() as stack:
        assert get(plane.port).status == 200
        before = plane.memory()
        wires = [stack.enter_context(narrow_client(plane.port)) for _ in range(N)]
        for wire in wires:
            wire.send(b"GET /large HTTP/1.1\r\nhost: test\r\n\r\n")
        plane.until(lambda: len(flows) == N and all(flow.sent for flow in flows), SECONDS)
        wait_until_still(lambda: sum(flow.sent for flow in flows))
        assert plane.memory() - before < N * EACH
        stopped_at = sum(flow.sent for flow in flows)
        assert max(flow.sent for flow in flows) < SIZE * 3 / 4
        rows = in_flight(plane)
        assert len(rows) == N and all(0 < row["queued_bytes"] + row["held_bytes"] < EACH for row in rows)
        # a client that does read is served between them
        assert get(plane.port).body == b"ok"
        for wire in wires[:2]:
            widen(wire)
            head = wire.head()
            assert head is not None and head.status == 200
            # a crumb is a line and a piece: what is read in Python takes its time
            assert is_stream(content_of(wire, head, MIB // 8 if framing == "crumbs" else 4 * MIB))
        plane.until(lambda: framing == "crumbs" or sum(flow.sent for flow in flows) > stopped_at)
        assert plane.memory() - before < N * EACH
        for wire in wires:
            wire.reset()
        # and an origin whose client is gone is let go of
        plane.until(lambda: plane.cluster()["active"] == 0 and plane.ask("connections")["open"] == 0)
        assert ends_of(plane) == {"DC": N}


def ends_of(plane: DataPlane) -> dict[str, int]:
    flags = [record["flags"] for record in plane.records(N + 2) if record["path"] == "/large"]
    return {flag: flags.count(flag) for flag in flags}


def taking(requests: list[Message], read: list[bytes], go: threading.Event) -> Script:
    """Reads a head; and of its content the first MiB, when it may."""

    def script(origin: Origin, wire: Wire) -> None:
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        while (head := wire.head()) is not None:
            if head.method == "GET":
                wire.send(answer(b"ok"))
                continue
            requests.append(head)
            wait_until(lambda: go.is_set() or origin.stop.is_set(), 3 * SECONDS)
            if not origin.stop.is_set():
                widen(wire)
                read.append(content_of(wire, head, 4 * MIB))
            origin.stop.wait()
            return

    return script


@pytest.mark.parametrize("framing", ["length", "chunked", "crumbs"])
def test_origins_that_do_not_read_stop_their_clients(framing: str) -> None:
    """Twenty uploads of 64 MiB each that the origin does not read; then it reads two of them, and these go on."""
    flows = [Flow() for _ in range(N)]
    requests: list[Message] = []
    read: list[bytes] = []
    go = threading.Event()
    with Origin(taking(requests, read, go)) as origin, DataPlane(origin_config(origin.port)) as plane, ExitStack() as stack:
        assert get(plane.port).status == 200
        before = plane.memory()
        wires = [stack.enter_context(client(plane.port)) for _ in range(N)]
        for wire, flow in zip(wires, flows, strict=True):
            wire.send(b"POST /large HTTP/1.1\r\nhost: test\r\n" + HEADS[framing])
            flow.start(wire, pieces_of(framing))
        plane.until(lambda: len(requests) == N and all(flow.sent for flow in flows), 3 * SECONDS)
        wait_until_still(lambda: sum(flow.sent for flow in flows))
        assert plane.memory() - before < N * EACH
        assert max(flow.sent for flow in flows) < SIZE * 3 / 4
        assert get(plane.port).body == b"ok"
        for wire, flow in zip(wires[2:], flows[2:], strict=True):
            flow.stop()
            wire.reset()
        plane.until(lambda: len(in_flight(plane)) == 2)
        stopped_at = [flow.sent for flow in flows[:2]]
        go.set()
        plane.until(lambda: framing == "crumbs" or len(read) == 2, 3 * SECONDS)
        assert all(is_stream(each) for each in read)
        if framing != "crumbs":
            assert all(flow.sent > before for flow, before in zip(flows, stopped_at, strict=False))
        assert plane.memory() - before < N * EACH
        for wire, flow in zip(wires[:2], flows[:2], strict=True):
            flow.stop()
            wire.reset()
        plane.until(lambda: plane.ask("connections")["open"] == 0)
        assert ends_of(plane) == {"DC": N}


def test_a_client_that_asks_and_does_not_read_is_not_listened_to() -> None:
    """Requests without end on one connection, each answered with 32 KiB: the gateway stops to read them."""
    asked: list[int] = []

    def script(origin: Origin, wire: Wire) -> None:
        while wire.request() is not None:
            asked.append(1)
            wire.send(answer(PIECE[:32768]))

    with Origin(script) as origin, DataPlane(origin_config(origin.port), log="off") as plane, ExitStack() as stack:
        assert get(plane.port).status == 200
        before = plane.memory()
        wires = [stack.enter_context(narrow_client(plane.port)) for _ in range(N)]
        flows = [Flow() for _ in wires]
        for wire, flow in zip(wires, flows, strict=True):
            flow.start(wire, (BLANK * (MIB // len(BLANK)) for _ in range(SIZE // MIB)))
        plane.until(lambda: all(flow.sent for flow in flows) and len(asked) > N, SECONDS)
        wait_until_still(lambda: sum(flow.sent for flow in flows) + len(asked))
        assert plane.memory() - before < N * EACH
        assert max(flow.sent for flow in flows) < SIZE * 3 / 4
        # what was asked of the origin is what fits into the buffers on the way
        assert len(asked) < N * 8 * MIB // 32768
        # who begins to read gets an answer to each request, in order
        for _ in range(50):
            response = wires[0].response()
            assert response.status == 200 and response.body == PIECE[:32768]
        for wire, flow in zip(wires, flows, strict=True):
            flow.stop()
            wire.reset()
        plane.until(lambda: plane.ask("connections")["open"] == 0)


@pytest.mark.parametrize("reader", ["client", "origin"])
def test_a_tunnel_whose_one_end_does_not_read_stops_the_other(reader: str) -> None:
    flows: list[Flow] = []

    def script(origin: Origin, wire: Wire) -> None:
        if wire.head() is None:
            return
        wire.send(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: flood\r\n\r\n")
        if reader == "client":
            flows.append(Flow())
            flows[-1].stopped = origin.stop
            flows[-1].pour(wire, pieces_of("close"))
        origin.stop.wait()

    with Origin(script) as origin, DataPlane(origin_config(origin.port)) as plane, ExitStack() as stack:
        wires = [stack.enter_context(narrow_client(plane.port)) for _ in range(N)]
        before = plane.memory()
        for wire in wires:
            wire.send(b"GET /large HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: flood\r\n\r\n")
            head = wire.head()
            assert head is not None and head.status == 101
            if reader == "origin":
                flows.append(Flow())
                flows[-1].start(wire, pieces_of("close"))
        plane.until(lambda: len(flows) == N and all(flow.sent for flow in flows), SECONDS)
        wait_until_still(lambda: sum(flow.sent for flow in flows))
        assert plane.memory() - before < N * EACH
        assert max(flow.sent for flow in flows) < SIZE * 3 / 4
        for wire, flow in zip(wires, flows, strict=True):
            if reader == "origin":
                flow.stop()
            wire.reset()
        plane.until(lambda: plane.ask("connections")["open"] == 0)
