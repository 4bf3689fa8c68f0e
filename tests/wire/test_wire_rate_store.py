"""Rate limits that a store decides: what is asked, what answers come to, and what happens without one. The test is the store."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import Connect
from test_wire_rates import passes, refused, send
from until import wait_until
from wirebench import Client, Gateway, Origin

CHARGE, LEASE, GIVE_BACK, CHARGE_ALL = range(4)
HOUR = 3600 * 10**6

CONFIG = """
redis: {url: "redis://127.0.0.1:1/0", timeout: 40ms}
listeners:
  - {name: web, port: 8080}
routes:
  - name: all
    rules:
      - matches: [{path: {type: PathPrefix, value: /strict}}]
        rateLimits: [strict]
        backendRefs: [{name: site}]
      - matches: [{path: {type: PathPrefix, value: /pair}}]
        rateLimits: [one, other, watched]
        backendRefs: [{name: site}]
      - matches: [{path: {type: PathPrefix, value: /closed}}]
        rateLimits: [closed]
        backendRefs: [{name: site}]
      - matches: [{path: {type: PathPrefix, value: /fall}}]
        rateLimits: [fall]
        backendRefs: [{name: site}]
      - matches: [{path: {type: PathPrefix, value: /leased}}]
        rateLimits: [leased]
        backendRefs: [{name: site}]
      - matches: [{path: {type: PathPrefix, value: /mixed}}]
        rateLimits: [here, strict]
        backendRefs: [{name: site}]
      - matches: [{path: {type: PathPrefix, value: /cost}}]
        rateLimits: [costly]
        backendRefs: [{name: site}]
rateLimits:
  - {name: strict, limit: {requests: 10, per: 1h, burst: 2}, key: ["header:x-user"], mode: strict}
  - {name: one, limit: {requests: 10, per: 1h}, key: ["header:x-user"], mode: strict}
  - {name: other, limit: {requests: 10, per: month}, key: [path], algorithm: fixed, mode: strict}
  - {name: watched, limit: {requests: 10, per: 1h}, key: ["header:x-user"], mode: strict, shadow: true}
  - {name: closed, limit: {requests: 10, per: 1h}, key: ["header:x-user"], mode: strict, onFailure: closed}
  - {name: fall, limit: {requests: 1, per: 1h}, key: ["header:x-user"], mode: strict, onFailure: local}
  - {name: leased, limit: {requests: 1000, per: 1s}, key: ["header:x-user"], mode: leased}
  - {name: here, limit: {requests: 1, per: 1h}, key: ["header:x-user"], mode: local}
  - {name: costly, limit: {requests: 100, per: 1h}, key: ["header:x-user"], mode: strict, cost: 2, costHeader: x-cost}
clusters:
  - {name: site, endpoints: ["127.0.0.1:1"]}
"""

Ask = tuple[int, int, int, tuple[Any, ...], int]


class Store:
    """What the gateway asks waits in `asked`, or is answered at once by `answers`."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.asked: list[Ask] = []
        self.turns = 0
        self.answers: Callable[[Ask], tuple[int, tuple[tuple[int, int, int], ...]] | None] | None = None
        gateway.call(lambda engine: engine.set_limit_asker(lambda: self._wake(engine)))

    def _wake(self, engine: Any) -> None:
        self.turns += 1
        for ask in engine.take_asks():
            self.asked.append(ask)
            if self.answers is not None:
                answer = self.answers(ask)
                if answer is None:
                    engine.fail_ask(ask[0], 1)
                else:
                    engine.answer_ask(ask[0], *answer)

    def next(self) -> Ask:
        wait_until(lambda: self.asked, 5)
        return self.asked.pop(0)

    def answer(self, ask: Ask, granted: int, *rows: tuple[int, int, int]) -> None:
        self.gateway.call(lambda engine: engine.answer_ask(ask[0], granted, rows or ((0, 0, 0),) * len(ask[3])))

    def fail(self, ask: Ask) -> None:
        self.gateway.call(lambda engine: engine.fail_ask(ask[0], 1))

    def close(self) -> None:
        self.gateway.call(lambda engine: engine.set_limit_asker(None))


@pytest.fixture
def store(gateway: Gateway, settled: None) -> Iterator[Store]:
    made = Store(gateway)
    yield made
    made.close()
    assert gateway.scalar("ratelimit_waiting") == 0
    assert gateway.scalar("bugs") == 0


def answered(client: Client, site: Origin) -> int:
    """The status of the answer to a request that was let through."""
    if not site.accepted:
        site.accept()
    site.accepted[0].request()
    site.accepted[0].ok()
    return client.answer().status


