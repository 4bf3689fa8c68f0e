"""The shell of a worker, over a double of the engine: orders come in over a real channel and take effect in order."""

import asyncio
import errno
import gc
import mmap
import os
import select
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import uvloop
from test_contexts import ONE as PAIR
from until import until

from gateway.supervisor import ipc
from gateway.supervisor.blocks import sealed_file
from gateway.supervisor.ipc import ServerSide
from gateway.supervisor.redis_url import RedisAddress
from gateway.worker import main as module


class Engine:
    """Stands for the compiled engine; remembers what it was told."""

    made: "list[Engine]" = []

    def __init__(self, counters: Any, **options: Any) -> None:
        self.calls: list[Any] = []
        self.connections = 0
        self.ticks = 0
        self.rest = 20
        self.log = b""
        self._epoll = select.epoll()
        Engine.made.append(self)

    def fileno(self) -> int:
        return self._epoll.fileno()

    def on_ready(self) -> None:
        self.calls.append("ready")

    def on_tick(self) -> int:
        self.ticks += 1
        return self.rest

    def set_wake(self, wake: Callable[[], None]) -> None:
        self.wake = wake

    def open_snapshot(self, blob: Any) -> bytes:
        return bytes(blob)

    def verify_some(self, snapshot: bytes) -> bool:
        if snapshot == b"bad":
            raise ValueError("no such magic")
        return True

    def swap(self, snapshot: bytes, revision: int) -> None:
        self.calls.append(("swap", snapshot, revision))

    def set_endpoints(self, cluster: int, endpoints: Sequence[ipc.Endpoint]) -> None:
        self.calls.append(("endpoints", cluster, list(endpoints)))

    def set_server_tls(self, listener: int, tls: Any) -> None:
        self.calls.append(("server", listener, tls is not None))

    def set_client_tls(self, cluster: int, tls: Any) -> None:
        self.calls.append(("client", cluster, tls is not None))

    def set_certificate_reader(self, read: Any) -> None:
        self.calls.append("reader")

    def set_limit_asker(self, wake: Any) -> None:
        self.calls.append(("asker", wake is not None))

    def listen(self, fd: int, bind_id: int) -> None:
        self.calls.append(("listen", bind_id, os.fstat(fd).st_ino))

    def unlisten(self, bind_id: int) -> None:
        self.calls.append(("unlisten", bind_id))

    def drain(self, deadline_ms: int) -> None:
        self.calls.append(("drain", deadline_ms))

    def describe_clusters(self) -> list[dict[str, Any]]:
        return [{"name": "a", "endpoints": [{"address": b"\xff1", "active": 1}]}]

    def describe_connections(self, limit: int = 1000) -> list[dict[str, Any]]:
        return [{"client": "10.0.0.1", "limit": limit}]

    def take_log(self) -> bytes:
        lines, self.log = self.log, b""
        return lines

    def set_log(self, format: str, sample: float) -> None:
        self.calls.append(("log", format, sample))

    def close(self) -> None:
        self.calls.append("close")
        self._epoll.close()


class Supervisor:
    """The other end of the channel."""

    def __init__(self, sock: socket.socket) -> None:
        self.facts: list[ipc.Up] = []
        self.channel = ipc.Channel(sock, ipc.Up, lambda message, fd: self.facts.append(message), lambda: None)

    def of(self, kind: type) -> list[Any]:
        return [fact for fact in self.facts if isinstance(fact, kind)]

    def publish(
        self, blob: bytes, revision: int, endpoints: dict[int, list[ipc.Endpoint]] | None = None, secured: Sequence[int] = ()
    ) -> None:
        fd = sealed_file(blob)
        self.channel.send(ipc.Snapshot(revision, len(blob), endpoints or {}, list(secured)), fd)
        os.close(fd)


Story = Callable[[Supervisor, Engine, "asyncio.Task[int]"], Awaitable[None]]


