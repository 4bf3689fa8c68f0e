"""The rules of Gateway API for one route: names, matches, filters, backends, timeouts.

An error takes the route out. What Gateway API answers 500 instead is an error that leaves the route in (drops=False).
"""

from collections.abc import Iterator, Sequence, Set
from typing import get_args

from gateway.model.check_limit import check_attached
from gateway.model.config import Config
from gateway.model.listener import Listener, bind_address
from gateway.model.names import (
    TOKEN,
    field_name_flaw,
    field_value_flaw,
    hostname_flaw,
    intersect_hostnames,
    normal_hostname,
    origin_flaw,
    path_flaw,
    pattern_flaw,
)
from gateway.model.problem import Finding, Path, absent, warning
from gateway.model.route import (
    CORS,
    ROUTE_PROTOCOLS,
    BackendObjectRef,
    BackendRef,
    GRPCBackendRef,
    GRPCRoute,
    GRPCRouteFilter,
    GRPCRouteMatch,
    GRPCRouteRule,
    HeaderMatch,
    HeaderModifier,
    HTTPBackendRef,
    HTTPMethod,
    HTTPRoute,
    HTTPRouteFilter,
    HTTPRouteMatch,
    HTTPRouteRule,
    PathModifier,
    RequestMirror,
    Route,
    SessionPersistence,
    TCPRoute,
    TCPRouteRule,
    TLSRoute,
    TLSRouteRule,
    asks_for,
    hostnames_of,
    takes,
)
from gateway.model.served import filter_gap

_FILTER_KEYS = {
    "RequestHeaderModifier": "request_header_modifier",
    "ResponseHeaderModifier": "response_header_modifier",
    "RequestMirror": "request_mirror",
    "RequestRedirect": "request_redirect",
    "URLRewrite": "url_rewrite",
    "CORS": "cors",
    "ExternalAuth": "external_auth",
    "ExtensionRef": "extension_ref",
}
_METHODS: tuple[str, ...] = get_args(HTTPMethod)
_REPEATED_FILTERS = frozenset({"RequestMirror", "ExtensionRef"})
_MOST_WEIGHT = 0x7FFFFFFF
_LONGEST_SESSION_NAME = 128

AnyBackend = HTTPBackendRef | GRPCBackendRef | BackendRef | BackendObjectRef
AnyFilter = HTTPRouteFilter | GRPCRouteFilter


def check_route(route: Route, config: Config, path: Path, broken_clusters: Set[str] = frozenset()) -> Iterator[Finding]:
    """Everything about one route; `config` holds the clusters and rate limits that are good themselves."""
    for number, name in enumerate(hostnames_of(route)):
        if flaw := hostname_flaw(name):
            yield Finding((*path, "hostnames", number), flaw)
    if isinstance(route, TLSRoute) and not route.hostnames:
        yield Finding(path, "a TLSRoute needs hostnames")
    if isinstance(route, TLSRoute):
        for number, name in enumerate(route.alpn):
            # RFC 7301 §3.1: 1 to 255 bytes
            if not (name.isascii() and name.isprintable() and 0 < len(name) < 256):
                yield Finding((*path, "alpn", number), "is no name of a protocol; h2 and http/1.1 are some")
    if isinstance(route, TLSRoute | TCPRoute) and len(route.rules) != 1:
        yield Finding((*path, "rules"), f"a {type(route).__name__} has one rule, and here are {len(route.rules)}")
    yield from _check_attachment(route, config, path)
    clusters = {cluster.name for cluster in config.clusters}
    limits = {limit.name for limit in config.rate_limits}
    if isinstance(route, HTTPRoute | GRPCRoute):
        yield from check_attached(route.rate_limits, limits, path)
    rules: Sequence[HTTPRouteRule | GRPCRouteRule | TLSRouteRule | TCPRouteRule] = route.rules
    for number, rule in enumerate(rules):
        at: Path = (*path, "rules", number)
        if isinstance(rule, HTTPRouteRule):
            yield from _check_http_rule(rule, at)
        elif isinstance(rule, GRPCRouteRule):
            yield from _check_grpc_rule(rule, at)
        fate = "connections are closed" if isinstance(rule, TLSRouteRule | TCPRouteRule) else "share is answered 500"
        yield from _check_backends(rule.backend_refs, clusters, broken_clusters, at, fate)
        if isinstance(rule, HTTPRouteRule | GRPCRouteRule):
            if rule.session_persistence is not None:
                yield from _check_session(rule.session_persistence, (*at, "sessionPersistence"))
            filters: Sequence[AnyFilter] = rule.filters
            for place, each in enumerate(filters):
                if each.request_mirror is not None:
                    to: Path = (*at, "filters", place, "requestMirror", "backendRef")
                    yield from _check_backend(each.request_mirror.backend_ref, clusters, broken_clusters, to, "copies are not sent")
            yield from check_attached(rule.rate_limits, limits, at)
        if isinstance(rule, TLSRouteRule | TCPRouteRule):
            yield from _check_carrying(rule, config, at)
        if isinstance(rule, TLSRouteRule):
            yield from _check_double_tls(route, rule, config, at)


