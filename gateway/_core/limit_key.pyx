"""Whose request it is, as a rate limit counts; see limit_key.pxd."""

from libc.string cimport memcmp, memcpy

from gateway._core.affinity cimport find_pair
from gateway._core.headers cimport Field, HeaderBlock
from gateway._core.snapshot cimport KeyPartRec, RateRec, Snapshot, id64
from gateway._core.tokens cimport T_COOKIE
from gateway._core.types cimport Span, uint8_t, uint32_t, uint64_t

cdef extern from "<arpa/inet.h>" nogil:
    int AF_INET, AF_INET6
    int inet_pton(int, const char *, void *)

cdef enum:
    MISSING = 0x80         # mark in the kind of a part that is not there
    LONGEST_ADDRESS = 45   # bytes of an address in text


# ---- SipHash-2-4 with a result of 128 bits (Aumasson, Bernstein: SipHash; the reference code's 128-bit variant) ----

cdef struct Sip:
    uint64_t v0
    uint64_t v1
    uint64_t v2
    uint64_t v3
    uint64_t tail          # bytes that do not fill a word yet, the first in the lowest
    uint64_t n             # bytes so far


cdef inline uint64_t rotl(uint64_t x, int b) noexcept nogil:
    return (x << b) | (x >> (64 - b))


cdef inline void sip_round(Sip *s) noexcept nogil:
    s.v0 += s.v1
    s.v1 = rotl(s.v1, 13) ^ s.v0
    s.v0 = rotl(s.v0, 32)
    s.v2 += s.v3
    s.v3 = rotl(s.v3, 16) ^ s.v2
    s.v0 += s.v3
    s.v3 = rotl(s.v3, 21) ^ s.v0
    s.v2 += s.v1
    s.v1 = rotl(s.v1, 17) ^ s.v2
    s.v2 = rotl(s.v2, 32)


cdef inline void sip_start(Sip *s, uint64_t k0, uint64_t k1) noexcept nogil:
    s.v0 = k0 ^ <uint64_t> 0x736f6d6570736575
    s.v1 = k1 ^ <uint64_t> 0x646f72616e646f6d ^ 0xee
    s.v2 = k0 ^ <uint64_t> 0x6c7967656e657261
    s.v3 = k1 ^ <uint64_t> 0x7465646279746573
    s.tail = 0
    s.n = 0


cdef inline void sip_word(Sip *s, uint64_t word) noexcept nogil:
    s.v3 ^= word
    sip_round(s)
    sip_round(s)
    s.v0 ^= word


cdef void sip_add(Sip *s, const uint8_t *p, size_t n) noexcept nogil:
    cdef uint64_t word = 0
    cdef int at = <int> (s.n & 7)
    cdef size_t i = 0
    s.n += n
    if at == 0:
        while i + 8 <= n:
            memcpy(&word, p + i, 8)
            sip_word(s, word)
            i += 8
    while i < n:
        s.tail |= <uint64_t> p[i] << (8 * at)
        at += 1
        i += 1
        if at == 8:
            sip_word(s, s.tail)
            s.tail = 0
            at = 0


cdef void sip_end(Sip *s, uint64_t *lo, uint64_t *hi) noexcept nogil:
    cdef int _
    sip_word(s, s.tail | (s.n & 0xff) << 56)
    s.v2 ^= 0xee
    for _ in range(4):
        sip_round(s)
    lo[0] = s.v0 ^ s.v1 ^ s.v2 ^ s.v3
    s.v1 ^= 0xdd
    for _ in range(4):
        sip_round(s)
    hi[0] = s.v0 ^ s.v1 ^ s.v2 ^ s.v3


# ---- keys ----

cdef inline void start_key(Sip *s, uint64_t limit) noexcept nogil:
    # Any constants do; they are the same in every gateway.
    sip_start(s, <uint64_t> 0x697374686d757331, <uint64_t> 0x6c696d69746b6579)
    sip_add(s, <const uint8_t *> &limit, 8)


cdef inline void add_part(Sip *s, uint32_t kind, Span value) noexcept nogil:
    # With its length before it, so that no two lists of parts are one text.
    cdef uint64_t mark = <uint64_t> kind << 56 | (value.n & <uint64_t> 0xffffffffffffff)
    sip_add(s, <const uint8_t *> &mark, 8)
    sip_add(s, value.p, value.n)


cdef inline void end_key(Sip *s, LimitKey *key) noexcept nogil:
    sip_end(s, &key.lo, &key.hi)
    if key.lo == 0:
        key.lo = 1


cdef Span network_of(Span text, uint8_t *room) noexcept nogil:
    """What of a client's address is one client: all of IPv4, half of IPv6. A text that is no address stays what it is."""
    cdef char plain[46]
    cdef size_t n = text.n
    cdef size_t i
    cdef Span value = text
    cdef const uint8_t *p = text.p
    # Some proxies write the port as well, which is another one on each connection.
    if n and p[0] == c'[':
        p += 1
        n -= 1
        for i in range(n):
            if p[i] == c']':
                n = i
                break
    else:
        i = 0
        while i < n and p[i] != c'.' and p[i] != c':':
            i += 1
        if i < n and p[i] == c'.':
            # a dot before any colon: IPv4, whose colon begins the port
            while i < n and p[i] != c':':
                i += 1
            n = i
    if n > LONGEST_ADDRESS or n == 0:
        return value
    memcpy(plain, p, n)
    plain[n] = 0
    value.p = room
    if inet_pton(AF_INET, plain, room) == 1:
        value.n = 4
    elif inet_pton(AF_INET6, plain, room) == 1:
        if memcmp(room, b"\0\0\0\0\0\0\0\0\0\0\xff\xff", 12) == 0:
            value.p = room + 12
            value.n = 4
        else:
            value.n = 8
    else:
        value = text
    return value


