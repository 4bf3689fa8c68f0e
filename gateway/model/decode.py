"""Plain values -> structs, with every flaw of a value named at once.

The fast way is msgspec's conversion. Only when it refuses a value is the value walked beside its type to say what is wrong, where,
and what was probably meant.
"""

from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from gateway.model.config import Config
from gateway.model.problem import Finding, Path, nearest
from gateway.model.route import ROUTE_KINDS
from gateway.model.scalars import decode_hook

T = TypeVar("T")
_INSPECTED: dict[Any, inspect.Type] = {}
_KNOWN_SHOWN = 12


def decode(type_: type[T], value: Any, path: Path) -> tuple[T | None, list[Finding]]:
    """The struct of a plain value, or None and what is wrong with it. `path` is where the value stands."""
    try:
        return msgspec.convert(value, type_, dec_hook=decode_hook), []
    except (msgspec.ValidationError, ValueError) as refusal:
        if type_ not in _INSPECTED:
            _INSPECTED[type_] = inspect.type_info(type_)
        findings = list(_explain(_INSPECTED[type_], value, path))
        return None, findings or [Finding(path, str(refusal))]


def decode_route(value: Any, path: Path) -> tuple[Any, list[Finding]]:
    """A route of a file: `kind` says which struct, and is HTTPRoute when it is left out."""
    kind = value.get("kind", "HTTPRoute") if isinstance(value, dict) else "HTTPRoute"
    if not isinstance(kind, str) or kind not in ROUTE_KINDS:
        return None, [Finding((*path, "kind"), _not_one_of(kind, list(ROUTE_KINDS)))]
    return decode(ROUTE_KINDS[kind], value, path)


def root_keys() -> dict[str, Any]:
    """Key of the root -> its Python type."""
    types = msgspec.structs.fields(Config)
    return {field.encode_name: field.type for field in types}


def unknown_key(key: str, known: list[str]) -> str:
    """The sentence about a key that is not known here."""
    near = nearest(key, known)
    if near:
        return f"unknown key '{key}'; did you mean '{near}'?"
    shown = ", ".join(known[:_KNOWN_SHOWN]) + (", ..." if len(known) > _KNOWN_SHOWN else "")
    return f"unknown key '{key}'; known here: {shown}"


def _explain(type_: inspect.Type, value: Any, path: Path) -> Iterator[Finding]:
    match type_:
        case inspect.Metadata():
            yield from _explain(type_.type, value, path)
        case inspect.UnionType():
            yield from _explain_union(type_, value, path)
        case inspect.StructType():
            yield from _explain_struct(type_, value, path)
        case inspect.VarTupleType():
            if not isinstance(value, list):
                yield Finding(path, f"expected a list, got {_kind_of(value)}")
                return
            for number, item in enumerate(value):
                yield from _explain(type_.item_type, item, (*path, number))
        case inspect.CustomType():
            try:
                decode_hook(type_.cls, value)
            except ValueError as flaw:
                yield Finding(path, str(flaw))
        case inspect.LiteralType():
            if value not in type_.values or isinstance(value, bool):
                yield Finding(path, _not_one_of(value, _declared(type_.values)))
        case inspect.StrType():
            if not isinstance(value, str):
                hint = "; put it in quotes" if isinstance(value, int | float) else ""
                yield Finding(path, f"expected text, got {_kind_of(value)}{hint}")
        case inspect.BoolType():
            if not isinstance(value, bool):
                yield Finding(path, f"expected true or false, got {_kind_of(value)}")
        case inspect.IntType() | inspect.FloatType():
            yield from _explain_number(type_, value, path)


def _explain_struct(type_: inspect.StructType, value: Any, path: Path) -> Iterator[Finding]:
    if not isinstance(value, dict):
        yield Finding(path, f"expected a mapping, got {_kind_of(value)}")
        return
    fields = {field.encode_name: field for field in type_.fields}
    known = [*fields, type_.tag_field] if type_.tag_field else list(fields)
    for key, item in value.items():
        if key in fields:
            yield from _explain(fields[key].type, item, (*path, key))
        elif key != type_.tag_field:
            yield Finding((*path, key), unknown_key(key, known), at_key=True)
    for name, field in fields.items():
        if field.required and name not in value:
            yield Finding(path, f"missing key '{name}'")


def _explain_union(type_: inspect.UnionType, value: Any, path: Path) -> Iterator[Finding]:
    members = [_bare(member) for member in type_.types]
    if value is None and any(isinstance(member, inspect.NoneType) for member in members):
        return
    members = [member for member in members if not isinstance(member, inspect.NoneType)]
    if isinstance(value, dict):
        members = [member for member in members if isinstance(member, inspect.StructType)] or members
    elif len(members) > 1:
        members = [member for member in members if not isinstance(member, inspect.StructType)]
    if isinstance(value, str):
        members = [member for member in members if not isinstance(member, inspect.IntType)] or members
    elif len(members) > 1:
        members = [member for member in members if isinstance(member, inspect.IntType)] or members
    yield from _explain(members[0], value, path)


def _explain_number(type_: inspect.IntType | inspect.FloatType, value: Any, path: Path) -> Iterator[Finding]:
    whole = isinstance(type_, inspect.IntType)
    fits = isinstance(value, int) if whole else isinstance(value, int | float)
    if isinstance(value, bool) or not fits:
        yield Finding(path, f"expected {'a whole number' if whole else 'a number'}, got {_kind_of(value)}")
    elif type_.ge is not None and value < type_.ge:
        yield Finding(path, f"{value} is too small; at least {type_.ge}")
    elif type_.le is not None and value > type_.le:
        yield Finding(path, f"{value} is too large; at most {type_.le}")


def _bare(type_: inspect.Type) -> inspect.Type:
    while isinstance(type_, inspect.Metadata):
        type_ = type_.type
    return type_


def _declared(values: tuple[Any, ...]) -> list[Any]:
    # msgspec sorts the values of a Literal; names of one length read best in the alphabet, numbers as numbers.
    return sorted(values)


def _not_one_of(value: Any, known: list[Any]) -> str:
    shown = f"'{value}'" if isinstance(value, str) else _kind_of(value)
    text = f"{shown} is not one of {', '.join(str(choice) for choice in known)}"
    near = nearest(value, [choice for choice in known if isinstance(choice, str)]) if isinstance(value, str) else None
    return f"{text}; did you mean '{near}'?" if near else text


def _kind_of(value: Any) -> str:
    match value:
        case None:
            return "nothing (null)"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value}"
        case str():
            return f"the text '{value if len(value) <= 40 else value[:37] + '...'}'"
        case list():
            return "a list"
        case dict():
            return "a mapping"
    return type(value).__name__
