"""Addresses of endpoints."""

import pytest

from gateway.model.cluster import Cluster, parse_endpoint, parse_host_port, verified_name
from gateway.model.tls import ClusterTLS


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


@pytest.mark.parametrize(
    ("server_name", "names", "endpoints", "verified"),
    [
        ("API.example.", (), ("10.0.0.1:1", "b:1"), ("api.example", "")),
        ("10.0.0.1", (), (), ("", "10.0.0.1")),
        ("[2001:DB8::1]", (), (), ("", "2001:db8::1")),
        ("", (), ("Api.example:1", "api.example:2"), ("api.example", "")),
        ("", (), ("[::1]:1",), ("", "::1")),
        ("", ("other",), ("api.example:1",), ("api.example", "")),
        ("", ("other",), ("a:1", "b:1"), ("", "")),
        ("", ("other",), ("unix:/a",), ("", "")),
    ],
)
def test_there_is_a_name_to_verify(
    server_name: str, names: tuple[str, ...], endpoints: tuple[str, ...], verified: tuple[str, str]
) -> None:
    tls = ClusterTLS(server_name=server_name, subject_alt_names=names)
    assert verified_name(Cluster(name="c", endpoints=endpoints, tls=tls)) == verified


@pytest.mark.parametrize("endpoints", [(), ("a:1", "b:1"), ("10.0.0.1:1", "10.0.0.2:1"), ("unix:/a",), ("a:1", "10.0.0.1:1")])
def test_without_a_name_to_verify_there_is_no_tls(endpoints: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="needs 'serverName'"):
        verified_name(Cluster(name="c", endpoints=endpoints, tls=ClusterTLS()))