def check_rule(rule: HTTPRouteRule | GRPCRouteRule, path: Path) -> Iterator[Finding]:
    """Everything about one rule but the names in it: what an object of the API server can be asked as well as a file."""
    yield from _check_http_rule(rule, path) if isinstance(rule, HTTPRouteRule) else _check_grpc_rule(rule, path)
    refs: Sequence[HTTPBackendRef | GRPCBackendRef] = rule.backend_refs
    for number, ref in enumerate(refs):
        yield from _check_filters(ref.filters, (*path, "backendRefs", number), at_backend=True)
    if sum(ref.weight for ref in rule.backend_refs) > _MOST_WEIGHT:
        yield Finding((*path, "backendRefs"), "the weights are too large together")


def _check_carrying(rule: TLSRouteRule | TCPRouteRule, config: Config, path: Path) -> Iterator[Finding]:
    speaking = {cluster.name for cluster in config.clusters if cluster.protocol == "HTTP2"}
    for number, ref in enumerate(rule.backend_refs):
        if ref.name in speaking:
            message = f"cluster '{ref.name}' has protocol HTTP2, in which no connection can be carried; its connections are closed"
            yield warning((*path, "backendRefs", number, "name"), message)


def _check_double_tls(route: Route, rule: TLSRouteRule, config: Config, path: Path) -> Iterator[Finding]:
    if not any(each.protocol == "TLS" and not each.ends_tls and _is_wanted(route, each) for each in config.listeners):
        return
    encrypted = {cluster.name for cluster in config.clusters if cluster.tls is not None}
    for number, ref in enumerate(rule.backend_refs):
        if ref.name in encrypted:
            message = f"cluster '{ref.name}' has tls: what the client has encrypted is encrypted once more on its way there"
            yield warning((*path, "backendRefs", number, "name"), message)


def _check_attachment(route: Route, config: Config, path: Path) -> Iterator[Finding]:
    kind = type(route).__name__
    needed = " or ".join(ROUTE_PROTOCOLS[kind]) + (", or TLS that ends here" if kind == "TCPRoute" else "")
    listeners = {listener.name: listener for listener in config.listeners}
    for number, name in enumerate(route.listeners):
        listener = listeners.get(name)
        if listener is None:
            yield Finding((*path, "listeners", number), absent("listener", name, listeners), drops=False)
        elif not takes(kind, listener.protocol, listener.ends_tls):
            message = f"listener '{name}' has protocol {listener.protocol}; {kind} needs {needed}"
            yield Finding((*path, "listeners", number), message, drops=False)
    if route.listeners and route.parent_refs:
        yield Finding((*path, "parentRefs"), "stands beside listeners; one of them says where the route attaches")
    for number, ref in enumerate(route.parent_refs):
        if ref.section_name is not None and ref.section_name not in listeners:
            at: Path = (*path, "parentRefs", number, "sectionName")
            yield Finding(at, absent("listener", ref.section_name, listeners), drops=False)
    fitting = (listener for listener in config.listeners if takes(kind, listener.protocol, listener.ends_tls))
    candidates = [listener for listener in fitting if _is_wanted(route, listener)]
    if candidates and not any(_shares_host(route, listener) for listener in candidates):
        yield warning((*path, "hostnames"), "none of its listeners takes any of these hosts, so nothing reaches it")
    elif not candidates and (config.listeners or isinstance(route, TLSRoute | TCPRoute)):
        protocols = " or ".join(ROUTE_PROTOCOLS[kind])
        yield warning(path, f"attaches to no listener: there is none of protocol {protocols} that it names")


