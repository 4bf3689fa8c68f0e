"""What an HTTP/2 connection and its streams may take: its age, the pace of uploads, deadlines of calls. The times are short."""

import select
import time

import h2.events
import pytest
from conftest import Connect
from h2bench import H2Client, H2Origin
from h2frames import ACK, DATA, GET, GOAWAY, PING, PREFACE, SETTINGS, Frame, Speaker, frame, frames, settings
from wirebench import Gateway, Origin, Wire

from gateway._core.pathtest import aged

CONFIG = """
listeners:
  - {name: web, port: 8080}
  - {name: aged, port: 8081, limits: {maxConnectionAge: 100ms}}
  - {name: body, port: 8082, limits: {bodyTimeout: 200ms}}
routes:
  - name: two
    hostnames: [two.test]
    rules: [{backendRefs: [{name: h2site}]}]
  - name: all
    rules:
      - matches: [{path: {type: PathPrefix, value: /}}]
        backendRefs: [{name: site}]
clusters:
  - {name: site, endpoints: ["127.0.0.1:1"]}
  - {name: h2site, protocol: HTTP2, endpoints: ["127.0.0.1:1"]}
"""
OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CALL = [("content-type", "application/grpc"), ("te", "trailers")]


@pytest.fixture
def h2site(gateway: Gateway, settled: None) -> Origin:
    origin = Origin(gateway, "h2site")
    yield origin
    origin.close()


@pytest.fixture
def slow(connect: Connect) -> H2Client:
    return H2Client(connect("body"))


def silent(wire: Wire, seconds: float) -> None:
    """Nothing comes here in this time."""
    assert not select.select([wire.socket], [], [], seconds)[0]


def whole_frames(wire: Wire) -> list[Frame]:
    """The frames that have come in; one that is not complete stays."""
    at = 0
    while len(wire.held) >= at + 9 and len(wire.held) >= (end := at + 9 + int.from_bytes(wire.held[at : at + 3], "big")):
        at = end
    return frames(wire.take(at))


def find_frame(wire: Wire, kind: int, flags: int = 0) -> Frame:
    """The first such frame; what came with it is dropped."""
    while True:
        for each in whole_frames(wire):
            if each.type == kind and each.flags & flags == flags:
                return each
        assert wire.more(), f"the connection ended without a frame of type {kind}"


# ---- age


def test_a_connection_of_its_age_is_closed_with_its_next_answer(connect: Connect, site: Origin) -> None:
    began = time.monotonic()
    client = connect("aged")
    origin, answers = None, 0
    while True:
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        origin = origin or site.accept()
        origin.request()
        origin.ok()
        answers += 1
        if client.answer().get("connection") == "close":
            break
    assert time.monotonic() - began >= 0.1 and answers > 1
    client.ended()


def test_a_session_of_its_age_says_goaway_twice_and_finishes_what_is_open(connect: Connect, site: Origin) -> None:
    wire, speaker = connect("aged"), Speaker()
    began = time.monotonic()
    wire.send(PREFACE + settings() + frame(SETTINGS, ACK) + speaker.headers(1, GET))
    origin = site.accept()
    origin.request()
    first = find_frame(wire, GOAWAY)
    assert time.monotonic() - began >= 0.1
    assert (first.number, first.code) == (0x7FFFFFFF, 0)
    # a request that crossed it is served as well (RFC 9113 §6.8)
    wire.send(speaker.headers(3, GET))
    later = site.accept()
    later.request()
    wire.send(frame(PING, ACK, 0, b"isthmus."))
    second = find_frame(wire, GOAWAY)
    assert (second.number, second.code) == (3, 0)
    later.ok()
    assert find_frame(wire, DATA, 1).stream == 3
    origin.ok()
    assert find_frame(wire, DATA, 1).stream == 1
    wire.ended()


def test_an_idle_session_of_its_age_ends(connect: Connect, site: Origin) -> None:
    wire = connect("aged")
    wire.send(PREFACE + settings() + frame(SETTINGS, ACK))
    assert [find_frame(wire, GOAWAY).number for _ in range(2)] == [0x7FFFFFFF, 0]
    wire.ended()


def test_chance_adds_up_to_a_quarter() -> None:
    """Connections that began together do not end together."""
    assert not aged(0, 255, 1 << 40), "0 is no limit"
    assert [aged(1000, 0, 999), aged(1000, 0, 1000)] == [False, True]
    assert [aged(1000, 128, 1124), aged(1000, 128, 1125)] == [False, True]
    assert [aged(1000, 255, 1248), aged(1000, 255, 1249)] == [False, True]
    assert aged(0xFFFFFFFF, 255, 1 << 33) and not aged(0xFFFFFFFF, 255, 1 << 32)


