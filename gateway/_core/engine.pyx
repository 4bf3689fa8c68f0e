"""The data plane of one worker; see engine.pyi for the contract."""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from gateway._core.acceptor cimport Acceptor
from gateway._core.balance cimport Candidate
from gateway._core.counters cimport S_LOG_DROPPED, S_REVISION, S_SNAPSHOT_REFUSED, S_SWAP_US, Counters
from gateway._core.dial cimport Dial, Dialing
from gateway._core.doorway cimport Door
from gateway._core.h2_upstream cimport H2Upstream
from gateway._core.limit_check cimport Limiter
from gateway._core.mirror cimport Mirror
from gateway._core.plane cimport Binding, Plane
from gateway._core.pool cimport Cluster, Endpoint
from gateway._core.record cimport FORMAT_JSON, FORMAT_OFF, FORMAT_TEXT, LogBuffer
from gateway._core.seam cimport LOSS_UNSENT, Pollable, Upstream
from gateway._core.snapshot cimport SEC_RATES, Snapshot, id64
from gateway._core.sys cimport CLOCK_MONOTONIC, clock_us
from gateway._core.tls cimport ClientTLS, ServerTLS

cdef tuple POLICIES = ("RoundRobin", "LeastRequest", "Random", "ConsistentHash")
cdef enum:
    TICK_MS = 20           # while there is something to do
    REST_MS = 1000         # at most, while there is not

cdef dict FORMATS = {"off": FORMAT_OFF, "json": FORMAT_JSON, "text": FORMAT_TEXT}


