"""Heads of HTTP/1.x, byte by byte: the checklist's lexical rules (items 14 to 26 and 33) and resumption at every split."""

from typing import Any

import pytest

from gateway._core.selftest import parse_request, parse_response

GET = b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: x\r\nAccept: */*\r\n\r\n"
KEEP_ALIVE, CLOSE = 1, 64


def request(*lines: bytes, start: bytes = b"GET / HTTP/1.1", host: bytes | None = b"Host: a") -> bytes:
    return b"\r\n".join([start, *([host] if host is not None else []), *lines, b"", b""])


def response(*lines: bytes, start: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join([start, *lines, b"", b""])


def fault(data: bytes, **limits: int) -> str | None:
    """The fault of a whole request; the same in pieces, or no fault in both."""
    answer = parse_request(data, **limits)
    assert parse_request(data, 1, **limits)["fault"] == answer["fault"]
    assert answer["fault"] or answer["used"], "the head is not complete"
    found: str | None = answer["fault"]
    return found


def response_fault(data: bytes) -> str | None:
    answer = parse_response(data)
    assert parse_response(data, 1)["fault"] == answer["fault"]
    assert answer["fault"] or answer["used"], "the head is not complete"
    found: str | None = answer["fault"]
    return found


def fields(answer: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value, _, drop in answer["fields"] if not drop]


def test_a_plain_request() -> None:
    answer = parse_request(GET)
    assert (answer["method"], answer["method_id"], answer["target"], answer["version"]) == (b"GET", 1, b"/", 11)
    assert (answer["host"], answer["port"], answer["path"], answer["query"]) == (b"a", 0, b"/", None)
    assert fields(answer) == [(b"host", b"a"), (b"user-agent", b"x"), (b"accept", b"*/*")]
    assert (answer["used"], answer["framing"], answer["flags"]) == (len(GET), 0, KEEP_ALIVE)


REQUESTS = [
    GET,
    b"\r\n\r\n" + GET,
    request(b"Content-Length: 12", b"X-Empty:", b"X-Space: \t ", b"X-Text: \xe4\xff \x80", start=b"POST /a/../b?c=%41 HTTP/1.1"),
    request(b"Transfer-Encoding: chunked", b"Connection: close, x-gone", b"X-Gone: 1", b"Trailer: x", start=b"PUT /x HTTP/1.1"),
    request(b"Upgrade: websocket, h2c", b"Connection: Upgrade", b"Sec-WebSocket-Key: x", start=b"GET /chat HTTP/1.1"),
    request(b"Host: x:8080", host=None, start=b"OPTIONS http://X:8080?q HTTP/1.1"),
    request(host=None, start=b"GET / HTTP/1.0"),
    request(b"bad name: x"),
    request(b"x: \x00"),
    b"GET / HTTP/1.1\nHost: a\n\n",
    b"GET / HTTP/2.0\r\n\r\n",
    b"\x16\x03\x01\x02\x00",
]
RESPONSES = [
    response(b"Server: nginx", b"Content-Length: 40", b"Set-Cookie: a=1", b"Set-Cookie: b=2"),
    response(b"Transfer-Encoding: chunked", start=b"HTTP/1.1 404 Not Found"),
    response(start=b"HTTP/1.0 200"),
    response(start=b"HTTP/1.1 103 Early Hints"),
    response(b"x: 1", b" folded", b"y: 2"),
    b"garbage\r\n\r\n",
]


@pytest.mark.parametrize("data", REQUESTS, ids=range(len(REQUESTS)))
def test_requests_resume_at_every_split(data: bytes) -> None:
    whole = parse_request(data + b"GET / next")
    assert parse_request(data + b"GET / next", 1) == whole
    for cut in range(1, len(data)):
        assert parse_request(data + b"GET / next", [cut]) == whole, cut


