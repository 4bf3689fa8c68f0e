"""Requests that meet rate limits of a store: a real engine on the test's own loop, its origin, and clients of both.

Between the engine and what asks the store stands a witness, who lets everything through and sees that each ask gets one answer.
"""

import asyncio
import contextlib
import json
import mmap
import re
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import uvloop

from gateway._core import counters
from gateway._core.engine import Engine
from gateway._core.limit_key import PART_KINDS, key_of
from gateway.control.build import build
from gateway.control.compile import compile_model, name_id
from gateway.sources.files import load
from gateway.supervisor.redis_url import parse_redis_url
from gateway.worker.limits.link import Link
from gateway.worker.limits.script import GCRA, Ask, name_of

TICK_S = 0.02
TAG = b"narrow"
"""Of the limits of /pair, which one request meets."""


def _limit(name: str, requests: int, per: str = "1h", **more: Any) -> dict[str, Any]:
    rate = {"limit": {"requests": requests, "per": per}, "key": ["header:x-key"]}
    return {"name": name, "mode": "strict", "onFailure": "closed", **rate, **more}


LIMITS = (
    _limit("hundred", 100),
    _limit("five", 5),
    _limit("soon", 100, timeout="10ms"),
    _limit("half", 100, timeout="500ms"),
    _limit("many", 1_000_000, "1s"),
    _limit("leased", 100, mode="leased"),
    _limit("lent", 1000, mode="leased", timeout="10ms"),
    _limit("costly", 100, costHeader="x-cost"),
    _limit("wide", 100),
    _limit("narrow", 3),
)
"""Each by itself on the path of its name; wide and narrow together on /pair; none on /free. A timeout is two seconds where none
stands."""


class Outcome(NamedTuple):
    """An answer, and the seconds that it took."""

    status: int
    left: tuple[int, ...]
    """What the limits said remains."""
    retry: int
    """Seconds; 0: not said."""
    seconds: float

    @property
    def is_granted(self) -> bool:
        return self.status == 200

    @property
    def is_denied(self) -> bool:
        return self.status == 429

    @property
    def has_failed(self) -> bool:
        """The store did not decide: onFailure is closed."""
        return self.status == 503 and self.retry == 1


