"""The filters of a rule, run over a head: header modifiers, URL rewrite, redirect. Order and meaning are Gateway API's."""

from libc.string cimport memcmp, memcpy

from gateway._core.headers cimport HeaderBlock
from gateway._core.router cimport Decision
from gateway._core.snapshot cimport (
    EDIT_ADD, EDIT_SET, FILTER_REDIRECT, FILTER_REQUEST_HEADERS, FILTER_RESPONSE_HEADERS, FILTER_REWRITE, NONE, PATH_FULL, PATH_KEEP,
    EditRec, FilterRec, Snapshot,
)
from gateway._core.target cimport normalise_path, parse_authority
from gateway._core.tokens cimport token_of
from gateway._core.types cimport Ref, Span, uint8_t, uint16_t, uint32_t

cdef enum:
    NO_MEMORY = -1         # as everywhere in the core; no fault of a path or an authority has this number


cdef bint is_text(Span span, const char *text, size_t n) noexcept nogil:
    return span.n == n and memcmp(span.p, text, n) == 0


# --- header modifiers ---

cdef int set_authority(HeaderBlock head, Span value) noexcept nogil:
    cdef Ref kept = head.keep(value.p, value.n)
    if kept.off == NONE:
        return NO_MEMORY
    return parse_authority(head, kept)


cdef int run_edits(Snapshot snapshot, const FilterRec *filter, HeaderBlock head, bint is_request) noexcept nogil:
    cdef uint32_t i
    cdef int rc
    cdef uint8_t token
    cdef Span name
    cdef Span value
    cdef const EditRec *edit
    for i in range(filter.edits_n):
        edit = snapshot.edits + filter.edits + i
        name = snapshot.borrow(edit.name)
        value = snapshot.borrow(edit.value)
        if is_request and is_text(name, b"host", 4):
            # A request has one Host, written from the authority: it can be replaced, never added to or taken away.
            rc = set_authority(head, value) if edit.kind == EDIT_SET or edit.kind == EDIT_ADD else 0
            if rc < 0:
                return rc
            continue
        token = token_of(name.p, name.n)
        rc = 0
        if edit.kind == EDIT_SET:
            rc = head.set(token, name.p, name.n, value.p, value.n)
        elif edit.kind == EDIT_ADD:
            rc = head.add(token, name.p, name.n, value.p, value.n)
        else:
            head.drop_name(name.p, name.n)
        if rc < 0:
            return NO_MEMORY
    return 0


# --- paths ---

cdef struct PathParts:     # a new path is two pieces: one of the configuration, one of the request's own path
    Span front
    Ref rest               # in the head's store
    size_t n               # bytes of both


cdef PathParts new_path(Snapshot snapshot, const FilterRec *filter, HeaderBlock head, uint32_t prefix) noexcept nogil:
    """What path_kind makes of the path. FilterRec.path of a prefix has no slash at its end, and what follows the prefix that
    matched is empty or begins with one: the two only have to be put together, and nothing at all is "/"."""
    cdef PathParts parts
    parts.front.p = <const uint8_t *> b"/"
    parts.front.n = 0
    parts.rest = head.path
    if filter.path_kind == PATH_FULL:
        parts.front = snapshot.borrow(filter.path)
        parts.rest.n = 0
    elif is_text(head.borrow(head.path), b"*", 1):
        # OPTIONS *: there is no path to change, and none to send anybody to but the root.
        parts.rest.n = 0
    elif filter.path_kind != PATH_KEEP:
        parts.front = snapshot.borrow(filter.path)
        if prefix > head.path.n:
            prefix = head.path.n
        parts.rest.off += prefix
        parts.rest.n -= prefix
    parts.n = parts.front.n + parts.rest.n
    if parts.n == 0:
        parts.front.p = <const uint8_t *> b"/"
        parts.front.n = 1
        parts.n = 1
    return parts


cdef uint8_t *put(uint8_t *out, const uint8_t *p, size_t n) noexcept nogil:
    if n:
        memcpy(out, p, n)
    return out + n


cdef int rewrite(Snapshot snapshot, const FilterRec *filter, HeaderBlock head, uint32_t prefix) noexcept nogil:
    cdef Span host = snapshot.borrow(filter.host)
    cdef PathParts parts
    cdef uint8_t *raw
    cdef uint8_t *at
    cdef Ref kept
    cdef int n
    if host.n:
        kept = head.keep(host.p, host.n)
        if kept.off == NONE:
            return NO_MEMORY
        head.authority = kept
        head.host = kept
        head.port = 0
    if filter.path_kind == PATH_KEEP or is_text(head.borrow(head.path), b"*", 1):
        return 0
    parts = new_path(snapshot, filter, head, prefix)
    if head.reserve(2 * parts.n) < 0:
        return NO_MEMORY
    # The raw path goes behind the room for the normal one and is forgotten. Two pieces that are safe by themselves are
    # looked at again as one: what is forwarded must be normal too.
    raw = head.store + head.used + parts.n
    at = put(raw, parts.front.p, parts.front.n)
    put(at, head.store + parts.rest.off, parts.rest.n)
    n = normalise_path(raw, parts.n, head.store + head.used)
    if n < 0:
        return n
    head.path.off = head.used
    head.path.n = <uint32_t> n
    head.used += <uint32_t> n
    return 0


