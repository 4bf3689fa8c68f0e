# record.pxd - level 4: one finished exchange as one line of the access log, gathered in a buffer that the worker drains in batches.
# Owns: the buffer. Called by: exchange (PHASE_LOG), tunnel. Drained by: worker (observe/access_log writes it, off the loop).
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
    uint16_t status        # 0 when no response was sent, or there is none by nature
    uint8_t protocol       # 10, 11, 20, or a Carried
    bint secure            # the client's connection is TLS: the scheme, whatever the request claims
    Span listener
    Span route             # empty when there was none
    Span cluster
    Span upstream          # address of the last attempt's endpoint
    Span client            # the client's address, after trusted hops
    Span request_id
    Span detail            # a fault's or failure's name; empty when all went well
    Span certificate       # what X-Forwarded-Client-Cert says of the client; empty when it showed no certificate

cdef struct RecordHead:    # what a record takes from the request's head, cut to its bounds
    Span method
    Span host
    Span path
    Span query
    Span user_agent
    Span referer

cdef enum Carried:         # protocols of connections that are carried as they are
    CARRIED_TCP = 1
    CARRIED_TLS = 2

cdef enum Format:
    FORMAT_OFF = 0
    FORMAT_JSON = 1
    FORMAT_TEXT = 2

cdef class LogBuffer:
    cdef uint8_t *bytes_   # the batch
    cdef size_t used
    cdef size_t cap
    cdef size_t max_bytes  # beyond this, records are dropped
    cdef uint8_t format    # Format
    cdef uint32_t sample   # share of successful requests logged, in 1/65536; failures always are
    cdef uint64_t seed
    cdef uint64_t dropped
    cdef uint64_t second   # since the epoch: the second whose text is cached, 0 = none
    cdef uint8_t second_text[32]
    cdef uint32_t second_n

    @staticmethod
    cdef LogBuffer new()
    # One record; request may be empty when its head never parsed. 0, or -1 when it was dropped.
    cdef int write(self, const RecordFacts *facts, HeaderBlock request) noexcept nogil
    # The batch, whole lines; the buffer is empty afterwards.
    cdef bytes take(self)
    cdef bint is_sampled(self, const RecordFacts *facts) noexcept nogil
    cdef uint8_t *write_json(self, uint8_t *o, const RecordFacts *facts, const RecordHead *head) noexcept nogil
    cdef uint8_t *write_text(self, uint8_t *o, const RecordFacts *facts, const RecordHead *head) noexcept nogil
    cdef int reserve(self, size_t n) noexcept nogil
    cdef uint8_t *put_second(self, uint8_t *o, uint64_t wall_us) noexcept nogil
