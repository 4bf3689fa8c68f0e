"""HTTP/2 connections from clients and their streams; see h2_downstream.pxd."""

from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.string cimport memcpy

from gateway._core.acceptor cimport Acceptor, is_aged, learn_address
from gateway._core.buf cimport Block, OutQueue, in_append, in_clear, in_consume, out_append, out_consume
from gateway._core.counters cimport S_BYTES_IN, S_BYTES_OUT, S_DEADLINE_BODY, S_DEADLINE_IDLE
from gateway._core.exchange cimport PHASE_HEAD, Exchange
from gateway._core.faults cimport fault_name, fault_status
from gateway._core.grpc cimport is_grpc
from gateway._core.h2_frame cimport FRAME_HEAD, H2_DATA, H2E_INTERNAL, h2_put_head
from gateway._core.h2_send cimport PUMP_MARK, QUANTUM
from gateway._core.h2_session cimport H2Limits, H2Session, h2_limits_start
from gateway._core.h2_sink cimport BLOCK_REQUEST, GONE_FAULT, GONE_RESET, H2Sink
from gateway._core.h2_stream cimport H2Stream
from gateway._core.headers cimport HEAD_UPGRADE, HEAD_WEBSOCKET, HeaderBlock
from gateway._core.plane cimport MIN_RATE, SCRATCH, Plane
from gateway._core.seam cimport Pollable
from gateway._core.snapshot cimport NONE, LimitsRec
from gateway._core.sys cimport (
    EPOLLERR,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    EPOLLRDHUP,
    IPPROTO_TCP,
    MSG_MORE,
    MSG_NOSIGNAL,
    SHUT_WR,
    TCP_NODELAY,
    close,
    send,
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
    tls_version,
    transport_drained,
    transport_recv,
    transport_send,
)
from gateway._core.types cimport (
    FLAG_DC,
    FLAG_DPE,
    FLAG_DT,
    FLAG_UPE,
    FRAME_CHUNKED,
    FRAME_NONE,
    FRAME_STREAM,
    uint8_t,
    uint32_t,
    uint64_t,
)
from gateway._core.websocket cimport connect_to_upgrade, switched_to_ok

cdef enum:
    READS = 4              # receives per turn
    WRITES = 8             # fillings of the output per turn
    STREAMS = 64           # that begin per turn; others have requests, too, and 64 KiB may hold two thousand
    LINGER_MS = 2000       # how long a client may take to see why its connection ends
    DROPPED = 262144       # bytes that are read and dropped meanwhile: who sends more does not listen
    LOOK_MS = 1000         # how often the session's deadlines are looked at while a stream is open
    MUCH = 32768           # content from this size on is written at once; smaller pieces are gathered
    LAID_BEFORE = 4096     # bytes of output that go along before it, at most
    LAID_MOST = 65536      # bytes of it in one write
    LAID = 70144           # both, and the heads of its frames

# Where content and the heads of its frames are laid out for one write. As one piece, and not as a list of pieces: the kernel copies each
# piece of a list by itself, and to places that the 9 bytes of a head have pushed off the cache lines, which takes twice as long.
cdef uint8_t laid[LAID]


