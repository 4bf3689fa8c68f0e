"""Leases, queues and endpoints of one cluster, told by the line that describes them; whenever it is read, its books are checked."""

import contextlib
import mmap
import random
from collections.abc import Iterator

import pytest

from gateway._core import counters
from gateway._core.pathtest import FlowProbe, PoolProbe, UpstreamProbe

A, B, C = (b"10.0.0.1", 80), (b"10.0.0.2", 80), (b"::1", 8080)
A_TEXT, B_TEXT, C_TEXT = b"10.0.0.1:80", b"10.0.0.2:80", b"[::1]:8080"
UNLIMITED = 0xFFFFFFFF
CONNECT, TIMEOUT = 1, 2


class Bench:
    def __init__(self) -> None:
        self.pools: list[PoolProbe] = []

    def pool(self, *endpoints: tuple[bytes, int], max_connections: int = UNLIMITED, max_pending: int = 1024) -> PoolProbe:
        block = mmap.mmap(-1, counters.block_size())
        made = PoolProbe(block, max_connections=max_connections, max_pending=max_pending)
        made.set_endpoints(*(endpoints or (A,)))
        self.pools.append(made)
        return made


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    for pool in made.pools:
        pool.close()


def leased(pool: PoolProbe, index: int = 0, text: bytes = A_TEXT) -> UpstreamProbe:
    flow = FlowProbe()
    if pool.acquire(index, flow) != "idle":
        pool.dialed(text)
    assert isinstance(flow.got, UpstreamProbe)
    return flow.got


def test_a_life_of_one_connection(bench: Bench) -> None:
    pool = bench.pool()
    assert pool.describe() == "10.0.0.1:80 [0 leased, 0 idle, 0 dialing, 0 waiting] | connections 0, overflows 0"
    flow = FlowProbe()
    assert pool.acquire(0, flow) == "dial"
    assert pool.describe() == "10.0.0.1:80 [0 leased, 0 idle, 1 dialing, 1 waiting] | connections 1, overflows 0"
    upstream = pool.dialed(A_TEXT)
    assert flow.got is upstream and not flow.is_waiting
    assert pool.describe() == "10.0.0.1:80 [1 leased, 0 idle, 0 dialing, 0 waiting] | connections 1, overflows 0"
    pool.give_back(upstream)
    assert pool.describe() == "10.0.0.1:80 [0 leased, 1 idle, 0 dialing, 0 waiting] | connections 1, overflows 0"
    again = FlowProbe()
    assert pool.acquire(0, again) == "idle" and again.got is upstream
    pool.lost(upstream)
    assert pool.describe() == "10.0.0.1:80 [0 leased, 0 idle, 0 dialing, 0 waiting] | connections 0, overflows 0"


def test_the_last_used_connection_is_used_first(bench: Bench) -> None:
    """The others grow old and close by themselves: a quiet pool shrinks."""
    pool = bench.pool()
    first, second = leased(pool), leased(pool)
    pool.give_back(first)
    pool.give_back(second)
    flow = FlowProbe()
    pool.acquire(0, flow)
    assert flow.got is second


def test_each_waiter_dials_up_to_the_limit_and_then_waits(bench: Bench) -> None:
    pool = bench.pool(max_connections=2)
    flows = [FlowProbe() for _ in range(4)]
    assert [pool.acquire(0, flow) for flow in flows] == ["dial", "dial", "wait", "wait"]
    assert pool.describe() == "10.0.0.1:80 [0 leased, 0 idle, 2 dialing, 4 waiting] | connections 2, overflows 0"
    one, two = pool.dialed(A_TEXT), pool.dialed(A_TEXT)
    assert [flow.got for flow in flows] == [one, two, None, None]
    pool.give_back(two)
    assert flows[2].got is two, "first come, first served"
    pool.lost(one)
    assert pool.describe() == "10.0.0.1:80 [1 leased, 0 idle, 1 dialing, 1 waiting] | connections 2, overflows 0"
    assert flows[3].got is None
    assert pool.dialed(A_TEXT) is flows[3].got


def test_a_full_queue_is_said_at_once(bench: Bench) -> None:
    pool = bench.pool(max_connections=1, max_pending=2)
    leased(pool)
    flows = [FlowProbe() for _ in range(3)]
    assert [pool.acquire(0, flow) for flow in flows] == ["wait", "wait", "full"]
    assert not flows[2].is_waiting
    assert pool.describe() == "10.0.0.1:80 [1 leased, 0 idle, 0 dialing, 2 waiting] | connections 1, overflows 1"


