"""Gateway: listeners, who may attach to them, and what TLS shows and asks."""

from msgspec import field

from gateway.sources.kubernetes.gateway_class import ParametersRef
from gateway.sources.kubernetes.meta import GATEWAY_GROUP, LabelSelector, Object, Read


class ObjectRef(Read, frozen=True):
    """A reference to a Secret or a ConfigMap."""

    name: str
    group: str = ""
    kind: str = "Secret"
    namespace: str | None = None


class RouteNamespaces(Read, frozen=True):
    """Namespaces whose routes may attach."""

    source: str | None = field(name="from", default=None)
    selector: LabelSelector | None = None


class RouteGroupKind(Read, frozen=True):
    """A kind of route."""

    kind: str
    group: str = GATEWAY_GROUP


class AllowedRoutes(Read, frozen=True):
    """Which routes may attach."""

    namespaces: RouteNamespaces = RouteNamespaces()
    kinds: tuple[RouteGroupKind, ...] = ()


class GatewayListenerTLS(Read, frozen=True):
    """How TLS ends, or does not."""

    mode: str = "Terminate"
    certificate_refs: tuple[ObjectRef, ...] = ()
    options: dict[str, str] | None = None


class GatewayListener(Read, frozen=True):
    """A listener of a Gateway or of a ListenerSet."""

    name: str
    port: int
    protocol: str
    hostname: str | None = None
    tls: GatewayListenerTLS | None = None
    allowed_routes: AllowedRoutes = AllowedRoutes()


class GatewayAddress(Read, frozen=True):
    """An address that is asked for, or that was given."""

    type: str = "IPAddress"
    value: str = ""


INSECURE = "AllowInsecureFallback"
"""Mode of FrontendValidation that lets in whoever shows no certificate, or one that fails."""


class FrontendValidation(Read, frozen=True):
    """What is asked of clients' certificates."""

    ca_certificate_refs: tuple[ObjectRef, ...] = ()
    mode: str = "AllowValidOnly"


class FrontendTLS(Read, frozen=True):
    """TLS towards clients."""

    validation: FrontendValidation | None = None


class PortTLS(Read, frozen=True):
    """TLS towards the clients of one port, instead of the default."""

    port: int
    tls: FrontendTLS = FrontendTLS()


class GatewayFrontend(Read, frozen=True):
    """TLS towards clients, for all HTTPS listeners and by port."""

    default: FrontendTLS = FrontendTLS()
    per_port: tuple[PortTLS, ...] = ()


    def insecure(self) -> tuple[str, ...]:
        """Keys below `frontend` of what lets in clients whose certificate fails."""
        chosen = {"default": self.default} | {f"perPort[{number}].tls": each.tls for number, each in enumerate(self.per_port)}
        return tuple(key for key, tls in chosen.items() if tls.validation is not None and tls.validation.mode == INSECURE)


class GatewayBackend(Read, frozen=True):
    """TLS towards backends."""

    client_certificate_ref: ObjectRef | None = None


class GatewayTLS(Read, frozen=True):
    """TLS of a whole Gateway."""

    frontend: GatewayFrontend | None = None
    backend: GatewayBackend | None = None


class AllowedListeners(Read, frozen=True):
    """Which ListenerSets may attach: none unless it says so."""

    namespaces: RouteNamespaces = RouteNamespaces()


class Infrastructure(Read, frozen=True):
    """What goes onto the objects that are made for a Gateway."""

    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    parameters_ref: ParametersRef | None = None


class GatewaySpec(Read, frozen=True):
    """Spec of a Gateway."""

    gateway_class_name: str = ""
    listeners: tuple[GatewayListener, ...] = ()
    addresses: tuple[GatewayAddress, ...] = ()
    infrastructure: Infrastructure | None = None
    allowed_listeners: AllowedListeners | None = None
    tls: GatewayTLS | None = None


class Gateway(Object, frozen=True):
    """A Gateway of gateway.networking.k8s.io."""

    spec: GatewaySpec = GatewaySpec()
