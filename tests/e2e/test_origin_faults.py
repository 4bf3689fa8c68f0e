"""Origins that misbehave at each phase: what the client gets, what the log says, and that the gateway goes on as if nothing was.

The rule is the table "Resilience, Upstream" of the robustness page; the numbers of items are those of its checklist.
"""

import threading
import time

import pytest
from data_plane import DataPlane, origin_config
from faulty import Cut, Message, Origin, Script, Wire, answer, black_hole, client, get, once, polite, refusing

BODY = b"x" * 1000
HALF = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n" + BODY[:500]
HALF_CHUNK = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3e8\r\n" + BODY[:500]
BETWEEN_CHUNKS = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"
HUGE = b"HTTP/1.1 200 OK\r\n" + b"".join(b"x-%d: %s\r\n" % (i, b"y" * 8000) for i in range(130)) + b"\r\n"


def after(data: bytes, how: str) -> Script:
    """Reads a request, sends the data, and then: "reset", "close", or "hold" it open."""

    def script(origin: Origin, wire: Wire) -> None:
        request = wire.request()
        if request is None:
            return
        origin.requests.append(request)
        wire.send(data)
        if how == "reset":
            wire.reset()
        elif how == "hold":
            origin.stop.wait()

    return script


def reset_at_once(origin: Origin, wire: Wire) -> None:
    wire.reset()


def still_serves(plane: DataPlane, origin: Origin) -> None:
    """The same gateway and the same origin, once it has mended its ways; nothing is left behind."""
    origin.script = polite
    assert get(plane.port).body == b"ok"
    plane.until(lambda: plane.ask("connections")["open"] == 0)
    (endpoint,) = plane.endpoints()
    assert endpoint["active"] == endpoint["waiting"] == endpoint["dialing"] == 0
    assert endpoint["connections"] == endpoint["idle"] <= 1


# no connection


def test_a_refused_connection_is_503_uf() -> None:
    with refusing() as port, DataPlane(origin_config(port)) as plane:
        response = get(plane.port)
        assert response.status == 503 and b"refused" not in response.body
        record = plane.record()
        assert record["flags"] == "UF" and record["detail"] == "connect_failed" and record["status"] == 503


def test_a_silent_address_is_503_at_the_connect_timeout() -> None:
    with black_hole() as port, DataPlane(origin_config(port, cluster={"connectTimeout": "300ms"})) as plane:
        start = time.monotonic()
        assert get(plane.port).status == 503
        assert 0.29 < time.monotonic() - start < 5
        assert plane.record()["flags"] == "UF" and plane.record()["detail"] == "connect_timeout"


