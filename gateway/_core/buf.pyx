"""Bytes that wait: pooled blocks for output, one growing buffer for input. See buf.pxd."""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stddef cimport size_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

from gateway._core.sys cimport MSG_MORE, MSG_NOSIGNAL, iovec, msghdr, send, sendmsg, ssize_t

cdef enum:
    HEADER = 24            # bytes of a Block before its data
    SMALL = 4096 - 32      # data bytes of a small block: heads and small answers
    LARGE = 32768 - 32     # of a large one: pieces of content
    SPARE_SMALL = 512      # blocks kept on the free-lists
    SPARE_LARGE = 64
    IOV = 16

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


cdef Py_ssize_t out_send(int fd, OutQueue *queue, const uint8_t *p, size_t n, bint more) noexcept nogil:
    cdef int flags = MSG_NOSIGNAL | MSG_MORE if more else MSG_NOSIGNAL
    cdef iovec iov[IOV]
    cdef msghdr message
    cdef ssize_t sent
    cdef size_t took
    cdef size_t total = 0
    cdef int count
    while queue.size or n:
        count = out_iov(queue, iov, IOV - 1)
        # p may go along only when all of the queue goes before it
        if n and (queue.size == 0 or count < IOV - 1):
            iov[count].iov_base = <void *> p
            iov[count].iov_len = n
            count += 1
        if count == 1:
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
        took = <size_t> sent if <size_t> sent < queue.size else queue.size
        if took:
            out_consume(queue, took)
        took = <size_t> sent - took
        p += took
        n -= took
    if n and out_append(queue, p, n) < 0:
        return -1
    return <Py_ssize_t> total
