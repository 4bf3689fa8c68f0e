"""k8s/: every overlay builds, is taken by the API, and runs a gateway that may do what it must and nothing more."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from gateway_process import command
from manifests import OVERLAYS, ROOT, Build, Object, crd_files

import gateway
from gateway.model.config import Config
from gateway.sources.files import load
from gateway.sources.kubernetes.kinds import KINDS, ROUTE_KINDS

OLDEST, NEWEST = "1.31", "1.37"  # of Kubernetes; all fields used are in both
GATEWAY_GROUP = "gateway.networking.k8s.io"
STATUS_KINDS = {"GatewayClass", "Gateway", "ListenerSet", *ROUTE_KINDS, "BackendTLSPolicy", "Ingress"}


def of(objects: list[Object], kind: str, name: str | None = None) -> Object:
    (found,) = [each for each in objects if each["kind"] == kind and name in (None, each["metadata"]["name"])]
    return found


def config_of(objects: list[Object], directory: Path) -> Config:
    """The configuration that the gateway is given, as `isthmus check` reads it."""
    (directory / "isthmus.yaml").write_text(of(objects, "ConfigMap")["data"]["isthmus.yaml"])
    config = load(directory).config
    assert config is not None
    return config


def pod_of(objects: list[Object]) -> dict[str, Any]:
    return of(objects, "Deployment")["spec"]["template"]["spec"]


# --- the API takes them ---


def crds() -> dict[tuple[str, str], dict[str, Any]]:
    """(apiVersion, kind) -> schema, of the CRDs of Gateway API, where a checkout has them beside itself."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for path in crd_files("standard"):
        for crd in yaml.safe_load_all(path.read_text()):
            if crd["kind"] == "CustomResourceDefinition":
                spec = crd["spec"]
                for version in spec["versions"]:
                    schema = closed(version["schema"]["openAPIV3Schema"])
                    schema["properties"]["metadata"] = {"type": "object"}
                    found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return found


