"""Rate limits -> their records in the snapshot: rates, their terms, overrides by the hash of the key, and parts of keys."""

from collections.abc import Callable, Iterable

from gateway.control.limits import Limit, Terms, override_key

NONE = 0xFFFFFFFF
ALGORITHMS = {"gcra": 0, "fixed": 1, "sliding": 2, "in-flight": 3}
MODES = {"strict": 0, "leased": 1, "local": 2}
FAILURES = {"open": 0, "closed": 1, "local": 2}
STYLES = {"ietf": 0, "legacy": 1, "x": 2, "off": 3}

Add = Callable[[str, Iterable[int]], int]
Text = Callable[[str], tuple[int, int]]


def pack_limits(
    limits: Iterable[Limit], add: Add, text: Text, claim: Callable[[str, str], int | None], route_ids: dict[str, int]
) -> dict[int, int]:
    """Adds the records of all limits; position in `limits` -> record, without those whose id is another name's."""
    records: dict[int, int] = {}
    for number, limit in enumerate(limits):
        id_ = claim("rateLimit", limit.name)
        if id_ is None:
            continue
        parts = add("key_parts", (word for kind, name in limit.key for word in (kind, *text(name))))
        terms = _pack_terms(limit.terms, add)
        rows = []
        for override in limit.overrides:
            low, high = override_key(limit, id_, override, route_ids)
            own = NONE if override.terms is None else _pack_terms(override.terms, add)
            rows.append((low, high, own))
        # The core looks for the low half; what is equal in both halves cannot be told apart.
        rows.sort()
        overrides = add(
            "overrides", (word for low, high, own in rows for word in (low & NONE, low >> 32, high & NONE, high >> 32, own))
        )
        records[number] = add("rates", (
            id_ & NONE, id_ >> 32, *text(limit.name), ALGORITHMS[limit.algorithm], MODES[limit.mode], FAILURES[limit.on_failure],
            int(limit.shadow), int(limit.missing == "skip"), STYLES[limit.headers], limit.cost, *text(limit.cost_header),
            min(limit.timeout, NONE), parts, len(limit.key), terms, overrides, len(rows), *text(limit.tag),
        ))  # fmt: skip
    return records


def _pack_terms(terms: Terms, add: Add) -> int:
    emission = terms.period * 1000 // terms.requests
    seconds = max(1, terms.period // 1_000_000) if terms.period else 0
    return add("terms", (
        terms.requests, terms.capacity, emission & NONE, emission >> 32, terms.period & NONE, terms.period >> 32,
        min(seconds, NONE),
    ))  # fmt: skip
