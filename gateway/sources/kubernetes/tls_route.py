"""TLSRoute: an object around the spec that a file's TLSRoute has too."""

from gateway.model.route import TLSRouteSpec
from gateway.sources.kubernetes.meta import Object


class TLSRoute(Object, frozen=True):
    """A TLSRoute of gateway.networking.k8s.io."""

    spec: TLSRouteSpec = TLSRouteSpec()
