# cors.pxd - level 4: what a page of another origin may ask for (Gateway API's CORS filter; the Fetch standard's protocol).
# Owns: nothing. Called by: exchange (before the request's filters, and for every response of a rule that has such rules).

from gateway._core.headers cimport HeaderBlock
from gateway._core.snapshot cimport CorsRec, Snapshot
from gateway._core.types cimport Ref, uint8_t

cdef enum Asked:           # cors_ask
    ASKED_NOTHING = 0      # the request goes on
    ASKED_LEAVE = 1        # a preflight of an allowed origin: the gateway answers it
    ASKED_IN_VAIN = 2      # a preflight of another one

cdef struct Cors:
    const CorsRec *record  # NULL: the rule has none
    Ref origin             # in the request's store, when it is allowed; else empty
    bint is_preflight

# Reads the request as the client sent it, before any filter changes it.
cdef int cors_ask(Snapshot snapshot, const CorsRec *record, HeaderBlock request, Cors *cors) noexcept nogil
# The fields of the response. Those that a backend set are taken away: one of the two has to decide. 0, or -1 when memory is out.
cdef int cors_answer(Snapshot snapshot, const Cors *cors, HeaderBlock request, HeaderBlock response) noexcept nogil
# Whether an origin is one of the record's.
cdef bint is_allowed_origin(Snapshot snapshot, const CorsRec *record, const uint8_t *p, size_t n) noexcept nogil
# Whether a request is a preflight: OPTIONS with Origin and Access-Control-Request-Method.
cdef bint is_preflight(HeaderBlock request) noexcept nogil
# types.Method of the request that a preflight asks for.
cdef uint8_t preflight_method(HeaderBlock request) noexcept nogil
