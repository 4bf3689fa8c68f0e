"""Which rule answers: Gateway API's meaning and precedence, asked of the router itself over compiled snapshots."""

import random
import re
from typing import Any

import pytest
from routing import WEB, Table, compiled, match, route, rule

from gateway._core import explain
from gateway._core.snapshot import load
from gateway.model import HTTPRoute, Listener


@pytest.mark.parametrize(
    ("prefix", "path", "fits"),
    [
        ("/abc", "/abc", True),
        ("/abc", "/abc/", True),
        ("/abc", "/abc/def", True),
        ("/abc", "/abcd", False),
        ("/abc", "/ab", False),
        ("/abc", "/", False),
        ("/abc", "/x/abc", False),
        ("/abc/", "/abc", True),
        ("/abc/", "/abc/d", True),
        ("/", "/", True),
        ("/", "/anything/at/all", True),
        ("/a/b/c", "/a/b/c/d", True),
        ("/a/b/c", "/a/b/cd", False),
        ("/a/b/c", "/a/b", False),
        ("/%41bc", "/Abc", True),
        ("/a%2Bb", "/a%2Bb/c", True),
    ],
)
def test_prefix_matches_whole_elements(prefix: str, path: str, fits: bool) -> None:
    assert (Table(route("r", rule(match(prefix)))).ask(path) == "r/0") is fits


@pytest.mark.parametrize(
    ("exact", "path", "fits"),
    [("/a", "/a", True), ("/a", "/a/", False), ("/a/", "/a/", True), ("/a/", "/a", False), ("/", "/", True), ("/", "/a", False)],
)
def test_exact_path_is_exact(exact: str, path: str, fits: bool) -> None:
    assert (Table(route("r", rule(match(exact, "Exact")))).ask(path) == "r/0") is fits


def test_exact_before_regex_before_prefix_and_longer_before_shorter() -> None:
    table = Table(
        route(
            "r",
            rule(match("/")),
            rule(match("/a")),
            rule(match("/a/b")),
            rule(match("/a/b/c", "Exact")),
            rule(match("/a/b/[cd]", "RegularExpression")),
            rule(match("/a/b/[cde]?", "RegularExpression")),
        )
    )
    assert table.ask("/a/b/c") == "r/3"
    assert table.ask("/a/b/d") == "r/5", "the longer pattern is asked first"
    assert table.ask("/a/b/x") == "r/2"
    assert table.ask("/a/x") == "r/1"
    assert table.ask("/x") == "r/0"


def test_regex_covers_the_whole_path_and_only_the_path() -> None:
    table = Table(route("r", rule(match("/v[0-9]+", "RegularExpression"))))
    assert table.ask("/v12") == "r/0"
    assert table.ask("/v12?x=1") == "r/0"
    assert table.ask("/v12/x") is None
    assert table.ask("/x/v12") is None
    assert table.ask("/v") is None


def test_regex_alternatives_are_anchored_as_one() -> None:
    table = Table(route("r", rule(match("/a|/b", "RegularExpression"))))
    assert [table.ask(path) for path in ("/a", "/b", "/ab", "/b/a")] == ["r/0", "r/0", None, None]


def test_a_method_counts_before_headers_and_headers_before_query() -> None:
    table = Table(
        route(
            "r",
            rule(match("/", query={"a": "1", "b": "1", "c": "1"})),
            rule(match("/", headers={"x": "1"})),
            rule(match("/", headers={"x": "1", "y": "1"})),
            rule(match("/", headers={"x": "1"}, query={"a": "1"})),
            rule(match("/", method="POST")),
        )
    )
    both = (("x", "1"), ("y", "1"))
    assert table.ask("/?a=1&b=1&c=1", method="POST", headers=both) == "r/4"
    assert table.ask("/?a=1&b=1&c=1", headers=both) == "r/2"
    assert table.ask("/?a=1&b=1&c=1", headers=both[:1]) == "r/3"
    assert table.ask("/?b=1", headers=both[:1]) == "r/1"
    assert table.ask("/?a=1&b=1&c=1") == "r/0"
    assert table.ask("/") is None


def test_path_counts_before_everything_else() -> None:
    table = Table(route("r", rule(match("/a", method="GET", headers={"x": "1"})), rule(match("/a/b"))))
    assert table.ask("/a/b", headers=(("x", "1"),)) == "r/1"
    assert table.ask("/a/c", headers=(("x", "1"),)) == "r/0"


