"""The ClientHello, see client_hello.pxd. Strict where a lenient reader and the TLS stack behind it could take two different names out of
the same bytes; what only concerns the handshake itself (ciphers, groups, key shares) is left to whoever does the handshake."""

from libc.string cimport memcmp, memcpy

from gateway._core.ascii cimport C_HOST, gw_class, lower_of
from gateway._core.faults cimport (
    F_TLS_ALPN,
    F_TLS_EXTENSION,
    F_TLS_HELLO,
    F_TLS_LONG,
    F_TLS_MESSAGE,
    F_TLS_NAME,
    F_TLS_NOT,
    F_TLS_RECORD,
    F_TLS_RECORD_LONG,
)
from gateway._core.target cimport parse_ipv4, parse_ipv6

cdef enum:
    RECORD_HEAD = 5
    RECORD_MAX = 16384     # 2^14 bytes of plain text
    RECORD_HANDSHAKE = 22
    # change_cipher_spec, alert, handshake, application_data
    RECORD_FIRST_TYPE = 20
    RECORD_LAST_TYPE = 23
    MESSAGE_HEAD = 4
    CLIENT_HELLO = 1
    EXT_SERVER_NAME = 0
    EXT_ALPN = 16
    EXT_VERSIONS = 43
    TLS13 = 0x0304
    LABEL_MAX = 63
    NAME_MAX = 253         # bytes of a host name without its trailing dot
    METHOD_MAX = 24


cdef inline uint16_t load_u16(const uint8_t *p) noexcept nogil:
    return <uint16_t> (p[0] << 8 | p[1])


# ---- extensions: each is given p[0:n], the content ----

# A host name as DNS spells it, into hello.name. Addresses are no names, and nothing else is worth a guess.
cdef int read_host_name(const uint8_t *p, size_t n, ClientHello *hello) noexcept nogil:
    cdef uint8_t address[16]
    cdef size_t label = 0
    cdef size_t i
    if n == 0 or n > NAME_MAX:
        return -F_TLS_NAME
    if parse_ipv4(p, n, address) or parse_ipv6(p, n, address):
        return 0
    for i in range(n):
        if p[i] == 46:
            if label == 0:
                return -F_TLS_NAME
            label = 0
            continue
        label += 1
        if label > LABEL_MAX or not gw_class[p[i]] & C_HOST:
            return -F_TLS_NAME
    if label == 0:
        return -F_TLS_NAME                 # a trailing dot (RFC 6066 §3)
    for i in range(n):
        hello.name[i] = lower_of(p[i])
    hello.name_n = <uint16_t> n
    hello.has_name = True
    return 0


# A list of (type, name); a type other than host_name means nothing to anybody, but has its length.
cdef int read_server_name(const uint8_t *p, size_t n, ClientHello *hello) noexcept nogil:
    cdef size_t at = 2
    cdef size_t size
    cdef bint seen = False
    if n < 5 or load_u16(p) != n - 2:
        return -F_TLS_NAME
    while at < n:
        if n - at < 3:
            return -F_TLS_NAME
        size = load_u16(p + at + 1)
        if size == 0 or size > n - at - 3:
            return -F_TLS_NAME
        if p[at] == 0:
            if seen or read_host_name(p + at + 3, size, hello) < 0:
                return -F_TLS_NAME
            seen = True
        at += 3 + size
    return 0


cdef int read_alpn(const uint8_t *p, size_t n, ClientHello *hello) noexcept nogil:
    cdef size_t at = 2
    if n < 4 or load_u16(p) != n - 2 or n - 2 > sizeof(hello.alpn):
        return -F_TLS_ALPN
    while at < n:
        if p[at] == 0 or p[at] > n - at - 1:
            return -F_TLS_ALPN
        at += 1 + p[at]
    memcpy(hello.alpn, p + 2, n - 2)
    hello.alpn_n = <uint16_t> (n - 2)
    return 0


cdef int read_versions(const uint8_t *p, size_t n, ClientHello *hello) noexcept nogil:
    cdef size_t at = 1
    if n < 3 or p[0] != n - 1 or p[0] & 1:
        return -F_TLS_EXTENSION
    while at < n:
        if load_u16(p + at) == TLS13:
            hello.has_tls13 = True
        at += 2
    return 0


