"""JSON Schema of the configuration language, for editors and for `isthmus schema`.

Drawn from the structs by msgspec's inspection. msgspec's own generator is not used because it cannot write the defaults of our
scalars as people write them, and it asks for `kind` on every route.
"""

from typing import Any

import msgspec
from msgspec import inspect

from gateway.model.config import Config
from gateway.model.scalars import encode_hook, schema_hook


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a configuration file, with descriptions and defaults."""
    definitions: dict[str, Any] = {}
    _schema_of(inspect.type_info(Config), definitions)
    root = definitions.pop("Config")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Isthmus configuration",
        **root,
        "$defs": dict(sorted(definitions.items())),
    }


def _schema_of(type_: inspect.Type, definitions: dict[str, Any]) -> dict[str, Any]:
    match type_:
        case inspect.Metadata():
            return {**_schema_of(type_.type, definitions), **(type_.extra_json_schema or {})}
        case inspect.StructType():
            _define(type_, definitions)
            return {"$ref": f"#/$defs/{type_.cls.__name__}"}
        case inspect.CustomType():
            return schema_hook(type_.cls)
        case inspect.UnionType():
            return {"anyOf": [_schema_of(member, definitions) for member in type_.types]}
        case inspect.VarTupleType():
            return {"type": "array", "items": _schema_of(type_.item_type, definitions)}
        case inspect.LiteralType():
            return {"enum": list(type_.values)}
        case inspect.IntType() | inspect.FloatType():
            bounds = {"minimum": type_.ge, "maximum": type_.le}
            name = "integer" if isinstance(type_, inspect.IntType) else "number"
            return {"type": name, **{key: bound for key, bound in bounds.items() if bound is not None}}
        case inspect.StrType():
            return {"type": "string"}
        case inspect.BoolType():
            return {"type": "boolean"}
        case inspect.NoneType():
            return {"type": "null"}
    raise TypeError(f"no JSON Schema for {type_!r}")


def _define(type_: inspect.StructType, definitions: dict[str, Any]) -> None:
    name = type_.cls.__name__
    if name in definitions:
        return
    definitions[name] = {}
    properties: dict[str, Any] = {}
    if type_.tag_field:
        # Only the first member of the union may leave it out; reader and schema agree on that.
        properties[type_.tag_field] = {"const": type_.tag}
    for field in type_.fields:
        property_ = _schema_of(field.type, definitions)
        if field.default is not msgspec.NODEFAULT:
            property_ = {**property_, "default": msgspec.to_builtins(field.default, enc_hook=encode_hook)}
        properties[field.encode_name] = property_
    required = [field.encode_name for field in type_.fields if field.required]
    if type_.tag_field and type_.tag != "HTTPRoute":
        required.insert(0, type_.tag_field)
    definitions[name] = {
        "type": "object",
        "description": (type_.cls.__doc__ or "").strip(),
        "properties": properties,
        "additionalProperties": False,
        **({"required": required} if required else {}),
    }
