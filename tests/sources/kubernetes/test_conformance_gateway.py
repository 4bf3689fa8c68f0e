"""Gateways, ListenerSets, Secrets and grants as the official conformance tests want them."""

from typing import Any

import pytest
from kube import CLASS, Cluster, authorities, gateway, make_pair, route, secret, service, to

from gateway.model.config import Bind, Kubernetes
from gateway.sources.kubernetes.features import supported_features
from gateway.sources.kubernetes.gateway import GatewayAddress
from gateway.sources.kubernetes.options import Options

WEB = service("web", 80)
PAIR = make_pair("example.org", "*.example.org")
HTTPS = "[{name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [%s]}}]"


def kinds(cluster: Cluster, listener: str, of: str = "gw", kind: str = "Gateway") -> list[str]:
    return [each.kind for each in cluster.listener(listener, of, kind).supported_kinds]


def test_gateway_listener_unsupported_protocol() -> None:
    """GatewayListenerUnsupportedProtocol."""
    only = Cluster(gateway(listeners="[{name: invalid, port: 80, protocol: SCTP}]"))
    assert only.conditions("Gateway", "gw")["Accepted"] == "False ListenersNotValid"
    assert only.listener_conditions("invalid")["Accepted"] == "False UnsupportedProtocol"
    assert kinds(only, "invalid") == []
    listeners = """
  - {name: http, port: 80, protocol: HTTP, allowedRoutes: {kinds: [{kind: HTTPRoute}]}}
  - {name: udp, port: 53, protocol: UDP}"""
    both = Cluster(gateway(listeners=listeners), WEB, route("r", to("web")))
    assert both.conditions("Gateway", "gw") == {"Accepted": "True ListenersNotValid", "Programmed": "True Programmed"}
    assert kinds(both, "http") == ["HTTPRoute"] and both.listener_conditions("http")["Accepted"] == "True Accepted"
    assert both.listener_conditions("udp")["Accepted"] == "False UnsupportedProtocol" and both.ask("/") == "web:80"


@pytest.mark.parametrize("more", ["infrastructure: {parametersRef: {group: example.com, kind: Thing, name: t}}"])
def test_gateway_invalid_parameters_ref(more: str) -> None:
    """GatewayInvalidParametersRef."""
    cluster = Cluster(gateway(more=more), WEB, route("r", to("web")))
    assert cluster.conditions("Gateway", "gw") == {"Accepted": "False InvalidParameters", "Programmed": "False Invalid"}
    assert cluster.ask("/") == "no-port"


@pytest.mark.parametrize(
    ("allowed", "supported", "resolved"),
    [
        ("[{kind: Unknown}]", [], "False InvalidRouteKinds"),
        ("[{kind: Unknown}, {kind: HTTPRoute}]", ["HTTPRoute"], "False InvalidRouteKinds"),
        ("[{group: example.com, kind: HTTPRoute}]", [], "False InvalidRouteKinds"),
        ("[{kind: TLSRoute}]", [], "False InvalidRouteKinds"),
        ("[{kind: GRPCRoute}]", ["GRPCRoute"], "True ResolvedRefs"),
        ("[]", ["HTTPRoute", "GRPCRoute"], "True ResolvedRefs"),
    ],
)
def test_gateway_invalid_route_kind(allowed: str, supported: list[str], resolved: str) -> None:
    """GatewayInvalidRouteKind."""
    cluster = Cluster(gateway(listeners=f"[{{name: http, port: 80, protocol: HTTP, allowedRoutes: {{kinds: {allowed}}}}}]"))
    assert kinds(cluster, "http") == supported
    assert cluster.listener_conditions("http")["ResolvedRefs"] == resolved


