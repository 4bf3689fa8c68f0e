"""One engine in a process of its own, without supervisor: the data plane alone, with real sockets.

The parent speaks to it over its stdin and stdout, one JSON line each way. The child ends with the parent, whatever happens.
"""

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from until import wait_until

ROOT = Path(__file__).resolve().parents[2]
NODE = "isthmus-test"
PR_SET_PDEATHSIG = 1


class DataPlane:
    """A running engine. `config` is the configuration as plain values; its listeners' addresses have port 0. A `flawed` one may
    have problems that leave parts of it out. `clock` is what `skipping_clock` made, for who wants to skip."""

    def __init__(
        self, config: dict[str, Any], *, log: str = "json", descriptors: int = 0, flawed: bool = False, clock: Path | None = None
    ) -> None:
        command = [sys.executable, __file__, log, str(descriptors)]
        path = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "lib")])}
        if clock is not None:
            path["LD_PRELOAD"] = os.pathsep.join([*filter(None, [path.get("LD_PRELOAD")]), str(clock)])
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=path)
        self._records: list[dict[str, Any]] = []
        try:
            self.ports: list[int] = self.ask("load", config=config, flawed=flawed)["ports"]
        except BaseException:
            self.close()
            raise
        self.port = self.ports[0]
        self.pid = self._child.pid

    def __enter__(self) -> "DataPlane":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        assert self._child.stdin and self._child.stdout
        self._child.stdin.close()
        try:
            status = self._child.wait(10)
        except subprocess.TimeoutExpired:
            self._child.kill()
            status = self._child.wait()
        self._child.stdout.close()
        assert status == 0, f"the engine's process ended with {status}"

    def ask(self, verb: str, **more: Any) -> dict[str, Any]:
        assert self._child.stdin and self._child.stdout
        self._child.stdin.write(json.dumps({"verb": verb, **more}).encode() + b"\n")
        self._child.stdin.flush()
        line = self._child.stdout.readline()
        assert line, f"the engine's process died at {verb}"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def skip(self, seconds: int) -> None:
        """So much time passes for the engine, at once."""
        self.ask("skip", seconds=seconds)

    def records(self, n: int) -> list[dict[str, Any]]:
        """The access log from the start, once it has n records."""

        def enough() -> bool:
            self._records += [json.loads(line) for line in self.ask("log")["text"].splitlines()]
            return len(self._records) >= n

        wait_until(enough, 10)
        return self._records

    def record(self) -> dict[str, Any]:
        """The one record that there is."""
        (record,) = self.records(1)
        return record

    def cluster(self, name: str = "origin") -> dict[str, Any]:
        (found,) = [row for row in self.ask("clusters")["rows"] if row["name"] == name]
        return found

    def endpoints(self, name: str = "origin") -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.cluster(name)["endpoints"]
        return rows

    def endpoint(self, port: int, name: str = "origin") -> dict[str, Any]:
        """The endpoint at this port; the engine has them in an order of its own."""
        (found,) = (row for row in self.endpoints(name) if row["address"] == f"127.0.0.1:{port}")
        return found

    def counters(self) -> dict[str, int]:
        """The scalars of the engine's block by name."""
        found: dict[str, int] = self.ask("counters")["scalars"]
        return found

    def faults(self) -> dict[str, int]:
        """Faults of peers by name, those that there were."""
        found: dict[str, int] = self.ask("counters")["faults"]
        return found

    def load(self, config: dict[str, Any]) -> None:
        """A new configuration for the same engine; its listeners stay where they are."""
        self.ask("load", config=config)

    def until(self, condition: Callable[[], Any], seconds: float = 20) -> Any:
        return wait_until(condition, seconds)

    def memory(self) -> int:
        """Resident bytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))


def skipping_clock(place: Path) -> Path:
    """A clock that can be skipped, built with the C compiler that the core is built with."""
    made = place / "skipping_clock.so"
    source = Path(__file__).with_name("skipping_clock.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(made), str(source)], check=True)
    return made


def origin_config(
    *ports: int, rule: dict[str, Any] | None = None, cluster: dict[str, Any] | None = None, **root: Any
) -> dict[str, Any]:
    """One listener, one route that takes everything, one cluster with these origins."""
    return {
        "listeners": [{"name": "web", "address": "127.0.0.1:0"}],
        "routes": [{"name": "all", "rules": [{"backendRefs": [{"name": "origin"}], **(rule or {})}]}],
        "clusters": [
            {
                "name": "origin",
                "endpoints": [f"127.0.0.1:{port}" for port in ports],
                # No test wants an ejection or a full cluster that it did not ask for.
                "outlierDetection": {"consecutiveErrors": 0},
                **(cluster or {}),
            }
        ],
        **root,
    }


# the child


def serve(log_format: str, descriptors: int) -> None:
    import gc
    import mmap
    import socket
    import tempfile
    import traceback
    from collections import Counter

    import uvloop

    from gateway._core import counters, faults
    from gateway._core.engine import Engine
    from gateway.control.build import build
    from gateway.control.compile import compile_model, name_id
    from gateway.sources.files import load

    # Standard output is the channel; nothing else may print there.
    channel = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    loop = uvloop.new_event_loop()
    block = mmap.mmap(-1, counters.block_size())
    engine = Engine(block, log_format=log_format, node=NODE)
    listening: dict[int, socket.socket] = {}
    revision = 0

    def take(config: dict[str, Any], flawed: bool) -> dict[str, Any]:
        nonlocal revision
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            json.dump(config, file)
            file.flush()
            loaded = load(Path(file.name))
        assert loaded.config is not None, [problem.text() for problem in loaded.problems]
        model = build(loaded.config)
        compiled = compile_model(model, revision + 1)
        problems = [each.text() for each in (*loaded.problems, *compiled.problems) if each.severity == "error"]
        assert bool(problems) == flawed, problems
        revision += 1
        engine.swap(compiled.blob, revision)
        for cluster in model.clusters:
            rows = [(each.host.encode(), each.port, each.weight, b"") for each in cluster.endpoints]
            engine.set_endpoints(name_id("cluster", cluster.name), rows)
        for port in model.ports:
            bind_id = name_id("bind", port.address)
            if bind_id in listening:
                continue
            sock = socket.socket(socket.AF_INET6 if ":" in port.host else socket.AF_INET)
            sock.setblocking(False)
            sock.bind((port.host, port.port))
            sock.listen(4096)
            listening[bind_id] = sock
            engine.listen(sock.fileno(), bind_id)
        return {"ports": [sock.getsockname()[1] for sock in listening.values()]}

    def obey(order: dict[str, Any]) -> dict[str, Any]:
        match order["verb"]:
            case "load":
                return take(order["config"], order.get("flawed", False))
            case "log":
                return {"text": engine.take_log().decode()}
            case "clusters":
                return {"rows": engine.describe_clusters()}
            case "connections":
                return {"rows": engine.describe_connections(), "open": engine.connections}
            case "collect":
                found = gc.collect()
                return {"garbage": found + len(gc.garbage), "types": Counter(type(each).__name__ for each in gc.get_objects())}
            case "counters":
                read = counters.read(block)
                assert read is not None
                scalars = dict(zip((row[0] for row in counters.SCALARS), read[1], strict=True))
                return {"scalars": scalars, "faults": {name: n for name, n in zip(faults.NAMES, read[2], strict=True) if n}}
            case "skip":
                ctypes.CDLL(None).skipping_clock_skip(ctypes.c_long(order["seconds"]))
                # in steps of the loop's own, as if it had passed
                engine.on_tick()
                return {}
            case "drain":
                engine.drain(order["ms"])
                return {}
        raise AssertionError(order)

    held = b""

    def on_order() -> None:
        nonlocal held
        piece = os.read(0, 1 << 20)
        if not piece:
            loop.stop()
        *lines, held = (held + piece).split(b"\n")
        try:
            for line in lines:
                channel.write(json.dumps(obey(json.loads(line))).encode() + b"\n")
        except BaseException:
            # The parent must not wait for an answer that never comes.
            traceback.print_exc()
            os._exit(70)

    def tick() -> None:
        engine.on_tick()
        loop.call_later(0.02, tick)

    loop.add_reader(engine.fileno(), engine.on_ready)
    loop.add_reader(0, on_order)
    tick()
    gc.collect()
    gc.disable()
    if descriptors:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
    loop.run_forever()
    loop.remove_reader(engine.fileno())
    engine.close()
    for sock in listening.values():
        sock.close()
    loop.close()


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    serve(sys.argv[1], int(sys.argv[2]))
