# snapshot.pxd - level 4: the compiled configuration, read in place from a blob that may be mapped read-only.
#
# Owns: a reference to the buffer that holds the blob, and the compiled regular expressions. Called by: router, chain, pool, engine.
# Invariants: every record is made of u32 words only; every offset, count and reference was checked once by Snapshot.load, so no reader
# checks again; nothing is written after load. Names of records here are the names that control/compile packs (snapshot.LAYOUT).
#
#   | BlobHeader | section table (offset, count) x SECTIONS | ports | listeners | limits | hosts | vhosts | ... | strings |
#
#   port --hosts--> listener --hosts--> vhost --paths--> rows --> rule --> route, filters, backends --> cluster
#                                         `--regex_rows--> rows

from gateway._core.types cimport Span, uint8_t, uint32_t, uint64_t

cdef enum:
    NONE = 0xffffffff      # "no such record" in any index field
    MAX_DEPTH = 512        # elements that a PathPrefix may have; bounds the router's stack

cdef enum:                 # order of the section table; names in snapshot.LAYOUT
    SEC_PORTS = 0
    SEC_LISTENERS
    SEC_LIMITS
    SEC_HOSTS
    SEC_VHOSTS
    SEC_PATHS
    SEC_ROWS
    SEC_MATCHES
    SEC_ROUTES
    SEC_RULES
    SEC_RETRIES
    SEC_BACKENDS
    SEC_FILTERS
    SEC_EDITS
    SEC_CLUSTERS
    SEC_MIRRORS
    SEC_CORS
    SEC_ORIGINS            # Str records: patterns of origins
    SEC_SESSIONS
    SEC_RATES
    SEC_TERMS
    SEC_OVERRIDES
    SEC_KEY_PARTS
    SEC_WORDS              # plain u32 numbers
    SEC_REGEXES            # Str records: the patterns
    SEC_STRINGS            # count is in bytes
    SECTIONS

cdef struct BlobHeader:    # 32 bytes at offset 0; a blob is in the byte order of its machine and never leaves it
    uint32_t magic
    uint32_t version       # of this layout
    uint32_t size          # bytes of the whole blob, a multiple of 8
    uint32_t sections
    uint32_t check_lo      # checksum of every byte from the revision on
    uint32_t check_hi
    uint32_t revision_lo
    uint32_t revision_hi

cdef struct SectionRec:
    uint32_t offset        # bytes from the start of the blob, a multiple of 4
    uint32_t count         # records

cdef struct Str:           # bytes in the string section
    uint32_t off
    uint32_t n

cdef struct PortRec:       # one bound address; several listeners may share it
    uint32_t id_lo         # 64-bit id of "address:port", low word
    uint32_t id_hi
    Str address            # as bound, "0.0.0.0:8080"
    uint32_t listeners     # first of its listeners
    uint32_t listeners_n
    uint32_t hosts         # first slot of its host table (host -> listener)
    uint32_t hosts_mask    # slots - 1; the table has hosts_mask + 1 slots, a power of two
    uint32_t proxy_protocol  # 0 off, 1 accept

cdef struct ListenerRec:
    uint32_t id_lo         # 64-bit id of the name
    uint32_t id_hi
    Str name
    Str hostname           # lower case; empty: any. "*.example.com" keeps its star
    uint32_t port          # index of its PortRec
    uint32_t port_number
    uint32_t protocol      # 0 HTTP, 1 HTTPS, 2 TLS that is passed through, 3 TCP, 4 TLS that is ended and carried on
    uint32_t trusted_hops
    uint32_t limits        # index of its LimitsRec
    uint32_t hosts         # first slot of its host table (host -> vhost)
    uint32_t hosts_mask
    uint32_t rates         # first word with the index of a RateRec, for every request that a route takes
    uint32_t rates_n

cdef struct LimitsRec:     # times in milliseconds, sizes in bytes; 0 = no limit where that makes sense
    uint32_t max_header_count
    uint32_t max_header_bytes
    uint32_t max_request_line
    uint32_t header_timeout
    uint32_t idle_timeout
    uint32_t body_timeout      # the longest silence inside a request's content
    uint32_t stream_idle_timeout  # the longest silence of a whole exchange
    uint32_t max_connections
    uint32_t max_body_lo       # u64, 0 = unlimited
    uint32_t max_body_hi
    uint32_t max_requests      # per connection, 0 = unlimited
    uint32_t max_age           # of a connection, 0 = unlimited

