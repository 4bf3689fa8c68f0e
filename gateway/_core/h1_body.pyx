"""Content of HTTP/1.x messages: by length, in chunks, until close. The chunk machine is strict to the byte (items 6 to 9)."""

from libc.string cimport memset

from gateway._core.ascii cimport C_TOKEN, C_VALUE, gw_class, gw_hex, gw_lower, is_blank
from gateway._core.faults cimport (
    F_BODY_SHORT, F_CHUNK_ABUSE, F_CHUNK_END, F_CHUNK_EXTENSION, F_CHUNK_SIZE, F_TRAILER, F_TRAILERS_LARGE)
from gateway._core.headers cimport HeaderBlock
from gateway._core.tokens cimport token_of
from gateway._core.types cimport FRAME_CHUNKED, FRAME_CLOSE, FRAME_LENGTH, Span, uint8_t, uint32_t, uint64_t

cdef enum:
    MAX_DIGITS = 16            # of a chunk size
    MAX_CHUNK_LINE = 4096      # bytes of one chunk line
    MAX_EXTENSIONS = 16384     # bytes of all extensions of a message
    FREE_OVERHEAD = 65536      # bytes that chunk lines may cost before they are weighed against the content
    OVERHEAD_RATIO = 4         # then so many bytes for each byte of content: chunks of two bytes pass, chunks of one do not
    MAX_TRAILER_BYTES = 16384
    MAX_TRAILER_FIELDS = 100
    FULL_SHIFT = 59            # a size with one of the bits from here up would leave 2^63 with one more digit

cdef enum State:               # of the chunk machine: what the next byte belongs to
    AT_SIZE = 0
    AT_EXT_START               # after ";"
    AT_EXT_NAME
    AT_EXT_NAME_END            # white space after a name
    AT_EXT_EQUALS              # after "="
    AT_EXT_TOKEN
    AT_EXT_QUOTED
    AT_EXT_ESCAPE              # after "\" in a quoted string
    AT_EXT_QUOTE_END           # after the closing quote
    AT_EXT_VALUE_END           # white space after a value
    AT_SIZE_LF
    AT_DATA
    AT_DATA_CR
    AT_DATA_LF
    AT_TRAILER                 # first byte of a trailer line, or of the end
    AT_TRAILER_NAME
    AT_TRAILER_SPACE           # white space before a value
    AT_TRAILER_VALUE
    AT_TRAILER_LF
    AT_LAST_LF
    AT_END


cdef void h1_body_start(BodyDecoder *decoder, uint8_t framing, uint64_t length, bint is_request) noexcept nogil:
    memset(decoder, 0, sizeof(BodyDecoder))
    decoder.framing = framing
    decoder.is_request = is_request
    if framing == FRAME_CHUNKED:
        decoder.state = AT_SIZE
    elif framing == FRAME_LENGTH and length > 0:
        decoder.remaining = length
        decoder.state = AT_DATA
    else:
        decoder.state = AT_DATA if framing == FRAME_CLOSE else AT_END


# ---- chunk lines ----

# One byte of a chunk extension, *( ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] ); white space before ";" only after one.
# The next State, or -F_CHUNK_EXTENSION.
cdef int step_extension(uint8_t state, uint8_t c) noexcept nogil:
    if state == AT_EXT_QUOTED:
        if c == 34:
            return AT_EXT_QUOTE_END
        if c == 92:
            return AT_EXT_ESCAPE
        return AT_EXT_QUOTED if gw_class[c] & C_VALUE else -F_CHUNK_EXTENSION
    if state == AT_EXT_ESCAPE:
        return AT_EXT_QUOTED if gw_class[c] & C_VALUE else -F_CHUNK_EXTENSION
    if gw_class[c] & C_TOKEN:
        if state == AT_EXT_START or state == AT_EXT_NAME:
            return AT_EXT_NAME
        return AT_EXT_TOKEN if state == AT_EXT_EQUALS or state == AT_EXT_TOKEN else -F_CHUNK_EXTENSION
    if c == 59:
        return AT_EXT_START if state != AT_EXT_START and state != AT_EXT_EQUALS else -F_CHUNK_EXTENSION
    if c == 13:
        if state == AT_EXT_NAME or state == AT_EXT_TOKEN or state == AT_EXT_QUOTE_END:
            return AT_SIZE_LF
        return -F_CHUNK_EXTENSION
    if is_blank(c):
        if state == AT_EXT_START or state == AT_EXT_EQUALS:
            return state
        return AT_EXT_NAME_END if state == AT_EXT_NAME or state == AT_EXT_NAME_END else AT_EXT_VALUE_END
    if c == 61:
        return AT_EXT_EQUALS if state == AT_EXT_NAME or state == AT_EXT_NAME_END else -F_CHUNK_EXTENSION
    if c == 34 and state == AT_EXT_EQUALS:
        return AT_EXT_QUOTED
    return -F_CHUNK_EXTENSION


