# affinity.pxd - level 4: what of a request consistent hashing goes by. Owns: nothing. Called by: exchange (PICK), limit_key, session.

from gateway._core.headers cimport HeaderBlock
from gateway._core.types cimport Span, uint8_t, uint32_t, uint64_t

# name=value among pairs set apart by the separator (and spaces); False when there is none.
cdef bint find_pair(Span text, uint8_t separator, const uint8_t *name, size_t n, Span *value) noexcept nogil
# What a request has of that kind and name; client: of kind 4. False when it has none. The value lies in the request.
cdef bint find_value(uint32_t kind, Span name, HeaderBlock request, Span client, Span *value) noexcept nogil
# Its hash. kind: ClusterRec.key_kind, not 0. False when the request has no such value.
cdef bint affinity_key(uint32_t kind, Span name, HeaderBlock request, Span client, uint64_t *key) noexcept nogil
