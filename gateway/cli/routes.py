"""`isthmus routes`: the routing table of a configuration, for people and scripts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import msgspec

from gateway.cli.sources import Sources
from gateway.control.build import ALL, Filter, HeaderModifier, Match, Model, Redirect, Rule, build

Where = Callable[[str, int], str]


def load_model(sources: Sources) -> tuple[Model | None, Where]:
    """The model of a configuration and where its rules stand; None, with its problems on stderr, when it cannot be used."""
    loaded, where = sources.load_with_places()
    if loaded.config is None:
        for problem in loaded.problems:
            print(problem.text(), file=sys.stderr)
        return None, where
    return build(loaded.config), where


def match_text(match: Match) -> str:
    """ "GET PathPrefix /api header x=1"."""
    parts = [match.method] if match.method else []
    parts.append(f"{match.path_type} {match.path or '/'}")
    parts.extend(f"header {each.name}{'~' if each.is_regex else '='}{each.value}" for each in match.headers)
    parts.extend(f"query {each.name}{'~' if each.is_regex else '='}{each.value}" for each in match.query)
    return " ".join(parts)


def filter_text(each: Filter) -> str:
    if isinstance(each, Redirect):
        return f"redirect {each.status}"
    if isinstance(each, HeaderModifier):
        return f"{each.on} headers"
    return "rewrite"


def filter_texts(rule: Rule) -> list[str]:
    """All that a rule does beside choosing a backend."""
    texts = ["cors"] if rule.cors is not None else []
    texts += [filter_text(each) for each in rule.filters]
    for mirror in rule.mirrors:
        share = "" if mirror.share == ALL else f" {mirror.share / ALL:.3g}"
        texts.append(f"mirror{share} to {mirror.cluster}")
    return texts


def table_of(model: Model) -> list[dict[str, Any]]:
    """One row for each rule of each route, in the order of the model."""
    rows = []
    for route in model.routes:
        hosts = sorted({host or "*" for attachment in route.attachments for host in attachment.hostnames})
        listeners = [model.listeners[attachment.listener].name for attachment in route.attachments]
        for rule in route.rules:
            rows.append(
                {
                    "route": route.name,
                    "rule": rule.number,
                    "listeners": listeners,
                    "hosts": hosts,
                    "matches": [match_text(match) for match in rule.matches],
                    "filters": filter_texts(rule),
                    "backends": [{"cluster": backend.cluster, "weight": backend.weight} for backend in rule.backends],
                }
            )
    return rows


def backend_text(backends: list[dict[str, Any]]) -> str:
    names = []
    for backend in backends:
        name = backend["cluster"] or "(answers 500)"
        names.append(name if len(backends) == 1 else f"{name} x{backend['weight']}")
    return ", ".join(names)


def list_routes(sources: Sources, as_json: bool) -> int:
    model, _ = load_model(sources)
    if model is None:
        return 1
    rows = table_of(model)
    if as_json:
        print(msgspec.json.encode(rows).decode())
        return 0
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("HOSTS", "MATCHES", "FILTERS", "BACKENDS", "ROUTE", "LISTENERS"):
        table.add_column(title, overflow="fold")
    for row in rows:
        cells = (
            "\n".join(row["hosts"]) or "(nothing reaches it)",
            "\n".join(row["matches"]),
            "\n".join(row["filters"]),
            backend_text(row["backends"]),
            f"{row['route']}[{row['rule']}]",
            ", ".join(row["listeners"]),
        )
        table.add_row(*(Text(cell) for cell in cells))
    # A pipe has no width: nothing is cut or wrapped there.
    console = Console(soft_wrap=False) if sys.stdout.isatty() else Console(width=10_000)
    console.print(table)
    return 0
