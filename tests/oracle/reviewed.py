"""Where we and the oracles may differ, each with its reason. A difference that is not listed fails the test.

STRICTER: faults with which we may refuse what an oracle accepts. LOOSER_REQUESTS and LOOSER_RESPONSES: what we accept and one
oracle refuses because it is stricter than the protocol; each is a predicate on the bytes of the message.
"""

import re
from collections.abc import Callable

STRICTER = {
    "start_line": "items 24 and 25: exact spaces, at most two empty lines before it, none before a status line",
    "method": "item 26 and the limit of 32 bytes for a method",
    "version": "item 25: HTTP/1.0 and HTTP/1.1 alone; h11 reads any digits",
    "target": "items 30 to 32: no fragment, no bytes outside visible ASCII, only the form that the method asks for",
    "path": "item 57: paths without one safe form",
    "authority": "items 27 to 29: Host is there once, is a host, and agrees with an absolute target",
    "connect": "item 31: CONNECT is not offered on these listeners",
    "trace": "item 37: TRACE is refused",
    "line_end": "items 14, 16, 17 and 19: no bare LF, no folded lines",
    "field_name": "items 18, 20 and 22",
    "field_value": "item 21, and lists of Connection and Upgrade that are no lists of tokens",
    "underscore": "item 48",
    "fields_many": "item 33, and at most 64 connection options",
    "length": "items 4 and 5: one length, also when two agree; 2^63 - 1 at most",
    "length_and_coding": "item 1",
    "coding": "items 2 and 3: chunked alone, once, not in HTTP/1.0",
    "coding_unknown": "item 2 (501), and codings of responses that could not be forwarded",
    "expect": "item 41: an expectation that nobody here meets",
    "upgrade_body": "item 44",
    "max_forwards": "item 37",
    "chunk_size": "item 6: at most 16 digits and 2^63 - 1, no white space",
    "chunk_extension": "item 8: the grammar of RFC 9112 §7.1.1 and the caps",
    "chunk_end": "item 7",
    "trailer": "item 9",
    "status": "100 to 599, three digits, then a space or the end",
    "switched": "item 43: 101 names its protocol, and never HTTP/2",
}


def head_of(data: bytes) -> bytes:
    return data.split(b"\r\n\r\n", 1)[0] + b"\r\n"


def has(pattern: bytes) -> Callable[[bytes], bool]:
    compiled = re.compile(pattern, re.I | re.S | re.M)
    return lambda data: compiled.search(data) is not None


Reviewed = list[tuple[str, Callable[[bytes], bool], str]]  # oracle, predicate, reason

LOOSER_REQUESTS: Reviewed = [
    (
        "h11",
        lambda data: data.startswith(b"\r\n"),
        "item 24: up to two empty lines before a request line; h11 refuses them",
    ),
    (
        "httptools",
        has(rb"\A(\r\n)*(?-i:(?!(GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH) ))"),
        "item 26: any token is a method; llhttp has a list",
    ),
]
BLANK_EXTENSION = has(rb"^[0-9a-f]+;[^\r]*[ \t]")
# We read trailers without a look at their names; filter_trailers drops what may not stand there before anything is forwarded.
DROPPED_TRAILER = has(rb"\r\n0+[^\r]*\r\n(.*\r\n)?content-length:")
LOOSER_CHUNKS: Reviewed = [
    ("httptools", BLANK_EXTENSION, "RFC 9112 §7.1.1: bad white space in chunk extensions is read; llhttp refuses it"),
    ("httptools", DROPPED_TRAILER, "item 9: a length in trailers is dropped; llhttp refuses it"),
    ("h11", DROPPED_TRAILER, "item 9: a length in trailers is dropped, whatever it says; h11 refuses a malformed one"),
]
LOOSER_REQUESTS += LOOSER_CHUNKS
LOOSER_RESPONSES: Reviewed = [
    (
        "httptools",
        lambda data: all(has(rb"^" + name + rb":")(head_of(data)) for name in (b"content-length", b"transfer-encoding")),
        "item 12: the length goes and the connection is not used again; llhttp refuses the pair",
    ),
    ("h11", has(rb"^transfer-encoding:[ \t]*identity[ \t]*\r$"), "item 12: read to the close, which is what identity meant"),
    *LOOSER_CHUNKS,
]
