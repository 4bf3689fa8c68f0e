"""What a limit that makes no mistake lets through of requests that were really sent. Pure functions; nothing is started here.

A client knows when it sent a request and when it was answered, and the limit decided somewhere between. Both ends of what could
be right come from that: `least` for one that decides as soon as it can once it has begun at all, `most` for one that takes all
the time there is. They are a request apart where answers are quick, and far apart where the machine stood still: then nothing
can be told.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

ROUNDING = 1e-9     # seconds


@dataclass(frozen=True, slots=True)
class Bucket:
    """A limit by GCRA, full at the beginning: so many requests in a second, and so many at once."""

    rate: float
    capacity: int

    def least(self, asked: Iterable[tuple[float, float]]) -> int:
        """asked: when each request was sent, and how long its answer took; seconds, in any order.

        Each is decided when it was sent, but none before the first answer came: a full bucket gains nothing until somebody takes
        of it.
        """
        rows = sorted(asked)
        if not rows:
            return 0
        first = min(sent + took for sent, took in rows)
        passed, empty_at = 0, first
        for sent, _ in rows:
            now = max(sent, first)
            after = max(empty_at, now) + 1 / self.rate
            if after - now <= self.capacity / self.rate + ROUNDING:
                passed, empty_at = passed + 1, after
        return passed

    def most(self, asked: Iterable[tuple[float, float]]) -> int:
        """The same when each may wait for its token until it was answered, and who is answered first is first."""
        rows = sorted(asked)
        passed, at = 0, 0
        now = empty_at = rows[0][0] if rows else 0.0
        waiting: list[float] = []
        while waiting or at < len(rows):
            if not waiting:
                now = max(now, rows[at][0])
            while at < len(rows) and rows[at][0] <= now:
                heapq.heappush(waiting, sum(rows[at]))
                at += 1
            token = empty_at - (self.capacity - 1) / self.rate
            while waiting and waiting[0] + ROUNDING < max(now, token):
                heapq.heappop(waiting)
            if not waiting:
                continue
            if token > now:
                # others may come until then that are answered before
                now = token
                continue
            heapq.heappop(waiting)
            passed, empty_at = passed + 1, max(empty_at, now) + 1 / self.rate
        return passed


@dataclass(slots=True)
class Account:
    """What was asked, what was let through and what would have been right, of one run or of several added up."""

    asked: int = 0
    allowed: int = 0
    least: int = 0
    most: int = 0

    def add(self, bucket: Bucket, asked: Iterable[tuple[float, float]], allowed: int) -> None:
        """One burst that began with a full bucket."""
        rows = list(asked)
        self.asked += len(rows)
        self.allowed += allowed
        self.least += bucket.least(rows)
        self.most += bucket.most(rows)

    @property
    def share(self) -> float:
        """Percent of what is right: 100 anywhere between the two ends, and of the nearer one outside. NaN: nothing was asked."""
        if not self.least:
            return float("nan")
        return 100 * self.allowed / min(max(self.allowed, self.least), self.most)

    @property
    def doubt(self) -> float:
        """Percent of it that nobody outside can know."""
        return 100 * (self.most - self.least) / self.least if self.least else float("nan")
