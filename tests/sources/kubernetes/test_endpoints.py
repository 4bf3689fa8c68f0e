"""Which addresses of a Service are used."""

from typing import Any

import pytest

from gateway.model.cluster import EndpointSpec
from gateway.sources.kubernetes.endpoint_slice import Conditions, Endpoint, EndpointPort, EndpointSlice, ForNode, ForZone, Hints
from gateway.sources.kubernetes.endpoints import endpoints_of
from gateway.sources.kubernetes.meta import ObjectMeta, Ref
from gateway.sources.kubernetes.options import Options
from gateway.sources.kubernetes.service import Service, ServicePort, ServiceSpec
from gateway.sources.kubernetes.store import Store
from gateway.sources.kubernetes.translate import translate_endpoints
from gateway.sources.kubernetes.view import View

PORT = ServicePort(port=80, name="http", target_port="web")
READY, GONE = Conditions(ready=True), Conditions(ready=False)
LEAVING = Conditions(ready=False, serving=True, terminating=True)
DEAD = Conditions(ready=False, serving=False, terminating=True)


def at(address: str, conditions: Conditions = READY, zone: str | None = None, hints: str = "", node: str = "") -> Endpoint:
    nodes = (ForNode(node),) if node else ()
    return Endpoint((address,), conditions, zone, Hints((ForZone(hints),), nodes) if hints else None)


def slice_of(
    name: str, *endpoints: Endpoint, port: int | None = 8080, port_name: str | None = "http", family: str = "IPv4"
) -> EndpointSlice:
    metadata = ObjectMeta(name=name, namespace="ns", labels={"kubernetes.io/service-name": "web"})
    return EndpointSlice(metadata, family, endpoints, (EndpointPort(port_name, port),))


def used(*slices: EndpointSlice, zone: str = "", node: str = "", port: ServicePort = PORT, **spec: Any) -> list[str]:
    service = Service(ObjectMeta(name="web", namespace="ns"), ServiceSpec(ports=(port,), **spec))
    found = endpoints_of(View(Store().add(service, *slices), Options(zone=zone, node=node)), service, port)
    return [each.address for each in found]


def test_ready_ones_are_used_in_a_stable_order() -> None:
    assert used(slice_of("b", at("10.0.0.3"), at("10.0.0.1")), slice_of("a", at("10.0.0.2"), at("10.0.0.9", GONE))) == [
        "10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080",
    ]  # fmt: skip


def test_what_is_not_said_counts_as_ready() -> None:
    assert used(slice_of("a", at("10.0.0.1", Conditions()))) == ["10.0.0.1:8080"]


def test_pods_that_leave_serve_when_nobody_else_does() -> None:
    assert used(slice_of("a", at("10.0.0.1", LEAVING), at("10.0.0.2"))) == ["10.0.0.2:8080"]
    assert used(slice_of("a", at("10.0.0.1", LEAVING), at("10.0.0.2", DEAD), at("10.0.0.3", GONE))) == ["10.0.0.1:8080"]
    assert used(slice_of("a", at("10.0.0.2", DEAD))) == []


def test_an_address_in_two_slices_is_one_endpoint() -> None:
    assert used(slice_of("a", at("10.0.0.1", GONE)), slice_of("b", at("10.0.0.1"))) == ["10.0.0.1:8080"]


def test_ports_are_found_by_name_and_may_differ_from_slice_to_slice() -> None:
    """Named target ports: pods may have the name on different numbers."""
    slices = (
        slice_of("a", at("10.0.0.1"), port=8080),
        slice_of("b", at("10.0.0.2"), port=9090),
        slice_of("c", at("10.0.0.3"), port_name="other"),
    )
    assert used(*slices) == ["10.0.0.1:8080", "10.0.0.2:9090"]
    assert used(slice_of("a", at("10.0.0.1"), port=None)) == []


@pytest.mark.parametrize("port_name", ["", None])
def test_a_manual_slice_without_names(port_name: str | None) -> None:
    """HTTPRouteServiceTypes: manual EndpointSlices, headless Services."""
    plain = ServicePort(port=80)
    assert used(slice_of("a", at("10.0.0.1"), port_name=port_name), port=plain, cluster_ip="None") == ["10.0.0.1:8080"]


def test_of_two_families_the_preferred_one_is_used() -> None:
    slices = slice_of("a", at("10.0.0.1")), slice_of("b", at("fd00::1"), family="IPv6")
    assert used(*slices) == ["10.0.0.1:8080"]
    assert used(*slices, ip_families=("IPv6", "IPv4")) == ["[fd00::1]:8080"]
    assert used(slices[1], ip_families=("IPv4", "IPv6")) == ["[fd00::1]:8080"]
    assert used(slice_of("c", at("example.test"), family="FQDN")) == []


def test_hints_count_when_everyone_has_one() -> None:
    near, far = at("10.0.0.1", zone="a", hints="a"), at("10.0.0.2", zone="b", hints="b")
    assert used(slice_of("s", near, far), zone="a") == ["10.0.0.1:8080"]
    assert used(slice_of("s", near, far), zone="c") == ["10.0.0.1:8080", "10.0.0.2:8080"], "a zone that nobody is for"
    assert used(slice_of("s", near, far)) == ["10.0.0.1:8080", "10.0.0.2:8080"]
    assert len(used(slice_of("s", near, far, at("10.0.0.3", zone="b")), zone="a")) == 3, "one without a hint"


def test_hints_for_this_node_come_before_those_for_its_zone() -> None:
    """Service.spec.trafficDistribution: PreferSameNode."""
    places = (("a", "n1"), ("a", "n2"), ("b", "n3"))
    here, near, far = (at(f"10.0.0.{number}", zone=zone, hints=zone, node=node) for number, (zone, node) in enumerate(places))
    found = slice_of("s", here, near, far)
    assert used(found, zone="a", node="n1") == ["10.0.0.0:8080"]
    assert used(found, zone="a", node="n9") == ["10.0.0.0:8080", "10.0.0.1:8080"], "none of them is for this node"
    assert used(found, zone="c", node="n3") == ["10.0.0.2:8080"]
    assert len(used(found, zone="c", node="n9")) == 3
    assert len(used(slice_of("s", here, at("10.0.0.9", zone="a", hints="a")), zone="a", node="n1")) == 2, "one is for no node"


def test_the_zone_goes_with_the_endpoint_and_a_service_alone_can_be_asked_for() -> None:
    service = Service(
        ObjectMeta(name="web", namespace="ns"), ServiceSpec(ports=(PORT, ServicePort(port=53, protocol="UDP", name="dns")))
    )
    store = Store().add(service, slice_of("a", at("10.0.0.1", zone="z")))
    found = translate_endpoints(store, Options(), Ref("Service", "ns", "web"))
    assert found == {"Service/ns/web:80": (EndpointSpec("10.0.0.1:8080", zone="z"),)}
    assert translate_endpoints(store, Options(), Ref("Service", "ns", "absent")) == {}
