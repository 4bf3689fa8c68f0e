# ascii.pxd - level 0: character classes, and the few byte loops that every parser needs, inlined into each.
# Owns: nothing; the tables are constants of ascii.h. Called by: every module that reads peers' bytes.
# Invariants: no function reads a byte outside p[0:n]; loads go through memcpy, so alignment never matters.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "ascii.h" nogil:
    const uint8_t gw_class[256]
    const uint8_t gw_lower[256]
    const uint8_t gw_hex[256]
    uint64_t load_u64 "gw_load_u64" (const uint8_t *p) noexcept
    uint32_t load_u32 "gw_load_u32" (const uint8_t *p) noexcept
    void store_u64 "gw_store_u64" (uint8_t *p, uint64_t v) noexcept
    void store_u32 "gw_store_u32" (uint8_t *p, uint32_t v) noexcept

cdef enum CharClass:       # bits of gw_class
    C_TOKEN = 1            # tchar, RFC 9110 §5.6.2
    C_VALUE = 2            # field value: HTAB, SP, visible, obs-text
    C_DIGIT = 4
    C_HEX = 8
    C_UNRESERVED = 16      # RFC 3986 §2.3
    C_TARGET = 32          # visible ASCII without "#"
    C_HOST = 64            # letter, digit, "-", ".", "_"
    C_PATH = 128           # target byte that means nothing to path normalising

# Not 0 when one of the eight bytes is below 0x20 or is DEL. Exact: a borrow only starts in a byte that is such a byte itself.
cdef inline uint64_t controls_of(uint64_t word) noexcept nogil:
    cdef uint64_t low = (word - <uint64_t> 0x2020202020202020ULL) & ~word
    cdef uint64_t x = word ^ <uint64_t> 0x7f7f7f7f7f7f7f7fULL
    cdef uint64_t rubout = (x - <uint64_t> 0x0101010101010101ULL) & ~x
    return (low | rubout) & <uint64_t> 0x8080808080808080ULL

# 1 when every byte has one of the class bits.
cdef inline bint is_all(const uint8_t *p, size_t n, uint8_t bits) noexcept nogil:
    cdef size_t i
    for i in range(n):
        if not gw_class[p[i]] & bits:
            return False
    return True

# Copies n bytes of a field value and answers whether all of them may stand in one. Eight bytes at a time; a value with HTAB, which is
# rare, is looked at once more.
cdef inline bint copy_value(uint8_t *out, const uint8_t *p, size_t n) noexcept nogil:
    cdef uint64_t bad = 0
    cdef size_t i = 0
    if n >= 8:
        while i + 8 <= n:
            bad |= controls_of(load_u64(p + i))
            store_u64(out + i, load_u64(p + i))
            i += 8
        bad |= controls_of(load_u64(p + n - 8))
        store_u64(out + n - 8, load_u64(p + n - 8))
    elif n >= 4:
        bad = controls_of(<uint64_t> load_u32(p) << 32 | load_u32(p + n - 4))
        store_u32(out, load_u32(p))
        store_u32(out + n - 4, load_u32(p + n - 4))
    else:
        while i < n:
            out[i] = p[i]
            bad |= not gw_class[p[i]] & C_VALUE
            i += 1
    return bad == 0 or is_all(p, n, C_VALUE)

# Copies n bytes that nobody needs to look at; for the short pieces of heads cheaper than a call of memcpy.
cdef inline void copy_bytes(uint8_t *out, const uint8_t *p, size_t n) noexcept nogil:
    cdef size_t i = 0
    if n >= 8:
        while i + 8 <= n:
            store_u64(out + i, load_u64(p + i))
            i += 8
        store_u64(out + n - 8, load_u64(p + n - 8))
    elif n >= 4:
        store_u32(out, load_u32(p))
        store_u32(out + n - 4, load_u32(p + n - 4))
    else:
        while i < n:
            out[i] = p[i]
            i += 1

cdef inline uint8_t lower_of(uint8_t c) noexcept nogil:
    return c + 32 if c >= 65 and c <= 90 else c

# 1 when p[0:n], whatever its case, is the lower-case text of the same length.
cdef inline bint is_same_lower(const uint8_t *p, const uint8_t *text, size_t n) noexcept nogil:
    cdef size_t i
    for i in range(n):
        if lower_of(p[i]) != text[i]:
            return False
    return True

# 1 when p[0:n], whatever its case, is the lower-case C string.
cdef inline bint is_word(const uint8_t *p, size_t n, const char *word) noexcept nogil:
    cdef size_t i
    for i in range(n):
        if word[i] == 0 or lower_of(p[i]) != <uint8_t> word[i]:
            return False
    return word[n] == 0

# 1 when p[0:n] begins with the lower-case C string, byte for byte.
cdef inline bint has_prefix(const uint8_t *p, size_t n, const char *word) noexcept nogil:
    cdef size_t i = 0
    while word[i] != 0:
        if i == n or p[i] != <uint8_t> word[i]:
            return False
        i += 1
    return True

cdef inline bint is_blank(uint8_t c) noexcept nogil:
    return c == 32 or c == 9
