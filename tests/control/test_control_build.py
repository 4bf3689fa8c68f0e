"""The model that compile packs: everything resolved, everything ordered, what is not served already turned into an answer."""

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.control.build import LONGEST_MS, Backend, Cors, HeaderModifier, Model, PathRewrite, Redirect, Rewrite, Rule, build
from gateway.model.config import Config
from gateway.model.route import hostnames_of
from gateway.model.scalars import decode_hook
from gateway.sources.files import load

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "config").glob("*.yaml"))


def built(**root: Any) -> Model:
    for route in root.get("routes", []):
        route.setdefault("kind", "HTTPRoute")
    return build(msgspec.convert(root, Config, dec_hook=decode_hook))


def one_rule(spec: dict[str, Any], **root: Any) -> Rule:
    clusters = root.pop("clusters", [{"name": "app", "endpoints": ["a:1"]}])
    return built(routes=[{"name": "r", "rules": [spec]}], clusters=clusters, **root).routes[0].rules[0]


UNRESOLVED = Backend(cluster=None, weight=1, filters=())


def test_without_listeners_the_default_one_is_opened() -> None:
    model = built()
    assert [(listener.name, model.ports[listener.port].address) for listener in model.listeners] == [("http", "[::]:8080")]


def test_listeners_of_one_address_share_its_port() -> None:
    model = built(
        listeners=[
            {"name": "c", "port": 80, "hostname": "C.example", "proxyProtocol": "accept"},
            {"name": "b", "address": "127.0.0.1:81"},
            {"name": "a", "address": "[::]:80", "proxyProtocol": "accept"},
        ]
    )
    assert [(port.address, port.host, port.port, port.proxy_protocol, port.listeners) for port in model.ports] == [
        ("127.0.0.1:81", "127.0.0.1", 81, False, (1,)),
        ("[::]:80", "::", 80, True, (0, 2)),
    ]
    assert [(listener.name, listener.hostname, listener.port, listener.port_number) for listener in model.listeners] == [
        ("a", "", 1, 80),
        ("b", "", 0, 81),
        ("c", "c.example", 1, 80),
    ]


def test_a_listener_s_limits_stand_over_the_root_s() -> None:
    model = built(
        limits={"idleTimeout": "1s", "maxHeaderCount": 7, "bodyTimeout": "99999h", "maxConnectionAge": "99999h"},
        listeners=[{"name": "a", "port": 1, "limits": {"idleTimeout": "2s", "maxBodySize": "1KiB"}}, {"name": "b", "port": 2}],
    )
    first, second = (listener.limits for listener in model.listeners)
    assert (first.idle_timeout, first.max_header_count, first.max_body_size) == (2000, 7, 1024)
    assert (second.idle_timeout, second.max_header_count, second.max_body_size) == (1000, 7, 0)
    assert first.body_timeout == first.max_connection_age == LONGEST_MS, "what a u32 of milliseconds cannot hold is cut"


def test_a_cluster_speaks_what_it_says() -> None:
    model = built(
        listeners=[{"name": "a", "port": 1}],
        clusters=[{"name": "h2", "protocol": "HTTP2"}, {"name": "auto", "protocol": "auto"}, {"name": "plain"}],
    )
    spoken = [(cluster.name, cluster.protocol) for cluster in model.clusters]
    assert spoken == [("auto", "auto"), ("h2", "HTTP2"), ("plain", "HTTP1")]


def test_of_routes_that_match_alike_the_oldest_stands_first() -> None:
    times = {"new": "2024-05-01T00:00:00Z", "b": "2023-05-01T00:00:00Z", "a": "2023-05-01T00:00:00Z"}
    routes = [{"name": "file"}, *({"name": name, "created": time} for name, time in times.items())]
    assert [route.name for route in built(routes=routes).routes] == ["file", "a", "b", "new"]


def test_who_watches_kubernetes_listens_where_a_gateway_says() -> None:
    assert [listener.port_number for listener in built().listeners] == [8080]
    assert built(kubernetes={"enabled": True}).listeners == ()


