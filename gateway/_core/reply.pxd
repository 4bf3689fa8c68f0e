# reply.pxd - level 4: responses that the gateway makes itself: a head and a short body, plain, JSON or HTML by Accept.
# Owns: nothing. Called by: exchange (REPLY), downstream (for a head that did not parse). Never tells an inner detail.

from gateway._core.headers cimport HeaderBlock
from gateway._core.types cimport Span, uint8_t

# Fills a cleared response block (status, content-type, cache-control: no-store, framing FRAME_LENGTH and length, x-request-id) and writes
# the body to out (room for 1024 bytes); the body's length. request may be empty. request_id is shown in the body.
# The same for a request that the limit of this name refuses (429), or that it cannot judge (503): JSON is a problem document (RFC 9457)
# of a type of draft-ietf-httpapi-ratelimit-headers. The name is printable ASCII without quotes.
cdef size_t make_refusal(HeaderBlock response, int status, HeaderBlock request, Span request_id, Span limit, uint8_t *out) noexcept nogil
cdef size_t make_reply(HeaderBlock response, int status, HeaderBlock request, Span request_id, uint8_t *out) noexcept nogil
