"""What the supervisor and a worker say to each other: the messages, and the framed channel that carries them.

A frame is four bytes of length (big endian) and one message in MessagePack. A descriptor travels beside the first byte of its frame
(SCM_RIGHTS); a message type says with `carries` whether one belongs to it. Imported by both sides, so it imports nothing heavy.
"""

from __future__ import annotations

import array
import asyncio
import collections
import contextlib
import os
import socket
import struct
from collections.abc import Callable
from typing import Any, ClassVar

import msgspec

from gateway.supervisor.redis_url import RedisAddress

# A frame larger than this is not ours: the channel is broken. The largest real one is a snapshot's endpoint table.
MAX_FRAME = 256 * 1024 * 1024
READ_SIZE = 256 * 1024
MAX_FDS = 32
LENGTH = struct.Struct("!I")

# Upper bounds of the buckets for round trips to the store of rate limits.
STORE_BOUNDS_US = (100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 1_000_000)

# host (a name, an address or an absolute path), port, weight, zone
Endpoint = tuple[bytes, int, int, bytes]


class Pair(msgspec.Struct, frozen=True):
    """A certificate chain and its private key. Nothing that shows this shows the key."""

    names: tuple[str, ...]
    """Hosts in lower case, "*.x" for wildcards."""
    kind: str
    """Of the key: two pairs of different kinds may stand for one name."""
    chain: bytes
    """PEM, the pair's own certificate first."""
    key: bytes
    """PEM."""
    ocsp: bytes = b""
    """DER of the response to staple."""

    def __repr__(self) -> str:
        return f"Pair({self.kind} {', '.join(self.names) or 'without a name'})"

    def __rich_repr__(self) -> Any:
        yield repr(self)


class ServerSide(msgspec.Struct, frozen=True):
    """What a listener shows in a handshake and asks of its clients."""

    pairs: tuple[Pair, ...]
    """At least one; the first is the default."""
    min_version: str = "1.2"
    tickets: bool = True
    ca: str = ""
    """Digest of the bundle that clients' certificates are verified against; empty: none is asked for."""
    crl: bytes = b""
    """PEM."""
    crl_for_all: bool = False
    """Whether there is a list for every authority, so that the whole chain is looked up and not the client's own alone."""
    requires: bool = False
    lets_through: bool = False
    """Whether a client whose certificate fails is let in, as one that shows none. Then no session is resumed."""
    depth: int = 4


class ClientSide(msgspec.Struct, frozen=True):
    """How a cluster's endpoints are spoken to and verified."""

    ca: str
    """Digest of the bundle."""
    server_name: str = ""
    """SNI, and what is verified."""
    address: str = ""
    """IP address that is verified instead."""
    names: tuple[str, ...] = ()
    """Hosts, addresses and URIs of which the certificate must carry one, instead of both."""
    pair: Pair | None = None
    alpn: tuple[str, ...] = ()
    carries: bool = False
    """Whether connections are carried as they are, so that what ALPN chooses says nothing to the gateway."""
    crl: bytes = b""
    """PEM."""
    crl_for_all: bool = False
    """As of a listener."""


class Message(msgspec.Struct, tag_field="type", array_like=False):
    """One message; `carries` is the number of descriptors that belong to it (0 or 1)."""

    carries: ClassVar[int] = 0


# supervisor to worker


class Settings(Message, tag="settings"):
    """What the engine needs before anything else, and again whenever it changes."""

    log_format: str = "off"
    log_path: str = "stdout"
    log_sample: float = 1.0
    log_level: str = "info"
    drain_timeout_ms: int = 30_000
    redis: RedisAddress | None = None
    """The store of global rate limits."""
    replicas: int = 1
    """Gateways that share the limits of mode local, this one among them."""


class Snapshot(Message, tag="snapshot"):
    """A compiled configuration in a sealed memory file, with the endpoints of its clusters by 64-bit id.

    Of a cluster that an earlier message has told of, endpoints come again only when they are others: there are many thousand.
    """

    carries: ClassVar[int] = 1
    revision: int
    size: int
    endpoints: dict[int, list[Endpoint]]
    secured: list[int] = []
    """Ids of its listeners and clusters that speak TLS; what others had is forgotten."""
    gone: list[int] = []
    """Clusters of earlier messages that it has no more."""
    is_whole: bool = True
    """Whether nothing that earlier messages said of endpoints counts any more."""


class TLS(Message, tag="tls"):
    """What some listeners and clusters show and verify from this revision on. Comes before the snapshot that needs it."""

    revision: int
    bundles: dict[str, bytes]
    """Authorities in PEM by digest: those that these sides name."""
    listeners: dict[int, ServerSide]
    clusters: dict[int, ClientSide]


class Endpoints(Message, tag="endpoints"):
    """New endpoints of some clusters; the routes stay as they are."""

    endpoints: dict[int, list[Endpoint]]


class Listen(Message, tag="listen"):
    """The worker's own listening socket of one bound address."""

    carries: ClassVar[int] = 1
    bind_id: int
    address: str


class Unlisten(Message, tag="unlisten"):
    bind_id: int


class Drain(Message, tag="drain"):
    """Finish what is open and exit; at the deadline the rest is closed hard."""

    deadline_ms: int


class ReopenLogs(Message, tag="reopen_logs"):
    pass


class Describe(Message, tag="describe"):
    """A question for the admin port, answered by a Description with the same number."""

    number: int
    what: str  # "clusters" | "connections" | "limits"
    limit: int = 1000


class LogLevel(Message, tag="log_level"):
    level: str


# worker to supervisor


class Hello(Message, tag="hello"):
    pid: int


class Ack(Message, tag="ack"):
    """This revision serves requests from now on."""

    revision: int
    swap_us: int


