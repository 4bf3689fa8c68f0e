"""Puts a published snapshot to use: maps the file, checks it piece by piece, then hands it to the engine with its endpoints in one
loop turn."""

from __future__ import annotations

import asyncio
import mmap
import os
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import gateway.supervisor.ipc as ipc
from gateway._core.snapshot import Snapshot


class Verifier(Protocol):
    """The part of the engine that opening a snapshot needs."""

    def open_snapshot(self, blob: mmap.mmap) -> Snapshot: ...
    def verify_some(self, snapshot: Snapshot) -> bool: ...


class Swappable(Protocol):
    """The part of the engine that a swap needs."""

    def swap(self, snapshot: Snapshot, revision: int) -> None: ...
    def set_endpoints(self, cluster: int, endpoints: Sequence[ipc.Endpoint]) -> None: ...


def map_blob(fd: int, size: int) -> mmap.mmap:
    """Maps a sealed file read-only and closes its descriptor; ValueError when it is not as long as announced.

    Private, because a kernel before 6.7 refuses any shared mapping of a file that is sealed against writing.
    """
    try:
        if size <= 0 or os.fstat(fd).st_size != size:
            raise ValueError(f"the snapshot file has {os.fstat(fd).st_size} bytes, announced were {size}")
        return mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    finally:
        os.close(fd)


async def verified(engine: Verifier, blob: mmap.mmap) -> Snapshot:
    """The snapshot in a blob, checked to its end a piece in a turn of the loop: requests go on between the pieces, however many
    routes there are. Raises ValueError when it does not verify."""
    snapshot = engine.open_snapshot(blob)
    while not engine.verify_some(snapshot):
        await asyncio.sleep(0)
    return snapshot


@dataclass(slots=True)
class Wishes:
    """What has been said of endpoints and is not so yet. What a refused snapshot brought is not said again, and waits here."""

    late: dict[int, Sequence[ipc.Endpoint]] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)

    def note(self, order: ipc.Snapshot, current: Collection[int]) -> None:
        """What a snapshot says. current: the clusters that the engine has."""
        if order.is_whole:
            self.late, self.gone = {}, set(current)
        for cluster in order.gone:
            self.late.pop(cluster, None)
        self.late.update(order.endpoints)
        self.gone = (self.gone | set(order.gone)) - order.endpoints.keys()

    def note_endpoints(self, endpoints: Mapping[int, Sequence[ipc.Endpoint]], current: Collection[int]) -> None:
        """What is said of endpoints alone. A cluster that no snapshot in use has is left to the swap that brings it."""
        self.late.update({cluster: rows for cluster, rows in endpoints.items() if cluster not in current or cluster in self.late})


def put_to_use(
    engine: Swappable,
    snapshot: Snapshot,
    revision: int,
    endpoints: Mapping[int, Sequence[ipc.Endpoint]],
    gone: Collection[int],
    current: dict[int, tuple[ipc.Endpoint, ...]],
) -> int:
    """Swaps and sets the endpoints that differ from `current`, which is brought up to date. Microseconds that it took.

    gone: clusters that the snapshot has no more. Of those that are in neither, the endpoints stay.

    Raises ValueError when the snapshot does not verify; the engine then still has what it had, and `current` is untouched.
    """
    start = time.monotonic_ns()
    engine.swap(snapshot, revision)
    set_changed(engine, endpoints, current)
    for cluster in gone:
        current.pop(cluster, None)
    return (time.monotonic_ns() - start) // 1000


def set_changed(
    engine: Swappable, endpoints: Mapping[int, Sequence[ipc.Endpoint]], current: dict[int, tuple[ipc.Endpoint, ...]]
) -> None:
    """Tells the engine about the clusters whose endpoints are not what `current` says, and notes them there."""
    for cluster, rows in endpoints.items():
        wanted = tuple(rows)
        if current.get(cluster) != wanted:
            engine.set_endpoints(cluster, wanted)
            current[cluster] = wanted
