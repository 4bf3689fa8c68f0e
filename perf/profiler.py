"""Where the time goes: `profile` samples a gateway's worker with perf, `callgrind` counts its instructions per request.

Both run one gateway under the traffic of one cell. perf says how user and kernel share the time and which functions take it;
callgrind counts only user space, but so exactly that a change of one per cent can be told from noise.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from perf import machine
from perf.bench import end_on_signals, say, workshop
from perf.cells import COLUMNS, TRAFFIC, Cell
from perf.children import Children, cpu_time, process_tree
from perf.gateways import OURS, Gateway, Origin, start_gateway
from perf.load import Command, Load
from perf.machine import Cores
from perf.traffic import command, tools_of


def own_times(root: int) -> dict[int, int]:
    """CPU nanoseconds of each process of a tree so far."""
    tasks = {pid: Path(f"/proc/{pid}/task").iterdir() for pid in process_tree(root)}
    return {pid: sum(int((task / "schedstat").read_text().split()[0]) for task in each) for pid, each in tasks.items()}


def busiest(before: Mapping[int, int], after: Mapping[int, int]) -> int:
    """The process that used most CPU time between two readings: the worker, if it served meanwhile."""
    return max(after, key=lambda pid: after[pid] - before.get(pid, 0))


def report(tool: str, data: Path, sort: str, lines: int) -> list[str]:
    """Lines of a perf report, without its head."""
    argv = [tool, "report", "-i", str(data), "--stdio", "--no-children", "--sort", sort, "-q"]
    out = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=120).stdout
    return [line.rstrip() for line in out.splitlines() if line.strip()][:lines]


def split(lines: Sequence[str]) -> tuple[float, float]:
    """User and kernel percentages from a report sorted by shared object."""
    user = kernel = 0.0
    for line in lines:
        found = re.match(r"\s*([\d.]+)%\s+(\S+)", line)
        if found:
            share = float(found.group(1))
            if found.group(2) in ("[kernel.kallsyms]", "[kernel]", "[guest.kernel.kallsyms]") or found.group(2).startswith("[k"):
                kernel += share
            else:
                user += share
    return user, kernel


def profile(children: Children, cores: Cores, gateway: Gateway, cell: Cell, options: argparse.Namespace) -> None:
    tool = machine.find_tool("perf")
    if tool is None:
        raise RuntimeError(machine.missing_line("perf"))

    def traffic(seconds: float) -> Command:
        return command(cell, gateway, children.run, seconds, connections=options.connections, steady=True)

    at_first = own_times(gateway.pid)
    traffic(1).run(children, cores.load, 1)
    pid, seconds = busiest(at_first, own_times(gateway.pid)), options.seconds
    data = children.run / "perf.data"
    before = cpu_time(gateway.pid)
    sent = traffic(seconds)
    load = sent.start(children, cores.load)
    record = children.start(
        [tool, "record", "-q", "-F", "4999", "-o", str(data), "-p", str(pid), "--", "sleep", str(seconds)], cores.load, "perf"
    )
    children.finish(record, seconds + 30)
    seen = sent.parse(children.finish(load, seconds + 30))
    user_us, system_us = cpu_time(gateway.pid).since(before)
    if not data.exists():
        raise RuntimeError(f"perf recorded nothing: {(children.run / 'perf.out').read_text().strip()}")
    user, kernel = split(report(tool, data, "dso", 1000))
    cost = (user_us + system_us) / max(1, seen.done)
    shares = f"{user:.1f} % user, {kernel:.1f} % kernel"
    say(f"\n{seen.done:,} {cell.work}s, {seen.errors} errors, {cost:.2f} us of CPU each: {shares}\n")
    say("shared objects")
    say("\n".join(report(tool, data, "dso", 15)))
    functions = report(tool, data, "dso,symbol", 2000)
    for title, mark in (("user space", "[.]"), ("kernel", "[k]")):
        say(f"\n{title}: share of all, us per {cell.work}, function")
        for line in [line for line in functions if mark in line][: options.lines]:
            share, _, rest = line.strip().partition("%")
            say(f"{float(share):6.2f} % {float(share) * cost / 100:6.3f}  {' '.join(rest.split())}")
    if options.keep:
        shutil.copy(data, options.keep)
        say(f"\n{options.keep}")


def totals(annotated: str) -> int:
    """Instructions in all, from callgrind_annotate's report."""
    found = re.search(r"^\s*([\d,]+)\s+(?:\([\d. ]+%\)\s+)?PROGRAM TOTALS", annotated, re.M)
    if not found:
        raise ValueError("callgrind counted nothing")
    return int(found.group(1).replace(",", ""))


