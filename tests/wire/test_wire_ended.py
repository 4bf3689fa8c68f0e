"""TLS that ends at the gateway and is carried on in the clear, beside TLS that is passed through on the same port."""

import socket
import ssl
import threading
from collections.abc import Iterator

import pytest
from conftest import Connect
from hellos import real_hello
from OpenSSL import SSL
from tlsbench import AUTHORITY, client_tls, encrypted, reach, served, server_context, server_tls, show, trusting
from until import wait_until
from wirebench import PATIENCE, Client, Gateway, Origin, OriginWire

CONFIG = """
listeners:
  - {name: ended, port: 9443, protocol: TLS, hostname: "*.ended.test", tls: {certificates: [{cert: c, key: k}]}}
  - {name: passed, port: 9443, protocol: TLS, hostname: "*.passed.test"}
  - {name: web, port: 9443, protocol: HTTPS, hostname: "*.web.test", tls: {certificates: [{cert: c, key: k}]}}
  - {name: any, port: 9444, protocol: TLS, proxyProtocol: accept, tls: {certificates: [{cert: c, key: k}]}}
  - {name: quiet, port: 9445, protocol: TLS, tls: {certificates: [{cert: c, key: k}]}, limits: {streamIdleTimeout: 300ms}}
  - {name: bare, port: 9446, protocol: TLS, tls: {certificates: [{cert: c, key: k}]}}
  - {name: brief, port: 9447, protocol: TLS, tls: {certificates: [{cert: c, key: k}]}, limits: {headerTimeout: 200ms}}
  - {name: muxed, port: 9448, protocol: TLS, tls: {certificates: [{cert: c, key: k}]}}
routes:
  - {name: one, kind: TLSRoute, listeners: [ended], hostnames: [a.ended.test], rules: [{backendRefs: [{name: site}]}]}
  - {name: safe, kind: TLSRoute, listeners: [ended], hostnames: [safe.ended.test], rules: [{backendRefs: [{name: safe}]}]}
  - name: spoken
    kind: TLSRoute
    listeners: [ended]
    hostnames: [spoken.ended.test]
    alpn: [mqtt, h2]
    rules: [{backendRefs: [{name: site}]}]
  - {name: two, kind: TLSRoute, listeners: [passed], hostnames: ["*.passed.test"], rules: [{backendRefs: [{name: site}]}]}
  - {name: all, listeners: [web], rules: [{backendRefs: [{name: site}]}]}
  - {name: calls, listeners: [web], hostnames: [muxed.web.test], rules: [{backendRefs: [{name: muxed}]}]}
  - {name: muxed, kind: TCPRoute, listeners: [muxed], rules: [{backendRefs: [{name: muxed}]}]}
  - {name: whole, kind: TCPRoute, listeners: [any, quiet, bare, brief], rules: [{backendRefs: [{name: site}]}]}
clusters:
  - {name: muxed, endpoints: ["127.0.0.1:1"], protocol: HTTP2, outlierDetection: {consecutiveErrors: 0}}
  - {name: site, endpoints: ["127.0.0.1:1"], outlierDetection: {consecutiveErrors: 0}}
  - {name: safe, endpoints: ["127.0.0.1:1"], tls: {serverName: inside.test}, outlierDetection: {consecutiveErrors: 0}}
"""
PROBLEMS = ["cluster 'muxed' has protocol HTTP2"]
NO_SUCH_NAME = b"\x15\x03\x01\x00\x02\x02\x70"
INTERNAL_ERROR = b"\x15\x03\x01\x00\x02\x02\x50"
VERSIONS = ["TLSv1_2", "TLSv1_3"]


@pytest.fixture(scope="module", autouse=True)
def certificates(gateway: Gateway) -> None:
    show(gateway, "ended", server_tls((("*.ended.test",), server_context("*.ended.test")), alpn=b"\x02h2\x08http/1.1"))
    show(gateway, "web", server_tls((("*.web.test",), server_context("*.web.test"))))
    for name in ("any", "quiet", "brief", "muxed"):
        show(gateway, name, server_tls((("a.test",), server_context("a.test"))))
    reach(gateway, "safe", client_tls("inside.test"))


