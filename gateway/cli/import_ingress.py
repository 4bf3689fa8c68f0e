"""`isthmus import ingress`: Ingresses as objects of Gateway API, and what was not translated."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from gateway.sources.kubernetes.import_ingress import import_ingresses
from gateway.sources.objects import read_objects


def import_file(path: Path, gateway: str, gateway_class: str) -> int:
    """Prints YAML; the list of what is missing stands at its head as a comment, and on stderr. 1 when nothing can be read."""
    found = read_objects(path)
    for problem in found.problems:
        print(problem.text(), file=sys.stderr)
    if any(problem.fatal for problem in found.problems):
        return 1
    done = import_ingresses(found.store, gateway=gateway, gateway_class=gateway_class)
    if not done.objects:
        print(f"{path}: no Ingress there", file=sys.stderr)
        return 1
    for note in done.notes:
        # A note repeats what somebody wrote; a line break in it must not end the comment.
        print(f"# not translated: {' '.join(note.split())}")
        print(f"not translated: {' '.join(note.split())}", file=sys.stderr)
    print(yaml.safe_dump_all(done.objects, sort_keys=False, allow_unicode=False), end="")
    return 0
