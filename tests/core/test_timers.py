"""Deadlines at a virtual time: never early, at most two ticks late, wherever they lie and however far the clock jumps."""

import random
from itertools import pairwise
from typing import Any

import pytest

from gateway._core.pathtest import WheelProbe

TICK = 20  # ms between two looks of the engine
SLOT = 16  # ms of a slot
TURN = 1024 * SLOT  # ms of the whole wheel


class Clock:
    """A wheel that is looked at every `tick` ms and notes what fires when."""

    def __init__(self, now: int = 1_000_000, tick: int = TICK) -> None:
        self.now = now
        self.tick = tick
        self.fired: list[tuple[Any, int]] = []
        self.then: dict[Any, Any] = {}
        self.wheel = WheelProbe(now, self._fire)

    def _fire(self, key: Any) -> None:
        self.fired.append((key, self.now))
        if key in self.then:
            self.then[key]()

    def jump(self, to: int) -> list[tuple[Any, int]]:
        self.now = to
        self.wheel.advance(to)
        fired, self.fired = self.fired, []
        return fired

    def run(self, until: int) -> list[tuple[Any, int]]:
        fired = []
        while self.now < until:
            fired += self.jump(self.now + self.tick)
        return fired


@pytest.mark.parametrize("start", [0, 1, 15, 16, 1_000_003, 2**40 + 5])
def test_never_early_and_at_most_two_ticks_late(start: int) -> None:
    clock = Clock(start)
    deadlines = {key: start + key for key in [*range(0, 200), *range(200, 3 * TURN, 977)]}
    for key, deadline in deadlines.items():
        clock.wheel.arm(key, deadline)
    fired = dict(clock.run(start + 3 * TURN + 100))
    assert fired.keys() == deadlines.keys()
    for key, when in fired.items():
        assert deadlines[key] <= when <= deadlines[key] + 2 * TICK


def test_a_look_at_every_millisecond_is_one_slot_late_at_most() -> None:
    clock = Clock(tick=1)
    for key in range(100):
        clock.wheel.arm(key, clock.now + key)
    start = clock.now
    for key, when in clock.run(clock.now + 200):
        assert start + key <= when <= start + key + SLOT


def test_each_fires_once() -> None:
    clock = Clock()
    clock.wheel.arm("a", clock.now + 50)
    assert [key for key, _ in clock.run(clock.now + 10 * TURN)] == ["a"]
    assert clock.wheel.place("a") is None


def test_moving_a_deadline_later_leaves_the_node_where_it_is() -> None:
    """What happens on every request is one store."""
    clock = Clock()
    clock.wheel.arm("idle", clock.now + 1000)
    place = clock.wheel.place("idle")
    start = clock.now
    for _ in range(100):
        clock.run(clock.now + 40)
        clock.wheel.arm("idle", clock.now + 1000)
        if clock.now < start + 900:
            assert clock.wheel.place("idle") == place
    last = clock.now
    ((_, when),) = clock.run(clock.now + 2000)
    assert last + 1000 <= when <= last + 1000 + 2 * TICK


def test_moving_a_deadline_earlier_moves_the_node() -> None:
    clock = Clock()
    clock.wheel.arm("a", clock.now + 10_000)
    clock.wheel.arm("a", clock.now + 100)
    start = clock.now
    ((_, when),) = clock.run(clock.now + 20_000)
    assert start + 100 <= when <= start + 100 + 2 * TICK


def test_later_and_then_earlier_again() -> None:
    clock = Clock()
    start = clock.now
    for deadline in (500, 5000, 300, 4000, 700):
        clock.wheel.arm("a", start + deadline)
    ((_, when),) = clock.run(start + 10_000)
    assert start + 700 <= when <= start + 700 + 2 * TICK


@pytest.mark.parametrize("turns", [0.999, 1, 1.001, 2, 50])
def test_deadlines_beyond_the_wheel(turns: float) -> None:
    clock = Clock()
    start, deadline = clock.now, clock.now + int(turns * TURN)
    clock.wheel.arm("far", deadline)
    ((_, when),) = clock.run(deadline + 100)
    assert deadline <= when <= deadline + 2 * TICK
    assert clock.now > start


def test_a_deadline_that_has_passed_fires_at_the_next_tick() -> None:
    clock = Clock()
    clock.wheel.arm("past", clock.now - 5000)
    clock.wheel.arm("zero", 0)
    assert {key for key, _ in clock.run(clock.now + TICK)} == {"past", "zero"}


def test_disarmed_timers_stay_silent() -> None:
    clock = Clock()
    for key in "abc":
        clock.wheel.arm(key, clock.now + 100)
    clock.wheel.disarm("b")
    clock.wheel.disarm("b")
    assert [key for key, _ in clock.run(clock.now + 500)] == ["a", "c"]
    clock.wheel.disarm("a")
    clock.wheel.arm("b", clock.now + 100)
    assert [key for key, _ in clock.run(clock.now + 500)] == ["b"]


def test_a_timer_may_arm_itself_again() -> None:
    clock = Clock()
    clock.then["a"] = lambda: clock.wheel.arm("a", clock.now + 200)
    clock.wheel.arm("a", clock.now + 200)
    times = [when for _, when in clock.run(clock.now + 2000)]
    assert len(times) in (8, 9, 10)
    assert all(200 <= later - earlier <= 200 + 2 * TICK for earlier, later in pairwise(times))


