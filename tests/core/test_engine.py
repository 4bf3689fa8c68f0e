"""The engine as its shell drives it: swaps, endpoints, clusters that leave, listeners, drain, close. Real sockets, no loop."""

import gc
import json
import os
import socket
import struct
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from desk import OK, PATIENCE, Desk, blob_of, cluster_id, config, desk, get

from gateway._core import counters
from gateway._core.engine import Engine
from gateway.control.compile import name_id
from gateway.model import Config, Duration, Listener
from gateway.model.listener import LimitsOverride
from gateway.model.route import Retry


def answered(at: Desk, client: socket.socket, server: socket.socket, path: str) -> None:
    """One more request on connections that are there."""
    client.send(get(path))
    assert at.head(server).startswith(f"GET {path} ".encode())
    server.send(OK)
    at.receive(client, b"\r\n\r\nok")


def exchange(at: Desk, web: socket.socket, origin: socket.socket, path: str = "/") -> tuple[socket.socket, socket.socket]:
    """One request answered, on fresh connections on both sides, which stay open."""
    client = at.connect(web, get(path))
    server = at.accept(origin)
    at.head(server)
    server.send(OK)
    assert at.receive(client, b"\r\n\r\nok").startswith(b"HTTP/1.1 200 OK")
    return client, server


def endpoints_of(at: Desk, name: str) -> list[dict[str, Any]]:
    row = at.cluster(name)
    assert row is not None
    found: list[dict[str, Any]] = row["endpoints"]
    return found


def series(at: Desk, name: str) -> tuple[int, ...] | None:
    """A cluster's words after its id: connects, failures, ... as in counters.pxd."""
    read = counters.read(at.block)
    assert read is not None
    for _, _, cluster, *words in read[3]:
        if cluster == cluster_id(name):
            return tuple(words)
    return None


# Snapshots


