"""HTTPRoutes as the official conformance tests want them; the name of each stands with its table."""

from typing import Any

import pytest
from kube import Cluster, gateway, route, service, to

from gateway.model.config import Bind, Kubernetes
from gateway.sources.kubernetes.options import Options

WEB = service("v1", 8080) + service("v2", 8080, address="10.0.0.2") + service("v3", 8080, address="10.0.0.3")


def v(number: int, weight: int | None = None) -> str:
    return f"{{name: v{number}, port: 8080{'' if weight is None else f', weight: {weight}'}}}"


def test_http_route_simple_same_namespace() -> None:
    """HTTPRouteSimpleSameNamespace."""
    cluster = Cluster(gateway(), WEB, route("simple", to("v1", 8080)))
    assert cluster.ask("/") == "v1:8080"
    assert cluster.conditions("HTTPRoute", "simple") == {"Accepted": "True Accepted", "ResolvedRefs": "True ResolvedRefs"}
    assert cluster.conditions("Gateway", "gw") == {"Accepted": "True Accepted", "Programmed": "True Programmed"}
    assert cluster.listener("http").attached_routes == 1


def test_http_route_cross_namespace() -> None:
    """HTTPRouteCrossNamespace: the listener says who may attach."""
    open_ = gateway(listeners="[{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]")
    there = route("cross", to("app", 80), "[{name: gw, namespace: default}]", namespace="web")
    cluster = Cluster(open_, service("app", 80, namespace="web"), there)
    assert cluster.ask("/") == "Service/web/app:80"


def test_http_route_invalid_cross_namespace_parent_ref() -> None:
    """HTTPRouteInvalidCrossNamespaceParentRef."""
    there = route("cross", to("app", 80), "[{name: gw, namespace: default}]", namespace="web")
    cluster = Cluster(gateway(), service("app", 80, namespace="web"), there)
    assert cluster.ask("/") == "404"
    assert cluster.conditions("HTTPRoute", "cross", "web")["Accepted"] == "False NotAllowedByListeners"
    assert cluster.listener("http").attached_routes == 0


def test_http_route_exact_path_matching() -> None:
    """HTTPRouteExactPathMatching."""
    rules = (
        f"[{{matches: [{{path: {{type: Exact, value: /one}}}}], backendRefs: [{v(1)}]}},"
        f" {{matches: [{{path: {{type: Exact, value: /two}}}}], backendRefs: [{v(2)}]}}]"
    )
    cluster = Cluster(gateway(), WEB, route("exact", rules))
    asked = {path: cluster.ask(path) for path in ("/one", "/two", "/", "/one/example", "/two/", "/Two")}
    assert asked == {"/one": "v1:8080", "/two": "v2:8080", "/": "404", "/one/example": "404", "/two/": "404", "/Two": "404"}


@pytest.mark.parametrize(
    ("headers", "answer"),
    [
        ([("version", "one")], "v1:8080"),
        ([("VERSION", "two")], "v2:8080"),
        ([("version", "two"), ("color", "orange")], "v1:8080"),
        ([("version", "three")], "404"),
        ([("color", "blue")], "v1:8080"),
        ([("color", "purple")], "404"),
        ([], "404"),
    ],
)
def test_http_route_header_matching(headers: list[tuple[str, str]], answer: str) -> None:
    """HTTPRouteHeaderMatching: more headers come first."""
    rules = f"""
  - {{matches: [{{headers: [{{name: version, value: one}}]}}], backendRefs: [{v(1)}]}}
  - {{matches: [{{headers: [{{name: version, value: two}}]}}], backendRefs: [{v(2)}]}}
  - {{matches: [{{headers: [{{name: version, value: two}}, {{name: color, value: orange}}]}}], backendRefs: [{v(1)}]}}
  - {{matches: [{{headers: [{{name: color, value: blue}}]}}], backendRefs: [{v(1)}]}}"""
    assert Cluster(gateway(), WEB, route("headers", rules)).ask("/", headers=headers) == answer


PART_ONE = f"""
  - matches: [{{path: {{type: PathPrefix, value: /}}}}, {{headers: [{{name: version, value: one}}]}}]
    backendRefs: [{v(1)}]"""
PART_TWO = f"""
  - matches: [{{path: {{type: PathPrefix, value: /v2}}}}, {{headers: [{{name: version, value: two}}]}}]
    backendRefs: [{v(2)}]"""
