"""Children of the benchmark: their CPU time is counted whole, and none outlives the run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from perf.children import Children, CpuTime, cpu_time, parse_stat, process_tree, resident_bytes, wait_until
from perf.machine import ROOT, Cores, find_tool, free_ports, missing_line

FAMILY = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
print(child.pid, flush=True)
child.wait()
"""
BURN = """
import os, sys, time
if os.fork():
    sys.stdin.read()
else:
    while time.process_time() < 0.3:
        pass
    print("burnt", flush=True)
    sys.stdin.read()
"""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_name_with_blanks_and_brackets() -> None:
    line = "42 (a) b (c)) S 7 42 42 0 -1 4194560 1 2 3 4 150 250 9 9 20 0 1 0 100 1 1"
    assert parse_stat(line) == (7, 150, 250)


def test_the_split_follows_the_ticks_and_the_sum_is_exact() -> None:
    before, after = CpuTime(1_000_000, 10, 10, frozenset({1})), CpuTime(5_000_000, 11, 13, frozenset({1}))
    assert after.since(before) == (1000.0, 3000.0)
    idle = CpuTime(1_500_000, 10, 10, frozenset({1}))
    assert idle.since(before) == (0.0, 500.0)


def test_cpu_time_counts_every_process_of_the_tree(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        assert len(process_tree(child.pid)) == 2
        used = cpu_time(child.pid)
        assert used.total_ns > 300_000_000 and len(used.pids) == 2
        assert resident_bytes(process_tree(child.pid)) > resident_bytes([child.pid]) > 1_000_000
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()


def test_leaving_ends_children_and_grandchildren(tmp_path: Path) -> None:
    with Children(tmp_path) as children:
        child = children.start([sys.executable, "-c", FAMILY], None, "family", answer=True)
        assert child.stdout is not None
        grandchild = int(child.stdout.readline())
        assert is_alive(grandchild)
        guard = children.guard.pid
    wait_until(lambda: not is_alive(grandchild) and not is_alive(guard), 10, "end of the family")
    assert child.returncode is not None


def test_the_guard_ends_them_when_the_benchmark_is_killed(tmp_path: Path) -> None:
    script = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from perf.children import Children
with Children(Path({str(tmp_path)!r})) as children:
    child = children.start([sys.executable, "-c", {FAMILY!r}], None, "family", answer=True)
    print(child.pid, child.stdout.readline().strip(), flush=True)
    child.wait()
"""
    bench = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert bench.stdout is not None
    pids = [int(pid) for pid in bench.stdout.readline().split()]
    assert len(pids) == 2 and all(is_alive(pid) for pid in pids)
    bench.kill()
    bench.communicate()
    wait_until(lambda: not any(is_alive(pid) for pid in pids), 10, "end of the family")


def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('x', flush=True); signal.pause()"
    with Children(tmp_path) as children:
        child = children.start([sys.executable, "-c", stubborn], None, "stubborn", answer=True)
        assert child.stdout is not None
        child.stdout.readline()
        children.stop(child, patience=0.05)
        assert not is_alive(child.pid)


def test_waiting_says_what_for() -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
        wait_until(lambda: False, 0.05, "answer")
    assert time.monotonic() - began < 5


def test_cores_are_shared_only_where_they_must_be() -> None:
    assert Cores.choose({0, 1}) == Cores(gateway=1, load=0, origin=0)
    assert Cores.choose({0, 1, 2, 3}) == Cores(gateway=3, load=0, origin=1)
    assert Cores.choose({0, 1, 2, 3}, 0) == Cores(gateway=0, load=1, origin=2)
    assert Cores.choose({5}) == Cores(gateway=5, load=5, origin=5)


def test_ports_are_free_and_different() -> None:
    assert len(set(free_ports(5))) == 5


def test_a_missing_tool_is_said_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAPROXY", "/opt/own/haproxy")
    assert find_tool("haproxy") == "/opt/own/haproxy"
    assert find_tool("no-such-tool-anywhere") is None
    assert "apt-get install haproxy" in missing_line("haproxy")