def readable(place: str) -> str:
    """A function of callgrind_annotate's list without what says nothing: files, folders, Cython's prefix."""
    found = re.fullmatch(r"(?:[^:]*:)?(\S+?)(?: \[(?:.*/)?([^/]*)\])?", place)
    if not found:
        return place
    function = re.sub(r"^__pyx_f_7gateway_5_core_\d+", "", found.group(1))
    return f"{function}  {(found.group(2) or '').partition('.')[0]}".rstrip()


def dumps_of(run: Path, pid: int) -> list[Path]:
    return sorted(run.glob(f"callgrind.{pid}.*"), key=lambda path: path.stat().st_mtime_ns)


def control(pid: int, *argv: str) -> None:
    done = subprocess.run(["callgrind_control", *argv, str(pid)], capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise RuntimeError(f"callgrind_control {' '.join(argv)}: {done.stdout}{done.stderr}")


def callgrind(children: Children, cores: Cores, gateway: Gateway, cell: Cell, options: argparse.Namespace) -> None:
    """Counts while the cell's traffic runs, in the worker alone; what is fixed per turn of the loop is in it as well."""
    run = children.run

    def traffic(seconds: float) -> Load:
        sent = command(cell, gateway, run, seconds, connections=options.connections, steady=True)
        return sent.run(children, cores.load, seconds)

    at_first = own_times(gateway.pid)
    traffic(2)
    pid = busiest(at_first, own_times(gateway.pid))
    control(pid, "-z")
    control(pid, "-i", "on")
    load = traffic(options.seconds)
    control(pid, "-i", "off")
    before = set(dumps_of(run, pid))
    control(pid, "-d")
    new = [path for path in dumps_of(run, pid) if path not in before]
    if not new:
        raise RuntimeError("callgrind dumped nothing")
    argv = ["callgrind_annotate", "--threshold=95", str(new[-1])]
    out = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=True).stdout
    done = max(1, load.done)
    say(f"\n{gateway.name}: {totals(out) / done:,.0f} instructions for each of {load.done:,} {cell.work}s; {load.errors} errors\n")
    shown = 0
    for line in out.splitlines():
        found = re.match(r"\s*([\d,]+)\s+\(\s*([\d.]+)%\)\s+(\S.*)", line)
        if found and "PROGRAM TOTALS" not in line and shown < options.lines:
            each = int(found.group(1).replace(",", "")) / done
            say(f"{float(found.group(2)):6.2f} % {each:8.1f}  {readable(found.group(3))}")
            shown += 1


def main(verb: str, argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog=f"python -m perf {verb}", description=__doc__)
    parser.add_argument("--cell", choices=sorted(TRAFFIC), default="get40")
    parser.add_argument("--gateway", choices=COLUMNS, default=OURS)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--lines", type=int, default=30, help="functions in a list (30)")
    parser.add_argument("--connections", type=int, default=0, help="connections (those of the cell)")
    parser.add_argument("--keep", help="profile: copy perf's data to this path")
    parser.add_argument("--urgent", action="store_true", help="go before what else runs on this machine (root)")
    options = parser.parse_args(argv)
    end_on_signals()
    machine.raise_files()
    missing = [tool for tool in tools_of(TRAFFIC[options.cell]) if machine.find_tool(tool) is None]
    if missing:
        raise SystemExit(machine.missing_line(missing[0]))
    cores = Cores.choose(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores.load})
    if options.urgent:
        machine.go_first()
    wrap: list[str] = []
    with workshop() as run, Children(run) as children:
        if verb == "callgrind":
            valgrind = machine.find_tool("valgrind")
            if valgrind is None:
                raise SystemExit(machine.missing_line("valgrind"))
            wrap = [
                valgrind,
                "--tool=callgrind",
                "--instr-atstart=no",
                "--trace-children=yes",
                f"--callgrind-out-file={run}/callgrind.%p",
            ]
        try:
            origin = Origin.start(children, cores.origin)
            gateway = start_gateway(children, cores, options.gateway, origin, wrap=wrap)
            (callgrind if verb == "callgrind" else profile)(children, cores, gateway, TRAFFIC[options.cell], options)
        except (RuntimeError, ValueError, TimeoutError, subprocess.SubprocessError) as error:
            print(f"{verb}: {error}", file=sys.stderr)
            return 1
    return 0
