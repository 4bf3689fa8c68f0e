"""What a live source tells of itself, for whoever shows it."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class KindFacts:
    """What is told about one kind, over all its reflectors."""

    is_synced: bool
    objects: int
    lists: int
    watches: int
    errors: int


@dataclass(frozen=True, slots=True)
class LiveFacts:
    """What is told about the source."""

    kinds: dict[str, KindFacts] = field(default_factory=dict)
    is_leading: bool = False
    status_writes: int = 0
    status_errors: int = 0
    endpoint_updates: int = 0
    last_error_at: float = 0.0
    is_stale: bool = False
    """Whether what is served comes from the file of the last good objects."""
