"""Message framing of requests: checklist items 1 to 11. One reading of every request, or none."""

import pytest
from conftest import Connect
from wirebench import CUTS, Client, Origin, forwarded, is_refused, is_spoilt, passes

POST = "POST /in HTTP/1.1\r\nHost: a.test\r\n"
CHUNKED = POST + "Transfer-Encoding: chunked\r\n\r\n"
SENT = forwarded("POST /in HTTP/1.1", "host: a.test", transfer_encoding="chunked")


@pytest.mark.parametrize(
    "fields",
    [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: gzip\r\nContent-Length: 5\r\n",
        "Content-Length:\r\nTransfer-Encoding: chunked\r\n",
        "Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Connection: content-length\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    ],
)
def test_item_01_a_length_beside_a_coding(connect: Connect, site: Origin, fields: str) -> None:
    is_refused(connect, site, POST + fields + "\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ("Transfer-Encoding: chunked, chunked\r\n", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: gzip, chunked\r\n", 400),
        ("Transfer-Encoding: chunked, gzip\r\n", 400),
        ("Transfer-Encoding: , chunked\r\n", 400),
        ("Transfer-Encoding: chunked,\r\n", 400),
        ("Transfer-Encoding:\r\n", 400),
        ("Transfer-Encoding: identity\r\n", 400),
        ("Transfer-Encoding: chunked;q=1\r\n", 400),
        ("Transfer-Encoding: \x0bchunked\r\n", 400),
        ("Transfer-Encoding: chunked\xa0\r\n", 400),
        ('Transfer-Encoding: "chunked"\r\n', 400),
        ("Transfer-Encoding: gzip\r\n", 501),
        ("Transfer-Encoding: xchunked\r\n", 501),
    ],
)
def test_item_02_a_coding_that_is_not_chunked(connect: Connect, site: Origin, fields: str, status: int) -> None:
    is_refused(connect, site, POST + fields + "\r\n0\r\n\r\n", status)


def test_item_02_chunked_in_any_case_is_chunked(connect: Connect, site: Origin) -> None:
    script = POST + "tRANSFER-eNCODING: \tCHUNKED \r\n\r\n2\r\nhi\r\n0\r\n\r\n"
    for cut in CUTS:
        client = connect()
        client.send(script, cut=cut)
        origin = site.accept()
        assert origin.request("\r\n0\r\n\r\n").startswith(SENT)
        origin.ok()
        assert client.answer().status == 200
        client.kept()
        origin.close()


def test_item_03_a_coding_in_http_1_0(connect: Connect, site: Origin) -> None:
    is_refused(connect, site, "POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    is_refused(connect, site, "POST / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    "fields",
    [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 5,6\r\n",
        "Content-Length:\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nX: y\r\nCONTENT-LENGTH: 0\r\n",
    ],
)
def test_item_04_more_than_one_length(connect: Connect, site: Origin, fields: str) -> None:
    is_refused(connect, site, POST + fields + "\r\nhello")


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"+5",
        b"-1",
        b"0x5",
        b"5_0",
        b"5 0",
        b"1Z",
        b"5;",
        b"5.0",
        b"1e1",
        b"\xd9\xa5",
        b"9223372036854775808",
        b"18446744073709551621",
        b"99999999999999999999999999",
        b"5\x0b",
        b"\xa05",
        b"'5'",
    ],
)
def test_item_05_content_length_grammar(connect: Connect, site: Origin, value: bytes) -> None:
    is_refused(connect, site, POST.encode() + b"Content-Length: " + value + b"\r\n\r\nhello")


def test_item_05_leading_zeros_are_not_passed_on(connect: Connect, site: Origin) -> None:
    expected = forwarded("POST /in HTTP/1.1", "host: a.test", content_length="5", body="hello")
    passes(connect, site, POST + "Content-Length:  005\r\n\r\nhello", expected, 5)
    expected = forwarded("POST /in HTTP/1.1", "host: a.test", content_length="0")
    passes(connect, site, POST + "Content-Length: 000\r\n\r\n", expected)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "0x5",
        "+5",
        "-5",
        "5_",
        " 5",
        "5 ",
        "\t5",
        "g",
        "5g",
        "00000000000000005",
        "FFFFFFFFFFFFFFFF",
        "10000000000000005",
        "8000000000000000",
        ";a",
        "²",
    ],
)
def test_item_06_chunk_size_grammar(connect: Connect, site: Origin, line: str) -> None:
    is_spoilt(connect, site, CHUNKED, line + "\r\nhello\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    "body",
    [
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5\r\rhello\r\n0\r\n\r\n",
        "5\rX\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5\r\nhello\r\n0\n\r\n",
        "5\r\nhello\r\n\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\n",
        "5\r\nhello\r\n0\r\n\rX",
        "5\r\nhello\r\n0\r\nX",
        "5\r\nhello0\r\n\r\n",
        "4\r\nhello\r\n0\r\n\r\n",
    ],
)
def test_item_07_chunk_lines_end_in_crlf(connect: Connect, site: Origin, body: str) -> None:
    is_spoilt(connect, site, CHUNKED, body)


@pytest.mark.parametrize(
    "extension",
    [";a=b", ";a", '; a = "q\\"u" ; b', ";a=b;c=d"],
)
def test_item_08_chunk_extensions_are_dropped(connect: Connect, site: Origin, extension: str) -> None:
    for cut in CUTS:
        client = connect()
        client.send(f"{CHUNKED}5{extension}\r\nhello\r\n0{extension}\r\n\r\n", cut=cut)
        origin = site.accept()
        got = origin.request("\r\n0\r\n\r\n")
        assert got.startswith(SENT)
        assert b";" not in got and b'"' not in got
        assert unchunk(got[len(SENT) :]) == b"hello"
        origin.ok()
        assert client.answer().status == 200
        client.kept()
        origin.close()


