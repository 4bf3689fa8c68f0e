"""Which endpoint takes the next attempt, and which endpoints are out for a while."""

from collections import Counter

import pytest

from gateway._core.balance import BalancerProbe, hash64

ROUND_ROBIN, LEAST_REQUEST, RANDOM, CONSISTENT_HASH = range(4)
POLICIES = [ROUND_ROBIN, LEAST_REQUEST, RANDOM, CONSISTENT_HASH]
NAMES = {ROUND_ROBIN: "round-robin", LEAST_REQUEST: "least-request", RANDOM: "random", CONSISTENT_HASH: "consistent-hash"}
every_policy = pytest.mark.parametrize("policy", POLICIES, ids=NAMES.get)


def address(i):
    return b"10.0.%d.%d:8080" % (i >> 8, i & 255)


def balancer(policy, weights, **options):
    probe = BalancerProbe(policy, **options)
    probe.replace([(address(i), weight) for i, weight in enumerate(weights)])
    return probe


def picks(probe, n, **options):
    return [probe.pick(key=b"user-%d" % i, **options) for i in range(n)]


def keep_failing(probe, index, times, now=0):
    return [probe.failure(index, now) for _ in range(times)]


# ---- who is asked for by address ----


@every_policy
def test_an_address_is_found_while_it_can_be_used(policy):
    probe = balancer(policy, [1, 1, 0, 1] * 30, errors=1, ejection_ms=1000)
    assert [probe.keep(address(i)) for i in range(120)] == [-1 if i % 4 == 2 else i for i in range(120)]
    assert probe.keep(b"10.1.1.1:80") == -1 and probe.keep(address(1), tried=[1]) == -1
    probe.set(3, is_up=False)
    assert probe.keep(address(3)) == -1
    probe.failure(4, 0)
    assert probe.keep(address(4), now=10) == -1 and probe.keep(address(4), now=2000) == 4


def test_an_address_is_found_in_the_set_of_now():
    probe = balancer(RANDOM, [1, 1])
    assert probe.keep(address(1)) == 1
    probe.replace([(address(1), 1), (address(7), 1)])
    assert [probe.keep(address(i)) for i in (0, 1, 7)] == [-1, 0, 1]
    probe.replace([])
    assert probe.keep(address(1)) == -1


# ---- weights ----


@every_policy
@pytest.mark.parametrize("weights", [[1, 1], [9, 1], [3, 1, 1, 5], [1] * 10, [1000000, 500000, 250000], [1, 2] * 30])
def test_each_endpoint_gets_its_share(policy, weights):
    n = 40000
    counts = Counter(picks(balancer(policy, weights), n))
    for index, weight in enumerate(weights):
        # The five points of the Gateway API's conformance suite would be generous; one is kept.
        assert counts[index] / n == pytest.approx(weight / sum(weights), abs=0.01)


def test_round_robin_is_smooth():
    assert picks(balancer(ROUND_ROBIN, [5, 1, 1]), 7) == [0, 0, 1, 0, 2, 0, 0]


def test_round_robin_is_nearly_smooth_for_many_endpoints_too():
    weights = [1, 2, 5] * 100
    probe = balancer(ROUND_ROBIN, weights)
    rounds = [Counter(picks(probe, sum(weights))) for _ in range(20)]
    for index, weight in enumerate(weights):
        assert all(abs(counts[index] - weight) <= 2 for counts in rounds)
        assert abs(sum(counts[index] for counts in rounds) - 20 * weight) <= 3


def test_a_dead_endpoint_among_many_gives_its_turns_to_all():
    probe = balancer(ROUND_ROBIN, [1, 2] * 50)
    probe.set(7, is_up=False)
    counts = Counter(picks(probe, 14800))
    assert counts[7] == 0
    assert all(abs(counts[i] - 100 * (1 + i % 2)) <= 15 for i in range(100) if i != 7)


def test_equal_weights_rotate():
    order = picks(balancer(ROUND_ROBIN, [7, 7, 7, 7]), 12)
    assert sorted(order[:4]) == [0, 1, 2, 3]
    assert order[:4] == order[4:8] == order[8:]


