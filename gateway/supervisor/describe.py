"""One table out of the tables of all workers, for the admin port."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

Row = dict[str, Any]

# Whole numbers that are the same in every worker: a sum of them would mean nothing.
NOT_SUMMED = frozenset({"id", "port", "weight"})


def merge_clusters(tables: Iterable[tuple[int, list[Row]]]) -> list[Row]:
    """Clusters by name, their endpoints by address: counts are added, what is true in one worker is true."""
    merged: dict[str, Row] = {}
    endpoints: dict[str, dict[str, Row]] = {}
    for _, rows in tables:
        for row in rows:
            name = str(row.get("name", ""))
            _merge(merged.setdefault(name, {}), {key: value for key, value in row.items() if key != "endpoints"})
            known = endpoints.setdefault(name, {})
            for endpoint in row.get("endpoints", ()):
                _merge(known.setdefault(str(endpoint.get("address", "")), {}), endpoint)
    return [{**merged[name], "endpoints": list(endpoints[name].values())} for name in sorted(merged)]


ROUTE = re.compile(r"(?<![^,])route=([0-9a-f]{16})(?![^,])")


def merge_top(tables: Iterable[tuple[int, list[Row]]], names: Mapping[int, tuple[str, str]], most: int) -> list[Row]:
    """Rate limits by name, each with the keys that it met most, `most` of them; names: kind and name by id. Counts are added, also
    where a worker began to count later than another: `seconds` is the longest time."""
    limits: dict[int, dict[str, Row]] = {}
    for _, rows in tables:
        for row in rows:
            fresh = {"key": row["key"], "requests": 0, "refused": 0, "error": 0, "ms": 0}
            known = limits.setdefault(row["limit"], {}).setdefault(row["hash"], fresh)
            for word in ("requests", "refused", "error"):
                known[word] += row[word]
            known["ms"] = max(known["ms"], row["ms"])
    found = []
    for id_, keys in limits.items():
        if id_ not in names:
            continue  # gone with a reload
        ordered = sorted(keys.values(), key=lambda row: (-row["requests"], row["key"]))
        seconds = max([1.0, *(row["ms"] / 1000 for row in ordered)])
        found.append(
            {
                "name": names[id_][1],
                "seconds": round(seconds, 1),
                "keys": [
                    {
                        "key": ROUTE.sub(lambda match: f"route={names.get(int(match[1], 16), ('', match[1]))[1]}", row["key"]),
                        "requests": row["requests"],
                        "refused": min(row["refused"], row["requests"]),
                        "error": row["error"],
                        "requests_per_s": round(row["requests"] / seconds, 1),
                    }
                    for row in ordered[:most]
                ],
            }
        )
    return sorted(found, key=lambda row: str(row["name"]))


def _merge(into: Row, row: Row) -> None:
    for key, value in row.items():
        if key not in into:
            into[key] = value
        elif isinstance(value, bool):
            into[key] = into[key] or value
        elif isinstance(value, int | float) and key not in NOT_SUMMED:
            into[key] += value
