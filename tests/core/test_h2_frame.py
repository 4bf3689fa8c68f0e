"""Frames of HTTP/2 by themselves: RFC 9113 §4 and §6 by section, RFC 8441, RFC 9218."""

import random

import pytest
from hyperframe.frame import Frame

from gateway._core import faults, h2test
from gateway._core.h2test import frame_head, headers_piece, join_pieces, padding, put_frame_head, read_priority, read_settings

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
PRIORITY_UPDATE = 16
ACK, END_STREAM, END_HEADERS, PADDED, WEIGHTED = 1, 1, 4, 8, 32


def fault(type_: int, length: int, stream: int, flags: int = 0, most: int = 16384) -> str | None:
    return frame_head(put_frame_head(length, type_, flags, stream), most)[4]


def setting(number: int, value: int) -> bytes:
    return number.to_bytes(2, "big") + value.to_bytes(4, "big")


# §4.1


def test_4_1_heads_are_written_as_they_are_read() -> None:
    rng = random.Random(9113)
    for _ in range(500):
        row = (rng.randrange(1 << 24), rng.randrange(256), rng.randrange(256), rng.randrange(1 << 31))
        assert frame_head(put_frame_head(*row))[:4] == row


def test_4_1_the_reserved_bit_is_ignored() -> None:
    assert frame_head(b"\x00\x00\x04\x08\x00\x80\x00\x00\x05")[:4] == (4, WINDOW_UPDATE, 0, 5)


def test_4_1_as_hyperframe_reads_it() -> None:
    rng = random.Random(1)
    for _ in range(300):
        head = bytes([0, 0, rng.randrange(40), rng.choice([0, 1, 4, 6, 8, 9]), rng.randrange(64)]) + rng.randrange(100).to_bytes(
            4, "big"
        )
        length, type_, _, stream, wrong = frame_head(head)
        try:
            frame, size = Frame.parse_frame_header(memoryview(head))
        except Exception:
            assert wrong
            continue
        assert (size, frame.type, frame.stream_id) == (length, type_, stream)


# §4.2 and the lengths of §6


@pytest.mark.parametrize("type_", [*range(10), 16, 11, 77, 255])
def test_4_2_no_frame_is_longer_than_allowed(type_: int) -> None:
    stream = 0 if type_ in (SETTINGS, PING, GOAWAY, PRIORITY_UPDATE) else 1
    assert fault(type_, 16385, stream) == "h2_frame_size"
    assert fault(type_, 16777215, stream) == "h2_frame_size"
    assert fault(type_, 16777216 - 6, stream, most=16777215) in (None, "h2_frame_size", "h2_frame")


@pytest.mark.parametrize(
    ("type_", "stream", "lengths"),
    [
        (PRIORITY, 1, {5}),
        (RST_STREAM, 1, {4}),
        (SETTINGS, 0, {0, 6, 12, 18, 24, 30}),
        (PING, 0, {8}),
        (GOAWAY, 0, set(range(8, 33))),
        (WINDOW_UPDATE, 0, {4}),
        (WINDOW_UPDATE, 3, {4}),
        (PRIORITY_UPDATE, 0, set(range(4, 33))),
        (DATA, 1, set(range(33))),
        (HEADERS, 1, set(range(33))),
        (CONTINUATION, 1, set(range(33))),
        (200, 0, set(range(33))),
        (200, 9, set(range(33))),
    ],
)
def test_6_lengths_that_each_type_may_have(type_: int, stream: int, lengths: set[int]) -> None:
    for length in range(33):
        assert fault(type_, length, stream) == (None if length in lengths else "h2_frame_size")


def test_6_5_an_acknowledgement_of_settings_is_empty() -> None:
    assert fault(SETTINGS, 0, 0, ACK) is None
    assert fault(SETTINGS, 6, 0, ACK) == "h2_frame_size"


@pytest.mark.parametrize(
    ("type_", "length", "on_stream"),
    [
        (DATA, 1, True),
        (HEADERS, 1, True),
        (CONTINUATION, 1, True),
        (PRIORITY, 5, True),
        (RST_STREAM, 4, True),
        (SETTINGS, 0, False),
        (PING, 8, False),
        (GOAWAY, 8, False),
        (PRIORITY_UPDATE, 4, False),
    ],
)
def test_6_which_frames_are_on_a_stream(type_: int, length: int, on_stream: bool) -> None:
    assert fault(type_, length, 1) == (None if on_stream else "h2_frame")
    assert fault(type_, length, 0) == ("h2_frame" if on_stream else None)


