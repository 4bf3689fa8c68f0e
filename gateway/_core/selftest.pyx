"""What tests and fuzzers call: every entry of the codecs on inputs in memory of their exact size, whole or in pieces.

An over-read by one byte is invisible inside a bytes object (CPython keeps a NUL behind it), so each input is copied into a malloc of its
exact size first; under the sanitizer the first byte too many is then reported. Nothing here is on the path of a request.
"""

from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from gateway._core.ascii cimport copy_value, gw_class, gw_hex, gw_lower
from gateway._core.client_hello cimport ClientHello, alert_of, encode_alert, has_alpn, looks_like_http, parse_client_hello
from gateway._core.faults cimport fault_name, fault_status
from gateway._core.h1_body cimport BODY_DATA, BODY_END, BodyDecoder, h1_body_decode, h1_body_eof, h1_body_start
from gateway._core.h1_encode cimport (
    h1_encode_chunk, h1_encode_last_chunk, h1_encode_request, h1_encode_response, h1_head_bound, reason_of)
from gateway._core.h1_parse cimport HeadLimits, HeadParser, h1_parse_request, h1_parse_response
from gateway._core.headers cimport FIELD_DROP, FIELD_HOP, Field, HeaderBlock
from gateway._core.proxy_protocol cimport ProxyHeader, parse_proxy_header
from gateway._core.target cimport normalise_path, parse_authority, parse_ipv4, parse_ipv6, parse_port
from gateway._core.tokens cimport is_hop_by_hop, is_unnominable, token_of
from gateway._core.types cimport Ref, Span, uint8_t, uint16_t, uint32_t, uint64_t
from gateway._core.validate cimport filter_trailers, is_field_name, is_field_value, parse_length

cdef extern from *:
    """
    #ifdef __SANITIZE_ADDRESS__
    #define GW_IS_SANITIZED 1
    #else
    #define GW_IS_SANITIZED 0
    #endif
    """
    const int GW_IS_SANITIZED

cdef enum:
    BENCH_LIMIT = 65536    # bytes of the largest head that bench_encode takes


# ---- pieces ----

cdef const uint8_t *copy_exact(bytes data, size_t start, size_t end) except NULL:
    cdef uint8_t *p = <uint8_t *> malloc(end - start if end > start else 1)
    if p == NULL:
        raise MemoryError
    memcpy(p, <const uint8_t *> data + start, end - start)
    # malloc(0) is one byte here; an empty input begins behind it, so that the sanitizer sees a read of its first byte.
    return p if end > start else p + 1


cdef void free_exact(const uint8_t *p, size_t n) noexcept:
    free(<void *> (p if n else p - 1))


# Ends of the pieces: None is one piece, an int is the size of each, a sequence holds the cuts.
cdef list piece_ends(size_t n, object cuts):
    cdef list ends = []
    cdef object cut
    if cuts is None:
        return [n]
    if isinstance(cuts, int):
        return [*range(cuts, n, cuts), n]
    for cut in sorted(set(cuts)):
        if 0 < cut < n:
            ends.append(cut)
    return [*ends, n]


cdef object fault_or_none(int answer):
    return (<bytes> fault_name(-answer)).decode() if answer < 0 else None


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


# (name, value) of the live fields.
cdef list pairs_of(HeaderBlock head):
    cdef list pairs = []
    cdef tuple row
    for row in fields_of(head):
        if not row[3]:
            pairs.append(row[:2])
    return pairs


cdef HeaderBlock block_of(object pairs):
    cdef HeaderBlock block = HeaderBlock.new()
    cdef bytes name
    cdef bytes value
    for name, value in pairs:
        if block.add(token_of(name, len(name)), name, len(name), value, len(value)) < 0:
            raise MemoryError
    return block


cdef dict describe(HeaderBlock head, int answer):
    return {
        "fault": fault_or_none(answer),
        "status_of_fault": fault_status(-answer) if answer < 0 else 0,
        "used": answer if answer > 0 else 0,
        "method": bytes_of(head, head.method_text),
        "method_id": head.method,
        "version": head.version,
        "target": bytes_of(head, head.target),
        "scheme": bytes_of(head, head.scheme),
        "authority": bytes_of(head, head.authority),
        "host": bytes_of(head, head.host),
        "port": head.port,
        "path": bytes_of(head, head.path),
        "query": bytes_of(head, head.query) if head.has_query else None,
        "status": head.status,
        "reason": bytes_of(head, head.reason),
        "framing": head.framing,
        "length": head.length,
        "flags": head.flags,
        "fields": fields_of(head),
    }


