# h1_parse.pxd - level 3: bytes of an HTTP/1.x head into a HeaderBlock, resumable at any byte.
#
# Owns: nothing; the state is a HeadParser in the connection. Called by: downstream, upstream (and proxy tests).
# The caller keeps the bytes of an unfinished head from its first byte on, and calls again with p at that first byte and a larger n;
# p may have moved. Each line is parsed once, when it is complete, and copied into the block's store, so that the cost is linear
# however the bytes arrive. A first byte that can begin no head is refused at once.

from gateway._core.headers cimport HeaderBlock
from gateway._core.types cimport uint8_t, uint32_t

cdef struct HeadLimits:
    uint32_t max_count     # fields
    uint32_t max_bytes     # bytes of all field lines
    uint32_t max_line      # bytes of the start line

cdef struct HeadParser:    # zeroed = at the start of a head
    uint32_t pos           # offset of the line in progress, counted from p
    uint32_t scan          # offset up to which that line was searched for its end
    uint32_t fields        # offset of the first field line: what max_bytes is counted from
    uint8_t phase          # 0 before the start line, 1 in the fields
    uint8_t blank          # CRLFs skipped before the start line

# > 0: that many bytes were the head, it is complete and validate has passed it. 0: needs more. < 0: a negated Fault.
# On > 0 and on < 0 the parser is at its start again. The block is cleared when a head begins. A response answers the same faults as a
# request (the caller turns them into a 502); the name of what was wrong is kept for the log.
cdef int h1_parse_request(HeadParser *parser, HeaderBlock head, const uint8_t *p, size_t n, const HeadLimits *limits) noexcept nogil
cdef int h1_parse_response(HeadParser *parser, HeaderBlock head, const uint8_t *p, size_t n, const HeadLimits *limits,
                           uint8_t request_method) noexcept nogil

# Whether the first line at p[0:n] is of another protocol: words, the first of which is no method that we know, and no '/' among them, as
# a target or a version of HTTP would have. Who sent it (SMTP, FTP, a preface of HTTP/2 that is not one) does not read HTTP/1.1 answers.
cdef bint h1_is_foreign(const uint8_t *p, size_t n) noexcept nogil
