"""What an HTTP/2 connection sends and when: windows, turns, urgency, ends, trailers; RFC 9113 §5.2 and §6.9, RFC 9218 §10."""

import random
from typing import Any

import pytest
from h2frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GET,
    HEADERS,
    INTERNAL,
    NO_ERROR,
    OK,
    POST,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    Frame,
    Pairs,
    Speaker,
    data,
    frame,
    frames,
    rst,
    settings,
    update,
)

from gateway._core.h2probe import Session

Event = tuple[Any, ...]


class Client:
    def __init__(self, *sent: tuple[int, int]) -> None:
        self.session, self.speaker = Session(True), Speaker()
        self.session.feed(PREFACE + settings(*sent) + frame(SETTINGS, ACK))
        self.session.all_output()
        self.next = 1
        assert self.session.events == [("settings",)]

    def send(self, *pieces: bytes) -> None:
        self.session.feed(b"".join(pieces))

    def ask(self, pairs: Pairs = GET, end: bool = True, respond: bool = True, length: int | None = None) -> int:
        stream, self.next = self.next, self.next + 2
        self.send(self.speaker.headers(stream, pairs, end))
        if respond:
            self.session.respond(stream, OK, length=length)
        return stream

    def answers(self) -> list[Frame]:
        found = frames(self.session.all_output())
        for answer in found:
            if answer.type == HEADERS:
                self.speaker.read(answer.payload)
        return found

    def content(self, stream: int | None = None) -> bytes:
        return b"".join(a.payload for a in self.answers() if a.type == DATA and stream in (None, a.stream))


# Ends


def test_the_end_goes_along_with_the_last_frame() -> None:
    client = Client()
    stream = client.ask()
    client.session.send(stream, b"hello ")
    client.session.send(stream, b"world")
    client.session.finish(stream)
    assert [(a.type, a.flags & END_STREAM) for a in client.answers()] == [(HEADERS, 0), (DATA, 0), (DATA, 1)]


def test_the_end_goes_along_with_a_head_that_is_all() -> None:
    client = Client()
    stream = client.ask()
    client.session.finish(stream)
    assert [(a.type, a.flags & END_STREAM) for a in client.answers()] == [(HEADERS, 1)]


def test_the_end_comes_alone_when_everything_else_has_gone_out() -> None:
    client = Client()
    stream = client.ask()
    client.session.send(stream, b"hello")
    assert len(client.answers()) == 2
    client.session.finish(stream)
    assert client.answers() == [Frame(DATA, END_STREAM, stream, b"")]


def test_each_stream_has_its_own_last_frame() -> None:
    client = Client()
    streams = [client.ask() for _ in range(10)]
    for stream in streams:
        client.session.send(stream, b"%d" % stream)
    for stream in reversed(streams):
        client.session.finish(stream)
    ended = [a for a in client.answers() if a.flags & END_STREAM]
    assert [(a.type, a.stream, a.payload) for a in ended] == [(DATA, stream, b"%d" % stream) for stream in streams]


@pytest.mark.parametrize("taken", [1, 9, 20, 40])
def test_a_frame_that_was_partly_written_is_not_touched(taken: int) -> None:
    client = Client()
    stream = client.ask()
    client.session.send(stream, b"hello")
    out = client.session.output(taken)
    client.session.finish(stream)
    found = frames(out + client.session.all_output())
    assert [a.flags & END_STREAM for a in found] in ([0, 0, 1],)


def test_the_end_waits_for_the_content_before_it() -> None:
    client = Client((4, 10))
    stream = client.ask()
    client.session.send(stream, b"0123456789abcdef")
    client.session.finish(stream)
    assert [(a.type, a.payload, a.flags & END_STREAM) for a in client.answers()][1:] == [(DATA, b"0123456789", 0)]
    client.send(update(stream, 100))
    assert client.answers() == [Frame(DATA, END_STREAM, stream, b"abcdef")]
    assert client.session.events[-1] == ("gone", stream, "done", 0, None)


def test_answers_without_content() -> None:
    for pairs, status in ((GET, 204), (GET, 304), ([(b":method", b"HEAD"), *GET[1:]], 200)):
        client = Client()
        stream = client.ask(pairs, respond=False)
        client.session.respond(stream, [(b":status", b"%d" % status), (b"content-length", b"5")], length=5)
        assert client.session.send(stream, b"which nobody may see") is False
        assert client.session.events[-1][0] != "gone", "the sender ends its message itself"
        client.session.finish(stream)
        (head,) = client.answers()
        assert head.flags == END_HEADERS | END_STREAM
        assert client.session.events == [("gone", stream, "done", 0, None)]


