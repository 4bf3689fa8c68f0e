"""What an intermediary adds, removes and decides: checklist items 34 to 41 and 46 to 48."""

import pytest
from conftest import Connect
from wirebench import CUTS, Client, Gateway, Origin, forwarded, is_refused, passes

GET = "GET / HTTP/1.1\r\nHost: a.test\r\n"
OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PLAIN = forwarded("GET / HTTP/1.1", "host: a.test")


def test_item_34_hop_by_hop_fields_end_here(connect: Connect, site: Origin) -> None:
    script = (
        GET + "Connection: X-One, keep-alive ,x-two\r\nX-One: 1\r\nX-Keep: k\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\n"
        "Connection: X-THREE\r\nX-Two: 2\r\nx-three: 3\r\nTE: gzip\r\nUpgrade: foo\r\nX-One: again\r\n\r\n"
    )
    passes(connect, site, script, forwarded("GET / HTTP/1.1", "host: a.test", "x-keep: k"))
    passes(connect, site, GET + "TE: trailers, deflate;q=0.5\r\n\r\n", forwarded(*PLAIN_PARTS, te="trailers", connection="te"))
    passes(connect, site, GET + "Connection: ,, ,\r\n\r\n", PLAIN)


PLAIN_PARTS = ("GET / HTTP/1.1", "host: a.test")


@pytest.mark.parametrize(
    "name",
    [
        "host",
        "authorization",
        "cookie",
        "x-forwarded-proto",
        "x-request-id",
        "content-type",
        "x-auth-user",
        "origin",
        "cache-control",
    ],
)
def test_item_35_fields_that_nobody_may_nominate(connect: Connect, site: Origin, name: str) -> None:
    """They reach the origin as if Connection had not named them."""
    script = f"{GET}X: 1\r\nConnection: {name}, x\r\n"
    if name not in ("host", "x-forwarded-proto"):
        script += f"{name.title()}: v\r\n"
    for cut in CUTS:
        client = connect()
        client.send(script + "\r\n", cut=cut)
        origin = site.accept()
        head = origin.until(b"\r\n\r\n").split(b"\r\n")
        value = {"host": b"a.test", "x-forwarded-proto": b"http"}.get(name, b"v")
        assert name.encode() + b": " + value in head
        assert b"x: 1" not in head
        origin.ok()
        assert client.answer().status == 200
        client.kept()
        origin.close()


def test_item_35_the_length_cannot_be_nominated(connect: Connect, site: Origin) -> None:
    expected = forwarded("POST / HTTP/1.1", "host: a.test", content_length="5", body="hello")
    passes(
        connect,
        site,
        "POST / HTTP/1.1\r\nHost: a.test\r\nConnection: content-length\r\nContent-Length: 5\r\n\r\nhello",
        expected,
        5,
    )


def test_item_36_via_is_added(connect: Connect, site: Origin) -> None:
    expected = forwarded(*PLAIN_PARTS, "via: 1.0 other, 1.1 x (y)", via="1.1 isthmus")
    passes(connect, site, GET + "Via: 1.0 other, 1.1 x (y)\r\n\r\n", expected)
    client = connect()
    client.send("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n")
    origin = site.accept()
    assert origin.request() == forwarded(*PLAIN_PARTS, via="1.0 isthmus")
    origin.send(OK)
    assert client.answer().status == 200


def test_item_37_max_forwards(connect: Connect, site: Origin) -> None:
    expected = forwarded("OPTIONS /x HTTP/1.1", "host: a.test", "max-forwards: 9")
    passes(connect, site, "OPTIONS /x HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: 10\r\n\r\n", expected)
    expected = forwarded(*PLAIN_PARTS, "max-forwards: 0")
    passes(connect, site, GET + "Max-Forwards: 0\r\n\r\n", expected)
    for cut in CUTS:
        client = connect()
        client.send("OPTIONS /x HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: 0\r\nContent-Length: 46\r\n\r\n", cut=cut)
        assert client.answer().status == 200
        # the body is content and no next request
        client.send("GET /smuggled HTTP/1.1\r\nHost: a.test\r\nX: yyyy\r\n\r\n"[:46], cut=cut)
        client.kept()
    for value in ("-1", "x", "", "1, 2", "99999999999999999999"):
        is_refused(connect, site, f"OPTIONS /x HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: {value}\r\n\r\n")
    is_refused(connect, site, "TRACE / HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: 0\r\n\r\n", 405)
    site.untouched()


