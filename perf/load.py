"""The load generators: wrk, loadgen.c and shakes.py beside this file, h2load. All answer with one `Load`."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def parse_h2load(text: str, streams: int = 1) -> Load:
    """Reads h2load's report of a run of fixed length. What is in flight at the end is neither done nor failed; but h2load is
    silent about requests whose connection broke, so what was begun beyond one for each stream of each client has failed."""
    clients = re.search(r": (\d+) total client\(s\)\.", text)
    finished = re.search(r"^finished in ([\d.]+)(us|ms|s|m),", text, re.M)
    words = ("started", "done", "succeeded", "failed", "errored", "timeout")
    requests = re.search(r"^requests: \d+ total" + "".join(rf", (\d+) {word}" for word in words), text, re.M)
    statuses = re.search(r"^status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text, re.M)
    if not (clients and finished and requests and statuses):
        raise ValueError(f"h2load reported nothing: {text.strip()[:200]!r}")
    told = dict(zip(words, (int(n) for n in requests.groups()), strict=True))
    good, *bad = (int(n) for n in statuses.groups())
    longest = re.search(r"^time for request:\s+\S+\s+([\d.]+)(us|ms|s|m)\s", text, re.M)
    return Load(
        done=good + sum(bad),
        failed=told["errored"] + told["timeout"] + max(0, told["started"] - told["done"] - int(clients.group(1)) * streams),
        bad_status=sum(bad),
        seconds=float(finished.group(1)) * UNITS[finished.group(2)] / 1e6,
        max_us=float(longest.group(1)) * UNITS[longest.group(2)] if longest else 0.0,
    )


@dataclass(frozen=True, slots=True)
class Command:
    """A load generator with its arguments, and how its report is read."""

    name: str
    argv: Sequence[str]
    parse: Callable[[str], Load]
    env: Mapping[str, str] | None = None

    def start(self, children: Children, core: int) -> "subprocess.Popen[str]":
        return children.start(self.argv, core, self.name, answer=True, env=self.env)

    def run(self, children: Children, core: int, seconds: float) -> Load:
        return self.parse(children.finish(self.start(children, core), seconds + 15))


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


def loadgen(port: int, **more: Any) -> Command:
    return Command("loadgen", loadgen_argv(port, **more), parse_loadgen)


def wrk(
    port: int,
    *,
    seconds: float,
    connections: int,
    path: str = "/",
    targets: Path | None = None,
    tls: Mapping[str, str] | None = None,
) -> Command:
    """One thread of wrk. wrk counts in whole seconds. `tls`: the environment of a client that speaks it."""
    program = find_tool("wrk")
    if not program:
        raise RuntimeError("wrk is missing")
    where = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    argv = [program, "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency"]
    if targets:
        argv += ["-s", str(HERE / "targets.lua"), f"{where}/", "--", str(targets)]
    else:
        argv += ["-H", "Host: bench.test", f"{where}{path}"]
    return Command("wrk", argv, parse_wrk, tls)


def h2load(
    port: int,
    *,
    seconds: float = 0.0,
    times: int = 0,
    connections: int,
    path: str,
    streams: int = 0,
    body: Path | None = None,
    fields: Sequence[str] = (),
    tls: Sequence[str] | None = None,
) -> Command:
    """One thread of h2load: so many streams of HTTP/2 on each connection, or HTTP/1.1 with `streams` 0. `body` is uploaded.
    `times`: so many requests, however long they take. `tls`: what is offered in the handshake; None: in the clear."""
    program = find_tool("h2load")
    if not program:
        raise RuntimeError("h2load is missing")
    argv = [program, "-t1", f"-c{connections}", *(tls or ())]
    argv += ["-n", str(times)] if times else ["-D", f"{round(seconds * 1000)}ms"]
    argv += [f"-m{streams}", "--npn-list=h2"] if streams else ["--h1"]
    argv += ["-d", str(body)] if body else []
    argv += [word for line in fields for word in ("-H", line)]
    where = f"{'http' if tls is None else 'https'}://bench.test:{port}{path}"
    return Command("h2load", [*argv, f"--connect-to=127.0.0.1:{port}", where], lambda text: parse_h2load(text, max(1, streams)))


def shakes(port: int, *, seconds: float, connections: int, env: Mapping[str, str]) -> Command:
    argv = [sys.executable, str(HERE / "shakes.py"), str(port), f"{seconds:g}", str(connections)]
    return Command("shakes", argv, parse_loadgen, env)
