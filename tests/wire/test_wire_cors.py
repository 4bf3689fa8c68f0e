"""What a page of another origin may ask for: preflights are answered here, and answers say who may read them."""

import pytest
from conftest import Connect
from h2bench import H2Client
from wirebench import Answer, Client, Gateway, Origin

CONFIG = """
listeners: [{name: web, port: 8080}]
routes:
  - name: all
    rules:
      - matches: [{path: {value: /cors-1}}]
        filters: &first
          - type: CORS
            cors:
              allowOrigins: [https://www.foo.com, "https://*.bar.com", "http://*:8080"]
              allowMethods: [GET, OPTIONS]
              allowHeaders: [x-header-1, X-Header-2]
              exposeHeaders: [x-header-3, x-header-4]
              allowCredentials: true
              maxAge: 3600
        backendRefs: [{name: site}]
      - matches: [{path: {value: /stars}}]
        filters: [{type: CORS, cors: {allowOrigins: ["*"], allowMethods: ["*"], allowHeaders: ["*"], exposeHeaders: ["*"]}}]
        backendRefs: [{name: site}]
      - matches: [{path: {value: /own}}]
        filters:
          - type: CORS
            cors:
              allowOrigins: ["*"]
              allowMethods: ["*"]
              allowHeaders: ["*"]
              exposeHeaders: ["*", x-a]
              allowCredentials: true
        backendRefs: [{name: site}]
      - matches: [{path: {value: /put}, method: PUT}]
        filters:
          - {type: RequestHeaderModifier, requestHeaderModifier: {remove: [origin]}}
          - {type: CORS, cors: {allowOrigins: ["http://a.test"], allowMethods: [PUT]}}
          - {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-last, value: word}]}}
        backendRefs: [{name: site}]
      - matches: [{path: {value: /gone}}]
        filters: *first
        backendRefs: [{name: nowhere}]
      - matches: [{path: {value: /}}]
        backendRefs: [{name: site}]
clusters:
  - {name: site, endpoints: ["127.0.0.1:1"]}
  - {name: nowhere, endpoints: []}
"""
PROBLEMS = ("has no endpoints",)
PREFLIGHT = ("Access-Control-Request-Method: GET", "Access-Control-Request-Headers: x-header-1, x-header-2")


def ask(client: Client, path: str, *fields: str, method: str = "OPTIONS") -> Answer:
    lines = (f"{method} {path} HTTP/1.1", "Host: a.test", *fields, "", "")
    client.send("\r\n".join(lines))
    return client.answer(method)


def access(answer: Answer) -> dict[str, str]:
    """The fields of the protocol, without what all of them begin with."""
    found = [(name.removeprefix("access-control-"), value) for name, value in answer.fields if name.startswith("access-control-")]
    assert len(dict(found)) == len(found)
    return dict(found)


@pytest.mark.parametrize(
    "origin",
    [
        "https://www.foo.com",
        "https://www.foo.com:443",
        "HTTPS://WWW.Foo.com",
        "https://www.bar.com",
        "https://xpto.www.bar.com",
        "http://any.test:8080",
        "http://[::1]:8080",
    ],
)
def test_http_route_cors_preflight_of_an_allowed_origin(client: Client, site: Origin, origin: str) -> None:
    answer = ask(client, "/cors-1", f"Origin: {origin}", *PREFLIGHT)
    assert answer.status == 200
    assert access(answer) == {
        "allow-origin": origin,
        "allow-credentials": "true",
        "allow-methods": "GET, OPTIONS",
        "allow-headers": "x-header-1, X-Header-2",
        "expose-headers": "x-header-3, x-header-4",
        "max-age": "3600",
    }
    assert answer.get("vary") == "origin"
    client.kept()
    site.untouched()


@pytest.mark.parametrize(
    "origin",
    [
        "https://foobar.com",
        "https://bar.com",
        "https://evilbar.com",
        "http://www.foo.com",
        "https://www.foo.com:8443",
        "https://www.foo.com.evil.test",
        "https://x:1@www.bar.com",
        "https://a.bar.com:8443",
        "https://evil.test/.bar.com",
        "http://any.test",
        "null",
        "",
        "*",
    ],
)
def test_http_route_cors_another_origin_gets_nothing(client: Client, site: Origin, origin: str) -> None:
    answer = ask(client, "/cors-1", f"Origin: {origin}", *PREFLIGHT)
    assert answer.status == 403 and access(answer) == {} and answer.get("vary") == "origin"
    client.send(f"GET /cors-1 HTTP/1.1\r\nHost: a.test\r\nOrigin: {origin}\r\n\r\n")
    wire = site.accept()
    wire.request()
    # what a backend says of it does not count beside the gateway's rules
    wire.ok("ok", "Access-Control-Allow-Origin: *", "access-control-allow-credentials: true", "Vary: accept")
    answer = client.answer()
    assert answer.status == 200 and access(answer) == {} and answer.all("vary") == ["accept", "origin"]


def test_two_origins_are_nobodys(client: Client, site: Origin) -> None:
    assert ask(client, "/cors-1", "Origin: https://www.foo.com", "Origin: https://www.bar.com", *PREFLIGHT).status == 403
    site.untouched()


