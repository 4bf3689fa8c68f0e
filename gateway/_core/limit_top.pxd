# limit_top.pxd - level 5: which keys of a rate limit are asked for most, and refused.
#
# Owns: the sketches, and in them the only text of keys that outlives a request. Called by: limit_check (sample, refuse), engine (rows).
# Space-saving (Metwally, Agrawal, El Abbadi: Efficient Computation of Frequent and Top-k Elements in Data Streams): so many counters for a
# limit; a key that has none takes over the smallest with its count, which is then the most by which its own may be too large.
# Invariants: bounded; a request that is not looked at costs one decrement. The first of each second are all looked at, of the others one
#   in sixteen or so, which counts for those that were not. Values that may be secrets (header, cookie, query, certificate) are never kept.

from gateway._core.headers cimport HeaderBlock
from gateway._core.limit_key cimport KeyFacts, LimitKey
from gateway._core.snapshot cimport RateRec, Snapshot
from gateway._core.types cimport uint8_t, uint32_t, uint64_t

cdef enum:
    TOP_COUNTERS = 64      # of a sketch
    TOP_SKETCHES = 64      # limits that are looked at; 24 KiB each
    TOP_TEXT = 160         # bytes of a key's text; a longer one is cut
    TOP_WINDOW_MS = 60000  # what is told is of one to two of these

cdef struct TopCounter:
    uint64_t lo            # of the key
    uint64_t hi
    uint32_t requests
    uint32_t refused       # of them, since the key has this counter
    uint32_t error         # requests that may be other keys'
    uint32_t text_n
    uint8_t text[160]

cdef struct Sketch:        # of one limit
    uint64_t limit         # id
    uint64_t began_ms      # the window in hand
    uint64_t before_ms     # the one before it; 0: there is none
    uint32_t hand          # which of the two is in hand
    uint32_t n[2]
    TopCounter counters[2][64]

cdef class TopKeys:
    cdef Sketch *sketches[64]
    cdef uint32_t n
    cdef uint32_t until    # requests until the next is looked at, that one among them
    cdef uint32_t gap      # requests that it stands for
    cdef uint32_t rest     # of this second that are looked at one by one
    cdef uint64_t second
    cdef uint32_t random

    # Looks at a request. So many does it stand for; 0: this limit has no sketch.
    cdef uint32_t sample(self, Snapshot snapshot, const RateRec *rate, HeaderBlock request, const KeyFacts *facts, const LimitKey *key,
                         uint64_t now_ms) noexcept nogil
    cdef TopCounter *counter_of(self, uint64_t limit, const LimitKey *key, uint64_t now_ms, bint *fresh) noexcept nogil
    # One that was looked at has been refused.
    cdef void refuse(self, uint64_t limit, const LimitKey *key, uint32_t weight) noexcept nogil
    cdef Sketch *sketch_of(self, uint64_t limit, uint64_t now_ms) noexcept nogil
    cdef list rows(self, uint64_t now_ms)
