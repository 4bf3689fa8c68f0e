"""Ingresses -> routes on two listeners of their own, one in the clear and one with every certificate that an Ingress names.

A wildcard host of an Ingress stands for one label only, unlike one of Gateway API; a condition on the host keeps it so.
Nothing of an annotation is read but the class: what other controllers make of theirs is for `isthmus import ingress`.
"""

from dataclasses import dataclass, field
from operator import attrgetter

from gateway.model.check_route import check_rule
from gateway.model.listener import Listener
from gateway.model.names import hostname_flaw, normal_hostname
from gateway.model.problem import Path, key_text
from gateway.model.route import HeaderMatch, HTTPBackendRef, HTTPRouteMatch, HTTPRouteRule, PathMatch
from gateway.model.route import HTTPRoute as HTTPRouteOfFile
from gateway.model.tls import Certificate, ListenerTLS
from gateway.sources.kubernetes.backends import Backends, Found, Led, Use
from gateway.sources.kubernetes.gateway import ObjectRef
from gateway.sources.kubernetes.ingress import CLASS_ANNOTATION, Ingress, IngressBackend, IngressClass, IngressPath
from gateway.sources.kubernetes.meta import Ref
from gateway.sources.kubernetes.pairs import Refused, find_pair
from gateway.sources.kubernetes.service import Service
from gateway.sources.kubernetes.view import Origin, View

CLEAR, ENDS_TLS = "Ingress/http", "Ingress/https"


@dataclass(slots=True)
class Ingresses:
    """What all Ingresses of ours come to."""

    listeners: list[Listener] = field(default_factory=list)
    routes: list[tuple[HTTPRouteOfFile, Origin]] = field(default_factory=list)
    served: list[Ref] = field(default_factory=list)
    flaws: list[tuple[Ref, Path, str]] = field(default_factory=list)


@dataclass(slots=True)
class IngressPiece:
    """What one Ingress came to, and of what."""

    ingress: Ingress
    ref: Ref
    age: tuple[str, str, str]
    classes: object
    """Mark of the IngressClasses."""
    is_ours: bool
    default_owner: Ref | None = None
    """Whose default backend takes what no rule does, if this one has one."""
    is_read: bool = False
    services: dict[tuple[str, str], Service | None] = field(default_factory=dict)
    """Every Service that was asked for, there or not."""
    routes: list[tuple[HTTPRouteOfFile, Origin]] = field(default_factory=list)
    flaws: list[tuple[Ref, Path, str]] = field(default_factory=list)
    certificates: dict[Certificate, None] = field(default_factory=dict)
    led: Led = field(default_factory=dict)
    used: list[tuple[str, str]] = field(default_factory=list)
    pems: dict[str, bytes] = field(default_factory=dict, repr=False)
    wanted: set[Ref] = field(default_factory=set)


Pieces = dict[tuple[str, str], IngressPiece]


def read_ingresses(view: View, backends: Backends, pieces: Pieces, *, is_same: bool) -> Ingresses:
    """All of them, the oldest first.

    pieces: of the translation before, by (namespace, name); brought up to date. is_same: whether the Services are those of then.
    """
    found = Ingresses()
    certificates: dict[Certificate, None] = {}
    default_owner: Ref | None = None
    led: Led = {}
    for piece in _pieces(view, pieces, is_same=is_same):
        owner = None
        if piece.ingress.spec.default_backend is not None:
            owner = default_owner = default_owner or piece.ref
        if not piece.is_read or piece.default_owner != owner:
            _read(view, backends, piece, owner)
        else:
            led.update(piece.led)
            backends.used_again(piece.ref, piece.used)
        view.pems.update(piece.pems)
        view.wanted |= piece.wanted
        certificates.update(piece.certificates)
        found.served.append(piece.ref)
        found.routes += piece.routes
        found.flaws += piece.flaws
    backends.again(led)
    if found.served:
        options = view.options
        if options.ingress_port not in options.taken:
            found.listeners.append(Listener(name=CLEAR, port=options.ingress_port))
        if certificates and options.ingress_tls_port not in options.taken:
            tls = ListenerTLS(certificates=tuple(certificates))
            found.listeners.append(Listener(name=ENDS_TLS, port=options.ingress_tls_port, protocol="HTTPS", tls=tls))
    return found


def _pieces(view: View, pieces: Pieces, *, is_same: bool) -> list[IngressPiece]:
    """Those of our Ingresses, in order of age; what has changed is to be read again."""
    before = pieces.copy()
    pieces.clear()
    classes, services = view.store.mark(("IngressClass",)), view.store.table(Service)
    for key, ingress in view.store.table(Ingress).items():
        piece = before.get(key)
        if (
            piece is None
            or piece.ingress is not ingress
            or piece.classes != classes
            or not (is_same or all(services.get(each) is known for each, known in piece.services.items()))
        ):
            piece = IngressPiece(ingress, ingress.ref, ingress.age, classes, is_ours(view, ingress))
        pieces[key] = piece
    return sorted((each for each in pieces.values() if each.is_ours), key=attrgetter("age"))


