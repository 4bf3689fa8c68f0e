# validate.pxd - level 2: THE framing and field rules, used by both codecs. A HeaderBlock that went through here is safe to act on.
# Owns: nothing. Called by: h1_parse at the end of a head, h2_session later. Source of each rule: RFC 9110, 9112 and the checklist.

from gateway._core.headers cimport HeaderBlock
from gateway._core.types cimport uint8_t, uint64_t

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
# Drops from received trailers what may not stand there (item 9): framing, routing, authentication, content-*, x-forwarded-*, ...
cdef void filter_trailers(HeaderBlock trailers) noexcept nogil
