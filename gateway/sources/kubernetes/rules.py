"""Rules of a route, with clusters in the place of Services, and what is wrong with them.

A rule whose matches make no sense is dropped; one with another flaw keeps its matches and answers 500, as Gateway API wants it of a
filter that cannot be applied.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from gateway.model.check_route import check_rule
from gateway.model.problem import Finding, Path, key_text
from gateway.model.route import (
    BackendObjectRef,
    BackendRef,
    GRPCBackendRef,
    GRPCRouteFilter,
    GRPCRouteRule,
    HTTPBackendRef,
    HTTPRouteFilter,
    HTTPRouteRule,
    TCPRouteRule,
    TLSRouteRule,
)
from gateway.sources.kubernetes.backends import AnyBackendRef, Found
from gateway.sources.kubernetes.pairs import Refused
from gateway.sources.kubernetes.store import rule_of

Resolve = Callable[[AnyBackendRef], Found | Refused]
R = TypeVar("R", HTTPRouteRule, GRPCRouteRule)
B = TypeVar("B", HTTPBackendRef, GRPCBackendRef, BackendRef)
F = TypeVar("F", HTTPRouteFilter, GRPCRouteFilter)

SILENT = ("InvalidBackendTLSPolicy",)
"""Reasons that the status of another object tells."""


@dataclass(slots=True)
class Outcome:
    """What a route's rules came to, apart from where it attaches."""

    origins: list[Path] = field(default_factory=list)
    """Path of each rule that is left."""
    refused: list[tuple[Path, Refused]] = field(default_factory=list)
    """References that came to nothing, with their paths in the object."""
    findings: list[Finding] = field(default_factory=list)
    """Errors, with their paths in the object."""
    reason: str = "UnsupportedValue"
    warnings: list[Finding] = field(default_factory=list)
    bad: set[int] = field(default_factory=set)
    """Numbers of rules that do not what they should."""
    dropped: set[int] = field(default_factory=set)
    count: int = 0

    @property
    def is_all_bad(self) -> bool:
        return bool(self.bad) and len(self.bad) == self.count

    @property
    def flaws(self) -> list[str]:
        """The errors, each a sentence with its place."""
        return [f"{key_text(each.path)}: {each.message}" for each in self.findings]


def route_rules(rules: Sequence[R], flaws: Sequence[Finding], resolve: Resolve, outcome: Outcome) -> tuple[R, ...]:
    """The rules of an HTTPRoute or GRPCRoute. flaws: what could not even be decoded."""
    kept = []
    outcome.count += len(rules)
    for number, rule in enumerate(rules):
        path: Path = ("spec", "rules", number)
        findings = [each for each in flaws if rule_of(each.path) == number] + list(check_rule(rule, path))
        errors = [each for each in findings if each.severity == "error"]
        outcome.warnings += [each for each in findings if each.severity != "error"]
        outcome.findings += errors
        if any(each.drops and each.path[3:4] == ("matches",) for each in errors):
            outcome.bad.add(number)
            outcome.dropped.add(number)
            continue
        outcome.origins.append(path)
        if any(each.drops for each in errors):
            outcome.bad.add(number)
            if {"RequestRedirect", "URLRewrite"} <= {each.type for each in rule.filters}:
                outcome.reason = "IncompatibleFilters"
            _resolve_all(rule, path, resolve, outcome)
            kept.append(type(rule)(name=rule.name, matches=rule.matches))
            continue
        if errors:
            outcome.bad.add(number)
        kept.append(_resolve_all(rule, path, resolve, outcome))
    return tuple(kept)


def tunnel_rule(rule: TLSRouteRule | TCPRouteRule, resolve: Resolve, outcome: Outcome) -> tuple[BackendRef, ...]:
    """The backends of a TLSRoute or TCPRoute."""
    return _backends(rule.backend_refs, ("spec", "rules", 0), resolve, outcome)


def _resolve_all(rule: R, path: Path, resolve: Resolve, outcome: Outcome) -> R:
    refs = _backends(rule.backend_refs, path, resolve, outcome)
    filters = _filters(rule.filters, path, resolve, outcome)
    if refs == rule.backend_refs and filters == rule.filters:
        return rule
    return msgspec.structs.replace(rule, backend_refs=refs, filters=filters)


def _backends(refs: tuple[B, ...], path: Path, resolve: Resolve, outcome: Outcome) -> tuple[B, ...]:
    return tuple(_backend(ref, (*path, "backendRefs", number), resolve, outcome) for number, ref in enumerate(refs))


def _backend(ref: B, path: Path, resolve: Resolve, outcome: Outcome) -> B:
    name = _name_of(ref, path, resolve, outcome)
    plain = msgspec.structs.replace(ref, name=name, group="", kind="Service", namespace=None, port=None)
    if isinstance(plain, BackendRef) or not plain.filters:
        return plain
    return msgspec.structs.replace(plain, filters=_filters(plain.filters, path, resolve, outcome))


def _filters(specs: tuple[F, ...], path: Path, resolve: Resolve, outcome: Outcome) -> tuple[F, ...]:
    return tuple(_filter(each, (*path, "filters", number), resolve, outcome) for number, each in enumerate(specs))


def _filter(spec: F, path: Path, resolve: Resolve, outcome: Outcome) -> F:
    if spec.request_mirror is not None:
        name = _name_of(spec.request_mirror.backend_ref, (*path, "requestMirror", "backendRef"), resolve, outcome)
        spec = msgspec.structs.replace(
            spec, request_mirror=msgspec.structs.replace(spec.request_mirror, backend_ref=BackendObjectRef(name=name))
        )
    if isinstance(spec, HTTPRouteFilter) and spec.external_auth is not None:
        name = _name_of(spec.external_auth.backend_ref, (*path, "externalAuth", "backendRef"), resolve, outcome)
        spec = msgspec.structs.replace(
            spec, external_auth=msgspec.structs.replace(spec.external_auth, backend_ref=BackendObjectRef(name=name))
        )
    return spec


def _name_of(ref: AnyBackendRef, path: Path, resolve: Resolve, outcome: Outcome) -> str:
    """Of the cluster; of one that there is not, for what comes to nothing."""
    found = resolve(ref)
    if isinstance(found, Found):
        return found.cluster
    if found.reason not in SILENT:
        outcome.refused.append((path, found))
    return f"{found.reason}: {found.message}"
