"""What is said back about every object of ours: statuses for the API server, and problems for people who read logs."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from gateway.model.problem import Path, Problem, Severity, key_text
from gateway.sources.kubernetes.attach import Attachment, RouteObject
from gateway.sources.kubernetes.backend_tls_policy import BackendTLSPolicy
from gateway.sources.kubernetes.backends import Backends
from gateway.sources.kubernetes.features import supported_features
from gateway.sources.kubernetes.gateway import GatewayAddress
from gateway.sources.kubernetes.ingresses import Ingresses
from gateway.sources.kubernetes.listeners import Entry, Gateways, GatewayState, SetState, supported_kinds
from gateway.sources.kubernetes.meta import Ref
from gateway.sources.kubernetes.pairs import Refused
from gateway.sources.kubernetes.rules import Outcome
from gateway.sources.kubernetes.service import LoadBalancerIngress
from gateway.sources.kubernetes.status import (
    Condition,
    GatewayClassStatus,
    GatewayStatus,
    IngressLoadBalancer,
    IngressStatus,
    ListenerSetStatus,
    ListenerStatus,
    PolicyAncestor,
    PolicyAncestorStatus,
    PolicyStatus,
    RouteParentStatus,
    RouteStatus,
    Status,
    SupportedFeature,
)
from gateway.sources.kubernetes.view import View

MOST_ANCESTORS = 16
Place = tuple[Ref, Path, Problem]


@dataclass(frozen=True, slots=True)
class Judged:
    """A route that has a parent of ours."""

    route: RouteObject
    ref: Ref
    attachments: list[Attachment]
    outcome: Outcome
    is_hostless: bool = False
    """Its hostnames make no sense, so nothing of it is used."""
    said: list[tuple[RouteStatus, list[Place], list[set[Ref]]]] = field(default_factory=list, compare=False)
    """What is said of it, and the listeners' sets of routes that it is in, once that has been worked out."""

    @property
    def is_sound(self) -> bool:
        return not self.is_hostless and not self.outcome.is_all_bad


def statuses_of(
    view: View, gateways: Gateways, judged: list[Judged], backends: Backends, ingresses: Ingresses
) -> tuple[dict[Ref, Status], list[Place]]:
    """Everything that is to be said."""
    writer = _Report(view)
    for one in judged:
        if not one.said:
            one.said.append((*writer.route(one), _takers(one)))
        writer.statuses[one.ref], places, takers = one.said[0]
        if places:
            writer.places += places
        for attached in takers:
            attached.add(one.ref)
    for each in sorted(gateways.classes.values(), key=lambda one: one.age):
        writer.gateway_class(each.ref, each.metadata.generation, each.spec.parameters_ref is not None)
    for state in gateways.states.values():
        writer.gateway(state)
    for listener_set in gateways.sets.values():
        writer.listener_set(listener_set)
    writer.policies(judged, backends)
    writer.ingresses(ingresses)
    return writer.statuses, writer.places


def _takers(one: Judged) -> list[set[Ref]]:
    if not one.is_sound:
        return []
    return [entry.attached for attachment in one.attachments if attachment.refused is None for entry in attachment.entries]


