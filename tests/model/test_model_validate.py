"""Semantic rules for everything but routes: what is fatal, what is left out, what is only odd."""

from typing import Any

import msgspec
import pytest

from gateway.model.config import Config
from gateway.model.problem import key_text
from gateway.model.scalars import decode_hook
from gateway.model.validate import Validated, validate


def checked(**root: Any) -> Validated:
    for route in root.get("routes", []):
        route.setdefault("kind", "HTTPRoute")
    return validate(msgspec.convert(root, Config, dec_hook=decode_hook))


def said(validated: Validated) -> list[str]:
    return [
        f"{'fatal ' if finding.is_fatal else ''}{finding.severity} {key_text(finding.path)}: {finding.message}"
        for finding in validated.findings
    ]


def test_an_empty_configuration_is_a_good_one() -> None:
    assert said(checked()) == []


@pytest.mark.parametrize(
    ("root", "says"),
    [
        ({"admin": {"address": "nowhere"}}, "fatal error admin.address: 'nowhere' has no port; write it as host:port"),
        ({"admin": {"address": "example.com:1"}}, "fatal error admin.address: 'example.com' is a name"),
        ({"accessLog": {"path": ""}}, "fatal error accessLog.path: is empty"),
        ({"redis": {"url": "http://h"}}, "fatal error redis.url: must begin with redis://"),
        ({"redis": {"url": "redis://h", "timeout": "0s"}}, "fatal error redis.timeout: must be longer than 0s"),
        ({"limits": {"maxHeaderBytes": 10}}, "fatal error limits.maxHeaderBytes: 10 is out of range"),
        ({"limits": {"maxRequestLine": "2MiB"}}, "fatal error limits.maxRequestLine: 2MiB is out of range"),
        ({"listeners": [{"name": "a"}]}, "fatal error listeners[0]: needs either port or address"),
        ({"listeners": [{"name": "a", "port": 1, "address": ":1"}]}, "fatal error listeners[0]: needs either port or address"),
        ({"listeners": [{"name": "a", "address": "a.example:1"}]}, "fatal error listeners[0].address: 'a.example' is a name"),
        ({"listeners": [{"name": "", "port": 1}]}, "fatal error listeners[0].name: '' is not a name"),
        ({"listeners": [{"name": "a", "port": 1, "hostname": "*"}]}, "fatal error listeners[0].hostname: '*'"),
        ({"listeners": [{"name": "a", "port": 1, "protocol": "HTTPS"}]}, "fatal error listeners[0]: an HTTPS listener needs tls"),
        (
            {"listeners": [{"name": "a", "port": 1, "tls": {}}]},
            "fatal error listeners[0].tls: a listener of protocol HTTP has no tls",
        ),
        (
            {"listeners": [{"name": "a", "port": 1, "protocol": "TCP", "hostname": "a.b"}]},
            "fatal error listeners[0].hostname: a TCP listener sees no host name",
        ),
        (
            {"listeners": [{"name": "a", "port": 1, "limits": {"maxRequestLine": 1}}]},
            "fatal error listeners[0].limits.maxRequestLine: 1 is out of range",
        ),
        (
            {"listeners": [{"name": "a", "port": 1, "protocol": "HTTPS", "tls": {"clientCertificate": {}}}]},
            "fatal error listeners[0].tls.clientCertificate: mode require needs 'ca'",
        ),
        (
            {"listeners": [{"name": "a", "port": 1, "publicPort": 80}, {"name": "b", "port": 1, "hostname": "b.test"}]},
            "fatal error listeners[1].publicPort: listener 'a' on [::]:1 has 80; connections do not tell which",
        ),
        (
            {"kubernetes": {"binds": [{"gateway": "a/b", "port": 80, "bind": n} for n in (81, 82)]}},
            "fatal error kubernetes.binds[1]: port 80 of a/b is bound to another port already",
        ),
        (
            {"listeners": [{"name": "a", "port": 1, "protocol": "TLS", "tls": {"certificates": [{"cert": "c", "key": "k"}],
                            "clientCertificate": {"ca": "a", "mode": "insecureFallback"}}}]},
            "warning listeners[0].tls.clientCertificate.mode: lets in clients without a certificate and with one that fails",
        ),
        (
            {"listeners": [{"name": "a", "port": 1, "protocol": "TLS", "tls": {}}]},
            "fatal error listeners[0].tls: needs certificates to end TLS; without tls the listener passes it on undecrypted",
        ),
        (
            {"listeners": [{"name": "a", "port": 1, "protocol": "HTTPS", "tls": {"certificates": [{"cert": "", "key": "k"}]}}]},
            "fatal error listeners[0].tls.certificates[0].cert: is empty; a file is meant",
        ),
        ({"clusters": [{"name": "a"}]}, "warning clusters[0]: has no endpoints"),
        ({"clusters": [{"name": "a", "endpoints": ["b"]}]}, "error clusters[0].endpoints[0]: 'b' has no port"),
        ({"clusters": [{"name": "a", "endpoints": [{"address": "b"}]}]}, "error clusters[0].endpoints[0].address: 'b' has no port"),
        ({"clusters": [{"name": "a", "endpoints": ["b:1", "B.:1"]}]}, "warning clusters[0].endpoints[1]: the same endpoint as"),
        ({"clusters": [{"name": "a", "connectTimeout": "0s"}]}, "error clusters[0].connectTimeout: must be longer than 0s"),
        ({"clusters": [{"name": "a b"}]}, "error clusters[0].name: 'a b' is not a name"),
        (
            {"clusters": [{"name": "a", "loadBalancing": {"policy": "ConsistentHash"}}]},
            "error clusters[0].loadBalancing: ConsistentHash needs 'key'",
        ),
        (
            {"clusters": [{"name": "a", "loadBalancing": {"policy": "ConsistentHash", "key": "header:"}}]},
            "error clusters[0].loadBalancing.key: 'header:' is not a key",
        ),
        (
            {"clusters": [{"name": "a", "loadBalancing": {"key": "header:x"}}]},
            "warning clusters[0].loadBalancing.key: policy LeastRequest",
        ),
        ({"clusters": [{"name": "a", "tls": {"subjectAltNames": ["a b"]}}]}, "error clusters[0].tls.subjectAltNames[0]: 'a b'"),
        ({"clusters": [{"name": "a", "tls": {"subjectAltNames": ["spiffe://a b", "10.0.0.256"]}}]},
            "error clusters[0].tls.subjectAltNames[1]: '10.0.0.256' is an IP address"),
        ({"clusters": [{"name": "a", "tls": {"serverName": "*.b"}}]}, "error clusters[0].tls.serverName: '*.b' must not be"),
        ({"clusters": [{"name": "a", "tls": {"serverName": "b", "ca": ""}}]}, "error clusters[0].tls.ca: is empty"),
        (
            {"clusters": [{"name": "a", "tls": {"serverName": "b", "clientCertificate": {"cert": "c", "key": ""}}}]},
            "error clusters[0].tls.clientCertificate.key: is empty; a file is meant",
        ),
        ({"clusters": [{"name": "a", "tls": {}, "endpoints": ["b:1", "c:1"]}]}, "error clusters[0].tls: needs 'serverName'"),
        ({"clusters": [{"name": "a", "tls": {}, "endpoints": ["unix:/b"]}]}, "error clusters[0].tls: needs 'serverName'"),
        ({"rateLimits": [{"name": "a", "limit": {"requests": 1, "per": "0s"}}]}, "error rateLimits[0].limit.per: must be longer"),
        ({"rateLimits": [{"name": "a", "limit": {"requests": 1, "per": "1s"}, "key": []}]}, "error rateLimits[0].key: is empty"),
        (
            {"rateLimits": [{"name": "a", "limit": {"requests": 1, "per": "1s"}, "key": ["ip"]}]},
            "error rateLimits[0].key[0]: 'ip' is not a key",
        ),
    ],
)
def test_each_rule_names_the_key_that_breaks_it(root: dict[str, Any], says: str) -> None:
    assert [line for line in said(checked(**root)) if line.startswith(says)], said(checked(**root))