MATCHING: list[tuple[str, list[tuple[str, str]], str]] = [
    ("/", [], "v1:8080"),
    ("/example", [], "v1:8080"),
    ("/", [("version", "one")], "v1:8080"),
    ("/v2", [], "v2:8080"),
    ("/v2example", [], "v1:8080"),
    ("/foo/v2/example", [], "v1:8080"),
    ("/v2/example", [], "v2:8080"),
    ("/", [("version", "two")], "v2:8080"),
    ("/v2", [("version", "one")], "v2:8080"),
]


@pytest.mark.parametrize(("path", "headers", "answer"), MATCHING)
def test_http_route_matching(path: str, headers: list[tuple[str, str]], answer: str) -> None:
    """HTTPRouteMatching, and HTTPRouteMatchingAcrossRoutes: two routes are one table."""
    assert Cluster(gateway(), WEB, route("matching", PART_ONE + PART_TWO)).ask(path, headers=headers) == answer
    across = Cluster(gateway(), WEB, route("part1", PART_ONE), route("part2", PART_TWO))
    assert across.ask(path, headers=headers) == answer


def test_http_route_path_match_order() -> None:
    """HTTPRoutePathMatchOrder: exact first, then the longest prefix, wherever they stand."""
    paths = {"/match/prefix": "PathPrefix", "/match": "Exact", "/match/": "PathPrefix", "/match/exact": "Exact"}
    rules = "".join(
        f"\n  - {{name: r{n}, matches: [{{path: {{type: {kind}, value: {path}}}}}], backendRefs: [{v(1)}]}}"
        for n, (path, kind) in enumerate(paths.items())
    )
    cluster = Cluster(gateway(), WEB, route("order", rules))
    asked = {
        path: cluster.who(path)[-2]
        for path in ("/match/exact", "/match", "/match/prefix", "/match/prefix/any", "/match/any", "/match/exact/one")
    }
    assert asked == {
        "/match/exact": "3",
        "/match": "1",
        "/match/prefix": "0",
        "/match/prefix/any": "0",
        "/match/any": "2",
        "/match/exact/one": "2",
    }


def test_ties_go_to_the_older_route_and_then_by_name() -> None:
    """Precedence across routes: creationTimestamp, then namespace/name."""
    first = route("zz", to("v1", 8080), created="2024-01-01T00:00:00Z")
    second = route("aa", to("v2", 8080), created="2024-01-02T00:00:00Z")
    assert Cluster(gateway(), WEB, second, first).who("/") == "HTTPRoute/default/zz[0]"
    same = route("zz", to("v1", 8080), created="2024-01-02T00:00:00Z")
    assert Cluster(gateway(), WEB, same, second).who("/") == "HTTPRoute/default/aa[0]"


INTERSECTION = """
  - {name: exact, port: 80, protocol: HTTP, hostname: very.specific.com}
  - {name: wild, port: 80, protocol: HTTP, hostname: "*.wildcard.io"}
  - {name: other, port: 80, protocol: HTTP, hostname: "*.anotherwildcard.io"}"""


@pytest.mark.parametrize(
    ("hosts", "asked"),
    [
        (
            "[non.matching.com, '*.nonmatchingwildcard.io', very.specific.com]",
            {"very.specific.com": "v1:8080", "non.matching.com": "404", "foo.nonmatchingwildcard.io": "404"},
        ),
        (
            "[non.matching.com, wildcard.io, foo.wildcard.io, bar.wildcard.io, foo.bar.wildcard.io]",
            {
                "foo.wildcard.io": "v1:8080", "bar.wildcard.io": "v1:8080", "foo.bar.wildcard.io": "v1:8080",
                "wildcard.io": "404", "baz.wildcard.io": "404", "non.matching.com": "404",
            },
        ),
        (
            "['*.anotherwildcard.io']",
            {"one.anotherwildcard.io": "v1:8080", "a.b.anotherwildcard.io": "v1:8080", "anotherwildcard.io": "404"},
        ),
        ("['*.com']", {"very.specific.com": "v1:8080", "not.specific.com": "404"}),
        ("[]", {"very.specific.com": "v1:8080", "x.wildcard.io": "v1:8080", "wildcard.io": "404"}),
    ],
)  # fmt: skip
def test_http_route_hostname_intersection(hosts: str, asked: dict[str, str]) -> None:
    """HTTPRouteHostnameIntersection."""
    cluster = Cluster(gateway(listeners=INTERSECTION), WEB, route("hosts", to("v1", 8080), hosts=hosts))
    assert {host: cluster.ask("/", host) for host in asked} == asked
    assert cluster.conditions("HTTPRoute", "hosts")["Accepted"] == "True Accepted"


