"""Where the gateway is reached from outside: what its own Service says, else what the configuration says."""

import ipaddress

from gateway.model.config import Kubernetes
from gateway.sources.kubernetes.gateway import GatewayAddress
from gateway.sources.kubernetes.service import Service
from gateway.sources.kubernetes.store import Store


def own_service(kubernetes: Kubernetes, store: Store) -> Service | None:
    """The Service in front of this gateway; None when none is named, or not there."""
    namespace, _, name = kubernetes.service.partition("/")
    return store.get(Service, namespace, name) if name else None


def addresses_of(kubernetes: Kubernetes, store: Store) -> tuple[GatewayAddress, ...]:
    """In the order in which they are written. A Service of type LoadBalancer has what it was given, another one its cluster IP."""
    found: list[GatewayAddress] = []
    service = own_service(kubernetes, store)
    if service is not None and service.spec.type == "LoadBalancer":
        for each in service.status.load_balancer.ingress:
            found += [address(value) for value in (each.ip, each.hostname) if value]
    if found or kubernetes.addresses:
        return tuple(dict.fromkeys(found or (address(each) for each in kubernetes.addresses)))
    if service is not None and service.spec.type != "LoadBalancer" and service.spec.cluster_ip not in ("", "None"):
        return (address(service.spec.cluster_ip),)
    return ()


def is_pending(kubernetes: Kubernetes, store: Store) -> bool:
    """Whether there will be an address, as soon as somebody gives the Service one."""
    service = own_service(kubernetes, store)
    return service is not None and service.spec.type == "LoadBalancer" and not addresses_of(kubernetes, store)


def address(value: str) -> GatewayAddress:
    """An IP address or a host name."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return GatewayAddress(type="Hostname", value=value)
    return GatewayAddress(type="IPAddress", value=value)
