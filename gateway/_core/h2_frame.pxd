# h2_frame.pxd - level 3: frames of HTTP/2 (RFC 9113 §4 and §6): bytes to structs and back, and what a frame may be by itself.
#
# Owns: nothing; a FieldBlock owns the pieces of a field block that came in several frames. Called by: h2_session.
# What a frame means where it comes (states, windows, floods) is the session's business.

from gateway._core.types cimport Span, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    FRAME_HEAD = 9         # bytes of a frame's head
    MIN_FRAME = 16384      # what every receiver takes as a frame's length
    MAX_FRAME = 16777215
    PREFACE = 24           # bytes that a client says first
    MOST_WINDOW = 0x7fffffff
    DEFAULT_WINDOW = 65535

cdef enum FrameType:
    H2_DATA = 0
    H2_HEADERS = 1
    H2_PRIORITY = 2
    H2_RST_STREAM = 3
    H2_SETTINGS = 4
    H2_PUSH_PROMISE = 5
    H2_PING = 6
    H2_GOAWAY = 7
    H2_WINDOW_UPDATE = 8
    H2_CONTINUATION = 9
    H2_PRIORITY_UPDATE = 16    # RFC 9218 §7.1

cdef enum FrameFlag:
    H2_ACK = 1             # SETTINGS, PING
    H2_END_STREAM = 1      # DATA, HEADERS
    H2_END_HEADERS = 4     # HEADERS, CONTINUATION
    H2_PADDED = 8          # DATA, HEADERS
    H2_WEIGHTED = 32       # HEADERS: with the priority of RFC 7540, which nobody reads any more

cdef enum H2Error:         # RFC 9113 §7
    H2E_NO_ERROR = 0
    H2E_PROTOCOL = 1
    H2E_INTERNAL = 2
    H2E_FLOW_CONTROL = 3
    H2E_SETTINGS_TIMEOUT = 4
    H2E_STREAM_CLOSED = 5
    H2E_FRAME_SIZE = 6
    H2E_REFUSED_STREAM = 7
    H2E_CANCEL = 8
    H2E_COMPRESSION = 9
    H2E_CONNECT = 10
    H2E_CALM = 11          # ENHANCE_YOUR_CALM
    H2E_SECURITY = 12
    H2E_HTTP_1_1 = 13

cdef enum SettingId:
    SET_TABLE = 1          # HEADER_TABLE_SIZE
    SET_PUSH = 2           # ENABLE_PUSH
    SET_STREAMS = 3        # MAX_CONCURRENT_STREAMS
    SET_WINDOW = 4         # INITIAL_WINDOW_SIZE
    SET_FRAME = 5          # MAX_FRAME_SIZE
    SET_LIST = 6           # MAX_HEADER_LIST_SIZE
    SET_CONNECT = 8        # ENABLE_CONNECT_PROTOCOL, RFC 8441
    SET_NO_WEIGHTS = 9     # NO_RFC7540_PRIORITIES, RFC 9218

cdef struct FrameHead:
    uint32_t length        # of the payload
    uint32_t stream        # without the reserved bit
    uint8_t type
    uint8_t flags

cdef struct Settings:      # of one side; h2_settings_start gives what holds before any are sent
    uint32_t table
    uint32_t push
    uint32_t streams
    uint32_t window
    uint32_t frame
    uint32_t list
    uint32_t connect

cdef inline uint32_t get_u32(const uint8_t *p) noexcept nogil:
    return <uint32_t> p[0] << 24 | <uint32_t> p[1] << 16 | <uint32_t> p[2] << 8 | p[3]

cdef inline void put_u32(uint8_t *out, uint32_t value) noexcept nogil:
    out[0] = <uint8_t> (value >> 24)
    out[1] = <uint8_t> (value >> 16)
    out[2] = <uint8_t> (value >> 8)
    out[3] = <uint8_t> value

cdef inline void h2_parse_head(const uint8_t *p, FrameHead *frame) noexcept nogil:     # of FRAME_HEAD bytes
    frame.length = <uint32_t> p[0] << 16 | <uint32_t> p[1] << 8 | p[2]
    frame.type = p[3]
    frame.flags = p[4]
    frame.stream = get_u32(p + 5) & <uint32_t> MOST_WINDOW

cdef inline uint8_t *h2_put_head(uint8_t *out, size_t length, uint8_t type, uint8_t flags, uint32_t stream) noexcept nogil:
    out[0] = <uint8_t> (length >> 16)
    out[1] = <uint8_t> (length >> 8)
    out[2] = <uint8_t> length
    out[3] = type
    out[4] = flags
    put_u32(out + 5, stream)
    return out + FRAME_HEAD

# What is wrong with a frame whoever sends it and whenever: its length, and whether it is on a stream or on none. 0 or a negated Fault,
# which breaks the connection. PUSH_PROMISE is never right here: nobody may send us one (RFC 9113 §8.4, settings say so).
cdef int h2_check_head(const FrameHead *frame, uint32_t max_length) noexcept nogil
# The piece of a field block in the payload of a HEADERS frame: without padding and weights. 0 or a negated Fault.
cdef int h2_parse_headers(const FrameHead *frame, const uint8_t *payload, Span *piece) noexcept nogil
# Bytes of padding of a DATA frame, its length byte included, and so no content; payload is at least its first byte, when the frame is
# padded. A negated Fault when it is all of the frame and more.
cdef int h2_parse_padding(const FrameHead *frame, const uint8_t *payload) noexcept nogil

cdef void h2_settings_start(Settings *settings) noexcept nogil
# Reads n bytes of a SETTINGS frame; unknown ones are passed over. `from_server`: it may not offer to push. 0 or a negated Fault.
cdef int h2_parse_settings(Settings *settings, const uint8_t *payload, size_t n, bint from_server) noexcept nogil
cdef inline uint8_t *h2_put_setting(uint8_t *out, uint16_t id, uint32_t value) noexcept nogil:
    out[0] = <uint8_t> (id >> 8)
    out[1] = <uint8_t> id
    put_u32(out + 2, value)
    return out + 6

# A Priority field value (RFC 9218 §4): u=0 to 7 and i. What cannot be read changes nothing.
cdef void h2_parse_priority(const uint8_t *p, size_t n, uint8_t *urgency, bint *incremental) noexcept nogil

# What a connection or stream is ended with because of this fault.
cdef uint32_t h2_error_of(int fault) noexcept nogil
# 1 for a fault that makes a message malformed (RFC 9113 §8.1.1): the stream is reset. With any other one a request can be answered.
cdef bint h2_is_malformed(int fault) noexcept nogil

# What the client says before its first frame.
cdef const uint8_t *h2_preface() noexcept nogil

cdef struct FieldBlock:    # zeroed: nothing is being put together
    uint8_t *bytes
    uint32_t n
    uint32_t cap
    uint32_t stream        # 0: no block is open
    uint32_t pieces        # CONTINUATION frames so far
    uint8_t flags          # of the HEADERS frame
    uint64_t since         # monotonic ms at which it began

# Appends a piece; with `most` as the bytes and `most_pieces` as the CONTINUATION frames that are too many. 0 or a negated Fault.
cdef int block_add(FieldBlock *block, Span piece, uint32_t most, uint32_t most_pieces) noexcept nogil
cdef void block_clear(FieldBlock *block) noexcept nogil
