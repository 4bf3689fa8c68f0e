# hpack_encode.pxd - level 3: a HeaderBlock into a field block of HTTP/2. Copies into the caller's buffer.
#
# Owns: a HpackEncoder owns its table and its index. Called by: h2_session.
# What is written: the pseudo-header fields from the block's parts, then each field that is neither FIELD_DROP nor FIELD_HOP, in order,
#   without host, content-length and whatever belongs to a connection of HTTP/1.1 (item 56), then content-length as the caller says.
# What goes into the dynamic table: a field that was seen before, and not long ago. So the fields that all messages share cost a byte each
#   from their third time on, and a request id pushes nothing out. Credentials and cookies are never put there (RFC 7541 §7.1).

from gateway._core.headers cimport HeaderBlock
from gateway._core.hpack cimport HpackTable
from gateway._core.types cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    INDEX_SLOTS = 256
    UPDATE_BOUND = 12      # bytes of two size updates
    MOST_TABLE = 4096      # bytes of table that we use, whatever the peer offers

cdef struct HpackIndex:
    uint32_t serial[INDEX_SLOTS]       # by hash: entry that may be the field; 0 is none, real serials begin at 1
    uint16_t seen[INDEX_SLOTS]         # by hash: tag of the field that was last written without being put in the table

cdef struct HpackEncoder:
    HpackTable table
    HpackIndex *index      # NULL until the first block
    uint32_t smallest      # smallest size of the table since the last block
    bint update_due        # the next block says the table's size first

cdef void hpack_encoder_start(HpackEncoder *encoder) noexcept nogil
cdef void hpack_encoder_clear(HpackEncoder *encoder) noexcept nogil    # frees everything
# The peer's SETTINGS_HEADER_TABLE_SIZE.
cdef void hpack_limit(HpackEncoder *encoder, uint32_t size) noexcept nogil

# Bytes that encoding may need at most.
cdef size_t hpack_bound(HeaderBlock head) noexcept nogil
# Each writes one field block and answers its bytes. FRAME_LENGTH writes content-length. `secure`: the :scheme is https. A request with
# HEAD_UPGRADE and HEAD_WEBSOCKET becomes an extended CONNECT (RFC 8441). keep_length: a content-length field of the block is kept as it is
# (answers to HEAD, and 304). A NULL encoder uses the static table alone: such a block may be sent at any later time, behind what
# hpack_encode_start writes then: the table's size, when it is due, at most UPDATE_BOUND bytes.
cdef size_t hpack_encode_start(HpackEncoder *encoder, uint8_t *out) noexcept nogil
cdef size_t hpack_encode_request(HpackEncoder *encoder, uint8_t *out, HeaderBlock head, uint8_t framing, uint64_t length, bint te_trailers,
                                 bint secure) noexcept nogil
cdef size_t hpack_encode_response(HpackEncoder *encoder, uint8_t *out, HeaderBlock head, uint8_t framing, uint64_t length,
                                  bint keep_length) noexcept nogil
cdef size_t hpack_encode_trailers(HpackEncoder *encoder, uint8_t *out, HeaderBlock trailers) noexcept nogil
