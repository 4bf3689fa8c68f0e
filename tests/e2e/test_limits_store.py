"""Limits that all workers, and all gateways, share: a real gateway, a real store, and everything that may happen to that."""

import collections
import contextlib
import http.client
import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway_process import Gateway, request
from quick_origin import QuickOrigin
from redis_server import RedisServer, either_server
from until import wait_until

__all__ = ["either_server"]

# Nobody waits so long; but a machine that does ten other things at once makes no failure of the store out of it.
PATIENT = "5s"
CONFIG = """\
accessLog: {{format: "off"}}
redis: {{url: "{url}", timeout: {timeout}}}
listeners: [{{name: web, address: "127.0.0.1:0"}}]
rateLimits: [{limits}]
routes: [{{name: all, rules: [{{rateLimits: [one], backendRefs: [{{name: origin}}]}}]}}]
clusters: [{{name: origin, endpoints: ["{origin}"]}}]
"""


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("r")) as running:
        yield running


@pytest.fixture
def origin() -> Iterator[QuickOrigin]:
    with QuickOrigin() as running:
        yield running


def config_text(origin: QuickOrigin, url: str, limits: str, timeout: str = PATIENT) -> str:
    return CONFIG.format(url=url, limits=limits, timeout=timeout, origin=origin.address)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


class Clients:
    """Connections that ask again and again, each in a thread; statuses are counted."""

    def __init__(self, address: str, count: int = 8, most: int = 10**9, fields: dict[str, str] | None = None) -> None:
        """most: requests of all together."""
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._stop = threading.Event()
        self._tickets = itertools.count()
        self._most = most
        self._fields = fields or {}
        self.statuses: collections.Counter[int] = collections.Counter()
        self.failures: list[str] = []
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]

    def _run(self) -> None:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=30)
        while not self._stop.is_set() and next(self._tickets) < self._most:
            try:
                connection.request("GET", "/", headers=self._fields)
                response = connection.getresponse()
                response.read()
                status = response.status
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
                continue
            with self._lock:
                self.statuses[status] += 1
        connection.close()

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self.join()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(60)

    @property
    def answered(self) -> int:
        return sum(self.statuses.values())


def metrics(gateway: Gateway) -> dict[str, float]:
    """By name and labels, as they are written."""
    text = request(gateway.admin, "/metrics")[2].decode()
    rows = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in rows}


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("mode", ["strict", "leased"])
def test_exactly_so_many_are_let_through_whatever_the_number_of_workers(
    server: RedisServer, origin: QuickOrigin, tmp_path: Path, mode: str, workers: int
) -> None:
    """A quota of the month: nothing comes back meanwhile, so that the count is exact, leases included."""
    limits = f"{{name: one, limit: {{requests: 500, per: month}}, algorithm: fixed, key: [constant], mode: {mode}}}"
    with Gateway(write(tmp_path / "c", config_text(origin, server.url, limits)), workers=workers) as gateway:
        with Clients(gateway.address(), most=1500) as clients:
            clients.join()
        let_through = clients.statuses[200]
        assert not clients.failures and clients.statuses.keys() == {200, 429} and let_through <= 500
        if mode == "leased":
            # What was leased for more requests than came is back after a moment.
            deadline = time.monotonic() + 30
            while let_through < 500 and time.monotonic() < deadline:
                let_through += request(gateway.address())[0] == 200
        assert let_through == 500
        assert request(gateway.address())[0] == 429
        with contextlib.closing(server.client()) as client:
            (name,) = client.scan_iter()
            assert client.get(name).split()[2] == b"500" and client.pttl(name) > 0


