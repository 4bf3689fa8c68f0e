"""TLSRoute, TCPRoute, GRPCRoute and BackendTLSPolicy as the official conformance tests want them."""

from typing import Any

import pytest
from kube import Cluster, authorities, gateway, make_pair, route, secret, service, to

from gateway.control.build import Model
from gateway.model.cluster import Cluster as ClusterSpec
from gateway.model.problem import Problem
from gateway.sources.kubernetes.status import PolicyStatus

PASS = "[{name: tls, port: 443, protocol: TLS, hostname: '*.pass.test', tls: {mode: Passthrough}}]"
PAIR = make_pair("abc.example.com")
DB = service("db", 443)


def tunnels(cluster: Cluster) -> dict[tuple[str, str], str]:
    """(listener, hostname) -> backends of the connections there."""
    found = {}
    for each in cluster.model.routes:
        for attachment in each.attachments:
            for host in attachment.hostnames:
                found.setdefault((cluster.model.listeners[attachment.listener].name, host), cluster.backends(each.rules[0]))
    return found


# --- TLSRoute ---


def test_tls_route_simple_same_namespace() -> None:
    """TLSRouteSimpleSameNamespace, TLSRouteHostnameIntersection."""
    cluster = Cluster(gateway(listeners=PASS), DB, route("r", to("db", 443), hosts="[a.pass.test, other.test]", kind="TLSRoute"))
    assert tunnels(cluster) == {("Gateway/default/gw/tls", "a.pass.test"): "db:443/tcp"}
    assert cluster.conditions("TLSRoute", "r") == {"Accepted": "True Accepted", "ResolvedRefs": "True ResolvedRefs"}
    assert [each.kind for each in cluster.listener("tls").supported_kinds] == ["TLSRoute"], (
        "TLSRouteListenerPassthroughSupportedKinds"
    )


@pytest.mark.parametrize(
    ("listeners", "parent", "reason"),
    [
        ("[{name: h, port: 80, protocol: HTTP, allowedRoutes: {kinds: [{kind: TLSRoute}]}}]", "{name: gw}", "NoMatchingParent"),
        (
            "[{name: h, port: 80, protocol: HTTP, allowedRoutes: {kinds: [{kind: HTTPRoute}]}}]",
            "{name: gw}",
            "NotAllowedByListeners",
        ),
        ("[{name: h, port: 80, protocol: HTTP}]", "{name: gw, sectionName: nonexistent}", "NoMatchingParent"),
        (PASS.replace("*.pass.test", "*.other.test"), "{name: gw}", "NoMatchingListenerHostname"),
    ],
)
def test_tls_route_invalid_no_matching_listener(listeners: str, parent: str, reason: str) -> None:
    """TLSRouteInvalidNoMatchingListener, TLSRouteInvalidNoMatchingListenerHostname."""
    text = route("r", to("db", 443), f"[{parent}]", "[a.pass.test]", kind="TLSRoute")
    cluster = Cluster(gateway(listeners=listeners), DB, text)
    assert cluster.conditions("TLSRoute", "r")["Accepted"] == f"False {reason}"
    assert not any(listener.attached_routes for listener in cluster.translation.statuses["Gateway", "default", "gw"].listeners)  # type: ignore[index, union-attr]


@pytest.mark.parametrize(
    ("ref", "reason"),
    [
        ("{name: absent, port: 443}", "BackendNotFound"),  # TLSRouteInvalidBackendRefNonexistent
        ("{group: x.test, kind: Thing, name: db, port: 443}", "InvalidKind"),  # TLSRouteInvalidBackendRefUnknownKind
        ("{name: db, namespace: web, port: 443}", "RefNotPermitted"),  # TLSRouteInvalidReferenceGrant
    ],
)
def test_tls_route_invalid_backend_refs(ref: str, reason: str) -> None:
    text = route("r", f"[{{backendRefs: [{ref}]}}]", hosts="[a.pass.test]", kind="TLSRoute")
    cluster = Cluster(gateway(listeners=PASS), service("db", 443, namespace="web"), text)
    assert cluster.conditions("TLSRoute", "r") == {"Accepted": "True Accepted", "ResolvedRefs": f"False {reason}"}
    assert set(tunnels(cluster).values()) == {"500"}


