"""Text of a YAML or JSON file -> plain values that remember their lines.

YAML is read from the events of PyYAML's C parser, never by its constructors. Scalars follow YAML 1.2's core schema, so `off` and
`no` are words. Tags and merge keys are refused; aliases count as what they expand to, so that no small file becomes a large value.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from gateway.model.problem import Path

MAX_NODES = 2_000_000
"""Most values that one file may expand to."""
MAX_DEPTH = 64
"""Deepest nesting; the language itself needs about ten."""

_INT = re.compile(r"[-+]?[0-9]{1,19}")
_BASED = re.compile(r"0o[0-7]{1,21}|0x[0-9a-fA-F]{1,16}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,3})?")
_WORDS = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_PLAIN_TAGS = frozenset({None, "!", "tag:yaml.org,2002:str", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"})


@dataclass(frozen=True, slots=True)
class Flaw:
    """Something that the text itself does wrong: its grammar, a key that stands twice. `path` is where it stands."""

    message: str
    line: int
    column: int
    path: Path = ()


class SyntaxFlaw(Exception):
    """The text cannot be read at all."""

    def __init__(self, message: str, line: int = 0, column: int = 0) -> None:
        super().__init__(message)
        self.flaw = Flaw(message, line, column)


@dataclass(slots=True)
class Document:
    """One YAML document (or JSON file): its value, its flaws, and where everything stands."""

    source: str
    value: Any = None
    flaws: list[Flaw] = field(default_factory=list)
    start: tuple[int, int] = (0, 0)
    # id of a mapping -> key -> (line, column of the key, line, column of the value);
    # id of a list -> index -> the same with the item for both. The values live as long as this document.
    places: dict[int, dict[Any, tuple[int, int, int, int]]] = field(default_factory=dict)

    def place(self, path: Path, *, at_key: bool = False) -> tuple[int, int]:
        """(line, column), from 1, of the value at a path, or of its key. A path that leaves the value ends where it left it."""
        value, place = self.value, self.start
        for depth, step in enumerate(path):
            found = self.places.get(id(value), {}).get(step)
            if found is None:
                break
            place = found[:2] if at_key and depth == len(path) - 1 else found[2:]
            value = value[step]
        return place


def parse(text: str, source: str, *, is_json: bool = False) -> list[Document]:
    """The documents of a file's text. SyntaxFlaw when it cannot be read; smaller flaws are listed in the documents."""
    if is_json:
        return [_parse_json(text, source)]
    return _parse_yaml(text, source)


def _parse_yaml(text: str, source: str) -> list[Document]:
    reader = None
    try:
        reader = _Reader(text, source)
        return reader.documents()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        began = error.context_mark
        context = f"{error.context} that begins at line {began.line + 1}" if error.context and began else error.context
        message = ", ".join(part for part in (context, error.problem) if part) or "cannot be read"
        raise SyntaxFlaw(f"YAML: {message}", *((mark.line + 1, mark.column + 1) if mark else (0, 0))) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1 if isinstance(error.position, int) else 0
        raise SyntaxFlaw(f"YAML: {error.reason}", line) from None
    finally:
        if reader is not None:
            reader.close()


