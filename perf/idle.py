"""Memory of idle keep-alive connections: open many, each with one request behind it, and look at the resident memory."""

import socket

from perf.children import process_tree, resident_bytes
from perf.gateways import Gateway

REQUEST = b"GET / HTTP/1.1\r\nHost: bench.test\r\n\r\n"


def exchange_once(sock: socket.socket) -> None:
    """One request and its whole answer, which has a declared length."""
    sock.sendall(REQUEST)
    got = b""
    while True:
        head, found, content = got.partition(b"\r\n\r\n")
        if found:
            fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:])
            if len(content) >= int(fields[b"content-length"]):
                return
        piece = sock.recv(65536)
        if not piece:
            raise ConnectionError("closed before the answer was complete")
        got += piece


def open_idle(port: int, n: int) -> list[socket.socket]:
    """`n` connections, each of which has had one answer and now waits."""
    socks: list[socket.socket] = []
    try:
        for _ in range(n):
            sock = socket.create_connection(("127.0.0.1", port), timeout=10)
            socks.append(sock)
            exchange_once(sock)
    except BaseException:
        close_all(socks)
        raise
    return socks


def close_all(socks: list[socket.socket]) -> None:
    for sock in socks:
        sock.close()


def bytes_per_idle(gateway: Gateway, n: int) -> float:
    """Growth of the gateway's resident memory by connection. A first hundred warms up what is made once."""
    close_all(open_idle(gateway.port, 100))
    pids = process_tree(gateway.pid)
    before = resident_bytes(pids)
    socks = open_idle(gateway.port, n)
    try:
        return (resident_bytes(pids) - before) / n
    finally:
        close_all(socks)
