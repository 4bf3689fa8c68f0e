"""Sources to snapshot: load, build, compile, and hand over what changed; a load that cannot be used leaves the last good one.

The work runs in a thread, so that the admin port answers while ten thousand routes compile. Loads never overlap: a change that
comes during one is found by the next.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from gateway.control.build import Kept, Model, build, build_endpoints, is_same_but_endpoints
from gateway.control.compile import Compiled, compile_model
from gateway.control.compile import Kept as KeptPieces
from gateway.model.cluster import EndpointSpec
from gateway.model.config import Config
from gateway.model.listener import bind_address
from gateway.model.names import normal_hostname
from gateway.model.problem import Problem
from gateway.sources import files
from gateway.sources.certificates import Files, Mark, Secured, file_mark

log = logging.getLogger("gateway.control")

QUIET = ("change", "time")
"""Reasons of a load that say nothing when nothing came of it."""
STEP_BACK = 10  # added to the nice value; with a busy worker on the same core a load still gets a tenth of it


@dataclass(frozen=True, slots=True)
class Revision:
    """One applied configuration."""

    number: int
    config: Config
    model: Model
    compiled: Compiled
    secured: Secured = field(default_factory=Secured)
    """What its listeners and clusters need for TLS. Another one alone makes no other number: no route is different."""
    applied_at: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True)
class Load:
    """What one look at the sources came to. `revision` is None when nothing of it can be used, or nothing has changed."""

    problems: list[Problem]
    revision: Revision | None
    is_fatal: bool
    tls_files: Files | None = None
    """What the next look at the files for TLS begins with; None: what the last one did."""
    due: datetime | None = None
    """When the same files will come to something else."""
    digest: str = ""
    """Of the sources; the same digest comes to the same again. Empty: not to be relied on."""


Apply = Callable[[Revision], list[Problem]]
LoadSources = Callable[[Files], files.Loaded]


def keep_last_good(config: Config, left_out: frozenset[tuple[str, str]], last: Config) -> tuple[Config, list[Problem]]:
    """The configuration with the last good version of what an error took out of it, and a warning for each.

    A slip in one route must not take down what served a moment ago, nor hold up the changes of all others. A kept object may name
    what is gone by now; `build` gives that the meaning of any reference that does not resolve.
    """
    problems = []
    changed: dict[str, tuple[Any, ...]] = {}
    for key, of in (("listeners", "listeners"), ("routes", "routes"), ("clusters", "clusters"), ("rateLimits", "rate_limits")):
        present = getattr(config, of)
        kept = [each for each in getattr(last, of) if (key, each.name) in left_out]
        if key == "listeners":
            taken = {(bind_address(each), normal_hostname(each.hostname)) for each in present}
            kept = [each for each in kept if (bind_address(each), normal_hostname(each.hostname)) not in taken]
        if kept:
            changed[of] = (*present, *kept)
        problems += [
            Problem(severity="warning", key=key, message=f"the last good version of '{each.name}' stays in use") for each in kept
        ]
    return msgspec.structs.replace(config, **changed), problems


def keep_last_secured(secured: Secured, config: Config, last: Secured) -> Secured:
    """With what the kept listeners and clusters of `config` had for TLS."""
    kept_listeners = {
        each.name: last.listeners[each.name]
        for each in config.listeners
        if each.name in last.listeners and each.name not in secured.listeners
    }
    kept_clusters = {
        each.name: last.clusters[each.name]
        for each in config.clusters
        if each.tls is not None and each.name in last.clusters and each.name not in secured.clusters
    }
    kept = {("listener", name) for name in kept_listeners} | {("cluster", name) for name in kept_clusters}
    digests = {side.ca for side in kept_listeners.values() if side.ca} | {side.ca for side in kept_clusters.values()}
    return Secured(
        listeners=secured.listeners | kept_listeners,
        clusters=secured.clusters | kept_clusters,
        bundles=secured.bundles | {digest: last.bundles[digest] for digest in digests},
        facts=(*secured.facts, *(each for each in last.facts if (each.owner, each.name) in kept)),
    )


def _step_back() -> None:
    """Lowers the priority of the calling thread alone: on a shared core a worker's turn is not interrupted by a compilation."""
    thread = threading.get_native_id()
    os.setpriority(os.PRIO_PROCESS, thread, min(19, os.getpriority(os.PRIO_PROCESS, thread) + STEP_BACK))