def test_listeners_that_share_a_port_differ_in_their_hostname_alone() -> None:
    good = checked(listeners=[{"name": "a", "port": 1, "hostname": "a.b"}, {"name": "b", "port": 1}, {"name": "c", "port": 2}])
    assert said(good) == []
    bad = checked(
        listeners=[
            {"name": "a", "port": 1, "hostname": "a.b"},
            {"name": "b", "port": 1, "hostname": "A.B."},
            {"name": "c", "address": "[::]:1", "proxyProtocol": "accept"},
            {"name": "d", "port": 1, "hostname": "x.y", "protocol": "TCP"},
        ]
    )
    assert [line for line in said(bad) if "on [::]:1 has" in line] == [
        "fatal error listeners[1].hostname: listener 'a' on [::]:1 has hostname 'a.b' too",
        "fatal error listeners[2].proxyProtocol: listener 'a' on [::]:1 has off",
        "fatal error listeners[3].protocol: listener 'a' on [::]:1 has protocol HTTP",
    ]


def test_what_ends_tls_and_what_passes_it_on_may_share_a_port() -> None:
    tls = {"certificates": [{"cert": "c", "key": "k"}]}
    ends = {"name": "a", "port": 1, "hostname": "a.b", "protocol": "HTTPS", "tls": tls}
    assert said(checked(listeners=[ends, {"name": "b", "port": 1, "protocol": "TLS"}])) == []
    assert said(checked(listeners=[ends, {"name": "b", "port": 1}])) == [
        "fatal error listeners[1].protocol: listener 'a' on [::]:1 has protocol HTTPS"
    ]