def test_the_queue_of_a_cluster_is_one_for_all_its_endpoints(bench: Bench) -> None:
    pool = bench.pool(A, B, max_connections=1, max_pending=1)
    leased(pool, 0, A_TEXT), leased(pool, 1, B_TEXT)
    assert pool.acquire(0, FlowProbe()) == "wait"
    assert pool.acquire(1, FlowProbe()) == "full"


def test_no_queue_at_all(bench: Bench) -> None:
    pool = bench.pool(max_connections=1, max_pending=0)
    leased(pool)
    assert pool.acquire(0, FlowProbe()) == "full"


def test_a_ticket_given_up_is_passed_over(bench: Bench) -> None:
    pool = bench.pool(max_connections=1)
    held = leased(pool)
    flows = [FlowProbe() for _ in range(3)]
    for flow in flows:
        pool.acquire(0, flow)
    pool.leave(0, flows[0])
    pool.leave(0, flows[1])
    assert pool.describe() == "10.0.0.1:80 [1 leased, 0 idle, 0 dialing, 1 waiting] | connections 1, overflows 0"
    pool.give_back(held)
    assert [flow.got for flow in flows] == [None, None, held]


def test_a_flow_that_left_and_came_back_waits_at_the_end(bench: Bench) -> None:
    """Its old ticket is worth nothing: otherwise it would be served twice."""
    pool = bench.pool(max_connections=1)
    held = leased(pool)
    first, second = FlowProbe(), FlowProbe()
    pool.acquire(0, first)
    pool.acquire(0, second)
    pool.leave(0, first)
    pool.acquire(0, first)
    pool.give_back(held)
    assert (first.got, second.got) == (None, held)
    pool.give_back(held)
    assert first.got is held


def test_when_all_have_left_a_dialled_connection_idles(bench: Bench) -> None:
    pool = bench.pool()
    flow = FlowProbe()
    pool.acquire(0, flow)
    pool.leave(0, flow)
    assert pool.describe() == "10.0.0.1:80 [0 leased, 0 idle, 1 dialing, 0 waiting] | connections 1, overflows 0"
    upstream = pool.dialed(A_TEXT)
    assert flow.got is None and not upstream.closed
    assert pool.describe() == "10.0.0.1:80 [0 leased, 1 idle, 0 dialing, 0 waiting] | connections 1, overflows 0"


def test_dials_that_nobody_waits_for_are_used_before_new_ones(bench: Bench) -> None:
    pool = bench.pool()
    gone = [FlowProbe() for _ in range(3)]
    for flow in gone:
        pool.acquire(0, flow)
    for flow in gone:
        pool.leave(0, flow)
    flow = FlowProbe()
    assert pool.acquire(0, flow) == "wait"
    upstream = pool.dialed(A_TEXT)
    assert flow.got is upstream


@pytest.mark.parametrize(("loss", "name"), [(CONNECT, "connect"), (TIMEOUT, "connect_timeout")])
def test_a_failed_dial_is_told_to_the_first_waiter(bench: Bench, loss: int, name: str) -> None:
    pool = bench.pool(max_connections=1)
    flows = [FlowProbe() for _ in range(2)]
    for flow in flows:
        pool.acquire(0, flow)
    pool.dial_failed(A_TEXT, loss)
    assert [flow.got for flow in flows] == [name, None]
    assert pool.describe() == "10.0.0.1:80 [0 leased, 0 idle, 1 dialing, 1 waiting] | connections 1, overflows 0"
    upstream = pool.dialed(A_TEXT)
    assert flows[1].got is upstream


def test_a_failed_dial_that_nobody_waited_for(bench: Bench) -> None:
    pool = bench.pool()
    flow = FlowProbe()
    pool.acquire(0, flow)
    pool.leave(0, flow)
    pool.dial_failed(A_TEXT)
    assert flow.got is None
    assert pool.describe() == "10.0.0.1:80 [0 leased, 0 idle, 0 dialing, 0 waiting] | connections 0, overflows 0"


def test_who_is_told_of_a_failure_may_wait_again_at_once(bench: Bench) -> None:
    """A retry asks another endpoint, or the same one, from within the call."""
    pool = bench.pool(A, B)
    flow = FlowProbe()
    verdicts: list[str] = []

    def again(got: object) -> None:
        if got == "connect" and len(verdicts) < 3:
            verdicts.append(pool.acquire(len(verdicts) % 2, flow))

    flow.then = again
    pool.acquire(0, flow)
    pool.dial_failed(A_TEXT)
    pool.dial_failed(A_TEXT)
    pool.dial_failed(B_TEXT)
    assert verdicts == ["dial", "dial", "dial"]
    upstream = pool.dialed(A_TEXT)
    assert flow.got is upstream
    pool.describe()


