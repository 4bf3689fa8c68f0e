"""The Huffman code of HPACK. It is canonical: the lengths of the codes alone say what they are; see huffman.pxd."""

from libc.string cimport memset

from gateway._core.ascii cimport load_u64
from gateway._core.types cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from *:
    """
    #define gw_from_big_u64(x) __builtin_bswap64(x)
    """
    uint64_t from_big_u64 "gw_from_big_u64" (uint64_t x) noexcept nogil

# Bits of the code of each byte, and of EOS as the last: RFC 7541 Appendix B.
cdef tuple LENGTHS = (
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
)

cdef enum:
    FAST = 11              # bits that one look decodes
    LONGEST = 30
    WINDOWS = 2048             # 1 << FAST
    EOS = 256

# What the next FAST bits begin with: one code, or two that fit in.
cdef struct Look:
    uint8_t first          # byte of the first code
    uint8_t second         # byte of the second, when there is one
    uint8_t first_bits     # bits of the first code; 0: it is longer than FAST
    uint8_t bits           # of all that was decoded; first_bits when there is no second

cdef Look looks[WINDOWS]
cdef uint32_t codes[257]           # code of each byte, in its low bits
cdef uint8_t lengths[257]
cdef uint32_t first_code[31]       # by length: the first code of that length
cdef uint32_t count_of[31]         # how many there are
cdef uint32_t first_rank[31]       # place of the first one in ranked
cdef uint16_t ranked[257]          # bytes in the order of their codes


cdef int fill_tables() except -1:
    cdef uint32_t code = 0
    cdef uint32_t rank = 0
    cdef uint32_t window
    cdef uint32_t i
    cdef uint32_t bits
    cdef Look *look
    if len(LENGTHS) != EOS + 1:
        raise ImportError("huffman: not one length for each byte and EOS")
    for bits in range(1, LONGEST + 1):
        code <<= 1
        first_code[bits] = code
        first_rank[bits] = rank
        for i in range(EOS + 1):
            if LENGTHS[i] == bits:
                codes[i] = code
                lengths[i] = <uint8_t> bits
                ranked[rank] = <uint16_t> i
                code += 1
                rank += 1
        count_of[bits] = code - first_code[bits]
    if code != <uint32_t> 1 << LONGEST or rank != EOS + 1:
        raise ImportError("huffman: the lengths make no complete code")
    memset(looks, 0, sizeof(looks))
    for window in range(<uint32_t> WINDOWS):
        look = &looks[window]
        for i in range(<uint32_t> EOS):
            bits = lengths[i]
            if bits <= FAST and window >> (FAST - bits) == codes[i]:
                look.first = <uint8_t> i
                look.first_bits = look.bits = <uint8_t> bits
    for window in range(<uint32_t> WINDOWS):
        look = &looks[window]
        if look.first_bits == 0:
            continue
        for i in range(<uint32_t> EOS):
            bits = lengths[i]
            if look.first_bits + bits <= FAST and (window >> (FAST - look.first_bits - bits)) & ((<uint32_t> 1 << bits) - 1) == codes[i]:
                look.second = <uint8_t> i
                look.bits = <uint8_t> (look.first_bits + bits)
    return 0


fill_tables()
globals().update(LENGTHS=LENGTHS)      # a module variable that Python sees


# The byte whose code, longer than FAST bits, begins `held` (its bits from the top down); its length to *bits. -1: EOS.
cdef int decode_long(uint64_t held, int *bits) noexcept nogil:
    cdef int n = FAST + 1
    cdef uint32_t place
    while n <= LONGEST:
        place = <uint32_t> (held >> (64 - n)) - first_code[n]
        if place < count_of[n]:
            bits[0] = n
            n = ranked[first_rank[n] + place]
            return n if n != EOS else -1
        n += 1
    return -1


cdef Py_ssize_t huffman_decode(const uint8_t *p, size_t n, uint8_t *out) noexcept nogil:
    cdef uint8_t *start = out
    cdef const uint8_t *end = p + n
    cdef uint64_t held = 0         # bits not decoded yet, from the top down; below `bits` of them zeros, or bits that come again
    cdef int bits = 0
    cdef int length = 0
    cdef int byte
    cdef Look look
    while True:
        # At least 57 bits, or all that are left.
        if end - p >= 8:
            held |= from_big_u64(load_u64(p)) >> bits
            p += (63 - bits) >> 3
            bits |= 56
        else:
            while bits <= 56 and p < end:
                held |= <uint64_t> p[0] << (56 - bits)
                p += 1
                bits += 8
        while bits >= FAST:
            look = looks[held >> (64 - FAST)]
            if look.first_bits == 0:
                break
            out[0] = look.first
            out[1] = look.second
            out += 2 if look.bits != look.first_bits else 1
            held <<= look.bits
            bits -= look.bits
        if bits >= FAST and bits < LONGEST and p < end:
            continue               # a long code, of which not every bit is at hand
        if bits < FAST:
            if p < end:
                continue
            look = looks[held >> (64 - FAST)]
            if look.first_bits == 0 or look.first_bits > bits:
                break
            out[0] = look.first
            out += 1
            held <<= look.first_bits
            bits -= look.first_bits
            continue
        byte = decode_long(held, &length)
        if byte < 0 or length > bits:
            return -1
        out[0] = <uint8_t> byte
        out += 1
        held <<= length
        bits -= length
    # What is left is padding: the first bits of EOS, fewer than eight.
    if bits > 7 or (bits and (held >> (64 - bits)) != (<uint64_t> 1 << bits) - 1):
        return -1
    return out - start


cdef size_t huffman_length(const uint8_t *p, size_t n, size_t most) noexcept nogil:
    cdef size_t bits = 7
    cdef size_t i
    most = most * 8 + 7
    for i in range(n):
        bits += lengths[p[i]]
        if bits > most:
            break
    return bits >> 3


cdef void huffman_encode(const uint8_t *p, size_t n, uint8_t *out) noexcept nogil:
    cdef uint64_t held = 0         # the low `bits` of it wait
    cdef int bits = 0
    cdef size_t i
    for i in range(n):
        held = held << lengths[p[i]] | codes[p[i]]
        bits += lengths[p[i]]
        while bits >= 32:
            bits -= 8
            out[0] = <uint8_t> (held >> bits)
            out += 1
    while bits >= 8:
        bits -= 8
        out[0] = <uint8_t> (held >> bits)
        out += 1
    if bits:
        out[0] = <uint8_t> (held << (8 - bits) | <uint64_t> 0xff >> bits)
