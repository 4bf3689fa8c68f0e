"""What comes before the first request of a connection; see doorway.pxd."""

from cpython.ref cimport PyObject
from libc.string cimport memset, strlen

from gateway._core.acceptor cimport Acceptor, Address, learn_address
from gateway._core.buf cimport OutQueue, in_append, in_clear, in_consume, out_clear
from gateway._core.client_hello cimport (
    ALERT_BYTES,
    ALERT_INTERNAL_ERROR,
    ALERT_UNRECOGNIZED_NAME,
    ClientHello,
    alert_of,
    encode_alert,
    looks_like_http,
    parse_client_hello,
)
from gateway._core.counters cimport (
    S_CONNECTIONS_REFUSED,
    S_DEADLINE_HEAD,
    S_TLS_FAILURES,
    S_TLS_HANDSHAKES,
    S_TLS_NO_NAME,
    S_TLS_PLAIN,
    S_TLS_RESUMED,
    S_TLS_UNVERIFIED,
)
from gateway._core.downstream cimport H1Downstream
from gateway._core.faults cimport F_PROXY_HEADER, F_TLS_NOT
from gateway._core.h2_downstream cimport H2Downstream
from gateway._core.plane cimport SCRATCH, Plane
from gateway._core.proxy_protocol cimport ProxyHeader, parse_proxy_header
from gateway._core.router cimport find_listener, find_tunnel
from gateway._core.seam cimport Pollable
from gateway._core.snapshot cimport NONE, ListenerRec, PortRec, Snapshot, id64
from gateway._core.sys cimport AF_INET, AF_INET6, EPOLLERR, SHUT_WR, close, inet_ntop, shutdown, ssize_t
from gateway._core.timers cimport Timer
from gateway._core.tls cimport (
    IO_AGAIN,
    SHAKE_FAILED,
    SHAKE_WAIT,
    Tls,
    tls_accept,
    tls_certificate,
    tls_close,
    tls_feed,
    tls_handshake,
    tls_is_resumed,
    tls_protocol,
    transport_recv,
    transport_send,
)
from gateway._core.tunnel cimport RawDownstream
from gateway._core.types cimport Span, uint8_t, uint32_t, uint64_t

cdef enum:
    LINGER_MS = 2000       # how long a client may take to see why it was refused
    TLS_1_0 = 0x0301       # the version in a record before one is agreed upon (RFC 8446 §5.1)
    PROTOCOL_HTTP = 0      # ListenerRec.protocol
    PROTOCOL_HTTPS = 1
    PROTOCOL_TLS = 2       # passed through
    PROTOCOL_TCP = 3
    PROTOCOL_ENDED = 4     # TLS that ends here, and whose bytes are carried on

cdef bytes PLAIN = (
    b"HTTP/1.1 400 Bad Request\r\n"
    b"content-type: text/plain\r\n"
    b"content-length: 54\r\n"
    b"connection: close\r\n"
    b"\r\n"
    b"This port speaks HTTPS: use https:// in the address.\r\n"
)


cdef class Door(Acceptor):
    @staticmethod
    cdef Door new(Plane plane, int fd, uint64_t bind_id):
        """Raises OSError when the descriptor cannot be watched."""
        cdef Door door = Door.__new__(Door)
        door.start(plane, fd, bind_id)
        return door

    cdef void speak_h2(self, Pollable old, Tls *tls, const Address *address, bytes certificate, uint64_t promised, const uint8_t *p,
                       size_t n) noexcept:
        cdef H2Downstream down = H2Downstream.new(self)
        down.tls = tls
        down.address = address[0]
        down.certificate = certificate
        down.promised = promised
        down.take_over(old, p, n)

    cdef void welcome(self, int fd) noexcept:
        cdef const PortRec *port = self.borrow_port()
        cdef uint32_t protocol = self.protocol()
        cdef RawDownstream raw
        if protocol == PROTOCOL_TCP and not port.proxy_protocol:
            raw = RawDownstream.new(self)
            if raw.open(fd):
                raw.begin(port.listeners, NULL)
        elif port.proxy_protocol or protocol != PROTOCOL_HTTP:
            Doorway.new(self, fd)
        else:
            H1Downstream.new(self).open(fd)