@pytest.mark.parametrize(
    "spoil",
    [
        lambda blob: b"",
        lambda blob: blob[:-1],
        lambda blob: blob[: len(blob) // 2],
        lambda blob: b"\0" * len(blob),
        lambda blob: blob + b"\0" * 4,
        lambda blob: bytes([blob[0] ^ 1]) + blob[1:],
        lambda blob: bytearray(b"not a snapshot" * 100),
    ],
)
def test_a_refused_snapshot_leaves_the_one_in_use(spoil: Callable[[bytes], bytes]) -> None:
    with desk("a") as at:
        web, origin = at.listen(), at.listening()
        at.set_endpoints("a", origin)
        with pytest.raises(ValueError):
            at.engine.swap(spoil(blob_of(config("b", "c"))), 2)
        assert at.scalar("snapshots_refused") == 1 and at.scalar("worker_revision") == 1
        assert [row["name"] for row in at.engine.describe_clusters()] == ["a"]
        exchange(at, web, origin)


def test_a_swap_says_its_revision_and_its_cost() -> None:
    with desk("a") as at:
        at.engine.swap(blob_of(config("a", "b"), 7), 7)
        assert at.scalar("worker_revision") == 7 and at.scalar("worker_swap_seconds") < 1_000_000
        assert {row["name"] for row in at.engine.describe_clusters()} == {"a", "b"}


def test_before_the_first_snapshot_connections_are_closed() -> None:
    at = Desk()
    web = at.listen()
    client = at.connect(web, get())
    assert at.receive(client) == b""
    assert at.scalar("downstream_connections_refused") == 1
    at.engine.swap(blob_of(config("a")), 1)
    client = at.connect(web, get())
    assert at.head(client).startswith(b"HTTP/1.1 503 ")
    at.close()


def test_a_connection_that_is_open_meets_the_new_routes() -> None:
    with desk("a") as at:
        web, one, two = at.listen(), at.listening(), at.listening()
        at.set_endpoints("a", one)
        client, _ = exchange(at, web, one)
        at.engine.swap(blob_of(config("b")), 2)
        at.set_endpoints("b", two)
        client.send(get("/again"))
        server = at.accept(two)
        assert at.head(server).startswith(b"GET /again HTTP/1.1\r\n")


def test_a_request_in_flight_ends_with_the_snapshot_it_began_with() -> None:
    with desk("a") as at:
        web, origin = at.listen(), at.listening()
        at.set_endpoints("a", origin)
        client = at.connect(web, get())
        server = at.accept(origin)
        at.head(server)
        for revision in range(2, 6):
            at.engine.swap(blob_of(config("b"), revision), revision)
            at.turn()
        server.send(OK)
        assert at.receive(client, b"\r\n\r\nok").startswith(b"HTTP/1.1 200 OK")


def test_a_port_that_a_snapshot_does_not_name_takes_nobody() -> None:
    with desk("a") as at:
        web = at.listen()
        at.engine.swap(blob_of(config("a", listeners=(Listener(name="other", port=9090),))), 2)
        assert at.receive(at.connect(web, get())) == b""
        at.engine.swap(blob_of(config("a")), 3)
        assert at.head(at.connect(web, get())).startswith(b"HTTP/1.1 503 ")


# Endpoints


def test_endpoints_may_come_before_the_snapshot_that_names_their_cluster() -> None:
    with desk("a") as at:
        web, origin, other = at.listen(), at.listening(), at.listening()
        at.set_endpoints("b", other)
        at.set_endpoints("b", origin)
        assert at.cluster("b") is None
        at.engine.swap(blob_of(config("a", "b")), 2)
        assert [row["address"] for row in endpoints_of(at, "b")] == [f"127.0.0.1:{origin.getsockname()[1]}"]
        exchange(at, web, origin, "/b")


@pytest.mark.parametrize("name", ["a", "later"])
def test_bad_endpoints_are_refused_when_they_come(name: str) -> None:
    """Not by the swap that names their cluster: the snapshot is not to blame."""
    with desk("a") as at:
        web, origin = at.listen(), at.listening()
        at.set_endpoints("a", origin)
        for bad in ((b"localhost", 80, 1, b""), (b"127.0.0.1", 65536, 1, b"")):
            with pytest.raises(ValueError):
                at.engine.set_endpoints(cluster_id(name), [(b"127.0.0.1", 9, 1, b""), bad])
        at.engine.swap(blob_of(config("a", "later")), 2)
        exchange(at, web, origin)


def test_without_endpoints_nobody_is_asked() -> None:
    with desk("a") as at:
        web = at.listen()
        client = at.connect(web, get())
        assert at.head(client).startswith(b"HTTP/1.1 503 ")
        words = series(at, "a")
        assert words is not None and words[9] == 1, "no_endpoint"


def test_endpoints_that_stay_keep_their_connections() -> None:
    with desk("a") as at:
        web, one, two = at.listen(), at.listening(), at.listening()
        at.set_endpoints("a", one)
        client, server = exchange(at, web, one)
        at.set_endpoints("a", two, one)
        at.set_endpoints("a", one)
        client.send(get("/second"))
        assert at.head(server).startswith(b"GET /second"), "on the same connection"


def test_endpoints_that_go_close_what_idles_and_end_what_runs() -> None:
    with desk("a") as at:
        web, one, two = at.listen(), at.listening(), at.listening()
        at.set_endpoints("a", one)
        _, idle = exchange(at, web, one)
        busy_client = at.connect(web, get("/busy"))
        assert at.head(idle).startswith(b"GET /busy")
        second_client, second = exchange(at, web, one)
        at.set_endpoints("a", two)
        assert at.receive(second) == b"", "idle"
        idle.send(OK)
        at.receive(busy_client, b"\r\n\r\nok")
        assert at.receive(idle) == b"", "closed after its exchange"
        second_client.send(get("/moved"))
        assert at.head(at.accept(two)).startswith(b"GET /moved")


def test_waiting_requests_move_to_the_endpoints_that_are_left() -> None:
    """The old endpoint does not answer its dial (its backlog is full); its successor gets what waited."""
    with desk("a") as at:
        web, new = at.listen(), at.listening()
        deaf = socket.socket()
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        at.sockets.append(deaf)
        for _ in range(4):  # fills the queue of those that nobody accepts
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
            at.sockets.append(filler)
        at.set_endpoints("a", deaf)
        client = at.connect(web, get("/waits"))
        at.until(lambda: endpoints_of(at, "a")[0]["waiting"] == 1)
        at.set_endpoints("a", new)
        server = at.accept(new)
        assert at.head(server).startswith(b"GET /waits")
        server.send(OK)
        at.receive(client, b"\r\n\r\nok")


# Clusters that leave


def test_a_cluster_that_leaves_sees_out_what_is_in_flight() -> None:
    with desk("a") as at:
        web, origin = at.listen(), at.listening()
        at.set_endpoints("a", origin)
        client = at.connect(web, get())
        server = at.accept(origin)
        at.head(server)
        at.engine.swap(blob_of(config("b")), 2)
        at.turn()
        row = at.cluster("a")
        assert row is not None and row["active"] == 1
        server.send(OK)
        at.receive(client, b"\r\n\r\nok")
        at.until(lambda: at.cluster("a") is None)
        assert at.receive(server) == b"", "its idle connection is closed"


def test_a_cluster_with_nothing_in_flight_leaves_at_the_next_tick() -> None:
    with desk("a") as at:
        web, origin = at.listen(), at.listening()
        at.set_endpoints("a", origin)
        _, server = exchange(at, web, origin)
        at.engine.swap(blob_of(config("b")), 2)
        at.engine.on_tick()
        assert at.cluster("a") is None
        assert at.receive(server) == b""


def with_retries(backoff: str) -> Config:
    """Cluster "a" behind a rule that tries a 503 again after a pause."""
    wanted = config("a")
    (route,) = wanted.routes
    (rule,) = route.rules
    retry = Retry(attempts=3, codes=(503,), backoff=Duration.parse(backoff))
    route = msgspec.structs.replace(route, rules=(msgspec.structs.replace(rule, retry=retry),))
    return msgspec.structs.replace(wanted, routes=(route,))


def test_a_cluster_stays_while_a_request_pauses_before_it_tries_again() -> None:
    at = Desk(blob_of(with_retries("30ms")))
    web, origin = at.listen(), at.listening()
    at.set_endpoints("a", origin)
    client = at.connect(web, get("/again"))
    server = at.accept(origin)
    at.head(server)
    server.send(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
    at.until(lambda: (row := at.cluster("a")) is not None and row["active"] == 0)
    # Nothing is in flight on it now, and nothing waits for a connection; its series must stay its own all the same.
    for revision, name in ((2, "b"), (3, "c")):
        at.engine.swap(blob_of(config(name), revision), revision)
        at.engine.on_tick()
        assert at.cluster("a") is not None and series(at, "a") is not None
    server = at.accept(origin)
    assert at.head(server).startswith(b"GET /again ")
    server.send(OK)
    at.receive(client, b"\r\n\r\nok")
    at.until(lambda: at.cluster("a") is None)
    at.engine.swap(blob_of(config("c"), 4), 4)
    assert series(at, "a") is None
    at.close()


def test_a_client_that_leaves_in_the_pause_frees_the_cluster() -> None:
    at = Desk(blob_of(with_retries("10s")))
    web, origin = at.listen(), at.listening()
    at.set_endpoints("a", origin)
    client = at.connect(web, get())
    server = at.accept(origin)
    at.head(server)
    server.send(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
    at.until(lambda: (row := at.cluster("a")) is not None and row["active"] == 0)
    at.engine.swap(blob_of(config("b"), 2), 2)
    at.engine.on_tick()
    assert at.cluster("a") is not None
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    at.until(lambda: at.cluster("a") is None)
    at.close()


def test_an_upgrade_that_waits_for_an_endpoint_that_goes_tries_another() -> None:
    at = Desk(blob_of(config("a", max_connections=1)))
    web, one, two = at.listen(), at.listening(), at.listening()
    at.set_endpoints("a", one)
    at.connect(web, get("/first"))
    at.head(at.accept(one))
    upgrade = at.connect(web, get("/second", "Connection: Upgrade", "Upgrade: echo"))
    at.until(lambda: endpoints_of(at, "a")[0]["waiting"] == 1)
    at.set_endpoints("a", two)
    server = at.accept(two)
    assert at.head(server).startswith(b"GET /second HTTP/1.1\r\n")
    server.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello")
    assert at.receive(upgrade, b"hello").startswith(b"HTTP/1.1 101 ")
    at.close()


def test_a_cluster_that_comes_back_in_time_never_left() -> None:
    with desk("a") as at:
        web, origin = at.listen(), at.listening()
        at.set_endpoints("a", origin)
        client = at.connect(web, get())
        server = at.accept(origin)
        at.head(server)
        at.engine.swap(blob_of(config("b")), 2)
        at.turn()
        at.engine.swap(blob_of(config("a")), 3)
        server.send(OK)
        at.receive(client, b"\r\n\r\nok")
        for _ in range(3):
            at.turn()
        client.send(get("/still"))
        assert at.head(server).startswith(b"GET /still"), "endpoints and connections are those of before"


def test_series_of_names_that_are_gone_are_retired() -> None:
    with desk("a", "b") as at:
        web, origin = at.listen(), at.listening()
        at.set_endpoints("a", origin)
        exchange(at, web, origin)
        read = counters.read(at.block)
        assert read is not None and len(read[4]) >= 1
        assert series(at, "a") is not None and series(at, "b") is not None
        at.engine.swap(blob_of(config("b")), 2)
        at.until(lambda: at.cluster("a") is None)
        at.engine.swap(blob_of(config("b")), 3)
        assert series(at, "a") is None and series(at, "b") is not None
        read = counters.read(at.block)
        assert read is not None and not [row for row in read[4] if cluster_id("a") in row]


def test_gauges_of_a_cluster_end_at_nothing() -> None:
    with desk("a", "b") as at:
        web, origin = at.listen(), at.listening()
        at.set_endpoints("a", origin)
        client, server = exchange(at, web, origin)
        words = series(at, "a")
        assert words is not None and words[10:14] == (0, 1, 1, 0), "active, idle, connections, pending"
        client.send(get("/x"))
        at.head(server)
        words = series(at, "a")
        assert words is not None and words[10:14] == (1, 0, 1, 0)
        server.close()
        again = at.accept(origin)
        assert at.head(again).startswith(b"GET /x"), "a pooled connection that was dead is replaced"
        again.close()
        assert at.head(client).startswith(b"HTTP/1.1 502 ")
        words = series(at, "a")
        assert words is not None and words[10:14] == (0, 0, 0, 0)


# Listeners


def test_unlisten_stops_accepting_and_keeps_connections() -> None:
    with desk("a") as at:
        web, origin = at.listen(), at.listening()
        at.set_endpoints("a", origin)
        client, server = exchange(at, web, origin)
        at.engine.unlisten(name_id("bind", "[::]:8080"))
        at.engine.unlisten(name_id("bind", "[::]:8080"))
        at.engine.unlisten(12345)
        late = at.connect(web, get())
        client.send(get("/more"))
        assert at.head(server).startswith(b"GET /more")
        server.send(OK)
        answer = at.receive(client)
        assert b"connection: close\r\n" in answer, "the last one"
        with pytest.raises(BlockingIOError):
            late.recv(1)
        assert at.engine.connections == 0
        accepted, _ = web.accept()
        accepted.close()


def test_a_connection_of_a_port_without_listener_follows_the_snapshots() -> None:
    """A request that crosses the end of its listener is served like any other, by the routes of its time."""
    with desk("a") as at:
        web, one, two = at.listen(), at.listening(), at.listening()
        at.set_endpoints("a", one)
        first, server = exchange(at, web, one)
        second = at.connect(web)
        answered(at, second, server, "/second")
        at.engine.unlisten(name_id("bind", "[::]:8080"))
        at.engine.swap(blob_of(config("b", "c", "d")), 2)
        at.set_endpoints("b", two)
        first.send(get("/new"))
        assert at.head(at.accept(two)).startswith(b"GET /new")
        at.engine.swap(blob_of(config("a", listeners=(Listener(name="other", port=9090),))), 3)
        second.send(get("/gone"))
        answer = at.receive(second)
        assert answer.startswith(b"HTTP/1.1 404 ") and b"connection: close\r\n" in answer


def test_a_descriptor_that_cannot_be_watched_is_an_error(tmp_path: Any) -> None:
    with desk("a") as at, open(tmp_path / "file", "w") as file:
        with pytest.raises(OSError, match="cannot be watched"):
            at.engine.listen(file.fileno(), 1)
        at.turn()


# The tick


def test_an_idle_engine_asks_for_rest_and_is_woken_by_what_happens() -> None:
    with desk("a") as at:
        woken: list[int] = []
        at.engine.set_wake(lambda: woken.append(1))
        web, origin = at.listen(), at.listening()
        at.set_endpoints("a", origin)
        assert at.engine.on_tick() == 20, "something happened"
        assert at.engine.on_tick() == 1000 and not woken
        client = at.connect(web, get())
        at.engine.on_ready()
        assert woken == [1]
        at.engine.on_ready()
        assert woken == [1] and at.engine.on_tick() == 20, "until it is asked again, its ticks are short"
        at.head(at.accept(origin))
        at.until(lambda: at.engine.on_tick() == 1000)
        client.close()
        at.engine.on_ready()
        assert woken == [1, 1]


def test_what_its_shell_does_wakes_an_engine_as_well() -> None:
    with desk("a") as at:
        woken: list[int] = []
        at.engine.set_wake(lambda: woken.append(1))
        web = at.listen()
        changes: list[Callable[[], Any]] = [
            lambda: at.engine.swap(blob_of(config("a", "b"), 2), 2),
            lambda: at.set_endpoints("a", web),
            lambda: at.engine.set_client_tls(cluster_id("a"), None),
            lambda: at.engine.unlisten(name_id("bind", "[::]:8080")),
            lambda: at.engine.drain(60_000),
        ]
        for number, change in enumerate(changes):
            at.engine.on_tick()
            assert at.engine.on_tick() == 1000 and len(woken) == number
            change()
            assert len(woken) == number + 1
        assert at.engine.on_tick() == at.engine.on_tick() == 20, "a drain has a deadline"


def test_a_rest_ends_where_a_deadline_is() -> None:
    limits = LimitsOverride(header_timeout=Duration(500))
    at = Desk(blob_of(config("a", listeners=(Listener(name="web", port=8080, limits=limits),))))
    half = at.connect(at.listen(), b"GET / HTTP/1.1\r\n")
    at.until(lambda: at.engine.connections == 1 and at.engine.on_tick() != 20)
    assert at.engine.on_tick() <= 540
    assert at.receive(half).startswith(b"HTTP/1.1 408 ")
    at.close()


# What it tells


def test_describe_connections_says_where_each_stands() -> None:
    with desk("a", "b") as at:
        web, origin = at.listen(), at.listening()
        at.set_endpoints("a", origin)
        at.set_endpoints("b", origin)
        idle, _ = exchange(at, web, origin)
        busy = at.connect(web, get("/b/x?y=1"))
        at.head(at.accept(origin))
        half = at.connect(web, b"GET / HT")
        at.until(lambda: sum(row["state"] == "head" for row in at.engine.describe_connections()) == 1)
        rows = {row["peer"]: row for row in at.engine.describe_connections()}
        assert len(rows) == at.engine.connections == 3
        assert {row["listener"] for row in rows.values()} == {"web"}
        address = "{}:{}".format
        row = rows[address(*busy.getsockname())]
        assert row["method"] == "GET" and row["path"] == "/b/x" and row["cluster"] == "b" and row["route"] == "to-b"
        assert row["upstream"] == address(*origin.getsockname()) and row["phase"] == "RESPONSE_HEAD"
        assert rows[address(*idle.getsockname())]["state"] == "idle" and rows[address(*idle.getsockname())]["requests"] == 1
        assert rows[address(*half.getsockname())]["held_bytes"] == 8
        for row in rows.values():
            assert 0 <= row["age_ms"] < 1000 * PATIENCE and row["queued_bytes"] == 0
        assert len(at.engine.describe_connections(2)) == 2 and at.engine.describe_connections(0) == []


def test_describe_connections_shows_bytes_of_clients_as_text() -> None:
    with desk("a") as at:
        web, origin = at.listen(), at.listening()
        at.set_endpoints("a", origin)
        at.connect(web, b"GET /caf%C3%A9/\xff HTTP/1.1\r\nHost: a.test\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n")
        at.connect(web, get("/%1B%5B2J"))
        at.until(lambda: at.scalar("downstream_requests") + at.scalar("downstream_connections_closed") >= 2)
        assert all(row.get("path", "/").isprintable() for row in at.engine.describe_connections())


def test_describe_clusters_counts_what_is_there() -> None:
    with desk("a") as at:
        web, origin = at.listen(), at.listening()
        at.set_endpoints("a", origin)
        exchange(at, web, origin)
        busy = at.connect(web, get("/busy"))
        at.until(lambda: (row := at.cluster("a")) is not None and row["active"] == 1)
        other = at.connect(web, get("/other"))
        at.head(at.accept(origin))
        row = at.cluster("a")
        assert row is not None and (row["id"], row["name"], row["policy"], row["active"]) == (
            cluster_id("a"), "a", "LeastRequest", 2)  # fmt: skip
        (endpoint,) = row["endpoints"]
        assert (endpoint["active"], endpoint["idle"], endpoint["connections"]) == (2, 0, 2)
        assert (endpoint["waiting"], endpoint["dialing"], endpoint["up"], endpoint["ejected"]) == (0, 0, True, False)
        assert busy.fileno() >= 0 and other.fileno() >= 0


def test_take_log_gives_each_line_once() -> None:
    with desk("a", log_format="json") as at:
        web, origin = at.listen(), at.listening()
        at.set_endpoints("a", origin)
        assert at.engine.take_log() == b""
        client, server = exchange(at, web, origin, "/one")
        at.receive(at.connect(web, b"BROKEN\r\n\r\n"))
        lines = [json.loads(line) for line in at.engine.take_log().splitlines()]
        assert [line["status"] for line in lines] == [200, 400]
        assert at.engine.take_log() == b""
        at.engine.set_log("off", 1.0)
        answered(at, client, server, "/unseen")
        assert at.engine.take_log() == b""
        at.engine.set_log("text", 1.0)
        answered(at, client, server, "/seen")
        assert b"/seen" in at.engine.take_log()
        with pytest.raises(ValueError):
            at.engine.set_log("xml", 1.0)


def test_a_block_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError):
        Engine(bytearray(64))


# The end


def test_drain_closes_what_idles_and_lets_the_rest_finish() -> None:
    with desk("a") as at:
        web, origin = at.listen(), at.listening()
        at.set_endpoints("a", origin)
        idle, _ = exchange(at, web, origin)
        busy = at.connect(web, get("/busy"))
        at.until(lambda: (row := at.cluster("a")) is not None and row["active"] == 1)
        at.engine.unlisten(name_id("bind", "[::]:8080"))
        at.engine.drain(60_000)
        assert at.receive(idle) == b""
        server = next(end for end in at.sockets if end.getsockname() == origin.getsockname() and end is not origin)
        at.head(server)
        server.send(OK)
        answer = at.receive(busy)
        assert b"connection: close\r\n" in answer and answer.endswith(b"\r\n\r\nok")
        at.until(lambda: at.engine.connections == 0)
        late = at.connect(web)
        at.turn()
        assert at.engine.connections == 0 and late.fileno() >= 0


def test_an_idle_connection_may_bring_one_more_request_once_draining_has_begun() -> None:
    with desk("a") as at:
        web, origin = at.listen(), at.listening()
        at.set_endpoints("a", origin)
        client, server = exchange(at, web, origin)
        at.engine.drain(60_000)
        client.send(get("/on-its-way"))
        assert at.head(server).startswith(b"GET /on-its-way ")
        server.send(OK)
        answer = at.receive(client)
        assert b"connection: close\r\n" in answer and answer.endswith(b"\r\n\r\nok")


def test_who_waits_in_the_queue_of_a_port_that_goes_is_still_served() -> None:
    with desk("a") as at:
        web, origin = at.listen(), at.listening()
        at.set_endpoints("a", origin)
        waiting = at.connect(web)
        assert at.engine.connections == 0
        at.engine.unlisten(name_id("bind", "[::]:8080"))
        assert at.engine.connections == 1
        waiting.send(get("/queued"))
        server = at.accept(origin)
        assert at.head(server).startswith(b"GET /queued ")
        server.send(OK)
        answer = at.receive(waiting)
        assert b"connection: close\r\n" in answer and answer.endswith(b"\r\n\r\nok")


def test_drain_ends_at_its_deadline() -> None:
    with desk("a", log_format="json") as at:
        web, origin = at.listen(), at.listening()
        at.set_endpoints("a", origin)
        busy = at.connect(web, get("/never"))
        server = at.accept(origin)
        at.head(server)
        half = at.connect(web, b"GET / HTTP/1.1\r\n")
        at.until(lambda: at.engine.connections == 2)
        at.engine.drain(0)
        at.engine.on_tick()
        assert at.engine.connections == 0
        assert at.receive(busy) == at.receive(half) == at.receive(server) == b""
        assert len(at.engine.take_log().splitlines()) == 2, "every exchange ends in the log, exactly once"


def test_the_scheme_of_a_record_is_that_of_the_connection() -> None:
    with desk("a", log_format="json") as at:
        web, origin = at.listen(), at.listening()
        at.set_endpoints("a", origin)
        client, server = exchange(at, web, origin)
        client.send(b"GET https://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n")
        at.head(server)
        server.send(OK)
        at.receive(client, b"\r\n\r\nok")
        assert [json.loads(line)["scheme"] for line in at.engine.take_log().splitlines()] == ["http", "http"]


def descriptors() -> set[str]:
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
        except OSError:
            continue  # the directory itself
    return found


def test_close_in_the_middle_of_everything_leaves_no_descriptor_and_no_garbage() -> None:
    gc.collect()
    before = descriptors()
    close_in_the_middle()
    assert gc.collect() == 0
    assert descriptors() == before


def close_in_the_middle() -> None:
    at = Desk(blob_of(config("a", "b")), log_format="json")
    web, origin, deaf = at.listen(), at.listening(), at.listening()
    at.set_endpoints("a", origin)
    at.set_endpoints("b", deaf)
    exchange(at, web, origin)
    at.connect(web, get("/busy"))
    at.connect(web, b"GET / HT")
    at.connect(web, get("/b/dialled-and-not-answered"))
    at.connect(web, b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000\r\n\r\npart")
    tunnel = at.connect(web, get("/tunnel", "Connection: upgrade", "Upgrade: websocket"))
    at.until(lambda: at.engine.connections == 6 and at.scalar("downstream_requests") == 5)
    assert tunnel.fileno() >= 0
    at.engine.close()
    at.engine.close()
    assert at.engine.connections == 0
    for end in at.sockets:
        end.close()
    read = counters.read(at.block)
    assert read is not None
    assert [at.scalar(name) for name in ("downstream_connections_active", "downstream_requests_active")] == [0, 0]
    assert all(row[13:17] == (0, 0, 0, 0) for row in read[3]), "gauges of the clusters"


def test_ten_thousand_requests_leave_no_garbage() -> None:
    """DESIGN §7: flat object counts, nothing for the cyclic collector."""
    with desk("a") as at:
        web, origin = at.listen(), at.listening()
        at.set_endpoints("a", origin)
        client, server = exchange(at, web, origin)

        def serve(times: int) -> None:
            # Pipelined at the client in twenties, one at a time at the origin.
            for _ in range(times // 20):
                client.send(get("/n") * 20)
                for _ in range(20):
                    at.head(server)
                    server.send(OK)
                got = b""
                while got.count(b"\r\n\r\nok") < 20:
                    got += at.receive(client, b"\r\n\r\nok")

        serve(200)
        gc.collect()
        gc.disable()
        try:
            before = len(gc.get_objects())
            serve(10_000)
            assert gc.collect() == 0
            assert abs(len(gc.get_objects()) - before) < 50
        finally:
            gc.enable()
        assert at.scalar("downstream_requests") == 10_201


def test_clusters_and_connections_that_come_and_go_leave_no_garbage() -> None:
    def churn(at: Desk, web: socket.socket, origin: socket.socket, times: int) -> None:
        for number in range(times):
            name = f"c{number % 3}"
            at.engine.swap(blob_of(config(name)), number + 2)
            at.set_endpoints(name, origin)
            client, server = exchange(at, web, origin)
            for end in (client, server):
                at.sockets.remove(end)
                end.close()
            at.until(lambda: at.engine.connections == 0)

    with desk("a") as at:
        web, origin = at.listen(), at.listening()
        churn(at, web, origin, 6)
        gc.collect()
        open_before = len(descriptors())
        before = len(gc.get_objects())
        churn(at, web, origin, 60)
        collected = gc.collect()
        assert abs(len(gc.get_objects()) - before) < 100
        assert len(descriptors()) == open_before
        assert collected < 20, "at most what compiling the snapshots left"
