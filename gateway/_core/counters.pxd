# counters.pxd - level 4: facts out, as plain stores into a block of u64 words that the supervisor reads at scrape time.
#
# Owns: nothing; the block is shared memory that the supervisor made. Called by: everything above. Read by: observe/metrics.
# Invariants: one writer; a word only grows, except gauges; a series is claimed by writing its key before its state word, and freed by
#   writing its state word before its counters, so a reader that finds the same state word before and after copying has a whole series.
#   Series 0 of each kind is the overflow series "_other". A pointer to a series stays good until retire frees it.
#
#   | header words (HEADER_*) | scalar words (Scalar) | fault words (by Fault) | cluster series | limit series | request series |

from gateway._core.types cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:                 # header words
    HEADER_MAGIC = 0       # written last, when the block is ready
    HEADER_LAYOUT = 1      # version and all sizes in one number: another version of the gateway refuses the block
    HEADER_BLOCK = 2       # random; a block that was zeroed and used again is another one to the reader, which keeps sums
    HEADER_WORDS = 8
    CLUSTERS_N = 512       # budgets of series, the overflow series included
    SERIES_N = 2048
    LIMITS_N = 256

cdef enum:                 # low byte of a state word; the rest counts how often the series was claimed
    STATE_FREE = 0
    STATE_USED = 1
    STATE_OTHER = 2        # the overflow series "_other"

cdef enum:
    WINDOW_MS = 30000      # a longest turn shows for one to two of these: a scrape every 30 s misses none

cdef enum Scalar:          # one word each; names, help and kind stand in counters.SCALARS in the same order
    S_CONNECTIONS_ACCEPTED = 0
    S_CONNECTIONS_CLOSED
    S_CONNECTIONS_REFUSED        # over a limit, or no descriptors
    S_CONNECTIONS_ACTIVE         # gauge
    S_REQUESTS                   # heads accepted
    S_REQUESTS_ACTIVE            # gauge
    S_DEADLINE_HEAD              # connections closed because a head took too long
    S_DEADLINE_BODY
    S_DEADLINE_IDLE
    S_UPGRADES                   # tunnels opened
    S_TUNNELS                    # connections carried as they are: TCP, TLS passthrough
    S_TUNNELS_FAILED             # of these, those that found no route or no endpoint
    S_TUNNELS_ACTIVE             # gauge; those after an upgrade too
    S_BYTES_IN                   # read from downstream
    S_BYTES_OUT                  # written to downstream
    S_UPSTREAM_BYTES_IN
    S_UPSTREAM_BYTES_OUT
    S_BUGS                       # uncertain invariants that did not hold
    S_LOG_DROPPED                # access-log records lost because the writer could not follow
    S_LOOP_LAG_US                # gauge: longest turn of the last 30 to 60 seconds
    S_SWAP_US                    # gauge: what the last snapshot swap cost
    S_REVISION                   # gauge
    S_SNAPSHOT_REFUSED
    S_SERIES_OTHER               # requests counted in the overflow series
    S_TLS_HANDSHAKES             # with clients, complete
    S_TLS_RESUMED                # of them, those that resumed a session
    S_TLS_UNVERIFIED             # of them, a client that was let in without a certificate that verifies: mode insecureFallback
    S_TLS_FAILURES               # that came to nothing
    S_TLS_NO_NAME                # of them, no listener has the name that the client asked for
    S_TLS_PLAIN                  # of them, a request without TLS on a port that has it
    S_TLS_CLIENT_HANDSHAKES      # with endpoints, complete
    S_TLS_CLIENT_FAILURES
    S_MIRRORS                    # copies of requests begun
    S_MIRRORS_DROPPED            # of them, those given up: too slow, too many, or the request was cut off
    S_MIRRORS_FAILED             # of them, those that their cluster did not take
    S_MIRRORS_ACTIVE             # gauge
    S_LIMIT_WAITS                # requests that waited for the store of rate limits
    S_LIMIT_WAITING              # gauge
    S_LIMIT_FALLBACKS            # limits decided without the store because it did not answer
    S_LIMIT_EVICTIONS            # keys that lost their place in the table while they mattered
    SCALARS_N

cdef enum:
    DURATION_BUCKETS = 14  # upper bounds in counters.DURATION_BOUNDS_US, plus +Inf in the last
    SIZE_BUCKETS = 8       # upper bounds in counters.SIZE_BOUNDS, plus +Inf in the last

# The first bucket of each distribution is not kept: it is the count without the other buckets. A fast, small request thus touches one
# cache line of its series, the first, and a gateway that serves thousands of series misses one line instead of four.
cdef struct RequestSeries:  # all words u64, 64-byte lines; one for each (listener, route, cluster, method, code)
    uint64_t state         # STATE_*
    uint64_t listener      # ids of snapshot names; 0 = none
    uint64_t route
    uint64_t cluster
    uint64_t method_code   # method << 16 | code
    uint64_t count
    uint64_t duration_us   # sum
    uint64_t bytes_out     # sum of response content
    uint64_t bytes_in      # sum of request content
    uint64_t duration[13]  # from the second bucket on
    uint64_t size_in[7]
    uint64_t size_out[7]
    uint64_t unused[4]

