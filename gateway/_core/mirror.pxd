# mirror.pxd - level 7: a copy of a request for another cluster, whose answer nobody reads (Gateway API's RequestMirror filter).
#
# Owns: a copy of the head, content that waits, the lease of one connection. Held by: plane.mirrors, until it is over; and the exchange that
#   it copies, which hands on content as it comes. Called by: exchange, pool, upstream, wheel, engine (close). Calls: pool, upstream.
# Invariants: nothing that becomes of a mirror is felt by its request: it never pauses anybody, what it holds is bounded, and one that
#   cannot follow is dropped; every mirror ends in `end`, exactly once.

from gateway._core.buf cimport OutQueue
from gateway._core.headers cimport HeaderBlock
from gateway._core.plane cimport Binding, Plane
from gateway._core.pool cimport Cluster, Endpoint
from gateway._core.router cimport Decision
from gateway._core.seam cimport Flow, Upstream
from gateway._core.snapshot cimport RuleRec
from gateway._core.timers cimport Timer
from gateway._core.types cimport Ref, uint8_t, uint32_t, uint64_t

cdef enum:
    MOST_MIRRORS = 1024    # in flight in a worker
    MOST_HELD = 262144     # bytes of content that wait for one mirror
    ANSWER_MS = 15000      # from the end of a request to the end of its answer

cdef class Mirror(Flow):
    cdef Plane plane
    cdef Binding binding
    cdef Cluster cluster
    cdef Endpoint endpoint
    cdef Upstream upstream
    cdef HeaderBlock request
    cdef HeaderBlock trailers      # of the request; None: it has none
    cdef HeaderBlock response      # parsed into, and not read
    cdef HeaderBlock ending        # likewise
    cdef OutQueue held     # content that the connection has not taken
    cdef Timer timer
    cdef Decision decision
    cdef Ref client        # in the head's store
    cdef Ref request_id    # likewise
    cdef uint64_t start_us
    cdef uint64_t bytes_in # of content, held or sent
    cdef uint32_t attempts
    cdef bint done         # all of the request is here
    cdef bint stuck        # the connection wants no more for now
    cdef bint flushing     # what waits is being sent: a connection that asks for more in the midst of it gets it then
    cdef bint sent         # content was handed to a connection: it cannot be sent again
    cdef bint leased       # counted in the cluster's and the endpoint's active attempts
    cdef bint over

    cdef void attempt(self) noexcept
    cdef void flush(self) noexcept
    cdef void take(self, const uint8_t *p, size_t n) noexcept
    cdef void complete(self, HeaderBlock trailers) noexcept
    cdef void lose(self, int loss, uint32_t flag, const char *detail) noexcept
    cdef void end_attempt(self, bint good, bint counts) noexcept
    # flag and detail say what went wrong (counted and logged); 0 and NULL: nothing did.
    cdef void end(self, uint32_t flag, const char *detail) noexcept
    cdef void write_record(self, uint32_t flag, const char *detail) noexcept

# The mirrors of a request, whose head is final: those of the rule that its share falls to. None when there are none.
cdef list start_mirrors(Plane plane, Binding binding, const RuleRec *rule, HeaderBlock request, const Decision *decision, Ref client,
                        Ref request_id)
# The next piece of its content; its end; and no more of it, complete or not.
cdef void feed_mirrors(list mirrors, const uint8_t *p, size_t n) noexcept
cdef void finish_mirrors(list mirrors, HeaderBlock trailers) noexcept
cdef void leave_mirrors(list mirrors) noexcept
