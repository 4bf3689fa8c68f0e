from collections.abc import Sequence

def reply(status: int, accept: Sequence[bytes] = (), request_id: bytes = b"") -> tuple[int, dict[bytes, bytes], bytes]:
    """(status, fields, body) of the gateway's own answer to a request with these Accept fields. For tests."""
