"""TCP listeners: connections that are carried byte for byte, and what becomes of each side when the other one ends."""

import socket
import threading
from collections.abc import Iterator

import pytest
from conftest import Connect
from wirebench import CUTS, Client, Gateway, Origin, OriginWire

CONFIG = """
listeners:
  - {name: raw, port: 9000, protocol: TCP}
  - {name: web, port: 9001}
  - {name: quiet, port: 9002, protocol: TCP, limits: {streamIdleTimeout: 200ms}}
  - {name: few, port: 9003, protocol: TCP, limits: {maxConnections: 2}}
  - {name: proxied, port: 9004, protocol: TCP, proxyProtocol: accept}
  - {name: narrow, port: 9005, protocol: TCP}
  - {name: pair, port: 9006, protocol: TCP}
  - {name: empty, port: 9007, protocol: TCP}
  - {name: nowhere, port: 9008, protocol: TCP}
  - {name: unrouted, port: 9009, protocol: TCP}
  - {name: sticky, port: 9010, protocol: TCP, proxyProtocol: accept}
routes:
  - {name: carry, kind: TCPRoute, listeners: [raw, quiet, few, proxied], rules: [{backendRefs: [{name: site}]}]}
  - {name: all, rules: [{backendRefs: [{name: site}]}]}
  - {name: narrowly, kind: TCPRoute, listeners: [narrow], rules: [{backendRefs: [{name: narrow}]}]}
  - {name: twofold, kind: TCPRoute, listeners: [pair], rules: [{backendRefs: [{name: pair}]}]}
  - {name: empty, kind: TCPRoute, listeners: [empty], rules: [{backendRefs: [{name: empty}]}]}
  - {name: nowhere, kind: TCPRoute, listeners: [nowhere], rules: [{backendRefs: [{name: site, weight: 0}]}]}
  - {name: sticky, kind: TCPRoute, listeners: [sticky], rules: [{backendRefs: [{name: sticky}]}]}
clusters:
  - {name: site, endpoints: ["127.0.0.1:1"], outlierDetection: {consecutiveErrors: 0}}
  - {name: narrow, endpoints: ["127.0.0.1:1"], maxConnections: 1, maxPending: 1}
  - {name: pair, endpoints: ["127.0.0.1:1"], loadBalancing: {policy: RoundRobin}, outlierDetection: {consecutiveErrors: 0}}
  - {name: empty, endpoints: ["127.0.0.1:1"]}
  - {name: sticky, endpoints: ["127.0.0.1:1"], loadBalancing: {policy: ConsistentHash, key: clientAddress}}
"""


def refused_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


@pytest.fixture
def origins(gateway: Gateway, settled: None) -> Iterator[dict[str, Origin]]:
    made = {name: Origin(gateway, name) for name in ("narrow",)}
    yield made
    for origin in made.values():
        origin.close()


def carried(connect: Connect, site: Origin, listener: str = "raw") -> tuple[Client, OriginWire]:
    client = connect(listener)
    return client, site.accept()


def is_reset(end: Client | OriginWire) -> None:
    with pytest.raises(ConnectionResetError):
        while end.more():
            pass


def is_turned_away(connect: Connect, listener: str, text: bytes = b"") -> None:
    """Reset at once; perhaps before the client's kernel has told it that it is connected."""
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        client = connect(listener)
        client.socket.sendall(text)
        while client.more():
            pass


# ---- bytes


def test_bytes_go_both_ways_as_they_are(connect: Connect, site: Origin) -> None:
    for cut in CUTS:
        client, origin = carried(connect, site)
        for text in (b"GET / HTTP/1.1\r\n\r\n", b"\x00\xff" * 20, b"\x16\x03\x01\x02\x00\x01"):
            client.send(text, cut=cut)
            assert origin.exactly(len(text)) == text
            origin.send(text[::-1], cut=cut)
            assert client.exactly(len(text)) == text[::-1]
        client.nothing_more()
        origin.nothing_more()
        client.close()
        origin.ended()


def test_the_origin_may_speak_first(connect: Connect, site: Origin) -> None:
    client, origin = carried(connect, site)
    origin.send("220 mail.example ESMTP\r\n")
    assert client.until(b"\r\n") == b"220 mail.example ESMTP\r\n"