cdef void set_limits(HeadLimits *limits, uint32_t max_count, uint32_t max_bytes, uint32_t max_line) noexcept:
    limits.max_count = max_count
    limits.max_bytes = max_bytes
    limits.max_line = max_line


# Feeds growing prefixes, each in memory of its own, as a connection does whose buffer moves.
cdef int feed_head(HeaderBlock head, bytes data, object cuts, const HeadLimits *limits, int request_method) except? -1000:
    cdef HeadParser parser = HeadParser(0, 0, 0, 0, 0)
    cdef const uint8_t *p
    cdef size_t end
    cdef int answer = 0
    for end in piece_ends(len(data), cuts):
        p = copy_exact(data, 0, end)
        if request_method < 0:
            answer = h1_parse_request(&parser, head, p, end, limits)
        else:
            answer = h1_parse_response(&parser, head, p, end, limits, <uint8_t> request_method)
        free_exact(p, end)
        if answer != 0:
            break
    if answer != 0 and (parser.pos or parser.scan or parser.fields or parser.phase or parser.blank):
        raise AssertionError("the parser is not at its start again")
    return answer


def parse_request(bytes data, cuts=None, *, uint32_t max_count=100, uint32_t max_bytes=32768, uint32_t max_line=8192):
    cdef HeaderBlock head = HeaderBlock.new()
    cdef HeadLimits limits
    cdef int answer
    set_limits(&limits, max_count, max_bytes, max_line)
    answer = feed_head(head, data, cuts, &limits, -1)
    return describe(head, answer)


def parse_response(bytes data, cuts=None, *, uint8_t request_method=1, uint32_t max_count=100, uint32_t max_bytes=32768,
                   uint32_t max_line=8192):
    cdef HeaderBlock head = HeaderBlock.new()
    cdef HeadLimits limits
    cdef int answer
    set_limits(&limits, max_count, max_bytes, max_line)
    answer = feed_head(head, data, cuts, &limits, request_method)
    return describe(head, answer)


# ---- encoding ----

cdef bytes encode_exact(HeaderBlock head, bint is_request, object framing, object length, int connection, bint option):
    cdef size_t bound = h1_head_bound(head)
    cdef uint8_t *out = <uint8_t *> malloc(bound)
    cdef uint8_t how = head.framing if framing is None else framing
    cdef uint64_t size = head.length if length is None else length
    cdef size_t n
    if out == NULL:
        raise MemoryError
    if is_request:
        n = h1_encode_request(out, head, how, size, connection, option)
    else:
        n = h1_encode_response(out, head, how, size, connection, option)
    try:
        if n > bound:
            raise AssertionError("h1_head_bound is too small")
        return (<const char *> out)[:n]
    finally:
        free(out)


def reencode_request(bytes data, *, framing=None, length=None, int connection=0, bint te_trailers=False, edits=()):
    cdef HeaderBlock head = HeaderBlock.new()
    cdef HeadLimits limits
    cdef int answer
    set_limits(&limits, 1000, 1 << 20, 1 << 20)
    answer = feed_head(head, data, None, &limits, -1)
    if answer <= 0:
        raise ValueError(fault_or_none(answer) or "incomplete")
    edit_block(head, edits)
    return encode_exact(head, True, framing, length, connection, te_trailers)


def reencode_response(bytes data, *, uint8_t request_method=1, framing=None, length=None, int connection=0, bint keep_length=False,
                      edits=()):
    cdef HeaderBlock head = HeaderBlock.new()
    cdef HeadLimits limits
    cdef int answer
    set_limits(&limits, 1000, 1 << 20, 1 << 20)
    answer = feed_head(head, data, None, &limits, request_method)
    if answer <= 0:
        raise ValueError(fault_or_none(answer) or "incomplete")
    edit_block(head, edits)
    return encode_exact(head, False, framing, length, connection, keep_length)


def encode_status(uint32_t status):
    cdef HeaderBlock head = HeaderBlock.new()
    head.clear()
    head.status = <uint32_t> status
    return encode_exact(head, False, 0, 0, 0, False)


