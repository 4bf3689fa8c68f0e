"""Both ends of HTTP/2 for the wire tests, spoken by the library h2: a client of the gateway, and an origin that it dialled."""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
from wirebench import Wire, raw

Fields = Sequence[tuple[str, str]]


class Peer:
    """One end of a HTTP/2 connection. What the other end said stands in `events`, in order, and by stream in `seen`."""

    def __init__(self, wire: Wire, *, client: bool, settings: dict[int, int] | None = None, strict: bool = True) -> None:
        self.wire = wire
        config = h2.config.H2Configuration(
            client_side=client, header_encoding="utf-8", validate_outbound_headers=strict, normalize_outbound_headers=strict
        )
        self.h2 = h2.connection.H2Connection(config)
        if settings:
            values = {**dict(self.h2.local_settings), **settings}
            self.h2.local_settings = h2.settings.Settings(client=client, initial_values=values)
        self.h2.initiate_connection()
        self.events: list[Any] = []
        self.seen: dict[int, list[Any]] = defaultdict(list)
        self.credits = True
        self.holds = False
        self.flush()

    def flush(self) -> None:
        data = b"" if self.holds else self.h2.data_to_send()
        if data:
            self.wire.socket.sendall(data)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What is said meanwhile goes out at its end, in one piece."""
        self.holds = True
        yield
        self.holds = False
        self.flush()

    def pump(self) -> bool:
        """Reads once; False at the end of the stream."""
        got = self.wire.socket.recv(65536)
        if not got:
            return False
        for event in self.h2.receive_data(got):
            self.events.append(event)
            self.seen[getattr(event, "stream_id", 0) or 0].append(event)
            if isinstance(event, h2.events.DataReceived) and self.credits and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self.flush()
        return True

    def until(self, wanted: Callable[[], Any]) -> Any:
        while not (found := wanted()):
            assert self.pump(), f"ended after {self.events!r}"
        return found

    def find(self, kind: type, stream: int | None = None) -> Any:
        events = self.events if stream is None else self.seen[stream]
        return next((event for event in events if isinstance(event, kind)), None)

    def wait(self, kind: type, stream: int | None = None) -> Any:
        """The first event of that kind, of the stream or of all."""
        return self.until(lambda: self.find(kind, stream))

    def body(self, stream: int) -> bytes:
        return b"".join(event.data for event in self.seen[stream] if isinstance(event, h2.events.DataReceived))

    def send_headers(self, stream: int, fields: Fields, *, end: bool = False) -> None:
        self.h2.send_headers(stream, list(fields), end_stream=end)
        self.flush()

    def send_data(self, stream: int, data: bytes | str, *, end: bool = False) -> None:
        """Sends it all, as windows open."""
        left = raw(data)
        while True:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if room <= 0 and left:
                assert self.pump(), "ended before the window opened"
                continue
            piece, left = left[:room], left[room:]
            self.h2.send_data(stream, piece, end_stream=end and not left)
            self.flush()
            if not left:
                return

    def reset(self, stream: int, code: int = h2.errors.ErrorCodes.CANCEL) -> None:
        self.h2.reset_stream(stream, code)
        self.flush()


class H2Client(Peer):
    """A client of the gateway, by prior knowledge or after a handshake that chose h2."""

    def __init__(self, wire: Wire, **how: Any) -> None:
        super().__init__(wire, client=True, **how)

    def ask(self, path: str = "/", *fields: tuple[str, str], method: str = "GET", host: str = "a.test", end: bool = True) -> int:
        stream: int = self.h2.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "http"), (":authority", host), (":path", path), *fields]
        self.send_headers(stream, head, end=end)
        return stream

    def head(self, stream: int) -> dict[str, str]:
        """Fields of the final head."""
        return dict(self.wait(h2.events.ResponseReceived, stream).headers)

    def answer(self, stream: int) -> tuple[dict[str, str], bytes]:
        """The whole response, which must come to a clean end."""
        head = self.head(stream)
        self.until(lambda: self.find(h2.events.StreamEnded, stream) or self.find(h2.events.StreamReset, stream))
        assert not self.find(h2.events.StreamReset, stream), self.seen[stream]
        return head, self.body(stream)


class H2Origin(Peer):
    """An origin's side of a connection that the gateway dialled."""

    def __init__(self, wire: Wire, **how: Any) -> None:
        super().__init__(wire, client=False, **how)

    def request(self, number: int = 0) -> tuple[int, dict[str, str]]:
        """Stream and fields of the request with this number on the connection, counted from 0."""

        def there() -> Any:
            heads = [event for event in self.events if isinstance(event, h2.events.RequestReceived)]
            return heads[number] if len(heads) > number else None

        event = self.until(there)
        return event.stream_id, dict(event.headers)

    def respond(self, stream: int, body: str = "ok", *fields: tuple[str, str]) -> None:
        self.send_headers(stream, [(":status", "200"), ("content-length", str(len(body))), *fields], end=not body)
        if body:
            self.send_data(stream, body, end=True)
