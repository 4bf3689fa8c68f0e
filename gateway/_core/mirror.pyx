"""A copy of a request for another cluster; see mirror.pxd."""

from cpython.ref cimport PyObject
from libc.string cimport memset, strlen

from gateway._core.affinity cimport affinity_key
from gateway._core.buf cimport Block, out_append, out_clear, out_consume
from gateway._core.counters cimport S_MIRRORS, S_MIRRORS_ACTIVE, S_MIRRORS_DROPPED, S_MIRRORS_FAILED
from gateway._core.headers cimport HEAD_UPGRADE, HeaderBlock
from gateway._core.plane cimport Binding, Plane
from gateway._core.pool cimport ACQUIRED_DIAL, ACQUIRED_FULL, ACQUIRED_IDLE, Cluster
from gateway._core.record cimport RecordFacts
from gateway._core.seam cimport LOSS_CONNECT_TIMEOUT, LOSS_STALE, LOSS_TLS, LOSS_UNSENT, Upstream
from gateway._core.snapshot cimport NONE, MirrorRec, Snapshot
from gateway._core.sys cimport CLOCK_REALTIME, clock_us
from gateway._core.timers cimport Timer
from gateway._core.types cimport (
    FLAG_DC, FLAG_UC, FLAG_UF, FLAG_UH, FLAG_UO, FLAG_UPE, FLAG_UT, FRAME_NONE, Ref, uint8_t, uint32_t, uint64_t,
)

cdef enum:
    MOST_ATTEMPTS = 2      # the second when a pooled connection turned out to be dead


cdef class Mirror(Flow):
    def __dealloc__(self):
        out_clear(&self.held)

    # ---- what the exchange tells ---------------------------------------------------------------------------------------

    cdef void attempt(self) noexcept:
        cdef Upstream upstream
        cdef int verdict = 0
        cdef uint64_t key = 0
        cdef bint has_key = self.cluster.key_kind != 0 and affinity_key(
            self.cluster.key_kind, self.cluster.borrow_key_name(), self.request, self.request.borrow(self.client), &key)
        self.endpoint = self.cluster.pick(has_key, key, NULL, 0)
        if self.endpoint is None:
            self.cluster.series.no_endpoint += 1
            self.end(FLAG_UH, b"mirror_no_endpoint")
            return
        self.attempts += 1
        self.ticket = self.attempts
        upstream = self.cluster.acquire(self.endpoint, self, self.ticket, &verdict)
        if verdict == ACQUIRED_IDLE:
            self.ticket = 0
            self.on_upstream(upstream)
        elif verdict == ACQUIRED_FULL:
            self.ticket = 0
            self.end(FLAG_UO, b"mirror_overflow")
        elif verdict == ACQUIRED_DIAL:
            self.plane.dialer.dial(self.cluster, self.endpoint)

    cdef void take(self, const uint8_t *p, size_t n) noexcept:
        if self.over or self.done:
            return
        self.bytes_in += n
        if self.upstream is not None and not self.stuck and not self.held.size:
            self.sent = True
            self.stuck = self.upstream.send_body(p, n)
        elif self.held.size + n > MOST_HELD or out_append(&self.held, p, n) < 0:
            self.end(FLAG_UO, b"mirror_slow")

    cdef void complete(self, HeaderBlock trailers) noexcept:
        if self.over or self.done:
            return
        if trailers is not None and trailers.count:
            self.trailers = HeaderBlock.new()
            if self.trailers.copy_from(trailers) < 0:
                self.end(FLAG_UO, b"memory")
                return
        self.done = True
        self.plane.wheel.arm(&self.timer, self.plane.poller.now_ms + ANSWER_MS)
        if self.upstream is not None and not self.held.size:
            self.upstream.finish_request(self.trailers)

    cdef void flush(self) noexcept:
        """What waited goes out, as far as the connection takes it."""
        cdef Upstream upstream = self.upstream
        cdef Block *block
        cdef size_t n
        while self.held.size and not self.stuck:
            block = self.held.head
            n = block.end - block.start
            self.sent = self.flushing = True
            self.stuck = upstream.send_body(block.data + block.start, n)
            self.flushing = False
            if self.over or self.upstream is not upstream:
                return
            out_consume(&self.held, n)
        if self.done and not self.held.size and self.request.framing != FRAME_NONE:
            upstream.finish_request(self.trailers)

    # ---- events from the pool and the connection -----------------------------------------------------------------------

    cdef void on_upstream(self, Upstream upstream) noexcept:
        self.upstream = upstream
        self.leased = True
        self.stuck = False
        self.cluster.begin_attempt(self.endpoint)
        upstream.lease(self)
        upstream.send_request(self.request, self.request.framing != FRAME_NONE)
        if not self.over and self.upstream is upstream:
            self.flush()

    cdef void on_no_upstream(self, int loss) noexcept:
        if loss != LOSS_UNSENT:
            self.cluster.on_outcome(self.endpoint, False)
        if loss == LOSS_CONNECT_TIMEOUT:
            self.lose(loss, FLAG_UF, b"mirror_connect_timeout")
        else:
            self.lose(loss, FLAG_UF, b"mirror_tls" if loss == LOSS_TLS else b"mirror_connect_failed")

    cdef HeaderBlock borrow_response(self):
        return self.response

    cdef HeaderBlock borrow_trailers(self):
        return self.ending

    cdef void on_response_end(self, HeaderBlock trailers) noexcept:
        self.end_attempt(not 502 <= self.response.status <= 504, True)
        self.upstream = None
        self.end(0, NULL)

    cdef void on_upstream_drained(self) noexcept:
        self.stuck = False
        if self.upstream is not None and not self.flushing:
            self.flush()

    cdef void on_upstream_lost(self, int loss, int fault) noexcept:
        self.upstream = None
        if loss == LOSS_STALE:
            self.wants_new = True
            self.cluster.series.stale += 1
        # A dead pooled connection says nothing about the endpoint.
        self.end_attempt(False, loss != LOSS_STALE and loss != LOSS_UNSENT)
        if fault:
            self.end(FLAG_UPE, b"mirror_garbage")
        else:
            self.lose(loss, FLAG_UC, b"mirror_reset")

    cdef void lose(self, int loss, uint32_t flag, const char *detail) noexcept:
        """One more attempt where nothing was lost but the way; else that was it."""
        if (loss == LOSS_STALE or loss == LOSS_UNSENT) and not self.sent and self.attempts < MOST_ATTEMPTS and not self.over:
            self.attempt()
        else:
            self.end(flag, detail)

    cdef void on_timer(self, Timer *timer) noexcept:
        self.end(FLAG_UT, b"mirror_timeout")

    # ---- the end -------------------------------------------------------------------------------------------------------

    cdef void end_attempt(self, bint good, bint counts) noexcept:
        if not self.leased:
            return
        self.leased = False
        self.cluster.end_attempt(self.endpoint, good)
        if counts:
            self.cluster.on_outcome(self.endpoint, good)

    cdef void end(self, uint32_t flag, const char *detail) noexcept:
        cdef Upstream upstream = self.upstream
        if self.over:
            return
        self.over = True
        self.plane.wheel.disarm(&self.timer)
        if self.ticket:
            self.ticket = 0
            self.cluster.leave(self.endpoint)
        self.upstream = None
        self.end_attempt(True, False)
        if upstream is not None:
            upstream.cancel()
        out_clear(&self.held)
        if flag:
            # A mirror that was given up is another matter than one that its cluster did not take.
            self.plane.counters.bump(S_MIRRORS_DROPPED if flag == FLAG_UO or flag == FLAG_DC else S_MIRRORS_FAILED, 1)
            self.write_record(flag, detail)
        self.plane.counters.bump(S_MIRRORS_ACTIVE, <uint64_t> -1)
        # The list outlives the methods that are on the stack now.
        self.plane.poller.gone.append(self)
        self.plane.mirrors.discard(self)

    cdef void write_record(self, uint32_t flag, const char *detail) noexcept:
        cdef Snapshot snapshot = self.binding.snapshot
        cdef RecordFacts facts
        if not self.plane.log.format:
            return
        memset(&facts, 0, sizeof(facts))
        facts.duration_us = self.plane.poller.now_us - self.start_us
        facts.wall_us = clock_us(CLOCK_REALTIME) - facts.duration_us
        facts.bytes_in = self.bytes_in
        facts.flags = flag
        facts.attempts = self.attempts
        facts.protocol = self.request.version
        facts.listener = snapshot.borrow(snapshot.listeners[self.decision.listener].name)
        facts.route = snapshot.borrow(snapshot.routes[snapshot.rules[self.decision.rule].route].name)
        facts.cluster = self.cluster.borrow_name()
        if self.endpoint is not None:
            facts.upstream = self.endpoint.borrow_text()
        facts.client = self.request.borrow(self.client)
        facts.request_id = self.request.borrow(self.request_id)
        facts.detail.p = <const uint8_t *> detail
        facts.detail.n = strlen(detail)
        self.plane.log.write(&facts, self.request)


