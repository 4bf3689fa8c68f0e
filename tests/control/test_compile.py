"""Model -> blob: deterministic, complete, and forgiving towards what one route got wrong."""

import random
from dataclasses import replace
from time import perf_counter
from typing import Any

import pytest

from gateway._core import explain
from gateway._core.snapshot import Snapshot, load
from gateway.control import compile as compile_module
from gateway.control.build import Backend, Match, Model, Rule, ValueMatch, build
from gateway.control.compile import Compiled, compile_model, name_id
from gateway.model import Cluster, Config, HTTPRoute, Limits, Listener, LoadBalancing, Size
from gateway.model.listener import LimitsOverride
from gateway.model.route import (
    HeaderMatch,
    HeaderModifier,
    HTTPBackendRef,
    HTTPHeader,
    HTTPRouteFilter,
    HTTPRouteMatch,
    HTTPRouteRule,
    PathMatch,
    Retry,
    Timeouts,
)


def rule(*paths: str, to: tuple[str, ...] = ("a",), **more: Any) -> HTTPRouteRule:
    matches = tuple(HTTPRouteMatch(path=PathMatch("PathPrefix", path)) for path in paths)
    return HTTPRouteRule(matches=matches, backend_refs=tuple(HTTPBackendRef(name=name) for name in to), **more)


def some_config(shuffle: random.Random | None = None) -> Config:
    listeners = [
        Listener(name="web", port=8080, limits=LimitsOverride(max_header_count=7)),
        Listener(name="wild", port=8080, hostname="*.example.com"),
        Listener(name="inner", address="127.0.0.1:8081", proxy_protocol="accept", trusted_hops=2),
    ]
    edits = HTTPRouteFilter("RequestHeaderModifier", request_header_modifier=HeaderModifier(set=(HTTPHeader("X-A", "1"),)))
    headers = (HeaderMatch("x-b", "1"), HeaderMatch("x-a", "2", "RegularExpression"))
    shop = ("shop.example.com", "*.shop.example.com")
    routes = [
        HTTPRoute(name="shop", hostnames=shop, rules=(rule("/", "/api"), rule("/x", filters=(edits,)))),
        HTTPRoute(name="any", rules=(rule(to=("a", "b"), timeouts=Timeouts(), retry=Retry(codes=(503, 502), attempts=2)),)),
        HTTPRoute(name="inner", listeners=("inner",), rules=(HTTPRouteRule(matches=(HTTPRouteMatch(headers=headers),)),)),
    ]
    clusters = [
        Cluster(name="a", endpoints=("127.0.0.1:1",)),
        Cluster(name="b", load_balancing=LoadBalancing("ConsistentHash", "header:X-User")),
    ]
    if shuffle:
        for items in (listeners, routes, clusters):
            shuffle.shuffle(items)
        routes = [replace_hosts(each, tuple(shuffle.sample(each.hostnames, len(each.hostnames)))) for each in routes]
    limits = Limits(max_body_size=Size(5 << 32))
    return Config(listeners=tuple(listeners), routes=tuple(routes), clusters=tuple(clusters), limits=limits)


def replace_hosts(route: HTTPRoute, hostnames: tuple[str, ...]) -> HTTPRoute:
    return HTTPRoute(name=route.name, rules=route.rules, listeners=route.listeners, hostnames=hostnames)


def compiled(*routes: HTTPRoute, clusters: tuple[str, ...] = ("a",)) -> Compiled:
    config = Config(routes=routes, clusters=tuple(Cluster(name=name) for name in clusters))
    return compile_model(build(config))


def answer(snapshot: Snapshot, path: str = "/", host: str = "any.test") -> str | None:
    (port, _), *_ = explain.port_ids(snapshot)
    found: str | None = explain.explain_route(snapshot, port, b"GET", host.encode(), path.encode(), candidates=False)["route"]
    return found


def with_rule(model: Model, route: str, **changes: Any) -> Model:
    """The Model with the first rule of a route changed, past what validate and build let through."""
    routes = tuple(
        replace(each, rules=(replace(each.rules[0], **changes), *each.rules[1:])) if each.name == route else each
        for each in model.routes
    )
    return replace(model, routes=routes)