@pytest.mark.parametrize(
    ("ref", "reason"),
    [
        ("{name: absent}", "InvalidCertificateRef"),
        ("{group: wrong.group.company.io, kind: Secret, name: good}", "InvalidCertificateRef"),
        ("{kind: WrongKind, name: good}", "InvalidCertificateRef"),
        ("{name: malformed}", "InvalidCertificateRef"),
        ("{name: empty}", "InvalidCertificateRef"),
        ("{name: swapped}", "InvalidCertificateRef"),
        ("{name: far, namespace: web}", "RefNotPermitted"),  # GatewaySecretMissingReferenceGrant
    ],
)
def test_gateway_invalid_tls_configuration(ref: str, reason: str) -> None:
    """GatewayInvalidTLSConfiguration: the listener is closed, and says why."""
    malformed = 'kind: Secret\nmetadata: {name: malformed}\nstringData: {tls.crt: "Hello", tls.key: "World"}\n---\n'
    empty = 'kind: Secret\nmetadata: {name: empty}\nstringData: {tls.crt: ""}\n---\n'
    swapped = secret("swapped", (PAIR[0], make_pair("x.test")[1]))
    cluster = Cluster(
        gateway(listeners=HTTPS % ref), WEB, route("r", to("web")),
        secret("good", PAIR), malformed, empty, swapped, secret("far", PAIR, "web"),
    )  # fmt: skip
    conditions = cluster.listener_conditions("https")
    assert (conditions["ResolvedRefs"], conditions["Programmed"]) == (f"False {reason}", "False Invalid")
    assert cluster.ask("/", port=443) == "no-port"
    assert cluster.listener("https").attached_routes == 1, "GatewayWithAttachedRoutes: whatever is wrong with the listener"


def test_http_route_https_listener() -> None:
    """HTTPRouteHTTPSListener, and one bad reference beside a good one."""
    cluster = Cluster(gateway(listeners=HTTPS % "{name: s}, {name: absent}"), WEB, secret("s", PAIR), route("r", to("web")))
    assert cluster.ask("/", "example.org", port=443) == "web:80"
    assert cluster.translation.pems == {"Secret/default/s/tls.crt": PAIR[0].encode(), "Secret/default/s/tls.key": PAIR[1].encode()}
    conditions = cluster.listener_conditions("https")
    assert conditions == {
        "Accepted": "True Accepted", "Programmed": "True Programmed", "ResolvedRefs": "False InvalidCertificateRef",
        "Conflicted": "False NoConflicts",
    }  # fmt: skip
    assert {("Secret", "default", "s"), ("Secret", "default", "absent")} <= cluster.translation.wanted


SECRET_GRANT = """
kind: ReferenceGrant
metadata: {{name: grant, namespace: {namespace}}}
spec:
  from: [{{group: gateway.networking.k8s.io, kind: {kind}, namespace: default}}]
  to: [{{group: "", kind: Secret{name}}}]
"""


@pytest.mark.parametrize(
    ("grant", "resolved"),
    [
        ({}, True),  # GatewaySecretReferenceGrantAllInNamespace
        ({"name": ", name: s"}, True),  # GatewaySecretReferenceGrantSpecific
        ({"name": ", name: other"}, False),  # GatewaySecretInvalidReferenceGrant
        ({"kind": "HTTPRoute"}, False),
        ({"namespace": "default"}, False),
    ],
)
def test_gateway_secret_reference_grants(grant: dict[str, str], resolved: bool) -> None:
    text = SECRET_GRANT.format(**{"namespace": "web", "kind": "Gateway", "name": ""} | grant)
    cluster = Cluster(gateway(listeners=HTTPS % "{name: s, namespace: web}"), secret("s", PAIR, "web"), text)
    assert cluster.listener_conditions("https")["ResolvedRefs"] == ("True ResolvedRefs" if resolved else "False RefNotPermitted")
    assert cluster.listener_conditions("https")["Programmed"] == ("True Programmed" if resolved else "False Invalid")


def test_gateway_with_attached_routes() -> None:
    """GatewayWithAttachedRoutes: those of every allowed namespace, by sectionName, unresolved references or not."""
    listeners = """
  - {name: one, port: 80, protocol: HTTP, hostname: one.test, allowedRoutes: {namespaces: {from: All}}}
  - name: two
    port: 80
    protocol: HTTP
    hostname: two.test
    allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {team: a}}}}"""
    names = "\n---\n".join(f"kind: Namespace\nmetadata: {{name: {name}, labels: {{team: {name}}}}}" for name in ("a", "b"))
    parent = "[{name: gw, namespace: default}]"
    cluster = Cluster(
        gateway(listeners=listeners), names,
        route("r1", to("nothing"), parent, namespace="a"),
        route("r2", to("nothing"), parent, namespace="b"),
        route("r3", to("nothing"), "[{name: gw, namespace: default, sectionName: two}]", namespace="a"),
    )  # fmt: skip
    assert {name: cluster.listener(name).attached_routes for name in ("one", "two")} == {"one": 2, "two": 2}
    assert cluster.conditions("HTTPRoute", "r2", "b")["Accepted"] == "True Accepted"


