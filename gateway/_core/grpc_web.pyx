"""gRPC-Web in front of gRPC; see grpc_web.pxd."""

from libc.string cimport memcmp, memcpy

from gateway._core.headers cimport FIELD_DROP, HEAD_TE_TRAILERS, Field, HeaderBlock
from gateway._core.seam cimport Downstream
from gateway._core.tokens cimport T_CONTENT_LENGTH, T_CONTENT_TYPE
from gateway._core.types cimport FRAME_CHUNKED, FRAME_LENGTH, FRAME_NONE, Span, uint8_t, uint32_t

cdef enum:
    TRAILER_FRAME = 0x80   # flag of the frame that holds the trailers
    GROUPS = 4096          # bytes of base64 that are made at a time
    TRAILERS = 16384       # bytes of a frame of trailers at most

cdef const char *DIGITS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


cdef int value_of(uint8_t c) noexcept nogil:
    if c'A' <= c <= c'Z':
        return c - c'A'
    if c'a' <= c <= c'z':
        return c - c'a' + 26
    if c'0' <= c <= c'9':
        return c - c'0' + 52
    if c == c'+':
        return 62
    if c == c'/':
        return 63
    return -1


cdef bint starts(Span span, const char *p, size_t n) noexcept nogil:
    return span.n >= n and memcmp(span.p, p, n) == 0


