"""Heads and chunk lines of HTTP/1.1 as bytes. Every framing byte is made here; none is a client's."""

from libc.string cimport memcpy, strlen

from gateway._core.ascii cimport copy_bytes
from gateway._core.buf cimport OutQueue, out_commit, out_reserve
from gateway._core.headers cimport FIELD_DROP, FIELD_HOP, HEAD_ASTERISK, Field, HeaderBlock
from gateway._core.tokens cimport T_CONTENT_LENGTH, T_HOST, T_TRANSFER_ENCODING, T_UPGRADE
from gateway._core.types cimport (
    FRAME_CHUNKED, FRAME_LENGTH, FRAME_NONE, M_PATCH, M_POST, M_PUT, Ref, Span, uint8_t, uint32_t, uint64_t)

cdef enum:
    FIXED = 256            # more than all the bytes that do not come from the block
    CHUNK_BOUND = 18       # 16 digits and the end of the line


cdef inline uint8_t *put(uint8_t *out, const void *p, size_t n) noexcept nogil:
    copy_bytes(out, <const uint8_t *> p, n)
    return out + n


cdef inline uint8_t *put_ref(uint8_t *out, HeaderBlock head, Ref ref) noexcept nogil:
    copy_bytes(out, head.store + ref.off, ref.n)
    return out + ref.n


cdef inline uint8_t *put_line_end(uint8_t *out) noexcept nogil:
    out[0] = 13
    out[1] = 10
    return out + 2


cdef uint8_t *put_decimal(uint8_t *out, uint64_t n) noexcept nogil:
    cdef uint8_t digits[20]
    cdef size_t i = 20
    while True:
        i -= 1
        digits[i] = <uint8_t> (48 + n % 10)
        n //= 10
        if n == 0:
            break
    return put(out, digits + i, 20 - i)


cdef size_t h1_head_bound(HeaderBlock head) noexcept nogil:
    cdef size_t n = FIXED
    cdef uint32_t i
    n += head.method_text.n
    n += head.path.n
    n += head.query.n
    n += head.authority.n
    n += head.reason.n
    for i in range(head.count):
        n += head.fields[i].name_len
        n += head.fields[i].value_len
        n += 4
    return n


# Offset after the field's line when the store holds it as `name: value CRLF`, else 0. The bytes themselves are asked, so a value that
# was moved or cut since is seen.
cdef inline uint32_t end_of_line(HeaderBlock head, const Field *field) noexcept nogil:
    cdef uint32_t colon = field.name + field.name_len
    cdef uint32_t end = field.value + field.value_len
    cdef const uint8_t *store = head.store
    if field.value != colon + 2 or end + 2 > head.used:
        return 0
    if store[colon] != 58 or store[colon + 1] != 32 or store[end] != 13 or store[end + 1] != 10:
        return 0
    return end + 2


cdef inline uint8_t *put_field(uint8_t *out, HeaderBlock head, const Field *field) noexcept nogil:
    out = put(out, head.store + field.name, field.name_len)
    out[0] = 58
    out[1] = 32
    out = put(out + 2, head.store + field.value, field.value_len)
    return put_line_end(out)


# Every field that is forwarded, in order; neighbours in the store in one copy.
cdef uint8_t *put_fields(uint8_t *out, HeaderBlock head) noexcept nogil:
    cdef const Field *field
    cdef uint32_t i
    cdef uint32_t end
    cdef uint32_t run = 0          # the run of whole lines [run, run_end) waits to be copied
    cdef uint32_t run_end = 0
    for i in range(head.count):
        field = &head.fields[i]
        if (field.flags & (FIELD_DROP | FIELD_HOP) or field.token == T_HOST or field.token == T_CONTENT_LENGTH
                or field.token == T_TRANSFER_ENCODING):
            continue
        end = end_of_line(head, field)
        if end and field.name == run_end:
            run_end = end
            continue
        if run_end != run:
            memcpy(out, head.store + run, run_end - run)
            out += run_end - run
        if end:
            run = field.name
            run_end = end
        else:
            run = run_end
            out = put_field(out, head, field)
    if run_end != run:
        memcpy(out, head.store + run, run_end - run)
        out += run_end - run
    return out


