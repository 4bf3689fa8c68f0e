"""One finished exchange as one line of the access log, gathered in a buffer that the worker drains in batches.

The exchange calls `write` in its last phase; the worker takes the batch and hands it to observe/access_log, off the loop.
"""

import os

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, strlen

from gateway._core.headers cimport Field, HeaderBlock
from gateway._core.tokens cimport T_REFERER, T_USER_AGENT
from gateway._core.types cimport Flag, Ref, Span, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:                 # most bytes of a field that are logged
    LONG = 1024            # path and query
    SHORT = 256            # everything else
    CERTIFICATE = 1024     # of what a client's certificate says
    FIXED = 1056           # room for keys, numbers and punctuation of a line
    ESCAPED = 6            # bytes that one byte may become
    KEEP = 65536           # an empty buffer gives back what is beyond
    FLAGS_N = 15

cdef extern from *:
    """
    #include <stdint.h>
    /* By bit of types.Flag. */
    static const char *const flag_names[15] = {
        "NR", "UF", "UC", "UO", "UT", "DC", "DPE", "UPE", "URX", "NC", "UH", "DT", "RL", "SI", "LR"};
    static const char hex_digits[] = "0123456789abcdef";
    static const char month_names[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    /* Every pair of decimal digits, so that a division serves two of them. */
    static const char digit_pairs[] =
        "00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445464748495051525354555657585960"
        "616263646566676869707172737475767778798081828384858687888990919293949596979899";
    """
    const char **flag_names
    const uint8_t *hex_digits
    const uint8_t *month_names
    const uint8_t *digit_pairs

cdef uint64_t ONES = <uint64_t> 0x0101010101010101
cdef uint64_t HIGHS = <uint64_t> 0x8080808080808080


# ---- writing ----

cdef inline uint8_t *put(uint8_t *o, const char *literal, size_t n) noexcept nogil:
    memcpy(o, literal, n)
    return o + n


cdef inline uint8_t *put_number(uint8_t *o, uint64_t value) noexcept nogil:
    cdef uint8_t digits[20]
    cdef uint32_t at = 20
    cdef uint32_t pair
    while value >= 100:
        pair = <uint32_t> (value % 100) * 2
        value //= 100
        at -= 2
        memcpy(&digits[at], digit_pairs + pair, 2)
    if value >= 10:
        at -= 2
        memcpy(&digits[at], digit_pairs + value * 2, 2)
    else:
        at -= 1
        digits[at] = <uint8_t> (48 + value)
    memcpy(o, &digits[at], 20 - at)
    return o + (20 - at)


cdef inline uint8_t *put_padded(uint8_t *o, uint32_t value, int width) noexcept nogil:
    cdef int i
    for i in range(width - 1, -1, -1):
        o[i] = <uint8_t> (48 + value % 10)
        value //= 10
    return o + width


