"""Filters: header modifiers, URL rewrite and redirect, run by the core over heads."""

from dataclasses import replace
from typing import Any

import pytest
from routing import Table, config, match, route, rule

from gateway._core import explain
from gateway._core.snapshot import load
from gateway.control.build import Backend, HeaderModifier, build
from gateway.control.compile import compile_model
from gateway.model import Listener
from gateway.model.route import HeaderModifier as HeaderModifierSpec
from gateway.model.route import HTTPHeader, HTTPRouteFilter, PathModifier, RequestRedirect, URLRewrite


def full(value: str) -> PathModifier:
    return PathModifier("ReplaceFullPath", replace_full_path=value)


def prefix(value: str) -> PathModifier:
    return PathModifier("ReplacePrefixMatch", replace_prefix_match=value)


def rewriting(path: PathModifier | None = None, hostname: str | None = None, on: str = "/foo") -> Table:
    spec = HTTPRouteFilter("URLRewrite", url_rewrite=URLRewrite(hostname=hostname, path=path))
    return Table(route("r", rule(match(on), filters=(spec,))))


def redirecting(on: str = "/", listener_port: int = 8080, **redirect: Any) -> Table:
    spec = HTTPRouteFilter("RequestRedirect", request_redirect=RequestRedirect(**redirect))
    listeners = (Listener(name="web", port=listener_port),)
    return Table(route("r", rule(match(on), filters=(spec,), to=())), listeners=listeners)


def modifying(on: str, **edits: Any) -> Table:
    modifier = HeaderModifierSpec(
        set=tuple(HTTPHeader(*pair) for pair in edits.get("set", ())),
        add=tuple(HTTPHeader(*pair) for pair in edits.get("add", ())),
        remove=tuple(edits.get("remove", ())),
    )
    if on == "request":
        return Table(route("r", rule(filters=(HTTPRouteFilter("RequestHeaderModifier", request_header_modifier=modifier),))))
    return Table(route("r", rule(filters=(HTTPRouteFilter("ResponseHeaderModifier", response_header_modifier=modifier),))))


# URL rewrite


