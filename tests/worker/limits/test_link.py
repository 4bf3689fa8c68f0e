"""The way of an ask from a real engine to a real server and back; and what becomes of it when the server dies, freezes, or has its
reasons. Requests of clients make the asks, and what clients are answered is what is looked at."""

import asyncio
import contextlib
import hashlib
import time
from pathlib import Path
from typing import Any

import pytest
from asking import Asking, Outcome, linked, store_name, tell
from redis_server import RedisServer, either_server
from until import until

from gateway.supervisor.redis_url import parse_redis_url
from gateway.worker.limits import shard as shard_module
from gateway.worker.limits.link import Link
from gateway.worker.limits.script import CHARGE, CHARGE_ALL, GIVE_BACK, LEASE, SCRIPT

__all__ = ["either_server"]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_module, "MEND_EVERY_S", 0.1)


def errors(link: Link) -> set[str]:
    return set(link.facts().errors)


async def healthy(asking: Asking) -> None:
    """Waits until the store decides again."""
    while not (await asking.ask("many")).is_granted:
        await until(lambda: True)


async def many(asking: Asking, limit: str, count: int, key: int = 0) -> list[Outcome]:
    """So many requests of one turn."""
    return await asyncio.gather(*(asking.ask(limit, key) for _ in range(count)))


def granted(outcomes: list[Outcome]) -> int:
    """How many; the store decided all of them."""
    assert all(outcome.is_granted or outcome.is_denied for outcome in outcomes)
    return sum(outcome.is_granted for outcome in outcomes)


def test_asks_are_answered(either_server: RedisServer) -> None:
    async def story() -> None:
        async with linked(either_server.url) as (asking, link):
            await asking.connect(9)
            assert (await asking.ask("five")).left == (4,)
            # One ask for nine, of which four are granted; who is refused knows it without asking again.
            assert granted(await many(asking, "five", 9)) == 4
            assert (await asking.ask("five")).retry > 700
            # Two limits of one request: all or none.
            assert granted(await many(asking, "pair", 9)) == 3
            assert (await asking.ask("wide")).left == (96,)
            # Costs that answers tell, more and less than was taken.
            await asking.ask("costly", cost=30)
            await asking.ask("costly", cost=0)
            assert (await asking.ask("costly")).left == (69,)
            assert (await asking.ask("leased")).is_granted
            said = [(ask[1], ask[2]) for asks in asking.witness.taken for ask in asks]
            assert said == [
                (1, CHARGE), (9, CHARGE), (9, CHARGE), (1, CHARGE), (1, CHARGE), (29, CHARGE_ALL), (1, CHARGE), (1, GIVE_BACK),
                (1, CHARGE), (1, LEASE),
            ]  # fmt: skip
            facts = link.facts()
            assert (facts.asks, sum(facts.buckets), facts.errors) == (10, facts.round_trips, {})
            assert (facts.breakers, facts.breakers_open) == (1, 0) and facts.microseconds > 0

    tell(story)


def test_what_is_asked_in_one_turn_goes_in_one_round_trip(either_server: RedisServer) -> None:
    async def story() -> None:
        async with linked(either_server.url) as (asking, link):
            await asking.connect(200)
            await asking.ask()
            outcomes = await asyncio.gather(*(asking.ask(key=key) for key in range(200)))
            assert granted(outcomes) == 200
            assert link.facts().round_trips == 2 and len(asking.witness.taken) == 2

    tell(story)


def test_asks_come_together_while_a_round_trip_is_on_its_way(either_server: RedisServer) -> None:
    """Sixty-four that ask again as soon as they are answered, as connections do: far fewer round trips than asks."""

    async def story() -> None:
        async with linked(either_server.url) as (asking, link):

            async def client(key: int) -> None:
                for _ in range(50):
                    assert (await asking.ask(key=key)).is_granted

            await asyncio.gather(*(client(key) for key in range(64)))
            facts = link.facts()
            assert facts.asks == 3200 and facts.round_trips * 20 <= facts.asks

    tell(story)


