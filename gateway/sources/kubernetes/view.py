"""One look at a store: the indexes that a translation needs, made once, and what it collects on its way."""

from dataclasses import dataclass
from functools import cached_property

from gateway.model.problem import Path
from gateway.sources.kubernetes.backend_tls_policy import BackendTLSPolicy
from gateway.sources.kubernetes.config_map import ConfigMap
from gateway.sources.kubernetes.endpoint_slice import EndpointSlice
from gateway.sources.kubernetes.meta import Ref
from gateway.sources.kubernetes.namespace import Namespace
from gateway.sources.kubernetes.options import Options
from gateway.sources.kubernetes.reference_grant import ReferenceGrant
from gateway.sources.kubernetes.secret import Secret
from gateway.sources.kubernetes.service import Service
from gateway.sources.kubernetes.store import Store


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a route of the configuration comes from."""

    ref: Ref
    rules: tuple[Path, ...]
    """Path of each of its rules in the object."""


class View:
    """Reads the store; `pems` and `wanted` grow while it is asked."""

    def __init__(self, store: Store, options: Options) -> None:
        self.store = store
        self.options = options
        self.pems: dict[str, bytes] = {}
        """Name of a file in the configuration -> its content, for certificates, keys and authorities."""
        self.wanted: set[Ref] = set()
        """Secrets and ConfigMaps that some object refers to, there or not."""
        self.asked: dict[tuple[str, str], Service | None] = {}
        """Services that were asked for, there or not. Whoever wants to know puts an empty one here."""

    def service(self, namespace: str, name: str) -> Service | None:
        found = self.asked[namespace, name] = self.store.get(Service, namespace, name)
        return found

    def secret(self, namespace: str, name: str) -> Secret | None:
        """A Secret, which is from now on wanted."""
        self.wanted.add(Ref("Secret", namespace, name))
        return self.store.get(Secret, namespace, name)

    def config_map(self, namespace: str, name: str) -> ConfigMap | None:
        """A ConfigMap, which is from now on wanted."""
        self.wanted.add(Ref("ConfigMap", namespace, name))
        return self.store.get(ConfigMap, namespace, name)

    def namespace_labels(self, name: str) -> dict[str, str]:
        found = self.store.get(Namespace, "", name)
        return found.labels if found is not None else Namespace().labels | {"kubernetes.io/metadata.name": name}

    @cached_property
    def slices(self) -> dict[tuple[str, str], list[EndpointSlice]]:
        """By (namespace, name) of the Service."""
        found: dict[tuple[str, str], list[EndpointSlice]] = {}
        for each in self.store.all(EndpointSlice):
            if each.service:
                found.setdefault((each.metadata.namespace, each.service), []).append(each)
        for slices in found.values():
            slices.sort(key=lambda each: each.metadata.name)
        return found

    @cached_property
    def policies(self) -> dict[tuple[str, str, str], list[BackendTLSPolicy]]:
        """By (namespace, Service, name of its port or ""); the one that counts first."""
        found: dict[tuple[str, str, str], list[BackendTLSPolicy]] = {}
        for policy in sorted(self.store.all(BackendTLSPolicy), key=lambda each: each.age):
            for target in policy.spec.target_refs:
                if target.group == "" and target.kind == "Service":
                    key = (policy.metadata.namespace, target.name, target.section_name or "")
                    found.setdefault(key, []).append(policy)
        return found

    @cached_property
    def _grants(self) -> dict[tuple[str, str, str, str, str, str], set[str]]:
        """(to namespace, to group, to kind, from namespace, from group, from kind) -> names, "" for all."""
        found: dict[tuple[str, str, str, str, str, str], set[str]] = {}
        for grant in self.store.all(ReferenceGrant):
            for source in grant.spec.sources:
                for target in grant.spec.to:
                    key = (
                        grant.metadata.namespace, target.group, target.kind,
                        source.namespace, source.group, source.kind,
                    )  # fmt: skip
                    found.setdefault(key, set()).add(target.name or "")
        return found

    def is_granted(self, source: Ref, group: str, target: Ref, target_group: str = "") -> bool:
        """Whether an object of this group may refer to the target: one of its namespace, or by a ReferenceGrant there."""
        if source.namespace == target.namespace:
            return True
        key = (target.namespace, target_group, target.kind, source.namespace, group, source.kind)
        names = self._grants.get(key)
        return names is not None and ("" in names or target.name in names)

    def keep(self, name: str, content: bytes) -> str:
        """Makes the content known under the name of a file; the name."""
        self.pems[name] = content
        return name
