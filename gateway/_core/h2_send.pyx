"""The sending half of an HTTP/2 connection; see h2_send.pxd."""

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from gateway._core.buf cimport Block, out_append, out_clear, out_commit, out_consume, out_reserve
from gateway._core.faults cimport F_FLOOD_FAULT, F_NONE
from gateway._core.h2_frame cimport (
    FRAME_HEAD, H2_CONTINUATION, H2_DATA, H2_END_HEADERS, H2_END_STREAM, H2_GOAWAY, H2_HEADERS, H2_RST_STREAM, H2E_INTERNAL, H2E_NO_ERROR,
    MIN_FRAME, h2_error_of, h2_parse_priority, h2_put_head, put_u32)
from gateway._core.h2_ledger cimport ACCOUNT_FAULTS, ledger_add, ledger_allow, ledger_answer, ledger_answered
from gateway._core.h2_sink cimport (
    BLOCK_REQUEST, BLOCK_RESPONSE, BLOCK_TRAILERS, GONE_BROKEN, GONE_DONE, GONE_FAULT, GONE_OURS, H2Sink)
from gateway._core.h2_stream cimport (
    NO_LENGTH, H2Stream, ring_add, ring_head, ring_remove, ring_turn, stream_any, stream_find, stream_free, stream_remove, streams_clear)
from gateway._core.headers cimport FIELD_DROP, FIELD_HOP, HEAD_TE_TRAILERS, Field, HeaderBlock
from gateway._core.hpack_encode cimport (
    UPDATE_BOUND, HpackEncoder, hpack_bound, hpack_encode_request, hpack_encode_response, hpack_encode_start, hpack_encode_trailers,
    hpack_encoder_clear)
from gateway._core.tokens cimport T_OTHER
from gateway._core.types cimport FRAME_LENGTH, FRAME_NONE, M_HEAD, uint8_t, uint32_t, uint64_t

cdef enum:
    BURST = 4                  # frames of content that a stream sends in a row when its Priority does not say that it is incremental


# 1 when there is a trailer field to send.
cdef bint has_fields(HeaderBlock trailers) noexcept nogil:
    cdef uint32_t i
    for i in range(trailers.count):
        if not trailers.fields[i].flags & (FIELD_DROP | FIELD_HOP):
            return True
    return False


