# exchange.pxd - level 8: one request and its response, from decoded head to access-log record.
#
# Owns: both head blocks, the trailers, the copy of the content that a retry would send again. Borrows: downstream and upstream while
#   the exchange is on them, the Binding (a reference: the snapshot stays as it was when the request began).
# Called by: downstream (creation, request events), upstream (response events), pool (on_upstream), the wheel (deadlines).
# Invariants: phase only moves forward, but RETRY re-enters PHASE_PICK, and nowhere else; every exchange ends in `log`, exactly once,
#   whoever broke it; after that it is recycled and nobody may hold it.

from gateway._core.buf cimport OutQueue
from gateway._core.cors cimport Cors
from gateway._core.grpc_web cimport GrpcWeb
from gateway._core.headers cimport HeaderBlock
from gateway._core.limit_check cimport LimitCheck
from gateway._core.plane cimport Binding, Plane
from gateway._core.pool cimport Cluster, Endpoint
from gateway._core.router cimport Decision
from gateway._core.seam cimport Downstream, Flow, Upstream
from gateway._core.snapshot cimport BackendRec, LimitsRec, RuleRec
from gateway._core.timers cimport Timer
from gateway._core.types cimport Ref, Span, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum Phase:
    PHASE_HEAD = 0         # the request's head is arriving
    PHASE_ROUTE
    PHASE_FORWARD          # what an intermediary changes in a head; who the client is
    PHASE_LIMITS           # of rates; those of the cluster come in PICK
    PHASE_REQUEST_FILTERS
    PHASE_PICK             # an endpoint
    PHASE_ACQUIRE          # a connection to it
    PHASE_SEND
    PHASE_RESPONSE_HEAD    # waiting for the answer
    PHASE_RESPONSE_FILTERS
    PHASE_STREAM           # the answer is going out
    PHASE_LOG              # over

cdef enum Verdict:
    NEXT = 0               # go on with the following phase
    WAIT = 1               # an event goes on
    DONE = 2               # the exchange is over: replied, aborted, or handed to another phase

cdef enum:
    MAX_TRIED = 8          # endpoints remembered as tried
    MAX_CONNECTS = 3       # endpoints tried when no connection comes up
    MAX_REPLAY = 65536     # bytes of content kept for a retry

cdef class Exchange(Flow):
    # who
    cdef Plane plane
    cdef Binding binding
    cdef Downstream downstream
    cdef Upstream upstream         # the attempt in progress, once it has its connection
    cdef Cluster cluster
    cdef Endpoint endpoint         # of the attempt in progress, from PICK on
    # what
    cdef HeaderBlock request
    cdef HeaderBlock response
    cdef HeaderBlock trailers
    cdef OutQueue replay
    cdef list mirrors              # copies of the request that content is handed to; None: there are none
    cdef LimitCheck check          # None before the first request that a rate limit counts
    # decided
    cdef Decision decision
    cdef const RuleRec *rule       # NULL before ROUTE, and when no route matched
    cdef const BackendRec *backend # NULL before the first PICK
    cdef const LimitsRec *limits
    cdef Cors cors                 # what another origin may ask for, once that is known
    cdef uint32_t port             # index of the port it arrived on, in this binding
    cdef uint32_t port_number
    cdef uint32_t tried[8]
    cdef uint32_t tried_n
    cdef uint64_t kept             # hash of the endpoint that the request's session is with; 0: none
    # facts
    cdef uint8_t peer[64]          # address text of the other end of the client's connection
    cdef uint32_t peer_n
    cdef Ref client                # in the request's store
    cdef Ref request_id            # likewise
    cdef uint64_t start_us         # monotonic
    cdef uint64_t attempt_us       # start of the attempt in progress
    cdef uint64_t upstream_us      # last attempt: start to head
    cdef uint64_t bytes_in
    cdef uint64_t bytes_out
    cdef uint32_t flags            # types.Flag bits
    cdef uint32_t attempts
    cdef uint32_t connects         # of them, those that got no connection
    cdef uint32_t stale            # of them, those that met a dead pooled connection
    cdef const char *detail        # static name of what went wrong; NULL
    # deadlines, monotonic ms; 0: none
    cdef Timer timer
    cdef uint64_t request_deadline
    cdef uint64_t call_deadline    # of a gRPC call: it holds for the whole answer
    cdef uint64_t attempt_deadline
    cdef uint64_t retry_at         # end of a pause; while it is set the exchange counts in cluster.pausing
    cdef uint64_t active_ms        # last sign of life
    # where it stands
    cdef uint8_t phase
    cdef GrpcWeb web               # between the exchange and its downstream, for a request of gRPC-Web; else None
    cdef bint secure               # the client's connection is TLS
    cdef uint64_t promised         # id of the listener whose certificate the client accepted; 0: none
    cdef bytes certificate         # what X-Forwarded-Client-Cert says of the client; None: it showed no certificate
    cdef bint request_done         # the content was read to its end
    cdef bint request_paused
    cdef bint upstream_done        # the answer was read to its end
    cdef bint responded            # a final head went to the client
    cdef bint replayable           # everything of the content that was sent is in `replay`
    cdef bint retried              # counted in the cluster's retry budget
    cdef bint tunnel
    cdef bint leased               # counted in the cluster's and the endpoint's active attempts
    cdef bint over

    @staticmethod
    cdef Exchange new(Plane plane, Downstream downstream)
    # The head is complete and has passed validate: route and go.
    cdef void begin(self) noexcept
    # The head never became valid: answer (when status is not 0) and log.
    cdef void refuse(self, int status, uint32_t flag, const char *detail) noexcept
    cdef bint has_proxy(self) noexcept
    cdef void run(self, uint8_t phase) noexcept
    cdef void take_content(self, const uint8_t *p, size_t n) noexcept
    cdef void reply(self, int status, uint32_t flag, const char *detail) noexcept
    cdef void give_up(self) noexcept
    cdef bint end_call(self) noexcept
    cdef int phase_route(self) noexcept
    cdef int phase_forward(self) noexcept
    cdef int phase_limits(self) noexcept
    cdef int meet_limits(self, uint32_t first, uint32_t n, uint32_t second, uint32_t second_n) noexcept
    cdef int phase_request_filters(self) noexcept
    cdef bint ask_cors(self) noexcept
    cdef int phase_pick(self) noexcept
    cdef int phase_acquire(self) noexcept
    cdef int phase_send(self) noexcept
    cdef int phase_response_filters(self) noexcept
    cdef int phase_stream(self) noexcept
    cdef bint may_retry(self, int loss, uint16_t status) noexcept
    cdef void retry(self, int loss) noexcept
    cdef void end_attempt(self, bint good, bint counts) noexcept
    cdef void end_pause(self) noexcept
    cdef void drop_upstream(self) noexcept
    cdef void arm(self) noexcept
    cdef void log(self) noexcept
    cdef void recycle(self) noexcept
    cdef void send_reply(self, int status) noexcept
    cdef void reply_fault(self, int outcome) noexcept
    cdef void redirect(self, uint16_t status, Ref location) noexcept
    cdef void pause_request(self) noexcept
    cdef bint resend(self) noexcept
    cdef void note_exhaustion(self) noexcept
    cdef void finish_tunnel(self) noexcept
