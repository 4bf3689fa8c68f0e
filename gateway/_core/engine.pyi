"""The data plane of one worker, as Python sees it. Everything else of `_core` is reached through here or is a pure function.

An Engine lives on one thread and one event loop. The shell adds `fileno()` to the loop with `on_ready` as reader, and calls
`on_tick()` about every 20 ms, or as seldom as it asks for.
"""

from collections.abc import Callable, Sequence
from typing import Any

from gateway._core.snapshot import Snapshot
from gateway._core.tls import ClientTLS, ServerTLS

class Engine:
    def __init__(self, counters: Any, *, log_format: str = "off", log_sample: float = 1.0, node: str = "isthmus") -> None:
        """counters: writable buffer of counters.block_size() bytes. log_format: "json", "text" or "off"."""
    def fileno(self) -> int:
        """Descriptor that is readable whenever on_ready has something to do."""
    def on_ready(self) -> None:
        """Handles one batch of readiness: reads, parses, routes, forwards, writes. Never raises for what a peer did."""
    def on_tick(self) -> int:
        """Fires the timers that are due. Milliseconds until the next call is worth while: 20 while there is something to do, up to
        1000 while there is not."""
    def set_wake(self, wake: Callable[[], object] | None) -> None:
        """wake is called when the first thing happens after a tick that asked for more than 20 ms: the next one is due in 20."""
    def open_snapshot(self, blob: Any) -> Snapshot:
        """Opens a blob (bytes-like, kept alive) whose content verify_some is still to check. Raises SnapshotError (ValueError)."""
    def verify_some(self, snapshot: Snapshot) -> bool:
        """Checks one more piece, in well under a tenth of a millisecond. True when there is none left. Raises SnapshotError."""
    def swap(self, snapshot: Snapshot | Any, revision: int) -> None:
        """Puts a snapshot into use for requests from now on; a blob, or one that is not verified to its end, is before. Raises
        SnapshotError."""
    def set_endpoints(self, cluster: int, endpoints: Sequence[tuple[bytes, int, int, bytes]]) -> None:
        """Replaces the endpoints of the cluster with this 64-bit id: (host, port, weight, zone). host is an IPv4 or IPv6 address in
        text, or an absolute path for a Unix socket (port 0). Connections of endpoints that stay are kept; those of others drain."""
    def listen(self, fd: int, bind_id: int) -> None:
        """Accepts from a listening, non-blocking descriptor (kept, not owned) for the port with this 64-bit id."""
    def unlisten(self, bind_id: int) -> None:
        """Takes the connections that wait on that port, and none after them; those that are open go on."""
    def set_server_tls(self, listener: int, tls: ServerTLS | None) -> None:
        """What the listener with this 64-bit id shows to its clients, from the next handshake on; None: it refuses all."""
    def set_client_tls(self, cluster: int, tls: ClientTLS | None) -> None:
        """How the endpoints of the cluster with this 64-bit id are reached and verified. When its identity is another than before,
        idle connections close and leased ones are not used again."""
    def set_certificate_reader(self, read: Callable[[bytes], bytes] | None) -> None:
        """read makes X-Forwarded-Client-Cert of the DER of a client's verified certificate, once a handshake."""
    def drain(self, deadline_ms: int) -> None:
        """From now on every response says Connection: close, and a connection that brings no request within half a second closes.
        Ports accept until unlisten. After deadline_ms what is left is closed hard."""
    @property
    def connections(self) -> int:
        """Open downstream connections, tunnels included; 0 means drained."""
    def describe_connections(self, limit: int = 1000) -> list[dict[str, Any]]:
        """Live connections: peer, listener (of the request in progress; otherwise all of the port's), state, age_ms, requests, and
        of an exchange in progress phase, method, path, route, cluster, upstream."""
    def describe_clusters(self) -> list[dict[str, Any]]:
        """Clusters with their endpoints: address, weight, active, idle, ejected, ..."""
    def take_log(self) -> bytes:
        """The access-log lines gathered since the last call; empty when there are none."""
    def set_log(self, format: str, sample: float) -> None: ...
    def close(self) -> None:
        """Closes every connection at once and breaks all cycles."""
