"""Which endpoint answers: every policy through the whole path, counted by what the clients are told.

Each endpoint says its name. Where a policy draws at random the bounds are six standard deviations wide: they fail once in a billion
runs, and any other policy is far outside of them.
"""

import socket
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from data_plane import DataPlane, origin_config
from faulty import Origin, Wire, answer, client, polite

ROUND_ROBIN = {"loadBalancing": {"policy": "RoundRobin"}}
LEAST_REQUEST = {"loadBalancing": {"policy": "LeastRequest"}}
RANDOM = {"loadBalancing": {"policy": "Random"}}


@contextmanager
def origins(names: str) -> Iterator[list[Origin]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Origin(polite, name)) for name in names]


def weighted(sites: Sequence[Origin], weights: Sequence[int], policy: dict[str, Any]) -> dict[str, Any]:
    endpoints = [{"address": f"127.0.0.1:{site.port}", "weight": weight} for site, weight in zip(sites, weights, strict=True)]
    return origin_config(cluster={**policy, "endpoints": endpoints})


def names(plane: DataPlane, n: int, target: str = "/") -> str:
    """Who answers n requests, one after the other, in order."""
    with client(plane.port) as wire:
        return "".join(wire.ask(target).body.decode() for _ in range(n))


def is_near(count: int, n: int, share: float) -> bool:
    return bool(abs(count - n * share) <= 6 * (n * share * (1 - share)) ** 0.5)


# round robin


def test_round_robin_takes_turns_exactly() -> None:
    with origins("abc") as sites, DataPlane(origin_config(*(site.port for site in sites), cluster=ROUND_ROBIN)) as plane:
        seen = names(plane, 30)
        assert seen == seen[:3] * 10 and set(seen) == set("abc")


def test_round_robin_counts_all_connections_together() -> None:
    """Turns are the cluster's and not those of a client."""
    with origins("abc") as sites, DataPlane(origin_config(*(site.port for site in sites), cluster=ROUND_ROBIN)) as plane:
        with ExitStack() as stack:
            wires = [stack.enter_context(client(plane.port)) for _ in range(3)]
            seen = "".join(wires[i % 3].ask().body.decode() for i in range(30))
        assert Counter(seen) == {"a": 10, "b": 10, "c": 10}


def test_weighted_round_robin_is_smooth_and_exact() -> None:
    """Five in seven for one endpoint, and never all five in a row."""
    with origins("abc") as sites, DataPlane(weighted(sites, (5, 1, 1), ROUND_ROBIN)) as plane:
        # two of the same weight come in the order of their addresses
        assert names(plane, 70) in ("aabacaa" * 10, "aacabaa" * 10)


def test_a_weight_of_zero_takes_nothing() -> None:
    for policy in (ROUND_ROBIN, LEAST_REQUEST, RANDOM):
        with origins("abc") as sites, DataPlane(weighted(sites, (1, 0, 2), policy)) as plane:
            seen = Counter(names(plane, 60))
            assert "b" not in seen and sites[1].accepted == 0 and set(seen) == {"a", "c"}


def test_an_endpoint_joins_and_another_leaves_between_two_requests() -> None:
    with origins("abc") as sites:
        ports = [site.port for site in sites]
        with DataPlane(origin_config(*ports[:2], cluster=ROUND_ROBIN)) as plane, client(plane.port) as wire:
            assert Counter(wire.ask().body for _ in range(10)) == {b"a": 5, b"b": 5}
            plane.load(origin_config(*ports, cluster=ROUND_ROBIN))
            assert Counter(wire.ask().body for _ in range(30)) == {b"a": 10, b"b": 10, b"c": 10}
            plane.load(origin_config(*ports[1:], cluster=ROUND_ROBIN))
            assert Counter(wire.ask().body for _ in range(10)) == {b"b": 5, b"c": 5}
            # who left is let go of at once, and who stayed keeps its connection
            plane.until(lambda: sites[0].open == 0)
            assert [site.accepted for site in sites] == [1, 1, 1]


# least request


def holding(origin: Origin, wire: Wire) -> None:
    """Answers at once, but /held not before the test's end."""
    while (request := wire.request()) is not None:
        origin.requests.append(request)
        if request.target == "/held":
            origin.stop.wait(20)
        wire.send(answer(origin.name.encode()))


