"""What a command is given to read: configuration files, Kubernetes objects as files, or both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.sources import files
from gateway.sources.files import Loaded

if TYPE_CHECKING:
    from gateway.sources.certificates import Files


@dataclass(frozen=True, slots=True)
class Sources:
    """At least one of the two."""

    config: Path | None
    objects: Path | None

    @property
    def path(self) -> Path:
        """The one to name."""
        return self.config or self.objects or Path()

    def load(self, known: Files | None = None, *, with_certificates: bool = True) -> Loaded:
        """All of it as one configuration."""
        if self.objects is None:
            return files.load(self.path, known, with_certificates=with_certificates)
        from gateway.sources import objects

        return objects.load(self.config, self.objects, known, with_certificates=with_certificates).loaded

    def load_with_places(self) -> tuple[Loaded, Callable[[str, int], str]]:
        """Without certificates: whoever asks where a request goes may have no private keys at hand. And where a rule stands:
        (route, number of the rule) -> file:line, "" when that is not known."""
        if self.objects is None:
            return files.load(self.path, with_certificates=False), lambda route, rule: ""
        from gateway.sources import objects

        joined = objects.load(self.config, self.objects, with_certificates=False)
        return joined.loaded, joined.where
