"""The way of an ask to a real server and back; and what becomes of it when the server dies, freezes, or has its reasons."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from asking import Asking, limit
from redis_server import RedisServer, either_server
from until import until

from gateway.supervisor.redis_url import parse_redis_url
from gateway.worker.limits import shard as shard_module
from gateway.worker.limits.link import Link
from gateway.worker.limits.script import CHARGE_ALL, GIVE_BACK, LEASE, SCRIPT, name_of
from gateway.worker.limits.shard import FULL, KEY, OPEN, TIMEOUT, UNREACHABLE

__all__ = ["either_server"]

BUDGET_US = 10_000


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_module, "MEND_EVERY_S", 0.1)


@contextlib.asynccontextmanager
async def linked(url: str) -> AsyncIterator[tuple[Asking, Link]]:
    asking = Asking()
    link = Link(asking, parse_redis_url(url))
    try:
        yield asking, link
    finally:
        await link.close()
        assert asking.open == 0, "an ask without an answer"
        assert len(asyncio.all_tasks()) == 1


def tell(story: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await story()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def errors(link: Link) -> set[str]:
    return set(link.facts().errors)


async def healthy(asking: Asking, number: int = 10**6) -> None:
    """Waits until the store decides again."""
    while (await asking.ask(limit(number, requests=10**6, most=10**6))).reason:
        await until(lambda: True)


def test_asks_are_answered(either_server: RedisServer) -> None:
    async def story() -> None:
        async with linked(either_server.url) as (asking, link):
            first = await asking.ask(limit(1, most=5), count=3)
            assert (first.granted, first.facts[0][0]) == (3, 2)
            second = await asking.ask(limit(1, most=5), limit(2), count=9)
            assert second.granted == 2 and [row[0] for row in second.facts] == [0, 98]
            assert (await asking.ask(limit(1, most=5))).facts[0][1] > 0
            assert (await asking.ask(limit(1, most=5), count=2, kind=GIVE_BACK)).granted == 2
            assert (await asking.ask(limit(1, most=5), count=9, kind=LEASE)).granted == 2
            assert (await asking.ask(limit(1, most=5), count=9, kind=CHARGE_ALL)).granted == 9
            facts = link.facts()
            assert (facts.asks, facts.round_trips, sum(facts.buckets), facts.errors) == (6, 6, 6, {})
            assert (facts.breakers, facts.breakers_open) == (1, 0) and facts.microseconds > 0

    tell(story)


def test_what_is_asked_in_one_turn_goes_in_one_round_trip(either_server: RedisServer) -> None:
    async def story() -> None:
        async with linked(either_server.url) as (asking, link):
            await asking.ask(limit())
            outcomes = await asyncio.gather(*(asking.ask(limit(number)) for number in range(200)))
            assert all(outcome.granted == 1 for outcome in outcomes)
            assert link.facts().round_trips == 2 and len(asking.taken) == 2

    tell(story)


def test_asks_come_together_while_a_round_trip_is_on_its_way(either_server: RedisServer) -> None:
    """Sixty-four that ask again as soon as they are answered, as connections do: far fewer round trips than asks."""

    async def story() -> None:
        async with linked(either_server.url) as (asking, link):

            async def client(number: int) -> None:
                for _ in range(50):
                    await asyncio.sleep(0)
                    assert (await asking.ask(limit(number))).granted == 1

            await asyncio.gather(*(client(number) for number in range(64)))
            facts = link.facts()
            assert facts.asks == 3200 and facts.round_trips * 20 <= facts.asks

    tell(story)


def test_a_server_that_loses_its_scripts_gets_them_again(either_server: RedisServer) -> None:
    async def story() -> None:
        async with linked(either_server.url) as (asking, link):
            await asking.ask(limit())
            with contextlib.closing(either_server.client()) as client:
                client.script_flush()
                outcomes = await asyncio.gather(*(asking.ask(limit(number)) for number in range(30)))
                assert all(outcome.granted == 1 for outcome in outcomes)
                assert client.info("commandstats")["cmdstat_eval"]["calls"] == 2
            assert not errors(link)

    tell(story)


def test_a_server_that_dies_and_comes_back(either_server: RedisServer) -> None:
    """kill -9: what is asked meanwhile fails at once; after the restart (no scripts, no keys) it decides again."""

    async def story() -> None:
        async with linked(either_server.url) as (asking, link):
            await asking.ask(limit())
            either_server.kill()
            outcome = await asking.ask(limit())
            assert outcome.reason in (OPEN, UNREACHABLE)
            await until(lambda: link.facts().breakers_open)
            outcomes = [await asking.ask(limit()) for _ in range(50)]
            assert {outcome.reason for outcome in outcomes} == {OPEN} and max(row.seconds for row in outcomes) < 0.05
            either_server.start()
            await healthy(asking)
            assert (await asking.ask(limit())).facts[0][0] == 99
            assert link.facts().opened >= 1 and "connect" in errors(link)

    tell(story)


def test_a_server_that_dies_with_asks_on_their_way(either_server: RedisServer) -> None:
    async def story() -> None:
        async with linked(either_server.url) as (asking, _):
            await asking.ask(limit())
            either_server.freeze()
            waiting = [asking.ask(limit(number)) for number in range(20)]
            await until(lambda: len(asking.taken) == 2)
            either_server.kill()
            outcomes = await asyncio.gather(*waiting)
            assert {outcome.reason for outcome in outcomes} <= {UNREACHABLE, OPEN} and max(row.seconds for row in outcomes) < 1.5
            either_server.start()
            await healthy(asking)

    tell(story)


def test_a_server_that_freezes_costs_the_budget_for_a_moment_and_then_nothing(either_server: RedisServer) -> None:
    async def story() -> None:
        async with linked(either_server.url) as (asking, link):
            await asking.ask(limit())
            either_server.freeze()
            outcomes = []
            while not link.facts().breakers_open:
                outcomes += await asyncio.gather(*(asking.ask(limit(), budget_us=BUDGET_US) for _ in range(8)))
            assert {outcome.reason for outcome in outcomes} <= {TIMEOUT, OPEN} and outcomes[0].reason == TIMEOUT
            after = [await asking.ask(limit(), budget_us=BUDGET_US) for _ in range(200)]
            assert {outcome.reason for outcome in after} == {OPEN}
            assert sorted(outcome.seconds for outcome in after)[150] < 0.001
            assert errors(link) == {"timeout"}
            either_server.thaw()
            await healthy(asking)

    tell(story)


def test_a_connection_that_owes_an_answer_for_too_long_is_made_anew(
    either_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when packets are dropped without a word: the old connection never answers, a new one would."""
    monkeypatch.setattr(shard_module, "STALE_S", 0.05)

    async def story() -> None:
        async with linked(either_server.url) as (asking, link):
            await asking.ask(limit())
            either_server.freeze()
            while not link.facts().breakers_open:
                await asking.ask(limit(), budget_us=BUDGET_US)
            await until(lambda: "connect" in errors(link))
            either_server.thaw()
            await healthy(asking)
            with contextlib.closing(either_server.client()) as client:
                assert client.info("commandstats")["cmdstat_eval"]["calls"] >= 2

    tell(story)


