"""Where the gateway says that it is reached."""

import pytest
from kube import store_of

from gateway.model.config import Kubernetes
from gateway.sources.kubernetes.addresses import addresses_of, is_pending

OWN = """
kind: Service
metadata: {{name: own, namespace: here}}
spec: {{type: {}, clusterIP: {}, ports: [{{port: 80}}]}}
status: {{loadBalancer: {{ingress: [{}]}}}}
"""
GIVEN = '{ip: 192.0.2.1}, {hostname: lb.test}, {ip: "2001:db8::1"}, {ip: 192.0.2.1}'


@pytest.mark.parametrize(
    ("service", "configured", "found", "pending"),
    [
        (("LoadBalancer", "10.96.0.1", GIVEN), (), ["192.0.2.1", "lb.test", "2001:db8::1"], False),
        (("LoadBalancer", "10.96.0.1", GIVEN), ("198.51.100.1",), ["192.0.2.1", "lb.test", "2001:db8::1"], False),
        (("LoadBalancer", "10.96.0.1", ""), (), [], True),
        (("LoadBalancer", "10.96.0.1", ""), ("198.51.100.1", "edge.test"), ["198.51.100.1", "edge.test"], False),
        (("ClusterIP", "10.96.0.1", ""), (), ["10.96.0.1"], False),
        (("ClusterIP", "10.96.0.1", ""), ("edge.test",), ["edge.test"], False),
        (("ClusterIP", "None", ""), (), [], False),
        (None, (), [], False),
        (None, ("edge.test",), ["edge.test"], False),
    ],
)
def test_addresses(service: tuple[str, str, str] | None, configured: tuple[str, ...], found: list[str], pending: bool) -> None:
    store = store_of(*([OWN.format(*service)] if service else []))
    settings = Kubernetes(service="here/own", addresses=configured)
    addresses = addresses_of(settings, store)
    assert [each.value for each in addresses] == found and is_pending(settings, store) is pending
    kinds = {each.value: each.type for each in addresses}
    assert all(kinds[value] == ("Hostname" if value.endswith(".test") else "IPAddress") for value in found)


def test_another_service_is_not_ours() -> None:
    store = store_of(OWN.format("LoadBalancer", "10.96.0.1", GIVEN))
    assert addresses_of(Kubernetes(), store) == () and addresses_of(Kubernetes(service="other/own"), store) == ()
