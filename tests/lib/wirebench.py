"""The bench of the wire tests: a real Engine on uvloop in a thread, and both ends of it as plain sockets in the test's hands.

A test is a script of bytes. `Gateway.client()` is a client's socket, `Origin.accept()` the socket that the gateway dialled; the
test plays both, so that nothing happens behind its back and every byte that crossed can be named:

    client.send("GET / HTTP/1.1\\r\\nHost: a.test\\r\\n\\r\\n")
    origin = site.accept()
    assert origin.request() == forwarded("GET / HTTP/1.1", "host: a.test")
    origin.send("HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
    assert client.answer().body == b"ok"

No call waits for time: reads block until the bytes are there (with a deadline that only a bug meets), and `Gateway.turn()` waits
until the engine has handled everything that was sent before it.
"""

import contextlib
import json
import mmap
import re
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from gateway._core import counters
from gateway._core.engine import Engine
from gateway.control.build import Model, build
from gateway.control.compile import compile_model, name_id
from gateway.sources.files import load

T = TypeVar("T")
PATIENCE = 10.0
TICK = 0.01
ID = "00000000-0000-4000-8000-000000000000"
UUID = re.compile(rb"x-request-id: [0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\r\n")


def raw(text: str | bytes) -> bytes:
    return text.encode("latin-1") if isinstance(text, str) else text


@dataclass(frozen=True, slots=True)
class Answer:
    """A response as a client sees it, and the bytes that it was."""

    status: int
    reason: str
    fields: list[tuple[str, str]]
    body: bytes
    raw: bytes = field(repr=False)
    trailers: list[tuple[str, str]] = field(default_factory=list)

    def get(self, name: str) -> str | None:
        """The value of a field that may stand once."""
        values = [value for key, value in self.fields if key == name]
        assert len(values) < 2, f"{name} stands {len(values)} times"
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name]


