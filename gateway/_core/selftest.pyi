"""Entries of the codecs for tests and fuzzers. Inputs are copied into memory of their exact size; `cuts` is None (whole), the size
of every piece, or the offsets of the cuts."""

from collections.abc import Iterable, Sequence
from typing import Any

Cuts = int | Iterable[int] | None
Pairs = Sequence[tuple[bytes, bytes]]
Edits = Sequence[tuple[Any, ...]]

def parse_request(
    data: bytes, cuts: Cuts = None, *, max_count: int = 100, max_bytes: int = 32768, max_line: int = 8192
) -> dict[str, Any]:
    """What the head says. `fault` is a name or None; `used` is 0 while the head is incomplete; fields: (name, value, hop, drop)."""

def parse_response(
    data: bytes,
    cuts: Cuts = None,
    *,
    request_method: int = 1,
    max_count: int = 100,
    max_bytes: int = 32768,
    max_line: int = 8192,
) -> dict[str, Any]: ...
def reencode_request(
    data: bytes,
    *,
    framing: int | None = None,
    length: int | None = None,
    connection: int = 0,
    te_trailers: bool = False,
    edits: Edits = (),
) -> bytes:
    """The head as it is forwarded; framing and length are those of the head unless given. ValueError names the fault."""

def reencode_response(
    data: bytes,
    *,
    request_method: int = 1,
    framing: int | None = None,
    length: int | None = None,
    connection: int = 0,
    keep_length: bool = False,
    edits: Edits = (),
) -> bytes: ...
def encode_status(status: int) -> bytes: ...
def encode_chunk(n: int) -> bytes: ...
def encode_last_chunk(trailers: Pairs | None = None) -> bytes:
    """The end of a chunked message; trailers are filtered first."""

def reason(status: int) -> bytes: ...
def decode_body(
    data: bytes, cuts: Cuts = None, *, framing: int = 2, length: int = 0, is_request: bool = True, keep_trailers: bool = True
) -> dict[str, Any]:
    """content, end, fault, used, eof (what the end of the connection would mean now), trailers."""

def filter_trailer_fields(fields: Pairs) -> list[tuple[bytes, bytes]]: ...
def edit_fields(edits: Edits) -> tuple[list[list[bytes]], list[tuple[bytes, bytes]]]:
    """Runs ("add" | "set", name, value), ("drop" | "find", name), ("echo", i, j), ("clear",) on a block: what each find found, and
    the live fields in the end."""

def normalise(path: bytes) -> bytes | None: ...
def split_authority(text: bytes) -> tuple[bytes, int] | None: ...
def read_ipv4(text: bytes) -> bytes | None: ...
def read_ipv6(text: bytes) -> bytes | None: ...
def read_port(text: bytes) -> int: ...
def read_length(text: bytes) -> int | None: ...
def read_proxy_header(data: bytes) -> dict[str, Any]: ...
def read_client_hello(data: bytes) -> dict[str, Any]:
    """fault and alert, or used (0: wants more, `wants` from the start at the least), name (None: none), alpn, tls13, h2."""

def is_http_instead(data: bytes) -> bool: ...
def alert_record(level: int, description: int, version: int) -> bytes: ...
def token(name: bytes) -> int: ...
def token_facts(number: int) -> tuple[bool, bool]:
    """Is it hop-by-hop, is it unnominable."""

def tables() -> list[tuple[int, int, int]]:
    """For each byte: class bits, lower-case tchar, value as a hex digit."""

def value_is_clean(value: bytes) -> bool: ...
def name_is_token(name: bytes) -> bool: ...
def fault_facts(fault: int) -> tuple[str, int]: ...
def read_past(data: bytes) -> int:
    """Reads one byte behind the input: what proves that the sanitizer is at work. RuntimeError in every other build."""

def bench_parse(data: bytes, n: int, request_method: int = -1) -> float:
    """Nanoseconds to parse and validate a head, the mean of n; a response when request_method is given."""

def bench_encode(data: bytes, n: int, request_method: int = -1) -> float: ...
def bench_body(data: bytes, n: int, framing: int = 2, length: int = 0) -> float: ...
