"""What is written back: our own entries, when something is different, and nothing else."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from apiserver import ApiServer
from kube import Cluster, gateway, route, service, to
from servers import AnyServer, client_of, new_server
from until import until

from gateway.sources.kubernetes.backoff import Backoff
from gateway.sources.kubernetes.kinds import KINDS
from gateway.sources.kubernetes.meta import Ref
from gateway.sources.kubernetes.reflector import Holding, Reflector
from gateway.sources.kubernetes.status import Status, to_plain
from gateway.sources.kubernetes.status_writer import StatusWriter, next_status

OURS = "isthmus.io/gateway-controller"
CLUSTER = Cluster(gateway(), service("web", 80), route("r", to("web")))
STATUSES = CLUSTER.translation.statuses
GATEWAY, ROUTE = Ref("Gateway", "default", "gw"), Ref("HTTPRoute", "default", "r")
EARLY, LATE = "2026-01-01T00:00:00Z", "2026-06-01T00:00:00Z"
OBJECTS: list[dict[str, Any]] = [
    {
        "kind": "Gateway", "metadata": {"name": "gw"},
        "spec": {"gatewayClassName": "isthmus", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]},
    },
    {"kind": "HTTPRoute", "metadata": {"name": "r"}, "spec": {"parentRefs": [{"name": "gw"}]}},
]  # fmt: skip
FOREIGN = {
    "parentRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "other"}, "controllerName": "example.org/other",
    "conditions": [{"type": "Accepted", "status": "True", "reason": "Sure", "message": "", "lastTransitionTime": EARLY}],
}  # fmt: skip


def following(kind: str, ref: Ref, current: dict[str, Any], now: str = LATE) -> dict[str, Any] | None:
    return next_status(kind, to_plain(STATUSES[ref]), current, OURS, now)


def test_what_is_there_already_is_not_written_again() -> None:
    for ref in (GATEWAY, ROUTE, Ref("GatewayClass", "", "isthmus")):
        first = following(ref.kind, ref, {}, EARLY)
        assert first is not None
        assert following(ref.kind, ref, first, LATE) is None


def test_times_stay_where_the_status_stays() -> None:
    first = following("Gateway", GATEWAY, {}, EARLY)
    assert first is not None
    first["conditions"][0]["message"] = "something else"
    first["conditions"][1]["status"] = "False"
    second = following("Gateway", GATEWAY, first)
    assert second is not None
    assert [each["lastTransitionTime"] for each in second["conditions"][:2]] == [EARLY, LATE]


def test_the_default_of_the_crd_is_replaced() -> None:
    waiting = {"status": "Unknown", "reason": "Pending", "message": "", "lastTransitionTime": "1970-01-01T00:00:00Z"}
    default = [{"type": type_, **waiting} for type_ in ("Accepted", "Programmed")]
    made = following("Gateway", GATEWAY, {"conditions": default})
    assert made is not None and {each["status"] for each in made["conditions"]} == {"True"}


def test_entries_of_others_are_sent_back_as_they_are() -> None:
    made = following("HTTPRoute", ROUTE, {"parents": [FOREIGN]})
    assert made is not None and made["parents"][0] == FOREIGN and made["parents"][1]["controllerName"] == OURS
    assert following("HTTPRoute", ROUTE, made) is None


def test_our_entry_of_a_parent_that_is_gone_goes_and_no_other() -> None:
    before = following("HTTPRoute", ROUTE, {"parents": [FOREIGN]})
    assert before is not None
    assert next_status("HTTPRoute", {}, before, OURS, LATE) == {"parents": [FOREIGN]}
    assert next_status("HTTPRoute", {}, {"parents": [FOREIGN]}, OURS, LATE) is None


def test_a_listener_that_is_gone_and_a_condition_of_ours_that_is_not_said_any_more() -> None:
    first = following("Gateway", GATEWAY, {}, EARLY)
    assert first is not None
    more = {**first, "listeners": [*first["listeners"], {**first["listeners"][0], "name": "old"}]}
    assert following("Gateway", GATEWAY, more) == first
    stale = {**first, "conditions": [*first["conditions"], {**first["conditions"][0], "type": "ResolvedRefs"}]}
    assert following("Gateway", GATEWAY, stale) == first
    foreign = {**first, "conditions": [*first["conditions"], {**first["conditions"][0], "type": "example.org/Costs"}]}
    assert following("Gateway", GATEWAY, foreign) is None


def test_an_ingress_keeps_the_address_that_somebody_else_wrote_when_we_know_none() -> None:
    held = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
    assert next_status("Ingress", {"loadBalancer": {"ingress": []}}, held, OURS, LATE) is None
    assert next_status("Ingress", {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}, held, OURS, LATE) is None
    assert next_status("Ingress", {"loadBalancer": {"ingress": [{"ip": "192.0.2.2"}]}}, held, OURS, LATE) is not None


class Desk:
    """A writer that follows a server."""

    def __init__(self, server: AnyServer) -> None:
        self.server = server
        self.leads = True
        self.client = client_of(server)
        self.holding = Holding(lambda ref, before, after: None, lambda ref: self.writer.look_at(ref))
        self.writer = StatusWriter(self.client, self.holding, OURS, lambda: self.leads, Backoff(0.01, 0.05))
        self.reflectors = [Reflector(self.client, self.holding, KINDS[name]) for name in ("Gateway", "HTTPRoute")]

    async def want(self, statuses: dict[Ref, Status]) -> None:
        self.writer.want(statuses)
        await self.quiet()

    async def quiet(self) -> None:
        """Until nothing is left to be done, and the watches have brought back what was written."""
        def is_quiet() -> bool:
            held = [self.holding.resource_versions.get(ref) for ref in (GATEWAY, ROUTE)]
            have = [self.server.get(ref.kind, ref.name)["metadata"]["resourceVersion"] for ref in (GATEWAY, ROUTE)]
            return self.writer.is_idle and held == have

        calm = 0

        def is_calm() -> bool:
            nonlocal calm
            calm = calm + 1 if is_quiet() else 0
            return calm > 5

        await until(is_calm)


@contextlib.asynccontextmanager
async def desk() -> AsyncIterator[Desk]:
    server = new_server()
    await server.start()
    await server.put(*OBJECTS)
    one = Desk(server)
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(work) for work in (one.writer.run(), *(each.run() for each in one.reflectors))]
    await until(lambda: len(one.holding.store) == 2)
    try:
        yield one
        assert not any(task.done() for task in tasks), tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await one.client.close()
        await server.stop()


both = pytest.mark.usefixtures("each_server")
SAID = {GATEWAY: STATUSES[GATEWAY], ROUTE: STATUSES[ROUTE]}


@both
def test_each_object_is_written_once() -> None:
    async def story() -> None:
        async with desk() as one:
            await one.want(SAID)
            await one.want(dict(SAID))
            assert set(one.server.writes().values()) == {1} and len(one.server.writes()) == 2
            assert one.server.status("Gateway", "gw")["listeners"][0]["attachedRoutes"] == 1
            await one.server.put({**OBJECTS[1], "metadata": {"name": "r", "labels": {"a": "b"}}})
            await one.quiet()
            assert one.writer.writes == 2

    asyncio.run(story())


@both
def test_who_does_not_lead_writes_nothing_until_it_does() -> None:
    async def story() -> None:
        async with desk() as one:
            one.leads = False
            await one.want(SAID)
            assert not one.server.writes()
            one.leads = True
            one.writer.look_at_all()
            await until(lambda: one.writer.writes == 2)

    asyncio.run(story())


@both
def test_another_controller_that_writes_in_between_loses_nothing() -> None:
    async def story() -> None:
        async with desk() as one:
            await one.want({GATEWAY: SAID[GATEWAY]})
            # It writes when we have read, and before we write.
            asked = one.client.request
            is_first = True

            class Slow:
                @staticmethod
                async def request(method: str, path: str, *args: Any, **more: Any) -> bytes:
                    nonlocal is_first
                    if "/httproutes/r/status" in path and is_first:
                        is_first = False
                        await one.server.set_status("HTTPRoute", "r", {"parents": [FOREIGN]})
                    return await asked(method, path, *args, **more)

            one.writer.client = Slow()  # type: ignore[assignment]
            one.writer.want(SAID)
            await until(lambda: len(one.server.status("HTTPRoute", "r").get("parents", [])) == 2)
            assert one.server.status("HTTPRoute", "r")["parents"][0] == FOREIGN

    asyncio.run(story())


@both
def test_what_somebody_took_away_is_said_again() -> None:
    async def story() -> None:
        async with desk() as one:
            await one.want(SAID)
            await one.server.set_status("HTTPRoute", "r", {"parents": []})
            await until(lambda: len(one.server.status("HTTPRoute", "r")["parents"]) == 1)

    asyncio.run(story())


@both
def test_a_route_that_left_is_left_without_a_word_of_ours() -> None:
    async def story() -> None:
        async with desk() as one:
            await one.want(SAID)
            await one.want({GATEWAY: SAID[GATEWAY]})
            assert one.server.status("HTTPRoute", "r")["parents"] == []

    asyncio.run(story())


def test_trouble_that_passes_is_waited_out_and_trouble_that_does_not_is_not_repeated() -> None:
    async def story() -> None:
        async with desk() as one:
            assert isinstance(one.server, ApiServer)
            one.server.fail("/gateways/gw/status", 500, 3)
            one.server.fail("/httproutes/r/status", 422, 1)
            one.writer.want(SAID)
            await until(lambda: one.server.status("Gateway", "gw").get("listeners"))
            await one.quiet()
            assert one.writer.errors == 4
            assert one.server.writes()["/apis/gateway.networking.k8s.io/v1/namespaces/default/httproutes/r/status"] == 1

    asyncio.run(story())