@pytest.mark.parametrize(
    ("selector", "allowed"),
    [
        ("{matchLabels: {team: a}}", True),
        ("{matchLabels: {team: b}}", False),
        ("{matchExpressions: [{key: team, operator: In, values: [a, c]}]}", True),
        ("{matchExpressions: [{key: team, operator: NotIn, values: [a]}]}", False),
        ("{matchExpressions: [{key: stage, operator: DoesNotExist}]}", True),
        ("{matchExpressions: [{key: team, operator: Exists}, {key: stage, operator: Exists}]}", False),
        ("{matchLabels: {kubernetes.io/metadata.name: a}}", True),
        ("{matchExpressions: [{key: team, operator: Unheard}]}", False),
    ],
)
def test_namespaces_are_selected_by_their_labels(selector: str, allowed: bool) -> None:
    listeners = (
        f"[{{name: http, port: 80, protocol: HTTP, allowedRoutes: {{namespaces: {{from: Selector, selector: {selector}}}}}}}]"
    )
    there = route("r", to("web"), "[{name: gw, namespace: default}]", namespace="a")
    cluster = Cluster(gateway(listeners=listeners), "kind: Namespace\nmetadata: {name: a, labels: {team: a}}", there)
    expected = "True Accepted" if allowed else "False NotAllowedByListeners"
    assert cluster.conditions("HTTPRoute", "r", "a")["Accepted"] == expected


@pytest.mark.parametrize(
    ("listeners", "conflict"),
    [
        ("[{name: a, port: 80, protocol: HTTP}, {name: b, port: 80, protocol: HTTP}]", "HostnameConflict"),
        (
            "[{name: a, port: 80, protocol: HTTP, hostname: X.test}, {name: b, port: 80, protocol: HTTP, hostname: x.test}]",
            "HostnameConflict",
        ),
        ("[{name: a, port: 80, protocol: HTTP}, {name: b, port: 80, protocol: TCP}]", "ProtocolConflict"),
        ("[{name: a, port: 80, protocol: TCP}, {name: b, port: 80, protocol: TCP}]", "ProtocolConflict"),
        ("[{name: a, port: 80, protocol: HTTP}, {name: b, port: 80, protocol: TLS, tls: {mode: Passthrough}}]", "ProtocolConflict"),
    ],
)
def test_of_listeners_that_conflict_none_wins(listeners: str, conflict: str) -> None:
    third = ", {name: c, port: 81, protocol: HTTP}]"
    cluster = Cluster(gateway(listeners=listeners[:-1] + third))
    for name in ("a", "b"):
        found = cluster.listener_conditions(name)
        assert (found["Conflicted"], found["Accepted"], found["Programmed"]) == (
            f"True {conflict}",
            f"False {conflict}",
            "False Invalid",
        )
    assert cluster.listener_conditions("c")["Conflicted"] == "False NoConflicts"
    assert cluster.conditions("Gateway", "gw")["Accepted"] == "True ListenersNotValid"
    assert [each.port for each in cluster.translation.listeners] == [81]


def test_tls_that_ends_and_tls_that_passes_share_a_port() -> None:
    """GatewayHTTPSAndTLSPassthroughSamePort."""
    listeners = """
  - {name: ends, port: 443, protocol: HTTPS, hostname: example.org, tls: {certificateRefs: [{name: s}]}}
  - {name: passes, port: 443, protocol: TLS, hostname: "*.pass.test", tls: {mode: Passthrough}}"""
    cluster = Cluster(gateway(listeners=listeners), secret("s", PAIR))
    assert cluster.conditions("Gateway", "gw") == {"Accepted": "True Accepted", "Programmed": "True Programmed"}
    assert len(cluster.model.ports) == 1


def test_gateways_that_cannot_share_a_port() -> None:
    """The younger one is told that the port is not to be had."""
    first = gateway("first").replace("generation: 1", 'generation: 1, creationTimestamp: "2020-01-01T00:00:00Z"')
    second = gateway("second", "[{name: tcp, port: 80, protocol: TCP}]").replace(
        "generation: 1", 'generation: 1, creationTimestamp: "2021-01-01T00:00:00Z"'
    )
    cluster = Cluster(second, first, options=Options(taken={9000: "listener 'admin' of the files"}))
    assert cluster.listener_conditions("http", "first")["Programmed"] == "True Programmed"
    assert cluster.listener_conditions("tcp", "second")["Accepted"] == "False PortUnavailable"
    assert cluster.listener_conditions("tcp", "second")["Programmed"] == "False PortUnavailable"
    taken = Cluster(gateway(), options=Options(taken={80: "listener 'web' of the files"}))
    assert taken.listener_conditions("http")["Accepted"] == "False PortUnavailable"
    assert taken.conditions("Gateway", "gw")["Accepted"] == "False ListenersNotValid"


