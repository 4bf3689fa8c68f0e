"""What the last translation came to, piece by piece, so that the next one works out again only what a change reaches.

A piece is kept with everything that it was made of and is good as long as all of that is the very same: objects are immutable, so
identity tells. What few and rarely changing objects say (Gateways, grants, policies, certificates, namespaces) is the *ground*:
with another ground, nothing is kept that stands on it.
"""

import threading
from collections.abc import Collection
from dataclasses import dataclass, field

from gateway.model.route import Route
from gateway.sources.kubernetes.attach import Attachment, RouteObject
from gateway.sources.kubernetes.backends import ClusterPiece, Led
from gateway.sources.kubernetes.east_west import NamePiece
from gateway.sources.kubernetes.ingresses import IngressPiece
from gateway.sources.kubernetes.listeners import Entry, Gateways
from gateway.sources.kubernetes.meta import Ref
from gateway.sources.kubernetes.options import Options
from gateway.sources.kubernetes.pairs import Refused
from gateway.sources.kubernetes.report import Judged
from gateway.sources.kubernetes.service import Service
from gateway.sources.kubernetes.view import Origin, View

GROUND = (
    "GatewayClass", "Gateway", "ListenerSet", "ReferenceGrant", "BackendTLSPolicy", "Secret", "ConfigMap", "Namespace",
)  # fmt: skip

Claim = tuple[list[Entry], Refused | None]
"""The listeners that an attachment has, or why it has none."""


@dataclass(slots=True)
class Piece:
    """What a route came to, and of what."""

    route: RouteObject
    flaws: object
    age: tuple[str, str, str]
    attachments: list[Attachment]
    wished: list[Claim]
    """What each attachment had before routes of the other kind had their say."""
    services: dict[tuple[str, str], Service | None]
    """Every Service that was asked for by (namespace, name), there or not."""
    claimed: list[Claim] | None = None
    """What each attachment had after it. What follows is of this; None: nothing follows yet."""
    judged: Judged | None = None
    kept: list[tuple[Route, Origin]] = field(default_factory=list)
    led: Led = field(default_factory=dict)
    used: list[tuple[str, str]] = field(default_factory=list)
    """Services that its references lead to."""
    routed: set[tuple[Ref, str]] = field(default_factory=set)


@dataclass(slots=True)
class Memo:
    """Of a store and its copies. One translation at a time uses it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    ground: object = None
    options: Options | None = None
    gateways: Gateways | None = None
    services: dict[tuple[str, str], Service | None] = field(default_factory=dict)
    pems: dict[str, bytes] = field(default_factory=dict, repr=False)
    wanted: set[Ref] = field(default_factory=set)
    """What was asked for by `gateways` and what they brought along."""
    routes: dict[str, dict[tuple[str, str], Piece]] = field(default_factory=dict)
    """Kind -> (namespace, name) -> piece."""
    services_mark: object = None
    """Of the Services that the routes are known to be made of."""
    ends_mark: object = None
    """And of the Services and EndpointSlices of the clusters."""
    is_shared: bool = False
    """Whether there were routes of two kinds that must not share hosts."""
    ingresses: dict[tuple[str, str], IngressPiece] = field(default_factory=dict)
    clusters: dict[str, ClusterPiece] = field(default_factory=dict)
    names: dict[str, NamePiece] = field(default_factory=dict)
    moved: dict[str, tuple[Route, Route]] = field(default_factory=dict)
    """Name of a route -> itself, and the same on the listeners that stand in the place of its own."""

    def stand_on(self, view: View) -> None:
        """Forgets everything when the ground is another."""
        ground = view.store.mark(GROUND)
        is_same = ground == self.ground and view.options == self.options
        if not is_same or any(view.service(*key) is not found for key, found in self.services.items()):
            self.ground, self.options = ground, view.options
            self.gateways, self.services, self.pems, self.wanted = None, {}, {}, set()
            self.routes, self.ingresses, self.clusters, self.names, self.moved = {}, {}, {}, {}, {}

    def sweep(self, clusters: Collection[str], names: Collection[str], routes: Collection[str]) -> None:
        """Forgets what is not in use any more: only what has these names is."""
        self.clusters = {name: piece for name, piece in self.clusters.items() if name in clusters}
        self.names = {name: piece for name, piece in self.names.items() if name in names}
        self.moved = {name: pair for name, pair in self.moved.items() if name in routes}