def _is_wanted(route: Route, listener: Listener) -> bool:
    try:
        return asks_for(route, listener.name, bind_address(listener)[1])
    except ValueError:
        return False


def _shares_host(route: Route, listener: Listener) -> bool:
    hostname = normal_hostname(listener.hostname)
    return any(intersect_hostnames(hostname, normal_hostname(name)) is not None for name in hostnames_of(route) or ("",))


def _check_http_rule(rule: HTTPRouteRule, path: Path) -> Iterator[Finding]:
    for number, match in enumerate(rule.matches):
        yield from _check_http_match(match, (*path, "matches", number))
    yield from _check_filters(rule.filters, path)
    if any(each.type == "RequestRedirect" for each in rule.filters) and rule.backend_refs:
        yield Finding((*path, "backendRefs"), "a rule that redirects has no backends")
    yield from _check_paths(rule, rule.filters, path)
    rewrites = any(each.url_rewrite and each.url_rewrite.path for each in rule.filters)
    for number, ref in enumerate(rule.backend_refs):
        at: Path = (*path, "backendRefs", number)
        yield from _check_paths(rule, ref.filters, at)
        for place, each in enumerate(ref.filters):
            change = each.request_redirect or each.url_rewrite
            if rewrites and change and change.path and change.path.type == "ReplacePrefixMatch":
                yield Finding((*at, "filters", place), "the rule rewrites the path already, and its prefix is not there any more")
    timeouts = rule.timeouts
    if timeouts and timeouts.request and timeouts.backend_request and timeouts.backend_request > timeouts.request:
        message = f"{timeouts.backend_request} is longer than the whole request's {timeouts.request}"
        yield Finding((*path, "timeouts", "backendRequest"), message)


def _check_session(session: SessionPersistence, path: Path) -> Iterator[Finding]:
    name = session.session_name
    if name is not None and (len(name) > _LONGEST_SESSION_NAME or not TOKEN.fullmatch(name)):
        message = f"'{name}' is not a name of a cookie or header, of at most {_LONGEST_SESSION_NAME} characters"
        yield Finding((*path, "sessionName"), message)
    elif name is not None and session.type == "Header" and (flaw := field_name_flaw(name, modified=True)):
        yield Finding((*path, "sessionName"), flaw)
    if session.cookie_config is not None and session.type == "Header":
        yield Finding((*path, "cookieConfig"), "is for sessions of type Cookie")
    elif session.cookie_config is not None and session.cookie_config.lifetime_type == "Permanent" and not session.absolute_timeout:
        yield Finding((*path, "cookieConfig", "lifetimeType"), "Permanent needs an absoluteTimeout, longer than 0s")


def _check_paths(rule: HTTPRouteRule, filters: tuple[HTTPRouteFilter, ...], path: Path) -> Iterator[Finding]:
    """Filters of a rule or of one of its backends beside each other, and beside the rule's matches."""
    if {"RequestRedirect", "URLRewrite"} <= {each.type for each in filters}:
        yield Finding((*path, "filters"), "RequestRedirect and URLRewrite exclude each other")
    if all(match.path.type == "PathPrefix" for match in rule.matches):
        return
    for number, each in enumerate(filters):
        for key, change in (("requestRedirect", each.request_redirect), ("urlRewrite", each.url_rewrite)):
            if change and change.path and change.path.type == "ReplacePrefixMatch":
                at: Path = (*path, "filters", number, key, "path", "type")
                yield Finding(at, "ReplacePrefixMatch needs every match of the rule to be a PathPrefix")


