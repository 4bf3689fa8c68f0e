"""What a configuration must be beyond its types: the semantic rules, as Findings.

An object with an error is left out of the result and the rest goes on. What Gateway API wants answered 500 (a backend that does not
resolve, a filter that is not served) keeps its route and is reported all the same. Routes have their own file, check_route.
"""

import re
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Protocol, TypeVar

import msgspec

from gateway.model.check_limit import check_attached, check_limit
from gateway.model.check_route import check_route
from gateway.model.cluster import Cluster, EndpointSpec, parse_endpoint, parse_ip, verified_name
from gateway.model.config import Config
from gateway.model.listener import Limits, LimitsOverride, Listener, bind_address, parse_bind
from gateway.model.names import hostname_flaw, keyed_flaw, normal_hostname
from gateway.model.problem import Finding, Path, warning
from gateway.model.route import TCPRoute, asks_for, takes
from gateway.model.tls import ClusterTLS
from gateway.supervisor.redis_url import parse_redis_url

_NAME = re.compile(r"[A-Za-z0-9](?:[-._/:A-Za-z0-9]{0,251}[A-Za-z0-9])?")
_SMALLEST_HEAD, _LARGEST_HEAD = 256, 1 << 20


class Named(Protocol):
    """An object with a name that stands once among its kind."""

    @property
    def name(self) -> str: ...


N = TypeVar("N", bound=Named)


@dataclass(frozen=True, slots=True)
class Validated:
    """What is left of a configuration, and what was said about it."""

    config: Config
    """Without the objects that an error took out. Not to be used when one of the findings is fatal."""
    findings: tuple[Finding, ...]
    """Paths count in the configuration that was given, not in the one that is left."""


def validate(config: Config, *, broken_clusters: frozenset[str] = frozenset()) -> Validated:
    """Checks everything; never raises for what a configuration says.

    broken_clusters: names of clusters that could not even be decoded, so that a route that names one is told the right reason.
    """
    findings = [*_check_root(config), *_check_listeners(config.listeners)]
    findings += _check_each("rateLimits", config.rate_limits, lambda limit, path: check_limit(limit, config, path))
    rate_limits = _left("rateLimits", config.rate_limits, findings)
    names = {limit.name for limit in rate_limits}
    findings += _check_each("clusters", config.clusters, _check_cluster)
    for number, cluster in enumerate(config.clusters):
        findings += check_attached(cluster.rate_limits, names, ("clusters", number))
    for number, listener in enumerate(config.listeners):
        findings += _check_listener_limits(listener, names, ("listeners", number))
    clusters = _left("clusters", config.clusters, findings)
    usable = msgspec.structs.replace(config, clusters=clusters, rate_limits=rate_limits)
    broken = broken_clusters | ({cluster.name for cluster in config.clusters} - {cluster.name for cluster in usable.clusters})
    findings += _check_each("routes", config.routes, lambda route, path: check_route(route, usable, path, broken))
    left = msgspec.structs.replace(usable, routes=_left("routes", config.routes, findings))
    findings += _check_tcp_routes(config, left)
    return Validated(config=left, findings=tuple(findings))


def _check_each(key: str, items: Sequence[N], check: Callable[[N, Path], Iterator[Finding]]) -> list[Finding]:
    findings: list[Finding] = []
    names: set[str] = set()
    for number, item in enumerate(items):
        if not _NAME.fullmatch(item.name):
            findings.append(Finding((key, number, "name"), f"'{item.name}' is not a name: letters, digits, - . _ / : inside"))
        elif item.name in names:
            findings.append(Finding((key, number, "name"), f"the name '{item.name}' stands twice among {key}"))
        names.add(item.name)
        findings += check(item, (key, number))
    return findings


def _left(key: str, items: tuple[N, ...], findings: list[Finding]) -> tuple[N, ...]:
    out = {finding.path[1] for finding in findings if finding.drops and len(finding.path) > 1 and finding.path[0] == key}
    return tuple(item for number, item in enumerate(items) if number not in out) if out else items


