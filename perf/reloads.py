"""Reloads under load: does a client notice that the configuration changes? Ours alone."""

import http.client
import re
import signal
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from perf.children import Children, wait_until
from perf.gateways import Gateway
from perf.load import Load, loadgen_argv, parse_loadgen
from perf.routes import put

# Longest turn of a worker's loop since the last scrape, and what the last swap cost it; both in seconds.
LAG = re.compile(r"^isthmus_worker_loop_lag_seconds(?:\{[^}]*\})? (\S+)$", re.M)
SWAP = re.compile(r"^isthmus_worker_swap_seconds(?:\{[^}]*\})? (\S+)$", re.M)


@dataclass(slots=True)
class Reloads:
    """What 50 reloads did to the worker and to its clients."""

    applied: int = 0
    failed: int = 0
    done: int = 0
    lag_ms: list[float] = field(default_factory=list)  # worker's longest turn, by reload
    swap_ms: list[float] = field(default_factory=list)
    apply_s: list[float] = field(default_factory=list)  # from the new file to the first answer by it
    client_max_ms: float = 0.0
    client_p99_ms: float = 0.0
    client_over: int = 0  # requests later than 5 ms
    calm_max_ms: float = 0.0  # the same load without reloads
    calm_over: int = 0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def gauge_ms(pattern: re.Pattern[str], metrics: str) -> float | None:
    """Largest value of a gauge over the workers, in milliseconds."""
    values = [float(value) for value in pattern.findall(metrics)]
    return max(values) * 1000 if values else None


def location(port: int) -> str:
    """Where canary.test sends its clients now."""
    conn = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        conn.request("GET", "/", headers={"Host": "canary.test"})
        return conn.getresponse().getheader("location") or ""
    finally:
        conn.close()


def reload_many(
    children: Children, load_core: int, gateway: Gateway, text: str, targets: Path, *, times: int, rate: float
) -> Reloads:
    """Replaces the file `times` times while clients ask at a fixed rate, each time waiting until the new one answers. `text` is
    the first file, in which canary.test answers r0.test."""
    result = Reloads()
    argv = loadgen_argv(gateway.port, seconds=3, connections=64, rate=rate, targets=targets)
    calm = parse_loadgen(children.finish(children.start(argv, load_core, "loadgen", answer=True), 30))
    result.calm_max_ms, result.calm_over = calm.max_us / 1000, calm.over
    gateway.metrics()

    argv = loadgen_argv(gateway.port, seconds=3600, connections=64, rate=rate, targets=targets)
    load = children.start(argv, load_core, "loadgen", answer=True)
    try:
        for n in range(1, times + 1):
            began = time.monotonic()
            put(text.replace("r0.test", f"r{n}.test"), gateway.config)
            gateway.child.send_signal(signal.SIGHUP)
            wait_until(lambda n=n: f"//r{n}.test" in location(gateway.port), 60, f"reload {n}")  # type: ignore[misc]
            result.apply_s.append(time.monotonic() - began)
            result.applied += 1
            metrics = gateway.metrics()
            for pattern, into in ((LAG, result.lag_ms), (SWAP, result.swap_ms)):
                value = gauge_ms(pattern, metrics)
                if value is not None:
                    into.append(value)
        load.send_signal(signal.SIGTERM)
        seen: Load = parse_loadgen(children.finish(load, 30))
    finally:
        children.stop(load)
    result.done, result.failed = seen.done, seen.errors
    result.client_max_ms, result.client_p99_ms, result.client_over = seen.max_us / 1000, seen.p99_us / 1000, seen.over
    return result
