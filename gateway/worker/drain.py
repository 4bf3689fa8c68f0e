"""How a worker leaves: it turns new connections away, says Connection: close, waits for its connections, and in the end cuts them.

Closing a listening socket resets every connection that the kernel has completed, or is about to, and that nobody has accepted. So
the socket first stops answering to new ones (their clients ask again a second later and find whoever listens then: the successor
that shares the port), what was under way arrives and is accepted, and then it closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Sequence
from typing import Protocol

POLL_S = 0.02
SETTLE_S = 0.05
"""How long a connection that is being made when the end begins may take until it is complete."""

SO_ATTACH_FILTER = 26
# What a segment has to pass: load byte 13 of the TCP header, the flags; with SYN among them drop it, otherwise let it through.
FILTER = (
    (0x30, 0, 0, 13),
    (0x45, 0, 1, 0x02),
    (0x06, 0, 0, 0),
    (0x06, 0, 0, 0xFFFFFFFF),
)


class Drainable(Protocol):
    """The part of the engine that leaving needs."""

    @property
    def connections(self) -> int: ...
    def drain(self, deadline_ms: int) -> None: ...


class Leaving:
    """One drain. A later call with a nearer deadline hastens it; a farther one changes nothing."""

    def __init__(self, engine: Drainable) -> None:
        self._engine = engine
        self._deadline = float("inf")
        self.has_begun = False

    def begin(self, deadline_ms: int, listening: Sequence[int]) -> None:
        """listening: descriptors of the ports, which the caller closes after `settled`."""
        deadline = time.monotonic() + deadline_ms / 1000
        if deadline >= self._deadline:
            return
        self._deadline = deadline
        self._engine.drain(deadline_ms)
        if self.has_begun:
            return
        self.has_begun = True
        for fd in listening:
            turn_away(fd)

    async def settled(self) -> None:
        """Waits until no connection is half made."""
        await asyncio.sleep(max(0.0, min(SETTLE_S, self._deadline - time.monotonic())))

    async def finished(self) -> int:
        """Waits until the last connection is gone, or the deadline; the number of connections left for the hard close."""
        while self._engine.connections and time.monotonic() < self._deadline:
            await asyncio.sleep(POLL_S)
        return self._engine.connections


def turn_away(fd: int) -> None:
    """Makes a listening TCP socket ignore new connections; those that are being made go on. A socket that cannot stays as it is."""
    import ctypes  # half a megabyte that a worker has no use for before its end

    code = b"".join(struct.pack("HBBI", *step) for step in FILTER)
    held = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HP", len(FILTER), ctypes.addressof(held))
    with contextlib.suppress(OSError), socket.socket(fileno=fd) as sock:
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
        finally:
            sock.detach()
