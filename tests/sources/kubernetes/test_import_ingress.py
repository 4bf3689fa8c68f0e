"""Ingresses with annotations of ingress-nginx, imported, and asked through the router that serves what was made of them."""

import pytest
import yaml
from kube import Cluster, make_pair, secret, service, store_of

from gateway.sources.kubernetes.import_ingress import Imported, import_ingresses

APPS = service("web", 80) + service("api", 80) + service("new", 80)
PAIR = make_pair("shop.test")
PREFIX = "nginx.ingress.kubernetes.io/"


def ingress(
    annotations: dict[str, str], path: str = "/", name: str = "i", tls: bool = False, to: str = "web", type_: str = "Prefix"
) -> str:
    shown = {f"{PREFIX}{key}": value for key, value in annotations.items()}
    rule = {"path": path, "pathType": type_, "backend": {"service": {"name": to, "port": {"number": 80}}}}
    spec = {"rules": [{"host": "shop.test", "http": {"paths": [rule]}}]} | (
        {"tls": [{"hosts": ["shop.test"], "secretName": "s"}]} if tls else {}
    )
    return str(yaml.safe_dump({"kind": "Ingress", "metadata": {"name": name, "annotations": shown}, "spec": spec})) + "---\n"


def imported(*texts: str) -> tuple[Imported, Cluster]:
    done = import_ingresses(store_of(*texts))
    cluster = Cluster(yaml.safe_dump_all(done.objects), APPS, secret("s", PAIR))
    return done, cluster


def test_a_plain_ingress_is_a_gateway_and_a_route() -> None:
    done, cluster = imported(ingress({}, "/a"))
    assert [each["kind"] for each in done.objects] == ["Gateway", "HTTPRoute"] and done.notes == []
    assert (cluster.ask("/a/b", "shop.test"), cluster.ask("/", "shop.test"), cluster.ask("/a", "x.test")) == (
        "web:80",
        "404",
        "404",
    )
    assert cluster.conditions("HTTPRoute", "i") == {"Accepted": "True Accepted", "ResolvedRefs": "True ResolvedRefs"}


def test_tls_redirects_as_nginx_does() -> None:
    done, cluster = imported(ingress({}, tls=True))
    assert cluster.ask("/x", "shop.test", 443) == "web:80"
    assert cluster.ask("/x", "shop.test", 80) == "308 https://shop.test/x" and done.notes == []
    _, without = imported(ingress({"ssl-redirect": "false"}, tls=True))
    assert [without.ask("/x", "shop.test", port) for port in (80, 443)] == ["web:80", "web:80"]


@pytest.mark.parametrize(
    ("annotations", "path", "asked", "forwarded"),
    [
        ({"rewrite-target": "/"}, "/a", "/a/b", "/"),
        ({"rewrite-target": "/$2"}, "/a(/|$)(.*)", "/a/b/c", "/b/c"),
        ({"rewrite-target": "/v2/$2"}, "/a(/|$)(.*)", "/a/b", "/v2/b"),
        ({"rewrite-target": "/v1/$1"}, "/(.*)", "/b", "/v1/b"),
        ({"use-regex": "true"}, "/a[0-9]+/x", "/A12/x/y", "/A12/x/y"),
    ],
)
def test_rewrites(annotations: dict[str, str], path: str, asked: str, forwarded: str) -> None:
    done, cluster = imported(ingress(annotations, path, type_="ImplementationSpecific"))
    assert cluster.explain(asked, "shop.test").forwarded_path == forwarded and done.notes == []


@pytest.mark.parametrize(
    ("annotations", "answer"),
    [
        ({"permanent-redirect": "https://new.test/there"}, "301 https://new.test/there"),
        ({"permanent-redirect": "https://new.test", "permanent-redirect-code": "308"}, "308 https://new.test/x"),
        ({"temporal-redirect": "https://new.test/"}, "302 https://new.test/"),
    ],
)
def test_redirects(annotations: dict[str, str], answer: str) -> None:
    assert imported(ingress(annotations))[1].ask("/x", "shop.test") == answer


def test_other_names_and_roots() -> None:
    _, cluster = imported(ingress({"app-root": "/app", "from-to-www-redirect": "true", "server-alias": "alias.test, other.test"}))
    assert cluster.ask("/", "shop.test") == "302 http://shop.test/app" and cluster.ask("/x", "shop.test") == "web:80"
    assert cluster.ask("/x", "www.shop.test") == "308 http://shop.test/x" and cluster.ask("/x", "alias.test") == "web:80"


