"""The admin port: health, metrics, configuration, live state and a page to look at. No client byte passes through it.

Its own access rules: it listens where it is told (loopback by default), and a request whose Host is a name is refused on a loopback
address unless the name is localhost, so that a web page cannot reach it by rebinding its own name.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.resources
import ipaddress
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from gateway.admin.state import State

log = logging.getLogger("gateway.admin")

LEVELS = ("debug", "info", "warning", "error", "critical")
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECURITY = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:",
}
MAX_ROWS = 10_000

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _json(value: Any, status: int = 200) -> web.Response:
    body = msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
    return web.Response(body=body, status=status, content_type="application/json", charset="utf-8")


def _text(text: str, status: int = 200) -> web.Response:
    return web.Response(text=text + "\n", status=status)


def _limit_of(request: web.Request, usual: int) -> int:
    with contextlib.suppress(ValueError):
        return min(max(int(request.query.get("limit", "")), 0), MAX_ROWS)
    return usual


def host_is_allowed(host: str, is_loopback: bool) -> bool:
    """Whether a Host field may be answered: any on an open address; on loopback an address or localhost only."""
    if not is_loopback:
        return True
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
    name = name.strip("[]").lower()
    if name in ("localhost", ""):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name.endswith(".localhost")
    return True


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class AdminServer:
    """The aiohttp server over a State. Started and stopped by the supervisor."""

    def __init__(self, state: State, host: str, port: int) -> None:
        self._state = state
        self._host = host
        self._port = port
        self._runner: web.AppRunner | None = None
        self.address = ""
        self.paths: dict[str, str] = {}

    async def start(self) -> None:
        """Listens; `address` then says where (port 0 included). Raises OSError."""
        guard = self._guard(is_loopback(self._host))
        app = web.Application(middlewares=[guard], client_max_size=64 * 1024)
        routes: list[tuple[str, str, Answer, str]] = [
            ("GET", "/", self._page, "this gateway at a glance"),
            ("GET", "/healthz", self._healthz, "200 while the supervisor lives"),
            ("GET", "/readyz", self._readyz, "200 when traffic may come"),
            ("GET", "/metrics", self._metrics, "Prometheus metrics"),
            ("GET", "/stats", self._stats, "the live numbers as JSON"),
            ("GET", "/config", self._config, "the configuration in use, secrets left out"),
            ("GET", "/config/problems", self._problems, "what is wrong with the sources"),
            ("GET", "/config/certificates", self._certificates, "certificates in use: names, issuer, end"),
            ("GET", "/snapshot", self._snapshot, "the compiled snapshot in use"),
            ("GET", "/clusters", self._clusters, "clusters and endpoints: state and counts"),
            ("GET", "/connections", self._connections, "live connections (?limit=N)"),
            ("GET", "/limits/top", self._top_keys, "keys that rate limits met most in the last minutes (?limit=N of each)"),
            ("GET", "/loglevel", self._get_level, "the log level; PUT a new one as the body"),
            ("PUT", "/loglevel", self._put_level, ""),
        ]
        for method, path, answer, what in routes:
            app.router.add_route(method, path, answer)
            if method == "GET":
                app.router.add_route("HEAD", path, answer)
                self.paths[path] = what
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            site = web.TCPSite(self._runner, self._host or None, self._port, reuse_address=True)
            await site.start()
        except OSError:
            await self._runner.cleanup()
            raise
        name = self._runner.addresses[0]
        self.address = f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def _guard(self, on_loopback: bool) -> Any:
        @web.middleware
        async def guard(request: web.Request, handler: Answer) -> web.StreamResponse:
            if not host_is_allowed(request.headers.get("Host", ""), on_loopback):
                return _text("this Host is not served here", 421)
            try:
                response = await handler(request)
            except web.HTTPNotFound:
                response = self._not_found(request)
            except web.HTTPMethodNotAllowed as error:
                response = _text(f"{request.path} takes {', '.join(sorted(error.allowed_methods))}", 405)
                response.headers["Allow"] = ", ".join(sorted(error.allowed_methods))
            except (web.HTTPException, asyncio.CancelledError):
                raise
            except Exception:
                # A bug in a page must neither end the supervisor nor tell the client about its inside.
                log.exception("admin %s %s", request.method, request.path)
                response = _text("internal error; see the log", 500)
            for name, value in SECURITY.items():
                response.headers.setdefault(name, value)
            return response

        return guard

    def _not_found(self, request: web.Request) -> web.Response:
        if "json" in request.headers.get("Accept", ""):
            return _json({"error": "not found", "paths": self.paths}, 404)
        width = max(len(path) for path in self.paths)
        return _text("not found; known paths:\n" + "\n".join(f"  {path:{width}}  {what}" for path, what in self.paths.items()), 404)

    async def _page(self, request: web.Request) -> web.Response:
        page = importlib.resources.files("gateway.admin").joinpath("dashboard", "index.html").read_bytes()
        return web.Response(body=page, content_type="text/html", charset="utf-8")

    async def _healthz(self, request: web.Request) -> web.Response:
        return _text("ok") if self._state.is_live() else _text("not live", 503)

    async def _readyz(self, request: web.Request) -> web.Response:
        reason = self._state.unready_reason()
        if reason:
            return _text(f"not ready: {reason}", 503)
        stale = self._state.stale_reason()
        return _text(f"ok, but stale: {stale}" if stale else "ok")

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=await self._state.metrics(), headers={"Content-Type": METRICS_TYPE})

    async def _stats(self, request: web.Request) -> web.Response:
        return _json(await self._state.stats())

    async def _config(self, request: web.Request) -> web.Response:
        # Ten thousand routes are megabytes of JSON: not on the loop.
        return await asyncio.to_thread(lambda: _json(self._state.config()))

    async def _problems(self, request: web.Request) -> web.Response:
        return _json(self._state.problems())

    async def _certificates(self, request: web.Request) -> web.Response:
        return _json(self._state.certificates())

    async def _snapshot(self, request: web.Request) -> web.Response:
        return _json(self._state.snapshot())

    async def _clusters(self, request: web.Request) -> web.Response:
        return _json(await self._state.clusters())

    async def _connections(self, request: web.Request) -> web.Response:
        return _json(await self._state.connections(_limit_of(request, 1000)))

    async def _top_keys(self, request: web.Request) -> web.Response:
        return _json(await self._state.top_keys(_limit_of(request, 20)))

    async def _get_level(self, request: web.Request) -> web.Response:
        return _text(self._state.log_level())

    async def _put_level(self, request: web.Request) -> web.Response:
        level = (await request.text()).strip().lower()
        if level not in LEVELS:
            return _text(f"no such level; one of {', '.join(LEVELS)}", 400)
        self._state.set_log_level(level)
        return _text(level)
