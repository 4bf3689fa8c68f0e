"""A worker: the Python shell around one engine. It takes orders from the supervisor's channel and never parses configuration.

One loop, one thread. On the loop are the engine's descriptor, the channel, a tick of 20 ms and the timers of names; the engine does
everything that belongs to a request.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import gc
import importlib
import logging
import mmap
import os
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

import uvloop

import gateway.supervisor.ipc as ipc
from gateway._core.engine import Engine
from gateway.observe import logging as log_setup
from gateway.observe.access_log import AccessLog
from gateway.supervisor.secrets import hold_keys
from gateway.worker.descriptors import make_room
from gateway.worker.drain import SETTLE_S, Leaving, turn_away
from gateway.worker.resolver import Resolver
from gateway.worker.swap import Wishes, map_blob, put_to_use, set_changed, verified

if TYPE_CHECKING:
    from gateway.worker.limits.link import Link
    from gateway.worker.tls import Desk

log = logging.getLogger("gateway.worker")

TICK_S = 0.02
LOG_EVERY_S = 0.05
HEALTH_EVERY_S = 1.0
# A full collection costs well under a millisecond after gc.freeze, and still only runs when no connection waits for it.
COLLECT_EVERY_S = 10.0
COLLECT_AT_LAST_S = 120.0
PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024


class Worker:
    """State of one worker process. Owns the engine, its listening descriptors, the access log and the resolver."""

    def __init__(self, slot: int, channel: socket.socket, counters: mmap.mmap, limits: mmap.mmap | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._slot = slot
        self._engine = Engine(counters)
        if limits is not None:
            self._engine.set_limits(limits, slot=slot)
        self._settings = ipc.Settings()
        self._access_log: AccessLog | None = None
        self._resolver = Resolver(self._on_resolved)
        self._endpoints: dict[int, tuple[ipc.Endpoint, ...]] = {}
        self._wishes = Wishes()
        self._listening: dict[int, int] = {}
        self._going: dict[int, float] = {}
        self._desk: Desk | None = None
        self._link: Link | None = None
        self._revision = 0
        self._leaving = Leaving(self._engine)
        self._orders: asyncio.Queue[tuple[ipc.Down, int | None] | None] = asyncio.Queue()
        self._done = asyncio.Event()
        self._channel = ipc.Channel(channel, ipc.Down, self._on_order, lambda: self._orders.put_nowait(None))
        self._tasks: set[asyncio.Task[Any]] = set()
        self._next_tick = 0.0
        self._next_log = 0.0
        self._next_health = 0.0
        self._last_collect = time.monotonic()
        self._lag_us = 0

    async def run(self) -> int:
        """Serves until told to drain, or until the supervisor has been gone for long enough. Answers the exit status."""
        self._loop.add_reader(self._engine.fileno(), self._engine.on_ready)
        self._channel.send(ipc.Hello(os.getpid()))
        self._tick = self._loop.call_later(TICK_S, self._on_tick)
        self._next_tick = time.monotonic() + TICK_S
        self._engine.set_wake(self._wake)
        # From here on everything that exists stays: collections look at what is new, and the pages stay shared and clean.
        gc.collect()
        gc.freeze()
        gc.disable()
        orders = self._start(self._take_orders())
        orders.add_done_callback(self._on_orders_done)
        await self._done.wait()
        await self._leaving.settled()
        for bind_id in list(self._listening):
            self._unlisten(bind_id)
        closed_hard = await self._leaving.finished()
        self._flush_log()
        self._channel.send(ipc.Bye(closed_hard))
        await self._stop()
        return 0

    def _start(self, work: Any) -> asyncio.Task[Any]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _on_orders_done(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and task.exception() is not None:
            # An order that could not be carried out leaves this worker in an unknown state: a fresh one is better.
            log.critical("worker %d cannot go on", self._slot, exc_info=task.exception())
            os._exit(70)

    async def _stop(self) -> None:
        await self._channel.flushed()
        await self._resolver.close()
        if self._link is not None:
            await self._link.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._loop.remove_reader(self._engine.fileno())
        self._engine.close()
        self._flush_log()
        if self._access_log is not None:
            self._access_log.close()
        for fd in self._listening.values():
            os.close(fd)
        self._channel.close()

    # the tick

    def _on_tick(self) -> None:
        now = time.monotonic()
        self._lag_us = max(self._lag_us, int((now - self._next_tick) * 1_000_000))
        rest = self._engine.on_tick() / 1000
        if now >= self._next_log or rest > TICK_S:
            self._next_log = now + LOG_EVERY_S
            self._flush_log()
        if now >= self._next_health:
            self._next_health = now + HEALTH_EVERY_S
            store = self._link.facts() if self._link is not None else None
            self._channel.send(ipc.Health(self._engine.connections, _rss_kib(), self._lag_us, store))
            self._lag_us = 0
        since = now - self._last_collect
        if since > COLLECT_EVERY_S and (self._engine.connections == 0 or since > COLLECT_AT_LAST_S):
            self._last_collect = now
            gc.collect()
        # An idle worker wakes for its heartbeat alone.
        rest = max(TICK_S, min(rest, self._next_health - now))
        self._next_tick = time.monotonic() + rest
        self._tick = self._loop.call_later(rest, self._on_tick)

    def _wake(self) -> None:
        """Something happened in a long rest."""
        self._tick.cancel()
        self._next_tick = time.monotonic() + TICK_S
        self._tick = self._loop.call_later(TICK_S, self._on_tick)

    def _flush_log(self) -> None:
        lines = self._engine.take_log()
        if lines and self._access_log is not None:
            self._access_log.write(lines)

    # orders

    def _on_order(self, order: ipc.Down, fd: int | None) -> None:
        # A drain does not wait behind an order that waits for names.
        if isinstance(order, ipc.Drain):
            self._leave(order.deadline_ms)
            return
        if isinstance(order, ipc.Unlisten) and order.bind_id in self._listening:
            # At once for all ports that go, so that they settle at the same time.
            turn_away(self._listening[order.bind_id])
            self._going[order.bind_id] = self._loop.time() + SETTLE_S
        self._orders.put_nowait((order, fd))

    async def _take_orders(self) -> None:
        while (item := await self._orders.get()) is not None:
            order, fd = item
            await self._obey(order, fd)
        await self._outlive()

    async def _obey(self, order: ipc.Down, fd: int | None) -> None:
        match order:
            case ipc.Settings():
                self._apply_settings(order)
                await self._mind_store()
            case ipc.TLS():
                await self._secure(order)
            case ipc.Snapshot():
                assert fd is not None
                await self._swap(order, fd)
            case ipc.Endpoints():
                self._wishes.note_endpoints(order.endpoints, self._endpoints)
                resolved = await self._resolver.want(order.endpoints, is_all=False)
                self._on_resolved(resolved)
            case ipc.Listen():
                assert fd is not None
                self._listen(order, fd)
            case ipc.Unlisten():
                await self._retire(order.bind_id)
            case ipc.ReopenLogs():
                if self._access_log is not None:
                    self._access_log.reopen()
            case ipc.Describe():
                self._describe(order)
            case ipc.LogLevel():
                log_setup.set_level(order.level)
            case ipc.Drain():
                self._leave(order.deadline_ms)

    def _apply_settings(self, settings: ipc.Settings) -> None:
        log_setup.set_level(settings.log_level)
        is_on = settings.log_format != "off"
        if self._access_log is None or settings.log_path != self._settings.log_path or not is_on:
            self._flush_log()
            if self._access_log is not None:
                self._access_log.close()
            self._access_log = self._open_log(settings.log_path) if is_on else None
        self._engine.set_log(settings.log_format, settings.log_sample)
        if settings.replicas != self._settings.replicas:
            self._engine.set_replicas(settings.replicas)
        self._settings = settings

    async def _mind_store(self) -> None:
        """A link to the store of rate limits while there is a limit that needs it."""
        address = self._settings.redis
        if address is None:
            if self._link is not None:
                link, self._link = self._link, None
                await link.close()
        elif self._link is None:
            if address.password:
                hold_keys()
            # Loaded when it is needed, ten megabytes, and beside the loop, which it would hold for a tenth of a second.
            await asyncio.to_thread(importlib.import_module, "gateway.worker.limits.link")
            from gateway.worker.limits.link import Link

            self._link = Link(self._engine, address)
        elif self._link.address != address:
            await self._link.move(address)

    def _open_log(self, path: str) -> AccessLog | None:
        try:
            return AccessLog(path)
        except OSError as error:
            # Requests matter more than their records.
            log.error("no access log, %s cannot be opened: %s", path, error.strerror)
            return None

    async def _swap(self, order: ipc.Snapshot, fd: int) -> None:
        wishes = self._wishes
        wishes.note(order, self._endpoints)
        try:
            blob = map_blob(fd, order.size)
            snapshot = await verified(self._engine, blob)
            self._resolver.forget(wishes.gone)
            resolved = await self._resolver.want(wishes.late, is_all=order.is_whole)
            if self._desk is not None:
                # In the turn of the swap: no handshake sees the old routes with the new certificates for longer.
                self._desk.apply()
            cost = put_to_use(self._engine, snapshot, order.revision, resolved, wishes.gone, self._endpoints)
            self._wishes = Wishes()
            if self._desk is not None:
                self._desk.forget(order.secured)
        except (ValueError, OSError) as error:
            self._channel.send(ipc.Refused(order.revision, str(error)))
            return
        self._revision = order.revision
        self._channel.send(ipc.Ack(order.revision, cost))

    async def _secure(self, order: ipc.TLS) -> None:
        hold_keys()
        if self._desk is None:
            # Loaded when it is needed, fifteen megabytes, and beside the loop, which it would hold for a tenth of a second.
            await asyncio.to_thread(importlib.import_module, "gateway.worker.tls")
            from gateway.worker.tls import Desk

            self._desk = Desk(self._engine)
        for id_, error in await self._desk.prepare(order):
            self._channel.send(ipc.Unsecured(id_, error))
        if order.revision <= self._revision:
            self._desk.apply()

    def _on_resolved(self, endpoints: dict[int, list[ipc.Endpoint]]) -> None:
        """New answers, for clusters of the snapshot in use."""
        known = {cluster: rows for cluster, rows in endpoints.items() if cluster in self._endpoints}
        set_changed(self._engine, known, self._endpoints)

    def _listen(self, order: ipc.Listen, fd: int) -> None:
        self._unlisten(order.bind_id)
        if self._leaving.has_begun:
            os.close(fd)
            return
        self._listening[order.bind_id] = fd
        self._engine.listen(fd, order.bind_id)

    def _unlisten(self, bind_id: int) -> None:
        fd = self._listening.pop(bind_id, None)
        if fd is not None:
            self._engine.unlisten(bind_id)
            os.close(fd)

    async def _retire(self, bind_id: int) -> None:
        """A port that the configuration has no more: who is connected, or about to be, is served by the routes that it had."""
        await asyncio.sleep(max(0.0, self._going.pop(bind_id, 0.0) - self._loop.time()))
        self._unlisten(bind_id)
        # The requests that are here come before the snapshot that follows.
        self._engine.on_ready()

    def _describe(self, order: ipc.Describe) -> None:
        if order.what == "clusters":
            rows = self._engine.describe_clusters()
        elif order.what == "connections":
            rows = self._engine.describe_connections(order.limit)
        elif order.what == "limits":
            rows = self._engine.top_keys()
        else:
            rows = []
        self._channel.send(ipc.Description(order.number, [_plain(row) for row in rows]))

    # the end

    def _leave(self, deadline_ms: int) -> None:
        self._leaving.begin(deadline_ms, list(self._listening.values()))
        self._done.set()

    async def _outlive(self) -> None:
        """The supervisor is gone. Its successor shares the ports, so serving goes on for a while, and then this one drains."""
        if self._leaving.has_begun:
            return
        timeout_ms = self._settings.drain_timeout_ms
        log.warning("worker %d lost its supervisor; it serves for %.0f s more, then drains", self._slot, timeout_ms / 1000)
        await asyncio.sleep(timeout_ms / 1000)
        self._leave(timeout_ms)

    def on_signal(self) -> None:
        """SIGTERM is the supervisor's business; only an orphan obeys it."""
        if self._channel.closed:
            self._leave(self._settings.drain_timeout_ms)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Bytes of peers as text for people, with everything that is not ASCII escaped."""
    return {key: _plain_value(value) for key, value in row.items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("ascii", "backslashreplace")
    if isinstance(value, list | tuple):
        return [_plain_value(each) for each in value]
    return _plain(value) if isinstance(value, dict) else value


def _rss_kib() -> int:
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * PAGE_KIB
    except (OSError, ValueError, IndexError):
        return 0


def _map(fd: int) -> mmap.mmap:
    shared = mmap.mmap(fd, os.fstat(fd).st_size)
    os.close(fd)
    return shared


async def _run(slot: int, channel_fd: int, counters_fd: int, limits_fd: int) -> int:
    channel = socket.socket(fileno=channel_fd)
    worker = Worker(slot, channel, _map(counters_fd), _map(limits_fd))
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, worker.on_signal)
    return await worker.run()


def main() -> int:
    parser = argparse.ArgumentParser(prog="gateway.worker", description="A worker of isthmus; the supervisor starts it.")
    parser.add_argument("--slot", type=int, required=True)
    parser.add_argument("--channel", type=int, required=True, help="descriptor of the socket pair")
    parser.add_argument("--counters", type=int, required=True, help="descriptor of the shared counters")
    parser.add_argument("--limits", type=int, required=True, help="descriptor of the table of rate limits")
    args = parser.parse_args()
    # A Ctrl-C in a terminal reaches the whole process group; the supervisor alone decides what it means.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR2)
    make_room()  # while there is one thread
    log_setup.setup("info", process=f"worker[{args.slot}]")
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_run(args.slot, args.channel, args.counters, args.limits))
    finally:
        log_setup.close()