cdef bint find_subject(Span certificate, Span *value) noexcept nogil:
    """The first URI, or without one the first DNS name, of elements NAME=value set apart by ";"; quoted values may hold any byte."""
    cdef size_t i = 0
    cdef size_t start
    cdef bint quoted
    cdef bint found = False
    while i < certificate.n:
        start = i
        quoted = False
        while i < certificate.n and (quoted or certificate.p[i] != c';'):
            if certificate.p[i] == 0x5c and quoted:
                i += 1
            elif certificate.p[i] == 0x22:
                quoted = not quoted
            i += 1
        if i > certificate.n:
            i = certificate.n
        if i - start > 4 and memcmp(certificate.p + start, <const char *> b"URI=", 4) == 0:
            value.p = certificate.p + start + 4
            value.n = i - start - 4
            return True
        if not found and i - start > 4 and memcmp(certificate.p + start, <const char *> b"DNS=", 4) == 0:
            value.p = certificate.p + start + 4
            value.n = i - start - 4
            found = True
        i += 1
    return found


cdef bint borrow_part(uint32_t kind, Span name, HeaderBlock request, const KeyFacts *facts, uint8_t *room, Span *value) noexcept nogil:
    cdef Field *field
    value.p = room
    value.n = 0
    if kind == PART_HEADER:
        field = request.find_name(name.p, name.n)
        if field == NULL:
            return False
        value[0] = request.borrow_value(field)
    elif kind == PART_COOKIE:
        field = request.find(T_COOKIE)
        while field != NULL and not find_pair(request.borrow_value(field), 59, name.p, name.n, value):
            field = request.find_next(field)
        return field != NULL
    elif kind == PART_QUERY:
        return find_pair(request.borrow(request.query), 38, name.p, name.n, value)
    elif kind == PART_CLIENT:
        if facts.client.n == 0:
            return False
        value[0] = network_of(facts.client, room)
    elif kind == PART_HOST:
        value[0] = request.borrow(request.host)
    elif kind == PART_PATH:
        value[0] = request.borrow(request.path)
    elif kind == PART_METHOD:
        value[0] = request.borrow(request.method_text)
    elif kind == PART_ROUTE:
        memcpy(room, &facts.route, 8)
        value.n = 8
    elif kind == PART_SUBJECT:
        return find_subject(facts.certificate, value)
    return True


cdef bint limit_key_of(Snapshot snapshot, const RateRec *rate, HeaderBlock request, const KeyFacts *facts, LimitKey *key) noexcept nogil:
    cdef Sip sip
    cdef uint8_t room[PART_ROOM]
    cdef const KeyPartRec *part
    cdef Span value
    cdef uint32_t i
    start_key(&sip, id64(rate.id_lo, rate.id_hi))
    for i in range(rate.parts_n):
        part = &snapshot.key_parts[rate.parts + i]
        if borrow_part(part.kind, snapshot.borrow(part.name), request, facts, room, &value):
            add_part(&sip, part.kind, value)
        elif rate.skips:
            return False
        else:
            value.n = 0
            add_part(&sip, part.kind | MISSING, value)
    end_key(&sip, key)
    return True


cdef uint64_t digest_of(Span value) noexcept nogil:
    cdef Sip sip
    cdef LimitKey key
    start_key(&sip, 0)
    sip_add(&sip, value.p, value.n)
    end_key(&sip, &key)
    return key.hi


cdef const char *part_word(uint32_t kind) noexcept nogil:
    if kind == PART_HEADER:
        return b"header"
    if kind == PART_COOKIE:
        return b"cookie"
    if kind == PART_QUERY:
        return b"query"
    if kind == PART_CLIENT:
        return b"clientAddress"
    if kind == PART_HOST:
        return b"host"
    if kind == PART_PATH:
        return b"path"
    if kind == PART_METHOD:
        return b"method"
    if kind == PART_ROUTE:
        return b"route"
    if kind == PART_SUBJECT:
        return b"clientSubjectAltName"
    return b"constant"


PART_KINDS = {part_word(number).decode(): number for number in range(PART_HEADER, PART_CONSTANT + 1)}


def key_of(uint64_t limit_id, parts):
    cdef Sip sip
    cdef uint8_t room[PART_ROOM]
    cdef LimitKey key
    cdef Span value
    cdef uint32_t kind
    cdef bytes text
    start_key(&sip, limit_id)
    for number, given in parts:
        kind = number
        text = given if given is not None else b""
        value.p = <const uint8_t *> <const char *> text
        value.n = <size_t> len(text)
        if given is None:
            kind |= MISSING
        elif kind == PART_CLIENT:
            value = network_of(value, room)
        elif kind == PART_CONSTANT:
            value.n = 0
        add_part(&sip, kind, value)
    end_key(&sip, &key)
    return key.lo, key.hi


def siphash(bytes data, uint64_t k0, uint64_t k1):
    cdef Sip sip
    cdef uint64_t out[2]
    sip_start(&sip, k0, k1)
    sip_add(&sip, <const uint8_t *> <const char *> data, <size_t> len(data))
    sip_end(&sip, &out[0], &out[1])
    return (<const uint8_t *> out)[:16]


def subject_of(bytes certificate):
    cdef Span span
    cdef Span value
    span.p = <const uint8_t *> <const char *> certificate
    span.n = <size_t> len(certificate)
    return (<const char *> value.p)[:value.n] if find_subject(span, &value) else None
