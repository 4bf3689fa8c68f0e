"""The compiled configuration, read in place. Verifies a blob once, so that no reader has to check an index again."""

from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.memoryview cimport PyMemoryView_FromObject, PyMemoryView_GET_BUFFER
from libc.string cimport memcpy

from gateway._core.types cimport Span, uint8_t, uint32_t, uint64_t

import cython
import re2

cdef enum:
    MAGIC = 0x48545349     # "ISTH"
    VERSION = 3
    SEALED_FROM = 24       # offset of BlobHeader.revision_lo, the first byte that the checksum covers
    HEADER_SIZE = 32
    MAX_NAME = 65535       # HeaderBlock keeps the length of a field name in 16 bits
    SUM_PIECE = 262144     # bytes of one step of a check
    RECORDS_PIECE = 4096   # records of one
    REGEXES_PIECE = 16     # patterns compiled in one
    MAX_RATES = 8          # limits of one place
    MAX_RATE_NAME = 253    # bytes

cdef extern from *:
    """
    #define SUM_PRIME 0x9e3779b185ebca87ULL
    """
    const uint64_t SUM_PRIME

cdef struct Flaw:          # what is wrong with a blob
    int section
    uint32_t record
    const char *what

cdef struct Check:         # one section's
    int section
    int (*verify)(Snapshot s, uint32_t i, Flaw *flaw) noexcept nogil


class SnapshotError(ValueError):
    """A blob that is not a snapshot of this version, or one that contradicts itself. Names section and record."""


# Section -> names of the u32 words of its record, in struct order. control/compile packs by these names.
LAYOUT = {
    "ports": ("id_lo", "id_hi", "address_off", "address_n", "listeners", "listeners_n", "hosts", "hosts_mask", "proxy_protocol"),
    "listeners": ("id_lo", "id_hi", "name_off", "name_n", "hostname_off", "hostname_n", "port", "port_number", "protocol",
                  "trusted_hops", "limits", "hosts", "hosts_mask", "rates", "rates_n"),
    "limits": ("max_header_count", "max_header_bytes", "max_request_line", "header_timeout", "idle_timeout", "body_timeout",
               "stream_idle_timeout", "max_connections", "max_body_lo", "max_body_hi", "max_requests", "max_age"),
    "hosts": ("hash", "host_off", "host_n", "value"),
    "vhosts": ("host_off", "host_n", "paths", "paths_mask", "depths", "deepest", "longest", "regex_rows", "regex_rows_n"),
    "paths": ("hash", "path_off", "path_n", "rows", "exact_n", "prefix_n", "exact_rule", "prefix_rule"),
    "rows": ("rule", "method", "method_text_off", "method_text_n", "regex", "matches", "headers_n", "queries_n"),
    "matches": ("name_off", "name_n", "value_off", "value_n", "regex"),
    "routes": ("id_lo", "id_hi", "name_off", "name_n", "kind"),
    "rules": ("route", "number", "filters", "filters_n", "backends", "backends_n", "weight", "request_timeout", "backend_timeout",
              "retry", "mirrors", "mirrors_n", "cors", "rates", "rates_n", "session"),
    "retries": ("attempts", "codes", "codes_n", "backoff"),
    "backends": ("cluster", "weight", "filters", "filters_n"),
    "filters": ("kind", "edits", "edits_n", "status", "scheme_off", "scheme_n", "host_off", "host_n", "port", "path_kind",
                "path_off", "path_n"),
    "edits": ("kind", "name_off", "name_n", "value_off", "value_n"),
    "clusters": ("id_lo", "id_hi", "name_off", "name_n", "policy", "key_kind", "key_name_off", "key_name_n", "protocol",
                 "connect_timeout", "idle_timeout", "max_connections", "max_pending", "outlier_errors", "outlier_ejection",
                 "outlier_percent", "tls", "rates", "rates_n"),
    "mirrors": ("cluster", "share"),
    "cors": ("origins", "origins_n", "flags", "methods_off", "methods_n", "headers_off", "headers_n", "expose_off", "expose_n",
             "max_age_off", "max_age_n"),
    "origins": ("origin_off", "origin_n"),
    "sessions": ("kind", "name_off", "name_n", "tail_off", "tail_n", "lifetime"),
    "rates": ("id_lo", "id_hi", "name_off", "name_n", "algorithm", "mode", "on_failure", "shadow", "skips", "style", "cost",
              "cost_header_off", "cost_header_n", "timeout", "parts", "parts_n", "terms", "overrides", "overrides_n", "tag_off", "tag_n"),
    "terms": ("requests", "capacity", "emission_lo", "emission_hi", "period_lo", "period_hi", "seconds"),
    "overrides": ("lo_lo", "lo_hi", "hi_lo", "hi_hi", "terms"),
    "key_parts": ("kind", "name_off", "name_n"),
    "words": ("value",),
    "regexes": ("pattern_off", "pattern_n"),
}
SECTION_NAMES = (*LAYOUT, "strings")

