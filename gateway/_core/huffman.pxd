# huffman.pxd - level 3: the Huffman code of HPACK (RFC 7541 Appendix B), by tables that are made from the code lengths at import.
#
# Owns: the tables (read only). Called by: hpack (decoding), hpack_encode. Neither direction allocates or keeps a state.

from gateway._core.types cimport uint8_t, uint32_t

cdef enum:
    HUFFMAN_SLACK = 2      # bytes beyond the result that decoding may write to

# Room that decoding n bytes needs at most: no code is shorter than five bits.
cdef inline size_t huffman_bound(size_t n) noexcept nogil:
    return n * 8 // 5 + HUFFMAN_SLACK

# Bytes written to out, or -1 when p[0:n] is no Huffman code: EOS in it, or not ended by fewer than eight 1 bits (RFC 7541 §5.2).
cdef Py_ssize_t huffman_decode(const uint8_t *p, size_t n, uint8_t *out) noexcept nogil
# Bytes that encoding p[0:n] gives; with `most` as the number that is too many to be worth it: counting ends there.
cdef size_t huffman_length(const uint8_t *p, size_t n, size_t most) noexcept nogil
# Writes that many bytes to out.
cdef void huffman_encode(const uint8_t *p, size_t n, uint8_t *out) noexcept nogil
