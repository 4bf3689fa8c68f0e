"""Text of a file -> plain values that know their lines."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sources import document
from gateway.sources.document import Document, SyntaxFlaw, parse


def one(text: str, *, is_json: bool = False) -> Document:
    (found,) = parse(text, "a.yaml", is_json=is_json)
    return found


def flaws(text: str) -> list[str]:
    return [f"{flaw.line}:{flaw.column} {flaw.message}" for flaw in one(text).flaws]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("off", "off"), ("no", "no"), ("yes", "yes"), ("on", "on"), ("y", "y"),
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
        ("1", 1), ("-7", -7), ("0x1F", 31), ("0o17", 15), ("007", 7), ("1.5", 1.5), ("1e3", 1000.0), (".5", 0.5),
        ("1:30", "1:30"), ("2026-01-01", "2026-01-01"), ("1_000", "1_000"), ("10s", "10s"), ("127.0.0.1:80", "127.0.0.1:80"),
        ("'1'", "1"), ('"true"', "true"), ("|\n 1\n", "1\n"), ("!!str 1", "1"),
    ],
)  # fmt: skip
def test_scalars_follow_yaml_1_2(text: str, value: Any) -> None:
    """`off` is a word here and not false: proxyProtocol: off means what it says."""
    assert one(f"a: {text}").value == {"a": value}
    assert type(one(f"a: {text}").value["a"]) is type(value)


def test_keys_are_their_text() -> None:
    assert one("on: 1\n2: 2\nnull: 3\n").value == {"on": 1, "2": 2, "null": 3}


def test_every_value_and_key_knows_its_line_and_column() -> None:
    found = one("# first\nroutes:\n  - name: a\n    rules:\n      - {matches: [x, y]}\n")
    assert found.place(("routes",), at_key=True) == (2, 1)
    assert found.place(("routes", 0)) == (3, 5)
    assert found.place(("routes", 0, "name")) == (3, 11)
    assert found.place(("routes", 0, "name"), at_key=True) == (3, 5)
    assert found.place(("routes", 0, "rules", 0, "matches", 1)) == (5, 23)
    assert found.place(()) == (2, 1)


def test_a_path_that_leaves_the_value_ends_where_it_left_it() -> None:
    found = one("a:\n  b: 1\n")
    assert found.place(("a", "b", "c", 4)) == (2, 6)
    assert found.place(("a", "z")) == (2, 3)


def test_a_key_that_stands_twice_is_told_with_both_places() -> None:
    found = one("a: 1\nb:\n  c: 1\n  c: 2\n")
    assert [(flaw.line, flaw.path, flaw.message) for flaw in found.flaws] == [
        (4, ("b", "c"), "key 'c' stands twice; first at line 3")
    ]
    assert found.value == {"a": 1, "b": {"c": 1}}, "the first one counts"


def test_aliases_stand_for_whole_values() -> None:
    assert one("a: &x [1, 2]\nb: *x\n").value == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: *x", "1:4 unknown alias '*x'"),
        ("a: &x {b: *x}", "1:11 unknown alias '*x'"),
        ("a: !!python/object:os.system x", "1:4 tags are not used here: tag:yaml.org,2002:python/object:os.system"),
        ("a: !secret x", "1:4 tags are not used here: !secret"),
        ("a: &x {b: 1}\nc:\n  <<: *x", "3:3 merge keys (<<) are not used here; an alias may stand for a whole value"),
        ("? [a]\n: 1\nb: 2", "1:3 a key must be plain text"),
    ],
)
def test_what_is_not_used_here_is_told_with_its_place(text: str, says: str) -> None:
    assert flaws(text) == [says]


def test_reading_goes_on_after_a_flaw() -> None:
    assert one("? [a]\n: [1, {x: y}]\nb: 2").value == {"b": 2}


@pytest.mark.parametrize(
    ("text", "line"),
    [("a: [1", 1), ("a: b: c", 1), ("a: 1\n b: 2", 2), ("a:\n\t- b", 2), ("a: 'x", 1), ("a: \x01", 1), ("%YAML 9", 1)],
)
def test_a_syntax_error_has_its_line(text: str, line: int) -> None:
    with pytest.raises(SyntaxFlaw) as caught:
        parse(text, "a.yaml")
    assert caught.value.flaw.message.startswith("YAML: ")
    assert caught.value.flaw.line in (line, line + 1), "the parser may see it at the end"


def test_a_small_file_never_becomes_a_large_value() -> None:
    """Nine levels of nine aliases each are three hundred million values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    with pytest.raises(SyntaxFlaw, match="too large: more than 2000000 values, aliases expanded"):
        parse("\n".join(lines), "a.yaml")


@pytest.mark.parametrize("text", ["[" * 5000, "- " * 5000, "{a: " * 5000])
def test_deep_nesting_is_refused_and_not_recursed_into(text: str) -> None:
    with pytest.raises(SyntaxFlaw):
        parse(text, "a.yaml")


def test_sixty_four_levels_are_deep_enough() -> None:
    depth = document.MAX_DEPTH
    assert one("[" * depth + "]" * depth).value
    with pytest.raises(SyntaxFlaw, match="nested deeper than 64"):
        parse("[" * (depth + 1) + "]" * (depth + 1), "a.yaml")


def test_documents_of_one_file_are_kept_apart() -> None:
    first, second = parse("a: 1\n---\nb: 2\n", "a.yaml")
    assert (first.value, second.value) == ({"a": 1}, {"b": 2})
    assert second.place(("b",)) == (3, 4)
    assert parse("", "a.yaml") == []
    assert one("# nothing\n---\n").value is None


def test_json_knows_its_lines_too() -> None:
    found = one('{\n\t"a": {\n\t\t"b": [1e3, "x\\/y", null, true]\n\t}\n}', is_json=True)
    assert found.value == {"a": {"b": [1000.0, "x/y", None, True]}}
    assert found.place(("a", "b", 1)) == (3, 14)


def test_json_that_is_no_yaml_is_read_all_the_same() -> None:
    assert one('{"a": "\\ud83d\\ude00", "b": 1}', is_json=True).value == {"a": "\U0001f600", "b": 1}
    found = one('{"a": "\\ud83d\\ude00", "a": 1}', is_json=True)
    assert [flaw.message for flaw in found.flaws] == ["key 'a' stands twice"]


@pytest.mark.parametrize("text", ["{a: 1}", "{'a': 1}", '{"a": 1,}', "", '{"a": 01}', "[" * 100_000])
def test_json_is_strict(text: str) -> None:
    with pytest.raises(SyntaxFlaw):
        parse(text, "a.json", is_json=True)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.text(max_size=8)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=15,
)


@given(JSON)
def test_json_means_what_it_means_elsewhere(value: Any) -> None:
    found = one(json.dumps(value), is_json=True)
    assert not found.flaws or "<<" in json.dumps(value)
    if not found.flaws:
        assert found.value == value


@given(st.text(alphabet=st.sampled_from("ab:{}[]-&*!|>'\"#,?%@` \n\t\u00e9\\<1.0~"), max_size=60))
def test_no_text_makes_it_raise_anything_else(text: str) -> None:
    try:
        for found in parse(text, "a.yaml"):
            found.place(("a", 0, "b"))
            json.dumps(found.value)
    except SyntaxFlaw as refusal:
        assert refusal.flaw.message
