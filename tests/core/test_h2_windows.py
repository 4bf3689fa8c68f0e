"""Content that comes in over HTTP/2: windows, credit, what waits for its reader; RFC 9113 §6.1 and §6.9, class D13."""

import gc
from collections.abc import Iterator
from typing import Any

import pytest
from h2client import Client
from h2frames import (
    ACK,
    DATA,
    FLOW_CONTROL,
    OK,
    PADDED,
    PING,
    POST,
    PROTOCOL,
    SETTINGS,
    WINDOW_UPDATE,
    Frame,
    Speaker,
    data,
    frame,
    settings,
    update,
)

from gateway._core.h2probe import set_spare

SPARE = 64 << 20

# §6.1 and §6.9: content and windows


def test_6_1_content_as_it_comes() -> None:
    client = Client()
    client.ask(1, POST, end=False)
    wire = data(1, b"hello") + data(1, b" world", padding=3) + data(1, b"!", True, padding=0)
    client.session.feed(wire, 1)
    events = client.events[2:]
    assert b"".join(event[2] for event in events if event[0] == "data") == b"hello world!"
    assert events[-1] == ("end", 1, None)


def test_6_1_every_split_of_some_frames() -> None:
    def wire(speaker: Speaker) -> bytes:
        return (
            speaker.headers(1, [*POST, (b"content-length", b"8")], end=False)
            + data(1, b"abc", padding=2)
            + update(1, 100)
            + data(1, b"defgh")
            + frame(77, 0, 0, b"skip")
            + speaker.headers(1, [(b"x-sum", b"1")])
            + frame(PING, 0, 0, b"12345678")
            + data(3, b"")[:0]
        )

    def told(events: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        content = b"".join(event[2] for event in events if event[0] == "data")
        return [*(event for event in events if event[0] != "data"), ("content", content)]

    whole = Client()
    sent = wire(whole.speaker)
    whole.send(sent)
    expected, answers = told(whole.events), whole.answers()
    assert expected[-2:] == [("end", 1, [(b"x-sum", b"1")]), ("content", b"abcdefgh")]
    for cut in range(1, len(sent)):
        client = Client()
        client.send(sent[:cut])
        client.send(sent[cut:])
        assert told(client.events) == expected
        assert client.answers() == answers


def test_6_1_padding_of_the_whole_frame_and_more() -> None:
    client = Client()
    client.ask(1, POST, end=False)
    assert client.broken(PROTOCOL, frame(DATA, PADDED, 1, b"\x05abc")) == "h2_frame"


def test_6_1_content_before_a_head_of_its_stream_is_none() -> None:
    assert Client().broken(PROTOCOL, data(0, b"x")) == "h2_frame"


def test_6_9_updates_are_sent_when_half_of_a_window_is_used() -> None:
    client = Client(window=65535, connection_window=65535)
    client.ask(1, POST, end=False)
    client.send(data(1, b"x" * 16384))
    assert client.answers() == []
    client.send(data(1, b"x" * 16384))
    assert client.answers() == [Frame(WINDOW_UPDATE, 0, s, (32768).to_bytes(4, "big")) for s in (1, 0)]
    assert client.session.streams()[1]["window"] == 65535


def test_6_9_no_update_for_a_stream_that_has_ended() -> None:
    client = Client(window=65535, connection_window=65535)
    client.ask(1, POST, end=False)
    client.send(data(1, b"x" * 16384), data(1, b"x" * 16384, True))
    assert [answer.stream for answer in client.answers()] == [0]


def test_6_9_padding_counts_and_is_given_back_at_once() -> None:
    client = Client(window=65535, connection_window=65535)
    client.ask(1, POST, end=False)
    for _ in range(200):
        client.send(data(1, b"x", padding=255))
    given = [(answer.stream, answer.number) for answer in client.answers()]
    for stream, window in ((0, client.session.facts()["window"]), (1, client.session.streams()[1]["window"])):
        updates = sum(n for s, n in given if s == stream)
        assert window == 65535 - 200 * 257 + updates and window > 32000


def test_6_9_more_content_than_the_window() -> None:
    client = Client(window=20000)
    client.ask(1, POST, end=False)
    client.session.pause(1)
    client.send(data(1, b"x" * 16384))
    assert client.broken(FLOW_CONTROL, data(1, b"x" * 16384)) == "h2_window"
    client = Client(window=1 << 20, connection_window=65535)
    client.session.set_hook(None)
    client.ask(1, POST, end=False)
    client.session.pause(1)
    client.send(*[data(1, b"x" * 16384)] * 3)
    assert not client.session.dead


def test_6_9_1_windows_beyond_their_bound() -> None:
    assert Client().broken(FLOW_CONTROL, update(0, 0x7FFFFFFF)) == "h2_window"
    client = Client()
    client.ask(1)
    assert client.reset(1, FLOW_CONTROL, update(1, 0x7FFFFFFF)) == "h2_window"
    client.ask(3)
    client.send(update(0, 0x7FFFFFFF - 65535), update(3, 0x7FFFFFFF - 65535))
    assert not client.session.dead
    assert client.reset(3, FLOW_CONTROL, update(3, 1)) == "h2_window"


def test_6_9_an_update_of_nothing() -> None:
    assert Client().broken(PROTOCOL, update(0, 0)) == "h2_frame"
    client = Client()
    client.ask(1)
    assert client.broken(PROTOCOL, update(1, 0)) == "h2_frame"


def test_6_9_2_a_changed_initial_window_holds_for_open_streams() -> None:
    client = Client()
    client.ask(1)
    client.session.respond(1, OK)
    client.session.send(1, b"x" * 1000)
    client.send(settings((4, 100)))
    assert client.session.streams()[1]["send_window"] == 100 - 1000
    client.send(update(1, 500))
    assert client.session.streams()[1]["send_window"] == -400
    client.send(settings((4, 1000)))
    assert client.session.streams()[1]["send_window"] == 500
    client.ask(3)
    assert client.session.streams()[3]["send_window"] == 1000


def test_6_9_2_an_initial_window_that_takes_a_stream_beyond_the_bound() -> None:
    client = Client()
    client.ask(1)
    client.send(update(1, 100))
    assert client.broken(FLOW_CONTROL, settings((4, 0x7FFFFFFF))) == "h2_window"


def test_6_9_2_what_our_settings_allow_before_they_are_acknowledged() -> None:
    """The peer may rely on 65535 until it acknowledges; afterwards on what we said."""
    client = Client(acknowledge=False, window=10000)
    client.ask(1, POST, end=False)
    client.session.pause(1)
    client.send(data(1, b"x" * 16384))
    client.send(frame(SETTINGS, ACK))
    assert client.session.streams()[1]["window"] == 10000 - 16384
    client.session.resume(1)
    assert client.session.streams()[1]["window"] == 10000
    client = Client(acknowledge=False, window=200000)
    client.ask(1, POST, end=False)
    assert client.session.streams()[1]["window"] == 65535
    client.send(frame(SETTINGS, ACK))
    assert client.session.streams()[1]["window"] == 200000


# Content that waits for its reader


def test_paused_content_is_kept_and_delivered_in_order() -> None:
    client = Client()
    client.ask(1, POST, end=False)
    client.session.pause(1)
    client.send(data(1, b"abc"), data(1, b"def"), client.speaker.headers(1, [(b"x-sum", b"1")]))
    assert [event[0] for event in client.events] == ["open", "head"]
    assert client.session.facts()["held"] == 6
    client.session.resume(1)
    events = client.events
    assert b"".join(event[2] for event in events[:-1]) == b"abcdef" and events[-1] == ("end", 1, [(b"x-sum", b"1")])
    assert client.session.facts()["held"] == 0


def test_a_paused_stream_gets_no_window_and_the_others_do() -> None:
    client = Client(window=65535, connection_window=65535)
    client.ask(1, POST, end=False)
    client.ask(3, POST, end=False)
    client.session.pause(1)
    client.send(*[data(1, b"x" * 16383)] * 4)
    assert client.session.streams()[1] | {"window": 3, "held": 65532} == client.session.streams()[1]
    assert {answer.stream for answer in client.answers()} == {0}
    client.send(*[data(3, b"y" * 16384)] * 8)
    assert not client.session.dead
    client.session.resume(1)
    assert sum(answer.number for answer in client.answers() if answer.stream == 1) > 32768


@pytest.fixture
def spare() -> Iterator[int]:
    """What all sessions share; it is whole again when the test is over."""
    gc.collect()
    before = set_spare(SPARE)
    assert before == SPARE
    yield SPARE
    gc.collect()
    assert set_spare(SPARE) == SPARE


def fill(client: Client, streams: int) -> None:
    """So many uploads that nobody reads, as far as their windows go."""
    for stream in range(1, 2 * streams, 2):
        client.ask(stream, POST, end=False)
        client.session.pause(stream)
        for _ in range(16):
            if client.session.facts()["window"] >= 16384:
                client.send(data(stream, b"x" * 16384))


def test_slow_streams_do_not_block_another(spare: int) -> None:
    """Not ten of them, not all that there may be: their content is kept, and the connection's window stays open."""
    client = Client()
    fill(client, 99)
    facts = client.session.facts()
    assert facts["held"] == 99 * 262144 and facts["withheld"] == 0 and facts["borrowed"] == facts["held"] - (1 << 20)
    client.ask(199, POST, end=False)
    for _ in range(640):
        client.send(data(199, b"y" * 16384))
    assert sum(len(event[2]) for event in client.events if event[0] == "data") == 640 * 16384
    for stream in range(1, 99, 2):
        client.session.resume(stream)
    for stream in range(99, 199, 2):
        client.session.reset(stream)
    facts = client.session.facts()
    assert (facts["held"], facts["withheld"], facts["borrowed"]) == (0, 0, 0)
    assert set_spare(spare) == spare


def test_what_is_shared_can_be_used_up_and_is_given_back(spare: int) -> None:
    """Then each connection has its own part and no more; what one gives back another may have."""
    set_spare(1 << 20)
    greedy, late = Client(), Client()
    fill(greedy, 20)
    assert greedy.session.facts()["borrowed"] == 1 << 20
    assert greedy.session.facts()["withheld"] + greedy.session.facts()["window"] == 1 << 20
    fill(late, 4)
    assert late.session.facts()["withheld"] == 0
    late.ask(21, POST, end=False)
    late.session.pause(21)
    late.send(data(21, b"x" * 16384))
    assert (late.session.facts()["withheld"], late.session.facts()["borrowed"]) == (16384, 0)
    del greedy
    gc.collect()
    late.send(data(21, b"x" * 16384))
    assert (late.session.facts()["withheld"], late.session.facts()["borrowed"]) == (16384, 16384)
    late.session.resume(21)
    assert late.session.facts()["withheld"] == late.session.facts()["borrowed"] == 0
    assert set_spare(SPARE) == 1 << 20
    del late


def test_what_all_streams_hold_is_bounded_by_the_connections_window(spare: int) -> None:
    set_spare(0)
    client = Client(window=65535, connection_window=100000, held=50000)
    for stream in range(1, 21, 2):
        client.ask(stream, POST, end=False)
        client.session.pause(stream)
    sent = 0
    for stream in range(1, 21, 2):
        for _ in range(3):
            if client.session.facts()["window"] >= 16384:
                client.send(data(stream, b"x" * 16384))
                sent += 16384
    assert 50000 < sent <= 150000 + 16384
    assert client.session.facts()["held"] == sent and client.session.facts()["withheld"] > 0
    for stream in range(1, 21, 2):
        client.session.resume(stream)
    facts = client.session.facts()
    assert (facts["held"], facts["withheld"]) == (0, 0)
    set_spare(SPARE)


def test_pausing_again_while_delivering() -> None:
    client = Client()
    client.ask(1, POST, end=False)
    client.session.pause(1)
    client.send(*[data(1, bytes([65 + i]) * 16000) for i in range(8)], data(1, b"", True))
    client.events.clear()
    client.session.set_hook(lambda event: client.session.pause(1) if event[0] == "data" else None)
    pieces = []
    for _ in range(20):
        client.session.resume(1)
        pieces += client.events
        if pieces[-1][0] == "end":
            break
    assert b"".join(piece[2] for piece in pieces if piece[0] == "data") == b"".join(bytes([65 + i]) * 16000 for i in range(8))
    assert pieces[-1] == ("end", 1, None)


def test_a_stream_that_ends_while_delivering() -> None:
    client = Client(window=65535, connection_window=65535, held=10)
    client.ask(1, POST, end=False)
    client.session.pause(1)
    client.send(*[data(1, b"x" * 10000)] * 5)
    client.session.set_hook(lambda event: client.session.reset(1) if event[0] == "data" else None)
    client.session.resume(1)
    facts = client.session.facts()
    assert (facts["held"], facts["withheld"]) == (0, 0) and client.events[-1] == ("gone", 1, "ours", 8, None)
