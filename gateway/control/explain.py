"""Why a request is answered by the rule that answers it, and why not by the others: what `isthmus route` shows.

The decision is the router's own, asked of a compiled snapshot; this module only puts it into words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gateway._core import explain as core
from gateway._core.snapshot import Snapshot, load
from gateway.control.build import Model
from gateway.control.compile import compile_model

Outcome = Literal["answer", "bad-request", "no-port", "no-listener", "no-route"]


@dataclass(frozen=True, slots=True)
class Condition:
    """One match of one rule, as the snapshot holds it."""

    route: str
    rule: int
    """Position in its route, from 0."""
    host: str
    """"" is every host of the listener."""
    path_type: Literal["Exact", "PathPrefix", "RegularExpression"]
    path: str
    method: str
    """"" is any."""
    headers: tuple[tuple[str, str, bool], ...]
    """(name, value, is_regex)."""
    query: tuple[tuple[str, str, bool], ...]

    def text(self) -> str:
        """One line, such as: GET shop.example.com PathPrefix /api header x-canary=1 query v~2|3."""
        parts = [self.method, self.host or "*", self.path_type, self.path]
        for kind, fields in (("header", self.headers), ("query", self.query)):
            parts += [f"{kind} {name}{'~' if is_regex else '='}{value}" for name, value, is_regex in fields]
        return " ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A condition and what became of it."""

    condition: Condition
    wins: bool
    reason: str
    """"answers", or why it does not: what did not match, or which precedence decided."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer to one question. `candidates` begins with the winner, then what would answer without it, then the rest."""

    outcome: Outcome
    port: str
    listener: str | None
    host: str
    path: str
    """Normalised, as it is matched and forwarded."""
    winner: Condition | None
    candidates: tuple[Candidate, ...]
    listeners: tuple[tuple[str, str], ...]
    """(name, hostname) of the port's listeners; only `listener` was asked."""
    message: str
    """One sentence."""
    authority: str | None = None
    forwarded_path: str | None = None
    """Path and query that a backend would see, after the rule's filters."""
    forwarded_headers: tuple[tuple[str, str], ...] = ()
    status: int | None = None
    """Of the answer that needs no backend: 400, 404, or a redirect's."""
    location: str | None = None


def explain_model(model: Model, host: str, path: str, **request: Any) -> Explanation:
    """explain_request over a Model that is compiled for it."""
    return explain_request(load(compile_model(model).blob), host, path, **request)


def explain_request(
    snapshot: Snapshot,
    host: str,
    path: str,
    *,
    method: str = "GET",
    headers: Sequence[tuple[str, str]] = (),
    port: str = "",
    secure: bool = False,
) -> Explanation:
    """What happens to a request for http://HOST/PATH?QUERY. `port` names the bound address ("[::]:8080") or its number; the first
    address when left out."""
    address, port_id = _find_port(snapshot, port)
    if port_id is None:
        known = ", ".join(known for _, known in core.port_ids(snapshot)) or "none"
        return _nothing("no-port", port, f"nothing listens on '{port}'; there is: {known}")
    bare, mark, query = path.partition("?")
    asked: dict[str, Any] = {
        "method": method.encode(),
        "host": host.encode(),
        "path": _escape(bare or "/"),
        "query": _escape(query) if mark else None,
        "headers": [(name.encode(), value.encode()) for name, value in headers],
    }
    facts = core.explain_route(snapshot, port_id, **asked)
    listeners = tuple(facts["listeners"])
    if facts["fault"]:
        return _nothing("bad-request", address, f"refused before it is routed: {facts['fault']}", listeners=listeners, status=400)
    if facts["listener"] is None:
        return _nothing(
            "no-listener", address, f"no listener of {address} takes the host '{facts['host']}'", listeners=listeners, status=404
        )
    rows = sorted(((_condition(described), row, verdict) for row, described, verdict in facts["rows"]), key=_order)
    winner = next((condition for condition, row, verdict in rows if row == facts["winner"] and not verdict), None)
    candidates = [_candidate(condition, verdict, winner) for condition, _, verdict in rows]
    candidates.sort(key=lambda each: (not each.wins, not _fits(each)))
    common: dict[str, Any] = {
        "port": address,
        "listener": facts["listener"],
        "host": facts["host"],
        "path": facts["path"],
        "candidates": tuple(candidates),
        "listeners": listeners,
    }
    if winner is None:
        message = f"no rule of listener '{facts['listener']}' matches"
        return Explanation(outcome="no-route", winner=None, message=message, status=404, **common)
    seen = core.preview_request(snapshot, port_id, secure=secure, **asked)
    message = f"rule {winner.rule} of route '{winner.route}' answers"
    return Explanation(outcome="answer", winner=winner, message=message, **common, **_forwarded(seen or {}))


