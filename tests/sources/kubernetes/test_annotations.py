"""Annotations as they are read: numbers are numbers, and what nobody asked for is told."""

import pytest

from gateway.sources.kubernetes.annotations import ELSEWHERE, NEEDLESS, PREFIX, Annotations, cors_of, retry_of, rewritten


def read(**values: str) -> Annotations:
    return Annotations({f"{PREFIX}{name.replace('_', '-')}": value for name, value in values.items()} | {"other.io/x": "y"})


def test_what_nobody_asked_for_is_told() -> None:
    found = read(canary="true", proxy_body_size="1m", unheard="x", proxy_buffering="on")
    assert found.is_on("canary") and not found.is_on("absent") and found.is_on("absent", True)
    assert [note.partition(":")[0] for note in found.rest()] == ["proxy-body-size", "unheard"]


def test_no_annotation_is_in_two_lists() -> None:
    assert not NEEDLESS & set(ELSEWHERE)


@pytest.mark.parametrize(("value", "number"), [("7", 7), ("", 3), ("seven", 3), ("-1", 3), ("12345678", 3)])
def test_numbers(value: str, number: int) -> None:
    assert read(n=value).number("n", 3) == number


@pytest.mark.parametrize(
    ("target", "path", "match", "rewrite"),
    [
        ("", "/a", ("PathPrefix", "/a"), None),
        ("/$2", "/(/|$)(.*)", ("PathPrefix", "/"), ("ReplacePrefixMatch", "/")),
        ("$2", "/a(/|$)(.*)", ("PathPrefix", "/a"), ("ReplacePrefixMatch", "/")),
        ("/b", "/a/(.*)", ("RegularExpression", "(?i)/a/(.*).*"), ("ReplaceFullPath", "/b")),
        ("/b/$1", "/a/(x|y)", ("RegularExpression", "(?i)/a/(x|y).*"), None),
    ],
)
def test_forms_of_a_rewrite(target: str, path: str, match: tuple[str, str], rewrite: tuple[str, str] | None) -> None:
    found, change = rewritten(read(rewrite_target=target), path, False)
    assert (found["type"], found["value"]) == match
    assert (tuple(change.values()) if change else None) == rewrite


def test_tries_count_the_first_one_in_nginx() -> None:
    assert retry_of(read()) is None
    assert retry_of(read(proxy_next_upstream="off")) == {"attempts": 0}
    assert retry_of(read(proxy_next_upstream_tries="1")) == {"attempts": 0}
    assert retry_of(read(proxy_next_upstream="error http_500")) == {"attempts": 1, "codes": [500]}


def test_without_enable_cors_there_is_none() -> None:
    found = read(cors_allow_origin="https://a.test")
    assert cors_of(found) is None and found.rest() == []
