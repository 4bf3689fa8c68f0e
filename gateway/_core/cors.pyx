"""What a page of another origin may ask for; see cors.pxd."""

from libc.stddef cimport size_t
from libc.string cimport memcmp

from gateway._core.ascii cimport is_same_lower
from gateway._core.headers cimport Field, HeaderBlock
from gateway._core.snapshot cimport CORS_ANY_HEADER, CORS_ANY_METHOD, CORS_ANY_ORIGIN, CORS_CREDENTIALS, CorsRec, Snapshot
from gateway._core.tokens cimport T_ORIGIN, T_OTHER, method_of
from gateway._core.types cimport M_OPTIONS, M_OTHER, Span, uint8_t, uint32_t

cdef const char *REQUEST_METHOD = b"access-control-request-method"
cdef const char *REQUEST_HEADERS = b"access-control-request-headers"


cdef inline Field *find(HeaderBlock head, const char *name, size_t n) noexcept nogil:
    return head.find_name(<const uint8_t *> name, n)


cdef bint is_preflight(HeaderBlock request) noexcept nogil:
    return request.method == M_OPTIONS and request.find(T_ORIGIN) != NULL and find(request, REQUEST_METHOD, 29) != NULL


cdef uint8_t preflight_method(HeaderBlock request) noexcept nogil:
    cdef Field *field = find(request, REQUEST_METHOD, 29)
    return method_of(request.store + field.value, field.value_len) if field != NULL else <uint8_t> M_OTHER


# --- origins ---

cdef size_t without_port(const uint8_t *p, size_t n) noexcept nogil:
    """The length of an origin without a port that its scheme has by itself (RFC 6454 §6.2 leaves it out)."""
    if n > 7 + 3 and is_same_lower(p, <const uint8_t *> b"http://", 7) and memcmp(p + n - 3, b":80", 3) == 0:
        return n - 3
    if n > 8 + 4 and is_same_lower(p, <const uint8_t *> b"https://", 8) and memcmp(p + n - 4, b":443", 4) == 0:
        return n - 4
    return n


cdef bint is_host(const uint8_t *p, size_t n) noexcept nogil:
    """Whether a star may stand for it: no port, no path, nobody's name."""
    cdef size_t i
    if n and p[0] == 91:       # "[": an IPv6 address, colons and all
        return p[n - 1] == 93
    for i in range(n):
        if p[i] == 58 or p[i] == 47 or p[i] == 64:
            return False
    return n > 0


cdef bint is_origin_match(Span pattern, const uint8_t *p, size_t n) noexcept nogil:
    """pattern: scheme://host[:port] in lower case; the host may begin with a star, for any number of labels."""
    cdef size_t front = 0
    cdef size_t back
    while front < pattern.n and pattern.p[front] != 42:
        front += 1
    if front == pattern.n:
        return n == pattern.n and is_same_lower(p, pattern.p, n)
    back = pattern.n - front - 1
    if n < front + back or not is_same_lower(p, pattern.p, front) or not is_same_lower(p + n - back, pattern.p + front + 1, back):
        return False
    return is_host(p + front, n - front - back)


cdef bint is_allowed_origin(Snapshot snapshot, const CorsRec *record, const uint8_t *p, size_t n) noexcept nogil:
    cdef uint32_t i
    if n == 0:
        return False
    if record.flags & CORS_ANY_ORIGIN:
        return True
    n = without_port(p, n)
    for i in range(record.origins_n):
        if is_origin_match(snapshot.borrow(snapshot.origins[record.origins + i]), p, n):
            return True
    return False


# --- the request ---

cdef int cors_ask(Snapshot snapshot, const CorsRec *record, HeaderBlock request, Cors *cors) noexcept nogil:
    cdef Field *field = request.find(T_ORIGIN)
    cors.record = record
    cors.origin.off = cors.origin.n = 0
    cors.is_preflight = False
    # Two Origins are nobody's.
    if field != NULL and request.find_next(field) == NULL and is_allowed_origin(
            snapshot, record, request.store + field.value, field.value_len):
        cors.origin.off = field.value
        cors.origin.n = field.value_len
    if not is_preflight(request):
        return ASKED_NOTHING
    cors.is_preflight = True
    return ASKED_LEAVE if cors.origin.n else ASKED_IN_VAIN


# --- the response ---

cdef int put(HeaderBlock head, const char *name, size_t name_n, const uint8_t *value, size_t n) noexcept nogil:
    return head.add(T_OTHER, <const uint8_t *> name, name_n, value, n)


cdef void forget(HeaderBlock response) noexcept nogil:
    response.drop_name(<const uint8_t *> b"access-control-allow-origin", 27)
    response.drop_name(<const uint8_t *> b"access-control-allow-credentials", 32)
    response.drop_name(<const uint8_t *> b"access-control-allow-methods", 28)
    response.drop_name(<const uint8_t *> b"access-control-allow-headers", 28)
    response.drop_name(<const uint8_t *> b"access-control-expose-headers", 29)
    response.drop_name(<const uint8_t *> b"access-control-max-age", 22)


cdef int put_list(Snapshot snapshot, const Cors *cors, HeaderBlock request, HeaderBlock response, bint is_any, Span given,
                  const char *name, const char *asked, size_t asked_n) noexcept nogil:
    """Methods or headers that are allowed. A star is answered with what was asked for: it is no star where credentials are."""
    cdef Field *field
    if not is_any:
        return put(response, name, 28, given.p, given.n) if given.n else 0
    field = find(request, asked, asked_n)
    if field != NULL and field.value_len:
        return put(response, name, 28, request.store + field.value, field.value_len)
    if cors.record.flags & CORS_CREDENTIALS:
        return 0
    return put(response, name, 28, <const uint8_t *> b"*", 1)


cdef int cors_answer(Snapshot snapshot, const Cors *cors, HeaderBlock request, HeaderBlock response) noexcept nogil:
    cdef const CorsRec *record = cors.record
    cdef Span text
    forget(response)
    if record.flags & CORS_ANY_ORIGIN and not record.flags & CORS_CREDENTIALS:
        if cors.origin.n == 0:
            return 0
        text.p = <const uint8_t *> b"*"
        text.n = 1
    else:
        # Who asks makes a difference, also for those who get nothing: a cache must keep the answers apart.
        if put(response, b"vary", 4, <const uint8_t *> b"origin", 6) < 0:
            return -1
        if cors.origin.n == 0:
            return 0
        text = request.borrow(cors.origin)
    if put(response, b"access-control-allow-origin", 27, text.p, text.n) < 0:
        return -1
    if record.flags & CORS_CREDENTIALS:
        if put(response, b"access-control-allow-credentials", 32, <const uint8_t *> b"true", 4) < 0:
            return -1
    text = snapshot.borrow(record.expose)
    if text.n and put(response, b"access-control-expose-headers", 29, text.p, text.n) < 0:
        return -1
    if not cors.is_preflight:
        return 0
    text = snapshot.borrow(record.max_age)
    if put(response, b"access-control-max-age", 22, text.p, text.n) < 0:
        return -1
    if put_list(snapshot, cors, request, response, record.flags & CORS_ANY_METHOD != 0, snapshot.borrow(record.methods),
                b"access-control-allow-methods", REQUEST_METHOD, 29) < 0:
        return -1
    return put_list(snapshot, cors, request, response, record.flags & CORS_ANY_HEADER != 0, snapshot.borrow(record.headers),
                    b"access-control-allow-headers", REQUEST_HEADERS, 30)
