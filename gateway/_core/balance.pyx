"""Which endpoint takes the next attempt: smooth round robin, power of two choices, weighted random, Maglev; and passive ejection.

Called by the pool once an attempt. Nothing here allocates except `replace` and `configure`.
"""

import os

from libc.stdlib cimport calloc, free, malloc, qsort
from libc.string cimport memcpy, memset

from gateway._core.types cimport int64_t, uint8_t, uint32_t, uint64_t

# What a pick may take, from best to last resort. One pass over the policy for each level; the common request ends in the first.
cdef enum:
    LEVEL_FRESH = 0        # usable, not tried by this exchange
    LEVEL_USABLE = 1       # usable, tried
    LEVEL_EJECTED = 2      # up but ejected, not tried: discovery took the others away after the ejection
    LEVEL_UP = 3           # up, whatever else is said
    PICK_LEVELS = 4

cdef enum:
    DRAWS = 4              # random draws before a scan of all candidates
    SCAN = 64              # more endpoints of unequal weights than this, and round robin does not look at each of them for a pick
    WALK = 128             # table entries that a hashed pick looks at before it scans the candidates
    MAX_DOUBLINGS = 5      # an ejection lasts at most 32 times the first one


# ---- numbers ----

cdef inline uint64_t mixed(uint64_t x) noexcept nogil:
    # A bijection in which every input bit reaches every output bit.
    x ^= x >> 30
    x *= <uint64_t> 0xbf58476d1ce4e5b9
    x ^= x >> 27
    x *= <uint64_t> 0x94d049bb133111eb
    return x ^ (x >> 31)


cdef inline uint64_t little_endian(const uint8_t *p, size_t n) noexcept nogil:
    # n <= 8 bytes as a number that does not depend on the machine's byte order.
    cdef uint64_t value = 0
    cdef size_t i
    for i in range(n):
        value |= <uint64_t> p[i] << (8 * i)
    return value


cdef uint64_t hash64_of(const uint8_t *p, size_t n) noexcept nogil:
    cdef uint64_t h = <uint64_t> n * <uint64_t> 0x9e3779b97f4a7c15
    while n >= 8:
        h = mixed(h ^ little_endian(p, 8))
        p += 8
        n -= 8
    return mixed(h ^ little_endian(p, n))


cdef inline uint64_t next_random(uint64_t *state) noexcept nogil:
    # xorshift64*; the state is never 0.
    cdef uint64_t x = state[0]
    x ^= x >> 12
    x ^= x << 25
    x ^= x >> 27
    state[0] = x
    return x * <uint64_t> 0x2545f4914f6cdd1d


cdef inline uint32_t below(uint64_t *state, uint32_t n) noexcept nogil:
    # A number under n; the bias is under n / 2^32.
    return <uint32_t> (((next_random(state) >> 32) * n) >> 32)


# ---- what may be picked ----

cdef inline bint is_usable(Candidate *c, uint64_t now_ms) noexcept nogil:
    if c.is_ejected:
        if now_ms < c.until_ms:
            return False
        c.is_ejected = 0
        c.errors = 0
    return c.weight != 0 and c.is_up != 0


cdef inline bint is_tried(uint32_t index, const uint32_t *tried, uint32_t tried_n) noexcept nogil:
    cdef uint32_t i
    for i in range(tried_n):
        if tried[i] == index:
            return True
    return False


# ---- Maglev's table ----

cdef struct Place:         # a candidate in the order in which it claims table entries
    uint64_t hash
    uint64_t earned        # weight earned and not yet spent on an entry
    uint32_t weight
    uint32_t index
    uint32_t offset        # first entry that it likes
    uint32_t skip          # distance to the next one


cdef int by_hash(const void *a, const void *b) noexcept nogil:
    cdef uint64_t x = (<const Place *> a).hash
    cdef uint64_t y = (<const Place *> b).hash
    return <int> (x > y) - <int> (x < y)


cdef inline uint32_t table_size(uint32_t n) noexcept nogil:
    # Primes. At least 64 entries an endpoint keep the shares within some percent; small clusters should not cost 256 KiB.
    if n <= 64:
        return 5003
    if n <= 256:
        return 16381
    if n <= 1024:
        return 65537
    return 655373


