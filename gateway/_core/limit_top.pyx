"""Which keys of a rate limit are asked for most, and refused; see limit_top.pxd."""

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset, strlen

from gateway._core.headers cimport HeaderBlock
from gateway._core.limit_key cimport (
    PART_CLIENT, PART_CONSTANT, PART_HOST, PART_METHOD, PART_PATH, PART_ROOM, PART_ROUTE, KeyFacts, LimitKey, borrow_part, digest_of,
    part_word)
from gateway._core.snapshot cimport NONE, KeyPartRec, RateRec, Snapshot, id64
from gateway._core.types cimport Span, uint8_t, uint32_t, uint64_t

cdef extern from "<arpa/inet.h>" nogil:
    int AF_INET, AF_INET6
    const char *inet_ntop(int, const void *, char *, unsigned int)

cdef enum:
    ONE_BY_ONE = 256       # requests of a second that are all looked at
    GAP_MASK = 31          # after them, one in 1 to 32
    DIGEST_DIGITS = 12

cdef const char *DIGITS = "0123456789abcdef"


# ---- the text of a key ----

cdef void put(TopCounter *counter, const uint8_t *p, size_t n) noexcept nogil:
    """Adds a text; what is no printable ASCII stands as "?"."""
    cdef size_t i
    for i in range(n):
        if counter.text_n == TOP_TEXT:
            memcpy(&counter.text[TOP_TEXT - 3], <const char *> b"...", 3)
            return
        counter.text[counter.text_n] = p[i] if 0x21 <= p[i] <= 0x7e else c'?'
        counter.text_n += 1


cdef void put_word(TopCounter *counter, const char *word) noexcept nogil:
    put(counter, <const uint8_t *> word, strlen(word))


cdef void put_hex(TopCounter *counter, uint64_t number, int digits) noexcept nogil:
    cdef uint8_t text[16]
    cdef int i
    for i in range(digits):
        text[i] = <uint8_t> DIGITS[number >> (4 * (digits - 1 - i)) & 15]
    put(counter, text, <size_t> digits)


cdef void put_network(TopCounter *counter, Span value) noexcept nogil:
    """An address as it is counted: 4 bytes of IPv4, or the 8 that a client has of IPv6."""
    cdef uint8_t whole[16]
    cdef char text[46]
    memset(whole, 0, sizeof(whole))
    memcpy(whole, value.p, value.n)
    if inet_ntop(AF_INET if value.n == 4 else AF_INET6, whole, text, sizeof(text)) != NULL:
        put_word(counter, text)
    if value.n == 8:
        put_word(counter, b"/64")


cdef void write_text(TopCounter *counter, Snapshot snapshot, const RateRec *rate, HeaderBlock request, const KeyFacts *facts) noexcept nogil:
    """PART=VALUE of each part, set apart by commas."""
    cdef uint8_t room[PART_ROOM]
    cdef const KeyPartRec *part
    cdef Span name
    cdef Span value
    cdef uint64_t route = 0
    cdef uint32_t i
    counter.text_n = 0
    for i in range(rate.parts_n):
        part = &snapshot.key_parts[rate.parts + i]
        name = snapshot.borrow(part.name)
        if i:
            put_word(counter, b",")
        put_word(counter, part_word(part.kind))
        if name.n:
            put_word(counter, b":")
            put(counter, name.p, name.n)
        if part.kind == PART_CONSTANT:
            continue
        put_word(counter, b"=")
        if not borrow_part(part.kind, name, request, facts, room, &value):
            put_word(counter, b"-")
        elif part.kind == PART_ROUTE:
            memcpy(&route, value.p, 8)
            put_hex(counter, route, 16)
        elif part.kind == PART_CLIENT and value.p != facts.client.p:
            put_network(counter, value)
        elif part.kind == PART_HOST or part.kind == PART_PATH or part.kind == PART_METHOD or part.kind == PART_CLIENT:
            put(counter, value.p, value.n)
        else:
            put_word(counter, b"#")
            put_hex(counter, digest_of(value), DIGEST_DIGITS)


# ---- counting ----

cdef inline void add(uint32_t *count, uint32_t more) noexcept nogil:
    count[0] = count[0] + more if count[0] < NONE - more else NONE


cdef void roll(Sketch *sketch, uint64_t now_ms) noexcept nogil:
    """Begins another window when it is time."""
    if now_ms < sketch.began_ms + TOP_WINDOW_MS:
        return
    if now_ms < sketch.began_ms + 2 * TOP_WINDOW_MS:
        sketch.before_ms = sketch.began_ms
        sketch.hand ^= 1
    else:
        sketch.before_ms = 0
        sketch.n[0] = sketch.n[1] = 0
    sketch.n[sketch.hand] = 0
    sketch.began_ms = now_ms


cdef TopCounter *find(Sketch *sketch, const LimitKey *key, TopCounter **least) noexcept nogil:
    """The key's counter in the window in hand, or NULL and the smallest one."""
    cdef TopCounter *counter = &sketch.counters[sketch.hand][0]
    cdef uint32_t _
    least[0] = counter
    for _ in range(sketch.n[sketch.hand]):
        if counter.lo == key.lo and counter.hi == key.hi:
            return counter
        if counter.requests < least[0].requests:
            least[0] = counter
        counter += 1
    return NULL