def test_6_6_nobody_may_push() -> None:
    for stream in (0, 1, 2):
        assert fault(PUSH_PROMISE, 8, stream) == "h2_frame"


# Padding and priority of §6.1 and §6.2


def test_6_2_headers_without_padding_and_weights() -> None:
    assert headers_piece(0, 1, b"abc") == b"abc"
    assert headers_piece(END_HEADERS | END_STREAM, 1, b"") == b""
    assert headers_piece(PADDED, 1, b"\x02abc\x00\x00") == b"abc"
    assert headers_piece(PADDED, 1, b"\x00abc") == b"abc"
    assert headers_piece(WEIGHTED, 1, b"\x00\x00\x00\x03\x10abc") == b"abc"
    assert headers_piece(WEIGHTED | PADDED, 1, b"\x01\x80\x00\x00\x00\xffabc\x00") == b"abc"


def test_6_2_padding_of_all_of_the_frame_and_more() -> None:
    assert headers_piece(PADDED, 1, b"\x03abc") == b""
    assert headers_piece(PADDED, 1, b"\x04abc") == "h2_frame"
    assert headers_piece(PADDED, 1, b"\xff") == "h2_frame"
    assert headers_piece(PADDED, 1, b"") == "h2_frame_size"
    assert headers_piece(WEIGHTED, 1, b"\x00\x00\x00\x03") == "h2_frame_size"
    assert headers_piece(WEIGHTED | PADDED, 1, b"\x00\x00\x00\x00\x03") == "h2_frame_size"
    assert headers_piece(WEIGHTED | PADDED, 1, b"\x02\x00\x00\x00\x03\x00a") == "h2_frame"


def test_5_3_1_a_stream_does_not_depend_on_itself() -> None:
    assert headers_piece(WEIGHTED, 5, b"\x00\x00\x00\x05\x10") == "h2_frame"
    assert headers_piece(WEIGHTED, 5, b"\x80\x00\x00\x05\x10") == "h2_frame"


def test_6_1_padding_of_data() -> None:
    assert padding(0, 10, b"\xff") == 0
    assert padding(PADDED, 10, b"\x00") == 1
    assert padding(PADDED, 10, b"\x09") == 10
    assert padding(PADDED, 10, b"\x0a") == "h2_frame"
    assert padding(PADDED, 1, b"\x00") == 1
    assert padding(PADDED, 1, b"\x01") == "h2_frame"
    assert padding(PADDED, 0, b"") == "h2_frame_size"


# §6.5.2


DEFAULTS = {"table": 4096, "push": 1, "streams": 0xFFFFFFFF, "window": 65535, "frame": 16384, "list": 0xFFFFFFFF, "connect": 0}


def test_6_5_2_each_setting_and_its_default() -> None:
    assert read_settings(b"") == (None, DEFAULTS)
    for number, name, value in [
        (1, "table", 0), (1, "table", 0xFFFFFFFF), (2, "push", 0), (3, "streams", 0), (3, "streams", 100), (4, "window", 0),
        (4, "window", 0x7FFFFFFF), (5, "frame", 16384), (5, "frame", 16777215), (6, "list", 0), (8, "connect", 1),
    ]:  # fmt: skip
        assert read_settings(setting(number, value)) == (None, {**DEFAULTS, name: value})


@pytest.mark.parametrize(
    ("number", "value", "wrong"),
    [
        (2, 2, "h2_settings"),
        (4, 2147483648, "h2_window"),
        (4, 4294967295, "h2_window"),
        (5, 16383, "h2_settings"),
        (5, 16777216, "h2_settings"),
        (8, 2, "h2_settings"),
        (9, 2, "h2_settings"),
        (2, 4294967295, "h2_settings"),
    ],
)
def test_6_5_2_values_out_of_range(number: int, value: int, wrong: str) -> None:
    assert read_settings(setting(number, value))[0] == wrong


