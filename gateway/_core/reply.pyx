"""Responses that the gateway makes itself: a head and a short body, plain, JSON or HTML by Accept.

Called by the exchange for a REPLY and by downstream for a head that did not parse. The body tells the status and the request id.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.string cimport memcpy, strlen

from gateway._core.h1_encode cimport reason_of
from gateway._core.headers cimport FIELD_DROP, Field, HeaderBlock
from gateway._core.tokens cimport T_ACCEPT, T_CACHE_CONTROL, T_CONTENT_TYPE, T_X_REQUEST_ID
from gateway._core.types cimport FRAME_LENGTH, Span, uint8_t, uint16_t, uint32_t

cdef enum Kind:
    KIND_PLAIN = 0
    KIND_JSON = 1
    KIND_HTML = 2

cdef enum:
    ROOM = 1024            # bytes of the caller's body buffer
    ID_SHOWN = 96          # bytes of the request id in a body; one may become six
    ID_FIELD = 256         # a longer request id is not sent back
    MAX_LIMIT_NAME = 253
    ACCEPT_READ = 512      # bytes of Accept that are read; the first ranges say what is wanted

cdef enum Want:            # what a media range asks for
    WANT_NOTHING = 0       # a type that we do not make
    WANT_PLAIN = 1
    WANT_JSON = 2
    WANT_HTML = 3
    WANT_ANY = 4           # */* or text/*


# ---- Accept (RFC 9110 §12.5.1) ----

cdef inline uint8_t lower(uint8_t c) noexcept nogil:
    return c | 0x20 if 65 <= c <= 90 else c


cdef inline bint is_same(const uint8_t *p, size_t n, const char *text, size_t text_n) noexcept nogil:
    cdef size_t i
    if n != text_n:
        return False
    for i in range(n):
        if lower(p[i]) != <uint8_t> text[i]:
            return False
    return True


cdef int want_of(const uint8_t *p, size_t n) noexcept nogil:
    if is_same(p, n, b"*/*", 3) or is_same(p, n, b"text/*", 6):
        return WANT_ANY
    if is_same(p, n, b"text/html", 9) or is_same(p, n, b"application/xhtml+xml", 21):
        return WANT_HTML
    if is_same(p, n, b"application/json", 16) or (n > 5 and is_same(p + n - 5, 5, b"+json", 5)):
        return WANT_JSON
    if is_same(p, n, b"text/plain", 10):
        return WANT_PLAIN
    return WANT_NOTHING


cdef int quality_of(const uint8_t *p, size_t n) noexcept nogil:
    # In thousandths, of the parameters after a media range; what is malformed counts as 0.
    cdef size_t i = 0
    cdef int scale = 1000
    cdef int quality
    while i < n:
        while i < n and (p[i] == c';' or p[i] == c' ' or p[i] == c'\t'):
            i += 1
        if i + 1 < n and lower(p[i]) == c'q' and p[i + 1] == c'=':
            i += 2
            if i < n and p[i] == c'1':
                return 1000
            if i == n or p[i] != c'0':
                return 0
            quality = 0
            i += 1
            if i < n and p[i] == c'.':
                i += 1
                while i < n and scale > 1 and 48 <= p[i] <= 57:
                    scale //= 10
                    quality += (p[i] - 48) * scale
                    i += 1
            return quality
        while i < n and p[i] != c';':
            i += 1
    return 1000


cdef void read_accept(const uint8_t *p, size_t n, int *best, int *best_quality, int *any_quality) noexcept nogil:
    # Among equals the first named wins; a wildcard never beats a type that was named.
    cdef size_t i = 0
    cdef size_t start
    cdef size_t end
    cdef size_t parameters
    cdef int want
    cdef int quality
    while i < n:
        while i < n and (p[i] == c' ' or p[i] == c'\t' or p[i] == c','):
            i += 1
        start = i
        while i < n and p[i] != c',':
            i += 1
        end = start
        while end < i and p[end] != c';' and p[end] != c' ' and p[end] != c'\t':
            end += 1
        parameters = end
        want = want_of(p + start, end - start)
        if want == WANT_NOTHING:
            continue
        quality = quality_of(p + parameters, i - parameters)
        if want == WANT_ANY:
            if quality > any_quality[0]:
                any_quality[0] = quality
        elif quality > best_quality[0]:
            best_quality[0] = quality
            best[0] = want


cdef int kind_of(HeaderBlock request) noexcept nogil:
    cdef int best = WANT_PLAIN
    cdef int best_quality = 0
    cdef int any_quality = 0
    cdef Field *field
    if request is None:
        return KIND_PLAIN
    field = request.find(T_ACCEPT)
    while field != NULL:
        read_accept(request.store + field.value, field.value_len if field.value_len < ACCEPT_READ else ACCEPT_READ, &best, &best_quality,
                    &any_quality)
        field = request.find_next(field)
    if any_quality > best_quality:
        return KIND_PLAIN
    if best == WANT_HTML:
        return KIND_HTML
    return KIND_JSON if best == WANT_JSON else KIND_PLAIN


# ---- the body ----

cdef inline uint8_t *put(uint8_t *o, const char *text) noexcept nogil:
    cdef size_t n = strlen(text)
    memcpy(o, text, n)
    return o + n


cdef uint8_t *put_id(uint8_t *o, Span id, int kind) noexcept nogil:
    # A request id may come from the client: nothing of it may end the string or the element that it stands in.
    cdef size_t i
    cdef uint8_t c
    for i in range(id.n if id.n < ID_SHOWN else ID_SHOWN):
        c = id.p[i]
        if c < 0x20 or c > 0x7e:
            c = c'?'
        if kind == KIND_HTML and (c == c'<' or c == c'>' or c == c'&' or c == 0x22 or c == 0x27):
            # "&#38;": all five have two digits
            o[0] = c'&'
            o[1] = c'#'
            o[2] = <uint8_t> (48 + c // 10)
            o[3] = <uint8_t> (48 + c % 10)
            o[4] = c';'
            o += 5
            continue
        if kind == KIND_JSON and (c == 0x22 or c == 0x5c):
            o[0] = 0x5c
            o += 1
        o[0] = c
        o += 1
    return o


cdef inline const char *title_of(int status) noexcept nogil:
    cdef const char *title = reason_of(status)
    if title[0] == 0:
        title = b"Error"
    return title


cdef bint is_sendable(Span id) noexcept nogil:
    cdef size_t i
    if id.n == 0 or id.n > ID_FIELD:
        return False
    for i in range(id.n):
        if id.p[i] <= 0x20 or id.p[i] > 0x7e:
            return False
    return True


cdef size_t make_reply(HeaderBlock response, int status, HeaderBlock request, Span request_id, uint8_t *out) noexcept nogil:
    cdef int kind = kind_of(request)
    cdef const char *title = title_of(status)
    cdef const char *media = b"text/plain; charset=utf-8"
    cdef uint8_t number[4]
    cdef uint8_t *o = out
    cdef int failed = 0
    number[0] = <uint8_t> (48 + status // 100 % 10)
    number[1] = <uint8_t> (48 + status // 10 % 10)
    number[2] = <uint8_t> (48 + status % 10)
    number[3] = 0
    response.status = <uint16_t> status
    response.version = 11
    response.framing = FRAME_LENGTH
    if status == 204 or status == 304:         # never any content (RFC 9110 §15.3.5, §15.4.5)
        kind = -1
    elif kind == KIND_HTML:
        media = b"text/html; charset=utf-8"
        o = put(o, b"<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>")
        o = put(put(put(o, <const char *> number), b" "), title)
        o = put(o, b"</title></head>\n<body><h1>")
        o = put(put(put(o, <const char *> number), b" "), title)
        o = put(o, b"</h1>")
        if request_id.n:
            o = put(put_id(put(o, b"<p>Request <code>"), request_id, kind), b"</code></p>")
        o = put(o, b"</body></html>\n")
    elif kind == KIND_JSON:
        media = b"application/json"
        o = put(put(o, b"{\"status\":"), <const char *> number)
        o = put(put(put(o, b",\"title\":\""), title), b"\",\"request_id\":\"")
        o = put(put_id(o, request_id, kind), b"\"}\n")
    else:
        o = put(put(put(put(o, <const char *> number), b" "), title), b"\n")
        if request_id.n:
            o = put(put_id(put(o, b"request "), request_id, kind), b"\n")
    response.length = <size_t> (o - out)
    if kind >= 0:
        failed |= response.add(T_CONTENT_TYPE, b"content-type", 12, <const uint8_t *> media, strlen(media))
    failed |= response.add(T_CACHE_CONTROL, b"cache-control", 13, b"no-store", 8)
    if is_sendable(request_id):
        failed |= response.add(T_X_REQUEST_ID, b"x-request-id", 12, request_id.p, request_id.n)
    if failed:
        # Out of memory for the fields: the status and the length are what the answer cannot do without.
        return response.length
    return response.length


cdef size_t make_refusal(HeaderBlock response, int status, HeaderBlock request, Span request_id, Span limit, uint8_t *out) noexcept nogil:
    cdef size_t n = make_reply(response, status, request, request_id, out)
    cdef uint8_t *o = out
    cdef const char *media = b"application/problem+json"
    if kind_of(request) != KIND_JSON:
        return n
    o = put(o, b"{\"type\":\"https://iana.org/assignments/http-problem-types#")
    if status == 429:
        o = put(o, b"quota-exceeded\",\"status\":429,\"title\":\"")
    else:
        o = put(o, b"temporary-reduced-capacity\",\"status\":503,\"title\":\"")
    o = put(put(o, title_of(status)), b"\",\"violated-policies\":[\"")
    if limit.n <= MAX_LIMIT_NAME:
        memcpy(o, limit.p, limit.n)
        o += limit.n
    o = put(put_id(put(o, b"\"],\"request_id\":\""), request_id, KIND_JSON), b"\"}\n")
    response.length = <size_t> (o - out)
    response.set(T_CONTENT_TYPE, b"content-type", 12, <const uint8_t *> media, strlen(media))
    return response.length


# ---- for tests ----

def reply(int status, accept=(), bytes request_id=b"", bytes limit=None):
    cdef HeaderBlock request = HeaderBlock.new()
    cdef HeaderBlock response = HeaderBlock.new()
    cdef uint8_t out[ROOM]
    cdef Span id
    cdef Span name
    cdef size_t n
    cdef uint32_t i
    cdef Field *field
    id.p = <const uint8_t *> request_id
    id.n = <size_t> len(request_id)
    for value in accept:
        if request.add(T_ACCEPT, b"accept", 6, <const uint8_t *> (<bytes> value), <size_t> len(value)) != 0:
            raise MemoryError
    if limit is None:
        n = make_reply(response, status, request, id, out)
    else:
        name.p = <const uint8_t *> limit
        name.n = <size_t> len(limit)
        n = make_refusal(response, status, request, id, name, out)
    fields = {}
    for i in range(response.count):
        field = &response.fields[i]
        if field.flags & FIELD_DROP:
            continue
        key = PyBytes_FromStringAndSize(<char *> response.store + field.name, field.name_len)
        fields[key] = PyBytes_FromStringAndSize(<char *> response.store + field.value, field.value_len)
    if response.framing != FRAME_LENGTH or response.length != n:
        raise ValueError("the head does not announce the body")
    return response.status, fields, PyBytes_FromStringAndSize(<char *> out, <Py_ssize_t> n)