# ---- the end of a listener, or of the process


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("how", ["drain", "removed"])
def test_what_goes_away_says_goaway_twice_and_finishes_what_is_open(how: str, busy: bool) -> None:
    gateway = Gateway(CONFIG)
    site = Origin(gateway, "site")
    wire, speaker = gateway.client("body"), Speaker()
    try:
        wire.send(PREFACE + settings() + frame(SETTINGS, ACK) + (speaker.headers(1, GET) if busy else b""))
        gateway.turn()
        origin = site.accept() if busy else None
        if how == "drain":
            gateway.call(lambda engine: engine.drain(30_000))
        else:
            gateway.swap(CONFIG.replace("  - {name: body, port: 8082, limits: {bodyTimeout: 200ms}}\n", ""))
        assert find_frame(wire, GOAWAY).number == 0x7FFFFFFF
        wire.send(frame(PING, ACK, 0, b"isthmus."))
        assert find_frame(wire, GOAWAY).number == (1 if busy else 0)
        if origin is not None:
            origin.request()
            origin.ok()
            assert find_frame(wire, DATA, 1).stream == 1
        wire.ended()
    finally:
        wire.close()
        site.close()
        gateway.close()


# ---- uploads


def refused(client: H2Client, stream: int) -> None:
    """Answered 408, and the rest of the request is not wanted, which is no error of the stream (RFC 9113 §8.1)."""
    assert client.head(stream)[":status"] == "408"
    assert client.wait(h2.events.StreamReset, stream).error_code == 0
    assert client.find(h2.events.StreamEnded, stream)


def test_an_upload_that_stalls_is_answered_408(slow: H2Client, site: Origin, gateway: Gateway) -> None:
    before = gateway.scalar("downstream_body_timeouts")
    stream = slow.ask("/", ("content-length", "10"), method="POST", end=False)
    slow.send_data(stream, "hello")
    origin = site.accept()
    origin.request(5)
    refused(slow, stream)
    assert origin.rest() == b""
    (line,) = gateway.log()
    assert (line["status"], line["flags"], line["detail"]) == (408, "DT", "body_timeout")
    assert gateway.scalar("downstream_body_timeouts") == before + 1
    # the connection is as good as before
    stream = slow.ask()
    origin = site.accept()
    origin.request()
    origin.send(OK)
    assert slow.answer(stream)[1] == b"ok"


def test_content_that_never_begins_is_answered_408(slow: H2Client, site: Origin) -> None:
    stream = slow.ask("/", method="POST", end=False)
    origin = site.accept()
    origin.until(b"\r\n\r\n")
    refused(slow, stream)
    origin.ended()


def test_an_upload_that_drips_ends_and_one_beside_it_goes_on(slow: H2Client, site: Origin, gateway: Gateway) -> None:
    """A byte now and then is no progress; 240 bytes a second are."""
    drip = slow.ask("/drip", method="POST", end=False)
    origin = site.accept()
    origin.until(b"\r\n\r\n")
    quick = slow.ask("/quick", method="POST", end=False)
    other = site.accept()
    other.until(b"\r\n\r\n")
    drops = sent = 0
    while not slow.find(h2.events.ResponseReceived, drip):
        slow.send_data(drip, "x")
        slow.send_data(quick, "y" * 100)
        drops, sent = drops + 1, sent + 100
        if select.select([slow.wire.socket], [], [], 0.02)[0]:
            slow.pump()
    refused(slow, drip)
    assert 1 < drops < 240
    slow.send_data(quick, "", end=True)
    assert other.until(b"0\r\n\r\n").count(b"y") == sent
    other.send(OK)
    assert slow.answer(quick)[1] == b"ok"
    assert [(line["path"], line["status"], line["flags"]) for line in gateway.log()] == [("/drip", 408, "DT"), ("/quick", 200, "-")]


def test_an_upload_that_stalls_behind_its_answer_is_reset(slow: H2Client, site: Origin, gateway: Gateway) -> None:
    stream = slow.ask("/", method="POST", end=False)
    slow.send_data(stream, "hello")
    origin = site.accept()
    origin.until(b"hello\r\n")
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
    assert slow.head(stream)[":status"] == "200"
    assert slow.wait(h2.events.StreamReset, stream).error_code == 2
    assert not slow.find(h2.events.StreamEnded, stream)
    assert origin.rest() == b""
    (line,) = gateway.log()
    assert (line["status"], line["flags"], line["detail"]) == (200, "DT", "body_timeout")


