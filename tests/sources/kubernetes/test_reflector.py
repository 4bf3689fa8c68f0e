"""Reflectors against an API server on a socket: they hold what it has, whatever happens to it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import yaml
from apiserver import ApiServer
from manifests import crd_files
from realserver import ADMIN, RealApiServer, needs_real
from servers import AnyServer, client_of, new_server
from until import until

from gateway.sources.kubernetes import reflector
from gateway.sources.kubernetes.backoff import Backoff
from gateway.sources.kubernetes.grpc_route import GRPCRoute
from gateway.sources.kubernetes.kinds import KINDS, Kind
from gateway.sources.kubernetes.meta import Ref
from gateway.sources.kubernetes.reflector import Holding, Reflector, State

both = pytest.mark.usefixtures("each_server")


def config_map(name: str, text: str = "1", namespace: str = "default", **labels: str) -> dict[str, object]:
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"text": text}}


class Watched:
    """A server, and a reflector of one of its kinds."""

    def __init__(self, server: AnyServer, kind: str = "ConfigMap", **options: object) -> None:
        self.server = server
        self.changes: list[str] = []
        self.holding = Holding(lambda ref, before, after: self.changes.append(ref.name))
        self.client = client_of(server)
        backoff = Backoff(0.01, 0.05)
        self.reflector = Reflector(self.client, self.holding, KINDS[kind], backoff=backoff, missing_retry_s=0.05, **options)  # type: ignore[arg-type]
        self.facts = self.reflector.facts

    def texts(self) -> dict[str, str]:
        found = self.holding.store.all(KINDS["ConfigMap"].type)
        return {each.metadata.name: each.data["text"] for each in found if "text" in (each.data or {})}  # type: ignore[attr-defined]

    async def has(self, **texts: str) -> None:
        await until(lambda: self.texts() == texts)


@contextlib.asynccontextmanager
async def watched(*objects: dict[str, object], kind: str = "ConfigMap", **options: object) -> AsyncIterator[Watched]:
    server = new_server()
    await server.start()
    await server.put(*objects)
    one = Watched(server, kind, **options)
    task = asyncio.get_running_loop().create_task(one.reflector.run())
    try:
        yield one
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await one.client.close()
        await server.stop()


@both
def test_it_lists_and_then_follows() -> None:
    async def story() -> None:
        async with watched(config_map("a"), config_map("b")) as one:
            await one.has(a="1", b="1")
            await one.server.put(config_map("a", "2"), config_map("c"))
            await one.has(a="2", b="1", c="1")
            await one.server.delete("ConfigMap", "b")
            await one.has(a="2", c="1")
            assert one.server.lists("configmaps") == 1
            assert one.facts.state is State.SYNCED and one.facts.has_synced

    asyncio.run(story())


@both
def test_a_long_list_comes_in_pages() -> None:
    async def story() -> None:
        objects = [config_map(f"m{number}") for number in range(25)]
        async with watched(*objects, page=10) as one:
            await until(lambda: one.facts.has_synced)
            assert len(one.texts()) == 25
            assert one.server.count("GET", "/configmaps", limit="10") == 3

    asyncio.run(story())


@both
def test_a_list_that_expires_between_two_pages_is_taken_in_one_piece() -> None:
    async def story() -> None:
        server = new_server()
        await server.start()
        await server.put(*[config_map(f"m{number}") for number in range(25)])
        one = Watched(server, page=10)
        client, asked = one.client, one.client.request

        async def request(method: str, path: str, params: dict[str, str], **more: object) -> bytes:
            if "continue" in params:
                await server.compact()
            return await asked(method, path, params, **more)  # type: ignore[arg-type]

        one.client = type("Compacting", (), {"request": staticmethod(request)})()  # type: ignore[assignment]
        reflector = Reflector(one.client, one.holding, KINDS["ConfigMap"], page=10)
        await reflector._list()
        assert len(one.texts()) == 25
        assert server.count("GET", "/configmaps") == 3
        await client.close()
        await server.stop()

    asyncio.run(story())


@both
def test_a_watch_that_ends_is_resumed_where_it_was() -> None:
    async def story() -> None:
        async with watched(config_map("a")) as one:
            await one.has(a="1")
            await one.server.put(config_map("a", "2"))
            await one.has(a="2")
            for text in ("3", "4"):
                begun = one.server.watches("configmaps")
                await one.server.end_watches()
                await until(lambda begun=begun: one.server.watches("configmaps") > begun)  # type: ignore[misc]
                await one.server.put(config_map("a", text))
                await one.has(a=text)
            assert one.server.lists("configmaps") == 1

    asyncio.run(story())


def test_bookmarks_keep_the_place_of_a_kind_in_which_nothing_happens() -> None:
    async def story() -> None:
        async with watched(config_map("a")) as one:
            await one.has(a="1")
            await until(lambda: one.server.watches("configmaps") == 1)
            assert isinstance(one.server, ApiServer)
            for number in range(5):
                await one.server.put({"kind": "Namespace", "metadata": {"name": f"n{number}"}})
            await one.server.bookmark()
            await until(lambda: one.facts.events == 1)
            # Without the bookmark the place would be older than this.
            await one.server.compact()
            await one.server.end_watches()
            await one.server.put(config_map("a", "2"))
            await one.has(a="2")
            assert one.server.lists("configmaps") == 1

    asyncio.run(story())


@needs_real
def test_the_bookmarks_of_kubernetes_move_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """It sends one two seconds before a watch ends; the next watch begins there although nothing has happened to the kind."""
    monkeypatch.setattr(reflector, "WATCH_AT_LEAST_S", 3)

    async def story() -> None:
        server = RealApiServer()
        await server.start()
        one = Watched(server, "Service")
        task = asyncio.get_running_loop().create_task(one.reflector.run())
        await until(lambda: one.facts.has_synced)
        begun = one.reflector._place
        await server.put(config_map("a"))
        await until(lambda: one.facts.watches >= 3)
        assert one.facts.events >= 1 and one.facts.errors == 0 and int(one.reflector._place) > int(begun)
        assert server.lists("services") == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await one.client.close()
        await server.stop()

    asyncio.run(story())


@needs_real
def test_a_crd_that_comes_late() -> None:
    """As Kubernetes does it: the paths of a kind are there a moment after its CRD, and its first watches are refused with 429
    until the server's cache of the kind stands, which it has taken half a minute for."""
    late = Kind(GRPCRoute, "late.isthmus.io", ("v2", "v1"), "grpcroutes", is_required=False)
    (crd,) = [
        each
        for file in crd_files("standard")
        for each in yaml.safe_load_all(file.read_text())
        if each["kind"] == "CustomResourceDefinition" and each["spec"]["names"]["kind"] == "GRPCRoute"
    ]
    crd["metadata"] = {"name": f"grpcroutes.{late.group}"}
    crd["spec"]["group"] = late.group
    route = {"apiVersion": f"{late.group}/v1", "kind": "GRPCRoute", "metadata": {"name": "r"}, "spec": {}}

    async def story() -> None:
        server = RealApiServer()
        server.token = ADMIN  # the gateway's own may not ask for a kind that is none of its kinds
        await server.start()
        one = Watched(server)
        follower = Reflector(one.client, one.holding, late, backoff=Backoff(0.01, 0.05), missing_retry_s=0.05)
        task = asyncio.get_running_loop().create_task(follower.run())
        await until(lambda: follower.facts.state is State.MISSING)
        server.control.apply(crd)
        await until(lambda: follower.facts.state is State.SYNCED, 120)
        assert one.holding.versions["GRPCRoute"] == "v1"
        server.control.ask("POST", late.api_path("v1", "default"), route)
        await until(lambda: one.holding.store.find(Ref("GRPCRoute", "default", "r")), 120)
        server.control.ask("DELETE", f"{late.api_path('v1', 'default')}/r")
        await until(lambda: not len(one.holding.store))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await one.client.close()
        await server.stop()

    asyncio.run(story())


