"""The "never do" list: what gateways and servers were caught at by HTTP-Garden. A script is refused, and nothing of it or of what
hides behind it reaches an origin; or it is written afresh, and then it is one message with one meaning."""

import pytest
from conftest import Connect
from wirebench import CUTS, Client, Origin, forwarded, is_refused, is_spoilt, passes

POST = "POST / HTTP/1.1\r\nHost: a.test\r\n"
CHUNKED = POST + "Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        pytest.param("Content-Length: 0x0A\r\n", 400, id="0x length forwarded"),
        pytest.param("Content-Length:\r\n", 400, id="empty length forwarded"),
        pytest.param("Content-Length: \r\nContent-Length: 10\r\n", 400, id="empty and valid length"),
        pytest.param("Content-Length: 10\r\nContent-Length: \r\n", 400, id="valid and empty length"),
        pytest.param("Content-Length: 0\r\nContent-Length: 10\r\n", 400, id="the last of several lengths wins"),
        pytest.param("Content-Length: +10\r\n", 400, id="a sign before the length"),
        pytest.param("Content-Length: 1_0\r\n", 400, id="an underscore in the length, as int() takes it"),
        pytest.param("Content-Length: \x8510\r\n", 400, id="latin-1 white space around the length, as strip() takes it"),
        pytest.param("Content-Length: 10\x1c\r\n", 400, id="a separator after the length, as strip() takes it"),
        pytest.param("Transfer-Encoding: ,chunked\r\n", 400, id="a coding after a comma"),
        pytest.param("Transfer-Encoding: ,chunked\r\nContent-Length: 10\r\n", 400, id="a coding after a comma, and a length"),
        pytest.param("Transfer-Encoding: x\r\nContent-Length: 10\r\n", 400, id="a length beside an unknown coding"),
        pytest.param("Transfer-Encoding: chunked\r\nContent-Length: 10\r\n", 400, id="a length beside chunked"),
        pytest.param("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", 400, id="several codings forwarded"),
        pytest.param("Transfer-Encoding: \x0bchunked\r\n", 400, id="a vertical tab before the coding"),
        pytest.param("Transfer-Encoding: chunked\x85\r\n", 400, id="latin-1 white space after the coding"),
        pytest.param("Transfer_Encoding: chunked\r\n", 400, id="an underscore for the hyphen"),
        pytest.param("Transfer-Encoding : chunked\r\n", 400, id="a space before the colon"),
        pytest.param("X\x85Y: a\r\n", 400, id="a bad byte in a name"),
        pytest.param("X\0Y: a\r\n", 400, id="NUL in a name"),
        pytest.param("\0: a\r\n", 400, id="a NUL field that is folded into the one before it"),
        pytest.param("X: a\0b\r\n", 400, id="NUL in a value"),
        pytest.param("X: a\rb\r\n", 400, id="CR in a value"),
        pytest.param("X: a\r\r\n", 400, id="CR at the end of a value"),
        pytest.param("X: a\nContent-Length: 10\r\n", 400, id="a bare LF that is passed on"),
        pytest.param("colonless\r\n", 400, id="a line without colon forwarded"),
        pytest.param("X\r\n : a\r\n", 400, id="a name that goes on in the next line"),
        pytest.param("X: a\r\n Content-Length: 10\r\n", 400, id="a fold"),
        pytest.param("\rX: a\r\n", 400, id="CR CR LF and what follows"),
    ],
)
def test_heads_that_are_never_forwarded(connect: Connect, site: Origin, fields: str, status: int) -> None:
    is_refused(connect, site, POST + fields + "\r\nGET /x HTT", status)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("GET / HTTP/1.1 HTTP/1.1", id="two versions"),
        pytest.param("GET / HTTP/01.1", id="zeros in the version"),
        pytest.param("GET / HTTP/1.1\x0b", id="white space after the version"),
        pytest.param("GET / HTTP/\xb9.1", id="a digit that is none"),
        pytest.param("GET / HTTP/1.1.1", id="too many parts"),
        pytest.param("GET / PTTH/1.1", id="another protocol"),
        pytest.param("GET / HTTP/1.", id="half a version"),
    ],
)
def test_versions_that_are_never_read(connect: Connect, site: Origin, line: str) -> None:
    is_refused(connect, site, f"{line}\r\nHost: a.test\r\n\r\n")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("0x5\r\nhello\r\n0\r\n\r\n", id="0x chunk size"),
        pytest.param("+5\r\nhello\r\n0\r\n\r\n", id="a plus before the chunk size"),
        pytest.param("-5\r\nhello\r\n0\r\n\r\n", id="a minus before the chunk size"),
        pytest.param("5_\r\nhello\r\n0\r\n\r\n", id="an underscore in the chunk size"),
        pytest.param("5x\r\nhello\r\n0\r\n\r\n", id="the longest valid prefix of the chunk size"),
        pytest.param("\t5\r\nhello\r\n0\r\n\r\n", id="white space before the chunk size"),
        pytest.param("5\x0c\r\nhello\r\n0\r\n\r\n", id="white space after the chunk size"),
        pytest.param("\r\nhello\r\n0\r\n\r\n", id="no chunk size"),
        pytest.param("5;a\rb\r\nhello\r\n0\r\n\r\n", id="CR in an extension"),
        pytest.param("5;a\nb\r\nhello\r\n0\r\n\r\n", id="LF in an extension"),
        pytest.param("5\nhello\n0\n\n", id="bare LF ends chunk lines"),
        pytest.param("5\rXhello\r\n0\r\n\r\n", id="CR and any byte end a chunk line"),
        pytest.param("5\r\nhelloXX0\r\n\r\n", id="any two bytes end a chunk"),
        pytest.param("5\r\nhello\r\n\r\n0\r\n\r\n", id="an empty line before the last chunk"),
        pytest.param("zz\r\n5\r\nhello\r\n0\r\n\r\n", id="going on after a bad chunk"),
        pytest.param("5\r\nhello\r\n0\r\n\rX", id="CR and any byte end the message"),
        pytest.param("5\r\nhello\r\n00000000000000000\r\n\r\n", id="too many zeros"),
    ],
)
def test_chunks_that_are_never_read(connect: Connect, site: Origin, body: str) -> None:
    is_spoilt(connect, site, CHUNKED, body)


