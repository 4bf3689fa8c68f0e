"""The data plane of one worker; see engine.pyi for the contract."""

from cpython.ref cimport PyObject
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from gateway._core.balance cimport Candidate
from gateway._core.counters cimport S_LOG_DROPPED, S_LOOP_LAG_US, S_REVISION, S_SNAPSHOT_REFUSED, S_SWAP_US, Counters
from gateway._core.downstream cimport (
    DOWN_BODY,
    DOWN_FLUSH,
    DOWN_HEAD,
    DOWN_IDLE,
    DOWN_LINGER,
    DOWN_PROXY,
    DOWN_TUNNEL,
    DOWN_WAIT,
    Acceptor,
    H1Downstream,
)
from gateway._core.exchange cimport Exchange
from gateway._core.plane cimport Binding, Plane
from gateway._core.pool cimport Cluster, Endpoint
from gateway._core.record cimport FORMAT_JSON, FORMAT_OFF, FORMAT_TEXT, LogBuffer
from gateway._core.seam cimport Pollable
from gateway._core.snapshot cimport Snapshot, id64
from gateway._core.sys cimport CLOCK_MONOTONIC, clock_us
from gateway._core.types cimport Span
from gateway._core.upstream cimport H1Upstream

cdef dict STATES = {
    DOWN_PROXY: "proxy", DOWN_IDLE: "idle", DOWN_HEAD: "head", DOWN_BODY: "body", DOWN_WAIT: "wait", DOWN_TUNNEL: "tunnel",
    DOWN_FLUSH: "flush", DOWN_LINGER: "linger",
}
cdef tuple PHASES = (
    "HEAD", "ROUTE", "REQUEST_FILTERS", "PICK", "ACQUIRE", "SEND", "RESPONSE_HEAD", "RESPONSE_FILTERS", "STREAM", "LOG",
)
cdef tuple POLICIES = ("RoundRobin", "LeastRequest", "Random", "ConsistentHash")
cdef dict FORMATS = {"off": FORMAT_OFF, "json": FORMAT_JSON, "text": FORMAT_TEXT}


cdef str text_of(Span span):
    """Peers' bytes for an operator's eyes: printable ASCII, everything else as an escape."""
    return (<const char *> span.p)[:span.n].decode("ascii", "backslashreplace")


