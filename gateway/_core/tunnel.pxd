# tunnel.pxd - level 8: a client's connection that is carried to an endpoint byte for byte: TCP listeners, TLS that is passed through, and
#   what comes out of TLS that ends here.
#
#   RawDownstream (the client's socket)  <->  Tunnel (who, where, how long)  <->  H1Upstream in UP_TUNNEL (the endpoint's socket)
#
# Owns: RawDownstream the descriptor and its TLS, what came before there was anywhere to send it, unwritten output; Tunnel a Binding (a reference: the
#   snapshot stays as it was when the connection began) and the lease of a connection that is never shared and never goes back to the pool.
# Called by: doorway (open, take_over, begin, refuse), upstream and pool (through seam.Flow), the wheel. Calls: pool, upstream.
# Invariants: a connection is dialled for each tunnel; nothing is read from the client before it is up; every tunnel ends in `log`, exactly
#   once; a connection that broke on one side is reset on the other, so that nobody takes a part for the whole.

from gateway._core.acceptor cimport Acceptor, Address
from gateway._core.buf cimport InBuf, OutQueue
from gateway._core.client_hello cimport ClientHello
from gateway._core.plane cimport Binding, Plane
from gateway._core.pool cimport Cluster, Endpoint
from gateway._core.seam cimport Downstream, Flow, Pollable, Upstream
from gateway._core.snapshot cimport BackendRec, LimitsRec, RuleRec
from gateway._core.sys cimport ssize_t
from gateway._core.timers cimport Timer
from gateway._core.tls cimport Tls
from gateway._core.types cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum RawState:
    RAW_WAIT = 1           # for a connection to an endpoint; nothing is read
    RAW_OPEN = 2
    RAW_FLUSH = 3          # over but for the last bytes to the client
    RAW_LINGER = 4         # our side is shut: read and drop until the client has seen the alert
    RAW_CLOSED = 5

cdef enum:
    MAX_TRIED = 8          # endpoints remembered as tried
    MAX_CONNECTS = 3       # endpoints tried when no connection comes up

cdef class RawDownstream(Downstream):
    cdef Plane plane
    cdef Acceptor acceptor
    cdef Tunnel tunnel     # None once it is over
    cdef Timer timer       # FLUSH and LINGER; with TLS also OPEN: memory is given back
    cdef Tls *tls          # NULL in the clear, and where TLS is passed through
    cdef InBuf input       # what the doorway had read; sent first
    cdef OutQueue out
    cdef Address address
    cdef uint64_t opened_ms
    cdef uint64_t moved    # bytes written so far
    cdef uint64_t progress # at the last look of the deadline
    cdef uint8_t state     # RawState
    cdef bint readable
    cdef bint ended        # the client has finished sending, says the kernel
    cdef bint eof          # and we have read up to there
    cdef bint paused
    cdef bint shut         # the endpoint has finished: so do we, once everything is written
    cdef bint drained_due
    cdef uint8_t full      # receives in a row that filled the buffer

    @staticmethod
    cdef RawDownstream new(Acceptor acceptor)
    # An accepted descriptor. False: it could not be watched, and is closed.
    cdef bint open(self, int fd) noexcept
    # The descriptor of a doorway, and what that had read; its TLS is set before. False when memory is out: closed.
    cdef bint take_over(self, Pollable door, const uint8_t *p, size_t n) noexcept
    # Carries the connection to an endpoint of the listener's route for the hello (NULL: TCP). listener: index in the binding in use.
    cdef void begin(self, uint32_t listener, const ClientHello *hello) noexcept
    # Sends a TLS alert and closes.
    cdef void alert(self, int description) noexcept
    cdef void read(self) noexcept
    cdef bint pull(self) noexcept
    cdef void write(self, const uint8_t *p, size_t n) noexcept
    cdef void end_after_flush(self) noexcept
    cdef bint shut_down(self) noexcept
    cdef void start_rest(self) noexcept
    cdef void rest(self) noexcept
    cdef void start_linger(self) noexcept
    cdef void reset(self) noexcept
    cdef void lost(self, uint32_t flag) noexcept
    cdef void close(self) noexcept

cdef class Tunnel(Flow):
    cdef Plane plane
    cdef Binding binding
    cdef RawDownstream down        # None once the client is gone or let go
    cdef Upstream upstream         # an upstream.H1Upstream
    cdef Cluster cluster
    cdef Endpoint endpoint
    cdef const RuleRec *rule       # NULL when no route matched
    cdef const BackendRec *backend # NULL before the first pick
    cdef const LimitsRec *limits
    cdef Timer timer
    cdef uint32_t listener
    cdef uint32_t tried[8]
    cdef uint32_t tried_n
    cdef uint32_t tickets          # the last one
    cdef uint32_t attempts
    cdef uint64_t start_us         # monotonic
    cdef uint64_t upstream_us      # the last attempt: start to connection
    cdef uint64_t attempt_us
    cdef uint64_t active_ms        # last sign of life
    cdef uint64_t sent             # of the upstream, at the last look of the deadline
    cdef uint64_t bytes_in
    cdef uint64_t bytes_out
    cdef size_t pulled_in          # since a pipe was last emptied, by pull_request and pull_response
    cdef size_t pulled_out
    cdef uint32_t flags            # types.Flag bits
    cdef const char *detail        # static name of what went wrong; NULL
    cdef Address address           # of the client
    cdef uint8_t name[256]         # from the ClientHello
    cdef uint16_t name_n
    cdef bint secure               # the client speaks TLS: what fails before its handshake is told by an alert
    cdef bint opened
    cdef bint leased               # counted in the cluster's and the endpoint's active attempts
    cdef bint request_done         # the client has finished sending
    cdef bint upstream_done        # the endpoint has
    cdef bint over

    cdef ssize_t pull_request(self, int fd) noexcept
    cdef void route(self, const ClientHello *hello) noexcept
    cdef void pick(self) noexcept
    cdef void end_attempt(self, bint good) noexcept
    cdef void drop_upstream(self, bint reset) noexcept
    cdef void arm(self) noexcept
    cdef void finish(self) noexcept
    cdef void fail(self, uint32_t flag, const char *detail, int description) noexcept
    cdef void break_off(self, uint32_t flag, const char *detail) noexcept
    cdef void log(self) noexcept