def test_a_server_that_loses_its_scripts_gets_them_again(either_server: RedisServer) -> None:
    async def story() -> None:
        async with linked(either_server.url) as (asking, link):
            await asking.connect(30)
            await asking.ask()
            with contextlib.closing(either_server.client()) as client:
                client.script_flush()
                assert granted(await asyncio.gather(*(asking.ask(key=key) for key in range(30)))) == 30
                assert client.info("commandstats")["cmdstat_eval"]["calls"] == 2
            assert not errors(link)

    tell(story)


def test_a_server_that_dies_and_comes_back(either_server: RedisServer) -> None:
    """kill -9: what is asked meanwhile fails at once; after the restart (no scripts, no keys) it decides again."""

    async def story() -> None:
        async with linked(either_server.url) as (asking, link):
            await asking.ask()
            either_server.kill()
            assert (await asking.ask()).has_failed
            await until(lambda: link.facts().breakers_open)
            outcomes = [await asking.ask() for _ in range(50)]
            assert all(outcome.has_failed for outcome in outcomes) and max(row.seconds for row in outcomes) < 0.05
            either_server.start()
            await healthy(asking)
            assert (await asking.ask()).left == (99,)
            assert link.facts().opened >= 1 and "connect" in errors(link)

    tell(story)


def test_a_server_that_dies_with_asks_on_their_way(either_server: RedisServer) -> None:
    async def story() -> None:
        async with linked(either_server.url) as (asking, _):
            await asking.connect(20)
            await asking.ask()
            either_server.freeze()
            waiting = [asking.ask(key=key) for key in range(20)]
            await until(lambda: len(asking.witness.taken) == 2)
            assert asking.waiting == 20
            either_server.kill()
            outcomes = await asyncio.gather(*waiting)
            assert all(outcome.has_failed for outcome in outcomes) and max(row.seconds for row in outcomes) < 1.5
            either_server.start()
            await healthy(asking)

    tell(story)


def test_a_server_that_freezes_costs_the_budget_for_a_moment_and_then_nothing(either_server: RedisServer) -> None:
    async def story() -> None:
        async with linked(either_server.url) as (asking, link):
            await asking.ask()
            either_server.freeze()
            first = await asking.ask("soon")
            assert first.has_failed and first.seconds >= 0.009
            while not link.facts().breakers_open:
                assert all(outcome.has_failed for outcome in await many(asking, "soon", 8))
            after = [await asking.ask("soon") for _ in range(200)]
            assert all(outcome.has_failed for outcome in after)
            # Far from the ten milliseconds that they might wait.
            assert sorted(outcome.seconds for outcome in after)[150] < 0.003
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
            await asking.ask()
            either_server.freeze()
            while not link.facts().breakers_open:
                await asking.ask("soon")
            await until(lambda: "connect" in errors(link))
            either_server.thaw()
            await healthy(asking)
            with contextlib.closing(either_server.client()) as client:
                assert client.info("commandstats")["cmdstat_eval"]["calls"] >= 2

    tell(story)


def test_what_is_granted_too_late_goes_back(either_server: RedisServer) -> None:
    async def story() -> None:
        async with linked(either_server.url) as (asking, link):
            await asking.connect(7)
            await asking.ask()
            either_server.freeze()
            assert all(outcome.has_failed for outcome in await many(asking, "soon", 7)) and not link.facts().breakers_open
            either_server.thaw()
            with contextlib.closing(either_server.client()) as client:
                calls = lambda: client.info("commandstats")["cmdstat_evalsha"]["calls"]  # noqa: E731
                await until(lambda: calls() == 1 + 1 + 1 + 1)  # the trial, the first, the late one, that which takes it back
                assert not client.exists(store_name("soon"))

    tell(story)


