"""Objects as YAML files, and the configuration that files and objects come to together."""

from pathlib import Path

import pytest
from kube import make_pair, secret

from gateway.control.build import build
from gateway.model.problem import Problem
from gateway.sources import objects
from gateway.sources.certificates import Files

SHOP = """\
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
  listeners:
  - {name: http, port: 80, protocol: HTTP}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{name: gw}]
  rules:
  - matches: [{path: {value: /api}}]
    backendRefs: [{name: web, port: 80}]
  - matches: [{path: {value: /lost}}]
    backendRefs:
    - {name: absent, port: 80}
---
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Service
  metadata: {name: web}
  spec: {ports: [{port: 80}]}
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
  addressType: IPv4
  endpoints: [{addresses: [10.0.0.1]}]
  ports: [{port: 8080}]
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: web}
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    found = tmp_path / "objects"
    found.mkdir()
    (found / "shop.yaml").write_text(SHOP)
    return found


def texts(problems: list[Problem], base: Path) -> list[str]:
    return [each.text().replace(f"{base}/", "") for each in problems]


def test_objects_alone_are_a_configuration(directory: Path) -> None:
    joined = objects.load(None, directory)
    config = joined.loaded.config
    assert config is not None and not joined.objects.problems
    model = build(config)
    assert [(each.name, each.port_number) for each in model.listeners] == [("Gateway/default/gw/http", 80)]
    assert [(each.name, [one.text for one in each.endpoints]) for each in model.clusters] == [
        ("Service/default/web:80", ["10.0.0.1:8080"])
    ]
    assert joined.loaded.files == [directory / "shop.yaml"]


def test_problems_name_file_and_line_and_object(directory: Path) -> None:
    joined = objects.load(None, directory)
    assert texts(joined.loaded.problems, directory) == [
        "shop.yaml:24: HTTPRoute default/shop: spec.rules[1].backendRefs[0]:"
        " there is no Service default/absent; its share is answered 500"
    ]


def test_a_route_and_its_rules_are_found_again(directory: Path) -> None:
    joined = objects.load(None, directory)
    assert joined.where("HTTPRoute/default/shop") == f"{directory}/shop.yaml:14"
    assert [joined.where("HTTPRoute/default/shop", n) for n in (0, 1)] == [f"{directory}/shop.yaml:{line}" for line in (20, 22)]
    assert joined.where("unknown", 0) == ""


def test_files_and_objects_are_one(directory: Path, tmp_path: Path) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text(
        "listeners: [{name: mine, port: 9000}]\n"
        "routes: [{name: own, listeners: [mine], rules: [{backendRefs: [{name: c}]}]}]\n"
        "clusters: [{name: c, endpoints: ['10.0.0.9:80']}]\n"
        "limits: {maxConnections: 7}\n"
    )
    joined = objects.load(config, directory)
    found = joined.loaded.config
    assert found is not None and found.limits.max_connections == 7
    assert {each.name for each in found.listeners} == {"mine", "Gateway/default/gw/http"}
    assert joined.loaded.files == [config, directory / "shop.yaml"]


def test_a_port_of_the_files_is_not_to_be_had(directory: Path, tmp_path: Path) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text("listeners: [{name: mine, port: 80}]\n")
    joined = objects.load(config, directory)
    assert any("port 80 is taken by listener 'mine' of the files" in each.message for each in joined.loaded.problems)
    assert joined.loaded.config is not None and [each.name for each in joined.loaded.config.listeners] == ["mine"]


def test_the_configuration_says_what_is_ours(directory: Path, tmp_path: Path) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text("kubernetes: {controllerName: example.com/other}\n")
    assert objects.load(config, directory).loaded.config.listeners == ()  # type: ignore[union-attr]
    config.write_text("kubernetes: {namespaces: [elsewhere]}\n")
    assert objects.load(config, directory).loaded.config.listeners == ()  # type: ignore[union-attr]
    config.write_text("kubernetes: {eastWest: {ports: [8080]}}\n")
    found = objects.load(config, directory).loaded.config
    assert found is not None and "Service/default/web:80" in {each.name for each in found.routes}


GATEWAY_API = "apiVersion: gateway.networking.k8s.io"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: b: c", "x.yaml:1: YAML: mapping values are not allowed in this context"),
        ("kind: Service\n", "x.yaml:1: is no Kubernetes object: it needs apiVersion and kind"),
        ("apiVersion: v1\nkind: Service\n", "x.yaml:1: needs metadata with a name"),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n",
            "x.yaml:1: Service default/web stands twice; first at shop.yaml:29",
        ),
        (f"{GATEWAY_API}/v9\nkind: Gateway\nmetadata: {{name: a}}\n", "x.yaml:1: warning: apiVersion: Gateway of "),
        (
            f"{GATEWAY_API}/v1\nkind: HTTPRoute\nmetadata: {{name: a}}\nspec:\n  hostnames: 7\n",
            "x.yaml:5: HTTPRoute default/a: spec.hostnames: expected a list, got the number 7; it is left out",
        ),
        ("apiVersion: v1\nkind: Service\nkind: Service\nmetadata: {name: a}\n", "x.yaml:3: kind: key 'kind' stands twice"),
    ],
)
def test_what_is_wrong_with_a_file(directory: Path, text: str, problem: str) -> None:
    (directory / "x.yaml").write_text(text)
    found = texts(objects.load(None, directory).loaded.problems, directory)
    (mine,) = (each for each in found if each.startswith("x.yaml"))
    assert mine.startswith(problem)


def test_a_file_that_cannot_be_read_keeps_all_from_use(directory: Path, tmp_path: Path) -> None:
    """So that half a directory never takes the place of the last good one."""
    (directory / "x.yaml").write_bytes(b"\xff")
    loaded = objects.load(None, directory).loaded
    assert loaded.config is None and any(each.fatal for each in loaded.problems)
    assert objects.load(None, tmp_path / "absent").loaded.config is None
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no objects in this directory" in objects.load(None, empty).loaded.problems[0].message


def test_config_maps_hold_the_language_of_files(directory: Path) -> None:
    def write(name: str, content: str) -> None:
        indented = "".join(f"    {line}\n" for line in content.splitlines())
        metadata = f'metadata: {{name: {name}, labels: {{isthmus.io/config: "true"}}}}'
        (directory / f"{name}.yaml").write_text(f"apiVersion: v1\nkind: ConfigMap\n{metadata}\ndata:\n  a.yaml: |\n{indented}")

    write("good", "listeners: [{name: more, port: 9001}]")
    write("bad", "listener: []")
    joined = objects.load(None, directory)
    found = joined.loaded.config
    assert found is not None and {each.name for each in found.listeners} == {"more", "Gateway/default/gw/http"}
    (problem,) = (each for each in joined.loaded.problems if "ConfigMap" in each.source)
    assert (
        problem.text().startswith("ConfigMap default/bad a.yaml:1: listener: unknown key 'listener'; did you mean")
        and not problem.fatal
    )


def test_secrets_are_what_listeners_show(directory: Path) -> None:
    pair = make_pair("shop.test")
    text = SHOP.replace(
        "  - {name: http, port: 80, protocol: HTTP}\n",
        "  - {name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: s}]}}\n",
    )
    (directory / "shop.yaml").write_text(text)
    (directory / "secret.yaml").write_text("apiVersion: v1" + secret("s", pair).removesuffix("---\n"))
    known = Files()
    joined = objects.load(None, directory, known)
    side = joined.loaded.secured.listeners["Gateway/default/gw/https"]
    assert side.pairs[0].names == ("shop.test",) and side.pairs[0].key == pair[1].encode()
    assert [(each.owner, each.name, each.names) for each in joined.loaded.secured.facts] == [
        ("listener", "Gateway/default/gw/https", ("shop.test",))
    ]
    assert set(joined.loaded.tls_files.marks) == {
        directory,
        directory / "..data",
        directory / "shop.yaml",
        directory / "secret.yaml",
    }
    without = objects.load(None, directory, with_certificates=False).loaded
    assert without.secured.listeners == {} and without.config == joined.loaded.config


def test_a_change_of_any_file_shows_in_the_marks(directory: Path) -> None:
    before = objects.load(None, directory).loaded.tls_files.marks
    (directory / "new.yaml").write_text("apiVersion: v1\nkind: Namespace\nmetadata: {name: n}\n")
    after = objects.load(None, directory).loaded.tls_files.marks
    assert before[directory] != after[directory] and directory / "new.yaml" in after
