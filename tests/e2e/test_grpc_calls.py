"""gRPC through the gateway with grpcio on both ends: every kind of call, what may go wrong with it, and which origin answers."""

import os
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from gateway_process import Gateway
from pki import Authority, chain_of, key_of, write_pair

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
import grpc

PATIENCE = 60
SIZES = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
TILL = "/shop.Till/"
CONFIG = """\
accessLog: {{format: off}}
listeners:
  - {{name: clear, address: "127.0.0.1:0"}}
  - name: secure
    address: 127.0.0.2:0
    protocol: HTTPS
    tls: {{certificates: [{{cert: web.crt, key: web.key}}]}}
routes:
  - name: till
    kind: GRPCRoute
    rules:
      - matches: [{{method: {{service: shop.Till}}}}]
        backendRefs: [{{name: till}}]
      - matches: [{{method: {{service: shop.Till, method: Refund}}}}]
        backendRefs: [{{name: office}}]
      - matches:
          - method: {{service: shop.Till}}
            headers: [{{name: x-tenant, value: acme}}, {{name: x-desk, type: RegularExpression, value: "[0-9]+"}}]
        backendRefs: [{{name: acme}}]
      - matches: [{{method: {{type: RegularExpression, service: "audit[.]V[12]", method: "(Get|List).*"}}}}]
        filters:
          - type: RequestHeaderModifier
            requestHeaderModifier: {{set: [{{name: x-audit, value: seen}}]}}
          - type: ResponseHeaderModifier
            responseHeaderModifier: {{set: [{{name: x-kept, value: "7d"}}]}}
        backendRefs: [{{name: office}}]
      - matches: [{{method: {{method: Ping}}}}]
        backendRefs: [{{name: acme}}]
      - matches: [{{method: {{service: shop.Closed}}}}]
        backendRefs: [{{name: closed}}]
      - matches: [{{method: {{service: shop.Gone}}}}]
        backendRefs: [{{name: gone}}]
      - matches: [{{method: {{service: shop.Vault}}}}]
        filters: [{{type: RequestMirror, requestMirror: {{backendRef: {{name: ledger}}}}}}]
        backendRefs: [{{name: vault}}]
clusters:
  - {{name: vault, protocol: HTTP2, endpoints: ["{vault}"], tls: {{serverName: vault.test, ca: ca.crt}}}}
  - {{name: ledger, protocol: HTTP2, endpoints: ["{ledger}"], tls: {{serverName: ledger.test, ca: ca.crt}}}}
  - {{name: till, protocol: HTTP2, endpoints: ["{till}"]}}
  - {{name: office, protocol: HTTP2, endpoints: ["{office}"]}}
  - {{name: acme, protocol: HTTP2, endpoints: ["{acme}"]}}
  - {{name: closed, protocol: HTTP2, endpoints: ["127.0.0.1:1"]}}
  - {{name: gone, protocol: HTTP2, endpoints: []}}
"""

Call = Any          # grpcio has no types


