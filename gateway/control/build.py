"""Config -> Model: the step between what people wrote and what `compile` packs.

The Model is total: defaults are filled in, names are indexes, texts are parsed, and everything stands in one order that does not
depend on the order of the files. What this version does not serve (gateway.model.served) and what does not resolve is already
turned into what a request gets: a rule that must answer 500 has a single backend whose cluster is None.

`build` expects a Config that gateway.model.validate has passed, as sources.files.load returns it; it reports nothing itself.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from operator import attrgetter
from typing import Literal

import msgspec

from gateway.control.grpc import http_rule
from gateway.control.limits import Limit, build_limits
from gateway.model.cluster import Cluster as ClusterSpec
from gateway.model.cluster import EndpointSpec, parse_endpoint
from gateway.model.config import Config
from gateway.model.listener import Limits, bind_address
from gateway.model.listener import Listener as ListenerSpec
from gateway.model.names import intersect_hostnames, normal_hostname, normal_origin, normal_path, normal_prefix
from gateway.model.route import (
    CORS,
    BackendObjectRef,
    BackendRef,
    GRPCRoute,
    HTTPBackendRef,
    HTTPRoute,
    HTTPRouteFilter,
    HTTPRouteMatch,
    HTTPRouteRule,
    PathModifier,
    SessionPersistence,
    TCPRoute,
    TLSRoute,
    asks_for,
    hostnames_of,
    takes,
)
from gateway.model.route import HeaderModifier as HeaderModifierSpec
from gateway.model.served import filter_gap

LONGEST_MS = 0x7FFFFFFF
"""Durations are cut to this (24.8 days), so that every one fits a u32 and sums of two do too."""

DEFAULT_LISTENER = ListenerSpec(name="http", port=8080)
"""What is listened on when a configuration names no listener."""


@dataclass(frozen=True, slots=True)
class Port:
    """One bound address; several listeners may share it."""

    address: str
    """Canonical "host:port" or "[v6]:port"; unique in the Model, and what a port's 64-bit id is made of."""
    host: str
    """To bind. "::" is bound dual stack, or as 0.0.0.0 on a machine without IPv6."""
    port: int
    """0 lets the kernel choose (tests)."""
    proxy_protocol: bool
    listeners: tuple[int, ...]
    """Indexes into Model.listeners; their hostnames differ."""


@dataclass(frozen=True, slots=True)
class Listener:
    """One listener. What it shows in a TLS handshake travels beside the Model."""

    name: str
    hostname: str
    """Lower case; "" takes any host; "*.example.com" takes every name below example.com and not example.com itself."""
    port: int
    """Index into Model.ports."""
    port_number: int
    public_port: int
    """The one that clients know: of redirects and X-Forwarded-Port."""
    protocol: Literal["HTTP", "HTTPS", "TLS", "TCP"]
    ends_tls: bool
    """Always of HTTPS; of TLS, what comes out is carried on. Without, TLS is carried as it is."""
    trusted_hops: int
    limits: Limits
    """Complete: the listener's own over the root's over the defaults. Times are milliseconds and at most LONGEST_MS."""
    rates: tuple[int, ...] = ()
    """Indexes into Model.rates."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a cluster's requests go."""

    host: str
    """An address without brackets, a lower-case DNS name, or the path of a Unix socket."""
    port: int
    """0 for a Unix socket."""
    kind: Literal["ip", "name", "unix"]
    weight: int
    zone: str

    @property
    def text(self) -> str:
        """As it is written: 10.0.0.1:80, [::1]:80, api.example:80, unix:/run/api.sock."""
        if self.kind == "unix":
            return f"unix:{self.host}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Cluster:
    """One cluster that speaks HTTP, or takes connections as they come."""

    name: str
    policy: Literal["RoundRobin", "LeastRequest", "Random", "ConsistentHash"]
    key_kind: Literal["none", "header", "cookie", "query", "clientAddress"]
    """"none" unless the policy is ConsistentHash."""
    key_name: str
    """Lower case for a header; "" for none and clientAddress."""
    protocol: Literal["HTTP1", "HTTP2", "auto"]
    connect_timeout: int
    idle_timeout: int
    max_connections: int
    max_pending: int
    outlier_errors: int
    """0: never eject."""
    outlier_ejection: int
    outlier_percent: int
    is_tls: bool
    """Whether its endpoints are spoken to in TLS; how, travels beside the Model."""
    endpoints: tuple[Endpoint, ...]
    """In the order of their text; each (host, port) once."""
    rates: tuple[int, ...] = ()
    """Indexes into Model.rates."""


