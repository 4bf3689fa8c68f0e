"""Request target, authority, path and addresses: the four forms of RFC 9112 §3.2, and checklist items 27 to 33 and 57."""

from libc.string cimport memchr, memcpy, memset

from gateway._core.ascii cimport (
    C_DIGIT, C_HOST, C_PATH, C_TARGET, C_UNRESERVED, gw_class, gw_hex, is_all, is_word, lower_of)
from gateway._core.faults cimport F_AUTHORITY, F_FIELDS_LARGE, F_PATH, F_TARGET
from gateway._core.headers cimport HEAD_ABSOLUTE, HEAD_ASTERISK, HeaderBlock
from gateway._core.types cimport M_CONNECT, M_OPTIONS, Ref, Span, uint8_t, uint32_t

cdef enum:
    MAX_HOST = 255         # bytes of a host name, RFC 1035
    NOWHERE = 0xffffffff   # off of a Ref when memory is out


cdef inline Ref ref_of(size_t off, size_t n) noexcept nogil:
    cdef Ref ref
    ref.off = <uint32_t> off
    ref.n = <uint32_t> n
    return ref


# ---- addresses ----

cdef uint32_t parse_port(const uint8_t *p, size_t n) noexcept nogil:
    cdef uint32_t value = 0
    cdef size_t i
    if n == 0 or n > 5 or p[0] == 48:
        return 0
    for i in range(n):
        if not gw_class[p[i]] & C_DIGIT:
            return 0
        value = value * 10 + p[i] - 48
    return value if value <= 65535 else 0


cdef bint parse_ipv4(const uint8_t *p, size_t n, uint8_t *out) noexcept nogil:
    cdef size_t i = 0
    cdef size_t start
    cdef uint32_t value
    cdef int part = 0
    while part < 4:
        start = i
        value = 0
        while i < n and i - start < 3 and gw_class[p[i]] & C_DIGIT:
            value = value * 10 + p[i] - 48
            i += 1
        # A leading zero is octal to some readers, so it is no address here.
        if i == start or value > 255 or (p[start] == 48 and i - start > 1):
            return False
        out[part] = <uint8_t> value
        part += 1
        if part < 4:
            if i == n or p[i] != 46:
                return False
            i += 1
    return i == n


cdef bint parse_ipv6(const uint8_t *p, size_t n, uint8_t *out) noexcept nogil:
    cdef uint8_t groups[16]
    cdef int filled = 0        # bytes of groups in use
    cdef int gap = -1          # bytes before "::"
    cdef size_t i = 0
    cdef size_t start
    cdef uint32_t value
    memset(groups, 0, 16)
    if n < 2 or (p[0] == 58 and p[1] != 58):
        return False
    if p[0] == 58:
        gap = 0
        i = 2
    while i < n:
        if filled == 16:
            return False
        start = i
        value = 0
        while i < n and i - start < 4 and gw_hex[p[i]] != 255:
            value = value << 4 | gw_hex[p[i]]
            i += 1
        if i < n and p[i] == 46:           # the rest is a dotted quad
            if filled > 12 or not parse_ipv4(p + start, n - start, groups + filled):
                return False
            filled += 4
            break
        if i == start:
            return False
        groups[filled] = <uint8_t> (value >> 8)
        groups[filled + 1] = <uint8_t> (value & 255)
        filled += 2
        if i == n:
            break
        if p[i] != 58:
            return False
        i += 1
        if i < n and p[i] == 58:
            if gap >= 0:
                return False
            gap = filled
            i += 1
        elif i == n:
            return False
    if gap < 0:
        if filled != 16:
            return False
        memcpy(out, groups, 16)
        return True
    if filled > 14:
        return False
    memset(out, 0, 16)
    memcpy(out, groups, <size_t> gap)
    memcpy(out + 16 - (filled - gap), groups + gap, <size_t> (filled - gap))
    return True


# ---- authority ----

# Length of the host part of p[0:n], brackets included, or 0 when it is no host. Names hold letters, digits, "-", "." and "_" only:
# a percent-encoded or otherwise creative name would mean one thing here and another behind us.
cdef size_t measure_host(const uint8_t *p, size_t n) noexcept nogil:
    cdef uint8_t address[16]
    cdef const uint8_t *end
    cdef size_t i = 0
    if p[0] == 91:                         # "["
        end = <const uint8_t *> memchr(p, 93, n)
        if end == NULL or not parse_ipv6(p + 1, <size_t> (end - p) - 1, address):
            return 0
        return <size_t> (end - p) + 1
    while i < n and gw_class[p[i]] & C_HOST:
        if p[i] == 46 and (i == 0 or p[i - 1] == 46):
            return 0
        i += 1
    return i if i <= MAX_HOST else 0