cdef uint8_t *put_framing(uint8_t *out, uint8_t framing, uint64_t length) noexcept nogil:
    if framing == FRAME_LENGTH:
        out = put(out, b"content-length: ", 16)
        return put_line_end(put_decimal(out, length))
    if framing == FRAME_CHUNKED:
        return put(out, b"transfer-encoding: chunked\r\n", 28)
    return out


cdef uint8_t *put_connection(uint8_t *out, HeaderBlock head, int connection, bint te_trailers) noexcept nogil:
    cdef const Field *field
    if connection == CONN_UPGRADE:
        field = head.find(T_UPGRADE)
        while field != NULL:
            out = put_field(out, head, field)
            field = head.find_next(field)
    if te_trailers:
        out = put(out, b"te: trailers\r\n", 14)
    elif connection == CONN_NONE:
        return out
    out = put(out, b"connection: ", 12)
    if connection == CONN_CLOSE:
        out = put(out, b"close", 5)
    elif connection == CONN_KEEP_ALIVE:
        out = put(out, b"keep-alive", 10)
    elif connection == CONN_UPGRADE:
        out = put(out, b"upgrade", 7)
    if te_trailers:
        out = put(out, b", te", 4) if connection != CONN_NONE else put(out, b"te", 2)
    return put_line_end(out)


cdef size_t h1_encode_request(uint8_t *out, HeaderBlock head, uint8_t framing, uint64_t length, int connection,
                              bint te_trailers) noexcept nogil:
    cdef uint8_t *start = out
    out = put_ref(out, head, head.method_text)
    out[0] = 32
    out += 1
    if head.flags & HEAD_ASTERISK:
        out[0] = 42
        out += 1
    else:
        out = put_ref(out, head, head.path)
        if head.has_query:
            out[0] = 63
            out = put_ref(out + 1, head, head.query)
    out = put(out, b" HTTP/1.1\r\n", 11)
    # HTTP/1.1 wants a Host field, be it an empty one (RFC 9112 §3.2): a request of HTTP/1.0 may have come without.
    out = put(out, b"host: ", 6)
    out = put_ref(out, head, head.authority)
    out = put_line_end(out)
    out = put_fields(out, head)
    if framing == FRAME_NONE and (head.method == M_POST or head.method == M_PUT or head.method == M_PATCH):
        framing = FRAME_LENGTH
        length = 0
    out = put_framing(out, framing, length)
    out = put_connection(out, head, connection, te_trailers)
    out = put_line_end(out)
    return <size_t> (out - start)


