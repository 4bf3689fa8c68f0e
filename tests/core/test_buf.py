"""What waits to be written and what waits to be understood: order, blocks, partial writes, and memory that runs out."""

import contextlib
import os
import random
import socket
from collections.abc import Iterator

import pytest

from gateway._core.pathtest import InProbe, OutProbe

SMALL = 4096 - 32
LARGE = 32768 - 32
Pair = tuple[socket.socket, socket.socket]


def pattern(n: int, seed: int = 1) -> bytes:
    """Bytes among which no two places look alike."""
    return random.Random(seed).randbytes(n)


@pytest.fixture
def narrow() -> Iterator[Pair]:
    """A stream of which the kernel takes a few KiB at a time."""
    near, far = socket.socketpair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    near.setblocking(False)
    far.setblocking(False)
    with near, far:
        yield near, far


def receive(far: socket.socket) -> bytes:
    got: list[bytes] = []
    while True:
        try:
            part = far.recv(65536)
        except BlockingIOError:
            return b"".join(got)
        if not part:
            return b"".join(got)
        got.append(part)


# The queue


def test_an_empty_queue_holds_no_memory() -> None:
    queue = OutProbe()
    assert (queue.size, queue.blocks, queue.pieces()) == (0, [], [])
    assert queue.append(b"")
    assert queue.blocks == []
    queue.append(b"x" * 100)
    queue.consume(100)
    assert (queue.size, queue.blocks) == (0, [])
    queue.append(b"x" * 100_000)
    queue.clear()
    assert (queue.size, queue.blocks) == (0, [])


def test_every_split_of_a_message_gives_the_same_bytes() -> None:
    message = pattern(300)
    for cut in range(len(message) + 1):
        queue = OutProbe()
        assert queue.append(message[:cut]) and queue.append(message[cut:])
        assert b"".join(queue.pieces()) == message and queue.size == len(message)
        queue.consume(cut)
        assert b"".join(queue.pieces()) == message[cut:] and queue.size == len(message) - cut


@pytest.mark.parametrize("size", [1, SMALL - 1, SMALL, SMALL + 1, LARGE - 1, LARGE, LARGE + 1, 2 * LARGE + 7, 200_000])
def test_sizes_at_the_edges_of_blocks(size: int) -> None:
    message = pattern(size)
    queue = OutProbe()
    queue.append(b"head")
    queue.append(message)
    queue.append(b"tail")
    assert b"".join(queue.pieces()) == b"head" + message + b"tail"
    assert queue.size == size + 8
    for step in (1, 3, size, 4):
        queue.consume(step)
    assert (queue.size, queue.blocks) == (0, [])


def test_what_was_reserved_and_not_committed_was_never_there() -> None:
    queue = OutProbe()
    assert queue.reserve(2000, b"")
    assert (queue.size, queue.pieces()) == (0, [])
    assert queue.reserve(3000, b"abc")
    assert queue.reserve(1000, b"def")
    assert queue.pieces() == [b"abcdef"], "reservations that fit lie behind one another"
    assert queue.append(b"ghi")
    assert queue.pieces() == [b"abcdefghi"]


def test_reserved_room_is_contiguous() -> None:
    queue = OutProbe()
    queue.append(b"x" * (SMALL - 10))
    assert queue.reserve(11, b"y" * 11)
    assert queue.pieces() == [b"x" * (SMALL - 10), b"y" * 11]
    assert queue.reserve(100_000, b"z" * 100_000), "more than a large block"
    assert queue.pieces()[-1] == b"z" * 100_000
    queue.consume(queue.size)
    assert queue.blocks == []


def test_a_block_in_which_nothing_was_put_is_passed_over() -> None:
    queue = OutProbe()
    queue.append(b"x" * SMALL)
    queue.reserve(100, b"")
    queue.reserve(LARGE, b"y")
    assert queue.pieces() == [b"x" * SMALL, b"y"]
    queue.consume(SMALL)
    assert queue.pieces() == [b"y"]
    queue.consume(1)
    assert queue.blocks == []