def test_content_and_what_announces_it_stay_together(connect: Connect, site: Origin) -> None:
    """Neither is dropped without the other, whatever the method."""
    for method in ("GET", "DELETE", "PURGE", "OPTIONS"):
        expected = forwarded(f"{method} /x HTTP/1.1", "host: a.test", content_length="5", body="hello")
        passes(connect, site, f"{method} /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello", expected, 5)
    head = forwarded("GET / HTTP/1.1", "host: a.test", transfer_encoding="chunked")
    for cut in CUTS:
        client = connect()
        client.send("GET / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", cut=cut)
        origin = site.accept()
        assert origin.request(0) == head
        assert Client.chunks(origin)[0] == b"hello"  # type: ignore[arg-type]
        origin.ok()
        assert client.answer().status == 200
        client.kept()
        origin.close()


def test_what_follows_content_is_the_next_request(connect: Connect, site: Origin) -> None:
    """And not more content: a body that looks like a request is content, a request behind it is none."""
    inner = "GET /inner HTTP/1.1\r\nHost: a.test\r\n\r\n"
    outer = "GET /outer HTTP/1.1\r\nHost: a.test\r\n\r\n"
    for cut in CUTS:
        client = connect()
        client.send(f"{POST}Content-Length: {len(inner)}\r\n\r\n{inner}{outer}", cut=cut)
        origin = site.accept()
        assert origin.request(len(inner)).endswith(b"\r\n\r\n" + inner.encode())
        origin.nothing_more()
        origin.ok("1")
        assert origin.request() == forwarded("GET /outer HTTP/1.1", "host: a.test")
        origin.ok("2")
        assert [client.answer().body for _ in range(2)] == [b"1", b"2"]
        client.kept()
        origin.close()