@dataclass(frozen=True, slots=True)
class ValueMatch:
    """A header field (name in lower case) or a query parameter (name as written) that must be there with this value."""

    name: str
    value: str
    is_regex: bool
    """An RE2 pattern that must cover the whole value."""


@dataclass(frozen=True, slots=True)
class Match:
    """Conditions that must all hold."""

    path_type: Literal["Exact", "PathPrefix", "RegularExpression"]
    path: str
    """Exact and PathPrefix: in the normal form that the core matches (unreserved %XX decoded, no dot segments); a prefix has no
    slash at its end, so "" is the prefix of every path. RegularExpression: an RE2 pattern that must cover the whole path."""
    method: str
    """"" is any."""
    headers: tuple[ValueMatch, ...]
    """Sorted by name; each name once (the first stands, as Gateway API says)."""
    query: tuple[ValueMatch, ...]
    """Sorted by name; each name once (the first stands)."""


@dataclass(frozen=True, slots=True)
class HeaderModifier:
    """Field changes, in this order: set, add, remove. Names are lower case; framing and hop-by-hop fields never occur."""

    on: Literal["request", "response"]
    set: tuple[tuple[str, str], ...]
    add: tuple[tuple[str, str], ...]
    remove: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PathRewrite:
    """A new path, or a new prefix in the place of what a PathPrefix match covered."""

    kind: Literal["full", "prefix"]
    value: str
    """full: begins with "/". prefix: no slash at its end; "" takes the prefix away."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """The answer is this redirect. "", 0 and None keep what the client asked for."""

    scheme: Literal["", "http", "https"]
    hostname: str
    port: int
    path: PathRewrite | None
    status: Literal[301, 302, 303, 307, 308]


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Host and path as the backend sees them. "" and None keep what the client asked for."""

    hostname: str
    path: PathRewrite | None


Filter = HeaderModifier | Redirect | Rewrite
Served = HTTPRoute | GRPCRoute | TLSRoute | TCPRoute


@dataclass(frozen=True, slots=True)
class Mirror:
    """A cluster that gets a copy of a share of the requests."""

    cluster: str
    """Name of one of Model.clusters."""
    share: int
    """Requests of 2**32 that are copied; ALL: every one."""


ALL = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Cors:
    """What a page of another origin may ask for. Lists are as they are answered; "*" stands alone."""

    origins: tuple[str, ...]
    """Sorted; lower case, without a port that the scheme has by itself; a host may begin with "*"."""
    credentials: bool
    methods: tuple[str, ...]
    headers: tuple[str, ...]
    expose: tuple[str, ...]
    max_age: int
    """Seconds."""


@dataclass(frozen=True, slots=True)
class Session:
    """How requests of one session find their endpoint again."""

    kind: Literal["cookie", "header"]
    name: str
    """Lower case for a header."""
    lifetime: int
    """Seconds from its beginning; 0: as long as the client keeps it."""
    is_permanent: bool
    """Of a cookie: whether a browser keeps it beyond its own end."""


