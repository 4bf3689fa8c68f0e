"""Frames of HTTP/2: heads, payloads, settings, and the pieces of field blocks; see h2_frame.pxd."""

from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from gateway._core.ascii cimport is_blank
from gateway._core.faults cimport (
    F_FIELD_NAME, F_FIELD_VALUE, F_FLOOD_BLOCK, F_FLOOD_OUTPUT, F_FLOOD_RESET, F_H2_FRAME, F_H2_FRAME_SIZE, F_H2_LENGTH, F_H2_PREFACE,
    F_H2_SETTINGS, F_H2_SLOW, F_H2_STALL, F_H2_STREAM, F_H2_WINDOW, F_HPACK, F_LENGTH, F_METHOD, F_NONE, F_STATUS, F_SWITCHED, F_TARGET)
from gateway._core.types cimport Span, uint8_t, uint32_t

cdef enum:
    FIRST_BLOCK = 4096     # bytes that the first piece of a block allocates


cdef const uint8_t *h2_preface() noexcept nogil:
    return <const uint8_t *> b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


cdef int h2_check_head(const FrameHead *frame, uint32_t max_length) noexcept nogil:
    cdef uint8_t type = frame.type
    if frame.length > max_length:
        return -F_H2_FRAME_SIZE
    if type == H2_DATA or type == H2_HEADERS or type == H2_CONTINUATION:
        return 0 if frame.stream else -F_H2_FRAME
    if type == H2_WINDOW_UPDATE:
        return 0 if frame.length == 4 else -F_H2_FRAME_SIZE
    if type == H2_RST_STREAM:
        if frame.length != 4:
            return -F_H2_FRAME_SIZE
        return 0 if frame.stream else -F_H2_FRAME
    if type == H2_PRIORITY:
        # A stream error by RFC 9113 §6.3. Breaking the connection instead is allowed (§5.4.1), and nobody gains a reset by it.
        if frame.length != 5:
            return -F_H2_FRAME_SIZE
        return 0 if frame.stream else -F_H2_FRAME
    if type == H2_SETTINGS:
        if frame.length % 6 or frame.flags & H2_ACK and frame.length:
            return -F_H2_FRAME_SIZE
    elif type == H2_PING:
        if frame.length != 8:
            return -F_H2_FRAME_SIZE
    elif type == H2_GOAWAY:
        if frame.length < 8:
            return -F_H2_FRAME_SIZE
    elif type == H2_PRIORITY_UPDATE:
        if frame.length < 4:
            return -F_H2_FRAME_SIZE
    elif type == H2_PUSH_PROMISE:
        return -F_H2_FRAME
    else:
        return 0
    return -F_H2_FRAME if frame.stream else 0


cdef int h2_parse_headers(const FrameHead *frame, const uint8_t *payload, Span *piece) noexcept nogil:
    cdef size_t start = 0
    cdef size_t padding = 0
    cdef size_t n = frame.length
    if frame.flags & H2_PADDED:
        if n == 0:
            return -F_H2_FRAME_SIZE
        padding = payload[0]
        start = 1
    if frame.flags & H2_WEIGHTED:
        if n < start + 5:
            return -F_H2_FRAME_SIZE
        # A stream that depends on itself: RFC 7540 §5.3.1.
        if (get_u32(payload + start) & <uint32_t> MOST_WINDOW) == frame.stream:
            return -F_H2_FRAME
        start += 5
    if start + padding > n:
        return -F_H2_FRAME
    piece.p = payload + start
    piece.n = n - start - padding
    return 0


cdef int h2_parse_padding(const FrameHead *frame, const uint8_t *payload) noexcept nogil:
    if not frame.flags & H2_PADDED:
        return 0
    if frame.length == 0:
        return -F_H2_FRAME_SIZE
    if <uint32_t> payload[0] >= frame.length:
        return -F_H2_FRAME
    return 1 + <int> payload[0]


# ---- settings ----

cdef void h2_settings_start(Settings *settings) noexcept nogil:
    settings.table = 4096
    settings.push = 1
    settings.streams = 0xffffffff
    settings.window = DEFAULT_WINDOW
    settings.frame = MIN_FRAME
    settings.list = 0xffffffff
    settings.connect = 0


