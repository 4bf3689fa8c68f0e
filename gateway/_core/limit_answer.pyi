from collections.abc import Sequence

def fields(facts: Sequence[tuple[bytes, int, int, int, int, int]], retry_ms: int = 0) -> list[tuple[bytes, bytes]]:
    """The fields for limits (name, style, requests, seconds, remaining, reset_ms). For tests."""
