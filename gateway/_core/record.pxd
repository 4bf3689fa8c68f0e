# record.pxd - level 4: one finished exchange as one line of the access log, gathered in a buffer that the worker drains in batches.
# Owns: the buffer. Called by: exchange (PHASE_LOG). Drained by: worker (observe/access_log writes it, off the loop).
# Invariants: CR, LF, control and non-ASCII bytes of peers are always escaped; the buffer is bounded, what does not fit is counted.

from gateway._core.headers cimport HeaderBlock
from gateway._core.types cimport Span, uint8_t, uint16_t, uint32_t, uint64_t

cdef struct RecordFacts:   # spans are borrowed for the call
    uint64_t wall_us       # wall clock at the start of the request, microseconds since the epoch
    uint64_t duration_us   # start to end
    uint64_t upstream_us   # start of the last attempt to its response head; 0 when there was none
    uint64_t bytes_in      # request content
    uint64_t bytes_out     # response content
    uint32_t flags         # types.Flag bits
    uint32_t attempts
    uint16_t status        # 0 when no response was sent
    uint8_t protocol       # 10, 11, 20
    Span listener
    Span route             # empty when there was none
    Span cluster
    Span upstream          # address of the last attempt's endpoint
    Span client            # the client's address, after trusted hops
    Span request_id
    Span detail            # a fault's or failure's name; empty when all went well

cdef class LogBuffer:
    cdef uint8_t *bytes_   # the batch
    cdef size_t used
    cdef size_t cap
    cdef size_t max_bytes  # beyond this, records are dropped
    cdef uint8_t format    # 0 off, 1 json, 2 text
    cdef uint32_t sample   # share of successful requests logged, in 1/65536; failures always are
    cdef uint64_t seed
    cdef uint64_t dropped

    @staticmethod
    cdef LogBuffer new()
    # One record; request may be empty when its head never parsed. 0, or -1 when it was dropped.
    cdef int write(self, const RecordFacts *facts, HeaderBlock request) noexcept nogil
    cdef bytes take(self)
