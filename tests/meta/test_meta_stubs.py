"""The stubs say what the compiled modules are: mypy's stubtest compares each .pyi of the core with the module that was built."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
STUBS = sorted((ROOT / "gateway" / "_core").glob("*.pyi"))


def stubtest(tmp_path: Path, *modules: str, place: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mypy.stubtest", "--concise", "--ignore-unused-allowlist", "--ignore-disjoint-bases"]
    command += ["--allowlist", str(HERE / "stubs_allowed.txt"), *modules]
    paths = {"PYTHONPATH": str(place), "MYPYPATH": str(place), "MYPY_CACHE_DIR": str(tmp_path / "cache")}
    return subprocess.run(
        command, cwd=tmp_path, env={**os.environ, **paths}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120
    )


def test_every_stub_agrees_with_its_module(tmp_path: Path) -> None:
    assert len(STUBS) > 8
    seen = stubtest(tmp_path, *(f"gateway._core.{path.stem}" for path in STUBS))
    assert seen.returncode == 0, seen.stdout


def test_a_stub_that_lies_is_found(tmp_path: Path) -> None:
    (tmp_path / "given.py").write_text("def f(a): ...\n")
    (tmp_path / "given.pyi").write_text("def f(a: int, b: int) -> None: ...\ndef g() -> None: ...\n")
    seen = stubtest(tmp_path, "given", place=tmp_path)
    assert seen.returncode == 1 and "given.f" in seen.stdout and "given.g" in seen.stdout