def read_exactly(end: Client | OriginWire, n: int) -> bytes:
    """For much: `Wire.exactly` copies what it holds with each piece."""
    got = bytearray()
    while len(got) < n and (piece := end.socket.recv(1 << 20)):
        got += piece
    return bytes(got)


def test_much_goes_both_ways_at_once(connect: Connect, site: Origin) -> None:
    client, origin = carried(connect, site)
    there, back = bytes(range(256)) * 20_000, bytes(range(255, -1, -1)) * 15_000
    got: dict[str, bytes] = {}
    threads = [
        threading.Thread(target=client.socket.sendall, args=(there,)),
        threading.Thread(target=origin.socket.sendall, args=(back,)),
        threading.Thread(target=lambda: got.update(there=read_exactly(origin, len(there)))),
        threading.Thread(target=lambda: got.update(back=read_exactly(client, len(back)))),
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert got["there"] == there and got["back"] == back


@pytest.mark.parametrize("side", ["client", "origin"])
def test_a_slow_reader_holds_the_other_side_back(gateway: Gateway, connect: Connect, site: Origin, side: str) -> None:
    client, origin = carried(connect, site)
    writer, reader = (origin, client) if side == "client" else (client, origin)
    sent = 0
    writer.socket.settimeout(0.3)
    with pytest.raises(TimeoutError):
        while True:
            sent += writer.socket.send(b"x" * 65536)
            assert sent < 64 << 20, "nobody holds the writer back"
    (row,) = [row for row in gateway.call(lambda engine: engine.describe_connections()) if row["state"] == "tunnel"]
    # a pipe at the most, and what one receive brought
    assert row["queued_bytes"] <= 400 << 10
    writer.half_close()
    got = 0
    while piece := reader.socket.recv(1 << 20):
        got += len(piece)
    assert got == sent


# ---- ends


def test_a_client_that_has_finished_may_still_be_answered(connect: Connect, site: Origin) -> None:
    client, origin = carried(connect, site)
    client.send("question")
    client.half_close()
    assert origin.rest() == b"question"
    origin.send("answer")
    assert client.exactly(6) == b"answer"
    origin.close()
    client.ended()


def test_an_origin_that_has_finished_may_still_be_told(gateway: Gateway, connect: Connect, site: Origin) -> None:
    client, origin = carried(connect, site)
    origin.send("hello")
    origin.half_close()
    assert client.rest() == b"hello"
    client.send("more" * 1000)
    assert origin.exactly(4000) == b"more" * 1000
    client.close()
    origin.ended()


def test_the_last_bytes_arrive_although_both_have_finished(connect: Connect, site: Origin) -> None:
    client, origin = carried(connect, site)
    text = b"y" * 3_000_000

    def say_it_and_leave() -> None:
        origin.socket.sendall(text)
        origin.close()

    client.half_close()
    assert origin.rest() == b""
    sender = threading.Thread(target=say_it_and_leave)
    sender.start()
    assert read_exactly(client, len(text)) == text
    client.ended()
    sender.join()


def test_a_reset_is_passed_on(gateway: Gateway, connect: Connect, site: Origin) -> None:
    client, origin = carried(connect, site)
    client.send("part of")
    assert origin.exactly(7) == b"part of"
    client.reset()
    is_reset(origin)
    client, origin = carried(connect, site)
    origin.send("part of")
    assert client.exactly(7) == b"part of"
    origin.reset()
    is_reset(client)
    gateway.turn()
    first, second = gateway.log()
    assert (first["flags"], second["flags"], second["detail"]) == ("DC", "UC", "upstream_reset")


def test_silence_ends_it(gateway: Gateway, connect: Connect, site: Origin) -> None:
    before = gateway.scalar("downstream_idle_timeouts")
    client, origin = carried(connect, site, "quiet")
    client.send("a")
    assert origin.exactly(1) == b"a"
    is_reset(client)
    is_reset(origin)
    (line,) = gateway.log()
    assert (line["flags"], line["detail"], line["bytes_in"]) == ("SI", "stream_idle", 1)
    assert line["duration_ms"] >= 200
    assert gateway.scalar("downstream_idle_timeouts") == before + 1


def test_silence_after_half_of_it_is_silence_too(connect: Connect, site: Origin) -> None:
    client, origin = carried(connect, site, "quiet")
    client.half_close()
    assert origin.rest() == b""
    is_reset(client)


# ---- where to


def test_a_refused_connection_is_reset(gateway: Gateway, connect: Connect, site: Origin) -> None:
    before = gateway.scalar("tunnels"), gateway.scalar("tunnels_failed")
    gateway.set_endpoints("site", [(b"127.0.0.1", refused_port(), 1, b"")])
    is_turned_away(connect, "raw")
    gateway.turn()
    (line,) = gateway.log()
    assert (line["flags"], line["detail"], line["attempts"], line["route"]) == ("UF", "connect_failed", 1, "carry")
    assert (gateway.scalar("tunnels"), gateway.scalar("tunnels_failed")) == (before[0] + 1, before[1] + 1)


def test_another_endpoint_is_tried(gateway: Gateway, connect: Connect, settled: None) -> None:
    pair = Origin(gateway, "pair")
    gateway.set_endpoints("pair", [(b"127.0.0.1", refused_port(), 1, b""), pair.endpoint])
    attempts = set()
    for _ in range(4):
        client = connect("pair")
        client.send("early")
        origin = pair.accept()
        assert origin.exactly(5) == b"early"
        client.close()
        origin.ended()
        origin.close()
        gateway.turn()
        (line,) = gateway.log()
        attempts.add(line["attempts"])
        assert (line["flags"], line["bytes_in"]) == ("-", 5)
    assert 2 in attempts
    pair.close()


@pytest.mark.parametrize(
    ("listener", "flags", "detail"),
    [("nowhere", "NC", "no_cluster"), ("unrouted", "NR", "no_route"), ("empty", "UH", "no_endpoint")],
)
def test_a_connection_that_leads_nowhere(
    gateway: Gateway, connect: Connect, settled: None, listener: str, flags: str, detail: str
) -> None:
    gateway.set_endpoints("empty", [])
    is_turned_away(connect, listener, b"hello?")
    gateway.turn()
    (line,) = gateway.log()
    assert (line["flags"], line["detail"], line["listener"]) == (flags, detail, listener)


def test_connections_are_not_shared_with_requests(connect: Connect, site: Origin) -> None:
    web = connect("web")
    web.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
    pooled = site.accept()
    pooled.request()
    pooled.ok()
    assert web.answer().status == 200
    client, origin = carried(connect, site)
    client.send("raw")
    assert origin.exactly(3) == b"raw"
    client.half_close()
    origin.close()
    client.ended()
    # what has carried one connection carries nothing else, and what idled still serves
    web.send("GET /again HTTP/1.1\r\nHost: a.test\r\n\r\n")
    assert pooled.request().startswith(b"GET /again ")
    pooled.ok()
    assert web.answer().status == 200


def test_who_waits_for_a_place_gets_it(gateway: Gateway, connect: Connect, origins: dict[str, Origin]) -> None:
    narrow = origins["narrow"]
    first = connect("narrow")
    origin = narrow.accept()
    second = connect("narrow")
    second.send("second")
    gateway.turn()
    is_turned_away(connect, "narrow")
    narrow.untouched()
    first.close()
    origin.close()
    origin = narrow.accept()
    assert origin.exactly(6) == b"second"
    gateway.turn()
    third_line, first_line = gateway.log()
    assert (third_line["flags"], third_line["detail"]) == ("UO", "overflow")
    assert first_line["flags"] == "-"


def test_a_client_that_leaves_while_it_waits_frees_its_place(
    gateway: Gateway, connect: Connect, origins: dict[str, Origin]
) -> None:
    narrow = origins["narrow"]
    first = connect("narrow")
    origin = narrow.accept()
    second = connect("narrow")
    gateway.turn()
    second.reset()
    gateway.turn()
    third = connect("narrow")
    third.send("third")
    gateway.turn()
    first.close()
    origin.close()
    assert narrow.accept().exactly(5) == b"third"


def test_an_endpoint_that_is_taken_away_keeps_what_it_has(gateway: Gateway, connect: Connect, site: Origin) -> None:
    client, origin = carried(connect, site)
    gateway.set_endpoints("site", [(b"127.0.0.1", refused_port(), 1, b"")])
    client.send("still here")
    assert origin.exactly(10) == b"still here"
    origin.send("yes")
    assert client.exactly(3) == b"yes"


def test_an_endpoint_that_is_taken_away_sends_who_waits_elsewhere(
    gateway: Gateway, connect: Connect, origins: dict[str, Origin]
) -> None:
    narrow = origins["narrow"]
    first = connect("narrow")
    held = narrow.accept()
    second = connect("narrow")
    second.send("moved")
    gateway.turn()
    fresh = Origin(gateway, "narrow")
    assert fresh.accept().exactly(5) == b"moved"
    first.send("kept")
    assert held.exactly(4) == b"kept"
    fresh.close()


# ---- limits and what goes before


def test_no_more_connections_than_the_listener_takes(gateway: Gateway, connect: Connect, site: Origin) -> None:
    kept = [carried(connect, site, "few") for _ in range(2)]
    connect("few").ended()
    site.untouched()
    kept[0][0].close()
    kept[0][1].close()
    gateway.turn()
    client, origin = carried(connect, site, "few")
    client.send("a")
    assert origin.exactly(1) == b"a"


def test_a_proxy_header_is_taken_off(gateway: Gateway, connect: Connect, site: Origin) -> None:
    for cut in CUTS:
        client = connect("proxied")
        client.send(b"PROXY TCP4 192.0.2.7 192.0.2.8 40000 80\r\nrest", cut=cut)
        origin = site.accept()
        assert origin.exactly(4) == b"rest"
        client.close()
        origin.ended()
        origin.close()
        gateway.turn()
        (line,) = gateway.log()
        assert line["client"] == "192.0.2.7"


def test_without_the_proxy_header_nothing_is_carried(connect: Connect, site: Origin) -> None:
    client = connect("proxied")
    client.send("hello")
    client.ended()
    site.untouched()


def test_a_client_address_always_leads_to_the_same_endpoint(gateway: Gateway, connect: Connect, settled: None) -> None:
    several = [Origin(gateway, "sticky") for _ in range(3)]
    gateway.set_endpoints("sticky", [origin.endpoint for origin in several])
    chosen = {}
    for _ in range(2):
        for number in range(8):
            client = connect("sticky")
            client.send(b"PROXY TCP4 192.0.2.%d 192.0.2.8 40000 80\r\n" % number)
            gateway.turn()
            client.reset()
            gateway.turn()
    for line in gateway.log():
        assert chosen.setdefault(line["client"], line["upstream"]) == line["upstream"]
    assert len(chosen) == 8 and len(set(chosen.values())) > 1
    for origin in several:
        origin.close()


# ---- changes


def test_a_tunnel_outlives_its_route(gateway: Gateway, connect: Connect, site: Origin) -> None:
    client, origin = carried(connect, site)
    try:
        gateway.swap(CONFIG.replace("listeners: [raw, quiet,", "listeners: [quiet,"))
        client.send("still here")
        assert origin.exactly(10) == b"still here"
        is_turned_away(connect, "raw")
    finally:
        gateway.swap(CONFIG)
    client.half_close()
    origin.close()
    client.ended()


def test_what_is_told_of_a_tunnel(gateway: Gateway, connect: Connect, site: Origin) -> None:
    before = gateway.scalar("tunnels")
    client, origin = carried(connect, site)
    client.send("12345")
    assert origin.exactly(5) == b"12345"
    assert gateway.scalar("tunnels") == before + 1
    assert gateway.scalar("tunnels_active") == 1
    (row,) = gateway.call(lambda engine: engine.describe_connections())
    assert (row["state"], row["route"], row["cluster"]) == ("tunnel", "carry", "site")
    assert row["upstream"] == f"127.0.0.1:{site.endpoint[1]}"
    origin.send("123")
    origin.close()
    assert client.rest() == b"123"
    client.close()
    gateway.turn()
    (line,) = gateway.log()
    assert (line["protocol"], line["method"], line["path"], line["status"], line["flags"]) == ("TCP", "", "", 0, "-")
    assert (line["bytes_in"], line["bytes_out"], line["attempts"], line["client"]) == (5, 3, 1, "127.0.0.1")
    assert (line["listener"], line["route"], line["cluster"], line["upstream"]) == ("raw", "carry", "site", row["upstream"])
