# snapshot.pxd - level 4: the compiled configuration, read in place from a blob that may be mapped read-only.
#
# Owns: a reference to the buffer that holds the blob, and the compiled regular expressions. Called by: router, chain, pool, engine.
# Invariants: every record is made of u32 words only; every offset, count and reference was checked once by Snapshot.load, so no reader
# checks again; nothing is written after load. Names of records here are the names that control/compile packs (snapshot.LAYOUT).
#
#   | header | section table (offset, count) x SECTIONS | ports | listeners | hosts | vhosts | paths | rows | ... | strings |

from gateway._core.types cimport Span, uint8_t, uint32_t, uint64_t

cdef enum:
    NONE = 0xffffffff      # "no such record" in any index field

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
    uint32_t protocol      # 0 HTTP, 1 HTTPS, 2 TLS, 3 TCP
    uint32_t trusted_hops
    uint32_t limits        # index of its LimitsRec
    uint32_t hosts         # first slot of its host table (host -> vhost)
    uint32_t hosts_mask

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

cdef struct HostSlot:      # open addressing with linear probing, at most half full; hash32 of the host
    uint32_t hash
    Str host               # "" is the catch-all; "*.x" is stored as ".x"
    uint32_t value         # listener or vhost index; NONE: free slot

cdef struct RouteRec:
    uint32_t id_lo
    uint32_t id_hi
    Str name
    uint32_t kind          # 0 HTTPRoute, 1 GRPCRoute, 2 TLSRoute, 3 TCPRoute

cdef struct RuleRec:
    uint32_t route
    uint32_t number        # position in its route, from 0
    uint32_t filters       # first FilterRec
    uint32_t filters_n
    uint32_t backends      # first BackendRec
    uint32_t backends_n
    uint32_t weight        # sum of the backends' weights
    uint32_t request_timeout   # ms, 0 = none
    uint32_t backend_timeout   # ms, per attempt, 0 = none
    uint32_t attempts      # retries beyond the first attempt; 0 = only what is safe by itself
    uint32_t codes         # first word of its retry codes in the words section
    uint32_t codes_n
    uint32_t backoff       # ms

cdef struct BackendRec:
    uint32_t cluster       # NONE: does not resolve, answered 500 for its share of the weight
    uint32_t weight
    uint32_t filters       # filters of this backend alone
    uint32_t filters_n

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
    uint32_t tls           # index of a TLS record; NONE: clear text

cdef class Snapshot:
    cdef object owner      # keeps the buffer alive
    cdef const uint8_t *base
    cdef size_t size
    cdef readonly uint64_t revision
    cdef readonly list regexes   # compiled patterns by index; called only where a route uses one
    cdef const PortRec *ports
    cdef const ListenerRec *listeners
    cdef const LimitsRec *limits
    cdef const HostSlot *hosts
    cdef const RouteRec *routes
    cdef const RuleRec *rules
    cdef const BackendRec *backends
    cdef const ClusterRec *clusters
    cdef const uint32_t *words
    cdef const uint8_t *strings
    cdef uint32_t ports_n
    cdef uint32_t listeners_n
    cdef uint32_t routes_n
    cdef uint32_t rules_n
    cdef uint32_t clusters_n

    # Verifies everything; raises SnapshotError (a ValueError) that says what is wrong.
    @staticmethod
    cdef Snapshot load(object buffer)
    cdef inline Span borrow(self, Str s) noexcept nogil:
        cdef Span span
        span.p = self.strings + s.off
        span.n = s.n
        return span

cdef inline uint64_t id64(uint32_t lo, uint32_t hi) noexcept nogil:
    return (<uint64_t> hi << 32) | lo

# The one hash of host names and paths; FNV-1a finished with an avalanche step. Also def'd as snapshot.hash32 for control/compile.
cdef uint32_t hash32_of(const uint8_t *p, size_t n) noexcept nogil
