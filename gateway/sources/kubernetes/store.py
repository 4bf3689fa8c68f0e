"""The objects that are known, by kind, namespace and name. Whoever lists and watches fills it; `translate` only reads it.

An object that cannot be decoded as a whole is kept as far as it can: unknown fields of a newer API are cut off, a rule of a route
that makes no sense is replaced by what stands for it, and the flaws are kept beside the object. What is beyond that is `broken`.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar, cast

import msgspec
from msgspec import inspect

from gateway.model.decode import decode
from gateway.model.problem import Finding, Path
from gateway.model.scalars import decode_hook
from gateway.sources.kubernetes.kinds import KINDS, ROUTE_KINDS, Kind
from gateway.sources.kubernetes.meta import Object, ObjectMeta, Ref

O = TypeVar("O", bound=Object)  # noqa: E741
_INSPECTED: dict[Any, inspect.Type] = {}
_DECODERS: dict[type[Object], msgspec.json.Decoder[Object]] = {}


class Broken(msgspec.Struct, frozen=True):
    """An object that cannot be used at all, and why."""

    metadata: ObjectMeta
    findings: tuple[Finding, ...]


class Decoded(msgspec.Struct, frozen=True):
    """What an object came to. `object` is None when it is broken; `findings` is empty when nothing is wrong."""

    metadata: ObjectMeta
    object: Object | None
    findings: tuple[Finding, ...] = ()


class Store:
    """The objects. Everything in it is immutable but the store itself; `revision` counts its changes."""

    def __init__(self) -> None:
        self.revision = 0
        self._changed: dict[str, int] = {}
        """Kind -> revision of its last change."""
        self._line = object()
        """Stands for this store and its copies: only their revisions can be compared."""
        self.flaws: dict[Ref, tuple[Finding, ...]] = {}
        """Of objects that are there: what had to be cut out of them. Paths begin at the object."""
        self.broken: dict[Ref, Broken] = {}
        self._objects: dict[str, dict[tuple[str, str], Object]] = {name: {} for name in KINDS}

    def put(self, kind: Kind, decoded: Decoded) -> Ref:
        """Adds an object, or replaces the one of its name."""
        key = (decoded.metadata.namespace, decoded.metadata.name)
        ref = Ref(kind.name, *key)
        # In one step, so that a copy that is made meanwhile has the old one or the new one.
        if decoded.object is None:
            self._forget(ref)
            self.broken[ref] = Broken(decoded.metadata, decoded.findings)
        else:
            self._objects[kind.name][key] = decoded.object
            self.broken.pop(ref, None)
            if decoded.findings:
                self.flaws[ref] = decoded.findings
            else:
                self.flaws.pop(ref, None)
        self._count(kind.name)
        return ref

    def add(self, *objects: Object) -> "Store":
        """Adds objects that are decoded already; the store itself, so that calls chain."""
        for each in objects:
            self.put(KINDS[each.ref.kind], Decoded(each.metadata, each))
        return self

    def delete(self, ref: Ref) -> None:
        """Takes an object out; nothing happens when it is not there."""
        if self._forget(ref):
            self._count(ref.kind)

    def replace(self, kind: Kind, objects: Iterable[Decoded]) -> None:
        """All objects of a kind at once, as a list answers them: what is not among them is gone."""
        for namespace, name in [*self._objects[kind.name]]:
            self._forget(Ref(kind.name, namespace, name))
        for ref in [ref for ref in self.broken if ref.kind == kind.name]:
            del self.broken[ref]
        for each in objects:
            self.put(kind, each)
        self._count(kind.name)

    def copy(self) -> "Store":
        """As it is now, for a thread that reads it while this one changes. May be called from that thread."""
        made = Store()
        # The marks first: what changes while this is copied is then seen as changed.
        made._line, made._changed, made.revision = self._line, self._changed.copy(), self.revision
        # Each of these is one step of the interpreter, so that no change comes in between.
        made.flaws, made.broken = self.flaws.copy(), self.broken.copy()
        made._objects = {name: found.copy() for name, found in self._objects.items()}
        return made

    def mark(self, kinds: Iterable[str]) -> tuple[object, ...]:
        """Equal marks: nothing of these kinds has changed between the two, in this store or a copy of it."""
        return (self._line, *(self._changed.get(kind, 0) for kind in kinds))

    def counts(self) -> dict[str, int]:
        """How many objects there are of each kind."""
        return {name: len(found) for name, found in self._objects.items()}

    def get(self, type_: type[O], namespace: str, name: str) -> O | None:
        """An object by name."""
        return cast("O | None", self._objects[type_.__name__].get((namespace, name)))

    def all(self, type_: type[O]) -> Iterator[O]:
        """Every object of a kind, in no order that means anything."""
        yield from cast("Iterable[O]", self._objects[type_.__name__].values())

    def table(self, type_: type[O]) -> Mapping[tuple[str, str], O]:
        """Every object of a kind by namespace and name, in no order that means anything."""
        return cast("Mapping[tuple[str, str], O]", self._objects[type_.__name__])

    def find(self, ref: Ref) -> Object | None:
        """An object by its key."""
        return self._objects.get(ref.kind, {}).get((ref.namespace, ref.name))

    def __len__(self) -> int:
        return sum(map(len, self._objects.values()))

    def _count(self, kind: str) -> None:
        self.revision += 1
        self._changed[kind] = self.revision

    def _forget(self, ref: Ref) -> bool:
        was_broken = self.broken.pop(ref, None) is not None
        self.flaws.pop(ref, None)
        return self._objects[ref.kind].pop((ref.namespace, ref.name), None) is not None or was_broken


def decode_bytes(kind: Kind, raw: bytes | msgspec.Raw) -> Decoded:
    """An object of the API server. msgspec.DecodeError when it is not JSON."""
    decoder = _DECODERS.get(kind.type)
    if decoder is None:
        decoder = _DECODERS[kind.type] = msgspec.json.Decoder(kind.type, dec_hook=decode_hook)
    try:
        found = decoder.decode(raw)
    except (msgspec.ValidationError, ValueError):
        return decode_value(kind, msgspec.json.decode(raw))
    return Decoded(found.metadata, found)


def decode_value(kind: Kind, value: Any) -> Decoded:
    """An object out of plain values. Never raises for what it says."""
    try:
        found = msgspec.convert(value, kind.type, dec_hook=decode_hook)
        return Decoded(found.metadata, found)
    except (msgspec.ValidationError, ValueError):
        pass
    metadata, findings = decode(ObjectMeta, (value.get("metadata") if isinstance(value, dict) else None) or {}, ("metadata",))
    if metadata is None:
        return Decoded(ObjectMeta(), None, tuple(findings))
    known = cut(kind.type, value)
    found_or_none, findings = decode(kind.type, known, ())
    if found_or_none is None and kind.name in ROUTE_KINDS:
        known = _without_rules(known, findings)
        found_or_none, more = decode(kind.type, known, ())
        if found_or_none is None:
            return Decoded(metadata, None, tuple(more))
    return Decoded(metadata, found_or_none, tuple(findings))


def rule_of(path: Path) -> int | None:
    """Number of the rule of a route that a path leads into."""
    if len(path) > 2 and path[:2] == ("spec", "rules") and isinstance(path[2], int):
        return path[2]
    return None


def _without_rules(value: Any, findings: list[Finding]) -> Any:
    """Rules that cannot be decoded keep their matches when these can, and nothing else; their flaws tell them from others."""
    broken: dict[int, bool] = {}
    for finding in findings:
        number = rule_of(finding.path)
        if number is not None:
            broken[number] = broken.get(number, True) and finding.path[3:4] != ("matches",)
    if not broken:
        return value
    # Only what is a list of rules has flaws in one of them.
    rules = value["spec"]["rules"]
    kept = []
    for number, rule in enumerate(rules):
        if number not in broken:
            kept.append(rule)
        else:
            kept.append({"matches": rule["matches"]} if broken[number] and isinstance(rule, dict) and "matches" in rule else {})
    return {**value, "spec": {**value["spec"], "rules": kept}}


def cut(type_: Any, value: Any) -> Any:
    """The value without the keys that the type does not know, and without nulls where it takes none."""
    if type_ not in _INSPECTED:
        _INSPECTED[type_] = inspect.type_info(type_)
    return _cut(_INSPECTED[type_], value)


def _cut(type_: inspect.Type, value: Any) -> Any:
    if isinstance(type_, inspect.Metadata):
        return _cut(type_.type, value)
    if isinstance(type_, inspect.UnionType):
        structs = [each for each in type_.types if isinstance(each, inspect.StructType | inspect.VarTupleType | inspect.Metadata)]
        return _cut(structs[0], value) if len(structs) == 1 and value is not None else value
    if isinstance(type_, inspect.VarTupleType) and isinstance(value, list):
        return [_cut(type_.item_type, item) for item in value]
    if isinstance(type_, inspect.StructType) and isinstance(value, dict):
        known = {each.encode_name: each for each in type_.fields}
        return {key: _cut(known[key].type, item) for key, item in value.items() if key in known and (item is not None)}
    return value