@pytest.fixture(autouse=True)
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "Engine", Engine)
    # The process of the tests may leave core files.
    monkeypatch.setattr(module, "hold_keys", lambda: True)
    yield
    gc.enable()
    gc.unfreeze()


def tell(story: Story) -> None:
    async def run() -> None:
        ours, theirs = socket.socketpair()
        supervisor = Supervisor(ours)
        worker = asyncio.ensure_future(module.Worker(3, theirs, mmap.mmap(-1, 4096)).run())
        engine = Engine.made[-1]
        try:
            await until(lambda: supervisor.of(ipc.Hello))
            await story(supervisor, engine, worker)
        finally:
            supervisor.channel.send(ipc.Drain(0))
            await asyncio.wait_for(worker, 10)
            supervisor.channel.close()
        assert engine.calls[-1] == "close"

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(run(), 60))


def test_it_says_hello_ticks_and_sends_a_heartbeat() -> None:
    async def story(supervisor: Supervisor, engine: Engine, worker: Any) -> None:
        assert supervisor.of(ipc.Hello) == [ipc.Hello(os.getpid())]
        engine.connections = 5
        await until(lambda: any(health.connections == 5 for health in supervisor.of(ipc.Health)))
        assert supervisor.of(ipc.Health)[-1].rss_kib > 1000
        seen = engine.ticks
        await until(lambda: engine.ticks > seen + 3)
        engine.connections = 0
        assert not gc.isenabled() and gc.get_freeze_count() > 0

    tell(story)


def test_an_idle_worker_sleeps_until_something_happens_or_its_heartbeat_is_due() -> None:
    async def story(supervisor: Supervisor, engine: Engine, worker: Any) -> None:
        engine.rest = 60_000
        beats = len(supervisor.of(ipc.Health))
        await until(lambda: len(supervisor.of(ipc.Health)) > beats + 1)
        seen, beats = engine.ticks, len(supervisor.of(ipc.Health))
        await until(lambda: len(supervisor.of(ipc.Health)) > beats)
        assert engine.ticks - seen <= 2, "a tick for each heartbeat"
        engine.log = b"a line\n"
        engine.rest = 20
        seen, beats = engine.ticks, len(supervisor.of(ipc.Health))
        engine.wake()
        await until(lambda: engine.ticks > seen + 4)
        assert engine.log == b""

    tell(story)


def test_lines_of_the_log_do_not_wait_for_the_end_of_a_rest() -> None:
    async def story(supervisor: Supervisor, engine: Engine, worker: Any) -> None:
        await until(lambda: engine.ticks > 1)
        engine.log, engine.rest = b"a line\n", 60_000
        seen = engine.ticks
        await until(lambda: engine.ticks > seen)
        assert engine.log == b""

    tell(story)


def test_a_snapshot_is_swapped_with_its_endpoints_and_acknowledged() -> None:
    async def story(supervisor: Supervisor, engine: Engine, worker: Any) -> None:
        supervisor.publish(b"first", 1, {7: [(b"10.0.0.1", 80, 1, b"")]})
        await until(lambda: supervisor.of(ipc.Ack))
        assert supervisor.of(ipc.Ack)[0].revision == 1
        assert engine.calls[-2:] == [("swap", b"first", 1), ("endpoints", 7, [(b"10.0.0.1", 80, 1, b"")])]
        supervisor.publish(b"bad", 2)
        await until(lambda: supervisor.of(ipc.Refused))
        assert supervisor.of(ipc.Refused) == [ipc.Refused(2, "no such magic")]
        # The worker goes on with what it had.
        supervisor.channel.send(ipc.Endpoints({7: [(b"10.0.0.2", 80, 1, b"")], 99: [(b"10.0.0.3", 80, 1, b"")]}))
        await until(lambda: engine.calls[-1] == ("endpoints", 7, [(b"10.0.0.2", 80, 1, b"")]))

    tell(story)


