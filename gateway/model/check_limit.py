"""What a rate limit must be beyond its types, and the names of limits where they are attached, as Findings."""

from collections.abc import Iterator, Set
from typing import Literal

from gateway.model.config import Config
from gateway.model.names import TOKEN, keyed_flaw
from gateway.model.policy import Rate, RateLimit
from gateway.model.problem import Finding, Path, absent, warning
from gateway.model.scalars import MONTH

MOST_ATTACHED = 4
"""Limits that a listener, a route, a rule or a cluster may name: a request then meets sixteen at most."""

_KEYS = ("clientAddress", "host", "path", "method", "route", "clientSubjectAltName", "constant")
_MOST_PARTS = 8
_MOST_OVERRIDES = 10_000
_LONGEST_MS = 366 * 86_400_000
_LONGEST_BURST_MS = _LONGEST_MS
_FASTEST = 10_000_000  # in a second: beyond, one is worth less than the clock tells apart
_CALENDAR = (1000, 60_000, 3_600_000, 86_400_000, MONTH)

Algorithm = Literal["gcra", "fixed", "sliding"]


def check_limit(limit: RateLimit, config: Config, path: Path) -> Iterator[Finding]:
    """Everything about one rate limit."""
    if (limit.limit is None) == (limit.concurrency is None):
        yield Finding(path, "needs either 'limit' or 'concurrency'")
    if limit.limit is not None:
        yield from _check_rate(limit.limit, limit.algorithm, limit.cost, (*path, "limit"))
    yield from _check_key(limit, path)
    yield from _check_overrides(limit, path)
    if limit.cost_header and not TOKEN.fullmatch(limit.cost_header):
        yield Finding((*path, "costHeader"), f"'{limit.cost_header}' is not a header field name")
    if limit.timeout == 0:
        yield Finding((*path, "timeout"), "must be longer than 0s")
    if limit.concurrency is not None:
        rate_alone = {"costHeader": limit.cost_header, "cost": limit.cost != 1, "algorithm": limit.algorithm != "gcra"}
        for key, is_said in rate_alone.items():
            if is_said:
                yield Finding((*path, key), "is of a rate; requests in flight are counted one by one", at_key=True)
    elif limit.limit is not None and limit.mode != "local" and config.redis is None:
        yield warning((*path, "mode"), f"there is no 'redis' to make it {limit.mode}: each gateway counts for itself")


def check_attached(names: tuple[str, ...], known: Set[str], path: Path) -> Iterator[Finding]:
    """The `rateLimits` of the listener, route, rule or cluster at `path`."""
    for number, name in enumerate(names):
        if name not in known:
            yield Finding((*path, "rateLimits", number), absent("rate limit", name, known))
        elif name in names[:number]:
            yield Finding((*path, "rateLimits", number), f"'{name}' stands twice")
    if len(names) > MOST_ATTACHED:
        yield Finding((*path, "rateLimits"), f"are {len(names)}; at most {MOST_ATTACHED}")


def _check_rate(rate: Rate, algorithm: Algorithm, cost: int, path: Path) -> Iterator[Finding]:
    at = (*path, "per")
    if rate.per == 0:
        yield Finding(at, "must be longer than 0s")
        return
    if rate.per == MONTH and algorithm != "fixed":
        yield Finding(at, "a month is of the calendar; algorithm fixed alone counts by that")
        return
    if rate.per > _LONGEST_MS:
        yield Finding(at, f"{rate.per} is too long; at most 366 days")
    elif algorithm == "fixed" and rate.per not in _CALENDAR and 86_400_000 % rate.per:
        yield warning(at, f"no number of {rate.per} makes a day: the windows begin at other times each day")
    if rate.burst and algorithm != "gcra":
        yield Finding((*path, "burst"), f"algorithm {algorithm} knows none; gcra does", at_key=True)
    if rate.per > 0 and rate.requests * 1000 > rate.per * _FASTEST:
        yield Finding((*path, "requests"), f"more than {_FASTEST} in a second are not told apart")
    if rate.per > 0 and (rate.requests + rate.burst) * rate.per > _LONGEST_BURST_MS * rate.requests:
        yield Finding((*path, "burst"), "would take more than a year to come back")
    if cost > rate.requests + rate.burst:
        yield Finding(path, f"one request costs {cost}, and there are {rate.requests + rate.burst}: none would ever pass")


def _check_key(limit: RateLimit, path: Path) -> Iterator[Finding]:
    if not limit.key:
        yield Finding((*path, "key"), "is empty; to count all requests together, write [constant]")
    if len(limit.key) > _MOST_PARTS:
        yield Finding((*path, "key"), f"has {len(limit.key)} parts; at most {_MOST_PARTS}")
    for number, key in enumerate(limit.key):
        if flaw := keyed_flaw(key, _KEYS):
            yield Finding((*path, "key", number), flaw)


def _check_overrides(limit: RateLimit, path: Path) -> Iterator[Finding]:
    seen: set[tuple[str, ...]] = set()
    if len(limit.overrides) > _MOST_OVERRIDES:
        yield Finding((*path, "overrides"), f"are {len(limit.overrides)}; at most {_MOST_OVERRIDES}")
    for number, override in enumerate(limit.overrides):
        at: Path = (*path, "overrides", number)
        if len(override.key) != len(limit.key):
            yield Finding((*at, "key"), f"has {len(override.key)} values, and the limit's key has {len(limit.key)} parts")
        elif override.key in seen:
            yield Finding((*at, "key"), "stands twice")
        seen.add(override.key)
        own, other = ("limit", "concurrency") if limit.concurrency is None else ("concurrency", "limit")
        said = {"limit": override.limit is not None, "concurrency": override.concurrency is not None}
        if said[other]:
            yield Finding((*at, other), f"the limit itself is one of '{own}'", at_key=True)
        if said[own] == override.unlimited:
            yield Finding(at, f"needs either '{own}' or 'unlimited: true'")
        elif override.limit is not None and not said[other]:
            yield from _check_rate(override.limit, limit.algorithm, limit.cost, (*at, "limit"))
