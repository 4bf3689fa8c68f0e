"""What an idle TLS connection costs once it has rested."""

import contextlib
import os
import resource
import socket
import ssl
from pathlib import Path

import pytest
from gateway_process import Gateway
from pki import Authority, write_pair
from quick_origin import CONTENT, QuickOrigin
from tls_peers import counter, until_quiet
from until import wait_until

CONNECTIONS = 2000
MOST_KIB = 40
CONFIG = """\
accessLog: {{format: off}}
listeners:
  - name: web
    address: 127.0.0.1:0
    protocol: HTTPS
    tls: {{certificates: [{{cert: tls/web.crt, key: tls/web.key}}]}}
routes:
  - {{name: all, rules: [{{backendRefs: [{{name: site}}]}}]}}
clusters:
  - {{name: site, endpoints: ["{origin}"]}}
"""


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
def test_two_thousand_idle_connections_take_little(tmp_path: Path) -> None:
    """Slow for its 2,000 handshakes, each with a request; the client takes as much memory as the gateway."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < CONNECTIONS + 200:
        pytest.skip(f"needs {CONNECTIONS + 200} descriptors (ulimit -n)")
    authority = Authority()
    write_pair(tmp_path / "tls", "web", authority.issue("web.test"))
    context = ssl.create_default_context(cadata=authority.pem.decode())
    with QuickOrigin() as origin:
        (tmp_path / "gateway.yaml").write_text(CONFIG.format(origin=origin.address))
        with Gateway(tmp_path / "gateway.yaml", workers=1) as gateway, contextlib.ExitStack() as stack:
            host, _, port = gateway.address().rpartition(":")

            def connect() -> ssl.SSLSocket:
                plain = socket.create_connection((host, int(port)), timeout=60)
                connection = stack.enter_context(context.wrap_socket(plain, server_hostname="web.test"))
                ask(connection)
                return connection

            for _ in range(50):
                connect()
            (pid,) = gateway.serving()
            start = resident(pid)
            connections = [connect() for _ in range(CONNECTIONS)]
            grown = wait_until(lambda: small(resident(pid) - start))
            print(f"{grown / CONNECTIONS / 1024:.1f} KiB for each idle TLS connection")
            assert counter(gateway, "downstream_connections_active") == CONNECTIONS + 50
            for each in connections[:: CONNECTIONS // 20]:
                ask(each)
            stack.close()
            until_quiet(gateway)


def small(grown: int) -> int | None:
    return grown if grown < CONNECTIONS * MOST_KIB * 1024 else None


def ask(connection: ssl.SSLSocket) -> None:
    connection.sendall(b"GET / HTTP/1.1\r\nHost: web.test\r\n\r\n")
    got = b""
    while not got.endswith(CONTENT):
        piece = connection.recv(4096)
        assert piece
        got += piece
