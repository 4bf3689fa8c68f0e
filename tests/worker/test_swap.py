"""A published snapshot on its way into the engine."""

import asyncio
import mmap
import os
from collections.abc import Sequence
from typing import Any

import pytest

from gateway.supervisor.blocks import sealed_file
from gateway.supervisor.ipc import Endpoint, Snapshot
from gateway.worker.swap import Wishes, map_blob, put_to_use, set_changed, verified


class Recorder:
    """Stands for the engine: remembers the calls in order."""

    def __init__(self, refuse: bool = False) -> None:
        self.calls: list[object] = []
        self.refuse = refuse

    def open_snapshot(self, blob: mmap.mmap) -> Any:
        self.calls.append("open")
        return bytes(blob)

    def verify_some(self, snapshot: Any) -> bool:
        if self.refuse:
            raise ValueError("bad magic")
        self.calls.append("piece")
        return self.calls.count("piece") == 3

    def swap(self, snapshot: Any, revision: int) -> None:
        if self.refuse:
            raise ValueError("bad magic")
        self.calls.append(("swap", bytes(snapshot), revision))

    def set_endpoints(self, cluster: int, endpoints: Sequence[Endpoint]) -> None:
        self.calls.append((cluster, tuple(endpoints)))


A: Endpoint = (b"10.0.0.1", 80, 1, b"")
B: Endpoint = (b"10.0.0.2", 80, 1, b"")


def test_a_sealed_file_maps_read_only_and_its_descriptor_is_closed() -> None:
    fd = sealed_file(b"blob of a snapshot")
    blob = map_blob(fd, 18)
    assert bytes(blob) == b"blob of a snapshot"
    with pytest.raises(TypeError):
        blob[0] = 1
    with pytest.raises(OSError):
        os.fstat(fd)


@pytest.mark.parametrize("size", [0, 17, 19])
def test_a_size_that_is_not_the_files_is_refused(size: int) -> None:
    fd = sealed_file(b"blob of a snapshot")
    with pytest.raises(ValueError, match="18 bytes"):
        map_blob(fd, size)
    with pytest.raises(OSError):
        os.fstat(fd)


def test_the_swap_comes_first_and_only_changed_endpoints_follow() -> None:
    engine = Recorder()
    current: dict[int, tuple[Endpoint, ...]] = {1: (A,), 2: (A,), 3: (A,)}
    cost = put_to_use(engine, map_blob(sealed_file(b"x"), 1), 7, {1: [A], 2: [A, B], 4: []}, {3}, current)
    assert cost >= 0
    assert engine.calls == [("swap", b"x", 7), (2, (A, B)), (4, ())]
    assert current == {1: (A,), 2: (A, B), 4: ()}


def test_clusters_that_nothing_is_said_of_keep_their_endpoints() -> None:
    engine = Recorder()
    current: dict[int, tuple[Endpoint, ...]] = {1: (A,), 2: (A,)}
    put_to_use(engine, map_blob(sealed_file(b"x"), 1), 7, {2: [B]}, (), current)
    assert engine.calls == [("swap", b"x", 7), (2, (B,))]
    assert current == {1: (A,), 2: (B,)}


def test_what_a_refused_snapshot_brought_is_not_lost() -> None:
    """The supervisor says it once: what is in use is what its last words of each cluster come to."""
    wishes = Wishes()
    wishes.note(Snapshot(1, 1, {1: [A], 2: [A]}), current=())
    assert (wishes.late, wishes.gone) == ({1: [A], 2: [A]}, set())
    wishes.note(Snapshot(2, 1, {2: [B]}, gone=[1], is_whole=False), current=())
    assert (wishes.late, wishes.gone) == ({2: [B]}, {1})
    wishes.note(Snapshot(3, 1, {1: [B]}, is_whole=False), current=())
    assert (wishes.late, wishes.gone) == ({2: [B], 1: [B]}, set())
    wishes.note(Snapshot(4, 1, {5: [A]}), current=(1, 5, 7))
    assert (wishes.late, wishes.gone) == ({5: [A]}, {1, 7}), "a worker that is told everything anew"


def test_endpoints_alone_wait_for_a_cluster_that_is_not_there_yet() -> None:
    wishes = Wishes()
    wishes.note_endpoints({1: [A], 2: [A]}, current=(2,))
    assert wishes.late == {1: [A]}, "the other is changed at once"
    wishes.note(Snapshot(1, 1, {2: [B]}, is_whole=False), current=(2,))
    wishes.note_endpoints({2: [A, B]}, current=(2,))
    assert wishes.late == {1: [A], 2: [A, B]}, "what was refused is out of date"


def test_a_refused_blob_changes_nothing() -> None:
    engine = Recorder(refuse=True)
    current: dict[int, tuple[Endpoint, ...]] = {1: (A,)}
    with pytest.raises(ValueError, match="bad magic"):
        put_to_use(engine, map_blob(sealed_file(b"x"), 1), 7, {1: [B]}, (), current)
    assert engine.calls == [] and current == {1: (A,)}


def test_the_loop_goes_round_between_the_pieces_of_a_check() -> None:
    async def story() -> None:
        engine = Recorder()
        loop = asyncio.get_running_loop()
        loop.call_soon(engine.calls.append, "a request")
        assert await verified(engine, map_blob(sealed_file(b"x"), 1)) == b"x"
        assert engine.calls == ["open", "piece", "a request", "piece", "piece"]
        with pytest.raises(ValueError, match="bad magic"):
            await verified(Recorder(refuse=True), map_blob(sealed_file(b"x"), 1))

    asyncio.run(story())


def test_endpoint_updates_are_told_once() -> None:
    engine = Recorder()
    current: dict[int, tuple[Endpoint, ...]] = {}
    set_changed(engine, {1: [A]}, current)
    set_changed(engine, {1: [A]}, current)
    assert engine.calls == [(1, (A,))]
