"""The shared table: each algorithm against a model in plain Python, leases, denials, and what other processes may leave there."""

import calendar
import datetime
import mmap
import os
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway._core.limit_table import TableProbe, table_size

GCRA, FIXED, SLIDING = range(3)
SECOND = 10**6
NOW = 10**12
WALL = int(datetime.datetime(2026, 11, 29, 12, tzinfo=datetime.UTC).timestamp()) * SECOND


def table(buckets: int = 16, **how: int) -> TableProbe:
    return TableProbe(bytearray(table_size(buckets)), **how)


# ---- the algorithms

Steps = st.lists(st.tuples(st.integers(0, 3 * SECOND), st.integers(1, 4)), max_size=40)


@given(st.integers(1, 50), st.integers(0, 20), st.sampled_from([SECOND, 60 * SECOND, 7 * SECOND]), Steps)
def test_gcra_is_what_it_says(requests: int, burst: int, period: int, steps: list[tuple[int, int]]) -> None:
    """The model: tat, when all is back; at most a whole capacity ahead of now. Times in ns, as exact as the table's own."""
    probe, tat, now = table(), 0, NOW
    emission = period * 1000 // requests
    full = emission * (requests + burst)
    for pause, cost in steps:
        now += pause
        if cost > requests + burst:
            continue
        granted, remaining, retry, reset = probe.take(1, GCRA, requests, requests + burst, period, now, cost=cost)
        at = max(tat, now * 1000)
        after = at + emission * cost
        assert granted == (after - now * 1000 <= full)
        if granted:
            tat = after
            assert remaining == (full - (tat - now * 1000)) // emission
            assert retry == 0
            assert reset == -(-((tat - now * 1000) // 1000) // 1000)
        else:
            # never too early, and at most a millisecond late
            wait = after - now * 1000 - full
            assert wait <= retry * 10**6 < wait + 2 * 10**6
        assert reset >= retry or not granted


def window_start(period: int, wall: int) -> tuple[int, int]:
    if period:
        return wall // period * period, period
    day = datetime.datetime.fromtimestamp(wall // SECOND, datetime.UTC)
    start = int(datetime.datetime(day.year, day.month, 1, tzinfo=datetime.UTC).timestamp()) * SECOND
    return start, calendar.monthrange(day.year, day.month)[1] * 86400 * SECOND


@given(st.integers(1, 20), st.sampled_from([SECOND, 60 * SECOND, 86400 * SECOND, 0]), Steps, st.integers(0, 400))
def test_fixed_windows_are_those_of_the_calendar(requests: int, period: int, steps: list[tuple[int, int]], days: int) -> None:
    probe, now, wall = table(), NOW, WALL + days * 86400 * SECOND
    counts: dict[int, int] = {}
    for pause, cost in steps:
        pause *= 20 if period else 86400
        now, wall = now + pause, wall + pause
        if cost > requests:
            continue
        start, length = window_start(period, wall)
        granted, remaining, retry, reset = probe.take(1, FIXED, requests, requests, period, now, wall_us=wall, cost=cost)
        assert granted == (counts.get(start, 0) + cost <= requests)
        counts[start] = counts.get(start, 0) + cost * granted
        assert remaining == requests - counts[start]
        left = start + length - wall
        assert reset == -(-left // 1000)
        assert retry == (0 if granted else reset)


@given(st.integers(1, 20), st.sampled_from([SECOND, 60 * SECOND]), Steps)
def test_sliding_counts_a_share_of_the_window_before(requests: int, period: int, steps: list[tuple[int, int]]) -> None:
    probe, now, wall = table(), NOW, WALL
    counts: dict[int, int] = {}
    for pause, cost in steps:
        now, wall = now + pause, wall + pause
        if cost > requests:
            continue
        number, into = divmod(wall, period)
        used = counts.get(number, 0) + counts.get(number - 1, 0) * (1 - Fraction(into, period))
        granted, _, retry, _ = probe.take(1, SLIDING, requests, requests, period, now, wall_us=wall, cost=cost)
        if abs(used + cost - requests) > Fraction(1, 10**6):
            assert granted == (used + cost <= requests)
        if granted:
            counts[number] = counts.get(number, 0) + cost
            assert retry == 0
            continue
        # What retry_ms says is when it fits, and a hundredth of the period earlier it does not.
        for moment, fits in ((wall + retry * 1000, True), (wall + retry * 1000 - period // 100 - 2000, False)):
            if moment <= wall:
                continue
            at, into = divmod(moment, period)
            later = counts.get(at, 0) + counts.get(at - 1, 0) * (1 - Fraction(into, period))
            assert (later + cost <= requests + Fraction(1, 1000)) == fits or not fits


def test_a_month_may_be_of_any_length_and_year() -> None:
    for year in (1970, 1999, 2000, 2024, 2026, 2096, 2100, 2400):
        for month in range(1, 13):
            last = calendar.monthrange(year, month)[1]
            end = int(datetime.datetime(year, month, last, 23, 59, 59, tzinfo=datetime.UTC).timestamp()) * SECOND
            probe = table(1)
            assert probe.take(1, FIXED, 1, 1, 0, NOW, wall_us=end)[0]
            assert probe.take(1, FIXED, 1, 1, 0, NOW, wall_us=end) == (False, 0, 1000, 1000)
            assert probe.take(1, FIXED, 1, 1, 0, NOW + SECOND, wall_us=end + SECOND)[0]


def test_what_is_given_back_is_there_again_and_a_debt_is_owed() -> None:
    for algorithm in (GCRA, FIXED, SLIDING):
        probe = table()
        assert [probe.take(1, algorithm, 2, 2, 60 * SECOND, NOW, wall_us=WALL)[0] for _ in range(3)] == [True, True, False]
        probe.adjust(1, algorithm, 2, 2, 60 * SECOND, NOW, -1, wall_us=WALL)
        assert [probe.take(1, algorithm, 2, 2, 60 * SECOND, NOW, wall_us=WALL)[0] for _ in range(2)] == [True, False]
        probe.adjust(1, algorithm, 2, 2, 60 * SECOND, NOW, -10**9, wall_us=WALL)
        assert probe.take(1, algorithm, 2, 2, 60 * SECOND, NOW, wall_us=WALL)[0]
        probe.adjust(1, algorithm, 2, 2, 60 * SECOND, NOW, 10**9, wall_us=WALL)
        assert not probe.take(1, algorithm, 2, 2, 60 * SECOND, NOW + 20 * SECOND, wall_us=WALL + 20 * SECOND)[0]
        # nothing to give back of a key that is not known
        probe.adjust(2, algorithm, 2, 2, 60 * SECOND, NOW, -1, wall_us=WALL)


def test_replicas_share_what_a_limit_allows() -> None:
    probe = table(share=4)
    assert sum(probe.take(1, GCRA, 100, 100, SECOND, NOW)[0] for _ in range(200)) == 25
    assert sum(probe.take(1, GCRA, 100, 100, SECOND, NOW + SECOND)[0] for _ in range(200)) == 25
    # one of two, shared by four, is still one
    assert [probe.take(2, FIXED, 2, 2, SECOND, NOW, wall_us=WALL)[0] for _ in range(2)] == [True, False]


def test_a_limit_that_is_changed_holds_as_many_requests_as_before() -> None:
    """Whoever was refused by ten a day is not kept waiting for a day by a thousand."""
    probe, day = table(), 86_400 * SECOND

    def passing(requests: int, period: int) -> int:
        return sum(probe.take(1, GCRA, requests, requests, period, NOW)[0] for _ in range(2 * requests))

    assert passing(10, day) == 10
    assert passing(1000, day) == 990
    granted, remaining, retry_ms, _ = probe.take(1, GCRA, 5, 5, 3600 * SECOND, NOW)
    assert (granted, remaining) == (False, 0) and 719_000 <= retry_ms <= 721_000, "nobody owes more than fits"
    assert probe.take(2, GCRA, 1, 1, day, NOW)[0]
    probe.adjust(2, GCRA, 1, 1, day, NOW, 5)
    assert probe.take(2, GCRA, 1000, 1000, SECOND, NOW)[:2] == (True, 993), "a debt goes with it"


# ---- leases and denials


def test_a_lease_is_used_up_and_asked_for_again_in_time() -> None:
    probe = table()
    assert probe.lease_take(1, 1000, 1000, NOW)[:3] == ("none", 1, 0)
    probe.lease_grant(1, 1, NOW, used=1, remaining=900)
    assert probe.lease_take(1, 1000, 1000, NOW + 1000)[:2] == ("none", 4)
    probe.lease_grant(1, 40, NOW + 1000, used=1, remaining=850)
    wants = []
    for number in range(39):
        leased, want, back, remaining = probe.lease_take(1, 1000, 1000, NOW + 2000 + number * 1000)
        assert (leased, back) == ("taken", 0)
        assert remaining == 850 + 38 - number
        wants.append(want)
    # once, at half; at a token each millisecond: two hundred, cut to a tenth of what there is
    assert [want for want in wants if want] == [100]
    assert wants.index(100) == 18
    assert probe.lease_take(1, 1000, 1000, NOW + 50_000)[0] == "none"


def test_what_is_left_of_a_lease_goes_back_once() -> None:
    probe = table()
    probe.lease_grant(1, 10, NOW)
    assert probe.lease_over(1, NOW + 199_999) == 0
    assert probe.lease_over(1, NOW + 200_000) == 10
    assert probe.lease_over(1, NOW + 200_000) == 0
    probe.lease_grant(1, 7, NOW)
    assert probe.lease_take(1, 100, 100, NOW + 300_000)[:3:2] == ("none", 7)
    probe.lease_return(1, NOW + 300_000)
    assert probe.lease_take(1, 100, 100, NOW + 300_000)[0] == "taken"
    assert probe.lease_over(99, NOW) == 0
    probe.lease_return(99, NOW)
    probe.lease_unasked(99, NOW)
    assert probe.keys == 1


def test_a_denial_holds_until_its_time_and_tokens_come_first() -> None:
    probe = table()
    probe.lease_grant(1, 1, NOW, retry_ms=50)
    assert probe.denied_ms(1, NOW) == 50
    assert probe.lease_take(1, 100, 100, NOW)[0] == "taken"
    assert probe.lease_take(1, 100, 100, NOW + 1) == ("denied", 0, 0, 50)
    assert probe.lease_take(1, 100, 100, NOW + 49_999) == ("denied", 0, 0, 1)
    assert probe.lease_take(1, 100, 100, NOW + 50_000)[0] == "none"
    assert probe.denied_ms(1, NOW + 50_000) == 0
    assert probe.denied_ms(2, NOW) == 0


def test_a_denial_is_of_the_terms_that_it_was_said_by() -> None:
    probe = table()
    probe.lease_grant(1, 0, NOW, retry_ms=3_600_000, requests=10, capacity=10)
    assert probe.denied_ms(1, NOW, requests=10, capacity=10) == 3_600_000
    assert probe.lease_take(1, 10, 10, NOW)[0] == "denied"
    for requests, capacity in ((1000, 1000), (10, 20), (20, 10)):
        assert probe.denied_ms(1, NOW, requests=requests, capacity=capacity) == 0
        assert probe.lease_take(1, requests, capacity, NOW)[0] == "none"


# ---- requests in flight


def test_requests_in_flight_are_counted_over_all_workers() -> None:
    shared = bytearray(table_size(16))
    one, two = TableProbe(shared, slot=1), TableProbe(shared, slot=2)
    assert one.enter(1, 3, NOW) == (True, 2)
    assert two.enter(1, 3, NOW) == (True, 1)
    assert two.enter(1, 3, NOW) == (True, 0)
    assert one.enter(1, 3, NOW) == (False, 0)
    two.leave(1, NOW)
    assert one.enter(1, 3, NOW) == (True, 0)
    # A worker that dies has nothing in flight: its successor begins anew, and what the others have stays.
    TableProbe(shared, slot=1)
    assert two.enter(1, 3, NOW) == (True, 1)
    two.leave(2, NOW)
    for _ in range(5):
        two.leave(1, NOW)
    assert two.enter(1, 3, NOW) == (True, 2)


# ---- what is shared


def test_a_full_table_forgets_what_matters_least_long() -> None:
    probe = table(1)
    for key in range(7):
        # key 3 is the one that is back first
        probe.take(key, GCRA, 1, 1, SECOND * (100 if key != 3 else 5), NOW)
    assert (probe.keys, probe.evictions) == (7, 0)
    probe.take(100, GCRA, 1, 1, 100 * SECOND, NOW)
    assert (probe.keys, probe.evictions) == (7, 1)
    assert probe.take(3, GCRA, 1, 1, 5 * SECOND, NOW)[0]
    assert not probe.take(100, GCRA, 1, 1, 100 * SECOND, NOW)[0] or not probe.take(4, GCRA, 1, 1, 100 * SECOND, NOW)[0]
    # what is over makes room without a loss
    before = probe.evictions
    probe.take(200, GCRA, 1, 1, SECOND, NOW + 1000 * SECOND)
    assert probe.evictions == before


def test_many_keys_stay_in_their_place() -> None:
    probe = table(64)
    for key in range(20_000):
        assert probe.take(key, GCRA, 1, 1, SECOND, NOW)[0]
    assert probe.keys == 64 * 7


HOUR = 3600 * SECOND


@pytest.mark.parametrize("algorithm", [GCRA, FIXED, SLIDING])
def test_who_is_refused_is_not_forgotten_for_others_however_many(algorithm: int) -> None:
    """A key that has used up a minute, among a flood of new ones of a limit by the hour that all matter longer."""
    probe = table(1)
    how = {"wall_us": WALL}
    assert [probe.take(1, algorithm, 3, 3, 60 * SECOND, NOW, **how)[0] for _ in range(4)] == [True] * 3 + [False]
    for key in range(100, 2100):
        assert probe.take(key, algorithm, 5, 5, HOUR, NOW + key, wall_us=WALL + key)[0]
    assert (probe.keys, probe.evictions) == (7, 1994)
    later = NOW + 3 * SECOND
    assert not probe.take(1, algorithm, 3, 3, 60 * SECOND, later, wall_us=WALL + 3 * SECOND)[0]
    # Its time is over: it is let through, and is one of the others again.
    free = 120 * SECOND
    assert probe.take(1, algorithm, 3, 3, 60 * SECOND, NOW + free, wall_us=WALL + free)[0]
    for key in range(3000, 3100):
        probe.take(key, algorithm, 5, 5, HOUR, NOW + free, wall_us=WALL + free)
    assert [probe.take(1, algorithm, 3, 3, 60 * SECOND, NOW + free, wall_us=WALL + free)[0] for _ in range(3)] == [True] * 3


def test_a_hundred_who_are_refused_stay_so_among_a_hundred_thousand() -> None:
    probe = table(1024)
    for key in range(100):
        assert [probe.take(key, FIXED, 1, 1, HOUR, NOW, wall_us=WALL)[0] for _ in range(2)] == [True, False]
    for key in range(1000, 101_000):
        at = key * 10_000
        assert probe.take(key, FIXED, 3, 3, HOUR, NOW + at, wall_us=WALL + at, cost=2)[0]
    assert probe.keys == 1024 * 7 and probe.evictions == 100_100 - 1024 * 7
    for at in (1010 * SECOND, HOUR - 1):
        assert not any(probe.take(key, FIXED, 1, 1, HOUR, NOW + at, wall_us=WALL + at)[0] for key in range(100))
    assert all(probe.take(key, FIXED, 1, 1, HOUR, NOW + HOUR, wall_us=WALL + HOUR)[0] for key in range(100))


def test_only_where_all_are_refused_the_one_goes_that_is_free_first() -> None:
    probe = table(1)
    for key in range(1, 8):
        period = (100 - key) * SECOND   # key 7 is free first
        assert [probe.take(key, GCRA, 2, 2, period, NOW)[0] for _ in range(3)] == [True, True, False]
    assert probe.take(50, GCRA, 2, 2, 60 * SECOND, NOW)[0]
    assert probe.evictions == 1
    # From now on the new one goes, not one of the six.
    for key in range(60, 160):
        assert probe.take(key, GCRA, 2, 2, 60 * SECOND, NOW)[0]
    assert [probe.take(key, GCRA, 2, 2, (100 - key) * SECOND, NOW)[0] for key in range(1, 7)] == [False] * 6
    assert probe.take(7, GCRA, 2, 2, 93 * SECOND, NOW)[0]


@pytest.mark.parametrize("algorithm", [FIXED, SLIDING])
def test_of_windows_that_end_together_the_smallest_count_goes(algorithm: int) -> None:
    """Who uses a window up stays known though others come who use it once."""
    probe = table(1)
    for use in range(9):
        for key in range(1, 7):
            at = use * 7 + key
            assert probe.take(key, algorithm, 10, 10, HOUR, NOW + at, wall_us=WALL + at)[0]
        for key in range(1000 + use * 50, 1050 + use * 50):
            assert probe.take(key, algorithm, 10, 10, HOUR, NOW + 70, wall_us=WALL + 70)[0]
    remaining = [probe.take(key, algorithm, 10, 10, HOUR, NOW + 70, wall_us=WALL + 70)[1] for key in range(1, 7)]
    assert remaining == [0] * 6


def test_what_the_store_would_say_again_goes_first_and_tokens_that_it_lent_stay() -> None:
    probe = table(1)
    probe.lease_grant(1, 20, NOW, remaining=100)
    probe.lease_grant(2, 0, NOW, retry_ms=3_600_000)
    probe.take(3, FIXED, 5, 5, HOUR, NOW, wall_us=WALL)
    for key in range(10, 14):
        probe.take(key, FIXED, 1, 1, HOUR, NOW, wall_us=WALL)
    assert probe.take(20, FIXED, 1, 1, HOUR, NOW, wall_us=WALL)[0]
    # The denial is forgotten: its key is asked for again, which lets nobody through.
    assert (probe.evictions, probe.denied_ms(2, NOW)) == (1, 0)
    assert probe.lease_take(1, 100, 100, NOW)[0] == "taken"
    assert probe.lease_take(2, 10, 10, NOW)[0] == "none"
    # What is over, or free, goes before any of them.
    probe = table(1)
    probe.lease_grant(1, 0, NOW, retry_ms=1)
    for key in range(2, 7):
        probe.take(key, GCRA, 1, 1, HOUR, NOW)
    probe.lease_take(30, 10, 10, NOW)
    assert (probe.keys, probe.evictions) == (7, 0)
    probe.take(40, GCRA, 1, 1, HOUR, NOW + 2000)
    probe.take(41, GCRA, 1, 1, HOUR, NOW + 2000)
    assert (probe.keys, probe.evictions) == (7, 0)


def test_requests_in_flight_keep_their_place_until_they_are_over() -> None:
    probe = table(1)
    assert probe.enter(1, 1, NOW)[0]
    for key in range(100, 200):
        probe.take(key, GCRA, 1, 1, 24 * HOUR, NOW)
    assert not probe.enter(1, 1, NOW)[0]
    probe.leave(1, NOW)
    evictions = probe.evictions
    probe.take(300, GCRA, 1, 1, 24 * HOUR, NOW)
    assert probe.evictions == evictions


def test_what_is_given_back_to_a_key_makes_it_one_of_the_others() -> None:
    for algorithm in (GCRA, FIXED):
        probe = table(1)
        assert [probe.take(1, algorithm, 1, 1, SECOND, NOW, wall_us=WALL)[0] for _ in range(2)] == [True, False]
        probe.adjust(1, algorithm, 1, 1, SECOND, NOW, -1, wall_us=WALL)
        assert probe.take(1, algorithm, 1, 1, SECOND, NOW, wall_us=WALL)[0]
        for key in range(2, 12):
            probe.take(key, algorithm, 1, 1, HOUR, NOW, wall_us=WALL)
        assert probe.take(1, algorithm, 1, 1, SECOND, NOW, wall_us=WALL)[0]


def test_a_lock_whose_holder_died_is_taken_over() -> None:
    shared = bytearray(table_size(1))
    dead, alive = TableProbe(shared, slot=1), TableProbe(shared, slot=2)
    dead.hold(1)
    assert alive.take(1, GCRA, 1, 1, SECOND, NOW)[0]
    assert not alive.take(1, GCRA, 1, 1, SECOND, NOW)[0]


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(min_size=512, max_size=512), st.lists(st.integers(0, 12), max_size=20))
def test_whatever_stands_in_a_bucket_breaks_nothing(content: bytes, keys: list[int]) -> None:
    shared = bytearray(table_size(1))
    probe = TableProbe(shared)
    shared[1024:] = content
    for key in keys:
        for algorithm in (GCRA, FIXED, SLIDING):
            probe.take(key, algorithm, 3, 3, SECOND, NOW, wall_us=WALL)
            probe.adjust(key, algorithm, 3, 3, SECOND, NOW, key - 6, wall_us=WALL)
        probe.lease_take(key, 3, 3, NOW)
        probe.lease_grant(key, key, NOW, retry_ms=key)
        probe.enter(key, 3, NOW)
        probe.leave(key, NOW)
    assert probe.keys <= 7


def test_processes_charge_one_key_exactly() -> None:
    """Three processes take from one bucket of 3,000 at once; together they get 3,000."""
    shared = mmap.mmap(-1, table_size(1))
    TableProbe(shared)
    readers = []
    for slot in range(3):
        reader, writer = os.pipe()
        if os.fork() == 0:
            try:
                probe = TableProbe(shared, slot=slot)
                got = sum(probe.take(1, GCRA, 3000, 3000, 10**12, NOW)[0] for _ in range(2000))
                os.write(writer, str(got).encode())
            finally:
                os._exit(0)
        os.close(writer)
        readers.append(reader)
    total = 0
    for reader in readers:
        total += int(os.read(reader, 100))
        os.close(reader)
    for _ in range(3):
        os.wait()
    assert total == 3000


@pytest.mark.parametrize("size", [0, 100, 1024, table_size(1) - 1, table_size(1) + 1, table_size(3)])
def test_a_buffer_of_another_size_is_none(size: int) -> None:
    with pytest.raises(ValueError, match="limit table"):
        TableProbe(bytearray(size))


def test_a_table_of_another_version_is_refused() -> None:
    shared = bytearray(table_size(1))
    TableProbe(shared)
    shared[0] ^= 1
    with pytest.raises(ValueError, match="another version"):
        TableProbe(shared)
    with pytest.raises(ValueError, match="read-only"):
        TableProbe(bytes(table_size(1)))
