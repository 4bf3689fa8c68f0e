"""A real gateway that ends TLS: certificates that change under it, slips that must not hurt, and what it says about them."""

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from gateway_process import Gateway, Origin, command, request
from pki import Authority, chain_of, days, key_of, leaf_of, write_pair
from until import wait_until

AUTHORITY = Authority()
TEXT = """\
admin: {{address: "127.0.0.1:0"}}
accessLog: {{format: off}}
listeners:
  - name: web
    address: 127.0.0.1:0
    protocol: HTTPS
    tls: {{certificates: [{{cert: tls/web.crt, key: tls/web.key}}]}}
  - {{name: raw, address: "127.0.0.2:0", protocol: TCP}}
routes:
  - {{name: r, rules: [{{backendRefs: [{{name: app}}]}}]}}
  - {{name: raw, kind: TCPRoute, rules: [{{backendRefs: [{{name: app}}]}}]}}
clusters:
  - {{name: app, endpoints: ["{origin}"]}}
"""


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as running:
        yield running


@pytest.fixture
def config(tmp_path: Path, origin: Origin) -> Path:
    write_pair(tmp_path / "tls", "web", AUTHORITY.issue("web.test"))
    path = tmp_path / "gateway.yaml"
    path.write_text(TEXT.format(origin=origin.address))
    return path


def trusting(authority: Authority = AUTHORITY) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=authority.pem.decode())


def secure_connection(address: str, name: str = "web.test", context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
    host, _, port = address.rpartition(":")
    plain = socket.create_connection((host, int(port)), timeout=30)
    return (context or trusting()).wrap_socket(plain, server_hostname=name)


def serial_of(connection: ssl.SSLSocket) -> int:
    der = connection.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


def serial_shown(address: str) -> int:
    with secure_connection(address) as connection:
        return serial_of(connection)


def ask(connection: ssl.SSLSocket, path: str = "/") -> bytes:
    """One exchange on a connection that stays; the content of the answer."""
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: web.test\r\n\r\n".encode())
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.read()


def replace_pair(directory: Path, name: str, leaf: object, *, key: bytes | None = None) -> None:
    """As certbot and the like do: two files, one after the other."""
    for suffix, content in (("crt", chain_of(leaf)), ("key", key if key is not None else key_of(leaf))):  # type: ignore[arg-type]
        fresh = directory / f".{name}.{suffix}.new"
        fresh.write_bytes(content)
        fresh.replace(directory / f"{name}.{suffix}")


def test_it_says_where_tls_is_spoken_and_what_it_shows(config: Path) -> None:
    with Gateway(config, workers=1) as gateway:
        wait_until(lambda: f"listening on https://{gateway.address('web')}  (web)" in gateway.stderr)
        wait_until(lambda: f"listening on tcp://{gateway.address('raw')}  (raw)" in gateway.stderr)
        with secure_connection(gateway.address("web")) as connection:
            assert ask(connection, "/hello") == b"origin /hello\n"
            assert connection.version() == "TLSv1.3"
        rows = gateway.ask("/config/certificates")
        leaf = x509.load_pem_x509_certificate((config.parent / "tls" / "web.crt").read_bytes())
        assert [(row["listener"], row["names"], row["file"], row["key"]) for row in rows] == [
            ("web", ["web.test"], "tls/web.crt", "EC secp256r1")
        ]
        assert rows[0]["fingerprint"] == leaf.fingerprint(hashes.SHA256()).hex() and rows[0]["expires_in_days"] > 30
        expiry = f"{leaf.not_valid_after_utc.timestamp():.1f}"
        metrics = request(gateway.admin, "/metrics")[2].decode()
        row = next(line for line in metrics.splitlines() if line.startswith("isthmus_certificate_expiry_timestamp_seconds{"))
        assert 'listener="web"' in row and 'host="web.test"' in row and float(row.rpartition(" ")[2]) == float(expiry)
        assert "isthmus_tls_handshakes_total 1.0" in metrics


def test_a_new_certificate_is_shown_and_no_connection_is_lost(config: Path) -> None:
    with Gateway(config, workers=2) as gateway:
        address = gateway.address("web")
        with secure_connection(address) as old:
            before = serial_of(old)
            fresh = AUTHORITY.issue("web.test")
            replace_pair(config.parent / "tls", "web", fresh)
            wait_until(lambda: {serial_shown(address) for _ in range(4)} == {leaf_of(fresh).serial_number})
            assert ask(old) == b"origin /\n" and serial_of(old) == before
        assert gateway.revision == 1, "no route is different"
        assert gateway.ask("/config/certificates")[0]["serial"] == f"{leaf_of(fresh).serial_number:x}"
        wait_until(lambda: "certificates and authorities for web" in gateway.stderr)


def test_a_bad_pair_keeps_the_old_one_until_it_is_good(config: Path) -> None:
    with Gateway(config, workers=1) as gateway:
        address = gateway.address("web")
        before = serial_shown(address)
        fresh, other = AUTHORITY.issue("web.test"), AUTHORITY.issue("web.test")
        replace_pair(config.parent / "tls", "web", fresh, key=key_of(other))
        wait_until(lambda: gateway.ask("/config/problems")["problems"])
        (problem,) = gateway.ask("/config/problems")["problems"]
        assert problem["key"] == "listeners[0].tls.certificates[0].key" and problem["line"] == 7 and not problem["fatal"]
        assert problem["message"].endswith("web.key: is not the key of the certificate; the last good one stays in use")
        assert serial_shown(address) == before
        # A worker that is born now gets the last good one too.
        pid = gateway.serving()[0]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: gateway.serving() not in ([], [pid]))
        assert serial_shown(address) == before
        (config.parent / "tls" / "web.key").write_bytes(key_of(fresh))
        wait_until(lambda: serial_shown(address) == leaf_of(fresh).serial_number)
        assert gateway.ask("/config/problems")["problems"] == []
        secret = [*key_of(fresh).decode().splitlines()[1:-1], *key_of(other).decode().splitlines()[1:-1]]
        shown = gateway.stderr + json.dumps([gateway.ask(path) for path in ("/config", "/config/certificates", "/stats")])
        assert not any(line in shown for line in secret)


