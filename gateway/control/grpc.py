"""A GRPCRoute as the HTTP that it is: POST to /service/method.

A match of a service alone is a prefix, one of a method alone a pattern; a pattern comes before a prefix, where Gateway API would
count the characters of the service first. Routes that match on methods alone are the only ones to notice.
"""

from gateway.model.route import (
    GRPCBackendRef,
    GRPCMethodMatch,
    GRPCRouteFilter,
    GRPCRouteMatch,
    GRPCRouteRule,
    HTTPBackendRef,
    HTTPRouteFilter,
    HTTPRouteMatch,
    HTTPRouteRule,
    PathMatch,
)

ANY = "[^/]+"


def http_rule(rule: GRPCRouteRule) -> HTTPRouteRule:
    """The same rule in the terms of an HTTPRoute."""
    return HTTPRouteRule(
        name=rule.name,
        matches=tuple(_match(each) for each in rule.matches or (GRPCRouteMatch(),)),
        filters=tuple(_filter(each) for each in rule.filters),
        backend_refs=tuple(_backend(each) for each in rule.backend_refs),
        session_persistence=rule.session_persistence,
        rate_limits=rule.rate_limits,
    )


def _match(match: GRPCRouteMatch) -> HTTPRouteMatch:
    return HTTPRouteMatch(path=_path(match.method or GRPCMethodMatch()), headers=match.headers, method="POST")


def _path(match: GRPCMethodMatch) -> PathMatch:
    service, method = match.service or "", match.method or ""
    if match.type == "RegularExpression":
        return PathMatch("RegularExpression", f"/{_group(service)}/{_group(method)}") if service or method else PathMatch()
    if service and method:
        return PathMatch("Exact", f"/{service}/{method}")
    if service:
        return PathMatch("PathPrefix", f"/{service}")
    return PathMatch("RegularExpression", f"/{ANY}/{_quote(method)}") if method else PathMatch()


def _group(pattern: str) -> str:
    return f"(?:{pattern})" if pattern else ANY


def _quote(text: str) -> str:
    """What is no letter, digit or _ is escaped, as RE2 takes it."""
    return "".join(c if c.isalnum() or c == "_" else f"\\{c}" for c in text)


def _filter(spec: GRPCRouteFilter) -> HTTPRouteFilter:
    return HTTPRouteFilter(
        type=spec.type,
        request_header_modifier=spec.request_header_modifier,
        response_header_modifier=spec.response_header_modifier,
        request_mirror=spec.request_mirror,
        extension_ref=spec.extension_ref,
    )


def _backend(ref: GRPCBackendRef) -> HTTPBackendRef:
    filters = tuple(_filter(each) for each in ref.filters)
    return HTTPBackendRef(ref.name, ref.group, ref.kind, ref.namespace, ref.port, ref.weight, filters)
