# forward.pxd - level 4: what an intermediary changes in a head that passes through it: Via, X-Forwarded-*, request id, hops.
# Owns: nothing. Called by: exchange, once per request before the route's own filters, so that those have the last word.
# Sources: RFC 9110 §7.6 and checklist items 34 to 38 and 48.

from gateway._core.headers cimport HeaderBlock
from gateway._core.types cimport Ref, Span, uint8_t, uint32_t, uint64_t

cdef enum:
    MAX_LOOPS = 8          # times that this gateway may be in Via before it refuses (item 38)

cdef struct ForwardFacts:
    bint keeps_certificate # x-forwarded-client-cert is ours, or was let through before
    Span peer              # address text of the other end of the connection
    Span node              # our pseudonym
    uint32_t trusted_hops  # proxies in front that may be believed
    bint secure            # the client's side is TLS
    uint32_t port          # that the client is connected to; 0: not known
    uint64_t random_hi     # for a request id, should one be needed
    uint64_t random_lo
    Ref client             # out: the client's address as believed, in the head's store
    Ref request_id         # out: likewise

# 0; -F_LOOP; -F_MAX_FORWARDS; or -1 when memory is out. With *answer_here set, Max-Forwards has run out and this hop answers (OPTIONS).
cdef int forward_request(HeaderBlock head, ForwardFacts *facts, bint *answer_here) noexcept nogil
# What the client proved of itself goes into the request before it is routed, so that routes can ask for it. 0, or -1 when memory is out.
cdef int show_certificate(HeaderBlock head, Span certificate) noexcept nogil
