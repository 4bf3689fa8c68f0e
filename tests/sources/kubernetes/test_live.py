"""The live source as the supervisor uses it: an API server on a socket, a reconciler, and what becomes of changes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from apiserver import ApiServer
from kube import CLASS, gateway, make_pair, route, secret, service, to
from servers import AnyServer, client_of, new_server
from until import until

from gateway.control.reconciler import Reconciler, Revision
from gateway.model.config import Bind, Kubernetes
from gateway.sources.kubernetes.backoff import Backoff
from gateway.sources.kubernetes.live import LiveSource, Outlet


def objects(*texts: str) -> list[dict[str, Any]]:
    return [each for text in texts for each in yaml.safe_load_all(text) if each]


both = pytest.mark.usefixtures("each_server")


class Running:
    """A source, the reconciler that it feeds, and what the workers were given."""

    def __init__(self, server: AnyServer, path: Path, settings: Kubernetes, identity: str) -> None:
        self.server = server
        self.revisions: list[Revision] = []
        self.is_settled = True
        self.shut: dict[int, str] = {}
        self.shares: list[int] = []
        fast = lambda: Backoff(0.01, 0.05)  # noqa: E731
        self.live = LiveSource(
            path, settings, client_of(server), identity=identity, missing_retry_s=0.05, lease_s=(2, 1.5, 0.05), backoff=fast
        )
        self.reconciler = Reconciler(path, self.apply, self.live.load)
        self.outlet = Outlet(
            self.reconciler.reload, self.reconciler.retarget, lambda: self.is_settled, lambda: self.shut, self.share
        )
        self.task: asyncio.Task[None] | None = None

    def share(self) -> None:
        self.shares.append(self.live.replicas())

    def apply(self, revision: Revision) -> list[Any]:
        self.revisions.append(revision)
        return []

    async def go(self) -> None:
        await self.live.complete()
        await self.reconciler.reload("start")
        self.task = asyncio.get_running_loop().create_task(self.live.follow(self.outlet))

    def names(self) -> list[str]:
        return sorted(each.name for each in self.revisions[-1].model.routes) if self.revisions else []

    def endpoints(self, cluster: str) -> list[str]:
        assert self.reconciler.current is not None
        return [each.text for one in self.reconciler.current.model.clusters if one.name == cluster for each in one.endpoints]


@contextlib.asynccontextmanager
async def running(
    tmp_path: Path, *given: str, file: str = "kubernetes: {enabled: true}\n", settings: Kubernetes | None = None,
    before: Callable[[Any], None] = lambda server: None, waits: bool = True,
) -> AsyncIterator[Running]:  # fmt: skip
    path = tmp_path / "gateway.yaml"
    path.write_text(file)
    server = new_server()
    before(server)
    await server.start()
    await server.put(*objects(CLASS, *given))
    one = Running(server, path, settings or Kubernetes(enabled=True), "this-one")
    one.live.start()
    try:
        if waits:
            await one.go()
        yield one
        assert one.task is None or not one.task.done(), one.task
    finally:
        if one.task is not None:
            one.task.cancel()
            await asyncio.gather(one.task, return_exceptions=True)
        await one.live.stop()
        await server.stop()


WEB = service("web", 80)
FIRST = (gateway(), WEB, route("a", to("web")))


def programmed(server: AnyServer, name: str = "gw") -> str:
    return next(
        (f"{each['status']} {each['reason']}" for each in server.status("Gateway", name).get("conditions", [])
         if each["type"] == "Programmed"), "",
    )  # fmt: skip


@both
def test_routes_come_change_and_go_and_each_status_is_written_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, *FIRST) as one:
            assert one.names() == ["HTTPRoute/default/a"] and one.endpoints("Service/default/web:80") == ["10.0.0.1:8080"]
            await until(lambda: one.server.status("HTTPRoute", "a").get("parents"))
            await until(lambda: programmed(one.server) == "True Programmed")
            await one.server.put(*objects(route("b", to("web"))))
            await until(lambda: one.names() == ["HTTPRoute/default/a", "HTTPRoute/default/b"])
            await until(lambda: one.server.status("Gateway", "gw")["listeners"][0]["attachedRoutes"] == 2)
            await one.server.delete("HTTPRoute", "a")
            await until(lambda: one.names() == ["HTTPRoute/default/b"])
            await until(lambda: one.server.status("Gateway", "gw")["listeners"][0]["attachedRoutes"] == 1)
            await until(lambda: one.live.writer.is_idle)
            writes = {path.rpartition("/status")[0].rpartition("/")[2]: count for path, count in one.server.writes().items()}
            assert writes == {"isthmus": 1, "gw": 3, "a": 1, "b": 1}
            assert len(one.revisions) == 3, "what was written comes back and is no change"

    asyncio.run(story())


def test_endpoints_of_the_own_zone_are_taken_where_they_are_meant_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The zone is that of the node, and counts for what changes alone as well."""
    monkeypatch.setenv("NODE_NAME", "n1")
    node = "kind: Node\nmetadata: {name: n1, labels: {topology.kubernetes.io/zone: a}}\n"

    def slice_of(*numbers: int) -> str:
        zones = {each: "ab"[each % 2] for each in numbers}
        rows = [f"{{addresses: [10.0.0.{each}], hints: {{forZones: [{{name: {zone}}}]}}}}" for each, zone in zones.items()]
        head = "kind: EndpointSlice\nmetadata: {name: web-x, namespace: default, labels: {kubernetes.io/service-name: web}}\n"
        return f"{head}addressType: IPv4\nports: [{{name: '', port: 8080}}]\nendpoints: [{', '.join(rows)}]\n"

    async def story() -> None:
        async with running(tmp_path, gateway(), WEB.partition("---")[0], slice_of(1, 2), route("a", to("web")), node) as one:
            assert one.endpoints("Service/default/web:80") == ["10.0.0.2:8080"]
            await one.server.put(*objects(slice_of(1, 2, 4)))
            await until(lambda: one.endpoints("Service/default/web:80") == ["10.0.0.2:8080", "10.0.0.4:8080"])
            assert one.reconciler.loads == 1

    asyncio.run(story())


