"""Rules about where things stand: sizes, who imports whom, the levels of the core, pages that name files."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GATEWAY = ROOT / "gateway"
CORE = GATEWAY / "_core"
MOST_LINES = 900

# What a package of the house may import of the house, itself always included. What is not listed here may import nothing of it.
MAY_IMPORT = {
    "_core": set(),
    "model": set(),
    "sources": {"model"},
    "observe": {"_core", "model"},
    "filters": {"_core", "model"},
    "control": {"_core", "model", "sources", "observe"},
    "worker": {"_core", "filters", "observe"},
    "supervisor": {"_core", "model", "sources", "control", "observe", "admin"},
    "admin": {"_core", "model", "control", "observe"},
    "cli": {"_core", "model", "sources", "control", "observe", "admin", "supervisor"},
}
# Modules that anyone may import although their package is not listed: vocabulary that two processes share, what both do with keys,
# and the contexts that a load tries before workers use them.
SHARED = {"gateway.supervisor.ipc", "gateway.supervisor.redis_url", "gateway.supervisor.secrets", "gateway.worker.contexts"}
# The control plane's libraries, which must not be loaded into a worker: a fresh one stays under 40 MB.
NOT_IN_A_WORKER = {"aiohttp", "typer", "rich", "kubernetes_asyncio", "yaml", "prometheus_client", "watchfiles", "msgspec.yaml"}


def sources(*suffixes: str) -> list[Path]:
    """Files that are written by hand: C that Cython wrote stands under build/ alone."""
    found = [path for path in ROOT.rglob("*") if path.suffix in suffixes]
    skipped = {"build", "dist", ".venv", ".git", "node_modules"}
    return sorted(path for path in found if not skipped & set(path.relative_to(ROOT).parts))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_name(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, *, at_load: bool = False) -> Iterator[str]:
    """Modules that a Python file imports: all, or only those that are loaded together with it."""

    def walk(nodes: list[ast.stmt]) -> Iterator[ast.stmt]:
        for node in nodes:
            if at_load and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                yield from walk(node.orelse) if at_load else walk(node.body + node.orelse)
                continue
            yield node
            for part in ("body", "orelse", "finalbody"):
                yield from walk(getattr(node, part, []))
            for handler in getattr(node, "handlers", []):
                yield from walk(handler.body)

    package = module_name(path).split(".") if path.name == "__init__.py" else module_name(path).split(".")[:-1]
    for node in walk(ast.parse(path.read_text()).body):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = (
                ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])
                if node.level
                else node.module
            )
            assert base is not None
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def test_no_file_is_longer_than_the_cap() -> None:
    """Past 900 lines a file is two files."""
    long = {
        name(path): n for path in sources(".py", ".pyx", ".pxd", ".c", ".h") if (n := path.read_text().count("\n")) > MOST_LINES
    }
    assert not long


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_packages_import_in_one_direction(package: str) -> None:
    allowed = MAY_IMPORT[package] | {package}
    wrong = []
    for path in sorted((GATEWAY / package).rglob("*.py")):
        for module in imports(path):
            parts = module.split(".")
            inside = parts[0] == "gateway" and len(parts) > 1 and (GATEWAY / parts[1]).is_dir()
            if inside and parts[1] not in allowed and ".".join(parts[:3]) not in SHARED:
                wrong.append(f"{name(path)} imports {module}")
    assert not wrong


def test_every_package_of_the_house_has_a_direction() -> None:
    packages = {path.parent.name for path in GATEWAY.glob("*/__init__.py")}
    assert packages <= set(MAY_IMPORT), "a new package: say in MAY_IMPORT what it may import"


def test_the_core_knows_nothing_of_the_house_outside_itself() -> None:
    wrong = []
    for path in sorted(CORE.glob("*.p[yx][xd]")):
        for module in re.findall(r"^\s*(?:from|cimport|import)\s+(gateway[\w.]*)", path.read_text(), re.M):
            if not module.startswith("gateway._core"):
                wrong.append(f"{name(path)} imports {module}")
    assert not wrong


def test_names_of_test_files_stand_once() -> None:
    """pytest imports them by their bare names."""
    names = sorted(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert names == sorted(set(names))


def test_what_the_house_imports_it_installs() -> None:
    """A library that only another one, or the machine, happened to bring would be missing at somebody's first start."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    # What the demo would like to have, and does without, is an extra.
    lines = project["dependencies"] + project["optional-dependencies"]["demo"]
    declared = {re.split(r"[<>=\[ ]", line)[0].lower() for line in lines}
    brought = metadata.packages_distributions()
    roots = {module.split(".")[0] for path in GATEWAY.rglob("*.py") for module in imports(path)}
    foreign = roots - set(sys.stdlib_module_names) - {"gateway", "__future__"}
    unsaid = {root for root in foreign if not {dist.lower().replace("_", "-") for dist in brought.get(root, [])} & declared}
    assert not unsaid


