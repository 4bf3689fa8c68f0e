"""The yardstick of rate limits: what is right of requests that were really sent, and the verdict on what was let through."""

import itertools
import math
import random

import pytest

from perf.allowance import Account, Bucket
from perf.bench import parse_options
from perf.limits import ACCURACY, BURST, CASES, MOST_DOUBT, PATTERNS, RATE, Seen, judge_accuracy, next_burst

Rows = list[tuple[float, float]]
BUCKET = Bucket(200, 220)


def flood(begin: float, end: float, *, step: float = 0.001, took: float = 0.0) -> Rows:
    return [(begin + i * step, took) for i in range(round((end - begin) / step))]


def both(rows: Rows, bucket: Bucket = BUCKET) -> tuple[int, int]:
    return bucket.least(rows), bucket.most(rows)


def test_a_full_bucket_goes_first_and_then_its_rate() -> None:
    # 220 at once, and one more every 5 ms of the second.
    assert both(flood(0, 1)) == (220 + 199, 220 + 199)
    assert both(flood(7e5, 7e5 + 10)) == (220 + 1999, 220 + 1999)


def test_nobody_is_let_through_who_never_asked() -> None:
    """The load generator stood still for most of a burst: what it sent is all that can be right."""
    assert both(flood(0, 0.05) + flood(0.19, 0.2)) == (60, 60)
    assert both([(3.0, 0.0)]) == (1, 1)
    assert both([]) == (0, 0)


def test_a_bucket_that_is_full_gains_nothing_while_nobody_asks() -> None:
    # 500 ms gain the 100 that are gone; two seconds more gain nothing.
    rows = [(0.0, 0.0)] * 100 + [(2.5, 0.0)] * 300
    assert both(rows) == (320, 320)
    # 50 ms gain ten.
    assert both([(0.0, 0.0)] * 300 + [(0.05, 0.0)] * 300) == (230, 230)


def test_the_order_of_the_rows_does_not_matter() -> None:
    rows = flood(0, 0.5, took=0.003)
    shuffled = rows[:]
    random.Random(1).shuffle(shuffled)
    assert both(shuffled) == both(rows)


def test_quick_answers_leave_no_doubt_and_slow_ones_do() -> None:
    least, most = both(flood(0, 0.2, step=0.0001, took=0.0003))
    assert most - least <= 1
    # The store stood still for 100 ms: whether the full bucket overflowed meanwhile, or was asked before, nobody outside can know.
    held = [(0.0, 0.1)] * 32 + flood(0.1, 0.2, step=0.0001, took=0.0003)
    least, most = both(held)
    assert (least, most) == (220 + 19, 220 + 40)
    # And at the end: it may be asked late.
    least, most = both([*flood(0, 0.1, step=0.0001), *[(0.1, 0.1)] * 32])
    assert (least, most) == (220 + 20, 220 + 40)


def test_somebody_who_waits_gets_a_token_only_before_the_answer() -> None:
    one = Bucket(1, 1)
    assert one.most([(0.0, 0.0), (0.0, 0.9)]) == 1
    assert one.most([(0.0, 0.0), (0.0, 1.0)]) == 2
    # Who is answered first is first, though he came later.
    assert one.most([(0.0, 0.0), (0.1, 5.0), (0.2, 0.8)]) == 3


def count(times: list[int], capacity: int) -> int:
    """The same limit as a bucket of whole tokens on a clock of whole seconds, one more each second."""
    tokens, last, passed = capacity, times[0], 0
    for at in times:
        tokens, last = min(capacity, tokens + at - last), at
        if tokens:
            tokens, passed = tokens - 1, passed + 1
    return passed


@pytest.mark.parametrize("seed", range(60))
def test_both_ends_are_those_of_all_moments_at_which_it_may_have_been_decided(seed: int) -> None:
    """Every request decided at every second between its sending and its answer, in every combination."""
    dice = random.Random(seed)
    rows = [(dice.randrange(8), dice.randrange(4)) for _ in range(5)]
    capacity = dice.randrange(1, 4)
    possible = {
        count(sorted(times), capacity)
        for times in itertools.product(*(range(sent, sent + took + 1) for sent, took in rows))
    }  # fmt: skip
    least, most = both([(float(sent), float(took)) for sent, took in rows], Bucket(1, capacity))
    assert most == max(possible)
    assert least in possible