cdef class Engine:
    def __init__(self, counters, *, log_format="off", log_sample=1.0, node="isthmus"):
        self.plane = Plane.new(Counters.over(counters), LogBuffer.new(), node.encode("ascii", "replace"))
        self.clusters = {}
        self.leaving = set()
        self.acceptors = {}
        self.stopped = []
        self.pending = {}
        self.set_log(log_format, log_sample)

    def fileno(self):
        return self.plane.poller.epfd

    def on_ready(self):
        cdef uint64_t start
        cdef uint64_t took
        start = clock_us(CLOCK_MONOTONIC)
        self.plane.poller.run()
        took = clock_us(CLOCK_MONOTONIC) - start
        if took > self.plane.counters.scalars[<int> S_LOOP_LAG_US]:
            self.plane.counters.scalars[<int> S_LOOP_LAG_US] = took

    def on_tick(self):
        cdef Plane plane = self.plane
        plane.poller.refresh()
        plane.wheel.advance(plane.poller.now_ms)
        if self.leaving:
            self.see_out()
        plane.poller.settle()
        if self.drain_deadline and plane.poller.now_ms >= self.drain_deadline:
            for down in self.downstreams():
                (<H1Downstream> down).lost(0)
            self.drain_deadline = 0
            plane.poller.settle()

    def swap(self, blob, revision):
        cdef Plane plane = self.plane
        cdef uint64_t start = clock_us(CLOCK_MONOTONIC)
        cdef Binding binding = Binding.__new__(Binding)
        cdef Cluster cluster
        cdef uint32_t i
        cdef uint64_t id
        cdef dict named = {}
        try:
            binding.snapshot = Snapshot.load(blob)
        except ValueError:
            plane.counters.bump(S_SNAPSHOT_REFUSED, 1)
            raise
        binding.clusters = []
        for i in range(binding.snapshot.clusters_n):
            id = id64(binding.snapshot.clusters[i].id_lo, binding.snapshot.clusters[i].id_hi)
            cluster = self.clusters.get(id)
            if cluster is None:
                cluster = Cluster.new(plane, id)
            elif id in self.leaving:
                # back before it was gone; its series may have been retired meanwhile
                cluster.series = plane.counters.cluster(id)
            cluster.configure(binding.snapshot, &binding.snapshot.clusters[i])
            named[id] = cluster
            binding.clusters.append(cluster)
        # A cluster that is not named any more still serves what is in flight on it; on_tick sees it out.
        self.leaving = {gone for gone in self.clusters if gone not in named}
        self.clusters.update(named)
        for known in [known for known in self.pending if known in named]:
            (<Cluster> named[known]).set_endpoints(self.pending.pop(known))
        plane.binding = binding
        self.stopped = [acceptor for acceptor in self.stopped if (<Acceptor> acceptor).open]
        for acceptor in [*self.acceptors.values(), *self.stopped]:
            (<Acceptor> acceptor).rebind()
        self.retire_series(binding.snapshot)
        plane.counters.scalars[<int> S_REVISION] = revision
        plane.counters.scalars[<int> S_SWAP_US] = clock_us(CLOCK_MONOTONIC) - start

    cdef void see_out(self) noexcept:
        """Closes the clusters that no snapshot names and nothing uses any more."""
        cdef Cluster cluster
        for id in list(self.leaving):
            cluster = self.clusters[id]
            if cluster.active == 0 and cluster.series.pending == 0:
                cluster.close()
                self.leaving.discard(id)
                del self.clusters[id]

    cdef void retire_series(self, Snapshot snapshot) noexcept:
        """Series of names that the snapshot has no more go away."""
        cdef uint32_t i
        cdef uint32_t n = 0
        cdef uint64_t *ids = <uint64_t *> malloc(
            (<size_t> snapshot.listeners_n + snapshot.routes_n + snapshot.clusters_n + 1) * sizeof(uint64_t))
        if ids == NULL:
            # they stay until the next swap
            return
        for i in range(snapshot.listeners_n):
            ids[n] = id64(snapshot.listeners[i].id_lo, snapshot.listeners[i].id_hi)
            n += 1
        for i in range(snapshot.routes_n):
            ids[n] = id64(snapshot.routes[i].id_lo, snapshot.routes[i].id_hi)
            n += 1
        for i in range(snapshot.clusters_n):
            ids[n] = id64(snapshot.clusters[i].id_lo, snapshot.clusters[i].id_hi)
            n += 1
        self.plane.counters.retire(ids, n)
        free(ids)

    def set_endpoints(self, cluster, endpoints):
        known = self.clusters.get(cluster)
        if known is None:
            # What is wrong with them is told to whoever brings them, and not to the swap that comes later.
            rows = list(endpoints)
            for row in rows:
                Endpoint.new(None, row[0], row[1])
            self.pending[cluster] = rows
            return
        (<Cluster> known).set_endpoints(endpoints)
        self.plane.poller.settle()

    def listen(self, fd, bind_id):
        self.acceptors[bind_id] = Acceptor.new(self.plane, fd, bind_id)

    def unlisten(self, bind_id):
        acceptor = self.acceptors.pop(bind_id, None)
        if acceptor is not None:
            (<Acceptor> acceptor).stop()
            self.stopped.append(acceptor)

    def drain(self, deadline_ms):
        self.plane.draining = True
        self.plane.poller.refresh()
        self.drain_deadline = self.plane.poller.now_ms + <uint64_t> deadline_ms
        for acceptor in self.acceptors.values():
            (<Acceptor> acceptor).stop()
        for down in self.downstreams():
            (<H1Downstream> down).drain()

    @property
    def connections(self):
        return self.plane.downstreams

    cdef list downstreams(self):
        cdef list found = []
        cdef uint32_t fd
        for fd in range(self.plane.poller.slots_n):
            if self.plane.poller.slots[fd] != NULL:
                if isinstance(<object> self.plane.poller.slots[fd], H1Downstream):
                    found.append(<object> self.plane.poller.slots[fd])
        return found

    def describe_connections(self, limit=1000):
        cdef H1Downstream down
        cdef Exchange ex
        cdef Span span
        cdef list rows = []
        self.plane.poller.refresh()
        for down in self.downstreams():
            if len(rows) >= limit:
                break
            if down.peer_n == 0:
                down.learn_peer()
            row = {
                "peer": f"{down.peer[:down.peer_n].decode('ascii', 'replace')}:{down.peer_port}",
                "state": STATES.get(down.state, "closed"),
                "age_ms": self.plane.poller.now_ms - down.opened_ms,
                "requests": down.requests,
                "queued_bytes": down.out.size,
                "held_bytes": down.input.end - down.input.start,
            }
            ex = down.exchange
            if ex is not None and ex.phase:
                row["phase"] = PHASES[ex.phase]
                row["exchange_ms"] = (self.plane.poller.now_us - ex.start_us) // 1000
                row["method"] = text_of(ex.request.borrow(ex.request.method_text))
                row["path"] = text_of(ex.request.borrow(ex.request.path))
                if ex.rule != NULL:
                    span = ex.binding.snapshot.borrow(ex.binding.snapshot.routes[ex.rule.route].name)
                    row["route"] = text_of(span)
                if ex.cluster is not None:
                    row["cluster"] = ex.cluster.name.decode("utf-8", "replace")
                if ex.endpoint is not None:
                    row["upstream"] = ex.endpoint.text.decode("utf-8", "replace")
            rows.append(row)
        return rows

    def describe_clusters(self):
        cdef Cluster cluster
        cdef Endpoint endpoint
        cdef const Candidate *candidate
        cdef list rows = []
        self.plane.poller.refresh()
        for cluster in self.clusters.values():
            endpoints = []
            for endpoint in cluster.endpoints:
                candidate = &cluster.balancer.candidates[endpoint.index]
                endpoints.append({
                    "address": endpoint.text.decode("utf-8", "replace"),
                    "weight": candidate.weight,
                    "active": candidate.active,
                    "idle": len(endpoint.idle),
                    "connections": endpoint.open,
                    "dialing": endpoint.dialing,
                    "waiting": endpoint.waiting,
                    "up": bool(candidate.is_up),
                    "ejected": bool(candidate.is_ejected),
                    "ejected_ms": max(0, <long long> candidate.until_ms - <long long> self.plane.poller.now_ms)
                    if candidate.is_ejected else 0,
                    "errors": candidate.errors,
                })
            rows.append({
                "id": cluster.id,
                "name": cluster.name.decode("utf-8", "replace"),
                "policy": POLICIES[cluster.balancer.policy],
                "active": cluster.active,
                "endpoints": endpoints,
            })
        return rows

    def take_log(self):
        self.plane.counters.scalars[<int> S_LOG_DROPPED] = self.plane.log.dropped
        return self.plane.log.take()

    def set_log(self, format, sample):
        if format not in FORMATS:
            raise ValueError(f"unknown access-log format {format!r}")
        self.plane.log.format = FORMATS[format]
        self.plane.log.sample = <uint32_t> min(65536, max(0, int(sample * 65536)))

    def close(self):
        cdef Pollable pollable
        cdef uint32_t fd
        for acceptor in list(self.acceptors.values()):
            (<Acceptor> acceptor).stop()
        for down in self.downstreams():
            (<H1Downstream> down).lost(0)
        for cluster in self.clusters.values():
            (<Cluster> cluster).close()
        for fd in range(self.plane.poller.slots_n):
            if self.plane.poller.slots[fd] != NULL:
                pollable = <Pollable> <PyObject *> self.plane.poller.slots[fd]
                if isinstance(pollable, H1Upstream):
                    (<H1Upstream> pollable).cancel()
        self.plane.poller.close()
        self.plane.spare.clear()
        self.clusters.clear()
        self.leaving.clear()
        self.acceptors.clear()
        self.stopped.clear()
        self.plane.binding = None
