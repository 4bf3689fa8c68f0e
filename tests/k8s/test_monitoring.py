"""k8s/monitoring: what is scraped is there, and alerts ask for metrics that the gateway has."""

from __future__ import annotations

import json
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


def check_query(expr: str, where: str) -> set[str]:
    """Metrics and labels of a query are the gateway's; the labels that it groups by."""
    asked = set(re.findall(r"\bisthmus_\w+", expr))
    names = {name if name in NAMES else re.sub(r"_(bucket|sum|count)$", "", name) for name in asked}
    assert names and names <= NAMES.keys(), where
    histograms = {name for name in names if NAMES[name].kind == "histogram"}
    assert not histograms & asked, f"{where}: a histogram is asked for by its buckets, sum or count"
    assert expr.count("(") == expr.count(")") and expr.count("{") == expr.count("}"), where
    given = {label for name in names for label in NAMES[name].labels} | {"namespace", "pod", "instance", "job"}
    given |= {"le"} if histograms else set()
    grouped = {label.strip() for group in re.findall(r"by \(([^)]*)\)", expr) for label in group.split(",")}
    selected = {label for inside in re.findall(r"{(.*?)}", expr) for label in re.findall(r"(\w+)\s*[=!]", inside)}
    assert grouped | selected <= given, where
    rated = set(re.findall(r"(?:rate|increase)\((isthmus_\w+)", expr))
    kinds = {NAMES[name].kind if name in NAMES else "histogram" for name in rated}
    assert kinds <= {"counter", "histogram"}, f"{where}: a gauge has no rate"
    counters = {name for name in names if NAMES[name].kind == "counter"}
    assert counters <= rated, f"{where}: a counter alone says nothing"
    return grouped or given


def test_alerts_ask_for_metrics_and_labels_that_there_are(objects: list[Object]) -> None:
    rules = [rule for group in of(objects, "PrometheusRule")["spec"]["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        known = check_query(rule["expr"], rule["alert"])
        told = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert told <= known, rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning", "info")


def test_the_dashboard_asks_for_metrics_that_there_are(objects: list[Object]) -> None:
    found = of(objects, "ConfigMap", "isthmus-dashboard")
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    dashboard = json.loads(found["data"]["dashboard.json"])
    variables = {each["name"] for each in dashboard["templating"]["list"]}
    panels = [each for each in dashboard["panels"] if each["type"] != "row"]
    assert len({each["id"] for each in dashboard["panels"]}) == len(dashboard["panels"])
    assert len({each["title"] for each in panels}) >= len(panels) - 1
    queries = 0
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24 and panel["datasource"]["uid"] == "$datasource"
        for target in panel["targets"]:
            queries += 1
            known = check_query(target["expr"], panel["title"])
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= known, panel["title"]
            used = set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval"}
            assert used == {"namespace"} <= variables, panel["title"]
    assert queries > 40
    assert re.findall(r"isthmus_\w+", json.dumps(dashboard["templating"])) == ["isthmus_build_info"] * 2
