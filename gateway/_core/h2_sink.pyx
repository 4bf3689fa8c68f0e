"""What a session of HTTP/2 tells; see h2_sink.pxd. A method that is not overridden does nothing, and offers nothing."""

from gateway._core.h2_stream cimport H2Stream
from gateway._core.headers cimport HeaderBlock
from gateway._core.types cimport uint8_t, uint32_t


cdef class H2Sink:
    cdef bint on_open(self, H2Stream *stream) noexcept:
        return False

    cdef HeaderBlock borrow_block(self, H2Stream *stream, int kind):
        return None

    cdef void on_informational(self, H2Stream *stream, HeaderBlock head) noexcept:
        pass

    cdef void on_head(self, H2Stream *stream, HeaderBlock head, bint ended) noexcept:
        pass

    cdef void on_refused(self, H2Stream *stream, HeaderBlock head, int fault) noexcept:
        pass

    cdef void on_data(self, H2Stream *stream, const uint8_t *p, size_t n) noexcept:
        pass

    cdef void on_end(self, H2Stream *stream, HeaderBlock trailers) noexcept:
        pass

    cdef void on_drained(self, H2Stream *stream) noexcept:
        pass

    cdef void on_gone(self, H2Stream *stream, int how, uint32_t code, int fault) noexcept:
        pass

    cdef void on_fault(self, int fault) noexcept:
        pass

    cdef void on_settings(self) noexcept:
        pass

    cdef void on_goaway(self, uint32_t last, uint32_t code) noexcept:
        pass

    cdef void on_pong(self) noexcept:
        pass

    cdef void on_output(self) noexcept:
        pass

    cdef void on_over(self) noexcept:
        pass
