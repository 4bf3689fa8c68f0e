"""Waiting times between tries."""

from gateway.sources.kubernetes.backoff import Backoff


def test_it_doubles_up_to_a_limit_and_never_twice_the_same_for_all() -> None:
    backoff = Backoff(1.0, 8.0)
    for base in (1, 2, 4, 8, 8):
        assert base <= backoff.delay() <= 2 * base


def test_the_server_may_ask_for_more() -> None:
    assert Backoff(0.1, 1.0).delay(at_least=30) == 30


def test_success_and_a_long_peace_begin_afresh() -> None:
    backoff = Backoff(1.0, 64.0)
    for _ in range(5):
        backoff.delay()
    backoff.reset()
    assert backoff.delay() <= 2
    calm = Backoff(1.0, 64.0, reset=0.0)
    assert [calm.delay() <= 2 for _ in range(5)] == [True] * 5
