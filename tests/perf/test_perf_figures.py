"""The arithmetic of the benchmark: samples, paired ratios, verdicts, tables."""

import math

from perf.cells import ALL, TRAFFIC
from perf.figures import Bar, Sample, Verdict, cell_table, column, judge, markdown, median, orders, ratios, verdict_table


def sample(cost: float, *, done: int = 1000, errors: int = 0) -> Sample:
    return Sample(done, errors, cost * done / 4, cost * done * 3 / 4, 2.0)


def test_cost_is_user_and_system_over_answered_requests() -> None:
    one = Sample(done=200, errors=0, user_us=400.0, system_us=1600.0, seconds=0.01)
    assert one.cost == 10.0
    assert one.rate == 20000.0
    assert math.isclose(one.busy, 0.2)


def test_a_burst_without_answers_costs_nothing_that_can_be_compared() -> None:
    assert math.isnan(Sample(0, 5, 1.0, 1.0, 1.0).cost)
    assert ratios([Sample(0, 5, 1.0, 1.0, 1.0), sample(3)], [sample(2), sample(2)]) == [1.5]


def test_ratios_pair_the_rounds() -> None:
    """A round that was slow for both leaves the ratio alone; a ratio of medians would not."""
    ours, theirs = [sample(9), sample(90), sample(10)], [sample(10), sample(100), sample(8)]
    assert [round(r, 3) for r in ratios(ours, theirs)] == [0.9, 0.9, 1.25]
    verdict = judge("get40", Bar(1.0, "nginx"), ours, theirs)
    assert verdict.measured is not None and math.isclose(verdict.measured, 0.9)
    assert verdict.met is True


def test_a_figure_above_its_bar_is_missed_and_printed_so() -> None:
    verdict = judge("get40", Bar(0.95, "haproxy"), [sample(10)] * 5, [sample(10)] * 5)
    assert verdict.met is False
    assert "MISSED" in verdict_table([verdict])
    assert verdict.as_json()["met"] is False


def test_a_figure_on_its_bar_is_met() -> None:
    assert Verdict("idle", Bar(2048, unit="bytes"), 2048.0).met is True
    assert Verdict("reload", Bar(0, unit="failed"), 1.0).met is False


def test_a_missing_column_or_a_failed_request_leaves_no_verdict() -> None:
    bar = Bar(1.0, "nginx")
    for verdict in (
        judge("get40", bar, None, [sample(1)]),
        judge("get40", bar, [sample(1)], None),
        judge("get40", bar, [sample(1), sample(1, errors=1)], [sample(2), sample(2)]),
        judge("get40", bar, [sample(1), sample(1)], [sample(2), sample(2, errors=3)]),
        judge("get40", bar, [sample(1, done=0)], [sample(2)]),
    ):
        assert verdict.measured is None and verdict.met is None
        assert "not measured" in verdict_table([verdict])


def test_work_per_cpu_second_must_not_fall_below_its_bar() -> None:
    """12 us a handshake against 10: 0.83 times the handshakes for the same CPU time."""
    bar = Bar(0.90, "nginx", unit="handshakes per CPU second", least=True)
    missed = judge("tlshake", bar, [sample(12)] * 3, [sample(10)] * 3)
    assert missed.measured is not None and math.isclose(missed.measured, 10 / 12) and missed.met is False
    assert "handshakes per CPU second: >= 0.90 x nginx | 0.83     | MISSED" in verdict_table([missed])
    assert judge("tlshake", bar, [sample(11)] * 3, [sample(10)] * 3).met is True
    assert judge("tlshake", bar, [sample(5)] * 3, [sample(10)] * 3).met is True


def test_what_is_no_request_is_told_per_cpu_second() -> None:
    text = cell_table({"nginx": [sample(400)], "isthmus": [sample(500)]}, {}, "isthmus", "handshake")
    lines = text.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert "CPU us/handshake" in lines[0] and "handshakes/CPU s" in lines[0] and "p50" not in lines[0]
    assert "| 2,500 " in lines[2] and "| 2,000 " in lines[3]


def test_every_gateway_has_every_place_in_turn() -> None:
    rounds = orders(["a", "b", "c"], 6)
    assert rounds[:3] == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"]]
    assert all(sorted(names) == ["a", "b", "c"] for names in rounds)
    for place in range(3):
        assert sorted(names[place] for names in rounds) == ["a", "a", "b", "b", "c", "c"]
    assert orders([], 3) == []


def test_a_column_is_the_median_of_its_rounds() -> None:
    figures = column([sample(8), sample(12), sample(100, errors=2)])
    assert figures["cost_us"] == 12.0
    assert (figures["user_us"], figures["system_us"]) == (3.0, 9.0)
    assert figures["errors"] == 2
    assert math.isnan(median([]))


def test_tables_are_rectangular() -> None:
    text = cell_table({"nginx": [sample(10)], "isthmus": [sample(5)]}, {"nginx": {"p50_us": 90.0, "p99_us": 1234.0}}, "isthmus")
    lines = text.splitlines()
    assert len({len(line) for line in lines}) == 1 and len(lines) == 4
    assert "| 0.50 " in lines[2] and "1,234" in lines[2]
    assert markdown([["a", "b"], ["1", "22"]]) == "| a | b  |\n|---|----|\n| 1 | 22 |"


def test_cells_carry_the_bars_of_the_readme() -> None:
    bars = {(cell.key, bar.against): bar.limit for cell in TRAFFIC.values() for bar in cell.bars if not bar.least}
    assert bars == {
        ("get40", "nginx"): 1.00,
        ("get40", "haproxy"): 0.95,
        ("get40", "envoy"): 0.50,
        ("get10k", "nginx"): 1.00,
        ("get1m", "haproxy"): 1.00,
        ("put1m", "haproxy"): 1.00,
        ("close", "nginx"): 1.10,
        ("tls40", "nginx"): 0.95,
        ("tls40", "haproxy"): 0.95,
        ("tls10k", "nginx"): 1.00,
        ("tlsput1m", "nginx"): 1.05,
        ("h2get40", "haproxy"): 1.00,
        ("h2get40", "nginx"): 0.60,
        ("h2get40", "envoy"): 0.35,
        ("h2tls40", "haproxy"): 1.00,
        ("h2tls40", "nginx"): 0.60,
        ("h2tls40", "envoy"): 0.35,
        ("h2get10k", "haproxy"): 1.00,
        ("h2grpc", "haproxy"): 1.00,
        ("h2grpc", "envoy"): 0.50,
    }
    least = {(cell.key, bar.against): bar.limit for cell in TRAFFIC.values() for bar in cell.bars if bar.least}
    assert least == {("tlshake", "nginx"): 0.90}
    assert len(ALL) == len(set(ALL)) == 25
