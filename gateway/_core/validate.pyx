"""Framing and field rules. What a head means is decided here and nowhere else; the codecs only cut bytes into fields."""

from libc.string cimport memchr

from gateway._core.ascii cimport (
    C_DIGIT, C_TOKEN, C_VALUE, copy_bytes, gw_class, has_prefix, is_all, is_blank, is_same_lower, is_word)
from gateway._core.faults cimport (
    F_AUTHORITY, F_CODING, F_CODING_UNKNOWN, F_CONNECT, F_EXPECT, F_FIELD_VALUE, F_FIELDS_LARGE, F_FIELDS_MANY, F_H2_FRAME,
    F_H2_HOP, F_H2_LENGTH, F_H2_PSEUDO, F_LENGTH, F_LENGTH_AND_CODING, F_MAX_FORWARDS, F_STATUS, F_SWITCHED, F_TRACE, F_UNDERSCORE,
    F_UPGRADE_BODY)
from gateway._core.headers cimport (
    FIELD_DROP, FIELD_HOP, HEAD_ABSOLUTE, HEAD_CLOSE, HEAD_EXPECT_CONTINUE, HEAD_KEEP_ALIVE, HEAD_TE_TRAILERS, HEAD_UPGRADE,
    HEAD_WEBSOCKET, Field, HeaderBlock)
from gateway._core.target cimport parse_authority, parse_path, parse_target
from gateway._core.tokens cimport (
    T_CONNECTION, T_CONTENT_LENGTH, T_COOKIE, T_ETAG, T_EXPECT, T_GRPC_MESSAGE, T_GRPC_STATUS, T_HOST, T_HTTP2_SETTINGS, T_KEEP_ALIVE,
    T_LAST_MODIFIED, T_MAX_FORWARDS, T_OTHER, T_PROXY_CONNECTION, T_TE, T_TRANSFER_ENCODING, T_UPGRADE, is_unnominable)
from gateway._core.types cimport (
    FRAME_CHUNKED, FRAME_CLOSE, FRAME_LENGTH, FRAME_NONE, FRAME_STREAM, M_CONNECT, M_HEAD, M_OPTIONS, M_TRACE, Ref, Span, uint8_t,
    uint32_t, uint64_t)

cdef enum:
    MAX_OPTIONS = 64           # connection options in one head; each is compared with every field
    MAX_CRUMBS = 64            # Cookie fields in one head of HTTP/2

cdef enum Option:              # bits: what Connection said
    OPTION_CLOSE = 1
    OPTION_KEEP_ALIVE = 2
    OPTION_UPGRADE = 4

cdef enum Coding:              # what Transfer-Encoding said
    CODING_MALFORMED = 0
    CODING_CHUNKED = 1
    CODING_IDENTITY = 2
    CODING_UNKNOWN = 3         # one coding that nobody here implements


cdef bint is_field_name(const uint8_t *p, size_t n) noexcept nogil:
    return n > 0 and is_all(p, n, C_TOKEN)


cdef bint is_field_value(const uint8_t *p, size_t n) noexcept nogil:
    return is_all(p, n, C_VALUE)


cdef int parse_length(const uint8_t *p, size_t n, uint64_t *value) noexcept nogil:
    cdef uint64_t total = 0
    cdef uint64_t digit
    cdef size_t i
    if n == 0:
        return -F_LENGTH
    for i in range(n):
        if not gw_class[p[i]] & C_DIGIT:
            return -F_LENGTH
        digit = p[i] - 48
        # 922337203685477580 is (2^63 - 1) / 10, and 2^63 - 1 ends in 7.
        if total > <uint64_t> 922337203685477580ULL or (total == <uint64_t> 922337203685477580ULL and digit > 7):
            return -F_LENGTH
        total = total * 10 + digit
    value[0] = total
    return 0


# ---- lists ----

