"""Routes: the specs of Gateway API's HTTPRoute, GRPCRoute, TLSRoute and TCPRoute, word for word.

The *Spec structs decode both the entries of a file and the `spec` of the API server's objects; HTTPRoute, GRPCRoute, TLSRoute and
TCPRoute add what only a file says: the name, the kind and the listeners by name.
"""

from typing import Annotated, Literal

from msgspec import Meta

from gateway.model.scalars import Doc, Duration, Part, PortNumber

MatchType = Literal["Exact", "RegularExpression"]
Weight = Annotated[int, Meta(ge=0, le=1_000_000)]


class ParentRef(Part, frozen=True):
    """What a route attaches to. In a file `sectionName` is a listener's name and `port` a listener's port."""

    name: str
    group: str = "gateway.networking.k8s.io"
    kind: str = "Gateway"
    namespace: str | None = None
    section_name: str | None = None
    port: PortNumber | None = None


class ObjectRef(Part, frozen=True):
    """Some other object, by name."""

    group: str
    kind: str
    name: str


class PathMatch(Part, frozen=True):
    """How the path must look. A prefix ends at an element: /abc takes /abc/d and not /abcd."""

    type: Literal["Exact", "PathPrefix", "RegularExpression"] = "PathPrefix"
    value: str = "/"


class HeaderMatch(Part, frozen=True):
    """A header field that must be there, with this value."""

    name: str
    value: str
    type: MatchType = "Exact"


class QueryParamMatch(Part, frozen=True):
    """A query parameter that must be there, with this value."""

    name: str
    value: str
    type: MatchType = "Exact"