# Bytes of a chunk line from p[i] on, up to and with its LF. *used is the offset after what was consumed. 1: the line is complete;
# 0: needs more; < 0: a negated Fault.
cdef int parse_chunk_line(BodyDecoder *decoder, const uint8_t *p, size_t n, size_t i, size_t *used) noexcept nogil:
    cdef uint8_t state = decoder.state
    cdef uint8_t digit
    cdef size_t start = i
    cdef int step
    while i < n:
        if state == AT_SIZE:
            digit = gw_hex[p[i]]
            if digit != 255:
                if decoder.digits == MAX_DIGITS or decoder.remaining >> FULL_SHIFT:
                    return -F_CHUNK_SIZE
                decoder.digits += 1
                decoder.remaining = decoder.remaining << 4 | digit
            elif decoder.digits == 0:
                return -F_CHUNK_SIZE
            elif p[i] == 13:
                state = AT_SIZE_LF
            elif p[i] == 59:
                state = AT_EXT_START
            else:
                return -F_CHUNK_SIZE
        elif state == AT_SIZE_LF:
            if p[i] != 10:
                return -F_CHUNK_END
            i += 1
            decoder.overhead += i - start
            decoder.line = 0
            decoder.digits = 0
            decoder.state = AT_DATA
            used[0] = i
            if decoder.overhead > <uint64_t> FREE_OVERHEAD and (
                    decoder.overhead - <uint64_t> FREE_OVERHEAD > decoder.content * <uint64_t> OVERHEAD_RATIO):
                return -F_CHUNK_ABUSE
            return 1
        else:
            decoder.extensions += 1
            if decoder.extensions > <uint32_t> MAX_EXTENSIONS:
                return -F_CHUNK_EXTENSION
            step = step_extension(state, p[i])
            if step < 0:
                return step
            state = <uint8_t> step
        decoder.line += 1
        if decoder.line > <uint32_t> MAX_CHUNK_LINE:
            return -F_CHUNK_EXTENSION
        i += 1
    decoder.overhead += i - start
    decoder.state = state
    used[0] = i
    return 0


# ---- trailers ----

cdef inline int keep_byte(HeaderBlock trailers, uint8_t c) noexcept nogil:
    if trailers is None:
        return 0
    if trailers.reserve(1) < 0:
        return -F_TRAILERS_LARGE
    trailers.store[trailers.used] = c
    trailers.used += 1
    return 0


# The name in progress is complete: ":" and a space follow it in the store, then comes the value, as in every whole line of a block.
cdef int finish_name(BodyDecoder *decoder, HeaderBlock trailers) noexcept nogil:
    if keep_byte(trailers, 58) < 0 or keep_byte(trailers, 32) < 0:
        return -F_TRAILERS_LARGE
    if trailers is not None:
        decoder.trailer_value = trailers.used
    return 0


cdef int finish_trailer(BodyDecoder *decoder, HeaderBlock trailers) noexcept nogil:
    cdef uint32_t name = decoder.trailer_name
    cdef uint32_t value = decoder.trailer_value
    cdef uint32_t end
    decoder.digits += 1                    # counts the fields now: no chunk size comes any more
    if decoder.digits > MAX_TRAILER_FIELDS:
        return -F_TRAILERS_LARGE
    if trailers is None:
        return 0
    end = trailers.used
    while end > value and is_blank(trailers.store[end - 1]):
        end -= 1
    trailers.used = end
    if keep_byte(trailers, 13) < 0 or keep_byte(trailers, 10) < 0:
        return -F_TRAILERS_LARGE
    if trailers.add_stored(token_of(trailers.store + name, value - name - 2), name, value - name - 2, value, end - value) < 0:
        return -F_TRAILERS_LARGE
    return 0


