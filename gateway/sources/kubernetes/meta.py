"""What all objects have: metadata, a key, and the leniency of whoever reads what others define.

Structs here hold only what is read; unknown fields are skipped. The specs of routes are those of gateway.model.route, which know
every field; what a newer API adds to them is cut off before they are decoded (see store).
"""

from typing import NamedTuple

import msgspec

GATEWAY_GROUP = "gateway.networking.k8s.io"


class Read(msgspec.Struct, frozen=True, rename="camel"):
    """Base of what is read of an object."""


class Ref(NamedTuple):
    """Which object: its kind, namespace ("" for a kind without) and name."""

    kind: str
    namespace: str
    name: str

    def text(self) -> str:
        """ "HTTPRoute default/shop", as problems name it."""
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"

    def path(self) -> str:
        """ "HTTPRoute/default/shop", what a name in the configuration begins with."""
        return f"{self.kind}/{self.namespace}/{self.name}" if self.namespace else f"{self.kind}/{self.name}"


class ObjectMeta(Read, frozen=True):
    """Metadata of an object."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class Object(Read, frozen=True):
    """Base of every kind."""

    metadata: ObjectMeta = ObjectMeta()

    @property
    def ref(self) -> Ref:
        return Ref(type(self).__name__, self.metadata.namespace, self.metadata.name)

    @property
    def labels(self) -> dict[str, str]:
        return self.metadata.labels or {}

    @property
    def annotations(self) -> dict[str, str]:
        return self.metadata.annotations or {}

    @property
    def age(self) -> tuple[str, str, str]:
        """Sort key of Gateway API: the oldest first, then by namespace and name. What has no time of creation is the oldest."""
        return (self.metadata.creation_timestamp or "", f"{self.metadata.namespace}/{self.metadata.name}", type(self).__name__)


class Requirement(Read, frozen=True):
    """One expression of a label selector."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


class LabelSelector(Read, frozen=True):
    """Labels that an object must have. An empty one takes everything."""

    match_labels: dict[str, str] | None = None
    match_expressions: tuple[Requirement, ...] = ()

    def takes(self, labels: dict[str, str]) -> bool:
        """Whether these labels fulfil all of it. An operator that is not known takes nothing."""
        if any(labels.get(key) != value for key, value in (self.match_labels or {}).items()):
            return False
        return all(_fulfils(labels, each) for each in self.match_expressions)


def _fulfils(labels: dict[str, str], wanted: Requirement) -> bool:
    match wanted.operator:
        case "In":
            return labels.get(wanted.key) in wanted.values
        case "NotIn":
            return labels.get(wanted.key) not in wanted.values
        case "Exists":
            return wanted.key in labels
        case "DoesNotExist":
            return wanted.key not in labels
    return False


def parse_selector(text: str) -> LabelSelector:
    """From the text of a selector: a=b,c!=d,e,!f. ValueError says what is wrong."""
    expressions = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        if "!=" in part:
            key, _, value = part.partition("!=")
            expressions.append(Requirement(key.strip(), "NotIn", (value.strip(),)))
        elif "=" in part:
            key, _, value = part.replace("==", "=").partition("=")
            expressions.append(Requirement(key.strip(), "In", (value.strip(),)))
        elif part.startswith("!"):
            expressions.append(Requirement(part[1:].strip(), "DoesNotExist"))
        else:
            expressions.append(Requirement(part, "Exists"))
        if not expressions[-1].key or " " in expressions[-1].key:
            raise ValueError(f"'{part}' is not part of a label selector; write key=value, key!=value, key or !key")
    return LabelSelector(match_expressions=tuple(expressions))
