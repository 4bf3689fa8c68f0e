"""What tests call of the path's own modules: queues, wheel, poller, pool and the forwarding rules, each with a Python face.

The clock is given, connections are dialled by the test, and bytes lie in memory of their exact size. Nothing here is on the path of a
request.
"""

from cpython.ref cimport PyObject
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from gateway._core.acceptor cimport is_aged
from gateway._core.buf cimport (
    Block, InBuf, OutQueue, in_append, in_clear, in_consume, out_append, out_clear, out_commit, out_consume, out_iov, out_reserve,
    out_rest, out_send, out_splice)
from gateway._core.counters cimport Counters
from gateway._core.faults cimport fault_name
from gateway._core.forward cimport ForwardFacts, forward_request
from gateway._core.h1_parse cimport HeadLimits, HeadParser, h1_parse_request
from gateway._core.headers cimport FIELD_DROP, FIELD_HOP, Field, HeaderBlock
from gateway._core.plane cimport Plane
from gateway._core.poller cimport Poller
from gateway._core.pool cimport ACQUIRED_DIAL, ACQUIRED_FULL, ACQUIRED_IDLE, ACQUIRED_WAIT, Cluster, Endpoint
from gateway._core.record cimport LogBuffer
from gateway._core.seam cimport Downstream, Flow, Pollable, Timed, Upstream
from gateway._core.snapshot cimport LimitsRec
from gateway._core.sys cimport iovec
from gateway._core.timers cimport Timer, Wheel
from gateway._core.types cimport Ref, Span, uint8_t, uint32_t, uint64_t

cdef enum:
    MOST_IOV = 64

cdef tuple LOSSES = ("", "connect", "connect_timeout", "stale", "reset", "garbage", "truncated", "timeout", "unsent")
cdef dict VERDICTS = {ACQUIRED_IDLE: "idle", ACQUIRED_DIAL: "dial", ACQUIRED_WAIT: "wait", ACQUIRED_FULL: "full"}


cdef const uint8_t *copy_exact(bytes data) except NULL:
    cdef size_t n = <size_t> len(data)
    cdef uint8_t *p = <uint8_t *> malloc(n + 1 if n == 0 else n)
    if p == NULL:
        raise MemoryError
    memcpy(p, <const char *> data, n)
    return p


# ---- buf -----------------------------------------------------------------------------------------------------------------


cdef class OutProbe:
    """An OutQueue."""
    cdef OutQueue queue

    def __dealloc__(self):
        out_clear(&self.queue)

    def append(self, bytes data):
        cdef const uint8_t *p = copy_exact(data)
        cdef int done = out_append(&self.queue, p, <size_t> len(data))
        free(<void *> p)
        return done == 0

    def reserve(self, size_t room, bytes data):
        cdef uint8_t *to = out_reserve(&self.queue, room)
        if to == NULL:
            return False
        # All of the room is there, not only what is committed.
        memset(to, 0xee, room)
        memcpy(to, <const char *> data, <size_t> len(data))
        if data:
            out_commit(&self.queue, <size_t> len(data))
        return True

    def reserve_too_much(self):
        return out_reserve(&self.queue, <size_t> 1 << 62) == NULL

    def consume(self, size_t n):
        out_consume(&self.queue, n)

    def clear(self):
        out_clear(&self.queue)

    def send(self, int fd, bytes data=b""):
        cdef const uint8_t *p = copy_exact(data)
        cdef Py_ssize_t sent = out_send(fd, &self.queue, p, <size_t> len(data), False)
        free(<void *> p)
        return sent

    def splice(self, int fd):
        return out_splice(&self.queue, fd)

    def rest(self):
        out_rest(&self.queue)

    @property
    def piped(self):
        return self.queue.pipe.held if self.queue.pipe != NULL else None

    def pieces(self, int room=MOST_IOV):
        cdef iovec iov[MOST_IOV]
        cdef int n = out_iov(&self.queue, iov, min(room, <int> MOST_IOV))
        return [(<const char *> iov[i].iov_base)[:iov[i].iov_len] for i in range(n)]

    @property
    def size(self):
        return self.queue.size

    @property
    def blocks(self):
        cdef Block *block = self.queue.head
        cdef list caps = []
        if (self.queue.head == NULL) != (self.queue.tail == NULL):
            raise AssertionError("a queue with one end")
        while block != NULL:
            if block.next == NULL and block != self.queue.tail:
                raise AssertionError("the tail is not the last block")
            caps.append(block.cap)
            block = block.next
        return caps