def encode_chunk(uint64_t n):
    cdef uint8_t out[18]
    cdef size_t used = h1_encode_chunk(out, n)
    return (<const char *> out)[:used]


def encode_last_chunk(trailers=None):
    cdef HeaderBlock block = None
    cdef uint8_t *out
    cdef size_t bound = 5
    cdef size_t n
    if trailers is not None:
        block = block_of(trailers)
        filter_trailers(block)
        bound += h1_head_bound(block)
    out = <uint8_t *> malloc(bound)
    if out == NULL:
        raise MemoryError
    n = h1_encode_last_chunk(out, block)
    try:
        return (<const char *> out)[:n]
    finally:
        free(out)


def reason(int status):
    return <bytes> reason_of(status)


# ---- content ----

def decode_body(bytes data, cuts=None, *, uint8_t framing=2, uint64_t length=0, bint is_request=True, bint keep_trailers=True):
    cdef HeaderBlock trailers = HeaderBlock.new() if keep_trailers else None
    cdef BodyDecoder decoder
    cdef Span out
    cdef const uint8_t *p
    cdef size_t start = 0
    cdef size_t end
    cdef size_t at
    cdef size_t used[1]
    cdef size_t steps = 0
    cdef int answer = 0
    cdef list content = []
    out.p = NULL
    out.n = 0
    h1_body_start(&decoder, framing, length, is_request)
    for end in piece_ends(len(data), cuts):
        p = copy_exact(data, start, end)
        at = 0
        while True:
            steps += 1
            answer = h1_body_decode(&decoder, trailers, p + at, end - start - at, used, &out)
            at += used[0]
            if answer != BODY_DATA:
                break
            content.append((<const char *> out.p)[:out.n])
        free_exact(p, end - start)
        start += at
        if answer < 0 or answer == BODY_END:
            break
        if start != end:
            raise AssertionError("BODY_MORE left bytes behind")
        if steps > 4 * <size_t> len(data) + 8:
            raise AssertionError("the decoder makes no progress")
    return {
        "content": b"".join(content),
        "end": answer == BODY_END,
        "fault": fault_or_none(answer),
        "used": start if answer >= 0 else 0,
        "eof": fault_or_none(h1_body_eof(&decoder)) if answer >= 0 else None,
        "trailers": pairs_of(trailers) if trailers is not None else None,
    }


def filter_trailer_fields(fields):
    cdef HeaderBlock block = block_of(fields)
    filter_trailers(block)
    return pairs_of(block)


# ---- HeaderBlock ----

# Runs ("add" | "set", name, value), ("drop" | "find", name), ("clear",), ("echo", i, j): add with the name of field i and the value of
# field j, both in the block's own store. Answers what "find" answered: every live value of the name, in order.
cdef list edit_block(HeaderBlock head, object edits):
    cdef list found = []
    cdef list values
    cdef Field *field
    cdef bytes name
    cdef bytes value
    cdef const uint8_t *p
    cdef const uint8_t *q
    cdef size_t n
    cdef size_t m
    cdef int answer
    cdef object edit
    for edit in edits:
        if edit[0] == "clear":
            head.clear()
            continue
        if edit[0] == "echo":
            p = head.store + head.fields[<uint32_t> edit[1]].name
            n = head.fields[<uint32_t> edit[1]].name_len
            q = head.store + head.fields[<uint32_t> edit[2]].value
            m = head.fields[<uint32_t> edit[2]].value_len
            if head.add(token_of(p, n), p, n, q, m) < 0:
                raise MemoryError
            continue
        name = edit[1]
        p = copy_exact(name, 0, len(name))
        n = len(name)
        if edit[0] == "find":
            values = []
            field = head.find_name(p, n)
            while field != NULL:
                values.append((<const char *> head.store)[field.value:field.value + field.value_len])
                field = head.find_next(field)
            found.append(values)
        elif edit[0] == "drop":
            head.drop_name(p, n)
        else:
            value = edit[2]
            q = copy_exact(value, 0, len(value))
            m = len(value)
            answer = head.add(token_of(p, n), p, n, q, m) if edit[0] == "add" else head.set(token_of(p, n), p, n, q, m)
            free_exact(q, m)
            if answer < 0:
                raise MemoryError
        free_exact(p, n)
    return found


