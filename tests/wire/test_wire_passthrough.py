"""TLS that is passed through: the ClientHello is read for its name, and every byte goes on as it came."""

import ssl
import threading
from collections.abc import Callable, Iterator

import pytest
import trustme
from conftest import Connect
from hellos import build, build_message, large_hello, message_of, real_hello, records, server_name
from wirebench import CUTS, Client, Gateway, Origin, OriginWire

from gateway._core import counters, faults

CONFIG = """
listeners:
  - {name: pass, port: 9443, protocol: TLS}
  - {name: inner, port: 9444, protocol: TLS, hostname: "*.inner.test"}
  - {name: proxied, port: 9445, protocol: TLS, proxyProtocol: accept}
  - {name: brief, port: 9446, protocol: TLS, limits: {headerTimeout: 200ms}}
routes:
  - {name: one, kind: TLSRoute, hostnames: [a.test, "*.one.test"], rules: [{backendRefs: [{name: site}]}]}
  - {name: two, kind: TLSRoute, hostnames: [b.one.test, "*.inner.test"], rules: [{backendRefs: [{name: other}]}]}
  - {name: bare, kind: TLSRoute, hostnames: ["*.spoken.test"], rules: [{backendRefs: [{name: site}]}]}
  - {name: spoken, kind: TLSRoute, hostnames: ["*.spoken.test"], alpn: [acme-tls/1, h2], rules: [{backendRefs: [{name: other}]}]}
  - {name: exact, kind: TLSRoute, hostnames: [x.spoken.test], alpn: [http/1.1], rules: [{backendRefs: [{name: other}]}]}
  - {name: only, kind: TLSRoute, hostnames: [only.test], alpn: [h2], rules: [{backendRefs: [{name: site}]}]}
clusters:
  - {name: site, endpoints: ["127.0.0.1:1"], outlierDetection: {consecutiveErrors: 0}}
  - {name: other, endpoints: ["127.0.0.1:1"]}
"""
NO_SUCH_NAME = b"\x15\x03\x01\x00\x02\x02\x70"
INTERNAL_ERROR = b"\x15\x03\x01\x00\x02\x02\x50"
DECODE_ERROR = b"\x15\x03\x01\x00\x02\x02\x32"


