"""The block of counters that a worker writes and the supervisor reads."""

import mmap
import struct
import subprocess
import sys

import pytest

from gateway._core import counters
from gateway._core.counters import CountersProbe, read

GET, POST = 1, 3
SERIES_BUDGET, CLUSTER_BUDGET = 2048, 512
NAMES = [name for name, _, _ in counters.SCALARS]
LISTENER, ROUTE, CLUSTER = 0xA1, 0xB2, 0xC3
# Offsets in a row of read(): index, state, then the words of the struct.
KEY, COUNT, DURATION_SUM, IN_SUM, OUT_SUM, DURATIONS, SIZES_IN, SIZES_OUT = 2, 6, 7, 8, 9, 10, 24, 32


@pytest.fixture
def block():
    return bytearray(counters.block_size())


def requests(block):
    return {row[KEY : KEY + 4]: row for row in read(block)[4]}


def test_the_tables_of_names_and_bounds_fit_the_words():
    assert len(NAMES) == len(set(NAMES)) > 30
    assert {kind for _, kind, _ in counters.SCALARS} == {"counter", "gauge", "worker"}
    assert len(counters.DURATION_BOUNDS_US) == 13 and len(counters.SIZE_BOUNDS) == 7
    assert sorted(set(counters.DURATION_BOUNDS_US)) == list(counters.DURATION_BOUNDS_US)
    assert sorted(set(counters.SIZE_BOUNDS)) == list(counters.SIZE_BOUNDS)


def test_a_block_that_nobody_wrote_reads_as_nothing(block):
    assert read(block) is None


def test_a_fresh_block_has_the_overflow_series_and_nothing_else(block):
    CountersProbe(block)
    _, scalars, faults, clusters, series, limits = read(block)
    assert len(limits) == 1
    assert not any(scalars) and not any(faults)
    assert [row[0] for row in clusters] == [0] and [row[0] for row in series] == [0]
    assert clusters[0][1] & 0xFF == series[0][1] & 0xFF == 2


@pytest.mark.parametrize("n", [0, 1, 1000])
def test_a_short_block_is_refused(n):
    with pytest.raises(ValueError, match="bytes"):
        CountersProbe(bytearray(n))
    with pytest.raises(ValueError, match="bytes"):
        read(bytearray(n))


def test_a_read_only_or_misaligned_block_is_refused(block):
    with pytest.raises(ValueError, match="read-only"):
        CountersProbe(bytes(block))
    with pytest.raises(ValueError, match="aligned"):
        CountersProbe(memoryview(bytearray(len(block) + 8))[1:])


def test_a_block_of_another_layout_is_refused_by_both_sides(block):
    CountersProbe(block)
    for offset in (0, 8):  # magic, layout
        other = bytearray(block)
        other[offset + 7] ^= 0x40
        with pytest.raises(ValueError, match="another version"):
            read(other)
        with pytest.raises(ValueError, match="another version"):
            CountersProbe(other)


def test_scalars_and_faults_land_in_their_words(block):
    probe = CountersProbe(block)
    for i in range(len(NAMES)):
        probe.bump(i, i + 1)
    probe.fault(3)
    probe.fault(3)
    _, scalars, faults, *_ = read(block)
    assert scalars == tuple(range(1, len(NAMES) + 1))
    assert faults[3] == 2 and sum(faults) == 2


def test_a_block_of_shared_memory_is_read_through_another_mapping(tmp_path):
    path = tmp_path / "block"
    path.write_bytes(bytes(counters.block_size()))
    with path.open("r+b") as file:
        mine = mmap.mmap(file.fileno(), 0)
        theirs = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    probe = CountersProbe(mine)
    probe.bump(4, 7)
    assert read(theirs)[1][4] == 7


# ---- request series ----


