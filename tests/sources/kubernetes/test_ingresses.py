"""Ingress v1: classes, paths, hosts, default backends, certificates."""

import pytest
from kube import Cluster, gateway, make_pair, route, secret, service, to

from gateway.sources.kubernetes.gateway import GatewayAddress
from gateway.sources.kubernetes.options import Options

APPS = service("web", 80) + service("api", 8080, 9090) + service("other", 80)
PAIR = make_pair("shop.test")


def backend(name: str, port: str = "number: 80") -> str:
    return f"{{service: {{name: {name}, port: {{{port}}}}}}}"


def path(value: str, name: str, type_: str = "Prefix", port: str = "number: 80") -> str:
    return f"{{path: {value}, pathType: {type_}, backend: {backend(name, port)}}}"


def ingress(name: str, *rules: str, more: str = "", class_: str = "ingressClassName: isthmus", metadata: str = "") -> str:
    return f"""
kind: Ingress
metadata: {{name: {name}{metadata}}}
spec:
  {class_}
  {more}
  rules: [{", ".join(rules)}]
---
"""


def rule(host: str, *paths: str) -> str:
    shown = f"host: '{host}', " if host else ""
    return f"{{{shown}http: {{paths: [{', '.join(paths)}]}}}}"


def test_paths_and_hosts() -> None:
    cluster = Cluster(
        APPS,
        ingress("i", rule("shop.test", path("/", "web"), path("/api", "api", port="name: p1"), path("/exact", "other", "Exact"))),
    )
    asked = {each: cluster.ask(each, "shop.test") for each in ("/", "/x", "/api", "/api/x", "/apix", "/exact", "/exact/x")}
    assert asked == {
        "/": "web:80", "/x": "web:80", "/api": "api:9090", "/api/x": "api:9090", "/apix": "web:80",
        "/exact": "other:80", "/exact/x": "web:80",
    }  # fmt: skip
    assert cluster.ask("/", "elsewhere.test") == "404"
    assert cluster.who("/api", "shop.test") == "Ingress/default/i/shop.test[1]"
    assert not cluster.problems()


def test_implementation_specific_is_a_prefix() -> None:
    cluster = Cluster(APPS, ingress("i", rule("", path("/a", "web", "ImplementationSpecific"))))
    assert (cluster.ask("/a/b"), cluster.ask("/b")) == ("web:80", "404")


def test_a_wildcard_stands_for_one_label() -> None:
    cluster = Cluster(APPS, ingress("i", rule("*.shop.test", path("/", "web"))))
    asked = {
        host: cluster.ask("/", host) for host in ("a.shop.test", "a.shop.test:80", "A.SHOP.test", "a.b.shop.test", "shop.test")
    }
    assert asked == {
        "a.shop.test": "web:80",
        "a.shop.test:80": "web:80",
        "A.SHOP.test": "web:80",
        "a.b.shop.test": "404",
        "shop.test": "404",
    }


def test_the_default_backend_takes_what_no_rule_does() -> None:
    text = ingress("i", rule("shop.test", path("/api", "api", port="number: 8080")), more=f"defaultBackend: {backend('web')}")
    cluster = Cluster(APPS, text)
    assert cluster.ask("/api", "shop.test") == "api:8080"
    assert (cluster.ask("/else", "shop.test"), cluster.ask("/", "any.test")) == ("web:80", "web:80")


def test_one_default_backend_is_enough() -> None:
    old = ingress("z", more=f"defaultBackend: {backend('web')}", metadata=", creationTimestamp: '2024-01-01T00:00:00Z'")
    young = ingress("a", more=f"defaultBackend: {backend('other')}", metadata=", creationTimestamp: '2024-02-01T00:00:00Z'")
    cluster = Cluster(APPS, young, old)
    assert cluster.ask("/") == "web:80"
    assert len(cluster.problems()) == 1 and "Ingress default/z" in cluster.problems()[0]


