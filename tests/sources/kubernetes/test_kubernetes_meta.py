"""Selectors and names."""

import pytest

from gateway.sources.kubernetes.meta import ObjectMeta, Ref, parse_selector
from gateway.sources.kubernetes.service import Service


@pytest.mark.parametrize(
    ("selector", "labels", "taken"),
    [
        ("a=b", {"a": "b"}, True),
        ("a==b", {"a": "b"}, True),
        ("a=b", {"a": "c"}, False),
        ("a!=b", {"a": "c"}, True),
        ("a!=b", {}, True),
        ("a", {"a": ""}, True),
        ("!a", {"a": ""}, False),
        ("a=b, c", {"a": "b", "c": "d"}, True),
        ("", {"x": "y"}, True),
    ],
)
def test_selectors(selector: str, labels: dict[str, str], taken: bool) -> None:
    assert parse_selector(selector).takes(labels) is taken


@pytest.mark.parametrize("text", ["=b", "a b", "!"])
def test_what_is_no_selector(text: str) -> None:
    with pytest.raises(ValueError, match="not part of a label selector"):
        parse_selector(text)


def test_names_of_objects() -> None:
    found = Service(ObjectMeta(name="web", namespace="ns"))
    assert found.ref == Ref("Service", "ns", "web")
    assert (found.ref.text(), found.ref.path()) == ("Service ns/web", "Service/ns/web")
    assert Ref("GatewayClass", "", "c").text() == "GatewayClass c"
    assert (
        Service(ObjectMeta(name="b", creation_timestamp="2020")).age < Service(ObjectMeta(name="a", creation_timestamp="2021")).age
    )
