"""TCPRoute: an object around the spec that a file's TCPRoute has too."""

from gateway.model.route import TCPRouteSpec
from gateway.sources.kubernetes.meta import Object


class TCPRoute(Object, frozen=True):
    """A TCPRoute of gateway.networking.k8s.io."""

    spec: TCPRouteSpec = TCPRouteSpec()