def test_http_route_hostname_intersection_that_is_empty() -> None:
    """HTTPRouteHostnameIntersection: nothing in common is not accepted."""
    cluster = Cluster(
        gateway(listeners=INTERSECTION), WEB, route("hosts", to("v1", 8080), hosts="[specific.but.wrong.com, wildcard.io]")
    )
    assert cluster.conditions("HTTPRoute", "hosts")["Accepted"] == "False NoMatchingListenerHostname"
    assert {cluster.listener(name).attached_routes for name in ("exact", "wild", "other")} == {0}


def test_http_route_listener_hostname_matching() -> None:
    """HTTPRouteListenerHostnameMatching: sectionName picks, and the most specific listener answers alone."""
    listeners = """
  - {name: l1, port: 80, protocol: HTTP, hostname: bar.com}
  - {name: l2, port: 80, protocol: HTTP, hostname: foo.bar.com}
  - {name: l3, port: 80, protocol: HTTP, hostname: "*.bar.com"}
  - {name: l4, port: 80, protocol: HTTP, hostname: "*.foo.com"}"""
    cluster = Cluster(
        gateway(listeners=listeners), WEB,
        route("one", to("v1", 8080), "[{name: gw, sectionName: l1}]"),
        route("two", to("v2", 8080), "[{name: gw, sectionName: l2}]"),
        route("three", to("v3", 8080), "[{name: gw, sectionName: l3}, {name: gw, sectionName: l4}]"),
    )  # fmt: skip
    asked = {
        host: cluster.ask("/", host) for host in ("bar.com", "foo.bar.com", "baz.bar.com", "x.y.bar.com", "a.foo.com", "foo.com")
    }
    assert asked == {
        "bar.com": "v1:8080", "foo.bar.com": "v2:8080", "baz.bar.com": "v3:8080", "x.y.bar.com": "v3:8080",
        "a.foo.com": "v3:8080", "foo.com": "404",
    }  # fmt: skip


def test_gateway_http_listener_isolation() -> None:
    """GatewayHTTPListenerIsolation: each path answers on its own listener only."""
    hosts = {"empty": "", "wild": "*.example.com", "wild-foo": "*.foo.example.com", "abc": "abc.foo.example.com"}
    listeners = "".join(f"\n  - {{name: {name}, port: 80, protocol: HTTP, hostname: '{host}'}}" for name, host in hosts.items())
    routes = [
        route(name, f"[{{matches: [{{path: {{value: /{name}}}}}], backendRefs: [{v(1)}]}}]", f"[{{name: gw, sectionName: {name}}}]")
        for name in hosts
    ]
    cluster = Cluster(gateway(listeners=listeners.replace(", hostname: ''", "")), WEB, *routes)
    asked = {"empty": "bar.com", "wild": "bar.example.com", "wild-foo": "bar.foo.example.com", "abc": "abc.foo.example.com"}
    for listener, host in asked.items():
        for name in hosts:
            assert cluster.ask(f"/{name}", host) == ("v1:8080" if name == listener else "404"), (name, host)


def test_http_route_multiple_gateways() -> None:
    """HTTPRouteMultipleGateways: of Gateways with addresses of their own each answers for its routes only."""
    binds = tuple(Bind(f"default/{name}", 80, bind) for name, bind in (("one", 10080), ("two", 10081)))
    options = Options.of(Kubernetes(binds=binds))
    cluster = Cluster(
        gateway("one"), gateway("two"), WEB,
        route("both", f"[{{matches: [{{path: {{value: /both}}}}], backendRefs: [{v(1)}]}}]", "[{name: one}, {name: two}]"),
        route("second", f"[{{matches: [{{path: {{value: /second}}}}], backendRefs: [{v(2)}]}}]", "[{name: two}]"),
        options=options,
    )  # fmt: skip
    assert [cluster.ask(path, port=port) for port in (10080, 10081) for path in ("/both", "/second")] == [
        "v1:8080", "404", "v1:8080", "v2:8080",
    ]  # fmt: skip
    assert [each["Accepted"] for each in (cluster.conditions("HTTPRoute", "both", parent=n) for n in (0, 1))] == [
        "True Accepted"
    ] * 2


