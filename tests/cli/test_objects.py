"""`--objects`: the commands with Kubernetes objects as files."""

import json
import subprocess
from pathlib import Path

import pytest
from gateway_process import ROOT, Gateway, Origin, command, request
from until import wait_until

OBJECTS = """\
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: isthmus}
spec: {controllerName: isthmus.io/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: isthmus
  listeners: [{name: http, port: 0, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{name: gw}]
  rules:
  - matches: [{path: {value: /api}}]
    backendRefs: [{name: web, port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [127.0.0.1]}]
ports: [{port: PORT}]
"""


def isthmus(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*args), cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    found = tmp_path / "objects"
    found.mkdir()
    (found / "all.yaml").write_text(OBJECTS.replace("PORT", "9"))
    return found


def test_check_says_what_is_wrong_with_objects(directory: Path) -> None:
    good = isthmus("check", "--objects", str(directory))
    assert (good.returncode, good.stdout) == (0, f"{directory}: good\n")
    (directory / "all.yaml").write_text(OBJECTS.replace("name: web, port: 80", "name: wen, port: 80"))
    bad = isthmus("check", "--objects", str(directory))
    assert bad.returncode == 1
    assert (
        f"{directory}/all.yaml:20: HTTPRoute default/shop: spec.rules[0].backendRefs[0]: there is no Service default/wen"
        in bad.stdout
    )


def test_route_explains_with_the_name_and_the_line_of_the_object(directory: Path) -> None:
    found = isthmus("route", "--objects", str(directory), "--host", "a.test", "--path", "/api/x")
    assert found.returncode == 0 and "rule 0 of route 'HTTPRoute/default/shop' answers" in found.stdout
    assert f"{directory}/all.yaml:19" in found.stdout
    as_json = isthmus("route", "--objects", str(directory), "--host", "a.test", "--path", "/api/x", "--json")
    assert json.loads(as_json.stdout)["where"] == f"{directory}/all.yaml:19"
    missed = isthmus("route", "--objects", str(directory), "--host", "a.test", "--path", "/else")
    assert missed.returncode == 1 and f"HTTPRoute/default/shop[0] ({directory}/all.yaml:19)" in missed.stdout


def test_routes_lists_them(directory: Path) -> None:
    (row,) = json.loads(isthmus("routes", "--objects", str(directory), "--json").stdout)
    assert row["route"] == "HTTPRoute/default/shop" and row["backends"] == [{"cluster": "Service/default/web:80", "weight": 1}]


@pytest.mark.parametrize("args", [("check",), ("run",), ("routes",), ("route", "--host", "a.test")])
def test_one_of_the_two_is_needed(args: tuple[str, ...]) -> None:
    found = isthmus(*args)
    assert found.returncode == 2 and "--objects" in found.stderr


def test_a_gateway_runs_from_objects_and_follows_their_changes(tmp_path: Path, directory: Path) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text("accessLog: {format: 'off'}\n")
    with Origin("one") as one, Origin("two") as two:
        port = one.address.rpartition(":")[2]
        (directory / "all.yaml").write_text(OBJECTS.replace("PORT", port))
        with Gateway(config, workers=1, args=("--objects", str(directory))) as gateway:
            address = "127.0.0.1:" + gateway.address("Gateway/default/gw/http").rpartition(":")[2]
            assert request(address, "/api/x")[::2] == (200, b"one /api/x\n")
            assert request(address, "/else")[0] == 404
            (directory / "all.yaml").write_text(OBJECTS.replace("PORT", two.address.rpartition(":")[2]))
            wait_until(lambda: request(address, "/api/y")[2] == b"two /api/y\n")
            (directory / "more.yaml").write_text(
                "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: more}\n"
                "spec: {parentRefs: [{name: gw}], rules: [{backendRefs: [{name: web, port: 80}]}]}\n"
            )
            wait_until(lambda: request(address, "/else")[0] == 200)
