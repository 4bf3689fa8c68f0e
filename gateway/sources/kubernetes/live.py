"""The API server as a source: watches it, loads from what is known, says back what came of it.

A change waits for others for a moment and then makes the reconciler load again, files and objects together. When nothing but the
endpoints of Services is different, the clusters get their new endpoints and no route is looked at.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from gateway.model.cluster import EndpointSpec
from gateway.model.config import Kubernetes
from gateway.model.live import KindFacts, LiveFacts
from gateway.sources import objects
from gateway.sources.certificates import Files
from gateway.sources.files import Loaded
from gateway.sources.kubernetes import last_good
from gateway.sources.kubernetes.backoff import Backoff
from gateway.sources.kubernetes.client import ApiClient, Unreachable, sign_in_by
from gateway.sources.kubernetes.crds import MADE_FOR, crd_flaw
from gateway.sources.kubernetes.endpoint_slice import EndpointSlice
from gateway.sources.kubernetes.endpoints import endpoints_of
from gateway.sources.kubernetes.gateway import Gateway
from gateway.sources.kubernetes.kinds import KINDS
from gateway.sources.kubernetes.leader import Leader
from gateway.sources.kubernetes.listener_set import ListenerSet
from gateway.sources.kubernetes.memo import Memo
from gateway.sources.kubernetes.meta import Object, Ref
from gateway.sources.kubernetes.options import Options
from gateway.sources.kubernetes.reflector import Facts, Holding, Reflector, State
from gateway.sources.kubernetes.status import Condition, GatewayStatus, ListenerSetStatus, Status, pending
from gateway.sources.kubernetes.status_writer import StatusWriter
from gateway.sources.kubernetes.store import Store
from gateway.sources.kubernetes.translate import Translation, translate
from gateway.sources.kubernetes.view import View
from gateway.sources.kubernetes.whereabouts import NOWHERE, find_whereabouts

log = logging.getLogger("gateway.sources.kubernetes")

HOLD_OFF_S = 0.02
QUIET_HOLD_OFF_S = 0.005  # so long when nothing has changed for QUIET_AFTER_S: what belongs to a change mostly comes with it
QUIET_AFTER_S = 0.1
LONGEST_HOLD_OFF_S = 0.5
WANTED_WITHIN_S = 5.0   # so long a load waits for Secrets that were not watched before
SETTLED_WITHIN_S = 10.0
ANSWERS_WITHIN_S = 10.0   # else the objects of last time are served, if there are any
KEEP_EVERY_S = 10.0
ASKING = frozenset(("GatewayClass", "Gateway", "ListenerSet", "Ingress", "IngressClass", "BackendTLSPolicy", "ReferenceGrant"))
"""Kinds that may make a Secret or a ConfigMap wanted."""

Retarget = Callable[[Mapping[str, tuple[EndpointSpec, ...]]], Awaitable[None]]


@dataclass(slots=True)
class Outlet:
    """What the supervisor does for a live source."""

    reload: Callable[[str], Awaitable[bool]]
    retarget: Retarget
    """Gives clusters other endpoints."""
    is_settled: Callable[[], bool]
    """Whether every worker has acknowledged what was published last."""
    shut_ports: Callable[[], Mapping[int, str]] = dict
    """Ports that could not be opened, and why."""
    share: Callable[[], None] = lambda: None
    """There may be another number of replicas."""


@dataclass(slots=True, eq=False)
class Keeping:
    """The file of the last good objects, written now and then while objects change."""

    path: Path | None
    is_due: bool = False
    stale_since: float = 0.0
    """When what is served was written, in seconds since the epoch; 0: it is no file's."""
    restored: list[Ref] = field(default_factory=list)
    last_error: str = ""

    def read(self) -> last_good.Found | None:
        assert self.path is not None
        try:
            return last_good.read(self.path)
        except last_good.Unusable as error:
            log.warning("%s: no objects of last time: %s", self.path, error)
            return None

    def let_go(self) -> list[Ref]:
        """The objects that are not needed from the file any more."""
        self.stale_since = 0.0
        refs, self.restored = self.restored, []
        return refs

    async def keep(self, copy: Callable[[], Store | None]) -> None:
        while True:
            await asyncio.sleep(KEEP_EVERY_S)
            await self.write(copy)

    async def write(self, copy: Callable[[], Store | None]) -> None:
        """What `copy` answers, if something has changed."""
        if self.path is None or not self.is_due:
            return
        store = copy()
        if store is None:
            return
        self.is_due = False
        try:
            await asyncio.to_thread(last_good.write, self.path, store)
            self.last_error = ""
        except last_good.Unusable as error:
            if str(error) != self.last_error:
                log.error("%s: the last good objects are not kept: %s", self.path, error)
            self.last_error = str(error)


