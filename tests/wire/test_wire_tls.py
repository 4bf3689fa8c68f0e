"""TLS with clients and endpoints, byte for byte: names choose certificates, records carry what a clear connection would."""

import socket
import ssl
from collections.abc import Iterator

import pytest
import trustme
from conftest import Connect
from tlsbench import AUTHORITY, client_tls, encrypted, reach, server_context, server_tls, show, trusting
from wirebench import Gateway, Origin

CONFIG = """
listeners:
  - {name: web, port: 8080}
  - {name: one, port: 8443, protocol: HTTPS, hostname: "*.one.test", tls: {certificates: [{cert: c, key: k}]}}
  - {name: two, port: 8443, protocol: HTTPS, hostname: two.test, tls: {certificates: [{cert: c, key: k}]}}
  - {name: bare, port: 8444, protocol: HTTPS, tls: {certificates: [{cert: c, key: k}]}}
  - {name: brief, port: 8445, protocol: HTTPS, tls: {certificates: [{cert: c, key: k}]}, limits: {headerTimeout: 300ms}}
routes:
  - name: all
    rules:
      - matches: [{path: {type: PathPrefix, value: /}}]
        backendRefs: [{name: site}]
clusters:
  - {name: site, endpoints: ["127.0.0.1:1"]}
"""
GET = "GET / HTTP/1.1\r\nHost: {}\r\n\r\n"
OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture(scope="module", autouse=True)
def certificates(gateway: Gateway) -> None:
    star, exact = server_context("*.one.test", "a.one.test"), server_context("special.one.test")
    show(gateway, "one", server_tls((("*.one.test",), star), (("special.one.test",), exact)))
    show(gateway, "two", server_tls((("two.test",), server_context("two.test"))))
    show(gateway, "bare", server_tls((("localhost",), server_context("localhost"))))


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_requests_travel_in_records(connect: Connect, site: Origin, version: str) -> None:
    client = connect("one")
    end = encrypted(client, "a.one.test", trusting(version=version))
    assert end.version() == version.replace("_", ".") and end.selected_alpn_protocol() == "http/1.1"
    origin = None
    for _ in range(3):
        client.send(GET.format("a.one.test"))
        origin = origin or site.accept()
        assert b"x-forwarded-proto: https\r\n" in origin.request()
        origin.send(OK)
        assert client.answer().body == b"ok"


def test_a_request_may_come_in_any_pieces(connect: Connect, site: Origin) -> None:
    client = connect("one")
    encrypted(client, "a.one.test")
    client.send(GET.format("a.one.test"), cut="bytes")
    origin = site.accept()
    origin.request()
    origin.send(OK, cut="bytes")
    assert client.answer().body == b"ok"


def test_the_certificate_follows_the_name(connect: Connect, site: Origin) -> None:
    shown = {}
    for listener, name in [("one", "a.one.test"), ("one", "special.one.test"), ("one", "two.test"), ("bare", None)]:
        context = trusting()
        context.check_hostname = False
        end = encrypted(connect(listener), name, context)
        certificate = end.getpeercert()
        assert certificate is not None
        shown[name] = {value for _, value in certificate["subjectAltName"]}  # type: ignore[misc,union-attr]
    assert shown == {
        "a.one.test": {"*.one.test", "a.one.test"},
        "special.one.test": {"special.one.test"},
        "two.test": {"two.test"},
        None: {"localhost"},
    }


def test_a_name_that_no_listener_has_is_refused_with_its_alert(connect: Connect, site: Origin, gateway: Gateway) -> None:
    before = gateway.scalar("tls_unknown_names")
    with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
        encrypted(connect("one"), "three.test")
    assert gateway.scalar("tls_unknown_names") == before + 1


def test_a_request_for_another_listeners_host_is_misdirected(connect: Connect, site: Origin, gateway: Gateway) -> None:
    client = connect("one")
    encrypted(client, "a.one.test")
    client.send(GET.format("two.test"))
    assert client.answer().status == 421
    client.send(GET.format("b.one.test"))
    site.accept().request()