cdef int parse_authority(HeaderBlock head, Ref authority) noexcept nogil:
    cdef Span span = head.borrow(authority)
    cdef size_t host
    cdef size_t shown
    cdef size_t i = 0
    cdef uint32_t port = 0
    head.authority = authority
    head.host = ref_of(authority.off, 0)
    head.port = 0
    if span.n == 0:
        return 0
    host = measure_host(span.p, span.n)
    if host == 0:
        return -F_AUTHORITY
    if host < span.n:
        if span.p[host] != 58:
            return -F_AUTHORITY
        port = parse_port(span.p + host + 1, span.n - host - 1)
        if port == 0:
            return -F_AUTHORITY
    shown = host - 1 if span.p[host - 1] == 46 else host
    while i < shown and span.p[i] == lower_of(span.p[i]):
        i += 1
    head.port = port
    if i == shown:
        head.host = ref_of(authority.off, shown)
        return 0
    head.host = head.keep(span.p, shown)
    if head.host.off == <uint32_t> NOWHERE:
        return -F_FIELDS_LARGE
    for i in range(shown):
        head.store[head.host.off + i] = lower_of(head.store[head.host.off + i])
    return 0


# ---- path ----

# 1 when normalising would change nothing and find nothing wrong: the usual path, told by one look at each byte.
cdef inline bint is_plain_path(const uint8_t *p, size_t n) noexcept nogil:
    cdef size_t i = 0
    if n == 0 or p[0] != 47:
        return False
    while i < n:
        if not gw_class[p[i]] & C_PATH:
            if p[i] != 47:
                return False
            if i + 1 < n and (p[i + 1] == 47 or p[i + 1] == 46):
                return False
        i += 1
    return True


# 1 for a byte that begins UTF-8 in more bytes than it needs: 0xc0 and 0xc1 always, the others by the byte that follows (0 when that
# is not percent-encoded too).
cdef inline bint is_overlong(uint8_t lead, uint8_t following) noexcept nogil:
    if lead == 0xc0 or lead == 0xc1:
        return True
    if following < 0x80:
        return False
    return ((lead == 0xe0 and following < 0xa0) or (lead == 0xf0 and following < 0x90)
            or (lead == 0xf8 and following < 0x88) or (lead == 0xfc and following < 0x84))


cdef inline int pair_of(const uint8_t *p, size_t n, size_t i) noexcept nogil:
    # value of the %XX at p[i], -1 when there is none
    if i + 2 >= n or p[i] != 37 or gw_hex[p[i + 1]] == 255 or gw_hex[p[i + 2]] == 255:
        return -1
    return <int> gw_hex[p[i + 1]] << 4 | gw_hex[p[i + 2]]


# Decodes what may be decoded, in one pass, with hex digits of the rest in upper case. Bytes written, or a negated Fault.
cdef int decode_path(const uint8_t *p, size_t n, uint8_t *out) noexcept nogil:
    cdef size_t i = 0
    cdef size_t o = 0
    cdef int value
    cdef int following
    while i < n:
        if p[i] != 37:
            if not gw_class[p[i]] & C_TARGET or p[i] == 92 or p[i] == 63:
                return -F_PATH
            out[o] = p[i]
            o += 1
            i += 1
            continue
        value = pair_of(p, n, i)
        if value < 0 or value == 0x2f or value == 0x5c or value == 0:
            return -F_PATH
        if value >= 0xc0:
            following = pair_of(p, n, i + 3)
            if is_overlong(<uint8_t> value, <uint8_t> following if following > 0 else 0):
                return -F_PATH
        if value < 0x80 and gw_class[value] & C_UNRESERVED:
            out[o] = <uint8_t> value
            o += 1
        else:
            out[o] = 37
            out[o + 1] = p[i + 1] - 32 if p[i + 1] >= 97 else p[i + 1]
            out[o + 2] = p[i + 2] - 32 if p[i + 2] >= 97 else p[i + 2]
            o += 3
        i += 3
    return <int> o


