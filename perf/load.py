"""The two load generators: wrk, and loadgen.c beside this file. Both answer with one `Load`."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perf.children import Children
from perf.machine import ROOT, find_tool

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Load:
    """What a load generator saw. `failed`: requests without a whole answer; `bad_status`: whole answers, but not 2xx."""

    done: int
    failed: int
    bad_status: int
    seconds: float
    p50_us: float = 0.0
    p99_us: float = 0.0
    max_us: float = 0.0
    over: int = 0

    @property
    def errors(self) -> int:
        return self.failed + self.bad_status

    @property
    def rate(self) -> float:
        return self.done / self.seconds if self.seconds else 0.0


UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6}


def parse_wrk(text: str) -> Load:
    """Reads wrk's report (with --latency). ValueError when there is none in the text."""
    found = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m),", text)
    if not found:
        raise ValueError(f"wrk reported nothing: {text.strip()[:200]!r}")
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    quantiles = {
        name: float(value) * UNITS[unit] for name, value, unit in re.findall(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s|m)$", text, re.M)
    }
    longest = re.search(r"^\s+Latency\s+\S+\s+\S+\s+([\d.]+)(us|ms|s|m)\s", text, re.M)
    return Load(
        done=int(found.group(1)),
        failed=sum(int(n) for n in errors.groups()) if errors else 0,
        bad_status=int(bad.group(1)) if bad else 0,
        seconds=float(found.group(2)) * UNITS[found.group(3)] / 1e6,
        p50_us=quantiles.get("50", 0.0),
        p99_us=quantiles.get("99", 0.0),
        max_us=float(longest.group(1)) * UNITS[longest.group(2)] if longest else 0.0,
    )


def parse_loadgen(text: str) -> Load:
    try:
        told = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"loadgen reported nothing: {text.strip()[:200]!r}") from error
    return Load(**{name: told[name] for name in ("done", "failed", "bad_status", "seconds", "p50_us", "p99_us", "max_us", "over")})


def build_loadgen() -> str:
    """Compiles loadgen.c when it is newer than its program; returns the program's path."""
    source, program = HERE / "loadgen.c", ROOT / "build" / "perf" / "loadgen"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if not compiler:
            raise RuntimeError("no C compiler for perf/loadgen.c: apt-get install gcc")
        program.parent.mkdir(parents=True, exist_ok=True)
        # In one step: another process may be about to run the old one, or be compiling as well.
        fresh = program.with_name(f"{program.name}.{os.getpid()}")
        subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-o", str(fresh), str(source)], check=True)
        fresh.replace(program)
    return str(program)


def loadgen_argv(
    port: int,
    *,
    seconds: float,
    connections: int,
    rate: float = 0.0,
    path: str = "/",
    upload: int = 0,
    close: bool = False,
    targets: Path | None = None,
) -> list[str]:
    argv = [build_loadgen(), "--port", str(port), "--connections", str(connections), "--seconds", f"{seconds:g}", "--path", path]
    if rate:
        argv += ["--rate", f"{rate:.1f}"]
    if upload:
        argv += ["--method", "POST", "--body", str(upload)]
    if close:
        argv.append("--close")
    if targets:
        argv += ["--targets", str(targets)]
    return argv


def run_loadgen(children: Children, core: int, argv: Sequence[str], seconds: float) -> Load:
    return parse_loadgen(children.finish(children.start(argv, core, "loadgen", answer=True), seconds + 15))


def run_wrk(
    children: Children, core: int, port: int, *, seconds: float, connections: int, path: str = "/", targets: Path | None = None
) -> Load:
    """One thread of wrk. wrk counts in whole seconds."""
    wrk = find_tool("wrk")
    if not wrk:
        raise RuntimeError("wrk is missing")
    argv = [wrk, "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency"]
    if targets:
        argv += ["-s", str(HERE / "targets.lua"), f"http://127.0.0.1:{port}/", "--", str(targets)]
    else:
        argv += ["-H", "Host: bench.test", f"http://127.0.0.1:{port}{path}"]
    return parse_wrk(children.finish(children.start(argv, core, "wrk", answer=True), seconds + 15))