def _find_port(snapshot: Snapshot, wanted: str) -> tuple[str, int | None]:
    for id_, address in core.port_ids(snapshot):
        if not wanted or wanted in (address, address.rpartition(":")[2]):
            return address, id_
    return wanted, None


def _nothing(
    outcome: Outcome, port: str, message: str, listeners: tuple[tuple[str, str], ...] = (), status: int | None = None
) -> Explanation:
    return Explanation(
        outcome=outcome,
        port=port,
        listener=None,
        host="",
        path="",
        winner=None,
        candidates=(),
        listeners=listeners,
        message=message,
        status=status,
    )


def _escape(text: str) -> bytes:
    """As a browser would send it: what is not ASCII goes as %XX of its UTF-8."""
    return "".join(c if "!" <= c <= "~" else "".join(f"%{byte:02X}" for byte in c.encode()) for c in text).encode()


def _condition(described: dict[str, Any]) -> Condition:
    fields = {**described, "headers": tuple(described["headers"]), "query": tuple(described["query"])}
    return Condition(**fields)


_PATH_RANK = {"Exact": 0, "RegularExpression": 1, "PathPrefix": 2}


def _host_rank(host: str) -> tuple[int, int]:
    return (0, 0) if host and not host.startswith("*") else (1, -len(host))


def _order(row: tuple[Condition, int, str]) -> tuple[object, ...]:
    """Gateway API's precedence. Rows of one path are in their order already, so that their index decides the rest."""
    condition, index, _ = row
    return (*_host_rank(condition.host), _PATH_RANK[condition.path_type], -len(condition.path), condition.path, index)


def _fits(candidate: Candidate) -> bool:
    return candidate.reason.startswith(("answers", "lower"))


def _candidate(condition: Condition, verdict: str, winner: Condition | None) -> Candidate:
    if verdict == "":
        if condition is winner:
            return Candidate(condition, True, "answers")
        assert winner is not None, "the router overlooked a rule that matches"
        return Candidate(condition, False, f"lower precedence: {_precedence(winner, condition)}")
    kind, _, name = verdict.partition(":")
    wanted = {"host": condition.host or "*", "path": f"{condition.path_type} {condition.path}", "method": condition.method}
    if kind in wanted:
        return Candidate(condition, False, f"{kind} does not match {wanted[kind]}")
    fields = condition.headers if kind == "header" else condition.query
    value, is_regex = next((value, is_regex) for field, value, is_regex in fields if field == name)
    what = "header" if kind == "header" else "query parameter"
    return Candidate(condition, False, f"{what} {name} is not {'~' if is_regex else ''}{value}")


def _precedence(winner: Condition, other: Condition) -> str:
    """The first point of Gateway API's order in which the winner is ahead."""
    if _host_rank(winner.host) != _host_rank(other.host):
        return f"the host {winner.host or '*'} is more specific than {other.host or '*'}"
    if winner.path_type != other.path_type:
        return f"{winner.path_type} comes before {other.path_type}"
    if winner.path != other.path:
        if len(winner.path) == len(other.path):
            return f"{winner.path} comes before {other.path} of the same length"
        return f"the {winner.path_type} {winner.path} is longer than {other.path}"
    if bool(winner.method) != bool(other.method):
        return "the winner names a method"
    if len(winner.headers) != len(other.headers):
        return f"the winner names more headers ({len(winner.headers)} against {len(other.headers)})"
    if len(winner.query) != len(other.query):
        return f"the winner names more query parameters ({len(winner.query)} against {len(other.query)})"
    if winner.route != other.route:
        return f"route '{winner.route}' comes before '{other.route}'"
    if winner.rule != other.rule:
        return f"rule {winner.rule} comes before rule {other.rule}"
    return "the other match of the same rule comes first"


def _forwarded(seen: dict[str, Any]) -> dict[str, Any]:
    if "fault" in seen:
        return {"status": 400}
    if "location" in seen:
        return {"status": seen["status"], "location": _text(seen["location"])}
    path, query = _text(seen["path"]), seen["query"]
    return {
        "authority": _text(seen["authority"]),
        "forwarded_path": path if query is None else f"{path}?{_text(query)}",
        "forwarded_headers": tuple((_text(name), _text(value)) for name, value in seen["headers"]),
    }


def _text(raw: bytes) -> str:
    return raw.decode("latin-1")
