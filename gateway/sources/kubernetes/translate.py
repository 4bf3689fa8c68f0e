"""Objects -> what a configuration is made of, and what is said back about each object: a pure function of store and options.

The result is parts of a Config in the terms of the file language (clusters in the place of Services, names of files in the place of
Secrets, whose contents stand in `pems`), so that to `build` and everything behind it all configurations are alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TypeVar

import msgspec

from gateway.model.cluster import Cluster, EndpointSpec
from gateway.model.config import Config
from gateway.model.listener import Listener
from gateway.model.names import hostname_flaw
from gateway.model.problem import Finding, Problem, key_text
from gateway.model.route import GRPCRoute as GRPCRouteOfFile
from gateway.model.route import HTTPRoute as HTTPRouteOfFile
from gateway.model.route import ParentRef, Route, TCPRouteRule, TLSRouteRule
from gateway.model.route import TCPRoute as TCPRouteOfFile
from gateway.model.route import TLSRoute as TLSRouteOfFile
from gateway.sources.kubernetes.attach import RouteObject, Sharing, attach, hostnames_of
from gateway.sources.kubernetes.backends import Backends, Led, Use
from gateway.sources.kubernetes.config_map import ConfigMap
from gateway.sources.kubernetes.east_west import east_west_listeners, listeners_for, service_hosts, service_routes
from gateway.sources.kubernetes.endpoints import endpoints_of
from gateway.sources.kubernetes.grpc_route import GRPCRoute
from gateway.sources.kubernetes.http_route import HTTPRoute
from gateway.sources.kubernetes.ingresses import Ingresses, read_ingresses
from gateway.sources.kubernetes.listeners import Gateways, read_gateways
from gateway.sources.kubernetes.memo import Claim, Memo, Piece
from gateway.sources.kubernetes.meta import Ref, parse_selector
from gateway.sources.kubernetes.options import Options
from gateway.sources.kubernetes.report import Judged, statuses_of
from gateway.sources.kubernetes.rules import Outcome, Resolve, route_rules, tunnel_rule
from gateway.sources.kubernetes.service import Service
from gateway.sources.kubernetes.status import Status
from gateway.sources.kubernetes.store import Store
from gateway.sources.kubernetes.tcp_route import TCPRoute
from gateway.sources.kubernetes.tls_route import TLSRoute
from gateway.sources.kubernetes.view import Origin, View

N = TypeVar("N", bound=Listener | Cluster | Route)


@dataclass(frozen=True, slots=True)
class Translation:
    """What the objects come to. Equal for equal objects and options, in whatever order they came."""

    listeners: tuple[Listener, ...]
    routes: tuple[Route, ...]
    clusters: tuple[Cluster, ...]
    statuses: dict[Ref, Status]
    """Of every object that is ours to speak of."""
    problems: list[Problem]
    """`source` is the object's kind and name; who has files may know the line (see origins)."""
    origins: dict[str, Origin]
    """Name of a route -> the object that it comes from."""
    pems: dict[str, bytes] = field(repr=False)
    """Contents of the files that listeners and clusters name for TLS."""
    wanted: frozenset[Ref]
    """Secrets and ConfigMaps that were asked for, there or not: those to watch."""
    texts: tuple[tuple[Ref, str, str], ...]
    """(ConfigMap, key, text) of the ConfigMaps that carry configuration, in order."""
    places: list[tuple[Ref, tuple[str | int, ...], Problem]] = field(default_factory=list, repr=False)
    """The problems again, with their object and their path in it."""

    def add_to(self, base: Config) -> Config:
        """The files' configuration with what the objects come to. Of a name that stands in both the file's stays."""
        return msgspec.structs.replace(
            base,
            listeners=_join(base.listeners, self.listeners),
            routes=_join(base.routes, self.routes),
            clusters=_join(base.clusters, self.clusters),
            kubernetes=msgspec.structs.replace(base.kubernetes, enabled=True),
        )


def _join(first: tuple[N, ...], more: tuple[N, ...]) -> tuple[N, ...]:
    names = {each.name for each in first}
    return (*first, *(each for each in more if each.name not in names))


def translate(store: Store, options: Options | None = None, memo: Memo | None = None) -> Translation:
    """All of it. Never raises for what an object says.

    memo: of earlier translations of this store or of one that it is a copy of; the result is the same with and without, and what
    has not changed in it is the very same object.
    """
    memo = memo or Memo()
    with memo.lock:
        return _Translator(View(store, options or Options()), memo).run()


