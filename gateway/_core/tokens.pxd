# tokens.pxd - level 2: known field names as small integers, so that a test for a header is an integer compare.
# Owns: the name table (read only). Called by: headers, validate, h1_parse, hpack, forward, record.

from gateway._core.types cimport uint8_t

cdef enum Token:           # u8
    T_OTHER = 0
    T_HOST
    T_CONTENT_LENGTH
    T_TRANSFER_ENCODING
    T_CONNECTION
    T_KEEP_ALIVE
    T_PROXY_CONNECTION
    T_TE
    T_TRAILER
    T_UPGRADE
    T_EXPECT
    T_HTTP2_SETTINGS
    T_VIA
    T_MAX_FORWARDS
    T_X_FORWARDED_FOR
    T_X_FORWARDED_PROTO
    T_X_FORWARDED_HOST
    T_X_FORWARDED_PORT
    T_X_FORWARDED_PREFIX
    T_X_FORWARDED_CLIENT_CERT
    T_X_REAL_IP
    T_FORWARDED
    T_X_REQUEST_ID
    T_ACCEPT
    T_ACCEPT_ENCODING
    T_USER_AGENT
    T_REFERER
    T_ORIGIN
    T_COOKIE
    T_SET_COOKIE
    T_AUTHORIZATION
    T_PROXY_AUTHENTICATE
    T_PROXY_AUTHORIZATION
    T_CONTENT_TYPE
    T_CONTENT_ENCODING
    T_CONTENT_RANGE
    T_CACHE_CONTROL
    T_DATE
    T_SERVER
    T_LOCATION
    T_RETRY_AFTER
    T_ETAG
    T_LAST_MODIFIED
    T_TRACEPARENT
    T_TRACESTATE
    T_GRPC_TIMEOUT
    T_GRPC_STATUS
    T_GRPC_MESSAGE
    T_SEC_WEBSOCKET_KEY
    T_SEC_WEBSOCKET_ACCEPT
    T_SEC_WEBSOCKET_VERSION
    T_SEC_WEBSOCKET_PROTOCOL
    TOKENS                 # how many there are; at most 64

# The token of a lower-case name, T_OTHER when it is none of ours.
cdef uint8_t token_of(const uint8_t *name, size_t n) noexcept nogil
# 1 for a field that is hop-by-hop by definition (RFC 9110 §7.6.1): connection, keep-alive, proxy-connection, te,
# transfer-encoding, upgrade, http2-settings, trailer stays end-to-end.
cdef bint is_hop_by_hop(uint8_t token) noexcept nogil
# 1 for a field that Connection may never nominate: host, content-length, transfer-encoding, authorization, cookie,
# x-forwarded-*, forwarded, x-real-ip, via, x-request-id, ... (checklist item 35).
cdef bint is_unnominable(uint8_t token) noexcept nogil
# types.Method of a method's text, case kept; M_OTHER when it is none of those.
cdef uint8_t method_of(const uint8_t *p, size_t n) noexcept nogil
