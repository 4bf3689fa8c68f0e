"""Clusters, endpoints and pooled connections; see pool.pxd."""

from collections import deque

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from gateway._core.balance cimport CONSISTENT_HASH, Balancer, hash64_of
from gateway._core.seam cimport LOSS_UNSENT, Flow, Mux, Upstream
from gateway._core.snapshot cimport ClusterRec, Snapshot
from gateway._core.sys cimport (
    AF_INET,
    AF_INET6,
    AF_UNIX,
    htons,
    inet_pton,
    sockaddr_in,
    sockaddr_in6,
    sockaddr_un,
)
from gateway._core.tls cimport ClientTLS, tls_session_free
from gateway._core.types cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef object new_queue = deque


cdef uint32_t last_ticket = 0


cdef uint32_t next_ticket() noexcept nogil:
    global last_ticket
    last_ticket += 1
    if last_ticket == 0:
        last_ticket = 1
    return last_ticket


cdef class Endpoint:
    def __dealloc__(self):
        if self.session != NULL:
            tls_session_free(self.session)

    @staticmethod
    cdef Endpoint new(Cluster cluster, bytes host, uint32_t port):
        """An endpoint for an IPv4 or IPv6 address in text, or an absolute path. Raises ValueError."""
        cdef Endpoint endpoint = Endpoint.__new__(Endpoint)
        cdef sockaddr_in *v4 = <sockaddr_in *> &endpoint.address
        cdef sockaddr_in6 *v6 = <sockaddr_in6 *> &endpoint.address
        cdef sockaddr_un *un = <sockaddr_un *> &endpoint.address
        if port > 65535:
            raise ValueError(f"not a port: {port}")
        memset(&endpoint.address, 0, sizeof(endpoint.address))
        endpoint.cluster = cluster
        endpoint.idle = []
        endpoint.muxes = []
        endpoint.queue = new_queue()
        if host[:1] == b"/":
            if len(host) >= <Py_ssize_t> sizeof(un.sun_path):
                raise ValueError(f"socket path too long: {host!r}")
            un.sun_family = <uint16_t> AF_UNIX
            memcpy(un.sun_path, <const char *> host, <size_t> len(host))
            endpoint.address_n = sizeof(sockaddr_un)
            endpoint.text = b"unix:" + host
        elif inet_pton(AF_INET, host, &v4.sin_addr) == 1:
            v4.sin_family = <uint16_t> AF_INET
            v4.sin_port = htons(<uint16_t> port)
            endpoint.address_n = sizeof(sockaddr_in)
            endpoint.text = b"%s:%d" % (host, port)
        elif inet_pton(AF_INET6, host, &v6.sin6_addr) == 1:
            v6.sin6_family = <uint16_t> AF_INET6
            v6.sin6_port = htons(<uint16_t> port)
            endpoint.address_n = sizeof(sockaddr_in6)
            endpoint.text = b"[%s]:%d" % (host, port)
        else:
            raise ValueError(f"not an address: {host!r}")
        return endpoint


