"""A gateway as it runs in a cluster: an API server on a socket, real workers, real requests.

On Kubernetes' own server (`make test-kube`) the gateway has the rights that k8s/base gives its ServiceAccount, and no others.
"""

import asyncio
import base64
import contextlib
import json
import os
import signal
import socket
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import servers
import yaml
from gateway_process import Gateway, Origin, request
from kube import CLASS, make_pair, secret
from realserver import POD, REAL, spare_port
from servers import HOME, new_server
from until import wait_until


class Cluster:
    """An API server on a loop in a thread."""

    def __init__(self, folder: Path, host: str) -> None:
        """host: where pods are."""
        self.host = host
        self.server = new_server()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.do(self.server.start())
        self.config = folder / "gateway.yaml"
        kubeconfig = folder / "kubeconfig"
        self.section = {"enabled": True, "kubeconfig": str(kubeconfig)}
        self.configure()
        authority = base64.b64encode(self.server.authority).decode()
        trust = {"certificate-authority-data": authority} if authority else {}
        kubeconfig.write_text(
            json.dumps(
                {
                    "apiVersion": "v1", "kind": "Config", "current-context": "here",
                    "clusters": [{"name": "here", "cluster": {"server": self.server.url, **trust}}],
                    "users": [{"name": "me", "user": {"token": self.server.token}}],
                    "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me", "namespace": HOME}}],
                }
            )
        )  # fmt: skip

    def configure(self, **section: Any) -> None:
        """Of the part `kubernetes` of the gateway's configuration."""
        self.config.write_text(json.dumps({"kubernetes": {**self.section, **section}, "drain": {"delay": "0s"}}))

    def origin(self, name: str) -> Origin:
        """A pod."""
        return Origin(name, self.host)

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def apply(self, *texts: str) -> None:
        self.do(self.server.put(*(each for text in texts for each in yaml.safe_load_all(text) if each)))

    def close(self) -> None:
        self.do(self.server.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


def is_ours(host: str) -> bool:
    with socket.socket() as sock:
        try:
            sock.bind((host, 0))
        except OSError:
            return False
    return True


@pytest.fixture(params=["small", pytest.param("real", marks=REAL)])
def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    host = "127.0.0.1" if request.param == "small" else POD
    if not is_ours(host):
        pytest.skip(f"no EndpointSlice may name a loopback address, and {host} is none of this machine: see mk/kube.mk")
    servers.choose(request.param)
    try:
        with contextlib.closing(Cluster(tmp_path, host)) as made:
            yield made
    finally:
        servers.choose("small")


def service(name: str, address: str) -> str:
    host, _, port = address.rpartition(":")
    return f"""
kind: Service
metadata: {{name: {name}}}
spec: {{clusterIP: 10.96.0.1, ports: [{{port: 80, targetPort: {port}}}]}}
---
kind: EndpointSlice
metadata: {{name: {name}-x, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
endpoints: [{{addresses: [{host}], conditions: {{ready: true}}}}]
ports: [{{port: {port}, name: ""}}]
"""


def gateway(port: int) -> str:
    return f"""
kind: Gateway
metadata: {{name: gw}}
spec: {{gatewayClassName: isthmus, listeners: [{{name: http, port: {port}, protocol: HTTP}}]}}
"""


def route(name: str, path: str, to: str) -> str:
    return f"""
kind: HTTPRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{name: gw}}]
  rules: [{{matches: [{{path: {{value: {path}}}}}], backendRefs: [{{name: {to}, port: 80}}]}}]
"""


def programmed(cluster: Cluster) -> bool:
    conditions = cluster.server.status("Gateway", "gw").get("conditions", [])
    return any(each["type"] == "Programmed" and each["status"] == "True" for each in conditions)


def metric(gateway: Gateway, name: str) -> float:
    text = request(gateway.admin, "/metrics")[2].decode()
    return next(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name + " "))