def test_gateway_observed_generation_bump() -> None:
    """GatewayObservedGenerationBump, GatewayClassObservedGenerationBump."""
    text = gateway().replace("generation: 1", "generation: 9")
    cluster = Cluster(CLASS.replace("{name: isthmus}", "{name: isthmus, generation: 4}"), text)
    status: Any = cluster.translation.statuses["Gateway", "default", "gw"]  # type: ignore[index]
    assert {each.observed_generation for each in (*status.conditions, *status.listeners[0].conditions)} == {9}
    class_status: Any = cluster.translation.statuses["GatewayClass", "", "isthmus"]  # type: ignore[index]
    told = [(each.type, each.status, each.observed_generation) for each in class_status.conditions]
    assert told == [("Accepted", "True", 4), ("SupportedVersion", "True", 4)]
    assert [each.name for each in class_status.supported_features] == sorted(set(supported_features()))


def test_a_class_with_parameters_is_not_accepted() -> None:
    text = f"{CLASS.strip()[:-1]}, parametersRef: {{group: a.b, kind: C, name: d}}}}"
    cluster = Cluster(text, gateway())
    assert cluster.conditions("GatewayClass", "isthmus") == {"Accepted": "False InvalidParameters"}
    assert ("Gateway", "default", "gw") not in cluster.translation.statuses


def test_gateway_static_addresses() -> None:
    """GatewayStaticAddresses, GatewayOptionalAddressValue."""
    options = Options(
        addresses=(GatewayAddress("IPAddress", "192.0.2.1"), GatewayAddress("Hostname", "lb.test")), needs_address=True
    )

    def read(addresses: str, with_: Options = options) -> tuple[dict[str, str], list[str]]:
        cluster = Cluster(gateway(more=f"addresses: {addresses}"), options=with_)
        status: Any = cluster.translation.statuses["Gateway", "default", "gw"]  # type: ignore[index]
        return cluster.conditions("Gateway", "gw"), [each.value for each in status.addresses]

    good = {"Accepted": "True Accepted", "Programmed": "True Programmed"}
    assert read("[]") == (good, ["192.0.2.1", "lb.test"])
    assert read("[{type: IPAddress, value: 192.0.2.1}]") == (good, ["192.0.2.1"])
    assert read("[{type: IPAddress}]") == (good, ["192.0.2.1", "lb.test"])
    assert read("[{value: 203.0.113.9}]")[0]["Programmed"] == "False AddressNotUsable"
    assert read("[{type: test/fake, value: x}]")[0]["Accepted"] == "False UnsupportedAddress"
    assert read("[]", Options(needs_address=True))[0]["Programmed"] == "False AddressNotAssigned"


def test_a_gateway_with_ports_of_its_own_has_the_addresses_that_it_says() -> None:
    binds = (Bind("default/inner", 80, 10080),)
    options = Kubernetes(binds=binds, addresses=("192.0.2.1",))
    inner = gateway("inner", more="addresses: [{value: 192.0.2.2}]")
    cluster = Cluster(gateway("edge"), inner, options=Options.of(options))
    for name, address in (("edge", "192.0.2.1"), ("inner", "192.0.2.2")):
        status: Any = cluster.translation.statuses["Gateway", "default", name]  # type: ignore[index]
        assert [each.value for each in status.addresses] == [address]
        assert cluster.conditions("Gateway", name)["Programmed"] == "True Programmed"


