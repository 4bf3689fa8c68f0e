"""Client connections that speak HTTP/1.1; see downstream.pxd."""

from cpython.ref cimport PyObject
from libc.string cimport memcmp, memcpy

from gateway._core.acceptor cimport Acceptor, is_aged, learn_address
from gateway._core.buf cimport in_append, in_clear, in_consume, out_append, out_clear, out_commit, out_reserve
from gateway._core.counters cimport (
    S_BYTES_IN,
    S_BYTES_OUT,
    S_CONNECTIONS_REFUSED,
    S_DEADLINE_BODY,
    S_DEADLINE_HEAD,
    S_DEADLINE_IDLE,
)
from gateway._core.exchange cimport PHASE_HEAD, Exchange
from gateway._core.onlooker cimport describe_exchange
from gateway._core.faults cimport F_BODY_SHORT, fault_name, fault_status
from gateway._core.h1_body cimport BODY_DATA, BODY_END, h1_body_decode, h1_body_start
from gateway._core.h1_encode cimport (
    CONN_CLOSE,
    CONN_KEEP_ALIVE,
    CONN_NONE,
    CONN_UPGRADE,
    h1_encode_response,
    h1_head_bound,
    h1_queue_chunk,
    h1_queue_last_chunk,
)
from gateway._core.h1_parse cimport HeadLimits, h1_is_foreign, h1_parse_request
from gateway._core.h2_frame cimport PREFACE, h2_preface
from gateway._core.headers cimport HEAD_EXPECT_CONTINUE, HEAD_KEEP_ALIVE, HeaderBlock
from gateway._core.plane cimport DIRECT, HIGH_WATER, LOW_WATER, MIN_RATE, SCRATCH, Plane
from gateway._core.seam cimport Pollable
from gateway._core.snapshot cimport NONE, LimitsRec, Snapshot
from gateway._core.sys cimport (
    EPOLLERR,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    EPOLLRDHUP,
    IPPROTO_TCP,
    SHUT_WR,
    SO_LINGER,
    SOL_SOCKET,
    TCP_NODELAY,
    close,
    setsockopt,
    shutdown,
    so_linger,
    ssize_t,
)
from gateway._core.timers cimport Timer
from gateway._core.tls cimport (
    IO_AGAIN,
    Tls,
    tls_close,
    tls_finish,
    tls_rest,
    tls_version,
    transport_drained,
    transport_recv,
    transport_send,
)
from gateway._core.types cimport (
    FLAG_DC,
    FLAG_DPE,
    FLAG_DT,
    FRAME_CHUNKED,
    FRAME_CLOSE,
    FRAME_LENGTH,
    FRAME_NONE,
    M_HEAD,
    Span,
)

cdef enum:
    READS = 4              # receives per turn
    DROPPED = 65536        # bytes of content that are read and dropped to keep a connection usable
    LINGER_MS = 2000       # how long a client may take to see a response after which we close
    STALL_MS = 30000       # a client that reads must take STALL_BYTES, or everything, in this time
    STALL_BYTES = 16384
    HALF_CLOSED_MS = 800   # silence towards a client that has finished sending, after which it counts as gone
    REST_MS = 1000         # idle time after which a TLS connection gives back the memory that large content left it with
    LAST_CALL_MS = 500     # how long an idle connection may still bring a request once draining has begun

cdef dict STATES = {
    DOWN_IDLE: "idle", DOWN_HEAD: "head", DOWN_BODY: "body", DOWN_WAIT: "wait", DOWN_TUNNEL: "tunnel", DOWN_FLUSH: "flush",
    DOWN_LINGER: "linger",
}