def test_a_request_is_counted_with_its_sums_and_buckets(block):
    probe = CountersProbe(block)
    probe.request(LISTENER, ROUTE, CLUSTER, GET, 200, duration_us=700, bytes_in=10, bytes_out=5000)
    probe.request(LISTENER, ROUTE, CLUSTER, GET, 200, duration_us=2_000_000, bytes_in=0, bytes_out=257)
    row = requests(block)[LISTENER, ROUTE, CLUSTER, GET << 16 | 200]
    assert row[COUNT] == 2
    assert row[DURATION_SUM] == 2_000_700 and row[IN_SUM] == 10 and row[OUT_SUM] == 5257
    assert row[DURATIONS : DURATIONS + 14] == (0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0)
    assert row[SIZES_IN : SIZES_IN + 8] == (2, 0, 0, 0, 0, 0, 0, 0)
    assert row[SIZES_OUT : SIZES_OUT + 8] == (0, 1, 0, 1, 0, 0, 0, 0)


def test_a_bound_belongs_to_its_own_bucket_and_what_is_above_to_the_last(block):
    probe = CountersProbe(block)
    for bound in counters.DURATION_BOUNDS_US:
        probe.request(1, 1, 1, GET, 200, duration_us=bound)
    probe.request(1, 1, 1, GET, 200, duration_us=counters.DURATION_BOUNDS_US[-1] + 1)
    for bound in counters.SIZE_BOUNDS:
        probe.request(2, 2, 2, GET, 200, bytes_in=bound, bytes_out=bound)
    probe.request(2, 2, 2, GET, 200, bytes_in=2**40, bytes_out=2**40)
    rows = requests(block)
    assert rows[1, 1, 1, GET << 16 | 200][DURATIONS : DURATIONS + 14] == (1,) * 14
    assert rows[2, 2, 2, GET << 16 | 200][SIZES_IN : SIZES_IN + 8] == (1,) * 8
    assert rows[2, 2, 2, GET << 16 | 200][SIZES_OUT : SIZES_OUT + 8] == (1,) * 8


def test_every_part_of_the_key_makes_a_series_of_its_own(block):
    probe = CountersProbe(block)
    keys = [
        (1, 1, 1, GET, 200),
        (2, 1, 1, GET, 200),
        (1, 2, 1, GET, 200),
        (1, 1, 2, GET, 200),
        (1, 1, 1, POST, 200),
        (1, 1, 1, GET, 404),
    ]
    first = [probe.request(*key) for key in keys]
    assert len(set(first)) == len(keys)
    assert [probe.request(*key) for key in reversed(keys)] == first[::-1]
    assert [row[COUNT] for row in requests(block).values() if row[0]] == [2] * len(keys)


def test_a_request_without_ids_is_not_the_overflow_series(block):
    probe = CountersProbe(block)
    assert probe.request(0, 0, 0, 0, 0) != 0
    assert requests(block)[0, 0, 0, 0][COUNT] == 1


def test_beyond_the_budget_requests_are_counted_in_other(block):
    probe = CountersProbe(block)
    for route in range(SERIES_BUDGET + 50):
        probe.request(LISTENER, route + 1, CLUSTER, GET, 200)
    rows = read(block)[4]
    assert len(rows) == SERIES_BUDGET
    assert rows[0][1] & 0xFF == 2 and rows[0][COUNT] == 51
    assert sum(row[COUNT] for row in rows) == SERIES_BUDGET + 50
    assert read(block)[1][NAMES.index("requests_in_other_series")] == 51
    # What has a series keeps it.
    probe.request(LISTENER, 1, CLUSTER, GET, 200)
    assert requests(block)[LISTENER, 1, CLUSTER, GET << 16 | 200][COUNT] == 2


# ---- cluster series ----


def test_cluster_series_have_counters_and_gauges(block):
    probe = CountersProbe(block)
    assert probe.cluster(CLUSTER, connects=2, requests=5, active=3) == probe.cluster(CLUSTER, requests=1, active=1, ejected=2)
    row = read(block)[3][1]
    assert row[2] == CLUSTER and row[3] == 2 and row[6] == 6
    assert row[13] == 1 and row[17] == 2


def test_beyond_the_budget_clusters_share_other(block):
    probe = CountersProbe(block)
    assert [probe.cluster(i + 1) for i in range(CLUSTER_BUDGET + 5)][-6:] == [0] * 6
    assert len(read(block)[3]) == CLUSTER_BUDGET