def test_overlapping_hosts_are_told() -> None:
    """GatewayOverlappingTLSConfig: of listeners of one port that share hosts and speak TLS, and of no others."""
    tls = "tls: {certificateRefs: [{name: s}]}"
    listeners = f"""
  - {{name: wild, port: 443, protocol: HTTPS, hostname: "*.a.test", {tls}}}
  - {{name: one, port: 443, protocol: HTTPS, hostname: x.a.test, {tls}}}
  - {{name: apart, port: 443, protocol: HTTPS, hostname: b.test, {tls}}}
  - {{name: elsewhere, port: 8443, protocol: HTTPS, hostname: x.a.test, {tls}}}
  - {{name: ends, port: 444, protocol: HTTPS, hostname: "*.c.test", {tls}}}
  - {{name: passes, port: 444, protocol: TLS, hostname: x.c.test, tls: {{mode: Passthrough}}}}
  - {{name: alone, port: 444, protocol: TLS, hostname: d.test, tls: {{mode: Passthrough}}}}
  - {{name: plain, port: 80, protocol: HTTP}}
  - {{name: plainer, port: 80, protocol: HTTP, hostname: x.a.test}}"""
    cluster = Cluster(gateway(listeners=listeners), secret("s", PAIR))
    names = ("wild", "one", "apart", "elsewhere", "ends", "passes", "alone", "plain", "plainer")
    told = {name: cluster.listener_conditions(name) for name in names}
    assert {name: found.get("OverlappingTLSConfig") for name, found in told.items()} == dict.fromkeys(names) | {
        "wild": "True OverlappingHostnames", "one": "True OverlappingHostnames",
        "ends": "True OverlappingHostnames", "passes": "True OverlappingHostnames",
    }  # fmt: skip
    assert all(found["Programmed"] == "True Programmed" for found in told.values())


def test_gateway_name_maximum_length() -> None:
    """GatewayNameMaximumLength."""
    name = "a" * 253
    cluster = Cluster(gateway(name), WEB, route("r", to("web"), f"[{{name: {name}}}]"))
    assert cluster.ask("/") == "web:80"


# --- certificates of clients and towards backends ---

FRONTEND = """tls: {frontend: {default: {validation: {caCertificateRefs: [%s]%s}}, perPort: [%s]}}"""
TWO = """
  - {name: http, port: 80, protocol: HTTP}
  - {name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: s}]}}
  - {name: other, port: 8443, protocol: HTTPS, tls: {certificateRefs: [{name: s}]}}"""
CA = "{group: '', kind: ConfigMap, name: ca}"


def test_gateway_frontend_client_certificate_validation() -> None:
    """GatewayFrontendClientCertificateValidation: a default, and one port that differs."""
    other = "{port: 8443, tls: {validation: {caCertificateRefs: [{group: '', kind: ConfigMap, name: ca2}]}}}"
    cluster = Cluster(
        gateway(listeners=TWO, more=FRONTEND % (CA, "", other)),
        secret("s", PAIR),
        authorities("ca", PAIR[0]),
        authorities("ca2", PAIR[0]),
    )
    found = {each.port: each.tls.client_certificate for each in cluster.translation.listeners if each.tls}
    assert {port: (each.ca, each.mode) for port, each in found.items() if each} == {
        443: ("ConfigMap/default/ca/ca.crt", "require"), 8443: ("ConfigMap/default/ca2/ca.crt", "require"),
    }  # fmt: skip
    assert cluster.translation.pems["ConfigMap/default/ca/ca.crt"].startswith(b"-----BEGIN CERTIFICATE-----")


@pytest.mark.parametrize(
    ("ref", "reason"),
    [
        ("{group: '', kind: ConfigMap, name: absent}", "InvalidCACertificateRef"),
        ("{group: '', kind: ConfigMap, name: bad}", "InvalidCACertificateRef"),
        ("{group: '', kind: Thing, name: ca}", "InvalidCACertificateKind"),
        ("{group: '', kind: ConfigMap, name: ca, namespace: web}", "RefNotPermitted"),
    ],
)
def test_gateway_frontend_invalid_default_client_certificate_validation(ref: str, reason: str) -> None:
    """GatewayFrontendInvalidDefaultClientCertificateValidation: HTTPS alone is hit by it."""
    bad = "kind: ConfigMap\nmetadata: {name: bad}\ndata: {ca.crt: nonsense}"
    cluster = Cluster(
        gateway(listeners=TWO, more=FRONTEND % (ref, "", "")),
        secret("s", PAIR),
        bad,
        WEB,
        route("r", to("web")),
        authorities("ca", PAIR[0], "web"),
    )
    assert cluster.ask("/") == "web:80" and cluster.ask("/", port=443) == "no-port"
    found = cluster.listener_conditions("https")
    assert (found["ResolvedRefs"], found["Accepted"]) == (f"False {reason}", "False NoValidCACertificate")
    assert found["Programmed"] == "False Invalid"
    assert cluster.listener_conditions("http") | {"Conflicted": ""} == {
        "Accepted": "True Accepted", "Programmed": "True Programmed", "ResolvedRefs": "True ResolvedRefs", "Conflicted": "",
    }  # fmt: skip


