"""Whether the CRDs of Gateway API are those that this gateway is made for, by what the API server serves of them."""

from collections.abc import Mapping, Set

from gateway.sources.kubernetes.kinds import KINDS
from gateway.sources.kubernetes.meta import GATEWAY_GROUP

MADE_FOR = "v1.6"
"""Version of Gateway API whose CRDs have every kind that is read in its first version here."""


def crd_flaw(versions: Mapping[str, str], missing: Set[str]) -> str:
    """One sentence about CRDs that are older, or not there; "" when all is well.

    versions: name of a kind -> version in which it is read. missing: names of kinds that the server does not know.
    """
    kinds = [kind for kind in KINDS.values() if kind.group == GATEWAY_GROUP]
    absent = [kind.name for kind in kinds if kind.name in missing]
    if len(absent) == len(kinds):
        return f"the CRDs of Gateway API are not installed; this gateway is made for those of {MADE_FOR}, standard channel"
    older = [
        f"{kind.name} is read as {versions[kind.name]}"
        for kind in kinds
        if kind.name in versions and kind.name not in missing and versions[kind.name] != kind.versions[0]
    ]
    if not absent and not older:
        return ""
    told = older + ([f"there is no {', no '.join(absent)}"] if absent else [])
    return f"the CRDs of Gateway API are older than {MADE_FOR}, which this gateway is made for, or not all there: {'; '.join(told)}"
