"""What all workers have had to do with the store of rate limits, those that are gone included: a sum never goes back."""

from __future__ import annotations

from gateway.supervisor.ipc import STORE_BOUNDS_US, StoreFacts


class StoreSums:
    """Told by `note` what each worker said last; answers the sums."""

    def __init__(self) -> None:
        self._gone = StoreFacts()
        self._said: dict[int, tuple[int, StoreFacts]] = {}

    def note(self, slot: int, pid: int, facts: StoreFacts) -> None:
        """The process in this slot says so. Another process begins at nothing."""
        known = self._said.get(slot)
        if known is not None and known[0] != pid:
            self._gone = _sum(self._gone, known[1])
        self._said[slot] = pid, facts

    def total(self) -> StoreFacts | None:
        """Counts of all workers there ever were, and the breakers of the last of each slot; None when none has used a store."""
        if not self._said:
            return None
        total = self._gone
        for _, facts in self._said.values():
            total = _sum(total, facts)
        total.breakers = sum(facts.breakers for _, facts in self._said.values())
        total.breakers_open = sum(facts.breakers_open for _, facts in self._said.values())
        return total


def _sum(one: StoreFacts, other: StoreFacts) -> StoreFacts:
    none = [0] * (len(STORE_BOUNDS_US) + 1)
    return StoreFacts(
        asks=one.asks + other.asks,
        round_trips=one.round_trips + other.round_trips,
        microseconds=one.microseconds + other.microseconds,
        buckets=[a + b for a, b in zip(one.buckets or none, other.buckets or none, strict=True)],
        errors={kind: one.errors.get(kind, 0) + other.errors.get(kind, 0) for kind in one.errors | other.errors},
        opened=one.opened + other.opened,
    )