cdef struct ClusterSeries:
    uint64_t state
    uint64_t cluster
    uint64_t connects          # connections opened
    uint64_t connect_failures
    uint64_t connect_timeouts
    uint64_t requests          # attempts sent
    uint64_t failures          # attempts that ended in an upstream failure
    uint64_t retries
    uint64_t stale             # pooled connections found dead, retried
    uint64_t ejections
    uint64_t overflows         # refused because the queue was full
    uint64_t no_endpoint       # nothing usable
    uint64_t active            # gauge: attempts in flight
    uint64_t idle              # gauge: idle connections
    uint64_t connections       # gauge: open connections
    uint64_t pending           # gauge: waiting for a connection
    uint64_t ejected           # gauge: endpoints out

cdef enum Decision:        # what a rate limit came to
    DECISION_ALLOWED = 0
    DECISION_DENIED
    DECISION_SHADOW        # would have been denied
    DECISIONS

cdef enum Source:          # and by whose word
    SOURCE_LEASE = 0       # tokens that the store gave ahead
    SOURCE_STORE
    SOURCE_DENY_CACHE      # an earlier denial of the store
    SOURCE_LOCAL
    SOURCE_FALLBACK        # the store did not answer
    SOURCES
    SOURCE_NONE            # counted already

cdef struct LimitSeries:
    uint64_t state
    uint64_t limit         # id
    uint64_t decisions[15] # Decision * SOURCES + Source

cdef struct Claims:        # which series of one kind are taken, kept in the process
    uint32_t *slots        # open addressing over the keys: index of a series; 0 is a free slot
    uint32_t mask          # slots - 1; at most half of them are used
    uint32_t *free         # indexes that retire gave back
    uint32_t free_n
    uint32_t used          # indexes from here on were never claimed
    uint32_t capacity

cdef class Counters:
    cdef object owner          # the mapped buffer
    cdef uint64_t *words
    cdef uint64_t *scalars
    cdef uint64_t *faults
    cdef ClusterSeries *clusters
    cdef LimitSeries *limits
    cdef RequestSeries *series
    cdef uint32_t clusters_n   # capacity
    cdef uint32_t series_n
    cdef RequestSeries *last   # of the last lookup: most requests are like the one before
    cdef Claims series_claims
    cdef Claims cluster_claims
    cdef Claims limit_claims
    cdef uint64_t turn_us      # longest turn of the loop in the window that is open
    cdef uint64_t past_turn_us # and in the one before
    cdef uint64_t window_ms    # monotonic: when the next window opens

    # Buffer of at least counters.block_size() writable bytes, zeroed or of this layout. Raises ValueError otherwise.
    @staticmethod
    cdef Counters over(object buffer)
    cdef inline void bump(self, int scalar, uint64_t n) noexcept nogil:
        self.scalars[scalar] += n
    cdef inline void fault(self, int fault) noexcept nogil:
        self.faults[fault] += 1
    # A turn of the worker's loop took so long; S_LOOP_LAG_US is the longest of this window and the last.
    cdef inline void note_turn(self, uint64_t us) noexcept nogil:
        if us > self.turn_us:
            self.turn_us = us
            if us > self.past_turn_us:
                self.scalars[<int> S_LOOP_LAG_US] = us
    # Called now and then with the monotonic time.
    cdef void roll(self, uint64_t now_ms) noexcept nogil
    # The series of this key, claimed on first use; the overflow series when the budget is spent. Never NULL.
    cdef RequestSeries *request(self, uint64_t listener, uint64_t route, uint64_t cluster, uint8_t method, uint16_t code) noexcept nogil
    # The same for a cluster.
    cdef ClusterSeries *cluster(self, uint64_t id) noexcept nogil
    # The same for a rate limit.
    cdef LimitSeries *limit(self, uint64_t id) noexcept nogil
    # Counts one finished exchange in a series.
    cdef void observe(self, RequestSeries *series, uint64_t duration_us, uint64_t bytes_in, uint64_t bytes_out) noexcept nogil
    # Frees the series whose listener, route or cluster is not among the n ids (0 always stays). Called at a swap. A cluster's series
    # stays until its gauges are 0 as well, so that a cluster that drains may keep its pointer.
    cdef void retire(self, const uint64_t *ids, size_t n) noexcept
    cdef RequestSeries *claim_request(self, uint64_t listener, uint64_t route, uint64_t cluster, uint64_t method_code) noexcept nogil
    cdef void index_claims(self) noexcept nogil
