# h2_downstream.pxd - level 9: one HTTP/2 connection from a client, and its streams, each of which is an exchange's Downstream.
#
# Owns: the descriptor, its TLS, a frame in pieces, the session (which owns streams, windows and output). Holds: a H2ServerStream for each open stream, as the
#   session's `owner` of it. Called by: doorway (open, take_over), poller, session (through H2ServerSink), exchanges. Calls: exchange, session.
# Invariants: a stream's pointer is used between on_open and on_gone alone; every stream that was opened has an exchange, which ends in its
#   log like any other; the connection closes when the session is over and its output is written.
#
#   socket --recv--> H2Session --sink--> H2ServerStream --> Exchange        Exchange --> H2ServerStream --> H2Session.out --send--> socket

from gateway._core.acceptor cimport Acceptor, Address
from gateway._core.buf cimport InBuf
from gateway._core.exchange cimport Exchange
from gateway._core.h2_session cimport H2Session
from gateway._core.h2_sink cimport H2Sink
from gateway._core.h2_stream cimport H2Stream
from gateway._core.headers cimport HeaderBlock
from gateway._core.plane cimport Plane
from gateway._core.seam cimport Downstream, Pollable
from gateway._core.snapshot cimport LimitsRec
from gateway._core.timers cimport Timer
from gateway._core.tls cimport Tls
from gateway._core.types cimport uint8_t, uint32_t, uint64_t

cdef class H2ServerSink(H2Sink):       # what the session tells the connection
    cdef H2Downstream connection       # None once it is closed

cdef class H2Downstream(Pollable):
    cdef Plane plane
    cdef Acceptor acceptor
    cdef H2Session session
    cdef H2ServerSink sink
    cdef Tls *tls          # NULL: in the clear
    cdef bytes certificate # as in H1Downstream
    cdef uint64_t promised # likewise
    cdef Address address
    cdef Timer timer
    cdef InBuf input       # a frame that is not complete
    cdef uint64_t opened_ms
    cdef uint64_t idle_ms  # since when no stream is open
    cdef uint32_t streams  # open
    cdef uint32_t requests # served
    cdef uint32_t drop_budget  # bytes that are still read once our side is shut
    cdef uint8_t spread    # what its greatest age has of chance
    cdef bint readable
    cdef bint stalled      # frames that have come wait for their turn: enough streams have begun in this one
    cdef bint ended        # the other side has finished sending, says the kernel
    cdef bint full         # the socket took less than there was
    cdef bint corked       # it may hold a piece of a segment back
    cdef bint lost         # a frame was cut off: nothing can be said any more
    cdef bint over         # the session is: part when everything is written
    cdef bint parted       # our side is shut: read and drop until the client has seen the last frame
    cdef bint last_call    # GOAWAY was said, because of age, number or drain
    cdef uint64_t last_call_ms
    cdef bint closed

    @staticmethod
    cdef H2Downstream new(Acceptor acceptor)
    # Begins where another Pollable ends, whose descriptor it takes over; address, tls, certificate and promised are set. p[0:n] is what
    # has come in already.
    cdef void take_over(self, Pollable door, const uint8_t *p, size_t n) noexcept
    cdef const LimitsRec *limits(self) noexcept
    cdef bint feed(self, const uint8_t *p, size_t n) noexcept
    cdef void read(self) noexcept
    # Whether enough streams have begun in this turn; what is left then goes on in the next.
    cdef bint is_enough(self) noexcept
    cdef void write(self) noexcept
    # Writes what is much already, before more is gathered behind it. Calls nobody, as the next does.
    cdef void relieve(self) noexcept
    # Writes much content at once, past the output; the bytes of it that are done with.
    cdef size_t send_direct(self, H2Stream *stream, const uint8_t *p, size_t n) noexcept
    cdef void wind_down(self) noexcept
    cdef void part(self) noexcept
    cdef void close(self) noexcept

cdef class H2ServerStream(Downstream):
    cdef H2Downstream connection
    cdef H2Stream *stream  # NULL once it is gone
    cdef Exchange exchange # None once its answer is complete, or broken off
    cdef Timer timer       # while content is to come: when its pace is looked at
    cdef uint64_t progress # bytes of it and of the answer at the last look

    @staticmethod
    cdef H2ServerStream new(H2Downstream connection, H2Stream *stream)
    cdef void bind(self, HeaderBlock head, bint ended) noexcept
    cdef void watch(self) noexcept
