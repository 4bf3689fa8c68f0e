"""Rules about how the core is written, read from its sources."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

CORE = Path(__file__).resolve().parents[2] / "gateway" / "_core"
HEADERS = sorted(CORE.glob("*.pxd"))
SOURCES = sorted([*CORE.glob("*.pyx"), *HEADERS])
# Modules that no request passes through: they answer an operator or a test.
BESIDE_THE_PATH = {"explain.pyx", "h2probe.pyx", "h2test.pyx", "pathtest.pyx", "selftest.pyx"}
OBJECTS = {"object", "bytes", "bytearray", "str", "list", "dict", "tuple", "set", "frozenset", "type", "memoryview"}


def cdef_classes() -> set[str]:
    return {found for path in SOURCES for found in re.findall(r"^cdef class (\w+)", path.read_text(), re.M)}


def without_comments(text: str) -> str:
    """The code alone: comments, docstrings and what stands in strings are gone, line breaks stay."""
    text = re.sub(r'"""(.*?)"""|\'\'\'(.*?)\'\'\'', lambda m: "\n" * m.group(0).count("\n"), text, flags=re.S)
    text = re.sub(r"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'", '""', text)
    return re.sub(r"#.*", "", text)


def cdef_functions(text: str) -> Iterator[str]:
    """Heads of the C functions declared or defined in a text, each on one line; those of `cdef extern` blocks are left out."""
    code = without_comments(text)
    code = re.sub(r"^cdef extern from .*?(?=^\S)", "", code + "\nend\n", flags=re.S | re.M)
    for found in re.finditer(
        r"^[ \t]*(?:cdef|cpdef)\s+(?!class\b|struct\b|enum\b|union\b|packed\b|extern\b)([^\n=:]*?\()", code, re.M
    ):
        depth, i = 1, found.end()
        while depth and i < len(code):
            depth += {"(": 1, ")": -1}.get(code[i], 0)
            i += 1
        line_end = code.find("\n", i)
        head = code[found.start(1) : i] + code[i : line_end if line_end >= 0 else len(code)]
        if re.match(r"[^(]*\(\s*\*", head):
            continue  # a pointer to a function, not a function
        yield re.sub(r"\s+", " ", head).strip()


def returns_object(head: str, classes: set[str]) -> bool:
    before = re.sub(r"\b(inline|public|api|readonly)\b", "", head[: head.index("(")]).split()
    result = before[:-1]
    return not result or (result[-1] in OBJECTS | classes and "*" not in before[-1])


def test_the_reader_of_this_test_reads() -> None:
    text = """
cdef extern from "x.h":
    int outside(int a)
cdef int good(const uint8_t *p,
              size_t n) noexcept nogil
cdef inline bint bad(int a) nogil:
cdef object made()
cdef class Box:
    cdef int words[4]
    cdef void (*call)(int) noexcept
    @staticmethod
    cdef Box new(int a = f(1))
    cdef Box *raw(self)
    # cdef int commented(self)
"""
    heads = list(cdef_functions(text))
    assert [head.split("(")[0].split()[-1].lstrip("*") for head in heads] == ["good", "bad", "made", "new", "raw"]
    assert [returns_object(head, {"Box"}) for head in heads] == [False, False, True, True, False]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_cdef_says_what_becomes_of_exceptions(path: Path) -> None:
    """noexcept, except VALUE, or an object as the result; `except *` makes every caller ask and is banned."""
    classes, wrong = cdef_classes(), []
    for head in cdef_functions(path.read_text()):
        after = head[head.rindex(")") :]
        says = re.search(r"\b(noexcept|except)\b", after) or returns_object(head, classes)
        if not says or re.search(r"\bexcept\s*\*", after):
            wrong.append(head)
    assert not wrong


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_directives_stand_in_setup_alone(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"^\s*#\s*(cython|distutils)\s*:", text, re.M)
    code = without_comments(text)
    assert not re.search(r"^\s*(DEF|IF)\s", code, re.M), "constants are cdef enums"
    assert not re.search(r"^\s*include\s", code, re.M), "modules are cimported"
    given = re.findall(r"@cython\.(\w+)|\bcython\.(boundscheck|wraparound|cdivision|initializedcheck|nonecheck)\b", code)
    allowed = {"final", "freelist", "no_gc", "no_gc_clear", "internal", "auto_pickle", "total_ordering"}
    assert {first or second for first, second in given} <= allowed


@pytest.mark.parametrize("path", HEADERS, ids=lambda path: path.name)
def test_a_header_says_what_it_owns_and_who_calls_it(path: Path) -> None:
    head = re.match(r"((?:#[^\n]*\n)+)", path.read_text())
    assert head, "a .pxd begins with a block that says what it is"
    first = head.group(1).splitlines()[0]
    assert re.match(rf"# {path.name} - level \d+: ", first), first
    assert re.search(r"\b(Owns|owns|Called by)\b", head.group(1)), "say what it owns or who calls it"


@pytest.mark.parametrize("path", HEADERS, ids=lambda path: path.name)
def test_a_header_and_the_table_agree_on_the_level(path: Path) -> None:
    table = (CORE.parents[1] / "ARCHITECTURE.md").read_text()
    rows = {
        module.strip(): level for level, row in re.findall(r"^\| (\d+) \| ([\w, ]+) \|", table, re.M) for module in row.split(",")
    }
    said = re.match(r"# [\w.]+ - level (\d+): ", path.read_text())
    assert said and rows.get(path.stem) == said.group(1)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_names_that_say_nothing_are_no_type_names(path: Path) -> None:
    banned = r"(Context|Manager|Handler|Helper|Util|Utils|Data|Info|Peer|Remote)"
    code = without_comments(path.read_text())
    assert not re.findall(rf"^\s*(?:cdef |ctypedef )?(?:class|struct|enum)\s+(?:\w*[a-z])?{banned}\b", code, re.M)


def test_every_module_that_python_calls_has_a_stub() -> None:
    """A .pyx with a public `def` or class for Python has a hand-written .pyi beside it."""
    lacking = []
    for path in sorted(CORE.glob("*.pyx")):
        if re.search(r"^def [a-z]", without_comments(path.read_text()), re.M) and not path.with_suffix(".pyi").exists():
            lacking.append(path.name)
    assert not lacking


def test_bytes_of_clients_are_never_handled_by_python_methods() -> None:
    """int(), strip(), lower(), splitlines() accept what HTTP does not; the core has functions of its own for each."""
    wrong = []
    for path in sorted(path for path in CORE.glob("*.pyx") if path.name not in BESIDE_THE_PATH):
        for call in re.findall(r"\.(?:strip|lower|upper|splitlines|isdigit)\(", without_comments(path.read_text())):
            wrong.append(f"{path.name}: {call}")
    assert not wrong