def test_a_route_goes_where_its_kind_belongs() -> None:
    tunnel = [{"backendRefs": [{"name": "two", "weight": 3}, {"name": "none"}, {"name": "one", "weight": 0}]}]
    model = built(
        listeners=[
            {"name": "clear", "port": 1},
            {"name": "ends", "port": 2, "protocol": "HTTPS"},
            {"name": "passes", "port": 2, "protocol": "TLS", "hostname": "*.example.com"},
            {"name": "raw", "port": 3, "protocol": "TCP"},
        ],
        clusters=[{"name": "one", "endpoints": ["a:1"]}, {"name": "two", "endpoints": ["a:1"], "tls": {}}],
        routes=[
            {"name": "http"},
            {"name": "sni", "kind": "TLSRoute", "hostnames": ["A.example.com", "b.test"], "rules": tunnel},
            {"name": "tcp", "kind": "TCPRoute", "rules": tunnel},
        ],
    )
    assert [(listener.name, listener.protocol) for listener in model.listeners] == [
        ("clear", "HTTP"), ("ends", "HTTPS"), ("passes", "TLS"), ("raw", "TCP"),
    ]  # fmt: skip
    assert [(cluster.name, cluster.is_tls) for cluster in model.clusters] == [("one", False), ("two", True)]
    attached = {
        route.name: [(model.listeners[each.listener].name, each.hostnames) for each in route.attachments] for route in model.routes
    }
    assert attached == {
        "http": [("clear", ("",)), ("ends", ("",))],
        "sni": [("passes", ("a.example.com",))],
        "tcp": [("raw", ("",))],
    }
    for route in model.routes[1:]:
        (rule,) = route.rules
        assert [(each.path_type, each.path, each.method) for each in rule.matches] == [("PathPrefix", "", "")]
        assert [(each.cluster, each.weight) for each in rule.backends] == [("two", 3), (None, 1)]


def test_hosts_are_cut_to_each_listener() -> None:
    """HTTPRouteHostnameIntersection, HTTPRouteListenerHostnameMatching."""
    model = built(
        listeners=[
            {"name": "a", "port": 1},
            {"name": "b", "port": 1, "hostname": "*.example.com"},
            {"name": "c", "port": 1, "hostname": "x.example.com"},
        ],
        routes=[
            {"name": "all"},
            {"name": "some", "hostnames": ["Y.Example.com", "x.example.com", "*.example.org"]},
            {"name": "wide", "hostnames": ["*.com"], "listeners": ["b", "c"]},
            {"name": "none", "hostnames": ["other.net"], "listeners": ["c"]},
        ],
    )
    assert {
        route.name: [(model.listeners[each.listener].name, each.hostnames) for each in route.attachments] for route in model.routes
    } == {
        "all": [("a", ("",)), ("b", ("*.example.com",)), ("c", ("x.example.com",))],
        "some": [
            ("a", ("*.example.org", "x.example.com", "y.example.com")),
            ("b", ("x.example.com", "y.example.com")),
            ("c", ("x.example.com",)),
        ],
        "wide": [("b", ("*.example.com",)), ("c", ("x.example.com",))],
        "none": [],
    }


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ({}, ["a", "b"]),
        ({"listeners": ["b"]}, ["b"]),
        ({"parentRefs": [{"name": "gw"}]}, ["a", "b"]),
        ({"parentRefs": [{"name": "gw", "sectionName": "a"}]}, ["a"]),
        ({"parentRefs": [{"name": "gw", "port": 2}]}, ["b"]),
        ({"parentRefs": [{"name": "gw", "sectionName": "a", "port": 2}]}, []),
    ],
)
def test_a_route_attaches_where_it_asks_to(spec: dict[str, Any], names: list[str]) -> None:
    model = built(listeners=[{"name": "a", "port": 1}, {"name": "b", "port": 2}], routes=[{"name": "r", **spec}])
    assert [model.listeners[each.listener].name for each in model.routes[0].attachments] == names


def test_a_rule_without_matches_takes_every_path() -> None:
    (match,) = one_rule({}).matches
    assert (match.path_type, match.path, match.method, match.headers, match.query) == ("PathPrefix", "", "", (), ())


def test_matches_are_in_their_normal_form() -> None:
    (match,) = one_rule(
        {
            "matches": [
                {
                    "path": {"type": "PathPrefix", "value": "/%7Euser/"},
                    "method": "GET",
                    "headers": [
                        {"name": "X-B", "value": "1"},
                        {"name": "x-b", "value": "2"},
                        {"name": "X-A", "value": ".", "type": "RegularExpression"},
                    ],
                    "queryParams": [{"name": "B", "value": "1"}, {"name": "b", "value": "2"}],
                }
            ]
        }
    ).matches
    assert match.path == "/~user"
    assert [(each.name, each.value, each.is_regex) for each in match.headers] == [("x-a", ".", True), ("x-b", "1", False)]
    assert [(each.name, each.value) for each in match.query] == [("B", "1"), ("b", "2")], "names of parameters keep their case"
    (exact,) = one_rule({"matches": [{"path": {"type": "Exact", "value": "/a/"}}]}).matches
    assert exact.path == "/a/"