cdef size_t[SECTIONS] RECORD_SIZES = [
    sizeof(PortRec), sizeof(ListenerRec), sizeof(LimitsRec), sizeof(HostSlot), sizeof(VhostRec), sizeof(PathSlot), sizeof(Row),
    sizeof(FieldMatch), sizeof(RouteRec), sizeof(RuleRec), sizeof(RetryRec), sizeof(BackendRec), sizeof(FilterRec), sizeof(EditRec),
    sizeof(ClusterRec), sizeof(MirrorRec), sizeof(CorsRec), sizeof(Str), sizeof(SessionRec), sizeof(RateRec), sizeof(TermsRec), sizeof(OverrideRec),
    sizeof(KeyPartRec), sizeof(uint32_t), sizeof(Str), 1,
]

for _index, _section in enumerate(LAYOUT):
    if RECORD_SIZES[_index] != <size_t> (4 * len(LAYOUT[_section])):
        raise ImportError(f"snapshot.LAYOUT[{_section!r}] does not describe its record")
if sizeof(BlobHeader) != HEADER_SIZE or len(SECTION_NAMES) != SECTIONS:
    raise ImportError("snapshot.LAYOUT does not describe the blob")


cdef uint32_t hash32_of(const uint8_t *p, size_t n) noexcept nogil:
    cdef uint32_t h = HASH_BASIS
    cdef size_t i
    for i in range(n):
        h = (h ^ p[i]) * <uint32_t> HASH_PRIME
    return hash32_finish(h)


cdef uint32_t hash32_of_reversed(const uint8_t *p, size_t n) noexcept nogil:
    cdef uint32_t h = HASH_BASIS
    cdef size_t i
    for i in range(n):
        h = (h ^ p[n - 1 - i]) * <uint32_t> HASH_PRIME
    return hash32_finish(h)


cdef inline uint64_t load_u64(const uint8_t *p) noexcept nogil:
    cdef uint64_t word = 0
    memcpy(&word, p, 8)
    return word


cdef void sum_start(Sum *sum) noexcept nogil:
    sum.a = 1
    sum.b = 2
    sum.c = 3
    sum.d = 4


cdef void sum_add(Sum *sum, const uint8_t *p, size_t n) noexcept nogil:
    """Four independent lanes, so that the multiplications overlap: megabytes in a fraction of a millisecond. n % 32 == 0, but for the
    last piece, where n % 8 == 0."""
    cdef uint64_t a = sum.a
    cdef uint64_t b = sum.b
    cdef uint64_t c = sum.c
    cdef uint64_t d = sum.d
    cdef size_t i = 0
    while i + 32 <= n:
        a = (a ^ load_u64(p + i)) * <uint64_t> SUM_PRIME
        b = (b ^ load_u64(p + i + 8)) * <uint64_t> SUM_PRIME
        c = (c ^ load_u64(p + i + 16)) * <uint64_t> SUM_PRIME
        d = (d ^ load_u64(p + i + 24)) * <uint64_t> SUM_PRIME
        # A multiplication carries upwards only; the rotation brings high bits down again.
        a = (a << 31) | (a >> 33)
        b = (b << 31) | (b >> 33)
        c = (c << 31) | (c >> 33)
        d = (d << 31) | (d >> 33)
        i += 32
    while i + 8 <= n:
        a = (a ^ load_u64(p + i)) * <uint64_t> SUM_PRIME
        a = (a << 31) | (a >> 33)
        i += 8
    sum.a = a
    sum.b = b
    sum.c = c
    sum.d = d


cdef uint64_t sum_end(const Sum *sum, size_t n) noexcept nogil:
    """The checksum of all n bytes."""
    cdef uint64_t a = (sum.a ^ sum.b) * <uint64_t> SUM_PRIME
    a = (a ^ (a >> 29) ^ sum.c) * <uint64_t> SUM_PRIME
    a = (a ^ (a >> 29) ^ sum.d ^ n) * <uint64_t> SUM_PRIME
    return a ^ (a >> 32)


cdef inline bint is_range(uint32_t first, uint32_t n, uint32_t count) noexcept nogil:
    return <uint64_t> first + n <= count


cdef inline int flawed(Flaw *flaw, int section, uint32_t record, const char *what) noexcept nogil:
    flaw.section = section
    flaw.record = record
    flaw.what = what
    return -1


cdef inline bint is_table(uint32_t first, uint32_t mask, uint32_t count) noexcept nogil:
    """Whether mask + 1 slots, a power of two, lie inside the section."""
    return mask != NONE and mask & (mask + 1) == 0 and <uint64_t> first + mask + 1 <= count


cdef int verify_hosts(Snapshot s, uint32_t first, uint32_t mask, uint32_t values, Flaw *flaw) noexcept nogil:
    """A host table whose values index a section with that many records. Slots that it has, or -1."""
    cdef uint32_t used = 0
    cdef uint32_t i
    cdef const HostSlot *slot
    if not is_table(first, mask, s.counts[SEC_HOSTS]):
        return flawed(flaw, SEC_HOSTS, first, b"host table outside its section")
    for i in range(mask + 1):
        slot = s.hosts + first + i
        if slot.value == NONE:
            continue
        used += 1
        if slot.value >= values:
            return flawed(flaw, SEC_HOSTS, first + i, b"value")
        if not is_range(slot.host.off, slot.host.n, s.counts[SEC_STRINGS]):
            return flawed(flaw, SEC_HOSTS, first + i, b"host")
    if used > (mask + 1) // 2:
        return flawed(flaw, SEC_HOSTS, first, b"host table more than half full")
    return <int> min(mask, <uint32_t> RECORDS_PIECE) + 1


