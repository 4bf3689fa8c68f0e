"""The worker processes: started, fed with snapshots and sockets, watched, replaced when they die, drained at the end.

A worker is a fresh interpreter (no fork of the loop) that inherits three descriptors: its end of the socket pair, its counters, and
the table of rate limits that all workers share.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway._core import limit_table
from gateway.supervisor import ipc
from gateway.supervisor.blocks import Block, sealed_file, shared_file
from gateway.supervisor.sockets import Listener, Listeners

log = logging.getLogger("gateway.supervisor.workers")

BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 10.0
STABLE_AFTER_S = 10.0      # a worker that lived this long starts the back-off afresh
SILENT_AFTER_S = 10.0      # without a heartbeat for so long it is replaced
START_WITHIN_S = 30.0      # the first word of a new one may take longer: a cold disk, a busy node
WATCH_EVERY_S = 1.0
DESCRIBE_WITHIN_S = 2.0

ENTRY = Path(__file__).resolve().parent.parent / "worker" / "__main__.py"


class State(enum.StrEnum):
    STARTING = "starting"  # the process runs, the first snapshot is not acknowledged
    SERVING = "serving"
    DRAINING = "draining"
    DOWN = "down"          # dead, or waiting for its back-off


@dataclass(slots=True)
class Publication:
    """One revision on its way to the workers. Owns the memory file until the next one replaces it."""

    revision: int
    fd: int
    size: int
    endpoints: dict[int, list[ipc.Endpoint]]
    secured: list[int]

    @staticmethod
    def of(
        revision: int, blob: bytes, endpoints: dict[int, list[ipc.Endpoint]], secured: Sequence[int] = ()
    ) -> Publication:
        """secured: ids of the listeners and clusters that speak TLS in it."""
        return Publication(revision, sealed_file(blob), len(blob), endpoints, list(secured))

    def close(self) -> None:
        os.close(self.fd)


@dataclass(slots=True)
class Slot:
    """A place for a worker; its counters and its sockets stay when the process in it changes."""

    index: int
    block: Block
    state: State = State.DOWN
    pid: int = 0
    channel: ipc.Channel | None = None
    process: asyncio.subprocess.Process | None = None
    revision: int = 0              # last acknowledged
    refused: int = 0               # last refused
    error: str = ""                # why
    tls_error: str = ""            # why it keeps the old TLS of something, since the last order about TLS
    swap_us: int = 0
    started: float = 0.0           # monotonic
    heard: float = 0.0             # monotonic, of the last heartbeat
    connections: int = 0
    rss_kib: int = 0
    lag_us: int = 0
    restarts: int = 0
    delay: float = BACKOFF_FIRST_S
    answers: dict[int, asyncio.Future[list[dict[str, Any]]]] = field(default_factory=dict)
    endpoints: Mapping[int, list[ipc.Endpoint]] | None = None
    """Of the clusters, as this process has been told; None before the first word."""

    def row(self) -> dict[str, Any]:
        """For the admin port."""
        return {
            "slot": self.index,
            "pid": self.pid,
            "state": str(self.state),
            "revision": self.revision,
            "connections": self.connections,
            "rss_kib": self.rss_kib,
            "lag_us": self.lag_us,
            "swap_us": self.swap_us,
            "restarts": self.restarts,
            "age_s": round(time.monotonic() - self.started, 1) if self.state is not State.DOWN else 0.0,
            "error": self.error or self.tls_error,
        }


class Fleet:
    """All worker slots. Lives on the supervisor's loop; every method but the coroutines returns at once."""

    def __init__(
        self,
        slots: int,
        block_size: int,
        listeners: Listeners,
        settings: ipc.Settings,
        *,
        on_change: Callable[[], None] = lambda: None,
        on_respawn: Callable[[Slot], None] = lambda slot: None,
        on_store: Callable[[Slot, ipc.StoreFacts], None] = lambda slot, facts: None,
        name_of: Callable[[int], tuple[str, str]] = lambda id_: ("object", f"{id_:x}"),
        entry: Path = ENTRY,
        extra_args: Sequence[str] = (),
    ) -> None:
        """on_change is called when a worker acknowledged, refused, came or went; on_respawn before a slot's next process starts;
        on_store with what a worker tells of the store of rate limits;
        name_of for the kind and the name of an id, when something about it is said."""
        self.slots = [Slot(index, Block(index, block_size)) for index in range(slots)]
        # What is known of the keys of rate limits: one for all, so that the number of workers makes no difference.
        self._limits = shared_file(limit_table.table_size(), "isthmus-limits")
        self.listeners = listeners
        self.settings = settings
        self.publication: Publication | None = None
        self._tls = ipc.TLS(0, {}, {}, {})
        self._on_change = on_change
        self._on_respawn = on_respawn
        self._on_store = on_store
        self._name_of = name_of
        self._entry = entry
        self._extra_args = list(extra_args)
        self._keepers: set[asyncio.Task[None]] = set()
        self._watcher: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._number = 0

    # life

    def start(self) -> None:
        """Starts a process in every slot and keeps one there."""
        loop = asyncio.get_running_loop()
        self._keepers = {loop.create_task(self._keep(slot), name=f"worker slot {slot.index}") for slot in self.slots}
        self._watcher = loop.create_task(self._watch(), name="worker watch")

    async def _keep(self, slot: Slot) -> None:
        while True:
            try:
                await self._run_one(slot)
            except OSError as error:
                log.error("worker %d could not be started: %s", slot.index, error)
                slot.state = State.DOWN
            if self._stop.is_set():
                return
            if time.monotonic() - slot.started >= STABLE_AFTER_S:
                slot.delay = BACKOFF_FIRST_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), slot.delay)
            if self._stop.is_set():
                return
            slot.delay = min(slot.delay * 2, BACKOFF_MAX_S)
            slot.restarts += 1

    async def _run_one(self, slot: Slot) -> None:
        """One process from start to end."""
        self._on_respawn(slot)
        slot.started = slot.heard = time.monotonic()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                # The folder of the entry must not come first on the module path; the entry puts the right one there.
                "-P",
                str(self._entry),
                f"--slot={slot.index}",
                f"--channel={theirs.fileno()}",
                f"--counters={slot.block.fd}",
                f"--limits={self._limits}",
                *self._extra_args,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), slot.block.fd, self._limits),
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        slot.process = process
        slot.pid = process.pid
        slot.state = State.STARTING
        slot.revision = slot.refused = slot.connections = 0
        slot.error = slot.tls_error = ""
        slot.endpoints = None
        slot.channel = channel = ipc.Channel(
            ours, ipc.Up, lambda message, fd: self._on_message(slot, message), lambda: self._on_channel_closed(slot)
        )
        channel.send(self.settings)
        if self._tls.listeners or self._tls.clusters:
            self._send(slot, self._tls)
        if self.publication is not None:
            self._send_publication(slot, self.publication)
        for listener in self.listeners.by_id.values():
            self._send_listener(slot, listener)
        if self._stop.is_set():
            # The end began while this process was being made.
            process.kill()
        self._on_change()
        code = await process.wait()
        channel.close()
        for answer in slot.answers.values():
            if not answer.done():
                answer.set_result([])
        slot.answers.clear()
        drained = slot.state is State.DRAINING
        slot.state = State.DOWN
        slot.channel = None
        slot.process = None
        slot.connections = 0
        if not (drained and code == 0):
            log.error("worker %d (pid %d) ended: %s", slot.index, slot.pid, _how(code))
        self._on_change()

    def _on_channel_closed(self, slot: Slot) -> None:
        """A worker that hung up is of no use any more, whatever it still does."""
        if slot.process is not None and slot.process.returncode is None and slot.state is not State.DRAINING:
            with contextlib.suppress(ProcessLookupError):
                slot.process.kill()

    async def _watch(self) -> None:
        """Replaces workers that have gone silent."""
        last = time.monotonic()
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            now = time.monotonic()
            late, last = now - last - WATCH_EVERY_S, now
            # After a stop of this process itself (a suspended machine) the heartbeats still lie unread in the channels.
            if late > WATCH_EVERY_S:
                continue
            for slot in self.slots:
                allowed = START_WITHIN_S if slot.state is State.STARTING else SILENT_AFTER_S
                if slot.process is None or slot.state is State.DRAINING or now - slot.heard < allowed:
                    continue
                log.error("worker %d (pid %d) has been silent for %.0f s and is replaced", slot.index, slot.pid, now - slot.heard)
                with contextlib.suppress(ProcessLookupError):
                    # SIGUSR2 makes it write where it hangs, whatever it hangs in.
                    slot.process.send_signal(signal.SIGUSR2)
                    await asyncio.sleep(0.1)
                    slot.process.kill()
                slot.heard = now

    # messages

    def _on_message(self, slot: Slot, message: ipc.Up) -> None:
        slot.heard = time.monotonic()
        if isinstance(message, ipc.Health):
            slot.connections = message.connections
            slot.rss_kib = message.rss_kib
            slot.lag_us = message.lag_us
            if message.store is not None:
                self._on_store(slot, message.store)
            return
        if isinstance(message, ipc.Ack):
            slot.revision = message.revision
            slot.swap_us = message.swap_us
            slot.error = ""
            if slot.state is State.STARTING:
                slot.state = State.SERVING
        elif isinstance(message, ipc.Refused):
            slot.refused = message.revision
            slot.error = message.error
            log.error("worker %d refused revision %d: %s", slot.index, message.revision, message.error)
        elif isinstance(message, ipc.Unsecured):
            kind, name = self._name_of(message.id)
            slot.tls_error = f"TLS of {kind} '{name}': {message.error}"
            log.error("worker %d keeps the old TLS of %s '%s': %s", slot.index, kind, name, message.error)
        elif isinstance(message, ipc.Description):
            answer = slot.answers.pop(message.number, None)
            if answer is not None and not answer.done():
                answer.set_result(message.rows)
            return
        elif isinstance(message, ipc.Bye) and message.closed_hard:
            log.warning("worker %d closed %d connections at the drain deadline", slot.index, message.closed_hard)
        self._on_change()

    def _send(self, slot: Slot, message: ipc.Down, fd: int | None = None) -> None:
        if slot.channel is not None:
            slot.channel.send(message, fd)

    def _send_publication(self, slot: Slot, publication: Publication) -> None:
        before, slot.endpoints = slot.endpoints, publication.endpoints
        changed, gone = publication.endpoints, []
        if before is not None:
            changed = {id_: rows for id_, rows in changed.items() if (old := before.get(id_)) is not rows and old != rows}
            gone = [id_ for id_ in before if id_ not in publication.endpoints]
        self._send(
            slot,
            ipc.Snapshot(publication.revision, publication.size, changed, publication.secured, gone, is_whole=before is None),
            publication.fd,
        )

    def _send_listener(self, slot: Slot, listener: Listener) -> None:
        self._send(slot, ipc.Listen(listener.bind_id, listener.bound), listener.sockets[slot.index].fileno())

    def publish(self, publication: Publication, added: Sequence[Listener] = (), removed: Sequence[int] = ()) -> None:
        """Sends a revision to every worker: ports that go first, then the snapshot, then ports that come."""
        if self.publication is not None:
            self.publication.close()
        self.publication = publication
        for slot in self.slots:
            for bind_id in removed:
                self._send(slot, ipc.Unlisten(bind_id))
            self._send_publication(slot, publication)
            for listener in added:
                self._send_listener(slot, listener)

    def retarget(self, endpoints: dict[int, list[ipc.Endpoint]]) -> None:
        """Other endpoints for the clusters of the revision that is out; what is different goes to the workers."""
        publication = self.publication
        if publication is None:
            return
        changed = {id_: rows for id_, rows in endpoints.items() if publication.endpoints.get(id_) != rows}
        if changed:
            publication.endpoints = {**publication.endpoints, **changed}
            self.broadcast(ipc.Endpoints(changed))
            for slot in self.slots:
                if slot.endpoints is not None:
                    slot.endpoints = publication.endpoints

    def secure(self, tls: ipc.TLS) -> list[int]:
        """What listeners and clusters need for TLS from now on; before `publish`, when that brings who needs it.

        What is different from before goes to every worker, and everything to a new one. Answers the ids of what is different.
        """
        before, self._tls = self._tls, tls
        listeners = {id_: side for id_, side in tls.listeners.items() if before.listeners.get(id_) != side}
        clusters = {id_: side for id_, side in tls.clusters.items() if before.clusters.get(id_) != side}
        if listeners or clusters:
            for slot in self.slots:
                slot.tls_error = ""
            self.broadcast(_order(tls, listeners, clusters))
        return [*listeners, *clusters]

    def renew_tickets(self) -> None:
        """Every listener gets contexts of its own again, and with them new keys for session tickets."""
        if self._tls.listeners:
            self.broadcast(_order(self._tls, self._tls.listeners, {}))

    def apply_settings(self, settings: ipc.Settings) -> None:
        if settings != self.settings:
            self.settings = settings
            self.broadcast(settings)

    def broadcast(self, message: ipc.Down) -> None:
        for slot in self.slots:
            self._send(slot, message)

    # questions

    @property
    def serving(self) -> list[Slot]:
        return [slot for slot in self.slots if slot.state is State.SERVING]

    @property
    def is_settled(self) -> bool:
        """Whether at least one worker serves and each that serves has answered for the current revision."""
        if self.publication is None:
            return False
        revision = self.publication.revision
        serving = self.serving
        return bool(serving) and all(revision in (slot.revision, slot.refused) for slot in serving)

    async def describe(self, what: str, limit: int = 1000) -> list[tuple[int, list[dict[str, Any]]]]:
        """The rows of every serving worker with its slot; a worker that does not answer in time is left out."""
        asked: list[tuple[Slot, int, asyncio.Future[list[dict[str, Any]]]]] = []
        for slot in self.slots:
            if slot.state not in (State.SERVING, State.DRAINING):
                continue
            self._number += 1
            answer: asyncio.Future[list[dict[str, Any]]] = asyncio.get_running_loop().create_future()
            slot.answers[self._number] = answer
            self._send(slot, ipc.Describe(self._number, what, limit))
            asked.append((slot, self._number, answer))
        if asked:
            await asyncio.wait([answer for _, _, answer in asked], timeout=DESCRIBE_WITHIN_S)
        rows = []
        for slot, number, answer in asked:
            slot.answers.pop(number, None)
            if answer.done():
                rows.append((slot.index, answer.result()))
        return rows

    # the end

    def hurry(self) -> None:
        """The second signal: the drain deadline is now."""
        self._hurry.set()

    async def drain(self, timeout_s: float) -> None:
        """Drains every worker, closes the ports and waits for the processes; at the deadline the rest is killed."""
        self._stop.set()
        for slot in self.slots:
            if slot.process is not None:
                slot.state = State.DRAINING
                self._send(slot, ipc.Drain(int(timeout_s * 1000)))
        # A socket that stays open here would go on collecting connections that nobody takes.
        self.listeners.close()
        self._on_change()
        # A little later than the workers' own deadline, at which they close their connections in good order.
        if not await self._ended(timeout_s + 2.0):
            self.broadcast(ipc.Drain(0))
            await self._ended(2.0)
        await self.kill()

    async def _ended(self, timeout_s: float) -> bool:
        """Waits until no worker is left (True), or for the time to pass or the second signal (False)."""
        if not self._keepers:
            return True
        hurry = asyncio.get_running_loop().create_task(self._hurry.wait())
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0 and not hurry.done():
            living = [task for task in self._keepers if not task.done()]
            if not living:
                break
            await asyncio.wait([*living, hurry], timeout=left, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        self._hurry.clear()
        return all(task.done() for task in self._keepers)

    async def kill(self) -> None:
        """Ends every process at once and frees the shared memory."""
        self._stop.set()
        for slot in self.slots:
            if slot.process is not None:
                with contextlib.suppress(ProcessLookupError):
                    slot.process.kill()
        if self._keepers:
            await asyncio.wait(self._keepers)
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])
        for slot in self.slots:
            slot.block.close()
        os.close(self._limits)
        if self.publication is not None:
            self.publication.close()
            self.publication = None


def _order(tls: ipc.TLS, listeners: dict[int, ipc.ServerSide], clusters: dict[int, ipc.ClientSide]) -> ipc.TLS:
    """The part of a TLS order about these, with the authorities that they name."""
    digests = {side.ca for side in listeners.values() if side.ca} | {side.ca for side in clusters.values()}
    return ipc.TLS(tls.revision, {digest: tls.bundles[digest] for digest in digests}, listeners, clusters)


def _how(code: int) -> str:
    """An exit status in words."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
