"""Files and directories -> one configuration, with problems that name file and line.

A directory is one configuration: every *.yaml, *.yml and *.json in it, in the order of their names; hidden entries are skipped.
In a mounted ConfigMap the files are links through `..data`, which Kubernetes swaps in one step; all files are then read from the
directory that `..data` names at the begin, so that no two of them come from different versions.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from gateway.model.cluster import Cluster
from gateway.model.config import LISTS, Config
from gateway.model.decode import decode, decode_route, root_keys
from gateway.model.listener import Listener
from gateway.model.policy import RateLimit
from gateway.model.problem import Finding, Problem
from gateway.model.validate import validate
from gateway.sources.certificates import Files, Look, Place, Secured, secure
from gateway.sources.document import Document, SyntaxFlaw, parse
from gateway.sources.merge import Item, Merged, directory_of, item_flaws, merge, place_text, problem_at

MAX_FILE_BYTES = 16 << 20
"""Largest file that is read."""
SUFFIXES = (".yaml", ".yml", ".json")
"""What a configuration file in a directory ends with."""

_DATA_LINK = "..data"
_ITEM_TYPES: dict[str, Any] = {"listeners": Listener, "rateLimits": RateLimit, "clusters": Cluster}


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a path holds."""

    config: Config | None
    """Validated, without the routes, clusters and rate limits that an error took out; None when a problem is fatal."""
    problems: list[Problem]
    """In the order of file and line."""
    files: list[Path]
    """What was read, in the order of merging."""
    digest: str
    """SHA-256 over the names and contents of the files, and over what kept one from being read: equal digests load equally."""
    left_out: frozenset[tuple[str, str]] = frozenset()
    """(root key, name) of objects that stand in the files but not in `config`, because an error took them out."""
    secured: Secured = field(default_factory=Secured)
    """What the listeners and clusters of `config` need for TLS."""
    tls_files: Files = field(default_factory=Files)
    """The files that it came from, to be handed to the next load."""
    due: datetime | None = None
    """When the same files will come to something else, because a certificate in them comes nearer to its end."""


@dataclass(slots=True)
class _Text:
    name: Path
    content: bytes | None
    problem: Problem | None = None


