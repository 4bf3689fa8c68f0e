"""Which rule answers a request: port and host to listener, host to vhost, path to rows, rows to a rule.

A lookup costs the same however many routes there are: hosts and paths stand in hash tables, and one pass over the host and one over
the path give the hash of every parent domain and of every element prefix. Only rows that share host and path are walked.

Header conditions see a repeated field as one value joined with "," (RFC 9110 §5.3). Query conditions see the raw value, not
percent-decoded, of the first parameter with that name; a parameter without "=" has the empty value. "*" (OPTIONS *) matches no path
but the root prefix.
"""

from libc.string cimport memchr, memcmp

from gateway._core.client_hello cimport ClientHello, has_alpn
from gateway._core.cors cimport is_preflight, preflight_method
from gateway._core.headers cimport Field, HeaderBlock
from gateway._core.snapshot cimport (
    HASH_BASIS, HASH_PRIME, NONE, BackendRec, FieldMatch, HostSlot, ListenerRec, PathSlot, PortRec, Row, RuleRec, Snapshot, Str,
    VhostRec, hash32_finish,
)
from gateway._core.types cimport Method, Span, int32_t, uint8_t, uint32_t, uint64_t

import re2

cdef enum:
    MAX_LABELS = 128       # a DNS name of 253 bytes has at most 127 labels; more in front are not looked at
    NOT_MADE = -2
    FIRST_LEVEL = 129      # of next_host: above the host itself
    DEPTH_BITS = 31        # of VhostRec.depths: the last bit stands for this depth and all above

cdef struct HostKeys:      # a host and its parent domains, as keys of a host table
    const uint8_t *p
    uint32_t n
    int32_t top            # index of the host itself; below it its parents, shortest first; NOT_MADE: arrays not filled yet
    uint32_t hashes[129]
    uint32_t starts[129]   # offset in p where the key begins; all keys end where the host ends

cdef struct PathKeys:      # the element prefixes of a path, unfinished hashes
    uint32_t depth         # elements of the longest one in the arrays
    uint32_t hashes[513]
    uint32_t ends[513]


# --- hosts ---

cdef void make_host_keys(HostKeys *keys) noexcept nogil:
    cdef uint32_t h = HASH_BASIS
    cdef uint32_t i = keys.n
    cdef int32_t top = 0
    while i > 0:
        i -= 1
        h = (h ^ keys.p[i]) * <uint32_t> HASH_PRIME
        # ".example.com" is the key of "*.example.com".
        if keys.p[i] == 46 and i > 0 and top < MAX_LABELS:
            keys.hashes[top] = hash32_finish(h)
            keys.starts[top] = i
            top += 1
    keys.hashes[top] = hash32_finish(h)
    keys.starts[top] = 0
    # A wildcard stands for one label at least: a host that begins with a dot must not be taken for its key.
    keys.top = top - 1 if keys.n and keys.p[0] == 46 else top


cdef uint32_t find_host(Snapshot s, uint32_t first, uint32_t mask, uint32_t hash, const uint8_t *p, uint32_t n) noexcept nogil:
    cdef uint32_t i = hash & mask
    cdef const HostSlot *slot
    while True:
        slot = s.hosts + first + i
        if slot.value == NONE:
            return NONE
        if slot.hash == hash and slot.host.n == n and (n == 0 or memcmp(s.strings + slot.host.off, p, n) == 0):
            return slot.value
        i = (i + 1) & mask


cdef uint32_t next_host(Snapshot s, uint32_t first, uint32_t mask, HostKeys *keys, int32_t *level) noexcept nogil:
    """Value of the most specific entry for the host at or below *level; NONE when there is none left. Moves *level below it.

    Levels: keys.top is the host itself, then come its parents, then -1, the catch-all. A caller starts with FIRST_LEVEL.
    """
    cdef uint32_t value
    cdef int32_t at
    if mask <= 1:
        # One entry at most. Nearly always it is the catch-all, and then the host need not be hashed.
        if s.hosts[first].value != NONE:
            value = first
        elif s.hosts[first + mask].value != NONE:
            value = first + mask
        else:
            return NONE
        if s.hosts[value].host.n == 0:
            if level[0] < -1:
                return NONE
            level[0] = -2
            return s.hosts[value].value
    if keys.top == NOT_MADE:
        make_host_keys(keys)
    if level[0] > keys.top:
        level[0] = keys.top
    while level[0] >= 0:
        at = level[0]
        level[0] -= 1
        value = find_host(s, first, mask, keys.hashes[at], keys.p + keys.starts[at], keys.n - keys.starts[at])
        if value != NONE:
            return value
    if level[0] < -1:
        return NONE
    level[0] = -2
    return find_host(s, first, mask, hash32_finish(HASH_BASIS), keys.p, 0)


