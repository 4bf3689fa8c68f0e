"""Content of messages: items 6 to 10, the chunk part of the "never do" list, and chunk abuse (D12), at every split."""

from typing import Any

import pytest

from gateway._core.selftest import decode_body

NONE, LENGTH, CHUNKED, CLOSE = 0, 1, 2, 3


def decode(data: bytes, **rest: Any) -> dict[str, Any]:
    """The whole input; the same at every single cut and byte by byte."""
    whole = decode_body(data, **rest)
    assert decode_body(data, 1, **rest) == whole
    if len(data) < 200:
        for cut in range(1, len(data)):
            assert decode_body(data, [cut], **rest) == whole, cut
    return whole


def fault(data: bytes) -> Any:
    return decode(data)["fault"]


def test_chunks_of_a_message() -> None:
    data = b"5\r\nhello\r\n00a\r\n0123456789\r\nF\r\n" + b"x" * 15 + b"\r\n0\r\n\r\nGET / HTTP/1.1\r\n"
    answer = decode(data)
    assert (answer["content"], answer["end"], answer["fault"]) == (b"hello0123456789" + b"x" * 15, True, None)
    assert data[answer["used"] :] == b"GET / HTTP/1.1\r\n"
    assert (answer["trailers"], answer["eof"]) == ([], None)


@pytest.mark.parametrize("last", [b"0\r\n\r\n", b"000\r\n\r\n", b"0;x\r\n\r\n", b"0000000000000000\r\n\r\n"])
def test_the_last_chunk(last: bytes) -> None:
    answer = decode(b"1\r\na\r\n" + last)
    assert (answer["content"], answer["end"], answer["used"]) == (b"a", True, 6 + len(last))


SIZES = [
    b"", b" 5", b"5 ", b"\t5", b"5\t", b"0x5", b"+5", b"-5", b"5_0", b"5.", b"g", b"5g", b"\xb2", b"5,5", b"5 5",
    b"00000000000000005",
    b"8000000000000000", b"ffffffffffffffff", b"7fffffffffffffff0", b"10000000000000000", b"\x00", b"5\x00", b"5=", b"\"5\"",
]  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
def test_item_06_chunk_size_grammar(size: bytes) -> None:
    assert fault(size + b"\r\nhello\r\n0\r\n\r\n") == "chunk_size"
    assert fault(b"1\r\na\r\n" + size + b"\r\nhello\r\n0\r\n\r\n") == "chunk_size"


def test_item_06_the_largest_chunk_size() -> None:
    answer = decode(b"7fffffffffffffff\r\nabc")
    assert (answer["fault"], answer["content"], answer["end"], answer["eof"]) == (None, b"abc", False, "body_short")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"5\nhello\r\n0\r\n\r\n", "chunk_size"),
        (b"5\r\nhello\n0\r\n\r\n", "chunk_end"),
        (b"5\r\nhello\r0\r\n\r\n", "chunk_end"),
        (b"5\r\nhello\r\r\n0\r\n\r\n", "chunk_end"),
        (b"5\rXhello\r\n0\r\n\r\n", "chunk_end"),
        (b"5\r\nhelloXX0\r\n\r\n", "chunk_end"),
        (b"5\r\nhello0\r\n\r\n", "chunk_end"),
        (b"5\r\nhello!\r\n0\r\n\r\n", "chunk_end"),
        (b"5\r\nhello\r\n\r\n0\r\n\r\n", "chunk_size"),
        (b"0\n\r\n", "chunk_size"),
        (b"0\r\n\n", "trailer"),
        (b"0\r\n\rX", "chunk_end"),
        (b"0\r\nXX", None),
        (b"0\r\n\r\r\n", "chunk_end"),
        (b"0\rX\r\n", "chunk_end"),
    ],
)
def test_item_07_every_line_ends_in_crlf(data: bytes, name: str | None) -> None:
    answer = decode(data)
    assert (answer["fault"], answer["end"]) == (name, False)


@pytest.mark.parametrize(
    "extension",
    [b";a", b";a=b", b";a;b", b';a=b;c="d"', b';a=""', b';a="x\\"y\\\\;\xe4\t"', b"; a = b ;c", b';a\t=\t"q"\t;b', b';a="q";b=c'],
)
def test_item_08_extensions_are_read_and_ignored(extension: bytes) -> None:
    answer = decode(b"5" + extension + b"\r\nhello\r\n0" + extension + b"\r\n\r\n")
    assert (answer["fault"], answer["content"], answer["end"]) == (None, b"hello", True)


@pytest.mark.parametrize(
    "extension",
    [
        b";", b";;a", b";a;", b";=b", b";a=", b";a=;b", b";a b", b";a=b c", b";a=\"", b";a=\"b\"c", b";a=b\"c\"", b";a=\"b",
        b";a\x00",
        b";a=\"\x00\"", b";a=\"\x7f\"", b";a=\"\\\x01\"", b";a\n", b";a=\"\n\"", b";a=\"\r\n\"", b";a ", b";a=b ", b";\xe4",
        b";a=\xe4",
        b";a==b", b";a,b",
    ],
)  # fmt: skip
def test_item_08_malformed_extensions_are_refused(extension: bytes) -> None:
    assert fault(b"5" + extension + b"\r\nhello\r\n0\r\n\r\n") == "chunk_extension"


def test_item_08_a_cr_in_an_extension_is_no_line_end() -> None:
    assert fault(b"5;a\rb\r\nhello\r\n0\r\n\r\n") == "chunk_end"
    assert fault(b'5;a="\r"\r\nhello\r\n0\r\n\r\n') == "chunk_extension"


