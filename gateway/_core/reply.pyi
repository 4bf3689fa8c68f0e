from collections.abc import Sequence

def reply(
    status: int, accept: Sequence[bytes] = (), request_id: bytes = b"", limit: bytes | None = None
) -> tuple[int, dict[bytes, bytes], bytes]:
    """(status, fields, body) of the gateway's own answer to a request with these Accept fields; limit: that of this name refuses.
    For tests."""
