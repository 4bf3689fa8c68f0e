"""A hashed wheel of deadlines; see timers.pxd."""

from cpython.ref cimport PyObject

from gateway._core.seam cimport Timed


cdef class Wheel:
    def __init__(self):
        raise TypeError("use Wheel.new")

    @staticmethod
    cdef Wheel new(uint64_t now_ms):
        cdef Wheel wheel = Wheel.__new__(Wheel)
        cdef int i
        for i in range(WHEEL):
            wheel.slots[i].prev = &wheel.slots[i]
            wheel.slots[i].next = &wheel.slots[i]
        wheel.tick = now_ms >> TICK_SHIFT
        return wheel

    cdef void arm(self, Timer *timer, uint64_t deadline_ms) noexcept nogil:
        cdef uint64_t slot
        cdef Timer *head
        timer.deadline = deadline_ms
        # One slot later than the deadline's own: never early.
        slot = (deadline_ms >> TICK_SHIFT) + 1
        if slot <= self.tick:
            slot = self.tick + 1
        elif slot > self.tick + WHEEL - 1:
            slot = self.tick + WHEEL - 1
        if timer.armed:
            if timer.slot <= slot:
                return
            timer.prev.next = timer.next
            timer.next.prev = timer.prev
        timer.armed = 1
        timer.slot = slot
        head = &self.slots[slot & (WHEEL - 1)]
        timer.prev = head.prev
        timer.next = head
        head.prev.next = timer
        head.prev = timer

    cdef void disarm(self, Timer *timer) noexcept nogil:
        if timer.armed:
            timer.prev.next = timer.next
            timer.next.prev = timer.prev
            timer.armed = 0

    cdef uint32_t rest(self, uint64_t now_ms, uint32_t most) noexcept nogil:
        cdef uint64_t slot = self.tick + 1
        cdef uint64_t last = (now_ms + most) >> TICK_SHIFT
        cdef Timer *head
        if last >= self.tick + WHEEL:
            last = self.tick + WHEEL - 1
        while slot <= last:
            head = &self.slots[slot & (WHEEL - 1)]
            if head.next != head:
                return 0 if slot << TICK_SHIFT <= now_ms else <uint32_t> ((slot << TICK_SHIFT) - now_ms)
            slot += 1
        return most

    cdef void advance(self, uint64_t now_ms) noexcept:
        cdef uint64_t target = now_ms >> TICK_SHIFT
        cdef Timer *head
        cdef Timer *timer
        cdef Timed owner
        # After a long stop (a suspended machine) one full turn sees every node.
        if target > self.tick + WHEEL:
            self.tick = target - WHEEL
        while self.tick < target:
            self.tick += 1
            head = &self.slots[self.tick & (WHEEL - 1)]
            while head.next != head:
                timer = head.next
                self.disarm(timer)
                if timer.deadline > now_ms:
                    self.arm(timer, timer.deadline)
                    continue
                owner = <Timed> <PyObject *> timer.owner
                owner.on_timer(timer)