cdef int read_extensions(const uint8_t *p, size_t n, ClientHello *hello) noexcept nogil:
    cdef uint16_t seen[HELLO_EXTENSIONS]
    cdef size_t seen_n = 0
    cdef size_t at = 0
    cdef size_t size
    cdef size_t i
    cdef uint16_t kind
    cdef int answer
    while at < n:
        if n - at < 4:
            return -F_TLS_HELLO
        kind = load_u16(p + at)
        size = load_u16(p + at + 2)
        at += 4
        if size > n - at:
            return -F_TLS_HELLO
        for i in range(seen_n):
            if seen[i] == kind:
                return -F_TLS_EXTENSION
        if seen_n == HELLO_EXTENSIONS:
            return -F_TLS_EXTENSION
        seen[seen_n] = kind
        seen_n += 1
        answer = 0
        if kind == EXT_SERVER_NAME:
            answer = read_server_name(p + at, size, hello)
        elif kind == EXT_ALPN:
            answer = read_alpn(p + at, size, hello)
        elif kind == EXT_VERSIONS:
            answer = read_versions(p + at, size, hello)
        if answer < 0:
            return answer
        at += size
    return 0


# ---- the message: p[0:n] is all of it behind its head ----

cdef int read_message(const uint8_t *p, size_t n, ClientHello *hello) noexcept nogil:
    cdef size_t at = 35                    # version, random, length of the session id
    cdef size_t size
    if n < at:
        return -F_TLS_HELLO
    hello.legacy_version = load_u16(p)
    size = p[34]
    if p[0] != 3 or size > 32 or n - at < size + 2:
        return -F_TLS_HELLO
    at += size
    size = load_u16(p + at)                # cipher suites
    at += 2
    if size == 0 or size & 1 or n - at < size + 1:
        return -F_TLS_HELLO
    at += size
    size = p[at]                           # compression methods
    at += 1
    if size == 0 or n - at < size:
        return -F_TLS_HELLO
    at += size
    if at == n:
        return 0                           # TLS 1.2 knows hellos without extensions
    if n - at < 2 or load_u16(p + at) != n - at - 2:
        return -F_TLS_HELLO
    return read_extensions(p + at + 2, n - at - 2, hello)


# ---- the records ----

# What is wrong with the head of a record, as far as it is there: p[0:n], n > 0.
cdef int check_record(const uint8_t *p, size_t n, bint is_first) noexcept nogil:
    cdef size_t size
    if p[0] != RECORD_HANDSHAKE:
        return -F_TLS_NOT if is_first and not RECORD_FIRST_TYPE <= p[0] <= RECORD_LAST_TYPE else -F_TLS_RECORD
    if n > 1 and p[1] != 3:
        return -F_TLS_NOT if is_first else -F_TLS_RECORD
    if n < RECORD_HEAD:
        return 0
    size = load_u16(p + 3)
    if size == 0:
        return -F_TLS_RECORD
    return -F_TLS_RECORD_LONG if size > RECORD_MAX else 0


# Puts the pieces of a message that lies in several records together. The records were checked before.
cdef void gather(const uint8_t *p, size_t n, uint8_t *to) noexcept nogil:
    cdef size_t at = 0
    cdef size_t size
    cdef size_t done = 0
    while at < n:
        size = load_u16(p + at + 3)
        memcpy(to + done, p + at + RECORD_HEAD, size)
        done += size
        at += RECORD_HEAD + size


cdef int parse_gathered(const uint8_t *p, size_t n, size_t message, ClientHello *hello) noexcept nogil:
    cdef uint8_t whole[HELLO_MAX]
    gather(p, n, whole)
    return read_message(whole + MESSAGE_HEAD, message - MESSAGE_HEAD, hello)