def test_ties_go_to_the_route_by_name_then_the_rule_then_the_match() -> None:
    beta = route("beta", rule(match("/t")))
    alpha = route("alpha", rule(match("/t"), match("/u")), rule(match("/t")))
    for routes in ((alpha, beta), (beta, alpha)):
        assert Table(*routes).ask("/t") == "alpha/0"


def test_conditions_of_a_match_are_anded_and_matches_of_a_rule_ored() -> None:
    table = Table(route("r", rule(match("/a", method="PUT"), match("/b", headers={"x": "1"}))))
    assert table.ask("/a", method="PUT") == "r/0"
    assert table.ask("/a") is None
    assert table.ask("/b", method="PUT") is None
    assert table.ask("/b", headers=(("x", "1"),)) == "r/0"


def test_a_rule_without_matches_takes_everything() -> None:
    table = Table(route("r", rule()))
    assert table.ask("/whatever", method="BREW") == "r/0"
    assert table.ask("*", method="OPTIONS") == "r/0"


def test_a_shorter_prefix_answers_when_the_longer_one_asks_for_more() -> None:
    table = Table(route("r", rule(match("/a/b", method="DELETE")), rule(match("/a"))))
    assert table.ask("/a/b/c") == "r/1"
    assert table.ask("/a/b/c", method="DELETE") == "r/0"


def test_exact_and_prefix_of_one_path_stand_side_by_side() -> None:
    table = Table(route("r", rule(match("/a", "Exact", method="GET")), rule(match("/a"))))
    assert table.ask("/a") == "r/0"
    assert table.ask("/a", method="POST") == "r/1"
    assert table.ask("/a/b") == "r/1"


# Hosts


def test_hosts_exact_before_longest_wildcard_before_any() -> None:
    table = Table(
        route("any", rule()),
        route("com", rule(), hosts=("*.com",)),
        route("example", rule(), hosts=("*.example.com",)),
        route("exact", rule(), hosts=("a.example.com",)),
    )
    for host, want in {
        "a.example.com": "exact",
        "A.Example.COM": "exact",
        "a.example.com.": "exact",
        "a.example.com:8080": "exact",
        "b.example.com": "example",
        "x.a.example.com": "example",
        "x.y.z.example.com": "example",
        "example.com": "com",
        "notexample.com": "com",
        "com": "any",
        "example.org": "any",
        "127.0.0.1": "any",
        "[::1]": "any",
    }.items():
        assert table.ask("/", host=host) == f"{want}/0", host


def test_a_less_specific_host_answers_when_no_rule_of_the_better_one_does() -> None:
    table = Table(
        route("exact", rule(match("/a")), hosts=("a.example.com",)),
        route("wild", rule(match("/b")), hosts=("*.example.com",)),
        route("any", rule(match("/c"))),
    )
    assert [table.ask(path, host="a.example.com") for path in ("/a", "/b", "/c", "/d")] == ["exact/0", "wild/0", "any/0", None]


def test_a_host_outranks_a_better_path() -> None:
    table = Table(route("exact", rule(match("/")), hosts=("a.test",)), route("any", rule(match("/x", "Exact"))))
    assert table.ask("/x", host="a.test") == "exact/0"


def isolated() -> Table:
    listeners = (
        Listener(name="empty", port=8080),
        Listener(name="wild", port=8080, hostname="*.example.com"),
        Listener(name="deeper", port=8080, hostname="*.foo.example.com"),
        Listener(name="exact", port=8080, hostname="abc.foo.example.com"),
    )
    routes = (route(listener.name, rule(match(f"/{listener.name}")), on=(listener.name,)) for listener in listeners)
    return Table(*routes, listeners=listeners)


def test_GatewayHTTPListenerIsolation() -> None:
    """A request belongs to the most specific listener; a 404 there never falls back to a broader one."""
    table = isolated()
    owners = {"bar.com": "empty", "bar.example.com": "wild", "bar.foo.example.com": "deeper", "abc.foo.example.com": "exact"}
    for host, owner in owners.items():
        for listener in owners.values():
            facts = table.facts(f"/{listener}", host)
            assert facts["listener"] == owner
            assert facts["route"] == (owner if listener == owner else None)


def test_a_host_that_no_listener_takes_has_no_listener() -> None:
    table = Table(route("r", rule()), listeners=(Listener(name="l", port=8080, hostname="only.test"),))
    assert table.facts("/", "other.test")["listener"] is None
    assert table.facts("/", "only.test")["route"] == "r"


