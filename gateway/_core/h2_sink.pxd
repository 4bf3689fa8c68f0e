# h2_sink.pxd - level 3: what a session of HTTP/2 tells whoever owns the connection: an abstract class, as those of seam.
#
# Owns: nothing by itself. Called by: h2_send, h2_session. Overridden by the connections of either side (and by tests).
# Bytes and blocks handed over are borrowed for the call. A call may use the session at will, end streams and the session itself included;
# the session looks at the state again afterwards. Three may not: borrow_block, on_fault and on_output are notes, and change nothing; and
# none may feed it. A stream's pointer is good from on_open, or H2Session.open, until on_gone has returned.

from gateway._core.h2_stream cimport H2Stream
from gateway._core.headers cimport HeaderBlock
from gateway._core.types cimport uint8_t, uint32_t

cdef enum BlockKind:
    BLOCK_REQUEST = 1
    BLOCK_RESPONSE = 2
    BLOCK_TRAILERS = 3

cdef enum Gone:                # how a stream ended
    GONE_DONE = 1              # both sides said all that they had to say
    GONE_OURS = 2              # H2Session.reset
    GONE_RESET = 3             # the peer reset it; code says why
    GONE_UNPROCESSED = 4       # likewise, and it did nothing with the request: it may be sent again (RFC 9113 §8.7)
    GONE_FAULT = 5             # something was wrong with it; fault says what
    GONE_BROKEN = 6            # with the connection as a whole

cdef class H2Sink:
    # ---- streams ----
    # A request begins. False refuses it, unprocessed, and the stream is not heard of again.
    cdef bint on_open(self, H2Stream *stream) noexcept
    # Where the next head or the trailers of the stream are to be put. None: they are read for the sake of compression, and dropped; a head
    # that has no place refuses its stream.
    cdef HeaderBlock borrow_block(self, H2Stream *stream, int kind)
    cdef void on_informational(self, H2Stream *stream, HeaderBlock head) noexcept
    # The head is complete and has passed validate. `ended`: so is the message; on_end is called all the same.
    cdef void on_head(self, H2Stream *stream, HeaderBlock head, bint ended) noexcept
    # A request that is not malformed but not to be served: to be answered with fault_status(fault), or reset. Nothing of it follows.
    cdef void on_refused(self, H2Stream *stream, HeaderBlock head, int fault) noexcept
    cdef void on_data(self, H2Stream *stream, const uint8_t *p, size_t n) noexcept
    # The message is complete; trailers may be None, and are not filtered.
    cdef void on_end(self, H2Stream *stream, HeaderBlock trailers) noexcept
    # send_data had said that it is enough: more is welcome now.
    cdef void on_drained(self, H2Stream *stream) noexcept
    # The stream is over, in either direction. Told once for every stream; what was not complete by then never will be.
    cdef void on_gone(self, H2Stream *stream, int how, uint32_t code, int fault) noexcept
    # ---- the connection ----
    # A fault, for its counter; those of streams too.
    cdef void on_fault(self, int fault) noexcept
    # The peer's settings have changed: how many streams it takes, for one.
    cdef void on_settings(self) noexcept
    # The peer opens or takes no new streams; those of ours above `last` have gone, unprocessed.
    cdef void on_goaway(self, uint32_t last, uint32_t code) noexcept
    cdef void on_pong(self) noexcept
    # There is something in the session's output, or pump would put something there.
    cdef void on_output(self) noexcept
    # No stream is left and none can come: once the output is written, the connection is to be closed.
    cdef void on_over(self) noexcept
