"""The receiving half of an HTTP/2 connection: frames, field blocks, content, settings; see h2_session.pxd."""

cimport cython

from libc.string cimport memcmp, memset

from gateway._core.buf cimport Block, OutQueue, out_append, out_clear, out_consume
from gateway._core.faults cimport (
    F_FLOOD_BLOCK, F_FLOOD_EMPTY, F_FLOOD_FAULT, F_FLOOD_PING, F_FLOOD_RESET, F_FLOOD_SETTINGS, F_FLOOD_STREAMS, F_FLOOD_TABLE, F_H2_BLOCK, F_H2_FRAME,
    F_H2_LENGTH, F_H2_PREFACE, F_H2_PSEUDO, F_H2_SLOW, F_H2_STALL, F_H2_STREAM, F_H2_WINDOW, F_HPACK, F_INFORMATIONAL_MANY, F_NONE)
from gateway._core.h2_flow cimport credit_due, credit_give, credit_resize, credit_start, credit_take, window_add, window_shift
from gateway._core.h2_frame cimport (
    DEFAULT_WINDOW, FRAME_HEAD, H2_ACK, H2_CONTINUATION, H2_DATA, H2_END_HEADERS, H2_END_STREAM, H2_GOAWAY, H2_HEADERS, H2_PADDED, H2_PING,
    H2_PRIORITY, H2_PRIORITY_UPDATE, H2_RST_STREAM, H2_SETTINGS, H2_WINDOW_UPDATE, H2E_NO_ERROR, H2E_REFUSED_STREAM, MIN_FRAME,
    MOST_WINDOW, PREFACE, SET_CONNECT, SET_LIST, SET_NO_WEIGHTS, SET_PUSH, SET_STREAMS, SET_TABLE, SET_WINDOW, FrameHead, Settings,
    block_add, block_clear, get_u32, h2_check_head, h2_is_malformed, h2_parse_head, h2_parse_headers, h2_parse_padding, h2_parse_settings,
    h2_preface, h2_put_setting, h2_settings_start, put_u32)
from gateway._core.h2_ledger cimport (
    ACCOUNT_FAULTS, ACCOUNT_PINGS, ACCOUNT_POINTS, ACCOUNT_RESETS, ACCOUNT_SETTINGS, WEIGHT_EMPTY, WEIGHT_LATE, WEIGHT_PADDING,
    WEIGHT_REFUSED, WEIGHT_TABLE, ledger_add, ledger_allow, ledger_answer, ledger_control, ledger_start)
from gateway._core.h2_send cimport STALL_BYTES, STALL_MS, H2Sender
from gateway._core.h2_sink cimport (
    BLOCK_REQUEST, BLOCK_RESPONSE, BLOCK_TRAILERS, GONE_BROKEN, GONE_DONE, GONE_RESET, GONE_UNPROCESSED, H2Sink)
from gateway._core.h2_stream cimport (
    MEMORY_ENDED, MEMORY_NONE, MEMORY_RESET, NO_LENGTH, H2Stream, stream_any, stream_find, stream_free, stream_open, stream_recall, stream_remember,
    stream_remove)
from gateway._core.headers cimport HEAD_UPGRADE, Field, HeaderBlock
from gateway._core.hpack cimport (
    DEFAULT_TABLE, HpackFound, HpackLimits, hpack_allow, hpack_decode, hpack_start, table_clear)
from gateway._core.hpack_encode cimport hpack_encoder_start, hpack_limit
from gateway._core.tokens cimport T_OTHER
from gateway._core.types cimport FRAME_LENGTH, FRAME_NONE, M_CONNECT, Span, uint8_t, uint32_t, uint64_t
from gateway._core.validate cimport (
    PSEUDO_AUTHORITY, PSEUDO_METHOD, PSEUDO_PATH, PSEUDO_PROTOCOL, PSEUDO_SCHEME, PSEUDO_STATUS, validate_h2_request,
    validate_h2_response, validate_h2_trailers)

cdef enum:
    REQUEST_PSEUDO = PSEUDO_METHOD | PSEUDO_SCHEME | PSEUDO_AUTHORITY | PSEUDO_PATH | PSEUDO_PROTOCOL
    MAX_INFORMATIONAL = 32     # 1xx before a final response (checklist item 42)
    MAX_SETTINGS = 64          # entries of one SETTINGS frame
    TRAILER_COUNT = 100
    TRAILER_LIST = 16384
    LAST_STREAM = 0x7fffffff
    FIRST_STREAMS = 100
    SPARE = 67108864           # bytes of waiting content that all connections share

h2_spare = SPARE

# Who is told of what a closed session still sees.
cdef H2Sink NOBODY = H2Sink.__new__(H2Sink)

