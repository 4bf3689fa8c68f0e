"""How many workers `auto` means: the CPUs that this process may really use."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def quota(root: Path = CGROUP) -> float | None:
    """CPUs that the cgroup grants (v2, then v1); None without a limit."""
    try:
        text = (root / "cpu.max").read_text().split()
        if text and text[0] != "max":
            return int(text[0]) / int(text[1])
    except (OSError, ValueError, IndexError, ZeroDivisionError):
        pass
    try:
        allowed = int((root / "cpu" / "cpu.cfs_quota_us").read_text())
        period = int((root / "cpu" / "cpu.cfs_period_us").read_text())
        if allowed > 0 and period > 0:
            return allowed / period
    except (OSError, ValueError):
        pass
    return None


def granted_cpus(root: Path = CGROUP) -> int:
    """At least 1. A share of a CPU counts as one: half a worker does not exist, and two would only wait for each other."""
    available = len(os.sched_getaffinity(0))
    limit = quota(root)
    return max(1, available if limit is None else min(available, math.ceil(limit)))
