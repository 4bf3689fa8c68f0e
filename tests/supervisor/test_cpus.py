"""How many workers `auto` means."""

import os
from pathlib import Path

import pytest

from gateway.supervisor.cpus import granted_cpus, quota


@pytest.mark.parametrize(("text", "expected"), [("max 100000", None), ("150000 100000", 1.5), ("50000 100000\n", 0.5), ("", None)])
def test_the_quota_of_a_v2_group(tmp_path: Path, text: str, expected: float | None) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert quota(tmp_path) == expected


def test_the_quota_of_a_v1_group(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("200000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert quota(tmp_path) == 2.0
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert quota(tmp_path) is None


def test_a_share_of_a_cpu_is_one_worker_and_nobody_gets_more_than_there_are(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("10000 100000")
    assert granted_cpus(tmp_path) == 1
    (tmp_path / "cpu.max").write_text("9900000 100000")
    assert granted_cpus(tmp_path) == len(os.sched_getaffinity(0))
    assert granted_cpus(tmp_path / "none") == len(os.sched_getaffinity(0))
