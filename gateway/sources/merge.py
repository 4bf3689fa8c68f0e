"""Several documents -> one configuration: lists join in the order of the documents, every other key of the root stands once."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.model.config import LISTS
from gateway.model.decode import root_keys, unknown_key
from gateway.model.problem import Finding, Problem, key_text
from gateway.model.problem import Path as KeyPath
from gateway.sources.document import Document


@dataclass(frozen=True, slots=True)
class Item:
    """One value of the joined configuration and where it came from."""

    document: Document
    path: KeyPath
    """Where it stands in its document."""
    value: Any


@dataclass(slots=True)
class Merged:
    """The joined values. `lists` has every key of LISTS; `single` the other keys of the root that are there."""

    single: dict[str, Item] = field(default_factory=dict)
    lists: dict[str, list[Item]] = field(default_factory=lambda: {key: [] for key in LISTS})
    problems: list[Problem] = field(default_factory=list)


def merge(documents: list[Document]) -> Merged:
    """Joins documents. Their flaws, and keys that stand twice or are unknown, become problems of the result."""
    merged = Merged()
    known = list(root_keys())
    for document in documents:
        for flaw in document.flaws:
            if not _is_inside_item(flaw.path):
                merged.problems.append(
                    Problem(
                        severity="error",
                        fatal=True,
                        source=document.source,
                        line=flaw.line,
                        column=flaw.column,
                        key=key_text(flaw.path),
                        message=flaw.message,
                    )
                )
        if document.value is None:
            continue
        if not isinstance(document.value, dict):
            merged.problems.append(problem_at(document, Finding((), "expected a mapping at the root of the file")))
            continue
        for key, value in document.value.items():
            _add(merged, document, key, value, known)
    return merged


def _add(merged: Merged, document: Document, key: str, value: Any, known: list[str]) -> None:
    if key not in known:
        merged.problems.append(problem_at(document, Finding((key,), unknown_key(key, known), at_key=True)))
    elif value is None:
        # A key with nothing after it is a key that is left out.
        return
    elif key in LISTS:
        if isinstance(value, list):
            merged.lists[key].extend(Item(document, (key, number), item) for number, item in enumerate(value))
        else:
            merged.problems.append(problem_at(document, Finding((key,), "expected a list")))
    elif key in merged.single:
        first = merged.single[key]
        where = place_text(first.document, first.path, at_key=True)
        merged.problems.append(
            problem_at(document, Finding((key,), f"'{key}' stands twice in the configuration; first at {where}", at_key=True))
        )
    else:
        merged.single[key] = Item(document, (key,), value)


def item_flaws(item: Item) -> list[Problem]:
    """The flaws of the text that lie inside one item of a list: they cost that item and nothing else."""
    return [
        Problem(
            severity="error",
            fatal=item.path[0] == "listeners",
            source=item.document.source,
            line=flaw.line,
            column=flaw.column,
            key=key_text(flaw.path),
            message=flaw.message,
        )
        for flaw in item.document.flaws
        if flaw.path[: len(item.path)] == item.path
    ]


def problem_at(document: Document, finding: Finding) -> Problem:
    """A finding about a document, as a problem with its line. The path of the finding is the path in the document."""
    line, column = document.place(finding.path, at_key=finding.at_key)
    return Problem(
        severity=finding.severity,
        fatal=finding.is_fatal,
        source=document.source,
        line=line,
        column=column,
        key=key_text(finding.path),
        message=finding.message,
    )


def directory_of(item: Item) -> Path:
    """What relative names of files in this item count from: the directory of the file that names them."""
    return Path(item.document.source).parent


def place_text(document: Document, path: KeyPath, *, at_key: bool = False) -> str:
    """file:line of a path."""
    line, _ = document.place(path, at_key=at_key)
    return f"{document.source}:{line}" if line else document.source


def _is_inside_item(path: KeyPath) -> bool:
    return len(path) > 1 and path[0] in LISTS