def edit_fields(edits):
    cdef HeaderBlock head = HeaderBlock.new()
    cdef list found = edit_block(head, edits)
    return found, pairs_of(head)


# ---- small parsers ----

def normalise(bytes path):
    cdef size_t n = len(path)
    cdef const uint8_t *p = copy_exact(path, 0, n)
    cdef uint8_t *out = <uint8_t *> malloc(n if n else 1)
    cdef int answer
    if out == NULL:
        raise MemoryError
    answer = normalise_path(p, n, out)
    free_exact(p, n)
    try:
        return (<const char *> out)[:answer] if answer >= 0 else None
    finally:
        free(out)


def split_authority(bytes text):
    cdef HeaderBlock head = HeaderBlock.new()
    cdef int answer
    head.clear()
    answer = parse_authority(head, head.keep(text, len(text)))
    return (bytes_of(head, head.host), head.port) if answer == 0 else None


def read_ipv4(bytes text):
    cdef const uint8_t *p = copy_exact(text, 0, len(text))
    cdef uint8_t out[4]
    cdef bint good = parse_ipv4(p, len(text), out)
    free_exact(p, len(text))
    return (<const char *> out)[:4] if good else None


def read_ipv6(bytes text):
    cdef const uint8_t *p = copy_exact(text, 0, len(text))
    cdef uint8_t out[16]
    cdef bint good = parse_ipv6(p, len(text), out)
    free_exact(p, len(text))
    return (<const char *> out)[:16] if good else None


def read_port(bytes text):
    cdef const uint8_t *p = copy_exact(text, 0, len(text))
    cdef uint32_t port = parse_port(p, len(text))
    free_exact(p, len(text))
    return port


def read_length(bytes text):
    cdef const uint8_t *p = copy_exact(text, 0, len(text))
    cdef uint64_t value[1]
    cdef int answer = parse_length(p, len(text), value)
    free_exact(p, len(text))
    return value[0] if answer == 0 else None


def read_proxy_header(bytes data):
    cdef const uint8_t *p = copy_exact(data, 0, len(data))
    cdef ProxyHeader header
    cdef int answer = parse_proxy_header(p, len(data), &header)
    cdef size_t width
    free_exact(p, len(data))
    if answer <= 0:
        return {"fault": fault_or_none(answer), "used": 0}
    width = 16 if header.family == 6 else 4
    return {
        "fault": None, "used": answer, "family": header.family,
        "source": (<const char *> header.source)[:width] if header.family else b"",
        "destination": (<const char *> header.destination)[:width] if header.family else b"",
        "source_port": header.source_port, "destination_port": header.destination_port,
    }


def read_client_hello(bytes data):
    cdef const uint8_t *p = copy_exact(data, 0, len(data))
    cdef ClientHello hello
    cdef int answer = parse_client_hello(p, len(data), &hello)
    free_exact(p, len(data))
    if answer <= 0:
        return {"fault": fault_or_none(answer), "used": 0, "wants": hello.wants, "alert": alert_of(answer) if answer else 0}
    return {
        "fault": None, "used": hello.used, "wants": 0, "alert": 0, "legacy_version": hello.legacy_version,
        "tls13": bool(hello.has_tls13), "name": (<const char *> hello.name)[:hello.name_n] if hello.has_name else None,
        "alpn": (<const char *> hello.alpn)[:hello.alpn_n],
        "h2": bool(has_alpn(&hello, <const uint8_t *> b"h2", 2)),
    }


def is_http_instead(bytes data):
    cdef const uint8_t *p = copy_exact(data, 0, len(data))
    cdef bint answer = looks_like_http(p, len(data))
    free_exact(p, len(data))
    return bool(answer)


def alert_record(int level, int description, uint16_t version):
    cdef uint8_t out[7]
    return (<const char *> out)[:encode_alert(out, level, description, version)]


def token(bytes name):
    cdef const uint8_t *p = copy_exact(name, 0, len(name))
    cdef int answer = token_of(p, len(name))
    free_exact(p, len(name))
    return answer


def token_facts(uint8_t number):
    return bool(is_hop_by_hop(number)), bool(is_unnominable(number))


def tables():
    cdef list rows = []
    cdef int i
    for i in range(256):
        rows.append((gw_class[i], gw_lower[i], gw_hex[i]))
    return rows