# The element at or after p[i] of a comma-separated list, without the white space around it; empty ones are passed over
# (RFC 9110 §5.6.1). Its n is 0 at the end of the list.
cdef Span next_element(const uint8_t *p, size_t n, size_t i) noexcept nogil:
    cdef Span element
    cdef size_t end
    while i < n and (p[i] == 44 or is_blank(p[i])):
        i += 1
    element.p = p + i
    while i < n and p[i] != 44:
        i += 1
    end = i
    while p + end > element.p and is_blank(p[end - 1]):
        end -= 1
    element.n = <size_t> (p + end - element.p)
    return element


# ---- hop-by-hop fields ----

cdef void mark_hop(HeaderBlock head, uint8_t token) noexcept nogil:
    cdef Field *field = head.find(token)
    while field != NULL:
        field.flags |= FIELD_HOP
        field = head.find_next(field)


# 1 for names outside the token table that say who the client is or what the content means: nobody may have them removed by a
# nomination, and they are not taken from trailers.
cdef bint is_guarded_name(const uint8_t *p, size_t n) noexcept nogil:
    return (has_prefix(p, n, b"x-forwarded-") or has_prefix(p, n, b"x-envoy-") or has_prefix(p, n, b"x-auth-")
            or has_prefix(p, n, b"x-client-") or has_prefix(p, n, b"content-") or has_prefix(p, n, b"proxy-")
            or has_prefix(p, n, b"sec-"))


cdef void nominate(HeaderBlock head, Span option) noexcept nogil:
    cdef uint32_t i
    cdef Field *field
    for i in range(head.count):
        field = &head.fields[i]
        if field.name_len != option.n or not is_same_lower(option.p, head.store + field.name, option.n):
            continue
        if is_unnominable(field.token) or (field.token == T_OTHER and is_guarded_name(head.store + field.name, field.name_len)):
            return
        field.flags |= FIELD_HOP


# Reads every Connection field: Option bits, or a negated Fault. Nominated fields become FIELD_HOP (item 34), unnominable ones stay
# (item 35).
cdef int read_connection(HeaderBlock head, bint strict) noexcept nogil:
    cdef Field *field = head.find(T_CONNECTION)
    cdef Span value
    cdef Span option
    cdef size_t at
    cdef int options = 0
    cdef int seen = 0
    while field != NULL:
        value = head.borrow_value(field)
        at = 0
        while True:
            option = next_element(value.p, value.n, at)
            if option.n == 0:
                break
            at = <size_t> (option.p - value.p) + option.n
            seen += 1
            if seen > MAX_OPTIONS:
                return -F_FIELDS_MANY
            if is_word(option.p, option.n, b"keep-alive"):
                options |= OPTION_KEEP_ALIVE
            elif is_word(option.p, option.n, b"close"):
                options |= OPTION_CLOSE
            elif is_word(option.p, option.n, b"upgrade"):
                options |= OPTION_UPGRADE
            elif not is_all(option.p, option.n, C_TOKEN):
                if strict:
                    return -F_FIELD_VALUE
            else:
                nominate(head, option)
        field = head.find_next(field)
    return options


# Everything about Connection and its kin, for both directions: flags KEEP_ALIVE and CLOSE, hop marks. Option bits or a negated Fault.
cdef int read_hop_fields(HeaderBlock head, bint strict) noexcept nogil:
    cdef int options = 0
    if head.first[<int> T_CONNECTION]:
        options = read_connection(head, strict)
        if options < 0:
            return options
        mark_hop(head, T_CONNECTION)
    if head.first[<int> T_KEEP_ALIVE]:
        mark_hop(head, T_KEEP_ALIVE)
    if head.first[<int> T_PROXY_CONNECTION]:
        mark_hop(head, T_PROXY_CONNECTION)
    if head.first[<int> T_TE]:
        mark_hop(head, T_TE)
    if head.first[<int> T_TRANSFER_ENCODING]:
        mark_hop(head, T_TRANSFER_ENCODING)
    if head.first[<int> T_UPGRADE]:
        mark_hop(head, T_UPGRADE)
    if head.first[<int> T_HTTP2_SETTINGS]:
        mark_hop(head, T_HTTP2_SETTINGS)
        head.drop(T_HTTP2_SETTINGS)        # item 45
    if options & OPTION_CLOSE:
        head.flags |= HEAD_CLOSE
    elif head.version >= 11 or options & OPTION_KEEP_ALIVE:
        head.flags |= HEAD_KEEP_ALIVE
    return options


