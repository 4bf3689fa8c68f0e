"""A session of HTTP/2 as tests drive it: bytes in, events as tuples, bytes out, and its books checked after each step.

What is not complete is kept and shown again, as a connection does, in memory of its exact size. Nothing here is on the path of a request.
"""

cimport cython

from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from gateway._core.buf cimport Block, out_consume
from gateway._core.faults cimport fault_name
from gateway._core cimport h2_session
from gateway._core.h2_session cimport H2Limits, H2Session, h2_limits_start
from gateway._core.h2_sink cimport BLOCK_REQUEST, BLOCK_TRAILERS, H2Sink
from gateway._core.h2_stream cimport NO_LENGTH, H2Stream, stream_find
from gateway._core.headers cimport FIELD_DROP, FIELD_HOP, Field, HeaderBlock
from gateway._core.tokens cimport method_of, token_of
from gateway._core.types cimport FRAME_LENGTH, FRAME_NONE, FRAME_STREAM, uint8_t, uint32_t, uint64_t

cdef tuple HOW = ("", "done", "ours", "reset", "unprocessed", "fault", "broken")


def set_spare(uint64_t n):
    """What all sessions of this process share; what it was."""
    cdef uint64_t before = h2_session.h2_spare
    h2_session.h2_spare = n
    return before


cdef object name_of(int fault):
    return (<bytes> fault_name(fault)).decode() if fault else None


cdef list pairs_of(HeaderBlock block):
    cdef list pairs = []
    cdef uint32_t i
    cdef Field *field
    for i in range(block.count):
        field = &block.fields[i]
        if not field.flags & (FIELD_DROP | FIELD_HOP):
            pairs.append((
                (<const char *> block.store)[field.name:field.name + field.name_len],
                (<const char *> block.store)[field.value:field.value + field.value_len],
            ))
    return pairs


cdef bytes part_of(HeaderBlock block, uint32_t off, uint32_t n):
    return (<const char *> block.store)[off:off + n] if n else b""


# What a head says: of a request its method, host and path, of a response its status; then the fields.
cdef tuple head_of(HeaderBlock block):
    if block.status:
        return block.status, pairs_of(block)
    path = part_of(block, block.path.off, block.path.n)
    if block.has_query:
        path += b"?" + part_of(block, block.query.off, block.query.n)
    return part_of(block, block.method_text.off, block.method_text.n), part_of(block, block.host.off, block.host.n), path, pairs_of(block)


@cython.final
cdef class Recorder(H2Sink):
    cdef list events
    cdef object hook           # called with each event, when it is set: what it does, happens in the midst of the session's call
    cdef dict blocks           # by stream and kind
    cdef bint willing

    cdef void note(self, tuple event) noexcept:
        self.events.append(event)
        if self.hook is not None:
            self.hook(event)

    cdef bint on_open(self, H2Stream *stream) noexcept:
        self.note(("open", stream.id))
        return self.willing

    cdef HeaderBlock borrow_block(self, H2Stream *stream, int kind):
        cdef tuple key = (stream.id, kind == BLOCK_TRAILERS)
        if key not in self.blocks:
            self.blocks[key] = HeaderBlock.new()
        return self.blocks[key]

    cdef void on_informational(self, H2Stream *stream, HeaderBlock head) noexcept:
        self.note(("informational", stream.id, *head_of(head)))

    cdef void on_head(self, H2Stream *stream, HeaderBlock head, bint ended) noexcept:
        self.note(("head", stream.id, *head_of(head), ended))

    cdef void on_refused(self, H2Stream *stream, HeaderBlock head, int fault) noexcept:
        self.note(("refused", stream.id, name_of(fault)))

    cdef void on_data(self, H2Stream *stream, const uint8_t *p, size_t n) noexcept:
        self.note(("data", stream.id, (<const char *> p)[:n]))

    cdef void on_end(self, H2Stream *stream, HeaderBlock trailers) noexcept:
        self.note(("end", stream.id, pairs_of(trailers) if trailers is not None else None))

    cdef void on_drained(self, H2Stream *stream) noexcept:
        self.note(("drained", stream.id))

    cdef void on_gone(self, H2Stream *stream, int how, uint32_t code, int fault) noexcept:
        self.blocks.pop((stream.id, False), None)
        self.blocks.pop((stream.id, True), None)
        self.note(("gone", stream.id, HOW[how], code, name_of(fault)))

    cdef void on_fault(self, int fault) noexcept:
        self.note(("fault", name_of(fault)))

    cdef void on_settings(self) noexcept:
        self.note(("settings",))

    cdef void on_goaway(self, uint32_t last, uint32_t code) noexcept:
        self.note(("goaway", last, code))

    cdef void on_pong(self) noexcept:
        self.note(("pong",))

    cdef void on_over(self) noexcept:
        self.note(("over",))