cdef int verify_paths(Snapshot s, const VhostRec *vhost, Flaw *flaw) noexcept nogil:
    cdef uint32_t used = 0
    cdef uint32_t i
    cdef uint32_t at
    cdef const PathSlot *slot
    if not is_table(vhost.paths, vhost.paths_mask, s.counts[SEC_PATHS]):
        return flawed(flaw, SEC_PATHS, vhost.paths, b"path table outside its section")
    for i in range(vhost.paths_mask + 1):
        at = vhost.paths + i
        slot = s.paths + at
        if slot.rows == NONE:
            continue
        used += 1
        if not is_range(slot.path.off, slot.path.n, s.counts[SEC_STRINGS]):
            return flawed(flaw, SEC_PATHS, at, b"path")
        if <uint64_t> slot.rows + slot.exact_n + slot.prefix_n > s.counts[SEC_ROWS]:
            return flawed(flaw, SEC_PATHS, at, b"rows")
        if slot.exact_rule != NONE and (slot.exact_n == 0 or slot.exact_rule >= s.rules_n):
            return flawed(flaw, SEC_PATHS, at, b"exact_rule")
        if slot.prefix_rule != NONE and (slot.prefix_n == 0 or slot.prefix_rule >= s.rules_n):
            return flawed(flaw, SEC_PATHS, at, b"prefix_rule")
    if used > (vhost.paths_mask + 1) // 2:
        return flawed(flaw, SEC_PATHS, vhost.paths, b"path table more than half full")
    return <int> min(vhost.paths_mask, <uint32_t> RECORDS_PIECE) + 1


cdef bint are_rates(Snapshot s, uint32_t first, uint32_t n) noexcept nogil:
    """Whether these words are indexes of rates, and few enough for one request."""
    cdef uint32_t i
    if n > MAX_RATES or not is_range(first, n, s.counts[SEC_WORDS]):
        return False
    for i in range(first, first + n):
        if s.words[i] >= s.counts[SEC_RATES]:
            return False
    return True


# Each of these checks one record, with what it leads to, and answers how many records that were, or -1.

cdef int verify_port(Snapshot s, uint32_t i, Flaw *flaw) noexcept nogil:
    cdef const PortRec *port = s.ports + i
    if not is_range(port.address.off, port.address.n, s.counts[SEC_STRINGS]):
        return flawed(flaw, SEC_PORTS, i, b"address")
    if not is_range(port.listeners, port.listeners_n, s.listeners_n):
        return flawed(flaw, SEC_PORTS, i, b"listeners")
    if port.proxy_protocol > 1:
        return flawed(flaw, SEC_PORTS, i, b"proxy_protocol")
    return verify_hosts(s, port.hosts, port.hosts_mask, s.listeners_n, flaw)


cdef int verify_listener(Snapshot s, uint32_t i, Flaw *flaw) noexcept nogil:
    cdef const ListenerRec *listener = s.listeners + i
    if not is_range(listener.name.off, listener.name.n, s.counts[SEC_STRINGS]):
        return flawed(flaw, SEC_LISTENERS, i, b"name")
    if not is_range(listener.hostname.off, listener.hostname.n, s.counts[SEC_STRINGS]):
        return flawed(flaw, SEC_LISTENERS, i, b"hostname")
    if listener.port >= s.ports_n:
        return flawed(flaw, SEC_LISTENERS, i, b"port")
    if listener.port_number > 65535:
        return flawed(flaw, SEC_LISTENERS, i, b"port_number")
    if listener.protocol > 4:
        return flawed(flaw, SEC_LISTENERS, i, b"protocol")
    if listener.limits >= s.counts[SEC_LIMITS]:
        return flawed(flaw, SEC_LISTENERS, i, b"limits")
    if not are_rates(s, listener.rates, listener.rates_n):
        return flawed(flaw, SEC_LISTENERS, i, b"rates")
    return verify_hosts(s, listener.hosts, listener.hosts_mask, s.counts[SEC_VHOSTS], flaw)


cdef int verify_vhost(Snapshot s, uint32_t i, Flaw *flaw) noexcept nogil:
    cdef uint32_t j
    cdef const VhostRec *vhost = s.vhosts + i
    if not is_range(vhost.host.off, vhost.host.n, s.counts[SEC_STRINGS]):
        return flawed(flaw, SEC_VHOSTS, i, b"host")
    if vhost.deepest > MAX_DEPTH:
        return flawed(flaw, SEC_VHOSTS, i, b"deepest")
    if not is_range(vhost.regex_rows, vhost.regex_rows_n, s.counts[SEC_ROWS]):
        return flawed(flaw, SEC_VHOSTS, i, b"regex_rows")
    for j in range(vhost.regex_rows, vhost.regex_rows + vhost.regex_rows_n):
        if s.rows[j].regex == NONE:
            return flawed(flaw, SEC_ROWS, j, b"regex")
    return verify_paths(s, vhost, flaw)


