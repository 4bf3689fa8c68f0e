"""Rate limits in a gateway of several workers: what is allowed does not depend on how many there are, and outlives each of them."""

import io
import json
import os
import re
import signal
from pathlib import Path

import pytest
from gateway_process import Gateway, Origin, request
from rich.console import Console
from until import wait_until

from gateway.cli.top import fetch, render

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


KEYS = """
accessLog: {{format: "off"}}
listeners: [{{name: web, address: "127.0.0.1:0", rateLimits: [few, named, many]}}]
routes:
  - name: all
    rules: [{{backendRefs: [{{name: site}}]}}]
rateLimits:
  - {{name: few, limit: {{requests: 10, per: 1h}}, key: [host, path, route], mode: local, shadow: true}}
  - {{name: named, limit: {{requests: 1000, per: 1h}}, mode: local,
      key: ["header:x-key", "cookie:who", "query:token", clientAddress, method, constant]}}
  - {{name: many, limit: {{requests: 1000000, per: 1h}}, key: [path], mode: local}}
clusters:
  - {{name: site, endpoints: ["{origin}"]}}
"""


def top(gateway: Gateway, query: str = "") -> dict[str, list[dict[str, object]]]:
    return {row["name"]: row["keys"] for row in json.loads(request(gateway.admin, "/limits/top" + query)[2])}


def test_the_keys_that_are_met_most_are_known_and_no_secret_is_shown(tmp_path: Path) -> None:
    with Origin() as origin:
        config = tmp_path / "gateway.yaml"
        config.write_text(KEYS.format(origin=origin.address))
        with Gateway(config, workers=2) as gateway:
            assert top(gateway) == {}
            for number in range(25):
                fields = {"host": "top.test", "x-key": "sesame", "cookie": "who=alice"}
                path = "/hot" if number < 20 else f"/cold/{number}"
                assert request(gateway.address(), f"{path}?token=hidden", headers=fields)[0] == 200
            request(gateway.address(), "/cold/" + "x" * 200, headers={"host": "top.test"})
            found = top(gateway)
            first = found["few"][0]
            assert (first["key"], first["requests"], first["refused"]) == ("host=top.test,path=/hot,route=all", 20, 10)
            assert [row["requests"] for row in found["few"][1:]] == [1] * 6
            assert [row["key"] for row in top(gateway, "?limit=1")["many"]] == ["path=/hot"]
            assert any(str(row["key"]) == "path=/cold/" + "x" * 146 + "..." for row in found["many"])
            digest = "#[0-9a-f]{12}"
            named = [str(row["key"]) for row in found["named"]]
            whole = f"header:x-key={digest},cookie:who={digest},query:token={digest},clientAddress=127.0.0.1,method=GET,constant"
            assert len(named) == 2 and named[1].startswith("header:x-key=-,cookie:who=-,query:token=-,clientAddress=127.0.0.1,")
            assert re.fullmatch(whole, named[0]), named[0]
            text = request(gateway.admin, "/limits/top")[2] + request(gateway.admin, "/stats")[2]
            assert not re.search(b"sesame|alice|hidden", text)
            console = Console(width=200, record=True, file=io.StringIO())
            console.print(render(fetch(gateway.admin)))
            assert re.search(r"few +host=top.test,path=/hot,route=all +[\d.]+ +20 +10\n", console.export_text())
