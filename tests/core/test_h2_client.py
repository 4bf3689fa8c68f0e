"""One HTTP/2 connection from the client's side: requests of ours to an origin, whatever the origin does."""

from typing import Any

import pytest
from h2frames import (
    ACK,
    CALM,
    COMPRESSION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FLOW_CONTROL,
    GET,
    GOAWAY,
    HEADERS,
    OK,
    PING,
    POST,
    PREFACE,
    PROTOCOL,
    PUSH_PROMISE,
    REFUSED,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    Frame,
    Pairs,
    Speaker,
    data,
    frame,
    frames,
    goaway,
    rst,
    setting,
    settings,
    update,
)

from gateway._core.h2probe import Session

UPGRADE_TO_WEBSOCKET = [(b":method", b"CONNECT"), *GET[1:]]


class Origin:
    def __init__(self, *sent: tuple[int, int], **limits: int) -> None:
        self.session, self.speaker = Session(False, **limits), Speaker()
        self.begin = self.session.output()
        self.send(settings(*sent), frame(SETTINGS, ACK))
        assert self.session.events == [("settings",)]
        self.session.all_output()

    def send(self, *pieces: bytes) -> None:
        self.session.feed(b"".join(pieces))

    def answer(self, stream: int, pairs: Pairs = OK, end: bool = True) -> None:
        self.send(self.speaker.headers(stream, pairs, end))

    @property
    def events(self) -> list[tuple[Any, ...]]:
        return self.session.events

    def asked(self) -> list[Frame]:
        return frames(self.session.all_output())

    def broken(self, code: int, *pieces: bytes) -> str:
        self.send(*pieces)
        last = self.asked()[-1]
        assert (last.type, last.code) == (GOAWAY, code) and self.session.dead
        assert self.session.open(GET) is None
        return str(next(event[1] for event in self.events if event[0] == "fault"))


def test_3_4_the_client_begins() -> None:
    origin = Origin()
    assert origin.begin.startswith(PREFACE)
    first, second = frames(origin.begin)
    assert first.payload == setting(2, 0) + setting(4, 262144) + setting(6, 32768)
    assert (second.type, second.stream) == (WINDOW_UPDATE, 0)


def test_a_request_and_its_response() -> None:
    origin = Origin()
    stream = origin.session.open([*GET, (b"accept", b"*/*")])
    assert stream == 1
    (head,) = origin.asked()
    assert (head.type, head.flags, head.stream) == (HEADERS, END_HEADERS | END_STREAM, 1)
    assert origin.speaker.read(head.payload) == [GET[0], GET[1], GET[3], GET[2], (b"accept", b"*/*")]
    origin.answer(1, [(b":status", b"103"), (b"link", b"x")], end=False)
    origin.answer(1, [*OK, (b"content-length", b"5")], end=False)
    origin.send(data(1, b"hello", True))
    assert origin.events == [
        ("informational", 1, 103, [(b"link", b"x")]),
        ("head", 1, 200, [(b"content-length", b"5")], False),
        ("data", 1, b"hello"),
        ("end", 1, None),
        ("gone", 1, "done", 0, None),
    ]


def test_content_and_trailers_both_ways() -> None:
    origin = Origin()
    stream = origin.session.open(POST, has_more=True, length=11, secure=True)
    origin.session.send(stream, b"hello ")
    origin.session.send(stream, b"world")
    origin.session.finish(stream)
    head, first, second = origin.asked()
    assert dict(origin.speaker.read(head.payload))[b"content-length"] == b"11"
    assert (first.payload, second.payload, second.flags) == (b"hello ", b"world", END_STREAM)
    stream = origin.session.open(POST, has_more=True)
    origin.session.send(stream, b"x")
    origin.session.finish(stream, [(b"x-sum", b"1")])
    head, _, trailers = origin.asked()
    assert (b":scheme", b"http") in origin.speaker.read(head.payload)
    assert origin.speaker.read(trailers.payload) == [(b"x-sum", b"1")]
    origin.answer(stream, OK, end=False)
    origin.send(data(stream, b"y"), origin.speaker.headers(stream, [(b"grpc-status", b"0")]))
    assert origin.events[-2:] == [("end", stream, [(b"grpc-status", b"0")]), ("gone", stream, "done", 0, None)]


def test_numbers_of_streams_follow_each_other() -> None:
    origin = Origin()
    assert [origin.session.open(GET) for _ in range(4)] == [1, 3, 5, 7]


def test_6_5_2_no_more_streams_than_the_origin_takes() -> None:
    origin = Origin((3, 2))
    assert [origin.session.open(GET) for _ in range(3)] == [1, 3, None]
    assert origin.session.room() == 0
    origin.answer(1)
    assert origin.session.room() == 1 and origin.session.open(GET) == 5
    origin.send(settings((3, 0)))
    origin.answer(3)
    origin.answer(5)
    assert origin.session.open(GET) is None
    origin.send(settings((3, 50)))
    assert origin.session.room() == 50


def test_before_the_origin_has_said_anything() -> None:
    session = Session(False)
    assert session.room() == 100
    assert session.open(GET) == 1
    session.feed(settings((3, 1)) + frame(SETTINGS, ACK))
    assert session.open(GET) is None