def test_item_08_extensions_are_capped() -> None:
    assert fault(b"1;" + b"a" * 4000 + b"\r\na\r\n0\r\n\r\n") is None
    assert fault(b"1;" + b"a" * 4100 + b"\r\na\r\n0\r\n\r\n") == "chunk_extension"
    line = b"a;" + b"x" * 1022 + b"\r\n0123456789\r\n"
    assert fault(line * 15 + b"0\r\n\r\n") is None
    assert fault(line * 17 + b"0\r\n\r\n") == "chunk_extension"


def test_d12_a_million_chunks_of_one_byte_are_abuse() -> None:
    answer = decode_body(b"1\r\na\r\n" * 1_000_000 + b"0\r\n\r\n", 65536)
    assert answer["fault"] == "chunk_abuse"
    assert len(answer["content"]) < 100_000
    assert decode_body(b"0000000000000001\r\na\r\n" * 100_000, 65536)["fault"] == "chunk_abuse"


def test_d12_ten_thousand_extensions_of_a_kilobyte_are_abuse() -> None:
    line = b"a;" + b"x" * 1024 + b"\r\n0123456789\r\n"
    assert decode_body(line * 10_000 + b"0\r\n\r\n", 65536)["fault"] == "chunk_extension"


def test_d12_a_hundred_thousand_chunks_of_ten_bytes_pass() -> None:
    answer = decode_body(b"a\r\n0123456789\r\n" * 100_000 + b"0\r\n\r\n", 65536)
    assert (answer["fault"], answer["end"], len(answer["content"])) == (None, True, 1_000_000)


def test_small_chunks_in_small_number_pass() -> None:
    assert decode_body(b"1\r\na\r\n" * 10_000 + b"0\r\n\r\n", 4096)["end"]


def test_item_09_trailers_are_read() -> None:
    answer = decode(b"0\r\nX-Sum: 1\r\nEMPTY:\r\nPadded: \t a b \t\r\nx-text:\xe4\r\n\r\nrest")
    assert answer["trailers"] == [(b"x-sum", b"1"), (b"empty", b""), (b"padded", b"a b"), (b"x-text", b"\xe4")]
    assert (answer["end"], answer["used"]) == (True, len(b"0\r\nX-Sum: 1\r\nEMPTY:\r\nPadded: \t a b \t\r\nx-text:\xe4\r\n\r\n"))
    assert decode(b"0\r\nX: 1\r\n\r\n", keep_trailers=False)["end"]


@pytest.mark.parametrize(
    "trailer",
    [b" X: 1", b"X : 1", b"X", b": 1", b"X: \x00", b"X: a\x7f", b"X: a\nb", b"X: 1\r\n folded", b"\xe4: 1", b"X\r: 1", b"X: 1\rY"],
)
def test_item_09_malformed_trailers_are_refused(trailer: bytes) -> None:
    assert fault(b"0\r\n" + trailer + b"\r\n\r\n") == "trailer"
    assert decode_body(b"0\r\n" + trailer + b"\r\n\r\n", keep_trailers=False)["fault"] == "trailer"


def test_item_09_trailers_are_capped() -> None:
    assert decode_body(b"0\r\n" + b"x: 1\r\n" * 100 + b"\r\n")["end"]
    assert decode_body(b"0\r\n" + b"x: 1\r\n" * 101 + b"\r\n")["fault"] == "trailers_large"
    assert decode_body(b"0\r\nx: " + b"a" * 16_000 + b"\r\n\r\n")["end"]
    assert decode_body(b"0\r\nx: " + b"a" * 16_400)["fault"] == "trailers_large"
    assert decode_body(b"0\r\n" + b"a" * 16_400, 1)["fault"] == "trailers_large"


def test_item_10_a_close_in_the_middle_is_no_end() -> None:
    data = b"5\r\nhello\r\n0\r\nX: 1\r\n\r\n"
    for n in range(len(data)):
        answer = decode_body(data[:n])
        assert (answer["end"], answer["fault"], answer["eof"]) == (False, None, "body_short"), n
    assert decode_body(data)["eof"] is None
    answer = decode(b"hell", framing=LENGTH, length=5)
    assert (answer["content"], answer["end"], answer["eof"]) == (b"hell", False, "body_short")


def test_content_by_length() -> None:
    answer = decode(b"hello, and the next", framing=LENGTH, length=5)
    assert (answer["content"], answer["end"], answer["used"], answer["eof"]) == (b"hello", True, 5, None)
    assert decode(b"x", framing=LENGTH, length=0)["used"] == 0
    answer = decode(b"x", framing=NONE)
    assert (answer["content"], answer["end"], answer["used"]) == (b"", True, 0)
    assert decode(b"", framing=LENGTH, length=0)["end"]


def test_content_until_close() -> None:
    answer = decode(b"all of it\r\n0\r\n\r\n", framing=CLOSE)
    assert (answer["content"], answer["end"], answer["eof"]) == (b"all of it\r\n0\r\n\r\n", False, None)


@pytest.mark.parametrize("is_request", [True, False])
def test_requests_and_responses_have_one_machine(is_request: bool) -> None:
    assert decode_body(b"1\r\na\r\n0\r\n\r\n", is_request=is_request)["end"]
    assert decode_body(b"0x1\r\na\r\n", is_request=is_request)["fault"] == "chunk_size"