def test_item_38_a_loop_ends(connect: Connect, site: Origin) -> None:
    """A request that comes back is passed on once or twice (through another gateway of this name it may be right), then 508."""
    client = connect()
    client.send(GET + "".join("Via: 1.1 isthmus, 1.1 other\r\n" for _ in range(10)) + "\r\n")
    assert client.answer().status == 508
    client.kept()
    client.send(GET + "Via: " + ", ".join(["1.1 isthmus"] * 10) + "\r\n\r\n")
    assert client.answer().status == 508
    client.kept()
    site.untouched()


def test_item_39_fields_of_one_name_keep_their_order(connect: Connect, site: Origin) -> None:
    script = GET + "X: 1\r\nAccept: a\r\nx: 2\r\nCookie: a=b\r\nX: 3\r\nCookie: c=d\r\nAccept: b\r\n\r\n"
    expected = forwarded(*PLAIN_PARTS, "x: 1", "accept: a", "x: 2", "cookie: a=b", "x: 3", "cookie: c=d", "accept: b")
    passes(connect, site, script, expected)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_item_40_what_is_not_idempotent_is_never_sent_twice(client: Client, site: Origin, how: str) -> None:
    """On a pooled connection that dies at the same moment."""
    client.send(GET + "\r\n")
    origin = site.accept()
    origin.request()
    origin.ok()
    client.answer()
    client.send("POST /pay HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi")
    assert origin.request(2).endswith(b"\r\n\r\nhi")
    origin.close() if how == "close" else origin.reset()
    assert client.answer().status == 502
    client.kept()
    site.untouched()


def test_item_40_what_is_idempotent_is_sent_again_on_a_fresh_connection(client: Client, site: Origin) -> None:
    client.send(GET + "\r\n")
    origin = site.accept()
    origin.request()
    origin.ok()
    client.answer()
    client.send("PUT /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi")
    expected = forwarded("PUT /x HTTP/1.1", "host: a.test", content_length="2", body="hi")
    assert origin.request(2) == expected
    origin.close()
    fresh = site.accept()
    assert fresh.request(2) == expected
    fresh.ok()
    assert client.answer().body == b"ok"
    client.kept()


def test_item_40_a_post_that_was_not_sent_yet_may_go_elsewhere(client: Client, gateway: Gateway, site: Origin) -> None:
    """The pooled connection was closed before a byte of the request was written: nothing can happen twice."""
    client.send(GET + "\r\n")
    origin = site.accept()
    origin.request()
    origin.ok()
    client.answer()
    with gateway.stopped():
        client.send("POST /pay HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi")
        origin.close()
    fresh = site.accept()
    assert fresh.request(2) == forwarded("POST /pay HTTP/1.1", "host: a.test", content_length="2", body="hi")
    fresh.ok()
    assert client.answer().body == b"ok"


EXPECT = "POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
EXPECTED = forwarded("POST / HTTP/1.1", "host: a.test", "expect: 100-continue", content_length="5")


def test_item_41_expect_is_forwarded_and_so_is_100(connect: Connect, site: Origin) -> None:
    for cut in CUTS:
        client = connect()
        client.send(EXPECT, cut=cut)
        origin = site.accept()
        assert origin.request() == EXPECTED
        origin.nothing_more()
        origin.send("HTTP/1.1 100 Continue\r\n\r\n", cut=cut)
        assert client.answer().status == 100
        client.send("hello", cut=cut)
        assert origin.exactly(5) == b"hello"
        origin.send(OK, cut=cut)
        assert client.answer().body == b"ok"
        client.kept()
        origin.close()


def test_item_41_a_client_that_does_not_wait(connect: Connect, site: Origin) -> None:
    for cut in CUTS:
        client = connect()
        client.send(EXPECT + "hello", cut=cut)
        origin = site.accept()
        assert origin.request(5) == EXPECTED + b"hello"
        origin.send("HTTP/1.1 100 Continue\r\n\r\n" + OK)
        assert client.answer().status == 100
        assert client.answer().body == b"ok"
        client.kept()
        origin.close()


def test_item_41_a_final_answer_instead_of_100_ends_the_connection(client: Client, site: Origin) -> None:
    """The client may now send the body or not: nobody can know whether what comes next is content, so nothing does."""
    client.send(EXPECT)
    origin = site.accept()
    origin.request()
    origin.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno")
    client.refused(417)
    assert origin.rest() == b""
    site.untouched()


def test_item_41_expectations_that_are_none(connect: Connect, site: Origin) -> None:
    for field in ("Expect: x", "Expect: 100-continue, x", "Expect:", "Expect: 100-continue\r\nExpect: 100-continue", "Expect: 100"):
        is_refused(connect, site, f"POST / HTTP/1.1\r\nHost: a.test\r\n{field}\r\nContent-Length: 5\r\n\r\nhello", 417)


