class RecordProbe:
    """A LogBuffer with a Python face, for tests."""

    def __init__(self, format: str = "json", *, sample: float = 1.0, max_bytes: int = 1048576, seed: int = 1) -> None: ...
    def head_of(
        self,
        *,
        method: bytes = b"",
        authority: bytes = b"",
        target: bytes = b"",
        path: bytes = b"",
        query: bytes = b"",
        user_agent: bytes | None = None,
        referer: bytes | None = None,
    ) -> None: ...
    def write(
        self,
        *,
        wall_us: int = 0,
        duration_us: int = 0,
        upstream_us: int = 0,
        bytes_in: int = 0,
        bytes_out: int = 0,
        flags: int = 0,
        attempts: int = 0,
        status: int = 200,
        protocol: int = 11,
        listener: bytes = b"",
        route: bytes = b"",
        cluster: bytes = b"",
        upstream: bytes = b"",
        client: bytes = b"",
        request_id: bytes = b"",
        detail: bytes = b"",
        certificate: bytes = b"",
        secure: bool = False,
        times: int = 1,
    ) -> int: ...
    def take(self) -> bytes: ...
    @property
    def dropped(self) -> int: ...