def files_of(module: str) -> list[Path]:
    """Files that are run when a module of the house is imported: those of its packages, then its own."""
    parts = module.split(".")
    found = []
    for i in range(1, len(parts) + 1):
        place = ROOT.joinpath(*parts[:i])
        found += [path for path in (place / "__init__.py", place.with_suffix(".py")) if path.is_file()]
    return found


def test_a_worker_loads_nothing_of_the_control_plane() -> None:
    """Everything that is loaded with any module of gateway/worker, followed through the house."""
    todo = sorted((GATEWAY / "worker").rglob("*.py"))
    seen: dict[Path, str] = {path: name(path) for path in todo}
    wrong = []
    while todo:
        path = todo.pop()
        for module in imports(path, at_load=True):
            if module in NOT_IN_A_WORKER or module.split(".")[0] in NOT_IN_A_WORKER:
                wrong.append(f"{seen[path]} -> {module}")
            if module.split(".")[0] != "gateway":
                continue
            for more in files_of(module):
                if more not in seen:
                    seen[more] = f"{seen[path]} -> {name(more)}"
                    todo.append(more)
    wrong += [
        chain
        for path, chain in seen.items()
        if path.relative_to(GATEWAY).parts[0] in ("sources", "control", "cli", "admin", "model")
    ]
    assert not wrong


# The levels of the core


def levels() -> dict[str, tuple[int, int]]:
    """Level and place in the row of each module, from the table in ARCHITECTURE.md."""
    table: dict[str, tuple[int, int]] = {}
    for level, row in re.findall(r"^\| (\d+) \| ([\w, ]+) \|", (ROOT / "ARCHITECTURE.md").read_text(), re.M):
        for place, module in enumerate(row.split(",")):
            assert module.strip() not in table, f"{module.strip()} stands twice in the table of levels"
            table[module.strip()] = (int(level), place)
    return table


def core_modules() -> set[str]:
    return {path.stem for path in CORE.glob("*.pyx")} | {path.stem for path in CORE.glob("*.pxd") if path.stem != "__init__"}


def test_every_module_of_the_core_has_a_level() -> None:
    assert core_modules() <= set(levels())


def test_the_core_cimports_downwards() -> None:
    """A module cimports lower levels, and of its own level what stands before it in the row, so that there is no cycle. `seam`,
    which holds the abstract classes, may be cimported by its whole level."""
    table, wrong = levels(), []
    for path in sorted(CORE.glob("*.p[yx][xd]")):
        text = path.read_text()
        found = re.findall(r"^\s*from gateway\._core\.(\w+) cimport", text, re.M) + re.findall(
            r"^\s*cimport gateway\._core\.(\w+)", text, re.M
        )
        for names in re.findall(r"^\s*from (?:gateway\._core|\.) cimport ([\w, ]+)", text, re.M):
            found += [part.strip() for part in names.split(",")]
        for module in found:
            own = table.get(path.stem)
            if own is None:
                wrong.append(f"{name(path)} has no level")
            elif module not in table:
                wrong.append(f"{name(path)} cimports {module}, which has no level")
            elif module != path.stem and not (table[module] < own or (module == "seam" and table[module][0] == own[0])):
                wrong.append(f"{name(path)} (level {own[0]}) cimports {module} (level {table[module][0]})")
    assert not wrong


# Pages


def test_architecture_names_only_what_exists() -> None:
    """Whatever looks like a path or a file in backticks is one; places are looked for from the root and from gateway/."""
    lacking = []
    for text in re.findall(r"`([^`\n]+)`", (ROOT / "ARCHITECTURE.md").read_text()):
        is_path = re.fullmatch(r"[\w./*-]+", text) and ("/" in text or re.search(r"\.(py|pyx|pxd|pyi|md|yaml|h|c|mk|toml)$", text))
        if not is_path or text.startswith("/"):
            continue
        places = (ROOT, GATEWAY, CORE)
        if not any(list(place.glob(text.rstrip("/"))) if "*" in text else (place / text).exists() for place in places):
            lacking.append(text)
    assert not lacking
