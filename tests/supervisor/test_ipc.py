"""The channel between supervisor and worker: order, size, descriptors, and every way it can end."""

import asyncio
import os
import socket
from typing import Any

import msgspec
import pytest
import uvloop

from gateway.supervisor import ipc

LISTEN = msgspec.msgpack.encode(ipc.Listen(1, "a"))


def run(work: Any) -> Any:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(asyncio.wait_for(work, 20))


class End:
    """One end of a channel that remembers what came."""

    def __init__(self, sock: socket.socket, incoming: Any) -> None:
        self.got: asyncio.Queue[tuple[Any, int | None]] = asyncio.Queue()
        self.ended = asyncio.Event()
        self.channel = ipc.Channel(sock, incoming, lambda message, fd: self.got.put_nowait((message, fd)), self.ended.set)


def pair() -> tuple[End, End]:
    ours, theirs = socket.socketpair()
    return End(ours, ipc.Up), End(theirs, ipc.Down)


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_every_message_arrives_as_it_was_sent_and_in_order() -> None:
    down: list[ipc.Down] = [
        ipc.Settings(log_format="json", log_sample=0.25, replicas=3),
        ipc.Endpoints({2**64 - 1: [(b"10.0.0.1", 80, 1, b"a"), (b"/run/s", 0, 2, b"")], 0: []}),
        ipc.TLS(
            3,
            {"d": b"authorities"},
            {2**64 - 1: ipc.ServerSide((ipc.Pair(("a.test",), "EC", b"chain", b"key", b"der"),), "1.3", False, "d", b"crl", True)},
            {0: ipc.ClientSide("d", "a", "::1", ("b", "c"), ipc.Pair((), "RSA", b"chain", b"secret"), ("h2",))},
        ),
        ipc.Unlisten(2**63),
        ipc.Drain(1500),
        ipc.ReopenLogs(),
        ipc.Describe(7, "clusters", 10),
        ipc.LogLevel("debug"),
    ]
    up: list[ipc.Up] = [
        ipc.Hello(17),
        ipc.Ack(3, 800),
        ipc.Refused(4, "offset 12 beyond the end"),
        ipc.Unsecured(2**64 - 1, "key values mismatch"),
        ipc.Health(1, 2, 3),
        ipc.Description(7, [{"name": "a", "active": 1}]),
        ipc.Bye(0),
    ]

    async def story() -> None:
        supervisor, worker = pair()
        for order in down:
            supervisor.channel.send(order)
        for fact in up:
            worker.channel.send(fact)
        assert [(await worker.got.get())[0] for _ in down] == down
        assert [(await supervisor.got.get())[0] for _ in up] == up
        supervisor.channel.close()
        worker.channel.close()

    run(story())


def test_a_table_larger_than_every_buffer_passes_with_descriptors_before_and_after() -> None:
    async def story() -> None:
        supervisor, worker = pair()
        table = {number: [(b"10.1.2.3", 8080, 1, b"zone-a")] * 8 for number in range(20_000)}
        first, second = os.memfd_create("first"), os.memfd_create("second")
        os.write(first, b"one")
        os.write(second, b"two")
        supervisor.channel.send(ipc.Snapshot(1, 3, table), first)
        supervisor.channel.send(ipc.Endpoints(table))
        supervisor.channel.send(ipc.Listen(9, "0.0.0.0:80"), second)
        os.close(first)
        os.close(second)
        assert supervisor.channel.backlog > 0
        message, fd = await worker.got.get()
        assert message == ipc.Snapshot(1, 3, table) and fd is not None
        assert os.pread(fd, 10, 0) == b"one"
        os.close(fd)
        assert await worker.got.get() == (ipc.Endpoints(table), None)
        message, fd = await worker.got.get()
        assert message == ipc.Listen(9, "0.0.0.0:80") and fd is not None
        assert os.pread(fd, 10, 0) == b"two"
        os.close(fd)
        await supervisor.channel.flushed()
        assert supervisor.channel.backlog == 0
        supervisor.channel.close()
        worker.channel.close()

    run(story())


def test_last_words_and_the_end_are_both_seen_when_they_come_at_once_and_something_was_left_unread() -> None:
    async def story() -> None:
        ours, theirs = socket.socketpair()
        supervisor = End(ours, ipc.Up)
        supervisor.channel.send(ipc.Drain(1))
        worker = End(theirs, ipc.Down)
        worker.channel.send(ipc.Hello(17))
        worker.channel.close()
        assert await supervisor.got.get() == (ipc.Hello(17), None)
        await supervisor.ended.wait()
        assert supervisor.channel.closed

    run(story())


def test_the_other_side_hanging_up_closes_once_and_leaks_nothing() -> None:
    async def story() -> None:
        before = open_fds()
        supervisor, worker = pair()
        blob = os.memfd_create("blob")
        # Nobody reads on the worker's side: the descriptors stay on their way.
        for _ in range(2000):
            supervisor.channel.send(ipc.Snapshot(1, 1, {1: [(b"10.0.0.1", 1, 1, b"")] * 20}), blob)
        os.close(blob)
        worker.channel.close()
        await supervisor.ended.wait()
        assert supervisor.channel.closed
        supervisor.channel.send(ipc.ReopenLogs())  # swallowed
        supervisor.channel.close()
        assert open_fds() == before

    run(story())


@pytest.mark.parametrize(
    "bytes_",
    [
        pytest.param(b"\xff\xff\xff\xff", id="a length beyond every frame"),
        pytest.param(b"\0\0\0\x01\xc1", id="no MessagePack"),
        pytest.param(b"\0\0\0\x0b" + b"\x81\xa4type\xa4what", id="an unknown message"),
        pytest.param(ipc.LENGTH.pack(len(LISTEN)) + LISTEN, id="a descriptor that did not come"),
    ],
)
def test_what_is_no_frame_of_ours_closes_the_channel(bytes_: bytes) -> None:
    async def story() -> None:
        ours, theirs = socket.socketpair()
        end = End(ours, ipc.Down)
        theirs.sendall(bytes_)
        await end.ended.wait()
        assert end.channel.closed and end.got.empty()
        theirs.close()

    run(story())


def test_a_message_is_sent_with_exactly_the_descriptors_it_carries() -> None:
    async def story() -> None:
        supervisor, worker = pair()
        with pytest.raises(ValueError, match="Snapshot carries 1"):
            supervisor.channel.send(ipc.Snapshot(1, 1, {}))
        with pytest.raises(ValueError, match="ReopenLogs carries 0"):
            supervisor.channel.send(ipc.ReopenLogs(), 0)
        supervisor.channel.close()
        worker.channel.close()

    run(story())


def test_no_message_shows_a_private_key() -> None:
    pair = ipc.Pair(("a.test", "*.b.test"), "EC", b"chain", b"secret")
    shown = [pair, ipc.ServerSide((pair,)), ipc.ClientSide("d", pair=pair)]
    shown.append(ipc.TLS(1, {}, {1: ipc.ServerSide((pair,))}, {2: ipc.ClientSide("d", pair=pair)}))
    assert all("secret" not in text for each in shown for text in (repr(each), str(each), f"{each}"))
    assert repr(pair) == "Pair(EC a.test, *.b.test)" and list(pair.__rich_repr__()) == [repr(pair)]
