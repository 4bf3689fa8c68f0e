"""Policies that routes name: rate limits, and the store behind the global ones."""

from typing import Annotated, Any, Literal

from msgspec import Meta

from gateway.model.scalars import Doc, Duration, Part


class Rate(Part, frozen=True):
    """So many requests in so long, with so many at once beyond it."""

    requests: Annotated[int, Meta(ge=1, le=1_000_000_000)]
    per: Duration
    burst: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 0


class RateLimit(Part, frozen=True):
    """A limit that rules name in `rateLimits`."""

    name: Annotated[str, Doc("Stands once in the configuration")]
    limit: Rate
    key: Annotated[
        tuple[str, ...],
        Doc("What is counted apart: clientAddress, header:NAME, cookie:NAME, query:NAME, host, path, method, route, constant"),
    ] = ("clientAddress",)
    mode: Annotated[Literal["strict", "leased", "local"], Doc("How exact, and at what price")] = "leased"
    on_failure: Annotated[Literal["open", "closed", "local"], Doc("What happens while the store does not answer")] = "open"
    shadow: Annotated[bool, Doc("Count and report, never refuse")] = False


class Redis(Part, frozen=True):
    """Redis or Valkey. The URL may carry a password, so it is never shown whole."""

    url: Annotated[str, Doc("redis://, rediss:// or unix://; Sentinel by ?sentinel=..., Cluster by ?cluster=true")]
    timeout: Duration = Duration(10)

    def __repr__(self) -> str:
        return f"Redis(url={redact_url(self.url)!r}, timeout={self.timeout!r})"

    def __rich_repr__(self) -> Any:
        yield "url", redact_url(self.url)
        yield "timeout", self.timeout


def redact_url(url: str) -> str:
    """The URL without its user, password and query values."""
    base, mark, query = url.partition("?")
    scheme, colon, rest = base.partition("://")
    if colon and "@" in rest:
        rest = "***@" + rest.rpartition("@")[2]
    elif not colon and "@" in base:
        scheme, rest = "***@" + base.rpartition("@")[2], ""
    shown = "&".join(f"{pair.partition('=')[0]}=***" if "=" in pair else "***" for pair in query.split("&")) if mark else ""
    return scheme + colon + rest + mark + shown