class Reconciler:
    """Owns the current revision. `apply` puts a new one to use and answers what went wrong with it (a port that is taken)."""

    def __init__(self, path: Path, apply: Apply, load: LoadSources | None = None) -> None:
        """load: how the sources are read, when they are more than the files of the path."""
        self._path = path
        self._load = load or (lambda known: files.load(path, known))
        self._are_files_all = load is None
        self._apply = apply
        self._lock = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, "load", initializer=_step_back)
        self._last: Load | None = None
        self._apply_problems: list[Problem] = []
        self._tls_files = Files()
        self._kept = Kept()
        self._pieces = KeptPieces()
        self.due: datetime | None = None
        self.current: Revision | None = None
        self.problems: list[Problem] = []
        self.loads = 0
        self.failed_loads = 0
        self.last_error = ""
        self.last_error_at = 0.0
        self.last_load_at = 0.0

    @property
    def revision(self) -> int:
        return self.current.number if self.current else 0

    @property
    def tls_marks(self) -> Mapping[Path, Mark]:
        """The files that the configuration names for TLS, in the state in which they were looked at last."""
        return self._tls_files.marks

    @property
    def is_stale(self) -> bool:
        """Whether the sources say something that is not in use because it cannot be."""
        return bool(self.last_error)

    def _look_quietly(self) -> Load:
        """_look without the cyclic collector, which would walk all that grows here again and again: half of the time.

        Whoever writes a file and then sends SIGHUP is heard twice: sources that are as they were are not parsed again.
        """
        last = self._last
        if last is not None and self._is_as_before(last):
            return replace(last, revision=None)
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            return self._look()
        finally:
            gc.collect()
            # What was just made lives until the next revision: later collections need not walk it.
            gc.freeze()
            if was_enabled:
                gc.enable()

    def _is_as_before(self, last: Load) -> bool:
        """Whether another look would come to the same: known without one only when there is nothing but files to look at."""
        if not self._are_files_all or not last.digest or last.digest != files.digest(self._path):
            return False
        if self.due is not None and datetime.now(UTC) >= self.due:
            return False
        return all(file_mark(file) == mark for file, mark in self._tls_files.marks.items())

    def _look(self) -> Load:
        """Runs in a thread: touches nothing of this object but what builds are kept for the next."""
        loaded = self._load(self._tls_files)
        config, problems, secured = loaded.config, loaded.problems, loaded.secured
        if config is None:
            return Load(problems, None, True, digest=loaded.digest)
        last = self.current
        if last is not None and loaded.left_out:
            config, kept = keep_last_good(config, loaded.left_out, last.config)
            problems = [*problems, *kept]
            secured = keep_last_secured(secured, config, last.secured)
        if not config.listeners and any(key == "listeners" for key, _ in loaded.left_out):
            # The listener that a configuration without any gets would answer in the clear for those that cannot.
            nothing = Problem(severity="error", key="listeners", message="none of the listeners can be opened", fatal=True)
            return Load([*problems, nothing], None, True, loaded.tls_files, loaded.due, loaded.digest)
        model = build(config, self._kept)
        if last is not None and model == last.model:
            # Same routes: what else may differ (log, drain, certificates) travels with the old snapshot.
            is_same = config == last.config and secured == last.secured
            rest = None if is_same else Revision(last.number, config, model, last.compiled, secured, last.applied_at)
            return Load([*problems, *last.compiled.problems], rest, False, loaded.tls_files, loaded.due, loaded.digest)
        if last is not None and config.kubernetes.enabled and is_same_but_endpoints(model, last.model):
            # Endpoints are no part of a snapshot: they travel alone. Who edits a file waits for a number, pods come and go.
            moved = Revision(last.number, config, model, last.compiled, secured, last.applied_at)
            return Load([*problems, *last.compiled.problems], moved, False, loaded.tls_files, loaded.due, loaded.digest)
        number = 1 if last is None else last.number + 1
        compiled = compile_model(model, number, self._pieces)
        revision = Revision(number, config, model, compiled, secured)
        return Load([*problems, *compiled.problems], revision, False, loaded.tls_files, loaded.due, loaded.digest)

    async def reload(self, why: str) -> bool:
        """Looks at the sources and applies what changed. False when they cannot be used; the last good revision then stays."""
        async with self._lock:
            start = time.monotonic()
            if why == "time":
                # The same files come to something else now.
                self._last = None
            try:
                load = await asyncio.get_running_loop().run_in_executor(self._thread, self._look_quietly)
            except Exception as error:
                # A bug of ours in the face of some configuration: the last good revision is worth more than a clean end.
                log.exception("%s: the configuration could not be compiled", why)
                bug = Problem(severity="error", message=f"internal error: {error!r}", source=str(self._path), fatal=True)
                load = Load([bug], None, True)
            self._last = load
            self.loads += 1
            self.last_load_at = time.time()
            if load.tls_files is not None:
                self._tls_files, self.due = load.tls_files, load.due
            if load.is_fatal:
                self.failed_loads += 1
                self.problems = load.problems
                self.last_error_at = self.last_load_at
                self.last_error = next((each.text() for each in load.problems if each.fatal), "the sources cannot be used")
                if self.current is not None:
                    log.error("%s: not applied, revision %d stays in use", why, self.revision)
                    self._report(load.problems)
                return False
            self.last_error = ""
            is_first = self.current is None
            if load.revision is not None:
                self.current = load.revision
                self._apply_problems = self._apply(load.revision)
                log.info(
                    "%s: revision %d in use, %d routes, %.0f ms",
                    why, load.revision.number, len(load.revision.model.routes), (time.monotonic() - start) * 1000,
                )  # fmt: skip
            elif self._apply_problems and self.current is not None:
                # A port that was taken may be free now.
                self._apply_problems = self._apply(self.current)
            known, self.problems = self.problems, [*load.problems, *self._apply_problems]
            # A change that a slip keeps out of use makes no revision, and is the very one to hear about; a mere touch is not.
            if load.revision is not None or why not in QUIET or self.problems != known:
                # What cannot be put to use at start ends the start; whoever started says so.
                self._report(load.problems if is_first else self.problems)
            return True

    async def retarget(self, endpoints: Mapping[str, tuple[EndpointSpec, ...]]) -> None:
        """Gives clusters of the revision in use other endpoints, without a look at the sources; their next load says the same."""
        async with self._lock:
            current = self.current
            if current is None:
                return
            specs = tuple(
                msgspec.structs.replace(each, endpoints=endpoints[each.name]) if each.name in endpoints else each
                for each in current.config.clusters
            )
            clusters = tuple(
                replace(each, endpoints=build_endpoints(endpoints[each.name])) if each.name in endpoints else each
                for each in current.model.clusters
            )
            if clusters == current.model.clusters:
                return
            config = msgspec.structs.replace(current.config, clusters=specs)
            self.current = replace(current, config=config, model=replace(current.model, clusters=clusters))
            known = self._apply_problems
            self._apply_problems = self._apply(self.current)
            self.problems = [*(each for each in self.problems if each not in known), *self._apply_problems]

    def _report(self, problems: list[Problem]) -> None:
        for problem in problems:
            log.log(logging.ERROR if problem.severity == "error" else logging.WARNING, "%s", problem.text())
