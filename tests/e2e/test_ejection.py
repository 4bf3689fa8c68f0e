"""Passive ejection: an endpoint that keeps failing is left out for a while, comes back, and stays out longer each time."""

import itertools
import time
from contextlib import ExitStack
from typing import Any

import pytest
from data_plane import DataPlane, origin_config
from faulty import Origin, Script, Wire, answer, client, get, once, polite, refusing

AN_HOUR = {"consecutiveErrors": 3, "baseEjectionTime": "1h"}


def watched(*ports: int, outliers: dict[str, Any] = AN_HOUR, rule: dict[str, Any] | None = None, **cluster: Any) -> dict[str, Any]:
    return origin_config(
        *ports, rule=rule, cluster={"loadBalancing": {"policy": "RoundRobin"}, "outlierDetection": outliers, **cluster}
    )


def says(status: str) -> Script:
    """Answers every request with this status."""

    def script(origin: Origin, wire: Wire) -> None:
        while (request := wire.request()) is not None:
            origin.requests.append(request)
            wire.send(answer(b"", status))

    return script


def resets(origin: Origin, wire: Wire) -> None:
    if (request := wire.request()) is not None:
        origin.requests.append(request)
        wire.reset()


def silent(origin: Origin, wire: Wire) -> None:
    if (request := wire.request()) is not None:
        origin.requests.append(request)
        wire.receive()


def is_ejected(plane: DataPlane, port: int) -> bool:
    return bool(plane.endpoint(port)["ejected"])


# what ejects


