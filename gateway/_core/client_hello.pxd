# client_hello.pxd - level 3: what a TLS client says first, read from the raw bytes without decrypting anything.
# Owns: nothing. Called by: whoever meets a connection before its protocol is known (TLS termination and passthrough).
#
#   TLS record (5 bytes: type, version, length) | handshake message (4 bytes: type, length) | ClientHello (RFC 8446 §4.1.2)
#
# The message may lie in several records, and these come in several reads: parse is called again from the first byte, with more of them.
# Invariants: an answer other than 0 is the same whatever follows; p[0:n] is never read past its end; 0 is answered below HELLO_LIMIT only.

from gateway._core.types cimport uint8_t, uint16_t, uint32_t

cdef enum:
    HELLO_MAX = 16384 + 4  # bytes of the handshake message, its own head included
    HELLO_LIMIT = 32768    # raw bytes that the records around it may take
    HELLO_EXTENSIONS = 128 # extensions that a message may have
    ALERT_BYTES = 7

cdef enum Alert:           # RFC 8446 §6
    ALERT_CLOSE_NOTIFY = 0
    ALERT_UNEXPECTED_MESSAGE = 10
    ALERT_RECORD_OVERFLOW = 22
    ALERT_HANDSHAKE_FAILURE = 40
    ALERT_ILLEGAL_PARAMETER = 47
    ALERT_DECODE_ERROR = 50
    ALERT_PROTOCOL_VERSION = 70
    ALERT_INTERNAL_ERROR = 80
    ALERT_UNRECOGNIZED_NAME = 112

cdef struct ClientHello:
    uint32_t wants         # after answer 0: bytes from the start before which there is no hello (only, perhaps, a fault)
    uint32_t used          # after answer 1: raw bytes of the records that hold the message; early data may follow them
    uint16_t legacy_version
    bint has_name          # server_name with a host name in it; an address is taken for none (RFC 6066 §3 allows no literals)
    bint has_tls13         # supported_versions names TLS 1.3
    uint16_t name_n
    uint16_t alpn_n        # 0: no ALPN
    uint8_t name[256]      # lower case, no trailing dot
    uint8_t alpn[256]      # ProtocolNameList without the length before it: length byte, name, length byte, name ...

# 1: complete. 0: needs more bytes. < 0: a negated Fault (F_TLS_*).
cdef int parse_client_hello(const uint8_t *p, size_t n, ClientHello *hello) noexcept nogil
# After -F_TLS_NOT: the bytes begin like the request line of HTTP/1 (capital letters and a space).
cdef bint looks_like_http(const uint8_t *p, size_t n) noexcept nogil
# One of the names in the list of the hello is this one.
cdef bint has_alpn(const ClientHello *hello, const uint8_t *p, size_t n) noexcept nogil
# The alert that tells the client of the fault (negated or not).
cdef int alert_of(int fault) noexcept nogil
# A record with a fatal alert; `to` has room for ALERT_BYTES. version: 0x0301 before anything is agreed upon.
cdef size_t encode_alert(uint8_t *to, int level, int description, uint16_t version) noexcept nogil
