"""openssl s_client and curl against a whole gateway: versions, certificates, sessions, and certificates of clients."""

import hashlib
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from faulty import Origin
from gateway_process import Gateway
from pki import Authority, days, write_pair
from tls_peers import Said, assert_nothing_raised, counter, curl, echo, echoed, needs, s_client
from until import wait_until

pytestmark = [needs("openssl"), needs("curl")]

CONFIG = """\
accessLog: {{format: off}}
listeners:
  - name: web
    address: 127.0.0.1:0
    protocol: HTTPS
    tls:
      certificates:
        - {{cert: tls/web.crt, key: tls/web.key}}
        - {{cert: tls/web-rsa.crt, key: tls/web-rsa.key}}
        - {{cert: tls/star.crt, key: tls/star.key}}
        - {{cert: tls/stapled.crt, key: tls/stapled.key, ocsp: tls/stapled.ocsp}}
        - {{cert: tls/stapled-rsa.crt, key: tls/stapled-rsa.key, ocsp: tls/stapled-rsa.ocsp}}
  - name: modern
    address: 127.0.0.2:0
    protocol: HTTPS
    tls: {{minVersion: "1.3", sessionTickets: false, certificates: [{{cert: tls/web.crt, key: tls/web.key}}]}}
  - name: unasked
    address: 127.0.0.3:0
    protocol: HTTPS
    tls: {{clientCertificate: {{ca: tls/clients.crt, mode: off}}, certificates: [{{cert: tls/web.crt, key: tls/web.key}}]}}
  - name: optional
    address: 127.0.0.4:0
    protocol: HTTPS
    tls: {{clientCertificate: {{ca: tls/clients.crt, mode: optional}}, certificates: [{{cert: tls/web.crt, key: tls/web.key}}]}}
  - name: required
    address: 127.0.0.5:0
    protocol: HTTPS
    tls:
      clientCertificate: {{ca: tls/clients.crt, mode: require, crl: tls/clients.crl}}
      certificates: [{{cert: tls/web.crt, key: tls/web.key}}]
  - name: shallow
    address: 127.0.0.6:0
    protocol: HTTPS
    tls:
      clientCertificate: {{ca: tls/root.crt, mode: require, depth: 0}}
      certificates: [{{cert: tls/web.crt, key: tls/web.key}}]
  - name: deep
    address: 127.0.0.7:0
    protocol: HTTPS
    tls:
      clientCertificate: {{ca: tls/root.crt, mode: require, depth: 1}}
      certificates: [{{cert: tls/web.crt, key: tls/web.key}}]
  - name: lax
    address: 127.0.0.8:0
    protocol: HTTPS
    tls:
      clientCertificate: {{ca: tls/clients.crt, mode: insecureFallback, crl: tls/clients.crl, depth: 0}}
      certificates: [{{cert: tls/web.crt, key: tls/web.key}}]
  - name: lax-ended
    address: 127.0.0.9:0
    protocol: TLS
    tls:
      clientCertificate: {{ca: tls/clients.crt, mode: insecureFallback}}
      certificates: [{{cert: tls/web.crt, key: tls/web.key}}]
routes:
  - {{name: carried, kind: TLSRoute, listeners: [lax-ended], hostnames: [web.test], rules: [{{backendRefs: [{{name: site}}]}}]}}
  - {{name: all, rules: [{{backendRefs: [{{name: site}}]}}]}}
clusters:
  - {{name: site, endpoints: ["{origin}"]}}
"""
VERSIONS = {"-tls1_2": "TLSv1.2", "-tls1_3": "TLSv1.3"}


