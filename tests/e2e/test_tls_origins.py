"""Endpoints reached through TLS: nginx as the origin, and origins that are not who they should be or end without a word."""

import json
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty import Cut, Message, Origin, Wire, client
from gateway_process import Gateway, request
from pki import Authority, days, write_pair
from tls_peers import assert_nothing_raised, counter, needs, records_of, secure, until_quiet
from until import wait_until

AUTHORITY = Authority("Site Authority")
OTHER = Authority("Other Authority")
TEXT = """\
accessLog: {{format: json, path: stdout}}
listeners:
  - {{name: web, address: "127.0.0.1:0"}}
routes:
{routes}
clusters:
{clusters}
"""


def gateway_text(clusters: dict[str, str]) -> str:
    """A configuration with a route by host (NAME.test) for each cluster, which is given without its name."""
    routes = [f"  - {{name: {name}, hostnames: [{name}.test], rules: [{{backendRefs: [{{name: {name}}}]}}]}}" for name in clusters]
    # No test here wants an ejection, or a machine that is too busy to shake hands within a second.
    usual = "connectTimeout: 20s, outlierDetection: {consecutiveErrors: 0}"
    rows = [f"  - {{name: {name}, {usual}, {rest}}}" for name, rest in clusters.items()]
    return TEXT.format(routes="\n".join(routes), clusters="\n".join(rows))


def fetch(gateway: Gateway, name: str, path: str = "/") -> tuple[int, dict[str, str], str]:
    status, fields, body = request(gateway.address(), path, headers={"Host": f"{name}.test"})
    return status, fields, body.decode()


# nginx

