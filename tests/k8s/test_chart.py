"""helm/isthmus: the chart makes the objects of k8s/, field by field, and what it adds is as good."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from manifests import OVERLAYS, ROOT, Build, Object

import gateway

CHART = ROOT / "helm" / "isthmus"
RELEASES = {"edge": "isthmus", "east-west": "isthmus-east-west", "egress": "isthmus-egress"}

# Helm's library starts threads of its own, so it has a process of its own.
RENDER = """
import json, sys
import helm_python
chart, name, values = sys.argv[1:]
with helm_python.Chart.load(chart) as loaded:
    print("\\n---\\n".join(loaded.render(json.loads(values), name=name, namespace=name).values()))
"""

Values = dict[str, Any]
Render = Callable[[str, Values], list[Object]]


@cache
def rendered(name: str, values: str) -> str:
    if shutil.which("helm"):
        command = ["helm", "template", name, str(CHART), "--namespace", name, "--values", "-"]
    else:
        command = [sys.executable, "-c", RENDER, str(CHART), name, values]
    done = subprocess.run(command, input=values, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def render() -> Render:
    """The objects of a release, by its name and values."""
    if not shutil.which("helm") and importlib.util.find_spec("helm_python") is None:
        pytest.skip("there is no Helm: neither `helm` nor the extra `charts` is installed")
    return lambda name, values: [each for each in yaml.safe_load_all(rendered(name, json.dumps(values))) if each]


def values_of(border: str) -> Values:
    return {} if border == "edge" else yaml.safe_load((CHART / f"{border}.yaml").read_text())


def comparable(objects: list[Object]) -> dict[tuple[str, str], Object]:
    """(kind, name) -> the object without its own labels, with what is not written as what it means."""
    found = {}
    for each in objects:
        metadata = {key: value for key, value in each["metadata"].items() if key != "labels"}
        copy = {**each, "metadata": metadata}
        if each["kind"] == "ConfigMap":
            copy["data"] = {name: yaml.safe_load(text) if name.endswith(".yaml") else text for name, text in each["data"].items()}
        found[each["kind"], metadata["name"]] = copy
    return found


@pytest.mark.parametrize("border", OVERLAYS)
def test_the_chart_makes_what_the_overlay_makes(build: Build, render: Render, border: str) -> None:
    chart = comparable(render(RELEASES[border], values_of(border)))
    overlay = comparable([each for each in build(f"overlays/{border}") if each["kind"] != "Namespace"])
    assert chart.keys() == overlay.keys()
    for key, wanted in overlay.items():
        assert chart[key] == wanted, key


@pytest.mark.parametrize("border", OVERLAYS)
def test_kubernetes_takes_every_object_of_the_chart(render: Render, border: str) -> None:
    for each in render(RELEASES[border], values_of(border)):
        assert each["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"
        if not each["apiVersion"].startswith(("gateway.networking", "monitoring.coreos")):
            kubernetes_validate.validate(each, "1.37", strict=True)


@pytest.mark.parametrize("border", ["edge", "east-west"])
def test_monitoring_is_that_of_the_overlay(build: Build, render: Render, border: str) -> None:
    """Under the names of the release, since releases may share a namespace."""
    name = RELEASES[border]
    without = {(each["kind"], each["metadata"]["name"]) for each in render(name, values_of(border))}
    objects = render(name, {**values_of(border), "monitoring": {"enabled": True}})
    added = {each["kind"]: each for each in objects if (each["kind"], each["metadata"]["name"]) not in without}
    overlay = {each["kind"]: each for each in build(f"overlays/{border}/monitoring")}
    assert added.keys() == overlay.keys()
    assert added["PrometheusRule"]["spec"] == overlay["PrometheusRule"]["spec"]
    assert added["Service"]["spec"] == overlay["Service"]["spec"]
    assert added["ServiceMonitor"]["spec"]["endpoints"] == overlay["ServiceMonitor"]["spec"]["endpoints"]
    chosen = added["ServiceMonitor"]["spec"]["selector"]["matchLabels"]
    found = [each for each in objects if each["kind"] == "Service" and chosen.items() <= each["metadata"]["labels"].items()]
    assert [each["metadata"]["name"] for each in found] == [f"{name}-admin"]
    dashboards = [json.loads(each["ConfigMap"]["data"]["dashboard.json"]) for each in (added, overlay)]
    assert dashboards[0] == dashboards[1]
    assert added["ConfigMap"]["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_files_of_the_chart_are_those_of_the_overlays() -> None:
    """Helm reads nothing outside of a chart."""
    for path in (CHART / "files").iterdir():
        assert path.read_bytes() == (ROOT / "k8s" / "monitoring" / path.name).read_bytes(), path.name


@pytest.mark.parametrize("border", OVERLAYS)
def test_values_are_as_their_schema_says(border: str) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(values_of(border), schema)
    whole = yaml.safe_load((CHART / "values.yaml").read_text())
    jsonschema.validate(whole, schema)
    assert whole.keys() == schema["properties"].keys() - {"global"}
    for key, inside in schema["properties"].items():
        if inside.get("additionalProperties") is False:
            assert whole[key].keys() == inside["properties"].keys(), key


@pytest.mark.parametrize(
    "values",
    [
        {"monitorring": {"enabled": True}},
        {"monitoring": {"enabled": "yes"}},
        {"service": {"type": "loadbalancer"}},
        {"ports": []},
        {"ports": [{"name": "http", "port": 70000}]},
        {"ports": [{"name": "a-name-that-is-too-long", "port": 80}]},
        {"autoscaling": {"minReplicas": 0}},
        {"gateway": {"listeners": [{"name": "x"}]}},
        {"config": "x"},
    ],
)
def test_values_that_make_no_sense_are_refused(values: Values) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, schema)


def test_rights_in_some_namespaces_alone(render: Render) -> None:
    objects = render("gw", {"config": {"kubernetes": {"namespaces": ["shop", "blog"]}}})
    bound = [
        (each["kind"], each["metadata"].get("namespace"), each["roleRef"]["name"])
        for each in objects if each["kind"].endswith("RoleBinding")
    ]  # fmt: skip
    assert sorted(bound, key=str) == [
        ("ClusterRoleBinding", None, "isthmus-cluster-gw"),
        ("RoleBinding", "blog", "isthmus-namespaces-gw"),
        ("RoleBinding", "gw", "isthmus-leader-gw"),
        ("RoleBinding", "shop", "isthmus-namespaces-gw"),
    ]
    for each in objects:
        if each["kind"].endswith("RoleBinding"):
            assert each["subjects"] == [{"kind": "ServiceAccount", "name": "gw", "namespace": "gw"}]


def test_a_port_is_added_in_one_place(render: Render) -> None:
    ports = [{"name": "http", "port": 80}, {"name": "postgres", "port": 5432}]
    objects = {each["kind"]: each for each in render("isthmus", {"ports": ports})}
    container = objects["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    assert {"name": "postgres", "containerPort": 5432} in container["ports"]
    assert {"name": "postgres", "port": 5432, "targetPort": "postgres"} in objects["Service"]["spec"]["ports"]
    assert {"protocol": "TCP", "port": "postgres"} in objects["NetworkPolicy"]["spec"]["ingress"][0]["ports"]


def test_the_chart_has_the_version_of_the_gateway() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == gateway.__version__


def test_values_of_other_borders_are_keys_of_the_chart() -> None:
    """A key that is misspelt would change nothing, in silence."""
    known = yaml.safe_load((CHART / "values.yaml").read_text())
    for path in (CHART / "east-west.yaml", CHART / "egress.yaml"):
        for key, value in yaml.safe_load(Path(path).read_text()).items():
            assert key in known
            if isinstance(value, dict) and key not in ("config", "annotations"):
                assert value.keys() <= known[key].keys()