cdef class Cluster:
    def __init__(self):
        raise TypeError("use Cluster.new")

    @staticmethod
    cdef Cluster new(Plane plane, uint64_t id):
        cdef Cluster cluster = Cluster.__new__(Cluster)
        cluster.plane = plane
        cluster.id = id
        cluster.endpoints = []
        cluster.name = cluster.key_name = b""
        cluster.balancer = Balancer.new(0)
        cluster.series = plane.counters.cluster(id)
        return cluster

    cdef void configure(self, Snapshot snapshot, const ClusterRec *record) noexcept:
        cdef Span span = snapshot.borrow(record.name)
        cdef Endpoint endpoint
        self.name = (<const char *> span.p)[:span.n]
        span = snapshot.borrow(record.key_name)
        self.key_name = (<const char *> span.p)[:span.n]
        self.key_kind = record.key_kind if record.policy == CONSISTENT_HASH else 0
        self.wants_tls = record.tls == 1
        if self.protocol != record.protocol:
            self.protocol = record.protocol
            for endpoint in self.endpoints:
                endpoint.is_mux = self.protocol == PROTOCOL_HTTP2
                self.close_idle(endpoint)
        self.connect_timeout = record.connect_timeout
        self.idle_timeout = record.idle_timeout
        self.max_connections = record.max_connections if record.max_connections else 0xffffffff
        self.max_pending = record.max_pending
        self.balancer.configure(
            <uint8_t> record.policy, record.outlier_errors, record.outlier_ejection, record.outlier_percent)

    cdef int set_endpoints(self, object endpoints) except -1:
        cdef dict known = {endpoint.text: endpoint for endpoint in self.endpoints}
        cdef list fresh = []
        cdef set seen = set()
        cdef Endpoint endpoint
        cdef Endpoint old
        cdef list rows = list(endpoints)
        cdef uint32_t *weights = <uint32_t *> malloc((<size_t> len(rows) + 1) * sizeof(uint32_t))
        cdef uint64_t *hashes = <uint64_t *> malloc((<size_t> len(rows) + 1) * sizeof(uint64_t))
        cdef uint32_t n = 0
        try:
            if weights == NULL or hashes == NULL:
                raise MemoryError
            # (host, port, weight, zone); the zone is not used yet
            for row in rows:
                endpoint = Endpoint.new(self, row[0], row[1])
                endpoint.is_mux = self.protocol == PROTOCOL_HTTP2
                if endpoint.text in seen:
                    continue
                seen.add(endpoint.text)
                old = known.pop(endpoint.text, None)
                if old is not None:
                    endpoint = old
                fresh.append(endpoint)
                weights[n] = row[2]
                hashes[n] = hash64_of(<const uint8_t *> <const char *> endpoint.text, <size_t> len(endpoint.text))
                n += 1
            if self.balancer.replace(n, weights, hashes) < 0:
                raise MemoryError
        finally:
            free(weights)
            free(hashes)
        self.endpoints = fresh
        n = 0
        for endpoint in fresh:
            endpoint.index = n
            n += 1
        for endpoint in known.values():
            self.retire(endpoint)
        return 0

    cdef bint is_same_tls(self, ClientTLS tls) noexcept:
        if self.tls is None or tls is None:
            return self.tls is tls
        return self.tls is tls or self.tls.identity == tls.identity

    cdef void set_tls(self, ClientTLS tls) noexcept:
        cdef Endpoint endpoint
        cdef bint is_same = self.is_same_tls(tls)
        self.tls = tls
        if is_same:
            return
        for endpoint in self.endpoints:
            if endpoint.session != NULL:
                tls_session_free(endpoint.session)
                endpoint.session = NULL
            self.close_idle(endpoint)

    cdef void close_idle(self, Endpoint endpoint) noexcept:
        cdef list idle = endpoint.idle
        cdef Upstream upstream
        cdef Mux mux
        for mux in list(endpoint.muxes):
            mux.retire()
        endpoint.idle = []
        self.series.idle -= <uint64_t> len(idle)
        for upstream in idle:
            upstream.cancel()

    cdef void retire(self, Endpoint endpoint) noexcept:
        """An endpoint that went away: idle connections close, leased ones end with their exchange, waiters try elsewhere."""
        endpoint.cluster = None
        self.close_idle(endpoint)
        while endpoint.waiting:
            # Nobody failed: they go on to another endpoint, of which there may be one alone.
            self.on_dial_failed(endpoint, LOSS_UNSENT)

    cdef Endpoint pick(self, bint has_key, uint64_t key, const uint32_t *tried, uint32_t tried_n):
        cdef int index
        if not self.endpoints:
            return None
        index = self.balancer.pick(has_key, key, tried, tried_n, self.plane.poller.now_ms)
        if index < 0:
            return None
        return <Endpoint> self.endpoints[index]

    cdef Endpoint keep(self, uint64_t hash, bint has_key, uint64_t key, const uint32_t *tried, uint32_t tried_n):
        cdef int index = self.balancer.keep(hash, tried, tried_n, self.plane.poller.now_ms) if hash else -1
        return self.pick(has_key, key, tried, tried_n) if index < 0 else <Endpoint> self.endpoints[index]

    cdef Upstream acquire(self, Endpoint endpoint, Flow flow, uint32_t ticket, int *verdict):
        cdef Upstream upstream
        if endpoint.is_mux:
            upstream = self.acquire_stream(endpoint, verdict)
            if upstream is not None:
                return upstream
        elif endpoint.idle and flow.wants_new:
            # What else idles there is as old; and it must not take the place of a new connection.
            if endpoint.open >= self.max_connections:
                upstream = <Upstream> endpoint.idle.pop(0)
                self.series.idle -= 1
                upstream.cancel()
        elif endpoint.idle:
            verdict[0] = ACQUIRED_IDLE
            upstream = <Upstream> endpoint.idle.pop()
            self.series.idle -= 1
            return upstream
        if endpoint.open < self.max_connections and endpoint.dialing <= (0 if endpoint.is_mux else endpoint.waiting):
            verdict[0] = ACQUIRED_DIAL
        elif self.series.pending >= self.max_pending:
            verdict[0] = ACQUIRED_FULL
            self.series.overflows += 1
            return None
        else:
            verdict[0] = ACQUIRED_WAIT
        endpoint.queue.append((flow, ticket))
        endpoint.waiting += 1
        self.series.pending += 1
        return None

    cdef Upstream acquire_stream(self, Endpoint endpoint, int *verdict):
        cdef Upstream upstream
        cdef Mux mux
        for mux in endpoint.muxes:
            if mux.room:
                upstream = mux.open_stream()
                if upstream is not None:
                    verdict[0] = ACQUIRED_IDLE
                    return upstream
        return None

    cdef void on_mux(self, Endpoint endpoint, Mux mux) noexcept:
        endpoint.is_mux = True
        endpoint.muxes.append(mux)
        if endpoint.cluster is None:
            mux.retire()
        self.on_room(endpoint, mux)

    cdef void on_room(self, Endpoint endpoint, Mux mux) noexcept:
        cdef Flow flow
        cdef Upstream upstream
        while mux.room and endpoint.waiting:
            upstream = mux.open_stream()
            if upstream is None:
                return
            flow = self.next_waiting(endpoint, True)
            if flow is None:
                upstream.cancel()
                return
            flow.on_upstream(upstream)
        if self.is_hungry(endpoint):
            self.plane.dialer.dial(self, endpoint)

    cdef void on_mux_gone(self, Endpoint endpoint, Mux mux) noexcept:
        if mux in endpoint.muxes:
            endpoint.muxes.remove(mux)
        self.on_gone(endpoint, None, False)
        if self.is_hungry(endpoint):
            self.plane.dialer.dial(self, endpoint)

    cdef void leave(self, Endpoint endpoint) noexcept:
        endpoint.waiting -= 1
        self.series.pending -= 1
        # Tickets given up stay in the queue until their turn; with none alive the queue is emptied at once.
        if endpoint.waiting == 0:
            endpoint.queue.clear()

    cdef Flow next_waiting(self, Endpoint endpoint, bint is_new):
        cdef Flow flow
        cdef Flow found = None
        cdef uint32_t ticket
        cdef list passed = None
        while endpoint.queue:
            flow, ticket = endpoint.queue.popleft()
            if flow.ticket != ticket:
                continue
            if flow.wants_new and not is_new:
                if passed is None:
                    passed = []
                passed.append((flow, ticket))
                continue
            endpoint.waiting -= 1
            self.series.pending -= 1
            flow.ticket = 0
            found = flow
            break
        if passed is not None:
            endpoint.queue.extendleft(reversed(passed))
        return found

    cdef bint give_back(self, Endpoint endpoint, Upstream upstream, bint is_new) noexcept:
        cdef Flow flow = self.next_waiting(endpoint, is_new)
        if flow is not None:
            flow.on_upstream(upstream)
            return True
        if endpoint.cluster is None:
            return False
        if endpoint.waiting > endpoint.dialing and endpoint.open >= self.max_connections:
            # Whoever waits wants a new one, and there is no room for it: this one makes it.
            return False
        endpoint.idle.append(upstream)
        self.series.idle += 1
        return True

    cdef void on_gone(self, Endpoint endpoint, Upstream upstream, bint was_idle) noexcept:
        endpoint.open -= 1
        self.series.connections -= 1
        if was_idle and upstream in endpoint.idle:
            endpoint.idle.remove(upstream)
            self.series.idle -= 1

    cdef bint is_hungry(self, Endpoint endpoint) noexcept:
        if endpoint.open >= self.max_connections or endpoint.cluster is None:
            return False
        if endpoint.is_mux:
            # one connection will do for many
            return endpoint.waiting > 0 and endpoint.dialing == 0
        return endpoint.waiting > endpoint.dialing

    cdef void on_dial_failed(self, Endpoint endpoint, int loss) noexcept:
        cdef Flow flow = self.next_waiting(endpoint, True)
        if flow is not None:
            flow.on_no_upstream(loss)

    cdef void begin_attempt(self, Endpoint endpoint) noexcept:
        self.active += 1
        self.series.active += 1
        self.series.requests += 1
        if endpoint.cluster is not None:
            self.balancer.candidates[endpoint.index].active += 1

    cdef void end_attempt(self, Endpoint endpoint, bint good) noexcept:
        self.active -= 1
        self.series.active -= 1
        if not good:
            self.series.failures += 1
        if endpoint.cluster is not None:
            self.balancer.candidates[endpoint.index].active -= 1

    cdef void on_outcome(self, Endpoint endpoint, bint good) noexcept:
        # An endpoint that was replaced meanwhile has no place in the balancer any more.
        if endpoint.cluster is None:
            return
        if good:
            self.balancer.on_success(endpoint.index)
        elif self.balancer.on_failure(endpoint.index, self.plane.poller.now_ms):
            self.series.ejections += 1

    cdef bint is_used(self) noexcept:
        return self.active or self.pausing or self.series.pending

    cdef void close(self) noexcept:
        cdef Endpoint endpoint
        cdef list endpoints = self.endpoints
        self.endpoints = []
        for endpoint in endpoints:
            self.retire(endpoint)
