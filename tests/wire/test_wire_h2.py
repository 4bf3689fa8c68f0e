"""HTTP/2 with clients and origins: all four pairs carry a message with its meaning, and a broken one never looks complete."""

import base64
import hashlib

import h2.errors
import h2.events
import h2.settings
import pytest
from conftest import Connect
from h2bench import H2Client, H2Origin
from tlsbench import encrypted, server_context, server_tls, show, trusting
from wirebench import Client, Gateway, Origin

CONFIG = """
listeners:
  - {name: web, port: 8080}
  - {name: tls, port: 8443, protocol: HTTPS, tls: {certificates: [{cert: c, key: k}]}}
  - {name: named, port: 8444, protocol: HTTPS, hostname: a.named.test, tls: {certificates: [{cert: c, key: k}]}}
  - {name: others, port: 8444, protocol: HTTPS, hostname: "*.named.test", tls: {certificates: [{cert: c, key: k}]}}
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


@pytest.fixture
def h2site(gateway: Gateway, settled: None) -> Origin:
    origin = Origin(gateway, "h2site")
    yield origin
    origin.close()


@pytest.fixture
def client(connect: Connect) -> H2Client:
    return H2Client(connect())


# ---- h2 to h1


def test_requests_by_prior_knowledge_reach_an_h1_origin(client: H2Client, site: Origin) -> None:
    stream = client.ask("/a?b", ("x-one", "1"), ("cookie", "a=b"), ("cookie", "c=d"))
    origin = site.accept()
    request = origin.request()
    assert request.startswith(b"GET /a?b HTTP/1.1\r\nhost: a.test\r\n")
    assert b"\r\nvia: 2.0 isthmus\r\n" in request and b"\r\ncookie: a=b; c=d\r\n" in request
    origin.send(OK)
    head, body = client.answer(stream)
    assert head[":status"] == "200" and head["content-length"] == "2" and body == b"ok"


def test_more_requests_in_one_piece_than_a_turn_begins_are_all_answered(client: H2Client, h2site: Origin) -> None:
    """The rest of what has come waits for the next turn, content included."""
    streams = []
    with client.together():
        for number in range(99):
            streams.append(client.ask(f"/{number}", host="two.test", method="POST", end=False))
            client.send_data(streams[-1], f"content {number}", end=True)
    origin = H2Origin(h2site.accept())
    for number in range(99):
        stream, head = origin.request(number)
        origin.until(lambda stream=stream: origin.find(h2.events.StreamEnded, stream))
        origin.respond(stream, f"{head[':path']} {origin.body(stream).decode()}")
    for number, stream in enumerate(streams):
        assert client.answer(stream)[1] == f"/{number} content {number}".encode()


def test_alpn_chooses_h2(connect: Connect, site: Origin, gateway: Gateway) -> None:
    show(gateway, "tls", server_tls((("a.test",), server_context("a.test")), alpn=b"\x02h2\x08http/1.1"))
    wire = connect("tls")
    end = encrypted(wire, "a.test", trusting(alpn=("http/1.1", "h2")))
    assert end.selected_alpn_protocol() == "h2"
    client = H2Client(wire)
    stream = client.ask()
    origin = site.accept()
    assert b"x-forwarded-proto: https\r\n" in origin.request()
    origin.send(OK)
    assert client.answer(stream)[1] == b"ok"


def test_a_request_for_another_listeners_host_is_misdirected(connect: Connect, site: Origin, gateway: Gateway) -> None:
    """Clients send on one connection whatever its certificate and address are good for (RFC 9113 §9.1.1): not here."""
    show(gateway, "named", server_tls((("*.named.test",), server_context("*.named.test")), alpn=b"\x02h2\x08http/1.1"))
    wire = connect("named")
    encrypted(wire, "a.named.test", trusting(alpn=("h2",)))
    client = H2Client(wire)
    stream = client.ask(host="b.named.test")
    assert client.answer(stream)[0][":status"] == "421"
    stream = client.ask(host="a.named.test")
    origin = site.accept()
    origin.request()
    origin.send(OK)
    assert client.answer(stream)[1] == b"ok"


def test_content_without_a_length_is_chunked_and_trailers_follow_it(client: H2Client, site: Origin) -> None:
    stream = client.ask("/", ("te", "trailers"), method="POST", end=False)
    client.send_data(stream, "hello")
    client.send_headers(stream, [("x-check", "sum")], end=True)
    origin = site.accept()
    assert b"transfer-encoding: chunked" in origin.until(b"\r\n\r\n")
    assert origin.until(b"0\r\nx-check: sum\r\n\r\n") == b"5\r\nhello\r\n0\r\nx-check: sum\r\n\r\n"
    origin.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-end\r\n\r\n3\r\nyes\r\n0\r\nx-end: 1\r\n\r\n")
    head, body = client.answer(stream)
    assert body == b"yes" and "transfer-encoding" not in head
    assert dict(client.find(h2.events.TrailersReceived, stream).headers) == {"x-end": "1"}


def test_every_1xx_comes_before_the_final_head(client: H2Client, site: Origin) -> None:
    stream = client.ask()
    origin = site.accept()
    origin.request()
    origin.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK)
    assert client.answer(stream)[1] == b"ok"
    assert [dict(e.headers)[":status"] for e in client.seen[stream] if isinstance(e, h2.events.InformationalResponseReceived)] == [
        "103"
    ]


def test_streams_do_not_wait_for_each_other(client: H2Client, site: Origin) -> None:
    slow, quick = client.ask("/slow"), client.ask("/quick")
    first, second = site.accept(), site.accept()
    by_path = {wire.request().split(b" ")[1]: wire for wire in (first, second)}
    by_path[b"/quick"].send(OK)
    assert client.answer(quick)[1] == b"ok"
    by_path[b"/slow"].send(OK)
    assert client.answer(slow)[1] == b"ok"


def test_a_truncated_answer_is_reset_and_never_ends(client: H2Client, site: Origin, gateway: Gateway) -> None:
    stream = client.ask()
    origin = site.accept()
    origin.request()
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
    origin.close()
    client.wait(h2.events.StreamReset, stream)
    assert not client.find(h2.events.StreamEnded, stream)
    assert gateway.log()[0]["flags"] == "UC"


def test_a_client_that_resets_cancels_its_origin(client: H2Client, site: Origin, gateway: Gateway) -> None:
    stream = client.ask()
    origin = site.accept()
    origin.request()
    client.reset(stream)
    origin.ended()
    assert gateway.log()[0]["flags"] == "DC"


def test_large_content_passes_through_the_windows(client: H2Client, site: Origin) -> None:
    body = bytes(range(256)) * 4096
    stream = client.ask("/", ("content-length", str(len(body))), method="POST", end=False)
    client.send_data(stream, body, end=True)
    origin = site.accept()
    origin.until(b"\r\n\r\n")
    assert origin.exactly(len(body)) == body
    origin.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert client.answer(stream)[1] == body


def test_an_error_of_the_gateway_has_its_status(client: H2Client, gateway: Gateway, settled: None) -> None:
    gateway.set_endpoints("site", [])
    head, body = client.answer(client.ask())
    assert head[":status"] == "503" and body.startswith(b"503")


def test_a_grpc_call_hears_of_an_error_as_status_in_trailers_only_form(client: H2Client, gateway: Gateway, settled: None) -> None:
    gateway.set_endpoints("site", [])
    stream = client.ask("/a.B/C", ("content-type", "application/grpc+proto"), ("te", "trailers"), method="POST")
    head, body = client.answer(stream)
    assert head[":status"] == "200" and head["grpc-status"] == "14" and head["content-type"] == "application/grpc" and not body


# ---- to h2


@pytest.mark.parametrize("version", [1, 2])
def test_an_h2_origin_is_asked_on_one_connection(connect: Connect, h2site: Origin, version: int) -> None:
    wire = connect()
    client = H2Client(wire) if version == 2 else wire
    origin = None
    for number in range(3):
        if isinstance(client, H2Client):
            mine = client.ask(f"/{number}", host="two.test")
        else:
            client.send(f"GET /{number} HTTP/1.1\r\nHost: two.test\r\n\r\n")
        origin = origin or H2Origin(h2site.accept())
        stream, fields = origin.request(number)
        assert fields[":path"] == f"/{number}" and fields[":authority"] == "two.test" and "host" not in fields
        origin.respond(stream, "hello")
        if isinstance(client, H2Client):
            assert client.answer(mine)[1] == b"hello"
        else:
            assert client.answer().body == b"hello"


def test_content_and_trailers_pass_from_h2_to_h2(client: H2Client, h2site: Origin) -> None:
    mine = client.ask("/", ("te", "trailers"), method="POST", host="two.test", end=False)
    client.send_data(mine, "ping")
    origin = H2Origin(h2site.accept())
    stream, _ = origin.request()
    origin.until(lambda: origin.body(stream) == b"ping")
    origin.send_headers(stream, [(":status", "200")])
    origin.send_data(stream, "pong")
    client.until(lambda: client.body(mine) == b"pong")
    client.send_headers(mine, [("x-up", "1")], end=True)
    assert dict(origin.wait(h2.events.TrailersReceived, stream).headers) == {"x-up": "1"}
    origin.send_headers(stream, [("grpc-status", "0")], end=True)
    client.answer(mine)
    assert dict(client.find(h2.events.TrailersReceived, mine).headers) == {"grpc-status": "0"}


def test_a_refused_stream_is_tried_again(client: H2Client, h2site: Origin) -> None:
    mine = client.ask("/", method="POST", host="two.test")
    origin = H2Origin(h2site.accept())
    stream, _ = origin.request()
    origin.reset(stream, h2.errors.ErrorCodes.REFUSED_STREAM)
    stream, _ = origin.request(1)
    origin.respond(stream)
    assert client.answer(mine)[1] == b"ok"


def test_a_reset_answer_is_reset(client: H2Client, h2site: Origin) -> None:
    mine = client.ask("/", host="two.test")
    origin = H2Origin(h2site.accept())
    stream, _ = origin.request()
    origin.send_headers(stream, [(":status", "200")])
    origin.send_data(stream, "half")
    client.until(lambda: client.body(mine) == b"half")
    origin.reset(stream, h2.errors.ErrorCodes.INTERNAL_ERROR)
    client.wait(h2.events.StreamReset, mine)
    assert not client.find(h2.events.StreamEnded, mine)


def test_goaway_moves_new_requests_to_a_new_connection(client: H2Client, h2site: Origin) -> None:
    first = client.ask("/1", host="two.test")
    old = H2Origin(h2site.accept())
    stream, _ = old.request()
    old.h2.close_connection(last_stream_id=stream)
    old.flush()
    client.wire.gateway.turn()
    second = client.ask("/2", host="two.test")
    new = H2Origin(h2site.accept())
    number, fields = new.request()
    assert fields[":path"] == "/2"
    new.respond(number)
    assert client.answer(second)[1] == b"ok"
    # h2 sends nothing any more after close_connection; the stream of the old connection ends with it
    old.wire.close()
    client.until(lambda: client.find(h2.events.ResponseReceived, first) or client.find(h2.events.StreamReset, first))


# ---- WebSocket


def test_a_websocket_over_h2_becomes_an_upgrade(client: H2Client, site: Origin) -> None:
    """RFC 8441: an extended CONNECT, which an HTTP/1.1 origin sees as a GET with Upgrade."""
    client.wait(h2.events.RemoteSettingsChanged)
    assert client.h2.remote_settings.get(h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL) == 1
    stream = client.h2.get_next_available_stream_id()
    fields = [
        (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/chat"), (":authority", "a.test"),
        ("sec-websocket-version", "13"),
    ]  # fmt: skip
    client.send_headers(stream, fields)
    origin = site.accept()
    head = origin.until(b"\r\n\r\n").lower()
    assert head.startswith(b"get /chat http/1.1\r\n") and b"connection: upgrade\r\n" in head
    assert head.count(b"upgrade: websocket\r\n") == 1
    key = head.split(b"sec-websocket-key: ")[1].split(b"\r\n")[0]
    assert key
    origin.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
    assert client.head(stream)[":status"] == "200"
    client.send_data(stream, "up")
    assert origin.exactly(2) == b"up"
    origin.send("down")
    client.until(lambda: client.body(stream) == b"down")
    client.send_data(stream, "", end=True)
    origin.ended()
    origin.close()
    client.wait(h2.events.StreamEnded, stream)


def test_what_a_tunnel_says_too_early_is_held_until_it_is_open(client: H2Client, site: Origin) -> None:
    """Nothing that the origin could take for a request of its own reaches it before its 101 (checklist items 43 and 44)."""
    client.wait(h2.events.RemoteSettingsChanged)
    stream = client.h2.get_next_available_stream_id()
    fields = [
        (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/chat"), (":authority", "a.test"),
        ("sec-websocket-version", "13"),
    ]  # fmt: skip
    client.send_headers(stream, fields)
    client.send_data(stream, "GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n")
    origin = site.accept()
    assert origin.until(b"\r\n\r\n").startswith(b"GET /chat ")
    client.send_data(stream, "and more")
    origin.nothing_more()
    origin.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
    assert client.head(stream)[":status"] == "200"
    assert origin.until(b"and more") == b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\nand more"
    client.send_data(stream, "", end=True)
    origin.ended()
    origin.close()
    client.wait(h2.events.StreamEnded, stream)


@pytest.mark.parametrize(("status", "told"), [("200 OK", ("502", "UPE")), ("403 Forbidden", ("403", "-"))])
def test_what_a_tunnel_says_too_early_is_dropped_when_it_does_not_open(
    client: H2Client, site: Origin, gateway: Gateway, status: str, told: tuple[str, str]
) -> None:
    """To an extended CONNECT any 2xx would mean an open tunnel (RFC 8441 §5)."""
    client.wait(h2.events.RemoteSettingsChanged)
    stream = client.h2.get_next_available_stream_id()
    fields = [
        (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/chat"), (":authority", "a.test"),
        ("sec-websocket-version", "13"),
    ]  # fmt: skip
    client.send_headers(stream, fields)
    client.send_data(stream, "GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n")
    origin = site.accept()
    origin.until(b"\r\n\r\n")
    origin.send(f"HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno")
    client.wait(h2.events.StreamEnded, stream)
    assert (client.head(stream)[":status"], client.body(stream)) == (told[0], b"no")
    # the rest of the request is not wanted, which is no error
    assert client.wait(h2.events.StreamReset, stream).error_code == 0
    origin.nothing_more()
    (line,) = gateway.log()
    assert (str(line["status"]), line["flags"]) == told


def test_an_upgrade_to_an_h2_origin_becomes_an_extended_connect(connect: Connect, h2site: Origin) -> None:
    wire: Client = connect()
    key = base64.b64encode(b"0123456789abcdef").decode()
    wire.send(
        "GET /chat HTTP/1.1\r\nHost: two.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    )
    origin = H2Origin(h2site.accept(), settings={h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 1})
    stream, fields = origin.request()
    assert fields[":method"] == "CONNECT" and fields[":protocol"] == "websocket" and fields[":path"] == "/chat"
    origin.send_headers(stream, [(":status", "200")])
    head = wire.until(b"\r\n\r\n").decode().lower()
    accept = base64.b64encode(hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()
    assert head.startswith("http/1.1 101 ") and f"sec-websocket-accept: {accept.lower()}\r\n" in head
    wire.send("up")
    origin.until(lambda: origin.body(stream) == b"up")
    origin.send_data(stream, "down", end=True)
    assert wire.rest() == b"down"


# ---- the connection


def frames_of(data: bytes) -> list[tuple[int, bytes]]:
    """Type and payload of each frame."""
    found = []
    while data:
        n = int.from_bytes(data[:3], "big")
        found.append((data[3], data[9 : 9 + n]))
        data = data[9 + n :]
    return found


def test_a_request_through_a_reload_keeps_its_connection(client: H2Client, site: Origin, gateway: Gateway) -> None:
    stream = client.ask()
    origin = site.accept()
    origin.request()
    gateway.swap(CONFIG)
    origin.send(OK)
    assert client.answer(stream)[1] == b"ok"


def test_a_connection_that_has_served_its_requests_says_goaway(connect: Connect, site: Origin, gateway: Gateway) -> None:
    gateway.swap("limits: {maxRequestsPerConnection: 2}" + CONFIG)
    try:
        client = H2Client(connect())
        stream = client.ask()
        origin = site.accept()
        origin.request()
        origin.send(OK)
        assert client.answer(stream)[1] == b"ok"
        client.ask()
        origin.request()
        origin.send(OK)
        # The library takes nothing after the first GOAWAY: the frames are read by hand.
        frames = frames_of(client.wire.rest())
        assert [frame for frame in frames if frame[0] == 7][-1] == (7, b"\x00\x00\x00\x03\x00\x00\x00\x00")
    finally:
        gateway.swap(CONFIG)


def test_what_is_not_a_frame_ends_the_connection_with_a_reason(connect: Connect, site: Origin, gateway: Gateway) -> None:
    wire = connect()
    client = H2Client(wire)
    wire.socket.sendall(b"\x00\x00\x05\x00\x01\x00\x00\x00\x00hello")
    event = client.wait(h2.events.ConnectionTerminated)
    assert event.error_code == h2.errors.ErrorCodes.PROTOCOL_ERROR
    while client.pump():
        pass


def test_who_goes_on_sending_after_the_end_is_cut_off(connect: Connect) -> None:
    """What comes after the last word is read and dropped so that it can be seen, and not for ever."""
    wire = connect()
    client = H2Client(wire)
    wire.socket.sendall(b"\x00\x00\x05\x00\x01\x00\x00\x00\x00hello")
    client.wait(h2.events.ConnectionTerminated)
    sent = 0
    with pytest.raises(ConnectionError):
        while sent < 1 << 27:
            sent += wire.socket.send(bytes(65536))
    assert sent < 1 << 25


def test_a_window_of_a_stream_that_overflows_ends_the_stream_alone(client: H2Client, site: Origin) -> None:
    stream = client.ask("/held")
    held = site.accept()
    held.request()
    update = b"\x00\x00\x04\x08\x00" + stream.to_bytes(4, "big") + (2**31 - 1).to_bytes(4, "big")
    client.wire.socket.sendall(update)
    reset = client.wait(h2.events.StreamReset, stream)
    assert reset.error_code == h2.errors.ErrorCodes.FLOW_CONTROL_ERROR
    held.ended()
    after = client.ask("/after")
    origin = site.accept()
    origin.request()
    origin.send(OK)
    assert client.answer(after)[1] == b"ok"


@pytest.mark.parametrize(
    ("method", "status", "fields"),
    [("HEAD", "200 OK", "Content-Length: 5\r\n"), ("GET", "304 Not Modified", ""), ("GET", "204 No Content", "")],
)
def test_an_answer_without_content_is_complete(
    client: H2Client, site: Origin, gateway: Gateway, method: str, status: str, fields: str
) -> None:
    """It ends with its head; the exchange is logged as what it is, and its connection to the origin is kept."""
    origin = None
    for path in ("/first", "/second"):
        stream = client.ask(path, method=method)
        origin = origin or site.accept()
        origin.request()
        origin.send(f"HTTP/1.1 {status}\r\n{fields}\r\n")
        head, body = client.answer(stream)
        assert head[":status"] == status[:3] and not body
        (line,) = gateway.log()
        assert (line["status"], line["flags"]) == (int(status[:3]), "-")