def test_from_the_first_object_to_the_last_request(cluster: Cluster) -> None:
    port = spare_port()
    address = f"127.0.0.1:{port}"

    def get(path: str) -> tuple[int, str]:
        status, _, body = request(address, path)
        return status, body.decode().strip()

    with cluster.origin("one") as one, cluster.origin("two") as two:
        cluster.apply(CLASS, gateway(port), service("web", one.address), route("a", "/a", "web"))
        with Gateway(cluster.config) as running:
            assert get("/a") == (200, "one /a") and get("/b")[0] == 404
            wait_until(lambda: programmed(cluster))
            # A route comes and answers; its status says so.
            cluster.apply(route("b", "/b", "web"))
            wait_until(lambda: get("/b") == (200, "one /b"))
            wait_until(lambda: cluster.server.status("HTTPRoute", "b").get("parents"))
            # Other pods behind the Service: no new revision, and every worker sends there.
            revision = running.revision
            cluster.apply(service("web", two.address).partition("---")[2].replace("name: \"\"", "name: ''"))
            wait_until(lambda: get("/a") == (200, "two /a"))
            wait_until(lambda: {get("/a") for _ in range(20)} == {(200, "two /a")})
            assert running.revision == revision and metric(running, "isthmus_kubernetes_endpoint_updates_total") == 1
            # The API server goes away: nothing changes for anybody but those who look.
            cluster.do(cluster.server.stop())
            wait_until(lambda: metric(running, 'isthmus_kubernetes_synced{kind="HTTPRoute"}') == 0)
            assert get("/b") == (200, "two /b") and running.is_ready()
            assert metric(running, "isthmus_kubernetes_last_error_timestamp_seconds") > 0
            # A worker that begins now gets the endpoints that it would have had.
            known = set(running.serving())
            running_worker = min(known)

            os.kill(running_worker, signal.SIGKILL)
            wait_until(lambda: len(set(running.serving()) - known) == 1 and len(running.serving()) == 2)
            assert {get("/a") for _ in range(20)} == {(200, "two /a")}
            cluster.do(cluster.server.start(cluster.server.port))
            cluster.apply(route("c", "/c", "web"))
            wait_until(lambda: get("/c") == (200, "two /c"))
        lease = cluster.server.get("Lease", "isthmus.io-gateway-controller", HOME)
        assert not lease["spec"].get("holderIdentity"), "given back at the end"


def own_pods(*hosts: str) -> str:
    endpoints = ", ".join(f"{{addresses: [{host}], conditions: {{ready: true}}}}" for host in hosts)
    return f"""
kind: EndpointSlice
metadata: {{name: me-x, labels: {{kubernetes.io/service-name: me}}}}
addressType: IPv4
endpoints: [{endpoints}]
ports: [{{port: 80, name: ""}}]
"""


def test_replicas_share_a_local_limit(cluster: Cluster) -> None:
    port = spare_port()
    section: dict[str, Any] = {"kubernetes": {**cluster.section, "service": "default/me"}, "drain": {"delay": "0s"}}
    to = {"type": "RequestRedirect", "requestRedirect": {"hostname": "elsewhere.test"}}
    section |= {
        "rateLimits": [{"name": "few", "limit": {"requests": 12, "per": "1h"}, "key": ["header:x-key"], "mode": "local"}],
        "listeners": [{"name": "own", "address": f"127.0.0.1:{port}", "rateLimits": ["few"]}],
        "routes": [{"name": "own", "listeners": ["own"], "rules": [{"filters": [to]}]}],
    }
    cluster.config.write_text(json.dumps(section))
    keys = iter(range(1000))

    def allowed() -> int:
        key = str(next(keys))
        return sum(request(f"127.0.0.1:{port}", "/", headers={"x-key": key})[0] == 302 for _ in range(14))

    cluster.apply(CLASS, own_pods("10.9.0.1", "10.9.0.2", "10.9.0.3"))
    with Gateway(cluster.config) as running:
        assert allowed() == 4
        revision = running.revision
        cluster.apply(own_pods("10.9.0.1", "10.9.0.2"))
        wait_until(lambda: allowed() == 6)
        # A worker that begins now knows it too.
        known = set(running.serving())
        for worker in known:
            os.kill(worker, signal.SIGKILL)
        wait_until(lambda: not known & set(running.serving()) and len(running.serving()) == len(known))
        assert allowed() == 6 and running.revision == revision


