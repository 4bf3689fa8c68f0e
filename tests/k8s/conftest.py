"""Kustomizations of k8s/, built."""

from __future__ import annotations

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