def test_certificates_come_with_their_snapshot_and_later_ones_at_once() -> None:
    side = ServerSide((PAIR,))

    async def story(supervisor: Supervisor, engine: Engine, worker: Any) -> None:
        def tls(revision: int, *listeners: int, **more: Any) -> None:
            supervisor.channel.send(ipc.TLS(revision, {}, dict.fromkeys(listeners, side), **{"clusters": {}, **more}))

        def calls() -> list[Any]:
            return [call for call in engine.calls if call[0] in ("server", "client", "swap")]

        tls(1, 5, 6)
        supervisor.publish(b"first", 1, secured=[5, 6])
        await until(lambda: supervisor.of(ipc.Ack))
        assert calls() == [("server", 5, True), ("server", 6, True), ("swap", b"first", 1)]
        tls(1, 5)
        await until(lambda: len(calls()) == 4)
        assert calls()[3] == ("server", 5, True)
        # What comes with a snapshot that is refused takes nothing away.
        tls(2, 7)
        supervisor.publish(b"bad", 2, secured=[7])
        supervisor.publish(b"third", 3, secured=[7])
        await until(lambda: len(supervisor.of(ipc.Ack)) == 2)
        rest = calls()[4:]
        assert rest[:2] == [("server", 7, True), ("swap", b"third", 3)]
        assert sorted(rest[2:]) == [("server", 5, False), ("server", 6, False)]
        tls(3, clusters={9: ipc.ClientSide("lost", "a.test")})
        await until(lambda: supervisor.of(ipc.Unsecured))
        assert supervisor.of(ipc.Unsecured)[0].id == 9 and not worker.done()

    tell(story)


def test_sockets_come_and_go() -> None:
    async def story(supervisor: Supervisor, engine: Engine, worker: Any) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            inode = os.fstat(server.fileno()).st_ino
            supervisor.channel.send(ipc.Listen(5, "127.0.0.1:0"), server.fileno())
            await until(lambda: ("listen", 5, inode) in engine.calls)
            supervisor.channel.send(ipc.Unlisten(5))
            supervisor.channel.send(ipc.Unlisten(6))  # never listened: nothing happens
            await until(lambda: ("unlisten", 5) in engine.calls)
            assert ("unlisten", 6) not in engine.calls

    tell(story)


def test_requests_on_a_port_that_goes_are_read_before_the_snapshot_that_has_it_no_more() -> None:
    async def story(supervisor: Supervisor, engine: Engine, worker: Any) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as other:
            for bind_id, sock in ((5, server), (6, other)):
                supervisor.channel.send(ipc.Listen(bind_id, ""), sock.fileno())
                await until(lambda bind_id=bind_id: any(call[:2] == ("listen", bind_id) for call in engine.calls))  # type: ignore[misc]
            queued = socket.create_connection(server.getsockname())
            supervisor.channel.send(ipc.Unlisten(5))
            supervisor.channel.send(ipc.Unlisten(6))
            supervisor.publish(b"without it", 1)
            await until(lambda: supervisor.of(ipc.Ack))
            swap = engine.calls.index(("swap", b"without it", 1))
            assert engine.calls[swap - 4 : swap] == [("unlisten", 5), "ready", ("unlisten", 6), "ready"]
            with socket.socket() as late:
                # The test's own copy keeps the socket open: nobody new gets through to it.
                late.setblocking(False)
                assert late.connect_ex(server.getsockname()) == errno.EINPROGRESS
                assert not select.select([], [late], [], 0.02)[1]
            queued.close()

    tell(story)


def test_the_access_log_is_written_in_batches_and_reopened(tmp_path: Path) -> None:
    async def story(supervisor: Supervisor, engine: Engine, worker: Any) -> None:
        path = tmp_path / "access.log"
        supervisor.channel.send(ipc.Settings(log_format="json", log_path=str(path), log_sample=0.5))
        await until(lambda: ("log", "json", 0.5) in engine.calls)
        engine.log = b"one\n"
        await until(lambda: path.exists() and path.read_bytes() == b"one\n")
        path.rename(tmp_path / "old.log")
        supervisor.channel.send(ipc.ReopenLogs())
        await until(path.exists)
        engine.log = b"two\n"
        await until(lambda: path.read_bytes() == b"two\n")
        supervisor.channel.send(ipc.Settings(log_format="off", log_path=str(path)))
        await until(lambda: ("log", "off", 1.0) in engine.calls)

    tell(story)