class Wire:
    """One end of a connection. What was received and not yet asked for waits in `held`."""

    def __init__(self, gateway: "Gateway", end: socket.socket) -> None:
        self.gateway = gateway
        self.socket = end
        self.held = b""
        end.settimeout(PATIENCE)
        if end.family != socket.AF_UNIX:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    # ---- sending

    def send(self, text: str | bytes, cut: Any = None) -> None:
        """Sends the bytes: at once, byte by byte (cut="bytes"), or in pieces that end at the offsets given. The engine has read
        each piece before the next is sent."""
        data = raw(text)
        cuts = range(1, len(data)) if cut == "bytes" else sorted(cut or ())
        start = 0
        for end in [*cuts, len(data)]:
            try:
                self.socket.sendall(data[start:end])
            except OSError:
                # refused in the middle: what the other side answered is what counts
                return
            start = end
            if cut is not None:
                self.gateway.turn()

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """RST instead of FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        self.socket.close()

    # ---- receiving

    def more(self) -> bool:
        """Receives once; False at the end of the stream."""
        got = self.socket.recv(65536)
        self.held += got
        return bool(got)

    def take(self, n: int) -> bytes:
        taken, self.held = self.held[:n], self.held[n:]
        return taken

    def exactly(self, n: int) -> bytes:
        while len(self.held) < n:
            assert self.more(), f"ended after {self.held!r}, {n} bytes were expected"
        return self.take(n)

    def until(self, mark: bytes) -> bytes:
        while (at := self.held.find(mark)) < 0:
            assert self.more(), f"ended after {self.held!r} without {mark!r}"
        return self.take(at + len(mark))

    def rest(self) -> bytes:
        """Everything up to the end of the stream; a reset ends it too."""
        with contextlib.suppress(ConnectionResetError):
            while self.more():
                pass
        return self.take(len(self.held))

    def nothing_more(self) -> None:
        """Asserts that the engine sends nothing here for all that it was given so far, and keeps the connection."""
        self.gateway.turn()
        self.socket.setblocking(False)
        try:
            got = self.socket.recv(65536)
        except BlockingIOError:
            got = None
        finally:
            self.socket.settimeout(PATIENCE)
        assert got is None and not self.held, f"unexpected: {self.held!r} {got!r}"

    def ended(self) -> None:
        """Asserts that the other side closes the connection here, and sends nothing before."""
        assert self.rest() == b""


class Client(Wire):
    """A client of the gateway."""

    def answer(self, method: str = "GET") -> Answer:
        """The next response, final or 1xx. Reads its framing strictly: whatever is not right is an assertion."""
        head = self.until(b"\r\n\r\n")
        lines = head[:-4].split(b"\r\n")
        match = re.fullmatch(rb"HTTP/1\.1 ([1-5][0-9]{2}) ([ -~]*)", lines[0])
        assert match, lines[0]
        fields = [split_field(line) for line in lines[1:]]
        status = int(match[1])
        answer = Answer(status, match[2].decode(), fields, b"", head)
        coding, length = answer.get("transfer-encoding"), answer.get("content-length")
        assert coding is None or (coding == "chunked" and length is None), "two framings"
        if status < 200 or status in (204, 304) or method == "HEAD":
            return answer
        if coding:
            body, trailers, framing = self.chunks()
            return Answer(status, answer.reason, fields, body, head + framing, trailers)
        if length is not None:
            assert re.fullmatch("0|[1-9][0-9]*", length), length
            body = self.exactly(int(length))
        else:
            body = self.rest()
        return Answer(status, answer.reason, fields, body, head + body)

    def chunks(self) -> tuple[bytes, list[tuple[str, str]], bytes]:
        body = framing = b""
        while True:
            line = self.until(b"\r\n")
            framing += line
            size = int(line[:-2], 16)
            if size == 0:
                break
            piece = self.exactly(size + 2)
            assert piece.endswith(b"\r\n")
            framing += piece
            body += piece[:-2]
        trailers = []
        while (line := self.until(b"\r\n")) != b"\r\n":
            framing += line
            trailers.append(split_field(line[:-2]))
        return body, trailers, framing + b"\r\n"

    def refused(self, status: int) -> Answer:
        """Asserts that the next response has this status, says that it is the last, and that the connection then ends."""
        answer = self.answer()
        assert answer.status == status, answer
        assert answer.get("connection") == "close", answer
        self.ended()
        return answer

    def kept(self) -> None:
        """Asserts that the connection can still be used: the gateway answers OPTIONS * on it by itself."""
        assert self.held == b""
        self.send("OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n")
        assert self.answer().status == 200


def split_field(line: bytes) -> tuple[str, str]:
    name, colon, value = line.partition(b":")
    assert colon and re.fullmatch(rb"[a-z0-9!#$%&'*+.^_`|~-]+", name), line
    assert value.startswith(b" ") or not value, line
    return name.decode(), value.strip(b" ").decode("latin-1")


class OriginWire(Wire):
    """A connection that the gateway dialled."""

    def request(self, body: int | str = 0) -> bytes:
        """The bytes of the next request: its head and a body of n bytes, or everything up to and with a mark. A made request id
        is shown as ID."""
        head = self.until(b"\r\n\r\n")
        rest = self.exactly(body) if isinstance(body, int) else self.until(raw(body))
        return UUID.sub(f"x-request-id: {ID}\r\n".encode(), head) + rest

    def ok(self, body: str = "ok", *fields: str) -> None:
        self.send("".join(f"{line}\r\n" for line in ("HTTP/1.1 200 OK", *fields, f"Content-Length: {len(body)}", "", body))[:-2])


class Origin:
    """A listening socket that is the only endpoint of a cluster. Every connection to it is accepted by the test, or by nobody."""

    def __init__(self, gateway: "Gateway", cluster: str, family: int = socket.AF_INET, path: str = "") -> None:
        self.gateway = gateway
        self.cluster = cluster
        self.socket = socket.socket(family)
        self.socket.bind(path if path else ("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        self.socket.listen(64)
        self.socket.settimeout(PATIENCE)
        self.accepted: list[OriginWire] = []
        name = self.socket.getsockname()
        endpoint = (path.encode(), 0) if path else (name[0].encode(), name[1])
        self.endpoint = (*endpoint, 1, b"")
        gateway.set_endpoints(cluster, [self.endpoint])

    def accept(self) -> OriginWire:
        end, _ = self.socket.accept()
        wire = OriginWire(self.gateway, end)
        self.accepted.append(wire)
        return wire

    def untouched(self) -> None:
        """Asserts that nobody waits to be accepted: nothing of what the gateway was sent reached a new connection."""
        self.gateway.turn()
        self.socket.setblocking(False)
        try:
            self.socket.accept()[0].close()
        except BlockingIOError:
            return
        finally:
            self.socket.settimeout(PATIENCE)
        raise AssertionError("the origin was dialled")

    def close(self) -> None:
        self.socket.close()
        for wire in self.accepted:
            wire.close()


def forwarded(start: str, *fields: str, body: str | bytes = b"", after: Sequence[str] = (), **changed: str | None) -> bytes:
    """The bytes of a forwarded request: start line, the fields given (host first), then what the gateway adds, and the body.

    after: fields that filters put behind what the gateway adds. changed: other values of what it adds, by the words below; None
    leaves it out. Framing and connection come last.
    """
    host = next((line[6:] for line in fields if line.startswith("host: ")), None)
    added: dict[str, str | None] = {
        "x_forwarded_for": "127.0.0.1",
        "x_forwarded_proto": "http",
        "x_forwarded_port": "8080",
        "x_forwarded_host": host or None,
        "x_request_id": ID,
        "via": "1.1 isthmus",
        "content_length": None,
        "transfer_encoding": None,
        "upgrade": None,
        "te": None,
        "connection": None,
    }
    assert set(changed) <= set(added)
    added |= changed
    names = list(added)
    framing = names.index("content_length")
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in added.items() if value is not None and name in names[:framing]]
    ending = [
        f"{name.replace('_', '-')}: {value}" for name, value in added.items() if value is not None and name in names[framing:]
    ]
    lines = [start, *fields, *lines, *after, *ending]
    return raw("".join(f"{line}\r\n" for line in lines) + "\r\n") + raw(body)


def compiled(config: str, revision: int, problems: Sequence[str] = ()) -> tuple[Model, Any]:
    """Model and blob of a configuration in YAML. problems: a part of the text of each one that is expected."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "gateway.yaml"
        path.write_text(config)
        loaded = load(path, with_certificates=False)
    found = [problem.text() for problem in loaded.problems]
    assert loaded.config is not None and len(found) == len(problems), found
    assert all(part in text for part, text in zip(problems, found, strict=True)), found
    model = build(loaded.config)
    answer = compile_model(model, revision)
    assert not answer.problems
    return model, answer.blob


