"""As process 1 of a container: children that were not ours end as ours, and somebody has to take note of their end."""

from __future__ import annotations

import contextlib
import os


class Adopted:
    """Takes away adopted children that have ended, and never one that the event loop waits for.

    The loop takes its own children as soon as they end. One that still lies there at the next look is nobody's.
    """

    def __init__(self) -> None:
        self._seen = 0

    def look(self) -> int:
        """Called now and then; the pid that was taken away, or 0."""
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            found = None
        pid = found.si_pid if found is not None else 0
        if not pid or pid != self._seen:
            self._seen = pid
            return 0
        self._seen = 0
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        return pid