@both
def test_endpoints_alone_make_no_new_revision(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, *FIRST) as one:
            compiled = one.revisions[-1].compiled
            await one.server.put(*objects(service("web", 80, address="10.0.0.9")))
            await until(lambda: one.endpoints("Service/default/web:80") == ["10.0.0.9:8080"])
            assert one.reconciler.current is not None
            assert one.reconciler.current.compiled is compiled and one.reconciler.revision == 1
            assert one.live.endpoint_updates == 1 and one.reconciler.loads == 1
            await one.server.delete("EndpointSlice", "web-x")
            await until(lambda: one.endpoints("Service/default/web:80") == [])
            assert one.reconciler.loads == 1
            # A load of everything comes to the same.
            await one.reconciler.reload("SIGHUP")
            assert one.reconciler.revision == 1 and one.endpoints("Service/default/web:80") == []

    asyncio.run(story())


@both
def test_files_and_objects_are_one_configuration(tmp_path: Path) -> None:
    file = """
kubernetes: {enabled: true}
listeners: [{name: own, port: 8080, protocol: HTTP}]
clusters: [{name: files, endpoints: ["127.0.0.1:1"]}]
routes: [{name: from-file, listeners: [own], rules: [{backendRefs: [{name: files}]}]}]
"""

    async def story() -> None:
        async with running(tmp_path, *FIRST, file=file) as one:
            assert one.names() == ["HTTPRoute/default/a", "from-file"]
            assert {each.name for each in one.revisions[-1].model.listeners} == {"own", "Gateway/default/gw/http"}
            (tmp_path / "gateway.yaml").write_text(file.replace("from-file", "renamed"))
            await one.reconciler.reload("change")
            assert one.names() == ["HTTPRoute/default/a", "renamed"]
            # A file that cannot be used keeps the last revision, and endpoints go on.
            (tmp_path / "gateway.yaml").write_text("listeners: {")
            await one.reconciler.reload("change")
            await one.server.put(*objects(service("web", 80, address="10.0.0.9")))
            await until(lambda: one.endpoints("Service/default/web:80") == ["10.0.0.9:8080"])
            assert one.names() == ["HTTPRoute/default/a", "renamed"]

    asyncio.run(story())


