"""A compiled revision as the workers get it: a memory file, the endpoints of its clusters, and the addresses to listen on."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from gateway.control.build import Endpoint as ModelEndpoint
from gateway.control.build import Model, Route, Rule
from gateway.control.compile import Compiled, name_id
from gateway.sources.certificates import Secured
from gateway.supervisor.ipc import ClientSide, Endpoint, ServerSide


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a revision asks of sockets and pools, by the 64-bit ids that the snapshot uses."""

    addresses: dict[int, str]
    """bind id -> address to listen on"""
    endpoints: dict[int, list[Endpoint]]
    """cluster id -> endpoints; names are resolved by the worker"""
    listeners: dict[int, list[str]]
    """bind id -> names of its listeners, for people"""
    schemes: dict[int, str] = field(default_factory=dict)
    """bind id -> http, https, tls or tcp, for people"""
    server_sides: dict[int, ServerSide] = field(default_factory=dict)
    """listener id -> what it shows in a handshake"""
    client_sides: dict[int, ClientSide] = field(default_factory=dict)
    """cluster id -> how its endpoints are spoken to"""
    bundles: dict[str, bytes] = field(default_factory=dict)
    """Authorities that these name, in PEM by digest"""


def wanted_of(model: Model, compiled: Compiled, secured: Secured | None = None) -> Wanted:
    """The wishes of a revision. A cluster that could not be compiled has no id and no endpoints."""
    secured = secured or Secured()
    return Wanted(
        # Listeners of one port differ in protocol only where one passes TLS on and another ends it.
        schemes={
            compiled.ports[port.address]: min(model.listeners[number].protocol for number in port.listeners).lower()
            for port in model.ports
        },
        server_sides={
            name_id("listener", listener.name): secured.listeners[listener.name]
            for listener in model.listeners
            if listener.name in secured.listeners
        },
        client_sides=_client_sides(model, compiled, secured),
        bundles=secured.bundles,
        addresses={compiled.ports[port.address]: port.address for port in model.ports},
        endpoints={
            compiled.clusters[cluster.name]: _rows(cluster.endpoints)
            for cluster in model.clusters
            if cluster.name in compiled.clusters
        },
        listeners={
            compiled.ports[port.address]: [model.listeners[number].name for number in port.listeners] for port in model.ports
        },
    )


_known: dict[int, tuple[tuple[ModelEndpoint, ...], list[Endpoint]]] = {}
"""Identity of a cluster's endpoints -> themselves, and their rows: of twenty thousand few are other ones than a moment ago."""
_MOST_KNOWN = 20_000


def _rows(endpoints: tuple[ModelEndpoint, ...]) -> list[Endpoint]:
    known = _known.get(id(endpoints))
    if known is None or known[0] is not endpoints:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        rows = [(each.host.encode(), each.port, each.weight, each.zone.encode()) for each in endpoints]
        known = _known[id(endpoints)] = (endpoints, rows)
    return known[1]


def _client_sides(model: Model, compiled: Compiled, secured: Secured) -> dict[int, ClientSide]:
    """Who speaks HTTP to a cluster says so (ALPN). What a tunnel carries is nobody's guess, unless it is one thing that was agreed
    upon with every client."""
    if not secured.clusters:
        return {}
    for_http: set[str | None] = set()
    carried: dict[str | None, set[str]] = {}
    for route in model.routes:
        for rule in route.rules:
            clusters = {backend.cluster for backend in rule.backends}
            if route.kind in ("HTTPRoute", "GRPCRoute"):
                for_http |= clusters | {mirror.cluster for mirror in rule.mirrors}
            else:
                agreed = _agreed(model, route, rule)
                for name in clusters:
                    carried.setdefault(name, set()).update(agreed)
    sides = {}
    for cluster in model.clusters:
        if cluster.name not in compiled.clusters or cluster.name not in secured.clusters:
            continue
        side = secured.clusters[cluster.name]
        if cluster.name not in for_http:
            protocols = carried.get(cluster.name, {""})
            alpn = tuple(protocols) if len(protocols) == 1 and "" not in protocols else ()
            side = msgspec.structs.replace(side, alpn=alpn, carries=True)
        sides[compiled.clusters[cluster.name]] = side
    return sides


def _agreed(model: Model, route: Route, rule: Rule) -> set[str]:
    """Protocols that a TLSRoute or TCPRoute agrees upon with clients; "": none, or inside of TLS that is passed on."""
    if not all(model.listeners[each.listener].ends_tls for each in route.attachments):
        return {""}
    return {each.value for match in rule.matches for each in match.headers} or {""}
