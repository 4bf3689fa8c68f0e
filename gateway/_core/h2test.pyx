"""What tests and fuzzers of HTTP/2 call: its codecs on inputs in memory of their exact size; beside selftest, and for the same reasons."""

cimport cython

from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from gateway._core.faults cimport fault_name
from gateway._core.h2_frame cimport (
    FRAME_HEAD, H2_DATA, H2_HEADERS, PREFACE, FieldBlock, FrameHead, Settings, block_add, block_clear, h2_check_head, h2_error_of,
    h2_is_malformed, h2_parse_head, h2_parse_headers, h2_parse_padding, h2_parse_priority, h2_parse_settings, h2_preface, h2_put_head,
    h2_settings_start)
from gateway._core.headers cimport FIELD_DROP, FIELD_HOP, Field, HeaderBlock
from gateway._core.hpack cimport (
    HpackDecoder, HpackEntry, HpackFound, HpackLimits, HpackTable, hpack_allow, hpack_decode, hpack_start, static_entry, static_name,
    table_clear, table_count, table_entry, table_line)
from gateway._core.hpack_encode cimport (
    HpackEncoder, hpack_bound, hpack_encode_request, hpack_encode_response, hpack_encode_trailers, hpack_encoder_clear,
    hpack_encoder_start, hpack_limit)
from gateway._core.huffman cimport huffman_bound, huffman_decode, huffman_encode, huffman_length
from gateway._core.tokens cimport method_of, token_of
from gateway._core.types cimport FRAME_LENGTH, FRAME_NONE, Ref, Span, uint8_t, uint32_t, uint64_t
from gateway._core.validate cimport (
    PSEUDO_AUTHORITY, PSEUDO_METHOD, PSEUDO_PATH, PSEUDO_PROTOCOL, PSEUDO_SCHEME, PSEUDO_STATUS, validate_h2_request,
    validate_h2_response, validate_h2_trailers)

cdef enum:
    REQUEST = PSEUDO_METHOD | PSEUDO_SCHEME | PSEUDO_AUTHORITY | PSEUDO_PATH | PSEUDO_PROTOCOL


# ---- memory ----

# A copy in memory of its exact size; of an empty input the first byte is already behind the end.
cdef uint8_t *copy_exact(bytes data) except NULL:
    cdef size_t n = len(data)
    cdef uint8_t *p = <uint8_t *> malloc(n if n else 1)
    if p == NULL:
        raise MemoryError
    memcpy(p, <const uint8_t *> data, n)
    return p if n else p + 1


cdef void free_exact(uint8_t *p, size_t n) noexcept:
    free(p if n else p - 1)


cdef object fault_or_none(int answer):
    return (<bytes> fault_name(-answer)).decode() if answer < 0 else None


cdef int64_t now_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <int64_t> t.tv_sec * 1000000000 + t.tv_nsec


# ---- Huffman ----

def huffman_read(bytes data):
    cdef size_t n = len(data)
    cdef uint8_t *p = copy_exact(data)
    cdef uint8_t *out = <uint8_t *> malloc(huffman_bound(n))
    cdef Py_ssize_t length
    if out == NULL:
        raise MemoryError
    length = huffman_decode(p, n, out)
    try:
        return (<const char *> out)[:length] if length >= 0 else None
    finally:
        free(out)
        free_exact(p, n)


def huffman_write(bytes data):
    cdef size_t n = len(data)
    cdef uint8_t *p = copy_exact(data)
    cdef size_t length = huffman_length(p, n, 4 * n)
    cdef uint8_t *out = <uint8_t *> malloc(length + 1)
    if out == NULL:
        raise MemoryError
    huffman_encode(p, n, out)
    try:
        return (<const char *> out)[:length]
    finally:
        free(out)
        free_exact(p, n)


# ---- blocks ----

cdef bytes bytes_of(HeaderBlock head, Ref ref):
    return (<const char *> head.store)[ref.off:ref.off + ref.n] if ref.n else b""


cdef list fields_of(HeaderBlock head):
    cdef list fields = []
    cdef uint32_t i
    cdef Field *field
    for i in range(head.count):
        field = &head.fields[i]
        fields.append((
            (<const char *> head.store)[field.name:field.name + field.name_len],
            (<const char *> head.store)[field.value:field.value + field.value_len],
            field.flags & FIELD_HOP != 0,
            field.flags & FIELD_DROP != 0,
        ))
    return fields


