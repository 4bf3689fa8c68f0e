# dial.pxd - level 8: a connection to an endpoint on its way: connect, TLS, and who speaks on it.
#
# Owns: the descriptor and its TLS until they are handed on. Borrows: the cluster's ClientTLS. Called by: exchange, tunnel and whatever
#   carried leases, all through plane.dialer; poller. Calls: H1Upstream.take_over, pool.
# Invariants: counted in endpoint.open and endpoint.dialing from its birth; it ends once, by being handed on or by on_dial_failed; one
#   deadline (connectTimeout) covers all of it.

from gateway._core.plane cimport Plane
from gateway._core.pool cimport Cluster, Endpoint
from gateway._core.seam cimport Dialer, Pollable
from gateway._core.timers cimport Timer
from gateway._core.tls cimport ClientTLS, Tls
from gateway._core.types cimport uint8_t, uint32_t

cdef enum DialState:
    DIAL_CONNECT = 1
    DIAL_HANDSHAKE = 2
    DIAL_CLOSED = 9

cdef class Dialing(Dialer):        # makes them
    cdef Plane plane

    @staticmethod
    cdef Dialing new(Plane plane)

cdef class Dial(Pollable):
    cdef Plane plane
    cdef Cluster cluster
    cdef Endpoint endpoint
    cdef ClientTLS client  # what tls was made by
    cdef Tls *tls          # NULL: in the clear
    cdef Timer timer
    cdef uint8_t state     # DialState

    @staticmethod
    cdef Dial new(Plane plane, Cluster cluster, Endpoint endpoint)
    cdef void on_connected(self, uint32_t events) noexcept
    cdef void shake_hands(self, uint32_t events) noexcept
    cdef void hand_on(self, uint32_t events) noexcept
    cdef bint speaks_h2(self) noexcept
    cdef void lost(self, int loss) noexcept