def test_what_the_backend_sees_and_how_long_it_may_take() -> None:
    annotations = {
        "upstream-vhost": "inner.test", "x-forwarded-prefix": "/pre", "proxy-read-timeout": "30", "proxy-send-timeout": "40",
        "proxy-next-upstream": "error http_502 http_503", "proxy-next-upstream-tries": "3",
    }  # fmt: skip
    _, cluster = imported(ingress(annotations))
    found, rule = cluster.explain("/x", "shop.test"), cluster.rule("HTTPRoute/default/i")
    assert found.authority == "inner.test" and ("x-forwarded-prefix", "/pre") in found.forwarded_headers
    assert (rule.backend_timeout, rule.attempts, rule.codes) == (40_000, 2, (502, 503))


def test_a_canary_becomes_part_of_its_ingress() -> None:
    weighed = ingress({"canary": "true", "canary-weight": "20"}, name="canary", to="new")
    done, cluster = imported(ingress({}), weighed)
    assert cluster.ask("/x", "shop.test") == "web:80*80 new:80*20" and done.notes == []
    named = ingress({"canary": "true", "canary-by-header": "x-new", "canary-by-cookie": "try"}, name="canary", to="new")
    _, chosen = imported(ingress({}), named)
    answers = [
        chosen.ask("/x", "shop.test", headers=headers) for headers in ([], [("x-new", "always")], [("cookie", "a=b; try=always")])
    ]
    assert answers == ["web:80", "new:80", "new:80"]
    alone, _ = imported(ingress({"canary": "true"}, name="canary"))
    assert alone.notes == ["Ingress default/canary: canary: no other Ingress has a host and a path of it"]


def test_tls_to_backends() -> None:
    done, cluster = imported(ingress({"backend-protocol": "HTTPS", "proxy-ssl-name": "web.test"}))
    (policy,) = (each for each in done.objects if each["kind"] == "BackendTLSPolicy")
    assert policy["spec"]["validation"] == {"hostname": "web.test", "wellKnownCACertificates": "System"}
    assert cluster.conditions("BackendTLSPolicy", "web-tls")["Accepted"] == "True Accepted"
    assert "nginx did not verify" in done.notes[0]


def test_cross_origin_rules() -> None:
    done, _ = imported(
        ingress({"enable-cors": "true", "cors-allow-origin": "https://a.test, https://b.test", "cors-max-age": "60"})
    )
    (route,) = (each for each in done.objects if each["kind"] == "HTTPRoute")
    cors = route["spec"]["rules"][0]["filters"][0]["cors"]
    assert (cors["allowOrigins"], cors["maxAge"], cors["allowCredentials"]) == (["https://a.test", "https://b.test"], 60, True)


@pytest.mark.parametrize(
    ("annotations", "note"),
    [
        ({"configuration-snippet": "return 200;"}, "text of nginx's own language is never taken over"),
        ({"server-snippet": "x"}, "text of nginx's own language is never taken over"),
        ({"auth-url": "http://x"}, "external authorization"),
        ({"whitelist-source-range": "10.0.0.0/8"}, "addresses of clients"),
        ({"limit-rps": "5"}, "rateLimits"),
        ({"affinity": "cookie"}, "sessions"),
        ({"proxy-body-size": "8m"}, "limits.maxBodySize"),
        ({"ssl-passthrough": "true"}, "TLSRoute"),
        ({"unheard-of": "1"}, "is not known here"),
        ({"rewrite-target": "/x/$3"}, "has no counterpart"),
        ({"permanent-redirect": "https://x.test/$request_uri"}, "is no plain URL"),
        ({"permanent-redirect-code": "200", "permanent-redirect": "https://x.test"}, "200 is not the status of a redirect"),
        ({"proxy-read-timeout": "1h"}, "'1h' is not a number"),
        ({"backend-protocol": "FCGI"}, "FCGI has no counterpart"),
        ({"backend-protocol": "GRPC"}, "appProtocol: kubernetes.io/h2c"),
        ({"upstream-vhost": "$host"}, "'$host' is not a host name"),
        ({"x-forwarded-prefix": "/a\n/b"}, "is not a plain path"),
        ({"force-ssl-redirect": "true"}, "TLS ends somewhere else"),
    ],
)
def test_what_is_not_translated_is_told_and_does_no_harm(annotations: dict[str, str], note: str) -> None:
    done, _ = imported(ingress(annotations))
    assert len(done.notes) == 1 and done.notes[0].startswith("Ingress default/i: ") and note in done.notes[0]
    assert "$" not in yaml.safe_dump_all(done.objects)


def test_what_is_nginxs_own_business_is_not_told() -> None:
    assert imported(ingress({"proxy-buffering": "off", "proxy-buffer-size": "8k", "proxy-http-version": "1.1"}))[0].notes == []


def test_ports_by_name_need_the_service() -> None:
    text = ingress({}).replace("number: 80", "name: p1")
    assert "give the Service too" in import_ingresses(store_of(text)).notes[0]
    done = import_ingresses(store_of(text, service("web", 80, 81)))
    (route,) = (each for each in done.objects if each["kind"] == "HTTPRoute")
    assert route["spec"]["rules"][0]["backendRefs"] == [{"name": "web", "port": 81}] and not done.notes