# Every line in the store is as hpack.pxd draws it, and first[] finds the first of each name.
cdef int check_block(HeaderBlock head) except -1:
    cdef uint32_t i
    cdef Field *field
    cdef uint8_t token
    for i in range(head.count):
        field = &head.fields[i]
        if field.name + field.name_len > head.used or field.value + field.value_len > head.used:
            raise AssertionError("a field lies behind the end of the store")
        token = token_of(head.store + field.name, field.name_len)
        if token != field.token:
            raise AssertionError("a field has the token of another")
        if not field.flags & FIELD_DROP and (head.first[token] == 0 or head.first[token] > i + 1):
            raise AssertionError("first[] does not find a field")
    return 0


cdef list table_pairs(HpackTable *table):
    cdef list pairs = []
    cdef uint32_t serial = table.next
    cdef uint32_t size = 0
    cdef HpackEntry *entry
    cdef const char *line
    while serial != table.first:
        serial -= 1
        entry = table_entry(table, serial)
        line = <const char *> table_line(table, entry)
        pairs.append((line[:entry.name_len], line[entry.name_len + 2:entry.name_len + 2 + entry.value_len]))
        size += entry.name_len + entry.value_len + 32
        if line[entry.name_len:entry.name_len + 2] != b": ":
            raise AssertionError("a line of the table is none")
    if size != table.size or size > table.max_size:
        raise AssertionError("the table counts wrong")
    return pairs


cdef tuple table_facts(HpackTable *table):
    return table.size, table.max_size, table_count(table), table.cap, table.ring


def static_index(bytes name):
    return static_name(name, len(name))


def static_facts(uint32_t index):
    cdef const HpackEntry *entry = static_entry(index)
    return entry.token, entry.kind, entry.name_len, entry.value_len


# ---- HPACK ----

@cython.final
cdef class HpackReader:
    """A decoder with its table. kind: request, response or trailers; validate: what was decoded is also held to the rules."""

    cdef HpackDecoder decoder
    cdef HeaderBlock head

    def __init__(self):
        hpack_start(&self.decoder)
        self.head = HeaderBlock.new()

    def __dealloc__(self):
        table_clear(&self.decoder.table)

    def allow(self, uint32_t size):
        hpack_allow(&self.decoder, size)

    def table(self):
        return table_pairs(&self.decoder.table)

    def facts(self):
        return table_facts(&self.decoder.table)

    def read(self, bytes block, str kind="request", *, bint validate=False, bint ended=True, uint8_t method=1, uint32_t max_count=100,
             uint32_t max_list=32768, uint32_t max_target=8192):
        cdef HpackLimits limits
        cdef HpackFound found
        cdef HeaderBlock head = self.head
        cdef size_t n = len(block)
        cdef uint8_t *p = copy_exact(block)
        cdef uint8_t allowed = REQUEST if kind == "request" else PSEUDO_STATUS if kind == "response" else 0
        cdef int answer
        limits.max_count = max_count
        limits.max_list = max_list
        limits.max_target = max_target
        answer = hpack_decode(&self.decoder, head, p, n, &limits, allowed, &found)
        free_exact(p, n)
        table_pairs(&self.decoder.table)
        if answer == 0 and validate:
            if kind == "request":
                answer = validate_h2_request(head, found.pseudo, found.protocol, ended)
            elif kind == "response":
                answer = validate_h2_response(head, method, ended)
            else:
                answer = validate_h2_trailers(head)
        if answer == 0:
            check_block(head)
        pseudo = {}
        if found.pseudo & PSEUDO_METHOD:
            pseudo[b":method"] = bytes_of(head, head.method_text)
        if found.pseudo & PSEUDO_SCHEME:
            pseudo[b":scheme"] = bytes_of(head, head.scheme)
        if found.pseudo & PSEUDO_AUTHORITY:
            pseudo[b":authority"] = bytes_of(head, head.authority)
        if found.pseudo & PSEUDO_PATH:
            pseudo[b":path"] = bytes_of(head, head.target)
        if found.pseudo & PSEUDO_PROTOCOL:
            pseudo[b":protocol"] = bytes_of(head, found.protocol)
        if found.pseudo & PSEUDO_STATUS:
            pseudo[b":status"] = b"%03d" % head.status
        return {
            "fault": fault_or_none(answer),
            "pseudo": pseudo,
            "fields": fields_of(head),
            "count": found.count,
            "list": found.list,
            "updates": found.updates,
            "method_id": head.method,
            "path": bytes_of(head, head.path),
            "query": bytes_of(head, head.query) if head.has_query else None,
            "host": bytes_of(head, head.host),
            "port": head.port,
            "framing": head.framing,
            "length": head.length,
            "flags": head.flags,
            "store": head.cap,
        }

    def bench(self, bytes block, int n, bint validate=True):
        """Nanoseconds to decode a request head (and validate it), the mean of n."""
        cdef HpackLimits limits
        cdef HpackFound found
        cdef int64_t start
        cdef int answer = 0
        cdef int left = n
        cdef const uint8_t *p = block
        cdef size_t size = len(block)
        limits.max_count = 100
        limits.max_list = 32768
        limits.max_target = 8192
        start = now_ns()
        while left > 0:
            left -= 1
            answer |= hpack_decode(&self.decoder, self.head, p, size, &limits, REQUEST, &found)
            if validate:
                answer |= validate_h2_request(self.head, found.pseudo, found.protocol, True)
        if answer:
            raise ValueError("the head is no good")
        return (now_ns() - start) / n