cdef HeaderBlock block_of(object pairs, object length, bint has_content):
    cdef HeaderBlock block = HeaderBlock.new()
    cdef bytes name
    cdef bytes value
    for name, value in pairs:
        if name == b":method":
            block.method_text = block.keep(value, len(value))
            block.method = method_of(value, len(value))
        elif name == b":authority":
            block.authority = block.keep(value, len(value))
        elif name == b":path":
            block.path = block.keep(value, len(value))
        elif name == b":status":
            block.status = int(value)
        elif name != b":scheme" and block.add(token_of(name, len(name)), name, len(name), value, len(value)) < 0:
            raise MemoryError
    if length is not None:
        block.framing = FRAME_LENGTH
        block.length = length
    else:
        block.framing = FRAME_STREAM if has_content else FRAME_NONE
    return block


@cython.final
cdef class Session:
    """One session and the bytes around it. limits: members of H2Limits by name, those of its head included."""

    cdef H2Session session
    cdef Recorder sink
    cdef bytes rest

    def __init__(self, bint is_server=True, uint64_t now=1000, **limits):
        cdef H2Limits given
        cdef dict left = dict(limits)
        h2_limits_start(&given)
        given.streams = left.pop("streams", given.streams)
        given.head.max_count = left.pop("max_count", given.head.max_count)
        given.head.max_list = left.pop("max_list", given.head.max_list)
        given.head.max_target = left.pop("max_target", given.head.max_target)
        given.block = left.pop("block", given.block)
        given.pieces = left.pop("pieces", given.pieces)
        given.table = left.pop("table", given.table)
        given.window = left.pop("window", given.window)
        given.connection_window = left.pop("connection_window", given.connection_window)
        given.held = left.pop("held", given.held)
        given.block_ms = left.pop("block_ms", given.block_ms)
        given.connect = left.pop("connect", given.connect)
        if left:
            raise TypeError(f"no limits: {sorted(left)}")
        self.sink = Recorder.__new__(Recorder)
        self.sink.events = []
        self.sink.blocks = {}
        self.sink.willing = True
        self.rest = b""
        self.session = H2Session.new(self.sink, is_server, &given, now)

    @property
    def events(self):
        """What was told since the last look."""
        found = self.sink.events
        self.sink.events = []
        return found

    @property
    def dead(self):
        return self.session.dead

    def set_hook(self, hook):
        self.sink.hook = hook

    def set_willing(self, bint willing):
        self.sink.willing = willing

    def set_now(self, uint64_t now):
        self.session.now_ms = now

    def feed(self, bytes data, size_t piece=0):
        """Bytes from the peer, whole or in pieces; what is left over is shown again with the next ones."""
        cdef bytes whole
        cdef size_t total = <size_t> len(data)
        cdef size_t at = 0
        cdef size_t n
        cdef size_t used
        cdef uint8_t *p
        if piece == 0:
            piece = total
        while at < total:
            whole = self.rest + data[at:at + piece]
            at += piece
            n = len(whole)
            p = <uint8_t *> malloc(n if n else 1)
            if p == NULL:
                raise MemoryError
            memcpy(p, <const uint8_t *> whole, n)
            used = self.session.feed(p if n else p + 1, n)
            free(p)
            if used > n:
                raise AssertionError("more was used than there was")
            self.rest = whole[used:]
            self.check()
        return len(self.rest)

    def output(self, size_t most=1 << 30):
        """What the session has to say; with `most` as what the socket takes."""
        cdef bytes out = b""
        cdef Block *block
        cdef size_t n
        self.session.pump()
        while self.session.out.size and most:
            block = self.session.out.head
            n = min(<size_t> (block.end - block.start), most)
            out += (<const char *> block.data)[block.start:block.start + n]
            out_consume(&self.session.out, n)
            most -= n
        self.session.on_written()
        self.check()
        return out

    def all_output(self):
        """Until there is no more to say without the peer's doing."""
        cdef list parts = []
        part = self.output()
        while part:
            parts.append(part)
            part = self.output()
        return b"".join(parts)

    cdef H2Stream *stream(self, uint32_t id) except NULL:
        cdef H2Stream *stream = stream_find(&self.session.streams, id)
        if stream == NULL:
            raise KeyError(id)
        return stream

    def open(self, pairs, bint has_more=False, object length=None, bint secure=False):
        """The number of a new stream, or None."""
        cdef H2Stream *stream = self.session.open()
        if stream == NULL:
            return None
        id = stream.id
        self.session.send_request(stream, block_of(pairs, length, has_more), has_more, secure)
        return id

    def respond(self, uint32_t id, pairs, object length=None, bint has_content=True):
        self.session.send_response(self.stream(id), block_of(pairs, length, has_content))

    def send(self, uint32_t id, bytes data):
        return self.session.send_data(self.stream(id), data, len(data))

    def finish(self, uint32_t id, trailers=None):
        self.session.finish(self.stream(id), block_of(trailers, None, False) if trailers is not None else None)

    def reset(self, uint32_t id, uint32_t code=8):
        self.session.reset(self.stream(id), code)

    def pause(self, uint32_t id):
        self.session.pause(self.stream(id))

    def resume(self, uint32_t id):
        self.session.resume(self.stream(id))

    def prioritise(self, uint32_t id, bytes value):
        self.session.prioritise(self.stream(id), value, len(value))

    def ping(self):
        self.session.ping()

    def drain(self):
        self.session.drain()

    def finish_drain(self):
        self.session.finish_drain()

    def tick(self, uint64_t now):
        due = self.session.tick(now)
        self.check()
        return due

    def close(self):
        self.session.close()

    def room(self):
        return self.session.room()

    def streams(self):
        """What is known of each stream, by its number."""
        cdef dict found = {}
        cdef H2Stream *stream
        cdef uint32_t i
        for i in range(self.session.streams.size):
            stream = self.session.streams.slots[i]
            if stream != NULL:
                found[stream.id] = {
                    "send_window": stream.send_window,
                    "waiting": stream.out.size + stream.tail.size,
                    "window": stream.credit.window,
                    "held": stream.held.size,
                    "urgency": stream.urgency,
                    "incremental": bool(stream.incremental),
                    "remote_done": bool(stream.remote_done),
                    "local_done": bool(stream.local_done),
                    "paused": bool(stream.paused),
                    "left": None if stream.left == NO_LENGTH else stream.left,
                }
        return found

    def facts(self):
        cdef H2Session session = self.session
        return {
            "send_window": session.send_window,
            "window": session.credit.window,
            "held": session.held,
            "withheld": session.withheld,
            "borrowed": session.borrowed,
            "late": session.late,
            "out": session.out.size,
            "last_id": session.last_id,
            "rest": len(self.rest),
            "decoder_log": session.decoder.table.cap,
            "block": session.block.cap,
            "scratch": session.scratch.cap if session.scratch is not None else 0,
            "slots": session.streams.size,
        }

    def check(self):
        """The books: nothing of a window is lost, nothing stands where it should not."""
        cdef H2Session session = self.session
        cdef H2Stream *stream
        cdef H2Stream *next
        cdef int64_t total
        cdef uint32_t held = 0
        cdef uint32_t count = 0
        cdef uint32_t ready = 0
        cdef uint32_t i
        cdef int urgency
        for i in range(session.streams.size):
            stream = session.streams.slots[i]
            if stream == NULL:
                continue
            count += 1
            held += <uint32_t> stream.held.size
            ready += 1 if stream.ready else 0
            if stream_find(&session.streams, stream.id) != stream:
                raise AssertionError(f"stream {stream.id} is not found")
            total = <int64_t> stream.credit.window + stream.credit.owed + <int64_t> stream.held.size
            if session.data_id == stream.id:
                total += session.data_left
            if total != stream.credit.size:
                raise AssertionError(f"stream {stream.id}: {total} of {stream.credit.size} bytes of credit")
            if stream.ready != (stream.out.size > 0 and stream.send_window > 0):
                raise AssertionError(f"stream {stream.id}: ready is {stream.ready}")
            if (stream.stall_ms != 0) != (stream.out.size > 0):
                raise AssertionError(f"stream {stream.id}: its pace is looked at for nothing, or not at all")
            if stream.remote_done and stream.local_done and not stream.end_due:
                raise AssertionError(f"stream {stream.id} is over and still there")
        if count != session.streams.count or held != session.held or session.withheld + session.borrowed > session.held:
            raise AssertionError("streams or what they hold are counted wrong")
        for urgency in range(8):
            stream = session.streams.rings[urgency]
            next = stream
            while next != NULL:
                if next.urgency != urgency or next.next.prev != next or not next.ready:
                    raise AssertionError(f"the ring of urgency {urgency} is broken")
                ready -= 1
                next = next.next
                if next == stream:
                    break
        if ready != 0:
            raise AssertionError("rings and streams disagree")
        total = <int64_t> session.credit.window + session.credit.owed + session.withheld + session.data_left
        if total != session.credit.size and not session.dead:
            raise AssertionError(f"the connection: {total} of {session.credit.size} bytes of credit")

    def bench(self, bytes request, int n, bytes content=b"0123456789012345678901234567890123456789"):
        """Nanoseconds for a request, its answer with this content, and both in bytes, the mean of n; the same block is read each time."""
        cdef timespec t
        cdef int64_t start
        cdef int left = n
        cdef HeaderBlock answer = block_of([(b":status", b"200"), (b"content-type", b"text/plain")], len(content), True)
        cdef BenchSink sink = BenchSink.__new__(BenchSink)
        cdef uint8_t frame[512]
        cdef size_t size = len(request)
        cdef uint32_t id = self.session.last_id
        sink.block = HeaderBlock.new()
        sink.answer = answer
        sink.content = content
        sink.session = self.session
        if size > 512:
            raise ValueError("a short request, please")
        self.session.sink = sink
        memcpy(frame, <const uint8_t *> request, size)
        clock_gettime(CLOCK_MONOTONIC, &t)
        start = <int64_t> t.tv_sec * 1000000000 + t.tv_nsec
        while left > 0:
            left -= 1
            id += 2
            frame[5] = <uint8_t> (id >> 24)
            frame[6] = <uint8_t> (id >> 16)
            frame[7] = <uint8_t> (id >> 8)
            frame[8] = <uint8_t> id
            self.session.feed(frame, size)
            self.session.pump()
            out_consume(&self.session.out, self.session.out.size)
            self.session.on_written()
            self.session.send_window = 65535
        clock_gettime(CLOCK_MONOTONIC, &t)
        start = <int64_t> t.tv_sec * 1000000000 + t.tv_nsec - start
        self.session.sink = self.sink
        sink.session = None
        return start / n


@cython.final
cdef class BenchSink(H2Sink):
    cdef HeaderBlock block
    cdef HeaderBlock answer
    cdef bytes content
    cdef H2Session session

    cdef bint on_open(self, H2Stream *stream) noexcept:
        return True

    cdef HeaderBlock borrow_block(self, H2Stream *stream, int kind):
        return self.block if kind == BLOCK_REQUEST else None

    cdef void on_end(self, H2Stream *stream, HeaderBlock trailers) noexcept:
        self.session.send_response(stream, self.answer)
        self.session.send_data(stream, self.content, len(self.content))
        self.session.finish(stream, None)
