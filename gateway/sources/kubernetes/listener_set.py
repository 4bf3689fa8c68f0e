"""ListenerSet: more listeners for a Gateway, by somebody else."""

from gateway.sources.kubernetes.gateway import GatewayListener
from gateway.sources.kubernetes.meta import GATEWAY_GROUP, Object, Read


class ParentGateway(Read, frozen=True):
    """The Gateway that the listeners are for."""

    name: str = ""
    group: str = GATEWAY_GROUP
    kind: str = "Gateway"
    namespace: str | None = None


class ListenerSetSpec(Read, frozen=True):
    """Spec of a ListenerSet."""

    parent_ref: ParentGateway = ParentGateway()
    listeners: tuple[GatewayListener, ...] = ()


class ListenerSet(Object, frozen=True):
    """A ListenerSet of gateway.networking.k8s.io."""

    spec: ListenerSetSpec = ListenerSetSpec()
