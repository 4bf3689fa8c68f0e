"""Which origin gets a request, and as what: hosts, paths, methods, fields, weights, filters, redirects, and what is not there."""

from collections import Counter

import pytest
from conftest import Connect
from wirebench import Client, Gateway, Origin, forwarded

CONFIG = """
listeners:
  - {name: web, port: 8080}
  - {name: inside, port: 8081}
  - {name: shop, port: 8082, hostname: "*.shop.test"}
  - {name: cart, port: 8082, hostname: cart.shop.test}
routes:
  - name: app
    listeners: [web]
    hostnames: [app.test]
    rules:
      - matches: [{path: {type: Exact, value: /exact}}]
        filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-rule, value: exact}]}}]
        backendRefs: [{name: site}]
      - matches: [{path: {type: PathPrefix, value: /exact}}]
        filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-rule, value: prefix}]}}]
        backendRefs: [{name: site}]
      - matches:
          - {path: {type: PathPrefix, value: /exact}, method: DELETE}
          - {path: {type: PathPrefix, value: /exact}, headers: [{name: x-canary, value: "1"}]}
          - {path: {type: PathPrefix, value: /exact}, queryParams: [{name: v, type: RegularExpression, value: "2|3"}]}
        filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-rule, value: special}]}}]
        backendRefs: [{name: site}]
      - matches: [{path: {type: PathPrefix, value: /edit}}]
        filters:
          - type: RequestHeaderModifier
            requestHeaderModifier: {set: [{name: x-set, value: new}], add: [{name: x-add, value: more}], remove: [x-secret]}
          - type: ResponseHeaderModifier
            responseHeaderModifier: {set: [{name: server, value: isthmus}], add: [{name: x-add, value: more}], remove: [x-secret]}
        backendRefs: [{name: site}]
      - matches: [{path: {type: PathPrefix, value: /api}}]
        filters:
          - {type: URLRewrite, urlRewrite: {hostname: inner.test, path: {type: ReplacePrefixMatch, replacePrefixMatch: /v2}}}
        backendRefs: [{name: site}]
      - matches: [{path: {type: PathPrefix, value: /full}}]
        filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /other}}}]
        backendRefs: [{name: site}]
      - matches: [{path: {type: PathPrefix, value: /weighted}}]
        backendRefs: [{name: site, weight: 3}, {name: second, weight: 1}, {name: site, weight: 0}]
      - matches: [{path: {type: PathPrefix, value: /missing}}]
        backendRefs: [{name: nobody}]
      - matches: [{path: {type: PathPrefix, value: /apart}}]
        backendRefs:
          - name: site
            filters:
              - {type: URLRewrite, urlRewrite: {hostname: apart.test, path: {type: ReplacePrefixMatch, replacePrefixMatch: /own}}}
      - matches: [{path: {type: PathPrefix, value: /elsewhere}}]
        backendRefs:
          - name: site
            filters: [{type: RequestRedirect, requestRedirect: {hostname: else.test, statusCode: 307}}]
      - matches: [{path: {type: PathPrefix, value: /go}}]
        filters: [{type: RequestRedirect, requestRedirect: {scheme: https, hostname: new.test, statusCode: 301}}]
      - matches: [{path: {type: PathPrefix, value: /move}}]
        filters:
          - type: RequestRedirect
            requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /moved}, port: 8443, statusCode: 308}
  - name: inside
    listeners: [inside]
    rules: [{backendRefs: [{name: second}]}]
  - name: shop
    listeners: [shop]
    rules: [{backendRefs: [{name: site}]}]
  - name: cart
    listeners: [cart]
    rules: [{matches: [{path: {type: PathPrefix, value: /cart}}], backendRefs: [{name: second}]}]
clusters:
  - {name: site, endpoints: ["127.0.0.1:1"]}
  - {name: second, endpoints: ["127.0.0.1:1"]}
"""
PROBLEMS = ["there is no cluster 'nobody'"]


