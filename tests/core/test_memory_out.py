"""Memory that runs out in the middle of an exchange, at each allocation of the core in turn, once and for good."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIB = ROOT / "tests" / "lib"
COMPILER = shutil.which("cc") or shutil.which("gcc")


@pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")
@pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="the sanitizer has its own malloc")
def test_every_allocation_may_fail(tmp_path: Path) -> None:
    """The client gets an answer or a closed connection, never silence; the engine serves on, and nothing is left behind."""
    shim = tmp_path / "failing_malloc.so"
    assert COMPILER is not None
    subprocess.run(
        [COMPILER, "-shared", "-fPIC", "-O1", "-fno-builtin", "-o", str(shim), str(LIB / "failing_malloc.c"), "-ldl"], check=True
    )
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(LIB)]), "LD_PRELOAD": str(shim)}
    child = subprocess.run(
        [sys.executable, str(LIB / "memory_out.py")], env={**os.environ, **paths}, capture_output=True, text=True, timeout=200
    )
    assert child.returncode == 0, child.stderr[-4000:]
    assert int(child.stdout) > 20, "the allocations of an exchange"
    assert "Exception ignored" not in child.stderr
