"""k8s/README.md, East-west: the two ways shown there lead to the Service, with the overlay's configuration and objects."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from kube import Cluster, service, to
from kube import route as http_route
from manifests import ROOT, Build

from gateway.sources.files import load
from gateway.sources.kubernetes.options import Options

PAGE = (ROOT / "k8s" / "README.md").read_text()
REVIEWS = service("reviews", 80, namespace="shop")


@pytest.fixture
def overlay_texts(build: Build) -> list[str]:
    return [f"{yaml.safe_dump(each)}---\n" for each in build("overlays/east-west") if "gateway.networking" in each["apiVersion"]]


@pytest.fixture
def options(build: Build, tmp_path: Path) -> Options:
    (texts,) = [each["data"] for each in build("overlays/east-west") if each["kind"] == "ConfigMap"]
    (tmp_path / "isthmus.yaml").write_text(texts["isthmus.yaml"])
    config = load(tmp_path).config
    assert config is not None
    return Options.of(config.kubernetes)


def test_a_rewritten_name_is_one_that_the_gateway_knows(build: Build, overlay_texts: list[str], options: Options) -> None:
    cluster = Cluster(*overlay_texts, REVIEWS, options=options)
    for host in ("reviews.shop", "reviews.shop.svc", "reviews.shop.svc.cluster.local"):
        assert cluster.ask("/", host) == "Service/shop/reviews:80"
    assert cluster.ask("/", "reviews") == "404"


def test_the_line_for_coredns_rewrites_the_namespace_s_names_to_the_gateway_s_service(build: Build) -> None:
    (line,) = re.findall(r"^rewrite stop name regex (\S+) (\S+) answer auto$", PAGE, re.M)
    pattern, target = line
    assert re.search(pattern, "reviews.shop.svc.cluster.local.")
    assert not re.search(pattern, "reviews.shopping.svc.cluster.local.")
    assert not re.search(pattern, "a.reviews.shop.svc.cluster.local.")  # a pod of a headless Service keeps its address
    assert not re.search(pattern, target)
    (gate,) = [each["metadata"] for each in build("overlays/east-west") if each["kind"] == "Service"]
    assert target == f"{gate['name']}.{gate['namespace']}.svc.cluster.local."


def test_an_external_name_leads_to_what_its_route_says(build: Build, overlay_texts: list[str], options: Options) -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.S | re.M)
    alias, _ = yaml.safe_load_all(block)
    cluster = Cluster(*overlay_texts, block, REVIEWS, options=options)
    for host in ("reviews", "reviews.web", "reviews.web.svc.cluster.local"):
        assert cluster.ask("/", host) == "Service/shop/reviews:80"
    assert cluster.conditions("HTTPRoute", "reviews", "shop") == {"Accepted": "True Accepted", "ResolvedRefs": "True ResolvedRefs"}
    (gate,) = [each["metadata"] for each in build("overlays/east-west") if each["kind"] == "Service"]
    assert alias["spec"]["externalName"] == f"{gate['name']}.{gate['namespace']}.svc.cluster.local"


def test_a_route_of_a_service_applies_to_its_name(overlay_texts: list[str], options: Options) -> None:
    canary = service("canary", 80, namespace="shop")
    parents = '[{group: "", kind: Service, name: reviews}]'
    route = http_route("to-canary", to("canary"), parents, namespace="shop")
    cluster = Cluster(*overlay_texts, REVIEWS, canary, route, options=options)
    assert cluster.ask("/", "reviews.shop") == "Service/shop/canary:80"
