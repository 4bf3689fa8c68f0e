"""Readiness: events reach only whom they were made for, work without readiness gets its turn, a connection writes once a turn."""

import os
import select
import socket
from collections.abc import Callable, Iterator

import pytest

from gateway._core.pathtest import PollerProbe, PollProbe

EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLHUP = select.EPOLLIN, select.EPOLLOUT, 0x2000, select.EPOLLHUP
ROUNDS = 8  # of ready and flush work per batch


class Bench:
    """A poller, and connections whose events are written down as (name, kind, events)."""

    def __init__(self) -> None:
        self.poller = PollerProbe()
        self.seen: list[tuple[str, str, int]] = []
        self.then: dict[tuple[str, str], Callable[[], object]] = {}
        self.sockets: list[socket.socket] = []

    def probe(self, name: str, fd: int) -> PollProbe:
        def seen(kind: str, events: int) -> None:
            self.seen.append((name, kind, events))
            if then := self.then.get((name, kind)):
                then()

        return PollProbe(fd, seen)

    def pair(self, name: str) -> tuple[PollProbe, socket.socket, socket.socket]:
        near, far = socket.socketpair()
        near.setblocking(False)
        self.sockets += [near, far]
        return self.probe(name, near.fileno()), near, far

    def kinds(self) -> list[tuple[str, str]]:
        seen, self.seen = self.seen, []
        return [(name, kind) for name, kind, _ in seen]

    def is_readable(self) -> bool:
        """What uvloop sees of the epoll descriptor."""
        return bool(select.select([self.poller.fileno()], [], [], 0)[0])


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.poller.close()
    for sock in made.sockets:
        sock.close()


def test_nothing_to_do_is_no_batch(bench: Bench) -> None:
    assert not bench.poller.run_batch()
    assert not bench.is_readable()


def test_a_connection_is_reported_once_for_each_change(bench: Bench) -> None:
    """Edge-triggered: what was not read is not told again."""
    probe, _, far = bench.pair("a")
    assert bench.poller.add(probe)
    assert bench.is_readable()
    assert bench.poller.run_batch()
    assert bench.seen == [("a", "io", EPOLLOUT)]
    assert not bench.poller.run_batch()
    far.send(b"x")
    bench.poller.run()
    assert bench.seen[1:] == [("a", "io", EPOLLIN | EPOLLOUT)]
    assert not bench.is_readable()
    far.close()
    bench.poller.run()
    assert bench.seen[2][2] & (EPOLLRDHUP | EPOLLHUP)


def test_a_listening_socket_is_reported_as_long_as_it_is_ready(bench: Bench) -> None:
    probe, near, far = bench.pair("listener")
    assert bench.poller.add(probe, level=True)
    assert not bench.poller.run_batch(), "writability is of no interest"
    far.send(b"x")
    for _ in range(3):
        assert bench.poller.run_batch()
    assert bench.kinds() == [("listener", "io")] * 3
    near.recv(1)
    assert not bench.poller.run_batch()


def test_run_gives_the_loop_its_turn_back(bench: Bench) -> None:
    probe, _, far = bench.pair("listener")
    bench.poller.add(probe, level=True)
    far.send(b"x")
    bench.poller.run()
    assert 1 <= len(bench.seen) <= 8
    assert bench.is_readable(), "and comes again"


def test_a_descriptor_the_kernel_refuses(bench: Bench, tmp_path: os.PathLike[str]) -> None:
    with open(os.path.join(tmp_path, "file"), "w") as file:
        assert not bench.poller.add(bench.probe("file", file.fileno()))
        assert bench.poller.held == 0


def test_removed_means_silent(bench: Bench) -> None:
    probe, near, far = bench.pair("a")
    bench.poller.add(probe)
    bench.poller.run()
    bench.kinds()
    bench.poller.remove(probe)
    bench.poller.remove(probe)
    assert bench.poller.held == 0
    far.send(b"x")
    bench.poller.run()
    assert bench.kinds() == []
    assert near.recv(1) == b"x"


def test_a_shared_descriptor_is_taken_out_of_epoll(bench: Bench) -> None:
    """Another process has a copy of a listening socket: closing ours would leave it in epoll and spin."""
    probe, near, far = bench.pair("listener")
    copy = os.dup(near.fileno())
    try:
        bench.poller.add(probe, level=True)
        far.send(b"x")
        bench.poller.remove(probe, shared=True)
        near.close()
        assert not bench.is_readable()
    finally:
        os.close(copy)