# 1 for a name of HTTP/2: such an offer is not ours to pass on (item 45).
cdef inline bint is_http2_name(const uint8_t *p, size_t n) noexcept nogil:
    return is_word(p, n, b"h2c") or is_word(p, n, b"h2")


# Reads every Upgrade field, takes HTTP/2 out of it, and answers how many other protocols are named; or a negated Fault.
cdef int read_upgrade(HeaderBlock head) noexcept nogil:
    cdef Field *field = head.find(T_UPGRADE)
    cdef Field *following
    cdef Span value
    cdef Span protocol
    cdef size_t at
    cdef size_t name
    cdef uint32_t out
    cdef bint has_http2
    cdef int named = 0
    cdef int kept
    while field != NULL:
        following = head.find_next(field)
        if head.reserve(field.value_len + 2) < 0:      # room for the list without HTTP/2, each element with a comma and a space
            return -F_FIELDS_LARGE
        value = head.borrow_value(field)
        out = head.used
        has_http2 = False
        kept = 0
        at = 0
        while True:
            protocol = next_element(value.p, value.n, at)
            if protocol.n == 0:
                break
            at = <size_t> (protocol.p - value.p) + protocol.n
            name = 0
            while name < protocol.n and gw_class[protocol.p[name]] & C_TOKEN:
                name += 1
            if name == 0 or (name < protocol.n and (
                    protocol.p[name] != 47 or not is_field_name(protocol.p + name + 1, protocol.n - name - 1))):
                return -F_FIELD_VALUE
            if is_http2_name(protocol.p, name):
                has_http2 = True
                continue
            if is_word(protocol.p, protocol.n, b"websocket"):
                head.flags |= HEAD_WEBSOCKET
            if kept:
                head.store[out] = 44
                out += 1
            copy_bytes(head.store + out, protocol.p, protocol.n)
            out += <uint32_t> protocol.n
            kept += 1
        if kept == 0:
            head.drop_field(field)
        elif has_http2:
            field.value = head.used
            field.value_len = out - head.used
            head.used = out
        named += kept
        field = following
    return named


# ---- framing ----

cdef int read_coding(HeaderBlock head) noexcept nogil:
    cdef Field *field = head.find(T_TRANSFER_ENCODING)
    cdef Span value = head.borrow_value(field)
    if head.find_next(field) != NULL:
        return CODING_MALFORMED
    if is_word(value.p, value.n, b"chunked"):
        return CODING_CHUNKED
    if is_word(value.p, value.n, b"identity"):
        return CODING_IDENTITY
    return CODING_UNKNOWN if is_field_name(value.p, value.n) else CODING_MALFORMED


# The one Content-Length field into head.length; 0 or -F_LENGTH. Two of them are a fault even when they agree (item 4).
cdef int read_length(HeaderBlock head) noexcept nogil:
    cdef Field *field = head.find(T_CONTENT_LENGTH)
    cdef Span value = head.borrow_value(field)
    if head.find_next(field) != NULL:
        return -F_LENGTH
    return parse_length(value.p, value.n, &head.length)


cdef int frame_request(HeaderBlock head) noexcept nogil:
    cdef int coding
    cdef int fault
    head.framing = FRAME_NONE
    if head.first[<int> T_TRANSFER_ENCODING]:
        if head.first[<int> T_CONTENT_LENGTH]:
            return -F_LENGTH_AND_CODING
        coding = read_coding(head)
        if head.version < 11 or coding == CODING_MALFORMED or coding == CODING_IDENTITY:
            return -F_CODING
        if coding == CODING_UNKNOWN:
            return -F_CODING_UNKNOWN
        head.framing = FRAME_CHUNKED
    elif head.first[<int> T_CONTENT_LENGTH]:
        fault = read_length(head)
        if fault < 0:
            return fault
        head.framing = FRAME_LENGTH
    return 0