def test_http_route_cors_simple_request(client: Client, site: Origin) -> None:
    """Access-Control-Request-Method alone makes no preflight."""
    client.send("GET /cors-1 HTTP/1.1\r\nHost: a.test\r\nOrigin: https://www.bar.com\r\n" + "\r\n".join(PREFLIGHT) + "\r\n\r\n")
    wire = site.accept()
    assert b"origin: https://www.bar.com\r\n" in wire.request()
    wire.ok("ok", "Access-Control-Allow-Origin: https://other.test")
    answer = client.answer()
    assert answer.body == b"ok"
    expected = {"allow-origin": "https://www.bar.com", "allow-credentials": "true", "expose-headers": "x-header-3, x-header-4"}
    assert access(answer) == expected
    client.send("OPTIONS /cors-1 HTTP/1.1\r\nHost: a.test\r\nOrigin: https://www.bar.com\r\n\r\n")
    wire.request()
    wire.ok()
    assert access(client.answer()) == expected
    client.send("GET /cors-1 HTTP/1.1\r\nHost: a.test\r\n\r\n")
    wire.request()
    wire.ok()
    answer = client.answer()
    assert access(answer) == {} and answer.get("vary") == "origin"


def test_http_route_cors_stars(client: Client, site: Origin) -> None:
    """What was asked for is named, since a star takes no Authorization; an answer that is the same for all does not vary."""
    method, headers = "Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: authorization"
    asked = ("Origin: https://foobar.com:12345", method, headers)
    answer = ask(client, "/stars", *asked)
    expected = {"allow-origin": "*", "allow-methods": "PUT", "expose-headers": "*", "max-age": "5"}
    expected["allow-headers"] = "authorization"
    assert access(answer) == expected and answer.get("vary") is None
    answer = ask(client, "/stars", *asked[:2])
    assert access(answer) == {**expected, "allow-headers": "*"}
    site.untouched()


def test_http_route_cors_allow_credentials_behaviour(client: Client, site: Origin) -> None:
    """No star ever stands beside credentials."""
    asked = ("Origin: https://foobar.com", "Access-Control-Request-Method: PATCH")
    answer = ask(client, "/own", *asked, "Access-Control-Request-Headers: x-one, x-two")
    assert access(answer) == {
        "allow-origin": "https://foobar.com",
        "allow-credentials": "true",
        "allow-methods": "PATCH",
        "allow-headers": "x-one, x-two",
        "expose-headers": "x-a",
        "max-age": "5",
    }
    assert "allow-headers" not in access(ask(client, "/own", *asked))
    site.untouched()


def test_a_preflight_finds_the_rule_of_the_method_that_it_asks_for(client: Client, site: Origin) -> None:
    """A rule for PUT alone takes no OPTIONS; its preflight is another matter. Filters that stand before it change nothing."""
    answer = ask(client, "/put", "Origin: http://a.test", "Access-Control-Request-Method: PUT")
    assert answer.status == 200
    assert access(answer) == {"allow-origin": "http://a.test", "allow-methods": "PUT", "max-age": "5"}
    assert answer.get("x-last") == "word"
    client.send("OPTIONS /put HTTP/1.1\r\nHost: a.test\r\nOrigin: http://a.test\r\nAccess-Control-Request-Method: GET\r\n\r\n")
    wire = site.accept()
    wire.request()
    wire.ok()
    assert access(client.answer()) == {}
    client.send("PUT /put HTTP/1.1\r\nHost: a.test\r\nOrigin: http://a.test\r\nContent-Length: 0\r\n\r\n")
    assert b"\r\norigin:" not in wire.request()
    wire.ok()
    assert access(client.answer()) == {"allow-origin": "http://a.test"}


def test_an_answer_of_the_gateway_can_be_read_too(client: Client, site: Origin) -> None:
    answer = ask(client, "/gone", "Origin: https://www.foo.com", method="GET")
    assert answer.status == 503 and access(answer)["allow-origin"] == "https://www.foo.com"


def test_preflights_are_logged(client: Client, gateway: Gateway, site: Origin) -> None:
    gateway.log()
    ask(client, "/cors-1", "Origin: https://www.foo.com", *PREFLIGHT)
    ask(client, "/cors-1", "Origin: https://foobar.com", *PREFLIGHT)
    records = gateway.log()
    assert [(each["status"], each["detail"]) for each in records] == [(200, "cors_preflight"), (403, "cors_origin")]


def test_h2(connect: Connect, site: Origin) -> None:
    client = H2Client(connect())
    fields = (("origin", "https://www.foo.com"), ("access-control-request-method", "GET"))
    head, _ = client.answer(client.ask("/cors-1", *fields, method="OPTIONS"))
    assert head[":status"] == "200" and head["access-control-allow-origin"] == "https://www.foo.com"
    stream = client.ask("/cors-1", fields[0])
    wire = site.accept()
    wire.request()
    wire.ok()
    head, body = client.answer(stream)
    assert body == b"ok" and head["access-control-allow-origin"] == "https://www.foo.com"
