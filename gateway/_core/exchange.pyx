"""One request and its response; see exchange.pxd.

Read from top to bottom this is the life of a request: begin, the phases in order, the events that connections report,
the one decision about retries, and the end.
"""

from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.string cimport memset, strlen

from gateway._core.affinity cimport affinity_key
from gateway._core.buf cimport Block, out_append, out_clear
from gateway._core.chain cimport Redirect, run_request_filters, run_response_filters
from gateway._core.counters cimport S_REQUESTS, S_REQUESTS_ACTIVE, S_TUNNELS_ACTIVE, S_UPGRADES
from gateway._core.cors cimport ASKED_NOTHING, cors_answer, cors_ask
from gateway._core.faults cimport F_BASE64, F_BODY_LARGE, fault_name, fault_status
from gateway._core.forward cimport ForwardFacts, forward_request, show_certificate
from gateway._core.grpc cimport add_grpc_status, grpc_timeout, is_grpc, make_grpc_reply
from gateway._core.grpc_web cimport GrpcWeb
from gateway._core.h1_encode cimport reason_of
from gateway._core.headers cimport HEAD_ASTERISK, HEAD_TE_TRAILERS, HEAD_UPGRADE, Field, HeaderBlock
from gateway._core.limit_check cimport CHECK_REFUSED, CHECK_WAITS, LimitCheck, Limiter
from gateway._core.limit_key cimport KeyFacts
from gateway._core.mirror cimport feed_mirrors, finish_mirrors, leave_mirrors, start_mirrors
from gateway._core.plane cimport Plane
from gateway._core.pool cimport ACQUIRED_DIAL, ACQUIRED_FULL, ACQUIRED_IDLE, Cluster, next_ticket
from gateway._core.record cimport RecordFacts
from gateway._core.reply cimport make_refusal, make_reply
from gateway._core.router cimport route_request
from gateway._core.retry cimport is_retry_code, pause_after, retries_of
from gateway._core.seam cimport (
    LOSS_CONNECT, LOSS_CONNECT_TIMEOUT, LOSS_GARBAGE, LOSS_STALE, LOSS_TIMEOUT, LOSS_TLS, LOSS_UNSENT, Downstream, Flow, Upstream,
    answer_to, is_good, is_unsent,
)
from gateway._core.session cimport begin_session, choose_backend
from gateway._core.snapshot cimport NONE, ClusterRec, ListenerRec, Snapshot, id64
from gateway._core.sys cimport CLOCK_REALTIME, clock_us
from gateway._core.timers cimport Timer
from gateway._core.tokens cimport T_CONTENT_TYPE, T_GRPC_TIMEOUT, T_LOCATION, T_X_FORWARDED_CLIENT_CERT
from gateway._core.types cimport (
    FLAG_DPE, FLAG_LR, FLAG_NC, FLAG_NR, FLAG_RL, FLAG_SI, FLAG_UC, FLAG_UH, FLAG_UO, FLAG_UPE, FLAG_URX, FLAG_UT,
    FRAME_CHUNKED, FRAME_NONE, M_HEAD, Ref, Span, is_idempotent,
)
from gateway._core.validate cimport filter_trailers

cdef enum:
    SPARE = 1024           # finished exchanges kept for the next requests


cdef Span span_of(bytes text) noexcept:
    cdef Span span
    span.p = <const uint8_t *> <const char *> text
    span.n = <size_t> len(text)
    return span