def _read(view: View, backends: Backends, piece: IngressPiece, default_owner: Ref | None) -> None:
    """Works out one Ingress, and what it asks for on the way."""
    ingress = piece.ingress
    piece.is_read, piece.default_owner = True, default_owner
    piece.services, piece.flaws, piece.certificates, piece.led, piece.used = {}, [], {}, {}, []
    view.asked, backends.led, backends.used = piece.services, piece.led, piece.used
    pems, wanted, view.pems, view.wanted = view.pems, view.wanted, {}, set()
    _read_tls(view, piece)
    rules = _Rules(view, backends, piece)
    for number, rule in enumerate(ingress.spec.rules):
        path: Path = ("spec", "rules", number)
        if rule.host and (flaw := hostname_flaw(rule.host)):
            piece.flaws.append((piece.ref, (*path, "host"), flaw))
            continue
        for place, each in enumerate(rule.http.paths if rule.http else ()):
            rules.add(normal_hostname(rule.host), each, (*path, "http", "paths", place))
        if not (rule.http and rule.http.paths) and ingress.spec.default_backend is not None:
            rules.add_default(normal_hostname(rule.host), ingress.spec.default_backend)
    if ingress.spec.default_backend is not None:
        if default_owner == piece.ref:
            rules.add_default("", ingress.spec.default_backend)
        elif default_owner is not None:
            message = f"what no rule takes goes to the default backend of {default_owner.text()} already"
            piece.flaws.append((piece.ref, ("spec", "defaultBackend"), message))
    piece.routes = rules.routes()
    piece.pems, piece.wanted, view.pems, view.wanted = view.pems, view.wanted, pems, wanted
    # What is asked for from here on is not for this Ingress.
    view.asked, backends.led, backends.used = {}, {}, []


def is_ours(view: View, ingress: Ingress) -> bool:
    """By class name, by the old annotation, or because ours is the default class."""
    name = ingress.spec.ingress_class_name or ingress.annotations.get(CLASS_ANNOTATION)
    if name:
        found = view.store.get(IngressClass, "", name)
        if found is not None:
            return found.spec.controller == view.options.controller_name
        return name == view.options.ingress_class
    classes = [each for each in view.store.all(IngressClass) if each.is_default]
    return any(each.spec.controller == view.options.controller_name for each in classes)


def _read_tls(view: View, piece: IngressPiece) -> None:
    for number, tls in enumerate(piece.ingress.spec.tls):
        if not tls.secret_name:
            continue
        pair = find_pair(view, piece.ref, ObjectRef(name=tls.secret_name), "InvalidCertificateRef", "networking.k8s.io")
        if isinstance(pair, Refused):
            piece.flaws.append((piece.ref, ("spec", "tls", number, "secretName"), pair.message))
        else:
            piece.certificates.setdefault(Certificate(pair.cert, pair.key))


class _Rules:
    """The rules of one Ingress, by host."""

    def __init__(self, view: View, backends: Backends, piece: IngressPiece) -> None:
        self._view = view
        self._backends = backends
        self._ingress = piece.ingress
        self._ref = piece.ref
        self._flaws = piece.flaws
        self._by_host: dict[str, list[tuple[HTTPRouteRule, Path]]] = {}

    def add(self, host: str, path: IngressPath, at: Path) -> None:
        value = path.path or "/"
        match = PathMatch("Exact" if path.path_type == "Exact" else "PathPrefix", value)
        rule = HTTPRouteRule(matches=(self._match(host, match),), backend_refs=self._backend(path.backend, (*at, "backend")))
        flaw = next((each for each in check_rule(rule, ()) if each.severity == "error"), None)
        if flaw is not None:
            self._flaws.append((self._ref, (*at, "path"), flaw.message))
            return
        self._by_host.setdefault(host, []).append((rule, at))

    def add_default(self, host: str, backend: IngressBackend) -> None:
        at: Path = ("spec", "defaultBackend")
        rule = HTTPRouteRule(matches=(self._match(host, PathMatch()),), backend_refs=self._backend(backend, at))
        self._by_host.setdefault(host, []).append((rule, at))

    def routes(self) -> list[tuple[HTTPRouteOfFile, Origin]]:
        ref = self._ref
        routes = []
        for host, rules in self._by_host.items():
            route = HTTPRouteOfFile(
                name=f"{ref.path()}/{host.replace('*', '_')}" if host else ref.path(),
                hostnames=(host,) if host else (),
                listeners=(CLEAR, ENDS_TLS),
                created=self._ingress.metadata.creation_timestamp or "",
                rules=tuple(rule for rule, _ in rules),
            )
            routes.append((route, Origin(ref, tuple(path for _, path in rules))))
        return routes

    @staticmethod
    def _match(host: str, path: PathMatch) -> HTTPRouteMatch:
        if not host.startswith("*."):
            return HTTPRouteMatch(path=path)
        suffix = host[1:].replace(".", "[.]")
        return HTTPRouteMatch(
            path=path, headers=(HeaderMatch("host", f"(?i)[^.:]+{suffix}(?:[.])?(?::[0-9]+)?", "RegularExpression"),)
        )

    def _backend(self, backend: IngressBackend, at: Path) -> tuple[HTTPBackendRef, ...]:
        found = self._resolve(backend)
        if isinstance(found, Found):
            return (HTTPBackendRef(name=found.cluster),)
        self._flaws.append((self._ref, at, f"{found.message}; its requests are answered 500"))
        return (HTTPBackendRef(name=f"{found.reason}: {key_text(at)}"),)

    def _resolve(self, backend: IngressBackend) -> Found | Refused:
        wanted = backend.service
        if wanted is None:
            kind = backend.resource.kind if backend.resource else "nothing"
            return Refused("InvalidKind", f"a backend is a Service here, not {kind}")
        number = wanted.port.number
        if wanted.port.name:
            service = self._view.service(self._ingress.metadata.namespace, wanted.name)
            ports = service.spec.ports if service is not None else ()
            named = next((each for each in ports if each.name == wanted.port.name), None)
            if service is not None and named is None:
                return Refused("BackendNotFound", f"{service.ref.text()} has no port '{wanted.port.name}'")
            number = named.port if named is not None else 1
        return self._backends.resolve(
            self._ref, HTTPBackendRef(name=wanted.name, port=number or None), Use(), "networking.k8s.io"
        )