def test_the_turn_of_a_dead_endpoint_does_not_fall_to_its_neighbour():
    probe = balancer(ROUND_ROBIN, [1] * 5)
    probe.set(2, is_up=False)
    counts = Counter(picks(probe, 4000))
    assert counts[2] == 0
    assert max(counts.values()) - min(counts[i] for i in (0, 1, 3, 4)) <= 4


@every_policy
def test_weight_zero_takes_no_traffic(policy):
    assert set(picks(balancer(policy, [1, 0, 1]), 2000)) == {0, 2}
    assert set(picks(balancer(policy, [0, 0]), 10)) == {-1}


@every_policy
def test_without_endpoints_there_is_no_pick(policy):
    assert BalancerProbe(policy).pick(key=b"k") == -1
    assert balancer(policy, []).pick(key=b"k") == -1


@every_policy
def test_an_only_endpoint_is_picked_again_even_if_tried(policy):
    assert balancer(policy, [3]).pick(key=b"k", tried=[0]) == 0


# ---- least request ----


def test_least_request_prefers_the_less_busy_of_two():
    probe = balancer(LEAST_REQUEST, [1, 1])
    probe.set(0, active=10)
    probe.set(1, active=3)
    counts = Counter(picks(probe, 2000))
    # The second draw misses the other one of two in 1 of 16 cases at most.
    assert counts[1] > 1800


def test_least_request_weighs_active_by_weight():
    probe = balancer(LEAST_REQUEST, [10, 1])
    probe.set(0, active=20)  # 2 a weight
    probe.set(1, active=3)  # 3 a weight
    assert Counter(picks(probe, 2000))[0] > 1800
    probe.set(0, active=40)  # 4 a weight
    assert Counter(picks(probe, 2000))[1] > 600


def test_least_request_evens_out_what_is_in_flight():
    probe = balancer(LEAST_REQUEST, [1] * 20)
    for _ in range(4000):
        index = probe.pick()
        probe.set(index, active=probe.state(index)["active"] + 1)
    active = [probe.state(i)["active"] for i in range(20)]
    # One random choice would spread 4000 over 20 with a range of about 50; two choices keep it within a few.
    assert max(active) - min(active) <= 8


def test_huge_counts_do_not_overflow():
    probe = balancer(LEAST_REQUEST, [2**32 - 1, 2**32 - 1])
    probe.set(0, active=2**32 - 1)
    assert Counter(picks(probe, 100))[1] > 80


# ---- consistent hash ----


def test_a_key_stays_with_its_endpoint():
    probe = balancer(CONSISTENT_HASH, [1] * 10)
    before = picks(probe, 500)
    assert picks(probe, 500) == before
    assert len(set(before)) == 10


def test_workers_agree_whatever_the_order_of_the_endpoints():
    endpoints = [(address(i), 1 + i % 3) for i in range(12)]
    one = BalancerProbe(CONSISTENT_HASH, seed=1)
    one.replace(endpoints)
    other = BalancerProbe(CONSISTENT_HASH, seed=99)
    other.replace(endpoints[::-1])
    for i in range(1000):
        key = b"user-%d" % i
        assert endpoints[one.pick(key=key)] == endpoints[::-1][other.pick(key=key)]


def test_removing_one_of_ten_moves_few_keys():
    probe = balancer(CONSISTENT_HASH, [1] * 10)
    before = picks(probe, 10000)
    probe.replace([(address(i), 1) for i in range(10) if i != 4])
    names = [i for i in range(10) if i != 4]
    after = [names[index] for index in picks(probe, 10000)]
    moved = sum(a != b for a, b in zip(before, after, strict=True))
    assert moved >= before.count(4)
    assert moved < 1500


