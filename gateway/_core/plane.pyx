"""What all connections of one worker share; see plane.pxd."""

import os

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from gateway._core.counters cimport Counters
from gateway._core.poller cimport Poller
from gateway._core.record cimport LogBuffer
from gateway._core.timers cimport Wheel


cdef class Binding:
    pass


cdef class Plane:
    def __init__(self):
        raise TypeError("use Plane.new")

    def __cinit__(self):
        self.scratch = <uint8_t *> malloc(SCRATCH)
        if self.scratch == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.scratch)

    @staticmethod
    cdef Plane new(Counters counters, LogBuffer log, bytes node):
        cdef Plane plane = Plane.__new__(Plane)
        cdef bytes seed = os.urandom(8)
        plane.poller = Poller.new()
        plane.wheel = Wheel.new(plane.poller.now_ms)
        plane.counters = counters
        plane.log = log
        memcpy(&plane.random, <const char *> seed, 8)
        plane.random |= 1
        plane.node_n = <uint32_t> min(len(node), 64)
        memcpy(plane.node, <const char *> node, plane.node_n)
        plane.spare = []
        plane.mirrors = set()
        plane.servers = {}
        return plane

    cdef uint64_t next_random(self) noexcept nogil:
        # xorshift64*: fast, and unpredictable enough for ids and jitter, which are no secrets
        self.random ^= self.random >> 12
        self.random ^= self.random << 25
        self.random ^= self.random >> 27
        return self.random * <uint64_t> 0x2545F4914F6CDD1D