class _Reader:
    """Builds plain values out of parser events."""

    def __init__(self, text: str, source: str) -> None:
        self.parser = yaml.CSafeLoader(text)
        self.source = source
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.path: list[str | int] = []
        self.nodes = 0
        self.document = Document(source)

    def close(self) -> None:
        self.parser.dispose()

    def documents(self) -> list[Document]:
        found: list[Document] = []
        next_event = self.parser.get_event
        while True:
            event: Any = next_event()
            if isinstance(event, yaml.StreamEndEvent):
                return found
            if not isinstance(event, yaml.DocumentStartEvent):
                continue
            self.document = Document(self.source)
            self.anchors = {}
            event = next_event()
            self.document.start = (event.start_mark.line + 1, event.start_mark.column + 1)
            self.document.value = self._value(event)
            found.append(self.document)

    def _value(self, event: Any) -> Any:
        """The value that begins with this event; counts what it expands to."""
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise SyntaxFlaw(f"too large: more than {MAX_NODES} values, aliases expanded", *_place(event))
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                self._flaw(event, f"unknown alias '*{event.anchor}'")
                return None
            value, size = self.anchors[event.anchor]
            self.nodes += size
            return value
        if event.tag not in _PLAIN_TAGS:
            self._flaw(event, f"tags are not used here: {event.tag}")
        before = self.nodes
        if isinstance(event, yaml.ScalarEvent):
            value = _scalar(event)
        elif len(self.path) >= MAX_DEPTH:
            raise SyntaxFlaw(f"nested deeper than {MAX_DEPTH}", *_place(event))
        elif isinstance(event, yaml.MappingStartEvent):
            value = self._mapping()
        else:
            value = self._list()
        if event.anchor is not None:
            self.anchors[event.anchor] = (value, self.nodes - before)
        return value

    def _list(self) -> list[Any]:
        items: list[Any] = []
        places = self.document.places[id(items)] = {}
        next_event = self.parser.get_event
        while not isinstance(event := next_event(), yaml.SequenceEndEvent):
            line, column = _place(event)
            places[len(items)] = (line, column, line, column)
            self.path.append(len(items))
            items.append(self._value(event))
            self.path.pop()
        return items

    def _mapping(self) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        places = self.document.places[id(mapping)] = {}
        next_event = self.parser.get_event
        while not isinstance(event := next_event(), yaml.MappingEndEvent):
            key_place = _place(event)
            key = self._key(event)
            event = next_event()
            if key is None:
                self.path.append("?")
                self._value(event)
                self.path.pop()
                continue
            self.path.append(key)
            if key in mapping:
                line, _, _, _ = places[key]
                self.document.flaws.append(Flaw(f"key '{key}' stands twice; first at line {line}", *key_place, tuple(self.path)))
                self._value(event)
            else:
                places[key] = (*key_place, *_place(event))
                mapping[key] = self._value(event)
            self.path.pop()
        return mapping

    def _key(self, event: Any) -> str | None:
        """The text of a key, or None and a flaw when it is no text."""
        if isinstance(event, yaml.ScalarEvent):
            if event.value == "<<" and event.implicit[0]:
                self._flaw(event, "merge keys (<<) are not used here; an alias may stand for a whole value")
                return None
            if event.anchor is not None:
                self.anchors[event.anchor] = (event.value, 1)
            return str(event.value)
        self._flaw(event, "a key must be plain text")
        self.path.append("?")
        self._value(event)
        self.path.pop()
        return None

    def _flaw(self, event: Any, message: str) -> None:
        self.document.flaws.append(Flaw(message, *_place(event), tuple(self.path)))


def _place(event: Any) -> tuple[int, int]:
    mark = event.start_mark
    return mark.line + 1, mark.column + 1


def _scalar(event: Any) -> Any:
    text = event.value
    if not event.implicit[0] or event.tag == "tag:yaml.org,2002:str":
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def _parse_json(text: str, source: str) -> Document:
    repeated: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        mapping = dict(items)
        if len(mapping) != len(items):
            names = [name for name, _ in items]
            repeated.extend(sorted({name for name in names if names.count(name) > 1}))
        return mapping

    try:
        value = json.loads(text, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        raise SyntaxFlaw(f"JSON: {error.msg}", error.lineno, error.colno) from None
    except RecursionError:
        raise SyntaxFlaw(f"nested deeper than {MAX_DEPTH}") from None
    try:
        # JSON is YAML but for a few escapes; read as YAML its values know their lines.
        return _parse_yaml(text, source)[0]
    except SyntaxFlaw as refusal:
        if not refusal.flaw.message.startswith("YAML"):
            raise
    return Document(source, value, [Flaw(f"key '{name}' stands twice", 0, 0) for name in repeated])
