# router.pxd - level 4: which rule answers a request. Gateway API's meaning and precedence, no allocation, no Python object
# unless a regular expression has to be asked.
# Owns: nothing. Borrows: a Snapshot, a validated HeaderBlock. Called by: exchange (PHASE_ROUTE), tunnel, explain.

from gateway._core.client_hello cimport ClientHello
from gateway._core.headers cimport HeaderBlock
from gateway._core.snapshot cimport BackendRec, FieldMatch, Row, RuleRec, Snapshot
from gateway._core.types cimport Span, uint8_t, uint32_t, uint64_t

cdef struct Decision:
    uint32_t listener      # index of the most specific listener for the host; NONE: none on this port takes it
    uint32_t rule          # index of the rule; NONE: no route matched (404)
    uint32_t prefix        # bytes of head.path that the PathPrefix match covered; 0 for other matches

# Fills *out for a request that arrived on the port with this index.
cdef void route_request(Snapshot snapshot, uint32_t port, HeaderBlock head, Decision *out) noexcept
# The most specific listener of the port for a name in lower case (of SNI); NONE when none takes it.
cdef uint32_t find_listener(Snapshot snapshot, uint32_t port, const uint8_t *name, size_t n) noexcept nogil
# Index of the port with this id; NONE when the snapshot has it no more.
cdef uint32_t find_port(Snapshot snapshot, uint32_t id_lo, uint32_t id_hi) noexcept nogil
# Index of the rule for whole connections that begin with this hello (NULL: TCP); NONE when no route takes it. *offered: the protocol for
# which the route has it, of those that the client offers; empty when it asks for none. The text is the snapshot's.
cdef uint32_t find_tunnel(Snapshot snapshot, uint32_t listener, const ClientHello *hello, Span *offered) noexcept nogil
# A backend of the rule by weight (Gateway API: a weight of 0 takes nothing); NULL when there is nothing to take.
cdef const BackendRec *pick_backend(Snapshot snapshot, const RuleRec *rule, uint64_t random) noexcept nogil

# The pieces of it that explain asks one by one.
# As route_request; answers the row (one match of the rule), or NONE.
cdef uint32_t find_row(Snapshot s, uint32_t port, HeaderBlock head, Decision *out) noexcept nogil
cdef bint is_method_match(Snapshot s, HeaderBlock head, const Row *row) noexcept nogil
cdef bint is_header_match(Snapshot s, HeaderBlock head, const FieldMatch *match) noexcept nogil
cdef bint is_query_match(Snapshot s, HeaderBlock head, const FieldMatch *match) noexcept nogil
# Whether the pattern with this index matches the whole text.
cdef bint ask_regex(Snapshot s, uint32_t index, const uint8_t *p, size_t n) noexcept with gil
