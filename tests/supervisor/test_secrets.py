"""A process that holds keys leaves no core file and lets nobody read its memory."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

CHECK = """
import json, os, resource
from gateway.supervisor.secrets import hold_keys
import ctypes
held = hold_keys()
hold_keys()
with open(f"/proc/self/fd/{os.memfd_create('x')}", "rb") as file:
    file.read()
dumpable = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
print(json.dumps({"held": held, "dumpable": dumpable, "core": resource.getrlimit(resource.RLIMIT_CORE)[0]}))
"""


@pytest.mark.parametrize("allowed", [False, True])
def test_no_dump_of_a_process_with_keys_unless_somebody_wants_one(allowed: bool) -> None:
    environment = {**os.environ, "ISTHMUS_CORE_DUMPS": "1" if allowed else ""}
    ended = subprocess.run([sys.executable, "-c", CHECK], env=environment, capture_output=True, text=True, check=True, timeout=60)
    facts: dict[str, Any] = json.loads(ended.stdout)
    assert facts["held"] is not allowed and facts["dumpable"] == int(allowed)
    assert allowed or facts["core"] == 0
