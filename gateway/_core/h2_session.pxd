# h2_session.pxd - level 3: one HTTP/2 connection, RFC 9113, in either role: bytes in, events to a sink, bytes out. No I/O, no clock.
#
# Owns: what H2Sender owns; the decoder's table, a field block in pieces, content that waits for its reader.
# Called by: the connection that reads and writes the socket. Calls: the sink.
# Whoever calls in sets now_ms first. A frame that is not complete is left to the caller (DATA excepted, which is passed on as it comes).
# Invariants: window + owed + what waits = size, for the connection's credit and each stream's, whatever ends when; what waits is bounded
#   by the windows; beyond `held` of a connection it comes out of what all connections of the worker share, and takes credit away from its
#   whole connection, fast streams and slow, when that is used up; after a fault of the connection nothing is read.
#
# A fault of a stream resets it, a fault of the connection ends it (RFC 9113 §5.4). What no peer does by mistake or in a race (a frame after
# its own END_STREAM, an increment of 0, a stream that depends on itself) ends the connection although the RFC would have the stream
# reset: §5.4.1 allows it, and resets that a peer can ask for gain it nothing then (class D2). What makes a message malformed, or a
# stream's window too large, resets its stream, and the ledger counts.

from gateway._core.h2_flow cimport Credit
from gateway._core.h2_frame cimport FieldBlock, FrameHead, Settings
from gateway._core.h2_send cimport H2Sender
from gateway._core.h2_sink cimport H2Sink
from gateway._core.h2_stream cimport H2Stream
from gateway._core.headers cimport HeaderBlock
from gateway._core.hpack cimport HpackDecoder, HpackFound, HpackLimits
from gateway._core.types cimport Span, uint8_t, uint32_t, uint64_t

cdef struct H2Limits:
    uint32_t streams           # that the peer may have open at a time (a server's); told in settings
    HpackLimits head           # of request heads, or response heads
    uint32_t block             # bytes of a field block that came in pieces
    uint32_t pieces            # CONTINUATION frames of one
    uint32_t table             # bytes of the decoder's table
    uint32_t window            # of each stream
    uint32_t connection_window
    uint32_t held              # bytes of waiting content, of all streams, up to which the connection's window is kept open in any case
    uint32_t block_ms          # time in which a field block must be complete, and settings acknowledged
    bint connect               # a server offers extended CONNECT (RFC 8441)

# Bytes of waiting content that the connections of this worker may still have beyond what each may have in any case.
cdef uint64_t h2_spare

# What the reference page proposes.
cdef void h2_limits_start(H2Limits *limits) noexcept nogil

