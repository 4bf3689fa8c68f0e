"""Origin for uploads: reads a request's content, then answers 200. nginx alone would answer before it has read.

One thread, one epoll. Content is dropped inside the kernel (MSG_TRUNC), so that the origin costs next to nothing per byte.
`python upload_origin.py PORT` prints "ready" and serves until it is killed. Content-Length only, which is what gateways send on.
"""

import select
import socket
import sys

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nok"
PIECE = 256 * 1024


def content_length(head: bytes) -> int:
    """Declared length of the content; 0 without a declaration, ValueError when the request is framed otherwise."""
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
        elif name.lower() == b"transfer-encoding":
            raise ValueError("only Content-Length is read here")
    return length


def serve_once(sock: socket.socket, left: int, buffer: bytearray) -> int:
    """Reads what there is. `left` is the content still to come, -1 between requests; the new one is returned. Raises at the end."""
    while True:
        try:
            if left > 0:
                n = sock.recv_into(buffer, min(left, PIECE), socket.MSG_TRUNC)
                if not n:
                    raise ConnectionError
                left -= n
            else:
                seen = sock.recv(65536, socket.MSG_PEEK)
                if not seen:
                    raise ConnectionError
                end = seen.find(b"\r\n\r\n")
                if end < 0:
                    return -1
                sock.recv(end + 4)
                left = content_length(seen[:end])
        except BlockingIOError:
            return left
        if not left:
            sock.send(ANSWER)
            left = -1


def main(port: int) -> None:
    listening = socket.create_server(("127.0.0.1", port), backlog=4096)
    listening.setblocking(False)
    poll = select.epoll()
    poll.register(listening, select.EPOLLIN)
    open_socks: dict[int, socket.socket] = {}
    left: dict[int, int] = {}
    buffer = bytearray(PIECE)
    print("ready", flush=True)
    while True:
        for fd, _ in poll.poll():
            if fd == listening.fileno():
                sock, _ = listening.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                open_socks[sock.fileno()] = sock
                left[sock.fileno()] = -1
                poll.register(sock, select.EPOLLIN)
                continue
            try:
                left[fd] = serve_once(open_socks[fd], left[fd], buffer)
            except (OSError, ValueError):
                poll.unregister(fd)
                del left[fd]
                open_socks.pop(fd).close()


if __name__ == "__main__":
    main(int(sys.argv[1]))
