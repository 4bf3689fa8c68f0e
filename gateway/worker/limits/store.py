"""Where the calls go: one server, the primary that Sentinels name, or the nodes of a Cluster."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import AskError, MovedError, RedisError

from gateway.supervisor.redis_url import RedisAddress
from gateway.worker.limits.facts import Tally
from gateway.worker.limits.shard import CONNECT_S, MEND_EVERY_S, UNREACHABLE, Call, Shard

log = logging.getLogger("gateway.worker.limits")

SLOTS = 16384
Host = tuple[str, int]


def connection_to(address: RedisAddress, host: Host | None) -> AbstractConnection:
    """A connection that is not open yet; host: None for a Unix socket."""
    fields: dict[str, Any] = {
        "db": address.db, "username": address.user or None, "password": address.password or None,
        # Nothing that a user of few rights could not say; deadlines are the shard's.
        "driver_info": None, "protocol": 2, "socket_timeout": None, "socket_connect_timeout": CONNECT_S,
    }  # fmt: skip
    if host is None:
        return UnixDomainSocketConnection(path=address.path, **fields)
    fields |= {"host": host[0], "port": host[1]}
    return SSLConnection(**fields, **_tls(address)) if address.tls else Connection(**fields)


def _tls(address: RedisAddress) -> dict[str, Any]:
    return {"ssl_ca_certs": address.ca or None, "ssl_certfile": address.cert or None, "ssl_keyfile": address.key or None}


async def opened(connection: AbstractConnection) -> AbstractConnection:
    """The same, open. Raises RedisError, OSError (a file of TLS that cannot be read, too) or TimeoutError."""
    await connection.connect()  # type: ignore[no-untyped-call]
    return connection


class Store:
    """Sends each call to the shard of its key."""

    def __init__(
        self,
        address: RedisAddress,
        tally: Tally,
        on_answer: Callable[[Call, Any], None],
        on_failure: Callable[[Call, int], None],
    ) -> None:
        """on_answer and on_failure: see Shard."""
        self._address = address
        self._tally = tally
        self._on_answer = on_answer
        self._on_failure = on_failure
        self._shards: dict[Host | None, Shard] = {}
        self._slots: list[Host | None] = []
        self._refreshing: asyncio.Task[None] | None = None
        self._parting: set[asyncio.Task[None]] = set()
        if address.is_cluster:
            self._refresh()
        else:
            self._shards[None] = self._new(address.shown, self._connect_primary if address.sentinel else self._connect)

    def _new(self, name: str, connect: Callable[[], Awaitable[AbstractConnection]]) -> Shard:
        return Shard(name, connect, self._tally, self._on_answer, self._on_failure, self._on_moved)

    @property
    def shards(self) -> list[Shard]:
        return list(self._shards.values())

    def send(self, calls: list[Call], name_at: int = 1) -> None:
        """name_at: which word of a call is the name of its first key."""
        if not self._address.is_cluster:
            self._shards[None].send(calls)
            return
        by_host: dict[Host | None, list[Call]] = {}
        for call in calls:
            host = self._slots[key_slot(call.words[name_at])] if self._slots else None
            by_host.setdefault(host, []).append(call)
        for host, some in by_host.items():
            if host is None:
                # A slot that nobody has, or a Cluster that nobody has seen yet.
                self._refresh()
                for call in some:
                    call.is_over = True
                    self._on_failure(call, UNREACHABLE)
            else:
                self._shards[host].send(some)

    async def _connect(self) -> AbstractConnection:
        hosts = self._address.hosts
        return await opened(connection_to(self._address, hosts[0] if hosts else None))

    async def _connect_primary(self) -> AbstractConnection:
        address = self._address
        fields: dict[str, Any] = {
            "username": address.sentinel_user or None, "password": address.sentinel_password or None, "driver_info": None,
            "socket_timeout": CONNECT_S / 2, "socket_connect_timeout": CONNECT_S / 2, "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
        }  # fmt: skip
        if address.tls:
            fields |= {"ssl": True, **_tls(address)}
        async with Sentinel(address.hosts, sentinel_kwargs=fields) as sentinel:  # type: ignore[no-untyped-call]
            host, port = await sentinel.discover_master(address.sentinel)
        connection = connection_to(address, (str(host), int(port)))
        return await opened(connection)

    # Cluster

    def _refresh(self) -> None:
        """Learns anew which node has which slots, soon and once."""
        if self._refreshing is None:
            self._refreshing = asyncio.get_running_loop().create_task(self._learn(), name="limits cluster")

    async def _learn(self) -> None:
        said = ""
        while True:
            # Nodes that are known first: those of the configuration may be gone.
            known = [host for host in self._shards if host is not None]
            hosts = [*random.sample(known, len(known)), *self._address.hosts]
            for host in dict.fromkeys(hosts):
                try:
                    async with asyncio.timeout(CONNECT_S):
                        slots = await self._ask_slots(host)
                except (OSError, RedisError, TimeoutError) as error:
                    if str(error) != said:
                        said = str(error)
                        log.warning("the Cluster of rate limits, %s: %s", self._address.shown, error or type(error).__name__)
                    continue
                self._use(slots)
                # What moves comes in waves: one look for each.
                await asyncio.sleep(MEND_EVERY_S / 4)
                self._refreshing = None
                return
            await asyncio.sleep(MEND_EVERY_S)

    async def _ask_slots(self, host: Host) -> list[Host | None]:
        connection = await opened(connection_to(self._address, host))
        try:
            await connection.send_command("CLUSTER", "SLOTS", check_health=False)
            rows = await connection.read_response()
        finally:
            await connection.disconnect(nowait=True)
        slots: list[Host | None] = [None] * SLOTS
        for first, last, (name, port, *_), *_ in rows:
            # A node that does not know its own name is where it was asked.
            owner = (name.decode() if name else host[0], int(port))
            slots[first : last + 1] = [owner] * (last + 1 - first)
        return slots

    def _use(self, slots: list[Host | None]) -> None:
        self._slots = slots
        owners = {host for host in slots if host is not None}
        for host in owners - self._shards.keys():
            self._add(host)
        for gone in self._shards.keys() - owners:
            task = asyncio.get_running_loop().create_task(self._shards.pop(gone).close())
            self._parting.add(task)
            task.add_done_callback(self._parting.discard)

    def _add(self, host: Host) -> Shard:
        async def connect() -> AbstractConnection:
            return await opened(connection_to(self._address, host))

        shard = self._shards[host] = self._new(f"{host[0]}:{host[1]}", connect)
        return shard

    def _on_moved(self, call: Call, error: AskError) -> bool:
        """A slot has another owner (MOVED), or is on its way to one (ASK)."""
        if not self._address.is_cluster:
            return False
        host = (error.host, error.port)
        shard = self._shards.get(host) or self._add(host)
        if isinstance(error, MovedError):
            self._slots[error.slot_id] = host
            self._refresh()
            shard.send([call])
        else:
            shard.send_asking(call)
        return True

    async def close(self) -> None:
        """Calls that are open fail."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)
        await asyncio.gather(*(shard.close() for shard in self._shards.values()), *self._parting, return_exceptions=True)