@pytest.mark.parametrize(
    ("class_", "metadata", "classes", "ours"),
    [
        ("ingressClassName: isthmus", "", "", True),
        ("ingressClassName: nginx", "", "", False),
        ("", ", annotations: {kubernetes.io/ingress.class: isthmus}", "", True),
        ("", ", annotations: {kubernetes.io/ingress.class: nginx}", "", False),
        ("", "", "", False),
        ("", "", "default", True),
        ("ingressClassName: mine", "", "default", True),
        ("ingressClassName: isthmus", "", "foreign", False),
    ],
)
def test_classes(class_: str, metadata: str, classes: str, ours: bool) -> None:
    found = {
        "": "",
        "default": "kind: IngressClass\n"
        "metadata: {name: mine, annotations: {ingressclass.kubernetes.io/is-default-class: 'true'}}\n"
        "spec: {controller: isthmus.io/gateway-controller}",
        "foreign": "kind: IngressClass\nmetadata: {name: isthmus}\nspec: {controller: example.com/other}",
    }
    cluster = Cluster(APPS, found[classes], ingress("i", rule("", path("/", "web")), class_=class_, metadata=metadata))
    assert cluster.ask("/") == ("web:80" if ours else "no-port")
    assert (("Ingress", "default", "i") in cluster.translation.statuses) is ours


def test_certificates() -> None:
    tls = "tls: [{hosts: [shop.test], secretName: s}, {hosts: [b.test], secretName: absent}]"
    cluster = Cluster(APPS, secret("s", PAIR), ingress("i", rule("shop.test", path("/", "web")), more=tls))
    assert cluster.ask("/", "shop.test", 443) == "web:80" and cluster.ask("/", "shop.test", 80) == "web:80"
    (listener,) = (each for each in cluster.translation.listeners if each.protocol == "HTTPS")
    assert listener.tls is not None and [each.cert for each in listener.tls.certificates] == ["Secret/default/s/tls.crt"]
    assert cluster.problems() == ["Ingress default/i: spec.tls[1].secretName: there is no Secret default/absent"]


@pytest.mark.parametrize(
    ("to_", "port"),
    [("absent", "number: 80"), ("web", "number: 81"), ("api", "name: nothing"), ("absent", "name: http")],
)
def test_a_backend_that_is_not_there_is_answered_500(to_: str, port: str) -> None:
    cluster = Cluster(APPS, ingress("i", rule("", path("/bad", to_, port=port), path("/good", "web"))))
    assert (cluster.ask("/bad"), cluster.ask("/good")) == ("500", "web:80")
    assert len(cluster.problems()) == 1 and cluster.problems()[0].startswith(
        "Ingress default/i: spec.rules[0].http.paths[0].backend"
    )


def test_what_makes_no_sense_fails_alone() -> None:
    cluster = Cluster(
        APPS, ingress("i", rule("bad_host", path("/", "web")), rule("", path("no-slash", "web"), path("/good", "web")))
    )
    assert cluster.ask("/good") == "web:80"
    assert [each.split(": ")[1] for each in cluster.problems()] == ["spec.rules[0].host", "spec.rules[1].http.paths[0].path"]


def test_it_lives_beside_gateways_on_the_same_ports() -> None:
    options = Options(addresses=(GatewayAddress("IPAddress", "192.0.2.1"),))
    cluster = Cluster(
        gateway(),
        APPS,
        route("r", to("other"), hosts="[gw.test]"),
        ingress("i", rule("shop.test", path("/", "web"))),
        options=options,
    )
    assert (cluster.ask("/", "gw.test"), cluster.ask("/", "shop.test")) == ("other:80", "web:80")
    assert len(cluster.model.listeners) == 1
    status = cluster.translation.statuses["Ingress", "default", "i"]  # type: ignore[index]
    assert status.load_balancer.ingress[0].ip == "192.0.2.1"  # type: ignore[union-attr]
