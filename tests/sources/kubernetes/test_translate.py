"""The translation as a whole: a pure function of objects and options."""

import random

from kube import CLASS, Cluster, gateway, make_pair, route, secret, service, store_of, to

from gateway.control.build import build
from gateway.control.compile import compile_model
from gateway.model.cluster import Cluster as ClusterSpec
from gateway.model.config import Config, Kubernetes
from gateway.model.listener import Listener
from gateway.model.route import HTTPRoute
from gateway.sources.kubernetes.meta import Ref
from gateway.sources.kubernetes.options import Options
from gateway.sources.kubernetes.store import Store
from gateway.sources.kubernetes.translate import translate

PAIR = make_pair("a.test")
EVERYTHING = (
    CLASS
    + "---\n"
    + gateway(
        listeners="[{name: http, port: 80, protocol: HTTP},"
        " {name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: s}]}}]"
    )
    + gateway("second", "[{name: http, port: 80, protocol: HTTP, hostname: b.test}]")
    + service("web", 80)
    + service("api", 80, 81)
    + secret("s", PAIR)
    + route("one", to("web"))
    + route("two", to("api", 81), hosts="[a.test, b.test]")
    + route("three", to("absent"), "[{name: second}]")
    + "kind: Ingress\nmetadata: {name: i}\n"
    + "spec: {ingressClassName: isthmus, defaultBackend: {service: {name: web, port: {number: 80}}}}\n---\n"
)
OPTIONS = Options(east_west_ports=(8080,))


def shuffled(seed: int) -> Store:
    """The same objects, put in another order."""
    objects = [each for ref in refs(store_of(EVERYTHING)) if (each := store_of(EVERYTHING).find(ref)) is not None]
    random.Random(seed).shuffle(objects)
    return Store().add(*objects)


def refs(store: Store) -> list[Ref]:
    return [Ref(kind, *key) for kind, found in store._objects.items() for key in found]


def test_the_order_of_the_objects_makes_no_difference() -> None:
    first = translate(store_of(EVERYTHING), OPTIONS)
    blob = compile_model(build(first.add_to(Config())), 1).blob
    for seed in range(3):
        other = translate(shuffled(seed), OPTIONS)
        assert other == first and list(other.statuses) == list(first.statuses)
        assert compile_model(build(other.add_to(Config())), 1).blob == blob


def test_objects_join_the_files() -> None:
    found = translate(store_of(EVERYTHING), OPTIONS)
    base = Config(
        listeners=(Listener(name="web", port=9000),),
        clusters=(ClusterSpec(name="c"),),
        routes=(HTTPRoute(name="mine", listeners=("web",)),),
    )
    joined = found.add_to(base)
    assert joined.listeners[0].name == "web" and {each.name for each in joined.routes} > {"mine", "HTTPRoute/default/one"}
    assert joined.kubernetes.enabled
    model = build(joined)
    assert [each.name for each in model.listeners] == sorted(each.name for each in joined.listeners)


def test_nothing_comes_of_nothing() -> None:
    empty = translate(Store())
    assert (empty.listeners, empty.routes, empty.clusters, empty.statuses, empty.problems) == ((), (), (), {}, [])
    assert build(empty.add_to(Config())).ports == ()


def test_every_route_knows_where_it_comes_from() -> None:
    found = translate(store_of(EVERYTHING), OPTIONS)
    assert set(found.origins) == {each.name for each in found.routes}
    assert found.origins["HTTPRoute/default/two"].ref == Ref("HTTPRoute", "default", "two")
    assert found.origins["HTTPRoute/default/two"].rules == (("spec", "rules", 0),)
    assert found.origins["Service/default/api:80"].ref == Ref("Service", "default", "api")


def test_only_what_is_referred_to_is_wanted() -> None:
    cluster = Cluster(EVERYTHING, secret("unused", PAIR), options=OPTIONS)
    assert cluster.translation.wanted == {Ref("Secret", "default", "s")}
    assert set(cluster.translation.pems) == {"Secret/default/s/tls.crt", "Secret/default/s/tls.key"}
    assert "PRIVATE" not in repr(cluster.translation)


def test_config_maps_by_label_carry_the_file_language() -> None:
    maps = """
kind: ConfigMap
metadata: {name: b, namespace: web, labels: {isthmus.io/config: "true"}}
data: {routes.yaml: "routes: []", notes.txt: "no", a.json: "{}"}
---
kind: ConfigMap
metadata: {name: a, namespace: web, labels: {isthmus.io/config: "false"}}
data: {routes.yaml: "x"}
"""
    found = translate(store_of(maps)).texts
    assert [(ref.name, key) for ref, key, _ in found] == [("b", "a.json"), ("b", "routes.yaml")]
    assert translate(store_of(maps), Options(config_maps="!isthmus.io/config")).texts == ()
    assert translate(store_of(maps), Options(config_maps="")).texts == ()


def test_a_broken_object_fails_alone_and_is_named() -> None:
    broken = "kind: HTTPRoute\nmetadata: {name: bad}\nspec: {hostnames: 5}\n---\n"
    cluster = Cluster(broken, EVERYTHING, options=OPTIONS)
    assert cluster.ask("/") == "web:80"
    assert "HTTPRoute default/bad: spec.hostnames: expected a list, got the number 5; it is left out" in cluster.problems()


def test_a_deleted_object_is_gone_from_the_next_translation() -> None:
    store = store_of(EVERYTHING)
    assert "HTTPRoute/default/one" in {each.name for each in translate(store, OPTIONS).routes}
    store.delete(Ref("HTTPRoute", "default", "one"))
    assert "HTTPRoute/default/one" not in {each.name for each in translate(store, OPTIONS).routes}


def test_options_out_of_the_configuration() -> None:
    options = Options.of(Kubernetes(controller_name="x.test/y", zone="a"), taken={80: "somebody"})
    assert (options.controller_name, options.ingress_class, options.zone) == ("x.test/y", "isthmus", "a")
    assert (options.ingress_port, options.ingress_tls_port, options.east_west_ports) == (80, 443, ())
    assert options.taken == {80: "somebody"} and options.cluster_domain == "cluster.local"