def test_a_redirect_names_the_port_that_clients_know() -> None:
    redirect = "[{filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplaceFullPath, replaceFullPath: /x}}}]}]"
    listeners = "[{name: http, port: 8000, protocol: HTTP}]"
    for binds in ((), (Bind("default/gw", 8000, 10080),)):
        cluster = Cluster(gateway(listeners=listeners), route("r", redirect), options=Options.of(Kubernetes(binds=binds)))
        answer = cluster.ask("/", "a.test", port=binds[0].bind if binds else 8000)
        assert answer == "302 http://a.test:8000/x"


def test_a_port_here_stands_for_one_port_of_gateways() -> None:
    binds = (Bind("default/one", 81, 80), Bind("default/three", 80, 10080))
    text = gateway("one", "[{name: http, port: 81, protocol: HTTP}]")
    cluster = Cluster(text, gateway("two"), gateway("three"), options=Options.of(Kubernetes(binds=binds)))
    assert cluster.listener_conditions("http", "one")["Programmed"] == "True Programmed"
    assert cluster.listener_conditions("http", "two")["Accepted"] == "False PortUnavailable"
    assert cluster.listener_conditions("http", "three")["Programmed"] == "True Programmed"
    assert sorted((each.port, each.public_port) for each in cluster.translation.listeners) == [(80, 81), (10080, 80)]


def test_gateways_of_one_address_share_their_listener() -> None:
    """Gateways may be merged onto one set of addresses when their listeners are compatible."""
    cluster = Cluster(gateway("one"), gateway("two"), WEB, route("r", to("v1", 8080), "[{name: two}]"))
    assert cluster.ask("/") == "v1:8080"
    assert [each.name for each in cluster.model.listeners] == ["Gateway/default/one/http"]
    assert cluster.listener("http", "one").attached_routes == 0 and cluster.listener("http", "two").attached_routes == 1


def test_a_rule_keeps_its_sessions() -> None:
    """GEP-1619. A rule that says no name has one of its own, so that two do not take each other's sessions for theirs."""
    permanent = "{absoluteTimeout: 1h, cookieConfig: {lifetimeType: Permanent}}"
    texts = (permanent, "{sessionName: X-S, type: Header}", "{}")
    kept = [f"{{sessionPersistence: {text}, backendRefs: [{v(1)}]}}" for text in texts]
    cluster = Cluster(gateway(), WEB, route("r", f"[{', '.join(kept)}, {{backendRefs: [{v(2)}]}}]"))
    first, second, third, none = (cluster.rule("HTTPRoute/default/r", number).session for number in range(4))
    assert first and second and third and none is None
    assert (first.kind, first.lifetime, first.is_permanent) == ("cookie", 3600, True)
    assert (second.kind, second.name, second.lifetime) == ("header", "x-s", 0)
    assert (third.kind, third.is_permanent) == ("cookie", False) and third.name != first.name
    assert cluster.conditions("HTTPRoute", "r")["Accepted"] == "True Accepted" and not cluster.translation.problems


def test_http_route_weight() -> None:
    """HTTPRouteWeight: shares as they are written; a weight of 0 takes nothing."""
    cluster = Cluster(gateway(), WEB, route("weight", f"[{{backendRefs: [{v(1, 70)}, {v(2, 30)}, {v(3, 0)}]}}]"))
    assert cluster.ask("/") == "v1:8080*70 v2:8080*30"
    nothing = Cluster(gateway(), WEB, route("weight", f"[{{backendRefs: [{v(1, 0)}]}}]"))
    assert nothing.ask("/") == "500", "HTTPRouteAllBackendsWeightZero"


@pytest.mark.parametrize("rule", ["{matches: [{path: {value: /}}]}", "{backendRefs: []}"])
def test_http_route_no_backend_refs(rule: str) -> None:
    """HTTPRouteNoBackendRefs."""
    cluster = Cluster(gateway(), WEB, route("none", f"[{rule}]"))
    assert cluster.ask("/") == "500"
    assert cluster.conditions("HTTPRoute", "none") == {"Accepted": "True Accepted", "ResolvedRefs": "True ResolvedRefs"}


