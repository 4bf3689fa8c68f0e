"""Who tries again, how often, when, and who must not: counted at the origins."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from data_plane import DataPlane, origin_config
from faulty import Cut, Origin, Wire, answer, client, get, once, polite, refusing

DOWN = once(answer(b"down", "503 Service Unavailable"))
RETRY: dict[str, Any] = {"retry": {"attempts": 2, "codes": [503]}}


def reset_after_request(origin: Origin, wire: Wire) -> None:
    if (request := wire.request()) is not None:
        origin.requests.append(request)
        wire.reset()


def send_post(wire: Wire, body: bytes = b"once", method: str = "POST") -> int:
    wire.send(f"{method} / HTTP/1.1\r\nhost: test\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
    return wire.response().status


# how many


def test_d16_exactly_the_configured_tries_for_a_code() -> None:
    with Origin(DOWN) as origin, DataPlane(origin_config(origin.port, rule=RETRY)) as plane:
        response = get(plane.port)
        assert (response.status, response.body) == (503, b"down")
        assert len(origin.requests) == 3
        record = plane.record()
        assert record["attempts"] == 3 and record["flags"] == "URX"


def test_d16_exactly_the_configured_tries_for_an_origin_that_resets() -> None:
    with Origin(reset_after_request) as origin, DataPlane(origin_config(origin.port, rule=RETRY)) as plane:
        assert get(plane.port).status == 502
        assert len(origin.requests) == 3
        assert set(plane.record()["flags"].split(",")) == {"UC", "URX"}


def test_without_a_policy_an_answer_is_an_answer() -> None:
    with Origin(DOWN) as origin, DataPlane(origin_config(origin.port)) as plane:
        assert get(plane.port).status == 503
        assert len(origin.requests) == 1 and plane.record()["flags"] == "-"


def test_a_code_that_is_not_listed_is_not_tried_again() -> None:
    script = once(answer(b"", "500 Internal Server Error"))
    with Origin(script) as origin, DataPlane(origin_config(origin.port, rule=RETRY)) as plane:
        assert get(plane.port).status == 500
        assert len(origin.requests) == 1


def test_an_attempt_that_works_ends_the_tries() -> None:
    with Origin(DOWN) as bad, Origin() as good:
        config = origin_config(bad.port, good.port, rule=RETRY, cluster={"loadBalancing": {"policy": "RoundRobin"}})
        with DataPlane(config) as plane, client(plane.port) as wire:
            assert [wire.ask().status for _ in range(30)] == [200] * 30
            assert len(good.requests) == 30
            assert len(bad.requests) == sum(record["attempts"] - 1 for record in plane.records(30))


def test_a_timed_out_attempt_goes_to_another_endpoint() -> None:
    def silent(origin: Origin, wire: Wire) -> None:
        origin.requests.append(wire.request())  # type: ignore[arg-type]
        wire.receive()

    rule = {"retry": {"attempts": 1}, "timeouts": {"backendRequest": "200ms"}}
    with Origin(silent) as bad, Origin() as good, DataPlane(origin_config(bad.port, good.port, rule=rule)) as plane:
        for _ in range(4):
            assert get(plane.port).status == 200
        plane.until(lambda: bad.open == 0)


def test_no_response_that_has_begun_is_tried_again() -> None:
    script = once(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc")
    with Origin(script) as origin, DataPlane(origin_config(origin.port, rule=RETRY)) as plane:
        with client(plane.port) as wire, pytest.raises(Cut):
            wire.ask()
        assert plane.record()["attempts"] == 1 and len(origin.requests) == 1


# when


def test_the_backoff_doubles_and_has_jitter() -> None:
    rule = {"retry": {"attempts": 2, "codes": [503], "backoff": "100ms"}}
    with Origin(DOWN) as origin, DataPlane(origin_config(origin.port, rule=rule)) as plane:
        start = time.monotonic()
        assert get(plane.port).status == 503
        # 100 to 150 ms, then 200 to 300 ms
        assert 0.29 < time.monotonic() - start < 5
        assert len(origin.requests) == 3


def test_a_client_that_leaves_in_the_backoff_ends_the_tries() -> None:
    rule = {"retry": {"attempts": 2, "codes": [503], "backoff": "1s"}}
    with Origin(DOWN) as origin, DataPlane(origin_config(origin.port, rule=rule)) as plane:
        wire = client(plane.port)
        wire.send(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
        plane.until(lambda: len(origin.requests) == 1 and plane.endpoints()[0]["active"] == 0)
        wire.reset()
        record = plane.record()
        assert record["flags"] == "DC" and record["attempts"] == 1
        assert len(origin.requests) == 1


# what


@pytest.mark.parametrize("script", [reset_after_request, DOWN], ids=["reset", "503"])
def test_item_40_a_post_is_never_sent_twice(script: Any) -> None:
    with Origin(script) as origin, DataPlane(origin_config(origin.port, rule=RETRY)) as plane:
        with client(plane.port) as wire:
            assert send_post(wire) in (502, 503)
        assert len(origin.requests) == 1


def test_item_40_a_method_of_unknown_meaning_is_never_sent_twice() -> None:
    with Origin(reset_after_request) as origin, DataPlane(origin_config(origin.port, rule=RETRY)) as plane:
        with client(plane.port) as wire:
            assert wire.ask(method="REPORT").status == 502
        assert len(origin.requests) == 1


@pytest.mark.parametrize("framing", ["content-length", "chunked"])
@pytest.mark.parametrize("size", [10, 5000, 30000])
def test_an_idempotent_request_is_sent_again_with_all_its_content(framing: str, size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    with Origin(reset_after_request) as origin, DataPlane(origin_config(origin.port, rule=RETRY)) as plane:
        with client(plane.port) as wire:
            head = b"PUT / HTTP/1.1\r\nhost: test\r\n"
            if framing == "chunked":
                half = len(body) // 2
                chunks = b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (half, body[:half], len(body) - half, body[half:])
                wire.send(head + b"transfer-encoding: chunked\r\n\r\n" + chunks)
            else:
                wire.send(head + b"content-length: %d\r\n\r\n" % len(body) + body)
            assert wire.response().status == 502
        assert [request.body == body for request in origin.requests] == [True] * 3


def test_content_that_is_too_large_to_keep_is_not_sent_again() -> None:
    with Origin(reset_after_request) as origin, DataPlane(origin_config(origin.port, rule=RETRY)) as plane:
        with client(plane.port) as wire:
            assert send_post(wire, b"x" * 500_000, "PUT") == 502
        assert len(origin.requests) == 1


# the race with an origin's idle close


def one_each(origin: Origin, wire: Wire) -> None:
    """Announces keep-alive and closes after the response."""
    if (request := wire.request()) is not None:
        with origin.lock:  # type: ignore[attr-defined]
            origin.seen[request.target] = origin.seen.get(request.target, 0) + 1  # type: ignore[attr-defined]
        wire.send(answer(b"ok"))


def idle_1_ms(origin: Origin, wire: Wire) -> None:
    """Keeps a connection for as long as requests follow within a millisecond."""
    while (request := wire.request()) is not None:
        with origin.lock:  # type: ignore[attr-defined]
            origin.seen[request.target] = origin.seen.get(request.target, 0) + 1  # type: ignore[attr-defined]
        wire.send(answer(b"ok"))
        if not wire.is_readable(0.001):
            return


@pytest.mark.parametrize("script", [one_each, idle_1_ms])
def test_10000_gets_survive_an_origin_that_closes_under_them(script: Any) -> None:
    """The table's bar: 0 client errors. A POST may fail in the race, and is never executed twice."""
    clients, each = 4, 2500
    with Origin(script) as origin:
        origin.lock = threading.Lock()  # type: ignore[attr-defined]
        origin.seen = {}  # type: ignore[attr-defined]
        with DataPlane(origin_config(origin.port), log="off") as plane:

            def ask(number: int) -> tuple[int, int]:
                bad = posts = 0
                with client(plane.port) as wire:
                    for i in range(each):
                        bad += wire.ask(f"/g{number}-{i}").status != 200
                        if i % 10 == 0:
                            wire.send(f"POST /p{number}-{i} HTTP/1.1\r\nhost: test\r\ncontent-length: 1\r\n\r\nx".encode())
                            posts += wire.response().status == 200
                return bad, posts

            with ThreadPoolExecutor(clients) as pool:
                results = list(pool.map(ask, range(clients)))
            assert sum(bad for bad, _ in results) == 0
            seen: dict[str, int] = origin.seen  # type: ignore[attr-defined]
            assert len([target for target in seen if target.startswith("/g")]) == clients * each
            executed = [count for target, count in seen.items() if target.startswith("/p")]
            assert set(executed) == {1} and len(executed) >= sum(posts for _, posts in results)


