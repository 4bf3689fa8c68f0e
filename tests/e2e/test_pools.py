"""Pooled connections: how many there are, who waits for one and in which order, what happens when the queue is full, and when idle
ones go."""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from data_plane import DataPlane, origin_config
from faulty import Origin, Wire, answer, client, get, polite, refusing


class Gate(Origin):
    """An origin that answers a request for each `open()`, in the order in which the requests came to it."""

    def __init__(self, more: str = "") -> None:
        self.permits = threading.Semaphore(0)
        self.more = (more,) if more else ()
        self.most = 0
        super().__init__(self.serve)

    def serve(self, origin: Origin, wire: Wire) -> None:
        self.most = max(self.most, self.open)
        while (request := wire.request()) is not None:
            self.requests.append(request)
            while not self.permits.acquire(timeout=0.1):
                if self.stop.is_set():
                    return
            wire.send(answer(request.target.encode(), "200 OK", *self.more))
            if self.more:
                return

    def let(self, n: int = 1) -> None:
        self.permits.release(n)


def waiting(plane: DataPlane) -> int:
    return sum(row["waiting"] for row in plane.endpoints())


def ask(wire: Wire, target: str) -> None:
    wire.send(f"GET {target} HTTP/1.1\r\nhost: test\r\n\r\n".encode())


def queued(plane: DataPlane, stack: ExitStack, n: int, first: int = 0) -> list[Wire]:
    """n more clients whose requests wait for a connection, one after the other."""
    wires = []
    for i in range(n):
        before = waiting(plane)
        wires.append(stack.enter_context(client(plane.port)))
        ask(wires[-1], f"/{first + i}")
        plane.until(lambda before=before: waiting(plane) == before + 1)
    return wires


def held(plane: DataPlane, gate: Gate, stack: ExitStack, n: int) -> list[Wire]:
    """n clients whose requests the origin has."""
    wires = []
    for i in range(n):
        before = len(gate.requests)
        wires.append(stack.enter_context(client(plane.port)))
        ask(wires[-1], f"/held-{i}")
        plane.until(lambda before=before: len(gate.requests) == before + 1)
    return wires


def limits(connections: int, pending: int = 1024, **cluster: Any) -> dict[str, Any]:
    return {"maxConnections": connections, "maxPending": pending, **cluster}


# the limits


def test_a_full_queue_is_503_uo_at_once_and_the_others_are_served_in_order() -> None:
    with Gate() as gate, DataPlane(origin_config(gate.port, cluster=limits(2, 3))) as plane, ExitStack() as stack:
        first = held(plane, gate, stack, 2)
        then = queued(plane, stack, 3)
        for _ in range(5):
            response = get(plane.port, "/refused")
            assert response.status == 503
        (row,) = plane.endpoints()
        assert (row["connections"], row["active"], row["waiting"], row["dialing"]) == (2, 2, 3, 0)
        # one answer frees one connection, which the oldest of the queue takes
        for i in range(5):
            gate.let()
            plane.until(lambda i=i: len(gate.requests) == min(5, 3 + i) and plane.cluster()["active"] == min(2, 4 - i))
        assert {wire.response().body for wire in first} == {b"/held-0", b"/held-1"}
        assert [wire.response().body for wire in then] == [b"/0", b"/1", b"/2"]
        assert [request.target for request in gate.requests[2:]] == ["/0", "/1", "/2"]
        assert gate.most == 2 and gate.accepted == 2
        flags = Counter((record["status"], record["flags"], record["detail"]) for record in plane.records(10))
        assert flags == {(503, "UO", "overflow"): 5, (200, "-", ""): 5}
        assert get_after(plane, gate) == 200


def get_after(plane: DataPlane, gate: Gate) -> int:
    """The gateway is as good as new."""
    gate.let()
    status = get(plane.port).status
    (row,) = plane.endpoints()
    assert row["active"] == row["waiting"] == row["dialing"] == 0 and row["connections"] == row["idle"]
    return status


def test_a_queue_of_no_places_refuses_what_finds_no_connection() -> None:
    with Gate() as gate, DataPlane(origin_config(gate.port, cluster=limits(1, 0))) as plane, ExitStack() as stack:
        (first,) = held(plane, gate, stack, 1)
        assert get(plane.port).status == 503
        gate.let()
        assert first.response().status == 200
        gate.let()
        assert get(plane.port).status == 200
        assert [record["flags"] for record in plane.records(3)] == ["UO", "-", "-"]