# --- redirect ---

cdef size_t encode_port(uint32_t port, uint8_t *out) noexcept nogil:
    """":" and the decimal number into out (room for 6 bytes)."""
    cdef uint8_t digits[5]
    cdef size_t n = 0
    cdef size_t i
    while True:
        digits[n] = <uint8_t> (48 + port % 10)
        n += 1
        port //= 10
        if port == 0 or n == 5:
            break
    out[0] = 58
    for i in range(n):
        out[1 + i] = digits[n - 1 - i]
    return n + 1


cdef int build_location(Snapshot snapshot, const FilterRec *filter, HeaderBlock head, uint32_t prefix, bint secure, uint32_t port,
                        Ref *location) noexcept nogil:
    """scheme://host[:port]path[?query]; without any host to name, only the path and what follows it."""
    cdef Span scheme = snapshot.borrow(filter.scheme)
    cdef Span host = snapshot.borrow(filter.host)
    cdef PathParts parts = new_path(snapshot, filter, head, prefix)
    cdef uint8_t port_text[6]
    cdef size_t port_n = 0
    cdef size_t n
    cdef size_t start
    cdef bint has_host = host.n or head.host.n
    cdef uint8_t *at
    if filter.port:
        port = filter.port
    elif scheme.n:
        # A redirect to another scheme goes to the port that belongs to it.
        port = 443 if is_text(scheme, b"https", 5) else 80 if is_text(scheme, b"http", 4) else port
    if scheme.n == 0:
        scheme.p = <const uint8_t *> (b"https" if secure else b"http")
        scheme.n = 5 if secure else 4
    if port and not (port == 443 and is_text(scheme, b"https", 5)) and not (port == 80 and is_text(scheme, b"http", 4)):
        port_n = encode_port(port, port_text)
    n = parts.n
    if has_host:
        n += scheme.n + 3 + (host.n if host.n else head.host.n) + port_n
    if head.has_query:
        n += 1 + head.query.n
    if head.reserve(n) < 0:
        return NO_MEMORY
    if host.n == 0:
        host = head.borrow(head.host)
    start = head.used
    at = head.store + start
    if has_host:
        at = put(at, scheme.p, scheme.n)
        at = put(at, <const uint8_t *> b"://", 3)
        at = put(at, host.p, host.n)
        at = put(at, port_text, port_n)
    at = put(at, parts.front.p, parts.front.n)
    at = put(at, head.store + parts.rest.off, parts.rest.n)
    if head.has_query:
        at = put(at, <const uint8_t *> b"?", 1)
        put(at, head.store + head.query.off, head.query.n)
    location.off = <uint32_t> start
    location.n = <uint32_t> n
    head.used += <uint32_t> n
    return 0


# --- the way in ---

cdef int run_request_filters(Snapshot snapshot, uint32_t first, uint32_t n, HeaderBlock head, const Decision *decision,
                             bint secure, uint32_t port, Redirect *redirect) noexcept nogil:
    cdef uint32_t i
    cdef int rc
    cdef const FilterRec *filter
    for i in range(first, first + n):
        filter = snapshot.filters + i
        rc = 0
        if filter.kind == FILTER_REQUEST_HEADERS:
            rc = run_edits(snapshot, filter, head, True)
        elif filter.kind == FILTER_REWRITE:
            rc = rewrite(snapshot, filter, head, decision.prefix)
        elif filter.kind == FILTER_REDIRECT:
            rc = build_location(snapshot, filter, head, decision.prefix, secure, port, &redirect.location)
            if rc == 0:
                redirect.status = <uint16_t> filter.status
                return 1
        if rc < 0:
            return rc
    return 0


cdef int run_response_filters(Snapshot snapshot, uint32_t first, uint32_t n, HeaderBlock response) noexcept nogil:
    cdef uint32_t i
    cdef const FilterRec *filter
    for i in range(first, first + n):
        filter = snapshot.filters + i
        if filter.kind == FILTER_RESPONSE_HEADERS and run_edits(snapshot, filter, response, False) < 0:
            return -1
    return 0
