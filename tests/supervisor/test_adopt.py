"""Process 1 takes note of the end of children that were not its own."""

import os
import subprocess
import sys
from pathlib import Path

ENV = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
# In a process of its own: a look at all children would see those of other tests.
STORY = """
import os, sys
from gateway.supervisor.adopt import Adopted

adopted = Adopted()
assert adopted.look() == 0
pids = []
for _ in range(2):
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    pids.append(pid)
taken = []
for _ in range(2):
    assert adopted.look() == 0, "somebody else may still want it"
    taken.append(adopted.look())
assert sorted(taken) == sorted(pids), (taken, pids)
pid = os.fork()
if pid == 0:
    os._exit(7)
os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
assert adopted.look() == 0
assert os.waitpid(pid, 0)[1] >> 8 == 7, "the loop's own child was left to it"
assert adopted.look() == 0
"""


def test_a_child_that_nobody_waits_for_goes_at_the_second_look_and_not_at_the_first() -> None:
    ended = subprocess.run([sys.executable, "-c", STORY], capture_output=True, text=True, env=ENV)
    assert ended.returncode == 0, ended.stderr


def test_without_children_there_is_nothing_to_do() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "from gateway.supervisor.adopt import Adopted; print(Adopted().look())"],
        capture_output=True, text=True, env=ENV,
    )  # fmt: skip
    assert ended.stdout == "0\n", ended.stderr