class _Report:
    """Collects statuses and problems."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.statuses: dict[Ref, Status] = {}
        self.places: list[Place] = []

    def say(self, ref: Ref, path: Path, message: str, severity: Severity = "error") -> None:
        self.places.append(_place(ref, path, message, severity))

    # --- classes, Gateways, ListenerSets ---

    def gateway_class(self, ref: Ref, generation: int, has_parameters: bool) -> None:
        if has_parameters:
            accepted = Condition("Accepted", "False", "InvalidParameters", "there are no parameters of a class here", generation)
            self.say(ref, ("spec", "parametersRef"), accepted.message)
        else:
            accepted = Condition("Accepted", "True", "Accepted", "the class is looked after", generation)
        conditions = [accepted]
        if not has_parameters:
            flaw = self.view.options.crd_flaw
            if flaw:
                conditions.append(Condition("SupportedVersion", "False", "UnsupportedVersion", flaw, generation))
            else:
                conditions.append(_true("SupportedVersion", "the CRDs of Gateway API are those that this is made for", generation))
        features = tuple(SupportedFeature(name) for name in supported_features())
        self.statuses[ref] = GatewayClassStatus(tuple(conditions), features)

    def gateway(self, state: GatewayState) -> None:
        ref, generation = state.gateway.ref, state.gateway.metadata.generation
        unaccepted = [each for each in state.entries if not each.is_accepted]
        is_used = any(each.is_accepted for each in state.all_entries()) and state.refused is None
        programmed = any(each.is_programmed for each in state.all_entries())
        addresses, trouble = self._addresses(state)
        if state.refused is not None:
            accepted = _false("Accepted", state.refused, generation)
            self.say(ref, ("spec",), state.refused.message)
        elif not is_used:
            accepted = Condition("Accepted", "False", "ListenersNotValid", "none of the listeners can be used", generation)
        elif unaccepted:
            names = ", ".join(f"'{each.spec.name}'" for each in unaccepted)
            accepted = Condition("Accepted", "True", "ListenersNotValid", f"all listeners are used but {names}", generation)
        else:
            accepted = Condition("Accepted", "True", "Accepted", "all listeners are used", generation)
        if not is_used or not programmed:
            reason = "no listener of it is open"
            if state.refused is not None:
                reason = state.refused.message
            shown = Condition("Programmed", "False", "Invalid", reason, generation)
        elif trouble is not None:
            shown = _false("Programmed", trouble, generation)
        else:
            shown = Condition("Programmed", "True", "Programmed", "its listeners are open", generation)
        conditions = [accepted, shown]
        if state.pair_refused is not None:
            conditions.append(_false("ResolvedRefs", state.pair_refused, generation))
            self.say(ref, ("spec", "tls", "backend", "clientCertificateRef"), state.pair_refused.message)
        elif state.pair is not None:
            conditions.append(_true("ResolvedRefs", "all references lead to something", generation))
        frontend = state.gateway.spec.tls.frontend if state.gateway.spec.tls else None
        if frontend is not None and (keys := frontend.insecure()):
            message = f"{', '.join(keys)}: clients without a certificate that verifies are let in; only backends can refuse them"
            conditions.append(Condition("InsecureFrontendValidationMode", "True", "ConfigurationChanged", message, generation))
            self.say(ref, ("spec", "tls", "frontend"), message, "warning")
        self.statuses[ref] = GatewayStatus(
            addresses=addresses,
            conditions=tuple(conditions),
            listeners=self._listeners(state.entries, generation, is_used, "listeners"),
            attached_listener_sets=sum(any(each.is_accepted for each in one.entries) for one in state.sets),
        )

    def _addresses(self, state: GatewayState) -> tuple[tuple[GatewayAddress, ...], Refused | None]:
        """Those of the gateway that were asked for, or all of them; and what is wrong with them."""
        have = self.view.options.addresses
        asked = tuple(each for each in state.gateway.spec.addresses if each.value)
        if any(each.bind != each.spec.port for each in state.all_entries()):
            # Reached by a Service that is not the gateway's own, and that nobody but the author of both knows.
            return asked, None
        if asked:
            unknown = [each.value for each in asked if each not in have]
            if unknown and (have or self.view.options.needs_address):
                message = f"this gateway has no address {', '.join(unknown)}"
                return tuple(each for each in asked if each in have), Refused("AddressNotUsable", message)
            return asked, None
        if not have and self.view.options.needs_address:
            return (), Refused("AddressNotAssigned", "the gateway has no address yet")
        return have, None

    def listener_set(self, state: SetState) -> None:
        ref, generation = state.set.ref, state.set.metadata.generation
        if state.refused is not None:
            accepted = _false("Accepted", state.refused, generation)
            shown = _false("Programmed", state.refused, generation)
            self.statuses[ref] = ListenerSetStatus((accepted, shown), ())
            self.say(ref, ("spec", "parentRef"), state.refused.message)
            return
        is_used = any(each.is_accepted for each in state.entries)
        wrong = [f"'{each.spec.name}'" for each in state.entries if not each.is_accepted]
        if not is_used:
            accepted = Condition("Accepted", "False", "ListenersNotValid", "none of the listeners can be used", generation)
        elif wrong:
            message = f"all listeners are used but {', '.join(wrong)}"
            accepted = Condition("Accepted", "True", "ListenersNotValid", message, generation)
        else:
            accepted = Condition("Accepted", "True", "Accepted", "all listeners are used", generation)
        if any(each.is_programmed for each in state.entries):
            shown = Condition("Programmed", "True", "Programmed", "its listeners are open", generation)
        else:
            reason = "Invalid" if is_used else "ListenersNotValid"
            shown = Condition("Programmed", "False", reason, "no listener of it is open", generation)
        self.statuses[ref] = ListenerSetStatus((accepted, shown), self._listeners(state.entries, generation, True, "listeners"))

    def _listeners(self, entries: list[Entry], generation: int, is_used: bool, key: str) -> tuple[ListenerStatus, ...]:
        found = []
        for number, entry in enumerate(entries):
            at: Path = ("spec", key, number)
            conditions = tuple(_entry_conditions(entry, generation))
            for flaw in (entry.refused, entry.unresolved):
                if flaw is not None:
                    self.say(entry.owner, at, flaw.message)
            found.append(ListenerStatus(entry.spec.name, supported_kinds(entry), len(entry.attached), conditions))
        return tuple(found)

    # --- routes ---

    def route(self, one: Judged) -> tuple[RouteStatus, list[Place]]:
        """What is said of a route: its attachments and its outcome alone decide it."""
        route, outcome = one.route, one.outcome
        generation, ref = route.metadata.generation, one.ref
        parents = tuple(
            RouteParentStatus(each.parent, self.view.options.controller_name, tuple(_route_conditions(one, each, generation)))
            for each in one.attachments
        )
        places: list[Place] = []
        for number, parent in enumerate(route.spec.parent_refs):
            for each in one.attachments:
                if each.parent == parent and each.refused is not None:
                    places.append(_place(ref, ("spec", "parentRefs", number), each.refused.message))
        for finding in outcome.findings:
            places.append(_place(ref, finding.path, finding.message))
        for path, refused in outcome.refused:
            fate = "its copies are not sent" if "requestMirror" in path else "its share is answered 500"
            places.append(_place(ref, path, f"{refused.message}; {fate}"))
        for finding in outcome.warnings:
            places.append(_place(ref, finding.path, finding.message, "warning"))
        return RouteStatus(parents), places

    # --- policies and Ingresses ---

    def policies(self, judged: list[Judged], backends: Backends) -> None:
        if not self.view.policies:
            return
        gateways: dict[Ref, set[Ref]] = {}
        for one in judged:
            gateways[one.ref] = {each.gateway for each in one.attachments if each.gateway and each.refused is None}
        for policy in sorted(self.view.store.all(BackendTLSPolicy), key=lambda each: each.age):
            namespace = policy.metadata.namespace
            ancestors: set[Ref] = set()
            for target in policy.spec.target_refs:
                for user in backends.users.get((namespace, target.name), ()):
                    ancestors |= gateways.get(user, set())
            if not ancestors:
                continue
            conditions = tuple(self._policy_conditions(policy, backends))
            self.statuses[policy.ref] = PolicyStatus(
                tuple(
                    PolicyAncestorStatus(PolicyAncestor(each.name, each.namespace), self.view.options.controller_name, conditions)
                    for each in sorted(ancestors)[:MOST_ANCESTORS]
                )
            )
            for each in conditions:
                if each.status == "False":
                    self.say(policy.ref, ("spec",), each.message)

    def _policy_conditions(self, policy: BackendTLSPolicy, backends: Backends) -> Iterator[Condition]:
        generation = policy.metadata.generation
        state = backends.state(policy)
        winner = None
        for target in policy.spec.target_refs:
            first = self.view.policies.get((policy.metadata.namespace, target.name, target.section_name or ""), [policy])[0]
            if first is not policy:
                winner = first
        if winner is not None:
            yield Condition("Accepted", "False", "Conflicted", f"{winner.ref.text()} is older and has the target", generation)
        elif state.tls is None:
            reason = "Invalid" if state.is_invalid else "NoValidCACertificate"
            yield Condition("Accepted", "False", reason, state.refused[0].message, generation)
        else:
            yield Condition("Accepted", "True", "Accepted", "connections to the target are verified by it", generation)
        if state.refused and not state.is_invalid:
            yield _false("ResolvedRefs", state.refused[0], generation)
        else:
            yield _true("ResolvedRefs", "all references lead to something", generation)

    def ingresses(self, found: Ingresses) -> None:
        places = tuple(
            LoadBalancerIngress(ip=each.value) if each.type == "IPAddress" else LoadBalancerIngress(hostname=each.value)
            for each in self.view.options.addresses
        )
        for ref in found.served:
            self.statuses[ref] = IngressStatus(IngressLoadBalancer(places))
        for ref, path, message in found.flaws:
            self.say(ref, path, message)


def _place(ref: Ref, path: Path, message: str, severity: Severity = "error") -> Place:
    return (ref, path, Problem(severity=severity, source=ref.text(), key=key_text(path), message=message))


def _entry_conditions(entry: Entry, generation: int) -> Iterator[Condition]:
    if entry.refused is not None:
        yield _false("Accepted", entry.refused, generation)
    else:
        yield Condition("Accepted", "True", "Accepted", "the listener is used", generation)
    if entry.is_programmed:
        yield Condition("Programmed", "True", "Programmed", "the listener is open", generation)
    else:
        reason = "PortUnavailable" if entry.refused is not None and entry.refused.reason == "PortUnavailable" else "Invalid"
        flaw = entry.refused or (entry.unresolved if entry.is_shut else None)
        yield Condition("Programmed", "False", reason, flaw.message if flaw else "the Gateway is not accepted", generation)
    if entry.unresolved is not None:
        yield _false("ResolvedRefs", entry.unresolved, generation)
    else:
        yield _true("ResolvedRefs", "all references lead to something", generation)
    if entry.conflict:
        yield Condition("Conflicted", "True", entry.conflict, entry.conflict_message, generation)
    else:
        yield Condition("Conflicted", "False", "NoConflicts", "no other listener is like it", generation)
    if entry.overlap and entry.is_accepted:
        fate = "what is asked for on the other's connection is answered 421"
        if entry.spec.protocol == "TLS":
            fate = "a client may use its connection to one for a host of the other"
        message = f"{entry.overlap} of its port has some of its hosts; {fate}"
        yield Condition("OverlappingTLSConfig", "True", "OverlappingHostnames", message, generation)


def _route_conditions(one: Judged, attachment: Attachment, generation: int) -> Iterator[Condition]:
    outcome = one.outcome
    if attachment.refused is not None:
        yield _false("Accepted", attachment.refused, generation)
    elif not one.is_sound:
        yield Condition("Accepted", "False", outcome.reason, _sentence(outcome.flaws), generation)
    else:
        yield Condition("Accepted", "True", "Accepted", "the route is used", generation)
    if outcome.refused:
        messages = dict.fromkeys(each.message for _, each in outcome.refused)
        yield Condition("ResolvedRefs", "False", outcome.refused[0][1].reason, _sentence(messages), generation)
    else:
        yield _true("ResolvedRefs", "all references lead to something", generation)
    if outcome.bad and one.is_sound:
        begin = "Dropped Rule" if outcome.dropped else "Answered 500"
        yield Condition("PartiallyInvalid", "True", outcome.reason, f"{begin}: {_sentence(outcome.flaws)}", generation)


def _sentence(parts: Iterable[str]) -> str:
    """Messages of conditions are limited in length."""
    text = "; ".join(parts)
    return text if len(text) <= 1000 else text[:997] + "..."


def _false(type_: str, refused: Refused, generation: int) -> Condition:
    return Condition(type_, "False", refused.reason, refused.message, generation)


def _true(type_: str, message: str, generation: int) -> Condition:
    return Condition(type_, "True", type_, message, generation)