cdef int frame_response(HeaderBlock head, uint8_t request_method) noexcept nogil:
    cdef bint has_coding = head.first[<int> T_TRANSFER_ENCODING] != 0
    cdef int coding = CODING_MALFORMED
    cdef int fault
    if has_coding:
        coding = read_coding(head)
        if head.version < 11 or coding == CODING_MALFORMED:
            return -F_CODING
        if coding == CODING_UNKNOWN:               # its content could not be forwarded: the field goes, the coding would stay
            return -F_CODING_UNKNOWN
    if head.first[<int> T_CONTENT_LENGTH]:
        fault = read_length(head)
        if fault < 0:
            return fault
        if has_coding:                             # item 12: the length goes, and so does trust in what follows
            head.drop(T_CONTENT_LENGTH)
            head.length = 0
            head.flags &= ~<uint32_t> HEAD_KEEP_ALIVE
    head.framing = FRAME_NONE
    if head.status < 200:
        # Content after a 1xx head would be read as the final response.
        if has_coding or head.length:
            return -F_CODING if has_coding else -F_LENGTH
        head.drop(T_CONTENT_LENGTH)
    elif head.status == 204:
        # RFC 9110 §15.3.5: no content, and no framing field that says otherwise. A sender that broke this may send some all the same.
        if has_coding or head.length:
            head.flags &= ~<uint32_t> HEAD_KEEP_ALIVE
        head.drop(T_CONTENT_LENGTH)
        head.length = 0
    elif head.status == 304 or request_method == M_HEAD or (request_method == M_CONNECT and head.status < 300):
        pass
    elif coding == CODING_CHUNKED:
        head.framing = FRAME_CHUNKED
    elif head.first[<int> T_CONTENT_LENGTH]:
        head.framing = FRAME_LENGTH
    else:
        head.framing = FRAME_CLOSE
        head.flags &= ~<uint32_t> HEAD_KEEP_ALIVE
    return 0


# ---- the parts of a request ----

# Default port of the scheme of an absolute-form target.
cdef inline uint32_t default_port(HeaderBlock head) noexcept nogil:
    return 443 if head.scheme.n == 5 else 80


# Host against the authority that the target or :authority named (items 27, 28 and 51): one value routes and is forwarded, and a request
# that names two is refused.
cdef int read_host(HeaderBlock head, bint has_authority, bint needs_host) noexcept nogil:
    cdef Field *field = head.find(T_HOST)
    cdef Ref authority = head.authority
    cdef Ref host = head.host
    cdef Ref value
    cdef uint32_t port = head.port
    cdef uint32_t i
    cdef int fault
    if field == NULL:
        return -F_AUTHORITY if needs_host else 0
    if head.find_next(field) != NULL:
        return -F_AUTHORITY
    value.off = field.value
    value.n = field.value_len
    fault = parse_authority(head, value)
    if fault < 0 or not has_authority:
        return fault
    if head.host.n != host.n or (head.port if head.port else default_port(head)) != (port if port else default_port(head)):
        return -F_AUTHORITY
    for i in range(host.n):
        if head.store[head.host.off + i] != head.store[host.off + i]:
            return -F_AUTHORITY
    head.authority = authority
    head.host = host
    head.port = port
    return 0


# Item 48: only names outside the token table can hold one.
cdef bint has_underscore(HeaderBlock head) noexcept nogil:
    cdef uint32_t i
    for i in range(head.count):
        if head.fields[i].token == T_OTHER and memchr(head.store + head.fields[i].name, 95, head.fields[i].name_len) != NULL:
            return True
    return False


cdef int read_expect(HeaderBlock head) noexcept nogil:
    cdef Field *field = head.find(T_EXPECT)
    cdef Span value = head.borrow_value(field)
    if head.find_next(field) != NULL or not is_word(value.p, value.n, b"100-continue"):
        return -F_EXPECT
    if head.version < 11:                  # RFC 9110 §10.1.1: must be ignored
        head.drop(T_EXPECT)
    elif head.framing != FRAME_NONE:
        head.flags |= HEAD_EXPECT_CONTINUE
    return 0


