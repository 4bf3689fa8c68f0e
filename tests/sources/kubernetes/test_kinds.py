"""Kinds: every one decodes what an API server answers, and skips what it does not know."""

import json
from typing import Any

import pytest

from gateway.sources.document import parse
from gateway.sources.kubernetes.kinds import KINDS, kind_of
from gateway.sources.kubernetes.meta import Ref
from gateway.sources.kubernetes.store import decode_bytes

SPECS = """
Namespace: {}
Service:
  spec:
    clusterIP: None
    ipFamilies: [IPv6, IPv4]
    ports: [{port: 80, targetPort: http, appProtocol: kubernetes.io/h2c}]
EndpointSlice:
  addressType: IPv4
  endpoints: [{addresses: [10.0.0.1], conditions: {ready: true}, zone: a, hints: {forZones: [{name: a}]}}]
  ports: [{name: "", port: 8080, protocol: TCP}]
ConfigMap: {data: {a.yaml: x}, binaryData: {b: YWJj}}
Secret: {type: kubernetes.io/tls, data: {tls.crt: YWJj}}
IngressClass: {spec: {controller: isthmus.io/gateway-controller}}
Ingress:
  spec:
    ingressClassName: isthmus
    rules:
    - host: a.b
      http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: s, port: {number: 80}}}}]}
GatewayClass: {spec: {controllerName: isthmus.io/gateway-controller}}
Gateway:
  spec:
    gatewayClassName: isthmus
    listeners: [{name: h, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]
ListenerSet: {spec: {parentRef: {name: g}, listeners: [{name: h, port: 80, protocol: HTTP}]}}
HTTPRoute: {spec: {parentRefs: [{name: g}], rules: [{backendRefs: [{name: s, port: 80}], timeouts: {request: 1s}}]}}
GRPCRoute: {spec: {parentRefs: [{name: g}], rules: [{matches: [{method: {service: a}}]}]}}
TLSRoute: {spec: {parentRefs: [{name: g}], hostnames: [a.b], rules: [{backendRefs: [{name: s, port: 443}]}]}}
TCPRoute: {spec: {parentRefs: [{name: g}], rules: [{backendRefs: [{name: s, port: 5432}]}]}}
ReferenceGrant: {spec: {from: [{group: "", kind: Service, namespace: a}], to: [{group: "", kind: Secret}]}}
BackendTLSPolicy:
  spec:
    targetRefs: [{group: "", kind: Service, name: s}]
    validation: {hostname: a.b, wellKnownCACertificates: System}
"""
VALUES: dict[str, dict[str, Any]] = parse(SPECS, "test")[0].value


@pytest.mark.parametrize("name", sorted(KINDS))
def test_every_kind_decodes(name: str) -> None:
    kind = KINDS[name]
    metadata = {
        "name": "x", "namespace": "ns" if kind.is_namespaced else "", "uid": "u", "generation": 3, "resourceVersion": "9",
        "creationTimestamp": "2024-01-01T00:00:00Z", "labels": {"a": "b"}, "managedFields": [{"manager": "kubectl"}],
    }  # fmt: skip
    value = {"apiVersion": "v1", "kind": name, "metadata": metadata, "status": {"unknown": 1}, **VALUES[name]}
    found = decode_bytes(kind, json.dumps(value).encode())
    assert found.object is not None and not found.findings
    assert found.object.ref == Ref(name, str(metadata["namespace"]), "x")
    assert (found.metadata.generation, found.metadata.resource_version) == (3, "9")
    assert found.object.labels["a"] == "b"


def test_what_is_read_of_the_specs() -> None:
    def read(name: str) -> Any:
        return decode_bytes(KINDS[name], json.dumps({"metadata": {"name": "x"}, **VALUES[name]}).encode()).object

    assert read("Service").spec.cluster_ip == "None" and read("Service").port(80).app_protocol == "kubernetes.io/h2c"
    assert read("EndpointSlice").endpoints[0].hints.for_zones[0].name == "a"
    assert read("ConfigMap").content("b") == b"abc" and read("ConfigMap").content("a.yaml") == b"x"
    assert read("Secret").content("tls.crt") == b"abc" and "abc" not in repr(read("Secret"))
    assert read("Gateway").spec.listeners[0].allowed_routes.namespaces.source == "All"
    assert read("ReferenceGrant").spec.sources[0].namespace == "a"
    assert read("BackendTLSPolicy").spec.validation.well_known_ca_certificates == "System"
    assert read("Namespace").labels == {"kubernetes.io/metadata.name": "x"}
    assert read("HTTPRoute").spec.rules[0].timeouts.request == 1000


@pytest.mark.parametrize(
    ("api_version", "name", "found"),
    [
        ("v1", "Service", True),
        ("gateway.networking.k8s.io/v1", "HTTPRoute", True),
        ("gateway.networking.k8s.io/v1alpha3", "TLSRoute", True),
        ("networking.k8s.io/v1", "Ingress", True),
        ("extensions/v1beta1", "Ingress", False),
        ("example.com/v1", "Gateway", False),
        ("apps/v1", "Deployment", False),
    ],
)
def test_a_kind_is_known_by_group_version_and_name(api_version: str, name: str, found: bool) -> None:
    assert (kind_of(api_version, name) is not None) is found


def test_paths_of_the_api() -> None:
    assert KINDS["HTTPRoute"].api_path(namespace="a") == "/apis/gateway.networking.k8s.io/v1/namespaces/a/httproutes"
    assert KINDS["Service"].api_path() == "/api/v1/services"
    assert KINDS["GatewayClass"].api_path(namespace="a") == "/apis/gateway.networking.k8s.io/v1/gatewayclasses"
