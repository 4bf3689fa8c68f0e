"""GRPCRoute: an object around the spec that a file's GRPCRoute has too."""

from gateway.model.route import GRPCRouteSpec
from gateway.sources.kubernetes.meta import Object


class GRPCRoute(Object, frozen=True):
    """A GRPCRoute of gateway.networking.k8s.io."""

    spec: GRPCRouteSpec = GRPCRouteSpec()