class Gateway:
    """An Engine that serves a configuration. Listeners are bound to loopback on ports that the kernel chooses, whatever number the
    configuration gives them; the number still is what the routes and redirects go by."""

    def __init__(self, config: str, *, hosts: dict[str, str] | None = None, problems: Sequence[str] = ()) -> None:
        self.model, self._blob = compiled(config, 1, problems)
        self.revision = 1
        self.block = mmap.mmap(-1, counters.block_size())
        self.lines: list[dict[str, Any]] = []
        self._listening: dict[str, socket.socket] = {}
        for port in self.model.ports:
            host = (hosts or {}).get(port.address, "127.0.0.1")
            listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
            if host == "::":
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listening.bind((host, 0))
            listening.listen(256)
            listening.setblocking(False)
            for index in port.listeners:
                self._listening[self.model.listeners[index].name] = listening
        started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        started.result(PATIENCE)

    def _run(self, started: "Future[None]") -> None:
        self._loop = uvloop.new_event_loop()
        try:
            self._engine = Engine(self.block, log_format="json")
            self._engine.swap(self._blob, 1)
            for port in self.model.ports:
                listening = self._listening[self.model.listeners[port.listeners[0]].name]
                self._engine.listen(listening.fileno(), name_id("bind", port.address))
            self._loop.add_reader(self._engine.fileno(), self._engine.on_ready)
        except BaseException as error:
            started.set_exception(error)
            raise

        def tick() -> None:
            self._engine.on_tick()
            self._take_log()
            self._loop.call_later(TICK, tick)

        tick()
        started.set_result(None)
        self._loop.run_forever()
        self._loop.remove_reader(self._engine.fileno())
        self._engine.close()
        self._take_log()
        self._loop.close()

    def _take_log(self) -> None:
        self.lines += [json.loads(line) for line in self._engine.take_log().splitlines()]

    def call(self, work: Callable[[Engine], T]) -> T:
        """Runs something on the engine's thread, between two of its turns."""
        answer: Future[T] = Future()

        def run() -> None:
            try:
                answer.set_result(work(self._engine))
            except BaseException as error:
                answer.set_exception(error)

        self._loop.call_soon_threadsafe(run)
        return answer.result(PATIENCE)

    def turn(self) -> None:
        """Returns once the engine has handled all that was sent to it before. Two rounds: what the first one sent to the other side
        over loopback may have made more to read at once."""
        for _ in range(2):
            self.call(lambda engine: engine.on_ready())

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Holds the engine between two turns, so that all that is sent meanwhile arrives in one."""
        go: Future[None] = Future()
        here: Future[None] = Future()

        def hold() -> None:
            here.set_result(None)
            go.result(PATIENCE)

        self._loop.call_soon_threadsafe(hold)
        here.result(PATIENCE)
        try:
            yield
        finally:
            go.set_result(None)

    def swap(self, config: str) -> None:
        """Puts another configuration into use, between two turns; ports that are new in it are not bound."""
        self.revision += 1
        self.model, blob = compiled(config, self.revision)
        self.call(lambda engine: engine.swap(blob, self.revision))

    def set_endpoints(self, cluster: str, endpoints: list[tuple[bytes, int, int, bytes]]) -> None:
        self.call(lambda engine: engine.set_endpoints(name_id("cluster", cluster), endpoints))

    def log(self) -> list[dict[str, Any]]:
        """The lines of the access log since the last call."""
        self.call(lambda engine: self._take_log())
        lines, self.lines = self.lines, []
        return lines

    def scalar(self, name: str) -> int:
        read = counters.read(self.block)
        assert read is not None
        return read[1][[scalar[0] for scalar in counters.SCALARS].index(name)]

    def decisions(self, limit: str) -> dict[tuple[str, str], int]:
        """(decision, source) -> how often the rate limit of this name came to it."""
        read = counters.read(self.block)
        assert read is not None
        names = [(decision, source) for decision in counters.LIMIT_DECISIONS for source in counters.LIMIT_SOURCES]
        for _, _, id_, *counts in read[5]:
            if id_ == name_id("rateLimit", limit):
                return {name: count for name, count in zip(names, counts, strict=True) if count}
        return {}

    def address(self, listener: str) -> Any:
        return self._listening[listener].getsockname()

    def client(self, listener: str = "web", *, address: str = "") -> Client:
        host, port = self.address(listener)[:2]
        end = socket.create_connection((address or host, port), timeout=PATIENCE)
        return Client(self, end)

    def leaks(self) -> dict[str, Any]:
        """What is still open although no client and no origin is there any more; empty is right."""
        active = {row["name"]: row for row in self.call(lambda engine: engine.describe_clusters())}
        left: dict[str, Any] = {
            name: row
            for name, row in active.items()
            if row["active"] or any(each["active"] or each["waiting"] or each["dialing"] for each in row["endpoints"])
        }
        if connections := self.call(lambda engine: engine.connections):
            left["connections"] = self.call(lambda engine: engine.describe_connections()) or connections
        for _, name, kind in [(0, scalar[0], scalar[1]) for scalar in counters.SCALARS]:
            if kind == "gauge" and name.endswith("_active") and self.scalar(name):
                left[name] = self.scalar(name)
        return left

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        for listening in self._listening.values():
            listening.close()


CUTS = (None, "bytes")
"""How a script is sent when a test says nothing else: in one piece, and byte by byte."""


def is_refused(connect: Callable[..., Client], site: Origin, script: str | bytes, status: int = 400) -> None:
    """Asserts that a request is answered with this status and the last word, and that no origin hears of it; whole and byte by
    byte. What follows on the same connection is never looked at (checklist item 46)."""
    for cut in CUTS:
        client = connect()
        client.send(raw(script) + b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n", cut=cut)
        client.refused(status)
        client.close()
    site.untouched()


def is_spoilt(connect: Callable[..., Client], site: Origin, head: str, body: str | bytes, status: int = 400) -> None:
    """Asserts that content which is wrong is answered with this status, and that the origin, which may have seen a part of the
    request by then, never sees an end of it."""
    for cut in CUTS:
        client = connect()
        client.send(raw(head) + raw(body) + b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n", cut=cut)
        client.refused(status)
        client.close()
        got = site.accept().rest()
        assert b"\r\n0\r\n" not in got and b"smuggled" not in got, got
        assert not got or got.startswith(raw(head).split(b"\r\n")[0])


def passes(connect: Callable[..., Client], site: Origin, script: str | bytes, expected: bytes, body: int | str = 0) -> None:
    """Asserts that a request reaches the origin as exactly these bytes, whole and byte by byte, and that its connection is kept."""
    for cut in CUTS:
        client = connect()
        client.send(script, cut=cut)
        origin = site.accept()
        assert origin.request(body) == expected
        origin.nothing_more()
        origin.ok("fine")
        answer = client.answer()
        assert (answer.status, answer.body) == (200, b"fine")
        client.kept()
        client.close()
        origin.close()
