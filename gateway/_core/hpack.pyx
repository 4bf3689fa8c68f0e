"""HPACK: the tables, and the decoder that writes field blocks into a HeaderBlock; see hpack.pxd."""

from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy, memmove, memset

from gateway._core.ascii cimport C_TOKEN, C_VALUE, controls_of, copy_bytes, gw_lower, is_all, is_blank, load_u64
from gateway._core.faults cimport (
    F_FIELD_NAME, F_FIELD_VALUE, F_FIELDS_LARGE, F_FIELDS_MANY, F_H2_PSEUDO, F_HPACK, F_METHOD, F_NONE, F_STATUS, F_TARGET_LONG)
from gateway._core.headers cimport Field, HeaderBlock
from gateway._core.huffman cimport huffman_bound, huffman_decode
from gateway._core.tokens cimport T_OTHER, method_of, token_of
from gateway._core.types cimport Ref, uint8_t, uint16_t, uint32_t, uint64_t
from gateway._core.validate cimport (
    PSEUDO_AUTHORITY, PSEUDO_METHOD, PSEUDO_PATH, PSEUDO_PROTOCOL, PSEUDO_SCHEME, PSEUDO_STATUS)

# RFC 7541 Appendix A.
cdef tuple STATIC = (
    (b":authority", b""), (b":method", b"GET"), (b":method", b"POST"), (b":path", b"/"), (b":path", b"/index.html"),
    (b":scheme", b"http"), (b":scheme", b"https"), (b":status", b"200"), (b":status", b"204"), (b":status", b"206"),
    (b":status", b"304"), (b":status", b"400"), (b":status", b"404"), (b":status", b"500"), (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"), (b"accept-language", b""), (b"accept-ranges", b""), (b"accept", b""),
    (b"access-control-allow-origin", b""), (b"age", b""), (b"allow", b""), (b"authorization", b""), (b"cache-control", b""),
    (b"content-disposition", b""), (b"content-encoding", b""), (b"content-language", b""), (b"content-length", b""),
    (b"content-location", b""), (b"content-range", b""), (b"content-type", b""), (b"cookie", b""), (b"date", b""), (b"etag", b""),
    (b"expect", b""), (b"expires", b""), (b"from", b""), (b"host", b""), (b"if-match", b""), (b"if-modified-since", b""),
    (b"if-none-match", b""), (b"if-range", b""), (b"if-unmodified-since", b""), (b"last-modified", b""), (b"link", b""),
    (b"location", b""), (b"max-forwards", b""), (b"proxy-authenticate", b""), (b"proxy-authorization", b""), (b"range", b""),
    (b"referer", b""), (b"refresh", b""), (b"retry-after", b""), (b"server", b""), (b"set-cookie", b""),
    (b"strict-transport-security", b""), (b"transfer-encoding", b""), (b"user-agent", b""), (b"vary", b""), (b"via", b""),
    (b"www-authenticate", b""),
)

cdef enum:
    FIRST_LOG = 512            # bytes that the first entry allocates
    FIRST_RING = 16
    MAX_NAME = 65535           # bytes of a name that a Field can hold
    MAX_METHOD = 32
    MAX_INTEGER = 1 << 24      # far above every string, index and table size that means something
    MAX_UPDATES = 2            # size updates at the beginning of a block, RFC 7541 §4.2
    STATIC_BYTES = 2048
    NAME_SLOTS = 128

cdef HpackEntry statics[STATIC_ENTRIES]
cdef uint8_t static_log[STATIC_BYTES]
cdef uint8_t name_slots[NAME_SLOTS]     # by name_slot_of: index of the first entry with that name, 0 when there is none


# ---- the static table ----

cdef uint8_t kind_of(const uint8_t *name, size_t n) noexcept nogil:
    if n == 5 and memcmp(name, b":path", 5) == 0:
        return PSEUDO_PATH
    if n == 7:
        if memcmp(name, b":method", 7) == 0:
            return PSEUDO_METHOD
        if memcmp(name, b":scheme", 7) == 0:
            return PSEUDO_SCHEME
        if memcmp(name, b":status", 7) == 0:
            return PSEUDO_STATUS
    if n == 10 and memcmp(name, b":authority", 10) == 0:
        return PSEUDO_AUTHORITY
    if n == 9 and memcmp(name, b":protocol", 9) == 0:
        return PSEUDO_PROTOCOL
    return KIND_UNKNOWN


# The multiplier was searched for; fill_statics proves at import that no two names share a slot.
cdef inline uint32_t name_slot_of(const uint8_t *name, size_t n) noexcept nogil:
    cdef uint32_t key = (<uint32_t> n | <uint32_t> name[n - 2] << 8 | <uint32_t> name[n - 1] << 16
                         | <uint32_t> name[n >> 1] << 24)
    return key * <uint32_t> 0x6ee1d1e5U >> 25


cdef int fill_statics() except -1:
    cdef uint32_t at = 0
    cdef uint32_t i = 0
    cdef uint32_t slot
    cdef bytes name
    cdef bytes value
    cdef bytes line
    for name, value in STATIC:
        line = name + b": " + value + b"\r\n"
        if at + len(line) > STATIC_BYTES:
            raise ImportError("hpack: STATIC_BYTES is too small")
        memcpy(static_log + at, <const uint8_t *> line, len(line))
        statics[i].at = at
        statics[i].name_len = <uint16_t> len(name)
        statics[i].value_len = <uint32_t> len(value)
        statics[i].token = token_of(name, len(name))
        statics[i].kind = kind_of(name, len(name)) if name[0] == 58 else 0
        statics[i].fault = F_NONE
        at += <uint32_t> len(line)
        slot = name_slot_of(name, len(name))
        if name_slots[slot] == 0:
            name_slots[slot] = <uint8_t> (i + 1)
        elif STATIC[name_slots[slot] - 1][0] != name:
            raise ImportError(f"hpack: {name!r} shares a slot; search another multiplier")
        i += 1
    if i != STATIC_ENTRIES:
        raise ImportError("hpack: the static table is not complete")
    return 0


fill_statics()
globals().update(STATIC=STATIC)        # a module variable that Python sees


cdef const HpackEntry *static_entry(uint32_t index) noexcept nogil:
    return &statics[index - 1]


cdef const uint8_t *static_line(const HpackEntry *entry) noexcept nogil:
    return static_log + entry.at


cdef uint32_t static_name(const uint8_t *name, size_t n) noexcept nogil:
    cdef uint32_t index
    if n < 3:
        return 0
    index = name_slots[name_slot_of(name, n)]
    if index == 0 or statics[index - 1].name_len != n or memcmp(static_log + statics[index - 1].at, name, n) != 0:
        return 0
    return index


# ---- the dynamic table ----

cdef inline uint32_t line_size(const HpackEntry *entry) noexcept nogil:
    return entry.name_len + entry.value_len + 4


cdef inline void evict(HpackTable *table) noexcept nogil:
    cdef const HpackEntry *entry = table_entry(table, table.first)
    table.size -= entry.name_len + entry.value_len + ENTRY_OVERHEAD
    table.first += 1


# Room for a line of n bytes at the end of the log: the live lines move to its beginning, into more memory as long as there may be more.
cdef int make_room(HpackTable *table, uint32_t n) noexcept nogil:
    cdef uint32_t start = table_entry(table, table.first).at if table.first != table.next else table.end
    cdef uint32_t live = table.end - start
    cdef uint32_t cap = table.cap
    cdef uint8_t *log
    if live:
        memmove(table.log, table.log + (start - table.base), live)
    table.base = start
    # Twice what can be live, so that each byte is moved once for each byte that comes.
    while cap < 2 * (live + n):
        cap = cap * 2 if cap else <uint32_t> FIRST_LOG
    if cap != table.cap:
        log = <uint8_t *> realloc(table.log, cap)
        if log == NULL:
            return -1
        table.log = log
        table.cap = cap
    return 0


cdef int grow_ring(HpackTable *table) noexcept nogil:
    cdef uint32_t ring = table.ring * 2 if table.ring else <uint32_t> FIRST_RING
    cdef HpackEntry *entries = <HpackEntry *> realloc(table.entries, ring * sizeof(HpackEntry))
    cdef uint32_t serial = table.first
    if entries == NULL:
        return -1
    # The ring was full: each entry either keeps its place or moves up by the old size.
    while serial != table.next:
        if (serial & (ring - 1)) != (serial & (table.ring - 1)):
            entries[serial & (ring - 1)] = entries[serial & (table.ring - 1)]
        serial += 1
    table.entries = entries
    table.ring = ring
    return 0


cdef int table_add(HpackTable *table, const uint8_t *line, const HpackEntry *entry) noexcept nogil:
    cdef uint32_t n = line_size(entry)
    cdef uint32_t size = n - 4 + ENTRY_OVERHEAD
    cdef HpackEntry *place
    while table.first != table.next and table.size + size > table.max_size:
        evict(table)
    if size > table.max_size:
        return 0
    if table.end - table.base + n > table.cap and make_room(table, n) < 0:
        return -1
    if table.next - table.first == table.ring and grow_ring(table) < 0:
        return -1
    copy_bytes(table.log + (table.end - table.base), line, n)
    place = table_entry(table, table.next)
    place[0] = entry[0]
    place.at = table.end
    table.end += n
    table.next += 1
    table.size += size
    return 0


cdef void table_resize(HpackTable *table, uint32_t max_size) noexcept nogil:
    table.max_size = max_size
    while table.first != table.next and table.size > max_size:
        evict(table)
    if table.first == table.next:
        table_clear(table)


cdef void table_clear(HpackTable *table) noexcept nogil:
    free(table.log)
    free(table.entries)
    table.log = NULL
    table.entries = NULL
    table.cap = table.ring = 0
    table.base = table.end
    table.first = table.next
    table.size = 0


cdef void hpack_start(HpackDecoder *decoder) noexcept nogil:
    memset(decoder, 0, sizeof(HpackDecoder))
    decoder.table.max_size = decoder.allowed = DEFAULT_TABLE


cdef void hpack_allow(HpackDecoder *decoder, uint32_t size) noexcept nogil:
    # A larger table waits until the peer says that it uses it.
    if size < decoder.table.max_size:
        decoder.update_due = True
    decoder.allowed = size


# ---- decoding: the parts ----

# Integer with a prefix of `bits` bits, RFC 7541 §5.1; *p is moved behind it. -1: it does not end, is too large, or has more than four
# bytes after its first.
cdef inline int parse_integer(const uint8_t **p, const uint8_t *end, int bits) noexcept nogil:
    cdef uint32_t most = (<uint32_t> 1 << bits) - 1
    cdef uint32_t value = p[0][0] & most
    cdef int shift = 0
    cdef uint8_t byte
    p[0] += 1
    if value < most:
        return <int> value
    while p[0] < end and shift < 28:
        byte = p[0][0]
        p[0] += 1
        value += <uint32_t> (byte & 127) << shift
        if value > MAX_INTEGER:
            return -1
        if not byte & 128:
            return <int> value
        shift += 7
    return -1


# String literal to the offset `at` of the store, which is at or after its end. Bytes, or -1.
cdef int parse_string(HeaderBlock head, uint32_t at, const uint8_t **p, const uint8_t *end) noexcept nogil:
    cdef bint is_coded
    cdef int n
    cdef Py_ssize_t length
    if p[0] >= end:
        return -1
    is_coded = p[0][0] & 128 != 0
    n = parse_integer(p, end, 7)
    if n < 0 or n > end - p[0]:
        return -1
    if is_coded:
        if head.reserve(at - head.used + huffman_bound(<size_t> n)) < 0:
            return -1
        length = huffman_decode(p[0], <size_t> n, head.store + at)
    else:
        if head.reserve(at - head.used + <size_t> n) < 0:
            return -1
        if n:
            memcpy(head.store + at, p[0], <size_t> n)
        length = n
    p[0] += n
    return <int> length


# 1 when p[0:n] may be a field value in HTTP/2: no control characters, no white space around it (RFC 9113 §8.2.1).
cdef bint is_h2_value(const uint8_t *p, size_t n) noexcept nogil:
    cdef uint64_t bad = 0
    cdef size_t i = 0
    if n == 0:
        return True
    if is_blank(p[0]) or is_blank(p[n - 1]):
        return False
    if n < 8:
        return is_all(p, n, C_VALUE)
    while i + 8 <= n:
        bad |= controls_of(load_u64(p + i))
        i += 8
    bad |= controls_of(load_u64(p + n - 8))
    return bad == 0 or is_all(p, n, C_VALUE)       # HTAB is a control that may be there


# What a name means: token and kind, or its fault. Names in HTTP/2 are lower case.
cdef void classify_name(HpackEntry *entry, const uint8_t *name) noexcept nogil:
    cdef size_t n = entry.name_len
    cdef size_t i
    entry.token = T_OTHER
    entry.kind = 0
    entry.fault = F_NONE
    if n and name[0] == 58:
        entry.kind = kind_of(name, n)
        return
    for i in range(n):
        if gw_lower[name[i]] != name[i] or name[i] == 0:
            entry.fault = F_FIELD_NAME
            return
    if n == 0:
        entry.fault = F_FIELD_NAME
        return
    entry.token = token_of(name, n)


# ---- decoding: fields ----

cdef int take_status(HeaderBlock head, const uint8_t *p, size_t n) noexcept nogil:
    cdef size_t i
    head.status = 0
    if n != 3:
        return -F_STATUS
    for i in range(3):
        if p[i] < 48 or p[i] > 57:
            return -F_STATUS
        head.status = head.status * 10 + p[i] - 48
    return 0


# A pseudo-header field whose value lies in the store. 0 or a negated Fault.
cdef int take_pseudo(HeaderBlock head, uint8_t kind, Ref value, const HpackLimits *limits, uint8_t allowed,
                     HpackFound *found) noexcept nogil:
    cdef const uint8_t *p = head.store + value.off
    # once, of this kind of message, before the first field (RFC 9113 §8.3)
    if not kind & allowed or kind & found.pseudo or head.count:
        return -F_H2_PSEUDO
    found.pseudo |= kind
    if kind == PSEUDO_METHOD:
        if value.n == 0 or value.n > MAX_METHOD or not is_all(p, value.n, C_TOKEN):
            return -F_METHOD
        head.method_text = value
        head.method = method_of(p, value.n)
    elif kind == PSEUDO_PATH:
        if value.n > limits.max_target:
            return -F_TARGET_LONG
        head.target = value
    elif kind == PSEUDO_AUTHORITY:
        head.authority = value
    elif kind == PSEUDO_SCHEME:
        head.scheme = value
    elif kind == PSEUDO_PROTOCOL:
        found.protocol = value
    else:
        return take_status(head, p, value.n)
    return 0


# Counts a field of this size. 0 or a negated Fault.
cdef inline int count_field(uint32_t name_len, uint32_t value_len, bint is_field, const HpackLimits *limits,
                            HpackFound *found) noexcept nogil:
    found.list += name_len + value_len + ENTRY_OVERHEAD
    if found.list > limits.max_list:
        return -F_FIELDS_LARGE
    if is_field:
        found.count += 1
        if found.count > limits.max_count:
            return -F_FIELDS_MANY
    return 0


# Makes a field of the line at the end of the store, which the entry describes. 0, or -1 when memory is out.
cdef inline int push_field(HeaderBlock head, const HpackEntry *entry) noexcept nogil:
    cdef uint32_t used = head.used
    cdef Field *field
    if head.count == head.capacity:
        if head.add_stored(entry.token, used, entry.name_len, used + entry.name_len + 2, entry.value_len) < 0:
            return -1
    else:
        field = &head.fields[head.count]
        field.name = used
        field.value = used + entry.name_len + 2
        field.value_len = entry.value_len
        field.name_len = entry.name_len
        field.token = entry.token
        field.flags = 0
        head.count += 1
        if not head.first[entry.token]:
            head.first[entry.token] = <uint16_t> head.count
    head.used = used + line_size(entry)
    return 0


# A field that the table has. 0 or a negated Fault.
cdef inline int take_entry(HeaderBlock head, const HpackEntry *entry, const uint8_t *line, const HpackLimits *limits, uint8_t allowed,
                           HpackFound *found) noexcept nogil:
    cdef uint32_t n = line_size(entry)
    cdef Ref value
    cdef int fault = count_field(entry.name_len, entry.value_len, entry.kind == 0, limits, found)
    if fault < 0:
        return fault
    if entry.fault:
        return -<int> entry.fault
    if n > head.cap - head.used and head.reserve(n) < 0:
        return -F_FIELDS_LARGE
    if entry.kind == 0:
        copy_bytes(head.store + head.used, line, n)
        return 0 if push_field(head, entry) == 0 else -F_FIELDS_MANY
    value.off = head.used
    value.n = entry.value_len
    copy_bytes(head.store + value.off, line + entry.name_len + 2, value.n)
    head.used += value.n
    return take_pseudo(head, entry.kind, value, limits, allowed, found)


# A literal, with the name that has this index (0: its own), and into the table where `keep` says so. Always decoded, so that the table
# keeps up; taken only while `fault` is 0. 0 or a negated Fault: -F_HPACK, or what the field deserves.
cdef int take_literal(HpackDecoder *decoder, HeaderBlock head, uint32_t index, bint keep, int fault, const uint8_t **p,
                      const uint8_t *end, const HpackLimits *limits, uint8_t allowed, HpackFound *found) noexcept nogil:
    cdef HpackEntry entry
    cdef const HpackEntry *named
    cdef const uint8_t *line
    cdef uint32_t at = head.used
    cdef uint32_t size
    cdef Ref value
    cdef int n
    memset(&entry, 0, sizeof(entry))
    if index == 0:
        n = parse_string(head, at, p, end)
        if n < 0:
            return -F_HPACK
        if n > MAX_NAME:
            # No Field holds it, and no entry; a table that is too small for it is empty afterwards (RFC 7541 §4.4).
            if parse_string(head, at, p, end) < 0 or keep and decoder.table.max_size > MAX_NAME:
                return -F_HPACK
            while keep and table_count(&decoder.table):
                evict(&decoder.table)
            return -F_FIELDS_LARGE
        entry.name_len = <uint16_t> n
        classify_name(&entry, head.store + at)
    else:
        if index <= STATIC_ENTRIES:
            named = static_entry(index)
            line = static_line(named)
        elif index - STATIC_ENTRIES <= table_count(&decoder.table):
            named = table_entry(&decoder.table, decoder.table.next - (index - STATIC_ENTRIES))
            line = table_line(&decoder.table, named)
        else:
            return -F_HPACK
        entry.name_len = named.name_len
        entry.token = named.token
        entry.kind = named.kind
        if head.reserve(entry.name_len) < 0:
            return -F_HPACK
        copy_bytes(head.store + at, line, entry.name_len)
        if named.fault == F_FIELD_NAME:
            entry.fault = F_FIELD_NAME
    n = parse_string(head, at + entry.name_len + 2, p, end)
    if n < 0:
        return -F_HPACK
    entry.value_len = <uint32_t> n
    size = line_size(&entry)
    if head.reserve(size) < 0:
        return -F_HPACK
    line = head.store + at
    head.store[at + entry.name_len] = 58
    head.store[at + entry.name_len + 1] = 32
    head.store[at + size - 2] = 13
    head.store[at + size - 1] = 10
    if entry.fault == F_NONE and not is_h2_value(line + entry.name_len + 2, entry.value_len):
        entry.fault = F_FIELD_VALUE
    if keep and table_add(&decoder.table, line, &entry) < 0:
        return -F_HPACK
    if fault:
        return 0
    fault = count_field(entry.name_len, entry.value_len, entry.kind == 0, limits, found)
    if fault < 0:
        return fault
    if entry.fault:
        return -<int> entry.fault
    if entry.kind == 0:
        return 0 if push_field(head, &entry) == 0 else -F_FIELDS_MANY
    value.off = at + entry.name_len + 2
    value.n = entry.value_len
    head.used += size
    return take_pseudo(head, entry.kind, value, limits, allowed, found)


cdef int hpack_decode(HpackDecoder *decoder, HeaderBlock head, const uint8_t *p, size_t n, const HpackLimits *limits, uint8_t allowed,
                      HpackFound *found) noexcept nogil:
    cdef HpackTable *table = &decoder.table
    cdef const uint8_t *end = p + n
    cdef const HpackEntry *entry
    cdef int fault = 0             # the first one, negated
    cdef int answer
    cdef int index
    cdef uint8_t byte
    head.clear()
    memset(found, 0, sizeof(HpackFound))
    while p < end and (p[0] & 0xe0) == 0x20:
        index = parse_integer(&p, end, 5)
        found.updates += 1
        if index < 0 or <uint32_t> index > decoder.allowed or found.updates > MAX_UPDATES:
            return -F_HPACK
        table_resize(table, <uint32_t> index)
        decoder.update_due = False
    if decoder.update_due and p < end:
        return -F_HPACK
    while p < end:
        byte = p[0]
        if byte & 0x80:
            index = parse_integer(&p, end, 7)
            if index <= 0:
                return -F_HPACK
            if index <= STATIC_ENTRIES:
                if not fault:
                    entry = static_entry(<uint32_t> index)
                    fault = take_entry(head, entry, static_line(entry), limits, allowed, found)
            elif <uint32_t> index - STATIC_ENTRIES <= table_count(table):
                if not fault:
                    entry = table_entry(table, table.next - (<uint32_t> index - STATIC_ENTRIES))
                    fault = take_entry(head, entry, table_line(table, entry), limits, allowed, found)
            else:
                return -F_HPACK
            continue
        if byte & 0x40:
            index = parse_integer(&p, end, 6)
        elif byte & 0x20:
            return -F_HPACK        # a size update after the first field
        else:
            index = parse_integer(&p, end, 4)
        if index < 0:
            return -F_HPACK
        answer = take_literal(decoder, head, <uint32_t> index, byte & 0x40 != 0, fault, &p, end, limits, allowed, found)
        if answer == -F_HPACK:
            return answer
        if not fault:
            fault = answer
    return fault
