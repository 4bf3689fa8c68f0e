"""HTTP/2 connections to endpoints and their streams; see h2_upstream.pxd."""

from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject

from gateway._core.buf cimport in_append, in_clear, in_consume
from gateway._core.counters cimport S_UPSTREAM_BYTES_IN, S_UPSTREAM_BYTES_OUT
from gateway._core.faults cimport F_NONE
from gateway._core.h2_frame cimport H2E_CANCEL
from gateway._core.h2_session cimport H2Limits, H2Session, h2_limits_start
from gateway._core.h2_sink cimport (
    BLOCK_RESPONSE,
    GONE_BROKEN,
    GONE_FAULT,
    GONE_UNPROCESSED,
    H2Sink,
)
from gateway._core.h2_stream cimport H2Stream
from gateway._core.headers cimport HEAD_UPGRADE, HEAD_WEBSOCKET, HeaderBlock
from gateway._core.plane cimport SCRATCH, Plane
from gateway._core.pool cimport Cluster, Endpoint
from gateway._core.seam cimport (
    LOSS_GARBAGE,
    LOSS_RESET,
    LOSS_STALE,
    LOSS_TRUNCATED,
    LOSS_UNSENT,
    Flow,
    Mux,
    Pollable,
    Upstream,
)
from gateway._core.sys cimport EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, close, ssize_t
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
from gateway._core.types cimport FRAME_CHUNKED, FRAME_STREAM, uint8_t, uint32_t, uint64_t
from gateway._core.websocket cimport key_of, ok_to_switched

cdef enum:
    READS = 4              # receives per turn
    WRITES = 8             # fillings of the output per turn
    LOOK_MS = 1000         # how often deadlines are looked at
    STREAMS = 256          # leases of one connection at most, whatever the peer allows
    MAX_AGE_MS = 3600000   # after this and up to a quarter more a connection takes no new streams, so that load follows new endpoints
    PING_MS = 30000        # silence on a connection with streams after which it is asked whether it lives
    PONG_MS = 10000        # and how long it may take to say so


cdef class H2ClientSink(H2Sink):
    cdef HeaderBlock borrow_block(self, H2Stream *stream, int kind):
        cdef Flow flow = (<H2ClientStream> stream.owner).flow
        if flow is None:
            return None
        return flow.borrow_response() if kind == BLOCK_RESPONSE else flow.borrow_trailers()

    cdef void on_informational(self, H2Stream *stream, HeaderBlock head) noexcept:
        cdef Flow flow = (<H2ClientStream> stream.owner).flow
        if flow is not None:
            flow.on_informational(head)

    cdef void on_head(self, H2Stream *stream, HeaderBlock head, bint ended) noexcept:
        cdef H2ClientStream up = <H2ClientStream> stream.owner
        up.has_head = True
        if up.flow is None:
            return
        if head.framing == FRAME_STREAM:
            # content without a length: to an exchange that is what chunks are
            head.framing = FRAME_CHUNKED
        if up.asked_websocket and 200 <= head.status < 300 and ok_to_switched(head, up.key) < 0:
            up.end(LOSS_RESET, F_NONE)
        elif up.flow is not None:
            up.flow.on_response_head(head)

    cdef void on_data(self, H2Stream *stream, const uint8_t *p, size_t n) noexcept:
        cdef Flow flow = (<H2ClientStream> stream.owner).flow
        if flow is not None:
            flow.on_response_body(p, n)

    cdef void on_end(self, H2Stream *stream, HeaderBlock trailers) noexcept:
        cdef H2ClientStream up = <H2ClientStream> stream.owner
        cdef Flow flow = up.flow
        if flow is None:
            return
        if not up.is_tunnel:
            # The answer is complete: whatever becomes of the stream, the lease is over.
            up.flow = None
        flow.on_response_end(trailers)
        if not up.is_tunnel and up.stream != NULL and not up.stream.local_done:
            # The answer came before the request was complete, which it will never be now (RFC 9113 §8.1).
            up.connection.session.reset(up.stream, H2E_CANCEL)

    cdef void on_drained(self, H2Stream *stream) noexcept:
        cdef Flow flow = (<H2ClientStream> stream.owner).flow
        if flow is not None:
            flow.on_upstream_drained()

    cdef void on_gone(self, H2Stream *stream, int how, uint32_t code, int fault) noexcept:
        cdef H2Upstream connection = self.connection
        cdef H2ClientStream up = <H2ClientStream> stream.owner
        up.stream = NULL
        stream.owner = NULL
        connection.streams -= 1
        if connection.streams == 0:
            connection.idle_ms = connection.plane.poller.now_ms
        if how == GONE_UNPROCESSED:
            up.end(LOSS_UNSENT, F_NONE)
        elif how == GONE_FAULT:
            up.end(LOSS_GARBAGE, fault)
        elif up.has_head:
            up.end(LOSS_TRUNCATED, fault)
        elif how == GONE_BROKEN and up.sent == 0:
            up.end(LOSS_UNSENT, fault)
        elif how == GONE_BROKEN and connection.served > 1:
            # as a pooled connection of HTTP/1.1 that turns out to be dead
            up.end(LOSS_STALE, fault)
        else:
            up.end(LOSS_RESET, fault)
        connection.plane.poller.gone.append(up)
        Py_DECREF(up)
        connection.count_room()

    cdef void on_fault(self, int fault) noexcept:
        self.connection.plane.counters.fault(fault)

    cdef void on_settings(self) noexcept:
        cdef H2Upstream connection = self.connection
        cdef list deferred = connection.deferred
        cdef H2ClientStream up
        connection.deferred = []
        for up, head in deferred:
            if up.flow is not None and not connection.closed:
                up.send_request(<HeaderBlock> head, False)
        if not connection.closed:
            connection.count_room()

    cdef void on_goaway(self, uint32_t last, uint32_t code) noexcept:
        self.connection.leaving = True
        self.connection.count_room()

    cdef void on_pong(self) noexcept:
        self.connection.pinged = False

    cdef void on_output(self) noexcept:
        if not self.connection.closed:
            self.connection.plane.poller.push_flush(self.connection)

    cdef void on_over(self) noexcept:
        self.connection.over = self.connection.leaving = True
        self.connection.room = 0
        if not self.connection.closed:
            self.connection.plane.poller.push_flush(self.connection)


