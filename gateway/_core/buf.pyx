"""Bytes that wait: pooled blocks for output, one growing buffer for input. See buf.pxd."""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stddef cimport size_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

from gateway._core.sys cimport (
    F_SETPIPE_SZ,
    MSG_MORE,
    MSG_NOSIGNAL,
    O_CLOEXEC,
    O_NONBLOCK,
    SPLICE_F_MOVE,
    SPLICE_F_NONBLOCK,
    close,
    fcntl,
    iovec,
    msghdr,
    pipe2,
    send,
    sendmsg,
    splice,
    ssize_t,
)

cdef enum:
    HEADER = 24            # bytes of a Block before its data
    SMALL = 4096 - 32      # data bytes of a small block: heads and small answers
    LARGE = 32768 - 32     # of a large one: pieces of content
    SPARE_SMALL = 512      # blocks kept on the free-lists
    SPARE_LARGE = 64
    IOV = 16
    FLAT = 65536           # bytes of several blocks that are sent as one piece,
    FLAT_FROM = 8192       # from so many bytes on
    PIPE_BYTES = 262144    # asked for; who has many pipes gets less (pipe(7))
    PIPES = 128            # in use at once in the process: each costs two descriptors
    SPARE_PIPES = 16

# The kernel copies each piece of a list by itself, to where the one before ended: off the cache lines it takes twice as long as this copy.
cdef uint8_t flat[FLAT]
cdef Pipe *spare_pipes = NULL
cdef int spare_pipes_n = 0
cdef int pipes_n = 0       # open, spare ones included
cdef Block *spare_small = NULL
cdef Block *spare_large = NULL
cdef int spare_small_n = 0
cdef int spare_large_n = 0


cdef Block *take_block(size_t n) noexcept nogil:
    global spare_small, spare_large, spare_small_n, spare_large_n
    cdef Block *block
    cdef size_t cap
    if n <= SMALL:
        cap = SMALL
        if spare_small != NULL:
            block = spare_small
            spare_small = block.next
            spare_small_n -= 1
            block.next = NULL
            block.start = block.end = 0
            return block
    elif n <= LARGE:
        cap = LARGE
        if spare_large != NULL:
            block = spare_large
            spare_large = block.next
            spare_large_n -= 1
            block.next = NULL
            block.start = block.end = 0
            return block
    else:
        cap = n
    block = <Block *> malloc(HEADER + cap)
    if block == NULL:
        return NULL
    block.next = NULL
    block.cap = <uint32_t> cap
    block.start = block.end = 0
    return block


cdef void give_block(Block *block) noexcept nogil:
    global spare_small, spare_large, spare_small_n, spare_large_n
    if block.cap == SMALL and spare_small_n < SPARE_SMALL:
        block.next = spare_small
        spare_small = block
        spare_small_n += 1
    elif block.cap == LARGE and spare_large_n < SPARE_LARGE:
        block.next = spare_large
        spare_large = block
        spare_large_n += 1
    else:
        free(block)


cdef uint8_t *out_reserve(OutQueue *queue, size_t n) noexcept nogil:
    cdef Block *block = queue.tail
    if block != NULL and block.cap - block.end >= n:
        return block.data + block.end
    block = take_block(n)
    if block == NULL:
        return NULL
    if queue.tail == NULL:
        queue.head = block
    else:
        queue.tail.next = block
    queue.tail = block
    return block.data


cdef void out_commit(OutQueue *queue, size_t n) noexcept nogil:
    queue.tail.end += <uint32_t> n
    queue.size += n


cdef int out_append(OutQueue *queue, const uint8_t *p, size_t n) noexcept nogil:
    cdef uint8_t *to
    cdef size_t part
    if queue.tail != NULL:
        part = queue.tail.cap - queue.tail.end
        if part > n:
            part = n
        if part:
            memcpy(queue.tail.data + queue.tail.end, p, part)
            out_commit(queue, part)
            p += part
            n -= part
    while n:
        part = n if n < LARGE else LARGE
        to = out_reserve(queue, part)
        if to == NULL:
            return -1
        memcpy(to, p, part)
        out_commit(queue, part)
        p += part
        n -= part
    return 0


cdef void out_consume(OutQueue *queue, size_t n) noexcept nogil:
    cdef Block *block
    cdef size_t part
    queue.size -= n
    while queue.head != NULL:
        block = queue.head
        part = block.end - block.start
        if part > n:
            block.start += <uint32_t> n
            return
        n -= part
        queue.head = block.next
        if queue.head == NULL:
            queue.tail = NULL
        give_block(block)


cdef void out_clear(OutQueue *queue) noexcept nogil:
    cdef Block *block
    while queue.head != NULL:
        block = queue.head
        queue.head = block.next
        give_block(block)
    queue.tail = NULL
    queue.size = 0
    if queue.pipe != NULL:
        give_pipe(queue.pipe)
        queue.pipe = NULL


cdef int out_iov(OutQueue *queue, iovec *iov, int room) noexcept nogil:
    cdef Block *block = queue.head
    cdef int n = 0
    while block != NULL and n < room:
        if block.end > block.start:
            iov[n].iov_base = block.data + block.start
            iov[n].iov_len = block.end - block.start
            n += 1
        block = block.next
    return n


cdef int in_append(InBuf *buf, const uint8_t *p, size_t n) noexcept nogil:
    cdef size_t held = buf.end - buf.start
    cdef size_t cap
    cdef uint8_t *data
    if buf.cap - buf.end < n:
        if buf.start:
            memmove(buf.data, buf.data + buf.start, held)
            buf.start = 0
            buf.end = <uint32_t> held
        if buf.cap - buf.end < n:
            cap = buf.cap if buf.cap else 1024
            while cap < held + n:
                cap *= 2
            data = <uint8_t *> realloc(buf.data, cap)
            if data == NULL:
                return -1
            buf.data = data
            buf.cap = <uint32_t> cap
    memcpy(buf.data + buf.end, p, n)
    buf.end += <uint32_t> n
    return 0


