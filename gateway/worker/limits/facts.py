"""What a worker tells of its store, once a second; the supervisor sums it over the workers."""

from __future__ import annotations

import bisect

from gateway.supervisor.ipc import STORE_BOUNDS_US, StoreFacts


class Tally:
    """Counts as things happen."""

    def __init__(self) -> None:
        self.asks = 0
        self.round_trips = 0
        self.microseconds = 0
        self.buckets = [0] * (len(STORE_BOUNDS_US) + 1)
        self.errors: dict[str, int] = {}

    def round_trip(self, seconds: float) -> None:
        us = int(seconds * 1_000_000)
        self.round_trips += 1
        self.microseconds += us
        self.buckets[bisect.bisect_left(STORE_BOUNDS_US, us)] += 1

    def error(self, kind: str) -> None:
        self.errors[kind] = self.errors.get(kind, 0) + 1

    def facts(self, *, breakers: int, breakers_open: int, opened: int) -> StoreFacts:
        return StoreFacts(
            asks=self.asks, round_trips=self.round_trips, microseconds=self.microseconds, buckets=list(self.buckets),
            errors=dict(self.errors), breakers=breakers, breakers_open=breakers_open, opened=opened,
        )  # fmt: skip
