"""k8s/ on Kubernetes' own API server: it takes every object as it stands there, and the gateway may do what it does and no more."""

from __future__ import annotations

import pytest
from manifests import OVERLAYS, Build
from realserver import OWN, Control, Refused, control, needs_real

from gateway.sources.kubernetes.kinds import KINDS
from gateway.sources.kubernetes.reflector import WITH_STATUS

VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")


def may(server: Control, verb: str, group: str, resource: str, namespace: str = "default", part: str = "") -> bool:
    """What the server says to the gateway's own token."""
    attributes = {"verb": verb, "group": group, "resource": resource, "namespace": namespace, "subresource": part}
    review = {
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": attributes},
    }  # fmt: skip
    answer = server.ask("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review, token=server.token)
    return bool(answer["status"]["allowed"])


@needs_real
@pytest.mark.parametrize("name", OVERLAYS)
def test_the_server_takes_every_object(build: Build, name: str) -> None:
    objects = build(f"overlays/{name}")
    for each in objects:
        if each["kind"] == "Namespace":
            control().apply(each)
    for each in objects:
        control().apply(each, dryRun="All", fieldValidation="Strict")
    wrong = {**objects[0], "metadata": {**objects[0]["metadata"], "labell": {}}}
    with pytest.raises(Refused, match="labell"):
        control().apply(wrong, dryRun="All", fieldValidation="Strict")


@needs_real
def test_the_gateway_may_do_what_it_does_and_no_more() -> None:
    server = control()
    for kind in KINDS.values():
        assert {verb for verb in VERBS if may(server, verb, kind.group, kind.plural)} == {"list", "watch"}, kind.name
        wanted = {"patch"} if kind.name in WITH_STATUS else set()
        assert {verb for verb in VERBS if may(server, verb, kind.group, kind.plural, part="status")} == wanted, kind.name
    lease = "coordination.k8s.io", "leases"
    assert {verb for verb in VERBS if may(server, verb, *lease, OWN)} == {"get", "create", "update"}
    assert not any(may(server, verb, *lease) for verb in VERBS)
    for group, resource in (("", "pods"), ("apps", "deployments"), ("rbac.authorization.k8s.io", "clusterroles")):
        assert not any(may(server, verb, group, resource) for verb in VERBS), resource
    assert {verb for verb in VERBS if may(server, verb, "", "nodes")} == {"get"}, "its own, for the zone"
