# hpack.pxd - level 3: HPACK, RFC 7541: the tables, and field blocks into a HeaderBlock.
#
# Owns: the static table; a HpackTable owns its log and its entries. Called by: h2_session, hpack_encode (tables).
# An entry is kept as the line `name: value CRLF`, as HeaderBlock keeps fields, with what was found out about it once: token, kind, fault.
# So a field that is only an index costs one copy.
#
#   log   | ....... | name: value CRLF | name: value CRLF | ......|      lines of live entries lie one after the other; when the end of
#         0         oldest             ^ newest           end    cap     the memory is reached, they move to its beginning
#
# Invariants: whatever a block says, the table afterwards is what the sender has, or -F_HPACK was answered and the connection must end;
#   memory is at most twice max_size, plus 16 bytes for each 32 of it; a table that was never used holds none.

from gateway._core.headers cimport HeaderBlock
from gateway._core.types cimport Ref, uint8_t, uint16_t, uint32_t

cdef enum:
    STATIC_ENTRIES = 61
    ENTRY_OVERHEAD = 32    # bytes that each entry counts beside name and value, RFC 7541 §4.1
    DEFAULT_TABLE = 4096   # bytes of a table before any settings

cdef struct HpackEntry:    # 16 bytes
    uint32_t at            # where its line begins, in bytes ever written to the log
    uint32_t value_len
    uint16_t name_len
    uint8_t token          # tokens.Token
    uint8_t kind           # validate.Pseudo bit; 0: a field; KIND_UNKNOWN: a pseudo-header field that nobody knows
    uint8_t fault          # what is wrong with it; F_NONE
    uint8_t spare

cdef enum:
    KIND_UNKNOWN = 128

cdef struct HpackTable:    # zeroed and given a max_size: empty
    uint8_t *log
    HpackEntry *entries    # a ring, by serial number
    uint32_t cap           # bytes of log
    uint32_t base          # `at` of the first byte of log
    uint32_t end           # `at` of the next line
    uint32_t ring          # entries allocated, a power of two or 0
    uint32_t first         # serial number of the oldest entry
    uint32_t next          # and of the next one
    uint32_t size          # as RFC 7541 counts it
    uint32_t max_size

cdef inline uint32_t table_count(const HpackTable *table) noexcept nogil:
    return table.next - table.first

# The entry with this serial number, which must be live; and its line.
cdef inline HpackEntry *table_entry(HpackTable *table, uint32_t serial) noexcept nogil:
    return &table.entries[serial & (table.ring - 1)]

cdef inline const uint8_t *table_line(HpackTable *table, const HpackEntry *entry) noexcept nogil:
    return table.log + (entry.at - table.base)

# Puts an entry in front, and what it pushes out, out (RFC 7541 §4.4). `line` is not in the log. 0, or -1 when memory is out.
cdef int table_add(HpackTable *table, const uint8_t *line, const HpackEntry *entry) noexcept nogil
cdef void table_resize(HpackTable *table, uint32_t max_size) noexcept nogil
cdef void table_clear(HpackTable *table) noexcept nogil        # frees everything

# The static table, by index 1 to 61.
cdef const HpackEntry *static_entry(uint32_t index) noexcept nogil
cdef const uint8_t *static_line(const HpackEntry *entry) noexcept nogil
# Index of the first entry with this lower-case name; 0 when there is none.
cdef uint32_t static_name(const uint8_t *name, size_t n) noexcept nogil

cdef struct HpackLimits:
    uint32_t max_count     # fields, cookie crumbs included, pseudo-header fields not
    uint32_t max_list      # names, values and 32 bytes for each field, pseudo-header fields included
    uint32_t max_target    # bytes of :path

cdef struct HpackDecoder:
    HpackTable table
    uint32_t allowed       # what a size update may say at most: what our settings announced and the peer has acknowledged
    bint update_due        # it was lowered below the table's size: the next block begins with an update (RFC 7541 §4.2)

cdef struct HpackFound:    # beside the fields
    uint8_t pseudo         # validate.Pseudo bits
    uint8_t updates        # size updates in the block
    uint32_t count         # fields, crumbs included
    uint32_t list          # size as max_list counts it
    Ref protocol           # :protocol

cdef void hpack_start(HpackDecoder *decoder) noexcept nogil
# Our settings that allow this size were acknowledged.
cdef void hpack_allow(HpackDecoder *decoder, uint32_t size) noexcept nogil

# One whole field block into `head`, which is cleared first. `allowed` are the Pseudo bits that may come. 0 or a negated Fault: -F_HPACK
# breaks the connection; with any other one the head is no good, but the table is in order. Nothing is stored after the first fault, so
# that what is not allowed costs no memory.
cdef int hpack_decode(HpackDecoder *decoder, HeaderBlock head, const uint8_t *p, size_t n, const HpackLimits *limits, uint8_t allowed,
                      HpackFound *found) noexcept nogil
