"""What is written: heads afresh, framing by us alone, and everything we write is read back as the same by the strict parser."""

import http
import random
from typing import Any

import pytest

from gateway._core.selftest import (
    decode_body,
    encode_chunk,
    encode_last_chunk,
    encode_status,
    parse_request,
    parse_response,
    reason,
    reencode_request,
    reencode_response,
)

NONE, LENGTH, CHUNKED, UNTIL_CLOSE = 0, 1, 2, 3
CONN_NONE, CONN_CLOSE, CONN_KEEP_ALIVE, CONN_UPGRADE = 0, 1, 2, 3


def lines(*parts: bytes) -> bytes:
    return b"\r\n".join([*parts, b"", b""])


def test_a_request_is_written_afresh() -> None:
    data = lines(b"GET /a/./b?c HTTP/1.1", b"User-Agent:x ", b"HOST: Example.com:80", b"Connection: close", b"Accept:  */*")
    assert reencode_request(data) == lines(b"GET /a/b?c HTTP/1.1", b"host: Example.com:80", b"user-agent: x", b"accept: */*")


def test_http_1_0_becomes_1_1() -> None:
    assert reencode_request(lines(b"GET / HTTP/1.0")) == lines(b"GET / HTTP/1.1", b"host: ")
    assert reencode_request(lines(b"GET / HTTP/1.1", b"Host:")) == lines(b"GET / HTTP/1.1", b"host: ")


def test_item_28_the_authority_of_the_target_is_the_host_that_is_forwarded() -> None:
    data = lines(b"GET http://A.example:80/x?y HTTP/1.1", b"Host: a.example")
    assert reencode_request(data) == lines(b"GET /x?y HTTP/1.1", b"host: A.example:80")


def test_targets() -> None:
    assert reencode_request(lines(b"OPTIONS * HTTP/1.1", b"Host: a")) == lines(b"OPTIONS * HTTP/1.1", b"host: a")
    assert reencode_request(lines(b"OPTIONS http://a HTTP/1.1", b"Host: a")) == lines(b"OPTIONS * HTTP/1.1", b"host: a")
    assert reencode_request(lines(b"GET /? HTTP/1.1", b"Host: a")) == lines(b"GET /? HTTP/1.1", b"host: a")
    assert reencode_request(lines(b"M-SEARCH /%7e HTTP/1.1", b"Host: a")) == lines(b"M-SEARCH /~ HTTP/1.1", b"host: a")


def test_never_a_framing_byte_of_the_client() -> None:
    data = lines(b"POST / HTTP/1.1", b"Host: a", b"Content-Length: 0007", b"X: 1")
    assert reencode_request(data) == lines(b"POST / HTTP/1.1", b"host: a", b"x: 1", b"content-length: 7")
    assert reencode_request(data, framing=CHUNKED) == lines(b"POST / HTTP/1.1", b"host: a", b"x: 1", b"transfer-encoding: chunked")
    data = lines(b"POST / HTTP/1.1", b"Host: a", b"Transfer-Encoding: CHUNKED", b"X: 1")
    assert reencode_request(data) == lines(b"POST / HTTP/1.1", b"host: a", b"x: 1", b"transfer-encoding: chunked")
    assert reencode_request(data, framing=LENGTH, length=2**63 - 1).endswith(b"\r\ncontent-length: 9223372036854775807\r\n\r\n")


@pytest.mark.parametrize(
    ("method", "written"), [(b"POST", True), (b"PUT", True), (b"PATCH", True), (b"GET", False), (b"DELETE", False)]
)
def test_a_method_that_expects_content_says_that_it_has_none(method: bytes, written: bool) -> None:
    data = lines(method + b" / HTTP/1.1", b"Host: a")
    assert (b"content-length: 0\r\n" in reencode_request(data)) is written


