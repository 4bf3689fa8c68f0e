"""Model -> snapshot blob: the flat records that gateway._core.snapshot describes and the router walks.

Routes and clusters are packed one by one (gateway.control.pieces) and joined with what frames them: ports, listeners and hosts.
All decisions about precedence fall on the way: rows of one path stand in the order in which the router may take the first that
matches. The same Model gives the same bytes, whatever was kept from the one before. What cannot be packed is left out with a
Problem, and the rest goes on.
"""

from dataclasses import dataclass, field
from hashlib import blake2b

from gateway._core.link import Linker, Piece
from gateway.control.build import Cluster, Listener, Model, Route
from gateway.control.compile_limits import pack_limits
from gateway.control.pieces import NONE, Press, RuleError, cut
from gateway.model.problem import Problem

PROTOCOLS = {"HTTP": 0, "HTTPS": 1, "TLS": 2, "TCP": 3}
ENDED = 4
"""Of a listener of protocol TLS that ends it."""

Words = tuple[int, ...]
Vhosts = dict[str, list[Piece]]
"""Hostname -> the routes that answer on it, in the order of their precedence."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A blob and what the control plane must know beside it."""

    blob: bytes
    problems: list[Problem]
    names: dict[int, tuple[str, str]]
    """64-bit id -> (kind, name) of everything that counters and logs speak of: bind, listener, route, cluster, rateLimit."""
    clusters: dict[str, int]
    """Name -> id, the key of a cluster's endpoint table."""
    ports: dict[str, int]
    """Bound address -> id, for Engine.listen."""


@dataclass(frozen=True, slots=True)
class _Packed:
    """What one route or cluster came to."""

    spec: Route | Cluster
    id: int
    owner: tuple[str, str]
    """(kind, name), whose id it is."""
    piece: Piece | None = None
    problem: Problem | None = None
    """Why there is no piece."""


@dataclass(slots=True)
class Kept:
    """Of one Model for the next: what is made of the very same route or cluster is not packed again."""

    routes: dict[str, _Packed] = field(default_factory=dict)
    clusters: dict[str, _Packed] = field(default_factory=dict)
    press: Press | None = None


def name_id(kind: str, name: str) -> int:
    """The 64-bit id of a name, equal in every process and revision. Never 0, which stands for "none"."""
    return int.from_bytes(blake2b(f"{kind}\0{name}".encode(), digest_size=8).digest(), "little") or 1


def compile_model(model: Model, revision: int = 0, kept: Kept | None = None) -> Compiled:
    """Packs the Model. Raises nothing for what a configuration can hold; ValueError only when it does not fit 4 GiB.

    kept: what an earlier call left there makes this one quicker and changes nothing about what comes out.
    """
    packer = _Packer(model, kept or Kept())
    packer.pack()
    return Compiled(
        blob=packer.linker.blob(revision),
        problems=packer.problems,
        names=packer.names,
        clusters=packer.clusters,
        ports={port.address: name_id("bind", port.address) for port in model.ports},
    )


def _host_key(hostname: str) -> str:
    return hostname[1:] if hostname.startswith("*") else hostname


def _problem(path: tuple[str | int, ...], message: str) -> Problem:
    key = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)[1:]
    return Problem(severity="error", message=message, key=key)


