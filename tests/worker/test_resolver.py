"""Names of endpoints: resolved in the worker, kept when the answer stops coming, told only when it changes."""

import asyncio

import pytest
from until import until

from gateway.supervisor.ipc import Endpoint
from gateway.worker import resolver as module
from gateway.worker.resolver import Answer, CaresAsk, Resolver, is_name


class Zone:
    """A name server for tests: what it answers can change, and it counts."""

    def __init__(self, **names: list[str]) -> None:
        self.names = {name.replace("_", "."): addresses for name, addresses in names.items()}
        self.ttl = 0.0
        self.asked: list[str] = []
        self.was_asked = asyncio.Event()

    async def __call__(self, name: str) -> Answer:
        self.asked.append(name)
        self.was_asked.set()
        if name not in self.names:
            raise OSError(4, "Domain name not found")
        return self.names[name], self.ttl


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TTL_FLOOR_S", 0.01)
    monkeypatch.setattr(module, "RETRY_S", 0.01)


@pytest.mark.parametrize("host", [b"10.0.0.1", b"::1", b"[::1]", b"/run/app.sock"])
def test_addresses_and_sockets_are_no_names(host: bytes) -> None:
    assert not is_name(host)


@pytest.mark.parametrize("host", [b"api.example.com", b"localhost", b"10.0.0.1.nip.io", b"1.2.3"])
def test_names_are_names(host: bytes) -> None:
    assert is_name(host)


def test_a_name_becomes_its_addresses_with_port_weight_and_zone() -> None:
    async def story() -> None:
        told: list[dict[int, list[Endpoint]]] = []
        resolver = Resolver(told.append, Zone(api_test=["10.0.0.2", "10.0.0.1"]))
        wanted = {1: [(b"api.test", 443, 3, b"a"), (b"192.0.2.1", 80, 1, b"")], 2: [(b"/run/s", 0, 1, b"")]}
        got = await resolver.want(wanted, is_all=True)
        assert got == {
            1: [(b"10.0.0.1", 443, 3, b"a"), (b"10.0.0.2", 443, 3, b"a"), (b"192.0.2.1", 80, 1, b"")],
            2: [(b"/run/s", 0, 1, b"")],
        }
        await resolver.close()

    asyncio.run(story())


def test_a_changed_answer_is_told_and_a_rotated_one_is_not() -> None:
    async def story() -> None:
        told: list[dict[int, list[Endpoint]]] = []
        zone = Zone(api_test=["10.0.0.1", "10.0.0.2"])
        resolver = Resolver(told.append, zone)
        await resolver.want({1: [(b"api.test", 80, 1, b"")], 2: [(b"192.0.2.1", 80, 1, b"")]}, is_all=True)
        told.clear()
        zone.names["api.test"] = ["10.0.0.2", "10.0.0.1"]
        seen = len(zone.asked)
        await until(lambda: len(zone.asked) > seen + 2)
        assert told == []
        zone.names["api.test"] = ["10.0.0.9"]
        await until(lambda: told)
        assert told == [{1: [(b"10.0.0.9", 80, 1, b"")]}]
        await resolver.close()

    asyncio.run(story())


def test_the_last_good_answer_is_kept_when_asking_fails() -> None:
    async def story() -> None:
        told: list[dict[int, list[Endpoint]]] = []
        zone = Zone(api_test=["10.0.0.1"])
        resolver = Resolver(told.append, zone)
        await resolver.want({1: [(b"api.test", 80, 1, b"")]}, is_all=True)
        told.clear()
        del zone.names["api.test"]
        seen = len(zone.asked)
        await until(lambda: len(zone.asked) > seen + 2)
        assert told == []
        again = await resolver.want({1: [(b"api.test", 80, 1, b"")], 5: [(b"api.test", 81, 1, b"")]}, is_all=True)
        assert again == {1: [(b"10.0.0.1", 80, 1, b"")], 5: [(b"10.0.0.1", 81, 1, b"")]}
        await resolver.close()

    asyncio.run(story())


