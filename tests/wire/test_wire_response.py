"""What origins send: checklist items 12 to 15 and 42. A client never gets one origin's mistake as a complete answer."""

import pytest
from conftest import Connect
from wirebench import CUTS, Client, Gateway, Origin, forwarded

GET = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"
OK = "HTTP/1.1 200 OK\r\n"


def is_bad_gateway(connect: Connect, site: Origin, response: str | bytes) -> None:
    """Asserts that this response is not passed on: 502 for the client, whose connection is kept, and the origin's is closed."""
    for cut in CUTS:
        client = connect()
        client.send(GET)
        origin = site.accept()
        origin.request()
        origin.send(response, cut=cut)
        answer = client.answer()
        assert answer.status == 502, answer
        assert origin.rest() == b""
        client.kept()
        client.close()


def answers(connect: Connect, site: Origin, response: str, status: int, fields: list[tuple[str, str]], body: bytes) -> None:
    """Asserts what the client gets of a response, whole and byte by byte, and that neither connection is closed by it."""
    for cut in CUTS:
        client = connect()
        client.send(GET)
        origin = site.accept()
        origin.request()
        origin.send(response, cut=cut)
        answer = client.answer()
        assert (answer.status, answer.fields, answer.body) == (status, fields, body)
        client.send(GET)
        origin.request()
        origin.ok()
        assert client.answer().body == b"ok"
        client.kept()
        origin.close()
        client.close()