cdef class GrpcWeb(Downstream):
    @staticmethod
    cdef GrpcWeb around(Downstream behind, HeaderBlock request):
        cdef Field *field = request.find(T_CONTENT_TYPE)
        cdef GrpcWeb web
        cdef Span value
        cdef uint8_t kind[64]
        cdef size_t skip
        if field == NULL:
            return None
        value = request.borrow_value(field)
        if not starts(value, b"application/grpc-web", 20):
            return None
        web = GrpcWeb.__new__(GrpcWeb)
        web.behind = behind
        web.is_text = starts(value, b"application/grpc-web-text", 25)
        skip = 25 if web.is_text else 20
        if value.n - skip > 40:
            return None
        # "+proto" stays
        memcpy(kind, <const char *> b"application/grpc", 16)
        memcpy(kind + 16, value.p + skip, value.n - skip)
        if request.set(T_CONTENT_TYPE, <const uint8_t *> b"content-type", 12, kind, 16 + value.n - skip) < 0:
            return None
        request.flags |= HEAD_TE_TRAILERS
        if web.is_text and request.framing == FRAME_LENGTH:
            # decoded it is shorter than it says
            request.framing = FRAME_CHUNKED
            request.drop(T_CONTENT_LENGTH)
        return web

    cdef Py_ssize_t take(self, const uint8_t **p, size_t *n, uint8_t *out) noexcept nogil:
        cdef size_t part = n[0] if n[0] < 4096 else 4096
        cdef Py_ssize_t got = self.decode(p[0], part, out)
        p[0] += part
        n[0] -= part
        return got

    cdef Py_ssize_t decode(self, const uint8_t *p, size_t n, uint8_t *out) noexcept nogil:
        cdef size_t i
        cdef Py_ssize_t made = 0
        cdef uint32_t word
        for i in range(n):
            self.up[self.up_n] = p[i]
            self.up_n += 1
            if self.up_n < 4:
                continue
            self.up_n = 0
            if value_of(self.up[0]) < 0 or value_of(self.up[1]) < 0:
                return -1
            word = <uint32_t> value_of(self.up[0]) << 18 | <uint32_t> value_of(self.up[1]) << 12
            if self.up[2] == c'=' and self.up[3] == c'=':
                out[made] = <uint8_t> (word >> 16)
                made += 1
                continue
            if value_of(self.up[2]) < 0:
                return -1
            word |= <uint32_t> value_of(self.up[2]) << 6
            out[made] = <uint8_t> (word >> 16)
            out[made + 1] = <uint8_t> (word >> 8)
            made += 2
            if self.up[3] == c'=':
                continue
            if value_of(self.up[3]) < 0:
                return -1
            out[made] = <uint8_t> (word | <uint32_t> value_of(self.up[3]))
            made += 1
        return made

    cdef bint encode(self, const uint8_t *p, size_t n, bint is_last) noexcept:
        """Sends it in base64; what does not fill a group waits, unless it is the last. 1: enough for now."""
        cdef uint8_t out[GROUPS]
        cdef size_t made
        cdef bint enough = False
        cdef uint32_t word
        while n or is_last and self.down_n:
            made = 0
            while made < GROUPS:
                while n and self.down_n < 3:
                    self.down[self.down_n] = p[0]
                    self.down_n += 1
                    p += 1
                    n -= 1
                if self.down_n < 3 and not (is_last and self.down_n):
                    break
                word = <uint32_t> self.down[0] << 16
                if self.down_n > 1:
                    word |= <uint32_t> self.down[1] << 8
                if self.down_n > 2:
                    word |= self.down[2]
                out[made] = <uint8_t> DIGITS[word >> 18]
                out[made + 1] = <uint8_t> DIGITS[word >> 12 & 63]
                out[made + 2] = <uint8_t> DIGITS[word >> 6 & 63] if self.down_n > 1 else c'='
                out[made + 3] = <uint8_t> DIGITS[word & 63] if self.down_n > 2 else c'='
                made += 4
                self.down_n = 0
            if made:
                enough = self.behind.send_body(out, made)
            if n == 0 and not (is_last and self.down_n):
                break
        return enough

    # ---- as the exchange's downstream ------------------------------------------------------------------------------------------------

    cdef void send_informational(self, HeaderBlock head) noexcept:
        self.behind.send_informational(head)

    cdef void send_head(self, HeaderBlock head) noexcept:
        cdef Field *field = head.find(T_CONTENT_TYPE)
        cdef Span value
        cdef uint8_t kind[96]
        cdef size_t n = 25 if self.is_text else 20
        if field != NULL:
            value = head.borrow_value(field)
            if starts(value, b"application/grpc", 16) and value.n < 64:
                memcpy(kind, <const char *> b"application/grpc-web-text", n)
                memcpy(kind + n, value.p + 16, value.n - 16)
                head.set(T_CONTENT_TYPE, <const uint8_t *> b"content-type", 12, kind, n + value.n - 16)
        # An answer whose head is all of it says its status there, and a client of gRPC-Web looks for it there.
        self.has_content = head.framing != FRAME_NONE
        if head.framing == FRAME_LENGTH:
            head.framing = FRAME_CHUNKED
            head.drop(T_CONTENT_LENGTH)
        self.behind.send_head(head)

    cdef bint send_body(self, const uint8_t *p, size_t n) noexcept:
        if self.is_text:
            return self.encode(p, n, False)
        return self.behind.send_body(p, n)

    cdef void push(self) noexcept:
        self.behind.push()

    cdef void finish(self, HeaderBlock trailers) noexcept:
        cdef Downstream behind = self.behind
        cdef uint8_t frame[TRAILERS]
        cdef size_t n = 5
        cdef uint32_t i
        cdef Span name
        cdef Span value
        if trailers is not None and self.has_content:
            for i in range(trailers.count):
                if trailers.fields[i].flags & FIELD_DROP:
                    continue
                name = trailers.borrow_name(&trailers.fields[i])
                value = trailers.borrow_value(&trailers.fields[i])
                if n + name.n + value.n + 4 > sizeof(frame):
                    break
                memcpy(frame + n, name.p, name.n)
                n += name.n
                memcpy(frame + n, <const char *> b": ", 2)
                n += 2
                memcpy(frame + n, value.p, value.n)
                n += value.n
                memcpy(frame + n, <const char *> b"\r\n", 2)
                n += 2
            frame[0] = TRAILER_FRAME
            frame[1] = 0
            frame[2] = <uint8_t> ((n - 5) >> 16)
            frame[3] = <uint8_t> ((n - 5) >> 8)
            frame[4] = <uint8_t> (n - 5)
            if self.is_text:
                self.encode(frame, n, True)
            else:
                behind.send_body(frame, n)
        elif self.is_text:
            self.encode(NULL, 0, True)
        self.behind = None
        behind.finish(None)

    cdef void abort(self) noexcept:
        cdef Downstream behind = self.behind
        self.behind = None
        behind.abort()

    cdef void pause_reading(self) noexcept:
        if self.behind is not None:
            self.behind.pause_reading()

    cdef void resume_reading(self) noexcept:
        if self.behind is not None:
            self.behind.resume_reading()