def translate_endpoints(store: Store, options: Options, service: Ref) -> dict[str, tuple[EndpointSpec, ...]]:
    """Endpoints of each port of a Service, by the name that its clusters begin with: what changes with an EndpointSlice alone.

    A cluster "Service/NAMESPACE/NAME:PORT" and its variants "…:PORT/h2", "…/tcp", "…/tcp/tls", "…/as/…" have the same endpoints.
    """
    view = View(store, options)
    found = view.service(service.namespace, service.name)
    if found is None:
        return {}
    return {f"{service.path()}:{port.port}": endpoints_of(view, found, port) for port in found.spec.ports if port.protocol == "TCP"}


class _Translator:
    """One run."""

    def __init__(self, view: View, memo: Memo) -> None:
        memo.stand_on(view)
        self.view = view
        self.memo = memo
        ends = view.store.mark(("Service", "EndpointSlice"))
        self.backends = Backends(view, memo.clusters, ends == memo.ends_mark)
        memo.ends_mark = ends
        services = view.store.mark(("Service",))
        self.is_same, memo.services_mark = services == memo.services_mark, services
        self.routes: list[Route] = []
        self.origins: dict[str, Origin] = {}
        self.judged: list[Judged] = []
        self.routed: set[tuple[Ref, str]] = set()

    def run(self) -> Translation:
        view = self.view
        gateways = self._gateways()
        self._keep_pieces(gateways, self._pieces(gateways))
        ingresses = read_ingresses(view, self.backends, self.memo.ingresses, is_same=self.is_same)
        for found, origin in ingresses.routes:
            self._keep(found, origin)
        names = set()
        for found, origin in service_routes(view, self.backends, self.routed, self.memo.names):
            self._keep(found, origin)
            names.add(found.name)
        self.memo.sweep(self.backends.clusters, names, self.origins)
        statuses, places = statuses_of(view, gateways, self.judged, self.backends, ingresses)
        places += self._broken()
        places.sort(key=lambda each: (each[0], each[2].order()))
        return Translation(
            listeners=tuple(sorted(self._listeners(gateways, ingresses), key=lambda each: each.name)),
            # As `build` wants them, which is how most of them stand already.
            routes=tuple(sorted(self.routes, key=attrgetter("created", "name"))),
            clusters=tuple(self.backends.clusters[name] for name in sorted(self.backends.clusters)),
            statuses=statuses,
            problems=[problem for _, _, problem in places],
            origins=self.origins,
            pems=view.pems,
            wanted=frozenset(view.wanted),
            texts=config_texts(view.store, view.options),
            places=places,
        )

    # --- what is kept from one translation to the next ---

    def _gateways(self) -> Gateways:
        memo, view = self.memo, self.view
        if memo.gateways is None:
            view.asked = {}
            memo.gateways = read_gateways(view)
            memo.services, memo.pems, memo.wanted = view.asked, view.pems.copy(), view.wanted.copy()
            view.asked = {}
        else:
            view.pems.update(memo.pems)
            view.wanted |= memo.wanted
            for state in memo.gateways.states.values():
                for entry in state.all_entries():
                    entry.attached.clear()
        return memo.gateways

    def _pieces(self, gateways: Gateways) -> list[Piece]:
        """One of each route that has a parent of ours, in order of age."""
        view, memo = self.view, self.memo
        flaws, services = view.store.flaws, view.store.table(Service)
        found: list[Piece] = []
        kinds = 0
        for type_ in (HTTPRoute, GRPCRoute, TLSRoute, TCPRoute):
            name = type_.__name__
            before, after = memo.routes.get(name, {}), {}
            routes: Mapping[tuple[str, str], RouteObject] = view.store.table(type_)
            for key, route in routes.items():
                flaw = flaws.get(Ref(name, *key)) if flaws else None
                piece = before.get(key)
                if (
                    piece is None
                    or piece.route is not route
                    or piece.flaws is not flaw
                    or not (self.is_same or all(services.get(each) is known for each, known in piece.services.items()))
                ):
                    view.asked = {}
                    attachments = attach(view, gateways, route)
                    wished: list[Claim] = [(each.entries, each.refused) for each in attachments]
                    piece = Piece(route, flaw, route.age, attachments, wished, view.asked)
                    view.asked = {}
                after[key] = piece
                if piece.attachments:
                    found.append(piece)
            memo.routes[name] = after
            kinds += bool(after) and type_ in (HTTPRoute, GRPCRoute)
        found.sort(key=attrgetter("age"))
        if kinds == 2 or memo.is_shared:
            # Which of two has a host depends on all the others.
            sharing, memo.is_shared = Sharing(), kinds == 2
            for piece in found:
                for attachment, (entries, refused) in zip(piece.attachments, piece.wished, strict=True):
                    attachment.entries, attachment.refused = entries, refused
                    sharing.claim(piece.route, attachment)
                claimed: list[Claim] = [(each.entries, each.refused) for each in piece.attachments]
                if piece.claimed != claimed:
                    piece.claimed, piece.judged = claimed, None
        return found

    def _keep_pieces(self, gateways: Gateways, pieces: list[Piece]) -> None:
        led: Led = {}
        for piece in pieces:
            judged = piece.judged
            if judged is None:
                judged = self._work_out(gateways, piece)
            else:
                led.update(piece.led)
                self.backends.used_again(judged.ref, piece.used)
            self.judged.append(judged)
            for route, origin in piece.kept:
                self._keep(route, origin)
            if piece.routed:
                self.routed |= piece.routed
        self.backends.again(led)

    def _work_out(self, gateways: Gateways, piece: Piece) -> Judged:
        """What a route comes to with these attachments, and what it asks for on the way."""
        view, backends = self.view, self.backends
        piece.kept, piece.routed, piece.led, piece.used = [], set(), {}, []
        view.asked, backends.led, backends.used = piece.services, piece.led, piece.used
        judged = piece.judged = self._route(gateways, piece)
        # What is asked for from here on is not for this route.
        view.asked, backends.led, backends.used = {}, {}, []
        return judged

    def _listeners(self, gateways: Gateways, ingresses: Ingresses) -> list[Listener]:
        """Of Gateways first: where an Ingress or east-west listener would be one of theirs, theirs serves its routes too."""
        found = {(each.port, each.hostname): each for each in gateways.listeners}
        ports = {each.port: each.protocol for each in gateways.listeners}
        renamed: dict[str, str] = {}
        for each in (*ingresses.listeners, *east_west_listeners(self.view.options)):
            known = found.get((each.port, each.hostname))
            if known is not None and known.protocol == each.protocol:
                renamed[each.name] = known.name
                if each.tls is not None and known.tls is not None:
                    certificates = tuple(dict.fromkeys((*known.tls.certificates, *each.tls.certificates)))
                    tls = msgspec.structs.replace(known.tls, certificates=certificates)
                    found[each.port, each.hostname] = msgspec.structs.replace(known, tls=tls)
            elif ports.setdefault(each.port, each.protocol) == each.protocol:
                found[each.port, each.hostname] = each
        if renamed:
            self.routes = [self._elsewhere(each, renamed) if renamed.keys() & each.listeners else each for each in self.routes]
        return list(found.values())

    def _elsewhere(self, route: Route, renamed: dict[str, str]) -> Route:
        """The route on the listeners that stand in the place of its own."""
        listeners = tuple(renamed.get(name, name) for name in route.listeners)
        known = self.memo.moved.get(route.name)
        if known is None or known[0] is not route or known[1].listeners != listeners:
            known = self.memo.moved[route.name] = (route, msgspec.structs.replace(route, listeners=listeners))
        return known[1]

    # --- routes ---

    def _route(self, gateways: Gateways, piece: Piece) -> Judged:
        """Works out one route: its rules for each way in which its backends are spoken to, and the listeners of each."""
        route, attachments = piece.route, piece.attachments
        uses: dict[Use, list[str]] = {}
        services: list[tuple[ParentRef, Service]] = []
        kind = type(route).__name__
        for attachment in attachments:
            if attachment.service is not None:
                services.append((attachment.parent, attachment.service))
            for entry in attachment.entries:
                state = gateways.states[entry.gateway]
                is_clear = entry.spec.protocol == "TLS" and entry.tls is not None
                use = Use(kind, is_clear=is_clear)
                if state.pair is not None:
                    use = Use(kind, state.pair, f"{entry.gateway.namespace}/{entry.gateway.name}", is_clear)
                names = uses.setdefault(use, [])
                if entry.name and entry.name not in names:
                    names.append(entry.name)
        outcome = Outcome()
        bad_hosts: list[Finding] = []
        for number, name in enumerate(() if isinstance(route, TCPRoute) else route.spec.hostnames):
            if flaw := hostname_flaw(name):
                bad_hosts.append(Finding(("spec", "hostnames", number), flaw))
        made = {use: self._translate(route, use, outcome if not number else Outcome()) for number, use in enumerate(uses)}
        if not made:
            # Nothing takes it; its references are judged all the same.
            made[Use(kind)] = self._translate(route, Use(kind), outcome)
        outcome.findings += bad_hosts
        judged = Judged(route, route.ref, attachments, outcome, is_hostless=bool(bad_hosts))
        if bad_hosts:
            return judged
        origin = Origin(route.ref, tuple(outcome.origins))
        for number, (use, names) in enumerate(sorted(uses.items(), key=lambda item: (item[0].owner, item[0].is_clear))):
            if names:
                found = made[use]
                name = _numbered(found.name, number)
                piece.kept.append((msgspec.structs.replace(found, name=name, listeners=tuple(names)), origin))
        if services and Use(kind) not in made:
            made[Use(kind)] = self._translate(route, Use(kind), Outcome())
        for parent, service in services:
            self._keep_for_service(piece, parent, service, made[Use(kind)], origin)
        return judged

    def _keep_for_service(self, piece: Piece, parent: ParentRef, service: Service, plain: Route, origin: Origin) -> None:
        names = listeners_for(service, self.view.options, parent.port)
        piece.routed |= {(service.ref, name) for name in names}
        hosts = service_hosts(service, self.view.options)
        name = f"{plain.name}:{service.ref.path()}" + (f":{parent.port}" if parent.port else "")
        if names and isinstance(plain, HTTPRouteOfFile | GRPCRouteOfFile):
            piece.kept.append((msgspec.structs.replace(plain, name=name, listeners=names, hostnames=hosts), origin))

    def _translate(self, route: RouteObject, use: Use, outcome: Outcome) -> Route:
        resolve: Resolve = lambda ref: self.backends.resolve(route.ref, ref, use)  # noqa: E731
        name, created = route.ref.path(), route.metadata.creation_timestamp or ""
        flaws = self.view.store.flaws.get(route.ref, ())
        if isinstance(route, HTTPRoute):
            rules = route_rules(route.spec.rules, flaws, resolve, outcome)
            return HTTPRouteOfFile(name=name, created=created, hostnames=hostnames_of(route), rules=rules)
        if isinstance(route, GRPCRoute):
            calls = route_rules(route.spec.rules, flaws, resolve, outcome)
            return GRPCRouteOfFile(name=name, created=created, hostnames=hostnames_of(route), rules=calls)
        backends = tuple(ref for rule in route.spec.rules for ref in tunnel_rule(rule, resolve, outcome))
        outcome.origins.append(("spec", "rules", 0))
        if isinstance(route, TLSRoute):
            return TLSRouteOfFile(
                name=name, created=created, hostnames=hostnames_of(route), rules=(TLSRouteRule(backend_refs=backends),)
            )
        return TCPRouteOfFile(name=name, created=created, rules=(TCPRouteRule(backend_refs=backends),))

    def _keep(self, route: Route, origin: Origin) -> None:
        self.routes.append(route)
        self.origins[route.name] = origin

    # --- the rest ---

    def _broken(self) -> list[tuple[Ref, tuple[str | int, ...], Problem]]:
        """Objects that could not be decoded."""
        places = []
        for ref, broken in self.view.store.broken.items():
            for finding in broken.findings:
                problem = Problem(
                    severity="error", source=ref.text(), key=key_text(finding.path), message=f"{finding.message}; it is left out"
                )
                places.append((ref, finding.path, problem))
        return places


def _numbered(name: str, number: int) -> str:
    return f"{name}:{number}" if number else name


def config_texts(store: Store, options: Options) -> tuple[tuple[Ref, str, str], ...]:
    """Translation.texts, without the rest of it."""
    if not options.config_maps:
        return ()
    selector = parse_selector(options.config_maps)
    return tuple(
        (each.ref, key, text)
        for each in sorted(store.all(ConfigMap), key=lambda each: each.age)
        if selector.takes(each.labels)
        for key, text in sorted((each.data or {}).items())
        if key.lower().endswith((".yaml", ".yml", ".json"))
    )
