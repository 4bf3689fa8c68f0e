"""The origin and the gateways: how each is configured, started and asked whether it is up."""

import http.client
import os
import ssl
import string
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen

from perf.children import Children, wait_until
from perf.machine import Cores, find_tool, free_ports, raise_files
from perf.tls import HOST, make_certificate

HERE = Path(__file__).resolve().parent
PEERS = ("nginx", "haproxy", "envoy")
OURS = "isthmus"
SMALL, MEDIUM, LARGE, HUGE = 40, 10 * 1024, 1024 * 1024, 100 * 1024 * 1024


def fill(template: str, into: Path, **values: object) -> Path:
    """Writes a template of peers/ with its $names filled in."""
    text = string.Template((HERE / "peers" / template).read_text()).substitute({key: str(value) for key, value in values.items()})
    into.write_text(text)
    return into


class NamedConnection(http.client.HTTPSConnection):
    """HTTPS to 127.0.0.1 that asks for the certificate of the bench's name and verifies it."""

    def __init__(self, port: int, trusted: Path) -> None:
        self.trust = ssl.create_default_context(cafile=str(trusted))
        super().__init__("127.0.0.1", port, timeout=10, context=self.trust)

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        self.sock = self.trust.wrap_socket(self.sock, server_hostname=HOST)


def fetch(port: int, path: str = "/", host: str = HOST, body: bytes | None = None, trusted: Path | None = None) -> tuple[int, int]:
    """One request: the status, and the length of what was received. `trusted`: in TLS, with this certificate."""
    conn = NamedConnection(port, trusted) if trusted else http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        conn.request("GET" if body is None else "POST", path, body=body, headers={"Host": host})
        answer = conn.getresponse()
        return answer.status, len(answer.read())
    finally:
        conn.close()


def fetch_text(port: int, path: str) -> str:
    conn = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        conn.request("GET", path)
        return conn.getresponse().read().decode("utf-8", "replace")
    finally:
        conn.close()


@dataclass(slots=True)
class Origin:
    """nginx with one worker for answers, upload_origin.py for uploads. Both stand on one core."""

    port: int
    upload_port: int
    h2_port: int = 0  # HTTP/2 by prior knowledge

    @classmethod
    def start(cls, children: Children, core: int) -> "Origin":
        run = children.run
        nginx = find_tool("nginx")
        if not nginx:
            raise RuntimeError("nginx is the origin of every cell: apt-get install nginx-light")
        files = run / "files"
        files.mkdir()
        (files / "10k").write_bytes(b"k" * MEDIUM)
        (files / "1m").write_bytes(b"m" * LARGE)
        (files / "100m").touch()
        os.truncate(files / "100m", HUGE)  # a hole: it takes no memory
        run.chmod(0o755)  # nginx started by root reads them as nobody
        port, upload_port, h2_port = free_ports(3)
        conf = fill("origin.conf", run / "origin.conf", run=run, port=port, h2=h2_port, files=raise_files(), files_root=files)
        origin = children.start([nginx, "-p", str(run), "-e", str(run / "origin.log"), "-c", str(conf)], core, "origin")
        upload = children.start([sys.executable, str(HERE / "upload_origin.py"), str(upload_port)], core, "upload")
        wait_for(origin, port, run, "origin")
        wait_for(upload, upload_port, run, "upload", upload=True)
        return cls(port, upload_port, h2_port)


@dataclass(slots=True)
class Gateway:
    """A running gateway with one worker on its core."""

    name: str
    port: int
    tls: int
    admin: int
    child: Popen[str]
    label: str = ""
    config: Path = field(default_factory=Path)
    h2c: int = 0  # HTTP/2 by prior knowledge
    h2s: int = 0  # TLS with h2 in its ALPN

    @property
    def pid(self) -> int:
        return self.child.pid

    def metrics(self) -> str:
        return fetch_text(self.admin, "/stats/prometheus" if self.name == "envoy" else "/metrics")


def ours_argv() -> list[str] | None:
    """How to start ours: the installed command, or the package that stands beside this one with its compiled core."""
    path = find_tool(OURS)
    if path:
        return [path]
    core = HERE.parent / "gateway" / "_core"
    if any(core.glob("engine*.so")):
        return [sys.executable, "-m", "gateway"]
    return None


def is_here(name: str) -> bool:
    return ours_argv() is not None if name == OURS else find_tool(name) is not None


def start_gateway(
    children: Children,
    cores: Cores,
    name: str,
    origin: Origin,
    *,
    config: Path | None = None,
    label: str = "",
    ports: tuple[int, int] | None = None,
    wrap: Sequence[str] = (),
    workers: int = 1,
) -> Gateway:
    """Starts a gateway on its core and waits until it forwards. `config`, made for `ports`, takes the place of ours in peers/.
    `wrap` stands before the command; `workers`: of ours."""
    run, label = children.run, label or name
    tls, h2c, h2s, *rest = free_ports(5)
    port, admin = ports or rest
    make_certificate(run)
    values = {
        "port": port,
        "tls": tls,
        "h2c": h2c,
        "h2s": h2s,
        "admin": admin,
        "origin": origin.port,
        "upload": origin.upload_port,
        "h2origin": origin.h2_port,
        "run": run,
        "files": raise_files(),
    }
    if name == OURS:
        ours = ours_argv()
        if ours is None:
            raise RuntimeError("isthmus is not built: make build")
        config = config or fill("isthmus.yaml", run / f"{label}.yaml", **values)
        argv = [*ours, "run", "--config", str(config), "--workers", str(workers)]
    else:
        path = find_tool(name)
        if path is None:
            raise RuntimeError(f"{name} is missing")
        suffix = {"nginx": "conf", "haproxy": "cfg", "envoy": "yaml"}[name]
        config = fill(f"{name}.{suffix}", run / f"{label}.{suffix}", **values)
        argv = {
            "nginx": [path, "-p", str(run), "-e", str(run / "nginx.log"), "-c", str(config)],
            "haproxy": [path, "-db", "-f", str(config)],
            "envoy": [path, "--concurrency", "1", "--disable-hot-restart", "-l", "error", "-c", str(config)],
        }[name]
    if wrap and name == "nginx" and os.geteuid() == 0:
        # valgrind listens on files of the user it began as: a worker that becomes another user is deaf
        argv += ["-g", "user root;"]
    child = children.start([*wrap, *argv], cores.gateway, label)
    gateway = Gateway(name, port, tls, admin, child, label, config, h2c, h2s)
    wait_for(child, port, run, label)
    return gateway


def wait_for(
    child: Popen[str], port: int, run: Path, label: str, *, upload: bool = False, path: str = "/", host: str = HOST
) -> None:
    """Waits until a request is answered with 200; when the process ends instead, says what it had to say."""

    def is_up() -> bool:
        if child.poll() is not None:
            said = (run / f"{label}.out").read_text()[-2000:]
            for log in run.glob(f"{label}*.log"):
                said += log.read_text()[-2000:]
            raise RuntimeError(f"{label} ended at once with code {child.returncode}: {said.strip()}")
        try:
            return fetch(port, path, host, b"x" if upload else None)[0] == 200
        except OSError:
            return False
        except http.client.HTTPException:
            return False

    wait_until(is_up, 60, f"answer from {label}")