@pytest.fixture
def other(gateway: Gateway, settled: None) -> Iterator[Origin]:
    origin = Origin(gateway, "other")
    yield origin
    origin.close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def serve(authority: trustme.CA, origin: OriginWire, alpn: list[str]) -> tuple[threading.Thread, list[bytes]]:
    """Plays a TLS server on the origin's end, which sends back in capitals what it gets, once; and what it got."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("a.test").configure_cert(context)
    context.set_alpn_protocols(alpn)
    got: list[bytes] = []

    def run() -> None:
        with context.wrap_socket(origin.socket, server_side=True) as inside:
            got.append(inside.recv(1000))
            inside.sendall(got[0].upper())
            inside.unwrap()

    thread = threading.Thread(target=run)
    thread.start()
    return thread, got


def fault_count(gateway: Gateway, name: str) -> int:
    read = counters.read(gateway.block)
    assert read is not None
    return read[2][faults.NAMES.index(name)]


# ---- through


@pytest.mark.parametrize("most", [ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2])
def test_the_client_shakes_hands_with_the_origin(
    gateway: Gateway, connect: Connect, site: Origin, authority: trustme.CA, most: ssl.TLSVersion
) -> None:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.maximum_version = most
    context.set_alpn_protocols(["h2", "http/1.1"])
    client = connect("pass")
    inside: list[ssl.SSLSocket] = []
    shaking = threading.Thread(target=lambda: inside.append(context.wrap_socket(client.socket, server_hostname="a.test")))
    shaking.start()
    thread, got = serve(authority, site.accept(), ["h2"])
    shaking.join()
    assert inside[0].selected_alpn_protocol() == "h2"
    inside[0].sendall(b"hello")
    assert inside[0].recv(1000) == b"HELLO"
    inside[0].unwrap().close()
    thread.join()
    assert got == [b"hello"]
    gateway.turn()
    (line,) = gateway.log()
    assert (line["protocol"], line["host"], line["flags"], line["route"]) == ("TLS", "a.test", "-", "one")
    assert line["bytes_in"] > 250 and line["bytes_out"] > 500


@pytest.mark.parametrize(
    "hello",
    [
        real_hello("A.test"),
        large_hello(b"a.test", alpn=[b"h2"]),
        records(message_of(real_hello("a.test")), [1, 3, 60]),
        records(message_of(real_hello("a.test")), [100] * 5),
        records(build_message([server_name(b"a.test"), (21, b"\x00" * 16000)]), [16000]),
    ],
    ids=["plain", "large", "uneven", "hundreds", "huge"],
)
def test_every_byte_of_the_hello_goes_on_as_it_came(connect: Connect, site: Origin, hello: bytes) -> None:
    early = b"\x17\x03\x03\x00\x05early"
    for cut in (None, range(50, len(hello), 97), *(["bytes"] if len(hello) < 1000 else [])):
        client = connect("pass")
        client.send(hello + early, cut=cut)
        origin = site.accept()
        assert origin.exactly(len(hello) + len(early)) == hello + early
        origin.send(b"\x16\x03\x03 whatever")
        assert client.exactly(12) == b"\x16\x03\x03 whatever"
        client.close()
        origin.ended()


@pytest.mark.parametrize(
    ("listener", "name", "cluster"),
    [
        ("pass", "a.test", "site"), ("pass", "x.one.test", "site"), ("pass", "x.y.one.test", "site"),
        ("pass", "b.one.test", "other"), ("inner", "x.inner.test", "other"), ("pass", "x.inner.test", "other"),
    ],
)  # fmt: skip
def test_the_name_decides(connect: Connect, site: Origin, other: Origin, listener: str, name: str, cluster: str) -> None:
    client = connect(listener)
    hello = real_hello(name)
    client.send(hello)
    chosen, passed_by = (site, other) if cluster == "site" else (other, site)
    assert chosen.accept().exactly(len(hello)) == hello
    passed_by.untouched()


@pytest.mark.parametrize(
    ("name", "alpn", "cluster"),
    [
        ("a.spoken.test", [], "site"),
        ("a.spoken.test", ["http/1.1"], "site"),
        ("a.spoken.test", ["h2c", "h", "h22"], "site"),
        ("a.spoken.test", ["http/1.1", "h2"], "other"),
        ("a.spoken.test", ["acme-tls/1"], "other"),
        # A host that asks for what the client does not offer leaves it to the one above.
        ("x.spoken.test", ["http/1.1"], "other"),
        ("x.spoken.test", ["spdy/3"], "site"),
        ("only.test", ["h2"], "site"),
    ],
)
def test_what_a_client_offers_decides_where_a_route_asks(
    connect: Connect, site: Origin, other: Origin, name: str, alpn: list[str], cluster: str
) -> None:
    client = connect("pass")
    hello = real_hello(name, alpn=alpn)
    client.send(hello)
    chosen, passed_by = (site, other) if cluster == "site" else (other, site)
    assert chosen.accept().exactly(len(hello)) == hello
    passed_by.untouched()


@pytest.mark.parametrize("alpn", [[], ["http/1.1"]])
def test_a_client_that_offers_nothing_wanted_is_told_that_nobody_has_the_name(
    connect: Connect, site: Origin, alpn: list[str]
) -> None:
    client = connect("pass")
    client.send(real_hello("only.test", alpn=alpn))
    assert client.exactly(len(NO_SUCH_NAME)) == NO_SUCH_NAME
    site.untouched()


def test_a_proxy_header_comes_before_the_hello(gateway: Gateway, connect: Connect, site: Origin) -> None:
    hello = real_hello("a.test")
    for cut in CUTS:
        client = connect("proxied")
        client.send(b"PROXY TCP4 192.0.2.7 192.0.2.8 40000 443\r\n" + hello, cut=cut)
        origin = site.accept()
        assert origin.exactly(len(hello)) == hello
        client.close()
        origin.close()
        gateway.turn()
        (line,) = gateway.log()
        assert (line["client"], line["host"]) == ("192.0.2.7", "a.test")


# ---- nowhere


@pytest.mark.parametrize("hello", [real_hello(None), build(server_name(b"192.0.2.1"))], ids=["none", "address"])
def test_no_name(gateway: Gateway, connect: Connect, site: Origin, hello: bytes) -> None:
    before = gateway.scalar("tls_unknown_names")
    client = connect("pass")
    client.send(hello)
    assert client.rest() == NO_SUCH_NAME
    site.untouched()
    (line,) = gateway.log()
    assert (line["flags"], line["detail"], line["host"], line["protocol"]) == ("NR", "no_name", "", "TLS")
    assert gateway.scalar("tls_unknown_names") == before + 1


def test_a_name_that_no_route_takes(gateway: Gateway, connect: Connect, site: Origin) -> None:
    before = gateway.scalar("tls_unknown_names")
    client = connect("pass")
    client.send(real_hello("one.test"))
    assert client.rest() == NO_SUCH_NAME
    site.untouched()
    (line,) = gateway.log()
    assert (line["flags"], line["detail"], line["host"]) == ("NR", "no_route", "one.test")
    assert gateway.scalar("tls_unknown_names") == before + 1


def test_a_name_that_no_listener_takes(gateway: Gateway, connect: Connect, site: Origin) -> None:
    before = gateway.scalar("tls_unknown_names")
    client = connect("inner")
    client.send(real_hello("a.test"))
    assert client.rest() == NO_SUCH_NAME
    site.untouched()
    assert gateway.scalar("tls_unknown_names") == before + 1


def test_a_client_understands_why(connect: Connect, site: Origin) -> None:
    client = connect("pass")
    context = ssl.create_default_context()
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        context.wrap_socket(client.socket, server_hostname="unknown.test")


def test_the_alert_is_seen_by_a_client_that_goes_on_sending(connect: Connect, site: Origin) -> None:
    client = connect("pass")
    client.send(real_hello("unknown.test") + b"\x17\x03\x03\x40\x00" + b"x" * 300_000)
    assert client.rest() == NO_SUCH_NAME


def test_no_endpoint(gateway: Gateway, connect: Connect, settled: None) -> None:
    gateway.set_endpoints("site", [(b"127.0.0.1", 1, 1, b"")])
    client = connect("pass")
    client.send(real_hello("a.test"))
    assert client.rest() == INTERNAL_ERROR
    gateway.turn()
    (line,) = gateway.log()
    assert (line["flags"], line["detail"], line["host"], line["upstream"]) == ("UF", "connect_failed", "a.test", "127.0.0.1:1")


# ---- no hello


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (build(server_name(b"a.test", b"b.one.test")), "tls_name"),
        (build((0, b"\x00")), "tls_name"),
        (records(build_message([server_name(b"a.test")], behind=b"\x00")), "tls_hello"),
    ],
)
def test_a_hello_with_two_meanings_goes_nowhere(gateway: Gateway, connect: Connect, site: Origin, raw: bytes, name: str) -> None:
    for cut in CUTS:
        before = fault_count(gateway, name)
        client = connect("pass")
        client.send(raw, cut=cut)
        assert client.rest() == DECODE_ERROR
        assert fault_count(gateway, name) == before + 1
    site.untouched()


def test_plain_http_on_a_port_for_tls(gateway: Gateway, connect: Connect, site: Origin) -> None:
    client = connect("pass")
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
    assert client.answer().status == 400
    site.untouched()


def test_half_a_hello_has_a_deadline(gateway: Gateway, connect: Connect, site: Origin) -> None:
    before = gateway.scalar("downstream_head_timeouts")
    client = connect("brief")
    client.send(real_hello("a.test")[:100])
    client.ended()
    site.untouched()
    assert gateway.scalar("downstream_head_timeouts") == before + 1


@pytest.mark.parametrize("end", [Client.close, Client.reset, Client.half_close])
def test_a_client_that_leaves_in_the_middle_of_its_hello(
    gateway: Gateway, connect: Connect, site: Origin, end: Callable[[Client], None]
) -> None:
    for n in (0, 1, 5, 100):
        client = connect("pass")
        client.send(real_hello("a.test")[:n])
        gateway.turn()
        end(client)
    site.untouched()