@pytest.mark.parametrize("policy", [LEAST_REQUEST, RANDOM], ids=["LeastRequest", "Random"])
def test_least_request_prefers_who_has_less_to_do(policy: dict[str, Any]) -> None:
    """Power of two choices: with both endpoints compared, the one that is busy is taken only where no second one was drawn."""
    n = 300
    with (
        Origin(holding, "busy") as busy,
        Origin(holding, "idle") as idle,
        DataPlane(origin_config(busy.port, cluster=policy)) as plane,
        ExitStack() as stack,
    ):
        for _ in range(3):
            stack.enter_context(client(plane.port)).send(b"GET /held HTTP/1.1\r\nhost: test\r\n\r\n")
        plane.until(lambda: len(busy.requests) == 3)
        plane.load(origin_config(busy.port, idle.port, cluster=policy))
        assert (plane.endpoint(busy.port)["active"], plane.endpoint(idle.port)["active"]) == (3, 0)
        with client(plane.port) as wire:
            share = Counter(wire.ask().body for _ in range(n))
        if policy is RANDOM:
            # the same scene tells the policies apart
            assert is_near(share[b"busy"], n, 0.5)
        else:
            assert share[b"busy"] < n / 8
        assert (plane.endpoint(busy.port)["active"], plane.endpoint(idle.port)["active"]) == (3, 0)


def test_least_request_spreads_what_is_held() -> None:
    """Forty requests at once on four endpoints: nobody is left out, nobody gets all."""
    with ExitStack() as stack:
        sites = [stack.enter_context(Origin(holding, name)) for name in "abcd"]
        with DataPlane(origin_config(*(site.port for site in sites), cluster=LEAST_REQUEST)) as plane, ExitStack() as wires:
            for i in range(40):
                wires.enter_context(client(plane.port)).send(b"GET /held HTTP/1.1\r\nhost: test\r\n\r\n")
                plane.until(lambda i=i: sum(len(site.requests) for site in sites) == i + 1)  # type: ignore[misc]
            active = [row["active"] for row in plane.endpoints()]
            assert sum(active) == 40 and min(active) >= 4 and max(active) <= 16


def test_least_request_by_weight_while_everybody_is_idle() -> None:
    with origins("ab") as sites, DataPlane(weighted(sites, (1, 4), LEAST_REQUEST)) as plane:
        assert is_near(names(plane, 600).count("a"), 600, 1 / 5)


# random


def test_random_is_even() -> None:
    with origins("abcd") as sites, DataPlane(origin_config(*(site.port for site in sites), cluster=RANDOM)) as plane:
        seen = names(plane, 1200)
        assert all(is_near(seen.count(name), 1200, 1 / 4) for name in "abcd")
        # and no rotation: after each name every name comes
        assert len({seen[i : i + 2] for i in range(1199)}) == 16


def test_random_by_weight() -> None:
    with origins("abc") as sites, DataPlane(weighted(sites, (1, 3, 6), RANDOM)) as plane:
        seen = names(plane, 1200)
        assert all(is_near(seen.count(name), 1200, share) for name, share in (("a", 0.1), ("b", 0.3), ("c", 0.6)))


# consistent hash

N_KEYS = 120
Ask = Callable[[DataPlane, int], bytes]


def by_header(plane: DataPlane, key: int) -> bytes:
    with client(plane.port) as wire:
        return wire.ask(f"/{id(wire)}", x_user=f"user-{key}").body


def by_cookie(plane: DataPlane, key: int) -> bytes:
    with client(plane.port) as wire:
        return wire.ask(cookie=f"other=1; sid=session-{key}; xsid={id(wire)}").body


def by_query(plane: DataPlane, key: int) -> bytes:
    with client(plane.port) as wire:
        return wire.ask(f"/?other={id(wire)}&shard=s{key}").body


def by_address(plane: DataPlane, key: int) -> bytes:
    with Wire(socket.create_connection(("127.0.0.1", plane.port), timeout=20, source_address=(f"127.1.0.{key + 1}", 0))) as wire:
        return wire.ask().body


KINDS = {"header:x-user": by_header, "cookie:sid": by_cookie, "query:shard": by_query, "clientAddress": by_address}


def hashed(*sites: Origin, key: str) -> dict[str, Any]:
    return origin_config(*(site.port for site in sites), cluster={"loadBalancing": {"policy": "ConsistentHash", "key": key}})


