"""Kustomizations of k8s/, built."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from manifests import OVERLAYS, ROOT, Build, Object, built, kustomize_command


@pytest.fixture(scope="session")
def build() -> Build:
    """The objects of a kustomization, by its path below k8s/."""
    if kustomize_command() is None:
        pytest.skip("neither kubectl nor kustomize is installed")
    return lambda path: [*built(ROOT / "k8s" / path)]


@pytest.fixture(scope="session", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest, build: Build) -> list[Object]:
    """The objects of each overlay."""
    return build(f"overlays/{request.param}")


@pytest.fixture
def with_component(build: Build, tmp_path: Path) -> Callable[[str, str], list[Object]]:
    """The objects of an overlay with a component, as its commented lines would have it."""

    def take(overlay: str, component: str) -> list[Object]:
        copy = tmp_path / "k8s"
        shutil.copytree(ROOT / "k8s", copy, dirs_exist_ok=True)
        path = copy / "overlays" / overlay / "kustomization.yaml"
        text = path.read_text()
        asked = f"# components:\n#   - ../../components/{component}\n"
        assert asked in text
        path.write_text(text.replace(asked, asked.replace("#   ", "  ").replace("# ", "")))
        return [*built(path.parent)]

    return take
