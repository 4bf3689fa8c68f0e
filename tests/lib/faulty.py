"""Origins that misbehave on command, and a client that sees every byte. Both are plain blocking sockets on purpose: a script reads
top to bottom as what happens on the wire, and no parser of ours has a part in it."""

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

SECONDS = 20.0


class Cut(Exception):
    """The connection ended before the message did; `got` is what had come of it."""

    def __init__(self, got: "Message", why: str) -> None:
        super().__init__(f"{why} after {len(got.body)} bytes of content")
        self.got = got


@dataclass
class Message:
    """A request or a response, as it came."""

    start: str = ""
    fields: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)

    @property
    def status(self) -> int:
        return int(self.start.split(" ")[1])

    @property
    def method(self) -> str:
        return self.start.split(" ")[0]

    @property
    def target(self) -> str:
        return self.start.split(" ")[1]

    def get(self, name: str) -> str | None:
        found = [value for key, value in self.fields if key == name]
        assert len(found) < 2, f"{name} stands {len(found)} times"
        return found[0] if found else None


class Wire:
    """One end of a connection: bytes out, messages in."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._held = b""

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: Any) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def receive(self, n: int = 65536) -> bytes:
        """Whatever comes next; empty at the end."""
        if self._held:
            data, self._held = self._held[:n], self._held[n:]
            return data
        return self.sock.recv(n)

    def line(self) -> bytes | None:
        while b"\r\n" not in self._held:
            piece = self.sock.recv(65536)
            if not piece:
                return None
            self._held += piece
        line, self._held = self._held.split(b"\r\n", 1)
        return line

    def exactly(self, n: int, into: Message) -> bytes:
        pieces = [self._held[:n]]
        self._held = self._held[n:]
        got = len(pieces[0])
        while got < n:
            try:
                piece = self.sock.recv(min(n - got, 1 << 20))
            except ConnectionResetError:
                piece = b""
            if not piece:
                into.body += b"".join(pieces)
                raise Cut(into, "cut")
            pieces.append(piece)
            got += len(piece)
        return b"".join(pieces)

    def fields(self, message: Message) -> list[tuple[str, str]]:
        found = []
        while line := self.line():
            name, _, value = line.decode("latin-1").partition(":")
            found.append((name.lower(), value.strip()))
        if line is None:
            raise Cut(message, "cut in a head")
        return found

    def head(self) -> Message | None:
        """The next start line and fields; None when the connection ends before it."""
        try:
            start = self.line()
        except ConnectionResetError:
            return None
        if start is None:
            return None
        message = Message(start.decode("latin-1"))
        message.fields = self.fields(message)
        return message

    def body(self, message: Message, *, is_response: bool = False) -> Message:
        """Reads the content; Cut when it does not come to its end."""
        if message.get("transfer-encoding") == "chunked":
            while True:
                line = self.line()
                if line is None:
                    raise Cut(message, "cut between chunks")
                size = int(line, 16)
                if size == 0:
                    message.trailers = self.fields(message)
                    return message
                message.body += self.exactly(size, message)
                assert self.exactly(2, message) == b"\r\n"
        length = message.get("content-length")
        if length is not None:
            message.body = self.exactly(int(length), message)
        elif is_response:
            while piece := self.receive():
                message.body += piece
        return message

    def request(self) -> Message | None:
        """The next request, content included; None at the end of the connection."""
        message = self.head()
        return None if message is None else self.body(message)

    def response(self, method: str = "GET") -> Message:
        """The next final response."""
        while True:
            message = self.head()
            if message is None:
                raise Cut(Message(), "no response")
            if message.status >= 200 or message.status == 101:
                break
        if method == "HEAD" or message.status in (101, 204, 304):
            return message
        return self.body(message, is_response=True)

    def ask(self, target: str = "/", method: str = "GET", **fields: str) -> Message:
        """One request without content on this connection, and its response."""
        more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
        self.send(f"{method} {target} HTTP/1.1\r\nhost: test\r\n{more}\r\n".encode())
        return self.response(method)

    def at_end(self, seconds: float = SECONDS) -> bool:
        """Whether the other side closes without another byte."""
        self.sock.settimeout(seconds)
        try:
            return not self._held and self.sock.recv(1) == b""
        except ConnectionResetError:
            return True

    def reset(self) -> None:
        """Ends the connection with RST."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self.sock.close()

    def half_close(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def is_readable(self, seconds: float = 0) -> bool:
        return bool(select.select([self.sock], [], [], seconds)[0])


def client(port: int) -> Wire:
    return Wire(socket.create_connection(("127.0.0.1", port), SECONDS))


def get(port: int, target: str = "/", method: str = "GET", **fields: str) -> Message:
    """One request on a connection of its own."""
    with client(port) as wire:
        return wire.ask(target, method, connection="close", **fields)


def answer(body: bytes = b"ok", status: str = "200 OK", *fields: str) -> bytes:
    more = "".join(f"{each}\r\n" for each in fields)
    return f"HTTP/1.1 {status}\r\n{more}content-length: {len(body)}\r\n\r\n".encode() + body


Script = Callable[["Origin", Wire], None]


def polite(origin: "Origin", wire: Wire) -> None:
    """An origin without a fault: says its name to each request."""
    while (request := wire.request()) is not None:
        origin.requests.append(request)
        wire.send(answer(origin.name.encode()))


def once(data: bytes) -> Script:
    """Each connection gets these bytes for its first request, and then its end."""

    def script(origin: "Origin", wire: Wire) -> None:
        if (request := wire.request()) is not None:
            origin.requests.append(request)
            wire.send(data)

    return script


class Origin:
    """Listens, and runs the script for every connection in a thread of its own; the connection ends with the script."""

    def __init__(self, script: Script = polite, name: str = "ok") -> None:
        self.name = name
        self.script = script
        self.requests: list[Message] = []
        self.accepted = 0
        self.stop = threading.Event()
        self.errors: list[BaseException] = []
        self._open: set[Wire] = set()
        self._threads: set[threading.Thread] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    @property
    def open(self) -> int:
        return len(self._open)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            wire = Wire(sock)
            self._open.add(wire)
            thread = threading.Thread(target=self._run, args=(wire,), daemon=True)
            self._threads.add(thread)
            thread.start()

    def _run(self, wire: Wire) -> None:
        try:
            self.script(self, wire)
        except (OSError, Cut, ValueError) as error:
            # Expected where the gateway gives up on this connection, or the test ends.
            self.errors.append(error)
        finally:
            self._open.discard(wire)
            wire.close()
            self._threads.discard(threading.current_thread())

    def close(self) -> None:
        self.stop.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for wire in list(self._open):
            with contextlib.suppress(OSError):
                wire.sock.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(SECONDS)

    def __enter__(self) -> "Origin":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


@contextlib.contextmanager
def refusing() -> Iterator[int]:
    """A port at which connections are refused for as long as this lasts: bound, and not listening."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """A port at which connections neither come up nor fail: its queue is full and nobody accepts."""
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.socket())
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(sock.getsockname())
        yield sock.getsockname()[1]