@pytest.fixture
def safe(gateway: Gateway, settled: None) -> Iterator[Origin]:
    origin = Origin(gateway, "safe")
    yield origin
    origin.close()


def carried(connect: Connect, site: Origin, name: str = "a.ended.test", version: str = "") -> tuple[Client, OriginWire]:
    client = connect("ended")
    encrypted(client, name, trusting(version=version))
    return client, site.accept()


class Inside:
    """A client's TLS whose two directions end one by one, which Python's own does not do."""

    def __init__(self, client: Client, name: str) -> None:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        client.socket.settimeout(None)
        self.end = SSL.Connection(context, client.socket)
        self.end.set_tlsext_host_name(name.encode())
        self.end.set_connect_state()
        self.end.do_handshake()

    def exactly(self, n: int) -> bytes:
        got = b""
        while len(got) < n:
            got += self.end.recv(n - len(got))
        return got

    def told_all(self) -> bool:
        """Whether what comes next is close_notify; False: the end of the connection without it."""
        try:
            piece = self.end.recv(1000)
        except SSL.ZeroReturnError:
            return True
        except SSL.SysCallError:
            return False
        raise AssertionError(piece)


def read_all(end: socket.socket, n: int) -> bytes:
    got = bytearray()
    while len(got) < n and (piece := end.recv(1 << 20)):
        got += piece
    return bytes(got)


# ---- bytes


@pytest.mark.parametrize("version", VERSIONS)
def test_the_clear_bytes_go_both_ways(gateway: Gateway, connect: Connect, site: Origin, version: str) -> None:
    client, origin = carried(connect, site, version=version)
    for text in (b"GET / HTTP/1.1\r\n\r\n", b"\x00\xff" * 20, b"\x16\x03\x01\x02\x00\x01", b"x" * 40_000):
        client.send(text)
        assert origin.exactly(len(text)) == text
        origin.send(text[::-1])
        assert client.exactly(len(text)) == text[::-1]
    (row,) = [row for row in gateway.call(lambda engine: engine.describe_connections()) if row["state"] == "tunnel"]
    assert row["tls"] == version.replace("_", ".") and row["name"] == "a.ended.test" and row["listener"] == "ended"
    client.close()
    origin.ended()
    origin.close()
    wait_until(lambda: not gateway.leaks(), PATIENCE)
    (line,) = gateway.log()
    assert (line["protocol"], line["host"], line["route"], line["listener"]) == ("TLS", "a.ended.test", "one", "ended")
    assert line["bytes_in"] == line["bytes_out"] == 18 + 40 + 6 + 40_000


def test_pieces_of_any_size(connect: Connect, site: Origin) -> None:
    client, origin = carried(connect, site)
    client.send("some words", cut="bytes")
    assert origin.exactly(10) == b"some words"
    origin.send("some more", cut="bytes")
    assert client.exactly(9) == b"some more"


def test_the_origin_may_speak_first(connect: Connect, site: Origin) -> None:
    client, origin = carried(connect, site)
    origin.send("220 mail.example ESMTP\r\n")
    assert client.until(b"\r\n") == b"220 mail.example ESMTP\r\n"


@pytest.mark.parametrize("version", VERSIONS)
def test_what_comes_along_with_the_handshake_is_not_lost(connect: Connect, site: Origin, version: str) -> None:
    """Bytes and even the end are with the gateway before there is an endpoint to have them."""
    context = trusting(version=version)
    client = connect("ended")
    inward, outward = ssl.MemoryBIO(), ssl.MemoryBIO()
    inside = context.wrap_bio(inward, outward, server_hostname="a.ended.test")
    while True:
        try:
            inside.do_handshake()
            break
        except ssl.SSLWantReadError:
            client.socket.sendall(outward.read())
            inward.write(client.socket.recv(65536))
    inside.write(b"early")
    with pytest.raises(ssl.SSLWantReadError):
        inside.unwrap()
    client.socket.sendall(outward.read())
    client.half_close()
    origin = site.accept()
    assert origin.rest() == b"early"


