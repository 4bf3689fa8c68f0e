"""Prometheus metrics: the one table of names, and the collector that sums the counter blocks of all workers at scrape time.

The supervisor owns a Collector, gives it the block of each worker slot and keeps its ControlFacts true; the admin port asks
`expose`. A sum never goes back: what a dead worker counted stays counted, a series that a worker freed and claimed again goes on
from where it was, and only a name that left the configuration takes its series away.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from prometheus_client import generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.core import (
    Metric as Family,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector as RegistryCollector

from gateway import __version__
from gateway._core import counters, faults
from gateway.model.live import LiveFacts
from gateway.supervisor.ipc import STORE_BOUNDS_US, StoreFacts

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
PREFIX: Final = "isthmus_"
OTHER: Final = "_other"
SERIES_BUDGET: Final = 2048
"""Request series that are shown at most, over all workers; what is beyond is counted in `_other`."""

REQUEST_LABELS: Final = ("listener", "route", "cluster", "method", "code")
CLUSTER_LABELS: Final = ("cluster",)
LIMIT_LABELS: Final = ("limit", "decision", "source")
WORKER_LABELS: Final = ("worker",)


@dataclass(frozen=True, slots=True)
class Metric:
    """A row of the table. A counter's name stands without the `_total` that it is shown with."""

    name: str
    kind: str  # counter | gauge | histogram | info
    labels: tuple[str, ...]
    help: str

    @property
    def shown_name(self) -> str:
        """The name as it is scraped, histogram suffixes aside."""
        return self.name + {"counter": "_total", "info": "_info"}.get(self.kind, "")


def _metric(name: str, kind: str, labels: tuple[str, ...], help: str) -> Metric:
    return Metric(PREFIX + name, kind, labels, help)


REQUESTS = _metric("requests", "counter", REQUEST_LABELS, "Finished requests, whoever answered them.")
DURATION = _metric(
    "request_duration_seconds",
    "histogram",
    REQUEST_LABELS,
    "Time from the first byte of a request to the last byte of its response.",
)
SIZE_IN = _metric("request_size_bytes", "histogram", REQUEST_LABELS, "Content of requests, without heads and framing.")
SIZE_OUT = _metric("response_size_bytes", "histogram", REQUEST_LABELS, "Content of responses, without heads and framing.")