cdef HeaderBlock block_of(object pairs):
    cdef HeaderBlock block = HeaderBlock.new()
    cdef bytes name
    cdef bytes value
    for name, value in pairs:
        if name == b":method":
            block.method_text = block.keep(value, len(value))
            block.method = method_of(value, len(value))
        elif name == b":authority":
            block.authority = block.keep(value, len(value))
        elif name == b":path":
            path, mark, query = value.partition(b"?")
            block.target = block.keep(value, len(value))
            block.path.off = block.target.off
            block.path.n = len(path)
            block.has_query = mark != b""
            block.query.off = block.target.off + len(path) + 1 if mark else 0
            block.query.n = len(query)
        elif name == b":status":
            block.status = int(value)
        elif name != b":scheme" and block.add(token_of(name, len(name)), name, len(name), value, len(value)) < 0:
            raise MemoryError
    return block


@cython.final
cdef class HpackWriter:
    """An encoder with its table. stateless: the static table alone."""

    cdef HpackEncoder encoder
    cdef bint stateless

    def __init__(self, bint stateless=False):
        hpack_encoder_start(&self.encoder)
        self.stateless = stateless

    def __dealloc__(self):
        hpack_encoder_clear(&self.encoder)

    def limit(self, uint32_t size):
        hpack_limit(&self.encoder, size)

    def table(self):
        return table_pairs(&self.encoder.table)

    def facts(self):
        return table_facts(&self.encoder.table)

    def write(self, object pairs, str kind="request", *, object length=None, bint te_trailers=False, bint keep_length=False,
              uint32_t flags=0, bint move_query=False):
        cdef HeaderBlock head = block_of(pairs)
        cdef size_t bound
        cdef size_t n
        cdef uint8_t *out
        cdef HpackEncoder *encoder = NULL if self.stateless else &self.encoder
        cdef uint8_t framing = FRAME_NONE if length is None else FRAME_LENGTH
        cdef uint64_t size = 0 if length is None else length
        cdef bint secure = (b":scheme", b"https") in pairs
        head.flags |= flags
        if move_query and head.query.n:        # as a rewritten path leaves it
            head.query = head.keep(head.store + head.query.off, head.query.n)
        bound = hpack_bound(head)
        out = <uint8_t *> malloc(bound)
        if out == NULL:
            raise MemoryError
        if kind == "request":
            n = hpack_encode_request(encoder, out, head, framing, size, te_trailers, secure)
        elif kind == "response":
            n = hpack_encode_response(encoder, out, head, framing, size, keep_length)
        else:
            n = hpack_encode_trailers(encoder, out, head)
        try:
            if n > bound:
                raise AssertionError("hpack_bound is too small")
            table_pairs(&self.encoder.table)
            return (<const char *> out)[:n]
        finally:
            free(out)

    def bench(self, object pairs, int n, str kind="response", object length=None):
        """Nanoseconds to encode a head, the mean of n."""
        cdef HeaderBlock head = block_of(pairs)
        cdef uint8_t *out = <uint8_t *> malloc(hpack_bound(head))
        cdef bint is_request = kind == "request"
        cdef uint8_t framing = FRAME_NONE if length is None else FRAME_LENGTH
        cdef uint64_t size = 0 if length is None else length
        cdef int64_t start
        cdef size_t bytes_out = 0
        cdef int left = n
        if out == NULL:
            raise MemoryError
        start = now_ns()
        while left > 0:
            left -= 1
            if is_request:
                bytes_out += hpack_encode_request(&self.encoder, out, head, framing, size, False, False)
            else:
                bytes_out += hpack_encode_response(&self.encoder, out, head, framing, size, False)
        start = now_ns() - start
        free(out)
        return start / n, bytes_out / n


