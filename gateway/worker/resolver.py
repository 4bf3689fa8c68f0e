"""Endpoint names to addresses: each name is asked for when its answer runs out, and the last good answer is kept when asking fails.

c-ares does the work on the worker's loop (hosts file and search domains included) and is imported only when there is a name at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gateway.supervisor.ipc import Endpoint

log = logging.getLogger("gateway.worker.resolver")

TTL_FLOOR_S = 1.0
TTL_CEILING_S = 300.0
RETRY_S = 2.0              # after a failure
FIRST_ANSWER_S = 2.0       # how long a new snapshot waits for names that were never asked for

# addresses in text, and how many seconds they are good for
Answer = tuple[list[str], float]
Ask = Callable[[str], Awaitable[Answer]]


def is_name(host: bytes) -> bool:
    """Whether this is neither an address nor the path of a Unix socket."""
    if host.startswith(b"/"):
        return False
    try:
        ipaddress.ip_address(host.decode("ascii").strip("[]"))
    except ValueError:
        return True
    return False


class CaresAsk:
    """Asks with aiodns; made on first use."""

    def __init__(self) -> None:
        import aiodns

        self._resolver = aiodns.DNSResolver(timeout=2.0, tries=2)

    async def __call__(self, name: str) -> Answer:
        """IPv4 addresses, or IPv6 ones when there are no others. Raises OSError."""
        import aiodns

        try:
            result = await self._resolver.getaddrinfo(name, family=socket.AF_UNSPEC, type=socket.SOCK_STREAM)
        except aiodns.error.DNSError as error:
            raise OSError(*error.args) from None
        by_family: dict[int, list[str]] = {}
        ttl = TTL_CEILING_S
        for node in result.nodes:
            address = node.addr[0]
            by_family.setdefault(int(node.family), []).append(address.decode() if isinstance(address, bytes) else address)
            ttl = min(ttl, float(node.ttl))
        addresses = by_family.get(socket.AF_INET) or by_family.get(socket.AF_INET6) or []
        return addresses, ttl

    async def close(self) -> None:
        await self._resolver.close()


@dataclass(slots=True)
class Name:
    """What is known of one name."""

    addresses: tuple[str, ...] = ()
    asked: asyncio.Event = field(default_factory=asyncio.Event)  # set after the first answer, good or bad
    task: asyncio.Task[None] | None = None
    error: str = ""


class Resolver:
    """Keeps the names of all clusters resolved; on_change gets the endpoint lists of the clusters that a new answer touches."""

    def __init__(self, on_change: Callable[[dict[int, list[Endpoint]]], None], ask: Ask | None = None) -> None:
        self._on_change = on_change
        self._ask = ask
        self._names: dict[str, Name] = {}
        self._clusters: dict[int, Sequence[Endpoint]] = {}
        self._named: dict[int, set[str]] = {}
        """Names among the endpoints of a cluster, of clusters that have any."""

    async def want(self, clusters: Mapping[int, Sequence[Endpoint]], *, is_all: bool) -> dict[int, list[Endpoint]]:
        """Notes what clusters consist of (all there are, or some of them) and answers them with names replaced by addresses.

        Names that are new are waited for, for a short while, so that a reload does not begin with an empty cluster.
        """
        self._note(clusters, is_all)
        wanted = {name for names in self._named.values() for name in names}
        for gone in self._names.keys() - wanted:
            task = self._names.pop(gone).task
            if task is not None:
                task.cancel()
        fresh = []
        for name in sorted(wanted - self._names.keys()):
            state = self._names[name] = Name()
            state.task = asyncio.get_running_loop().create_task(self._keep(name, state), name=f"resolve {name}")
            fresh.append(state)
        if fresh:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FIRST_ANSWER_S):
                    for state in fresh:
                        await state.asked.wait()
        return {cluster: self._resolved(rows) if cluster in self._named else list(rows) for cluster, rows in clusters.items()}

    def forget(self, clusters: Iterable[int]) -> None:
        """These are no more. Names that only they had are asked for no longer, once `want` has been called again."""
        for cluster in clusters:
            self._clusters.pop(cluster, None)
            self._named.pop(cluster, None)

    def _note(self, clusters: Mapping[int, Sequence[Endpoint]], is_all: bool) -> None:
        """Looks for names where the endpoints are other ones: of many thousand few are, and requests wait meanwhile."""
        before, named = self._clusters, self._named
        self._clusters = {} if is_all else before
        self._named = {} if is_all else named
        for cluster, rows in clusters.items():
            known = before.get(cluster)
            names = named.get(cluster) if known is rows or known == rows else _names_of(rows)
            self._clusters[cluster] = rows
            if names:
                self._named[cluster] = names
            else:
                self._named.pop(cluster, None)

    def _resolved(self, rows: Sequence[Endpoint]) -> list[Endpoint]:
        out: list[Endpoint] = []
        for host, port, weight, zone in rows:
            if not is_name(host):
                out.append((host, port, weight, zone))
                continue
            state = self._names.get(_text(host))
            if state is not None:
                out.extend((address.encode(), port, weight, zone) for address in state.addresses)
        return out

    async def _keep(self, name: str, state: Name) -> None:
        while True:
            delay = RETRY_S
            try:
                if self._ask is None:
                    self._ask = CaresAsk()
                addresses, ttl = await self._ask(name)
                if not addresses:
                    raise OSError("no address")
                delay = min(max(ttl, TTL_FLOOR_S), TTL_CEILING_S)
                state.error = ""
                # Answers come in rotating order; the same set is no change.
                found = tuple(sorted(set(addresses)))
                if found != state.addresses:
                    is_first = not state.asked.is_set()
                    state.addresses = found
                    if not is_first:
                        log.info("%s is now %s", name, ", ".join(found))
                    self._tell(name)
            except OSError as error:
                if str(error) != state.error:
                    state.error = str(error)
                    kept = f"; keeping {', '.join(state.addresses)}" if state.addresses else ""
                    log.warning("cannot resolve %s: %s%s", name, error, kept)
            state.asked.set()
            await asyncio.sleep(delay)

    def _tell(self, name: str) -> None:
        touched = {cluster: self._resolved(self._clusters[cluster]) for cluster, names in self._named.items() if name in names}
        if touched:
            self._on_change(touched)

    async def close(self) -> None:
        tasks = [state.task for state in self._names.values() if state.task is not None]
        self._names.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if isinstance(self._ask, CaresAsk):
            await self._ask.close()


def _text(host: bytes) -> str:
    return host.decode("ascii", "replace")


def _names_of(rows: Iterable[Endpoint]) -> set[str]:
    return {_text(row[0]) for row in rows if is_name(row[0])}
