# balance.pxd - level 4: which endpoint of a cluster takes the next attempt, and which endpoints are out for a while.
# Owns: the candidates' state. Called by: pool (which keeps `active` and `is_up` true and reports outcomes).
# Invariants: pick never answers a tried endpoint while an untried usable one exists; with every endpoint down it answers -1;
#   ejection never takes more than max_percent of the endpoints, and never the last usable one; if discovery then takes the others
#   away, an ejected endpoint is still better than none, and is picked.

from gateway._core.types cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

cdef enum Policy:
    ROUND_ROBIN = 0        # smooth weighted (the picks of a weight are spread evenly)
    LEAST_REQUEST = 1      # power of two choices, weighted: active / weight
    RANDOM = 2             # weighted
    CONSISTENT_HASH = 3    # Maglev, weighted; without a key it falls back to RANDOM

cdef struct Candidate:
    uint32_t weight        # 0 takes no traffic
    uint32_t active        # attempts in flight on it
    int64_t current        # smooth round robin's running value
    uint64_t hash          # of the address: Maglev's place, equal in every worker
    uint8_t is_up          # what discovery and active health say
    uint8_t is_ejected     # what passive ejection says
    uint32_t errors        # consecutive failures
    uint32_t ejections     # times ejected without a good spell between; the back-off's exponent
    uint64_t until_ms      # end of the ejection, monotonic

cdef class Balancer:
    cdef Candidate *candidates
    cdef readonly uint32_t n
    cdef uint8_t policy
    cdef uint64_t seed     # of the xorshift generator; settable by tests
    cdef uint32_t *table   # Maglev's, built when a candidate set changes; NULL for other policies
    cdef uint32_t table_n
    cdef uint32_t *places  # hash -> index + 1, open addressing, made when somebody first asks; NULL before
    cdef uint32_t places_mask
    cdef uint64_t *sums    # running sums of the weights, for weighted draws
    cdef uint32_t cursor   # round robin's next place while all weights are equal
    cdef uint64_t phase    # round robin's place in the sum of many unequal weights, as a fraction of 2^64
    cdef bint is_uniform   # all weights are equal
    cdef uint32_t outlier_errors
    cdef uint32_t outlier_ejection_ms
    cdef uint32_t outlier_percent

    @staticmethod
    cdef Balancer new(uint8_t policy)
    cdef void configure(self, uint8_t policy, uint32_t errors, uint32_t ejection_ms, uint32_t percent) noexcept
    # Replaces the set. weights and hashes are arrays of n; state of candidates whose hash stays is kept. -1 when memory is out.
    cdef int replace(self, uint32_t n, const uint32_t *weights, const uint64_t *hashes) noexcept
    # Index of the endpoint for the next attempt, -1 when none is usable. tried: indexes already tried by this exchange.
    # has_key says whether key (a hash) is meant.
    cdef int pick(self, bint has_key, uint64_t key, const uint32_t *tried, uint32_t tried_n, uint64_t now_ms) noexcept nogil
    # The endpoint of this hash when it is usable and was not tried, else -1.
    cdef int keep(self, uint64_t hash, const uint32_t *tried, uint32_t tried_n, uint64_t now_ms) noexcept nogil
    cdef int find(self, uint64_t hash) noexcept nogil
    # An attempt ended well (any response that is not a gateway failure).
    cdef void on_success(self, uint32_t index) noexcept nogil
    # It failed by the endpoint's fault. 1 when this ejects it.
    cdef bint on_failure(self, uint32_t index, uint64_t now_ms) noexcept nogil
    # How many endpoints are ejected now.
    cdef uint32_t ejected_n(self, uint64_t now_ms) noexcept nogil
    # The parts of the above, one for each policy. level: see PICK_LEVELS in balance.pyx.
    cdef bint is_eligible(self, uint32_t index, const uint32_t *tried, uint32_t tried_n, uint64_t now_ms, int level) noexcept nogil
    cdef int pick_round_robin(self, const uint32_t *tried, uint32_t tried_n, uint64_t now_ms, int level) noexcept nogil
    cdef int pick_random(self, const uint32_t *tried, uint32_t tried_n, uint64_t now_ms, int level) noexcept nogil
    cdef int pick_least(self, const uint32_t *tried, uint32_t tried_n, uint64_t now_ms, int level) noexcept nogil
    cdef int pick_hashed(self, uint64_t key, const uint32_t *tried, uint32_t tried_n, uint64_t now_ms, int level) noexcept nogil
    cdef uint32_t draw(self) noexcept nogil
    cdef uint32_t holder_of(self, uint64_t at) noexcept nogil
    cdef int rebuild_table(self) noexcept nogil

# 64-bit hash of bytes, for keys and addresses; equal on every machine.
cdef uint64_t hash64_of(const uint8_t *p, size_t n) noexcept nogil
