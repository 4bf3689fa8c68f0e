"""The bytes of a request head: checklist items 16 to 26. What readers of HTTP are known to read differently is refused."""

import pytest
from conftest import Connect
from wirebench import CUTS, Client, Gateway, Origin, forwarded, is_refused, passes

HOST = "Host: a.test\r\n"
GET = "GET / HTTP/1.1\r\n" + HOST


@pytest.mark.parametrize(
    "script",
    [
        "GET / HTTP/1.1\rHost: a.test\r\n\r\n",
        "GET /\r HTTP/1.1\r\nHost: a.test\r\n\r\n",
        GET + "X: a\rb\r\n\r\n",
        GET + "X: a\r\r\n\r\n",
        GET + "X\r: a\r\n\r\n",
        GET + "\r: a\r\n\r\n",
        GET + "X: a\r\n\rX: b\r\n\r\n",
    ],
)
def test_item_16_a_bare_cr(connect: Connect, site: Origin, script: str) -> None:
    is_refused(connect, site, script)


@pytest.mark.parametrize(
    "script",
    [
        "GET / HTTP/1.1\nHost: a.test\r\n\r\n",
        "GET / HTTP/1.1\nHost: a.test\n\n",
        GET + "X: a\nY: b\r\n\r\n",
        GET + "X: a\n\r\n",
        GET + "\n",
        GET + "X: a\n\n",
        "\nGET / HTTP/1.1\r\n" + HOST + "\r\n",
    ],
)
def test_item_17_a_bare_lf(connect: Connect, site: Origin, script: str) -> None:
    is_refused(connect, site, script)


@pytest.mark.parametrize("field", ["X : a", "X\t: a", "Content-Length : 5", "Transfer-Encoding\t: chunked", "Host : a.test"])
def test_item_18_white_space_before_the_colon(connect: Connect, site: Origin, field: str) -> None:
    is_refused(connect, site, GET + field + "\r\n\r\n")


@pytest.mark.parametrize("field", [" X: a", "\tX: a", " ", " Host: b.test", "\x0bX: a"])
def test_item_19_white_space_before_the_first_field(connect: Connect, site: Origin, field: str) -> None:
    is_refused(connect, site, f"GET / HTTP/1.1\r\n{field}\r\n{HOST}\r\n")


@pytest.mark.parametrize(
    "name", [b"", b"X Y", b"X(", b"X/Y", b"X\x80", b"X\xc3\xa9", b"X\0", b"X\x01", b"X\x7f", b'"X"', b"X,", b"[X]", b"X=", b"X@"]
)
def test_item_20_a_name_that_is_no_token(connect: Connect, site: Origin, name: bytes) -> None:
    is_refused(connect, site, GET.encode() + name + b": a\r\n\r\n")


@pytest.mark.parametrize("byte", [b"\0", b"\x01", b"\x08", b"\x0b", b"\x0c", b"\x1b", b"\x1f", b"\x7f"])
def test_item_21_controls_in_values(connect: Connect, site: Origin, byte: bytes) -> None:
    is_refused(connect, site, GET.encode() + b"X: a" + byte + b"b\r\n\r\n")
    is_refused(connect, site, GET.encode() + b"X: a" + byte + b"\r\n\r\n")


def test_item_21_a_tab_in_a_value_is_allowed(connect: Connect, site: Origin) -> None:
    passes(connect, site, GET + "X: \t a\tb \t\r\n\r\n", forwarded("GET / HTTP/1.1", "host: a.test", "x: a\tb"))


@pytest.mark.parametrize("line", ["X", "X a", "GET / HTTP/1.1", "\x80", "X-Long" * 100])
def test_item_22_a_line_without_colon(connect: Connect, site: Origin, line: str) -> None:
    is_refused(connect, site, f"{GET}{line}\r\n\r\n")


def test_item_23_bytes_above_ascii_pass_as_they_are(connect: Connect, site: Origin) -> None:
    value = bytes(range(0x80, 0x100)).decode("latin-1")
    expected = forwarded("GET / HTTP/1.1", "host: a.test", f"x: \x85a{value}\xa0")
    passes(connect, site, f"{GET}X: \x85a{value}\xa0\r\n\r\n", expected)


def test_item_24_empty_lines_before_a_request(connect: Connect, site: Origin) -> None:
    for blank in ("\r\n", "\r\n\r\n"):
        passes(connect, site, blank + GET + "\r\n", forwarded("GET / HTTP/1.1", "host: a.test"))
    is_refused(connect, site, "\r\n\r\n\r\n" + GET + "\r\n")


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET  / HTTP/1.1", 400),
        ("GET /  HTTP/1.1", 400),
        (" GET / HTTP/1.1", 400),
        ("GET / HTTP/1.1 ", 400),
        ("GET\t/ HTTP/1.1", 400),
        ("GET /\tHTTP/1.1", 400),
        ("GET\x0b/ HTTP/1.1", 400),
        ("GET /\x0cHTTP/1.1", 400),
        ("GET / x HTTP/1.1", 400),
        ("GET /", 400),
        ("GET", 400),
        ("GET / HTTP/1.10", 400),
        ("GET / HTTP/1", 400),
        ("GET / HTTP/11", 400),
        ("GET / http/1.1", 400),
        ("GET / HTTPS/1.1", 400),
        ("GET / HTTP/1.1\x00", 400),
        ("GET / HTTP /1.1", 400),
        ("GET / HTTP/1,1", 400),
        ("GET / HTTP/+1.1", 400),
        ("GET / HTTP/\xb2.1", 400),
        ("GET / HTTP/1.2", 505),
        ("GET / HTTP/0.9", 505),
        ("GET / HTTP/2.0", 505),
        ("GET / HTTP/3.0", 505),
    ],
)
def test_item_25_the_request_line(connect: Connect, site: Origin, line: str, status: int) -> None:
    is_refused(connect, site, f"{line}\r\n{HOST}\r\n", status)


def test_item_26_a_method_is_a_token_in_its_own_case(connect: Connect, site: Origin) -> None:
    for method in ("get", "PURGE", "M-SEARCH", "!#$%&'*+.^_`|~09azAZ", "X" * 32):
        passes(connect, site, f"{method} / HTTP/1.1\r\n{HOST}\r\n", forwarded(f"{method} / HTTP/1.1", "host: a.test"))


@pytest.mark.parametrize("method", ["G\x80T", "G(T", "GET:", '"GET"', "X" * 33, "X" * 20000, "\x16\x03\x01\x02", "G\0T", "{GET}"])
def test_item_26_a_method_that_is_no_token_or_too_long(connect: Connect, site: Origin, method: str) -> None:
    client: Client = connect()
    client.send(f"{method} / HTTP/1.1\r\n{HOST}\r\n")
    client.refused(400)
    site.untouched()


@pytest.mark.parametrize("line", ["INVALID CONNECTION PREFACE", "EHLO mail.test", "USER anonymous"])
def test_another_protocol_is_closed_without_an_answer(connect: Connect, gateway: Gateway, site: Origin, line: str) -> None:
    """Nobody there reads HTTP/1.1; a client of HTTP/2 would take the answer for a frame (RFC 9113 §3.4)."""
    for cut in CUTS:
        client = connect()
        client.send(f"{line}\r\n", cut=cut)
        client.ended()
        client.close()
    assert [(line["status"], line["detail"]) for line in gateway.log()] == [(0, "start_line")] * len(CUTS)
    site.untouched()
