# limit_table.pxd - level 4: what is known of each key that is limited, in memory that all workers of a gateway share.
#
# Owns: a reference to the buffer. Called by: limit_check. Made by: the supervisor (zeroed), or by an engine for itself.
# Because workers share it, their number changes nothing: a key has one bucket, one lease and one denial in a gateway.
# Invariants: a bucket is read and written under its lock, held for some ten nanoseconds; nothing in an entry is an index or a pointer, so
#   whatever another process leaves there can make a count wrong and nothing else. A lock whose holder died is taken over after LOCK_US,
#   and what an entry says ends at a time that it says itself.
# Bounded: where all places of a bucket are taken, a new key takes that of one whose time is over; then of one that the store refuses (and
#   would refuse again); then of one that is counted here, or has tokens left; and only where all seven are refused here, or in flight, of
#   one of these. Among equals that goes which matters least long, and of windows that end together that with the smallest count. A key
#   that lost its place begins anew, and is counted in ratelimit_evictions.
#
#   | header, 1024 bytes | bucket: lock, 7 tags, 7 entries of a cache line | bucket | ...

from gateway._core.limit_key cimport LimitKey
from gateway._core.snapshot cimport TermsRec
from gateway._core.types cimport uint32_t, uint64_t

cdef enum:
    WAYS = 7               # entries of a bucket
    SLOTS = 64             # worker slots whose requests in flight are told apart
    LEASE_MS = 200         # a lease holds about so long, and as many tokens as are used in that time

cdef struct Entry:         # 64 bytes
    uint64_t hi            # of the key; the low half is the bucket's tag
    uint64_t tat           # GCRA: ns at which all is back. Others: ns until which the entry matters. Top bit: see KEPT
    uint64_t deny_until    # us in the lower 48 bits: refused until then without asking the store; in the upper 16 the mark of the terms
    uint64_t lease_end     # us
    uint32_t tokens        # of the lease, left; each is one request
    uint32_t lease         # tokens when some came last, those that were used at once too
    uint32_t since         # ms, when that was
    uint32_t asked         # ms of the ask for more that is on its way; 0: none
    uint32_t remaining     # what the store said is left beside the lease
    uint32_t window        # FIXED, SLIDING: number of the window, cut to 32 bits. IN_FLIGHT: generation of the worker. GCRA: see past
    uint32_t count         # in that window; in flight
    uint32_t past          # SLIDING: in the window before. GCRA: upper half of the emission that tat was counted with, the lower in window

cdef struct Bucket:        # 512 bytes
    uint64_t lock          # 0, or the mark of who holds it
    uint64_t tags[7]       # low half of each entry's key; 0: free
    Entry entries[7]

cdef struct Clock:         # the time of a turn
    uint64_t us            # monotonic, the same for all processes
    uint64_t wall_us       # since the epoch; 0: nobody asked yet

cdef struct Outcome:
    bint granted
    uint32_t remaining
    uint32_t retry_ms      # until one more may be granted; 0 when granted
    uint32_t reset_ms      # until all is back

# 16 bits of what a denial was said by: a limit that is changed forgets whom it refused. Of 65,536 changes one goes unnoticed.
cdef uint32_t mark_of(const TermsRec *terms) noexcept nogil

cdef enum Leased:
    LEASE_DENIED = 0       # refused by what the store said
    LEASE_TAKEN = 1
    LEASE_NONE = 2         # the store has to be asked

cdef class LimitTable:
    cdef object owner
    cdef Bucket *buckets
    cdef uint64_t mask     # buckets - 1
    cdef uint64_t *generations   # of the SLOTS worker slots
    cdef uint64_t seed     # so that nobody outside can choose keys of one bucket
    cdef uint32_t slot     # of this worker
    cdef uint64_t mark     # of the locks that this worker takes
    cdef uint32_t share    # replicas that share a local limit, at least 1
    cdef uint64_t *evictions     # a counter: keys that lost their place while they mattered

    # buffer: writable, table_size() bytes for some number of buckets, zeroed or in use by others. Raises ValueError.
    @staticmethod
    cdef LimitTable over(object buffer, uint32_t slot, uint64_t *evictions)
    cdef Bucket *lock(self, const LimitKey *key) noexcept nogil
    cdef void unlock(self, Bucket *bucket) noexcept nogil
    # The key's entry in a locked bucket; a fresh one where there was none, or NULL when only those that exist are wanted.
    cdef Entry *find(self, Bucket *bucket, const LimitKey *key, uint64_t now_us, bint makes) noexcept nogil

    # Decided here, by GCRA, FIXED or SLIDING with a share of the terms. `least`: what must be left for it to pass (the cost).
    cdef void take(self, const LimitKey *key, uint32_t algorithm, const TermsRec *terms, uint32_t cost, Clock *clock,
                   Outcome *out) noexcept nogil
    # More or less than was taken (what > 0: charge it, fitting or not).
    cdef void adjust(self, const LimitKey *key, uint32_t algorithm, const TermsRec *terms, int what, Clock *clock) noexcept nogil

    # One request by the lease or the denial that the store gave. want: tokens to ask for now, without waiting when the answer is
    # LEASE_TAKEN; back: tokens of a lease that is over, to be given back.
    cdef int lease_take(self, const LimitKey *key, const TermsRec *terms, uint32_t cost, Clock *clock, Outcome *out, uint32_t *want,
                        uint32_t *back) noexcept nogil
    cdef void lease_return(self, const LimitKey *key, uint64_t now_us) noexcept nogil
    # The store gave so many, of which some are used already. None at all may still carry a denial, of the terms of this mark_of.
    cdef void lease_grant(self, const LimitKey *key, uint32_t granted, uint32_t used, uint32_t remaining, uint32_t retry_ms,
                          uint32_t mark, uint64_t now_us) noexcept nogil
    # The ask for more came to nothing.
    cdef void lease_unasked(self, const LimitKey *key, uint64_t now_us) noexcept nogil
    # Takes what is left of a lease that is over at this time; 0 otherwise.
    cdef uint32_t lease_over(self, const LimitKey *key, uint64_t now_us) noexcept nogil
    # Whether the store's word refuses the key now; for how long, in ms.
    cdef uint32_t denied_ms(self, const LimitKey *key, const TermsRec *terms, uint64_t now_us) noexcept nogil

    # Requests in flight, over all worker slots. A worker that died has none.
    cdef void enter(self, const LimitKey *key, const TermsRec *terms, uint64_t now_us, Outcome *out) noexcept nogil
    cdef void leave(self, const LimitKey *key, uint64_t now_us) noexcept nogil
