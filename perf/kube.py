"""How fast a cluster's changes arrive, and what a large one costs: a gateway that watches the tests' API server on a socket.

`python -m perf kube`. Objects are made, not read: one Gateway, Services with their EndpointSlices, HTTPRoutes with two rules each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perf import machine
from perf.bench import end_on_signals

sys.path.insert(0, str(machine.ROOT / "tests" / "lib"))

NAMESPACES = 50
CONTROLLER = "isthmus.io/gateway-controller"

Json = dict[str, Any]


def meta(name: str, namespace: str, **more: Any) -> Json:
    return {"name": name, "namespace": namespace, **more}


def namespace_of(service: int) -> str:
    return f"team-{service % NAMESPACES}"


def service_objects(number: int, endpoints: int, port: int) -> tuple[Json, Json]:
    """A Service and its slice. Every address is one of this machine, and leads to the origin."""
    name, namespace = f"s{number}", namespace_of(number)
    rows = [
        {"addresses": [f"127.{1 + (number >> 8)}.{number & 255}.{1 + each}"], "conditions": {"ready": True}}
        for each in range(endpoints)
    ]
    return (
        {
            "kind": "Service", "metadata": meta(name, namespace),
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80, "targetPort": port}]},
        },
        {
            "kind": "EndpointSlice", "metadata": meta(f"{name}-x", namespace, labels={"kubernetes.io/service-name": name}),
            "addressType": "IPv4", "endpoints": rows, "ports": [{"port": port, "name": ""}],
        },
    )  # fmt: skip


def route_object(number: int, services: int, path: str = "/first") -> Json:
    one = number % services
    two = (one + NAMESPACES) % services
    namespace = namespace_of(one)
    edit = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x-team", "value": namespace}]}}
    return {
        "kind": "HTTPRoute", "metadata": meta(f"r{number}", namespace),
        "spec": {
            "parentRefs": [{"name": "gw", "namespace": "infra"}], "hostnames": [host_of(number)],
            "rules": [
                {"matches": [{"path": {"value": "/api"}}], "backendRefs": [{"name": f"s{one}", "port": 80}]},
                {"matches": [{"path": {"value": path}}], "filters": [edit], "backendRefs": [{"name": f"s{two}", "port": 80}]},
            ],
        },
    }  # fmt: skip


def host_of(number: int) -> str:
    return f"r{number}.example.test"


def gateway_objects(port: int) -> tuple[Json, Json]:
    allowed = {"namespaces": {"from": "All"}}
    return (
        {"kind": "GatewayClass", "metadata": {"name": "isthmus"}, "spec": {"controllerName": CONTROLLER}},
        {
            "kind": "Gateway", "metadata": meta("gw", "infra"),
            "spec": {
                "gatewayClassName": "isthmus",
                "listeners": [{"name": "http", "port": port, "protocol": "HTTP", "allowedRoutes": allowed}],
            },
        },
    )  # fmt: skip


@dataclass(slots=True)
class Found:
    """The figures, in the units of their names."""

    cold_start_s: float = 0.0
    route_ms: list[float] = field(default_factory=list)
    slice_ms: list[float] = field(default_factory=list)
    added: int = 0
    added_s: float = 0.0
    answers: Counter[int] = field(default_factory=Counter)
    """Of the load while routes are added, and of the routes themselves until each answers."""
    rss_mb: float = 0.0
    peak_mb: float = 0.0
    status_writes: int = 0
    most_writes: int = 0
    """Of one route in one generation."""


def part(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else float("nan")


class Client:
    """Requests on a connection that stays."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def get(self, host: str, path: str) -> tuple[int, bytes]:
        if self._writer is None or self._reader is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        body = await self._reader.readexactly(length) if length else b""
        return int(head[9:12]), body


