"""`make bench`: every gateway side by side in one run, interleaved round by round; a table, a verdict on each bar, and JSON."""

import argparse
import http.client
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from perf import limits, machine
from perf.cells import (
    ALL,
    COLUMNS,
    DOWNLOAD_BAR,
    FLOOD_P99,
    FLOOD_REACHED,
    IDLE_BAR,
    RELOAD_FAILED,
    RELOAD_PAUSE,
    ROUTES_BAR,
    SPECIAL,
    TRAFFIC,
    Cell,
)
from perf.children import Children, cpu_time
from perf.figures import Sample, Verdict, cell_table, judge, median, orders, verdict_table
from perf.flood import CountingOrigin
from perf.gateways import HERE, OURS, Gateway, Origin, fetch, is_here, start_gateway
from perf.h2 import fetch_h2
from perf.idle import bytes_per_idle
from perf.load import Load, h2load, loadgen, wrk
from perf.machine import Cores, free_ports
from perf.reloads import reload_many
from perf.routes import as_yaml, many_routes, put, write_targets
from perf.tls import WANTED, agree
from perf.traffic import command, port_of, tools_of

FLOOD_GAP = "0.002"  # seconds between requests and their cancellation, when they are spaced
FLOOD_RATE = 2000  # requests per second of the client beside a flood
RESULTS = Path(__file__).resolve().parent / "results"


def say(text: str = "") -> None:
    print(text, flush=True)