def test_item_12_a_length_beside_a_coding_is_dropped(connect: Connect, site: Origin) -> None:
    """The coding counts; the origin is not trusted with another request."""
    for cut in CUTS:
        client = connect()
        client.send(GET)
        origin = site.accept()
        origin.request()
        origin.send(OK + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", cut=cut)
        answer = client.answer()
        assert answer.get("content-length") is None
        assert (answer.status, answer.body) == (200, b"hello")
        assert origin.rest() == b""
        client.kept()


@pytest.mark.parametrize(
    "fields",
    [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length:\r\n",
        "Content-Length: 9223372036854775808\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding:\r\n",
    ],
)
def test_item_12_framing_that_is_not_clear(connect: Connect, site: Origin, fields: str) -> None:
    is_bad_gateway(connect, site, OK + fields + "\r\nhello")


def test_item_12_a_coding_in_a_1xx(connect: Connect, site: Origin) -> None:
    is_bad_gateway(connect, site, "HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + OK + "\r\n")
    is_bad_gateway(connect, site, "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nhello" + OK + "\r\n")


def test_item_12_a_client_of_http_1_0_never_gets_a_coding(connect: Connect, site: Origin) -> None:
    for keep in ("", "Connection: keep-alive\r\n"):
        client = connect()
        client.send(f"GET / HTTP/1.0\r\nHost: a.test\r\n{keep}\r\n")
        origin = site.accept()
        origin.request()
        origin.send(OK + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
        answer = client.answer()
        assert answer.get("transfer-encoding") is None
        assert (answer.get("connection"), answer.body) == ("close", b"hello")
        origin.close()


@pytest.mark.parametrize(
    ("method", "status", "fields", "length"),
    [
        ("HEAD", "200 OK", "Content-Length: 0005\r\n", "5"),
        ("HEAD", "200 OK", "Transfer-Encoding: chunked\r\n", None),
        ("GET", "204 No Content", "", None),
        ("GET", "304 Not Modified", "Content-Length: 5\r\nETag: x\r\n", "5"),
    ],
)
def test_item_13_no_body_where_none_may_be(
    connect: Connect, site: Origin, method: str, status: str, fields: str, length: str | None
) -> None:
    for cut in CUTS:
        client = connect()
        client.send(f"{method} / HTTP/1.1\r\nHost: a.test\r\n\r\n", cut=cut)
        origin = site.accept()
        assert origin.request() == forwarded(f"{method} / HTTP/1.1", "host: a.test")
        origin.send(f"HTTP/1.1 {status}\r\n{fields}\r\n", cut=cut)
        answer = client.answer(method)
        assert f"{answer.status} {answer.reason}" == status
        assert answer.get("content-length") == length
        client.kept()
        # the origin's connection goes on too
        client.send(GET)
        origin.request()
        origin.ok()
        assert client.answer().body == b"ok"
        origin.close()


@pytest.mark.parametrize(
    ("method", "head"),
    [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 38\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 38\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 38\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n"),
    ],
)
def test_item_13_a_body_sent_anyway_is_no_next_response(connect: Connect, site: Origin, method: str, head: str) -> None:
    poison = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    client, other = connect(), connect()
    client.send(f"{method} / HTTP/1.1\r\nHost: a.test\r\n\r\n")
    origin = site.accept()
    origin.request()
    origin.send(f"{head}\r\n{poison}")
    assert client.answer(method).status in (200, 204, 304)
    assert origin.rest() == b""
    client.kept()
    other.send(GET)
    fresh = site.accept()
    fresh.request()
    fresh.ok("good")
    assert other.answer().body == b"good"


@pytest.mark.parametrize(
    "response",
    [
        OK + "X: a\r\n b\r\nContent-Length: 0\r\n\r\n",
        OK + "X: a\r\n\tb\r\nContent-Length: 0\r\n\r\n",
        OK + " X: a\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_item_14_folded_fields(connect: Connect, site: Origin, response: str) -> None:
    is_bad_gateway(connect, site, response)


def test_item_14_folded_fields_of_a_request(connect: Connect, site: Origin) -> None:
    for fold in (" b", "\tb", " ", "  Transfer-Encoding: chunked"):
        client = connect()
        client.send(f"GET / HTTP/1.1\r\nHost: a.test\r\nX: a\r\n{fold}\r\n\r\n")
        client.refused(400)
    site.untouched()


def test_item_15_extra_bytes_in_the_same_write(connect: Connect, site: Origin) -> None:
    client, other = connect(), connect()
    client.send(GET)
    origin = site.accept()
    origin.request()
    origin.send(OK + "Content-Length: 2\r\n\r\nok" + OK + "Content-Length: 6\r\n\r\npoison")
    assert client.answer().body == b"ok"
    assert origin.rest() == b""
    other.send(GET)
    fresh = site.accept()
    fresh.request()
    fresh.ok("good")
    assert other.answer().body == b"good"
    client.kept()


def test_item_15_extra_bytes_on_an_idle_connection(connect: Connect, site: Origin) -> None:
    client = connect()
    client.send(GET)
    origin = site.accept()
    origin.request()
    origin.ok()
    assert client.answer().body == b"ok"
    origin.send(OK + "Content-Length: 6\r\n\r\npoison")
    assert origin.rest() == b""
    client.send(GET)
    fresh = site.accept()
    fresh.request()
    fresh.ok("good")
    assert client.answer().body == b"good"


@pytest.mark.parametrize("first", ["request", "poison"])
def test_item_15_extra_bytes_that_race_with_the_next_request(client: Client, gateway: Gateway, site: Origin, first: str) -> None:
    """Both arrive in one turn of the engine: what the origin sent before it was asked is no answer."""
    client.send(GET)
    origin = site.accept()
    origin.request()
    origin.ok()
    assert client.answer().body == b"ok"
    with gateway.stopped():
        if first == "request":
            client.send(GET)
        origin.send(OK + "Content-Length: 6\r\n\r\npoison")
        if first == "poison":
            client.send(GET)
    fresh = site.accept()
    assert fresh.request() == forwarded("GET / HTTP/1.1", "host: a.test")
    fresh.ok("good")
    assert client.answer().body == b"good"


@pytest.mark.parametrize("chunk", ["5\r\nhel", "5\r\nhello", "5\r\nhello\r\n", "5\r\nhello\r\n0", "5\r\nhello\r\n0\r\n"])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_truncated_chunked_body_never_gets_a_clean_end(client: Client, site: Origin, chunk: str, how: str) -> None:
    client.send(GET)
    origin = site.accept()
    origin.request()
    origin.send(OK + "Transfer-Encoding: chunked\r\n\r\n" + chunk)
    client.until(b"hel")
    origin.close() if how == "close" else origin.reset()
    assert b"0\r\n\r\n" not in client.rest()


@pytest.mark.parametrize(
    "chunk", ["x\r\n", "5\r\nhelloX\r\n", "5\nhello\r\n", "5\r\nhello\r\n0\r\nbad\r\n\r\n", "-1\r\n", "0x1\r\n"]
)
def test_a_malformed_chunked_body_never_gets_a_clean_end(client: Client, site: Origin, chunk: str) -> None:
    client.send(GET)
    origin = site.accept()
    origin.request()
    origin.send(OK + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n" + chunk + "0\r\n\r\n")
    client.until(b"abc")
    assert b"0\r\n\r\n" not in client.rest()
    assert origin.rest() == b""


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_body_short_of_its_length_is_cut(client: Client, site: Origin, how: str) -> None:
    client.send(GET)
    origin = site.accept()
    origin.request()
    origin.send(OK + "Content-Length: 10\r\n\r\nhello")
    assert client.until(b"hello").endswith(b"content-length: 10\r\n\r\nhello")
    origin.close() if how == "close" else origin.reset()
    client.ended()


def test_a_body_up_to_the_end_of_the_connection(connect: Connect, site: Origin) -> None:
    """Chunked for HTTP/1.1, whose connection goes on; for HTTP/1.0 the end of the connection again."""
    client = connect()
    client.send(GET)
    origin = site.accept()
    origin.request()
    origin.send(OK + "\r\nhello")
    client.until(b"hello\r\n")
    origin.send(" world")
    origin.close()
    assert client.until(b"0\r\n\r\n") == b"6\r\n world\r\n0\r\n\r\n"
    client.kept()
    client = connect()
    client.send("GET / HTTP/1.0\r\n\r\n")
    origin = site.accept()
    origin.request()
    origin.send("HTTP/1.0 200 OK\r\n\r\nhello")
    origin.close()
    assert client.rest().endswith(b"connection: close\r\n\r\nhello")


def test_a_reset_where_the_end_means_the_end(client: Client, site: Origin) -> None:
    """HTTP/1.0 client, body up to the end of the connection, origin that breaks off: the client must not take it for complete."""
    client.send("GET / HTTP/1.0\r\n\r\n")
    origin = site.accept()
    origin.request()
    origin.send(OK + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    client.until(b"hello")
    origin.close()
    with pytest.raises(ConnectionResetError):
        while client.more():
            pass


@pytest.mark.parametrize(
    "response",
    [
        b"garbage\r\n\r\n",
        b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        b"<html>hello</html>\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 600 OK\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\n\n",
        b"HTTP/1.1 200 O\0K\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncolonless\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70000,
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 300 + b"\r\n",
    ],
)
def test_garbage_is_a_bad_gateway(connect: Connect, site: Origin, response: bytes) -> None:
    client = connect()
    client.send(GET)
    origin = site.accept()
    origin.request()
    origin.send(response)
    assert client.answer().status == 502
    assert origin.rest() == b""
    client.kept()


@pytest.mark.parametrize("said", ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 103 Early Hints\r\n\r\n", "HT"])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_an_origin_that_dies_before_its_head(client: Client, site: Origin, said: str, how: str) -> None:
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n")
    origin = site.accept()
    origin.request()
    origin.send(said)
    if "103" in said:
        assert client.answer().status == 103
    origin.close() if how == "close" else origin.reset()
    assert client.answer().status == 502
    client.kept()
    site.untouched()


def test_fields_of_a_response_are_forwarded_in_order(connect: Connect, site: Origin) -> None:
    response = (
        OK + "Date: now\r\nServer: origin\r\nSet-Cookie: a=1\r\nX: \xe9\r\nSet-Cookie: b=2\r\nConnection: X-Hop, keep-alive\r\n"
        "X-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\nUpgrade: h2c\r\nContent-Length: 002\r\n\r\nok"
    )
    fields = [("date", "now"), ("server", "origin"), ("set-cookie", "a=1"), ("x", "\xe9"), ("set-cookie", "b=2")]
    answers(connect, site, response, 200, [*fields, ("content-length", "2")], b"ok")


def test_trailers_reach_a_client_that_reads_them(connect: Connect, site: Origin) -> None:
    response = OK + "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\nGrpc-Status: 0\r\n\r\n"
    for te, expected in (("TE: trailers\r\n", [("x-sum", "1"), ("grpc-status", "0")]), ("", [])):
        client = connect()
        client.send(f"GET / HTTP/1.1\r\nHost: a.test\r\n{te}\r\n")
        origin = site.accept()
        origin.request()
        origin.send(response, cut="bytes")
        answer = client.answer()
        assert (answer.body, answer.trailers) == (b"hi", expected)
        client.kept()
        origin.close()


def test_item_42_other_1xx_are_forwarded_in_order(connect: Connect, site: Origin) -> None:
    for cut in CUTS:
        client = connect()
        client.send(GET)
        origin = site.accept()
        origin.request()
        hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: x\r\nX: y\r\n\r\n"
        origin.send("HTTP/1.1 102 Processing\r\n\r\n" + hints + hints + OK + "Content-Length: 2\r\n\r\nok", cut=cut)
        assert client.answer().status == 102
        for _ in range(2):
            early = client.answer()
            assert (early.status, early.fields) == (103, [("link", "</a.css>")])
        assert client.answer().body == b"ok"
        client.kept()
        origin.close()


def test_item_42_a_client_of_http_1_0_sees_no_1xx(client: Client, site: Origin) -> None:
    client.send("GET / HTTP/1.0\r\n\r\n")
    origin = site.accept()
    origin.request()
    origin.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + OK + "Content-Length: 2\r\n\r\nok")
    answer = client.answer()
    assert (answer.status, answer.body) == (200, b"ok")


def test_item_42_no_end_of_1xx(client: Client, site: Origin) -> None:
    client.send("POST / HTTP/1.1\r\nHost: a.test\r\n\r\n")
    origin = site.accept()
    origin.request()
    origin.send("HTTP/1.1 102 Processing\r\n\r\n" * 1000)
    seen = 0
    while (answer := client.answer()).status == 102:
        seen += 1
    assert answer.status == 502
    assert seen <= 100
    assert origin.rest() == b""