ENDED = "{name: ended, port: 443, protocol: TLS, hostname: abc.example.com, tls: {certificateRefs: [{name: s}]}}"
BACK = "Service/default/db:443/tcp"


def protocols(cluster: Cluster) -> dict[str, tuple[str, bool]]:
    """Whether listeners end TLS."""
    return {each.name.rpartition("/")[2]: (each.protocol, each.ends_tls) for each in cluster.model.listeners}


def carried_to(cluster: Cluster) -> dict[str, set[str]]:
    """Listener -> clusters."""
    found: dict[str, set[str]] = {}
    for each in cluster.translation.routes:
        for name in each.listeners:
            found.setdefault(name.rpartition("/")[2], set()).update(ref.name for rule in each.rules for ref in rule.backend_refs)
    return found


def test_tls_route_terminate_simple_same_namespace() -> None:
    """TLSRouteTerminateSimpleSameNamespace."""
    cluster = Cluster(
        gateway(listeners=f"[{ENDED}]"), DB, secret("s", PAIR),
        route("r", to("db", 443), hosts="[abc.example.com]", kind="TLSRoute"),
    )  # fmt: skip
    assert protocols(cluster) == {"ended": ("TLS", True)}
    assert tunnels(cluster) == {("Gateway/default/gw/ended", "abc.example.com"): "db:443/tcp"}
    assert cluster.conditions("TLSRoute", "r") == {"Accepted": "True Accepted", "ResolvedRefs": "True ResolvedRefs"}
    assert cluster.listener_conditions("ended")["ResolvedRefs"] == "True ResolvedRefs"


@pytest.mark.parametrize(("kinds", "shown"), [("", ["TLSRoute", "TCPRoute"]), ("[{kind: TLSRoute}]", ["TLSRoute"])])
def test_tls_route_listener_terminate_supported_kinds(kinds: str, shown: list[str]) -> None:
    """TLSRouteListenerTerminateSupportedKinds."""
    allowed = f", allowedRoutes: {{kinds: {kinds}}}}}" if kinds else "}"
    cluster = Cluster(gateway(listeners=f"[{ENDED[:-1]}{allowed}]"), secret("s", PAIR))
    assert [each.kind for each in cluster.listener("ended").supported_kinds] == shown
    assert cluster.listener_conditions("ended")["Accepted"] == "True Accepted"


def test_tls_route_mixed_termination_same_namespace() -> None:
    """TLSRouteMixedTerminationSameNamespace: one port, and the name decides. A route may have both listeners."""
    cluster = Cluster(
        gateway(listeners=f"[{ENDED}, {PASS[1:-1]}]"), DB, secret("s", PAIR),
        route("r", to("db", 443), hosts="[abc.example.com, a.pass.test]", kind="TLSRoute"),
    )  # fmt: skip
    assert protocols(cluster) == {"ended": ("TLS", True), "tls": ("TLS", False)}
    assert tunnels(cluster) == {
        ("Gateway/default/gw/ended", "abc.example.com"): "db:443/tcp",
        ("Gateway/default/gw/tls", "a.pass.test"): "db:443/tcp",
    }
    for name in ("ended", "tls"):
        assert cluster.listener_conditions(name)["Accepted"] == "True Accepted"
        assert cluster.listener(name).attached_routes == 1


def test_a_tcp_route_has_what_comes_out_of_tls() -> None:
    """And nothing of what is passed through."""
    cluster = Cluster(
        gateway(listeners=f"[{ENDED}, {PASS[1:-1]}]"), DB, secret("s", PAIR), route("r", to("db", 443), kind="TCPRoute")
    )
    assert tunnels(cluster) == {("Gateway/default/gw/ended", "abc.example.com"): "db:443/tcp"}
    assert cluster.listener("tls").attached_routes == 0