def test_late_grants_go_back_while_the_breaker_is_open(either_server: RedisServer) -> None:
    async def story() -> None:
        async with linked(either_server.url) as (asking, link):
            await asking.connect(7)
            await asking.ask()
            either_server.freeze()
            while not link.facts().breakers_open:
                await many(asking, "soon", 7)
            either_server.thaw()
            await healthy(asking)
            with contextlib.closing(either_server.client()) as client:
                await until(lambda: not client.exists(store_name("soon")))

    tell(story)


def test_leases_that_a_frozen_server_owed_are_asked_for_again(either_server: RedisServer) -> None:
    """Twenty keys, of which none is left waiting for an answer that never comes."""

    async def story() -> None:
        async with linked(either_server.url) as (asking, link):
            await asking.connect(40)
            await asking.ask()
            either_server.freeze()

            async def client(key: int) -> None:
                while not link.facts().breakers_open:
                    assert (await asking.ask("soon", key)).has_failed
                    assert (await asking.ask("lent", key)).has_failed

            await asyncio.gather(*(client(key) for key in range(20)))
            either_server.thaw()
            await healthy(asking)
            for key in range(20):
                # On a busy machine ten milliseconds may be too few, but not each time.
                assert any([(await asking.ask("lent", key)).is_granted for _ in range(20)]), key

    tell(story)


def test_a_client_that_has_gone_is_not_charged(either_server: RedisServer) -> None:
    async def story() -> None:
        async with linked(either_server.url) as (asking, _):
            await asking.ask("five")
            either_server.freeze()
            asking.ask("five")
            await until(lambda: asking.waiting)
            asking.leave()
            await until(lambda: not asking.waiting)
            either_server.thaw()
            with contextlib.closing(either_server.client()) as client:
                # the trial, the first, the one that has gone, that which takes it back
                await until(lambda: client.info("commandstats")["cmdstat_evalsha"]["calls"] == 4)
            assert (await asking.ask("five")).left == (3,)

    tell(story)


def test_asks_of_the_first_moment_wait_for_the_connection(either_server: RedisServer) -> None:
    async def story() -> None:
        async with linked(either_server.url) as (asking, _):
            assert granted(await asyncio.gather(*(asking.ask(key=key) for key in range(10)))) == 10

    tell(story)


def test_nobody_waits_for_a_connection_longer_than_the_budget(either_server: RedisServer) -> None:
    """A server that accepts and says nothing."""

    async def story() -> None:
        either_server.freeze()
        async with linked(either_server.url) as (asking, link):
            first = await asking.ask("soon")
            assert first.has_failed and first.seconds < 0.2
            for _ in range(20):
                await asking.ask("soon")
            assert link.facts().breakers_open
            either_server.thaw()
            await healthy(asking)

    tell(story)


def test_there_is_no_server_at_all(tmp_path: Path) -> None:
    async def story() -> None:
        async with linked(f"unix://{tmp_path}/none") as (asking, link):
            outcomes = await many(asking, "hundred", 5)
            assert all(outcome.has_failed for outcome in outcomes)
            assert (await asking.ask()).has_failed
            assert link.facts().errors["connect"] >= 1

    tell(story)


def test_a_primary_that_becomes_a_replica(either_server: RedisServer) -> None:
    """READONLY: asks fail at once, the connection is made anew, and the breaker keeps requests away until it is a primary again."""

    async def story() -> None:
        async with linked(either_server.url) as (asking, link):
            await asking.ask()
            with contextlib.closing(either_server.client()) as client:
                client.replicaof("127.0.0.1", 1)
                assert (await asking.ask()).has_failed
                while not link.facts().breakers_open:
                    assert (await asking.ask()).has_failed
                assert (await asking.ask()).has_failed
                assert "readonly" in errors(link)
                client.replicaof("NO", "ONE")
            await healthy(asking)

    tell(story)


