"""Sessions against the h2 library: seeded random peers, a clock of our own, bytes in pieces of any size in both directions.

After each step the session's books are checked (the probe does), h2 has not complained, and we have not. In the end each side has
read what the other said. GW_SIM_SEED repeats one run, GW_SIM_RUNS makes more.
"""

import os
import random
from collections.abc import Iterator
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    InformationalResponseReceived,
    RequestReceived,
    ResponseReceived,
    SettingsAcknowledged,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import FlowControlError, NoAvailableStreamIDError, ProtocolError, StreamClosedError, TooManyStreamsError
from h2.settings import SettingCodes

from gateway._core.h2probe import Session, set_spare

RUNS = int(os.environ.get("GW_SIM_RUNS", "25"))
SEEDS = [int(os.environ["GW_SIM_SEED"])] if "GW_SIM_SEED" in os.environ else range(RUNS)
STEPS = 250
SPARE = 64 << 20  # what sessions share when nobody says otherwise
FIELDS = [
    (b"accept", b"*/*"),
    (b"cookie", b"a=1"),
    (b"cookie", b"b=2"),
    (b"x-long", b"v" * 3000),
    (b"x-id", b"7"),
    (b"te", b"trailers"),
]
TRAILERS = [(b"grpc-status", b"0"), (b"x-sum", b"abc")]
# What h2 answers when a stream that it is asked about has just ended.
RACES = (StreamClosedError, FlowControlError, NoAvailableStreamIDError, TooManyStreamsError)


@pytest.fixture(autouse=True)
def spare() -> Iterator[None]:
    """A session that has read everything owes nothing of what all of them share."""
    yield
    set_spare(SPARE)


class Side:
    """What one side of each stream has said, and what the other side has read of it."""

    def __init__(self) -> None:
        self.said: dict[int, bytes] = {}
        self.read: dict[int, bytes] = {}
        self.finished: set[int] = set()  # the sender has said everything
        self.ended: set[int] = set()  # and the reader has been told
        self.trailers: dict[int, Any] = {}


