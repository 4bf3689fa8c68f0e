"""The flood of the benchmark is what it says: good requests, each cancelled at once, until it is thrown out."""

import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from typing import cast

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived, StreamReset

from perf.flood import PREFACE, SPACED, CountingOrigin, flood_spaced, streams_of
from perf.gateways import HERE


def test_the_streams_are_good_requests_and_each_is_cancelled() -> None:
    server = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
    server.initiate_connection()
    events = server.receive_data(PREFACE + streams_of(50, "/upload"))
    asked = [event for event in events if isinstance(event, RequestReceived)]
    reset = [event for event in events if isinstance(event, StreamReset)]
    assert [event.stream_id for event in asked] == [event.stream_id for event in reset] == list(range(1, 100, 2))
    assert {event.error_code for event in reset} == {8}
    wanted = [(":method", "GET"), (":scheme", "http"), (":path", "/upload"), (":authority", "bench.test")]
    assert all(cast("list[tuple[str, str]]", list(event.headers)) == wanted for event in asked)


@pytest.mark.parametrize("gap", [[], ["0.001"]])
def test_a_connection_that_is_closed_is_followed_by_another(gap: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:

        def throw_out() -> None:
            while True:
                try:
                    sock, _ = listening.accept()
                except OSError:
                    return
                with sock:
                    sock.recv(1000)
                    sock.recv(1000)

        thread = threading.Thread(target=throw_out, daemon=True)
        thread.start()
        argv = [sys.executable, str(HERE / "flood.py"), str(listening.getsockname()[1]), "0.3", "1000", "/", *gap]
        told = json.loads(subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout)
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(10)
    assert told["connections"] > 1 and told["streams"] > 0


def test_spaced_streams_are_cancelled_after_they_were_asked() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        events: list[object] = []

        def listen() -> None:
            server = H2Connection(H2Configuration(client_side=False))
            sock, _ = listening.accept()
            with sock:
                while len(events) < 4 * SPACED and (came := sock.recv(65536)):
                    events.extend(each for each in server.receive_data(came) if isinstance(each, RequestReceived | StreamReset))

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        done = flood_spaced(listening.getsockname()[1], 2 * SPACED, "/", 0.01, time.monotonic() + 30)
        thread.join(10)
    kinds = [type(each) for each in events]
    assert done == 2 * SPACED and kinds == ([RequestReceived] * SPACED + [StreamReset] * SPACED) * 2


def test_the_origin_counts_what_it_answers() -> None:
    origin = CountingOrigin()
    try:
        conn = http.client.HTTPConnection("127.0.0.1", origin.port, timeout=10)
        for _ in range(3):
            conn.request("GET", "/")
            assert conn.getresponse().read() == b"ok"
        conn.close()
        assert origin.seen == 3
    finally:
        origin.close()
