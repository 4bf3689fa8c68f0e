"""How a worker leaves."""

import asyncio
import errno
import socket
import time
from pathlib import Path

import pytest

from gateway.worker.drain import Leaving, turn_away


class Recorder:
    """Stands for the engine."""

    def __init__(self, connections: int) -> None:
        self.connections = connections
        self.calls: list[object] = []

    def drain(self, deadline_ms: int) -> None:
        self.calls.append(("drain", deadline_ms))


def test_it_drains_turns_away_who_comes_and_waits_for_the_last_connection() -> None:
    async def story() -> int:
        engine = Recorder(2)
        leaving = Leaving(engine)
        with socket.create_server(("127.0.0.1", 0)) as port:
            early = socket.create_connection(port.getsockname())
            leaving.begin(60_000, [port.fileno()])
            assert leaving.has_begun and engine.calls == [("drain", 60_000)]
            with early, socket.socket() as late:
                late.setblocking(False)
                assert late.connect_ex(port.getsockname()) == errno.EINPROGRESS
                await leaving.settled()
                # Who was there is served; who comes now hears nothing, and asks again later.
                accepted, _ = port.accept()
                with accepted:
                    early.sendall(b"here")
                    assert accepted.recv(10) == b"here"
                assert late.connect_ex(port.getsockname()) == errno.EALREADY
                port.setblocking(False)
                with pytest.raises(BlockingIOError):
                    port.accept()
        waiting = asyncio.ensure_future(leaving.finished())
        await asyncio.sleep(0)
        assert not waiting.done()
        engine.connections = 0
        return await asyncio.wait_for(waiting, 5)

    assert asyncio.run(story()) == 0


def test_a_socket_that_takes_no_filter_is_left_as_it_is(tmp_path: Path) -> None:
    with open(tmp_path / "file", "wb") as file:
        turn_away(file.fileno())
        file.write(b"still open")


def test_at_the_deadline_the_rest_is_left_to_the_hard_close() -> None:
    async def story() -> int:
        leaving = Leaving(Recorder(3))
        leaving.begin(0, [])
        return await asyncio.wait_for(leaving.finished(), 5)

    assert asyncio.run(story()) == 3


def test_a_nearer_deadline_hastens_and_a_farther_one_changes_nothing() -> None:
    async def story() -> int:
        engine = Recorder(1)
        leaving = Leaving(engine)
        leaving.begin(60_000, [])
        leaving.begin(90_000, [])
        assert engine.calls == [("drain", 60_000)]
        waiting = asyncio.ensure_future(leaving.finished())
        await asyncio.sleep(0)
        start = time.monotonic()
        leaving.begin(0, [])
        left = await asyncio.wait_for(waiting, 5)
        assert time.monotonic() - start < 5 and engine.calls[-1] == ("drain", 0)
        return left

    assert asyncio.run(story()) == 1
