"""The table of metrics, and the sums over the blocks of all workers."""

import itertools
import re
import struct

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway import __version__
from gateway._core import counters, faults
from gateway._core.counters import CountersProbe
from gateway.model.live import KindFacts, LiveFacts
from gateway.observe import metrics
from gateway.observe.metrics import Collector, ControlFacts, expose
from gateway.supervisor.ipc import STORE_BOUNDS_US, StoreFacts

GET, POST = 1, 3
WEB, SHOP, API, PARTNER = 11, 22, 33, 34
NAMES = {WEB: ("listener", "web"), SHOP: ("route", "shop"), API: ("cluster", "api"), PARTNER: ("cluster", "partner")}
SCALARS = [name for name, _, _ in counters.SCALARS]
LABELS = {"listener": "web", "route": "shop", "cluster": "api", "method": "GET", "code": "200"}


def block():
    return bytearray(counters.block_size())


class Fleet:
    """A collector with workers that write for real."""

    def __init__(self, workers=1, **options):
        self.names = dict(NAMES)
        self.facts = ControlFacts()
        self.collector = Collector(lambda: self.names, facts=self.facts, **options)
        self.blocks = {}
        self.workers = {}
        for slot in range(workers):
            self.start(slot)

    def start(self, slot, buffer=None):
        self.blocks[slot] = block() if buffer is None else buffer
        self.workers[slot] = CountersProbe(self.blocks[slot])
        self.collector.add_worker(slot, self.blocks[slot])
        return self.workers[slot]

    def scrape(self):
        return Scrape(expose(self.collector))


class Scrape:
    def __init__(self, text):
        self.families = {family.name: family for family in text_string_to_metric_families(text.decode())}
        self.samples = {}
        for family in self.families.values():
            for sample in family.samples:
                key = (sample.name, tuple(sorted(sample.labels.items())))
                assert key not in self.samples, f"{key} stands twice"
                self.samples[key] = sample.value

    def get(self, name, **labels):
        return self.samples.get((name, tuple(sorted(labels.items()))))

    def rows(self, name):
        return [dict(labels) for sample, labels in self.samples if sample == name]

    def buckets(self, name):
        return {float(dict(labels)["le"]): value for (sample, labels), value in self.samples.items() if sample == f"{name}_bucket"}


# ---- the table ----


def test_names_are_unique():
    names = [metric.shown_name for metric in metrics.TABLE]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("metric", metrics.TABLE, ids=lambda metric: metric.name)
def test_names_follow_the_conventions_of_prometheus(metric):
    """What `promtool check metrics` asks for, and base units."""
    assert re.fullmatch(r"isthmus_[a-z][a-z0-9]*(_[a-z0-9]+)*", metric.name)
    assert metric.kind in {"counter", "gauge", "histogram", "info"}
    # The name itself never ends in a suffix that says what the kind says.
    assert not re.search(r"_(total|count|sum|bucket|info)$", metric.name)
    for word in metric.name.split("_"):
        assert word not in {"ms", "us", "milliseconds", "minutes", "kb", "kib", "mb", "percent", "gauge", "counter", "histogram"}
    if metric.kind == "histogram":
        assert re.search(r"_(seconds|bytes)$", metric.name)
    for label in metric.labels:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", label) and label not in {"le", "quantile", "job", "instance"}
    assert metric.help.endswith(".")
    assert metric.help[0].isupper() or metric.help[0].isdigit()
    assert 10 < len(metric.help) < 120


def test_every_row_of_the_table_is_scraped_with_its_kind_and_help():
    fleet = Fleet()
    fleet.workers[0].request(WEB, SHOP, API, GET, 200)
    fleet.workers[0].cluster(API, connects=1)
    fleet.workers[0].limit(0, 0, 0)
    fleet.facts.worker_memory[0] = 1
    fleet.facts.certificate_ends[("web", "", "a.test", "EC")] = 4e9
    fleet.facts.cluster = LiveFacts({"Service": KindFacts(True, 3, 1, 1, 0)}, is_leading=True)
    fleet.facts.store = StoreFacts(buckets=[0] * (len(STORE_BOUNDS_US) + 1), errors={"oom": 1})
    scrape = fleet.scrape()
    names = {metric.shown_name if metric.kind == "info" else metric.name for metric in metrics.TABLE}
    assert scrape.families.keys() == names
    for metric in metrics.TABLE:
        family = scrape.families[metric.shown_name if metric.kind == "info" else metric.name]
        assert family.documentation == metric.help
        assert family.type == ("gauge" if metric.kind == "info" else metric.kind)
        assert family.samples, f"{metric.name} has no samples"
        for sample in family.samples:
            assert set(sample.labels) - {"le", "version"} == set(metric.labels)