def test_the_same_model_in_any_order_is_the_same_bytes() -> None:
    want = compile_model(build(some_config()), 3)
    for seed in range(20):
        assert compile_model(build(some_config(random.Random(seed))), 3).blob == want.blob


def test_only_the_header_knows_the_revision() -> None:
    one, two = (compile_model(build(some_config()), revision).blob for revision in (1, 1 << 40))
    assert one[32:] == two[32:]
    assert (load(one).revision, load(two).revision) == (1, 1 << 40)


def test_everything_of_the_model_is_in_the_blob() -> None:
    result = compile_model(build(some_config()))
    assert result.problems == []
    snapshot = load(result.blob)
    counts = snapshot.counts_by_section
    assert (counts["ports"], counts["listeners"], counts["routes"], counts["rules"], counts["clusters"]) == (2, 3, 3, 4, 2)
    assert counts["limits"] == 2, "equal limits stand once"
    assert counts["words"] == 2
    told = {listener["name"]: listener for listener in snapshot.describe()["listeners"]}
    assert told["wild"]["hosts"] == ["*.example.com", "*.shop.example.com", "shop.example.com"]
    assert told["inner"]["address"] == "127.0.0.1:8081"
    assert told["inner"]["hosts"] == ["*", "*.shop.example.com", "shop.example.com"]


def test_ids_are_named_and_equal_in_every_revision() -> None:
    result = compile_model(build(some_config()))
    assert result.clusters == {"a": name_id("cluster", "a"), "b": name_id("cluster", "b")}
    assert result.ports["127.0.0.1:8081"] == name_id("bind", "127.0.0.1:8081")
    assert set(result.names.values()) == {
        ("cluster", "a"), ("cluster", "b"), ("route", "any"), ("route", "inner"), ("route", "shop"),
        ("listener", "web"), ("listener", "wild"), ("listener", "inner"), ("bind", "127.0.0.1:8081"), ("bind", "[::]:8080"),
    }  # fmt: skip
    assert all(result.names[id_] == ("cluster", name) for name, id_ in result.clusters.items())
    assert name_id("cluster", "api") == 0x5866DFF22F050375, "an id that changes would restart every counter"
    assert name_id("cluster", "a") != name_id("route", "a")
    assert {id_ for id_, _ in explain.port_ids(load(result.blob))} == set(result.ports.values())


def test_a_bad_regex_takes_down_its_route_alone() -> None:
    model = build(Config(routes=(HTTPRoute(name="bad", rules=(rule("/bad"),)), HTTPRoute(name="good", rules=(rule("/"),)))))
    match = Match("RegularExpression", "/(", "", (), ())
    result = compile_model(with_rule(model, "bad", matches=(match,)))
    (problem,) = result.problems
    assert (problem.severity, problem.key) == ("error", "routes.bad.rules[0].matches[0]")
    assert "missing )" in problem.message and "left out" in problem.message
    assert answer(load(result.blob), "/bad") == "good"


@pytest.mark.parametrize("where", ["headers", "query"])
def test_a_bad_regex_of_a_field_is_the_same(where: str) -> None:
    model = build(Config(routes=(HTTPRoute(name="bad", rules=(rule("/bad"),)), HTTPRoute(name="good", rules=(rule("/"),)))))
    fields = (ValueMatch("x", "*", True),)
    match = replace(Match("PathPrefix", "/bad", "", (), ()), **{where: fields})
    result = compile_model(with_rule(model, "bad", matches=(match,)))
    assert [problem.key for problem in result.problems] == ["routes.bad.rules[0].matches[0]"]
    assert answer(load(result.blob), "/bad") == "good"


def test_a_prefix_too_deep_for_the_router_and_weights_too_large_are_left_out() -> None:
    model = build(Config(routes=(HTTPRoute(name="bad", rules=(rule("/bad"),)), HTTPRoute(name="good", rules=(rule("/"),)))))
    deep = compile_model(with_rule(model, "bad", matches=(Match("PathPrefix", "/d" * 513, "", (), ()),)))
    heavy = compile_model(with_rule(model, "bad", backends=(Backend(None, 1 << 31, ()), Backend(None, 1 << 31, ()))))
    for result in (deep, heavy):
        assert len(result.problems) == 1
        assert answer(load(result.blob), "/bad") == "good"


