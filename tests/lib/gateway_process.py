"""A real gateway as a child process, and a plain origin to stand behind it. Everything on port 0, everything ended at the end."""

import contextlib
import http.client
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from until import wait_until

ROOT = Path(__file__).resolve().parents[2]
ADMIN = re.compile(r"admin on +http://(\S+)")


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "gateway", *args]


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False


def request(
    address: str, path: str = "/", method: str = "GET", headers: dict[str, str] | None = None, body: bytes | None = None
) -> tuple[int, dict[str, str], bytes]:
    """One request on a connection of its own: (status, fields by lower-case name, content)."""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


class Origin:
    """An HTTP/1.1 origin that says its name and the path when a request is complete; below /held it waits for `release` as well."""

    def __init__(self, name: str = "origin", host: str = "127.0.0.1") -> None:
        self.release = threading.Event()
        self.held = threading.Semaphore(0)
        origin = self

        class Answer(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def take_content(self) -> bool:
                """Reads a request to its end; an answer before it would be right, and end a test's stream at any moment."""
                if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                    wanted = int(self.headers.get("Content-Length", 0))
                    return len(self.rfile.read(wanted)) == wanted
                while (line := self.rfile.readline()) and (size := int(line.split(b";")[0], 16)):
                    self.rfile.read(size + 2)
                while line and (line := self.rfile.readline()) not in (b"\r\n", b"\n", b""):
                    pass
                return bool(line)

            def do_GET(self) -> None:
                try:
                    complete = self.take_content()
                except OSError:
                    complete = False
                if not complete:
                    self.close_connection = True
                    return
                if self.path.startswith("/held"):
                    origin.held.release()
                    origin.release.wait(60)
                body = f"{name} {self.path}\n".encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            request_queue_size = 256

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a gateway that is killed resets its connections

        self._server = Server((host, 0), Answer)
        self.address = f"{host}:{self._server.server_address[1]}"
        self.address_by_name = f"localhost:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()


class Gateway:
    """`isthmus run` as a child. As a context manager it is ready inside and gone afterwards, its workers too."""

    def __init__(
        self, config: Path, *, workers: int | None = 2, admin: str | None = "127.0.0.1:0", args: tuple[str, ...] = ()
    ) -> None:
        """workers and admin: None leaves them to the configuration."""
        self.config = config
        self.stdout_path = config.parent / f"{config.name}.stdout"
        self.stderr_path = config.parent / f"{config.name}.stderr"
        options = {"--config": config, "--workers": workers, "--admin": admin}
        given = [str(word) for option, value in options.items() if value is not None for word in (option, value)]
        self._command = command("run", *given, *args)
        self.process: subprocess.Popen[bytes]
        self.admin = ""
        self._pids: set[int] = set()

    def start(self) -> Self:
        with self.stdout_path.open("wb") as out, self.stderr_path.open("wb") as err:
            # A session of its own: a signal to this test's group does not reach it.
            self.process = subprocess.Popen(
                self._command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
            )
        # A machine that measures something else at high priority may leave little for this.
        found = wait_until(lambda: ADMIN.search(self.stderr) or self.process.poll() is not None, 90)
        assert isinstance(found, re.Match), self.stderr
        self.admin = found[1]
        return self

    def __enter__(self) -> Self:
        try:
            self.start()
            wait_until(lambda: len(self.serving()) == len(self.stats()["workers"]) and self.is_ready())
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            print(self.stderr)
        self.stop()

    def stop(self) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(Exception):
                self.serving()
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(1)
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(10)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in self._pids:
            if is_alive(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    @property
    def stderr(self) -> str:
        return self.stderr_path.read_text()

    @property
    def stdout(self) -> str:
        return self.stdout_path.read_text()

    # the admin port

    def ask(self, path: str) -> Any:
        status, _, body = request(self.admin, path)
        assert status == 200, (path, status, body)
        return json.loads(body)

    def stats(self) -> Any:
        return self.ask("/stats")

    def is_ready(self) -> bool:
        try:
            return request(self.admin, "/readyz")[0] == 200
        except OSError:
            return False

    def serving(self) -> list[int]:
        """Pids of the workers that serve."""
        pids = [row["pid"] for row in self.stats()["workers"] if row["state"] == "serving"]
        self._pids.update(pids)
        return pids

    def address(self, listener: str = "web") -> str:
        """Where a listener really listens."""
        for row in self.stats()["listeners"]:
            if listener in row["names"]:
                return str(row["bound"])
        raise AssertionError(f"no listener {listener}")

    @property
    def revision(self) -> int:
        return int(self.stats()["revision"])

    # changes

    def write(self, text: str) -> None:
        """Replaces the configuration file in one step, as editors and ConfigMaps do."""
        fresh = self.config.with_name(f".{self.config.name}.new")
        fresh.write_text(text)
        fresh.replace(self.config)

    def apply(self, text: str) -> int:
        """Writes and waits until the new revision serves; its number."""
        before = self.revision
        self.write(text)
        wait_until(lambda: self.revision > before and self.is_ready())
        return self.revision

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


@contextlib.contextmanager
def held_connection(address: str, path: str) -> Iterator[socket.socket]:
    """A connection with a request on it that nobody has answered yet."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        yield sock
