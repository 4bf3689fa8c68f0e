"""What is kept from one Model to the next makes compiling quicker, and changes nothing: bytes, names and problems are those from
scratch."""

import random
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from gateway.control import compile as compile_module
from gateway.control.build import Kept as KeptModel
from gateway.control.build import Match, build
from gateway.control.compile import Compiled, Kept, compile_model, name_id
from gateway.model import Cluster, Config, HTTPRoute
from gateway.model.scalars import decode_hook

HEADERS = [{"name": "x-a", "value": "1"}, {"name": "x-b", "value": "a|b", "type": "RegularExpression"}]
FILTERS = [
    {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x-team", "value": "blue"}], "remove": ["x-c"]}},
    {"type": "URLRewrite", "urlRewrite": {"hostname": "in.test"}},
    {"type": "CORS", "cors": {"allowOrigins": ["https://a.test"]}},
]


class Story:
    """A configuration that somebody keeps changing."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.clusters = {name: self.cluster(name) for name in "abc"}
        self.routes = {f"r{number}": self.route(f"r{number}") for number in range(8)}
        self.rates: list[dict[str, Any]] = [{"name": "some", "limit": {"requests": 1, "per": "1s"}}]
        self.decoded: dict[int, tuple[dict[str, Any], Any]] = {}

    def cluster(self, name: str) -> dict[str, Any]:
        more: dict[str, Any] = {"rateLimits": ["some"]} if self.draw.random() < 0.3 else {}
        endpoints = [f"127.0.0.1:{self.draw.randrange(1, 9)}"]
        return {"name": name, "maxPending": self.draw.randrange(1, 9), "endpoints": endpoints, **more}

    def match(self) -> dict[str, Any]:
        kind = self.draw.choice(["Exact", "PathPrefix", "RegularExpression"])
        match: dict[str, Any] = {"path": {"type": kind, "value": self.draw.choice(["/a", "/a/b", "/", "/ü"])}}
        if self.draw.random() < 0.3:
            match["headers"] = self.draw.sample(HEADERS, self.draw.randrange(1, 3))
        if self.draw.random() < 0.3:
            match["method"] = self.draw.choice(["GET", "PATCH"])
        return match

    def route(self, name: str) -> dict[str, Any]:
        rules = [
            {
                "matches": [self.match() for _ in range(self.draw.randrange(1, 4))],
                "filters": self.draw.sample(FILTERS, self.draw.randrange(3)),
                "backendRefs": [{"name": self.draw.choice("abcd"), "weight": self.draw.randrange(1, 4)}],
                **({"rateLimits": ["some"]} if self.draw.random() < 0.2 else {}),
            }
            for _ in range(self.draw.randrange(1, 4))
        ]
        hosts = self.draw.sample(["one.test", "two.test", "*.wide.test"], self.draw.randrange(3))
        return {"kind": "HTTPRoute", "name": name, "hostnames": hosts, "rules": rules}

    def change(self) -> None:
        name = f"r{self.draw.randrange(12)}"
        match self.draw.randrange(6):
            case 0 | 1:
                self.routes[name] = self.route(name)
            case 2:
                self.routes.pop(name, None)
            case 3:
                cluster = self.draw.choice("abcd")
                self.clusters[cluster] = self.cluster(cluster)
            case 4:
                self.clusters.pop(self.draw.choice("abcd"), None)
            case 5:
                self.rates = [*self.rates[:1], {"name": "aaa", "limit": {"requests": 1, "per": "1s"}}][: self.draw.randrange(1, 3)]

    def decode(self, spec: dict[str, Any], kind: Any) -> Any:
        """The very same object as long as nobody has changed it, as sources do."""
        known = self.decoded.get(id(spec))
        if known is None or known[0] is not spec:
            known = self.decoded[id(spec)] = (spec, msgspec.convert(spec, kind, dec_hook=decode_hook))
        return known[1]

    def config(self) -> Config:
        rest = msgspec.convert({"listeners": [{"name": "l", "port": 1}], "rateLimits": self.rates}, Config, dec_hook=decode_hook)
        return msgspec.structs.replace(
            rest,
            routes=tuple(self.decode(each, HTTPRoute) for each in self.routes.values()),
            clusters=tuple(self.decode(each, Cluster) for each in self.clusters.values()),
        )


def facts(compiled: Compiled) -> tuple[object, ...]:
    return compiled.blob, compiled.problems, compiled.names, compiled.clusters, compiled.ports


@pytest.mark.parametrize("seed", range(12))
def test_any_history_ends_in_the_bytes_of_a_fresh_start(seed: int) -> None:
    story, kept, kept_model = Story(seed), Kept(), KeptModel()
    for _ in range(25):
        config = story.config()
        model = build(config, kept_model)
        assert model == build(config)
        assert facts(compile_model(model, 5, kept)) == facts(compile_model(model, 5))
        story.change()


def test_only_what_has_changed_is_packed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    story, kept, kept_model = Story(1), Kept(), KeptModel()
    compile_model(build(story.config(), kept_model), 1, kept)
    assert kept.press is not None
    packed: list[str] = []
    pack = kept.press.route
    monkeypatch.setattr(kept.press, "route", lambda route, id_: packed.append(route.name) or pack(route, id_))
    story.routes["r3"] = story.route("r3")
    story.clusters["another"] = story.cluster("another")
    compile_model(build(story.config(), kept_model), 2, kept)
    assert packed == ["r3"], "a new cluster concerns no route that does not name it"


def test_a_cluster_that_comes_and_goes_reaches_the_routes_that_wait_for_it() -> None:
    story, kept, kept_model = Story(2), Kept(), KeptModel()
    ref = {"kind": "HTTPRoute", "name": "w", "rules": [{"backendRefs": [{"name": "late"}]}]}
    story.routes = {"w": ref}
    for is_there in (False, True, False):
        if is_there:
            story.clusters["late"] = {"name": "late"}
        else:
            story.clusters.pop("late", None)
        model = build(story.config(), kept_model)
        assert model.routes[0].rules[0].backends[0].cluster == ("late" if is_there else None)
        assert facts(compile_model(model, 1, kept)) == facts(compile_model(model, 1))


def test_a_route_that_cannot_be_packed_is_told_of_each_time_and_once_good_is_not() -> None:
    story, kept = Story(3), Kept()
    good = build(story.config())
    bad = replace(good.routes[0], rules=(replace(good.routes[0].rules[0], matches=(Match("RegularExpression", "(", "", (), ()),)),))
    worse = replace(good, routes=(bad, *good.routes[1:]))
    for _ in range(2):
        (problem,) = compile_model(worse, 1, kept).problems
        assert problem.key == f"routes.{bad.name}.rules[0].matches[0]"
    assert compile_model(good, 1, kept).problems == []


def test_ids_that_collide_are_told_of_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_module, "name_id", lambda kind, name: 7 if kind in ("route", "cluster") else name_id(kind, name))
    story, kept = Story(4), Kept()
    model = build(story.config())
    first, second = compile_model(model, 1, kept), compile_model(model, 1, kept)
    assert len(first.problems) == len(model.routes) + len(model.clusters) - 1
    assert facts(first) == facts(second)