@pytest.mark.parametrize(
    ("tls", "accepted", "resolved"),
    [
        ("{}", "True Accepted", "False InvalidCertificateRef"),
        ("{certificateRefs: [{name: absent}]}", "True Accepted", "False InvalidCertificateRef"),
        ("{mode: Halfway, certificateRefs: [{name: s}]}", "False UnsupportedValue", "True ResolvedRefs"),
    ],
)
def test_a_listener_that_cannot_end_tls(tls: str, accepted: str, resolved: str) -> None:
    cluster = Cluster(gateway(listeners=f"[{{name: t, port: 443, protocol: TLS, tls: {tls}}}]"), secret("s", PAIR))
    conditions = cluster.listener_conditions("t")
    assert (conditions["Accepted"], conditions["ResolvedRefs"]) == (accepted, resolved)
    assert not cluster.model.listeners


def test_backend_tls_policy_tls_route_terminate() -> None:
    """BackendTLSPolicyTLSRouteTerminate: it counts where TLS ended here, and not for what is passed through."""
    given = (
        DB, secret("s", PAIR), CA, policy(target="name: db"),
        route("r", to("db", 443), hosts="[abc.example.com, a.pass.test]", kind="TLSRoute"),
    )  # fmt: skip
    cluster = Cluster(gateway(listeners=f"[{ENDED}, {PASS[1:-1]}]"), *given)
    assert carried_to(cluster) == {"tls": {BACK}, "ended": {f"{BACK}/tls"}}
    tls = {each.name: each.tls for each in cluster.translation.clusters}
    assert tls[BACK] is None and tls[f"{BACK}/tls"] is not None and tls[f"{BACK}/tls"].server_name == "abc.example.com"


def test_a_port_that_speaks_tls_gets_no_clear_bytes() -> None:
    cluster = Cluster(
        gateway(listeners=f"[{ENDED}]"), secret("s", PAIR), service("db", 443, port_more=", appProtocol: tls"),
        route("r", to("db", 443), hosts="[abc.example.com]", kind="TLSRoute"),
    )  # fmt: skip
    assert cluster.conditions("TLSRoute", "r")["ResolvedRefs"] == "False UnsupportedProtocol"
    assert set(tunnels(cluster).values()) == {"500"}


# --- TCPRoute ---

TCP = "[{name: a, port: 5432, protocol: TCP}, {name: b, port: 5433, protocol: TCP}]"
TWO = service("one", 80) + service("two", 80, address="10.0.0.2")


def test_tcp_route_attaches_everywhere_and_weighs() -> None:
    """TCPRouteParentRefAttachAll, TCPRouteWeightedRouting."""
    rules = "[{backendRefs: [{name: one, port: 80, weight: 70}, {name: two, port: 80, weight: 30}]}]"
    cluster = Cluster(gateway(listeners=TCP), TWO, route("r", rules, kind="TCPRoute"))
    backends = "one:80/tcp*70 two:80/tcp*30"
    assert tunnels(cluster) == {("Gateway/default/gw/a", ""): backends, ("Gateway/default/gw/b", ""): backends}


def test_tcp_route_parent_ref_port_and_section_name() -> None:
    """TCPRouteParentRefPortAndSectionName, and listeners of another kind."""
    cluster = Cluster(
        gateway(listeners=TCP), TWO,
        route("port", to("one"), "[{name: gw, port: 5432}]", kind="TCPRoute"),
        route("name", to("two"), "[{name: gw, sectionName: b}]", kind="TCPRoute"),
        route("neither", to("two"), "[{name: gw, sectionName: b, port: 5432}]", kind="TCPRoute"),
    )  # fmt: skip
    assert tunnels(cluster) == {("Gateway/default/gw/a", ""): "one:80/tcp", ("Gateway/default/gw/b", ""): "two:80/tcp"}
    assert cluster.conditions("TCPRoute", "neither")["Accepted"] == "False NoMatchingParent"
    wrong = Cluster(gateway(), TWO, route("r", to("one"), kind="TCPRoute"))
    assert wrong.conditions("TCPRoute", "r")["Accepted"] == "False NotAllowedByListeners"


def test_of_several_tcp_routes_the_oldest_has_the_listener() -> None:
    """All are accepted; one can have the connections."""
    cluster = Cluster(
        gateway(listeners=TCP), TWO,
        route("a-young", to("one"), kind="TCPRoute", created="2024-02-01T00:00:00Z"),
        route("z-old", to("two"), kind="TCPRoute", created="2024-01-01T00:00:00Z"),
    )  # fmt: skip
    assert set(tunnels(cluster).values()) == {"two:80/tcp"}
    assert {cluster.conditions("TCPRoute", name)["Accepted"] for name in ("a-young", "z-old")} == {"True Accepted"}
    assert cluster.listener("a").attached_routes == 2


