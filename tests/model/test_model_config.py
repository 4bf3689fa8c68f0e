"""The root: defaults, redaction, and the schema that editors read."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

import gateway.model as model
from gateway.model.config import Config, redact
from gateway.model.policy import Redis, redact_url
from gateway.model.scalars import Duration
from gateway.model.schema import schema
from gateway.sources.files import load

CONFIGS = Path(__file__).resolve().parents[2] / "config"


def test_the_defaults_are_the_proposed_ones() -> None:
    limits = Config().limits
    assert (limits.max_header_count, limits.max_header_bytes, limits.max_request_line) == (100, 32 << 10, 8 << 10)
    assert (limits.header_timeout, limits.idle_timeout) == (10_000, 60_000)
    assert Config().admin.address == "127.0.0.1:9901"
    cluster = model.Cluster(name="a")
    assert (cluster.connect_timeout, cluster.idle_timeout, cluster.max_connections, cluster.max_pending) == (
        1000,
        50_000,
        1024,
        1024,
    )
    outliers = cluster.outlier_detection
    assert (outliers.consecutive_errors, outliers.base_ejection_time, outliers.max_ejection_percent) == (5, 10_000, 50)


def test_a_configuration_is_frozen_and_hashable() -> None:
    config = load(CONFIGS / "edge.yaml").config
    assert config is not None
    assert hash(config) == hash(load(CONFIGS / "edge.yaml").config)
    with pytest.raises(AttributeError):
        config.workers = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("redis://:s3cret@h:1/0", "redis://***@h:1/0"),
        ("rediss://me:s3c@ret@h/0?cluster=true", "rediss://***@h/0?cluster=***"),
        ("unix:///run/r.sock?password=s3cret", "unix:///run/r.sock?password=***"),
        ("me:s3cret@h:6379", "***@h:6379"),
    ],
)
def test_a_password_is_never_shown(url: str, shown: str) -> None:
    assert redact_url(url) == shown
    config = Config(redis=Redis(url=url, timeout=Duration(5)))
    for text in (repr(config), str(config), repr(list(config.redis.__rich_repr__())), str(redact(config))):  # type: ignore[union-attr]
        assert "s3c" not in text
    assert redact(config)["redis"]["url"] == shown


def test_a_redacted_configuration_is_plain_values_as_people_write_them() -> None:
    config = load(CONFIGS / "reference.yaml").config
    assert config is not None
    plain = redact(config)
    msgspec.json.encode(plain)
    assert plain["clusters"][0]["outlierDetection"] == {"consecutiveErrors": 5, "baseEjectionTime": "10s", "maxEjectionPercent": 50}
    assert plain["limits"]["maxHeaderBytes"] == "32KiB"
    assert [route["kind"] for route in plain["routes"]] == ["HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute"]


def validate_schema(definitions: dict[str, Any], rule: dict[str, Any], value: Any, path: str) -> list[str]:
    """Enough of JSON Schema for what ours uses; what it says is wrong."""
    if "$ref" in rule:
        return validate_schema(definitions, definitions[rule["$ref"].removeprefix("#/$defs/")], value, path)
    if "anyOf" in rule:
        tries = [validate_schema(definitions, each, value, path) for each in rule["anyOf"]]
        return [] if any(not each for each in tries) else min(tries, key=len)
    if "enum" in rule:
        return [] if value in rule["enum"] else [f"{path}: {value} not in {rule['enum']}"]
    if "const" in rule:
        return [] if value == rule["const"] else [f"{path}: {value} is not {rule['const']}"]
    kinds = {
        "object": dict,
        "array": list | tuple,
        "string": str,
        "integer": int,
        "number": int | float,
        "boolean": bool,
        "null": type(None),
    }
    if not isinstance(value, kinds[rule["type"]]) or (isinstance(value, bool) and rule["type"] != "boolean"):
        return [f"{path}: not a {rule['type']}"]
    if "pattern" in rule and not re.search(rule["pattern"], value):
        return [f"{path}: {value} does not match"]
    if ("minimum" in rule and value < rule["minimum"]) or ("maximum" in rule and value > rule["maximum"]):
        return [f"{path}: {value} out of range"]
    wrong = []
    if rule["type"] == "array":
        for number, item in enumerate(value):
            wrong += validate_schema(definitions, rule["items"], item, f"{path}[{number}]")
    if rule["type"] == "object":
        wrong += [f"{path}: lacks {key}" for key in rule.get("required", []) if key not in value]
        for key, item in value.items():
            if key not in rule["properties"]:
                wrong.append(f"{path}.{key}: unknown")
            else:
                wrong += validate_schema(definitions, rule["properties"][key], item, f"{path}.{key}")
    return wrong


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_the_schema_takes_every_configuration_of_ours(path: Path) -> None:
    from gateway.sources.document import parse

    rules = schema()
    (document,) = parse(path.read_text(), path.name)
    assert validate_schema(rules["$defs"], {**rules, "properties": rules["properties"]}, document.value, "") == []


def test_the_schema_refuses_what_the_reader_refuses() -> None:
    rules = schema()
    wrong = validate_schema(rules["$defs"], rules, {"listeners": [{"name": "a", "prot": 1}], "workers": 0, "routes": [{}]}, "")
    assert ".listeners[0].prot: unknown" in wrong
    assert any(text.startswith(".workers") for text in wrong)
    assert ".routes[0]: lacks name" in wrong


def test_the_schema_tells_editors_what_keys_mean_and_what_they_are_left_out() -> None:
    rules = schema()
    header_timeout = rules["$defs"]["Limits"]["properties"]["headerTimeout"]
    assert header_timeout["default"] == "10s"
    assert header_timeout["description"].startswith("From the first byte")
    assert rules["$defs"]["HTTPRoute"]["required"] == ["name"]
    assert "kind" in rules["$defs"]["TLSRoute"]["required"]


def test_every_struct_of_the_schema_says_what_it_is() -> None:
    for name, definition in schema()["$defs"].items():
        assert definition["description"], name
        assert definition["additionalProperties"] is False
