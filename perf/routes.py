"""Configurations with many routes, and the cell that compares ten thousand of them with ten."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from perf.gateways import Origin

RULES = 10


def host_name(i: int) -> str:
    return f"shop{i:04d}.example.test"


def rule_path(i: int) -> str:
    return f"/part{i}/service"


def many_routes(hosts: int, *, port: int, admin: int, origin: Origin, marker: int = 0) -> dict[str, Any]:
    """`hosts` routes of ten rules each, as a configuration file has them. canary.test answers a Location with `marker`."""
    endpoint = [f"127.0.0.1:{origin.port}"]
    routes: list[dict[str, Any]] = [
        {
            "name": f"route{i:04d}",
            "hostnames": [host_name(i)],
            "rules": [
                {"matches": [{"path": {"type": "PathPrefix", "value": rule_path(j)}}], "backendRefs": [{"name": "origin"}]}
                for j in range(RULES)
            ],
        }
        for i in range(hosts)
    ]
    redirect = {"type": "RequestRedirect", "requestRedirect": {"hostname": f"r{marker}.test", "statusCode": 302}}
    routes.append({"name": "canary", "hostnames": ["canary.test"], "rules": [{"filters": [redirect]}]})
    routes.append({"name": "bench", "hostnames": ["bench.test"], "rules": [{"backendRefs": [{"name": "origin"}]}]})
    return {
        "admin": {"address": f"127.0.0.1:{admin}"},
        "accessLog": {"format": "off"},
        "drain": {"delay": "0s", "timeout": "1s"},
        "limits": {"idleTimeout": "3600s"},
        "listeners": [{"name": "web", "address": f"127.0.0.1:{port}", "protocol": "HTTP"}],
        "routes": routes,
        "clusters": [{"name": "origin", "endpoints": endpoint}],
    }


def as_yaml(config: dict[str, Any]) -> str:
    return str(yaml.dump(config, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False))


def put(text: str, path: Path) -> Path:
    """Puts a file into its place in one step, as a ConfigMap mount or an editor does."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.rename(path)
    return path


def write_config(config: dict[str, Any], path: Path) -> Path:
    return put(as_yaml(config), path)


def write_targets(hosts: int, path: Path, *, below: str = "/item") -> Path:
    """Every route once, in an order that no cache can foresee but every run repeats."""
    targets = [f"{host_name(i)} {rule_path(j)}{below}" for i in range(hosts) for j in range(RULES)]
    random.Random(7).shuffle(targets)
    path.write_text("\n".join(targets) + "\n")
    return path


def targets_of(path: Path) -> Sequence[tuple[str, str]]:
    return [(host, where) for host, where in (line.split() for line in path.read_text().splitlines())]
