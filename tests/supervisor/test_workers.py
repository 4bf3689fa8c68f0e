"""The fleet: workers are fed, watched, replaced with back-off, and drained. The workers here are doubles without an engine."""

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from until import until

from gateway.supervisor import ipc, workers
from gateway.supervisor.sockets import Listeners
from gateway.supervisor.workers import Fleet, Publication, Slot, State

DOUBLE = Path(__file__).with_name("double_worker.py")


def run(work: Any) -> Any:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(asyncio.wait_for(work, 60))


def is_alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


@contextlib.asynccontextmanager
async def fleet_of(slots: int, behaviour: str = "", **options: Any) -> AsyncIterator[Fleet]:
    listeners = Listeners(slots)
    listeners.apply({1: "127.0.0.1:0"})
    fleet = Fleet(slots, 4096, listeners, ipc.Settings(), entry=DOUBLE, extra_args=[f"--behaviour={behaviour}"], **options)
    fleet.publish(Publication.of(1, b"blob", {}))
    fleet.start()
    try:
        yield fleet
    finally:
        pids = [slot.pid for slot in fleet.slots]
        if fleet.publication is not None:
            await fleet.kill()
        listeners.close()
        assert not any(is_alive(pid) for pid in pids if pid)


def test_every_worker_acknowledges_and_only_then_the_fleet_is_settled() -> None:
    async def story() -> None:
        async with fleet_of(2) as fleet:
            assert not fleet.is_settled
            await until(lambda: len(fleet.serving) == 2)
            assert fleet.is_settled
            fleet.publish(Publication.of(2, b"blob", {}))
            assert not fleet.is_settled
            await until(lambda: fleet.is_settled)
            assert {slot.revision for slot in fleet.slots} == {2} and fleet.slots[0].swap_us == 12

    run(story())


def test_a_killed_worker_is_replaced_within_a_second_with_the_same_socket_and_counters() -> None:
    async def story() -> None:
        async with fleet_of(2) as fleet:
            await until(lambda: len(fleet.serving) == 2)
            slot, other = fleet.slots
            slot.block.map[:4] = b"kept"
            first, start = slot.pid, time.monotonic()
            os.kill(first, 9)
            await until(lambda: slot.pid != first)
            assert time.monotonic() - start < 1
            assert fleet.serving == [other] and fleet.is_settled
            await until(lambda: slot.state is State.SERVING)
            assert slot.restarts == 1 and slot.revision == 1 and slot.block.map[:4] == b"kept"
            rows = await fleet.describe("clusters")
            assert rows == [(0, [{"what": "clusters", "ports": 1}]), (1, [{"what": "clusters", "ports": 1}])]

    run(story())


def test_a_worker_that_keeps_dying_is_started_ever_more_slowly() -> None:
    async def story() -> None:
        starts: list[float] = []
        async with fleet_of(1, "die", on_respawn=lambda slot: starts.append(time.monotonic())) as fleet:
            await until(lambda: len(starts) >= 4)
            gaps = [after - before for before, after in itertools.pairwise(starts)]
            assert gaps[0] >= 0.1 and gaps[1] >= 0.2 and gaps[2] >= 0.4
            assert fleet.slots[0].delay >= 0.4 and not fleet.is_settled

    run(story())


def test_the_back_off_starts_afresh_after_a_good_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "STABLE_AFTER_S", 0.0)

    async def story() -> None:
        starts: list[float] = []
        async with fleet_of(1, "die", on_respawn=lambda slot: starts.append(time.monotonic())) as fleet:
            await until(lambda: len(starts) >= 4)
            assert fleet.slots[0].delay <= 0.2

    run(story())


def test_a_silent_worker_is_killed_and_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "SILENT_AFTER_S", 0.3)
    monkeypatch.setattr(workers, "WATCH_EVERY_S", 0.05)

    async def story() -> None:
        # The double sends no heartbeat at all.
        async with fleet_of(1) as fleet:
            await until(lambda: fleet.serving)
            first = fleet.slots[0].pid
            await until(lambda: fleet.slots[0].pid != first)
            assert not is_alive(first)

    run(story())


