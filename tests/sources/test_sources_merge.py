"""Several documents become one configuration."""

from gateway.sources.document import Document, parse
from gateway.sources.merge import Merged, item_flaws, merge


def documents(**texts: str) -> list[Document]:
    return [document for name, text in texts.items() for document in parse(text, f"{name}.yaml")]


def said(merged: Merged) -> list[str]:
    return [("fatal " if problem.fatal else "") + problem.text() for problem in merged.problems]


def test_lists_join_in_the_order_of_the_documents() -> None:
    merged = merge(documents(a="clusters: [1, 2]", b="clusters: [3]\nroutes:\nadmin: {address: x}"))
    assert [item.value for item in merged.lists["clusters"]] == [1, 2, 3]
    assert [(item.document.source, item.path) for item in merged.lists["clusters"]] == [
        ("a.yaml", ("clusters", 0)),
        ("a.yaml", ("clusters", 1)),
        ("b.yaml", ("clusters", 0)),
    ]
    assert merged.lists["routes"] == []
    assert merged.single["admin"].value == {"address": "x"}
    assert said(merged) == []


def test_a_key_of_the_root_stands_once_and_both_places_are_named() -> None:
    merged = merge(documents(a="# \nadmin: {}", b="admin: {}"))
    assert said(merged) == ["fatal b.yaml:1: admin: 'admin' stands twice in the configuration; first at a.yaml:2"]


def test_an_unknown_key_of_the_root_is_fatal_and_told_the_nearest() -> None:
    assert said(merge(documents(a="clusters: []\ncluster: 1"))) == [
        "fatal a.yaml:2: cluster: unknown key 'cluster'; did you mean 'clusters'?"
    ]


def test_a_list_is_a_list_and_a_root_is_a_mapping() -> None:
    assert said(merge(documents(a="routes: {a: 1}", b="[1]", c="x", d=""))) == [
        "fatal a.yaml:1: routes: expected a list",
        "fatal b.yaml:1: expected a mapping at the root of the file",
        "fatal c.yaml:1: expected a mapping at the root of the file",
    ]


def test_a_flaw_inside_an_item_costs_that_item_alone() -> None:
    merged = merge(
        documents(a="admin: {address: a, address: b}\nroutes:\n- {name: a, name: b}\n- {name: c}\nlisteners: [{x: 1, x: 2}]")
    )
    assert said(merged) == ["fatal a.yaml:1: admin.address: key 'address' stands twice; first at line 1"]
    assert [[problem.text() for problem in item_flaws(item)] for item in merged.lists["routes"]] == [
        ["a.yaml:3: routes[0].name: key 'name' stands twice; first at line 3"],
        [],
    ]
    assert [problem.fatal for problem in item_flaws(merged.lists["routes"][0]) + item_flaws(merged.lists["listeners"][0])] == [
        False,
        True,
    ]
