"""A small origin that tells what reached it, so that one sees what the gateway did to a request."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from aiohttp import web

from gateway.supervisor.sockets import split_address

MAX_ECHO = 64 * 1024


class Origin:
    """An HTTP/1.1 server with a name, as an async context manager."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self._host, self._port = split_address(address)
        self._runner = web.ServerRunner(web.Server(self._answer, access_log=None))
        self.address = ""

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        self.address = "{}:{}".format(*self._runner.addresses[0][:2])
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        size = 0
        async for chunk in request.content.iter_any():
            size += len(chunk)
        lines = [f"{self.name} got this request:", "", f"{request.method} {request.raw_path}"]
        lines.extend(f"{name}: {value}" for name, value in request.headers.items())
        if size:
            lines.append(f"\n({size} bytes of content)")
        return web.Response(text="\n".join(lines)[:MAX_ECHO] + "\n", headers={"x-origin": self.name})