def _check_root(config: Config) -> Iterator[Finding]:
    try:
        parse_bind(config.admin.address)
    except ValueError as flaw:
        yield Finding(("admin", "address"), str(flaw))
    if not config.access_log.path:
        yield Finding(("accessLog", "path"), "is empty; stdout or a file is meant")
    if config.redis is not None:
        try:
            parse_redis_url(config.redis.url)
        except ValueError as flaw:
            yield Finding(("redis", "url"), str(flaw))
        if config.redis.timeout == 0:
            yield Finding(("redis", "timeout"), "must be longer than 0s")
    yield from _check_limits(config.limits, ("limits",))
    bound: dict[tuple[str, int], int] = {}
    for number, each in enumerate(config.kubernetes.binds):
        if bound.setdefault((each.gateway, each.port), each.bind) != each.bind:
            yield Finding(("kubernetes", "binds", number), f"port {each.port} of {each.gateway} is bound to another port already")


def _check_limits(limits: Limits | LimitsOverride, path: Path) -> Iterator[Finding]:
    for key, size in (("maxHeaderBytes", limits.max_header_bytes), ("maxRequestLine", limits.max_request_line)):
        if size is not None and not _SMALLEST_HEAD <= size <= _LARGEST_HEAD:
            yield Finding((*path, key), f"{size} is out of range; from 256 bytes to 1MiB")


def _check_listeners(listeners: tuple[Listener, ...]) -> Iterator[Finding]:
    yield from _check_each("listeners", listeners, _check_listener)
    shared: dict[str, list[tuple[int, Listener]]] = {}
    wild: dict[int, tuple[str, str]] = {}
    for number, listener in enumerate(listeners):
        try:
            host, port, address = bind_address(listener)
        except ValueError:
            continue
        shared.setdefault(address, []).append((number, listener))
        if host in ("::", "0.0.0.0") and port:
            first_host, first_name = wild.setdefault(port, (host, listener.name))
            if first_host != host:
                yield Finding(("listeners", number), f"{address} overlaps the address of listener '{first_name}'")
    for address, sharers in shared.items():
        yield from _check_sharers(address, sharers)


def _check_sharers(address: str, sharers: list[tuple[int, Listener]]) -> Iterator[Finding]:
    _, first = sharers[0]
    hostnames = {normal_hostname(first.hostname): first.name}
    for number, listener in sharers[1:]:
        path = ("listeners", number)
        if listener.protocol != first.protocol and {listener.protocol, first.protocol} != {"HTTPS", "TLS"}:
            yield Finding((*path, "protocol"), f"listener '{first.name}' on {address} has protocol {first.protocol}")
        if listener.public_port != first.public_port:
            shown = first.public_port or "none"
            yield Finding((*path, "publicPort"), f"listener '{first.name}' on {address} has {shown}; connections do not tell which")
        if listener.proxy_protocol != first.proxy_protocol:
            yield Finding((*path, "proxyProtocol"), f"listener '{first.name}' on {address} has {first.proxy_protocol}")
        hostname = normal_hostname(listener.hostname)
        if hostname in hostnames:
            shown = f"hostname '{hostname}'" if hostname else "no hostname"
            yield Finding((*path, "hostname"), f"listener '{hostnames[hostname]}' on {address} has {shown} too")
        hostnames[hostname] = listener.name


def _check_listener(listener: Listener, path: Path) -> Iterator[Finding]:
    if (listener.port is None) == (listener.address is None):
        yield Finding(path, "needs either port or address")
    elif listener.address is not None:
        try:
            parse_bind(listener.address)
        except ValueError as flaw:
            yield Finding((*path, "address"), str(flaw))
    if listener.hostname:
        if flaw_text := hostname_flaw(listener.hostname):
            yield Finding((*path, "hostname"), flaw_text)
        if listener.protocol == "TCP":
            yield Finding((*path, "hostname"), "a TCP listener sees no host name")
    yield from _check_listener_tls(listener, path)
    if listener.limits is not None:
        yield from _check_limits(listener.limits, (*path, "limits"))


def _check_listener_tls(listener: Listener, path: Path) -> Iterator[Finding]:
    tls = listener.tls
    if listener.protocol == "HTTPS" and (tls is None or not tls.certificates):
        yield Finding(path, "an HTTPS listener needs tls with certificates")
    if tls is None:
        return
    if listener.protocol == "TLS" and not tls.certificates:
        yield Finding((*path, "tls"), "needs certificates to end TLS; without tls the listener passes it on undecrypted")
    elif listener.protocol not in ("HTTPS", "TLS"):
        yield Finding((*path, "tls"), f"a listener of protocol {listener.protocol} has no tls; HTTPS is meant")
    for number, pair in enumerate(tls.certificates):
        yield from _check_files((*path, "tls", "certificates", number), cert=pair.cert, key=pair.key)
    client = tls.client_certificate
    if client is not None and client.mode != "off" and not client.ca:
        yield Finding((*path, "tls", "clientCertificate"), f"mode {client.mode} needs 'ca'")
    if client is not None and client.mode == "insecureFallback":
        message = "lets in clients without a certificate and with one that fails; nothing but the backends tells them apart"
        yield warning((*path, "tls", "clientCertificate", "mode"), message)


