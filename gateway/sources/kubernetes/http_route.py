"""HTTPRoute: an object around the spec that a file's HTTPRoute has too."""

from gateway.model.route import HTTPRouteSpec
from gateway.sources.kubernetes.meta import Object


class HTTPRoute(Object, frozen=True):
    """A HTTPRoute of gateway.networking.k8s.io."""

    spec: HTTPRouteSpec = HTTPRouteSpec()
