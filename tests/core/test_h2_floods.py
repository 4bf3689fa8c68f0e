"""Floods of HTTP/2 from a client: classes D1 to D13, and the ledger of misbehaviour that ends them."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from h2frames import (
    ACK,
    CALM,
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    GET,
    GOAWAY,
    HEADERS,
    NO_ERROR,
    OK,
    PING,
    POST,
    PREFACE,
    PRIORITY,
    PRIORITY_UPDATE,
    SETTINGS,
    Pairs,
    Speaker,
    data,
    frame,
    frames,
    rst,
    setting,
    settings,
    update,
)

from gateway._core.h2probe import Session

WEIGHT = b"\x00\x00\x00\x00\x10"


class Attacker:
    """A client that sends until it is told to go. The clock stands still unless a test moves it."""

    def __init__(self, *sent: tuple[int, int], **limits: int) -> None:
        self.session, self.speaker = Session(True, **limits), Speaker()
        self.now, self.next = 1000, 1
        self.opened = self.gone = 0
        self.faults: list[str] = []
        self.session.set_hook(self.note)
        self.session.feed(PREFACE + settings(*sent) + frame(SETTINGS, ACK))
        self.session.all_output()

    def note(self, event: tuple[Any, ...]) -> None:
        self.opened += event[0] == "head"
        self.gone += event[0] == "gone"
        if event[0] == "fault":
            self.faults.append(event[1])

    def send(self, *pieces: bytes) -> None:
        self.session.feed(b"".join(pieces))
        self.session.events  # noqa: B018 - what was told is in the counts

    def ask(self, pairs: Pairs = GET, end: bool = True) -> int:
        stream, self.next = self.next, self.next + 2
        self.send(self.speaker.headers(stream, pairs, end))
        return stream

    def answer(self, stream: int) -> None:
        self.session.respond(stream, OK)
        self.session.finish(stream)

    def pass_time(self, ms: int) -> None:
        self.now += ms
        self.session.set_now(self.now)

    def until_told_to_go(self, step: Callable[[], object], most: int, read: bool = True) -> int:
        """How many steps it takes; the connection must be ended with ENHANCE_YOUR_CALM before `most`."""
        for n in range(most):
            step()
            if self.session.dead:
                found = frames(self.session.output())
                assert (found[-1].type, found[-1].code) == (GOAWAY, CALM)
                return n + 1
            if read:
                self.session.output()
        raise AssertionError("it may go on for ever")


# D1: rapid reset


def test_d1_rapid_reset() -> None:
    attacker = Attacker()
    steps = attacker.until_told_to_go(lambda: attacker.send(rst(attacker.ask())), 100_000)
    assert steps == 201 and attacker.opened == 201 and attacker.gone == 201
    assert attacker.faults == ["flood_reset"]


def test_d1_slowly_or_with_answers_between() -> None:
    """Cancelled requests among answered ones are no flood, nor are some every second."""
    client = Attacker()
    for _ in range(3000):
        client.answer(client.ask())
        client.send(rst(client.ask()))
        client.session.output()
    for _ in range(1000):
        client.send(rst(client.ask()))
        client.session.output()
        client.pass_time(110)
    assert not client.session.dead


def test_d1_resets_of_what_was_answered_already() -> None:
    client = Attacker()
    stream = client.ask()
    client.answer(stream)
    steps = client.until_told_to_go(lambda: client.send(rst(stream)), 10_000)
    assert steps == 101 and client.faults == ["flood_reset"]


@pytest.mark.parametrize("share", [0, 0.3, 0.5, 0.7, 0.9, 1])
def test_d1_spaced_so_that_some_answers_are_quicker(share: float) -> None:
    """Whether an answer or the reset comes first is chance, and makes no difference."""
    attacker, rng = Attacker(), random.Random(7)

    def step() -> None:
        stream = attacker.ask()
        if rng.random() < share:
            attacker.answer(stream)
            attacker.session.all_output()
        attacker.send(rst(stream))

    attacker.until_told_to_go(step, 100_000)
    assert 198 <= attacker.opened <= 205 and attacker.faults == ["flood_reset"]


def test_d1_an_answer_that_comes_early_makes_no_flood_of_its_client() -> None:
    """A client of gRPC resets what was answered before it had said everything; so do we, and the two cross."""
    client = Attacker()
    for _ in range(2000):
        stream = client.ask(POST, end=False)
        client.answer(stream)
        client.send(rst(stream, NO_ERROR))
        client.session.all_output()
        client.pass_time(20)
    assert not client.session.dead


# D2: MadeYouReset


@pytest.mark.parametrize(
    "piece",
    [
        lambda stream: update(stream, 0),
        lambda stream: frame(PRIORITY, 0, stream, b"\x00\x00\x00"),
        lambda stream: frame(PRIORITY, 0, stream, stream.to_bytes(4, "big") + b"\x10"),
        lambda stream: data(stream, b"x"),
        lambda stream: frame(HEADERS, END_HEADERS | END_STREAM, stream, b"\x82"),
    ],
)
def test_d2_what_would_make_us_reset_ends_the_connection(piece: Callable[[int], bytes]) -> None:
    attacker = Attacker()
    streams = [attacker.ask() for _ in range(5)]
    attacker.send(piece(streams[0]))
    assert attacker.session.dead and attacker.gone == 5


@pytest.mark.parametrize(
    "pairs", [[*GET, (b"connection", b"x")], [*GET, (b"x_y", b"1")], [*GET, (b"X", b"1")], GET[1:], [*GET, (b"x", b"a\x00")]]
)
def test_d2_malformed_requests_are_counted(pairs: Pairs) -> None:
    attacker = Attacker()

    def step() -> None:
        stream = attacker.ask(pairs)
        if stream in attacker.session.streams():
            attacker.session.reset(stream)

    assert attacker.until_told_to_go(step, 1000) <= 100
    assert attacker.faults[-1] == "flood_fault" and attacker.opened == 0


def test_d2_content_that_is_too_long() -> None:
    attacker = Attacker()

    def step() -> None:
        attacker.send(data(attacker.ask([*POST, (b"content-length", b"1")], end=False), b"xx"))

    assert attacker.until_told_to_go(step, 1000) <= 100
    assert attacker.gone == attacker.opened <= 100


def test_d2_windows_beyond_their_bound() -> None:
    attacker = Attacker()
    assert attacker.until_told_to_go(lambda: attacker.send(update(attacker.ask(), 0x7FFFFFFF)), 1000) <= 100
    assert attacker.gone == attacker.opened and attacker.faults[-1] == "flood_fault"


def test_d2_streams_beyond_the_limit() -> None:
    attacker = Attacker()
    for _ in range(100):
        attacker.ask()
    assert attacker.until_told_to_go(attacker.ask, 1000) == 201
    assert attacker.opened == 100 and attacker.faults == ["flood_streams"]


def test_mistakes_now_and_then_are_forgiven() -> None:
    client = Attacker()
    for _ in range(500):
        client.ask([*GET, (b"connection", b"x")])
        client.pass_time(1100)
        client.session.output()
    assert not client.session.dead


# D3: CONTINUATION


@pytest.mark.parametrize("piece", [b"", b"\x82", b"\x00" * 16384])
def test_d3_continuation_without_end(piece: bytes) -> None:
    attacker = Attacker()
    attacker.send(frame(HEADERS, 0, 1, b"\x82"))
    steps = attacker.until_told_to_go(lambda: attacker.send(frame(CONTINUATION, 0, 1, piece)), 1000)
    assert steps == (4 if len(piece) > 100 else 9) and attacker.faults == ["flood_block"]
    assert attacker.opened == 0 and attacker.session.facts()["block"] <= 1 << 17


def test_d10_a_block_that_is_never_finished() -> None:
    attacker = Attacker()
    attacker.send(frame(HEADERS, 0, 1, b"\x82"))
    for ms in range(0, 9000, 1000):
        attacker.session.tick(1000 + ms)
        attacker.send(frame(CONTINUATION, 0, 1, b"")) if ms % 2000 == 0 else None
    assert not attacker.session.dead
    attacker.session.tick(11000)
    assert attacker.session.dead and attacker.faults == ["flood_block"]


# D4: the HPACK bomb


def test_d4_indexed_references() -> None:
    """One entry, referenced 15,000 times in each of many requests: none is stored, the table stays in step, and it ends soon."""
    attacker = Attacker()
    attacker.ask([*GET, (b"a", b"")])
    index = bytes([0x80 | 62])
    block = attacker.speaker.encoder.encode(GET) + index * 15000

    def step() -> None:
        stream, attacker.next = attacker.next, attacker.next + 2
        attacker.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, block))
        if stream in attacker.session.streams():
            attacker.session.respond(stream, [(b":status", b"431")], length=0)
            attacker.session.finish(stream)

    # An answer to such a request is no success that the ledger forgives for.
    assert attacker.until_told_to_go(step, 5000) <= 100
    assert attacker.opened == 1
    assert set(attacker.faults) == {"fields_many", "flood_fault"}


@pytest.mark.parametrize("crumb", [b"", b"c" * 4000])
def test_d4_cookie_crumbs(crumb: bytes) -> None:
    attacker = Attacker()
    attacker.ask([*GET, (b"cookie", crumb)])
    wire = attacker.speaker.encoder.encode([*GET, (b"cookie", crumb)])
    attacker.send(frame(HEADERS, END_HEADERS | END_STREAM, 3, wire + wire[-1:] * 4000))
    assert attacker.opened == 1 and attacker.faults[0] in ("fields_many", "fields_large")
    attacker.session.respond(3, [(b":status", b"431")], length=0)
    attacker.session.finish(3)
    attacker.next = 5
    attacker.ask([*GET, (b"cookie", crumb), (b"x-new", b"1")])
    assert attacker.opened == 2, "the table is in step all the same"


def test_d4_a_window_of_nothing_and_a_drip() -> None:
    """Held streams are reaped although an update of one byte drips in every 20 seconds."""
    attacker = Attacker((4, 0))
    streams = [attacker.ask() for _ in range(10)]
    for stream in streams:
        attacker.session.respond(stream, OK)
        attacker.session.send(stream, b"x" * 60000)
    attacker.session.output()
    for second in range(20, 101, 20):
        attacker.session.tick(1000 + second * 1000)
        if attacker.session.streams():
            attacker.send(*[update(stream, 1) for stream in attacker.session.streams()])
        attacker.session.output()
    assert attacker.session.streams() == {} and attacker.faults.count("h2_stall") == 10
    assert not attacker.session.dead


def test_d9_a_reader_that_is_slow_but_reads() -> None:
    client = Attacker((4, 0))
    stream = client.ask()
    client.session.respond(stream, OK)
    client.session.send(stream, b"x" * 200000)
    for second in range(1, 11):
        client.send(update(stream, 17000), update(0, 17000))
        client.session.output()
        client.session.tick(1000 + second * 29000)
    assert stream in client.session.streams() and client.faults == []


def test_d9_the_connections_window_counts_as_well() -> None:
    attacker = Attacker((4, 1 << 20))
    stream = attacker.ask()
    attacker.session.respond(stream, OK)
    attacker.session.send(stream, b"x" * 100000)
    attacker.session.output()
    assert attacker.session.tick(2000) == 31000
    attacker.session.tick(30999)
    assert stream in attacker.session.streams()
    attacker.session.tick(31000)
    assert attacker.faults == ["h2_stall"]


def test_what_waits_for_its_turn_alone_is_not_reaped() -> None:
    client = Attacker((4, 1 << 20))
    client.send(update(0, 1 << 20))
    streams = [client.ask() for _ in range(5)]
    for stream in streams:
        client.session.respond(stream, OK)
        client.session.send(stream, b"x" * 60000)
    for second in range(10, 200, 10):
        client.session.tick(1000 + second * 1000)
    assert sorted(client.session.streams()) == streams


# D5: the table


def test_d5_resizing_the_table() -> None:
    attacker = Attacker()
    flips = [0]

    def step() -> None:
        attacker.speaker.encoder.header_table_size = 0 if flips[0] % 2 else 4096
        flips[0] += 1
        stream = attacker.ask()
        if not attacker.session.dead:
            attacker.answer(stream)

    assert attacker.until_told_to_go(step, 1000) <= 210
    assert attacker.faults == ["flood_table"]


# D6: PING and SETTINGS


@pytest.mark.parametrize(
    ("piece", "name", "most"),
    [
        (frame(PING, 0, 0, b"12345678"), "flood_ping", 101),
        (frame(PING, ACK, 0, b"12345678"), "flood_ping", 101),
        (settings(), "flood_settings", 99),
        (settings((4, 5)), "flood_settings", 99),
        (frame(SETTINGS, ACK), "flood_settings", 99),
    ],
)
def test_d6_without_reading(piece: bytes, name: str, most: int) -> None:
    attacker = Attacker()
    assert attacker.until_told_to_go(lambda: attacker.send(piece), 10_000, read=False) == most
    assert attacker.faults == [name] and attacker.session.facts()["out"] < 4096


def test_d6_settings_with_many_entries() -> None:
    attacker = Attacker()
    attacker.send(frame(SETTINGS, 0, 0, setting(3, 1) * 64))
    assert not attacker.session.dead
    attacker.send(frame(SETTINGS, 0, 0, setting(3, 1) * 65))
    assert attacker.faults == ["flood_settings"]


def test_d6_slow_enough_to_be_allowed_and_never_read() -> None:
    """Ten PINGs a second are allowed; a thousand answers that nobody reads are not."""
    attacker = Attacker()

    def step() -> None:
        attacker.pass_time(101)
        attacker.send(frame(PING, 0, 0, b"12345678"))

    assert attacker.until_told_to_go(step, 2000, read=False) == 1001
    assert attacker.faults == ["flood_output"] and attacker.session.facts()["out"] < 32768


def test_d6_slow_enough_and_read() -> None:
    client = Attacker()
    for _ in range(3000):
        client.pass_time(101)
        client.send(frame(PING, 0, 0, b"12345678"))
        client.session.output()
    assert not client.session.dead


# D7 and D8: frames that say nothing


def test_d7_empty_content() -> None:
    attacker = Attacker()
    stream = attacker.ask(POST, end=False)
    assert attacker.until_told_to_go(lambda: attacker.send(data(stream, b"")), 1000) == 101
    assert attacker.faults == ["flood_empty"]


def test_d7_content_that_is_padding() -> None:
    attacker = Attacker()
    stream = attacker.ask(POST, end=False)
    assert attacker.until_told_to_go(lambda: attacker.send(data(stream, b"x", padding=255)), 5000) == 1001
    assert attacker.faults == ["flood_empty"]


def test_d7_small_messages_are_no_flood() -> None:
    """A stream of gRPC messages of a few bytes each."""
    client = Attacker()
    stream = client.ask(POST, end=False)
    for _ in range(20000):
        client.send(data(stream, b"\x00\x00\x00\x00\x02hi"))
    assert not client.session.dead
    assert client.session.facts()["window"] > 500000


@pytest.mark.parametrize(
    "piece",
    [
        update(0, 1),
        update(1, 1),
        frame(PRIORITY, 0, 1, WEIGHT),
        frame(PRIORITY, 0, 9999, WEIGHT),
        frame(77, 0, 0, b"x"),
        frame(PRIORITY_UPDATE, 0, 0, b"\x00\x00\x00\x01u=1"),
    ],
)
def test_d8_frames_of_control(piece: bytes) -> None:
    attacker = Attacker()
    attacker.ask(POST, end=False)
    assert attacker.until_told_to_go(lambda: attacker.send(piece), 5000) <= 310
    assert attacker.faults == ["flood_control"]


def test_d8_updates_that_content_explains() -> None:
    """Two updates for every frame of a download, and a PRIORITY for every request."""
    client = Attacker((4, 1 << 20))
    for _ in range(200):
        stream = client.ask()
        client.send(frame(PRIORITY, 0, stream, WEIGHT))
        client.session.respond(stream, OK)
        for _ in range(30):
            client.session.send(stream, b"x" * 1000)
            client.session.output()
            client.send(update(0, 1000), update(stream, 1000))
        client.session.finish(stream)
        client.session.output()
    assert not client.session.dead


def test_d8_heads_without_fields() -> None:
    attacker = Attacker()
    assert attacker.until_told_to_go(lambda: attacker.ask([(b"", b"")] * 10), 1000) <= 100
    attacker = Attacker()
    assert attacker.until_told_to_go(lambda: attacker.ask([]), 1000) <= 100


def test_d11_ten_thousand_tiny_fields() -> None:
    attacker = Attacker()
    block = attacker.speaker.encoder.encode(GET) + b"\x00\x01a\x00" * 4000
    attacker.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, block))
    assert attacker.faults == ["fields_many"] and attacker.opened == 0


# D13: windows and credit


def test_d13_uploads_reset_in_their_midst_leave_no_hole() -> None:
    client = Attacker(window=65535, connection_window=100000)
    for n in range(3000):
        stream = client.ask(POST, end=False)
        if n % 3 == 0 and stream in client.session.streams():
            client.session.pause(stream)
        client.send(data(stream, b"x" * 5000, padding=n % 256), data(stream, b"y" * 1000))
        if n % 2:
            client.send(rst(stream))
        else:
            client.session.reset(stream)
            client.send(data(stream, b"z" * 3000), rst(stream))
        client.answer(client.ask())
        client.pass_time(100)
        client.session.output()
    facts = client.session.facts()
    assert (facts["held"], facts["withheld"]) == (0, 0) and facts["window"] > 49000
    stream = client.ask(POST, end=False)
    sent = 0
    while sent < 1 << 20:
        client.send(data(stream, b"x" * 16384))
        sent += 16384
    assert not client.session.dead


# The ledger


def test_a_mixture_is_counted_together() -> None:
    """None of it would be too much alone."""
    attacker = Attacker()
    stream = attacker.ask(POST, end=False)
    answered = attacker.ask(POST, end=False)
    attacker.answer(answered)

    def step() -> None:
        attacker.send(data(stream, b""), rst(answered), data(stream, b"x", padding=200))

    assert 70 < attacker.until_told_to_go(step, 1000) < 90


def test_points_leak_away() -> None:
    client = Attacker()
    stream = client.ask(POST, end=False)
    for _ in range(50):
        client.send(*[data(stream, b"")] * 90)
        client.pass_time(9100)
    assert not client.session.dead
    client.pass_time(10**9)
    client.send(*[data(stream, b"")] * 100)
    assert not client.session.dead
    client.send(data(stream, b""))
    assert client.session.dead


def test_a_clock_that_stands_still_or_goes_back_is_harmless() -> None:
    client = Attacker()
    stream = client.ask(POST, end=False)
    for now in (1000, 500, 0, 1000, 2000, 1):
        client.session.set_now(now)
        client.send(data(stream, b""))
    assert not client.session.dead


def test_nothing_is_told_twice() -> None:
    attacker = Attacker()
    for _ in range(50):
        attacker.ask(POST, end=False)
    attacker.until_told_to_go(lambda: attacker.send(frame(PING, 0, 0, b"12345678")), 1000)
    assert attacker.gone == 50 and len(attacker.faults) == 1
    attacker.send(frame(PING, 0, 0, b"12345678") * 100)
    attacker.session.tick(10**9)
    attacker.session.close()
    assert attacker.gone == 50 and len(attacker.faults) == 1