def test_an_early_answer_ends_the_request_without_a_failure() -> None:
    """RFC 9113 §8.1: RST_STREAM with NO_ERROR after a complete response."""
    client = Client()
    stream = client.ask(POST, end=False)
    client.session.finish(stream)
    head, reset = client.answers()
    assert head.flags & END_STREAM and reset == Frame(RST_STREAM, 0, stream, NO_ERROR.to_bytes(4, "big"))
    assert client.session.events[-1] == ("gone", stream, "done", 0, None)
    client.send(data(stream, b"x" * 16384), data(stream, b"", True))
    assert not client.session.dead


def test_what_is_shorter_than_its_length_is_no_end() -> None:
    """A truncated answer never becomes END_STREAM."""
    client = Client()
    stream = client.ask(length=10)
    client.session.send(stream, b"hello")
    client.session.finish(stream)
    assert client.answers()[-1] == Frame(RST_STREAM, 0, stream, INTERNAL.to_bytes(4, "big"))
    client = Client()
    stream = client.ask(respond=False)
    client.session.finish(stream)
    assert client.answers() == [Frame(RST_STREAM, 0, stream, INTERNAL.to_bytes(4, "big"))]


def test_more_than_the_length_is_not_sent() -> None:
    client = Client()
    stream = client.ask(length=5)
    client.session.send(stream, b"hello world")
    client.session.finish(stream)
    assert client.content() == b"hello"


def test_nothing_goes_out_after_the_end() -> None:
    client = Client((4, 3))
    stream = client.ask()
    client.session.send(stream, b"hello")
    client.session.finish(stream)
    assert client.session.send(stream, b"more") is False
    client.session.finish(stream, [(b"x", b"1")])
    client.send(update(stream, 50))
    assert client.content() == b"hello"


def test_informational_heads_come_first() -> None:
    client = Client()
    stream = client.ask(respond=False)
    for status in (b"103", b"101", b"100"):
        client.session.respond(stream, [(b":status", status), (b"link", b"x")], has_content=False)
    client.session.respond(stream, OK)
    client.session.respond(stream, OK)
    client.session.finish(stream)
    found = frames(client.session.all_output())
    assert [dict(client.speaker.read(a.payload))[b":status"] for a in found] == [b"103", b"100", b"200"]
    assert [a.flags & END_STREAM for a in found] == [0, 0, 1]


def test_a_reset_drops_what_waits() -> None:
    client = Client((4, 3))
    stream = client.ask()
    client.session.send(stream, b"hello" * 1000)
    client.session.reset(stream, 2)
    assert [a.type for a in client.answers()] == [HEADERS, DATA, RST_STREAM]
    client.send(update(stream, 5000))
    assert client.answers() == []


# Trailers


def test_trailers_at_once() -> None:
    client = Client()
    stream = client.ask()
    client.session.send(stream, b"hello")
    client.session.finish(stream, [(b"grpc-status", b"0"), (b"x", b"1")])
    found = frames(client.session.all_output())
    assert [(a.type, a.flags & END_STREAM) for a in found] == [(HEADERS, 0), (DATA, 0), (HEADERS, 1)]
    client.speaker.read(found[0].payload)
    assert client.speaker.read(found[2].payload) == [(b"grpc-status", b"0"), (b"x", b"1")]


def test_trailers_behind_content_that_waits() -> None:
    """Other heads go out before them: they must not depend on the table."""
    client = Client((4, 4))
    stream = client.ask()
    client.session.send(stream, b"01234567")
    client.session.finish(stream, [(b"grpc-status", b"0"), (b"grpc-message", b"fine")])
    client.answers()
    for _ in range(5):
        other = client.ask()
        client.session.finish(other, [(b"grpc-status", b"0"), (b"x-other", b"%d" % other)])
    client.answers()
    client.send(update(stream, 100))
    content, trailers = frames(client.session.all_output())
    assert (content.payload, content.flags) == (b"4567", 0)
    assert (trailers.type, trailers.flags) == (HEADERS, END_HEADERS | END_STREAM)
    assert client.speaker.read(trailers.payload) == [(b"grpc-status", b"0"), (b"grpc-message", b"fine")]
    assert client.session.events[-1] == ("gone", stream, "done", 0, None)


def test_trailers_that_waited_while_the_table_changed() -> None:
    """RFC 7541 §4.2: the first block after the change says the size, whichever block it is."""
    client = Client((4, 4))
    stream = client.ask()
    client.session.send(stream, b"01234567")
    client.session.finish(stream, [(b"grpc-status", b"0")])
    client.answers()
    client.send(settings((1, 64)), update(stream, 100))
    client.speaker.decoder.max_allowed_table_size = 64
    assert [a.type for a in client.answers()] == [SETTINGS, DATA, HEADERS]
    other = client.ask()
    client.session.finish(other)
    assert client.answers()[0].payload[:1] == b"\x88"