def test_a_refused_connection_goes_to_another_endpoint_for_every_method() -> None:
    robin = {"loadBalancing": {"policy": "RoundRobin"}}
    with refusing() as port, Origin() as origin, DataPlane(origin_config(port, origin.port, cluster=robin)) as plane:
        with client(plane.port) as wire:
            for _ in range(20):
                assert wire.ask().status == 200
                wire.send(b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\n\r\nbody")
                assert wire.response().status == 200
        assert len(origin.requests) == 40
        posts = [request for request in origin.requests if request.method == "POST"]
        assert [post.body for post in posts] == [b"body"] * 20
        assert {record["attempts"] for record in plane.records(40)} <= {1, 2}


# broken answers


@pytest.mark.parametrize(
    ("script", "detail"),
    [
        pytest.param(after(b"", "reset"), "upstream_reset", id="reset before the head"),
        pytest.param(after(b"", "close"), "upstream_reset", id="close before the head"),
        pytest.param(after(b"HTTP/1.1 200 OK\r\nconte", "reset"), "upstream_reset", id="reset in the head"),
        pytest.param(after(b"HTTP/1.1 200 OK\r\nconte", "close"), "upstream_reset", id="close in the head"),
        pytest.param(after(b"HT", "close"), "upstream_reset", id="close in the status line"),
        pytest.param(
            after(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n", "close"), "upstream_reset", id="103 and then the end"
        ),
    ],
)
def test_an_answer_cut_before_its_head_is_complete_is_502_uc(script: Script, detail: str) -> None:
    with Origin(script) as origin, DataPlane(origin_config(origin.port)) as plane:
        assert get(plane.port).status == 502
        record = plane.record()
        assert record["flags"] == "UC" and record["detail"] == detail and record["attempts"] == 1
        still_serves(plane, origin)


def test_an_origin_that_resets_as_it_accepts_is_502_or_503_by_what_was_sent_by_then() -> None:
    """The reset meets the request on its way out (UC), or comes before its first byte: then no connection came up (UF)."""
    with Origin(reset_at_once) as origin, DataPlane(origin_config(origin.port)) as plane:
        status = get(plane.port).status
        record = plane.record()
        assert (status, record["flags"], record["detail"]) in [(502, "UC", "upstream_reset"), (503, "UF", "connect_failed")]
        still_serves(plane, origin)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("how", ["reset", "close"])
@pytest.mark.parametrize(
    "data",
    [pytest.param(HALF, id="content-length"), pytest.param(HALF_CHUNK, id="chunk"), pytest.param(BETWEEN_CHUNKS, id="chunks")],
)
def test_content_cut_in_the_middle_is_never_a_clean_end(method: str, how: str, data: bytes) -> None:
    """item 10 for responses: no last chunk, no full length."""
    with Origin(after(data, how)) as origin, DataPlane(origin_config(origin.port)) as plane:
        with client(plane.port) as wire, pytest.raises(Cut) as cut:
            wire.ask(method=method, content_length="0") if method == "POST" else wire.ask()
        assert len(cut.value.got.body) in ((0, 500) if how == "reset" else (500,)) or data is BETWEEN_CHUNKS
        record = plane.record()
        assert record["flags"] == "UC" and record["status"] == 200
        assert len(origin.requests) == 1
        still_serves(plane, origin)


def test_content_until_close_that_ends_is_complete() -> None:
    with Origin(once(b"HTTP/1.1 200 OK\r\n\r\n" + BODY)) as origin, DataPlane(origin_config(origin.port)) as plane:
        with client(plane.port) as wire:
            for _ in range(3):
                assert wire.ask().body == BODY
        assert [record["flags"] for record in plane.records(3)] == ["-"] * 3


def test_content_until_close_that_is_reset_is_not() -> None:
    with Origin(after(b"HTTP/1.1 200 OK\r\n\r\n" + BODY, "reset")) as origin, DataPlane(origin_config(origin.port)) as plane:
        with client(plane.port) as wire, pytest.raises(Cut):
            wire.ask()
        assert plane.record()["flags"] == "UC"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="TLS"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="SSH"),
        pytest.param(b"<html>HTTP/0.9</html>\n", id="HTTP 0.9"),
        pytest.param(b"HTTP/1.1 20 OK\r\n\r\n", id="status of 2 digits"),
        pytest.param(b"HTTP/1.1 2000 OK\r\n\r\n", id="status of 4 digits"),
        pytest.param(b"HTTP/1.1 099 OK\r\n\r\n", id="status below 100"),
        pytest.param(b"HTTP/2 200 OK\r\n\r\n", id="HTTP 2"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n", id="NUL"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx y: a\r\n\r\n", id="name"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef", id="two lengths"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", id="length below 0"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 0x5\r\n\r\nabcde", id="hexadecimal length"),
        pytest.param(HUGE, id="head of 1 MB"),
        pytest.param(b"HTTP/1.1 200 " + b"x" * 70000, id="endless status line"),
    ],
)
@pytest.mark.parametrize("how", ["close", "hold"])
def test_an_answer_that_is_no_http_is_502_upe(data: bytes, how: str) -> None:
    """item 12, and class D14: answered as soon as it is known, the connection is not used again."""
    with Origin(after(data, how)) as origin, DataPlane(origin_config(origin.port)) as plane:
        assert get(plane.port).status == 502
        record = plane.record()
        assert record["flags"] == "UPE" and record["detail"] not in ("", "upstream_reset")
        still_serves(plane, origin)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"zz\r\n", id="no digits"),
        pytest.param(b"3\nabc\r\n0\r\n\r\n", id="bare LF"),
        pytest.param(b"3\r\nabcd\r\n0\r\n\r\n", id="too long"),
        pytest.param(b"ffffffffffffffff0\r\n", id="overflow"),
    ],
)
def test_chunks_that_are_none_break_the_response_off(data: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"
    with Origin(after(head + data, "hold")) as origin, DataPlane(origin_config(origin.port)) as plane:
        with client(plane.port) as wire, pytest.raises(Cut):
            wire.ask()
        record = plane.record()
        assert record["status"] == 200 and record["flags"] in ("UC", "UPE") and record["detail"].startswith("chunk")
        still_serves(plane, origin)


# 1xx


def test_item_42_every_1xx_is_forwarded_in_order() -> None:
    hints = b"".join(b"HTTP/1.1 103 Early Hints\r\nlink: </%d>\r\n\r\n" % i for i in range(20))
    with Origin(once(hints + answer())) as origin, DataPlane(origin_config(origin.port)) as plane, client(plane.port) as wire:
        wire.send(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
        heads = [wire.head() for _ in range(21)]
        links = [head.get("link") for head in heads if head and head.status == 103]
        assert links == [f"</{i}>" for i in range(20)] and heads[20] is not None and heads[20].status == 200


def test_item_42_too_many_1xx_are_502() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\n\r\n" * 200
    with Origin(once(hints + answer())) as origin, DataPlane(origin_config(origin.port)) as plane:
        assert get(plane.port).status == 502
        assert plane.record()["flags"] == "UPE"
        still_serves(plane, origin)


def test_item_43_a_101_that_nobody_asked_for_is_502() -> None:
    switch = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    with Origin(after(switch, "hold")) as origin, DataPlane(origin_config(origin.port)) as plane:
        assert get(plane.port).status == 502
        record = plane.record()
        assert record["flags"] == "UPE" and record["detail"] == "switched"
        still_serves(plane, origin)


def test_item_43_a_200_to_an_upgrade_stays_http() -> None:
    with Origin() as origin, DataPlane(origin_config(origin.port)) as plane, client(plane.port) as wire:
        assert wire.ask(connection="upgrade", upgrade="websocket").status == 200
        assert wire.ask().status == 200


# the end of a response


def test_item_13_and_15_bytes_after_a_response_reach_nobody() -> None:
    poison = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison"

    def script(origin: Origin, wire: Wire) -> None:
        while (request := wire.request()) is not None:
            origin.requests.append(request)
            wire.send(answer(request.target.encode()) + poison)

    with Origin(script) as origin, DataPlane(origin_config(origin.port)) as plane, client(plane.port) as wire:
        for i in range(10):
            assert wire.ask(f"/{i}").body == f"/{i}".encode()
        assert origin.accepted == 10


def test_item_15_bytes_on_an_idle_connection_close_it() -> None:
    pooled = threading.Event()

    def script(origin: Origin, wire: Wire) -> None:
        while (request := wire.request()) is not None:
            origin.requests.append(request)
            wire.send(answer(request.target.encode()))
            # Not part of the same packet: the response is complete and the connection is in the pool by then.
            pooled.wait(10)
            wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison")

    with Origin(script) as origin, DataPlane(origin_config(origin.port)) as plane, client(plane.port) as wire:
        assert wire.ask("/1").body == b"/1"
        plane.until(lambda: plane.endpoints()[0]["idle"] == 1)
        pooled.set()
        plane.until(lambda: plane.endpoints()[0]["idle"] == 0)
        assert wire.ask("/2").body == b"/2"


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_item_13_content_where_none_belongs_is_dropped(status: str) -> None:
    script = once(f"HTTP/1.1 {status}\r\n\r\nHTTP/1.1 200 OK\r\n\r\n".encode())
    with Origin(script) as origin, DataPlane(origin_config(origin.port)) as plane, client(plane.port) as wire:
        for _ in range(3):
            assert wire.ask().status == int(status[:3])
        assert origin.accepted == 3


def test_item_13_content_after_the_head_of_a_head_is_dropped() -> None:
    with Origin(once(answer(b"content"))) as origin, DataPlane(origin_config(origin.port)) as plane, client(plane.port) as wire:
        for _ in range(3):
            response = wire.ask(method="HEAD")
            assert response.status == 200 and response.get("content-length") == "7"
        assert wire.ask().body == b"content"
        assert origin.accepted == 4


# answers before the request is complete


def test_item_11_an_early_answer_is_delivered_while_the_client_still_sends() -> None:
    def script(origin: Origin, wire: Wire) -> None:
        if wire.head() is not None:
            wire.send(answer(b"too large", "413 Content Too Large", "connection: close"))

    with Origin(script) as origin, DataPlane(origin_config(origin.port)) as plane, client(plane.port) as wire:
        wire.send(b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 10000000\r\n\r\n" + BODY)
        start = time.monotonic()
        response = wire.response()
        assert response.status == 413 and response.body == b"too large" and response.get("connection") == "close"
        assert time.monotonic() - start < 5
        assert wire.at_end()
        assert plane.record()["status"] == 413


def test_item_11_an_early_answer_over_a_large_upload_in_flight_arrives() -> None:
    """The client sends 4 MB without looking; the origin answers and closes after the head."""

    def script(origin: Origin, wire: Wire) -> None:
        if wire.head() is not None:
            wire.send(answer(b"no", "403 Forbidden", "connection: close"))
            wire.half_close()
            while wire.receive():
                pass

    with Origin(script) as origin, DataPlane(origin_config(origin.port)) as plane:
        for _ in range(5):
            with client(plane.port) as wire:
                wire.send(b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 4000000\r\n\r\n")
                sent = 0
                while sent < 4_000_000 and not wire.is_readable():
                    wire.send(b"y" * 20000)
                    sent += 20000
                assert wire.response().status == 403


def test_item_11_a_short_rest_is_dropped_and_the_connection_goes_on() -> None:
    def script(origin: Origin, wire: Wire) -> None:
        while (request := wire.head()) is not None:
            origin.requests.append(request)
            wire.send(answer(b"early" if request.method == "POST" else b"late"))
            if request.method == "POST":
                return

    with Origin(script) as origin, DataPlane(origin_config(origin.port)) as plane, client(plane.port) as wire:
        wire.send(b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 1000\r\n\r\n" + BODY[:10])
        assert wire.response().body == b"early"
        wire.send(BODY[10:])
        assert wire.ask().body == b"late"
        # the origin's connection had the request only in part: it is never used again
        assert origin.accepted == 2


# slowness


def test_a_slow_head_is_504_at_the_backend_deadline() -> None:
    rule = {"timeouts": {"backendRequest": "300ms"}}
    with Origin(after(b"HTTP/1.1 200", "hold")) as origin, DataPlane(origin_config(origin.port, rule=rule)) as plane:
        start = time.monotonic()
        assert get(plane.port).status == 504
        assert 0.29 < time.monotonic() - start < 5
        assert plane.record()["flags"] == "UT"
        plane.until(lambda: plane.endpoints()[0]["connections"] == 0)


def test_a_slow_answer_is_504_at_the_request_deadline() -> None:
    rule, script = {"timeouts": {"request": "300ms"}}, after(b"", "hold")
    with Origin(script) as origin, DataPlane(origin_config(origin.port, rule=rule)) as plane, client(plane.port) as wire:
        start = time.monotonic()
        assert wire.ask().status == 504
        assert 0.29 < time.monotonic() - start < 5
        assert plane.record()["flags"] == "UT" and plane.record()["detail"] == "request_timeout"
        plane.until(lambda: origin.open == 0 or plane.endpoints()[0]["connections"] == 0)
        origin.script = polite
        assert wire.ask().status == 200


def test_the_request_deadline_covers_all_attempts() -> None:
    rule = {"timeouts": {"request": "500ms", "backendRequest": "200ms"}, "retry": {"attempts": 50}}
    with Origin(after(b"", "hold")) as origin, DataPlane(origin_config(origin.port, rule=rule)) as plane:
        start = time.monotonic()
        assert get(plane.port).status == 504
        assert 0.49 < time.monotonic() - start < 5
        assert len(origin.requests) in (2, 3) and plane.record()["attempts"] == len(origin.requests)


def test_slow_content_is_cut_by_the_idle_timeout_and_not_by_the_request_deadline() -> None:
    """A stream that moves is left alone, however long it takes; one that stands still is cut."""

    def script(origin: Origin, wire: Wire) -> None:
        wire.request()
        wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        for _ in range(8):
            wire.send(b"x" * 10)
            origin.stop.wait(0.1)
        origin.stop.wait()

    config = origin_config(0, rule={"timeouts": {"request": "300ms"}}, limits={"streamIdleTimeout": "400ms"})
    with Origin(script) as origin:
        config["clusters"][0]["endpoints"] = [f"127.0.0.1:{origin.port}"]
        with DataPlane(config) as plane:
            start = time.monotonic()
            with client(plane.port) as wire, pytest.raises(Cut) as cut:
                wire.ask()
            assert len(cut.value.got.body) == 80 and 1.0 < time.monotonic() - start < 5
            record = plane.record()
            assert record["flags"] == "SI" and record["status"] == 200


# the client's side


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_leaves_in_mid_response_cancels_the_origin(how: str) -> None:
    """Within a second, and nothing leaks."""
    ends: list[float] = []

    def script(origin: Origin, wire: Wire) -> None:
        wire.request()
        wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\nabc")
        wire.receive()
        ends.append(time.monotonic())

    with Origin(script) as origin, DataPlane(origin_config(origin.port)) as plane:
        wire = client(plane.port)
        wire.send(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
        assert wire.head() is not None
        left = time.monotonic()
        wire.reset() if how == "reset" else wire.close()
        plane.until(lambda: ends)
        assert ends[0] - left < 1
        record = plane.record()
        assert record["flags"] == "DC" and record["status"] == 200
        plane.until(lambda: plane.endpoints()[0]["connections"] == 0)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_leaves_before_the_response_cancels_the_origin(how: str) -> None:
    ends: list[float] = []

    def script(origin: Origin, wire: Wire) -> None:
        origin.requests.append(wire.request() or Message())
        wire.receive()
        ends.append(time.monotonic())

    with Origin(script) as origin, DataPlane(origin_config(origin.port)) as plane:
        wire = client(plane.port)
        wire.send(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
        plane.until(lambda: origin.requests)
        left = time.monotonic()
        wire.reset() if how == "reset" else wire.close()
        plane.until(lambda: ends)
        assert ends[0] - left < 1
        record = plane.record()
        assert record["flags"] == "DC" and record["status"] == 0


def test_a_client_that_only_finished_sending_gets_its_answer() -> None:
    """Half-closed is not gone, as long as the answer moves: here for longer than a silent one would be waited for."""

    def script(origin: Origin, wire: Wire) -> None:
        wire.request()
        origin.stop.wait(0.3)
        wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: 40\r\n\r\n")
        for _ in range(4):
            origin.stop.wait(0.3)
            wire.send(b"x" * 10)

    with Origin(script) as origin, DataPlane(origin_config(origin.port)) as plane, client(plane.port) as wire:
        wire.send(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
        wire.half_close()
        assert wire.response().body == b"x" * 40
        assert wire.at_end()
        assert plane.record()["flags"] == "-"


def test_item_10_an_upload_cut_by_the_client_is_never_complete_for_the_origin() -> None:
    cuts: list[int] = []

    def script(origin: Origin, wire: Wire) -> None:
        try:
            wire.request()
        except (Cut, OSError) as error:
            cuts.append(len(error.got.body) if isinstance(error, Cut) else -1)
            raise

    with Origin(script) as origin, DataPlane(origin_config(origin.port)) as plane:
        for framing in (b"content-length: 1000\r\n\r\nabc", b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"):
            wire = client(plane.port)
            wire.send(b"POST / HTTP/1.1\r\nhost: test\r\n" + framing)
            plane.until(lambda: [row for row in plane.ask("connections")["rows"] if row.get("phase") == "RESPONSE_HEAD"])
            wire.close()
            plane.until(lambda: plane.ask("connections")["open"] == 0)
        plane.until(lambda: len(cuts) == 2)
        assert [record["flags"] for record in plane.records(2)] == ["DC", "DC"]


# no route, no cluster, no endpoint


def test_no_route_is_404_nr_and_no_endpoint_is_503_uh_and_no_cluster_is_500_nc() -> None:
    config = origin_config()
    config["routes"] = [
        {
            "name": "all",
            "rules": [
                {"matches": [{"path": {"value": "/none"}}], "backendRefs": [{"name": "origin"}]},
                {"matches": [{"path": {"value": "/zero"}}], "backendRefs": [{"name": "origin", "weight": 0}]},
            ],
        }
    ]
    with DataPlane(config) as plane, client(plane.port) as wire:
        assert [wire.ask(target).status for target in ("/other", "/none", "/zero")] == [404, 503, 500]
        assert [record["flags"] for record in plane.records(3)] == ["NR", "UH", "NC"]


def test_what_a_client_does_wrong_is_400_dpe_and_nothing_reaches_the_origin() -> None:
    with Origin() as origin, DataPlane(origin_config(origin.port)) as plane, client(plane.port) as wire:
        wire.send(b"GET / HTTP/1.1\r\nhost: test\r\nbad name: x\r\n\r\nGET / HTTP/1.1\r\nhost: test\r\n\r\n")
        assert wire.response().status == 400 and wire.at_end()
        assert plane.record()["flags"] == "DPE" and origin.accepted == 0