# ---- retire ----


def test_series_of_removed_names_go_away_and_the_others_stay(block):
    probe = CountersProbe(block)
    probe.request(1, 10, 100, GET, 200)
    probe.request(1, 11, 100, GET, 200)
    probe.request(1, 10, 101, GET, 200)
    probe.request(2, 10, 100, GET, 200)
    probe.request(1, 0, 0, GET, 404)
    probe.cluster(100, connects=1)
    probe.cluster(101, connects=1)
    probe.retire([1, 10, 100])
    assert {key[:3] for key in requests(block)} - {(0, 0, 0)} == {(1, 10, 100), (1, 0, 0)}
    assert [row[2] for row in read(block)[3][1:]] == [100]
    probe.request(1, 10, 100, GET, 200)
    assert requests(block)[1, 10, 100, GET << 16 | 200][COUNT] == 2


def test_the_series_of_a_cluster_that_drains_stays_until_it_has_drained(block):
    probe = CountersProbe(block)
    index = probe.cluster(100, connects=3, active=1)
    probe.retire([])
    assert [row[2] for row in read(block)[3][1:]] == [100]
    assert probe.cluster(101) != index
    assert probe.cluster(100, active=0) == index
    probe.retire([101])
    assert [row[2] for row in read(block)[3][1:]] == [101]


def test_a_freed_series_is_used_again_from_zero_and_says_so(block):
    probe = CountersProbe(block)
    for route in range(SERIES_BUDGET):
        probe.request(1, route + 1, 1, GET, 200, times=3)
    before = {row[0]: row[1] for row in read(block)[4]}
    probe.retire([1])
    index = probe.request(1, 77777, 1, GET, 200)
    assert index != 0
    row = next(row for row in read(block)[4] if row[0] == index)
    assert row[COUNT] == 1 and sum(row[DURATIONS : DURATIONS + 14]) == 1
    # The claim number in the state word tells the reader that these are other counters.
    assert row[1] >> 8 == (before[index] >> 8) + 1


def test_retiring_everything_frees_the_whole_budget(block):
    probe = CountersProbe(block)
    for turn in range(5):
        indexes = {probe.request(turn + 1, route + 1, 1, GET, 200) for route in range(SERIES_BUDGET - 1)}
        assert 0 not in indexes and len(indexes) == SERIES_BUDGET - 1
        assert probe.request(turn + 1, 99999, 1, GET, 200) == 0
        probe.retire([])
    assert len(read(block)[4]) == 1


def test_a_reader_never_takes_a_series_that_is_being_freed(block):
    probe = CountersProbe(block)
    index = probe.request(1, 2, 3, GET, 200)
    row = next(row for row in read(block)[4] if row[0] == index)
    at = block.find(struct.pack("<6Q", *row[1:7]))
    struct.pack_into("<Q", block, at, row[1] & ~0xFF)  # the first store of a release
    assert index not in [row[0] for row in read(block)[4]]


def test_a_reader_in_another_process_never_sees_half_a_series(tmp_path):
    """A worker claims and frees series as fast as it can; whatever is read has a key of one piece."""
    path = tmp_path / "block"
    path.write_bytes(bytes(counters.block_size()))
    program = (
        "import mmap, sys\n"
        "from gateway._core.counters import CountersProbe\n"
        "with open(sys.argv[1], 'r+b') as file:\n"
        "    probe = CountersProbe(mmap.mmap(file.fileno(), 0))\n"
        "for i in range(1, 60000):\n"
        "    probe.request(i, i, i, 1, 200)\n"
        "    if i % 20 == 0:\n"
        "        probe.retire([])\n"
    )
    worker = subprocess.Popen([sys.executable, "-c", program, str(path)])
    try:
        with path.open("rb") as file:
            theirs = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        seen = 0
        while worker.poll() is None:
            for row in (read(theirs) or [[]] * 6)[4][1:]:
                assert row[2] == row[3] == row[4] and row[5] == GET << 16 | 200
                seen += 1
    finally:
        worker.kill()
        worker.wait()
    assert worker.returncode == 0 and seen > 0


