"""East-west: Services by their names, and routes whose parent is a Service."""

import pytest
from kube import Cluster, gateway, route, service, to

from gateway.sources.kubernetes.options import Options

MESH = Options(east_west_ports=(8080,))
BOTH = Options(east_west_ports=(80, 8080))


@pytest.mark.parametrize("host", ["web.default", "web.default.svc", "web.default.svc.cluster.local", "web.default:8080"])
def test_every_service_is_reachable_by_its_name(host: str) -> None:
    cluster = Cluster(service("web", 80), service("other", 80, namespace="far"), options=MESH)
    assert cluster.ask("/", host, 8080) == "web:80"
    assert cluster.ask("/", host.replace("web.default", "other.far"), 8080) == "Service/far/other:80"
    assert cluster.ask("/", host.replace("web.", "absent."), 8080) == "404"
    assert cluster.who("/", host, 8080) == "Service/default/web:80[0]"


def test_without_a_port_for_it_nothing_listens() -> None:
    cluster = Cluster(service("web", 80))
    assert cluster.model.listeners == () and cluster.model.routes == ()


def test_the_domain_of_the_cluster_can_be_another() -> None:
    cluster = Cluster(service("web", 80), options=Options(east_west_ports=(8080,), cluster_domain="corp.test"))
    assert cluster.ask("/", "web.default.svc.corp.test", 8080) == "web:80"
    assert cluster.ask("/", "web.default.svc.cluster.local", 8080) == "404"


def test_the_port_of_the_listener_finds_the_port_of_the_service() -> None:
    cluster = Cluster(service("web", 80, 8080), service("one", 9000), options=BOTH)
    assert [cluster.ask("/", "web.default", port) for port in (80, 8080)] == ["web:80", "web:8080"]
    assert [cluster.ask("/", "one.default", port) for port in (80, 8080)] == ["one:9000", "one:9000"]
    named = service("named", 9000, 9001).replace("name: p1", "name: http")
    assert Cluster(named, options=MESH).ask("/", "named.default", 8080) == "named:9001"


def test_an_alias_of_somewhere_else_is_not_followed() -> None:
    alias = "kind: Service\nmetadata: {name: alias}\nspec: {type: ExternalName, externalName: evil.test, ports: [{port: 80}]}"
    assert Cluster(alias, options=MESH).ask("/", "alias.default", 8080) == "404"


SPLIT = "[{matches: [{path: {value: /v2}}], backendRefs: [{name: v2, port: 80}]}]"
PARENT = "[{group: '', kind: Service, name: web}]"


def test_a_route_of_a_service_stands_in_its_place() -> None:
    """MeshHTTPRouteMatching: what its rules do not take is not found any more, whatever the Service has."""
    cluster = Cluster(service("web", 80), service("v2", 80), route("r", SPLIT, PARENT, "[ignored.test]"), options=MESH)
    assert cluster.ask("/v2/x", "web.default", 8080) == "v2:80"
    assert cluster.ask("/v1", "web.default", 8080) == "404"
    assert cluster.ask("/v1", "v2.default", 8080) == "v2:80"
    assert cluster.ask("/v2", "ignored.test", 8080) == "404", "its hostnames mean nothing there"
    assert cluster.conditions("HTTPRoute", "r") == {"Accepted": "True Accepted", "ResolvedRefs": "True ResolvedRefs"}


def test_a_route_of_one_port_leaves_the_others() -> None:
    """MeshPorts."""
    text = route("r", to("v2"), "[{group: '', kind: Service, name: web, port: 80}]")
    cluster = Cluster(service("web", 80, 8080), service("v2", 80), text, options=BOTH)
    assert [cluster.ask("/", "web.default", port) for port in (80, 8080)] == ["v2:80", "web:8080"]


def test_a_route_may_have_a_gateway_and_a_service_as_parents() -> None:
    both = "[{name: gw}, {group: '', kind: Service, name: web}]"
    cluster = Cluster(gateway(), service("web", 80), service("v2", 80), route("r", to("v2"), both, "[shop.test]"), options=MESH)
    assert cluster.ask("/", "shop.test") == "v2:80" and cluster.ask("/", "web.default", 8080) == "v2:80"
    assert cluster.ask("/", "shop.test", 8080) == "404"
    assert [cluster.conditions("HTTPRoute", "r", parent=n)["Accepted"] for n in (0, 1)] == ["True Accepted"] * 2


@pytest.mark.parametrize(
    ("parent", "reason"),
    [
        ("{group: '', kind: Service, name: absent}", "NoMatchingParent"),
        ("{group: '', kind: Service, name: web, port: 81}", "NoMatchingParent"),
        ("{group: '', kind: Service, name: far, namespace: far}", "NotAllowedByListeners"),
    ],
)
def test_services_that_cannot_be_parents(parent: str, reason: str) -> None:
    """A consumer route would hold for the clients of its namespace alone, and a gateway cannot tell whose they are."""
    cluster = Cluster(service("web", 80), service("far", 80, namespace="far"), route("r", to("web"), f"[{parent}]"), options=MESH)
    assert cluster.conditions("HTTPRoute", "r")["Accepted"] == f"False {reason}"
    assert cluster.ask("/", "web.default", 8080) == "web:80"


def test_a_gateway_on_the_same_port_shares_its_listener() -> None:
    listeners = "[{name: http, port: 8080, protocol: HTTP}]"
    cluster = Cluster(gateway(listeners=listeners), service("web", 80), route("r", to("web"), hosts="[shop.test]"), options=MESH)
    assert cluster.ask("/", "web.default", 8080) == "web:80" and cluster.ask("/", "shop.test", 8080) == "web:80"
    assert len(cluster.model.listeners) == 1