def test_a_name_that_does_not_resolve_yields_no_endpoint_until_it_does() -> None:
    async def story() -> None:
        told: list[dict[int, list[Endpoint]]] = []
        zone = Zone()
        resolver = Resolver(told.append, zone)
        assert await resolver.want({1: [(b"late.test", 80, 1, b"")]}, is_all=True) == {1: []}
        zone.names["late.test"] = ["10.0.0.5"]
        await until(lambda: told)
        assert told == [{1: [(b"10.0.0.5", 80, 1, b"")]}]
        await resolver.close()

    asyncio.run(story())


def test_names_that_are_wanted_no_more_are_not_asked_for() -> None:
    async def story() -> None:
        zone = Zone(a_test=["10.0.0.1"], b_test=["10.0.0.2"])
        resolver = Resolver(lambda _: None, zone)
        await resolver.want({1: [(b"a.test", 80, 1, b"")], 2: [(b"b.test", 80, 1, b"")]}, is_all=True)
        await resolver.want({2: [(b"b.test", 80, 1, b"")]}, is_all=True)
        zone.asked.clear()
        await until(lambda: len(zone.asked) > 2)
        assert set(zone.asked) == {"b.test"}
        await resolver.close()

    asyncio.run(story())


def test_an_update_of_some_clusters_leaves_the_others() -> None:
    async def story() -> None:
        zone = Zone(a_test=["10.0.0.1"], b_test=["10.0.0.2"])
        told: list[dict[int, list[Endpoint]]] = []
        resolver = Resolver(told.append, zone)
        await resolver.want({1: [(b"a.test", 80, 1, b"")]}, is_all=True)
        assert await resolver.want({2: [(b"b.test", 80, 1, b"")]}, is_all=False) == {2: [(b"10.0.0.2", 80, 1, b"")]}
        told.clear()
        zone.names["a.test"] = ["10.0.0.7"]
        await until(lambda: told)
        assert told == [{1: [(b"10.0.0.7", 80, 1, b"")]}]
        await resolver.close()

    asyncio.run(story())


def test_only_endpoints_that_are_other_ones_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty thousand of them would hold the worker's loop for a tenth of a second."""
    looked: list[bytes] = []

    def look(host: bytes) -> bool:
        looked.append(host)
        return is_name(host)

    monkeypatch.setattr(module, "is_name", look)

    async def story() -> None:
        resolver = Resolver(lambda _: None, Zone(a_test=["10.0.0.9"]))
        rows = {number: [(f"10.0.0.{number}".encode(), 80, 1, b"")] for number in range(1, 4)}
        assert await resolver.want(rows, is_all=True) == rows
        looked.clear()
        again = {number: [*each] for number, each in rows.items()} | {2: [(b"10.0.1.1", 80, 1, b"")]}
        assert await resolver.want(again, is_all=True) == again and looked == [b"10.0.1.1"]
        looked.clear()
        assert await resolver.want({3: [(b"a.test", 80, 1, b"")]}, is_all=False) == {3: [(b"10.0.0.9", 80, 1, b"")]}
        assert set(looked) == {b"a.test"}
        # A name that no cluster has any more is not asked for, and one that comes back is.
        assert await resolver.want({3: rows[3]}, is_all=False) == {3: rows[3]} and not resolver._names
        assert await resolver.want({3: [(b"a.test", 80, 1, b"")]}, is_all=False) == {3: [(b"10.0.0.9", 80, 1, b"")]}
        await resolver.close()

    asyncio.run(story())


def test_a_slow_name_server_holds_a_swap_only_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_ANSWER_S", 0.02)

    async def never(name: str) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError

    async def story() -> None:
        resolver = Resolver(lambda _: None, never)
        async with asyncio.timeout(5):
            assert await resolver.want({1: [(b"slow.test", 80, 1, b"")]}, is_all=True) == {1: []}
        await resolver.close()

    asyncio.run(story())


def test_c_ares_answers_localhost_from_the_hosts_file_with_one_family() -> None:
    async def story() -> None:
        ask = CaresAsk()
        addresses, ttl = await ask("localhost")
        assert addresses and ttl >= 0
        assert all(address.startswith("127.") for address in addresses) or addresses == ["::1"]
        await ask.close()

    asyncio.run(story())