cdef class H2Sender:
    def __dealloc__(self):
        out_clear(&self.out)
        streams_clear(&self.streams)
        hpack_encoder_clear(&self.encoder)

    # ---- frames --------------------------------------------------------------------------------------------------------

    cdef bint put_frame(self, uint8_t type, uint8_t flags, uint32_t id, const uint8_t *payload, size_t n) noexcept:
        """A frame as a whole; False when it could not be queued, and the connection is broken by that."""
        cdef uint8_t *to
        if self.dead:
            return False
        to = out_reserve(&self.out, FRAME_HEAD + n)
        if to == NULL:
            self.fail(F_NONE)
            return False
        to = h2_put_head(to, n, type, flags, id)
        if n:
            memcpy(to, payload, n)
        out_commit(&self.out, FRAME_HEAD + n)
        self.sink.on_output()
        return not self.dead

    cdef void put_reset(self, uint32_t id, uint32_t code) noexcept:
        cdef uint8_t payload[4]
        put_u32(payload, code)
        self.put_frame(H2_RST_STREAM, 0, id, payload, 4)

    cdef void put_goaway(self, uint32_t last, uint32_t code) noexcept:
        cdef uint8_t payload[8]
        put_u32(payload, last)
        put_u32(payload + 4, code)
        self.put_frame(H2_GOAWAY, 0, 0, payload, 8)

    # ---- heads ---------------------------------------------------------------------------------------------------------

    cdef size_t encode(self, HpackEncoder *encoder, uint8_t *out, HeaderBlock head, int kind, bint option) noexcept:
        """option: of a request, https; of a response, that its content-length is only told and not meant."""
        if kind == BLOCK_REQUEST:
            return hpack_encode_request(encoder, out, head, head.framing, head.length, head.flags & HEAD_TE_TRAILERS != 0, option)
        if kind == BLOCK_RESPONSE:
            return hpack_encode_response(encoder, out, head, head.framing, head.length, option)
        return hpack_encode_trailers(encoder, out, head)

    cdef bint put_block(self, H2Stream *stream, HeaderBlock head, int kind, bint ended, bint option) noexcept:
        cdef size_t bound = hpack_bound(head)
        cdef size_t n
        cdef uint8_t *to
        if self.dead:
            return False
        if bound > self.remote.frame:
            return self.put_pieces(stream, head, kind, ended, option, bound)
        to = out_reserve(&self.out, FRAME_HEAD + bound)
        if to == NULL:
            self.fail(F_NONE)
            return False
        n = self.encode(&self.encoder, to + FRAME_HEAD, head, kind, option)
        h2_put_head(to, n, H2_HEADERS, H2_END_HEADERS | (H2_END_STREAM if ended else 0), stream.id)
        out_commit(&self.out, FRAME_HEAD + n)
        stream.last_flags = to + 4
        stream.last_turn = self.turn
        self.sink.on_output()
        return not self.dead

    cdef bint put_pieces(self, H2Stream *stream, HeaderBlock head, int kind, bint ended, bint option, size_t bound) noexcept:
        """A block that may not fit into one frame."""
        cdef uint8_t *whole = <uint8_t *> malloc(bound)
        cdef uint8_t flags = H2_END_STREAM if ended else 0
        cdef uint8_t type = H2_HEADERS
        cdef uint32_t id = stream.id
        cdef size_t n
        cdef size_t at = 0
        cdef size_t piece
        if whole == NULL:
            self.fail(F_NONE)
            return False
        n = self.encode(&self.encoder, whole, head, kind, option)
        # A block cannot be empty here: it has a pseudo-header field, or a trailer.
        while at < n and not self.dead:
            piece = min(n - at, <size_t> self.remote.frame)
            if at + piece == n:
                flags |= H2_END_HEADERS
            self.put_frame(type, flags, id, whole + at, piece)
            type = H2_CONTINUATION
            flags = 0
            at += piece
        free(whole)
        return not self.dead

    cdef void send_response(self, H2Stream *stream, HeaderBlock head) noexcept:
        cdef bint bodiless = stream.method == M_HEAD or head.status == 204 or head.status == 304
        cdef Field *priority
        if stream.local_done or stream.ending or stream.head_sent:
            return
        if head.status < 200:
            if head.status != 101:
                head.framing = FRAME_NONE
                self.put_block(stream, head, BLOCK_RESPONSE, False, False)
            return
        if head.status >= 300:
            stream.is_tunnel = False
        if head.first[<int> T_OTHER]:
            # The origin knows what its content is for: what it says goes before what the client said (RFC 9218 §8).
            priority = head.find_name(<const uint8_t *> b"priority", 8)
            if priority != NULL:
                self.prioritise(stream, head.store + priority.value, priority.value_len)
        stream.head_sent = True
        stream.send_left = NO_LENGTH
        if not stream.is_tunnel:
            if bodiless or head.framing == FRAME_NONE:
                stream.send_left = 0       # whatever content is given is not sent
            elif head.framing == FRAME_LENGTH:
                stream.send_left = head.length
        self.put_block(stream, head, BLOCK_RESPONSE, False, bodiless)

    cdef void send_request(self, H2Stream *stream, HeaderBlock head, bint has_more, bint secure) noexcept:
        stream.method = head.method
        stream.head_sent = True
        stream.send_left = head.length if head.framing == FRAME_LENGTH and has_more else NO_LENGTH
        if self.put_block(stream, head, BLOCK_REQUEST, not has_more, secure) and not has_more:
            self.end_local(stream)

    # ---- content -------------------------------------------------------------------------------------------------------

    cdef bint put_content(self, H2Stream *stream, const uint8_t *p, size_t n) noexcept:
        """One DATA frame of p[0:n], for which there are windows; of the stream's waiting content when p is NULL. With it goes the end
        of the stream, where it is due. False when the connection is broken by it."""
        cdef uint8_t *head = out_reserve(&self.out, FRAME_HEAD)
        cdef bint ended = p == NULL and stream.ending and stream.tail.size == 0 and stream.out.size == n
        cdef Block *block
        cdef size_t part
        cdef size_t left = n
        if head == NULL:
            self.fail(F_NONE)
            return False
        h2_put_head(head, n, H2_DATA, H2_END_STREAM if ended else 0, stream.id)
        out_commit(&self.out, FRAME_HEAD)
        stream.last_flags = head + 4
        stream.last_turn = self.turn
        if p != NULL:
            if out_append(&self.out, p, n) < 0:
                self.fail(F_NONE)
                return False
        else:
            while left:
                block = stream.out.head
                part = min(left, <size_t> (block.end - block.start))
                if out_append(&self.out, block.data + block.start, part) < 0:
                    self.fail(F_NONE)
                    return False
                out_consume(&stream.out, part)
                left -= part
        if stream.send_left != NO_LENGTH:
            stream.send_left -= n
        stream.send_window -= <int> n
        self.send_window -= <int> n
        stream.drained += <uint32_t> n
        ledger_allow(&self.ledger)
        if ended:
            self.end_local(stream)
        return True

    cdef bint send_data(self, H2Stream *stream, const uint8_t *p, size_t n) noexcept:
        cdef size_t part
        cdef uint32_t id = stream.id
        if self.dead or stream.local_done or stream.ending or not stream.head_sent:
            return False
        if n > stream.send_left - stream.out.size and stream.send_left != NO_LENGTH:
            n = <size_t> (stream.send_left - stream.out.size)      # more than content-length says is never sent
        # What nobody waits before goes out at once, from where it lies.
        while (n and stream.out.size == 0 and self.out.size < PUMP_MARK and stream.send_window > 0 and self.send_window > 0
                and ring_head(&self.streams) == NULL):
            part = min(n, <size_t> min(min(stream.send_window, self.send_window), <int> QUANTUM))
            if not self.put_content(stream, p, part):
                return False
            p += part
            n -= part
            if n == 0:
                self.sink.on_output()      # the stream may be over by now
                return False
        if n == 0:
            return False
        if out_append(&stream.out, p, n) < 0:
            self.fail(F_NONE)
            return False
        self.wake(stream)
        self.sink.on_output()
        stream = stream_find(&self.streams, id)
        if stream == NULL or stream.out.size <= STREAM_HIGH:
            return False
        stream.drained_due = True
        return True

    cdef size_t take_direct(self, H2Stream *stream, size_t n) noexcept:
        cdef size_t left
        if (self.dead or stream.local_done or stream.ending or not stream.head_sent or stream.out.size or self.out.size >= QUANTUM
                or stream.send_window <= 0 or self.send_window <= 0 or ring_head(&self.streams) != NULL):
            return 0
        n = min(n, <size_t> min(stream.send_window, self.send_window))
        if stream.send_left != NO_LENGTH:
            n = <size_t> min(<uint64_t> n, stream.send_left)
            stream.send_left -= n
        stream.last_flags = NULL           # its last frame may be gone
        stream.send_window -= <int> n
        self.send_window -= <int> n
        stream.drained += <uint32_t> n
        left = n
        while left:
            ledger_allow(&self.ledger)
            left -= min(left, <size_t> QUANTUM)
        return n

    cdef void wake(self, H2Stream *stream) noexcept:
        """Puts a stream where it belongs: into its ring when it has content and a window for it."""
        if stream.out.size == 0:
            ring_remove(&self.streams, stream)
            stream.stall_ms = 0
            return
        if stream.stall_ms == 0:
            stream.stall_ms = self.now_ms + STALL_MS
            stream.drained = 0
        if stream.send_window > 0:
            ring_add(&self.streams, stream)
        else:
            ring_remove(&self.streams, stream)

    cdef void emit(self, H2Stream *stream) noexcept:
        """The stream's turn."""
        cdef uint32_t id = stream.id
        cdef size_t n = min(stream.out.size, <size_t> min(min(stream.send_window, self.send_window), <int> QUANTUM))
        if not self.put_content(stream, NULL, n):
            return
        stream = stream_find(&self.streams, id)
        if stream == NULL:
            return
        if stream.out.size == 0 and stream.tail.size:
            self.put_tail(stream, None)
            stream = stream_find(&self.streams, id)
            if stream == NULL:
                return
        self.wake(stream)
        stream.burst += 1
        if stream.incremental or stream.burst >= BURST:
            stream.burst = 0
            ring_turn(&self.streams, stream)
        if stream.drained_due and stream.out.size <= STREAM_LOW:
            stream.drained_due = False
            self.sink.on_drained(stream)

    cdef void pump(self) noexcept:
        cdef H2Stream *stream
        while not self.dead and self.out.size < PUMP_MARK and self.send_window > 0:
            stream = ring_head(&self.streams)
            if stream == NULL:
                return
            self.emit(stream)

    cdef void on_part_written(self) noexcept:
        self.turn += 1
        if self.out.size == 0:
            self.ledger.answers = 0

    cdef void on_written(self) noexcept:
        self.on_part_written()
        self.pump()
        if self.out.size and not self.dead:
            self.sink.on_output()

    # ---- ends ----------------------------------------------------------------------------------------------------------

    cdef void put_tail(self, H2Stream *stream, HeaderBlock trailers) noexcept:
        """Trailers, or those that wait in the tail: the end of the stream either way."""
        cdef Block *block
        cdef uint8_t *to
        cdef size_t n
        if trailers is not None:
            if self.put_block(stream, trailers, BLOCK_TRAILERS, True, False):
                self.end_local(stream)
            return
        to = out_reserve(&self.out, FRAME_HEAD + UPDATE_BOUND)
        if to == NULL:
            self.fail(F_NONE)
            return
        # The peer may have made the table smaller since: the next block says so, whichever it is.
        n = hpack_encode_start(&self.encoder, to + FRAME_HEAD)
        h2_put_head(to, n + stream.tail.size, H2_HEADERS, H2_END_HEADERS | H2_END_STREAM, stream.id)
        out_commit(&self.out, FRAME_HEAD + n)
        block = stream.tail.head
        while block != NULL:
            if out_append(&self.out, block.data + block.start, block.end - block.start) < 0:
                self.fail(F_NONE)
                return
            block = block.next
        out_clear(&stream.tail)
        self.end_local(stream)

    cdef void finish(self, H2Stream *stream, HeaderBlock trailers) noexcept:
        cdef uint8_t *to
        cdef size_t bound
        cdef size_t n
        if self.dead or stream.local_done or stream.ending:
            return
        if not stream.head_sent or stream.send_left != NO_LENGTH and stream.send_left != stream.out.size:
            # No message, or shorter than its content-length said: that is no end.
            self.reset(stream, H2E_INTERNAL)
            return
        stream.ending = True
        if trailers is not None and not has_fields(trailers):
            trailers = None
        if stream.out.size == 0:
            if trailers is not None:
                self.put_tail(stream, trailers)
            elif stream.last_flags != NULL and stream.last_turn == self.turn:
                # The stream's last frame still lies in the output: no further one is needed.
                stream.last_flags[0] |= H2_END_STREAM
                self.end_local(stream)
            elif self.put_frame(H2_DATA, H2_END_STREAM, stream.id, NULL, 0):
                self.end_local(stream)
            return
        if trailers is None:
            return
        # Content waits before them. Encoded with the static table alone they may go out at any later time.
        bound = hpack_bound(trailers)
        if bound + UPDATE_BOUND > MIN_FRAME:
            # No peer is owed trailers of this size.
            self.reset(stream, H2E_INTERNAL)
            return
        to = out_reserve(&stream.tail, bound)
        if to == NULL:
            self.fail(F_NONE)
            return
        n = hpack_encode_trailers(NULL, to, trailers)
        out_commit(&stream.tail, n)

    cdef void end_local(self, H2Stream *stream) noexcept:
        """END_STREAM is in the output."""
        stream.local_done = True
        stream.stall_ms = 0
        if self.is_server:
            if not stream.refused:         # an error for a faulty head is no success that makes up for one
                ledger_answered(&self.ledger)
            if stream.remote_done:
                self.drop(stream, False, GONE_DONE, H2E_NO_ERROR, F_NONE)
                return
            if stream.is_tunnel:
                return                     # half-closed: the client may go on
            # The rest of the request is not wanted, and that is no failure (RFC 9113 §8.1).
            self.put_reset(stream.id, H2E_NO_ERROR)
            if not self.dead:
                self.drop(stream, True, GONE_DONE, H2E_NO_ERROR, F_NONE)
        elif stream.remote_done and not stream.end_due:
            self.drop(stream, False, GONE_DONE, H2E_NO_ERROR, F_NONE)

    cdef void drop(self, H2Stream *stream, bint by_us, int how, uint32_t code, int fault) noexcept:
        """Takes the stream out of everything and tells the sink: the end of every stream."""
        stream_remove(&self.streams, stream, by_us)
        self.release(stream, by_us)
        self.sink.on_gone(stream, how, code, fault)
        stream_free(stream)
        if self.streams.count == 0 and not self.dead:
            self.end_if_over()

    cdef void release(self, H2Stream *stream, bint by_us) noexcept:
        """What the receiving half has to give back for a stream that is over."""
        pass

    cdef void end_if_over(self) noexcept:
        if self.closing and self.streams.count == 0 and not self.over_told:
            self.over_told = True
            self.sink.on_over()

    cdef void reset(self, H2Stream *stream, uint32_t code) noexcept:
        if self.dead:
            return
        self.put_reset(stream.id, code)
        if not self.dead:
            self.drop(stream, True, GONE_OURS, code, F_NONE)

    cdef bint answered(self, int verdict) noexcept:
        """What the ledger says: False, and the connection is broken, when it is a fault."""
        if verdict < 0:
            self.fail(-verdict)
        return not self.dead

    cdef void fail_stream(self, H2Stream *stream, int fault) noexcept:
        cdef uint32_t code = h2_error_of(fault)
        if self.dead:
            return
        self.sink.on_fault(fault)
        self.put_reset(stream.id, code)
        if self.dead:
            return
        self.drop(stream, True, GONE_FAULT, code, fault)
        if not self.dead:
            self.answered(ledger_answer(&self.ledger))
            self.answered(ledger_add(&self.ledger, self.now_ms, ACCOUNT_FAULTS, 1, F_FLOOD_FAULT))

    cdef void fail(self, int fault) noexcept:
        cdef uint32_t code = h2_error_of(fault) if fault != F_NONE else <uint32_t> H2E_INTERNAL
        cdef H2Sink sink = self.sink
        cdef H2Stream *stream
        if self.dead:
            return
        if fault != F_NONE:
            sink.on_fault(fault)
        if self.dead:
            return
        self.put_last_words(code)
        self.dead = True
        while self.streams.count:
            stream = stream_any(&self.streams)
            self.drop(stream, True, GONE_BROKEN, code, fault)
        self.closing = True
        if not self.over_told:
            self.over_told = True
            sink.on_over()

    cdef void put_last_words(self, uint32_t code) noexcept:
        """GOAWAY, where there is memory for it."""
        cdef uint8_t *to = out_reserve(&self.out, FRAME_HEAD + 8)
        if to == NULL:
            return
        to = h2_put_head(to, 8, H2_GOAWAY, 0, 0)
        put_u32(to, self.last_id)
        put_u32(to + 4, code)
        out_commit(&self.out, FRAME_HEAD + 8)

    cdef void prioritise(self, H2Stream *stream, const uint8_t *p, size_t n) noexcept:
        cdef bint ready = stream.ready
        ring_remove(&self.streams, stream)
        h2_parse_priority(p, n, &stream.urgency, &stream.incremental)
        if ready:
            ring_add(&self.streams, stream)