@both
def test_a_place_that_is_forgotten_makes_another_list_which_finds_what_is_gone() -> None:
    async def story() -> None:
        async with watched(config_map("a"), config_map("b")) as one:
            await one.has(a="1", b="1")
            await until(lambda: one.server.watches("configmaps") == 1)
            port = one.server.port
            await one.server.stop()
            await one.server.delete("ConfigMap", "b")
            await one.server.put(config_map("c"))
            await one.server.compact()
            assert one.texts() == {"a": "1", "b": "1"}
            await one.server.start(port)
            await one.has(a="1", c="1")
            assert one.server.lists("configmaps") == 2
            assert one.changes.count("a") == 1, "what is as it was is no news"

    asyncio.run(story())


@both
def test_while_the_server_is_away_what_is_known_stays() -> None:
    async def story() -> None:
        async with watched(config_map("a")) as one:
            await one.has(a="1")
            port = one.server.port
            await one.server.stop()
            await until(lambda: one.facts.state is State.AWAY)
            assert one.texts() == {"a": "1"} and one.facts.last_error
            await one.server.start(port)
            await one.server.put(config_map("a", "2"))
            await one.has(a="2")
            assert one.server.lists("configmaps") == 1 and one.facts.state is State.SYNCED

    asyncio.run(story())