cdef int verify_row(Snapshot s, uint32_t i, Flaw *flaw) noexcept nogil:
    cdef const Row *row = s.rows + i
    if row.rule >= s.rules_n:
        return flawed(flaw, SEC_ROWS, i, b"rule")
    if row.method > 9 and row.method != NONE:
        return flawed(flaw, SEC_ROWS, i, b"method")
    if not is_range(row.method_text.off, row.method_text.n, s.counts[SEC_STRINGS]):
        return flawed(flaw, SEC_ROWS, i, b"method_text")
    if row.regex != NONE and row.regex >= s.counts[SEC_REGEXES]:
        return flawed(flaw, SEC_ROWS, i, b"regex")
    if <uint64_t> row.matches + row.headers_n + row.queries_n > s.counts[SEC_MATCHES]:
        return flawed(flaw, SEC_ROWS, i, b"matches")
    return 1


cdef int verify_match(Snapshot s, uint32_t i, Flaw *flaw) noexcept nogil:
    cdef const FieldMatch *match = s.matches + i
    if not is_range(match.name.off, match.name.n, s.counts[SEC_STRINGS]):
        return flawed(flaw, SEC_MATCHES, i, b"name")
    if not is_range(match.value.off, match.value.n, s.counts[SEC_STRINGS]):
        return flawed(flaw, SEC_MATCHES, i, b"value")
    if match.regex != NONE and match.regex >= s.counts[SEC_REGEXES]:
        return flawed(flaw, SEC_MATCHES, i, b"regex")
    return 1


cdef int verify_pattern(Snapshot s, uint32_t i, Flaw *flaw) noexcept nogil:
    if not is_range(s.patterns[i].off, s.patterns[i].n, s.counts[SEC_STRINGS]):
        return flawed(flaw, SEC_REGEXES, i, b"pattern")
    return 1


cdef int verify_route(Snapshot s, uint32_t i, Flaw *flaw) noexcept nogil:
    if not is_range(s.routes[i].name.off, s.routes[i].name.n, s.counts[SEC_STRINGS]):
        return flawed(flaw, SEC_ROUTES, i, b"name")
    if s.routes[i].kind > 3:
        return flawed(flaw, SEC_ROUTES, i, b"kind")
    return 1


cdef int verify_backend(Snapshot s, uint32_t i, Flaw *flaw) noexcept nogil:
    cdef const BackendRec *backend = s.backends + i
    if backend.cluster != NONE and backend.cluster >= s.clusters_n:
        return flawed(flaw, SEC_BACKENDS, i, b"cluster")
    if not is_range(backend.filters, backend.filters_n, s.counts[SEC_FILTERS]):
        return flawed(flaw, SEC_BACKENDS, i, b"filters")
    return 1


cdef int verify_retry(Snapshot s, uint32_t i, Flaw *flaw) noexcept nogil:
    if not is_range(s.retries[i].codes, s.retries[i].codes_n, s.counts[SEC_WORDS]):
        return flawed(flaw, SEC_RETRIES, i, b"codes")
    return 1


cdef int verify_rule(Snapshot s, uint32_t i, Flaw *flaw) noexcept nogil:
    cdef uint32_t j
    cdef uint64_t weight = 0
    cdef const RuleRec *rule = s.rules + i
    if rule.route >= s.routes_n:
        return flawed(flaw, SEC_RULES, i, b"route")
    if not is_range(rule.filters, rule.filters_n, s.counts[SEC_FILTERS]):
        return flawed(flaw, SEC_RULES, i, b"filters")
    if not is_range(rule.backends, rule.backends_n, s.counts[SEC_BACKENDS]):
        return flawed(flaw, SEC_RULES, i, b"backends")
    if rule.retry != NONE and rule.retry >= s.counts[SEC_RETRIES]:
        return flawed(flaw, SEC_RULES, i, b"retry")
    if not is_range(rule.mirrors, rule.mirrors_n, s.counts[SEC_MIRRORS]):
        return flawed(flaw, SEC_RULES, i, b"mirrors")
    if rule.cors != NONE and rule.cors >= s.counts[SEC_CORS]:
        return flawed(flaw, SEC_RULES, i, b"cors")
    if rule.session != NONE and rule.session >= s.counts[SEC_SESSIONS]:
        return flawed(flaw, SEC_RULES, i, b"session")
    if not are_rates(s, rule.rates, rule.rates_n):
        return flawed(flaw, SEC_RULES, i, b"rates")
    # A pick draws a number below the sum and walks the backends: a wrong sum would walk past the last one.
    for j in range(rule.backends, rule.backends + rule.backends_n):
        weight += s.backends[j].weight
    if weight != rule.weight:
        return flawed(flaw, SEC_RULES, i, b"weight")
    return 1


cdef bint is_redirect_status(uint32_t status) noexcept nogil:
    return status == 301 or status == 302 or status == 303 or status == 307 or status == 308