# --- GRPCRoute ---

CALLS = service("v1", 8080) + service("v2", 8080, address="10.0.0.2") + service("v3", 8080, address="10.0.0.3")


def call(cluster: Cluster, path: str, host: str = "any.test", **request: Any) -> str:
    """The rule of a call, or 404."""
    found = cluster.who(path, host, method="POST", **request)
    return found.removeprefix("GRPCRoute/default/")


def test_grpc_exact_method_matching() -> None:
    """GRPCExactMethodMatching, GRPCRouteNamedRule."""
    rules = """
  - {name: echo, matches: [{method: {service: echo.Echo, method: Echo}}], backendRefs: [{name: v1, port: 8080}]}
  - {matches: [{method: {service: echo.Echo, method: EchoTwo}}], backendRefs: [{name: v2, port: 8080}]}
  - {matches: [{method: {service: other.All}}], backendRefs: [{name: v3, port: 8080}]}"""
    cluster = Cluster(gateway(), CALLS, route("r", rules, kind="GRPCRoute"))
    asked = {
        path: call(cluster, path)
        for path in ("/echo.Echo/Echo", "/echo.Echo/EchoTwo", "/echo.Echo/EchoThree", "/other.All/X", "/other.Al/X")
    }
    assert asked == {
        "/echo.Echo/Echo": "r[0]", "/echo.Echo/EchoTwo": "r[1]", "/echo.Echo/EchoThree": "404",
        "/other.All/X": "r[2]", "/other.Al/X": "404",
    }  # fmt: skip
    assert cluster.who("/echo.Echo/Echo", method="GET") == "404"
    assert cluster.conditions("GRPCRoute", "r") == {"Accepted": "True Accepted", "ResolvedRefs": "True ResolvedRefs"}
    assert {each.protocol for each in cluster.translation.clusters} == {"HTTP2"}


def test_grpc_route_header_matching() -> None:
    """GRPCRouteHeaderMatching."""
    rules = """
  - {matches: [{headers: [{name: version, value: one}]}], backendRefs: [{name: v1, port: 8080}]}
  - {matches: [{headers: [{name: version, value: two}]}], backendRefs: [{name: v2, port: 8080}]}
  - {matches: [{headers: [{name: version, value: two}, {name: color, value: orange}]}], backendRefs: [{name: v1, port: 8080}]}"""
    cluster = Cluster(gateway(), CALLS, route("r", rules, kind="GRPCRoute"))
    assert call(cluster, "/a.B/C", headers=[("version", "one")]) == "r[0]"
    assert call(cluster, "/a.B/C", headers=[("version", "two"), ("color", "orange")]) == "r[2]"
    assert call(cluster, "/a.B/C", headers=[("version", "three")]) == "404"


def test_grpc_route_listener_hostname_matching() -> None:
    """GRPCRouteListenerHostnameMatching."""
    listeners = (
        "[{name: l1, port: 80, protocol: HTTP, hostname: bar.com}, {name: l2, port: 80, protocol: HTTP, hostname: '*.bar.com'}]"
    )
    cluster = Cluster(
        gateway(listeners=listeners), CALLS,
        route("one", "[{backendRefs: [{name: v1, port: 8080}]}]", "[{name: gw, sectionName: l1}]", kind="GRPCRoute"),
        route("two", "[{backendRefs: [{name: v2, port: 8080}]}]", "[{name: gw, sectionName: l2}]", kind="GRPCRoute"),
    )  # fmt: skip
    assert [call(cluster, "/a.B/C", host) for host in ("bar.com", "x.bar.com", "foo.com")] == ["one[0]", "two[0]", "404"]