def test_filters_are_in_their_order_with_lower_case_names() -> None:
    rule = one_rule(
        {
            "filters": [
                {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"remove": ["Server"]}},
                {
                    "type": "URLRewrite",
                    "urlRewrite": {"hostname": "A.B", "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/x/"}},
                },
                {
                    "type": "RequestHeaderModifier",
                    "requestHeaderModifier": {"set": [{"name": "X-A", "value": "V"}], "add": [{"name": "X-B", "value": "W"}]},
                },
            ],
            "backendRefs": [{"name": "app"}],
        }
    )
    assert rule.filters == (
        HeaderModifier(on="response", set=(), add=(), remove=("server",)),
        Rewrite(hostname="a.b", path=PathRewrite("prefix", "/x")),
        HeaderModifier(on="request", set=(("x-a", "V"),), add=(("x-b", "W"),), remove=()),
    )


def test_a_redirect_has_no_backends() -> None:
    redirect = {"scheme": "https", "port": 8443, "statusCode": 308, "path": {"type": "ReplaceFullPath", "replaceFullPath": "/x"}}
    rule = one_rule({"filters": [{"type": "RequestRedirect", "requestRedirect": redirect}]})
    assert rule.filters == (Redirect(scheme="https", hostname="", port=8443, path=PathRewrite("full", "/x"), status=308),)
    assert rule.backends == ()


def test_mirrors_and_origins_stand_beside_the_filters() -> None:
    """A mirror that leads nowhere, or of a share of nothing, is left out; origins are as browsers write them."""

    def mirror(name: str, **share: Any) -> dict[str, Any]:
        return {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": name}, **share}}

    given = ["HTTPS://B.test:443", "http://a.test:80", "https://*.c.test:8443"]
    allowed = {"allowOrigins": given, "allowMethods": ["PUT", "GET", "PUT"]}
    rule = one_rule(
        {
            "filters": [
                mirror("app"),
                mirror("nowhere"),
                mirror("app", percent=0),
                mirror("app", percent=50),
                {"type": "CORS", "cors": allowed},
                mirror("app", fraction={"numerator": 1, "denominator": 1000}),
            ],
            "backendRefs": [{"name": "app"}],
        }
    )
    assert rule.filters == () and [each.cluster for each in rule.mirrors] == ["app", "app", "app"]
    assert [each.share / 2**32 for each in rule.mirrors] == pytest.approx([1, 0.5, 0.001], rel=1e-6)
    origins = ("http://a.test", "https://*.c.test:8443", "https://b.test")
    assert rule.cors == Cors(origins, credentials=False, methods=("PUT", "GET"), headers=(), expose=(), max_age=5)


AUTH = {"protocol": "HTTP", "backendRef": {"name": "app"}}


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"backendRefs": []},
        {"backendRefs": [{"name": "app", "weight": 0}]},
        {"backendRefs": [{"name": "nowhere"}]},
        {"backendRefs": [{"name": "app", "kind": "Bucket"}]},
        {"backendRefs": [{"name": "app", "namespace": "other"}]},
        {"backendRefs": [{"name": "app"}], "filters": [{"type": "ExternalAuth", "externalAuth": AUTH}]},
        {
            "backendRefs": [{"name": "app"}],
            "filters": [{"type": "ExtensionRef", "extensionRef": {"group": "", "kind": "K", "name": "n"}}],
        },
        {"backendRefs": [{"name": "app", "filters": [{"type": "ExternalAuth", "externalAuth": AUTH}]}]},
    ],
)
def test_what_must_answer_500_has_one_backend_that_is_none(spec: dict[str, Any]) -> None:
    """HTTPRouteNoBackendRefs, HTTPRouteInvalidNonExistentBackendRef, HTTPRouteInvalidBackendRefUnknownKind; filters not served."""
    rule = one_rule(spec)
    assert rule.backends == (UNRESOLVED,)
    assert rule.filters == ()


def test_a_backend_that_does_not_resolve_keeps_its_share() -> None:
    rule = one_rule(
        {
            "backendRefs": [
                {
                    "name": "app",
                    "weight": 3,
                    "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["A"]}}],
                },
                {"name": "no", "weight": 2},
                {"name": "app", "weight": 0},
            ]
        }
    )
    assert rule.backends == (Backend("app", 3, (HeaderModifier("request", (), (), ("a",)),)), Backend(None, 2, ()))


