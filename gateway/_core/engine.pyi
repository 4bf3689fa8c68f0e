"""The data plane of one worker, as Python sees it. Everything else of `_core` is reached through here or is a pure function.

An Engine lives on one thread and one event loop. The shell adds `fileno()` to the loop with `on_ready` as reader, and calls
`on_tick()` about every 20 ms, or as seldom as it asks for.
"""

from collections.abc import Callable, Sequence
from typing import Any

from gateway._core.snapshot import Snapshot
from gateway._core.tls import ClientTLS, ServerTLS

LimitRow = tuple[bytes, bytes, int, int, int, int, int]
"""(tag, key of 16 bytes, algorithm, requests, period in microseconds or 0 for a month, capacity, cost) of one key in the store."""

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
    def set_limits(self, table: Any, *, slot: int = 0, replicas: int = 1) -> None:
        """Rate limits are counted in this writable buffer of limit_table.table_size() bytes, which the workers of a gateway share;
        slot is this worker's number. None: in a table of its own, as without this call."""
    def set_replicas(self, replicas: int) -> None:
        """How many gateways share what a limit allows when no store is asked."""
    def set_limit_asker(self, wake: Callable[[], object] | None) -> None:
        """There is a store of rate limits: wake is called at the end of each turn in which asks came up, and may take and answer
        them at once. None: there is none any more; each limit counts in the table."""
    def take_asks(self) -> list[tuple[int, int, int, tuple[LimitRow, ...], int]]:
        """The asks since the last call: (id, count, kind, rows, microseconds that an answer may take). kind: 0 charge up to count
        requests, all rows or none for each; 1 lease up to count; 2 give count back; 3 charge count, fitting or not."""
    def answer_ask(self, ask_id: int, granted: int, rows: Sequence[tuple[int, int, int]]) -> None:
        """The store granted so many, and said of each row what remains, the milliseconds until one more fits, and those until all
        is back. An ask that is not known, or too late, is nothing."""
    def fail_ask(self, ask_id: int, reason: int = 0) -> None:
        """There will be no answer: what waits goes by the onFailure of its limits."""
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
    def top_keys(self) -> list[dict[str, Any]]:
        """The keys that rate limits met most in the last one or two minutes: limit (id), hash, key (text; header, cookie and query
        values and those of certificates as a digest), requests, refused of them, error (requests that may be other keys'), ms."""
    def take_log(self) -> bytes:
        """The access-log lines gathered since the last call; empty when there are none."""
    def set_log(self, format: str, sample: float) -> None: ...
    def close(self) -> None:
        """Closes every connection at once and breaks all cycles."""
