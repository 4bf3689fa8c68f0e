"""A GRPCRoute in the terms of an HTTPRoute."""

import pytest

from gateway.control.grpc import http_rule
from gateway.model.route import (
    GRPCBackendRef,
    GRPCMethodMatch,
    GRPCRouteFilter,
    GRPCRouteMatch,
    GRPCRouteRule,
    HeaderModifier,
    HTTPHeader,
)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        (GRPCMethodMatch(service="a.B", method="C"), ("Exact", "/a.B/C")),
        (GRPCMethodMatch(service="a.B"), ("PathPrefix", "/a.B")),
        (GRPCMethodMatch(method="C"), ("RegularExpression", "/[^/]+/C")),
        (GRPCMethodMatch(method="C.d"), ("RegularExpression", r"/[^/]+/C\.d")),
        (GRPCMethodMatch(type="RegularExpression", service="a|b"), ("RegularExpression", "/(?:a|b)/[^/]+")),
        (GRPCMethodMatch(type="RegularExpression", method="G.*"), ("RegularExpression", "/[^/]+/(?:G.*)")),
        (None, ("PathPrefix", "/")),
    ],
)
def test_a_call_is_a_post_to_service_and_method(method: GRPCMethodMatch | None, path: tuple[str, str]) -> None:
    (match,) = http_rule(GRPCRouteRule(matches=(GRPCRouteMatch(method=method),))).matches
    assert (match.path.type, match.path.value) == path and match.method == "POST"


def test_without_matches_every_call_matches() -> None:
    (match,) = http_rule(GRPCRouteRule()).matches
    assert (match.path.value, match.method) == ("/", "POST")


def test_filters_and_backends_stay_what_they_are() -> None:
    change = GRPCRouteFilter(type="RequestHeaderModifier", request_header_modifier=HeaderModifier(set=(HTTPHeader("a", "b"),)))
    rule = http_rule(GRPCRouteRule(name="n", filters=(change,), backend_refs=(GRPCBackendRef("app", weight=7, filters=(change,)),)))
    (backend,) = rule.backend_refs
    assert rule.name == "n" and rule.filters[0].request_header_modifier == change.request_header_modifier
    assert (backend.name, backend.weight, backend.filters[0].type) == ("app", 7, "RequestHeaderModifier")
