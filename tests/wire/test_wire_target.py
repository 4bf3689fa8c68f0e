"""Target, Host and path: checklist items 27 to 33 and 57. What was matched is what is forwarded, and there is one host."""

import pytest
from conftest import Connect
from wirebench import Origin, forwarded, is_refused, passes

CONFIG = """
listeners:
  - {name: web, port: 8080}
routes:
  - name: all
    rules:
      - matches: [{path: {type: PathPrefix, value: /}}]
        backendRefs: [{name: site}]
  - name: inner
    hostnames: [inner.test]
    rules:
      - matches: [{path: {type: PathPrefix, value: /open}}]
        backendRefs: [{name: site}]
      - matches: [{path: {type: PathPrefix, value: /strip/me}}]
        filters:
          - {type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}
        backendRefs: [{name: site}]
      - filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplaceFullPath, replaceFullPath: /open}}}]
clusters:
  - {name: site, endpoints: ["127.0.0.1:1"]}
"""


def target(text: str, host: str = "a.test", method: str = "GET") -> str:
    return f"{method} {text} HTTP/1.1\r\nHost: {host}\r\n\r\n"


def test_item_27_a_host_is_needed(connect: Connect, site: Origin) -> None:
    is_refused(connect, site, "GET / HTTP/1.1\r\n\r\n")
    is_refused(connect, site, "GET / HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n")
    is_refused(connect, site, "GET / HTTP/1.1\r\nHost: a.test\r\nhOST: b.test\r\n\r\n")
    is_refused(connect, site, "GET / HTTP/1.0\r\nHost: a.test\r\nHost: b.test\r\n\r\n")


@pytest.mark.parametrize(
    "host",
    [
        "a.test, b.test",
        "a.test,b.test",
        "user@a.test",
        "user:pw@a.test",
        "[::1",
        "::1]",
        "[::1]x",
        "[::g]",
        "[]",
        "::1",
        "a.test:",
        "a.test:0",
        "a.test:65536",
        "a.test:80x",
        "a.test:-1",
        "a.test:080",
        "a.test/",
        "a.test/x",
        "a.test?x",
        "a.test#x",
        "a test",
        "a..test",
        ".a.test",
        "a.test:80:80",
        "a%2etest",
        "a\\test",
        "http://a.test",
        "a\x80.test",
        "*",
        "a" * 256,
        "a.test;b",
    ],
)
def test_item_27_a_host_that_is_none(connect: Connect, site: Origin, host: str) -> None:
    is_refused(connect, site, target("/", host))


@pytest.mark.parametrize("host", ["A.Test", "a.test.", "a.test:8080", "127.0.0.1", "[::1]:80", "[2001:DB8::1]", "a_b-c.test", "x"])
def test_item_27_hosts_as_they_are(connect: Connect, site: Origin, host: str) -> None:
    passes(connect, site, target("/", host), forwarded("GET / HTTP/1.1", f"host: {host}"))


def test_item_27_an_empty_host_is_allowed(connect: Connect, site: Origin) -> None:
    passes(connect, site, "GET / HTTP/1.1\r\nHost:\r\n\r\n", forwarded("GET / HTTP/1.1", "host: "))


def test_item_28_absolute_form(connect: Connect, site: Origin) -> None:
    """The authority of the target routes and is forwarded; a Host that says something else is refused."""
    expected = forwarded("GET /x?y HTTP/1.1", "host: a.test")
    passes(connect, site, target("http://a.test/x?y"), expected)
    passes(connect, site, target("HTTP://a.test/x?y"), expected)
    passes(connect, site, target("http://a.test/x?y", "A.TEST:80"), expected)
    passes(connect, site, target("http://a.test"), forwarded("GET / HTTP/1.1", "host: a.test"))
    passes(connect, site, target("http://a.test?q"), forwarded("GET /?q HTTP/1.1", "host: a.test"))
    for host in ("b.test", "a.test:81", "a.test.evil", "", "a.test@b.test"):
        is_refused(connect, site, target("http://a.test/", host))
    is_refused(connect, site, "GET http://a.test/ HTTP/1.1\r\n\r\n")
    # routed by the authority: on inner.test everything but /open is sent away
    passes(connect, site, target("http://inner.test/open", "inner.test"), forwarded("GET /open HTTP/1.1", "host: inner.test"))
    client = connect()
    client.send(target("http://inner.test/closed", "inner.test"))
    assert client.answer().status == 302
    site.untouched()


@pytest.mark.parametrize(
    "text",
    [
        "http://",
        "http:///x",
        "http://?x",
        "http:/a.test/",
        "http:a.test",
        "ftp://a.test/",
        "http://u@a.test/",
        "http://a.test:0/",
        "http://a.test:99999/",
        "http://a.test\\/",
        "http://[::1/",
        "//http://a.test\\@b.test/",
        "https:/a.test",
        "a.test/x",
    ],
)
def test_item_28_absolute_forms_that_are_none(connect: Connect, site: Origin, text: str) -> None:
    is_refused(connect, site, target(text))


