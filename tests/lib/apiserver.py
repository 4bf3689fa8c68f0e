"""A small API server over real sockets: lists in pages, watches with bookmarks and 410, server-side apply of statuses, Leases.

It keeps to what the real one keeps to: one counter of versions for everything, watches that begin where a version says, tokens of
lists that die with compaction, optimistic locking, and field managers that own what they applied.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import json
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, ClassVar

from aiohttp import web

Json = dict[str, Any]
Key = tuple[str, str, str, str]  # group, plural, namespace, name

BUILT_IN = {
    ("", "v1", "namespaces"), ("", "v1", "services"), ("", "v1", "configmaps"), ("", "v1", "secrets"), ("", "v1", "nodes"),
    ("discovery.k8s.io", "v1", "endpointslices"), ("networking.k8s.io", "v1", "ingresses"),
    ("networking.k8s.io", "v1", "ingressclasses"), ("coordination.k8s.io", "v1", "leases"),
}  # fmt: skip
GATEWAY_API = {
    ("gateway.networking.k8s.io", "v1", plural)
    for plural in (
        "gatewayclasses", "gateways", "listenersets", "httproutes", "grpcroutes", "tlsroutes", "tcproutes", "referencegrants",
        "backendtlspolicies",
    )
}  # fmt: skip
PLURALS = {
    "GatewayClass": "gatewayclasses", "ReferenceGrant": "referencegrants", "BackendTLSPolicy": "backendtlspolicies",
    "Ingress": "ingresses", "IngressClass": "ingressclasses",
}  # fmt: skip
MAPS = {"conditions": "type", "listeners": "name", "supportedFeatures": "name"}
"""Lists that are maps by a key, as the CRDs say; all others are replaced as a whole."""


@dataclass
class Event:
    version: int
    type: str
    resource: tuple[str, str]
    object: Json


class Requests:
    """What a server was asked, as (method, path, query): the small one notes it itself, for the real one its client does."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str]]] = []

    def count(self, method: str, part: str, **params: str) -> int:
        return sum(
            each == method and part in path and all(query.get(key) == value for key, value in params.items())
            for each, path, query in self.requests
        )

    def lists(self, plural: str) -> int:
        """How many lists were begun."""
        return sum(
            method == "GET" and path.endswith("/" + plural) and "watch" not in query and "continue" not in query
            for method, path, query in self.requests
        )

    def watches(self, plural: str) -> int:
        return self.count("GET", "/" + plural, watch="true")

    def writes(self) -> Counter[str]:
        """Status writes by path."""
        return Counter(path for method, path, _ in self.requests if method == "PATCH")