def test_what_is_granted_too_late_goes_back(either_server: RedisServer) -> None:
    async def story() -> None:
        async with linked(either_server.url) as (asking, link):
            await asking.ask(limit(2))
            either_server.freeze()
            late = await asyncio.gather(*(asking.ask(limit(1), count=7, budget_us=BUDGET_US) for _ in range(3)))
            assert {outcome.reason for outcome in late} == {TIMEOUT} and not link.facts().breakers_open
            either_server.thaw()
            with contextlib.closing(either_server.client()) as client:
                calls = lambda: client.info("commandstats")["cmdstat_evalsha"]["calls"]  # noqa: E731
                await until(lambda: calls() == 1 + 1 + 3 + 3)  # the trial, the first, the late ones, those that take it back
            assert (await asking.ask(limit(1))).facts[0][0] == 99

    tell(story)


def test_late_grants_go_back_while_the_breaker_is_open(either_server: RedisServer) -> None:
    async def story() -> None:
        async with linked(either_server.url) as (asking, link):
            await asking.ask(limit(2))
            either_server.freeze()
            while not link.facts().breakers_open:
                await asking.ask(limit(1), count=7, budget_us=BUDGET_US)
            either_server.thaw()
            await healthy(asking)
            await until(lambda: True)
            assert (await asking.ask(limit(1))).facts[0][0] == 99

    tell(story)


