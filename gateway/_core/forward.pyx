"""What an intermediary changes in a head that passes through it; see forward.pxd."""

from libc.stddef cimport size_t
from libc.string cimport memcmp, memcpy

from gateway._core.faults cimport F_LOOP, F_MAX_FORWARDS
from gateway._core.headers cimport FIELD_DROP, Field, HeaderBlock
from gateway._core.tokens cimport (
    T_FORWARDED,
    T_HTTP2_SETTINGS,
    T_MAX_FORWARDS,
    T_OTHER,
    T_VIA,
    T_X_FORWARDED_CLIENT_CERT,
    T_X_FORWARDED_FOR,
    T_X_FORWARDED_HOST,
    T_X_FORWARDED_PORT,
    T_X_FORWARDED_PREFIX,
    T_X_FORWARDED_PROTO,
    T_X_REAL_IP,
    T_X_REQUEST_ID,
)
from gateway._core.types cimport M_OPTIONS, Ref, Span, uint8_t, uint32_t, uint64_t

cdef enum:
    MAX_HOPS = 32          # entries of X-Forwarded-For that are looked at
    MAX_ID = 128           # bytes of a request id that is kept


cdef int add(HeaderBlock head, uint8_t token, const char *name, size_t name_n, const uint8_t *value, size_t n) noexcept nogil:
    return head.add(token, <const uint8_t *> name, name_n, value, n)


cdef uint32_t count_loops(HeaderBlock head, Span node) noexcept nogil:
    """How often our pseudonym stands in Via as a received-by."""
    cdef Field *field = head.find(T_VIA)
    cdef Span value
    cdef uint32_t loops = 0
    cdef size_t i
    while field != NULL:
        value = head.borrow_value(field)
        i = 0
        while i + node.n <= value.n:
            if (
                memcmp(value.p + i, node.p, node.n) == 0
                and (i == 0 or value.p[i - 1] == 32)
                and (i + node.n == value.n or value.p[i + node.n] == 44 or value.p[i + node.n] == 32)
            ):
                loops += 1
                i += node.n
            else:
                i += 1
        field = head.find_next(field)
    return loops


cdef uint32_t put_digits(uint8_t *ten, uint32_t value) noexcept nogil:
    """The number in decimal, in the last of ten bytes; how many."""
    cdef uint32_t n = 10
    while True:
        n -= 1
        ten[n] = <uint8_t> (48 + value % 10)
        value //= 10
        if value == 0:
            return 10 - n


cdef int step_max_forwards(HeaderBlock head, bint *answer_here) noexcept nogil:
    """RFC 9110 §7.6.2, for OPTIONS (TRACE is refused before)."""
    cdef Field *field = head.find(T_MAX_FORWARDS)
    cdef Span value
    cdef uint32_t left = 0
    cdef size_t i
    cdef uint8_t digits[10]
    cdef size_t n
    if field == NULL:
        return 0
    value = head.borrow_value(field)
    if value.n == 0 or value.n > 9:
        return -F_MAX_FORWARDS
    for i in range(value.n):
        if not 48 <= value.p[i] <= 57:
            return -F_MAX_FORWARDS
        left = left * 10 + value.p[i] - 48
    if left == 0:
        answer_here[0] = True
        return 0
    n = put_digits(digits, left - 1)
    return head.set(T_MAX_FORWARDS, <const uint8_t *> b"max-forwards", 12, digits + sizeof(digits) - n, n)


cdef uint32_t collect_hops(HeaderBlock head, Ref *hops) noexcept nogil:
    """The entries of X-Forwarded-For, the last MAX_HOPS of them, in order."""
    cdef Field *field = head.find(T_X_FORWARDED_FOR)
    cdef uint32_t n = 0
    cdef uint32_t start
    cdef uint32_t end
    cdef uint32_t stop
    cdef uint32_t i
    cdef Ref entry
    while field != NULL:
        start = field.value
        stop = field.value + field.value_len
        while start < stop:
            end = start
            while end < stop and head.store[end] != 44:
                end += 1
            entry.off = start
            entry.n = end - start
            while entry.n and (head.store[entry.off] == 32 or head.store[entry.off] == 9):
                entry.off += 1
                entry.n -= 1
            while entry.n and (head.store[entry.off + entry.n - 1] == 32 or head.store[entry.off + entry.n - 1] == 9):
                entry.n -= 1
            if entry.n:
                if n == MAX_HOPS:
                    for i in range(MAX_HOPS - 1):
                        hops[i] = hops[i + 1]
                    n -= 1
                hops[n] = entry
                n += 1
            start = end + 1
        field = head.find_next(field)
    return n


cdef bint is_spoofable(const uint8_t *p, size_t n) noexcept nogil:
    """Names that only a trusted hop may send and that have no token of their own."""
    return n > 8 and memcmp(p, <const char *> b"x-envoy-", 8) == 0