@contextmanager
def workshop() -> Iterator[Path]:
    """A directory in memory for one run, gone afterwards."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    path = Path(tempfile.mkdtemp(prefix="isthmus-bench-", dir=base))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class Bench:
    """One run: the processes, the options, and what was found."""

    def __init__(self, children: Children, cores: Cores, options: argparse.Namespace) -> None:
        self.children = children
        self.cores = cores
        self.options = options
        self.origin = Origin.start(children, cores.origin)
        self.verdicts: list[Verdict] = []
        self.found: dict[str, Any] = {}
        self.notes: list[str] = []

    def send(self, cell: Cell, gateway: Gateway, seconds: float, rate: float = 0.0) -> Load:
        """The cell's traffic: as fast as it goes, or at a fixed rate."""
        return command(cell, gateway, self.children.run, seconds, rate=rate).run(self.children, self.cores.load, seconds)

    def sample(self, gateway: Gateway, send: Any) -> Sample:
        """CPU time of the gateway before and after one burst, over the requests that the load generator saw answered."""
        before = cpu_time(gateway.pid)
        load: Load = send()
        after = cpu_time(gateway.pid)
        errors = load.errors
        if before.pids != after.pids:
            self.note(f"{gateway.label}: processes came or went during a round; the round does not count")
            errors += 1
        user, system = after.since(before)
        return Sample(load.done, errors, user, system, load.seconds)

    def note(self, text: str) -> None:
        self.notes.append(text)
        say(f"! {text}")

    def start(self, name: str, **more: Any) -> Gateway | None:
        try:
            return start_gateway(self.children, self.cores, name, more.pop("origin", self.origin), **more)
        except (RuntimeError, TimeoutError) as error:
            self.note(f"{name} does not run, its column is left out: {error}")
            return None

    def start_columns(self) -> list[Gateway]:
        started = []
        for name in COLUMNS:
            if name not in self.options.gateways:
                continue
            if not is_here(name):
                self.note(machine.missing_line(name))
            elif (gateway := self.start(name)) is not None:
                started.append(gateway)
        return started

    # One kind of traffic, all gateways

    def traffic(self, cell: Cell, gateways: Sequence[Gateway]) -> None:
        say(f"\n## {cell.key}: {cell.what}\n")
        by_name = self.fit_for(cell, gateways)
        samples: dict[str, list[Sample]] = {name: [] for name in by_name}
        for gateway in by_name.values():
            self.send(cell, gateway, 1)  # caches, pools and branch predictors
        for names in orders(list(by_name), self.options.rounds):
            for name in names:
                gateway = by_name[name]
                burst = lambda gateway=gateway: self.send(cell, gateway, self.options.seconds)  # noqa: E731
                samples[name].append(self.sample(gateway, burst))
        latency = self.latency(cell, by_name, samples)
        say(cell_table(samples, latency["by_gateway"], OURS, cell.work))
        if latency["rate"]:
            say(f"\np50 and p99 at {latency['rate']:,.0f} requests/s, {latency['of']}")
        for bar in cell.bars:
            self.verdicts.append(judge(cell.key, bar, samples.get(OURS), samples.get(bar.against)))
        self.found[cell.key] = {"samples": {n: [asdict(s) for s in each] for n, each in samples.items()}, "latency": latency}

    def fit_for(self, cell: Cell, gateways: Sequence[Gateway]) -> dict[str, Gateway]:
        """The gateways that do in a cell what is asked; in TLS also: on the same terms."""
        missing = [tool for tool in tools_of(cell) if machine.find_tool(tool) is None]
        if missing:
            self.note(f"{cell.key} is left out: {missing[0]} was not found; to have it: {machine.HOW[missing[0]]}")
            return {}
        run, fit = self.children.run, dict[str, Gateway]()
        body = b"x" * cell.upload if cell.upload else None
        for gateway in gateways:
            trusted = run / "tls.crt" if cell.tls else None
            port = port_of(cell, gateway)
            try:
                if cell.streams:
                    got = fetch_h2(port, cell.path, body=body, trusted=trusted, fields=cell.fields)
                else:
                    got = fetch(port, cell.path, body=body, trusted=trusted)
                terms = agree(run, port) if cell.tls else None
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.note(f"{cell.key}: {gateway.name} does not answer: {error}")
                continue
            if got != (200, cell.answer):
                self.note(f"{gateway.name}: {cell.path} answers {got[0]} with {got[1]} bytes instead of 200 with {cell.answer}")
            elif terms not in (None, WANTED):
                self.note(f"{cell.key}: {gateway.name} agrees on {terms} instead of {WANTED}")
            else:
                fit[gateway.name] = gateway
        if cell.tls and fit:
            say(f"{WANTED}: {', '.join(fit)}\n")
        return fit

    def latency(self, cell: Cell, by_name: dict[str, Gateway], samples: dict[str, list[Sample]]) -> dict[str, Any]:
        """Latency at one fixed rate for all: half of what nginx could do at most."""
        rates = {name: median([s.rate for s in each]) for name, each in samples.items()}
        if not rates or self.options.no_latency or cell.tls or cell.streams:  # no generator here speaks these at a fixed rate
            return {"rate": 0.0, "of": "", "by_gateway": {}}
        slowest = min(rates, key=lambda name: rates[name])
        measure = "nginx" if "nginx" in rates else slowest
        rate = rates[measure] / 2
        seen: dict[str, list[Load]] = {name: [] for name in by_name}
        for names in orders(list(by_name), min(3, self.options.rounds)):
            for name in names:
                seen[name].append(self.send(cell, by_name[name], self.options.seconds, rate))
        return {
            "rate": rate,
            "of": f"half of {measure}'s maximum; open loop, counted from when a request was due",
            "by_gateway": {
                name: {
                    "p50_us": median([load.p50_us for load in loads]),
                    "p99_us": median([load.p99_us for load in loads]),
                    "max_us": max(load.max_us for load in loads),
                    "errors": sum(load.errors for load in loads),
                }
                for name, loads in seen.items()
            },
        }

    # Ours alone

    def many(self, hosts: int, label: str) -> tuple[Gateway | None, str]:
        """Ours with many routes, and its configuration file."""
        port, admin = free_ports(2)
        text = as_yaml(many_routes(hosts, port=port, admin=admin, origin=self.origin))
        path = put(text, self.children.run / f"{label}.yaml")
        return self.start(OURS, config=path, label=label, ports=(port, admin)), text

    def routes(self) -> None:
        say(f"\n## routes: {SPECIAL['routes']}\n")
        run, samples = self.children.run, dict[str, list[Sample]]()
        sizes = {"10 routes": 1, "10,000 routes": 1000}
        gateways = {name: self.many(hosts, f"routes-{hosts * 10}")[0] for name, hosts in sizes.items()}
        if all(gateways.values()):
            samples = {name: [] for name in sizes}
            targets = {name: write_targets(hosts, run / f"targets-{hosts * 10}") for name, hosts in sizes.items()}

            def send(name: str, port: int, seconds: float) -> Load:
                make = wrk if machine.find_tool("wrk") else loadgen
                load = make(port, seconds=seconds, connections=64, targets=targets[name])
                return load.run(self.children, self.cores.load, seconds)

            for name in [*sizes, *sizes]:
                gateway = gateways[name]
                assert gateway is not None
                send(name, gateway.port, 1)
            for names in orders(list(sizes), self.options.rounds):
                for name in names:
                    gateway = gateways[name]
                    assert gateway is not None
                    burst = lambda name=name, port=gateway.port: send(name, port, self.options.seconds)  # noqa: E731
                    samples[name].append(self.sample(gateway, burst))
            say(cell_table(samples, {}, "10,000 routes"))
        for gateway in gateways.values():
            if gateway is not None:
                self.children.stop(gateway.child)
        self.verdicts.append(judge("routes", ROUTES_BAR, samples.get("10,000 routes"), samples.get("10 routes")))
        self.found["routes"] = {name: [asdict(sample) for sample in each] for name, each in samples.items()}

    def download(self) -> None:
        """The rate is what the bar is about. All three run on one core, so that CPU time decides it here as well."""
        say(f"\n## download: {SPECIAL['download']}\n")
        if machine.find_tool("h2load") is None:
            self.note(machine.missing_line("h2load"))
            return
        gateway = self.start(OURS, label="download")
        if gateway is None:
            return
        ways = {
            "HTTP/1.1": (gateway.port, "/100m", 0),
            "HTTP/2": (gateway.h2c, "/100m", 1),
            "HTTP/2 to HTTP/2": (gateway.h2c, "/bench.Echo/100m", 1),
        }
        samples: dict[str, list[Sample]] = {name: [] for name in ways}

        def send(name: str, times: int) -> Load:
            port, path, streams = ways[name]
            return h2load(port, times=times, connections=1, path=path, streams=streams).run(self.children, self.cores.load, 60)

        for name in ways:
            send(name, 1)
        for names in orders(list(ways), self.options.rounds):
            for name in names:
                samples[name].append(self.sample(gateway, lambda name=name: send(name, self.options.seconds)))
        self.children.stop(gateway.child)
        say(cell_table(samples, {}, "HTTP/2", "download"))
        ours, theirs = samples["HTTP/2"], samples["HTTP/1.1"]
        wrong = sum(sample.errors for sample in (*ours, *theirs))
        each = [a.rate / b.rate for a, b in zip(ours, theirs, strict=True) if a.done and b.done]
        note = f"{wrong} downloads went wrong" if wrong or not each else f"rounds {min(each):.2f} to {max(each):.2f}"
        self.verdicts.append(Verdict("download", DOWNLOAD_BAR, None if wrong or not each else median(each), note))
        self.found["download"] = {name: [asdict(sample) for sample in each] for name, each in samples.items()}

    def flood(self) -> None:
        say(f"\n## flood: {SPECIAL['flood']}\n")
        counting = CountingOrigin()
        gateway = None
        try:
            origin = Origin(self.origin.port, counting.port, self.origin.h2_port)
            gateway = self.start(OURS, label="flood", origin=origin)
            if gateway is not None:
                self.flood_beside(gateway, counting)
        finally:
            counting.close()
            if gateway is not None:
                self.children.stop(gateway.child)

    def flood_beside(self, gateway: Gateway, counting: CountingOrigin) -> None:
        """A client at a fixed rate, by itself and beside a flood, in turns."""
        self.found["flood"] = {}
        for name, gap in (("at once", []), ("spaced", [FLOOD_GAP])):
            self.flood_one_way(gateway, counting, name, gap)

    def flood_one_way(self, gateway: Gateway, counting: CountingOrigin, name: str, gap: list[str]) -> None:
        seconds = self.options.seconds
        clean = loadgen(gateway.port, seconds=seconds, connections=64, rate=FLOOD_RATE, path="/")
        argv = [sys.executable, str(HERE / "flood.py"), str(gateway.h2c), str(seconds), "100000", "/upload", *gap]
        calm: list[Load] = []
        beside: list[Load] = []
        connections = streams = 0
        counting.seen = 0
        for _ in range(self.options.rounds):
            calm.append(clean.run(self.children, self.cores.load, seconds))
            flood = self.children.start(argv, self.cores.load, "flood", answer=True)
            beside.append(clean.run(self.children, self.cores.load, seconds))
            told = json.loads(self.children.finish(flood, seconds + 30))
            connections += told["connections"]
            streams += told["streams"]
        reached = counting.seen / connections
        ratio = median([b.p99_us / a.p99_us for a, b in zip(calm, beside, strict=True) if a.p99_us])
        failed = sum(load.errors for load in (*calm, *beside))
        say(
            f"cancelled {name}: {connections} connections sent {streams:,} streams; {counting.seen:,} reached the origin, "
            f"{reached:.0f} of each\n"
            f"a client at {FLOOD_RATE:,} requests/s: p99 {median([load.p99_us for load in calm]):,.0f} us, beside the flood "
            f"{median([load.p99_us for load in beside]):,.0f} us; {failed} requests failed"
        )
        self.verdicts.append(Verdict("flood", FLOOD_REACHED, reached, f"of each connection, cancelled {name}"))
        self.verdicts.append(Verdict("flood", FLOOD_P99, None if failed else ratio, f"p99 of another client, cancelled {name}"))
        self.found["flood"][name] = {
            "calm": [asdict(load) for load in calm],
            "beside": [asdict(load) for load in beside],
            "reached": reached,
        }

    def reload(self) -> None:
        say(f"\n## reload: {SPECIAL['reload']}\n")
        gateway, text = self.many(1000, "reload")
        if gateway is None:
            self.verdicts += [Verdict("reload", bar, None, "ours does not run") for bar in (RELOAD_FAILED, RELOAD_PAUSE)]
            return
        targets = write_targets(1000, self.children.run / "targets-reload")
        rate = self.options.reload_rate
        try:
            seen = reload_many(self.children, self.cores.load, gateway, text, targets, times=self.options.reloads, rate=rate)
        except (TimeoutError, OSError) as error:
            self.note(f"reload: {error}")
            self.verdicts += [Verdict("reload", bar, None, str(error)) for bar in (RELOAD_FAILED, RELOAD_PAUSE)]
            return
        finally:
            self.children.stop(gateway.child)
        worst = max(seen.lag_ms + seen.swap_ms) if seen.lag_ms and seen.swap_ms else None
        say(
            f"{seen.applied} reloads under {rate:,.0f} requests/s: {seen.failed} of {seen.done:,} requests failed; a change took "
            f"{median(seen.apply_s):.2f} s to apply (median)"
        )
        if worst is not None:
            swap = f"swap {median(seen.swap_ms):.2f} ms (worst {max(seen.swap_ms):.2f})"
            say(f"worker: {swap}, longest turn {max(seen.lag_ms):.2f} ms")
        say(
            f"client: p99 {seen.client_p99_ms:.2f} ms, worst {seen.client_max_ms:.2f} ms, {seen.client_over} requests over 5 ms; "
            f"without reloads worst {seen.calm_max_ms:.2f} ms, {seen.calm_over} over 5 ms"
        )
        self.verdicts.append(Verdict("reload", RELOAD_FAILED, float(seen.failed), f"of {seen.done:,}"))
        note = "worker's longest turn" if worst is not None else "the metrics name no loop lag and swap time"
        self.verdicts.append(Verdict("reload", RELOAD_PAUSE, worst, f"{note}; a client's worst {seen.client_max_ms:.2f} ms"))
        self.found["reload"] = seen.as_json()

    def idle(self) -> None:
        """Each gateway afresh: what earlier traffic left in its allocator would be used again and hide the cost."""
        say(f"\n## idle: {SPECIAL['idle']}\n")
        costs: dict[str, float] = {}
        for gateway in self.start_columns():
            try:
                costs[gateway.name] = bytes_per_idle(gateway, self.options.idle_connections)
                say(f"{gateway.name}: {costs[gateway.name]:,.0f} bytes of resident memory per connection")
            except OSError as error:
                self.note(f"idle: {gateway.name}: {error}")
            finally:
                self.children.stop(gateway.child)
        self.verdicts.append(Verdict("idle", IDLE_BAR, costs.get(OURS), "" if OURS in costs else "ours was not measured"))
        self.found["idle"] = costs

    def run(self) -> None:
        cells: list[str] = self.options.cells
        if any(cell in TRAFFIC for cell in cells):
            gateways = self.start_columns()
            for key in cells:
                if key in TRAFFIC:
                    self.traffic(TRAFFIC[key], gateways)
            for gateway in gateways:
                self.children.stop(gateway.child)
        if "idle" in cells:
            self.idle()
        if OURS not in self.options.gateways or not is_here(OURS):
            self.notes += [f"{cell}: ours is not here" for cell in ("download", "flood", "routes", "reload") if cell in cells]
            return
        if "download" in cells:
            self.download()
        if "flood" in cells:
            self.flood()
        if "routes" in cells:
            self.routes()
        if "reload" in cells:
            self.reload()
        limits.run(self, cells)