cdef struct HostSlot:      # open addressing with linear probing, at most half full, home slot = hash & mask
    uint32_t hash          # hash32 of the host read from its last byte to its first: one pass then gives every parent domain
    Str host               # "" is the catch-all; "*.x" is stored as ".x"
    uint32_t value         # listener or vhost index; NONE: free slot

cdef struct VhostRec:      # what one route hostname answers on one listener
    Str host               # as in its HostSlot
    uint32_t paths         # first slot of its path table
    uint32_t paths_mask
    uint32_t depths        # bit d: some PathPrefix has d elements; bit 31: 31 or more
    uint32_t deepest       # elements of the longest PathPrefix, at most MAX_DEPTH
    uint32_t longest       # bytes of the longest Exact path; 0: none
    uint32_t regex_rows    # first of the rows with a RegularExpression path, in precedence order
    uint32_t regex_rows_n

cdef struct PathSlot:      # open addressing as HostSlot; half a line of the cache
    uint32_t hash          # hash32 of the path
    Str path               # an Exact path as it is; a PathPrefix without its trailing slash, so that "/" is ""
    uint32_t rows          # first of its rows, in precedence order: those for Exact, then those for PathPrefix; NONE: free slot
    uint32_t exact_n
    uint32_t prefix_n
    uint32_t exact_rule    # of its first row for Exact, when that asks for nothing more, so that no row has to be read; else NONE
    uint32_t prefix_rule   # likewise for PathPrefix

cdef struct Row:           # one match of one rule
    uint32_t rule
    uint32_t method        # types.Method; NONE: any
    Str method_text        # for M_OTHER
    uint32_t regex         # of the path, for rows of regex_rows; else NONE
    uint32_t matches       # first FieldMatch: those of headers, then those of query parameters
    uint32_t headers_n
    uint32_t queries_n

cdef struct FieldMatch:
    Str name               # a header's in lower case
    Str value              # for an exact match
    uint32_t regex         # NONE: exact

cdef struct RouteRec:
    uint32_t id_lo
    uint32_t id_hi
    Str name
    uint32_t kind          # 0 HTTPRoute, 1 GRPCRoute, 2 TLSRoute, 3 TCPRoute

cdef struct RuleRec:       # 64 bytes: one line of the cache
    uint32_t route
    uint32_t number        # position in its route, from 0
    uint32_t filters       # first FilterRec
    uint32_t filters_n
    uint32_t backends      # first BackendRec
    uint32_t backends_n
    uint32_t weight        # sum of the backends' weights
    uint32_t request_timeout   # ms, 0 = none
    uint32_t backend_timeout   # ms, per attempt, 0 = none
    uint32_t retry         # index of its RetryRec; NONE: only what is safe by itself is tried again
    uint32_t mirrors       # first MirrorRec
    uint32_t mirrors_n
    uint32_t cors          # index of its CorsRec; NONE: it has no rules for other origins
    uint32_t rates         # as ListenerRec.rates: those of its route, then its own
    uint32_t rates_n
    uint32_t session       # index of its SessionRec; NONE: its requests go to any endpoint

cdef struct RetryRec:
    uint32_t attempts      # beyond the first; 0 = only what is safe by itself
    uint32_t codes         # first word of the statuses that are tried again, in the words section
    uint32_t codes_n
    uint32_t backoff       # ms

cdef struct BackendRec:
    uint32_t cluster       # NONE: does not resolve, answered 500 for its share of the weight
    uint32_t weight
    uint32_t filters       # filters of this backend alone
    uint32_t filters_n

cdef enum FilterKind:
    FILTER_REQUEST_HEADERS = 1
    FILTER_RESPONSE_HEADERS = 2
    FILTER_REDIRECT = 3
    FILTER_REWRITE = 4

cdef enum PathKind:
    PATH_KEEP = 0
    PATH_FULL = 1          # ReplaceFullPath
    PATH_PREFIX = 2        # ReplacePrefixMatch; the path is kept without its trailing slash, so that "/" is ""