def test_who_gets_a_connection_may_lose_it_at_once(bench: Bench) -> None:
    """A write that fails inside on_upstream: the next waiter is not forgotten."""
    pool = bench.pool(max_connections=1)
    held = leased(pool)
    first, second = FlowProbe(), FlowProbe()
    first.then = pool.lost
    pool.acquire(0, first)
    pool.acquire(0, second)
    pool.give_back(held)
    assert held.closed and first.got is held
    assert pool.describe() == "10.0.0.1:80 [0 leased, 0 idle, 1 dialing, 1 waiting] | connections 1, overflows 0"
    assert pool.dialed(A_TEXT) is second.got


def test_an_idle_connection_that_the_origin_closes(bench: Bench) -> None:
    pool = bench.pool()
    one, two = leased(pool), leased(pool)
    pool.give_back(one)
    pool.give_back(two)
    pool.lost(one)
    assert pool.describe() == "10.0.0.1:80 [0 leased, 1 idle, 0 dialing, 0 waiting] | connections 1, overflows 0"
    flow = FlowProbe()
    assert pool.acquire(0, flow) == "idle" and flow.got is two


# Endpoints that come and go


def test_addresses_of_all_kinds() -> None:
    pool = Bench().pool(A, C, (b"/run/app.sock", 0))
    assert pool.describe().split(" [")[0] == "10.0.0.1:80"
    assert "| [::1]:8080 [" in pool.describe() and "| unix:/run/app.sock [" in pool.describe()
    pool.close()


@pytest.mark.parametrize(
    "bad", [(b"localhost", 80), (b"", 80), (b"10.0.0", 80), (b"[::1]", 80), (b"/" + b"x" * 108, 0), (b"10.0.0.1", 65536)]
)
def test_what_is_no_address_changes_nothing(bench: Bench, bad: tuple[bytes, int]) -> None:
    pool = bench.pool(A)
    pool.give_back(leased(pool))
    with pytest.raises(ValueError):
        pool.set_endpoints(B, bad)
    assert pool.describe() == "10.0.0.1:80 [0 leased, 1 idle, 0 dialing, 0 waiting] | connections 1, overflows 0"


def test_an_endpoint_that_stays_keeps_its_connections(bench: Bench) -> None:
    pool = bench.pool(A, B)
    held = leased(pool, 1, B_TEXT)
    pool.give_back(leased(pool, 1, B_TEXT))
    pool.set_endpoints(C, B)
    assert pool.describe() == (
        "[::1]:8080 [0 leased, 0 idle, 0 dialing, 0 waiting] | "
        "10.0.0.2:80 [1 leased, 1 idle, 0 dialing, 0 waiting] | connections 2, overflows 0"
    )
    pool.give_back(held)
    flow = FlowProbe()
    assert pool.acquire(1, flow) == "idle" and flow.got is held


def test_doubled_endpoints_are_one(bench: Bench) -> None:
    pool = bench.pool(A, B, A)
    assert pool.describe().count("[") == 2


def test_an_endpoint_that_goes_under_load(bench: Bench) -> None:
    """Idle connections close, leased ones end with their exchange, waiters are told, and a dial that arrives late is closed."""
    pool = bench.pool(A, B, max_connections=3)
    busy, idle = leased(pool), leased(pool)
    pool.give_back(idle)
    taken = FlowProbe()
    pool.acquire(0, taken)
    pool.give_back(idle)
    waiting = [FlowProbe() for _ in range(3)]
    assert [pool.acquire(0, flow) for flow in waiting] == ["idle", "dial", "wait"]
    pool.give_back(idle)
    assert waiting[1].got is idle
    pool.give_back(idle)
    assert waiting[2].got is idle
    late = FlowProbe()
    assert pool.acquire(0, late) == "wait"
    pool.give_back(idle)
    assert late.got is idle
    pool.give_back(idle)
    last = [FlowProbe(), FlowProbe()]
    assert pool.acquire(0, last[0]) == "idle"
    assert pool.acquire(0, last[1]) == "wait"
    pool.set_endpoints(B)
    assert last[1].got == "unsent" and not last[1].is_waiting
    assert not busy.closed and not idle.closed
    assert pool.describe() == "10.0.0.2:80 [0 leased, 0 idle, 0 dialing, 0 waiting] | connections 3, overflows 0"
    pool.give_back(busy)
    pool.give_back(idle)
    assert busy.closed and idle.closed
    assert pool.dialed(A_TEXT).closed
    assert pool.describe() == "10.0.0.2:80 [0 leased, 0 idle, 0 dialing, 0 waiting] | connections 0, overflows 0"


