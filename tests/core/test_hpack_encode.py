"""HPACK encoding: what is written of a head, what goes into the table, and what must never."""

import random

import pytest
from hpack import Decoder

from gateway._core.h2test import HpackReader, HpackWriter

Pairs = list[tuple[bytes, bytes]]
REQUEST: Pairs = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/a"), (b":authority", b"a.example")]
RESPONSE: Pairs = [(b":status", b"200"), (b"content-type", b"text/plain"), (b"server", b"origin")]
UPGRADE, WEBSOCKET, ASTERISK = 4, 128, 32


def read(block: bytes) -> Pairs:
    return [(bytes(name), bytes(value)) for name, value in Decoder().decode(block, raw=True)]


def written(pairs: Pairs, kind: str = "request", **rest: object) -> Pairs:
    stateless = read(HpackWriter(True).write(pairs, kind, **rest))
    assert read(HpackWriter().write(pairs, kind, **rest)) == stateless
    return stateless


# What is written


def test_a_request() -> None:
    assert written([*REQUEST, (b"accept", b"*/*"), (b"x-a", b"1"), (b"accept", b"b")]) == [
        *REQUEST,
        (b"accept", b"*/*"),
        (b"x-a", b"1"),
        (b"accept", b"b"),
    ]
    assert written([*REQUEST, (b":scheme", b"https")])[1] == (b":scheme", b"https")


def test_methods() -> None:
    for method in (b"GET", b"POST", b"PUT", b"FOO", b"get"):
        assert written([(b":method", method), *REQUEST[1:]])[0] == (b":method", method)


@pytest.mark.parametrize("path", [b"/", b"/index.html", b"/a?b", b"/?", b"/a/b/c?d=e&f=g", b"/" + b"a" * 2000 + b"?" + b"b" * 2000])
def test_path_and_query_are_one_field_again(path: bytes) -> None:
    pairs = [(b":method", b"GET"), (b":path", path), (b":authority", b"a")]
    assert dict(written(pairs))[b":path"] == path
    assert dict(written(pairs, move_query=True))[b":path"] == path


def test_options_asterisk() -> None:
    pairs = [(b":method", b"OPTIONS"), (b":path", b"*"), (b":authority", b"a")]
    assert dict(written(pairs, flags=ASTERISK))[b":path"] == b"*"


def test_a_request_without_authority() -> None:
    assert written(REQUEST[:3]) == REQUEST[:3]


@pytest.mark.parametrize("status", [100, 103, 200, 201, 204, 206, 302, 304, 400, 404, 418, 500, 599])
def test_every_status(status: int) -> None:
    assert written([(b":status", b"%d" % status)], "response") == [(b":status", b"%d" % status)]


def test_content_length_is_what_the_caller_says() -> None:
    pairs = [*RESPONSE, (b"content-length", b"007")]
    assert written(pairs, "response") == RESPONSE
    assert written(pairs, "response", length=0) == [*RESPONSE, (b"content-length", b"0")]
    assert written(pairs, "response", length=2**63 - 1) == [*RESPONSE, (b"content-length", b"9223372036854775807")]
    assert written(pairs, "response", keep_length=True) == [*RESPONSE, (b"content-length", b"7")]
    assert written([*RESPONSE, (b"content-length", b"000")], "response", keep_length=True)[-1] == (b"content-length", b"0")
    assert written(RESPONSE, "response", keep_length=True) == RESPONSE


def test_a_post_without_content_says_so() -> None:
    for method in (b"POST", b"PUT", b"PATCH"):
        assert written([(b":method", method), *REQUEST[1:]])[-1] == (b"content-length", b"0")
    assert written(REQUEST, length=5)[-1] == (b"content-length", b"5")