def test_a_worker_that_hangs_up_is_replaced() -> None:
    async def story() -> None:
        async with fleet_of(1, "hang up") as fleet:
            await until(lambda: fleet.slots[0].restarts >= 1)

    run(story())


def test_a_refused_revision_is_noted_and_the_worker_lives() -> None:
    async def story() -> None:
        async with fleet_of(1, "refuse") as fleet:
            slot = fleet.slots[0]
            await until(lambda: slot.refused == 1)
            assert slot.error == "bad magic" and is_alive(slot.pid)
            # Nothing serves yet: it has no snapshot at all.
            assert not fleet.is_settled

    run(story())


def tls(revision: int, *, listeners: dict[int, str], clusters: dict[int, str]) -> ipc.TLS:
    """listeners: id -> kind of the key; clusters: id -> name to verify."""
    return ipc.TLS(
        revision,
        {"ours": b"authorities", "theirs": b"others"},
        {id_: ipc.ServerSide((ipc.Pair((), kind, b"chain", b"key"),)) for id_, kind in listeners.items()},
        {id_: ipc.ClientSide("ours" if name < "m" else "theirs", name) for id_, name in clusters.items()},
    )


async def told(fleet: Fleet) -> list[Any]:
    return [[rows[0]["orders"], rows[0]["shown"]] for _, rows in await fleet.describe("orders")]


def test_tls_comes_before_the_snapshot_and_only_what_is_different_travels() -> None:
    async def story() -> None:
        async with fleet_of(1) as fleet:
            await until(lambda: fleet.serving)
            assert fleet.secure(tls(1, listeners={7: "EC", 8: "EC"}, clusters={9: "a"})) == [7, 8, 9]
            fleet.publish(Publication.of(1, b"blob", {}, [7, 8, 9]))
            await until(lambda: fleet.is_settled)
            assert fleet.secure(tls(2, listeners={7: "EC", 8: "RSA"}, clusters={9: "a", 10: "z"})) == [8, 10]
            fleet.publish(Publication.of(2, b"blob", {}, [7, 8, 9, 10]))
            await until(lambda: fleet.is_settled)
            # Other certificates alone make no snapshot, and the same ones make nothing.
            assert fleet.secure(tls(2, listeners={7: "RSA", 8: "RSA"}, clusters={9: "a"})) == [7]
            assert fleet.secure(tls(2, listeners={7: "RSA", 8: "RSA"}, clusters={9: "a"})) == []
            ((orders, _),) = await told(fleet)
            assert [each for each in orders if len(each) == 4 or each[1]] == [
                [1, ["ours"], [7, 8], [9]], [1, [7, 8, 9]],
                [2, ["theirs"], [8], [10]], [2, [7, 8, 9, 10]],
                [2, [], [7], []],
            ]  # fmt: skip

    run(story())


def test_a_new_worker_gets_everything_before_its_first_snapshot() -> None:
    async def story() -> None:
        async with fleet_of(1) as fleet:
            fleet.secure(tls(1, listeners={7: "EC"}, clusters={9: "a"}))
            fleet.publish(Publication.of(1, b"blob", {}, [7, 9]))
            fleet.secure(tls(1, listeners={7: "RSA"}, clusters={9: "a"}))
            await until(lambda: fleet.is_settled)
            first = fleet.slots[0].pid
            os.kill(first, 9)
            await until(lambda: fleet.slots[0].pid != first and fleet.serving)
            assert await told(fleet) == [[[[1, ["ours", "theirs"], [7], [9]], [1, [7, 9]]], [[7, "RSA"], [9, "a"]]]]

    run(story())