@pytest.mark.parametrize("cluster", ["site", "safe"])
def test_much_goes_both_ways(connect: Connect, site: Origin, safe: Origin, cluster: str) -> None:
    """Enough for bytes in the clear to be moved without being seen, which these are not."""
    client = connect("ended")
    if cluster == "site":
        encrypted(client, "a.ended.test")
        inner: socket.socket = site.accept().socket
    else:
        inner = safe_end(client, safe)
    # One way and then the other: Python's ssl does not take a write beside a read of the same connection.
    for source, target in ((client.socket, inner), (inner, client.socket)):
        text = bytes(range(256)) * 20_000
        writing = threading.Thread(target=source.sendall, args=(text,))
        writing.start()
        assert read_all(target, len(text)) == text
        writing.join()


@pytest.mark.parametrize("side", ["client", "origin"])
def test_a_slow_reader_holds_the_other_side_back(gateway: Gateway, connect: Connect, site: Origin, side: str) -> None:
    client, origin = carried(connect, site)
    writer, reader = (origin, client) if side == "client" else (client, origin)
    sent = 0
    writer.socket.settimeout(0.3)
    with pytest.raises(TimeoutError):
        while True:
            writer.socket.sendall(b"x" * 16384)
            sent += 16384
            assert sent < 64 << 20, "nobody holds the writer back"
    (row,) = [row for row in gateway.call(lambda engine: engine.describe_connections()) if row["state"] == "tunnel"]
    assert row["queued_bytes"] <= 400 << 10
    assert len(read_all(reader.socket, sent)) == sent


# ---- ends


def test_each_direction_ends_for_itself(gateway: Gateway, connect: Connect, site: Origin) -> None:
    client = connect("ended")
    inside = Inside(client, "a.ended.test")
    origin = site.accept()
    inside.end.sendall(b"ask")
    inside.end.shutdown()
    assert origin.rest() == b"ask"
    origin.send("the answer, later")
    assert inside.exactly(17) == b"the answer, later"
    origin.close()
    assert inside.told_all()
    gateway.turn()
    wait_until(lambda: not gateway.leaks(), PATIENCE)
    (line,) = gateway.log()
    assert (line["flags"], line["bytes_in"], line["bytes_out"]) == ("-", 3, 17)


def test_an_origin_may_end_first(connect: Connect, site: Origin) -> None:
    client = connect("ended")
    inside = Inside(client, "a.ended.test")
    origin = site.accept()
    origin.send("hello")
    origin.half_close()
    assert inside.exactly(5) == b"hello" and inside.told_all()
    inside.end.sendall(b"and now me")
    assert origin.exactly(10) == b"and now me"
    inside.end.shutdown()
    origin.ended()


def test_a_reset_of_the_client_is_passed_on(connect: Connect, site: Origin) -> None:
    client, origin = carried(connect, site)
    client.send("part")
    assert origin.exactly(4) == b"part"
    client.reset()
    with pytest.raises(ConnectionResetError):
        origin.more()


def test_a_reset_of_the_origin_is_no_end_of_what_it_said(gateway: Gateway, connect: Connect, site: Origin) -> None:
    client = connect("ended")
    inside = Inside(client, "a.ended.test")
    origin = site.accept()
    origin.send("part")
    assert inside.exactly(4) == b"part"
    origin.reset()
    assert not inside.told_all()
    (line,) = gateway.log()
    assert (line["flags"], line["detail"]) == ("UC", "upstream_reset")


def test_silence_has_an_end(gateway: Gateway, connect: Connect, site: Origin) -> None:
    client = connect("quiet")
    inside = Inside(client, "a.test")
    origin = site.accept()
    inside.end.sendall(b"x")
    assert origin.exactly(1) == b"x"
    assert not inside.told_all()
    with pytest.raises(ConnectionResetError):
        origin.more()
    (line,) = gateway.log()
    assert (line["flags"], line["detail"]) == ("SI", "stream_idle")


# ---- TLS to the endpoint too


def safe_end(client: Client, safe: Origin) -> ssl.SSLSocket:
    """Both handshakes; the endpoint's side of the second."""
    ends: list[ssl.SSLSocket] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("inside.test").configure_cert(context)
    shaking = threading.Thread(target=lambda: ends.append(served(safe.accept().socket, context)))
    shaking.start()
    encrypted(client, "safe.ended.test")
    shaking.join()
    ends[0].settimeout(PATIENCE)
    return ends[0]