def test_idle_connections_of_an_endpoint_that_goes_close_at_once(bench: Bench) -> None:
    pool = bench.pool(A, B)
    one, two = leased(pool), leased(pool)
    pool.give_back(one)
    pool.give_back(two)
    pool.set_endpoints(B)
    assert one.closed and two.closed
    assert pool.describe() == "10.0.0.2:80 [0 leased, 0 idle, 0 dialing, 0 waiting] | connections 0, overflows 0"


def test_waiters_of_an_endpoint_that_goes_try_another(bench: Bench) -> None:
    pool = bench.pool(A, B)
    flow = FlowProbe()

    def elsewhere(got: object) -> None:
        if got == "unsent":
            index = pool.pick()
            assert index == 0
            pool.acquire(index, flow)

    flow.then = elsewhere
    pool.acquire(0, flow)
    pool.set_endpoints(B)
    upstream = pool.dialed(B_TEXT)
    assert flow.got is upstream
    assert pool.dialed(A_TEXT).closed


def test_an_endpoint_that_comes_back_is_a_new_one(bench: Bench) -> None:
    """What is left of the old one does not come into the new one's books."""
    pool = bench.pool(A)
    old = leased(pool)
    pool.set_endpoints()
    assert pool.pick() is None
    pool.set_endpoints(A)
    assert pool.describe() == "10.0.0.1:80 [0 leased, 0 idle, 0 dialing, 0 waiting] | connections 1, overflows 0"
    pool.give_back(old)
    assert old.closed
    flow = FlowProbe()
    assert pool.acquire(0, flow) == "dial"


def test_pick_prefers_what_was_not_tried(bench: Bench) -> None:
    pool = bench.pool(A, B, C)
    for tried in ((0, 1), (1, 2), (0, 2)):
        (left,) = {0, 1, 2} - set(tried)
        assert {pool.pick(*tried) for _ in range(20)} == {left}
    assert {pool.pick() for _ in range(30)} == {0, 1, 2}


def test_a_closed_cluster_has_nothing_left(bench: Bench) -> None:
    pool = bench.pool(A, B)
    held, idle = leased(pool), leased(pool)
    pool.give_back(idle)
    waiting = FlowProbe()
    pool.acquire(1, waiting)
    pool.close()
    assert idle.closed and not held.closed and waiting.got == "unsent"
    pool.give_back(held)
    assert held.closed and pool.dialed(B_TEXT).closed
    assert pool.describe() == "connections 0, overflows 0"


@pytest.mark.parametrize("seed", range(5))
def test_a_random_life_keeps_its_books(bench: Bench, seed: int) -> None:
    """Everything that can happen to a pool in any order: nobody is forgotten, no limit is passed, every connection ends once."""
    chance = random.Random(seed)
    pool = bench.pool(A, B, C, max_connections=4, max_pending=10)
    texts = {A: A_TEXT, B: B_TEXT, C: C_TEXT}
    current = [A, B, C]
    dials: dict[bytes, int] = dict.fromkeys(texts.values(), 0)
    waiting: list[tuple[tuple[bytes, int], FlowProbe]] = []
    held: list[UpstreamProbe] = []

    def settle() -> None:
        for row in [row for row in waiting if not row[1].is_waiting]:
            waiting.remove(row)
            if isinstance(row[1].got, UpstreamProbe):
                held.append(row[1].got)
        line = pool.describe()
        for endpoint, text in texts.items():
            if endpoint in current:
                part = line.split(text.decode() + " [")[1].split("]")[0]
                assert part.endswith(f" {sum(row[0] == endpoint for row in waiting)} waiting"), line

    for _ in range(1500):
        what = chance.random()
        if what < 0.4 and current:
            index = chance.randrange(len(current))
            flow = FlowProbe()
            verdict = pool.acquire(index, flow)
            if verdict == "idle":
                held.append(flow.got)
            elif verdict != "full":
                waiting.append((current[index], flow))
        elif what < 0.6 and held:
            pool.give_back(held.pop(chance.randrange(len(held))))
        elif what < 0.7 and held:
            pool.lost(held.pop(chance.randrange(len(held))))
        elif what < 0.85:
            text = chance.choice(list(dials))
            with_dial = pool.dialed if chance.random() < 0.7 else pool.dial_failed
            with contextlib.suppress(KeyError, IndexError):  # no dial to that address is under way
                with_dial(text)
        elif what < 0.95 and waiting:
            place, flow = waiting.pop(chance.randrange(len(waiting)))
            pool.leave(current.index(place), flow)
        elif what > 0.98:
            current = chance.sample(list(texts), chance.randrange(4))
            pool.set_endpoints(*current)
        settle()