cdef int h2_parse_settings(Settings *settings, const uint8_t *payload, size_t n, bint from_server) noexcept nogil:
    cdef size_t i = 0
    cdef uint32_t id
    cdef uint32_t value
    while i + 6 <= n:
        id = <uint32_t> payload[i] << 8 | payload[i + 1]
        value = get_u32(payload + i + 2)
        i += 6
        if id == SET_TABLE:
            settings.table = value
        elif id == SET_PUSH:
            if value > 1 or value and from_server:
                return -F_H2_SETTINGS
            settings.push = value
        elif id == SET_STREAMS:
            settings.streams = value
        elif id == SET_WINDOW:
            if value > <uint32_t> MOST_WINDOW:
                return -F_H2_WINDOW
            settings.window = value
        elif id == SET_FRAME:
            if value < <uint32_t> MIN_FRAME or value > <uint32_t> MAX_FRAME:
                return -F_H2_SETTINGS
            settings.frame = value
        elif id == SET_LIST:
            settings.list = value
        elif id == SET_CONNECT:
            # RFC 8441 §3: once offered it is not taken back
            if value > 1 or settings.connect and not value:
                return -F_H2_SETTINGS
            settings.connect = value
        elif id == SET_NO_WEIGHTS and value > 1:
            return -F_H2_SETTINGS
    return 0


# ---- priorities ----

cdef void h2_parse_priority(const uint8_t *p, size_t n, uint8_t *urgency, bint *incremental) noexcept nogil:
    cdef size_t i = 0
    cdef size_t start
    cdef size_t end
    while i < n:
        while i < n and (is_blank(p[i]) or p[i] == 44):
            i += 1
        start = i
        while i < n and p[i] != 44:
            i += 1
        end = i
        # a parameter (";") belongs to the member, and says nothing that is known here
        while start < end and (is_blank(p[end - 1])):
            end -= 1
        if end - start == 3 and p[start] == 117 and p[start + 1] == 61 and p[start + 2] >= 48 and p[start + 2] <= 55:
            urgency[0] = p[start + 2] - 48
        elif end - start == 1 and p[start] == 105:
            incremental[0] = True
        elif end - start == 4 and p[start] == 105 and p[start + 1] == 61 and p[start + 2] == 63:
            if p[start + 3] == 48 or p[start + 3] == 49:
                incremental[0] = p[start + 3] == 49


# ---- errors ----

cdef uint32_t h2_error_of(int fault) noexcept nogil:
    if fault == F_NONE:
        return H2E_NO_ERROR
    if fault == F_H2_FRAME_SIZE:
        return H2E_FRAME_SIZE
    if fault == F_H2_WINDOW:
        return H2E_FLOW_CONTROL
    if fault == F_H2_STREAM:
        return H2E_STREAM_CLOSED
    if fault == F_H2_SLOW:
        return H2E_SETTINGS_TIMEOUT
    if fault == F_H2_STALL:
        return H2E_CANCEL
    if fault == F_HPACK:
        return H2E_COMPRESSION
    if fault >= F_FLOOD_RESET and fault <= F_FLOOD_OUTPUT:
        return H2E_CALM
    return H2E_PROTOCOL


cdef bint h2_is_malformed(int fault) noexcept nogil:
    return (fault >= F_H2_PREFACE and fault <= F_H2_LENGTH or fault == F_FIELD_NAME or fault == F_FIELD_VALUE or fault == F_METHOD
            or fault == F_TARGET or fault == F_LENGTH or fault == F_STATUS or fault == F_SWITCHED)


# ---- field blocks in pieces ----

cdef int block_add(FieldBlock *block, Span piece, uint32_t most, uint32_t most_pieces) noexcept nogil:
    cdef size_t cap = block.cap if block.cap else FIRST_BLOCK
    cdef uint8_t *bytes
    if piece.n > most or block.n > most - piece.n or block.pieces > most_pieces:
        return -F_FLOOD_BLOCK
    while cap < block.n + piece.n:
        cap *= 2
    if cap != block.cap:
        bytes = <uint8_t *> realloc(block.bytes, cap)
        if bytes == NULL:
            return -F_FLOOD_BLOCK
        block.bytes = bytes
        block.cap = <uint32_t> cap
    if piece.n:
        memcpy(block.bytes + block.n, piece.p, piece.n)
        block.n += <uint32_t> piece.n
    return 0


cdef void block_clear(FieldBlock *block) noexcept nogil:
    free(block.bytes)
    memset(block, 0, sizeof(FieldBlock))
