"""Small models and questions for the tests of routing."""

from typing import Any

import msgspec

from gateway._core import explain
from gateway._core.snapshot import Snapshot, load
from gateway.control.build import build
from gateway.control.compile import Compiled, compile_model
from gateway.model import Cluster, Config, HTTPRoute, Listener, RateLimit
from gateway.model.route import (
    HeaderMatch,
    HTTPBackendRef,
    HTTPRouteFilter,
    HTTPRouteMatch,
    HTTPRouteRule,
    PathMatch,
    QueryParamMatch,
)

WEB = Listener(name="web", port=8080)
Fields = tuple[tuple[str, str], ...]


def match(
    path: str = "/",
    kind: Any = "PathPrefix",
    method: Any = None,
    headers: dict[str, str] | None = None,
    query: dict[str, str] | None = None,
    regex: bool = False,
) -> HTTPRouteMatch:
    """One match; `regex` makes header and query values patterns."""
    type_: Any = "RegularExpression" if regex else "Exact"
    return HTTPRouteMatch(
        path=PathMatch(kind, path),
        method=method,
        headers=tuple(HeaderMatch(name, value, type_) for name, value in (headers or {}).items()),
        query_params=tuple(QueryParamMatch(name, value, type_) for name, value in (query or {}).items()),
    )


def rule(*matches: HTTPRouteMatch, filters: tuple[HTTPRouteFilter, ...] = (), to: tuple[str, ...] = ("origin",)) -> HTTPRouteRule:
    return HTTPRouteRule(matches=matches, filters=filters, backend_refs=tuple(HTTPBackendRef(name=name) for name in to))


def route(name: str, *rules: HTTPRouteRule, hosts: tuple[str, ...] = (), on: tuple[str, ...] = ()) -> HTTPRoute:
    return HTTPRoute(name=name, rules=rules, hostnames=hosts, listeners=on)


def config(*routes: HTTPRoute, listeners: tuple[Listener, ...] = (WEB,)) -> Config:
    return Config(listeners=listeners, routes=routes, clusters=(Cluster(name="origin", endpoints=("127.0.0.1:9",)),))


def compiled(
    *routes: HTTPRoute,
    listeners: tuple[Listener, ...] = (WEB,),
    revision: int = 1,
    rate_limits: tuple[RateLimit, ...] = (),
) -> Compiled:
    whole = config(*routes, listeners=listeners)
    return compile_model(build(msgspec.structs.replace(whole, rate_limits=rate_limits)), revision)


def _request(path: str, host: str, method: str, headers: Fields) -> tuple[Any, ...]:
    bare, mark, query = path.partition("?")
    fields = [(name.encode(), value.encode()) for name, value in headers]
    return method.encode(), host.encode(), bare.encode(), query.encode() if mark else None, fields


class Table:
    """A snapshot of some routes on the first port, to ask."""

    def __init__(self, *routes: HTTPRoute, listeners: tuple[Listener, ...] = (WEB,)) -> None:
        self.compiled = compiled(*routes, listeners=listeners)
        assert not self.compiled.problems
        self.snapshot: Snapshot = load(self.compiled.blob)
        self.port = next(iter(self.compiled.ports.values()))

    def facts(self, path: str, host: str = "any.test", method: str = "GET", headers: Fields = ()) -> dict[str, Any]:
        return explain.explain_route(self.snapshot, self.port, *_request(path, host, method, headers), candidates=False)

    def ask(self, path: str, host: str = "any.test", method: str = "GET", headers: Fields = ()) -> str | None:
        """ "route/rule", or None for 404."""
        facts = self.facts(path, host, method, headers)
        assert facts["fault"] is None
        return None if facts["route"] is None else f"{facts['route']}/{facts['rule']}"

    def preview(
        self, path: str, host: str = "any.test", method: str = "GET", headers: Fields = (), secure: bool = False
    ) -> dict[str, Any]:
        seen = explain.preview_request(self.snapshot, self.port, *_request(path, host, method, headers), secure=secure)
        assert seen is not None
        return seen