def _check_http_match(match: HTTPRouteMatch, path: Path) -> Iterator[Finding]:
    flaw = pattern_flaw(match.path.value) if match.path.type == "RegularExpression" else path_flaw(match.path.value)
    if flaw:
        yield Finding((*path, "path", "value"), flaw)
    yield from _check_header_matches(match.headers, path)
    seen = set()
    for number, parameter in enumerate(match.query_params):
        at: Path = (*path, "queryParams", number)
        if not TOKEN.fullmatch(parameter.name):
            yield Finding((*at, "name"), f"'{parameter.name}' is not a name of a query parameter")
        if parameter.name in seen:
            yield warning((*at, "name"), f"'{parameter.name}' stands twice; the first counts")
        seen.add(parameter.name)
        if parameter.type == "RegularExpression" and (flaw := pattern_flaw(parameter.value)):
            yield Finding((*at, "value"), flaw)


def _check_header_matches(headers: tuple[HeaderMatch, ...], path: Path) -> Iterator[Finding]:
    seen = set()
    for number, header in enumerate(headers):
        at: Path = (*path, "headers", number)
        if flaw := field_name_flaw(header.name):
            yield Finding((*at, "name"), flaw)
        if header.name.lower() in seen:
            yield warning((*at, "name"), f"'{header.name}' stands twice; the first counts")
        seen.add(header.name.lower())
        flaw = pattern_flaw(header.value) if header.type == "RegularExpression" else field_value_flaw(header.value)
        if flaw:
            yield Finding((*at, "value"), flaw)


def _check_grpc_rule(rule: GRPCRouteRule, path: Path) -> Iterator[Finding]:
    for number, match in enumerate(rule.matches):
        yield from _check_grpc_match(match, (*path, "matches", number))
    yield from _check_filters(rule.filters, path)


def _check_grpc_match(match: GRPCRouteMatch, path: Path) -> Iterator[Finding]:
    method = match.method
    if method is not None:
        if not method.service and not method.method:
            yield Finding((*path, "method"), "needs a service, a method or both")
        for key, value in (("service", method.service), ("method", method.method)):
            if not value:
                continue
            if method.type == "RegularExpression":
                if flaw := pattern_flaw(value):
                    yield Finding((*path, "method", key), flaw)
            elif not TOKEN.fullmatch(value):
                yield Finding((*path, "method", key), f"'{value}' is not a gRPC {key}")
    yield from _check_header_matches(match.headers, path)


def _check_filters(filters: tuple[AnyFilter, ...], path: Path, *, at_backend: bool = False) -> Iterator[Finding]:
    seen = set()
    for number, each in enumerate(filters):
        at: Path = (*path, "filters", number)
        if each.type in seen and each.type not in _REPEATED_FILTERS:
            yield Finding((*at, "type"), f"{each.type} stands twice")
        seen.add(each.type)
        for kind, field in _FILTER_KEYS.items():
            value = getattr(each, field, None)
            key = _camel(field)
            if kind == each.type and value is None:
                yield Finding(at, f"a filter of type {kind} needs '{key}'")
            elif kind != each.type and value is not None:
                yield Finding((*at, key), f"does not belong to a filter of type {each.type}", at_key=True)
            elif isinstance(value, HeaderModifier):
                yield from _check_modifier(value, (*at, key))
            elif isinstance(value, RequestMirror):
                yield from _check_mirror(value, (*at, key))
            elif isinstance(value, CORS):
                yield from _check_cors(value, (*at, key))
        if isinstance(each, HTTPRouteFilter):
            yield from _check_url_filter(each, at)
        if gap := filter_gap(each.type, at_backend=at_backend):
            yield Finding((*at, "type"), gap, drops=False)


def _check_modifier(modifier: HeaderModifier, path: Path) -> Iterator[Finding]:
    for key, headers in (("set", modifier.set), ("add", modifier.add)):
        seen = set()
        for number, header in enumerate(headers):
            at: Path = (*path, key, number)
            if flaw := field_name_flaw(header.name, modified=True):
                yield Finding((*at, "name"), flaw)
            if flaw := field_value_flaw(header.value):
                yield Finding((*at, "value"), flaw)
            if header.name.lower() in seen:
                yield Finding((*at, "name"), f"'{header.name}' stands twice in '{key}'")
            seen.add(header.name.lower())
    for number, name in enumerate(modifier.remove):
        if flaw := field_name_flaw(name, modified=True):
            yield Finding((*path, "remove", number), flaw)


