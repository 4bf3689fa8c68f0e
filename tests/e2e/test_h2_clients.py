"""curl, nghttp and h2load as clients, in the clear and over TLS: bulk both ways, many streams, reloads and the end under load."""

import asyncio
import hashlib
import json
import random
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from gateway_process import Gateway
from pki import Authority, write_pair
from quick_origin import QuickOrigin
from until import wait_until

HOST = {"clear": "127.0.0.1", "secure": "127.0.0.2"}
BLOCK = random.Random(4).randbytes(1 << 20)
COUNT = 100                     # blocks of a bulk transfer
CONFIG = """\
accessLog: {{format: {log}}}
drain: {{delay: 0s, timeout: 20s}}
listeners:
  - {{name: clear, address: "127.0.0.1:0"}}
  - name: secure
    address: 127.0.0.2:0
    protocol: HTTPS
    tls: {{certificates: [{{cert: web.crt, key: web.key}}]}}
routes:
  - name: all
    rules:
      - filters:
          - type: ResponseHeaderModifier
            responseHeaderModifier: {{set: [{{name: x-number, value: "{number}"}}]}}
        backendRefs: [{{name: app}}]
clusters:
  - {{name: app, endpoints: ["{origin}"]}}
"""


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [name for name in programs if shutil.which(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"no {', '.join(missing)} here: apt-get install curl nghttp2-client")


def blocks(count: int) -> str:
    """The hash of so many blocks."""
    digest = hashlib.sha256()
    for _ in range(count):
        digest.update(BLOCK)
    return digest.hexdigest()


class BulkOrigin:
    """GET /blocks/N is N blocks, without a length; what is sent to /sum is answered with its hash."""

    def __enter__(self) -> str:
        self._loop = asyncio.new_event_loop()
        app = web.Application(client_max_size=1 << 30)
        app.router.add_get("/blocks/{count}", self._blocks)
        app.router.add_route("*", "/sum", self._sum)
        self._runner = web.AppRunner(app, access_log=None)
        self._loop.run_until_complete(self._runner.setup())
        self._loop.run_until_complete(web.TCPSite(self._runner, "127.0.0.1", 0).start())
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        return f"127.0.0.1:{self._runner.addresses[0][1]}"

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _blocks(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(int(request.match_info["count"])):
            await response.write(BLOCK)
        await response.write_eof()
        return response

    async def _sum(self, request: web.Request) -> web.Response:
        digest = hashlib.sha256()
        async for piece in request.content.iter_chunked(1 << 18):
            digest.update(piece)
        return web.Response(text=digest.hexdigest())


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def start(place: Path, authority: Authority, origin: str, *, log: str = "off", more: str = "") -> Gateway:
    write_pair(place, "web", authority.issue(HOST["secure"]))
    (place / "ca.pem").write_bytes(authority.pem)
    (place / "gateway.yaml").write_text(f"{CONFIG.format(origin=origin, log=log, number=0)}{more}\n")
    return Gateway(place / "gateway.yaml", workers=1)


@pytest.fixture(scope="module")
def bulk(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Gateway]:
    with BulkOrigin() as origin, start(tmp_path_factory.mktemp("bulk"), authority, origin) as running:
        yield running


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("content") / "bulk"
    with path.open("wb") as file:
        for _ in range(COUNT):
            file.write(BLOCK)
    yield path
    path.unlink()


def url(gateway: Gateway, listener: str, path: str = "/") -> str:
    return f"{'http' if listener == 'clear' else 'https'}://{gateway.address(listener)}{path}"


def curl(gateway: Gateway, listener: str, path: str, *more: str) -> tuple[str, str]:
    """Hash of what came, and what curl says: version, status, size."""
    how = ["--http2-prior-knowledge"] if listener == "clear" else ["--http2", "--cacert", str(gateway.config.parent / "ca.pem")]
    told = "%{stderr}%{http_version} %{http_code} %{size_download}"
    command = ["curl", "-sS", "-m", "120", *how, "-w", told, *more, url(gateway, listener, path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None and running.stderr is not None
        digest, first = hashlib.sha256(), b""
        while piece := running.stdout.read(1 << 20):
            digest.update(piece)
            first = first or piece
        said = running.stderr.read().decode()
    assert running.returncode == 0, said
    return (first.decode() if len(first) == 64 else digest.hexdigest()), said


@needs("curl")
@pytest.mark.parametrize("listener", ["clear", "secure"])
def test_curl_downloads_100_mib(bulk: Gateway, listener: str) -> None:
    assert curl(bulk, listener, f"/blocks/{COUNT}") == (blocks(COUNT), f"2 200 {COUNT << 20}")


@needs("curl")
@pytest.mark.parametrize("listener", ["clear", "secure"])
def test_curl_uploads_100_mib(bulk: Gateway, content: Path, listener: str) -> None:
    assert curl(bulk, listener, "/sum", "-T", str(content), "-X", "POST") == (blocks(COUNT), "2 200 64")


@needs("nghttp")
@pytest.mark.parametrize("listener", ["clear", "secure"])
def test_nghttp_uploads_100_mib(bulk: Gateway, content: Path, listener: str) -> None:
    command = ["nghttp", "--no-dep", "-y", "-t", "120", "-d", str(content), url(bulk, listener, "/sum")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert run.stdout.strip() == blocks(COUNT), run.stdout[:500] + run.stderr[:500]


@needs("nghttp")
@pytest.mark.parametrize("listener", ["clear", "secure"])
def test_nghttp_asks_a_hundred_things_at_once(bulk: Gateway, listener: str) -> None:
    command = ["nghttp", "-n", "-s", "-y", "-t", "120", "-m", "100", url(bulk, listener, "/blocks/1")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=150)
    rows = re.findall(r"^ *\d+ +\+\S+ +\+\S+ +\S+ +(\d+) +(\S+) +/blocks/1$", run.stdout, re.M)
    assert rows == [("200", "1M")] * 100, run.stdout[-2000:] + run.stderr[-500:]


@needs("h2load")
@pytest.mark.parametrize("listener", ["clear", "secure"])
def test_h2load_takes_a_hundred_streams_at_once(bulk: Gateway, listener: str) -> None:
    command = ["h2load", "-n", "100", "-c", "1", "-m", "100", url(bulk, listener, "/blocks/1")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert told(run.stdout) == {"started": 100, "done": 100, "succeeded": 100, "failed": 0, "errored": 0, "timeout": 0}, run.stdout
    assert re.search(rf"\({100 << 20}\) data$", run.stdout, re.M), run.stdout


# ---- changes and the end under load

WORDS = ("started", "done", "succeeded", "failed", "errored", "timeout")


def is_whole(report: str) -> int:
    """How many requests of a load that was told to go were answered: with 200, all of them."""
    statuses = re.search(r"^status codes: (\d+) 2xx, 0 3xx, 0 4xx, 0 5xx", report, re.M)
    assert statuses, report
    return int(statuses[1])


def told(report: str) -> dict[str, int]:
    found = re.search(r"^requests: \d+ total" + "".join(rf", (\d+) {word}" for word in WORDS), report, re.M)
    assert found, report
    return dict(zip(WORDS, map(int, found.groups()), strict=True))


def requests_so_far(gateway: Gateway) -> int:
    return int(gateway.stats()["totals"]["requests"])


@pytest.fixture(scope="module")
def quick() -> Iterator[QuickOrigin]:
    with QuickOrigin() as running:
        yield running


@needs("h2load")
@pytest.mark.parametrize("listener", ["clear", "secure"])
def test_reloads_under_h2load_lose_no_request(tmp_path: Path, authority: Authority, quick: QuickOrigin, listener: str) -> None:
    with start(tmp_path, authority, quick.address) as gateway:
        command = ["h2load", "-n", "4000", "-c", "4", "-m", "25", url(gateway, listener)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:
            number = 0
            while load.poll() is None and number < 200:
                number += 1
                before = gateway.revision
                gateway.write(CONFIG.format(origin=quick.address, log="off", number=number))
                wait_until(lambda before=before: gateway.revision > before)  # type: ignore[misc]
            report = load.communicate(timeout=120)[0]
        assert number >= 1
        assert told(report) == {"started": 4000, "done": 4000, "succeeded": 4000, "failed": 0, "errored": 0, "timeout": 0}


@needs("h2load")
@pytest.mark.parametrize("listener", ["clear", "secure"])
def test_the_greatest_age_under_h2load_loses_no_request(
    tmp_path: Path, authority: Authority, quick: QuickOrigin, listener: str
) -> None:
    """GOAWAY ends each client, which opens no further connection: every stream that the gateway took up has its answer."""
    with start(tmp_path, authority, quick.address, more="limits: {maxConnectionAge: 500ms}") as gateway:
        command = ["h2load", "-n", "5000000", "-c", "4", "-m", "25", url(gateway, listener)]
        report = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60).stdout
        assert requests_so_far(gateway) == is_whole(report) > 1000, report


@needs("h2load")
@pytest.mark.parametrize("listener", ["clear", "secure"])
def test_sigterm_under_h2load_loses_no_request(tmp_path: Path, authority: Authority, quick: QuickOrigin, listener: str) -> None:
    """GOAWAY ends the load, which opens no further connection: every stream that the gateway took up has its answer, whole."""
    clients, streams = 4, 25
    with start(tmp_path, authority, quick.address, log="json") as gateway:
        command = ["h2load", "-n", "5000000", "-c", str(clients), "-m", str(streams), url(gateway, listener)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:
            wait_until(lambda: requests_so_far(gateway) > 1000, 60)
            gateway.signal(signal.SIGTERM)
            report = load.communicate(timeout=60)[0]
        assert gateway.process.wait(60) == 0
        lines = [json.loads(line) for line in gateway.stdout.splitlines()]
    assert {(line["status"], line["flags"], line["detail"]) for line in lines} == {(200, "-", "")}
    assert is_whole(report) == len(lines) > 1000
