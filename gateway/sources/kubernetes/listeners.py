"""Listeners of Gateways and ListenerSets: which are good, which conflict, and the listeners of the configuration that they become.

All Gateways share one data plane. Listeners of different Gateways that would be one and the same (port, protocol, hostname) are one
listener of the configuration, and routes of each attach to it; `kubernetes.binds` keeps Gateways apart that have addresses of their
own.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from gateway.model.listener import Listener
from gateway.model.names import intersect_hostnames, normal_hostname
from gateway.model.tls import Certificate, ClientCertificate, ListenerTLS
from gateway.sources.kubernetes.gateway import INSECURE, Gateway, GatewayListener, RouteGroupKind, RouteNamespaces
from gateway.sources.kubernetes.gateway_class import GatewayClass
from gateway.sources.kubernetes.listener_set import ListenerSet
from gateway.sources.kubernetes.meta import GATEWAY_GROUP, Ref
from gateway.sources.kubernetes.pairs import KeyFiles, Refused, find_authorities, find_pair
from gateway.sources.kubernetes.view import View

PROTOCOL_KINDS = {
    "HTTP": ("HTTPRoute", "GRPCRoute"),
    "HTTPS": ("HTTPRoute", "GRPCRoute"),
    "TLS": ("TLSRoute",),
    "TCP": ("TCPRoute",),
}
"""Kinds of routes that a protocol can take, and with it the protocols that are served."""

ENDED_KINDS = ("TLSRoute", "TCPRoute")
"""Those of protocol TLS where it ends here."""

CLIENT_MODES: dict[str, Literal["require", "insecureFallback"]] = {
    "AllowValidOnly": "require",
    INSECURE: "insecureFallback",
}
"""What a mode of frontend validation is in the configuration."""

Protocol = Literal["HTTP", "HTTPS", "TLS", "TCP"]


@dataclass(slots=True)
class Entry:
    """A listener on its way: what is said of it, and what becomes of it."""

    owner: Ref
    """The Gateway or ListenerSet that it stands in."""
    gateway: Ref
    spec: GatewayListener
    kinds: tuple[str, ...] = ()
    refused: Refused | None = None
    """Why it is not accepted."""
    conflict: str = ""
    """HostnameConflict or ProtocolConflict."""
    conflict_message: str = ""
    overlap: str = ""
    """Of an HTTPS or TLS listener: another one of its port whose hosts are in part its own."""
    unresolved: Refused | None = None
    """What is wrong with its references. It may be programmed all the same."""
    tls: ListenerTLS | None = None
    is_shut: bool = False
    """Accepted, but without what it needs to answer anybody."""
    bind: int = 0
    name: str = ""
    """Of the listener in the configuration; "" while it is not programmed."""
    attached: set[Ref] = field(default_factory=set)

    @property
    def hostname(self) -> str:
        return normal_hostname(self.spec.hostname or "")

    @property
    def is_accepted(self) -> bool:
        return self.refused is None

    @property
    def is_programmed(self) -> bool:
        return bool(self.name)


@dataclass(slots=True)
class GatewayState:
    """A Gateway of ours and its listeners, those of its ListenerSets included."""

    gateway: Gateway
    entries: list[Entry]
    """Its own."""
    sets: list["SetState"] = field(default_factory=list)
    refused: Refused | None = None
    """Why nothing of it is used, whatever its listeners say."""
    pair: KeyFiles | None = None
    """What is shown to backends."""
    pair_refused: Refused | None = None

    def all_entries(self) -> Iterator[Entry]:
        yield from self.entries
        for each in self.sets:
            yield from each.entries


@dataclass(slots=True)
class SetState:
    """A ListenerSet for a Gateway of ours."""

    set: ListenerSet
    entries: list[Entry]
    refused: Refused | None = None
    """NotAllowed, ParentNotAccepted."""


@dataclass(slots=True)
class Gateways:
    """Every Gateway of ours, in order of age."""

    classes: dict[str, GatewayClass]
    """Those that name our controller."""
    states: dict[Ref, GatewayState]
    sets: dict[Ref, SetState]
    listeners: tuple[Listener, ...]


def read_gateways(view: View) -> Gateways:
    """Works out all Gateways, ListenerSets and the listeners of the configuration."""
    classes = {
        each.metadata.name: each
        for each in view.store.all(GatewayClass)
        if each.spec.controller_name == view.options.controller_name
    }
    usable = {name for name, each in classes.items() if each.spec.parameters_ref is None}
    ours = sorted((each for each in view.store.all(Gateway) if each.spec.gateway_class_name in usable), key=lambda each: each.age)
    states = {each.ref: _read_gateway(view, each) for each in ours}
    sets: dict[Ref, SetState] = {}
    for each in sorted(view.store.all(ListenerSet), key=lambda each: each.age):
        parent = each.spec.parent_ref
        gateway = Ref("Gateway", parent.namespace or each.metadata.namespace, parent.name)
        if (parent.group, parent.kind) == (GATEWAY_GROUP, "Gateway") and gateway in states:
            sets[each.ref] = _read_set(view, each, states[gateway])
    ports = _Ports(view)
    for state in states.values():
        for one in state.all_entries():
            _read_entry(view, one, state.gateway)
        _find_conflicts(state)
        if state.refused is None:
            for one in state.all_entries():
                ports.claim(one)
    return Gateways(classes, states, sets, ports.listeners())


def is_namespace_allowed(view: View, rule: RouteNamespaces, own: str, asking: str, default: str) -> bool:
    """Whether objects of the namespace `asking` may attach to one of the namespace `own`."""
    match rule.source or default:
        case "All":
            return True
        case "Same":
            return own == asking
        case "Selector":
            return rule.selector is not None and rule.selector.takes(view.namespace_labels(asking))
    return False


def _read_gateway(view: View, gateway: Gateway) -> GatewayState:
    state = GatewayState(gateway, [Entry(gateway.ref, gateway.ref, each) for each in gateway.spec.listeners])
    infrastructure = gateway.spec.infrastructure
    if infrastructure is not None and infrastructure.parameters_ref is not None:
        ref = infrastructure.parameters_ref
        state.refused = Refused("InvalidParameters", f"there are no parameters of kind {ref.group}/{ref.kind} here")
    for address in gateway.spec.addresses:
        if address.type not in ("IPAddress", "Hostname"):
            state.refused = Refused("UnsupportedAddress", f"addresses of type {address.type} are not served")
    tls = gateway.spec.tls
    if tls is not None and tls.backend is not None and tls.backend.client_certificate_ref is not None:
        found = find_pair(view, gateway.ref, tls.backend.client_certificate_ref, "InvalidClientCertificateRef")
        if isinstance(found, Refused):
            state.pair_refused = found
        else:
            state.pair = found
    return state


def _read_set(view: View, listener_set: ListenerSet, state: GatewayState) -> SetState:
    found = SetState(listener_set, [])
    allowed = state.gateway.spec.allowed_listeners
    own, asking = state.gateway.metadata.namespace, listener_set.metadata.namespace
    if allowed is None or not is_namespace_allowed(view, allowed.namespaces, own, asking, "None"):
        found.refused = Refused("NotAllowed", f"{state.gateway.ref.text()} allows no ListenerSet of namespace '{asking}'")
    elif state.refused is not None:
        found.refused = Refused("ParentNotAccepted", f"{state.gateway.ref.text()} is not accepted")
    found.entries = [Entry(listener_set.ref, state.gateway.ref, each) for each in listener_set.spec.listeners]
    if found.refused is None:
        state.sets.append(found)
    return found


# --- one listener ---


def _read_entry(view: View, entry: Entry, gateway: Gateway) -> None:
    spec = entry.spec
    entry.bind = view.options.binds.get((entry.gateway.namespace, entry.gateway.name, spec.port), spec.port)
    known = ENDED_KINDS if _ends_tls(spec) else PROTOCOL_KINDS.get(spec.protocol)
    if known is None:
        entry.refused = Refused("UnsupportedProtocol", f"protocol {spec.protocol} is not served; {', '.join(PROTOCOL_KINDS)} are")
        return
    entry.kinds = known
    if spec.allowed_routes.kinds:
        entry.kinds = tuple(each.kind for each in spec.allowed_routes.kinds if each.group == GATEWAY_GROUP and each.kind in known)
        wrong = [each.kind for each in spec.allowed_routes.kinds if each.group != GATEWAY_GROUP or each.kind not in known]
        if wrong:
            entry.unresolved = Refused("InvalidRouteKinds", f"a listener of protocol {spec.protocol} takes no {', '.join(wrong)}")
    if spec.protocol == "TLS":
        if spec.tls is None or spec.tls.mode not in ("Passthrough", "Terminate"):
            entry.refused = Refused("UnsupportedValue", "a listener of protocol TLS needs tls of mode Passthrough or Terminate")
        elif spec.tls.mode == "Terminate":
            _read_tls(view, entry, None)
    elif spec.protocol == "HTTPS":
        if spec.tls is not None and spec.tls.mode != "Terminate":
            entry.refused = Refused("UnsupportedValue", "an HTTPS listener ends TLS: mode Terminate")
        else:
            _read_tls(view, entry, gateway)


def _ends_tls(spec: GatewayListener) -> bool:
    """Of protocol TLS, whose bytes are carried on in the clear."""
    return spec.protocol == "TLS" and spec.tls is not None and spec.tls.mode == "Terminate"


def _read_tls(view: View, entry: Entry, gateway: Gateway | None) -> None:
    """gateway: what it asks of clients counts; that is for HTTPS alone."""
    pairs: list[KeyFiles] = []
    for ref in entry.spec.tls.certificate_refs if entry.spec.tls else ():
        found = find_pair(view, entry.owner, ref, "InvalidCertificateRef")
        if isinstance(found, Refused):
            entry.unresolved = found
        elif found not in pairs:
            pairs.append(found)
    if not pairs:
        entry.is_shut = True
        if entry.unresolved is None or entry.unresolved.reason == "InvalidRouteKinds":
            entry.unresolved = Refused("InvalidCertificateRef", "a listener that ends TLS needs certificateRefs")
    entry.tls = ListenerTLS(
        certificates=tuple(Certificate(pair.cert, pair.key) for pair in pairs),
        client_certificate=None if gateway is None else _client_certificate(view, entry, gateway),
    )


def _client_certificate(view: View, entry: Entry, gateway: Gateway) -> ClientCertificate | None:
    """What the Gateway asks of the clients of this port."""
    frontend = gateway.spec.tls.frontend if gateway.spec.tls else None
    if frontend is None:
        return None
    chosen = next((each.tls for each in frontend.per_port if each.port == entry.spec.port), frontend.default)
    if chosen.validation is None:
        return None
    if chosen.validation.mode not in CLIENT_MODES:
        entry.refused = Refused("UnsupportedValue", f"mode {chosen.validation.mode} is not served; {', '.join(CLIENT_MODES)} are")
        return None
    ca, refused = find_authorities(view, gateway.ref, chosen.validation.ca_certificate_refs)
    if refused:
        reason = {"InvalidKind": "InvalidCACertificateKind"}.get(refused[0].reason, refused[0].reason)
        entry.unresolved = Refused(reason, refused[0].message)
    if not ca:
        message = "none of the authorities for clients' certificates can be used"
        entry.refused = Refused("NoValidCACertificate", message)
        entry.unresolved = entry.unresolved or Refused("InvalidCACertificateRef", message)
        return None
    return ClientCertificate(ca=ca, mode=CLIENT_MODES[chosen.validation.mode])


# --- conflicts ---


def _find_conflicts(state: GatewayState) -> None:
    """Of a Gateway's own listeners that cannot be told apart none is used. Those of ListenerSets give way to earlier ones."""
    own = [each for each in state.entries if each.spec.protocol in PROTOCOL_KINDS]
    found = [(each, _conflict(each, (other for other in own if other is not each))) for each in own]
    for entry, conflict in found:
        if conflict:
            _set_conflict(entry, *conflict, conflict[0])
    settled = [each for each in own if not each.conflict]
    for listener_set in state.sets:
        for entry in listener_set.entries:
            if entry.spec.protocol not in PROTOCOL_KINDS:
                continue
            conflict = _conflict(entry, settled)
            if conflict:
                _set_conflict(entry, *conflict, "Conflicted")
            else:
                settled.append(entry)
    _find_overlaps(settled)


