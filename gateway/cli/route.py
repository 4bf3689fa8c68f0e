"""`isthmus route`: which rule would answer a request, and why not the others. Asks the very router that serves."""

from __future__ import annotations

import msgspec

from gateway.cli.routes import Where, load_model
from gateway.cli.sources import Sources
from gateway.control.explain import Explanation, explain_model

MAX_CANDIDATES = 30


def explain_request(
    sources: Sources, host: str, target: str, method: str, headers: list[tuple[str, str]], port: int | None, as_json: bool
) -> int:
    """Prints the explanation; 1 when no rule answers."""
    model, where = load_model(sources)
    if model is None:
        return 1
    found = explain_model(model, host, target, method=method, headers=headers, port="" if port is None else str(port))
    if as_json:
        place = where(found.winner.route, found.winner.rule) if found.winner else ""
        print(msgspec.json.encode({**msgspec.to_builtins(found), "where": place} if place else found).decode())
    else:
        print(text_of(found, where))
    return 0 if found.outcome == "answer" else 1


def text_of(found: Explanation, where: Where) -> str:
    """The explanation for people."""
    lines = [found.message]
    if found.listener is not None:
        lines.append(f"  listener   {found.listener} ({found.port})")
    if found.winner is not None:
        lines.append(f"  match      {found.winner.text()}")
        if place := where(found.winner.route, found.winner.rule):
            lines.append(f"  written in {place}")
    if found.location is not None:
        lines.append(f"  redirect   {found.status} {found.location}")
    elif found.status is not None:
        lines.append(f"  status     {found.status}")
    elif found.forwarded_path is not None:
        lines.append(f"  forwarded  {found.forwarded_path}" + (f" to host {found.authority}" if found.authority else ""))
    others = [each for each in found.candidates if not each.wins]
    if others:
        lines.append("the others:")
        width = max(len(each.condition.text()) for each in others[:MAX_CANDIDATES])
        for each in others[:MAX_CANDIDATES]:
            rule = f"{each.condition.route}[{each.condition.rule}]"
            if place := where(each.condition.route, each.condition.rule):
                rule += f" ({place})"
            lines.append(f"  {each.condition.text():{width}}  {rule}  {each.reason}")
        if len(others) > MAX_CANDIDATES:
            lines.append(f"  and {len(others) - MAX_CANDIDATES} more (--json has all)")
    return "\n".join(lines)