def test_nothing_is_loaded_before_all_required_kinds_are_there(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, *FIRST, before=lambda server: server.forbidden.add("/endpointslices"), waits=False) as one:
            await until(lambda: "endpointslices" in one.live.unready_reason() and "403" in one.live.unready_reason())
            await until(lambda: one.live.facts().kinds["Service"].is_synced)
            assert not one.live.facts().kinds["EndpointSlice"].is_synced and not one.live._complete.is_set()
            assert isinstance(one.server, ApiServer)
            one.server.forbidden.clear()
            await one.go()
            assert one.live.unready_reason() == "" and one.names() == ["HTTPRoute/default/a"]

    asyncio.run(story())


@both
def test_a_server_that_comes_late_is_waited_for(tmp_path: Path) -> None:
    async def story() -> None:
        server = new_server()
        await server.start()
        port = server.port
        await server.stop()
        path = tmp_path / "gateway.yaml"
        path.write_text("kubernetes: {enabled: true}\n")
        one = Running(server, path, Kubernetes(enabled=True), "late")
        one.live.start()
        await until(lambda: "not synced" in one.live.unready_reason() and one.live.facts().last_error_at)
        await server.put(*objects(CLASS, *FIRST))
        await server.start(port)
        await one.go()
        assert one.names() == ["HTTPRoute/default/a"]
        assert one.task is not None
        one.task.cancel()
        await asyncio.gather(one.task, return_exceptions=True)
        await one.live.stop()
        await server.stop()

    asyncio.run(story())


@both
def test_a_server_that_is_away_changes_nothing_and_is_caught_up_with(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, *FIRST) as one:
            port = one.server.port
            await until(lambda: programmed(one.server))
            await one.server.stop()
            await until(lambda: not one.live.facts().kinds["HTTPRoute"].is_synced)
            await one.reconciler.reload("SIGHUP")
            assert one.names() == ["HTTPRoute/default/a"] and one.live.unready_reason() == ""
            await one.server.put(*objects(route("b", to("web"))))
            await one.server.start(port)
            await until(lambda: one.names() == ["HTTPRoute/default/a", "HTTPRoute/default/b"])
            await until(lambda: one.server.status("HTTPRoute", "b").get("parents"))
            assert one.server.lists("httproutes") == 1

    asyncio.run(story())


@both
def test_only_secrets_that_are_referred_to_are_asked_for(tmp_path: Path) -> None:
    listeners = """
  - {name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}
"""
    pair, other = make_pair("a.test"), make_pair("b.test")

    async def story() -> None:
        given = (gateway(listeners=listeners), WEB, route("a", to("web")), secret("cert", pair), secret("private", other))
        async with running(tmp_path, *given) as one:
            secured = one.revisions[-1].secured.listeners["Gateway/default/gw/https"]
            assert secured.pairs[0].names == ("a.test",)
            asked = [query for _, path, query in one.server.requests if path.endswith("/secrets")]
            assert {each["fieldSelector"] for each in asked} == {"metadata.name=cert"}
            # Another certificate, and a reference to another Secret, are both seen.
            await one.server.put(*objects(secret("cert", other)))
            await until(lambda: one.revisions[-1].secured.listeners["Gateway/default/gw/https"].pairs[0].names == ("b.test",))
            await one.server.put(*objects(secret("private", pair), gateway(listeners=listeners.replace("cert}", "private}"))))
            await until(lambda: one.revisions[-1].secured.listeners["Gateway/default/gw/https"].pairs[0].names == ("a.test",))
            assert "Secret/default/cert" not in one.live._reflectors

    asyncio.run(story())


@both
def test_programmed_is_said_when_the_workers_have_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, gateway(), waits=False) as one:
            one.is_settled = False
            await one.go()
            await until(lambda: one.live._is_leading())
            # Kubernetes has a default of the CRD there: Unknown.
            assert programmed(one.server) in ("", "Unknown Pending") and not one.server.writes()
            one.is_settled = True
            await until(lambda: programmed(one.server) == "True Programmed")
            assert set(one.server.writes().values()) == {1}

    asyncio.run(story())


