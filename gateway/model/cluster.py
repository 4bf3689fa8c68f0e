"""Clusters: what Kubernetes calls a Service; a set of endpoints and how they are used."""

import ipaddress
import re
from typing import Annotated, Literal

from msgspec import Meta

from gateway.model.scalars import Doc, Duration, Part
from gateway.model.tls import ClusterTLS

Weight = Annotated[int, Meta(ge=0, le=1_000_000)]
_LABEL = r"[a-zA-Z0-9_](?:[-a-zA-Z0-9_]{0,61}[a-zA-Z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z)(?:{_LABEL}\.)*{_LABEL}\.?")


class EndpointSpec(Part, frozen=True):
    """One endpoint, written out."""

    address: Annotated[str, Doc("ip:port, [v6]:port, name:port or unix:/path")]
    weight: Annotated[Weight, Doc("Share of the traffic; 0 takes none")] = 1
    zone: Annotated[str, Doc("Where it stands")] = ""


class LoadBalancing(Part, frozen=True):
    """Which endpoint takes the next request."""

    policy: Literal["RoundRobin", "LeastRequest", "Random", "ConsistentHash"] = "LeastRequest"
    key: Annotated[str, Doc("ConsistentHash: header:NAME, cookie:NAME, query:NAME or clientAddress")] = ""


class OutlierDetection(Part, frozen=True):
    """When an endpoint that keeps failing is left alone for a while."""

    consecutive_errors: Annotated[int, Meta(ge=0, le=1_000_000), Doc("Failures in a row that eject; 0: never")] = 5
    base_ejection_time: Annotated[Duration, Doc("Length of the first ejection; later ones are longer")] = Duration(10_000)
    max_ejection_percent: Annotated[int, Meta(ge=0, le=100), Doc("Most endpoints out at once, so never the only one")] = 50


class Cluster(Part, frozen=True):
    """A named set of endpoints."""

    name: Annotated[str, Doc("Stands once in the configuration")]
    endpoints: Annotated[tuple[EndpointSpec | str, ...], Doc("Addresses, or mappings {address, weight, zone}")] = ()
    protocol: Annotated[Literal["HTTP1", "HTTP2", "auto"], Doc("auto: by ALPN; in clear text HTTP1")] = "HTTP1"
    load_balancing: LoadBalancing = LoadBalancing()
    connect_timeout: Annotated[Duration, Doc("For one connection, TLS included")] = Duration(1000)
    idle_timeout: Annotated[Duration, Doc("A pooled connection that is not used so long is closed")] = Duration(50_000)
    max_connections: Annotated[int, Meta(ge=1, le=1_000_000), Doc("Per endpoint and worker")] = 1024
    max_pending: Annotated[int, Meta(ge=0, le=1_000_000), Doc("Requests that wait for a connection, per worker")] = 1024
    outlier_detection: OutlierDetection = OutlierDetection()
    tls: ClusterTLS | None = None
    rate_limits: Annotated[tuple[str, ...], Doc("Names of rateLimits that count the requests that go to it")] = ()


def verified_name(cluster: Cluster) -> tuple[str, str]:
    """(name, address) that a certificate of the cluster's endpoints must carry; both are empty when subjectAltNames alone decide.

    Only a name is told to the endpoint as SNI. ValueError says why there is nothing to verify: TLS without that is none.
    """
    tls = cluster.tls or ClusterTLS()
    if tls.server_name:
        address = parse_ip(tls.server_name)
        return ("", address) if address else (tls.server_name.removesuffix(".").lower(), "")
    hosts = set()
    for entry in cluster.endpoints:
        host, _, kind = parse_endpoint(entry.address if isinstance(entry, EndpointSpec) else entry)
        hosts.add((host, kind))
    if len(hosts) == 1:
        host, kind = hosts.pop()
        if kind != "unix":
            return (host, "") if kind == "name" else ("", host)
    if tls.subject_alt_names:
        return "", ""
    raise ValueError("needs 'serverName': the endpoints have no one name that their certificates could be verified against")


def parse_ip(text: str) -> str:
    """The canonical form of an IP address, brackets forgiven; "" when it is none."""
    try:
        return ipaddress.ip_address(text.removeprefix("[").removesuffix("]")).compressed
    except ValueError:
        return ""


def parse_host_port(text: str, *, to_bind: bool = False) -> tuple[str, int, bool]:
    """(host, port, is_name) of "ip:port", "[v6]:port" or "name:port"; ValueError says what is wrong.

    The host of an address is in its canonical form and without brackets. to_bind: port 0 is allowed,
    and an empty host or "*" is "::", any address.
    """
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or not rest.startswith(":"):
            raise ValueError(f"'{text}' is not an address; IPv6 is written as [::1]:8080")
        number = rest[1:]
    else:
        host, colon, number = text.rpartition(":")
        if not colon:
            raise ValueError(f"'{text}' has no port; write it as host:port")
        if ":" in host:
            raise ValueError(f"'{text}' is ambiguous; IPv6 is written as [::1]:8080")
    lowest = 0 if to_bind else 1
    if not (number.isascii() and number.isdigit() and len(number) <= 5 and lowest <= int(number) <= 65535):
        raise ValueError(f"'{number}' is not a port; it is a number from {lowest} to 65535")
    port = int(number)
    if to_bind and host in ("", "*"):
        return "::", port, False
    if text.startswith("["):
        try:
            return ipaddress.IPv6Address(host).compressed, port, False
        except ValueError:
            raise ValueError(f"'{host}' is not an IPv6 address") from None
    try:
        return str(ipaddress.IPv4Address(host)), port, False
    except ValueError:
        pass
    last = host.rstrip(".").rpartition(".")[2]
    if last.isdigit():
        raise ValueError(f"'{host}' is not an IPv4 address")
    if not _NAME.fullmatch(host):
        raise ValueError(f"'{host}' is not a host name")
    return host.rstrip(".").lower(), port, True


def parse_endpoint(text: str) -> tuple[str, int, Literal["ip", "name", "unix"]]:
    """(host, port, kind) of an endpoint's address; for a Unix socket the path and 0. ValueError says what is wrong."""
    if text.startswith("unix:"):
        path = text[5:]
        if not path.startswith("/") or "\0" in path:
            raise ValueError(f"'{text}' is not a Unix socket; write it as unix:/absolute/path")
        if len(path.encode()) > 107:
            raise ValueError(f"'{path}' is too long for a Unix socket: at most 107 bytes")
        return path, 0, "unix"
    host, port, is_name = parse_host_port(text)
    return host, port, "name" if is_name else "ip"
