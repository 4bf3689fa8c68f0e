"""Namespace: its labels decide who may attach to a listener."""

from gateway.sources.kubernetes.meta import Object

NAME_LABEL = "kubernetes.io/metadata.name"


class Namespace(Object, frozen=True):
    """A Namespace of the core group."""

    @property
    def labels(self) -> dict[str, str]:
        return {NAME_LABEL: self.metadata.name, **(self.metadata.labels or {})}