def test_trailers_that_are_none() -> None:
    client = Client()
    stream = client.ask()
    client.session.finish(stream, [(b"connection", b"x")][:0])
    assert client.answers()[-1].flags & END_STREAM


def test_trailers_beyond_all_measure() -> None:
    client = Client((4, 1))
    stream = client.ask()
    client.session.send(stream, b"xy")
    client.session.finish(stream, [(b"x", b"1" * 20000)])
    assert client.answers()[-1] == Frame(RST_STREAM, 0, stream, INTERNAL.to_bytes(4, "big"))


# Heads


@pytest.mark.parametrize("n", [10, 16000, 17000, 60000, 200000])
def test_heads_of_any_size(n: int) -> None:
    client = Client()
    stream = client.ask(respond=False)
    big = [(b":status", b"200"), (b"x-big", bytes([1 + i * 7 % 250 | 128 for i in range(n)]))]
    client.session.respond(stream, big)
    client.session.send(stream, b"content")
    client.session.finish(stream)
    found = frames(client.session.all_output())
    block = b""
    for number, piece in enumerate(found[:-1]):
        assert piece.type == (CONTINUATION if number else HEADERS) and len(piece.payload) <= 16384
        assert bool(piece.flags & END_HEADERS) is (number == len(found) - 2)
        block += piece.payload
    assert client.speaker.read(block) == big
    assert found[-1] == Frame(DATA, END_STREAM, stream, b"content")


# Windows


def test_content_stays_within_both_windows() -> None:
    client = Client((4, 100))
    first, second = client.ask(), client.ask()
    client.session.send(first, b"a" * 1000)
    client.session.send(second, b"b" * 1000)
    assert [len(a.payload) for a in client.answers() if a.type == DATA] == [100, 100]
    client.send(update(second, 50))
    assert client.content(second) == b"b" * 50
    client.send(update(first, 10**6), update(second, 10**6))
    assert client.content() == b"a" * 900 + b"b" * 850


def test_the_connections_window_stops_all() -> None:
    client = Client((4, 1 << 20))
    streams = [client.ask() for _ in range(4)]
    for stream in streams:
        client.session.send(stream, b"x" * 40000)
    assert sum(len(a.payload) for a in client.answers() if a.type == DATA) == 65535
    other = client.ask()
    client.session.finish(other)
    assert [a.stream for a in client.answers()] == [other], "what needs no window does not wait"
    client.send(update(0, 50000))
    assert len(client.content()) == 50000


def test_an_initial_window_of_one() -> None:
    client = Client((4, 1))
    stream = client.ask()
    client.session.send(stream, b"hello")
    for byte in b"hello":
        assert client.content() == bytes([byte])
        client.send(update(stream, 1))


def test_a_window_that_was_taken_away_below_zero() -> None:
    client = Client()
    stream = client.ask()
    client.session.send(stream, b"x" * 1000)
    client.answers()
    client.send(settings((4, 0)))
    client.session.send(stream, b"y" * 10)
    client.send(update(stream, 1000))
    assert client.content() == b""
    client.send(update(stream, 4))
    assert client.content() == b"yyyy"


def test_a_sender_is_told_to_pause_and_to_go_on() -> None:
    client = Client()
    stream = client.ask()
    assert client.session.send(stream, b"x" * 65535) is False
    assert client.session.send(stream, b"x" * 65536) is False
    assert client.session.send(stream, b"x") is True
    assert client.session.streams()[stream]["waiting"] == 65537
    client.answers()
    client.send(update(0, 1 << 20), update(stream, 40000))
    client.answers()
    assert ("drained", stream) not in client.session.events
    client.send(update(stream, 20000))
    client.answers()
    assert ("drained", stream) in client.session.events
    client.send(update(stream, 20000))
    client.answers()
    assert client.session.events == []


def test_output_is_bounded_and_what_comes_later_is_not_far_behind() -> None:
    client = Client((4, 1 << 30))
    client.send(update(0, 1 << 30))
    stream = client.ask()
    client.session.send(stream, b"x" * 500000)
    assert client.session.facts()["out"] < 65536 + 16384 + 100
    assert len(client.content()) == 500000


# Turns


def test_streams_of_one_urgency_take_turns() -> None:
    client = Client((4, 1 << 30))
    streams = [client.ask([*GET, (b"priority", b"i")]) for _ in range(3)]
    for stream in streams:
        client.session.send(stream, b"x" * 100000)
    client.send(update(0, 1 << 30))
    order = [a.stream for a in client.answers() if a.type == DATA]
    rest = order[4:]  # the first one begins alone
    for i in range(0, 9, 3):
        assert sorted(rest[i : i + 3]) == streams


