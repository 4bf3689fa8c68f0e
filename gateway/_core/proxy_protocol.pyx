"""PROXY protocol, both versions. Read once at the start of a connection, from the load balancer; so it is plain rather than fast."""

from libc.string cimport memchr, memcmp, memcpy, memset

from gateway._core.faults cimport F_PROXY_HEADER
from gateway._core.target cimport parse_ipv4, parse_ipv6, parse_port
from gateway._core.types cimport uint8_t, uint16_t, uint32_t

cdef enum:
    V1_MAX = 107           # bytes of the longest v1 line, CRLF included
    V2_HEAD = 16           # signature, version and command, family, length
    V2_MAX = 536           # bytes of a v2 header that are taken, its extensions included


cdef inline uint16_t load_u16(const uint8_t *p) noexcept nogil:
    return <uint16_t> (p[0] << 8 | p[1])


# ---- version 1: PROXY TCP4 source destination port port CRLF ----

# Length of the word at p[i:n] that a single space (or the end of the line) ends; 0 when there is none.
cdef inline size_t measure_word(const uint8_t *p, size_t n, size_t i) noexcept nogil:
    cdef size_t end = i
    while end < n and p[end] != 32:
        end += 1
    return end - i


# 0 is written as one digit; no other number begins with it. -1 when it is no port.
cdef int parse_any_port(const uint8_t *p, size_t n) noexcept nogil:
    cdef uint32_t port
    if n == 1 and p[0] == 48:
        return 0
    port = parse_port(p, n)
    return <int> port if port else -1


# The line without CRLF. 0, or -F_PROXY_HEADER.
cdef int parse_v1_line(const uint8_t *p, size_t n, ProxyHeader *out) noexcept nogil:
    cdef size_t i = 11
    cdef size_t word
    cdef int part
    cdef int port
    cdef uint8_t *address
    if n >= 13 and memcmp(p, b"PROXY UNKNOWN", 13) == 0 and (n == 13 or p[13] == 32):
        return 0                           # the rest of the line is to be ignored
    if n < 11:
        return -F_PROXY_HEADER
    if memcmp(p, b"PROXY TCP4 ", 11) == 0:
        out.family = 4
    elif memcmp(p, b"PROXY TCP6 ", 11) == 0:
        out.family = 6
    else:
        return -F_PROXY_HEADER
    for part in range(4):
        word = measure_word(p, n, i)
        if part < 2:
            address = &out.source[0] if part == 0 else &out.destination[0]
            if not (parse_ipv4(p + i, word, address) if out.family == 4 else parse_ipv6(p + i, word, address)):
                return -F_PROXY_HEADER
        else:
            port = parse_any_port(p + i, word)
            if port < 0:
                return -F_PROXY_HEADER
            if part == 2:
                out.source_port = <uint16_t> port
            else:
                out.destination_port = <uint16_t> port
        i += word
        if part < 3:
            if i == n:
                return -F_PROXY_HEADER
            i += 1
    return 0 if i == n else -F_PROXY_HEADER


cdef int parse_v1(const uint8_t *p, size_t n, ProxyHeader *out) noexcept nogil:
    cdef size_t seen = n if n < V1_MAX else V1_MAX
    cdef const uint8_t *feed = <const uint8_t *> memchr(p, 10, seen)
    cdef size_t line
    if feed == NULL:
        return 0 if n < V1_MAX else -F_PROXY_HEADER
    line = <size_t> (feed - p)
    if line == 0 or p[line - 1] != 13 or parse_v1_line(p, line - 1, out) < 0:
        return -F_PROXY_HEADER
    return <int> line + 1


# ---- version 2: signature, version/command, family, length, addresses, extensions ----

cdef int parse_v2(const uint8_t *p, size_t n, ProxyHeader *out) noexcept nogil:
    cdef size_t length
    if n < V2_HEAD:
        return 0
    length = load_u16(p + 14)
    if p[12] >> 4 != 2 or p[12] & 15 > 1 or p[13] >> 4 > 3 or p[13] & 15 > 2 or length + V2_HEAD > V2_MAX:
        return -F_PROXY_HEADER
    if n < length + V2_HEAD:
        return 0
    if p[12] & 15 == 1:                    # PROXY; LOCAL is a health check of the balancer itself
        if p[13] == 0x11:
            if length < 12:
                return -F_PROXY_HEADER
            out.family = 4
            memcpy(out.source, p + 16, 4)
            memcpy(out.destination, p + 20, 4)
            out.source_port = load_u16(p + 24)
            out.destination_port = load_u16(p + 26)
        elif p[13] == 0x21:
            if length < 36:
                return -F_PROXY_HEADER
            out.family = 6
            memcpy(out.source, p + 16, 16)
            memcpy(out.destination, p + 32, 16)
            out.source_port = load_u16(p + 48)
            out.destination_port = load_u16(p + 50)
    return <int> (length + V2_HEAD)


cdef int parse_proxy_header(const uint8_t *p, size_t n, ProxyHeader *out) noexcept nogil:
    cdef int answer
    memset(out, 0, sizeof(ProxyHeader))
    if n == 0:
        return 0
    if memcmp(p, b"PROXY ", n if n < 6 else 6) == 0:
        answer = parse_v1(p, n, out)
    elif memcmp(p, b"\r\n\r\n\x00\r\nQUIT\n", n if n < 12 else 12) == 0:
        answer = parse_v2(p, n, out)
    else:
        answer = -F_PROXY_HEADER
    if answer < 0:
        memset(out, 0, sizeof(ProxyHeader))
    return answer