def value_is_clean(bytes value):
    cdef size_t n = len(value)
    cdef const uint8_t *p = copy_exact(value, 0, n)
    cdef const uint8_t *out = copy_exact(b"\xff" * n, 0, n)
    cdef bint clean = copy_value(<uint8_t *> out, p, n)
    cdef bint asked = is_field_value(p, n)
    try:
        if (<const char *> out)[:n] != value or clean != asked:
            raise AssertionError("copy_value and is_field_value disagree")
        return bool(clean)
    finally:
        free_exact(p, n)
        free_exact(out, n)


def name_is_token(bytes name):
    cdef const uint8_t *p = copy_exact(name, 0, len(name))
    cdef bint good = is_field_name(p, len(name))
    free_exact(p, len(name))
    return bool(good)


def fault_facts(int fault):
    return (<bytes> fault_name(fault)).decode(), fault_status(fault)


def read_past(bytes data):
    cdef const uint8_t *p
    cdef uint8_t byte
    if GW_IS_SANITIZED == 0:
        raise RuntimeError("only the instrumented build may read past the end")
    p = copy_exact(data, 0, len(data))
    byte = p[len(data)]
    free_exact(p, len(data))
    return byte


# ---- measuring: nanoseconds for one turn, the mean of n ----

cdef int64_t now_ns() noexcept nogil:
    cdef timespec ts
    clock_gettime(CLOCK_MONOTONIC, &ts)
    return <int64_t> ts.tv_sec * 1000000000 + ts.tv_nsec


def bench_parse(bytes data, uint32_t n, int request_method=-1):
    cdef HeaderBlock head = HeaderBlock.new()
    cdef HeadLimits limits
    cdef HeadParser parser
    cdef const uint8_t *p = data
    cdef size_t size = len(data)
    cdef uint32_t left = n
    cdef int answer
    cdef int64_t start = now_ns()
    memset(&parser, 0, sizeof(parser))
    set_limits(&limits, 100, 32768, 8192)
    while left > 0:
        left -= 1
        if request_method < 0:
            answer = h1_parse_request(&parser, head, p, size, &limits)
        else:
            answer = h1_parse_response(&parser, head, p, size, &limits, <uint8_t> request_method)
        if answer <= 0:
            raise ValueError(fault_or_none(answer) or "incomplete")
    return (now_ns() - start) / n


def bench_encode(bytes data, uint32_t n, int request_method=-1):
    cdef HeaderBlock head = HeaderBlock.new()
    cdef HeadLimits limits
    cdef uint32_t left = n
    cdef int answer
    cdef uint8_t out[BENCH_LIMIT]
    cdef size_t used = 0
    cdef int64_t start
    set_limits(&limits, 100, 32768, 8192)
    answer = feed_head(head, data, None, &limits, request_method)
    if answer <= 0 or h1_head_bound(head) > BENCH_LIMIT:
        raise ValueError(fault_or_none(answer) or "incomplete, or too large to measure")
    start = now_ns()
    while left > 0:
        left -= 1
        if h1_head_bound(head) > BENCH_LIMIT:
            raise ValueError("too large")
        if request_method < 0:
            used += h1_encode_request(out, head, head.framing, head.length, 0, False)
        else:
            used += h1_encode_response(out, head, head.framing, head.length, 0, False)
    if used == 0:
        raise AssertionError("nothing was encoded")
    return (now_ns() - start) / n


def bench_body(bytes data, uint32_t n, uint8_t framing=2, uint64_t length=0):
    cdef HeaderBlock trailers = HeaderBlock.new()
    cdef BodyDecoder decoder
    cdef Span out
    cdef const uint8_t *p = data
    cdef size_t size = len(data)
    cdef size_t at
    cdef size_t used[1]
    cdef uint32_t left = n
    cdef int answer = BODY_DATA
    cdef int64_t start = now_ns()
    out.p = NULL
    out.n = 0
    while left > 0:
        left -= 1
        h1_body_start(&decoder, framing, length, True)
        trailers.clear()
        at = 0
        while True:
            answer = h1_body_decode(&decoder, trailers, p + at, size - at, used, &out)
            at += used[0]
            if answer != BODY_DATA:
                break
        if answer != BODY_END:
            raise ValueError("the content did not end")
    return (now_ns() - start) / n