# ---- the connection ----------------------------------------------------------------------------------------------------


cdef class H2Upstream(Mux):
    def __dealloc__(self):
        in_clear(&self.input)
        if self.tls != NULL:
            tls_close(self.tls)

    @staticmethod
    cdef H2Upstream new(Plane plane, Cluster cluster, Endpoint endpoint):
        cdef H2Upstream upstream = H2Upstream.__new__(H2Upstream)
        upstream.plane = plane
        upstream.cluster = cluster
        upstream.endpoint = endpoint
        upstream.timer.owner = <PyObject *> upstream
        upstream.deferred = []
        upstream.idle_ms = upstream.heard_ms = plane.poller.now_ms
        upstream.retire_ms = plane.poller.now_ms + MAX_AGE_MS + plane.next_random() % (MAX_AGE_MS // 4)
        return upstream

    cdef void take_over(self, Pollable dial, uint32_t events) noexcept:
        cdef H2Limits limits
        self.plane.poller.replace(dial, self)
        h2_limits_start(&limits)
        limits.head.max_count = 256
        limits.head.max_list = 65536
        self.sink = H2ClientSink.__new__(H2ClientSink)
        self.sink.connection = self
        self.session = H2Session.new(self.sink, False, &limits, self.plane.poller.now_ms)
        self.plane.wheel.arm(&self.timer, self.plane.poller.now_ms + LOOK_MS)
        if events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR):
            self.ended = True
        # what came along with the connection, or with the last flight of its handshake: the kernel does not tell it again
        self.readable = True
        self.plane.poller.push_ready(self)
        self.plane.poller.push_flush(self)
        self.room = STREAMS
        self.cluster.on_mux(self.endpoint, self)

    cdef Upstream open_stream(self):
        cdef H2Stream *stream
        cdef H2ClientStream up
        self.session.now_ms = self.plane.poller.now_ms
        stream = self.session.open()
        if stream == NULL:
            self.room = 0
            return None
        up = H2ClientStream.new(self, stream)
        # the session's own reference, given back by on_gone
        Py_INCREF(up)
        stream.owner = <PyObject *> up
        self.streams += 1
        self.served += 1
        self.room -= 1
        return up

    cdef void count_room(self) noexcept:
        """What the peer allows now; whoever waits for it is told."""
        cdef uint32_t had = self.room
        cdef uint32_t most = STREAMS - self.streams if self.streams < STREAMS else 0
        self.room = 0 if self.leaving else min(most, self.session.room())
        if self.room and not had:
            self.cluster.on_room(self.endpoint, self)

    cdef void retire(self) noexcept:
        if not self.leaving and not self.closed:
            self.leaving = True
            self.room = 0
            self.session.now_ms = self.plane.poller.now_ms
            self.session.drain()
            self.plane.poller.push_flush(self)

    # ---- readiness -----------------------------------------------------------------------------------------------------

    cdef void on_io(self, uint32_t events) noexcept:
        if events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR):
            self.ended = True
        if events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR):
            self.readable = True
            self.read()
        if events & EPOLLOUT and not self.closed:
            self.write()

    cdef void on_ready(self) noexcept:
        if not self.closed and self.readable:
            self.read()

    cdef void on_flush(self) noexcept:
        if not self.closed:
            self.write()

    cdef void on_timer(self, Timer *timer) noexcept:
        cdef uint64_t now = self.plane.poller.now_ms
        self.session.tick(now)
        if self.closed:
            return
        if self.client is not self.cluster.tls and not self.cluster.is_same_tls(self.client) or now >= self.retire_ms:
            self.retire()
        if self.streams == 0:
            if self.tls != NULL:
                tls_rest(self.tls)
            if now >= self.idle_ms + self.cluster.idle_timeout:
                self.retire()
        elif self.pinged and now >= self.heard_ms + PING_MS + PONG_MS:
            self.close()
            return
        elif not self.pinged and now >= self.heard_ms + PING_MS:
            self.pinged = True
            self.session.ping()
        if not self.closed:
            self.plane.wheel.arm(&self.timer, now + LOOK_MS)

    # ---- bytes ---------------------------------------------------------------------------------------------------------

    cdef bint feed(self, const uint8_t *p, size_t n) noexcept:
        """Gives the session what came in, and keeps the frame that is not complete; False when the connection is closed by then."""
        cdef size_t used
        cdef bint is_held = self.input.end > self.input.start
        if is_held:
            if in_append(&self.input, p, n) < 0:
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
        while left and self.readable:
            left -= 1
            got = transport_recv(self.fd, self.tls, scratch, SCRATCH)
            if got > 0:
                self.plane.counters.bump(S_UPSTREAM_BYTES_IN, <uint64_t> got)
                if transport_drained(self.tls, got, SCRATCH) and not self.ended:
                    self.readable = False
                self.session.now_ms = self.heard_ms = self.plane.poller.now_ms
                if not self.feed(scratch, <size_t> got):
                    return
            elif got == IO_AGAIN:
                self.readable = False
                return
            else:
                self.readable = False
                self.close()
                return
        if self.readable:
            self.plane.poller.push_ready(self)

    cdef void write(self) noexcept:
        cdef Py_ssize_t sent
        cdef int left = WRITES
        self.session.now_ms = self.plane.poller.now_ms
        while left:
            left -= 1
            self.session.pump()
            if self.session.out.size == 0:
                break
            sent = transport_send(self.fd, self.tls, &self.session.out, NULL, 0, False)
            if sent < 0:
                # What the origin said before it closed is read first.
                self.readable = True
                self.read()
                self.close()
                return
            self.plane.counters.bump(S_UPSTREAM_BYTES_OUT, <uint64_t> sent)
            self.session.on_written()
            if self.closed or self.session.out.size:
                return
        if self.session.out.size == 0 and self.over:
            self.close()
        elif left == 0:
            self.plane.poller.push_flush(self)

    # ---- the end -------------------------------------------------------------------------------------------------------

    cdef void close(self) noexcept:
        if self.closed:
            return
        self.closed = self.leaving = True
        self.room = 0
        self.plane.wheel.disarm(&self.timer)
        if self.tls != NULL:
            if self.endpoint.session != NULL:
                tls_session_free(self.endpoint.session)
            self.endpoint.session = tls_session(self.tls)
            tls_finish(self.tls, self.fd)
        self.plane.poller.remove(self, False)
        close(self.fd)
        self.fd = -1
        # every stream that is open hears on_gone
        self.session.close()
        self.sink.connection = None
        self.cluster.on_mux_gone(self.endpoint, self)


