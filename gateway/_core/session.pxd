# session.pxd - level 4: sessions that stay with one endpoint (Gateway API's sessionPersistence, GEP-1619).
# Owns: nothing. Called by: exchange (PICK, RESPONSE_FILTERS).
# A token names a cluster and an endpoint by 64-bit ids, 16 hexadecimal digits each, and, where sessions end at some age, the second of
#   its birth in 8 more. It travels in a cookie or a field of its own; nothing is kept here, so that all workers and replicas agree.
#   Who forges one chooses among the endpoints that the rule leads to anyway.

from gateway._core.headers cimport HeaderBlock
from gateway._core.snapshot cimport BackendRec, RuleRec, Snapshot
from gateway._core.types cimport Span, uint64_t

# The backend that the request's session is with, and *endpoint then the hash of its endpoint's address; without a session, or with one
# that leads elsewhere, any backend by weight, and 0. NULL: the rule has none.
cdef const BackendRec *choose_backend(
    Snapshot snapshot, const RuleRec *rule, HeaderBlock request, uint64_t random, uint64_t *endpoint) noexcept nogil
# Writes the token of the session that begins with this response, unless it is the one with `kept`, the request's. endpoint: text of its
# address. 0, or -1 when memory is out.
cdef int begin_session(Snapshot snapshot, const RuleRec *rule, HeaderBlock response, uint64_t cluster, Span endpoint, uint64_t kept,
                       bint secure) noexcept nogil
