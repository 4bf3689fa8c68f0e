"""The Huffman code of HPACK: RFC 7541 Appendix B and §5.2."""

import random

import pytest
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman

from gateway._core import huffman
from gateway._core.h2test import huffman_read, huffman_write


def bits_of(*symbols: int, pad: str = "1") -> bytes:
    """The codes of the symbols, filled up with the given bits."""
    text = "".join(f"{REQUEST_CODES[s]:0{REQUEST_CODES_LENGTH[s]}b}" for s in symbols)
    while len(text) % 8:
        text += pad
    return bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))


def test_the_lengths_are_those_of_the_rfc() -> None:
    assert list(huffman.LENGTHS) == list(REQUEST_CODES_LENGTH)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"www.example.com", "f1e3c2e5f23a6ba0ab90f4ff"),
        (b"no-cache", "a8eb10649cbf"),
        (b"custom-key", "25a849e95ba97d7f"),
        (b"custom-value", "25a849e95bb8e8b4bf"),
        (b"302", "6402"),
        (b"Mon, 21 Oct 2013 20:13:21 GMT", "d07abe941054d444a8200595040b8166e082a62d1bff"),
        (b"https://www.example.com", "9d29ad171863c78f0b97c8e9ae82ae43d3"),
        (b"", ""),
    ],
)
def test_the_examples_of_appendix_c(text: bytes, code: str) -> None:
    assert huffman_write(text).hex() == code
    assert huffman_read(bytes.fromhex(code)) == text


def test_every_byte_alone_and_between_others() -> None:
    for byte in range(256):
        for before in (b"", b"0", b"00", b"\xff", b"a" * 7, b"\x16\x16"):
            text = before + bytes([byte]) + before[::-1]
            assert huffman_write(text) == bits_of(*text)
            assert huffman_read(huffman_write(text)) == text


def test_all_pairs_of_short_codes() -> None:
    """Two codes that one look decodes at once, at every offset in a byte."""
    short = [s for s in range(256) if REQUEST_CODES_LENGTH[s] <= 8]
    for shift in range(8):
        text = bytes(b for a in short for c in short for b in (a, c, *b"0" * shift))
        assert huffman_read(huffman_write(text)) == text


@pytest.mark.parametrize("n", range(8, 40))
def test_padding_of_eight_bits_and_more_is_refused(n: int) -> None:
    """RFC 7541 §5.2: padding strictly longer than 7 bits."""
    text = "00000" + "1" * n  # "0", then ones
    while len(text) % 8:
        text += "1"
    code = bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))
    assert huffman_read(code) is None


@pytest.mark.parametrize("symbols", [b"0", b"00", b"X", b"a!", b"www.example.co", b"\x00", b"\xff\xfe"])
def test_padding_that_is_no_prefix_of_eos_is_refused(symbols: bytes) -> None:
    assert huffman_read(bits_of(*symbols)) == symbols
    if sum(REQUEST_CODES_LENGTH[s] for s in symbols) % 8:
        assert huffman_read(bits_of(*symbols, pad="0")) != symbols


def test_eos_is_refused() -> None:
    for around in (b"", b"a", b"abc", b"\xff"):
        assert huffman_read(bits_of(*around, 256, *around)) is None
        assert huffman_read(bits_of(*around, 256)) is None


def test_long_codes_cut_off_anywhere_are_refused() -> None:
    for byte in (10, 13, 22, 0, 255, 128, 92, 195):
        code = huffman_write(bytes([48, byte, 48]))
        for n in range(1, len(code)):
            short = huffman_read(code[:n])
            try:
                expected = decode_huffman(code[:n])
            except Exception:
                expected = None
            assert short == expected


def test_as_hpack_decodes_it() -> None:
    rng = random.Random(7541)
    for _ in range(4000):
        code = rng.randbytes(rng.randrange(1, 24))
        try:
            expected = decode_huffman(code)
        except Exception:
            expected = None
        assert huffman_read(code) == expected, code.hex()
