"""A compiled revision as the workers get it: a memory file, the endpoints of its clusters, and the addresses to listen on."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.control.build import Model
from gateway.control.compile import Compiled
from gateway.supervisor.ipc import Endpoint


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a revision asks of sockets and pools, by the 64-bit ids that the snapshot uses."""

    addresses: dict[int, str]
    """bind id -> address to listen on"""
    endpoints: dict[int, list[Endpoint]]
    """cluster id -> endpoints; names are resolved by the worker"""
    listeners: dict[int, list[str]]
    """bind id -> names of its listeners, for people"""


def wanted_of(model: Model, compiled: Compiled) -> Wanted:
    """The wishes of a revision. A cluster that could not be compiled has no id and no endpoints."""
    return Wanted(
        addresses={compiled.ports[port.address]: port.address for port in model.ports},
        endpoints={
            compiled.clusters[cluster.name]: [
                (endpoint.host.encode(), endpoint.port, endpoint.weight, endpoint.zone.encode()) for endpoint in cluster.endpoints
            ]
            for cluster in model.clusters
            if cluster.name in compiled.clusters
        },
        listeners={
            compiled.ports[port.address]: [model.listeners[number].name for number in port.listeners] for port in model.ports
        },
    )