def test_an_event_of_a_connection_that_went_away_does_not_reach_its_successor(bench: Bench) -> None:
    """Two events of one batch: the first one's owner closes the other, whose number is used again at once."""
    first, _, far_first = bench.pair("first")
    second, near_second, far_second = bench.pair("second")
    third, near_third, _ = bench.pair("third")
    number = near_second.fileno()
    reborn = bench.probe("reborn", number)

    def replace(other: PollProbe) -> Callable[[], None]:
        def act() -> None:
            bench.then.clear()
            bench.poller.remove(other)
            near_second.close()
            os.dup2(near_third.fileno(), number)
            assert bench.poller.add(reborn)

        return act

    for probe in (first, second):
        bench.poller.add(probe)
    bench.poller.run()
    bench.kinds()
    far_first.send(b"x")
    far_second.send(b"x")
    bench.then["first", "io"] = replace(second)
    bench.poller.run_batch()
    assert bench.kinds() == [("first", "io")], "the event of `second` is stale"
    assert reborn.registration not in (second.registration, first.registration)
    bench.poller.run()
    assert bench.seen == [("reborn", "io", EPOLLOUT)], "its own event comes in its own batch"
    bench.poller.remove(reborn)
    os.close(number)
    assert third.registration == 0


def test_the_same_number_in_the_next_turn(bench: Bench) -> None:
    probe, near, _ = bench.pair("old")
    number = near.fileno()
    bench.poller.add(probe)
    bench.poller.run()
    bench.poller.remove(probe)
    near.close()
    fresh, fresh_near, _ = bench.pair("new")
    if fresh_near.fileno() != number:
        os.dup2(fresh_near.fileno(), number)
        fresh = bench.probe("new", number)
    bench.kinds()
    bench.poller.add(fresh)
    bench.poller.run()
    assert bench.kinds() == [("new", "io")]
    bench.poller.remove(fresh)


def test_descriptors_far_apart(bench: Bench) -> None:
    """The table of slots grows to the number that comes."""
    _, near, far = bench.pair("unused")
    number = 900
    os.dup2(near.fileno(), number)
    try:
        probe = bench.probe("high", number)
        assert bench.poller.add(probe)
        far.send(b"x")
        bench.poller.run()
        assert bench.kinds() == [("high", "io")]
        bench.poller.remove(probe)
    finally:
        os.close(number)


def test_flushes_come_after_everything_else_and_once(bench: Bench) -> None:
    a, _, far_a = bench.pair("a")
    b, _, far_b = bench.pair("b")
    bench.poller.add(a)
    bench.poller.add(b)
    bench.poller.run()
    bench.kinds()
    for sock in (far_a, far_b):
        sock.send(b"x")

    def work(probe: PollProbe, ready: PollProbe) -> Callable[[], None]:
        def act() -> None:
            for _ in range(3):
                bench.poller.push_flush(probe)
                bench.poller.push_ready(ready)

        return act

    bench.then["a", "io"] = work(a, b)
    bench.then["b", "io"] = work(b, a)
    bench.poller.run_batch()
    seen = bench.kinds()
    assert sorted(seen[:2]) == [("a", "io"), ("b", "io")]
    assert sorted(seen[2:4]) == [("a", "ready"), ("b", "ready")]
    assert sorted(seen[4:]) == [("a", "flush"), ("b", "flush")]


def test_what_a_flush_makes_ready_is_done_in_the_same_turn(bench: Bench) -> None:
    a, _, _ = bench.pair("a")
    bench.then["a", "flush"] = lambda: bench.poller.push_ready(a)
    bench.poller.push_flush(a)
    bench.poller.settle()
    assert bench.kinds() == [("a", "flush"), ("a", "ready")]
    assert not bench.is_readable()


def test_work_that_never_ends_lets_the_loop_have_its_turn(bench: Bench) -> None:
    """One connection with endless input does not hold the worker: the eventfd brings the poller back."""
    a, _, _ = bench.pair("a")
    b, _, _ = bench.pair("b")
    bench.then["a", "ready"] = lambda: bench.poller.push_ready(a)
    bench.poller.push_ready(a)
    bench.poller.push_flush(b)
    bench.poller.settle()
    seen = bench.kinds()
    assert seen.count(("a", "ready")) == ROUNDS
    assert ("b", "flush") in seen, "others still write"
    assert bench.is_readable()
    bench.then.clear()
    assert bench.poller.run_batch()
    assert bench.kinds() == [("a", "ready")]
    assert not bench.is_readable(), "the wake-up was taken"
    assert not bench.poller.run_batch()


def test_ready_and_flush_reach_a_connection_that_was_removed_meanwhile(bench: Bench) -> None:
    """The contract of the seam: called once, whatever became of the descriptor."""
    a, near, _ = bench.pair("a")
    bench.poller.add(a)
    bench.poller.push_ready(a)
    bench.poller.push_flush(a)
    bench.poller.remove(a)
    near.close()
    bench.poller.settle()
    assert bench.kinds() == [("a", "ready"), ("a", "flush")]


def test_close_lets_go_of_everything() -> None:
    bench = Bench()
    before = len(os.listdir("/proc/self/fd"))
    made = PollerProbe()
    probes = [bench.pair(str(number)) for number in range(5)]
    for probe, _, _ in probes:
        made.add(probe)
        made.push_ready(probe)
    assert made.held == 5
    made.close()
    made.close()
    assert made.held == 0
    made.settle()
    assert bench.kinds() == []
    for sock in bench.sockets:
        sock.close()
    bench.poller.close()
    assert len(os.listdir("/proc/self/fd")) == before - 2, "the bench's own poller is gone as well"