@both
def test_a_port_that_cannot_be_opened_is_not_programmed(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, gateway(), waits=False) as one:
            one.shut[80] = "Address already in use"
            await one.go()
            await until(lambda: programmed(one.server) == "False Invalid")
            (listener,) = one.server.status("Gateway", "gw")["listeners"]
            assert "Address already in use" in [each["message"] for each in listener["conditions"]]

    asyncio.run(story())


def test_a_port_that_is_another_one_here_cannot_be_opened(tmp_path: Path) -> None:
    settings = Kubernetes(enabled=True, binds=(Bind("default/gw", 80, 10080),))
    file = "kubernetes: {enabled: true, binds: [{gateway: default/gw, port: 80, bind: 10080}]}\n"

    async def story() -> None:
        async with running(tmp_path, gateway(), file=file, settings=settings, waits=False) as one:
            one.shut[80] = "Not its own"
            await one.go()
            await until(lambda: programmed(one.server) == "True Programmed")
            assert [each.port for each in one.revisions[-1].model.ports] == [10080]
        async with running(tmp_path, gateway(), file=file, settings=settings, waits=False) as one:
            one.shut[10080] = "Address already in use"
            await one.go()
            await until(lambda: programmed(one.server) == "False Invalid")

    asyncio.run(story())


def test_a_listener_set_hears_of_its_port_too(tmp_path: Path) -> None:
    more = """
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: more, namespace: default}
spec:
  parentRef: {name: gw}
  listeners: [{name: extra, port: 8081, protocol: HTTP}]
"""

    async def story() -> None:
        allowing = gateway(more="allowedListeners: {namespaces: {from: All}}")
        async with running(tmp_path, allowing, more, waits=False) as one:
            one.shut[8081] = "Address already in use"
            await one.go()
            await until(lambda: one.server.status("ListenerSet", "more").get("listeners"))
            await until(lambda: programmed(one.server) == "True Programmed")
            status = one.server.status("ListenerSet", "more")
            for conditions in (status["conditions"], status["listeners"][0]["conditions"]):
                (found,) = [each for each in conditions if each["type"] == "Programmed"]
                assert (found["status"], found["reason"]) == ("False", "Invalid")
            assert "Address already in use" in [each["message"] for each in status["listeners"][0]["conditions"]]

    asyncio.run(story())


def test_a_gateway_has_the_addresses_of_its_own_service(tmp_path: Path) -> None:
    """GatewayAddressEmpty: pending until the Service of type LoadBalancer has been given one."""
    own = """
kind: Service
metadata: {name: isthmus, namespace: isthmus}
spec: {type: LoadBalancer, clusterIP: 10.96.0.9, ports: [{port: 80}]}
"""
    given = own + "status: {loadBalancer: {ingress: [{ip: 192.0.2.7}, {hostname: lb.test}]}}\n"
    file = "kubernetes: {enabled: true, service: isthmus/isthmus}\n"

    def addresses(one: Running) -> list[tuple[str, str]]:
        return [(each["type"], each["value"]) for each in one.server.status("Gateway", "gw").get("addresses", [])]

    async def story() -> None:
        async with running(tmp_path, *FIRST, own, file=file) as one:
            await until(lambda: programmed(one.server) == "False AddressNotAssigned")
            await one.server.put(*objects(given))
            await until(lambda: programmed(one.server) == "True Programmed")
            assert addresses(one) == [("IPAddress", "192.0.2.7"), ("Hostname", "lb.test")]

    asyncio.run(story())


def own_pods(name: str, *endpoints: str, family: str = "IPv4") -> str:
    return f"""
kind: EndpointSlice
metadata: {{name: {name}, namespace: default, labels: {{kubernetes.io/service-name: me}}}}
addressType: {family}
endpoints: [{", ".join(endpoints)}]
ports: [{{port: 80, name: ""}}]
"""


READY = "{{addresses: [{}], conditions: {{ready: true}}}}"
UNREADY = "{{addresses: [{}], conditions: {{ready: false, serving: true, terminating: true}}}}"