CLUSTER_METRICS: Final = (  # in the order of the words of a ClusterSeries after its id
    _metric("upstream_connects", "counter", CLUSTER_LABELS, "Connections opened to endpoints."),
    _metric("upstream_connect_failures", "counter", CLUSTER_LABELS, "Connections that could not be opened."),
    _metric("upstream_connect_timeouts", "counter", CLUSTER_LABELS, "Connections that were not opened in time."),
    _metric("upstream_requests", "counter", CLUSTER_LABELS, "Attempts sent to endpoints."),
    _metric("upstream_failures", "counter", CLUSTER_LABELS, "Attempts that failed by the endpoint's fault."),
    _metric("upstream_retries", "counter", CLUSTER_LABELS, "Attempts that repeated an earlier one."),
    _metric(
        "upstream_stale_connections",
        "counter",
        CLUSTER_LABELS,
        "Pooled connections that turned out to be dead when they were used.",
    ),
    _metric("upstream_ejections", "counter", CLUSTER_LABELS, "Times that an endpoint was taken out because it kept failing."),
    _metric("upstream_overflows", "counter", CLUSTER_LABELS, "Requests refused because the queue for a connection was full."),
    _metric("upstream_no_endpoint", "counter", CLUSTER_LABELS, "Requests refused because no endpoint was usable."),
    _metric("upstream_requests_active", "gauge", CLUSTER_LABELS, "Attempts in flight."),
    _metric("upstream_connections_idle", "gauge", CLUSTER_LABELS, "Open connections that wait for a request."),
    _metric("upstream_connections", "gauge", CLUSTER_LABELS, "Open connections to endpoints."),
    _metric("upstream_requests_pending", "gauge", CLUSTER_LABELS, "Requests that wait for a connection."),
    _metric(
        "upstream_endpoints_ejected", "gauge", CLUSTER_LABELS, "Endpoints that are out, summed over the workers that took them out."
    ),
)
LIMIT_DECISIONS = _metric(
    "ratelimit_decisions",
    "counter",
    LIMIT_LABELS,
    "Decisions of rate limits, by what they came to and by whose word.",
)
FAULTS = _metric("faults", "counter", ("fault",), "Messages of peers that broke a rule, by what was wrong with them.")
SCALAR_METRICS: Final = tuple(
    _metric(name, "counter" if kind == "counter" else "gauge", WORKER_LABELS if kind == "worker" else (), help)
    for name, kind, help in counters.SCALARS
)
CONFIG_REVISION = _metric("config_revision", "gauge", (), "Revision of the configuration that was published last.")
CONFIG_AGE = _metric("config_age_seconds", "gauge", (), "Time since the configuration in use was published.")
CONFIG_LAST_OK = _metric(
    "config_last_reload_successful", "gauge", (), "1 when the last load of the configuration was applied, else 0."
)
CONFIG_LAST_SUCCESS = _metric(
    "config_last_success_timestamp_seconds", "gauge", (), "When a configuration was applied last; 0 before the first."
)
CONFIG_LAST_ERROR = _metric(
    "config_last_error_timestamp_seconds", "gauge", (), "When a configuration was refused last; 0 when none was."
)
CONFIG_RELOADS = _metric("config_reloads", "counter", ("result",), "Loads of the configuration, by result.")
CONFIG_PROBLEMS = _metric("config_problems", "gauge", (), "Objects or lines of the configuration in use that were left out.")
CERTIFICATE_EXPIRY = _metric(
    "certificate_expiry_timestamp_seconds",
    "gauge",
    ("listener", "cluster", "host", "key"),
    "When a certificate in use ends, or the first of its chain: of a listener, or one that a cluster is shown.",
)
KUBERNETES_SYNCED = _metric(
    "kubernetes_synced", "gauge", ("kind",), "1 while a kind is watched, 0 while the API server is away or does not know it."
)
KUBERNETES_OBJECTS = _metric("kubernetes_objects", "gauge", ("kind",), "Objects of a kind that are known.")
KUBERNETES_LISTS = _metric("kubernetes_lists", "counter", ("kind",), "Lists of a kind: one at start, others after 410 Gone.")
KUBERNETES_WATCHES = _metric("kubernetes_watches", "counter", ("kind",), "Watches of a kind that were begun.")
KUBERNETES_ERRORS = _metric("kubernetes_errors", "counter", ("kind",), "Requests that the API server did not answer well.")
KUBERNETES_LAST_ERROR = _metric(
    "kubernetes_last_error_timestamp_seconds", "gauge", (), "When the API server did not answer well last; 0 when never."
)
KUBERNETES_LEADER = _metric("kubernetes_leader", "gauge", (), "1 when this process writes the statuses, else 0.")
KUBERNETES_STALE = _metric(
    "kubernetes_stale", "gauge", (), "1 while no API server has answered since the start and the objects of last time are served."
)
KUBERNETES_STATUS_WRITES = _metric("kubernetes_status_writes", "counter", ("result",), "Writes of statuses, by result.")
KUBERNETES_ENDPOINTS = _metric(
    "kubernetes_endpoint_updates", "counter", (), "Changes of endpoints alone, which reach the workers without new routes."
)
STORE_SECONDS = _metric(
    "ratelimit_store_seconds", "histogram", (), "Round trips to the store of rate limits, each of one call or of many."
)
STORE_CALLS = _metric("ratelimit_store_calls", "counter", (), "Calls of the script in the store of rate limits.")
STORE_ERRORS = _metric(
    "ratelimit_store_errors",
    "counter",
    ("kind",),
    "Round trips to the store that failed, by why: timeout, connect, readonly, oom, denied and so on.",
)
STORE_BREAKERS_OPEN = _metric(
    "ratelimit_store_breakers_open", "gauge", (), "Breakers that keep a store from being asked, over servers and workers."
)
STORE_BREAKER_OPENED = _metric("ratelimit_store_breaker_opened", "counter", (), "Times that a breaker opened.")
WORKER_UP = _metric("worker_up", "gauge", WORKER_LABELS, "1 while the worker of this slot serves, else 0.")
WORKER_RESTARTS = _metric("worker_restarts", "counter", (), "Workers that died and were replaced.")
WORKER_MEMORY = _metric("worker_resident_memory_bytes", "gauge", WORKER_LABELS, "Resident memory of the worker.")
START_TIME = _metric("start_time_seconds", "gauge", (), "When the gateway started.")
BUILD = _metric("build", "info", (), "Version of the gateway.")

