"""The supervisor: reads the sources, keeps the workers, serves the admin port, leaves in good order. No client byte passes here."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import uvloop

import gateway
from gateway._core import counters, snapshot
from gateway.admin.server import AdminServer
from gateway.control.publish import Wanted, wanted_of
from gateway.control.reconciler import LoadSources, Reconciler, Revision
from gateway.model.config import Config, Kubernetes, redact
from gateway.model.problem import Problem
from gateway.observe import logging as log_setup
from gateway.observe.metrics import Collector, ControlFacts, expose
from gateway.observe.store_sums import StoreSums
from gateway.sources import files
from gateway.sources.certificates import Secured
from gateway.sources.watch import watch
from gateway.supervisor import ipc
from gateway.supervisor.adopt import Adopted
from gateway.supervisor.cpus import granted_cpus
from gateway.supervisor.describe import merge_clusters, merge_top
from gateway.supervisor.redis_url import parse_redis_url
from gateway.supervisor.secrets import hold_keys
from gateway.supervisor.sockets import Listeners, split_address
from gateway.supervisor.stats import CLUSTER_WORDS, Sampler
from gateway.supervisor.workers import Fleet, Publication, Slot, State

if TYPE_CHECKING:
    from gateway.sources.kubernetes.live import LiveSource, Outlet

log = logging.getLogger("gateway.supervisor")

SAMPLE_EVERY_S = 1.0
TOP_KEYS = 5                 # of each rate limit, in the live numbers
LONGEST_SLEEP_S = 600.0      # between two looks at the clock
TICKET_KEYS_S = 12 * 3600.0  # so long a worker's key for session tickets is used


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says; None leaves it to the configuration."""

    config: Path
    workers: int | None = None
    admin: str | None = None
    log_level: str = "info"
    load: LoadSources | None = None
    """How the sources are read, when they are more than the files at `config`."""
    watches_cluster: bool = True
    """Whether `kubernetes.enabled` is obeyed; objects in files stand in the place of an API server."""
    on_ready: Callable[[Supervisor], Awaitable[None]] | None = None
    """Called once, when traffic may come for the first time."""


