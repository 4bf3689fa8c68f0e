"""One engine in the test's own thread, without a loop: it moves when `until` or `turn` is called; the test plays both ends."""

import mmap
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gateway._core import counters
from gateway._core.engine import Engine
from gateway.control.build import build
from gateway.control.compile import compile_model, name_id
from gateway.model import Cluster, Config, HTTPRoute, Listener
from gateway.model.route import HTTPBackendRef, HTTPRouteMatch, HTTPRouteRule, PathMatch

PATIENCE = 20.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def get(path: str = "/", *more: str) -> bytes:
    return "\r\n".join((f"GET {path} HTTP/1.1", "Host: a.test", *more, "", "")).encode()


def config(*clusters: str, listeners: tuple[Listener, ...] = (Listener(name="web", port=8080),), **facts: Any) -> Config:
    """Each cluster behind a route of its own below /NAME; the first one behind / too."""
    routes = []
    for number, cluster in enumerate(clusters):
        paths = [f"/{cluster}", *(["/"] if number == 0 else [])]
        rule = HTTPRouteRule(
            matches=tuple(HTTPRouteMatch(path=PathMatch("PathPrefix", path)) for path in paths),
            backend_refs=(HTTPBackendRef(name=cluster),),
        )
        routes.append(HTTPRoute(name=f"to-{cluster}", rules=(rule,)))
    made = tuple(Cluster(name=name, endpoints=("127.0.0.1:9",), **facts) for name in clusters)
    return Config(listeners=listeners, routes=tuple(routes), clusters=made)


def blob_of(config: Config, revision: int = 1) -> bytes:
    compiled = compile_model(build(config), revision)
    assert not compiled.problems
    return bytes(compiled.blob)


def cluster_id(name: str) -> int:
    return name_id("cluster", name)


class Desk:
    def __init__(self, blob: bytes | None = None, **facts: Any) -> None:
        self.block = mmap.mmap(-1, counters.block_size())
        self.engine = Engine(self.block, **facts)
        self.sockets: list[socket.socket] = []
        if blob is not None:
            self.engine.swap(blob, 1)

    # the engine

    def turn(self) -> None:
        """What is there to do now; a tick belongs to it."""
        self.engine.on_ready()
        self.engine.on_tick()

    def until(self, condition: Callable[[], Any]) -> Any:
        """Drives the engine until the condition answers something true, and answers that."""
        deadline = time.monotonic() + PATIENCE
        while not (answer := condition()):
            assert time.monotonic() < deadline, f"still not so after {PATIENCE} s"
            select.select([self.engine.fileno()], [], [], 0.01)
            self.turn()
        return answer

    def scalar(self, name: str) -> int:
        read = counters.read(self.block)
        assert read is not None
        return read[1][[scalar[0] for scalar in counters.SCALARS].index(name)]

    def cluster(self, name: str) -> dict[str, Any] | None:
        for row in self.engine.describe_clusters():
            if row["id"] == cluster_id(name):
                return row
        return None

    def set_endpoints(self, cluster: str, *origins: socket.socket) -> None:
        rows = [(str(origin.getsockname()[0]).encode(), int(origin.getsockname()[1]), 1, b"") for origin in origins]
        self.engine.set_endpoints(cluster_id(cluster), rows)

    # sockets

    def listening(self, host: str = "127.0.0.1") -> socket.socket:
        made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        made.bind((host, 0))
        made.listen(256)
        made.setblocking(False)
        self.sockets.append(made)
        return made

    def listen(self, bind: str = "[::]:8080") -> socket.socket:
        made = self.listening()
        self.engine.listen(made.fileno(), name_id("bind", bind))
        return made

    def connect(self, listening: socket.socket, *sent: bytes) -> socket.socket:
        made = socket.create_connection(listening.getsockname(), timeout=PATIENCE)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setblocking(False)
        self.sockets.append(made)
        for data in sent:
            made.send(data)
        return made

    def accept(self, origin: socket.socket) -> socket.socket:
        def accepted() -> socket.socket | None:
            try:
                return origin.accept()[0]
            except BlockingIOError:
                return None

        made: socket.socket = self.until(accepted)
        made.setblocking(False)
        self.sockets.append(made)
        return made

    def receive(self, end: socket.socket, mark: bytes = b"") -> bytes:
        """Up to and with the mark; up to the end of the stream when there is none. A reset is an end as well."""
        got = b""

        def more() -> bool:
            nonlocal got
            while True:
                try:
                    part = end.recv(65536)
                except BlockingIOError:
                    return bool(mark) and mark in got
                except ConnectionResetError:
                    part = b""
                got += part
                if not part:
                    assert not mark, f"ended after {got!r}"
                    return True

        self.until(more)
        return got

    def head(self, end: socket.socket) -> bytes:
        return self.receive(end, b"\r\n\r\n")

    def close(self) -> None:
        self.engine.close()
        for end in self.sockets:
            end.close()


@contextmanager
def desk(*clusters: str, **facts: Any) -> Iterator[Desk]:
    """An engine with these clusters, closed at the end."""
    made = Desk(blob_of(config(*clusters)), **facts)
    try:
        yield made
    finally:
        made.close()
