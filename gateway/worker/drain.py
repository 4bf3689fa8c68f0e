"""How a worker leaves: it stops accepting, says Connection: close, waits for its connections, and at the deadline cuts the rest."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

POLL_S = 0.02


class Drainable(Protocol):
    """The part of the engine that leaving needs."""

    @property
    def connections(self) -> int: ...
    def drain(self, deadline_ms: int) -> None: ...
    def unlisten(self, bind_id: int) -> None: ...


class Leaving:
    """One drain. A later call with a nearer deadline hastens it; a farther one changes nothing."""

    def __init__(self, engine: Drainable) -> None:
        self._engine = engine
        self._deadline = float("inf")
        self.has_begun = False

    def begin(self, deadline_ms: int, bind_ids: list[int]) -> None:
        deadline = time.monotonic() + deadline_ms / 1000
        if deadline >= self._deadline:
            return
        self._deadline = deadline
        self.has_begun = True
        for bind_id in bind_ids:
            self._engine.unlisten(bind_id)
        self._engine.drain(deadline_ms)

    async def finished(self) -> int:
        """Waits until the last connection is gone, or the deadline; the number of connections left for the hard close."""
        while self._engine.connections and time.monotonic() < self._deadline:
            await asyncio.sleep(POLL_S)
        return self._engine.connections
