"""THE framing and field rules: items 1 to 5, 9, 12, 13, 34, 35, 37, 41, 44, 45, 47 and 48."""

import itertools
from typing import Any

import pytest

from gateway._core.selftest import filter_trailer_fields, parse_request, parse_response, read_length

NONE, LENGTH, CHUNKED, CLOSE = 0, 1, 2, 3
KEEP_ALIVE, EXPECT, UPGRADE, TE_TRAILERS, SAID_CLOSE, WEBSOCKET = 1, 2, 4, 8, 64, 128
GET, HEAD, CONNECT = 1, 2, 9


def ask(*lines: bytes, start: bytes = b"POST / HTTP/1.1", host: tuple[bytes, ...] = (b"Host: a",)) -> dict[str, Any]:
    data = b"\r\n".join([start, *host, *lines, b"", b""])
    whole = parse_request(data)
    assert parse_request(data, 1) == whole
    assert whole["fault"] or whole["used"]
    return whole


def answer(*lines: bytes, start: bytes = b"HTTP/1.1 200 OK", method: int = GET) -> dict[str, Any]:
    data = b"\r\n".join([start, *lines, b"", b""])
    whole = parse_response(data, request_method=method)
    assert parse_response(data, 1, request_method=method) == whole
    assert whole["fault"] or whole["used"]
    return whole


def fault(*lines: bytes, **rest: Any) -> Any:
    return ask(*lines, **rest)["fault"]


def hops(head: dict[str, Any]) -> set[bytes]:
    return {name for name, _, hop, _ in head["fields"] if hop}


def forwarded(head: dict[str, Any]) -> list[bytes]:
    return [name for name, _, hop, drop in head["fields"] if not hop and not drop]


# Framing of requests


def test_item_01_length_beside_coding_is_refused() -> None:
    assert fault(b"Content-Length: 5", b"Transfer-Encoding: chunked") == "length_and_coding"
    assert fault(b"Transfer-Encoding: chunked", b"Content-Length: 5") == "length_and_coding"
    assert fault(b"Transfer-Encoding: gzip", b"Content-Length: 5") == "length_and_coding"
    assert fault(b"Transfer-Encoding:", b"Content-Length: 0") == "length_and_coding"


