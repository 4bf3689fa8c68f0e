"""The admin port: what each page answers, who may ask, and how little it tells those who may not."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from gateway.admin.server import AdminServer, host_is_allowed, is_loopback


class Double:
    """Stands for the supervisor."""

    def __init__(self) -> None:
        self.level = "info"
        self.reason = ""
        self.stale = ""
        self.live = True
        self.limits: list[int] = []

    def is_live(self) -> bool:
        return self.live

    def unready_reason(self) -> str:
        return self.reason

    def stale_reason(self) -> str:
        return self.stale

    async def metrics(self) -> bytes:
        return b"# HELP x y\n"

    def config(self) -> dict[str, Any]:
        return {"listeners": [{"name": "web"}]}

    def problems(self) -> dict[str, Any]:
        raise RuntimeError("secret inner detail")

    def certificates(self) -> list[dict[str, Any]]:
        return [{"listener": "web", "names": ("a.test",), "not_after": "2030-01-01T00:00:00Z"}]

    def snapshot(self) -> dict[str, Any]:
        return {"revision": 3}

    async def top_keys(self, limit: int) -> list[dict[str, Any]]:
        return [{"name": "few", "keys": [limit]}]

    async def clusters(self) -> list[dict[str, Any]]:
        return [{"name": "a", "id": 2**63 + 1}]

    async def connections(self, limit: int) -> list[dict[str, Any]]:
        self.limits.append(limit)
        return []

    def log_level(self) -> str:
        return self.level

    def set_log_level(self, level: str) -> None:
        self.level = level

    async def stats(self) -> dict[str, Any]:
        return {"ready": not self.reason}


Story = Callable[[aiohttp.ClientSession, str, Double], Awaitable[None]]


def tell(story: Story, host: str = "127.0.0.1") -> None:
    async def run() -> None:
        double = Double()
        server = AdminServer(double, host, 0)
        await server.start()
        try:
            async with aiohttp.ClientSession() as session:
                await story(session, f"http://{server.address}", double)
        finally:
            await server.stop()

    asyncio.run(asyncio.wait_for(run(), 30))


def test_health_is_liveness_and_readiness_has_a_reason() -> None:
    async def story(session: aiohttp.ClientSession, base: str, double: Double) -> None:
        assert (await session.get(f"{base}/healthz")).status == 200
        assert (await session.get(f"{base}/readyz")).status == 200
        double.stale = "no API server"
        answer = await session.get(f"{base}/readyz")
        assert answer.status == 200 and await answer.text() == "ok, but stale: no API server\n"
        double.reason = "stopping"
        answer = await session.get(f"{base}/readyz")
        assert answer.status == 503 and await answer.text() == "not ready: stopping\n"
        assert (await session.get(f"{base}/healthz")).status == 200
        double.live = False
        assert (await session.get(f"{base}/healthz")).status == 503

    tell(story)


def test_metrics_say_their_format_and_json_pages_are_json() -> None:
    async def story(session: aiohttp.ClientSession, base: str, double: Double) -> None:
        answer = await session.get(f"{base}/metrics")
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4") and await answer.read() == b"# HELP x y\n"
        for path, expected in (
            ("/config", double.config()),
            ("/config/certificates", [{"listener": "web", "names": ["a.test"], "not_after": "2030-01-01T00:00:00Z"}]),
            ("/snapshot", {"revision": 3}),
            ("/clusters", [{"name": "a", "id": 2**63 + 1}]),
            ("/limits/top", [{"name": "few", "keys": [20]}]),
            ("/limits/top?limit=3", [{"name": "few", "keys": [3]}]),
            ("/limits/top?limit=-3", [{"name": "few", "keys": [0]}]),
            ("/limits/top?limit=x", [{"name": "few", "keys": [20]}]),
            ("/stats", {"ready": True}),
        ):
            answer = await session.get(base + path)
            assert answer.content_type == "application/json" and json.loads(await answer.text()) == expected
            assert answer.headers["Cache-Control"] == "no-store"

    tell(story)


def test_connections_are_limited() -> None:
    async def story(session: aiohttp.ClientSession, base: str, double: Double) -> None:
        for query in ("", "?limit=5", "?limit=x", "?limit=999999999", "?limit=-4"):
            assert (await session.get(f"{base}/connections{query}")).status == 200
        assert double.limits == [1000, 5, 1000, 10_000, 0]

    tell(story)


def test_the_log_level_is_read_and_set() -> None:
    async def story(session: aiohttp.ClientSession, base: str, double: Double) -> None:
        assert await (await session.get(f"{base}/loglevel")).text() == "info\n"
        assert (await session.put(f"{base}/loglevel", data="DEBUG\n")).status == 200
        assert double.level == "debug"
        answer = await session.put(f"{base}/loglevel", data="loud")
        assert answer.status == 400 and "debug, info" in await answer.text() and double.level == "debug"
        answer = await session.delete(f"{base}/loglevel")
        assert answer.status == 405 and answer.headers["Allow"] == "GET, HEAD, PUT"

    tell(story)


def test_an_unknown_path_lists_the_known_ones() -> None:
    async def story(session: aiohttp.ClientSession, base: str, double: Double) -> None:
        answer = await session.get(f"{base}/nothing")
        text = await answer.text()
        assert answer.status == 404 and "/config/problems" in text and "/healthz" in text
        answer = await session.get(f"{base}/nothing", headers={"Accept": "application/json"})
        assert answer.status == 404 and "/readyz" in json.loads(await answer.text())["paths"]

    tell(story)


def test_a_bug_in_a_page_is_a_500_without_its_inside() -> None:
    async def story(session: aiohttp.ClientSession, base: str, double: Double) -> None:
        answer = await session.get(f"{base}/config/problems")
        assert answer.status == 500 and "secret" not in await answer.text()
        assert (await session.get(f"{base}/healthz")).status == 200

    tell(story)


def test_the_page_needs_nothing_from_elsewhere() -> None:
    async def story(session: aiohttp.ClientSession, base: str, double: Double) -> None:
        answer = await session.get(f"{base}/")
        page = await answer.text()
        assert answer.content_type == "text/html" and "<title>Isthmus</title>" in page
        assert "src=" not in page and "https://" not in page
        # The one name of the SVG namespace aside, nothing points outside.
        assert page.replace("http://www.w3.org/2000/svg", "").count("http://") == 0
        assert "innerHTML" not in page
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]

    tell(story)


def test_a_name_that_was_rebound_to_loopback_is_refused() -> None:
    async def story(session: aiohttp.ClientSession, base: str, double: Double) -> None:
        answer = await session.get(f"{base}/config", headers={"Host": "evil.example.com"})
        assert answer.status == 421
        assert (await session.get(f"{base}/config", headers={"Host": "localhost:9901"})).status == 200

    tell(story)


@pytest.mark.parametrize(
    ("host", "on_loopback", "expected"),
    [
        ("127.0.0.1:9901", True, True),
        ("[::1]:9901", True, True),
        ("[::1]", True, True),
        ("localhost", True, True),
        ("a.localhost:80", True, True),
        ("example.com", True, False),
        ("127.0.0.1.example.com:9901", True, False),
        ("gateway.default.svc:9901", False, True),
    ],
)
def test_which_hosts_are_answered(host: str, on_loopback: bool, expected: bool) -> None:
    assert host_is_allowed(host, on_loopback) is expected


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("", False), ("0.0.0.0", False)]
)
def test_what_is_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_a_busy_port_raises_and_leaves_nothing() -> None:
    async def run() -> None:
        first = AdminServer(Double(), "127.0.0.1", 0)
        await first.start()
        second = AdminServer(Double(), "127.0.0.1", int(first.address.rpartition(":")[2]))
        with pytest.raises(OSError):
            await second.start()
        await first.stop()

    asyncio.run(asyncio.wait_for(run(), 30))