@pytest.mark.parametrize(
    ("ref", "reason"),
    [
        ("{group: example.com, kind: Other, name: v1, port: 8080}", "InvalidKind"),  # HTTPRouteInvalidBackendRefUnknownKind
        ("{name: nonexistent, port: 8080}", "BackendNotFound"),  # HTTPRouteInvalidNonExistentBackendRef
        ("{name: v1, port: 81}", "BackendNotFound"),
        ("{name: v1}", "BackendNotFound"),
        ("{name: v1, namespace: web, port: 8080}", "RefNotPermitted"),  # HTTPRouteInvalidCrossNamespaceBackendRef
        ("{name: alias, port: 8080}", "UnsupportedProtocol"),  # ExternalName: may lead anywhere
    ],
)
def test_http_route_invalid_backend_refs(ref: str, reason: str) -> None:
    """A reference that comes to nothing: accepted, not resolved, its share is answered 500."""
    alias = "kind: Service\nmetadata: {name: alias}\nspec: {type: ExternalName, externalName: evil.test, ports: [{port: 8080}]}"
    there = service("v1", 8080, namespace="web")
    cluster = Cluster(gateway(), WEB, there, alias, route("bad", f"[{{backendRefs: [{ref}, {v(2)}]}}]"))
    assert cluster.ask("/") == "500*1 v2:8080*1"
    assert cluster.conditions("HTTPRoute", "bad") == {"Accepted": "True Accepted", "ResolvedRefs": f"False {reason}"}
    assert cluster.listener("http").attached_routes == 1
    assert len(cluster.problems()) == 1 and "spec.rules[0].backendRefs[0]" in cluster.problems()[0]


GRANT = """
kind: ReferenceGrant
metadata: {{name: grant, namespace: {namespace}}}
spec:
  from: [{{group: gateway.networking.k8s.io, kind: {kind}, namespace: {source}}}]
  to: [{{group: "", kind: Service{name}}}]
"""


@pytest.mark.parametrize(
    ("grant", "resolved"),
    [
        ({}, True),
        ({"name": ", name: v1"}, True),
        ({"name": ", name: other"}, False),
        ({"kind": "GRPCRoute"}, False),
        ({"source": "elsewhere"}, False),
        ({"namespace": "default"}, False),
    ],
)
def test_http_route_reference_grant(grant: dict[str, str], resolved: bool) -> None:
    """HTTPRouteReferenceGrant, HTTPRouteInvalidReferenceGrant."""
    text = GRANT.format(**{"namespace": "web", "kind": "HTTPRoute", "source": "default", "name": ""} | grant)
    cluster = Cluster(
        gateway(), service("v1", 80, namespace="web"), text, route("r", "[{backendRefs: [{name: v1, namespace: web, port: 80}]}]")
    )
    assert cluster.ask("/") == ("Service/web/v1:80" if resolved else "500")
    expected = "True ResolvedRefs" if resolved else "False RefNotPermitted"
    assert cluster.conditions("HTTPRoute", "r")["ResolvedRefs"] == expected


def test_http_route_partially_invalid_via_invalid_reference_grant() -> None:
    """HTTPRoutePartiallyInvalidViaInvalidReferenceGrant: the good rule goes on."""
    rules = f"""
  - {{matches: [{{path: {{value: /v1}}}}], backendRefs: [{{name: app, namespace: web, port: 80}}]}}
  - {{matches: [{{path: {{value: /v2}}}}], backendRefs: [{v(2)}]}}"""
    text = GRANT.format(namespace="web", kind="HTTPRoute", source="elsewhere", name="")
    cluster = Cluster(gateway(), WEB, service("app", 80, namespace="web"), text, route("r", rules))
    assert (cluster.ask("/v1"), cluster.ask("/v2")) == ("500", "v2:8080")
    assert cluster.conditions("HTTPRoute", "r") == {"Accepted": "True Accepted", "ResolvedRefs": "False RefNotPermitted"}


