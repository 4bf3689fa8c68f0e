"""Values that do not fit their type: every flaw is named, with its path and what was probably meant."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.model.cluster import Cluster
from gateway.model.config import Config
from gateway.model.decode import decode, decode_route, root_keys
from gateway.model.listener import Listener
from gateway.model.problem import key_text


def flaws(type_: Any, value: Any) -> list[str]:
    struct, findings = decode(type_, value, ())
    assert (struct is None) == bool(findings)
    return [f"{key_text(finding.path)}: {finding.message}" for finding in findings]


def test_an_unknown_key_names_the_nearest_known_one() -> None:
    assert flaws(Listener, {"name": "a", "prot": 1}) == ["prot: unknown key 'prot'; did you mean 'port'?"]


def test_an_unknown_key_that_is_like_none_is_shown_what_there_is() -> None:
    (flaw,) = flaws(Listener, {"name": "a", "zzz": 1})
    assert flaw.startswith("zzz: unknown key 'zzz'; known here: name, port, address, publicPort, protocol")


def test_all_flaws_are_named_at_once() -> None:
    value = {
        "endpoints": [1, {"address": 2, "wieght": 1}],
        "protocol": "http2",
        "connectTimeout": "1",
        "maxConnections": 0,
        "maxPending": "9",
        "outlierDetection": {"maxEjectionPercent": 101},
        "loadBalancing": [],
        "tls": None,
    }
    assert flaws(Cluster, value) == [
        "endpoints[0]: expected text, got the number 1; put it in quotes",
        "endpoints[1].address: expected text, got the number 2; put it in quotes",
        "endpoints[1].wieght: unknown key 'wieght'; did you mean 'weight'?",
        "protocol: 'http2' is not one of HTTP1, HTTP2, auto; did you mean 'HTTP2'?",
        "connectTimeout: '1' is not a duration; write it as 10s, 1m30s or 500ms",
        "maxConnections: 0 is too small; at least 1",
        "maxPending: expected a whole number, got the text '9'",
        "outlierDetection.maxEjectionPercent: 101 is too large; at most 100",
        "loadBalancing: expected a mapping, got a list",
        ": missing key 'name'",
    ]


def test_kinds_of_values_are_told_apart() -> None:
    assert flaws(Listener, {"name": None}) == ["name: expected text, got nothing (null)"]
    assert flaws(Listener, {"name": "a", "port": True}) == ["port: expected a whole number, got true"]
    assert flaws(Listener, {"name": "a", "port": 1.5}) == ["port: expected a whole number, got the number 1.5"]
    assert flaws(Listener, {"name": "a", "protocol": False}) == ["protocol: false is not one of HTTP, HTTPS, TCP, TLS"]
    assert flaws(Listener, "a") == [": expected a mapping, got the text 'a'"]
    assert flaws(root_keys()["workers"], "atuo") == [": 'atuo' is not one of auto; did you mean 'auto'?"]
    assert flaws(root_keys()["workers"], 0) == [": 0 is too small; at least 1"]
    assert flaws(root_keys()["workers"], 2000) == [": 2000 is too large; at most 1024"]


def test_a_route_is_an_http_route_unless_it_says_otherwise() -> None:
    assert type(decode_route({"name": "a"}, ())[0]).__name__ == "HTTPRoute"
    assert type(decode_route({"name": "a", "kind": "TLSRoute"}, ())[0]).__name__ == "TLSRoute"
    _, (finding,) = decode_route({"name": "a", "kind": "HttpRoute"}, ("routes", 2))
    assert finding.path == ("routes", 2, "kind")
    assert "did you mean 'HTTPRoute'?" in finding.message


def test_a_route_of_any_kind_is_shown_its_own_keys() -> None:
    _, (finding,) = decode_route({"name": "a", "kind": "GRPCRoute", "rules": [{"matches": [{"path": {}}]}]}, ())
    assert finding.path == ("rules", 0, "matches", 0, "path")
    assert finding.at_key


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 100_000)
    | st.floats(allow_nan=False)
    | st.sampled_from(["", "a", "10s", "auto", "HTTP"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "port", "tls", "rules", "matches", "path", "type", "kind", "x", "limits"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(VALUES)
def test_no_value_makes_it_raise_and_every_refusal_says_why(value: Any) -> None:
    for type_ in (Config, Listener, Cluster):
        struct, findings = decode(type_, value, ())
        assert (struct is None) == bool(findings)
        assert all(finding.message for finding in findings)
    route, findings = decode_route(value, ())
    assert (route is None) == bool(findings)
