"""The kinds of objects that are read: where the API server has them, and the struct of each."""

from dataclasses import dataclass

from gateway.sources.kubernetes.backend_tls_policy import BackendTLSPolicy
from gateway.sources.kubernetes.config_map import ConfigMap
from gateway.sources.kubernetes.endpoint_slice import EndpointSlice
from gateway.sources.kubernetes.gateway import Gateway
from gateway.sources.kubernetes.gateway_class import GatewayClass
from gateway.sources.kubernetes.grpc_route import GRPCRoute
from gateway.sources.kubernetes.http_route import HTTPRoute
from gateway.sources.kubernetes.ingress import Ingress, IngressClass
from gateway.sources.kubernetes.listener_set import ListenerSet
from gateway.sources.kubernetes.meta import GATEWAY_GROUP, Object
from gateway.sources.kubernetes.namespace import Namespace
from gateway.sources.kubernetes.reference_grant import ReferenceGrant
from gateway.sources.kubernetes.secret import Secret
from gateway.sources.kubernetes.service import Service
from gateway.sources.kubernetes.tcp_route import TCPRoute
from gateway.sources.kubernetes.tls_route import TLSRoute


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind."""

    type: type[Object]
    group: str
    versions: tuple[str, ...]
    """Versions that decode alike, the preferred one first."""
    plural: str
    is_namespaced: bool = True
    is_required: bool = True
    """Whether every API server has it; the others may come with a CRD."""

    @property
    def name(self) -> str:
        return self.type.__name__

    def api_path(self, version: str = "", namespace: str = "") -> str:
        """Path of its lists, such as /apis/gateway.networking.k8s.io/v1/namespaces/default/httproutes."""
        version = version or self.versions[0]
        base = f"/apis/{self.group}/{version}" if self.group else f"/api/{version}"
        within = f"/namespaces/{namespace}" if namespace and self.is_namespaced else ""
        return f"{base}{within}/{self.plural}"


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(Namespace, "", ("v1",), "namespaces", is_namespaced=False),
        Kind(Service, "", ("v1",), "services"),
        Kind(EndpointSlice, "discovery.k8s.io", ("v1",), "endpointslices"),
        Kind(ConfigMap, "", ("v1",), "configmaps"),
        Kind(Secret, "", ("v1",), "secrets"),
        Kind(IngressClass, "networking.k8s.io", ("v1",), "ingressclasses", is_namespaced=False),
        Kind(Ingress, "networking.k8s.io", ("v1",), "ingresses"),
        Kind(GatewayClass, GATEWAY_GROUP, ("v1", "v1beta1"), "gatewayclasses", is_namespaced=False, is_required=False),
        Kind(Gateway, GATEWAY_GROUP, ("v1", "v1beta1"), "gateways", is_required=False),
        Kind(ListenerSet, GATEWAY_GROUP, ("v1",), "listenersets", is_required=False),
        Kind(HTTPRoute, GATEWAY_GROUP, ("v1", "v1beta1"), "httproutes", is_required=False),
        Kind(GRPCRoute, GATEWAY_GROUP, ("v1",), "grpcroutes", is_required=False),
        Kind(TLSRoute, GATEWAY_GROUP, ("v1", "v1alpha3", "v1alpha2"), "tlsroutes", is_required=False),
        Kind(TCPRoute, GATEWAY_GROUP, ("v1", "v1alpha2"), "tcproutes", is_required=False),
        Kind(ReferenceGrant, GATEWAY_GROUP, ("v1", "v1beta1"), "referencegrants", is_required=False),
        Kind(BackendTLSPolicy, GATEWAY_GROUP, ("v1", "v1alpha3"), "backendtlspolicies", is_required=False),
    )
}
"""By name."""

ROUTE_KINDS = ("HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute")


def kind_of(api_version: str, name: str) -> Kind | None:
    """The kind of an object by what it says of itself; None for one that is not read, or not in this version."""
    kind = KINDS.get(name)
    group, _, version = api_version.rpartition("/")
    if kind is None or kind.group != group or version not in kind.versions:
        return None
    return kind
