"""An origin that is cheap enough to stand behind real load: one process, one loop, no framework.

Prints its port and answers every request with 200, once it has read the content that Content-Length declares.
"""

import asyncio
import subprocess
import sys
from types import TracebackType
from typing import Any, Self

import uvloop

CONTENT = b"origin here\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s" % (len(CONTENT), CONTENT)


class QuickOrigin:
    """The origin as a child process; a context manager."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self._process.stdout is not None
        self.address = f"127.0.0.1:{int(self._process.stdout.readline())}"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._seen = b""
        self._content = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        while data:
            if self._content:
                self._content -= (took := min(self._content, len(data)))
                data = data[took:]
                if not self._content:
                    self._transport.write(ANSWER)
                continue
            head, found, rest = (self._seen + data).partition(b"\r\n\r\n")
            if not found:
                self._seen = head
                return
            self._seen, data = b"", rest
            self._content = _declared(head)
            if not self._content:
                self._transport.write(ANSWER)


def _declared(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    # The end of standard input is the end of whoever wanted this origin.
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(_serve())