# ---- what an exchange has of them ------------------------------------------------------------------------------------------

cdef list start_mirrors(Plane plane, Binding binding, const RuleRec *rule, HeaderBlock request, const Decision *decision, Ref client,
                        Ref request_id):
    cdef const MirrorRec *record
    cdef Mirror mirror
    cdef list started = None
    cdef uint32_t i
    if request.flags & HEAD_UPGRADE:
        # What follows it is no request.
        return None
    for i in range(rule.mirrors_n):
        record = binding.snapshot.mirrors + rule.mirrors + i
        if record.share != NONE and plane.next_random() >> 32 >= record.share:
            continue
        plane.counters.bump(S_MIRRORS, 1)
        mirror = Mirror.__new__(Mirror)
        mirror.request = HeaderBlock.new()
        if len(plane.mirrors) >= MOST_MIRRORS or mirror.request.copy_from(request) < 0:
            plane.counters.bump(S_MIRRORS_DROPPED, 1)
            continue
        mirror.plane = plane
        mirror.binding = binding
        mirror.cluster = <Cluster> binding.clusters[record.cluster]
        mirror.response = HeaderBlock.new()
        mirror.ending = HeaderBlock.new()
        mirror.timer.owner = <PyObject *> mirror
        mirror.decision = decision[0]
        mirror.client = client
        mirror.request_id = request_id
        mirror.start_us = plane.poller.now_us
        plane.mirrors.add(mirror)
        plane.counters.bump(S_MIRRORS_ACTIVE, 1)
        if request.framing == FRAME_NONE:
            mirror.complete(None)
        mirror.attempt()
        if mirror.over:
            continue
        if started is None:
            started = []
        started.append(mirror)
    return started


cdef void feed_mirrors(list mirrors, const uint8_t *p, size_t n) noexcept:
    cdef Mirror mirror
    for mirror in mirrors:
        mirror.take(p, n)


cdef void finish_mirrors(list mirrors, HeaderBlock trailers) noexcept:
    cdef Mirror mirror
    for mirror in mirrors:
        mirror.complete(trailers)


cdef void leave_mirrors(list mirrors) noexcept:
    cdef Mirror mirror
    for mirror in mirrors:
        if not mirror.done:
            # Half a request is nobody's.
            mirror.end(FLAG_DC, b"mirror_cut")
