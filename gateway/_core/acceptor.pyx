"""Listening sockets; see acceptor.pxd."""

from cpython.ref cimport PyObject
from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, errno
from libc.string cimport memcmp, memcpy, memmove, memset, strlen

from gateway._core.counters cimport (
    S_CONNECTIONS_ACCEPTED,
    S_CONNECTIONS_ACTIVE,
    S_CONNECTIONS_CLOSED,
    S_CONNECTIONS_REFUSED,
)
from gateway._core.router cimport find_port
from gateway._core.snapshot cimport NONE, LimitsRec, PortRec, Snapshot
from gateway._core.sys cimport (
    AF_INET,
    AF_INET6,
    IPPROTO_TCP,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    TCP_NODELAY,
    accept4,
    close,
    getpeername,
    inet_ntop,
    ntohs,
    setsockopt,
    sockaddr,
    sockaddr_in,
    sockaddr_in6,
    sockaddr_storage,
    socklen_t,
)

cdef enum:
    ACCEPTS = 64           # connections taken per turn
    REST_MS = 100          # pause of accepting when descriptors are out
    QUEUE = 65536          # connections in an accept queue, at most


cdef class Acceptor(Pollable):
    cdef int start(self, Plane plane, int fd, uint64_t bind_id) except -1:
        cdef int one = 1
        self.plane = plane
        self.fd = fd
        self.bind_id = bind_id
        self.timer.owner = <PyObject *> self
        self.rebind()
        # accepted sockets inherit it; a Unix socket refuses it, and needs none
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))
        if plane.poller.add(self, True) < 0:
            self.fd = -1
            raise OSError(f"descriptor {fd} cannot be watched")
        return 0

    cdef void rebind(self) noexcept:
        self.port = NONE
        if self.plane.binding is not None:
            self.port = find_port(self.plane.binding.snapshot, <uint32_t> self.bind_id, <uint32_t> (self.bind_id >> 32))

    cdef const LimitsRec *limits(self) noexcept:
        cdef Snapshot snapshot = self.plane.binding.snapshot
        if self.port == NONE:
            return &snapshot.limits[0]
        return &snapshot.limits[snapshot.listeners[snapshot.ports[self.port].listeners].limits]

    cdef const PortRec *borrow_port(self) noexcept:
        if self.port == NONE:
            return NULL
        return &self.plane.binding.snapshot.ports[self.port]

    cdef uint32_t port_number(self) noexcept:
        cdef Snapshot snapshot = self.plane.binding.snapshot
        return snapshot.listeners[snapshot.ports[self.port].listeners].port_number

    cdef str names(self):
        cdef Snapshot snapshot = self.plane.binding.snapshot
        cdef const PortRec *port = self.borrow_port()
        cdef list found = []
        cdef uint32_t i
        if port != NULL:
            for i in range(port.listeners, port.listeners + port.listeners_n):
                found.append(snapshot.text_of(snapshot.listeners[i].name))
        return ", ".join(found)

    cdef uint32_t protocol(self) noexcept:
        cdef Snapshot snapshot = self.plane.binding.snapshot
        return 0 if self.port == NONE else snapshot.listeners[snapshot.ports[self.port].listeners].protocol

    cdef void stop(self) noexcept:
        if self.fd >= 0:
            self.plane.wheel.disarm(&self.timer)
            if not self.resting:
                self.plane.poller.remove(self, True)
            # the descriptor belongs to the shell, which closes it
            self.fd = -1

    cdef void welcome(self, int fd) noexcept:
        close(fd)

    cdef void speak_h2(self, Pollable old, Tls *tls, const Address *address, bytes certificate, uint64_t promised, const uint8_t *p,
                       size_t n) noexcept:
        pass

    cdef void enter(self) noexcept:
        self.open += 1
        self.plane.downstreams += 1
        self.plane.counters.bump(S_CONNECTIONS_ACCEPTED, 1)
        self.plane.counters.bump(S_CONNECTIONS_ACTIVE, 1)

    cdef void leave(self) noexcept:
        self.open -= 1
        self.plane.downstreams -= 1
        self.plane.counters.bump(S_CONNECTIONS_ACTIVE, <uint64_t> -1)
        self.plane.counters.bump(S_CONNECTIONS_CLOSED, 1)

    cdef void on_io(self, uint32_t events) noexcept:
        self.accept(ACCEPTS)

    cdef void take_rest(self) noexcept:
        # who waits in the queue has a connection already, as it sees it
        self.accept(QUEUE)

    cdef void accept(self, int left) noexcept:
        cdef int fd
        cdef uint32_t most = 0
        if self.port != NONE:
            most = self.limits().max_connections
        while left:
            left -= 1
            fd = accept4(self.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if fd < 0:
                if errno == EINTR or errno == ECONNABORTED:
                    continue
                if errno != EAGAIN:
                    # EMFILE, ENFILE, ENOBUFS, ENOMEM: the socket stays readable; without a rest the loop would spin on it
                    self.plane.counters.bump(S_CONNECTIONS_REFUSED, 1)
                    if self.resting:
                        return
                    self.resting = True
                    self.plane.wheel.arm(&self.timer, self.plane.poller.now_ms + REST_MS)
                    self.plane.poller.remove(self, True)
                return
            if self.port == NONE or most and self.open >= most:
                self.plane.counters.bump(S_CONNECTIONS_REFUSED, 1)
                close(fd)
                continue
            self.welcome(fd)

    cdef void on_timer(self, Timer *timer) noexcept:
        if self.fd >= 0 and self.resting:
            self.resting = False
            if self.plane.poller.add(self, True) < 0:
                self.resting = True
                self.plane.wheel.arm(&self.timer, self.plane.poller.now_ms + REST_MS)


cdef void learn_address(int fd, Address *address) noexcept:
    cdef sockaddr_storage storage
    cdef socklen_t n = sizeof(storage)
    cdef const char *text = NULL
    memset(&storage, 0, sizeof(storage))
    if getpeername(fd, <sockaddr *> &storage, &n) == 0:
        if storage.ss_family == AF_INET:
            text = inet_ntop(AF_INET, &(<sockaddr_in *> &storage).sin_addr, <char *> address.text, 48)
            address.port = ntohs((<sockaddr_in *> &storage).sin_port)
        elif storage.ss_family == AF_INET6:
            text = inet_ntop(AF_INET6, &(<sockaddr_in6 *> &storage).sin6_addr, <char *> address.text, 48)
            address.port = ntohs((<sockaddr_in6 *> &storage).sin6_port)
    if text == NULL:
        memcpy(address.text, <const char *> b"unknown", 7)
        address.n = 7
        return
    address.n = <uint8_t> strlen(text)
    # an IPv4 client on a dual-stack socket is an IPv4 client
    if address.n > 7 and memcmp(address.text, <const char *> b"::ffff:", 7) == 0:
        address.n -= 7
        memmove(address.text, address.text + 7, address.n)
