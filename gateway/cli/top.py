"""`isthmus top`: the numbers of the admin port as a live table."""

from __future__ import annotations

import http.client
import sys
import time
from typing import Any

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

EVERY_S = 1.0


class Unreachable(Exception):
    """The admin port does not answer as one; the text says why."""


def fetch(admin: str) -> dict[str, Any]:
    """The /stats of an admin port. Raises Unreachable."""
    address = admin.removeprefix("http://").rstrip("/")
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        host, port = address, "9901"
    connection = http.client.HTTPConnection(host.strip("[]") or "127.0.0.1", int(port), timeout=5)
    try:
        connection.request("GET", "/stats")
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise Unreachable(f"{admin} answers {response.status}")
        return msgspec.json.decode(body, type=dict[str, Any])
    except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
        raise Unreachable(f"no gateway answers at {admin}: {error}") from None
    finally:
        connection.close()


def milliseconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value / 1000:.2f} s" if value >= 1000 else f"{value:.1f} ms"


def short(value: float) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):.1f}{unit}"
    return str(int(value)) if value == int(value) else f"{value:.1f}"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold dim", expand=False)
    for column in columns:
        name = column.removeprefix(">")
        table.add_column(name, justify="right" if column.startswith(">") else "left", no_wrap=True)
    return table


def render(stats: dict[str, Any]) -> Group:
    """One look, as rich prints it."""
    totals = stats["totals"]
    head = Text()
    head.append("isthmus ", style="bold")
    head.append("ready" if stats["ready"] else f"not ready: {stats['unready_reason']}", style="green" if stats["ready"] else "red")
    head.append(f"   revision {stats['revision']}   up {stats['uptime_s']:.0f} s   {len(stats['workers'])} workers\n")
    head.append(
        f"{short(totals['requests_per_s'])} req/s   {short(totals['errors_per_s'])} 5xx/s   p50 {milliseconds(totals['p50_ms'])}   "
        f"p99 {milliseconds(totals['p99_ms'])}   {short(totals['connections'])} connections   {short(totals['requests'])} requests"
    )
    parts: list[Any] = [head]
    if stats["last_error"]:
        parts.append(Text(f"the last load was not applied: {stats['last_error']}", style="red"))
    for problem in stats["problems"][:5]:
        parts.append(Text(problem["text"], style="red" if problem["severity"] == "error" else "yellow"))
    routes = _table("ROUTE", "LISTENER", ">REQ/S", ">REQUESTS", ">4XX", ">5XX", ">P50", ">P99")
    for row in stats["routes"][:20]:
        routes.add_row(
            Text(row["route"] or "(no route)"), Text(row["listener"] or "-"), short(row["requests_per_s"]), short(row["requests"]),
            short(row["c4xx"]), Text(short(row["c5xx"]), style="red" if row["c5xx"] else ""), milliseconds(row["p50_ms"]),
            milliseconds(row["p99_ms"]),
        )  # fmt: skip
    clusters = _table("CLUSTER", ">ENDPOINTS", ">REQ/S", ">ACTIVE", ">IDLE", ">RETRIES", ">FAILURES", ">EJECTED")
    for row in stats["clusters"][:20]:
        clusters.add_row(
            Text(row["name"]), str(len(row["endpoints"])), short(row["requests_per_s"]), short(row["active"]), short(row["idle"]),
            short(row["retries"]), short(row["failures"]), Text(short(row["ejected"]), style="red" if row["ejected"] else ""),
        )  # fmt: skip
    keys = _table("RATE LIMIT", "KEY", ">REQ/S", ">REQUESTS", ">REFUSED")
    for limit in stats["rate_limits"][:10]:
        for row in limit["keys"]:
            keys.add_row(
                Text(limit["name"]), Text(row["key"]), short(row["requests_per_s"]), short(row["requests"]),
                Text(short(row["refused"]), style="yellow" if row["refused"] else ""),
            )  # fmt: skip
    workers = _table(">WORKER", ">PID", "STATE", ">CONNECTIONS", ">MEMORY", ">RESTARTS")
    for row in stats["workers"]:
        workers.add_row(
            str(row["slot"]), str(row["pid"]), Text(row["state"], style="" if row["state"] == "serving" else "red"),
            short(row["connections"]), f"{row['rss_kib'] / 1024:.1f} MiB", str(row["restarts"]),
        )  # fmt: skip
    for table in (routes, clusters, keys, workers):
        if table.row_count:
            parts.extend((Text(), table))
    return Group(*parts)


def watch_gateway(admin: str, once: bool, as_json: bool) -> int:
    try:
        stats = fetch(admin)
        if as_json:
            print(msgspec.json.encode(stats).decode())
            return 0
        console = Console()
        if once or not console.is_terminal:
            console.print(render(stats))
            return 0
        with Live(render(stats), console=console, screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(EVERY_S)
                live.update(render(fetch(admin)), refresh=True)
    except Unreachable as error:
        print(f"isthmus: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