@pytest.mark.parametrize(
    ("parent", "reason"),
    [
        ("{name: gw, sectionName: nothing}", "NoMatchingParent"),  # HTTPRouteInvalidParentRefNotMatchingSectionName
        ("{name: gw, sectionName: http, port: 81}", "NoMatchingParent"),  # ...SectionNameNotMatchingPort
        ("{name: gw, port: 81}", "NoMatchingParent"),  # HTTPRouteInvalidParentRefNotMatchingListenerPort
    ],
)
def test_http_route_invalid_parent_refs(parent: str, reason: str) -> None:
    cluster = Cluster(gateway(), WEB, route("r", to("v1", 8080), f"[{parent}]"))
    assert cluster.ask("/") == "404"
    assert cluster.conditions("HTTPRoute", "r") == {"Accepted": f"False {reason}", "ResolvedRefs": "True ResolvedRefs"}


def test_http_route_listener_port_matching() -> None:
    """HTTPRouteListenerPortMatching."""
    listeners = "[{name: one, port: 80, protocol: HTTP}, {name: two, port: 8080, protocol: HTTP}]"
    cluster = Cluster(
        gateway(listeners=listeners), WEB,
        route("eighty", to("v1", 8080), "[{name: gw, port: 80}]"),
        route("named", to("v2", 8080), "[{name: gw, port: 8080, sectionName: two}]"),
    )  # fmt: skip
    assert (cluster.ask("/", port=80), cluster.ask("/", port=8080)) == ("v1:8080", "v2:8080")


def test_a_parent_of_somebody_else_is_none_of_our_business() -> None:
    other = "kind: GatewayClass\nmetadata: {name: theirs}\nspec: {controllerName: example.com/other}"
    foreign = gateway("foreign").replace("gatewayClassName: isthmus", "gatewayClassName: theirs")
    cluster = Cluster(other, foreign, WEB, route("r", to("v1", 8080), "[{name: foreign}, {name: absent}]"))
    assert list(cluster.translation.statuses) == [("GatewayClass", "", "isthmus")]
    assert cluster.ask("/") == "no-port"


def test_http_route_disallowed_kind() -> None:
    """HTTPRouteDisallowedKind."""
    listeners = "[{name: tls, port: 443, protocol: TLS, tls: {mode: Passthrough}, allowedRoutes: {kinds: [{kind: TLSRoute}]}}]"
    cluster = Cluster(gateway(listeners=listeners), WEB, route("r", to("v1", 8080)))
    assert cluster.conditions("HTTPRoute", "r") == {"Accepted": "False NotAllowedByListeners", "ResolvedRefs": "True ResolvedRefs"}
    assert cluster.listener("tls").attached_routes == 0


def test_http_route_observed_generation_bump() -> None:
    """HTTPRouteObservedGenerationBump."""
    cluster = Cluster(gateway(), WEB, route("r", to("v1", 8080), generation=7))
    status: Any = cluster.translation.statuses["HTTPRoute", "default", "r"]  # type: ignore[index]
    assert {each.observed_generation for each in status.parents[0].conditions} == {7}


@pytest.mark.parametrize(
    ("rule", "path", "request_", "answer"),
    [
        # HTTPRouteMethodMatching
        ("matches: [{method: POST}]", "/", {"method": "POST"}, "v1:8080"),
        ("matches: [{method: POST}]", "/", {"method": "GET"}, "404"),
        # HTTPRouteQueryParamMatching
        ("matches: [{queryParams: [{name: animal, value: whale}]}]", "/?animal=whale", {}, "v1:8080"),
        ("matches: [{queryParams: [{name: animal, value: whale}]}]", "/?animal=shark", {}, "404"),
        ("matches: [{queryParams: [{name: animal, type: RegularExpression, value: 'w.*'}]}]", "/?animal=whale", {}, "v1:8080"),
    ],
)
def test_http_route_other_matches(rule: str, path: str, request_: dict[str, Any], answer: str) -> None:
    cluster = Cluster(gateway(), WEB, route("r", f"[{{{rule}, backendRefs: [{v(1)}]}}]"))
    assert cluster.ask(path, **request_) == answer