def test_a_vector_takes_as_much_as_there_is_room_for() -> None:
    queue = OutProbe()
    for i in range(5):
        queue.reserve(LARGE, bytes([65 + i]) * LARGE)
    assert [piece[:1] for piece in queue.pieces(3)] == [b"A", b"B", b"C"]
    assert len(queue.pieces(5)) == 5 and queue.pieces(0) == []


def test_blocks_that_were_used_come_back_empty() -> None:
    for _ in range(600):  # more than the free-lists keep
        queue = OutProbe()
        queue.append(b"old" * 100)
        queue.clear()
    queues = [OutProbe() for _ in range(700)]
    for number, queue in enumerate(queues):
        assert queue.append(b"%d" % number) and queue.reserve(LARGE, b"large")
    for number, queue in enumerate(queues):
        assert queue.pieces() == [b"%d" % number, b"large"], "a block belongs to one queue"
        assert queue.blocks == [SMALL, LARGE]


def test_a_reservation_that_cannot_be_had_changes_nothing() -> None:
    queue = OutProbe()
    queue.append(b"kept")
    assert queue.reserve_too_much()
    assert (queue.size, queue.pieces()) == (4, [b"kept"])
    assert queue.append(b" on") and queue.pieces() == [b"kept on"]


# Writing


def test_everything_goes_at_once_while_the_socket_takes_it() -> None:
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        queue = OutProbe()
        queue.append(b"head ")
        assert queue.send(near.fileno(), b"content") == 12
        assert far.recv(100) == b"head content"
        assert queue.blocks == []
        assert queue.send(near.fileno()) == 0, "nothing to send is no system call and no error"


@pytest.mark.parametrize("content", [0, 1, 5000, 300_000])
@pytest.mark.parametrize("queued", [0, 1, SMALL, 100_000])
def test_partial_writes_keep_the_order(narrow: Pair, queued: int, content: int) -> None:
    near, far = narrow
    message = pattern(queued + content)
    queue = OutProbe()
    queue.append(message[:queued])
    sent = queue.send(near.fileno(), message[queued:])
    got = receive(far)
    rounds = 0
    while queue.size:
        assert sent + queue.size == len(message)
        sent += queue.send(near.fileno())
        got += receive(far)
        rounds += 1
    assert (got, sent) == (message, len(message))
    assert queue.blocks == []
    if content == 300_000:
        assert rounds > 1, "the socket did not take everything at once"


def test_more_blocks_than_one_call_takes(narrow: Pair) -> None:
    """Content may not overtake blocks that did not fit into the vector before it."""
    near, far = narrow
    for blocks in (13, 14, 15, 16, 17, 40):
        queue = OutProbe()
        want = b""
        for number in range(blocks):
            queue.reserve(SMALL, b"%06d" % number)
            queue.reserve(SMALL, b"")
            want += b"%06d" % number
        want += b"last"
        queue.send(near.fileno(), b"last")
        got = receive(far)
        while queue.size:
            queue.send(near.fileno())
            got += receive(far)
        assert got == want


def test_a_socket_that_takes_nothing_keeps_everything(narrow: Pair) -> None:
    near, far = narrow
    full = OutProbe()
    full.send(near.fileno(), pattern(1_000_000))
    queue = OutProbe()
    assert queue.send(near.fileno(), b"waits") == 0
    assert queue.pieces() == [b"waits"]
    assert far.fileno() >= 0


def test_a_connection_that_is_gone_is_said_and_raises_no_signal(narrow: Pair) -> None:
    near, far = narrow
    far.close()
    queue = OutProbe()
    queue.append(b"more")
    assert queue.send(near.fileno(), b"content") == -1
    queue.clear()
    assert queue.blocks == []


# Input