STRICT = "{port: 8443, tls: {validation: {caCertificateRefs: [%s]}}}"
LAX = "{port: 8443, tls: {validation: {caCertificateRefs: [%s], mode: AllowInsecureFallback}}}"


@pytest.mark.parametrize(
    ("mode", "other", "modes", "keys"),
    [
        (", mode: AllowInsecureFallback", "", {443: "insecureFallback", 8443: "insecureFallback"}, "default:"),
        (", mode: AllowInsecureFallback", STRICT % CA, {443: "insecureFallback", 8443: "require"}, "default:"),
        ("", LAX % CA, {443: "require", 8443: "insecureFallback"}, "perPort[0].tls:"),
        ("", "", {443: "require", 8443: "require"}, None),
    ],
)
def test_gateway_frontend_client_certificate_validation_insecure_fallback(
    mode: str, other: str, modes: dict[int, str], keys: str | None
) -> None:
    """GatewayFrontendClientCertificateValidationInsecureFallback: by port, and the Gateway says so as long as it is so."""
    cluster = Cluster(gateway(listeners=TWO, more=FRONTEND % (CA, mode, other)), secret("s", PAIR), authorities("ca", PAIR[0]))
    found = {each.port: each.tls.client_certificate for each in cluster.translation.listeners if each.tls}
    assert {port: each.mode for port, each in found.items() if each} == modes
    status: Any = cluster.translation.statuses["Gateway", "default", "gw"]  # type: ignore[index]
    told = [each for each in status.conditions if each.type == "InsecureFrontendValidationMode"]
    said = [each for each in cluster.translation.problems if each.key == "spec.tls.frontend"]
    assert [(each.status, each.reason) for each in told] == ([("True", "ConfigurationChanged")] if keys else [])
    assert all(each.message.startswith(keys or "nothing") for each in told)
    assert [each.severity for each in said] == ["warning"] * len(told)
    assert cluster.conditions("Gateway", "gw")["Programmed"] == "True Programmed"


def test_what_lets_anybody_in_still_needs_authorities() -> None:
    """Without any the listener would know nobody for ever: it is refused as any other."""
    ref = "{group: '', kind: ConfigMap, name: absent}"
    cluster = Cluster(gateway(listeners=TWO, more=FRONTEND % (ref, ", mode: AllowInsecureFallback", "")), secret("s", PAIR))
    assert cluster.listener_conditions("https")["Accepted"] == "False NoValidCACertificate"


def test_an_unknown_mode_of_validation_is_not_guessed_at() -> None:
    text = gateway(listeners=TWO, more=FRONTEND % (CA, ", mode: AllowAll", ""))
    cluster = Cluster(text, secret("s", PAIR), authorities("ca", PAIR[0]))
    assert cluster.listener_conditions("https")["Accepted"] == "False UnsupportedValue"


@pytest.mark.parametrize(
    ("ref", "reason"),
    [
        ("{name: absent}", "InvalidClientCertificateRef"),
        ("{group: example.com, kind: Secret, name: s}", "InvalidClientCertificateRef"),
        ("{kind: Thing, name: s}", "InvalidClientCertificateRef"),
        ("{name: far, namespace: web}", "RefNotPermitted"),
    ],
)
def test_gateway_invalid_tls_backend_configuration(ref: str, reason: str) -> None:
    """GatewayInvalidTLSBackendConfiguration."""
    cluster = Cluster(gateway(more=f"tls: {{backend: {{clientCertificateRef: {ref}}}}}"), secret("far", PAIR, "web"))
    assert cluster.conditions("Gateway", "gw") == {
        "Accepted": "True Accepted", "Programmed": "True Programmed", "ResolvedRefs": f"False {reason}",
    }  # fmt: skip


POLICY = """
kind: BackendTLSPolicy
metadata: {name: p}
spec:
  targetRefs: [{group: "", kind: Service, name: web}]
  validation: {hostname: example.org, wellKnownCACertificates: System}
---
"""