def test_times_and_retries_have_their_defaults() -> None:
    rule = one_rule({})
    assert (rule.request_timeout, rule.backend_timeout, rule.attempts, rule.codes, rule.backoff) == (0, 0, 0, (), 0)
    rule = one_rule(
        {"timeouts": {"request": "10s", "backendRequest": "3s"}, "retry": {"codes": [503, 502, 503], "backoff": "20ms"}}
    )
    assert (rule.request_timeout, rule.backend_timeout, rule.attempts, rule.codes, rule.backoff) == (
        10_000,
        3000,
        1,
        (502, 503),
        20,
    )
    assert one_rule({"retry": {"attempts": 0, "codes": [503]}}).attempts == 0


def test_clusters_have_their_endpoints_parsed_and_their_key_split() -> None:
    (cluster,) = built(
        clusters=[
            {
                "name": "a",
                "endpoints": [
                    "unix:/run/a",
                    "b:1",
                    {"address": "B.:1", "weight": 9},
                    {"address": "[::1]:2", "weight": 3, "zone": "z"},
                ],
                "loadBalancing": {"policy": "ConsistentHash", "key": "header:X-User"},
                "outlierDetection": {"consecutiveErrors": 0},
            }
        ]
    ).clusters
    assert [(each.text, each.kind, each.weight, each.zone) for each in cluster.endpoints] == [
        ("[::1]:2", "ip", 3, "z"),
        ("b:1", "name", 1, ""),
        ("unix:/run/a", "unix", 1, ""),
    ]
    assert (cluster.policy, cluster.key_kind, cluster.key_name) == ("ConsistentHash", "header", "x-user")
    assert (cluster.outlier_errors, cluster.outlier_ejection, cluster.outlier_percent) == (0, 10_000, 50)


@pytest.mark.parametrize(
    ("key", "parts"), [("cookie:Sid", ("cookie", "Sid")), ("query:Q", ("query", "Q")), ("clientAddress", ("clientAddress", ""))]
)
def test_keys_of_consistent_hash(key: str, parts: tuple[str, str]) -> None:
    (cluster,) = built(clusters=[{"name": "a", "loadBalancing": {"policy": "ConsistentHash", "key": key}}]).clusters
    assert (cluster.key_kind, cluster.key_name) == parts


def shuffled(config: Config, seed: int) -> Config:
    random_ = random.Random(seed)
    lists = {name: list(getattr(config, name)) for name in ("listeners", "routes", "clusters", "rate_limits")}
    for items in lists.values():
        random_.shuffle(items)
    routes = []
    for route in lists["routes"]:
        hostnames = list(hostnames_of(route))
        random_.shuffle(hostnames)
        routes.append(msgspec.structs.replace(route, hostnames=tuple(hostnames)) if hostnames else route)
    lists["routes"] = routes
    clusters = []
    for cluster in lists["clusters"]:
        endpoints = list(cluster.endpoints)
        random_.shuffle(endpoints)
        clusters.append(msgspec.structs.replace(cluster, endpoints=tuple(endpoints)))
    lists["clusters"] = clusters
    return msgspec.structs.replace(config, **{name: tuple(items) for name, items in lists.items()})


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_order_of_the_files_makes_no_difference(path: Path) -> None:
    config = load(path).config
    assert config is not None
    model = build(config)
    for seed in range(5):
        assert build(shuffled(config, seed)) == model


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_what_compile_relies_on(path: Path) -> None:
    """The promises of the docstrings, on everything that we ship."""
    config = load(path).config
    assert config is not None
    model = build(config)
    assert [port.address for port in model.ports] == sorted({port.address for port in model.ports})
    for number, listener in enumerate(model.listeners):
        assert number in model.ports[listener.port].listeners
    names = {cluster.name for cluster in model.clusters}
    for route in model.routes:
        assert [rule.number for rule in route.rules] == list(range(len(route.rules)))
        for attachment in route.attachments:
            assert attachment.hostnames == tuple(sorted(set(attachment.hostnames))) != ()
        for rule in route.rules:
            assert rule.matches
            assert bool(rule.backends) != any(isinstance(each, Redirect) for each in rule.filters)
            for backend in rule.backends:
                assert backend.weight >= 1
                assert backend.cluster is None or backend.cluster in names