def test_item_41_expect_does_not_touch_framing(connect: Connect, site: Origin) -> None:
    script = GET + "eXPECT: 100-Continue\r\n\r\n"
    client = connect()
    client.send(script + GET + "\r\n")
    origin = site.accept()
    origin.request()
    origin.send(OK)
    assert client.answer().body == b"ok"
    assert origin.request() == PLAIN
    origin.send(OK)
    assert client.answer().body == b"ok"


def test_item_41_a_client_of_http_1_0_gets_no_100(client: Client, site: Origin) -> None:
    client.send("POST / HTTP/1.0\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello")
    origin = site.accept()
    assert origin.request(5) == forwarded("POST / HTTP/1.1", "host: a.test", via="1.0 isthmus", content_length="5", body="hello")
    origin.send("HTTP/1.1 100 Continue\r\n\r\n" + OK)
    assert client.answer().status == 200


def test_item_46_pipelined_requests_are_answered_in_order(connect: Connect, site: Origin) -> None:
    count = 12
    for cut in CUTS:
        client = connect()
        client.send("".join(f"GET /{i} HTTP/1.1\r\nHost: a.test\r\n\r\n" for i in range(count)), cut=cut)
        origin = site.accept()
        for i in range(count):
            assert origin.request() == forwarded(f"GET /{i} HTTP/1.1", "host: a.test")
            # the next one is not sent before this one is answered
            origin.nothing_more()
            origin.ok(f"answer {i}")
        for i in range(count):
            assert client.answer().body == f"answer {i}".encode()
        client.kept()
        origin.close()


def test_item_46_pipelined_bodies(connect: Connect, site: Origin) -> None:
    script = (
        "POST /1 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello"
        "POST /2 HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        "GET /3 HTTP/1.1\r\nHost: a.test\r\n\r\n"
    )
    for cut in CUTS:
        client = connect()
        client.send(script, cut=cut)
        origin = site.accept()
        assert origin.request(5).endswith(b"content-length: 5\r\n\r\nhello")
        origin.ok("1")
        assert origin.request("\r\n0\r\n\r\n").startswith(b"POST /2 ")
        origin.ok("2")
        assert origin.request() == forwarded("GET /3 HTTP/1.1", "host: a.test")
        origin.ok("3")
        assert [client.answer().body for _ in range(3)] == [b"1", b"2", b"3"]
        client.kept()
        origin.close()


def test_item_46_nothing_is_parsed_after_a_bad_request(connect: Connect, site: Origin) -> None:
    for cut in CUTS:
        client = connect()
        client.send(GET + "\r\nBAD\r\n\r\n" + GET + "\r\n", cut=cut)
        origin = site.accept()
        assert origin.request() == PLAIN
        origin.ok()
        assert client.answer().body == b"ok"
        client.refused(400)
        origin.nothing_more()
        origin.close()
    site.untouched()


def test_item_47_close_is_honoured_on_both_sides(connect: Connect, site: Origin) -> None:
    for value in ("close", "CLOSE", "x, Close ,y", "keep-alive, close"):
        client = connect()
        client.send(f"{GET}Connection: {value}\r\n\r\n{GET}\r\n")
        origin = site.accept()
        assert origin.request() == PLAIN
        origin.ok()
        client.refused(200)
        # the origin was not told: its connection is ours
        origin.nothing_more()
        origin.close()
    client = connect()
    client.send(GET + "\r\n")
    origin = site.accept()
    origin.request()
    origin.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
    answer = client.answer()
    assert (answer.body, answer.get("connection")) == (b"ok", None)
    assert origin.rest() == b""
    client.kept()


@pytest.mark.parametrize("name", ["X_Forwarded_For", "x_real_ip", "X-Forwarded_For", "Content_Length", "Transfer_Encoding", "_"])
def test_item_48_underscores_are_refused(connect: Connect, site: Origin, name: str) -> None:
    is_refused(connect, site, f"{GET}{name}: 1\r\n\r\n")


def test_item_48_what_a_client_says_about_itself_is_replaced(connect: Connect, site: Origin) -> None:
    script = (
        GET + "X-Forwarded-For: 1.2.3.4\r\nX-FORWARDED-FOR: 5.6.7.8\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.test\r\n"
        "X-Forwarded-Port: 443\r\nX-Forwarded-Prefix: /x\r\nX-Real-IP: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\n"
        "X-Forwarded-Client-Cert: x\r\nX-Envoy-Internal: true\r\nX-Envoy-External-Address: 1.2.3.4\r\nX-Own: 1\r\n\r\n"
    )
    passes(connect, site, script, forwarded(*PLAIN_PARTS, "x-own: 1"))