# --- rows ---

# The enum member as the matchers want it; a snapshot keeps bound Match methods (see Snapshot.compile_regexes).
cdef object anchor_both = re2.compile(b"")._regexp.Anchor.ANCHOR_BOTH


cdef bint ask_regex(Snapshot s, uint32_t index, const uint8_t *p, size_t n) noexcept with gil:
    """Whether the whole text matches; RE2's answer for "no" is the span (-1, -1)."""
    cdef bytes text
    try:
        text = p[:n]
        return s.regexes[index](anchor_both, text, 0, n)[0][0] >= 0
    except Exception:
        return False


cdef bint is_span(Snapshot s, Str text, Span span) noexcept nogil:
    return text.n == span.n and (span.n == 0 or memcmp(s.strings + text.off, span.p, span.n) == 0)


cdef bint is_joined(Snapshot s, HeaderBlock head, const Field *field, Str text) noexcept nogil:
    """Whether the values of all fields of that name, joined with ",", are the text."""
    cdef const uint8_t *p = s.strings + text.off
    cdef uint32_t left = text.n
    cdef Span value
    while True:
        value = head.borrow_value(field)
        if value.n > left or (value.n and memcmp(p, value.p, value.n) != 0):
            return False
        p += value.n
        left -= <uint32_t> value.n
        field = head.find_next(field)
        if field == NULL:
            return left == 0
        if left == 0 or p[0] != 44:
            return False
        p += 1
        left -= 1


cdef bint ask_joined(Snapshot s, HeaderBlock head, const Field *field, uint32_t regex) noexcept with gil:
    """ask_regex about a repeated field."""
    cdef Span value
    cdef list values = []
    cdef bytes text
    try:
        while field != NULL:
            value = head.borrow_value(field)
            values.append(value.p[:value.n])
            field = head.find_next(field)
        text = b",".join(values)
        return ask_regex(s, regex, <const uint8_t *> <const char *> text, <size_t> len(text))
    except Exception:
        return False


cdef bint is_host_name(Span name) noexcept nogil:
    return name.n == 4 and memcmp(name.p, b"host", 4) == 0


cdef bint is_header_match(Snapshot s, HeaderBlock head, const FieldMatch *match) noexcept nogil:
    cdef Span name = s.borrow(match.name)
    cdef Span value
    cdef const Field *field
    if is_host_name(name):
        # What routes and is forwarded, wherever it came from: an absolute-form target overrules the Host field.
        value = head.borrow(head.authority)
        if match.regex != NONE:
            return ask_regex(s, match.regex, value.p, value.n)
        return is_span(s, match.value, value)
    field = head.find_name(name.p, name.n)
    if field == NULL:
        return False
    if match.regex == NONE:
        return is_joined(s, head, field, match.value)
    if head.find_next(field) != NULL:
        return ask_joined(s, head, field, match.regex)
    value = head.borrow_value(field)
    return ask_regex(s, match.regex, value.p, value.n)


cdef bint find_query(Span query, Span name, Span *value) noexcept nogil:
    """The raw value of the first parameter with that raw name."""
    cdef const uint8_t *p = query.p
    cdef const uint8_t *end = query.p + query.n
    cdef const uint8_t *stop
    cdef const uint8_t *equals
    if query.n == 0:
        return False
    while True:
        stop = <const uint8_t *> memchr(p, 38, <size_t> (end - p)) if p < end else NULL
        if stop == NULL:
            stop = end
        if <size_t> (stop - p) >= name.n and memcmp(p, name.p, name.n) == 0:
            equals = p + name.n
            if equals == stop:
                value.p = stop
                value.n = 0
                return True
            if equals[0] == 61:
                value.p = equals + 1
                value.n = <size_t> (stop - value.p)
                return True
        if stop == end:
            return False
        p = stop + 1


cdef bint is_query_match(Snapshot s, HeaderBlock head, const FieldMatch *match) noexcept nogil:
    cdef Span value
    value.p = NULL
    value.n = 0
    if not find_query(head.borrow(head.query), s.borrow(match.name), &value):
        return False
    if match.regex != NONE:
        return ask_regex(s, match.regex, value.p, value.n)
    return is_span(s, match.value, value)


cdef bint is_method_match(Snapshot s, HeaderBlock head, const Row *row) noexcept nogil:
    if row.method == NONE:
        return True
    if row.method != head.method:
        # A preflight asks for another request, and is answered by the rule that would take that one.
        return s.rules[row.rule].cors != NONE and is_preflight(head) and preflight_method(head) == row.method
    return row.method != Method.M_OTHER or is_span(s, row.method_text, head.borrow(head.method_text))


