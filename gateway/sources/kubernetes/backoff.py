"""How long to wait before the next try: longer each time, never in step with others."""

import random
import time


class Backoff:
    """Doubles from `first` to `longest` seconds, plus up to as much by chance; afresh after `reset` seconds without a failure."""

    def __init__(self, first: float = 0.8, longest: float = 30.0, reset: float = 120.0) -> None:
        self._first = first
        self._longest = longest
        self._reset = reset
        self._next = first
        self._last = 0.0

    def delay(self, at_least: float = 0.0) -> float:
        """Seconds to wait now, after one more failure."""
        now = time.monotonic()
        if now - self._last > self._reset:
            self._next = self._first
        self._last = now
        base, self._next = self._next, min(self._next * 2, self._longest)
        return max(at_least, base * (1 + random.random()))

    def reset(self) -> None:
        """It went well."""
        self._next = self._first