cdef class Engine:
    def __init__(self, counters, *, log_format="off", log_sample=1.0, node="isthmus"):
        self.plane = Plane.new(Counters.over(counters), LogBuffer.new(), node.encode("ascii", "replace"))
        self.plane.dialer = Dialing.new(self.plane)
        self.plane.limiter = self.limiter = Limiter.new(self.plane)
        self.clusters = {}
        self.leaving = set()
        self.acceptors = {}
        self.stopped = []
        self.pending = {}
        self.clients = {}
        self.set_log(log_format, log_sample)

    def fileno(self):
        return self.plane.poller.epfd

    def on_ready(self):
        cdef uint64_t start = clock_us(CLOCK_MONOTONIC)
        self.stir()
        self.plane.poller.run()
        self.plane.counters.note_turn(clock_us(CLOCK_MONOTONIC) - start)

    cdef int stir(self) except -1:
        """Whatever happens outside of a tick may set deadlines that are nearer than the next one."""
        self.stirred = True
        if self.resting:
            self.resting = False
            if self.wake is not None:
                self.wake()
        return 0

    def set_wake(self, wake):
        self.wake = wake

    def on_tick(self):
        cdef Plane plane = self.plane
        cdef uint64_t start
        cdef uint32_t rest = TICK_MS
        plane.poller.refresh()
        start = plane.poller.now_us
        plane.counters.roll(plane.poller.now_ms)
        plane.wheel.advance(plane.poller.now_ms)
        if self.leaving:
            self.see_out()
        plane.poller.settle()
        if self.drain_deadline and plane.poller.now_ms >= self.drain_deadline:
            for pollable in self.pollables():
                (<Pollable> pollable).cut()
            self.drain_deadline = 0
            plane.poller.settle()
        plane.counters.note_turn(clock_us(CLOCK_MONOTONIC) - start)
        if not self.stirred and not self.drain_deadline:
            # Not in the middle of work: the first event would end the rest at once, again and again.
            rest = plane.wheel.rest(plane.poller.now_ms, REST_MS)
            if rest < TICK_MS:
                rest = TICK_MS
        self.stirred = False
        self.resting = rest > TICK_MS
        return rest

    def open_snapshot(self, blob):
        try:
            return Snapshot.open(blob)
        except ValueError:
            self.plane.counters.bump(S_SNAPSHOT_REFUSED, 1)
            raise

    def verify_some(self, Snapshot snapshot not None):
        try:
            return snapshot.verify_some()
        except ValueError:
            self.plane.counters.bump(S_SNAPSHOT_REFUSED, 1)
            raise

    def swap(self, snapshot, revision):
        cdef Plane plane = self.plane
        cdef uint64_t start = clock_us(CLOCK_MONOTONIC)
        cdef Binding binding = Binding.__new__(Binding)
        cdef Cluster cluster
        cdef uint32_t i
        cdef uint64_t id
        cdef dict named = {}
        self.stir()
        binding.snapshot = snapshot if isinstance(snapshot, Snapshot) else self.open_snapshot(snapshot)
        while not self.verify_some(binding.snapshot):
            pass
        binding.clusters = []
        for i in range(binding.snapshot.clusters_n):
            id = id64(binding.snapshot.clusters[i].id_lo, binding.snapshot.clusters[i].id_hi)
            cluster = self.clusters.get(id)
            if cluster is None:
                cluster = Cluster.new(plane, id)
                cluster.set_tls(self.clients.get(id))
            elif id in self.leaving:
                # back before it was gone; its series may have been retired meanwhile
                cluster.series = plane.counters.cluster(id)
            cluster.configure(binding.snapshot, &binding.snapshot.clusters[i])
            named[id] = cluster
            binding.clusters.append(cluster)
        if self.limiter.table is None and binding.snapshot.counts[SEC_RATES]:
            self.limiter.use(None, 0)
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
        start = clock_us(CLOCK_MONOTONIC) - start
        plane.counters.scalars[<int> S_SWAP_US] = start
        plane.counters.note_turn(start)

    cdef void see_out(self) noexcept:
        """Closes the clusters that no snapshot names and nothing uses any more."""
        cdef Cluster cluster
        for id in list(self.leaving):
            cluster = self.clusters[id]
            if not cluster.is_used():
                cluster.close()
                self.leaving.discard(id)
                del self.clusters[id]

    cdef void retire_series(self, Snapshot snapshot) noexcept:
        """Series of names that the snapshot has no more go away; not those of clusters that are still used."""
        cdef uint32_t i
        cdef uint32_t n = 0
        cdef uint32_t rates_n = snapshot.counts[SEC_RATES]
        cdef uint64_t *ids = <uint64_t *> malloc(
            (<size_t> snapshot.listeners_n + snapshot.routes_n + snapshot.clusters_n + rates_n + <size_t> len(self.leaving) + 1) * sizeof(uint64_t))
        if ids == NULL:
            # they stay until the next swap
            return
        for i in range(snapshot.listeners_n):
            ids[n] = id64(snapshot.listeners[i].id_lo, snapshot.listeners[i].id_hi)
            n += 1
        for i in range(snapshot.routes_n):
            ids[n] = id64(snapshot.routes[i].id_lo, snapshot.routes[i].id_hi)
            n += 1
        for i in range(rates_n):
            ids[n] = id64(snapshot.rates[i].id_lo, snapshot.rates[i].id_hi)
            n += 1
        for i in range(snapshot.clusters_n):
            ids[n] = id64(snapshot.clusters[i].id_lo, snapshot.clusters[i].id_hi)
            n += 1
        for gone in self.leaving:
            # Nothing shows in the gauges of one whose exchanges all pause before they try again.
            if (<Cluster> self.clusters[gone]).is_used():
                ids[n] = gone
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
        self.stir()
        (<Cluster> known).set_endpoints(endpoints)
        self.plane.poller.settle()

    def listen(self, fd, bind_id):
        self.stir()
        self.acceptors[bind_id] = Door.new(self.plane, fd, bind_id)

    def unlisten(self, bind_id):
        acceptor = self.acceptors.pop(bind_id, None)
        if acceptor is not None:
            self.stir()
            self.plane.poller.refresh()
            (<Acceptor> acceptor).take_rest()
            (<Acceptor> acceptor).stop()
            self.stopped.append(acceptor)

    def set_server_tls(self, listener, tls):
        cdef ServerTLS server = tls
        if server is None:
            self.plane.servers.pop(listener, None)
        else:
            self.plane.servers[listener] = server

    def set_client_tls(self, cluster, tls):
        cdef ClientTLS client = tls
        known = self.clusters.get(cluster)
        if client is None:
            self.clients.pop(cluster, None)
        else:
            self.clients[cluster] = client
        if known is not None:
            self.stir()
            (<Cluster> known).set_tls(client)
            self.plane.poller.settle()

    def set_certificate_reader(self, read):
        self.plane.read_certificate = read

    def set_limits(self, table, *, slot=0, replicas=1):
        self.limiter.use(table, <uint32_t> slot)
        self.set_replicas(replicas)

    def set_replicas(self, replicas):
        if self.limiter.table is None:
            self.limiter.use(None, 0)
        self.limiter.table.share = <uint32_t> max(1, min(int(replicas), 256))

    def set_limit_asker(self, wake):
        self.stir()
        self.plane.poller.refresh()
        self.limiter.set_asker(wake)
        self.plane.poller.settle()

    def take_asks(self):
        return self.limiter.take()

    def answer_ask(self, ask_id, granted, rows):
        cdef tuple known = tuple([tuple([max(0, min(int(word), 0xffffffff)) for word in row]) for row in rows])
        self.begin_answers()
        self.limiter.answer(<uint32_t> ask_id, <uint32_t> max(0, min(int(granted), 0xffffffff)), known)
        self.end_answers()

    def fail_ask(self, ask_id, reason=0):
        self.begin_answers()
        self.limiter.fail(<uint32_t> ask_id)
        self.end_answers()

    cdef int begin_answers(self) except -1:
        self.stir()
        if not self.limiter.is_calling:
            self.plane.poller.refresh()
        return 0

    cdef void end_answers(self) noexcept:
        # Inside of a turn its own end does it.
        if not self.limiter.is_calling:
            self.plane.poller.settle()

    def drain(self, deadline_ms):
        self.stir()
        self.plane.draining = True
        self.plane.poller.refresh()
        self.drain_deadline = self.plane.poller.now_ms + <uint64_t> deadline_ms
        for pollable in self.pollables():
            (<Pollable> pollable).drain()

    @property
    def connections(self):
        return self.plane.downstreams

    cdef list pollables(self):
        cdef list found = []
        cdef uint32_t fd
        for fd in range(self.plane.poller.slots_n):
            if self.plane.poller.slots[fd] != NULL:
                found.append(<object> self.plane.poller.slots[fd])
        return found

    def describe_connections(self, limit=1000):
        cdef list rows = []
        cdef dict row
        self.plane.poller.refresh()
        for pollable in self.pollables():
            if len(rows) >= limit:
                break
            row = (<Pollable> pollable).describe()
            if row is not None:
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

    def top_keys(self):
        self.plane.poller.refresh()
        return self.limiter.top.rows(self.plane.poller.now_ms)

    def take_log(self):
        self.plane.counters.scalars[<int> S_LOG_DROPPED] = self.plane.log.dropped
        return self.plane.log.take()

    def set_log(self, format, sample):
        if format not in FORMATS:
            raise ValueError(f"unknown access-log format {format!r}")
        self.plane.log.format = FORMATS[format]
        self.plane.log.sample = <uint32_t> min(65536, max(0, int(sample * 65536)))

    def close(self):
        self.wake = None
        self.limiter.asker = None
        for acceptor in list(self.acceptors.values()):
            (<Acceptor> acceptor).stop()
        for pollable in self.pollables():
            (<Pollable> pollable).cut()
        for mirror in list(self.plane.mirrors):
            (<Mirror> mirror).end(0, NULL)
        for cluster in self.clusters.values():
            (<Cluster> cluster).close()
        for pollable in self.pollables():
            if isinstance(pollable, Upstream):
                (<Upstream> pollable).cancel()
            elif isinstance(pollable, H2Upstream):
                (<H2Upstream> pollable).close()
            elif isinstance(pollable, Dial):
                (<Dial> pollable).lost(LOSS_UNSENT)
        self.limiter.close()
        self.plane.limiter = None
        self.plane.poller.close()
        self.plane.spare.clear()
        self.plane.dialer = None
        self.clusters.clear()
        self.leaving.clear()
        self.acceptors.clear()
        self.stopped.clear()
        self.plane.binding = None