cdef int verify_filter(Snapshot s, uint32_t i, Flaw *flaw) noexcept nogil:
    cdef uint32_t strings = s.counts[SEC_STRINGS]
    cdef const FilterRec *filter = s.filters + i
    if filter.kind < FILTER_REQUEST_HEADERS or filter.kind > FILTER_REWRITE:
        return flawed(flaw, SEC_FILTERS, i, b"kind")
    if not is_range(filter.edits, filter.edits_n, s.counts[SEC_EDITS]):
        return flawed(flaw, SEC_FILTERS, i, b"edits")
    if filter.kind == FILTER_REDIRECT and not is_redirect_status(filter.status):
        return flawed(flaw, SEC_FILTERS, i, b"status")
    if not is_range(filter.scheme.off, filter.scheme.n, strings):
        return flawed(flaw, SEC_FILTERS, i, b"scheme")
    if not is_range(filter.host.off, filter.host.n, strings):
        return flawed(flaw, SEC_FILTERS, i, b"host")
    if filter.port > 65535:
        return flawed(flaw, SEC_FILTERS, i, b"port")
    if filter.path_kind > PATH_PREFIX:
        return flawed(flaw, SEC_FILTERS, i, b"path_kind")
    if not is_range(filter.path.off, filter.path.n, strings):
        return flawed(flaw, SEC_FILTERS, i, b"path")
    return 1


cdef int verify_edit(Snapshot s, uint32_t i, Flaw *flaw) noexcept nogil:
    cdef const EditRec *edit = s.edits + i
    if edit.kind > EDIT_REMOVE:
        return flawed(flaw, SEC_EDITS, i, b"kind")
    if edit.name.n == 0 or edit.name.n > MAX_NAME or not is_range(edit.name.off, edit.name.n, s.counts[SEC_STRINGS]):
        return flawed(flaw, SEC_EDITS, i, b"name")
    if not is_range(edit.value.off, edit.value.n, s.counts[SEC_STRINGS]):
        return flawed(flaw, SEC_EDITS, i, b"value")
    return 1


cdef int verify_cluster(Snapshot s, uint32_t i, Flaw *flaw) noexcept nogil:
    cdef const ClusterRec *cluster = s.clusters + i
    if not is_range(cluster.name.off, cluster.name.n, s.counts[SEC_STRINGS]):
        return flawed(flaw, SEC_CLUSTERS, i, b"name")
    if not is_range(cluster.key_name.off, cluster.key_name.n, s.counts[SEC_STRINGS]):
        return flawed(flaw, SEC_CLUSTERS, i, b"key_name")
    if cluster.policy > 3:
        return flawed(flaw, SEC_CLUSTERS, i, b"policy")
    if cluster.key_kind > 4:
        return flawed(flaw, SEC_CLUSTERS, i, b"key_kind")
    if cluster.protocol > 2:
        return flawed(flaw, SEC_CLUSTERS, i, b"protocol")
    if cluster.outlier_percent > 100:
        return flawed(flaw, SEC_CLUSTERS, i, b"outlier_percent")
    # No section of TLS records in this version of the layout: a cluster that asks for one must not get clear text.
    if cluster.tls != NONE and cluster.tls > 1:
        return flawed(flaw, SEC_CLUSTERS, i, b"tls")
    if not are_rates(s, cluster.rates, cluster.rates_n):
        return flawed(flaw, SEC_CLUSTERS, i, b"rates")
    return 1


cdef int verify_rate(Snapshot s, uint32_t i, Flaw *flaw) noexcept nogil:
    cdef const RateRec *rate = s.rates + i
    cdef uint32_t strings = s.counts[SEC_STRINGS]
    cdef uint32_t j
    if not is_range(rate.name.off, rate.name.n, strings) or rate.name.n > MAX_RATE_NAME:
        return flawed(flaw, SEC_RATES, i, b"name")
    if rate.algorithm > IN_FLIGHT:
        return flawed(flaw, SEC_RATES, i, b"algorithm")
    if rate.mode > MODE_LOCAL:
        return flawed(flaw, SEC_RATES, i, b"mode")
    if rate.on_failure > FAIL_LOCAL:
        return flawed(flaw, SEC_RATES, i, b"on_failure")
    if rate.style > STYLE_OFF:
        return flawed(flaw, SEC_RATES, i, b"style")
    if rate.cost == 0:
        return flawed(flaw, SEC_RATES, i, b"cost")
    if not is_range(rate.cost_header.off, rate.cost_header.n, strings):
        return flawed(flaw, SEC_RATES, i, b"cost_header")
    if not is_range(rate.parts, rate.parts_n, s.counts[SEC_KEY_PARTS]):
        return flawed(flaw, SEC_RATES, i, b"parts")
    if rate.terms >= s.counts[SEC_TERMS]:
        return flawed(flaw, SEC_RATES, i, b"terms")
    if not is_range(rate.overrides, rate.overrides_n, s.counts[SEC_OVERRIDES]):
        return flawed(flaw, SEC_RATES, i, b"overrides")
    if not is_range(rate.tag.off, rate.tag.n, strings):
        return flawed(flaw, SEC_RATES, i, b"tag")
    for j in range(rate.overrides, rate.overrides + rate.overrides_n):
        if s.overrides[j].terms != NONE and s.overrides[j].terms >= s.counts[SEC_TERMS]:
            return flawed(flaw, SEC_OVERRIDES, j, b"terms")
    return 1 + <int> min(rate.overrides_n, <uint32_t> RECORDS_PIECE)


