"""What the load generators report is read rightly, and ours counts what it should against an origin that misbehaves on purpose."""

import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from perf.idle import close_all, exchange_once, open_idle
from perf.load import Load, build_loadgen, loadgen_argv, parse_h2load, parse_loadgen, parse_wrk
from perf.reloads import LAG, SWAP, gauge_ms
from perf.routes import RULES, many_routes, targets_of, write_config, write_targets
from perf.upload_origin import content_length, serve_once

WRK = """Running 1s test @ http://127.0.0.1:19000/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.90ms  640.10us  11.30ms   90.11%
    Req/Sec    33.15k     2.10k   36.00k    70.00%
  Latency Distribution
     50%    1.78ms
     75%    1.99ms
     90%  950.00us
     99%    4.51ms
  33035 requests in 1.01s, 6.17MB read
"""
H2LOAD = """starting benchmark...
spawning thread #0: 16 total client(s). Timing-based test with 0s of warm-up time and 2s of main duration for measurements.
Cipher: TLS_AES_128_GCM_SHA256

finished in 2.01s, 158.50 req/s, 23.06KB/s
requests: 317 total, 333 started, 317 done, 317 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 317 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 46.13KB (47233) total, 33.43KB (34236) headers (space savings 0.00%), 634B (634) data
                     min         max         mean         sd        +/- sd
time for request:     6.04ms     84.41ms     33.77ms     12.48ms    63.41%
time for connect:     2.22ms     28.77ms     18.27ms      9.11ms    62.50%
"""
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n" + b"x" * 40


def test_a_report_of_wrk() -> None:
    load = parse_wrk(WRK)
    assert (load.done, load.errors, load.seconds) == (33035, 0, 1.01)
    assert (load.p50_us, load.p99_us, load.max_us) == (1780.0, 4510.0, 11300.0)
    assert round(load.rate) == 32708


def test_a_report_of_wrk_with_every_kind_of_error() -> None:
    text = WRK + "  Socket errors: connect 1, read 2, write 3, timeout 4\n  Non-2xx or 3xx responses: 5\n"
    load = parse_wrk(text)
    assert (load.failed, load.bad_status, load.errors) == (10, 5, 15)


def test_a_report_of_h2load() -> None:
    load = parse_h2load(H2LOAD)
    assert (load.done, load.errors, load.seconds, load.max_us) == (317, 0, 2.01, 84410.0)


def test_a_report_of_h2load_with_every_kind_of_error() -> None:
    """Sixteen clients have a request each in flight at the end; of two more nobody says what became of them."""
    text = H2LOAD.replace(
        "317 total, 333 started, 317 done, 317 succeeded, 0 failed, 0 errored",
        "323 total, 341 started, 323 done, 315 succeeded, 8 failed, 6 errored",
    )
    text = text.replace("317 2xx, 0 3xx, 0 4xx, 0 5xx", "315 2xx, 0 3xx, 0 4xx, 2 5xx")
    load = parse_h2load(text)
    assert (load.done, load.failed, load.bad_status) == (317, 6 + 2, 2)


def test_a_report_of_h2load_with_streams() -> None:
    """Of each stream one request may be in flight at the end, and no more."""
    text = H2LOAD.replace("317 total, 333 started", "317 total, 830 started")
    assert parse_h2load(text, 32).failed == 830 - 317 - 16 * 32
    assert parse_h2load(text, 33).failed == 0


def test_minutes_and_nothing() -> None:
    assert parse_wrk("  10 requests in 1.50m, 1KB read").seconds == 90.0
    with pytest.raises(ValueError, match="wrk reported nothing"):
        parse_wrk("unable to connect to 127.0.0.1:1 Connection refused")
    with pytest.raises(ValueError, match="loadgen reported nothing"):
        parse_loadgen("")
    with pytest.raises(ValueError, match="h2load reported nothing"):
        parse_h2load("unable to connect")


def test_gauges_of_several_workers() -> None:
    text = """# HELP isthmus_worker_loop_lag_seconds Longest turn of the worker's loop lately.
isthmus_worker_loop_lag_seconds{worker="0"} 0.0012
isthmus_worker_loop_lag_seconds{worker="1"} 0.0031
isthmus_worker_swap_seconds 0.0004
isthmus_other 7
"""
    assert gauge_ms(LAG, text) == pytest.approx(3.1)
    assert gauge_ms(SWAP, text) == pytest.approx(0.4)
    assert gauge_ms(SWAP, "isthmus_other 7\n") is None


def test_many_routes_have_a_target_each(tmp_path: Path) -> None:
    class Where:
        port = upload_port = 0

    config = many_routes(3, port=0, admin=0, origin=Where(), marker=9)  # type: ignore[arg-type]
    targets = targets_of(write_targets(3, tmp_path / "targets"))
    rules = {
        (route["hostnames"][0], rule["matches"][0]["path"]["value"])
        for route in config["routes"]
        if route["name"].startswith("route")
        for rule in route["rules"]
    }
    assert len(rules) == 3 * RULES
    assert {(host, path.removesuffix("/item")) for host, path in targets} == rules
    assert targets_of(write_targets(3, tmp_path / "again")) == targets
    text = write_config(config, tmp_path / "config.yaml").read_text()
    assert "r9.test" in text and "format: 'off'" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "config.yaml", "targets"]