class Wire:
    """Our session and h2, with the bytes that are under way between them."""

    def __init__(self, rng: random.Random, ours_is_server: bool) -> None:
        self.rng, self.now = rng, 1000
        self.limits = {
            "window": rng.choice([1000, 65535, 262144]),
            "connection_window": rng.choice([65535, 1 << 20]),
            "held": rng.choice([1000, 1 << 20]),
            "streams": rng.choice([3, 100]),
            "table": rng.choice([0, 256, 4096]),
        }
        set_spare(rng.choice([0, 0, 5000, SPARE]))
        self.ours = Session(ours_is_server, **self.limits)
        self.h2 = H2Connection(H2Configuration(client_side=ours_is_server, header_encoding=None, validate_inbound_headers=True))
        self.h2.initiate_connection()
        self.to_ours, self.to_h2 = bytearray(), bytearray()
        self.up, self.down = Side(), Side()  # requests, responses
        self.reset: set[int] = set()
        self.paused: set[int] = set()
        self.unread: dict[int, int] = {}  # content that h2's reader has not acknowledged
        self.terminated = False
        self.window = 65535
        self.unanswered = True

    def move(self, everything: bool = False) -> None:
        """Some of the bytes that are under way arrive."""
        rng = self.rng
        for _ in range(1000):
            self.to_ours += self.h2.data_to_send()
            self.to_h2 += self.ours.output(1 << 30 if everything else rng.choice([0, 1, 100, 20000]))
            n = len(self.to_ours) if everything else rng.randrange(len(self.to_ours) + 1)
            if n:
                self.ours.feed(bytes(self.to_ours[:n]), 0 if everything else rng.choice([0, 1, 7, 1000]) if n < 3000 else 0)
                del self.to_ours[:n]
            n = len(self.to_h2) if everything else rng.randrange(len(self.to_h2) + 1)
            for event in self.h2.receive_data(bytes(self.to_h2[:n])):
                self.on_h2(event)
            del self.to_h2[:n]
            for event in self.ours.events:
                self.on_ours(event)
            assert not self.ours.dead
            self.to_ours += self.h2.data_to_send()
            if not everything or not (self.to_ours or self.to_h2):
                return
        raise AssertionError("they never stop talking")

    def on_h2(self, event: Event) -> None:
        side = self.down if self.h2.config.client_side else self.up
        if isinstance(event, RequestReceived | ResponseReceived):
            side.read.setdefault(event.stream_id, b"")
        elif isinstance(event, DataReceived):
            side.read[event.stream_id] += event.data
            self.unread[event.stream_id] = self.unread.get(event.stream_id, 0) + event.flow_controlled_length
        elif isinstance(event, TrailersReceived):
            side.trailers[event.stream_id] = [(bytes(n), bytes(v)) for n, v in event.headers]
        elif isinstance(event, StreamEnded):
            side.ended.add(event.stream_id)
        elif isinstance(event, StreamReset):
            self.reset.add(event.stream_id)
        elif isinstance(event, SettingsAcknowledged):
            self.unanswered = False
        elif isinstance(event, ConnectionTerminated):
            self.terminated = True
        else:
            assert not isinstance(event, InformationalResponseReceived) or self.h2.config.client_side

    def on_ours(self, event: tuple[Any, ...]) -> None:
        side = self.up if self.h2.config.client_side else self.down
        if event[0] == "head":
            side.read[event[1]] = b""
        elif event[0] == "data":
            side.read[event[1]] += event[2]
        elif event[0] == "end":
            side.ended.add(event[1])
            if event[2] is not None:
                side.trailers[event[1]] = event[2]
        elif event[0] == "gone":
            self.paused.discard(event[1])
            if event[2] != "done":
                self.reset.add(event[1])
        else:
            assert event[0] not in ("fault", "refused"), event

    def live(self, side: Side) -> list[int]:
        return [stream for stream in side.said if stream not in side.finished and stream not in self.reset]

    # what h2 does

    def h2_says(self, side: Side, stream: int) -> None:
        rng = self.rng
        try:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            piece = rng.randbytes(min(room, rng.choice([0, 1, 50, 5000, 16384])))
            what = rng.randrange(8)
            if what == 0:
                self.h2.send_headers(stream, TRAILERS, end_stream=True)
                side.finished.add(stream)
            elif what == 1:
                self.h2.send_data(stream, piece, end_stream=True)
                side.said[stream] += piece
                side.finished.add(stream)
            elif piece:
                padding = rng.choice([None, None, 0, 50]) if len(piece) + 60 < room else None
                self.h2.send_data(stream, piece, pad_length=padding)
                side.said[stream] += piece
        except RACES:
            return

    def h2_tends(self) -> None:
        """Acknowledges content, changes settings, pings, resets."""
        rng = self.rng
        what = rng.randrange(10)
        if what < 6:
            for stream in [s for s, n in self.unread.items() if n and rng.random() < 0.7]:
                n = self.unread.pop(stream)
                try:
                    self.h2.acknowledge_received_data(n, stream)
                except RACES:
                    self.h2.increment_flow_control_window(1)
        elif what in (6, 7) and self.unanswered:
            return  # h2 takes one acknowledgement for that of every setting that is under way
        elif what == 6:
            # Only upwards: h2 takes an empty DATA frame for a fault when its window is below zero. test_h2_send has that.
            self.window += rng.choice([0, 1, 1000, 65535])
            self.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: self.window})
            self.unanswered = True
        elif what == 7:
            self.h2.update_settings({SettingCodes.HEADER_TABLE_SIZE: rng.choice([0, 100, 4096, 10000])})
            self.unanswered = True
        elif what == 8:
            self.h2.ping(b"12345678")
        else:
            # Not before their final head: h2 takes a 103 on a stream that it has reset for a fault.
            heard = self.down.read if self.h2.config.client_side else self.up.read
            streams = [s for s in self.h2.streams if s in heard and s not in self.reset]
            if streams and rng.random() < 0.3:
                stream = rng.choice(streams)
                try:
                    self.h2.reset_stream(stream, 8)
                    self.reset.add(stream)
                except (ProtocolError, *RACES):
                    return

    # what we do

    def we_say(self, side: Side, stream: int) -> None:
        rng = self.rng
        if stream not in self.ours.streams():
            return
        if self.ours.streams()[stream]["waiting"] < 100000 and rng.random() < 0.8:
            piece = rng.randbytes(rng.choice([0, 1, 50, 5000, 70000]))
            side.said[stream] += piece
            self.ours.send(stream, piece)
        elif stream in self.ours.streams():
            side.finished.add(stream)
            self.ours.finish(stream, TRAILERS if rng.random() < 0.4 else None)

    def we_tend(self) -> None:
        rng = self.rng
        streams = list(self.ours.streams())
        what = rng.randrange(10)
        if what < 3 and streams:
            stream = rng.choice(streams)
            self.ours.pause(stream)
            self.paused.add(stream)
        elif what < 8 and self.paused:
            stream = rng.choice(sorted(self.paused))
            self.paused.discard(stream)
            self.ours.resume(stream)
        elif what == 8:
            self.ours.ping()
        elif streams and rng.random() < 0.2:
            stream = rng.choice(streams)
            self.reset.add(stream)
            self.ours.reset(stream, rng.choice([0, 2, 8]))
        self.now += rng.choice([0, 1, 50, 300])
        self.ours.set_now(self.now)

    def settle(self, said_by_h2: Side, said_by_us: Side) -> None:
        """Everybody finishes; everything is read; both sides must then have heard the same."""
        for _ in range(3000):
            self.move(everything=True)
            for stream in sorted(self.paused):
                self.paused.discard(stream)
                if stream in self.ours.streams():
                    self.ours.resume(stream)
            for event in self.ours.events:
                self.on_ours(event)
            for stream, n in list(self.unread.items()):
                del self.unread[stream]
                try:
                    self.h2.acknowledge_received_data(n, stream)
                except (ProtocolError, *RACES):
                    self.h2.increment_flow_control_window(max(n, 1))
            for stream in self.live(said_by_us):
                if stream in self.ours.streams():
                    said_by_us.finished.add(stream)
                    self.ours.finish(stream)
            for stream in self.live(said_by_h2):
                try:
                    self.h2.end_stream(stream)
                    said_by_h2.finished.add(stream)
                except (ProtocolError, *RACES):
                    self.reset.add(stream)
            pending = any(known["waiting"] for known in self.ours.streams().values())
            if not pending and not self.to_ours and not self.to_h2 and not self.unread:
                self.to_ours += self.h2.data_to_send()
                if not self.to_ours:
                    break
        for side in (said_by_h2, said_by_us):
            for stream, said in side.said.items():
                read = side.read.get(stream, b"")
                if stream in side.ended and stream in side.finished and stream not in self.reset:
                    assert read == said, stream
                else:
                    assert said.startswith(read), stream
                # a reset, or a message that was cut, never looks like an end
                assert stream not in side.ended or stream in side.finished, stream


