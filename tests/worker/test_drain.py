"""How a worker leaves."""

import asyncio
import time

from gateway.worker.drain import Leaving


class Recorder:
    """Stands for the engine."""

    def __init__(self, connections: int) -> None:
        self.connections = connections
        self.calls: list[object] = []

    def drain(self, deadline_ms: int) -> None:
        self.calls.append(("drain", deadline_ms))

    def unlisten(self, bind_id: int) -> None:
        self.calls.append(("unlisten", bind_id))


def test_it_stops_accepting_then_drains_and_waits_for_the_last_connection() -> None:
    async def story() -> int:
        engine = Recorder(2)
        leaving = Leaving(engine)
        leaving.begin(60_000, [5, 6])
        assert leaving.has_begun
        assert engine.calls == [("unlisten", 5), ("unlisten", 6), ("drain", 60_000)]
        waiting = asyncio.ensure_future(leaving.finished())
        await asyncio.sleep(0)
        assert not waiting.done()
        engine.connections = 0
        return await asyncio.wait_for(waiting, 5)

    assert asyncio.run(story()) == 0


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