def _find_overlaps(entries: list[Entry]) -> None:
    """A client that has a connection for one host may use it for the other, whose certificate and rules are not the same.

    That certificates overlap is not told: Gateway API leaves it open, and its conformance tests want OverlappingHostnames of
    listeners that share a certificate, and nothing of one that shares theirs and none of their hosts.
    """
    secure = [each for each in entries if each.spec.protocol in ("HTTPS", "TLS") and each.is_accepted]
    for entry in secure:
        for other in secure:
            is_apart = other is entry or other.bind != entry.bind or intersect_hostnames(entry.hostname, other.hostname) is None
            if not is_apart and not entry.overlap:
                entry.overlap = f"listener '{other.spec.name}'" if other.owner == entry.owner else "another listener"


def _set_conflict(entry: Entry, conflict: str, message: str, reason: str) -> None:
    entry.conflict, entry.conflict_message = conflict, message
    entry.refused = Refused(reason, message)


def _conflict(entry: Entry, others: Iterable[Entry]) -> tuple[str, str] | None:
    for other in others:
        if other.bind != entry.bind:
            continue
        protocols = {entry.spec.protocol, other.spec.protocol}
        # What stands in somebody else's ListenerSet is not told by name.
        shown = f"listener '{other.spec.name}'" if other.owner == entry.owner else "another listener"
        if len(protocols) > 1 and protocols != {"HTTPS", "TLS"}:
            return "ProtocolConflict", f"{shown} of port {entry.spec.port} has protocol {other.spec.protocol}"
        if protocols == {"TCP"}:
            return "ProtocolConflict", f"{shown} has TCP port {entry.spec.port} too"
        if entry.hostname == other.hostname:
            host = f"hostname '{entry.hostname}'" if entry.hostname else "no hostname"
            return "HostnameConflict", f"{shown} of port {entry.spec.port} has {host} too"
    return None


