"""What the script decides, on real servers: against a model of its own, and its promises one by one."""

import contextlib
import datetime
import math
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis_server import KINDS, RedisServer

from gateway.worker.limits.script import (
    CHARGE,
    CHARGE_ALL,
    FIXED,
    GCRA,
    GIVE_BACK,
    LEASE,
    SCRIPT,
    SHA,
    SLIDING,
    Answer,
    Key,
    arguments,
    name_of,
    parse_answer,
)

US = 1_000_000
MINUTE, HOUR, DAY = 60 * US, 3600 * US, 86400 * US
# The same text with a clock of the test's, and with keys that stay while that clock stands still.
CLOCK, STAYS = b"redis.call('TIME')", b"math.ceil(full / 1000)))"
TIMED = SCRIPT.replace(CLOCK, b"{ARGV[#ARGV - 1], ARGV[#ARGV]}").replace(STAYS, b"3600000 + " + STAYS)
LONGEST = 366 * DAY
NEARLY = 1 - Fraction(1, 10**5)  # of a request: what rounding may do


@pytest.fixture(scope="module", params=KINDS)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("r"), request.param) as server:
        yield server


@pytest.fixture
def client(running: RedisServer) -> Iterator[Any]:
    with contextlib.closing(running.client()) as client:
        client.flushall()
        yield client