def prepare(wire: Wire) -> None:
    wire.move(everything=True)
    if wire.rng.random() < 0.5:
        wire.window = wire.rng.choice([10, 5000, 1 << 20])
        wire.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: wire.window})
        wire.unanswered = True
        wire.move(everything=True)
    if wire.rng.random() < 0.5:
        wire.h2.increment_flow_control_window(1 << 20)


@pytest.mark.parametrize("seed", SEEDS)
def test_we_serve_h2(seed: int) -> None:
    rng = random.Random(f"serve {seed}")
    wire = Wire(rng, True)
    prepare(wire)
    for _ in range(STEPS):
        what = rng.randrange(12)
        if what < 2:
            try:
                stream = wire.h2.get_next_available_stream_id()
                extra = rng.sample(FIELDS, rng.randrange(4))
                head = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"a.example"), (b":path", b"/p?q"), *extra]
                wire.h2.send_headers(stream, head)
                wire.up.said[stream] = b""
            except RACES:
                pass
        elif what < 5 and wire.live(wire.up):
            wire.h2_says(wire.up, rng.choice(wire.live(wire.up)))
        elif what < 7:
            wire.h2_tends()
        elif what < 10:
            open_ = [s for s in wire.ours.streams() if s in wire.up.read and s not in wire.down.finished]
            if open_:
                stream = rng.choice(open_)
                if stream not in wire.down.said:
                    if rng.random() < 0.3:
                        wire.ours.respond(stream, [(b":status", b"103"), (b"link", b"</x>")], has_content=False)
                    wire.ours.respond(stream, [(b":status", b"200"), *rng.sample(FIELDS[3:5], rng.randrange(3))])
                    wire.down.said[stream] = b""
                else:
                    wire.we_say(wire.down, stream)
        else:
            wire.we_tend()
        wire.move()
    wire.settle(wire.up, wire.down)
    assert not wire.terminated


