"""The tables of ascii.h against the rule of each class, for every byte; and the eight-bytes-at-a-time scan against the table."""

import random
import string

from gateway._core.selftest import name_is_token, tables, value_is_clean

ALNUM = (string.ascii_letters + string.digits).encode()
TCHAR = b"!#$%&'*+-.^_`|~" + ALNUM


def test_every_class_of_every_byte() -> None:
    for byte, (bits, lower, digit) in enumerate(tables()):
        visible = 0x21 <= byte <= 0x7E
        expected = (
            (byte in TCHAR) * 1
            | (byte == 9 or (byte >= 0x20 and byte != 0x7F)) * 2
            | (byte in b"0123456789") * 4
            | (byte in string.hexdigits.encode()) * 8
            | (byte in ALNUM + b"-._~") * 16
            | (visible and byte != ord("#")) * 32
            | (byte in ALNUM + b"-._") * 64
            | (visible and byte not in b"#%/\\?") * 128
        )
        assert bits == expected, byte
        assert lower == (ord(chr(byte).lower()) if byte in TCHAR else 0), byte
        assert digit == (int(chr(byte), 16) if byte in string.hexdigits.encode() else 255), byte


def test_each_byte_at_each_place_of_a_value() -> None:
    for byte in range(256):
        clean = byte == 9 or (byte >= 0x20 and byte != 0x7F)
        for n in (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24):
            for place in range(n):
                value = b"x" * place + bytes([byte]) + b"x" * (n - place - 1)
                assert value_is_clean(value) is clean, (byte, n, place)


def test_pairs_of_bytes_never_hide_each_other() -> None:
    """The borrow of one byte's subtraction must not blame, or excuse, its neighbour."""
    edge = [0, 1, 8, 9, 10, 0x1F, 0x20, 0x21, 0x7E, 0x7F, 0x80, 0x81, 0xFF]
    for first in edge:
        for second in edge:
            for tail in (b"", b"abcdef", b"\xff" * 6):
                value = bytes([first, second]) + tail
                assert value_is_clean(value) is all(b == 9 or (b >= 0x20 and b != 0x7F) for b in value)


def test_random_values() -> None:
    rng = random.Random(7)
    for _ in range(5000):
        value = bytes(rng.choices([*range(0x20, 0x7F), 9, 0x80, 0xFF, 0x7F, 0], [*[10] * 95, 5, 5, 5, 1, 1], k=rng.randrange(40)))
        assert value_is_clean(value) is not (b"\x7f" in value or b"\x00" in value)


def test_names() -> None:
    assert name_is_token(b"x") and name_is_token(TCHAR)
    assert not name_is_token(b"")
    for byte in set(range(256)) - set(TCHAR):
        assert not name_is_token(b"ab" + bytes([byte]))
