"""`isthmus route`: which rule answers and why the others do not."""

from typing import Any

import pytest

from gateway._core.snapshot import load
from gateway.control.build import build
from gateway.control.compile import compile_model
from gateway.control.explain import Explanation, explain_model, explain_request
from gateway.model import Cluster, Config, HTTPRoute, Listener
from gateway.model.route import (
    HeaderMatch,
    HeaderModifier,
    HTTPBackendRef,
    HTTPHeader,
    HTTPRouteFilter,
    HTTPRouteMatch,
    HTTPRouteRule,
    PathMatch,
    PathModifier,
    QueryParamMatch,
    RequestRedirect,
    URLRewrite,
)

TO = (HTTPBackendRef(name="a"),)


def one(path: str, kind: Any = "PathPrefix", filters: tuple[HTTPRouteFilter, ...] = (), **conditions: Any) -> HTTPRouteRule:
    redirects = any(each.type == "RequestRedirect" for each in filters)
    match = HTTPRouteMatch(path=PathMatch(kind, path), **conditions)
    return HTTPRouteRule(matches=(match,), filters=filters, backend_refs=() if redirects else TO)


def shop() -> Config:
    modifier = HeaderModifier(set=(HTTPHeader("x-gateway", "isthmus"),))
    edit = HTTPRouteFilter("RequestHeaderModifier", request_header_modifier=modifier)
    rewrite = HTTPRouteFilter("URLRewrite", url_rewrite=URLRewrite("in.test", PathModifier("ReplacePrefixMatch", None, "/v2")))
    away = HTTPRouteFilter("RequestRedirect", request_redirect=RequestRedirect(path=PathModifier("ReplaceFullPath", "/new")))
    canary = (HeaderMatch("x-canary", "1"),)
    version = (QueryParamMatch("v", "2|3", "RegularExpression"),)
    rules = (
        one("/api", filters=(edit, rewrite), method="GET", headers=canary, query_params=version),
        one("/api", method="GET"),
        one("/old", "Exact", filters=(away,)),
        one("/img/.*", "RegularExpression"),
        one("/"),
    )
    listeners = (Listener(name="web", port=8080), Listener(name="wild", port=8080, hostname="*.example.com"))
    routes = (
        HTTPRoute(name="shop", hostnames=("shop.example.com",), rules=rules),
        HTTPRoute(name="all", hostnames=("*.example.com",), rules=(one("/"),)),
        HTTPRoute(name="zeta", hostnames=("shop.example.com",), rules=(one("/"),)),
    )
    return Config(listeners=listeners, routes=routes, clusters=(Cluster(name="a"),))


def ask(path: str, host: str = "shop.example.com", **request: Any) -> Explanation:
    return explain_model(build(shop()), host, path, **request)


def reasons(explanation: Explanation) -> dict[str, str]:
    return {f"{each.condition.route}/{each.condition.rule}": each.reason for each in explanation.candidates}


def test_the_winner_and_why_the_others_are_not() -> None:
    found = ask("/api/x?v=2", headers=[("X-Canary", "1")])
    assert found.outcome == "answer"
    assert found.winner is not None and (found.winner.route, found.winner.rule) == ("shop", 0)
    assert found.message == "rule 0 of route 'shop' answers"
    assert (found.listener, found.port) == ("wild", "[::]:8080")
    assert reasons(found) == {
        "shop/0": "answers",
        "shop/1": "lower precedence: the winner names more headers (1 against 0)",
        "shop/2": "path does not match Exact /old",
        "shop/3": "path does not match RegularExpression /img/.*",
        "shop/4": "lower precedence: the PathPrefix /api is longer than /",
        "zeta/0": "lower precedence: the PathPrefix /api is longer than /",
        "all/0": "lower precedence: the host shop.example.com is more specific than *.example.com",
    }
    assert found.candidates[0].wins and sum(each.wins for each in found.candidates) == 1
    assert found.winner.text() == "GET shop.example.com PathPrefix /api header x-canary=1 query v~2|3"