cdef int find_message(const uint8_t *p, size_t n, ClientHello *hello) noexcept nogil:
    """Walks over the records, byte for byte in the order in which they come, so that what is wrong is wrong for every longer input."""
    cdef uint8_t head[MESSAGE_HEAD]
    cdef size_t at = 0                     # of the record
    cdef size_t have = 0                   # bytes of the message in the records before
    cdef size_t message = 0                # its whole size, 0: not known yet
    cdef size_t size                       # of the record's content
    cdef size_t there                      # of it, bytes that came
    cdef size_t i
    cdef int answer
    while True:
        if at + RECORD_HEAD >= HELLO_LIMIT:
            return -F_TLS_LONG
        if at < n:
            answer = check_record(p + at, n - at, at == 0)
            if answer < 0:
                return answer
        if n < at + RECORD_HEAD:
            hello.wants = <uint32_t> (at + RECORD_HEAD)
            return 0
        size = load_u16(p + at + 3)
        there = n - at - RECORD_HEAD
        if there > size:
            there = size
        i = 0
        while have + i < MESSAGE_HEAD and i < there:
            head[have + i] = p[at + RECORD_HEAD + i]
            i += 1
        if have + i > 0 and head[0] != CLIENT_HELLO:
            return -F_TLS_MESSAGE
        if message == 0 and have + i >= MESSAGE_HEAD:
            message = MESSAGE_HEAD + (<size_t> head[1] << 16 | load_u16(&head[2]))
            if message > HELLO_MAX:
                return -F_TLS_LONG
        if message and have + size > message:
            return -F_TLS_MESSAGE          # another message, before anybody has answered
        if at + RECORD_HEAD + size > HELLO_LIMIT:
            return -F_TLS_LONG
        if there < size:
            # nothing can be said before the message's head is known, nor then before this record is whole
            hello.wants = <uint32_t> (at + RECORD_HEAD + size)
            if message == 0 and MESSAGE_HEAD - have < size:
                hello.wants = <uint32_t> (at + RECORD_HEAD + MESSAGE_HEAD - have)
            return 0
        have += size
        at += RECORD_HEAD + size
        if have == message:
            break
    hello.used = <uint32_t> at
    size = load_u16(p + 3)
    if size == message:
        return read_message(p + RECORD_HEAD + MESSAGE_HEAD, message - MESSAGE_HEAD, hello)
    return parse_gathered(p, at, message, hello)


cdef int parse_client_hello(const uint8_t *p, size_t n, ClientHello *hello) noexcept nogil:
    cdef int answer
    hello.wants = hello.used = 0
    hello.legacy_version = hello.name_n = hello.alpn_n = 0
    hello.has_name = hello.has_tls13 = False
    answer = find_message(p, n, hello)
    if answer < 0:
        hello.name_n = hello.alpn_n = 0
        hello.has_name = hello.has_tls13 = False
        return answer
    return 1 if hello.used else 0


cdef bint looks_like_http(const uint8_t *p, size_t n) noexcept nogil:
    cdef size_t i = 0
    while i < n and i < METHOD_MAX and (65 <= p[i] <= 90 or p[i] == 45):
        i += 1
    return 0 < i < n and p[i] == 32


cdef bint has_alpn(const ClientHello *hello, const uint8_t *p, size_t n) noexcept nogil:
    cdef size_t at = 0
    while at < hello.alpn_n:
        if hello.alpn[at] == n and memcmp(hello.alpn + at + 1, p, n) == 0:
            return True
        at += 1 + <size_t> hello.alpn[at]
    return False


# ---- alerts ----

cdef int alert_of(int fault) noexcept nogil:
    if fault < 0:
        fault = -fault
    if fault == F_TLS_RECORD or fault == F_TLS_MESSAGE:
        return ALERT_UNEXPECTED_MESSAGE
    if fault == F_TLS_RECORD_LONG:
        return ALERT_RECORD_OVERFLOW
    if fault == F_TLS_EXTENSION:
        return ALERT_ILLEGAL_PARAMETER
    if fault == F_TLS_NOT:
        return ALERT_PROTOCOL_VERSION
    return ALERT_DECODE_ERROR


cdef size_t encode_alert(uint8_t *to, int level, int description, uint16_t version) noexcept nogil:
    to[0] = 21
    to[1] = <uint8_t> (version >> 8)
    to[2] = <uint8_t> (version & 255)
    to[3] = 0
    to[4] = 2
    to[5] = <uint8_t> level
    to[6] = <uint8_t> description
    return ALERT_BYTES