# ---- frames ----

def frame_head(bytes data, uint32_t max_length=16384):
    """length, type, flags, stream, and what is wrong with it by itself."""
    cdef FrameHead frame
    cdef uint8_t *p
    if len(data) < FRAME_HEAD:
        raise ValueError("the head of a frame has nine bytes")
    p = copy_exact(data[:FRAME_HEAD])
    h2_parse_head(p, &frame)
    free_exact(p, FRAME_HEAD)
    return frame.length, frame.type, frame.flags, frame.stream, fault_or_none(h2_check_head(&frame, max_length))


def put_frame_head(size_t length, uint8_t type, uint8_t flags, uint32_t stream):
    cdef uint8_t out[9]
    h2_put_head(out, length, type, flags, stream)
    return (<const char *> out)[:9]


def headers_piece(uint8_t flags, uint32_t stream, bytes payload):
    cdef FrameHead frame = FrameHead(<uint32_t> len(payload), stream, H2_HEADERS, flags)
    cdef Span piece
    cdef uint8_t *p = copy_exact(payload)
    cdef int answer = h2_parse_headers(&frame, p, &piece)
    try:
        return fault_or_none(answer) if answer < 0 else (<const char *> piece.p)[:piece.n]
    finally:
        free_exact(p, frame.length)


def padding(uint8_t flags, uint32_t length, bytes first):
    cdef FrameHead frame = FrameHead(length, 1, H2_DATA, flags)
    cdef uint8_t *p = copy_exact(first)
    cdef int answer = h2_parse_padding(&frame, p)
    free_exact(p, len(first))
    return fault_or_none(answer) if answer < 0 else answer


def read_settings(bytes payload, bint from_server=False, before=b""):
    """(fault, settings); those of `before` hold already."""
    cdef Settings settings
    cdef uint8_t *p = copy_exact(payload)
    cdef int answer
    h2_settings_start(&settings)
    h2_parse_settings(&settings, before, len(before), False)
    answer = h2_parse_settings(&settings, p, len(payload), from_server)
    free_exact(p, len(payload))
    return fault_or_none(answer), dict(settings)


def read_priority(bytes value, uint8_t urgency=3, bint incremental=False):
    cdef uint8_t *p = copy_exact(value)
    h2_parse_priority(p, len(value), &urgency, &incremental)
    free_exact(p, len(value))
    return urgency, incremental


def fault_error(int fault):
    return h2_error_of(fault), h2_is_malformed(fault)


def join_pieces(pieces, uint32_t most=65536, uint32_t most_pieces=8):
    """The pieces of a field block, the first one from HEADERS; or the fault."""
    cdef FieldBlock block
    cdef Span span
    cdef bytes piece
    cdef uint8_t *p
    cdef int answer = 0
    memset(&block, 0, sizeof(block))
    try:
        for piece in pieces:
            p = copy_exact(piece)
            span.p = p
            span.n = len(piece)
            answer = block_add(&block, span, most, most_pieces)
            free_exact(p, span.n)
            if answer < 0:
                return fault_or_none(answer)
            block.pieces += 1
        return (<const char *> block.bytes)[:block.n]
    finally:
        block_clear(&block)


def preface():
    return (<const char *> h2_preface())[:PREFACE]
