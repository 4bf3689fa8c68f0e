"""Connections that are carried byte for byte; see tunnel.pxd."""

from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.string cimport memcpy, memset, strlen

from gateway._core.acceptor cimport Acceptor, learn_address
from gateway._core.balance cimport hash64_of
from gateway._core.buf cimport (
    SPLICE_NONE,
    SPLICE_WAIT,
    OutQueue,
    in_append,
    in_clear,
    out_append,
    out_clear,
    out_rest,
    out_splice,
)
from gateway._core.client_hello cimport ALERT_BYTES, ALERT_INTERNAL_ERROR, ALERT_UNRECOGNIZED_NAME, ClientHello, encode_alert
from gateway._core.counters cimport (
    S_BYTES_IN,
    S_BYTES_OUT,
    S_CONNECTIONS_REFUSED,
    S_DEADLINE_IDLE,
    S_TLS_NO_NAME,
    S_TUNNELS,
    S_TUNNELS_ACTIVE,
    S_TUNNELS_FAILED,
)
from gateway._core.headers cimport HeaderBlock
from gateway._core.plane cimport DIRECT, HIGH_WATER, LOW_WATER, SCRATCH
from gateway._core.pool cimport ACQUIRED_DIAL, ACQUIRED_FULL
from gateway._core.record cimport CARRIED_TCP, CARRIED_TLS, RecordFacts
from gateway._core.router cimport find_tunnel, pick_backend
from gateway._core.seam cimport (
    LOSS_CONNECT_TIMEOUT,
    LOSS_TLS,
    LOSS_UNSENT,
    PULL_EMPTY,
    PULL_HELD,
    PULL_LOST,
    PULL_NOT,
    Pollable,
    Upstream,
)
from gateway._core.snapshot cimport NONE, Snapshot, id64
from gateway._core.sys cimport (
    CLOCK_REALTIME,
    EPOLLERR,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    EPOLLRDHUP,
    SHUT_WR,
    SO_LINGER,
    SOL_SOCKET,
    clock_us,
    close,
    setsockopt,
    shutdown,
    so_linger,
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
from gateway._core.types cimport FLAG_DC, FLAG_NC, FLAG_NR, FLAG_SI, FLAG_UC, FLAG_UF, FLAG_UH, FLAG_UO, Span
from gateway._core.upstream cimport H1Upstream

cdef enum:
    READS = 4              # receives per turn
    MUCH = 2               # full receives in a row after which bytes are moved without being seen
    STALL_MS = 30000       # a client must take STALL_BYTES of the last output, or all of it, in this time
    STALL_BYTES = 16384
    LINGER_MS = 2000       # how long a client may take to see an alert after which we close
    TLS_FATAL = 2
    TLS_10 = 0x0301        # what an alert says before a version is agreed upon
    BY_ADDRESS = 4         # ClusterRec.key_kind
    LISTENER_TLS = 2       # ListenerRec.protocol: passed through
    LISTENER_ENDED = 4     # ended here
    REST_MS = 1000         # idle time after which TLS gives back the memory that much at once left it with

cdef tuple STATES = ("", "waiting", "tunnel", "flush", "linger", "closed")

# What a lease clears before a request, and what the record of a tunnel is written with: there is no head.
cdef HeaderBlock no_head = HeaderBlock.new()


cdef void make_reset(int fd) noexcept nogil:
    """Closing the descriptor sends RST instead of FIN from now on."""
    cdef so_linger reset
    reset.l_onoff = 1
    reset.l_linger = 0
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset))


cdef void pass_cut(const Tls *source, Tls *target) noexcept nogil:
    """An end without close_notify may be somebody else's doing (RFC 8446 §6.1): where it goes on in TLS, it goes on without, too."""
    if source != NULL and source.cut and target != NULL:
        target.is_shut = True


cdef ssize_t over_with(OutQueue *queue, size_t *pulled, ssize_t got) noexcept nogil:
    """Nothing more came into the pipe for now. Who moved little since the last time receives as ever again."""
    cdef bint little = pulled[0] < SCRATCH
    pulled[0] = 0
    out_rest(queue)
    if got == SPLICE_WAIT:
        return PULL_NOT if little and queue.size == 0 else PULL_EMPTY
    if got == SPLICE_NONE:
        return PULL_NOT
    return 0 if got == 0 else PULL_LOST


