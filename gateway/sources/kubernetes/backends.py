"""References to Services -> clusters, and why some come to nothing.

A cluster is a port of a Service as it is spoken to: by protocol, by the BackendTLSPolicy in force, and by the certificate that a
Gateway shows to backends. A reference that comes to nothing keeps its weight; its share is answered 500.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from gateway.model.cluster import Cluster
from gateway.model.route import BackendObjectRef, BackendRef, GRPCBackendRef, HTTPBackendRef
from gateway.model.tls import ClusterTLS, KeyPair
from gateway.sources.kubernetes.backend_tls_policy import BackendTLSPolicy
from gateway.sources.kubernetes.endpoint_slice import EndpointSlice
from gateway.sources.kubernetes.endpoints import endpoints_of
from gateway.sources.kubernetes.gateway import ObjectRef
from gateway.sources.kubernetes.meta import GATEWAY_GROUP, Ref
from gateway.sources.kubernetes.pairs import KeyFiles, Refused, find_authorities
from gateway.sources.kubernetes.service import Service, ServicePort
from gateway.sources.kubernetes.view import View

AnyBackendRef = HTTPBackendRef | GRPCBackendRef | BackendRef | BackendObjectRef

H2C = ("kubernetes.io/h2c", "grpc", "h2c")
IN_CLEAR = ("kubernetes.io/ws", "http", "ws", "tcp")
IN_TLS = ("kubernetes.io/wss", "https", "wss", "grpcs", "tls")


@dataclass(frozen=True, slots=True)
class Found:
    """A reference that leads somewhere."""

    cluster: str


@dataclass(frozen=True, slots=True)
class Use:
    """How a route speaks to its backends."""

    kind: str = "HTTPRoute"
    pair: KeyFiles | None = None
    """The certificate that is shown to backends."""
    owner: str = ""
    """Whose certificate it is: namespace/name of the Gateway."""
    is_clear: bool = False
    """Of a TLSRoute or TCPRoute: what it carries came out of TLS that ended here."""


@dataclass(frozen=True, slots=True)
class PolicyState:
    """What a BackendTLSPolicy came to."""

    tls: ClusterTLS | None
    refused: tuple[Refused, ...]
    """Of its references; when `tls` is None, why."""
    is_invalid: bool = False
    """It is wrong in itself, apart from its references."""


@dataclass(slots=True)
class ClusterPiece:
    """What a port of a Service came to, and of what; its TLS is of the ground (see memo)."""

    service: Service
    slices: list[EndpointSlice]
    cluster: Cluster


Led = dict[str, tuple[Service, ServicePort, Use]]
"""Name -> what `Backends.cluster` was asked for: a cluster, or "!" and what would have been one."""


@dataclass(slots=True)
class Backends:
    """Resolves references and keeps the clusters that they lead to."""

    view: View
    pieces: dict[str, ClusterPiece] = field(default_factory=dict)
    """Of the translation before, by name of the cluster; brought up to date."""
    are_as_before: bool = False
    """Whether no Service and no EndpointSlice has changed since."""
    clusters: dict[str, Cluster] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    states: dict[Ref, PolicyState] = field(default_factory=dict)
    users: dict[tuple[str, str], set[Ref]] = field(default_factory=dict)
    """(namespace, name) of a Service -> routes that lead there."""
    led: Led = field(default_factory=dict)
    used: list[tuple[str, str]] = field(default_factory=list)
    """(namespace, name) of the Services that references led to. Whoever wants to know puts empty ones here."""

    def resolve(self, source: Ref, ref: AnyBackendRef, use: Use, group: str = GATEWAY_GROUP) -> Found | Refused:
        """The cluster of a reference of a route."""
        if ref.group not in ("", "core") or ref.kind != "Service":
            return Refused("InvalidKind", f"{ref.group + '/' if ref.group else ''}{ref.kind} '{ref.name}' is not a Service")
        target = Ref("Service", ref.namespace or source.namespace, ref.name)
        if not self.view.is_granted(source, group, target):
            message = f"no ReferenceGrant in '{target.namespace}' lets {source.kind}s of '{source.namespace}' refer to it"
            return Refused("RefNotPermitted", message)
        service = self.view.service(target.namespace, target.name)
        if service is None:
            return Refused("BackendNotFound", f"there is no {target.text()}")
        if service.is_external:
            message = f"{target.text()} is of type ExternalName, which may lead anywhere and is not followed"
            return Refused("UnsupportedProtocol", message)
        if ref.port is None:
            return Refused("BackendNotFound", f"a port is needed with {target.text()}")
        port = service.port(ref.port)
        if port is None:
            known = ", ".join(str(each.port) for each in service.spec.ports if each.protocol == "TCP") or "none"
            return Refused("BackendNotFound", f"{target.text()} has no TCP port {ref.port}; it has {known}")
        self.users.setdefault((target.namespace, target.name), set()).add(source)
        self.used.append((target.namespace, target.name))
        return self.cluster(service, port, use)

    def used_again(self, source: Ref, services: Iterable[tuple[str, str]]) -> None:
        """What an object's references led to before, they lead to still: a policy's status asks for who uses a Service."""
        if self.view.policies:
            for place in services:
                self.users.setdefault(place, set()).add(source)

    def again(self, led: Led) -> None:
        """What was asked for before, asked for once more."""
        for name, wanted in led.items():
            if name not in self.clusters and name not in self.refused:
                piece = self.pieces.get(name) if self.are_as_before else None
                # With TLS there is more to be asked for than endpoints.
                if piece is not None and piece.cluster.tls is None and not self.view.policies:
                    self.clusters[name] = piece.cluster
                else:
                    self.cluster(*wanted)

    def cluster(self, service: Service, port: ServicePort, use: Use) -> Found | Refused:
        """The cluster of a port of a Service."""
        name = f"{service.ref.path()}:{port.port}"
        protocol = port.app_protocol or ""
        is_http2 = use.kind == "GRPCRoute" or protocol in H2C
        is_http = use.kind in ("HTTPRoute", "GRPCRoute")
        ends_tls = is_http or use.is_clear
        if is_http and is_http2:
            name += "/h2"
        elif not is_http:
            name += "/tcp"
        policy = self._policy(service, port)
        tls = None
        if policy is not None:
            state = self.state(policy)
            if state.tls is None:
                self._note(f"!{name}", service, port, use)
                return Refused("InvalidBackendTLSPolicy", f"{policy.ref.text()}: {state.refused[0].message}")
            # What a tunnel carries is the client's own; a policy is for who ends TLS.
            tls = state.tls if ends_tls else None
        elif protocol in IN_TLS and ends_tls:
            self._note(f"!{name}", service, port, use)
            message = f"port {port.port} of {service.ref.text()} speaks TLS ({protocol}); no BackendTLSPolicy says how"
            return Refused("UnsupportedProtocol", message)
        if tls is not None and not is_http:
            name += "/tls"
        if tls is not None and use.pair is not None:
            name += f"/as/{use.owner}"
            tls = ClusterTLS(tls.server_name, tls.ca, tls.subject_alt_names, KeyPair(use.pair.cert, use.pair.key))
        if name not in self.clusters:
            self.clusters[name] = self._made(name, service, port, "HTTP2" if is_http and is_http2 else "HTTP1", tls)
        self._note(name, service, port, use)
        return Found(name)

    def _note(self, name: str, service: Service, port: ServicePort, use: Use) -> None:
        self.led[name] = (service, port, use)
        if name.startswith("!"):
            self.refused.add(name)

    def _made(
        self, name: str, service: Service, port: ServicePort, protocol: Literal["HTTP1", "HTTP2"], tls: ClusterTLS | None
    ) -> Cluster:
        slices = self.view.slices.get((service.metadata.namespace, service.metadata.name), [])
        piece = self.pieces.get(name)
        if piece is None or piece.service is not service or piece.slices != slices:
            made = Cluster(name=name, endpoints=endpoints_of(self.view, service, port), protocol=protocol, tls=tls)
            piece = self.pieces[name] = ClusterPiece(service, slices, made)
        return piece.cluster

    def _policy(self, service: Service, port: ServicePort) -> BackendTLSPolicy | None:
        place = (service.metadata.namespace, service.metadata.name)
        for section in (port.name, ""):
            if found := self.view.policies.get((*place, section)):
                return found[0]
        return None

    def state(self, policy: BackendTLSPolicy) -> PolicyState:
        """What a policy says, worked out once."""
        ref = policy.ref
        if ref not in self.states:
            self.states[ref] = self._read_policy(policy)
        return self.states[ref]

    def _read_policy(self, policy: BackendTLSPolicy) -> PolicyState:
        wanted = policy.spec.validation
        refused: list[Refused] = []
        if wanted.ca_certificate_refs:
            refs = tuple(ObjectRef(name=each.name, group=each.group, kind=each.kind) for each in wanted.ca_certificate_refs)
            ca, refused = find_authorities(self.view, policy.ref, refs)
        elif wanted.well_known_ca_certificates == "System":
            ca = "system"
        else:
            what = wanted.well_known_ca_certificates
            message = f"'{what}' is not a set of authorities that is known here" if what else "no authorities are named"
            return PolicyState(None, (Refused("Invalid", message),), is_invalid=True)
        if not ca:
            return PolicyState(None, tuple(refused))
        names = tuple(each.hostname if each.type == "Hostname" else each.uri for each in wanted.subject_alt_names)
        return PolicyState(ClusterTLS(wanted.hostname, ca, names), tuple(refused))