@dataclass(frozen=True, slots=True)
class Backend:
    """A share of a rule's requests."""

    cluster: str | None
    """Name of one of Model.clusters; None is answered 500."""
    weight: int
    """At least 1: backends of weight 0 are left out."""
    filters: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a route. Either filters hold one Redirect and there are no backends, or there is at least one backend."""

    number: int
    """Position in its route, from 0; a tie between rules of one route goes to the lower number."""
    name: str
    matches: tuple[Match, ...]
    """At least one; any of them is enough."""
    filters: tuple[Filter, ...]
    """In the order written. At most one of each kind (and direction), and never a Redirect beside a Rewrite."""
    backends: tuple[Backend, ...]
    request_timeout: int
    """Milliseconds; 0 is none."""
    backend_timeout: int
    attempts: int
    """Tries beyond the first that the configuration asks for; 0: only what is safe by itself."""
    codes: tuple[int, ...]
    """Sorted, each once."""
    backoff: int
    mirrors: tuple[Mirror, ...] = ()
    """In the order written; those that lead nowhere are left out."""
    cors: Cors | None = None
    rates: tuple[int, ...] = ()
    """Indexes into Model.rates: those of its route, then its own, each once."""
    session: Session | None = None


@dataclass(frozen=True, slots=True)
class Attachment:
    """A route on a listener, for these hosts."""

    listener: int
    """Index into Model.listeners."""
    hostnames: tuple[str, ...]
    """Sorted, each once, at least one; already cut to the listener's hostname. "" is every host of a listener without hostname."""


@dataclass(frozen=True, slots=True)
class Route:
    """One route. Ties between routes go to the one that stands first in Model.routes.

    A TLSRoute or TCPRoute has one rule without filters, whose matches take every path: there is none. One that asks for a protocol
    of ALPN writes it as a header "alpn".
    """

    name: str
    kind: Literal["HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute"]
    attachments: tuple[Attachment, ...]
    """Sorted by listener; empty when no listener takes any of its hosts, and then nothing reaches it."""
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Model:
    """The configuration that is served. Equal for equal configurations, whatever the order of files and list items."""

    ports: tuple[Port, ...]
    """Sorted by address."""
    listeners: tuple[Listener, ...]
    """Sorted by name."""
    routes: tuple[Route, ...]
    """Sorted by time of creation and then by name, which is how Gateway API breaks a tie; routes of files have no time."""
    clusters: tuple[Cluster, ...]
    """Sorted by name."""
    rates: tuple[Limit, ...] = ()
    """Sorted by name."""


@dataclass(slots=True)
class Kept:
    """What the last build came to, for the next one: of what is the very same object as then, the result is."""

    listeners: tuple[Listener, ...] = ()
    cluster_names: frozenset[str] = frozenset()
    rates: dict[str, int] = field(default_factory=dict)
    routes: dict[str, tuple[Served, Route, tuple[str, ...]]] = field(default_factory=dict)
    """With the names that its references ask for, whether there is such a cluster or not."""
    clusters: dict[str, tuple[ClusterSpec, Cluster]] = field(default_factory=dict)


def build(config: Config, kept: Kept | None = None) -> Model:
    """The Model of a validated configuration. The order of the items in its lists makes no difference, nor do its defaults.

    kept: of the builds before, brought up to date here; the Model is the same with and without.
    """
    kept = kept or Kept()
    # Whoever watches Kubernetes listens where a Gateway says so, and nowhere before there is one.
    fallback = () if config.kubernetes.enabled else (DEFAULT_LISTENER,)
    specs = sorted(config.listeners or fallback, key=attrgetter("name"))
    ports = _build_ports(specs)
    port_numbers = {port.address: number for number, port in enumerate(ports)}
    rates = build_limits(config.rate_limits, config.redis, _met_together(config))
    numbers = {rate.name: number for number, rate in enumerate(rates)}
    if numbers != kept.rates:
        # All others hold their numbers.
        kept.rates, kept.clusters, kept.routes = numbers, {}, {}
    listeners = tuple(_build_listener(spec, port_numbers, config.limits, numbers) for spec in specs)
    clusters = _build_clusters(config, kept)
    if listeners != kept.listeners:
        # Routes hold their numbers.
        kept.listeners, kept.routes = listeners, {}
    return Model(ports=ports, listeners=listeners, routes=_build_routes(config, kept), clusters=clusters, rates=rates)


