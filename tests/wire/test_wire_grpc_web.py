"""gRPC-Web: a browser's call reaches an origin of gRPC, and its status comes back as the last frame of the content."""

import base64

import pytest
from conftest import Connect
from h2bench import H2Client, H2Origin
from wirebench import Client, Gateway, Origin

CONFIG = """
listeners:
  - {name: web, port: 8080}
routes:
  - name: all
    rules: [{backendRefs: [{name: site}]}]
clusters:
  - {name: site, protocol: HTTP2, endpoints: ["127.0.0.1:1"]}
"""
MESSAGE = b"\x00\x00\x00\x00\x05hello"
TRAILERS = b"\x80\x00\x00\x00\x22grpc-status: 0\r\ngrpc-message: ok\r\n"


def post(client: Client, kind: str, body: bytes) -> None:
    client.send(
        f"POST /a.B/C HTTP/1.1\r\nHost: a.test\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    )


def serve(site: Origin, kind: str = "application/grpc+proto") -> tuple[H2Origin, int]:
    """Takes one call, and answers it with the same message."""
    origin = H2Origin(site.accept())
    stream, fields = origin.request()
    assert fields["content-type"] == kind and fields["te"] == "trailers" and fields[":method"] == "POST"
    origin.until(lambda: origin.body(stream) == MESSAGE)
    origin.send_headers(stream, [(":status", "200"), ("content-type", kind)])
    for i in range(len(MESSAGE)):
        origin.send_data(stream, MESSAGE[i : i + 1])
    origin.send_headers(stream, [("grpc-status", "0"), ("grpc-message", "ok")], end=True)
    return origin, stream


def test_a_binary_call_and_its_status(connect: Connect, site: Origin) -> None:
    client = connect()
    post(client, "application/grpc-web+proto", MESSAGE)
    serve(site)
    answer = client.answer()
    assert answer.get("content-type") == "application/grpc-web+proto"
    assert answer.body == MESSAGE + TRAILERS and answer.trailers == []


@pytest.mark.parametrize("cut", [None, "bytes"])
def test_a_call_in_text_is_base64_both_ways(connect: Connect, site: Origin, cut: str | None) -> None:
    client = connect()
    # a group that ends early, as when frames are encoded one by one
    body = base64.b64encode(MESSAGE[:4]) + base64.b64encode(MESSAGE[4:])
    client.send(
        f"POST /a.B/C HTTP/1.1\r\nHost: a.test\r\nContent-Type: application/grpc-web-text\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    client.send(body, cut=cut)
    serve(site, "application/grpc")
    answer = client.answer()
    assert answer.get("content-type") == "application/grpc-web-text"
    assert base64.b64decode(answer.body) == MESSAGE + TRAILERS


def test_a_browser_over_h2_does_the_same(connect: Connect, site: Origin) -> None:
    client = H2Client(connect())
    stream = client.ask("/a.B/C", ("content-type", "application/grpc-web"), method="POST", end=False)
    client.send_data(stream, MESSAGE, end=True)
    serve(site, "application/grpc")
    head, body = client.answer(stream)
    assert head["content-type"] == "application/grpc-web" and body == MESSAGE + TRAILERS


def test_what_is_no_base64_is_an_error_of_the_call(connect: Connect, site: Origin, gateway: Gateway) -> None:
    client = connect()
    post(client, "application/grpc-web-text", b"!!!!")
    site.accept()
    answer = client.answer()
    assert answer.status == 200 and answer.get("grpc-status") == "13"
    assert gateway.log()[0]["detail"] == "base64"


def test_an_error_of_the_gateway_is_a_status_in_the_head(connect: Connect, gateway: Gateway, settled: None) -> None:
    gateway.set_endpoints("site", [])
    client = connect()
    post(client, "application/grpc-web+proto", MESSAGE)
    answer = client.answer()
    assert answer.status == 200 and answer.get("grpc-status") == "14" and not answer.body
    assert answer.get("content-type") == "application/grpc-web"
