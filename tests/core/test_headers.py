"""HeaderBlock: adding, finding, dropping; order and the index of first fields stay true."""

import random
from typing import Any

from gateway._core.selftest import edit_fields


def test_a_field_is_found_by_name_known_or_not() -> None:
    edits = [("add", b"host", b"a"), ("add", b"x-mine", b"1"), ("add", b"x-mine", b"2"), ("add", b"accept", b"*/*")]
    found, _ = edit_fields(
        [*edits, ("find", b"host"), ("find", b"x-mine"), ("find", b"x-min"), ("find", b"accept"), ("find", b"te")]
    )
    assert found == [[b"a"], [b"1", b"2"], [], [b"*/*"], []]


def test_a_dropped_field_is_as_if_it_had_never_been_there() -> None:
    edits = [("add", b"x-a", b"1"), ("add", b"via", b"2"), ("add", b"x-a", b"3"), ("add", b"x-b", b"4"), ("add", b"via", b"5")]
    found, left = edit_fields([*edits, ("drop", b"x-a"), ("drop", b"via"), ("find", b"x-a"), ("find", b"via"), ("find", b"x-b")])
    assert found == [[], [], [b"4"]]
    assert left == [(b"x-b", b"4")]
    _, left = edit_fields([*edits, ("drop", b"x-nothing"), ("drop", b"te")])
    assert len(left) == 5


def test_set_leaves_one_field_and_takes_only_its_own_name() -> None:
    edits = [("add", b"x-a", b"1"), ("add", b"x-b", b"2"), ("add", b"x-a", b"3"), ("set", b"x-a", b"9"), ("set", b"host", b"h")]
    found, left = edit_fields([*edits, ("find", b"x-a"), ("find", b"host")])
    assert found == [[b"9"], [b"h"]]
    assert left == [(b"x-b", b"2"), (b"x-a", b"9"), (b"host", b"h")]


def test_clear_forgets_everything() -> None:
    edits = [
        ("add", b"host", b"a"),
        ("add", b"x", b"b" * 40_000),
        ("clear",),
        ("find", b"host"),
        ("find", b"x"),
        ("add", b"x", b"1"),
    ]
    assert edit_fields(edits) == ([[], []], [(b"x", b"1")])


def test_name_and_value_may_lie_in_the_store_that_grows() -> None:
    edits: list[tuple[Any, ...]] = [("add", b"x-name", b"v" * 700), ("add", b"y", b"w" * 290)]
    edits += [("echo", 0, 1), ("echo", 1, 0)] * 40
    _, left = edit_fields(edits)
    assert left[2:] == [(b"x-name", b"w" * 290), (b"y", b"v" * 700)] * 40


def test_empty_values_and_many_fields() -> None:
    _, left = edit_fields([("add", b"x-%d" % i, b"") for i in range(3000)])
    assert left == [(b"x-%d" % i, b"") for i in range(3000)]


def test_random_edits_against_a_plain_list() -> None:
    rng = random.Random(11)
    names = [b"host", b"via", b"x-a", b"x-b", b"x-ab", b"cookie", b"te"]
    for _ in range(300):
        edits: list[tuple[Any, ...]] = []
        model: list[tuple[bytes, bytes]] = []
        expected: list[list[bytes]] = []
        for step in range(rng.randrange(1, 40)):
            name, value = rng.choice(names), b"%d" % step * rng.randrange(1, 30)
            verb = rng.choice(["add", "add", "add", "set", "drop", "find"])
            edits.append((verb, name, value) if verb in ("add", "set") else (verb, name))
            if verb in ("set", "drop"):
                model = [field for field in model if field[0] != name]
            if verb in ("set", "add"):
                model.append((name, value))
            if verb == "find":
                expected.append([field[1] for field in model if field[0] == name])
        assert edit_fields(edits) == (expected, model)