def test_equal_requests_of_one_turn_are_one_question(connect: Connect, site: Origin, store: Store, gateway: Gateway) -> None:
    clients = [connect() for _ in range(5)]
    gateway.turn()
    with gateway.stopped():
        for client in clients[:4]:
            send(client, "/strict", "X-User: merged")
        send(clients[4], "/strict", "X-User: other")
    first, second = store.next(), store.next()
    assert store.turns == 1
    assert sorted((ask[1], ask[2]) for ask in (first, second)) == [(1, CHARGE), (4, CHARGE)]
    merged, other = (first, second) if first[1] == 4 else (second, first)
    (row,) = merged[3]
    assert (row[0], len(row[1]), *row[2:]) == (b"", 16, 0, 10, HOUR, 12, 1)
    assert merged[4] == 40_000
    assert other[3][0][1] != row[1]
    store.answer(other, 1, (9, 0, 0))
    assert answered(clients[4], site) == 200
    store.answer(merged, 3, (0, 360_000, HOUR // 1000))
    for at in (site.accepted[0], site.accept(), site.accept()):
        at.request()
        at.ok()
    statuses = sorted(client.answer().status for client in clients[:4])
    assert statuses == [200, 200, 200, 429]
    # The store's word is kept: nobody asks again before it is over.
    told = refused(clients[0], "/strict", "X-User: merged")
    assert 355 <= int(str(told.get("retry-after"))) <= 360
    assert store.asked == []
    assert gateway.decisions("strict")[("denied", "deny_cache")] == 1
    assert gateway.decisions("strict")[("denied", "store")] == 1


def test_a_store_that_does_not_answer_costs_the_budget_and_no_more(client: Client, site: Origin, store: Store) -> None:
    begun = time.monotonic()
    send(client, "/strict", "X-User: late")
    assert answered(client, site) == 200
    took = time.monotonic() - begun
    assert 0.039 <= took < 1
    # what it grants too late is given back
    ask = store.next()
    store.answer(ask, 1, (5, 0, 0))
    back = store.next()
    assert (back[1], back[2], back[3]) == (1, GIVE_BACK, ask[3])
    assert store.gateway.decisions("strict")[("allowed", "fallback")] >= 1


def test_what_happens_without_an_answer_is_the_limits_choice(client: Client, site: Origin, store: Store) -> None:
    store.answers = lambda ask: None
    told = refused(client, "/closed", "X-User: a", status=503)
    assert (told.get("retry-after"), told.get("ratelimit")) == ("1", None)
    assert passes(client, site, "/fall", "X-User: a").get("ratelimit") == '"fall";r=0;t=3600'
    refused(client, "/fall", "X-User: a")
    assert passes(client, site, "/strict", "X-User: a").get("ratelimit") is None
    assert store.gateway.decisions("closed") == {("denied", "fallback"): 1}
    assert store.gateway.decisions("fall") == {("allowed", "fallback"): 1, ("denied", "fallback"): 1}


def test_strict_limits_are_asked_together_and_what_looks_on_alone(client: Client, site: Origin, store: Store) -> None:
    send(client, "/pair", "X-User: p")
    asks = sorted((store.next(), store.next()), key=lambda ask: len(ask[3]))
    assert [(ask[1], ask[2], len(ask[3])) for ask in asks] == [(1, CHARGE, 1), (1, CHARGE, 2)]
    rows = asks[1][3]
    assert rows[0][0] == rows[1][0] != b""
    assert [(row[2], row[3], row[4]) for row in rows] == [(0, 10, HOUR), (1, 10, 0)]
    # The shadow's refusal is counted, and does not keep the others from being charged.
    store.answer(asks[0], 0, (0, 9000, 9000))
    store.answer(asks[1], 1, (4, 0, 100), (7, 0, 5000))
    if not site.accepted:
        site.accept()
    site.accepted[0].request()
    site.accepted[0].ok()
    told = client.answer()
    assert str(told.get("ratelimit")).startswith('"one";r=4;t=1, "other";r=7;t=5')
    assert store.gateway.decisions("watched") == {("shadow_denied", "store"): 1}
    # One of the two refuses: it is the one that is told.
    send(client, "/pair", "X-User: p")
    ask = store.next()
    assert len(ask[3]) == 2
    store.answer(ask, 0, (4, 0, 100), (0, 7000, 7000))
    told = client.answer()
    assert (told.status, told.get("ratelimit"), told.get("retry-after")) == (429, '"other";r=0;t=7', "7")


def test_what_was_charged_here_is_given_back_when_the_store_refuses(client: Client, site: Origin, store: Store) -> None:
    for _ in range(3):
        send(client, "/mixed", "X-User: m")
        ask = store.next()
        # for no time that would be kept
        store.answer(ask, 0, (0, 0, 1))
        assert client.answer().status == 429
    send(client, "/mixed", "X-User: m")
    store.answer(store.next(), 1, (1, 0, 1))
    assert answered(client, site) == 200
    assert refused(client, "/mixed", "X-User: m").get("ratelimit") == '"here";r=0;t=3600'
    assert store.asked == []


def test_a_cold_key_takes_one_and_a_hot_one_takes_ahead(client: Client, site: Origin, store: Store) -> None:
    store.answers = lambda ask: (ask[1], ((900, 0, 100),))
    for _ in range(300):
        passes(client, site, "/leased", "X-User: hot")
    leases = [ask for ask in store.asked if ask[2] == LEASE]
    assert leases[0][1] == 1
    assert 1 < max(ask[1] for ask in leases) <= 100
    assert len(leases) < 40
    decisions = store.gateway.decisions("leased")
    assert decisions[("allowed", "lease")] > 250
    assert decisions[("allowed", "lease")] + decisions[("allowed", "store")] == 300
    # what is left when it is over goes back

    def kept() -> int:
        return sum(ask[1] * {LEASE: 1, GIVE_BACK: -1}[ask[2]] for ask in store.asked)

    wait_until(lambda: kept() == 300, 5)


def test_a_lease_that_brings_too_little_refuses_the_rest(connect: Connect, site: Origin, store: Store, gateway: Gateway) -> None:
    clients = [connect() for _ in range(3)]
    gateway.turn()
    with gateway.stopped():
        for client in clients:
            send(client, "/leased", "X-User: little")
    ask = store.next()
    assert (ask[1], ask[2]) == (3, LEASE)
    store.answer(ask, 1, (0, 5000, 6000))
    site.accept().request()
    site.accepted[0].ok()
    assert sorted(client.answer().status for client in clients) == [200, 429, 429]
    refused(clients[0], "/leased", "X-User: little")
    assert store.asked == []


def test_who_comes_while_it_is_asked_waits_for_the_same_answer(
    connect: Connect, site: Origin, store: Store, gateway: Gateway
) -> None:
    one, two = connect(), connect()
    send(one, "/leased", "X-User: join")
    ask = store.next()
    assert ask[1] == 1
    send(two, "/leased", "X-User: join")
    gateway.turn()
    assert store.asked == []
    store.answer(ask, 1, (900, 0, 0))
    assert answered(one, site) == 200
    # it was enough for one: the other is asked for now
    again = store.next()
    assert (again[1], again[2]) == (1, LEASE)
    store.answer(again, 1, (899, 0, 0))
    assert answered(two, site) == 200


def test_a_client_that_goes_away_is_not_charged(connect: Connect, site: Origin, store: Store, gateway: Gateway) -> None:
    client = connect()
    send(client, "/strict", "X-User: gone")
    ask = store.next()
    client.reset()
    wait_until(lambda: gateway.scalar("ratelimit_waiting") == 0, 5)
    store.answer(ask, 1, (3, 0, 0))
    back = store.next()
    assert (back[1], back[2], back[3]) == (1, GIVE_BACK, ask[3])
    site.untouched()


def test_content_waits_as_well(client: Client, site: Origin, store: Store, gateway: Gateway) -> None:
    body = "b" * 200_000
    client.send(f"POST /strict HTTP/1.1\r\nHost: a.test\r\nX-User: body\r\nContent-Length: {len(body)}\r\n\r\n")
    ask = store.next()
    store.answer(ask, 1, (3, 0, 0))
    client.send(body)
    origin = site.accept()
    assert origin.request(len(body)).endswith(body.encode())
    origin.ok()
    assert client.answer().status == 200


def test_what_it_took_is_told_to_the_store(client: Client, site: Origin, store: Store) -> None:
    store.answers = lambda ask: (ask[1], ((50, 0, 0),))
    passes(client, site, "/cost", "X-User: c", said=("x-cost: 7",))
    passes(client, site, "/cost", "X-User: c", said=("x-cost: 0",))
    said = [(ask[1], ask[2], ask[3][0][6]) for ask in store.asked]
    assert said == [(1, CHARGE, 2), (5, CHARGE_ALL, 1), (1, CHARGE, 2), (2, GIVE_BACK, 1)]


def test_unknown_and_late_answers_are_nothing(store: Store, gateway: Gateway) -> None:
    def answer(engine: Any) -> None:
        engine.answer_ask(12345, 7, ((1, 2, 3),))
        engine.fail_ask(12345)
        engine.answer_ask(1, -5, ((-1, 2**70, 3),))

    gateway.call(answer)


def test_without_a_store_the_gateway_counts(client: Client, site: Origin, gateway: Gateway) -> None:
    for left in range(11, -1, -1):
        told = passes(client, site, "/strict", "X-User: nobody")
        assert str(told.get("ratelimit")).startswith(f'"strict";r={left};')
    refused(client, "/strict", "X-User: nobody")


def test_a_store_that_goes_leaves_nobody_waiting(client: Client, site: Origin, store: Store) -> None:
    send(client, "/closed", "X-User: left")
    store.next()
    store.close()
    assert client.answer().status == 503


def test_an_asker_that_breaks_is_counted_and_the_budget_holds(client: Client, site: Origin, gateway: Gateway) -> None:
    before = gateway.scalar("bugs")

    def broken() -> None:
        raise RuntimeError("no")

    gateway.call(lambda engine: engine.set_limit_asker(broken))
    send(client, "/closed", "X-User: broken")
    assert client.answer().status == 503
    gateway.call(lambda engine: engine.set_limit_asker(None))
    assert gateway.scalar("bugs") == before + 1