@pytest.mark.parametrize("seed", SEEDS)
def test_we_ask_h2(seed: int) -> None:
    rng = random.Random(f"ask {seed}")
    wire = Wire(rng, False)
    prepare(wire)
    answering: set[int] = set()
    for _ in range(STEPS):
        what = rng.randrange(12)
        if what < 2:
            head = [
                (b":method", b"POST"),
                (b":authority", b"a.example"),
                (b":path", b"/p?q"),
                *rng.sample(FIELDS[:5], rng.randrange(4)),
            ]
            stream = wire.ours.open(head, has_more=True, secure=True)
            if stream:
                wire.up.said[stream] = b""
        elif what < 5 and wire.live(wire.up):
            wire.we_say(wire.up, rng.choice(wire.live(wire.up)))
        elif what < 7:
            wire.h2_tends()
        elif what < 10:
            open_ = [s for s in wire.up.read if s not in wire.reset and s not in wire.down.finished]
            if open_:
                stream = rng.choice(open_)
                try:
                    if stream in answering:
                        wire.h2_says(wire.down, stream)
                    elif rng.random() < 0.3:
                        wire.h2.send_headers(stream, [(b":status", b"103"), (b"link", b"</x>")])
                    else:
                        wire.h2.send_headers(stream, [(b":status", b"200"), *rng.sample(FIELDS[3:5], rng.randrange(3))])
                        answering.add(stream)
                        wire.down.said[stream] = b""
                except RACES:
                    pass
        else:
            wire.we_tend()
        wire.move()
    wire.settle(wire.down, wire.up)
    assert not wire.terminated


@pytest.mark.parametrize("seed", SEEDS)
def test_we_serve_ourselves(seed: int) -> None:
    """Both sides ours, every byte in small pieces: what one says the other reads."""
    rng = random.Random(f"ourselves {seed}")
    client = Session(False, window=rng.choice([500, 65535]), connection_window=65535)
    server = Session(True, window=rng.choice([500, 65535]), connection_window=65535, table=rng.choice([0, 4096]))
    said: dict[int, bytes] = {}
    heard: dict[int, bytes] = {}
    answered: dict[int, bytes] = {}
    read: dict[int, bytes] = {}
    ends: set[tuple[str, int]] = set()

    def move() -> None:
        for _ in range(3):
            out = client.output(rng.choice([3, 500, 100000]))
            if out:
                server.feed(out, rng.choice([0, 1, 100]) if len(out) < 2000 else 0)
            out = server.output(rng.choice([3, 500, 100000]))
            if out:
                client.feed(out, rng.choice([0, 1, 100]) if len(out) < 2000 else 0)
        for event in server.events:
            if event[0] == "head":
                heard[event[1]] = b""
                server.respond(event[1], [(b":status", b"200"), (b"x", b"y")])
                answered[event[1]] = b""
            elif event[0] == "data":
                heard[event[1]] += event[2]
                answered[event[1]] += event[2][::-1]
                server.send(event[1], event[2][::-1])
            elif event[0] == "end":
                ends.add(("up", event[1]))
                server.finish(event[1], event[2])
        for event in client.events:
            if event[0] == "head":
                read[event[1]] = b""
            elif event[0] == "data":
                read[event[1]] += event[2]
            elif event[0] == "end":
                ends.add(("down", event[1]))
        assert not client.dead and not server.dead

    unfinished = []
    for _ in range(200):
        if rng.random() < 0.15 and client.room():
            stream = client.open([(b":method", b"POST"), (b":path", b"/"), (b":authority", b"a")], has_more=True)
            said[stream], _ = b"", unfinished.append(stream)
        elif unfinished:
            stream = rng.choice(unfinished)
            if rng.random() < 0.8:
                piece = rng.randbytes(rng.choice([1, 100, 3000]))
                said[stream] += piece
                client.send(stream, piece)
            else:
                unfinished.remove(stream)
                client.finish(stream, TRAILERS if rng.random() < 0.5 else None)
        move()
    for stream in unfinished:
        client.finish(stream)
    for _ in range(20000):
        move()
        if not client.streams() and not server.streams():
            break
    assert heard == said and read == answered
    assert ends == {(way, stream) for stream in said for way in ("up", "down")}
