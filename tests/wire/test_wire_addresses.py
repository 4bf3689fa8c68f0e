"""Who asks and who answers: X-Forwarded-*, trusted hops, PROXY protocol, IPv6 and Unix sockets, request ids."""

import re
import socket
import struct
from pathlib import Path

import pytest
from conftest import Connect
from wirebench import CUTS, ID, Client, Gateway, Origin, forwarded, passes

CONFIG = """
limits: {headerTimeout: 200ms}
listeners:
  - {name: web, port: 8080}
  - {name: one, port: 8081, trustedHops: 1}
  - {name: two, port: 8082, trustedHops: 2}
  - {name: proxied, port: 8083, proxyProtocol: accept}
  - {name: six, address: "[::1]:8084"}
  - {name: dual, port: 8085}
  - {name: mapped, port: 8086, publicPort: 80}
routes:
  - name: all
    rules:
      - matches: [{path: {type: PathPrefix, value: /}}]
        backendRefs: [{name: site}]
clusters:
  - {name: site, endpoints: ["127.0.0.1:1"]}
"""
PORTS = {"web": "8080", "one": "8081", "two": "8082", "proxied": "8083", "six": "8084", "dual": "8085", "mapped": "80"}
HOSTS = {"[::1]:8084": "::1", "[::]:8085": "::"}
GET = "GET / HTTP/1.1\r\nHost: a.test\r\n"
PLAIN = ("GET / HTTP/1.1", "host: a.test")


@pytest.mark.parametrize(
    ("listener", "given", "sent"),
    [
        ("web", [], "127.0.0.1"),
        ("web", ["9.9.9.9"], "127.0.0.1"),
        ("mapped", [], "127.0.0.1"),
        ("one", [], "127.0.0.1"),
        ("one", ["9.9.9.9"], "9.9.9.9, 127.0.0.1"),
        ("one", ["8.8.8.8, 9.9.9.9"], "9.9.9.9, 127.0.0.1"),
        ("one", ["8.8.8.8", "9.9.9.9"], "9.9.9.9, 127.0.0.1"),
        ("two", ["9.9.9.9"], "9.9.9.9, 127.0.0.1"),
        ("two", ["7.7.7.7,8.8.8.8 ,\t9.9.9.9,"], "8.8.8.8, 9.9.9.9, 127.0.0.1"),
        ("two", [", ".join(["1.1.1.1"] * 200) + ", 2001:db8::1"], "1.1.1.1, 2001:db8::1, 127.0.0.1"),
    ],
)
def test_x_forwarded_for_is_believed_as_far_as_it_is_trusted(
    connect: Connect, site: Origin, gateway: Gateway, listener: str, given: list[str], sent: str
) -> None:
    """Each proxy in front wrote down its own client: the last trusted_hops entries are theirs, what stands before is hearsay."""
    client = connect(listener)
    client.send(GET + "".join(f"X-Forwarded-For: {value}\r\n" for value in given) + "\r\n")
    origin = site.accept()
    assert origin.request() == forwarded(*PLAIN, x_forwarded_for=sent, x_forwarded_port=PORTS[listener])
    origin.ok()
    assert client.answer().status == 200
    assert gateway.log()[0]["client"] == sent.split(", ")[0]


def test_a_trusted_hop_speaks_for_its_client(connect: Connect, site: Origin) -> None:
    client = connect("one")
    client.send(
        GET + "X-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.test\r\nX-Real-IP: 9.9.9.9\r\nForwarded: for=9.9.9.9\r\n\r\n"
    )
    origin = site.accept()
    said = ("x-forwarded-proto: https", "x-forwarded-host: shop.test", "x-real-ip: 9.9.9.9", "forwarded: for=9.9.9.9")
    head = origin.request().split(b"\r\n")
    for line in said:
        assert head.count(line.encode()) == 1
    assert b"x-forwarded-proto: http" not in head and b"x-forwarded-host: a.test" not in head
    # It did not say on which port it was asked; ours has nothing to do with https.
    assert not [line for line in head if line.startswith(b"x-forwarded-port")]
    origin.ok()
    assert client.answer().status == 200


def test_a_request_id_is_made_or_kept(connect: Connect, site: Origin, gateway: Gateway) -> None:
    client = connect()
    client.send(GET + "X-Request-Id: kept-1\r\n\r\n")
    origin = site.accept()
    assert origin.request() == forwarded(*PLAIN, "x-request-id: kept-1", x_request_id=None)
    origin.ok()
    assert client.answer().status == 200
    assert gateway.log()[0]["request_id"] == "kept-1"
    made = set()
    for value in (None, "", "a b", 'a"b', "x" * 129, "\xe9", "a\\b"):
        client.send(GET + (f"X-Request-Id: {value}\r\n" if value is not None else "") + "\r\n")
        head = origin.until(b"\r\n\r\n")
        ids = re.findall(rb"\r\nx-request-id: ([^\r]*)", head)
        assert len(ids) == 1 and re.fullmatch(rb"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", ids[0])
        made.add(ids[0])
        origin.ok()
        assert client.answer().status == 200
        assert gateway.log()[0]["request_id"].encode() == ids[0]
    assert len(made) == 7
    assert ID.encode() not in made


