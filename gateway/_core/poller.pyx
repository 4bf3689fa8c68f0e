"""Readiness for the data plane; see poller.pxd."""

from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

from gateway._core.seam cimport QUEUED_FLUSH, QUEUED_LATER, QUEUED_READY, Pollable
from gateway._core.sys cimport (
    CLOCK_MONOTONIC,
    EFD_CLOEXEC,
    EFD_NONBLOCK,
    EPOLL_CLOEXEC,
    EPOLL_CTL_ADD,
    EPOLL_CTL_DEL,
    EPOLLET,
    EPOLLIN,
    EPOLLOUT,
    EPOLLRDHUP,
    clock_us,
    close,
    epoll_create1,
    epoll_ctl,
    epoll_event,
    epoll_wait,
    eventfd,
    ssize_t,
    sys_read,
    sys_write,
)

cdef enum:
    BATCH = 256            # events taken per turn
    TURNS = 4              # batches before the event loop gets its turn
    ROUNDS = 8             # of ready and flush work per batch
    WAKE = 0xffffffff      # the eventfd's mark in epoll's data


cdef class Poller:
    def __init__(self):
        raise TypeError("use Poller.new")

    @staticmethod
    cdef Poller new():
        cdef Poller poller = Poller.__new__(Poller)
        cdef epoll_event event
        poller.epfd = epoll_create1(EPOLL_CLOEXEC)
        poller.wakefd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        if poller.epfd < 0 or poller.wakefd < 0:
            raise OSError("no descriptor for epoll")
        event.events = EPOLLIN
        event.data.u64 = WAKE
        if epoll_ctl(poller.epfd, EPOLL_CTL_ADD, poller.wakefd, &event) < 0:
            raise OSError("epoll refuses an eventfd")
        poller.ready = []
        poller.flush = []
        poller.later = []
        poller.gone = []
        poller.refresh()
        return poller

    def __dealloc__(self):
        free(self.slots)

    cdef void refresh(self) noexcept nogil:
        self.now_us = clock_us(CLOCK_MONOTONIC)
        self.now_ms = self.now_us // 1000

    cdef int add(self, Pollable pollable, bint level) noexcept:
        cdef epoll_event event
        cdef uint32_t fd = <uint32_t> pollable.fd
        cdef uint32_t n
        cdef PyObject **slots
        if fd >= self.slots_n:
            n = self.slots_n if self.slots_n else 256
            while n <= fd:
                n *= 2
            slots = <PyObject **> realloc(self.slots, n * sizeof(PyObject *))
            if slots == NULL:
                return -1
            memset(slots + self.slots_n, 0, (n - self.slots_n) * sizeof(PyObject *))
            self.slots = slots
            self.slots_n = n
        self.serial += 1
        pollable.serial = self.serial
        if level:
            event.events = EPOLLIN
        else:
            event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | <uint32_t> EPOLLET
        event.data.u64 = (<uint64_t> self.serial << 32) | fd
        if epoll_ctl(self.epfd, EPOLL_CTL_ADD, pollable.fd, &event) < 0:
            return -1
        Py_INCREF(pollable)
        self.slots[fd] = <PyObject *> pollable
        self.held += 1
        return 0

    cdef void remove(self, Pollable pollable, bint shared) noexcept:
        cdef uint32_t fd
        cdef epoll_event event
        if pollable.fd < 0:
            return
        fd = <uint32_t> pollable.fd
        if shared:
            epoll_ctl(self.epfd, EPOLL_CTL_DEL, pollable.fd, &event)
        if fd < self.slots_n and self.slots[fd] == <PyObject *> pollable:
            self.slots[fd] = NULL
            self.held -= 1
            # A method of it may be on the stack: whoever closes a connection may have been called by it.
            self.gone.append(pollable)
            Py_DECREF(pollable)

    cdef void replace(self, Pollable old, Pollable new) noexcept:
        cdef uint32_t fd = <uint32_t> old.fd
        new.fd = old.fd
        new.serial = old.serial
        old.fd = -1
        Py_INCREF(new)
        self.slots[fd] = <PyObject *> new
        self.gone.append(old)
        Py_DECREF(old)

    cdef void push_ready(self, Pollable pollable) noexcept:
        if not pollable.queued & QUEUED_READY:
            pollable.queued |= QUEUED_READY
            self.ready.append(pollable)

    cdef void push_flush(self, Pollable pollable) noexcept:
        if not pollable.queued & QUEUED_FLUSH:
            pollable.queued |= QUEUED_FLUSH
            self.flush.append(pollable)

    cdef void push_later(self, Pollable pollable) noexcept:
        if not pollable.queued & QUEUED_LATER:
            pollable.queued |= QUEUED_LATER
            self.later.append(pollable)

    cdef void run(self) noexcept:
        cdef int turns = TURNS
        # As long as there is more, stay: a turn of the event loop around this one costs as much as half a request.
        while turns and self.run_batch():
            turns -= 1

    cdef bint run_batch(self) noexcept:
        """Events that are there, and what they left to do; False when there were none."""
        cdef epoll_event events[BATCH]
        cdef int n
        cdef int i
        cdef uint32_t fd
        cdef PyObject *slot
        cdef Pollable pollable
        cdef list batch
        cdef uint64_t counter = 0
        cdef ssize_t took
        n = epoll_wait(self.epfd, events, BATCH, 0)
        if n <= 0:
            return False
        self.refresh()
        for i in range(n):
            if events[i].data.u64 == WAKE:
                took = sys_read(self.wakefd, &counter, 8)
                if took < 0:
                    pass
                continue
            # A cast and no mask: Cython takes a literal beyond 31 bits for a Python number.
            fd = <uint32_t> events[i].data.u64
            slot = self.slots[fd] if fd < self.slots_n else NULL
            if slot == NULL:
                continue
            pollable = <Pollable> slot
            if pollable.serial == <uint32_t> (events[i].data.u64 >> 32):
                pollable.on_io(events[i].events)
        if self.later:
            batch = self.later
            self.later = []
            for pollable in batch:
                pollable.queued &= ~QUEUED_LATER & 0xff
                self.push_ready(pollable)
        self.settle()
        return True

    cdef void settle(self) noexcept:
        cdef list batch
        cdef Pollable pollable
        cdef int rounds
        cdef uint64_t one = 1
        cdef ssize_t wrote
        for rounds in range(ROUNDS):
            if self.ready:
                batch = self.ready
                self.ready = []
                for pollable in batch:
                    pollable.queued &= ~QUEUED_READY & 0xff
                    pollable.on_ready()
                if self.ready and rounds < ROUNDS - 1:
                    continue
            if self.flush:
                batch = self.flush
                self.flush = []
                for pollable in batch:
                    pollable.queued &= ~QUEUED_FLUSH & 0xff
                    pollable.on_flush()
            if not self.ready and not self.flush:
                break
        if self.ready or self.flush or self.later:
            wrote = sys_write(self.wakefd, &one, 8)
            if wrote < 0:
                pass
        if self.gone:
            # The list is changed before what is in it goes, which may end others in its turn.
            batch = self.gone
            self.gone = []
            batch = None

    cdef void close(self) noexcept:
        cdef uint32_t i
        cdef Pollable pollable
        for i in range(self.slots_n):
            if self.slots[i] != NULL:
                pollable = <Pollable> self.slots[i]
                self.remove(pollable, False)
        self.ready.clear()
        self.flush.clear()
        self.later.clear()
        self.gone.clear()
        if self.epfd >= 0:
            close(self.epfd)
            close(self.wakefd)
            self.epfd = self.wakefd = -1
