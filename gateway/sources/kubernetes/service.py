"""Service: a name for endpoints, and the ports that they are reached by."""

from msgspec import field

from gateway.sources.kubernetes.meta import Object, Read


class ServicePort(Read, frozen=True):
    """One port of a Service."""

    port: int
    name: str = ""
    protocol: str = "TCP"
    target_port: int | str | None = None
    app_protocol: str | None = None


class ServiceSpec(Read, frozen=True):
    """What is read of a Service."""

    type: str = "ClusterIP"
    cluster_ip: str = field(name="clusterIP", default="")
    """"None" for a headless one."""
    ip_families: tuple[str, ...] = ()
    """IPv4, IPv6 or both, the preferred one first."""
    external_name: str | None = None
    ports: tuple[ServicePort, ...] = ()


class LoadBalancerIngress(Read, frozen=True):
    """Where a load balancer answers."""

    ip: str | None = None
    hostname: str | None = None


class LoadBalancerStatus(Read, frozen=True):
    """What a cloud gave to a Service of type LoadBalancer."""

    ingress: tuple[LoadBalancerIngress, ...] = ()


class ServiceStatus(Read, frozen=True):
    """What is read of a Service's status."""

    load_balancer: LoadBalancerStatus = LoadBalancerStatus()


class Service(Object, frozen=True):
    """A Service of the core group."""

    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()

    @property
    def is_external(self) -> bool:
        """Whether it is a mere alias of some other name."""
        return self.spec.type == "ExternalName"

    def port(self, number: int) -> ServicePort | None:
        """Its TCP port of this number."""
        return next((each for each in self.spec.ports if each.port == number and each.protocol == "TCP"), None)
