# affinity.pxd - level 4: what of a request consistent hashing goes by. Owns: nothing. Called by: exchange (PICK).

from gateway._core.headers cimport HeaderBlock
from gateway._core.types cimport Span, uint32_t, uint64_t

# kind: ClusterRec.key_kind, not 0. False when the request has no such value.
cdef bint affinity_key(uint32_t kind, Span name, HeaderBlock request, Span client, uint64_t *key) noexcept nogil
