# limit_key.pxd - level 4: whose request it is, as a rate limit counts: a hash of 128 bits over the parts of the limit's key.
#
# Owns: nothing. Called by: limit_check, control/limits (for overrides), tests.
# Why a hash and never the text: a key is of any length (a header of 8 KiB), and it may be a secret. SipHash-2-4 of 128 bits with a fixed
# key: all gateways that share a store must come to the same, and finding two values that meet is still out of reach.

from gateway._core.headers cimport HeaderBlock
from gateway._core.snapshot cimport RateRec, Snapshot
from gateway._core.types cimport Ref, Span, uint8_t, uint32_t, uint64_t

cdef struct LimitKey:
    uint64_t lo            # never 0
    uint64_t hi

cdef enum Part:            # KeyPartRec.kind
    PART_HEADER = 1
    PART_COOKIE = 2
    PART_QUERY = 3
    PART_CLIENT = 4        # an IPv4 address, or the /64 of an IPv6 address
    PART_HOST = 5
    PART_PATH = 6
    PART_METHOD = 7
    PART_ROUTE = 8         # the id of its name
    PART_SUBJECT = 9       # first subject alternative name of the client's certificate
    PART_CONSTANT = 10

cdef struct KeyFacts:      # of a request, beside its head
    Span client            # address text as believed
    uint64_t route         # id
    Span certificate       # X-Forwarded-Client-Cert as we made it; n == 0: the client showed none

# False: a part of the key is not there and the limit skips such requests.
cdef bint limit_key_of(Snapshot snapshot, const RateRec *rate, HeaderBlock request, const KeyFacts *facts, LimitKey *key) noexcept nogil
# The value of one part; False when the request has none.
cdef bint borrow_part(uint32_t kind, Span name, HeaderBlock request, const KeyFacts *facts, uint8_t *room, Span *value) noexcept nogil
# What the configuration calls a part of this kind.
cdef const char *part_word(uint32_t kind) noexcept nogil
# What is shown of a value that may be a secret: the same in every gateway.
cdef uint64_t digest_of(Span value) noexcept nogil
cdef enum:
    PART_ROOM = 16         # bytes of `room` above