cdef class H2Session(H2Sender):
    cdef H2Limits limits
    cdef HpackDecoder decoder
    cdef FieldBlock block
    cdef HeaderBlock scratch   # for heads that nobody wants; None until there is one
    cdef Credit credit         # of the connection
    cdef uint32_t granted      # window of a new stream, as the peer knows it
    cdef uint32_t held         # bytes that wait in streams
    cdef uint32_t borrowed     # of them, those that came out of h2_spare
    cdef uint32_t withheld     # of the connection's credit, for some others of them
    cdef uint32_t quota        # streams of the peer's that may still begin before `feed` stops short of the next frame; the owner's to set
    cdef uint64_t late         # bytes of content that may still come on streams that we reset: what was left of their windows
    # the DATA frame under way
    cdef uint32_t data_left    # bytes of content
    cdef uint32_t data_padding # bytes after it
    cdef uint32_t data_id      # its stream; 0: nobody's
    cdef bint data_ends
    cdef uint32_t skip_left    # bytes of a frame that means nothing here
    # how far the connection has come
    cdef uint8_t preface_left
    cdef bint has_settings     # the peer's first
    cdef bint acknowledged     # ours
    cdef uint64_t settings_ms  # when ours were sent
    cdef uint64_t ping_ms      # when the PING that is under way was sent; 0: none is
    cdef bint draining         # GOAWAY with the highest number was sent
    cdef bint ping_drains      # when that PING comes back, the peer has seen it

    @staticmethod
    cdef H2Session new(H2Sink sink, bint is_server, const H2Limits *limits, uint64_t now_ms)
    # Consumes what it can of p[0:n]; the number of bytes. The caller keeps the rest.
    cdef size_t feed(self, const uint8_t *p, size_t n) noexcept
    # A stream for a request of ours; NULL when there can be none now. The caller sets `owner`.
    cdef H2Stream *open(self) noexcept
    cdef bint can_open(self) noexcept
    # How many more streams the peer would take.
    cdef uint32_t room(self) noexcept
    # The sink wants no content of this stream for now; and again. What came in between is delivered by resume, before it returns.
    cdef void pause(self, H2Stream *stream) noexcept
    cdef void resume(self, H2Stream *stream) noexcept
    cdef void ping(self) noexcept
    # No further streams: GOAWAY in two steps, so that none is lost that is under way (RFC 9113 §6.8). The second step follows when the
    # peer has answered a PING, or by finish_drain. on_over comes when the last stream is gone.
    cdef void drain(self) noexcept
    cdef void finish_drain(self) noexcept
    # Deadlines: of a block that is not finished, of settings that are not acknowledged, of content that the peer does not take. When to
    # call again, at the latest; 0: nothing is due.
    cdef uint64_t tick(self, uint64_t now_ms) noexcept
    # The socket is gone: on_gone for every stream, and the sink is let go.
    cdef void close(self) noexcept
    # ---- its own ----
    cdef void start(self) noexcept
    cdef size_t on_frame(self, const FrameHead *frame, const uint8_t *payload, size_t n) noexcept
    cdef bint is_idle(self, uint32_t id) noexcept
    cdef bint is_late(self, uint32_t id) noexcept
    cdef bint count_late(self) noexcept
    cdef uint32_t most_streams(self) noexcept
    cdef void begin_data(self, const FrameHead *frame, uint32_t padding) noexcept
    cdef size_t feed_data(self, const uint8_t *p, size_t n) noexcept
    cdef void end_data(self) noexcept
    cdef void take_content(self, const uint8_t *p, size_t n) noexcept
    cdef void deliver(self, H2Stream *stream, const uint8_t *p, size_t n) noexcept
    cdef uint32_t let_go(self, uint32_t n) noexcept
    cdef void give_back(self, uint32_t n) noexcept
    cdef void give_stream(self, H2Stream *stream, uint32_t n) noexcept
    cdef void end_remote(self, H2Stream *stream) noexcept
    cdef void deliver_end(self, H2Stream *stream) noexcept
    cdef void on_headers(self, const FrameHead *frame, const uint8_t *payload) noexcept
    cdef void on_continuation(self, const FrameHead *frame, const uint8_t *payload) noexcept
    cdef void on_block(self, uint32_t id, uint8_t flags, Span block) noexcept
    cdef bint decode(self, HeaderBlock head, Span block, const HpackLimits *limits, uint8_t allowed, HpackFound *found,
                     int *answer) noexcept
    cdef void discard(self, Span block) noexcept
    cdef void on_request(self, uint32_t id, bint ended, Span block) noexcept
    cdef void on_response(self, H2Stream *stream, bint ended, Span block) noexcept
    cdef void on_trailers(self, H2Stream *stream, bint ended, Span block) noexcept
    cdef void refuse(self, uint32_t id, Span block) noexcept
    cdef void on_rst(self, uint32_t id, uint32_t code) noexcept
    cdef void on_window(self, uint32_t id, uint32_t n) noexcept
    cdef void on_settings(self, const FrameHead *frame, const uint8_t *payload) noexcept
    cdef void on_acknowledged(self) noexcept
    cdef void on_ping(self, const FrameHead *frame, const uint8_t *payload) noexcept
    cdef void on_goaway(self, const uint8_t *payload) noexcept
    cdef void on_priority(self, const FrameHead *frame, const uint8_t *payload) noexcept
