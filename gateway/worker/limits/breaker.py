"""When to stop asking a store that does not answer."""

from __future__ import annotations

import collections
import time
from collections.abc import Callable

ERRORS = 5       # in
WITHIN_S = 1.0   # opens it


class Breaker:
    """Closed: the store is asked. Open: nobody is, until somebody has seen it answer (`close`)."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._errors: collections.deque[float] = collections.deque(maxlen=ERRORS)
        self.is_open = False
        self.opened = 0
        """How often it has opened."""

    def error(self) -> bool:
        """Something went wrong. True when that opened it."""
        now = self._clock()
        self._errors.append(now)
        if self.is_open or len(self._errors) < ERRORS or now - self._errors[0] >= WITHIN_S:
            return False
        self.trip()
        return True

    def trip(self) -> None:
        """Opens it whatever was before."""
        self._errors.clear()
        if not self.is_open:
            self.is_open = True
            self.opened += 1

    def close(self) -> None:
        self._errors.clear()
        self.is_open = False
