# seam.pxd - level 5: the abstract classes through which the modules of the path know each other. Owns: nothing by itself.
#
#   Downstream  <->  Flow (an exchange)  <->  Upstream
#
# HTTP/1.1 connections and (later) HTTP/2 streams stand on either side; an exchange never knows which.
# Bytes handed over are borrowed for the call: whoever wants them later copies them.
# A call may end the connection or the exchange it is made on; the caller looks at the state again afterwards.

from gateway._core.headers cimport HeaderBlock
from gateway._core.sys cimport ssize_t
from gateway._core.timers cimport Timer
from gateway._core.types cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum Loss:            # why an attempt came to nothing; exchange.may_retry decides by it
    LOSS_CONNECT = 1       # no connection came up: nothing was sent
    LOSS_CONNECT_TIMEOUT
    LOSS_STALE             # a pooled connection was closed before any byte of an answer
    LOSS_RESET             # a fresh connection was, or the answer's head was cut off
    LOSS_GARBAGE           # the answer was no HTTP; fault says what
    LOSS_TRUNCATED         # the content ended early
    LOSS_TIMEOUT           # backendRequest or request deadline
    LOSS_UNSENT            # the connection broke before any byte of the request was written
    LOSS_TLS               # no TLS connection came up, or not to whom it had to: nothing was sent; the endpoint says why

# Whether an attempt came to nothing before any byte of the request was written.
cdef inline bint is_unsent(int loss) noexcept nogil:
    return loss == LOSS_CONNECT or loss == LOSS_CONNECT_TIMEOUT or loss == LOSS_TLS or loss == LOSS_UNSENT

# The status of the answer to a request whose last attempt ended so, its flag and its detail, which may be there already.
cdef int answer_to(int loss, uint32_t *flag, const char **detail) noexcept nogil

# Whether an answer speaks for its endpoint: an application's own 500 says nothing about the endpoint's health.
cdef inline bint is_good(uint16_t status) noexcept nogil:
    return not 502 <= status <= 504

cdef enum Pull:            # Flow.pull_response
    PULL_EMPTY = -1        # nothing now
    PULL_LOST = -2         # the connection is broken
    PULL_HELD = -3         # the other side has to take something first: upstream was paused
    PULL_NOT = -4          # receive as ever

cdef enum Queued:          # Pollable.queued
    QUEUED_READY = 1       # on the poller's list of what has work without readiness
    QUEUED_FLUSH = 2       # on the list of what has output
    QUEUED_LATER = 4       # on the list of what goes on with the next batch

cdef class Timed:          # whatever owns Timers
    cdef void on_timer(self, Timer *timer) noexcept

cdef class Pollable(Timed):    # whatever owns a descriptor
    cdef int fd            # -1 when closed
    cdef uint32_t serial   # of its registration; events of an earlier one are dropped
    cdef uint8_t queued    # Queued bits
    cdef void on_io(self, uint32_t events) noexcept
    cdef void on_ready(self) noexcept      # called once after poller.push_ready, even when the descriptor is closed by then
    cdef void on_flush(self) noexcept      # called likewise after poller.push_flush
    # Of a client's connection; what else has a descriptor leaves them as they are.
    cdef void drain(self) noexcept         # closes at the next moment at which nobody loses anything by it
    cdef void cut(self) noexcept           # closes at once
    cdef dict describe(self)               # for an operator; None: not a client's connection

cdef class Downstream(Pollable):   # an exchange's client side
    cdef void send_informational(self, HeaderBlock head) noexcept
    # The final head. content says whether content may follow (not for HEAD, 204, 304, 1xx).
    cdef void send_head(self, HeaderBlock head) noexcept
    # 1: enough for now, on_downstream_drained will say when more is welcome.
    cdef bint send_body(self, const uint8_t *p, size_t n) noexcept
    # Nothing follows for now: what the kernel holds back goes out.
    cdef void push(self) noexcept
    # The response is complete; trailers may be None. The exchange does not touch the downstream afterwards.
    cdef void finish(self, HeaderBlock trailers) noexcept
    # The response cannot be completed: the client must see that. Nor touched afterwards.
    cdef void abort(self) noexcept
    cdef void pause_reading(self) noexcept
    cdef void resume_reading(self) noexcept
    # After send_head of a 101: bytes both ways from now on.
    cdef void open_tunnel(self) noexcept

cdef class Upstream(Pollable):     # an attempt's server side: one lease of a connection
    cdef uint64_t sent                 # bytes written in this lease
    # The flow has it from now on, until the answer's end, cancel, or on_upstream_lost.
    cdef void lease(self, Flow flow) noexcept
    cdef void send_request(self, HeaderBlock head, bint has_more) noexcept
    cdef bint send_body(self, const uint8_t *p, size_t n) noexcept
    cdef void push(self) noexcept
    cdef void finish_request(self, HeaderBlock trailers) noexcept
    cdef void pause_reading(self) noexcept
    cdef void resume_reading(self) noexcept
    cdef void open_tunnel(self) noexcept
    # The exchange lets go before the end: the connection cannot be used again.
    cdef void cancel(self) noexcept

cdef class Mux(Pollable):          # a connection to an endpoint that carries many leases at once
    cdef uint32_t room             # leases that it can take now; 0 for ever once it takes no more
    cdef Upstream open_stream(self)        # one of them, with room > 0; None when memory is out
    cdef void retire(self) noexcept        # takes no new lease, and closes when those that it has are over

cdef class Dialer:                 # whoever opens connections to endpoints
    # For whoever waits first in the endpoint's queue (pool.Cluster, pool.Endpoint). Failure is told through the pool, one turn later or more.
    cdef void dial(self, object cluster, object endpoint) noexcept

cdef class Flow(Timed):            # an exchange, as its connections see it
    cdef uint32_t ticket           # its place in a pool's queue; 0 when it waits for nothing
    cdef bint wants_new            # it met a dead pooled connection: only one that nobody has used yet will do
    # from downstream
    cdef void on_request_body(self, const uint8_t *p, size_t n) noexcept
    cdef void on_request_lull(self) noexcept   # more was announced (Plane.more) and is not there yet
    cdef void on_request_end(self, HeaderBlock trailers) noexcept
    cdef void on_request_fault(self, int fault) noexcept
    cdef void on_downstream_drained(self) noexcept
    cdef void on_downstream_lost(self, uint32_t flag) noexcept
    # from the pool
    cdef void on_upstream(self, Upstream upstream) noexcept
    cdef void on_no_upstream(self, int loss) noexcept
    # from the rate limits that it waited for
    cdef void on_limits(self) noexcept
    # from upstream
    cdef void on_informational(self, HeaderBlock head) noexcept
    cdef void on_response_head(self, HeaderBlock head) noexcept
    cdef void on_response_body(self, const uint8_t *p, size_t n) noexcept
    cdef void on_response_lull(self) noexcept
    cdef void on_response_end(self, HeaderBlock trailers) noexcept
    # A tunnel of which much comes: moves what the descriptor has by itself. Bytes, 0 (ended), or a Pull.
    cdef ssize_t pull_response(self, int fd) noexcept
    cdef void on_upstream_drained(self) noexcept
    cdef void on_upstream_lost(self, int loss, int fault) noexcept
    # The block into which the next response head is parsed (cleared).
    cdef HeaderBlock borrow_response(self)
    cdef HeaderBlock borrow_trailers(self)