def test_what_the_backend_would_see() -> None:
    found = ask("/api/x?v=2", headers=[("X-Canary", "1")])
    assert (found.authority, found.forwarded_path) == ("in.test", "/v2/x?v=2")
    assert found.forwarded_headers == (("x-canary", "1"), ("x-gateway", "isthmus"))
    assert found.status is None


@pytest.mark.parametrize(
    ("request_", "rule", "reason"),
    [
        ({"path": "/api?v=2"}, "shop/0", "header x-canary is not 1"),
        ({"path": "/api", "headers": [("x-canary", "2")]}, "shop/0", "header x-canary is not 1"),
        ({"path": "/api?v=4", "headers": [("x-canary", "1")]}, "shop/0", "query parameter v is not ~2|3"),
        ({"path": "/api", "method": "POST"}, "shop/1", "method does not match GET"),
        ({"path": "/api", "host": "x.example.com"}, "shop/1", "host does not match shop.example.com"),
        ({"path": "/"}, "zeta/0", "lower precedence: route 'shop' comes before 'zeta'"),
        ({"path": "/old"}, "shop/4", "lower precedence: Exact comes before PathPrefix"),
    ],
)
def test_the_reason_of_one_rule(request_: dict[str, Any], rule: str, reason: str) -> None:
    assert reasons(ask(**request_))[rule] == reason


def test_a_redirect_is_told_with_its_location() -> None:
    found = ask("/old?a=b")
    assert (found.status, found.location) == (302, "http://shop.example.com:8080/new?a=b")
    assert found.authority is None


def test_a_request_that_no_rule_takes() -> None:
    found = ask("/", host="other.test")
    assert (found.outcome, found.status, found.listener, found.winner) == ("no-route", 404, "web", None)
    assert found.message == "no rule of listener 'web' matches"
    assert set(reasons(found).values()) == {
        "host does not match shop.example.com",
        "host does not match *.example.com",
        "path does not match Exact /old",
    } - {"path does not match Exact /old"}


def test_a_request_that_no_listener_takes() -> None:
    config = Config(listeners=(Listener(name="only", port=80, hostname="only.test"),))
    found = explain_model(build(config), "other.test", "/")
    assert (found.outcome, found.status) == ("no-listener", 404)
    assert found.listeners == (("only", "only.test"),)
    assert "no listener of [::]:80 takes the host 'other.test'" in found.message


def test_a_request_that_is_refused_before_it_is_routed() -> None:
    for host, path, fault in (("a.test", "/a%2fb", "path"), ("a.test", "/a%zz", "path"), ("two hosts", "/", "authority")):
        found = ask(path, host=host)
        assert (found.outcome, found.status, found.candidates) == ("bad-request", 400, ())
        assert found.message == f"refused before it is routed: {fault}"


def test_ports_are_named_by_address_or_number() -> None:
    listeners = (Listener(name="one", port=81), Listener(name="two", address="127.0.0.1:82"))
    snapshot = load(compile_model(build(Config(listeners=listeners))).blob)
    assert explain_request(snapshot, "a.test", "/", port="82").listener == "two"
    assert explain_request(snapshot, "a.test", "/", port="[::]:81").listener == "one"
    found = explain_request(snapshot, "a.test", "/", port="83")
    assert found.outcome == "no-port"
    assert found.message == "nothing listens on '83'; there is: 127.0.0.1:82, [::]:81"


def test_a_path_is_taken_as_a_browser_would_send_it() -> None:
    found = ask("/API/caf\u00e9 au lait/%7Euser/./x")
    assert found.path == "/API/caf%C3%A9%20au%20lait/~user/x"


def test_hosts_and_paths_of_one_rank_are_decided_by_name() -> None:
    rules = (one("/a[bx]", "RegularExpression"), one("/[ax]b", "RegularExpression"), one("/ab.*", "RegularExpression"))
    config = Config(routes=(HTTPRoute(name="r", rules=rules),), clusters=(Cluster(name="a"),))
    found = explain_model(build(config), "any.test", "/ab")
    assert found.winner is not None and found.winner.path == "/[ax]b"
    assert reasons(found)["r/0"] == "lower precedence: /[ax]b comes before /a[bx] of the same length"
    assert reasons(found)["r/2"] == "lower precedence: the RegularExpression /[ax]b is longer than /ab.*"