cdef bint is_row_match(Snapshot s, HeaderBlock head, const Row *row) noexcept nogil:
    """Everything but host and path."""
    cdef uint32_t i
    if not is_method_match(s, head, row):
        return False
    for i in range(row.headers_n):
        if not is_header_match(s, head, s.matches + row.matches + i):
            return False
    for i in range(row.queries_n):
        if not is_query_match(s, head, s.matches + row.matches + row.headers_n + i):
            return False
    return True


cdef uint32_t first_match(Snapshot s, HeaderBlock head, uint32_t rows, uint32_t n) noexcept nogil:
    cdef uint32_t i
    for i in range(n):
        if is_row_match(s, head, s.rows + rows + i):
            return rows + i
    return NONE


# --- paths ---

cdef const PathSlot *find_path(Snapshot s, const VhostRec *vhost, uint32_t hash, const uint8_t *p, uint32_t n) noexcept nogil:
    cdef uint32_t i = hash & vhost.paths_mask
    cdef const PathSlot *slot
    while True:
        slot = s.paths + vhost.paths + i
        if slot.rows == NONE:
            return NULL
        if slot.hash == hash and slot.path.n == n and (n == 0 or memcmp(s.strings + slot.path.off, p, n) == 0):
            return slot
        i = (i + 1) & vhost.paths_mask


cdef uint32_t match_regexes(Snapshot s, const VhostRec *vhost, HeaderBlock head, Span path) noexcept nogil:
    cdef uint32_t i
    cdef uint32_t asked = NONE
    cdef bint answer = False
    cdef const Row *row
    for i in range(vhost.regex_rows_n):
        row = s.rows + vhost.regex_rows + i
        if row.regex == asked and not answer:
            continue
        # The pattern last: the other conditions are cheaper.
        if not is_row_match(s, head, row):
            continue
        if row.regex != asked:
            asked = row.regex
            answer = ask_regex(s, asked, path.p, path.n)
        if answer:
            return vhost.regex_rows + i
    return NONE


cdef inline uint32_t row_of(Snapshot s, HeaderBlock head, uint32_t rows, uint32_t n, uint32_t first_rule, Decision *out) noexcept nogil:
    """The first of a slot's rows that matches, with its rule, or NONE. first_rule as in PathSlot."""
    cdef uint32_t row
    if first_rule != NONE:
        out.rule = first_rule
        return rows
    row = first_match(s, head, rows, n)
    if row != NONE:
        out.rule = s.rows[row].rule
    return row


cdef uint32_t match_paths(Snapshot s, const VhostRec *vhost, HeaderBlock head, Decision *out) noexcept nogil:
    """Index of the row that answers on this vhost, or NONE. Fills in rule and prefix."""
    cdef Span path = head.borrow(head.path)
    cdef PathKeys keys
    cdef uint32_t n = <uint32_t> path.n
    cdef uint32_t h = HASH_BASIS
    cdef uint32_t depth = 0
    cdef uint32_t i
    cdef uint32_t row
    cdef bint has_exact = n <= vhost.longest
    cdef const PathSlot *slot
    keys.hashes[0] = h
    keys.ends[0] = 0
    # Hashes no further than the longest prefix or exact path could reach.
    if has_exact or vhost.deepest:
        for i in range(n):
            if path.p[i] == 47 and i:
                if depth < vhost.deepest:
                    depth += 1
                    keys.hashes[depth] = h
                    keys.ends[depth] = i
                elif not has_exact:
                    break
            h = (h ^ path.p[i]) * <uint32_t> HASH_PRIME
        else:
            # The last element ends with the path, unless a slash has ended it.
            if n and path.p[n - 1] != 47 and depth < vhost.deepest:
                depth += 1
                keys.hashes[depth] = h
                keys.ends[depth] = n
            if has_exact:
                slot = find_path(s, vhost, hash32_finish(h), path.p, n)
                if slot != NULL and slot.exact_n:
                    row = row_of(s, head, slot.rows, slot.exact_n, slot.exact_rule, out)
                    if row != NONE:
                        out.prefix = 0
                        return row
    if vhost.regex_rows_n:
        row = match_regexes(s, vhost, head, path)
        if row != NONE:
            out.rule = s.rows[row].rule
            out.prefix = 0
            return row
    if vhost.depths == 0:
        return NONE
    while True:
        if vhost.depths >> (depth if depth < DEPTH_BITS else DEPTH_BITS) & 1:
            slot = find_path(s, vhost, hash32_finish(keys.hashes[depth]), path.p, keys.ends[depth])
            if slot != NULL and slot.prefix_n:
                row = row_of(s, head, slot.rows + slot.exact_n, slot.prefix_n, slot.prefix_rule, out)
                if row != NONE:
                    out.prefix = keys.ends[depth]
                    return row
        if depth == 0:
            return NONE
        depth -= 1


