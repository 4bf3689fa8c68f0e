"""Abstract classes of the path; see seam.pxd. A method that is not overridden does nothing: each class overrides what it is asked."""

from gateway._core.headers cimport HeaderBlock
from gateway._core.sys cimport ssize_t
from gateway._core.timers cimport Timer
from gateway._core.types cimport FLAG_UC, FLAG_UF, FLAG_UPE, FLAG_UT, uint8_t, uint32_t



cdef int answer_to(int loss, uint32_t *flag, const char **detail) noexcept nogil:
    flag[0] = FLAG_UF
    if loss == LOSS_CONNECT or loss == LOSS_UNSENT:
        detail[0] = b"connect_failed"
        return 503
    if loss == LOSS_CONNECT_TIMEOUT:
        return 503
    if loss == LOSS_TLS:
        return 502
    if loss == LOSS_TIMEOUT:
        flag[0] = FLAG_UT
        detail[0] = b"timeout"
        return 504
    if loss == LOSS_GARBAGE:
        flag[0] = FLAG_UPE
        return 502
    flag[0] = FLAG_UC
    if detail[0] == NULL:
        detail[0] = b"upstream_reset"
    return 502

cdef class Timed:
    cdef void on_timer(self, Timer *timer) noexcept:
        pass


cdef class Pollable(Timed):
    def __cinit__(self):
        self.fd = -1

    cdef void on_io(self, uint32_t events) noexcept:
        pass

    cdef void on_ready(self) noexcept:
        pass

    cdef void on_flush(self) noexcept:
        pass

    cdef void drain(self) noexcept:
        pass

    cdef void cut(self) noexcept:
        pass

    cdef dict describe(self):
        return None


cdef class Downstream(Pollable):
    cdef void send_informational(self, HeaderBlock head) noexcept:
        pass

    cdef void send_head(self, HeaderBlock head) noexcept:
        pass

    cdef bint send_body(self, const uint8_t *p, size_t n) noexcept:
        return False

    cdef void push(self) noexcept:
        pass

    cdef void finish(self, HeaderBlock trailers) noexcept:
        pass

    cdef void abort(self) noexcept:
        pass

    cdef void pause_reading(self) noexcept:
        pass

    cdef void resume_reading(self) noexcept:
        pass

    cdef void open_tunnel(self) noexcept:
        pass


cdef class Upstream(Pollable):
    cdef void lease(self, Flow flow) noexcept:
        pass

    cdef void send_request(self, HeaderBlock head, bint has_more) noexcept:
        pass

    cdef bint send_body(self, const uint8_t *p, size_t n) noexcept:
        return False

    cdef void push(self) noexcept:
        pass

    cdef void finish_request(self, HeaderBlock trailers) noexcept:
        pass

    cdef void pause_reading(self) noexcept:
        pass

    cdef void resume_reading(self) noexcept:
        pass

    cdef void open_tunnel(self) noexcept:
        pass

    cdef void cancel(self) noexcept:
        pass


cdef class Mux(Pollable):
    cdef Upstream open_stream(self):
        return None

    cdef void retire(self) noexcept:
        pass


cdef class Dialer:
    cdef void dial(self, object cluster, object endpoint) noexcept:
        pass


cdef class Flow(Timed):
    cdef void on_request_body(self, const uint8_t *p, size_t n) noexcept:
        pass

    cdef void on_request_lull(self) noexcept:
        pass

    cdef void on_request_end(self, HeaderBlock trailers) noexcept:
        pass

    cdef void on_request_fault(self, int fault) noexcept:
        pass

    cdef void on_downstream_drained(self) noexcept:
        pass

    cdef void on_downstream_lost(self, uint32_t flag) noexcept:
        pass

    cdef void on_upstream(self, Upstream upstream) noexcept:
        pass

    cdef void on_no_upstream(self, int loss) noexcept:
        pass

    cdef void on_limits(self) noexcept:
        pass

    cdef void on_informational(self, HeaderBlock head) noexcept:
        pass

    cdef void on_response_head(self, HeaderBlock head) noexcept:
        pass

    cdef void on_response_body(self, const uint8_t *p, size_t n) noexcept:
        pass

    cdef void on_response_lull(self) noexcept:
        pass

    cdef void on_response_end(self, HeaderBlock trailers) noexcept:
        pass

    cdef ssize_t pull_response(self, int fd) noexcept:
        return PULL_NOT

    cdef void on_upstream_drained(self) noexcept:
        pass

    cdef void on_upstream_lost(self, int loss, int fault) noexcept:
        pass

    cdef HeaderBlock borrow_response(self):
        return None

    cdef HeaderBlock borrow_trailers(self):
        return None
