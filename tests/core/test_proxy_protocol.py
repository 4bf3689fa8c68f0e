"""PROXY protocol headers of both versions, at every length of input."""

import socket
import struct
from typing import Any

import pytest

from gateway._core.selftest import read_proxy_header

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def read(data: bytes, rest: bytes = b"GET / HTTP/1.1\r\n") -> dict[str, Any]:
    """The header; every shorter input must want more, and what follows must not matter."""
    for n in range(len(data)):
        assert read_proxy_header(data[:n]) == {"fault": None, "used": 0}, n
    answer = read_proxy_header(data + rest)
    assert answer == read_proxy_header(data)
    assert answer["used"] == len(data)
    return answer


def v2(command: int, family: int, body: bytes, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(body) if length is None else length) + body


def test_version_1() -> None:
    answer = read(b"PROXY TCP4 192.0.2.1 198.51.100.255 56324 443\r\n")
    assert (answer["family"], answer["source_port"], answer["destination_port"]) == (4, 56324, 443)
    assert (answer["source"], answer["destination"]) == (b"\xc0\x00\x02\x01", b"\xc6\x33\x64\xff")
    answer = read(b"PROXY TCP6 2001:db8::1 ::ffff:1.2.3.4 1 65535\r\n")
    assert answer["family"] == 6
    assert answer["source"] == socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    assert answer["destination"] == socket.inet_pton(socket.AF_INET6, "::ffff:1.2.3.4")
    assert read(b"PROXY TCP4 1.2.3.4 1.2.3.4 0 0\r\n")["source_port"] == 0


def test_version_1_unknown_keeps_the_socket() -> None:
    assert read(b"PROXY UNKNOWN\r\n")["family"] == 0
    assert read(b"PROXY UNKNOWN whatever stands here\r\n")["family"] == 0


@pytest.mark.parametrize(
    "line",
    [
        b"PROXY", b"PROXY ", b"PROXY TCP4", b"PROXY TCP4 1.2.3.4 5.6.7.8 1", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3",
        b"PROXY TCP4  1.2.3.4 5.6.7.8 1 2", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 ", b"PROXY TCP4 1.2.3.4 5.6.7.8 01 2",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536", b"PROXY TCP4 1.2.3 5.6.7.8 1 2", b"PROXY TCP4 01.2.3.4 5.6.7.8 1 2",
        b"PROXY TCP4 ::1 ::1 1 2", b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2", b"PROXY tcp4 1.2.3.4 5.6.7.8 1 2", b"PROXY UNKNOWNX",
        b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 -2", b"PROXY TCP4 1.2.3.4 5.6.7.8 1\t2",
        b"PROXY TCP5 1 2 3 4",
    ],
)  # fmt: skip
def test_version_1_malformed(line: bytes) -> None:
    assert read_proxy_header(line + b"\r\n")["fault"] == "proxy_header"


def test_version_1_line_ends_and_length() -> None:
    assert read_proxy_header(b"PROXY UNKNOWN\n")["fault"] == "proxy_header"
    assert read_proxy_header(b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n")["used"] == 107
    assert read_proxy_header(b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n")["fault"] == "proxy_header"
    assert read_proxy_header(b"PROXY UNKNOWN " + b"x" * 200)["fault"] == "proxy_header"


def test_version_2() -> None:
    answer = read(v2(0x21, 0x11, b"\x01\x02\x03\x04\x05\x06\x07\x08" + struct.pack("!HH", 80, 443)))
    assert (answer["family"], answer["source"], answer["destination"]) == (4, b"\x01\x02\x03\x04", b"\x05\x06\x07\x08")
    assert (answer["source_port"], answer["destination_port"]) == (80, 443)
    answer = read(v2(0x21, 0x21, bytes(range(32)) + struct.pack("!HH", 65535, 1) + b"\x04\x00\x01x"))
    assert (answer["family"], answer["source"], answer["destination"]) == (6, bytes(range(16)), bytes(range(16, 32)))
    assert (answer["source_port"], answer["destination_port"]) == (65535, 1)


def test_version_2_without_usable_addresses_keeps_the_socket() -> None:
    for header in (
        v2(0x20, 0x00, b""),
        v2(0x20, 0x11, b"x" * 12),
        v2(0x21, 0x00, b"abc"),
        v2(0x21, 0x31, b"x" * 216),
        v2(0x21, 0x12, b"y" * 12),
    ):
        assert read(header)["family"] == 0


@pytest.mark.parametrize(
    "header",
    [
        v2(0x11, 0x11, b"x" * 12), v2(0x31, 0x11, b"x" * 12), v2(0x22, 0x11, b"x" * 12), v2(0x21, 0x41, b"x" * 12),
        v2(0x21, 0x13, b"x" * 12), v2(0x21, 0x11, b"x" * 11), v2(0x21, 0x21, b"x" * 35), v2(0x21, 0x11, b"x" * 600),
        v2(0x21, 0x11, b"", 65535),
    ],
)  # fmt: skip
def test_version_2_malformed(header: bytes) -> None:
    assert read_proxy_header(header)["fault"] == "proxy_header"


def test_version_2_may_carry_520_bytes() -> None:
    assert read(v2(0x21, 0x11, b"x" * 520))["used"] == 536
    assert read_proxy_header(v2(0x21, 0x11, b"x" * 521))["fault"] == "proxy_header"


@pytest.mark.parametrize(
    "data", [b"G", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", b"PROXX", b"\r\n\r\nX", b"\r\n\r\n\x00\r\nQUIT\r", b"proxy "]
)
def test_anything_else_is_refused_at_the_first_wrong_byte(data: bytes) -> None:
    assert read_proxy_header(data)["fault"] == "proxy_header"
