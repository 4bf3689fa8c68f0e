"""`isthmus check`: everything that would be a problem at start, without starting anything."""

from __future__ import annotations

import sys

import msgspec

from gateway.cli.sources import Sources
from gateway.control.build import build
from gateway.control.compile import compile_model
from gateway.model.problem import Problem


def find_problems(sources: Sources) -> list[Problem]:
    """The problems of loading and of compiling, as `run` would find them."""
    loaded = sources.load()
    if loaded.config is None:
        return loaded.problems
    return [*loaded.problems, *compile_model(build(loaded.config), 1).problems]


def check_sources(sources: Sources, as_json: bool) -> int:
    problems, path = find_problems(sources), sources.path
    errors = sum(problem.severity == "error" for problem in problems)
    if as_json:
        print(msgspec.json.encode([{**msgspec.structs.asdict(problem), "text": problem.text()} for problem in problems]).decode())
        return 1 if errors else 0
    for problem in problems:
        print(problem.text())
    warnings = len(problems) - errors
    if not errors:
        print(f"{path}: good" + (f", {_count(warnings, 'warning')}" if warnings else ""))
        return 0
    print(f"{path}: {_count(errors, 'problem')}" + (f", {_count(warnings, 'warning')}" if warnings else ""), file=sys.stderr)
    return 1


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