class Service(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers each method below under any service. What a call saw of the world goes into `seen`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: queue.Queue[dict[str, Any]] = queue.Queue()
        self.cancelled: queue.Queue[str] = queue.Queue()
        self.release = threading.Event()

    def service(self, details: Any) -> Any:
        kinds: dict[str, Callable[..., Any]] = {
            "Sum": grpc.stream_unary_rpc_method_handler,
            "Count": grpc.unary_stream_rpc_method_handler,
            "Chat": grpc.stream_stream_rpc_method_handler,
            "FailLate": grpc.unary_stream_rpc_method_handler,
            "Watch": grpc.unary_stream_rpc_method_handler,
        }
        method = details.method.rpartition("/")[2]
        kind = kinds.get(method, grpc.unary_unary_rpc_method_handler)
        return kind(getattr(self, method.lower(), self.echo))

    def note(self, context: Any) -> None:
        self.seen.put({"metadata": [tuple(pair) for pair in context.invocation_metadata()], "left": context.time_remaining()})

    def echo(self, request: bytes, context: Any) -> bytes:
        self.note(context)
        context.send_initial_metadata((("x-by", self.name), ("x-bytes-bin", b"\x00\xff\x80")))
        context.set_trailing_metadata((("x-after", "done"), ("x-after-bin", b"\x01\x02")))
        return request

    def sum(self, requests: Iterator[bytes], context: Any) -> bytes:
        total = count = 0
        for request in requests:
            total += len(request)
            count += 1
        return f"{count} {total}".encode()

    def count(self, request: bytes, context: Any) -> Iterator[bytes]:
        for number in range(int(request)):
            yield b"%07d" % number * 100

    def chat(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        for request in requests:
            yield b"you said " + request

    def fail(self, request: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("x-why", "empty"),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no stöck, 100% sold\nout")

    def faillate(self, request: bytes, context: Any) -> Iterator[bytes]:
        yield b"one"
        yield b"two"
        context.abort(grpc.StatusCode.DATA_LOSS, "the rest is lost")

    def wait(self, request: bytes, context: Any) -> bytes:
        context.add_callback(lambda: self.cancelled.put(self.name))
        self.note(context)
        self.release.wait(PATIENCE)
        return b"too late"

    def watch(self, request: bytes, context: Any) -> Iterator[bytes]:
        context.add_callback(lambda: self.cancelled.put(self.name))
        yield b"first"
        self.release.wait(PATIENCE)


class Origin:
    """A server of grpcio with a Service."""

    def __init__(self, name: str, address: str = "127.0.0.1:0", authority: Authority | None = None) -> None:
        self.service = Service(name)
        self.server = grpc.server(ThreadPoolExecutor(32), options=[*SIZES, ("grpc.so_reuseport", 0)])
        self.server.add_generic_rpc_handlers((self.service,))
        if authority is None:
            port = self.server.add_insecure_port(address)
        else:
            leaf = authority.issue(f"{name}.test")
            port = self.server.add_secure_port(address, grpc.ssl_server_credentials([(key_of(leaf), chain_of(leaf))]))
        self.address = f"127.0.0.1:{port}"
        self.server.start()

    def stop(self) -> None:
        self.service.release.set()
        self.server.stop(0).wait(PATIENCE)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def origins(authority: Authority) -> Iterator[dict[str, Origin]]:
    running = {name: Origin(name) for name in ("till", "office", "acme")}
    running |= {name: Origin(name, authority=authority) for name in ("vault", "ledger")}
    yield running
    for origin in running.values():
        origin.stop()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, origins: dict[str, Origin], authority: Authority) -> Iterator[Gateway]:
    place = tmp_path_factory.mktemp("grpc")
    write_pair(place, "web", authority.issue("shop.test"))
    (place / "ca.crt").write_bytes(authority.pem)
    config = place / "gateway.yaml"
    config.write_text(CONFIG.format(**{name: origin.address for name, origin in origins.items()}))
    with Gateway(config, workers=1) as running:
        yield running


def channel_to(gateway: Gateway, listener: str, authority: Authority) -> Any:
    options = [*SIZES, ("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    if listener == "clear":
        return grpc.insecure_channel(gateway.address("clear"), options=options)
    credentials = grpc.ssl_channel_credentials(authority.pem)
    options.append(("grpc.ssl_target_name_override", "shop.test"))
    return grpc.secure_channel(gateway.address("secure"), credentials, options=options)


@pytest.fixture(scope="module", params=["clear", "secure"])
def channel(request: pytest.FixtureRequest, gateway: Gateway, authority: Authority) -> Iterator[Any]:
    with channel_to(gateway, request.param, authority) as running:
        yield running


@pytest.fixture(scope="module")
def plain(gateway: Gateway, authority: Authority) -> Iterator[Any]:
    with channel_to(gateway, "clear", authority) as running:
        yield running


@pytest.fixture
def till(origins: dict[str, Origin]) -> Iterator[Service]:
    service = origins["till"].service
    service.release.clear()
    while not service.seen.empty():
        service.seen.get()
    yield service
    service.release.set()


def unary(channel: Any, path: str, content: bytes = b"", **options: Any) -> tuple[bytes, Call]:
    return channel.unary_unary(path).with_call(content, timeout=options.pop("timeout", PATIENCE), **options)  # type: ignore[no-any-return]


def failure(channel: Any, path: str, **options: Any) -> Any:
    with pytest.raises(grpc.RpcError) as told:
        unary(channel, path, **options)
    return told.value


# ---- kinds of calls


def test_a_unary_call_with_its_metadata(channel: Any, till: Service) -> None:
    sent = [("x-one", "a"), ("x-one", "b"), ("x-key-bin", b"\x00\xfe\xff"), ("authorization", "Bearer t0k3n")]
    content, call = unary(channel, TILL + "Echo", b"hello", metadata=sent)
    assert content == b"hello" and call.code() is grpc.StatusCode.OK
    first, last = dict(call.initial_metadata()), dict(call.trailing_metadata())
    assert first["x-by"] == "till" and first["x-bytes-bin"] == b"\x00\xff\x80"
    assert last["x-after"] == "done" and last["x-after-bin"] == b"\x01\x02"
    seen = till.seen.get(timeout=PATIENCE)["metadata"]
    values = {name: [value for each, value in seen if each == name] for name, _ in seen}
    assert ", ".join(values["x-one"]).replace(",", ", ").split() == ["a,", "b"] or values["x-one"] == ["a", "b"]
    assert values["x-key-bin"] == [b"\x00\xfe\xff"] and values["authorization"] == ["Bearer t0k3n"]
    assert values["user-agent"][0].startswith("grpc-python") and values["via"] == ["2.0 isthmus"]


def test_an_empty_message_is_a_message(channel: Any, till: Service) -> None:
    assert unary(channel, TILL + "Echo", b"")[0] == b""


def test_client_streaming(channel: Any) -> None:
    sizes = [n % 3000 for n in range(1000)]
    told = channel.stream_unary(TILL + "Sum")((b"s" * size for size in sizes), timeout=PATIENCE)
    assert told == f"1000 {sum(sizes)}".encode()


def test_server_streaming(channel: Any) -> None:
    got = list(channel.unary_stream(TILL + "Count")(b"1000", timeout=PATIENCE))
    assert got == [b"%07d" % number * 100 for number in range(1000)]


def test_a_conversation_where_each_side_waits_for_the_other(channel: Any) -> None:
    """Nothing is held back until more comes: a word is only sent once the last one was answered."""
    words: queue.Queue[bytes | None] = queue.Queue()
    answers = channel.stream_stream(TILL + "Chat")(iter(words.get, None), timeout=PATIENCE)
    for number in range(50):
        words.put(b"%d" % number)
        assert next(answers) == b"you said %d" % number
    words.put(None)
    assert list(answers) == [] and answers.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("size", [4 * 1024 * 1024 + 1, 16 * 1024 * 1024])
def test_large_messages_both_ways(channel: Any, till: Service, size: int) -> None:
    content = os.urandom(65536) * (size // 65536) + b"x" * (size % 65536)
    assert unary(channel, TILL + "Echo", content)[0] == content


def test_two_hundred_calls_at_once_on_one_connection(channel: Any, till: Service) -> None:
    call = channel.unary_unary(TILL + "Echo")
    waiting = [call.future(b"%d" % number, timeout=PATIENCE) for number in range(200)]
    assert [each.result() for each in waiting] == [b"%d" % number for number in range(200)]


# ---- what goes wrong


def test_an_error_of_the_origin_arrives_as_it_is(channel: Any) -> None:
    error = failure(channel, TILL + "Fail")
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error.details() == "no stöck, 100% sold\nout" and ("x-why", "empty") in [tuple(p) for p in error.trailing_metadata()]


def test_an_error_after_messages_keeps_the_messages(channel: Any) -> None:
    answers = channel.unary_stream(TILL + "FailLate")(b"", timeout=PATIENCE)
    assert [next(answers), next(answers)] == [b"one", b"two"]
    with pytest.raises(grpc.RpcError):
        next(answers)
    assert (answers.code(), answers.details()) == (grpc.StatusCode.DATA_LOSS, "the rest is lost")


def test_a_deadline_reaches_the_origin_and_ends_the_call_there(channel: Any, till: Service) -> None:
    assert failure(channel, TILL + "Wait", timeout=0.5).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    left = till.seen.get(timeout=PATIENCE)["left"]
    assert left is not None and left < 1
    assert till.cancelled.get(timeout=PATIENCE) == "till"


def test_a_cancelled_call_is_cancelled_at_the_origin(channel: Any, till: Service, gateway: Gateway) -> None:
    waiting = channel.unary_unary(TILL + "Wait").future(b"", timeout=PATIENCE)
    till.seen.get(timeout=PATIENCE)
    waiting.cancel()
    assert till.cancelled.get(timeout=PATIENCE) == "till"
    till.release.set()
    # Neither connection has come to harm.
    assert unary(channel, TILL + "Echo", b"still here")[0] == b"still here"


def test_a_cancelled_stream_is_cancelled_at_the_origin(channel: Any, till: Service) -> None:
    answers = channel.unary_stream(TILL + "Watch")(b"", timeout=PATIENCE)
    assert next(answers) == b"first"
    answers.cancel()
    assert till.cancelled.get(timeout=PATIENCE) == "till"


def test_no_route_is_unimplemented(channel: Any) -> None:
    error = failure(channel, "/shop.Nobody/Echo")
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


def test_an_origin_in_tls_is_told_that_it_is_spoken_to_in_http2(channel: Any, origins: dict[str, Origin]) -> None:
    """No HTTPRoute leads to these clusters: one is a GRPCRoute's, one gets copies alone, and grpcio refuses who has no ALPN."""
    for number in range(3):
        answer, call = unary(channel, "/shop.Vault/Put", b"gold %d" % number)
        assert answer == b"gold %d" % number and dict(call.initial_metadata())["x-by"] == "vault"
        origins["ledger"].service.seen.get(timeout=PATIENCE)


@pytest.mark.parametrize("service", ["shop.Closed", "shop.Gone"])
def test_no_endpoint_is_unavailable(channel: Any, service: str) -> None:
    """An origin that refuses connections, and a cluster without any."""
    error = failure(channel, f"/{service}/Echo")
    assert error.code() is grpc.StatusCode.UNAVAILABLE and error.details()
    stream = channel.stream_stream(f"/{service}/Chat")(iter([b"a"] * 100), timeout=PATIENCE)
    with pytest.raises(grpc.RpcError):
        next(stream)
    assert stream.code() is grpc.StatusCode.UNAVAILABLE


def test_an_origin_that_dies_in_the_middle_of_a_stream_is_an_error(tmp_path: Path, authority: Authority) -> None:
    """And its successor at the same address answers as soon as it is there."""
    origin = Origin("till")
    write_pair(tmp_path, "web", authority.issue("shop.test"))
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    addresses = dict.fromkeys(("till", "office", "acme", "vault", "ledger"), origin.address)
    (tmp_path / "gateway.yaml").write_text(CONFIG.format(**addresses))
    with Gateway(tmp_path / "gateway.yaml", workers=1) as gateway, channel_to(gateway, "clear", authority) as channel:
        answers = channel.unary_stream(TILL + "Watch")(b"", timeout=PATIENCE)
        assert next(answers) == b"first"
        origin.server.stop(0)
        with pytest.raises(grpc.RpcError):
            next(answers)
        assert answers.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL)
        origin.stop()
        again = Origin("again", origin.address)
        try:
            assert dict(unary(channel, TILL + "Echo", wait_for_ready=True)[1].initial_metadata())["x-by"] == "again"
        finally:
            again.stop()


# ---- which origin


@pytest.mark.parametrize(
    ("path", "metadata", "by"),
    [
        pytest.param("/shop.Till/Sell", [], "till", id="a service"),
        pytest.param("/shop.Till/Refund", [], "office", id="a service and a method"),
        pytest.param("/shop.Till/Refunds", [], "till", id="a longer method is another one"),
        pytest.param("/shop.Till/Sell", [("x-tenant", "acme"), ("x-desk", "12")], "acme", id="two headers"),
        pytest.param("/shop.Till/Sell", [("x-tenant", "acme"), ("x-desk", "a1")], "till", id="a header that does not match"),
        pytest.param("/shop.Till/Sell", [("x-tenant", "acme")], "till", id="a header that is not there"),
        pytest.param("/audit.V1/GetEntry", [], "office", id="expressions"),
        pytest.param("/audit.V2/List", [], "office", id="other words of the same expressions"),
        pytest.param("/audit.V3/GetEntry", [], None, id="a service that an expression does not cover"),
        pytest.param("/audit.V1/Put", [], None, id="a method that an expression does not cover"),
        pytest.param("/any.Thing/Ping", [], "acme", id="a method of any service"),
        pytest.param("/any.Thing/Pong", [], None, id="another method"),
        pytest.param("/shop.Tills/Sell", [], None, id="a longer service is another one"),
    ],
)  # fmt: skip
def test_a_grpcroute_finds_the_origin(plain: Any, path: str, metadata: list[tuple[str, str]], by: str | None) -> None:
    if by is None:
        assert failure(plain, path, metadata=metadata).code() is grpc.StatusCode.UNIMPLEMENTED
    else:
        assert dict(unary(plain, path, metadata=metadata)[1].initial_metadata())["x-by"] == by


def test_filters_of_a_grpcroute_change_metadata(plain: Any, origins: dict[str, Origin]) -> None:
    office = origins["office"].service
    while not office.seen.empty():
        office.seen.get()
    _, call = unary(plain, "/audit.V1/Get")
    assert dict(call.initial_metadata())["x-kept"] == "7d"
    assert ("x-audit", "seen") in office.seen.get(timeout=PATIENCE)["metadata"]
