# target.pxd - level 2: request target, authority and path: the rules by which a request says where it goes.
# Owns: nothing; works on bytes into a HeaderBlock's store. Called by: validate (and the HTTP/2 session for :path, :authority).
# Invariant: the path that is matched is the path that is forwarded (checklist item 57).

from gateway._core.headers cimport HeaderBlock
from gateway._core.types cimport Ref, uint8_t, uint32_t

# Splits head.target by the method into scheme, authority, path, query (RFC 9112 §3.2); 0 or a negated Fault.
cdef int parse_target(HeaderBlock head) noexcept nogil
# The same for the :path of HTTP/2, which is an origin-form or the asterisk of OPTIONS: path and query; 0 or a negated Fault.
cdef int parse_path(HeaderBlock head, Ref path) noexcept nogil
# Checks host[:port], sets head.authority, head.host (lower case, without port and trailing dot) and head.port; 0 or a negated Fault.
cdef int parse_authority(HeaderBlock head, Ref authority) noexcept nogil
# Normalises the n bytes of a path into out (room for n bytes): decodes unreserved %XX, resolves dot segments, merges slashes;
# refuses %2f %5c %00, a raw backslash, "/..;" and "/.;", overlong UTF-8 and a malformed %. Length of the result, or a negated Fault.
cdef int normalise_path(const uint8_t *p, size_t n, uint8_t *out) noexcept nogil
# Text of an address into network order: dotted quad (4 bytes), IPv6 without brackets or zone (16 bytes). Strict; 1 when it is one.
cdef bint parse_ipv4(const uint8_t *p, size_t n, uint8_t *out) noexcept nogil
cdef bint parse_ipv6(const uint8_t *p, size_t n, uint8_t *out) noexcept nogil
# 1 to 5 digits without leading zeros, 1 to 65535; 0 when it is none.
cdef uint32_t parse_port(const uint8_t *p, size_t n) noexcept nogil