# ---- the client's socket -----------------------------------------------------------------------------------------------


cdef class RawDownstream(Downstream):
    def __dealloc__(self):
        in_clear(&self.input)
        out_clear(&self.out)
        if self.tls != NULL:
            tls_close(self.tls)

    @staticmethod
    cdef RawDownstream new(Acceptor acceptor):
        cdef RawDownstream down = RawDownstream.__new__(RawDownstream)
        down.plane = acceptor.plane
        down.acceptor = acceptor
        down.timer.owner = <PyObject *> down
        down.state = RAW_WAIT
        down.opened_ms = acceptor.plane.poller.now_ms
        return down

    cdef bint open(self, int fd) noexcept:
        self.fd = fd
        if self.plane.poller.add(self, False) < 0:
            close(fd)
            self.fd = -1
            self.state = RAW_CLOSED
            self.plane.counters.bump(S_CONNECTIONS_REFUSED, 1)
            return False
        self.acceptor.enter()
        return True

    cdef bint take_over(self, Pollable door, const uint8_t *p, size_t n) noexcept:
        self.plane.poller.replace(door, self)
        # what the kernel told the doorway it does not tell again
        self.readable = True
        if n and in_append(&self.input, p, n) < 0:
            self.close()
            return False
        return True

    cdef void begin(self, uint32_t listener, const ClientHello *hello) noexcept:
        cdef Tunnel tunnel = Tunnel.__new__(Tunnel)
        cdef Snapshot snapshot = self.plane.binding.snapshot
        if self.address.n == 0:
            learn_address(self.fd, &self.address)
        # Both sockets let go of it before it has written its last line: until then it holds itself.
        Py_INCREF(tunnel)
        self.paused = True
        self.tunnel = tunnel
        tunnel.address = self.address
        tunnel.plane = self.plane
        tunnel.binding = self.plane.binding
        tunnel.down = self
        tunnel.listener = listener
        tunnel.limits = &snapshot.limits[snapshot.listeners[listener].limits]
        tunnel.timer.owner = <PyObject *> tunnel
        tunnel.wants_new = True
        tunnel.start_us = self.plane.poller.now_us
        tunnel.active_ms = self.plane.poller.now_ms
        if hello != NULL:
            tunnel.name_n = hello.name_n
            memcpy(tunnel.name, hello.name, hello.name_n)
        tunnel.route(hello)

    # ---- readiness -----------------------------------------------------------------------------------------------------

    cdef void on_io(self, uint32_t events) noexcept:
        if events & EPOLLERR:
            self.lost(FLAG_DC)
            return
        if events & (EPOLLRDHUP | EPOLLHUP):
            self.ended = True
        if events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP):
            self.readable = True
            if not self.paused:
                self.read()
        if events & EPOLLOUT and self.state != RAW_CLOSED and (self.out.size or self.tls != NULL and self.tls.waiting):
            self.write(NULL, 0)

    cdef void on_ready(self) noexcept:
        if self.readable and not self.paused and self.state != RAW_CLOSED:
            self.read()

    cdef void on_flush(self) noexcept:
        if self.state != RAW_CLOSED:
            self.write(NULL, 0)

    cdef void on_timer(self, Timer *timer) noexcept:
        if self.state == RAW_OPEN:
            self.rest()
        elif self.state == RAW_FLUSH and self.out.size and self.moved >= self.progress + STALL_BYTES:
            self.progress = self.moved
            self.plane.wheel.arm(&self.timer, self.plane.poller.now_ms + STALL_MS)
        else:
            self.close()

    # ---- reading -------------------------------------------------------------------------------------------------------

    cdef void read(self) noexcept:
        cdef uint8_t *scratch = self.plane.scratch
        cdef ssize_t got
        cdef int left = READS
        cdef bint told
        if self.full >= MUCH and self.tunnel is not None and self.pull():
            return
        while left:
            left -= 1
            got = transport_recv(self.fd, self.tls, scratch, SCRATCH)
            if got > 0:
                self.plane.counters.bump(S_BYTES_IN, <uint64_t> got)
                if self.tunnel is not None:
                    self.tunnel.on_request_body(scratch, <size_t> got)
                    if self.state == RAW_CLOSED:
                        return
                if self.tls == NULL:
                    self.full = self.full + 1 if got == SCRATCH and self.full < MUCH else 0
                # an end that was told already is not told again: it has to be read
                if transport_drained(self.tls, got, SCRATCH) and not self.ended:
                    self.readable = False
                    self.start_rest()
                    return
                if self.paused:
                    return
            elif got == IO_AGAIN:
                self.readable = False
                self.start_rest()
                return
            elif got == 0:
                self.readable = False
                # told again when the kernel's end comes after that of TLS
                told = self.eof
                self.eof = True
                if self.state == RAW_LINGER:
                    self.close()
                elif self.tunnel is not None and not told:
                    self.tunnel.on_request_end(None)
                return
            else:
                self.lost(FLAG_DC)
                return
        self.plane.poller.push_ready(self)

    cdef bint pull(self) noexcept:
        """As H1Upstream.pull, in the other direction."""
        cdef ssize_t got
        cdef int left = READS
        while left:
            left -= 1
            got = self.tunnel.pull_request(self.fd)
            if got > 0:
                self.plane.counters.bump(S_BYTES_IN, <uint64_t> got)
                if self.tunnel is None or self.paused:
                    return True
            elif got == PULL_NOT:
                self.full = 0
                return False
            elif got == PULL_HELD:
                return True
            else:
                self.readable = False
                if got == 0:
                    self.eof = True
                    self.tunnel.on_request_end(None)
                elif got == PULL_LOST:
                    self.lost(FLAG_DC)
                return True
        self.plane.poller.push_ready(self)
        return True

    # ---- what the tunnel calls -----------------------------------------------------------------------------------------

    cdef void pause_reading(self) noexcept:
        self.paused = True

    cdef void resume_reading(self) noexcept:
        if self.paused:
            self.paused = False
            self.plane.poller.push_ready(self)

    cdef bint send_body(self, const uint8_t *p, size_t n) noexcept:
        if self.state == RAW_CLOSED:
            return False
        if n >= DIRECT:
            self.write(p, n)
        elif out_append(&self.out, p, n) < 0:
            self.lost(FLAG_DC)
        else:
            self.plane.poller.push_flush(self)
        if self.out.size > HIGH_WATER:
            self.drained_due = True
            return True
        return False

    cdef void finish(self, HeaderBlock trailers) noexcept:
        """The endpoint has finished sending; the client may go on."""
        if not self.shut:
            self.shut = True
            self.plane.poller.push_flush(self)

    cdef void abort(self) noexcept:
        """What the endpoint sent last may still help; that it was not all of it must be seen."""
        self.tunnel = None
        if self.state != RAW_CLOSED:
            self.write(NULL, 0)
        self.reset()

    cdef void alert(self, int description) noexcept:
        cdef uint8_t record[ALERT_BYTES]
        cdef size_t n = encode_alert(record, TLS_FATAL, description, TLS_10)
        self.tunnel = None
        if self.state == RAW_CLOSED:
            return
        self.write(record, n)
        if self.state != RAW_CLOSED:
            self.start_linger()

    # ---- writing -------------------------------------------------------------------------------------------------------

    cdef void write(self, const uint8_t *p, size_t n) noexcept:
        cdef Py_ssize_t sent = transport_send(self.fd, self.tls, &self.out, p, n, False)
        if sent < 0:
            out_clear(&self.out)
            self.lost(FLAG_DC)
            return
        self.plane.counters.bump(S_BYTES_OUT, <uint64_t> sent)
        self.moved += <uint64_t> sent
        if sent and self.tunnel is not None:
            self.tunnel.active_ms = self.plane.poller.now_ms
        if self.drained_due and self.out.size <= LOW_WATER:
            self.drained_due = False
            if self.tunnel is not None:
                self.tunnel.on_downstream_drained()
        if self.out.size == 0:
            if self.state == RAW_FLUSH:
                if self.shut_down():
                    self.close()
            elif self.shut and self.state == RAW_OPEN:
                self.shut_down()
            else:
                self.start_rest()

    cdef void start_rest(self) noexcept:
        """Much went through: its memory is given back once nothing more comes."""
        if self.tls != NULL and self.tls.grown and self.state == RAW_OPEN:
            self.plane.wheel.arm(&self.timer, self.plane.poller.now_ms + REST_MS)

    cdef void rest(self) noexcept:
        cdef H1Upstream upstream = None if self.tunnel is None else <H1Upstream> self.tunnel.upstream
        if self.tls != NULL:
            tls_rest(self.tls)
        if upstream is not None and upstream.tls != NULL:
            tls_rest(upstream.tls)

    cdef bint shut_down(self) noexcept:
        """Everything is written: says so. False: close_notify is not with the kernel yet."""
        if self.tls != NULL:
            tls_finish(self.tls, self.fd)
            if self.tls.waiting:
                return False
        shutdown(self.fd, SHUT_WR)
        return True

    # ---- the end -------------------------------------------------------------------------------------------------------

    cdef void end_after_flush(self) noexcept:
        """Both sides have finished: closes once everything is written."""
        self.tunnel = None
        if self.state == RAW_CLOSED:
            return
        self.state = RAW_FLUSH
        self.paused = True
        self.progress = self.moved
        self.plane.wheel.arm(&self.timer, self.plane.poller.now_ms + STALL_MS)
        self.plane.poller.push_flush(self)

    cdef void start_linger(self) noexcept:
        """Closing with input unread would reset the connection under the alert."""
        shutdown(self.fd, SHUT_WR)
        if self.eof:
            self.close()
            return
        self.state = RAW_LINGER
        self.paused = False
        self.readable = True
        self.plane.wheel.arm(&self.timer, self.plane.poller.now_ms + LINGER_MS)
        self.plane.poller.push_ready(self)

    cdef void reset(self) noexcept:
        if self.state != RAW_CLOSED:
            make_reset(self.fd)
            self.close()

    cdef void lost(self, uint32_t flag) noexcept:
        """The client is gone."""
        cdef Tunnel tunnel = self.tunnel
        self.tunnel = None
        self.close()
        if tunnel is not None:
            tunnel.on_downstream_lost(flag)

    cdef void cut(self) noexcept:
        make_reset(self.fd)
        self.lost(0)

    cdef void close(self) noexcept:
        if self.state == RAW_CLOSED:
            return
        self.state = RAW_CLOSED
        self.plane.wheel.disarm(&self.timer)
        self.plane.poller.remove(self, False)
        close(self.fd)
        self.fd = -1
        self.acceptor.leave()

    cdef dict describe(self):
        cdef Tunnel tunnel = self.tunnel
        cdef Snapshot snapshot
        cdef dict row = {
            "peer": f"{self.address.text[:self.address.n].decode('ascii', 'replace')}:{self.address.port}",
            "listener": self.acceptor.names(),
            "state": STATES[self.state],
            "tls": tls_version(self.tls).decode() if self.tls != NULL else "",
            "age_ms": self.plane.poller.now_ms - self.opened_ms,
            "requests": 0,
            "queued_bytes": self.out.size,
            "held_bytes": self.input.end - self.input.start,
        }
        if tunnel is not None:
            snapshot = tunnel.binding.snapshot
            row["name"] = tunnel.name[:tunnel.name_n].decode("ascii", "replace")
            row["listener"] = snapshot.text_of(snapshot.listeners[tunnel.listener].name)
            if tunnel.rule != NULL:
                row["route"] = snapshot.text_of(snapshot.routes[tunnel.rule.route].name)
            if tunnel.cluster is not None:
                row["cluster"] = tunnel.cluster.name.decode("utf-8", "replace")
            if tunnel.endpoint is not None:
                row["upstream"] = tunnel.endpoint.text.decode("utf-8", "replace")
        return row


