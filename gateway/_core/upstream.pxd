# upstream.pxd - level 7: one HTTP/1.1 connection to an endpoint, from its first lease to its end.
#
# Owns: the descriptor, its TLS, unread input, unwritten output. Borrows: the flow (an exchange) of the lease in progress.
# Called by: exchange (through seam.Upstream), pool (cancel), poller. Calls: flow.on_*, pool.
# Invariants: while UP_BUSY flow is set, in every other state it is None; a connection goes back to the pool only when the request was
#   sent to its end, the response was read to its end, nothing followed it, and both sides agreed to keep it.

from gateway._core.h1_body cimport BodyDecoder
from gateway._core.h1_parse cimport HeadParser
from gateway._core.buf cimport InBuf, OutQueue
from gateway._core.headers cimport HeaderBlock
from gateway._core.plane cimport Plane
from gateway._core.pool cimport Cluster, Endpoint
from gateway._core.seam cimport Flow, Pollable, Upstream
from gateway._core.timers cimport Timer
from gateway._core.tls cimport ClientTLS, Tls
from gateway._core.types cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum UpState:
    UP_IDLE = 2
    UP_HEAD = 3            # leased, response head not complete
    UP_BODY = 4            # leased, response content under way
    UP_TUNNEL = 5          # leased for good
    UP_FLUSH = 6           # a tunnel that is over but for its last bytes to the origin; no flow any more
    UP_CLOSED = 7

cdef class H1Upstream(Upstream):
    cdef Plane plane
    cdef Cluster cluster
    cdef Endpoint endpoint
    cdef Flow flow
    cdef ClientTLS client  # what tls was made by
    cdef Tls *tls          # NULL: in the clear
    cdef Timer timer       # idle deadline in the pool
    cdef HeadParser parser
    cdef BodyDecoder decoder
    cdef InBuf input
    cdef OutQueue out
    cdef uint64_t idle_until   # monotonic ms
    cdef uint32_t leases   # how many it has served; > 1: it came from the pool
    cdef uint8_t state     # UpState
    cdef uint8_t method    # of the request: decides the response's framing
    cdef uint8_t framing   # of the request's content as written here
    cdef uint8_t informational  # 1xx seen in this lease
    cdef bint readable     # the kernel may hold more input
    cdef bint ended        # the kernel said that the peer has finished sending
    cdef bint paused       # the exchange wants no more content for now
    cdef bint request_done
    cdef bint keep         # the response allows another lease
    cdef bint asked_upgrade
    cdef bint got_bytes    # any byte of a response in this lease
    cdef bint drained_due  # the flow was told to pause and waits for on_upstream_drained
    cdef bint broken       # writing failed; what the origin said before is still read
    cdef bint corked       # the last piece was sent as one that is not the last
    cdef bint shut         # our side was shut down (tunnel)
    cdef uint8_t full      # receives in a row that filled the buffer (tunnel)

    @staticmethod
    cdef H1Upstream new(Plane plane, Cluster cluster, Endpoint endpoint)
    # Begins where a dial ends: tls and client are set; events are what epoll said last.
    cdef void take_over(self, Pollable dial, uint32_t events) noexcept
    cdef void read(self) noexcept
    cdef bint pull(self) noexcept
    cdef size_t feed(self, const uint8_t *p, size_t n) noexcept
    cdef size_t feed_head(self, const uint8_t *p, size_t n) noexcept
    cdef size_t feed_body(self, const uint8_t *p, size_t n) noexcept
    cdef void on_head(self, HeaderBlock head) noexcept
    cdef void on_end(self, bint extra) noexcept
    cdef void on_eof(self) noexcept
    cdef void keep_session(self) noexcept
    cdef void write(self, const uint8_t *p, size_t n) noexcept
    cdef void lost(self, int loss, int fault) noexcept
    cdef void shut_down(self) noexcept
    cdef void idle(self) noexcept
    cdef int loss_now(self) noexcept