async def origin(word: bytes) -> tuple[asyncio.Server, int]:
    """Answers every request with a word, on every address that this machine has."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(word), word)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "0.0.0.0", 0)
    return server, int(server.sockets[0].getsockname()[1])


class Bench:
    """One run."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        from apiserver import ApiServer

        self.options = options
        self.folder = folder
        self.server = ApiServer()
        self.found = Found()
        self.port = machine.free_ports(1)[0]
        self.process: subprocess.Popen[bytes]

    async def run(self) -> Found:
        options = self.options
        first, self.one = await origin(b"one")
        second, self.two = await origin(b"two")
        self.server.seed(*gateway_objects(self.port))
        for number in range(options.services):
            self.server.seed(*service_objects(number, options.endpoints, self.one))
        for number in range(options.routes):
            self.server.seed(route_object(number, options.services))
        await self.server.start()
        try:
            for step in (self.cold_start, self.settle, self.change_routes, self.change_slices, self.add_routes, self.settle):
                begun = time.perf_counter()
                await step()
                print(f"# {step.__name__}: {time.perf_counter() - begun:.1f} s", file=sys.stderr)
            self.weigh()
        finally:
            self.process.terminate()
            await asyncio.to_thread(self.process.wait)
            await self.server.stop()
            first.close()
            second.close()
        return self.found

    async def cold_start(self) -> None:
        kubeconfig, config = self.folder / "kubeconfig", self.folder / "gateway.yaml"
        names = {"cluster": "here", "user": "me", "namespace": "isthmus"}
        kubeconfig.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "here", "contexts": [{"name": "here", "context": names}],
            "clusters": [{"name": "here", "cluster": {"server": self.server.url}}],
            "users": [{"name": "me", "user": {"token": self.server.token}}],
        }))  # fmt: skip
        section = {"enabled": True, "kubeconfig": str(kubeconfig)}
        plain = {"kubernetes": section, "drain": {"delay": "0s", "timeout": "1s"}, "accessLog": {"format": "off"}}
        config.write_text(json.dumps(plain))
        command = [sys.executable, "-m", "gateway", "run", "--config", str(config), "--admin", "127.0.0.1:0", "--workers"]
        begun = time.perf_counter()
        with (self.folder / "log").open("wb") as log:
            command = [*command, str(self.options.workers)]
            self.process = subprocess.Popen(command, cwd=machine.ROOT, stdout=log, stderr=log)  # noqa: ASYNC220
        while not self._is_programmed():
            if self.process.poll() is not None:
                raise RuntimeError((self.folder / "log").read_text()[-2000:])
            await asyncio.sleep(0.01)
        self.found.cold_start_s = time.perf_counter() - begun

    def _is_programmed(self) -> bool:
        conditions = self.server.status("Gateway", "gw", "infra").get("conditions", [])
        return any(each["type"] == "Programmed" and each["status"] == "True" for each in conditions)

    async def settle(self) -> None:
        """Until every route has its status, and nobody writes any more."""
        while True:
            routes = [value for key, value in self.server.objects.items() if key[1] == "httproutes"]
            before = self.server.version
            await asyncio.sleep(0.5)
            if before == self.server.version and all("status" in each for each in routes):
                return

    async def change_routes(self) -> None:
        """One rule of one route gets another path; until that path answers."""
        client = Client(self.port)
        for number in range(self.options.changes):
            path = f"/new-{number}"
            target = number * 37 % self.options.routes
            begun = time.perf_counter()
            await self.server.put(route_object(target, self.options.services, path))
            while (status := (await client.get(host_of(target), path))[0]) != 200:
                if status != 404:
                    raise RuntimeError(f"{status} where 404 or 200 was due")
                await asyncio.sleep(0.001)
            self.found.route_ms.append((time.perf_counter() - begun) * 1000)
            await asyncio.sleep(0.3)

    async def change_slices(self) -> None:
        """Other pods behind one Service; until one of them answers."""
        client = Client(self.port)
        for number in range(self.options.changes):
            service = number * 13 % self.options.services
            host = host_of(service + self.options.services * 2)
            _, there = service_objects(service, self.options.endpoints, self.two)
            begun = time.perf_counter()
            await self.server.put(there)
            while (await client.get(host, "/api"))[1] != b"two":
                await asyncio.sleep(0.001)
            self.found.slice_ms.append((time.perf_counter() - begun) * 1000)
            await asyncio.sleep(0.2)

    async def add_routes(self) -> None:
        """New routes one by one while others are asked for; a route that is not there yet may be answered 404 and nothing else."""
        is_over = asyncio.Event()

        async def ask(offset: int) -> None:
            client, number = Client(self.port), offset
            while not is_over.is_set():
                status, _ = await client.get(host_of(number % self.options.routes), "/api")
                self.found.answers[status] += 1
                number += 101
                await asyncio.sleep(0.002)

        load = [asyncio.get_running_loop().create_task(ask(each)) for each in range(8)]
        client = Client(self.port)
        begun = time.perf_counter()
        last = 0
        for number in range(self.options.added):
            last = self.options.routes + number
            await self.server.put(route_object(last, self.options.services))
            self.found.answers[(await client.get(host_of(last), "/api"))[0]] += 1
            await asyncio.sleep(0.005)
        while (await client.get(host_of(last), "/api"))[0] != 200:
            await asyncio.sleep(0.01)
        self.found.added, self.found.added_s = self.options.added, time.perf_counter() - begun
        for number in range(self.options.added):
            status, _ = await client.get(host_of(self.options.routes + number), "/api")
            self.found.answers[status if status == 200 else -status] += 1
        is_over.set()
        await asyncio.gather(*load)

    def weigh(self) -> None:
        """Memory of the control plane, and what was written."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("Vm")}
        self.found.rss_mb, self.found.peak_mb = sizes["VmRSS"], sizes["VmHWM"]
        writes = {path: count for path, count in self.server.writes().items() if "/httproutes/" in path}
        self.found.status_writes = sum(writes.values())
        for path, count in writes.items():
            *_, namespace, _, name, _ = path.split("/")
            generation = self.server.get("HTTPRoute", name, namespace)["metadata"]["generation"]
            self.found.most_writes = max(self.found.most_writes, count - generation + 1)


def table(found: Found) -> str:
    errors = sum(count for status, count in found.answers.items() if status not in (200, 404))
    rows = [
        ("cold start to Programmed", f"{found.cold_start_s:.1f} s", "10 s"),
        ("one route changed, p50 / p99", f"{part(found.route_ms, 0.5):.0f} / {part(found.route_ms, 0.99):.0f} ms", "p99 100 ms"),
        ("one slice changed, p50 / p99", f"{part(found.slice_ms, 0.5):.0f} / {part(found.slice_ms, 0.99):.0f} ms", "p99 50 ms"),
        (f"{found.added} routes added one by one", f"{found.added_s:.0f} s, {errors} errors", "0 errors"),
        ("answers meanwhile", ", ".join(f"{status}: {count}" for status, count in sorted(found.answers.items())), ""),
        ("memory of the control plane, peak", f"{found.rss_mb:.0f} MB, {found.peak_mb:.0f} MB", "400 MB"),
        ("status writes, most of a generation", f"{found.status_writes}, {found.most_writes}", "1"),
    ]
    width = max(len(row[0]) for row in rows)
    return "\n".join(f"{name:{width}}  {value:28}  {bar}" for name, value, bar in rows)


def parse_options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m perf kube", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--routes", type=int, default=5000, help="HTTPRoutes, of two rules each; three times the Services at least")
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--endpoints", type=int, default=20, help="of each Service")
    parser.add_argument("--changes", type=int, default=100, help="of a route and of a slice, each timed")
    parser.add_argument("--added", type=int, default=3000, help="routes that are added one by one under load")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--urgent", action="store_true", help="before all others on this machine; needs the right to")
    options = parser.parse_args(argv)
    if options.services % NAMESPACES or options.routes < 3 * options.services:
        parser.error(f"Services by {NAMESPACES}, one for each namespace, and three routes or more for each")
    return options


def main(argv: Sequence[str]) -> int:
    options = parse_options(argv)
    end_on_signals()
    machine.raise_files()
    if options.urgent:
        machine.go_first()
    with tempfile.TemporaryDirectory(prefix="isthmus-perf-") as folder:
        found = asyncio.run(Bench(options, Path(folder)).run())
    print(f"{options.routes} HTTPRoutes, {options.services} Services, {options.services * options.endpoints} endpoints; "
          f"{os.cpu_count()} cores, {options.workers} workers, load {os.getloadavg()[0]:.1f}")  # fmt: skip
    print(table(found))
    return 0