@dataclass
class House:
    """The gateway, what stands behind it, and the files that its clients use."""

    gateway: Gateway
    origin: Origin
    files: Path
    ca: Path

    def at(self, listener: str = "web") -> str:
        return self.gateway.address(listener)

    def ask(self, *options: str, listener: str = "web") -> Said:
        return s_client(self.at(listener), "-CAfile", str(self.ca), "-verify_return_error", *options)

    def fetch(self, *options: str, listener: str = "web", path: str = "/", who: str = "") -> Said:
        shown = ["--cert", str(self.files / f"{who}.crt"), "--key", str(self.files / f"{who}.key")] if who else []
        return curl(self.at(listener), self.ca, *shown, *options, path=path)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    home = tmp_path_factory.mktemp("clients")
    files = home / "tls"
    root = Authority("Root")
    web = Authority("Web", is_intermediate_of=root)
    clients = Authority("Clients")
    inner = Authority("Inner", is_intermediate_of=root)
    write_pair(files, "web", web.issue("web.test"))
    write_pair(files, "web-rsa", root.issue("web.test", rsa=True))
    write_pair(files, "star", root.issue("*.star.test"))
    for name in ("stapled", "stapled-rsa"):
        stapled = root.issue("stapled.test", rsa=name == "stapled-rsa")
        write_pair(files, name, stapled)
        (files / f"{name}.ocsp").write_bytes(root.answer(stapled))
    for name, authority in {"root": root, "clients": clients}.items():
        (files / f"{name}.crt").write_bytes(authority.pem)
    revoked = clients.issue("revoked@clients.test")
    write_pair(files, "alice", clients.issue("alice@clients.test", "alice.test", common_name="Alice, of \"Test\""))
    write_pair(files, "revoked", revoked)
    write_pair(files, "expired", clients.issue("old.test", not_before=days(-9), not_after=days(-1)))
    write_pair(files, "stranger", Authority("Stranger").issue("stranger.test"))
    write_pair(files, "deep", Authority("Below", is_intermediate_of=clients).issue("deep.test"))
    write_pair(files, "inner", inner.issue("inner.test"))
    write_pair(files, "outer", root.issue("outer.test"))
    (files / "clients.crl").write_bytes(clients.revoke(revoked))
    with Origin(echo) as origin:
        (home / "gateway.yaml").write_text(CONFIG.format(origin=f"127.0.0.1:{origin.port}"))
        with Gateway(home / "gateway.yaml", workers=1) as gateway:
            yield House(gateway, origin, files, files / "root.crt")
            assert_nothing_raised(gateway)


# versions, ciphers, certificates


@pytest.mark.parametrize("version", VERSIONS)
def test_openssl_is_served_by_both_versions_and_sees_a_whole_chain(house: House, version: str) -> None:
    """The root is all that the client knows, so the intermediate came along; the end is a close_notify."""
    said = house.ask(version, "-showcerts", "-sigalgs", "ECDSA+SHA256", "-alpn", "http/1.1")
    assert said.value(r"^New, (\S+), Cipher") == VERSIONS[version]
    assert said.value(r"Verification: (.*)$") == "OK" and said.text.count("BEGIN CERTIFICATE") == 2
    assert said.value(r"ALPN protocol: (\S+)") == "http/1.1"
    assert said.value(r"^(HTTP/1.1 200 OK)") and echoed(said)["x-forwarded-proto"] == ["https"]
    assert "closed" in said.text and "unexpected eof" not in said.text


def test_old_versions_and_weak_ciphers_are_refused(house: House) -> None:
    weak = "-cipher", "ALL:@SECLEVEL=0"
    assert "protocol version" in house.ask("-tls1_1", *weak).text
    assert "handshake failure" in house.ask("-tls1_2", "-cipher", "AES128-SHA:AES128-GCM-SHA256:ECDHE-RSA-AES128-SHA").text
    assert "protocol version" in house.ask("-tls1_2", listener="modern").text
    assert house.ask("-tls1_3", listener="modern").value(r"^(HTTP/1.1 200 OK)")