def ask(client: Client, path: str, *fields: str, host: str = "app.test", method: str = "GET") -> None:
    client.send("".join(f"{line}\r\n" for line in (f"{method} {path} HTTP/1.1", f"Host: {host}", *fields, "")))


@pytest.mark.parametrize(
    ("method", "path", "fields", "rule"),
    [
        ("GET", "/exact", (), "exact"),
        ("GET", "/exact/", (), "prefix"),
        ("GET", "/exact/more?v=1", (), "prefix"),
        ("GET", "/exact/more?v=2", (), "special"),
        ("GET", "/exact/more?a=b&v=3", (), "special"),
        ("GET", "/exact/more?v=23", (), "prefix"),
        ("DELETE", "/exact/more", (), "special"),
        ("DELETE", "/exact", (), "exact"),
        ("GET", "/exact/more", ("X-Canary: 1",), "special"),
        ("GET", "/exact/more", ("x-canary: 10",), "prefix"),
    ],
)
def test_the_most_specific_match_wins(
    client: Client, site: Origin, method: str, path: str, fields: tuple[str, ...], rule: str
) -> None:
    ask(client, path, *fields, method=method)
    origin = site.accept()
    given = [line.lower() for line in fields]
    assert origin.request() == forwarded(f"{method} {path} HTTP/1.1", "host: app.test", *given, after=[f"x-rule: {rule}"])
    origin.ok()
    assert client.answer().body == b"ok"


@pytest.mark.parametrize(
    ("host", "path"), [("app.test", "/exac"), ("app.test", "/exactly"), ("other.test", "/exact"), ("app.test.evil", "/")]
)
def test_no_route_is_404(client: Client, site: Origin, host: str, path: str) -> None:
    ask(client, path, host=host)
    assert client.answer().status == 404
    client.kept()
    site.untouched()


@pytest.mark.parametrize("host", ["APP.test", "app.test:8080", "app.test.", "app.test:1"])
def test_hosts_match_without_port_case_and_last_dot(client: Client, site: Origin, host: str) -> None:
    ask(client, "/exact", host=host)
    origin = site.accept()
    assert f"\r\nhost: {host}\r\n".encode() in origin.request()
    origin.ok()
    assert client.answer().status == 200


def test_a_backend_that_does_not_resolve_is_500(client: Client, site: Origin) -> None:
    ask(client, "/missing")
    assert client.answer().status == 500
    client.kept()
    site.untouched()


def test_fields_are_edited_both_ways(client: Client, site: Origin) -> None:
    ask(client, "/edit", "X-Set: old", "X-Set: older", "X-Add: one", "X-Secret: s", "X-SECRET: t")
    origin = site.accept()
    lines = origin.request().split(b"\r\n")
    assert [line for line in lines if line.startswith((b"x-set", b"x-add", b"x-secret"))] in (
        [b"x-set: new", b"x-add: one", b"x-add: more"],
        [b"x-add: one", b"x-set: new", b"x-add: more"],
    )
    origin.ok("ok", "Server: origin", "X-Add: one", "X-Secret: s")
    answer = client.answer()
    assert (answer.get("server"), answer.all("x-add"), answer.get("x-secret")) == ("isthmus", ["one", "more"], None)


@pytest.mark.parametrize(
    ("path", "sent", "host"),
    [
        ("/api", "/v2", "inner.test"),
        ("/api/", "/v2/", "inner.test"),
        ("/api/x?y=/api", "/v2/x?y=/api", "inner.test"),
        ("/full/x?y", "/other?y", "app.test"),
    ],
)
def test_rewrites(client: Client, site: Origin, path: str, sent: str, host: str) -> None:
    ask(client, path)
    origin = site.accept()
    assert origin.request() == forwarded(f"GET {sent} HTTP/1.1", f"host: {host}", x_forwarded_host="app.test")
    origin.ok()
    assert client.answer().status == 200