cdef class Doorway(Pollable):
    def __dealloc__(self):
        in_clear(&self.input)
        if self.tls != NULL:
            tls_close(self.tls)

    @staticmethod
    cdef Doorway new(Acceptor acceptor, int fd):
        cdef Doorway doorway = Doorway.__new__(Doorway)
        cdef Plane plane = acceptor.plane
        doorway.plane = plane
        doorway.acceptor = acceptor
        doorway.fd = fd
        doorway.timer.owner = <PyObject *> doorway
        doorway.state = DOOR_PROXY if acceptor.borrow_port().proxy_protocol else DOOR_HELLO
        doorway.opened_ms = plane.poller.now_ms
        if plane.poller.add(doorway, False) < 0:
            close(fd)
            doorway.fd = -1
            doorway.state = DOOR_CLOSED
            plane.counters.bump(S_CONNECTIONS_REFUSED, 1)
            return doorway
        acceptor.enter()
        plane.wheel.arm(&doorway.timer, plane.poller.now_ms + acceptor.limits().header_timeout)
        return doorway

    cdef void on_io(self, uint32_t events) noexcept:
        if events & EPOLLERR:
            self.close()
        elif self.state == DOOR_HANDSHAKE:
            self.shake_hands()
        elif self.state == DOOR_LINGER:
            self.drop_rest()
        else:
            self.read()

    cdef void on_timer(self, Timer *timer) noexcept:
        if self.state != DOOR_LINGER:
            self.plane.counters.bump(S_DEADLINE_HEAD, 1)
        self.close()

    cdef void read(self) noexcept:
        cdef uint8_t *scratch = self.plane.scratch
        cdef ssize_t got
        while self.state == DOOR_PROXY or self.state == DOOR_HELLO:
            got = transport_recv(self.fd, NULL, scratch, SCRATCH)
            if got == IO_AGAIN:
                return
            if got <= 0 or in_append(&self.input, scratch, <size_t> got) < 0:
                self.close()
                return
            self.feed()

    cdef void feed(self) noexcept:
        if self.state == DOOR_PROXY:
            self.feed_proxy()
        if self.state == DOOR_HELLO and self.input.end > self.input.start:
            self.feed_hello()

    # ---- PROXY protocol ------------------------------------------------------------------------------------------------

    cdef void feed_proxy(self) noexcept:
        cdef ProxyHeader header
        cdef int took = parse_proxy_header(self.input.data + self.input.start, self.input.end - self.input.start, &header)
        cdef const char *text
        if took == 0:
            return
        if took < 0:
            self.plane.counters.fault(F_PROXY_HEADER)
            self.close()
            return
        in_consume(&self.input, <size_t> took)
        if header.family:
            text = inet_ntop(AF_INET if header.family == 4 else AF_INET6, header.source, <char *> self.address.text, 48)
            if text != NULL:
                self.address.n = <uint8_t> strlen(text)
                self.address.port = header.source_port
        if self.acceptor.protocol() == PROTOCOL_HTTP:
            self.hand_on()
        elif self.acceptor.protocol() == PROTOCOL_TCP:
            self.carry(self.acceptor.borrow_port().listeners, NULL)
        else:
            self.state = DOOR_HELLO

    # ---- TLS -----------------------------------------------------------------------------------------------------------

    cdef void feed_hello(self) noexcept:
        cdef const uint8_t *p = self.input.data + self.input.start
        cdef size_t n = self.input.end - self.input.start
        cdef ClientHello hello
        cdef int step = parse_client_hello(p, n, &hello)
        if step == 0:
            return
        if step > 0:
            self.choose(&hello)
            return
        self.plane.counters.fault(-step)
        if -step == F_TLS_NOT and looks_like_http(p, n):
            self.plane.counters.bump(S_TLS_PLAIN, 1)
            self.end_with(<const uint8_t *> <const char *> PLAIN, <size_t> len(PLAIN))
        else:
            self.refuse(alert_of(step))

    cdef uint32_t find(self, const ClientHello *hello) noexcept:
        """The listener for the name that the client asks for, or NONE.

        A client that names nothing gets the listener without hostname, or the port's first one.
        """
        cdef const PortRec *port = self.acceptor.borrow_port()
        cdef uint32_t found
        if port == NULL:
            return NONE
        found = find_listener(self.plane.binding.snapshot, self.acceptor.port, hello.name, hello.name_n)
        return port.listeners if found == NONE and hello.name_n == 0 else found

    cdef void choose(self, const ClientHello *hello) noexcept:
        """Listener and certificate for the name that the client asks for; then the handshake begins."""
        cdef Snapshot snapshot = self.plane.binding.snapshot
        cdef const ListenerRec *listener
        cdef uint32_t found = self.find(hello)
        if found == NONE:
            self.plane.counters.bump(S_TLS_NO_NAME, 1)
            self.refuse(ALERT_UNRECOGNIZED_NAME)
            return
        listener = &snapshot.listeners[found]
        self.carries = listener.protocol == PROTOCOL_ENDED
        if listener.protocol == PROTOCOL_TLS or self.carries and not self.choose_protocol(found, hello):
            # where no route has the name, the tunnel says so: there is no use in a handshake
            self.carry(found, hello)
            return
        self.promised = id64(listener.id_lo, listener.id_hi)
        self.server = self.plane.servers.get(self.promised)
        if listener.protocol != PROTOCOL_HTTPS and not self.carries or self.server is None:
            # its certificates are not here (yet)
            self.refuse(ALERT_INTERNAL_ERROR)
            return
        self.context = self.server.choose(hello.name, hello.name_n)
        self.tls = tls_accept(self.context)
        if self.tls == NULL or tls_feed(self.tls, self.input.data + self.input.start, self.input.end - self.input.start) < 0:
            self.close()
            return
        if self.carries:
            self.tls.own_alpn = True
            self.tls.alpn = <const uint8_t *> <const char *> self.alpn
            self.tls.alpn_n = <size_t> len(self.alpn)
        else:
            in_clear(&self.input)
        self.state = DOOR_HANDSHAKE
        self.shake_hands()

    cdef bint choose_protocol(self, uint32_t listener, const ClientHello *hello) noexcept:
        """What the handshake agrees upon (RFC 7301): what the route asks for. False: no route takes the connection."""
        cdef Span offered
        if find_tunnel(self.plane.binding.snapshot, listener, hello, &offered) == NONE:
            return False
        self.alpn = bytes([offered.n]) + offered.p[:offered.n] if offered.n else b""
        return True

    cdef void shake_hands(self) noexcept:
        cdef int step = tls_handshake(self.tls, self.fd)
        cdef bytes certificate = None
        if step == SHAKE_WAIT:
            return
        if step == SHAKE_FAILED:
            if self.tls.cut:
                self.close()
            else:
                # the alert is out; closing over unread input would reset the connection under it
                self.plane.counters.bump(S_TLS_FAILURES, 1)
                self.end_with(NULL, 0)
            return
        self.plane.counters.bump(S_TLS_HANDSHAKES, 1)
        if tls_is_resumed(self.tls):
            self.plane.counters.bump(S_TLS_RESUMED, 1)
        # an end that came along with the last flight was told to this doorway: whoever goes on has to look
        self.tls.drained = False
        if self.server.asks_client:
            certificate = tls_certificate(self.tls)
            if certificate is None and self.server.lets_through:
                self.plane.counters.bump(S_TLS_UNVERIFIED, 1)
        if self.carries:
            self.carry_clear()
            return
        if certificate is not None and self.plane.read_certificate is not None:
            self.certificate = words_of(self.plane.read_certificate, certificate)
        self.hand_on()

    cdef void hand_on(self) noexcept:
        """The connection speaks HTTP from here on: HTTP/2 when ALPN says so."""
        cdef H1Downstream down
        cdef Tls *tls = self.tls
        if tls != NULL and self.speaks_h2():
            self.tls = NULL
            self.context = None
            self.server = None
            self.plane.wheel.disarm(&self.timer)
            self.state = DOOR_CLOSED
            self.acceptor.speak_h2(self, tls, &self.address, self.certificate, self.promised, NULL, 0)
            return
        down = H1Downstream.new(self.acceptor)
        down.address = self.address
        down.opened_ms = self.opened_ms
        down.tls = self.tls
        down.certificate = self.certificate
        down.promised = self.promised
        self.tls = NULL
        self.context = None
        self.server = None
        self.plane.wheel.disarm(&self.timer)
        self.state = DOOR_CLOSED
        down.take_over(self, self.input.data + self.input.start, self.input.end - self.input.start)
        in_clear(&self.input)

    cdef bint speaks_h2(self) noexcept:
        cdef const uint8_t *p = NULL
        return tls_protocol(self.tls, &p) == 2 and p[0] == 104 and p[1] == 50

    cdef void carry_clear(self) noexcept:
        """TLS ended here; the route is found once more, in the configuration of this moment."""
        cdef Snapshot snapshot = self.plane.binding.snapshot
        cdef const ListenerRec *listener
        cdef ClientHello hello
        cdef uint32_t found
        parse_client_hello(self.input.data + self.input.start, self.input.end - self.input.start, &hello)
        found = self.find(&hello)
        if found != NONE:
            listener = &snapshot.listeners[found]
            if listener.protocol == PROTOCOL_ENDED and id64(listener.id_lo, listener.id_hi) == self.promised:
                self.carry(found, &hello)
                return
        # the listener that this was promised is gone
        self.end_with(NULL, 0)

    cdef void carry(self, uint32_t listener, const ClientHello *hello) noexcept:
        """The connection goes to an endpoint: what comes out of its TLS, or, without, as it is with all that was read of it."""
        cdef RawDownstream raw = RawDownstream.new(self.acceptor)
        cdef size_t n = 0 if self.tls != NULL else self.input.end - self.input.start
        raw.address = self.address
        raw.opened_ms = self.opened_ms
        raw.tls = self.tls
        if self.tls != NULL:
            self.tls.alpn = NULL
            self.tls.alpn_n = 0
        self.tls = NULL
        self.context = None
        self.server = None
        self.plane.wheel.disarm(&self.timer)
        self.state = DOOR_CLOSED
        if raw.take_over(self, self.input.data + self.input.start, n):
            raw.begin(listener, hello)
        in_clear(&self.input)

    # ---- the end -------------------------------------------------------------------------------------------------------

    cdef void refuse(self, int alert) noexcept:
        cdef uint8_t record[ALERT_BYTES]
        self.plane.counters.bump(S_TLS_FAILURES, 1)
        self.end_with(record, encode_alert(record, 2, alert, TLS_1_0))

    cdef void end_with(self, const uint8_t *p, size_t n) noexcept:
        """Says a last word in the clear, as far as the kernel takes it, and waits until the client has seen it."""
        cdef OutQueue rest
        memset(&rest, 0, sizeof(rest))
        transport_send(self.fd, NULL, &rest, p, n, False)
        out_clear(&rest)
        in_clear(&self.input)
        shutdown(self.fd, SHUT_WR)
        self.state = DOOR_LINGER
        self.plane.wheel.arm(&self.timer, self.plane.poller.now_ms + LINGER_MS)
        self.drop_rest()

    cdef void drop_rest(self) noexcept:
        cdef int left = 16
        cdef ssize_t got
        while left:
            left -= 1
            got = transport_recv(self.fd, NULL, self.plane.scratch, SCRATCH)
            if got == IO_AGAIN:
                return
            if got <= 0:
                break
        # ended; or it sends and sends, and does not listen
        self.close()

    cdef void close(self) noexcept:
        if self.state == DOOR_CLOSED:
            return
        if self.state == DOOR_HANDSHAKE or self.state == DOOR_HELLO and self.input.end > self.input.start:
            # it had begun; a connection that says nothing, as health checks open them, is no handshake
            self.plane.counters.bump(S_TLS_FAILURES, 1)
        self.state = DOOR_CLOSED
        self.plane.wheel.disarm(&self.timer)
        self.plane.poller.remove(self, False)
        close(self.fd)
        self.fd = -1
        self.acceptor.leave()

    cdef void cut(self) noexcept:
        self.close()

    cdef dict describe(self):
        if self.address.n == 0:
            learn_address(self.fd, &self.address)
        return {
            "peer": f"{self.address.text[:self.address.n].decode('ascii', 'replace')}:{self.address.port}",
            "listener": self.acceptor.names(),
            "state": STATES.get(self.state, "closed"),
            "age_ms": self.plane.poller.now_ms - self.opened_ms,
            "requests": 0,
            "queued_bytes": 0,
            "held_bytes": self.input.end - self.input.start,
        }


cdef dict STATES = {DOOR_PROXY: "proxy", DOOR_HELLO: "hello", DOOR_HANDSHAKE: "handshake", DOOR_LINGER: "linger"}


cdef bytes words_of(object read, bytes certificate):
    """What the shell reads out of a certificate; nothing when it cannot (it was verified all the same)."""
    try:
        words = read(certificate)
        return words if isinstance(words, bytes) and b"\r" not in words and b"\n" not in words else None
    except Exception:
        return None
