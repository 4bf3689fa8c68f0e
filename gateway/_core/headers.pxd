# headers.pxd - level 2: HeaderBlock, the one form of a message head (and of trailers) that both codecs meet in.
#
# Owns: store (bytes of names, values and start-line parts) and fields (an array). Both grow by realloc, so only offsets are kept.
# Called by: every codec, forward, router, rewrite, record.
# Invariants: names in the store are lower case; first[t] is the index + 1 of the first live field with token t, 0 when none;
#   fields keep the order of arrival, and dropped ones keep their place (order of same-name fields never changes, RFC 9110 §5.3).
#
# Fields that the parser or add put in are written to the store as whole lines, name ": " value CRLF, so that a run of fields is encoded
# by one copy. That is only an arrangement: encoding looks at the bytes around a field before it relies on it.
#
#   store  | GET /a/b?x=1 | host: example.com CRLF | accept: */* CRLF | ...      fields[i] -> (name, name_len) (value, value_len)

from gateway._core.types cimport Ref, Span, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum FieldFlag:
    FIELD_DROP = 1         # not forwarded, not matched, not logged: as if it had never been there
    FIELD_HOP = 2          # hop-by-hop: by definition, or nominated by Connection; read here, never forwarded

cdef struct Field:         # 16 bytes
    uint32_t name          # offset of the lower-case name in the store
    uint32_t value         # offset of the value, without surrounding white space
    uint32_t value_len     # bytes
    uint16_t name_len      # bytes; names are at most 64 KiB - 1
    uint8_t token          # tokens.Token
    uint8_t flags          # FieldFlag bits

cdef enum HeadFlag:
    HEAD_KEEP_ALIVE = 1    # the connection may serve another message after this one (version and Connection say so)
    HEAD_EXPECT_CONTINUE = 2
    HEAD_UPGRADE = 4       # Connection: upgrade with an Upgrade field (request), or a 101 (response)
    HEAD_TE_TRAILERS = 8   # the sender announced that it reads trailers
    HEAD_ABSOLUTE = 16     # absolute-form target
    HEAD_ASTERISK = 32     # OPTIONS *
    HEAD_CLOSE = 64        # Connection: close was said
    HEAD_WEBSOCKET = 128   # Upgrade names websocket

cdef class HeaderBlock:
    cdef uint8_t *store    # all bytes
    cdef uint32_t used     # bytes of store in use
    cdef uint32_t cap      # bytes of store allocated
    cdef Field *fields
    cdef uint32_t count    # fields in use, dropped ones included
    cdef uint32_t capacity  # fields allocated
    cdef uint16_t first[64]  # by token: index + 1 of the first field that is not dropped
    # start line of a request
    cdef uint8_t method    # types.Method
    cdef uint8_t version   # 10, 11 or 20
    cdef Ref method_text   # as received, case kept
    cdef Ref target        # as received
    cdef Ref scheme        # absolute-form or :scheme, else empty
    cdef Ref authority     # host[:port] that routes and that is forwarded: from an absolute-form target, else from Host
    cdef Ref host          # authority without port, lower case, no trailing dot, IPv6 in brackets; what is matched
    cdef uint32_t port     # port in authority, 0 when it has none
    cdef Ref path          # normalised; begins with "/" (or is "*"); what is matched AND what is forwarded
    cdef Ref query         # after "?", without it
    cdef bint has_query    # a "?" was there, even when nothing follows it
    # start line of a response
    cdef uint16_t status
    cdef Ref reason
    # what validate found
    cdef uint8_t framing   # types.Framing
    cdef uint64_t length   # content length when framing is FRAME_LENGTH
    cdef uint32_t flags    # HeadFlag bits

    @staticmethod
    cdef HeaderBlock new()
    # Forgets everything, keeps the memory (gives back what grew past 16 KiB).
    cdef void clear(self) noexcept nogil
    # Becomes equal to another block, in memory of its own. 0, or -1 when memory is out: then it is empty.
    cdef int copy_from(self, HeaderBlock other) noexcept nogil
    # Copies n bytes to the end of the store. off of the result is 0xffffffff when memory is out. p may lie in the store itself.
    cdef Ref keep(self, const uint8_t *p, size_t n) noexcept nogil
    cdef uint32_t offset_of(self, const uint8_t *p) noexcept nogil
    cdef const uint8_t *place_of(self, uint32_t inside, const uint8_t *p) noexcept nogil
    # Makes room for n more bytes in the store; -1 when memory is out.
    cdef int reserve(self, size_t n) noexcept nogil
    cdef inline Span borrow(self, Ref ref) noexcept nogil:
        cdef Span span
        span.p = self.store + ref.off
        span.n = ref.n
        return span
    cdef inline Span borrow_name(self, const Field *field) noexcept nogil:
        cdef Span span
        span.p = self.store + field.name
        span.n = field.name_len
        return span
    cdef inline Span borrow_value(self, const Field *field) noexcept nogil:
        cdef Span span
        span.p = self.store + field.value
        span.n = field.value_len
        return span
    # First live field with the token or the lower-case name; NULL when there is none.
    cdef inline Field *find(self, uint8_t token) noexcept nogil:
        return &self.fields[self.first[token] - 1] if self.first[token] else NULL
    cdef Field *find_name(self, const uint8_t *name, size_t n) noexcept nogil
    # The next live field of the same name after `after`; NULL when there is none.
    cdef Field *find_next(self, const Field *after) noexcept nogil
    # Appends a field whose name is lower case already. 0, or -1 when memory is out. Name and value may lie in the store itself.
    cdef int add(self, uint8_t token, const uint8_t *name, size_t name_len, const uint8_t *value, size_t value_len) noexcept nogil
    # The same for a field whose name and value are in the store already.
    cdef int add_stored(self, uint8_t token, uint32_t name, size_t name_len, uint32_t value, size_t value_len) noexcept nogil
    # Marks one field FIELD_DROP.
    cdef void drop_field(self, Field *field) noexcept nogil
    # Marks every live field of that name FIELD_DROP. T_OTHER is no name: nothing is marked.
    cdef void drop(self, uint8_t token) noexcept nogil
    cdef void drop_name(self, const uint8_t *name, size_t n) noexcept nogil
    # drop and add in one: afterwards the name stands once. 0, or -1 when memory is out.
    cdef int set(self, uint8_t token, const uint8_t *name, size_t name_len, const uint8_t *value, size_t value_len) noexcept nogil
