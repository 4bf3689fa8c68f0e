from collections.abc import Iterable, Mapping, Sequence
from typing import Final, final

TEXT: Final[int]
NEED: Final[int]
CLUSTER: Final[int]
OWN: Final[dict[str, int]]
TARGETS: Final[dict[str, int]]

@final
class Piece:
    def __init__(
        self,
        main: str,
        sections: Mapping[str, Sequence[int]],
        texts: tuple[str, ...] = (),
        needs: tuple[Piece, ...] = (),
        clusters: tuple[str, ...] = (),
        targets: tuple[tuple[int, int, int], ...] = (),
    ) -> None: ...

@final
class Linker:
    def text(self, text: str) -> tuple[int, int]: ...
    def add(self, section: str, words: Iterable[int]) -> int: ...
    def place(self, piece: Piece) -> int: ...
    def count(self, section: str) -> int: ...
    def cluster(self, name: str, piece: Piece) -> None: ...
    def vhost(self, host: str, pieces: list[Piece]) -> int: ...
    def hosts(self, hosts: Mapping[str, int]) -> tuple[int, int]: ...
    def blob(self, revision: int) -> bytes: ...
