"""The same configuration compiles to the same bytes, in whatever order its routes and clusters stand and in whatever process."""

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.control.build import build
from gateway.control.compile import compile_model
from gateway.sources.files import load

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted(ROOT.glob("config/*.yaml"))


class Loader(yaml.SafeLoader):
    """YAML as the gateway reads it: `off` is a word."""

    yaml_implicit_resolvers = {
        first: [rule for rule in rules if first not in "oOyYnN"] for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def blob_of(path: Path) -> bytes:
    config = load(path).config
    assert config is not None
    return compile_model(build(config), 7).blob


def shuffled(value: Any, chance: random.Random) -> Any:
    """Order that means nothing, changed: keys everywhere, and the lists of routes and clusters."""
    if isinstance(value, dict):
        keys = list(value)
        chance.shuffle(keys)
        changed = {key: shuffled(value[key], chance) for key in keys}
        for key in ("routes", "clusters"):
            if isinstance(changed.get(key), list):
                chance.shuffle(changed[key])
        return changed
    return [shuffled(item, chance) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_order_in_the_file_does_not_show(path: Path, tmp_path: Path) -> None:
    first = blob_of(path)
    for seed in range(5):
        other = tmp_path / f"{seed}.yaml"
        other.write_text(yaml.safe_dump(shuffled(yaml.load(path.read_text(), Loader), random.Random(seed)), sort_keys=False))
        assert blob_of(other) == first


def test_another_process_compiles_the_same() -> None:
    """With another hash seed, so that no set or dict decides about an order."""
    code = f"""
import hashlib, sys
sys.path.insert(0, {str(ROOT)!r})
sys.path.insert(0, {str(ROOT / "tests" / "meta")!r})
from test_meta_compile import CONFIGS, blob_of
print([hashlib.sha256(blob_of(path)).hexdigest() for path in CONFIGS])
"""
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(seen) == 1 and len(CONFIGS) > 3
