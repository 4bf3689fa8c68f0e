"""Where this gateway runs: its node, which the pod is told as NODE_NAME, and that node's zone; endpoints nearby are found by it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from gateway.sources.kubernetes.backoff import Backoff
from gateway.sources.kubernetes.client import ApiClient, ApiError, Unreachable
from gateway.sources.kubernetes.meta import Object

log = logging.getLogger("gateway.sources.kubernetes")

ZONE_LABEL = "topology.kubernetes.io/zone"
TRIES = 4
"""Of a server that answers other questions: a near endpoint is worth no longer wait."""


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Empty words where nobody says."""

    node: str = ""
    zone: str = ""


NOWHERE = Whereabouts()


async def find_whereabouts(client: ApiClient, backoff: Callable[[], Backoff] = Backoff) -> Whereabouts:
    """Asks for the node once. Without a name of it, or the right to look at it, its zone stays unknown; raises nothing."""
    name = os.environ.get("NODE_NAME", "")
    if not name:
        return NOWHERE
    waits, why = backoff(), ""
    for number in range(TRIES):
        if number:
            await asyncio.sleep(waits.delay())
        try:
            node = msgspec.json.decode(await client.request("GET", f"/api/v1/nodes/{name}"), type=Object)
        except ApiError as error:
            why = str(error)
            if error.status in (403, 404):
                break
        except (Unreachable, msgspec.MsgspecError) as error:
            why = str(error)
        else:
            zone = node.labels.get(ZONE_LABEL, "")
            log.info("runs on node %s, zone %s", name, zone or "unknown")
            return Whereabouts(name, zone)
    log.warning("runs on node %s, whose zone is not known: %s; kubernetes.zone can say it", name, why)
    return Whereabouts(name)
