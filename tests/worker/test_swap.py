"""A published snapshot on its way into the engine."""

import asyncio
import mmap
import os
from collections.abc import Sequence
from typing import Any

import pytest

from gateway.supervisor.blocks import sealed_file
from gateway.supervisor.ipc import Endpoint
from gateway.worker.swap import map_blob, put_to_use, set_changed, verified


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
    cost = put_to_use(engine, map_blob(sealed_file(b"x"), 1), 7, {1: [A], 2: [A, B], 4: []}, current)
    assert cost >= 0
    assert engine.calls == [("swap", b"x", 7), (2, (A, B)), (4, ())]
    assert current == {1: (A,), 2: (A, B), 4: ()}


def test_a_refused_blob_changes_nothing() -> None:
    engine = Recorder(refuse=True)
    current: dict[int, tuple[Endpoint, ...]] = {1: (A,)}
    with pytest.raises(ValueError, match="bad magic"):
        put_to_use(engine, map_blob(sealed_file(b"x"), 1), 7, {1: [B]}, current)
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
