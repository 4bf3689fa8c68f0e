"""Ten streams of one connection that echo what they hear, with readers that stop at random: none stalls, none holds up another.

Our session is the server, with the back-pressure of a gateway before an echoing origin: whoever has too much to say stops listening
until it has said it. The h2 library is the client, which sends as far as its windows go and gives windows back as it likes, to one
stream more eagerly than to another. GW_SIM_SEED repeats one run, GW_SIM_RUNS makes more.
"""

import os
import random
from collections.abc import Iterator

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded, StreamReset
from h2.settings import SettingCodes

from gateway._core.h2probe import Session, set_spare

RUNS = int(os.environ.get("GW_SIM_RUNS", "10"))
SEEDS = [int(os.environ["GW_SIM_SEED"])] if "GW_SIM_SEED" in os.environ else range(RUNS)
STREAMS, SIZE, SPARE = 10, 1 << 18, 64 << 20
PATIENCE = 500  # rounds in which nothing may move because everybody happens to rest
HEAD = [(":method", "POST"), (":scheme", "http"), (":authority", "a.test"), (":path", "/echo")]


class Echoes:
    """Both ends and what they have said. `slow`: how seldom each stream's reader at the client gives its window back."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.now = rng, 1000
        set_spare(rng.choice([0, 1 << 16, SPARE]))
        self.window = rng.choice([16384, 65535, 262144])
        connection = rng.choice([65535, 1 << 20])
        self.ours = Session(True, window=self.window, connection_window=connection, held=rng.choice([16384, 1 << 20]))
        self.h2 = H2Connection(H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: rng.choice([1000, 65535, 1 << 20])})
        if rng.random() < 0.5:
            self.h2.increment_flow_control_window(1 << 20)
        self.content = {2 * n + 1: rng.randbytes(SIZE) for n in range(STREAMS)}
        self.slow = {stream: rng.choice([0.0, 0.5, 0.95]) for stream in self.content}
        self.sent = dict.fromkeys(self.content, 0)
        self.heard = {stream: bytearray() for stream in self.content}
        self.unread = dict.fromkeys(self.content, 0)
        self.full: set[int] = set()  # the echo has more to say than the stream takes
        self.ended: set[int] = set()

    def client(self) -> None:
        for stream, content in self.content.items():
            at = self.sent[stream]
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size, SIZE - at)
            if room > 0 and self.rng.random() < 0.8:
                piece = content[at : at + self.rng.randint(1, room)]
                self.sent[stream] += len(piece)
                self.h2.send_data(stream, piece, end_stream=self.sent[stream] == SIZE)
            if self.unread[stream] and self.rng.random() >= self.slow[stream]:
                self.h2.acknowledge_received_data(self.unread[stream], stream)
                self.unread[stream] = 0

    def gateway(self) -> None:
        for event in self.ours.events:
            assert event[0] not in ("fault", "gone") or event[2] == "done", event
            if event[0] == "head":
                self.ours.respond(event[1], [(b":status", b"200")])
            elif event[0] == "data":
                if self.ours.send(event[1], event[2]):
                    self.full.add(event[1])
                    self.ours.pause(event[1])
            elif event[0] == "drained":
                self.full.discard(event[1])
                if event[1] in self.ours.streams():
                    self.ours.resume(event[1])
            elif event[0] == "end":
                self.ours.finish(event[1])

    def exchange(self) -> bool:
        """Bytes go both ways; whether any did."""
        out = self.h2.data_to_send()
        self.ours.feed(out)
        self.gateway()
        back = self.ours.output(self.rng.choice([1000, 50000, 1 << 30]))
        for event in self.h2.receive_data(back):
            assert not isinstance(event, StreamReset)
            if isinstance(event, DataReceived):
                self.heard[event.stream_id] += event.data
                self.unread[event.stream_id] += event.flow_controlled_length
            elif isinstance(event, StreamEnded):
                self.ended.add(event.stream_id)
                if self.unread[event.stream_id]:
                    # of a stream that is over only the connection's window is given back
                    self.h2.increment_flow_control_window(self.unread[event.stream_id])
                    self.unread[event.stream_id] = 0
        self.gateway()
        self.now += 10
        self.ours.set_now(self.now)
        return bool(out or back)


@pytest.fixture(autouse=True)
def spare() -> Iterator[None]:
    yield
    set_spare(SPARE)


@pytest.mark.parametrize("seed", SEEDS)
def test_ten_echoes_with_readers_that_stop(seed: int) -> None:
    echoes = Echoes(random.Random(f"echo {seed}"))
    for stream in echoes.content:
        echoes.h2.send_headers(stream, HEAD)
    still = 0
    while len(echoes.ended) < STREAMS:
        echoes.client()
        still = 0 if echoes.exchange() else still + 1
        assert still < PATIENCE, (echoes.ours.facts(), echoes.ours.streams())
    assert {stream: bytes(heard) for stream, heard in echoes.heard.items()} == echoes.content
    facts = echoes.ours.facts()
    assert facts["held"] == facts["withheld"] == facts["borrowed"] == facts["out"] == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_one_reader_that_never_reads_holds_up_nobody(seed: int) -> None:
    """Its stream stops for ever; the nine others are done all the same: the connection has a window beyond what it ate."""
    rng = random.Random(f"stopped {seed}")
    echoes = Echoes(rng)
    echoes.h2.increment_flow_control_window(1 << 21)
    for stream in echoes.content:
        echoes.h2.send_headers(stream, HEAD)
    stopped = rng.choice(sorted(echoes.content))
    echoes.slow[stopped] = 2.0
    still = 0
    while len(echoes.ended - {stopped}) < STREAMS - 1:
        echoes.client()
        still = 0 if echoes.exchange() else still + 1
        assert still < PATIENCE, (stopped, echoes.ours.facts(), echoes.ours.streams())