def test_a_server_that_is_full(either_server: RedisServer) -> None:
    """OOM, and room again."""

    async def story() -> None:
        async with linked(either_server.url) as (asking, link):
            await asking.ask()
            with contextlib.closing(either_server.client()) as client:
                client.config_set("maxmemory", 1)
                while not link.facts().breakers_open:
                    assert (await asking.ask()).has_failed
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
            assert (await asking.ask()).has_failed
            await until(lambda: "loading" in errors(link))
            assert (await asking.ask()).has_failed
            await healthy(asking)

    with RedisServer(directory, kind, args=slow) as loading:
        tell(lambda: story(loading))


def test_a_key_of_another_type_hurts_nobody_else(either_server: RedisServer) -> None:
    """WRONGTYPE."""

    async def story() -> None:
        async with linked(either_server.url) as (asking, link):
            with contextlib.closing(either_server.client()) as client:
                client.lpush(store_name("hundred", 1), "x")
            for _ in range(20):
                bad, good = await asyncio.gather(asking.ask(key=1), asking.ask(key=2))
                assert bad.has_failed and good.is_granted
            assert not link.facts().breakers_open and errors(link) == {"key"}

    tell(story)


def test_a_connection_that_the_server_ends_when_idle_is_no_error(either_server: RedisServer) -> None:
    async def story() -> None:
        async with linked(either_server.url) as (asking, link):
            await asking.ask()
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
            await asking.connect(300)
            await asking.ask()
            either_server.freeze()
            waiting = [asking.ask("half", key) for key in range(300)]
            await until(lambda: sum(answer.done() for answer in waiting) >= 200)
            assert all(answer.result().has_failed for answer in waiting if answer.done())
            assert link.facts().errors["full"] == 200
            either_server.thaw()
            assert sum(outcome.is_granted or outcome.has_failed for outcome in await asyncio.gather(*waiting)) == 300

    tell(story)


def test_a_link_that_closes_leaves_no_ask_open_and_no_store(either_server: RedisServer) -> None:
    async def story() -> None:
        async with linked(either_server.url) as (asking, link):
            assert (await asking.ask("five")).left == (4,)
            either_server.freeze()
            waiting = asking.ask("five")
            await until(lambda: len(asking.witness.taken) == 2)
            await link.close()
            assert (await waiting).has_failed
            # Nobody is asked any more: the engine counts by itself.
            assert granted(await many(asking, "five", 7)) == 5 and len(asking.witness.taken) == 2
            either_server.thaw()

    tell(story)


def test_a_link_that_moves_asks_the_other_store(tmp_path_factory: pytest.TempPathFactory) -> None:
    with RedisServer(tmp_path_factory.mktemp("r")) as old, RedisServer(tmp_path_factory.mktemp("r")) as new:

        async def story() -> None:
            async with linked(old.url) as (asking, link):
                assert (await asking.ask()).left == (99,)
                assert (await asking.ask()).left == (98,)
                old.freeze()
                waiting = asking.ask()
                await until(lambda: len(asking.witness.taken) == 3)
                await link.move(parse_redis_url(new.url))
                assert (await waiting).has_failed
                assert (await asking.ask()).left == (99,)
                assert link.facts().asks >= 4  # it goes on counting

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
            assert (await asking.ask()).has_failed
            assert link.facts().errors["connect"] >= 1
        other.close()

    tell(story)


def test_the_script_is_sent_once_and_its_digest_after_that(either_server: RedisServer) -> None:
    async def story() -> None:
        async with linked(either_server.url) as (asking, _):
            for _ in range(10):
                await asking.ask()
            with contextlib.closing(either_server.client()) as client:
                stats: Any = client.info("commandstats")
                assert stats["cmdstat_eval"]["calls"] == 1 and stats["cmdstat_evalsha"]["calls"] == 11
                assert client.script_exists(hashlib.sha1(SCRIPT).hexdigest()) == [True]

    tell(story)