cdef int normalise_path(const uint8_t *p, size_t n, uint8_t *out) noexcept nogil:
    cdef size_t i = 0          # reads out, after decoding
    cdef size_t o = 0          # writes out; never passes i
    cdef size_t end
    cdef size_t segment
    cdef size_t dots
    cdef int decoded
    if is_plain_path(p, n):
        memcpy(out, p, n)
        return <int> n
    if n == 0 or p[0] != 47:
        return -F_PATH
    decoded = decode_path(p, n, out)
    if decoded < 0:
        return decoded
    end = <size_t> decoded
    while i < end:                         # out[i] is the slash before a segment
        while i + 1 < end and out[i + 1] == 47:
            i += 1
        segment = i + 1
        i = segment
        while i < end and out[i] != 47:
            i += 1
        dots = 0
        while dots < i - segment and dots < 3 and out[segment + dots] == 46:
            dots += 1
        if dots == 1 or dots == 2:
            if segment + dots < i and out[segment + dots] == 59:       # "/..;" and "/.;" climb in some servers
                return -F_PATH
            if segment + dots + 3 <= i and out[segment + dots] == 37 and out[segment + dots + 1] == 51 \
                    and out[segment + dots + 2] == 66:                 # the same with %3B
                return -F_PATH
            if segment + dots == i:
                if dots == 2:
                    if o == 0:                                         # above the root
                        return -F_PATH
                    o -= 1
                    while out[o] != 47:
                        o -= 1
                if i == end:                                           # "/a/." and "/a/b/.." end in a slash
                    out[o] = 47
                    o += 1
                continue
        out[o] = 47
        o += 1
        while segment < i:
            out[o] = out[segment]
            o += 1
            segment += 1
    return <int> o


# ---- target ----

# Path and query of the bytes [start, end) of the store, which begin with "/", with "?", or are empty (the path is then "/").
cdef int split_path(HeaderBlock head, uint32_t start, uint32_t end) noexcept nogil:
    cdef const uint8_t *p = head.store + start
    cdef size_t n = end - start
    cdef const uint8_t *mark = <const uint8_t *> memchr(p, 63, n) if n else NULL
    cdef size_t path = n if mark == NULL else <size_t> (mark - p)
    cdef int length
    if mark != NULL:
        head.has_query = True
        head.query = ref_of(start + path + 1, n - path - 1)
    if path == 0:
        head.path = head.keep(b"/", 1)
        return 0 if head.path.off != <uint32_t> NOWHERE else -F_FIELDS_LARGE
    if is_plain_path(p, path):
        head.path = ref_of(start, path)
        return 0
    if head.reserve(path) < 0:
        return -F_FIELDS_LARGE
    length = normalise_path(head.store + start, path, head.store + head.used)
    if length < 0:
        return length
    head.path = ref_of(head.used, <size_t> length)
    head.used += <uint32_t> length
    return 0


# Origin-form, or the asterisk of OPTIONS; the bytes are target bytes, and there is one.
cdef int take_path(HeaderBlock head, Ref path) noexcept nogil:
    cdef uint8_t first = head.store[path.off]
    if first == 47:
        return split_path(head, path.off, path.off + path.n)
    if first != 42 or path.n != 1 or head.method != M_OPTIONS:
        return -F_TARGET
    head.flags |= HEAD_ASTERISK
    head.path = path
    return 0


cdef int parse_path(HeaderBlock head, Ref path) noexcept nogil:
    cdef Span span = head.borrow(path)
    if span.n == 0 or not is_all(span.p, span.n, C_TARGET):
        return -F_TARGET
    return take_path(head, path)


cdef int parse_target(HeaderBlock head) noexcept nogil:
    cdef Span span = head.borrow(head.target)
    cdef uint32_t off = head.target.off
    cdef size_t scheme
    cdef size_t i
    cdef int fault
    if span.n == 0 or not is_all(span.p, span.n, C_TARGET):
        return -F_TARGET
    if head.method == M_CONNECT:                                       # authority-form, with a port
        fault = parse_authority(head, head.target)
        return fault if fault < 0 else (0 if head.port else -F_TARGET)
    if span.p[0] == 47 or span.n == 1 and span.p[0] == 42:
        return take_path(head, head.target)
    if span.n > 7 and is_word(span.p, 7, b"http://"):
        scheme = 4
    elif span.n > 8 and is_word(span.p, 8, b"https://"):
        scheme = 5
    else:
        return -F_TARGET
    head.flags |= HEAD_ABSOLUTE
    head.scheme = ref_of(off, scheme)
    i = scheme + 3
    while i < span.n and span.p[i] != 47 and span.p[i] != 63:          # "#" cannot be here any more
        i += 1
    if i == scheme + 3:
        return -F_AUTHORITY
    fault = parse_authority(head, ref_of(off + scheme + 3, i - scheme - 3))
    if fault < 0:
        return fault
    if i == span.n and head.method == M_OPTIONS:                       # RFC 9112 §3.2.4: becomes "*" at the last proxy
        head.flags |= HEAD_ASTERISK
        head.path = head.keep(b"*", 1)
        return 0 if head.path.off != <uint32_t> NOWHERE else -F_FIELDS_LARGE
    return split_path(head, off + <uint32_t> i, off + head.target.n)
