"""What answers say of limits: structured fields of the draft, and the older ones."""

import re

import pytest

from gateway._core.limit_answer import fields

IETF, LEGACY, X, OFF = range(4)
ITEM = re.compile(rb'"[!#-\[\]-~]+"(?:;[a-z]+=(?:[0-9]+|"[a-z-]+"))*')


def test_a_list_has_one_item_for_each_limit_and_names_are_strings() -> None:
    found = dict(fields([(b"a", IETF, 100, 1, 50, 30_001), (b"b/c", IETF, 5, 0, 0, 0), (b"c", OFF, 1, 1, 1, 1)]))
    assert found == {b"ratelimit-policy": b'"a";q=100;w=1, "b/c";q=5', b"ratelimit": b'"a";r=50;t=31, "b/c";r=0;t=0'}
    for value in found.values():
        assert all(ITEM.fullmatch(item) for item in value.split(b", "))


@pytest.mark.parametrize(("style", "prefix"), [(LEGACY, b"ratelimit"), (X, b"x-ratelimit")])
def test_older_fields_speak_of_the_limit_that_has_least_left(style: int, prefix: bytes) -> None:
    found = dict(fields([(b"a", style, 100, 1, 50, 10), (b"b", style, 7, 1, 3, 2500), (b"c", IETF, 1, 1, 1, 1)], 1))
    assert [found.pop(prefix + what) for what in (b"-limit", b"-remaining", b"-reset")] == [b"7", b"3", b"3"]
    assert set(found) == {b"ratelimit", b"ratelimit-policy", b"retry-after"}


def test_whoever_comes_back_when_told_is_not_too_early() -> None:
    assert [dict(fields([], ms))[b"retry-after"] for ms in (1, 999, 1000, 1001, 4_294_967_295)] == [
        b"1", b"1", b"1", b"2", b"4294968",
    ]  # fmt: skip
    assert fields([]) == []


def test_as_many_limits_as_a_request_may_meet_with_the_longest_names_fit() -> None:
    most = [(b"n" * 253, IETF, 2**32 - 1, 2**32 - 1, 2**32 - 1, 2**32 - 1)] * 24
    found = dict(fields(most))
    assert found[b"ratelimit"].count(b"n" * 253) == 24
