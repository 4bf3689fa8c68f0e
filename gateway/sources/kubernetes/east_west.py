"""East-west traffic: listeners on which every Service is reachable by its name, without any route.

A request for http://SERVICE.NAMESPACE:PORT/ goes to the Service's port of that number where there is one, and otherwise to the port
that speaks HTTP most likely. HTTPRoutes and GRPCRoutes whose parent is a Service stand in the place of that.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from operator import itemgetter

from gateway.model.listener import Listener
from gateway.model.route import HTTPBackendRef, HTTPRouteRule
from gateway.model.route import HTTPRoute as HTTPRouteOfFile
from gateway.sources.kubernetes.backends import IN_TLS, Backends, Found, Use
from gateway.sources.kubernetes.meta import Ref
from gateway.sources.kubernetes.options import Options
from gateway.sources.kubernetes.service import Service, ServicePort
from gateway.sources.kubernetes.view import Origin, View


@dataclass(slots=True)
class NamePiece:
    """The route of a Service's names, and of what it was made."""

    service: Service
    listeners: tuple[str, ...]
    target: str
    route: HTTPRouteOfFile


def listener_name(port: int) -> str:
    return f"east-west/{port}"


def east_west_listeners(options: Options) -> tuple[Listener, ...]:
    """One for each port."""
    return tuple(Listener(name=listener_name(port), port=port) for port in options.east_west_ports if port not in options.taken)


def service_hosts(service: Service, options: Options) -> tuple[str, ...]:
    """The names of a Service."""
    base = f"{service.metadata.name}.{service.metadata.namespace}"
    return (base, f"{base}.svc", f"{base}.svc.{options.cluster_domain}")


def port_for(service: Service, number: int) -> ServicePort | None:
    """The port that a request on this listener goes to."""
    exact = service.port(number)
    if exact is not None:
        return exact
    ports = [each for each in service.spec.ports if each.protocol == "TCP"]
    if len(ports) < 2:
        return ports[0] if ports else None
    clear = [each for each in ports if (each.app_protocol or "") not in IN_TLS] or ports
    return next((each for each in clear if each.name == "http" or each.name.startswith("http-") or each.port == 80), clear[0])


def listeners_for(service: Service, options: Options, port: int | None = None) -> tuple[str, ...]:
    """Names of the listeners on which requests go to this port of the Service, or to any."""
    found = []
    for number in options.east_west_ports:
        chosen = port_for(service, number)
        if chosen is not None and port in (None, chosen.port):
            found.append(listener_name(number))
    return tuple(found)


def service_routes(
    view: View, backends: Backends, routed: Collection[tuple[Ref, str]], pieces: dict[str, NamePiece]
) -> Iterator[tuple[HTTPRouteOfFile, Origin]]:
    """What Services without routes of their own are reached by.

    routed: (Service, listener) that a route has. pieces: of the translation before, by name of the route; brought up to date.
    """
    options = view.options
    if not options.east_west_ports:
        return
    for _, service in sorted(view.store.table(Service).items(), key=itemgetter(0)):
        if service.is_external:
            continue
        by_port: dict[int, list[str]] = {}
        for number in options.east_west_ports:
            chosen = port_for(service, number)
            name = listener_name(number)
            if chosen is not None and (service.ref, name) not in routed:
                by_port.setdefault(chosen.port, []).append(name)
        for port, names in by_port.items():
            spec = service.port(port)
            found = backends.cluster(service, spec, Use()) if spec is not None else None
            target = found.cluster if isinstance(found, Found) else f"{service.ref.path()}:{port}"
            name, listeners = f"{service.ref.path()}:{port}", tuple(names)
            piece = pieces.get(name)
            if piece is None or (piece.service, piece.listeners, piece.target) != (service, listeners, target):
                route = HTTPRouteOfFile(
                    name=name,
                    listeners=listeners,
                    hostnames=service_hosts(service, options),
                    created=service.metadata.creation_timestamp or "",
                    rules=(HTTPRouteRule(backend_refs=(HTTPBackendRef(name=target),)),),
                )
                piece = pieces[name] = NamePiece(service, listeners, target, route)
            yield piece.route, Origin(service.ref, (("spec",),))