# PROXY protocol


def v2(command: int, family: int, body: bytes, *, tlvs: bytes = b"") -> bytes:
    return b"\r\n\r\n\0\r\nQUIT\n" + struct.pack(">BBH", 0x20 | command, family, len(body) + len(tlvs)) + body + tlvs


FOUR = socket.inet_aton("192.0.2.7") + socket.inet_aton("192.0.2.8") + struct.pack(">HH", 40000, 80)
SIX = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::7")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::8")
    + struct.pack(">HH", 40000, 80)
)


@pytest.mark.parametrize(
    ("header", "sent"),
    [
        (b"PROXY TCP4 192.0.2.7 192.0.2.8 40000 80\r\n", "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::8 40000 80\r\n", "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", "127.0.0.1"),
        (v2(1, 0x11, FOUR), "192.0.2.7"),
        (v2(1, 0x21, SIX), "2001:db8::7"),
        (v2(1, 0x11, FOUR, tlvs=b"\x04\x00\x03abc"), "192.0.2.7"),
        (v2(0, 0x00, b""), "127.0.0.1"),
        (v2(0, 0x11, FOUR), "127.0.0.1"),
    ],
)
def test_the_proxy_protocol_names_the_client(connect: Connect, site: Origin, gateway: Gateway, header: bytes, sent: str) -> None:
    for cut in CUTS:
        client = connect("proxied")
        client.send(header + GET.encode() + b"\r\n", cut=cut)
        origin = site.accept()
        assert origin.request() == forwarded(*PLAIN, x_forwarded_for=sent, x_forwarded_port=PORTS["proxied"])
        origin.ok()
        assert client.answer().status == 200
        client.kept()
        assert gateway.log()[0]["client"] == sent
        origin.close()


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"PROXY TCP4 192.0.2.7 192.0.2.8 40000 80\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.8 40000\r\n",
        b"PROXY TCP4 2001:db8::7 2001:db8::8 40000 80\r\n",
        b"PROXY TCP4 192.0.2.256 192.0.2.8 40000 80\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.8 65536 80\r\n",
        b"PROXY TCP5 192.0.2.7 192.0.2.8 40000 80\r\n",
        b"PROXY  TCP4 192.0.2.7 192.0.2.8 40000 80\r\n",
        b"proxy TCP4 192.0.2.7 192.0.2.8 40000 80\r\n",
        b"PROXY UNKNOWN " + b"x" * 200,
        v2(1, 0x11, FOUR[:-1]),
        v2(2, 0x11, FOUR),
        b"\r\n\r\n\0\r\nQUIT\n" + b"\x11\x11\0\x0c" + FOUR,
    ],
)
def test_a_connection_without_a_proper_proxy_header_is_closed(connect: Connect, site: Origin, header: bytes) -> None:
    for cut in CUTS:
        client = connect("proxied")
        client.send(header + GET.encode() + b"\r\n", cut=cut)
        client.ended()
    site.untouched()


def test_half_a_proxy_header_has_a_deadline(connect: Connect, site: Origin) -> None:
    for piece in (b"", b"PROXY TCP4 ", v2(1, 0x11, FOUR)[:20]):
        client = connect("proxied")
        client.send(piece)
        client.ended()
    site.untouched()


def test_a_proxy_header_where_none_is_expected_is_no_request(client: Client, site: Origin) -> None:
    """It is the first line of another protocol, whose speaker reads no HTTP: closed, and told in the log."""
    client.send(b"PROXY TCP4 192.0.2.7 192.0.2.8 40000 80\r\n" + GET.encode() + b"\r\n")
    assert client.rest() == b""
    assert client.gateway.log()[0]["flags"] == "DPE"
    site.untouched()


# families


def test_ipv6_and_dual_stack(connect: Connect, site: Origin) -> None:
    for listener, address, sent in (("six", "::1", "::1"), ("dual", "::1", "::1"), ("dual", "127.0.0.1", "127.0.0.1")):
        client = connect(listener, address=address)
        client.send(GET + "\r\n")
        origin = site.accept()
        assert origin.request() == forwarded(*PLAIN, x_forwarded_for=sent, x_forwarded_port=PORTS[listener])
        origin.ok()
        assert client.answer().body == b"ok"
        origin.close()


def test_an_origin_on_ipv6(connect: Connect, gateway: Gateway, settled: None) -> None:
    site = Origin(gateway, "site", socket.AF_INET6)
    passes(connect, site, GET + "\r\n", forwarded(*PLAIN))
    site.close()


def test_an_origin_on_a_unix_socket(connect: Connect, gateway: Gateway, settled: None, tmp_path: Path) -> None:
    site = Origin(gateway, "site", socket.AF_UNIX, str(tmp_path / "s"))
    passes(connect, site, GET + "\r\n", forwarded(*PLAIN))
    site.close()
    client = connect()
    client.send(GET + "\r\n")
    assert client.answer().status == 503
    client.kept()