cdef class InProbe:
    """An InBuf."""
    cdef InBuf buf

    def __dealloc__(self):
        in_clear(&self.buf)

    def append(self, bytes data):
        cdef const uint8_t *p = copy_exact(data)
        cdef int done = in_append(&self.buf, p, <size_t> len(data))
        free(<void *> p)
        return done == 0

    def append_too_much(self):
        return in_append(&self.buf, NULL, <size_t> 1 << 62) < 0

    def consume(self, size_t n):
        in_consume(&self.buf, n)

    def clear(self):
        in_clear(&self.buf)

    @property
    def content(self):
        if self.buf.data == NULL:
            return b""
        return (<const char *> self.buf.data)[self.buf.start:self.buf.end]

    @property
    def held(self):
        return self.buf.cap if self.buf.data != NULL else 0


# ---- timers --------------------------------------------------------------------------------------------------------------


cdef class TimedProbe(Timed):
    cdef Timer timer
    cdef object key
    cdef object fired

    cdef void on_timer(self, Timer *timer) noexcept:
        if timer != &self.timer or timer.armed:
            self.fired("a timer that fires is its owner's, and off the wheel")
        self.fired(self.key)


cdef class WheelProbe:
    """A Wheel at a virtual time. Timers go by a key; `fired` is called with it."""
    cdef Wheel wheel
    cdef dict timers
    cdef object fired

    def __init__(self, uint64_t now, fired):
        self.wheel = Wheel.new(now)
        self.timers = {}
        self.fired = fired

    def __dealloc__(self):
        # Nodes lie in their owners, which may outlive nothing of the wheel.
        if self.timers is not None:
            for probe in self.timers.values():
                self.wheel.disarm(&(<TimedProbe> probe).timer)

    def arm(self, key, uint64_t deadline):
        cdef TimedProbe probe = self.timers.get(key)
        if probe is None:
            probe = self.timers[key] = TimedProbe.__new__(TimedProbe)
            probe.timer.owner = <PyObject *> probe
            probe.key = key
            probe.fired = self.fired
        self.wheel.arm(&probe.timer, deadline)

    def disarm(self, key):
        self.wheel.disarm(&(<TimedProbe> self.timers[key]).timer)

    def advance(self, uint64_t now):
        self.wheel.advance(now)

    def rest(self, uint64_t now, uint32_t most=1000):
        return self.wheel.rest(now, most)

    def place(self, key):
        cdef TimedProbe probe = self.timers[key]
        return probe.timer.slot if probe.timer.armed else None


# ---- poller --------------------------------------------------------------------------------------------------------------


cdef class PollProbe(Pollable):
    """A Pollable whose events go to a function: seen(kind, events), kind is "io", "ready" or "flush"."""
    cdef object seen

    def __init__(self, int fd, seen):
        self.fd = fd
        self.seen = seen

    @property
    def descriptor(self):
        return self.fd

    @property
    def registration(self):
        return self.serial

    cdef void on_io(self, uint32_t events) noexcept:
        self.seen("io", events)

    cdef void on_ready(self) noexcept:
        self.seen("ready", 0)

    cdef void on_flush(self) noexcept:
        self.seen("flush", 0)


cdef class PollerProbe:
    """A Poller."""
    cdef Poller poller

    def __init__(self):
        self.poller = Poller.new()

    def fileno(self):
        return self.poller.epfd

    def add(self, PollProbe probe, *, bint level=False):
        return self.poller.add(probe, level) == 0

    def remove(self, PollProbe probe, *, bint shared=False):
        self.poller.remove(probe, shared)

    def push_ready(self, PollProbe probe):
        self.poller.push_ready(probe)

    def push_flush(self, PollProbe probe):
        self.poller.push_flush(probe)

    def run(self):
        self.poller.run()

    def run_batch(self):
        return self.poller.run_batch()

    def settle(self):
        self.poller.settle()

    def close(self):
        self.poller.close()

    @property
    def held(self):
        return self.poller.held


# ---- pool ----------------------------------------------------------------------------------------------------------------


cdef class FlowProbe(Flow):
    """An exchange that waits for a connection; what comes is in `got`: an UpstreamProbe, or the name of a loss."""
    cdef readonly object got
    cdef public object then    # called with what came

    cdef void on_upstream(self, Upstream upstream) noexcept:
        self.come(upstream)

    cdef void on_no_upstream(self, int loss) noexcept:
        self.come(LOSSES[loss])

    cdef void come(self, object what) noexcept:
        self.got = what
        if self.then is not None:
            self.then(what)

    @property
    def is_waiting(self):
        return self.ticket != 0


cdef class UpstreamProbe(Upstream):
    """A connection without a socket."""
    cdef readonly int endpoint
    cdef Endpoint place
    cdef readonly bint closed
    cdef PoolProbe pool
    cdef bint is_idle

    cdef void cancel(self) noexcept:
        self.pool.end(self)


