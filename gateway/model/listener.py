"""Listeners: where clients connect, and what one client may take."""

from typing import Annotated, Literal

from msgspec import Meta

from gateway.model.cluster import parse_host_port
from gateway.model.scalars import Doc, Duration, Part, Size
from gateway.model.tls import ListenerTLS

Count = Annotated[int, Meta(ge=0, le=0x7FFFFFFF)]


class Limits(Part, frozen=True):
    """What one downstream connection may take. 0 means no limit, except for the three limits of the request head."""

    max_header_count: Annotated[int, Meta(ge=1, le=10000), Doc("Fields of a request head; more is answered 431")] = 100
    max_header_bytes: Annotated[Size, Doc("Bytes of all fields of a request head; more is answered 431")] = Size(32 << 10)
    max_request_line: Annotated[Size, Doc("Bytes of the request line; more is answered 414")] = Size(8 << 10)
    header_timeout: Annotated[Duration, Doc("From the first byte of a request head to its last; then 408")] = Duration(10_000)
    idle_timeout: Annotated[Duration, Doc("Silence between two requests of a connection; then it is closed")] = Duration(60_000)
    body_timeout: Annotated[Duration, Doc("Silence inside the content of a request; then 408")] = Duration(30_000)
    stream_idle_timeout: Annotated[Duration, Doc("Silence of a whole exchange, both ways; then it is given up")] = Duration(300_000)
    max_connections: Annotated[Count, Doc("Open connections of a listener's port in one worker")] = 50_000
    max_body_size: Annotated[Size, Doc("Bytes of the content of a request; more is answered 413")] = Size(0)
    max_requests_per_connection: Annotated[Count, Doc("Requests after which a connection is closed")] = 0
    max_connection_age: Annotated[Duration, Doc("Time, and by chance up to a quarter more, that a connection lives")] = Duration(0)


class LimitsOverride(Part, frozen=True):
    """The same limits for one listener; a key that is left out is taken from the root's `limits`."""

    max_header_count: Annotated[int, Meta(ge=1, le=10000)] | None = None
    max_header_bytes: Size | None = None
    max_request_line: Size | None = None
    header_timeout: Duration | None = None
    idle_timeout: Duration | None = None
    body_timeout: Duration | None = None
    stream_idle_timeout: Duration | None = None
    max_connections: Count | None = None
    max_body_size: Size | None = None
    max_requests_per_connection: Count | None = None
    max_connection_age: Duration | None = None


class Listener(Part, frozen=True):
    """One place where clients connect. Listeners may share a port when their hostnames differ."""

    name: Annotated[str, Doc("Stands once in the configuration")]
    port: Annotated[int, Meta(ge=0, le=65535), Doc("On every address, IPv6 and IPv4; 0: the kernel chooses")] | None = None
    address: Annotated[str, Doc("ip:port or [v6]:port, instead of port; [::] takes IPv4 too")] | None = None
    public_port: Annotated[
        int,
        Meta(ge=0, le=65535),
        Doc("Where clients connect when something in front leads them here; redirects and X-Forwarded-Port name it; 0: the port"),
    ] = 0
    protocol: Annotated[
        Literal["HTTP", "HTTPS", "TLS", "TCP"], Doc("HTTP, HTTPS, TLS (by SNI; with tls it ends here, without it passes on), TCP")
    ] = "HTTP"
    hostname: Annotated[str, Doc("The hosts it answers for: exact or *.suffix; empty: any")] = ""
    proxy_protocol: Annotated[Literal["off", "accept"], Doc("accept: every connection must begin with PROXY v1 or v2")] = "off"
    trusted_hops: Annotated[int, Meta(ge=0, le=100), Doc("Proxies in front that are believed for X-Forwarded-*")] = 0
    tls: ListenerTLS | None = None
    limits: Annotated[LimitsOverride, Doc("Limits that differ from the root's")] | None = None
    rate_limits: Annotated[tuple[str, ...], Doc("Names of rateLimits that count the requests that a route takes")] = ()

    @property
    def ends_tls(self) -> bool:
        """Whether clients shake hands with the gateway, and not with whoever stands behind it."""
        return self.tls is not None


def bind_address(listener: Listener) -> tuple[str, int, str]:
    """(host, port, text) to bind; host is an IP address, "::" for all. ValueError says what is wrong with the address."""
    if listener.address is None:
        host, port = "::", listener.port or 0
    else:
        host, port = parse_bind(listener.address)
    return host, port, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_bind(text: str) -> tuple[str, int]:
    """(host, port) of an address to bind: an IP address, or localhost for 127.0.0.1; port 0 lets the kernel choose."""
    host, port, is_name = parse_host_port(text, to_bind=True)
    if host == "localhost":
        return "127.0.0.1", port
    if is_name:
        raise ValueError(f"'{host}' is a name; an address to listen on is an IP address")
    return host, port