@pytest.mark.parametrize(
    ("redirect", "answer"),
    [
        # HTTPRouteRedirectHostAndStatus, HTTPRoute303Redirect and its like, ...RedirectPort, ...RedirectScheme, ...RedirectPath
        ("{hostname: example.org, statusCode: 301}", "301 http://example.org/a/b"),
        ("{hostname: example.org, statusCode: 303}", "303 http://example.org/a/b"),
        ("{hostname: example.org, statusCode: 307}", "307 http://example.org/a/b"),
        ("{hostname: example.org, statusCode: 308}", "308 http://example.org/a/b"),
        ("{port: 8083, statusCode: 302}", "302 http://any.test:8083/a/b"),
        ("{scheme: https}", "302 https://any.test/a/b"),
        ("{scheme: https, port: 443}", "302 https://any.test/a/b"),
        ("{path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}", "302 http://any.test/new/b"),
        ("{path: {type: ReplaceFullPath, replaceFullPath: /full}}", "302 http://any.test/full"),
    ],
)
def test_http_route_redirects(redirect: str, answer: str) -> None:
    rules = f"[{{matches: [{{path: {{value: /a}}}}], filters: [{{type: RequestRedirect, requestRedirect: {redirect}}}]}}]"
    assert Cluster(gateway(), route("r", rules)).ask("/a/b") == answer


def test_http_route_rewrites_and_header_modifiers() -> None:
    """HTTPRouteRewritePath, HTTPRouteRewriteHost, HTTPRouteRequestHeaderModifier."""
    rules = f"""
  - matches: [{{path: {{value: /prefix/one}}}}]
    filters:
    - {{type: URLRewrite, urlRewrite: {{hostname: one.example.org, path: {{type: ReplacePrefixMatch, replacePrefixMatch: /one}}}}}}
    - {{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: X-Set, value: s}}], remove: [x-gone]}}}}
    backendRefs: [{v(1)}]"""
    found = Cluster(gateway(), WEB, route("r", rules)).explain("/prefix/one/two", headers=[("x-gone", "1"), ("x-stays", "1")])
    assert (found.authority, found.forwarded_path) == ("one.example.org", "/one/two")
    names = {name: value for name, value in found.forwarded_headers}
    assert names["x-set"] == "s" and "x-gone" not in names and "x-stays" in names


def test_http_route_named_rule_and_timeouts() -> None:
    """HTTPRouteNamedRule, HTTPRouteTimeoutRequest, HTTPRouteTimeoutBackendRequest, HTTPRouteRetry."""
    rules = f"""
  - name: one
    timeouts: {{request: 500ms, backendRequest: 200ms}}
    retry: {{codes: [500], attempts: 2, backoff: 10ms}}
    backendRefs: [{v(1)}]"""
    rule = Cluster(gateway(), WEB, route("r", rules)).rule("HTTPRoute/default/r")
    assert (rule.name, rule.request_timeout, rule.backend_timeout, rule.attempts, rule.codes) == ("one", 500, 200, 2, (500,))


EXTENSION = "{type: ExtensionRef, extensionRef: {group: example.com, kind: Thing, name: t}}"


def test_a_filter_that_is_not_served_is_never_skipped() -> None:
    """Its rule answers 500; the route says UnsupportedValue, in PartiallyInvalid as long as another rule is good."""
    bad = f"{{matches: [{{path: {{value: /bad}}}}], filters: [{EXTENSION}], backendRefs: [{v(1)}]}}"
    good = f"{{matches: [{{path: {{value: /good}}}}], backendRefs: [{v(1)}]}}"
    both = Cluster(gateway(), WEB, route("r", f"[{bad}, {good}]"))
    assert (both.ask("/bad"), both.ask("/good")) == ("500", "v1:8080")
    assert both.conditions("HTTPRoute", "r") == {
        "Accepted": "True Accepted", "ResolvedRefs": "True ResolvedRefs", "PartiallyInvalid": "True UnsupportedValue",
    }  # fmt: skip
    alone = Cluster(gateway(), WEB, route("r", f"[{bad}]"))
    assert alone.ask("/bad") == "500"
    assert alone.conditions("HTTPRoute", "r")["Accepted"] == "False UnsupportedValue"
    assert alone.listener("http").attached_routes == 0


