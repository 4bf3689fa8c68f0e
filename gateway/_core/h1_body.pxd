# h1_body.pxd - level 3: where the content of an HTTP/1.x message is, and where it ends. Copies nothing.
# Owns: nothing; the state is a BodyDecoder in the connection. Called by: downstream, upstream.
# Resumable at any byte: what a call has consumed never needs to be shown again.
# Caps (D12): 16 hex digits and 2^63 - 1 for a chunk, 4 KiB for a chunk line, 16 KiB for all extensions of a message, chunk lines of more
# than 64 KiB + 4 times the content, 16 KiB and 100 fields of trailers.

from gateway._core.headers cimport HeaderBlock
from gateway._core.types cimport Span, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum BodyStep:
    BODY_MORE = 0          # all bytes consumed, the content goes on
    BODY_DATA = 1          # *out is a piece of content
    BODY_END = 2           # the message is complete; bytes after *used belong to the next one

cdef struct BodyDecoder:
    uint64_t remaining     # content bytes left of the length or of the current chunk
    uint64_t content       # content bytes seen
    uint64_t overhead      # bytes spent on chunk lines, for the abuse ratio
    uint32_t line          # bytes of the chunk line or trailer section so far
    uint32_t extensions    # bytes of all chunk extensions of this message
    uint8_t framing        # types.Framing
    uint8_t state          # of the chunk machine
    uint8_t digits         # hex digits of the chunk size so far
    uint8_t is_request     # faults of a response are F_RESPONSE to the caller's caller; the machine is the same
    uint32_t trailer_name  # offset in the trailers' store of the name in progress
    uint32_t trailer_value

cdef void h1_body_start(BodyDecoder *decoder, uint8_t framing, uint64_t length, bint is_request) noexcept nogil
# One step over p[0:n]; *used is how many bytes it consumed. BodyStep, or a negated Fault. After BODY_DATA the caller calls again with the
# rest, be it empty: the end of a message is told by BODY_END alone, and again by every later call. Trailers are appended to `trailers`
# (a cleared block, or None: then they are checked and forgotten), checked but not filtered. FRAME_NONE and a length of 0 answer
# BODY_END at once with *used = 0.
cdef int h1_body_decode(BodyDecoder *decoder, HeaderBlock trailers, const uint8_t *p, size_t n, size_t *used, Span *out) noexcept nogil
# The peer closed. 0 when that ends the message properly (FRAME_CLOSE, or already at the end), else -F_BODY_SHORT.
cdef int h1_body_eof(BodyDecoder *decoder) noexcept nogil
