"""The script that decides in the store, and its arguments: one call for each ask."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final, NamedTuple

SCRIPT: Final = (Path(__file__).parent / "script.lua").read_bytes()
SHA: Final = hashlib.sha1(SCRIPT).hexdigest().encode()

CHARGE, LEASE, GIVE_BACK, CHARGE_ALL = range(4)
"""Kinds of an ask: up to `count` requests now; so many tokens to keep; so many back; `count` requests whether they fit or not."""
GCRA, FIXED, SLIDING = range(3)


class Key(NamedTuple):
    """One limit of an ask, for one value of its key. The engine gives plain tuples of the same shape."""

    tag: bytes
    """Limits that one request may meet together have the same; empty for one that stands alone."""
    hash: bytes
    """16 bytes."""
    algorithm: int
    a: int
    """Requests."""
    b: int
    """In so many microseconds; 0: each calendar month."""
    c: int
    """GCRA: the most that may come at once."""
    cost: int


Row = tuple[bytes, bytes, int, int, int, int, int]
Ask = tuple[int, int, int, tuple[Row, ...], int]
"""(id, count, kind, keys, microseconds that it may take); a Row has the words of a Key."""
Answer = tuple[int, tuple[tuple[int, int, int], ...]]
"""How many were granted, and for each key what remains, the milliseconds until one more fits, and those until all is back."""


def name_of(key: Row) -> bytes:
    """The store's name of a key. What stands in braces decides the slot in a Cluster."""
    tag, digest = key[0], key[1].hex().encode()
    return b"isthmus:{%b}:%b" % (tag, digest) if tag else b"isthmus:{%b}" % digest


def arguments(count: int, kind: int, keys: tuple[Row, ...]) -> list[bytes]:
    """What follows the script or its digest in EVAL and EVALSHA."""
    words = [b"%d" % len(keys), *map(name_of, keys), b"%d" % kind, b"%d" % count]
    for key in keys:
        words += [b"%d" % number for number in key[2:]]
    return words


def parse_answer(reply: object, keys: int) -> Answer | None:
    """The script's reply about so many keys; None when it is none of the script's."""
    if not isinstance(reply, list) or len(reply) != 1 + 3 * keys or not all(type(number) is int for number in reply):
        return None
    return reply[0], tuple(zip(reply[1::3], reply[2::3], reply[3::3], strict=True))