def test_item_56_nothing_of_an_http_1_connection_is_written() -> None:
    names = [b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade", b"http2-settings", b"te", b"host"]
    assert written([*REQUEST, *((name, b"x") for name in names), (b"x-a", b"1")]) == [*REQUEST, (b"x-a", b"1")]
    assert written([*RESPONSE, *((name, b"x") for name in names)], "response") == RESPONSE
    assert written([(b"x-sum", b"1"), (b"te", b"x")], "trailers") == [(b"x-sum", b"1")]


def test_te_trailers_is_written_where_it_was_said() -> None:
    assert written([*REQUEST, (b"te", b"gzip, trailers")], te_trailers=True) == [*REQUEST, (b"te", b"trailers")]


def test_rfc_8441_a_websocket_request_becomes_an_extended_connect() -> None:
    pairs = [*REQUEST, (b"sec-websocket-key", b"k"), (b"sec-websocket-version", b"13"), (b"upgrade", b"websocket")]
    assert written(pairs, flags=UPGRADE | WEBSOCKET) == [
        (b":method", b"CONNECT"),
        (b":protocol", b"websocket"),
        *REQUEST[1:],
        (b"sec-websocket-version", b"13"),
    ]


# The table


def test_a_field_is_remembered_when_it_comes_again() -> None:
    writer = HpackWriter()
    sizes = [len(writer.write(RESPONSE, "response", length=40)) for _ in range(4)]
    assert sizes[0] > sizes[2] == sizes[3] == 4
    assert sorted(writer.table()) == sorted([*RESPONSE[1:], (b"content-length", b"40")])


def test_a_field_that_comes_once_pushes_nothing_out() -> None:
    writer = HpackWriter()
    for i in range(500):
        writer.write([*RESPONSE, (b"x-request-id", b"%032d" % i)], "response")
    assert sorted(writer.table()) == sorted(RESPONSE[1:])


@pytest.mark.parametrize("name", [b"authorization", b"proxy-authorization", b"cookie", b"set-cookie", b"x-forwarded-client-cert"])
def test_7_1_secrets_go_into_no_table(name: bytes) -> None:
    writer = HpackWriter()
    for _ in range(5):
        block = writer.write([*REQUEST, (name, b"secret")])
        assert [type(h).__name__ for h in Decoder().decode(HpackWriter(True).write([(name, b"secret")], "trailers"))] == [
            "NeverIndexedHeaderTuple"
        ]
    assert name not in dict(writer.table()) and len(block) > 8


def test_a_field_of_half_the_table_is_not_kept() -> None:
    writer = HpackWriter()
    for _ in range(4):
        writer.write([*RESPONSE, (b"x-big", b"v" * 2100)], "response")
    assert sorted(writer.table()) == sorted(RESPONSE[1:])


def test_4_2_the_table_size_is_announced_with_the_next_block() -> None:
    writer, reader = HpackWriter(), Decoder()
    for _ in range(3):
        reader.decode(writer.write(RESPONSE, "response"), raw=True)
    writer.limit(0)
    assert writer.write(RESPONSE, "response")[:1] == b"\x20" and writer.table() == []
    assert writer.write(RESPONSE, "response")[:1] == b"\x88"
    writer.limit(4096)
    assert writer.write(RESPONSE, "response")[:3] == b"\x3f\xe1\x1f"
    writer.limit(100)
    writer.limit(2000)
    assert writer.write(RESPONSE, "response")[:5] == b"\x3f\x45" + b"\x3f\xb1\x0f"
    writer.limit(2000)
    assert writer.write(RESPONSE, "response")[:1] == b"\x88"


def test_a_larger_table_than_ours_is_not_used() -> None:
    writer = HpackWriter()
    writer.limit(1 << 30)
    assert writer.write(RESPONSE, "response")[:1] == b"\x88"
    for i in range(2000):
        writer.write([(b":status", b"200"), (b"x-%d" % (i // 2), b"v")], "response")
    assert writer.facts()[0] <= 4096


def test_a_stateless_block_can_be_read_at_any_time() -> None:
    trailers = [(b"grpc-status", b"0"), (b"grpc-message", b"ok"), (b"etag", b"x")]
    for _ in range(4):
        assert read(HpackWriter(True).write(trailers, "trailers")) == trailers


def test_values_that_differ_only_in_the_middle_are_told_apart() -> None:
    """The hash looks at both ends of a value; the table is asked for all of it."""
    writer, reader = HpackWriter(), Decoder()
    values = [b"aaaaaaaa" + bytes([c]) * 20 + b"zzzzzzzz" for c in b"bcdefgh"]
    for _ in range(4):
        for value in values:
            assert reader.decode(writer.write([(b":status", b"200"), (b"x-a", value)], "response"), raw=True)[1] == (b"x-a", value)
    for name in (b"x-aaaaaa1", b"x-aaaaab1", b"x-a"):
        for _ in range(3):
            assert reader.decode(writer.write([(b":status", b"200"), (name, b"v")], "response"), raw=True)[1] == (name, b"v")


def test_any_head_is_read_back_by_hpack_and_by_us() -> None:
    rng = random.Random(7541)
    names = [b"accept", b"cookie", b"via", b"authorization", b"x", b"x-y", b"x-" + b"n" * 50, b"date", b"set-cookie", b"age"]
    for _ in range(20):
        writer, theirs, ours = HpackWriter(), Decoder(), HpackReader()
        for _ in range(30):
            pairs = [
                (rng.choice(names), bytes(rng.choice(b"abz0~\xff;") for _ in range(rng.choice([0, 1, 3, 8, 30, 400]))))
                for _ in range(rng.randrange(8))
            ]
            block = writer.write([*REQUEST, *pairs])
            assert [(bytes(n), bytes(v)) for n, v in theirs.decode(block, raw=True)] == [*REQUEST, *pairs]
            head = ours.read(block, max_list=1 << 20)
            assert [(n, v) for n, v, _, _ in head["fields"]] == pairs
            assert writer.table() == ours.table() == [(bytes(n), bytes(v)) for n, v in theirs.header_table.dynamic_entries]
            if rng.random() < 0.1:
                size = rng.choice([0, 100, 1000, 4096])
                writer.limit(size)
                theirs.max_allowed_table_size = 4096
