"""Grammars and normal forms of hostnames, header fields, paths and patterns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.names import (
    field_name_flaw,
    field_value_flaw,
    hostname_flaw,
    intersect_hostnames,
    normal_hostname,
    normal_path,
    normal_prefix,
    path_flaw,
    pattern_flaw,
)


@pytest.mark.parametrize("name", ["example.com", "a", "*.example.com", "Example.COM.", "a-b.c9", "xn--bcher-kva.example"])
def test_good_hostnames(name: str) -> None:
    assert hostname_flaw(name) is None


@pytest.mark.parametrize(
    "name",
    ["", ".", "*", "*.", "a.*.b", "*.*.b", "a*", "-a", "a-", "a..b", "a_b", "a:80", "a/b", "bücher", "a b", "x" * 64, "a." * 130],
)
def test_bad_hostnames(name: str) -> None:
    assert hostname_flaw(name)


def test_an_address_is_not_a_hostname() -> None:
    assert "IP address" in (hostname_flaw("127.0.0.1") or "")


def test_a_place_that_is_written_takes_no_wildcard() -> None:
    assert "wildcard" in (hostname_flaw("*.example.com", wildcard=False) or "")


@pytest.mark.parametrize(
    ("listener", "route", "both"),
    [
        ("", "", ""),
        ("", "a.example.com", "a.example.com"),
        ("a.example.com", "", "a.example.com"),
        ("a.example.com", "a.example.com", "a.example.com"),
        ("a.example.com", "b.example.com", None),
        ("*.example.com", "a.example.com", "a.example.com"),
        ("*.example.com", "a.b.example.com", "a.b.example.com"),
        ("*.example.com", "example.com", None),
        ("a.example.com", "*.example.com", "a.example.com"),
        ("example.com", "*.example.com", None),
        ("*.example.com", "*.a.example.com", "*.a.example.com"),
        ("*.a.example.com", "*.example.com", "*.a.example.com"),
        ("*.example.com", "*.example.com", "*.example.com"),
        ("*.example.com", "*.example.org", None),
        ("*.example.com", "*.badexample.com", None),
        ("*.example.com", "aexample.com", None),
    ],
)
def test_hostname_intersection(listener: str, route: str, both: str | None) -> None:
    """HTTPRouteHostnameIntersection: a wildcard takes every name below it and not the name itself."""
    assert intersect_hostnames(listener, route) == both


NAMES = st.sampled_from(["", "a.x", "b.a.x", "*.x", "*.a.x", "x", "*.b.a.x", "ba.x"])


@given(NAMES, NAMES)
def test_intersection_has_no_side(one: str, other: str) -> None:
    assert intersect_hostnames(one, other) == intersect_hostnames(other, one)


@given(NAMES, NAMES, st.sampled_from(["x", "a.x", "b.a.x", "c.b.a.x", "ba.x", "y"]))
def test_intersection_takes_exactly_what_both_take(one: str, other: str, host: str) -> None:
    def takes(name: str | None) -> bool:
        return name is not None and (not name or name == host or (name[0] == "*" and host.endswith(name[1:])))

    assert takes(intersect_hostnames(one, other)) == (takes(one) and takes(other))


def test_hostnames_are_lower_case_without_the_last_dot() -> None:
    assert normal_hostname("*.Example.COM.") == "*.example.com"


@pytest.mark.parametrize(
    "name", ["Host", "content-length", "Transfer-Encoding", "connection", "TE", "upgrade", "keep-alive", "trailer"]
)
def test_no_filter_touches_what_frames_a_message(name: str) -> None:
    assert field_name_flaw(name) is None, "it may be matched"
    assert field_name_flaw(name, modified=True)


@pytest.mark.parametrize("name", ["", "a b", "a:", "é", "a\r\n", "(x)"])
def test_a_field_name_is_a_token(name: str) -> None:
    assert field_name_flaw(name)


@pytest.mark.parametrize("value", ["", " a", "a ", "a\r\nb: c", "a\0", "é", "a  b", "x" * 4097])
def test_bad_field_values(value: str) -> None:
    assert field_value_flaw(value)


def test_good_field_values() -> None:
    assert field_value_flaw("max-age=31536000; includeSubDomains") is None


@pytest.mark.parametrize("path", ["/", "/a/b", "/a/", "/a;v=1", "/%20", "/~user", "/a%7Eb", "/.well-known/x", "/..a"])
def test_good_paths(path: str) -> None:
    assert path_flaw(path) is None


@pytest.mark.parametrize(
    "path",
    [
        "",
        "a",
        "/a//b",
        "/./a",
        "/a/..",
        "/%2e%2e/a",
        "/a%2Fb",
        "/a%5cb",
        "/%00",
        "/a?b",
        "/a#b",
        "/a b",
        "/%zz",
        "/é",
        "/a\\b",
        "/..;a",
        "/" + "x" * 1024,
    ],
)
def test_paths_that_no_request_can_have(path: str) -> None:
    """Checklist item 57: what is matched is what is forwarded, in one normal form."""
    assert path_flaw(path)


def test_the_normal_form_of_a_path_is_the_core_s() -> None:
    assert normal_path("/a%7Eb%2d%41%20") == "/a~b-A%20"
    assert [normal_prefix(path) for path in ("/", "/a", "/a/", "/a/b//")] == ["", "/a", "/a", "/a/b"]


@pytest.mark.parametrize("pattern", ["(", "a{1001}", r"(?=x)", r"\1", "x" * 1025])
def test_patterns_that_re2_refuses(pattern: str) -> None:
    assert pattern_flaw(pattern)


def test_patterns_that_re2_takes() -> None:
    assert pattern_flaw("/v[0-9]+/.*") is None
