"""One HTTP/2 connection from the server's side: RFC 9113 by section, RFC 8441, RFC 9218."""

from typing import Any

import pytest
from h2client import Client
from h2frames import (
    ACK,
    CALM,
    COMPRESSION,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FLOW_CONTROL,
    FRAME_SIZE,
    GET,
    GOAWAY,
    HEADERS,
    NO_ERROR,
    OK,
    PADDED,
    PING,
    POST,
    PREFACE,
    PRIORITY,
    PRIORITY_UPDATE,
    PROTOCOL,
    PUSH_PROMISE,
    REFUSED,
    RST_STREAM,
    SETTINGS,
    SETTINGS_TIMEOUT,
    STREAM_CLOSED,
    WEIGHTED,
    WINDOW_UPDATE,
    Frame,
    Pairs,
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

# §3.4: the beginning


def test_3_4_each_side_begins_with_settings() -> None:
    client = Client()
    first, second = client.said
    assert (first.type, first.flags, first.stream) == (SETTINGS, 0, 0)
    assert first.payload == setting(3, 100) + setting(8, 1) + setting(9, 1) + setting(4, 262144) + setting(6, 32768)
    assert (second.type, second.stream, second.number) == (WINDOW_UPDATE, 0, 1048576 - 65535)


def test_3_4_in_any_pieces() -> None:
    begin = PREFACE + settings((3, 5)) + frame(SETTINGS, ACK)
    for piece in (1, 2, 5, 23, 24, 25, 30):
        session = Session(True)
        session.feed(begin, piece)
        assert session.events == [("settings",)]
    for cut in range(1, len(begin)):
        session = Session(True)
        session.feed(begin[:cut])
        session.feed(begin[cut:])
        assert session.events == [("settings",)] and not session.dead


@pytest.mark.parametrize(
    "begin", [b"GET / HTTP/1.1\r\n\r\n", PREFACE[:20] + b"XX", b"PRI * HTTP/1.1", b"\x16\x03\x01", PREFACE.lower()]
)
def test_3_4_another_preface(begin: bytes) -> None:
    session = Session(True)
    session.feed(begin)
    assert session.dead and session.events == [("fault", "h2_preface"), ("over",)]


@pytest.mark.parametrize("first", [frame(SETTINGS, ACK), frame(PING, 0, 0, b"12345678"), update(0, 1), frame(77), goaway(0)])
def test_3_4_the_first_frame_is_settings(first: bytes) -> None:
    session = Session(True)
    session.feed(PREFACE + first)
    assert session.dead and session.events[0] == ("fault", "h2_preface")
    assert frames(session.output())[-1].code == PROTOCOL


# §4: frames


def test_4_1_unknown_frames_are_ignored() -> None:
    client = Client()
    client.send(frame(77, 255, 5, b"whatever" * 100), frame(0xBE, 0, 0))
    client.ask(1)
    assert [event[0] for event in client.events] == ["open", "head", "end"]


def test_4_1_an_unknown_frame_is_not_waited_for() -> None:
    client = Client()
    client.send(frame(77, 0, 0, b"x" * 9000)[:5000])
    assert client.session.facts()["rest"] == 0
    client.send(b"x" * 4009 + client.speaker.headers(1, GET))
    assert [event[0] for event in client.events] == ["open", "head", "end"]


@pytest.mark.parametrize("type_", [DATA, HEADERS, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, PUSH_PROMISE, CONTINUATION, 77])
def test_4_2_a_frame_that_is_too_long_is_refused_by_its_head(type_: int) -> None:
    client = Client()
    head = (16385).to_bytes(3, "big") + bytes([type_, 0]) + (0 if type_ in (SETTINGS, PING, GOAWAY) else 1).to_bytes(4, "big")
    assert client.broken(FRAME_SIZE, head) == "h2_frame_size"


def test_4_3_compression_that_cannot_be_undone() -> None:
    assert Client().broken(COMPRESSION, frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\xff\xff\xff\xff\xff")) == "hpack"
    assert Client().broken(COMPRESSION, frame(HEADERS, END_HEADERS, 1, b"\x40\x0a")) == "hpack"


def test_4_3_a_block_in_pieces() -> None:
    for n in (1, 2, 3, 7):
        client = Client()
        block = client.speaker.encoder.encode([*GET, (b"x-a", b"1" * 20)])
        pieces = [block[i : i + len(block) // n + 1] for i in range(0, len(block), len(block) // n + 1)]
        wire = frame(HEADERS, END_STREAM, 1, pieces[0])
        for piece in pieces[1:-1]:
            wire += frame(CONTINUATION, 0, 1, piece)
        wire += frame(CONTINUATION, END_HEADERS, 1, pieces[-1] if len(pieces) > 1 else b"")
        client.session.feed(wire, 3)
        assert client.events[1:] == [("head", 1, b"GET", b"a.example", b"/", [(b"x-a", b"1" * 20)], True), ("end", 1, None)]
        assert client.session.facts()["block"] == 0


@pytest.mark.parametrize(
    "other",
    [
        data(1),
        update(1, 5),
        frame(PING, 0, 0, b"12345678"),
        frame(77),
        frame(PRIORITY, 0, 1, b"\x00\x00\x00\x00\x10"),
        rst(1),
        frame(CONTINUATION, END_HEADERS, 3, b""),
        settings(),
        goaway(0),
        frame(HEADERS, END_HEADERS, 3, b"\x82"),
    ],
)
def test_4_3_nothing_comes_between_the_pieces(other: bytes) -> None:
    assert Client().broken(PROTOCOL, frame(HEADERS, 0, 1, b"\x82"), other) == "h2_block"


def test_6_10_continuation_of_nothing() -> None:
    client = Client()
    assert client.broken(PROTOCOL, frame(CONTINUATION, END_HEADERS, 1, b"\x82")) == "h2_block"
    client = Client()
    client.ask(1, end=False)
    assert client.broken(PROTOCOL, frame(CONTINUATION, END_HEADERS, 1, b"\x82")) == "h2_block"


# §5.1: states


def test_5_1_a_request_and_its_response() -> None:
    client = Client()
    client.ask(1)
    assert client.events == [("open", 1), ("head", 1, b"GET", b"a.example", b"/", [], True), ("end", 1, None)]
    client.session.respond(1, [*OK, (b"x", b"1")], length=5)
    assert not client.session.send(1, b"hello")
    client.session.finish(1)
    assert client.events == [("gone", 1, "done", 0, None)]
    head, content = client.answers()
    assert (head.type, head.flags, head.stream) == (HEADERS, END_HEADERS, 1)
    assert client.speaker.read(head.payload) == [*OK, (b"x", b"1"), (b"content-length", b"5")]
    assert content == Frame(DATA, END_STREAM, 1, b"hello")


@pytest.mark.parametrize(
    "piece",
    [data(1), rst(1), update(1, 1), frame(CONTINUATION, END_HEADERS, 1, b"\x82"), data(4), rst(4), update(4, 1), update(2, 1)],
)
def test_5_1_idle_streams_take_only_headers_and_priority(piece: bytes) -> None:
    assert Client().broken(PROTOCOL, piece) in ("h2_frame", "h2_block")


def test_5_1_priority_may_come_on_any_stream() -> None:
    client = Client()
    weight = b"\x00\x00\x00\x00\x10"
    client.send(frame(PRIORITY, 0, 7, weight), frame(PRIORITY, 0, 2, weight))
    client.ask(1, end=False)
    client.send(frame(PRIORITY, 0, 1, weight), data(1, b"", True), frame(PRIORITY, 0, 1, weight))
    client.session.respond(1, OK)
    client.session.finish(1)
    client.send(frame(PRIORITY, 0, 1, weight))
    assert not client.session.dead


@pytest.mark.parametrize("ended_by", ["head", "content", "trailers"])
@pytest.mark.parametrize("what", ["data", "headers"])
def test_5_1_half_closed_streams_take_no_content(ended_by: str, what: str) -> None:
    client = Client()
    client.ask(1, POST, end=ended_by == "head")
    if ended_by == "content":
        client.send(data(1, b"x", True))
    elif ended_by == "trailers":
        client.send(data(1, b"x"), client.speaker.headers(1, [(b"x-sum", b"1")]))
    more = data(1, b"y", True) if what == "data" else client.speaker.headers(1, [(b"x", b"1")])
    assert client.broken(STREAM_CLOSED, more) == "h2_stream"


def test_5_1_half_closed_streams_take_updates_and_resets() -> None:
    client = Client()
    client.ask(1)
    client.send(update(1, 5))
    assert client.session.streams()[1]["send_window"] == 65540
    client.send(rst(1, 8))
    assert client.events[-1] == ("gone", 1, "reset", 8, None)
    assert client.answers() == []


@pytest.mark.parametrize("what", ["data", "headers"])
def test_5_1_nothing_follows_the_end_of_both_sides(what: str) -> None:
    client = Client()
    client.ask(1)
    client.session.respond(1, OK)
    client.session.finish(1)
    client.send(update(1, 5), rst(1))
    assert not client.session.dead
    more = data(1, b"y") if what == "data" else client.speaker.headers(1, GET)
    assert client.broken(STREAM_CLOSED, more) == "h2_stream"


@pytest.mark.parametrize("what", ["data", "headers"])
def test_5_1_nothing_follows_a_reset_of_the_peers_own(what: str) -> None:
    client = Client()
    client.ask(1, POST, end=False)
    client.send(rst(1))
    more = data(1, b"y") if what == "data" else client.speaker.headers(1, [(b"x", b"1")])
    assert client.broken(STREAM_CLOSED, more) == "h2_stream"


def test_5_1_what_is_under_way_when_we_reset_is_ignored_and_its_credit_given_back() -> None:
    client = Client(window=65535, connection_window=65535)
    client.ask(1, POST, end=False)
    client.send(data(1, b"x" * 1000))
    client.session.reset(1)
    assert client.events[-1] == ("gone", 1, "ours", 8, None)
    client.send(data(1, b"x" * 16384), data(1, b"x" * 16384), client.speaker.headers(1, [(b"x-seen", b"1")]), update(1, 9), rst(1))
    assert not client.session.dead and client.session.facts()["window"] == 65535
    client.ask(3, [*GET, (b"x-seen", b"1")])
    assert client.events[-2][5] == [(b"x-seen", b"1")]


def test_5_1_a_peer_that_does_not_stop_after_a_reset() -> None:
    """No more than the window that the stream still had."""
    client = Client(window=65535, connection_window=1 << 20)
    client.ask(1, POST, end=False)
    client.session.reset(1)
    client.send(*[data(1, b"x" * 16384)] * 3)
    assert not client.session.dead
    assert client.broken(FLOW_CONTROL, data(1, b"x" * 16384)) == "h2_window"


def test_5_1_1_numbers_of_streams() -> None:
    client = Client()
    assert client.broken(PROTOCOL, client.speaker.headers(2, GET)) == "h2_frame"
    client = Client()
    client.ask(5)
    assert client.broken(PROTOCOL, client.speaker.headers(3, GET)) == "h2_frame"


def test_5_1_1_the_last_number_there_is() -> None:
    client = Client()
    client.ask(0x7FFFFFFF)
    assert client.events[0] == ("open", 0x7FFFFFFF)


def test_5_1_2_more_streams_than_allowed_are_refused_unprocessed() -> None:
    client = Client(streams=2)
    for stream in (1, 3, 5):
        client.ask(stream, [*GET, (b"x-%d" % stream, b"1")])
    assert client.answers() == [Frame(RST_STREAM, 0, 5, REFUSED.to_bytes(4, "big"))]
    assert [event[1] for event in client.events if event[0] == "open"] == [1, 3]
    client.send(rst(1))
    client.ask(7, [*GET, (b"x-5", b"1")])
    assert client.events[-2][5] == [(b"x-5", b"1")]


def test_a_sink_that_is_not_willing_refuses() -> None:
    client = Client()
    client.session.set_willing(False)
    client.ask(1, POST, end=False)
    assert client.answers() == [Frame(RST_STREAM, 0, 1, REFUSED.to_bytes(4, "big"))]
    client.send(data(1, b"x" * 5000, True))
    assert client.events == [("open", 1)] and not client.session.dead


# §6.2 to §6.8: the other frames


def test_6_2_headers_with_padding_and_weights() -> None:
    client = Client()
    block = client.speaker.encoder.encode(GET)
    client.send(frame(HEADERS, END_HEADERS | END_STREAM | PADDED | WEIGHTED, 1, b"\x03\x00\x00\x00\x00\x10" + block + b"\0\0\0"))
    assert client.events[-1] == ("end", 1, None)
    assert Client().broken(PROTOCOL, frame(HEADERS, END_HEADERS | PADDED, 1, b"\x09\x82")) == "h2_frame"
    assert Client().broken(FRAME_SIZE, frame(HEADERS, END_HEADERS | PADDED, 1)) == "h2_frame_size"


def test_5_3_1_dependence_on_oneself() -> None:
    assert Client().broken(PROTOCOL, frame(HEADERS, END_HEADERS | WEIGHTED, 1, b"\x00\x00\x00\x01\x10\x82")) == "h2_frame"
    assert Client().broken(PROTOCOL, frame(PRIORITY, 0, 1, b"\x00\x00\x00\x01\x10")) == "h2_frame"


def test_6_5_settings_are_acknowledged_after_they_hold() -> None:
    client = Client()
    client.send(settings((4, 5), (1, 0)))
    assert client.answers() == [Frame(SETTINGS, ACK, 0, b"")] and client.events == [("settings",)]
    client.ask(1)
    client.session.respond(1, OK)
    client.session.send(1, b"hello world")
    head, content = client.answers()
    assert head.payload[:1] == b"\x20" and content.payload == b"hello"


@pytest.mark.parametrize(
    ("pairs", "code", "name"),
    [
        (((2, 2),), PROTOCOL, "h2_settings"),
        (((4, 0x80000000),), FLOW_CONTROL, "h2_window"),
        (((5, 16383),), PROTOCOL, "h2_settings"),
        (((8, 1), (8, 0)), PROTOCOL, "h2_settings"),
    ],
)
def test_6_5_2_values_out_of_range(pairs: tuple[tuple[int, int], ...], code: int, name: str) -> None:
    assert Client().broken(code, settings(*pairs)) == name


def test_6_5_lengths() -> None:
    assert Client().broken(FRAME_SIZE, frame(SETTINGS, 0, 0, b"\x00" * 5)) == "h2_frame_size"
    assert Client().broken(FRAME_SIZE, frame(SETTINGS, ACK, 0, setting(3, 1))) == "h2_frame_size"
    assert Client().broken(PROTOCOL, frame(SETTINGS, 0, 1)) == "h2_frame"


def test_6_5_3_settings_that_are_never_acknowledged() -> None:
    client = Client(acknowledge=False)
    assert client.session.tick(5000) == 11000
    client.session.tick(11000)
    assert frames(client.session.output())[-1].code == SETTINGS_TIMEOUT
    client = Client()
    assert client.session.tick(60000) == 0 and not client.session.dead


def test_6_6_nobody_pushes_to_us() -> None:
    assert Client().broken(PROTOCOL, frame(PUSH_PROMISE, END_HEADERS, 1, b"\x00\x00\x00\x02\x82")) == "h2_frame"


def test_6_7_ping_is_answered_with_its_payload() -> None:
    client = Client()
    client.send(frame(PING, 0, 0, b"12345678"))
    assert client.answers() == [Frame(PING, ACK, 0, b"12345678")]
    client.send(frame(PING, ACK, 0, b"12345678"))
    assert client.answers() == [] and client.events == []


def test_6_7_our_ping_comes_back() -> None:
    client = Client()
    client.session.ping()
    client.session.ping()
    (ping,) = client.answers()
    client.send(frame(PING, ACK, 0, b"something"[:8]))
    assert client.events == []
    client.send(frame(PING, ACK, 0, ping.payload))
    assert client.events == [("pong",)]


def test_6_8_a_goaway_of_the_client() -> None:
    client = Client()
    client.ask(1)
    client.send(goaway(0, NO_ERROR))
    assert client.events[-1] == ("goaway", 0, NO_ERROR)
    client.session.respond(1, OK)
    client.session.finish(1)
    assert client.events == [("gone", 1, "done", 0, None)]


def test_6_8_drained_in_two_steps() -> None:
    """Nothing that is under way when the connection is to end is lost."""
    client = Client()
    client.ask(1)
    client.session.drain()
    client.session.drain()
    first, ping = client.answers()
    assert (first.type, first.number, first.code, ping.type) == (GOAWAY, 0x7FFFFFFF, NO_ERROR, PING)
    client.ask(3)
    client.send(frame(PING, ACK, 0, ping.payload))
    (last,) = client.answers()
    assert (last.number, last.code) == (3, NO_ERROR)
    client.ask(5, [*GET, (b"x-late", b"1")])
    client.send(data(5, b"x"), rst(5), update(5, 1), client.speaker.headers(5, [(b"x-late", b"1")]))
    assert [event[1] for event in client.events if event[0] == "open"] == [1, 3] and not client.session.dead
    client.session.respond(1, OK)
    client.session.finish(1)
    client.session.respond(3, [*OK, (b"x-late", b"1")])
    client.session.finish(3)
    assert client.events[-1] == ("over",)
    assert [answer.stream for answer in client.answers()] == [1, 3]


def test_6_8_drained_although_the_ping_does_not_come_back() -> None:
    client = Client()
    client.session.drain()
    client.session.finish_drain()
    assert [answer.type for answer in client.answers()] == [GOAWAY, PING, GOAWAY]
    assert client.events == [("over",)]


def test_6_4_a_reset_says_why() -> None:
    client = Client()
    client.ask(1, POST, end=False)
    client.send(rst(1, 0x1234))
    assert client.events[-1] == ("gone", 1, "reset", 0x1234, None)
    assert Client().broken(FRAME_SIZE, frame(RST_STREAM, 0, 1, b"123")) == "h2_frame_size"


# RFC 9218


def test_9218_urgency_by_field_and_by_frame() -> None:
    client = Client()
    client.ask(1, [*GET, (b"priority", b"u=1, i")])
    client.ask(3)
    known = client.session.streams()
    assert (known[1]["urgency"], known[1]["incremental"]) == (1, True)
    assert (known[3]["urgency"], known[3]["incremental"]) == (3, False)
    client.send(frame(PRIORITY_UPDATE, 0, 0, b"\x00\x00\x00\x03u=7"), frame(PRIORITY_UPDATE, 0, 0, b"\x00\x00\x00\x63u=0"))
    assert client.session.streams()[3]["urgency"] == 7
    # §7: what a frame leaves out is what holds when nothing is said
    client.send(frame(PRIORITY_UPDATE, 0, 0, b"\x00\x00\x00\x01u=2"), frame(PRIORITY_UPDATE, 0, 0, b"\x00\x00\x00\x03i"))
    known = client.session.streams()
    assert [(known[n]["urgency"], known[n]["incremental"]) for n in (1, 3)] == [(2, False), (3, True)]
    assert client.broken(PROTOCOL, frame(PRIORITY_UPDATE, 0, 0, b"\x00\x00\x00\x00u=7")) == "h2_frame"
    assert Client().broken(PROTOCOL, frame(PRIORITY_UPDATE, 0, 1, b"\x00\x00\x00\x01u=7")) == "h2_frame"
    assert Client().broken(FRAME_SIZE, frame(PRIORITY_UPDATE, 0, 0, b"\x00\x00\x00")) == "h2_frame_size"


# §8: messages


@pytest.mark.parametrize(
    ("pairs", "name"),
    [
        (GET[1:], "h2_pseudo"),
        ([*GET, (b"X-Upper", b"1")], "field_name"),
        ([*GET, (b"x", b"a\nb")], "field_value"),
        ([*GET, (b"connection", b"close")], "h2_hop"),
        ([*GET, (b"te", b"gzip")], "h2_hop"),
        ([*GET, (b"x", b"1"), (b":late", b"1")], "h2_pseudo"),
        ([*GET, (b"content-length", b"5")], "h2_length"),
        ([*GET, (b"content-length", b"x")], "length"),
        ([*GET[:3], (b":path", b"")], "target"),
        ([], "h2_pseudo"),
        ([*GET, (b":protocol", b"websocket")], "h2_pseudo"),
    ],
)
def test_8_1_1_malformed_requests_are_reset(pairs: Pairs, name: str) -> None:
    client = Client()
    assert client.reset(1, PROTOCOL, client.speaker.headers(1, pairs)) == name
    client.ask(3)
    assert client.events[-1] == ("end", 3, None)


@pytest.mark.parametrize(
    ("pairs", "name"),
    [
        ([*GET, (b"x_y", b"1")], "underscore"),
        ([*GET[:3], (b":path", b"/%2f")], "path"),
        ([*GET, (b"host", b"other")], "authority"),
        ([(b":method", b"CONNECT"), GET[2]], "connect"),
        ([(b":method", b"TRACE"), *GET[1:]], "trace"),
        ([*GET, (b"expect", b"more")], "expect"),
        ([*GET, *[(b"x", b"1")] * 101], "fields_many"),
        ([*GET, (b"x", b"1" * 40000)], "fields_large"),
        ([*GET[:3], (b":path", b"/" + b"a" * 9000)], "target_long"),
    ],
)
def test_requests_that_are_answered_with_an_error(pairs: Pairs, name: str) -> None:
    client = Client()
    block = client.speaker.encoder.encode(pairs, huffman=True)
    pieces = [block[i : i + 16384] for i in range(0, len(block), 16384)]
    client.send(frame(HEADERS, 0, 1, pieces[0]))
    client.send(*[frame(CONTINUATION, 0, 1, piece) for piece in pieces[1:]], frame(CONTINUATION, END_HEADERS, 1))
    assert client.events == [("open", 1), ("fault", name), ("refused", 1, name)]
    client.send(data(1, b"its content", True))
    assert client.events == []
    client.session.respond(1, [(b":status", b"400")], length=0)
    client.session.finish(1)
    assert [(answer.type, answer.flags & END_STREAM) for answer in client.answers()] == [(HEADERS, END_STREAM)]


def test_8_1_trailers_end_the_message() -> None:
    client = Client()
    client.ask(1, POST, end=False)
    assert client.reset(1, PROTOCOL, client.speaker.headers(1, [(b"x", b"1")], end=False)) == "h2_frame"


@pytest.mark.parametrize(
    ("pairs", "name"),
    [
        ([(b":path", b"/")], "h2_pseudo"),
        ([(b":status", b"200")], "h2_pseudo"),
        ([(b"connection", b"x")], "h2_hop"),
        ([(b"X", b"1")], "field_name"),
        ([(b"x", b"1" * 20000)], "fields_large"),
    ],
)
def test_8_1_trailers_are_held_to_the_rules(pairs: Pairs, name: str) -> None:
    client = Client()
    client.ask(1, POST, end=False)
    client.send(data(1, b"x"))
    assert client.reset(1, PROTOCOL, client.speaker.headers(1, pairs)) == name


@pytest.mark.parametrize(
    ("length", "wire"),
    [
        (5, lambda s: data(1, b"hell", True)),
        (5, lambda s: data(1, b"hello!")),
        (5, lambda s: data(1, b"hello") + data(1, b"!", True)),
        (5, lambda s: data(1, b"hell") + s.headers(1, [(b"x", b"1")])),
        (5, lambda s: data(1, b"", True, padding=5)),
        (0, lambda s: data(1, b"x", True)),
        (5, lambda s: data(1, b"", True)),
    ],
)
def test_item_53_content_is_as_long_as_content_length_says(length: int, wire: Any) -> None:
    client = Client()
    client.ask(1, [*POST, (b"content-length", b"%d" % length)], end=False)
    assert client.reset(1, PROTOCOL, wire(client.speaker)) == "h2_length"
    assert not [event for event in client.events if event[0] == "end"]


def test_item_53_content_that_is() -> None:
    client = Client()
    client.ask(1, [*POST, (b"content-length", b"5")], end=False)
    client.send(data(1, b"hel"), data(1, b"lo", padding=9), data(1, b"", True))
    assert client.events[-1] == ("end", 1, None)


def test_8441_extended_connect_is_a_tunnel() -> None:
    client = Client()
    client.ask(1, [(b":method", b"CONNECT"), (b":protocol", b"websocket"), *GET[1:]], end=False)
    assert client.events[-1][2] == b"CONNECT"
    client.session.respond(1, OK, has_content=False)
    client.send(data(1, b"frame"))
    client.session.send(1, b"frame back")
    head, content = client.answers()
    assert head.flags == END_HEADERS and content == Frame(DATA, 0, 1, b"frame back")
    client.send(data(1, b"", True))
    assert client.events[-1] == ("end", 1, None)
    client.session.finish(1)
    assert client.events == [("gone", 1, "done", 0, None)]


def test_8441_where_it_is_not_offered() -> None:
    client = Client(connect=0)
    assert setting(8, 1) not in client.said[0].payload
    pairs = [(b":method", b"CONNECT"), (b":protocol", b"websocket"), *GET[1:]]
    assert client.reset(1, PROTOCOL, client.speaker.headers(1, pairs, end=False)) == "h2_pseudo"


# What a sink does in the midst of a call


@pytest.mark.parametrize("at", ["open", "head", "data", "end", "drained", "gone", "settings", "refused"])
@pytest.mark.parametrize("what", ["reset", "close", "respond", "drain"])
def test_a_sink_may_do_anything_at_any_time(at: str, what: str) -> None:
    """Every call out of the session can end a stream or everything."""
    client = Client()
    done = []

    def act(event: tuple[Any, ...]) -> None:
        if event[0] != at or done:
            return
        done.append(event)
        stream = event[1] if len(event) > 1 and isinstance(event[1], int) else 1
        if what == "close":
            client.session.close()
        elif what == "drain":
            client.session.drain()
            client.session.finish_drain()
        elif stream in client.session.streams():
            if what == "reset":
                client.session.reset(stream)
            else:
                client.session.respond(stream, OK, length=2)
                client.session.send(stream, b"ok")
                client.session.finish(stream)

    client.session.set_hook(act)
    client.ask(1, POST, end=False)
    client.send(settings((4, 70000)), data(1, b"x" * 100), data(1, b"y" * 100, True))
    client.ask(3, [*POST, (b"x_y", b"1")])
    client.ask(5, [*POST, (b"connection", b"1")])
    client.ask(7, POST, end=False)
    if 7 in client.session.streams() and what not in ("respond",):
        client.session.respond(7, OK)
        client.session.send(7, b"z" * 200000)
        client.session.all_output()
        client.send(update(0, 1 << 20), update(7, 1 << 20))
        client.session.all_output()
    client.send(client.speaker.headers(7, [(b"x", b"1")]))
    client.session.all_output()
    client.session.check()
    assert done or at in ("drained", "refused")


def test_the_end_of_the_socket() -> None:
    client = Client()
    client.ask(1, POST, end=False)
    client.ask(3)
    client.session.close()
    assert sorted(event for event in client.events if event[0] == "gone") == [
        ("gone", 1, "broken", 0, None),
        ("gone", 3, "broken", 0, None),
    ]
    client.send(data(1, b"x"))
    assert client.events == [] and client.answers() == []


def test_a_fault_of_the_connection_ends_every_stream() -> None:
    client = Client()
    for stream in (1, 3, 5):
        client.ask(stream, POST, end=False)
    client.send(data(2))
    gone = sorted(event[1:] for event in client.events if event[0] == "gone")
    assert gone == [(stream, "broken", PROTOCOL, "h2_frame") for stream in (1, 3, 5)]
    assert client.answers()[-1].number == 5


def test_an_idle_connection_holds_little() -> None:
    client = Client()
    for stream in range(1, 101, 2):
        client.ask(stream)
    for stream in range(1, 101, 2):
        client.session.respond(stream, OK)
        client.session.finish(stream)
    client.answers()
    facts = client.session.facts()
    assert (facts["out"], facts["rest"], facts["held"], facts["block"]) == (0, 0, 0, 0) and facts["slots"] <= 16
    assert CALM == 11
