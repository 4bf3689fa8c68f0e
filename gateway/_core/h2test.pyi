"""Entries of the HTTP/2 codecs for tests and fuzzers. Inputs are copied into memory of their exact size."""

from collections.abc import Iterable, Sequence
from typing import Any, final

Pairs = Sequence[tuple[bytes, bytes]]

def huffman_read(data: bytes) -> bytes | None: ...
def huffman_write(data: bytes) -> bytes: ...
def static_index(name: bytes) -> int: ...
def static_facts(index: int) -> tuple[int, int, int, int]:
    """token, kind, and the lengths of name and value."""

@final
class HpackReader:
    """A decoder with its table. kind: request, response or trailers; validate: what was decoded is also held to the rules."""

    def __init__(self) -> None: ...
    def allow(self, size: int) -> None:
        """Our settings that allow a table of this size were acknowledged."""

    def table(self) -> list[tuple[bytes, bytes]]: ...
    def facts(self) -> tuple[int, int, int, int, int]:
        """size, max_size, entries, bytes of the log, entries allocated."""

    def read(
        self,
        block: bytes,
        kind: str = "request",
        *,
        validate: bool = False,
        ended: bool = True,
        method: int = 1,
        max_count: int = 100,
        max_list: int = 32768,
        max_target: int = 8192,
    ) -> dict[str, Any]: ...
    def bench(self, block: bytes, n: int, validate: bool = True) -> float:
        """Nanoseconds to decode a request head (and validate it), the mean of n."""

@final
class HpackWriter:
    """An encoder with its table. stateless: the static table alone."""

    def __init__(self, stateless: bool = False) -> None: ...
    def limit(self, size: int) -> None: ...
    def table(self) -> list[tuple[bytes, bytes]]: ...
    def facts(self) -> tuple[int, int, int, int, int]: ...
    def write(
        self,
        pairs: Pairs,
        kind: str = "request",
        *,
        length: int | None = None,
        te_trailers: bool = False,
        keep_length: bool = False,
        flags: int = 0,
        move_query: bool = False,
    ) -> bytes: ...
    def bench(self, pairs: Pairs, n: int, kind: str = "response", length: int | None = None) -> tuple[float, float]:
        """Nanoseconds to encode a head, the mean of n, and its bytes."""

def frame_head(data: bytes, max_length: int = 16384) -> tuple[int, int, int, int, str | None]:
    """length, type, flags, stream, and what is wrong with it by itself."""

def put_frame_head(length: int, type: int, flags: int, stream: int) -> bytes: ...
def headers_piece(flags: int, stream: int, payload: bytes) -> bytes | str: ...
def padding(flags: int, length: int, first: bytes) -> int | str: ...
def read_settings(payload: bytes, from_server: bool = False, before: bytes = b"") -> tuple[str | None, dict[str, int]]: ...
def read_priority(value: bytes, urgency: int = 3, incremental: bool = False) -> tuple[int, bool]: ...
def fault_error(fault: int) -> tuple[int, bool]:
    """The error of HTTP/2 that answers the fault, and whether it makes a message malformed."""

def join_pieces(pieces: Iterable[bytes], most: int = 65536, most_pieces: int = 8) -> bytes | str: ...
def preface() -> bytes: ...
