"""A real Chromium over TLS and HTTP/2: a page, and WebSocket over the connection of the page (RFC 8441), to an HTTP/1.1 origin."""

import base64
import hashlib
import queue
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from browser import Browser, find
from cryptography.hazmat.primitives import serialization
from gateway_process import Gateway
from pki import Authority, leaf_of, write_pair
from until import wait_until
from websockets.exceptions import ConnectionClosedError
from websockets.sync.server import ServerConnection, serve

CHROMIUM = find()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")

HOST = "127.0.0.2"
CONFIG = """\
accessLog: {{format: off}}
listeners:
  - name: web
    address: 127.0.0.2:0
    protocol: HTTPS
    tls: {{certificates: [{{cert: web.crt, key: web.key}}]}}
routes:
  - name: site
    rules:
      - backendRefs: [{{name: site}}]
      - matches: [{{path: {{type: PathPrefix, value: /socket}}}}]
        backendRefs: [{{name: echo}}]
clusters:
  - {{name: site, endpoints: ["{site}"]}}
  - {{name: echo, endpoints: ["{echo}"]}}
"""

PAGE = b"""<!doctype html><meta charset="utf-8"><title>Sockets</title><link rel="icon" href="data:,">
<script>
async function talk(path) {
  const socket = new WebSocket('wss://' + location.host + path, ['echo.test']);
  socket.binaryType = 'arraybuffer';
  const came = [], waiting = [];
  socket.onmessage = event => waiting.length ? waiting.shift()(event.data) : came.push(event.data);
  const next = () => came.length ? Promise.resolve(came.shift()) : new Promise(done => waiting.push(done));
  await new Promise((done, fail) => { socket.onopen = done; socket.onclose = event => fail(new Error('closed ' + event.code)); });
  const end = new Promise(done => { socket.onclose = event => done([event.code, event.reason, event.wasClean]); });
  return {socket, next, end};
}
function mebibyte() {
  const bytes = new Uint8Array(1 << 20);
  for (let at = 0; at < bytes.length; at += 65536) crypto.getRandomValues(bytes.subarray(at, at + 65536));
  return bytes;
}
async function echo(path) {
  const {socket, next, end} = await talk(path), sent = mebibyte();
  socket.send(sent);
  const back = new Uint8Array(await next());
  const same = back.length === sent.length && back.every((byte, at) => byte === sent[at]);
  for (let n = 0; n < 200; n++) socket.send('word ' + n);
  let order = true;
  for (let n = 0; n < 200; n++) order = order && await next() === 'word ' + n;
  const fetched = await Promise.all([...Array(20).keys()].map(async n => (await fetch('/page/' + n)).text()));
  socket.send('bye');
  return [same, order, fetched.every((text, n) => text === '/page/' + n), socket.protocol, ...await end];
}
</script>"""


class Site(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        content = PAGE if self.path == "/" else self.path.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if self.path == "/" else "text/plain")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Echo:
    """Says what it hears until somebody says bye. `seen` has the fields of each handshake, `ends` how each socket ended."""

    def __init__(self) -> None:
        self.seen: queue.Queue[dict[str, str]] = queue.Queue()
        self.ends: queue.Queue[int | None] = queue.Queue()

    def __call__(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        self.seen.put({name.lower(): value for name, value in socket.request.headers.raw_items()})
        try:
            for message in socket:
                if message == "bye":
                    socket.close(3000, "as you say")
                    break
                socket.send(message)
        except ConnectionClosedError:
            pass  # without a word
        self.ends.put(socket.close_code)


@pytest.fixture(scope="module")
def echo() -> Echo:
    return Echo()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def spki(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> tuple[Any, str]:
    """The gateway's certificate, and its key's hash, which is how a Chromium is told to trust it."""
    leaf = authority.issue(HOST)
    key = leaf_of(leaf).public_key()
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return leaf, base64.b64encode(hashlib.sha256(der).digest()).decode()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, spki: tuple[Any, str], echo: Echo) -> Iterator[Gateway]:
    place = tmp_path_factory.mktemp("browser-h2")
    write_pair(place, "web", spki[0])
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), Site) as site,
        serve(echo, "127.0.0.1", 0, max_size=None, subprotocols=["echo.test"]) as sockets,  # type: ignore[list-item]
    ):
        threads = [threading.Thread(target=each.serve_forever, daemon=True) for each in (site, sockets)]
        for thread in threads:
            thread.start()
        ports = site.server_address[1], sockets.socket.getsockname()[1]
        (place / "isthmus.yaml").write_text(CONFIG.format(site=f"127.0.0.1:{ports[0]}", echo=f"127.0.0.1:{ports[1]}"))
        with Gateway(place / "isthmus.yaml", workers=1) as running:
            yield running
        site.shutdown()
        sockets.shutdown()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, spki: tuple[Any, str]) -> Iterator[Browser]:
    assert CHROMIUM is not None
    # A page that was left is not kept with its socket open, to come back to.
    flags = ["--disable-features=BackForwardCache", f"--ignore-certificate-errors-spki-list={spki[1]}"]
    with Browser(CHROMIUM, tmp_path_factory.mktemp("chromium-h2") / "profile", flags) as running:
        yield running


def test_a_page_and_its_websocket_share_a_connection(gateway: Gateway, browser: Browser, echo: Echo) -> None:
    """1 MiB there and back, 200 words in order, fetches beside it; then the origin's own end, with its code and reason."""
    url = f"https://{gateway.address()}/"
    browser.said.clear()
    browser.open(url)
    assert browser.requests[url]["protocol"] == "h2"
    connection = browser.requests[url]["connectionId"]
    assert browser.run("echo('/socket')") == [True, True, True, "echo.test", 3000, "as you say", True]
    seen = echo.seen.get(timeout=60)
    # The handshake that reached the origin is one of HTTP/1.1; it came to the gateway as HTTP/2.
    assert seen["via"] == "2.0 isthmus" and seen["upgrade"] == "websocket" and seen["sec-websocket-version"] == "13"
    assert seen["x-forwarded-proto"] == "https" and seen["origin"] == url.rstrip("/")
    assert echo.ends.get(timeout=60) == 3000
    fetched = [each for path, each in browser.requests.items() if "/page/" in path]
    assert len(fetched) == 20 and {(each["protocol"], each["connectionId"]) for each in fetched} == {("h2", connection)}
    assert browser.said == []


def test_ten_websockets_at_once(gateway: Gateway, browser: Browser, echo: Echo) -> None:
    browser.open(f"https://{gateway.address()}/")
    results = browser.run("Promise.all([...Array(10).keys()].map(n => echo('/socket/' + n)))")
    assert results == [[True, True, True, "echo.test", 3000, "as you say", True]] * 10
    assert [echo.seen.get(timeout=60)["via"] for _ in range(10)] == ["2.0 isthmus"] * 10
    assert [echo.ends.get(timeout=60) for _ in range(10)] == [3000] * 10


def test_a_page_that_is_left_ends_its_websocket_at_the_origin(gateway: Gateway, browser: Browser, echo: Echo) -> None:
    browser.open(f"https://{gateway.address()}/")
    browser.run("talk('/socket').then(made => { window.kept = made; })")
    assert echo.seen.get(timeout=60)["via"] == "2.0 isthmus"
    browser.open(f"https://{gateway.address()}/page/other")
    assert echo.ends.get(timeout=60) in (1001, 1006)
    wait_until(lambda: browser.run("document.body.innerText") == "/page/other")