def test_connection_options_of_a_request() -> None:
    data = lines(b"GET / HTTP/1.1", b"Host: a", b"Connection: Upgrade, x", b"Upgrade: h2c, websocket", b"TE: trailers", b"X: 1")
    assert reencode_request(data) == lines(b"GET / HTTP/1.1", b"host: a")
    start = (b"GET / HTTP/1.1", b"host: a")
    assert reencode_request(data, connection=CONN_CLOSE) == lines(*start, b"connection: close")
    assert reencode_request(data, connection=CONN_UPGRADE) == lines(*start, b"upgrade: websocket", b"connection: upgrade")
    assert reencode_request(data, te_trailers=True) == lines(*start, b"te: trailers", b"connection: te")
    assert reencode_request(data, te_trailers=True, connection=CONN_CLOSE) == lines(
        *start, b"te: trailers", b"connection: close, te"
    )


def test_edits_show_up_in_order() -> None:
    data = lines(b"GET / HTTP/1.1", b"Host: a", b"A: 1", b"B: 2", b"C: 3", b"A: 4")
    edits: list[tuple[Any, ...]] = [("add", b"via", b"1.1 x"), ("drop", b"b"), ("set", b"c", b"9"), ("add", b"a", b"")]
    expected = [b"GET / HTTP/1.1", b"host: a", b"a: 1", b"a: 4", b"via: 1.1 x", b"c: 9", b"a: "]
    assert reencode_request(data, edits=edits) == lines(*expected)


def test_a_response_is_written_afresh() -> None:
    data = lines(b"HTTP/1.0 404 Nope", b"Server:x", b"Connection: keep-alive", b"Keep-Alive: 5", b"Set-Cookie: a", b"Set-Cookie: b")
    assert reencode_response(data, framing=CHUNKED, connection=CONN_CLOSE) == lines(
        b"HTTP/1.1 404 Nope", b"server: x", b"set-cookie: a", b"set-cookie: b", b"transfer-encoding: chunked", b"connection: close"
    )
    assert reencode_response(lines(b"HTTP/1.1 200"), framing=UNTIL_CLOSE) == lines(b"HTTP/1.1 200 OK")
    assert reencode_response(lines(b"HTTP/1.1 299 "), framing=NONE) == lines(b"HTTP/1.1 299 ")
    data = lines(b"HTTP/1.1 200 OK", b"Content-Length: 5")
    assert reencode_response(data, connection=CONN_KEEP_ALIVE) == lines(
        b"HTTP/1.1 200 OK", b"content-length: 5", b"connection: keep-alive"
    )


def test_item_13_answers_to_head_keep_the_length() -> None:
    data = lines(b"HTTP/1.1 200 OK", b"Content-Length: 007")
    assert reencode_response(data, request_method=2, keep_length=True) == lines(b"HTTP/1.1 200 OK", b"content-length: 7")
    assert reencode_response(data, request_method=2) == lines(b"HTTP/1.1 200 OK")
    data = lines(b"HTTP/1.1 304 Not Modified", b"Content-Length: 0")
    assert reencode_response(data, keep_length=True) == lines(b"HTTP/1.1 304 Not Modified", b"content-length: 0")
    data = lines(b"HTTP/1.1 204 No Content", b"Content-Length: 0")
    assert reencode_response(data, keep_length=True) == lines(b"HTTP/1.1 204 No Content")


