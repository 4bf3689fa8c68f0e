"""What is told of the store: counts that only grow, buckets that hold every round trip once."""

import pytest

from gateway.supervisor.ipc import STORE_BOUNDS_US
from gateway.worker.limits.facts import Tally


@pytest.mark.parametrize(("seconds", "bucket"), [(0, 0), (0.0001, 0), (0.000101, 1), (0.00999, 6), (1, 10), (1.1, 11), (100, 11)])
def test_a_round_trip_is_in_the_first_bucket_that_holds_it(seconds: float, bucket: int) -> None:
    tally = Tally()
    tally.round_trip(seconds)
    facts = tally.facts(breakers=1, breakers_open=0, opened=0)
    assert facts.buckets == [int(at == bucket) for at in range(len(STORE_BOUNDS_US) + 1)]
    assert facts.round_trips == 1 and abs(facts.microseconds - seconds * 1e6) <= 1


def test_facts_are_a_copy() -> None:
    tally = Tally()
    before = tally.facts(breakers=0, breakers_open=0, opened=0)
    tally.error("oom")
    tally.error("oom")
    tally.round_trip(1)
    assert before.errors == {} and sum(before.buckets) == 0
    assert tally.facts(breakers=0, breakers_open=0, opened=0).errors == {"oom": 2}