@dataclass(slots=True)
class _Draft:
    """Decoded items beside the places they came from: item n of a list of the Config is origins[list][n]."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, list[Item]] = field(default_factory=lambda: {key: [] for key in LISTS})
    broken: dict[str, set[str]] = field(default_factory=lambda: {key: set() for key in LISTS})
    """Names of items that could not be decoded."""


def load(
    path: Path | None,
    known: Files | None = None,
    *,
    with_certificates: bool = True,
    more: Mapping[str, bytes] | None = None,
) -> Loaded:
    """Reads, merges, decodes and validates a file or a directory. Never raises for what stands in it or is missing.

    known: Loaded.tls_files of the load before. with_certificates: whether the files that it names for TLS are read and checked too.
    more: texts that are no files, by the name to show; a path may then be missing.
    """
    texts = [] if path is None else _read(path)
    texts += [_Text(Path(name), content) for name, content in (more or {}).items()]
    problems: list[Problem] = []
    documents: list[Document] = []
    for text in texts:
        if text.problem is not None:
            problems.append(text.problem)
        if text.content is None:
            continue
        parsed, problem = _parse(text)
        documents += parsed
        if problem is not None:
            problems.append(problem)
    merged = merge(documents)
    config, found, draft = _assemble(merged)
    problems += found
    look = Look(Secured(), known or Files())
    if any(problem.fatal for problem in problems):
        config = None
    elif config is not None and with_certificates:
        look = secure(config, _places(config, draft), known or Files())
        problems += [_locate(finding, draft, merged) for finding in look.findings]
        config = _without(config, look.left_out)
    read = [text.name for text in texts if text.content is not None]
    return Loaded(
        config=config,
        problems=sorted(problems, key=Problem.order),
        files=read,
        digest=_digest(texts),
        left_out=frozenset() if config is None else _left_out(merged, config),
        secured=look.secured,
        tls_files=look.files,
        due=look.due,
    )


def _places(config: Config, draft: _Draft) -> dict[tuple[str, str], Place]:
    """Where listeners and clusters stand in the joined lists, and which directory the names of their files count from."""
    places = {}
    for key, values in (("listeners", config.listeners), ("clusters", config.clusters)):
        numbers = {value.name: number for number, value in enumerate(draft.values.get(key, ()))}
        for value in values:
            number = numbers[value.name]
            places[key, value.name] = Place(number, directory_of(draft.origins[key][number]))
    return places


def _without(config: Config, left_out: set[tuple[str, str]]) -> Config:
    if not left_out:
        return config
    return msgspec.structs.replace(
        config,
        listeners=tuple(each for each in config.listeners if ("listeners", each.name) not in left_out),
        clusters=tuple(each for each in config.clusters if ("clusters", each.name) not in left_out),
    )


def mentions(path: Path, word: str) -> bool:
    """Whether a word stands anywhere in the files; what cannot be read mentions nothing."""
    return any(word.encode() in text.content for text in _read(path) if text.content is not None)


def digest(path: Path) -> str:
    """Loaded.digest of what a load would find now, without looking into the files."""
    return _digest(_read(path))


def _digest(texts: list[_Text]) -> str:
    made = hashlib.sha256()
    for text in texts:
        if text.problem is not None:
            made.update(f"{text.problem.text()}\0".encode())
        if text.content is not None:
            made.update(f"{text.name.name}\0{len(text.content)}\0".encode() + text.content)
    return made.hexdigest()


def _left_out(merged: Merged, config: Config) -> frozenset[tuple[str, str]]:
    fields = {field.encode_name: field.name for field in msgspec.structs.fields(Config)}
    found = set()
    for key, items in merged.lists.items():
        kept = {value.name for value in getattr(config, fields[key])}
        names = {item.value.get("name") for item in items if isinstance(item.value, dict)}
        found |= {(key, name) for name in names if isinstance(name, str) and name not in kept}
    return frozenset(found)


def config_files(path: Path) -> list[tuple[Path, Path]]:
    """(name to show, file to open) of every configuration file of a directory, in order. OSError when it cannot be listed."""
    link = path / _DATA_LINK
    base = Path(os.path.realpath(link, strict=True)) if link.is_symlink() else None
    files = []
    for name in sorted(os.listdir(path)):
        if name.startswith(".") or not name.lower().endswith(SUFFIXES):
            continue
        shown = path / name
        frozen = base / name if base is not None else shown
        real = frozen if frozen.exists() else shown
        if not real.is_dir():
            files.append((shown, real))
    return files


def _read(path: Path) -> list[_Text]:
    if not path.is_dir():
        return [_read_file(path, path)]
    for last in (False, True):
        try:
            texts = [_read_file(shown, real) for shown, real in config_files(path)]
        except OSError as error:
            if last:
                return [_Text(path, None, _unreadable(path, error))]
            continue
        # A swap may take the old directory away while it is read; the second look finds the new one.
        if last or all(text.problem is None for text in texts):
            break
    if not texts:
        message = f"no configuration in this directory: no {', '.join('*' + suffix for suffix in SUFFIXES)}"
        return [_Text(path, None, Problem(severity="error", fatal=True, source=str(path), message=message))]
    return texts


def _read_file(shown: Path, real: Path) -> _Text:
    try:
        with open(real, "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        return _Text(shown, None, _unreadable(shown, error))
    if len(content) > MAX_FILE_BYTES:
        message = f"larger than {MAX_FILE_BYTES >> 20} MiB"
        return _Text(shown, None, Problem(severity="error", fatal=True, source=str(shown), message=message))
    return _Text(shown, content)


def _unreadable(path: Path, error: OSError) -> Problem:
    return Problem(severity="error", fatal=True, source=str(path), message=f"cannot be read: {error.strerror or error}")


def _parse(text: _Text) -> tuple[list[Document], Problem | None]:
    content, source = text.content or b"", str(text.name)
    try:
        decoded = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return [], Problem(severity="error", fatal=True, source=source, line=line, message="is not UTF-8 text")
    try:
        return parse(decoded, source, is_json=text.name.suffix.lower() == ".json"), None
    except SyntaxFlaw as refusal:
        flaw = refusal.flaw
        return [], Problem(severity="error", fatal=True, source=source, line=flaw.line, column=flaw.column, message=flaw.message)


def _assemble(merged: Merged) -> tuple[Config | None, list[Problem], _Draft]:
    problems = list(merged.problems)
    draft = _Draft()
    types = root_keys()
    for key, item in merged.single.items():
        value, findings = decode(types[key], item.value, item.path)
        problems += [problem_at(item.document, finding) for finding in findings]
        draft.values[key] = value
    for key, items in merged.lists.items():
        draft.values[key] = tuple(_decode_items(key, items, draft, problems))
    if any(problem.fatal for problem in problems):
        # What is left of it is still worth a look, so that one run shows every problem; the root keeps its defaults.
        draft.values = {key: value for key, value in draft.values.items() if value is not None}
    names = {field.encode_name: field.name for field in msgspec.structs.fields(Config)}
    config = Config(**{names[key]: value for key, value in draft.values.items()})
    validated = validate(config, broken_clusters=frozenset(draft.broken["clusters"]))
    problems += [_locate(finding, draft, merged) for finding in validated.findings]
    return validated.config, problems, draft


def _decode_items(key: str, items: list[Item], draft: _Draft, problems: list[Problem]) -> Iterator[Any]:
    named: dict[str, Item] = {}
    for item in items:
        flaws = item_flaws(item)
        if key == "routes":
            value, findings = decode_route(item.value, item.path)
        else:
            value, findings = decode(_ITEM_TYPES[key], item.value, item.path)
        problems += flaws
        problems += [problem_at(item.document, finding) for finding in findings]
        if value is None or flaws:
            name = item.value.get("name") if isinstance(item.value, dict) else None
            if isinstance(name, str):
                draft.broken[key].add(name)
            continue
        if value.name in named:
            first = named[value.name]
            where = place_text(first.document, (*first.path, "name"))
            message = f"the name '{value.name}' stands twice among {key}; first at {where}"
            problems.append(problem_at(item.document, Finding((*item.path, "name"), message)))
            continue
        named[value.name] = item
        draft.origins[key].append(item)
        yield value


def _locate(finding: Finding, draft: _Draft, merged: Merged) -> Problem:
    """A finding about the joined configuration, at the place in the file that the value came from."""
    if not finding.path:
        return Problem(severity=finding.severity, fatal=finding.is_fatal, message=finding.message)
    key = str(finding.path[0])
    if key in LISTS and len(finding.path) > 1:
        item = draft.origins[key][int(finding.path[1])]
        return problem_at(item.document, finding._replace(path=(*item.path, *finding.path[2:])))
    if key in merged.single:
        return problem_at(merged.single[key].document, finding)
    return Problem(severity=finding.severity, fatal=finding.is_fatal, key=key, message=finding.message)
