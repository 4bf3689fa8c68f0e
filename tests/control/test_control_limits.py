"""Rate limits on their way into the snapshot: defaults, parts of keys, overrides, and the tags of what is asked together."""

import re
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from gateway._core.limit_key import PART_KINDS, key_of
from gateway._core.snapshot import load
from gateway.control.build import build, is_same_but_endpoints
from gateway.control.compile import compile_model, name_id
from gateway.control.limits import Override, Terms
from gateway.model.config import Config
from gateway.model.policy import RateLimit
from gateway.model.scalars import decode_hook
from gateway.model.validate import validate


def config(**root: Any) -> Config:
    return msgspec.convert({"redis": {"url": "redis://h", "timeout": "25ms"}, **root}, Config, dec_hook=decode_hook)


def limits(*given: dict[str, Any], **root: Any) -> Any:
    full = [{"limit": {"requests": 10, "per": "1s"}, **each} for each in given]
    return build(config(rateLimits=full, **root)).rates


def test_what_is_left_out_is_filled_in() -> None:
    (limit,) = limits({"name": "a"})
    assert (limit.algorithm, limit.mode, limit.timeout, limit.key, limit.tag) == ("gcra", "leased", 25, ((4, ""),), "")
    assert limit.terms == Terms(10, 10, 1_000_000)
    (limit,) = limits({"name": "a", "timeout": "3ms", "limit": {"requests": 10, "per": "1s", "burst": 5}})
    assert (limit.timeout, limit.terms) == (3, Terms(10, 15, 1_000_000))
    (limit,) = limits({"name": "a", "algorithm": "fixed", "limit": {"requests": 10, "per": "month"}})
    assert limit.terms == Terms(10, 10, 0)


def test_without_a_store_everything_is_counted_here_and_in_flight_always_is() -> None:
    spec = {"name": "a", "mode": "strict", "limit": {"requests": 1, "per": "1s"}}
    assert build(msgspec.convert({"rateLimits": [spec]}, Config, dec_hook=decode_hook)).rates[0].mode == "local"
    (limit,) = build(config(rateLimits=[{"name": "a", "mode": "strict", "concurrency": 7}])).rates
    assert (limit.algorithm, limit.mode, limit.terms) == ("in-flight", "local", Terms(7, 7, 0))


def test_the_words_for_parts_of_a_key_are_the_same_everywhere() -> None:
    """The core's, which shows keys and is told kinds by number; what the configuration takes; and what its reference says."""
    bad = validate(config(rateLimits=[{"name": "a", "limit": {"requests": 1, "per": "1s"}, "key": ["color"]}])).findings[0]
    taken = bad.message.partition("one of ")[2].split(", ")
    assert sorted(PART_KINDS) == sorted(word.removesuffix(":NAME") for word in taken)
    reference = (Path(__file__).parents[2] / "config" / "reference.yaml").read_text()
    described = str(get_type_hints(RateLimit, include_extras=True)["key"])
    for told in (reference.partition("    key: [clientAddress, ")[2][:300], described):
        assert [word for word in taken if not re.search(rf"\b{word}\b", told)] == []
    (limit,) = limits({"name": "a", "key": [word.replace("NAME", "x") for word in taken]})
    assert limit.key == tuple((PART_KINDS[word.removesuffix(":NAME")], "x" if ":" in word else "") for word in taken)


def test_limits_that_one_request_may_meet_have_one_tag() -> None:
    strict = [{"name": name, "mode": "strict"} for name in "abcdefg"]
    rules = [{"rateLimits": ["a", "b"]}, {"rateLimits": ["c"]}, {"rateLimits": ["d", "e"]}]
    found = limits(
        *strict,
        {"name": "h"},
        listeners=[{"name": "l", "port": 1, "rateLimits": ["c"]}],
        routes=[{"name": "r", "kind": "HTTPRoute", "rateLimits": ["h"], "rules": rules[:2]}],
        clusters=[{"name": "x", "rateLimits": ["d", "e"]}, {"name": "y", "rateLimits": ["f"]}],
    )
    assert {limit.name: limit.tag for limit in found} == {
        "a": "a", "b": "a", "c": "a", "d": "d", "e": "d", "f": "", "g": "", "h": "",
    }  # fmt: skip


def test_an_override_is_found_by_the_hash_of_its_key() -> None:
    spec = {
        "name": "a",
        "limit": {"requests": 1, "per": "1s"},
        "key": ["clientAddress", "host", "route"],
        "overrides": [
            {"key": ["2001:db8::1", "A.B", "r"], "limit": {"requests": 5, "per": "1s"}},
            {"key": ["10.0.0.1", "", "none"], "unlimited": True},
        ],
    }
    model = build(config(rateLimits=[spec], routes=[{"name": "r", "kind": "HTTPRoute"}]))
    assert model.rates[0].overrides == (
        Override(("10.0.0.1", "", "none"), None), Override(("2001:db8::1", "A.B", "r"), Terms(5, 5, 1_000_000)),
    )  # fmt: skip
    compiled = compile_model(model)
    assert load(compiled.blob).counts_by_section["overrides"] == 2
    low, high = key_of(
        name_id("rateLimit", "a"),
        [(4, b"2001:db8::ffff"), (5, b"a.b"), (8, name_id("route", "r").to_bytes(8, "little"))],
    )
    assert low.to_bytes(8, "little") + high.to_bytes(8, "little") in compiled.blob
    assert compiled.names[name_id("rateLimit", "a")] == ("rateLimit", "a")


def test_a_limit_that_changes_is_a_new_revision() -> None:
    one = build(config(rateLimits=[{"name": "a", "limit": {"requests": 1, "per": "1s"}}]))
    other = build(config(rateLimits=[{"name": "a", "limit": {"requests": 2, "per": "1s"}}]))
    assert is_same_but_endpoints(one, one)
    assert not is_same_but_endpoints(one, other)
