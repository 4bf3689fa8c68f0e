"""A translation that remembers comes to what one from scratch comes to, whatever has happened in between."""

import random

import pytest
from kube import CLASS, authorities, gateway, make_pair, route, secret, service, store_of, to

from gateway.control.build import build
from gateway.model.config import Config
from gateway.sources.kubernetes.kinds import KINDS
from gateway.sources.kubernetes.memo import GROUND, Memo
from gateway.sources.kubernetes.meta import Ref
from gateway.sources.kubernetes.options import Options
from gateway.sources.kubernetes.store import Decoded, Store
from gateway.sources.kubernetes.translate import translate

PAIR = make_pair("a.test")
OPTIONS = Options(east_west_ports=(80, 8080))
LISTENERS = (
    "[{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]",
    "[{name: http, port: 80, protocol: HTTP, hostname: '*.test'},"
    " {name: tls, port: 8443, protocol: TLS, tls: {mode: Passthrough}}]",
    "[{name: http, port: 81, protocol: HTTP}, {name: s, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: s}]}}]",
    "[{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {a: b}}}}},"
    " {name: tcp, port: 9000, protocol: TCP}]",
)
NAMES, SPACES = ("a", "b", "c"), ("default", "other")


def grant(space: str) -> str:
    return f"""
kind: ReferenceGrant
metadata: {{name: g, namespace: {space}}}
spec:
  from: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: {"other" if space == "default" else "default"}}}]
  to: [{{group: "", kind: Service}}]
"""


def policy(name: str, to_service: str, ca: str) -> str:
    return f"""
kind: BackendTLSPolicy
metadata: {{name: {name}, namespace: default}}
spec:
  targetRefs: [{{group: "", kind: Service, name: {to_service}}}]
  validation: {{hostname: x.test, caCertificateRefs: [{{group: "", kind: ConfigMap, name: {ca}}}]}}
"""


def some_object(chance: random.Random) -> str:
    """One object, new or in the place of an older one."""
    one, two, space = chance.choice(NAMES), chance.choice(NAMES), chance.choice(SPACES)
    hosts = chance.choice(("[]", "[a.test]", "[b.test, '*.c.test']", "['*.test']", "['not a host']"))
    parents = chance.choice((
        "[{name: gw, namespace: default}]", "[{name: gw, namespace: default}, {name: second, namespace: default}]",
        f"[{{kind: Service, group: '', name: {two}}}]", "[{name: absent}]", "[{kind: ListenerSet, name: set, namespace: default}]",
        f"[{{name: gw, namespace: default}}, {{kind: Service, group: '', name: {two}, port: 80}}]",
    ))  # fmt: skip
    away = chance.choice(SPACES)
    rules = chance.choice((
        to(two), to("absent"),
        f"[{{backendRefs: [{{name: {two}, namespace: {away}, port: 80}}, {{name: {one}, port: 81, weight: 3}}]}}]",
        "[{matches: [{path: {type: RegularExpression, value: '('}}]}]", "[{timeouts: {request: soon}}]",
    ))  # fmt: skip
    created = f"'2024-01-0{chance.randint(1, 9)}T00:00:00Z'"
    kind = chance.choice(("HTTPRoute", "HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute"))
    if kind != "HTTPRoute":
        rules = to(two)
    more = chance.choice(("", "type: ExternalName, externalName: x.test")).replace(", ", "\n  ")
    port_more = chance.choice(("", ", appProtocol: https", ", appProtocol: kubernetes.io/h2c"))
    return chance.choice((
        lambda: route(one, rules, parents, hosts, namespace=space, kind=kind, created=created),
        lambda: route(one, rules, parents, hosts, namespace=space, kind=kind, created=created),
        lambda: route(one, rules, parents, hosts, namespace=space, kind=kind, created=created),
        lambda: service(one, *chance.choice(((80,), (80, 81))), namespace=space, more=more, port_more=port_more),
        lambda: service(one, 80, namespace=space, address=f"10.0.0.{chance.randint(1, 9)}").partition("---")[2],
        lambda: gateway("gw", chance.choice(LISTENERS), more="allowedListeners: {namespaces: {from: All}}"),
        lambda: gateway("second", chance.choice(LISTENERS)),
        lambda: grant(space),
        lambda: policy(one, two, chance.choice(("ca", "absent"))),
        lambda: secret("s", PAIR) if chance.random() < 0.5 else authorities("ca", PAIR[0]),
        lambda: f"kind: Namespace\nmetadata: {{name: {space}, labels: {{a: {chance.choice('bc')}}}}}\n",
        lambda: "kind: ListenerSet\nmetadata: {name: set}\nspec: {parentRef: {name: gw}, listeners: "
        f"[{{name: x, port: {chance.choice((80, 82))}, protocol: HTTP, hostname: x.test}}]}}\n",
        lambda: ingress(chance, one, two, created),
        lambda: ingress(chance, one, two, created),
        lambda: f"kind: IngressClass\nmetadata: {{name: isthmus}}\nspec: {{controller: {chance.choice(CONTROLLERS)}}}\n",
    ))()  # fmt: skip