cdef void in_consume(InBuf *buf, size_t n) noexcept nogil:
    buf.start += <uint32_t> n
    if buf.start == buf.end:
        in_clear(buf)


cdef void in_clear(InBuf *buf) noexcept nogil:
    free(buf.data)
    memset(buf, 0, sizeof(InBuf))


# ---- pipes ----

cdef Pipe *take_pipe() noexcept nogil:
    global spare_pipes, spare_pipes_n, pipes_n
    cdef Pipe *pipe = spare_pipes
    if pipe != NULL:
        spare_pipes = pipe.next
        spare_pipes_n -= 1
        return pipe
    if pipes_n >= PIPES:
        return NULL
    pipe = <Pipe *> malloc(sizeof(Pipe))
    if pipe == NULL:
        return NULL
    if pipe2(pipe.ends, O_NONBLOCK | O_CLOEXEC) < 0:
        free(pipe)
        return NULL
    fcntl(pipe.ends[1], F_SETPIPE_SZ, <int> PIPE_BYTES)
    pipe.held = 0
    pipes_n += 1
    return pipe


cdef void give_pipe(Pipe *pipe) noexcept nogil:
    global spare_pipes, spare_pipes_n, pipes_n
    if pipe.held == 0 and spare_pipes_n < SPARE_PIPES:
        pipe.next = spare_pipes
        spare_pipes = pipe
        spare_pipes_n += 1
        return
    close(pipe.ends[0])
    close(pipe.ends[1])
    free(pipe)
    pipes_n -= 1


cdef ssize_t out_splice(OutQueue *queue, int fd) noexcept nogil:
    cdef ssize_t got = 0
    if queue.pipe == NULL:
        queue.pipe = take_pipe()
        if queue.pipe == NULL:
            return SPLICE_NONE
    while True:
        got = splice(fd, NULL, queue.pipe.ends[1], NULL, PIPE_BYTES, SPLICE_F_MOVE | SPLICE_F_NONBLOCK)
        if got >= 0:
            break
        if errno != EINTR:
            return SPLICE_WAIT if errno == EAGAIN else SPLICE_LOST
    queue.pipe.held += <size_t> got
    queue.size += <size_t> got
    return got


cdef void out_rest(OutQueue *queue) noexcept nogil:
    if queue.pipe != NULL and queue.pipe.held == 0:
        give_pipe(queue.pipe)
        queue.pipe = NULL


# What the socket takes of the pipe; -1 when the connection is broken. There is no MSG_NOSIGNAL here: Python ignores SIGPIPE.
cdef ssize_t send_piped(int fd, OutQueue *queue) noexcept nogil:
    cdef ssize_t sent
    cdef ssize_t total = 0
    while queue.pipe.held:
        sent = splice(queue.pipe.ends[0], NULL, fd, NULL, queue.pipe.held, SPLICE_F_MOVE | SPLICE_F_NONBLOCK)
        if sent <= 0:
            if sent < 0 and errno == EINTR:
                continue
            if sent < 0 and errno == EAGAIN:
                break
            return -1
        queue.pipe.held -= <size_t> sent
        queue.size -= <size_t> sent
        total += sent
    return total


# Lays pieces out one behind the other; the bytes.
cdef size_t flatten(const iovec *iov, int count) noexcept nogil:
    cdef size_t total = 0
    cdef size_t part
    cdef int i
    for i in range(count):
        part = iov[i].iov_len
        if part > FLAT - total:
            part = FLAT - total
        memcpy(flat + total, iov[i].iov_base, part)
        total += part
    return total


cdef Py_ssize_t out_send(int fd, OutQueue *queue, const uint8_t *p, size_t n, bint more) noexcept nogil:
    cdef int flags = MSG_NOSIGNAL | MSG_MORE if more else MSG_NOSIGNAL
    cdef iovec iov[IOV]
    cdef msghdr message
    cdef ssize_t sent
    cdef size_t took
    cdef size_t asked
    cdef size_t total = 0
    cdef int count
    while queue.size or n:
        count = out_iov(queue, iov, IOV - 1)
        if count == 0 and n == 0:
            sent = send_piped(fd, queue)
            if sent < 0:
                return -1
            total += <size_t> sent
            break
        # p may go along only when all of the queue goes before it
        if n and (queue.size == 0 or count < IOV - 1):
            iov[count].iov_base = <void *> p
            iov[count].iov_len = n
            count += 1
        if n == 0 and count > 1 and queue.size > FLAT_FROM:
            asked = flatten(iov, count)
            sent = send(fd, flat, asked, flags)
            iov[0].iov_len = asked
            count = 1
        elif count == 1:
            sent = send(fd, iov[0].iov_base, iov[0].iov_len, flags)
        else:
            memset(&message, 0, sizeof(message))
            message.msg_iov = iov
            message.msg_iovlen = <size_t> count
            sent = sendmsg(fd, &message, flags)
        if sent < 0:
            if errno == EINTR:
                continue
            if errno != EAGAIN:
                return -1
            break
        total += <size_t> sent
        asked = 0
        while count:
            count -= 1
            asked += iov[count].iov_len
        took = <size_t> sent if <size_t> sent < queue.size else queue.size
        if took:
            out_consume(queue, took)
        p += <size_t> sent - took
        n -= <size_t> sent - took
        if <size_t> sent < asked:
            break                          # the socket is full, and will tell when it is not; to ask again answers EAGAIN
    if n and out_append(queue, p, n) < 0:
        return -1
    return <Py_ssize_t> total
