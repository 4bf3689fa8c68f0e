"""`isthmus import ingress`."""

import subprocess
from pathlib import Path

import yaml
from gateway_process import ROOT, command

INGRESS = """\
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: shop
  annotations:
    nginx.ingress.kubernetes.io/configuration-snippet: |
      return 200;
spec:
  rules:
  - host: shop.test
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
"""


def isthmus(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*args), cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_it_prints_objects_and_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "ingress.yaml"
    path.write_text(INGRESS)
    done = isthmus("import", "ingress", str(path), "--gateway", "edge", "--class", "mine")
    assert done.returncode == 0
    note = "Ingress default/shop: configuration-snippet: text of nginx's own language is never taken over"
    assert done.stdout.startswith(f"# not translated: {note}\n") and f"not translated: {note}\n" in done.stderr
    gateway, route = yaml.safe_load_all(done.stdout)
    assert (gateway["metadata"]["name"], gateway["spec"]["gatewayClassName"]) == ("edge", "mine")
    assert route["spec"]["hostnames"] == ["shop.test"] and route["spec"]["rules"][0]["backendRefs"] == [{"name": "web", "port": 80}]


def test_what_cannot_be_read_or_has_none(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("apiVersion: v1\nkind: Service\nmetadata: {name: a}\n")
    nothing = isthmus("import", "ingress", str(path))
    assert (nothing.returncode, nothing.stderr) == (1, f"{path}: no Ingress there\n")
    assert isthmus("import", "ingress", str(tmp_path / "absent.yaml")).returncode == 1