def test_never_more_connections_than_allowed_under_many_clients() -> None:
    with Gate() as gate, DataPlane(origin_config(gate.port, cluster=limits(3))) as plane:
        gate.let(600)
        with ThreadPoolExecutor(20) as pool:

            def many(number: int) -> list[int]:
                with client(plane.port) as wire:
                    return [wire.ask(f"/{number}").status for _ in range(30)]

            assert [*pool.map(many, range(20))] == [[200] * 30] * 20
        assert gate.most <= 3 and gate.accepted <= 3


def test_the_limit_is_for_each_endpoint() -> None:
    cluster = limits(1, loadBalancing={"policy": "RoundRobin"})
    with Gate() as a, Gate() as b, DataPlane(origin_config(a.port, b.port, cluster=cluster)) as plane, ExitStack() as stack:
        for i in range(6):
            ask(stack.enter_context(client(plane.port)), f"/{i}")
            plane.until(lambda i=i: len(a.requests) + len(b.requests) + waiting(plane) == i + 1)
        assert [len(a.requests), len(b.requests)] == [1, 1]
        assert [row["waiting"] for row in plane.endpoints()] == [2, 2]
        # an endpoint that is free does not serve who waits for the other one
        a.let(3)
        plane.until(lambda: len(a.requests) == 3 and plane.endpoint(a.port)["active"] == 0)
        assert len(b.requests) == 1 and plane.endpoint(b.port)["waiting"] == 2
        b.let(3)
        plane.until(lambda: len(b.requests) == 3 and plane.cluster()["active"] == 0)


# the queue, when connections end instead of coming back


def test_a_connection_that_closes_after_its_answer_makes_room_for_the_next() -> None:
    with Gate("connection: close") as gate, DataPlane(origin_config(gate.port, cluster=limits(1))) as plane, ExitStack() as stack:
        first = held(plane, gate, stack, 1)
        then = queued(plane, stack, 5)
        gate.let(6)
        assert [wire.response().body for wire in first + then] == [b"/held-0", b"/0", b"/1", b"/2", b"/3", b"/4"]
        assert gate.accepted == 6


def test_a_connection_that_breaks_makes_room_for_the_next() -> None:
    """The one that was on it fails, and nobody else does."""

    def script(origin: Origin, wire: Wire) -> None:
        while (request := wire.request()) is not None:
            origin.requests.append(request)
            if request.target == "/held-0":
                broken.wait(20)
                wire.reset()
                return
            wire.send(answer(request.target.encode()))

    broken = threading.Event()
    with Origin(script) as origin, DataPlane(origin_config(origin.port, cluster=limits(1))) as plane, ExitStack() as stack:
        wire = stack.enter_context(client(plane.port))
        ask(wire, "/held-0")
        plane.until(lambda: len(origin.requests) == 1)
        then = queued(plane, stack, 4)
        broken.set()
        assert wire.response().status == 502
        assert [each.response().body for each in then] == [b"/0", b"/1", b"/2", b"/3"]
        assert origin.accepted == 2


def test_a_client_that_gives_up_its_place_moves_nobody_back() -> None:
    with Gate() as gate, DataPlane(origin_config(gate.port, cluster=limits(1, 4))) as plane, ExitStack() as stack:
        (first,) = held(plane, gate, stack, 1)
        then = queued(plane, stack, 4)
        then[1].reset()
        plane.until(lambda: waiting(plane) == 3)
        # the place is free again, at the end of the queue
        then += queued(plane, stack, 1, first=4)
        assert get(plane.port).status == 503
        gate.let(5)
        assert first.response().status == 200
        assert [then[i].response().body for i in (0, 2, 3, 4)] == [b"/0", b"/2", b"/3", b"/4"]
        assert [request.target for request in gate.requests] == ["/held-0", "/0", "/2", "/3", "/4"]
        gone = [record for record in plane.records(7) if record["flags"] == "DC"]
        assert [(record["path"], record["status"]) for record in gone] == [("/1", 0)]


