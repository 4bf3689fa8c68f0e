"""Which listeners a route attaches to, for each of its parentRefs, and why not to others."""

from dataclasses import dataclass, field

from gateway.model.names import intersect_hostnames, normal_hostname
from gateway.model.route import ParentRef
from gateway.sources.kubernetes.grpc_route import GRPCRoute
from gateway.sources.kubernetes.http_route import HTTPRoute
from gateway.sources.kubernetes.listeners import Entry, Gateways, is_namespace_allowed
from gateway.sources.kubernetes.meta import Ref
from gateway.sources.kubernetes.pairs import Refused
from gateway.sources.kubernetes.service import Service
from gateway.sources.kubernetes.tcp_route import TCPRoute
from gateway.sources.kubernetes.tls_route import TLSRoute
from gateway.sources.kubernetes.view import View

RouteObject = HTTPRoute | GRPCRoute | TLSRoute | TCPRoute


@dataclass(slots=True)
class Attachment:
    """A parentRef and what it came to."""

    parent: ParentRef
    refused: Refused | None = None
    entries: list[Entry] = field(default_factory=list)
    """Listeners that it attaches to."""
    service: Service | None = None
    """Or the Service whose traffic it routes."""
    gateway: Ref | None = None
    """The Gateway behind the parent, for policies."""


def hostnames_of(route: RouteObject) -> tuple[str, ...]:
    """In normal form; a TCPRoute has none."""
    return () if isinstance(route, TCPRoute) else tuple(normal_hostname(name) for name in route.spec.hostnames)


def attach(view: View, gateways: Gateways, route: RouteObject) -> list[Attachment]:
    """One for each parentRef that is ours to answer. Attaching is not yet being accepted: the rules may be wrong."""
    found = []
    for parent in route.spec.parent_refs:
        attachment = _parent(view, gateways, route, parent)
        if attachment is not None:
            found.append(attachment)
    return found


def _parent(view: View, gateways: Gateways, route: RouteObject, parent: ParentRef) -> Attachment | None:
    target = Ref(parent.kind, parent.namespace or route.metadata.namespace, parent.name)
    match parent.group, parent.kind:
        case "gateway.networking.k8s.io", "Gateway":
            state = gateways.states.get(target)
            if state is None:
                return None
            found = Attachment(parent, gateway=target)
            _choose(view, route, state.entries, found)
            return found
        case "gateway.networking.k8s.io", "ListenerSet":
            listener_set = gateways.sets.get(target)
            if listener_set is None:
                return None
            gateway = listener_set.entries[0].gateway if listener_set.entries else None
            found = Attachment(parent, gateway=gateway)
            if listener_set.refused is not None:
                found.refused = Refused("NoMatchingParent", f"{target.text()} is not accepted: {listener_set.refused.message}")
            else:
                _choose(view, route, listener_set.entries, found)
            return found
        case "", "Service":
            return _service(view, route, parent, target)
    return None


def _service(view: View, route: RouteObject, parent: ParentRef, target: Ref) -> Attachment | None:
    """A route of a Service: it stands in the place of what the Service's name leads to on the east-west listener."""
    if not view.options.east_west_ports:
        return None
    service = view.service(target.namespace, target.name)
    if service is None:
        return Attachment(parent, Refused("NoMatchingParent", f"there is no {target.text()}"))
    if not isinstance(route, HTTPRoute | GRPCRoute):
        return Attachment(parent, Refused("NotAllowedByListeners", f"a {type(route).__name__} cannot have a Service as parent"))
    if target.namespace != route.metadata.namespace:
        message = f"{target.text()} is of another namespace; a route for one's own clients only cannot be told apart by a gateway"
        return Attachment(parent, Refused("NotAllowedByListeners", message))
    if service.is_external:
        return Attachment(parent, Refused("NoMatchingParent", f"{target.text()} is of type ExternalName"))
    if parent.port is not None and service.port(parent.port) is None:
        return Attachment(parent, Refused("NoMatchingParent", f"{target.text()} has no TCP port {parent.port}"))
    return Attachment(parent, service=service)


def _choose(view: View, route: RouteObject, entries: list[Entry], found: Attachment) -> None:
    parent, kind = found.parent, type(route).__name__
    named = [each for each in entries if parent.section_name in (None, each.spec.name) and parent.port in (None, each.spec.port)]
    if not named:
        wanted = " and ".join(
            text
            for text in (
                f"name '{parent.section_name}'" if parent.section_name else "",
                f"port {parent.port}" if parent.port else "",
            )
            if text
        )
        found.refused = Refused("NoMatchingParent", f"there is no listener of {wanted}" if wanted else "there is no listener")
        return
    # A listener whose kinds are all wrong is for nobody.
    open_ = [each for each in named if each.kinds]
    if not open_:
        found.refused = Refused("NoMatchingParent", "no listener there takes any kind of route")
        return
    fitting = [each for each in open_ if kind in each.kinds]
    if not fitting:
        found.refused = Refused("NotAllowedByListeners", f"no listener there takes a {kind}")
        return
    asking = route.metadata.namespace
    allowed = [
        each
        for each in fitting
        if is_namespace_allowed(view, each.spec.allowed_routes.namespaces, each.owner.namespace, asking, "Same")
    ]
    if not allowed:
        found.refused = Refused("NotAllowedByListeners", f"no listener there allows routes of namespace '{asking}'")
        return
    names = hostnames_of(route) or ("",)
    found.entries = [
        each
        for each in allowed
        if each.spec.protocol == "TCP" or any(intersect_hostnames(each.hostname, name) is not None for name in names)
    ]
    if not found.entries:
        found.refused = Refused("NoMatchingListenerHostname", "no listener there takes any of these hosts")


class Sharing:
    """HTTPRoutes and GRPCRoutes of one listener must not share hosts: the older has them."""

    def __init__(self) -> None:
        self._hosts: dict[tuple[int, str], list[tuple[str, Ref]]] = {}

    def claim(self, route: RouteObject, attachment: Attachment) -> None:
        """Takes the entries away that a route of the other kind has the hosts of. Routes come in order of age."""
        kind = type(route).__name__
        if kind not in ("HTTPRoute", "GRPCRoute") or not attachment.entries:
            return
        other = "GRPCRoute" if kind == "HTTPRoute" else "HTTPRoute"
        names = hostnames_of(route) or ("",)
        kept = []
        owner: Ref | None = None
        for entry in attachment.entries:
            shared = {both for name in names if (both := intersect_hostnames(entry.hostname, name)) is not None}
            rivals = self._hosts.get((id(entry), other), ())
            rival = next((ref for host, ref in rivals if any(intersect_hostnames(host, own) is not None for own in shared)), None)
            if rival is not None:
                owner = rival
                continue
            kept.append(entry)
            self._hosts.setdefault((id(entry), kind), []).extend((host, route.ref) for host in shared)
        attachment.entries = kept
        if not kept and owner is not None:
            attachment.refused = Refused("Conflicted", f"{owner.text()} is older and has these hosts; the two kinds do not mix")
