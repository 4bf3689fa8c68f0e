# h2_stream.pxd - level 3: one stream of an HTTP/2 connection, the table of them by id, and the order in which they may send.
#
# Owns: a H2Stream owns its three queues; a StreamTable owns its array and the streams in it. Called by: h2_send, h2_session.
# Invariants: a stream stands in the table from its opening to its end, and a pointer to it is good as long; whoever calls out in between
#   finds it again by its id. It stands in a ring exactly while it has content and a window of its own for it.

from cpython.ref cimport PyObject

from gateway._core.buf cimport OutQueue
from gateway._core.h2_flow cimport Credit
from gateway._core.types cimport int32_t, uint8_t, uint32_t, uint64_t

cdef enum:
    URGENCIES = 8              # RFC 9218 §4.1; 3 is what holds when nothing is said
    DEFAULT_URGENCY = 3
    GONE_IDS = 128             # streams that are remembered after their end

cdef uint64_t NO_LENGTH

cdef struct H2Stream:
    H2Stream *next             # in its ring
    H2Stream *prev
    PyObject *owner            # the sink's: a borrowed reference that it looks after
    uint32_t id
    # content that goes out
    int32_t send_window        # what the peer takes; below 0 when its settings took away more than was left
    uint64_t send_left         # bytes that content-length promises still; NO_LENGTH
    OutQueue out               # content that waits for its turn or for a window
    OutQueue tail              # trailers, as a field block, that wait behind it
    uint64_t stall_ms          # when the pace of the peer is looked at; 0: nothing waits
    uint32_t drained           # bytes sent since the last look
    uint8_t *last_flags        # of the stream's last frame in the output, which END_STREAM may still be put on;
    uint32_t last_turn         # in this turn alone, before any of the output is written
    uint8_t burst              # frames of content sent since its turn began
    # content that comes in
    Credit credit
    uint64_t left              # bytes that content-length promises still; NO_LENGTH
    OutQueue held              # content that came while the sink wanted none
    # facts
    uint8_t method             # types.Method of the request
    uint8_t urgency
    bint incremental
    bint has_head              # the final head has come in
    uint8_t informational      # 1xx heads that have come in
    bint is_tunnel             # extended CONNECT (RFC 8441): content is bytes both ways
    bint head_sent             # the final head has gone out
    bint remote_done           # END_STREAM has come in
    bint local_done            # END_STREAM has gone out
    bint ending                # it goes out with the last byte of `out`
    bint paused                # the sink wants no content for now
    bint end_due               # END_STREAM has come in, and the sink does not know yet
    bint has_trailers          # they are in the sink's block, and are delivered with the end
    bint drained_due           # the sink waits for on_drained
    bint ready                 # stands in a ring
    bint refused               # its head was faulty: the sink was asked to answer that, and is given nothing else

cdef struct StreamTable:       # zeroed: empty
    H2Stream **slots           # open addressing by id; a power of two, or 0
    uint32_t size
    uint32_t count
    H2Stream *rings[URGENCIES] # by urgency: the stream whose turn it is
    uint32_t gone[GONE_IDS]    # streams that ended, newest at the cursor's back: id << 1 | whether we reset it
    uint32_t gone_n            # how many ever ended

cdef H2Stream *stream_find(StreamTable *table, uint32_t id) noexcept nogil
# A new stream in the table; NULL when memory is out. The id must not be there.
cdef H2Stream *stream_open(StreamTable *table, uint32_t id) noexcept nogil
# Remembers a stream that never was in the table.
cdef void stream_remember(StreamTable *table, uint32_t id, bint by_us) noexcept nogil
# Takes it out of ring and table and remembers how it ended. It is the caller's to free.
cdef void stream_remove(StreamTable *table, H2Stream *stream, bint by_us) noexcept nogil
cdef void stream_free(H2Stream *stream) noexcept nogil
# Some stream, for ends of everything; NULL when there is none.
cdef H2Stream *stream_any(StreamTable *table) noexcept nogil
cdef void streams_clear(StreamTable *table) noexcept nogil

cdef enum Memory:              # what is known of a stream that is not in the table
    MEMORY_NONE = 0            # it never was there, or not lately
    MEMORY_ENDED = 1           # both sides ended it, or the peer reset it
    MEMORY_RESET = 2           # we reset it: the peer may not know yet
    MEMORY_FULL = 3            # not found, and more have ended than are remembered

cdef int stream_recall(const StreamTable *table, uint32_t id) noexcept nogil

# Into the ring of its urgency, as the last whose turn it is; out of it.
cdef void ring_add(StreamTable *table, H2Stream *stream) noexcept nogil
cdef void ring_remove(StreamTable *table, H2Stream *stream) noexcept nogil
# The stream whose turn it is: of the most urgent ring that has one; NULL when none has anything to send.
cdef H2Stream *ring_head(StreamTable *table) noexcept nogil
# Its turn is over.
cdef void ring_turn(StreamTable *table, H2Stream *stream) noexcept nogil