# --- ports of the data plane ---


class _Ports:
    """Who has which port, over all Gateways; older ones come first."""

    def __init__(self, view: View) -> None:
        self._taken = view.options.taken
        self._first: dict[int, Entry] = {}
        self._found: dict[tuple[int, str], tuple[Listener, Entry]] = {}

    def claim(self, entry: Entry) -> None:
        """Gives the entry its listener, or says why it has none."""
        if not entry.is_accepted or entry.is_shut:
            return
        port, protocol = entry.bind, entry.spec.protocol
        if port in self._taken:
            self._refuse(entry, self._taken[port])
            return
        first = self._first.setdefault(port, entry)
        protocols = {protocol, first.spec.protocol}
        if len(protocols) > 1 and protocols != {"HTTPS", "TLS"}:
            self._refuse(entry, f"a listener of protocol {first.spec.protocol}")
            return
        if first.spec.port != entry.spec.port:
            self._refuse(entry, f"port {first.spec.port} of {first.gateway.text()}, which is bound to {port} too")
            return
        key = (port, entry.hostname)
        known = self._found.get(key)
        if known is None:
            entry.name = f"{entry.owner.path()}/{entry.spec.name}"
            listener = Listener(
                name=entry.name,
                port=port,
                public_port=0 if port == entry.spec.port else entry.spec.port,
                protocol=_protocol(protocol),
                hostname=entry.hostname,
                tls=entry.tls,
            )
            self._found[key] = (listener, entry)
            return
        listener, owner = known
        if owner.spec.protocol != protocol or protocol == "TCP" or not _agree(listener.tls, entry.tls):
            self._refuse(entry, f"a listener of {owner.gateway.text()} that differs")
            return
        entry.name = listener.name
        if listener.tls is not None and entry.tls is not None:
            certificates = tuple(dict.fromkeys((*listener.tls.certificates, *entry.tls.certificates)))
            tls = ListenerTLS(certificates=certificates, client_certificate=listener.tls.client_certificate)
            self._found[key] = (msgspec.structs.replace(listener, tls=tls), owner)

    def listeners(self) -> tuple[Listener, ...]:
        return tuple(listener for listener, _ in self._found.values())

    @staticmethod
    def _refuse(entry: Entry, who: str) -> None:
        entry.refused = Refused("PortUnavailable", f"port {entry.spec.port} is taken by {who}")


def _agree(a: ListenerTLS | None, b: ListenerTLS | None) -> bool:
    """Whether two listeners ask the same of their clients, so that one may stand for both."""
    if a is None or b is None:
        return a is b
    return a.client_certificate == b.client_certificate


def _protocol(text: str) -> Protocol:
    match text:
        case "HTTPS":
            return "HTTPS"
        case "TLS":
            return "TLS"
        case "TCP":
            return "TCP"
    return "HTTP"


def supported_kinds(entry: Entry) -> tuple[RouteGroupKind, ...]:
    """For the status."""
    return tuple(RouteGroupKind(kind=kind) for kind in entry.kinds)
