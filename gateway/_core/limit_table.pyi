"""The shared table of rate limits. Everything but table_size is for tests."""

from typing import Any

def table_size(buckets: int = 16384) -> int:
    """Bytes of a table with so many buckets (a power of two) of seven keys each."""

class TableProbe:
    """A LimitTable at a given time. Keys are numbers; terms are (requests, capacity, period in us), with 0 for the month."""

    def __init__(self, buffer: Any, *, slot: int = 0, share: int = 1) -> None: ...
    def take(
        self, key: int, algorithm: int, requests: int, capacity: int, period: int, now_us: int, *, wall_us: int = 0, cost: int = 1
    ) -> tuple[bool, int, int, int]:
        """(granted, remaining, retry_ms, reset_ms)."""
    def adjust(
        self, key: int, algorithm: int, requests: int, capacity: int, period: int, now_us: int, what: int, *, wall_us: int = 0
    ) -> None: ...
    def lease_take(self, key: int, requests: int, capacity: int, now_us: int, *, cost: int = 1) -> tuple[str, int, int, int]:
        """(taken, denied or none; want; back; remaining, or the retry_ms of a denial)."""
    def lease_return(self, key: int, now_us: int) -> None: ...
    def lease_grant(
        self, key: int, granted: int, now_us: int, *, used: int = 0, remaining: int = 0, retry_ms: int = 0, requests: int = 100,
        capacity: int = 100,
    ) -> None: ...
    def lease_unasked(self, key: int, now_us: int) -> None: ...
    def lease_over(self, key: int, now_us: int) -> int: ...
    def denied_ms(self, key: int, now_us: int, *, requests: int = 100, capacity: int = 100) -> int: ...
    def enter(self, key: int, most: int, now_us: int) -> tuple[bool, int]:
        """(granted, remaining)."""
    def leave(self, key: int, now_us: int) -> None: ...
    def hold(self, key: int) -> None:
        """Takes the lock of the key's bucket as one who dies with it."""
    @property
    def evictions(self) -> int: ...
    @property
    def keys(self) -> int:
        """Entries in use."""