@pytest.mark.parametrize(
    ("rule", "answer", "reason"),
    [
        ("matches: [{path: {type: RegularExpression, value: '('}}]", "404", "UnsupportedValue"),
        ("matches: [{path: {value: /bad}}], filters: [{type: Unheard}]", "500", "UnsupportedValue"),
        (
            "matches: [{path: {value: /bad}}], filters: [{type: URLRewrite, urlRewrite: {hostname: a.b}},"
            " {type: RequestRedirect, requestRedirect: {hostname: a.b}}]",
            "500",
            "IncompatibleFilters",
        ),
    ],
)
def test_a_bad_rule_fails_alone(rule: str, answer: str, reason: str) -> None:
    """What makes no sense costs its rule: dropped when nobody can say what it matches, answered 500 when that is known."""
    good = f"{{matches: [{{path: {{value: /good}}}}], backendRefs: [{v(1)}]}}"
    cluster = Cluster(gateway(), WEB, route("r", f"[{{{rule}}}, {good}]"))
    assert (cluster.ask("/bad"), cluster.ask("/good")) == (answer, "v1:8080")
    assert cluster.conditions("HTTPRoute", "r")["PartiallyInvalid"] == f"True {reason}"
    alone = Cluster(gateway(), WEB, route("r", f"[{{{rule}}}]"))
    assert alone.conditions("HTTPRoute", "r")["Accepted"] == f"False {reason}"


def test_fields_of_a_newer_api_are_skipped() -> None:
    rules = f"[{{matches: [{{path: {{value: /, newer: 1}}}}], newest: {{a: b}}, backendRefs: [{v(1)}]}}]"
    assert Cluster(gateway(), WEB, route("r", rules)).ask("/") == "v1:8080"


MIRRORS = """
  - filters:
    - {type: RequestMirror, requestMirror: {backendRef: {name: v2, port: 8080}}}
    - {type: RequestMirror, requestMirror: {backendRef: {name: v3, port: 8080}, percent: 20}}
    backendRefs: [{name: v1, port: 8080}]"""


def test_http_route_request_mirrors() -> None:
    """HTTPRouteRequestMirror, HTTPRouteRequestMultipleMirrors, HTTPRouteRequestPercentageMirror: where copies go. That they go is
    told by tests/wire/test_wire_mirror.py."""
    cluster = Cluster(gateway(), WEB, route("mirror", MIRRORS))
    assert cluster.ask("/") == "v1:8080"
    mirrors = cluster.rule("HTTPRoute/default/mirror").mirrors
    shares = [(each.cluster, round(each.share / 2**32, 3)) for each in mirrors]
    assert shares == [("Service/default/v2:8080", 1), ("Service/default/v3:8080", 0.2)]
    assert cluster.conditions("HTTPRoute", "mirror") == {"Accepted": "True Accepted", "ResolvedRefs": "True ResolvedRefs"}


def test_a_mirror_that_leads_nowhere_costs_no_request() -> None:
    """The reference is told and left out; the rule serves."""
    missing = MIRRORS.replace("name: v2", "name: gone")
    cluster = Cluster(gateway(), WEB, route("mirror", missing))
    assert cluster.ask("/") == "v1:8080"
    assert cluster.conditions("HTTPRoute", "mirror") == {"Accepted": "True Accepted", "ResolvedRefs": "False BackendNotFound"}
    assert [each.cluster for each in cluster.rule("HTTPRoute/default/mirror").mirrors] == ["Service/default/v3:8080"]
    foreign = MIRRORS.replace("{name: v2, port", "{name: v2, namespace: other, port")
    cluster = Cluster(gateway(), WEB, service("v2", 8080, namespace="other"), route("mirror", foreign))
    assert cluster.ask("/") == "v1:8080"
    assert cluster.conditions("HTTPRoute", "mirror")["ResolvedRefs"] == "False RefNotPermitted"


def test_http_route_cors() -> None:
    """HTTPRouteCORS: what is answered is told by tests/wire/test_wire_cors.py."""
    rules = """
  - filters:
    - type: CORS
      cors: {allowOrigins: ["https://www.foo.com", "https://*.bar.com"], allowMethods: [GET, OPTIONS], maxAge: 3600}
    backendRefs: [{name: v1, port: 8080}]"""
    cluster = Cluster(gateway(), WEB, route("cors", rules))
    assert cluster.ask("/") == "v1:8080"
    cors = cluster.rule("HTTPRoute/default/cors").cors
    assert cors is not None and cors.origins == ("https://*.bar.com", "https://www.foo.com") and cors.max_age == 3600
    assert cluster.conditions("HTTPRoute", "cors") == {"Accepted": "True Accepted", "ResolvedRefs": "True ResolvedRefs"}