@contextmanager
def origin(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """An origin in a thread that runs `talk` on each connection in turn, and on each in a thread of its own."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=128)

    def serve(sock: socket.socket) -> None:
        with sock, suppress(OSError):
            talk(sock)

    def accept() -> None:
        while True:
            try:
                sock, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(sock,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(5)


def read_head(sock: socket.socket) -> bytes:
    got = b""
    while not got.endswith(b"\r\n\r\n"):
        piece = sock.recv(65536)
        if not piece:
            raise ConnectionError
        got += piece
    return got


def run(argv: list[str]) -> tuple[Load, dict[str, float]]:
    out = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True).stdout
    return parse_loadgen(out), json.loads(out)


@pytest.fixture(scope="module", autouse=True)
def program() -> str:
    return build_loadgen()


def test_closed_loop_counts_whole_answers() -> None:
    def talk(sock: socket.socket) -> None:
        while True:
            read_head(sock)
            sock.sendall(ANSWER)

    with origin(talk) as port:
        load, told = run(loadgen_argv(port, seconds=0.2, connections=2))
    assert load.done > 10 and load.errors == 0
    assert told["bytes_in"] == load.done * len(ANSWER)
    assert 0 < load.p50_us <= load.p99_us <= load.max_us


def test_open_loop_keeps_its_rate() -> None:
    def talk(sock: socket.socket) -> None:
        while True:
            read_head(sock)
            sock.sendall(ANSWER)

    with origin(talk) as port:
        load, _ = run(loadgen_argv(port, seconds=0.5, connections=4, rate=200))
    # A machine that is busy with something else may end before the last few are out; more than the rate there must not be.
    assert 50 <= load.done <= 100 and load.errors == 0


def test_open_loop_sees_a_stall_in_every_request_that_it_held_up() -> None:
    """One connection, whose third answer comes only when ten more requests have fallen due: all of them were late."""
    stall = threading.Event()

    def talk(sock: socket.socket) -> None:
        n = 0
        while True:
            read_head(sock)
            n += 1
            if n == 3:
                stall.wait(0.2)
            sock.sendall(ANSWER)

    with origin(talk) as port:
        load, told = run([*loadgen_argv(port, seconds=0.5, connections=1, rate=50), "--over-us", "20000"])
    assert load.failed == 0 and load.done == 25
    assert load.max_us > 190_000
    assert told["over"] >= 8


def test_a_body_is_sent_whole_and_bad_statuses_are_counted() -> None:
    received: list[int] = []

    def talk(sock: socket.socket) -> None:
        while True:
            head = b""
            while b"\r\n\r\n" not in head:
                piece = sock.recv(65536)
                if not piece:
                    return
                head += piece
            head, _, content = head.partition(b"\r\n\r\n")
            n = len(content)
            while n < content_length(head):
                n += len(sock.recv(65536))
            received.append(n)
            sock.sendall(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")

    with origin(talk) as port:
        load, _ = run(loadgen_argv(port, seconds=0.2, connections=2, upload=1_000_000))
    assert set(received) == {1_000_000}
    assert load.bad_status == load.done == len(received) > 0 and load.failed == 0


def test_a_connection_per_request() -> None:
    heads: list[bytes] = []

    def talk(sock: socket.socket) -> None:
        heads.append(read_head(sock))
        sock.sendall(ANSWER)

    with origin(talk) as port:
        load, _ = run(loadgen_argv(port, seconds=0.2, connections=3, close=True))
    assert load.errors == 0 and load.done == len(heads) > 3
    assert all(b"Connection: close" in head for head in heads)


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\nshort", b"garbage that is no HTTP at all\r\n\r\n"]
)
def test_broken_answers_are_failures(answer: bytes) -> None:
    def talk(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(answer)

    with origin(talk) as port:
        load, _ = run(loadgen_argv(port, seconds=0.2, connections=2))
    assert load.done == 0 and load.failed > 0


def test_a_refused_port_ends_in_failures_not_in_a_spin() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    load, _ = run(loadgen_argv(port, seconds=0.2, connections=2, rate=100))
    assert load.done == 0 and load.failed > 0


def test_targets_are_asked_in_turn(tmp_path: Path) -> None:
    seen: list[bytes] = []

    def talk(sock: socket.socket) -> None:
        while True:
            seen.append(read_head(sock))
            sock.sendall(ANSWER)

    targets = write_targets(1, tmp_path / "targets")
    with origin(talk) as port:
        run(loadgen_argv(port, seconds=0.2, connections=1, targets=targets))
    wanted = [f"GET {path} HTTP/1.1\r\nHost: {host}\r\n".encode() for host, path in targets_of(targets)]
    assert len(seen) > 2 * RULES
    assert all(head.startswith(wanted[i % RULES]) for i, head in enumerate(seen))


def test_idle_connections_have_had_one_answer_each() -> None:
    heads: list[bytes] = []

    def talk(sock: socket.socket) -> None:
        while True:
            heads.append(read_head(sock))
            sock.sendall(ANSWER[:20])
            sock.sendall(ANSWER[20:])

    with origin(talk) as port:
        socks = open_idle(port, 5)
        assert len(heads) == 5
        close_all(socks)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(ANSWER[:-1])
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionError):
            exchange_once(ours)


def test_upload_origin_answers_after_the_content_and_reads_on() -> None:
    buffer = bytearray(256 * 1024)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        served, _ = listening.accept()
    with client, served:
        client.sendall(b"POST / HTTP/1.1\r\ncontent-length: 10\r\n\r\n12345")
        served.setblocking(False)
        left = -1
        while left != 5:
            left = serve_once(served, left, buffer)
        client.sendall(b"67890" + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        while left != -1:
            left = serve_once(served, left, buffer)
        got = b""
        while got.count(b"\r\n\r\nok") < 2:
            left = serve_once(served, left, buffer)
            client.setblocking(False)
            try:
                got += client.recv(4096)
            except BlockingIOError:
                continue
        client.close()
        with pytest.raises(ConnectionError):
            while True:
                left = serve_once(served, left, buffer)
    with pytest.raises(ValueError, match="Content-Length"):
        content_length(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked")