@pytest.mark.parametrize(
    ("path", "matched", "replacement", "want"),
    [
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
        ("/foo", "/foo", "/xyz", "/xyz"),
        ("/foo/", "/foo", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo", "", "/bar"),
        ("/foo/", "/foo", "", "/"),
        ("/foo", "/foo", "", "/"),
        ("/foo/", "/foo", "/", "/"),
        ("/foo", "/foo", "/", "/"),
        ("/bar", "/", "/xyz", "/xyz/bar"),
        ("/", "/", "/xyz", "/xyz/"),
        ("/foo/a%20b", "/foo", "/x", "/x/a%20b"),
    ],
)
def test_replace_prefix_match_by_the_table_of_the_specification(path: str, matched: str, replacement: str, want: str) -> None:
    seen = rewriting(prefix(replacement), on=matched).preview(path)
    assert seen["path"] == want.encode()


def test_replace_full_path_keeps_the_query() -> None:
    seen = rewriting(full("/new/one")).preview("/foo/bar?a=1&b")
    assert (seen["path"], seen["query"]) == (b"/new/one", b"a=1&b")
    assert rewriting(full("/")).preview("/foo")["path"] == b"/"


def test_a_query_of_nothing_is_kept() -> None:
    assert rewriting(full("/x")).preview("/foo?")["query"] == b""
    assert rewriting(full("/x")).preview("/foo")["query"] is None


def test_HTTPRouteRewriteHost() -> None:
    seen = rewriting(hostname="one.example.org").preview("/foo", host="rewrite.example:8080")
    assert (seen["authority"], seen["host"], seen["path"]) == (b"one.example.org", b"one.example.org", b"/foo")


def test_host_and_path_are_rewritten_together() -> None:
    seen = rewriting(prefix("/v2"), hostname="one.example.org").preview("/foo/x", host="a.test")
    assert (seen["authority"], seen["path"]) == (b"one.example.org", b"/v2/x")


def test_options_asterisk_has_no_path_to_rewrite() -> None:
    assert rewriting(prefix("/v2"), on="/").preview("*", method="OPTIONS")["path"] == b"*"


@pytest.mark.parametrize("escape", ["/../secret", "/a/%2e%2e/../../secret", "/%2e%2e/secret"])
def test_item_57_a_rewritten_path_cannot_leave_its_prefix(escape: str) -> None:
    """Dot segments are resolved before the match, so none is left that a new prefix could expose."""
    table = rewriting(prefix("/safe/area"), on="/foo")
    assert table.facts(f"/foo{escape}")["route"] is None


@pytest.mark.parametrize("value", ["/a%2fb", "/a%5cb", "/a%00", "/..;/x"])
def test_item_57_a_rewritten_path_is_normalised_again(value: str) -> None:
    """A validated configuration holds none of these; the core refuses what it would have refused from a client all the same."""
    spec = HTTPRouteFilter("URLRewrite", url_rewrite=URLRewrite(path=full(value)))
    assert Table(route("r", rule(match("/foo"), filters=(spec,)))).preview("/foo") == {"fault": "path"}


# Redirect


def test_HTTPRouteRedirectHostAndStatus() -> None:
    seen = redirecting(hostname="example.org", status_code=301, listener_port=80).preview("/a?b=c", host="old.test")
    assert seen == {"status": 301, "location": b"http://example.org/a?b=c"}
    assert redirecting(hostname="example.org").preview("/")["status"] == 302


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_HTTPRoute303And307And308Redirect(status: int) -> None:
    assert redirecting(status_code=status).preview("/")["status"] == status


@pytest.mark.parametrize(
    ("redirect", "listener_port", "secure", "want"),
    [
        ({}, 80, False, b"http://a.test/p"),
        ({}, 8080, False, b"http://a.test:8080/p"),
        ({}, 443, True, b"https://a.test/p"),
        ({}, 8443, True, b"https://a.test:8443/p"),
        ({}, 443, False, b"http://a.test:443/p"),
        ({"scheme": "https"}, 80, False, b"https://a.test/p"),
        ({"scheme": "https"}, 8080, False, b"https://a.test/p"),
        ({"scheme": "http"}, 8443, True, b"http://a.test/p"),
        ({"port": 8083}, 80, False, b"http://a.test:8083/p"),
        ({"port": 80}, 8080, False, b"http://a.test/p"),
        ({"port": 443}, 8080, False, b"http://a.test:443/p"),
        ({"port": 443, "scheme": "https"}, 8080, False, b"https://a.test/p"),
        ({"port": 80, "scheme": "https"}, 8080, False, b"https://a.test:80/p"),
        ({"port": 65535}, 80, False, b"http://a.test:65535/p"),
        ({"hostname": "b.test", "port": 8}, 80, False, b"http://b.test:8/p"),
    ],
)
def test_HTTPRouteRedirectPortAndScheme(redirect: dict[str, Any], listener_port: int, secure: bool, want: bytes) -> None:
    """The port of another scheme is that scheme's own; default ports are not written."""
    assert redirecting(listener_port=listener_port, **redirect).preview("/p", host="a.test:99", secure=secure)["location"] == want


def test_HTTPRouteRedirectPath() -> None:
    assert redirecting(on="/old", path=prefix("/new"), listener_port=80).preview("/old/x?q", host="a.test")["location"] == (
        b"http://a.test/new/x?q"
    )
    assert redirecting(on="/old", path=full("/new"), listener_port=80).preview("/old/x?q", host="a.test")["location"] == (
        b"http://a.test/new?q"
    )
    assert (
        redirecting(on="/old", path=prefix("/"), listener_port=80).preview("/old", host="a.test")["location"] == b"http://a.test/"
    )


def test_a_redirect_without_any_host_is_relative() -> None:
    assert redirecting().preview("/p?q", host="")["location"] == b"/p?q"


def test_a_redirect_of_options_asterisk_goes_to_the_root() -> None:
    assert redirecting(listener_port=80).preview("*", method="OPTIONS", host="a.test")["location"] == b"http://a.test/"


def test_filters_run_in_order_until_the_redirect() -> None:
    edits = HTTPRouteFilter("RequestHeaderModifier", request_header_modifier=HeaderModifierSpec(set=(HTTPHeader("x", "1"),)))
    away = HTTPRouteFilter("RequestRedirect", request_redirect=RequestRedirect(hostname="b.test", port=80))
    seen = Table(route("r", rule(filters=(edits, away), to=()))).preview("/")
    assert seen["location"] == b"http://b.test/"


# Header modifiers


def test_HTTPRouteRequestHeaderModifier() -> None:
    table = modifying("request", set=[("X-Set", "new")], add=[("X-Add", "more"), ("x-fresh", "1")], remove=["X-Gone"])
    headers = (("x-set", "old"), ("X-SET", "older"), ("x-add", "first"), ("x-gone", "1"), ("X-GONE", "2"), ("accept", "*/*"))
    assert table.preview("/", headers=headers)["headers"] == [
        (b"x-add", b"first"),
        (b"accept", b"*/*"),
        (b"x-set", b"new"),
        (b"x-add", b"more"),
        (b"x-fresh", b"1"),
    ]


def test_set_comes_before_add_and_remove_comes_last() -> None:
    table = modifying("request", set=[("x", "set"), ("y", "set")], add=[("x", "added")], remove=["y"])
    assert table.preview("/", headers=(("x", "0"), ("y", "0")))["headers"] == [(b"x", b"set"), (b"x", b"added")]


def test_known_fields_are_modified_like_any_other() -> None:
    table = modifying("request", set=[("Cookie", "a=b")], remove=["user-agent"])
    headers = (("cookie", "x=y"), ("user-agent", "curl"), ("cookie", "z=1"))
    assert table.preview("/", headers=headers)["headers"] == [(b"cookie", b"a=b")]


def test_modifiers_of_one_direction_leave_the_other_alone() -> None:
    table = modifying("response", set=[("x", "1")])
    assert table.preview("/", headers=(("x", "0"),))["headers"] == [(b"x", b"0")]
    table = modifying("request", set=[("x", "1")])
    assert explain.preview_response(table.snapshot, 0, [(b"x", b"0")]) == [(b"x", b"0")]


def test_HTTPRouteResponseHeaderModifier() -> None:
    table = modifying("response", set=[("X-Set", "new")], add=[("x-add", "2")], remove=["Server", "x-absent"])
    fields = [(b"server", b"origin"), (b"x-set", b"old"), (b"x-add", b"1"), (b"date", b"now")]
    assert explain.preview_response(table.snapshot, 0, fields) == [
        (b"x-add", b"1"),
        (b"date", b"now"),
        (b"x-set", b"new"),
        (b"x-add", b"2"),
    ]


def test_the_host_can_be_set_and_never_removed() -> None:
    table = modifying("request", set=[("Host", "inner.test:81")])
    seen = table.preview("/", host="outer.test", headers=(("host", "outer.test"),))
    assert (seen["authority"], seen["host"]) == (b"inner.test:81", b"inner.test")
    assert modifying("request", remove=["Host"]).preview("/", host="a.test")["authority"] == b"a.test"
    assert modifying("request", set=[("host", "no host")]).preview("/", host="a.test") == {"fault": "authority"}


def test_a_backends_own_filters_are_kept_apart_from_the_rules() -> None:
    """HTTPRouteBackendRequestHeaderModifier: the records stand behind the backend, not behind the rule."""
    model = build_with_backend_filter()
    snapshot = load(compile_model(model).blob)
    counts = snapshot.counts_by_section
    assert (counts["filters"], counts["edits"]) == (1, 1)
    port = explain.port_ids(snapshot)[0][0]
    seen = explain.preview_request(snapshot, port, b"GET", b"a.test", b"/")
    assert seen is not None and seen["headers"] == []


def build_with_backend_filter() -> Any:
    model = build(config(route("r", rule())))
    one = model.routes[0]
    edits = HeaderModifier(on="request", set=(("x", "1"),), add=(), remove=())
    backends = (Backend(cluster="a", weight=1, filters=(edits,)),)
    rules = (replace(one.rules[0], backends=backends),)
    return replace(model, routes=(replace(one, rules=rules),))


def test_a_head_grows_as_far_as_its_filters_need() -> None:
    many = [(f"x-{number}", "v" * 4000) for number in range(64)]
    seen = modifying("request", add=many).preview("/" + "p" * 8000)
    assert len(seen["headers"]) == 64
    assert all(value == b"v" * 4000 for _, value in seen["headers"])
    assert seen["path"] == b"/" + b"p" * 8000
