"""Ingresses -> routes on two listeners of their own, one in the clear and one with every certificate that an Ingress names.

A wildcard host of an Ingress stands for one label only, unlike one of Gateway API; a condition on the host keeps it so.
Nothing of an annotation is read but the class: what other controllers make of theirs is for `isthmus import ingress`.
"""

from dataclasses import dataclass, field

from gateway.model.check_route import check_rule
from gateway.model.listener import Listener
from gateway.model.names import hostname_flaw, normal_hostname
from gateway.model.problem import Path, key_text
from gateway.model.route import HeaderMatch, HTTPBackendRef, HTTPRouteMatch, HTTPRouteRule, PathMatch
from gateway.model.route import HTTPRoute as HTTPRouteOfFile
from gateway.model.tls import Certificate, ListenerTLS
from gateway.sources.kubernetes.backends import Backends, Found, Use
from gateway.sources.kubernetes.gateway import ObjectRef
from gateway.sources.kubernetes.ingress import CLASS_ANNOTATION, Ingress, IngressBackend, IngressClass, IngressPath
from gateway.sources.kubernetes.meta import Ref
from gateway.sources.kubernetes.pairs import Refused, find_pair
from gateway.sources.kubernetes.view import Origin, View

CLEAR, ENDS_TLS = "Ingress/http", "Ingress/https"


@dataclass(slots=True)
class Ingresses:
    """What all Ingresses of ours come to."""

    listeners: list[Listener] = field(default_factory=list)
    routes: list[tuple[HTTPRouteOfFile, Origin]] = field(default_factory=list)
    served: list[Ref] = field(default_factory=list)
    flaws: list[tuple[Ref, Path, str]] = field(default_factory=list)


def read_ingresses(view: View, backends: Backends) -> Ingresses:
    """All of them, the oldest first."""
    found = Ingresses()
    certificates: dict[Certificate, None] = {}
    default_owner: Ref | None = None
    for ingress in sorted(view.store.all(Ingress), key=lambda each: each.age):
        if not is_ours(view, ingress):
            continue
        found.served.append(ingress.ref)
        _read_tls(view, ingress, certificates, found)
        rules = _Rules(view, backends, ingress, found)
        for number, rule in enumerate(ingress.spec.rules):
            path: Path = ("spec", "rules", number)
            if rule.host and (flaw := hostname_flaw(rule.host)):
                found.flaws.append((ingress.ref, (*path, "host"), flaw))
                continue
            for place, each in enumerate(rule.http.paths if rule.http else ()):
                rules.add(normal_hostname(rule.host), each, (*path, "http", "paths", place))
            if not (rule.http and rule.http.paths) and ingress.spec.default_backend is not None:
                rules.add_default(normal_hostname(rule.host), ingress.spec.default_backend)
        if ingress.spec.default_backend is not None:
            if default_owner is None:
                default_owner = ingress.ref
                rules.add_default("", ingress.spec.default_backend)
            else:
                message = f"what no rule takes goes to the default backend of {default_owner.text()} already"
                found.flaws.append((ingress.ref, ("spec", "defaultBackend"), message))
        found.routes += rules.routes()
    if found.served:
        options = view.options
        if options.ingress_port not in options.taken:
            found.listeners.append(Listener(name=CLEAR, port=options.ingress_port))
        if certificates and options.ingress_tls_port not in options.taken:
            tls = ListenerTLS(certificates=tuple(certificates))
            found.listeners.append(Listener(name=ENDS_TLS, port=options.ingress_tls_port, protocol="HTTPS", tls=tls))
    return found


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


def _read_tls(view: View, ingress: Ingress, certificates: dict[Certificate, None], found: Ingresses) -> None:
    for number, tls in enumerate(ingress.spec.tls):
        if not tls.secret_name:
            continue
        pair = find_pair(view, ingress.ref, ObjectRef(name=tls.secret_name), "InvalidCertificateRef", "networking.k8s.io")
        if isinstance(pair, Refused):
            found.flaws.append((ingress.ref, ("spec", "tls", number, "secretName"), pair.message))
        else:
            certificates.setdefault(Certificate(pair.cert, pair.key))


class _Rules:
    """The rules of one Ingress, by host."""

    def __init__(self, view: View, backends: Backends, ingress: Ingress, found: Ingresses) -> None:
        self._view = view
        self._backends = backends
        self._ingress = ingress
        self._found = found
        self._by_host: dict[str, list[tuple[HTTPRouteRule, Path]]] = {}

    def add(self, host: str, path: IngressPath, at: Path) -> None:
        value = path.path or "/"
        match = PathMatch("Exact" if path.path_type == "Exact" else "PathPrefix", value)
        rule = HTTPRouteRule(matches=(self._match(host, match),), backend_refs=self._backend(path.backend, (*at, "backend")))
        flaw = next((each for each in check_rule(rule, ()) if each.severity == "error"), None)
        if flaw is not None:
            self._found.flaws.append((self._ingress.ref, (*at, "path"), flaw.message))
            return
        self._by_host.setdefault(host, []).append((rule, at))

    def add_default(self, host: str, backend: IngressBackend) -> None:
        at: Path = ("spec", "defaultBackend")
        rule = HTTPRouteRule(matches=(self._match(host, PathMatch()),), backend_refs=self._backend(backend, at))
        self._by_host.setdefault(host, []).append((rule, at))

    def routes(self) -> list[tuple[HTTPRouteOfFile, Origin]]:
        ref = self._ingress.ref
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
        self._found.flaws.append((self._ingress.ref, at, f"{found.message}; its requests are answered 500"))
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
            self._ingress.ref, HTTPBackendRef(name=wanted.name, port=number or None), Use(), "networking.k8s.io"
        )