@pytest.mark.parametrize("pattern", ["steady", "bursty", "aligned"])
@pytest.mark.parametrize("mode", ["strict", "leased"])
def test_never_more_than_the_rate(server: RedisServer, origin: QuickOrigin, tmp_path: Path, mode: str, pattern: str) -> None:
    """200 in a second and 20 more at once: what two gateways together let through is within that, for the time that it took."""
    limits = f"{{name: one, limit: {{requests: 200, per: 1s, burst: 20}}, key: [constant], mode: {mode}}}"
    text = config_text(origin, server.url, limits)
    with Gateway(write(tmp_path / "a", text)) as first, Gateway(write(tmp_path / "b", text)) as second:
        began = time.monotonic()
        statuses: collections.Counter[int] = collections.Counter()
        for _ in range(3 if pattern != "steady" else 1):
            if pattern == "aligned":
                wait_until(lambda: time.time() % 1 > 0.9)
            with Clients(first.address(), 4, 700) as one, Clients(second.address(), 4, 700) as other:
                one.join()
                other.join()
            statuses += one.statuses + other.statuses
        took = time.monotonic() - began
        assert statuses.keys() <= {200, 429} and not one.failures + other.failures
        assert 220 <= statuses[200] <= 220 + 200 * took + 1


@pytest.mark.parametrize(("on_failure", "status"), [("open", 200), ("closed", 503)])
@pytest.mark.parametrize("mode", ["strict", "leased"])
def test_a_store_that_is_killed_under_load(
    either_server: RedisServer, origin: QuickOrigin, tmp_path: Path, mode: str, on_failure: str, status: int
) -> None:
    """No request fails, is answered 5xx against its limit's will, or waits for longer than a moment; then the store is back."""
    server = either_server
    rate = "requests: 1000000, per: 1s"
    limits = f"{{name: one, limit: {{{rate}}}, key: [constant], mode: {mode}, onFailure: {on_failure}}}"
    with Gateway(write(tmp_path / "c", config_text(origin, server.url, limits, "50ms"))) as gateway:
        with Clients(gateway.address()) as clients:
            wait_until(lambda: clients.statuses[200] > 200)
            server.kill()
            before = clients.statuses[status]
            wait_until(lambda: clients.statuses[status] > before + 500)
            assert gateway.is_ready()
            wait_until(lambda: metrics(gateway).get("isthmus_ratelimit_store_breakers_open", 0) > 0)
            server.start()
            wait_until(lambda: metrics(gateway).get("isthmus_ratelimit_store_breakers_open", 1) == 0)
            before = clients.statuses[200]
            wait_until(lambda: clients.statuses[200] > before + 500)
        assert not clients.failures and clients.statuses.keys() <= {200, status}
        told = metrics(gateway)
        assert told['isthmus_ratelimit_store_errors_total{kind="connect"}'] > 0
        assert any("fallback" in name and value for name, value in told.items())


def test_a_store_that_freezes_is_a_limit_of_this_gateway_alone(server: RedisServer, origin: QuickOrigin, tmp_path: Path) -> None:
    """onFailure: local. What the store cannot say, this gateway says by itself: no flood comes through."""
    limits = "{name: one, limit: {requests: 50, per: 1h}, key: [constant], mode: strict, onFailure: local}"
    with Gateway(write(tmp_path / "c", config_text(origin, server.url, limits, "20ms"))) as gateway:
        assert request(gateway.address())[0] in (200, 429)
        server.freeze()
        with Clients(gateway.address(), most=600) as clients:
            clients.join()
        assert not clients.failures and clients.statuses.keys() == {200, 429} and 40 <= clients.statuses[200] <= 60
        server.thaw()


def test_a_gateway_starts_without_its_store(origin: QuickOrigin, tmp_path: Path) -> None:
    """Readiness does not hang on it."""
    limits = "{name: one, limit: {requests: 5, per: 1h}, key: [constant], mode: strict}"
    with Gateway(write(tmp_path / "c", config_text(origin, f"unix://{tmp_path}/none", limits))) as gateway:
        assert [request(gateway.address())[0] for _ in range(20)] == [200] * 20
        wait_until(lambda: "is not asked for a while" in gateway.stderr)


