"""Who leads: one of several, by a Lease on an API server."""

import asyncio

import pytest
from servers import HOME, AnyServer, client_of, new_server
from until import until

from gateway.sources.kubernetes.leader import Leader

pytestmark = pytest.mark.usefixtures("each_server")


def lease(server: AnyServer) -> dict[str, object]:
    found: dict[str, object] = server.get("Lease", "gw", HOME)["spec"]
    return found


def candidate(server: AnyServer, name: str, duration: float = 1.0) -> Leader:
    return Leader(client_of(server), HOME, "gw", name, duration_s=duration, deadline_s=duration * 0.7, retry_s=0.02)


async def end(task: "asyncio.Task[None]", leader: Leader) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await leader.client.close()


def test_one_leads_and_hands_over_when_it_goes() -> None:
    async def story() -> None:
        server = new_server()
        await server.start()
        loop = asyncio.get_running_loop()
        # So long a lease that only giving it back can make room.
        first, second = candidate(server, "first", 600), candidate(server, "second", 600)
        task = loop.create_task(first.run())
        await until(lambda: first.is_leading)
        other = loop.create_task(second.run())
        await until(lambda: second.holder == "first")
        assert not second.is_leading and lease(server)["holderIdentity"] == "first" and lease(server)["leaseTransitions"] == 0
        begun = lease(server)["renewTime"]
        await until(lambda: lease(server)["renewTime"] != begun)
        await end(task, first)
        assert not first.is_leading
        await until(lambda: second.is_leading)
        assert lease(server)["holderIdentity"] == "second" and lease(server)["leaseTransitions"] == 1
        await end(other, second)
        await server.stop()

    asyncio.run(story())


def test_a_lease_that_is_not_renewed_is_taken() -> None:
    async def story() -> None:
        server = new_server()
        await server.start()
        long_ago = "2020-01-01T00:00:00.000000Z"
        dead = {
            "holderIdentity": "dead", "leaseDurationSeconds": 1, "acquireTime": long_ago, "renewTime": long_ago,
            "leaseTransitions": 4,
        }  # fmt: skip
        await server.put({"kind": "Lease", "metadata": {"name": "gw", "namespace": HOME}, "spec": dead})
        leader = candidate(server, "alive")
        task = asyncio.get_running_loop().create_task(leader.run())
        await until(lambda: leader.holder == "dead")
        assert not leader.is_leading, "its clock may be wrong; what counts is how long it is silent from now on"
        await until(lambda: leader.is_leading)
        assert lease(server)["leaseTransitions"] == 5
        await end(task, leader)
        await server.stop()

    asyncio.run(story())


def test_of_two_who_take_it_at_once_one_is_refused() -> None:
    async def story() -> None:
        server = new_server()
        await server.start()
        leaders = [candidate(server, f"l{number}", 600) for number in range(5)]
        outcomes = await asyncio.gather(*(each._try() for each in leaders))
        assert sum(outcomes) == 1
        for each in leaders:
            await each.client.close()
        await server.stop()

    asyncio.run(story())


def test_who_cannot_renew_stops_in_time() -> None:
    async def story() -> None:
        server = new_server()
        await server.start()
        leader = candidate(server, "cut-off")
        task = asyncio.get_running_loop().create_task(leader.run())
        await until(lambda: leader.is_leading)
        await server.stop()
        await until(lambda: not leader.is_leading)
        assert leader.last_error
        await end(task, leader)

    asyncio.run(story())
