from collections.abc import Iterable
from typing import Any

from gateway._core.snapshot import Snapshot

def port_ids(snapshot: Snapshot) -> list[tuple[int, str]]: ...
def explain_route(
    snapshot: Snapshot,
    port_id: int,
    method: bytes,
    host: bytes,
    path: bytes,
    query: bytes | None = None,
    headers: Iterable[tuple[bytes, bytes]] = (),
    candidates: bool = True,
) -> dict[str, Any]: ...
def preview_request(
    snapshot: Snapshot,
    port_id: int,
    method: bytes,
    host: bytes,
    path: bytes,
    query: bytes | None = None,
    headers: Iterable[tuple[bytes, bytes]] = (),
    secure: bool = False,
) -> dict[str, Any] | None: ...
def preview_response(snapshot: Snapshot, rule_index: int, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]: ...
def time_routes(snapshot: Snapshot, port_id: int, requests: list[tuple[bytes, bytes, bytes]], rounds: int) -> tuple[float, int]: ...