def test_a_client_gets_the_kind_of_certificate_that_it_can_check(house: House) -> None:
    """An ECDSA and an RSA one stand side by side for one name, in TLS 1.3 by signature and in 1.2 by cipher."""
    kinds = r"Peer signature type: (\S+)"
    assert house.ask("-tls1_3", "-sigalgs", "ECDSA+SHA256").value(kinds) == "ECDSA"
    assert house.ask("-tls1_3", "-sigalgs", "RSA-PSS+SHA256").value(kinds) == "RSA-PSS"
    assert house.ask("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256").value(kinds) == "ECDSA"
    assert house.ask("-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256").value(kinds).startswith("RSA")
    assert house.ask("-tls1_3").value(kinds) == "ECDSA", "the cheaper one, where a client has no wish"


def test_names_choose_certificates(house: House) -> None:
    def subject_names(name: str | None) -> str:
        said = s_client(house.at(), "-CAfile", str(house.ca), name=name)
        pem = said.value(r"(?s)(-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----)")
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()

    shown = {name: hashlib.sha256(leaf_der(house.files / f"{name}.crt")).hexdigest() for name in ("web", "star", "stapled")}
    assert subject_names("web.test") == shown["web"]
    assert subject_names("a.star.test") == subject_names("B.STAR.test") == shown["star"]
    assert subject_names("stapled.test") == shown["stapled"]
    assert subject_names("a.b.star.test") == subject_names(None) == shown["web"], "a star is one label; the first is the default"