cdef class Balancer:
    def __cinit__(self):
        self.candidates = NULL
        self.table = NULL
        self.sums = NULL
        self.places = NULL

    def __dealloc__(self):
        free(self.candidates)
        free(self.places)
        free(self.table)
        free(self.sums)

    @staticmethod
    cdef Balancer new(uint8_t policy):
        cdef Balancer self = Balancer.__new__(Balancer)
        # Every worker starts elsewhere, or all would send their first requests to the same endpoint.
        self.seed = int.from_bytes(os.urandom(8), "little") | 1
        self.policy = policy
        self.outlier_percent = 50
        return self

    cdef void configure(self, uint8_t policy, uint32_t errors, uint32_t ejection_ms, uint32_t percent) noexcept:
        self.outlier_errors = errors
        self.outlier_ejection_ms = ejection_ms
        self.outlier_percent = percent
        if policy == self.policy and (policy != CONSISTENT_HASH or self.table != NULL):
            return
        self.policy = policy
        if policy == CONSISTENT_HASH:
            # Without memory for it, hashed picks fall back to random ones.
            if self.rebuild_table() != 0:
                self.table_n = 0
        else:
            free(self.table)
            self.table = NULL
            self.table_n = 0

    cdef int replace(self, uint32_t n, const uint32_t *weights, const uint64_t *hashes) noexcept:
        cdef Candidate *fresh = <Candidate *> calloc(n if n else 1, sizeof(Candidate))
        cdef uint64_t *sums = <uint64_t *> malloc((n if n else 1) * sizeof(uint64_t))
        cdef uint32_t mask = 1
        cdef uint32_t *slots
        cdef uint32_t i
        cdef uint32_t at
        cdef uint64_t total = 0
        while mask < self.n * 2:
            mask <<= 1
        slots = <uint32_t *> calloc(mask, sizeof(uint32_t))
        if fresh == NULL or sums == NULL or slots == NULL:
            free(fresh)
            free(sums)
            free(slots)
            return -1
        mask -= 1
        for i in range(self.n):                # hash -> index + 1 of the old set
            at = <uint32_t> mixed(self.candidates[i].hash) & mask
            while slots[at]:
                at = (at + 1) & mask
            slots[at] = i + 1
        self.is_uniform = True
        for i in range(n):
            at = <uint32_t> mixed(hashes[i]) & mask
            # A state is inherited once, so that two endpoints of one address do not both count its attempts; the entry is marked
            # used by its highest bit and keeps its place in the probe sequence.
            while slots[at] and (slots[at] >> 31 or self.candidates[slots[at] - 1].hash != hashes[i]):
                at = (at + 1) & mask
            if slots[at]:
                memcpy(&fresh[i], &self.candidates[slots[at] - 1], sizeof(Candidate))
                slots[at] |= <uint32_t> 1 << 31
            else:
                fresh[i].hash = hashes[i]
                fresh[i].is_up = 1
            fresh[i].weight = weights[i]
            fresh[i].current = 0               # running values of another set mean nothing
            total += weights[i]
            sums[i] = total
            if weights[i] != weights[0]:
                self.is_uniform = False
        free(slots)
        free(self.places)
        self.places = NULL
        free(self.candidates)
        free(self.sums)
        self.candidates = fresh
        self.sums = sums
        self.n = n
        self.cursor = below(&self.seed, n) if n else 0
        self.phase = next_random(&self.seed)
        if self.policy == CONSISTENT_HASH and self.rebuild_table() != 0:
            return -1
        return 0

    cdef int rebuild_table(self) noexcept nogil:
        cdef Place *places
        cdef uint32_t *table
        cdef Place *place
        cdef uint32_t places_n = 0
        cdef uint32_t size
        cdef uint32_t filled = 0
        cdef uint32_t heaviest = 0
        cdef uint32_t i
        cdef uint64_t h
        free(self.table)
        self.table = NULL
        self.table_n = 0
        if self.n == 0 or self.sums[self.n - 1] == 0:
            return 0
        size = table_size(self.n)
        places = <Place *> malloc(self.n * sizeof(Place))
        table = <uint32_t *> malloc(size * sizeof(uint32_t))
        if places == NULL or table == NULL:
            free(places)
            free(table)
            return -1
        for i in range(self.n):
            if self.candidates[i].weight == 0:
                continue
            place = &places[places_n]
            h = mixed(self.candidates[i].hash)
            place.hash = self.candidates[i].hash
            place.weight = self.candidates[i].weight
            place.index = i
            place.earned = 0
            place.offset = <uint32_t> (h % size)
            place.skip = <uint32_t> (mixed(h ^ <uint64_t> 0x5851f42d4c957f2d) % (size - 1)) + 1
            if place.weight > heaviest:
                heaviest = place.weight
            places_n += 1
        # The order of claiming is that of the hashes: workers may have met the endpoints in different orders.
        qsort(places, places_n, sizeof(Place), by_hash)
        memset(table, 0xff, size * sizeof(uint32_t))
        while filled < size:
            for i in range(places_n):
                # A place takes an entry whenever its weight, counted once a round, has earned one; the heaviest earns one each round.
                place = &places[i]
                place.earned += place.weight
                if place.earned < heaviest:
                    continue
                place.earned -= heaviest
                while table[place.offset] != <uint32_t> 0xffffffff:
                    place.offset += place.skip
                    if place.offset >= size:
                        place.offset -= size
                table[place.offset] = place.index
                filled += 1
                if filled == size:
                    break
        free(places)
        self.table = table
        self.table_n = size
        return 0

    cdef uint32_t holder_of(self, uint64_t at) noexcept nogil:
        # The candidate whose part of the summed weights contains `at`, which is under the whole sum.
        cdef uint32_t low = 0
        cdef uint32_t high = self.n - 1
        cdef uint32_t middle
        while low < high:
            middle = (low + high) >> 1
            if self.sums[middle] > at:
                high = middle
            else:
                low = middle + 1
        return low

    cdef uint32_t draw(self) noexcept nogil:
        # Any candidate, by weight; the sum of the weights is not 0.
        if self.is_uniform:
            return below(&self.seed, self.n)
        return self.holder_of(next_random(&self.seed) % self.sums[self.n - 1])

    cdef bint is_eligible(self, uint32_t index, const uint32_t *tried, uint32_t tried_n, uint64_t now_ms, int level) noexcept nogil:
        cdef Candidate *c = &self.candidates[index]
        if level < LEVEL_EJECTED:
            if not is_usable(c, now_ms):
                return False
        elif c.weight == 0 or c.is_up == 0:
            return False
        return level & 1 != 0 or tried_n == 0 or not is_tried(index, tried, tried_n)

    cdef int pick_round_robin(self, const uint32_t *tried, uint32_t tried_n, uint64_t now_ms, int level) noexcept nogil:
        cdef Candidate *c
        cdef Candidate *best = NULL
        cdef int64_t total = 0
        cdef int answer = -1
        cdef uint32_t i
        if self.is_uniform:
            # With equal weights the smooth order is a rotation. An endpoint that is out gives its turn to the scan below and not to
            # its neighbour, which would get twice its share.
            i = self.cursor
            self.cursor = i + 1 if i + 1 < self.n else 0
            if self.is_eligible(i, tried, tried_n, now_ms, level):
                return <int> i
        elif self.n > SCAN:
            # Steps of the golden ratio through the sum of the weights: every endpoint's turns are spread nearly evenly, for the
            # price of a binary search. 2^-53 of the upper 53 bits is the fraction; it is under 1.
            self.phase += <uint64_t> 0x9e3779b97f4a7c15
            i = self.holder_of(<uint64_t> (<double> (self.phase >> 11) * 1.1102230246251565e-16 * <double> self.sums[self.n - 1]))
            if self.is_eligible(i, tried, tried_n, now_ms, level):
                return <int> i
        for i in range(self.n):
            if not self.is_eligible(i, tried, tried_n, now_ms, level):
                continue
            c = &self.candidates[i]
            c.current += c.weight
            total += c.weight
            if best == NULL or c.current > best.current:
                best = c
                answer = <int> i
        if best != NULL:
            best.current -= total
        return answer

    cdef int pick_random(self, const uint32_t *tried, uint32_t tried_n, uint64_t now_ms, int level) noexcept nogil:
        cdef uint64_t total = 0
        cdef uint32_t weight
        cdef uint32_t i
        cdef int _
        cdef int answer = -1
        for _ in range(DRAWS):
            i = self.draw()
            if self.is_eligible(i, tried, tried_n, now_ms, level):
                return <int> i
        for i in range(self.n):                # one pass: each eligible one replaces the answer with its share of the weight so far
            if self.is_eligible(i, tried, tried_n, now_ms, level):
                weight = self.candidates[i].weight
                total += weight
                if next_random(&self.seed) % total < weight:
                    answer = <int> i
        return answer

    cdef int pick_least(self, const uint32_t *tried, uint32_t tried_n, uint64_t now_ms, int level) noexcept nogil:
        cdef int first = self.pick_random(tried, tried_n, now_ms, level)
        cdef uint32_t second
        cdef int _
        cdef Candidate *a
        cdef Candidate *b
        if first < 0:
            return -1
        for _ in range(DRAWS):
            second = self.draw()
            if second == <uint32_t> first or not self.is_eligible(second, tried, tried_n, now_ms, level):
                continue
            a = &self.candidates[first]
            b = &self.candidates[second]
            # active / weight, multiplied out. A tie goes to the first, which is as random as it is weighted.
            if <uint64_t> b.active * a.weight < <uint64_t> a.active * b.weight:
                return <int> second
            return first
        return first

    cdef int pick_hashed(self, uint64_t key, const uint32_t *tried, uint32_t tried_n, uint64_t now_ms, int level) noexcept nogil:
        cdef uint32_t at = <uint32_t> (key % self.table_n)
        cdef uint32_t i
        cdef uint32_t _
        for _ in range(<uint32_t> WALK):
            i = self.table[at]
            if self.is_eligible(i, tried, tried_n, now_ms, level):
                return <int> i
            at = at + 1 if at + 1 < self.table_n else 0
        # Nearly everything is out. Any fixed order will do, as long as every worker finds the same.
        at = <uint32_t> (mixed(key) % self.n)
        for _ in range(self.n):
            if self.is_eligible(at, tried, tried_n, now_ms, level):
                return <int> at
            at = at + 1 if at + 1 < self.n else 0
        return -1

    cdef int pick(self, bint has_key, uint64_t key, const uint32_t *tried, uint32_t tried_n, uint64_t now_ms) noexcept nogil:
        cdef int level
        cdef int answer
        if self.n == 0 or self.sums[self.n - 1] == 0:
            return -1
        if self.n == 1:
            return 0 if self.candidates[0].is_up else -1
        for level in range(PICK_LEVELS):
            if self.policy == ROUND_ROBIN:
                answer = self.pick_round_robin(tried, tried_n, now_ms, level)
            elif self.policy == LEAST_REQUEST:
                answer = self.pick_least(tried, tried_n, now_ms, level)
            elif self.policy == CONSISTENT_HASH and has_key and self.table != NULL:
                answer = self.pick_hashed(key, tried, tried_n, now_ms, level)
            else:
                answer = self.pick_random(tried, tried_n, now_ms, level)
            if answer >= 0:
                return answer
        return -1

    cdef int find(self, uint64_t hash) noexcept nogil:
        cdef uint32_t mask = 1
        cdef uint32_t i
        cdef uint32_t at
        if self.places == NULL:
            while mask < self.n * 2:
                mask <<= 1
            self.places = <uint32_t *> calloc(mask, sizeof(uint32_t))
            if self.places == NULL:
                return -1
            self.places_mask = mask - 1
            for i in range(self.n):
                at = <uint32_t> mixed(self.candidates[i].hash) & self.places_mask
                while self.places[at]:
                    at = (at + 1) & self.places_mask
                self.places[at] = i + 1
        at = <uint32_t> mixed(hash) & self.places_mask
        while self.places[at]:
            if self.candidates[self.places[at] - 1].hash == hash:
                return <int> self.places[at] - 1
            at = (at + 1) & self.places_mask
        return -1

    cdef int keep(self, uint64_t hash, const uint32_t *tried, uint32_t tried_n, uint64_t now_ms) noexcept nogil:
        cdef int index = self.find(hash) if self.n else -1
        return index if index >= 0 and self.is_eligible(<uint32_t> index, tried, tried_n, now_ms, LEVEL_FRESH) else -1

    cdef void on_success(self, uint32_t index) noexcept nogil:
        if index < self.n:
            self.candidates[index].errors = 0

    cdef uint32_t ejected_n(self, uint64_t now_ms) noexcept nogil:
        cdef uint32_t count = 0
        cdef uint32_t i
        for i in range(self.n):
            if self.candidates[i].is_ejected and now_ms < self.candidates[i].until_ms:
                count += 1
        return count

    cdef bint on_failure(self, uint32_t index, uint64_t now_ms) noexcept nogil:
        cdef Candidate *c
        cdef uint32_t i
        cdef uint32_t out = 0
        cdef bint has_other = False
        cdef uint64_t calm
        if self.outlier_errors == 0 or index >= self.n:
            return False
        c = &self.candidates[index]
        if c.is_ejected and now_ms < c.until_ms:
            return False                       # attempts from before the ejection prove nothing new
        if c.is_ejected:
            c.is_ejected = 0
            c.errors = 0
        if c.errors < self.outlier_errors:
            c.errors += 1
        if c.errors < self.outlier_errors:
            return False
        for i in range(self.n):
            if i == index:
                continue
            if is_usable(&self.candidates[i], now_ms):
                has_other = True
            elif self.candidates[i].is_ejected:
                out += 1
        if not has_other or <uint64_t> (out + 1) * 100 > <uint64_t> self.n * self.outlier_percent:
            return False
        if c.ejections:
            # One step of the back-off is forgiven for each base time that passed since the last ejection ended.
            calm = 0 if now_ms < c.until_ms else (now_ms - c.until_ms) / (self.outlier_ejection_ms if self.outlier_ejection_ms else 1)
            c.ejections = 0 if calm >= c.ejections else c.ejections - <uint32_t> calm
        c.until_ms = now_ms + (<uint64_t> self.outlier_ejection_ms << (c.ejections if c.ejections < MAX_DOUBLINGS else MAX_DOUBLINGS))
        c.ejections += 1
        c.is_ejected = 1
        c.errors = 0
        return True


