"""What the GatewayClass says that is served, is served: each feature has a test that would fail without it."""

import re
from pathlib import Path

from gateway.sources.kubernetes.features import supported_features

TESTS = Path(__file__).resolve().parents[2]
GATEWAY = "sources/kubernetes/test_conformance_gateway.py"
HTTP = "sources/kubernetes/test_conformance_http.py"
TLS = "sources/kubernetes/test_conformance_tls.py"
ROUTING = "wire/test_wire_routing.py"
WITNESSES = {
    "BackendTLSPolicy": (TLS, "test_backend_tls_policy"),
    "BackendTLSPolicySANValidation": ("e2e/test_tls_origins.py", "test_nginx_is_verified_by_other_names_and_by_address"),
    "GRPCRoute": (TLS, "test_grpc_exact_method_matching"),
    "GRPCRouteNamedRouteRule": (HTTP, "test_http_route_named_rule_and_timeouts"),
    "GRPCRouteRequestHeaderModifier": ("control/test_grpc.py", "test_filters_and_backends_stay_what_they_are"),
    "Gateway": (GATEWAY, "test_gateway_with_attached_routes"),
    "GatewayAddressEmpty": ("sources/kubernetes/test_live.py", "test_a_gateway_has_the_addresses_of_its_own_service"),
    "GatewayBackendClientCertificate": (GATEWAY, "test_gateway_tls_backend_client_certificate"),
    "GatewayFrontendClientCertificateValidation": (GATEWAY, "test_gateway_frontend_client_certificate_validation"),
    "GatewayFrontendClientCertificateValidationInsecureFallback": (
        "e2e/test_tls_clients.py", "test_who_is_not_verified_is_let_in_as_nobody",
    ),
    "GatewayHTTPListenerIsolation": (HTTP, "test_gateway_http_listener_isolation"),
    "GatewayHTTPSListenerDetectMisdirectedRequests": (
        "wire/test_wire_tls.py", "test_a_request_for_another_listeners_host_is_misdirected",
    ),
    "GatewayPort8080": (GATEWAY, "test_gateway_with_attached_routes"),
    "GatewayStaticAddresses": (GATEWAY, "test_gateway_static_addresses"),
    "HTTPRoute": (HTTP, "test_http_route_simple_same_namespace"),
    "HTTPRoute303RedirectStatusCode": (HTTP, "test_http_route_redirects"),
    "HTTPRoute307RedirectStatusCode": (HTTP, "test_http_route_redirects"),
    "HTTPRoute308RedirectStatusCode": (HTTP, "test_http_route_redirects"),
    "HTTPRouteBackendProtocolH2C": (TLS, "test_app_protocols"),
    "HTTPRouteBackendProtocolWebSocket": (TLS, "test_app_protocols"),
    "HTTPRouteBackendRequestHeaderModification": (HTTP, "test_http_route_rewrites_and_header_modifiers"),
    "HTTPRouteBackendRequestRedirect": (ROUTING, "test_http_route_backend_request_redirect"),
    "HTTPRouteBackendTimeout": (HTTP, "test_http_route_named_rule_and_timeouts"),
    "HTTPRouteBackendURLRewrite": (ROUTING, "test_http_route_backend_url_rewrite"),
    "HTTPRouteCORS": ("wire/test_wire_cors.py", "test_http_route_cors_simple_request"),
    "HTTPRouteDestinationPortMatching": (HTTP, "test_http_route_invalid_parent_refs"),
    "HTTPRouteHostRewrite": (HTTP, "test_http_route_rewrites_and_header_modifiers"),
    "HTTPRouteMethodMatching": (HTTP, "test_http_route_other_matches"),
    "HTTPRouteNamedRouteRule": (HTTP, "test_http_route_named_rule_and_timeouts"),
    "HTTPRouteParentRefPort": (HTTP, "test_http_route_listener_port_matching"),
    "HTTPRoutePathRedirect": (HTTP, "test_http_route_redirects"),
    "HTTPRoutePathRewrite": (HTTP, "test_http_route_rewrites_and_header_modifiers"),
    "HTTPRoutePortRedirect": (HTTP, "test_http_route_redirects"),
    "HTTPRouteQueryParamMatching": (HTTP, "test_http_route_other_matches"),
    "HTTPRouteRequestMirror": ("wire/test_wire_mirror.py", "test_http_route_request_mirror"),
    "HTTPRouteRequestMultipleMirrors": ("wire/test_wire_mirror.py", "test_http_route_request_multiple_mirrors"),
    "HTTPRouteRequestPercentageMirror": ("wire/test_wire_mirror.py", "test_http_route_request_percentage_mirror"),
    "HTTPRouteRequestTimeout": (HTTP, "test_http_route_named_rule_and_timeouts"),
    "HTTPRouteResponseHeaderModification": (HTTP, "test_http_route_rewrites_and_header_modifiers"),
    "HTTPRouteRetry": ("e2e/test_retries.py", "test_d16_exactly_the_configured_tries_for_a_code"),
    "HTTPRouteRetryBackendTimeout": ("e2e/test_retries.py", "test_a_timed_out_attempt_goes_to_another_endpoint"),
    "HTTPRouteRetryConnectionError": ("e2e/test_retries.py", "test_d16_exactly_the_configured_tries_for_an_origin_that_resets"),
    "HTTPRouteSchemeRedirect": (HTTP, "test_http_route_redirects"),
    "ListenerSet": (GATEWAY, "test_listener_set_http_routing_and_parent_refs"),
    "ReferenceGrant": (HTTP, "test_http_route_reference_grant"),
    "TCPRoute": (TLS, "test_tcp_route_attaches_everywhere_and_weighs"),
    "TLSRoute": (TLS, "test_tls_route_simple_same_namespace"),
    "TLSRouteModeMixed": (TLS, "test_tls_route_mixed_termination_same_namespace"),
    "TLSRouteModeTerminate": (TLS, "test_tls_route_terminate_simple_same_namespace"),
}  # fmt: skip
NOT_SERVED = {
    "GatewayInfrastructurePropagation": "all Gateways share one data plane: no object is made for any of them",
    "UDPRoute": "no datagrams",
}


def test_each_feature_has_a_witness() -> None:
    assert set(supported_features()) == set(WITNESSES)
    for feature, (file, name) in WITNESSES.items():
        text = (TESTS / file).read_text()
        assert re.search(rf"^(async )?def {name}\(", text, re.M), f"{feature}: there is no {name} in {file}"


def test_features_stand_in_order_and_once() -> None:
    assert list(supported_features()) == sorted(set(supported_features()))
    assert not set(supported_features()) & set(NOT_SERVED)
