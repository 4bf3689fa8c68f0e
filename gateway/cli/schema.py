"""`isthmus schema`: the JSON Schema that an editor checks a configuration with."""

from __future__ import annotations

import msgspec


def print_schema() -> int:
    from gateway.model.schema import schema

    print(msgspec.json.format(msgspec.json.encode(schema()), indent=2).decode())
    return 0