def test_only_the_keys_of_a_dead_endpoint_move_and_they_spread():
    probe = balancer(CONSISTENT_HASH, [1] * 10)
    before = picks(probe, 10000)
    probe.set(4, is_up=False)
    after = picks(probe, 10000)
    assert all(a == b for a, b in zip(before, after, strict=True) if a != 4)
    heirs = Counter(b for a, b in zip(before, after, strict=True) if a == 4)
    assert len(heirs) == 9 and max(heirs.values()) < 0.3 * before.count(4)


@pytest.mark.parametrize("n, size", [(1, 5003), (64, 5003), (65, 16381), (256, 16381), (257, 65537), (1500, 655373)])
def test_the_table_grows_with_the_endpoints_and_is_even(n, size):
    table = balancer(CONSISTENT_HASH, [1] * n).table()
    counts = Counter(table)
    assert len(table) == size and len(counts) == n
    assert max(counts.values()) - min(counts.values()) <= 1


def test_without_a_key_the_pick_is_random():
    probe = balancer(CONSISTENT_HASH, [1] * 4)
    assert Counter(probe.pick() for _ in range(4000)).keys() == {0, 1, 2, 3}


def test_with_all_but_one_down_every_key_finds_it():
    probe = balancer(CONSISTENT_HASH, [1] * 60)
    for i in range(59):
        probe.set(i, is_up=False)
    assert set(picks(probe, 500)) == {59}


def test_a_policy_can_change_under_a_live_set():
    probe = balancer(ROUND_ROBIN, [1] * 4)
    probe.configure(CONSISTENT_HASH)
    assert len({probe.pick(key=b"same") for _ in range(20)}) == 1
    probe.configure(RANDOM)
    assert probe.table() == []
    assert len({probe.pick(key=b"same") for _ in range(200)}) == 4


def test_the_hash_is_the_same_on_every_machine():
    assert hash64(b"") == 0
    # A change of these values would move every key of every running fleet at the next upgrade.
    assert hash64(b"a") == 0xFB761138E1E0A78C
    assert hash64(b"10.0.0.1:8080") == 0x06457D46C9D17873
    assert hash64(b"0123456789abcdef0") == 0xD21F5CDA15D4BD7C
    assert len({hash64(bytes([i]) * n) for i in range(256) for n in range(1, 40)}) == 256 * 39


# ---- tried, down, ejected ----


@every_policy
def test_a_tried_endpoint_waits_until_all_usable_ones_were_tried(policy):
    probe = balancer(policy, [5, 1, 1])
    for _ in range(200):
        assert probe.pick(key=b"k", tried=[0, 1]) == 2
        assert probe.pick(key=b"k", tried=[0, 1, 2]) in (0, 1, 2)
    probe.set(2, is_up=False)
    for _ in range(200):
        assert probe.pick(key=b"k", tried=[0]) == 1
        assert probe.pick(key=b"k", tried=[0, 1]) in (0, 1)


@every_policy
def test_an_endpoint_that_is_down_is_never_picked(policy):
    probe = balancer(policy, [1, 1, 1])
    probe.set(0, is_up=False)
    assert set(picks(probe, 500)) == {1, 2}
    probe.set(1, is_up=False)
    probe.set(2, is_up=False)
    assert set(picks(probe, 20)) == {-1}
    probe.set(1, is_up=True)
    assert set(picks(probe, 20)) == {1}


def test_consecutive_failures_eject_and_time_brings_back():
    probe = balancer(ROUND_ROBIN, [1] * 4, errors=3, ejection_ms=1000)
    assert keep_failing(probe, 1, 2) == [False, False]
    probe.success(1)  # the row is broken
    assert keep_failing(probe, 1, 3, now=10) == [False, False, True]
    assert set(picks(probe, 100, now=1009)) == {0, 2, 3}
    assert probe.ejected(1009) == 1
    assert set(picks(probe, 100, now=1010)) == {0, 1, 2, 3}
    assert probe.ejected(1010) == 0


def test_failures_during_an_ejection_count_for_nothing():
    probe = balancer(ROUND_ROBIN, [1] * 4, errors=2, ejection_ms=1000)
    keep_failing(probe, 0, 2)
    assert keep_failing(probe, 0, 10, now=500) == [False] * 10
    assert probe.state(0)["until_ms"] == 1000
    assert keep_failing(probe, 0, 2, now=1000) == [False, True]


