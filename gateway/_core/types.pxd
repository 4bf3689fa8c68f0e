# types.pxd - level 0: the vocabulary that every level shares. Plain C, owns nothing.
#
# Return conventions, kept everywhere in _core:
#   a status is an int: 0 done or need more (the function says which), > 0 progress, < 0 a negated Fault;
#   a question is a bint, and its name begins with is_ or has_.
# A Span is borrowed and never outlives the statement that produced it; what must live longer is kept as a Ref.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

ctypedef const uint8_t *bytes_p

cdef struct Span:
    const uint8_t *p       # first byte; may be NULL when n is 0
    size_t n               # length in bytes

cdef struct Ref:           # a span inside a store that may move
    uint32_t off           # offset of the first byte
    uint32_t n             # length in bytes

cdef enum Method:          # u8; anything else that is a token is M_OTHER and keeps its text
    M_OTHER = 0
    M_GET = 1
    M_HEAD = 2
    M_POST = 3
    M_PUT = 4
    M_DELETE = 5
    M_OPTIONS = 6
    M_PATCH = 7
    M_TRACE = 8
    M_CONNECT = 9

# RFC 9110 §9.2.2; a method that we do not know is not.
cdef inline bint is_idempotent(uint8_t method) noexcept nogil:
    return method == M_GET or method == M_HEAD or method == M_PUT or method == M_DELETE or method == M_OPTIONS

cdef enum Framing:         # u8; how the end of a message's content is found
    FRAME_NONE = 0         # no content
    FRAME_LENGTH = 1       # content-length
    FRAME_CHUNKED = 2      # transfer-encoding: chunked
    FRAME_CLOSE = 3        # until the connection closes (responses only)
    FRAME_STREAM = 4       # an HTTP/2 stream's END_STREAM

cdef enum Flag:            # bit set in an access-log record: why an exchange did not go as planned (Envoy's names)
    FLAG_NR = 1            # no route
    FLAG_UF = 2            # upstream connection failure
    FLAG_UC = 4            # upstream connection terminated
    FLAG_UO = 8            # upstream overflow: the pool's queue was full
    FLAG_UT = 16           # upstream request timeout
    FLAG_DC = 32           # downstream connection terminated
    FLAG_DPE = 64          # downstream protocol error
    FLAG_UPE = 128         # upstream protocol error
    FLAG_URX = 256         # retry limit exceeded
    FLAG_NC = 512          # cluster not found (a backend that does not resolve)
    FLAG_UH = 1024         # no healthy upstream
    FLAG_DT = 2048         # downstream deadline: request head or body too slow
    FLAG_RL = 4096         # rate limited
    FLAG_SI = 8192         # stream idle timeout
    FLAG_LR = 16384        # local reply by a filter (redirect and the like)

cdef enum Origin:          # u8; whose fault a failure is
    BY_NOBODY = 0
    BY_DOWNSTREAM = 1
    BY_UPSTREAM = 2
    BY_INTERNAL = 3
    BY_CONFIG = 4