def leaf_der(path: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(path.read_text().partition("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----")


def test_no_protocol_in_common_ends_the_handshake(house: House) -> None:
    assert "no application protocol" in house.ask("-alpn", "acme-tls/1").text


def test_a_response_about_revocation_is_stapled_where_there_is_one(house: House) -> None:
    def stapled(*options: str) -> int:
        said = s_client(house.at(), "-CAfile", str(house.ca), "-status", *options, name="stapled.test")
        assert said.value(r"OCSP Response Status: (\w+)") == "successful" and said.value(r"Cert Status: (\w+)") == "good"
        return int(said.value(r"Serial Number: ([0-9A-F]+)"), 16)

    def serial(name: str) -> int:
        return x509.load_pem_x509_certificate((house.files / f"{name}.crt").read_bytes()).serial_number

    # Each kind of certificate brings the response that speaks of it, in both versions.
    assert stapled("-sigalgs", "ECDSA+SHA256") == serial("stapled")
    assert stapled("-sigalgs", "RSA-PSS+SHA256") == serial("stapled-rsa")
    assert stapled("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256") == serial("stapled")
    assert stapled("-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256") == serial("stapled-rsa")
    assert "OCSP response: no response sent" in house.ask("-status").text


def test_nobody_renegotiates(house: House) -> None:
    command = ["openssl", "s_client", "-connect", house.at(), "-tls1_2"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"R\n")
        process.stdin.flush()
        # it is told at once, and not when the connection has idled for a minute
        wait_until(lambda: process.poll() is not None)
        text = process.stdout.read()
    assert b"RENEGOTIATING" in text and b"no renegotiation" in text


# sessions


@pytest.mark.parametrize("version", VERSIONS)
def test_openssl_resumes_its_session(house: House, version: str, tmp_path: Path) -> None:
    kept = str(tmp_path / "session")
    before = counter(house.gateway, "tls_handshakes_resumed_total")
    assert house.ask(version, "-sess_out", kept).value(r"^(New), ")
    said = house.ask(version, "-sess_in", kept)
    assert said.value(r"^(Reused), ") and said.value(r"^(HTTP/1.1 200 OK)")
    assert counter(house.gateway, "tls_handshakes_resumed_total") == before + 1


def test_without_tickets_nothing_is_resumed(house: House, tmp_path: Path) -> None:
    kept = tmp_path / "session"
    house.ask("-sess_out", str(kept), listener="modern")
    assert not kept.exists() or house.ask("-sess_in", str(kept), listener="modern").value(r"^(New), ")


def test_curl_is_served_by_both_versions_and_resumes(house: House) -> None:
    for option, version in (("1.2", "TLSv1.2"), ("1.3", "TLSv1.3")):
        before = counter(house.gateway, "tls_handshakes_resumed_total")
        # two transfers of one process that may not share a connection
        twice = ["-H", "Connection: close", "-o", "/dev/null", f"https://web.test:{house.at().rpartition(':')[2]}/second"]
        said = house.fetch("--http1.1", "--tls-max", option, f"--tlsv{option}", *twice, path="/first")
        assert said.status == 0 and said.text.count("< HTTP/1.1 200 OK") == 2
        assert f"SSL connection using {version}" in said.text and "SSL certificate verify ok" in said.text
        assert "ALPN: server accepted http/1.1" in said.text
        # curl asks for no ticket in TLS 1.2 (before 8.10), and there is no other way to resume here
        resumed = counter(house.gateway, "tls_handshakes_resumed_total") - before
        assert resumed == 1 if option == "1.3" else resumed in (0, 1)


def test_curl_uploads_and_keeps_its_connection(house: House, tmp_path: Path) -> None:
    content = tmp_path / "content"
    content.write_bytes(bytes(range(256)) * 4096)
    port = house.at().rpartition(":")[2]
    said = house.fetch("--http1.1", "-T", str(content), f"https://web.test:{port}/again", "-T", str(content), path="/up")
    assert said.status == 0 and said.text.count("< HTTP/1.1 200 OK") == 2 and "Re-using existing connection" in said.text
    assert [len(each.body) for each in house.origin.requests if each.method == "PUT"] == [1 << 20] * 2


# clients' certificates


FORGED = "X-Forwarded-Client-Cert: Hash=00;Subject=\"CN=root\""


def refused(house: House, listener: str, who: str, version: str) -> str:
    """The client's end of a connection on which nothing may reach the origin; what curl says."""
    before = len(house.origin.requests), counter(house.gateway, "tls_handshakes_failed_total")
    said = house.fetch("--http1.1", "--tls-max", version, listener=listener, who=who)
    assert said.status != 0 and len(house.origin.requests) == before[0]
    wait_until(lambda: counter(house.gateway, "tls_handshakes_failed_total") == before[1] + 1)
    return said.text


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("listener", ["optional", "required"])
def test_a_verified_client_is_told_to_the_origin_and_a_forged_word_is_not(house: House, listener: str, version: str) -> None:
    said = house.fetch("--http1.1", "--tls-max", version, "-H", FORGED, listener=listener, who="alice")
    (value,) = echoed(said)["x-forwarded-client-cert"]
    alice = leaf_der(house.files / "alice.crt")
    assert value.startswith(f"Hash={hashlib.sha256(alice).hexdigest()};Subject=\"")
    assert "CN=Alice\\, of \\22Test\\22" in value and "DNS=alice.test" in value and value.count('"') == 2


@pytest.mark.parametrize("listener", ["web", "unasked", "optional"])
def test_a_client_without_a_certificate_cannot_claim_one(house: House, listener: str) -> None:
    said = house.fetch("--http1.1", "-H", FORGED, listener=listener)
    assert said.status == 0 and "x-forwarded-client-cert" not in echoed(said)


def test_who_does_not_ask_does_not_look(house: House) -> None:
    said = house.fetch("--http1.1", listener="unasked", who="stranger")
    assert said.status == 0 and "x-forwarded-client-cert" not in echoed(said)


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_who_must_show_a_certificate_and_does_not_is_refused(house: House, version: str) -> None:
    text = refused(house, "required", "", version)
    assert "certificate required" in text if version == "1.3" else "handshake failure" in text


@pytest.mark.parametrize(
    ("who", "alert"), [("stranger", "unknown ca"), ("expired", "certificate expired"), ("revoked", "certificate revoked")]
)
def test_bad_certificates_are_refused_with_their_alert(house: House, who: str, alert: str) -> None:
    assert alert in refused(house, "required", who, "1.3")
    assert alert in refused(house, "required", who, "1.2")


@pytest.mark.parametrize("who", ["stranger", "expired"])
def test_an_optional_certificate_is_good_or_absent(house: House, who: str) -> None:
    refused(house, "optional", who, "1.3")


def test_depth_counts_the_certificates_between(house: House) -> None:
    """A client's certificate with one intermediate: too deep for 0, and not for 1."""
    assert house.fetch("--http1.1", listener="shallow", who="outer").status == 0
    refused(house, "shallow", "inner", "1.3")
    said = house.fetch("--http1.1", listener="deep", who="inner")
    assert "DNS=inner.test" in echoed(said)["x-forwarded-client-cert"][0]


def test_a_resumed_session_is_still_the_same_client(house: House, tmp_path: Path) -> None:
    kept = str(tmp_path / "session")
    shown = "-cert", str(house.files / "alice.crt"), "-key", str(house.files / "alice.key")
    first = house.ask(*shown, "-sess_out", kept, listener="required")
    second = house.ask("-sess_in", kept, listener="required")
    assert second.value(r"^(Reused), ")
    assert echoed(second)["x-forwarded-client-cert"] == echoed(first)["x-forwarded-client-cert"]


def test_a_session_of_a_listener_that_asks_nothing_opens_no_other(house: House, tmp_path: Path) -> None:
    """Tickets of one listener are worth nothing where a certificate is required."""
    kept = str(tmp_path / "session")
    house.ask("-sess_out", kept)
    before = len(house.origin.requests)
    said = house.ask("-sess_in", kept, listener="required")
    assert "HTTP/1.1 200" not in said.text and len(house.origin.requests) == before



# who is let in whatever the certificate says


@pytest.mark.parametrize("protocol", ["--http1.1", "--http2"])
@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("who", ["", "stranger", "expired", "revoked", "deep"])
def test_who_is_not_verified_is_let_in_as_nobody(house: House, who: str, version: str, protocol: str) -> None:
    """GatewayFrontendClientCertificateValidationInsecureFallback: nothing of a certificate that fails is told."""
    before = counter(house.gateway, "tls_clients_unverified_total"), counter(house.gateway, "tls_handshakes_failed_total")
    said = house.fetch(protocol, "--tls-max", version, "-H", FORGED, listener="lax", who=who)
    assert said.status == 0 and "x-forwarded-client-cert" not in echoed(said)
    assert counter(house.gateway, "tls_clients_unverified_total") == before[0] + 1
    assert counter(house.gateway, "tls_handshakes_failed_total") == before[1]


@pytest.mark.parametrize("protocol", ["--http1.1", "--http2"])
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_who_is_verified_is_told_where_anybody_is_let_in(house: House, version: str, protocol: str) -> None:
    before = counter(house.gateway, "tls_clients_unverified_total")
    said = house.fetch(protocol, "--tls-max", version, "-H", FORGED, listener="lax", who="alice")
    (value,) = echoed(said)["x-forwarded-client-cert"]
    assert value.startswith(f"Hash={hashlib.sha256(leaf_der(house.files / 'alice.crt')).hexdigest()};")
    assert counter(house.gateway, "tls_clients_unverified_total") == before


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("who", ["alice", "stranger"])
def test_where_anybody_is_let_in_each_connection_is_verified(house: House, who: str, version: str, tmp_path: Path) -> None:
    """A session says too little of how the verification went, so none is resumed: who comes without a certificate is nobody."""
    kept = str(tmp_path / "session")
    shown = "-cert", str(house.files / f"{who}.crt"), "-key", str(house.files / f"{who}.key")
    first = house.ask(version, *shown, "-sess_out", kept, listener="lax")
    assert ("x-forwarded-client-cert" in echoed(first)) == (who == "alice")
    second = house.ask(version, *(["-sess_in", kept] if Path(kept).exists() else []), listener="lax")
    assert second.value(r"^(New|Reused), ") == "New" and "x-forwarded-client-cert" not in echoed(second)


@pytest.mark.parametrize("who", ["", "stranger", "alice"])
def test_a_connection_that_is_carried_on_is_let_in_too(house: House, who: str) -> None:
    said = house.fetch("--http1.1", listener="lax-ended", who=who)
    assert said.status == 0 and "x-forwarded-client-cert" not in echoed(said)