@both
def test_replicas_are_the_ready_pods_of_the_own_service(tmp_path: Path) -> None:
    async def story() -> None:
        settings = Kubernetes(enabled=True, service="default/me")
        first = own_pods("me-a", READY.format("10.1.0.1"), READY.format("10.1.0.2"), UNREADY.format("10.1.0.3"))
        # Each pod a second time, by its other address.
        other = own_pods("me-six", READY.format('"2001:db8::1"'), READY.format('"2001:db8::2"'), family="IPv6")
        async with running(tmp_path, *FIRST, first, other, settings=settings) as one:
            assert one.live.replicas() == 2
            revisions = len(one.revisions)
            await one.server.put(*objects(own_pods("me-b", READY.format("10.1.0.4"), READY.format("10.1.0.1"))))
            await until(lambda: one.shares[-1:] == [3])
            assert len(one.revisions) == revisions, "no routes were looked at"
            await one.server.delete("EndpointSlice", "me-a")
            await until(lambda: one.shares[-1] == 2)
            await one.server.delete("EndpointSlice", "me-b")
            await one.server.delete("EndpointSlice", "me-six")
            await until(lambda: one.shares[-1] == 1)
        async with running(tmp_path, *FIRST, first) as one:
            assert one.live.replicas() == 1, "no Service is named"

    asyncio.run(story())


def test_older_crds_are_told_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def older(server: ApiServer) -> None:
        server.resources = {each for each in server.resources if each[2] not in ("tcproutes", "listenersets")}
        server.resources.add(("gateway.networking.k8s.io", "v1alpha2", "tcproutes"))

    async def story() -> None:
        async with running(tmp_path, *FIRST, before=older) as one:
            assert one.names() == ["HTTPRoute/default/a"]
            await until(lambda: one.server.status("GatewayClass", "isthmus", "").get("conditions"))
            conditions = one.server.status("GatewayClass", "isthmus", "")["conditions"]
            (found,) = [each for each in conditions if each["type"] == "SupportedVersion"]
            assert (found["status"], found["reason"]) == ("False", "UnsupportedVersion")

    asyncio.run(story())
    (line,) = [each.getMessage() for each in caplog.records if "CRDs of Gateway API" in each.getMessage()]
    assert line.endswith("TCPRoute is read as v1alpha2; there is no ListenerSet")


