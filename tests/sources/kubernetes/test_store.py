"""The store: what comes in, what is kept of it, and what its changes are."""

import json
from typing import Any

from gateway.sources.kubernetes.http_route import HTTPRoute
from gateway.sources.kubernetes.kinds import KINDS
from gateway.sources.kubernetes.meta import Ref
from gateway.sources.kubernetes.service import Service
from gateway.sources.kubernetes.store import Store, decode_bytes, decode_value

KIND = KINDS["HTTPRoute"]
REF = Ref("HTTPRoute", "ns", "r")


def value(*rules: Any, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": "r", "namespace": "ns"}, "spec": {"rules": list(rules), **more}}


def test_objects_come_and_go() -> None:
    store = Store()
    assert store.put(KIND, decode_value(KIND, value({"name": "one"}))) == REF
    assert store.put(KIND, decode_value(KIND, value({"name": "two"}))) == REF
    found = store.get(HTTPRoute, "ns", "r")
    assert found is not None and found.spec.rules[0].name == "two" and store.find(REF) is found and len(store) == 1
    revision = store.revision
    store.delete(REF)
    assert store.get(HTTPRoute, "ns", "r") is None and store.revision == revision + 1
    store.delete(REF)
    assert store.revision == revision + 1, "nothing changed"


def test_a_list_replaces_all_of_its_kind() -> None:
    store = Store()
    service = KINDS["Service"]
    store.put(service, decode_value(service, {"metadata": {"name": "s", "namespace": "ns"}}))
    store.put(KIND, decode_value(KIND, value()))
    store.put(KIND, decode_value(KIND, {"metadata": {"name": "broken", "namespace": "ns"}, "spec": {"parentRefs": 7}}))
    store.replace(KIND, [decode_value(KIND, {"metadata": {"name": "new", "namespace": "ns"}})])
    assert [each.metadata.name for each in store.all(HTTPRoute)] == ["new"] and not store.broken
    assert [each.metadata.name for each in store.all(Service)] == ["s"]


def test_unknown_fields_and_nulls_are_cut_off() -> None:
    found = decode_bytes(
        KIND,
        json.dumps(
            value({"name": "a", "future": {"x": 1}, "filters": None, "matches": [{"path": {"value": "/a", "y": 2}}]}, next=1)
        ).encode(),
    )
    assert isinstance(found.object, HTTPRoute) and not found.findings
    assert found.object.spec.rules[0].matches[0].path.value == "/a"


def test_a_rule_that_cannot_be_read_keeps_its_matches() -> None:
    good, bad = {"name": "good"}, {"matches": [{"path": {"value": "/bad"}}], "filters": [{"type": "Unheard"}]}
    found = decode_value(KIND, value(good, bad))
    assert isinstance(found.object, HTTPRoute)
    assert found.object.spec.rules[0].name == "good" and found.object.spec.rules[1].matches[0].path.value == "/bad"
    assert [each.path for each in found.findings] == [("spec", "rules", 1, "filters", 0, "type")]


def test_what_cannot_be_read_at_all_is_known_by_name() -> None:
    store = Store()
    store.put(KIND, decode_value(KIND, {"metadata": {"name": "r", "namespace": "ns", "generation": 2}, "spec": {"hostnames": 5}}))
    broken = store.broken[REF]
    assert broken.metadata.generation == 2 and broken.findings[0].path == ("spec", "hostnames") and len(store) == 0
    store.put(KIND, decode_value(KIND, value()))
    assert not store.broken and len(store) == 1


def test_nothing_raises_for_what_an_object_says() -> None:
    for odd in (None, 5, [], {}, {"metadata": 3}, {"metadata": {"name": 5}}, {"metadata": {"name": "x"}, "spec": []}):
        for kind in KINDS.values():
            decode_value(kind, odd)
