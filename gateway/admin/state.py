"""What the admin port shows: the questions that it asks of the supervisor, which answers them from what it already has."""

from __future__ import annotations

from typing import Any, Protocol

Row = dict[str, Any]


class State(Protocol):
    """Implemented by the supervisor. Every answer is plain values that JSON can carry."""

    def is_live(self) -> bool:
        """Whether this process does its work; a false answer makes the node restart it."""

    def unready_reason(self) -> str:
        """Why no traffic should come now; empty when it may."""

    def stale_reason(self) -> str:
        """Why what is served may be old, although it is served; empty when it is not."""

    async def metrics(self) -> bytes:
        """The Prometheus text exposition."""

    def config(self) -> Row:
        """The configuration in use, without secrets."""

    def problems(self) -> Row:
        """What is wrong with the sources now, and whether the last load was applied."""

    def certificates(self) -> list[Row]:
        """The certificates in use: who shows them, for which names, until when. Never a key."""

    def snapshot(self) -> Row:
        """What the compiled snapshot in use consists of."""

    async def clusters(self) -> list[Row]:
        """Clusters with their endpoints, over all workers."""

    async def connections(self, limit: int) -> list[Row]:
        """Live downstream connections of all workers."""

    async def top_keys(self, limit: int) -> list[Row]:
        """Rate limits with the keys that they met most lately, so many of each; no value that may be a secret."""

    def log_level(self) -> str:
        """The level in use."""

    def set_log_level(self, level: str) -> None:
        """Sets it here and in every worker."""

    async def stats(self) -> Row:
        """The live numbers of the dashboard and of `isthmus top`."""