TABLE: Final = (
    REQUESTS, DURATION, SIZE_IN, SIZE_OUT,
    *CLUSTER_METRICS,
    LIMIT_DECISIONS,
    FAULTS,
    *SCALAR_METRICS,
    CONFIG_REVISION, CONFIG_AGE, CONFIG_LAST_OK, CONFIG_LAST_SUCCESS, CONFIG_LAST_ERROR, CONFIG_RELOADS, CONFIG_PROBLEMS,
    CERTIFICATE_EXPIRY,
    KUBERNETES_SYNCED, KUBERNETES_OBJECTS, KUBERNETES_LISTS, KUBERNETES_WATCHES, KUBERNETES_ERRORS, KUBERNETES_LAST_ERROR,
    KUBERNETES_LEADER, KUBERNETES_STALE, KUBERNETES_STATUS_WRITES, KUBERNETES_ENDPOINTS,
    STORE_SECONDS, STORE_CALLS, STORE_ERRORS, STORE_BREAKERS_OPEN, STORE_BREAKER_OPENED,
    WORKER_UP, WORKER_RESTARTS, WORKER_MEMORY, START_TIME, BUILD,
)  # fmt: skip
"""Every metric of the gateway."""

METHODS: Final = ("OTHER", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT")  # types.Method

# A row of counters.read is (index, state, key words, values).
_STATE_OTHER = 2
_DURATIONS = len(counters.DURATION_BOUNDS_US) + 1
_SIZES = len(counters.SIZE_BOUNDS) + 1
_AT_DURATIONS = 4  # values: count, duration, bytes in, bytes out, then the buckets
_AT_SIZES_IN = _AT_DURATIONS + _DURATIONS
_AT_SIZES_OUT = _AT_SIZES_IN + _SIZES
_DURATION_LES = [*(repr(bound / 1e6) for bound in counters.DURATION_BOUNDS_US), "+Inf"]
_STORE_LES = [*(repr(bound / 1e6) for bound in STORE_BOUNDS_US), "+Inf"]
_SIZE_LES = [*(repr(float(bound)) for bound in counters.SIZE_BOUNDS), "+Inf"]
_CLUSTER_COUNTERS = sum(metric.kind == "counter" for metric in CLUSTER_METRICS)

Key = tuple[int, ...]
_OTHER_KEY: Key = ()


@dataclass(slots=True)
class ControlFacts:
    """What the supervisor knows beside the blocks. It writes; the collector reads. Times are seconds since the epoch."""

    revision: int = 0
    applied_at: float = 0.0
    is_last_reload_ok: bool = True
    last_error_at: float = 0.0
    reloads_ok: int = 0
    reloads_refused: int = 0
    problems: int = 0
    worker_restarts: int = 0
    started_at: float = field(default_factory=time.time)
    worker_memory: dict[int, int] = field(default_factory=dict)
    """Resident bytes of each worker slot."""
    certificate_ends: dict[tuple[str, str, str, str], float] = field(default_factory=dict)
    """(listener, cluster, first host name, kind of key) -> end of the certificates in use, in seconds since the epoch."""
    cluster: LiveFacts | None = None
    """Of the API server that is watched, if one is."""
    store: StoreFacts | None = None
    """Of the store of rate limits, summed over the workers, if one is used."""


@dataclass(slots=True)
class _Slot:
    """What was read from a slot's block last; the next reading is counted as the difference to it."""

    buffer: Any = None
    block: int = 0
    scalars: Sequence[int] = ()
    faults: Sequence[int] = ()
    clusters: dict[int, tuple[int, ...]] = field(default_factory=dict)
    clusters_now: list[tuple[int, ...]] = field(default_factory=list)
    """The rows of the last reading alone: a gauge has no past."""
    series: dict[int, tuple[int, ...]] = field(default_factory=dict)
    limits: dict[int, tuple[int, ...]] = field(default_factory=dict)


class Collector(RegistryCollector):
    """Sums over all workers, as metric families.

    names: the ids of the configuration in use, with (kind, name); series of other ids are not shown and their sums are forgotten.
    Every method may be called from any thread.
    """

    def __init__(
        self,
        names: Callable[[], Mapping[int, tuple[str, str]]],
        *,
        facts: ControlFacts | None = None,
        budget: int = SERIES_BUDGET,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.facts = facts if facts is not None else ControlFacts()
        self._names = names
        self._budget = budget
        self._clock = clock
        self._lock = threading.Lock()
        self._slots: dict[int, _Slot] = {}
        self._scalars = [0] * len(counters.SCALARS)
        self._faults = [0] * len(faults.NAMES)
        self._clusters: dict[Key, list[int]] = {}
        self._limits: dict[Key, list[int]] = {}
        self._series: dict[Key, list[int]] = {}

    def add_worker(self, slot: int, buffer: Any) -> None:
        """A worker of this slot serves and writes to this block. The block may be that of its predecessor, or a new one."""
        with self._lock:
            known = self._slots.setdefault(slot, _Slot())
            if known.buffer is not None and known.buffer is not buffer:
                self._fold(known)
            known.buffer = buffer

    def remove_worker(self, slot: int) -> None:
        """The worker of this slot died or left: its counts stay, its gauges go, and it is shown as down until it is added again."""
        with self._lock:
            known = self._slots.get(slot)
            if known is not None and known.buffer is not None:
                self._fold(known)
                known.buffer = None

    def forget_worker(self, slot: int) -> None:
        """The slot exists no more."""
        self.remove_worker(slot)
        with self._lock:
            self._slots.pop(slot, None)

    # ---- reading the blocks ----

    def _fold(self, slot: _Slot) -> None:
        """Adds to the sums what the block counted since it was read last."""
        reading = counters.read(slot.buffer)
        if reading is None:
            return
        block, scalars, fault_counts, clusters, series, limits = reading
        if block != slot.block:
            slot.block = block
            slot.scalars = slot.faults = ()
            slot.clusters, slot.series, slot.limits = {}, {}, {}
        _add(self._scalars, scalars, slot.scalars)
        _add(self._faults, fault_counts, slot.faults)
        slot.scalars, slot.faults = scalars, fault_counts
        slot.clusters_now = clusters
        slot.clusters = self._fold_rows(clusters, slot.clusters, self._clusters, 3, 0)
        slot.limits = self._fold_rows(limits, slot.limits, self._limits, 3, 0)
        slot.series = self._fold_rows(series, slot.series, self._series, 6, self._budget)

    def _fold_rows(
        self,
        rows: list[tuple[int, ...]],
        before: dict[int, tuple[int, ...]],
        sums: dict[Key, list[int]],
        values_at: int,
        budget: int,
    ) -> dict[int, tuple[int, ...]]:
        # Rows that could not be read this time keep what was seen of them: their next difference is then still right.
        seen = dict(before)
        for row in rows:
            old = before.get(row[0])
            seen[row[0]] = row
            if old == row:
                continue
            key = _OTHER_KEY if row[1] & 0xFF == _STATE_OTHER else row[2:values_at]
            total = sums.get(key)
            if total is None:
                if budget and len(sums) >= budget:
                    key = _OTHER_KEY
                total = sums.setdefault(key, [0] * (len(row) - values_at))
            # Another state word is another claim: the words began at 0 again.
            _add(total, row[values_at:], old[values_at:] if old is not None and old[1] == row[1] else ())
        return seen

    # ---- families ----

    def collect(self) -> Iterable[Family]:
        with self._lock:
            names = self._names()
            for slot in self._slots.values():
                if slot.buffer is not None:
                    self._fold(slot)
            for sums in (self._clusters, self._series, self._limits):
                for key in [key for key in sums if not _is_named(key, names)]:
                    del sums[key]
            return [
                *self._request_families(names),
                *self._cluster_families(names),
                self._limit_family(names),
                *self._scalar_families(),
                *self._control_families(),
            ]

    def _request_families(self, names: Mapping[int, tuple[str, str]]) -> list[Family]:
        requests = CounterMetricFamily(REQUESTS.name, REQUESTS.help, labels=REQUEST_LABELS)
        duration = HistogramMetricFamily(DURATION.name, DURATION.help, labels=REQUEST_LABELS)
        size_in = HistogramMetricFamily(SIZE_IN.name, SIZE_IN.help, labels=REQUEST_LABELS)
        size_out = HistogramMetricFamily(SIZE_OUT.name, SIZE_OUT.help, labels=REQUEST_LABELS)
        for key, values in self._series.items():
            if values[0] == 0:
                continue
            labels = _request_labels(key, names)
            requests.add_metric(labels, values[0])
            duration.add_metric(labels, _cumulated(_DURATION_LES, values[_AT_DURATIONS:_AT_SIZES_IN]), values[1] / 1e6)
            size_in.add_metric(labels, _cumulated(_SIZE_LES, values[_AT_SIZES_IN:_AT_SIZES_OUT]), values[2])
            size_out.add_metric(labels, _cumulated(_SIZE_LES, values[_AT_SIZES_OUT:]), values[3])
        return [requests, duration, size_in, size_out]

    def _cluster_families(self, names: Mapping[int, tuple[str, str]]) -> list[Family]:
        # Gauges come from the workers that live, counters from the sums.
        gauges: dict[Key, list[int]] = {}
        for slot in self._slots.values():
            if slot.buffer is None:
                continue
            for row in slot.clusters_now:
                key = _OTHER_KEY if row[1] & 0xFF == _STATE_OTHER else row[2:3]
                if key in self._clusters:
                    now = gauges.setdefault(key, [0] * (len(CLUSTER_METRICS) - _CLUSTER_COUNTERS))
                    for i, value in enumerate(row[3 + _CLUSTER_COUNTERS :]):
                        now[i] += value
        families: list[Family] = []
        shown = [(key, _cluster_labels(key, names)) for key, values in self._clusters.items() if key or any(values)]
        for i, metric in enumerate(CLUSTER_METRICS):
            family: CounterMetricFamily | GaugeMetricFamily
            if i < _CLUSTER_COUNTERS:
                family = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
                for key, labels in shown:
                    family.add_metric(labels, self._clusters[key][i])
            else:
                family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
                for key, labels in shown:
                    family.add_metric(labels, gauges[key][i - _CLUSTER_COUNTERS] if key in gauges else 0)
            families.append(family)
        return families

    def _limit_family(self, names: Mapping[int, tuple[str, str]]) -> Family:
        family = CounterMetricFamily(LIMIT_DECISIONS.name, LIMIT_DECISIONS.help, labels=LIMIT_LABELS)
        cells = [(decision, source) for decision in counters.LIMIT_DECISIONS for source in counters.LIMIT_SOURCES]
        for key, values in self._limits.items():
            (name,) = _cluster_labels(key, names)
            for (decision, source), value in zip(cells, values, strict=True):
                if value:
                    family.add_metric([name, decision, source], value)
        return family

    def _scalar_families(self) -> list[Family]:
        families: list[Family] = []
        live = [(slot, known) for slot, known in sorted(self._slots.items()) if known.buffer is not None and known.scalars]
        for i, (metric, (name, kind, _)) in enumerate(zip(SCALAR_METRICS, counters.SCALARS, strict=True)):
            scale = 1e-6 if name.endswith("_seconds") else 1
            family: CounterMetricFamily | GaugeMetricFamily
            if kind == "counter":
                family = CounterMetricFamily(metric.name, metric.help)
                family.add_metric([], self._scalars[i] * scale)
            else:
                family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
                if kind == "worker":
                    for slot, known in live:
                        family.add_metric([str(slot)], known.scalars[i] * scale)
                else:
                    family.add_metric([], sum(known.scalars[i] for _, known in live) * scale)
            families.append(family)
        family = CounterMetricFamily(FAULTS.name, FAULTS.help, labels=FAULTS.labels)
        for i, name in enumerate(faults.NAMES):
            if i:  # the first one means that nothing was wrong
                family.add_metric([name], self._faults[i])
        families.append(family)
        return families

    def _control_families(self) -> list[Family]:
        facts = self.facts
        age = max(0.0, self._clock() - facts.applied_at) if facts.applied_at else 0.0
        up = GaugeMetricFamily(WORKER_UP.name, WORKER_UP.help, labels=WORKER_LABELS)
        for slot, known in sorted(self._slots.items()):
            up.add_metric([str(slot)], 1 if known.buffer is not None else 0)
        memory = GaugeMetricFamily(WORKER_MEMORY.name, WORKER_MEMORY.help, labels=WORKER_LABELS)
        for slot, resident in sorted(facts.worker_memory.items()):
            if slot in self._slots and self._slots[slot].buffer is not None:
                memory.add_metric([str(slot)], resident)
        reloads = CounterMetricFamily(CONFIG_RELOADS.name, CONFIG_RELOADS.help, labels=CONFIG_RELOADS.labels)
        reloads.add_metric(["applied"], facts.reloads_ok)
        reloads.add_metric(["refused"], facts.reloads_refused)
        ends = GaugeMetricFamily(CERTIFICATE_EXPIRY.name, CERTIFICATE_EXPIRY.help, labels=CERTIFICATE_EXPIRY.labels)
        for labels, end in sorted(facts.certificate_ends.items()):
            ends.add_metric(labels, end)
        return [
            _gauge(CONFIG_REVISION, facts.revision),
            _gauge(CONFIG_AGE, age),
            _gauge(CONFIG_LAST_OK, int(facts.is_last_reload_ok)),
            _gauge(CONFIG_LAST_SUCCESS, facts.applied_at),
            _gauge(CONFIG_LAST_ERROR, facts.last_error_at),
            reloads,
            _gauge(CONFIG_PROBLEMS, facts.problems),
            ends,
            up,
            CounterMetricFamily(WORKER_RESTARTS.name, WORKER_RESTARTS.help, value=facts.worker_restarts),
            memory,
            *_store_families(facts.store),
            *_kubernetes_families(facts.cluster),
            _gauge(START_TIME, facts.started_at),
            InfoMetricFamily(BUILD.name, BUILD.help, value={"version": __version__}),
        ]


def expose(collector: Collector) -> bytes:
    """The metrics in Prometheus' text format, to be sent as CONTENT_TYPE. May run in a thread."""
    return generate_latest(collector)


def _add(total: list[int], now: Sequence[int], before: Sequence[int]) -> None:
    if not before:
        for i, value in enumerate(now):
            total[i] += value
        return
    for i, value in enumerate(now):
        # A word that went back was zeroed without notice; what it counts now is all that is known of it. For a gauge the sum means
        # nothing, and nobody reads it.
        old = before[i]
        total[i] += value - old if value >= old else value


def _is_named(key: Key, names: Mapping[int, tuple[str, str]]) -> bool:
    return all(id == 0 or id in names for id in key[:3])


def _request_labels(key: Key, names: Mapping[int, tuple[str, str]]) -> list[str]:
    if key == _OTHER_KEY:
        return [OTHER] * len(REQUEST_LABELS)
    method, code = key[3] >> 16, key[3] & 0xFFFF
    labels = [names[id][1] if id else "" for id in key[:3]]
    return [*labels, METHODS[method] if method < len(METHODS) else METHODS[0], str(code)]


def _cluster_labels(key: Key, names: Mapping[int, tuple[str, str]]) -> list[str]:
    return [names[key[0]][1] if key[0] else ""] if key else [OTHER]


def _cumulated(les: list[str], counts: Sequence[int]) -> list[tuple[str, float]]:
    buckets: list[tuple[str, float]] = []
    total = 0
    for le, count in zip(les, counts, strict=True):
        total += count
        buckets.append((le, total))
    return buckets


def _store_families(facts: StoreFacts | None) -> list[Family]:
    if facts is None:
        return []
    seconds = HistogramMetricFamily(STORE_SECONDS.name, STORE_SECONDS.help)
    seconds.add_metric([], _cumulated(_STORE_LES, facts.buckets), facts.microseconds / 1e6)
    errors = CounterMetricFamily(STORE_ERRORS.name, STORE_ERRORS.help, labels=STORE_ERRORS.labels)
    for kind, count in sorted(facts.errors.items()):
        errors.add_metric([kind], count)
    return [
        seconds,
        CounterMetricFamily(STORE_CALLS.name, STORE_CALLS.help, value=facts.asks),
        errors,
        _gauge(STORE_BREAKERS_OPEN, facts.breakers_open),
        CounterMetricFamily(STORE_BREAKER_OPENED.name, STORE_BREAKER_OPENED.help, value=facts.opened),
    ]


def _kubernetes_families(facts: LiveFacts | None) -> list[Family]:
    if facts is None:
        return []
    kinds = sorted(facts.kinds.items())
    synced = GaugeMetricFamily(KUBERNETES_SYNCED.name, KUBERNETES_SYNCED.help, labels=KUBERNETES_SYNCED.labels)
    objects = GaugeMetricFamily(KUBERNETES_OBJECTS.name, KUBERNETES_OBJECTS.help, labels=KUBERNETES_OBJECTS.labels)
    counters: list[Family] = []
    for name, each in kinds:
        synced.add_metric([name], int(each.is_synced))
        objects.add_metric([name], each.objects)
    for metric, word in ((KUBERNETES_LISTS, "lists"), (KUBERNETES_WATCHES, "watches"), (KUBERNETES_ERRORS, "errors")):
        family = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
        for name, each in kinds:
            family.add_metric([name], getattr(each, word))
        counters.append(family)
    writes = CounterMetricFamily(
        KUBERNETES_STATUS_WRITES.name, KUBERNETES_STATUS_WRITES.help, labels=KUBERNETES_STATUS_WRITES.labels
    )
    writes.add_metric(["written"], facts.status_writes)
    writes.add_metric(["failed"], facts.status_errors)
    return [
        synced, objects, *counters,
        _gauge(KUBERNETES_LAST_ERROR, facts.last_error_at),
        _gauge(KUBERNETES_LEADER, int(facts.is_leading)),
        _gauge(KUBERNETES_STALE, int(facts.is_stale)),
        writes,
        CounterMetricFamily(KUBERNETES_ENDPOINTS.name, KUBERNETES_ENDPOINTS.help, value=facts.endpoint_updates),
    ]  # fmt: skip


def _gauge(metric: Metric, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(metric.name, metric.help, value=value)
