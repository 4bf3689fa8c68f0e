# limit_answer.pxd - level 4: what an answer says of the limits that its request met.
# Owns: nothing. Called by: limit_check. Sources: draft-ietf-httpapi-ratelimit-headers (RateLimit, RateLimit-Policy), RFC 9110 §10.2.3
# (Retry-After), the fields that gateways sent before there was a draft.

from gateway._core.headers cimport HeaderBlock
from gateway._core.types cimport Span, uint32_t

cdef struct LimitFact:     # one limit of one request
    Span name
    uint32_t style         # snapshot.Style
    uint32_t requests
    uint32_t seconds       # of the period; 0: none that can be told
    uint32_t remaining
    uint32_t reset_ms
    bint in_flight

# Adds the fields of these limits, each in its style. retry_ms > 0: Retry-After as well. 0, or -1 when memory is out.
cdef int add_limit_fields(HeaderBlock response, const LimitFact *facts, uint32_t n, uint32_t retry_ms) noexcept nogil
cdef enum:
    MOST_FACTS = 24