class Witness:
    """The engine, as the link sees it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.taken: list[list[Ask]] = []
        self.open: set[int] = set()
        self.wrong: list[int] = []
        """Asks that were answered twice, or never asked."""

    def set_limit_asker(self, wake: Callable[[], object] | None) -> None:
        self._engine.set_limit_asker(wake)

    def take_asks(self) -> list[Ask]:
        asks = self._engine.take_asks()
        if asks:
            self.taken.append(asks)
        self.open |= {ask[0] for ask in asks}
        return asks

    def answer_ask(self, ask_id: int, granted: int, facts: Sequence[tuple[int, int, int]]) -> None:
        self._settle(ask_id)
        self._engine.answer_ask(ask_id, granted, facts)

    def fail_ask(self, ask_id: int, reason: int) -> None:
        self._settle(ask_id)
        self._engine.fail_ask(ask_id, reason)

    def _settle(self, ask_id: int) -> None:
        if ask_id in self.open:
            self.open.remove(ask_id)
        else:
            self.wrong.append(ask_id)


class Client:
    """A connection with one request at a time. What it sends is with the kernel when `send` returns."""

    def __init__(self, address: tuple[str, int], idle: list["Client"]) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = socket.create_connection(address)
        self._socket.setblocking(False)
        self._idle = idle
        self._seen = b""
        self._answer: asyncio.Future[Outcome] | None = None
        self._loop.add_reader(self._socket.fileno(), self._on_readable)

    def send(self, request: bytes) -> "asyncio.Future[Outcome]":
        self._answer, self._since = self._loop.create_future(), time.monotonic()
        assert self._socket.send(request) == len(request)
        return self._answer

    def _on_readable(self) -> None:
        piece = self._socket.recv(65536)
        self._seen += piece
        head, mark, body = self._seen.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if piece and (not mark or (length and len(body) < int(length[1]))):
            return
        assert self._answer is not None and piece, f"the connection ended with {self._seen!r}"
        said = re.search(rb"(?i)\r\nratelimit: *([^\r]*)", head)
        retry = re.search(rb"(?i)\r\nretry-after: *(\d+)", head)
        left = tuple(int(number) for number in re.findall(rb";r=(\d+)", said[1])) if said else ()
        self._seen = b""
        self._idle.append(self)
        took = time.monotonic() - self._since
        self._answer.set_result(Outcome(int(head[9:12]), left, int(retry[1]) if retry else 0, took))

    def close(self) -> None:
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()


class _Origin(asyncio.Protocol):
    """Answers 200, with the cost that the request named."""

    def __init__(self, every: set[asyncio.BaseTransport]) -> None:
        self._seen = b""
        self._every = every

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._every.add(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._every.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._seen += data
        while b"\r\n\r\n" in self._seen:
            head, _, self._seen = self._seen.partition(b"\r\n\r\n")
            cost = re.search(rb"\r\nx-cost: *\d+", head)
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2%b\r\n\r\nok" % (cost[0] if cost else b""))


class Asking:
    """`async with`; `ask` sends a request at once, and what is sent in one turn of the loop is met in one turn of the engine."""

    async def __aenter__(self) -> "Asking":
        self._loop = asyncio.get_running_loop()
        self._origins: set[asyncio.BaseTransport] = set()
        self._server = await self._loop.create_server(lambda: _Origin(self._origins), "127.0.0.1", 0)
        self._block = mmap.mmap(-1, counters.block_size())
        self._engine = Engine(self._block)
        self.witness = Witness(self._engine)
        self._idle: list[Client] = []
        self._clients: list[Client] = []
        model, blob = self._compiled(self._server.sockets[0].getsockname()[1])
        self._engine.swap(blob, 1)
        for cluster in model.clusters:
            rows = [(each.host.encode(), each.port, each.weight, b"") for each in cluster.endpoints]
            self._engine.set_endpoints(name_id("cluster", cluster.name), rows)
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._listening.setblocking(False)
        self._engine.listen(self._listening.fileno(), name_id("bind", model.ports[0].address))
        self._loop.add_reader(self._engine.fileno(), self._engine.on_ready)
        self._tick()
        return self

    @staticmethod
    def _compiled(origin: int) -> tuple[Any, Any]:
        names = [limit["name"] for limit in LIMITS]
        paths = {**{name: [name] for name in names}, "pair": ["wide", "narrow"], "free": []}
        rules = [
            {
                "matches": [{"path": {"type": "Exact", "value": f"/{path}"}}], "rateLimits": limits,
                "backendRefs": [{"name": "origin"}],
            }
            for path, limits in paths.items()
        ]  # fmt: skip
        config = {
            # The link has its own address of the store.
            "redis": {"url": "redis://127.0.0.1:1", "timeout": "2s"},
            "listeners": [{"name": "web", "address": "127.0.0.1:0"}],
            "routes": [{"name": "all", "rules": rules}],
            "rateLimits": LIMITS,
            "clusters": [{"name": "origin", "endpoints": [f"127.0.0.1:{origin}"]}],
        }
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            json.dump(config, file)
            file.flush()
            loaded = load(Path(file.name))
        assert loaded.config is not None and not loaded.problems, [problem.text() for problem in loaded.problems]
        model = build(loaded.config)
        return model, compile_model(model, 1).blob

    def _tick(self) -> None:
        self._engine.on_tick()
        self._ticking = self._loop.call_later(TICK_S, self._tick)

    async def __aexit__(self, *_: Any) -> None:
        self._ticking.cancel()
        self._loop.remove_reader(self._engine.fileno())
        self._engine.close()
        self._listening.close()
        for client in self._clients:
            client.close()
        for transport in self._origins:
            transport.close()
        self._server.close()
        await self._server.wait_closed()

    def ask(self, limit: str = "hundred", key: int = 0, *, cost: int | None = None) -> "asyncio.Future[Outcome]":
        """A request to the path that has this limit; cost: what its response says that it took."""
        if not self._idle:
            self._clients.append(Client(self._listening.getsockname(), self._idle))
            self._idle.append(self._clients[-1])
        said = "" if cost is None else f"X-Cost: {cost}\r\n"
        return self._idle.pop().send(f"GET /{limit} HTTP/1.1\r\nHost: a.test\r\nX-Key: {key}\r\n{said}\r\n".encode())

    def leave(self) -> None:
        """Clients that wait for an answer go away."""
        gone = [client for client in self._clients if client not in self._idle]
        for client in gone:
            client.close()
            self._clients.remove(client)

    async def connect(self, count: int) -> None:
        """So many connections that are open and known to the engine."""
        outcomes = await asyncio.gather(*(self.ask("free") for _ in range(count)))
        assert all(outcome.is_granted for outcome in outcomes)

    @property
    def waiting(self) -> int:
        """Requests that wait for the store."""
        return self._scalar("ratelimit_waiting")

    def _scalar(self, name: str) -> int:
        read = counters.read(self._block)
        assert read is not None
        return read[1][[scalar[0] for scalar in counters.SCALARS].index(name)]

    def check(self) -> None:
        """Every ask has had one answer, and nobody waits."""
        assert not self.witness.open, "an ask without an answer"
        assert not self.witness.wrong, "an answer too many"
        assert self.waiting == 0 and self._scalar("bugs") == 0


def store_name(limit: str = "hundred", key: int = 0) -> bytes:
    """Under which the store counts it."""
    low, high = key_of(name_id("rateLimit", limit), [(PART_KINDS["header"], str(key).encode())])
    tag = TAG if limit in ("wide", "narrow") else b""
    return name_of((tag, low.to_bytes(8, "little") + high.to_bytes(8, "little"), GCRA, 0, 0, 0, 0))


@contextlib.asynccontextmanager
async def linked(url: str) -> AsyncIterator[tuple[Asking, Link]]:
    """A link to this store that answers the engine; by its end every ask has its answer, and no task is left."""
    async with Asking() as asking:
        link = Link(asking.witness, parse_redis_url(url))
        try:
            yield asking, link
        finally:
            await link.close()
        asking.check()
        assert len(asyncio.all_tasks()) == 1


def tell(story: Callable[[], Awaitable[Any]]) -> None:
    """Runs a story on a loop as workers have."""

    async def run() -> None:
        await story()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
