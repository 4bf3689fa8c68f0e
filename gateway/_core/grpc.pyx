"""What the gateway has to know of gRPC; see grpc.pxd."""

from libc.string cimport memcmp, strlen

from gateway._core.headers cimport Field, HeaderBlock
from gateway._core.tokens cimport T_CONTENT_TYPE, T_GRPC_MESSAGE, T_GRPC_STATUS, T_GRPC_TIMEOUT
from gateway._core.types cimport FRAME_NONE, Span, uint8_t, uint64_t

cdef enum:                 # status codes of gRPC
    GRPC_UNKNOWN = 2
    GRPC_DEADLINE_EXCEEDED = 4
    GRPC_PERMISSION_DENIED = 7
    GRPC_RESOURCE_EXHAUSTED = 8
    GRPC_UNIMPLEMENTED = 12
    GRPC_INTERNAL = 13
    GRPC_UNAVAILABLE = 14
    GRPC_UNAUTHENTICATED = 16
    LONGEST_MS = 0x7fffffff


cdef bint is_grpc(HeaderBlock request) noexcept nogil:
    cdef Field *field = request.find(T_CONTENT_TYPE)
    cdef Span value
    if field == NULL:
        return False
    value = request.borrow_value(field)
    if value.n < 16 or memcmp(value.p, <const char *> b"application/grpc", 16) != 0:
        return False
    return value.n == 16 or value.p[16] == 43 or value.p[16] == 59 or value.p[16] == 32


cdef uint64_t grpc_timeout(HeaderBlock request) noexcept nogil:
    cdef Field *field = request.find(T_GRPC_TIMEOUT)
    cdef Span value
    cdef uint64_t n = 0
    cdef size_t i
    cdef uint8_t unit
    if field == NULL:
        return 0
    value = request.borrow_value(field)
    if value.n < 2 or value.n > 9:
        return 0
    for i in range(value.n - 1):
        if not 48 <= value.p[i] <= 57:
            return 0
        n = n * 10 + value.p[i] - 48
    unit = value.p[value.n - 1]
    if unit == c'H':
        n *= 3600000
    elif unit == c'M':
        n *= 60000
    elif unit == c'S':
        n *= 1000
    elif unit == c'u':
        n = (n + 999) // 1000
    elif unit == c'n':
        n = (n + 999999) // 1000000
    elif unit != c'm':
        return 0
    if n == 0:
        return 1
    return n if n < LONGEST_MS else LONGEST_MS


cdef int code_of(int status) noexcept nogil:
    """What clients of gRPC make of a HTTP status by themselves; and more where the gateway knows more."""
    if status == 401:
        return GRPC_UNAUTHENTICATED
    if status == 403:
        return GRPC_PERMISSION_DENIED
    if status == 404:
        return GRPC_UNIMPLEMENTED
    if status == 408 or status == 504:
        return GRPC_DEADLINE_EXCEEDED
    if status == 413 or status == 429 or status == 431:
        return GRPC_RESOURCE_EXHAUSTED
    if status == 502 or status == 503:
        return GRPC_UNAVAILABLE
    if status == 400 or status == 500:
        return GRPC_INTERNAL
    return GRPC_UNKNOWN


cdef int add_grpc_status(HeaderBlock block, int status, const char *reason) noexcept nogil:
    cdef uint8_t number[2]
    cdef int code = code_of(status)
    cdef size_t n = 0
    if code > 9:
        number[0] = <uint8_t> (48 + code // 10)
        n = 1
    number[n] = <uint8_t> (48 + code % 10)
    n += 1
    if (
        block.add(T_GRPC_STATUS, <const uint8_t *> b"grpc-status", 11, number, n) < 0
        or block.add(T_GRPC_MESSAGE, <const uint8_t *> b"grpc-message", 12, <const uint8_t *> reason, strlen(reason)) < 0
    ):
        return -1
    return 0


cdef int make_grpc_reply(HeaderBlock response, int status, const char *reason) noexcept nogil:
    response.status = 200
    response.version = 20
    response.framing = FRAME_NONE
    response.length = 0
    if response.add(T_CONTENT_TYPE, <const uint8_t *> b"content-type", 12, <const uint8_t *> b"application/grpc", 16) < 0:
        return -1
    return add_grpc_status(response, status, reason)
