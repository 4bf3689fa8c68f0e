"""What a person sees: the admin port's page, and a site behind the gateway, in a real Chromium."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, find
from gateway_process import Gateway, request
from until import wait_until

CHROMIUM = find()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")

CONFIG = """\
accessLog: {{format: off}}
listeners:
  - {{name: web, address: "127.0.0.1:0"}}
routes:
  - name: site
    rules:
      - filters:
          - type: ResponseHeaderModifier
            responseHeaderModifier: {{set: [{{name: x-by, value: gateway}}]}}
        backendRefs: [{{name: site}}]
  - name: lost
    rules:
      - matches: [{{path: {{type: PathPrefix, value: /lost}}}}]
        backendRefs: [{{name: nowhere}}]
  - name: limited
    rules:
      - matches: [{{path: {{type: PathPrefix, value: /limited}}}}]
        rateLimits: [few]
        backendRefs: [{{name: site}}]
rateLimits:
  - {{name: few, limit: {{requests: 3, per: 1h}}, key: [path, "header:x-key"], mode: local}}
clusters:
  - {{name: site, endpoints: ["{origin}"]}}
  - {{name: nowhere, endpoints: ["127.0.0.1:1"]}}
"""

PAGE = b"""<!doctype html><meta charset="utf-8"><title>A site</title>
<link rel="icon" href="data:,"><link rel="stylesheet" href="/style.css">
<h1>Hello</h1><p id="said">nothing yet</p><img id="dot" src="/dot.svg">
<script src="/app.js"></script>"""
STYLE = b"h1 { color: rgb(1, 2, 3); }"
SCRIPT = b"""
window.done = (async () => {
  const many = await Promise.all([...Array(40).keys()].map(async n => (await fetch('/echo/' + n)).text()));
  const sent = await (await fetch('/upload', {method: 'POST', body: 'x'.repeat(300000)})).text();
  const streamed = await (await fetch('/chunks')).text();
  const by = (await fetch('/echo/by')).headers.get('x-by');
  document.getElementById('said').textContent = [many.every((t, n) => t === '/echo/' + n), sent, streamed.length, by].join(' ');
})();"""
DOT = b'<svg xmlns="http://www.w3.org/2000/svg" width="7" height="5"><rect width="7" height="5" fill="red"/></svg>'
FILES = {
    "/": ("text/html", PAGE),
    "/style.css": ("text/css", STYLE),
    "/app.js": ("text/javascript", SCRIPT),
    "/dot.svg": ("image/svg+xml", DOT),
}


class Site(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self, kind: str, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        if self.path == "/chunks":
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for _ in range(50):
                self.wfile.write(b"3e8\r\n" + b"c" * 1000 + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.answer(*FILES.get(self.path, ("text/plain", self.path.encode())))

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer("text/plain", str(len(content)).encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        config = tmp_path_factory.mktemp("browser") / "isthmus.yaml"
        config.write_text(CONFIG.format(origin=f"127.0.0.1:{server.server_address[1]}"))
        with Gateway(config) as running:
            yield running
        server.shutdown()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert CHROMIUM is not None
    with Browser(CHROMIUM, tmp_path_factory.mktemp("chromium") / "profile") as running:
        yield running


def test_a_site_behind_the_gateway_works(gateway: Gateway, browser: Browser) -> None:
    """A page with its style, picture and script; forty fetches at once, an upload, a stream in chunks."""
    browser.said.clear()
    browser.open(f"http://{gateway.address()}/")
    browser.run("window.done")
    assert browser.run("document.title") == "A site"
    assert browser.run("document.getElementById('said').textContent") == "true 300000 50000 gateway"
    assert browser.run("getComputedStyle(document.querySelector('h1')).color") == "rgb(1, 2, 3)"
    assert browser.run("document.getElementById('dot').naturalWidth") == 7
    assert browser.said == []


def test_an_error_of_the_gateway_is_a_page_that_a_person_can_read(gateway: Gateway, browser: Browser) -> None:
    browser.open(f"http://{gateway.address()}/lost")
    assert "503" in browser.text() and browser.run("document.contentType") == "text/html"
    assert "127.0.0.1:1" not in browser.text()


def test_the_dashboard_shows_live_numbers(gateway: Gateway, browser: Browser, tmp_path: Path) -> None:
    browser.said.clear()
    browser.open(f"http://{gateway.admin}/")
    browser.until(lambda: browser.run("document.getElementById('ready').textContent") == "ready")
    before = gateway.stats()["totals"]["requests"]
    for _ in range(30):
        request(gateway.address(), "/seen")
    request(gateway.address(), "/lost")

    def cells(table: str) -> list[list[str]]:
        rows = f"[...document.querySelectorAll('#{table} tbody tr')].map(tr => [...tr.cells].map(td => td.textContent))"
        found: list[list[str]] = browser.run(rows)
        return found

    def number(text: str) -> int:
        return int(text.split()[0])

    browser.until(lambda: number(browser.run("document.getElementById('requests').textContent")) >= before + 31)
    routes = {row[0]: row for row in cells("routes")}
    assert number(routes["site"][3]) >= 30 and number(routes["lost"][5]) >= 1
    clusters = {row[0]: row for row in cells("clusters")}
    assert clusters["nowhere"][1] == "127.0.0.1:1" and number(clusters["nowhere"][7]) >= 1
    assert [row[2] for row in cells("workers")] == ["serving", "serving"]
    assert cells("listeners")[0][:2] == [gateway.address(), "web"]
    browser.until(lambda: browser.run("document.querySelectorAll('#chart polyline').length") == 1)
    # Nothing is wider than the window, on a desk or in a hand, and it can be looked at.
    for width in (1280, 400):
        browser.resize(width, 900)
        assert browser.run("document.documentElement.scrollWidth <= window.innerWidth")
        browser.picture(tmp_path / f"{width}.png")
        assert (tmp_path / f"{width}.png").stat().st_size > 10_000
    assert browser.said == []


def test_the_dashboard_shows_the_keys_that_rate_limits_meet_most(gateway: Gateway, browser: Browser) -> None:
    """None at first; then those that came, the one that came most before the others, and whatever a client writes as text."""
    browser.said.clear()
    browser.open(f"http://{gateway.admin}/")
    keys = "[...document.querySelectorAll('#keys tbody tr')].map(tr => [...tr.cells].map(td => td.textContent))"
    browser.until(lambda: browser.run(keys) == [["no rate limit met a request lately"]])
    statuses = [request(gateway.address(), "/limited/often", headers={"x-key": "sesame"})[0] for _ in range(8)]
    assert statuses == [200] * 3 + [429] * 5
    written = "/limited/<img/src=x/onerror=window.hurt=1>" + "x" * 80
    assert request(gateway.address(), written)[0] == 200
    browser.until(lambda: len(browser.run(keys)) == 2 and browser.run(keys)[1][3] == "1")
    often, once = browser.run(keys)
    assert (often[0], *often[3:]) == ("few", "8", "5") and float(often[2]) > 0
    assert often[1].startswith("path=/limited/often,header:x-key=#") and "sesame" not in often[1]
    assert (once[0], once[1], *once[3:]) == ("few", f"path={written},header:x-key=-", "1", "0")
    assert browser.run("document.querySelectorAll('#keys img').length") == 0 and browser.run("window.hurt") is None
    assert browser.run("document.querySelector('#keys td.warn').textContent") == "5"
    for width in (1280, 400):
        browser.resize(width, 900)
        assert browser.run("document.documentElement.scrollWidth <= window.innerWidth")
    assert browser.said == []


def test_the_dashboard_says_what_is_wrong_and_takes_no_markup_from_it(gateway: Gateway, browser: Browser) -> None:
    browser.open(f"http://{gateway.admin}/")
    text = gateway.config.read_text()
    try:
        gateway.write(text.replace("name: lost", "name: lost\n    <img src=x onerror=window.hurt=1>: 1"))
        wait_until(lambda: gateway.ask("/config/problems")["problems"])
        browser.until(lambda: "onerror" in browser.run("document.getElementById('problems').textContent"))
        assert browser.run("document.querySelectorAll('#problems img').length") == 0 and browser.run("window.hurt") is None
    finally:
        gateway.write(text)


def test_every_link_of_the_dashboard_leads_somewhere(gateway: Gateway, browser: Browser) -> None:
    browser.open(f"http://{gateway.admin}/")
    links: list[str] = browser.run("[...document.querySelectorAll('nav a')].map(a => a.href)")
    assert len(links) >= 8
    for link in links:
        browser.open(link)
        assert browser.requests[link]["status"] == 200, link


def test_a_page_of_a_stranger_cannot_reach_the_admin_port_under_its_own_name(gateway: Gateway, browser: Browser) -> None:
    """DNS rebinding: the browser sends the stranger's name as Host. And a foreign origin may not read the answers."""
    status, _, body = request(gateway.admin, "/config", headers={"Host": "evil.example.com"})
    assert status == 421 and b"listeners" not in body
    browser.open(f"http://{gateway.address()}/")
    outcome = browser.run(f"fetch('http://{gateway.admin}/config').then(() => 'read', () => 'refused')")
    assert outcome == "refused"