cdef class PoolProbe:
    """One Cluster on a Plane of its own. The test plays what upstream.pyx does: dial, dialled, dial_failed, give_back, lost."""
    cdef Plane plane
    cdef Cluster cluster
    cdef uint32_t tickets
    cdef list connections      # open UpstreamProbes
    cdef dict dialing          # by index of the endpoint: Endpoints of dials under way

    def __init__(self, block, *, uint32_t max_connections=0xffffffff, uint32_t max_pending=1024):
        self.plane = Plane.new(Counters.over(block), LogBuffer.new(), b"test")
        self.cluster = Cluster.new(self.plane, 7)
        self.cluster.max_connections = max_connections
        self.cluster.max_pending = max_pending
        self.connections = []
        self.dialing = {}

    def set_endpoints(self, *endpoints):
        self.cluster.set_endpoints([(host, port, 1, b"") for host, port in endpoints])

    def acquire(self, int index, FlowProbe flow):
        """idle (flow.got has the connection), dial, wait or full."""
        cdef int verdict = 0
        cdef Endpoint endpoint = self.cluster.endpoints[index]
        cdef Upstream upstream
        self.tickets += 1
        flow.ticket = self.tickets
        upstream = self.cluster.acquire(endpoint, flow, self.tickets, &verdict)
        if upstream is not None:
            (<UpstreamProbe> upstream).is_idle = False
            flow.come(upstream)
        if verdict == ACQUIRED_IDLE or verdict == ACQUIRED_FULL:
            flow.ticket = 0
        if verdict == ACQUIRED_DIAL:
            self.dial(endpoint)
        return VERDICTS[verdict]

    def leave(self, int index, FlowProbe flow):
        flow.ticket = 0
        self.cluster.leave(self.cluster.endpoints[index])

    cdef void dial(self, Endpoint endpoint) noexcept:
        endpoint.open += 1
        endpoint.dialing += 1
        self.cluster.series.connections += 1
        self.dialing.setdefault(endpoint.text, []).append(endpoint)

    cdef void free_connection(self, UpstreamProbe upstream, bint is_new) noexcept:
        # Set before it is offered: whoever takes it may give it back or lose it at once.
        upstream.is_idle = False
        if not self.cluster.give_back(upstream.place, upstream, is_new):
            self.end(upstream)
        elif upstream in upstream.place.idle:
            upstream.is_idle = True

    cdef void end(self, UpstreamProbe upstream) noexcept:
        if upstream.closed:
            return
        upstream.closed = True
        self.connections.remove(upstream)
        self.cluster.on_gone(upstream.place, upstream, upstream.is_idle)
        if self.cluster.is_hungry(upstream.place):
            self.dial(upstream.place)

    def dialed(self, bytes text):
        """The oldest dial to that address succeeds."""
        cdef Endpoint endpoint = self.dialing[text].pop(0)
        cdef UpstreamProbe upstream = UpstreamProbe.__new__(UpstreamProbe)
        upstream.endpoint = <int> endpoint.index
        upstream.place = endpoint
        upstream.pool = self
        self.connections.append(upstream)
        endpoint.dialing -= 1
        self.free_connection(upstream, True)
        return upstream

    def dial_failed(self, bytes text, int loss=1):
        cdef Endpoint endpoint = self.dialing[text].pop(0)
        self.cluster.on_gone(endpoint, None, False)
        endpoint.dialing -= 1
        self.cluster.on_dial_failed(endpoint, loss)
        if self.cluster.is_hungry(endpoint):
            self.dial(endpoint)

    def give_back(self, UpstreamProbe upstream):
        self.free_connection(upstream, False)

    def lost(self, UpstreamProbe upstream):
        self.end(upstream)

    def pick(self, *tried):
        """Index of the endpoint, or None."""
        cdef uint32_t indexes[8]
        cdef uint32_t i
        cdef Endpoint endpoint
        for i in range(<uint32_t> len(tried)):
            indexes[i] = tried[i]
        endpoint = self.cluster.pick(False, 0, indexes, <uint32_t> len(tried))
        return None if endpoint is None else endpoint.index

    def close(self):
        self.cluster.close()
        self.plane.poller.close()

    def describe(self):
        """The endpoints in order, then the cluster; the books are checked against what is really there."""
        cdef Endpoint endpoint
        cdef UpstreamProbe upstream
        cdef list lines = []
        cdef uint32_t waiting = 0
        cdef uint32_t idle = 0
        cdef uint32_t really
        cdef uint32_t live
        for endpoint in self.cluster.endpoints:
            waiting += endpoint.waiting
            idle += <uint32_t> len(endpoint.idle)
            really = 0
            for upstream in self.connections:
                if upstream.place is endpoint:
                    really += 1
            under_way = self.dialing.get(endpoint.text, []).count(endpoint)
            if endpoint.open != really + under_way or endpoint.dialing != under_way:
                raise AssertionError(f"{endpoint.open} open of {really} and {under_way} dialling")
            if endpoint.open > self.cluster.max_connections:
                raise AssertionError("more connections than allowed")
            live = 0
            for flow, ticket in endpoint.queue:
                if (<Flow> flow).ticket == ticket:
                    live += 1
            if live != endpoint.waiting:
                raise AssertionError(f"{endpoint.waiting} waiting, {live} of them really")
            lines.append(
                f"{endpoint.text.decode()} [{endpoint.open - len(endpoint.idle) - endpoint.dialing} leased, "
                f"{len(endpoint.idle)} idle, {endpoint.dialing} dialing, {endpoint.waiting} waiting]")
        if waiting != self.cluster.series.pending or idle != self.cluster.series.idle:
            raise AssertionError("the counters do not agree with the endpoints")
        lines.append(f"connections {self.cluster.series.connections}, overflows {self.cluster.series.overflows}")
        return " | ".join(lines)


