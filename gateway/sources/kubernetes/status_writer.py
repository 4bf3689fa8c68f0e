"""Writes what is said back about objects, by server-side apply: our own entries only, and nothing that the server has already.

The parents of a route and the ancestors of a policy are one list of all controllers (atomic in the CRD), so the entries of others
are sent back as they are, together with the version of the object that they were read from: a writer in between makes the server
refuse, and the next look begins from what it wrote.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from gateway.sources.kubernetes.backoff import Backoff
from gateway.sources.kubernetes.client import APPLY, ApiClient, ApiError, Unreachable
from gateway.sources.kubernetes.kinds import KINDS, ROUTE_KINDS
from gateway.sources.kubernetes.meta import Ref
from gateway.sources.kubernetes.reflector import WITH_STATUS, Holding
from gateway.sources.kubernetes.status import Status, to_plain

log = logging.getLogger("gateway.sources.kubernetes")

MANAGER = "isthmus"
AT_ONCE = 8
OUR_CONDITIONS = frozenset(("Accepted", "Programmed", "ResolvedRefs", "Conflicted", "PartiallyInvalid"))
_SHARED = {**dict.fromkeys(ROUTE_KINDS, "parents"), "BackendTLSPolicy": "ancestors"}
"""Kind -> its one list that all controllers share."""

Plain = dict[str, Any]


def next_status(kind: str, wanted: Plain, current: Plain, controller: str, now: str) -> Plain | None:
    """What to apply so that the server has `wanted`, out of what it has; None when it has that already.

    Times of conditions stay where their status does.
    """
    key = _SHARED.get(kind)
    if key is not None:
        return _next_shared(key, wanted.get(key, []), current.get(key) or [], controller, now)
    if kind == "Ingress":
        places = wanted["loadBalancer"]["ingress"]
        held = (current.get("loadBalancer") or {}).get("ingress") or []
        # Whoever does not know where it is reached takes nothing away that somebody else wrote there.
        return wanted if places and [_bare(each) for each in held] != places else None
    made = {**wanted, "conditions": _conditions(wanted["conditions"], current.get("conditions") or [], now)}
    is_same = _same_conditions(made["conditions"], current.get("conditions") or [])
    if "listeners" in wanted:
        held_by_name = {each.get("name"): each for each in current.get("listeners") or []}
        made["listeners"] = [_listener(each, held_by_name.get(each["name"], {}), now) for each in wanted["listeners"]]
        is_same = is_same and held_by_name.keys() == {each["name"] for each in wanted["listeners"]}
        is_same = is_same and all(_same_listener(each, held_by_name.get(each["name"], {})) for each in made["listeners"])
    for field_ in ("addresses", "attachedListenerSets", "supportedFeatures"):
        is_same = is_same and (made.get(field_) or 0) == (current.get(field_) or 0)
    return None if is_same else made


def _next_shared(key: str, wanted: list[Plain], current: list[Plain], controller: str, now: str) -> Plain | None:
    ref = "parentRef" if key == "parents" else "ancestorRef"
    held = [each for each in current if each.get("controllerName") == controller]
    left = list(wanted)
    made = []
    for entry in current:
        if entry.get("controllerName") != controller:
            made.append(entry)
            continue
        match = next((each for each in left if _same_ref(each[ref], entry.get(ref) or {})), None)
        if match is not None:
            left.remove(match)
            made.append({**match, "conditions": _conditions(match["conditions"], entry.get("conditions") or [], now)})
    made += [{**each, "conditions": _conditions(each["conditions"], [], now)} for each in left]
    ours = [each for each in made if each.get("controllerName") == controller]
    if len(ours) == len(held) and all(
        _same_ref(one[ref], two.get(ref) or {})
        and len(one["conditions"]) == len(two.get("conditions") or [])
        and _same_conditions(one["conditions"], two.get("conditions") or [])
        for one, two in zip(ours, held, strict=True)
    ):
        return None
    return {key: made}


def _same_ref(one: Plain, two: Plain) -> bool:
    return _bare(one) == _bare(two)


def _bare(value: Plain) -> Plain:
    """Without what says nothing."""
    return {key: item for key, item in value.items() if item not in (None, "", [])}


def _conditions(wanted: Iterable[Plain], current: Iterable[Plain], now: str) -> list[Plain]:
    held = {each.get("type"): each for each in current}
    made = []
    for each in wanted:
        before = held.get(each["type"], {})
        since = before.get("lastTransitionTime") if before.get("status") == each["status"] else None
        made.append({**each, "lastTransitionTime": since or now})
    return made


def _same_conditions(wanted: list[Plain], current: list[Plain]) -> bool:
    """Whether all of these are there as they are, and none of ours beside them."""
    held = {each.get("type"): each for each in current}
    if (held.keys() & OUR_CONDITIONS) - {each["type"] for each in wanted}:
        return False
    return all(
        held.get(each["type"], {}).get(key, 0 if key == "observedGeneration" else None) == item
        for each in wanted
        for key, item in each.items()
    )


def _listener(wanted: Plain, current: Plain, now: str) -> Plain:
    return {**wanted, "conditions": _conditions(wanted["conditions"], current.get("conditions") or [], now)}


def _same_listener(wanted: Plain, current: Plain) -> bool:
    kinds = [_bare(each) for each in wanted.get("supportedKinds") or []]
    return (
        kinds == [_bare(each) for each in current.get("supportedKinds") or []]
        and wanted["attachedRoutes"] == current.get("attachedRoutes")
        and _same_conditions(wanted["conditions"], current.get("conditions") or [])
    )


@dataclass(slots=True)
class StatusWriter:
    """Brings the statuses on the server to what is wanted, as long as this process leads."""

    client: ApiClient
    holding: Holding
    controller: str
    is_leading: Callable[[], bool]
    backoff: Backoff = field(default_factory=lambda: Backoff(1.0, 60.0))
    writes: int = 0
    errors: int = 0
    last_error: str = ""
    last_error_at: float = 0.0
    _wanted: Mapping[Ref, Status] | None = None
    _due: set[Ref] = field(default_factory=set)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _settled: dict[Ref, tuple[Plain, bytes]] = field(default_factory=dict)
    """What was wanted and what the server made of it: a server that leaves out or fills in something is not asked twice."""

    def want(self, statuses: Mapping[Ref, Status]) -> None:
        """From now on this is to be said, and of everything else nothing of ours."""
        before, self._wanted = self._wanted, statuses
        if before is None:
            self.look_at_all()
            return
        # A translation says the very same thing again of what has not changed; what was wanted then is on the server, or due.
        self._due |= {ref for ref, status in statuses.items() if before.get(ref) is not status}
        self._due |= before.keys() - statuses.keys()
        if self._due:
            self._wake.set()

    def look_at_all(self) -> None:
        """Something has changed that concerns every object: who leads."""
        if self._wanted is not None:
            self._due |= self._wanted.keys() | self.holding.statuses.keys()
            self._wake.set()

    def look_at(self, ref: Ref) -> None:
        """The object is not as it was on the server."""
        if self._wanted is not None:
            self._due.add(ref)
            self._wake.set()

    @property
    def is_idle(self) -> bool:
        return not self._due

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not self.is_leading():
                self._due.clear()
                continue
            due = sorted(self._due)
            outcomes = []
            for begin in range(0, len(due), AT_ONCE):
                outcomes += await asyncio.gather(*(self._settle(ref) for ref in due[begin : begin + AT_ONCE]))
            trouble = [wait for wait in outcomes if wait is not None]
            if trouble:
                await asyncio.sleep(self.backoff.delay(max(trouble)))
                self._wake.set()
            elif self._due:
                self._wake.set()

    async def _settle(self, ref: Ref) -> float | None:
        """Writes one status if it has to be. Seconds to wait at least when it failed in a way that may pass; None when not."""
        if not self.is_leading():
            return None
        self._due.discard(ref)
        try:
            await self._write(ref)
        except ApiError as error:
            if error.status == 404:
                return None  # gone meanwhile
            if error.status == 409:
                # Somebody was faster; the watch brings what they wrote, and with it the next look.
                log.debug("status of %s: %s", ref.text(), error)
                return None
            self._on_error(ref, str(error))
            if error.status < 500 and error.status not in (401, 403, 408, 429):
                return None  # the same again would be refused again
            self._due.add(ref)
            return error.retry_after_s
        except Unreachable as error:
            self._on_error(ref, str(error))
            self._due.add(ref)
            return 0.0
        return None

    def _on_error(self, ref: Ref, words: str) -> None:
        self.errors += 1
        if words != self.last_error:
            log.warning("status of %s cannot be written: %s", ref.text(), words)
        self.last_error, self.last_error_at = words, time.time()

    async def _write(self, ref: Ref) -> None:
        raw, held = self.holding.statuses.get(ref), self.holding.resource_versions.get(ref)
        if raw is None or held is None or self.holding.store.find(ref) is None:
            return
        if ref.kind not in WITH_STATUS or self._wanted is None:
            return
        status = self._wanted.get(ref)
        if status is not None:
            wanted = to_plain(status)
        elif ref.kind in _SHARED and self.controller.encode() in raw:
            wanted = {}  # what was once ours is taken back
        else:
            return
        if self._settled.get(ref) == (wanted, raw):
            return
        current: Plain = msgspec.json.decode(raw) if raw and raw != b"null" else {}
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        made = next_status(ref.kind, wanted, current, self.controller, now)
        if made is None:
            return
        kind, version = KINDS[ref.kind], self.holding.versions[ref.kind]
        metadata = {"name": ref.name, **({"namespace": ref.namespace} if ref.namespace else {})}
        if ref.kind in _SHARED:
            metadata["resourceVersion"] = held
        body = {"apiVersion": f"{kind.group}/{version}", "kind": ref.kind, "metadata": metadata, "status": made}
        path = f"{kind.api_path(version, ref.namespace)}/{ref.name}/status"
        answer = await self.client.request(
            "PATCH", path, {"fieldManager": MANAGER, "force": "true"}, body=msgspec.json.encode(body), content=APPLY
        )
        self.writes += 1
        self.backoff.reset()
        left = msgspec.json.decode(answer, type=dict[str, msgspec.Raw]).get("status")
        self._settled[ref] = (wanted, bytes(left) if left is not None else b"")
