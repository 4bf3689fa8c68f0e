"""The table of known field names: a perfect hash on length, middle byte and the last two bytes."""

from libc.string cimport memcmp, memset

from gateway._core.types cimport (
    M_CONNECT, M_DELETE, M_GET, M_HEAD, M_OPTIONS, M_OTHER, M_PATCH, M_POST, M_PUT, M_TRACE, uint8_t, uint32_t, uint64_t)

# In the order of the Token enum; T_OTHER has no name.
cdef tuple NAMES = (
    b"", b"host", b"content-length", b"transfer-encoding", b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer",
    b"upgrade", b"expect", b"http2-settings", b"via", b"max-forwards", b"x-forwarded-for", b"x-forwarded-proto",
    b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-prefix", b"x-forwarded-client-cert", b"x-real-ip", b"forwarded",
    b"x-request-id", b"accept", b"accept-encoding", b"user-agent", b"referer", b"origin", b"cookie", b"set-cookie",
    b"authorization", b"proxy-authenticate", b"proxy-authorization", b"content-type", b"content-encoding", b"content-range",
    b"cache-control", b"date", b"server", b"location", b"retry-after", b"etag", b"last-modified", b"traceparent", b"tracestate",
    b"grpc-timeout", b"grpc-status", b"grpc-message", b"sec-websocket-key", b"sec-websocket-accept", b"sec-websocket-version",
    b"sec-websocket-protocol",
)

cdef enum:
    MIN_NAME = 2           # shortest and longest known name
    MAX_NAME = 23
    SLOTS = 128

cdef struct Slot:
    uint8_t token          # T_OTHER: free
    uint8_t n              # bytes of the name
    uint8_t name[30]

cdef Slot slots[SLOTS]

cdef uint64_t hop_by_hop = (
    <uint64_t> 1 << T_CONNECTION | <uint64_t> 1 << T_KEEP_ALIVE | <uint64_t> 1 << T_PROXY_CONNECTION | <uint64_t> 1 << T_TE
    | <uint64_t> 1 << T_TRANSFER_ENCODING | <uint64_t> 1 << T_UPGRADE | <uint64_t> 1 << T_HTTP2_SETTINGS)

# Fields that carry framing, routing, identity or meaning for the origin: a client that nominates one wants it lost on the way.
cdef uint64_t unnominable = (
    <uint64_t> 1 << T_HOST | <uint64_t> 1 << T_CONTENT_LENGTH | <uint64_t> 1 << T_TRANSFER_ENCODING | <uint64_t> 1 << T_EXPECT
    | <uint64_t> 1 << T_VIA | <uint64_t> 1 << T_MAX_FORWARDS | <uint64_t> 1 << T_X_FORWARDED_FOR
    | <uint64_t> 1 << T_X_FORWARDED_PROTO | <uint64_t> 1 << T_X_FORWARDED_HOST | <uint64_t> 1 << T_X_FORWARDED_PORT
    | <uint64_t> 1 << T_X_FORWARDED_PREFIX | <uint64_t> 1 << T_X_FORWARDED_CLIENT_CERT | <uint64_t> 1 << T_X_REAL_IP
    | <uint64_t> 1 << T_FORWARDED | <uint64_t> 1 << T_X_REQUEST_ID | <uint64_t> 1 << T_ORIGIN | <uint64_t> 1 << T_COOKIE
    | <uint64_t> 1 << T_SET_COOKIE | <uint64_t> 1 << T_AUTHORIZATION | <uint64_t> 1 << T_PROXY_AUTHORIZATION
    | <uint64_t> 1 << T_PROXY_AUTHENTICATE | <uint64_t> 1 << T_CONTENT_TYPE | <uint64_t> 1 << T_CONTENT_ENCODING
    | <uint64_t> 1 << T_CONTENT_RANGE | <uint64_t> 1 << T_CACHE_CONTROL | <uint64_t> 1 << T_DATE | <uint64_t> 1 << T_LOCATION
    | <uint64_t> 1 << T_TRACEPARENT | <uint64_t> 1 << T_TRACESTATE | <uint64_t> 1 << T_GRPC_TIMEOUT
    | <uint64_t> 1 << T_GRPC_STATUS | <uint64_t> 1 << T_GRPC_MESSAGE | <uint64_t> 1 << T_SEC_WEBSOCKET_KEY
    | <uint64_t> 1 << T_SEC_WEBSOCKET_ACCEPT | <uint64_t> 1 << T_SEC_WEBSOCKET_VERSION
    | <uint64_t> 1 << T_SEC_WEBSOCKET_PROTOCOL)


# The multiplier was searched for; fill_slots proves at import that no two names share a slot.
cdef inline uint32_t slot_of(const uint8_t *name, size_t n) noexcept nogil:
    cdef uint32_t key = (<uint32_t> n | <uint32_t> name[n - 2] << 8 | <uint32_t> name[n - 1] << 16
                         | <uint32_t> name[n >> 1] << 24)
    return key * <uint32_t> 0xe88e46c5U >> 25


cdef int fill_slots() except -1:
    cdef Slot *slot
    cdef uint8_t token = T_OTHER
    cdef int i
    cdef bytes name
    if len(NAMES) != TOKENS or TOKENS > 64:
        raise ImportError("tokens: the table has not one name for each member of Token")
    memset(slots, 0, sizeof(slots))
    for name in NAMES[1:]:
        token += 1
        if not MIN_NAME <= len(name) <= MAX_NAME:
            raise ImportError(f"tokens: MIN_NAME and MAX_NAME do not cover {name!r}")
        slot = &slots[slot_of(name, len(name))]
        if slot.token != T_OTHER:
            raise ImportError(f"tokens: {name!r} shares a slot; search another multiplier")
        slot.token = token
        slot.n = <uint8_t> len(name)
        for i in range(len(name)):
            slot.name[i] = name[i]
    return 0


fill_slots()
globals().update(NAMES=NAMES)      # a module variable that Python sees


cdef uint8_t token_of(const uint8_t *name, size_t n) noexcept nogil:
    cdef const Slot *slot
    if n < MIN_NAME or n > MAX_NAME:
        return T_OTHER
    slot = &slots[slot_of(name, n)]
    if slot.n != n or memcmp(slot.name, name, n) != 0:
        return T_OTHER
    return slot.token


cdef bint is_hop_by_hop(uint8_t token) noexcept nogil:
    return token < TOKENS and (hop_by_hop >> token) & 1 != 0


cdef bint is_unnominable(uint8_t token) noexcept nogil:
    return token < TOKENS and (unnominable >> token) & 1 != 0


cdef uint8_t method_of(const uint8_t *p, size_t n) noexcept nogil:
    if n == 3:
        if memcmp(p, b"GET", 3) == 0:
            return M_GET
        return M_PUT if memcmp(p, b"PUT", 3) == 0 else M_OTHER
    if n == 4:
        if memcmp(p, b"POST", 4) == 0:
            return M_POST
        return M_HEAD if memcmp(p, b"HEAD", 4) == 0 else M_OTHER
    if n == 5:
        if memcmp(p, b"PATCH", 5) == 0:
            return M_PATCH
        return M_TRACE if memcmp(p, b"TRACE", 5) == 0 else M_OTHER
    if n == 6:
        return M_DELETE if memcmp(p, b"DELETE", 6) == 0 else M_OTHER
    if n == 7:
        if memcmp(p, b"OPTIONS", 7) == 0:
            return M_OPTIONS
        return M_CONNECT if memcmp(p, b"CONNECT", 7) == 0 else M_OTHER
    return M_OTHER