cdef inline uint8_t *put_ms(uint8_t *o, uint64_t us) noexcept nogil:
    # Milliseconds with three decimals.
    o = put_number(o, us // 1000)
    o[0] = c'.'
    return put_padded(o + 1, <uint32_t> (us % 1000), 3)


cdef inline bint is_plain_word(uint64_t w) noexcept nogil:
    # Eight bytes at once: 1 when each is printable ASCII other than the quote and the backslash. `(x - ONES) & ~x & HIGHS` finds a
    # zero byte; a byte under 0x20 is found the same way with 0x20 for 1.
    cdef uint64_t quote = w ^ (ONES * 0x22)
    cdef uint64_t slash = w ^ (ONES * 0x5c)
    cdef uint64_t rubout = w ^ (ONES * 0x7f)
    return ((w | ((w - ONES * 0x20) & ~w) | ((quote - ONES) & ~quote) | ((slash - ONES) & ~slash) | ((rubout - ONES) & ~rubout))
            & HIGHS) == 0


cdef inline uint8_t *put_escaped_byte(uint8_t *o, uint8_t c, bint is_json) noexcept nogil:
    if c == 0x22 or c == 0x5c:
        o[0] = 0x5c
        o[1] = c
        return o + 2
    if 0x20 <= c < 0x7f:
        o[0] = c
        return o + 1
    o[0] = 0x5c
    if is_json:
        memcpy(o + 1, b"u00", 3)
        o += 4
    else:
        o[1] = c'x'
        o += 2
    o[0] = hex_digits[c >> 4]
    o[1] = hex_digits[c & 15]
    return o + 2


cdef inline uint8_t *put_escaped(uint8_t *o, Span s, bint is_json) noexcept nogil:
    cdef uint64_t w = 0
    cdef size_t i = 0
    cdef size_t end
    while i + 8 <= s.n:
        memcpy(&w, s.p + i, 8)
        if is_plain_word(w):
            memcpy(o, &w, 8)
            o += 8
            i += 8
            continue
        end = i + 8
        while i < end:
            o = put_escaped_byte(o, s.p[i], is_json)
            i += 1
    while i < s.n:
        o = put_escaped_byte(o, s.p[i], is_json)
        i += 1
    return o


cdef inline uint8_t *put_member(uint8_t *o, const char *key, size_t n, Span s) noexcept nogil:
    # key: with everything around it, up to the value's opening quote.
    o = put_escaped(put(o, key, n), s, True)
    o[0] = 0x22
    return o + 1


cdef inline uint8_t *put_word(uint8_t *o, Span s) noexcept nogil:
    # A word of a text line, between spaces: "-" when empty; a space in it would shift the columns.
    cdef uint8_t *start = o
    if s.n == 0:
        o[0] = c'-'
        return o + 1
    o = put_escaped(o, s, False)
    while start < o:
        if start[0] == c' ':
            start[0] = c'_'
        start += 1
    return o


cdef inline uint8_t *put_flags(uint8_t *o, uint32_t flags) noexcept nogil:
    cdef uint32_t i
    cdef size_t n
    cdef uint8_t *start = o
    for i in range(<uint32_t> FLAGS_N):
        if flags >> i & 1:
            if o != start:
                o[0] = c','
                o += 1
            n = strlen(flag_names[i])
            memcpy(o, flag_names[i], n)
            o += n
    if o == start:
        o[0] = c'-'
        o += 1
    return o


cdef inline uint8_t *put_protocol(uint8_t *o, uint8_t protocol) noexcept nogil:
    if protocol == 11:
        return put(o, b"HTTP/1.1", 8)
    if protocol == 20:
        return put(o, b"HTTP/2", 6)
    if protocol == 10:
        return put(o, b"HTTP/1.0", 8)
    if protocol == CARRIED_TCP:
        return put(o, b"TCP", 3)
    if protocol == CARRIED_TLS:
        return put(o, b"TLS", 3)
    return o


# ---- reading the head ----

cdef inline Span cut(Span s, size_t most) noexcept nogil:
    if s.n > most:
        s.n = most
    return s


cdef inline Span cut_ref(HeaderBlock head, Ref ref, size_t most) noexcept nogil:
    cdef Span s
    s.p = NULL
    s.n = 0
    if ref.n:
        s.p = head.store + ref.off
        s.n = ref.n if ref.n < most else most
    return s


cdef inline Span cut_field(HeaderBlock head, uint8_t token) noexcept nogil:
    cdef Span s
    cdef Field *field = head.find(token)
    s.p = NULL
    s.n = 0
    if field != NULL:
        s.p = head.store + field.value
        s.n = field.value_len if field.value_len < SHORT else SHORT
    return s


cdef inline void read_head(RecordHead *out, HeaderBlock head) noexcept nogil:
    out.method = cut_ref(head, head.method_text, SHORT)
    out.host = cut_ref(head, head.authority, SHORT)
    # A head that did not pass has no path that was matched; what was asked for is what helps then.
    out.path = cut_ref(head, head.path if head.path.n else head.target, LONG)
    out.query = cut_ref(head, head.query, LONG)
    out.user_agent = cut_field(head, T_USER_AGENT)
    out.referer = cut_field(head, T_REFERER)


cdef void civil_of(uint64_t days, uint32_t *year, uint32_t *month, uint32_t *day) noexcept nogil:
    # Date of a day counted from 1970-01-01, in eras of 400 years that begin on 1 March.
    cdef uint64_t z = days + 719468
    cdef uint32_t of_era = <uint32_t> (z % 146097)
    cdef uint32_t year_of_era = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    cdef uint32_t of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    cdef uint32_t shifted = (5 * of_year + 2) // 153
    day[0] = of_year - (153 * shifted + 2) // 5 + 1
    month[0] = shifted + 3 if shifted < 10 else shifted - 9
    year[0] = <uint32_t> (z // 146097) * 400 + year_of_era + (1 if month[0] <= 2 else 0)


cdef class LogBuffer:
    def __dealloc__(self):
        free(self.bytes_)

    @staticmethod
    cdef LogBuffer new():
        cdef LogBuffer self = LogBuffer.__new__(LogBuffer)
        self.max_bytes = 1 << 20
        self.sample = 65536
        self.seed = int.from_bytes(os.urandom(8), "little") | 1
        return self

    cdef int reserve(self, size_t n) noexcept nogil:
        cdef size_t cap = self.cap if self.cap else 8192
        cdef uint8_t *grown
        if self.used + n <= self.cap:
            return 0
        if self.used + n > self.max_bytes:
            return -1
        while cap < self.used + n:
            cap *= 2
        if cap > self.max_bytes:
            cap = self.max_bytes
        grown = <uint8_t *> realloc(self.bytes_, cap)
        if grown == NULL:
            return -1
        self.bytes_ = grown
        self.cap = cap
        return 0

    cdef bytes take(self):
        cdef bytes batch
        if self.used == 0:
            return b""
        batch = PyBytes_FromStringAndSize(<char *> self.bytes_, <Py_ssize_t> self.used)
        self.used = 0
        if self.cap > KEEP:
            free(self.bytes_)
            self.bytes_ = NULL
            self.cap = 0
        return batch

    cdef bint is_sampled(self, const RecordFacts *facts) noexcept nogil:
        cdef uint64_t x
        if self.sample >= 65536:
            return True
        if facts.flags & ~<uint32_t> Flag.FLAG_LR:
            return True
        if (facts.status < 200 or facts.status >= 400) and facts.protocol != CARRIED_TCP and facts.protocol != CARRIED_TLS:
            return True
        x = self.seed                          # xorshift64*
        x ^= x >> 12
        x ^= x << 25
        x ^= x >> 27
        self.seed = x
        return (x * <uint64_t> 0x2545f4914f6cdd1d) >> 48 < self.sample

    cdef int write(self, const RecordFacts *facts, HeaderBlock request) noexcept nogil:
        cdef RecordHead head
        cdef RecordFacts cut_facts
        cdef size_t n
        cdef uint8_t *o
        if self.format == FORMAT_OFF or not self.is_sampled(facts):
            return 0
        read_head(&head, request)
        cut_facts = facts[0]
        cut_facts.listener = cut(facts.listener, SHORT)
        cut_facts.route = cut(facts.route, SHORT)
        cut_facts.cluster = cut(facts.cluster, SHORT)
        cut_facts.upstream = cut(facts.upstream, SHORT)
        cut_facts.client = cut(facts.client, SHORT)
        cut_facts.request_id = cut(facts.request_id, SHORT)
        cut_facts.detail = cut(facts.detail, SHORT)
        cut_facts.certificate = cut(facts.certificate, CERTIFICATE)
        n = (head.method.n + head.host.n + head.path.n + head.query.n + head.user_agent.n + head.referer.n
             + cut_facts.listener.n + cut_facts.route.n + cut_facts.cluster.n + cut_facts.upstream.n + cut_facts.client.n
             + cut_facts.request_id.n + cut_facts.detail.n + cut_facts.certificate.n)
        if self.reserve(n * ESCAPED + FIXED) != 0:
            self.dropped += 1
            return -1
        o = self.bytes_ + self.used
        if self.format == FORMAT_JSON:
            o = self.write_json(o, &cut_facts, &head)
        else:
            o = self.write_text(o, &cut_facts, &head)
        self.used = <size_t> (o - self.bytes_)
        return 0

    cdef uint8_t *put_second(self, uint8_t *o, uint64_t wall_us) noexcept nogil:
        # The text of the current second is made once: "2026-08-21T12:34:56." for JSON, "21/Aug/2026:12:34:56" for text.
        cdef uint64_t second = wall_us // 1000000
        cdef uint32_t year = 0
        cdef uint32_t month = 0
        cdef uint32_t day = 0
        cdef uint32_t of_day
        cdef uint8_t *t = self.second_text
        if second > <uint64_t> 253402300799:   # 9999-12-31T23:59:59
            second = <uint64_t> 253402300799
        if second != self.second or self.second_n == 0:
            civil_of(second // 86400, &year, &month, &day)
            of_day = <uint32_t> (second % 86400)
            if self.format == FORMAT_JSON:
                t = put_padded(t, year, 4)
                t[0] = c'-'
                t = put_padded(t + 1, month, 2)
                t[0] = c'-'
                t = put_padded(t + 1, day, 2)
                t[0] = c'T'
            else:
                t = put_padded(t, day, 2)
                t[0] = c'/'
                memcpy(t + 1, month_names + (month - 1) * 3, 3)
                t[4] = c'/'
                t = put_padded(t + 5, year, 4)
                t[0] = c':'
            t = put_padded(t + 1, of_day // 3600, 2)
            t[0] = c':'
            t = put_padded(t + 1, of_day // 60 % 60, 2)
            t[0] = c':'
            t = put_padded(t + 1, of_day % 60, 2)
            self.second = second
            self.second_n = <uint32_t> (t - self.second_text)
        memcpy(o, self.second_text, self.second_n)
        return o + self.second_n

    cdef uint8_t *write_json(self, uint8_t *o, const RecordFacts *facts, const RecordHead *head) noexcept nogil:
        o = self.put_second(put(o, b'{"time":"', 9), facts.wall_us)
        o[0] = c'.'
        o = put_padded(o + 1, <uint32_t> (facts.wall_us // 1000 % 1000), 3)
        o = put_ms(put(o, b'Z","duration_ms":', 17), facts.duration_us)
        o = put_ms(put(o, b',"upstream_ms":', 15), facts.upstream_us)
        o = put_member(o, b',"method":"', 11, head.method)
        o = put(o, b',"scheme":"', 11)
        if facts.protocol != CARRIED_TCP and facts.protocol != CARRIED_TLS:
            o = put(o, b'https', 5) if facts.secure else put(o, b'http', 4)
        o[0] = 0x22
        o += 1
        o = put_member(o, b',"host":"', 9, head.host)
        o = put_member(o, b',"path":"', 9, head.path)
        o = put_member(o, b',"query":"', 10, head.query)
        o = put_protocol(put(o, b',"protocol":"', 13), facts.protocol)
        o = put_number(put(o, b'","status":', 11), facts.status)
        o = put_number(put(o, b',"bytes_in":', 12), facts.bytes_in)
        o = put_number(put(o, b',"bytes_out":', 13), facts.bytes_out)
        o = put_flags(put(o, b',"flags":"', 10), facts.flags)
        o = put_member(o, b'","listener":"', 14, facts.listener)
        o = put_member(o, b',"route":"', 10, facts.route)
        o = put_member(o, b',"cluster":"', 12, facts.cluster)
        o = put_member(o, b',"upstream":"', 13, facts.upstream)
        o = put_member(o, b',"client":"', 11, facts.client)
        o = put_number(put(o, b',"attempts":', 12), facts.attempts)
        o = put_member(o, b',"request_id":"', 15, facts.request_id)
        o = put_member(o, b',"user_agent":"', 15, head.user_agent)
        o = put_member(o, b',"referer":"', 12, head.referer)
        o = put_member(o, b',"detail":"', 11, facts.detail)
        if facts.certificate.n:
            o = put_member(o, b',"client_certificate":"', 23, facts.certificate)
        return put(o, b'}\n', 2)

    cdef uint8_t *write_text(self, uint8_t *o, const RecordFacts *facts, const RecordHead *head) noexcept nogil:
        # The combined log format, then what it has no place for.
        o = put_word(o, facts.client)
        o = self.put_second(put(o, b' - - [', 6), facts.wall_us)
        o = put(o, b' +0000] "', 9)
        o = put_escaped(o, head.method, False)
        o[0] = c' '
        o = put_escaped(o + 1, head.path, False)
        if head.query.n:
            o[0] = c'?'
            o = put_escaped(o + 1, head.query, False)
        o[0] = c' '
        o = put_protocol(o + 1, facts.protocol)
        o = put_number(put(o, b'" ', 2), facts.status)
        o[0] = c' '
        o = put_number(o + 1, facts.bytes_out)
        o = put_escaped(put(o, b' "', 2), head.referer, False)
        o = put_escaped(put(o, b'" "', 3), head.user_agent, False)
        o = put_ms(put(o, b'" ', 2), facts.duration_us)
        o[0] = c' '
        o = put_ms(o + 1, facts.upstream_us)
        o[0] = c' '
        o = put_number(o + 1, facts.bytes_in)
        o[0] = c' '
        o = put_flags(o + 1, facts.flags)
        o[0] = c' '
        o = put_word(o + 1, head.host)
        o[0] = c' '
        o = put_word(o + 1, facts.listener)
        o[0] = c' '
        o = put_word(o + 1, facts.route)
        o[0] = c' '
        o = put_word(o + 1, facts.cluster)
        o[0] = c' '
        o = put_word(o + 1, facts.upstream)
        o[0] = c' '
        o = put_number(o + 1, facts.attempts)
        o[0] = c' '
        o = put_word(o + 1, facts.request_id)
        o[0] = c' '
        o = put_word(o + 1, facts.detail)
        o[0] = 10
        return o + 1


# ---- for tests ----

cdef Span span_of(bytes text) noexcept:
    cdef Span s
    s.p = <const uint8_t *> text
    s.n = <size_t> len(text)
    return s


cdef class RecordProbe:
    """A LogBuffer with a Python face: what the exchange does in C, one record at a time."""

    cdef LogBuffer log
    cdef HeaderBlock head

    def __init__(self, format="json", *, double sample=1.0, size_t max_bytes=1 << 20, uint64_t seed=1):
        self.log = LogBuffer.new()
        self.log.format = <uint8_t> ("off", "json", "text").index(format)
        self.log.sample = <uint32_t> (sample * 65536)
        self.log.max_bytes = max_bytes
        self.log.seed = seed
        self.head = HeaderBlock.new()

    def head_of(self, *, bytes method=b"", bytes authority=b"", bytes target=b"", bytes path=b"", bytes query=b"",
                bytes user_agent=None, bytes referer=None):
        """The request head of the records from now on."""
        cdef HeaderBlock head = self.head
        cdef int failed = 0
        head.clear()
        head.method_text = head.keep(<const uint8_t *> method, <size_t> len(method))
        head.authority = head.keep(<const uint8_t *> authority, <size_t> len(authority))
        head.target = head.keep(<const uint8_t *> target, <size_t> len(target))
        head.path = head.keep(<const uint8_t *> path, <size_t> len(path))
        head.query = head.keep(<const uint8_t *> query, <size_t> len(query))
        if user_agent is not None:
            failed |= head.add(T_USER_AGENT, b"user-agent", 10, <const uint8_t *> user_agent, <size_t> len(user_agent))
        if referer is not None:
            failed |= head.add(T_REFERER, b"referer", 7, <const uint8_t *> referer, <size_t> len(referer))
        if failed:
            raise MemoryError

    def write(self, *, uint64_t wall_us=0, uint64_t duration_us=0, uint64_t upstream_us=0, uint64_t bytes_in=0, uint64_t bytes_out=0,
              uint32_t flags=0, uint32_t attempts=0, uint16_t status=200, uint8_t protocol=11, bytes listener=b"", bytes route=b"",
              bytes cluster=b"", bytes upstream=b"", bytes client=b"", bytes request_id=b"", bytes detail=b"", bytes certificate=b"",
              bint secure=False, int times=1):
        cdef RecordFacts facts
        cdef int _
        cdef int result = 0
        facts.wall_us = wall_us
        facts.duration_us = duration_us
        facts.upstream_us = upstream_us
        facts.bytes_in = bytes_in
        facts.bytes_out = bytes_out
        facts.flags = flags
        facts.attempts = attempts
        facts.status = status
        facts.protocol = protocol
        facts.secure = secure
        facts.listener = span_of(listener)
        facts.route = span_of(route)
        facts.cluster = span_of(cluster)
        facts.upstream = span_of(upstream)
        facts.client = span_of(client)
        facts.request_id = span_of(request_id)
        facts.detail = span_of(detail)
        facts.certificate = span_of(certificate)
        with nogil:
            for _ in range(times):
                result = self.log.write(&facts, self.head)
        return result

    def take(self):
        return self.log.take()

    @property
    def dropped(self):
        return self.log.dropped
