"""When the breaker opens, and that it closes only when somebody has seen an answer."""

from gateway.worker.limits.breaker import ERRORS, WITHIN_S, Breaker


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_five_errors_within_a_second_open_it() -> None:
    breaker = Breaker(Clock())
    assert [breaker.error() for _ in range(ERRORS)] == [False] * (ERRORS - 1) + [True]
    assert breaker.is_open and breaker.opened == 1


def test_errors_that_are_old_do_not_count() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    for _ in range(100):
        assert not breaker.error()
        clock.now += WITHIN_S / (ERRORS - 1)
    clock.now -= WITHIN_S / (ERRORS - 1) / 2
    assert breaker.error() and breaker.is_open


def test_an_open_one_stays_open_until_it_is_closed_and_then_starts_afresh() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    breaker.trip()
    breaker.trip()
    assert breaker.opened == 1 and not breaker.error()
    clock.now += 1000
    assert breaker.is_open
    breaker.close()
    assert not breaker.is_open and not any(breaker.error() for _ in range(ERRORS - 1))
    assert breaker.error() and breaker.opened == 2