def test_endpoints_travel_once_and_a_new_worker_hears_all_of_them() -> None:
    one, two = [(b"10.0.0.1", 80, 1, b"")], [(b"10.0.0.2", 80, 1, b"")]

    async def heard(fleet: Fleet) -> Any:
        return (await fleet.describe("endpoints"))[0][1][0]["endpoints"]

    def row(endpoint: list[ipc.Endpoint]) -> list[list[object]]:
        return [list(each) for each in endpoint]

    async def story() -> None:
        async with fleet_of(1) as fleet:
            fleet.publish(Publication.of(2, b"blob", {1: one, 2: one}))
            await until(lambda: fleet.serving and fleet.is_settled)
            begun = await heard(fleet)
            assert begun[-1] == [[[1, row(one)], [2, row(one)]], [], begun == begun[-1:]]
            fleet.retarget({1: one, 2: two})
            fleet.publish(Publication.of(3, b"blob", {2: list(two), 3: one}))
            fleet.publish(Publication.of(4, b"blob", {2: two, 3: one}))
            await until(lambda: fleet.is_settled)
            since = (await heard(fleet))[len(begun) :]
            assert since == [[[2, row(two)]], [[[3, row(one)]], [1], False], [[], [], False]]
            os.kill(fleet.slots[0].pid, 9)
            await until(lambda: fleet.slots[0].restarts == 1 and fleet.serving)
            assert await heard(fleet) == [[[[2, row(two)], [3, row(one)]], [], True]]

    run(story())


def test_keys_of_session_tickets_are_renewed_with_the_same_certificates() -> None:
    async def story() -> None:
        async with fleet_of(1) as fleet:
            fleet.renew_tickets()
            fleet.secure(tls(1, listeners={7: "EC"}, clusters={9: "a"}))
            await until(lambda: fleet.serving)
            fleet.renew_tickets()
            ((orders, _),) = await told(fleet)
            assert [order for order in orders if len(order) == 4][-1] == [1, [], [7], []]

    run(story())


def test_a_worker_that_could_not_use_a_certificate_says_so(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with fleet_of(1, "unsecured", name_of=lambda id_: ("listener", f"web{id_}")) as fleet:
            fleet.secure(tls(1, listeners={7: "EC"}, clusters={}))
            await until(lambda: fleet.slots[0].tls_error and fleet.serving)
            assert fleet.slots[0].row()["error"] == "TLS of listener 'web7': key values mismatch"
            fleet.secure(tls(1, listeners={}, clusters={9: "a"}))
            assert fleet.slots[0].row()["error"] == ""

    run(story())
    assert "keeps the old TLS of listener 'web7': key values mismatch" in caplog.text


def test_a_worker_that_does_not_answer_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "DESCRIBE_WITHIN_S", 0.05)

    async def story() -> None:
        async with fleet_of(1, "mute") as fleet:
            await until(lambda: fleet.serving)
            assert await fleet.describe("connections") == []
            assert fleet.slots[0].answers == {}

    run(story())


def test_a_drain_ends_every_process_and_none_comes_back() -> None:
    async def story() -> None:
        async with fleet_of(2) as fleet:
            await until(lambda: len(fleet.serving) == 2)
            pids = [slot.pid for slot in fleet.slots]
            await fleet.drain(10)
            assert not any(is_alive(pid) for pid in pids)
            assert [slot.state for slot in fleet.slots] == [State.DOWN, State.DOWN]
            assert sum(slot.restarts for slot in fleet.slots) == 0

    run(story())


def test_the_second_signal_hastens_a_drain() -> None:
    async def story() -> None:
        async with fleet_of(1, "linger") as fleet:
            await until(lambda: fleet.serving)
            start = time.monotonic()
            draining = asyncio.ensure_future(fleet.drain(60))
            await until(lambda: fleet.slots[0].state is State.DRAINING)
            assert not draining.done()
            fleet.hurry()
            await draining
            assert time.monotonic() - start < 10

    run(story())


def test_a_worker_that_does_not_leave_is_killed_at_the_deadline() -> None:
    async def story() -> None:
        async with fleet_of(1, "stay") as fleet:
            await until(lambda: fleet.serving)
            await fleet.drain(0)
            assert fleet.slots[0].process is None

    run(story())


def test_an_end_during_the_start_leaves_no_process() -> None:
    async def story() -> None:
        async with fleet_of(3) as fleet:
            await until(lambda: any(slot.process for slot in fleet.slots))
            await fleet.kill()
            assert all(slot.process is None for slot in fleet.slots)

    run(story())


def test_rows_are_plain_values() -> None:
    async def story() -> None:
        async with fleet_of(1) as fleet:
            await until(lambda: fleet.serving)
            slot: Slot = fleet.slots[0]
            row = slot.row()
            assert row["state"] == "serving" and row["pid"] == slot.pid and type(row["state"]) is str

    run(story())