cdef class H1Downstream(Downstream):
    def __dealloc__(self):
        in_clear(&self.input)
        out_clear(&self.out)
        if self.tls != NULL:
            tls_close(self.tls)

    @staticmethod
    cdef H1Downstream new(Acceptor acceptor):
        cdef H1Downstream down = H1Downstream.__new__(H1Downstream)
        down.plane = acceptor.plane
        down.acceptor = acceptor
        down.timer.owner = <PyObject *> down
        down.state = DOWN_IDLE
        down.opened_ms = acceptor.plane.poller.now_ms
        down.spread = <uint8_t> (acceptor.plane.next_random() >> 56)
        return down

    cdef void open(self, int fd) noexcept:
        self.fd = fd
        if self.plane.poller.add(self, False) < 0:
            close(fd)
            self.fd = -1
            self.state = DOWN_CLOSED
            self.plane.counters.bump(S_CONNECTIONS_REFUSED, 1)
            return
        self.acceptor.enter()
        self.await_request()

    cdef void take_over(self, Pollable door, const uint8_t *p, size_t n) noexcept:
        self.plane.poller.replace(door, self)
        self.await_request()
        if n and in_append(&self.input, p, n) < 0:
            self.close()
            return
        # what the kernel told the doorway it does not tell again
        self.readable = True
        self.plane.poller.push_ready(self)

    cdef const LimitsRec *limits(self) noexcept:
        """Of the listener that routing chose, while an exchange is on; of the port otherwise."""
        if self.exchange is not None and self.exchange.limits != NULL:
            return self.exchange.limits
        return self.acceptor.limits()

    cdef void set_deadline(self, uint64_t deadline) noexcept:
        self.deadline = deadline
        self.plane.wheel.arm(&self.timer, deadline)

    cdef void await_request(self) noexcept:
        """How long the next request may be in coming."""
        cdef uint64_t patience = self.limits().idle_timeout
        if self.plane.draining and patience > LAST_CALL_MS:
            patience = LAST_CALL_MS
        self.set_deadline(self.plane.poller.now_ms + patience)

    # ---- readiness -----------------------------------------------------------------------------------------------------

    cdef void on_io(self, uint32_t events) noexcept:
        if events & EPOLLERR:
            # reset by the client: what it sent before is worth nothing any more
            self.lost(FLAG_DC)
            return
        if events & (EPOLLRDHUP | EPOLLHUP):
            self.ended = True
            self.watch_half_closed()
        if events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP):
            self.readable = True
            if self.wants_input():
                self.read()
        if events & EPOLLOUT and self.state != DOWN_CLOSED and (self.out.size or self.tls != NULL and self.tls.waiting):
            self.write(NULL, 0)

    cdef void watch_half_closed(self) noexcept:
        """A client that only finished sending looks like one that closed, until something is written to it: it gets a while."""
        if self.ended and self.state == DOWN_WAIT and not self.watched:
            self.set_deadline(self.plane.poller.now_ms + HALF_CLOSED_MS)

    cdef bint wants_input(self) noexcept:
        return not self.paused and self.state != DOWN_WAIT and self.state != DOWN_FLUSH and self.state != DOWN_CLOSED

    cdef void on_ready(self) noexcept:
        if self.wants_input() and (self.readable or self.input.end > self.input.start):
            self.read()

    cdef void on_flush(self) noexcept:
        if self.state != DOWN_CLOSED:
            self.write(NULL, 0)

    cdef void on_timer(self, Timer *timer) noexcept:
        cdef uint64_t now = self.plane.poller.now_ms
        cdef const LimitsRec *limits = self.limits()
        if self.state == DOWN_IDLE and self.out.size == 0:
            if self.tls != NULL:
                tls_rest(self.tls)
            if now < self.deadline:
                self.set_deadline(self.deadline)
                return
            if not self.plane.draining:
                self.plane.counters.bump(S_DEADLINE_IDLE, 1)
            self.close()
        elif self.state == DOWN_HEAD:
            if now < self.head_ms + limits.header_timeout:
                self.set_deadline(self.head_ms + limits.header_timeout)
                return
            self.plane.counters.bump(S_DEADLINE_HEAD, 1)
            self.refuse(408, FLAG_DT, b"header_timeout")
        elif self.state == DOWN_LINGER or self.state == DOWN_FLUSH and self.out.size == 0:
            self.close()
        elif self.watched:
            # a client that takes nothing, or a drip (class D9)
            if self.moved < self.progress + STALL_BYTES:
                self.lost(FLAG_DC)
                return
            self.progress = self.moved
            self.set_deadline(now + STALL_MS)
        elif self.state == DOWN_WAIT and self.ended:
            if now < self.deadline:
                self.set_deadline(self.deadline)
                return
            self.lost(FLAG_DC)
        elif self.state == DOWN_BODY and not self.paused and limits.body_timeout:
            if now < self.deadline:
                self.set_deadline(self.deadline)
                return
            if self.moved - self.progress < <uint64_t> MIN_RATE * limits.body_timeout // 1000:
                self.plane.counters.bump(S_DEADLINE_BODY, 1)
                if self.exchange is None:
                    self.close()
                elif self.exchange.responded:
                    self.exchange.flags |= FLAG_DT
                    self.exchange.give_up()
                else:
                    self.close_after = True
                    self.exchange.reply(408, FLAG_DT, b"body_timeout")
                return
            self.progress = self.moved
            self.set_deadline(now + limits.body_timeout)
        else:
            self.progress = self.moved
            self.set_deadline(now + (limits.body_timeout if limits.body_timeout else <uint32_t> STALL_MS))

    # ---- reading -------------------------------------------------------------------------------------------------------

    cdef void read(self) noexcept:
        cdef uint8_t *scratch = self.plane.scratch
        cdef ssize_t got
        cdef size_t used
        cdef size_t held = self.input.end - self.input.start
        cdef int left = READS
        if held:
            used = self.feed(self.input.data + self.input.start, held)
            if self.state == DOWN_CLOSED:
                return
            in_consume(&self.input, used)
            if not self.wants_input():
                return
        while left and self.readable:
            left -= 1
            got = transport_recv(self.fd, self.tls, scratch, SCRATCH)
            if got > 0:
                self.plane.counters.bump(S_BYTES_IN, <uint64_t> got)
                self.moved += <uint64_t> got
                if transport_drained(self.tls, got, SCRATCH) and not self.ended:
                    self.readable = False
                held = self.input.end - self.input.start
                if held:
                    if in_append(&self.input, scratch, <size_t> got) < 0:
                        self.lost(FLAG_DC)
                        return
                    used = self.feed(self.input.data + self.input.start, held + <size_t> got)
                    if self.state == DOWN_CLOSED:
                        return
                    in_consume(&self.input, used)
                else:
                    self.plane.more = got == SCRATCH
                    used = self.feed(scratch, <size_t> got)
                    self.plane.more = False
                    if self.state == DOWN_CLOSED:
                        return
                    if used < <size_t> got and in_append(&self.input, scratch + used, <size_t> got - used) < 0:
                        self.lost(FLAG_DC)
                        return
                if not self.wants_input():
                    return
            elif got == 0:
                self.readable = False
                self.eof = True
                self.on_eof()
                return
            else:
                self.readable = False
                if got != IO_AGAIN:
                    self.lost(FLAG_DC)
                elif self.exchange is not None:
                    self.exchange.on_request_lull()
                return
        if self.readable:
            self.plane.poller.push_ready(self)

    cdef void on_eof(self) noexcept:
        if self.state == DOWN_IDLE:
            if self.out.size:
                self.state = DOWN_FLUSH
            else:
                self.close()
        elif self.state == DOWN_LINGER:
            self.close()
        elif self.state == DOWN_TUNNEL:
            self.exchange.on_request_end(None)
        elif self.state == DOWN_HEAD:
            # half a head: nobody waits for an answer to it
            self.exchange.refuse(0, FLAG_DC, b"head_cut")
            self.exchange = None
            self.close()
        elif self.state == DOWN_BODY:
            if self.exchange is None:
                self.end_after_flush()
            else:
                # the upstream must see an aborted message, not a complete one (checklist item 10)
                self.plane.counters.fault(F_BODY_SHORT)
                self.lost(FLAG_DC)

    cdef size_t feed(self, const uint8_t *p, size_t n) noexcept:
        """Consumes what it can of p[0:n]; the number of bytes. The caller keeps the rest and looks at the state."""
        cdef size_t used = 0
        cdef size_t took
        while used < n and not self.paused:
            if self.state == DOWN_IDLE or self.state == DOWN_HEAD:
                took = self.feed_head(p + used, n - used)
                if took == 0:
                    break
                used += took
            elif self.state == DOWN_BODY:
                used += self.feed_body(p + used, n - used)
            elif self.state == DOWN_WAIT or self.state == DOWN_FLUSH:
                break
            elif self.state == DOWN_TUNNEL:
                self.exchange.on_request_body(p + used, n - used)
                return n
            else:
                return n
        return used

    cdef void bind(self, Exchange ex) noexcept:
        """Puts the exchange on the snapshot that is in use, and on the port as it is there."""
        ex.binding = self.plane.binding
        ex.port = self.acceptor.port
        ex.limits = self.acceptor.limits()
        if ex.port != NONE:
            ex.port_number = self.acceptor.port_number()

    cdef size_t feed_head(self, const uint8_t *p, size_t n) noexcept:
        cdef Exchange ex = self.exchange
        cdef const LimitsRec *limits
        cdef HeadLimits head_limits
        cdef int took
        if ex is None:
            if self.requests == 0 and p[0] == 80:
                # HTTP/2 by prior knowledge (RFC 9113 §3.3): what no HTTP/1.1 client says first
                if memcmp(p, h2_preface(), n if n < PREFACE else <size_t> PREFACE) == 0:
                    if n < PREFACE:
                        self.set_deadline(self.opened_ms + self.limits().header_timeout)
                        return 0
                    self.become_h2(p, n)
                    return n
            ex = Exchange.new(self.plane, self)
            self.exchange = ex
            self.parser.pos = self.parser.scan = 0
            self.parser.phase = self.parser.blank = 0
            self.head_ms = self.plane.poller.now_ms
            self.state = DOWN_HEAD
            self.bind(ex)
            if self.address.n == 0:
                learn_address(self.fd, &self.address)
            memcpy(ex.peer, self.address.text, self.address.n)
            ex.peer_n = self.address.n
            if self.tls != NULL:
                ex.secure = True
                ex.promised = self.promised
                ex.certificate = self.certificate
        elif ex.binding is not self.plane.binding:
            # a request begins when its head is complete: until then it follows the configuration
            self.bind(ex)
        limits = ex.limits
        head_limits.max_count = limits.max_header_count
        head_limits.max_bytes = limits.max_header_bytes
        head_limits.max_line = limits.max_request_line
        took = h1_parse_request(&self.parser, ex.request, p, n, &head_limits)
        if took == 0:
            if self.timer.slot == 0 or self.deadline > self.head_ms + limits.header_timeout:
                self.set_deadline(self.head_ms + limits.header_timeout)
            return 0
        if took < 0:
            self.plane.counters.fault(-took)
            if self.requests == 0 and h1_is_foreign(p, n):
                self.exchange.refuse(0, FLAG_DPE, fault_name(-took))
                self.exchange = None
                self.close()
            else:
                self.refuse(fault_status(-took), FLAG_DPE, fault_name(-took))
            return n
        self.requests += 1
        self.version = ex.request.version
        self.is_head = ex.request.method == M_HEAD
        self.close_after = not ex.request.flags & HEAD_KEEP_ALIVE
        h1_body_start(&self.decoder, ex.request.framing, ex.request.length, True)
        if ex.request.framing == FRAME_NONE or ex.request.framing == FRAME_LENGTH and ex.request.length == 0:
            self.state = DOWN_WAIT
            ex.request.framing = FRAME_NONE if ex.request.framing == FRAME_NONE else FRAME_LENGTH
            self.watch_half_closed()
        else:
            self.state = DOWN_BODY
            self.progress = self.moved
            if limits.body_timeout:
                self.set_deadline(self.plane.poller.now_ms + limits.body_timeout)
        if ex.port == NONE:
            ex.reply(404, 0, b"listener_gone")
        else:
            ex.begin()
            if self.state == DOWN_WAIT and self.exchange is ex and ex.request.framing == FRAME_LENGTH and not ex.request_done:
                ex.on_request_end(None)
        return <size_t> took

    cdef void become_h2(self, const uint8_t *p, size_t n) noexcept:
        cdef Tls *tls = self.tls
        self.tls = NULL
        self.state = DOWN_CLOSED
        self.plane.wheel.disarm(&self.timer)
        self.acceptor.speak_h2(self, tls, &self.address, self.certificate, self.promised, p, n)

    cdef size_t feed_body(self, const uint8_t *p, size_t n) noexcept:
        cdef size_t used = 0
        cdef size_t took
        cdef Span span
        cdef HeaderBlock trailers = self.exchange.trailers if self.exchange is not None else None
        cdef int step
        while not self.paused and self.state == DOWN_BODY:
            took = 0
            step = h1_body_decode(&self.decoder, trailers, p + used, n - used, &took, &span)
            used += took
            if step == BODY_DATA:
                if self.exchange is None:
                    if span.n > self.drop_budget:
                        self.end_after_flush()
                        return n
                    self.drop_budget -= <uint32_t> span.n
                else:
                    if self.decoder.framing == FRAME_LENGTH and self.decoder.remaining == 0:
                        self.plane.more = False
                    self.exchange.on_request_body(span.p, span.n)
                    if self.state != DOWN_BODY:
                        break
                if self.decoder.framing == FRAME_LENGTH and self.decoder.remaining == 0:
                    self.request_complete()
                    return used
                if used == n:
                    return n
            elif step == BODY_END:
                self.request_complete()
                return used
            elif step < 0:
                if self.exchange is None:
                    self.end_after_flush()
                else:
                    self.close_after = True
                    self.exchange.on_request_fault(-step)
                return n
            else:
                return n
        return used

    cdef void request_complete(self) noexcept:
        cdef HeaderBlock trailers
        if self.exchange is None:
            self.next_request()
            return
        self.state = DOWN_WAIT
        self.watch_half_closed()
        trailers = self.exchange.trailers
        self.exchange.on_request_end(trailers if trailers.count else None)

    cdef void refuse(self, int status, uint32_t flag, const char *detail) noexcept:
        """Answers a head that is not valid, and closes: nothing after it is parsed (checklist item 46)."""
        self.close_after = True
        self.is_head = False
        self.version = 11
        self.exchange.refuse(status, flag, detail)

    # ---- what the exchange calls ---------------------------------------------------------------------------------------

    cdef void pause_reading(self) noexcept:
        self.paused = True

    cdef void resume_reading(self) noexcept:
        if self.paused:
            self.paused = False
            self.progress = self.moved
            self.plane.poller.push_ready(self)

    cdef void send_informational(self, HeaderBlock head) noexcept:
        cdef uint8_t *to
        # an HTTP/1.0 client never sees one (RFC 9110 §15.2)
        if self.version == 10 or self.state == DOWN_CLOSED:
            return
        to = out_reserve(&self.out, h1_head_bound(head))
        if to == NULL:
            return
        out_commit(&self.out, h1_encode_response(to, head, FRAME_NONE, 0, CONN_NONE, False))
        self.plane.poller.push_flush(self)

    cdef bint must_close(self, HeaderBlock head) noexcept:
        """Whether the response about to be sent is the connection's last."""
        cdef const LimitsRec *limits = self.limits()
        if self.close_after or self.plane.draining or self.acceptor.fd < 0 or self.acceptor.port == NONE or self.eof:
            return True
        if limits.max_requests and self.requests >= limits.max_requests:
            return True
        if is_aged(limits, self.opened_ms, self.spread, self.plane.poller.now_ms):
            return True
        # Unread content of an early response is either short enough to be read and dropped, or ends the connection (item 11).
        if self.state == DOWN_BODY and self.exchange is not None:
            # A client that waited for 100 may send its content now or leave it: what comes next is not to be told apart (item 41).
            if self.exchange.request.flags & HEAD_EXPECT_CONTINUE and self.decoder.content == 0:
                return True
            if self.decoder.framing != FRAME_LENGTH or self.decoder.remaining > DROPPED:
                return True
        return False

    cdef void send_head(self, HeaderBlock head) noexcept:
        cdef uint8_t *to
        cdef int connection = CONN_NONE
        cdef bint bodiless = self.is_head or head.status == 204 or head.status == 304
        cdef uint8_t framing = head.framing
        if self.state == DOWN_CLOSED:
            return
        if head.status == 101:
            connection = CONN_UPGRADE
            framing = FRAME_NONE
        else:
            self.close_after = self.must_close(head)
            if bodiless:
                framing = FRAME_NONE
            elif framing != FRAME_LENGTH:
                if framing == FRAME_NONE:
                    head.length = 0
                    framing = FRAME_LENGTH
                elif self.version == 10:
                    framing = FRAME_CLOSE
                    self.close_after = True
                else:
                    framing = FRAME_CHUNKED
            if self.close_after:
                connection = CONN_CLOSE
            elif self.version == 10:
                connection = CONN_KEEP_ALIVE
        self.framing = framing
        to = out_reserve(&self.out, h1_head_bound(head))
        if to == NULL:
            self.lost(FLAG_DC)
            return
        out_commit(&self.out, h1_encode_response(to, head, framing, head.length, connection, bodiless))
        self.plane.poller.push_flush(self)

    cdef bint send_body(self, const uint8_t *p, size_t n) noexcept:
        if self.state == DOWN_CLOSED or self.framing == FRAME_NONE and self.state != DOWN_TUNNEL:
            return False
        if self.framing == FRAME_CHUNKED and h1_queue_chunk(&self.out, n) < 0:
            self.lost(FLAG_DC)
            return False
        if n >= DIRECT:
            self.write(p, n)
        elif out_append(&self.out, p, n) < 0:
            self.lost(FLAG_DC)
        else:
            self.plane.poller.push_flush(self)
        if self.state == DOWN_CLOSED:
            return False
        if self.framing == FRAME_CHUNKED:
            if out_append(&self.out, <const uint8_t *> b"\r\n", 2) < 0:
                self.lost(FLAG_DC)
                return False
            self.plane.poller.push_flush(self)
        if self.out.size > HIGH_WATER:
            self.drained_due = True
            return True
        return False

    cdef void finish(self, HeaderBlock trailers) noexcept:
        if self.state == DOWN_CLOSED:
            return
        if self.state == DOWN_TUNNEL:
            if self.eof:
                self.exchange = None
                self.end_after_flush()
            else:
                self.shut = True
                self.plane.poller.push_flush(self)
            return
        self.exchange = None
        self.drained_due = False
        if self.framing == FRAME_CHUNKED:
            if h1_queue_last_chunk(&self.out, trailers) < 0:
                self.lost(FLAG_DC)
                return
            self.plane.poller.push_flush(self)
        if self.close_after:
            self.end_after_flush()
        elif self.state == DOWN_BODY:
            # the response came before the content did: the rest of it is dropped
            self.paused = False
            self.drop_budget = DROPPED
            if self.decoder.framing != FRAME_LENGTH or self.decoder.remaining > DROPPED:
                self.end_after_flush()
            else:
                self.plane.poller.push_ready(self)
        else:
            self.next_request()

    cdef void next_request(self) noexcept:
        self.state = DOWN_IDLE
        # Answers that a client does not fetch: no further request until it does, see write.
        self.paused = self.out.size > HIGH_WATER
        self.await_request()
        if self.tls != NULL and self.tls.grown:
            # Looked at sooner: its buffers are given back then, and not between two answers of a busy connection.
            self.plane.wheel.arm(&self.timer, self.plane.poller.now_ms + REST_MS)
        if not self.paused and (self.readable or self.input.end > self.input.start):
            self.plane.poller.push_ready(self)

    cdef void open_tunnel(self) noexcept:
        self.state = DOWN_TUNNEL
        self.framing = FRAME_CLOSE
        if self.readable or self.input.end > self.input.start:
            self.plane.poller.push_ready(self)

    cdef void abort(self) noexcept:
        # Without the last chunk, or short of the length: the client sees that it is not complete. What is queued may still help it.
        # Nor is it told close_notify, which would say that everything was sent.
        cdef so_linger reset
        self.exchange = None
        if self.state == DOWN_CLOSED:
            return
        self.write(NULL, 0)
        if self.state == DOWN_CLOSED:
            return
        if self.tls != NULL:
            self.tls.is_shut = True
        if self.framing == FRAME_CLOSE:
            # where the end of the connection is the end of the content, only a reset says that it is not
            reset.l_onoff = 1
            reset.l_linger = 0
            setsockopt(self.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset))
        self.close()

    # ---- writing -------------------------------------------------------------------------------------------------------

    cdef void write(self, const uint8_t *p, size_t n) noexcept:
        cdef bint more = self.plane.more and n >= DIRECT
        cdef Py_ssize_t sent = transport_send(self.fd, self.tls, &self.out, p, n, more)
        self.corked = more
        if sent < 0:
            out_clear(&self.out)
            self.lost(FLAG_DC)
            return
        self.moved += <uint64_t> sent
        self.plane.counters.bump(S_BYTES_OUT, <uint64_t> sent)
        if self.out.size == 0:
            self.watched = False
            self.watch_half_closed()
        elif not self.watched:
            # From now on the client has to take its bytes at a rate, see on_timer; a drip does not move the deadline.
            self.watched = True
            self.progress = self.moved
            self.set_deadline(self.plane.poller.now_ms + STALL_MS)
        if self.drained_due and self.out.size <= LOW_WATER and self.exchange is not None:
            self.drained_due = False
            self.exchange.on_downstream_drained()
        if self.paused and self.state == DOWN_IDLE and self.out.size <= LOW_WATER:
            self.resume_reading()
        if self.out.size == 0:
            if self.state == DOWN_FLUSH:
                self.end_after_flush()
            elif self.state == DOWN_IDLE:
                self.await_request()
            elif self.shut and self.state == DOWN_TUNNEL:
                self.shut_down()

    cdef void shut_down(self) noexcept:
        """Our side has nothing more to say."""
        if self.tls != NULL:
            tls_finish(self.tls, self.fd)
        shutdown(self.fd, SHUT_WR)

    cdef void push(self) noexcept:
        cdef int one = 1
        if self.corked and self.state != DOWN_CLOSED:
            self.corked = False
            # Said again, it also pushes out what MSG_MORE holds back (tcp(7)); a Unix socket refuses it, and holds nothing back.
            setsockopt(self.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))

    # ---- the end -------------------------------------------------------------------------------------------------------

    cdef void end_after_flush(self) noexcept:
        """Closes once everything is written, and in a way that the client gets to read it."""
        cdef bint unread = self.state == DOWN_BODY or self.state == DOWN_HEAD or self.input.end > self.input.start or self.readable
        if self.state != DOWN_FLUSH:
            self.linger = unread and not self.eof
            self.state = DOWN_FLUSH
            self.set_deadline(self.plane.poller.now_ms + STALL_MS)
        if self.out.size:
            self.plane.poller.push_flush(self)
            return
        if not self.linger:
            self.close()
            return
        # Closing with input unread would reset the connection under the response (RFC 9112 §9.6).
        self.shut_down()
        self.state = DOWN_LINGER
        self.paused = False
        self.set_deadline(self.plane.poller.now_ms + LINGER_MS)
        self.readable = True
        self.plane.poller.push_ready(self)

    cdef void lost(self, uint32_t flag) noexcept:
        """The client is gone."""
        cdef Exchange ex = self.exchange
        self.exchange = None
        if self.state == DOWN_CLOSED:
            return
        self.close()
        if ex is not None:
            if ex.phase == PHASE_HEAD:
                ex.refuse(0, flag, b"client_gone")
            else:
                ex.on_downstream_lost(flag)

    cdef void close(self) noexcept:
        if self.state == DOWN_CLOSED:
            return
        self.state = DOWN_CLOSED
        self.plane.wheel.disarm(&self.timer)
        if self.tls != NULL and self.out.size == 0:
            tls_finish(self.tls, self.fd)
        self.plane.poller.remove(self, False)
        close(self.fd)
        self.fd = -1
        self.acceptor.leave()

    cdef void drain(self) noexcept:
        """An idle connection is not closed at once: a request may be on its way to it, and would be lost without an answer."""
        if self.state == DOWN_IDLE:
            self.await_request()

    cdef void cut(self) noexcept:
        self.lost(0)

    cdef dict describe(self):
        cdef Exchange ex = self.exchange
        cdef dict row
        if self.address.n == 0:
            learn_address(self.fd, &self.address)
        row = {
            "peer": f"{self.address.text[:self.address.n].decode('ascii', 'replace')}:{self.address.port}",
            "listener": self.acceptor.names(),
            "state": STATES.get(self.state, "closed"),
            "tls": tls_version(self.tls).decode() if self.tls != NULL else "",
            "age_ms": self.plane.poller.now_ms - self.opened_ms,
            "requests": self.requests,
            "queued_bytes": self.out.size,
            "held_bytes": self.input.end - self.input.start,
        }
        if ex is not None and ex.phase:
            row.update(describe_exchange(ex))
        return row
