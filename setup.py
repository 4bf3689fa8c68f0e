"""Build of the compiled core: extensions, Cython directives and build modes. Everything else is in pyproject.toml.

GW_BUILD selects the mode: release (default), debug, trace, sanitize, fuzz. GW_ONLY=name,name limits the build to some modules.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from Cython.Compiler import Options
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
CORE = Path("gateway/_core")
MODE = os.environ.get("GW_BUILD", "release")
ONLY = {name for name in os.environ.get("GW_ONLY", "").split(",") if name}

# Python headers are not written for -Wconversion or -Wextra; the list below is what generated code keeps clean.
WARNINGS = ["-Wall", "-Werror", "-Wno-unused-function", "-Wno-unreachable-code-fallthrough", "-Wno-unknown-warning-option"]
SANITIZE = ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
C_FLAGS = {
    "release": ["-O2", "-g0", "-fno-strict-aliasing", "-fno-semantic-interposition", "-fno-plt"],
    "debug": ["-O1", "-g", "-fno-strict-aliasing"],
    "trace": ["-O1", "-g", "-fno-strict-aliasing"],
    "sanitize": [*SANITIZE, "-fno-strict-aliasing"],
    "fuzz": ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined,fuzzer-no-link", "-fno-strict-aliasing"],
}
LINK_FLAGS = {"sanitize": ["-fsanitize=address,undefined"], "fuzz": ["-fsanitize=address,undefined"]}
MACROS = {
    "release": [("CYTHON_WITHOUT_ASSERTIONS", "1")],
    "debug": [("GW_DEBUG", "1")],
    "trace": [("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")],
    # Free-lists hide a use after free from the sanitizer.
    "sanitize": [("CYTHON_USE_FREELISTS", "0"), ("GW_DEBUG", "1")],
    "fuzz": [("CYTHON_USE_FREELISTS", "0"), ("GW_DEBUG", "1")],
}
if MODE not in C_FLAGS:
    raise SystemExit(f"GW_BUILD={MODE}: unknown build mode; one of {', '.join(C_FLAGS)}")
CHECKED = MODE in ("debug", "sanitize", "fuzz")

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": CHECKED,
    "wraparound": False,
    "initializedcheck": CHECKED,
    "nonecheck": False,
    "cdivision": True,
    "auto_pickle": False,
    "embedsignature": True,
    "linetrace": MODE == "trace",
    # Not warn.undeclared, which takes every Python name and class of a module for an undeclared variable, and not
    # warn.unused_result, which takes a counter of nested loops, an "except ... as" and a variable read through & for unused.
    "warn.unused": True,
    "warn.maybe_uninitialized": True,
    "warn.unreachable": True,
    "warn.multiple_declarators": True,
    "warn.deprecated.DEF": True,
    "warn.deprecated.IF": True,
}
Options.warning_errors = True


class BuildExt(build_ext):
    """Keeps the objects of each mode apart, so that switching modes never links a stale one."""

    def initialize_options(self):
        super().initialize_options()
        self.build_temp = f"build/{MODE}/obj"
        self.parallel = int(os.environ.get("GW_JOBS", os.cpu_count() or 1))

    def finalize_options(self):
        super().finalize_options()
        if not self.inplace:
            return
        # What is built in place is copied out of build_lib, and only where it is newer: modules of another mode, in either
        # place, would count as up to date.
        if MODE != "release":
            self.build_lib = f"build/{MODE}/lib"
        last = Path("build/mode")
        if (last.read_text() if last.exists() else "release") != MODE:
            for module in CORE.glob("*.so"):
                module.unlink()
        last.parent.mkdir(exist_ok=True)
        last.write_text(MODE)


def extensions():
    for source in sorted(CORE.glob("*.pyx")):
        if ONLY and source.stem not in ONLY:
            continue
        yield Extension(
            f"gateway._core.{source.stem}",
            [str(source)],
            depends=[str(header) for header in sorted(CORE.glob("*.h"))],
            include_dirs=[str(CORE)],
            define_macros=MACROS[MODE],
            extra_compile_args=C_FLAGS[MODE] + WARNINGS,
            extra_link_args=LINK_FLAGS.get(MODE, []),
        )


os.chdir(ROOT)
setup(
    ext_modules=cythonize(
        list(extensions()),
        build_dir=f"build/{MODE}/cython",
        compiler_directives=DIRECTIVES,
        annotate=MODE == "debug",
        emit_linenums=MODE in ("sanitize", "fuzz"),
        nthreads=int(os.environ.get("GW_JOBS", os.cpu_count() or 1)),
        quiet=True,
    ),
    cmdclass={"build_ext": BuildExt},
)