cdef int read_max_forwards(HeaderBlock head) noexcept nogil:
    cdef Field *field = head.find(T_MAX_FORWARDS)
    cdef Span value = head.borrow_value(field)
    if head.find_next(field) != NULL or value.n == 0 or value.n > 9 or not is_all(value.p, value.n, C_DIGIT):
        return -F_MAX_FORWARDS
    return 0


cdef void read_te(HeaderBlock head) noexcept nogil:
    cdef Field *field = head.find(T_TE)
    cdef Span value
    cdef Span element
    cdef size_t at
    while field != NULL:
        value = head.borrow_value(field)
        at = 0
        while True:
            element = next_element(value.p, value.n, at)
            if element.n == 0:
                break
            at = <size_t> (element.p - value.p) + element.n
            if is_word(element.p, element.n, b"trailers"):
                head.flags |= HEAD_TE_TRAILERS
        field = head.find_next(field)


# ---- heads ----

cdef int validate_request(HeaderBlock head) noexcept nogil:
    cdef int fault
    cdef int options
    fault = parse_target(head)
    if fault < 0:
        return fault
    if head.method == M_CONNECT:
        return -F_CONNECT
    if head.method == M_TRACE:
        return -F_TRACE
    fault = read_host(head, head.flags & HEAD_ABSOLUTE != 0, head.version >= 11)
    if fault < 0:
        return fault
    if head.first[<int> T_OTHER] and has_underscore(head):
        return -F_UNDERSCORE
    fault = frame_request(head)
    if fault < 0:
        return fault
    options = read_hop_fields(head, True)
    if options < 0:
        return options
    if head.first[<int> T_UPGRADE]:
        fault = read_upgrade(head)
        if fault < 0:
            return fault
        if fault > 0 and options & OPTION_UPGRADE and head.version >= 11:
            if head.framing != FRAME_NONE:             # item 44
                return -F_UPGRADE_BODY
            head.flags |= HEAD_UPGRADE
        if not head.flags & HEAD_UPGRADE:
            head.flags &= ~<uint32_t> HEAD_WEBSOCKET
    if head.first[<int> T_TE]:
        read_te(head)
    if head.first[<int> T_EXPECT]:
        fault = read_expect(head)
        if fault < 0:
            return fault
    if head.first[<int> T_MAX_FORWARDS] and head.method == M_OPTIONS:
        return read_max_forwards(head)
    return 0


cdef int validate_response(HeaderBlock head, uint8_t request_method) noexcept nogil:
    cdef int fault
    cdef int options
    if head.status < 100 or head.status > 599:
        return -F_STATUS
    options = read_hop_fields(head, False)
    if options < 0:
        return options
    fault = frame_response(head, request_method)
    if fault < 0:
        return fault
    if head.status == 101:
        # RFC 9110 §15.2.2: it names the protocol. Whether the client asked for one is known to the caller alone.
        if not head.first[<int> T_UPGRADE] or read_upgrade(head) <= 0:
            return -F_SWITCHED
        head.flags |= HEAD_UPGRADE
    return 0


# ---- HTTP/2 ----

# RFC 9113 §8.2.2 (item 52): the fields of an HTTP/1.1 connection make a message malformed, and TE says "trailers", once, or nothing.
cdef int read_h2_fields(HeaderBlock head) noexcept nogil:
    cdef Field *field
    cdef Span value
    if (head.first[<int> T_CONNECTION] or head.first[<int> T_KEEP_ALIVE] or head.first[<int> T_PROXY_CONNECTION]
            or head.first[<int> T_TRANSFER_ENCODING] or head.first[<int> T_UPGRADE]):
        return -F_H2_HOP
    if head.first[<int> T_TE]:
        field = head.find(T_TE)
        value = head.borrow_value(field)
        if head.find_next(field) != NULL or not is_word(value.p, value.n, b"trailers"):
            return -F_H2_HOP
        field.flags |= FIELD_HOP
        head.flags |= HEAD_TE_TRAILERS
    if head.first[<int> T_HTTP2_SETTINGS]:
        head.drop(T_HTTP2_SETTINGS)
    return 0