def test_gateway_tls_backend_client_certificate() -> None:
    """GatewayTLSBackendClientCertificate: each Gateway shows its own, on connections of its own."""
    cluster = Cluster(
        gateway(more="tls: {backend: {clientCertificateRef: {name: s}}}"),
        gateway("plain", "[{name: http, port: 81, protocol: HTTP}]"),
        secret("s", PAIR), WEB, POLICY, route("r", to("web"), "[{name: gw}, {name: plain}]"),
    )  # fmt: skip
    assert (cluster.ask("/", port=80), cluster.ask("/", port=81)) == ("web:80/as/default/gw", "web:80")
    pairs = {each.name: each.tls and each.tls.client_certificate for each in cluster.translation.clusters}
    assert pairs["Service/default/web:80"] is None
    shown = pairs["Service/default/web:80/as/default/gw"]
    assert shown is not None and (shown.cert, shown.key) == ("Secret/default/s/tls.crt", "Secret/default/s/tls.key")
    assert cluster.conditions("Gateway", "gw")["ResolvedRefs"] == "True ResolvedRefs"


# --- ListenerSets ---


def listener_set(
    name: str, listeners: str, *, namespace: str = "default", parent: str = "{name: gw, namespace: default}", created: str = "null"
) -> str:
    return f"""
kind: ListenerSet
metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: {created}}}
spec:
  parentRef: {parent}
  listeners: {listeners}
---
"""


ONE = "[{name: own, port: 8080, protocol: HTTP}]"


@pytest.mark.parametrize(
    ("allowed", "accepted"),
    [
        ("", False),  # ListenerSetDefaultNotAllowed
        ("allowedListeners: {namespaces: {from: None}}", False),  # ListenerSetAllowedNamespaceNone
        ("allowedListeners: {namespaces: {from: Same}}", False),  # ListenerSetAllowedNamespaceSame
        ("allowedListeners: {namespaces: {from: All}}", True),
        ("allowedListeners: {namespaces: {from: Selector, selector: {matchLabels: {team: a}}}}", True),  # ...Selector
    ],
)
def test_listener_set_allowed_namespaces(allowed: str, accepted: bool) -> None:
    names = "kind: Namespace\nmetadata: {name: team-a, labels: {team: a}}"
    parent = "[{kind: ListenerSet, name: more}]"
    cluster = Cluster(
        gateway(more=allowed), names, listener_set("more", ONE, namespace="team-a"),
        service("app", 80, namespace="team-a"), route("r", to("app"), parent, namespace="team-a"),
    )  # fmt: skip
    status: Any = cluster.translation.statuses["Gateway", "default", "gw"]  # type: ignore[index]
    if accepted:
        assert cluster.conditions("ListenerSet", "more", "team-a") == {"Accepted": "True Accepted", "Programmed": "True Programmed"}
        assert cluster.ask("/", port=8080) == "Service/team-a/app:80" and status.attached_listener_sets == 1
        assert cluster.listener("own", "more", "ListenerSet", "team-a").attached_routes == 1
    else:
        assert cluster.conditions("ListenerSet", "more", "team-a") == {
            "Accepted": "False NotAllowed",
            "Programmed": "False NotAllowed",
        }
        assert cluster.ask("/", port=8080) == "no-port" and status.attached_listener_sets == 0
        assert cluster.conditions("HTTPRoute", "r", "team-a")["Accepted"] == "False NoMatchingParent"


ALL = "allowedListeners: {namespaces: {from: All}}"


def test_listener_set_http_routing_and_parent_refs() -> None:
    """ListenerSetHTTPRouting, ListenerSetDualParentRefIndependence, ListenerSetGatewayParentSectionNameNotFound."""
    cluster = Cluster(
        gateway(more=ALL), listener_set("more", ONE), WEB,
        route("set", to("web"), "[{kind: ListenerSet, name: more}]"),
        route(
            "dual",
            "[{matches: [{path: {value: /dual}}], backendRefs: [{name: web, port: 80}]}]",
            "[{name: gw}, {kind: ListenerSet, name: more, sectionName: nothing}]",
        ),
        route("lost", to("web"), "[{name: gw, sectionName: own}]"),
    )  # fmt: skip
    assert (cluster.ask("/", port=80), cluster.ask("/", port=8080)) == ("404", "web:80")
    assert (cluster.ask("/dual", port=80), cluster.who("/dual", port=8080)) == ("web:80", "HTTPRoute/default/set[0]")
    assert cluster.conditions("HTTPRoute", "dual", parent=0)["Accepted"] == "True Accepted"
    assert cluster.conditions("HTTPRoute", "dual", parent=1)["Accepted"] == "False NoMatchingParent"
    assert cluster.conditions("HTTPRoute", "lost")["Accepted"] == "False NoMatchingParent", "a Gateway's listeners are its own only"
    assert cluster.listener("http").attached_routes == 1 and cluster.listener("own", "more", "ListenerSet").attached_routes == 1