@dataclass
class ApiServer(Requests):
    """`put`, `delete` and `get` are kubectl; the rest is what happens to API servers."""

    token: str = "let-me-in"
    resources: set[tuple[str, str, str]] = field(default_factory=lambda: BUILT_IN | GATEWAY_API)
    objects: dict[Key, Json] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    version: int = 100
    compacted: int = 0
    """Versions up to this one are forgotten."""
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    failures: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    """Part of a path -> (status, Retry-After) of the next answers."""
    applied: dict[tuple[Key, str], Json] = field(default_factory=dict)
    forbidden: set[str] = field(default_factory=set)
    """Parts of paths that are refused for good."""
    port: int = 0
    _runner: web.AppRunner | None = None
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)
    _bookmarks: int = 0
    _cut: int = 0
    _lists: dict[str, tuple[int, list[Json]]] = field(default_factory=dict)

    # ---- life ----

    async def start(self, port: int = 0) -> str:
        app = web.Application(middlewares=[self._guard])
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self.url

    tls: ClassVar[bool] = True
    authority: ClassVar[bytes] = b""
    """It speaks in the clear."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def stop(self) -> None:
        await self.end_watches()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    # ---- kubectl ----

    def _key(self, kind: str, name: str, namespace: str = "") -> Key:
        plural = PLURALS.get(kind, kind.lower() + "s")
        group = next(group for group, _, each in BUILT_IN | GATEWAY_API if each == plural)
        return group, plural, namespace, name

    async def put(self, *given: Json) -> None:
        """Creates, or replaces all but the status."""
        for value in given:
            value = copy.deepcopy(value)
            metadata = value["metadata"]
            cluster_wide = value["kind"] in ("Namespace", "Node", "GatewayClass", "IngressClass")
            key = self._key(value["kind"], metadata["name"], "" if cluster_wide else metadata.setdefault("namespace", "default"))
            if value["kind"] == "Secret":
                for name, text in value.pop("stringData", {}).items():
                    value.setdefault("data", {})[name] = base64.b64encode(text.encode()).decode()
            before = self.objects.get(key)
            if before is None:
                metadata["creationTimestamp"] = metadata.get("creationTimestamp") or "2026-01-01T00:00:00Z"
                metadata |= {"uid": f"uid-{self.version}", "generation": 1}
            else:
                metadata |= {name: before["metadata"][name] for name in ("uid", "creationTimestamp")}
                metadata["generation"] = before["metadata"]["generation"] + (before.get("spec") != value.get("spec"))
                if "status" in before:
                    value.setdefault("status", before["status"])
            await self._store(key, value)

    async def delete(self, kind: str, name: str, namespace: str = "default") -> None:
        key = self._key(kind, name, "" if kind in ("Namespace", "GatewayClass", "IngressClass") else namespace)
        gone = copy.deepcopy(self.objects.pop(key))
        self.version += 1
        gone["metadata"]["resourceVersion"] = str(self.version)
        await self._tell("DELETED", key, gone)

    def seed(self, *given: Json) -> None:
        """Objects that were there before anybody watched, in large numbers: complete, and told to nobody."""
        for value in given:
            metadata = value["metadata"]
            self.version += 1
            metadata |= {"uid": f"uid-{self.version}", "generation": 1, "resourceVersion": str(self.version)}
            metadata.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
            self.objects[self._key(value["kind"], metadata["name"], metadata.get("namespace", ""))] = value

    def get(self, kind: str, name: str, namespace: str = "default") -> Json:
        return self.objects[self._key(kind, name, "" if kind == "GatewayClass" else namespace)]

    def status(self, kind: str, name: str, namespace: str = "default") -> Json:
        found: Json = self.get(kind, name, namespace).get("status", {})
        return found

    async def set_status(self, kind: str, name: str, status: Json, namespace: str = "default") -> None:
        """As another controller would write it, over everything."""
        value = copy.deepcopy(self.get(kind, name, namespace))
        value["status"] = status
        await self._store(self._key(kind, name, namespace), value)

    async def _store(self, key: Key, value: Json) -> None:
        is_new = key not in self.objects
        self.version += 1
        value["metadata"]["resourceVersion"] = str(self.version)
        self.objects[key] = value
        await self._tell("ADDED" if is_new else "MODIFIED", key, value)

    async def _tell(self, type_: str, key: Key, value: Json) -> None:
        self.events.append(Event(self.version, type_, key[:2], copy.deepcopy(value)))
        async with self._news:
            self._news.notify_all()

    # ---- what happens to API servers ----

    async def compact(self) -> None:
        """Forgets all versions but the present one, and the lists that are under way."""
        self.compacted = self.version
        self._lists.clear()

    async def bookmark(self) -> None:
        """Tells every watch how far the world is."""
        async with self._news:
            self._bookmarks += 1
            self._news.notify_all()

    async def end_watches(self) -> None:
        """In good order, as by timeoutSeconds."""
        async with self._news:
            self._cut += 1
            self._news.notify_all()

    def fail(self, part: str, status: int, times: int = 1, retry_after: str = "") -> None:
        self.failures.setdefault(part, []).extend([(status, retry_after)] * times)

    # ---- requests ----

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        query = dict(request.query)
        self.requests.append((request.method, request.path, query))
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return refusal(401, "Unauthorized", "Unauthorized")
        if any(part in request.path for part in self.forbidden):
            return refusal(403, "Forbidden", f"{request.path} is forbidden")
        for part, planned in self.failures.items():
            if planned and part in request.path:
                status, retry_after = planned.pop(0)
                return refusal(status, "Planned", "as planned", retry_after)
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        parts = request.path.strip("/").split("/")
        group, rest = ("", parts[1:]) if parts[0] == "api" else (parts[1], parts[2:])
        version, rest = rest[0], rest[1:]
        namespace = ""
        if len(rest) > 2 and rest[0] == "namespaces":
            namespace, rest = rest[1], rest[2:]
        plural, rest = rest[0], rest[1:]
        if (group, version, plural) not in self.resources:
            return web.Response(status=404, text="404 page not found")
        if not rest and request.method == "GET":
            if request.query.get("watch") == "true":
                return await self._watch(request, group, plural, namespace)
            return self._list(request, group, plural, namespace)
        if not rest and request.method == "POST":
            body = await request.json()
            key = (group, plural, namespace, body["metadata"]["name"])
            if key in self.objects:
                return refusal(409, "AlreadyExists", "it is there")
            await self._store(key, body)
            return web.json_response(body, status=201)
        key = (group, plural, namespace, rest[0])
        if key not in self.objects:
            return refusal(404, "NotFound", f"{plural} {rest[0]} not found")
        if request.method == "GET":
            return web.json_response(self.objects[key])
        body = await request.json()
        wanted = body["metadata"].get("resourceVersion")
        if wanted is not None and wanted != self.objects[key]["metadata"]["resourceVersion"]:
            return refusal(409, "Conflict", "the object has been modified")
        if request.method == "PUT":
            await self._store(key, body)
            return web.json_response(self.objects[key])
        if request.method == "PATCH" and rest[1:] == ["status"]:
            return await self._apply(request, key, body)
        return refusal(405, "MethodNotAllowed", request.method)

    def _chosen(self, request: web.Request, namespace: str, value: Json) -> bool:
        metadata = value["metadata"]
        if namespace and metadata.get("namespace") != namespace:
            return False
        name = request.query.get("fieldSelector", "").removeprefix("metadata.name=")
        if name and metadata["name"] != name:
            return False
        labels = metadata.get("labels", {})
        wanted = [each.split("=") for each in request.query.get("labelSelector", "").split(",") if each]
        return all(labels.get(key) == text for key, text in wanted)

    def _list(self, request: web.Request, group: str, plural: str, namespace: str) -> web.Response:
        token = request.query.get("continue", "")
        if token:
            if token not in self._lists:
                return refusal(410, "Expired", "the provided continue parameter is too old")
            version, left = self._lists.pop(token)
        else:
            version = self.version
            left = [
                value
                for key, value in sorted(self.objects.items())
                if key[:2] == (group, plural) and self._chosen(request, namespace, value)
            ]
        limit = int(request.query.get("limit", "0")) or len(left)
        items, left = left[:limit], left[limit:]
        metadata = {"resourceVersion": str(version)}
        if left:
            metadata["continue"] = f"{plural}-{version}-{len(left)}"
            self._lists[metadata["continue"]] = (version, left)
        return web.json_response({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items})

    def _after(self, version: int) -> int:
        """Number of the first event after this version."""
        return bisect_right(self.events, version, key=lambda each: each.version)

    async def _watch(self, request: web.Request, group: str, plural: str, namespace: str) -> web.StreamResponse:
        at = int(request.query.get("resourceVersion") or self.version)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        if at < self.compacted:
            status = {"kind": "Status", "code": 410, "reason": "Expired", "message": f"too old resource version: {at}"}
            await response.write(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")
            return response
        bookmarks, cut = self._bookmarks, self._cut
        # What a selector chose before: an object that is not chosen any more is deleted for this watch.
        seen = {
            value["metadata"]["name"]
            for key, value in self.objects.items()
            if key[:2] == (group, plural) and self._chosen(request, namespace, value)
        }
        try:
            while cut == self._cut:
                for event in self.events[self._after(at) :]:
                    at = event.version
                    if event.resource != (group, plural):
                        continue
                    name, is_chosen = event.object["metadata"]["name"], self._chosen(request, namespace, event.object)
                    type_ = event.type
                    if not is_chosen:
                        if name not in seen or (namespace and event.object["metadata"].get("namespace") != namespace):
                            continue
                        type_ = "DELETED"
                    seen.discard(name) if type_ == "DELETED" else seen.add(name)
                    await response.write(json.dumps({"type": type_, "object": event.object}).encode() + b"\n")
                if bookmarks != self._bookmarks and request.query.get("allowWatchBookmarks") == "true":
                    bookmarks = self._bookmarks
                    mark = {"kind": "Bookmark", "metadata": {"resourceVersion": str(self.version)}}
                    await response.write(json.dumps({"type": "BOOKMARK", "object": mark}).encode() + b"\n")
                async with self._news:
                    await self._news.wait_for(
                        lambda at=at, marks=bookmarks: (  # type: ignore[misc]
                            cut != self._cut or marks != self._bookmarks or self._after(at) < len(self.events)
                        )
                    )
        except ConnectionError:
            pass
        return response

    # ---- server-side apply ----

    async def _apply(self, request: web.Request, key: Key, body: Json) -> web.Response:
        if request.content_type != "application/apply-patch+yaml":
            return refusal(415, "UnsupportedMediaType", request.content_type)
        manager = request.query["fieldManager"]
        value = copy.deepcopy(self.objects[key])
        wanted = body["status"]
        held, others = self.applied.get((key, manager), {}), self._of_others(key, manager)
        status = merge(value.get("status", {}), wanted, held, others)
        self.applied[key, manager] = wanted
        if status != value.get("status", {}):
            value["status"] = status
            await self._store(key, value)
        return web.json_response(self.objects[key])

    def _of_others(self, key: Key, manager: str) -> Json:
        found: Json = {}
        for (each, name), status in self.applied.items():
            if each == key and name != manager:
                found = merge(found, status, {}, {})
        return found


def merge(live: Any, wanted: Any, held: Any, others: Any, name: str = "") -> Any:
    """What comes of an apply: wanted over live, without what this manager applied before and does not any more."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        held, others = (each if isinstance(each, dict) else {} for each in (held, others))
        made = {key: item for key, item in live.items() if key in wanted or key not in held or key in others}
        for key, item in wanted.items():
            made[key] = merge(live.get(key), item, held.get(key), others.get(key), key) if key in live else item
        return made
    by = MAPS.get(name)
    if by is not None and isinstance(wanted, list) and isinstance(live, list):
        mine = {each[by]: each for each in held or []}
        theirs = {each[by]: each for each in others or []}
        asked = {each[by]: each for each in wanted}
        merged = []
        for each in live:
            key = each[by]
            if key in asked:
                merged.append(merge(each, asked.pop(key), mine.get(key), theirs.get(key)))
            elif key not in mine or key in theirs:
                merged.append(each)
        return [*merged, *asked.values()]
    return wanted


def refusal(status: int, reason: str, message: str, retry_after: str = "") -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message, "code": status}
    return web.json_response(body, status=status, headers={"Retry-After": retry_after} if retry_after else {})