def test_ids_that_collide_are_a_problem_and_not_a_mix_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_module, "name_id", lambda kind, name: 7 if kind in ("route", "cluster") else name_id(kind, name))
    result = compiled(HTTPRoute(name="one", rules=(rule("/"),)), HTTPRoute(name="two", rules=(rule("/"),)))
    assert [problem.key for problem in result.problems] == ["routes.one", "routes.two"]
    assert "id is that of the cluster 'a'" in result.problems[0].message
    assert load(result.blob).counts_by_section["routes"] == 0


def test_a_backend_without_its_cluster_keeps_its_share() -> None:
    """InvalidNonExistentBackendRef: 500 for its weight, so its record stays."""
    result = compiled(HTTPRoute(name="r", rules=(rule("/", to=("a", "nowhere")),)))
    counts = load(result.blob).counts_by_section
    assert (counts["backends"], counts["clusters"]) == (2, 1)


def test_a_cluster_whose_id_is_taken_answers_500(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_module, "name_id", lambda kind, name: 7 if kind == "cluster" else name_id(kind, name))
    result = compiled(HTTPRoute(name="r", rules=(rule("/", to=("a", "b")),)), clusters=("a", "b"))
    assert [problem.key for problem in result.problems] == ["clusters.b"]
    assert result.clusters == {"a": 7}
    assert answer(load(result.blob)) == "r"


def test_two_listeners_of_one_host_and_port_are_told_apart() -> None:
    """build and validate keep them apart; a blob must open even if they did not."""
    model = build(Config(listeners=(Listener(name="a", port=1), Listener(name="b", port=1, hostname="x.test")), routes=()))
    same = replace(model, listeners=tuple(replace(listener, hostname="") for listener in model.listeners))
    result = compile_model(same)
    assert [problem.key for problem in result.problems] == ["listeners.b"]
    assert load(result.blob).counts_by_section["listeners"] == 2


def test_an_empty_configuration_compiles() -> None:
    result = compile_model(Model(ports=(), listeners=(), routes=(), clusters=()))
    assert set(load(result.blob).counts_by_section.values()) == {0}


def test_hosts_of_one_route_share_their_tables() -> None:
    one = load(compiled(HTTPRoute(name="r", hostnames=("a.test",), rules=(rule("/a"), rule("/b")))).blob)
    hosts = tuple(f"h{number}.test" for number in range(50))
    many = load(compiled(HTTPRoute(name="r", hostnames=hosts, rules=(rule("/a"), rule("/b")))).blob)
    assert many.counts_by_section["vhosts"] == 50
    assert many.counts_by_section["rows"] == one.counts_by_section["rows"]
    assert all(answer(many, "/b", host) == "r" for host in hosts)


def test_numbers_too_large_for_a_word_are_cut() -> None:
    limits = Limits(max_header_bytes=Size(1 << 40), max_body_size=Size((1 << 40) + 5))
    result = compile_model(build(Config(listeners=(Listener(name="l", port=1),), limits=limits)))
    load(result.blob)


def test_a_rule_is_total() -> None:
    """Every rule that build makes has what the exchange relies on: a redirect or a backend to draw."""
    model = build(some_config())
    rules: list[Rule] = [rule for route in model.routes for rule in route.rules]
    assert all(rule.backends and sum(backend.weight for backend in rule.backends) for rule in rules)


@pytest.mark.slow
def test_ten_thousand_rules_compile_well_under_a_second() -> None:
    routes = tuple(
        HTTPRoute(name=f"r{h}", hostnames=(f"h{h}.test",), rules=tuple(rule(f"/svc/{r}") for r in range(10))) for h in range(1000)
    )
    model = build(Config(routes=routes, clusters=(Cluster(name="a"),)))
    times = []
    for _ in range(3):
        start = perf_counter()
        compile_model(model)
        times.append(perf_counter() - start)
    assert min(times) < 1.0