cdef class H2ServerSink(H2Sink):
    cdef bint on_open(self, H2Stream *stream) noexcept:
        cdef H2Downstream connection = self.connection
        cdef H2ServerStream made
        if connection is None or connection.acceptor.port == NONE:
            return False
        made = H2ServerStream.new(connection, stream)
        # the session's own reference, given back by on_gone
        Py_INCREF(made)
        stream.owner = <PyObject *> made
        connection.streams += 1
        return True

    cdef HeaderBlock borrow_block(self, H2Stream *stream, int kind):
        cdef Exchange ex = (<H2ServerStream> stream.owner).exchange
        if ex is None:
            return None
        return ex.request if kind == BLOCK_REQUEST else ex.trailers

    cdef void on_head(self, H2Stream *stream, HeaderBlock head, bint ended) noexcept:
        cdef H2ServerStream down = <H2ServerStream> stream.owner
        cdef uint32_t most
        if down.exchange is None:
            return
        self.connection.requests += 1
        most = self.connection.limits().max_requests
        if most and self.connection.requests >= most:
            self.connection.wind_down()
        down.bind(head, ended)
        if not head.flags & HEAD_UPGRADE:
            down.exchange.begin()
        elif not head.flags & HEAD_WEBSOCKET:
            # an extended CONNECT for something that we do not know (RFC 9220 §3)
            down.exchange.refuse(501, FLAG_DPE, b"unknown_protocol")
        elif connect_to_upgrade(head, self.connection.plane.next_random(), self.connection.plane.next_random()) < 0:
            down.exchange.refuse(503, FLAG_DPE, b"memory")
        else:
            down.exchange.begin()

    cdef void on_refused(self, H2Stream *stream, HeaderBlock head, int fault) noexcept:
        cdef H2ServerStream down = <H2ServerStream> stream.owner
        if down.exchange is not None:
            down.bind(head, True)
            down.exchange.refuse(fault_status(fault), FLAG_DPE, fault_name(fault))

    cdef void on_data(self, H2Stream *stream, const uint8_t *p, size_t n) noexcept:
        cdef Exchange ex = (<H2ServerStream> stream.owner).exchange
        if ex is not None:
            ex.on_request_body(p, n)

    cdef void on_end(self, H2Stream *stream, HeaderBlock trailers) noexcept:
        cdef H2ServerStream down = <H2ServerStream> stream.owner
        cdef Exchange ex = down.exchange
        down.connection.plane.wheel.disarm(&down.timer)
        if ex is not None and (ex.tunnel or ex.request.framing != FRAME_NONE):
            ex.on_request_end(trailers)

    cdef void on_drained(self, H2Stream *stream) noexcept:
        cdef Exchange ex = (<H2ServerStream> stream.owner).exchange
        if ex is not None:
            ex.on_downstream_drained()

    cdef void on_gone(self, H2Stream *stream, int how, uint32_t code, int fault) noexcept:
        cdef H2Downstream connection = self.connection
        cdef H2ServerStream down = <H2ServerStream> stream.owner
        cdef Exchange ex = down.exchange
        cdef uint32_t flag = FLAG_DPE if how == GONE_FAULT else FLAG_DC
        down.exchange = None
        down.stream = NULL
        connection.plane.wheel.disarm(&down.timer)
        stream.owner = NULL
        connection.streams -= 1
        if connection.streams == 0:
            connection.idle_ms = connection.plane.poller.now_ms
        if ex is not None:
            if ex.phase == PHASE_HEAD:
                ex.refuse(0, flag, fault_name(fault) if fault else <const char *> b"client_gone")
            else:
                if fault:
                    ex.detail = fault_name(fault)
                elif how == GONE_RESET:
                    ex.detail = b"client_reset"
                ex.on_downstream_lost(flag)
        # Its methods may be on the stack.
        connection.plane.poller.gone.append(down)
        Py_DECREF(down)

    cdef void on_fault(self, int fault) noexcept:
        self.connection.plane.counters.fault(fault)

    cdef void on_output(self) noexcept:
        if not self.connection.closed:
            self.connection.plane.poller.push_flush(self.connection)

    cdef void on_over(self) noexcept:
        self.connection.over = True
        if not self.connection.closed:
            self.connection.plane.poller.push_flush(self.connection)


# ---- the connection ----------------------------------------------------------------------------------------------------


