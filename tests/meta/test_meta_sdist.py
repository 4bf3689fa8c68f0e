"""The source distribution carries everything that builds, tests and explains the project."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# What only a checkout has a use for.
LEFT_OUT = {".ci/run", ".dockerignore", ".gitignore"}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout: nothing says which files belong to the project")
def test_every_file_of_the_project_is_in_the_sdist(tmp_path: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tracked = {name for name in listed.split("\0") if name and (ROOT / name).exists()}
    subprocess.run(
        [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(tmp_path), "sdist", "--dist-dir", str(tmp_path)],
        cwd=ROOT, env={**os.environ, "GW_ONLY": "none"}, check=True, capture_output=True,
    )  # fmt: skip
    (path,) = tmp_path.glob("isthmus-*.tar.gz")
    with tarfile.open(path) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert tracked - packed == LEFT_OUT
    assert not [name for name in packed if name.endswith((".so", ".pyc", ".o")) or name.startswith(("build/", ".venv/"))]
