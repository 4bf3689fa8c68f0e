# validate.pxd - level 2: THE framing and field rules, used by both codecs. A HeaderBlock that went through here is safe to act on.
# Owns: nothing. Called by: h1_parse and h2_session at the end of a head. Source of each rule: RFC 9110, 9112 and the checklist.

from gateway._core.headers cimport HeaderBlock
from gateway._core.types cimport Ref, uint8_t, uint64_t

cdef enum Pseudo:          # bits: the pseudo-header fields of RFC 9113 §8.3 and RFC 8441
    PSEUDO_METHOD = 1
    PSEUDO_SCHEME = 2
    PSEUDO_AUTHORITY = 4
    PSEUDO_PATH = 8
    PSEUDO_STATUS = 16
    PSEUDO_PROTOCOL = 32

# 1 when every byte may stand in a field name (token, lower case or not) / a field value.
cdef bint is_field_name(const uint8_t *p, size_t n) noexcept nogil
cdef bint is_field_value(const uint8_t *p, size_t n) noexcept nogil
# 1*DIGIT up to 2^63 - 1 with nothing around it; 0, or -F_LENGTH.
cdef int parse_length(const uint8_t *p, size_t n, uint64_t *value) noexcept nogil
# Decides target, host, framing, keep-alive, expectation, upgrade; marks hop-by-hop fields FIELD_HOP, nominated ones too.
# Fills framing, length, flags, authority, host, port, path, query of the head. 0 or a negated Fault.
cdef int validate_request(HeaderBlock head) noexcept nogil
# The same for a response to a request with this method (types.Method): framing by RFC 9112 §6.3. 0 or a negated Fault.
cdef int validate_response(HeaderBlock head, uint8_t request_method) noexcept nogil
# The same for heads of HTTP/2, whose fields and pseudo-header fields hpack has put into the block (method_text, scheme, authority and
# target as received). `ended`: END_STREAM came with the head. An extended CONNECT (RFC 8441) gets HEAD_UPGRADE, and HEAD_WEBSOCKET
# where it asks for that. F_H2_*, F_FIELD_*, F_LENGTH, F_METHOD and F_TARGET make the message malformed, RFC 9113 §8.1.1.
cdef int validate_h2_request(HeaderBlock head, uint8_t pseudo, Ref protocol, bint ended) noexcept nogil
cdef int validate_h2_response(HeaderBlock head, uint8_t request_method, bint ended) noexcept nogil
cdef int validate_h2_trailers(HeaderBlock trailers) noexcept nogil
# Drops from received trailers what may not stand there (item 9): framing, routing, authentication, content-*, x-forwarded-*, ...
cdef void filter_trailers(HeaderBlock trailers) noexcept nogil
