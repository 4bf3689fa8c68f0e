"""Field blocks of HTTP/2 from a HeaderBlock; see hpack_encode.pxd."""

from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from gateway._core.ascii cimport copy_bytes, load_u32, load_u64
from gateway._core.faults cimport F_NONE
from gateway._core.headers cimport FIELD_DROP, FIELD_HOP, HEAD_ASTERISK, HEAD_UPGRADE, HEAD_WEBSOCKET, Field, HeaderBlock
from gateway._core.hpack cimport (
    DEFAULT_TABLE, ENTRY_OVERHEAD, STATIC_ENTRIES, HpackEntry, static_name, table_add, table_clear, table_count, table_entry, table_line,
    table_resize)
from gateway._core.huffman cimport huffman_encode, huffman_length
from gateway._core.tokens cimport (
    T_AUTHORIZATION, T_CONNECTION, T_CONTENT_LENGTH, T_COOKIE, T_HOST, T_HTTP2_SETTINGS, T_KEEP_ALIVE, T_OTHER, T_PROXY_AUTHORIZATION,
    T_PROXY_CONNECTION, T_SEC_WEBSOCKET_ACCEPT, T_SEC_WEBSOCKET_KEY, T_SET_COOKIE, T_TE, T_TRANSFER_ENCODING, T_UPGRADE,
    T_X_FORWARDED_CLIENT_CERT)
from gateway._core.types cimport (
    FRAME_LENGTH, FRAME_NONE, M_GET, M_PATCH, M_POST, M_PUT, Span, uint8_t, uint16_t, uint32_t, uint64_t)

cdef enum Form:                # first bits of a literal, RFC 7541 §6.2
    FORM_INDEX = 0x40          # goes into the table
    FORM_PLAIN = 0x00
    FORM_NEVER = 0x10          # must not go into any table on the way

cdef enum:
    FIELD_BOUND = 16           # bytes around name and value: the form and two lengths
    FIXED = 320                # size updates, pseudo-header fields without their values, content-length, te
    METHOD_GET = 2             # indexes of RFC 7541 Appendix A
    METHOD_POST = 3
    PATH_ROOT = 4
    SCHEME_HTTP = 6
    SCHEME_HTTPS = 7

# Fields that are written elsewhere, or that belong to one connection of HTTP/1.1.
cdef uint64_t left_out = (
    <uint64_t> 1 << T_HOST | <uint64_t> 1 << T_CONTENT_LENGTH | <uint64_t> 1 << T_TRANSFER_ENCODING | <uint64_t> 1 << T_CONNECTION
    | <uint64_t> 1 << T_KEEP_ALIVE | <uint64_t> 1 << T_PROXY_CONNECTION | <uint64_t> 1 << T_TE | <uint64_t> 1 << T_UPGRADE
    | <uint64_t> 1 << T_HTTP2_SETTINGS)

# Values of these go into no table, ours or another's.
cdef uint64_t secret = (
    <uint64_t> 1 << T_AUTHORIZATION | <uint64_t> 1 << T_PROXY_AUTHORIZATION | <uint64_t> 1 << T_COOKIE | <uint64_t> 1 << T_SET_COOKIE
    | <uint64_t> 1 << T_X_FORWARDED_CLIENT_CERT)


cdef void hpack_encoder_start(HpackEncoder *encoder) noexcept nogil:
    memset(encoder, 0, sizeof(HpackEncoder))
    encoder.table.max_size = DEFAULT_TABLE
    encoder.table.first = encoder.table.next = 1       # serial 0 stands for none


cdef void hpack_encoder_clear(HpackEncoder *encoder) noexcept nogil:
    table_clear(&encoder.table)
    free(encoder.index)
    encoder.index = NULL


cdef void hpack_limit(HpackEncoder *encoder, uint32_t size) noexcept nogil:
    if size > MOST_TABLE:
        size = MOST_TABLE
    if size == encoder.table.max_size and not encoder.update_due:
        return
    if not encoder.update_due or size < encoder.smallest:
        encoder.smallest = size
    encoder.update_due = True
    table_resize(&encoder.table, size)


cdef size_t hpack_bound(HeaderBlock head) noexcept nogil:
    cdef size_t n = FIXED
    cdef uint32_t i
    n += head.method_text.n
    n += 3 * (<size_t> head.path.n + head.query.n)     # put_path may put them together there first
    n += head.authority.n
    for i in range(head.count):
        n += head.fields[i].name_len
        n += head.fields[i].value_len
        n += FIELD_BOUND
    return n


