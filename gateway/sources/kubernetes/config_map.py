"""ConfigMap: texts by key. Some carry configuration, some the certificates of authorities."""

from gateway.sources.kubernetes.meta import Object


class ConfigMap(Object, frozen=True):
    """A ConfigMap of the core group."""

    data: dict[str, str] | None = None
    binary_data: dict[str, bytes] | None = None

    def content(self, key: str) -> bytes | None:
        """Bytes of a key, wherever they stand."""
        if self.data and key in self.data:
            return self.data[key].encode()
        return (self.binary_data or {}).get(key)
