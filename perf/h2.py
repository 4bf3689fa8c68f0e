"""One request over HTTP/2, by a library that no gateway of the bench uses: does a gateway do in a cell what is asked of it?"""

import socket
import ssl
from collections.abc import Sequence
from pathlib import Path

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded, StreamReset

from perf.tls import HOST


def connect(port: int, trusted: Path | None) -> socket.socket:
    """A connection that speaks HTTP/2: by prior knowledge, or in TLS as ALPN found it. OSError when there is none."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=10)
    if trusted is None:
        return plain
    context = ssl.create_default_context(cafile=str(trusted))
    context.set_alpn_protocols(["h2"])
    try:
        sock = context.wrap_socket(plain, server_hostname=HOST)
    except OSError:
        plain.close()
        raise
    if sock.selected_alpn_protocol() != "h2":
        sock.close()
        raise ConnectionError("no HTTP/2 in this TLS")
    return sock


def fetch_h2(
    port: int, path: str = "/", body: bytes | None = None, trusted: Path | None = None, fields: Sequence[str] = ()
) -> tuple[int, int]:
    """One request: the status, and the length of what was received."""
    connection = H2Connection(H2Configuration(client_side=True))
    named = [(":method", "GET" if body is None else "POST"), (":scheme", "https" if trusted else "http")]
    named += [(":authority", HOST), (":path", path)]
    for line in fields:
        name, _, value = line.partition(": ")
        named.append((name, value))
    status = received = 0
    with connect(port, trusted) as sock:
        connection.initiate_connection()
        connection.send_headers(1, named, end_stream=body is None)
        if body is not None:
            connection.send_data(1, body, end_stream=True)
        while True:
            sock.sendall(connection.data_to_send())
            came = sock.recv(65536)
            if not came:
                raise ConnectionError("closed before the answer was complete")
            for event in connection.receive_data(came):
                if isinstance(event, ResponseReceived):
                    status = int(dict(event.headers)[b":status"])
                elif isinstance(event, DataReceived):
                    received += len(event.data)
                    connection.acknowledge_received_data(event.flow_controlled_length, 1)
                elif isinstance(event, StreamEnded):
                    return status, received
                elif isinstance(event, StreamReset | ConnectionTerminated):
                    raise ConnectionError(f"ended with error {event.error_code}")