def test_6_5_2_a_server_does_not_offer_to_push() -> None:
    assert read_settings(setting(2, 1), True)[0] == "h2_settings"
    assert read_settings(setting(2, 0), True)[0] is None


def test_6_5_3_the_last_of_several_holds_and_unknown_ones_are_passed_over() -> None:
    payload = setting(3, 1) + setting(0xAAAA, 5) + setting(3, 2) + setting(0, 1) + setting(7, 9)
    assert read_settings(payload) == (None, {**DEFAULTS, "streams": 2})


def test_8441_the_offer_of_connect_is_not_taken_back() -> None:
    assert read_settings(setting(8, 0), before=setting(8, 1))[0] == "h2_settings"
    assert read_settings(setting(8, 1), before=setting(8, 1))[0] is None


# RFC 9218


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"", (3, False)), (b"u=0", (0, False)), (b"u=7,i", (7, True)), (b"i, u=2", (2, True)), (b"u=5, i=?0", (5, False)),
        (b"i=?1", (3, True)), (b" u=1 , i ", (1, True)), (b"u=8", (3, False)), (b"u=-1", (3, False)), (b"u=", (3, False)),
        (b"u", (3, False)), (b"u=10", (3, False)), (b"u=1.0", (3, False)), (b"i=1", (3, False)), (b"x=1, u=4, y", (4, False)),
        (b",,u=6,,", (6, False)), (b"u=1,u=2", (2, False)), (b"\xff\x00", (3, False)), (b"iu=1", (3, False)), (b"i=?2", (3, False)),
    ],
)  # fmt: skip
def test_9218_priority_fields(value: bytes, expected: tuple[int, bool]) -> None:
    assert read_priority(value) == expected


def test_9218_what_is_not_said_stays() -> None:
    assert read_priority(b"i", 1, False) == (1, True)
    assert read_priority(b"u=2", 1, True) == (2, True)


# §7 and §8.1.1


def test_7_every_fault_has_its_error() -> None:
    error = {name: h2test.fault_error(number)[0] for number, name in enumerate(faults.NAMES)}
    protocol, flow, slow, closed, size, cancel, compression, calm = 1, 3, 4, 5, 6, 8, 9, 11
    expected = {name: protocol for name in faults.NAMES}
    expected |= {name: calm for name in faults.NAMES if name.startswith("flood_")}
    expected |= {"none": 0, "h2_window": flow, "h2_slow": slow, "h2_stream": closed, "h2_frame_size": size}
    expected |= {"h2_stall": cancel, "hpack": compression}
    assert error == expected


def test_8_1_1_which_faults_are_answered_by_a_reset() -> None:
    malformed = {name for number, name in enumerate(faults.NAMES) if h2test.fault_error(number)[1]}
    assert malformed == {
        "field_name", "field_value", "method", "target", "length", "status", "switched", "h2_preface", "h2_frame", "h2_frame_size",
        "h2_stream", "h2_settings", "h2_window", "h2_block", "h2_slow", "h2_pseudo", "h2_hop", "h2_length",
    }  # fmt: skip


# §6.10: field blocks in pieces


def test_6_10_pieces_are_put_together() -> None:
    assert join_pieces([b"abc", b"", b"def"]) == b"abcdef"
    assert join_pieces([b""]) == b""
    assert join_pieces([b"a" * 5000, b"b" * 9000, b"c" * 40000]) == b"a" * 5000 + b"b" * 9000 + b"c" * 40000


def test_d3_a_block_is_bounded_in_bytes_and_in_pieces() -> None:
    assert join_pieces([b"a" * 100] * 9) == b"a" * 900
    assert join_pieces([b"a" * 100] * 10) == "flood_block"
    assert join_pieces([b""] * 10) == "flood_block"
    assert join_pieces([b"a" * 16384] * 4) == b"a" * 65536
    assert join_pieces([b"a" * 16384] * 4 + [b"b"]) == "flood_block"
    assert join_pieces([b"a" * 65537]) == "flood_block"


def test_3_4_the_preface() -> None:
    assert h2test.preface().hex() == "505249202a20485454502f322e300d0a0d0a534d0d0a0d0a"
