# doorway.pxd - level 10: what comes before the first request of a connection, and who decides what speaks on it.
#
# Owns: the descriptor and its TLS until they are handed on, and what was received so far. Borrows: the listener's Credential, for as long
#   as the handshake takes. Called by: poller. Calls: H1Downstream (open, take_over), RawDownstream (begin), and the shell once for a
#   client's certificate.
# Invariants: a connection in a doorway has no exchange; it leaves by being handed on once, or closed; one deadline covers all of it.
#
#   accept --> [PROXY header] --> [ClientHello --> certificate by SNI --> handshake --> protocol by ALPN] --> HTTP
#                                       |                                     +--> the clear bytes, carried to an endpoint
#                                       +--> every byte, carried to an endpoint

from gateway._core.acceptor cimport Acceptor, Address
from gateway._core.buf cimport InBuf
from gateway._core.client_hello cimport ClientHello
from gateway._core.plane cimport Plane
from gateway._core.seam cimport Pollable
from gateway._core.timers cimport Timer
from gateway._core.tls cimport ServerTLS, Tls, Credential
from gateway._core.types cimport uint8_t, uint32_t, uint64_t

cdef enum DoorState:
    DOOR_PROXY = 1         # a PROXY protocol header has to come first
    DOOR_HELLO = 2         # a ClientHello is arriving
    DOOR_HANDSHAKE = 3
    DOOR_LINGER = 4        # refused: our side is shut, and what still comes is dropped until the client has seen why
    DOOR_CLOSED = 9

cdef class Door(Acceptor):     # the listening socket whose connections come through here
    @staticmethod
    cdef Door new(Plane plane, int fd, uint64_t bind_id)

cdef class Doorway(Pollable):
    cdef Plane plane
    cdef Acceptor acceptor
    cdef Timer timer
    cdef InBuf input
    cdef Address address
    cdef Tls *tls          # NULL before the handshake
    cdef ServerTLS server
    cdef Credential context
    cdef bytes certificate # as in H1Downstream
    cdef bytes alpn        # of a connection that is carried on in the clear: what its handshake agrees upon, as in Tls; b"" is nothing
    cdef bint carries      # it is one; the hello stays in the input until the handshake is done
    cdef uint64_t promised # id of the listener that the client's SNI chose
    cdef uint64_t opened_ms
    cdef uint8_t state     # DoorState

    @staticmethod
    cdef Doorway new(Acceptor acceptor, int fd)
    cdef void read(self) noexcept
    cdef void feed(self) noexcept
    cdef void feed_proxy(self) noexcept
    cdef void feed_hello(self) noexcept
    cdef uint32_t find(self, const ClientHello *hello) noexcept
    cdef void choose(self, const ClientHello *hello) noexcept
    cdef bint choose_protocol(self, uint32_t listener, const ClientHello *hello) noexcept
    cdef void shake_hands(self) noexcept
    cdef void carry_clear(self) noexcept
    cdef void hand_on(self) noexcept
    cdef bint speaks_h2(self) noexcept
    cdef void carry(self, uint32_t listener, const ClientHello *hello) noexcept
    cdef void refuse(self, int alert) noexcept
    cdef void end_with(self, const uint8_t *p, size_t n) noexcept
    cdef void drop_rest(self) noexcept
    cdef void close(self) noexcept
