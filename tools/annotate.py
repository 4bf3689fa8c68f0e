"""`make annotate`: Cython's annotated HTML of the core under build/annotate, with the release directives of setup.py.

Yellow lines touch Python objects; the table counts them. Per-byte code is `nogil`, which the compiler keeps free of them; what
is left shows where code that runs by connection or by swap talks to Python.
"""

import os
import re
import runpy
import sys
from pathlib import Path
from typing import Any

from Cython.Build import cythonize
from setuptools import Extension

ROOT = Path(__file__).resolve().parent.parent
OUT = Path("build/annotate")


def directives() -> dict[str, Any]:
    """The directives stand in setup.py alone; it is run with no module to build and asked for nothing."""
    os.environ.update(GW_BUILD="release", GW_ONLY="none")
    argv, sys.argv = sys.argv, ["setup.py", "-q", "--version"]
    out, sys.stdout = sys.stdout, open(os.devnull, "w")  # noqa: SIM115
    try:
        found = runpy.run_path("setup.py")["DIRECTIVES"]
        assert isinstance(found, dict)
        return found
    finally:
        sys.stdout.close()
        sys.argv, sys.stdout = argv, out


def scores(page: str) -> list[int]:
    """Cython's score of each line: 0 is plain C."""
    return [int(score) for score in re.findall(r'class="cython line score-(\d+)"', page)]


def main() -> None:
    os.chdir(ROOT)
    only = set(sys.argv[1:])
    sources = [path for path in sorted(Path("gateway/_core").glob("*.pyx")) if not only or path.stem in only]
    modules = [Extension(f"gateway._core.{path.stem}", [str(path)], include_dirs=["gateway/_core"]) for path in sources]
    cythonize(modules, build_dir=str(OUT), compiler_directives=directives(), annotate=True, force=True, quiet=True)
    print(f"{'module':<16} {'lines':>6} {'touching Python':>16}   page")
    for path in sources:
        page = OUT / path.with_suffix(".html")
        each = scores(page.read_text())
        print(f"{path.stem:<16} {len(each):>6} {sum(score > 0 for score in each):>16}   {page}")


if __name__ == "__main__":
    main()