def test_a_101_carries_the_upgrade_field() -> None:
    data = lines(b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Accept: x")
    assert reencode_response(data, connection=CONN_UPGRADE) == lines(
        b"HTTP/1.1 101 Switching Protocols", b"sec-websocket-accept: x", b"upgrade: websocket", b"connection: upgrade"
    )


def test_reasons_are_the_registered_ones() -> None:
    renamed = {
        413: "Content Too Large",
        414: "URI Too Long",
        416: "Range Not Satisfiable",
        422: "Unprocessable Content",
    }  # RFC 9110's names
    rare = {207, 208, 226, 305, 306, 418, 423, 424, 506, 507, 510}
    for status in range(100, 600):
        text = reason(status).decode()
        if status in {member.value for member in http.HTTPStatus} - rare:
            assert text == renamed.get(status, http.HTTPStatus(status).phrase), status
        elif status not in rare:
            assert text == "", status
        assert encode_status(status) == lines(b"HTTP/1.1 %d %s" % (status, text.encode()))


def test_chunk_lines() -> None:
    for n in (0, 1, 9, 10, 15, 16, 255, 8000, 65536, 2**32, 2**63 - 1, 2**64 - 1):
        assert encode_chunk(n) == b"%x\r\n" % n


def test_item_09_trailers_at_the_end_of_chunks() -> None:
    assert encode_last_chunk() == b"0\r\n\r\n"
    assert encode_last_chunk([]) == b"0\r\n\r\n"
    fields = [(b"x-sum", b"1"), (b"content-length", b"5"), (b"host", b"a"), (b"etag", b"")]
    written = encode_last_chunk(fields)
    assert written == b"0\r\nx-sum: 1\r\netag: \r\n\r\n"
    assert decode_body(written)["trailers"] == [(b"x-sum", b"1"), (b"etag", b"")]


def random_fields(rng: random.Random) -> list[bytes]:
    names = [b"Accept", b"X-A", b"x-b", b"Cookie", b"Via", b"Connection", b"Keep-Alive", b"X-Long-Name-Of-A-Field", b"Referer"]
    values = [b"", b"a", b"close", b"x-a", b"keep-alive", b"\xff\x80", b"a b\tc", b"v" * 31, b"w" * 300]
    pads = [b"", b" ", b"\t ", b"  "]
    return [
        rng.choice(names) + b":" + rng.choice(pads) + rng.choice(values) + rng.choice(pads)
        for _ in range(rng.randrange(12))
    ]  # fmt: skip


def test_round_trip_of_requests() -> None:
    """What is written parses to the same request, and writing that again changes nothing."""
    rng = random.Random(1)
    targets = [b"/", b"/a/../b?x", b"/%41//c?", b"http://A.example:81/z?q=%zz", b"/?a"]
    wanted = 0
    for _ in range(3000):
        framing = rng.choice([[], [b"Content-Length: 012"], [b"Transfer-Encoding: chunked"]])
        host = b"Host: A.example:81"
        data = lines(
            rng.choice([b"GET ", b"POST ", b"X "]) + rng.choice(targets) + b" HTTP/1.1", host, *random_fields(rng), *framing
        )
        head = parse_request(data)
        if head["fault"]:
            continue
        wanted += 1
        written = reencode_request(data, connection=rng.choice([CONN_NONE, CONN_CLOSE, CONN_KEEP_ALIVE]))
        again = parse_request(written)
        assert (again["fault"], again["used"]) == (None, len(written))
        for key in ("method", "authority", "host", "port", "path", "query"):
            assert again[key] == head[key]
        if head["framing"] != NONE:
            assert (again["framing"], again["length"]) == (head["framing"], head["length"])
        kept = [f[:2] for f in head["fields"] if not f[2] and not f[3] and f[0] not in (b"host", b"content-length")]
        assert kept == [f[:2] for f in again["fields"] if not f[2] and f[0] not in (b"host", b"content-length")]
        assert reencode_request(reencode_request(written)) == reencode_request(written)
    assert wanted > 1000


def test_round_trip_of_responses() -> None:
    rng = random.Random(2)
    for _ in range(3000):
        framing = rng.choice([[], [b"Content-Length: 012"], [b"Transfer-Encoding: chunked"]])
        data = lines(rng.choice([b"HTTP/1.1 200 OK", b"HTTP/1.1 404", b"HTTP/1.1 503 \xff x"]), *random_fields(rng), *framing)
        head = parse_response(data)
        if head["fault"]:
            continue
        written = reencode_response(data)
        again = parse_response(written)
        assert (again["fault"], again["used"], again["status"]) == (None, len(written), head["status"])
        assert (again["framing"], again["length"]) == (head["framing"], head["length"])
        assert reencode_response(written) == written
