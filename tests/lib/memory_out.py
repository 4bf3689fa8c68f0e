"""The child of test_memory_out.py: one exchange again and again, each time with another allocation of the core that fails.

Run with failing_malloc.so preloaded. It ends well when every exchange ended, whatever the client was told, when the engine served
the next one, and when nothing was left behind. The last line says how many allocations there were.
"""

import contextlib
import ctypes
import select
import socket
import time

from desk import OK, Desk, blob_of, config, get

from gateway._core.pathtest import OutProbe

CONTENT = b"0123456789abcdef" * 6000
PATIENCE = 20.0
FOREVER = 1 << 40
SHIM = ctypes.CDLL(None)


TRAILER = b"0\r\nx-trailer: 1\r\n\r\n"


def script() -> list[bytes]:
    """A long head in two pieces, chunked content with trailers, and a request behind it."""
    head = b"POST /up HTTP/1.1\r\nHost: a.test\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"v" * 90) for n in range(40))
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (CONTENT[:7], CONTENT[7:5000], CONTENT[5000:]))
    rest = b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nX-Trailer: 1\r\n\r\n"
    return [head[:700], head[700:], rest[:40_000], rest[40_000:], get("/close", "Connection: close")]


ANSWER = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Long: " + b"x" * 5000 + b"\r\n\r\n"
    + b"%x\r\n%s\r\n" % (len(CONTENT), CONTENT) + b"0\r\n\r\n"
)  # fmt: skip


def read(end: socket.socket) -> bytes | None:
    """What is there; None at the end."""
    try:
        return end.recv(1 << 20) or None
    except BlockingIOError:
        return b""
    except OSError:
        return None


def play(desk: Desk, web: socket.socket, origin: socket.socket) -> bytes:
    """One client to its end, with an origin that answers whatever it is asked; what the client saw."""
    client = desk.connect(web)
    pieces, seen = script(), b""
    servers: dict[socket.socket, tuple[bytes, bytes]] = {}  # what each was asked, and what it has still to say
    deadline = time.monotonic() + PATIENCE
    while True:
        assert time.monotonic() < deadline, f"stuck; the client saw {seen[:200]!r}, {desk.engine.describe_connections()}"
        if pieces:
            with contextlib.suppress(BlockingIOError):
                try:
                    sent = client.send(pieces[0])
                    pieces[0] = pieces[0][sent:]
                    if not pieces[0]:
                        pieces.pop(0)
                except (BrokenPipeError, ConnectionResetError):
                    pieces.clear()
        select.select([desk.engine.fileno()], [], [], 0 if pieces else 0.002)
        desk.turn()
        with contextlib.suppress(BlockingIOError):
            end, _ = origin.accept()
            end.setblocking(False)
            servers[end] = (b"", b"")
        for end in list(servers):
            got = read(end)
            if got is None:
                end.close()
                del servers[end]
                continue
            asked, due = servers[end]
            asked += got
            if TRAILER in asked:
                asked, due = asked.partition(TRAILER)[2], due + ANSWER
            elif asked.startswith(b"GET") and b"\r\n\r\n" in asked:
                asked, due = b"", due + OK
            if due:
                # As much as the kernel takes: the engine, which reads it, is moved by this very loop.
                with contextlib.suppress(OSError):
                    due = due[end.send(due) :]
            servers[end] = (asked, due)
        part = read(client)
        if part is None:
            break
        seen += part
    client.close()
    desk.sockets.remove(client)
    for end in servers:
        end.close()
    return seen


def hoard(held: list[OutProbe]) -> None:
    """Takes the blocks that are spare, so that the next exchange has to ask for each of its own."""
    for room, times in ((1, 40), (32_000, 12)):
        queue = OutProbe()
        for _ in range(times):
            queue.reserve(room, b"")
            queue.reserve(4064 if room == 1 else 32_736, b"")
        held.append(queue)


def serve(number: int, last: int, held: list[OutProbe]) -> bool:
    """A fresh engine whose allocations from `number` to `last` fail during its first exchange; False when it had no so many."""
    desk = Desk(blob_of(config("a")), log_format="json")
    web, origin = desk.listen(), desk.listening()
    desk.set_endpoints("a", origin)
    hoard(held)
    SHIM.failing_malloc_arm(ctypes.c_long(number), ctypes.c_long(last))
    try:
        play(desk, web, origin)
    except AssertionError as error:
        raise AssertionError(f"allocation {number} to {last}: {error}") from None
    counted = SHIM.failing_malloc_counted()
    SHIM.failing_malloc_arm(ctypes.c_long(0), ctypes.c_long(0))
    seen = play(desk, web, origin)
    assert seen.startswith(b"HTTP/1.1 200 OK") and CONTENT[:1600] in seen and seen.endswith(b"ok"), (number, last, seen[:300])
    desk.until(lambda: desk.engine.connections == 0)
    assert desk.scalar("downstream_requests_active") == 0 and desk.scalar("bugs") == 0
    row = desk.cluster("a")
    assert row is not None and row["active"] == 0, row
    assert all(each["active"] == each["waiting"] == each["dialing"] == 0 for each in row["endpoints"]), row
    desk.close()
    return bool(counted >= number)


def main() -> None:
    SHIM.failing_malloc_counted.restype = ctypes.c_long
    held: list[OutProbe] = []
    failed = 0
    for keeps_failing in (False, True):
        number = 1
        while serve(number, FOREVER if keeps_failing else number, held):
            number += 1
            failed += 1
    print(failed)


if __name__ == "__main__":
    main()