def test_another_store_is_used_without_a_restart(
    tmp_path_factory: pytest.TempPathFactory, origin: QuickOrigin, tmp_path: Path
) -> None:
    limits = "{name: one, limit: {requests: 5, per: month}, algorithm: fixed, key: [constant], mode: strict}"
    with contextlib.ExitStack() as stack:
        one, other = (stack.enter_context(RedisServer(tmp_path_factory.mktemp("r"))) for _ in range(2))
        gateway = stack.enter_context(Gateway(write(tmp_path / "c", config_text(origin, one.url, limits))))
        pids = gateway.serving()
        assert [request(gateway.address())[0] for _ in range(6)] == [200] * 5 + [429]
        gateway.write(config_text(origin, other.url, limits))
        client = stack.enter_context(contextlib.closing(other.client()))
        # What this gateway knows of the key already stays known until its time; a key that it does not know is asked for there.
        wait_until(lambda: client.info("clients")["connected_clients"] > 1)
        assert gateway.serving() == pids


@pytest.mark.parametrize("mode", ["strict", "leased", "local"])
def test_who_was_refused_is_let_in_when_the_limit_is_raised(
    server: RedisServer, origin: QuickOrigin, tmp_path: Path, mode: str
) -> None:
    """At once, and what was used is still used."""

    def limits(requests: int) -> str:
        return f"{{name: one, limit: {{requests: {requests}, per: 24h}}, key: [constant], mode: {mode}}}"

    with Gateway(write(tmp_path / "c", config_text(origin, server.url, limits(2))), workers=2) as gateway:
        statuses = [request(gateway.address())[0] for _ in range(8)]
        assert sorted(statuses) == [200] * 2 + [429] * 6
        gateway.write(config_text(origin, server.url, limits(20)))
        wait_until(lambda: request(gateway.address())[0] == 200)
        more = [request(gateway.address())[0] for _ in range(40)]
        assert more.count(200) == 17 and set(more) == {200, 429}


def test_no_password_is_shown(tmp_path_factory: pytest.TempPathFactory, origin: QuickOrigin, tmp_path: Path) -> None:
    limits = "{name: one, limit: {requests: 5, per: 1h}, key: [constant], mode: strict}"
    secret = "hunter2hunter2"
    with RedisServer(tmp_path_factory.mktemp("r"), args=(f"requirepass {secret}",)) as server:
        text = config_text(origin, f"unix://:{secret}@{server.socket}", limits)
        with Gateway(write(tmp_path / "c", text), args=("--log-level", "debug")) as gateway:
            assert request(gateway.address())[0] == 200
            assert [request(gateway.address())[0] for _ in range(5)][-1] == 429
            server.kill()
            gateway.write(text.replace(secret, "wrongwrong"))
            wait_until(lambda: "is not asked for a while" in gateway.stderr)
            for path in ("/config", "/stats", "/metrics", "/problems", "/"):
                assert secret not in request(gateway.admin, path)[2].decode(errors="replace"), path
            assert secret not in gateway.stderr + gateway.stdout and "wrongwrong" not in gateway.stderr + gateway.stdout


def loads_hiredis(pid: int) -> bool:
    return "hiredis" in Path(f"/proc/{pid}/maps").read_text()


def test_workers_load_what_speaks_to_a_store_when_a_limit_needs_one(
    server: RedisServer, origin: QuickOrigin, tmp_path: Path
) -> None:
    local = "{name: one, limit: {requests: 5, per: 1h}, key: [constant], mode: local}"
    with Gateway(write(tmp_path / "c", config_text(origin, server.url, local))) as gateway:
        assert request(gateway.address())[0] == 200
        assert not any(loads_hiredis(pid) for pid in gateway.serving())
        gateway.write(config_text(origin, server.url, local.replace("local", "strict")))
        wait_until(lambda: all(loads_hiredis(pid) for pid in gateway.serving()))


def test_the_store_is_asked_seldom(server: RedisServer, origin: QuickOrigin, tmp_path: Path) -> None:
    """Leases: a hundred requests for a round trip, and more, once it is known how many come."""
    limits = "{name: one, limit: {requests: 100000, per: 1s}, key: [constant], mode: leased}"
    with Gateway(write(tmp_path / "c", config_text(origin, server.url, limits)), workers=1) as gateway:
        with Clients(gateway.address(), most=3000) as clients:
            clients.join()
        assert clients.statuses == {200: 3000}
        with contextlib.closing(server.client()) as client:
            assert client.info("commandstats")["cmdstat_evalsha"]["calls"] < 300