def test_a_timer_may_disarm_its_neighbour_in_the_same_slot() -> None:
    for victim, silent in (("b", "b"), ("a", "a")):
        clock = Clock()
        for key in ("a", "b", "c"):
            clock.wheel.arm(key, clock.now + 100)
        other = "a" if victim == "b" else "b"
        clock.then[other] = lambda clock=clock, victim=victim: clock.wheel.disarm(victim)
        fired = [key for key, _ in clock.run(clock.now + 500)]
        # `a` is first: its own disarming by `b` comes too late.
        assert fired == [key for key in ("a", "b", "c") if key != silent or victim == "a"]


def test_a_timer_may_arm_others_for_now_and_earlier() -> None:
    clock = Clock()

    def arm() -> None:
        clock.wheel.arm("now", clock.now)
        clock.wheel.arm("past", 0)
        clock.wheel.arm("b", clock.now + 30)

    clock.then["a"] = arm
    clock.wheel.arm("a", clock.now + 100)
    clock.wheel.arm("b", clock.now + 5000)
    start = clock.now
    fired = dict(clock.run(clock.now + 1000))
    assert fired.keys() == {"a", "now", "past", "b"}
    assert fired["now"] <= fired["a"] + TICK and fired["past"] <= fired["a"] + TICK
    assert start + 130 <= fired["b"] <= start + 130 + 3 * TICK


@pytest.mark.parametrize("jump", [TURN - 1, TURN, TURN + SLOT, 10 * TURN, 10**9])
def test_after_a_long_stop_everything_that_is_due_fires_at_once(jump: int) -> None:
    """A suspended machine: nothing that is due waits for another turn of the wheel, and nothing that is not due fires."""
    clock = Clock()
    start = clock.now
    deadlines = {key: start + key * 800 for key in range(1, 40)} | {"later": start + jump + 3000}
    for key, deadline in deadlines.items():
        clock.wheel.arm(key, deadline)
    fired = {key for key, _ in clock.jump(start + jump)}
    assert {key for key, deadline in deadlines.items() if deadline <= start + jump - 2 * SLOT} <= fired
    assert all(deadlines[key] <= start + jump for key in fired)
    ((_, when),) = [row for row in clock.run(start + jump + 5000) if row[0] == "later"]
    assert deadlines["later"] <= when <= deadlines["later"] + 2 * TICK


def test_a_clock_that_stands_still_fires_nothing_twice() -> None:
    clock = Clock()
    clock.wheel.arm("a", clock.now + 100)
    clock.run(clock.now + 200)
    for _ in range(5):
        assert clock.jump(clock.now) == []


def test_a_random_life_keeps_the_promise() -> None:
    """Thousands of arms, moves and disarms against a dict of deadlines."""
    chance = random.Random(7)
    clock = Clock(chance.randrange(10**9))
    armed: dict[int, int] = {}
    clock.then = {}
    for _ in range(6000):
        for _ in range(chance.randrange(4)):
            key = chance.randrange(60)
            if chance.random() < 0.2 and key in armed:
                clock.wheel.disarm(key)
                del armed[key]
            else:
                armed[key] = clock.now + chance.choice((0, 10, 100, 3000, 20_000, 40_000)) + chance.randrange(50)
                clock.wheel.arm(key, armed[key])
        step = TICK if chance.random() < 0.99 else chance.randrange(2 * TURN)
        for key, when in clock.jump(clock.now + step):
            assert armed.pop(key) <= when
        assert all(deadline > clock.now - 2 * TICK for deadline in armed.values())


def test_the_rest_until_anything_can_fire() -> None:
    clock = Clock()
    assert clock.wheel.rest(clock.now) == 1000 and clock.wheel.rest(clock.now, 20) == 20
    clock.wheel.arm("far", clock.now + 60_000)
    assert clock.wheel.rest(clock.now) == 1000
    clock.wheel.arm("near", clock.now + 500)
    rest = clock.wheel.rest(clock.now)
    assert 500 <= rest <= 500 + SLOT
    assert clock.jump(clock.now + rest - 1) == []
    assert clock.wheel.rest(clock.now) == 1
    assert clock.jump(clock.now + 1) == [("near", clock.now)]
    assert clock.wheel.rest(clock.now) == 1000
    clock.wheel.arm("now", clock.now)
    assert clock.wheel.rest(clock.now) <= SLOT
    assert clock.wheel.rest(clock.now + 500) == 0, "overdue"


def test_a_rest_never_sleeps_through_a_deadline() -> None:
    seeds = random.Random(5)
    clock = Clock()
    deadlines: dict[int, int] = {}
    for key in range(300):
        deadlines[key] = clock.now + seeds.randrange(1, 3 * TURN)
        clock.wheel.arm(key, deadlines[key])
    while deadlines:
        rest = clock.wheel.rest(clock.now)
        for key, when in clock.jump(clock.now + max(rest, TICK)):
            assert deadlines[key] <= when <= deadlines.pop(key) + 2 * TICK