@pytest.mark.parametrize(
    ("listener", "hosts", "taken", "refused"),
    [
        ("very.specific.com", ("non.matching.com", "*.no.io", "very.specific.com"), "very.specific.com", "non.matching.com"),
        ("*.wildcard.io", ("foo.wildcard.io", "wildcard.io"), "foo.wildcard.io", "bar.wildcard.io"),
        ("*.example.com", ("*.com",), "x.example.com", "x.other.com"),
        ("very.specific.com", ("*.specific.com",), "very.specific.com", "non.specific.com"),
        ("*.anotherwildcard.io", ("*.anotherwildcard.io",), "one.two.three.anotherwildcard.io", "anotherwildcard.io"),
        ("*.example.com", (), "x.example.com", "example.com"),
    ],
)
def test_HTTPRouteHostnameIntersection(listener: str, hosts: tuple[str, ...], taken: str, refused: str) -> None:
    table = Table(route("r", rule(), hosts=hosts), listeners=(Listener(name="l", port=8080, hostname=listener),))
    assert table.ask("/", host=taken) == "r/0"
    assert table.ask("/", host=refused) is None


def test_a_wildcard_stands_for_a_label() -> None:
    table = Table(route("r", rule(), hosts=("*.example.com",)))
    assert table.facts("/", ".example.com")["route"] is None


# Headers and query parameters


def test_header_names_ignore_case_and_values_do_not() -> None:
    table = Table(route("r", rule(match(headers={"X-Color": "Blue"}))))
    assert table.ask("/", headers=(("x-cOLOR", "Blue"),)) == "r/0"
    assert table.ask("/", headers=(("x-color", "blue"),)) is None
    assert table.ask("/") is None


@pytest.mark.parametrize("regex", [False, True])
def test_a_repeated_header_is_one_value_joined_with_a_comma(regex: bool) -> None:
    table = Table(route("r", rule(match(headers={"x": "a,b,"}, regex=regex))))
    assert table.ask("/", headers=(("x", "a"), ("y", "0"), ("x", "b"), ("x", ""))) == "r/0"
    assert table.ask("/", headers=(("x", "a,b,"),)) == "r/0"
    assert table.ask("/", headers=(("x", "a"), ("x", "b"))) is None
    assert table.ask("/", headers=(("x", "a"),)) is None
    assert table.ask("/", headers=(("x", "a"), ("x", "b"), ("x", "c"))) is None


def test_header_regex_covers_the_whole_value() -> None:
    table = Table(route("r", rule(match(headers={"x": "v[0-9]"}, regex=True))))
    assert table.ask("/", headers=(("x", "v1"),)) == "r/0"
    assert table.ask("/", headers=(("x", "v12"),)) is None


def test_a_match_on_host_sees_what_routes() -> None:
    table = Table(route("r", rule(match(headers={"host": "a.test:81"}))))
    assert table.ask("/", host="a.test:81") == "r/0"
    assert table.ask("/", host="a.test") is None


@pytest.mark.parametrize(
    ("query", "fits"),
    [
        ("?v=1", True),
        ("?a=b&v=1", True),
        ("?v=1&v=2", True),
        ("?v=2&v=1", False),
        ("?V=1", False),
        ("?vv=1", False),
        ("?xv=1", False),
        ("?v=11", False),
        ("?v", False),
        ("?v=%31", False),
        ("?", False),
        ("", False),
        ("?&&v=1&", True),
    ],
)
def test_query_parameter_raw_value_first_one_wins(query: str, fits: bool) -> None:
    assert (Table(route("r", rule(match(query={"v": "1"})))).ask(f"/{query}") == "r/0") is fits


def test_query_regex_covers_the_whole_value() -> None:
    table = Table(route("r", rule(match(query={"v": "2|3|"}, regex=True))))
    assert [table.ask(f"/{query}") for query in ("?v=2", "?v=3", "?v=", "?v", "?v=23", "?w=2")] == ["r/0"] * 4 + [None, None]


# Against a reference that is too simple to be wrong, and cost


def reference(routes: list[HTTPRoute], host: str, path: str, method: str, header: str) -> str | None:
    """Every match of every rule, filtered, then sorted by Gateway API's precedence."""
    found = []
    for each in routes:
        for hostname in each.hostnames or ("*",):
            if not (hostname == host or (hostname.startswith("*") and host.endswith(hostname[1:]) and host != hostname[1:])):
                continue
            host_rank = (0, 0) if hostname == host else (1, -len(hostname))
            for number, one in enumerate(each.rules):
                for m in one.matches:
                    value = m.path.value.rstrip("/") if m.path.type == "PathPrefix" else m.path.value
                    if m.path.type == "Exact":
                        fits, kind = path == value, 0
                    elif m.path.type == "RegularExpression":
                        fits, kind = re.fullmatch(value, path) is not None, 1
                    else:
                        fits, kind = path == value or path.startswith(value + "/"), 2
                    if m.method not in (None, method) or (m.headers and m.headers[0].value != header) or not fits:
                        continue
                    pattern = value if kind == 1 else ""
                    order = (host_rank, kind, -len(value), pattern, m.method is None, -len(m.headers), each.name, number)
                    found.append((order, f"{each.name}/{number}"))
    return min(found)[1] if found else None


