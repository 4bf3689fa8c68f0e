"""What an answer says of the limits that its request met; see limit_answer.pxd."""

from libc.string cimport memcpy

from gateway._core.headers cimport HeaderBlock
from gateway._core.snapshot cimport STYLE_IETF, STYLE_LEGACY, STYLE_X
from gateway._core.tokens cimport token_of
from gateway._core.types cimport Span, uint8_t, uint32_t, uint64_t

cdef enum:
    ROOM = 8192            # MOST_FACTS items of a name and three numbers


cdef inline uint8_t *put(uint8_t *o, const char *text, size_t n) noexcept nogil:
    memcpy(o, text, n)
    return o + n


cdef inline uint8_t *put_number(uint8_t *o, uint64_t number) noexcept nogil:
    cdef uint8_t digits[20]
    cdef int n = 0
    while True:
        digits[n] = <uint8_t> (48 + number % 10)
        number //= 10
        n += 1
        if number == 0:
            break
    while n:
        n -= 1
        o[0] = digits[n]
        o += 1
    return o


cdef inline uint32_t seconds_of(uint32_t ms) noexcept nogil:
    # Up, so that whoever comes back then is not too early.
    return ms // 1000 + (1 if ms % 1000 else 0)


cdef int add(HeaderBlock response, const char *name, size_t name_n, const uint8_t *value, size_t n) noexcept nogil:
    return response.add(token_of(<const uint8_t *> name, name_n), <const uint8_t *> name, name_n, value, n)


cdef int add_number(HeaderBlock response, const char *name, size_t n, uint64_t number) noexcept nogil:
    cdef uint8_t digits[20]
    return add(response, name, n, digits, <size_t> (put_number(digits, number) - digits))


cdef int add_ietf(HeaderBlock response, const LimitFact *facts, uint32_t n) noexcept nogil:
    """Lists of Strings (RFC 9651) with parameters: names are quoted; a limit's name has no character that would need an escape."""
    cdef uint8_t room[ROOM]
    cdef uint8_t *o
    cdef int list
    cdef uint32_t i
    for list in range(2):
        o = room
        for i in range(n):
            if facts[i].style != STYLE_IETF or facts[i].name.n > 253:
                continue
            if o != room:
                o = put(o, b", ", 2)
            o[0] = 0x22
            o = put(o + 1, <const char *> facts[i].name.p, facts[i].name.n)
            o[0] = 0x22
            o += 1
            if list == 0:
                o = put_number(put(o, b";q=", 3), facts[i].requests)
                if facts[i].in_flight:
                    o = put(o, b";qu=\"concurrent-requests\"", 25)
                elif facts[i].seconds:
                    o = put_number(put(o, b";w=", 3), facts[i].seconds)
            else:
                o = put_number(put(o, b";r=", 3), facts[i].remaining)
                if not facts[i].in_flight:
                    o = put_number(put(o, b";t=", 3), seconds_of(facts[i].reset_ms))
        if o == room:
            return 0
        if list == 0 and add(response, b"ratelimit-policy", 16, room, <size_t> (o - room)) < 0:
            return -1
        if list == 1 and add(response, b"ratelimit", 9, room, <size_t> (o - room)) < 0:
            return -1
    return 0


cdef int add_numbers(HeaderBlock response, const LimitFact *facts, uint32_t n, uint32_t style) noexcept nogil:
    """One number each, of the limit that has least left."""
    cdef const LimitFact *least = NULL
    cdef uint32_t i
    for i in range(n):
        if facts[i].style == style and (least == NULL or facts[i].remaining < least.remaining):
            least = &facts[i]
    if least == NULL:
        return 0
    if style == STYLE_LEGACY:
        if (add_number(response, b"ratelimit-limit", 15, least.requests) < 0
                or add_number(response, b"ratelimit-remaining", 19, least.remaining) < 0
                or add_number(response, b"ratelimit-reset", 15, seconds_of(least.reset_ms)) < 0):
            return -1
    elif (add_number(response, b"x-ratelimit-limit", 17, least.requests) < 0
            or add_number(response, b"x-ratelimit-remaining", 21, least.remaining) < 0
            or add_number(response, b"x-ratelimit-reset", 17, seconds_of(least.reset_ms)) < 0):
        return -1
    return 0


cdef int add_limit_fields(HeaderBlock response, const LimitFact *facts, uint32_t n, uint32_t retry_ms) noexcept nogil:
    if n > MOST_FACTS:
        n = MOST_FACTS
    if retry_ms and add_number(response, b"retry-after", 11, seconds_of(retry_ms)) < 0:
        return -1
    if add_ietf(response, facts, n) < 0 or add_numbers(response, facts, n, STYLE_LEGACY) < 0:
        return -1
    return add_numbers(response, facts, n, STYLE_X)


def fields(facts, uint32_t retry_ms=0):
    cdef LimitFact known[MOST_FACTS]
    cdef HeaderBlock response = HeaderBlock.new()
    cdef uint32_t n = 0
    for name, style, requests, seconds, remaining, reset_ms in facts:
        if n == MOST_FACTS:
            raise ValueError("too many")
        known[n].name.p = <const uint8_t *> <const char *> (<bytes> name)
        known[n].name.n = <size_t> len(name)
        known[n].style = style
        known[n].requests = requests
        known[n].seconds = seconds
        known[n].remaining = remaining
        known[n].reset_ms = reset_ms
        known[n].in_flight = False
        n += 1
    if add_limit_fields(response, known, n, retry_ms) < 0:
        raise MemoryError
    found = []
    for i in range(response.count):
        field_name = response.borrow_name(&response.fields[i])
        value = response.borrow_value(&response.fields[i])
        found.append(((<const char *> field_name.p)[:field_name.n], (<const char *> value.p)[:value.n]))
    return found
