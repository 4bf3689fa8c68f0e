"""What a process does that holds private keys: from then on it leaves no core file and no other process reads its memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource

PR_SET_DUMPABLE = 4
MAY_DUMP = "ISTHMUS_CORE_DUMPS"
"""Environment variable; when it is 1, core files and debuggers are allowed, keys or not."""


def hold_keys() -> bool:
    """Called with the first key and then as often as one likes. False when the environment allows dumps, or the kernel refuses.

    A limit for core files alone would not do: where they are piped to a program, the kernel does not look at it.
    """
    if os.environ.get(MAY_DUMP) == "1":
        return False
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    return bool(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0)
