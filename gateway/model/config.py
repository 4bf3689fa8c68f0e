"""The root of the configuration."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from gateway.model.cluster import Cluster
from gateway.model.listener import Limits, Listener
from gateway.model.policy import RateLimit, Redis, redact_url
from gateway.model.route import GRPCRoute, HTTPRoute, TCPRoute, TLSRoute
from gateway.model.scalars import Doc, Duration, Part, PortNumber, encode_hook


class Admin(Part, frozen=True):
    """The admin port: health, metrics, dashboard, debug."""

    address: Annotated[str, Doc("host:port; keep it on loopback unless something guards it")] = "127.0.0.1:9901"


class AccessLog(Part, frozen=True):
    """One line for each exchange."""

    format: Literal["json", "text", "off"] = "json"
    path: Annotated[str, Doc("stdout or a file; a file is reopened on SIGUSR1")] = "stdout"
    sample: Annotated[float, Meta(ge=0, le=1), Doc("Share of successful requests that are logged; failures always are")] = 1.0


class Drain(Part, frozen=True):
    """How the gateway leaves."""

    delay: Annotated[Duration, Doc("Readiness fails and listeners stay open this long")] = Duration(5000)
    timeout: Annotated[Duration, Doc("Then open exchanges have this long to end")] = Duration(30_000)


class ConfigMaps(Part, frozen=True):
    """Which ConfigMaps carry configuration."""

    label_selector: str = "isthmus.io/config=true"


class IngressPorts(Part, frozen=True):
    """Where Ingresses are served."""

    http: PortNumber = 80
    https: PortNumber = 443


class EastWest(Part, frozen=True):
    """Every Service by its name: <service>.<namespace>, and with .svc and .svc.<clusterDomain> behind."""

    ports: Annotated[tuple[PortNumber, ...], Doc("Ports to listen on; none: no Service is reachable by its name")] = ()
    cluster_domain: str = "cluster.local"


class Bind(Part, frozen=True):
    """A port of a Gateway that is another one here."""

    gateway: Annotated[str, Meta(pattern=r"^[-a-z0-9.]+/[-a-z0-9.]+$"), Doc("namespace/name")]
    port: Annotated[PortNumber, Doc("Of its listeners")]
    bind: Annotated[PortNumber, Doc("What is listened on; the Service of its address leads there")]


class Kubernetes(Part, frozen=True):
    """Configuration out of the API server."""

    enabled: Annotated[bool, Doc("Watch the API server: in-cluster, or by kubeconfig")] = False
    kubeconfig: str | None = None
    controller_name: str = "isthmus.io/gateway-controller"
    ingress_class: str = "isthmus"
    namespaces: Annotated[tuple[str, ...], Doc("Empty: all")] = ()
    config_maps: ConfigMaps = ConfigMaps()
    ingress_ports: IngressPorts = IngressPorts()
    binds: Annotated[tuple[Bind, ...], Doc("Keeps apart Gateways that have addresses of their own and the same ports")] = ()
    east_west: EastWest = EastWest()
    zone: Annotated[str, Doc("Zone that this gateway runs in, for topology hints; left out: that of the node NODE_NAME")] = ""
    service: Annotated[
        Annotated[str, Meta(pattern=r"^(|[-a-z0-9.]+/[-a-z0-9.]+)$")],
        Doc(
            "namespace/name of the gateway's own Service: statuses of Gateways and Ingresses show its addresses, and a rate limit "
            "of mode local is shared among its ready pods"
        ),
    ] = ""
    addresses: Annotated[
        tuple[str, ...], Doc("What they show when that Service has none, or none is named: IP addresses, host names")
    ] = ()
    cache: Annotated[
        str | None,
        Doc("File of the objects that were known last, private keys among them (mode 0600); for a start without an API server"),
    ] = None


class Config(Part, frozen=True):
    """A whole configuration, decoded and not yet built. Everything in it is frozen and hashable."""

    admin: Admin = Admin()
    workers: Annotated[
        Annotated[int, Meta(ge=1, le=1024)] | Literal["auto"], Doc("auto: the CPUs that the cgroup grants; or a number")
    ] = "auto"
    access_log: AccessLog = AccessLog()
    redis: Redis | None = None
    limits: Limits = Limits()
    drain: Drain = Drain()
    listeners: tuple[Listener, ...] = ()
    routes: tuple[HTTPRoute | GRPCRoute | TLSRoute | TCPRoute, ...] = ()
    rate_limits: tuple[RateLimit, ...] = ()
    clusters: tuple[Cluster, ...] = ()
    kubernetes: Kubernetes = Kubernetes()


LISTS = ("listeners", "routes", "rateLimits", "clusters")
"""Root keys that join over several files and whose items carry a name that stands once."""


def redact(config: Config) -> dict[str, Any]:
    """The configuration in force as plain values for the admin port: defaults filled in, what is empty left out, no secrets."""
    plain: dict[str, Any] = _without_empty(msgspec.to_builtins(config, enc_hook=encode_hook))
    if config.redis is not None:
        plain["redis"]["url"] = redact_url(config.redis.url)
    return plain


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_empty(item) for key, item in value.items() if item is not None and item != "" and item != ()}
    if isinstance(value, tuple | list):
        return [_without_empty(item) for item in value]
    return value