cdef size_t h1_encode_response(uint8_t *out, HeaderBlock head, uint8_t framing, uint64_t length, int connection,
                               bint keep_length) noexcept nogil:
    cdef uint8_t *start = out
    cdef const Field *field
    cdef const char *reason
    cdef Span value
    out = put(out, b"HTTP/1.1 ", 9)
    out[0] = <uint8_t> (48 + head.status // 100 % 10)
    out[1] = <uint8_t> (48 + head.status // 10 % 10)
    out[2] = <uint8_t> (48 + head.status % 10)
    out[3] = 32
    out += 4
    if head.reason.n:
        out = put_ref(out, head, head.reason)
    else:
        reason = reason_of(head.status)
        out = put(out, reason, strlen(reason))
    out = put_line_end(out)
    out = put_fields(out, head)
    field = head.find(T_CONTENT_LENGTH)
    if keep_length and field != NULL:
        value = head.borrow_value(field)
        while value.n > 1 and value.p[0] == 48:        # item 5: leading zeros are not passed on
            value.p += 1
            value.n -= 1
        out = put(out, b"content-length: ", 16)
        out = put_line_end(put(out, value.p, value.n))
    else:
        out = put_framing(out, framing, length)
    out = put_connection(out, head, connection, False)
    out = put_line_end(out)
    return <size_t> (out - start)


cdef size_t h1_encode_chunk(uint8_t *out, uint64_t n) noexcept nogil:
    cdef uint8_t digits[16]
    cdef size_t i = 16
    cdef uint8_t digit
    while True:
        i -= 1
        digit = <uint8_t> (n & 15)
        digits[i] = digit + 48 if digit < 10 else digit + 87
        n >>= 4
        if n == 0:
            break
    copy_bytes(out, digits + i, 16 - i)
    put_line_end(out + 16 - i)
    return 18 - i


cdef size_t h1_encode_last_chunk(uint8_t *out, HeaderBlock trailers) noexcept nogil:
    cdef uint8_t *start = out
    out = put(out, b"0\r\n", 3)
    if trailers is not None:
        out = put_fields(out, trailers)
    return <size_t> (put_line_end(out) - start)


cdef const char *reason_of(int status) noexcept nogil:
    if status == 200:
        return "OK"
    if status < 200:
        if status == 100:
            return "Continue"
        if status == 101:
            return "Switching Protocols"
        if status == 102:
            return "Processing"
        return "Early Hints" if status == 103 else ""
    if status < 300:
        if status == 201:
            return "Created"
        if status == 202:
            return "Accepted"
        if status == 203:
            return "Non-Authoritative Information"
        if status == 204:
            return "No Content"
        if status == 205:
            return "Reset Content"
        return "Partial Content" if status == 206 else ""
    if status < 400:
        if status == 300:
            return "Multiple Choices"
        if status == 301:
            return "Moved Permanently"
        if status == 302:
            return "Found"
        if status == 303:
            return "See Other"
        if status == 304:
            return "Not Modified"
        if status == 307:
            return "Temporary Redirect"
        return "Permanent Redirect" if status == 308 else ""
    return error_reason_of(status)


cdef const char *error_reason_of(int status) noexcept nogil:
    if status == 400:
        return "Bad Request"
    if status == 401:
        return "Unauthorized"
    if status == 402:
        return "Payment Required"
    if status == 403:
        return "Forbidden"
    if status == 404:
        return "Not Found"
    if status == 405:
        return "Method Not Allowed"
    if status == 406:
        return "Not Acceptable"
    if status == 407:
        return "Proxy Authentication Required"
    if status == 408:
        return "Request Timeout"
    if status == 409:
        return "Conflict"
    if status == 410:
        return "Gone"
    if status == 411:
        return "Length Required"
    if status == 412:
        return "Precondition Failed"
    if status == 413:
        return "Content Too Large"
    if status == 414:
        return "URI Too Long"
    if status == 415:
        return "Unsupported Media Type"
    if status == 416:
        return "Range Not Satisfiable"
    if status == 417:
        return "Expectation Failed"
    if status == 421:
        return "Misdirected Request"
    if status == 422:
        return "Unprocessable Content"
    if status == 425:
        return "Too Early"
    if status == 426:
        return "Upgrade Required"
    if status == 428:
        return "Precondition Required"
    if status == 429:
        return "Too Many Requests"
    if status == 431:
        return "Request Header Fields Too Large"
    if status == 451:
        return "Unavailable For Legal Reasons"
    if status == 500:
        return "Internal Server Error"
    if status == 501:
        return "Not Implemented"
    if status == 502:
        return "Bad Gateway"
    if status == 503:
        return "Service Unavailable"
    if status == 504:
        return "Gateway Timeout"
    if status == 505:
        return "HTTP Version Not Supported"
    if status == 508:
        return "Loop Detected"
    return "Network Authentication Required" if status == 511 else ""


cdef int h1_queue_chunk(OutQueue *queue, uint64_t n) noexcept nogil:
    cdef uint8_t *to = out_reserve(queue, CHUNK_BOUND)
    if to == NULL:
        return -1
    out_commit(queue, h1_encode_chunk(to, n))
    return 0


cdef int h1_queue_last_chunk(OutQueue *queue, HeaderBlock trailers) noexcept nogil:
    cdef uint8_t *to = out_reserve(queue, 5 if trailers is None else h1_head_bound(trailers) + 5)
    if to == NULL:
        return -1
    out_commit(queue, h1_encode_last_chunk(to, trailers))
    return 0