# ---- for tests ----

def hash64(bytes key not None) -> int:
    return hash64_of(<const uint8_t *> key, len(key))


cdef class BalancerProbe:
    """A Balancer with a Python face: what the pool does in C, one call at a time."""

    cdef Balancer balancer

    def __init__(self, int policy, *, seed=1, uint32_t errors=0, uint32_t ejection_ms=1000, uint32_t percent=50):
        self.balancer = Balancer.new(<uint8_t> policy)
        self.balancer.seed = seed
        self.balancer.configure(<uint8_t> policy, errors, ejection_ms, percent)

    def configure(self, int policy, *, uint32_t errors=0, uint32_t ejection_ms=1000, uint32_t percent=50):
        self.balancer.configure(<uint8_t> policy, errors, ejection_ms, percent)

    def replace(self, endpoints):
        cdef uint32_t n = len(endpoints)
        cdef uint32_t *weights = <uint32_t *> malloc((n + 1) * sizeof(uint32_t))
        cdef uint64_t *hashes = <uint64_t *> malloc((n + 1) * sizeof(uint64_t))
        cdef uint32_t i
        try:
            if weights == NULL or hashes == NULL:
                raise MemoryError
            for i in range(n):
                weights[i] = endpoints[i][1]
                hashes[i] = hash64(endpoints[i][0])
            if self.balancer.replace(n, weights, hashes) != 0:
                raise MemoryError
        finally:
            free(weights)
            free(hashes)

    def pick(self, *, key=None, tried=(), uint64_t now=0):
        cdef uint32_t indexes[64]
        cdef uint32_t n = min(len(tried), 64)
        cdef uint32_t i
        for i in range(n):
            indexes[i] = tried[i]
        return self.balancer.pick(key is not None, 0 if key is None else hash64(key), indexes, n, now)

    def keep(self, bytes address not None, *, tried=(), uint64_t now=0):
        cdef uint32_t indexes[64]
        cdef uint32_t n = min(len(tried), 64)
        cdef uint32_t i
        for i in range(n):
            indexes[i] = tried[i]
        return self.balancer.keep(hash64(address), indexes, n, now)

    def success(self, uint32_t index):
        self.balancer.on_success(index)

    def failure(self, uint32_t index, uint64_t now=0):
        return self.balancer.on_failure(index, now)

    def ejected(self, uint64_t now=0):
        return self.balancer.ejected_n(now)

    def set(self, uint32_t index, *, active=None, is_up=None):
        if index >= self.balancer.n:
            raise IndexError(index)
        if active is not None:
            self.balancer.candidates[index].active = active
        if is_up is not None:
            self.balancer.candidates[index].is_up = 1 if is_up else 0

    def state(self, uint32_t index):
        if index >= self.balancer.n:
            raise IndexError(index)
        return self.balancer.candidates[index]

    def table(self):
        cdef uint32_t i
        entries = []
        for i in range(self.balancer.table_n):
            entries.append(self.balancer.table[i])
        return entries
