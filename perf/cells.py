"""The cells: what is asked of the gateways, and which bars stand over each."""

from dataclasses import dataclass

from perf import limits
from perf.figures import Bar
from perf.gateways import LARGE, MEDIUM, PEERS, SMALL


@dataclass(frozen=True, slots=True)
class Cell:
    """One kind of traffic, sent to every gateway in turn."""

    key: str
    what: str
    path: str
    answer: int  # bytes of the response's content
    connections: int
    wrk: bool  # False: loadgen.c, for the reasons that stand in its head
    bars: tuple[Bar, ...]
    upload: int = 0
    close: bool = False
    tls: bool = False  # on the port with the certificate, by full handshakes with the terms of tls.py
    shakes: bool = False  # handshakes alone; no request
    streams: int = 0  # HTTP/2 with so many streams on each connection; 0: HTTP/1.1
    fields: tuple[str, ...] = ()  # further fields of the request

    @property
    def work(self) -> str:
        """What is counted."""
        return "handshake" if self.shakes else "request"


TRAFFIC = {
    cell.key: cell
    for cell in (
        Cell(
            "get40",
            "keep-alive GET, 40-byte answer, 64 connections",
            "/",
            SMALL,
            64,
            True,
            (Bar(1.00, "nginx"), Bar(0.95, "haproxy"), Bar(0.50, "envoy")),
        ),
        Cell("get10k", "keep-alive GET, 10 KiB answer, 64 connections", "/10k", MEDIUM, 64, True, (Bar(1.00, "nginx"),)),
        Cell("get1m", "keep-alive GET, 1 MiB answer, 16 connections", "/1m", LARGE, 16, False, (Bar(1.00, "haproxy"),)),
        Cell("put1m", "keep-alive POST of 1 MiB, 16 connections", "/upload", 2, 16, False, (Bar(1.00, "haproxy"),), upload=LARGE),
        Cell("close", "a new connection per request, 64 at a time", "/", SMALL, 64, False, (Bar(1.10, "nginx"),), close=True),
        Cell(
            "tls40",
            "TLS 1.3, keep-alive GET, 40-byte answer, 64 connections",
            "/",
            SMALL,
            64,
            True,
            (Bar(0.95, "nginx"), Bar(0.95, "haproxy")),
            tls=True,
        ),
        Cell(
            "tls10k",
            "TLS 1.3, keep-alive GET, 10 KiB answer, 64 connections",
            "/10k",
            MEDIUM,
            64,
            True,
            (Bar(1.00, "nginx"),),
            tls=True,
        ),
        Cell(
            "tlshake",
            "full TLS 1.3 handshakes, ECDSA P-256, no request, 16 at a time",
            "/",
            SMALL,
            16,
            False,
            (Bar(0.90, "nginx", unit="handshakes per CPU second", least=True),),
            tls=True,
            shakes=True,
        ),
        Cell(
            "tlsput1m",
            "TLS 1.3, keep-alive POST of 1 MiB, 16 connections",
            "/upload",
            2,
            16,
            False,
            (Bar(1.05, "nginx"),),
            upload=LARGE,
            tls=True,
        ),
        Cell(
            "h2get40",
            "HTTP/2 in the clear to HTTP/1.1, GET, 40-byte answer, 8 connections x 32 streams",
            "/",
            SMALL,
            8,
            False,
            (Bar(1.00, "haproxy"), Bar(0.60, "nginx"), Bar(0.35, "envoy")),
            streams=32,
        ),
        Cell(
            "h2tls40",
            "HTTP/2 in TLS 1.3 to HTTP/1.1, GET, 40-byte answer, 8 connections x 32 streams",
            "/",
            SMALL,
            8,
            False,
            (Bar(1.00, "haproxy"), Bar(0.60, "nginx"), Bar(0.35, "envoy")),
            tls=True,
            streams=32,
        ),
        Cell(
            "h2get10k",
            "HTTP/2 in the clear to HTTP/1.1, GET, 10 KiB answer, 8 connections x 32 streams",
            "/10k",
            MEDIUM,
            8,
            False,
            (Bar(1.00, "haproxy"),),
            streams=32,
        ),
        Cell(
            "h2grpc",
            "HTTP/2 to HTTP/2, POST of 128 bytes, 40-byte answer with trailers, 8 connections x 32 streams",
            "/bench.Echo/Call",
            SMALL,
            8,
            False,
            (Bar(1.00, "haproxy"), Bar(0.50, "envoy")),
            upload=128,
            streams=32,
            fields=("content-type: application/grpc", "te: trailers"),
        ),
    )
}
ROUTES_BAR = Bar(1.05, "10 routes")
RELOAD_FAILED = Bar(0, unit="failed")
RELOAD_PAUSE = Bar(5, unit="ms")
IDLE_BAR = Bar(2048, unit="bytes")
FLOOD_REACHED = Bar(500, unit="streams at the origin")
FLOOD_P99 = Bar(2.0, "calm")
DOWNLOAD_BAR = Bar(0.80, "HTTP/1.1", unit="rate", least=True)
SPECIAL = {
    "routes": "10,000 routes (1,000 hosts x 10 rules) against 10 routes, ours against ours",
    "reload": "50 reloads of 10,000 routes under load",
    "download": "100 MiB over one stream of HTTP/2, to either protocol, against HTTP/1.1; ours against ours",
    "flood": "rapid reset, 100,000 streams on a connection, connection after connection, beside a client of good manners; ours",
    "idle": "memory per idle keep-alive connection, 10,000 open",
    **limits.CELLS,
}
ALL = (*TRAFFIC, *SPECIAL)
COLUMNS = (*PEERS, "isthmus")
