"""The features of Gateway API that are served, by their names there. What the data plane has not yet is left out by itself."""

from gateway.model.cluster import Cluster
from gateway.model.served import cluster_gap, filter_gap

_ALWAYS = (
    "BackendTLSPolicy",
    "BackendTLSPolicySANValidation",
    "Gateway",
    "GatewayAddressEmpty",
    "GatewayBackendClientCertificate",
    "GatewayFrontendClientCertificateValidation",
    "GatewayHTTPListenerIsolation",
    "GatewayPort8080",
    "GatewayStaticAddresses",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteBackendProtocolWebSocket",
    "HTTPRouteBackendRequestHeaderModification",
    "HTTPRouteBackendTimeout",
    "HTTPRouteHostRewrite",
    "HTTPRouteMethodMatching",
    "HTTPRouteNamedRouteRule",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteRequestTimeout",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteSchemeRedirect",
    "ListenerSet",
    "ReferenceGrant",
    "TCPRoute",
    "TLSRoute",
)
_BY_FILTER = {
    "RequestMirror": ("HTTPRouteRequestMirror", "HTTPRouteRequestMultipleMirrors", "HTTPRouteRequestPercentageMirror"),
    "CORS": ("HTTPRouteCORS",),
}
_WITH_HTTP2 = ("GRPCRoute", "GRPCRouteNamedRouteRule", "HTTPRouteBackendProtocolH2C")


def supported_features() -> tuple[str, ...]:
    """In order, as the status of a GatewayClass wants them."""
    found = [*_ALWAYS]
    for kind, names in _BY_FILTER.items():
        if filter_gap(kind) is None:
            found += names
    if cluster_gap(Cluster(name="", protocol="HTTP2")) is None:
        found += _WITH_HTTP2
    return tuple(sorted(found))