@pytest.mark.parametrize("key", KINDS)
def test_a_key_has_its_endpoint(key: str) -> None:
    """The same key comes to the same endpoint, whatever else differs, in every worker; and moves only when its endpoint leaves."""
    ask: Ask = KINDS[key]
    with origins("abcdefgh") as sites, DataPlane(hashed(*sites, key=key)) as plane:
        first = [ask(plane, each) for each in range(N_KEYS)]
        assert [ask(plane, each) for each in range(N_KEYS)] == first
        spread = Counter(first)
        assert len(spread) == 8 and max(spread.values()) < N_KEYS / 2
        with DataPlane(hashed(*reversed(sites), key=key)) as other:
            assert [ask(other, each) for each in range(N_KEYS)] == first
        # without the third endpoint: its keys find new ones, the others nearly all stay
        plane.load(hashed(*sites[:2], *sites[3:], key=key))
        after = [ask(plane, each) for each in range(N_KEYS)]
        assert b"c" not in after
        moved = sum(old != new for old, new in zip(first, after, strict=True) if old != b"c")
        assert moved <= (N_KEYS - spread[b"c"]) * 0.2
        # back again: everybody is where they were
        plane.load(hashed(*sites, key=key))
        assert [ask(plane, each) for each in range(N_KEYS)] == first


def test_a_key_finds_its_endpoint_behind_proxies_that_are_trusted() -> None:
    """clientAddress is the client's, as the log has it, and not that of the proxy in front."""
    with origins("abcdefgh") as sites:
        config = hashed(*sites, key="clientAddress")
        config["listeners"][0]["trustedHops"] = 1
        with DataPlane(config) as plane, client(plane.port) as wire:
            spread = set()
            for each in range(40):
                address = f"203.0.113.{each}"
                assert len({wire.ask(x_forwarded_for=address).body for _ in range(2)}) == 1
                spread.add(wire.ask(x_forwarded_for=f"10.0.0.{each}, {address}").body)
            assert len(spread) > 2


def test_requests_without_the_key_are_spread() -> None:
    with origins("abcd") as sites, DataPlane(hashed(*sites, key="header:x-user")) as plane:
        seen = names(plane, 400)
        assert all(is_near(seen.count(name), 400, 1 / 4) for name in "abcd")


def test_a_key_whose_endpoint_is_down_goes_to_one_other_endpoint() -> None:
    """Not to a random one each time: its second home is as fixed as its first."""
    with origins("abcd") as sites, DataPlane(hashed(*sites, key="header:x-user")) as plane, client(plane.port) as wire:
        keys = [f"k{i}" for i in range(30)]
        first = {key: wire.ask(x_user=key).body for key in keys}
        sites[0].close()
        plane.until(lambda: plane.endpoint(sites[0].port)["connections"] == 0)
        for key in keys:
            homes = {wire.ask(x_user=key).body for _ in range(3)}
            assert len(homes) == 1 and b"a" not in homes
            assert first[key] == b"a" or homes == {first[key]}


# weighted backends


def split_config(parts: dict[str, tuple[Origin, int]]) -> dict[str, Any]:
    config = origin_config()
    config["routes"][0]["rules"][0]["backendRefs"] = [{"name": name, "weight": weight} for name, (_, weight) in parts.items()]
    config["clusters"] = [{"name": name, "endpoints": [f"127.0.0.1:{site.port}"]} for name, (site, _) in parts.items()]
    return config


def test_backends_of_a_rule_by_weight() -> None:
    with origins("abc") as (a, b, c), DataPlane(split_config({"stable": (a, 9), "canary": (b, 1), "off": (c, 0)})) as plane:
        seen = names(plane, 1000)
        assert is_near(seen.count("b"), 1000, 1 / 10)
        assert c.accepted == 0
        logged = Counter(record["cluster"] for record in plane.records(1000))
        assert logged == {"stable": seen.count("a"), "canary": seen.count("b")}
        # shifting the weights moves the traffic with the next request
        plane.load(split_config({"stable": (a, 0), "canary": (b, 1), "off": (c, 0)}))
        assert names(plane, 30) == "b" * 30


def test_a_share_of_a_backend_that_does_not_exist_is_500() -> None:
    """Gateway API: the share of an invalid reference fails, and is not given to the others."""
    with origins("a") as (a,):
        config = split_config({"stable": (a, 1)})
        config["routes"][0]["rules"][0]["backendRefs"].append({"name": "nowhere", "weight": 1})
        with DataPlane(config, flawed=True) as plane, client(plane.port) as wire:
            seen = Counter(wire.ask().status for _ in range(400))
            assert set(seen) == {200, 500} and is_near(seen[500], 400, 1 / 2)