def test_crds_that_come_and_go_are_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No object comes along with them, and still the GatewayClass says how they are; nothing else is a new revision."""
    caplog.set_level("INFO")
    tcp, old, sets = (
        ("gateway.networking.k8s.io", version, plural)
        for version, plural in (("v1", "tcproutes"), ("v1alpha2", "tcproutes"), ("v1", "listenersets"))
    )

    def older(server: ApiServer) -> None:
        server.resources = server.resources - {tcp, sets} | {old}

    async def story() -> None:
        async with running(tmp_path, *FIRST, before=older) as one:

            def told() -> str:
                conditions = one.server.status("GatewayClass", "isthmus", "").get("conditions", ())
                found = (f"{each['status']} {each['message']}" for each in conditions if each["type"] == "SupportedVersion")
                return next(found, "")

            await until(lambda: "there is no ListenerSet" in told() and "TCPRoute is read as v1alpha2" in told())
            before = len(one.revisions)
            one.server.resources.add(sets)
            await until(lambda: "ListenerSet" not in told() and told().startswith("False"))
            one.server.resources.add(tcp)
            await one.server.end_watches()
            await until(lambda: told().startswith("True"))
            one.server.resources -= {tcp, old}
            await one.server.end_watches()
            await until(lambda: told().endswith("there is no TCPRoute"))
            assert all(each.model == one.revisions[0].model for each in one.revisions[before:])
            one.server.fail("/tcproutes", 500, times=5)
            await until(lambda: not one.server.failures["/tcproutes"])
            assert told().endswith("there is no TCPRoute"), "trouble says nothing about it"

    asyncio.run(story())
    lines = [each.getMessage() for each in caplog.records if "CRDs of Gateway API" in each.getMessage()]
    assert len(lines) == 4 and "are now those of" in lines[2]


def test_without_an_api_server_the_objects_of_last_time_are_served(tmp_path: Path) -> None:
    """And are flagged; what was changed or went away meanwhile is, as soon as the server is there, and not before."""
    cache = tmp_path / "objects"
    settings = Kubernetes(enabled=True, cache=str(cache))
    tls = "[{name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: s}]}}]"
    pair = secret("s", make_pair("any.test"))
    given = (gateway(listeners=tls), WEB, route("a", to("web")), route("gone", to("web"), hosts="[gone.test]"), pair)

    async def story() -> None:
        async with running(tmp_path, *given, settings=settings) as one:
            assert len(one.names()) == 2
        assert cache.is_file()
        server = ApiServer()
        place = await server.start()
        await server.put(*objects(CLASS, *given[:3], given[4], route("new", to("web"), hosts="[new.test]")))
        await server.stop()
        again = Running(server, tmp_path / "gateway.yaml", settings, "this-one")
        again.live._answers_within_s = 0.2
        again.live.start()
        try:
            await asyncio.wait_for(again.go(), 10)
            assert again.names() == ["HTTPRoute/default/a", "HTTPRoute/default/gone"]
            assert again.revisions[-1].secured.listeners, "the certificate came along"
            assert "no API server has answered" in again.live.stale_reason() and again.live.facts().is_stale
            assert again.live.unready_reason() == ""
            await server.start(int(place.rpartition(":")[2]))
            await until(lambda: again.names() == ["HTTPRoute/default/a", "HTTPRoute/default/new"])
            assert again.live.stale_reason() == "" and not again.live.facts().is_stale
            await until(lambda: programmed(server) == "True Programmed")
        finally:
            if again.task is not None:
                again.task.cancel()
                await asyncio.gather(again.task, return_exceptions=True)
            await again.live.stop()
            await server.stop()

    asyncio.run(story())


@both
def test_of_two_gateways_one_writes_and_the_other_takes_over(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, *FIRST) as one:
            await until(lambda: programmed(one.server))
            other = Running(one.server, tmp_path / "gateway.yaml", Kubernetes(enabled=True), "other")
            other.live.start()
            await other.go()
            await until(lambda: other.live.leader is not None and other.live.leader.holder == "this-one")
            assert other.names() == one.names() and other.live.writer.writes == 0
            assert other.task is not None and one.live.leader is not None
            # The first is cut off; its lease runs out.
            for task in [task for task in one.live._tasks if task.get_coro().__name__ == "run"]:  # type: ignore[union-attr]
                if task.get_coro().cr_frame.f_locals.get("self") is one.live.leader:  # type: ignore[union-attr]
                    task.cancel()
            await until(lambda: other.live._is_leading())
            await one.server.put(*objects(route("b", to("web"))))
            await until(lambda: one.server.status("HTTPRoute", "b").get("parents"))
            # The server has it before its answer is here.
            await until(lambda: other.live.writer.writes)
            assert not one.live._is_leading()
            other.task.cancel()
            await asyncio.gather(other.task, return_exceptions=True)
            await other.live.stop()

    asyncio.run(story())


@both
def test_namespaces_that_are_not_asked_for_are_not_seen(tmp_path: Path) -> None:
    async def story() -> None:
        settings = Kubernetes(enabled=True, namespaces=("default",))
        more = (gateway(namespace="other"), route("x", to("web"), namespace="other"))
        async with running(tmp_path, *FIRST, *more, settings=settings) as one:
            assert one.names() == ["HTTPRoute/default/a"]
            assert not [path for _, path, _ in one.server.requests if path.endswith("/v1/httproutes")]

    asyncio.run(story())


@both
def test_config_maps_of_the_label_are_part_of_the_configuration(tmp_path: Path) -> None:
    text = """
kind: ConfigMap
metadata: {name: more, labels: {isthmus.io/config: "true"}}
data:
  routes.yaml: |
    clusters: [{name: c, endpoints: ["127.0.0.1:9"]}]
    routes: [{name: from-map, rules: [{backendRefs: [{name: c}]}]}]
"""

    async def story() -> None:
        async with running(tmp_path, *FIRST) as one:
            await one.server.put(*objects(text))
            await until(lambda: "from-map" in one.names())
            await one.server.delete("ConfigMap", "more")
            await until(lambda: "from-map" not in one.names())

    asyncio.run(story())
