"""Room for descriptors, made once at start.

The kernel doubles a process's table of descriptors when the highest number outgrows it. In a process with threads each such
doubling waits for an RCU grace period, which was measured to hold a worker for 10 to 30 ms in the middle of a turn. The table never
shrinks, so it is made large once, before the first thread and the first client.
"""

from __future__ import annotations

import os
import resource

MOST = 1 << 17  # one MiB of kernel memory; a worker with more descriptors pays for the next doubling


def make_room(most: int = MOST) -> int:
    """Widens the table to the limit of this process, or to `most`; answers how many descriptors have room now."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = most if soft == resource.RLIM_INFINITY else min(soft, most)
    try:
        fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        os.dup2(fd, room - 1, inheritable=False)
        os.close(room - 1)
    except OSError:
        return 0
    finally:
        os.close(fd)
    return room
