"""Gateway API's rules for routes, one case each."""

from typing import Any

import msgspec
import pytest

from gateway.model.check_route import check_route
from gateway.model.config import Config
from gateway.model.decode import decode_route
from gateway.model.problem import Finding, key_text
from gateway.model.scalars import decode_hook
from gateway.model.tls import ClusterTLS

CONFIG = msgspec.convert(
    {
        "listeners": [{"name": "web", "port": 80}, {"name": "sni", "port": 81, "protocol": "TLS"}],
        "clusters": [{"name": "app", "endpoints": ["a:1"]}],
        "rateLimits": [{"name": "slow", "limit": {"requests": 1, "per": "1s"}}],
    },
    Config,
    dec_hook=decode_hook,
)


def findings(spec: dict[str, Any], config: Config = CONFIG) -> list[Finding]:
    route, flaws = decode_route({"name": "r", **spec}, ())
    assert not flaws
    return list(check_route(route, config, ()))


def said(spec: dict[str, Any], config: Config = CONFIG) -> list[str]:
    """What is said; a star before what leaves the route in."""
    return [
        f"{'' if finding.drops else '*'}{finding.severity} {key_text(finding.path)}: {finding.message}"
        for finding in findings(spec, config)
    ]


def rule(**parts: Any) -> dict[str, Any]:
    return {"rules": [{"backendRefs": [{"name": "app"}], **parts}]}


def match(**parts: Any) -> dict[str, Any]:
    return rule(matches=[parts])


def request_filter(**modifier: Any) -> dict[str, Any]:
    return rule(filters=[{"type": "RequestHeaderModifier", "requestHeaderModifier": modifier}])


def rewrite(path: dict[str, Any], match_type: str = "PathPrefix") -> dict[str, Any]:
    return rule(
        matches=[{"path": {"type": match_type, "value": "/a"}}], filters=[{"type": "URLRewrite", "urlRewrite": {"path": path}}]
    )


def redirect(**parts: Any) -> dict[str, Any]:
    return {"rules": [{"filters": [{"type": "RequestRedirect", "requestRedirect": parts}]}]}


GOOD: list[dict[str, Any]] = [
    {},
    rule(),
    match(path={"type": "Exact", "value": "/a"}, method="GET", headers=[{"name": "x", "value": "y"}]),
    match(path={"type": "RegularExpression", "value": "/a/.*"}, queryParams=[{"name": "a", "value": "any thing"}]),
    match(headers=[{"name": "host", "type": "RegularExpression", "value": "^a b$"}]),
    request_filter(set=[{"name": "x", "value": "a b"}], add=[{"name": "x", "value": "c"}], remove=["y"]),
    rewrite({"type": "ReplacePrefixMatch", "replacePrefixMatch": ""}),
    rewrite({"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}),
    rewrite({"type": "ReplaceFullPath", "replaceFullPath": "/x"}, "Exact"),
    redirect(statusCode=308, scheme="https", hostname="a.example", port=8443),
    rule(timeouts={"request": "0s", "backendRequest": "5s"}),
    rule(timeouts={"request": "5s", "backendRequest": "5s"}),
    {"hostnames": ["a.example", "*.b.example"], "listeners": ["web"]},
    {"parentRefs": [{"name": "gw", "sectionName": "web"}]},
    {"parentRefs": [{"name": "gw", "port": 80}]},
]


PREFIXED = {"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/b"}}}


def cors(**parts: Any) -> dict[str, Any]:
    return rule(filters=[{"type": "CORS", "cors": parts}])


def mirror(**parts: Any) -> dict[str, Any]:
    return rule(filters=[{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "app"}, **parts}}])


