"""When descriptors run out, or connections reach their limit: who is served, who waits, and that nothing spins.

Class D15 of the robustness page. What a connection cannot have is never held against an endpoint.
"""

import resource
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from data_plane import DataPlane, origin_config
from faulty import Origin, Wire, answer, client, get
from gateway_process import Gateway, request
from gateway_process import Origin as Site
from until import wait_until

ONE = {"maxConnections": 1}
BLANK = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n"


def for_a_second() -> None:
    end = time.monotonic() + 1
    wait_until(lambda: time.monotonic() > end)


def test_d15_accepting_rests_while_descriptors_are_out_and_goes_on() -> None:
    """A hundred clients, descriptors for some forty: these are served meanwhile, and the others as soon as there is room."""
    most = 64
    with Origin() as origin, DataPlane(origin_config(origin.port, cluster=ONE), descriptors=most) as plane, ExitStack() as stack:
        first = stack.enter_context(client(plane.port))
        assert first.ask().status == 200
        assert plane.descriptors() < most - 20
        wires = [stack.enter_context(client(plane.port)) for _ in range(100)]
        plane.until(lambda: plane.descriptors() == most)
        # nothing spins: neither accept, nor the event loop under it
        before = plane.cpu_seconds()
        for_a_second()
        assert plane.cpu_seconds() - before < 0.3
        assert 0 < plane.counters()["downstream_connections_refused"] < 100
        # who is in is served
        assert [first.ask().status for _ in range(50)] == [200] * 50
        assert [wire.ask().status for wire in wires[:10]] == [200] * 10
        assert not any(wire.is_readable() for wire in wires)
        # everybody else waits in the kernel's queue with a request sent, and comes in when somebody leaves
        for wire in wires[10:]:
            wire.send(BLANK)
        for wire in wires[:10]:
            wire.close()
        for wire in wires[10:]:
            assert wire.response().status == 200
            wire.close()
        first.close()
        plane.until(lambda: plane.ask("connections")["open"] == 0)
        assert plane.descriptors() < most - 20
        assert get(plane.port).status == 200


def test_d15_a_want_of_descriptors_is_no_fault_of_an_endpoint() -> None:
    """No connection to an origin without a descriptor: 503, and nobody is ejected for it."""
    outliers = {"consecutiveErrors": 1, "baseEjectionTime": "1h"}
    with Origin() as a, Origin() as b, ExitStack() as stack:
        config = origin_config(a.port, b.port, cluster={"outlierDetection": outliers})
        with DataPlane(config, descriptors=64) as plane:
            wires = [stack.enter_context(client(plane.port)) for _ in range(64)]
            plane.until(lambda: plane.descriptors() == 64)
            for _ in range(3):
                assert wires[0].ask().status == 503
            assert {record["flags"] for record in plane.records(3)} == {"UF"}
            assert [(row["ejected"], row["errors"]) for row in plane.endpoints()] == [(False, 0)] * 2
            for wire in wires[10:]:
                wire.close()
            plane.until(lambda: plane.descriptors() < 40)
            assert wires[0].ask().status == 200
            assert a.accepted + b.accepted == 1


def test_d15_a_worker_without_descriptors_recovers_and_the_admin_port_answers(tmp_path: Path) -> None:
    """The same with a whole gateway, whose worker is given fewer descriptors than it has clients while it runs."""
    config = tmp_path / "isthmus.yaml"
    with Site() as site:
        config.write_text(
            f"""
drain: {{delay: 0s}}
listeners: [{{name: web, address: "127.0.0.1:0"}}]
routes: [{{name: all, rules: [{{backendRefs: [{{name: site}}]}}]}}]
clusters: [{{name: site, endpoints: ["{site.address}"], maxConnections: 2}}]
"""
        )
        with Gateway(config, workers=1) as gateway, ExitStack() as stack:
            port = int(gateway.address().rpartition(":")[2])
            (pid,) = gateway.serving()
            descriptors = Path(f"/proc/{pid}/fd")
            warm = [stack.enter_context(client(port)) for _ in range(2)]
            assert [wire.ask().status for wire in warm] == [200] * 2
            limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            # The numbers that are free below the limit are what the worker has left.
            most = max(int(each.name) for each in descriptors.iterdir() if int(each.name) < 1000) + 30
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, limits[1]))
            none = b"\nisthmus_downstream_connections_refused_total 0.0\n"
            assert none in request(gateway.admin, "/metrics")[2]
            wires = [stack.enter_context(client(port)) for _ in range(200)]
            wait_until(lambda: none not in request(gateway.admin, "/metrics")[2])
            assert warm[0].ask().status == 200
            assert request(gateway.admin, "/healthz")[0] == request(gateway.admin, "/readyz")[0] == 200
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
            for wire in wires:
                assert wire.ask().status == 200
            assert gateway.serving() == [pid]


def test_500_clients_at_once_are_all_served() -> None:
    """Each has its connection and its request in flight at the same moment."""
    n = 500

    def script(origin: Origin, wire: Wire) -> None:
        while (asked := wire.request()) is not None:
            origin.requests.append(asked)
            wait_until(lambda: everybody_is_in or origin.stop.is_set())
            wire.send(answer(asked.target.encode()))

    everybody_is_in = False
    with (
        Origin(script) as origin,
        DataPlane(origin_config(origin.port, cluster={"maxConnections": 40})) as plane,
        ExitStack() as stack,
    ):
        wires = [stack.enter_context(client(plane.port)) for _ in range(n)]
        for i, wire in enumerate(wires):
            wire.send(f"GET /{i} HTTP/1.1\r\nhost: test\r\n\r\n".encode())
        plane.until(lambda: plane.ask("connections")["open"] == n and plane.endpoints()[0]["waiting"] == n - 40)
        assert plane.counters()["downstream_connections_active"] == n
        everybody_is_in = True
        assert [wire.response().body for wire in wires] == [f"/{i}".encode() for i in range(n)]
        assert Counter(record["status"] for record in plane.records(n)) == {200: n}
        assert origin.accepted <= 40
    assert len(origin.requests) == n


def test_a_listener_takes_as_many_connections_as_it_may() -> None:
    """Those beyond are closed without a word; a place that becomes free is taken by the next."""
    config = origin_config(limits={"maxConnections": 10})
    with Origin() as origin, ExitStack() as stack:
        config["clusters"][0]["endpoints"] = [f"127.0.0.1:{origin.port}"]
        with DataPlane(config) as plane:
            wires = [stack.enter_context(client(plane.port)) for _ in range(10)]
            assert [wire.ask().status for wire in wires] == [200] * 10
            with ThreadPoolExecutor(10) as pool:
                assert all(pool.map(lambda _: client(plane.port).at_end(), range(30)))
            counted = plane.counters()
            assert (counted["downstream_connections_refused"], counted["downstream_connections_active"]) == (30, 10)
            assert [wire.ask().status for wire in wires] == [200] * 10
            wires[3].close()
            plane.until(lambda: plane.ask("connections")["open"] == 9)
            assert stack.enter_context(client(plane.port)).ask().status == 200
            assert client(plane.port).at_end()
            # a reload raises the limit for those who come after it
            config["limits"] = {"maxConnections": 12}
            plane.load(config)
            assert [stack.enter_context(client(plane.port)).ask().status for _ in range(2)] == [200] * 2
            assert client(plane.port).at_end()
