# h1_encode.pxd - level 3: a HeaderBlock into the bytes of an HTTP/1.1 head; chunk framing. Copies into the caller's buffer or queue.
# Owns: nothing. Called by: downstream, upstream.
# What is written: start line from the block's parts; host first (requests); then each field that is neither FIELD_DROP nor FIELD_HOP,
# in order, without content-length, host and transfer-encoding; then the framing that the caller names, and the connection option.

from gateway._core.buf cimport OutQueue
from gateway._core.headers cimport HeaderBlock
from gateway._core.types cimport uint8_t, uint64_t

cdef enum ConnectionOption:
    CONN_NONE = 0          # no Connection field: HTTP/1.1's default
    CONN_CLOSE = 1         # Connection: close
    CONN_KEEP_ALIVE = 2    # Connection: keep-alive, for an HTTP/1.0 client that asked
    CONN_UPGRADE = 3       # Connection: upgrade, with the Upgrade field(s) of the block written although they are hop-by-hop

# Bytes that encoding may need at most.
cdef size_t h1_head_bound(HeaderBlock head) noexcept nogil
# METHOD path[?query] HTTP/1.1 ...; bytes written. A request with FRAME_NONE and method POST, PUT or PATCH gets content-length: 0.
# te_trailers: TE: trailers is forwarded (with Connection: TE).
cdef size_t h1_encode_request(uint8_t *out, HeaderBlock head, uint8_t framing, uint64_t length, int connection,
                              bint te_trailers) noexcept nogil
# HTTP/1.1 status reason ...; the standard reason where the block has none. FRAME_LENGTH writes content-length. FRAME_NONE writes
# no framing (1xx, 204, 304); with keep_length a content-length field of the block is kept as it is (answers to HEAD, and 304).
cdef size_t h1_encode_response(uint8_t *out, HeaderBlock head, uint8_t framing, uint64_t length, int connection,
                               bint keep_length) noexcept nogil
# "1f40\r\n": at most 18 bytes. The caller writes the data and CRLF after it.
cdef size_t h1_encode_chunk(uint8_t *out, uint64_t n) noexcept nogil
# "0\r\n" trailer fields "\r\n"; trailers may be None. Bound: h1_head_bound(trailers) + 5.
cdef size_t h1_encode_last_chunk(uint8_t *out, HeaderBlock trailers) noexcept nogil
# The same two at the end of a queue, for both sides of the path. 0, or -1 when memory is out.
cdef int h1_queue_chunk(OutQueue *queue, uint64_t n) noexcept nogil
cdef int h1_queue_last_chunk(OutQueue *queue, HeaderBlock trailers) noexcept nogil
# Standard reason phrase of a status; "" when it has none.
cdef const char *reason_of(int status) noexcept nogil