cdef HpackLimits TRAILER_LIMITS
TRAILER_LIMITS.max_count = TRAILER_COUNT
TRAILER_LIMITS.max_list = TRAILER_LIST
TRAILER_LIMITS.max_target = 0


cdef void h2_limits_start(H2Limits *limits) noexcept nogil:
    limits.streams = 100
    limits.head.max_count = 100
    limits.head.max_list = 32768
    limits.head.max_target = 8192
    limits.block = 65536
    limits.pieces = 8
    limits.table = DEFAULT_TABLE
    limits.window = 262144
    limits.connection_window = 1048576
    limits.held = 1048576
    limits.block_ms = 10000
    limits.connect = True


@cython.final
cdef class H2Session(H2Sender):
    def __dealloc__(self):
        global h2_spare
        h2_spare += self.borrowed
        table_clear(&self.decoder.table)
        block_clear(&self.block)

    @staticmethod
    cdef H2Session new(H2Sink sink, bint is_server, const H2Limits *limits, uint64_t now_ms):
        cdef H2Session session = H2Session.__new__(H2Session)
        session.sink = sink
        session.is_server = is_server
        session.limits = limits[0]
        session.now_ms = now_ms
        session.quota = <uint32_t> -1
        ledger_start(&session.ledger, now_ms)
        hpack_start(&session.decoder)
        hpack_encoder_start(&session.encoder)
        h2_settings_start(&session.remote)
        session.send_window = DEFAULT_WINDOW
        session.granted = DEFAULT_WINDOW
        session.next_id = 2 if is_server else 1
        session.preface_left = PREFACE if is_server else 0
        session.start()
        return session

    cdef void start(self) noexcept:
        """What each side says first (RFC 9113 §3.4)."""
        cdef uint8_t settings[48]
        cdef uint8_t update[4]
        cdef uint8_t *end = settings
        cdef uint32_t size = max(self.limits.connection_window, <uint32_t> DEFAULT_WINDOW)
        if self.limits.table != DEFAULT_TABLE:
            end = h2_put_setting(end, SET_TABLE, self.limits.table)
        if self.is_server:
            end = h2_put_setting(end, SET_STREAMS, self.limits.streams)
            if self.limits.connect:
                end = h2_put_setting(end, SET_CONNECT, 1)
            end = h2_put_setting(end, SET_NO_WEIGHTS, 1)
        else:
            end = h2_put_setting(end, SET_PUSH, 0)
        end = h2_put_setting(end, SET_WINDOW, self.limits.window)
        end = h2_put_setting(end, SET_LIST, self.limits.head.max_list)
        if not self.is_server and out_append(&self.out, h2_preface(), PREFACE) < 0:
            self.fail(F_NONE)
            return
        self.settings_ms = self.now_ms
        self.put_frame(H2_SETTINGS, 0, 0, settings, <size_t> (end - settings))
        credit_start(&self.credit, size)
        if size > <uint32_t> DEFAULT_WINDOW:
            put_u32(update, size - DEFAULT_WINDOW)
            self.put_frame(H2_WINDOW_UPDATE, 0, 0, update, 4)

    # ---- reading -------------------------------------------------------------------------------------------------------

    cdef size_t feed(self, const uint8_t *p, size_t n) noexcept:
        cdef FrameHead frame
        cdef size_t used = 0
        cdef size_t took
        cdef int fault
        while self.preface_left and used < n:
            if p[used] != h2_preface()[PREFACE - self.preface_left]:
                self.fail(F_H2_PREFACE)
                return n
            self.preface_left -= 1
            used += 1
        while not self.dead:
            if self.data_left or self.data_padding:
                if used == n:
                    return n
                used += self.feed_data(p + used, n - used)
                continue
            if self.skip_left:
                took = min(<size_t> self.skip_left, n - used)
                self.skip_left -= <uint32_t> took
                used += took
                if self.skip_left:
                    return n
                continue
            if n - used < FRAME_HEAD or self.quota == 0:
                return used
            h2_parse_head(p + used, &frame)
            fault = h2_check_head(&frame, MIN_FRAME)
            if fault == 0:
                if not self.has_settings and (frame.type != H2_SETTINGS or frame.flags & H2_ACK):
                    fault = -F_H2_PREFACE
                elif self.block.stream and (frame.type != H2_CONTINUATION or frame.stream != self.block.stream):
                    fault = -F_H2_BLOCK
            if fault < 0:
                self.fail(-fault)
                return n
            took = self.on_frame(&frame, p + used + FRAME_HEAD, n - used - FRAME_HEAD)
            if took == 0:
                return used
            used += took
        return n

    cdef size_t on_frame(self, const FrameHead *frame, const uint8_t *payload, size_t n) noexcept:
        """A frame whose head is as it should be, with the n bytes behind its head. How many bytes of all are done with; 0: more of it
        has to be there."""
        cdef uint8_t type = frame.type
        cdef int padding
        if type == H2_DATA:
            if frame.flags & H2_PADDED and frame.length and n == 0:
                return 0
            padding = h2_parse_padding(frame, payload)
            if padding < 0:
                self.fail(-padding)
                return FRAME_HEAD
            self.begin_data(frame, <uint32_t> padding)
            return FRAME_HEAD + (1 if padding else 0)
        if type > H2_CONTINUATION and type != H2_PRIORITY_UPDATE:
            self.skip_left = frame.length          # RFC 9113 §5.5
            self.answered(ledger_control(&self.ledger, self.now_ms))
            return FRAME_HEAD
        if n < frame.length:
            return 0
        if type == H2_HEADERS:
            self.on_headers(frame, payload)
        elif type == H2_WINDOW_UPDATE:
            self.on_window(frame.stream, get_u32(payload) & <uint32_t> MOST_WINDOW)
        elif type == H2_RST_STREAM:
            self.on_rst(frame.stream, get_u32(payload))
        elif type == H2_SETTINGS:
            self.on_settings(frame, payload)
        elif type == H2_PING:
            self.on_ping(frame, payload)
        elif type == H2_CONTINUATION:
            self.on_continuation(frame, payload)
        elif type == H2_GOAWAY:
            self.on_goaway(payload)
        else:
            self.on_priority(frame, payload)
        return FRAME_HEAD + frame.length

    cdef bint is_idle(self, uint32_t id) noexcept:
        """The stream was never opened, and none with its number or above has been."""
        if self.is_server:
            # After the last GOAWAY what the peer still opens is not looked at.
            return id & 1 == 0 or id > self.last_id and not self.closing
        return id & 1 == 0 or id >= self.next_id

    cdef bint is_late(self, uint32_t id) noexcept:
        """HEADERS or DATA on a stream that is not there: in order as long as the peer cannot know of our reset, or of our GOAWAY.
        Otherwise the connection is broken by it."""
        cdef int memory
        if self.is_idle(id):
            self.fail(F_H2_FRAME)
        elif not self.is_server or id <= self.last_id:
            memory = stream_recall(&self.streams, id)
            if memory == MEMORY_ENDED:
                self.fail(F_H2_STREAM)
            elif memory == MEMORY_NONE:
                self.fail(F_H2_FRAME)
        return not self.dead

    cdef bint count_late(self) noexcept:
        return self.answered(ledger_add(&self.ledger, self.now_ms, ACCOUNT_POINTS, WEIGHT_LATE, F_FLOOD_RESET))

    # ---- content -------------------------------------------------------------------------------------------------------

    cdef void begin_data(self, const FrameHead *frame, uint32_t padding) noexcept:
        cdef H2Stream *stream = stream_find(&self.streams, frame.stream)
        cdef uint32_t content = frame.length - padding
        cdef int fault = credit_take(&self.credit, frame.length)
        if fault < 0:
            self.fail(-fault)
            return
        self.data_left = content
        self.data_padding = padding - 1 if padding else 0
        self.data_id = 0
        self.data_ends = frame.flags & H2_END_STREAM != 0
        if stream == NULL:
            if self.is_late(frame.stream):
                # No more than the window that such streams still had. The rest is a peer that does not stop.
                if content > self.late:
                    self.fail(F_H2_WINDOW)
                    return
                self.late -= content
                if content == 0 and self.data_ends:
                    self.count_late()
        elif stream.remote_done:
            self.fail(F_H2_STREAM)
        else:
            fault = credit_take(&stream.credit, frame.length)
            if fault < 0:
                self.fail(-fault)
                return
            if not stream.has_head:
                self.fail_stream(stream, F_H2_FRAME)
            elif stream.left != NO_LENGTH and content > stream.left:
                self.fail_stream(stream, F_H2_LENGTH)
            else:
                if stream.left != NO_LENGTH:
                    stream.left -= content
                self.data_id = frame.stream
                if padding:
                    self.give_stream(stream, padding)
        if padding:
            self.give_back(padding)
        if content == 0 and not self.data_ends:
            self.answered(ledger_add(&self.ledger, self.now_ms, ACCOUNT_POINTS, WEIGHT_EMPTY, F_FLOOD_EMPTY))
        elif padding > 64 and padding > 4 * content:
            self.answered(ledger_add(&self.ledger, self.now_ms, ACCOUNT_POINTS, WEIGHT_PADDING, F_FLOOD_EMPTY))
        if self.data_left == 0 and self.data_padding == 0 and not self.dead:
            self.end_data()

    cdef size_t feed_data(self, const uint8_t *p, size_t n) noexcept:
        cdef size_t took
        if self.data_left:
            took = min(n, <size_t> self.data_left)
            self.data_left -= <uint32_t> took
            self.take_content(p, took)
        else:
            took = min(n, <size_t> self.data_padding)
            self.data_padding -= <uint32_t> took
        if self.data_left == 0 and self.data_padding == 0 and not self.dead:
            self.end_data()
        return took

    cdef void end_data(self) noexcept:
        cdef H2Stream *stream
        if self.data_ends and self.data_id:
            stream = stream_find(&self.streams, self.data_id)
            if stream != NULL:
                self.end_remote(stream)

    cdef void take_content(self, const uint8_t *p, size_t n) noexcept:
        global h2_spare
        cdef H2Stream *stream = stream_find(&self.streams, self.data_id) if self.data_id else NULL
        if stream == NULL or stream.refused:
            if stream != NULL:
                self.give_stream(stream, <uint32_t> n)
            self.give_back(<uint32_t> n)
            return
        if not stream.paused:
            self.deliver(stream, p, n)
            self.give_back(<uint32_t> n)
            return
        if out_append(&stream.held, p, n) < 0:
            self.fail(F_NONE)
            return
        self.held += <uint32_t> n
        if self.held > self.limits.held:
            if n > h2_spare:
                self.withheld += <uint32_t> n
                return
            h2_spare -= n
            self.borrowed += <uint32_t> n
        self.give_back(<uint32_t> n)

    cdef void deliver(self, H2Stream *stream, const uint8_t *p, size_t n) noexcept:
        cdef uint32_t id = stream.id
        self.sink.on_data(stream, p, n)
        stream = stream_find(&self.streams, id)
        if stream != NULL:
            self.give_stream(stream, <uint32_t> n)

    cdef uint32_t let_go(self, uint32_t n) noexcept:
        """So many bytes wait no longer. How much of the connection's credit was withheld for them."""
        global h2_spare
        cdef uint32_t back = min(n, self.withheld)
        cdef uint32_t lent = min(n - back, self.borrowed)
        self.held -= n
        self.withheld -= back
        self.borrowed -= lent
        h2_spare += lent
        return back

    cdef void give_back(self, uint32_t n) noexcept:
        """Credit of the connection."""
        cdef uint8_t payload[4]
        credit_give(&self.credit, n)
        n = credit_due(&self.credit)
        if n:
            put_u32(payload, n)
            self.put_frame(H2_WINDOW_UPDATE, 0, 0, payload, 4)

    cdef void give_stream(self, H2Stream *stream, uint32_t n) noexcept:
        cdef uint8_t payload[4]
        credit_give(&stream.credit, n)
        if stream.remote_done or self.data_ends and stream.id == self.data_id:
            return                         # nothing more will come
        n = credit_due(&stream.credit)
        if n:
            put_u32(payload, n)
            self.put_frame(H2_WINDOW_UPDATE, 0, stream.id, payload, 4)

    cdef void release(self, H2Stream *stream, bint by_us) noexcept:
        """What a stream holds when it ends is nobody's any more: its credit goes back to the connection (class D13)."""
        cdef uint32_t back = self.let_go(<uint32_t> stream.held.size)
        if by_us and not stream.remote_done and stream.credit.window > 0:
            self.late += <uint32_t> stream.credit.window
        if back and not self.dead:
            self.give_back(back)

    cdef void pause(self, H2Stream *stream) noexcept:
        stream.paused = True

    cdef void resume(self, H2Stream *stream) noexcept:
        cdef uint32_t id = stream.id
        cdef OutQueue queue
        cdef Block *block
        cdef uint32_t n
        cdef uint32_t back
        if not stream.paused or self.dead:
            return
        stream.paused = False
        while stream.held.size and not stream.paused:
            # What is being delivered is the caller's of on_data: the stream may end under it.
            queue = stream.held
            block = queue.head
            n = block.end - block.start
            stream.held.head = block.next
            if stream.held.head == NULL:
                stream.held.tail = NULL
            stream.held.size -= n
            queue.tail = block
            queue.size = n
            block.next = NULL
            back = self.let_go(n)
            self.deliver(stream, block.data + block.start, n)
            out_clear(&queue)
            if back:
                self.give_back(back)
            stream = stream_find(&self.streams, id)
            if stream == NULL or self.dead:
                return
        if stream.end_due and not stream.paused:
            self.deliver_end(stream)

    cdef void end_remote(self, H2Stream *stream) noexcept:
        """END_STREAM has come in."""
        if stream.left != NO_LENGTH and stream.left:
            self.fail_stream(stream, F_H2_LENGTH)
            return
        stream.remote_done = True
        self.deliver_end(stream)

    cdef void deliver_end(self, H2Stream *stream) noexcept:
        cdef uint32_t id = stream.id
        cdef HeaderBlock trailers = None
        if stream.refused:
            return
        stream.end_due = stream.paused
        if stream.paused:
            return
        if stream.has_trailers:
            trailers = self.sink.borrow_block(stream, BLOCK_TRAILERS)
        self.sink.on_end(stream, trailers)
        stream = stream_find(&self.streams, id)
        if stream != NULL and stream.local_done and not self.dead:
            self.drop(stream, False, GONE_DONE, H2E_NO_ERROR, F_NONE)

    # ---- heads ---------------------------------------------------------------------------------------------------------

    cdef void on_headers(self, const FrameHead *frame, const uint8_t *payload) noexcept:
        cdef Span piece
        cdef int fault = h2_parse_headers(frame, payload, &piece)
        if fault < 0:
            self.fail(-fault)
        elif frame.flags & H2_END_HEADERS:
            self.on_block(frame.stream, frame.flags, piece)
        else:
            fault = block_add(&self.block, piece, self.limits.block, self.limits.pieces)
            if fault < 0:
                self.fail(-fault)
                return
            self.block.stream = frame.stream
            self.block.flags = frame.flags
            self.block.since = self.now_ms

    cdef void on_continuation(self, const FrameHead *frame, const uint8_t *payload) noexcept:
        cdef FieldBlock whole
        cdef Span piece
        cdef int fault
        if self.block.stream == 0:
            self.fail(F_H2_BLOCK)
            return
        piece.p = payload
        piece.n = frame.length
        self.block.pieces += 1
        fault = block_add(&self.block, piece, self.limits.block, self.limits.pieces)
        if fault < 0:
            self.fail(-fault)
            return
        if frame.flags & H2_END_HEADERS:
            whole = self.block
            memset(&self.block, 0, sizeof(FieldBlock))
            piece.p = whole.bytes
            piece.n = whole.n
            self.on_block(whole.stream, whole.flags, piece)
            block_clear(&whole)

    cdef bint decode(self, HeaderBlock head, Span block, const HpackLimits *limits, uint8_t allowed, HpackFound *found,
                     int *answer) noexcept:
        """False: the connection is broken by it. *answer is what is wrong with the head alone."""
        answer[0] = hpack_decode(&self.decoder, head, block.p, block.n, limits, allowed, found)
        if answer[0] == -F_HPACK:
            self.fail(F_HPACK)
        elif found.updates:
            self.answered(ledger_add(&self.ledger, self.now_ms, ACCOUNT_POINTS, found.updates * WEIGHT_TABLE, F_FLOOD_TABLE))
        return not self.dead

    cdef void discard(self, Span block) noexcept:
        """A block that nobody wants, for the sake of the table."""
        cdef HpackFound found
        cdef HpackLimits none
        cdef int answer = 0
        if self.scratch is None:
            self.scratch = HeaderBlock.new()
        memset(&none, 0, sizeof(none))
        self.decode(self.scratch, block, &none, 0, &found, &answer)

    cdef void on_block(self, uint32_t id, uint8_t flags, Span block) noexcept:
        cdef H2Stream *stream = stream_find(&self.streams, id)
        cdef bint ended = flags & H2_END_STREAM != 0
        if stream == NULL:
            if self.is_server and id & 1 and id > self.last_id and not self.closing:
                self.on_request(id, ended, block)
                return
            if self.is_late(id) and self.count_late():
                self.late += 0 if stream_recall(&self.streams, id) else self.granted       # after GOAWAY: content may follow
                self.discard(block)
        elif stream.remote_done:
            self.fail(F_H2_STREAM)
        elif stream.has_head:
            self.on_trailers(stream, ended, block)
        else:
            self.on_response(stream, ended, block)

    cdef void refuse(self, uint32_t id, Span block) noexcept:
        stream_remember(&self.streams, id, True)
        self.late += self.granted
        self.discard(block)
        if not self.dead:
            self.put_reset(id, H2E_REFUSED_STREAM)
        self.answered(ledger_answer(&self.ledger))

    cdef void on_request(self, uint32_t id, bint ended, Span block) noexcept:
        cdef H2Stream *stream
        cdef HeaderBlock head = None
        cdef Field *priority
        cdef HpackFound found
        cdef bint opened
        cdef int answer = 0
        self.last_id = id
        self.quota -= 1
        if self.streams.count >= self.limits.streams:
            self.refuse(id, block)
            self.answered(ledger_add(&self.ledger, self.now_ms, ACCOUNT_POINTS, WEIGHT_REFUSED, F_FLOOD_STREAMS))
            return
        stream = stream_open(&self.streams, id)
        if stream == NULL:
            self.fail(F_NONE)
            return
        credit_start(&stream.credit, self.granted)
        stream.send_window = <int> self.remote.window
        ledger_allow(&self.ledger)
        opened = self.sink.on_open(stream)
        if opened and not self.dead and stream_find(&self.streams, id) != NULL:
            head = self.sink.borrow_block(stream, BLOCK_REQUEST)
        if self.dead:
            return
        if stream_find(&self.streams, id) == NULL:
            self.discard(block)
            return
        if head is None and opened:
            self.discard(block)
            if not self.dead:
                self.reset(stream, H2E_REFUSED_STREAM)
            return
        if head is None:
            stream_remove(&self.streams, stream, True)
            stream_free(stream)
            self.refuse(id, block)
            return
        if not self.decode(head, block, &self.limits.head, REQUEST_PSEUDO, &found, &answer):
            return
        if answer == 0 and found.pseudo & PSEUDO_PROTOCOL and not self.limits.connect:
            answer = -F_H2_PSEUDO
        if answer == 0:
            answer = validate_h2_request(head, found.pseudo, found.protocol, ended)
        stream.has_head = True
        stream.method = head.method
        stream.remote_done = ended
        if answer < 0:
            if h2_is_malformed(-answer):
                self.fail_stream(stream, -answer)
                return
            stream.refused = True
            self.sink.on_fault(-answer)
            self.sink.on_refused(stream, head, -answer)
            self.answered(ledger_add(&self.ledger, self.now_ms, ACCOUNT_FAULTS, 1, F_FLOOD_FAULT))
            return
        if head.framing == FRAME_LENGTH:
            stream.left = head.length
        stream.is_tunnel = head.flags & HEAD_UPGRADE != 0
        if head.first[<int> T_OTHER]:
            priority = head.find_name(<const uint8_t *> b"priority", 8)
            if priority != NULL:
                self.prioritise(stream, head.store + priority.value, priority.value_len)
        self.sink.on_head(stream, head, ended)
        if ended and not self.dead:
            stream = stream_find(&self.streams, id)
            if stream != NULL:
                self.deliver_end(stream)

    cdef void on_response(self, H2Stream *stream, bint ended, Span block) noexcept:
        cdef uint32_t id = stream.id
        cdef HeaderBlock head = self.sink.borrow_block(stream, BLOCK_RESPONSE)
        cdef HpackFound found
        cdef int answer = 0
        if head is None:
            self.discard(block)
            if not self.dead:
                self.reset(stream, H2E_REFUSED_STREAM)
            return
        if not self.decode(head, block, &self.limits.head, PSEUDO_STATUS, &found, &answer):
            return
        if answer == 0:
            answer = validate_h2_response(head, stream.method, ended)
        if answer == 0 and head.status < 200:
            stream.informational += 1
            if stream.informational > MAX_INFORMATIONAL:
                answer = -F_INFORMATIONAL_MANY
        if answer < 0:
            self.fail_stream(stream, -answer)
            return
        if head.status < 200:
            self.sink.on_informational(stream, head)
            return
        stream.has_head = True
        stream.remote_done = ended
        stream.is_tunnel = stream.method == M_CONNECT and head.status < 300
        if head.framing == FRAME_LENGTH:
            stream.left = head.length
        elif head.framing == FRAME_NONE and not stream.is_tunnel:
            stream.left = 0                # HEAD, 204, 304: whatever content came would be a fault
        self.sink.on_head(stream, head, ended)
        if ended and not self.dead:
            stream = stream_find(&self.streams, id)
            if stream != NULL:
                self.deliver_end(stream)

    cdef void on_trailers(self, H2Stream *stream, bint ended, Span block) noexcept:
        cdef HeaderBlock trailers = None
        cdef HpackFound found
        cdef int answer = 0
        if not stream.refused:
            trailers = self.sink.borrow_block(stream, BLOCK_TRAILERS)
        if trailers is None:
            self.discard(block)
        elif self.decode(trailers, block, &TRAILER_LIMITS, 0, &found, &answer) and answer == 0:
            answer = validate_h2_trailers(trailers)
        if self.dead:
            return
        if answer == 0 and not ended:
            answer = -F_H2_FRAME           # RFC 9113 §8.1: only the last HEADERS may come after content (item 54)
        if answer < 0:
            self.fail_stream(stream, -answer)
            return
        stream.has_trailers = trailers is not None and trailers.count != 0
        self.end_remote(stream)

    # ---- control -------------------------------------------------------------------------------------------------------

    cdef void on_rst(self, uint32_t id, uint32_t code) noexcept:
        cdef H2Stream *stream = stream_find(&self.streams, id)
        if stream == NULL:
            if self.is_idle(id):
                self.fail(F_H2_FRAME)
            elif not self.is_server or stream_recall(&self.streams, id) == MEMORY_RESET:
                self.count_late()
            else:
                # The answer was quicker, which is chance: it counts as if it had not been, and its success is taken back.
                self.answered(ledger_add(&self.ledger, self.now_ms, ACCOUNT_RESETS, 2, F_FLOOD_RESET))
            return
        self.drop(stream, False, GONE_UNPROCESSED if code == H2E_REFUSED_STREAM else GONE_RESET, code, F_NONE)
        # Of an origin each is the answer to a request, and so no flood.
        if self.is_server and not self.dead:
            self.answered(ledger_add(&self.ledger, self.now_ms, ACCOUNT_RESETS, 1, F_FLOOD_RESET))

    cdef void on_window(self, uint32_t id, uint32_t n) noexcept:
        cdef H2Stream *stream
        cdef int fault = 0
        if n == 0:
            self.fail(F_H2_FRAME)
            return
        if not self.answered(ledger_control(&self.ledger, self.now_ms)):
            return
        if id == 0:
            fault = window_add(&self.send_window, n)
        else:
            stream = stream_find(&self.streams, id)
            if stream == NULL:
                if self.is_idle(id):
                    self.fail(F_H2_FRAME)
                return
            if window_add(&stream.send_window, n) < 0:
                self.fail_stream(stream, F_H2_WINDOW)      # RFC 9113 §6.9.1: of a stream it ends the stream
                return
            self.wake(stream)
        if fault < 0:
            self.fail(-fault)
        else:
            self.sink.on_output()

    cdef void on_settings(self, const FrameHead *frame, const uint8_t *payload) noexcept:
        cdef Settings before = self.remote
        cdef uint32_t i
        cdef int fault = 0
        if not self.answered(ledger_add(&self.ledger, self.now_ms, ACCOUNT_SETTINGS, 1, F_FLOOD_SETTINGS)):
            return
        if frame.flags & H2_ACK:
            self.on_acknowledged()
            return
        if frame.length > 6 * MAX_SETTINGS:
            self.fail(F_FLOOD_SETTINGS)
            return
        self.has_settings = True
        fault = h2_parse_settings(&self.remote, payload, frame.length, not self.is_server)
        if fault == 0 and self.remote.window != before.window:
            for i in range(self.streams.size):
                if self.streams.slots[i] != NULL and fault == 0:
                    fault = window_shift(&self.streams.slots[i].send_window, before.window, self.remote.window)
                    self.wake(self.streams.slots[i])
        if fault < 0:
            self.fail(-fault)
            return
        if self.remote.table != before.table:
            hpack_limit(&self.encoder, self.remote.table)
        self.put_frame(H2_SETTINGS, H2_ACK, 0, NULL, 0)
        if self.answered(ledger_answer(&self.ledger)):
            self.sink.on_settings()

    cdef void on_acknowledged(self) noexcept:
        cdef uint32_t i
        if self.acknowledged:
            return
        self.acknowledged = True
        hpack_allow(&self.decoder, self.limits.table)
        self.granted = self.limits.window
        for i in range(self.streams.size):
            if self.streams.slots[i] != NULL:
                credit_resize(&self.streams.slots[i].credit, self.granted)

    cdef void on_ping(self, const FrameHead *frame, const uint8_t *payload) noexcept:
        if not self.answered(ledger_add(&self.ledger, self.now_ms, ACCOUNT_PINGS, 1, F_FLOOD_PING)):
            return
        if not frame.flags & H2_ACK:
            self.put_frame(H2_PING, H2_ACK, 0, payload, 8)
            self.answered(ledger_answer(&self.ledger))
        elif self.ping_ms and memcmp(payload, <const uint8_t *> b"isthmus.", 8) == 0:
            self.ping_ms = 0
            if self.ping_drains:
                self.finish_drain()
            if not self.dead:
                self.sink.on_pong()

    cdef void ping(self) noexcept:
        if self.ping_ms == 0 and not self.dead:
            self.ping_ms = max(self.now_ms, <uint64_t> 1)
            self.put_frame(H2_PING, 0, 0, <const uint8_t *> b"isthmus.", 8)

    cdef void on_goaway(self, const uint8_t *payload) noexcept:
        cdef uint32_t last = get_u32(payload) & <uint32_t> MOST_WINDOW
        cdef uint32_t code = get_u32(payload + 4)
        cdef uint32_t i = 0
        cdef H2Stream *stream
        if not self.answered(ledger_control(&self.ledger, self.now_ms)):
            return
        if not self.is_server:
            # What is above was not looked at, and may be sent again on another connection (RFC 9113 §6.8).
            self.closing = True
            while i < self.streams.size and not self.dead:
                stream = self.streams.slots[i]
                if stream != NULL and stream.id > last:
                    self.drop(stream, True, GONE_UNPROCESSED, code, F_NONE)
                    i = 0                  # the table may have changed by more than this
                else:
                    i += 1
        if not self.dead:
            self.sink.on_goaway(last, code)
        if not self.dead:
            self.end_if_over()

    cdef void on_priority(self, const FrameHead *frame, const uint8_t *payload) noexcept:
        cdef uint32_t id = get_u32(payload) & <uint32_t> MOST_WINDOW
        cdef H2Stream *stream
        if frame.type == H2_PRIORITY:
            if id == frame.stream:         # depends on itself, RFC 7540 §5.3.1
                self.fail(F_H2_FRAME)
                return
        elif not self.is_server or id == 0:
            self.fail(F_H2_FRAME)          # RFC 9218 §7.1
            return
        else:
            stream = stream_find(&self.streams, id)
            if stream != NULL:
                # It says everything: what it leaves out is what holds when nothing is said (RFC 9218 §7).
                self.prioritise(stream, <const uint8_t *> b"u=3, i=?0", 9)
                self.prioritise(stream, payload + 4, frame.length - 4)
        self.answered(ledger_control(&self.ledger, self.now_ms))

    # ---- streams of ours -----------------------------------------------------------------------------------------------

    cdef uint32_t most_streams(self) noexcept:
        # Before its settings are known, what servers are asked to allow at the least (RFC 9113 §6.5.2).
        return self.remote.streams if self.has_settings else min(self.remote.streams, <uint32_t> FIRST_STREAMS)

    cdef bint can_open(self) noexcept:
        return (not self.dead and not self.closing and not self.is_server and self.next_id <= <uint32_t> LAST_STREAM
                and self.streams.count < self.most_streams())

    cdef uint32_t room(self) noexcept:
        return self.most_streams() - self.streams.count if self.can_open() else 0

    cdef H2Stream *open(self) noexcept:
        cdef H2Stream *stream
        if not self.can_open():
            return NULL
        stream = stream_open(&self.streams, self.next_id)
        if stream == NULL:
            return NULL
        self.next_id += 2
        credit_start(&stream.credit, self.granted)
        stream.send_window = <int> self.remote.window
        ledger_allow(&self.ledger)
        return stream

    # ---- the end -------------------------------------------------------------------------------------------------------

    cdef void drain(self) noexcept:
        if self.dead or self.draining or self.closing:
            return
        self.draining = True
        if not self.is_server:
            self.finish_drain()
            return
        self.put_goaway(LAST_STREAM, H2E_NO_ERROR)
        self.ping_drains = True
        self.ping()

    cdef void finish_drain(self) noexcept:
        self.ping_drains = False
        if self.dead or self.closing:
            return
        self.draining = True
        self.closing = True
        self.put_goaway(self.last_id, H2E_NO_ERROR)
        if not self.dead:
            self.end_if_over()

    cdef uint64_t tick(self, uint64_t now_ms) noexcept:
        cdef uint64_t due = 0
        cdef uint64_t when
        cdef H2Stream *stream
        cdef uint32_t i = 0
        self.now_ms = now_ms
        if self.dead:
            return 0
        if self.block.stream:
            due = self.block.since + self.limits.block_ms
            if now_ms >= due:
                self.fail(F_FLOOD_BLOCK)
                return 0
        if not self.acknowledged:
            when = self.settings_ms + self.limits.block_ms
            if now_ms >= when:
                self.fail(F_H2_SLOW)
                return 0
            due = min(due, when) if due else when
        while i < self.streams.size and not self.dead:
            stream = self.streams.slots[i]
            i += 1
            if stream == NULL or stream.stall_ms == 0:
                continue
            if now_ms >= stream.stall_ms:
                # A drip of updates does not count as taking it (class D4). What waits for its turn alone is not the peer's fault.
                if stream.drained < STALL_BYTES and (stream.send_window <= 0 or self.send_window <= 0):
                    self.fail_stream(stream, F_H2_STALL)
                    i = 0
                    continue
                stream.drained = 0
                stream.stall_ms = now_ms + STALL_MS
            due = min(due, stream.stall_ms) if due else stream.stall_ms
        return 0 if self.dead else due

    cdef void close(self) noexcept:
        cdef H2Stream *stream
        self.dead = True
        while self.streams.count:
            stream = stream_any(&self.streams)
            self.drop(stream, True, GONE_BROKEN, H2E_NO_ERROR, F_NONE)
        out_clear(&self.out)
        self.sink = NOBODY
