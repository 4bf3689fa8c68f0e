# plane.pxd - level 5: what all connections and exchanges of one worker share.
#
# Owns: poller, wheel, counters, log, the read buffer, the Binding in use, spare exchanges. Borrowed by: everything on the path.
# Invariants: one Plane per worker; `binding` changes between two turns only; an exchange keeps the Binding that it began with.

from gateway._core.counters cimport Counters
from gateway._core.poller cimport Poller
from gateway._core.record cimport LogBuffer
from gateway._core.seam cimport Dialer, Pollable
from gateway._core.snapshot cimport Snapshot
from gateway._core.timers cimport Wheel
from gateway._core.types cimport Span, uint8_t, uint32_t, uint64_t

cdef enum:
    SCRATCH = 65472        # bytes of the one read buffer: what one segment over loopback carries; with HIGH_WATER it bounds what a
                           # connection can hold
    HIGH_WATER = 65536     # queued output beyond which the other side stops reading
    LOW_WATER = 16384      # and below which it goes on
    MIN_RATE = 240         # bytes per second of request content that a client has to send, seen over the body timeout
    DIRECT = 4096          # content from this size on is written from where it lies; smaller pieces are gathered

cdef class Binding:        # a snapshot and what it means in this worker
    cdef Snapshot snapshot
    cdef list clusters     # pool.Cluster by cluster index

cdef class Plane:
    cdef Poller poller
    cdef Wheel wheel
    cdef Dialer dialer     # given by the engine
    cdef Pollable limiter  # limit_check.Limiter, given by the engine
    cdef Counters counters
    cdef LogBuffer log
    cdef Binding binding   # None before the first snapshot
    cdef uint8_t *scratch  # SCRATCH bytes; its content lives until the next recv of any connection
    cdef uint64_t random   # state of the generator for ids, jitter and filters' shares
    cdef uint8_t node[64]  # pseudonym in Via
    cdef uint32_t node_n
    cdef bint more         # the piece of content in hand is not the last: the kernel may wait for its successor to fill a segment
    cdef bint draining     # every response closes its connection
    cdef list spare        # exchanges to use again
    cdef set mirrors       # copies of requests in flight
    cdef uint32_t downstreams  # open client connections
    cdef dict servers      # listener id -> tls.ServerTLS
    cdef object read_certificate   # DER of a client's certificate -> X-Forwarded-Client-Cert; None: not asked for

    @staticmethod
    cdef Plane new(Counters counters, LogBuffer log, bytes node)
    cdef uint64_t next_random(self) noexcept nogil
    cdef inline Span borrow_node(self) noexcept nogil:
        cdef Span span
        span.p = self.node
        span.n = self.node_n
        return span
