"""Facts out: one block of 64-bit words per worker, written here with plain stores and read by the supervisor at scrape time.

The path calls `bump`, `fault`, `request` and `observe`; the engine calls `retire` at a swap. `read` is the reader's half.
"""

import os

from cpython.buffer cimport Py_buffer
from cpython.memoryview cimport PyMemoryView_GET_BUFFER
from libc.stdint cimport uintptr_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from gateway._core.faults cimport FAULTS
from gateway._core.types cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    /* Upper bounds; what is above the last one goes to the bucket after it. */
    static const uint64_t duration_bounds[13] = {
        500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 10000000};
    static const uint64_t size_bounds[7] = {256, 1024, 4096, 16384, 65536, 1048576, 16777216};
    /* The reader is another process: a state word is the gate before or after the words that it guards. */
    static inline void store_release(uint64_t *word, uint64_t value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }
    static inline uint64_t load_acquire(const uint64_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
    static inline void fence_release(void) { __atomic_thread_fence(__ATOMIC_RELEASE); }
    static inline void fence_acquire(void) { __atomic_thread_fence(__ATOMIC_ACQUIRE); }
    """
    const uint64_t *duration_bounds
    const uint64_t *size_bounds
    void store_release(uint64_t *word, uint64_t value) noexcept nogil
    uint64_t load_acquire(const uint64_t *word) noexcept nogil
    void fence_release() noexcept nogil
    void fence_acquire() noexcept nogil

cdef enum:
    LAYOUT_VERSION = 3     # changes with the meaning of a word or a bound; the sizes are in the layout word beside it
    CLUSTER_WORDS = 17
    LIMIT_WORDS = 17
    SERIES_WORDS = 40      # of which some end a cache line
    SERIES_KEYS = 5        # state and key words of a RequestSeries
    CLUSTER_GAUGE = 12     # first gauge word of a ClusterSeries; the words before it grow

cdef uint64_t MAGIC = <uint64_t> 0x316d687473490a00    # bytes "\0\nIsthm1" on a little-endian machine

# (name, kind, help) of each Scalar, in order. kind: "counter"; "gauge", summed over the workers; "worker", a gauge shown for each
# worker. A name that ends in _seconds stands for a word in microseconds.
SCALARS = (
    ("downstream_connections", "counter", "Connections accepted from clients."),
    ("downstream_connections_closed", "counter", "Client connections closed, by whichever side."),
    ("downstream_connections_refused", "counter", "Client connections refused: over a limit, or out of descriptors."),
    ("downstream_connections_active", "gauge", "Client connections that are open."),
    ("downstream_requests", "counter", "Request heads accepted from clients."),
    ("downstream_requests_active", "gauge", "Requests in flight."),
    ("downstream_head_timeouts", "counter", "Client connections closed because a request head took too long."),
    ("downstream_body_timeouts", "counter", "Client connections closed because request content took too long."),
    ("downstream_idle_timeouts", "counter", "Client connections closed because they were idle for too long."),
    ("upgrades", "counter", "Tunnels opened after an upgrade."),
    ("tunnels", "counter", "Client connections to be carried to an endpoint as they are: TCP, and TLS that is passed through."),
    ("tunnels_failed", "counter", "Of these, those that were carried nowhere: no route, or no endpoint that could be reached."),
    ("tunnels_active", "gauge", "Tunnels that are open, those after an upgrade too."),
    ("downstream_received_bytes", "counter", "Bytes read from clients."),
    ("downstream_sent_bytes", "counter", "Bytes written to clients."),
    ("upstream_received_bytes", "counter", "Bytes read from endpoints."),
    ("upstream_sent_bytes", "counter", "Bytes written to endpoints."),
    ("bugs", "counter", "Internal expectations that did not hold; each is a bug to report."),
    ("access_log_dropped_records", "counter", "Access-log records lost because the writer could not follow."),
    ("worker_loop_lag_seconds", "worker", "Longest turn of the worker's loop in the last 30 to 60 seconds."),
    ("worker_swap_seconds", "worker", "Time that the last change of configuration took in the worker."),
    ("worker_revision", "worker", "Revision of the configuration that the worker uses."),
    ("snapshots_refused", "counter", "Configurations that a worker refused because they did not verify."),
    ("requests_in_other_series", "counter", "Requests counted in the series _other because the budget of series is spent."),
    ("tls_handshakes", "counter", "TLS handshakes with clients that came to their end."),
    ("tls_handshakes_resumed", "counter", "TLS handshakes with clients that resumed a session."),
    ("tls_clients_unverified", "counter", "TLS handshakes with clients let in although no certificate of theirs verified."),
    ("tls_handshakes_failed", "counter", "TLS handshakes with clients that came to nothing."),
    ("tls_unknown_names", "counter", "TLS handshakes refused because no listener has the name that the client asked for."),
    ("tls_plain_requests", "counter", "Requests without TLS on ports that have it."),
    ("upstream_tls_handshakes", "counter", "TLS handshakes with endpoints that came to their end."),
    ("upstream_tls_handshakes_failed", "counter", "TLS handshakes with endpoints that came to nothing, or to the wrong name."),
    ("mirrors", "counter", "Copies of requests begun for the clusters of RequestMirror filters."),
    ("mirrors_dropped", "counter", "Copies given up: their cluster was too slow, there were too many, or the request was cut off."),
    ("mirrors_failed", "counter", "Copies that their cluster did not take: no endpoint, no connection, no answer."),
    ("mirrors_active", "gauge", "Copies of requests in flight."),
    ("ratelimit_waits", "counter", "Requests that waited for the store of rate limits."),
    ("ratelimit_waiting", "gauge", "Requests that wait for the store of rate limits."),
    ("ratelimit_fallbacks", "counter", "Limits decided without the store because it did not answer in time."),
    ("ratelimit_evictions", "counter", "Keys of rate limits that lost their place in the gateway's table while they mattered."),
)
DURATION_BOUNDS_US = tuple([duration_bounds[_i] for _i in range(DURATION_BUCKETS - 1)])
LIMIT_DECISIONS = ("allowed", "denied", "shadow_denied")
LIMIT_SOURCES = ("lease", "store", "deny_cache", "local", "fallback")
SIZE_BOUNDS = tuple([size_bounds[_i] for _i in range(SIZE_BUCKETS - 1)])
if len(SCALARS) != SCALARS_N:
    raise ImportError("counters: SCALARS and Scalar differ")
if sizeof(LimitSeries) != LIMIT_WORDS * 8 or DECISIONS * SOURCES != LIMIT_WORDS - 2:
    raise ImportError("counters: LimitSeries is not what LIMIT_WORDS says")
if sizeof(ClusterSeries) != CLUSTER_WORDS * 8 or sizeof(RequestSeries) != SERIES_WORDS * 8:
    raise ImportError("counters: the series structs have another size than the reader thinks")


cdef enum:                 # word offsets in the block
    AT_SCALARS = HEADER_WORDS
    AT_FAULTS = AT_SCALARS + SCALARS_N
    AT_CLUSTERS = AT_FAULTS + FAULTS
    AT_LIMITS = AT_CLUSTERS + CLUSTERS_N * CLUSTER_WORDS
    AT_SERIES = (AT_LIMITS + LIMITS_N * LIMIT_WORDS + 7) & ~7      # on a cache line
    BLOCK_WORDS = AT_SERIES + SERIES_N * SERIES_WORDS


cdef inline uint64_t layout_word() noexcept nogil:
    return (<uint64_t> LAYOUT_VERSION << 56 | <uint64_t> SCALARS_N << 48 | <uint64_t> FAULTS << 40
            | <uint64_t> DURATION_BUCKETS << 34 | <uint64_t> SIZE_BUCKETS << 28 | <uint64_t> BLOCK_WORDS)


cdef inline uint64_t mixed(uint64_t x) noexcept nogil:
    x ^= x >> 32
    x *= <uint64_t> 0xd6e8feb86659fd93
    return x ^ (x >> 32)


cdef inline uint32_t request_slot(uint64_t listener, uint64_t route, uint64_t cluster, uint64_t method_code) noexcept nogil:
    # Ids are hashes of names already; they only have to be told apart by their place.
    return <uint32_t> mixed(listener * 3 ^ route * 5 ^ cluster * 7 ^ method_code * <uint64_t> 0x9e3779b97f4a7c15)


cdef inline int size_bucket(uint64_t bytes) noexcept nogil:
    cdef int i = 0
    while i < SIZE_BUCKETS - 1 and bytes > size_bounds[i]:
        i += 1
    return i


# ---- claims: which series are taken ----

cdef int make_claims(Claims *claims, uint32_t capacity) noexcept:
    cdef uint32_t slots = 1
    while slots < capacity * 2:
        slots <<= 1
    claims.capacity = capacity
    claims.mask = slots - 1
    claims.slots = <uint32_t *> calloc(slots, sizeof(uint32_t))
    claims.free = <uint32_t *> malloc(capacity * sizeof(uint32_t))
    claims.free_n = 0
    claims.used = 1
    return 0 if claims.slots != NULL and claims.free != NULL else -1


cdef inline uint32_t take_index(Claims *claims) noexcept nogil:
    # An unclaimed series; 0, which is the overflow series, when the budget is spent.
    if claims.free_n:
        claims.free_n -= 1
        return claims.free[claims.free_n]
    if claims.used < claims.capacity:
        claims.used += 1
        return claims.used - 1
    return 0


cdef inline void claim(uint64_t *state) noexcept nogil:
    store_release(state, ((state[0] >> 8) + 1) << 8 | STATE_USED)


cdef inline void release(uint64_t *state, size_t words) noexcept nogil:
    # State first: a reader that has begun to copy finds another state word at the end and forgets the copy.
    store_release(state, state[0] & ~<uint64_t> 0xff | STATE_FREE)
    fence_release()
    memset(state + 1, 0, (words - 1) * 8)


cdef inline uint64_t *claim_named(Claims *claims, uint64_t *first, size_t words_n, uint64_t id) noexcept nogil:
    """The series of a kind whose words begin with its state and one id; claimed on first use."""
    cdef uint32_t at = <uint32_t> mixed(id) & claims.mask
    cdef uint32_t i = claims.slots[at]
    cdef uint64_t *series
    while i:
        series = first + i * words_n
        if series[1] == id:
            return series
        at = (at + 1) & claims.mask
        i = claims.slots[at]
    i = take_index(claims)
    series = first + i * words_n
    if i:
        claims.slots[at] = i
        series[1] = id
        claim(series)
    return series


cdef class Counters:
    def __dealloc__(self):
        free(self.series_claims.slots)
        free(self.series_claims.free)
        free(self.cluster_claims.slots)
        free(self.cluster_claims.free)
        free(self.limit_claims.slots)
        free(self.limit_claims.free)

    @staticmethod
    cdef Counters over(object buffer):
        cdef Counters self = Counters.__new__(Counters)
        cdef uint32_t i
        self.owner = memoryview(buffer)
        self.words = words_of(self.owner, True)
        self.scalars = self.words + AT_SCALARS
        self.faults = self.words + AT_FAULTS
        self.clusters = <ClusterSeries *> (self.words + AT_CLUSTERS)
        self.limits = <LimitSeries *> (self.words + AT_LIMITS)
        self.series = <RequestSeries *> (self.words + AT_SERIES)
        self.clusters_n = CLUSTERS_N
        self.series_n = SERIES_N
        if (make_claims(&self.series_claims, SERIES_N) != 0 or make_claims(&self.cluster_claims, CLUSTERS_N) != 0
                or make_claims(&self.limit_claims, LIMITS_N) != 0):
            raise MemoryError
        self.last = self.series
        if self.words[HEADER_MAGIC] == 0:
            self.series.method_code = <uint64_t> -1        # equal to no key
            self.series.state = (<uint64_t> 1 << 8) | STATE_OTHER
            self.clusters.cluster = <uint64_t> -1
            self.clusters.state = (<uint64_t> 1 << 8) | STATE_OTHER
            self.limits.limit = <uint64_t> -1
            self.limits.state = (<uint64_t> 1 << 8) | STATE_OTHER
            self.words[HEADER_LAYOUT] = layout_word()
            self.words[HEADER_BLOCK] = int.from_bytes(os.urandom(8), "little") | 1
            store_release(&self.words[HEADER_MAGIC], MAGIC)
            return self
        # The block of a worker that died: counters go on, gauges start again, what it was about to claim or free is cleared.
        for i in range(SCALARS_N):
            if SCALARS[i][1] != "counter":
                self.scalars[i] = 0
        for i in range(<uint32_t> CLUSTERS_N):
            memset(<uint64_t *> &self.clusters[i] + CLUSTER_GAUGE, 0, (CLUSTER_WORDS - CLUSTER_GAUGE) * 8)
            if self.clusters[i].state & 0xff == STATE_FREE:
                memset(<uint64_t *> &self.clusters[i] + 1, 0, (CLUSTER_WORDS - 1) * 8)
            else:
                self.cluster_claims.used = i + 1
        for i in range(<uint32_t> LIMITS_N):
            if self.limits[i].state & 0xff == STATE_FREE:
                memset(<uint64_t *> &self.limits[i] + 1, 0, (LIMIT_WORDS - 1) * 8)
            else:
                self.limit_claims.used = i + 1
        for i in range(<uint32_t> SERIES_N):
            if self.series[i].state & 0xff == STATE_FREE:
                memset(<uint64_t *> &self.series[i] + 1, 0, (SERIES_WORDS - 1) * 8)
            else:
                self.series_claims.used = i + 1
        self.index_claims()
        return self

    cdef void index_claims(self) noexcept nogil:
        # Slots and free lists afresh from the state words.
        cdef Claims *claims = &self.series_claims
        cdef RequestSeries *s
        cdef uint32_t i
        cdef uint32_t at
        memset(claims.slots, 0, (<size_t> claims.mask + 1) * sizeof(uint32_t))
        claims.free_n = 0
        for i in range(1, claims.used):
            s = &self.series[i]
            if s.state & 0xff != STATE_USED:
                claims.free[claims.free_n] = i
                claims.free_n += 1
                continue
            at = request_slot(s.listener, s.route, s.cluster, s.method_code) & claims.mask
            while claims.slots[at]:
                at = (at + 1) & claims.mask
            claims.slots[at] = i
        claims = &self.cluster_claims
        memset(claims.slots, 0, (<size_t> claims.mask + 1) * sizeof(uint32_t))
        claims.free_n = 0
        for i in range(1, claims.used):
            if self.clusters[i].state & 0xff != STATE_USED:
                claims.free[claims.free_n] = i
                claims.free_n += 1
                continue
            at = <uint32_t> mixed(self.clusters[i].cluster) & claims.mask
            while claims.slots[at]:
                at = (at + 1) & claims.mask
            claims.slots[at] = i
        claims = &self.limit_claims
        memset(claims.slots, 0, (<size_t> claims.mask + 1) * sizeof(uint32_t))
        claims.free_n = 0
        for i in range(1, claims.used):
            if self.limits[i].state & 0xff != STATE_USED:
                claims.free[claims.free_n] = i
                claims.free_n += 1
                continue
            at = <uint32_t> mixed(self.limits[i].limit) & claims.mask
            while claims.slots[at]:
                at = (at + 1) & claims.mask
            claims.slots[at] = i
        self.last = self.series

    cdef void roll(self, uint64_t now_ms) noexcept nogil:
        if now_ms < self.window_ms:
            return
        self.past_turn_us = self.turn_us
        self.turn_us = 0
        self.window_ms = now_ms + WINDOW_MS
        self.scalars[<int> S_LOOP_LAG_US] = self.past_turn_us

    cdef RequestSeries *request(self, uint64_t listener, uint64_t route, uint64_t cluster, uint8_t method, uint16_t code) noexcept nogil:
        cdef uint64_t method_code = <uint64_t> method << 16 | code
        cdef RequestSeries *s = self.last
        if s.route == route and s.method_code == method_code and s.cluster == cluster and s.listener == listener:
            return s
        s = self.claim_request(listener, route, cluster, method_code)
        if s == self.series:
            self.bump(S_SERIES_OTHER, 1)
        self.last = s
        return s

    cdef RequestSeries *claim_request(self, uint64_t listener, uint64_t route, uint64_t cluster, uint64_t method_code) noexcept nogil:
        cdef Claims *claims = &self.series_claims
        cdef uint32_t at = request_slot(listener, route, cluster, method_code) & claims.mask
        cdef uint32_t i = claims.slots[at]
        cdef RequestSeries *s
        while i:
            s = &self.series[i]
            if s.route == route and s.method_code == method_code and s.cluster == cluster and s.listener == listener:
                return s
            at = (at + 1) & claims.mask
            i = claims.slots[at]
        i = take_index(claims)
        s = &self.series[i]
        if i:
            claims.slots[at] = i
            s.listener = listener
            s.route = route
            s.cluster = cluster
            s.method_code = method_code
            claim(&s.state)
        return s

    cdef ClusterSeries *cluster(self, uint64_t id) noexcept nogil:
        return <ClusterSeries *> claim_named(&self.cluster_claims, <uint64_t *> self.clusters, CLUSTER_WORDS, id)

    cdef LimitSeries *limit(self, uint64_t id) noexcept nogil:
        return <LimitSeries *> claim_named(&self.limit_claims, <uint64_t *> self.limits, LIMIT_WORDS, id)

    cdef void observe(self, RequestSeries *series, uint64_t duration_us, uint64_t bytes_in, uint64_t bytes_out) noexcept nogil:
        cdef int i = 0
        series.count += 1
        series.duration_us += duration_us
        series.bytes_out += bytes_out
        while i < DURATION_BUCKETS - 1 and duration_us > duration_bounds[i]:
            i += 1
        if i:
            series.duration[i - 1] += 1
        if bytes_in:
            series.bytes_in += bytes_in
            i = size_bucket(bytes_in)
            if i:
                series.size_in[i - 1] += 1
        i = size_bucket(bytes_out)
        if i:
            series.size_out[i - 1] += 1

    cdef void retire(self, const uint64_t *ids, size_t n) noexcept:
        cdef size_t size = 8
        cdef size_t mask
        cdef size_t i
        cdef uint64_t *known
        cdef RequestSeries *s
        cdef ClusterSeries *c
        while size < n * 2:
            size <<= 1
        known = <uint64_t *> calloc(size, sizeof(uint64_t))
        if known == NULL:
            return                             # they stay until the next swap
        mask = size - 1
        for i in range(n):
            put(known, mask, ids[i])
        for i in range(1, self.series_claims.used):
            s = &self.series[i]
            if s.state & 0xff == STATE_USED and not (is_known(known, mask, s.route) and is_known(known, mask, s.cluster)
                                                     and is_known(known, mask, s.listener)):
                release(&s.state, SERIES_WORDS)
        for i in range(1, self.cluster_claims.used):
            c = &self.clusters[i]
            if c.state & 0xff != STATE_USED or is_known(known, mask, c.cluster):
                continue
            # A cluster that still drains counts its gauges down in its own series, and not in that of the next cluster.
            if c.active == 0 and c.idle == 0 and c.connections == 0 and c.pending == 0:
                release(&c.state, CLUSTER_WORDS)
        for i in range(1, self.limit_claims.used):
            if self.limits[i].state & 0xff == STATE_USED and not is_known(known, mask, self.limits[i].limit):
                release(&self.limits[i].state, LIMIT_WORDS)
        free(known)
        self.index_claims()


cdef inline void put(uint64_t *known, size_t mask, uint64_t id) noexcept nogil:
    # 0 is a free slot; the id 0 means "none" and is always known.
    cdef size_t at = <size_t> mixed(id) & mask
    while known[at] != 0 and known[at] != id:
        at = (at + 1) & mask
    known[at] = id


cdef inline bint is_known(const uint64_t *known, size_t mask, uint64_t id) noexcept nogil:
    cdef size_t at = <size_t> mixed(id) & mask
    if id == 0:
        return True
    while known[at] != 0:
        if known[at] == id:
            return True
        at = (at + 1) & mask
    return False


# ---- the reader's half ----

cdef uint64_t *words_of(object view, bint is_writer) except NULL:
    cdef const Py_buffer *raw = PyMemoryView_GET_BUFFER(view)
    cdef uint64_t *words = <uint64_t *> raw.buf
    if raw.len < <Py_ssize_t> BLOCK_WORDS * 8 or not view.c_contiguous:
        raise ValueError(f"counters: the block has {raw.len} bytes, {BLOCK_WORDS * 8} are needed")
    if <uintptr_t> raw.buf & 7:
        raise ValueError("counters: the block is not aligned to 8 bytes")
    if is_writer and raw.readonly:
        raise ValueError("counters: the block is read-only")
    if load_acquire(&words[HEADER_MAGIC]) == 0:
        return words
    if words[HEADER_MAGIC] != MAGIC or words[HEADER_LAYOUT] != layout_word():
        raise ValueError("counters: the block has another layout; it was written by another version")
    return words


cdef list read_series(uint64_t *first, size_t n, size_t words_n):
    cdef uint64_t copy[SERIES_WORDS]
    cdef uint64_t *series
    cdef size_t i
    cdef size_t k
    found = []
    for i in range(n):
        series = first + i * words_n
        copy[0] = load_acquire(series)
        if copy[0] & 0xff == STATE_FREE:
            continue
        memcpy(&copy[1], series + 1, (words_n - 1) * 8)
        fence_acquire()
        if load_acquire(series) != copy[0]:
            continue
        row = [i]
        for k in range(words_n):
            row.append(copy[k])
        found.append(tuple(row))
    return found


cdef tuple buckets(tuple kept, uint64_t count):
    """All buckets of a distribution of which all but the first are kept. The copy may be older in one word than in another."""
    return (max(0, count - sum(kept)), *kept)


cdef tuple request_row(tuple row):
    """(index, state, key words, count, duration, bytes in, bytes out, the buckets) of a row as it is in the block."""
    cdef Py_ssize_t sums = 1 + SERIES_KEYS
    cdef Py_ssize_t durations = sums + 4
    cdef Py_ssize_t sizes_in = durations + DURATION_BUCKETS - 1
    cdef Py_ssize_t sizes_out = sizes_in + SIZE_BUCKETS - 1
    cdef Py_ssize_t end = sizes_out + SIZE_BUCKETS - 1
    count = row[sums]
    return (*row[:sums], count, row[sums + 1], row[sums + 3], row[sums + 2], *buckets(row[durations:sizes_in], count),
            *buckets(row[sizes_in:sizes_out], count), *buckets(row[sizes_out:end], count))


def block_size() -> int:
    return BLOCK_WORDS * 8


def read(buffer):
    cdef object view = memoryview(buffer)
    cdef uint64_t *words = words_of(view, False)
    cdef size_t i
    if words[HEADER_MAGIC] == 0:
        return None
    scalars = []
    for i in range(SCALARS_N):
        scalars.append(words[AT_SCALARS + i])
    faults = []
    for i in range(FAULTS):
        faults.append(words[AT_FAULTS + i])
    return (words[HEADER_BLOCK], tuple(scalars), tuple(faults), read_series(words + AT_CLUSTERS, CLUSTERS_N, CLUSTER_WORDS),
            [request_row(row) for row in read_series(words + AT_SERIES, SERIES_N, SERIES_WORDS)],
            read_series(words + AT_LIMITS, LIMITS_N, LIMIT_WORDS))


# ---- for tests ----

cdef class CountersProbe:
    """A Counters with a Python face: what the path does in C, one call at a time."""

    cdef Counters counters

    def __init__(self, buffer):
        self.counters = Counters.over(buffer)

    def bump(self, int scalar, uint64_t n=1):
        if not 0 <= scalar < SCALARS_N:
            raise IndexError(scalar)
        self.counters.bump(scalar, n)

    def gauge(self, int scalar, uint64_t value):
        if not 0 <= scalar < SCALARS_N:
            raise IndexError(scalar)
        self.counters.scalars[scalar] = value

    def turn(self, uint64_t us, uint64_t now_ms):
        """A turn of the loop that ends at this time, and what the gauge says after it."""
        self.counters.roll(now_ms)
        self.counters.note_turn(us)
        return self.counters.scalars[<int> S_LOOP_LAG_US]

    def fault(self, int fault):
        if not 0 <= fault < FAULTS:
            raise IndexError(fault)
        self.counters.fault(fault)

    def request(self, uint64_t listener, uint64_t route, uint64_t cluster, int method, int code, *, uint64_t duration_us=1000,
                uint64_t bytes_in=0, uint64_t bytes_out=0, uint64_t times=1):
        """Counts a finished exchange; the index of the series that it was counted in."""
        cdef RequestSeries *series = NULL
        cdef uint64_t _
        with nogil:
            for _ in range(times):
                series = self.counters.request(listener, route, cluster, <uint8_t> method, <uint16_t> code)
                self.counters.observe(series, duration_us, bytes_in, bytes_out)
        return -1 if series == NULL else series - self.counters.series

    def cluster(self, uint64_t id, *, uint64_t connects=0, uint64_t requests=0, uint64_t active=0, uint64_t ejected=0):
        cdef ClusterSeries *series = self.counters.cluster(id)
        series.connects += connects
        series.requests += requests
        series.active = active
        series.ejected = ejected
        return series - self.counters.clusters

    def limit(self, uint64_t id, int decision, int source, uint64_t times=1):
        cdef LimitSeries *series = self.counters.limit(id)
        if not 0 <= decision < DECISIONS or not 0 <= source < SOURCES:
            raise IndexError(decision)
        series.decisions[decision * SOURCES + source] += times
        return series - self.counters.limits

    def retire(self, ids):
        cdef size_t n = len(ids)
        cdef uint64_t *array = <uint64_t *> malloc((n + 1) * sizeof(uint64_t))
        cdef size_t i
        if array == NULL:
            raise MemoryError
        try:
            for i in range(n):
                array[i] = ids[i]
            self.counters.retire(array, n)
        finally:
            free(array)