def _check_mirror(mirror: RequestMirror, path: Path) -> Iterator[Finding]:
    if mirror.percent is not None and mirror.fraction is not None:
        yield Finding((*path, "fraction"), "stands beside percent; one of them says the share")
    if mirror.fraction is not None and mirror.fraction.numerator > mirror.fraction.denominator:
        yield Finding((*path, "fraction", "numerator"), "is larger than the denominator")


def _check_cors(cors: CORS, path: Path) -> Iterator[Finding]:
    for key, values in (
        ("allowOrigins", cors.allow_origins),
        ("allowMethods", cors.allow_methods),
        ("allowHeaders", cors.allow_headers),
        ("exposeHeaders", cors.expose_headers),
    ):
        if "*" in values and len(values) > 1 and key != "exposeHeaders":
            yield Finding((*path, key), "'*' stands alone: it is all there is")
        for number, value in enumerate(values):
            if key == "allowOrigins":
                flaw = origin_flaw(value)
            elif key == "allowMethods":
                flaw = None if value == "*" or value in _METHODS else f"'{value}' is not a method: {', '.join(_METHODS)} or *"
            else:
                flaw = None if TOKEN.fullmatch(value) else f"'{value}' is not a header field name"
            if flaw:
                yield Finding((*path, key, number), flaw)
    if not cors.allow_origins:
        yield warning(path, "allows no origin, so that pages of none can ask")


def _check_url_filter(each: HTTPRouteFilter, path: Path) -> Iterator[Finding]:
    for key, change in (("requestRedirect", each.request_redirect), ("urlRewrite", each.url_rewrite)):
        if change is None:
            continue
        if change.hostname is not None and (flaw := hostname_flaw(change.hostname, wildcard=False)):
            yield Finding((*path, key, "hostname"), flaw)
        if change.path is not None:
            yield from _check_path_modifier(change.path, (*path, key, "path"))


def _check_path_modifier(change: PathModifier, path: Path) -> Iterator[Finding]:
    full, prefix = change.replace_full_path, change.replace_prefix_match
    wanted, other, value, unwanted = "replaceFullPath", "replacePrefixMatch", full, prefix
    if change.type == "ReplacePrefixMatch":
        wanted, other, value, unwanted = other, wanted, prefix, full
    if value is None:
        yield Finding(path, f"type {change.type} needs '{wanted}'")
    elif (value or change.type == "ReplaceFullPath") and (flaw := path_flaw(value, what="path to write")):
        yield Finding((*path, wanted), flaw)
    if unwanted is not None:
        yield Finding((*path, other), f"does not belong to type {change.type}", at_key=True)


def _check_backends(refs: Sequence[AnyBackend], clusters: Set[str], broken: Set[str], path: Path, fate: str) -> Iterator[Finding]:
    weight = 0
    for number, ref in enumerate(refs):
        at: Path = (*path, "backendRefs", number)
        yield from _check_backend(ref, clusters, broken, at, fate)
        if isinstance(ref, HTTPBackendRef | GRPCBackendRef):
            yield from _check_filters(ref.filters, at, at_backend=True)
        weight += 1 if isinstance(ref, BackendObjectRef) else ref.weight
    if weight > _MOST_WEIGHT:
        yield Finding((*path, "backendRefs"), "the weights are too large together")


def _check_backend(ref: AnyBackend, clusters: Set[str], broken: Set[str], path: Path, fate: str) -> Iterator[Finding]:
    for key, is_foreign in (
        ("group", ref.group != ""),
        ("kind", ref.kind != "Service"),
        ("namespace", ref.namespace is not None),
        ("port", ref.port is not None),
    ):
        if is_foreign:
            message = f"is for objects of the API server; a backend of a file is a cluster by name. Its {fate}"
            yield Finding((*path, key), message, drops=False, at_key=True)
            return
    if ref.name in broken and ref.name not in clusters:
        yield Finding((*path, "name"), f"cluster '{ref.name}' was left out; its {fate}", drops=False)
    elif ref.name not in clusters:
        yield Finding((*path, "name"), f"{absent('cluster', ref.name, clusters)}; its {fate}", drops=False)


def _camel(field: str) -> str:
    first, *rest = field.split("_")
    return first + "".join(word.capitalize() for word in rest)