class _Packer:
    """One run."""

    def __init__(self, model: Model, kept: Kept) -> None:
        self.model = model
        self.kept = kept
        self.linker = Linker()
        self.problems: list[Problem] = []
        self.names: dict[int, tuple[str, str]] = {}
        self.clusters: dict[str, int] = {}
        self.limits: dict[Words, int] = {}

    def claim(self, kind: str, name: str) -> int | None:
        """The id of a name; None, with a Problem, when another name has the same one."""
        id_ = name_id(kind, name)
        return id_ if self.take(id_, (kind, name)) else None

    def take(self, id_: int, owner: tuple[str, str]) -> bool:
        """Whether the id is this one's from now on."""
        taken = self.names.setdefault(id_, owner)
        if taken != owner:
            kind, name = owner
            self.problems.append(_problem((kind + "s", name), f"its id is that of the {taken[0]} '{taken[1]}'; rename one of them"))
        return taken == owner

    def pack(self) -> None:
        has_overrides = any(rate.overrides for rate in self.model.rates)
        route_ids = {route.name: name_id("route", route.name) for route in self.model.routes if has_overrides}
        rates = pack_limits(self.model.rates, self.linker.add, self.linker.text, self.claim, route_ids)
        self.pack_clusters(rates)
        vhosts: list[Vhosts] = [{} for _ in self.model.listeners]
        self.pack_routes(vhosts)
        self.pack_ports(vhosts)

    # --- clusters and routes ---

    def pack_clusters(self, rates: dict[int, int]) -> None:
        claimed = []
        before, after = self.kept.clusters, {}
        for cluster in self.model.clusters:
            known = before.get(cluster.name)
            id_, owner = (known.id, known.owner) if known else (name_id("cluster", cluster.name), ("cluster", cluster.name))
            if self.take(id_, owner):
                self.clusters[cluster.name] = id_
                claimed.append((cluster, id_, owner, known))
        unclaimed = frozenset(cluster.name for cluster in self.model.clusters if cluster.name not in self.clusters)
        press = self.kept.press
        if press is None or (press.rates, press.unclaimed) != (rates, unclaimed):
            # Pieces hold the numbers of limits.
            press = self.kept.press = Press(rates, unclaimed)
            self.kept.routes, claimed = {}, [(cluster, id_, owner, None) for cluster, id_, owner, _ in claimed]
        for cluster, id_, owner, known in claimed:
            if known is None or known.spec is not cluster:
                known = _Packed(cluster, id_, owner, press.cluster(cluster, id_))
            after[cluster.name] = known
            assert known.piece is not None
            self.linker.cluster(cluster.name, known.piece)
        self.kept.clusters = after

    def pack_routes(self, vhosts: list[Vhosts]) -> None:
        before, after = self.kept.routes, {}
        names, place = self.names, self.linker.place
        for route in self.model.routes:
            known = before.get(route.name)
            if known is None or known.spec is not route:
                known = self.pack_route(route)
            after[route.name] = known
            piece = known.piece
            if piece is None:
                assert known.problem is not None
                self.problems.append(known.problem)
            elif names.setdefault(known.id, known.owner) is known.owner or self.take(known.id, known.owner):
                place(piece)
                for attachment in route.attachments:
                    hosts = vhosts[attachment.listener]
                    for hostname in attachment.hostnames:
                        if hostname in hosts:
                            hosts[hostname].append(piece)
                        else:
                            hosts[hostname] = [piece]
        self.kept.routes = after

    def pack_route(self, route: Route) -> _Packed:
        id_, owner = name_id("route", route.name), ("route", route.name)
        assert self.kept.press is not None
        try:
            return _Packed(route, id_, owner, self.kept.press.route(route, id_))
        except RuleError as failure:
            problem = _problem(("routes", route.name, *failure.path), f"{failure}; the route is left out")
            return _Packed(route, id_, owner, problem=problem)

    # --- ports, listeners, hosts ---

    def pack_ports(self, vhosts: list[Vhosts]) -> None:
        # A port's listeners stand in a row, so they are packed port by port.
        for number, port in enumerate(self.model.ports):
            id_ = name_id("bind", port.address)
            self.claim("bind", port.address)
            first = self.linker.count("listeners")
            hosts: dict[str, int] = {}
            for index in port.listeners:
                listener = self.model.listeners[index]
                record = self.pack_listener(number, listener, vhosts[index])
                if hosts.setdefault(_host_key(listener.hostname), record) != record:
                    message = "another listener of this port has the same hostname; this one takes no request"
                    self.problems.append(_problem(("listeners", listener.name), message))
            self.linker.add("ports", (
                id_ & NONE, id_ >> 32, *self.linker.text(port.address), first, len(port.listeners), *self.linker.hosts(hosts),
                int(port.proxy_protocol),
            ))  # fmt: skip

    def pack_listener(self, port: int, listener: Listener, vhosts: Vhosts) -> int:
        id_ = name_id("listener", listener.name)
        self.claim("listener", listener.name)
        protocol = ENDED if listener.protocol == "TLS" and listener.ends_tls else PROTOCOLS[listener.protocol]
        limits = listener.limits
        words = (
            cut(limits.max_header_count), cut(limits.max_header_bytes), cut(limits.max_request_line),
            cut(limits.header_timeout), cut(limits.idle_timeout), cut(limits.body_timeout), cut(limits.stream_idle_timeout),
            cut(limits.max_connections),
            limits.max_body_size & NONE, limits.max_body_size >> 32 & NONE, cut(limits.max_requests_per_connection),
            cut(limits.max_connection_age),
        )  # fmt: skip
        if words not in self.limits:
            self.limits[words] = self.linker.add("limits", words)
        keys = {_host_key(hostname): vhosts[hostname] for hostname in sorted(vhosts)}
        hosts = {key: self.linker.vhost(key, pieces) for key, pieces in keys.items()}
        return self.linker.add("listeners", (
            id_ & NONE, id_ >> 32, *self.linker.text(listener.name), *self.linker.text(listener.hostname), port,
            listener.public_port, protocol, listener.trusted_hops, self.limits[words], *self.linker.hosts(hosts),
            *self.pack_rates(listener.rates),
        ))  # fmt: skip

    def pack_rates(self, rates: Words) -> tuple[int, int]:
        """(first, count) of the words that name these limits."""
        assert self.kept.press is not None
        piece, count = self.kept.press.rate_list(rates)
        return (0, 0) if piece is None else (self.linker.place(piece), count)