@pytest.mark.parametrize("data", RESPONSES, ids=range(len(RESPONSES)))
def test_responses_resume_at_every_split(data: bytes) -> None:
    whole = parse_response(data + b"body")
    assert parse_response(data + b"body", 1) == whole
    for cut in range(1, len(data)):
        assert parse_response(data + b"body", [cut]) == whole, cut


def test_an_incomplete_head_waits() -> None:
    for n in range(len(GET)):
        answer = parse_request(GET[:n])
        assert (answer["fault"], answer["used"]) == (None, 0), n


def test_a_first_byte_that_begins_no_head_is_refused_at_once() -> None:
    assert parse_request(b"\x16")["fault"] == "method"
    assert parse_request(b"\n")["fault"] == "line_end"
    assert parse_request(b" ")["fault"] == "method"
    assert parse_response(b"\r")["fault"] == "start_line"
    assert parse_response(b"<")["fault"] == "start_line"


def test_item_14_obs_fold_is_refused_both_ways() -> None:
    assert fault(request(b"x: 1", b" folded")) == "line_end"
    assert fault(request(b"x: 1", b"\tfolded: y")) == "line_end"
    assert response_fault(response(b"x: 1", b" folded")) == "line_end"
    assert response_fault(response(b"x: 1", b"\tfolded: y")) == "line_end"


def test_item_16_a_bare_cr_is_refused_everywhere() -> None:
    assert fault(b"GET /\r HTTP/1.1\r\nHost: a\r\n\r\n") == "target"
    assert fault(request(b"x: a\rb")) == "field_value"
    assert fault(request(b"x\r: a")) == "field_name"
    assert fault(request(b"x: a\r")) == "field_value"
    assert fault(b"GET / HTTP/1.1\r\nHost: a\r\n\rX: b\r\n\r\n") == "field_name"
    assert response_fault(response(start=b"HTTP/1.1 200 O\rK")) == "field_value"


