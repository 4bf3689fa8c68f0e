"""What stands in k8s/ and helm/, as the objects that an API server would be given."""

from __future__ import annotations

import json
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


@cache
def crd_folder() -> Path | None:
    """Where the CRDs of Gateway API are: beside the checkout, or in the release's Go module, which go brings; else None."""
    for above in ROOT.parents[:2]:
        if (above / "shared" / "gateway-api" / "standard").is_dir():
            return above / "shared" / "gateway-api"
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        return None
    command = [go, "mod", "download", "-json", "sigs.k8s.io/gateway-api"]
    done = subprocess.run(command, cwd=ROOT / "tools" / "gateway-crds", capture_output=True, text=True, timeout=120)
    return Path(json.loads(done.stdout)["Dir"]) / "config" / "crd" if done.returncode == 0 else None


def crd_files(channel: str) -> list[Path]:
    """The CRDs of Gateway API, "standard" or "experimental"; none where they cannot be had."""
    folder = crd_folder()
    return sorted((folder / channel).glob("gateway.networking.k8s.io_*.yaml")) if folder else []


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
