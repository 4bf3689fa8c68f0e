"""Routes and clusters one by one: what several of them share is made once, and forgotten with the last that needs it."""

import gc

import pytest

from gateway._core.link import Linker
from gateway._core.snapshot import load
from gateway.control.build import Attachment, Backend, Cors, HeaderModifier, Match, Route, Rule, ValueMatch
from gateway.control.pieces import Press, RuleError

EDITS = HeaderModifier(on="request", set=(("x-a", "1"),), add=(), remove=())
CORS = Cors(origins=("*",), credentials=False, methods=("GET",), headers=(), expose=(), max_age=5)
FIELDS = (ValueMatch("x", "a+", True),)
MATCH = Match("RegularExpression", "/a+", "", FIELDS, ())


def press() -> Press:
    return Press({}, frozenset())


def route(name: str, *matches: Match) -> Route:
    backend = Backend(cluster=None, weight=1, filters=(EDITS,))
    rule = Rule(0, "", matches or (MATCH,), (EDITS,), (backend,), 0, 0, 0, (), 0, cors=CORS)
    return Route(name, "HTTPRoute", (Attachment(0, ("",)),), (rule,))


def test_what_routes_share_stands_once_in_the_blob() -> None:
    made, linker = press(), Linker()
    pieces = [made.route(route(name), 1) for name in ("one", "two", "three")]
    for piece in pieces:
        linker.place(piece)
    counts = load(linker.blob(1)).counts_by_section
    assert (counts["routes"], counts["filters"], counts["edits"], counts["cors"], counts["matches"]) == (3, 1, 1, 1, 1)
    assert counts["regexes"] == 2, "of the path and of the header"


def test_what_nothing_needs_any_more_is_forgotten() -> None:
    made = press()
    first = made.route(route("one"), 1)
    assert len(made._shared) == 6
    del first
    gc.collect()
    assert len(made._shared) == 0


def test_a_route_that_is_refused_says_where() -> None:
    bad = Match("PathPrefix", "/" * 600, "", (), ())
    with pytest.raises(RuleError) as told:
        press().route(route("deep", MATCH, bad), 1)
    assert told.value.path == ("rules", 0, "matches", 1)
    assert "512 elements" in str(told.value)
