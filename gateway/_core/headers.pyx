"""HeaderBlock: growth of the store, the index of first fields, adding and dropping."""

cimport cython

from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy, memmove, memset

from gateway._core.tokens cimport T_OTHER, token_of
from gateway._core.types cimport FRAME_NONE, M_OTHER, Ref, uint8_t, uint16_t, uint32_t

cdef enum:
    NOWHERE = 0xffffffff       # off of a Ref when memory is out
    FIRST_STORE = 1024         # what the first line allocates
    FIRST_FIELDS = 16
    KEPT_STORE = 16384         # clear gives back a store or an array that grew past this
    KEPT_FIELDS = 1024
    MAX_STORE = 1 << 26        # far above every limit of a listener; keeps 32-bit offsets safe
    MAX_FIELDS = 65534         # first[] counts from 1 in 16 bits
    MAX_NAME = 65535

cdef Ref NO_REF
NO_REF.off = 0
NO_REF.n = 0


@cython.final
@cython.freelist(64)
cdef class HeaderBlock:

    def __init__(self):
        raise TypeError("HeaderBlock is made by the core")

    def __dealloc__(self):
        free(self.store)
        free(self.fields)

    @staticmethod
    cdef HeaderBlock new():
        return HeaderBlock.__new__(HeaderBlock)

    cdef void clear(self) noexcept nogil:
        if self.cap > KEPT_STORE:
            free(self.store)
            self.store = NULL
            self.cap = 0
        if self.capacity > KEPT_FIELDS:
            free(self.fields)
            self.fields = NULL
            self.capacity = 0
        self.used = 0
        self.count = 0
        memset(self.first, 0, sizeof(self.first))
        self.method = M_OTHER
        self.version = 0
        self.method_text = NO_REF
        self.target = NO_REF
        self.scheme = NO_REF
        self.authority = NO_REF
        self.host = NO_REF
        self.port = 0
        self.path = NO_REF
        self.query = NO_REF
        self.has_query = False
        self.status = 0
        self.reason = NO_REF
        self.framing = FRAME_NONE
        self.length = 0
        self.flags = 0

    cdef int copy_from(self, HeaderBlock other) noexcept nogil:
        cdef void *fields
        self.clear()
        if self.reserve(other.used) < 0:
            return -1
        if other.count > self.capacity:
            fields = realloc(self.fields, other.count * sizeof(Field))
            if fields == NULL:
                return -1
            self.fields = <Field *> fields
            self.capacity = other.count
        if other.used:
            memcpy(self.store, other.store, other.used)
        if other.count:
            memcpy(self.fields, other.fields, other.count * sizeof(Field))
        memcpy(self.first, other.first, sizeof(self.first))
        self.used = other.used
        self.count = other.count
        self.method = other.method
        self.version = other.version
        self.method_text = other.method_text
        self.target = other.target
        self.scheme = other.scheme
        self.authority = other.authority
        self.host = other.host
        self.port = other.port
        self.path = other.path
        self.query = other.query
        self.has_query = other.has_query
        self.status = other.status
        self.reason = other.reason
        self.framing = other.framing
        self.length = other.length
        self.flags = other.flags
        return 0

    cdef int reserve(self, size_t n) noexcept nogil:
        cdef size_t cap
        cdef void *store
        if n <= self.cap - self.used:
            return 0
        if n > MAX_STORE - self.used:
            return -1
        cap = self.cap if self.cap else FIRST_STORE
        while cap < self.used + n:
            cap *= 2
        store = realloc(self.store, cap)
        if store == NULL:
            return -1
        self.store = <uint8_t *> store
        self.cap = <uint32_t> cap
        return 0

    # Where p lies in the store, NOWHERE when it lies elsewhere: what reserve moves must be found again after it.
    cdef uint32_t offset_of(self, const uint8_t *p) noexcept nogil:
        if self.store != NULL and <size_t> p >= <size_t> self.store and <size_t> p < <size_t> self.store + self.used:
            return <uint32_t> (<size_t> p - <size_t> self.store)
        return NOWHERE

    cdef const uint8_t *place_of(self, uint32_t inside, const uint8_t *p) noexcept nogil:
        return p if inside == NOWHERE else <const uint8_t *> self.store + inside

    cdef Ref keep(self, const uint8_t *p, size_t n) noexcept nogil:
        cdef Ref ref
        cdef uint32_t inside = self.offset_of(p)
        if self.reserve(n) < 0:
            ref.off = NOWHERE
            ref.n = 0
            return ref
        ref.off = self.used
        ref.n = <uint32_t> n
        if n:
            memmove(self.store + self.used, self.place_of(inside, p), n)
            self.used += <uint32_t> n
        return ref

    cdef Field *find_name(self, const uint8_t *name, size_t n) noexcept nogil:
        cdef uint8_t token = token_of(name, n)
        cdef Field *field = self.find(token)
        cdef Field *end = self.fields + self.count
        if token != T_OTHER or field == NULL:
            return field
        while field < end:
            if (field.token == T_OTHER and field.name_len == n and not field.flags & FIELD_DROP
                    and memcmp(self.store + field.name, name, n) == 0):
                return field
            field += 1
        return NULL

    cdef Field *find_next(self, const Field *after) noexcept nogil:
        cdef Field *field = self.fields + (after - self.fields) + 1
        cdef Field *end = self.fields + self.count
        while field < end:
            if field.token == after.token and not field.flags & FIELD_DROP and (
                    field.token != T_OTHER or (field.name_len == after.name_len and memcmp(
                        self.store + field.name, self.store + after.name, after.name_len) == 0)):
                return field
            field += 1
        return NULL

    cdef int add(self, uint8_t token, const uint8_t *name, size_t name_len, const uint8_t *value, size_t value_len) noexcept nogil:
        cdef uint32_t name_inside = self.offset_of(name)
        cdef uint32_t value_inside = self.offset_of(value)
        cdef uint32_t start = self.used
        cdef uint8_t *out
        if name_len > MAX_NAME or value_len > MAX_STORE or self.reserve(name_len + value_len + 4) < 0:
            return -1
        out = self.store + start
        if name_len:
            memmove(out, self.place_of(name_inside, name), name_len)
        out[name_len] = 58         # ":"
        out[name_len + 1] = 32
        out += name_len + 2
        if value_len:
            memmove(out, self.place_of(value_inside, value), value_len)
        out[value_len] = 13
        out[value_len + 1] = 10
        if self.add_stored(token, start, name_len, start + <uint32_t> name_len + 2, value_len) < 0:
            return -1
        self.used = start + <uint32_t> (name_len + value_len + 4)
        return 0

    cdef int add_stored(self, uint8_t token, uint32_t name, size_t name_len, uint32_t value, size_t value_len) noexcept nogil:
        cdef Field *field
        cdef uint32_t capacity
        cdef void *fields
        if name_len > MAX_NAME or value_len > MAX_STORE:
            return -1
        if self.count == self.capacity:
            if self.count == MAX_FIELDS:
                return -1
            capacity = min(<uint32_t> MAX_FIELDS, self.capacity * 2 if self.capacity else <uint32_t> FIRST_FIELDS)
            fields = realloc(self.fields, capacity * sizeof(Field))
            if fields == NULL:
                return -1
            self.fields = <Field *> fields
            self.capacity = capacity
        field = &self.fields[self.count]
        field.name = name
        field.value = value
        field.value_len = <uint32_t> value_len
        field.name_len = <uint16_t> name_len
        field.token = token
        field.flags = 0
        self.count += 1
        if not self.first[token]:
            self.first[token] = <uint16_t> self.count
        return 0

    cdef void drop_field(self, Field *field) noexcept nogil:
        cdef uint32_t i = <uint32_t> (field - self.fields)
        cdef uint8_t token = field.token
        field.flags |= FIELD_DROP
        if self.first[token] != i + 1:
            return
        self.first[token] = 0
        while i < self.count:
            if self.fields[i].token == token and not self.fields[i].flags & FIELD_DROP:
                self.first[token] = <uint16_t> (i + 1)
                return
            i += 1

    cdef void drop(self, uint8_t token) noexcept nogil:
        cdef Field *field = self.find(token)
        cdef Field *end = self.fields + self.count
        if token == T_OTHER or field == NULL:
            return
        while field < end:
            if field.token == token:
                field.flags |= FIELD_DROP
            field += 1
        self.first[token] = 0

    cdef void drop_name(self, const uint8_t *name, size_t n) noexcept nogil:
        cdef uint8_t token = token_of(name, n)
        cdef Field *field
        cdef Field *following
        if token != T_OTHER:
            self.drop(token)
            return
        field = self.find_name(name, n)
        while field != NULL:
            following = self.find_next(field)
            self.drop_field(field)
            field = following

    cdef int set(self, uint8_t token, const uint8_t *name, size_t name_len, const uint8_t *value, size_t value_len) noexcept nogil:
        cdef uint32_t old = self.count
        cdef uint32_t i
        cdef Field *field
        if self.add(token, name, name_len, value, value_len) < 0:
            return -1
        # The new field is last and stays; the older ones of its name go. Dropping first would lose them when memory is out.
        field = &self.fields[old]
        for i in range(old):
            if (self.fields[i].token == token and not self.fields[i].flags & FIELD_DROP
                    and self.fields[i].name_len == name_len
                    and memcmp(self.store + self.fields[i].name, self.store + field.name, name_len) == 0):
                self.drop_field(&self.fields[i])
        return 0