def test_item_17_a_bare_lf_ends_no_line() -> None:
    assert fault(b"GET / HTTP/1.1\nHost: a\r\n\r\n") == "line_end"
    assert fault(b"GET / HTTP/1.1\r\nHost: a\n\r\n") == "line_end"
    assert fault(b"GET / HTTP/1.1\r\nHost: a\r\n\n") == "line_end"
    assert fault(b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n") == "line_end"
    assert response_fault(b"HTTP/1.1 200 OK\nX: y\n\n") == "line_end"


@pytest.mark.parametrize("line", [b"x : 1", b"x\t: 1", b"Content-Length : 1", b"x y: 1"])
def test_item_18_no_white_space_before_the_colon(line: bytes) -> None:
    assert fault(request(line)) == "field_name"
    assert response_fault(response(line)) == "field_name"


def test_item_19_no_white_space_before_the_first_field() -> None:
    assert fault(b"GET / HTTP/1.1\r\n Host: a\r\n\r\n") == "line_end"
    assert fault(b"GET / HTTP/1.1\r\n \r\nHost: a\r\n\r\n") == "line_end"


@pytest.mark.parametrize("name", [b"", b"\xe4", b"a\x00b", b"a\x7f", b"a(b", b"a/b", b'a"b', b"[a]", b"a,b", b"a@b", b"{a}"])
def test_item_20_a_name_is_a_token(name: bytes) -> None:
    assert fault(request(name + b": 1")) == "field_name"
    assert response_fault(response(name + b": 1")) == "field_name"


@pytest.mark.parametrize("byte", [*range(0, 9), *range(11, 13), *range(14, 32), 127])
def test_item_21_no_control_bytes_in_values(byte: int) -> None:
    for value in (b"%c", b"a%c", b"%cb", b"0123456%c", b"01234567%c", b"a%cb of a long value", b"a long value that ends in %c"):
        assert fault(request(b"x: " + value % byte)) == "field_value"
    assert response_fault(response(b"x: a%cb" % byte)) == "field_value"


def test_item_21_a_tab_is_allowed_inside_a_value() -> None:
    assert fields(parse_request(request(b"x: a\tb of some length")))[-1] == (b"x", b"a\tb of some length")


def test_item_22_a_line_without_colon_is_refused() -> None:
    assert fault(request(b"nocolon")) == "field_name"
    assert fault(request(b"GET / HTTP/1.1")) == "field_name"
    assert response_fault(response(b"nocolon")) == "field_name"


def test_item_23_obs_text_passes_as_bytes() -> None:
    value = bytes(range(0x80, 0x100))
    assert fields(parse_request(request(b"x: " + value)))[-1] == (b"x", value)


def test_item_24_two_empty_lines_before_a_request_are_ignored() -> None:
    assert parse_request(b"\r\n" + GET)["used"] == len(GET) + 2
    assert parse_request(b"\r\n\r\n" + GET)["used"] == len(GET) + 4
    assert fault(b"\r\n\r\n\r\n" + GET) == "start_line"
    assert response_fault(b"\r\n" + response()) == "start_line"


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b"GET  / HTTP/1.1", "start_line"),
        (b"GET /  HTTP/1.1", "start_line"),
        (b"GET\t/ HTTP/1.1", "method"),
        (b"GET /\tHTTP/1.1", "start_line"),
        (b"GET / HTTP/1.1 ", "start_line"),
        (b" GET / HTTP/1.1", "method"),
        (b"GET /\x0b HTTP/1.1", "target"),
        (b"GET /\x0c HTTP/1.1", "target"),
        (b"GET /a b HTTP/1.1", "start_line"),
        (b"GET /", "start_line"),
        (b"GET", "start_line"),
        (b"GET / HTTP/1.2", "version"),
        (b"GET / HTTP/0.9", "version"),
        (b"GET / HTTP/2.0", "version"),
        (b"PRI * HTTP/2.0", "version"),
        (b"GET / http/1.1", "start_line"),
        (b"GET / HTTP/1.10", "start_line"),
        (b"GET / HTTP/1,1", "start_line"),
        (b"GET / HTTP/01.1", "start_line"),
        (b"GET / HTTP/1.1x", "start_line"),
        (b"GET / HTTP/1.", "start_line"),
        (b"GET / XTTP/1.1", "start_line"),
        (b"GET  HTTP/1.1", "start_line"),
    ],
)
def test_item_25_the_request_line_is_exact(line: bytes, name: str) -> None:
    assert fault(request(start=line)) == name


def test_item_26_a_method_is_a_token_whose_case_is_kept() -> None:
    answer = parse_request(request(start=b"get / HTTP/1.1"))
    assert (answer["method"], answer["method_id"]) == (b"get", 0)
    assert parse_request(request(start=b"M-SEARCH / HTTP/1.1"))["method"] == b"M-SEARCH"
    assert fault(request(start=b"G(T / HTTP/1.1")) == "method"
    assert fault(request(start=b"A" * 32 + b" / HTTP/1.1")) is None
    assert fault(request(start=b"A" * 33 + b" / HTTP/1.1")) == "method"
    assert parse_request(b"A" * 33)["fault"] == "method"


@pytest.mark.parametrize(
    ("text", "number"),
    [(b"GET", 1), (b"HEAD", 2), (b"POST", 3), (b"PUT", 4), (b"DELETE", 5), (b"OPTIONS", 6), (b"PATCH", 7), (b"LOCK", 0)],
)
def test_known_methods(text: bytes, number: int) -> None:
    assert parse_request(request(start=text + b" / HTTP/1.1"))["method_id"] == number


def test_item_33_a_long_start_line_is_414_finished_or_not() -> None:
    line = b"GET /" + b"a" * 84 + b" HTTP/1.1"
    assert len(line) == 98
    assert fault(request(start=line), max_line=98) is None
    assert fault(request(start=line), max_line=97) == "target_long"
    assert parse_request(b"GET /" + b"a" * 90, max_line=90)["fault"] == "target_long"
    assert parse_request(b"GET /" + b"a" * 90, max_line=97)["fault"] is None
    assert parse_response(b"HTTP/1.1 200 " + b"a" * 90, max_line=90)["fault"] == "start_line"