def _build_clusters(config: Config, kept: Kept) -> tuple[Cluster, ...]:
    before, kept.clusters = kept.clusters, {}
    for spec in sorted(config.clusters, key=attrgetter("name")):
        known = before.get(spec.name)
        if known is None or known[0] is not spec:
            known = (spec, _build_cluster(spec, kept.rates))
        kept.clusters[spec.name] = known
    return tuple(cluster for _, cluster in kept.clusters.values())


def _build_routes(config: Config, kept: Kept) -> tuple[Route, ...]:
    names = frozenset(kept.clusters)
    moved = names ^ kept.cluster_names
    kept.cluster_names = names
    before, kept.routes = kept.routes, {}
    for spec in sorted(config.routes, key=attrgetter("created", "name")):
        known = before.get(spec.name)
        if known is None or known[0] is not spec or not moved.isdisjoint(known[2]):
            known = (spec, _build_route(spec, kept.listeners, names, kept.rates), _asked(spec))
        kept.routes[spec.name] = known
    return tuple(route for _, route, _ in kept.routes.values())


def _asked(spec: Served) -> tuple[str, ...]:
    """Names of clusters that a route refers to."""
    names = [ref.name for rule in spec.rules for ref in rule.backend_refs]
    if isinstance(spec, HTTPRoute | GRPCRoute):
        mirrors = [each.request_mirror for rule in spec.rules for each in rule.filters]
        names += [each.backend_ref.name for each in mirrors if each is not None]
    return tuple(dict.fromkeys(names))


def _met_together(config: Config) -> Iterator[tuple[str, ...]]:
    """Names of limits that one request may meet in one step: of a listener with a rule, and of a cluster."""
    at_listeners = {listener.rate_limits for listener in config.listeners} or {()}
    for route in config.routes:
        if isinstance(route, HTTPRoute | GRPCRoute):
            at_rules = {route.rate_limits + rule.rate_limits for rule in route.rules}
            yield from (before + after for before in at_listeners for after in at_rules)
    yield from (cluster.rate_limits for cluster in config.clusters)