cdef int verify_terms(Snapshot s, uint32_t i, Flaw *flaw) noexcept nogil:
    if s.terms[i].requests == 0 or s.terms[i].capacity < s.terms[i].requests:
        return flawed(flaw, SEC_TERMS, i, b"capacity")
    return 1


cdef int verify_key_part(Snapshot s, uint32_t i, Flaw *flaw) noexcept nogil:
    if not is_range(s.key_parts[i].name.off, s.key_parts[i].name.n, s.counts[SEC_STRINGS]):
        return flawed(flaw, SEC_KEY_PARTS, i, b"name")
    if s.key_parts[i].kind == 0 or s.key_parts[i].kind > 10:
        return flawed(flaw, SEC_KEY_PARTS, i, b"kind")
    return 1


cdef int verify_mirror(Snapshot s, uint32_t i, Flaw *flaw) noexcept nogil:
    if s.mirrors[i].cluster >= s.clusters_n:
        return flawed(flaw, SEC_MIRRORS, i, b"cluster")
    return 1


cdef int verify_cors(Snapshot s, uint32_t i, Flaw *flaw) noexcept nogil:
    cdef uint32_t strings = s.counts[SEC_STRINGS]
    cdef const CorsRec *cors = s.cors + i
    if not is_range(cors.origins, cors.origins_n, s.counts[SEC_ORIGINS]):
        return flawed(flaw, SEC_CORS, i, b"origins")
    if not is_range(cors.methods.off, cors.methods.n, strings):
        return flawed(flaw, SEC_CORS, i, b"methods")
    if not is_range(cors.headers.off, cors.headers.n, strings):
        return flawed(flaw, SEC_CORS, i, b"headers")
    if not is_range(cors.expose.off, cors.expose.n, strings):
        return flawed(flaw, SEC_CORS, i, b"expose")
    if not is_range(cors.max_age.off, cors.max_age.n, strings):
        return flawed(flaw, SEC_CORS, i, b"max_age")
    return 1


cdef int verify_origin(Snapshot s, uint32_t i, Flaw *flaw) noexcept nogil:
    if not is_range(s.origins[i].off, s.origins[i].n, s.counts[SEC_STRINGS]):
        return flawed(flaw, SEC_ORIGINS, i, b"origin")
    return 1


cdef int verify_session(Snapshot s, uint32_t i, Flaw *flaw) noexcept nogil:
    cdef const SessionRec *session = s.sessions + i
    if session.kind != 1 and session.kind != 2:
        return flawed(flaw, SEC_SESSIONS, i, b"kind")
    # Both lengths have a place of their own where the token is written.
    if session.name.n == 0 or session.name.n > 128 or not is_range(session.name.off, session.name.n, s.counts[SEC_STRINGS]):
        return flawed(flaw, SEC_SESSIONS, i, b"name")
    if session.tail.n > 64 or not is_range(session.tail.off, session.tail.n, s.counts[SEC_STRINGS]):
        return flawed(flaw, SEC_SESSIONS, i, b"tail")
    return 1


# The sections whose records are checked, in this order; hosts and paths are, with the tables that they are slots of.
cdef Check[CHECKS] checks = [
    Check(SEC_PORTS, verify_port), Check(SEC_LISTENERS, verify_listener), Check(SEC_VHOSTS, verify_vhost),
    Check(SEC_ROWS, verify_row), Check(SEC_MATCHES, verify_match), Check(SEC_REGEXES, verify_pattern),
    Check(SEC_ROUTES, verify_route), Check(SEC_BACKENDS, verify_backend), Check(SEC_RULES, verify_rule),
    Check(SEC_RETRIES, verify_retry),
    Check(SEC_FILTERS, verify_filter), Check(SEC_EDITS, verify_edit), Check(SEC_CLUSTERS, verify_cluster),
    Check(SEC_MIRRORS, verify_mirror), Check(SEC_CORS, verify_cors), Check(SEC_ORIGINS, verify_origin),
    Check(SEC_RATES, verify_rate), Check(SEC_TERMS, verify_terms), Check(SEC_KEY_PARTS, verify_key_part),
    Check(SEC_SESSIONS, verify_session),
]


cdef int verify_piece(Snapshot s, Flaw *flaw) noexcept nogil:
    """Some thousand records more. 1 when there are no more, -1 at a flaw."""
    cdef int cost
    cdef int left = RECORDS_PIECE
    while s.checked < CHECKS:
        if s.checked_records >= s.counts[checks[s.checked].section]:
            s.checked += 1
            s.checked_records = 0
            continue
        if left <= 0:
            return 0
        cost = checks[s.checked].verify(s, s.checked_records, flaw)
        if cost < 0:
            return -1
        left -= cost
        s.checked_records += 1
    return 1


# Matchers of the snapshot loaded last, by pattern: a reload compiles only the patterns that are new.
cdef dict known_matchers = {}


def compile_regex(pattern):
    """The RE2 pattern for route matching (bytes as Latin-1, whole text). Raises ValueError with RE2's own words."""
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    options.never_capture = True
    options.max_mem = 1 << 20      # of its automaton: a client must not be able to grow it without end
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else b""
        raise ValueError(reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)) from None


