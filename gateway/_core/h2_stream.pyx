"""Streams of one HTTP/2 connection: the table by id, the rings of those that may send, and what is remembered; see h2_stream.pxd."""

from libc.stdlib cimport calloc, free

from gateway._core.buf cimport out_clear
from gateway._core.types cimport uint32_t, uint64_t

cdef enum:
    FIRST_SIZE = 16

NO_LENGTH = <uint64_t> -1


# ---- the table ----

# Ids of one side are odd or even all along, and follow each other: halved, they spread over neighbouring slots.
cdef inline uint32_t slot_of(const StreamTable *table, uint32_t id) noexcept nogil:
    return id >> 1 & (table.size - 1)


cdef H2Stream *stream_find(StreamTable *table, uint32_t id) noexcept nogil:
    cdef uint32_t slot
    if table.count == 0:
        return NULL
    slot = slot_of(table, id)
    while table.slots[slot] != NULL:
        if table.slots[slot].id == id:
            return table.slots[slot]
        slot = (slot + 1) & (table.size - 1)
    return NULL


cdef void put_in(StreamTable *table, H2Stream *stream) noexcept nogil:
    cdef uint32_t slot = slot_of(table, stream.id)
    while table.slots[slot] != NULL:
        slot = (slot + 1) & (table.size - 1)
    table.slots[slot] = stream


cdef int grow(StreamTable *table) noexcept nogil:
    cdef uint32_t old_size = table.size
    cdef uint32_t i
    cdef H2Stream **old = table.slots
    cdef uint32_t size = old_size * 2 if old_size else <uint32_t> FIRST_SIZE
    cdef H2Stream **slots = <H2Stream **> calloc(size, sizeof(H2Stream *))
    if slots == NULL:
        return -1
    table.slots = slots
    table.size = size
    for i in range(old_size):
        if old[i] != NULL:
            put_in(table, old[i])
    free(old)
    return 0


cdef H2Stream *stream_open(StreamTable *table, uint32_t id) noexcept nogil:
    cdef H2Stream *stream
    if table.count * 2 >= table.size and grow(table) < 0:
        return NULL
    stream = <H2Stream *> calloc(1, sizeof(H2Stream))
    if stream == NULL:
        return NULL
    stream.id = id
    stream.left = stream.send_left = NO_LENGTH
    stream.urgency = DEFAULT_URGENCY
    put_in(table, stream)
    table.count += 1
    return stream


# Takes a stream out of its slot and moves up those behind it that were put off by it.
cdef void take_out(StreamTable *table, H2Stream *stream) noexcept nogil:
    cdef uint32_t mask = table.size - 1
    cdef uint32_t hole = slot_of(table, stream.id)
    cdef uint32_t slot
    while table.slots[hole] != stream:
        hole = (hole + 1) & mask
    slot = hole
    while True:
        slot = (slot + 1) & mask
        if table.slots[slot] == NULL:
            break
        # It may move into the hole when its own slot is not between the hole and where it is.
        if ((slot - slot_of(table, table.slots[slot].id)) & mask) >= ((slot - hole) & mask):
            table.slots[hole] = table.slots[slot]
            hole = slot
    table.slots[hole] = NULL
    table.count -= 1


cdef void stream_free(H2Stream *stream) noexcept nogil:
    out_clear(&stream.out)
    out_clear(&stream.tail)
    out_clear(&stream.held)
    free(stream)


cdef void stream_remember(StreamTable *table, uint32_t id, bint by_us) noexcept nogil:
    table.gone[table.gone_n & (GONE_IDS - 1)] = id << 1 | (1 if by_us else 0)
    table.gone_n += 1


cdef void stream_remove(StreamTable *table, H2Stream *stream, bint by_us) noexcept nogil:
    stream_remember(table, stream.id, by_us)
    ring_remove(table, stream)
    take_out(table, stream)
    if table.count == 0 and table.size > <uint32_t> FIRST_SIZE:
        # An idle connection holds no more than it has to.
        free(table.slots)
        table.slots = NULL
        table.size = 0


cdef H2Stream *stream_any(StreamTable *table) noexcept nogil:
    cdef uint32_t i
    for i in range(table.size):
        if table.slots[i] != NULL:
            return table.slots[i]
    return NULL


cdef void streams_clear(StreamTable *table) noexcept nogil:
    cdef H2Stream *stream = stream_any(table)
    while stream != NULL:
        stream_remove(table, stream, True)
        stream_free(stream)
        stream = stream_any(table)
    free(table.slots)
    table.slots = NULL
    table.size = 0


cdef int stream_recall(const StreamTable *table, uint32_t id) noexcept nogil:
    cdef uint32_t i
    for i in range(min(table.gone_n, <uint32_t> GONE_IDS)):
        if table.gone[i] >> 1 == id:
            return MEMORY_RESET if table.gone[i] & 1 else MEMORY_ENDED
    return MEMORY_FULL if table.gone_n > <uint32_t> GONE_IDS else MEMORY_NONE


# ---- the rings ----

cdef void ring_add(StreamTable *table, H2Stream *stream) noexcept nogil:
    cdef H2Stream *head = table.rings[stream.urgency]
    if stream.ready:
        return
    stream.ready = True
    if head == NULL:
        stream.next = stream.prev = stream
        table.rings[stream.urgency] = stream
        return
    stream.next = head
    stream.prev = head.prev
    head.prev.next = stream
    head.prev = stream


cdef void ring_remove(StreamTable *table, H2Stream *stream) noexcept nogil:
    if not stream.ready:
        return
    stream.ready = False
    if stream.next == stream:
        table.rings[stream.urgency] = NULL
    else:
        stream.prev.next = stream.next
        stream.next.prev = stream.prev
        if table.rings[stream.urgency] == stream:
            table.rings[stream.urgency] = stream.next
    stream.next = stream.prev = NULL


cdef H2Stream *ring_head(StreamTable *table) noexcept nogil:
    cdef int urgency
    for urgency in range(<int> URGENCIES):
        if table.rings[urgency] != NULL:
            return table.rings[urgency]
    return NULL


cdef void ring_turn(StreamTable *table, H2Stream *stream) noexcept nogil:
    if stream.ready and table.rings[stream.urgency] == stream:
        table.rings[stream.urgency] = stream.next