# Item 55: the crumbs of one Cookie (RFC 9113 §8.2.3) become one field again, for HTTP/1.1 and for whoever reads cookies here. 0 or a
# negated Fault.
cdef int join_cookies(HeaderBlock head) noexcept nogil:
    cdef Field *crumb = head.find(T_COOKIE)
    cdef Field *whole = crumb
    cdef Field *following = head.find_next(crumb)
    cdef uint32_t crumbs = 1
    cdef uint32_t start
    cdef uint32_t out
    cdef size_t size = 6 + 2 + <size_t> crumb.value_len + 2
    if following == NULL:
        return 0
    while following != NULL:
        crumbs += 1
        size += 2 + <size_t> following.value_len
        following = head.find_next(following)
    if crumbs > MAX_CRUMBS:
        return -F_FIELDS_MANY
    if head.reserve(size) < 0:
        return -F_FIELDS_LARGE
    start = head.used
    copy_bytes(head.store + start, <const uint8_t *> b"cookie: ", 8)
    out = start + 8
    while crumb != NULL:
        if crumb != whole:
            head.store[out] = 59
            head.store[out + 1] = 32
            out += 2
        copy_bytes(head.store + out, head.store + crumb.value, crumb.value_len)
        out += crumb.value_len
        following = head.find_next(crumb)
        if crumb != whole:
            head.drop_field(crumb)
        crumb = following
    head.store[out] = 13
    head.store[out + 1] = 10
    whole.name = start
    whole.value = start + 8
    whole.value_len = out - start - 8
    head.used = out + 2
    return 0


# Content of an HTTP/2 message; `ended`: its head was its end. 0 or a negated Fault.
cdef int frame_h2(HeaderBlock head, bint ended) noexcept nogil:
    cdef int fault
    if head.first[<int> T_CONTENT_LENGTH]:
        fault = read_length(head)
        if fault < 0:
            return fault
        head.framing = FRAME_LENGTH
        return -F_H2_LENGTH if ended and head.length else 0
    head.framing = FRAME_NONE if ended else FRAME_STREAM
    return 0


# RFC 9113 §8.3.1 and §8.5, RFC 8441 §4: which pseudo-header fields there have to be, and what they may say (item 50).
cdef int read_h2_target(HeaderBlock head, uint8_t pseudo, Ref protocol) noexcept nogil:
    cdef Span scheme = head.borrow(head.scheme)
    cdef Span span
    if not pseudo & PSEUDO_METHOD:
        return -F_H2_PSEUDO
    if head.method == M_CONNECT and not pseudo & PSEUDO_PROTOCOL:
        if pseudo != PSEUDO_METHOD | PSEUDO_AUTHORITY:
            return -F_H2_PSEUDO
        return -F_CONNECT
    if (pseudo & (PSEUDO_SCHEME | PSEUDO_PATH)) != PSEUDO_SCHEME | PSEUDO_PATH:
        return -F_H2_PSEUDO
    if pseudo & PSEUDO_PROTOCOL:
        span = head.borrow(protocol)
        if head.method != M_CONNECT or not pseudo & PSEUDO_AUTHORITY or not is_field_name(span.p, span.n):
            return -F_H2_PSEUDO
        head.flags |= HEAD_UPGRADE
        if is_word(span.p, span.n, b"websocket"):
            head.flags |= HEAD_WEBSOCKET
    if not (scheme.n == 4 and is_word(scheme.p, 4, b"http")) and not (scheme.n == 5 and is_word(scheme.p, 5, b"https")):
        return -F_H2_PSEUDO
    return parse_path(head, head.target)


