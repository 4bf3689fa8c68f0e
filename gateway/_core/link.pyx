"""Joins compiled pieces to one blob.

control/compile packs each route, cluster and list of filters once, into a Piece: rows of u32 words in which references are still
symbols. A Linker puts pieces behind one another, turns symbols into numbers, and builds the tables of hosts and paths, which belong to
no piece. A change of one route among ten thousand packs one piece and links all.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdlib cimport calloc, free, qsort, realloc
from libc.string cimport memcmp, memcpy, memset

from gateway._core.snapshot cimport (
    NONE, SEC_HOSTS, SEC_PATHS, SEC_ROWS, SEC_STRINGS, SEC_VHOSTS, SECTIONS, HostSlot, PathSlot, Row, SectionRec, VhostRec, hash32_of,
    hash32_of_reversed, seal_blob,
)
from gateway._core.types cimport uint8_t, uint32_t, uint64_t

from gateway._core import snapshot as layout

import cython

cdef enum:
    LINK_TEXT = 1
    LINK_NEED = 2
    LINK_CLUSTER = 3
    LINK_OWN = 16          # + section
    TARGET_EXACT = 0
    TARGET_PREFIX = 1
    TARGET_REGEX = 2
    DEEPEST_BIT = 31       # of VhostRec.depths
    ALIGN = 8              # of a blob's size
    LINE = 64              # sections begin with a line of the cache, so that no row or rule lies in two
    ROOM = 4096            # bytes of texts at first

# What a reference looks like among the words of a piece: one of these in the upper half, an index in the lower.
TEXT = <uint64_t> LINK_TEXT << 32
NEED = <uint64_t> LINK_NEED << 32
CLUSTER = <uint64_t> LINK_CLUSTER << 32
OWN = {name: (LINK_OWN + number) << 32 for number, name in enumerate(layout.LAYOUT)}
TARGETS = {"Exact": TARGET_EXACT, "PathPrefix": TARGET_PREFIX, "RegularExpression": TARGET_REGEX}

cdef dict section_numbers = {name: number for number, name in enumerate(layout.SECTION_NAMES)}
cdef uint32_t[SECTIONS] WIDTHS        # words of one record
cdef uint64_t last_serial = 0

for _number, _section in enumerate(layout.LAYOUT):
    WIDTHS[_number] = <uint32_t> len(layout.LAYOUT[_section])


@cython.final
cdef class Piece:
    """Rows of some sections, whose references a Linker resolves."""

    cdef object __weakref__
    cdef uint32_t *words
    cdef Fix *fixes
    cdef Part *parts
    cdef Target *targets
    cdef size_t words_n
    cdef size_t fixes_n
    cdef size_t parts_n
    cdef size_t targets_n
    cdef int main
    cdef tuple texts
    cdef tuple needs
    cdef tuple clusters
    # where the linker of that serial has put it
    cdef uint64_t serial
    cdef uint32_t place
    cdef uint32_t ready

    def __init__(self, str main not None, dict sections not None, tuple texts=(), tuple needs=(), tuple clusters=(), tuple targets=()):
        """main: the section that a reference to this piece means. sections: name -> words of whole records, each a number below
        2**32 or a reference. "rows" are put where a vhost needs them; targets tell of each (kind, index of its path's text, rank).
        """
        cdef size_t n = 0
        cdef size_t at = 0
        cdef size_t i
        cdef uint64_t word
        if self.words is not NULL:
            raise TypeError("a piece is made once")
        for name, rows in sections.items():
            n += <size_t> len(rows)
        self.main = section_numbers[main]
        self.texts, self.needs, self.clusters = texts, needs, clusters
        self.words = <uint32_t *> calloc(n + 1, sizeof(uint32_t))
        self.fixes = <Fix *> calloc(n + 1, sizeof(Fix))
        self.parts = <Part *> calloc(<size_t> len(sections) + 1, sizeof(Part))
        self.targets = <Target *> calloc(<size_t> len(targets) + 1, sizeof(Target))
        if not self.words or not self.fixes or not self.parts or not self.targets:
            raise MemoryError
        for name, rows in sections.items():
            self.parts[self.parts_n].section = section_numbers[name]
            self.parts[self.parts_n].n = <uint32_t> len(rows)
            if self.parts[self.parts_n].n % WIDTHS[self.parts[self.parts_n].section]:
                raise ValueError(f"{name}: no whole records")
            self.parts_n += 1
            for each in rows:
                word = each
                if word >> 32:
                    self.check(word)
                    self.fixes[self.fixes_n].at = <uint32_t> at
                    self.fixes[self.fixes_n].kind = <uint32_t> (word >> 32)
                    self.fixes[self.fixes_n].index = <uint32_t> (word & NONE)
                    self.fixes_n += 1
                self.words[at] = <uint32_t> (word & NONE)
                at += 1
        self.words_n = n
        # Most words are no references, and there are as many pieces as routes.
        self.fixes = <Fix *> realloc(self.fixes, (self.fixes_n + 1) * sizeof(Fix))
        if len(targets) * WIDTHS[SEC_ROWS] != len(sections.get("rows", ())):
            raise ValueError("rows: one for each target")
        for i in range(<size_t> len(targets)):
            kind, path, rank = targets[i]
            if not 0 <= path < len(texts):
                raise ValueError("a path that is none of the texts")
            self.targets[i].kind, self.targets[i].path, self.targets[i].rank = kind, path, rank
            self.targets_n += 1

    cdef int check(self, uint64_t word) except -1:
        cdef uint64_t kind = word >> 32
        cdef size_t index = <size_t> (word & NONE)
        if ((kind == LINK_TEXT and index < <size_t> len(self.texts)) or (kind == LINK_NEED and index < <size_t> len(self.needs))
                or (kind == LINK_CLUSTER and index < <size_t> len(self.clusters)) or LINK_OWN <= kind < LINK_OWN + SECTIONS - 1):
            return 0
        raise ValueError(f"a reference to nothing: {word:#x}")

    def __dealloc__(self):
        free(self.words)
        free(self.fixes)
        free(self.parts)
        free(self.targets)


cdef int by_path(const void *a, const void *b) noexcept nogil:
    """Of Exact and PathPrefix: rows of one slot together, in the order in which they are asked."""
    cdef const Item *one = <const Item *> a
    cdef const Item *two = <const Item *> b
    if one.path_off != two.path_off:
        return -1 if one.path_off < two.path_off else 1
    if one.path_n != two.path_n:
        return -1 if one.path_n < two.path_n else 1
    if one.is_prefix != two.is_prefix:
        return -1 if one.is_prefix < two.is_prefix else 1
    return by_rank(one, two)


cdef int by_pattern(const void *a, const void *b) noexcept nogil:
    """The longer pattern is taken for the more specific one; equal patterns stand together, so that one is asked once."""
    cdef const Item *one = <const Item *> a
    cdef const Item *two = <const Item *> b
    cdef int differs
    if one.path_n != two.path_n:
        return 1 if one.path_n < two.path_n else -1
    differs = memcmp(one.path, two.path, one.path_n)
    return differs if differs else by_rank(one, two)


cdef inline int by_rank(const Item *one, const Item *two) noexcept nogil:
    if one.rank != two.rank:
        return -1 if one.rank < two.rank else 1
    return -1 if one.turn < two.turn else 1


cdef inline uint32_t slots_for(size_t n) noexcept nogil:
    """A power of two; the table is at most half full."""
    cdef uint32_t size = 1
    while n and size < 2 * n:
        size <<= 1
    return size


@cython.final
cdef class Linker:
    """One run."""

    cdef Column[SECTIONS] columns
    cdef Column scratch
    cdef uint8_t *strings
    cdef size_t strings_n
    cdef size_t strings_room
    cdef Row *rows                # of all targets, where vhosts take theirs from
    cdef Placed *placed
    cdef size_t rows_n
    cdef size_t rows_room
    cdef Item *items
    cdef size_t items_room
    cdef uint64_t serial
    cdef dict places              # text -> offset
    cdef dict clusters            # name -> record
    cdef dict contents            # pieces of a vhost -> the words after its host

    def __cinit__(self):
        global last_serial
        last_serial += 1
        self.serial = last_serial
        self.strings = <uint8_t *> grown(NULL, ROOM)
        self.strings_room = ROOM
        self.places = {"": 0}
        self.clusters = {}
        self.contents = {}

    def __dealloc__(self):
        cdef int i
        for i in range(SECTIONS):
            free(self.columns[i].words)
        free(self.scratch.words)
        free(self.strings)
        free(self.rows)
        free(self.placed)
        free(self.items)

    # ---- what the frame of a configuration is packed with ----

    def text(self, str text not None):
        """(offset, length) of the text in the string section, where each text stands once."""
        cdef uint32_t n = 0
        cdef uint32_t at = self.text_at(text, &n)
        return at, n

    def add(self, str section, words):
        """Appends whole records; the index of the first."""
        cdef int number = section_numbers[section]
        cdef Column *column = self.columns + number
        cdef size_t first = column.n
        for word in words:
            make_room(column, 1)
            column.words[column.n] = word
            column.n += 1
        return first // WIDTHS[number]

    def place(self, Piece piece not None):
        """Index of its first record in its main section; a piece is put once."""
        self.put(piece)
        return piece.place

    def count(self, str section):
        """Records so far."""
        cdef int number = section_numbers[section]
        return self.columns[number].n // WIDTHS[number]

    def cluster(self, str name not None, Piece piece not None):
        """Puts the cluster that others refer to by this name. What refers to one that is not put gets NONE."""
        self.put(piece)
        self.clusters[name] = piece.place

    def vhost(self, str host not None, list pieces not None):
        """Index of the record of a host that these routes answer on, in the order of their precedence."""
        cdef VhostRec record
        cdef bytes words
        cdef tuple content = tuple(pieces)
        cdef Column *column = self.columns + SEC_VHOSTS
        known = self.contents.get(content)
        if known is None:
            self.pack_paths(content, &record)
            self.contents[content] = (<const uint8_t *> &record)[:sizeof(VhostRec)]
        else:
            words = known
            memcpy(&record, <const uint8_t *> words, sizeof(VhostRec))
        record.host.off = self.text_at(host, &record.host.n)
        make_room(column, WIDTHS[SEC_VHOSTS])
        memcpy(column.words + column.n, &record, sizeof(VhostRec))
        column.n += WIDTHS[SEC_VHOSTS]
        return column.n // WIDTHS[SEC_VHOSTS] - 1

    def hosts(self, dict hosts not None):
        """(first slot, mask) of a table that finds values by host."""
        cdef uint32_t size = slots_for(<size_t> len(hosts))
        cdef Column *column = self.columns + SEC_HOSTS
        cdef size_t first = column.n
        cdef HostSlot *slots
        cdef HostSlot slot
        cdef uint32_t i
        make_room(column, size * WIDTHS[SEC_HOSTS])
        column.n += size * WIDTHS[SEC_HOSTS]
        slots = <HostSlot *> (column.words + first)
        for i in range(size):
            slots[i].hash = slots[i].host.off = slots[i].host.n = 0
            slots[i].value = NONE
        for host, value in hosts.items():
            slot.host.off = self.text_at(host, &slot.host.n)
            slot.hash = hash32_of_reversed(self.strings + slot.host.off, slot.host.n)
            slot.value = value
            i = slot.hash & (size - 1)
            while slots[i].value != NONE:
                i = (i + 1) & (size - 1)
            slots[i] = slot
        return first // WIDTHS[SEC_HOSTS], size - 1

    def blob(self, uint64_t revision):
        """All of it as a sealed blob. ValueError when it does not fit 4 GiB."""
        cdef SectionRec[SECTIONS] table
        cdef uint64_t offset = <uint64_t> len(layout.pack_header(0, 0)) + sizeof(table)
        cdef size_t size
        cdef bytes head
        cdef bytes blob
        cdef uint8_t *base
        cdef size_t end
        cdef int i
        for i in range(SECTIONS - 1):
            offset = (offset + LINE - 1) // LINE * LINE
            table[i].offset = <uint32_t> offset
            table[i].count = <uint32_t> (self.columns[i].n // WIDTHS[i])
            offset += self.columns[i].n * sizeof(uint32_t)
        table[SEC_STRINGS].offset = <uint32_t> offset
        table[SEC_STRINGS].count = <uint32_t> self.strings_n
        size = <size_t> ((offset + self.strings_n + ALIGN - 1) // ALIGN * ALIGN)
        head = layout.pack_header(size, revision) + (<const uint8_t *> table)[:sizeof(table)]
        blob = PyBytes_FromStringAndSize(NULL, <Py_ssize_t> size)
        base = <uint8_t *> PyBytes_AS_STRING(blob)
        end = put_bytes(base, 0, 0, <const uint8_t *> <const char *> head, <size_t> len(head))
        for i in range(SECTIONS - 1):
            end = put_bytes(base, end, table[i].offset, <const uint8_t *> self.columns[i].words, self.columns[i].n * sizeof(uint32_t))
        end = put_bytes(base, end, <size_t> offset, self.strings, self.strings_n)
        put_bytes(base, end, size, NULL, 0)
        seal_blob(base, size)
        return blob

    # ---- below it ----

    cdef uint32_t text_at(self, str text, uint32_t *n) except? 0xffffffff:
        cdef Py_ssize_t length = 0
        cdef const char *p = PyUnicode_AsUTF8AndSize(text, &length)
        cdef size_t room
        n[0] = <uint32_t> length
        at = self.places.get(text)
        if at is not None:
            return at
        if self.strings_n + <size_t> length >= NONE:
            raise ValueError("configuration too large for one snapshot")
        if self.strings_n + <size_t> length > self.strings_room:
            room = 2 * (self.strings_n + <size_t> length)
            self.strings = <uint8_t *> grown(self.strings, room)
            self.strings_room = room
        at = self.strings_n
        memcpy(self.strings + self.strings_n, p, <size_t> length)
        self.strings_n += <size_t> length
        self.places[text] = at
        return at

    cdef int put(self, Piece piece) except -1:
        """What it needs first, then its own rows with their references resolved."""
        cdef uint32_t[SECTIONS] bases
        cdef uint32_t *words
        cdef Column *column
        cdef Piece need
        cdef const Fix *fix
        cdef size_t i
        cdef uint32_t unused = 0
        if piece.serial == self.serial:
            return 0
        for need in piece.needs:
            self.put(need)
        for i in range(<size_t> SECTIONS - 1):
            bases[i] = <uint32_t> (self.columns[i].n // WIDTHS[i])
        self.scratch.n = 0
        make_room(&self.scratch, piece.words_n + 1)
        words = self.scratch.words
        memcpy(words, piece.words, piece.words_n * sizeof(uint32_t))
        for i in range(piece.fixes_n):
            fix = piece.fixes + i
            if fix.kind == LINK_TEXT:
                words[fix.at] = self.text_at(piece.texts[fix.index], &unused)
            elif fix.kind == LINK_NEED:
                need = piece.needs[fix.index]
                words[fix.at] = need.place
            elif fix.kind == LINK_CLUSTER:
                words[fix.at] = self.clusters.get(piece.clusters[fix.index], <uint32_t> NONE)
            else:
                words[fix.at] = bases[fix.kind - LINK_OWN] + fix.index
        for i in range(piece.parts_n):
            if piece.parts[i].section == SEC_ROWS:
                self.keep_targets(piece, words)
            else:
                column = self.columns + piece.parts[i].section
                make_room(column, piece.parts[i].n)
                memcpy(column.words + column.n, words, piece.parts[i].n * sizeof(uint32_t))
                column.n += piece.parts[i].n
            words += piece.parts[i].n
        piece.place = bases[piece.main]
        piece.serial = self.serial
        return 0

    cdef int keep_targets(self, Piece piece, const uint32_t *words) except -1:
        cdef Placed *placed
        cdef size_t i
        cdef size_t room
        if self.rows_n + piece.targets_n > self.rows_room:
            room = 2 * (self.rows_n + piece.targets_n)
            self.rows = <Row *> grown(self.rows, room * sizeof(Row))
            self.placed = <Placed *> grown(self.placed, room * sizeof(Placed))
            self.rows_room = room
        piece.ready = <uint32_t> self.rows_n
        memcpy(self.rows + self.rows_n, words, piece.targets_n * sizeof(Row))
        for i in range(piece.targets_n):
            placed = self.placed + self.rows_n + i
            placed.kind = piece.targets[i].kind
            placed.rank = piece.targets[i].rank
            placed.path_off = self.text_at(piece.texts[piece.targets[i].path], &placed.path_n)
        self.rows_n += piece.targets_n
        return 0

    cdef int pack_paths(self, tuple pieces, VhostRec *record) except -1:
        """A vhost's words after its host. Vhosts with the same content, such as a route's several hostnames, share its tables."""
        cdef size_t total = 0
        cdef size_t plain = 0
        cdef size_t patterns = 0
        cdef size_t i
        cdef Piece piece
        cdef Item *item
        cdef const Placed *placed
        for piece in pieces:
            self.put(piece)
            total += piece.targets_n
        if total > self.items_room:
            self.items = <Item *> grown(self.items, 2 * total * sizeof(Item))
            self.items_room = 2 * total
        # Patterns gather at the end.
        for piece in pieces:
            for i in range(piece.targets_n):
                placed = self.placed + piece.ready + i
                if placed.kind == TARGET_REGEX:
                    patterns += 1
                    item = self.items + total - patterns
                else:
                    item = self.items + plain
                    plain += 1
                item.path = self.strings + placed.path_off
                item.path_off, item.path_n = placed.path_off, placed.path_n
                item.is_prefix = placed.kind == TARGET_PREFIX
                item.row = <uint32_t> (piece.ready + i)
                item.rank = placed.rank
                item.turn = plain + patterns
        self.pack_slots(self.items, plain, record)
        qsort(self.items + plain, patterns, sizeof(Item), &by_pattern)
        record.regex_rows = self.pack_rows(self.items + plain, patterns)
        record.regex_rows_n = <uint32_t> patterns
        return 0

    cdef int pack_slots(self, Item *items, size_t n, VhostRec *record) except -1:
        cdef Column *column = self.columns + SEC_PATHS
        cdef size_t paths = 0
        cdef size_t first = column.n
        cdef size_t begin
        cdef size_t i
        cdef uint32_t at
        cdef uint32_t depth
        cdef uint32_t size
        cdef uint32_t rule
        cdef const Row *row
        cdef PathSlot *slots
        cdef PathSlot slot
        qsort(items, n, sizeof(Item), &by_path)
        for i in range(n):
            paths += i == 0 or items[i].path_off != items[i - 1].path_off or items[i].path_n != items[i - 1].path_n
        size = slots_for(paths)
        make_room(column, size * WIDTHS[SEC_PATHS])
        column.n += size * WIDTHS[SEC_PATHS]
        slots = <PathSlot *> (column.words + first)
        for at in range(size):
            slots[at].hash = slots[at].path.off = slots[at].path.n = slots[at].exact_n = slots[at].prefix_n = 0
            slots[at].rows = slots[at].exact_rule = slots[at].prefix_rule = NONE
        record.paths = <uint32_t> (first // WIDTHS[SEC_PATHS])
        record.paths_mask = size - 1
        record.depths = record.deepest = record.longest = 0
        i = 0
        while i < n:
            begin = i
            slot.path.off, slot.path.n = items[i].path_off, items[i].path_n
            slot.hash = hash32_of(items[i].path, items[i].path_n)
            slot.exact_n = slot.prefix_n = 0
            slot.exact_rule = slot.prefix_rule = NONE
            while i < n and items[i].path_off == slot.path.off and items[i].path_n == slot.path.n:
                row = self.rows + items[i].row
                rule = row.rule if row.method == NONE and row.headers_n == 0 and row.queries_n == 0 else <uint32_t> NONE
                if items[i].is_prefix:
                    if slot.prefix_n == 0:
                        slot.prefix_rule = rule
                    slot.prefix_n += 1
                else:
                    if slot.exact_n == 0:
                        slot.exact_rule = rule
                    slot.exact_n += 1
                i += 1
            slot.rows = self.pack_rows(items + begin, i - begin)
            if slot.exact_n:
                record.longest = max(record.longest, slot.path.n)
            if slot.prefix_n:
                depth = slashes(items[begin].path, slot.path.n)
                record.depths |= <uint32_t> 1 << min(depth, <uint32_t> DEEPEST_BIT)
                record.deepest = max(record.deepest, depth)
            at = slot.hash & (size - 1)
            while slots[at].rows != NONE:
                at = (at + 1) & (size - 1)
            slots[at] = slot
        return 0

    cdef uint32_t pack_rows(self, const Item *items, size_t n) except? 0xffffffff:
        cdef Column *column = self.columns + SEC_ROWS
        cdef size_t first = column.n
        cdef size_t i
        make_room(column, n * WIDTHS[SEC_ROWS])
        for i in range(n):
            memcpy(column.words + column.n, self.rows + items[i].row, sizeof(Row))
            column.n += WIDTHS[SEC_ROWS]
        return <uint32_t> (first // WIDTHS[SEC_ROWS])


cdef inline size_t put_bytes(uint8_t *base, size_t end, size_t at, const uint8_t *p, size_t n) noexcept nogil:
    """Fills up with zeroes from the end of what is there; the new end."""
    memset(base + end, 0, at - end)
    if n:
        memcpy(base + at, p, n)
    return at + n


cdef inline uint32_t slashes(const uint8_t *p, uint32_t n) noexcept nogil:
    cdef uint32_t found = 0
    cdef uint32_t i
    for i in range(n):
        found += p[i] == c"/"
    return found


cdef void *grown(void *p, size_t size) except NULL:
    cdef void *more = realloc(p, size)
    if not more:
        raise MemoryError
    return more


cdef inline int make_room(Column *column, size_t n) except -1:
    cdef size_t room
    if column.n + n <= column.room:
        return 0
    room = 2 * (column.n + n) + 64
    column.words = <uint32_t *> grown(column.words, room * sizeof(uint32_t))
    column.room = room
    return 0