def test_without_incremental_a_stream_keeps_its_turn_for_a_while() -> None:
    client = Client((4, 1 << 30))
    streams = [client.ask() for _ in range(3)]
    for stream in streams:
        client.session.send(stream, b"x" * 200000)
    client.send(update(0, 1 << 30))
    order = [a.stream for a in client.answers() if a.type == DATA]
    runs = [stream for i, stream in enumerate(order) if i == 0 or order[i - 1] != stream]
    assert len(runs) >= 7 and set(runs[:6]) == set(streams)


def test_9218_the_urgent_go_first() -> None:
    client = Client((4, 1 << 30))
    client.session.send(client.ask(), b"-" * 65535)
    client.answers()
    streams = {urgency: client.ask([*GET, (b"priority", b"u=%d" % urgency)]) for urgency in (5, 0, 7, 3)}
    for stream in streams.values():
        client.session.send(stream, b"x" * 30000)
    client.session.prioritise(streams[7], b"u=1")
    client.send(update(0, 1 << 30))
    order = [a.stream for a in client.answers() if a.type == DATA]
    first = sorted(streams, key=lambda urgency: order.index(streams[urgency]))
    assert first == [0, 7, 3, 5]
    for a, b in zip([streams[u] for u in first], [streams[u] for u in first][1:], strict=False):
        assert max(i for i, s in enumerate(order) if s == a) < min(i for i, s in enumerate(order) if s == b)


@pytest.mark.parametrize(
    ("said", "expected"),
    [(b"u=5", (5, True)), (b"i=?0", (1, False)), (b"u=0, i=?0", (0, False)), (b"u=9", (1, True)), (b"", (1, True))],
)
def test_9218_8_an_origin_may_know_better_than_the_client(said: bytes, expected: tuple[int, bool]) -> None:
    client = Client()
    stream = client.ask([*GET, (b"priority", b"u=1, i")], respond=False)
    client.session.respond(stream, [*OK, (b"x-other", b"1"), (b"priority", said)])
    known = client.session.streams()[stream]
    assert (known["urgency"], known["incremental"]) == expected


def test_a_stream_without_window_does_not_block_the_others() -> None:
    client = Client((4, 1000))
    slow, fast = client.ask([*GET, (b"priority", b"u=0")]), client.ask()
    client.session.send(slow, b"s" * 50000)
    client.answers()
    client.send(update(fast, 100000), update(0, 100000))
    client.session.send(fast, b"f" * 60000)
    assert client.content(fast) == b"f" * 60000


def test_what_many_streams_say_arrives_whole_and_in_order() -> None:
    """Random windows, pieces and priorities; what the client reads of each stream is what was sent."""
    rng = random.Random(9218)
    for _ in range(15):
        client = Client((4, rng.choice([1, 100, 5000, 65535])))
        said: dict[int, bytes] = {}
        read: dict[int, bytes] = {}
        unfinished: list[int] = []
        for _ in range(300):
            what = rng.random()
            if what < 0.1 and len(unfinished) < 20:
                stream = client.ask([*GET, (b"priority", b"u=%d%s" % (rng.randrange(8), rng.choice([b"", b", i"])))])
                said[stream], read[stream] = b"", b""
                unfinished.append(stream)
            elif what < 0.6 and unfinished:
                stream = rng.choice(unfinished)
                if client.session.streams()[stream]["waiting"] < 60000:
                    piece = bytes([rng.randrange(256)]) * rng.choice([1, 10, 3000, 20000])
                    said[stream] += piece
                    client.session.send(stream, piece)
            elif what < 0.7 and unfinished:
                stream = unfinished.pop(rng.randrange(len(unfinished)))
                client.session.finish(stream, [(b"x", b"1")] if rng.random() < 0.5 else None)
            elif what < 0.9:
                client.send(update(rng.choice([0, *client.session.streams()]), rng.choice([1, 500, 30000])))
            else:
                client.send(settings((4, rng.choice([1, 100, 5000, 65535]))))
            for a in client.answers():
                if a.type == DATA:
                    read[a.stream] += a.payload
                    assert said[a.stream].startswith(read[a.stream])
        for stream in unfinished:
            client.session.finish(stream)
        client.send(update(0, 1 << 30), settings((4, 1 << 29)))
        for a in client.answers():
            if a.type == DATA:
                read[a.stream] += a.payload
        assert read == said and client.session.streams() == {}


def test_resets_in_the_midst_leave_the_turns_in_order() -> None:
    rng = random.Random(5)
    client = Client((4, 1 << 20))
    client.send(update(0, 1 << 20))
    streams = [client.ask() for _ in range(30)]
    for stream in streams:
        client.session.send(stream, b"x" * 30000)
    while streams:
        stream = streams.pop(rng.randrange(len(streams)))
        client.send(rst(stream)) if rng.random() < 0.5 else client.session.reset(stream)
        client.session.output(20000)
    assert client.session.streams() == {}
