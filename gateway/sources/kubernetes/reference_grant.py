"""ReferenceGrant: who may refer to objects of another namespace."""

from msgspec import field

from gateway.sources.kubernetes.meta import Object, Read


class GrantFrom(Read, frozen=True):
    """Who refers."""

    group: str
    kind: str
    namespace: str


class GrantTo(Read, frozen=True):
    """What is referred to."""

    group: str
    kind: str
    name: str | None = None


class ReferenceGrantSpec(Read, frozen=True):
    """Spec of a ReferenceGrant."""

    sources: tuple[GrantFrom, ...] = field(name="from", default=())
    to: tuple[GrantTo, ...] = ()


class ReferenceGrant(Object, frozen=True):
    """A ReferenceGrant of gateway.networking.k8s.io."""

    spec: ReferenceGrantSpec = ReferenceGrantSpec()
