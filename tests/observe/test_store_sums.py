"""Sums over workers that come and go."""

from gateway.observe.store_sums import StoreSums
from gateway.supervisor.ipc import STORE_BOUNDS_US, StoreFacts


def said(asks: int, *, breakers_open: int = 0, **errors: int) -> StoreFacts:
    buckets = [0] * (len(STORE_BOUNDS_US) + 1)
    buckets[2] = asks
    return StoreFacts(
        asks=asks, round_trips=asks, microseconds=asks * 300, buckets=buckets, errors=errors, breakers=1,
        breakers_open=breakers_open, opened=breakers_open,
    )  # fmt: skip


def test_nobody_has_a_store() -> None:
    assert StoreSums().total() is None


def test_workers_are_summed() -> None:
    sums = StoreSums()
    sums.note(0, 100, said(5, oom=1))
    sums.note(1, 101, said(7, oom=2, timeout=1))
    sums.note(0, 100, said(6, oom=1))
    total = sums.total()
    assert total is not None and (total.asks, total.errors, total.buckets[2]) == (13, {"oom": 3, "timeout": 1}, 13)
    assert (total.microseconds, total.breakers, total.breakers_open) == (3900, 2, 0)


def test_a_worker_that_is_replaced_leaves_its_counts_and_not_its_breaker() -> None:
    sums = StoreSums()
    sums.note(0, 100, said(5, breakers_open=1, timeout=4))
    sums.note(0, 200, said(2))
    total = sums.total()
    assert total is not None and (total.asks, total.errors, total.breakers, total.breakers_open) == (7, {"timeout": 4}, 1, 0)
    assert total.opened == 1
    sums.note(0, 300, StoreFacts())
    again = sums.total()
    assert again is not None and again.asks == 7 and again.breakers == 0