def closed(schema: Any) -> Any:
    """The schema with every object closed: what the API server would drop in silence is wrong here."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    copy = {key: closed(value) for key, value in schema.items()}
    if isinstance(copy.get("properties"), dict) and copy.get("type") == "object":
        copy.setdefault("additionalProperties", False)
    return copy


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_takes_every_object(overlay: list[Object], version: str) -> None:
    for each in overlay:
        if not each["apiVersion"].startswith(GATEWAY_GROUP):
            kubernetes_validate.validate(each, version, strict=True)


def test_the_validator_refuses_what_is_wrong(overlay: list[Object]) -> None:
    deployment = of(overlay, "Deployment")
    wrong = {**deployment, "spec": {**deployment["spec"], "replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, NEWEST, strict=True)


def test_gateway_api_takes_its_objects(build: Build) -> None:
    schemas = crds()
    if not schemas:
        pytest.skip("no CRDs of Gateway API: neither beside this checkout, in shared/gateway-api, nor by go")
    seen = set()
    for name in ("edge", "east-west"):
        for each in build(f"overlays/{name}"):
            if each["apiVersion"].startswith(GATEWAY_GROUP):
                schema = schemas[each["apiVersion"], each["kind"]]
                jsonschema.validate(each, schema)
                seen.add(each["kind"])
                with pytest.raises(jsonschema.ValidationError):
                    jsonschema.validate({**each, "spec": {**each["spec"], "gatewayClas": "x"}}, schema)
    assert seen == {"GatewayClass", "Gateway"}


CLUSTER_KINDS = {"Namespace", "ClusterRole", "ClusterRoleBinding", "GatewayClass", "IngressClass"}


def test_objects_stand_where_they_belong(overlay: list[Object]) -> None:
    """One namespace for all that has one, and none for what has none."""
    namespace = of(overlay, "Namespace")["metadata"]["name"]
    for each in overlay:
        assert each["metadata"].get("namespace") == (None if each["kind"] in CLUSTER_KINDS else namespace), each["kind"]


def test_overlays_live_beside_each_other(build: Build) -> None:
    """All three may run in one cluster: no object of one is an object of another."""
    seen: set[tuple[str, str, str]] = set()
    for name in OVERLAYS:
        keys = {
            (each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]) for each in build(f"overlays/{name}")
        }
        assert not keys & seen
        seen |= keys


def test_what_is_named_is_there(overlay: list[Object]) -> None:
    names = {(each["kind"], each["metadata"]["name"]) for each in overlay}
    namespace = of(overlay, "Namespace")["metadata"]["name"]
    pod = pod_of(overlay)
    assert ("ServiceAccount", pod["serviceAccountName"]) in names
    assert {("ConfigMap", each["configMap"]["name"]) for each in pod["volumes"]} <= names
    assert ("Deployment", of(overlay, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"]) in names
    for each in overlay:
        if each["kind"].endswith("RoleBinding"):
            assert (each["roleRef"]["kind"], each["roleRef"]["name"]) in names
            assert each["subjects"] == [
                {"kind": "ServiceAccount", "name": pod["serviceAccountName"], "namespace": namespace}
            ]
        if each["kind"] == "Gateway":
            assert ("GatewayClass", each["spec"]["gatewayClassName"]) in names


def test_selectors_find_the_pods_and_no_other_overlay_s(build: Build) -> None:
    labels = {}
    for name in OVERLAYS:
        objects = build(f"overlays/{name}")
        template = of(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
        selectors = [
            of(objects, "Deployment")["spec"]["selector"]["matchLabels"],
            of(objects, "Service")["spec"]["selector"],
            of(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
            of(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
            *(each["labelSelector"]["matchLabels"] for each in pod_of(objects)["topologySpreadConstraints"]),
        ]
        assert all(selector == selectors[0] and selector.items() <= template.items() for selector in selectors)
        labels[name] = frozenset(selectors[0].items())
    assert len(set(labels.values())) == 3


# --- the pod ---


def test_pods_have_no_rights_on_their_node(overlay: list[Object]) -> None:
    assert of(overlay, "Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    pod = pod_of(overlay)
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    security = pod["securityContext"]
    assert (security["runAsNonRoot"], security["runAsUser"], security["runAsGroup"]) == (True, 65532, 65532)
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
        }  # fmt: skip
        assert all(mount["readOnly"] for mount in container["volumeMounts"])


def test_the_user_is_that_of_the_image(overlay: list[Object]) -> None:
    assert f"USER {pod_of(overlay)['securityContext']['runAsUser']}:" in (ROOT / "Dockerfile").read_text()


def test_low_ports_need_no_capability(overlay: list[Object]) -> None:
    pod = pod_of(overlay)
    assert min(port["containerPort"] for port in pod["containers"][0]["ports"]) < 1024
    assert {"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"} in pod["securityContext"]["sysctls"]


def test_the_image_has_the_version_of_the_gateway(overlay: list[Object]) -> None:
    assert pod_of(overlay)["containers"][0]["image"] == f"isthmus:{gateway.__version__}"


def test_a_pod_has_time_to_drain(overlay: list[Object], tmp_path: Path) -> None:
    """Nothing cuts the drain short, and nothing has to be done before it."""
    drain = config_of(overlay, tmp_path).drain
    pod = pod_of(overlay)
    assert pod["terminationGracePeriodSeconds"] * 1000 >= drain.delay + drain.timeout + 5000  # both in milliseconds
    assert "lifecycle" not in pod["containers"][0]


def test_probes_ask_the_admin_port(overlay: list[Object], tmp_path: Path) -> None:
    container = pod_of(overlay)["containers"][0]
    (port,) = [each["containerPort"] for each in container["ports"] if each["name"] == "admin"]
    assert config_of(overlay, tmp_path).admin.address == f"*:{port}"
    paths = {name: container[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {each["port"] for each in paths.values()} == {"admin"}
    assert [paths[name]["path"] for name in paths] == ["/healthz", "/healthz", "/readyz"]


def test_the_admin_port_is_for_whoever_scrapes_and_no_service_leads_there(overlay: list[Object]) -> None:
    rules = of(overlay, "NetworkPolicy")["spec"]["ingress"]
    (rule,) = [each for each in rules if any(port["port"] == "admin" for port in each["ports"])]
    assert rule["ports"] == [{"protocol": "TCP", "port": "admin"}] and rule["from"]
    assert "admin" not in {port["targetPort"] for port in of(overlay, "Service")["spec"]["ports"]}


def test_a_service_leads_to_ports_that_are_open(overlay: list[Object]) -> None:
    open_ = {port["name"] for port in pod_of(overlay)["containers"][0]["ports"]}
    allowed = {port["port"] for rule in of(overlay, "NetworkPolicy")["spec"]["ingress"] for port in rule["ports"]}
    assert allowed == open_
    assert {port["targetPort"] for port in of(overlay, "Service")["spec"]["ports"]} == open_ - {"admin"}


def test_there_is_more_than_one_pod_and_there_always_is_one(overlay: list[Object]) -> None:
    assert "replicas" not in of(overlay, "Deployment")["spec"]  # an apply would undo the autoscaler
    assert of(overlay, "HorizontalPodAutoscaler")["spec"]["minReplicas"] >= 2
    assert of(overlay, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


# --- the configuration ---


def test_the_configuration_is_good(overlay: list[Object], tmp_path: Path) -> None:
    data = of(overlay, "ConfigMap")["data"]
    for name, text in data.items():
        (tmp_path / name).write_text(text)
    done = subprocess.run(command("check", str(tmp_path)), cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_mounted_configuration_is_not_read_a_second_time_from_the_api(overlay: list[Object], tmp_path: Path) -> None:
    wanted = dict([config_of(overlay, tmp_path).kubernetes.config_maps.label_selector.split("=")])
    assert not wanted.items() <= of(overlay, "ConfigMap")["metadata"]["labels"].items()


def test_the_edge_is_a_load_balancer_that_keeps_client_addresses(build: Build, tmp_path: Path) -> None:
    objects = build("overlays/edge")
    service = of(objects, "Service")["spec"]
    assert (service["type"], service["externalTrafficPolicy"]) == ("LoadBalancer", "Local")
    kubernetes = config_of(objects, tmp_path).kubernetes
    assert [port["port"] for port in service["ports"]] == [kubernetes.ingress_ports.http, kubernetes.ingress_ports.https]
    assert of(objects, "GatewayClass")["spec"]["controllerName"] == kubernetes.controller_name == "isthmus.io/gateway-controller"
    ingress_class = of(objects, "IngressClass")
    assert ingress_class["metadata"]["name"] == kubernetes.ingress_class
    assert ingress_class["spec"]["controller"] == kubernetes.controller_name


def test_east_west_is_reached_from_inside_and_minds_its_own_business(build: Build, tmp_path: Path) -> None:
    objects = build("overlays/east-west")
    service = of(objects, "Service")["spec"]
    kubernetes = config_of(objects, tmp_path).kubernetes
    assert service["type"] == "ClusterIP"
    assert tuple(port["port"] for port in service["ports"]) == kubernetes.east_west.ports
    assert of(objects, "GatewayClass")["spec"]["controllerName"] == kubernetes.controller_name
    edge = tmp_path / "edge"
    edge.mkdir()
    other = config_of(build("overlays/edge"), edge).kubernetes
    assert kubernetes.controller_name != other.controller_name
    assert kubernetes.ingress_class != other.ingress_class
    assert not other.east_west.ports


def test_egress_says_that_it_is_a_placeholder_and_has_no_rights(build: Build, tmp_path: Path) -> None:
    objects = build("overlays/egress")
    assert {each["metadata"]["annotations"]["isthmus.io/status"] for each in objects} == {"placeholder"}
    assert not [each["kind"] for each in objects if "Role" in each["kind"]]
    assert pod_of(objects)["automountServiceAccountToken"] is False
    assert not config_of(objects, tmp_path).kubernetes.enabled


# --- rights ---


def rights(objects: list[Object]) -> dict[str, set[tuple[str, str, str]]]:
    """Name of a role without the overlay's suffix -> (group, resource, verb)."""
    return {
        each["metadata"]["name"].removesuffix("-east-west"): {
            (group, resource, verb)
            for rule in each["rules"] for group in rule["apiGroups"] for resource in rule["resources"] for verb in rule["verbs"]
        }
        for each in objects if each["kind"] in ("Role", "ClusterRole")
    }  # fmt: skip


def wanted_rights(*, is_namespaced: bool) -> set[tuple[str, str, str]]:
    """What the code reads, and the statuses that it writes."""
    kinds = [kind for kind in KINDS.values() if kind.is_namespaced == is_namespaced]
    reads = {(kind.group, kind.plural, verb) for kind in kinds for verb in ("list", "watch")}
    return reads | {(kind.group, f"{kind.plural}/status", "patch") for kind in kinds if kind.name in STATUS_KINDS}


@pytest.mark.parametrize("name", ["edge", "east-west"])
def test_rights_are_what_the_code_needs_and_nothing_more(build: Build, name: str) -> None:
    assert rights(build(f"overlays/{name}")) == {
        "isthmus-cluster": wanted_rights(is_namespaced=False) | {("", "nodes", "get")},
        "isthmus-namespaces": wanted_rights(is_namespaced=True),
        "isthmus-leader": {("coordination.k8s.io", "leases", verb) for verb in ("get", "create", "update")},
    }
