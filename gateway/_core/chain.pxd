# chain.pxd - level 4: the filters of a rule, run over a head: header modifiers, URL rewrite, redirect.
# Owns: nothing. Called by: exchange (PHASE_REQUEST_FILTERS, PHASE_PICK for a backend's own filters, PHASE_RESPONSE_FILTERS).

from gateway._core.headers cimport HeaderBlock
from gateway._core.router cimport Decision
from gateway._core.snapshot cimport Snapshot
from gateway._core.types cimport Ref, uint16_t, uint32_t

cdef struct Redirect:
    uint16_t status        # 301, 302, 303, 307, 308
    Ref location           # in the request head's store

# Runs filters [first, first + n) over the request in order. 0: go on. 1: *redirect is the answer. < 0: a negated Fault (a rewritten
# path that is not safe is -F_PATH), or -1 when memory is out. `secure` says whether the client's side is TLS, `port` is the listener's
# number (for Location).
cdef int run_request_filters(Snapshot snapshot, uint32_t first, uint32_t n, HeaderBlock head, const Decision *decision,
                             bint secure, uint32_t port, Redirect *redirect) noexcept nogil
# Response header modifiers of the same filters. 0, or -1 when memory is out.
cdef int run_response_filters(Snapshot snapshot, uint32_t first, uint32_t n, HeaderBlock response) noexcept nogil