def test_the_methods_stand_in_the_order_of_the_enum():
    assert metrics.METHODS == ("OTHER", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT")


# ---- sums over workers ----


def test_requests_of_all_workers_are_summed():
    fleet = Fleet(3)
    for worker in fleet.workers.values():
        worker.request(WEB, SHOP, API, GET, 200, duration_us=2_000, bytes_in=100, bytes_out=300, times=5)
    scrape = fleet.scrape()
    assert scrape.get("isthmus_requests_total", **LABELS) == 15
    assert scrape.get("isthmus_request_duration_seconds_count", **LABELS) == 15
    assert scrape.get("isthmus_request_duration_seconds_sum", **LABELS) == pytest.approx(0.03)
    assert scrape.get("isthmus_request_size_bytes_sum", **LABELS) == 1500
    assert scrape.get("isthmus_response_size_bytes_sum", **LABELS) == 4500


def test_buckets_are_cumulative_and_end_with_the_count():
    fleet = Fleet()
    for duration in (400, 600, 600, 60_000_000):
        fleet.workers[0].request(WEB, SHOP, API, GET, 200, duration_us=duration, bytes_out=300)
    scrape = fleet.scrape()
    buckets = scrape.buckets("isthmus_request_duration_seconds")
    assert len(buckets) == 14
    assert buckets[0.0005] == 1 and buckets[0.001] == 3 and buckets[10.0] == 3 and buckets[float("inf")] == 4
    assert list(buckets.values()) == sorted(buckets.values())
    sizes = scrape.buckets("isthmus_response_size_bytes")
    assert sizes[256.0] == 0 and sizes[1024.0] == sizes[float("inf")] == 4
    assert scrape.buckets("isthmus_request_size_bytes")[256.0] == 4


def test_a_request_without_route_and_with_an_unknown_method_has_labels_too():
    fleet = Fleet()
    fleet.workers[0].request(WEB, 0, 0, 0, 404)
    fleet.workers[0].request(WEB, 0, 0, 77, 0)
    scrape = fleet.scrape()
    labels = {"listener": "web", "route": "", "cluster": "", "method": "OTHER"}
    assert scrape.get("isthmus_requests_total", **labels, code="404") == 1
    assert scrape.get("isthmus_requests_total", **labels, code="0") == 1


def test_scalars_are_summed_and_worker_gauges_are_shown_for_each_worker():
    fleet = Fleet(2)
    for slot, worker in fleet.workers.items():
        worker.bump(SCALARS.index("downstream_requests"), 10)
        worker.gauge(SCALARS.index("downstream_connections_active"), 4 + slot)
        worker.gauge(SCALARS.index("worker_loop_lag_seconds"), 1500 * (slot + 1))
        worker.gauge(SCALARS.index("worker_revision"), 8)
    scrape = fleet.scrape()
    assert scrape.get("isthmus_downstream_requests_total") == 20
    assert scrape.get("isthmus_downstream_connections_active") == 9
    assert scrape.get("isthmus_worker_loop_lag_seconds", worker="0") == pytest.approx(0.0015)
    assert scrape.get("isthmus_worker_loop_lag_seconds", worker="1") == pytest.approx(0.003)
    assert scrape.get("isthmus_worker_revision", worker="1") == 8


def test_clusters_have_counters_and_gauges():
    fleet = Fleet(2)
    fleet.workers[0].cluster(API, connects=2, requests=7, active=3, ejected=1)
    fleet.workers[1].cluster(API, connects=1, requests=1, active=1)
    fleet.workers[1].cluster(PARTNER, connects=9)
    scrape = fleet.scrape()
    assert scrape.get("isthmus_upstream_connects_total", cluster="api") == 3
    assert scrape.get("isthmus_upstream_requests_total", cluster="api") == 8
    assert scrape.get("isthmus_upstream_requests_active", cluster="api") == 4
    assert scrape.get("isthmus_upstream_endpoints_ejected", cluster="api") == 1
    assert scrape.get("isthmus_upstream_connects_total", cluster="partner") == 9
    assert scrape.rows("isthmus_upstream_connects_total") == [{"cluster": "api"}, {"cluster": "partner"}]


def test_every_word_of_a_cluster_series_has_its_own_metric():
    fleet = Fleet()
    fleet.workers[0].cluster(API)
    row = counters.read(fleet.blocks[0])[3][1]
    assert len(row) == 3 + len(metrics.CLUSTER_METRICS)
    at = fleet.blocks[0].find(struct.pack("<2Q", row[1], API))
    for i in range(len(metrics.CLUSTER_METRICS)):
        struct.pack_into("<Q", fleet.blocks[0], at + 16 + 8 * i, 100 + i)
    scrape = fleet.scrape()
    for i, metric in enumerate(metrics.CLUSTER_METRICS):
        assert scrape.get(metric.shown_name, cluster="api") == 100 + i


def test_faults_are_counted_by_name():
    fleet = Fleet(2)
    number = faults.NAMES.index("chunk_size")
    fleet.workers[0].fault(number)
    fleet.workers[1].fault(number)
    scrape = fleet.scrape()
    assert scrape.get("isthmus_faults_total", fault="chunk_size") == 2
    assert scrape.get("isthmus_faults_total", fault="none") is None
    assert len(scrape.rows("isthmus_faults_total")) == len(faults.NAMES) - 1


# ---- names ----


def test_series_of_a_removed_route_go_away_and_start_again_with_it():
    fleet = Fleet()
    fleet.workers[0].request(WEB, SHOP, API, GET, 200, times=5)
    assert fleet.scrape().get("isthmus_requests_total", **LABELS) == 5
    del fleet.names[SHOP]
    assert fleet.scrape().rows("isthmus_requests_total") == []
    fleet.workers[0].retire([WEB, API])
    assert fleet.scrape().rows("isthmus_request_duration_seconds_count") == []
    fleet.names[SHOP] = ("route", "shop")
    fleet.workers[0].request(WEB, SHOP, API, GET, 200, times=2)
    assert fleet.scrape().get("isthmus_requests_total", **LABELS) == 2


def test_a_removed_cluster_takes_its_gauges_with_it():
    fleet = Fleet()
    fleet.workers[0].cluster(API, active=3)
    fleet.workers[0].cluster(PARTNER, active=5)
    fleet.scrape()
    del fleet.names[PARTNER]
    fleet.workers[0].retire([WEB, SHOP, API])
    assert fleet.scrape().rows("isthmus_upstream_requests_active") == [{"cluster": "api"}]
    fleet.names.update(NAMES)
    assert fleet.scrape().get("isthmus_upstream_requests_active", cluster="partner") is None


def test_label_values_are_escaped():
    fleet = Fleet()
    fleet.names[SHOP] = ("route", 'a"b\\c\nd')
    fleet.workers[0].request(WEB, SHOP, API, GET, 200)
    assert fleet.scrape().rows("isthmus_requests_total")[0]["route"] == 'a"b\\c\nd'


# ---- the budget ----


def test_what_a_worker_could_not_tell_apart_is_shown_as_other():
    fleet = Fleet()
    fleet.names.update({1000 + i: ("route", f"r{i}") for i in range(10)})  # showing all 2047 would only take long
    for i in range(2100):
        fleet.workers[0].request(WEB, 1000 + i, API, GET, 200)
    scrape = fleet.scrape()
    assert [row["route"] for row in scrape.rows("isthmus_requests_total")] == ["_other", *(f"r{i}" for i in range(10))]
    assert scrape.get("isthmus_requests_total", **dict.fromkeys(LABELS, "_other")) == 2100 - 2047
    assert scrape.get("isthmus_requests_in_other_series_total") == 2100 - 2047


def test_workers_with_different_series_share_one_budget():
    fleet = Fleet(4, budget=10)
    fleet.names.update({1000 + i: ("route", f"r{i}") for i in range(40)})
    for i in range(40):
        fleet.workers[i // 10].request(WEB, 1000 + i, API, GET, 200, times=3)
    for _ in range(2):
        scrape = fleet.scrape()
        rows = scrape.rows("isthmus_requests_total")
        assert len(rows) <= 11
        assert sum(scrape.get("isthmus_requests_total", **row) for row in rows) == 120


def test_an_overflow_series_that_counted_nothing_is_not_shown():
    assert Fleet().scrape().rows("isthmus_requests_total") == []
    assert Fleet().scrape().rows("isthmus_upstream_connects_total") == []


# ---- workers that come and go ----


def counters_of(scrape):
    suffixes = ("_total", "_count", "_sum", "_bucket")
    return {key: value for key, value in scrape.samples.items() if key[0].endswith(suffixes)}


def assert_no_counter_went_back(scrapes):
    for before, after in itertools.pairwise(map(counters_of, scrapes)):
        for key, value in before.items():
            assert after[key] >= value, f"{key} went from {value} to {after[key]}"


@pytest.mark.parametrize("is_block_kept", [True, False], ids=["same block", "new block"])
@pytest.mark.parametrize("is_removed_first", [True, False], ids=["removed", "replaced"])
def test_no_counter_goes_back_when_a_worker_is_replaced(is_block_kept, is_removed_first):
    fleet = Fleet(2)
    fleet.workers[1].request(WEB, SHOP, API, GET, 200, times=3)
    scrapes = []
    for _ in range(4):
        fleet.workers[0].request(WEB, SHOP, API, GET, 200, times=100, bytes_out=10)
        fleet.workers[0].cluster(API, connects=10, active=5)
        fleet.workers[0].bump(SCALARS.index("downstream_requests"), 100)
        fleet.workers[0].gauge(SCALARS.index("downstream_connections_active"), 7)
        fleet.workers[0].fault(3)
        scrapes.append(fleet.scrape())
        fleet.workers[0].request(WEB, SHOP, API, GET, 200, times=7)  # counted after the last scrape, before the death
        if is_removed_first:
            fleet.collector.remove_worker(0)
            scrapes.append(fleet.scrape())
        fleet.start(0, fleet.blocks[0] if is_block_kept else None)
        scrapes.append(fleet.scrape())
        assert scrapes[-1].get("isthmus_downstream_connections_active") == 0
    assert_no_counter_went_back(scrapes)
    assert scrapes[-1].get("isthmus_requests_total", **LABELS) == 4 * 107 + 3
    assert scrapes[-1].get("isthmus_upstream_connects_total", cluster="api") == 40
    assert scrapes[-1].get("isthmus_downstream_requests_total") == 400
    assert scrapes[-1].get("isthmus_faults_total", fault=faults.NAMES[3]) == 4
    assert scrapes[-1].get("isthmus_upstream_requests_active", cluster="api") == 0


def test_a_zeroed_block_is_counted_from_zero_and_not_as_a_step_back():
    fleet = Fleet()
    fleet.workers[0].request(WEB, SHOP, API, GET, 200, times=50)
    scrapes = [fleet.scrape()]
    buffer = fleet.blocks[0]
    fleet.collector.remove_worker(0)
    buffer[:] = bytes(len(buffer))
    fleet.start(0, buffer).request(WEB, SHOP, API, GET, 200, times=60)
    scrapes.append(fleet.scrape())
    assert_no_counter_went_back(scrapes)
    assert scrapes[-1].get("isthmus_requests_total", **LABELS) == 110


def test_a_series_that_was_freed_and_claimed_again_does_not_go_back():
    fleet = Fleet(2)
    fleet.workers[0].request(WEB, SHOP, API, GET, 200, times=50)
    fleet.workers[1].request(WEB, SHOP, API, GET, 200, times=5)
    scrapes = [fleet.scrape()]
    fleet.workers[0].retire([])
    scrapes.append(fleet.scrape())
    fleet.workers[0].request(WEB, SHOP, API, GET, 200, times=80)
    scrapes.append(fleet.scrape())
    assert_no_counter_went_back(scrapes)
    assert scrapes[-1].get("isthmus_requests_total", **LABELS) == 135


def test_a_series_whose_place_another_key_took_stays_apart():
    fleet = Fleet()
    fleet.workers[0].request(WEB, SHOP, API, GET, 200, times=50)
    fleet.scrape()
    fleet.workers[0].retire([])
    fleet.workers[0].request(WEB, SHOP, API, POST, 500, times=3)
    scrape = fleet.scrape()
    assert scrape.get("isthmus_requests_total", **LABELS) == 50
    assert scrape.get("isthmus_requests_total", **{**LABELS, "method": "POST", "code": "500"}) == 3


def test_a_worker_is_up_until_it_is_removed_and_gone_when_forgotten():
    fleet = Fleet(2)
    fleet.facts.worker_memory.update({0: 1000, 1: 2000})
    assert [fleet.scrape().get("isthmus_worker_up", worker=slot) for slot in "01"] == [1, 1]
    fleet.collector.remove_worker(1)
    scrape = fleet.scrape()
    assert [scrape.get("isthmus_worker_up", worker=slot) for slot in "01"] == [1, 0]
    assert scrape.get("isthmus_worker_resident_memory_bytes", worker="0") == 1000
    assert scrape.get("isthmus_worker_resident_memory_bytes", worker="1") is None
    fleet.collector.forget_worker(1)
    fleet.collector.forget_worker(1)
    assert fleet.scrape().get("isthmus_worker_up", worker="1") is None


def test_a_worker_that_has_not_written_yet_counts_nothing():
    fleet = Fleet()
    fleet.collector.add_worker(1, block())
    fleet.workers[0].bump(SCALARS.index("downstream_requests"), 3)
    scrape = fleet.scrape()
    assert scrape.get("isthmus_downstream_requests_total") == 3
    assert scrape.get("isthmus_worker_up", worker="1") == 1
    assert scrape.get("isthmus_worker_revision", worker="1") is None


# ---- the control plane's own ----


def test_facts_of_the_control_plane():
    fleet = Fleet(clock=lambda: 1600.0)
    facts = fleet.facts
    facts.revision, facts.applied_at, facts.problems = 7, 1000.0, 2
    facts.is_last_reload_ok, facts.last_error_at = False, 1500.0
    facts.reloads_ok, facts.reloads_refused, facts.worker_restarts, facts.started_at = 3, 1, 5, 900.0
    scrape = fleet.scrape()
    assert scrape.get("isthmus_config_revision") == 7
    assert scrape.get("isthmus_config_age_seconds") == 600
    assert scrape.get("isthmus_config_last_reload_successful") == 0
    assert scrape.get("isthmus_config_last_success_timestamp_seconds") == 1000
    assert scrape.get("isthmus_config_last_error_timestamp_seconds") == 1500
    assert scrape.get("isthmus_config_reloads_total", result="applied") == 3
    assert scrape.get("isthmus_config_reloads_total", result="refused") == 1
    assert scrape.get("isthmus_config_problems") == 2
    assert scrape.get("isthmus_worker_restarts_total") == 5
    assert scrape.get("isthmus_start_time_seconds") == 900
    assert scrape.get("isthmus_build_info", version=__version__) == 1


def test_an_age_is_never_negative():
    fleet = Fleet(clock=lambda: 10.0)
    assert fleet.scrape().get("isthmus_config_age_seconds") == 0
    fleet.facts.applied_at = 20.0
    assert fleet.scrape().get("isthmus_config_age_seconds") == 0


def test_the_end_of_each_certificate_in_use_is_a_series():
    fleet = Fleet()
    fleet.facts.certificate_ends = {("web", "", "a.test", "EC"): 4e9, ("", "app", "", "RSA"): 5e9}
    scrape = fleet.scrape()
    name = "isthmus_certificate_expiry_timestamp_seconds"
    assert scrape.get(name, listener="web", cluster="", host="a.test", key="EC") == 4e9
    assert scrape.get(name, listener="", cluster="app", host="", key="RSA") == 5e9


def test_the_store_of_rate_limits_is_shown_when_there_is_one() -> None:
    fleet = Fleet()
    assert "isthmus_ratelimit_store_seconds" not in fleet.scrape().families
    buckets = [0] * (len(STORE_BOUNDS_US) + 1)
    buckets[1], buckets[-1] = 3, 1
    fleet.facts.store = StoreFacts(
        asks=90, round_trips=4, microseconds=2_500_000, buckets=buckets, errors={"timeout": 2, "oom": 1}, breakers=2,
        breakers_open=1, opened=5,
    )  # fmt: skip
    scrape = fleet.scrape()
    assert scrape.get("isthmus_ratelimit_store_seconds_count") == 4
    assert scrape.get("isthmus_ratelimit_store_seconds_sum") == 2.5
    assert scrape.get("isthmus_ratelimit_store_seconds_bucket", le="0.00025") == 3
    assert scrape.get("isthmus_ratelimit_store_calls_total") == 90
    assert scrape.get("isthmus_ratelimit_store_errors_total", kind="timeout") == 2
    assert scrape.get("isthmus_ratelimit_store_breakers_open") == 1
    assert scrape.get("isthmus_ratelimit_store_breaker_opened_total") == 5