@both
def test_a_server_that_is_back_is_not_away_although_nothing_happens() -> None:
    async def story() -> None:
        async with watched(config_map("a")) as one:
            await one.has(a="1")
            port, events = one.server.port, one.facts.events
            await one.server.stop()
            await until(lambda: one.facts.state is State.AWAY)
            await one.server.start(port)
            await until(lambda: one.facts.state is State.SYNCED)
            assert one.facts.events == events and one.server.lists("configmaps") == 1

    asyncio.run(story())


@pytest.mark.parametrize("status", [500, 429, 401, 403])
def test_a_refusal_is_waited_out(status: int) -> None:
    async def story() -> None:
        async with watched() as one:
            await until(lambda: one.facts.has_synced)
            await one.server.put(config_map("a", "0"))
            await one.has(a="0")
            assert isinstance(one.server, ApiServer)
            one.server.fail("/configmaps", status, 2, retry_after="0")
            await one.server.end_watches()
            await one.server.put(config_map("a"))
            await one.has(a="1")
            assert one.facts.errors == 2 and str(status) in one.facts.last_error
            assert one.server.lists("configmaps") == 1

    asyncio.run(story())


def test_a_kind_without_its_crd_is_skipped_and_picked_up_when_it_comes() -> None:
    async def story() -> None:
        grpc = ("gateway.networking.k8s.io", "v1", "grpcroutes")
        server = ApiServer()
        server.resources = server.resources - {grpc}
        await server.start()
        one = Watched(server, "GRPCRoute")
        task = asyncio.get_running_loop().create_task(one.reflector.run())
        await until(lambda: one.facts.state is State.MISSING)
        assert one.facts.has_synced, "nobody waits for it"
        server.resources.add(grpc)
        await server.put({"kind": "GRPCRoute", "metadata": {"name": "r"}, "spec": {}})
        await until(lambda: one.holding.store.find(Ref("GRPCRoute", "default", "r")))
        server.resources.discard(grpc)
        await server.end_watches()
        await until(lambda: one.facts.state is State.MISSING)
        assert not len(one.holding.store), "with the CRD its objects are gone"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await one.client.close()
        await server.stop()

    asyncio.run(story())


def test_an_older_version_of_the_api_is_taken_where_there_is_no_newer() -> None:
    async def story() -> None:
        server = ApiServer()
        server.resources = {each for each in server.resources if each[2] != "tcproutes"}
        server.resources.add(("gateway.networking.k8s.io", "v1alpha2", "tcproutes"))
        await server.start()
        await server.put({"kind": "TCPRoute", "metadata": {"name": "r"}, "spec": {"rules": []}})
        one = Watched(server, "TCPRoute")
        task = asyncio.get_running_loop().create_task(one.reflector.run())
        await until(lambda: one.holding.store.find(Ref("TCPRoute", "default", "r")))
        assert one.holding.versions["TCPRoute"] == "v1alpha2"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await one.client.close()
        await server.stop()

    asyncio.run(story())


@both
def test_namespace_label_and_name_are_the_servers_to_choose_by() -> None:
    async def story() -> None:
        objects = [config_map("a", x="y"), config_map("b"), config_map("c", namespace="other", x="y")]
        async with watched(*objects, namespace="default", labels="x=y") as one:
            await one.has(a="1")
            await one.server.put(config_map("b", "2", x="y"))
            await one.has(a="1", b="2")
            await one.server.put(config_map("b", "3"))
            await one.has(a="1")
        async with watched(*objects, namespace="other", name="c") as one:
            await one.has(c="1")

    asyncio.run(story())


def test_an_object_that_two_see_stays_until_neither_does() -> None:
    changes: list[tuple[str, bool]] = []
    holding = Holding(lambda ref, before, after: changes.append((ref.name, after is not None)))
    kind, raw = KINDS["ConfigMap"], b'{"metadata": {"name": "m", "namespace": "default", "resourceVersion": "%d"}}'
    ref = Ref("ConfigMap", "default", "m")
    for number, seer in enumerate(("one", "two")):
        assert holding.put(seer, kind, raw % number) == ref  # type: ignore[arg-type]
    holding.drop("one", ref)
    assert holding.store.find(ref) is not None and changes == [("m", True)], "another version alone is no change"
    holding.drop("two", ref)
    assert holding.store.find(ref) is None and changes == [("m", True), ("m", False)]