def test_a_cold_start_without_the_api_server_waits_and_says_for_what(cluster: Cluster) -> None:
    port, api = spare_port(), cluster.server.port
    with cluster.origin("one") as one:
        cluster.do(cluster.server.stop())
        cluster.apply(CLASS, gateway(port), service("web", one.address), route("a", "/a", "web"))
        running = Gateway(cluster.config).start()
        try:
            wait_until(lambda: b"API server" in request(running.admin, "/readyz")[2])
            assert not running.is_ready() and request(running.admin, "/healthz")[0] == 200 and running.stats()["listeners"] == []
            cluster.do(cluster.server.start(api))
            wait_until(running.is_ready, 60)
            assert request(f"127.0.0.1:{port}", "/a")[2] == b"one /a\n"
        finally:
            running.stop()


def test_ingresses_and_names_beside_routes(cluster: Cluster) -> None:
    """An Ingress on ports of its own, Services by their names, and a route that a Service has as parent."""
    clear, ends_tls, names = spare_port(), spare_port(), spare_port()
    cluster.configure(ingressPorts={"http": clear, "https": ends_tls}, eastWest={"ports": [names]})

    def get(port: int, path: str, host: str) -> tuple[int, bytes]:
        status, _, body = request(f"127.0.0.1:{port}", path, headers={"Host": host})
        return status, body

    ingress = """
kind: Ingress
metadata: {name: shop}
spec:
  ingressClassName: isthmus
  tls: [{hosts: [shop.test], secretName: pair}]
  rules: [{host: shop.test, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]
"""
    ingress_class = "kind: IngressClass\nmetadata: {name: isthmus}\nspec: {controller: isthmus.io/gateway-controller}\n"
    of_service = """
kind: HTTPRoute
metadata: {name: of-web}
spec:
  parentRefs: [{group: "", kind: Service, name: web}]
  rules: [{matches: [{path: {value: /other}}], backendRefs: [{name: other, port: 80}]}]
"""
    with cluster.origin("web") as web, cluster.origin("other") as other:
        cluster.apply(ingress_class, secret("pair", make_pair("shop.test")), ingress, of_service)
        cluster.apply(service("web", web.address), service("other", other.address))
        with Gateway(cluster.config) as running:
            assert get(clear, "/x", "shop.test") == (200, b"web /x\n") and get(clear, "/x", "elsewhere.test")[0] == 404
            assert get(names, "/x", "other.default.svc.cluster.local") == (200, b"other /x\n")
            assert get(names, "/other", "web.default") == (200, b"other /other\n") and get(names, "/x", "web.default")[0] == 404
            assert any("Ingress/https" in row["names"] for row in running.stats()["listeners"])
            wait_until(lambda: cluster.server.status("HTTPRoute", "of-web").get("parents"))
            cluster.do(cluster.server.delete("HTTPRoute", "of-web"))
            wait_until(lambda: get(names, "/x", "web.default") == (200, b"web /x\n"))
            cluster.do(cluster.server.delete("Ingress", "shop"))
            # The port goes with its last Ingress.
            wait_until(lambda: not any("Ingress/http" in row["names"] for row in running.stats()["listeners"]))


def test_it_can_be_told_to_stop_while_it_waits(cluster: Cluster) -> None:
    cluster.do(cluster.server.stop())
    running = Gateway(cluster.config).start()
    running.process.terminate()
    assert running.process.wait(30) == 0
