"""Child processes that cannot outlive the benchmark, and what /proc says about them.

Three nets, each for what slips through the one before: `Children` stops what it started when it is left; the kernel kills a
direct child when this process dies (PR_SET_PDEATHSIG); a small guard process kills the groups of children when its pipe closes,
which reaches the workers of a supervisor too. Only process groups started here are ever signalled.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)
GUARD = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
groups = set()
for line in sys.stdin:
    sign, group = line[0], int(line[1:])
    groups.add(group) if sign == "+" else groups.discard(group)
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
"""


@dataclass(frozen=True, slots=True)
class CpuTime:
    """CPU time of a tree of processes so far. The kernel knows the total to the nanosecond, its split only by sampling ticks."""

    total_ns: int
    user_ticks: int
    system_ticks: int
    pids: frozenset[int]

    def since(self, earlier: "CpuTime") -> tuple[float, float]:
        """User and system microseconds between two readings."""
        total = (self.total_ns - earlier.total_ns) / 1000
        user, system = self.user_ticks - earlier.user_ticks, self.system_ticks - earlier.system_ticks
        share = user / (user + system) if user + system else 0.0
        return total * share, total * (1 - share)


def parse_stat(text: str) -> tuple[int, int, int]:
    """Parent, user ticks and system ticks from /proc/PID/stat; the name in it may hold blanks and brackets."""
    fields = text[text.rindex(")") + 2 :].split()
    return int(fields[1]), int(fields[11]), int(fields[12])


def process_tree(root: int) -> list[int]:
    """The process and all its descendants."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = parse_stat((entry / "stat").read_text())[0]
            except OSError:
                continue
    tree = [root]
    for pid in tree:
        tree.extend(child for child, parent in parents.items() if parent == pid)
    return tree


def cpu_time(root: int) -> CpuTime:
    total = user = system = 0
    pids = process_tree(root)
    for pid in pids:
        _, ticks_user, ticks_system = parse_stat(Path(f"/proc/{pid}/stat").read_text())
        user += ticks_user
        system += ticks_system
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return CpuTime(total, user, system, frozenset(pids))


def resident_bytes(pids: Sequence[int]) -> int:
    """Resident memory of these processes, added up."""
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") for pid in pids)


def tie_to_parent(core: int | None) -> None:
    """Runs in a fresh child: dies with its parent, runs on one core."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if core is not None:
        os.sched_setaffinity(0, {core})


class Children:
    """Starts processes in groups of their own and ends all of them when it is left."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.started: list[subprocess.Popen[str]] = []
        self.guard = subprocess.Popen([sys.executable, "-c", GUARD], stdin=subprocess.PIPE, text=True, process_group=0)

    def __enter__(self) -> "Children":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for child in reversed(self.started[:]):
            self.stop(child)
        assert self.guard.stdin is not None
        self.guard.stdin.close()
        self.guard.wait(10)

    def tell_guard(self, sign: str, group: int) -> None:
        assert self.guard.stdin is not None
        self.guard.stdin.write(f"{sign}{group}\n")
        self.guard.stdin.flush()

    def start(
        self, argv: Sequence[str], core: int | None, name: str, *, answer: bool = False, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Starts a process whose errors (and output, unless it is to be read) go to a file of this name."""
        log: IO[str]
        with (self.run / f"{name}.out").open("a") as log:
            child = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if answer else log,
                stderr=log,
                text=True,
                env=env,
                process_group=0,  # not a session: the scheduler groups by session, and all that is measured belongs into one
                preexec_fn=lambda: tie_to_parent(core),
            )
        self.tell_guard("+", child.pid)
        self.started.append(child)
        return child

    def finish(self, child: subprocess.Popen[str], timeout: float) -> str:
        """Waits for a child that ends by itself; returns what it printed."""
        try:
            out, _ = child.communicate(timeout=timeout)
        finally:
            self.stop(child)
        return out or ""

    def stop(self, child: subprocess.Popen[str], patience: float = 5) -> None:
        """Ends the child, gently at first, and whatever is left of its group."""
        if child not in self.started:
            return
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(patience)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait(5)
        with suppress(OSError):
            os.killpg(child.pid, signal.SIGKILL)
        if child.stdout is not None:
            child.stdout.close()
        self.started.remove(child)
        self.tell_guard("-", child.pid)


def wait_until(is_true: Callable[[], bool], seconds: float, what: str) -> None:
    """Polls a condition; TimeoutError says what was waited for."""
    deadline = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {what} within {seconds:g} s")
        time.sleep(0.01)