HTTPMethod = Literal["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]


class HTTPRouteMatch(Part, frozen=True):
    """Conditions that must all hold."""

    path: PathMatch = PathMatch()
    headers: tuple[HeaderMatch, ...] = ()
    query_params: tuple[QueryParamMatch, ...] = ()
    method: HTTPMethod | None = None


class HTTPHeader(Part, frozen=True):
    """A field to set or to add."""

    name: str
    value: str


class HeaderModifier(Part, frozen=True):
    """Changes to header fields: first set, then add, then remove."""

    set: tuple[HTTPHeader, ...] = ()
    add: tuple[HTTPHeader, ...] = ()
    remove: tuple[str, ...] = ()


class PathModifier(Part, frozen=True):
    """A new path, or a new prefix in the place of the one that matched."""

    type: Literal["ReplaceFullPath", "ReplacePrefixMatch"]
    replace_full_path: str | None = None
    replace_prefix_match: str | None = None


class RequestRedirect(Part, frozen=True):
    """The answer sends the client elsewhere; what is left out stays as it was asked for."""

    scheme: Literal["http", "https"] | None = None
    hostname: str | None = None
    path: PathModifier | None = None
    port: PortNumber | None = None
    status_code: Literal[301, 302, 303, 307, 308] = 302


class URLRewrite(Part, frozen=True):
    """Host and path that the backend sees."""

    hostname: str | None = None
    path: PathModifier | None = None


class Fraction(Part, frozen=True):
    """A share, as numerator and denominator."""

    numerator: Annotated[int, Meta(ge=0)]
    denominator: Annotated[int, Meta(ge=1)] = 100


class BackendObjectRef(Part, frozen=True):
    """A backend without a weight. In a file `name` is a cluster's name and the rest is left out."""

    name: str
    group: str = ""
    kind: str = "Service"
    namespace: str | None = None
    port: PortNumber | None = None


class RequestMirror(Part, frozen=True):
    """A copy of the request for another backend, whose answer nobody waits for."""

    backend_ref: BackendObjectRef
    percent: Annotated[int, Meta(ge=0, le=100)] | None = None
    fraction: Fraction | None = None


class CORS(Part, frozen=True):
    """Cross-origin rules that the gateway answers for."""

    allow_origins: tuple[str, ...] = ()
    allow_credentials: bool = False
    allow_methods: tuple[str, ...] = ()
    allow_headers: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    max_age: Annotated[int, Meta(ge=1)] = 5


class GRPCAuth(Part, frozen=True):
    """External authorization over gRPC."""

    allowed_headers: tuple[str, ...] = ()


class HTTPAuth(Part, frozen=True):
    """External authorization over HTTP."""

    path: str = ""
    allowed_headers: tuple[str, ...] = ()
    allowed_response_headers: tuple[str, ...] = ()


class ForwardBody(Part, frozen=True):
    """How much of a request's content an authorization service is shown."""

    max_size: Annotated[int, Meta(ge=0)] = 0


class ExternalAuth(Part, frozen=True):
    """A service that is asked whether a request may pass."""

    protocol: Literal["HTTP", "GRPC"]
    backend_ref: BackendObjectRef
    grpc: GRPCAuth | None = None
    http: HTTPAuth | None = None
    forward_body: ForwardBody | None = None


class HTTPRouteFilter(Part, frozen=True):
    """One filter: `type` says which, and the key of the same name says how."""

    type: Literal[
        "RequestHeaderModifier",
        "ResponseHeaderModifier",
        "RequestMirror",
        "RequestRedirect",
        "URLRewrite",
        "CORS",
        "ExternalAuth",
        "ExtensionRef",
    ]
    request_header_modifier: HeaderModifier | None = None
    response_header_modifier: HeaderModifier | None = None
    request_mirror: RequestMirror | None = None
    request_redirect: RequestRedirect | None = None
    url_rewrite: Annotated[URLRewrite | None, Doc("For type URLRewrite")] = None
    cors: CORS | None = None
    external_auth: ExternalAuth | None = None
    extension_ref: ObjectRef | None = None


class HTTPBackendRef(Part, frozen=True):
    """A backend and its share. In a file `name` is a cluster's name and group, kind, namespace and port are left out."""

    name: str
    group: str = ""
    kind: str = "Service"
    namespace: str | None = None
    port: PortNumber | None = None
    weight: Annotated[Weight, Doc("Share of the rule's requests: weight / sum of the weights")] = 1
    filters: tuple[HTTPRouteFilter, ...] = ()


class Timeouts(Part, frozen=True):
    """How long; 0s is no timeout. Past it the client is answered 504."""

    request: Annotated[Duration, Doc("The whole exchange, retries included")] | None = None
    backend_request: Annotated[Duration, Doc("One attempt")] | None = None


class Retry(Part, frozen=True):
    """When a failed attempt is tried again."""

    codes: Annotated[tuple[Annotated[int, Meta(ge=400, le=599)], ...], Doc("Status codes of a backend that are tried again")] = ()
    attempts: Annotated[int, Meta(ge=0, le=100), Doc("Tries beyond the first")] | None = None
    backoff: Annotated[Duration, Doc("Least time between two tries")] | None = None


class CookieConfig(Part, frozen=True):
    """How long a session's cookie lives."""

    lifetime_type: Literal["Permanent", "Session"] = "Session"


class SessionPersistence(Part, frozen=True):
    """Requests of one session stay with one backend."""

    session_name: str | None = None
    absolute_timeout: Duration | None = None
    type: Literal["Cookie", "Header"] = "Cookie"
    cookie_config: CookieConfig | None = None


class HTTPRouteRule(Part, frozen=True):
    """Matches (any of them), filters (in order) and backends (by weight)."""

    name: str | None = None
    matches: tuple[HTTPRouteMatch, ...] = ()
    filters: tuple[HTTPRouteFilter, ...] = ()
    backend_refs: tuple[HTTPBackendRef, ...] = ()
    timeouts: Timeouts | None = None
    retry: Retry | None = None
    session_persistence: SessionPersistence | None = None
    rate_limits: Annotated[tuple[str, ...], Doc("Names of rateLimits that count the rule's requests")] = ()


class HTTPRouteSpec(Part, frozen=True):
    """Spec of a Gateway API HTTPRoute."""

    parent_refs: tuple[ParentRef, ...] = ()
    hostnames: Annotated[tuple[str, ...], Doc("Exact or *.suffix; none: every host of the listener")] = ()
    rules: tuple[HTTPRouteRule, ...] = (HTTPRouteRule(),)
    use_default_gateways: Literal["All", "None"] | None = None


class GRPCMethodMatch(Part, frozen=True):
    """The service and the method of a call; what is left out is any."""

    type: MatchType = "Exact"
    service: str | None = None
    method: str | None = None


class GRPCRouteMatch(Part, frozen=True):
    """Conditions that must all hold."""

    method: GRPCMethodMatch | None = None
    headers: tuple[HeaderMatch, ...] = ()


class GRPCRouteFilter(Part, frozen=True):
    """One filter: `type` says which, and the key of the same name says how."""

    type: Literal["RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "ExtensionRef"]
    request_header_modifier: HeaderModifier | None = None
    response_header_modifier: HeaderModifier | None = None
    request_mirror: RequestMirror | None = None
    extension_ref: ObjectRef | None = None


class GRPCBackendRef(Part, frozen=True):
    """A backend and its share."""

    name: str
    group: str = ""
    kind: str = "Service"
    namespace: str | None = None
    port: PortNumber | None = None
    weight: Weight = 1
    filters: tuple[GRPCRouteFilter, ...] = ()


class GRPCRouteRule(Part, frozen=True):
    """Matches (any of them), filters (in order) and backends (by weight)."""

    name: str | None = None
    matches: tuple[GRPCRouteMatch, ...] = ()
    filters: tuple[GRPCRouteFilter, ...] = ()
    backend_refs: tuple[GRPCBackendRef, ...] = ()
    session_persistence: SessionPersistence | None = None
    rate_limits: tuple[str, ...] = ()


class GRPCRouteSpec(Part, frozen=True):
    """Spec of a Gateway API GRPCRoute."""

    parent_refs: tuple[ParentRef, ...] = ()
    hostnames: tuple[str, ...] = ()
    rules: tuple[GRPCRouteRule, ...] = ()
    use_default_gateways: Literal["All", "None"] | None = None


class BackendRef(Part, frozen=True):
    """A backend and its share, without filters."""

    name: str
    group: str = ""
    kind: str = "Service"
    namespace: str | None = None
    port: PortNumber | None = None
    weight: Weight = 1


class TLSRouteRule(Part, frozen=True):
    """Where connections go."""

    name: str | None = None
    backend_refs: tuple[BackendRef, ...] = ()


class TLSRouteSpec(Part, frozen=True):
    """Spec of a Gateway API TLSRoute: connections by SNI."""

    parent_refs: tuple[ParentRef, ...] = ()
    hostnames: Annotated[tuple[str, ...], Doc("Exact or *.suffix; at least one")] = ()
    rules: Annotated[tuple[TLSRouteRule, ...], Doc("One rule")] = ()
    use_default_gateways: Literal["All", "None"] | None = None


class TCPRouteRule(Part, frozen=True):
    """Where connections go."""

    name: str | None = None
    backend_refs: tuple[BackendRef, ...] = ()


class TCPRouteSpec(Part, frozen=True):
    """Spec of a Gateway API TCPRoute: every connection of a listener."""

    parent_refs: tuple[ParentRef, ...] = ()
    rules: Annotated[tuple[TCPRouteRule, ...], Doc("One rule")] = ()
    use_default_gateways: Literal["All", "None"] | None = None


Created = Annotated[str, Doc("Time of creation, RFC 3339 in UTC: of routes that match alike the oldest answers; empty: before all")]


class HTTPRoute(HTTPRouteSpec, frozen=True, kw_only=True, tag_field="kind", tag="HTTPRoute"):
    """An HTTPRoute of a file. It is what a route is when `kind` is left out."""

    name: Annotated[str, Doc("Stands once in the configuration")]
    listeners: Annotated[tuple[str, ...], Doc("Names of listeners; none: every HTTP and HTTPS listener")] = ()
    created: Created = ""
    rate_limits: Annotated[tuple[str, ...], Doc("Names of rateLimits that count the requests of all its rules")] = ()


class GRPCRoute(GRPCRouteSpec, frozen=True, kw_only=True, tag_field="kind", tag="GRPCRoute"):
    """A GRPCRoute of a file."""

    name: Annotated[str, Doc("Stands once in the configuration")]
    listeners: Annotated[tuple[str, ...], Doc("Names of listeners; none: every HTTP and HTTPS listener")] = ()
    created: Created = ""
    rate_limits: Annotated[tuple[str, ...], Doc("Names of rateLimits that count the requests of all its rules")] = ()


class TLSRoute(TLSRouteSpec, frozen=True, kw_only=True, tag_field="kind", tag="TLSRoute"):
    """A TLSRoute of a file."""

    name: Annotated[str, Doc("Stands once in the configuration")]
    listeners: Annotated[tuple[str, ...], Doc("Names of listeners; none: every TLS listener")] = ()
    alpn: Annotated[tuple[str, ...], Doc("Protocols, such as h2, of which a client offers one; none: whatever it offers")] = ()
    created: Created = ""


class TCPRoute(TCPRouteSpec, frozen=True, kw_only=True, tag_field="kind", tag="TCPRoute"):
    """A TCPRoute of a file."""

    name: Annotated[str, Doc("Stands once in the configuration")]
    listeners: Annotated[tuple[str, ...], Doc("Names of listeners; none: every one of protocol TCP, or TLS with tls")] = ()
    created: Created = ""


Route = HTTPRoute | GRPCRoute | TLSRoute | TCPRoute
ROUTE_KINDS: dict[str, type[HTTPRoute] | type[GRPCRoute] | type[TLSRoute] | type[TCPRoute]] = {
    "HTTPRoute": HTTPRoute,
    "GRPCRoute": GRPCRoute,
    "TLSRoute": TLSRoute,
    "TCPRoute": TCPRoute,
}
ROUTE_PROTOCOLS: dict[str, tuple[str, ...]] = {
    "HTTPRoute": ("HTTP", "HTTPS"),
    "GRPCRoute": ("HTTP", "HTTPS"),
    "TLSRoute": ("TLS",),
    "TCPRoute": ("TCP",),
}
"""Protocols of the listeners that take a kind of route."""


def takes(kind: str, protocol: str, ends_tls: bool) -> bool:
    """Whether a listener takes a kind of route. What comes out of TLS that ends here is a connection as others are."""
    return protocol in ROUTE_PROTOCOLS[kind] or (kind == "TCPRoute" and protocol == "TLS" and ends_tls)


def hostnames_of(route: Route) -> tuple[str, ...]:
    """The route's hostnames as written; a TCPRoute has none."""
    return () if isinstance(route, TCPRoute) else route.hostnames


def asks_for(route: Route, listener: str, port: int) -> bool:
    """Whether the route wants the listener of this name and port: by name, by parentRef, or by asking for none in particular."""
    if route.listeners:
        return listener in route.listeners
    if route.parent_refs:
        return any(ref.section_name in (None, listener) and ref.port in (None, port) for ref in route.parent_refs)
    return True