cdef struct FilterRec:
    uint32_t kind          # FilterKind
    uint32_t edits         # first EditRec: those of set, then of add, then of remove
    uint32_t edits_n
    uint32_t status        # of a redirect
    Str scheme             # of a redirect; empty: the request's
    Str host               # of a redirect or rewrite; empty: the request's
    uint32_t port          # of a redirect; 0: by scheme and listener
    uint32_t path_kind     # PathKind
    Str path

cdef enum EditKind:
    EDIT_SET = 0
    EDIT_ADD = 1
    EDIT_REMOVE = 2

cdef struct EditRec:
    uint32_t kind          # EditKind
    Str name               # lower case
    Str value

cdef struct MirrorRec:
    uint32_t cluster
    uint32_t share         # requests of 2^32 that are copied; NONE: all

cdef enum CorsFlag:
    CORS_ANY_ORIGIN = 1
    CORS_ANY_METHOD = 2
    CORS_ANY_HEADER = 4
    CORS_CREDENTIALS = 8

cdef struct CorsRec:
    uint32_t origins       # first of its patterns: "https://a.test", "https://*.a.test", "http://*"; lower case, without a default port
    uint32_t origins_n
    uint32_t flags         # CorsFlag bits
    Str methods            # as it is answered: "GET, PUT"
    Str headers
    Str expose
    Str max_age            # decimal

cdef struct SessionRec:
    uint32_t kind          # of where its token stands, as ClusterRec.key_kind: 1 header, 2 cookie
    Str name               # of a header in lower case; at most 128 bytes
    Str tail               # of a cookie: its attributes, at most 64 bytes
    uint32_t lifetime      # s; 0: for ever

cdef struct ClusterRec:
    uint32_t id_lo
    uint32_t id_hi
    Str name
    uint32_t policy        # balance.Policy
    uint32_t key_kind      # ConsistentHash: 0 none, 1 header, 2 cookie, 3 query parameter, 4 client address
    Str key_name
    uint32_t protocol      # 0 HTTP1, 1 HTTP2, 2 auto
    uint32_t connect_timeout   # ms
    uint32_t idle_timeout      # ms
    uint32_t max_connections   # per endpoint and worker
    uint32_t max_pending
    uint32_t outlier_errors    # consecutive errors that eject; 0 = off
    uint32_t outlier_ejection  # ms, of the first ejection
    uint32_t outlier_percent   # most endpoints out at once
    uint32_t tls           # 1: TLS, whose context the worker gives (pool.Cluster.tls); 0 or NONE: clear text
    uint32_t rates         # as ListenerRec.rates
    uint32_t rates_n

cdef enum Algorithm:
    GCRA = 0
    FIXED = 1
    SLIDING = 2
    IN_FLIGHT = 3

cdef enum Mode:
    MODE_STRICT = 0
    MODE_LEASED = 1
    MODE_LOCAL = 2

cdef enum OnFailure:
    FAIL_OPEN = 0
    FAIL_CLOSED = 1
    FAIL_LOCAL = 2

cdef enum Style:           # of the fields that answers carry
    STYLE_IETF = 0
    STYLE_LEGACY = 1
    STYLE_X = 2
    STYLE_OFF = 3

cdef struct RateRec:       # a rate limit
    uint32_t id_lo         # 64-bit id of the name
    uint32_t id_hi
    Str name
    uint32_t algorithm     # Algorithm
    uint32_t mode          # Mode
    uint32_t on_failure    # OnFailure
    uint32_t shadow        # 1: refuses nobody
    uint32_t skips         # 1: a request that lacks a part of the key is not counted; 0: all such requests share one key
    uint32_t style         # Style
    uint32_t cost          # of one request, at least 1
    Str cost_header        # of the response, lower case; empty: none
    uint32_t timeout       # ms that a request waits for the store
    uint32_t parts         # first KeyPartRec
    uint32_t parts_n
    uint32_t terms         # index of its TermsRec
    uint32_t overrides     # first OverrideRec
    uint32_t overrides_n
    Str tag                # what its keys in the store have in common with those of other limits; empty: nothing

cdef struct TermsRec:      # what one key has
    uint32_t requests      # in each period; of IN_FLIGHT: at once
    uint32_t capacity      # at once
    uint32_t emission_lo   # ns that one request takes to come back (GCRA)
    uint32_t emission_hi
    uint32_t period_lo     # us; 0: the month of the calendar
    uint32_t period_hi
    uint32_t seconds       # of the period, at least 1; 0: a month, or no period at all

