"""The live numbers: sums over blocks, rates over a window, quantiles inside buckets."""

import pytest

from gateway._core.counters import DURATION_BOUNDS_US, SCALARS, CountersProbe, block_size
from gateway.supervisor.stats import BUCKETS, Sampler, quantile, take_sample

NAMES = {1: ("listener", "web"), 2: ("route", "shop"), 3: ("cluster", "api")}
SCALAR = {name: number for number, (name, _, _) in enumerate(SCALARS)}


def test_blocks_are_summed_and_an_unused_one_counts_nothing() -> None:
    blocks = [bytearray(block_size()) for _ in range(3)]
    first, second = CountersProbe(blocks[0]), CountersProbe(blocks[1])
    first.request(1, 2, 3, 1, 200, times=4, duration_us=700)
    first.request(1, 2, 3, 1, 404, times=2)
    second.request(1, 2, 3, 1, 503, times=1)
    second.request(1, 0, 0, 1, 404, times=5)
    first.gauge(SCALAR["downstream_connections_active"], 7)
    second.gauge(SCALAR["downstream_connections_active"], 5)
    first.cluster(3, requests=6, active=2)
    second.cluster(3, requests=1, active=1)
    sample = take_sample(blocks, 0.0)
    shop = sample.routes[(1, 2)]
    assert (shop.count, shop.c4xx, shop.c5xx) == (7, 2, 1)
    assert sample.routes[(1, 0)].c4xx == 5 and sample.total.count == 12
    assert sample.scalars["downstream_connections_active"] == 12
    row = Sampler(lambda: blocks, lambda: NAMES).numbers()["cluster_sums"][3]
    assert row["requests"] == 7 and row["active"] == 3


def test_rates_look_back_over_the_window_and_names_come_from_the_configuration() -> None:
    block = bytearray(block_size())
    probe = CountersProbe(block)
    sampler = Sampler(lambda: [block], lambda: NAMES)
    sampler.tick(100.0)
    for second in range(1, 16):
        probe.request(1, 2, 3, 1, 200, times=20, duration_us=2_000)
        probe.request(1, 2, 3, 1, 500, times=5, duration_us=2_000)
        sampler.tick(100.0 + second)
    numbers = sampler.numbers(115.0)
    assert numbers["totals"]["requests"] == 375
    assert numbers["totals"]["requests_per_s"] == 25 and numbers["totals"]["errors_per_s"] == 5
    assert numbers["history"] == [25.0] * 15
    (row,) = numbers["routes"]
    assert row["route"] == "shop" and row["listener"] == "web" and row["requests_per_s"] == 25
    assert 1.0 <= row["p50_ms"] <= 2.5 and row["p50_ms"] < row["p99_ms"]


def test_a_route_that_went_away_makes_no_negative_rate() -> None:
    block = bytearray(block_size())
    probe = CountersProbe(block)
    sampler = Sampler(lambda: [block], lambda: NAMES)
    probe.request(1, 2, 3, 1, 200, times=1000)
    sampler.tick(0.0)
    probe.retire([1])
    sampler.tick(1.0)
    numbers = sampler.numbers(1.0)
    assert numbers["totals"]["requests_per_s"] == 0 and numbers["history"] == [0.0]
    assert numbers["totals"]["p99_ms"] is None


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99, 1.0])
def test_no_observation_has_no_quantile(share: float) -> None:
    assert quantile([0] * BUCKETS, share) is None


def test_a_quantile_lies_inside_its_bucket() -> None:
    buckets = [0] * BUCKETS
    buckets[2] = 100
    low, high = DURATION_BOUNDS_US[1] / 1000, DURATION_BOUNDS_US[2] / 1000
    assert quantile(buckets, 0.5) == pytest.approx((low + high) / 2)
    assert quantile(buckets, 1.0) == pytest.approx(high)
    buckets[-1] = 300
    assert quantile(buckets, 0.99) == DURATION_BOUNDS_US[-1] / 1000
