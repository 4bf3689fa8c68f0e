"""Addresses of endpoints."""

import pytest

from gateway.model.cluster import parse_endpoint, parse_host_port


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("10.0.0.1:80", ("10.0.0.1", 80, "ip")),
        ("[::1]:8080", ("::1", 8080, "ip")),
        ("[2001:DB8:0::1]:1", ("2001:db8::1", 1, "ip")),
        ("api.example:443", ("api.example", 443, "name")),
        ("API.Example.:443", ("api.example", 443, "name")),
        ("my_service:65535", ("my_service", 65535, "name")),
        ("unix:/run/a.sock", ("/run/a.sock", 0, "unix")),
    ],
)
def test_an_endpoint_is_an_address_a_name_or_a_socket(text: str, parsed: tuple[str, int, str]) -> None:
    assert parse_endpoint(text) == parsed


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("10.0.0.1", "no port"),
        ("::1:80", "IPv6 is written as"),
        ("[::1]", "IPv6 is written as"),
        ("[::1]80", "IPv6 is written as"),
        ("[10.0.0.1]:80", "not an IPv6 address"),
        ("10.0.0.256:80", "not an IPv4 address"),
        ("010.0.0.1:80", "not an IPv4 address"),
        ("1.2.3:80", "not an IPv4 address"),
        ("a:0", "not a port"),
        ("a:65536", "not a port"),
        ("a:\u0661", "not a port"),
        ("a:+1", "not a port"),
        ("a: 1", "not a port"),
        ("a b:1", "not a host name"),
        (":80", "not a host name"),
        ("user@a:80", "not a host name"),
        ("unix:run/a.sock", "absolute/path"),
        ("unix:/" + "x" * 107, "too long"),
        ("http://a:80", "IPv6 is written as"),
    ],
)
def test_a_bad_endpoint_is_told_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says.replace("[", r"\[")):
        parse_endpoint(text)


def test_what_is_bound_may_be_every_address_and_any_port() -> None:
    assert parse_host_port(":0", to_bind=True) == ("::", 0, False)
    assert parse_host_port("*:80", to_bind=True) == ("::", 80, False)
