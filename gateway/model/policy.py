"""Policies that listeners, routes and clusters name: rate limits, and the store behind the global ones."""

from typing import Annotated, Any, Literal

from msgspec import Meta

from gateway.model.scalars import Doc, Duration, Part, Period

Requests = Annotated[int, Meta(ge=1, le=1_000_000_000)]


class Rate(Part, frozen=True):
    """So many requests in so long. With `gcra` all of them may come at once, and `burst` more; what was taken comes back evenly."""

    requests: Requests
    per: Annotated[Period, Doc("A duration; or second, minute, hour, day, month, which are those of the calendar with `fixed`")]
    burst: Annotated[int, Meta(ge=0, le=1_000_000_000), Doc("More at once, beyond `requests`; gcra alone has it")] = 0


class RateOverride(Part, frozen=True):
    """Another limit for one value of the key. One of `limit`, `concurrency` and `unlimited` says which."""

    key: Annotated[tuple[str, ...], Doc("The value of each part of the limit's key, in its order; an IPv6 client by its /64")]
    limit: Rate | None = None
    concurrency: Requests | None = None
    unlimited: bool = False


class RateLimit(Part, frozen=True):
    """A limit that listeners, routes, rules and clusters name in `rateLimits`: of a rate (`limit`) or of requests in flight."""

    name: Annotated[str, Doc("Stands once in the configuration")]
    limit: Rate | None = None
    concurrency: Annotated[Requests, Doc("Instead of `limit`: requests of one key in flight in a gateway")] | None = None
    key: Annotated[
        tuple[str, ...],
        Doc(
            "What is counted apart: clientAddress (IPv6 by its /64), header:NAME, cookie:NAME, query:NAME, host, path, method, "
            "route, clientSubjectAltName, constant"
        ),
    ] = ("clientAddress",)
    algorithm: Annotated[
        Literal["gcra", "fixed", "sliding"],
        Doc("gcra: even; fixed: by windows of the calendar, in UTC; sliding: by the window in hand and the one before it"),
    ] = "gcra"
    mode: Annotated[Literal["strict", "leased", "local"], Doc("How exact, and at what price")] = "leased"
    cost: Annotated[int, Meta(ge=1, le=1_000_000), Doc("What one request takes")] = 1
    cost_header: Annotated[str, Doc("Field of the response that says what it took after all; the difference is charged")] = ""
    overrides: tuple[RateOverride, ...] = ()
    missing: Annotated[
        Literal["skip", "shared"],
        Doc("A request that lacks a part of the key is not counted (skip), or together with all others that lack it (shared)"),
    ] = "shared"
    on_failure: Annotated[Literal["open", "closed", "local"], Doc("What happens while the store does not answer")] = "open"
    timeout: Annotated[Duration, Doc("How long a request waits for the store at most; none: the timeout of `redis`")] | None = None
    shadow: Annotated[bool, Doc("Count and report, never refuse")] = False
    headers: Annotated[
        Literal["ietf", "legacy", "x", "off"],
        Doc("Fields of answers. ietf: RateLimit and RateLimit-Policy; legacy: RateLimit-Limit and so on; x: X-RateLimit-Limit"),
    ] = "ietf"


class Redis(Part, frozen=True):
    """Redis or Valkey. The URL may carry a password, so it is never shown whole."""

    url: Annotated[
        str, Doc("redis://[USER:PASSWORD@]HOST[:PORT][/DB], rediss://, unix:///PATH; HOST,HOST?sentinel=NAME or ?cluster=true")
    ]
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
