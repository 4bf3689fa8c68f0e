"""Live numbers for the dashboard and `isthmus top`: rates and quantiles over the last seconds, out of the workers' counter blocks.

Prometheus keeps history for those who have it; this keeps two minutes for those who look right now.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway._core import counters

HISTORY = 120              # points of the chart, one a second
WINDOW = 10                # samples that a rate and a quantile look back
MAX_ROUTE_ROWS = 200

# words of a request series after its index, in the order of counters.pxd
STATE, LISTENER, ROUTE, CLUSTER, METHOD_CODE, COUNT, DURATION_SUM, BYTES_IN, BYTES_OUT, DURATION = range(1, 11)
BUCKETS = len(counters.DURATION_BOUNDS_US) + 1
OTHER_STATE = 2            # in the low byte of the state word; the rest numbers the claims
NO_NAME = ("", "")
CLUSTER_WORDS = (
    "connects", "connect_failures", "connect_timeouts", "requests", "failures", "retries", "stale", "ejections", "overflows",
    "no_endpoint", "active", "idle", "connections", "pending", "ejected",
)  # fmt: skip
SCALAR_NAMES = tuple(name for name, _, _ in counters.SCALARS)


@dataclass(slots=True)
class RouteSum:
    """Requests of one route on one listener."""

    count: int = 0
    c4xx: int = 0
    c5xx: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * BUCKETS)

    def add(self, series: Sequence[int]) -> None:
        count, code = series[COUNT], series[METHOD_CODE] & 0xFFFF
        self.count += count
        if 400 <= code < 500:
            self.c4xx += count
        elif code >= 500:
            self.c5xx += count
        for i in range(BUCKETS):
            self.buckets[i] += series[DURATION + i]


@dataclass(slots=True)
class Sample:
    """The sum over all blocks at one moment."""

    at: float
    scalars: dict[str, int]
    routes: dict[tuple[int, int], RouteSum]
    clusters: dict[int, list[int]]
    total: RouteSum


OTHER = (2**64 - 1, 2**64 - 1)


def take_sample(blocks: Iterable[Any], at: float) -> Sample:
    """Reads every block. A block that no worker has written yet counts nothing."""
    scalars = [0] * len(SCALAR_NAMES)
    routes: dict[tuple[int, int], RouteSum] = {}
    clusters: dict[int, list[int]] = {}
    total = RouteSum()
    for block in blocks:
        facts = counters.read(block)
        if facts is None:
            continue
        _, words, _, cluster_series, request_series, _ = facts
        scalars = [a + b for a, b in zip(scalars, words, strict=True)]
        for series in request_series:
            key = OTHER if series[STATE] & 0xFF == OTHER_STATE else (series[LISTENER], series[ROUTE])
            routes.setdefault(key, RouteSum()).add(series)
            total.add(series)
        for series in cluster_series:
            if series[STATE] & 0xFF == OTHER_STATE:
                continue
            sums = clusters.setdefault(series[2], [0] * len(CLUSTER_WORDS))
            for i, word in enumerate(series[3 : 3 + len(CLUSTER_WORDS)]):
                sums[i] += word
    return Sample(at, dict(zip(SCALAR_NAMES, scalars, strict=True)), routes, clusters, total)


def quantile(buckets: Sequence[int], share: float) -> float | None:
    """Milliseconds below which this share of the observations lies, interpolated inside its bucket; None without observations."""
    total = sum(buckets)
    if total <= 0:
        return None
    wanted = share * total
    seen = 0
    for i, count in enumerate(buckets):
        if count and seen + count >= wanted:
            bounds = counters.DURATION_BOUNDS_US
            low = bounds[i - 1] if i else 0
            # Beyond the last bound nothing is known but the bound itself.
            high = bounds[i] if i < len(bounds) else low
            return (low + (high - low) * (wanted - seen) / count) / 1000
        seen += count
    return counters.DURATION_BOUNDS_US[-1] / 1000


class Sampler:
    """Samples once a second and turns the last ones into rows. Owned by the supervisor."""

    def __init__(self, blocks: Callable[[], list[Any]], names: Callable[[], Mapping[int, tuple[str, str]]]) -> None:
        self._blocks = blocks
        self._names = names
        self._samples: collections.deque[Sample] = collections.deque(maxlen=WINDOW + 1)
        self._history: collections.deque[float] = collections.deque(maxlen=HISTORY)

    def tick(self, at: float | None = None) -> None:
        """Takes the next sample."""
        sample = take_sample(self._blocks(), time.monotonic() if at is None else at)
        if self._samples:
            last = self._samples[-1]
            self._history.append(_rate(sample.total.count, last.total.count, sample.at - last.at))
        self._samples.append(sample)

    def numbers(self, at: float | None = None) -> dict[str, Any]:
        """`totals`, `history`, `routes` and `cluster_sums` (by id) of the dashboard."""
        at = time.monotonic() if at is None else at
        if not self._samples:
            self.tick(at)
        # What is asked now is answered now, but the window keeps its even steps.
        new, old = take_sample(self._blocks(), at), self._samples[0]
        span = new.at - old.at
        names = self._names()
        recent = [max(a - b, 0) for a, b in zip(new.total.buckets, old.total.buckets, strict=True)]
        totals = {
            "requests": new.total.count,
            "requests_per_s": _rate(new.total.count, old.total.count, span),
            "errors": new.total.c5xx,
            "errors_per_s": _rate(new.total.c5xx, old.total.c5xx, span),
            "p50_ms": quantile(recent, 0.5),
            "p99_ms": quantile(recent, 0.99),
            "connections": new.scalars["downstream_connections_active"],
            "requests_active": new.scalars["downstream_requests_active"],
            "received_bytes_per_s": _rate(
                new.scalars["downstream_received_bytes"], old.scalars["downstream_received_bytes"], span
            ),
            "sent_bytes_per_s": _rate(new.scalars["downstream_sent_bytes"], old.scalars["downstream_sent_bytes"], span),
        }
        routes = [
            _route_row(key, row, old.routes.get(key, RouteSum()), span, names) for key, row in new.routes.items() if row.count
        ]
        routes.sort(key=lambda row: (-row["requests_per_s"], -row["requests"], row["route"], row["listener"]))
        return {
            "totals": totals,
            "history": [round(rate, 1) for rate in self._history],
            "routes": routes[:MAX_ROUTE_ROWS],
            "cluster_sums": {id_: _cluster_row(sums, old.clusters.get(id_), span) for id_, sums in new.clusters.items()},
        }


def _rate(new: int, old: int, span: float) -> float:
    # A series that was retired takes its count away: that is no negative rate.
    return round(max(new - old, 0) / span, 2) if span > 0 else 0.0


def _route_row(
    key: tuple[int, int], new: RouteSum, old: RouteSum, span: float, names: Mapping[int, tuple[str, str]]
) -> dict[str, Any]:
    listener, route = key
    recent = [max(a - b, 0) for a, b in zip(new.buckets, old.buckets, strict=True)]
    return {
        "listener": "_other" if key == OTHER else names.get(listener, NO_NAME)[1],
        "route": "_other" if key == OTHER else names.get(route, NO_NAME)[1],
        "requests": new.count,
        "requests_per_s": _rate(new.count, old.count, span),
        "c4xx": new.c4xx,
        "c5xx": new.c5xx,
        "p50_ms": quantile(recent, 0.5),
        "p99_ms": quantile(recent, 0.99),
    }


def _cluster_row(new: Sequence[int], old: Sequence[int] | None, span: float) -> dict[str, Any]:
    row: dict[str, Any] = dict(zip(CLUSTER_WORDS, new, strict=True))
    at = CLUSTER_WORDS.index("requests")
    row["requests_per_s"] = _rate(new[at], old[at] if old else 0, span)
    return row