# ---- the block of a worker that died ----


def test_a_new_worker_goes_on_in_the_block_of_a_dead_one(block):
    dead = CountersProbe(block)
    dead.bump(NAMES.index("downstream_requests"), 5)
    dead.gauge(NAMES.index("downstream_connections_active"), 9)
    dead.gauge(NAMES.index("worker_revision"), 3)
    index = dead.request(LISTENER, ROUTE, CLUSTER, GET, 200)
    dead.cluster(CLUSTER, connects=4, active=6)
    identity = read(block)[0]
    del dead

    probe = CountersProbe(block)
    block_id, scalars, _, clusters, *_ = read(block)
    assert block_id == identity
    assert scalars[NAMES.index("downstream_requests")] == 5
    assert scalars[NAMES.index("downstream_connections_active")] == scalars[NAMES.index("worker_revision")] == 0
    assert clusters[1][3] == 4 and clusters[1][13] == 0
    assert probe.request(LISTENER, ROUTE, CLUSTER, GET, 200) == index
    assert probe.request(LISTENER, ROUTE, CLUSTER, GET, 500) not in (0, index)
    assert requests(block)[LISTENER, ROUTE, CLUSTER, GET << 16 | 200][COUNT] == 2


def test_a_claim_that_a_worker_did_not_live_to_finish_is_cleared(block):
    dead = CountersProbe(block)
    index = dead.request(LISTENER, ROUTE, CLUSTER, GET, 200, times=7)
    row = next(row for row in read(block)[4] if row[0] == index)
    at = block.find(struct.pack("<6Q", *row[1:7]))
    struct.pack_into("<Q", block, at, row[1] & ~0xFF)
    del dead
    probe = CountersProbe(block)
    probe.request(1, 1, 1, GET, 200)
    assert [row[COUNT] for row in read(block)[4]] == [0, 1]


def test_a_zeroed_block_is_another_block(block):
    CountersProbe(block)
    first = read(block)[0]
    block[:] = bytes(len(block))
    CountersProbe(block)
    assert read(block)[0] != first


def test_a_long_turn_is_shown_for_a_while_and_then_forgotten(block):
    probe = CountersProbe(block)
    second = 1000
    probe.turn(0, 100 * second)
    assert probe.turn(4000, 101 * second) == 4000
    # Any scrape of the next half minute finds it, whatever comes after it.
    assert {probe.turn(10, 101 * second + ms) for ms in range(0, 30 * second, 20)} == {4000}
    assert probe.turn(9000, 131 * second) == 9000
    shown = [probe.turn(20, 131 * second + ms) for ms in range(0, 90 * second, 20)]
    assert shown[:1500] == [9000] * 1500 and shown[-1] == 20
    assert sorted(shown, reverse=True) == shown


def test_a_turn_longer_than_a_while_is_shown_too(block):
    probe = CountersProbe(block)
    probe.turn(1, 1_000)
    assert probe.turn(120_000_000, 121_000) == 120_000_000
    assert probe.turn(1, 121_020) == 120_000_000


# ---- rate limits ----


def test_a_limits_decisions_are_counted_by_source_and_go_with_its_name(block):
    probe = CountersProbe(block)
    index = probe.limit(7, 1, 2, times=3)
    assert probe.limit(7, 0, 0) == index != probe.limit(8, 2, 4)
    decisions = [0] * len(counters.LIMIT_DECISIONS) * len(counters.LIMIT_SOURCES)
    decisions[0], decisions[len(counters.LIMIT_SOURCES) + 2] = 1, 3
    assert [list(row[2:]) for row in read(block)[5] if row[0] == index] == [[7, *decisions]]
    # a worker that comes after goes on
    assert CountersProbe(block).limit(7, 0, 0) == index
    probe = CountersProbe(block)
    probe.retire([8])
    assert [row[2] for row in read(block)[5][1:]] == [8]
    assert probe.limit(9, 0, 0) == index
    assert {probe.limit(number, 0, 0) for number in range(10, 400)} >= {0}