# how many at once


def test_the_retry_budget_holds_under_many_requests() -> None:
    """Fifty requests at once whose first attempts all fail at the same moment: at most a fifth, or three, of them try again."""
    everyone = threading.Barrier(50)

    def script(origin: Origin, wire: Wire) -> None:
        if (request := wire.request()) is not None:
            origin.requests.append(request)
            if len(origin.requests) <= 50:
                everyone.wait(20)
            wire.reset()

    with Origin(script) as origin, DataPlane(origin_config(origin.port, rule={"retry": {"attempts": 5}})) as plane:
        with ThreadPoolExecutor(50) as pool:
            assert list(pool.map(lambda _: get(plane.port).status, range(50))) == [502] * 50
        tries_again = len(origin.requests) - 50
        retrying = [record for record in plane.records(50) if record["attempts"] > 1]
        assert 0 < len(retrying) <= 3 + 50 // 5
        assert tries_again <= 5 * len(retrying)
        # and the budget is given back
        origin.script = reset_after_request
        before = len(origin.requests)
        assert get(plane.port).status == 502
        assert len(origin.requests) - before == 6


def test_connect_failures_try_each_endpoint_and_no_more() -> None:
    with refusing() as a, refusing() as b, refusing() as c, DataPlane(origin_config(a, b, c)) as plane:
        assert get(plane.port).status == 503
        assert plane.record()["attempts"] == 3


def test_a_cluster_that_comes_back_is_used_at_once() -> None:
    with Origin(DOWN) as origin, DataPlane(origin_config(origin.port)) as plane:
        assert get(plane.port).status == 503
        origin.script = polite
        assert get(plane.port).status == 200
