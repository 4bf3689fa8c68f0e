"""What runs for every request calls nothing of Python: no bytecode, no attribute by name, no new number, text or tuple.

`hot.txt` lists the functions. Their C, as Cython writes it with the release directives, is searched for calls of the interpreter;
counting references, list ends and object fields in C is no call.
"""

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CORE = ROOT / "gateway" / "_core"
HOT = [line.split("#")[0].strip() for line in (HERE / "hot.txt").read_text().splitlines() if line.split("#")[0].strip()]
MODULES = sorted({name.split(".")[0] for name in HOT})

# Calls that enter the interpreter or make an object that a C value would have done for. A prefix stands for its family.
CALLS = re.compile(
    r"\b(__Pyx_PyObject_(?:Fast)?Call\w*|PyObject_(?:Call|Vectorcall|GetAttr|SetAttr|GetItem|SetItem|RichCompare|IsTrue|GetIter)\w*"
    r"|__Pyx_PyObject_(?:GetAttr|SetAttr|GetItem|IsTrue|GetSlice|Format)\w*|__Pyx_Get(?:ModuleGlobalName|BuiltinName|Name|ItemInt|Attr)\w*"
    r"|__Pyx_(?:CallUnboundCMethod|Call|Import|ImportFrom|Raise|Iter\w*|UnpackItem|Generator)\w*|__Pyx_PyDict\w*|PyDict_\w+|PySet_\w+"
    r"|Py(?:Long|Float|Bool|Bytes|ByteArray|Unicode|Tuple|Slice)_(?:From|New|Pack|Format)\w*|__Pyx_PyLong_(?:From|As|to)\w*"
    r"|__Pyx_PyInt_(?:From|As)\w*|__Pyx_Py(?:Unicode|Bytes)_\w+|PyNumber_\w+|PySequence_\w+|PyIter_\w+)\("
)


def mangled(name: str) -> str:
    """gateway._core.buf.out_send is __pyx_f_7gateway_5_core_3buf_out_send."""
    *place, function = name.split(".")
    return "__pyx_f_" + "".join(f"{len(part)}{part}_" for part in ["gateway", "_core", *place]) + function


@cache
def sources_of(module: str) -> set[Path]:
    """The module and the headers that it cimports, and those that they do."""
    found: set[Path] = set()
    todo = [CORE / f"{module}.pyx", CORE / f"{module}.pxd"]
    while todo:
        path = todo.pop()
        if path in found or not path.exists():
            continue
        found.add(path)
        todo += [CORE / f"{name}.pxd" for name in re.findall(r"^from gateway\._core\.(\w+) cimport", path.read_text(), re.M)]
    return found


@cache
def c_of(module: str, place: Path) -> str:
    """The C of a module: that of the last build when it is of these sources, else written now."""
    built = ROOT / "build" / "release" / "cython" / "gateway" / "_core" / f"{module}.c"
    newest = max(path.stat().st_mtime for path in sources_of(module))
    if built.exists() and built.stat().st_mtime > newest:
        return built.read_text()
    out = place / f"{module}.c"
    code = (
        "import sys; sys.path.insert(0, 'tools'); from annotate import directives; given = directives();"
        "from Cython.Compiler.Main import CompilationOptions, compile;"
        f"compile('gateway/_core/{module}.pyx', CompilationOptions(output_file={str(out)!r}, compiler_directives=given))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "GW_BUILD": "release"}, check=True, timeout=120)
    return out.read_text()


def body_of(name: str, text: str) -> str:
    found = re.search(rf"^static [^;{{}}]*\b{mangled(name)}\([^;{{}}]*\) \{{\n(.*?)^\}}", text, re.M | re.S)
    assert found, f"{name} is not there: hot.txt names functions as MODULE.FUNCTION or MODULE.CLASS.METHOD"
    return re.sub(r"/\*.*?\*/", "", found[1], flags=re.S)


def calls_of(name: str, text: str) -> list[str]:
    return sorted(set(CALLS.findall(body_of(name, text))))


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("c")


def test_the_reader_of_this_test_reads(place: Path) -> None:
    """It finds what it looks for where it is."""
    text = c_of("explain", place)
    assert calls_of(
        "explain.text_of", "static PyObject *" + mangled("explain.text_of") + "(int a) {\n  x = PyLong_FromLong(1);\n}\n"
    )
    assert CALLS.search(text), "explain answers an operator, in Python objects"
    assert mangled("buf.out_send") == "__pyx_f_7gateway_5_core_3buf_out_send"


@pytest.mark.parametrize("name", HOT)
def test_what_runs_for_every_request_calls_nothing_of_python(name: str, place: Path) -> None:
    assert calls_of(name, c_of(name.split(".")[0], place)) == []


def test_the_list_has_each_function_once() -> None:
    assert len(HOT) == len(set(HOT)) and len(HOT) > 60