cdef int validate_h2_request(HeaderBlock head, uint8_t pseudo, Ref protocol, bint ended) noexcept nogil:
    cdef int fault
    head.version = 20
    head.flags |= HEAD_KEEP_ALIVE
    fault = read_h2_fields(head)
    if fault < 0:
        return fault
    fault = read_h2_target(head, pseudo, protocol)
    if fault < 0:
        return fault
    if head.method == M_TRACE:
        return -F_TRACE
    if pseudo & PSEUDO_AUTHORITY:
        fault = parse_authority(head, head.authority)
        if fault < 0:
            return fault
    fault = read_host(head, pseudo & PSEUDO_AUTHORITY != 0, not pseudo & PSEUDO_AUTHORITY)
    if fault < 0:
        return fault
    if head.host.n == 0:
        return -F_AUTHORITY
    if head.first[<int> T_OTHER] and has_underscore(head):
        return -F_UNDERSCORE
    fault = frame_h2(head, ended)
    if fault < 0:
        return fault
    if head.flags & HEAD_UPGRADE:          # what follows are bytes of a tunnel, not content
        if head.framing == FRAME_LENGTH:
            return -F_UPGRADE_BODY
        head.framing = FRAME_NONE
    if head.first[<int> T_COOKIE]:
        fault = join_cookies(head)
        if fault < 0:
            return fault
    if head.first[<int> T_EXPECT]:
        fault = read_expect(head)
        if fault < 0:
            return fault
    if head.first[<int> T_MAX_FORWARDS] and head.method == M_OPTIONS:
        return read_max_forwards(head)
    return 0


cdef int validate_h2_response(HeaderBlock head, uint8_t request_method, bint ended) noexcept nogil:
    cdef int fault
    head.version = 20
    head.flags |= HEAD_KEEP_ALIVE
    if head.status < 100 or head.status > 599:
        return -F_STATUS
    if head.status == 101:                 # RFC 9113 §8.6
        return -F_SWITCHED
    fault = read_h2_fields(head)
    if fault < 0:
        return fault
    if head.status < 200:
        head.framing = FRAME_NONE
        if head.first[<int> T_CONTENT_LENGTH] and (read_length(head) < 0 or head.length):
            return -F_LENGTH
        head.drop(T_CONTENT_LENGTH)
        return -F_H2_FRAME if ended else 0     # a response does not end with a 1xx
    if request_method == M_CONNECT and head.status < 300:
        head.drop(T_CONTENT_LENGTH)        # RFC 9110 §8.6: must not be there, must be ignored
        head.framing = FRAME_NONE
        return 0
    if request_method == M_HEAD or head.status == 304:
        head.framing = FRAME_NONE
        return read_length(head) if head.first[<int> T_CONTENT_LENGTH] else 0
    fault = frame_h2(head, ended)
    if fault == 0 and head.status == 204:
        if head.framing == FRAME_LENGTH and head.length:
            return -F_H2_LENGTH
        head.drop(T_CONTENT_LENGTH)
        head.framing = FRAME_NONE
    return fault


cdef int validate_h2_trailers(HeaderBlock trailers) noexcept nogil:
    return read_h2_fields(trailers)


# ---- trailers ----

# 1 for a field that may stand in trailers. Of the names we know, those that describe a finished representation or call; of the rest,
# all but what steers a request, a cache or a client (RFC 9110 §6.5.1).
cdef bint is_trailer_field(HeaderBlock trailers, const Field *field) noexcept nogil:
    cdef Span name = trailers.borrow_name(field)
    if field.token != T_OTHER:
        return (field.token == T_ETAG or field.token == T_LAST_MODIFIED or field.token == T_GRPC_STATUS
                or field.token == T_GRPC_MESSAGE)
    return not (
        memchr(name.p, 95, name.n) != NULL or is_guarded_name(name.p, name.n)
        or has_prefix(name.p, name.n, b"if-") or is_word(name.p, name.n, b"range")
        or is_word(name.p, name.n, b"pragma") or is_word(name.p, name.n, b"age") or is_word(name.p, name.n, b"expires")
        or is_word(name.p, name.n, b"vary") or is_word(name.p, name.n, b"warning") or is_word(name.p, name.n, b"allow")
        or is_word(name.p, name.n, b"www-authenticate") or is_word(name.p, name.n, b"strict-transport-security"))


cdef void filter_trailers(HeaderBlock trailers) noexcept nogil:
    cdef uint32_t i
    for i in range(trailers.count):
        if not trailers.fields[i].flags & FIELD_DROP and not is_trailer_field(trailers, &trailers.fields[i]):
            trailers.drop_field(&trailers.fields[i])
