"""What of a request consistent hashing goes by; see affinity.pxd."""

from libc.string cimport memcmp

from gateway._core.balance cimport hash64_of
from gateway._core.headers cimport Field, HeaderBlock
from gateway._core.tokens cimport T_COOKIE
from gateway._core.types cimport Span, uint8_t, uint32_t, uint64_t


cdef bint affinity_key(uint32_t kind, Span name, HeaderBlock request, Span client, uint64_t *key) noexcept nogil:
    cdef Span span
    if not find_value(kind, name, request, client, &span):
        return False
    key[0] = hash64_of(span.p, span.n)
    return True


cdef bint find_value(uint32_t kind, Span name, HeaderBlock request, Span client, Span *value) noexcept nogil:
    cdef Field *field
    if kind == 1:
        field = request.find_name(name.p, name.n)
        if field == NULL:
            return False
        value[0] = request.borrow_value(field)
    elif kind == 2:
        field = request.find(T_COOKIE)
        while field != NULL and not find_pair(request.borrow_value(field), 59, name.p, name.n, value):
            field = request.find_next(field)
        if field == NULL:
            return False
    elif kind == 3:
        if not find_pair(request.borrow(request.query), 38, name.p, name.n, value):
            return False
    else:
        value[0] = client
    return True


cdef bint find_pair(Span text, uint8_t separator, const uint8_t *name, size_t n, Span *value) noexcept nogil:
    """name=value among pairs set apart by the separator (and spaces)."""
    cdef size_t i = 0
    cdef size_t end
    while i < text.n:
        while i < text.n and text.p[i] == 32:
            i += 1
        end = i
        while end < text.n and text.p[end] != separator:
            end += 1
        if end - i > n and text.p[i + n] == 61 and memcmp(text.p + i, name, n) == 0:
            value.p = text.p + i + n + 1
            value.n = end - i - n - 1
            return True
        i = end + 1
    return False