cdef class H2Downstream(Pollable):
    def __dealloc__(self):
        in_clear(&self.input)
        if self.tls != NULL:
            tls_close(self.tls)

    @staticmethod
    cdef H2Downstream new(Acceptor acceptor):
        cdef H2Downstream down = H2Downstream.__new__(H2Downstream)
        down.plane = acceptor.plane
        down.acceptor = acceptor
        down.timer.owner = <PyObject *> down
        down.opened_ms = down.idle_ms = acceptor.plane.poller.now_ms
        down.spread = <uint8_t> (acceptor.plane.next_random() >> 56)
        return down

    cdef const LimitsRec *limits(self) noexcept:
        return self.acceptor.limits()

    cdef void take_over(self, Pollable door, const uint8_t *p, size_t n) noexcept:
        cdef H2Limits limits
        cdef const LimitsRec *ours = self.limits()
        self.plane.poller.replace(door, self)
        h2_limits_start(&limits)
        limits.head.max_count = ours.max_header_count
        limits.head.max_list = ours.max_header_bytes
        limits.head.max_target = ours.max_request_line
        limits.connect = True
        self.sink = H2ServerSink.__new__(H2ServerSink)
        self.sink.connection = self
        self.session = H2Session.new(self.sink, True, &limits, self.plane.poller.now_ms)
        self.plane.wheel.arm(&self.timer, self.plane.poller.now_ms + LOOK_MS)
        self.session.quota = STREAMS
        if n and not self.feed(p, n):
            return
        self.stalled = self.session.quota == 0
        # what the kernel told the doorway it does not tell again
        self.readable = True
        self.plane.poller.push_ready(self)
        self.plane.poller.push_flush(self)

    # ---- readiness -----------------------------------------------------------------------------------------------------

    cdef void on_io(self, uint32_t events) noexcept:
        if events & EPOLLERR:
            self.close()
            return
        if events & (EPOLLRDHUP | EPOLLHUP):
            self.ended = True
        if events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP):
            self.readable = True
            self.read()
        if events & EPOLLOUT and not self.closed:
            self.write()

    cdef void on_ready(self) noexcept:
        if not self.closed and (self.readable or self.stalled):
            self.read()

    cdef void on_flush(self) noexcept:
        if not self.closed:
            self.write()

    cdef void on_timer(self, Timer *timer) noexcept:
        cdef uint64_t now = self.plane.poller.now_ms
        if self.parted:
            self.close()
            return
        self.session.tick(now)
        if self.closed:
            return
        if self.last_call and now >= self.last_call_ms + LOOK_MS:
            # the PING that goes with the first GOAWAY was not answered: it is not waited for any longer
            self.session.finish_drain()
        if self.streams == 0 and not self.over:
            if self.tls != NULL:
                tls_rest(self.tls)
            if now >= self.idle_ms + self.limits().idle_timeout:
                self.plane.counters.bump(S_DEADLINE_IDLE, 1)
                self.wind_down()
        if self.acceptor.fd < 0 or self.acceptor.port == NONE or self.plane.draining:
            self.wind_down()
        elif is_aged(self.limits(), self.opened_ms, self.spread, now):
            self.wind_down()
        if not self.closed:
            self.plane.wheel.arm(&self.timer, now + LOOK_MS)

    # ---- bytes ---------------------------------------------------------------------------------------------------------

    cdef bint feed(self, const uint8_t *p, size_t n) noexcept:
        """Gives the session what came in, and keeps the frame that is not complete; False when the connection is closed by then."""
        cdef size_t used
        cdef bint is_held = self.input.end > self.input.start
        if is_held:
            if n and in_append(&self.input, p, n) < 0:
                self.close()
                return False
            p = self.input.data + self.input.start
            n = self.input.end - self.input.start
        used = self.session.feed(p, n)
        if self.closed:
            return False
        if is_held:
            in_consume(&self.input, used)
        elif used < n and in_append(&self.input, p + used, n - used) < 0:
            self.close()
            return False
        return True

    cdef void read(self) noexcept:
        cdef uint8_t *scratch = self.plane.scratch
        cdef ssize_t got
        cdef int left = READS
        if not self.parted:
            self.session.quota = STREAMS
            self.session.now_ms = self.plane.poller.now_ms
            if self.stalled:
                self.stalled = False
                if not self.feed(NULL, 0) or self.is_enough():
                    return
        while left and self.readable:
            left -= 1
            got = transport_recv(self.fd, self.tls, scratch, SCRATCH)
            if got > 0:
                self.plane.counters.bump(S_BYTES_IN, <uint64_t> got)
                if transport_drained(self.tls, got, SCRATCH) and not self.ended:
                    self.readable = False
                if self.parted:
                    if <size_t> got > self.drop_budget:
                        self.close()
                        return
                    self.drop_budget -= <uint32_t> got
                    continue
                if not self.feed(scratch, <size_t> got) or self.is_enough():
                    return
            elif got == IO_AGAIN:
                self.readable = False
                return
            else:
                # An HTTP/2 peer that has closed its side hears nothing more either.
                self.readable = False
                self.close()
                return
        if self.readable:
            self.plane.poller.push_ready(self)

    cdef bint is_enough(self) noexcept:
        if self.session.quota or self.parted:
            return False
        self.stalled = True
        self.plane.poller.push_later(self)
        return True

    cdef void write(self) noexcept:
        cdef Py_ssize_t sent
        cdef int left = WRITES
        if self.parted:
            return
        if self.lost:
            self.close()
            return
        self.session.now_ms = self.plane.poller.now_ms
        while left:
            left -= 1
            self.session.pump()
            if self.session.out.size == 0:
                break
            sent = transport_send(self.fd, self.tls, &self.session.out, NULL, 0, False)
            if sent < 0:
                self.close()
                return
            self.full = self.session.out.size != 0
            self.corked = False
            self.plane.counters.bump(S_BYTES_OUT, <uint64_t> sent)
            self.session.on_written()
            if self.closed or self.session.out.size:
                return
        if self.session.out.size == 0 and self.over:
            self.part()
        elif left == 0:
            self.plane.poller.push_flush(self)

    cdef void relieve(self) noexcept:
        cdef Py_ssize_t sent = transport_send(self.fd, self.tls, &self.session.out, NULL, 0, False)
        if sent < 0:
            self.full = True
            self.plane.poller.push_flush(self)     # which finds it lost as well, and may close it
            return
        self.plane.counters.bump(S_BYTES_OUT, <uint64_t> sent)
        self.full = self.session.out.size != 0
        self.corked = False
        self.session.on_part_written()

    cdef size_t send_direct(self, H2Stream *stream, const uint8_t *p, size_t n) noexcept:
        cdef OutQueue *out = &self.session.out
        cdef Block *block = out.head
        cdef uint8_t *to = laid
        cdef bint more = self.plane.more
        cdef size_t before = out.size
        cdef size_t total
        cdef size_t part
        cdef size_t left
        cdef ssize_t sent
        if before > LAID_BEFORE:
            return 0                       # more lies before it than is worth another copy
        n = left = self.session.take_direct(stream, min(n, <size_t> LAID_MOST))
        if n == 0:
            return 0
        while block != NULL:
            part = block.end - block.start
            memcpy(to, block.data + block.start, part)
            to += part
            block = block.next
        while left:
            part = min(left, <size_t> QUANTUM)
            to = h2_put_head(to, part, H2_DATA, 0, stream.id)
            memcpy(to, p, part)
            to += part
            p += part
            left -= part
        total = <size_t> (to - laid)
        # Lengths of whole cache lines keep the kernel's next copy aligned; what is left over goes before the next piece.
        part = total & ~<size_t> 63 if more else total
        sent = send(self.fd, laid, part, MSG_NOSIGNAL | MSG_MORE if more else MSG_NOSIGNAL)
        self.full = sent < <ssize_t> part
        self.corked = more and not self.full
        if sent < 0:
            # The flush tries again, and closes when that fails too.
            sent = 0
            self.plane.poller.push_flush(self)
        self.plane.counters.bump(S_BYTES_OUT, <uint64_t> sent)
        part = min(<size_t> sent, before)
        if part:
            out_consume(out, part)
        part = max(<size_t> sent, before)
        if part < total and out_append(out, laid + part, total - part) < 0:
            # A frame that is not whole: nothing can come after it.
            self.lost = True
            self.plane.poller.push_flush(self)
        self.session.on_part_written()
        return n

    # ---- the end -------------------------------------------------------------------------------------------------------

    cdef void wind_down(self) noexcept:
        """No new streams: GOAWAY, and the end when those that are open are done (RFC 9113 §6.8)."""
        if not self.last_call and not self.closed and not self.parted:
            self.last_call = True
            self.last_call_ms = self.plane.poller.now_ms
            self.session.now_ms = self.plane.poller.now_ms
            self.session.drain()
            self.plane.poller.push_flush(self)

    cdef void part(self) noexcept:
        """Everything is said. Our side is shut, and what still comes is dropped until the client has closed its own: input that
        nobody has read would make a reset of the end, and the client might never see the GOAWAY (as RFC 9112 §9.6 tells it)."""
        if self.ended:
            self.close()
            return
        self.parted = True
        self.drop_budget = DROPPED
        # every stream that is open hears on_gone
        self.session.close()
        if self.tls != NULL:
            tls_finish(self.tls, self.fd)
        shutdown(self.fd, SHUT_WR)
        self.plane.wheel.arm(&self.timer, self.plane.poller.now_ms + LINGER_MS)
        self.readable = True
        self.plane.poller.push_ready(self)

    cdef void close(self) noexcept:
        if self.closed:
            return
        self.closed = True
        self.plane.wheel.disarm(&self.timer)
        if self.tls != NULL and self.session.out.size == 0:
            tls_finish(self.tls, self.fd)
        self.plane.poller.remove(self, False)
        close(self.fd)
        self.fd = -1
        # every stream that is open hears on_gone
        self.session.close()
        self.session = None
        self.sink.connection = None
        self.sink = None
        self.acceptor.leave()

    cdef void drain(self) noexcept:
        self.wind_down()

    cdef void cut(self) noexcept:
        self.close()

    cdef dict describe(self):
        if self.address.n == 0:
            learn_address(self.fd, &self.address)
        return {
            "peer": f"{self.address.text[:self.address.n].decode('ascii', 'replace')}:{self.address.port}",
            "listener": self.acceptor.names(),
            "state": "linger" if self.parted else "drain" if self.last_call else "streams" if self.streams else "idle",
            "tls": tls_version(self.tls).decode() if self.tls != NULL else "",
            "age_ms": self.plane.poller.now_ms - self.opened_ms,
            "requests": self.requests,
            "streams": self.streams,
            "queued_bytes": self.session.out.size,
            "held_bytes": self.session.held,
        }


