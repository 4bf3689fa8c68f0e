"""What asks a store as an engine does, for tests of what stands between the two."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gateway.worker.limits.script import CHARGE, GCRA, Ask, Key

US = 1_000_000


class Outcome(NamedTuple):
    """Of an ask: granted and facts, or the reason of its failure; and the seconds that it took."""

    granted: int
    facts: tuple[tuple[int, int, int], ...]
    reason: int
    seconds: float


def limit(number: int = 0, requests: int = 100, period: int = 3600 * US, most: int = 100, tag: bytes = b"") -> Key:
    return Key(tag, number.to_bytes(16, "big"), GCRA, requests, period, most, 1)


class Asking:
    """`ask` puts a question; all of one turn are taken together."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._asks: list[Ask] = []
        self._open: dict[int, tuple[asyncio.Future[Outcome], float]] = {}
        self._wake: Callable[[], object] | None = None
        self._is_awake = False
        self.taken: list[list[Ask]] = []

    def ask(self, *keys: Key, count: int = 1, kind: int = CHARGE, budget_us: int = 2_000_000) -> "asyncio.Future[Outcome]":
        loop = asyncio.get_running_loop()
        number = next(self._numbers)
        answer: asyncio.Future[Outcome] = loop.create_future()
        self._open[number] = answer, loop.time()
        self._asks.append((number, count, kind, keys, budget_us))
        if not self._is_awake:
            self._is_awake = True
            loop.call_soon(self._on_turn)
        return answer

    def _on_turn(self) -> None:
        if self._wake is not None:
            self._wake()
        else:
            for ask in self.take_asks():
                self.fail_ask(ask[0], 0)

    # what an engine has

    def set_limit_asker(self, wake: Callable[[], object] | None) -> None:
        self._wake = wake

    def take_asks(self) -> list[Ask]:
        asks, self._asks = self._asks, []
        self._is_awake = False
        if asks:
            self.taken.append(asks)
        return asks

    def answer_ask(self, ask_id: int, granted: int, facts: Sequence[tuple[int, int, int]]) -> None:
        self._settle(ask_id, granted, tuple(facts), 0)

    def fail_ask(self, ask_id: int, reason: int) -> None:
        self._settle(ask_id, 0, (), reason)

    def _settle(self, ask_id: int, granted: int, facts: tuple[tuple[int, int, int], ...], reason: int) -> None:
        answer, since = self._open.pop(ask_id)  # a second answer is an error of the test's subject
        answer.set_result(Outcome(granted, facts, reason, asyncio.get_running_loop().time() - since))

    @property
    def open(self) -> int:
        return len(self._open)
