"""What is said back: the statuses of objects, as the API server takes them. Times are the writer's business.

`translate` says what is true once the workers have what it made; `pending` is the same until they have.
"""

from typing import Any

import msgspec

from gateway.model.route import ParentRef
from gateway.sources.kubernetes.gateway import GatewayAddress, RouteGroupKind
from gateway.sources.kubernetes.meta import GATEWAY_GROUP, Read
from gateway.sources.kubernetes.service import LoadBalancerIngress

PENDING = "Pending"


class Condition(Read, frozen=True):
    """One condition."""

    type: str
    status: str
    """True, False or Unknown."""
    reason: str
    message: str
    observed_generation: int = 0


class RouteParentStatus(Read, frozen=True):
    """What a route's parent made of it."""

    parent_ref: ParentRef
    controller_name: str
    conditions: tuple[Condition, ...]


class RouteStatus(Read, frozen=True):
    """Status of a route: our entries only."""

    parents: tuple[RouteParentStatus, ...]


class ListenerStatus(Read, frozen=True):
    """Status of a listener."""

    name: str
    supported_kinds: tuple[RouteGroupKind, ...]
    attached_routes: int
    conditions: tuple[Condition, ...]


class GatewayStatus(Read, frozen=True):
    """Status of a Gateway."""

    addresses: tuple[GatewayAddress, ...]
    conditions: tuple[Condition, ...]
    listeners: tuple[ListenerStatus, ...]
    attached_listener_sets: int = 0


class ListenerSetStatus(Read, frozen=True):
    """Status of a ListenerSet."""

    conditions: tuple[Condition, ...]
    listeners: tuple[ListenerStatus, ...]


class SupportedFeature(Read, frozen=True):
    """A feature of Gateway API that is served."""

    name: str


class GatewayClassStatus(Read, frozen=True):
    """Status of a GatewayClass."""

    conditions: tuple[Condition, ...]
    supported_features: tuple[SupportedFeature, ...]


class PolicyAncestor(Read, frozen=True):
    """The Gateway through which a policy has an effect."""

    name: str
    namespace: str
    group: str = GATEWAY_GROUP
    kind: str = "Gateway"


class PolicyAncestorStatus(Read, frozen=True):
    """What a policy came to for one Gateway."""

    ancestor_ref: PolicyAncestor
    controller_name: str
    conditions: tuple[Condition, ...]


class PolicyStatus(Read, frozen=True):
    """Status of a BackendTLSPolicy: our entries only."""

    ancestors: tuple[PolicyAncestorStatus, ...]


class IngressLoadBalancer(Read, frozen=True):
    """Where an Ingress is reached."""

    ingress: tuple[LoadBalancerIngress, ...]


class IngressStatus(Read, frozen=True):
    """Status of an Ingress."""

    load_balancer: IngressLoadBalancer


Status = GatewayClassStatus | GatewayStatus | ListenerSetStatus | RouteStatus | PolicyStatus | IngressStatus


def condition(conditions: tuple[Condition, ...], type_: str) -> Condition | None:
    """The condition of this type."""
    return next((each for each in conditions if each.type == type_), None)


def pending(status: Status) -> Status:
    """The status as long as the workers have not acknowledged what it speaks of: nothing is programmed yet."""
    if isinstance(status, GatewayStatus | ListenerSetStatus):
        listeners = tuple(msgspec.structs.replace(each, conditions=_waiting(each.conditions)) for each in status.listeners)
        return msgspec.structs.replace(status, conditions=_waiting(status.conditions), listeners=listeners)
    return status


def _waiting(conditions: tuple[Condition, ...]) -> tuple[Condition, ...]:
    return tuple(
        msgspec.structs.replace(each, status="Unknown", reason=PENDING, message="the workers have not taken it over yet")
        if each.type == "Programmed" and each.status == "True"
        else each
        for each in conditions
    )


def to_plain(status: Status) -> dict[str, Any]:
    """As JSON values, for the API server: what is not set is not there."""
    plain: dict[str, Any] = _without_none(msgspec.to_builtins(status))
    return plain


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value]
    return value