def test_item_29_the_authority_ends_at_the_first_delimiter(connect: Connect, site: Origin) -> None:
    passes(connect, site, target("http://a.test/@b.test"), forwarded("GET /@b.test HTTP/1.1", "host: a.test"))
    passes(connect, site, target("http://a.test?@b.test/"), forwarded("GET /?@b.test/ HTTP/1.1", "host: a.test"))
    is_refused(connect, site, target("http://a.test#@b.test/"))
    is_refused(connect, site, target("http://b.test#@a.test/"))


@pytest.mark.parametrize("text", ["/#", "/a#b", "/a?b#c", "#", "http://a.test/#x"])
def test_item_30_a_fragment(connect: Connect, site: Origin, text: str) -> None:
    is_refused(connect, site, target(text))


def test_item_31_asterisk_and_connect(connect: Connect, site: Origin) -> None:
    for method in ("GET", "POST", "PURGE"):
        is_refused(connect, site, target("*", method=method))
    is_refused(connect, site, target("*/x"))
    is_refused(connect, site, target("*/x", method="OPTIONS"))
    is_refused(connect, site, target("a.test:443", "a.test:443", method="CONNECT"), 405)
    is_refused(connect, site, target("/", method="CONNECT"))
    is_refused(connect, site, target("a.test", method="CONNECT"))
    for text in ("*", "http://a.test"):
        client = connect()
        client.send(target(text, method="OPTIONS"))
        assert client.answer().status == 200
        client.kept()
    site.untouched()


@pytest.mark.parametrize("text", ["x", "x/y", "?x", "./", "../x", "%2f", "\\", "a.test:80", "@a.test/"])
def test_item_32_a_target_without_slash(connect: Connect, site: Origin, text: str) -> None:
    is_refused(connect, site, target(text))


def test_item_33_too_long(connect: Connect, site: Origin) -> None:
    client = connect()
    client.send(target("/" + "x" * 9000))
    client.refused(414)
    client = connect()
    client.send(target("/" + "x" * 100000)[:50000])
    client.refused(414)
    client = connect()
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n" + "".join(f"x{i}: y\r\n" for i in range(200)) + "\r\n")
    client.refused(431)
    client = connect()
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\nX: " + "y" * 40000)
    client.refused(431)
    site.untouched()
    most = "/" + "x" * (8192 - len("GET / HTTP/1.1"))
    client = connect()
    client.send(target(most))
    origin = site.accept()
    assert origin.request() == forwarded(f"GET {most} HTTP/1.1", "host: a.test")
    origin.ok()
    assert client.answer().status == 200


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/b/..", "/a/"),
        ("/a/.", "/a/"),
        ("//a///b", "/a/b"),
        ("/%2e/a", "/a"),
        ("/a/%2E%2e/b", "/b"),
        ("/a/.%2e/b", "/b"),
        ("/%61%7E%2D", "/a~-"),
        ("/a%20b%c3%a9", "/a%20b%C3%A9"),
        ("/a;b=c/d", "/a;b=c/d"),
        ("/...", "/..."),
        ("/a?b=/../%2f#"[:-1], "/a?b=/../%2f"),
        ("/%3F%23%25", "/%3F%23%25"),
    ],
)
def test_item_57_one_form_is_matched_and_forwarded(connect: Connect, site: Origin, text: str, path: str) -> None:
    passes(connect, site, target(text), forwarded(f"GET {path} HTTP/1.1", "host: a.test"))


@pytest.mark.parametrize(
    "text",
    [
        "/a%2fb",
        "/a%2Fb",
        "/a%5cb",
        "/a%00b",
        "/a\\b",
        "/a/..;x/b",
        "/a/.;/b",
        "/a/..%3b/b",
        "/%c0%ae/",
        "/%e0%80%af",
        "/%",
        "/%2",
        "/%zz",
        "/%2g",
        "/..",
        "/../a",
        "/a/../../b",
        "/%2e%2e/a",
        "/a\x80",
        "/a\x01",
        "/%c1%9c",
    ],
)
def test_item_57_paths_that_mean_two_things(connect: Connect, site: Origin, text: str) -> None:
    is_refused(connect, site, target(text))


def test_item_57_matching_sees_through_a_disguise(connect: Connect, site: Origin) -> None:
    for text in ("/open/../closed", "/open/%2e%2e/closed", "/./closed", "/Open", "/openx"):
        client = connect()
        client.send(target(text, "inner.test"))
        assert client.answer().status == 302
        client.kept()
    site.untouched()
    for text in ("/closed/../open/x", "//open/x", "/%6fpen/x", "/./open/x"):
        passes(connect, site, target(text, "inner.test"), forwarded("GET /open/x HTTP/1.1", "host: inner.test"))


def test_item_57_a_rewritten_path_is_looked_at_again(connect: Connect, site: Origin) -> None:
    passes(connect, site, target("/strip/me//x/./y", "inner.test"), forwarded("GET /x/y HTTP/1.1", "host: inner.test"))
    passes(connect, site, target("/strip/me", "inner.test"), forwarded("GET / HTTP/1.1", "host: inner.test"))
    client = connect()
    client.send(target("/strip/me/../../x", "inner.test"))
    assert client.answer().status == 302
    is_refused(connect, site, target("/strip/me/../../../x", "inner.test"))
