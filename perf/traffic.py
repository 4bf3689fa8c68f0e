"""Which load generator sends the traffic of a cell, and what it is told."""

from pathlib import Path

from perf import tls
from perf.cells import Cell
from perf.gateways import Gateway
from perf.load import Command, h2load, loadgen, shakes, wrk
from perf.machine import find_tool


def tools_of(cell: Cell) -> tuple[str, ...]:
    """Programs without which a cell cannot be measured. In the clear loadgen.c stands in for wrk, but not in TLS or HTTP/2."""
    if cell.streams:
        return ("openssl", "h2load") if cell.tls else ("h2load",)
    if not cell.tls:
        return ()
    if cell.shakes:
        return ("openssl",)
    return ("openssl", "h2load" if cell.upload else "wrk")


def port_of(cell: Cell, gateway: Gateway) -> int:
    if cell.streams:
        return gateway.h2s if cell.tls else gateway.h2c
    return gateway.tls if cell.tls else gateway.port


def upload_file(run: Path, size: int) -> Path:
    path = run / f"upload-{size}"
    if not path.exists():
        path.write_bytes(b"x" * size)
    return path


def command(
    cell: Cell, gateway: Gateway, run: Path, seconds: float, *, rate: float = 0.0, connections: int = 0, steady: bool = False
) -> Command:
    """As fast as it goes, or (in the clear) at a fixed rate. `steady`: loadgen.c where it can be, as the profiler has it always
    had, because its connections are opened before its time begins."""
    connections = connections or cell.connections
    offer = (f"--tls13-ciphers={tls.CIPHER}", f"--groups={tls.GROUP}")
    if cell.streams:
        return h2load(
            port_of(cell, gateway),
            seconds=seconds,
            connections=connections,
            streams=cell.streams,
            path=cell.path,
            body=upload_file(run, cell.upload) if cell.upload else None,
            fields=cell.fields,
            tls=offer if cell.tls else None,
        )
    if cell.tls:
        env = tls.client_environment(run)
        if cell.shakes:
            return shakes(gateway.tls, seconds=seconds, connections=connections, env=env)
        if cell.upload:
            body = upload_file(run, cell.upload)
            return h2load(gateway.tls, seconds=seconds, connections=connections, path=cell.path, body=body, tls=offer)
        return wrk(gateway.tls, seconds=seconds, connections=connections, path=cell.path, tls=env)
    if cell.wrk and not rate and not steady and find_tool("wrk"):
        return wrk(gateway.port, seconds=seconds, connections=connections, path=cell.path)
    return loadgen(
        gateway.port, seconds=seconds, connections=connections, rate=rate, path=cell.path, upload=cell.upload, close=cell.close
    )
