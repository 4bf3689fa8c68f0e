"""What is said about CRDs that are older than what is read."""

from gateway.sources.kubernetes.crds import crd_flaw
from gateway.sources.kubernetes.kinds import KINDS
from gateway.sources.kubernetes.meta import GATEWAY_GROUP

OURS = {kind.name: kind.versions[0] for kind in KINDS.values() if kind.group == GATEWAY_GROUP}


def test_nothing_is_said_of_the_crds_that_this_is_made_for() -> None:
    assert crd_flaw(OURS, set()) == ""


def test_older_versions_and_missing_kinds_are_named() -> None:
    older = {**OURS, "TLSRoute": "v1alpha2", "BackendTLSPolicy": "v1alpha3"}
    flaw = crd_flaw(older, {"ListenerSet", "TCPRoute"})
    assert flaw.startswith("the CRDs of Gateway API are older than v1.6")
    assert "TLSRoute is read as v1alpha2" in flaw and "BackendTLSPolicy is read as v1alpha3" in flaw
    assert "there is no ListenerSet, no TCPRoute" in flaw and "HTTPRoute" not in flaw
    assert crd_flaw({**OURS, "TLSRoute": "v1alpha2"}, {"TLSRoute"}).endswith("there is no TLSRoute"), "one that has gone is missing"


def test_without_any_that_is_what_is_said() -> None:
    assert "are not installed" in crd_flaw({}, set(OURS))
