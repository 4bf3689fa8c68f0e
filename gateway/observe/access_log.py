"""Writes batches of log lines to stdout or a file from a thread of its own: a slow disk or a blocked pipe never stops the loop.

The worker hands over what `Engine.take_log` gave it. The queue is bounded: when the writer cannot follow, whole batches are dropped
and their records counted. observe/logging uses the same writer for stderr.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import stat
import threading
import time
from collections.abc import Iterator
from typing import Final

log = logging.getLogger("gateway.observe.access_log")

MAX_QUEUED: Final = 8 << 20
"""Bytes that may wait for the writer."""
CLOSE_S: Final = 1.0
"""How long `close` waits for a writer that cannot write."""
PIPE_ATOMIC: Final = select.PIPE_BUF
"""A write to a pipe of at most this many bytes is never mixed with those of other processes."""
COMPLAIN_EVERY_S: Final = 60.0
STANDARD: Final = {"stdout": 1, "stderr": 2, "/dev/stdout": 1, "/dev/stderr": 2, "-": 1}


class _Order:
    """Something for the writer to do between two batches."""

    def __init__(self, verb: str) -> None:
        self.verb = verb
        self.done = threading.Event()


class LineWriter:
    """A thread that writes whole lines to a descriptor. `write` may be called from one thread at a time and never blocks.

    path: a file, which is created and appended to, or one of STANDARD. Raises OSError when the file cannot be opened.
    """

    def __init__(self, path: str, *, max_queued: int = MAX_QUEUED, name: str = "log-writer", may_complain: bool = True) -> None:
        self.path = path
        self._standard = STANDARD.get(path)
        self._fd = self._open() if self._standard is None else self._standard
        self._max_queued = max_queued
        self._may_complain = may_complain
        self._next_complaint = 0.0
        self._queue: queue.SimpleQueue[bytes | _Order] = queue.SimpleQueue()
        # Each of these has one writing thread, so none needs a lock: the first two belong to the caller, the rest to the thread.
        self._taken_in = 0
        self._refused = 0
        self._given_out = 0
        self._lost = 0
        self._is_torn = False
        self._give_up_at: float | None = None
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def write(self, batch: bytes) -> None:
        """Queues whole lines, or drops them when too much is queued already."""
        if not batch:
            return
        if self._is_closed or self._taken_in - self._given_out + len(batch) > self._max_queued:
            self._refused += batch.count(b"\n")
            return
        self._taken_in += len(batch)
        self._queue.put(batch)

    @property
    def dropped(self) -> int:
        """Lines lost so far: refused because the queue was full, or not written because of an error."""
        return self._refused + self._lost

    def reopen(self) -> None:
        """Opens the file again by its name, after what is queued now was written: the old one may have been moved away."""
        if self._standard is None:
            self._queue.put(_Order("reopen"))

    def flush(self, timeout: float = CLOSE_S) -> bool:
        """Waits until everything queued so far was written; False when it took too long. Not for the loop."""
        order = _Order("flush")
        self._queue.put(order)
        return order.done.wait(timeout)

    def close(self, timeout: float = CLOSE_S) -> None:
        """Writes what is queued, for this long at most, and ends the thread."""
        if self._is_closed:
            return
        self._is_closed = True
        self._give_up_at = time.monotonic() + timeout
        self._queue.put(_Order("close"))
        self._thread.join(timeout)

    # ---- the thread ----

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            if isinstance(item, bytes):
                self._write_all(item)
                self._given_out += len(item)
                continue
            if item.verb == "reopen":
                self._reopen()
            elif item.verb == "close":
                if self._standard is None:
                    os.close(self._fd)
                item.done.set()
                return
            item.done.set()

    def _open(self) -> int:
        # O_NONBLOCK: opening a FIFO that nobody reads must fail and not hang; it does nothing to a regular file.
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK, 0o640)

    def _reopen(self) -> None:
        try:
            fd = self._open()
        except OSError as error:
            self._complain("cannot reopen %s, the old file stays in use: %s", error)
            return
        os.close(self._fd)
        self._fd = fd
        self._is_torn = False

    def _write_all(self, batch: bytes) -> None:
        # When the end of a line was lost with an error, what follows must not be glued to its beginning.
        if self._is_torn and self._write_piece(memoryview(b"\n")):
            self._lost += batch.count(b"\n")
            return
        for piece in self._pieces(batch):
            self._lost += bytes(self._write_piece(piece)).count(b"\n")

    def _write_piece(self, piece: memoryview) -> memoryview:
        """Writes it, and answers what could not be written."""
        while piece:
            try:
                piece = piece[os.write(self._fd, piece) :]
                self._is_torn = bool(piece)
            except BlockingIOError:
                if not self._wait():
                    break
            except OSError as error:
                self._complain("cannot write to %s, records are lost: %s", error)
                break
        return piece

    def _pieces(self, batch: bytes) -> Iterator[memoryview]:
        view = memoryview(batch)
        mode = os.fstat(self._fd).st_mode
        if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
            yield view
            return
        # Workers share one pipe: pieces that end with a line and are written at once keep their lines apart.
        start = 0
        while start < len(batch):
            end = batch.rfind(b"\n", start, start + PIPE_ATOMIC) + 1
            if end == 0:
                end = batch.find(b"\n", start) + 1 or len(batch)
            yield view[start:end]
            start = end

    def _wait(self) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        while self._give_up_at is None or time.monotonic() < self._give_up_at:
            if poll.poll(100):
                return True
        return False

    def _complain(self, text: str, error: OSError) -> None:
        now = time.monotonic()
        if self._may_complain and now >= self._next_complaint:
            self._next_complaint = now + COMPLAIN_EVERY_S
            log.error(text, self.path, error.strerror)


class AccessLog(LineWriter):
    """The access log of one worker. path: "stdout" or a file."""

    def __init__(self, path: str, *, max_queued: int = MAX_QUEUED) -> None:
        super().__init__(path, max_queued=max_queued, name="access-log")