@cython.final
cdef class Snapshot:
    def __init__(self):
        raise TypeError("snapshot.load makes a Snapshot")

    @staticmethod
    cdef Snapshot load(object buffer):
        cdef Snapshot s = Snapshot.open(buffer)
        while not s.verify_some():
            pass
        return s

    @staticmethod
    cdef Snapshot open(object buffer):
        cdef Snapshot s = Snapshot.__new__(Snapshot)
        cdef Py_buffer *view
        s.owner = PyMemoryView_FromObject(buffer)
        view = PyMemoryView_GET_BUFFER(s.owner)
        if not s.owner.c_contiguous:
            raise SnapshotError("blob: not contiguous")
        if <size_t> view.buf & 7:
            # Records are read in place as u32 words; a copy is always aligned.
            s.owner = PyMemoryView_FromObject(bytes(buffer))
            view = PyMemoryView_GET_BUFFER(s.owner)
        s.base = <const uint8_t *> view.buf
        s.size = <size_t> view.len
        s.open_sections()
        sum_start(&s.sum)
        s.summed = SEALED_FROM
        s.matchers = {}
        s.regexes = []
        return s

    cdef bint verify_some(self) except -1:
        cdef Flaw flaw
        cdef int found
        if self.is_good:
            return True
        if self.summed < self.size:
            self.add_to_sum()
            return False
        found = verify_piece(self, &flaw)
        if found < 0:
            raise SnapshotError(f"{SECTION_NAMES[flaw.section]}[{flaw.record}]: {flaw.what.decode()}")
        if found:
            self.is_good = self.compile_regexes()
        return self.is_good

    cdef int add_to_sum(self) except -1:
        cdef size_t n = min(self.size - self.summed, <size_t> SUM_PIECE)
        cdef BlobHeader header
        sum_add(&self.sum, self.base + self.summed, n)
        self.summed += n
        if self.summed == self.size:
            memcpy(&header, self.base, sizeof(BlobHeader))
            if sum_end(&self.sum, self.size - SEALED_FROM) != id64(header.check_lo, header.check_hi):
                # who asks again hears the same
                sum_start(&self.sum)
                self.summed = SEALED_FROM
                raise SnapshotError("header: checksum")
        return 0

    cdef int open_sections(self) except -1:
        """Checks header and section table, and sets the pointers."""
        cdef BlobHeader header
        cdef SectionRec section
        cdef const uint8_t *starts[SECTIONS]
        cdef size_t after = HEADER_SIZE + SECTIONS * sizeof(SectionRec)
        cdef int i
        cdef uint64_t end
        if self.size < after or self.size & 7:
            raise SnapshotError(f"header: {self.size} bytes are no snapshot")
        memcpy(&header, self.base, sizeof(BlobHeader))
        if header.magic != MAGIC:
            raise SnapshotError("header: not a snapshot")
        if header.version != VERSION or header.sections != SECTIONS:
            raise SnapshotError(f"header: layout {header.version}, not {VERSION}")
        if header.size != self.size:
            raise SnapshotError(f"header: {self.size} bytes instead of {header.size}")
        self.revision = id64(header.revision_lo, header.revision_hi)
        for i in range(SECTIONS):
            memcpy(&section, self.base + HEADER_SIZE + i * sizeof(SectionRec), sizeof(SectionRec))
            end = <uint64_t> section.offset + <uint64_t> section.count * RECORD_SIZES[i]
            if section.offset < after or section.offset & 3 or end > self.size:
                raise SnapshotError(f"{SECTION_NAMES[i]}: outside the blob")
            starts[i] = self.base + section.offset
            self.counts[i] = section.count
        self.ports = <const PortRec *> starts[SEC_PORTS]
        self.listeners = <const ListenerRec *> starts[SEC_LISTENERS]
        self.limits = <const LimitsRec *> starts[SEC_LIMITS]
        self.hosts = <const HostSlot *> starts[SEC_HOSTS]
        self.vhosts = <const VhostRec *> starts[SEC_VHOSTS]
        self.paths = <const PathSlot *> starts[SEC_PATHS]
        self.rows = <const Row *> starts[SEC_ROWS]
        self.matches = <const FieldMatch *> starts[SEC_MATCHES]
        self.routes = <const RouteRec *> starts[SEC_ROUTES]
        self.rules = <const RuleRec *> starts[SEC_RULES]
        self.retries = <const RetryRec *> starts[SEC_RETRIES]
        self.backends = <const BackendRec *> starts[SEC_BACKENDS]
        self.filters = <const FilterRec *> starts[SEC_FILTERS]
        self.edits = <const EditRec *> starts[SEC_EDITS]
        self.clusters = <const ClusterRec *> starts[SEC_CLUSTERS]
        self.mirrors = <const MirrorRec *> starts[SEC_MIRRORS]
        self.cors = <const CorsRec *> starts[SEC_CORS]
        self.origins = <const Str *> starts[SEC_ORIGINS]
        self.sessions = <const SessionRec *> starts[SEC_SESSIONS]
        self.rates = <const RateRec *> starts[SEC_RATES]
        self.terms = <const TermsRec *> starts[SEC_TERMS]
        self.overrides = <const OverrideRec *> starts[SEC_OVERRIDES]
        self.key_parts = <const KeyPartRec *> starts[SEC_KEY_PARTS]
        self.words = <const uint32_t *> starts[SEC_WORDS]
        self.patterns = <const Str *> starts[SEC_REGEXES]
        self.strings = starts[SEC_STRINGS]
        self.ports_n = self.counts[SEC_PORTS]
        self.listeners_n = self.counts[SEC_LISTENERS]
        self.routes_n = self.counts[SEC_ROUTES]
        self.rules_n = self.counts[SEC_RULES]
        self.clusters_n = self.counts[SEC_CLUSTERS]
        return 0

    cdef bint compile_regexes(self) except -1:
        """Some patterns more; True when there are no more."""
        global known_matchers
        cdef uint32_t i
        cdef int left = REGEXES_PIECE
        for i in range(<uint32_t> len(self.regexes), self.counts[SEC_REGEXES]):
            pattern = self.bytes_of(self.patterns[i])
            matcher = known_matchers.get(pattern)
            if matcher is None:
                if left == 0:
                    return False
                left -= 1
                try:
                    # The public fullmatch() costs four times as much as the bound method below it: it makes a generator and a
                    # match object, and only "does it match" is asked here.
                    matcher = compile_regex(pattern)._regexp.Match
                except ValueError as error:
                    raise SnapshotError(f"regexes[{i}]: {error}") from None
            self.matchers[pattern] = matcher
            self.regexes.append(matcher)
        known_matchers = self.matchers
        self.matchers = None
        return True

    cdef bytes bytes_of(self, Str s):
        cdef Span span = self.borrow(s)
        return span.p[:span.n]

    cdef str text_of(self, Str s):
        return self.bytes_of(s).decode("utf-8", "replace")

    @property
    def counts_by_section(self):
        """Records of each section; bytes for the strings."""
        return {SECTION_NAMES[i]: self.counts[i] for i in range(SECTIONS)}

    def describe(self):
        """What an operator wants to see of it, ready for JSON."""
        cdef uint32_t i
        cdef const ListenerRec *listener
        cdef const ClusterRec *cluster
        listeners = []
        for i in range(self.listeners_n):
            listener = self.listeners + i
            listeners.append({
                "name": self.text_of(listener.name),
                "address": self.text_of(self.ports[listener.port].address),
                "hostname": self.text_of(listener.hostname),
                "protocol": ("HTTP", "HTTPS", "TLS", "TCP", "TLS, ended")[listener.protocol],
                "hosts": self.describe_hosts(listener.hosts, listener.hosts_mask),
            })
        clusters = []
        for i in range(self.clusters_n):
            cluster = self.clusters + i
            clusters.append({"name": self.text_of(cluster.name), "id": f"{id64(cluster.id_lo, cluster.id_hi):016x}"})
        return {
            "revision": self.revision,
            "bytes": self.size,
            "counts": self.counts_by_section,
            "listeners": listeners,
            "routes": [self.text_of(self.routes[i].name) for i in range(self.routes_n)],
            "clusters": clusters,
        }

    cdef list describe_hosts(self, uint32_t first, uint32_t mask):
        cdef uint32_t i
        cdef list hosts = []
        for i in range(first, first + mask + 1):
            if self.hosts[i].value != NONE:
                host = self.text_of(self.hosts[i].host)
                hosts.append(f"*{host}" if host[:1] in ("", ".") else host)
        return sorted(hosts)

    def __repr__(self):
        return f"Snapshot(revision={self.revision}, rules={self.rules_n}, bytes={self.size})"


