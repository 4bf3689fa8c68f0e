"""One HTTP/1.1 connection to an endpoint; see upstream.pxd."""

from cpython.ref cimport PyObject
from libc.string cimport memset

from gateway._core.buf cimport in_append, in_clear, in_consume, out_append, out_clear, out_commit, out_reserve
from gateway._core.counters cimport S_UPSTREAM_BYTES_IN, S_UPSTREAM_BYTES_OUT
from gateway._core.faults cimport F_BODY_SHORT, F_EXTRA, F_INFORMATIONAL_MANY, F_NONE, F_SWITCHED
from gateway._core.h1_body cimport BODY_DATA, BODY_END, h1_body_decode, h1_body_eof, h1_body_start
from gateway._core.h1_encode cimport (
    CONN_NONE,
    CONN_UPGRADE,
    h1_encode_request,
    h1_head_bound,
    h1_queue_chunk,
    h1_queue_last_chunk,
)
from gateway._core.h1_parse cimport HeadLimits, h1_parse_response
from gateway._core.headers cimport HEAD_KEEP_ALIVE, HEAD_TE_TRAILERS, HEAD_UPGRADE, HeaderBlock
from gateway._core.plane cimport DIRECT, HIGH_WATER, LOW_WATER, SCRATCH, Plane
from gateway._core.pool cimport Cluster, Endpoint
from gateway._core.seam cimport (
    LOSS_CONNECT,
    LOSS_GARBAGE,
    LOSS_RESET,
    LOSS_STALE,
    LOSS_TRUNCATED,
    LOSS_UNSENT,
    PULL_HELD,
    PULL_LOST,
    PULL_NOT,
    Flow,
    Pollable,
)
from gateway._core.sys cimport (
    EPOLLERR,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    EPOLLRDHUP,
    IPPROTO_TCP,
    SHUT_WR,
    TCP_NODELAY,
    close,
    setsockopt,
    shutdown,
    ssize_t,
)
from gateway._core.timers cimport Timer
from gateway._core.tls cimport (
    IO_AGAIN,
    tls_close,
    tls_finish,
    tls_rest,
    tls_session,
    tls_session_free,
    transport_drained,
    transport_recv,
    transport_send,
)
from gateway._core.types cimport FRAME_CHUNKED, FRAME_CLOSE, FRAME_LENGTH, FRAME_NONE, Span

cdef enum:
    READS = 4              # receives per turn, so that one fast origin cannot hold the loop
    REST_MS = 1000         # idle time after which TLS gives back the memory that large content left it with
    MUCH = 2               # full receives in a row after which a tunnel moves its bytes without seeing them
    FLUSH_MS = 30000       # how long the last bytes of a tunnel may take to an origin
    MAX_INFORMATIONAL = 32 # 1xx before a final response (checklist item 42)

# What an origin may send as a head: generous, it is not the attacker of the common case, yet bounded.
cdef HeadLimits RESPONSE_LIMITS
RESPONSE_LIMITS.max_count = 256
RESPONSE_LIMITS.max_bytes = 65536
RESPONSE_LIMITS.max_line = 8192