def test_item_33_too_many_header_bytes_are_431_finished_or_not() -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\nx: " + b"a" * 100 + b"\r\n\r\n"
    assert fault(head, max_bytes=9 + 105) is None
    assert fault(head, max_bytes=9 + 104) == "fields_large"
    assert parse_request(b"GET / HTTP/1.1\r\nx: " + b"a" * 100, max_bytes=90)["fault"] == "fields_large"
    assert parse_request(b"GET / HTTP/1.1\r\n" + b"a" * 100, max_bytes=90)["fault"] == "fields_large"


def test_item_33_too_many_fields_are_431() -> None:
    lines = [b"x: 1"] * 9
    assert fault(request(*lines), max_count=10) is None
    assert fault(request(*lines, b"x: 1"), max_count=10) == "fields_many"


def test_d11_a_million_tiny_fields_stop_at_the_limit() -> None:
    answer = parse_request(b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 100_000)
    assert answer["fault"] == "fields_many"
    assert len(answer["fields"]) == 100


def test_values_lose_white_space_around_them_and_nothing_else() -> None:
    answer = parse_request(request(b"a:", b"b: ", b"c:\t \t", b"d:x", b"e: \tx y\t ", b"f:  "))
    assert fields(answer)[1:] == [(b"a", b""), (b"b", b""), (b"c", b""), (b"d", b"x"), (b"e", b"x y"), (b"f", b"")]


def test_item_39_fields_keep_their_order() -> None:
    answer = parse_request(request(b"x: 1", b"y: 2", b"X: 3", b"y: 4"))
    assert fields(answer)[1:] == [(b"x", b"1"), (b"y", b"2"), (b"x", b"3"), (b"y", b"4")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [(b"HTTP/1.1 200 OK", b"OK"), (b"HTTP/1.1 200 ", b""), (b"HTTP/1.1 200", b""), (b"HTTP/1.1 200 N\xf6 \t way", b"N\xf6 \t way")],
)
def test_reason_phrases_of_real_origins(line: bytes, reason: bytes) -> None:
    answer = parse_response(response(b"Content-Length: 0", start=line))
    assert (answer["fault"], answer["status"], answer["reason"]) == (None, 200, reason)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b"HTTP/1.1 20 OK", "status"),
        (b"HTTP/1.1 2000 OK", "status"),
        (b"HTTP/1.1 0200 OK", "status"),
        (b"HTTP/1.1 099 OK", "status"),
        (b"HTTP/1.1 600 OK", "status"),
        (b"HTTP/1.1 2x0 OK", "status"),
        (b"HTTP/1.1 +20 OK", "status"),
        (b"HTTP/1.1 200OK", "status"),
        (b"HTTP/1.1 200\tOK", "status"),
        (b"HTTP/1.1  200 OK", "status"),
        (b"HTTP/1.1\t200 OK", "start_line"),
        (b"HTTP/2.0 200 OK", "version"),
        (b"HTTP/1.2 200 OK", "version"),
        (b"HTTP/1 200 OKAY", "start_line"),
        (b"http/1.1 200 OK", "start_line"),
        (b"ICY 200 OK OK OK", "start_line"),
        (b"HTTP/1.1 2", "start_line"),
        (b"HTTP/1.1 200 \x00", "field_value"),
    ],
)
def test_status_lines_are_exact(line: bytes, name: str) -> None:
    assert response_fault(response(start=line)) == name


def test_a_store_that_grows_keeps_every_field() -> None:
    lines = [b"x-%d: %s" % (i, b"v" * i) for i in range(300)]
    answer = parse_request(request(*lines), max_count=1000, max_bytes=1 << 20)
    assert fields(answer)[1:] == [(b"x-%d" % i, b"v" * i) for i in range(300)]