cdef class TopKeys:
    def __cinit__(self):
        self.until = self.gap = 1
        self.random = 0x9e3779b9

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self.n):
            free(self.sketches[i])

    cdef Sketch *sketch_of(self, uint64_t limit, uint64_t now_ms) noexcept nogil:
        cdef Sketch *sketch
        cdef Sketch *idle = NULL
        cdef uint32_t i
        for i in range(self.n):
            sketch = self.sketches[i]
            if sketch.limit == limit:
                roll(sketch, now_ms)
                return sketch
            if now_ms >= sketch.began_ms + 2 * TOP_WINDOW_MS:
                idle = sketch
        if idle == NULL:
            if self.n == TOP_SKETCHES:
                return NULL
            idle = <Sketch *> malloc(sizeof(Sketch))
            if idle == NULL:
                return NULL
            self.sketches[self.n] = idle
            self.n += 1
        idle.limit = limit
        idle.began_ms = now_ms
        idle.before_ms = 0
        idle.hand = 0
        idle.n[0] = idle.n[1] = 0
        return idle

    cdef uint32_t sample(self, Snapshot snapshot, const RateRec *rate, HeaderBlock request, const KeyFacts *facts, const LimitKey *key,
                         uint64_t now_ms) noexcept nogil:
        cdef uint32_t weight = self.gap
        cdef TopCounter *counter
        cdef bint fresh = False
        if self.second != now_ms // 1000:
            self.second = now_ms // 1000
            self.rest = ONE_BY_ONE
        if self.rest:
            self.rest -= 1
            self.gap = 1
        else:
            # Not every sixteenth: clients may take turns. Xorshift (Marsaglia).
            self.random ^= self.random << 13
            self.random ^= self.random >> 17
            self.random ^= self.random << 5
            self.gap = 1 + (self.random & GAP_MASK)
        self.until = self.gap
        counter = self.counter_of(id64(rate.id_lo, rate.id_hi), key, now_ms, &fresh)
        if counter == NULL:
            return 0
        if fresh:
            write_text(counter, snapshot, rate, request, facts)
        add(&counter.requests, weight)
        return weight

    cdef TopCounter *counter_of(self, uint64_t limit, const LimitKey *key, uint64_t now_ms, bint *fresh) noexcept nogil:
        """The key's counter; a fresh one has no text yet. NULL: the limit has no sketch."""
        cdef TopCounter *least = NULL
        cdef TopCounter *counter
        cdef Sketch *sketch = self.sketch_of(limit, now_ms)
        if sketch == NULL:
            return NULL
        counter = find(sketch, key, &least)
        fresh[0] = counter == NULL
        if counter == NULL:
            if sketch.n[sketch.hand] < TOP_COUNTERS:
                counter = &sketch.counters[sketch.hand][sketch.n[sketch.hand]]
                sketch.n[sketch.hand] += 1
                counter.requests = 0
            else:
                counter = least
            counter.error = counter.requests
            counter.refused = 0
            counter.lo = key.lo
            counter.hi = key.hi
            counter.text_n = 0
        return counter

    cdef void refuse(self, uint64_t limit, const LimitKey *key, uint32_t weight) noexcept nogil:
        cdef TopCounter *counter
        cdef TopCounter *least = NULL
        cdef uint32_t i
        for i in range(self.n):
            if self.sketches[i].limit == limit:
                counter = find(self.sketches[i], key, &least)
                if counter != NULL:
                    add(&counter.refused, weight)
                return

    cdef list rows(self, uint64_t now_ms):
        cdef Sketch *sketch
        cdef TopCounter *counter
        cdef dict found
        cdef list every = []
        cdef uint32_t i
        cdef uint32_t j
        cdef uint32_t window
        for i in range(self.n):
            sketch = self.sketches[i]
            roll(sketch, now_ms)
            found = {}
            for window in range(2):
                for j in range(sketch.n[window]):
                    counter = &sketch.counters[window][j]
                    row = found.setdefault((counter.hi, counter.lo), [(<const char *> counter.text)[:counter.text_n], 0, 0, 0])
                    row[1] += counter.requests
                    row[2] += counter.refused
                    row[3] += counter.error
            began = sketch.before_ms if sketch.before_ms else sketch.began_ms
            for key, row in found.items():
                every.append({
                    "limit": sketch.limit, "hash": f"{key[0]:016x}{key[1]:016x}", "key": row[0], "requests": row[1], "refused": row[2],
                    "error": row[3], "ms": now_ms - began,
                })
        return every


cdef class TopProbe:
    """For tests: sketches at any time. A key is its number."""

    cdef TopKeys top

    def __cinit__(self):
        self.top = TopKeys()

    def meet(self, limit, key, now_ms, weight=1, refused=False):
        cdef LimitKey given
        cdef bint fresh = False
        cdef TopCounter *counter
        given.lo = given.hi = <uint64_t> key
        counter = self.top.counter_of(<uint64_t> limit, &given, <uint64_t> now_ms, &fresh)
        if counter == NULL:
            return False
        if fresh:
            put_hex(counter, given.lo, 16)
        add(&counter.requests, <uint32_t> weight)
        if refused:
            self.top.refuse(<uint64_t> limit, &given, <uint32_t> weight)
        return True

    def rows(self, now_ms):
        return self.top.rows(<uint64_t> now_ms)
