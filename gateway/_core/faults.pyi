"""Status and name of every fault, in the order of the C enum; counters number their fault words by it."""

TABLE: tuple[tuple[bytes, int], ...]
NAMES: tuple[str, ...]