cdef int forward_addresses(HeaderBlock head, ForwardFacts *facts) noexcept nogil:
    cdef Ref hops[MAX_HOPS]
    cdef uint32_t n = 0
    cdef uint32_t first
    cdef uint32_t i
    cdef uint32_t room
    cdef uint32_t at
    cdef uint32_t name
    cdef Span span
    cdef bint believe = facts.trusted_hops > 0
    cdef const char *scheme
    cdef uint8_t port[10]
    if believe:
        n = collect_hops(head, hops)
    # n trusted proxies in front each wrote down their own client: the last trusted_hops entries are theirs, earlier ones are hearsay.
    first = n - facts.trusted_hops if n > facts.trusted_hops else 0
    room = 17
    for i in range(first, n):
        room += hops[i].n + 2
    if head.reserve(room + facts.peer.n) < 0:
        return -1
    name = head.used
    memcpy(head.store + name, <const char *> b"x-forwarded-for", 15)
    at = name + 15
    for i in range(first, n):
        memcpy(head.store + at, head.store + hops[i].off, hops[i].n)
        if i == first:
            facts.client.off = at
            facts.client.n = hops[i].n
        at += hops[i].n
        head.store[at] = 44
        head.store[at + 1] = 32
        at += 2
    if first == n:
        facts.client.off = at
        facts.client.n = <uint32_t> facts.peer.n
    memcpy(head.store + at, facts.peer.p, facts.peer.n)
    at += <uint32_t> facts.peer.n
    head.used = at
    head.drop(T_X_FORWARDED_FOR)
    if head.add_stored(T_X_FORWARDED_FOR, name, 15, name + 15, at - name - 15) < 0:
        return -1
    if not believe:
        head.drop(T_X_FORWARDED_PROTO)
        head.drop(T_X_FORWARDED_HOST)
        head.drop(T_X_FORWARDED_PORT)
        head.drop(T_X_FORWARDED_PREFIX)
        if not facts.keeps_certificate:
            head.drop(T_X_FORWARDED_CLIENT_CERT)
        head.drop(T_X_REAL_IP)
        head.drop(T_FORWARDED)
        for i in range(head.count):
            if head.fields[i].token == T_OTHER and is_spoofable(head.store + head.fields[i].name, head.fields[i].name_len):
                head.fields[i].flags |= FIELD_DROP
    if head.find(T_X_FORWARDED_PROTO) == NULL:
        scheme = b"https" if facts.secure else b"http"
        if add(head, T_X_FORWARDED_PROTO, b"x-forwarded-proto", 17, <const uint8_t *> scheme, 5 if facts.secure else 4) < 0:
            return -1
        # Scheme and port are said by one hop together: a proxy in front that tells how it was spoken to knows where as well.
        if facts.port and head.find(T_X_FORWARDED_PORT) == NULL:
            n = put_digits(port, facts.port)
            if add(head, T_X_FORWARDED_PORT, b"x-forwarded-port", 16, port + sizeof(port) - n, n) < 0:
                return -1
    if head.authority.n and head.find(T_X_FORWARDED_HOST) == NULL:
        if head.reserve(16 + head.authority.n) < 0:
            return -1
        span = head.borrow(head.authority)
        if add(head, T_X_FORWARDED_HOST, b"x-forwarded-host", 16, span.p, span.n) < 0:
            return -1
    return 0


cdef bint is_request_id(Span value) noexcept nogil:
    cdef size_t i
    if value.n == 0 or value.n > MAX_ID:
        return False
    for i in range(value.n):
        if not 33 <= value.p[i] <= 126 or value.p[i] == 34 or value.p[i] == 92:
            return False
    return True


cdef int give_request_id(HeaderBlock head, ForwardFacts *facts) noexcept nogil:
    cdef Field *field = head.find(T_X_REQUEST_ID)
    cdef uint8_t text[36]
    cdef const char *hex_digits = b"0123456789abcdef"
    cdef uint64_t word = facts.random_hi
    cdef size_t i
    cdef Field *made
    if field != NULL and head.find_next(field) == NULL and is_request_id(head.borrow_value(field)):
        facts.request_id.off = field.value
        facts.request_id.n = field.value_len
        return 0
    # RFC 9562 §5.4: version 4, variant 10
    for i in range(36):
        if i == 8 or i == 13 or i == 18 or i == 23:
            text[i] = 45
            continue
        if i == 19:
            word = facts.random_lo
        if i == 14:
            text[i] = 52
        elif i == 19:
            text[i] = <uint8_t> hex_digits[8 + (word & 3)]
        else:
            text[i] = <uint8_t> hex_digits[word & 15]
        word >>= 4
    if head.set(T_X_REQUEST_ID, <const uint8_t *> b"x-request-id", 12, text, 36) < 0:
        return -1
    made = head.find(T_X_REQUEST_ID)
    facts.request_id.off = made.value
    facts.request_id.n = made.value_len
    return 0


cdef int forward_request(HeaderBlock head, ForwardFacts *facts, bint *answer_here) noexcept nogil:
    cdef uint8_t via[72]
    cdef int fault
    answer_here[0] = False
    if head.find(T_VIA) != NULL and count_loops(head, facts.node) >= MAX_LOOPS:
        return -F_LOOP
    if head.method == M_OPTIONS:
        fault = step_max_forwards(head, answer_here)
        if fault < 0:
            return fault
    head.drop(T_HTTP2_SETTINGS)
    if forward_addresses(head, facts) < 0 or give_request_id(head, facts) < 0:
        return -1
    memcpy(via, <const char *> b"2.0 " if head.version == 20 else <const char *> b"1.0 " if head.version == 10 else <const char *> b"1.1 ", 4)
    memcpy(via + 4, facts.node.p, facts.node.n)
    return add(head, T_VIA, b"via", 3, via, 4 + facts.node.n)


cdef int show_certificate(HeaderBlock head, Span certificate) noexcept nogil:
    return head.set(T_X_FORWARDED_CLIENT_CERT, <const uint8_t *> b"x-forwarded-client-cert", 23, certificate.p, certificate.n)