# ---- pieces ----

cdef inline uint8_t *put_integer(uint8_t *out, uint8_t form, int bits, uint32_t value) noexcept nogil:
    cdef uint32_t most = (<uint32_t> 1 << bits) - 1
    if value < most:
        out[0] = <uint8_t> (form | value)
        return out + 1
    out[0] = <uint8_t> (form | most)
    out += 1
    value -= most
    while value >= 128:
        out[0] = <uint8_t> (value & 127 | 128)
        out += 1
        value >>= 7
    out[0] = <uint8_t> value
    return out + 1


cdef uint8_t *put_string(uint8_t *out, const uint8_t *p, size_t n) noexcept nogil:
    cdef size_t coded = huffman_length(p, n, n) if n else 0
    if coded < n:
        out = put_integer(out, 128, 7, <uint32_t> coded)
        huffman_encode(p, n, out)
        return out + coded
    out = put_integer(out, 0, 7, <uint32_t> n)
    copy_bytes(out, p, n)
    return out + n


cdef uint8_t *put_literal(uint8_t *out, uint8_t form, const uint8_t *name, size_t name_len, const uint8_t *value,
                          size_t value_len) noexcept nogil:
    cdef uint32_t index = static_name(name, name_len)
    out = put_integer(out, form, 6 if form == FORM_INDEX else 4, index)
    if index == 0:
        out = put_string(out, name, name_len)
    return put_string(out, value, value_len)


# Eight bytes that tell strings of n bytes apart as well as their ends do.
cdef inline uint64_t ends_of(const uint8_t *p, size_t n) noexcept nogil:
    if n >= 8:
        return load_u64(p) * <uint64_t> 0x9e3779b97f4a7c15ULL ^ load_u64(p + n - 8)
    if n >= 4:
        return <uint64_t> load_u32(p) << 32 | load_u32(p + n - 4)
    return <uint64_t> p[0] << 16 | <uint64_t> p[n >> 1] << 8 | p[n - 1] if n else 0


cdef inline uint32_t hash_of(uint8_t token, const uint8_t *name, size_t name_len, const uint8_t *value, size_t value_len) noexcept nogil:
    cdef uint64_t h = ends_of(value, value_len)
    h ^= (<uint64_t> token if token != T_OTHER else ends_of(name, name_len)) * <uint64_t> 0xd6e8feb86659fd93ULL
    h ^= <uint64_t> value_len << 56 ^ <uint64_t> name_len << 48
    h *= <uint64_t> 0x9e3779b97f4a7c15ULL
    return <uint32_t> (h >> 32)


# The line of the field as the table keeps it; it is written behind the block's end, which has room for it.
cdef int remember(HpackEncoder *encoder, HpackEntry *entry, const uint8_t *name, const uint8_t *value, uint8_t *room) noexcept nogil:
    copy_bytes(room, name, entry.name_len)
    room[entry.name_len] = 58
    room[entry.name_len + 1] = 32
    copy_bytes(room + entry.name_len + 2, value, entry.value_len)
    room[entry.name_len + 2 + entry.value_len] = 13
    room[entry.name_len + 3 + entry.value_len] = 10
    return table_add(&encoder.table, room, entry)


cdef inline bint is_in(uint64_t tokens, uint8_t token) noexcept nogil:
    return (tokens >> token) & 1 != 0


