"""Secret: bytes by key. Only those that another object refers to are ever asked for; nothing that shows one shows its content."""

from typing import Any

from gateway.sources.kubernetes.meta import Object

TLS_TYPE = "kubernetes.io/tls"


class Secret(Object, frozen=True):
    """A Secret of the core group."""

    type: str = "Opaque"
    data: dict[str, bytes] | None = None
    string_data: dict[str, str] | None = None
    """Only in files: the API server moves it into `data`."""

    def content(self, key: str) -> bytes | None:
        """Bytes of a key."""
        if self.string_data and key in self.string_data:
            return self.string_data[key].encode()
        return (self.data or {}).get(key)

    def __repr__(self) -> str:
        return f"Secret({self.metadata.namespace}/{self.metadata.name})"

    def __rich_repr__(self) -> Any:
        yield f"{self.metadata.namespace}/{self.metadata.name}"
