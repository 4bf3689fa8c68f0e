# poller.pxd - level 5: readiness for the whole data plane, on one epoll descriptor that is itself watched by uvloop.
#
# Owns: the epoll descriptor, an eventfd, and one reference to each registered Pollable. Called by: engine (run), everything with a
# descriptor (add, remove, push_ready, push_flush).
# Why its own epoll and not add_reader per descriptor: one edge-triggered EPOLL_CTL_ADD in a connection's life instead of three epoll
# calls and three Python objects, and no Python call per event; uvloop stays the one event loop and every asyncio library works beside it.
# Invariants: an event reaches only the Pollable whose registration it was made for (serial); push_flush is served after all events and
#   all ready ones of a batch, so that each connection writes once per turn.

from cpython.ref cimport PyObject

from gateway._core.seam cimport Pollable
from gateway._core.types cimport uint32_t, uint64_t

cdef class Poller:
    cdef readonly int epfd
    cdef int wakefd
    cdef PyObject **slots  # by descriptor; a reference each
    cdef uint32_t slots_n
    cdef uint32_t serial   # of the last registration
    cdef uint32_t held     # registered Pollables
    cdef list ready        # Pollables
    cdef list flush
    cdef list later        # of those that have had enough of this batch
    cdef list gone         # what ended in this turn: kept until no method of it can be on the stack any more
    cdef uint64_t now_ms   # monotonic, taken once per batch
    cdef uint64_t now_us

    @staticmethod
    cdef Poller new()
    # 0, or -1 (the kernel refused). Edge-triggered for everything; with level set, EPOLLIN alone and level-triggered (listening sockets).
    cdef int add(self, Pollable pollable, bint level) noexcept
    # Forgets the descriptor; the caller closes it at once afterwards. shared: another process has a copy, so that closing alone
    # would not take it out of epoll (listening sockets belong to the supervisor too).
    cdef void remove(self, Pollable pollable, bint shared) noexcept
    # Hands the descriptor of old and its registration on to new, without the kernel noticing: no event is lost in between, but one that
    # old was told already is not told again.
    cdef void replace(self, Pollable old, Pollable new) noexcept
    cdef void push_ready(self, Pollable pollable) noexcept
    cdef void push_flush(self, Pollable pollable) noexcept
    # As push_ready, but after the events of the next batch: whoever has much to do does not keep others waiting.
    cdef void push_later(self, Pollable pollable) noexcept
    cdef void refresh(self) noexcept nogil
    # A few batches: events, then what they left to do.
    cdef void run(self) noexcept
    cdef bint run_batch(self) noexcept
    cdef void settle(self) noexcept
    cdef void close(self) noexcept
