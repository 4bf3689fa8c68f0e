"""What stands in k8s/ and helm/, as the objects that an API server would be given."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
OVERLAYS = ("edge", "east-west", "egress")

Object = dict[str, Any]
Build = Callable[[str], list[Object]]


def crd_files(channel: str) -> list[Path]:
    """The CRDs of Gateway API, "standard" or "experimental", where a checkout has them beside itself; none where it has not."""
    for above in ROOT.parents[:2]:
        found = sorted((above / "shared" / "gateway-api" / channel).glob("gateway.networking.k8s.io_*.yaml"))
        if found:
            return found
    return []


def kustomize_command() -> list[str] | None:
    if shutil.which("kubectl"):
        return ["kubectl", "kustomize"]
    return ["kustomize", "build"] if shutil.which("kustomize") else None


@cache
def built(directory: Path) -> tuple[Object, ...]:
    command = kustomize_command()
    assert command is not None
    done = subprocess.run([*command, str(directory)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr  # what is deprecated is said there
    return tuple(yaml.safe_load_all(done.stdout))
