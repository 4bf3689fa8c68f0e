"""Pieces are joined: references become numbers, what is shared stands once, and tables find what was put into them."""

from typing import Any

import pytest

from gateway._core import explain
from gateway._core.link import CLUSTER, NEED, OWN, TARGETS, TEXT, Linker, Piece
from gateway._core.snapshot import load
from gateway.control.build import build
from gateway.control.compile import compile_model
from gateway.model import Cluster, Config, HTTPRoute
from gateway.model.route import HTTPBackendRef, HTTPRouteMatch, HTTPRouteRule, PathMatch


def regex(pattern: str) -> Piece:
    return Piece("regexes", {"regexes": [TEXT, len(pattern)]}, (pattern,))


def test_a_piece_that_two_need_is_put_once() -> None:
    linker = Linker()
    shared = regex("a+")
    fields = [Piece("matches", {"matches": [TEXT, 1, 0, 0, NEED]}, (name,), (shared,)) for name in "xy"]
    assert [linker.place(each) for each in fields] == [0, 1]
    assert [linker.place(each) for each in fields] == [0, 1]
    counts = load(linker.blob(1)).counts_by_section
    assert (counts["regexes"], counts["matches"], counts["strings"]) == (1, 2, len("a+xy"))


def test_a_piece_is_at_home_in_every_linker() -> None:
    piece = regex("b")
    first, second = Linker(), Linker()
    assert first.place(piece) == 0
    second.place(regex("a"))
    assert second.place(piece) == 1


def test_a_piece_is_made_once() -> None:
    piece = regex("a")
    with pytest.raises(TypeError):
        piece.__init__("regexes", {})  # type: ignore[misc]
    assert Linker().place(piece) == 0


def test_a_cluster_that_is_not_there_is_none() -> None:
    linker = Linker()
    backend = Piece("backends", {"backends": [CLUSTER, 1, 0, 0]}, clusters=("gone",))
    assert linker.place(backend) == 0
    load(linker.blob(1))


@pytest.mark.parametrize(
    ("words", "more"),
    [
        ([TEXT, 1], {}),
        ([NEED, 1], {}),
        ([CLUSTER, 1], {}),
        ([OWN["regexes"] + (200 << 32), 1], {}),
        ([1 << 62, 1], {}),
        ([1], {}),
        ([0, 0], {"targets": ((0, 0, 0),)}),
    ],
)
def test_what_refers_to_nothing_is_refused(words: list[int], more: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Piece("regexes", {"regexes": words}, **more)


def test_a_target_names_one_of_the_texts() -> None:
    row = [0, 0, 0, 0, 0, 0, 0, 0]
    with pytest.raises(ValueError, match="none of the texts"):
        Piece("routes", {"rows": row}, ("/a",), targets=((TARGETS["Exact"], 1, 0),))
    with pytest.raises((ValueError, OverflowError)):
        Piece("routes", {"rows": row}, ("/a",), targets=((TARGETS["Exact"], -1, 0),))


def test_what_is_no_word_is_refused() -> None:
    linker = Linker()
    for word in (-1, 1 << 32):
        with pytest.raises(OverflowError):
            linker.add("words", [word])
    with pytest.raises(OverflowError):
        Piece("words", {"words": [-1]})
    with pytest.raises(KeyError):
        Piece("nothing", {})


def test_texts_stand_once_and_the_empty_one_nowhere() -> None:
    linker = Linker()
    assert linker.text("") == (0, 0)
    assert linker.text("aé") == (0, 3)
    assert linker.text("b") == (3, 1)
    assert linker.text("aé") == (0, 3)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 100, 1000])
def test_tables_are_at_most_half_full_and_complete(size: int) -> None:
    matches = tuple(HTTPRouteMatch(path=PathMatch("Exact", f"/p{number}")) for number in range(size))
    hosts = tuple(f"h{number}.test" for number in range(size))
    matches = matches or (HTTPRouteMatch(path=PathMatch("Exact", "/x")),)
    rule = HTTPRouteRule(matches=matches, backend_refs=(HTTPBackendRef(name="a"),))
    route = HTTPRoute(name="r", hostnames=hosts, rules=(rule,))

    snapshot = load(compile_model(build(Config(routes=(route,), clusters=(Cluster(name="a"),)))).blob)
    counts = snapshot.counts_by_section
    assert counts["rows"] == max(size, 1) and counts["vhosts"] == max(size, 1)
    assert 2 * size <= counts["paths"] <= max(4 * size, 2) and counts["paths"] & (counts["paths"] - 1) == 0
    (port, _), *_ = explain.port_ids(snapshot)
    for number in range(size):
        for path, found in ((f"/p{number}", "r"), (f"/p{number}/", None)):
            asked = explain.explain_route(snapshot, port, b"GET", hosts[number].encode(), path.encode(), candidates=False)
            assert asked["route"] == found
