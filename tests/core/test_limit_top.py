"""Sketches of the keys that rate limits meet most: against plain counting, by time, and their bounds."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gateway._core.limit_top import TopProbe

MINUTE = 60_000
NOW = 10 * MINUTE


def counts(probe: TopProbe, now: int, limit: int = 1) -> dict[int, tuple[int, int, int]]:
    rows = [row for row in probe.rows(now) if row["limit"] == limit]
    return {int(row["key"], 16): (row["requests"], row["refused"], row["error"]) for row in rows}


@given(st.lists(st.tuples(st.integers(1, 60), st.booleans()), max_size=300))
def test_few_keys_are_counted_exactly(steps: list[tuple[int, bool]]) -> None:
    probe, requests, refusals = TopProbe(), Counter[int](), Counter[int]()
    for key, refused in steps:
        assert probe.meet(1, key, NOW, refused=refused)
        requests[key] += 1
        refusals[key] += refused
    assert counts(probe, NOW) == {key: (n, refusals[key], 0) for key, n in requests.items()}


@given(st.lists(st.integers(1, 90) | st.integers(1, 5), min_size=200, max_size=1500))
def test_of_many_keys_those_that_are_met_most_are_there(steps: list[int]) -> None:
    """Space-saving: no count is too small, none too large by more than its error, and what has more than its part is there."""
    probe, truth = TopProbe(), Counter(steps)
    for key in steps:
        probe.meet(1, key, NOW)
    found = counts(probe, NOW)
    assert len(found) <= 64 and sum(requests for requests, _, _ in found.values()) == len(steps)
    for key, (requests, _, error) in found.items():
        assert requests - error <= truth[key] <= requests
    assert {key for key, n in truth.items() if n > len(steps) / 64} <= found.keys()


def test_what_is_told_is_of_one_window_and_the_one_before_it() -> None:
    probe = TopProbe()
    probe.meet(1, 7, NOW, weight=5)
    probe.meet(1, 7, NOW + MINUTE, weight=3, refused=True)
    (row,) = probe.rows(NOW + MINUTE + 2000)
    assert (row["requests"], row["refused"], row["ms"]) == (8, 3, MINUTE + 2000)
    assert counts(probe, NOW + 2 * MINUTE) == {7: (3, 3, 0)}
    probe.meet(1, 8, NOW + 2 * MINUTE)
    assert counts(probe, NOW + 3 * MINUTE) == {8: (1, 0, 0)}
    assert counts(probe, NOW + 6 * MINUTE) == {}


def test_so_many_limits_have_a_sketch_and_one_that_is_idle_gives_its_own_away() -> None:
    probe = TopProbe()
    assert all(probe.meet(limit, 1, NOW) for limit in range(1, 65))
    assert not probe.meet(99, 1, NOW)
    assert not probe.meet(99, 1, NOW + MINUTE)
    assert probe.meet(64, 2, NOW + MINUTE)
    assert probe.meet(99, 1, NOW + 2 * MINUTE)
    assert counts(probe, NOW + 2 * MINUTE, 99) == {1: (1, 0, 0)} and counts(probe, NOW + 2 * MINUTE, 64) == {2: (1, 0, 0)}


def test_a_count_stays_at_its_end() -> None:
    probe = TopProbe()
    for _ in range(3):
        probe.meet(1, 1, NOW, weight=2**31, refused=True)
    assert counts(probe, NOW) == {1: (2**32 - 1, 2**32 - 1, 0)}
