"""Sealed memory files: the snapshot that every worker maps, the counters that a worker slot writes, what workers share."""

from __future__ import annotations

import fcntl
import mmap
import os

SEALS_SIZE = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
SEALS_ALL = SEALS_SIZE | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def sealed_file(blob: bytes, name: str = "isthmus-snapshot") -> int:
    """A memory file with these bytes that nobody can change any more. The caller owns the descriptor."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(blob)
        while view:
            view = view[os.write(fd, view) :]
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS_ALL)
    except BaseException:
        os.close(fd)
        raise
    return fd


def shared_file(size: int, name: str) -> int:
    """A memory file of so many zeros that others may write to. The caller owns the descriptor."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        # A file that can shrink would be a SIGBUS for whoever reads it.
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS_SIZE)
    except BaseException:
        os.close(fd)
        raise
    return fd


class Block:
    """Shared memory of one worker slot. It outlives the worker, so that a counter never goes back when one is replaced."""

    def __init__(self, slot: int, size: int) -> None:
        self.fd = shared_file(size, f"isthmus-counters-{slot}")
        self.map = mmap.mmap(self.fd, size)

    def close(self) -> None:
        self.map.close()
        os.close(self.fd)
