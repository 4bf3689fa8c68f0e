"""The table of descriptors is wide before the first client comes."""

import subprocess
import sys

SCRIPT = """
import os, resource
from gateway.worker.descriptors import make_room
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
before = sorted(os.listdir("/proc/self/fd"))
room = make_room({most})
status = open("/proc/self/status").read()
size = int(status.partition("FDSize:")[2].split()[0])
print(room, size, sorted(os.listdir("/proc/self/fd")) == before)
"""


def widened(soft: int, most: int) -> tuple[int, int, bool]:
    out = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(soft=soft, most=most)], capture_output=True, text=True, check=True, timeout=60
    ).stdout.split()
    return int(out[0]), int(out[1]), out[2] == "True"


def test_the_table_has_room_up_to_the_limit_and_nothing_stays_open() -> None:
    room, size, same = widened(soft=1000, most=1 << 17)
    assert room == 1000 and size >= 1000 and same


def test_a_very_high_limit_costs_no_more_than_the_most() -> None:
    room, size, same = widened(soft=1000, most=500)
    assert room == 500 and 500 <= size < 1000 and same
