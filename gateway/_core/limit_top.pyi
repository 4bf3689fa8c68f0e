from typing import Any

class TopProbe:
    """For tests: sketches at any time. A key is its number."""

    def __init__(self) -> None: ...
    def meet(self, limit: int, key: int, now_ms: int, weight: int = 1, refused: bool = False) -> bool:
        """False: the limit has no sketch, since others have them all."""
    def rows(self, now_ms: int) -> list[dict[str, Any]]:
        """As Engine.top_keys; the text of a key is its number in 16 hexadecimal digits."""