cdef uint8_t *put_field(HpackEncoder *encoder, uint8_t *out, uint8_t token, const uint8_t *name, size_t name_len, const uint8_t *value,
                        size_t value_len) noexcept nogil:
    cdef HpackIndex *index
    cdef HpackEntry entry
    cdef const HpackEntry *found
    cdef const uint8_t *line
    cdef uint32_t hash
    cdef uint32_t serial
    if encoder == NULL or encoder.index == NULL:
        return put_literal(out, FORM_NEVER if is_in(secret, token) else FORM_PLAIN, name, name_len, value, value_len)
    if is_in(secret, token):
        return put_literal(out, FORM_NEVER, name, name_len, value, value_len)
    index = encoder.index
    hash = hash_of(token, name, name_len, value, value_len)
    serial = index.serial[hash & (INDEX_SLOTS - 1)]
    if serial - encoder.table.first < table_count(&encoder.table):
        found = table_entry(&encoder.table, serial)
        line = table_line(&encoder.table, found)
        if (found.value_len == value_len and found.name_len == name_len and memcmp(line, name, name_len) == 0
                and memcmp(line + name_len + 2, value, value_len) == 0):
            return put_integer(out, 128, 7, STATIC_ENTRIES + encoder.table.next - serial)
    # Half a table for one field is too much: it would push out what is used all the time.
    if (index.seen[hash & (INDEX_SLOTS - 1)] != <uint16_t> (hash >> 16)
            or name_len + value_len + ENTRY_OVERHEAD > encoder.table.max_size >> 1):
        index.seen[hash & (INDEX_SLOTS - 1)] = <uint16_t> (hash >> 16)
        return put_literal(out, FORM_PLAIN, name, name_len, value, value_len)
    entry.name_len = <uint16_t> name_len
    entry.value_len = <uint32_t> value_len
    entry.token = token
    entry.kind = 0
    entry.fault = F_NONE
    serial = encoder.table.next
    if remember(encoder, &entry, name, value, out) < 0 or encoder.table.next == serial:
        return put_literal(out, FORM_PLAIN, name, name_len, value, value_len)
    index.serial[hash & (INDEX_SLOTS - 1)] = serial
    return put_literal(out, FORM_INDEX, name, name_len, value, value_len)


# ---- parts of heads ----

cdef uint8_t *put_start(HpackEncoder *encoder, uint8_t *out) noexcept nogil:
    if encoder == NULL:
        return out
    if encoder.index == NULL:
        encoder.index = <HpackIndex *> calloc(1, sizeof(HpackIndex))       # without it, literals are all that is written
    if encoder.update_due:
        if encoder.smallest < encoder.table.max_size:
            out = put_integer(out, 0x20, 5, encoder.smallest)
        out = put_integer(out, 0x20, 5, encoder.table.max_size)
        encoder.update_due = False
    return out


cdef uint8_t *put_fields(HpackEncoder *encoder, uint8_t *out, HeaderBlock head, bint is_websocket) noexcept nogil:
    cdef const Field *field
    cdef uint32_t i
    for i in range(head.count):
        field = &head.fields[i]
        if field.flags & (FIELD_DROP | FIELD_HOP) or is_in(left_out, field.token):
            continue
        # RFC 8441 §5: CONNECT itself is the handshake
        if is_websocket and (field.token == T_SEC_WEBSOCKET_KEY or field.token == T_SEC_WEBSOCKET_ACCEPT):
            continue
        out = put_field(encoder, out, field.token, head.store + field.name, field.name_len, head.store + field.value, field.value_len)
    return out


cdef uint8_t *put_length(HpackEncoder *encoder, uint8_t *out, uint64_t length) noexcept nogil:
    cdef uint8_t digits[20]
    cdef size_t i = 20
    while True:
        i -= 1
        digits[i] = <uint8_t> (48 + length % 10)
        length //= 10
        if length == 0:
            break
    return put_field(encoder, out, T_CONTENT_LENGTH, <const uint8_t *> b"content-length", 14, digits + i, 20 - i)


# A pseudo-header field whose values come again and again is treated as any field; its name has an index in any case.
cdef inline uint8_t *put_pseudo(HpackEncoder *encoder, uint8_t *out, const char *name, size_t name_len, const uint8_t *value,
                                size_t value_len) noexcept nogil:
    return put_field(encoder, out, T_OTHER, <const uint8_t *> name, name_len, value, value_len)


# :path from path and query, which need not lie together.
cdef uint8_t *put_path(HpackEncoder *encoder, uint8_t *out, HeaderBlock head) noexcept nogil:
    cdef const uint8_t *path = head.store + head.path.off
    cdef size_t n = head.path.n
    cdef uint8_t *whole
    if head.flags & HEAD_ASTERISK:
        return put_pseudo(encoder, out, b":path", 5, <const uint8_t *> b"*", 1)
    if not head.has_query:
        if n == 1:
            out[0] = 128 | PATH_ROOT
            return out + 1
        return put_pseudo(encoder, out, b":path", 5, path, n)
    if head.query.off == head.path.off + head.path.n + 1 and path[n] == 63:
        return put_pseudo(encoder, out, b":path", 5, path, n + 1 + head.query.n)
    # Put together further on in the same room, behind whatever writing the field touches.
    whole = out + 2 * (n + head.query.n) + 2 * FIELD_BOUND
    memcpy(whole, path, n)
    whole[n] = 63
    memcpy(whole + n + 1, head.store + head.query.off, head.query.n)
    return put_pseudo(encoder, out, b":path", 5, whole, n + 1 + head.query.n)