def test_6_8_what_a_goaway_leaves_out_may_be_sent_again() -> None:
    origin = Origin()
    for _ in range(4):
        origin.session.open(GET)
    origin.send(goaway(3))
    assert sorted(origin.events) == [("goaway", 3, 0), ("gone", 5, "unprocessed", 0, None), ("gone", 7, "unprocessed", 0, None)]
    assert origin.session.open(GET) is None
    origin.answer(1)
    origin.answer(3)
    assert origin.events[-1] == ("over",)


def test_6_8_two_steps() -> None:
    origin = Origin()
    origin.session.open(GET)
    origin.send(goaway(0x7FFFFFFF))
    assert origin.events == [("goaway", 0x7FFFFFFF, 0)]
    origin.send(goaway(1))
    origin.answer(1)
    assert origin.events[-1] == ("over",)


def test_8_7_a_refused_stream_may_be_sent_again() -> None:
    origin = Origin()
    origin.session.open(GET)
    origin.session.open(POST, has_more=True)
    origin.send(rst(1, REFUSED), rst(3, 2))
    assert origin.events == [("gone", 1, "unprocessed", REFUSED, None), ("gone", 3, "reset", 2, None)]


def test_8_1_an_early_response_without_an_error() -> None:
    origin = Origin()
    stream = origin.session.open(POST, has_more=True)
    origin.answer(stream)
    assert origin.events[-1] == ("end", stream, None)
    origin.session.send(stream, b"still")
    origin.send(rst(stream, 0))
    assert origin.events == [("gone", stream, "reset", 0, None)]


def test_an_early_response_and_the_rest_of_the_request() -> None:
    origin = Origin()
    stream = origin.session.open(POST, has_more=True)
    origin.answer(stream)
    origin.session.send(stream, b"still")
    origin.session.finish(stream)
    assert origin.events[-1] == ("gone", stream, "done", 0, None)
    assert origin.asked()[-1] == Frame(DATA, END_STREAM, stream, b"still")


def test_a_response_that_waits_for_its_reader() -> None:
    origin = Origin()
    stream = origin.session.open(GET)
    origin.session.pause(stream)
    origin.answer(stream, OK, end=False)
    origin.send(data(stream, b"hello"), origin.speaker.headers(stream, [(b"x", b"1")]))
    assert [event[0] for event in origin.events] == ["head"]
    assert stream in origin.session.streams()
    origin.session.resume(stream)
    assert origin.events == [("data", stream, b"hello"), ("end", stream, [(b"x", b"1")]), ("gone", stream, "done", 0, None)]


@pytest.mark.parametrize(
    ("pairs", "end", "name"),
    [
        ([(b"x", b"1")], True, "status"),
        ([(b":status", b"099")], True, "status"),
        ([(b":status", b"101")], False, "switched"),
        ([(b":status", b"103")], True, "h2_frame"),
        ([(b":status", b"200"), (b":path", b"/")], True, "h2_pseudo"),
        ([*OK, (b"connection", b"close")], True, "h2_hop"),
        ([*OK, (b"X", b"1")], True, "field_name"),
        ([*OK, (b"content-length", b"5")], True, "h2_length"),
        ([*OK, *[(b"x", b"1")] * 101], True, "fields_many"),
    ],
)
def test_8_1_1_malformed_responses(pairs: Pairs, end: bool, name: str) -> None:
    origin = Origin()
    origin.session.open(GET)
    origin.session.open(GET)
    origin.answer(1, pairs, end)
    assert origin.events == [("fault", name), ("gone", 1, "fault", PROTOCOL, name)]
    assert Frame(RST_STREAM, 0, 1, PROTOCOL.to_bytes(4, "big")) in origin.asked()
    origin.answer(3)
    assert origin.events[-1] == ("gone", 3, "done", 0, None)


@pytest.mark.parametrize(
    ("method", "status", "length", "content", "name"),
    [
        (b"GET", b"200", b"5", b"hell", "h2_length"),
        (b"GET", b"200", b"5", b"hello!", "h2_length"),
        (b"HEAD", b"200", b"5", b"hello", "h2_length"),
        (b"GET", b"304", b"5", b"hello", "h2_length"),
        (b"GET", b"204", b"0", b"x", "h2_length"),
    ],
)
def test_item_53_content_that_is_not_what_was_said(method: bytes, status: bytes, length: bytes, content: bytes, name: str) -> None:
    origin = Origin()
    stream = origin.session.open([(b":method", method), *GET[1:]])
    origin.answer(stream, [(b":status", status), (b"content-length", length)], end=False)
    origin.send(data(stream, content, True))
    assert origin.events[-1] == ("gone", stream, "fault", PROTOCOL, name)


def test_answers_without_content() -> None:
    origin = Origin()
    stream = origin.session.open([(b":method", b"HEAD"), *GET[1:]])
    origin.answer(stream, [*OK, (b"content-length", b"5")], end=False)
    origin.send(data(stream, b"", True))
    assert origin.events[-1] == ("gone", stream, "done", 0, None)