CONTROLLERS = ("isthmus.io/gateway-controller", "another.example/one")


def ingress(chance: random.Random, name: str, to_service: str, created: str) -> str:
    backend = f"{{service: {{name: {to_service}, port: {chance.choice(('{number: 80}', '{number: 81}', '{name: p80}'))}}}}}"
    host = chance.choice(("a.test", "'*.wide.test'", "'not a host'"))
    parts = [
        f"defaultBackend: {backend}",
        f"rules: [{{host: {host}, http: {{paths: [{{path: /a, pathType: Prefix, backend: {backend}}}]}}}}, {{host: b.test}}]",
        "tls: [{secretName: s}]",
    ]
    chosen = [part for part in parts if chance.random() < 0.6]
    named = chance.choice(("ingressClassName: isthmus", "ingressClassName: isthmus", "ingressClassName: another"))
    spec = ", ".join([named, *chosen])
    return f"kind: Ingress\nmetadata: {{name: {name}, creationTimestamp: {created}}}\nspec: {{{spec}}}\n"


def change(chance: random.Random, store: Store) -> None:
    """Something comes, changes or goes."""
    refs = [Ref(kind, *key) for kind, found in store._objects.items() if kind != "GatewayClass" for key in found]
    if refs and chance.random() < 0.3:
        store.delete(chance.choice(refs))
        return
    fresh = store_of(some_object(chance))
    for ref in [Ref(kind, *key) for kind, found in fresh._objects.items() for key in found]:
        found = fresh.find(ref)
        assert found is not None
        store.put(KINDS[ref.kind], Decoded(found.metadata, found, fresh.flaws.get(ref, ())))


@pytest.mark.parametrize("seed", range(12))
def test_after_any_changes_it_is_as_from_scratch(seed: int) -> None:
    chance = random.Random(seed)
    store, memo = store_of(CLASS, gateway("gw", LISTENERS[0]), service("a", 80), service("b", 80, 81)), Memo()
    routes = ingresses = 0
    for step in range(120):
        for _ in range(chance.choice((0, 1, 1, 1, 3))):
            change(chance, store)
        remembered, fresh = translate(store.copy(), OPTIONS, memo), translate(store, OPTIONS)
        assert remembered == fresh, f"seed {seed}, step {step}"
        assert list(remembered.statuses) == list(fresh.statuses) and list(remembered.origins) == list(fresh.origins)
        routes += len(fresh.routes)
        ingresses += sum(each.name.startswith("Ingress/") for each in fresh.routes)
    assert routes > 100 and ingresses > 20, "this would prove nothing"


def test_what_has_not_changed_is_the_very_same() -> None:
    given = (CLASS, gateway(), service("a", 80), service("b", 80), route("one", to("a")), route("two", to("b")))
    store, memo = store_of(*given), Memo()
    first = translate(store, OPTIONS, memo)
    other = store_of(route("two", to("b"), hosts="[b.test]")).find(Ref("HTTPRoute", "default", "two"))
    assert other is not None
    second = translate(store.copy().add(other), OPTIONS, memo)
    before, after = ({each.name: each for each in found.routes} for found in (first, second))
    assert [name for name in after if after[name] is not before[name]] == ["HTTPRoute/default/two"]
    assert [each.name for each in first.clusters] == ["Service/default/a:80", "Service/default/b:80"]
    assert all(a is b for a, b in zip(first.clusters, second.clusters, strict=True))


def test_another_store_or_other_options_are_another_ground() -> None:
    memo = Memo()
    first = translate(store_of(CLASS, gateway(), service("a", 80), route("one", to("a"))), OPTIONS, memo)
    other = translate(store_of(CLASS, gateway(), service("a", 80, address="10.0.0.9"), route("one", to("a"))), OPTIONS, memo)
    assert first.clusters[0].endpoints != other.clusters[0].endpoints
    store = store_of(CLASS, gateway(), service("a", 80), route("one", to("a")))
    assert translate(store, OPTIONS, memo).routes != translate(store, Options(), memo).routes


def test_every_kind_is_of_the_ground_or_looked_at_each_time() -> None:
    pieces = {"HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "Service", "EndpointSlice", "Ingress", "IngressClass"}
    assert {*GROUND} | pieces == {*KINDS} and not {*GROUND} & pieces
    assert build(translate(Store(), OPTIONS, Memo()).add_to(Config())).routes == ()