def test_kinds_of_routes_do_not_share_hosts() -> None:
    """An HTTPRoute and a GRPCRoute with hosts in common: the older is accepted."""
    old, young = "2024-01-01T00:00:00Z", "2024-02-01T00:00:00Z"
    cluster = Cluster(
        gateway(), CALLS,
        route("h", to("v1", 8080), hosts="['*.a.test']", created=young),
        route("g", "[{backendRefs: [{name: v1, port: 8080}]}]", hosts="[x.a.test]", kind="GRPCRoute", created=old),
        route("apart", to("v1", 8080), hosts="[b.test]", created=young),
    )  # fmt: skip
    assert cluster.conditions("GRPCRoute", "g")["Accepted"] == "True Accepted"
    assert cluster.conditions("HTTPRoute", "h")["Accepted"] == "False Conflicted"
    assert cluster.conditions("HTTPRoute", "apart")["Accepted"] == "True Accepted"


# --- what backends speak ---


@pytest.mark.parametrize(
    ("protocol", "spoken", "reason"),
    [
        ("kubernetes.io/h2c", "HTTP2", "True ResolvedRefs"),  # HTTPRouteBackendProtocolH2C
        ("kubernetes.io/ws", "HTTP1", "True ResolvedRefs"),  # HTTPRouteBackendProtocolWebSocket
        ("http", "HTTP1", "True ResolvedRefs"),
        ("mysql", "HTTP1", "True ResolvedRefs"),
        ("kubernetes.io/wss", None, "False UnsupportedProtocol"),
        ("https", None, "False UnsupportedProtocol"),
    ],
)
def test_app_protocols(protocol: str, spoken: str | None, reason: str) -> None:
    cluster = Cluster(gateway(), service("web", 80, port_more=f", appProtocol: {protocol}"), route("r", to("web")))
    assert [each.protocol for each in cluster.translation.clusters] == ([spoken] if spoken else [])
    assert cluster.conditions("HTTPRoute", "r")["ResolvedRefs"] == reason


def policy(name: str = "p", validation: str = "", target: str = "name: web", created: str = "null", generation: int = 1) -> str:
    return f"""
kind: BackendTLSPolicy
metadata: {{name: {name}, creationTimestamp: {created}, generation: {generation}}}
spec:
  targetRefs: [{{group: "", kind: Service, {target}}}]
  validation: {{hostname: abc.example.com, {validation or 'caCertificateRefs: [{group: "", kind: ConfigMap, name: ca}]'}}}
---
"""


WEB = service("web", 443, 8443)
CA = authorities("ca", PAIR[0])


def tls_of(cluster: Cluster) -> dict[str, Any]:
    return {each.name.removeprefix("Service/default/"): each.tls for each in cluster.translation.clusters}


def test_backend_tls_policy() -> None:
    """BackendTLSPolicy, BackendTLSPolicySANValidation, BackendTLSPolicyObservedGenerationBump."""
    names = (
        'caCertificateRefs: [{group: "", kind: ConfigMap, name: ca}],'
        ' subjectAltNames: [{type: Hostname, hostname: a.test}, {type: URI, uri: "spiffe://b/c"}]'
    )
    cluster = Cluster(gateway(), WEB, CA, policy(validation=names, generation=5), route("r", to("web", 443)))
    tls = tls_of(cluster)["web:443"]
    assert (tls.server_name, tls.ca, tls.subject_alt_names) == (
        "abc.example.com",
        "ConfigMap/default/ca/ca.crt",
        ("a.test", "spiffe://b/c"),
    )
    assert cluster.translation.pems["ConfigMap/default/ca/ca.crt"].strip() == PAIR[0].strip().encode()
    assert cluster.conditions("BackendTLSPolicy", "p") == {"Accepted": "True Accepted", "ResolvedRefs": "True ResolvedRefs"}
    status = cluster.translation.statuses["BackendTLSPolicy", "default", "p"]  # type: ignore[index]
    assert isinstance(status, PolicyStatus)
    assert [(each.ancestor_ref.name, each.conditions[0].observed_generation) for each in status.ancestors] == [("gw", 5)]
    system = Cluster(gateway(), WEB, policy(validation="wellKnownCACertificates: System"), route("r", to("web", 443)))
    assert tls_of(system)["web:443"].ca == "system"


def test_a_policy_makes_https_backends_reachable() -> None:
    text = service("web", 443, port_more=", appProtocol: https")
    cluster = Cluster(gateway(), text, CA, policy(), route("r", to("web", 443)))
    assert cluster.ask("/") == "web:443" and tls_of(cluster)["web:443"] is not None


