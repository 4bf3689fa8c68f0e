"""Under `make sanitize` a read of one byte too many is reported: else an instrumented run that is blind would look green."""

import os
import subprocess
import sys

import pytest

INSTRUMENTED = "GW_SANITIZE" in os.environ


@pytest.mark.skipif(not INSTRUMENTED, reason="only in the instrumented build")
@pytest.mark.parametrize("size", [1, 7, 8, 100])
def test_one_byte_too_many_is_reported(size: int) -> None:
    code = f"from gateway._core.selftest import read_past; read_past(b'x' * {size})"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode != 0
    assert "heap-buffer-overflow" in ended.stderr


@pytest.mark.skipif(INSTRUMENTED, reason="the instrumented build is meant to crash")
def test_the_entry_is_closed_in_other_builds() -> None:
    from gateway._core.selftest import read_past

    with pytest.raises(RuntimeError, match="instrumented"):
        read_past(b"x")