def test_the_way_to_the_endpoint_may_be_encrypted_anew(connect: Connect, safe: Origin) -> None:
    client = connect("ended")
    end = safe_end(client, safe)
    client.send("hello")
    assert end.recv(100) == b"hello"
    end.sendall(b"back")
    assert client.exactly(4) == b"back"
    end.close()


@pytest.mark.parametrize("says", [True, False], ids=["close_notify", "nothing"])
def test_an_end_goes_on_as_it_came(connect: Connect, safe: Origin, says: bool) -> None:
    """Without close_notify it may be somebody else's doing (RFC 8446 §6.1): the other side gets to see it so, too."""
    client = connect("ended")
    end = safe_end(client, safe)
    client.send("all of it")
    assert end.recv(100) == b"all of it"
    end.suppress_ragged_eofs = False
    inside = client.socket
    assert isinstance(inside, ssl.SSLSocket)
    if says:
        closing = threading.Thread(target=inside.unwrap)
        closing.start()
        assert end.recv(100) == b""
        end.unwrap()
        closing.join()
    else:
        inside.shutdown(socket.SHUT_WR)
        with pytest.raises(ssl.SSLEOFError):
            end.recv(100)
    end.close()


def test_an_endpoint_that_shows_the_wrong_name(gateway: Gateway, connect: Connect, safe: Origin) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("other.test").configure_cert(context)

    def refuse() -> None:
        with pytest.raises(ssl.SSLError):
            served(safe.accept().socket, context).recv(1)

    shaking = threading.Thread(target=refuse)
    shaking.start()
    client = connect("ended")
    inside = Inside(client, "safe.ended.test")
    assert not inside.told_all()
    shaking.join()
    (line,) = gateway.log()
    assert (line["flags"], line["detail"]) == ("UF", "tls_certificate_wrong_name")


# ---- names and protocols


def test_the_name_decides_between_passing_on_and_ending(connect: Connect, site: Origin) -> None:
    client = connect("ended")
    hello = real_hello("x.passed.test")
    client.send(hello)
    assert site.accept().exactly(len(hello)) == hello
    client, origin = carried(connect, site)
    client.send("clear")
    assert origin.exactly(5) == b"clear"
    client = connect("ended")
    encrypted(client, "x.web.test")
    client.send("GET / HTTP/1.1\r\nHost: x.web.test\r\n\r\n")
    assert b"x-forwarded-proto: https\r\n" in site.accept().request()


@pytest.mark.parametrize(
    ("name", "offered", "chosen"),
    [
        ("a.ended.test", ("h2", "http/1.1"), None),
        ("a.ended.test", (), None),
        ("spoken.ended.test", ("h2", "http/1.1"), "h2"),
        ("spoken.ended.test", ("x", "mqtt"), "mqtt"),
        ("spoken.ended.test", ("h2", "mqtt"), "mqtt"),
    ],
)
def test_what_is_spoken_is_the_routes_affair(
    connect: Connect, site: Origin, name: str, offered: tuple[str, ...], chosen: str | None
) -> None:
    client = connect("ended")
    end = encrypted(client, name, trusting(alpn=offered))
    assert end.selected_alpn_protocol() == chosen
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert site.accept().exactly(24) == b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@pytest.mark.parametrize("name", ["b.ended.test", "spoken.ended.test"])
def test_where_no_route_leads_there_is_no_handshake(gateway: Gateway, connect: Connect, site: Origin, name: str) -> None:
    before = gateway.scalar("tls_unknown_names"), gateway.scalar("tls_handshakes")
    client = connect("ended")
    client.send(real_hello(name, alpn=["imap"]))
    assert client.rest() == NO_SUCH_NAME
    site.untouched()
    (line,) = gateway.log()
    assert (line["flags"], line["detail"], line["host"]) == ("NR", "no_route", name)
    assert (gateway.scalar("tls_unknown_names"), gateway.scalar("tls_handshakes")) == (before[0] + 1, before[1])


def test_who_names_nothing_is_carried_where_nothing_is_asked(connect: Connect, site: Origin) -> None:
    client = connect("quiet")
    encrypted(client, None)
    client.send("hello")
    assert site.accept().exactly(5) == b"hello"