@pytest.mark.parametrize(
    ("script", "status"),
    [
        pytest.param(says("502 Bad Gateway"), 502, id="502"),
        pytest.param(says("503 Service Unavailable"), 503, id="503"),
        pytest.param(says("504 Gateway Timeout"), 504, id="504"),
        pytest.param(resets, 502, id="reset"),
        pytest.param(once(b"no http\r\n\r\n"), 502, id="garbage"),
        pytest.param(once(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"), 200, id="cut"),
        pytest.param(silent, 504, id="timeout"),
    ],
)
def test_three_failures_in_a_row_eject(script: Script, status: int) -> None:
    rule = {"timeouts": {"backendRequest": "100ms"}} if script is silent else None
    with Origin(script) as bad, Origin() as good, DataPlane(watched(bad.port, good.port, rule=rule)) as plane:
        failed = 0
        while not is_ejected(plane, bad.port):
            before = len(bad.requests)
            with client(plane.port) as wire:
                wire.send(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
                head = wire.head()
                assert head is not None and head.status in (200, status)
                # the engine has seen the end of it
                plane.until(lambda: plane.cluster()["active"] == 0)
            failed += len(bad.requests) - before
            assert failed <= 3
        assert failed == len(bad.requests) == 3
        # from here on nobody notices
        assert [get(plane.port).body for _ in range(10)] == [b"ok"] * 10
        assert len(bad.requests) == 3
        row = plane.endpoint(bad.port)
        assert 0 < row["ejected_ms"] <= 3_600_000 and row["up"]
        assert not is_ejected(plane, good.port)


def test_connections_that_do_not_come_up_eject() -> None:
    """While clients see nothing but good answers: their requests go on to the other endpoint."""
    with refusing() as bad, Origin() as good, DataPlane(watched(bad, good.port)) as plane:
        with client(plane.port) as wire:
            assert [wire.ask().body for _ in range(20)] == [b"ok"] * 20
        assert is_ejected(plane, bad)
        assert sum(record["attempts"] - 1 for record in plane.records(20)) == 3


@pytest.mark.parametrize("status", ["500 Internal Server Error", "501 Not Implemented", "404 Not Found", "429 Too Many Requests"])
def test_an_answer_of_the_application_never_ejects(status: str) -> None:
    with (
        Origin(says(status)) as bad,
        Origin() as good,
        DataPlane(watched(bad.port, good.port)) as plane,
        client(plane.port) as wire,
    ):
        for _ in range(20):
            wire.ask()
        assert len(bad.requests) == 10 and not is_ejected(plane, bad.port) and plane.endpoint(bad.port)["errors"] == 0


def test_only_failures_in_a_row_count() -> None:
    """Two failures and a success, over and over, are no outlier of three."""

    def script(origin: Origin, wire: Wire) -> None:
        while (request := wire.request()) is not None:
            origin.requests.append(request)
            wire.send(answer(b"") if len(origin.requests) % 3 == 0 else answer(b"", "503 Service Unavailable"))

    with Origin(script) as bad, Origin() as good, DataPlane(watched(bad.port, good.port)) as plane, client(plane.port) as wire:
        for _ in range(40):
            wire.ask()
            assert not is_ejected(plane, bad.port)
        assert len(bad.requests) == 20


def test_a_client_that_leaves_says_nothing_about_the_endpoint() -> None:
    with Origin(silent) as slow, Origin(silent) as other, DataPlane(watched(slow.port, other.port)) as plane:
        for i in range(10):
            wire = client(plane.port)
            wire.send(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
            plane.until(lambda i=i: len(slow.requests) + len(other.requests) == i + 1)  # type: ignore[misc]
            wire.reset()
        assert [record["flags"] for record in plane.records(10)] == ["DC"] * 10
        assert [(row["errors"], row["ejected"]) for row in plane.endpoints()] == [(0, False)] * 2


def test_off_is_off() -> None:
    outliers = {"consecutiveErrors": 0}
    with (
        Origin(says("503 Service Unavailable")) as bad,
        Origin() as good,
        DataPlane(watched(bad.port, good.port, outliers=outliers)) as plane,
        client(plane.port) as wire,
    ):
        assert [wire.ask().status for _ in range(20)].count(503) == 10


# how many


def test_the_last_endpoint_is_never_ejected() -> None:
    with ExitStack() as stack:
        sites = [stack.enter_context(Origin(says("503 Service Unavailable"))) for _ in range(3)]
        outliers = {**AN_HOUR, "maxEjectionPercent": 100}
        with DataPlane(watched(*(site.port for site in sites), outliers=outliers)) as plane, client(plane.port) as wire:
            assert {wire.ask().status for _ in range(40)} == {503}
            assert sorted(row["ejected"] for row in plane.endpoints()) == [False, True, True]
            # it takes what there is, and mends for everybody
            (left,) = [site for site in sites if not is_ejected(plane, site.port)]
            before = len(left.requests)
            assert {wire.ask().status for _ in range(10)} == {503}
            assert len(left.requests) == before + 10
        with DataPlane(watched(sites[0].port)) as plane, client(plane.port) as wire:
            assert {wire.ask().status for _ in range(10)} == {503}
            assert not plane.endpoints()[0]["ejected"]


def test_never_more_than_the_share_is_ejected() -> None:
    with ExitStack() as stack:
        sites = [stack.enter_context(Origin(says("503 Service Unavailable"))) for _ in range(5)]
        outliers = {**AN_HOUR, "maxEjectionPercent": 40}
        with DataPlane(watched(*(site.port for site in sites), outliers=outliers)) as plane, client(plane.port) as wire:
            for _ in range(50):
                wire.ask()
            assert sum(row["ejected"] for row in plane.endpoints()) == 2


# for how long


def failing_times(asked: list[float]) -> Script:
    def script(origin: Origin, wire: Wire) -> None:
        while wire.request() is not None:
            asked.append(time.monotonic())
            wire.send(answer(b"", "503 Service Unavailable"))

    return script


def test_it_comes_back_after_its_time_and_stays_out_longer_each_time() -> None:
    """The base time, then twice that, then four times. One failure ejects here, so that each return is one request."""
    base = 0.15
    outliers = {"consecutiveErrors": 1, "baseEjectionTime": "150ms"}
    asked: list[float] = []
    answered: list[float] = []
    with (
        Origin(failing_times(asked)) as bad,
        Origin() as good,
        DataPlane(watched(bad.port, good.port, outliers=outliers)) as plane,
        client(plane.port) as wire,
    ):

        def ask() -> bool:
            if wire.ask().status == 503:
                answered.append(time.monotonic())
            return len(answered) == 4

        plane.until(ask)
    gaps = [later - sooner for sooner, later in itertools.pairwise(asked)]
    assert gaps[0] >= base - 0.002
    # A step is forgiven for a good spell as long as the base time. Here the next failure follows at once, unless the machine was
    # away meanwhile.
    if answered[1] - asked[0] < 2 * base:
        assert gaps[1] >= 2 * base - 0.002
        if answered[2] - asked[1] < 3 * base:
            assert gaps[2] >= 4 * base - 0.002


def test_an_endpoint_that_has_mended_has_its_share_again() -> None:
    outliers = {"consecutiveErrors": 3, "baseEjectionTime": "100ms"}
    with (
        Origin(says("503 Service Unavailable")) as bad,
        Origin() as good,
        DataPlane(watched(bad.port, good.port, outliers=outliers)) as plane,
        client(plane.port) as wire,
    ):
        seen = [wire.ask().status for _ in range(6)]
        assert seen.count(503) == 3 and is_ejected(plane, bad.port)
        bad.script = polite
        # the connection that it has was made under the old script
        plane.load(watched(good.port, outliers=outliers))
        plane.until(lambda: bad.open == 0)
        plane.load(watched(bad.port, good.port, outliers=outliers))
        before = len(bad.requests)
        plane.until(lambda: wire.ask().status == 200 and len(bad.requests) > before)
        before = len(bad.requests)
        assert [wire.ask().status for _ in range(20)] == [200] * 20
        assert len(bad.requests) == before + 10
        assert plane.endpoint(bad.port)["errors"] == 0 and not is_ejected(plane, bad.port)


def test_an_ejection_outlives_a_reload() -> None:
    """A new configuration is no pardon: the endpoint is still the same."""
    with (
        Origin(says("503 Service Unavailable")) as bad,
        Origin() as good,
        Origin(name="new") as new,
        DataPlane(watched(bad.port, good.port)) as plane,
        client(plane.port) as wire,
    ):
        plane.until(lambda: wire.ask() and is_ejected(plane, bad.port))
        plane.load(watched(bad.port, good.port, new.port))
        assert is_ejected(plane, bad.port)
        before = len(bad.requests)
        assert [wire.ask().status for _ in range(20)] == [200] * 20
        assert len(bad.requests) == before and len(new.requests) >= 9


def test_when_only_an_ejected_endpoint_is_left_it_is_asked() -> None:
    """Discovery took the healthy one away after the ejection: better a doubtful endpoint than none."""
    with (
        Origin(says("503 Service Unavailable")) as bad,
        Origin() as good,
        DataPlane(watched(bad.port, good.port)) as plane,
        client(plane.port) as wire,
    ):
        plane.until(lambda: wire.ask() and is_ejected(plane, bad.port))
        plane.load(watched(bad.port))
        before = len(bad.requests)
        assert wire.ask().status == 503 and len(bad.requests) == before + 1
        assert plane.records(1)[-1]["flags"] == "-"
