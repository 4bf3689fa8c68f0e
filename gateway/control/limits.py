"""Rate limits of a Config, as `compile` packs them: names are indexes, times are microseconds and nanoseconds, keys are hashed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from gateway._core.limit_key import PART_KINDS, key_of
from gateway.model.policy import Rate as RateSpec
from gateway.model.policy import RateLimit, Redis

DEFAULT_TIMEOUT_MS = 10


@dataclass(frozen=True, slots=True)
class Terms:
    """What one key has."""

    requests: int
    """In each period; of a limit in flight, at once."""
    capacity: int
    """At once: with gcra the burst is in it."""
    period: int
    """Microseconds; 0: the month of the calendar."""


@dataclass(frozen=True, slots=True)
class Override:
    """What one value of the key has instead; None: no limit."""

    key: tuple[str, ...]
    terms: Terms | None


@dataclass(frozen=True, slots=True)
class Limit:
    """One rate limit."""

    name: str
    algorithm: Literal["gcra", "fixed", "sliding", "in-flight"]
    mode: Literal["strict", "leased", "local"]
    on_failure: Literal["open", "closed", "local"]
    shadow: bool
    missing: Literal["skip", "shared"]
    headers: Literal["ietf", "legacy", "x", "off"]
    cost: int
    cost_header: str
    """Lower case; "" is none."""
    timeout: int
    """Milliseconds."""
    key: tuple[tuple[int, str], ...]
    """(kind, name) of each part; a header's name in lower case."""
    terms: Terms
    overrides: tuple[Override, ...]
    """Sorted by key."""
    tag: str
    """What the store's keys of limits that one request may meet have in common; "": it meets no other."""


def build_limits(specs: Iterable[RateLimit], redis: Redis | None, groups: Iterable[Sequence[str]]) -> tuple[Limit, ...]:
    """Sorted by name. groups: names of the limits that one request may meet together."""
    ordered = sorted(specs, key=lambda spec: spec.name)
    strict = {spec.name for spec in ordered if spec.mode == "strict" and spec.limit is not None and redis is not None}
    tags = _tags([name for name in group if name in strict] for group in groups) if strict else {}
    timeout = DEFAULT_TIMEOUT_MS if redis is None else int(redis.timeout)
    return tuple(_build(spec, timeout, tags.get(spec.name, ""), has_store=redis is not None) for spec in ordered)


def _tags(groups: Iterable[Sequence[str]]) -> dict[str, str]:
    """Name -> the first name of all that hang together with it, for those that do with any."""
    first: dict[str, str] = {}

    def root(name: str) -> str:
        while first.setdefault(name, name) != name:
            name = first[name]
        return name

    for group in groups:
        for name in group[1:]:
            one, other = sorted((root(group[0]), root(name)))
            first[other] = one
    return {name: root(name) for name in first}


def _build(spec: RateLimit, timeout: int, tag: str, *, has_store: bool) -> Limit:
    in_flight = spec.limit is None
    return Limit(
        name=spec.name,
        algorithm="in-flight" if in_flight else spec.algorithm,
        mode="local" if in_flight or not has_store else spec.mode,
        on_failure=spec.on_failure,
        shadow=spec.shadow,
        missing=spec.missing,
        headers=spec.headers,
        cost=spec.cost,
        cost_header=spec.cost_header.lower(),
        timeout=int(spec.timeout or timeout),
        key=tuple(_part(part) for part in spec.key),
        terms=_terms(spec.limit, spec.concurrency),
        overrides=tuple(
            Override(each.key, None if each.unlimited else _terms(each.limit, each.concurrency))
            for each in sorted(spec.overrides, key=lambda each: each.key)
        ),
        tag=tag,
    )


def _part(part: str) -> tuple[int, str]:
    kind, _, name = part.partition(":")
    return PART_KINDS[kind], name.lower() if kind == "header" else name


def _terms(rate: RateSpec | None, concurrency: int | None) -> Terms:
    if rate is None:
        return Terms(concurrency or 1, concurrency or 1, 0)
    return Terms(rate.requests, rate.requests + rate.burst, max(0, int(rate.per)) * 1000)


def override_key(limit: Limit, limit_id: int, override: Override, route_id: dict[str, int]) -> tuple[int, int]:
    """The hash that the core finds for such a request."""
    parts = []
    for (kind, _), value in zip(limit.key, override.key, strict=True):
        if kind == PART_KINDS["route"]:
            parts.append((kind, route_id.get(value, 0).to_bytes(8, "little")))
        else:
            text = value.lower() if kind == PART_KINDS["host"] else value
            parts.append((kind, text.encode()))
    return key_of(limit_id, parts)
