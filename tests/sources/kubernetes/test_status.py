"""Statuses as the API server takes them."""

from kube import Cluster, gateway, route, service, to

from gateway.sources.kubernetes.status import GatewayStatus, RouteStatus, condition, pending, to_plain

CLUSTER = Cluster(gateway(), service("web", 80), route("r", to("web"), "[{name: gw, sectionName: http}]", generation=3))
GATEWAY = CLUSTER.translation.statuses["Gateway", "default", "gw"]  # type: ignore[index]
ROUTE = CLUSTER.translation.statuses["HTTPRoute", "default", "r"]  # type: ignore[index]


def test_they_are_written_in_the_words_of_the_api() -> None:
    plain = to_plain(ROUTE)["parents"][0]
    assert plain["parentRef"] == {"name": "gw", "group": "gateway.networking.k8s.io", "kind": "Gateway", "sectionName": "http"}
    assert plain["controllerName"] == "isthmus.io/gateway-controller"
    accepted = plain["conditions"][0]
    assert {key: accepted[key] for key in ("type", "status", "reason", "observedGeneration")} == {
        "type": "Accepted", "status": "True", "reason": "Accepted", "observedGeneration": 3,
    }  # fmt: skip
    listener = to_plain(GATEWAY)["listeners"][0]
    assert (listener["name"], listener["attachedRoutes"]) == ("http", 1)
    assert listener["supportedKinds"][0] == {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute"}


def test_nothing_is_programmed_before_the_workers_have_it() -> None:
    waiting = pending(GATEWAY)
    assert isinstance(waiting, GatewayStatus) and isinstance(GATEWAY, GatewayStatus)
    for conditions in (waiting.conditions, waiting.listeners[0].conditions):
        found = condition(conditions, "Programmed")
        assert found is not None and (found.status, found.reason) == ("Unknown", "Pending")
        accepted = condition(conditions, "Accepted")
        assert accepted is not None and accepted.status == "True"
    assert isinstance(ROUTE, RouteStatus) and pending(ROUTE) is ROUTE and condition(GATEWAY.conditions, "Absent") is None


def test_what_is_shut_stays_shut_while_waiting() -> None:
    shut = Cluster(gateway(listeners="[{name: x, port: 53, protocol: UDP}]")).translation.statuses["Gateway", "default", "gw"]  # type: ignore[index]
    assert pending(shut) == shut
