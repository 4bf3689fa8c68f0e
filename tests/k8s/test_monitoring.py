"""k8s/monitoring: what is scraped is there, and alerts ask for metrics that the gateway has."""

from __future__ import annotations

import re

import kubernetes_validate
import pytest
from manifests import Build, Object

from gateway.observe.metrics import TABLE

NAMES = {metric.shown_name: metric for metric in TABLE}


@pytest.fixture(params=["edge", "east-west"])
def objects(request: pytest.FixtureRequest, build: Build) -> list[Object]:
    """An overlay with its monitoring."""
    return [*build(f"overlays/{request.param}"), *build(f"overlays/{request.param}/monitoring")]


def of(objects: list[Object], kind: str, name: str | None = None) -> Object:
    (found,) = [each for each in objects if each["kind"] == kind and name in (None, each["metadata"]["name"])]
    return found


def test_the_monitor_finds_the_service_and_the_service_the_pods(objects: list[Object]) -> None:
    service = of(objects, "Service", "isthmus-admin")
    kubernetes_validate.validate(service, "1.37", strict=True)
    monitor = of(objects, "ServiceMonitor")
    found = [
        each["metadata"]["name"]
        for each in objects
        if each["kind"] == "Service"
        and monitor["spec"]["selector"]["matchLabels"].items() <= each["metadata"]["labels"].items()
    ]
    assert found == ["isthmus-admin"]
    assert [each["port"] for each in monitor["spec"]["endpoints"]] == [each["name"] for each in service["spec"]["ports"]]
    template = of(objects, "Deployment")["spec"]["template"]
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    container = template["spec"]["containers"][0]
    assert service["spec"]["ports"][0]["targetPort"] in {port["name"] for port in container["ports"]}
    together = (service, monitor, of(objects, "PrometheusRule"), of(objects, "Deployment"))
    places = {each["metadata"]["namespace"] for each in together}
    assert len(places) == 1


def test_alerts_ask_for_metrics_and_labels_that_there_are(objects: list[Object]) -> None:
    rules = [rule for group in of(objects, "PrometheusRule")["spec"]["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        names = set(re.findall(r"\bisthmus_\w+", rule["expr"]))
        assert names and names <= NAMES.keys(), rule["alert"]
        assert rule["expr"].count("(") == rule["expr"].count(")")
        given = {label for name in names for label in NAMES[name].labels} | {"namespace", "pod", "instance", "job"}
        grouped = re.findall(r"by \(([^)]*)\)", rule["expr"])
        by = {label.strip() for group in grouped for label in group.split(",")}
        selected = {label for inside in re.findall(r"{(.*?)}", rule["expr"]) for label in re.findall(r"(\w+)\s*[=!]", inside)}
        assert by | selected <= given, rule["alert"]
        told = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert told <= (by if grouped else given), rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
