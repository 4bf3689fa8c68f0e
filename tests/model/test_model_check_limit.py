"""Rate limits: each rule names the key that breaks it, and what is attached is there."""

from typing import Any

import msgspec
import pytest

from gateway.model.config import Config
from gateway.model.problem import key_text
from gateway.model.scalars import decode_hook
from gateway.model.validate import Validated, validate

REDIS = {"url": "redis://127.0.0.1:6379/0"}


def checked(**root: Any) -> Validated:
    return validate(msgspec.convert({"redis": REDIS, **root}, Config, dec_hook=decode_hook))


def said(of: Validated) -> list[str]:
    return [f"{finding.severity} {key_text(finding.path)}: {finding.message}" for finding in of.findings]


def limit(**more: Any) -> list[dict[str, Any]]:
    return [{"name": "a", **({} if "concurrency" in more else {"limit": {"requests": 10, "per": "1s"}}), **more}]


def rate(**of: Any) -> list[dict[str, Any]]:
    return limit(limit={"requests": 10, "per": "1s", **of})


@pytest.mark.parametrize(
    "limits",
    [
        limit(),
        limit(key=["clientAddress", "header:x-key", "cookie:id", "query:q", "host", "path", "method", "route"]),
        limit(key=["clientSubjectAltName"], missing="skip", shadow=True, onFailure="closed", timeout="50ms", headers="legacy"),
        limit(cost=5, costHeader="X-Cost"),
        rate(per="minute", burst=1_000_000),
        limit(algorithm="fixed", limit={"requests": 1_000_000, "per": "month"}),
        limit(algorithm="sliding", limit={"requests": 1_000_000, "per": "day"}),
        limit(concurrency=3, mode="strict"),
        limit(overrides=[{"key": ["192.0.2.1"], "unlimited": True}, {"key": ["b"], "limit": {"requests": 1, "per": "1s"}}]),
        limit(concurrency=3, overrides=[{"key": ["192.0.2.1"], "concurrency": 9}]),
    ],
)
def test_what_makes_sense_is_taken_without_a_word(limits: list[dict[str, Any]]) -> None:
    of = checked(rateLimits=limits)
    assert said(of) == []
    assert len(of.config.rate_limits) == 1


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ([{"name": "a"}], "error rateLimits[0]: needs either 'limit' or 'concurrency'"),
        (limit(concurrency=1, limit={"requests": 1, "per": "1s"}), "error rateLimits[0]: needs either"),
        (rate(per="0s"), "error rateLimits[0].limit.per: must be longer than 0s"),
        (rate(per="month"), "error rateLimits[0].limit.per: a month is of the calendar"),
        (rate(per="99999h"), "error rateLimits[0].limit.per: 99999h is too long; at most 366 days"),
        (rate(per="1ms", requests=10_001), "error rateLimits[0].limit.requests: more than 10000000 in a second"),
        (rate(per="day", requests=1, burst=5000), "error rateLimits[0].limit.burst: would take more than a year"),
        (limit(cost=11), "error rateLimits[0].limit: one request costs 11, and there are 10: none would ever pass"),
        (
            limit(algorithm="fixed", limit={"requests": 1, "per": "7s"}),
            "warning rateLimits[0].limit.per: no number of 7s makes a day",
        ),
        (
            limit(algorithm="sliding", limit={"requests": 1, "per": "1s", "burst": 1}),
            "error rateLimits[0].limit.burst: algorithm sliding knows none",
        ),
        (limit(key=[]), "error rateLimits[0].key: is empty"),
        (limit(key=["host"] * 9), "error rateLimits[0].key: has 9 parts; at most 8"),
        (limit(key=["header:"]), "error rateLimits[0].key[0]: 'header:' is not a key"),
        (limit(costHeader="a b"), "error rateLimits[0].costHeader: 'a b' is not a header field name"),
        (limit(timeout="0s"), "error rateLimits[0].timeout: must be longer than 0s"),
        (limit(concurrency=1, cost=2), "error rateLimits[0].cost: is of a rate"),
        (limit(concurrency=1, algorithm="fixed"), "error rateLimits[0].algorithm: is of a rate"),
        (limit(overrides=[{"key": ["a", "b"], "unlimited": True}]), "error rateLimits[0].overrides[0].key: has 2 values"),
        (limit(overrides=[{"key": ["a"]}]), "error rateLimits[0].overrides[0]: needs either 'limit' or 'unlimited: true'"),
        (limit(overrides=[{"key": ["a"], "concurrency": 1}]), "error rateLimits[0].overrides[0].concurrency: the limit itself is"),
        (limit(overrides=[{"key": ["a"], "unlimited": True}] * 2), "error rateLimits[0].overrides[1].key: stands twice"),
        (
            limit(overrides=[{"key": ["a"], "limit": {"requests": 1, "per": "0s"}}]),
            "error rateLimits[0].overrides[0].limit.per: must be longer",
        ),
    ],
)
def test_each_rule_names_the_key_that_breaks_it(limits: list[dict[str, Any]], says: str) -> None:
    of = checked(rateLimits=limits)
    assert [line for line in said(of) if line.startswith(says)], said(of)
    assert len(of.config.rate_limits) == (0 if says.startswith("error") else 1)


def test_without_a_store_each_gateway_counts_for_itself_and_says_so() -> None:
    of = validate(msgspec.convert({"rateLimits": limit()}, Config, dec_hook=decode_hook))
    assert said(of) == ["warning rateLimits[0].mode: there is no 'redis' to make it leased: each gateway counts for itself"]
    assert said(validate(msgspec.convert({"rateLimits": limit(mode="local")}, Config, dec_hook=decode_hook))) == []


PLACES: list[tuple[str, dict[str, Any]]] = [
    ("listeners[0].rateLimits", {"listeners": [{"name": "w", "port": 1}]}),
    ("clusters[0].rateLimits", {"clusters": [{"name": "c"}]}),
    ("routes[0].rateLimits", {"routes": [{"name": "r", "kind": "GRPCRoute"}]}),
    ("routes[0].rules[0].rateLimits", {"routes": [{"name": "r", "kind": "HTTPRoute", "rules": [{}]}]}),
]


@pytest.mark.parametrize(("place", "root"), PLACES)
@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["slo"], "[0]: there is no rate limit 'slo' (did you mean 'slow'?)"),
        (["slow", "slow"], "[1]: 'slow' stands twice"),
        (["slow", "bc", "cd", "de", "ef"], ": are 5; at most 4"),
    ],
)
def test_what_is_attached_is_there_once_and_not_too_much(place: str, root: dict[str, Any], names: list[str], says: str) -> None:
    limits = [{"name": name, "limit": {"requests": 1, "per": "1s"}} for name in ("slow", "bc", "cd", "de", "ef")]
    root = msgspec.json.decode(msgspec.json.encode(root))
    bearer = next(iter(root.values()))[0]
    (bearer["rules"][0] if "rules" in place else bearer)["rateLimits"] = names
    assert [line for line in said(checked(rateLimits=limits, **root)) if line == f"error {place}{says}"]


def test_a_listener_without_requests_has_no_limit() -> None:
    of = checked(rateLimits=limit(), listeners=[{"name": "t", "port": 1, "protocol": "TCP", "rateLimits": ["a"]}])
    assert "error listeners[0].rateLimits: requests are counted, and a listener of protocol TCP sees none" in said(of)