def test_a_mounted_secret_is_swapped_and_sighup_looks_again(config: Path) -> None:
    mounted = config.parent / "mounted"
    for version in ("..v1", "..v2"):
        write_pair(mounted / version, "tls", AUTHORITY.issue("web.test"))
    (mounted / "..data").symlink_to("..v1")
    for name in ("tls.crt", "tls.key"):
        (mounted / name).symlink_to(f"..data/{name}")
    config.write_text(config.read_text().replace("tls/web.", "mounted/tls."))
    serials = {
        version: x509.load_pem_x509_certificate((mounted / version / "tls.crt").read_bytes()).serial_number
        for version in ("..v1", "..v2")
    }
    with Gateway(config, workers=1) as gateway:
        address = gateway.address("web")
        assert serial_shown(address) == serials["..v1"]
        (mounted / "..tmp").symlink_to("..v2")
        (mounted / "..tmp").replace(mounted / "..data")
        wait_until(lambda: serial_shown(address) == serials["..v2"])
        gateway.signal(signal.SIGHUP)
        wait_until(lambda: "SIGHUP" in gateway.stderr or gateway.stats()["revision"] == 1)
        assert serial_shown(address) == serials["..v2"]


def test_an_expiring_certificate_is_told(config: Path) -> None:
    write_pair(config.parent / "tls", "web", AUTHORITY.issue("web.test", not_before=days(-80), not_after=days(5)))
    with Gateway(config, workers=1) as gateway:
        (problem,) = gateway.ask("/config/problems")["problems"]
        assert problem["severity"] == "warning" and "in less than 7 days" in problem["message"]
        wait_until(lambda: "in less than 7 days" in gateway.stderr)


def test_without_any_certificate_it_does_not_start(config: Path) -> None:
    (config.parent / "tls" / "web.key").unlink()
    config.write_text(config.read_text().replace('  - {name: raw, address: "127.0.0.2:0", protocol: TCP}\n', ""))
    ended = subprocess.run(
        command("run", "--config", str(config)), capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
    assert ended.returncode == 1
    assert "tls/web.key: cannot be read: No such file or directory; the listener is left out" in ended.stderr
    assert "none of the listeners can be opened" in ended.stderr and "PRIVATE" not in ended.stderr


def test_endpoints_are_verified_and_changed_authorities_count_from_then_on(config: Path, tmp_path: Path) -> None:
    """Upstream TLS: the wrong authority is 502, the right one serves, both without a restart."""
    leaf = AUTHORITY.issue("origin.test")
    write_pair(tmp_path / "tls", "origin", leaf)
    (tmp_path / "tls" / "ca.crt").write_bytes(Authority("Other").pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls" / "origin.crt", tmp_path / "tls" / "origin.key")
    with SecureOrigin(context) as origin:
        text = config.read_text().replace("protocol: HTTPS\n", "protocol: HTTP\n").replace(
            "    tls: {certificates: [{cert: tls/web.crt, key: tls/web.key}]}\n", ""
        )
        text = text[: text.index("clusters:")]
        config.write_text(
            f"{text}clusters:\n  - name: app\n    endpoints: ['{origin.address}']\n"
            "    tls: {serverName: origin.test, ca: tls/ca.crt}\n"
        )
        with Gateway(config, workers=1) as gateway:
            status, _, body = request(gateway.address("web"))
            assert status == 502 and b"certificate" not in body and b"TLS" not in body
            (tmp_path / "tls" / "ca.crt").write_bytes(AUTHORITY.pem)
            wait_until(lambda: request(gateway.address("web"))[0] == 200)


class SecureOrigin:
    """Answers every request of a TLS connection with 200; broken handshakes are its everyday life."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "SecureOrigin":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(30)

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._server.accept()
            except OSError:
                return
            plain.settimeout(10)
            try:
                with self._context.wrap_socket(plain, server_side=True) as connection:
                    while b"\r\n\r\n" in connection.recv(65536):
                        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n")
            except OSError:
                continue


@pytest.mark.slow
def test_handshakes_while_certificates_swap(config: Path) -> None:
    """None of many handshakes fails, and each shows a certificate that has been there at some time."""
    with Gateway(config, workers=2) as gateway:
        address = gateway.address("web")
        directory = config.parent / "tls"
        leaves = [AUTHORITY.issue("web.test") for _ in range(4)]
        known = {serial_shown(address)} | {leaf_of(leaf).serial_number for leaf in leaves}
        seen: set[int] = set()
        failures: list[Exception] = []
        stop = threading.Event()

        def shake() -> None:
            while not stop.is_set():
                try:
                    seen.add(serial_shown(address))
                except Exception as error:
                    failures.append(error)
                    return

        thread = threading.Thread(target=shake)
        thread.start()
        try:
            for leaf in leaves:
                replace_pair(directory, "web", leaf)
                wait_until(lambda leaf=leaf: leaf_of(leaf).serial_number in seen or failures)
        finally:
            stop.set()
            thread.join(30)
        assert not failures and seen <= known and len(seen) >= len(leaves)