class Refused(Message, tag="refused"):
    """The blob did not verify; the worker stays with what it had."""

    revision: int
    error: str


class Unsecured(Message, tag="unsecured"):
    """OpenSSL did not take what a TLS order brought for this listener or cluster; what it had before stays."""

    id: int
    error: str


class StoreFacts(msgspec.Struct):
    """What a worker has had to do with the store of rate limits since it began."""

    asks: int = 0
    """Calls of the script."""
    round_trips: int = 0
    microseconds: int = 0
    """That the round trips took, summed."""
    buckets: list[int] = []
    """Round trips by STORE_BOUNDS_US, and those beyond; none when there were none."""
    errors: dict[str, int] = {}
    breakers: int = 0
    """One for each server that is asked."""
    breakers_open: int = 0
    opened: int = 0
    """Times that a breaker opened."""


class Health(Message, tag="health"):
    """The heartbeat, once a second."""

    connections: int
    rss_kib: int
    lag_us: int
    store: StoreFacts | None = None


class Description(Message, tag="description"):
    number: int
    rows: list[dict[str, Any]]


class Bye(Message, tag="bye"):
    """Drained; the process ends now."""

    closed_hard: int


Down = Settings | Snapshot | TLS | Endpoints | Listen | Unlisten | Drain | ReopenLogs | Describe | LogLevel
Up = Hello | Ack | Refused | Unsecured | Health | Description | Bye

OnMessage = Callable[[Any, int | None], None]


class Channel:
    """One end of the socket pair. Never blocks; what the other side does not read yet waits here."""

    def __init__(self, sock: socket.socket, incoming: Any, on_message: OnMessage, on_close: Callable[[], None]) -> None:
        """incoming: Down or Up. on_message gets each message and its descriptor, which it then owns. on_close is called once."""
        sock.setblocking(False)
        self._sock = sock
        self._decoder = msgspec.msgpack.Decoder(incoming)
        self._encoder = msgspec.msgpack.Encoder()
        self._on_message = on_message
        self._on_close = on_close
        self._loop = asyncio.get_running_loop()
        self._inbox = bytearray()
        self._fds: collections.deque[int] = collections.deque()
        self._outbox: collections.deque[tuple[memoryview, int | None]] = collections.deque()
        self._writing = False
        self.closed = False
        self._loop.add_reader(sock.fileno(), self._on_readable)

    def send(self, message: Down | Up, fd: int | None = None) -> None:
        """Queues a message; fd is duplicated, so the caller may close its own at once. A closed channel swallows it."""
        if self.closed:
            return
        if (fd is not None) != bool(message.carries):
            raise ValueError(f"{type(message).__name__} carries {message.carries} descriptors")
        body = self._encoder.encode(message)
        frame = memoryview(LENGTH.pack(len(body)) + body)
        self._outbox.append((frame, None if fd is None else os.dup(fd)))
        if not self._writing:
            self._flush()

    @property
    def backlog(self) -> int:
        """Bytes that the other side has not taken yet."""
        return sum(len(frame) for frame, _ in self._outbox)

    async def flushed(self) -> None:
        """Returns when everything queued has been handed to the kernel, or the channel is closed."""
        while self._outbox and not self.closed:
            await asyncio.sleep(0.005)

    def _flush(self) -> None:
        while self._outbox:
            frame, fd = self._outbox[0]
            rights = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
            try:
                sent = self._sock.sendmsg([frame], rights)
            except (BlockingIOError, InterruptedError):
                if not self._writing:
                    self._writing = True
                    self._loop.add_writer(self._sock.fileno(), self._flush)
                return
            except OSError:
                self.close()
                return
            if fd is not None:
                os.close(fd)
            if sent == len(frame):
                self._outbox.popleft()
            else:
                self._outbox[0] = (frame[sent:], None)
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._sock.fileno())

    def _on_readable(self) -> None:
        # Until there is nothing left, or the end. An end with bytes unread over there comes with an error, after which the loop
        # watches this descriptor no more: who reads one piece for each call would never see it.
        while not self.closed and self._read():
            pass

    def _read(self) -> bool:
        """Takes one piece; whether there may be more."""
        try:
            chunk, ancillary, flags, _ = self._sock.recvmsg(READ_SIZE, socket.CMSG_SPACE(MAX_FDS * 4), socket.MSG_CMSG_CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            self.close()
            return False
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
                self._fds.extend(fds)
        if not chunk or flags & socket.MSG_CTRUNC:
            self.close()
            return False
        self._inbox += chunk
        self._deliver()
        return True

    def _deliver(self) -> None:
        while len(self._inbox) >= LENGTH.size and not self.closed:
            (size,) = LENGTH.unpack_from(self._inbox)
            if size > MAX_FRAME:
                self.close()
                return
            end = LENGTH.size + size
            if len(self._inbox) < end:
                return
            try:
                message = self._decoder.decode(memoryview(bytes(self._inbox[LENGTH.size : end])))
            except msgspec.DecodeError:
                self.close()
                return
            del self._inbox[:end]
            fd: int | None = None
            if message.carries:
                if not self._fds:
                    self.close()
                    return
                fd = self._fds.popleft()
            self._on_message(message, fd)

    def close(self) -> None:
        """Closes the socket and every descriptor that was on its way; tells on_close once."""
        if self.closed:
            return
        self.closed = True
        number = self._sock.fileno()
        self._loop.remove_reader(number)
        if self._writing:
            self._loop.remove_writer(number)
        self._sock.close()
        for _, fd in self._outbox:
            if fd is not None:
                os.close(fd)
        self._outbox.clear()
        while self._fds:
            with contextlib.suppress(OSError):
                os.close(self._fds.popleft())
        self._on_close()
