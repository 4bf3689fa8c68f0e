"""Rate limits in a gateway of several workers: what is allowed does not depend on how many there are, and outlives each of them."""

import os
import re
import signal
from pathlib import Path

import pytest
from gateway_process import Gateway, Origin, request
from until import wait_until

CONFIG = """
accessLog: {{format: "off"}}
listeners: [{{name: web, address: "127.0.0.1:0", rateLimits: [few]}}]
routes:
  - name: all
    rules: [{{backendRefs: [{{name: site}}]}}]
rateLimits:
  - {{name: few, limit: {{requests: 60, per: 1h, burst: 15}}, mode: local}}
clusters:
  - {{name: site, endpoints: ["{origin}"]}}
"""


def statuses(gateway: Gateway, n: int) -> list[int]:
    """Each request comes on a connection of its own, so that all workers have some."""
    return [request(gateway.address(), "/")[0] for _ in range(n)]


@pytest.mark.parametrize("workers", [1, 3])
def test_as_much_is_allowed_with_many_workers_as_with_one(tmp_path: Path, workers: int) -> None:
    with Origin() as origin:
        config = tmp_path / "gateway.yaml"
        config.write_text(CONFIG.format(origin=origin.address))
        stay_within_the_limit(config, workers)


def stay_within_the_limit(config: Path, workers: int) -> None:
    with Gateway(config, workers=workers) as gateway:
        got = statuses(gateway, 120)
        assert got == [200] * 75 + [429] * 45
        if workers > 1:
            # A worker that dies takes no count with it, and its successor finds the same.
            victim = gateway.serving()[0]
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda: victim not in gateway.serving() and len(gateway.serving()) == workers, 30)
            assert statuses(gateway, 20) == [429] * 20
        text = request(gateway.admin, "/metrics")[2].decode()
        cell = r'isthmus_ratelimit_decisions_total\{decision="(\w+)",limit="few",source="local"\} ([0-9.]+)'
        counted = dict(re.findall(cell, text))
        assert float(counted["allowed"]) == 75
        assert float(counted["denied"]) == (45 if workers == 1 else 65)