def test_a_request_in_the_clear_is_answered_in_the_clear(connect: Connect, site: Origin, gateway: Gateway) -> None:
    before = gateway.scalar("tls_plain_requests")
    client = connect("one")
    client.send(GET.format("a.one.test"))
    answer = client.answer()
    assert answer.status == 400 and b"https://" in answer.body
    client.ended()
    assert gateway.scalar("tls_plain_requests") == before + 1


def test_half_a_hello_has_a_deadline(connect: Connect, site: Origin) -> None:
    client = connect("brief")
    client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    client.ended()


def test_large_content_passes_both_ways(connect: Connect, site: Origin) -> None:
    body = bytes(range(256)) * 2048
    client = connect("one")
    encrypted(client, "a.one.test")
    client.send(b"POST / HTTP/1.1\r\nHost: a.one.test\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    origin = site.accept()
    assert origin.until(b"\r\n\r\n")
    assert origin.exactly(len(body)) == body
    origin.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert client.answer().body == body


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_a_session_is_resumed(connect: Connect, site: Origin, gateway: Gateway, version: str) -> None:
    context = trusting(version=version)
    client = connect("one")
    first = encrypted(client, "a.one.test", context)
    client.send(GET.format("a.one.test"))
    site.accept().ok()
    assert client.answer().status == 200
    assert encrypted(connect("one"), "a.one.test", context, first.session).session_reused
    gateway.turn()
    assert gateway.scalar("tls_handshakes_resumed")


def test_an_answer_that_is_cut_short_says_no_close_notify(connect: Connect, site: Origin) -> None:
    """What ends without it is not complete (RFC 8446 §6.1)."""
    client = connect("one")
    end = encrypted(client, "a.one.test")
    client.send("GET / HTTP/1.0\r\nHost: a.one.test\r\n\r\n")
    origin = site.accept()
    origin.request()
    origin.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nwo")
    origin.close()
    client.until(b"hello")
    end.suppress_ragged_eofs = False
    with pytest.raises((ssl.SSLEOFError, ConnectionResetError)):
        while client.more():
            pass


def test_a_whole_answer_that_ends_with_the_connection_says_close_notify(connect: Connect, site: Origin) -> None:
    client = connect("one")
    end = encrypted(client, "a.one.test")
    end.suppress_ragged_eofs = False
    client.send("GET / HTTP/1.0\r\nHost: a.one.test\r\n\r\n")
    origin = site.accept()
    origin.request()
    origin.send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello")
    origin.close()
    assert client.rest().endswith(b"hello")


# ---- who the client is


FOR_THE_KNOWN = """    rules:
      - matches: [{headers: [{name: x-forwarded-client-cert, type: RegularExpression, value: "Hash=[0-9]+"}]}]
        filters:
          - type: RequestRedirect
            requestRedirect: {statusCode: 302, path: {type: ReplaceFullPath, replaceFullPath: /known}}
"""


@pytest.fixture
def knows_clients(gateway: Gateway) -> Iterator[trustme.CA]:
    authority = trustme.CA()
    context = server_context("who.one.test", clients=authority)
    star = server_context("*.one.test")
    show(gateway, "one", server_tls((("who.one.test",), context), (("*.one.test",), star), asks_client=True))
    gateway.call(lambda engine: engine.set_certificate_reader(lambda der: b"Hash=%d" % len(der)))
    yield authority
    gateway.call(lambda engine: engine.set_certificate_reader(None))
    show(gateway, "one", server_tls((("*.one.test",), server_context("*.one.test"))))


def test_a_clients_certificate_is_told_to_origin_log_and_routes(
    connect: Connect, site: Origin, gateway: Gateway, knows_clients: trustme.CA
) -> None:
    gateway.swap(CONFIG.replace("    rules:\n", FOR_THE_KNOWN, 1))
    try:
        context = trusting()
        leaf = knows_clients.issue_cert("me@example.com")
        leaf.configure_cert(context)
        client = connect("one")
        encrypted(client, "who.one.test", context)
        client.send("GET / HTTP/1.1\r\nHost: who.one.test\r\nX-Forwarded-Client-Cert: Hash=1\r\n\r\n")
        assert client.answer().get("location") == "https://who.one.test:8443/known"
        assert gateway.log()[0]["client_certificate"].startswith("Hash=")
        # in the clear nobody has one, whatever is said
        plain = connect("web")
        plain.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        assert b"x-forwarded-client-cert" not in site.accept().request()
    finally:
        gateway.swap(CONFIG)


def test_a_forged_word_about_a_certificate_opens_no_route(connect: Connect, site: Origin, gateway: Gateway) -> None:
    gateway.swap(CONFIG.replace("    rules:\n", FOR_THE_KNOWN, 1))
    try:
        client = connect("web")
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-Client-Cert: Hash=1\r\n\r\n")
        assert b"x-forwarded-client-cert" not in site.accept().request()
    finally:
        gateway.swap(CONFIG)


def test_who_shows_no_certificate_where_one_is_demanded_is_refused(
    connect: Connect, site: Origin, gateway: Gateway, knows_clients: trustme.CA
) -> None:
    client = connect("one")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        encrypted(client, "who.one.test", trusting(version="TLSv1_2"))
    assert gateway.scalar("tls_handshakes_failed")


# endpoints


@pytest.fixture
def secure_site(gateway: Gateway, site: Origin) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("site.test").configure_cert(context)
    return context


def test_a_cluster_without_its_context_sends_nothing_in_the_clear(connect: Connect, site: Origin, gateway: Gateway) -> None:
    gateway.swap(CONFIG.replace('["127.0.0.1:1"]', '["127.0.0.1:1"], tls: {serverName: site.test, ca: system}'))
    try:
        client = connect("web")
        client.send(GET.format("x.test"))
        assert client.answer().status == 502
        assert gateway.log()[0]["detail"] == "tls_no_context"
    finally:
        gateway.swap(CONFIG)


def test_an_endpoint_is_reached_through_tls_and_its_connection_kept(
    connect: Connect, site: Origin, gateway: Gateway, secure_site: ssl.SSLContext
) -> None:
    gateway.swap(CONFIG.replace('["127.0.0.1:1"]', '["127.0.0.1:1"], tls: {serverName: site.test, ca: system}'))
    try:
        reach(gateway, "site", client_tls("site.test"))
        client = connect("web")
        client.send(GET.format("x.test"))
        origin = site.accept()
        origin.socket = secure_site.wrap_socket(origin.socket, server_side=True)
        for number in range(3):
            if number:
                client.send(GET.format("x.test"))
            assert b"host: x.test" in origin.request()
            origin.send(OK)
            assert client.answer().body == b"ok"
    finally:
        gateway.swap(CONFIG)


@pytest.mark.parametrize(
    ("name", "detail"), [("other.test", "tls_certificate_wrong_name"), ("site.test", "tls_certificate_unknown_issuer")]
)
def test_an_endpoint_that_is_not_who_it_should_be_is_502(
    connect: Connect, site: Origin, gateway: Gateway, secure_site: ssl.SSLContext, name: str, detail: str
) -> None:
    gateway.swap(CONFIG.replace('["127.0.0.1:1"]', '["127.0.0.1:1"], tls: {serverName: x, ca: system}'))
    try:
        authority = AUTHORITY if "wrong" in detail else trustme.CA()
        reach(gateway, "site", client_tls(name, authority=authority))
        client = connect("web")
        client.send(GET.format("x.test"))
        origin = site.accept()
        with pytest.raises((ssl.SSLError, ConnectionError)):
            secure_site.wrap_socket(origin.socket, server_side=True)
            raise ConnectionError
        answer = client.answer()
        assert answer.status == 502 and detail.encode() not in answer.body
        record = gateway.log()[0]
        assert record["detail"] == detail and record["flags"] == "UF"
    finally:
        gateway.swap(CONFIG)


def test_what_a_port_says_of_itself(connect: Connect, site: Origin, gateway: Gateway) -> None:
    client = connect("one")
    encrypted(client, "a.one.test")
    gateway.turn()
    rows = gateway.call(lambda engine: engine.describe_connections())
    assert [row["tls"] for row in rows] == ["TLSv1.3"]
    assert isinstance(client.socket, socket.socket)