@pytest.mark.parametrize("seed", range(30))
def test_router_agrees_with_a_plain_reference(seed: int) -> None:
    draw = random.Random(seed)
    segments = ["a", "b", "ab", "c"]
    hosts = ["a.x.test", "b.x.test", "x.test", "c.b.x.test", "other.test"]
    patterns = ["*.x.test", "*.test", "*.b.x.test", *hosts]

    def some_path() -> str:
        return "/" + "/".join(draw.choice(segments) for _ in range(draw.randrange(5))) + draw.choice(["", "/"])

    def some_match() -> Any:
        kind = draw.choice(["PathPrefix", "PathPrefix", "Exact", "RegularExpression"])
        path = some_path().replace("//", "/")
        if kind == "RegularExpression":
            path = path.replace("a", draw.choice(["[ab]", "a*", ".+"]), 1)
        headers = {"x": draw.choice("12")} if draw.random() < 0.3 else None
        return match(path, kind, draw.choice([None, None, "GET", "POST"]), headers)

    routes = [
        route(
            f"r{number}",
            *(rule(*(some_match() for _ in range(draw.randrange(1, 4)))) for _ in range(draw.randrange(1, 5))),
            hosts=tuple(draw.sample(patterns, draw.randrange(3))),
        )
        for number in range(draw.randrange(1, 12))
    ]
    table = Table(*routes)
    for _ in range(300):
        path = some_path().replace("//", "/")
        host, method, header = draw.choice(hosts), draw.choice(["GET", "POST"]), draw.choice("123")
        want = reference(routes, host, path, method, header)
        assert table.ask(path, host, method, (("x", header),)) == want, (host, path, method, header)


def test_very_deep_and_very_long_paths_find_their_prefix() -> None:
    deep = "/d" * 512
    table = Table(route("r", rule(match(deep)), rule(match("/d" * 40)), rule(match("/d"))))
    assert table.ask(deep) == "r/0"
    assert table.ask(deep + "/d" * 2000) == "r/0"
    assert table.ask("/d" * 511) == "r/1"
    assert table.ask("/d" * 39 + "/x" * 1000) == "r/2"
    assert table.ask("/x" * 4000) is None


def test_hosts_with_more_labels_than_anyone_has_are_looked_up_safely() -> None:
    table = Table(route("any", rule()), route("wild", rule(), hosts=("*.test",)))
    assert table.ask("/", host="a." * 120 + "test") == "wild/0"


def big(hosts: int, rules: int) -> Table:
    return Table(
        *(route(f"r{h}", *(rule(match(f"/svc/{r}")) for r in range(rules)), hosts=(f"h{h}.example.com",)) for h in range(hosts)),
        listeners=(WEB,),
    )


@pytest.mark.slow
def test_lookup_does_not_depend_on_the_number_of_routes() -> None:
    """The bound is loose because machines are shared; a walk over the routes would miss it a hundred times over."""
    draw = random.Random(1)
    few, hosts, paths = big(1, 10), big(1000, 10), big(1, 10000)

    def cost(table: Table, n_hosts: int, n_rules: int) -> float:
        requests = [
            (b"GET", b"h%d.example.com" % draw.randrange(n_hosts), b"/svc/%d/a/b" % draw.randrange(n_rules)) for _ in range(500)
        ]
        found = [explain.time_routes(table.snapshot, table.port, requests, 20) for _ in range(5)]
        assert all(count == 500 * 20 for _, count in found)
        return min(ns for ns, _ in found)

    base = cost(few, 1, 10)
    assert cost(hosts, 1000, 10) < 10 * base
    assert cost(paths, 1, 10000) < 10 * base


def test_a_snapshot_without_ports_or_routes_answers_nothing() -> None:
    empty = compiled()
    snapshot = load(empty.blob)
    assert explain.explain_route(snapshot, 1, b"GET", b"a.test", b"/")["listener"] is None
    facts = explain.explain_route(snapshot, next(iter(empty.ports.values())), b"GET", b"a.test", b"/")
    assert (facts["listener"], facts["route"]) == ("web", None)