class LiveSource:
    """One API server. Everything but `load` belongs to the loop that `start` was called on."""

    def __init__(
        self,
        path: Path | None,
        settings: Kubernetes,
        client: ApiClient | None = None,
        *,
        hold_off_s: float = HOLD_OFF_S,
        identity: str = "",
        missing_retry_s: float = 20.0,
        lease_s: tuple[float, float, float] = (15.0, 10.0, 2.0),
        backoff: Callable[[], Backoff] = Backoff,
        answers_within_s: float = ANSWERS_WITHIN_S,
    ) -> None:
        """path: the files beside. lease_s: duration, deadline and retry of the leader's lease."""
        self.settings = settings
        self.client = client or ApiClient(sign_in_by(settings.kubeconfig))
        self.holding = Holding(self._on_change, self._on_status)
        self.leader: Leader | None = None
        self.writer = StatusWriter(self.client, self.holding, settings.controller_name, self._is_leading)
        self.endpoint_updates = 0
        self.last_error = ""
        self._path = path
        self._hold_off_s = hold_off_s
        self._missing_retry_s = missing_retry_s
        self._lease_s = lease_s
        self._backoff = backoff
        self._identity = identity or f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"
        self._reflectors: dict[str, tuple[Reflector, asyncio.Task[None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._moved = asyncio.Event()
        self._complete = asyncio.Event()
        self._refs: set[Ref] = set()
        self._services: set[tuple[str, str]] = set()
        self._keeping = Keeping(Path(settings.cache) if settings.cache else None)
        self._answers_within_s = answers_within_s
        self._translation: Translation | None = None
        """Of the last load whose files could be used."""
        self._options: Options | None = None
        self._crd_flaw: str | None = None
        """What is wrong with the CRDs; None until all kinds have been looked for."""
        self._is_other_api = False
        """Whether that is not what the last load was told."""
        self._held_at = 0.0
        self._whereabouts = NOWHERE
        self._memo = Memo()

    # ---- life ----

    def start(self) -> None:
        """Begins to watch."""
        self._spawn(self._begin())
        if self._keeping.path is not None:
            self._spawn(self._fall_back())
            self._spawn(self._keeping.keep(self._copy))

    async def complete(self) -> None:
        """Waits until all that the first load needs is there."""
        await self._complete.wait()

    async def stop(self) -> None:
        """Ends all of it; gives the lease back."""
        tasks = [*self._tasks, *(task for _, task in self._reflectors.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._keeping.write(self._copy)
        await self.client.close()

    def _spawn(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("a part of the Kubernetes source ended", exc_info=error)

    async def _begin(self) -> None:
        backoff = self._backoff()
        while True:
            try:
                access = await self.client.ready()
                break
            except Unreachable as error:
                if str(error) != self.last_error:
                    log.error("%s", error)
                self.last_error = str(error)
                await asyncio.sleep(backoff.delay())
        self.last_error = ""
        log.info("watches %s", access.url)
        for kind in KINDS.values():
            if kind.name == "Secret":
                continue
            labels = self.settings.config_maps.label_selector if kind.name == "ConfigMap" else ""
            if kind.name == "ConfigMap" and not labels:
                continue
            for namespace in (self.settings.namespaces or ("",)) if kind.is_namespaced else ("",):
                self._watch(f"{kind.name}/{namespace}", Reflector(
                    self.client, self.holding, kind, namespace=namespace, labels=labels, backoff=self._backoff(),
                    on_state=self._on_kind, missing_retry_s=self._missing_retry_s,
                ))  # fmt: skip
        duration, deadline, retry = self._lease_s
        name = "".join(each if each.isalnum() or each == "." else "-" for each in self.settings.controller_name.lower())
        self.leader = Leader(
            self.client, access.namespace, name, self._identity, self._on_leader, duration, deadline, retry,
        )  # fmt: skip
        self._spawn(self.leader.run())
        self._spawn(self.writer.run())
        here = self._spawn(self._look_around())
        await self._until_synced(None)
        await here
        # Secrets are watched one by one, and which ones the objects say; some make others wanted.
        for _ in range(3):
            if not await self._want_more():
                break
            await self._until_synced(None)
        log.info("synced: %d objects", len(self.holding.store))
        self._crd_flaw = self._look_at_crds()
        if self._crd_flaw:
            log.warning("%s", self._crd_flaw)
        if self._complete.is_set():
            # Whatever is not what it was last time has been told as a change; what is gone is told now.
            for ref in self._keeping.let_go():
                self.holding.drop(self._keeping, ref)
        else:
            # The first load takes all of this; what changes from here on is for the next.
            self._refs, self._services = set(), set()
            self._changed.clear()
            self._complete.set()
        self._keeping.is_due = True

    async def _look_around(self) -> None:
        self._whereabouts = await find_whereabouts(self.client, self._backoff)

    def _look_at_crds(self) -> str:
        missing = {each.kind.name for each, _ in self._reflectors.values() if each.facts.is_missing}
        return crd_flaw(self.holding.versions, missing)

    def _on_kind(self) -> None:
        """A kind is there, or is not any more, or is read in another version: the GatewayClass says whether all is well."""
        self._moved.set()
        if self._crd_flaw is None:
            return  # not all kinds have been looked for yet
        flaw = self._look_at_crds()
        if flaw != self._crd_flaw:
            self._crd_flaw, self._is_other_api = flaw, True
            log.warning("%s", flaw or f"the CRDs of Gateway API are now those of {MADE_FOR}, which this gateway is made for")
            self._changed.set()

    async def _fall_back(self) -> None:
        """Without an answer in time the objects of last time are served, until there is one."""
        await asyncio.sleep(self._answers_within_s)
        if self._complete.is_set():
            return
        found = await asyncio.to_thread(self._keeping.read)
        if found is None or self._complete.is_set():
            return
        for kind, decoded in found.objects:
            self._keeping.restored.append(self.holding.restore(self._keeping, kind, decoded))
        self._keeping.stale_since = found.written
        log.error("%s; serves %d objects of %s", self.unready_reason(), len(found.objects), _clock(found.written))
        self._complete.set()

    def _copy(self) -> Store | None:
        """What there is to keep: never what was not seen whole."""
        return self.holding.store.copy() if self._complete.is_set() and not self._keeping.stale_since else None

    def _watch(self, key: str, reflector: Reflector) -> None:
        self._reflectors[key] = (reflector, self._spawn(reflector.run()))

    async def _until_synced(self, seconds: float | None) -> None:
        """Waits until every reflector has had its first list."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while any(not _is_through(each) for each, _ in self._reflectors.values()):
            self._moved.clear()
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return
            try:
                await asyncio.wait_for(self._moved.wait(), left)
            except TimeoutError:
                return

    # ---- what is wanted ----

    async def _want_more(self) -> bool:
        """Watches the Secrets and ConfigMaps that objects refer to, and no others. Whether there are new ones."""
        options = self._options or Options.of(self.settings, whereabouts=self._whereabouts)
        return self._follow(await asyncio.to_thread(lambda: translate(self.holding.store.copy(), options, self._memo).wanted))

    def _follow(self, wanted: frozenset[Ref]) -> bool:
        within = self.settings.namespaces
        keys = {f"{each.path()}": each for each in wanted if not within or each.namespace in within}
        for key in [key for key, (each, _) in self._reflectors.items() if each.name and key not in keys]:
            reflector, task = self._reflectors.pop(key)
            task.cancel()
            reflector.forget()
        new = [key for key in keys if key not in self._reflectors]
        for key in new:
            ref = keys[key]
            self._watch(key, Reflector(
                self.client, self.holding, KINDS[ref.kind], namespace=ref.namespace, name=ref.name, backoff=self._backoff(),
                on_state=self._moved.set,
            ))  # fmt: skip
        return bool(new)

    # ---- loads ----

    def load(self, known: Files | None = None) -> Loaded:
        """Files and objects as one configuration. Runs in a thread."""
        found = objects.Objects(store=self.holding.store.copy(), crd_flaw=self._look_at_crds(), whereabouts=self._whereabouts)
        joined = objects.load(self._path, None, known, found=found, memo=self._memo)
        if joined.translation is not None:
            self._translation, self._options = joined.translation, joined.options
        return joined.loaded

    async def follow(self, outlet: Outlet) -> None:
        """After the first load: makes others of what changes. Until it is cancelled."""
        self.after_load(outlet)
        while True:
            await self._changed.wait()
            await self._hold_off()
            refs, services, is_other_api = self._refs, self._services, self._is_other_api
            self._refs, self._services, self._is_other_api = set(), set(), False
            self._changed.clear()
            if not refs or self._own() in services:
                outlet.share()
            if not refs and not is_other_api:
                await self._retarget(outlet, services)
                continue
            if any(each.kind in ASKING for each in refs) and await self._want_more():
                await self._until_synced(WANTED_WITHIN_S)
            log.debug("changed: %s", ", ".join(sorted(each.text() for each in refs)[:20]))
            await outlet.reload("change")
            self.after_load(outlet)

    def after_load(self, outlet: Outlet) -> None:
        """A load has been applied, whoever asked for it: what is wanted and what is said back may be different."""
        if self._translation is not None:
            self._follow(self._translation.wanted)
            self._spawn(self._report(outlet, self._translation))

    async def _hold_off(self) -> None:
        """Waits until nothing has changed for a moment; not for long, and even less when nothing has changed for long."""
        now = time.monotonic()
        deadline = now + LONGEST_HOLD_OFF_S
        is_quiet, self._held_at = now - self._held_at > QUIET_AFTER_S, now
        wait = min(QUIET_HOLD_OFF_S, self._hold_off_s) if is_quiet else self._hold_off_s
        while time.monotonic() < deadline:
            seen = (len(self._refs), len(self._services))
            await asyncio.sleep(wait)
            wait = self._hold_off_s
            if seen == (len(self._refs), len(self._services)):
                return

    async def _retarget(self, outlet: Outlet, services: set[tuple[str, str]]) -> None:
        if self._translation is None:
            return
        view = View(self.holding.store, self._options or Options.of(self.settings, whereabouts=self._whereabouts))
        found: dict[str, tuple[EndpointSpec, ...]] = {}
        for namespace, name in services:
            service = view.service(namespace, name)
            for port in service.spec.ports if service is not None else ():
                if service is not None and port.protocol == "TCP":
                    found[f"{service.ref.path()}:{port.port}"] = endpoints_of(view, service, port)
        changed = {}
        for cluster in self._translation.clusters:
            kind, _, rest = cluster.name.partition("/")
            base = "/".join([kind, *rest.split("/")[:2]])
            if base in found:
                changed[cluster.name] = found[base]
        if changed:
            self.endpoint_updates += 1
            await outlet.retarget(changed)

    def _on_change(self, ref: Ref, before: Object | None, after: Object | None) -> None:
        self._keeping.is_due = True
        if ref.kind == "EndpointSlice" and ref not in self.holding.store.broken:
            for each in (before, after):
                if isinstance(each, EndpointSlice) and each.service:
                    self._services.add((each.metadata.namespace, each.service))
            if not self._services:
                return
        else:
            self._refs.add(ref)
        self._changed.set()

    # ---- what is said back ----

    def _on_status(self, ref: Ref) -> None:
        self.writer.look_at(ref)

    def _on_leader(self) -> None:
        self.writer.look_at_all()

    def _is_leading(self) -> bool:
        return self.leader is not None and self.leader.is_leading

    async def _report(self, outlet: Outlet, translation: Translation) -> None:
        """Says what came of a load: once the workers have it, or that they do not take it."""
        statuses: Mapping[Ref, Status] = translation.statuses
        deadline = time.monotonic() + SETTLED_WITHIN_S
        while not outlet.is_settled():
            if time.monotonic() > deadline:
                self.writer.want({ref: pending(status) for ref, status in statuses.items()})
                deadline = float("inf")
            await asyncio.sleep(0.02)
            if translation is not self._translation:
                return  # whoever waits for the later one says it
        shut = outlet.shut_ports()
        if shut:
            statuses = {ref: self._as_shut(ref, status, shut) for ref, status in statuses.items()}
        self.writer.want(statuses)

    def _as_shut(self, ref: Ref, status: Status, shut: Mapping[int, str]) -> Status:
        """A listener whose port could not be opened is not programmed."""
        store = self.holding.store
        if isinstance(status, GatewayStatus):
            owner: Gateway | ListenerSet | None = store.get(Gateway, ref.namespace, ref.name)
        elif isinstance(status, ListenerSetStatus):
            owner = store.get(ListenerSet, ref.namespace, ref.name)
        else:
            return status
        if owner is None:
            return status
        parent = None if isinstance(owner, Gateway) else owner.spec.parent_ref
        gateway = (ref.namespace, ref.name) if parent is None else (parent.namespace or ref.namespace, parent.name)
        binds = (self._options or Options.of(self.settings)).binds
        ports = {each.name: binds.get((*gateway, each.port), each.port) for each in owner.spec.listeners}
        listeners = tuple(
            msgspec.structs.replace(each, conditions=_unprogrammed(each.conditions, shut[ports[each.name]]))
            if ports.get(each.name) in shut
            else each
            for each in status.listeners
        )
        conditions = status.conditions
        if not any(each.type == "Programmed" and each.status == "True" for one in listeners for each in one.conditions):
            conditions = _unprogrammed(conditions, "no listener of it is open")
        return msgspec.structs.replace(status, listeners=listeners, conditions=conditions)

    # ---- other replicas ----

    def _own(self) -> tuple[str, str]:
        """Namespace and name of the Service in front of this gateway; empty words when none is named."""
        namespace, _, name = self.settings.service.partition("/")
        return namespace, name

    def replicas(self) -> int:
        """Gateways behind that Service that are ready; 1 when it is not known. A pod with two addresses has one in each family."""
        if not self.settings.service:
            return 1
        ready: dict[str, set[str]] = {}
        for each in self.holding.store.all(EndpointSlice):
            if (each.metadata.namespace, each.service) == self._own():
                able = (one for one in each.endpoints or () if one.addresses and one.conditions.ready is not False)
                ready.setdefault(each.address_type, set()).update(one.addresses[0] for one in able)
        return max([1, *(len(found) for found in ready.values())])

    # ---- what people ask ----

    def unready_reason(self) -> str:
        """Why there is no configuration yet; "" when there may be one."""
        if self._complete.is_set():
            return ""
        if self.last_error:
            return self.last_error
        waiting = [each for each, _ in self._reflectors.values() if not _is_through(each)]
        errors = [f"{each.what}: {each.facts.last_error}" for each in waiting if each.facts.last_error]
        names = ", ".join(sorted(each.what for each in waiting)[:5])
        return f"not synced with the API server: {errors[0] if errors else names or 'signing in'}"

    def stale_reason(self) -> str:
        """Why what is served may be old; "" when it is not."""
        if not self._keeping.stale_since:
            return ""
        return f"no API server has answered since the start; the objects are those of {_clock(self._keeping.stale_since)}"

    def facts(self) -> LiveFacts:
        """For metrics."""
        kinds: dict[str, KindFacts] = {}
        last_error_at = self.writer.last_error_at
        counts = self.holding.store.counts()
        by_kind: dict[str, list[Facts]] = {}
        for each, _ in self._reflectors.values():
            by_kind.setdefault(each.kind.name, []).append(each.facts)
            last_error_at = max(last_error_at, each.facts.last_error_at)
        for name, found in by_kind.items():
            kinds[name] = KindFacts(
                is_synced=all(each.state is State.SYNCED for each in found),
                objects=counts[name],
                lists=sum(each.lists for each in found),
                watches=sum(each.watches for each in found),
                errors=sum(each.errors for each in found),
            )
        return LiveFacts(
            kinds, self._is_leading(), self.writer.writes, self.writer.errors, self.endpoint_updates, last_error_at,
            is_stale=self._keeping.stale_since > 0,
        )  # fmt: skip


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def _is_through(reflector: Reflector) -> bool:
    """Whether there is nothing to wait for: a single Secret that this gateway may not read is none."""
    facts = reflector.facts
    return facts.has_synced or bool(reflector.name and facts.last_error.startswith("403"))


def _unprogrammed(conditions: tuple[Condition, ...], why: str) -> tuple[Condition, ...]:
    return tuple(
        msgspec.structs.replace(each, status="False", reason="Invalid", message=why)
        if each.type == "Programmed" and each.status == "True"
        else each
        for each in conditions
    )