cdef class H1Upstream(Upstream):
    def __dealloc__(self):
        in_clear(&self.input)
        out_clear(&self.out)
        if self.tls != NULL:
            tls_close(self.tls)

    @staticmethod
    cdef H1Upstream new(Plane plane, Cluster cluster, Endpoint endpoint):
        cdef H1Upstream upstream = H1Upstream.__new__(H1Upstream)
        upstream.plane = plane
        upstream.cluster = cluster
        upstream.endpoint = endpoint
        upstream.timer.owner = <PyObject *> upstream
        upstream.state = UP_IDLE
        return upstream

    cdef void take_over(self, Pollable dial, uint32_t events) noexcept:
        self.plane.poller.replace(dial, self)
        if events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR):
            self.ended = True
        if self.tls != NULL or events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR):
            # what came along with the connection, or with the last flight of its handshake: the kernel does not tell it again
            self.readable = True
            self.plane.poller.push_ready(self)
        self.idle()

    # ---- readiness -----------------------------------------------------------------------------------------------------

    cdef void on_io(self, uint32_t events) noexcept:
        if self.state == UP_FLUSH:
            self.write(NULL, 0)
            return
        if events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR):
            self.ended = True
        if events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR):
            self.readable = True
            if not self.paused:
                self.read()
        if events & EPOLLOUT and self.state != UP_CLOSED and (self.out.size or self.tls != NULL and self.tls.waiting):
            self.write(NULL, 0)

    cdef void on_ready(self) noexcept:
        if self.state != UP_CLOSED and self.state != UP_FLUSH and not self.paused and (self.readable or self.input.end > self.input.start):
            self.read()

    cdef void on_flush(self) noexcept:
        if self.state != UP_CLOSED:
            self.write(NULL, 0)

    cdef void on_timer(self, Timer *timer) noexcept:
        if self.state == UP_IDLE and self.plane.poller.now_ms < self.idle_until:
            if self.tls != NULL:
                tls_rest(self.tls)
            self.plane.wheel.arm(&self.timer, self.idle_until)
        elif self.state == UP_IDLE or self.state == UP_FLUSH:
            self.lost(LOSS_STALE, F_NONE)

    cdef void keep_session(self) noexcept:
        """The session for the next connection; with TLS 1.3 its ticket came after the handshake, by the first answer at the latest."""
        if not self.cluster.is_same_tls(self.client):
            return
        if self.endpoint.session != NULL:
            tls_session_free(self.endpoint.session)
        self.endpoint.session = tls_session(self.tls)

    cdef void idle(self) noexcept:
        """The connection is free: somebody waits for it, or it idles, or nobody wants it."""
        self.idle_until = self.plane.poller.now_ms + self.cluster.idle_timeout
        self.plane.wheel.arm(&self.timer, self.idle_until)
        if self.client is not self.cluster.tls and not self.cluster.is_same_tls(self.client):
            # made under another identity (name, authorities, own certificate)
            self.lost(LOSS_STALE, F_NONE)
            return
        if self.tls != NULL and self.leases and self.tls.grown:
            # looked at sooner, see on_timer
            self.plane.wheel.arm(&self.timer, self.plane.poller.now_ms + REST_MS)
        if not self.cluster.give_back(self.endpoint, self, self.leases == 0):
            self.lost(LOSS_STALE, F_NONE)

    # ---- lease: what the exchange calls --------------------------------------------------------------------------------

    cdef void lease(self, Flow flow) noexcept:
        self.flow = flow
        self.state = UP_HEAD
        self.leases += 1
        self.sent = 0
        self.informational = 0
        self.paused = False
        self.request_done = False
        self.got_bytes = False
        self.drained_due = False
        self.broken = False
        memset(&self.parser, 0, sizeof(self.parser))
        flow.borrow_response().clear()

    cdef void send_request(self, HeaderBlock head, bint has_more) noexcept:
        cdef uint8_t *to
        cdef bint upgrade = head.flags & HEAD_UPGRADE != 0
        self.method = head.method
        self.asked_upgrade = upgrade
        self.framing = head.framing
        to = out_reserve(&self.out, h1_head_bound(head))
        if to == NULL:
            self.lost(LOSS_CONNECT, F_NONE)
            return
        out_commit(&self.out, h1_encode_request(
            to, head, head.framing, head.length, CONN_UPGRADE if upgrade else CONN_NONE, head.flags & HEAD_TE_TRAILERS != 0))
        self.request_done = not has_more
        self.plane.poller.push_flush(self)

    cdef bint send_body(self, const uint8_t *p, size_t n) noexcept:
        if self.state == UP_CLOSED or self.broken:
            return False
        if self.framing == FRAME_CHUNKED and h1_queue_chunk(&self.out, n) < 0:
            self.lost(LOSS_RESET, F_NONE)
            return False
        if n >= DIRECT:
            self.write(p, n)
        elif out_append(&self.out, p, n) < 0:
            self.lost(LOSS_RESET, F_NONE)
        else:
            self.plane.poller.push_flush(self)
        if self.state == UP_CLOSED:
            return False
        if self.framing == FRAME_CHUNKED:
            if out_append(&self.out, <const uint8_t *> b"\r\n", 2) < 0:
                self.lost(LOSS_RESET, F_NONE)
                return False
            self.plane.poller.push_flush(self)
        if self.out.size > HIGH_WATER:
            self.drained_due = True
            return True
        return False

    cdef void finish_request(self, HeaderBlock trailers) noexcept:
        if self.state == UP_CLOSED:
            return
        self.request_done = True
        if self.state == UP_TUNNEL:
            self.shut_down()
            return
        if self.framing == FRAME_CHUNKED:
            if h1_queue_last_chunk(&self.out, trailers) < 0:
                self.lost(LOSS_RESET, F_NONE)
                return
            self.plane.poller.push_flush(self)

    cdef void pause_reading(self) noexcept:
        self.paused = True

    cdef void resume_reading(self) noexcept:
        if self.paused:
            self.paused = False
            self.plane.poller.push_ready(self)

    cdef void open_tunnel(self) noexcept:
        self.state = UP_TUNNEL
        self.framing = FRAME_CLOSE
        self.request_done = False

    cdef void cancel(self) noexcept:
        self.flow = None
        if self.state == UP_TUNNEL and self.out.size and not self.broken:
            # Nobody reads the answer any more, but what the client said last is still to be delivered.
            self.state = UP_FLUSH
            self.plane.wheel.arm(&self.timer, self.plane.poller.now_ms + FLUSH_MS)
            self.plane.poller.push_flush(self)
            return
        self.lost(LOSS_RESET, F_NONE)

    # ---- writing -------------------------------------------------------------------------------------------------------

    cdef void write(self, const uint8_t *p, size_t n) noexcept:
        cdef bint more = self.plane.more and n >= DIRECT
        cdef Py_ssize_t sent = transport_send(self.fd, self.tls, &self.out, p, n, more)
        self.corked = more
        if sent < 0 and self.state == UP_FLUSH:
            self.lost(LOSS_RESET, F_NONE)
            return
        if sent < 0:
            # What the origin said before it closed (an early 413) is read first; on_ready and read see to the end.
            out_clear(&self.out)
            self.broken = self.readable = True
            self.keep = False
            self.plane.poller.push_ready(self)
            return
        self.sent += <uint64_t> sent
        self.plane.counters.bump(S_UPSTREAM_BYTES_OUT, <uint64_t> sent)
        if self.drained_due and self.out.size <= LOW_WATER and self.flow is not None:
            self.drained_due = False
            self.flow.on_upstream_drained()
        if self.out.size == 0 and self.state == UP_FLUSH:
            self.lost(LOSS_RESET, F_NONE)
        elif self.out.size == 0 and self.shut and self.fd >= 0:
            self.shut_down()

    cdef void push(self) noexcept:
        cdef int one = 1
        if self.corked and self.fd >= 0:
            self.corked = False
            # Said again, it also pushes out what MSG_MORE holds back (tcp(7)); a Unix socket refuses it, and holds nothing back.
            setsockopt(self.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))

    cdef void shut_down(self) noexcept:
        """The client has finished its side of a tunnel: so do we, once everything is written."""
        self.shut = True
        if self.out.size == 0:
            if self.tls != NULL:
                tls_finish(self.tls, self.fd)
            shutdown(self.fd, SHUT_WR)

    # ---- reading -------------------------------------------------------------------------------------------------------

    cdef void read(self) noexcept:
        cdef uint8_t *scratch = self.plane.scratch
        cdef ssize_t got
        cdef size_t used
        cdef size_t held
        cdef int left = READS
        held = self.input.end - self.input.start
        if held and (self.state == UP_BODY or self.state == UP_TUNNEL):
            used = self.feed(self.input.data + self.input.start, held)
            if self.state == UP_CLOSED:
                return
            in_consume(&self.input, used)
            if self.paused:
                return
        if self.full >= MUCH and self.pull():
            return
        while left:
            left -= 1
            got = transport_recv(self.fd, self.tls, scratch, SCRATCH)
            if got > 0:
                self.plane.counters.bump(S_UPSTREAM_BYTES_IN, <uint64_t> got)
                if self.state == UP_IDLE or self.state == UP_HEAD and self.sent == 0:
                    # bytes that no request asked for (checklist item 15), also when one is about to
                    self.plane.counters.fault(F_EXTRA)
                    self.lost(self.loss_now(), F_EXTRA)
                    return
                self.got_bytes = True
                held = self.input.end - self.input.start
                if held:
                    if in_append(&self.input, scratch, <size_t> got) < 0:
                        self.lost(LOSS_RESET, F_NONE)
                        return
                    used = self.feed(self.input.data + self.input.start, held + <size_t> got)
                    if self.state == UP_CLOSED:
                        return
                    in_consume(&self.input, used)
                else:
                    self.plane.more = got == SCRATCH
                    used = self.feed(scratch, <size_t> got)
                    self.plane.more = False
                    if self.state == UP_CLOSED:
                        return
                    if used < <size_t> got and in_append(&self.input, scratch + used, <size_t> got - used) < 0:
                        self.lost(LOSS_RESET, F_NONE)
                        return
                if self.state == UP_TUNNEL and self.tls == NULL:
                    self.full = self.full + 1 if got == SCRATCH and self.full < MUCH else 0
                if transport_drained(self.tls, got, SCRATCH) and not self.ended:
                    self.readable = False
                    return
                if self.paused:
                    return
            elif got == 0:
                self.readable = False
                self.on_eof()
                return
            else:
                self.readable = False
                if got != IO_AGAIN or self.broken:
                    self.lost(self.loss_now(), F_NONE)
                elif self.flow is not None:
                    self.flow.on_response_lull()
                return
        self.plane.poller.push_ready(self)

    cdef bint pull(self) noexcept:
        """Much comes through a tunnel: the flow moves it from socket to socket. False: receive as ever."""
        cdef ssize_t got
        cdef int left = READS
        while left:
            left -= 1
            got = self.flow.pull_response(self.fd)
            if got > 0:
                self.plane.counters.bump(S_UPSTREAM_BYTES_IN, <uint64_t> got)
                if self.state != UP_TUNNEL or self.paused:
                    return True
            elif got == PULL_NOT:
                self.full = 0
                return False
            elif got == PULL_HELD:
                return True
            else:
                self.readable = False
                if got == 0:
                    self.on_eof()
                elif got == PULL_LOST or self.broken:
                    self.lost(self.loss_now(), F_NONE)
                return True
        self.plane.poller.push_ready(self)
        return True

    cdef int loss_now(self) noexcept:
        """What it means that the connection broke at this point."""
        if self.state == UP_IDLE:
            return LOSS_STALE
        if self.state == UP_HEAD:
            if self.sent == 0:
                return LOSS_UNSENT
            return LOSS_STALE if self.leases > 1 and not self.got_bytes else LOSS_RESET
        return LOSS_TRUNCATED

    cdef void on_eof(self) noexcept:
        if self.state == UP_BODY and h1_body_eof(&self.decoder) == 0 and (self.tls == NULL or not self.tls.cut):
            self.keep = False
            self.on_end(False)
        elif self.state == UP_TUNNEL:
            # half-close: the origin has finished, the client may go on
            self.flow.on_response_end(None)
        elif self.state == UP_IDLE:
            self.lost(LOSS_STALE, F_NONE)
        elif self.state == UP_BODY:
            self.lost(LOSS_TRUNCATED, F_BODY_SHORT)
        else:
            self.lost(self.loss_now(), F_NONE)

    cdef size_t feed(self, const uint8_t *p, size_t n) noexcept:
        """Consumes what it can of p[0:n]; the number of bytes. The caller keeps the rest and looks at the state."""
        cdef size_t used = 0
        cdef size_t took
        while used < n and not self.paused:
            if self.state == UP_BODY:
                used += self.feed_body(p + used, n - used)
            elif self.state == UP_HEAD:
                took = self.feed_head(p + used, n - used)
                if took == 0:
                    break
                used += took
            elif self.state == UP_TUNNEL:
                self.flow.on_response_body(p + used, n - used)
                return n
            else:
                # closed, or idle again with bytes left over: on_end has seen to it
                return n
        return used

    cdef size_t feed_head(self, const uint8_t *p, size_t n) noexcept:
        cdef HeaderBlock head = self.flow.borrow_response()
        cdef int took = h1_parse_response(&self.parser, head, p, n, &RESPONSE_LIMITS, self.method)
        cdef size_t used
        if took == 0:
            return 0
        if took < 0:
            self.plane.counters.fault(-took)
            self.lost(LOSS_GARBAGE, -took)
            return n
        used = <size_t> took
        if head.status < 200 and head.status != 101:
            self.informational += 1
            if self.informational > MAX_INFORMATIONAL:
                self.plane.counters.fault(F_INFORMATIONAL_MANY)
                self.lost(LOSS_GARBAGE, F_INFORMATIONAL_MANY)
                return n
            self.flow.on_informational(head)
            if self.state == UP_HEAD:
                head.clear()
            return used
        if head.status == 101:
            if not self.asked_upgrade or not head.flags & HEAD_UPGRADE:
                self.plane.counters.fault(F_SWITCHED)
                self.lost(LOSS_GARBAGE, F_SWITCHED)
                return n
            self.keep = False
            self.state = UP_BODY
            self.flow.on_response_head(head)
            return used
        self.on_head(head)
        if self.state == UP_BODY and (head.framing == FRAME_NONE or head.framing == FRAME_LENGTH and head.length == 0):
            self.on_end(used < n)
            return n
        return used

    cdef void on_head(self, HeaderBlock head) noexcept:
        self.keep = head.flags & HEAD_KEEP_ALIVE != 0 and head.framing != FRAME_CLOSE
        h1_body_start(&self.decoder, head.framing, head.length, False)
        self.state = UP_BODY
        self.flow.on_response_head(head)

    cdef size_t feed_body(self, const uint8_t *p, size_t n) noexcept:
        cdef size_t used = 0
        cdef size_t took
        cdef Span span
        cdef HeaderBlock trailers = self.flow.borrow_trailers()
        cdef int step
        while not self.paused:
            took = 0
            step = h1_body_decode(&self.decoder, trailers, p + used, n - used, &took, &span)
            used += took
            if step == BODY_DATA:
                # With the last byte of a known length in hand the end can go out in the same write.
                if self.decoder.framing == FRAME_LENGTH and self.decoder.remaining == 0:
                    self.plane.more = False
                self.flow.on_response_body(span.p, span.n)
                if self.state != UP_BODY:
                    return n
                if self.decoder.framing == FRAME_LENGTH and self.decoder.remaining == 0:
                    self.on_end(used < n)
                    return n
                if used == n:
                    return n
            elif step == BODY_END:
                self.on_end(used < n)
                return n
            elif step < 0:
                self.plane.counters.fault(-step)
                self.lost(LOSS_TRUNCATED, -step)
                return n
            else:
                return n
        return used

    cdef void on_end(self, bint extra) noexcept:
        """The response is complete. The connection is given back first, so that what the exchange starts next can have it."""
        cdef Flow flow = self.flow
        cdef HeaderBlock trailers = flow.borrow_trailers()
        self.flow = None
        if extra:
            self.plane.counters.fault(F_EXTRA)
        if self.tls != NULL and self.leases == 1:
            # also where the connection ends with its one answer: who closes so often is asked for a handshake as often
            self.keep_session()
        if self.keep and self.request_done and not extra and not self.ended and not self.broken and self.out.size == 0:
            self.state = UP_IDLE
            self.idle()
        else:
            self.lost(LOSS_STALE, F_NONE)
        flow.on_response_end(trailers if trailers.count else None)

    # ---- the end -------------------------------------------------------------------------------------------------------

    cdef void lost(self, int loss, int fault) noexcept:
        """Closes the connection and tells whoever has to know; safe to call in any state."""
        cdef Flow flow = self.flow
        cdef uint8_t state = self.state
        if state == UP_CLOSED:
            return
        self.state = UP_CLOSED
        self.flow = None
        self.plane.wheel.disarm(&self.timer)
        if self.fd >= 0:
            if self.tls != NULL:
                tls_finish(self.tls, self.fd)
            self.plane.poller.remove(self, False)
            close(self.fd)
            self.fd = -1
        self.cluster.on_gone(self.endpoint, self, state == UP_IDLE)
        if flow is not None:
            flow.on_upstream_lost(loss, fault)
        if self.cluster.is_hungry(self.endpoint):
            self.plane.dialer.dial(self.cluster, self.endpoint)
