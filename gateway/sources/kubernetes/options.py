"""What a translation is told beside the objects."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.model.config import Kubernetes
from gateway.sources.kubernetes.addresses import addresses_of, is_pending
from gateway.sources.kubernetes.gateway import GatewayAddress
from gateway.sources.kubernetes.store import Store
from gateway.sources.kubernetes.whereabouts import NOWHERE, Whereabouts


@dataclass(frozen=True, slots=True)
class Options:
    """Equal options and equal objects give equal translations."""

    controller_name: str = "isthmus.io/gateway-controller"
    ingress_class: str = "isthmus"
    ingress_port: int = 80
    ingress_tls_port: int = 443
    config_maps: str = "isthmus.io/config=true"
    """Label selector of the ConfigMaps that carry configuration."""
    cluster_domain: str = "cluster.local"
    east_west_ports: tuple[int, ...] = ()
    """Ports on which every Service is reachable by its name; none: it is not."""
    zone: str = ""
    """Where this gateway runs, for topology hints."""
    node: str = ""
    """Likewise."""
    addresses: tuple[GatewayAddress, ...] = ()
    """Where the gateway is reached from outside."""
    needs_address: bool = False
    """Whether a Gateway without an address is not programmed yet."""
    binds: Mapping[tuple[str, str, int], int] = field(default_factory=dict)
    """(namespace and name of a Gateway, port of a listener) -> port to bind, where the two differ."""
    crd_flaw: str = ""
    """What is wrong with the CRDs of Gateway API, in one sentence."""
    taken: Mapping[int, str] = field(default_factory=dict)
    """Port -> who has it already: the listeners of the files."""

    @classmethod
    def of(
        cls,
        kubernetes: Kubernetes,
        *,
        taken: Mapping[int, str] | None = None,
        store: Store | None = None,
        crd_flaw: str = "",
        whereabouts: Whereabouts = NOWHERE,
    ) -> "Options":
        """As the configuration says. store: where the gateway's own Service is looked for. whereabouts: its zone is that of the
        configuration, if it names one."""
        store = store or Store()
        return cls(
            controller_name=kubernetes.controller_name,
            ingress_class=kubernetes.ingress_class,
            ingress_port=kubernetes.ingress_ports.http,
            ingress_tls_port=kubernetes.ingress_ports.https,
            config_maps=kubernetes.config_maps.label_selector,
            cluster_domain=kubernetes.east_west.cluster_domain,
            binds={
                (namespace, name, each.port): each.bind
                for each in kubernetes.binds
                for namespace, _, name in [each.gateway.partition("/")]
            },
            east_west_ports=tuple(sorted(set(kubernetes.east_west.ports))),
            zone=kubernetes.zone or whereabouts.zone,
            node=whereabouts.node,
            addresses=addresses_of(kubernetes, store),
            needs_address=is_pending(kubernetes, store),
            crd_flaw=crd_flaw,
            taken=taken or {},
        )