def words(allowed: Sequence[str]) -> Any:
    """Parser of a list with commas (or blanks) of known words."""

    def parse(text: str) -> list[str]:
        given = text.replace(",", " ").split()
        for word in given:
            if word not in allowed:
                raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(allowed)}")
        return [word for word in allowed if word in given]

    return parse


def parse_options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m perf", description=__doc__)
    parser.add_argument("--cells", type=words(ALL), default=list(ALL), metavar="LIST", help=f"of {', '.join(ALL)}")
    parser.add_argument("--gateways", type=words(COLUMNS), default=list(COLUMNS), metavar="LIST", help=f"of {', '.join(COLUMNS)}")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each cell (5)")
    parser.add_argument("--seconds", type=int, default=3, help="length of one burst (3)")
    parser.add_argument("--no-latency", action="store_true", help="leave out the bursts at a fixed rate")
    parser.add_argument("--gateway-core", type=int, help="core of the gateways (the last one)")
    parser.add_argument("--reloads", type=int, default=50, help="reloads in the cell reload (50)")
    parser.add_argument("--reload-rate", type=float, default=4000, help="requests per second meanwhile (4000)")
    parser.add_argument("--idle-connections", type=int, default=10000, help="connections in the cell idle (10000)")
    parser.add_argument("--limit-seconds", type=float, default=30, help="length of each run in the cell accuracy (30)")
    parser.add_argument(
        "--limit-cases", type=words(limits.CASES), default=limits.CASES, metavar="LIST",
        help=f"runs of the cell accuracy: {limits.CASES[0]} to {limits.CASES[-1]} (all)",
    )  # fmt: skip
    parser.add_argument("--urgent", action="store_true", help="go before what else runs on this machine (root)")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a bar is missed or not measured")
    return parser.parse_args(argv)