def test_many_informational_heads() -> None:
    origin = Origin()
    origin.session.open(GET)
    for _ in range(32):
        origin.answer(1, [(b":status", b"103")], end=False)
    assert len(origin.events) == 32
    origin.answer(1, [(b":status", b"103")], end=False)
    assert origin.events[-1] == ("gone", 1, "fault", PROTOCOL, "informational_many")


def test_content_before_the_head() -> None:
    origin = Origin()
    origin.session.open(GET)
    origin.send(data(1, b"x"))
    assert origin.events[-1] == ("gone", 1, "fault", PROTOCOL, "h2_frame")
    assert origin.session.facts()["window"] > 0


@pytest.mark.parametrize(
    ("code", "piece", "name"),
    [
        (PROTOCOL, frame(PUSH_PROMISE, END_HEADERS, 1, b"\x00\x00\x00\x02\x88"), "h2_frame"),
        (PROTOCOL, frame(HEADERS, END_HEADERS, 2, b"\x88"), "h2_frame"),
        (PROTOCOL, frame(HEADERS, END_HEADERS, 9, b"\x88"), "h2_frame"),
        (PROTOCOL, data(9, b"x"), "h2_frame"),
        (PROTOCOL, rst(9), "h2_frame"),
        (PROTOCOL, update(9, 1), "h2_frame"),
        (PROTOCOL, settings((2, 1)), "h2_settings"),
        (PROTOCOL, frame(16, 0, 0, b"\x00\x00\x00\x01u=1"), "h2_frame"),
        (COMPRESSION, frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff"), "hpack"),
        (FLOW_CONTROL, settings((4, 0x80000000)), "h2_window"),
    ],
)
def test_what_an_origin_must_not_do(code: int, piece: bytes, name: str) -> None:
    origin = Origin()
    origin.session.open(GET)
    assert origin.broken(code, piece) == name


def test_frames_after_the_end_of_a_response() -> None:
    origin = Origin()
    origin.session.open(POST, has_more=True)
    origin.answer(1)
    assert origin.broken(STREAM_CLOSED, data(1, b"x")) == "h2_stream"
    origin = Origin()
    origin.session.open(GET)
    origin.answer(1)
    assert origin.broken(STREAM_CLOSED, origin.speaker.headers(1, OK)) == "h2_stream"


def test_what_is_under_way_when_we_cancel() -> None:
    origin = Origin(window=65535, connection_window=65535)
    stream = origin.session.open(GET)
    origin.answer(stream, OK, end=False)
    origin.session.reset(stream)
    origin.send(data(stream, b"x" * 16384), origin.speaker.headers(stream, [(b"x-seen", b"1")]), rst(stream, 0))
    assert not origin.session.dead
    stream = origin.session.open(GET)
    origin.answer(stream, [*OK, (b"x-seen", b"1")])
    assert ("head", stream, 200, [(b"x-seen", b"1")], True) in origin.events


def test_8441_a_tunnel_through_an_origin() -> None:
    origin = Origin((8, 1))
    stream = origin.session.open(UPGRADE_TO_WEBSOCKET, has_more=True)
    origin.answer(stream, OK, end=False)
    origin.session.send(stream, b"ping")
    origin.send(data(stream, b"pong"))
    assert origin.events[-1] == ("data", stream, b"pong")
    origin.session.finish(stream)
    origin.send(data(stream, b"", True))
    assert origin.events[-1] == ("gone", stream, "done", 0, None)


# Class D14: an origin that floods


@pytest.mark.parametrize(
    ("piece", "name", "code"),
    [
        (frame(PING, 0, 0, b"12345678"), "flood_ping", CALM),
        (settings(), "flood_settings", CALM),
        (update(0, 1), "flood_control", CALM),
        (frame(77), "flood_control", CALM),
        (data(1, b""), "flood_empty", CALM),
        (goaway(0x7FFFFFFF), "flood_control", CALM),
    ],
)
def test_d14_floods_of_an_origin(piece: bytes, name: str, code: int) -> None:
    origin = Origin()
    origin.session.open(POST, has_more=True)
    origin.answer(1, OK, end=False)
    assert origin.broken(code, piece * 1000) == name
    assert origin.session.facts()["out"] < 65536


def test_d14_resets_of_an_origin_are_no_flood() -> None:
    origin = Origin()
    for _ in range(2000):
        stream = origin.session.open(GET)
        origin.send(rst(stream or 0, 2))
    assert not origin.session.dead


def test_d14_a_head_of_any_size_costs_no_memory() -> None:
    origin = Origin()
    origin.session.open(GET)
    wire = frame(HEADERS, 0, 1, b"\x88")
    name = origin.broken(CALM, wire, *[frame(9, 0, 1, b"\x00" * 16384)] * 5)
    assert name == "flood_block"


def test_d14_malformed_responses_without_end() -> None:
    origin = Origin()
    opened = 0
    while not origin.session.dead and opened < 1000:
        stream = origin.session.open(GET)
        opened += 1
        origin.answer(stream or 0, [(b"x", b"1")])
    assert 80 <= opened <= 100