NGINX = """\
daemon off; master_process off; pid {home}/nginx.pid; error_log {home}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off; server_tokens off;
  client_body_temp_path {home}/t1; proxy_temp_path {home}/t2; fastcgi_temp_path {home}/t3; uwsgi_temp_path {home}/t4;
  scgi_temp_path {home}/t5;
  ssl_client_certificate {home}/tls/gateway-ca.crt; ssl_verify_client optional;
  ssl_session_cache shared:kept:1m;
  {servers}
}}
"""
NGINX_SERVER = """\
  server {{
    listen unix:{home}/{name}.sock ssl{http2}; ssl_certificate {home}/tls/{name}.crt; ssl_certificate_key {home}/tls/{name}.key;
    ssl_protocols {protocol}; keepalive_requests {requests};
    location / {{
      set $session "$ssl_session_reused|$ssl_protocol|$ssl_server_name|$ssl_client_verify|$ssl_client_s_dn";
      return 200 "$session|$connection|$server_protocol";
    }}
  }}
"""


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of a running nginx, one Unix socket for each certificate."""
    program = shutil.which("nginx")
    assert program is not None
    home = tmp_path_factory.mktemp("nginx")
    leaves = {
        "good": AUTHORITY.issue("site.test"),
        "once": AUTHORITY.issue("site.test"),
        "old": AUTHORITY.issue("site.test"),
        "address": AUTHORITY.issue("192.0.2.1", "site.test"),
        "wrong": AUTHORITY.issue("another.test"),
        "expired": AUTHORITY.issue("site.test", not_before=days(-9), not_after=days(-1)),
        "early": AUTHORITY.issue("site.test", not_before=days(1), not_after=days(9)),
        "unknown": OTHER.issue("site.test"),
        "revoked": AUTHORITY.issue("site.test"),
        "h2": AUTHORITY.issue("site.test"),
    }
    for name, leaf in leaves.items():
        write_pair(home / "tls", name, leaf)
    (home / "tls" / "selfsigned.crt").write_bytes(OTHER.pem)
    (home / "tls" / "selfsigned.key").write_bytes(OTHER.ca.private_key_pem.bytes())
    write_pair(home / "tls", "gateway", OTHER.issue("gateway@isthmus.test", common_name="the-gateway"))
    (home / "tls" / "gateway-ca.crt").write_bytes(OTHER.pem)
    (home / "tls" / "ca.crt").write_bytes(AUTHORITY.pem)
    (home / "tls" / "ca.crl").write_bytes(AUTHORITY.revoke(leaves["revoked"]))
    (home / "tls" / "other.crl").write_bytes(OTHER.revoke())
    servers = [
        NGINX_SERVER.format(
            home=home,
            name=name,
            protocol="TLSv1.2" if name == "old" else "TLSv1.3",
            requests=1 if name in ("once", "old") else 1000,
            http2=" http2" if name == "h2" else "",
        )
        for name in [*leaves, "selfsigned"]
    ]
    # nginx gives its files away to nobody, who has to come in
    for each in (home, *home.parents[:2]):
        each.chmod(0o755)
    (home / "nginx.conf").write_text(NGINX.format(home=home, servers="".join(servers)))
    with (home / "said").open("wb") as said:
        process = subprocess.Popen(
            [program, "-p", str(home), "-c", str(home / "nginx.conf")], stdout=said, stderr=said, start_new_session=True
        )
    try:
        wait_until(lambda: (home / "good.sock").exists() or process.poll() is not None)
        assert process.poll() is None, (home / "said").read_text()
        yield home
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


@pytest.fixture(scope="module")
def before_nginx(nginx: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    def cluster(name: str, **more: str) -> str:
        tls = {"serverName": "site.test", "ca": f"{nginx}/tls/ca.crt", **more}
        return f'endpoints: ["unix:{nginx}/{name}.sock"], tls: {{{", ".join(f"{key}: {value}" for key, value in tls.items())}}}'

    names = ("good", "once", "old", "wrong", "expired", "early", "unknown", "selfsigned")
    shown = f"{{cert: {nginx}/tls/gateway.crt, key: {nginx}/tls/gateway.key}}"
    clusters = {name: cluster(name) for name in names} | {
        "known": cluster("good", clientCertificate=shown),
        "listed": cluster("good", subjectAltNames="[other.test, site.test]"),
        "unlisted": cluster("good", subjectAltNames="[other.test, example.test]"),
        "numbered": cluster("address", serverName="192.0.2.1"),
        "misnumbered": cluster("address", serverName="192.0.2.2"),
        **{
            f"{kind}-{site}": f"protocol: {kind}, {cluster(site)}"
            for kind in ("auto", "HTTP1", "HTTP2")
            for site in ("good", "h2")
        },
        "asked": cluster("good", crl=f"{nginx}/tls/ca.crl"),
        "unasked": cluster("revoked"),
        "revoked": cluster("revoked", crl=f"{nginx}/tls/ca.crl"),
        "unlisted-issuer": cluster("good", crl=f"{nginx}/tls/other.crl"),
    }
    path = tmp_path_factory.mktemp("before-nginx") / "gateway.yaml"
    path.write_text(gateway_text(clusters))
    with Gateway(path, workers=1) as gateway:
        yield gateway
        assert_nothing_raised(gateway)


@needs("nginx")
def test_nginx_is_reached_by_its_name_and_its_connection_kept(before_nginx: Gateway) -> None:
    rows = [fetch(before_nginx, "good")[2].split("|") for _ in range(3)]
    assert rows[0][:5] == [".", "TLSv1.3", "site.test", "NONE", ""], "a fresh session, and nothing shown"
    assert len({row[5] for row in rows}) == 1


@needs("nginx")
@pytest.mark.parametrize(("name", "protocol"), [("once", "TLSv1.3"), ("old", "TLSv1.2")])
def test_nginx_sees_its_session_resumed(before_nginx: Gateway, name: str, protocol: str) -> None:
    """It closes after each answer, so that each request needs a connection of its own."""
    rows = [fetch(before_nginx, name)[2].split("|") for _ in range(4)]
    assert len({row[5] for row in rows}) == 4 and {row[1] for row in rows} == {protocol}
    assert [row[0] for row in rows] == [".", "r", "r", "r"]


@needs("nginx")
def test_nginx_is_shown_the_certificate_of_the_cluster_and_of_no_other(before_nginx: Gateway) -> None:
    fetch(before_nginx, "good")
    row = fetch(before_nginx, "known")[2].split("|")
    assert row[3] == "SUCCESS" and "CN=the-gateway" in row[4]
    assert fetch(before_nginx, "good")[2].split("|")[3] == "NONE", "no connection and no session is shared with another identity"


@needs("nginx")
def test_nginx_is_verified_by_other_names_and_by_address(before_nginx: Gateway) -> None:
    assert fetch(before_nginx, "listed")[2].split("|")[2] == "site.test"
    assert fetch(before_nginx, "numbered")[2].split("|")[2] == "", "an address is no SNI"


@needs("nginx")
@pytest.mark.parametrize(
    ("name", "protocol"),
    {
        "auto-good": "HTTP/1.1",
        "auto-h2": "HTTP/2.0",
        "HTTP1-good": "HTTP/1.1",
        "HTTP1-h2": "HTTP/1.1",
        "HTTP2-h2": "HTTP/2.0",
    }.items(),
)
def test_nginx_and_the_cluster_agree_on_a_protocol(before_nginx: Gateway, name: str, protocol: str) -> None:
    status, _, body = fetch(before_nginx, name)
    assert status == 200 and body.split("|")[6] == protocol


@needs("nginx")
def test_nginx_is_looked_up_in_a_revocation_list_where_there_is_one(before_nginx: Gateway) -> None:
    assert fetch(before_nginx, "asked")[0] == fetch(before_nginx, "unasked")[0] == 200


@needs("nginx")
@pytest.mark.parametrize(
    ("name", "detail"),
    {
        "wrong": "tls_certificate_wrong_name",
        "expired": "tls_certificate_expired",
        "early": "tls_certificate_not_yet_valid",
        "unknown": "tls_certificate_unknown_issuer",
        "selfsigned": "tls_certificate_self_signed",
        "unlisted": "tls_certificate_wrong_name",
        "misnumbered": "tls_certificate_wrong_name",
        "revoked": "tls_certificate_revoked",
        "unlisted-issuer": "tls_no_revocation_list",
        "HTTP2-good": "tls_alert_no_application_protocol",
    }.items(),
)
def test_nginx_with_a_bad_certificate_is_502_whose_reason_is_in_the_log_alone(
    before_nginx: Gateway, name: str, detail: str
) -> None:
    failed = counter(before_nginx, "upstream_tls_handshakes_failed_total")
    status, fields, body = fetch(before_nginx, name)
    assert status == 502
    said = json.dumps(fields) + body
    assert not any(word in said.lower() for word in ("tls", "certificate", "site.test", "sock", "verif", "issuer"))
    # lines of requests before this one may still be on their way
    record = wait_until(lambda: [row for row in records_of(before_nginx, 1) if row["host"] == f"{name}.test"])[-1]
    assert record["status"] == 502 and record["flags"] == "UF" and record["detail"] == detail
    wait_until(lambda: counter(before_nginx, "upstream_tls_handshakes_failed_total") > failed)


# origins of our own


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    home = tmp_path_factory.mktemp("site")
    write_pair(home, "site", AUTHORITY.issue("site.test"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(home / "site.crt", home / "site.key")
    return context


def until_close(origin: Origin, wire: Wire) -> None:
    """An answer whose end is that of the connection: /whole is told by close_notify, /cut by a FIN, /reset by a RST alone."""
    asked = wire.request()
    if asked is None:
        return
    wire.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"x" * 5000)
    assert isinstance(wire.sock, ssl.SSLSocket)
    if asked.target == "/whole":
        wire.sock.unwrap()
    elif asked.target == "/reset":
        wire.reset()
    else:
        wire.sock.shutdown(socket.SHUT_WR)


def test_an_answer_until_close_is_whole_with_close_notify_alone(site: ssl.SSLContext, tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_bytes(AUTHORITY.pem)
    path = tmp_path / "gateway.yaml"
    with Origin(secure(until_close, site)) as origin:
        reached = f'endpoints: ["127.0.0.1:{origin.port}"], tls: {{serverName: site.test, ca: ca.crt}}'
        path.write_text(gateway_text({"site": reached}))
        with Gateway(path, workers=1) as gateway:
            port = int(gateway.address().rpartition(":")[2])

            def ask(target: str, version: str) -> Message:
                with client(port) as wire:
                    wire.send(f"GET {target} HTTP/{version}\r\nHost: site.test\r\n\r\n".encode())
                    try:
                        return wire.response()
                    except ConnectionResetError as error:
                        raise Cut(Message(), "reset") from error

            for version in ("1.1", "1.0"):
                assert ask("/whole", version).body == b"x" * 5000
                for target in ("/cut", "/reset"):
                    with pytest.raises(Cut):
                        ask(target, version)
            rows = records_of(gateway, 6)
            assert {row["flags"] for row in rows if row["path"] == "/whole"} == {"-"}
            assert "-" not in {row["flags"] for row in rows if row["path"] != "/whole"}
            until_quiet(gateway)
            assert_nothing_raised(gateway)