# Bytes of the trailer section from p[i] on. 1: the message is complete; 0: needs more; < 0: a negated Fault.
cdef int parse_trailers(BodyDecoder *decoder, HeaderBlock trailers, const uint8_t *p, size_t n, size_t i, size_t *used) noexcept nogil:
    cdef uint8_t state = decoder.state
    cdef uint8_t c
    cdef uint8_t low
    cdef int fault = 0
    while i < n:
        c = p[i]
        i += 1
        decoder.line += 1
        if decoder.line > <uint32_t> MAX_TRAILER_BYTES:
            return -F_TRAILERS_LARGE
        if state == AT_TRAILER_VALUE or state == AT_TRAILER_SPACE:
            if c == 13:
                state = AT_TRAILER_LF
            elif not gw_class[c] & C_VALUE:
                return -F_TRAILER
            elif state == AT_TRAILER_VALUE or not is_blank(c):
                state = AT_TRAILER_VALUE
                fault = keep_byte(trailers, c)
        elif state == AT_TRAILER or state == AT_TRAILER_NAME:
            low = gw_lower[c]
            if low:
                if state == AT_TRAILER and trailers is not None:
                    decoder.trailer_name = trailers.used
                state = AT_TRAILER_NAME
                fault = keep_byte(trailers, low)
            elif state == AT_TRAILER_NAME and c == 58:
                state = AT_TRAILER_SPACE
                fault = finish_name(decoder, trailers)
            elif state == AT_TRAILER and c == 13:
                state = AT_LAST_LF
            else:
                return -F_TRAILER
        elif c != 10:
            return -F_TRAILER if state == AT_TRAILER_LF else -F_CHUNK_END
        elif state == AT_TRAILER_LF:
            state = AT_TRAILER
            fault = finish_trailer(decoder, trailers)
        else:
            decoder.state = AT_END
            used[0] = i
            return 1
        if fault < 0:
            return fault
    decoder.state = state
    used[0] = i
    return 0


# ---- steps ----

# A piece of content of at most n bytes at p; moves *used past it.
cdef inline int give_piece(BodyDecoder *decoder, const uint8_t *p, size_t n, size_t i, size_t *used, Span *out) noexcept nogil:
    cdef size_t piece = n - i
    if piece > decoder.remaining:
        piece = <size_t> decoder.remaining
    decoder.remaining -= piece
    decoder.content += piece
    out.p = p + i
    out.n = piece
    used[0] = i + piece
    return BODY_DATA


cdef int decode_chunks(BodyDecoder *decoder, HeaderBlock trailers, const uint8_t *p, size_t n, size_t *used, Span *out) noexcept nogil:
    cdef size_t i = 0
    cdef int answer
    while i < n:
        if decoder.state == AT_DATA:
            answer = give_piece(decoder, p, n, i, used, out)
            if decoder.remaining == 0:
                decoder.state = AT_DATA_CR
            return answer
        if decoder.state == AT_DATA_CR or decoder.state == AT_DATA_LF:
            if p[i] != (13 if decoder.state == AT_DATA_CR else 10):
                return -F_CHUNK_END
            decoder.state = AT_DATA_LF if decoder.state == AT_DATA_CR else AT_SIZE
            decoder.overhead += 1
            i += 1
        elif decoder.state < AT_DATA:
            answer = parse_chunk_line(decoder, p, n, i, used)
            if answer <= 0:
                return answer
            i = used[0]
            if decoder.remaining == 0:
                decoder.state = AT_TRAILER
        else:
            answer = parse_trailers(decoder, trailers, p, n, i, used)
            return BODY_END if answer > 0 else answer
    used[0] = i
    return BODY_MORE


cdef int h1_body_decode(BodyDecoder *decoder, HeaderBlock trailers, const uint8_t *p, size_t n, size_t *used, Span *out) noexcept nogil:
    cdef int answer
    used[0] = 0
    out.p = p
    out.n = 0
    if decoder.state == AT_END:
        return BODY_END
    if n == 0:
        return BODY_MORE
    if decoder.framing == FRAME_CHUNKED:
        return decode_chunks(decoder, trailers, p, n, used, out)
    if decoder.framing == FRAME_CLOSE:
        decoder.remaining = n
        return give_piece(decoder, p, n, 0, used, out)
    answer = give_piece(decoder, p, n, 0, used, out)
    if decoder.remaining == 0:
        decoder.state = AT_END
    return answer


cdef int h1_body_eof(BodyDecoder *decoder) noexcept nogil:
    if decoder.framing == FRAME_CLOSE or decoder.state == AT_END:
        return 0
    return -F_BODY_SHORT
