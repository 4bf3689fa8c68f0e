"""What is shown to people works as shown: configurations in config/ and in the pages."""

import re
import shutil
from pathlib import Path

import pytest
from pki import write_files_for

from gateway.sources.files import load

ROOT = Path(__file__).resolve().parents[2]
KEYS = ("admin", "workers", "accessLog", "redis", "limits", "drain", "listeners", "routes", "rateLimits", "clusters", "kubernetes")
PAGES = [path for path in (ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "perf" / "README.md") if path.exists()]


def errors(path: Path) -> list[str]:
    return [problem.text() for problem in load(path).problems if problem.severity == "error"]


@pytest.mark.parametrize("path", sorted(ROOT.glob("config/**/*.yaml")), ids=lambda path: path.name)
def test_every_configuration_loads(path: Path, tmp_path: Path) -> None:
    write_files_for(path.read_text(), tmp_path)
    copy = Path(shutil.copy(path, tmp_path))
    assert not errors(copy)
    assert load(copy).config is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_configuration_in_a_page_loads(page: Path, tmp_path: Path) -> None:
    """A yaml block that begins with a key of the configuration is a whole one."""
    for number, block in enumerate(re.findall(r"^```ya?ml\n(.*?)^```", page.read_text(), re.S | re.M)):
        first = re.search(r"^(\w+):", block, re.M)
        if first and first.group(1) in KEYS:
            write_files_for(block, tmp_path)
            path = tmp_path / f"{number}.yaml"
            path.write_text(block)
            assert not errors(path), block


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_verb_in_a_page_is_in_the_makefile(page: Path) -> None:
    makefiles = "".join(path.read_text() for path in [ROOT / "Makefile", *sorted(ROOT.glob("mk/*.mk"))])
    verbs = set(re.findall(r"^([a-z-]+):", makefiles, re.M))
    named = set(re.findall(r"`make ([a-z-]+)", page.read_text())) | set(re.findall(r"^make ([a-z-]+)", page.read_text(), re.M))
    assert named <= verbs


def test_every_link_between_pages_leads_somewhere() -> None:
    dead = []
    for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("perf/*.md"), *ROOT.glob("tests/**/*.md")]):
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text()):
            if not (page.parent / target).exists():
                dead.append(f"{page.relative_to(ROOT)}: {target}")
    assert not dead