@pytest.mark.parametrize("spec", GOOD)
def test_nothing_is_said_about_a_good_route(spec: dict[str, Any]) -> None:
    assert said(spec) == []


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"hostnames": ["1.2.3.4"]}, "error hostnames[0]: '1.2.3.4' is an IP address"),
        ({"listeners": ["wbe"]}, "*error listeners[0]: there is no listener 'wbe' (did you mean 'web'?)"),
        ({"listeners": ["sni"]}, "*error listeners[0]: listener 'sni' has protocol TLS; HTTPRoute needs HTTP or HTTPS"),
        ({"parentRefs": [{"name": "gw", "sectionName": "wbe"}]}, "*error parentRefs[0].sectionName: there is no listener 'wbe'"),
        ({"parentRefs": [{"name": "gw"}], "listeners": ["web"]}, "error parentRefs: stands beside listeners"),
        ({"parentRefs": [{"name": "gw", "port": 8}]}, "*warning : attaches to no listener"),
        (match(path={"value": "a"}), "error rules[0].matches[0].path.value: 'a': a path begins with '/'"),
        (match(path={"type": "RegularExpression", "value": "("}), "error rules[0].matches[0].path.value: '(' is not an RE2"),
        (match(headers=[{"name": "a b", "value": "x"}]), "error rules[0].matches[0].headers[0].name: 'a b'"),
        (match(headers=[{"name": "a", "value": " x"}]), "error rules[0].matches[0].headers[0].value: the value must be"),
        (
            match(headers=[{"name": "a", "value": "1"}, {"name": "A", "value": "2"}]),
            "*warning rules[0].matches[0].headers[1].name: 'A'",
        ),
        (match(queryParams=[{"name": "a=b", "value": "x"}]), "error rules[0].matches[0].queryParams[0].name: 'a=b'"),
        (
            match(queryParams=[{"name": "a", "type": "RegularExpression", "value": "("}]),
            "error rules[0].matches[0].queryParams[0].value",
        ),
        (
            match(queryParams=[{"name": "a", "value": "1"}, {"name": "a", "value": "2"}]),
            "*warning rules[0].matches[0].queryParams[1].name",
        ),
        (
            request_filter(set=[{"name": "Host", "value": "x"}]),
            "error rules[0].filters[0].requestHeaderModifier.set[0].name: 'host'",
        ),
        (request_filter(remove=["connection"]), "error rules[0].filters[0].requestHeaderModifier.remove[0]: 'connection' frames"),
        (request_filter(add=[{"name": "x", "value": "a\r\nb: c"}]), "error rules[0].filters[0].requestHeaderModifier.add[0].value"),
        (
            request_filter(set=[{"name": "x", "value": "1"}, {"name": "X", "value": "2"}]),
            "error rules[0].filters[0].requestHeaderModifier.set[1].name: 'X' stands twice",
        ),
        (rule(filters=[{"type": "URLRewrite"}]), "error rules[0].filters[0]: a filter of type URLRewrite needs 'urlRewrite'"),
        (
            rule(filters=[{"type": "URLRewrite", "urlRewrite": {}, "cors": {}}]),
            "error rules[0].filters[0].cors: does not belong to a filter of type URLRewrite",
        ),
        (rule(filters=[{"type": "URLRewrite", "urlRewrite": {}}] * 2), "error rules[0].filters[1].type: URLRewrite stands twice"),
        (
            rule(filters=[{"type": "URLRewrite", "urlRewrite": {"hostname": "*.a"}}]),
            "error rules[0].filters[0].urlRewrite.hostname: '*.a' must not be a wildcard",
        ),
        (rewrite({"type": "ReplaceFullPath"}), "error rules[0].filters[0].urlRewrite.path: type ReplaceFullPath needs"),
        (
            rewrite({"type": "ReplaceFullPath", "replaceFullPath": ""}),
            "error rules[0].filters[0].urlRewrite.path.replaceFullPath: ''",
        ),
        (
            rewrite({"type": "ReplaceFullPath", "replaceFullPath": "/", "replacePrefixMatch": "/"}),
            "error rules[0].filters[0].urlRewrite.path.replacePrefixMatch: does not belong",
        ),
        (
            rewrite({"type": "ReplacePrefixMatch", "replacePrefixMatch": "/x"}, "Exact"),
            "error rules[0].filters[0].urlRewrite.path.type: ReplacePrefixMatch needs every match",
        ),
        (
            rewrite({"type": "ReplacePrefixMatch", "replacePrefixMatch": "/../x"}),
            "error rules[0].filters[0].urlRewrite.path.replacePrefixMatch: '/../x' has a dot element",
        ),
        (
            rule(filters=[{"type": "RequestRedirect", "requestRedirect": {}}]),
            "error rules[0].backendRefs: a rule that redirects has no backends",
        ),
        (
            {
                "rules": [
                    {"filters": [{"type": "RequestRedirect", "requestRedirect": {}}, {"type": "URLRewrite", "urlRewrite": {}}]}
                ]
            },
            "error rules[0].filters: RequestRedirect and URLRewrite exclude each other",
        ),
        (rule(timeouts={"request": "1s", "backendRequest": "2s"}), "error rules[0].timeouts.backendRequest: 2s is longer"),
        (rule(backendRefs=[{"name": "ap"}]), "*error rules[0].backendRefs[0].name: there is no cluster 'ap' (did you mean 'app'?)"),
        (
            rule(backendRefs=[{"name": "app", "namespace": "x"}]),
            "*error rules[0].backendRefs[0].namespace: is for objects of the API",
        ),
        (rule(backendRefs=[{"name": "app", "kind": "Bucket"}]), "*error rules[0].backendRefs[0].kind: is for objects of the API"),
        (rule(backendRefs=[{"name": "app", "weight": 1_000_000}] * 2148), "error rules[0].backendRefs: the weights are too large"),
        (rule(rateLimits=["slo"]), "error rules[0].rateLimits[0]: there is no rate limit 'slo' (did you mean 'slow'?)"),
        (rule(sessionPersistence={"sessionName": "a;b"}), "error rules[0].sessionPersistence.sessionName: 'a;b' is not a name of"),
        (rule(sessionPersistence={"sessionName": "a" * 129}), "error rules[0].sessionPersistence.sessionName: 'aaa"),
        (
            rule(sessionPersistence={"sessionName": "Host", "type": "Header"}),
            "error rules[0].sessionPersistence.sessionName: 'host' cannot be changed",
        ),
        (
            rule(sessionPersistence={"type": "Header", "cookieConfig": {}}),
            "error rules[0].sessionPersistence.cookieConfig: is for sessions of type Cookie",
        ),
        (
            rule(sessionPersistence={"cookieConfig": {"lifetimeType": "Permanent"}}),
            "error rules[0].sessionPersistence.cookieConfig.lifetimeType: Permanent needs an absoluteTimeout",
        ),
        (
            cors(allowOrigins=["https://*.a.test", "ftp://a.test"]),
            "error rules[0].filters[0].cors.allowOrigins[1]: 'ftp://a.test' is not an origin, such as",
        ),
        (cors(allowOrigins=["http://a.test:0"]), "error rules[0].filters[0].cors.allowOrigins[0]: 'http://a.test:0' is not"),
        (cors(allowOrigins=["http://a.*.test"]), "error rules[0].filters[0].cors.allowOrigins[0]: 'http://a.*.test' is not an"),
        (cors(allowOrigins=["*", "http://a.test"]), "error rules[0].filters[0].cors.allowOrigins: '*' stands alone"),
        (cors(allowOrigins=["*"], allowMethods=["get"]), "error rules[0].filters[0].cors.allowMethods[0]: 'get' is not a method"),
        (cors(allowOrigins=["*"], allowHeaders=["a b"]), "error rules[0].filters[0].cors.allowHeaders[0]: 'a b' is not a header"),
        (cors(allowOrigins=["*"], exposeHeaders=[""]), "error rules[0].filters[0].cors.exposeHeaders[0]: '' is not a header field"),
        (cors(), "*warning rules[0].filters[0].cors: allows no origin"),
        (
            rule(filters=[{"type": "ExternalAuth", "externalAuth": {"protocol": "HTTP", "backendRef": {"name": "app"}}}]),
            "*error rules[0].filters[0].type: not served by this version: a filter of type ExternalAuth; requests of this rule are",
        ),
        (
            rule(filters=[{"type": "ExtensionRef", "extensionRef": {"group": "g", "kind": "K", "name": "n"}}]),
            "*error rules[0].filters[0].type: not served by this version",
        ),
        (
            mirror(percent=1, fraction={"numerator": 1}),
            "error rules[0].filters[0].requestMirror.fraction: stands beside percent",
        ),
        (
            mirror(fraction={"numerator": 5, "denominator": 4}),
            "error rules[0].filters[0].requestMirror.fraction.numerator: is larger than the denominator",
        ),
        (
            rule(filters=[{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "nowhere"}}}]),
            "*error rules[0].filters[0].requestMirror.backendRef.name: there is no cluster 'nowhere'; its copies are not sent",
        ),
        (
            rule(backendRefs=[{"name": "app", "filters": [{"type": "CORS", "cors": {"allowOrigins": ["*"]}}]}]),
            "*error rules[0].backendRefs[0].filters[0].type: not served by this version: a filter of type CORS on a backend",
        ),
        (
            rule(
                filters=[{"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/a"}}}],
                backendRefs=[{"name": "app", "filters": [PREFIXED]}],
            ),
            "error rules[0].backendRefs[0].filters[0]: the rule rewrites the path already",
        ),
        (
            rule(matches=[{"path": {"type": "Exact", "value": "/"}}], backendRefs=[{"name": "app", "filters": [PREFIXED]}]),
            "error rules[0].backendRefs[0].filters[0].urlRewrite.path.type: ReplacePrefixMatch needs every match",
        ),
        ({"kind": "GRPCRoute", **match(method={"type": "Exact"})}, "error rules[0].matches[0].method: needs a service"),
        (
            {"kind": "GRPCRoute", **match(method={"service": "a/b"})},
            "error rules[0].matches[0].method.service: 'a/b' is not a gRPC service",
        ),
        (
            {"kind": "GRPCRoute", **match(method={"type": "RegularExpression", "method": "("})},
            "error rules[0].matches[0].method.method: '(' is not an RE2 expression",
        ),
        ({"kind": "TLSRoute", **rule()}, "error : a TLSRoute needs hostnames"),
        ({"kind": "TLSRoute", "hostnames": ["a.b"]}, "error rules: a TLSRoute has one rule, and here are 0"),
        (
            {"kind": "TLSRoute", "hostnames": ["a.b"], "alpn": ["h2", ""], **rule()},
            "error alpn[1]: is no name of a protocol; h2 and http/1.1 are some",
        ),
        ({"kind": "TCPRoute", "rules": [{}, {}]}, "error rules: a TCPRoute has one rule, and here are 2"),
        ({"kind": "TCPRoute", "listeners": ["web"]}, "*error listeners[0]: listener 'web' has protocol HTTP; TCPRoute needs TCP"),
        ({"kind": "TCPRoute", **rule()}, "*warning : attaches to no listener: there is none of protocol TCP that it names"),
        (
            {"kind": "TCPRoute", "rules": [{"backendRefs": [{"name": "nowhere"}]}]},
            "*error rules[0].backendRefs[0].name: there is no cluster 'nowhere'; its connections are closed",
        ),
    ],
)
def test_each_rule_names_the_key_that_breaks_it(spec: dict[str, Any], says: str) -> None:
    assert [line for line in said(spec) if line.startswith(says)], said(spec)


def test_hosts_that_no_listener_takes_are_told() -> None:
    config = msgspec.structs.replace(CONFIG, listeners=(msgspec.structs.replace(CONFIG.listeners[0], hostname="*.example.com"),))
    assert said({"hostnames": ["a.example.com"]}, config) == []
    assert said({"hostnames": ["example.com"]}, config)[0].startswith("*warning hostnames: none of its listeners takes any")


def test_passing_tls_on_inside_of_tls_is_told() -> None:
    secure = msgspec.structs.replace(CONFIG.clusters[0], tls=ClusterTLS(server_name="a.b"))
    config = msgspec.structs.replace(CONFIG, clusters=(secure,))
    passed = {"kind": "TLSRoute", "hostnames": ["a.b"], "rules": [{"backendRefs": [{"name": secure.name}]}]}
    assert next(text for text in said(passed, config) if "once more" in text).startswith("*warning rules[0].backendRefs[0].name")
    assert not any("once more" in text for text in said(passed))
