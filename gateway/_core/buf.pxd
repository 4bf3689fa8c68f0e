# buf.pxd - level 1: bytes that wait: to be written (OutQueue) or to be understood (InBuf).
#
# Owns: the blocks, and a free-list of them for the process (one thread). Called by: downstream, upstream.
# Invariants: an empty queue and an empty buffer hold no memory, so that an idle connection costs its object alone;
#   out_reserve gives room that is contiguous; what was reserved and not committed was never there.
# A queue begins as zeroes.

from gateway._core.sys cimport iovec, ssize_t
from gateway._core.types cimport uint8_t, uint32_t

cdef struct Block:
    Block *next
    uint32_t cap           # bytes of data
    uint32_t start         # first byte not yet written to the socket
    uint32_t end           # one past the last byte
    uint8_t data[8]        # cap bytes, in truth

cdef struct Pipe:          # the kernel's: bytes that go from one socket to another without being seen
    Pipe *next
    int ends[2]            # to read from, to write to
    size_t held

cdef struct OutQueue:
    Block *head
    Block *tail
    size_t size            # bytes from all start to all end, and those in the pipe
    Pipe *pipe             # NULL but while much is moved; what it holds comes after the blocks

cdef uint8_t *out_reserve(OutQueue *queue, size_t n) noexcept nogil      # NULL when memory is out
cdef void out_commit(OutQueue *queue, size_t n) noexcept nogil           # of what was reserved last
cdef int out_append(OutQueue *queue, const uint8_t *p, size_t n) noexcept nogil   # 0, or -1 when memory is out
cdef void out_consume(OutQueue *queue, size_t n) noexcept nogil
cdef void out_clear(OutQueue *queue) noexcept nogil
cdef int out_iov(OutQueue *queue, iovec *iov, int room) noexcept nogil   # entries filled

cdef enum:                 # what out_splice answers instead of a number of bytes
    SPLICE_WAIT = -1       # the socket has nothing; or the pipe, if it holds something, may be full
    SPLICE_LOST = -2       # the connection is broken
    SPLICE_NONE = -3       # there is no pipe to be had

# Moves what the socket has into the queue's pipe, which it gets when it has none. Bytes, 0 (ended), or one of the above. Nothing may be
# appended while the pipe holds something.
cdef ssize_t out_splice(OutQueue *queue, int fd) noexcept nogil
# Gives an empty pipe back.
cdef void out_rest(OutQueue *queue) noexcept nogil

cdef struct InBuf:
    uint8_t *data
    uint32_t start
    uint32_t end
    uint32_t cap

cdef int in_append(InBuf *buf, const uint8_t *p, size_t n) noexcept nogil         # 0, or -1 when memory is out
cdef void in_consume(InBuf *buf, size_t n) noexcept nogil
cdef void in_clear(InBuf *buf) noexcept nogil

# Sends what the queue holds and then p[0:n]; what the socket does not take of p is appended to the queue. More waits for writability
# when the queue is not empty afterwards. Bytes that went out, or -1 when the connection is broken (or memory is out).
# more: the next piece is about to be sent; a segment that is not full may wait for it (the caller sees to it that it does not for long).
cdef Py_ssize_t out_send(int fd, OutQueue *queue, const uint8_t *p, size_t n, bint more) noexcept nogil