def test_the_share_is_of_the_nearer_end() -> None:
    assert Account(asked=900, allowed=198, least=200, most=210).share == 99.0
    assert Account(asked=900, allowed=205, least=200, most=210).share == 100.0
    assert Account(asked=900, allowed=231, least=200, most=210).share == pytest.approx(110)
    assert Account(asked=900, allowed=0, least=200, most=210).share == 0.0
    assert Account(asked=900, allowed=205, least=200, most=210).doubt == 5.0
    assert math.isnan(Account().share) and math.isnan(Account().doubt)


def test_bursts_are_added_up_each_with_a_full_bucket() -> None:
    account = Account()
    account.add(BUCKET, flood(0, 0.2), allowed=250)
    account.add(BUCKET, flood(0.2, 0.4), allowed=259)
    # 200 asked, all of which were right; twice
    assert account == Account(asked=400, allowed=509, least=400, most=400)
    assert account.share > 125


@pytest.mark.parametrize(("rate", "share"), [(190, 95), (210, 105), (200, 100)])
def test_a_limit_of_another_rate_is_found_out(rate: int, share: float) -> None:
    rows = flood(0, 30, took=0.0005)
    account = Account()
    account.add(BUCKET, rows, allowed=Bucket(rate, rate + 20).least(rows))
    assert account.share == pytest.approx(share, abs=0.1)


def row(case: str, share: float, *, doubt: float = 0.1, failed: int = 0) -> dict[str, object]:
    return {"case": case, "share": share, "doubt": doubt, "failed": failed}


def test_the_worst_run_of_a_mode_counts_on_either_side() -> None:
    few, many = judge_accuracy("strict", [row("a", 100.5), row("b", 99.7), row("c", 103.0)])
    assert few.measured == pytest.approx(0.3) and few.met is False
    assert many.measured == pytest.approx(3.0) and many.met is False
    few, many = judge_accuracy("leased", [row("a", 98.5), row("b", 101.0)])
    assert few.measured == pytest.approx(1.5) and few.met is True
    assert many.measured == pytest.approx(1.0) and many.met is True
    assert ACCURACY == {"strict": (100.0, 102.0), "leased": (98.0, 102.0)}


def test_runs_that_failed_or_cannot_tell_have_no_verdict() -> None:
    vague, silent = row("a", 100, doubt=MOST_DOUBT + 0.1), row("a", math.nan, doubt=math.nan)
    for rows in ([], [row("a", 100), row("b", 100, failed=1)], [vague], [silent]):
        assert [verdict.met for verdict in judge_accuracy("strict", rows)] == [None, None]
    few, _ = judge_accuracy("strict", [row("quiet", 100), row("held", 100, doubt=9)])
    assert few.note.endswith(": held")


def test_aligned_bursts_lie_over_a_full_second_and_are_not_too_near() -> None:
    for now in (1000.0, 1000.5, 1000.89, 1000.9005, 1000.95):
        at = next_burst("aligned", 0.0, now)
        assert at % 1 == pytest.approx(0.9) and now - 0.002 <= at < now + 1
    begins = [next_burst("aligned", 0.0, 1_795_985_461.3)]
    for _ in range(100):
        begins.append(next_burst("aligned", begins[-1] + 2.0, begins[-1] + 0.4))
    assert {round(b - a, 6) for a, b in itertools.pairwise(begins)} == {2.0}
    # One that took too long shifts the rest.
    assert next_burst("aligned", 1002.9, 1003.4) == pytest.approx(1003.9)
    assert next_burst("bursty", 1002.9, 1001.0) == 1002.9 and next_burst("bursty", 1002.9, 1004.0) == 1004.0


def test_between_two_bursts_the_bucket_becomes_full() -> None:
    for pattern in PATTERNS.values():
        if pattern:
            length, period = pattern
            assert period - length >= (RATE + BURST) / RATE


def test_each_case_can_be_run_alone() -> None:
    assert len(CASES) == len(set(CASES)) == 18
    assert parse_options([]).limit_cases == CASES
    assert parse_options(["--limit-cases", "strict-2-aligned,leased-1-bursty"]).limit_cases == CASES[5:6] + CASES[10:11]
    with pytest.raises(SystemExit):
        parse_options(["--limit-cases", "strict-3-aligned"])


def test_latencies_are_those_of_requests_that_began_in_time() -> None:
    seen = Seen(latencies=[(float(i), i / 1000) for i in range(200)])
    assert seen.p99_ms() == 198.0
    assert seen.p99_ms(0, 100) == 99.0
    assert math.isnan(seen.p99_ms(500))
