# downstream.pxd - level 9: one HTTP/1.1 connection from a client, from its first request to its close, exchange after exchange.
#
# Owns: the descriptor, its TLS, unread input, unwritten output. Borrows: nothing. Holds: the exchange in progress (a reference).
# Called by: poller, exchange (through seam.Downstream). Calls: exchange.
# Invariants: one exchange at a time, in the order of the requests; after a fault nothing further is parsed; a connection that waits
#   for its next request holds neither buffer nor exchange.

from gateway._core.acceptor cimport Acceptor, Address
from gateway._core.buf cimport InBuf, OutQueue
from gateway._core.exchange cimport Exchange
from gateway._core.h1_body cimport BodyDecoder
from gateway._core.h1_parse cimport HeadLimits, HeadParser
from gateway._core.headers cimport HeaderBlock
from gateway._core.plane cimport Plane
from gateway._core.seam cimport Downstream, Pollable
from gateway._core.snapshot cimport LimitsRec
from gateway._core.timers cimport Timer
from gateway._core.tls cimport Tls
from gateway._core.types cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum DownState:
    DOWN_IDLE = 2          # between requests
    DOWN_HEAD = 3          # a request head is arriving
    DOWN_BODY = 4          # request content is arriving (an exchange is on; or none: what is left is read and dropped)
    DOWN_WAIT = 5          # the request is complete, its response is not
    DOWN_TUNNEL = 6
    DOWN_FLUSH = 7         # close when everything is written
    DOWN_LINGER = 8        # our side is shut: read and drop until the client has seen the response
    DOWN_CLOSED = 9

cdef class H1Downstream(Downstream):
    cdef Plane plane
    cdef Acceptor acceptor
    cdef Exchange exchange # None while idle, and while leftovers are dropped
    cdef Tls *tls          # NULL: in the clear
    cdef bytes certificate # what X-Forwarded-Client-Cert says of the client; None: it showed no certificate
    cdef uint64_t promised # id of the listener whose certificate the client accepted; 0: in the clear
    cdef Timer timer
    cdef HeadParser parser
    cdef BodyDecoder decoder
    cdef InBuf input
    cdef OutQueue out
    cdef uint64_t deadline     # monotonic ms; what it means depends on the state
    cdef uint64_t opened_ms
    cdef uint64_t progress     # bytes in or out at the last look of the deadline
    cdef uint64_t moved        # bytes in or out so far
    cdef uint64_t head_ms      # when the head in progress began
    cdef uint32_t requests     # served
    cdef uint32_t drop_budget  # bytes of unwanted content still read
    cdef uint8_t state     # DownState
    cdef uint8_t framing   # of the response under way, as written here
    cdef uint8_t version   # of the request under way
    cdef uint8_t spread    # what its greatest age has of chance
    cdef Address address
    cdef bint readable
    cdef bint ended        # the client has finished sending, says the kernel
    cdef bint eof          # and we have read up to there
    cdef bint paused
    cdef bint close_after  # the response under way is the last one
    cdef bint drained_due
    cdef bint shut
    cdef bint linger       # after the last response: wait until the client has seen it
    cdef bint watched      # output waits, and its pace is looked at
    cdef bint corked       # the last piece was sent as one that is not the last
    cdef bint is_head      # the request under way is HEAD: its response has no content

    @staticmethod
    cdef H1Downstream new(Acceptor acceptor)
    # Begins on a descriptor that was just accepted.
    cdef void open(self, int fd) noexcept
    # Begins where a doorway ends: takes its descriptor over; address, tls, certificate and promised are set. p[0:n] came in already.
    cdef void take_over(self, Pollable door, const uint8_t *p, size_t n) noexcept
    cdef void read(self) noexcept
    cdef size_t feed(self, const uint8_t *p, size_t n) noexcept
    cdef void bind(self, Exchange ex) noexcept
    cdef size_t feed_head(self, const uint8_t *p, size_t n) noexcept
    cdef void become_h2(self, const uint8_t *p, size_t n) noexcept
    cdef size_t feed_body(self, const uint8_t *p, size_t n) noexcept
    cdef void request_complete(self) noexcept
    cdef bint wants_input(self) noexcept
    cdef void watch_half_closed(self) noexcept
    cdef void refuse(self, int status, uint32_t flag, const char *detail) noexcept
    cdef void on_eof(self) noexcept
    cdef void write(self, const uint8_t *p, size_t n) noexcept
    cdef void next_request(self) noexcept
    cdef void end_after_flush(self) noexcept
    cdef void shut_down(self) noexcept
    cdef void lost(self, uint32_t flag) noexcept
    cdef void close(self) noexcept
    cdef void set_deadline(self, uint64_t deadline) noexcept
    cdef void await_request(self) noexcept
    cdef const LimitsRec *limits(self) noexcept
    cdef bint must_close(self, HeaderBlock head) noexcept
