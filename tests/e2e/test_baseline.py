"""Ten thousand requests of every kind, and then everything is as it was: descriptors, objects, memory."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from data_plane import DataPlane, origin_config
from faulty import Cut, Origin, Wire, answer, client, get
from gateway_process import Gateway
from until import wait_until

CORE = (
    "Exchange",
    "HeaderBlock",
    "H1Downstream",
    "H1Upstream",
    "Cluster",
    "Endpoint",
    "Binding",
    "Snapshot",
    "Balancer",
    "Acceptor",
)
MIB = 1 << 20
GET = b"GET /%d HTTP/1.1\r\nhost: test\r\n\r\n"
BATCH = 20


def serving(origin: Origin, wire: Wire) -> None:
    while (request := wire.request()) is not None:
        if request.target.startswith("/reset"):
            wire.reset()
            return
        if request.target.startswith("/cut"):
            wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc")
            return
        if request.target.startswith("/held"):
            origin.held.wait(20)  # type: ignore[attr-defined]
        wire.send(answer(request.target.encode()))


def batch(wire: Wire) -> int:
    wire.send(b"".join(GET % i for i in range(BATCH)))
    for i in range(BATCH):
        assert wire.response().body == b"/%d" % i
    return BATCH


def one_of_each(port: int) -> int:
    """Every way in which an exchange can go; the number of requests."""
    with client(port) as wire:
        asked = batch(wire) + batch(wire)
        wire.send(b"POST /length HTTP/1.1\r\nhost: test\r\ncontent-length: 3000\r\n\r\n" + b"x" * 3000)
        assert wire.response().status == 200
        wire.send(b"POST /chunked HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        assert wire.response().status == 200
        assert wire.ask("/head", "HEAD").status == 200
        wire.send(b"GET / HTTP/1.1\r\nhost: nobody\r\n\r\n")
        assert wire.response().status == 404
        assert wire.ask("/reset").status == 502
        with contextlib.suppress(Cut):
            wire.ask("/cut")
            raise AssertionError("a response that was cut looked complete")
    with client(port) as wire:
        wire.send(b"GET / HTTP/1.1\r\nno host: test\r\n\r\n")
        assert wire.response().status == 400 and wire.at_end()
    wire = client(port)
    wire.send(b"GET / HTTP/1.1\r\nhost: te")
    wire.close()
    wire = client(port)
    wire.send(b"POST /gone HTTP/1.1\r\nhost: test\r\ncontent-length: 3000\r\n\r\nabc")
    wire.reset()
    assert get(port, "/last").status == 200
    return asked + 9


def test_10000_requests_leave_nothing_behind_in_the_engine() -> None:
    """No garbage, as many objects and descriptors as before, and memory that does not grow with the number of requests."""
    with Origin(serving) as origin:
        origin.held = threading.Event()  # type: ignore[attr-defined]
        config = origin_config(origin.port, cluster={"idleTimeout": "200ms"})
        config["routes"][0]["hostnames"] = ["test"]
        with DataPlane(config) as plane, ThreadPoolExecutor(4) as pool:

            def settle() -> None:
                plane.until(lambda: plane.ask("connections")["open"] == 0)
                plane.until(lambda: plane.endpoints()[0]["connections"] == 0)
                plane.ask("log")

            # What is kept for the next requests is kept for as many as there were at once: more here than later.
            wires = [client(plane.port) for _ in range(40)]
            for wire in wires:
                wire.send(b"GET /held HTTP/1.1\r\nhost: test\r\n\r\n")
            plane.until(lambda: plane.cluster()["active"] == 40)
            origin.held.set()  # type: ignore[attr-defined]
            for wire in wires:
                assert wire.response().status == 200
                wire.close()
            warm = sum(pool.map(one_of_each, [plane.port] * 20))
            settle()
            plane.ask("collect")
            before, descriptors, memory = plane.ask("collect"), plane.descriptors(), plane.memory()
            asked = 0
            while asked < 10_000:
                asked += sum(pool.map(one_of_each, [plane.port] * 40))
                plane.ask("log")
            settle()
            after = plane.ask("collect")
            assert after["garbage"] == 0
            kinds = before["types"].keys() | after["types"].keys()
            more = {kind: after["types"].get(kind, 0) - before["types"].get(kind, 0) for kind in kinds}
            assert {kind: more[kind] for kind in CORE if more.get(kind)} == {}
            assert sum(more.values()) < 20, {kind: count for kind, count in more.items() if count}
            assert plane.descriptors() == descriptors
            assert plane.memory() - memory < MIB
            counted = plane.counters()
            # a head that never came to its end is no request of a client's, but it is one that ends in the log
            assert counted["downstream_requests"] >= asked + warm + 40
            assert counted["downstream_requests_active"] == counted["downstream_connections_active"] == 0


def test_10000_requests_leave_nothing_behind_in_a_worker(tmp_path: Path) -> None:
    """The process that serves for real, with its log and its counters."""
    log = tmp_path / "access.log"
    config = tmp_path / "isthmus.yaml"
    with Origin(serving) as origin:
        config.write_text(
            f"""
accessLog: {{format: json, path: {log}}}
drain: {{delay: 0s}}
listeners: [{{name: web, address: "127.0.0.1:0"}}]
routes: [{{name: all, hostnames: [test], rules: [{{backendRefs: [{{name: site}}]}}]}}]
clusters: [{{name: site, endpoints: ["127.0.0.1:{origin.port}"], idleTimeout: 200ms, outlierDetection: {{consecutiveErrors: 0}}}}]
"""
        )
        with Gateway(config, workers=1) as gateway, ThreadPoolExecutor(4) as pool:
            port = int(gateway.address().rpartition(":")[2])
            (pid,) = gateway.serving()
            descriptors = Path(f"/proc/{pid}/fd")

            def settle() -> None:
                wait_until(lambda: not gateway.ask("/connections"))
                wait_until(lambda: sum(row["connections"] for row in gateway.ask("/clusters")[0]["endpoints"]) == 0)

            def resident() -> int:
                (row,) = gateway.stats()["workers"]
                return int(row["rss_kib"]) * 1024

            list(pool.map(one_of_each, [port] * 40))
            settle()
            before, memory = len(list(descriptors.iterdir())), resident()
            asked = 0
            while asked < 10_000:
                asked += sum(pool.map(one_of_each, [port] * 40))
            settle()
            assert len(list(descriptors.iterdir())) == before
            assert resident() - memory < 2 * MIB
            assert gateway.serving() == [pid]
            wait_until(lambda: log.read_bytes().count(b"\n") >= asked)