def on_signal(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def end_on_signals() -> None:
    """A signal that ends this process ends it through its finally blocks; one that is ignored (nohup) stays ignored."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, on_signal)


def main(argv: Sequence[str]) -> int:
    options = parse_options(argv)
    end_on_signals()
    machine.raise_files()
    cores = Cores.choose(os.sched_getaffinity(0), options.gateway_core)
    os.sched_setaffinity(0, {cores.load})
    if options.urgent:
        machine.go_first()
    about = machine.describe()
    versions = {}
    for name in (*COLUMNS, "wrk", "h2load", "openssl"):
        tool = machine.find_tool(name)
        if tool is not None:
            versions[name] = machine.tool_version(tool, name)
    if "wrk" not in versions:
        say("wrk: not found, perf/loadgen.c takes its place; to have it: apt-get install wrk")
    say(f"# {about['when']} · {about['cpu']}, {about['cores']} cores, Linux {about['kernel']} · {about['commit']}")
    say(f"{', '.join(f'{name} {version}' for name, version in versions.items())}")
    places = f"gateways on core {cores.gateway}, load on core {cores.load}, origin on core {cores.origin}"
    say(f"{places}; {options.rounds} rounds of {options.seconds} s")
    began = time.monotonic()
    with workshop() as run, Children(run) as children:
        bench = Bench(children, cores, options)
        try:
            bench.run()
        finally:
            if bench.verdicts:
                say(f"\n## verdicts\n\n{verdict_table(bench.verdicts)}")
            report = {
                "about": {**about, "versions": versions, "cores_used": asdict(cores), "options": vars(options)},
                "seconds": time.monotonic() - began,
                "cells": bench.found,
                "verdicts": [verdict.as_json() for verdict in bench.verdicts],
                "notes": bench.notes,
            }
            RESULTS.mkdir(exist_ok=True)
            path = RESULTS / f"{about['when'].replace(':', '')}.json"
            path.write_text(json.dumps(report, indent=1) + "\n")
            say(f"\n{path.relative_to(machine.ROOT)}, {time.monotonic() - began:.0f} s")
    return 1 if options.strict and any(verdict.met is not True for verdict in bench.verdicts) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
