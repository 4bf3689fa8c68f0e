"""What is wrong with a configuration, and where.

A Finding is said by the model, which knows no files: a path and a sentence. A source turns it into a Problem, which names the file
and the line, or the Kubernetes object. An error that is fatal means that nothing of the file set can be used; any other error that
one object was left out, or that some of its requests are answered 500; a warning that it works otherwise than its author may think.
"""

import difflib
from collections.abc import Iterable
from typing import Literal, NamedTuple

import msgspec

Path = tuple[str | int, ...]
"""Where in the configuration: ("routes", 0, "rules", 1, "backendRefs", 0, "name")."""


Severity = Literal["error", "warning"]


class Finding(NamedTuple):
    """Something wrong with a value of a configuration."""

    path: Path
    message: str
    severity: Severity = "error"
    drops: bool = True
    """Of an error: the object (route, cluster, rate limit) that the path leads into cannot be used; of another key: nothing can."""
    at_key: bool = False
    """The key itself is meant, not its value."""

    @property
    def is_fatal(self) -> bool:
        """Whether nothing of the configuration can be used: everything but one route, cluster or rate limit."""
        if self.severity != "error" or not self.drops:
            return False
        return not (len(self.path) > 1 and self.path[0] in ("routes", "clusters", "rateLimits"))


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One finding. `line` and `column` count from 1; 0 means not known. `source` names the file or the Kubernetes object."""

    severity: Severity
    message: str
    source: str = ""
    line: int = 0
    column: int = 0
    key: str = ""
    fatal: bool = False

    def text(self) -> str:
        """One line: "file:line: key: message", with "warning: " before the key of a warning."""
        where = self.source
        if where and self.line:
            where += f":{self.line}"
        what = f"{self.key}: {self.message}" if self.key else self.message
        if self.severity == "warning":
            what = f"warning: {what}"
        return f"{where}: {what}" if where else what

    def order(self) -> tuple[str, int, int, str, str]:
        """Sort key: by source and place."""
        return (self.source, self.line, self.column, self.key, self.message)


def warning(path: Path, message: str) -> Finding:
    """A Finding that leaves everything in place."""
    return Finding(path, message, severity="warning", drops=False)


def key_text(path: Path) -> str:
    """The path as people write it: routes[0].rules[1].backendRefs[0].name."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant, or None. Letter case and dashes count little."""
    choices = list(known)
    folded = {choice.replace("-", "").replace("_", "").lower(): choice for choice in choices}
    bare = word.replace("-", "").replace("_", "").lower()
    if bare in folded:
        return folded[bare]
    close = difflib.get_close_matches(bare, folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else None


def absent(kind: str, name: str, known: Iterable[str]) -> str:
    """The sentence about a name that is not there."""
    near = nearest(name, known)
    return f"there is no {kind} '{name}'" + (f" (did you mean '{near}'?)" if near else "")