def _rates(names: Iterable[str], numbers: dict[str, int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(numbers[name] for name in names if name in numbers))


def _build_ports(specs: list[ListenerSpec]) -> tuple[Port, ...]:
    shared: dict[str, list[int]] = {}
    for number, spec in enumerate(specs):
        shared.setdefault(bind_address(spec)[2], []).append(number)
    ports = []
    for address, numbers in sorted(shared.items()):
        host, port, _ = bind_address(specs[numbers[0]])
        accepts = any(specs[number].proxy_protocol == "accept" for number in numbers)
        ports.append(Port(address=address, host=host, port=port, proxy_protocol=accepts, listeners=tuple(numbers)))
    return tuple(ports)


def _build_listener(spec: ListenerSpec, ports: dict[str, int], base: Limits, rates: dict[str, int]) -> Listener:
    _, number, address = bind_address(spec)
    own = {} if spec.limits is None else {k: v for k, v in msgspec.structs.asdict(spec.limits).items() if v is not None}
    limits = msgspec.structs.replace(base, **own)
    cut = {k: type(v)(min(v, LONGEST_MS)) for k, v in msgspec.structs.asdict(limits).items() if k.endswith(("_timeout", "_age"))}
    return Listener(
        name=spec.name,
        hostname=normal_hostname(spec.hostname),
        port=ports[address],
        port_number=number,
        public_port=spec.public_port or number,
        protocol=spec.protocol,
        ends_tls=spec.ends_tls,
        trusted_hops=spec.trusted_hops,
        limits=msgspec.structs.replace(limits, **cut),
        rates=_rates(spec.rate_limits, rates),
    )


def build_endpoints(specs: Iterable[EndpointSpec | str]) -> tuple[Endpoint, ...]:
    """In the order of their text; each (host, port) once."""
    endpoints: dict[tuple[str, int], Endpoint] = {}
    for entry in specs:
        full = entry if isinstance(entry, EndpointSpec) else EndpointSpec(address=entry)
        host, port, kind = parse_endpoint(full.address)
        endpoints.setdefault((host, port), Endpoint(host=host, port=port, kind=kind, weight=full.weight, zone=full.zone))
    return tuple(sorted(endpoints.values(), key=lambda endpoint: endpoint.text))


def is_same_but_endpoints(one: Model, other: Model) -> bool:
    """Whether two models compile to the same, since a snapshot holds no endpoints."""
    if (one.ports, one.listeners, one.routes, one.rates) != (other.ports, other.listeners, other.routes, other.rates):
        return False
    if len(one.clusters) != len(other.clusters):
        return False
    pairs = zip(one.clusters, other.clusters, strict=True)
    return all(a is b or replace(a, endpoints=()) == replace(b, endpoints=()) for a, b in pairs)


def _build_cluster(spec: ClusterSpec, rates: dict[str, int]) -> Cluster:
    key_kind, key_name = hash_key(spec) if spec.load_balancing.policy == "ConsistentHash" else ("none", "")
    return Cluster(
        name=spec.name,
        policy=spec.load_balancing.policy,
        key_kind=key_kind,
        key_name=key_name,
        protocol=spec.protocol,
        connect_timeout=_milliseconds(spec.connect_timeout),
        idle_timeout=_milliseconds(spec.idle_timeout),
        max_connections=spec.max_connections,
        max_pending=spec.max_pending,
        outlier_errors=spec.outlier_detection.consecutive_errors,
        outlier_ejection=_milliseconds(spec.outlier_detection.base_ejection_time),
        outlier_percent=spec.outlier_detection.max_ejection_percent,
        is_tls=spec.tls is not None,
        endpoints=build_endpoints(spec.endpoints),
        rates=_rates(spec.rate_limits, rates),
    )


def hash_key(spec: ClusterSpec) -> tuple[Literal["none", "header", "cookie", "query", "clientAddress"], str]:
    """(kind, name) of a ConsistentHash key such as "header:x-user"."""
    kind, _, name = spec.load_balancing.key.partition(":")
    match kind:
        case "header":
            return "header", name.lower()
        case "cookie":
            return "cookie", name
        case "query":
            return "query", name
        case "clientAddress":
            return "clientAddress", ""
    return "none", ""


def _build_route(spec: Served, listeners: tuple[Listener, ...], clusters: frozenset[str], rates: dict[str, int]) -> Route:
    attachments = _attach(spec, listeners)
    if isinstance(spec, HTTPRoute):
        rules = tuple(
            _build_rule(rule, spec.name, number, clusters, spec.rate_limits, rates) for number, rule in enumerate(spec.rules)
        )
        return Route(name=spec.name, kind="HTTPRoute", attachments=attachments, rules=rules)
    if isinstance(spec, GRPCRoute):
        rules = tuple(
            _build_rule(http_rule(rule), spec.name, number, clusters, spec.rate_limits, rates)
            for number, rule in enumerate(spec.rules)
        )
        return Route(name=spec.name, kind="GRPCRoute", attachments=attachments, rules=rules)
    offers = spec.alpn if isinstance(spec, TLSRoute) else ()
    rules = tuple(_build_tunnel(rule.name, rule.backend_refs, clusters, offers) for rule in spec.rules)
    return Route(spec.name, "TLSRoute" if isinstance(spec, TLSRoute) else "TCPRoute", attachments, rules)


def _attach(spec: Served, listeners: tuple[Listener, ...]) -> tuple[Attachment, ...]:
    wanted = [normal_hostname(name) for name in hostnames_of(spec)] or [""]
    kind = type(spec).__name__
    attachments = []
    for number, listener in enumerate(listeners):
        if not takes(kind, listener.protocol, listener.ends_tls) or not asks_for(spec, listener.name, listener.port_number):
            continue
        shared = {both for name in wanted if (both := intersect_hostnames(listener.hostname, name)) is not None}
        if shared:
            attachments.append(Attachment(listener=number, hostnames=tuple(sorted(shared))))
    return tuple(attachments)


def _build_rule(
    spec: HTTPRouteRule, route: str, number: int, clusters: frozenset[str], route_rates: tuple[str, ...], rates: dict[str, int]
) -> Rule:
    filters: tuple[Filter, ...] = ()
    backends: tuple[Backend, ...] = (Backend(cluster=None, weight=1, filters=()),)
    if not any(filter_gap(each.type) for each in spec.filters):
        filters = tuple(_build_filter(each) for each in spec.filters if each.type not in ("RequestMirror", "CORS"))
        if any(isinstance(each, Redirect) for each in filters):
            backends = ()
        else:
            backends = tuple(_build_backend(ref, clusters) for ref in spec.backend_refs if ref.weight) or backends
    timeouts, retry = spec.timeouts, spec.retry
    return Rule(
        number=number,
        name=spec.name or "",
        matches=tuple(_build_match(each) for each in spec.matches or (HTTPRouteMatch(),)),
        filters=filters,
        backends=backends,
        request_timeout=_milliseconds(timeouts.request if timeouts else None),
        backend_timeout=_milliseconds(timeouts.backend_request if timeouts else None),
        attempts=0 if retry is None else 1 if retry.attempts is None else retry.attempts,
        codes=tuple(sorted(set(retry.codes))) if retry else (),
        backoff=_milliseconds(retry.backoff if retry else None),
        mirrors=_build_mirrors(spec, clusters),
        cors=next((_build_cors(each.cors) for each in spec.filters if each.cors is not None), None),
        rates=_rates(route_rates + spec.rate_limits, rates),
        session=_build_session(spec.session_persistence, f"{route}/{spec.name or number}"),
    )


def _build_session(spec: SessionPersistence | None, rule: str) -> Session | None:
    """rule: what it is named by when it has no name of its own."""
    if spec is None:
        return None
    name = spec.session_name or f"isthmus-{blake2b(rule.encode(), digest_size=5).hexdigest()}"
    lifetime = min(-(-spec.absolute_timeout // 1000), LONGEST_MS) if spec.absolute_timeout else 0
    if spec.type == "Header":
        return Session("header", name.lower(), lifetime, is_permanent=False)
    is_permanent = spec.cookie_config is not None and spec.cookie_config.lifetime_type == "Permanent"
    return Session("cookie", name, lifetime, is_permanent)


def _build_mirrors(spec: HTTPRouteRule, clusters: frozenset[str]) -> tuple[Mirror, ...]:
    mirrors = []
    for each in spec.filters:
        mirror = each.request_mirror
        if mirror is None or mirror.backend_ref.name not in clusters or not is_plain(mirror.backend_ref):
            continue
        share = ALL
        if mirror.percent is not None:
            share = mirror.percent * ALL // 100
        elif mirror.fraction is not None:
            share = min(ALL, mirror.fraction.numerator * ALL // mirror.fraction.denominator)
        if share:
            mirrors.append(Mirror(mirror.backend_ref.name, share))
    return tuple(mirrors)


def _build_cors(spec: CORS) -> Cors:
    return Cors(
        origins=tuple(sorted({normal_origin(each) for each in spec.allow_origins})),
        credentials=spec.allow_credentials,
        methods=tuple(dict.fromkeys(spec.allow_methods)),
        headers=tuple(dict.fromkeys(spec.allow_headers)),
        expose=tuple(dict.fromkeys(spec.expose_headers)),
        max_age=spec.max_age,
    )


def _build_tunnel(name: str | None, refs: tuple[BackendRef, ...], clusters: frozenset[str], offers: tuple[str, ...]) -> Rule:
    """The rule of a TLSRoute or TCPRoute: whole connections, by weight. offers: protocols of which a client offers one."""
    backends = tuple(Backend(_served(ref, clusters), ref.weight, ()) for ref in refs if ref.weight)
    asked: list[tuple[ValueMatch, ...]] = [(ValueMatch("alpn", offer, False),) for offer in dict.fromkeys(offers)]
    return Rule(
        number=0,
        name=name or "",
        matches=tuple(Match(path_type="PathPrefix", path="", method="", headers=headers, query=()) for headers in asked or [()]),
        filters=(),
        backends=backends or (Backend(cluster=None, weight=1, filters=()),),
        request_timeout=0,
        backend_timeout=0,
        attempts=0,
        codes=(),
        backoff=0,
    )


def _build_backend(ref: HTTPBackendRef, clusters: frozenset[str]) -> Backend:
    if any(filter_gap(each.type, at_backend=True) for each in ref.filters):
        return Backend(cluster=None, weight=ref.weight, filters=())
    filters = tuple(_build_filter(each) for each in ref.filters)
    return Backend(cluster=_served(ref, clusters), weight=ref.weight, filters=filters)


def _served(ref: HTTPBackendRef | BackendRef, clusters: frozenset[str]) -> str | None:
    return ref.name if ref.name in clusters and is_plain(ref) else None


def is_plain(ref: HTTPBackendRef | BackendRef | BackendObjectRef) -> bool:
    """Whether the reference names a cluster of the files, and nothing of Kubernetes."""
    return ref.group == "" and ref.kind == "Service" and ref.namespace is None and ref.port is None


def _build_match(spec: HTTPRouteMatch) -> Match:
    path = spec.path.value
    if spec.path.type == "Exact":
        path = normal_path(path)
    elif spec.path.type == "PathPrefix":
        path = normal_prefix(path)
    headers: dict[str, ValueMatch] = {}
    for header in spec.headers:
        name = header.name.lower()
        headers.setdefault(name, ValueMatch(name, header.value, header.type == "RegularExpression"))
    query: dict[str, ValueMatch] = {}
    for parameter in spec.query_params:
        query.setdefault(parameter.name, ValueMatch(parameter.name, parameter.value, parameter.type == "RegularExpression"))
    return Match(
        path_type=spec.path.type,
        path=path,
        method=spec.method or "",
        headers=tuple(headers[name] for name in sorted(headers)),
        query=tuple(query[name] for name in sorted(query)),
    )


def _build_filter(spec: HTTPRouteFilter) -> Filter:
    if spec.type == "RequestRedirect" and (redirect := spec.request_redirect) is not None:
        return Redirect(
            scheme=redirect.scheme or "",
            hostname=normal_hostname(redirect.hostname or ""),
            port=redirect.port or 0,
            path=_build_path(redirect.path),
            status=redirect.status_code,
        )
    if spec.type == "URLRewrite" and (rewrite := spec.url_rewrite) is not None:
        return Rewrite(hostname=normal_hostname(rewrite.hostname or ""), path=_build_path(rewrite.path))
    if spec.type == "RequestHeaderModifier" and (modifier := spec.request_header_modifier) is not None:
        return _build_modifier("request", modifier)
    if spec.type == "ResponseHeaderModifier" and (modifier := spec.response_header_modifier) is not None:
        return _build_modifier("response", modifier)
    raise ValueError(f"a filter of type {spec.type} without its key: this configuration was not validated")


def _build_modifier(on: Literal["request", "response"], spec: HeaderModifierSpec) -> HeaderModifier:
    return HeaderModifier(
        on=on,
        set=tuple((header.name.lower(), header.value) for header in spec.set),
        add=tuple((header.name.lower(), header.value) for header in spec.add),
        remove=tuple(name.lower() for name in spec.remove),
    )


def _build_path(spec: PathModifier | None) -> PathRewrite | None:
    if spec is None:
        return None
    if spec.type == "ReplaceFullPath":
        return PathRewrite("full", spec.replace_full_path or "/")
    return PathRewrite("prefix", (spec.replace_prefix_match or "").rstrip("/"))


def _milliseconds(value: int | None) -> int:
    return min(int(value or 0), LONGEST_MS)
