"""Objects -> what a configuration is made of, and what is said back about each object: a pure function of store and options.

The result is parts of a Config in the terms of the file language (clusters in the place of Services, names of files in the place of
Secrets, whose contents stand in `pems`), so that to `build` and everything behind it all configurations are alike.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
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
from gateway.sources.kubernetes.attach import Attachment, RouteObject, Sharing, attach, hostnames_of
from gateway.sources.kubernetes.backends import Backends, Use
from gateway.sources.kubernetes.config_map import ConfigMap
from gateway.sources.kubernetes.east_west import east_west_listeners, listeners_for, service_hosts, service_routes
from gateway.sources.kubernetes.endpoints import endpoints_of
from gateway.sources.kubernetes.grpc_route import GRPCRoute
from gateway.sources.kubernetes.http_route import HTTPRoute
from gateway.sources.kubernetes.ingresses import Ingresses, read_ingresses
from gateway.sources.kubernetes.listeners import Gateways, read_gateways
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


def translate(store: Store, options: Options | None = None) -> Translation:
    """All of it. Never raises for what an object says."""
    return _Translator(View(store, options or Options())).run()


def translate_endpoints(store: Store, options: Options, service: Ref) -> dict[str, tuple[EndpointSpec, ...]]:
    """Endpoints of each port of a Service, by the name that its clusters begin with: what changes with an EndpointSlice alone.

    A cluster "Service/NAMESPACE/NAME:PORT" and its variants "…:PORT/h2", "…/tcp", "…/as/…" have the same endpoints.
    """
    view = View(store, options)
    found = view.service(service.namespace, service.name)
    if found is None:
        return {}
    return {f"{service.path()}:{port.port}": endpoints_of(view, found, port) for port in found.spec.ports if port.protocol == "TCP"}


class _Translator:
    """One run."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.backends = Backends(view)
        self.routes: list[Route] = []
        self.origins: dict[str, Origin] = {}
        self.judged: list[Judged] = []
        self.routed: set[tuple[Ref, str]] = set()

    def run(self) -> Translation:
        view = self.view
        gateways = read_gateways(view)
        sharing = Sharing()
        objects: list[RouteObject] = [
            *view.store.all(HTTPRoute), *view.store.all(GRPCRoute), *view.store.all(TLSRoute), *view.store.all(TCPRoute),
        ]  # fmt: skip
        for route in sorted(objects, key=lambda each: each.age):
            attachments = attach(view, gateways, route)
            for attachment in attachments:
                sharing.claim(route, attachment)
            if attachments:
                self.judged.append(self._route(gateways, route, attachments))
        ingresses = read_ingresses(view, self.backends)
        for found, origin in ingresses.routes:
            self._keep(found, origin)
        for found, origin in service_routes(view, self.backends, self.routed):
            self._keep(found, origin)
        statuses, places = statuses_of(view, gateways, self.judged, self.backends, ingresses)
        places += self._broken()
        places.sort(key=lambda each: (each[0], each[2].order()))
        return Translation(
            listeners=tuple(sorted(self._listeners(gateways, ingresses), key=lambda each: each.name)),
            routes=tuple(sorted(self.routes, key=lambda each: each.name)),
            clusters=tuple(self.backends.clusters[name] for name in sorted(self.backends.clusters)),
            statuses={ref: statuses[ref] for ref in sorted(statuses)},
            problems=[problem for _, _, problem in places],
            origins=self.origins,
            pems=view.pems,
            wanted=frozenset(view.wanted),
            texts=tuple(_config_maps(view)),
            places=places,
        )

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
            self.routes = [
                msgspec.structs.replace(each, listeners=tuple(renamed.get(name, name) for name in each.listeners))
                for each in self.routes
            ]
        return list(found.values())

    # --- routes ---

    def _route(self, gateways: Gateways, route: RouteObject, attachments: list[Attachment]) -> Judged:
        """Works out one route: its rules for each way in which its backends are spoken to, and the listeners of each."""
        uses: dict[Use, list[str]] = {}
        services: list[tuple[ParentRef, Service]] = []
        kind = type(route).__name__
        for attachment in attachments:
            if attachment.service is not None:
                services.append((attachment.parent, attachment.service))
            for entry in attachment.entries:
                state = gateways.states[entry.gateway]
                use = Use(kind)
                if state.pair is not None:
                    use = Use(kind, state.pair, f"{entry.gateway.namespace}/{entry.gateway.name}")
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
        judged = Judged(route, attachments, outcome, is_hostless=bool(bad_hosts))
        if bad_hosts:
            return judged
        origin = Origin(route.ref, tuple(outcome.origins))
        for number, (use, names) in enumerate(sorted(uses.items(), key=lambda item: item[0].owner)):
            if names:
                found = made[use]
                self._keep(msgspec.structs.replace(found, name=_numbered(found.name, number), listeners=tuple(names)), origin)
        if services and Use(kind) not in made:
            made[Use(kind)] = self._translate(route, Use(kind), Outcome())
        for parent, service in services:
            self._keep_for_service(parent, service, made[Use(kind)], origin)
        return judged

    def _keep_for_service(self, parent: ParentRef, service: Service, plain: Route, origin: Origin) -> None:
        names = listeners_for(service, self.view.options, parent.port)
        self.routed |= {(service.ref, name) for name in names}
        hosts = service_hosts(service, self.view.options)
        name = f"{plain.name}:{service.ref.path()}" + (f":{parent.port}" if parent.port else "")
        if names and isinstance(plain, HTTPRouteOfFile | GRPCRouteOfFile):
            self._keep(msgspec.structs.replace(plain, name=name, listeners=names, hostnames=hosts), origin)

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


def _config_maps(view: View) -> Iterator[tuple[Ref, str, str]]:
    """The texts of the ConfigMaps that carry configuration."""
    if not view.options.config_maps:
        return
    selector = parse_selector(view.options.config_maps)
    for each in sorted(view.store.all(ConfigMap), key=lambda each: each.age):
        if selector.takes(each.labels):
            for key, text in sorted((each.data or {}).items()):
                if key.lower().endswith((".yaml", ".yml", ".json")):
                    yield each.ref, key, text
