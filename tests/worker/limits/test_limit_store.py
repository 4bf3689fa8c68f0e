"""Ways from an engine to a store: Unix socket, database, TLS, users of few rights, Sentinels and their failover, a Cluster whose
slots move. Requests of clients make the asks."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import Asking, linked, store_name, tell
from pki import Authority, write_pair
from redis.crc import key_slot
from redis_server import KINDS, RedisServer, free_port
from until import until, wait_until

from gateway.worker.limits import shard as shard_module
from gateway.worker.limits import store as store_module


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_module, "MEND_EVERY_S", 0.1)
    monkeypatch.setattr(store_module, "MEND_EVERY_S", 0.1)


async def decided(asking: Asking, key: int = 1, seconds: float = 30) -> None:
    """Waits until this key is decided by the store."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not (await asking.ask("many", key)).is_granted:
        assert asyncio.get_running_loop().time() < deadline, "the store decides nothing"


async def is_decided(url: str, **more: Any) -> None:
    async with linked(url) as (asking, _):
        assert (await asking.ask(key=1)).is_granted


async def is_refused(url: str, kind: str) -> None:
    """Nothing is decided, and this is counted."""
    async with linked(url) as (asking, link):
        assert (await asking.ask(key=1)).has_failed
        await until(lambda: link.facts().errors.get(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_by_port_by_socket_and_by_database(kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    with RedisServer(tmp_path_factory.mktemp("r"), kind, port=None) as server, contextlib.closing(server.client(db=3)) as third:
        tell(lambda: is_decided(f"redis://127.0.0.1:{server.port}"))
        tell(lambda: is_decided(f"unix://{server.socket}"))
        assert third.dbsize() == 0
        tell(lambda: is_decided(f"redis://localhost:{server.port}/3"))
        assert third.exists(store_name("hundred", 1))
        third.flushdb()
        tell(lambda: is_decided(f"unix://{server.socket}?db=3"))
        assert third.exists(store_name("hundred", 1))
        tell(lambda: is_refused(f"redis://127.0.0.1:{server.port}/99", "connect"))


@pytest.mark.parametrize("kind", KINDS)
def test_passwords_and_users_of_few_rights(
    kind: str, tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """The rights that the documentation names are enough; a wrong password, or fewer of them, is told and decides nothing."""
    rights = "+eval +evalsha +get +set +del +time"
    users = (
        "requirepass s3cr3t:@/",
        f"user isthmus on >hunter2 ~isthmus:* resetchannels -@all {rights}",
        "user poor on >hunter2 ~isthmus:* resetchannels -@all +eval +evalsha +time",
        "user elsewhere on >hunter2 ~other:* resetchannels -@all +@all",
    )
    with RedisServer(tmp_path_factory.mktemp("r"), kind, port=None, args=users) as server:
        place = f"127.0.0.1:{server.port}"
        tell(lambda: is_decided(f"redis://:s3cr3t%3A%40%2F@{place}"))
        tell(lambda: is_decided(f"redis://isthmus:hunter2@{place}"))
        tell(lambda: is_decided(f"unix://isthmus:hunter2@{server.socket}"))
        for user in ("isthmus:wrong-one", "nobody:hunter2", "poor:hunter2", "elsewhere:hunter2"):
            tell(lambda user=user: is_refused(f"redis://{user}@{place}", "denied"))  # type: ignore[misc]
        tell(lambda: is_refused(f"redis://{place}", "denied"))
    assert caplog.text and not any(secret in caplog.text for secret in ("s3cr3t", "hunter2", "wrong-one"))


@pytest.mark.parametrize("kind", KINDS)
def test_tls_with_and_without_certificates_of_clients(kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("r")
    authority, other = Authority(), Authority("Other")
    (directory / "ca.pem").write_bytes(authority.pem)
    (directory / "other.pem").write_bytes(other.pem)
    write_pair(directory, "server", authority.issue("localhost", "127.0.0.1"))
    write_pair(directory, "client", authority.issue("isthmus"))
    port = free_port()
    files = f"tls-cert-file {directory}/server.crt", f"tls-key-file {directory}/server.key", f"tls-ca-cert-file {directory}/ca.pem"
    lines = (f"tls-port {port}", *files)
    pair = f"cert={directory}/client.crt&key={directory}/client.key"
    try:
        server = RedisServer(directory, kind, args=(*lines, "tls-auth-clients optional")).start()
    except AssertionError:
        log = (directory / "log").read_text()
        if "Failed finding TLS support" in log:
            pytest.skip(f"this {kind} was built without TLS")
        raise
    with contextlib.closing(server.client()) as client, server_ends(server):
        tell(lambda: is_decided(f"rediss://127.0.0.1:{port}?ca={directory}/ca.pem"))
        tell(lambda: is_decided(f"rediss://localhost:{port}?ca={directory}/ca.pem&{pair}"))
        tell(lambda: is_refused(f"rediss://127.0.0.1:{port}?ca={directory}/other.pem", "connect"))
        tell(lambda: is_refused(f"rediss://127.0.0.1:{port}", "connect"))
        tell(lambda: is_refused(f"rediss://127.0.0.1:{port}?ca={directory}/none.pem", "connect"))
        tell(lambda: is_refused(f"redis://127.0.0.1:{port}", "connect"))
        client.config_set("tls-auth-clients", "yes")
        tell(lambda: is_refused(f"rediss://127.0.0.1:{port}?ca={directory}/ca.pem", "connect"))
        tell(lambda: is_decided(f"rediss://127.0.0.1:{port}?ca={directory}/ca.pem&{pair}"))


@contextlib.contextmanager
def server_ends(server: RedisServer) -> Iterator[None]:
    try:
        yield
    finally:
        server.kill()


# Sentinels


@pytest.mark.parametrize("kind", KINDS)
def test_sentinels_lead_to_the_primary_and_to_the_next_one(kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A primary is killed; its replica takes over within seconds, and what is asked is decided there, with the counts it had."""
    place = tmp_path_factory.mktemp("r")
    with contextlib.ExitStack() as stack:
        primary = stack.enter_context(RedisServer(place / "1", kind, port=None))
        follow = f"replicaof 127.0.0.1 {primary.port}"
        replica = stack.enter_context(RedisServer(place / "2", kind, port=None, args=(follow, "repl-diskless-sync-delay 0")))
        watch = (
            f"sentinel monitor main 127.0.0.1 {primary.port} 1", "sentinel down-after-milliseconds main 300",
            "sentinel failover-timeout main 5000",
        )  # fmt: skip
        sentinel = stack.enter_context(RedisServer(place / "3", kind, port=None, args=watch, is_sentinel=True))
        client = stack.enter_context(contextlib.closing(replica.client()))
        watcher = stack.enter_context(contextlib.closing(sentinel.client()))
        wait_until(lambda: client.info("replication")["master_link_status"] == "up")
        wait_until(lambda: watcher.execute_command("SENTINEL", "REPLICAS", "main"))

        async def story() -> None:
            # The first Sentinel is one that is not there.
            url = f"redis://127.0.0.1:1,127.0.0.1:{sentinel.port}/0?sentinel=main"
            async with linked(url) as (asking, link):
                assert [(await asking.ask(key=1)).left for _ in range(3)] == [(99,), (98,), (97,)]
                await until(lambda: client.exists(store_name("hundred", 1)))
                primary.kill()
                await until(lambda: link.facts().breakers_open)
                await decided(asking, 2)
                assert (await asking.ask(key=1)).left == (96,)
                assert client.info("replication")["role"] == "master"

        tell(story)
        tell(lambda: is_refused(f"redis://127.0.0.1:{sentinel.port}?sentinel=other", "connect"))


# Cluster


@pytest.fixture(params=KINDS)
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisServer]]:
    """Three nodes that share all slots."""
    place = tmp_path_factory.mktemp("r")
    with contextlib.ExitStack() as stack:
        nodes = []
        for number in range(3):
            lines = (
                "cluster-enabled yes", f"cluster-config-file {place}/{number}.nodes", f"cluster-port {free_port()}",
                "cluster-node-timeout 2000", "cluster-require-full-coverage no",
            )  # fmt: skip
            nodes.append(stack.enter_context(RedisServer(place / str(number), request.param, port=None, args=lines)))
        clients = [stack.enter_context(contextlib.closing(node.client())) for node in nodes]
        for number, client in enumerate(clients):
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", number * 5461, 16383 if number == 2 else number * 5461 + 5460)
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in nodes[1:]:
            bus = int(node.client().config_get("cluster-port")["cluster-port"])
            clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        wait_until(lambda: all(words in _info(each) for each in clients for words in ("cluster_state:ok", "slots_assigned:16384")))
        yield nodes


def _info(client: Any) -> str:
    reply = client.execute_command("CLUSTER INFO")
    return "\n".join(f"{key}:{value}" for key, value in reply.items()) if isinstance(reply, dict) else str(reply)


def owned(nodes: list[RedisServer]) -> list[int]:
    """How many keys each node has."""
    counts = []
    for node in nodes:
        with contextlib.closing(node.client()) as client:
            counts.append(client.dbsize())
    return counts


def test_a_cluster_spreads_the_keys_and_keeps_together_what_one_request_meets(cluster: list[RedisServer]) -> None:
    async def story() -> None:
        async with linked(f"redis://127.0.0.1:1,127.0.0.1:{cluster[1].port}?cluster=true") as (asking, link):
            await decided(asking)
            outcomes = await asyncio.gather(*(asking.ask(key=key) for key in range(300)))
            assert all(outcome.is_granted for outcome in outcomes)
            assert sum(owned(cluster)) >= 300 and min(owned(cluster)) > 60
            # Two limits of one request are asked in one call, of whatever key.
            for key in range(20):
                pairs = await asyncio.gather(*(asking.ask("pair", key) for _ in range(9)))
                assert sorted(outcome.status for outcome in pairs) == [200] * 3 + [429] * 6
            assert link.facts().breakers == 3

    tell(story)


def test_slots_that_move_take_their_keys_along(cluster: list[RedisServer]) -> None:
    """ASK while a slot is on its way, MOVED after it: no ask is lost, and the count goes on."""
    slot = key_slot(store_name("hundred", 1))
    source = cluster[min(slot // 5461, 2)]
    target = next(node for node in cluster if node is not source)

    async def story() -> None:
        async with linked(f"redis://127.0.0.1:{cluster[0].port}?cluster=true") as (asking, link):
            await decided(asking, 7)
            assert (await asking.ask(key=1)).left == (99,)
            with contextlib.closing(source.client()) as old, contextlib.closing(target.client()) as new:
                ids = [client.execute_command("CLUSTER", "MYID").decode() for client in (old, new)]
                new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
                old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
                old.execute_command("MIGRATE", "127.0.0.1", target.port, store_name("hundred", 1), 0, 5000)
                assert (await asking.ask(key=1)).left == (98,)
                for client in (new, old):
                    client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
            assert (await asking.ask(key=1)).left == (97,)
            await asyncio.gather(*(decided(asking, number) for number in range(20)))
            assert (await asking.ask(key=1)).left == (96,)
            assert not link.facts().errors

    tell(story)


def test_a_node_that_dies_takes_its_own_keys_alone(cluster: list[RedisServer]) -> None:
    async def story() -> None:
        async with linked(f"redis://127.0.0.1:{cluster[0].port}?cluster=true") as (asking, link):
            await decided(asking)
            await asyncio.gather(*(asking.ask(key=key) for key in range(50)))
            cluster[2].kill()
            await until(lambda: link.facts().breakers_open)
            outcomes = [(key, await asking.ask(key=key)) for key in range(200)]
            for key, outcome in outcomes:
                is_its = key_slot(store_name("hundred", key)) >= 2 * 5461
                assert outcome.has_failed == is_its and outcome.is_granted != is_its, (key, outcome)

    tell(story)


def test_a_path_that_is_no_socket(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    tell(lambda: is_refused(f"unix://{tmp_path}/file", "connect"))
