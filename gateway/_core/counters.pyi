from collections.abc import Sequence
from typing import Any

SCALARS: tuple[tuple[str, str, str], ...]
"""(name, kind, help) of each scalar word in order; kind is "counter", "gauge" (summed) or "worker" (a gauge for each worker).
A name that ends in _seconds stands for a word in microseconds."""
DURATION_BOUNDS_US: tuple[int, ...]
SIZE_BOUNDS: tuple[int, ...]
LIMIT_DECISIONS: tuple[str, ...]
LIMIT_SOURCES: tuple[str, ...]
"""A limit's words are one for each pair of both, the sources of the first decision first."""

def block_size() -> int:
    """Bytes of a worker's block."""

def read(
    buffer: Any,
) -> tuple[int, tuple[int, ...], tuple[int, ...], list[tuple[int, ...]], list[tuple[int, ...]], list[tuple[int, ...]]] | None:
    """(block id, scalars, faults, cluster, request, limit series) of a block; None before its worker has begun to write.

    A series is (index, state, ...the words after the state, as in counters.pxd). A series that was claimed or freed while it was
    copied is left out. Raises ValueError for a block of another layout.
    """

class CountersProbe:
    """A Counters with a Python face, for tests."""

    def __init__(self, buffer: Any) -> None: ...
    def bump(self, scalar: int, n: int = 1) -> None: ...
    def gauge(self, scalar: int, value: int) -> None: ...
    def turn(self, us: int, now_ms: int) -> int:
        """A turn of the loop that ends at this time; the longest turn that is shown after it."""
    def fault(self, fault: int) -> None: ...
    def request(
        self,
        listener: int,
        route: int,
        cluster: int,
        method: int,
        code: int,
        *,
        duration_us: int = 1000,
        bytes_in: int = 0,
        bytes_out: int = 0,
        times: int = 1,
    ) -> int: ...
    def cluster(self, id: int, *, connects: int = 0, requests: int = 0, active: int = 0, ejected: int = 0) -> int: ...
    def limit(self, id: int, decision: int, source: int, times: int = 1) -> int: ...
    def retire(self, ids: Sequence[int]) -> None: ...