@pytest.mark.parametrize(
    ("validation", "accepted", "resolved"),
    [
        # BackendTLSPolicyInvalidCACertificateRef
        (
            'caCertificateRefs: [{group: "", kind: ConfigMap, name: absent}]',
            "False NoValidCACertificate",
            "False InvalidCACertificateRef",
        ),
        (
            'caCertificateRefs: [{group: "", kind: ConfigMap, name: bad}]',
            "False NoValidCACertificate",
            "False InvalidCACertificateRef",
        ),
        # BackendTLSPolicyInvalidKind
        ("caCertificateRefs: [{group: x.test, kind: Thing, name: ca}]", "False NoValidCACertificate", "False InvalidKind"),
        ("wellKnownCACertificates: example.com/mine", "False Invalid", "True ResolvedRefs"),
    ],
)
def test_an_invalid_policy_stops_its_traffic(validation: str, accepted: str, resolved: str) -> None:
    bad = "kind: ConfigMap\nmetadata: {name: bad}\ndata: {other: x}"
    cluster = Cluster(gateway(), WEB, CA, bad, policy(validation=validation), route("r", to("web", 443)))
    assert cluster.ask("/") == "500", "never in the clear"
    assert cluster.conditions("BackendTLSPolicy", "p") == {"Accepted": accepted, "ResolvedRefs": resolved}
    assert cluster.conditions("HTTPRoute", "r")["Accepted"] == "True Accepted"


def test_one_good_authority_is_enough() -> None:
    refs = 'caCertificateRefs: [{group: "", kind: ConfigMap, name: absent}, {group: "", kind: ConfigMap, name: ca}]'
    cluster = Cluster(gateway(), WEB, CA, policy(validation=refs), route("r", to("web", 443)))
    assert cluster.ask("/") == "web:443"
    assert cluster.conditions("BackendTLSPolicy", "p") == {
        "Accepted": "True Accepted",
        "ResolvedRefs": "False InvalidCACertificateRef",
    }


def test_backend_tls_policy_conflict_resolution() -> None:
    """BackendTLSPolicyConflictResolution: the older one; a port's own policy comes before the Service's and conflicts with none."""
    old, young = "'2024-01-01T00:00:00Z'", "'2024-02-01T00:00:00Z'"
    system = "wellKnownCACertificates: System"
    cluster = Cluster(
        gateway(), WEB, CA,
        policy("b-first", created=old), policy("a-second", system, created=young),
        policy("port", system, "name: web, sectionName: p1", created=young),
        route("r", "[{backendRefs: [{name: web, port: 443}, {name: web, port: 8443}]}]"),
    )  # fmt: skip
    assert {name: tls.ca for name, tls in tls_of(cluster).items()} == {
        "web:443": "ConfigMap/default/ca/ca.crt",
        "web:8443": "system",
    }
    assert cluster.conditions("BackendTLSPolicy", "b-first")["Accepted"] == "True Accepted"
    assert cluster.conditions("BackendTLSPolicy", "a-second")["Accepted"] == "False Conflicted"
    assert cluster.conditions("BackendTLSPolicy", "port")["Accepted"] == "True Accepted"


def test_a_policy_that_no_route_uses_is_not_spoken_of() -> None:
    cluster = Cluster(gateway(), WEB, CA, policy())
    assert ("BackendTLSPolicy", "default", "p") not in cluster.translation.statuses


def test_backend_tls_policy_grpc_route() -> None:
    """BackendTLSPolicyGRPCRoute."""
    cluster = Cluster(gateway(), WEB, CA, policy(), route("r", to("web", 443), kind="GRPCRoute"))
    found: list[ClusterSpec] = list(cluster.translation.clusters)
    assert [(each.name, each.protocol, each.tls is not None) for each in found] == [("Service/default/web:443/h2", "HTTP2", True)]


def test_types_of_the_result() -> None:
    """What others build on."""
    cluster = Cluster(gateway(), WEB)
    assert isinstance(cluster.model, Model) and all(isinstance(each, Problem) for each in cluster.translation.problems)