def test_each_ejection_in_a_row_lasts_twice_as_long_up_to_a_bound():
    probe = balancer(ROUND_ROBIN, [1] * 4, errors=1, ejection_ms=100)
    now = 0
    lasted = []
    for _ in range(8):
        assert probe.failure(0, now)
        lasted.append(probe.state(0)["until_ms"] - now)
        now = probe.state(0)["until_ms"]
    assert lasted == [100, 200, 400, 800, 1600, 3200, 3200, 3200]


def test_a_good_spell_is_remembered():
    probe = balancer(ROUND_ROBIN, [1] * 4, errors=1, ejection_ms=100)
    for _ in range(3):
        probe.failure(0, probe.state(0)["until_ms"])
    end = probe.state(0)["until_ms"]
    assert probe.failure(0, end + 200)  # two steps forgiven of three
    assert probe.state(0)["until_ms"] - (end + 200) == 200
    end = probe.state(0)["until_ms"]
    assert probe.failure(0, end + 100000)
    assert probe.state(0)["until_ms"] - (end + 100000) == 100


@pytest.mark.parametrize(
    "n, percent, most", [(10, 50, 5), (10, 10, 1), (3, 50, 1), (2, 50, 1), (2, 49, 0), (4, 100, 3), (1, 100, 0)]
)
def test_ejection_never_takes_more_than_the_percentage_and_never_the_last(n, percent, most):
    probe = balancer(ROUND_ROBIN, [1] * n, errors=1, percent=percent)
    assert [probe.failure(i, 5) for i in range(n)].count(True) == most
    assert probe.ejected(5) == most
    assert probe.pick(now=5) != -1


def test_the_last_endpoint_that_is_up_is_not_ejected():
    probe = balancer(ROUND_ROBIN, [1, 1, 0], errors=1, percent=100)
    probe.set(1, is_up=False)
    assert not probe.failure(0, 0)


@every_policy
def test_an_ejected_endpoint_is_better_than_none(policy):
    probe = balancer(policy, [1, 1], errors=1)
    assert probe.failure(0, 0)
    probe.set(1, is_up=False)
    assert set(picks(probe, 20, now=1)) == {0}


def test_ejection_can_be_off():
    probe = balancer(ROUND_ROBIN, [1, 1], errors=0)
    assert keep_failing(probe, 0, 100) == [False] * 100


def test_indexes_of_an_older_set_are_ignored():
    probe = balancer(ROUND_ROBIN, [1, 1], errors=1)
    probe.success(7)
    assert not probe.failure(7, 0)


# ---- replacing the set ----


@every_policy
def test_endpoints_that_stay_keep_their_state(policy):
    probe = balancer(policy, [1] * 4, errors=1)
    probe.failure(2, 0)
    probe.set(3, active=7)
    probe.set(1, is_up=False)
    probe.replace([(address(9), 1), (address(3), 5), (address(2), 1), (address(1), 1)])
    assert probe.state(0)["active"] == 0 and probe.state(0)["is_up"]
    assert probe.state(1)["active"] == 7 and probe.state(1)["weight"] == 5
    assert probe.state(2)["is_ejected"]
    assert not probe.state(3)["is_up"]
    assert set(picks(probe, 500, now=1)) == {0, 1}


def test_the_state_of_an_address_that_stands_twice_is_inherited_once():
    probe = balancer(ROUND_ROBIN, [1, 1])
    probe.set(0, active=5)
    probe.replace([(address(0), 1), (address(0), 1), (address(1), 1)])
    assert [probe.state(i)["active"] for i in range(3)] == [5, 0, 0]


def test_an_emptied_set_can_be_filled_again():
    probe = balancer(CONSISTENT_HASH, [1, 1])
    probe.replace([])
    assert probe.pick(key=b"k") == -1
    probe.replace([(address(0), 1)])
    assert probe.pick(key=b"k") == 0
