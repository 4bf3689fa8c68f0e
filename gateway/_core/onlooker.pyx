"""An exchange as an operator sees it; see onlooker.pxd."""

from gateway._core.exchange cimport Exchange
from gateway._core.snapshot cimport NONE, Snapshot
from gateway._core.types cimport Span

cdef tuple PHASES = (
    "HEAD", "ROUTE", "FORWARD", "LIMITS", "REQUEST_FILTERS", "PICK", "ACQUIRE", "SEND", "RESPONSE_HEAD", "RESPONSE_FILTERS", "STREAM",
    "LOG",
)


cdef str text_of(Span span):
    """Peers' bytes for an operator's eyes: printable ASCII, everything else as an escape."""
    return (<const char *> span.p)[:span.n].decode("ascii", "backslashreplace")


cdef dict describe_exchange(Exchange ex):
    cdef Snapshot snapshot
    cdef dict row = {
        "phase": PHASES[ex.phase],
        "exchange_ms": (ex.plane.poller.now_us - ex.start_us) // 1000,
        "method": text_of(ex.request.borrow(ex.request.method_text)),
        "path": text_of(ex.request.borrow(ex.request.path)),
    }
    if ex.binding is not None:
        snapshot = ex.binding.snapshot
        if ex.decision.listener != NONE:
            row["listener"] = snapshot.text_of(snapshot.listeners[ex.decision.listener].name)
        if ex.rule != NULL:
            row["route"] = text_of(snapshot.borrow(snapshot.routes[ex.rule.route].name))
    if ex.cluster is not None:
        row["cluster"] = ex.cluster.name.decode("utf-8", "replace")
    if ex.endpoint is not None:
        row["upstream"] = ex.endpoint.text.decode("utf-8", "replace")
    if ex.mirrors is not None:
        row["mirrors"] = len(ex.mirrors)
    return row
