"""Connections to endpoints on their way; see dial.pxd."""

from cpython.ref cimport PyObject
from libc.errno cimport EINPROGRESS, errno

from gateway._core.counters cimport S_TLS_CLIENT_FAILURES, S_TLS_CLIENT_HANDSHAKES
from gateway._core.h2_upstream cimport H2Upstream
from gateway._core.plane cimport Plane
from gateway._core.pool cimport PROTOCOL_HTTP2, Cluster, Endpoint
from gateway._core.seam cimport LOSS_CONNECT, LOSS_CONNECT_TIMEOUT, LOSS_TLS, LOSS_UNSENT, Dialer, Pollable
from gateway._core.sys cimport (
    AF_UNIX,
    EPOLLERR,
    EPOLLHUP,
    EPOLLOUT,
    IPPROTO_TCP,
    SO_ERROR,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    SOL_SOCKET,
    TCP_NODELAY,
    close,
    connect,
    getsockopt,
    setsockopt,
    sockaddr,
    socket,
    socklen_t,
)
from gateway._core.timers cimport Timer
from gateway._core.tls cimport (
    SHAKE_FAILED,
    SHAKE_WAIT,
    ClientTLS,
    Tls,
    tls_certificate,
    tls_close,
    tls_connect,
    tls_handshake,
    tls_protocol,
    tls_why,
)
from gateway._core.types cimport uint8_t, uint32_t
from gateway._core.upstream cimport H1Upstream


cdef class Dialing(Dialer):
    @staticmethod
    cdef Dialing new(Plane plane):
        cdef Dialing dialing = Dialing.__new__(Dialing)
        dialing.plane = plane
        return dialing

    cdef void dial(self, object cluster, object endpoint) noexcept:
        Dial.new(self.plane, <Cluster> cluster, <Endpoint> endpoint)


cdef bint is_named(ClientTLS client, bytes certificate) noexcept:
    """The shell's word about an endpoint's certificate; anything but a clear yes is a no."""
    try:
        return certificate is not None and client.names(certificate) is True
    except Exception:
        return False


cdef class Dial(Pollable):
    def __dealloc__(self):
        if self.tls != NULL:
            tls_close(self.tls)

    @staticmethod
    cdef Dial new(Plane plane, Cluster cluster, Endpoint endpoint):
        cdef Dial dial = Dial.__new__(Dial)
        cdef int family = endpoint.address.ss_family
        cdef int one = 1
        cdef int done
        dial.plane = plane
        dial.cluster = cluster
        dial.endpoint = endpoint
        dial.timer.owner = <PyObject *> dial
        dial.state = DIAL_CONNECT
        endpoint.open += 1
        endpoint.dialing += 1
        cluster.series.connections += 1
        dial.fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        if dial.fd >= 0:
            if family != AF_UNIX:
                setsockopt(dial.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))
            done = connect(dial.fd, <const sockaddr *> &endpoint.address, endpoint.address_n)
            if (done == 0 or errno == EINPROGRESS) and plane.poller.add(dial, False) == 0:
                if cluster.connect_timeout:
                    plane.wheel.arm(&dial.timer, plane.poller.now_ms + cluster.connect_timeout)
                # A connection that came up at once is reported by epoll all the same: writable, one turn later.
                return dial
        # Refused at once. Told from on_ready and not from here, so that a queue of waiting exchanges is not a depth of recursion.
        plane.poller.push_ready(dial)
        return dial

    cdef void on_io(self, uint32_t events) noexcept:
        if self.state == DIAL_CONNECT and events & (EPOLLOUT | EPOLLERR | EPOLLHUP):
            self.on_connected(events)
        elif self.state == DIAL_HANDSHAKE:
            self.shake_hands(events)

    cdef void on_ready(self) noexcept:
        if self.state == DIAL_CONNECT:
            # without a descriptor it was not the endpoint that failed
            self.lost(LOSS_UNSENT if self.fd < 0 else LOSS_CONNECT)

    cdef void on_timer(self, Timer *timer) noexcept:
        if self.state == DIAL_HANDSHAKE:
            self.endpoint.trouble = b"tls_handshake_timeout"
        else:
            self.endpoint.trouble = b"connect_timeout"
        self.lost(LOSS_CONNECT_TIMEOUT)

    cdef void on_connected(self, uint32_t events) noexcept:
        cdef int error = 0
        cdef socklen_t n = sizeof(error)
        if getsockopt(self.fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0 or error:
            self.lost(LOSS_CONNECT)
            return
        if not self.cluster.wants_tls:
            self.hand_on(events)
            return
        self.state = DIAL_HANDSHAKE
        self.client = self.cluster.tls
        if self.client is None:
            # never in the clear what was to be protected
            self.endpoint.trouble = b"tls_no_context"
            self.lost(LOSS_TLS)
            return
        self.tls = tls_connect(self.client, self.endpoint.session)
        if self.tls == NULL:
            self.lost(LOSS_CONNECT)
            return
        self.shake_hands(events)

    cdef void shake_hands(self, uint32_t events) noexcept:
        cdef int step = tls_handshake(self.tls, self.fd)
        if step == SHAKE_WAIT:
            return
        if step == SHAKE_FAILED:
            self.endpoint.trouble = tls_why(self.tls)
            self.lost(LOSS_TLS)
            return
        if self.client.names is not None and not is_named(self.client, tls_certificate(self.tls)):
            self.endpoint.trouble = b"tls_certificate_wrong_name"
            self.lost(LOSS_TLS)
            return
        self.plane.counters.bump(S_TLS_CLIENT_HANDSHAKES, 1)
        self.hand_on(events)

    cdef void hand_on(self, uint32_t events) noexcept:
        """HTTP/2 when the cluster says so, or ALPN does."""
        cdef H1Upstream upstream
        cdef H2Upstream mux
        cdef Tls *tls = self.tls
        cdef bint is_h2 = self.cluster.protocol == PROTOCOL_HTTP2 or tls != NULL and self.speaks_h2()
        self.plane.wheel.disarm(&self.timer)
        self.state = DIAL_CLOSED
        self.endpoint.dialing -= 1
        self.cluster.series.connects += 1
        self.tls = NULL
        if is_h2:
            mux = H2Upstream.new(self.plane, self.cluster, self.endpoint)
            mux.tls = tls
            mux.client = self.client
            mux.take_over(self, events)
            return
        upstream = H1Upstream.new(self.plane, self.cluster, self.endpoint)
        upstream.tls = tls
        upstream.client = self.client
        upstream.take_over(self, events)

    cdef bint speaks_h2(self) noexcept:
        cdef const uint8_t *p = NULL
        return not self.client.carries and tls_protocol(self.tls, &p) == 2 and p[0] == 104 and p[1] == 50

    cdef void lost(self, int loss) noexcept:
        if self.state == DIAL_CLOSED:
            return
        if self.state == DIAL_HANDSHAKE:
            self.plane.counters.bump(S_TLS_CLIENT_FAILURES, 1)
        self.state = DIAL_CLOSED
        self.plane.wheel.disarm(&self.timer)
        if self.fd >= 0:
            self.plane.poller.remove(self, False)
            close(self.fd)
            self.fd = -1
        self.cluster.on_gone(self.endpoint, None, False)
        self.endpoint.dialing -= 1
        if loss == LOSS_CONNECT_TIMEOUT:
            self.cluster.series.connect_timeouts += 1
        else:
            self.cluster.series.connect_failures += 1
        self.cluster.on_dial_failed(self.endpoint, loss)
        if self.cluster.is_hungry(self.endpoint):
            self.plane.dialer.dial(self.cluster, self.endpoint)