# ---- one stream --------------------------------------------------------------------------------------------------------


cdef class H2ClientStream(Upstream):
    @staticmethod
    cdef H2ClientStream new(H2Upstream connection, H2Stream *stream):
        cdef H2ClientStream up = H2ClientStream.__new__(H2ClientStream)
        up.connection = connection
        up.stream = stream
        return up

    cdef void end(self, int loss, int fault) noexcept:
        cdef Flow flow = self.flow
        self.flow = None
        if flow is not None:
            flow.on_upstream_lost(loss, fault)

    cdef void lease(self, Flow flow) noexcept:
        self.flow = flow
        flow.borrow_response().clear()

    cdef void send_request(self, HeaderBlock head, bint has_more) noexcept:
        if self.stream == NULL:
            self.end(LOSS_UNSENT, F_NONE)
            return
        if head.flags & HEAD_UPGRADE:
            if not self.connection.session.has_settings:
                # Whether the origin knows extended CONNECT is in its first frame, which is on its way (RFC 8441 §3).
                self.connection.deferred.append((self, head))
                return
            if not head.flags & HEAD_WEBSOCKET or self.connection.session.remote.connect != 1:
                # There is no other Upgrade in HTTP/2, and this origin does not know that one (RFC 8441 §3).
                self.connection.session.reset(self.stream, H2E_CANCEL)
                return
            self.asked_websocket = has_more = True
            self.key = key_of(head)
        # from here on nobody may say that the origin has not seen it, but the origin
        self.sent += 1
        self.connection.session.send_request(self.stream, head, has_more, self.connection.tls != NULL)

    cdef bint send_body(self, const uint8_t *p, size_t n) noexcept:
        if self.stream == NULL:
            return False
        self.sent += n
        return self.connection.session.send_data(self.stream, p, n)

    cdef void finish_request(self, HeaderBlock trailers) noexcept:
        if self.stream != NULL:
            self.connection.session.finish(self.stream, trailers)

    cdef void pause_reading(self) noexcept:
        if self.stream != NULL:
            self.connection.session.pause(self.stream)

    cdef void resume_reading(self) noexcept:
        if self.stream != NULL:
            self.connection.session.resume(self.stream)

    cdef void open_tunnel(self) noexcept:
        self.is_tunnel = True

    cdef void cancel(self) noexcept:
        self.flow = None
        if self.stream != NULL:
            self.connection.session.reset(self.stream, H2E_CANCEL)
