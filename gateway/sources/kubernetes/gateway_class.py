"""GatewayClass: which controller looks after a Gateway."""

from gateway.sources.kubernetes.meta import Object, Read


class ParametersRef(Read, frozen=True):
    """An object with parameters of an implementation. There is none for ours."""

    group: str
    kind: str
    name: str
    namespace: str | None = None


class GatewayClassSpec(Read, frozen=True):
    """Spec of a GatewayClass."""

    controller_name: str = ""
    parameters_ref: ParametersRef | None = None


class GatewayClass(Object, frozen=True):
    """A GatewayClass of gateway.networking.k8s.io."""

    spec: GatewayClassSpec = GatewayClassSpec()
