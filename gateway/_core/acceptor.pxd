# acceptor.pxd - level 6: one listening socket, and what every connection from a client has in common.
#
# Owns: nothing; the descriptor belongs to the shell. Called by: poller, engine. Calls: welcome, which whoever knows the protocols overrides
#   (doorway.Door). Borrowed by: every connection that was accepted here, for its limits and its counts.
# Invariants: enter and leave are called once each for a connection, whatever it turns into on its way.

from gateway._core.plane cimport Plane
from gateway._core.seam cimport Pollable
from gateway._core.snapshot cimport LimitsRec, PortRec
from gateway._core.timers cimport Timer
from gateway._core.tls cimport Tls
from gateway._core.types cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef struct Address:       # of a client
    uint8_t text[48]       # without port
    uint8_t n              # 0: not asked for yet
    uint16_t port

cdef class Acceptor(Pollable):
    cdef Plane plane
    cdef readonly uint64_t bind_id
    cdef uint32_t port     # index in the snapshot in use; NONE when it has it no more
    cdef uint32_t open     # connections accepted here and still open
    cdef bint resting      # out of descriptors: accepts again after a pause
    cdef Timer timer

    cdef int start(self, Plane plane, int fd, uint64_t bind_id) except -1
    cdef void rebind(self) noexcept        # after a swap
    cdef void accept(self, int left) noexcept  # what has come, `left` connections at most
    cdef void take_rest(self) noexcept     # all that wait; before stop
    cdef void stop(self) noexcept
    cdef void enter(self) noexcept         # a connection begins
    cdef void leave(self) noexcept         # and is closed
    # The client of old turns out to speak HTTP/2: its descriptor and tls are handed on, p[0:n] came in already.
    cdef void speak_h2(self, Pollable old, Tls *tls, const Address *address, bytes certificate, uint64_t promised, const uint8_t *p,
                       size_t n) noexcept
    cdef void welcome(self, int fd) noexcept   # makes a connection of an accepted descriptor, which it owns from now on
    # Of the port's first listener: before the host is known there is no other. Of any, when the snapshot has the port no more.
    cdef const LimitsRec *limits(self) noexcept
    cdef const PortRec *borrow_port(self) noexcept     # NULL when the snapshot has it no more
    cdef uint32_t port_number(self) noexcept
    cdef str names(self)                   # of the port's listeners, for people; "" when the snapshot has it no more
    cdef uint32_t protocol(self) noexcept      # ListenerRec.protocol of the port

# Whether a connection has reached its age. spread, a random byte of its own, adds up to a quarter, so that connections that began together do
# not end together.
cdef inline bint is_aged(const LimitsRec *limits, uint64_t opened_ms, uint8_t spread, uint64_t now_ms) noexcept nogil:
    return limits.max_age != 0 and now_ms - opened_ms >= limits.max_age + (<uint64_t> limits.max_age * spread >> 10)

# Asks the kernel for the other end of the descriptor.
cdef void learn_address(int fd, Address *address) noexcept
