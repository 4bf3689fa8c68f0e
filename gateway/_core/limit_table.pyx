"""What is known of each key that is limited, in memory that all workers of a gateway share; see limit_table.pxd."""

import os

from cpython.buffer cimport Py_buffer
from cpython.memoryview cimport PyMemoryView_GET_BUFFER
from libc.stdint cimport uintptr_t
from libc.string cimport memset

from gateway._core.limit_key cimport LimitKey
from gateway._core.snapshot cimport FIXED, GCRA, TermsRec, id64
from gateway._core.sys cimport CLOCK_MONOTONIC, CLOCK_REALTIME, clock_us
from gateway._core.types cimport int64_t, uint32_t, uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    #include <sched.h>
    static inline int lock_swap(uint64_t *word, uint64_t from, uint64_t to) {
        return __atomic_compare_exchange_n(word, &from, to, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    }
    static inline uint64_t lock_load(const uint64_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
    static inline void lock_yield(void) { sched_yield(); }
    """
    bint lock_swap(uint64_t *word, uint64_t before, uint64_t after) noexcept nogil
    uint64_t lock_load(const uint64_t *word) noexcept nogil
    void lock_yield() noexcept nogil

cdef enum:
    HEADER_BYTES = 1024
    LAYOUT = 3             # changes with the meaning of a word
    AT_LAYOUT = 0          # words of the header
    AT_SEED = 1
    AT_GENERATIONS = 8
    SPINS = 64             # looks at a lock before the processor is given away
    LOCK_US = 2000         # nobody alive holds one for so long
    ASK_MS = 1000          # an ask for more that was not answered for so long never will be
    FORGET_MS = 1000       # what was used longer ago says nothing of what will be

cdef extern from *:
    """
    #define MAX_U32 0xffffffffu
    #define DAY_US 86400000000ull
    #define IN_FLIGHT_NS 4000000000000ull      /* over an hour: how long requests in flight keep their place */
    #define DENY_BITS 48
    #define KEPT (1ull << 63)                  /* in tat: refused here, or in flight; its times never get there */
    """
    const uint64_t MAX_U32
    const uint64_t DAY_US
    const uint64_t IN_FLIGHT_NS
    const uint64_t KEPT
    const int DENY_BITS

if sizeof(Entry) != 64 or sizeof(Bucket) != 512:
    raise ImportError("limit_table: an entry is no cache line")


cdef inline uint64_t mixed(uint64_t x) noexcept nogil:
    x ^= x >> 32
    x *= <uint64_t> 0xd6e8feb86659fd93
    x ^= x >> 32
    x *= <uint64_t> 0xd6e8feb86659fd93
    return x ^ (x >> 32)


cdef inline uint32_t cut(uint64_t x) noexcept nogil:
    return <uint32_t> (x if x < MAX_U32 else MAX_U32)


cdef inline uint32_t up_ms(uint64_t us) noexcept nogil:
    return cut((us + 999) // 1000)


cdef uint32_t mark_of(const TermsRec *terms) noexcept nogil:
    cdef uint64_t word = mixed(id64(terms.period_lo, terms.period_hi) + 1)
    word = mixed(word ^ (<uint64_t> terms.requests << 32 | terms.capacity))
    return <uint32_t> (word >> DENY_BITS)


cdef inline uint64_t denied_until(const Entry *entry) noexcept nogil:
    """By whatever terms; us."""
    return entry.deny_until & ((<uint64_t> 1 << DENY_BITS) - 1)


cdef inline uint64_t denied_by(const Entry *entry, const TermsRec *terms) noexcept nogil:
    """By these terms; us."""
    return denied_until(entry) if entry.deny_until >> DENY_BITS == mark_of(terms) else 0


# ---- windows of the calendar (UTC) ----

cdef inline uint64_t first_day(uint64_t month) noexcept nogil:
    """Days since the epoch of the first of a month; months count from January 1970. A year begins in March here: the leap day is last."""
    cdef uint64_t m = (month + 10) % 12
    cdef uint64_t y = 1970 + month // 12 - (1 if month % 12 < 2 else 0)
    return 365 * y + y // 4 - y // 100 + y // 400 + (153 * m + 2) // 5 - 719468


cdef uint64_t month_of(uint64_t wall_us) noexcept nogil:
    cdef uint64_t days = wall_us // DAY_US
    cdef uint64_t month = days * 12 // 366       # at most a little early
    while first_day(month + 1) <= days:
        month += 1
    return month


cdef struct Window:
    uint64_t number
    uint64_t start         # us since the epoch
    uint64_t length        # us


cdef inline void window_of(uint64_t period, uint64_t wall_us, Window *window) noexcept nogil:
    if period:
        window.number = wall_us // period
        window.start = window.number * period
        window.length = period
    else:
        window.number = month_of(wall_us)
        window.start = first_day(window.number) * DAY_US
        window.length = first_day(window.number + 1) * DAY_US - window.start


cdef inline uint64_t wall_of(Clock *clock) noexcept nogil:
    if clock.wall_us == 0:
        clock.wall_us = clock_us(CLOCK_REALTIME)
    return clock.wall_us


# ---- what a new key takes the place of ----

cdef enum:
    WORTH_NOTHING = 0      # the place is free
    WORTH_PAST = 1         # what it says is over
    WORTH_ASK = 2          # the store said no, and would say so again
    WORTH_COUNT = 3        # forgotten, the key would begin anew, or lose what was lent to it
    WORTH_REFUSAL = 4      # forgotten, it would be let through too early

cdef struct Worth:
    int rank
    uint64_t until         # us
    uint32_t count         # in its window


cdef inline void weigh(const Bucket *bucket, int way, uint64_t now_us, Worth *worth) noexcept nogil:
    cdef const Entry *entry = &bucket.entries[way]
    cdef uint64_t own = (entry.tat & ~KEPT) // 1000
    worth.count = entry.count
    worth.until = own
    if entry.tokens and entry.lease_end > own:
        worth.until = entry.lease_end
    if bucket.tags[way] == 0:
        worth.rank = WORTH_NOTHING
    elif worth.until > now_us:
        worth.rank = WORTH_REFUSAL if entry.tat & KEPT and own > now_us else WORTH_COUNT
    elif denied_until(entry) > now_us:
        worth.rank = WORTH_ASK
        worth.until = denied_until(entry)
    else:
        worth.rank = WORTH_PAST


cdef inline bint is_less(const Worth *one, const Worth *other) noexcept nogil:
    # Windows end together, give or take what a turn takes: within a second or so the smaller count goes.
    cdef uint64_t end = one.until >> 20
    cdef uint64_t other_end = other.until >> 20
    if one.rank != other.rank:
        return one.rank < other.rank
    if end != other_end:
        return end < other_end
    if one.count != other.count:
        return one.count < other.count
    return one.until < other.until


# ---- the table ----

cdef class LimitTable:
    def __init__(self):
        raise TypeError("use LimitTable.over")

    @staticmethod
    cdef LimitTable over(object buffer, uint32_t slot, uint64_t *evictions):
        cdef LimitTable self = LimitTable.__new__(LimitTable)
        cdef const Py_buffer *raw
        cdef uint64_t *words
        cdef uint64_t buckets
        self.owner = memoryview(buffer)
        raw = PyMemoryView_GET_BUFFER(self.owner)
        buckets = (<uint64_t> raw.len - HEADER_BYTES) // sizeof(Bucket) if raw.len > HEADER_BYTES else 0
        if buckets == 0 or buckets & (buckets - 1) or raw.len != <Py_ssize_t> (HEADER_BYTES + buckets * sizeof(Bucket)):
            raise ValueError(f"limit table: {raw.len} bytes are none")
        if raw.readonly or <uintptr_t> raw.buf & 7 or not self.owner.c_contiguous:
            raise ValueError("limit table: the buffer is read-only or not aligned to 8 bytes")
        words = <uint64_t *> raw.buf
        # Whoever comes first says how it is laid out and how keys are spread.
        lock_swap(&words[AT_LAYOUT], 0, <uint64_t> LAYOUT << 32 | SLOTS)
        if words[AT_LAYOUT] != (<uint64_t> LAYOUT << 32 | SLOTS):
            raise ValueError("limit table: it was written by another version")
        lock_swap(&words[AT_SEED], 0, int.from_bytes(os.urandom(8), "little") | 1)
        self.seed = lock_load(&words[AT_SEED])
        self.generations = words + AT_GENERATIONS
        self.slot = slot % SLOTS
        # What the worker before this one in its slot had in flight went with it.
        self.generations[self.slot] += 1
        self.mark = <uint64_t> (int.from_bytes(os.urandom(4), "little") | 1) << 32 | 1
        self.buckets = <Bucket *> (<char *> raw.buf + HEADER_BYTES)
        self.mask = buckets - 1
        self.share = 1
        self.evictions = evictions
        return self

    cdef Bucket *lock(self, const LimitKey *key) noexcept nogil:
        cdef Bucket *bucket = &self.buckets[mixed(key.lo ^ self.seed) & self.mask]
        cdef uint64_t seen = 0
        cdef uint64_t held = 0
        cdef uint64_t start = 0
        cdef int _
        # Another mark each time, so that whoever waits sees that the lock has moved.
        self.mark += 2
        if lock_swap(&bucket.lock, 0, self.mark):
            return bucket
        while True:
            for _ in range(SPINS):
                held = lock_load(&bucket.lock)
                if held == 0 and lock_swap(&bucket.lock, 0, self.mark):
                    return bucket
            lock_yield()
            if held != seen or start == 0:
                seen = held
                start = clock_us(CLOCK_MONOTONIC)
            elif clock_us(CLOCK_MONOTONIC) - start > LOCK_US and lock_swap(&bucket.lock, seen, self.mark):
                return bucket

    cdef void unlock(self, Bucket *bucket) noexcept nogil:
        # When it was taken over meanwhile it is somebody else's to open.
        lock_swap(&bucket.lock, self.mark, 0)

    cdef Entry *find(self, Bucket *bucket, const LimitKey *key, uint64_t now_us, bint makes) noexcept nogil:
        cdef Entry *entry
        cdef Worth least
        cdef Worth other
        cdef int way = 0
        cdef int i
        for i in range(WAYS):
            if bucket.tags[i] == key.lo and bucket.entries[i].hi == key.hi:
                return &bucket.entries[i]
        if not makes:
            return NULL
        weigh(bucket, 0, now_us, &least)
        for i in range(1, WAYS):
            weigh(bucket, i, now_us, &other)
            # Places are filled from the first to the last: of equals, who came before keeps its place.
            if least.rank > WORTH_NOTHING and not is_less(&least, &other):
                least = other
                way = i
        if least.rank > WORTH_PAST:
            self.evictions[0] += 1
        entry = &bucket.entries[way]
        memset(entry, 0, sizeof(Entry))
        bucket.tags[way] = key.lo
        entry.hi = key.hi
        return entry

    cdef void take(self, const LimitKey *key, uint32_t algorithm, const TermsRec *terms, uint32_t cost, Clock *clock,
                   Outcome *out) noexcept nogil:
        cdef Bucket *bucket = self.lock(key)
        cdef Entry *entry = self.find(bucket, key, clock.us, True)
        if algorithm == GCRA:
            take_gcra(entry, terms, cost, self.share, clock.us * 1000, out)
        else:
            take_window(entry, algorithm == FIXED, terms, cost, self.share, clock, out)
        self.unlock(bucket)

    cdef void adjust(self, const LimitKey *key, uint32_t algorithm, const TermsRec *terms, int what, Clock *clock) noexcept nogil:
        cdef Bucket *bucket = self.lock(key)
        cdef Entry *entry = self.find(bucket, key, clock.us, what > 0)
        cdef uint64_t part
        cdef uint64_t tat
        cdef Window window
        if entry == NULL:
            self.unlock(bucket)
            return
        # A debt that nobody would live to see is none; and it must not overflow.
        if <int64_t> what > 10 * <int64_t> terms.capacity:
            what = <int> (10 * <int64_t> terms.capacity if terms.capacity < 100000000 else 1000000000)
        if algorithm == GCRA:
            part = id64(terms.emission_lo, terms.emission_hi) * self.share
            heed_terms(entry, part, terms.capacity // self.share, clock.us * 1000)
            part *= <uint64_t> (what if what > 0 else -what)
            tat = entry.tat & ~KEPT
            if what > 0:
                entry.tat = (tat if tat > clock.us * 1000 else clock.us * 1000) + part | (entry.tat & KEPT)
            else:
                entry.tat = tat - part if tat > part else 0
        else:
            turn_window(entry, algorithm == FIXED, terms, clock, &window)
            if what > 0:
                entry.count = cut(<uint64_t> entry.count + <uint64_t> what)
            else:
                entry.count = entry.count - <uint32_t> -what if entry.count > <uint32_t> -what else 0
                entry.tat &= ~KEPT
        self.unlock(bucket)

    cdef int lease_take(self, const LimitKey *key, const TermsRec *terms, uint32_t cost, Clock *clock, Outcome *out, uint32_t *want,
                        uint32_t *back) noexcept nogil:
        cdef Bucket *bucket = self.lock(key)
        cdef Entry *entry = self.find(bucket, key, clock.us, True)
        cdef uint32_t now_ms = <uint32_t> (clock.us // 1000) | 1
        cdef int leased = LEASE_NONE
        want[0] = back[0] = 0
        out.granted = False
        out.remaining = out.retry_ms = 0
        if entry.tokens and entry.lease_end <= clock.us:
            back[0] = entry.tokens
            entry.tokens = 0
        if entry.asked and now_ms - entry.asked > ASK_MS:
            entry.asked = 0
        if entry.tokens:
            entry.tokens -= 1
            leased = LEASE_TAKEN
            out.granted = True
            out.remaining = cut(<uint64_t> entry.remaining + <uint64_t> entry.tokens * cost)
            if entry.asked == 0 and entry.tokens <= entry.lease // 2 and entry.lease > 1 and denied_by(entry, terms) <= clock.us:
                want[0] = lease_size(entry, terms, cost, now_ms)
                entry.asked = now_ms
        elif denied_until(entry) > clock.us and denied_by(entry, terms):
            leased = LEASE_DENIED
            out.retry_ms = up_ms(denied_until(entry) - clock.us)
        else:
            want[0] = lease_size(entry, terms, cost, now_ms)
            entry.asked = now_ms
        out.reset_ms = reset_of(terms, out.remaining)
        self.unlock(bucket)
        return leased

    cdef void lease_return(self, const LimitKey *key, uint64_t now_us) noexcept nogil:
        cdef Bucket *bucket = self.lock(key)
        cdef Entry *entry = self.find(bucket, key, now_us, False)
        if entry != NULL:
            entry.tokens = cut(<uint64_t> entry.tokens + 1)
            if entry.lease_end <= now_us:
                entry.lease_end = now_us + 1
        self.unlock(bucket)

    cdef void lease_grant(self, const LimitKey *key, uint32_t granted, uint32_t used, uint32_t remaining, uint32_t retry_ms,
                          uint32_t mark, uint64_t now_us) noexcept nogil:
        cdef Bucket *bucket = self.lock(key)
        cdef Entry *entry = self.find(bucket, key, now_us, True)
        entry.asked = 0
        entry.remaining = remaining
        entry.tokens = cut(<uint64_t> entry.tokens + granted - used)
        entry.lease = cut(<uint64_t> entry.tokens + used)
        entry.since = <uint32_t> (now_us // 1000)
        if granted > used:
            entry.lease_end = now_us + LEASE_MS * 1000
        entry.deny_until = now_us + <uint64_t> retry_ms * 1000 | <uint64_t> mark << DENY_BITS if retry_ms else 0
        self.unlock(bucket)

    cdef void lease_unasked(self, const LimitKey *key, uint64_t now_us) noexcept nogil:
        cdef Bucket *bucket = self.lock(key)
        cdef Entry *entry = self.find(bucket, key, now_us, False)
        if entry != NULL:
            entry.asked = 0
        self.unlock(bucket)

    cdef uint32_t lease_over(self, const LimitKey *key, uint64_t now_us) noexcept nogil:
        cdef Bucket *bucket = self.lock(key)
        cdef Entry *entry = self.find(bucket, key, now_us, False)
        cdef uint32_t left = 0
        if entry != NULL and entry.tokens and entry.lease_end <= now_us:
            left = entry.tokens
            entry.tokens = 0
        self.unlock(bucket)
        return left

    cdef uint32_t denied_ms(self, const LimitKey *key, const TermsRec *terms, uint64_t now_us) noexcept nogil:
        cdef Bucket *bucket = self.lock(key)
        cdef Entry *entry = self.find(bucket, key, now_us, False)
        cdef uint64_t until = denied_by(entry, terms) if entry != NULL else 0
        self.unlock(bucket)
        return up_ms(until - now_us) if until > now_us else 0

    cdef void enter(self, const LimitKey *key, const TermsRec *terms, uint64_t now_us, Outcome *out) noexcept nogil:
        cdef uint64_t most = terms.capacity // self.share
        cdef uint64_t others = 0
        cdef uint32_t slot
        cdef LimitKey own
        cdef Bucket *bucket
        cdef Entry *entry
        if most == 0:
            most = 1
        for slot in range(<uint32_t> SLOTS):
            # a slot without a generation never had a worker
            if slot == self.slot or self.generations[slot] == 0:
                continue
            of_slot(key, slot, &own)
            bucket = self.lock(&own)
            entry = self.find(bucket, &own, now_us, False)
            if entry != NULL and entry.window == <uint32_t> self.generations[slot]:
                others += entry.count
            self.unlock(bucket)
        of_slot(key, self.slot, &own)
        bucket = self.lock(&own)
        entry = self.find(bucket, &own, now_us, True)
        if entry.window != <uint32_t> self.generations[self.slot]:
            entry.window = <uint32_t> self.generations[self.slot]
            entry.count = 0
        out.granted = others + entry.count < most
        if out.granted:
            entry.count += 1
            entry.tat = now_us * 1000 + IN_FLIGHT_NS | KEPT
        out.remaining = cut(most - others - entry.count) if others + entry.count < most else 0
        out.retry_ms = 0 if out.granted else 1000
        out.reset_ms = 0
        self.unlock(bucket)

    cdef void leave(self, const LimitKey *key, uint64_t now_us) noexcept nogil:
        cdef LimitKey own
        cdef Bucket *bucket
        cdef Entry *entry
        of_slot(key, self.slot, &own)
        bucket = self.lock(&own)
        entry = self.find(bucket, &own, now_us, False)
        if entry != NULL and entry.window == <uint32_t> self.generations[self.slot] and entry.count:
            entry.count -= 1
            if entry.count == 0:
                entry.tat = 0
        self.unlock(bucket)


cdef inline void of_slot(const LimitKey *key, uint32_t slot, LimitKey *own) noexcept nogil:
    own.lo = mixed(key.lo + slot) | 1
    own.hi = key.hi ^ slot


# ---- the algorithms, on a locked entry ----

cdef inline void heed_terms(Entry *entry, uint64_t emission, uint64_t capacity, uint64_t now) noexcept nogil:
    """A bucket that was filled by other terms holds as many requests by these, and at most as many as they take at once."""
    cdef uint64_t before = <uint64_t> entry.past << 32 | entry.window
    cdef uint64_t tat = entry.tat & ~KEPT
    cdef uint64_t used
    if before == emission:
        return
    if before and tat > now:
        used = (tat - now + before - 1) // before
        entry.tat = now + (used if used < capacity else capacity) * emission
    entry.window = <uint32_t> (emission & MAX_U32)
    entry.past = <uint32_t> (emission >> 32)


cdef inline void take_gcra(Entry *entry, const TermsRec *terms, uint32_t cost, uint32_t share, uint64_t now, Outcome *out) noexcept nogil:
    """The generic cell rate algorithm: tat is when all is back, and may lie at most a whole capacity ahead. Times in ns."""
    cdef uint64_t emission = id64(terms.emission_lo, terms.emission_hi) * share
    cdef uint64_t capacity = terms.capacity // share
    cdef uint64_t full
    cdef uint64_t tat
    cdef uint64_t after
    if capacity < cost:
        capacity = cost
    heed_terms(entry, emission, capacity, now)
    tat = entry.tat & ~KEPT
    if tat < now:
        tat = now
    after = tat + emission * cost
    full = emission * capacity
    out.granted = after - now <= full
    if out.granted:
        entry.tat = after
        out.remaining = cut((full - (after - now)) // emission if emission else 0)
        out.retry_ms = 0
        out.reset_ms = up_ms((after - now) // 1000)
    else:
        entry.tat = tat | KEPT
        out.remaining = cut((full - (tat - now)) // emission if tat - now < full else 0)
        out.retry_ms = up_ms((after - now - full + 999) // 1000)
        out.reset_ms = up_ms((tat - now) // 1000)


cdef inline void turn_window(Entry *entry, bint is_fixed, const TermsRec *terms, Clock *clock, Window *window) noexcept nogil:
    cdef uint64_t elapsed
    window_of(id64(terms.period_lo, terms.period_hi), wall_of(clock), window)
    if entry.window != <uint32_t> window.number:
        entry.past = entry.count if entry.window + 1 == <uint32_t> window.number else 0
        entry.count = 0
        entry.window = <uint32_t> window.number
        entry.tat = 0
    # How long it matters: this window and, for sliding, the next.
    elapsed = clock.wall_us - window.start
    entry.tat = (clock.us + window.length * (1 if is_fixed else 2) - elapsed) * 1000 | (entry.tat & KEPT)


cdef inline void take_window(Entry *entry, bint is_fixed, const TermsRec *terms, uint32_t cost, uint32_t share, Clock *clock,
                             Outcome *out) noexcept nogil:
    """Windows of the calendar. sliding: what of the window before is still inside a window that ends now counts as well."""
    cdef Window window
    cdef double used
    cdef double limit = terms.capacity // share
    cdef double elapsed
    cdef double wait
    turn_window(entry, is_fixed, terms, clock, &window)
    if limit < cost:
        limit = cost
    elapsed = <double> (clock.wall_us - window.start) / <double> window.length
    used = <double> entry.count + (0.0 if is_fixed else entry.past * (1.0 - elapsed))
    out.granted = used + cost <= limit
    if out.granted:
        entry.count += cost
        entry.tat &= ~KEPT
        used += cost
        out.retry_ms = 0
    elif is_fixed:
        entry.tat |= KEPT
        out.retry_ms = up_ms(window.start + window.length - clock.wall_us)
    else:
        entry.tat |= KEPT
        if entry.count + <double> cost <= limit:
            # as soon as enough of the window before has gone by
            wait = 1.0 - (limit - cost - entry.count) / entry.past - elapsed
        else:
            wait = 1.0 - elapsed + (1.0 - (limit - cost) / entry.count)
        out.retry_ms = up_ms(<uint64_t> (wait * <double> window.length) + 1)
    out.remaining = <uint32_t> (limit - used) if used < limit else 0
    out.reset_ms = up_ms(window.start + window.length * (1 if is_fixed or entry.count == 0 else 2) - clock.wall_us)


cdef inline uint32_t lease_size(const Entry *entry, const TermsRec *terms, uint32_t cost, uint32_t now_ms) noexcept nogil:
    """Requests to ask for: as many as the next LEASE_MS will need if they are like the last; one for a key that is cold."""
    cdef uint64_t most = terms.capacity // 10 // cost
    cdef uint64_t used = entry.lease - entry.tokens if entry.lease > entry.tokens else 0
    cdef uint64_t elapsed = <uint32_t> (now_ms - entry.since)
    cdef uint64_t want
    if elapsed > FORGET_MS or entry.lease == 0:
        return 1
    if elapsed == 0:
        elapsed = 1
    want = used * LEASE_MS // elapsed
    if want > 4 * <uint64_t> entry.lease:
        want = 4 * <uint64_t> entry.lease
    if want > most:
        want = most
    return <uint32_t> want if want else 1


cdef inline uint32_t reset_of(const TermsRec *terms, uint32_t remaining) noexcept nogil:
    """Until all is back, as far as it can be told without the store."""
    cdef uint64_t used = terms.capacity - remaining if terms.capacity > remaining else 0
    return up_ms(used * id64(terms.emission_lo, terms.emission_hi) // 1000)


def table_size(uint64_t buckets=16384):
    return HEADER_BYTES + buckets * sizeof(Bucket)


# ---- for tests ----

cdef class TableProbe:
    cdef LimitTable table
    cdef uint64_t evicted
    cdef TermsRec terms
    cdef Clock clock

    def __init__(self, buffer, *, uint32_t slot=0, uint32_t share=1):
        self.table = LimitTable.over(buffer, slot, &self.evicted)
        self.table.share = share

    cdef LimitKey at(self, uint64_t key, uint64_t requests, uint64_t capacity, uint64_t period, uint64_t now_us, uint64_t wall_us) noexcept:
        cdef LimitKey full
        cdef uint64_t emission = period * 1000 // requests
        self.terms.requests = <uint32_t> requests
        self.terms.capacity = <uint32_t> capacity
        self.terms.period_lo = <uint32_t> period
        self.terms.period_hi = <uint32_t> (period >> 32)
        self.terms.emission_lo = <uint32_t> emission
        self.terms.emission_hi = <uint32_t> (emission >> 32)
        self.clock.us = now_us
        self.clock.wall_us = wall_us
        full.lo = mixed(key) | 1
        full.hi = key
        return full

    def take(self, key, int algorithm, requests, capacity, period, now_us, *, wall_us=0, uint32_t cost=1):
        cdef LimitKey full = self.at(key, requests, capacity, period, now_us, wall_us)
        cdef Outcome out
        self.table.take(&full, <uint32_t> algorithm, &self.terms, cost, &self.clock, &out)
        return bool(out.granted), out.remaining, out.retry_ms, out.reset_ms

    def adjust(self, key, int algorithm, requests, capacity, period, now_us, int what, *, wall_us=0):
        cdef LimitKey full = self.at(key, requests, capacity, period, now_us, wall_us)
        self.table.adjust(&full, <uint32_t> algorithm, &self.terms, what, &self.clock)

    def lease_take(self, key, requests, capacity, now_us, *, uint32_t cost=1):
        cdef LimitKey full = self.at(key, requests, capacity, 1000000, now_us, 0)
        cdef Outcome out
        cdef uint32_t want = 0
        cdef uint32_t back = 0
        leased = self.table.lease_take(&full, &self.terms, cost, &self.clock, &out, &want, &back)
        return ("denied", "taken", "none")[leased], want, back, out.retry_ms if leased == LEASE_DENIED else out.remaining

    def lease_return(self, key, now_us):
        cdef LimitKey full = self.at(key, 1, 1, 1, now_us, 0)
        self.table.lease_return(&full, now_us)

    def lease_grant(self, key, uint32_t granted, now_us, *, uint32_t used=0, uint32_t remaining=0, uint32_t retry_ms=0, requests=100,
                    capacity=100):
        cdef LimitKey full = self.at(key, requests, capacity, 1000000, now_us, 0)
        self.table.lease_grant(&full, granted, used, remaining, retry_ms, mark_of(&self.terms), now_us)

    def lease_unasked(self, key, now_us):
        cdef LimitKey full = self.at(key, 1, 1, 1, now_us, 0)
        self.table.lease_unasked(&full, now_us)

    def lease_over(self, key, now_us):
        cdef LimitKey full = self.at(key, 1, 1, 1, now_us, 0)
        return self.table.lease_over(&full, now_us)

    def denied_ms(self, key, now_us, *, requests=100, capacity=100):
        cdef LimitKey full = self.at(key, requests, capacity, 1000000, now_us, 0)
        return self.table.denied_ms(&full, &self.terms, now_us)

    def enter(self, key, most, now_us):
        cdef LimitKey full = self.at(key, most, most, 1, now_us, 0)
        cdef Outcome out
        self.table.enter(&full, &self.terms, now_us, &out)
        return bool(out.granted), out.remaining

    def leave(self, key, now_us):
        cdef LimitKey full = self.at(key, 1, 1, 1, now_us, 0)
        self.table.leave(&full, now_us)

    def hold(self, key):
        cdef LimitKey full = self.at(key, 1, 1, 1, 0, 0)
        self.table.lock(&full)

    @property
    def evictions(self):
        return self.evicted

    @property
    def keys(self):
        cdef uint64_t bucket
        cdef int way
        used = 0
        for bucket in range(self.table.mask + 1):
            for way in range(WAYS):
                if self.table.buckets[bucket].tags[way]:
                    used += 1
        return used