# --- the way in ---

cdef uint32_t find_row(Snapshot s, uint32_t port, HeaderBlock head, Decision *out) noexcept nogil:
    """Fills *out; the row that answers, or NONE."""
    cdef HostKeys keys
    cdef Span host = head.borrow(head.host)
    cdef const PortRec *bound
    cdef const ListenerRec *listener
    cdef int32_t level = FIRST_LEVEL
    cdef uint32_t vhost
    cdef uint32_t row
    out.listener = NONE
    out.rule = NONE
    out.prefix = 0
    if port >= s.ports_n:
        return NONE
    keys.p = host.p
    keys.n = <uint32_t> host.n
    keys.top = NOT_MADE
    bound = s.ports + port
    out.listener = next_host(s, bound.hosts, bound.hosts_mask, &keys, &level)
    if out.listener == NONE:
        return NONE
    # From here on only this listener counts, whatever it answers (listener isolation).
    listener = s.listeners + out.listener
    level = FIRST_LEVEL
    while True:
        vhost = next_host(s, listener.hosts, listener.hosts_mask, &keys, &level)
        if vhost == NONE:
            return NONE
        row = match_paths(s, s.vhosts + vhost, head, out)
        if row != NONE:
            return row


cdef void route_request(Snapshot snapshot, uint32_t port, HeaderBlock head, Decision *out) noexcept:
    find_row(snapshot, port, head, out)


cdef uint32_t find_listener(Snapshot snapshot, uint32_t port, const uint8_t *name, size_t n) noexcept nogil:
    cdef HostKeys keys
    cdef int32_t level = FIRST_LEVEL
    cdef const PortRec *bound
    if port >= snapshot.ports_n:
        return NONE
    keys.p = name
    keys.n = <uint32_t> n
    keys.top = NOT_MADE
    bound = snapshot.ports + port
    return next_host(snapshot, bound.hosts, bound.hosts_mask, &keys, &level)


cdef uint32_t find_port(Snapshot snapshot, uint32_t id_lo, uint32_t id_hi) noexcept nogil:
    cdef uint32_t i
    for i in range(snapshot.ports_n):
        if snapshot.ports[i].id_lo == id_lo and snapshot.ports[i].id_hi == id_hi:
            return i
    return NONE


# --- connections that are no requests ---

cdef bint is_offered(Snapshot s, const Row *row, const ClientHello *hello) noexcept nogil:
    """Whether the client offers the protocol that the match asks for, if it does: its one FieldMatch, as a header's."""
    cdef Span wanted
    if row.headers_n == 0:
        return True
    wanted = s.borrow(s.matches[row.matches].value)
    return hello != NULL and has_alpn(hello, wanted.p, <size_t> wanted.n)


cdef uint32_t find_tunnel(Snapshot snapshot, uint32_t listener, const ClientHello *hello, Span *offered) noexcept nogil:
    cdef HostKeys keys
    cdef const ListenerRec *at = snapshot.listeners + listener
    cdef const PathSlot *slot
    cdef int32_t level = FIRST_LEVEL
    cdef uint32_t vhost
    cdef uint32_t row
    keys.p = NULL
    keys.n = 0
    if hello != NULL:
        keys.p = &hello.name[0]
        keys.n = hello.name_n
    keys.top = NOT_MADE
    while True:
        vhost = next_host(snapshot, at.hosts, at.hosts_mask, &keys, &level)
        if vhost == NONE:
            return NONE
        # the matches of connections are those of the prefix that covers every path; who asks for a protocol comes first
        slot = find_path(snapshot, snapshot.vhosts + vhost, hash32_finish(HASH_BASIS), keys.p, 0)
        if slot != NULL:
            for row in range(slot.rows + slot.exact_n, slot.rows + slot.exact_n + slot.prefix_n):
                if is_offered(snapshot, &snapshot.rows[row], hello):
                    offered.n = 0
                    if snapshot.rows[row].headers_n:
                        offered[0] = snapshot.borrow(snapshot.matches[snapshot.rows[row].matches].value)
                    return snapshot.rows[row].rule


cdef const BackendRec *pick_backend(Snapshot snapshot, const RuleRec *rule, uint64_t random) noexcept nogil:
    cdef uint32_t at
    cdef uint32_t i
    if rule.weight == 0:
        return NULL
    if rule.backends_n == 1:
        return &snapshot.backends[rule.backends]
    at = <uint32_t> ((random >> 32) % rule.weight)
    for i in range(rule.backends, rule.backends + rule.backends_n):
        if at < snapshot.backends[i].weight:
            return &snapshot.backends[i]
        at -= snapshot.backends[i].weight
    return NULL