# ---- heads ----

cdef size_t hpack_encode_start(HpackEncoder *encoder, uint8_t *out) noexcept nogil:
    return <size_t> (put_start(encoder, out) - out)


cdef size_t hpack_encode_request(HpackEncoder *encoder, uint8_t *out, HeaderBlock head, uint8_t framing, uint64_t length, bint te_trailers,
                                 bint secure) noexcept nogil:
    cdef uint8_t *start = out
    cdef bint is_websocket = head.flags & HEAD_UPGRADE != 0 and head.flags & HEAD_WEBSOCKET != 0
    cdef Span span
    out = put_start(encoder, out)
    if is_websocket:
        out = put_pseudo(encoder, out, b":method", 7, <const uint8_t *> b"CONNECT", 7)
        out = put_pseudo(encoder, out, b":protocol", 9, <const uint8_t *> b"websocket", 9)
    elif head.method == M_GET or head.method == M_POST:
        out[0] = 128 | (METHOD_GET if head.method == M_GET else METHOD_POST)
        out += 1
    else:
        span = head.borrow(head.method_text)
        out = put_pseudo(encoder, out, b":method", 7, span.p, span.n)
    out[0] = 128 | (SCHEME_HTTPS if secure else SCHEME_HTTP)
    out = put_path(encoder, out + 1, head)
    span = head.borrow(head.authority)
    if span.n:                             # an HTTP/1.0 request may have come without
        out = put_pseudo(encoder, out, b":authority", 10, span.p, span.n)
    out = put_fields(encoder, out, head, is_websocket)
    if framing == FRAME_NONE and not is_websocket and (head.method == M_POST or head.method == M_PUT or head.method == M_PATCH):
        framing = FRAME_LENGTH
        length = 0
    if framing == FRAME_LENGTH:
        out = put_length(encoder, out, length)
    if te_trailers:
        out = put_field(encoder, out, T_TE, <const uint8_t *> b"te", 2, <const uint8_t *> b"trailers", 8)
    return <size_t> (out - start)


# Index of the static entry for the status; 0 when there is none.
cdef inline uint8_t status_index(uint16_t status) noexcept nogil:
    if status == 200:
        return 8
    if status == 204:
        return 9
    if status == 206:
        return 10
    if status == 304:
        return 11
    if status == 400:
        return 12
    if status == 404:
        return 13
    return 14 if status == 500 else 0


cdef size_t hpack_encode_response(HpackEncoder *encoder, uint8_t *out, HeaderBlock head, uint8_t framing, uint64_t length,
                                  bint keep_length) noexcept nogil:
    cdef uint8_t *start = out
    cdef uint8_t digits[3]
    cdef uint8_t index
    cdef const Field *field
    cdef Span value
    out = put_start(encoder, out)
    index = status_index(head.status)
    if index:
        out[0] = 128 | index
        out += 1
    else:
        digits[0] = <uint8_t> (48 + head.status // 100 % 10)
        digits[1] = <uint8_t> (48 + head.status // 10 % 10)
        digits[2] = <uint8_t> (48 + head.status % 10)
        out = put_pseudo(encoder, out, b":status", 7, digits, 3)
    out = put_fields(encoder, out, head, False)
    if keep_length:
        field = head.find(T_CONTENT_LENGTH)
        if field != NULL:
            value = head.borrow_value(field)
            while value.n > 1 and value.p[0] == 48:        # item 5: leading zeros are not passed on
                value.p += 1
                value.n -= 1
            out = put_field(encoder, out, T_CONTENT_LENGTH, <const uint8_t *> b"content-length", 14, value.p, value.n)
    elif framing == FRAME_LENGTH:
        out = put_length(encoder, out, length)
    return <size_t> (out - start)


cdef size_t hpack_encode_trailers(HpackEncoder *encoder, uint8_t *out, HeaderBlock trailers) noexcept nogil:
    cdef uint8_t *end = put_start(encoder, out)
    end = put_fields(encoder, end, trailers, False)
    return <size_t> (end - out)