def load(buffer):
    """Verifies a blob and opens it in place; the buffer is kept and must not change. Raises SnapshotError."""
    return Snapshot.load(buffer)


def open_snapshot(buffer):
    """Opens a blob that verify_some is still to be asked about."""
    return Snapshot.open(buffer)


def verify_some(Snapshot snapshot not None):
    """Checks one more piece of it. True when all of it is checked, and it may be used; raises SnapshotError."""
    return snapshot.verify_some()


cdef void seal_blob(uint8_t *base, size_t size) noexcept nogil:
    cdef uint64_t check
    cdef Sum sum
    sum_start(&sum)
    sum_add(&sum, base + SEALED_FROM, size - SEALED_FROM)
    check = sum_end(&sum, size - SEALED_FROM)
    memcpy(base + 16, &check, 8)


def seal(bytearray blob not None):
    """Writes the checksum of a blob that somebody changed into its header."""
    cdef size_t size = <size_t> len(blob)
    if size < HEADER_SIZE or size & 7:
        raise ValueError(f"{size} bytes are no snapshot")
    seal_blob(<uint8_t *> PyByteArray_AS_STRING(blob), size)


def pack_header(size_t size, uint64_t revision):
    """The header of a blob of that size, without its checksum."""
    cdef BlobHeader header
    if size >= NONE:
        raise ValueError("configuration too large for one snapshot")
    header.magic = MAGIC
    header.version = VERSION
    header.size = <uint32_t> size
    header.sections = SECTIONS
    header.check_lo = 0
    header.check_hi = 0
    header.revision_lo = <uint32_t> (revision & NONE)
    header.revision_hi = <uint32_t> (revision >> 32)
    return (<const uint8_t *> &header)[:sizeof(BlobHeader)]