def test_a_deadline_passes_in_the_queue() -> None:
    """Who waits too long for a connection is answered 504, and whoever waits behind is served."""
    config = origin_config(cluster=limits(1))
    rules = config["routes"][0]["rules"]
    rules.insert(0, {**rules[0], "matches": [{"path": {"value": "/short"}}], "timeouts": {"request": "150ms"}})
    with Gate() as gate:
        config["clusters"][0]["endpoints"] = [f"127.0.0.1:{gate.port}"]
        with DataPlane(config) as plane, ExitStack() as stack:
            (first,) = held(plane, gate, stack, 1)
            short = stack.enter_context(client(plane.port))
            ask(short, "/short")
            last = stack.enter_context(client(plane.port))
            ask(last, "/last")
            assert short.response().status == 504
            plane.until(lambda: waiting(plane) == 1)
            gate.let(2)
            assert [first.response().body, last.response().body] == [b"/held-0", b"/last"]
            assert [request.target for request in gate.requests] == ["/held-0", "/last"]
            (late,) = (record for record in plane.records(3) if record["status"] == 504)
            assert late["flags"] == "UT" and late["detail"] == "request_timeout" and late["attempts"] == 1


def test_a_queue_in_front_of_an_endpoint_that_does_not_answer_is_told() -> None:
    """Nobody is forgotten when the dial fails that everybody waited for."""
    with refusing() as port, DataPlane(origin_config(port, cluster=limits(1))) as plane, ThreadPoolExecutor(20) as pool:
        assert list(pool.map(lambda _: get(plane.port).status, range(60))) == [503] * 60
        assert {record["flags"] for record in plane.records(60)} == {"UF"}
        (row,) = plane.endpoints()
        assert row["connections"] == row["waiting"] == row["dialing"] == 0


# idle connections


def test_an_idle_connection_is_used_again_and_the_last_one_first() -> None:
    with Gate() as gate, DataPlane(origin_config(gate.port)) as plane, ExitStack() as stack:
        wires = held(plane, gate, stack, 3)
        gate.let(3)
        assert [wire.response().status for wire in wires] == [200] * 3
        (row,) = plane.endpoints()
        assert row["idle"] == row["connections"] == gate.accepted == 3
        gate.let(20)
        for _ in range(20):
            assert wires[0].ask().status == 200
        assert gate.accepted == 3 and plane.endpoints()[0]["idle"] == 3


def test_idle_connections_close_after_their_time() -> None:
    ends: list[float] = []

    def script(origin: Origin, wire: Wire) -> None:
        answered = 0.0
        while wire.request() is not None:
            answered = time.monotonic()
            wire.send(answer(b"ok"))
        ends.append(time.monotonic() - answered)

    with Origin(script) as origin, DataPlane(origin_config(origin.port, cluster={"idleTimeout": "300ms"})) as plane:
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(lambda _: get(plane.port).status, range(16))) == [200] * 16
        plane.until(lambda: origin.open == 0 and plane.endpoints()[0]["connections"] == 0)
        assert len(ends) == origin.accepted and min(ends) >= 0.295
        assert plane.endpoints()[0]["idle"] == 0
        # and the next request has a new one
        before = origin.accepted
        assert get(plane.port).status == 200 and origin.accepted == before + 1


def test_a_connection_in_use_does_not_count_as_idle() -> None:
    """An answer may take many times the idle timeout; only then the clock begins."""

    def script(origin: Origin, wire: Wire) -> None:
        while wire.request() is not None:
            origin.stop.wait(0.5)
            wire.send(answer(b"late"))

    with Origin(script) as origin, DataPlane(origin_config(origin.port, cluster={"idleTimeout": "100ms"})) as plane:
        assert get(plane.port).body == b"late"
        plane.until(lambda: origin.open == 0)


def test_connections_of_a_cluster_that_leaves_close() -> None:
    with Origin(polite) as origin, Origin(polite, "next") as after, DataPlane(origin_config(origin.port)) as plane:
        config = origin_config(after.port)
        config["clusters"][0]["name"] = config["routes"][0]["rules"][0]["backendRefs"][0]["name"] = "new"
        with client(plane.port) as wire:
            assert wire.ask().body == b"ok" and origin.open == 1
            plane.load(config)
            assert wire.ask().body == b"next"
            plane.until(lambda: origin.open == 0)
            assert [row["name"] for row in plane.ask("clusters")["rows"]] == ["new"]