# ---- the tunnel --------------------------------------------------------------------------------------------------------


cdef class Tunnel(Flow):
    # ---- from the listener to a connection -----------------------------------------------------------------------------

    cdef void route(self, const ClientHello *hello) noexcept:
        cdef Snapshot snapshot = self.binding.snapshot
        cdef uint32_t protocol = snapshot.listeners[self.listener].protocol
        cdef uint32_t rule = NONE
        cdef Span offered
        self.secure = protocol == LISTENER_TLS or protocol == LISTENER_ENDED
        self.plane.counters.bump(S_TUNNELS, 1)
        if protocol != LISTENER_TLS or self.name_n:
            rule = find_tunnel(snapshot, self.listener, hello, &offered)
        if rule == NONE:
            if self.secure:
                self.plane.counters.bump(S_TLS_NO_NAME, 1)
            self.fail(FLAG_NR, b"no_name" if self.secure and self.name_n == 0 else b"no_route", ALERT_UNRECOGNIZED_NAME)
            return
        self.rule = &snapshot.rules[rule]
        self.backend = pick_backend(snapshot, self.rule, self.plane.next_random())
        if self.backend == NULL or self.backend.cluster == NONE:
            self.fail(FLAG_NC, b"no_cluster", ALERT_INTERNAL_ERROR)
            return
        self.cluster = <Cluster> self.binding.clusters[self.backend.cluster]
        self.arm()
        self.pick()

    cdef void pick(self) noexcept:
        """An endpoint that was not tried yet, and a new connection to it."""
        cdef int verdict = 0
        cdef uint64_t key = 0
        cdef bint has_key = self.cluster.key_kind == BY_ADDRESS
        cdef Upstream upstream
        if has_key:
            key = hash64_of(self.address.text, self.address.n)
        self.endpoint = self.cluster.pick(has_key, key, self.tried, self.tried_n)
        if self.endpoint is None:
            self.cluster.series.no_endpoint += 1
            self.fail(FLAG_UH, b"no_endpoint", ALERT_INTERNAL_ERROR)
            return
        if self.tried_n < MAX_TRIED:
            self.tried[self.tried_n] = self.endpoint.index
            self.tried_n += 1
        self.attempts += 1
        self.attempt_us = self.plane.poller.now_us
        self.tickets += 1
        self.ticket = self.tickets
        # never an idle one: wants_new
        upstream = self.cluster.acquire(self.endpoint, self, self.ticket, &verdict)
        if upstream is not None:
            self.ticket = 0
            self.on_upstream(upstream)
        elif verdict == ACQUIRED_FULL:
            self.ticket = 0
            self.fail(FLAG_UO, b"overflow", ALERT_INTERNAL_ERROR)
        elif verdict == ACQUIRED_DIAL:
            self.plane.dialer.dial(self.cluster, self.endpoint)

    cdef void on_no_upstream(self, int loss) noexcept:
        if loss == LOSS_UNSENT:
            # the endpoint was taken away while this waited for it, and the indexes of the others may have changed
            self.tried_n = 0
        else:
            self.cluster.on_outcome(self.endpoint, False)
        if self.attempts < MAX_CONNECTS and (loss == LOSS_UNSENT or self.attempts < <uint32_t> len(self.cluster.endpoints)):
            self.cluster.series.retries += 1
            self.pick()
            return
        if (loss == LOSS_TLS or loss == LOSS_CONNECT_TIMEOUT) and self.endpoint.trouble != NULL:
            self.fail(FLAG_UF, self.endpoint.trouble, ALERT_INTERNAL_ERROR)
        else:
            self.fail(FLAG_UF, b"connect_failed", ALERT_INTERNAL_ERROR)

    cdef void on_upstream(self, Upstream upstream) noexcept:
        cdef RawDownstream down = self.down
        if not isinstance(upstream, H1Upstream):
            # a stream, of a cluster that requests make speak HTTP/2 too: whole connections cannot be carried in it
            upstream.cancel()
            self.fail(FLAG_UF, b"endpoint_speaks_h2", ALERT_INTERNAL_ERROR)
            return
        self.upstream = upstream
        self.leased = self.opened = True
        self.cluster.begin_attempt(self.endpoint)
        # that it takes connections is all that can be said of an endpoint whose bytes nobody understands
        self.cluster.on_outcome(self.endpoint, True)
        self.plane.counters.bump(S_TUNNELS_ACTIVE, 1)
        self.upstream_us = self.plane.poller.now_us - self.attempt_us
        self.active_ms = self.plane.poller.now_ms
        down.state = RAW_OPEN
        upstream.lease(self)
        upstream.open_tunnel()
        if down.input.end > down.input.start:
            self.on_request_body(down.input.data + down.input.start, down.input.end - down.input.start)
            in_clear(&down.input)
        if self.upstream is not None and not (<H1Upstream> upstream).drained_due:
            down.resume_reading()
        if self.upstream is not None and (<H1Upstream> upstream).readable:
            # what came with the end of a TLS handshake
            self.plane.poller.push_ready(upstream)

    cdef HeaderBlock borrow_response(self):
        return no_head

    # ---- bytes ---------------------------------------------------------------------------------------------------------

    cdef void on_request_body(self, const uint8_t *p, size_t n) noexcept:
        self.bytes_in += n
        self.active_ms = self.plane.poller.now_ms
        if self.upstream is not None and self.upstream.send_body(p, n) and self.down is not None:
            self.down.pause_reading()

    cdef void on_upstream_drained(self) noexcept:
        self.active_ms = self.plane.poller.now_ms
        if self.down is not None:
            self.down.resume_reading()

    cdef void on_response_body(self, const uint8_t *p, size_t n) noexcept:
        self.bytes_out += n
        self.active_ms = self.plane.poller.now_ms
        if self.down.send_body(p, n) and self.upstream is not None:
            self.upstream.pause_reading()

    cdef void on_downstream_drained(self) noexcept:
        if self.upstream is not None:
            self.upstream.resume_reading()

    # ---- much of them: from socket to socket through a pipe, never copied to here ----------------------------------------
    #
    # Costs a third of receiving and sending per byte once more than a receive's worth waits, and nothing less below that.

    cdef ssize_t pull_request(self, int fd) noexcept:
        cdef H1Upstream upstream = <H1Upstream> self.upstream
        cdef ssize_t got
        if upstream is None or upstream.tls != NULL or upstream.broken:
            return PULL_NOT
        got = out_splice(&upstream.out, fd)
        if got > 0:
            self.bytes_in += <uint64_t> got
            self.pulled_in += <size_t> got
            self.active_ms = self.plane.poller.now_ms
            upstream.write(NULL, 0)
            if self.upstream is not None and upstream.out.size:
                upstream.drained_due = True
                self.down.pause_reading()
            return got
        if got == SPLICE_WAIT and upstream.out.size:
            # it may have more, and the pipe be full of small pieces
            upstream.drained_due = True
            self.down.pause_reading()
            return PULL_HELD
        return over_with(&upstream.out, &self.pulled_in, got)

    cdef ssize_t pull_response(self, int fd) noexcept:
        cdef RawDownstream down = self.down
        cdef ssize_t got
        if down is None or down.tls != NULL:
            return PULL_NOT
        got = out_splice(&down.out, fd)
        if got > 0:
            self.bytes_out += <uint64_t> got
            self.pulled_out += <size_t> got
            self.active_ms = self.plane.poller.now_ms
            down.write(NULL, 0)
            if self.upstream is not None and down.out.size:
                down.drained_due = True
                self.upstream.pause_reading()
            return got
        if got == SPLICE_WAIT and down.out.size:
            down.drained_due = True
            self.upstream.pause_reading()
            return PULL_HELD
        return over_with(&down.out, &self.pulled_out, got)

    # ---- ends ----------------------------------------------------------------------------------------------------------

    cdef void on_request_end(self, HeaderBlock trailers) noexcept:
        cdef H1Upstream upstream = <H1Upstream> self.upstream
        self.request_done = True
        self.active_ms = self.plane.poller.now_ms
        if upstream is not None:
            pass_cut(self.down.tls, upstream.tls)
        if self.upstream_done:
            self.finish()
        elif upstream is not None:
            upstream.finish_request(None)

    cdef void on_response_end(self, HeaderBlock trailers) noexcept:
        # asked more than once when the kernel tells the end more than once
        if not self.upstream_done and self.down is not None:
            pass_cut((<H1Upstream> self.upstream).tls, self.down.tls)
        self.upstream_done = True
        self.active_ms = self.plane.poller.now_ms
        if self.request_done:
            self.finish()
        else:
            self.down.finish(None)

    cdef void on_downstream_lost(self, uint32_t flag) noexcept:
        self.down = None
        self.flags |= flag
        self.drop_upstream(True)
        self.log()

    cdef void on_upstream_lost(self, int loss, int fault) noexcept:
        self.upstream = None
        self.end_attempt(False)
        self.break_off(FLAG_UC, b"upstream_reset")

    cdef void on_timer(self, Timer *timer) noexcept:
        cdef uint64_t sent
        if self.over:
            return
        if self.upstream is not None:
            # what the endpoint takes is a sign of life too, and is told to nobody while it goes on
            sent = self.upstream.sent
            if sent != self.sent:
                self.sent = sent
                self.active_ms = self.plane.poller.now_ms
        if self.plane.poller.now_ms < self.active_ms + self.limits.stream_idle_timeout:
            self.arm()
            return
        self.plane.counters.bump(S_DEADLINE_IDLE, 1)
        if self.opened:
            self.break_off(FLAG_SI, b"stream_idle")
        else:
            self.fail(FLAG_SI, b"stream_idle", ALERT_INTERNAL_ERROR)

    cdef void arm(self) noexcept:
        if self.limits.stream_idle_timeout:
            self.plane.wheel.arm(&self.timer, self.active_ms + self.limits.stream_idle_timeout)

    cdef void end_attempt(self, bint good) noexcept:
        if not self.leased:
            return
        self.leased = False
        self.cluster.end_attempt(self.endpoint, good)
        self.plane.counters.bump(S_TUNNELS_ACTIVE, <uint64_t> -1)

    cdef void drop_upstream(self, bint reset) noexcept:
        """Lets go of the endpoint; without reset it still gets what the client sent."""
        cdef Upstream upstream = self.upstream
        if self.ticket:
            self.ticket = 0
            self.cluster.leave(self.endpoint)
        self.upstream = None
        self.end_attempt(True)
        if upstream is not None:
            if reset:
                make_reset(upstream.fd)
                if (<H1Upstream> upstream).tls != NULL:
                    # nor is it told that this was all
                    (<H1Upstream> upstream).tls.is_shut = True
            upstream.cancel()

    cdef void finish(self) noexcept:
        """Both sides have said all that they had to say."""
        cdef RawDownstream down = self.down
        self.down = None
        self.drop_upstream(False)
        if down is not None:
            down.end_after_flush()
        self.log()

    cdef void fail(self, uint32_t flag, const char *detail, int description) noexcept:
        """The connection is carried nowhere."""
        cdef RawDownstream down = self.down
        if self.over:
            return
        self.flags |= flag
        self.detail = detail
        self.plane.counters.bump(S_TUNNELS_FAILED, 1)
        self.down = None
        self.drop_upstream(True)
        if down is not None:
            if self.secure and down.tls == NULL:
                down.alert(description)
            else:
                down.tunnel = None
                down.reset()
        self.log()

    cdef void break_off(self, uint32_t flag, const char *detail) noexcept:
        """What was said is not complete, and whoever is still there has to see that."""
        cdef RawDownstream down = self.down
        self.flags |= flag
        self.detail = detail
        self.down = None
        self.drop_upstream(True)
        if down is not None:
            if self.upstream_done:
                # of what the endpoint sent nothing is lacking
                down.end_after_flush()
            else:
                down.abort()
        self.log()

    cdef void log(self) noexcept:
        """Every tunnel comes here, exactly once."""
        cdef Snapshot snapshot = self.binding.snapshot
        cdef RecordFacts facts
        if self.over:
            return
        self.over = True
        self.plane.wheel.disarm(&self.timer)
        if self.plane.log.format:
            memset(&facts, 0, sizeof(facts))
            facts.duration_us = self.plane.poller.now_us - self.start_us
            facts.wall_us = clock_us(CLOCK_REALTIME) - facts.duration_us
            facts.upstream_us = self.upstream_us
            facts.bytes_in = self.bytes_in
            facts.bytes_out = self.bytes_out
            facts.flags = self.flags
            facts.attempts = self.attempts
            facts.protocol = CARRIED_TLS if self.secure else CARRIED_TCP
            facts.listener = snapshot.borrow(snapshot.listeners[self.listener].name)
            if self.rule != NULL:
                facts.route = snapshot.borrow(snapshot.routes[self.rule.route].name)
            if self.cluster is not None:
                facts.cluster = self.cluster.borrow_name()
            if self.endpoint is not None:
                facts.upstream = self.endpoint.borrow_text()
            facts.client.p = self.address.text
            facts.client.n = self.address.n
            if self.detail != NULL:
                facts.detail.p = <const uint8_t *> self.detail
                facts.detail.n = strlen(self.detail)
            no_head.clear()
            if self.name_n:
                no_head.authority = no_head.keep(self.name, self.name_n)
                if no_head.authority.off == NONE:
                    no_head.clear()        # memory is out: a record without the name
            self.plane.log.write(&facts, no_head)
            no_head.clear()
        # Whoever called may have been the last to hold it: see begin.
        self.plane.poller.gone.append(self)
        Py_DECREF(self)
