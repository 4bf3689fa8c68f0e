"""Tests stand beside sources: whoever opens a source finds the file that tests it by its name."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GATEWAY = ROOT / "gateway"
CORE = GATEWAY / "_core"

# Source files without a test file of their own, and why that is right.
NO_OWN_TEST = {
    "gateway/__main__.py": "one line; every end-to-end test that says `python -m gateway` runs it",
}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_every_source_has_its_test_file() -> None:
    """gateway/PACKAGE/NAME.py is tested by some test_NAME.py or test_PACKAGE_NAME.py (or test_NAME_WHAT.py) under tests/."""
    tests = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    lacking = []
    for path in sorted([*GATEWAY.rglob("*.py"), *CORE.glob("*.pyx")]):
        if path.name == "__init__.py" and len(path.read_text().splitlines()) < 30:
            continue
        stem = path.parent.name if path.name == "__init__.py" else path.stem
        wanted = (f"test_{stem}", f"test_{path.parent.name.strip('_')}_{stem}")
        if name(path) not in NO_OWN_TEST and not any(
            test == want or test.startswith(f"{want}_") for test in tests for want in wanted
        ):
            lacking.append(name(path))
    assert not lacking


def test_the_list_of_exceptions_is_not_stale() -> None:
    assert all((ROOT / path).is_file() for path in NO_OWN_TEST)