def _check_listener_limits(listener: Listener, names: Set[str], path: Path) -> Iterator[Finding]:
    yield from check_attached(listener.rate_limits, names, path)
    if listener.rate_limits and listener.protocol not in ("HTTP", "HTTPS"):
        yield Finding((*path, "rateLimits"), f"requests are counted, and a listener of protocol {listener.protocol} sees none")


def _check_files(path: Path, **files: str) -> Iterator[Finding]:
    for key, name in files.items():
        if not name:
            yield Finding((*path, key), "is empty; a file is meant")


def _check_cluster(cluster: Cluster, path: Path) -> Iterator[Finding]:
    seen: dict[tuple[str, int], int] = {}
    for number, entry in enumerate(cluster.endpoints):
        at: Path = (*path, "endpoints", number, "address") if isinstance(entry, EndpointSpec) else (*path, "endpoints", number)
        try:
            host, port, _ = parse_endpoint(entry.address if isinstance(entry, EndpointSpec) else entry)
        except ValueError as flaw:
            yield Finding(at, str(flaw))
            continue
        if (host, port) in seen:
            yield warning(at, f"the same endpoint as endpoints[{seen[host, port]}]; it counts once")
        seen.setdefault((host, port), number)
    if not cluster.endpoints:
        yield warning(path, "has no endpoints; its requests are answered 503")
    for key, duration in (("connectTimeout", cluster.connect_timeout), ("idleTimeout", cluster.idle_timeout)):
        if duration == 0:
            yield Finding((*path, key), "must be longer than 0s")
    yield from _check_balancing(cluster, (*path, "loadBalancing"))
    if cluster.tls is not None:
        yield from _check_cluster_tls(cluster, cluster.tls, (*path, "tls"))


def _check_cluster_tls(cluster: Cluster, tls: ClusterTLS, path: Path) -> Iterator[Finding]:
    if tls.server_name and not parse_ip(tls.server_name) and (flaw := hostname_flaw(tls.server_name, wildcard=False)):
        yield Finding((*path, "serverName"), flaw)
    for number, name in enumerate(tls.subject_alt_names):
        if "://" not in name and not parse_ip(name) and (flaw := hostname_flaw(name)):
            yield Finding((*path, "subjectAltNames", number), flaw)
    if not tls.ca:
        yield Finding((*path, "ca"), "is empty; 'system' or a file is meant")
    if tls.client_certificate is not None:
        pair = tls.client_certificate
        yield from _check_files((*path, "clientCertificate"), cert=pair.cert, key=pair.key)
    try:
        verified_name(cluster)
    except ValueError as flaw_found:
        # A bad endpoint has been told already.
        if "serverName" in str(flaw_found):
            yield Finding(path, str(flaw_found))


def _check_tcp_routes(config: Config, left: Config) -> Iterator[Finding]:
    """A TCP connection says nothing to choose by, so one route alone has a listener's connections: the first by name."""
    numbers = {route.name: number for number, route in enumerate(config.routes)}
    routes = sorted((route for route in left.routes if isinstance(route, TCPRoute)), key=lambda route: route.name)
    for listener in left.listeners:
        try:
            port = bind_address(listener)[1]
        except ValueError:
            continue
        is_fit = takes("TCPRoute", listener.protocol, listener.ends_tls)
        wanting = [route for route in routes if is_fit and asks_for(route, listener.name, port)]
        for route in wanting[1:]:
            message = f"the connections of listener '{listener.name}' go to the TCPRoute '{wanting[0].name}' already"
            yield warning(("routes", numbers[route.name]), message)


def _check_balancing(cluster: Cluster, path: Path) -> Iterator[Finding]:
    policy, key = cluster.load_balancing.policy, cluster.load_balancing.key
    if policy != "ConsistentHash":
        if key:
            yield warning((*path, "key"), f"policy {policy} uses no key")
        return
    if not key:
        yield Finding(path, "ConsistentHash needs 'key': header:NAME, cookie:NAME, query:NAME or clientAddress")
    elif flaw := keyed_flaw(key, ("clientAddress",)):
        yield Finding((*path, "key"), flaw)
