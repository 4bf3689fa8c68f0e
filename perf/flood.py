"""Rapid reset: a client that opens streams and resets each at once, and an origin that counts what reaches it.

`flood.py PORT SECONDS STREAMS PATH [GAP]`: so many streams on one connection, without looking at what the gateway says; when it has
closed the connection, on another one. With a gap, in seconds, SPACED requests go first and their cancellations follow so much
later, when the requests are on their way to the origin. Prints how many connections it had and how many streams it got rid of.
"""

import json
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))  # and empty settings
HEADERS, RST_STREAM, ENDS, CANCEL = 1, 3, 5, 8
SPACED = 20  # streams that are open at a time when requests and cancellations are spaced


def step_back() -> None:
    """The calling thread runs when nobody else wants to: the client beside the flood, and its origin, may have the same core, and
    must not wait for that."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def request(stream: int, path: str) -> bytes:
    """Fields are static entries and literals that no table keeps."""
    return frame(HEADERS, ENDS, stream, b"\x82\x86\x04" + bytes((len(path),)) + path.encode() + b"\x01\x0abench.test")


def cancel(stream: int) -> bytes:
    return frame(RST_STREAM, 0, stream, CANCEL.to_bytes(4, "big"))


def streams_of(n: int, path: str) -> bytes:
    """The frames of n requests, each cancelled."""
    return b"".join(request(i, path) + cancel(i) for i in range(1, 2 * n, 2))


def flood_once(port: int, frames: bytes, end: float) -> int:
    """One connection, to its end or that of the time: the bytes of frames that were sent."""
    sent = 0
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(PREFACE)
        sock.setblocking(False)
        with suppress(ConnectionError):
            while sent < len(frames) and time.monotonic() < end:
                can_read, can_write, _ = select.select([sock], [sock], [], 0.1)
                if can_read and not sock.recv(65536):
                    break
                if can_write:
                    sent += sock.send(frames[sent : sent + 65536])
    return sent


def flood_spaced(port: int, streams: int, path: str, gap: float, end: float) -> int:
    """One connection, to its end or that of the time: the streams that were opened and cancelled."""
    done = 0
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock, suppress(ConnectionError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(PREFACE)
        while done < streams and time.monotonic() < end:
            ids = range(2 * done + 1, 2 * (done + SPACED), 2)
            sock.sendall(b"".join(request(i, path) for i in ids))
            pause = time.monotonic() + gap
            while select.select([sock], [], [], max(0, pause - time.monotonic()))[0]:
                if not sock.recv(65536):
                    return done
            sock.sendall(b"".join(cancel(i) for i in ids))
            done += SPACED
    return done


class CountingOrigin:
    """Answers every request of HTTP/1.1, none of which has content, and counts them."""

    def __init__(self) -> None:
        self.seen = 0
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self.listening.getsockname()[1]
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def accept(self) -> None:
        step_back()
        while True:
            try:
                sock, _ = self.listening.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def serve(self, sock: socket.socket) -> None:
        step_back()
        held = b""
        with sock, suppress(OSError):
            while came := sock.recv(65536):
                held += came
                *heads, held = held.split(b"\r\n\r\n")
                self.seen += len(heads)
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" * len(heads))

    def close(self) -> None:
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        self.thread.join(10)


def main(argv: Sequence[str]) -> int:
    port, seconds, streams, path = int(argv[0]), float(argv[1]), int(argv[2]), argv[3]
    gap = float(argv[4]) if len(argv) > 4 else 0
    frames = streams_of(streams, path)
    each = 1 if gap else len(frames) // streams
    step_back()
    end = time.monotonic() + seconds
    connections = sent = 0
    while time.monotonic() < end:
        with suppress(OSError):
            sent += flood_spaced(port, streams, path, gap, end) if gap else flood_once(port, frames, end)
        connections += 1
    print(json.dumps({"connections": connections, "streams": sent // each}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