cdef class Exchange(Flow):
    def __dealloc__(self):
        out_clear(&self.replay)

    @staticmethod
    cdef Exchange new(Plane plane, Downstream downstream):
        cdef Exchange ex
        if plane.spare:
            ex = <Exchange> plane.spare.pop()
        else:
            ex = Exchange.__new__(Exchange)
            ex.plane = plane
            ex.request = HeaderBlock.new()
            ex.response = HeaderBlock.new()
            ex.trailers = HeaderBlock.new()
            ex.timer.owner = <PyObject *> ex
        ex.downstream = downstream
        ex.binding = plane.binding
        # The connections that it is on let go of it before it has written its last line: until then it holds itself.
        Py_INCREF(ex)
        ex.over = False
        ex.phase = PHASE_HEAD
        ex.start_us = plane.poller.now_us
        plane.counters.bump(S_REQUESTS_ACTIVE, 1)
        return ex

    # ---- the phases ----------------------------------------------------------------------------------------------------

    cdef void begin(self) noexcept:
        self.plane.counters.bump(S_REQUESTS, 1)
        self.request_done = self.request.framing == FRAME_NONE
        self.replayable = True
        self.active_ms = self.plane.poller.now_ms
        if self.certificate is not None and show_certificate(self.request, span_of(self.certificate)) < 0:
            self.reply(503, FLAG_UO, b"memory")
            return
        if self.certificate is None and self.request.find(T_X_FORWARDED_CLIENT_CERT) != NULL and not self.has_proxy():
            # No route may go by what a stranger says of a certificate that we did not see.
            self.request.drop(T_X_FORWARDED_CLIENT_CERT)
        if self.request.find(T_CONTENT_TYPE) != NULL:
            self.web = GrpcWeb.around(self.downstream, self.request)
            if self.web is not None:
                self.downstream = self.web
        self.run(PHASE_ROUTE)

    cdef bint has_proxy(self) noexcept:
        cdef Snapshot snapshot = self.binding.snapshot
        return self.port != NONE and snapshot.listeners[snapshot.ports[self.port].listeners].trusted_hops != 0

    cdef void run(self, uint8_t phase) noexcept:
        """The engine: one phase after the other, until one waits for an event or ends the exchange."""
        cdef int verdict
        while True:
            self.phase = phase
            if phase == PHASE_ROUTE:
                verdict = self.phase_route()
            elif phase == PHASE_FORWARD:
                verdict = self.phase_forward()
            elif phase == PHASE_LIMITS:
                verdict = self.phase_limits()
            elif phase == PHASE_REQUEST_FILTERS:
                verdict = self.phase_request_filters()
            elif phase == PHASE_PICK:
                verdict = self.phase_pick()
            elif phase == PHASE_ACQUIRE:
                verdict = self.phase_acquire()
            elif phase == PHASE_SEND:
                verdict = self.phase_send()
            elif phase == PHASE_RESPONSE_HEAD:
                verdict = WAIT
            elif phase == PHASE_RESPONSE_FILTERS:
                verdict = self.phase_response_filters()
            else:
                verdict = self.phase_stream()
            if verdict != NEXT:
                return
            phase += 1

    cdef int phase_route(self) noexcept:
        cdef Snapshot snapshot = self.binding.snapshot
        cdef uint64_t asked
        if self.request.flags & HEAD_ASTERISK:
            # OPTIONS * asks about this server, which is us (RFC 9110 §9.3.7).
            self.reply(200, FLAG_LR, NULL)
            return DONE
        route_request(snapshot, self.port, self.request, &self.decision)
        if self.decision.listener != NONE:
            self.limits = &snapshot.limits[snapshot.listeners[self.decision.listener].limits]
            if self.promised and self.promised != id64(snapshot.listeners[self.decision.listener].id_lo,
                                                       snapshot.listeners[self.decision.listener].id_hi):
                # The client asked for a name of one listener and sends a request for another's (RFC 9110 §15.5.20).
                self.reply(421, FLAG_NR, b"misdirected")
                return DONE
        if self.decision.rule == NONE:
            self.reply(404, FLAG_NR, b"no_route")
            return DONE
        self.rule = &snapshot.rules[self.decision.rule]
        if self.limits != NULL and self.request.length > id64(self.limits.max_body_lo, self.limits.max_body_hi) > 0:
            # told before it is sent, and before an origin is asked
            self.on_request_fault(F_BODY_LARGE)
            return DONE
        if self.rule.request_timeout:
            self.request_deadline = self.active_ms + self.rule.request_timeout
        if self.request.find(T_GRPC_TIMEOUT) != NULL and is_grpc(self.request):
            asked = grpc_timeout(self.request)
            if asked:
                self.call_deadline = self.active_ms + asked
                if self.request_deadline == 0 or self.call_deadline < self.request_deadline:
                    self.request_deadline = self.call_deadline
        return NEXT

    cdef int phase_forward(self) noexcept:
        cdef ForwardFacts facts
        cdef bint answer_here = False
        cdef int outcome
        facts.peer.p = self.peer
        facts.peer.n = self.peer_n
        facts.node = self.plane.borrow_node()
        facts.trusted_hops = self.binding.snapshot.listeners[self.decision.listener].trusted_hops
        facts.secure = self.secure
        facts.keeps_certificate = self.certificate is not None
        facts.port = self.port_number
        facts.random_hi = self.plane.next_random()
        facts.random_lo = self.plane.next_random()
        outcome = forward_request(self.request, &facts, &answer_here)
        if outcome < 0:
            self.reply_fault(outcome)
            return DONE
        if answer_here:
            self.reply(200, FLAG_LR, b"max_forwards")
            return DONE
        self.client = facts.client
        self.request_id = facts.request_id
        return NEXT

    cdef void reply_fault(self, int outcome) noexcept:
        """A negated Fault, or -1 when memory is out."""
        if outcome == -1:
            self.reply(503, FLAG_UO, b"memory")
        else:
            self.plane.counters.fault(-outcome)
            self.reply(fault_status(-outcome), FLAG_DPE, fault_name(-outcome))

    cdef int phase_limits(self) noexcept:
        cdef const ListenerRec *listener = &self.binding.snapshot.listeners[self.decision.listener]
        if self.rule.cors != NONE and self.ask_cors():
            return DONE
        if listener.rates_n == 0 and self.rule.rates_n == 0:
            return NEXT
        return self.meet_limits(listener.rates, listener.rates_n, self.rule.rates, self.rule.rates_n)

    cdef int meet_limits(self, uint32_t first, uint32_t n, uint32_t second, uint32_t second_n) noexcept:
        """The limits that these words of the snapshot name. An answer that comes later goes to on_limits."""
        cdef Snapshot snapshot = self.binding.snapshot
        cdef KeyFacts facts
        cdef int decided
        if self.check is None:
            self.check = LimitCheck.new(<Limiter> self.plane.limiter)
        facts.client = self.request.borrow(self.client)
        facts.route = id64(snapshot.routes[self.rule.route].id_lo, snapshot.routes[self.rule.route].id_hi)
        facts.certificate = span_of(self.certificate if self.certificate is not None else b"")
        self.check.gather(self, snapshot, self.request, &facts, first, n)
        self.check.gather(self, snapshot, self.request, &facts, second, second_n)
        decided = self.check.decide()
        if decided == CHECK_WAITS:
            self.pause_request()
            self.arm()
            return WAIT
        if decided == CHECK_REFUSED:
            self.on_limits()
            return DONE
        return NEXT

    cdef void on_limits(self) noexcept:
        cdef int status = self.check.refusal() if self.check.refused else 0
        if status:
            self.reply(status, FLAG_RL, b"rate_limited" if status == 429 else b"rate_limit_store")
        else:
            self.run(PHASE_PICK if self.phase == PHASE_PICK else PHASE_REQUEST_FILTERS)

    cdef int phase_request_filters(self) noexcept:
        cdef Redirect redirect
        cdef int outcome
        if self.rule.filters_n:
            redirect.status = 0
            outcome = run_request_filters(self.binding.snapshot, self.rule.filters, self.rule.filters_n, self.request, &self.decision,
                                          self.secure, self.port_number, &redirect)
            if outcome > 0:
                self.redirect(redirect.status, redirect.location)
                return DONE
            if outcome < 0:
                self.reply_fault(outcome)
                return DONE
        if self.rule.mirrors_n:
            self.mirrors = start_mirrors(
                self.plane, self.binding, self.rule, self.request, &self.decision, self.client, self.request_id)
        return NEXT

    cdef bint ask_cors(self) noexcept:
        """Whether the request was a preflight, which is answered by now."""
        cdef Snapshot snapshot = self.binding.snapshot
        if cors_ask(snapshot, &snapshot.cors[self.rule.cors], self.request, &self.cors) == ASKED_NOTHING:
            return False
        if self.cors.origin.n:
            self.reply(200, FLAG_LR, b"cors_preflight")
        else:
            self.reply(403, FLAG_LR, b"cors_origin")
        return True

    cdef void redirect(self, uint16_t status, Ref location) noexcept:
        cdef Span span = self.request.borrow(location)
        self.response.clear()
        if self.response.add(T_LOCATION, <const uint8_t *> b"location", 8, span.p, span.n) < 0:
            self.reply(503, FLAG_UO, b"memory")
            return
        self.flags |= FLAG_LR
        self.send_reply(status)

    cdef int phase_pick(self) noexcept:
        """The backend by weight, once; then an endpoint of its cluster that was not tried yet."""
        cdef Snapshot snapshot = self.binding.snapshot
        cdef Redirect redirect
        cdef uint64_t key = 0
        cdef bint has_key
        cdef const ClusterRec *record
        cdef int outcome = 0
        if self.backend == NULL:
            self.backend = choose_backend(snapshot, self.rule, self.request, self.plane.next_random(), &self.kept)
            if self.backend == NULL or self.backend.cluster == NONE:
                self.reply(500, FLAG_NC, b"no_cluster")
                return DONE
            self.cluster = <Cluster> self.binding.clusters[self.backend.cluster]
            if self.backend.filters_n:
                outcome = run_request_filters(snapshot, self.backend.filters, self.backend.filters_n, self.request, &self.decision,
                                              self.secure, self.port_number, &redirect)
            if outcome > 0:
                self.redirect(redirect.status, redirect.location)
                return DONE
            if outcome < 0:
                self.reply(500, FLAG_NC, b"backend_filter")
                return DONE
            record = &snapshot.clusters[self.backend.cluster]
            if record.rates_n:
                outcome = self.meet_limits(record.rates, record.rates_n, 0, 0)
                if outcome != NEXT:
                    return outcome
        has_key = self.cluster.key_kind != 0 and affinity_key(
            self.cluster.key_kind, self.cluster.borrow_key_name(), self.request, self.request.borrow(self.client), &key)
        self.endpoint = self.cluster.keep(self.kept, has_key, key, self.tried, self.tried_n)
        if self.endpoint is None:
            self.cluster.series.no_endpoint += 1
            self.reply(503, FLAG_UH, b"no_endpoint")
            return DONE
        if self.tried_n < MAX_TRIED:
            self.tried[self.tried_n] = self.endpoint.index
            self.tried_n += 1
        return NEXT

    cdef int phase_acquire(self) noexcept:
        cdef int verdict = 0
        cdef Upstream upstream
        self.attempts += 1
        self.attempt_us = self.plane.poller.now_us
        self.ticket = next_ticket()
        upstream = self.cluster.acquire(self.endpoint, self, self.ticket, &verdict)
        if verdict == ACQUIRED_IDLE:
            self.ticket = 0
            self.upstream = upstream
            return NEXT
        if verdict == ACQUIRED_FULL:
            self.ticket = 0
            self.reply(503, FLAG_UO, b"overflow")
            return DONE
        self.pause_request()
        self.attempt_deadline = 0
        self.arm()
        if verdict == ACQUIRED_DIAL:
            self.plane.dialer.dial(self.cluster, self.endpoint)
        return WAIT

    cdef void pause_request(self) noexcept:
        if not self.request_paused and not self.request_done:
            self.request_paused = True
            self.downstream.pause_reading()

    cdef int phase_send(self) noexcept:
        cdef Upstream upstream = self.upstream
        self.leased = True
        self.cluster.begin_attempt(self.endpoint)
        self.attempt_deadline = 0
        if self.rule.backend_timeout:
            self.attempt_deadline = self.plane.poller.now_ms + self.rule.backend_timeout
        self.active_ms = self.plane.poller.now_ms
        self.arm()
        upstream.lease(self)
        upstream.send_request(self.request, not (self.request_done and self.request.framing == FRAME_NONE))
        if self.upstream is None:
            return DONE
        if self.replay.size and not self.resend():
            return DONE
        if self.request_done:
            if self.request.framing != FRAME_NONE:
                self.upstream.finish_request(self.trailers if self.trailers.count else None)
        elif self.request_paused:
            self.request_paused = False
            self.downstream.resume_reading()
        return NEXT

    cdef bint resend(self) noexcept:
        """Sends the kept content again; what follows it is still to come from the client."""
        cdef Block *block = self.replay.head
        while block != NULL:
            self.upstream.send_body(block.data + block.start, block.end - block.start)
            if self.upstream is None:
                return False
            block = block.next
        return True

    cdef int phase_response_filters(self) noexcept:
        cdef Snapshot snapshot = self.binding.snapshot
        if self.cors.record != NULL:
            cors_answer(snapshot, &self.cors, self.request, self.response)
        if self.check is not None and self.check.n:
            if self.check.charges_after:
                self.check.charge_after(self.response)
            self.check.write_fields(self.response)
        if self.rule.session != NONE:
            begin_session(
                snapshot, self.rule, self.response, self.cluster.id, self.endpoint.borrow_text(), self.kept, self.secure)
        if self.rule.filters_n:
            run_response_filters(snapshot, self.rule.filters, self.rule.filters_n, self.response)
        if self.backend.filters_n:
            run_response_filters(snapshot, self.backend.filters, self.backend.filters_n, self.response)
        return NEXT

    cdef int phase_stream(self) noexcept:
        self.responded = True
        # A response that has begun is not cut off by the deadlines for its beginning (the request deadline covers the whole exchange
        # in the Gateway API, but cutting a running download would be worse than what it guards against). What a caller of
        # gRPC asks for is the end of the call.
        self.attempt_deadline = 0
        self.request_deadline = self.call_deadline
        self.downstream.send_head(self.response)
        if self.response.status == 101:
            self.tunnel = True
            self.request_done = False
            self.plane.counters.bump(S_UPGRADES, 1)
            self.plane.counters.bump(S_TUNNELS_ACTIVE, 1)
            self.upstream.open_tunnel()
            self.downstream.open_tunnel()
        return WAIT

    # ---- events from the client's side ---------------------------------------------------------------------------------

    cdef void on_request_body(self, const uint8_t *p, size_t n) noexcept:
        cdef uint8_t plain[3076]
        cdef Py_ssize_t got
        if self.web is None or not self.web.is_text:
            self.take_content(p, n)
            return
        while n and not self.over and self.web is not None:
            got = self.web.take(&p, &n, plain)
            if got < 0:
                self.on_request_fault(F_BASE64)
                return
            if got:
                self.take_content(plain, <size_t> got)

    cdef void take_content(self, const uint8_t *p, size_t n) noexcept:
        self.bytes_in += n
        self.active_ms = self.plane.poller.now_ms
        if self.limits != NULL and not self.tunnel:
            if self.bytes_in > id64(self.limits.max_body_lo, self.limits.max_body_hi) > 0:
                self.on_request_fault(F_BODY_LARGE)
                return
        if self.mirrors is not None:
            feed_mirrors(self.mirrors, p, n)
        if self.replayable and not self.tunnel:
            # Kept only where another attempt could be allowed to send it again: for any method as long as nothing was written.
            if (
                not is_idempotent(self.request.method) and self.upstream is not None and self.upstream.sent
                or self.replay.size + n > MAX_REPLAY
                or out_append(&self.replay, p, n) < 0
            ):
                self.replayable = False
                out_clear(&self.replay)
        if self.upstream is None:
            return
        if self.upstream.send_body(p, n) and self.downstream is not None:
            self.pause_request()

    cdef void on_request_lull(self) noexcept:
        if self.upstream is not None:
            self.upstream.push()

    cdef void on_request_end(self, HeaderBlock trailers) noexcept:
        self.request_done = True
        if self.tunnel:
            if self.upstream is not None:
                self.upstream.finish_request(None)
            if self.upstream_done:
                self.finish_tunnel()
            return
        if trailers is not None:
            filter_trailers(trailers)
        if self.mirrors is not None:
            finish_mirrors(self.mirrors, trailers)
        if self.upstream is not None:
            self.upstream.finish_request(trailers)

    cdef void on_request_fault(self, int fault) noexcept:
        self.plane.counters.fault(fault)
        if self.responded:
            self.flags |= FLAG_DPE
            self.detail = fault_name(fault)
            self.give_up()
        else:
            self.reply(fault_status(fault), FLAG_DPE, fault_name(fault))

    cdef void on_downstream_drained(self) noexcept:
        self.active_ms = self.plane.poller.now_ms
        if self.upstream is not None:
            self.upstream.resume_reading()

    cdef void on_downstream_lost(self, uint32_t flag) noexcept:
        self.downstream = None
        self.flags |= flag
        self.drop_upstream()
        self.log()

    # ---- events from the pool and the upstream -------------------------------------------------------------------------

    cdef void on_upstream(self, Upstream upstream) noexcept:
        self.upstream = upstream
        self.run(PHASE_SEND)

    cdef void on_no_upstream(self, int loss) noexcept:
        self.connects += 1
        if loss == LOSS_TLS:
            self.detail = self.endpoint.trouble
        if loss != LOSS_UNSENT:
            # otherwise it was taken away, or we had no descriptor: nothing that the endpoint did
            self.cluster.on_outcome(self.endpoint, False)
        self.retry(loss)

    cdef HeaderBlock borrow_response(self):
        return self.response

    cdef HeaderBlock borrow_trailers(self):
        return self.trailers

    cdef void on_informational(self, HeaderBlock head) noexcept:
        self.active_ms = self.plane.poller.now_ms
        self.downstream.send_informational(head)

    cdef void on_response_head(self, HeaderBlock head) noexcept:
        self.active_ms = self.plane.poller.now_ms
        self.upstream_us = self.plane.poller.now_us - self.attempt_us
        self.trailers.clear()
        if is_retry_code(self.binding.snapshot, self.rule, head.status):
            if self.may_retry(0, head.status):
                self.end_attempt(is_good(head.status), True)
                self.drop_upstream()
                self.retry(0)
                return
            self.note_exhaustion()
        self.run(PHASE_RESPONSE_FILTERS)

    cdef void note_exhaustion(self) noexcept:
        cdef uint32_t retries = retries_of(self.binding.snapshot, self.rule)
        if retries and self.attempts > retries:
            self.flags |= FLAG_URX

    cdef void on_response_body(self, const uint8_t *p, size_t n) noexcept:
        self.bytes_out += n
        self.active_ms = self.plane.poller.now_ms
        if self.downstream.send_body(p, n) and self.upstream is not None:
            self.upstream.pause_reading()

    cdef void on_response_lull(self) noexcept:
        if self.downstream is not None:
            self.downstream.push()

    cdef void on_response_end(self, HeaderBlock trailers) noexcept:
        cdef Downstream downstream = self.downstream
        if self.tunnel:
            self.upstream_done = True
            if self.request_done:
                self.finish_tunnel()
            else:
                downstream.finish(None)
            return
        self.end_attempt(is_good(self.response.status), True)
        self.upstream = None
        if trailers is not None:
            filter_trailers(trailers)
            if not self.request.flags & HEAD_TE_TRAILERS:
                trailers = None
        self.downstream = None
        downstream.finish(trailers)
        self.log()

    cdef void finish_tunnel(self) noexcept:
        cdef Downstream downstream = self.downstream
        self.drop_upstream()
        self.downstream = None
        if downstream is not None:
            downstream.finish(None)
        self.log()

    cdef void on_upstream_drained(self) noexcept:
        self.active_ms = self.plane.poller.now_ms
        if self.request_paused:
            self.request_paused = False
            self.downstream.resume_reading()

    cdef void on_upstream_lost(self, int loss, int fault) noexcept:
        self.upstream = None
        if fault:
            self.detail = fault_name(fault)
        if self.responded:
            self.flags |= FLAG_UPE if loss == LOSS_GARBAGE else FLAG_UC
            self.end_attempt(False, not self.tunnel)
            self.give_up()
            return
        if loss == LOSS_STALE:
            self.stale += 1
            self.wants_new = True
            self.cluster.series.stale += 1
        elif loss == LOSS_UNSENT:
            # counted like a connection that never came up, so that an origin that closes at once is not dialled for ever
            self.connects += 1
        # A dead pooled connection says nothing about the endpoint.
        self.end_attempt(False, loss != LOSS_STALE and loss != LOSS_UNSENT)
        self.retry(loss)

    # ---- retries -------------------------------------------------------------------------------------------------------

    cdef bint may_retry(self, int loss, uint16_t status) noexcept:
        """THE decision whether another attempt is made (RFC 9110 §9.2.2; checklist item 40)."""
        cdef uint32_t retries = retries_of(self.binding.snapshot, self.rule)
        if self.responded or self.downstream is None or not self.replayable:
            return False
        if self.request.flags & HEAD_UPGRADE and not is_unsent(loss):
            # What an origin did with an Upgrade that it has seen cannot be taken back.
            return False
        if self.request_deadline and self.plane.poller.now_ms >= self.request_deadline:
            return False
        if loss == LOSS_CONNECT or loss == LOSS_CONNECT_TIMEOUT or loss == LOSS_TLS:
            # Nothing was sent: safe for every method.
            return self.connects < MAX_CONNECTS + retries and self.connects < <uint32_t> len(self.cluster.endpoints) + retries
        if loss == LOSS_UNSENT:
            return self.stale + self.connects <= MAX_CONNECTS
        if not is_idempotent(self.request.method):
            return False
        if loss == LOSS_STALE:
            # The race between our request and the origin's idle close: once more, even without a retry policy.
            return self.stale <= 1 or self.attempts <= retries
        if self.attempts > retries:
            return False
        # The retry budget: a fifth of what is in flight, and never fewer than three. An exchange that is in it stays in it.
        return self.retried or self.cluster.retrying < 3 + self.cluster.active // 5

    cdef void retry(self, int loss) noexcept:
        """Another attempt from PICK on, at once or after a pause; or the answer that says why not."""
        cdef uint64_t pause
        cdef uint32_t flag = 0
        cdef const char *detail = NULL
        cdef int status
        if loss == 0 or self.may_retry(loss, 0):
            self.cluster.series.retries += 1
            if not self.retried and not is_unsent(loss) and loss != LOSS_STALE:
                self.retried = True
                self.cluster.retrying += 1
            self.pause_request()
            self.attempt_deadline = 0
            pause = 0
            if loss != LOSS_STALE and loss != LOSS_UNSENT and (loss == 0 or self.attempts > self.connects):
                pause = pause_after(self.binding.snapshot, self.rule, self.attempts, self.plane.next_random())
            if pause:
                self.retry_at = self.plane.poller.now_ms + pause
                self.cluster.pausing += 1
                self.phase = PHASE_PICK
                self.arm()
            else:
                self.run(PHASE_PICK)
            return
        self.note_exhaustion()
        detail = self.endpoint.trouble if loss == LOSS_CONNECT_TIMEOUT else self.detail
        status = answer_to(loss, &flag, &detail)
        self.reply(status, flag, detail)

    # ---- deadlines -----------------------------------------------------------------------------------------------------

    cdef void arm(self) noexcept:
        cdef uint64_t deadline = 0
        if self.limits != NULL and self.limits.stream_idle_timeout:
            deadline = self.active_ms + self.limits.stream_idle_timeout
        if self.request_deadline and (deadline == 0 or self.request_deadline < deadline):
            deadline = self.request_deadline
        if self.attempt_deadline and (deadline == 0 or self.attempt_deadline < deadline):
            deadline = self.attempt_deadline
        if self.retry_at and (deadline == 0 or self.retry_at < deadline):
            deadline = self.retry_at
        if deadline:
            self.plane.wheel.arm(&self.timer, deadline)

    cdef void on_timer(self, Timer *timer) noexcept:
        cdef uint64_t now = self.plane.poller.now_ms
        if self.over:
            return
        if self.request_deadline and now >= self.request_deadline:
            self.drop_upstream()
            if not self.end_call():
                self.reply(504, FLAG_UT, b"request_timeout")
            return
        if self.attempt_deadline and now >= self.attempt_deadline:
            if self.leased and self.endpoint.cluster is not None:
                self.cluster.on_outcome(self.endpoint, False)
            self.drop_upstream()
            self.retry(LOSS_TIMEOUT)
            return
        if self.retry_at and now >= self.retry_at:
            self.end_pause()
            self.run(PHASE_PICK)
            return
        if self.limits != NULL and self.limits.stream_idle_timeout and now >= self.active_ms + self.limits.stream_idle_timeout:
            self.drop_upstream()
            if self.responded:
                self.flags |= FLAG_SI
                self.give_up()
            else:
                self.reply(504, FLAG_SI, b"stream_idle")
            return
        self.arm()

    cdef void end_pause(self) noexcept:
        if self.retry_at:
            self.retry_at = 0
            self.cluster.pausing -= 1

    # ---- the end -------------------------------------------------------------------------------------------------------

    cdef void end_attempt(self, bint good, bint counts) noexcept:
        """The attempt is over: give back what it was counted in, and tell the balancer how it went."""
        if not self.leased:
            return
        self.leased = False
        self.cluster.end_attempt(self.endpoint, good)
        if counts:
            self.cluster.on_outcome(self.endpoint, good)

    cdef void drop_upstream(self) noexcept:
        """Lets go of the attempt in progress, whether it waits for a connection or has one."""
        cdef Upstream upstream = self.upstream
        if self.ticket:
            self.ticket = 0
            self.cluster.leave(self.endpoint)
        self.upstream = None
        self.end_attempt(True, False)
        if upstream is not None:
            upstream.cancel()

    cdef void reply(self, int status, uint32_t flag, const char *detail) noexcept:
        """A response that the gateway makes itself. When one is on its way already, it can only be broken off."""
        self.flags |= flag
        if detail != NULL:
            self.detail = detail
        if self.over:
            return
        if self.responded:
            self.give_up()
            return
        self.response.clear()
        self.send_reply(status)

    cdef void send_reply(self, int status) noexcept:
        cdef uint8_t body[1024]
        cdef size_t n
        cdef Downstream downstream = self.downstream
        self.drop_upstream()
        if status >= 400 and is_grpc(self.request):
            # told where a client of gRPC looks for it; a HTTP status would hide it from the application
            n = 0
            make_grpc_reply(self.response, status, reason_of(status))
        elif self.check is not None and self.check.refused:
            n = make_refusal(self.response, status, self.request, self.request.borrow(self.request_id), self.check.borrow_name(), body)
        else:
            n = make_reply(self.response, status, self.request, self.request.borrow(self.request_id), body)
        if self.cors.record != NULL:
            cors_answer(self.binding.snapshot, &self.cors, self.request, self.response)
        if self.check is not None and self.check.n:
            self.check.write_fields(self.response)
        if self.rule != NULL and self.rule.filters_n:
            run_response_filters(self.binding.snapshot, self.rule.filters, self.rule.filters_n, self.response)
        self.responded = True
        self.downstream = None
        downstream.send_head(self.response)
        if n and self.request.method != M_HEAD:
            self.bytes_out += n
            downstream.send_body(body, n)
        downstream.finish(None)
        self.log()

    cdef void refuse(self, int status, uint32_t flag, const char *detail) noexcept:
        self.flags |= flag
        self.detail = detail
        self.plane.counters.bump(S_REQUESTS, 1)
        if status:
            self.response.clear()
            self.send_reply(status)
        else:
            self.downstream = None
            self.log()

    cdef void give_up(self) noexcept:
        """The response cannot be completed: the client has to see that it is not."""
        cdef Downstream downstream = self.downstream
        self.drop_upstream()
        self.downstream = None
        if downstream is not None:
            downstream.abort()
        self.log()

    cdef bint end_call(self) noexcept:
        """The deadline of a gRPC call, in the midst of its answer: a status follows what came. False: there is no place for one."""
        cdef Downstream downstream = self.downstream
        if not (self.responded and self.response.framing == FRAME_CHUNKED and self.request.flags & HEAD_TE_TRAILERS):
            return False
        self.trailers.clear()
        if self.request.version == 10 or add_grpc_status(self.trailers, 504, reason_of(504)) < 0:
            return False
        self.flags |= FLAG_UT
        self.detail = b"request_timeout"
        self.downstream = None
        downstream.finish(self.trailers)
        self.log()
        return True

    cdef void log(self) noexcept:
        """Counts and logs the exchange, then recycles it. Every exchange comes here, exactly once."""
        cdef Snapshot snapshot
        cdef RecordFacts facts
        cdef uint64_t listener = 0
        cdef uint64_t route = 0
        cdef uint64_t cluster = 0
        cdef uint16_t status = self.response.status if self.responded else 0
        if self.over:
            return
        self.over = True
        self.phase = PHASE_LOG
        self.plane.wheel.disarm(&self.timer)
        self.end_pause()
        if self.check is not None:
            self.check.end()
        if self.mirrors is not None:
            leave_mirrors(self.mirrors)
            self.mirrors = None
        if self.retried:
            self.retried = False
            self.cluster.retrying -= 1
        if self.tunnel:
            self.plane.counters.bump(S_TUNNELS_ACTIVE, <uint64_t> -1)
        self.plane.counters.bump(S_REQUESTS_ACTIVE, <uint64_t> -1)
        memset(&facts, 0, sizeof(facts))
        if self.binding is not None:
            snapshot = self.binding.snapshot
            if self.decision.listener != NONE:
                listener = id64(snapshot.listeners[self.decision.listener].id_lo, snapshot.listeners[self.decision.listener].id_hi)
                facts.listener = snapshot.borrow(snapshot.listeners[self.decision.listener].name)
            if self.rule != NULL:
                route = id64(snapshot.routes[self.rule.route].id_lo, snapshot.routes[self.rule.route].id_hi)
                facts.route = snapshot.borrow(snapshot.routes[self.rule.route].name)
        if self.cluster is not None:
            cluster = self.cluster.id
            facts.cluster = self.cluster.borrow_name()
        facts.duration_us = self.plane.poller.now_us - self.start_us
        self.plane.counters.observe(
            self.plane.counters.request(listener, route, cluster, self.request.method, status),
            facts.duration_us, self.bytes_in, self.bytes_out)
        if self.plane.log.format:
            if self.endpoint is not None:
                facts.upstream = self.endpoint.borrow_text()
            # asked for here and counted back, so that only who logs pays for it
            facts.wall_us = clock_us(CLOCK_REALTIME) - facts.duration_us
            facts.upstream_us = self.upstream_us
            facts.bytes_in = self.bytes_in
            facts.bytes_out = self.bytes_out
            facts.flags = self.flags
            facts.attempts = self.attempts
            facts.status = status
            facts.protocol = self.request.version
            facts.secure = self.secure
            if self.client.n:
                facts.client = self.request.borrow(self.client)
            else:
                facts.client.p = self.peer
                facts.client.n = self.peer_n
            facts.request_id = self.request.borrow(self.request_id)
            if self.detail != NULL:
                facts.detail.p = <const uint8_t *> self.detail
                facts.detail.n = strlen(self.detail)
            if self.certificate is not None:
                facts.certificate = span_of(self.certificate)
            self.plane.log.write(&facts, self.request)
        self.recycle()

    cdef void recycle(self) noexcept:
        self.binding = None
        self.downstream = None
        self.upstream = None
        self.cluster = None
        self.endpoint = None
        self.rule = NULL
        self.backend = NULL
        self.limits = NULL
        self.cors.record = NULL
        self.detail = NULL
        self.secure = False
        self.promised = 0
        self.certificate = None
        self.web = None
        self.client.off = self.client.n = 0
        self.request_id.off = self.request_id.n = 0
        self.decision.listener = self.decision.rule = NONE
        self.tried_n = 0
        self.kept = 0
        self.bytes_in = self.bytes_out = 0
        self.flags = self.attempts = self.connects = self.stale = 0
        self.upstream_us = 0
        self.request_deadline = self.call_deadline = self.attempt_deadline = 0
        self.request_done = self.request_paused = self.upstream_done = self.wants_new = False
        self.responded = self.replayable = self.tunnel = self.leased = False
        out_clear(&self.replay)
        self.request.clear()
        self.trailers.clear()
        # Either list outlives the methods of it that are on the stack now.
        if len(self.plane.spare) < SPARE:
            self.plane.spare.append(self)
        else:
            self.plane.poller.gone.append(self)
        Py_DECREF(self)
