# timers.pxd - level 5: deadlines of connections and exchanges, on a wheel of lists; a tick every 20 ms fires what is due.
#
# Owns: nothing; a Timer lies inside its owner, which disarms it before it goes. Called by: downstream, upstream, exchange, engine.
# Invariants: a timer never fires before its deadline and at most about two ticks after it; moving a deadline later is one store
#   (the node stays where it is, and is put further on when its turn comes), which is what happens on every request.

from cpython.ref cimport PyObject

from gateway._core.types cimport uint8_t, uint32_t, uint64_t

cdef enum:
    WHEEL = 1024           # slots; a power of two
    TICK_SHIFT = 4         # a slot is 16 ms

cdef struct Timer:
    Timer *prev
    Timer *next
    PyObject *owner        # borrowed: a seam.Timed
    uint64_t deadline      # monotonic ms
    uint64_t slot          # tick at which the node is looked at
    uint8_t armed

cdef class Wheel:
    cdef Timer slots[1024] # list heads
    cdef uint64_t tick     # last tick that was handled

    @staticmethod
    cdef Wheel new(uint64_t now_ms)
    cdef void arm(self, Timer *timer, uint64_t deadline_ms) noexcept nogil
    cdef void disarm(self, Timer *timer) noexcept nogil
    # Milliseconds until the next slot with a timer in it is due, at most so many: before that nothing fires.
    cdef uint32_t rest(self, uint64_t now_ms, uint32_t most) noexcept nogil
    # Takes every due timer off the wheel and calls its owner's on_timer.
    cdef void advance(self, uint64_t now_ms) noexcept
