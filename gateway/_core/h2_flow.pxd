# h2_flow.pxd - level 3: flow-control windows of HTTP/2 (RFC 9113 §5.2 and §6.9), in 31 bits, without overflow. Plain C, owns nothing.
#
# Called by: h2_stream, h2_send (windows that the peer grants), h2_session (credit that we grant).
# Invariant of a Credit: window + owed + what was received and is not given back = size. So nothing leaks, whatever a stream's end.

from gateway._core.faults cimport F_H2_WINDOW
from gateway._core.types cimport int32_t, int64_t, uint32_t

cdef enum:
    LARGEST_WINDOW = 0x7fffffff

cdef struct Credit:        # what the peer may send us, on a stream or on the connection
    int32_t window         # bytes that it may still send; below 0 when our settings took away more than was left
    uint32_t owed          # bytes that are done with here and were not given back yet
    uint32_t size          # what the window is when nothing is under way

cdef inline void credit_start(Credit *credit, uint32_t size) noexcept nogil:
    credit.window = <int32_t> size
    credit.owed = 0
    credit.size = size

# The peer sent n bytes, padding included. 0 or -F_H2_WINDOW.
cdef inline int credit_take(Credit *credit, uint32_t n) noexcept nogil:
    if <int64_t> n > credit.window:
        return -F_H2_WINDOW
    credit.window -= <int32_t> n
    return 0

# n of them are done with.
cdef inline void credit_give(Credit *credit, uint32_t n) noexcept nogil:
    credit.owed += n

# What a WINDOW_UPDATE should say now: nothing, 0, until half of the window is owed, so that updates are few and the peer never waits.
cdef inline uint32_t credit_due(Credit *credit) noexcept nogil:
    cdef uint32_t n = credit.owed
    if n == 0 or n < credit.size - (credit.size >> 1):
        return 0
    credit.window += <int32_t> n
    credit.owed = 0
    return n

# The size changes, by our settings or of our own will.
cdef inline void credit_resize(Credit *credit, uint32_t size) noexcept nogil:
    credit.window = <int32_t> (<int64_t> credit.window + size - credit.size)
    credit.size = size

# The peer lets us send n more. 0 or -F_H2_WINDOW.
cdef inline int window_add(int32_t *window, uint32_t n) noexcept nogil:
    cdef int64_t sum = <int64_t> window[0] + n
    if sum > LARGEST_WINDOW:
        return -F_H2_WINDOW
    window[0] = <int32_t> sum
    return 0

# The peer's initial window changed (RFC 9113 §6.9.2): what is left may fall below 0. 0 or -F_H2_WINDOW.
cdef inline int window_shift(int32_t *window, uint32_t before, uint32_t after) noexcept nogil:
    cdef int64_t sum = <int64_t> window[0] + after - before
    if sum > LARGEST_WINDOW or sum < -<int64_t> LARGEST_WINDOW:
        return -F_H2_WINDOW
    window[0] = <int32_t> sum
    return 0