@pytest.mark.parametrize(
    "lines",
    [
        [b"Transfer-Encoding: chunked, chunked"],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"],
        [b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: chunked, gzip"],
        [b"Transfer-Encoding: gzip, chunked"],
        [b"Transfer-Encoding: , chunked"],
        [b"Transfer-Encoding: chunked,"],
        [b"Transfer-Encoding:"],
        [b"Transfer-Encoding: "],
        [b"Transfer-Encoding: identity"],
        [b"Transfer-Encoding: identity, chunked"],
        [b"Transfer-Encoding: chunked;q=1"],
        [b"Transfer-Encoding: chunked chunked"],
        [b'Transfer-Encoding: "chunked"'],
        [b"Transfer-Encoding: chunked\xa0"],
    ],
)
def test_item_02_coding_is_chunked_alone(lines: list[bytes]) -> None:
    assert fault(*lines) == "coding"


def test_item_02_an_unknown_coding_is_501() -> None:
    for coding in (b"gzip", b"xchunked", b"chunkedx", b"chunke", b"deflate"):
        head = ask(b"Transfer-Encoding: " + coding)
        assert (head["fault"], head["status_of_fault"]) == ("coding_unknown", 501)


def test_item_02_chunked_in_any_case() -> None:
    for coding in (b"chunked", b"Chunked", b"CHUNKED", b" \tchunked\t "):
        assert ask(b"Transfer-Encoding: " + coding)["framing"] == CHUNKED


def test_item_03_no_coding_in_http_1_0() -> None:
    assert fault(b"Transfer-Encoding: chunked", start=b"POST / HTTP/1.0") == "coding"


def test_item_04_two_lengths_are_refused_even_when_they_agree() -> None:
    assert fault(b"Content-Length: 5", b"Content-Length: 6") == "length"
    assert fault(b"Content-Length: 5", b"Content-Length: 5") == "length"
    assert fault(b"Content-Length: 5, 5") == "length"
    assert fault(b"Content-Length:", b"Content-Length: 5") == "length"


BAD_LENGTHS = [
    b"", b"+5", b"-1", b"0x5", b"5_0", b"5 5", b"1Z", b"5,", b",5", b"5.0", b"5e1", b"\xd9\xa1", b"\xb2", b"9223372036854775808",
    b"18446744073709551616", b"99999999999999999999999", b"9" * 400, b"5;", b"\"5\"", b"5\xa0", b"NaN", b"inf",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_LENGTHS)
def test_item_05_content_length_grammar(text: bytes) -> None:
    assert fault(b"Content-Length: " + text) == "length"
    assert read_length(text) is None
    assert answer(b"Content-Length: " + text)["fault"] == "length"


@pytest.mark.parametrize(
    ("text", "number"), [(b"0", 0), (b"5", 5), (b"0005", 5), (b"9223372036854775807", 2**63 - 1), (b"0" * 400 + b"7", 7)]
)
def test_item_05_lengths_that_are_lengths(text: bytes, number: int) -> None:
    head = ask(b"Content-Length: " + text)
    assert (head["framing"], head["length"]) == (LENGTH, number)
    assert read_length(text) == number
    assert read_length(text + b" ") is None and read_length(b" " + text) is None


def test_a_request_without_framing_has_no_content() -> None:
    assert ask()["framing"] == NONE
    head = ask(b"Content-Length: 3", start=b"GET / HTTP/1.1")
    assert (head["framing"], head["length"]) == (LENGTH, 3)


# Framing of responses


def test_item_12_length_beside_coding_loses_the_length_and_the_connection() -> None:
    head = answer(b"Content-Length: 5", b"Transfer-Encoding: chunked")
    assert (head["fault"], head["framing"], head["flags"] & KEEP_ALIVE) == (None, CHUNKED, 0)
    assert b"content-length" not in forwarded(head)
    assert head["length"] == 0
    assert answer(b"Content-Length: x", b"Transfer-Encoding: chunked")["fault"] == "length"
    assert answer(b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Content-Length: 6")["fault"] == "length"


def test_item_12_lengths_of_responses() -> None:
    assert answer(b"Content-Length: 5", b"Content-Length: 5")["fault"] == "length"
    assert answer(b"Content-Length: 5, 5")["fault"] == "length"
    assert answer(b"Content-Length: 5", b"Content-Length: 6")["fault"] == "length"
    head = answer(b"Content-Length: 5")
    assert (head["framing"], head["length"], head["flags"]) == (LENGTH, 5, KEEP_ALIVE)


def test_item_12_codings_of_responses() -> None:
    assert answer(b"Transfer-Encoding: chunked")["framing"] == CHUNKED
    assert answer(b"Transfer-Encoding: Chunked")["flags"] & KEEP_ALIVE
    head = answer(b"Transfer-Encoding: identity")
    assert (head["framing"], head["flags"] & KEEP_ALIVE) == (CLOSE, 0)
    # Stricter than reading to the close: the field is hop-by-hop and goes, so the client would get a coding that nothing names.
    assert answer(b"Transfer-Encoding: gzip")["fault"] == "coding_unknown"
    for value in (b"gzip, chunked", b"chunked, gzip", b"chunked, chunked", b", chunked", b"", b"chunked;x=1"):
        assert answer(b"Transfer-Encoding: " + value)["fault"] == "coding"
    assert answer(b"Transfer-Encoding: chunked", start=b"HTTP/1.0 200 OK")["fault"] == "coding"


def test_item_12_interim_responses_carry_no_framing() -> None:
    for status in (b"100", b"102", b"103", b"199"):
        start = b"HTTP/1.1 " + status + b" x"
        assert answer(start=start)["framing"] == NONE
        assert answer(b"Transfer-Encoding: chunked", start=start)["fault"] == "coding"
        assert answer(b"Content-Length: 5", start=start)["fault"] == "length"
        assert b"content-length" not in forwarded(answer(b"Content-Length: 0", start=start))


@pytest.mark.parametrize(
    ("start", "method"),
    [(b"HTTP/1.1 200 OK", HEAD), (b"HTTP/1.1 304 Not Modified", GET), (b"HTTP/1.1 404 Not Found", HEAD)],
)
def test_item_13_answers_without_content_keep_their_length_as_a_fact(start: bytes, method: int) -> None:
    head = answer(b"Content-Length: 5", start=start, method=method)
    assert (head["framing"], head["length"], head["flags"]) == (NONE, 5, KEEP_ALIVE)
    assert b"content-length" in forwarded(head)
    assert answer(b"Transfer-Encoding: chunked", start=start, method=method)["framing"] == NONE
    assert answer(start=start, method=method)["flags"] == KEEP_ALIVE


def test_item_13_a_204_has_no_content_and_no_length() -> None:
    head = answer(b"Content-Length: 0", start=b"HTTP/1.1 204 No Content")
    assert (head["fault"], head["framing"], head["flags"]) == (None, NONE, KEEP_ALIVE)
    assert b"content-length" not in forwarded(head)
    for line in (b"Content-Length: 5", b"Transfer-Encoding: chunked"):
        head = answer(line, start=b"HTTP/1.1 204 No Content")
        assert (head["fault"], head["framing"], head["flags"] & KEEP_ALIVE) == (None, NONE, 0)


def test_a_response_without_framing_ends_with_the_connection() -> None:
    head = answer()
    assert (head["framing"], head["flags"] & KEEP_ALIVE) == (CLOSE, 0)
    assert answer(b"Connection: keep-alive", start=b"HTTP/1.0 200 OK")["flags"] & KEEP_ALIVE == 0


def test_a_connect_that_succeeded_has_no_content() -> None:
    assert answer(b"Content-Length: 5", method=CONNECT)["framing"] == NONE
    assert answer(b"Content-Length: 5", start=b"HTTP/1.1 407 No", method=CONNECT)["framing"] == LENGTH


def test_item_43_a_101_names_its_protocol() -> None:
    start = b"HTTP/1.1 101 Switching Protocols"
    head = answer(b"Upgrade: websocket", b"Connection: Upgrade", start=start)
    assert (head["fault"], head["flags"]) == (None, KEEP_ALIVE | UPGRADE | WEBSOCKET)
    assert answer(start=start)["fault"] == "switched"
    assert answer(b"Upgrade: h2c", b"Connection: Upgrade", start=start)["fault"] == "switched"
    assert answer(b"Upgrade: ", b"Connection: Upgrade", start=start)["fault"] == "switched"


def test_a_200_that_offers_an_upgrade_is_http() -> None:
    head = answer(b"Upgrade: h2,h2c", b"Connection: Upgrade", b"Content-Length: 0")
    assert (head["fault"], head["flags"]) == (None, KEEP_ALIVE)
    assert b"upgrade" not in forwarded(head)


# Connection and hop-by-hop fields


def test_item_34_hop_by_hop_fields_stay_here() -> None:
    lines = (
        b"Keep-Alive: 5",
        b"Proxy-Connection: x",
        b"TE: trailers",
        b"Upgrade: x",
        b"Connection: keep-alive",
        b"Trailer: x",
        b"X: 1",
    )
    head = ask(*lines, b"Transfer-Encoding: chunked")
    assert hops(head) == {b"keep-alive", b"proxy-connection", b"te", b"upgrade", b"connection", b"transfer-encoding"}
    assert forwarded(head) == [b"host", b"trailer", b"x"]
    assert hops(answer(*lines, b"Content-Length: 0")) == {b"keep-alive", b"proxy-connection", b"te", b"upgrade", b"connection"}


def test_item_34_nominated_fields_stay_here() -> None:
    lines = (b"Connection: X-One, close", b"x-one: 1", b"X-ONE: 2", b"Connection: x-two,,x-nothing", b"x-two: 3", b"x-three: 4")
    assert hops(ask(*lines)) == {b"connection", b"x-one", b"x-two"}
    assert hops(answer(*lines)) == {b"connection", b"x-one", b"x-two"}


@pytest.mark.parametrize(
    "name",
    [
        b"Host", b"Content-Length", b"Authorization", b"Cookie", b"X-Forwarded-For", b"X-Forwarded-Proto", b"X-Forwarded-Host",
        b"X-Forwarded-User", b"X-Real-IP", b"Forwarded", b"Via", b"X-Request-ID", b"X-Auth-Request-User", b"X-Envoy-Internal",
        b"Content-Type", b"Content-Disposition", b"Proxy-Something", b"Sec-Fetch-Site", b"Traceparent",
    ],
)  # fmt: skip
def test_item_35_nobody_nominates_these(name: bytes) -> None:
    line = name + (b": 0" if name == b"Content-Length" else b": a")
    host = () if name == b"Host" else (b"Host: a",)
    assert hops(ask(line, b"Connection: " + name, host=host)) == {b"connection"}


def test_item_47_close_and_keep_alive() -> None:
    assert ask()["flags"] == KEEP_ALIVE
    assert ask(b"Connection: close")["flags"] == SAID_CLOSE
    assert ask(b"Connection: keep-alive, Close")["flags"] == SAID_CLOSE
    assert ask(b"Connection: keep-alive", b"Connection: close")["flags"] == SAID_CLOSE
    assert ask(start=b"GET / HTTP/1.0")["flags"] == 0
    assert ask(b"Connection: Keep-Alive", start=b"GET / HTTP/1.0")["flags"] == KEEP_ALIVE
    assert ask(b"Proxy-Connection: keep-alive", start=b"GET / HTTP/1.0")["flags"] == 0
    assert answer(b"Content-Length: 0", b"Connection: close")["flags"] == SAID_CLOSE
    assert answer(b"Content-Length: 0", start=b"HTTP/1.0 200 OK")["flags"] == 0


def test_options_that_are_no_tokens() -> None:
    assert fault(b"Connection: close;x") == "field_value"
    assert fault(b'Connection: "close"') == "field_value"
    assert answer(b"Connection: close;x", b"Content-Length: 0")["flags"] == KEEP_ALIVE


def test_a_thousand_options_are_too_many() -> None:
    assert fault(b"Connection: " + b",".join([b"x"] * 64)) is None
    assert fault(b"Connection: " + b",".join([b"x"] * 65)) == "fields_many"
    assert fault(*[b"Connection: " + b"x," * 20] * 4) == "fields_many"
    assert fault(b"Connection: " + b"," * 8000) is None


def test_te_trailers() -> None:
    assert ask(b"TE: gzip;q=0.5, Trailers")["flags"] == KEEP_ALIVE | TE_TRAILERS
    assert ask(b"TE: gzip", b"TE: trailers")["flags"] == KEEP_ALIVE | TE_TRAILERS
    assert ask(b"TE: trailersx")["flags"] == KEEP_ALIVE


# Single fields


def test_item_37_max_forwards_and_trace() -> None:
    head = ask(start=b"TRACE / HTTP/1.1")
    assert (head["fault"], head["status_of_fault"]) == ("trace", 405)
    start = b"OPTIONS / HTTP/1.1"
    assert fault(b"Max-Forwards: 0", start=start) is None
    for value in (b"", b"-1", b"x", b"1x", b"1, 1", b"+1", b"9999999999"):
        assert fault(b"Max-Forwards: " + value, start=start) == "max_forwards"
    assert fault(b"Max-Forwards: 1", b"Max-Forwards: 1", start=start) == "max_forwards"
    assert fault(b"Max-Forwards: x", start=b"GET / HTTP/1.1") is None


def test_item_41_expectations() -> None:
    assert ask(b"Expect: 100-Continue", b"Content-Length: 5")["flags"] == KEEP_ALIVE | EXPECT
    assert ask(b"Expect: 100-continue")["flags"] == KEEP_ALIVE
    for value in (b"", b"x", b"100-continue, x", b"100-continue;x", b"100", b"100-continu"):
        head = ask(b"Expect: " + value, b"Content-Length: 5")
        assert (head["fault"], head["status_of_fault"]) == ("expect", 417)
    assert fault(b"Expect: 100-continue", b"Expect: 100-continue", b"Content-Length: 5") == "expect"
    head = ask(b"Expect: 100-continue", b"Content-Length: 5", b"Connection: keep-alive", start=b"POST / HTTP/1.0")
    assert head["flags"] == KEEP_ALIVE and b"expect" not in forwarded(head)


def test_item_41_expect_never_changes_the_framing() -> None:
    for expect in (b"Expect: 100-continue", b"Expect:  100-CONTINUE "):
        for framing, number in ((b"Content-Length: 7", LENGTH), (b"Transfer-Encoding: chunked", CHUNKED)):
            for lines in itertools.permutations([expect, framing, b"X: 1"]):
                assert ask(*lines)["framing"] == number


def test_item_44_an_upgrade_has_no_content() -> None:
    lines = (b"Connection: Upgrade", b"Upgrade: websocket")
    start = b"GET / HTTP/1.1"
    assert ask(*lines, start=start)["flags"] == KEEP_ALIVE | UPGRADE | WEBSOCKET
    assert ask(b"Connection: upgrade", b"Upgrade: foo/2", start=start)["flags"] == KEEP_ALIVE | UPGRADE
    for line in (b"Content-Length: 5", b"Content-Length: 0", b"Transfer-Encoding: chunked"):
        assert fault(*lines, line, start=start) == "upgrade_body"
    # Without Connection: upgrade, or in HTTP/1.0, nobody asked for anything.
    assert ask(b"Upgrade: websocket", b"Content-Length: 5")["flags"] == KEEP_ALIVE
    assert ask(*lines, start=b"GET / HTTP/1.0")["flags"] == 0
    assert fault(b"Connection: upgrade", b"Upgrade: a b", start=start) == "field_value"
    assert fault(b"Connection: upgrade", b"Upgrade: a/", start=start) == "field_value"


def upgrades(*lines: bytes) -> tuple[int, list[bytes]]:
    head = ask(b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAMAAABkAARAAAAA", *lines, start=b"GET / HTTP/1.1")
    assert head["fault"] is None
    assert (b"http2-settings", b"AAMAAABkAARAAAAA", True, True) in head["fields"]
    return head["flags"], [value for name, value, _, drop in head["fields"] if name == b"upgrade" and not drop]


def test_item_45_h2c_never_counts_as_an_upgrade() -> None:
    assert upgrades(b"Upgrade: h2c") == (KEEP_ALIVE, [])
    assert upgrades(b"Upgrade: H2C, h2") == (KEEP_ALIVE, [])
    assert upgrades(b"Upgrade: h2c/1") == (KEEP_ALIVE, [])
    assert upgrades(b"Upgrade: h2c", b"Upgrade: , h2c ,") == (KEEP_ALIVE, [])
    asked = KEEP_ALIVE | UPGRADE | WEBSOCKET
    assert upgrades(b"Upgrade: h2c, websocket") == (asked, [b"websocket"])
    assert upgrades(b"Upgrade: websocket,h2c, foo/1") == (asked, [b"websocket,foo/1"])
    assert upgrades(b"Upgrade: h2c", b"Upgrade: websocket", b"Upgrade: h2c") == (asked, [b"websocket"])


def test_item_45_a_post_that_offers_h2c_is_a_plain_post() -> None:
    head = ask(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: x", b"Content-Length: 5")
    assert (head["fault"], head["framing"], forwarded(head)) == (None, LENGTH, [b"host", b"content-length"])


@pytest.mark.parametrize("name", [b"X_Forwarded_For", b"a_b", b"_", b"content_length", b"transfer_encoding", b"x-y_"])
def test_item_48_names_with_an_underscore_are_refused_in_requests(name: bytes) -> None:
    assert fault(name + b": 1") == "underscore"
    assert answer(name + b": 1", b"Content-Length: 0")["fault"] is None


def test_item_48_underscores_in_values_are_fine() -> None:
    assert fault(b"X: a_b", b"User-Agent: _") is None


# Trailers


def test_item_09_what_may_not_stand_in_trailers() -> None:
    good = [(b"x-checksum", b"1"), (b"etag", b"2"), (b"grpc-status", b"0"), (b"grpc-message", b""), (b"server-timing", b"x")]
    names = [
        b"host", b"content-length", b"transfer-encoding", b"authorization", b"content-type", b"content-encoding",
        b"content-disposition", b"connection", b"x-forwarded-for", b"x-forwarded-user", b"x-real-ip", b"cookie", b"set-cookie",
        b"te",
        b"trailer", b"expect", b"range", b"if-match", b"cache-control", b"location", b"vary", b"via", b"upgrade", b"forwarded",
        b"x_forwarded_for", b"proxy-authorization", b"sec-websocket-key", b"max-forwards", b"x-request-id", b"www-authenticate",
    ]  # fmt: skip
    bad = [(name, b"x") for name in names]
    assert filter_trailer_fields(bad) == []
    mixed = [field for pair in itertools.zip_longest(bad, good) for field in pair if field]
    assert filter_trailer_fields(mixed) == good