def test_an_upload_that_waits_for_its_origin_is_not_the_clients_fault(slow: H2Client, site: Origin) -> None:
    """While the origin reads nothing the client has no window; time counts for it again once it may send."""
    stream = slow.ask("/", method="POST", end=False)
    origin = site.accept()
    sent = 0
    while (room := min(slow.h2.local_flow_control_window(stream), 16384)) or select.select([slow.wire.socket], [], [], 0.6)[0]:
        if room:
            slow.send_data(stream, b"x" * room)
            sent += room
        if select.select([slow.wire.socket], [], [], 0)[0]:
            slow.pump()
    assert sent > 1 << 18 and not slow.find(h2.events.ResponseReceived, stream)
    origin.until(b"\r\n\r\n")
    got = 0
    while got < sent:
        size = int(origin.until(b"\r\n"), 16)
        got += len(origin.exactly(size + 2)) - 2
    slow.pump()
    slow.send_data(stream, "last", end=True)
    assert origin.until(b"0\r\n\r\n") == b"4\r\nlast\r\n0\r\n\r\n"
    origin.send(OK)
    assert slow.answer(stream)[1] == b"ok"


def test_a_call_may_be_silent(slow: H2Client, h2site: Origin) -> None:
    """A stream of messages has no pace of its own; what ends it is its deadline, or the silence of the whole exchange."""
    stream = slow.ask("/a.B/C", *CALL, method="POST", host="two.test", end=False)
    origin = H2Origin(h2site.accept())
    number, _ = origin.request()
    slow.until(lambda: slow.find(h2.events.SettingsAcknowledged))
    silent(slow.wire, 0.5)
    slow.send_data(stream, b"\0\0\0\0\0", end=True)
    origin.until(lambda: origin.find(h2.events.StreamEnded, number))
    origin.respond(number)
    assert slow.answer(stream)[1] == b"ok"


def test_a_tunnel_may_be_silent(slow: H2Client, site: Origin) -> None:
    slow.wait(h2.events.RemoteSettingsChanged)
    stream = slow.h2.get_next_available_stream_id()
    fields = [
        (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/chat"), (":authority", "a.test"),
        ("sec-websocket-version", "13"),
    ]  # fmt: skip
    slow.send_headers(stream, fields)
    origin = site.accept()
    origin.until(b"\r\n\r\n")
    origin.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
    slow.head(stream)
    slow.until(lambda: slow.find(h2.events.SettingsAcknowledged))
    silent(slow.wire, 0.5)
    slow.send_data(stream, "up", end=True)
    assert origin.exactly(2) == b"up"
    origin.close()
    slow.wait(h2.events.StreamEnded, stream)


# ---- deadlines of calls


@pytest.mark.parametrize("host", ["two.test", "a.test"])
def test_the_gateway_keeps_the_deadline_of_a_call(
    connect: Connect, gateway: Gateway, h2site: Origin, site: Origin, host: str
) -> None:
    """For a client that has no clock of its own: the status that its library would make, in trailers-only form, when it is due."""
    client = H2Client(connect())
    began = time.monotonic()
    stream = client.ask("/a.B/C", ("grpc-timeout", "200m"), *CALL, method="POST", host=host, end=False)
    client.send_data(stream, b"\0\0\0\0\0", end=True)
    wire = (h2site if host == "two.test" else site).accept()
    origin = H2Origin(wire) if host == "two.test" else None
    if origin is not None:
        number, fields = origin.request()
        assert fields["grpc-timeout"] == "200m"
    head, body = client.answer(stream)
    assert 0.2 <= time.monotonic() - began < 5
    assert (head[":status"], head["content-type"], head["grpc-status"], body) == ("200", "application/grpc", "4", b"")
    assert len([event for event in client.seen[stream] if isinstance(event, h2.events.DataReceived)]) == 0
    # the origin hears that nobody waits any more
    if origin is not None:
        assert origin.wait(h2.events.StreamReset, number).error_code == 8
    else:
        wire.rest()
    (line,) = gateway.log()
    assert (line["flags"], line["detail"]) == ("UT", "request_timeout")


def test_the_deadline_of_a_call_holds_for_a_stream_of_answers_too(connect: Connect, gateway: Gateway, h2site: Origin) -> None:
    """What was answered by then arrives; the status says why there is no more."""
    client = H2Client(connect())
    began = time.monotonic()
    stream = client.ask("/a.B/C", ("grpc-timeout", "200m"), *CALL, method="POST", host="two.test")
    origin = H2Origin(h2site.accept())
    number, _ = origin.request()
    origin.send_headers(number, [(":status", "200"), ("content-type", "application/grpc")])
    origin.send_data(number, b"\0\0\0\0\1a")
    _, body = client.answer(stream)
    assert 0.2 <= time.monotonic() - began < 5
    assert body == b"\0\0\0\0\1a"
    assert dict(client.find(h2.events.TrailersReceived, stream).headers) == {"grpc-status": "4", "grpc-message": "Gateway Timeout"}
    assert origin.wait(h2.events.StreamReset, number).error_code == 8
    (line,) = gateway.log()
    assert (line["flags"], line["detail"]) == ("UT", "request_timeout")