@pytest.mark.parametrize(
    ("other", "conflict"),
    [
        ("{name: b, port: 80, protocol: HTTP, hostname: b.test}", "HostnameConflict"),
        ("{name: b, port: 82, protocol: TCP}", "ProtocolConflict"),
    ],
)
def test_listener_set_conflicts_go_to_who_was_first(other: str, conflict: str) -> None:
    """ListenerSetHostnameConflict, ListenerSetProtocolConflict: the Gateway's listener, then the oldest set's."""
    own = "[{name: a, port: 80, protocol: HTTP, hostname: a.test}, {name: port, port: 82, protocol: HTTP}]"
    if conflict == "HostnameConflict":
        own = own.replace("a.test}", "a.test}, {name: b, port: 80, protocol: HTTP, hostname: b.test}")
    shared = "{name: c, port: 80, protocol: HTTP, hostname: c.test}"
    cluster = Cluster(
        gateway(listeners=own, more=ALL),
        listener_set(
            "one", f"[{{name: d, port: 80, protocol: HTTP, hostname: d.test}}, {other}, {shared}]", created="'2024-01-01T00:00:00Z'"
        ),
        listener_set("two", f"[{other}]", created="'2024-01-02T00:00:00Z'"),
        listener_set("three", f"[{shared}]", created="'2024-01-03T00:00:00Z'"),
    )
    assert cluster.conditions("Gateway", "gw")["Accepted"] == "True Accepted"
    assert cluster.conditions("ListenerSet", "one") == {"Accepted": "True ListenersNotValid", "Programmed": "True Programmed"}
    assert cluster.conditions("ListenerSet", "two") == {
        "Accepted": "False ListenersNotValid",
        "Programmed": "False ListenersNotValid",
    }
    for name in ("one", "two"):
        found = cluster.listener_conditions("b", name, "ListenerSet")
        assert (found["Conflicted"], found["Accepted"], found["Programmed"]) == (
            f"True {conflict}",
            "False Conflicted",
            "False Invalid",
        )
    assert cluster.listener_conditions("c", "one", "ListenerSet")["Programmed"] == "True Programmed"
    assert cluster.listener_conditions("c", "three", "ListenerSet")["Conflicted"] == "True HostnameConflict"
    status: Any = cluster.translation.statuses["Gateway", "default", "gw"]  # type: ignore[index]
    assert status.attached_listener_sets == 1


def test_listener_set_reference_grant_and_kinds() -> None:
    """ListenerSetReferenceGrant: the set asks, not its Gateway. ListenerSetAllowedRoutesSupportedKinds."""
    https = HTTPS % "{name: s, namespace: web}"
    for kind, expected in (("ListenerSet", "True ResolvedRefs"), ("Gateway", "False RefNotPermitted")):
        grant = SECRET_GRANT.format(namespace="web", kind=kind, name="")
        cluster = Cluster(gateway(more=ALL), listener_set("more", https), secret("s", PAIR, "web"), grant)
        assert cluster.listener_conditions("https", "more", "ListenerSet")["ResolvedRefs"] == expected
    only = "[{name: own, port: 8080, protocol: HTTP, allowedRoutes: {kinds: [{kind: GRPCRoute}]}}]"
    cluster = Cluster(
        gateway(more=ALL), listener_set("more", only), WEB, route("r", to("web"), "[{kind: ListenerSet, name: more}]")
    )
    assert kinds(cluster, "own", "more", "ListenerSet") == ["GRPCRoute"]
    assert cluster.conditions("HTTPRoute", "r")["Accepted"] == "False NotAllowedByListeners"


def test_listener_set_parent_not_accepted() -> None:
    """ListenerSetParentNotAccepted."""
    more = f"{ALL}\n  infrastructure: {{parametersRef: {{group: a.b, kind: C, name: d}}}}"
    cluster = Cluster(gateway(more=more), listener_set("more", ONE))
    assert cluster.conditions("ListenerSet", "more")["Accepted"] == "False ParentNotAccepted"
