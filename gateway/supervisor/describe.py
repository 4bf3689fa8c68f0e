"""One table out of the tables of all workers, for the admin port."""

from __future__ import annotations

from collections.abc import Iterable
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


def _merge(into: Row, row: Row) -> None:
    for key, value in row.items():
        if key not in into:
            into[key] = value
        elif isinstance(value, bool):
            into[key] = into[key] or value
        elif isinstance(value, int | float) and key not in NOT_SUMMED:
            into[key] += value