def test_tls_to_endpoints_with_one_name_needs_no_other() -> None:
    for endpoints in (["b:1", "b:2"], ["10.0.0.1:1"], ["[::1]:1", "[::1]:2"]):
        assert said(checked(clusters=[{"name": "a", "tls": {}, "endpoints": endpoints}])) == []
    more = {"subjectAltNames": ["spiffe://cluster/ns/x", "10.0.0.1", "*.b.c"]}
    assert said(checked(clusters=[{"name": "a", "tls": more, "endpoints": ["b:1", "c:1"]}])) == []


def test_one_tcp_route_has_a_listener_and_the_others_are_told() -> None:
    tunnel = {"kind": "TCPRoute", "rules": [{"backendRefs": [{"name": "c"}]}]}
    root = {
        "listeners": [{"name": "x", "port": 1, "protocol": "TCP"}, {"name": "y", "port": 2, "protocol": "TCP"}],
        "clusters": [{"name": "c", "endpoints": ["b:1"]}],
    }
    apart = [{"name": "b", "listeners": ["x"], **tunnel}, {"name": "a", "listeners": ["y"], **tunnel}]
    assert said(checked(**root, routes=apart)) == []
    both = [{"name": "b", **tunnel}, {"name": "a", "listeners": ["y"], **tunnel}]
    assert said(checked(**root, routes=both)) == [
        "warning routes[0]: the connections of listener 'y' go to the TCPRoute 'a' already"
    ]


def test_every_address_and_every_ipv4_address_overlap() -> None:
    bad = checked(listeners=[{"name": "a", "port": 80}, {"name": "b", "address": "0.0.0.0:80"}])
    assert said(bad) == ["fatal error listeners[1]: 0.0.0.0:80 overlaps the address of listener 'a'"]
    assert said(checked(listeners=[{"name": "a", "port": 80}, {"name": "b", "address": "127.0.0.1:80"}])) == []


def test_a_bad_cluster_is_left_out_and_the_rest_goes_on() -> None:
    validated = checked(
        clusters=[{"name": "bad", "endpoints": ["x"]}, {"name": "good", "endpoints": ["x:1"]}],
        routes=[{"name": "r", "rules": [{"backendRefs": [{"name": "bad"}, {"name": "good"}]}]}],
    )
    assert [cluster.name for cluster in validated.config.clusters] == ["good"]
    assert [route.name for route in validated.config.routes] == ["r"], "its share of the bad cluster is answered 500"
    assert "error routes[0].rules[0].backendRefs[0].name: cluster 'bad' was left out; its share is answered 500" in said(validated)
    assert not any(finding.is_fatal for finding in validated.findings)


def test_a_name_stands_once_among_its_kind_and_the_first_stays() -> None:
    validated = checked(clusters=[{"name": "a", "endpoints": ["x:1"]}, {"name": "a", "endpoints": ["x:2"]}])
    assert said(validated) == ["error clusters[1].name: the name 'a' stands twice among clusters"]
    assert [cluster.endpoints for cluster in validated.config.clusters] == [("x:1",)]


def test_ports_may_be_chosen_by_the_kernel() -> None:
    assert said(checked(listeners=[{"name": "a", "address": "127.0.0.1:0"}], admin={"address": "127.0.0.1:0"})) == []
