"""Frames of HTTP/2 as bytes, for tests that say exactly what a peer sends; and the frames that a session answered."""

from typing import NamedTuple

from hpack import Decoder, Encoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
PRIORITY_UPDATE = 16
END_STREAM, ACK, END_HEADERS, PADDED, WEIGHTED = 1, 1, 4, 8, 32
NO_ERROR, PROTOCOL, INTERNAL, FLOW_CONTROL, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE, REFUSED, CANCEL, COMPRESSION = range(10)
CALM = 11
Pairs = list[tuple[bytes, bytes]]
GET: Pairs = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a.example"), (b":path", b"/")]
POST: Pairs = [(b":method", b"POST"), *GET[1:]]
OK: Pairs = [(b":status", b"200")]


class Frame(NamedTuple):
    type: int
    flags: int
    stream: int
    payload: bytes

    @property
    def number(self) -> int:
        """The payload as one number: an error, an increment, the last stream of a GOAWAY."""
        return int.from_bytes(self.payload[:4], "big")

    @property
    def code(self) -> int:
        """The error of a GOAWAY."""
        return int.from_bytes(self.payload[4:8], "big")


def frame(type_: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([type_, flags]) + stream.to_bytes(4, "big") + payload


def frames(data: bytes) -> list[Frame]:
    """Every frame of some output, which has to end with a whole one."""
    found, at = [], len(PREFACE) if data.startswith(PREFACE) else 0
    while at < len(data):
        end = at + 9 + int.from_bytes(data[at : at + 3], "big")
        assert end <= len(data), "half a frame"
        found.append(Frame(data[at + 3], data[at + 4], int.from_bytes(data[at + 5 : at + 9], "big"), data[at + 9 : end]))
        at = end
    return found


def setting(number: int, value: int) -> bytes:
    return number.to_bytes(2, "big") + value.to_bytes(4, "big")


def settings(*pairs: tuple[int, int]) -> bytes:
    return frame(SETTINGS, payload=b"".join(setting(*pair) for pair in pairs))


def update(stream: int, n: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, n.to_bytes(4, "big"))


def rst(stream: int, code: int = CANCEL) -> bytes:
    return frame(RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def goaway(last: int, code: int = NO_ERROR) -> bytes:
    return frame(GOAWAY, 0, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big"))


def data(stream: int, payload: bytes = b"", end: bool = False, padding: int | None = None) -> bytes:
    flags = END_STREAM if end else 0
    if padding is not None:
        return frame(DATA, flags | PADDED, stream, bytes([padding]) + payload + b"\x00" * padding)
    return frame(DATA, flags, stream, payload)


class Speaker:
    """One side's header compression."""

    def __init__(self) -> None:
        self.encoder, self.decoder = Encoder(), Decoder()
        self.decoder.max_header_list_size = 1 << 20

    def headers(self, stream: int, pairs: Pairs, end: bool = True, flags: int = END_HEADERS) -> bytes:
        return frame(HEADERS, flags | (END_STREAM if end else 0), stream, self.encoder.encode(pairs))

    def read(self, block: bytes) -> Pairs:
        return [(bytes(name), bytes(value)) for name, value in self.decoder.decode(block, raw=True)]