def test_a_proxy_header_comes_first(gateway: Gateway, connect: Connect, site: Origin) -> None:
    client = connect("any")
    client.send(b"PROXY TCP4 192.0.2.7 192.0.2.8 40000 443\r\n")
    encrypted(client, "a.test")
    origin = site.accept()
    client.send("hello")
    assert origin.exactly(5) == b"hello"
    client.close()
    origin.ended()
    origin.close()
    wait_until(lambda: not gateway.leaks(), PATIENCE)
    (line,) = gateway.log()
    assert (line["client"], line["host"], line["route"]) == ("192.0.2.7", "a.test", "whole")


def test_without_certificates_nobody_is_let_in(connect: Connect, site: Origin) -> None:
    client = connect("bare")
    client.send(real_hello("a.test"))
    assert client.rest() == INTERNAL_ERROR
    site.untouched()


# ---- nowhere


def test_no_endpoint(gateway: Gateway, connect: Connect, settled: None) -> None:
    """The client is told by a reset: there is nothing that could be mistaken for an empty answer."""
    gateway.set_endpoints("site", [(b"127.0.0.1", 1, 1, b"")])
    inside = Inside(connect("ended"), "a.ended.test")
    assert not inside.told_all()
    gateway.turn()
    (line,) = gateway.log()
    assert (line["flags"], line["detail"], line["host"]) == ("UF", "connect_failed", "a.ended.test")


@pytest.mark.parametrize("is_in_use", [False, True])
def test_no_connection_is_carried_in_a_stream_of_http2(
    gateway: Gateway, connect: Connect, settled: None, is_in_use: bool
) -> None:
    origin = Origin(gateway, "muxed")
    if is_in_use:
        web = connect("web")
        encrypted(web, "muxed.web.test")
        web.send("GET / HTTP/1.1\r\nHost: muxed.web.test\r\n\r\n")
        end = origin.accept()
        assert end.until(b"SM\r\n\r\n")
        end.send(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")  # SETTINGS
    inside = Inside(connect("muxed"), "a.test")
    assert not inside.told_all()
    (line,) = [line for line in gateway.log() if line["route"] == "muxed"]
    assert (line["flags"], line["detail"]) == ("UF", "endpoint_speaks_h2")
    origin.close()


def test_half_a_handshake_has_a_deadline(gateway: Gateway, connect: Connect, site: Origin) -> None:
    before = gateway.scalar("downstream_head_timeouts")
    client = connect("brief")
    client.send(real_hello("a.test"))
    client.rest()
    site.untouched()
    assert gateway.scalar("downstream_head_timeouts") == before + 1


@pytest.mark.parametrize("n", [100, 10_000])
def test_a_client_that_leaves_in_the_middle(connect: Connect, site: Origin, n: int) -> None:
    client = connect("ended")
    client.send(real_hello("a.ended.test")[:n])
    client.close()
    site.untouched()


def test_rubbish_after_the_handshake_breaks_the_connection(connect: Connect, site: Origin) -> None:
    client = connect("ended")
    inside = encrypted(client, "a.ended.test")
    origin = site.accept()
    client.send("good")
    assert origin.exactly(4) == b"good"
    with socket.socket(fileno=inside.detach()) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            origin.more()


def test_memory_is_given_back_in_the_midst_of_a_record_too(gateway: Gateway, connect: Connect, site: Origin) -> None:
    client = connect("ended")
    inward, outward = ssl.MemoryBIO(), ssl.MemoryBIO()
    inside = trusting().wrap_bio(inward, outward, server_hostname="a.ended.test")
    while True:
        try:
            inside.do_handshake()
            break
        except ssl.SSLWantReadError:
            client.socket.sendall(outward.read())
            inward.write(client.socket.recv(65536))
    inside.write(b"x" * 100_000)
    sealed = outward.read()
    client.socket.sendall(sealed[:-500])
    origin = site.accept()
    whole = 100_000 // 16384 * 16384
    assert origin.exactly(whole) == b"x" * whole
    turns = gateway.call(lambda engine: engine.describe_connections())[0]["age_ms"]
    wait_until(lambda: gateway.call(lambda engine: engine.describe_connections())[0]["age_ms"] > turns + 1300, PATIENCE)
    client.socket.sendall(sealed[-500:])
    assert origin.exactly(100_000 - whole) == b"x" * (100_000 - whole)
