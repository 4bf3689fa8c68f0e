"""Rate limits whose key is the name in a client's certificate, over real TLS: who is who, and who is nobody."""

import http.client
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from gateway_process import Gateway, Origin
from pki import Authority, days, write_pair

CONFIG = """
accessLog: {{format: off}}
listeners:
  - {{name: shared, address: "127.0.0.1:0", protocol: HTTPS, rateLimits: [shared], tls: {optional}}}
  - {{name: skip, address: "127.0.0.2:0", protocol: HTTPS, rateLimits: [skip], tls: {optional}}}
  - {{name: anybody, address: "127.0.0.3:0", protocol: HTTPS, rateLimits: [shared], tls: {fallback}}}
routes:
  - {{name: all, rules: [{{backendRefs: [{{name: site}}]}}]}}
rateLimits:
  - {{name: shared, limit: {{requests: 3, per: 1h}}, key: [clientSubjectAltName], mode: local}}
  - {{name: skip, limit: {{requests: 3, per: 1h}}, key: [clientSubjectAltName], mode: local, missing: skip}}
clusters:
  - {{name: site, endpoints: ["{origin}"]}}
"""
TLS = "{{certificates: [{{cert: web.crt, key: web.key}}], clientCertificate: {{ca: clients.crt, mode: {}}}}}"
ALL, FEW = [200] * 5, [200] * 3 + [429] * 2


@dataclass
class House:
    """A gateway that nobody has asked yet, and its clients' files."""

    gateway: Gateway
    home: Path

    def ask(self, listener: str, who: str = "", times: int = 5, forged: str = "") -> list[int]:
        """Statuses, each of a connection of its own, so that all workers have some."""
        context = ssl.create_default_context(cafile=str(self.home / "web-ca.crt"))
        context.check_hostname = False
        if who:
            context.load_cert_chain(self.home / f"{who}.crt", self.home / f"{who}.key")
        host, _, port = self.gateway.address(listener).rpartition(":")
        found = []
        for _ in range(times):
            connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=30)
            connection.request("GET", "/", headers={"X-Forwarded-Client-Cert": forged} if forged else {})
            found.append(connection.getresponse().status)
            connection.close()
        return found


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("named")
    web, clients, stranger = Authority("Web"), Authority("Clients"), Authority("Stranger")
    write_pair(home, "web", web.issue("web.test"))
    (home / "web-ca.crt").write_bytes(web.pem)
    (home / "clients.crt").write_bytes(clients.pem)
    for name, host in {"alice": "alice.test", "alice-renewed": "alice.test", "bob": "bob.test"}.items():
        write_pair(home, name, clients.issue(host))
    write_pair(home, "stranger", stranger.issue("alice.test"))
    for name, host in {"cart": "cart.test", "cart-too": "elsewhere.test"}.items():
        write_workload(home, name, clients, "spiffe://shop/cart", host)
    return home


def write_workload(home: Path, name: str, authority: Authority, uri: str, host: str) -> None:
    """NAME.crt and NAME.key, for a URI and a host."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder().issuer_name(authority.certificate.subject).subject_name(x509.Name([]))
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(days(-1)).not_valid_after(days(1))
    names = x509.SubjectAlternativeName([x509.DNSName(host), x509.UniformResourceIdentifier(uri)])
    certificate = builder.add_extension(names, critical=True).sign(authority.key, hashes.SHA256())
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (home / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (home / f"{name}.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, *plain))


@pytest.fixture
def house(files: Path) -> Iterator[House]:
    with Origin() as origin:
        optional, fallback = (TLS.format(mode) for mode in ("optional", "insecureFallback"))
        (files / "gateway.yaml").write_text(CONFIG.format(origin=origin.address, optional=optional, fallback=fallback))
        with Gateway(files / "gateway.yaml", workers=2) as gateway:
            yield House(gateway, files)


def test_each_name_has_a_count_of_its_own(house: House) -> None:
    assert house.ask("shared", "alice") == FEW
    assert house.ask("shared", "bob") == FEW
    assert house.ask("shared", "alice-renewed", 2) == [429] * 2, "another certificate and key, the same name"


def test_a_uri_goes_before_a_host(house: House) -> None:
    assert house.ask("shared", "cart") == FEW
    assert house.ask("shared", "cart-too", 2) == [429] * 2


@pytest.mark.parametrize(("listener", "expected"), [("shared", FEW), ("skip", ALL)])
def test_who_shows_no_certificate_is_counted_with_all_others_or_not_at_all(
    house: House, listener: str, expected: list[int]
) -> None:
    assert house.ask(listener, forged="URI=spiffe://shop/cart") == expected, "a word of its own is no name"
    assert house.ask(listener, forged="Hash=00;DNS=bob.test", times=2) == expected[-2:]
    assert house.ask(listener, "bob") == FEW, "whose count nobody else has touched"


def test_a_name_that_was_not_verified_is_nobodys(house: House) -> None:
    assert house.ask("anybody", "alice") == FEW
    assert house.ask("anybody", "stranger") == FEW, "with the name of alice, and with a count that is not hers"
    assert house.ask("anybody", times=2) == [429] * 2, "but everybody's who is nobody"