def test_asks_of_the_first_moment_wait_for_the_connection(either_server: RedisServer) -> None:
    async def story() -> None:
        async with linked(either_server.url) as (asking, _):
            outcomes = await asyncio.gather(*(asking.ask(limit(number)) for number in range(10)))
            assert all(outcome.granted == 1 for outcome in outcomes)

    tell(story)


def test_nobody_waits_for_a_connection_longer_than_the_budget(either_server: RedisServer) -> None:
    """A server that accepts and says nothing."""

    async def story() -> None:
        either_server.freeze()
        async with linked(either_server.url) as (asking, link):
            first = await asking.ask(limit(), budget_us=BUDGET_US)
            assert first.reason == TIMEOUT and first.seconds < 0.2
            for _ in range(20):
                await asking.ask(limit(), budget_us=BUDGET_US)
            assert link.facts().breakers_open
            either_server.thaw()
            await healthy(asking)

    tell(story)


def test_there_is_no_server_at_all(tmp_path: Path) -> None:
    async def story() -> None:
        async with linked(f"unix://{tmp_path}/none") as (asking, link):
            outcomes = await asyncio.gather(*(asking.ask(limit()) for _ in range(5)))
            assert {outcome.reason for outcome in outcomes} == {OPEN}
            assert (await asking.ask(limit())).reason == OPEN
            assert link.facts().errors["connect"] >= 1

    tell(story)


def test_a_primary_that_becomes_a_replica(either_server: RedisServer) -> None:
    """READONLY: asks fail at once, the connection is made anew, and the breaker keeps requests away until it is a primary again."""

    async def story() -> None:
        async with linked(either_server.url) as (asking, link):
            await asking.ask(limit())
            with contextlib.closing(either_server.client()) as client:
                client.replicaof("127.0.0.1", 1)
                assert (await asking.ask(limit())).reason == UNREACHABLE
                while not link.facts().breakers_open:
                    assert (await asking.ask(limit())).reason in (UNREACHABLE, OPEN)
                assert (await asking.ask(limit())).reason == OPEN
                assert "readonly" in errors(link)
                client.replicaof("NO", "ONE")
            await healthy(asking)

    tell(story)


def test_a_server_that_is_full(either_server: RedisServer) -> None:
    """OOM, and room again."""

    async def story() -> None:
        async with linked(either_server.url) as (asking, link):
            await asking.ask(limit())
            with contextlib.closing(either_server.client()) as client:
                client.config_set("maxmemory", 1)
                while not link.facts().breakers_open:
                    assert (await asking.ask(limit())).reason in (UNREACHABLE, OPEN)
                assert errors(link) == {"oom"}
                client.config_set("maxmemory", 0)
            await healthy(asking)

    tell(story)


