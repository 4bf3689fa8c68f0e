"""EndpointSlice: some of the addresses behind a Service."""

from gateway.sources.kubernetes.meta import Object, Read

SERVICE_LABEL = "kubernetes.io/service-name"


class Conditions(Read, frozen=True):
    """State of an endpoint. What is not said of `ready` and `serving` counts as true."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class ForZone(Read, frozen=True):
    """A zone that should use an endpoint."""

    name: str


class ForNode(Read, frozen=True):
    """A node that should use an endpoint (Service.spec.trafficDistribution PreferSameNode)."""

    name: str


class Hints(Read, frozen=True):
    """Who should use an endpoint."""

    for_zones: tuple[ForZone, ...] = ()
    for_nodes: tuple[ForNode, ...] = ()


class Endpoint(Read, frozen=True):
    """One endpoint. Its addresses are fungible; the first is used."""

    addresses: tuple[str, ...]
    conditions: Conditions = Conditions()
    zone: str | None = None
    hints: Hints | None = None


class EndpointPort(Read, frozen=True):
    """A port of all endpoints of the slice. Its name is that of the Service's port."""

    name: str | None = None
    port: int | None = None
    protocol: str = "TCP"
    app_protocol: str | None = None


class EndpointSlice(Object, frozen=True):
    """An EndpointSlice of discovery.k8s.io."""

    address_type: str = "IPv4"
    endpoints: tuple[Endpoint, ...] | None = None
    ports: tuple[EndpointPort, ...] | None = None

    @property
    def service(self) -> str:
        """Name of the Service that it belongs to; "" for none."""
        return self.labels.get(SERVICE_LABEL, "")