cdef struct OverrideRec:   # sorted by the low half of the key
    uint32_t lo_lo         # the key's hash, 128 bits
    uint32_t lo_hi
    uint32_t hi_lo
    uint32_t hi_hi
    uint32_t terms         # NONE: no limit

cdef struct KeyPartRec:
    uint32_t kind          # limit_key.Part
    Str name               # of a header (lower case), cookie or query parameter

cdef struct Sum:           # a checksum on its way
    uint64_t a
    uint64_t b
    uint64_t c
    uint64_t d

cdef enum:
    CHECKS = 20            # sections whose records are checked one by one

cdef class Snapshot:
    cdef object owner      # keeps the buffer alive
    cdef const uint8_t *base
    cdef size_t size
    cdef readonly uint64_t revision
    cdef readonly list regexes   # matchers by index, bound methods of compiled RE2 patterns; asked only where a row needs one
    cdef const PortRec *ports
    cdef const ListenerRec *listeners
    cdef const LimitsRec *limits
    cdef const HostSlot *hosts
    cdef const VhostRec *vhosts
    cdef const PathSlot *paths
    cdef const Row *rows
    cdef const FieldMatch *matches
    cdef const RouteRec *routes
    cdef const RuleRec *rules
    cdef const RetryRec *retries
    cdef const BackendRec *backends
    cdef const FilterRec *filters
    cdef const EditRec *edits
    cdef const ClusterRec *clusters
    cdef const MirrorRec *mirrors
    cdef const CorsRec *cors
    cdef const Str *origins
    cdef const SessionRec *sessions
    cdef const RateRec *rates
    cdef const TermsRec *terms
    cdef const OverrideRec *overrides
    cdef const KeyPartRec *key_parts
    cdef const uint32_t *words
    cdef const Str *patterns
    cdef const uint8_t *strings
    cdef uint32_t ports_n
    cdef uint32_t listeners_n
    cdef uint32_t routes_n
    cdef uint32_t rules_n
    cdef uint32_t clusters_n
    cdef uint32_t counts[SECTIONS]     # by Section

    # how far the check has come
    cdef Sum sum
    cdef size_t summed           # bytes of the blob
    cdef int checked             # sections, and of the next one
    cdef uint32_t checked_records
    cdef dict matchers           # of the patterns so far
    cdef readonly bint is_good   # to its end: it may be used

    # Verifies everything; raises SnapshotError (a ValueError) that says what is wrong.
    @staticmethod
    cdef Snapshot load(object buffer)
    # The same in pieces, each well under a tenth of a millisecond, so that a worker may serve between them.
    @staticmethod
    cdef Snapshot open(object buffer)
    cdef bint verify_some(self) except -1
    cdef int add_to_sum(self) except -1
    cdef inline Span borrow(self, Str s) noexcept nogil:
        cdef Span span
        span.p = self.strings + s.off
        span.n = s.n
        return span
    # Whether the value is among n words from the first on.
    cdef inline bint has_word(self, uint32_t first, uint32_t n, uint32_t value) noexcept nogil:
        cdef uint32_t i
        for i in range(first, first + n):
            if self.words[i] == value:
                return True
        return False
    cdef int open_sections(self) except -1
    cdef bint compile_regexes(self) except -1
    cdef bytes bytes_of(self, Str s)
    cdef str text_of(self, Str s)
    cdef list describe_hosts(self, uint32_t first, uint32_t mask)

cdef inline uint64_t id64(uint32_t lo, uint32_t hi) noexcept nogil:
    return (<uint64_t> hi << 32) | lo

# The one hash of host names and paths; FNV-1a finished with an avalanche step.
cdef enum:
    HASH_BASIS = 2166136261
    HASH_PRIME = 16777619

cdef inline uint32_t hash32_finish(uint32_t h) noexcept nogil:
    h ^= h >> 16
    h *= <uint32_t> 0x85ebca6b
    h ^= h >> 13
    return h

cdef uint32_t hash32_of(const uint8_t *p, size_t n) noexcept nogil
cdef uint32_t hash32_of_reversed(const uint8_t *p, size_t n) noexcept nogil
# Writes the checksum of a finished blob into its header.
cdef void seal_blob(uint8_t *base, size_t size) noexcept nogil