def ask(client: Any, count: int, kind: int, *keys: Key, at: int | None = None) -> Answer:
    """One call of the script; at: microseconds since the epoch that its clock shall say."""
    words = arguments(count, kind, keys)
    if at is not None:
        words += [b"%d" % (at // US), b"%d" % (at % US)]
    answer = parse_answer(client.eval(SCRIPT if at is None else TIMED, *words), len(keys))
    assert answer is not None
    return answer


def gcra(requests: int, period: int, most: int, *, cost: int = 1, tag: bytes = b"", number: int = 0) -> Key:
    return Key(tag, number.to_bytes(16, "big"), GCRA, requests, period, most, cost)


def counted(algorithm: int, requests: int, period: int, *, cost: int = 1, tag: bytes = b"", number: int = 0) -> Key:
    return Key(tag, number.to_bytes(16, "big"), algorithm, requests, period, 0, cost)


# the model: the same rules in fractions, with nothing of the script's arithmetic


def calendar(at: int, period: int) -> tuple[int, int, int]:
    """Start and end of the window and the start of the one before."""
    if period:
        start = at // period * period
        return start, start + period, start - period
    moment = datetime.datetime.fromtimestamp(at // US, datetime.UTC).date()
    first = moment.replace(day=1)
    after = (first + datetime.timedelta(days=32)).replace(day=1)
    before = (first - datetime.timedelta(days=1)).replace(day=1)
    return tuple((day - datetime.date(1970, 1, 1)).days * DAY for day in (first, after, before))  # type: ignore[return-value]


class Model:
    """What one key says."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self.empty_at = Fraction(0)          # gcra
        self.counts: dict[int, int] = {}     # by start of window

    @property
    def most(self) -> int:
        return self.key.c if self.key.algorithm == GCRA else self.key.a

    def used(self, at: int) -> Fraction:
        if self.key.algorithm == GCRA:
            return max(Fraction(0), self.empty_at - at) * self.key.a / self.key.b
        start, stop, before = calendar(at, self.key.b)
        used = Fraction(self.counts.get(start, 0))
        if self.key.algorithm == SLIDING:
            used += self.counts.get(before, 0) * (1 - Fraction(at - start, stop - start))
        return used

    def room(self, at: int) -> Fraction:
        return (self.most - self.used(at)) / self.key.cost

    def charge(self, at: int, requests: int) -> None:
        change = requests * self.key.cost
        if self.key.algorithm == GCRA:
            self.empty_at = at + min(LONGEST, max(Fraction(0), (self.used(at) + change) * self.key.b / self.key.a))
        else:
            start = calendar(at, self.key.b)[0]
            self.counts[start] = max(0, self.counts.get(start, 0) + change)


keys = st.builds(
    lambda algorithm, requests, period, most, cost, number: (
        gcra(requests, period or 30 * DAY, most, cost=cost, tag=b"t", number=number)
        if algorithm == GCRA
        else counted(algorithm, requests, period, cost=cost, tag=b"t", number=number)
    ),
    st.sampled_from((GCRA, FIXED, SLIDING)),
    st.sampled_from((1, 2, 3, 7, 100, 12345)),
    st.sampled_from((MINUTE, HOUR, DAY, 0)),
    st.sampled_from((1, 2, 10, 150)),
    st.sampled_from((1, 1, 1, 2, 5)),
    st.integers(0, 2**128 - 1),
)
steps = st.tuples(
    st.integers(0, 40 * DAY) | st.integers(0, 5 * US),
    st.sampled_from((CHARGE, CHARGE, CHARGE, LEASE, GIVE_BACK, CHARGE_ALL)),
    st.integers(1, 12),
    st.sets(st.integers(0, 2), min_size=1),
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(keys, min_size=3, max_size=3, unique_by=lambda key: key.hash), st.lists(steps, max_size=25), st.data())
def test_the_script_agrees_with_the_model(client: Any, limits: list[Key], moves: list[Any], data: st.DataObject) -> None:
    """Any charges, leases and returns at any times over up to three limits. Windows are long: no key expires for real meanwhile."""
    client.flushall()
    models = [Model(key) for key in limits]
    at = 1_764_000_000 * US + data.draw(st.integers(0, 400 * DAY))
    for wait, kind, count, which in moves:
        at += wait
        chosen = [models[i] for i in sorted(which)]
        rooms = [model.room(at) for model in chosen]
        granted, facts = ask(client, count, kind, *(model.key for model in chosen), at=at)
        if kind in (CHARGE, LEASE):
            low, high = (
                max(0, min(count, *(math.floor(room + shift) for room in rooms))) for shift in (NEARLY - 1, 1 - NEARLY)
            )
            assert low <= granted <= high
        else:
            assert granted == count
        for model, (remains, retry_ms, reset_ms) in zip(chosen, facts, strict=True):
            model.charge(at, -granted if kind == GIVE_BACK else granted)
            assert abs(remains - max(0, model.most - model.used(at))) < 1.01
            fits = model.room(at)
            assert retry_ms == 0 if fits > 1 + 1 - NEARLY else retry_ms > 0 or fits > NEARLY
            if retry_ms and model.key.cost <= model.most:
                # The time that is told is the first at which one more fits: not two milliseconds before, and then for sure.
                assert model.room(at + retry_ms * 1000) >= NEARLY
                assert model.room(at + (retry_ms - 2) * 1000) < 1
            assert model.used(at + reset_ms * 1000) == 0
            assert 0 <= reset_ms <= 400 * 86400 * 1000
    for name in client.scan_iter():
        assert client.pttl(name) > 0


def test_the_script_with_the_clock_of_the_test_is_the_same_but_for_that() -> None:
    assert SCRIPT.count(CLOCK) == 1 and SCRIPT.count(STAYS) == 1


@pytest.mark.parametrize("year", [1970, 1972, 2000, 2026, 2027, 2028, 2099, 2100])
def test_months_are_those_of_the_calendar(client: Any, year: int) -> None:
    """First and last microsecond of each month: its end is what the script says, and nothing is left of the month before."""
    for month in range(1, 13):
        first = (datetime.date(year, month, 1) - datetime.date(1970, 1, 1)).days * DAY
        end = calendar(first, 0)[1]
        key = counted(FIXED, 10, 0, number=year * 12 + month)
        assert ask(client, 10, CHARGE, key, at=first)[1] == ((0, (end - first) // 1000, (end - first) // 1000),)
        assert ask(client, 1, CHARGE, key, at=end - 1) == (0, ((0, 1, 1),))
        assert ask(client, 3, CHARGE, key, at=end)[0] == 3


@pytest.mark.parametrize("kind", [CHARGE, LEASE, CHARGE_ALL])
@pytest.mark.parametrize("algorithm", [GCRA, FIXED, SLIDING])
def test_every_key_expires(client: Any, algorithm: int, kind: int) -> None:
    key = Key(b"", bytes(16), algorithm, 10, 2 * US, 10 if algorithm == GCRA else 0, 1)
    ask(client, 3, kind, key)
    assert 0 < client.pttl(name_of(key)) <= {GCRA: 600, FIXED: 2000, SLIDING: 4000}[algorithm]


def test_a_key_is_gone_when_it_says_what_no_key_says(client: Any) -> None:
    key = gcra(1000, US, 100)
    assert ask(client, 20, CHARGE, key)[1][0][2] == 20
    deadline = time.monotonic() + 10
    while client.exists(name_of(key)):
        assert time.monotonic() < deadline


def test_a_denial_writes_nothing(client: Any) -> None:
    key = gcra(1, MINUTE, 5)
    ask(client, 5, CHARGE, key)
    before = client.get(name_of(key)), client.info("commandstats")["cmdstat_set"]["calls"]
    assert ask(client, 4, CHARGE, key)[0] == 0
    assert (client.get(name_of(key)), client.info("commandstats")["cmdstat_set"]["calls"]) == before


def test_all_keys_are_charged_or_none(client: Any) -> None:
    wide, narrow = gcra(100, MINUTE, 100, tag=b"t", number=1), counted(FIXED, 3, DAY, tag=b"t", number=2)
    assert ask(client, 10, CHARGE, wide, narrow)[0] == 3
    granted, ((left, *_), (none, retry_ms, _)) = ask(client, 2, CHARGE, wide, narrow)
    assert (granted, left, none) == (0, 97, 0) and retry_ms > 0
    assert ask(client, 97, CHARGE, wide)[0] == 97


def test_what_was_leased_comes_back(client: Any) -> None:
    for key in gcra(1, HOUR, 10, number=1), counted(FIXED, 10, HOUR, number=2), counted(SLIDING, 10, HOUR, number=3):
        assert ask(client, 20, LEASE, key, at=HOUR * 1000)[0] == 10
        assert ask(client, 4, GIVE_BACK, key, at=HOUR * 1000 + US)[1][0][0] == 4
        assert ask(client, 20, LEASE, key, at=HOUR * 1000 + US)[0] == 4
        # More than was ever taken is no credit.
        assert ask(client, 50, GIVE_BACK, key, at=HOUR * 1000 + US)[1][0][0] == 10
        assert ask(client, 20, LEASE, key, at=HOUR * 1000 + US)[0] == 10
        ask(client, 10, GIVE_BACK, key, at=HOUR * 1000 + US)
    assert not client.keys()


def test_a_debt_is_paid_before_anything_fits(client: Any) -> None:
    key = gcra(10, US, 5)
    assert ask(client, 25, CHARGE_ALL, key, at=US * 1000)[1] == ((0, 2100, 2500),)
    assert ask(client, 1, CHARGE, key, at=US * 1000 + 2_090_000)[0] == 0
    assert ask(client, 1, CHARGE, key, at=US * 1000 + 2_100_000)[0] == 1
    ask(client, 2**31, CHARGE_ALL, gcra(1, DAY, 1, number=2, cost=2**31))
    assert 0 < client.pttl(name_of(gcra(1, DAY, 1, number=2))) <= 366 * 86400 * 1000


def test_a_billion_a_second_and_one_a_month_are_exact(client: Any) -> None:
    fast = gcra(10**9, US, 10**9)
    assert ask(client, 10**9, CHARGE, fast, at=US * 1000)[0] == 10**9
    assert ask(client, 10**9, CHARGE, fast, at=US * 1000 + 7)[0] == 7000
    slow = gcra(1, 30 * DAY, 1, number=1)
    assert ask(client, 1, CHARGE, slow, at=DAY)[1][0][1] == 30 * 86400 * 1000
    assert ask(client, 1, CHARGE, slow, at=31 * DAY - 10 * US)[0] == 0
    assert ask(client, 1, CHARGE, slow, at=31 * DAY)[0] == 1


def test_the_rate_over_a_while_is_the_limit(client: Any) -> None:
    """An interval that is no whole number of anything: 3 in 7 seconds, asked every 100 ms for ten minutes."""
    key = gcra(3, 7 * US, 1)
    start = 1_764_000_000 * US
    with client.pipeline(transaction=False) as pipeline:
        for step in range(6000):
            at = start + step * US // 10
            pipeline.eval(TIMED, *arguments(1, CHARGE, (key,)), b"%d" % (at // US), b"%d" % (at % US))
        granted = sum(reply[0] for reply in pipeline.execute())
    # One more for the first, and what waiting for the next full 100 ms loses.
    assert 3 * 600 / 7 * 0.95 < granted <= 3 * 600 / 7 + 1


@pytest.mark.parametrize("algorithm", [GCRA, FIXED, SLIDING])
def test_a_clock_that_goes_back_makes_nobody_wait_longer(client: Any, algorithm: int) -> None:
    """Another primary with another clock: what was used stays used, and the wait is not longer than the level says."""
    key = Key(b"", bytes(16), algorithm, 10, MINUTE, 10 if algorithm == GCRA else 0, 1)
    at = 30_000_000 * MINUTE + 100
    ask(client, 10, CHARGE, key, at=at)
    granted, ((left, retry_ms, reset_ms),) = ask(client, 1, CHARGE, key, at=at - 5 * US)
    assert (granted, left) == (0, 0)
    assert retry_ms <= {GCRA: 7_000, FIXED: 66_000, SLIDING: 72_000}[algorithm] and reset_ms <= 126_000


def test_a_limit_may_change_its_kind(client: Any) -> None:
    for first in GCRA, FIXED, SLIDING:
        for second in GCRA, FIXED, SLIDING:
            ask(client, 10, CHARGE, Key(b"", bytes(16), first, 10, HOUR, 10, 1))
            if first != second:
                assert ask(client, 10, CHARGE, Key(b"", bytes(16), second, 10, HOUR, 10, 1))[0] == 10
            client.flushall()


def test_a_limit_that_is_changed_holds_as_many_requests_as_before(client: Any) -> None:
    """Whoever was refused by ten a day is not kept waiting for a day by a thousand."""
    at = 1_700_000_000 * US
    assert ask(client, 11, CHARGE, gcra(10, DAY, 10), at=at)[0] == 10
    assert ask(client, 2000, CHARGE, gcra(1000, DAY, 1000), at=at)[0] == 990
    granted, ((left, retry_ms, _),) = ask(client, 1, CHARGE, gcra(5, HOUR, 5), at=at)
    assert (granted, left, retry_ms) == (0, 0, 720_000), "nobody owes more than fits"
    client.flushall()
    assert ask(client, 1, CHARGE, gcra(1, DAY, 1), at=at)[0] == 1
    assert ask(client, 2000, CHARGE, gcra(1000, US, 1000), at=at)[0] == 999
    # Another burst alone changes nothing about what has been used.
    assert ask(client, 1, CHARGE, gcra(1000, US, 1010), at=at) == (1, ((9, 0, 1001),))


@pytest.mark.parametrize(
    "value",
    [
        b"", b"g", b"g x y", b"g 1 2", b"g 1 . .", b"g 1 5 0", b"f 1", b"s 1 2", b"g 99999999999999999999 1e400", b"\xff" * 50,
    ],
)  # fmt: skip
@pytest.mark.parametrize("algorithm", [GCRA, FIXED, SLIDING])
def test_a_value_of_somebody_else_is_read_as_none(client: Any, algorithm: int, value: bytes) -> None:
    key = Key(b"", bytes(16), algorithm, 10, HOUR, 10, 1)
    client.set(name_of(key), value)
    assert ask(client, 4, CHARGE, key)[0] == 4
    assert client.pttl(name_of(key)) > 0


def test_many_clients_get_the_limit_and_no_more(running: RedisServer, client: Any) -> None:
    """Eight at once, each with a connection of its own."""
    key = counted(FIXED, 1000, 0)
    granted: list[int] = []

    def run() -> None:
        with contextlib.closing(running.client()) as own:
            granted.append(sum(ask(own, 3, CHARGE, key)[0] for _ in range(150)))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(granted) == 1000


def test_the_digest_is_that_of_the_text(client: Any) -> None:
    assert client.script_load(SCRIPT).encode() == SHA


def test_names_of_one_tag_share_a_slot_and_those_without_spread() -> None:
    from redis.crc import key_slot

    together = {key_slot(name_of(gcra(1, US, 1, tag=b"web", number=number))) for number in range(50)}
    alone = {key_slot(name_of(gcra(1, US, 1, number=number))) for number in range(50)}
    assert len(together) == 1 and len(alone) > 40
    # A brace inside of a tag changes where it ends, for all alike.
    assert len({key_slot(name_of(gcra(1, US, 1, tag=b"a}b{c", number=number))) for number in range(9)}) == 1


@pytest.mark.parametrize("reply", [None, b"OK", [], [1, 2], [1, 2, 3, b"4"], [1, 2, 3, 4, 5, 6, 7], redis.ResponseError("x")])
def test_what_the_script_cannot_have_said_is_no_answer(reply: object) -> None:
    assert parse_answer(reply, 1) is None
    assert parse_answer([5, 1, 2, 3], 1) == (5, ((1, 2, 3),))