class Supervisor:
    """One gateway. Answers the admin port's questions itself (gateway.admin.state.State)."""

    def __init__(self, options: Options, out: TextIO = sys.stderr) -> None:
        self._options = options
        self._out = out
        self._started = time.time()
        self._level = options.log_level
        self._wanted = Wanted({}, {}, {})
        self._names: dict[int, tuple[str, str]] = {}
        self._bind_errors: dict[str, str] = {}
        self._stop = asyncio.Event()
        self._skip_delay = asyncio.Event()
        self._is_stopping = False
        self._is_draining = False
        self._was_ready = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self.reconciler = Reconciler(options.config, self._apply, options.load)
        self._live: LiveSource | None = None
        self._section = Kubernetes()
        self._outlet: Outlet | None = None
        self._admin: AdminServer | None = None
        self._admin_asked = ""
        self._listeners = Listeners(0)
        self._fleet: Fleet | None = None
        self._sampler = Sampler(self._blocks, lambda: self._names)
        self._facts = ControlFacts(started_at=self._started)
        self._stores = StoreSums()
        self._collector = Collector(lambda: self._names, facts=self._facts)

    # start

    async def run(self) -> int:
        """From the first load to the last connection. Answers the exit status."""
        _raise_descriptor_limit()
        # The admin port gets its turn this often while a configuration compiles in its thread.
        sys.setswitchinterval(0.001)
        # Before the first load, so that no change between the two is missed.
        self._changes = watch(self._options.config, more=lambda: self.reconciler.tls_marks)
        first = await self._first_look()
        if first is not None and first.kubernetes.enabled and not await self._begin_to_watch(first):
            return 0 if self._is_stopping else 1
        if not await self.reconciler.reload("start"):
            for problem in self.reconciler.problems:
                print(problem.text(), file=self._out)
            return await self._give_up()
        if self._bind_errors and self._live is None:
            for problem in self.reconciler.problems:
                if problem.severity == "error":
                    print(f"isthmus: {problem.text()}", file=self._out)
            return await self._give_up()
        assert self.reconciler.current is not None and self._fleet is not None
        if self._admin is None and not await self._open_admin(self.reconciler.current.config):
            return await self._give_up()
        self._hook_signals()
        self._fleet.start()
        self._say_where()
        self._start(self._watch())
        self._start(self._sample())
        self._start(self._mind_time())
        if self._live is not None:
            from gateway.sources.kubernetes.live import Outlet

            self._outlet = Outlet(self.reconciler.reload, self.reconciler.retarget, self._is_settled, self._shut_ports, self._share)
            self._start(self._live.follow(self._outlet))
        await self._stop.wait()
        await self._leave()
        return 0

    async def _first_look(self) -> Config | None:
        """The files alone, to learn whether there is an API server to be waited for; their problems are told by the first load."""
        path = self._options.config
        if not self._options.watches_cluster or not await asyncio.to_thread(files.mentions, path, "kubernetes"):
            return None
        loaded = await asyncio.to_thread(files.load, path, with_certificates=False)
        if loaded.config is not None:
            self._section = loaded.config.kubernetes
        return loaded.config

    async def _begin_to_watch(self, config: Config) -> bool:
        """Waits for the whole picture, and answers on the admin port meanwhile. False: there is nothing to go on with."""
        from gateway.sources.kubernetes.live import LiveSource

        self._live = LiveSource(self._options.config, config.kubernetes)
        self.reconciler = Reconciler(self._options.config, self._apply, self._live.load)
        if not await self._open_admin(config):
            return False
        self._hook_signals()
        assert self._admin is not None
        print(f"isthmus {gateway.__version__}: waits for the API server", file=self._out)
        print(f"  admin on     http://{self._admin.address}", file=self._out)
        self._out.flush()
        self._live.start()
        loop = asyncio.get_running_loop()
        waits = [loop.create_task(self._live.complete()), loop.create_task(self._stop.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()
        if self._is_stopping:
            await self._give_up()
            return False
        return True

    async def _open_admin(self, config: Config) -> bool:
        address = self._admin_asked = self._options.admin or config.admin.address
        try:
            host, port = split_address(address)
            self._admin = AdminServer(self, host, port)
            await self._admin.start()
        except (OSError, ValueError) as error:
            self._admin = None
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            print(f"isthmus: cannot listen on {address} for the admin port: {reason}", file=self._out)
            return False
        return True

    async def _give_up(self) -> int:
        """Before anything is served. Answers the exit status."""
        self._listeners.close()
        if self._fleet is not None:
            await self._fleet.kill()
        if self._live is not None:
            await self._live.stop()
        if self._admin is not None:
            await self._admin.stop()
        return 1

    def _is_settled(self) -> bool:
        return self._fleet is not None and self._fleet.is_settled

    def _shut_ports(self) -> dict[int, str]:
        return {split_address(address)[1]: reason for address, reason in self._bind_errors.items()}

    async def _reload(self, why: str) -> None:
        """A load that is not asked for by the API server."""
        if self._live is not None and self._outlet is None:
            return  # the first load comes when all of it is there
        await self.reconciler.reload(why)
        if self._live is not None and self._outlet is not None:
            self._live.after_load(self._outlet)

    def _share(self) -> None:
        """There may be other replicas of this gateway than before."""
        if self._fleet is not None and self.reconciler.current is not None:
            self._fleet.apply_settings(self._settings(self.reconciler.current))

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A gateway whose watch or sampler is broken still serves; it must not do so in silence.
            log.critical("a part of the supervisor ended", exc_info=error)

    def _say_where(self) -> None:
        assert self._fleet is not None and self._admin is not None
        print(f"isthmus {gateway.__version__}: {len(self._fleet.slots)} workers", file=self._out)
        for bind_id, listener in self._listeners.by_id.items():
            names = ", ".join(self._wanted.listeners.get(bind_id, []))
            print(f"  listening on {self._wanted.schemes.get(bind_id, 'http')}://{listener.bound}  ({names})", file=self._out)
        print(f"  admin on     http://{self._admin.address}", file=self._out)
        self._out.flush()

    def _hook_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._on_stop_signal, False)
        loop.add_signal_handler(signal.SIGINT, self._on_stop_signal, True)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._start(self._reload("SIGHUP")))
        loop.add_signal_handler(signal.SIGUSR1, self._on_reopen_signal)

    def _on_stop_signal(self, is_interactive: bool) -> None:
        if self._is_stopping:
            # The second signal: the delay is over, or the drain is.
            if self._skip_delay.is_set() and self._fleet is not None:
                self._fleet.hurry()
            self._skip_delay.set()
            return
        self._is_stopping = True
        if is_interactive:
            # Somebody sits there and waits; no load balancer has to notice anything first.
            self._skip_delay.set()
        self._stop.set()

    def _on_reopen_signal(self) -> None:
        log.info("logs are reopened")
        if self._fleet is not None:
            self._fleet.broadcast(ipc.ReopenLogs())

    # configuration

    def _apply(self, revision: Revision) -> list[Problem]:
        """Puts a revision to use: sockets first, then the workers. Answers what could not be done."""
        if self._is_draining:
            return []  # the ports are closed, and stay so
        if self._fleet is None:
            self._make_fleet(revision)
        assert self._fleet is not None
        wanted = wanted_of(revision.model, revision.compiled, revision.secured)
        added, removed, errors = self._listeners.apply(wanted.addresses)
        for listener in added:
            if listener.is_shared:
                log.warning("%s is also listened on by another process of this user; the kernel shares it out", listener.address)
        self._wanted = wanted
        self._names = dict(revision.compiled.names)
        self._bind_errors = {error.address: error.reason for error in errors}
        self._fleet.apply_settings(self._settings(revision))
        changed = self._fleet.secure(ipc.TLS(revision.number, wanted.bundles, wanted.server_sides, wanted.client_sides))
        if changed:
            hold_keys()
            log.info("certificates and authorities for %s", ", ".join(sorted(self._names[id_][1] for id_ in changed)))
        publication = self._fleet.publication
        if publication is None or publication.revision != revision.number or added or removed:
            secured = [*wanted.server_sides, *wanted.client_sides]
            publication = Publication.of(revision.number, revision.compiled.blob, wanted.endpoints, secured)
            self._fleet.publish(publication, added, removed)
        else:
            self._fleet.retarget(wanted.endpoints)
        source = str(self._options.config)
        problems = [Problem(severity="error", message=str(error), source=source, key="listeners") for error in errors]
        late = (Problem(severity="warning", message=text, source=source, key=key) for key, text in self._too_late(revision))
        return [*problems, *late]

    def _too_late(self, revision: Revision) -> Iterator[tuple[str, str]]:
        """Keys that are read at start alone and say something else now, each with a sentence. The command line hides them."""
        assert self._fleet is not None
        wanted, running = self._slots_of(revision), len(self._fleet.slots)
        if wanted != running:
            yield "workers", f"{wanted} are asked for and {running} run; the number of workers changes with a restart"
        address = revision.config.admin.address
        if self._admin is not None and self._options.admin is None and address != self._admin_asked:
            yield "admin.address", f"is {address} now, and {self._admin_asked} stays in use; it changes with a restart"

        section = revision.config.kubernetes
        if self._options.watches_cluster and section != self._section:
            yield "kubernetes", "is different from what it was at start; it changes with a restart"

    def _slots_of(self, revision: Revision) -> int:
        asked = self._options.workers or revision.config.workers
        return granted_cpus() if asked == "auto" else int(asked)

    def _make_fleet(self, revision: Revision) -> None:
        slots = self._slots_of(revision)
        self._listeners = Listeners(slots)
        self._fleet = Fleet(
            slots,
            counters.block_size(),
            self._listeners,
            self._settings(revision),
            on_change=self._on_fleet_change,
            on_store=lambda slot, facts: self._stores.note(slot.index, slot.pid, facts),
            name_of=lambda id_: self._names.get(id_, ("object", f"{id_:x}")),
        )

    def _settings(self, revision: Revision) -> ipc.Settings:
        config = revision.config
        return ipc.Settings(
            log_format=config.access_log.format,
            log_path=config.access_log.path,
            log_sample=config.access_log.sample,
            log_level=self._level,
            drain_timeout_ms=int(config.drain.timeout),
            redis=parse_redis_url(config.redis.url) if config.redis is not None and _asks_a_store(config) else None,
            replicas=self._live.replicas() if self._live is not None else 1,
        )

    async def _watch(self) -> None:
        async with contextlib.aclosing(self._changes) as changes:
            async for _ in changes:
                await self._reload("change")

    async def _mind_time(self) -> None:
        """Certificates come nearer to their end although no file changes; keys of session tickets are not used for long."""
        renewed = time.monotonic()
        while True:
            due = self.reconciler.due
            left = LONGEST_SLEEP_S if due is None else max(0.0, due.timestamp() - time.time())
            await asyncio.sleep(min(left + 1, LONGEST_SLEEP_S))
            if due is not None and due == self.reconciler.due and due.timestamp() <= time.time():
                await self._reload("time")
            if time.monotonic() - renewed >= TICKET_KEYS_S and self._fleet is not None:
                renewed = time.monotonic()
                self._fleet.renew_tickets()

    async def _sample(self) -> None:
        adopted = Adopted() if os.getpid() == 1 else None
        while True:
            self._sampler.tick()
            if adopted is not None:
                adopted.look()
            await asyncio.sleep(SAMPLE_EVERY_S)

    def _on_fleet_change(self) -> None:
        for slot in self._slots():
            if slot.state is State.SERVING:
                self._collector.add_worker(slot.index, slot.block.map)
            elif slot.state is State.DOWN:
                self._collector.remove_worker(slot.index)
        if self._was_ready or self.unready_reason():
            return
        self._was_ready = True
        log.info("ready: revision %d", self.reconciler.revision)
        if self._options.on_ready is not None:
            self._start(self._options.on_ready(self))

    # the end

    async def _leave(self) -> None:
        assert self._fleet is not None and self.reconciler.current is not None
        drain = self.reconciler.current.config.drain
        delay, timeout = int(drain.delay) / 1000, int(drain.timeout) / 1000
        if delay and not self._skip_delay.is_set():
            log.info("stopping: not ready from now on, listening for %.1f s more", delay)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._skip_delay.wait(), delay)
        self._skip_delay.set()
        log.info("draining for at most %.1f s", timeout)
        self._is_draining = True
        await self._fleet.drain(timeout)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._live is not None:
            await self._live.stop()
        if self._admin is not None:
            await self._admin.stop()
        log.info("stopped")

    # what the admin port asks

    @property
    def admin_address(self) -> str:
        return self._admin.address if self._admin else ""

    @property
    def bound_addresses(self) -> list[str]:
        """Where clients connect, port 0 resolved."""
        return [listener.bound for listener in self._listeners.by_id.values()]

    def _slots(self) -> list[Slot]:
        return self._fleet.slots if self._fleet is not None else []

    def _blocks(self) -> list[Any]:
        return [slot.block.map for slot in self._slots()]

    def is_live(self) -> bool:
        return True

    def unready_reason(self) -> str:
        if self._is_stopping:
            return "stopping"
        if self._live is not None and (waiting := self._live.unready_reason()):
            return waiting
        if self._fleet is None or self._fleet.publication is None:
            return "no configuration yet"
        if not self._fleet.serving:
            return "no worker serves yet"
        if not self._fleet.is_settled:
            return f"revision {self._fleet.publication.revision} is not acknowledged by every worker"
        return ""

    def stale_reason(self) -> str:
        return self._live.stale_reason() if self._live is not None else ""

    async def metrics(self) -> bytes:
        reconciler, facts = self.reconciler, self._facts
        facts.revision = reconciler.revision
        facts.applied_at = reconciler.current.applied_at if reconciler.current else 0.0
        facts.is_last_reload_ok = not reconciler.is_stale
        facts.last_error_at = reconciler.last_error_at
        facts.reloads_ok = reconciler.loads - reconciler.failed_loads
        facts.reloads_refused = reconciler.failed_loads
        facts.problems = len(reconciler.problems)
        facts.worker_restarts = sum(slot.restarts for slot in self._slots())
        facts.certificate_ends = certificate_ends(reconciler.current.secured if reconciler.current else Secured())
        facts.cluster = self._live.facts() if self._live is not None else None
        facts.store = self._stores.total()
        facts.worker_memory = {slot.index: slot.rss_kib * 1024 for slot in self._slots()}
        return await asyncio.to_thread(expose, self._collector)

    def config(self) -> dict[str, Any]:
        current = self.reconciler.current
        return redact(current.config) if current else {}

    def problems(self) -> dict[str, Any]:
        reconciler = self.reconciler
        return {
            "revision": reconciler.revision,
            "applied": not reconciler.is_stale,
            "last_error": reconciler.last_error or None,
            "last_load_at": _iso(reconciler.last_load_at),
            "problems": [_problem_row(problem) for problem in reconciler.problems],
        }

    def certificates(self) -> list[dict[str, Any]]:
        current = self.reconciler.current
        now = time.time()
        return [
            {
                each.owner: each.name,
                "names": each.names,
                "key": each.key,
                "subject": each.subject,
                "issuer": each.issuer,
                "serial": each.serial,
                "fingerprint": each.fingerprint,
                "not_before": _iso(each.not_before.timestamp()),
                "not_after": _iso(each.not_after.timestamp()),
                "expires_in_days": round((each.not_after.timestamp() - now) / 86400, 1),
                "file": each.file,
            }
            for each in (current.secured.facts if current else ())
        ]

    def snapshot(self) -> dict[str, Any]:
        current = self.reconciler.current
        if current is None:
            return {}
        return {
            "revision": current.number,
            "bytes": len(current.compiled.blob),
            "applied_at": _iso(current.applied_at),
            **snapshot.load(current.compiled.blob).describe(),
        }

    def log_level(self) -> str:
        return self._level

    def set_log_level(self, level: str) -> None:
        self._level = level
        log_setup.set_level(level)
        self._share()

    async def connections(self, limit: int) -> list[dict[str, Any]]:
        if self._fleet is None:
            return []
        return [{"worker": slot, **row} for slot, rows in await self._fleet.describe("connections", limit) for row in rows][:limit]

    async def clusters(self) -> list[dict[str, Any]]:
        return merge_clusters(await self._fleet.describe("clusters")) if self._fleet is not None else []

    async def top_keys(self, limit: int) -> list[dict[str, Any]]:
        if self._fleet is None or self.reconciler.current is None or not self.reconciler.current.config.rate_limits:
            return []
        return merge_top(await self._fleet.describe("limits"), self._names, limit)

    async def stats(self) -> dict[str, Any]:
        numbers = self._sampler.numbers()
        sums = {self._names[id_][1]: row for id_, row in numbers.pop("cluster_sums").items() if id_ in self._names}
        reason = self.unready_reason()
        current = self.reconciler.current
        return {
            "version": gateway.__version__,
            "node": socket.gethostname(),
            "ready": not reason,
            "unready_reason": reason,
            "uptime_s": round(time.time() - self._started, 1),
            "revision": self.reconciler.revision,
            "age_s": round(time.time() - current.applied_at, 1) if current else 0.0,
            "last_error": self.reconciler.last_error or None,
            "problems": [_problem_row(problem) for problem in self.reconciler.problems],
            **numbers,
            "clusters": self._cluster_rows(sums, await self.clusters()),
            "rate_limits": await self.top_keys(TOP_KEYS),
            "workers": [slot.row() for slot in self._slots()],
            "listeners": [
                {
                    "address": address,
                    "bound": self._listeners.by_id[bind_id].bound if bind_id in self._listeners.by_id else address,
                    "names": self._wanted.listeners[bind_id],
                    "error": self._bind_errors.get(address, ""),
                }
                for bind_id, address in sorted(self._wanted.addresses.items(), key=lambda item: item[1])
            ],
        }

    def _cluster_rows(self, sums: dict[str, dict[str, Any]], described: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Every cluster of the configuration, with the counts of the blocks and the endpoints as the workers see them."""
        current = self.reconciler.current
        seen = {row["name"]: row.get("endpoints", []) for row in described if "name" in row}
        empty = dict.fromkeys((*CLUSTER_WORDS, "requests_per_s"), 0)
        return [
            {"name": cluster.name, **sums.get(cluster.name, empty), "endpoints": seen.get(cluster.name, [])}
            for cluster in (current.model.clusters if current else ())
        ]


def certificate_ends(secured: Secured) -> dict[tuple[str, str, str, str], float]:
    """The ends of the certificates in use by the labels of their metric; the nearest where two have the same."""
    ends: dict[tuple[str, str, str, str], float] = {}
    for each in secured.facts:
        listener, cluster = (each.name, "") if each.owner == "listener" else ("", each.name)
        labels = (listener, cluster, each.names[0] if each.names else "", each.key.partition(" ")[0])
        ends[labels] = min(each.not_after.timestamp(), ends.get(labels, float("inf")))
    return ends


def _asks_a_store(config: Config) -> bool:
    """Whether a limit is decided elsewhere than in this gateway."""
    return any(limit.mode != "local" and limit.concurrency is None for limit in config.rate_limits)


def _problem_row(problem: Problem) -> dict[str, Any]:
    return {
        "severity": problem.severity,
        "text": problem.text(),
        "source": problem.source,
        "line": problem.line,
        "column": problem.column,
        "key": problem.key,
        "message": problem.message,
        "fatal": problem.fatal,
    }


def _iso(at: float) -> str | None:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at)) if at else None


def _raise_descriptor_limit() -> None:
    """A connection is a descriptor: take all that is allowed. Workers inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def serve(options: Options) -> int:
    """Runs a gateway until it is told to stop. Answers the exit status."""
    if importlib.util.find_spec("gateway._core.engine") is None:
        # Only workers load it; better one line here than a worker that dies again and again.
        raise ModuleNotFoundError("no engine", name="gateway._core.engine")
    log_setup.setup(options.log_level, process="supervisor")

    async def run() -> int:
        return await Supervisor(options).run()

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(run())
    finally:
        log_setup.close()