# ---- forward -------------------------------------------------------------------------------------------------------------


cdef bytes bytes_of(HeaderBlock head, Ref ref):
    return (<const char *> head.store)[ref.off:ref.off + ref.n] if ref.n else b""


cdef Span span_of(bytes text) noexcept:
    cdef Span span
    span.p = <const uint8_t *> <const char *> text
    span.n = <size_t> len(text)
    return span


def aged(uint32_t max_age, uint8_t spread, uint64_t age):
    cdef LimitsRec limits
    memset(&limits, 0, sizeof(limits))
    limits.max_age = max_age
    return is_aged(&limits, 1000, spread, 1000 + age)


def forward(bytes head, *, bytes client=b"192.0.2.9", bytes node=b"isthmus", uint32_t trusted_hops=0,
            bint secure=False, uint32_t port=0, uint64_t random_hi=0, uint64_t random_lo=0):
    cdef HeaderBlock block = HeaderBlock.new()
    cdef HeadParser parser = HeadParser(0, 0, 0, 0, 0)
    cdef HeadLimits limits
    cdef ForwardFacts facts
    cdef bint answer_here = True
    cdef const uint8_t *p = copy_exact(head)
    cdef list fields = []
    cdef Field *field
    cdef uint32_t i
    cdef int outcome
    limits.max_count = 200
    limits.max_bytes = 65536
    limits.max_line = 8192
    outcome = h1_parse_request(&parser, block, p, <size_t> len(head), &limits)
    free(<void *> p)
    if outcome <= 0:
        raise ValueError((<bytes> fault_name(-outcome)).decode() if outcome else "incomplete")
    memset(&facts, 0, sizeof(facts))
    facts.peer = span_of(client)
    facts.node = span_of(node)
    facts.trusted_hops = trusted_hops
    facts.secure = secure
    facts.port = port
    facts.random_hi = random_hi
    facts.random_lo = random_lo
    outcome = forward_request(block, &facts, &answer_here)
    for i in range(block.count):
        field = &block.fields[i]
        if not field.flags & (FIELD_DROP | FIELD_HOP):
            fields.append((
                (<const char *> block.store)[field.name:field.name + field.name_len],
                (<const char *> block.store)[field.value:field.value + field.value_len],
            ))
    return {
        "fault": (<bytes> fault_name(-outcome)).decode() if outcome < 0 else None,
        "answer_here": answer_here,
        "fields": fields,
        "client": bytes_of(block, facts.client),
        "request_id": bytes_of(block, facts.request_id),
    }


# ---- seam and plane ------------------------------------------------------------------------------------------------------


def call_abstract():
    """Calls what the abstract classes leave to others; answers what came back."""
    cdef Downstream down = Downstream.__new__(Downstream)
    cdef Upstream up = Upstream.__new__(Upstream)
    cdef Flow flow = Flow.__new__(Flow)
    cdef HeaderBlock head = HeaderBlock.new()
    down.on_io(0)
    down.on_ready()
    down.on_flush()
    down.on_timer(NULL)
    down.send_head(head)
    down.finish(None)
    down.abort()
    up.send_request(head, False)
    up.cancel()
    flow.on_request_end(None)
    flow.on_upstream(up)
    flow.on_no_upstream(0)
    return (down.fd, up.fd, down.send_body(NULL, 0), up.send_body(NULL, 0), flow.borrow_response(),
            flow.borrow_trailers(), flow.ticket)


cdef class PlaneProbe:
    """A Plane."""
    cdef Plane plane

    def __init__(self, block, bytes node):
        self.plane = Plane.new(Counters.over(block), LogBuffer.new(), node)

    def randoms(self, int n):
        return [self.plane.next_random() for _ in range(n)]

    @property
    def node(self):
        cdef Span span = self.plane.borrow_node()
        return (<const char *> span.p)[:span.n]

    def close(self):
        self.plane.poller.close()