def test_a_store_of_rate_limits_is_linked_while_it_is_wanted(tmp_path: Path) -> None:
    async def story(supervisor: Supervisor, engine: Engine, worker: Any) -> None:
        supervisor.channel.send(ipc.Settings(redis=RedisAddress(path=str(tmp_path / "one"))))
        await until(lambda: ("asker", True) in engine.calls)
        await until(lambda: any(fact.store is not None and fact.store.errors.get("connect") for fact in supervisor.of(ipc.Health)))
        supervisor.channel.send(ipc.Settings(redis=RedisAddress(path=str(tmp_path / "two"))))
        supervisor.publish(b"first", 1)
        await until(lambda: supervisor.of(ipc.Ack))
        assert engine.calls.count(("asker", True)) == 1 and ("asker", False) not in engine.calls
        supervisor.channel.send(ipc.Settings())
        await until(lambda: ("asker", False) in engine.calls)

    tell(story)


def test_a_log_that_cannot_be_opened_does_not_stop_the_worker(tmp_path: Path) -> None:
    async def story(supervisor: Supervisor, engine: Engine, worker: Any) -> None:
        supervisor.channel.send(ipc.Settings(log_format="json", log_path=str(tmp_path / "none" / "access.log")))
        supervisor.publish(b"first", 1)
        await until(lambda: supervisor.of(ipc.Ack))

    tell(story)


def test_questions_are_answered_with_plain_values() -> None:
    async def story(supervisor: Supervisor, engine: Engine, worker: Any) -> None:
        supervisor.channel.send(ipc.Describe(1, "clusters"))
        supervisor.channel.send(ipc.Describe(2, "connections", 5))
        supervisor.channel.send(ipc.Describe(3, "nothing"))
        await until(lambda: len(supervisor.of(ipc.Description)) == 3)
        assert supervisor.of(ipc.Description) == [
            ipc.Description(1, [{"name": "a", "endpoints": [{"address": "\\xff1", "active": 1}]}]),
            ipc.Description(2, [{"client": "10.0.0.1", "limit": 5}]),
            ipc.Description(3, []),
        ]

    tell(story)


def test_a_drain_waits_for_connections_and_says_goodbye() -> None:
    async def story(supervisor: Supervisor, engine: Engine, worker: "asyncio.Task[int]") -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            supervisor.channel.send(ipc.Listen(5, "127.0.0.1:0"), server.fileno())
            await until(lambda: any(call[0] == "listen" for call in engine.calls))
        engine.connections = 1
        supervisor.channel.send(ipc.Drain(60_000))
        await until(lambda: ("drain", 60_000) in engine.calls)
        await until(lambda: ("unlisten", 5) in engine.calls)
        assert engine.calls.index(("drain", 60_000)) < engine.calls.index(("unlisten", 5)) and not worker.done()
        engine.connections = 0
        assert await worker == 0
        await until(lambda: supervisor.of(ipc.Bye))
        assert supervisor.of(ipc.Bye) == [ipc.Bye(0)]

    tell(story)


def test_an_orphan_serves_for_a_while_and_then_drains() -> None:
    async def story(supervisor: Supervisor, engine: Engine, worker: "asyncio.Task[int]") -> None:
        supervisor.channel.send(ipc.Settings(drain_timeout_ms=50))
        supervisor.publish(b"first", 1)
        await until(lambda: supervisor.of(ipc.Ack))
        supervisor.channel.close()
        assert await worker == 0
        assert ("drain", 50) in engine.calls

    tell(story)
