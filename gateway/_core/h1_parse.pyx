"""Heads of HTTP/1.x: start line and field lines, cut and copied once, strict where readers of HTTP are known to disagree."""

from libc.string cimport memchr, memcmp

from gateway._core.ascii cimport C_TARGET, C_TOKEN, copy_bytes, copy_value, gw_class, gw_lower, is_blank
from gateway._core.faults cimport (
    F_FIELD_NAME, F_FIELD_VALUE, F_FIELDS_LARGE, F_FIELDS_MANY, F_LINE_END, F_METHOD, F_START_LINE, F_STATUS, F_TARGET,
    F_TARGET_LONG, F_VERSION)
from gateway._core.headers cimport Field, HeaderBlock
from gateway._core.tokens cimport method_of, token_of
from gateway._core.types cimport M_OTHER, uint8_t, uint16_t, uint32_t
from gateway._core.validate cimport validate_request, validate_response

cdef enum:
    MAX_METHOD = 32        # bytes of a method
    MAX_BLANK = 2          # empty lines passed over before a request line (item 24)
    MAX_NAME = 65535       # bytes of a field name
    MAX_HEAD = 0x7fffffff  # bytes that offsets are counted in


# ---- start lines ----

# 10 or 11 for the eight bytes of an HTTP version; 0 when it is another version of HTTP; -1 when it is none.
cdef inline int version_of(const uint8_t *p) noexcept nogil:
    if memcmp(p, b"HTTP/1.1", 8) == 0:
        return 11
    if memcmp(p, b"HTTP/1.0", 8) == 0:
        return 10
    if memcmp(p, b"HTTP/", 5) == 0 and p[5] >= 48 and p[5] <= 57 and p[6] == 46 and p[7] >= 48 and p[7] <= 57:
        return 0
    return -1


# Every function below that takes a line may read p[n], which is its CR: it is no token, no target byte and no blank, so that loops over
# those end there by themselves.

# METHOD SP target SP HTTP/1.x, with nothing else (items 25 and 26). 0 or a negated Fault.
cdef int parse_request_line(HeaderBlock head, const uint8_t *p, size_t n) noexcept nogil:
    cdef size_t method = 0
    cdef size_t end            # of the target
    cdef size_t i
    cdef int version
    while gw_class[p[method]] & C_TOKEN:
        method += 1
    if method == n and n <= MAX_METHOD:
        return -F_START_LINE
    if method == 0 or method > MAX_METHOD or p[method] != 32:
        return -F_METHOD
    if n < method + 11 or p[n - 9] != 32:
        return -F_START_LINE
    version = version_of(p + n - 8)
    if version <= 0:
        return -F_VERSION if version == 0 else -F_START_LINE
    end = n - 9
    i = method + 1
    while gw_class[p[i]] & C_TARGET:       # p[end] is the space before the version
        i += 1
    if i != end:
        return -F_START_LINE if is_blank(p[i]) else -F_TARGET
    if head.reserve(end) < 0:
        return -F_FIELDS_LARGE
    copy_bytes(head.store, p, end)
    head.used = <uint32_t> end
    head.method_text.n = <uint32_t> method
    head.target.off = <uint32_t> (method + 1)
    head.target.n = <uint32_t> (end - method - 1)
    head.method = method_of(p, method)
    head.version = <uint8_t> version
    return 0


cdef bint h1_is_foreign(const uint8_t *p, size_t n) noexcept nogil:
    cdef size_t word = 0
    cdef size_t i
    while word < n and gw_class[p[word]] & C_TOKEN:
        word += 1
    if word == 0 or word == n or p[word] != 32 or method_of(p, word) != M_OTHER:
        return False
    for i in range(word, n):
        if p[i] == 13 or p[i] == 10:
            return True
        if p[i] == c'/':
            return False
    return False


# HTTP/1.x SP 3DIGIT [SP reason]; some origins leave out the space before an empty reason. 0 or a negated Fault.
cdef int parse_status_line(HeaderBlock head, const uint8_t *p, size_t n) noexcept nogil:
    cdef int version
    cdef size_t i
    if n < 12:
        return -F_START_LINE
    version = version_of(p)
    if version <= 0:
        return -F_VERSION if version == 0 else -F_START_LINE
    if p[8] != 32:
        return -F_START_LINE
    for i in range(3):
        if p[9 + i] < 48 or p[9 + i] > 57:
            return -F_STATUS
        head.status = head.status * 10 + p[9 + i] - 48
    if n > 12 and p[12] != 32:
        return -F_STATUS
    head.version = <uint8_t> version
    if n > 13:
        if head.reserve(n - 13) < 0:
            return -F_FIELDS_LARGE
        if not copy_value(head.store, p + 13, n - 13):
            return -F_FIELD_VALUE
        head.used = <uint32_t> (n - 13)
        head.reason.n = head.used
    return 0


# ---- fields ----

