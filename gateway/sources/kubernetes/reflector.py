"""One kind of object, as the API server has it: a list, then a watch from there on, for ever.

A watch that ends is resumed where it was; only one that the server has forgotten (410 Gone) makes another list. What is known stays
while the server is away.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from gateway.sources.kubernetes.backoff import Backoff
from gateway.sources.kubernetes.client import ApiClient, ApiError, Unreachable
from gateway.sources.kubernetes.kinds import Kind
from gateway.sources.kubernetes.meta import Object, Ref
from gateway.sources.kubernetes.store import Decoded, Store, decode_bytes

log = logging.getLogger("gateway.sources.kubernetes")

PAGE = 500
WATCH_AT_LEAST_S = 300  # the server ends a watch after this to twice this, so that not all are begun at once
SHORT_WATCH_S = 1.0     # one that ends sooner and without an event is a failure in disguise
MISSING_RETRY_S = 20.0

OnChange = Callable[[Ref, Object | None, Object | None], None]


class _Meta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    go_on: str = msgspec.field(name="continue", default="")


class _Page(msgspec.Struct, frozen=True):
    metadata: _Meta = _Meta()
    items: list[msgspec.Raw] | None = None


class _Event(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


class _Place(msgspec.Struct, frozen=True, rename="camel"):
    """Of the object of an event: how far the watch has come, or why it cannot go on."""

    metadata: _Meta = _Meta()
    code: int = 0
    reason: str = ""
    message: str = ""


class _WithStatus(msgspec.Struct, frozen=True):
    status: msgspec.Raw = msgspec.Raw(b"")


_PAGES = msgspec.json.Decoder(_Page)
_EVENTS = msgspec.json.Decoder(_Event)
_PLACES = msgspec.json.Decoder(_Place)
_STATUSES = msgspec.json.Decoder(_WithStatus)
WITH_STATUS = frozenset(
    ("GatewayClass", "Gateway", "ListenerSet", "HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "BackendTLSPolicy", "Ingress")
)
"""Kinds of which something is said back."""


class Gone(Exception):
    """The server has forgotten the place where the watch was."""


class Holding:
    """A store as several reflectors fill it: an object stays as long as one of them sees it."""

    def __init__(self, on_change: OnChange, on_status: Callable[[Ref], None] = lambda ref: None) -> None:
        """on_change: (which, before, after) when something changed that is read; on_status: when its status or its version did."""
        self.store = Store()
        self.statuses: dict[Ref, bytes] = {}
        """As the server has them, in JSON; b"" for none yet. Of the kinds of WITH_STATUS."""
        self.resource_versions: dict[Ref, str] = {}
        """Of the objects of these kinds, as the server has them; one in the store stays when nothing but this is different."""
        self.versions: dict[str, str] = {}
        """Name of a kind -> version in which it is read."""
        self._seen_by: dict[Ref, set[object]] = {}
        self._on_change = on_change
        self._on_status = on_status

    def put(self, seer: object, kind: Kind, raw: msgspec.Raw) -> Ref | None:
        """An object as it is now. msgspec.DecodeError when it is not JSON; None when it has no name."""
        decoded = decode_bytes(kind, raw)
        if not decoded.metadata.name:
            return None
        ref = Ref(kind.name, decoded.metadata.namespace, decoded.metadata.name)
        before, flaws, was_broken = self.store.find(ref), self.store.flaws.get(ref, ()), self.store.broken.get(ref)
        self._seen_by.setdefault(ref, set()).add(seer)
        after = decoded.object
        if kind.name in WITH_STATUS:
            self.statuses[ref] = bytes(_STATUSES.decode(raw).status)
            self.resource_versions[ref] = decoded.metadata.resource_version
            self._on_status(ref)
        if after is None and was_broken is not None:
            is_same = was_broken.findings == decoded.findings
        else:
            is_same = was_broken is None and after is not None and _is_alike(before, after) and flaws == decoded.findings
        if not is_same:
            self.store.put(kind, decoded)
            self._on_change(ref, before, after)
        return ref

    def restore(self, seer: object, kind: Kind, decoded: Decoded) -> Ref:
        """An object from elsewhere than the server, unless it is known: nobody is told."""
        ref = Ref(kind.name, decoded.metadata.namespace, decoded.metadata.name)
        if ref not in self._seen_by:
            self.store.put(kind, decoded)
        self._seen_by.setdefault(ref, set()).add(seer)
        return ref

    def drop(self, seer: object, ref: Ref) -> None:
        """One of those that saw the object sees it no longer."""
        seers = self._seen_by.get(ref, set())
        seers.discard(seer)
        if seers:
            return
        self._seen_by.pop(ref, None)
        before, was_broken = self.store.find(ref), ref in self.store.broken
        self.store.delete(ref)
        self.statuses.pop(ref, None)
        self.resource_versions.pop(ref, None)
        if before is not None or was_broken:
            self._on_change(ref, before, None)


def _is_alike(before: Object | None, after: Object) -> bool:
    """Whether only the version differs: somebody wrote a status, or a field that is not read."""
    if before is None:
        return False
    metadata = msgspec.structs.replace(after.metadata, resource_version=before.metadata.resource_version)
    return before == msgspec.structs.replace(after, metadata=metadata)


class State(enum.StrEnum):
    STARTING = "starting"  # not listed yet
    SYNCED = "synced"      # listed, and watched
    MISSING = "missing"    # the server does not know the kind: no CRD
    AWAY = "away"          # known from before; the server does not answer, or refuses


@dataclass(slots=True)
class Facts:
    """What is told about a reflector."""

    state: State = State.STARTING
    has_synced: bool = False
    """Whether there was one whole list, or the word that there is no such kind."""
    is_missing: bool = False
    """Whether the last word of the server was that there is no such kind."""
    lists: int = 0
    watches: int = 0
    events: int = 0
    errors: int = 0
    last_error: str = ""
    last_error_at: float = 0.0
    """Seconds since the epoch."""


@dataclass(slots=True, eq=False)
class Reflector:
    """Follows one kind: all of it, of a namespace, by label, or a single object."""

    client: ApiClient
    holding: Holding
    kind: Kind
    namespace: str = ""
    labels: str = ""
    name: str = ""
    on_state: Callable[[], None] = lambda: None
    missing_retry_s: float = MISSING_RETRY_S
    backoff: Backoff = field(default_factory=Backoff)
    page: int = PAGE
    facts: Facts = field(default_factory=Facts)
    _version: str = ""
    _place: str = ""
    _known: set[Ref] = field(default_factory=set)

    @property
    def what(self) -> str:
        """For people."""
        if self.name:
            return f"{self.kind.name} {self.namespace}/{self.name}"
        return f"{self.kind.plural} of {self.namespace}" if self.namespace else self.kind.plural

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                # That a CRD has a newer version by now is told by asking for it alone, so an older one is listed before each watch.
                if not self._place or self._version != self.kind.versions[0]:
                    await self._list()
                await self._watch()
                continue
            except Gone:
                log.info("%s: the API server has forgotten version %s; listing again", self.what, self._place)
                self._place = ""
                # Not at once, and not all together: a server that has just restarted says it to everybody.
                wait = 0.05 * (1 + random.random()) if self.facts.state is State.SYNCED else self.backoff.delay()
            except ApiError as error:
                if error.status == 404 and not self.kind.is_required:
                    self._on_missing()
                    wait = self.missing_retry_s * (1 + random.random() / 2)
                else:
                    wait = self._on_trouble(str(error), error.retry_after_s)
            except Unreachable as error:
                wait = self._on_trouble(str(error))
            except msgspec.MsgspecError as error:
                self._place = ""
                wait = self._on_trouble(f"an answer that cannot be read: {error}")
            await asyncio.sleep(wait)

    def forget(self) -> None:
        """What it saw is not its concern any more."""
        for ref in self._known:
            self.holding.drop(self, ref)
        self._known.clear()

    def _set(self, state: State) -> None:
        before, self.facts.state = self.facts.state, state
        first = state in (State.SYNCED, State.MISSING) and not self.facts.has_synced
        if first:
            self.facts.has_synced = True
        if state is not before:
            if state is State.MISSING:
                log.info("%s: not known to the API server; looked for again from time to time", self.what)
            elif state is State.SYNCED and before is not State.STARTING:
                log.info("%s: watched again, %d objects", self.what, len(self._known))
            elif state is State.SYNCED:
                log.debug("%s: %d objects", self.what, len(self._known))
        if first or state is not before:
            self.on_state()

    def _on_missing(self) -> None:
        self._place = self._version = ""
        self.forget()
        self.facts.is_missing = True
        self._set(State.MISSING)

    def _on_trouble(self, words: str, at_least: float = 0.0) -> float:
        facts = self.facts
        facts.errors += 1
        if words != facts.last_error or facts.state is State.SYNCED:
            log.warning("%s: %s", self.what, words)
        facts.last_error, facts.last_error_at = words, time.time()
        if facts.has_synced:
            self._set(State.AWAY)
        else:
            self.on_state()
        return self.backoff.delay(at_least)

    # ---- list ----

    def _params(self) -> dict[str, str]:
        params = {}
        if self.labels:
            params["labelSelector"] = self.labels
        if self.name:
            params["fieldSelector"] = f"metadata.name={self.name}"
        return params

    async def _list(self) -> None:
        for number, version in enumerate(self.kind.versions):
            try:
                items, place = await self._pages(self.kind.api_path(version, self.namespace))
            except ApiError as error:
                if error.status == 404 and number + 1 < len(self.kind.versions):
                    continue
                raise
            break
        is_other = self.holding.versions.get(self.kind.name) != version
        self._version = self.holding.versions[self.kind.name] = version
        self.facts.is_missing = False
        self.facts.lists += 1
        gone = set(self._known)
        for item in items:
            ref = self.holding.put(self, self.kind, item)
            if ref is not None:
                self._known.add(ref)
                gone.discard(ref)
        for ref in gone:
            self._known.discard(ref)
            self.holding.drop(self, ref)
        self._place = place
        self._set(State.SYNCED)
        if is_other:
            self.on_state()

    async def _pages(self, path: str) -> tuple[list[msgspec.Raw], str]:
        """All of one version, page by page; in one piece when the server forgets between two pages which it was."""
        items: list[msgspec.Raw] = []
        go_on, limit = "", str(self.page)
        while True:
            params = self._params()
            if limit:
                params["limit"] = limit
            if go_on:
                params["continue"] = go_on
            try:
                page = _PAGES.decode(await self.client.request("GET", path, params))
            except ApiError as error:
                if error.status != 410 or not go_on:
                    raise
                items, go_on, limit = [], "", ""
                continue
            items += page.items or ()
            go_on = page.metadata.go_on
            if not go_on:
                return items, page.metadata.resource_version

    # ---- watch ----

    async def _watch(self) -> None:
        begin, seen = time.monotonic(), 0
        params = {
            **self._params(),
            "allowWatchBookmarks": "true",
            "resourceVersion": self._place,
            "timeoutSeconds": str(int(WATCH_AT_LEAST_S * (1 + random.random()))),
        }
        self.facts.watches += 1
        try:
            path = self.kind.api_path(self._version, self.namespace)
            # Granted is synced: where nothing happens, the first event may be an hour away.
            events = self.client.watch(path, params, lambda: self._set(State.SYNCED))
            async with contextlib.aclosing(events) as opened:  # type: ignore[type-var]
                async for line in opened:
                    seen += 1
                    self._on_event(line)
        except ApiError as error:
            if error.status == 410:
                raise Gone from None
            raise
        if not seen and time.monotonic() - begin < SHORT_WATCH_S:
            raise Unreachable("a watch that ended at once")
        self.backoff.reset()

    def _on_event(self, line: bytes) -> None:
        event = _EVENTS.decode(line)
        place = _PLACES.decode(event.object)
        match event.type:
            case "ADDED" | "MODIFIED":
                ref = self.holding.put(self, self.kind, event.object)
                if ref is not None:
                    self._known.add(ref)
            case "DELETED":
                metadata = decode_bytes(self.kind, event.object).metadata
                ref = Ref(self.kind.name, metadata.namespace, metadata.name)
                self._known.discard(ref)
                self.holding.drop(self, ref)
            case "ERROR":
                if place.code == 410 or place.reason in ("Expired", "Gone"):
                    raise Gone
                raise ApiError(place.code, place.reason or "refused", place.message)
        self.facts.events += 1
        if place.metadata.resource_version:
            self._place = place.metadata.resource_version
