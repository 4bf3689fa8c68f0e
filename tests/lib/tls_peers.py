"""Real peers of a gateway that speaks TLS: openssl and curl as clients, origins that say what they were told."""

import json
import re
import shutil
import ssl
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from faulty import Origin, Wire, answer
from gateway_process import Gateway, request
from until import wait_until

NAME = "web.test"
GET = b"GET / HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n"
SECONDS = 60


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"no {program} here: apt-get install {program}")


@dataclass
class Said:
    """What a client's process wrote, and how it ended."""

    text: str
    status: int

    def value(self, pattern: str) -> str:
        """The first group of the pattern, which must be there."""
        found = re.search(pattern, self.text, re.M)
        assert found, f"no {pattern!r} in:\n{self.text}"
        return found[1]


def run(command: Sequence[str], given: bytes = b"") -> Said:
    ended = subprocess.run(command, input=given, capture_output=True, timeout=SECONDS, check=False)
    return Said((ended.stdout + ended.stderr).decode("utf-8", "replace"), ended.returncode)


def s_client(address: str, *options: str, name: str | None = NAME, given: bytes = GET) -> Said:
    """openssl s_client, which stays until the gateway has closed; no name: no SNI."""
    named = ["-servername", name] if name is not None else ["-noservername"]
    return run(["openssl", "s_client", "-connect", address, *named, "-ign_eof", *options], given)


def curl(address: str, ca: Path, *options: str, path: str = "/", name: str = NAME) -> Said:
    host, _, port = address.rpartition(":")
    where = ["--resolve", f"{name}:{port}:{host}", "--cacert", str(ca)]
    return run(["curl", "-sSv", "--no-progress-meter", *where, *options, f"https://{name}:{port}{path}"])


def echo(origin: Origin, wire: Wire) -> None:
    """Answers each request with its fields, as JSON."""
    while (asked := wire.request()) is not None:
        origin.requests.append(asked)
        wire.send(answer(json.dumps([asked.target, asked.fields]).encode()))


def echoed(said: Said) -> dict[str, list[str]]:
    """The fields that reached an `echo`, by name."""
    fields: dict[str, list[str]] = {}
    for name, value in json.loads(said.value(r"^(\[\"/.*\]\]\])"))[1]:
        fields.setdefault(name, []).append(value)
    return fields


def secure(script: Any, context: ssl.SSLContext) -> Any:
    """The script of a faulty.Origin, in TLS."""

    def inside(origin: Origin, wire: Wire) -> None:
        with context.wrap_socket(wire.sock, server_side=True) as sock:
            wire.sock = sock
            script(origin, wire)

    return inside


def counter(gateway: Gateway, name: str) -> float:
    """A metric without labels, summed over the workers."""
    return value_of(request(gateway.admin, "/metrics")[2].decode(), name)


def value_of(metrics: str, name: str) -> float:
    return sum(float(line.rpartition(" ")[2]) for line in metrics.splitlines() if re.match(rf"isthmus_{name}[ {{]", line))


def until_quiet(gateway: Gateway) -> None:
    """No client is connected any more."""
    wait_until(lambda: counter(gateway, "downstream_connections_active") == 0)


def records_of(gateway: Gateway, n: int) -> list[dict[str, Any]]:
    """The access log, once it has n records."""

    def read() -> list[dict[str, Any]] | None:
        found = [json.loads(line) for line in gateway.stdout.splitlines()]
        return found if len(found) >= n else None

    found = wait_until(read)
    assert found is not None
    return found


def assert_nothing_raised(gateway: Gateway) -> None:
    assert "Traceback" not in gateway.stderr and "Exception" not in gateway.stderr, gateway.stderr
