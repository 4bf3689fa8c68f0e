# link.pxd - level 5: joins compiled pieces to a snapshot's blob, fast enough to do it anew for each change.
#
# Owns: each Piece its words, the Linker all sections until `blob`. Called by: control/compile alone, in the supervisor; no worker and no
# request comes here. Invariants: a Piece never changes but for where the last Linker put it; pieces that others need are put first;
# equal pieces and the same order of calls give the same bytes.

from gateway._core.types cimport uint8_t, uint32_t, uint64_t

cdef struct Fix:           # one word of a piece that is a reference
    uint32_t at            # word of the piece
    uint32_t kind          # LINK_*, or LINK_OWN + section
    uint32_t index         # into its texts, needs or clusters; or a record of its own

cdef struct Part:          # one section's words
    uint32_t section
    uint32_t n

cdef struct Target:        # one match of one rule, ready to stand in any vhost; its row is the one of the same number
    uint32_t kind          # TARGET_*
    uint32_t path          # index into the texts
    uint64_t rank          # of rows with the same path the lower one is asked first

cdef struct Placed:        # a target of the pieces that are linked now
    uint32_t kind
    uint32_t path_off
    uint32_t path_n
    uint64_t rank

cdef struct Item:          # a target on its way into a vhost
    const uint8_t *path
    uint32_t path_off
    uint32_t path_n
    uint32_t is_prefix
    uint32_t row           # of the linker's ready rows
    uint64_t rank
    uint64_t turn          # what is equal in all else stays in the order in which it came

cdef struct Column:        # words of one section
    uint32_t *words
    size_t n
    size_t room
