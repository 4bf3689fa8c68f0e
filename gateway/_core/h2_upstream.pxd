# h2_upstream.pxd - level 7: one HTTP/2 connection to an endpoint, and its streams, each of which is an exchange's Upstream.
#
# Owns: the descriptor, its TLS, the session. Holds: a H2ClientStream for each open stream, as the session's `owner` of it.
# Called by: dial (take_over), pool (open_stream, retire), poller, session (through H2ClientSink), exchanges. Calls: flow.on_*, pool.
# Invariants: room + open streams is at most what the peer takes and STREAMS; room is 0 for ever after GOAWAY; a lease ends once, by the
#   answer's end, cancel, or on_upstream_lost.

from gateway._core.buf cimport InBuf
from gateway._core.h2_session cimport H2Session
from gateway._core.h2_sink cimport H2Sink
from gateway._core.h2_stream cimport H2Stream
from gateway._core.plane cimport Plane
from gateway._core.pool cimport Cluster, Endpoint
from gateway._core.seam cimport Flow, Mux, Pollable, Upstream
from gateway._core.timers cimport Timer
from gateway._core.tls cimport ClientTLS, Tls
from gateway._core.types cimport uint8_t, uint32_t, uint64_t

cdef class H2ClientSink(H2Sink):
    cdef H2Upstream connection     # None once it is closed

cdef class H2Upstream(Mux):
    cdef Plane plane
    cdef Cluster cluster
    cdef Endpoint endpoint
    cdef H2Session session
    cdef H2ClientSink sink
    cdef ClientTLS client  # what tls was made by
    cdef Tls *tls          # NULL: in the clear
    cdef Timer timer
    cdef InBuf input       # a frame that is not complete
    cdef uint64_t idle_ms  # since when no stream is open
    cdef uint64_t retire_ms    # when it takes no new streams for its age
    cdef uint64_t heard_ms # when something was last received
    cdef uint32_t streams  # open
    cdef uint32_t served   # in its life
    cdef list deferred     # (H2ClientStream, head) of requests that wait for the peer's settings
    cdef bint readable
    cdef bint ended        # the other side has finished sending, says the kernel
    cdef bint leaving      # takes no new streams
    cdef bint over
    cdef bint pinged       # and not answered yet
    cdef bint closed

    @staticmethod
    cdef H2Upstream new(Plane plane, Cluster cluster, Endpoint endpoint)
    # Begins where a dial ends: tls and client are set; events are what epoll said last.
    cdef void take_over(self, Pollable dial, uint32_t events) noexcept
    cdef void count_room(self) noexcept
    cdef bint feed(self, const uint8_t *p, size_t n) noexcept
    cdef void read(self) noexcept
    cdef void write(self) noexcept
    cdef void close(self) noexcept

cdef class H2ClientStream(Upstream):
    cdef H2Upstream connection
    cdef H2Stream *stream  # NULL once it is gone
    cdef Flow flow         # None before the lease and after its end
    cdef bint has_head     # the answer's final head has come
    cdef bint is_tunnel
    cdef bint asked_websocket
    cdef bytes key         # of the WebSocket that was asked for

    @staticmethod
    cdef H2ClientStream new(H2Upstream connection, H2Stream *stream)
    cdef void end(self, int loss, int fault) noexcept
