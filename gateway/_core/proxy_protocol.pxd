# proxy_protocol.pxd - level 3: the PROXY protocol header (v1 and v2) that a load balancer puts before the first byte.
# Owns: nothing. Called by: downstream, before the first head.

from gateway._core.types cimport uint8_t, uint16_t, uint32_t

cdef struct ProxyHeader:
    uint8_t family         # 4, 6, or 0: LOCAL or UNKNOWN, the socket's own addresses stay
    uint8_t source[16]     # network order; the first 4 bytes for IPv4
    uint8_t destination[16]
    uint16_t source_port   # host order
    uint16_t destination_port

# > 0: bytes of the header. 0: needs more. < 0: -F_PROXY_HEADER. At most 536 bytes are looked at.
cdef int parse_proxy_header(const uint8_t *p, size_t n, ProxyHeader *out) noexcept nogil