@pytest.mark.parametrize("kind", ["valkey", "redis"])
def test_a_server_that_still_loads(kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """LOADING: a slow start with many keys. Nobody waits, and it serves when it is done."""
    directory = tmp_path_factory.mktemp("r")
    with RedisServer(directory, kind) as filling, contextlib.closing(filling.client()) as client:
        client.mset({f"k{number}": "x" * 100 for number in range(2000)})
        client.save()
    slow = ("key-load-delay 500", "loading-process-events-interval-bytes 1024")

    async def story(loading: RedisServer) -> None:
        async with linked(loading.url) as (asking, link):
            assert (await asking.ask(limit())).reason
            await until(lambda: "loading" in errors(link))
            assert (await asking.ask(limit())).reason == OPEN
            await healthy(asking)

    with RedisServer(directory, kind, args=slow) as loading:
        tell(lambda: story(loading))


def test_a_key_of_another_type_hurts_nobody_else(either_server: RedisServer) -> None:
    """WRONGTYPE."""

    async def story() -> None:
        async with linked(either_server.url) as (asking, link):
            with contextlib.closing(either_server.client()) as client:
                client.lpush(name_of(limit(1)), "x")
            for _ in range(20):
                bad, good = await asyncio.gather(asking.ask(limit(1)), asking.ask(limit(2)))
                assert (bad.reason, good.granted) == (KEY, 1)
            assert not link.facts().breakers_open and errors(link) == {"key"}

    tell(story)


def test_a_connection_that_the_server_ends_when_idle_is_no_error(either_server: RedisServer) -> None:
    async def story() -> None:
        async with linked(either_server.url) as (asking, link):
            await asking.ask(limit())
            with contextlib.closing(either_server.client()) as client:
                since = time.monotonic()
                await until(lambda: time.monotonic() - since > shard_module.SHORT_LIFE_S)
                assert client.client_kill_filter(_type="normal", skipme=True) == 1
                # Each new connection brings the script.
                await until(lambda: client.info("commandstats")["cmdstat_eval"]["calls"] == 2)
                await healthy(asking)
            assert not errors(link) and link.facts().opened == 0

    tell(story)


def test_more_asks_than_there_is_room_for_are_refused_at_once(either_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_module, "MOST_CALLS", 100)

    async def story() -> None:
        async with linked(either_server.url) as (asking, link):
            await asking.ask(limit())
            either_server.freeze()
            waiting = [asking.ask(limit(number), budget_us=500_000) for number in range(300)]
            await until(lambda: sum(answer.done() for answer in waiting) >= 200)
            assert {answer.result().reason for answer in waiting if answer.done()} == {FULL}
            assert link.facts().errors["full"] == 200
            either_server.thaw()
            assert {outcome.reason for outcome in await asyncio.gather(*waiting)} <= {0, FULL, TIMEOUT}

    tell(story)


def test_a_link_that_closes_leaves_no_ask_open_and_no_store(either_server: RedisServer) -> None:
    async def story() -> None:
        async with linked(either_server.url) as (asking, link):
            await asking.ask(limit())
            either_server.freeze()
            waiting = asking.ask(limit())
            await until(lambda: len(asking.taken) == 2)
            await link.close()
            assert (await waiting).reason == UNREACHABLE
            assert (await asking.ask(limit())).reason == 0  # nobody is asked any more
            either_server.thaw()

    tell(story)


def test_a_link_that_moves_asks_the_other_store(tmp_path_factory: pytest.TempPathFactory) -> None:
    with RedisServer(tmp_path_factory.mktemp("r")) as old, RedisServer(tmp_path_factory.mktemp("r")) as new:

        async def story() -> None:
            async with linked(old.url) as (asking, link):
                assert (await asking.ask(limit(), count=10)).facts[0][0] == 90
                old.freeze()
                waiting = asking.ask(limit())
                await until(lambda: len(asking.taken) == 2)
                await link.move(parse_redis_url(new.url))
                assert (await waiting).reason == UNREACHABLE
                assert (await asking.ask(limit())).facts[0][0] == 99
                assert link.facts().asks >= 3  # it goes on counting

        tell(story)


def test_something_else_than_a_redis_is_told_apart(tmp_path: Path) -> None:
    """A server of another protocol."""

    async def story() -> None:
        async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            with contextlib.suppress(OSError):
                await writer.drain()
                await reader.read()
            writer.close()

        other = await asyncio.start_unix_server(greet, tmp_path / "s")
        async with other, linked(f"unix://{tmp_path}/s") as (asking, link):
            assert (await asking.ask(limit())).reason == OPEN
            assert link.facts().errors["connect"] >= 1
        other.close()

    tell(story)


def test_the_script_is_sent_once_and_its_digest_after_that(either_server: RedisServer) -> None:
    async def story() -> None:
        async with linked(either_server.url) as (asking, _):
            for _ in range(10):
                await asking.ask(limit())
            with contextlib.closing(either_server.client()) as client:
                stats: Any = client.info("commandstats")
                assert stats["cmdstat_eval"]["calls"] == 1 and stats["cmdstat_evalsha"]["calls"] == 11
                assert client.script_exists(__import__("hashlib").sha1(SCRIPT).hexdigest()) == [True]

    tell(story)