# ---- one stream --------------------------------------------------------------------------------------------------------


cdef class H2ServerStream(Downstream):
    @staticmethod
    cdef H2ServerStream new(H2Downstream connection, H2Stream *stream):
        cdef H2ServerStream down = H2ServerStream.__new__(H2ServerStream)
        down.connection = connection
        down.stream = stream
        down.timer.owner = <PyObject *> down
        down.exchange = Exchange.new(connection.plane, down)
        return down

    cdef void bind(self, HeaderBlock head, bint ended) noexcept:
        """What the exchange has to know of its connection, once its head is complete."""
        cdef H2Downstream connection = self.connection
        cdef Exchange ex = self.exchange
        if head.framing == FRAME_STREAM:
            # content without a length: to an exchange that is what chunks are
            head.framing = FRAME_CHUNKED
        ex.binding = connection.plane.binding
        ex.port = connection.acceptor.port
        ex.limits = connection.acceptor.limits()
        if ex.port != NONE:
            ex.port_number = connection.acceptor.port_number()
        if connection.address.n == 0:
            learn_address(connection.fd, &connection.address)
        memcpy(ex.peer, connection.address.text, connection.address.n)
        ex.peer_n = connection.address.n
        if connection.tls != NULL:
            ex.secure = True
            ex.promised = connection.promised
            ex.certificate = connection.certificate
        if head.flags & HEAD_UPGRADE:
            # What comes before the tunnel is open waits: an origin that refuses it would take that for a request (checklist items 43 and 44).
            connection.session.pause(self.stream)
        elif not ended:
            self.watch()

    cdef void watch(self) noexcept:
        """The client has the whole body timeout from now on."""
        cdef Exchange ex = self.exchange
        self.progress = ex.bytes_in + ex.bytes_out
        if ex.limits.body_timeout:
            self.connection.plane.wheel.arm(&self.timer, self.connection.plane.poller.now_ms + ex.limits.body_timeout)

    cdef void on_timer(self, Timer *timer) noexcept:
        """The same rule as that of HTTP/1.1: silence, or a drip, inside the content of a request (class D10)."""
        cdef H2Downstream connection = self.connection
        cdef Exchange ex = self.exchange
        if ex is None or self.stream == NULL or self.stream.remote_done or is_grpc(ex.request):
            # A call may be silent as long as nothing else ends it: its messages come when they come.
            return
        if (
            not self.stream.paused and connection.session.withheld == 0
            and ex.bytes_in + ex.bytes_out - self.progress < <uint64_t> MIN_RATE * ex.limits.body_timeout // 1000
        ):
            connection.session.now_ms = connection.plane.poller.now_ms
            connection.plane.counters.bump(S_DEADLINE_BODY, 1)
            ex.reply(408, FLAG_DT, b"body_timeout")
            return
        self.watch()

    cdef void send_informational(self, HeaderBlock head) noexcept:
        if self.stream != NULL:
            self.connection.session.send_response(self.stream, head)

    cdef void send_head(self, HeaderBlock head) noexcept:
        if self.stream == NULL:
            return
        if head.status != 101:
            if self.stream.is_tunnel and 200 <= head.status < 300:
                # It would say that the tunnel is open (RFC 8441 §5), which the origin did not.
                head.status = 502
                if self.exchange is not None and self.exchange.downstream is not None:
                    # and not the gateway's own answer, in the form of gRPC
                    self.exchange.flags |= FLAG_UPE
                    self.exchange.detail = b"not_switched"
            self.connection.session.send_response(self.stream, head)
            return
        switched_to_ok(head)
        self.connection.session.send_response(self.stream, head)
        # the exchange goes on with what it knows
        head.status = 101

    cdef bint send_body(self, const uint8_t *p, size_t n) noexcept:
        cdef H2Downstream connection = self.connection
        cdef size_t took
        if self.stream == NULL:
            return False
        if not connection.full:
            if connection.session.out.size >= PUMP_MARK:
                connection.relieve()
            if n >= MUCH and connection.tls == NULL and not connection.full:
                took = connection.send_direct(self.stream, p, n)
                p += took
                n -= took
                if n == 0:
                    return False
        return connection.session.send_data(self.stream, p, n)

    cdef void push(self) noexcept:
        cdef int one = 1
        cdef H2Downstream connection = self.connection
        if not connection.corked or connection.closed:
            return
        if connection.session.out.size:
            connection.plane.poller.push_flush(connection)
        else:
            connection.corked = False
            # as H1Downstream does
            setsockopt(connection.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))

    cdef void finish(self, HeaderBlock trailers) noexcept:
        # A tunnel that its origin has ended goes on in the other direction.
        if not (self.exchange is not None and self.exchange.tunnel and not self.exchange.request_done):
            self.exchange = None
        if self.stream != NULL:
            self.connection.session.finish(self.stream, trailers)

    cdef void abort(self) noexcept:
        self.exchange = None
        if self.stream != NULL:
            self.connection.session.reset(self.stream, H2E_INTERNAL)

    cdef void open_tunnel(self) noexcept:
        if self.stream != NULL:
            self.connection.session.resume(self.stream)

    cdef void pause_reading(self) noexcept:
        if self.stream != NULL:
            self.connection.session.pause(self.stream)

    cdef void resume_reading(self) noexcept:
        if self.stream == NULL:
            return
        if self.timer.armed:
            # it was not the client who was waited for
            self.watch()
        self.connection.session.resume(self.stream)
