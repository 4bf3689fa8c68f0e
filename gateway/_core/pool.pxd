# pool.pxd - level 6: clusters, their endpoints, and the leases of pooled connections.
#
# Owns: idle connections (a reference each), the queue of exchanges that wait for one, the balancer. Outlives snapshots: a cluster that
#   a new snapshot still names keeps its connections. Called by: exchange (pick, acquire), upstream (give_back, on_dialed, on_gone), engine.
# Invariants: open = idle + leased + dialing and never exceeds max_connections; waiting counts live tickets only; a lease ends in
#   exactly one of give_back and on_gone.

from gateway._core.balance cimport Balancer
from gateway._core.counters cimport ClusterSeries
from gateway._core.plane cimport Plane
from gateway._core.seam cimport Flow, Mux, Upstream
from gateway._core.snapshot cimport ClusterRec, Snapshot
from gateway._core.sys cimport sockaddr_storage, socklen_t
from gateway._core.tls cimport ClientTLS, SSL_SESSION
from gateway._core.types cimport Span, uint8_t, uint32_t, uint64_t

cdef enum:
    PROTOCOL_HTTP2 = 1     # ClusterRec.protocol

cdef enum Acquired:
    ACQUIRED_IDLE = 1      # the answer is a connection ready to be used
    ACQUIRED_DIAL = 2      # the caller is queued, and a new connection is to be dialled for it
    ACQUIRED_WAIT = 3      # queued behind others
    ACQUIRED_FULL = 4      # the queue is full

# A number for a place in a queue; never 0.
cdef uint32_t next_ticket() noexcept nogil

cdef class Endpoint:
    cdef sockaddr_storage address
    cdef socklen_t address_n
    cdef bytes text        # "10.0.0.1:80", "[::1]:80" or "unix:/path", for logs and describe
    cdef Cluster cluster   # None once the endpoint has been replaced
    cdef uint32_t index    # in the balancer
    cdef uint32_t open     # connections
    cdef uint32_t dialing
    cdef uint32_t waiting  # live tickets in queue
    cdef list idle         # Upstreams, the last used last
    cdef bint is_mux       # its connections carry many leases at once; none idles, and they stand in muxes
    cdef list muxes
    cdef SSL_SESSION *session  # of the last TLS connection, to resume; NULL: none
    cdef const char *trouble   # why the last handshake failed, or what the last dial waited for too long; static text
    cdef object queue      # deque of (Flow, ticket)

    @staticmethod
    cdef Endpoint new(Cluster cluster, bytes host, uint32_t port)
    cdef inline Span borrow_text(self) noexcept:
        cdef Span span
        span.p = <const uint8_t *> <const char *> self.text
        span.n = <size_t> len(self.text)
        return span

cdef class Cluster:
    cdef Plane plane
    cdef uint64_t id
    cdef bytes name
    cdef uint32_t connect_timeout   # ms
    cdef uint32_t idle_timeout      # ms
    cdef uint32_t max_connections   # per endpoint
    cdef uint32_t max_pending
    cdef uint32_t key_kind
    cdef bytes key_name
    cdef uint32_t protocol # ClusterRec.protocol
    cdef bint wants_tls
    cdef ClientTLS tls     # None: in the clear, or, with wants_tls, not given yet: nothing is sent then
    cdef Balancer balancer
    cdef list endpoints    # Endpoint by balancer index
    cdef ClusterSeries *series
    cdef uint32_t active   # attempts in flight
    cdef uint32_t retrying # of them, retries: the retry budget
    cdef uint32_t pausing  # exchanges that will try again after a pause

    cdef inline Span borrow_name(self) noexcept:
        cdef Span span
        span.p = <const uint8_t *> <const char *> self.name
        span.n = <size_t> len(self.name)
        return span
    cdef inline Span borrow_key_name(self) noexcept:
        cdef Span span
        span.p = <const uint8_t *> <const char *> self.key_name
        span.n = <size_t> len(self.key_name)
        return span
    @staticmethod
    cdef Cluster new(Plane plane, uint64_t id)
    cdef void configure(self, Snapshot snapshot, const ClusterRec *record) noexcept
    cdef int set_endpoints(self, object endpoints) except -1
    # Connections and sessions that were made under another identity are not used any more.
    cdef void set_tls(self, ClientTLS tls) noexcept
    cdef bint is_same_tls(self, ClientTLS tls) noexcept
    cdef void close_idle(self, Endpoint endpoint) noexcept
    cdef void retire(self, Endpoint endpoint) noexcept
    cdef Flow next_waiting(self, Endpoint endpoint, bint is_new)
    cdef Endpoint pick(self, bint has_key, uint64_t key, const uint32_t *tried, uint32_t tried_n)
    # The endpoint whose address has this hash, when it can be used and was not tried; else, and for 0, as pick says.
    cdef Endpoint keep(self, uint64_t hash, bint has_key, uint64_t key, const uint32_t *tried, uint32_t tried_n)
    # A connection of the endpoint for the flow; *verdict says what happened. With ACQUIRED_WAIT and ACQUIRED_DIAL the flow holds
    # `ticket` and is called back (on_upstream, on_no_upstream) unless it gives the ticket up by leave().
    cdef Upstream acquire(self, Endpoint endpoint, Flow flow, uint32_t ticket, int *verdict)
    cdef Upstream acquire_stream(self, Endpoint endpoint, int *verdict)
    cdef void leave(self, Endpoint endpoint) noexcept
    # A leased or freshly dialled connection is free: the next waiting flow takes it, else it idles (1) or is not wanted (0: close it).
    cdef bint give_back(self, Endpoint endpoint, Upstream upstream, bint is_new) noexcept
    # A connection is gone, leased or idle; the caller dials again when is_hungry says so.
    cdef void on_gone(self, Endpoint endpoint, Upstream upstream, bint was_idle) noexcept
    cdef bint is_hungry(self, Endpoint endpoint) noexcept
    # A connection that carries many leases has come up; has room again; is gone.
    cdef void on_mux(self, Endpoint endpoint, Mux mux) noexcept
    cdef void on_room(self, Endpoint endpoint, Mux mux) noexcept
    cdef void on_mux_gone(self, Endpoint endpoint, Mux mux) noexcept
    # A dial came to nothing: the first waiting flow is told.
    cdef void on_dial_failed(self, Endpoint endpoint, int loss) noexcept
    # An attempt has its connection to the endpoint, and is over: where it is counted. Both are said once an attempt.
    cdef void begin_attempt(self, Endpoint endpoint) noexcept
    cdef void end_attempt(self, Endpoint endpoint, bint good) noexcept
    cdef void on_outcome(self, Endpoint endpoint, bint good) noexcept
    # Whether any exchange is on it, or will be.
    cdef bint is_used(self) noexcept
    cdef void close(self) noexcept