def test_an_empty_input_holds_no_memory() -> None:
    held = InProbe()
    assert (held.content, held.held) == (b"", 0)
    held.append(b"abc")
    assert held.held >= 3
    held.consume(3)
    assert (held.content, held.held) == (b"", 0)
    held.append(b"abc")
    held.clear()
    held.clear()
    assert (held.content, held.held) == (b"", 0)


def test_input_in_every_split() -> None:
    message = pattern(200)
    for cut in range(1, len(message)):
        held = InProbe()
        held.append(message[:cut])
        held.consume(cut // 2)
        held.append(message[cut:])
        assert held.content == message[cut // 2 :]


def test_input_grows_and_moves_up_what_is_left() -> None:
    held, want, chance = InProbe(), b"", random.Random(2)
    for step in range(2000):
        part = pattern(chance.randrange(1, 900), step)
        assert held.append(part)
        want += part
        gone = chance.randrange(len(want) + 1) if step % 3 else 0
        held.consume(gone)
        want = want[gone:]
        assert held.content == want
    held.append(b"x")
    assert held.held < 65536, "what was consumed made room"


def test_input_that_cannot_be_had_changes_nothing() -> None:
    held = InProbe()
    held.append(b"kept")
    assert held.append_too_much()
    assert held.content == b"kept"
    assert held.append(b" on") and held.content == b"kept on"


# The pipe of a queue


def test_what_is_spliced_goes_out_behind_what_was_queued(narrow: Pair) -> None:
    near, far = narrow
    source, feeder = socket.socketpair()
    with source, feeder:
        source.setblocking(False)
        text = pattern(200_000)
        feeder.sendall(text[:100_000])
        queue = OutProbe()
        queue.append(b"before ")
        assert queue.splice(source.fileno()) > 0
        got = b""
        left = text[100_000:]
        while len(got) < 7 + len(text):
            if left:
                feeder.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    left = left[feeder.send(left) :]
            queue.splice(source.fileno())
            assert queue.send(near.fileno()) >= 0
            got += receive(far)
            assert queue.size == (queue.piped or 0) or got == b""
        assert got == b"before " + text
        assert queue.splice(source.fileno()) == -1
        feeder.close()
        assert queue.splice(source.fileno()) == 0
        queue.rest()
        assert queue.piped is None


def test_a_pipe_is_given_back_empty_and_closed_full() -> None:
    source, feeder = socket.socketpair()
    with source, feeder:
        source.setblocking(False)
        queue = OutProbe()
        assert queue.splice(source.fileno()) == -1
        assert queue.piped == 0
        queue.rest()
        held = len(os.listdir("/proc/self/fd"))
        feeder.sendall(b"x" * 100)
        assert queue.splice(source.fileno()) == 100
        assert len(os.listdir("/proc/self/fd")) == held, "the spare pipe is used again"
        queue.rest()
        assert (queue.piped, queue.size) == (100, 100)
        queue.clear()
        assert (queue.piped, queue.size) == (None, 0)
        assert len(os.listdir("/proc/self/fd")) == held - 2


def test_there_are_only_so_many_pipes() -> None:
    source, feeder = socket.socketpair()
    with source, feeder:
        source.setblocking(False)
        queues = [OutProbe() for _ in range(129)]
        assert [queue.splice(source.fileno()) for queue in queues] == [-1] * 128 + [-3]
        queues[0].rest()
        assert queues[-1].splice(source.fileno()) == -1
        for queue in queues:
            queue.rest()
            queue.clear()


def test_a_full_pipe_and_a_broken_socket() -> None:
    source, feeder = socket.socketpair()
    with source, feeder:
        source.setblocking(False)
        feeder.setblocking(False)
        queue = OutProbe()
        while True:
            try:
                feeder.send(b"x" * 65536)
            except BlockingIOError:
                if queue.splice(source.fileno()) == -1:
                    break
        assert queue.piped
        near, far = socket.socketpair()
        far.close()
        with near:
            assert queue.send(near.fileno()) == -1
        queue.clear()
        assert queue.splice(-1) == -2
        queue.rest()
