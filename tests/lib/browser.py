"""A real browser: Debian's Chromium without a window, driven over its DevTools protocol. It goes to loopback and nowhere else."""

import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from until import wait_until
from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Without the last few, Chromium looks for updates and the like at every start.
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--no-default-browser-check",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic", "--disable-extensions",
    "--proxy-server=direct://", "--window-size=1280,900", "--remote-debugging-port=0",
)  # fmt: skip


def find() -> str | None:
    """Path of a Chromium, from CHROMIUM or the usual names."""
    return os.environ.get("CHROMIUM") or next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One browser with one page, as a context manager. `said` gathers what the page wrote to its console, errors included."""

    def __init__(self, program: str, profile: Path, flags: Sequence[str] = ()) -> None:
        self._profile = profile
        self._flags = flags
        self._numbers = itertools.count(1)
        self._program = program
        self._open = contextlib.ExitStack()
        self.said: list[str] = []
        self.requests: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Self:
        self._profile.mkdir()
        log = (self._profile / "log").open("wb")
        self._process = subprocess.Popen(
            [self._program, *FLAGS, *self._flags, f"--user-data-dir={self._profile}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        log.close()
        try:
            place = self._profile / "DevToolsActivePort"
            wait_until(lambda: self._process.poll() is not None or (place.exists() and place.read_text().count("\n")), 90)
            port, path = place.read_text().split("\n")[:2]
            wire = connect(f"ws://127.0.0.1:{port}{path}", max_size=None, proxy=None, compression=None)
            self._wire: ClientConnection = self._open.enter_context(wire)
            targets = self._ask("Target.getTargets")["targetInfos"]
            (page,) = [target["targetId"] for target in targets if target["type"] == "page"]
            self._session = ""
            self._session = self._ask("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self._ask(f"{domain}.enable")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            print("\n".join(self.said))
        self._end()

    def _end(self) -> None:
        self._open.close()
        # A group of its own: the launcher, the browser, its renderers.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    # the protocol

    _session = ""

    def _ask(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._wire.send(json.dumps(message))
        deadline = time.monotonic() + 90
        while True:
            answer = json.loads(self._wire.recv(deadline - time.monotonic()))
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self._note(answer)

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.said.append(f"exception: {json.dumps(params['exceptionDetails'])}")
            case "Runtime.consoleAPICalled":
                self.said.append(f"{params['type']}: {' '.join(str(arg.get('value')) for arg in params['args'])}")
            case "Log.entryAdded":
                self.said.append(f"{params['entry']['level']}: {params['entry']['text']} {params['entry'].get('url', '')}")
            case "Network.responseReceived":
                self.requests[params["response"]["url"]] = params["response"]

    # what tests do

    def open(self, url: str) -> None:
        """Goes there and waits until the page and what it names have loaded."""
        told = self._ask("Page.navigate", url=url)
        assert not told.get("errorText"), told
        self.until(lambda: self.run("document.readyState") == "complete" and self.run("location.href") != "about:blank")

    def run(self, script: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        told = self._ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def until(self, condition: Callable[[], Any]) -> Any:
        return wait_until(condition, 60)

    def text(self) -> str:
        return str(self.run("document.body.innerText"))

    def resize(self, width: int, height: int) -> None:
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def scheme(self, name: str) -> None:
        """"light" or "dark"."""
        self._ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def picture(self, path: Path) -> None:
        shot = self._ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))
