"""Connections that are carried as they are, with real programs at both ends: openssl and curl up to the origin's own certificate,
and much of anything through a TCP listener."""

import contextlib
import hashlib
import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from data_plane import DataPlane
from gateway_process import Gateway

PATIENCE = 30.0


class Server:
    """Accepts, and runs `talk` with each connection in a thread of its own; with a TLS context, behind a handshake."""

    def __init__(self, talk: Callable[[socket.socket], object], context: ssl.SSLContext | None = None) -> None:
        self._talk, self._context = talk, context
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                end, _ = self._listening.accept()
                end.settimeout(PATIENCE)
                threading.Thread(target=self._serve, args=(end,), daemon=True).start()

    def _serve(self, end: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self._context is not None:
                end = self._context.wrap_socket(end, server_side=True)
            with end:
                self._talk(end)
                if isinstance(end, ssl.SSLSocket):
                    end.unwrap()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: Any) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


def echo(end: socket.socket) -> None:
    while piece := end.recv(1 << 16):
        end.sendall(piece)


def greet(end: socket.socket) -> None:
    """One answer in HTTP."""
    got = b""
    while b"\r\n\r\n" not in got:
        got += end.recv(1 << 16)
    end.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def trusted(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trust") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


@pytest.fixture(scope="module")
def shown(authority: trustme.CA) -> ssl.SSLContext:
    """What the origin shows; nobody else has it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("a.test", "b.test").configure_cert(context)
    return context


def tls_config(port: int, address: str = "127.0.0.1:0") -> dict[str, Any]:
    return {
        "listeners": [{"name": "pass", "address": address, "protocol": "TLS"}],
        "routes": [{"name": "to", "kind": "TLSRoute", "hostnames": ["a.test"], "rules": [{"backendRefs": [{"name": "origin"}]}]}],
        "clusters": [{"name": "origin", "endpoints": [f"127.0.0.1:{port}"]}],
    }


def tcp_config(port: int) -> dict[str, Any]:
    return {
        "listeners": [{"name": "raw", "address": "127.0.0.1:0", "protocol": "TCP"}],
        "routes": [{"name": "to", "kind": "TCPRoute", "rules": [{"backendRefs": [{"name": "origin"}]}]}],
        "clusters": [{"name": "origin", "endpoints": [f"127.0.0.1:{port}"]}],
    }


@pytest.fixture
def plane(shown: ssl.SSLContext) -> Iterator[DataPlane]:
    with Server(greet, shown) as server, DataPlane(tls_config(server.port)) as running:
        yield running


def openssl(port: int, *more: str) -> tuple[int, str]:
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-ign_eof", *more]
    done = subprocess.run(command, input=b"GET / HTTP/1.1\r\n\r\n", capture_output=True, timeout=PATIENCE, check=False)
    return done.returncode, (done.stdout + done.stderr).decode("latin-1")


# ---- TLS


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_verifies_the_origin_through_the_gateway(plane: DataPlane, trusted: Path, version: str) -> None:
    code, said = openssl(
        plane.port, "-servername", "a.test", version, "-CAfile", str(trusted), "-verify_return_error", "-verify_hostname", "a.test"
    )
    assert code == 0 and "hello\n" in said and "Verify return code: 0 (ok)" in said, said
    record = plane.record()
    assert (record["host"], record["protocol"], record["flags"]) == ("a.test", "TLS", "-")


@pytest.mark.parametrize("more", [["-noservername"], ["-servername", "b.test"]], ids=["no name", "another name"])
def test_openssl_is_told_that_nobody_has_the_name(plane: DataPlane, more: list[str]) -> None:
    code, said = openssl(plane.port, *more)
    assert code != 0 and "SSL alert number 112" in said, said
    assert plane.record()["flags"] == "NR"


def test_curl_gets_a_page_through_the_gateway(plane: DataPlane, trusted: Path) -> None:
    command = ["curl", "-sS", "--max-time", str(PATIENCE), "--cacert", str(trusted)]
    command += ["--resolve", f"a.test:{plane.port}:127.0.0.1", f"https://a.test:{plane.port}/"]
    done = subprocess.run(command, capture_output=True, timeout=2 * PATIENCE, check=False)
    assert (done.returncode, done.stdout) == (0, b"hello\n"), done.stderr


def test_nobody_behind_the_gateway(shown: ssl.SSLContext, trusted: Path) -> None:
    with Server(greet, shown) as server:
        config = tls_config(server.port)
    with DataPlane(config) as plane:
        code, said = openssl(plane.port, "-servername", "a.test")
        assert code != 0 and "SSL alert number 80" in said, said
        assert plane.record()["flags"] == "UF"


# ---- TCP


def digest(end: socket.socket, n: int) -> str:
    seen, left = hashlib.sha256(), n
    while left and (piece := end.recv(min(left, 1 << 18))):
        seen.update(piece)
        left -= len(piece)
    return seen.hexdigest()


def test_much_comes_back_as_it_went_and_nothing_is_kept() -> None:
    """Enough at once for the bytes to go from socket to socket without being seen; slow and fast, both ways."""
    with Server(echo) as server, DataPlane(tcp_config(server.port)) as plane:
        before = plane.descriptors()
        text = hashlib.shake_256(b"much").digest(1 << 20) * 24
        for n in (1 << 20, len(text)):
            with socket.create_connection(("127.0.0.1", plane.port), timeout=PATIENCE) as client:
                sender = threading.Thread(target=client.sendall, args=(text[:n],))
                sender.start()
                assert digest(client, n) == hashlib.sha256(text[:n]).hexdigest()
                sender.join()
                client.sendall(b"and now little")
                assert digest(client, 14) == hashlib.sha256(b"and now little").hexdigest()
                client.shutdown(socket.SHUT_WR)
                assert client.recv(1) == b""
        first, second = plane.records(2)
        assert (first["bytes_in"], first["bytes_out"]) == ((1 << 20) + 14,) * 2
        assert (second["bytes_in"], second["bytes_out"]) == (len(text) + 14,) * 2
        # spare pipes stay open, as spare memory does
        plane.until(lambda: plane.descriptors() <= before + 4)
        assert plane.ask("connections")["open"] == 0


def test_many_at_once_each_get_their_own() -> None:
    with Server(echo) as server, DataPlane(tcp_config(server.port)) as plane:
        problems: list[object] = []

        def talk(number: int) -> None:
            try:
                with socket.create_connection(("127.0.0.1", plane.port), timeout=PATIENCE) as client:
                    for turn in range(20):
                        text = b"%d-%d;" % (number, turn) * 50
                        client.sendall(text)
                        assert digest(client, len(text)) == hashlib.sha256(text).hexdigest()
            except BaseException as problem:
                problems.append(problem)

        threads = [threading.Thread(target=talk, args=(number,)) for number in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not problems
        assert len(plane.records(30)) == 30


# ---- the whole


def test_a_gateway_with_its_processes_carries_tls(shown: ssl.SSLContext, trusted: Path, tmp_path: Path) -> None:

    with Server(greet, shown) as server:
        path = tmp_path / "isthmus.yaml"
        path.write_text(json.dumps({"accessLog": {"format": "json", "path": "stdout"}, **tls_config(server.port)}))
        with Gateway(path, workers=1) as gateway:
            port = int(gateway.address("pass").rpartition(":")[2])
            code, said = openssl(port, "-servername", "a.test", "-CAfile", str(trusted), "-verify_return_error")
            assert code == 0 and "hello\n" in said, said


@pytest.mark.parametrize("inside", ["clear", "encrypted"])
def test_a_gateway_with_its_processes_ends_tls_beside_passing_it_on(
    shown: ssl.SSLContext, authority: trustme.CA, trusted: Path, tmp_path: Path, inside: str
) -> None:
    """One port, and the name decides: openssl verifies the gateway's own certificate for one, the origin's for the other."""
    leaf = authority.issue_cert("*.ended.test")
    leaf.private_key_pem.write_to_path(tmp_path / "key.pem")
    leaf.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    with Server(greet, shown) as passed, Server(greet, shown if inside == "encrypted" else None) as origin:
        config = tls_config(passed.port)
        config["listeners"][0]["hostname"] = "a.test"
        tls = {"certificates": [{"cert": "cert.pem", "key": "key.pem"}]}
        config["listeners"].append(
            {"name": "ended", "address": "127.0.0.1:0", "protocol": "TLS", "hostname": "*.ended.test", "tls": tls}
        )
        config["routes"].append(
            {
                "name": "in", "kind": "TLSRoute", "hostnames": ["x.ended.test"], "alpn": ["http/1.1"],
                "rules": [{"backendRefs": [{"name": "inner"}]}],
            }
        )  # fmt: skip
        cluster: dict[str, Any] = {"name": "inner", "endpoints": [f"127.0.0.1:{origin.port}"]}
        if inside == "encrypted":
            cluster["tls"] = {"serverName": "b.test", "ca": str(trusted)}
        config["clusters"].append(cluster)
        path = tmp_path / "isthmus.yaml"
        path.write_text(json.dumps(config))
        with Gateway(path, workers=1) as gateway:
            port = int(gateway.address("ended").rpartition(":")[2])
            verify = ["-CAfile", str(trusted), "-verify_return_error"]
            for version in ("-tls1_2", "-tls1_3"):
                named = ["-servername", "x.ended.test", "-verify_hostname", "x.ended.test", "-alpn", "h2,http/1.1"]
                code, said = openssl(port, *named, version, *verify)
                assert code == 0 and "hello\n" in said and "ALPN protocol: http/1.1" in said, said
            code, said = openssl(port, "-servername", "a.test", "-verify_hostname", "a.test", *verify)
            assert code == 0 and "hello\n" in said, said
            command = ["curl", "-sS", "--max-time", str(PATIENCE), "--cacert", str(trusted)]
            command += ["--resolve", f"x.ended.test:{port}:127.0.0.1", f"https://x.ended.test:{port}/"]
            done = subprocess.run(command, capture_output=True, timeout=2 * PATIENCE, check=False)
            assert (done.returncode, done.stdout) == (0, b"hello\n"), done.stderr


def test_what_was_agreed_upon_with_the_client_is_asked_of_the_endpoint(
    authority: trustme.CA, trusted: Path, tmp_path: Path
) -> None:
    """Where TLS begins anew and there is one protocol that it may be. HTTP/2 is carried like any other."""
    leaf = authority.issue_cert("*.ended.test")
    leaf.private_key_pem.write_to_path(tmp_path / "key.pem")
    leaf.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    inside = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    inside.set_alpn_protocols(["h2", "mqtt"])
    authority.issue_cert("b.test").configure_cert(inside)

    def tell(end: socket.socket) -> None:
        assert isinstance(end, ssl.SSLSocket)
        heard = end.recv(100).decode().rstrip()
        end.sendall(f"{heard}:{end.selected_alpn_protocol()}\n".encode())

    asked: dict[str, list[str]] = {"one": ["h2"], "two": ["mqtt"], "any": ["h2", "mqtt"], "none": []}
    with Server(tell, inside) as origin:
        origin_tls = {"serverName": "b.test", "ca": str(trusted)}
        config = {
            "listeners": [
                {
                    "name": "ended", "address": "127.0.0.1:0", "protocol": "TLS",
                    "tls": {"certificates": [{"cert": "cert.pem", "key": "key.pem"}]},
                }
            ],
            "routes": [
                {
                    "name": name, "kind": "TLSRoute", "hostnames": [f"{name}.ended.test"], "alpn": alpn,
                    "rules": [{"backendRefs": [{"name": name}]}],
                }
                for name, alpn in asked.items()
            ],
            "clusters": [{"name": name, "endpoints": [f"127.0.0.1:{origin.port}"], "tls": origin_tls} for name in asked],
        }  # fmt: skip
        path = tmp_path / "isthmus.yaml"
        path.write_text(json.dumps(config))
        with Gateway(path, workers=1) as gateway:
            told = {}
            for name in asked:
                client = ssl.create_default_context(cafile=str(trusted))
                client.set_alpn_protocols(["h2", "mqtt"])
                host, _, port = gateway.address("ended").rpartition(":")
                with (
                    socket.create_connection((host, int(port)), timeout=PATIENCE) as plain,
                    client.wrap_socket(plain, server_hostname=f"{name}.ended.test") as end,
                ):
                    end.sendall(f"{end.selected_alpn_protocol()}\n".encode())
                    told[name] = end.recv(100).decode().rstrip()
    assert told == {"one": "h2:h2", "two": "mqtt:mqtt", "any": "h2:None", "none": "None:None"}
