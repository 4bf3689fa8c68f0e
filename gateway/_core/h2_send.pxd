# h2_send.pxd - level 3: the sending half of an HTTP/2 connection, in either role: heads, content by turns and by windows, resets.
#
# Owns: the output queue, the encoder's table, the streams, the ledger. Borrows: the sink (a reference, dropped when the session closes).
# Called by: h2_session (its receiving half, which is this class's heir), the sink's owner, which writes `out` to the socket.
# Whoever writes the output calls pump before and on_written (or on_part_written alone) after, always: in between, END_STREAM may be put on a frame that lies there.
# Invariants: nothing is sent beyond a window; `out` holds no more than PUMP_MARK and one frame of content, and heads and control frames
#   beside it; content of a stream goes out in order, that of several by turns, the most urgent first; once dead, nothing is queued.

from gateway._core.buf cimport OutQueue
from gateway._core.h2_frame cimport Settings
from gateway._core.h2_ledger cimport Ledger
from gateway._core.h2_sink cimport H2Sink
from gateway._core.h2_stream cimport H2Stream, StreamTable
from gateway._core.headers cimport HeaderBlock
from gateway._core.hpack_encode cimport HpackEncoder
from gateway._core.types cimport int32_t, uint8_t, uint32_t, uint64_t

cdef enum:
    PUMP_MARK = 65536          # output beyond which content waits with its stream: what is urgent later is not far behind then
    STREAM_HIGH = 65536        # waiting content of a stream beyond which its sender pauses
    STREAM_LOW = 16384         # and below which it goes on
    QUANTUM = 16384            # bytes of content that a stream sends in its turn
    STALL_MS = 30000           # a peer that lets content wait must take STALL_BYTES of it, or everything, in this time (class D9)
    STALL_BYTES = 16384

cdef class H2Sender:
    cdef H2Sink sink           # one that does nothing when closed
    cdef OutQueue out
    cdef StreamTable streams
    cdef HpackEncoder encoder
    cdef Ledger ledger
    cdef Settings remote       # the peer's
    cdef uint64_t now_ms       # monotonic; whoever calls in sets it first
    cdef int32_t send_window   # of the connection
    cdef uint32_t turn         # counts writes of the output
    cdef uint32_t last_id      # highest stream that the peer opened and that was taken
    cdef uint32_t next_id      # of the next stream that we open
    cdef bint is_server
    cdef bint dead             # the connection is broken or closed: nothing is read or queued any more
    cdef bint closing          # GOAWAY was sent with the last stream's number, or received: no stream begins any more
    cdef bint over_told

    # The head of a response, 1xx included, as far as HTTP/2 has one: a 101 is none. It never ends the stream, also where no content can
    # follow: finish does, and puts END_STREAM on the head when that still lies in the output.
    cdef void send_response(self, H2Stream *stream, HeaderBlock head) noexcept
    # The head of a request on a stream that was opened. `secure`: the :scheme is https.
    cdef void send_request(self, H2Stream *stream, HeaderBlock head, bint has_more, bint secure) noexcept
    # 1: enough for now, on_drained will say when more is welcome.
    cdef bint send_data(self, H2Stream *stream, const uint8_t *p, size_t n) noexcept
    # The message is complete; trailers may be None. A server's stream is over with it, but for a tunnel; the sink hears on_gone, possibly
    # at once.
    cdef void finish(self, H2Stream *stream, HeaderBlock trailers) noexcept
    # The message cannot be completed, or is not wanted any more: on_gone, at once.
    cdef void reset(self, H2Stream *stream, uint32_t code) noexcept
    # A Priority field (RFC 9218), of a request or of its response, says when the stream's content is due; what it does not name stays.
    cdef void prioritise(self, H2Stream *stream, const uint8_t *p, size_t n) noexcept
    # Moves waiting content into the output, as far as windows and PUMP_MARK let it. To be called before the output is written.
    cdef void pump(self) noexcept
    # How much of n bytes of content may go out at once, behind what `out` holds, in frames of QUANTUM bytes and one of the rest. It counts as
    # sent, and the caller sends it. 0: nothing may, or it has to wait for its turn.
    cdef size_t take_direct(self, H2Stream *stream, size_t n) noexcept
    # Output was written while content is being given, and nobody may be called: on_written follows at a better time.
    cdef void on_part_written(self) noexcept
    # Output was written: on_drained and on_over come from here.
    cdef void on_written(self) noexcept
    # A fault of the stream: reset, on_gone. A fault of the connection: GOAWAY, on_gone for every stream, on_over.
    cdef void fail_stream(self, H2Stream *stream, int fault) noexcept
    cdef void fail(self, int fault) noexcept
    # ---- for the receiving half ----
    cdef bint put_frame(self, uint8_t type, uint8_t flags, uint32_t id, const uint8_t *payload, size_t n) noexcept
    cdef void put_reset(self, uint32_t id, uint32_t code) noexcept
    cdef void put_goaway(self, uint32_t last, uint32_t code) noexcept
    cdef bint answered(self, int verdict) noexcept
    cdef void drop(self, H2Stream *stream, bint by_us, int how, uint32_t code, int fault) noexcept
    cdef void wake(self, H2Stream *stream) noexcept
    cdef void end_if_over(self) noexcept
    # ---- its own ----
    cdef bint put_block(self, H2Stream *stream, HeaderBlock head, int kind, bint ended, bint option) noexcept
    cdef bint put_pieces(self, H2Stream *stream, HeaderBlock head, int kind, bint ended, bint option, size_t bound) noexcept
    cdef size_t encode(self, HpackEncoder *encoder, uint8_t *out, HeaderBlock head, int kind, bint option) noexcept
    cdef bint put_content(self, H2Stream *stream, const uint8_t *p, size_t n) noexcept
    cdef void emit(self, H2Stream *stream) noexcept
    cdef void put_tail(self, H2Stream *stream, HeaderBlock trailers) noexcept
    cdef void end_local(self, H2Stream *stream) noexcept
    cdef void put_last_words(self, uint32_t code) noexcept
    cdef void release(self, H2Stream *stream, bint by_us) noexcept
