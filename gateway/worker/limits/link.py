"""Between the engine and the store: takes what the engine asks, and answers or fails each ask within its time.

The engine wakes the link at the end of a turn in which asks have come up. They are taken at once when nothing is on its way, and
otherwise when the round trip before is back, or a moment later: batches grow with load, and no ask waits for long.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from gateway.supervisor.ipc import StoreFacts
from gateway.supervisor.redis_url import RedisAddress
from gateway.worker.limits.facts import Tally
from gateway.worker.limits.script import CHARGE, GIVE_BACK, LEASE, Ask, arguments, parse_answer
from gateway.worker.limits.shard import KEY, Call
from gateway.worker.limits.store import Store

GATHER_S = 0.001   # asks wait so long at most for the round trip before them


class Asker(Protocol):
    """What of the engine the link needs; gateway/_core/engine.pyi says what each does."""

    def set_limit_asker(self, wake: Callable[[], object] | None) -> None: ...
    def take_asks(self) -> list[Ask]: ...
    def answer_ask(self, ask_id: int, granted: int, facts: Sequence[tuple[int, int, int]]) -> None: ...
    def fail_ask(self, ask_id: int, reason: int) -> None: ...


class Link:
    """One store for one engine, from here to `close`."""

    def __init__(self, engine: Asker, address: RedisAddress) -> None:
        self.address = address
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._tally = Tally()
        self._store = Store(address, self._tally, self._on_answer, self._on_failure)
        self._out = 0
        """Asks that are on their way and not answered."""
        self._soon: asyncio.TimerHandle | None = None
        engine.set_limit_asker(self._wake)

    def facts(self) -> StoreFacts:
        breakers = [shard.breaker for shard in self._store.shards]
        return self._tally.facts(
            breakers=len(breakers),
            breakers_open=sum(breaker.is_open for breaker in breakers),
            opened=sum(breaker.opened for breaker in breakers),
        )

    # asks

    def _wake(self) -> None:
        if self._out == 0:
            self._take()
        elif self._soon is None:
            self._soon = self._loop.call_later(GATHER_S, self._take)

    def _take(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        asks = self._engine.take_asks()
        if not asks:
            return
        now = self._loop.time()
        calls = []
        for ask in asks:
            _, count, kind, keys, budget_us = ask
            deadline = now + budget_us / 1_000_000 if kind in (CHARGE, LEASE) else math.inf
            calls.append(Call(ask, arguments(count, kind, keys), deadline))
        self._out += len(calls)
        self._store.send(calls)

    def _on_answer(self, call: Call, reply: Any) -> None:
        ask_id, _, kind, keys, _ = call.ask
        answer = parse_answer(reply, len(keys))
        if call.is_over:
            if answer is not None and answer[0] and kind in (CHARGE, LEASE):
                # Nobody waits for it any more.
                back = Call((None, answer[0], GIVE_BACK, keys, 0), arguments(answer[0], GIVE_BACK, keys))
                self._out += 1
                self._store.send([back])
            return
        call.is_over = True
        if ask_id is not None:
            if answer is None:
                self._engine.fail_ask(ask_id, KEY)
            else:
                self._engine.answer_ask(ask_id, *answer)
        self._settle()

    def _on_failure(self, call: Call, reason: int) -> None:
        if call.ask[0] is not None:
            self._engine.fail_ask(call.ask[0], reason)
        self._settle()

    def _settle(self) -> None:
        self._out -= 1
        if self._out == 0 and self._soon is not None:
            self._take()

    async def move(self, address: RedisAddress) -> None:
        """Asks from now on go to another store; those that are with the one before fail."""
        before, self.address = self._store, address
        self._store = Store(address, self._tally, self._on_answer, self._on_failure)
        await before.close()

    async def close(self) -> None:
        """What is asked from now on has no store; what is open fails."""
        self._engine.set_limit_asker(None)
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        await self._store.close()