@pytest.mark.parametrize(
    "extension",
    [";", ";a=", ";a=\rb", ";a=\nb", ';a="b', ";a=\0", ';a="\x01"', ";a b", ";=b", ";a=" + "x" * 20000, "x", ";a=b" * 6000],
)
def test_item_08_chunk_extensions_that_are_none(connect: Connect, site: Origin, extension: str) -> None:
    client = connect()
    client.send(f"{CHUNKED}5{extension}\r\nhello\r\n0\r\n\r\n")
    client.refused(400)
    assert b"\r\n0\r\n" not in site.accept().rest()


def unchunk(data: bytes) -> bytes:
    body = b""
    while True:
        line, _, data = data.partition(b"\r\n")
        size = int(line, 16)
        if size == 0:
            return body
        body, data = body + data[:size], data[size + 2 :]


TRAILERS = (
    "Content-Length: 9\r\nTransfer-Encoding: chunked\r\nHost: evil.test\r\nAuthorization: x\r\nContent-Type: x/y\r\n"
    "Connection: close\r\nX-Forwarded-For: 1.2.3.4\r\nX-Real-Ip: 1.2.3.4\r\nCookie: a\r\nX_Forwarded_For: 1\r\nX-Checksum: abc\r\n"
)


def test_item_09_trailers_are_no_header_fields(connect: Connect, site: Origin) -> None:
    """What may stand in trailers goes on as a trailer; what would mean something in a header is dropped."""
    for cut in CUTS:
        client = connect()
        client.send(f"{CHUNKED}2\r\nhi\r\n0\r\n{TRAILERS}\r\n", cut=cut)
        origin = site.accept()
        got = origin.request("x-checksum: abc\r\n\r\n")
        head, _, rest = got.partition(b"\r\n\r\n")
        assert head + b"\r\n\r\n" == SENT
        assert rest.partition(b"\r\n0\r\n")[2] == b"x-checksum: abc\r\n\r\n"
        origin.ok()
        assert client.answer().status == 200
        client.kept()
        origin.close()


@pytest.mark.parametrize(
    "trailers", ["bad\r\n", " folded: x\r\n", "a b: c\r\n", "a: b\n", "a: \0\r\n", "a:b\rc: d\r\n", "a: b\r\n c\r\n", ": x\r\n"]
)
def test_item_09_trailers_that_are_malformed(connect: Connect, site: Origin, trailers: str) -> None:
    is_spoilt(connect, site, CHUNKED, f"2\r\nhi\r\n0\r\n{trailers}\r\n")


def test_item_09_trailers_without_end(connect: Connect, site: Origin) -> None:
    client = connect()
    client.send(f"{CHUNKED}2\r\nhi\r\n0\r\n" + "a: b\r\n" * 12000)
    client.refused(431)
    assert b"a: b" not in site.accept().rest()


def test_item_10_a_body_that_ends_too_soon(connect: Connect, site: Origin) -> None:
    """The origin sees an aborted message, and its connection is not used again."""
    for script in (POST + "Content-Length: 10\r\n\r\nhello", CHUNKED + "5\r\nhello\r\n", CHUNKED + "5\r\nhel"):
        client = connect()
        client.send(script)
        origin = site.accept()
        origin.until(b"hel")
        client.half_close()
        origin.rest()
        client.ended()
        client.close()
        site.untouched()


def test_item_10_a_reset_in_the_middle_of_a_body(client: Client, site: Origin) -> None:
    client.send(POST + "Content-Length: 10\r\n\r\nhello")
    origin = site.accept()
    assert origin.request(5).endswith(b"\r\n\r\nhello")
    client.reset()
    assert origin.rest() == b""


def test_item_11_an_early_response_is_delivered_and_the_rest_is_read(client: Client, site: Origin, connect: Connect) -> None:
    client.send(POST + "Content-Length: 10\r\n\r\nhello")
    origin = site.accept()
    origin.request(5)
    origin.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
    answer = client.answer()
    assert (answer.status, answer.body) == (403, b"no")
    # the origin never gets the rest, and its connection, where a part of a request is, is not used again
    assert origin.rest() == b""
    client.send("world")
    client.kept()
    client.send("GET /next HTTP/1.1\r\nHost: a.test\r\n\r\n")
    fresh = site.accept()
    assert fresh.request() == forwarded("GET /next HTTP/1.1", "host: a.test")
    fresh.ok()
    assert client.answer().status == 200


@pytest.mark.parametrize("begun", ["Content-Length: 1000000\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"])
def test_item_11_an_early_response_to_a_long_request_ends_the_connection(client: Client, site: Origin, begun: str) -> None:
    client.send(POST + begun)
    origin = site.accept()
    origin.until(b"hello")
    origin.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
    answer = client.answer()
    assert (answer.status, answer.body) == (413, b"no")
    client.ended()
    assert b"\r\n0\r\n" not in origin.rest()


def test_item_11_a_local_reply_reads_a_short_body_and_keeps(connect: Connect, site: Origin) -> None:
    for cut in CUTS:
        client = connect()
        client.send("OPTIONS / HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: 0\r\nContent-Length: 5\r\n\r\nhello", cut=cut)
        assert client.answer().status == 200
        client.kept()
    site.untouched()