@pytest.mark.parametrize(
    ("path", "status", "location"),
    [
        ("/go/x?y", 301, "https://new.test/go/x?y"),
        ("/move", 308, "http://app.test:8443/moved"),
        ("/move/x", 308, "http://app.test:8443/moved/x"),
        ("/move//../move/x", 308, "http://app.test:8443/moved/x"),
    ],
)
def test_redirects(client: Client, site: Origin, path: str, status: int, location: str) -> None:
    ask(client, path)
    answer = client.answer()
    assert (answer.status, answer.get("location")) == (status, location)
    client.kept()
    site.untouched()


def test_a_location_cannot_be_split(client: Client, site: Origin) -> None:
    ask(client, "/go/%0d%0aSet-Cookie:%20a=b")
    assert client.answer().get("location") == "https://new.test/go/%0D%0ASet-Cookie:%20a=b"


def test_weights(client: Client, gateway: Gateway, site: Origin) -> None:
    second = Origin(gateway, "second")
    ends = {}
    seen: Counter[str] = Counter()
    for _ in range(400):
        ask(client, "/weighted")
        gateway.turn()
        for name, listening in (("site", site), ("second", second)):
            if name not in ends:
                listening.socket.setblocking(False)
                try:
                    ends[name] = listening.accept()
                except BlockingIOError:
                    continue
        for name, end in ends.items():
            end.socket.setblocking(False)
            try:
                end.more()
            except BlockingIOError:
                continue
            finally:
                end.socket.settimeout(10)
            end.request()
            end.ok(name)
            seen[name] += 1
        assert client.answer().status == 200
    # 3 to 1; the chance of missing these bounds is below one in a million
    assert 50 < seen["second"] < 155
    assert sum(seen.values()) == 400
    second.close()


def test_routes_stay_on_their_listeners(connect: Connect, gateway: Gateway, site: Origin) -> None:
    second = Origin(gateway, "second")
    client = connect("inside")
    ask(client, "/exact")
    origin = second.accept()
    assert origin.request() == forwarded("GET /exact HTTP/1.1", "host: app.test", x_forwarded_port="8081")
    origin.ok()
    assert client.answer().status == 200
    site.untouched()
    second.close()


def test_listeners_of_one_port_are_told_apart_by_host(connect: Connect, gateway: Gateway, site: Origin) -> None:
    """And a request for one of them never falls through to another, however much its route would take."""
    second = Origin(gateway, "second")
    client = connect("shop")
    ask(client, "/cart/1", host="cart.shop.test")
    origin = second.accept()
    origin.request()
    origin.ok("cart")
    assert client.answer().body == b"cart"
    ask(client, "/else", host="cart.shop.test")
    assert client.answer().status == 404
    ask(client, "/cart", host="www.shop.test")
    origin = site.accept()
    origin.request()
    origin.ok("shop")
    assert client.answer().body == b"shop"
    for host in ("shop.test", "other.test"):
        ask(client, "/cart", host=host)
        assert client.answer().status == 404
    second.close()


def test_http_route_backend_url_rewrite(client: Client, site: Origin) -> None:
    client.send("GET /apart/x?y HTTP/1.1\r\nHost: app.test\r\n\r\n")
    origin = site.accept()
    assert origin.request().startswith(b"GET /own/x?y HTTP/1.1\r\nhost: apart.test\r\n")
    origin.ok()
    assert client.answer().body == b"ok"


def test_http_route_backend_request_redirect(client: Client, site: Origin) -> None:
    client.send("POST /elsewhere/x HTTP/1.1\r\nHost: app.test\r\nContent-Length: 2\r\n\r\nhi")
    answer = client.answer()
    assert answer.status == 307
    location = answer.get("location") or ""
    assert location.startswith("http://else.test") and location.endswith("/elsewhere/x")
    client.kept()
    site.untouched()
