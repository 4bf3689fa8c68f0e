"""A client that makes full TLS handshakes and nothing else: `shakes.py PORT SECONDS CONNECTIONS`. Prints what loadgen prints.

A handshake is done when the client has ended it politely: it sends close_notify, reads what else came (session tickets) and waits
for the end of the stream. `openssl s_time` closes with the tickets unread, which the kernel answers with a reset, and asks one
connection at a time. No session is offered, so that every handshake is a full one; this is checked.
"""

import json
import selectors
import socket
import ssl
import sys
import time
from collections.abc import Sequence

HOST = "bench.test"
STRAGGLERS = 2.0  # seconds that handshakes in flight at the end have left


class Shake:
    """One connection, from connect to the end of the stream."""

    __slots__ = ("began", "is_open", "sock")

    def __init__(self, context: ssl.SSLContext, port: int) -> None:
        self.began = time.monotonic()
        self.is_open = False
        plain = socket.create_connection(("127.0.0.1", port), timeout=10)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setblocking(False)
        self.sock = context.wrap_socket(plain, server_hostname=HOST, do_handshake_on_connect=False)

    def step(self) -> bool:
        """Goes on as far as it can: whether it has come to its end. OSError (ssl.SSLError is one) when it failed."""
        try:
            if not self.is_open:
                self.sock.do_handshake()
                self.is_open = True
                if self.sock.session_reused:
                    raise ssl.SSLError("a session was resumed")
            self.sock.unwrap()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except ssl.SSLEOFError:
            if not self.is_open:  # afterwards, an end of the stream without close_notify is an end too
                raise
        return True


def shake_for(port: int, seconds: float, connections: int) -> dict[str, float]:
    """Keeps so many handshakes in flight for a time."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the proof that the gateway has the key is checked all the same
    selector = selectors.EpollSelector()
    latencies: list[float] = []
    failed = 0
    begin = time.monotonic()
    end = begin + seconds

    def begin_one() -> int:
        try:
            shake = Shake(context, port)
        except OSError:
            return 1
        selector.register(shake.sock, selectors.EVENT_READ, shake)
        return go_on(shake)

    def go_on(shake: Shake) -> int:
        try:
            if not shake.step():
                return 0
        except OSError:
            wrong = 1
        else:
            wrong = 0
            latencies.append(time.monotonic() - shake.began)
        selector.unregister(shake.sock)
        shake.sock.close()
        return wrong

    while True:
        now = time.monotonic()
        for _ in range(connections - len(selector.get_map()) if now < end else 0):
            failed += begin_one()
        if now >= end and (not selector.get_map() or now > end + STRAGGLERS):
            break
        for key, _ in selector.select(0.05):
            failed += go_on(key.data)
    failed += len(selector.get_map())
    for key in list(selector.get_map().values()):
        key.data.sock.close()
    selector.close()
    latencies.sort()
    done = len(latencies)

    def quantile(q: float) -> float:
        return latencies[min(int(q * done), done - 1)] * 1e6 if done else 0.0

    return {
        "done": done,
        "failed": failed,
        "bad_status": 0,
        "seconds": time.monotonic() - begin,
        "p50_us": quantile(0.5),
        "p99_us": quantile(0.99),
        "max_us": quantile(1.0),
        "over": 0,
    }


def main(argv: Sequence[str]) -> int:
    port, seconds, connections = int(argv[0]), float(argv[1]), int(argv[2])
    print(json.dumps(shake_for(port, seconds, connections)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