# name ":" OWS value OWS into the store as the line `name: value CRLF`. 0 or a negated Fault.
cdef inline int parse_field(HeaderBlock head, const uint8_t *p, size_t n) noexcept nogil:
    cdef uint8_t *out
    cdef uint8_t low
    cdef size_t name = 0
    cdef size_t start
    cdef uint32_t used = head.used
    cdef uint8_t token
    cdef Field *field
    if n + 4 > head.cap - used and head.reserve(n + 4) < 0:
        return -F_FIELDS_LARGE
    out = head.store + used
    low = gw_lower[p[0]]
    while low:
        out[name] = low
        name += 1
        low = gw_lower[p[name]]
    if name == 0 or p[name] != 58 or name > MAX_NAME:
        return -F_LINE_END if is_blank(p[0]) else -F_FIELD_NAME        # a line that begins with white space: items 14 and 19
    start = name + 1
    while is_blank(p[start]):
        start += 1
    while n > start and is_blank(p[n - 1]):
        n -= 1
    n -= start
    out[name] = 58
    out[name + 1] = 32
    if not copy_value(out + name + 2, p + start, n):
        return -F_FIELD_VALUE
    out[name + 2 + n] = 13
    out[name + 3 + n] = 10
    head.used = used + <uint32_t> (name + n + 4)
    token = token_of(out, name)
    if head.count == head.capacity:        # add_stored makes room; the usual field is written here without the call
        return 0 if head.add_stored(token, used, name, used + <uint32_t> name + 2, n) == 0 else -F_FIELDS_MANY
    field = &head.fields[head.count]
    field.name = used
    field.value = used + <uint32_t> name + 2
    field.value_len = <uint32_t> n
    field.name_len = <uint16_t> name
    field.token = token
    field.flags = 0
    head.count += 1
    if not head.first[token]:
        head.first[token] = <uint16_t> head.count
    return 0


# ---- heads ----

cdef inline int restart(HeadParser *parser, int answer) noexcept nogil:
    parser.pos = 0
    parser.scan = 0
    parser.fields = 0
    parser.phase = 0
    parser.blank = 0
    return answer


# What an unfinished line already says: 0, or the negated Fault of a line that is too long. Nobody makes us hold more than the limits.
cdef int check_unfinished(const HeadParser *parser, const uint8_t *p, size_t n, const HeadLimits *limits, bint is_request) noexcept nogil:
    cdef size_t line = n - parser.pos
    if parser.phase == 1:
        return -F_FIELDS_LARGE if n - parser.fields > <size_t> limits.max_bytes + 2 else 0
    if line > MAX_METHOD and is_request and memchr(p + parser.pos, 32, MAX_METHOD + 1) == NULL:
        return -F_METHOD
    if line > <size_t> limits.max_line + 1:
        return -F_TARGET_LONG if is_request else -F_START_LINE
    return 0


cdef inline int parse_start(HeadParser *parser, HeaderBlock head, const uint8_t *p, size_t n, const HeadLimits *limits,
                            bint is_request) noexcept nogil:
    if n > limits.max_line:
        if not is_request:
            return -F_START_LINE
        return -F_METHOD if memchr(p, 32, min(n, <size_t> MAX_METHOD + 1)) == NULL else -F_TARGET_LONG
    return parse_request_line(head, p, n) if is_request else parse_status_line(head, p, n)


# Every complete line there is. > 0: end of the head; 0: needs more; < 0: a negated Fault.
cdef inline int parse_lines(HeadParser *parser, HeaderBlock head, const uint8_t *p, size_t n, const HeadLimits *limits,
                            bint is_request) noexcept nogil:
    cdef const uint8_t *feed
    cdef size_t end            # offset after the LF of the line
    cdef size_t line           # bytes of the line without CRLF
    cdef int fault
    if n > MAX_HEAD:
        n = MAX_HEAD
    if parser.scan == 0:
        if n == 0:
            return 0
        head.clear()
        # A first byte that begins no head: TLS on a plain port, the rest of a body, binary noise.
        if not (gw_class[p[0]] & C_TOKEN or (is_request and p[0] == 13)):
            return -F_LINE_END if p[0] == 10 else (-F_METHOD if is_request else -F_START_LINE)
    while True:
        feed = <const uint8_t *> memchr(p + parser.scan, 10, n - parser.scan)
        if feed == NULL:
            parser.scan = <uint32_t> n
            return check_unfinished(parser, p, n, limits, is_request)
        end = <size_t> (feed - p) + 1
        line = end - parser.pos
        if line < 2 or p[end - 2] != 13:
            return -F_LINE_END
        line -= 2
        if parser.phase == 1:
            if line == 0:
                return <int> end
            if end - parser.fields > limits.max_bytes:
                return -F_FIELDS_LARGE
            if head.count >= limits.max_count:
                return -F_FIELDS_MANY
            fault = parse_field(head, p + parser.pos, line)
            if fault < 0:
                return fault
        elif line == 0 and is_request:
            parser.blank += 1
            if parser.blank > MAX_BLANK:
                return -F_START_LINE
        else:
            fault = parse_start(parser, head, p + parser.pos, line, limits, is_request)
            if fault < 0:
                return fault
            parser.phase = 1
            parser.fields = <uint32_t> end
        parser.pos = <uint32_t> end
        parser.scan = <uint32_t> end


cdef int h1_parse_request(HeadParser *parser, HeaderBlock head, const uint8_t *p, size_t n, const HeadLimits *limits) noexcept nogil:
    cdef int answer = parse_lines(parser, head, p, n, limits, True)
    cdef int fault
    if answer > 0:
        fault = validate_request(head)
        if fault < 0:
            answer = fault
    return answer if answer == 0 else restart(parser, answer)


cdef int h1_parse_response(HeadParser *parser, HeaderBlock head, const uint8_t *p, size_t n, const HeadLimits *limits,
                           uint8_t request_method) noexcept nogil:
    cdef int answer = parse_lines(parser, head, p, n, limits, False)
    cdef int fault
    if answer > 0:
        fault = validate_response(head, request_method)
        if fault < 0:
            answer = fault
    return answer if answer == 0 else restart(parser, answer)
