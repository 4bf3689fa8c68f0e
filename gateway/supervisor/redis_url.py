"""The URL of the store behind global rate limits, understood once: validation and the supervisor ask, workers get the result."""

from __future__ import annotations

import difflib
import re
from typing import Any
from urllib.parse import unquote

import msgspec

PORT = 6379
SENTINEL_PORT = 26379
QUERY = ("ca", "cert", "cluster", "db", "key", "sentinel", "sentinelPassword", "sentinelUser")


class RedisAddress(msgspec.Struct, frozen=True):
    """Where a store is and who asks it. Nothing that shows this shows a password."""

    hosts: tuple[tuple[str, int], ...] = ()
    """The server; or the Sentinels, or some nodes of the Cluster."""
    path: str = ""
    """Of a Unix socket, instead."""
    db: int = 0
    user: str = ""
    password: str = ""
    tls: bool = False
    ca: str = ""
    """File of authorities; empty: those of the system."""
    cert: str = ""
    key: str = ""
    sentinel: str = ""
    """Name of the primary that the Sentinels look after."""
    sentinel_user: str = ""
    sentinel_password: str = ""
    is_cluster: bool = False

    @property
    def shown(self) -> str:
        """For people: without user and password."""
        place = self.path or ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        scheme = "unix" if self.path else "rediss" if self.tls else "redis"
        kind = f" (Sentinels of '{self.sentinel}')" if self.sentinel else " (Cluster)" if self.is_cluster else ""
        return f"{scheme}://{place}{kind}"

    def __repr__(self) -> str:
        return f"RedisAddress({self.shown})"

    def __rich_repr__(self) -> Any:
        yield self.shown


def parse_redis_url(url: str) -> RedisAddress:
    """redis://[USER:PASSWORD@]HOST[:PORT][/DB], rediss:// with TLS, unix://[USER:PASSWORD@]/PATH, each with ?KEY=VALUE&... behind.

    Several hosts stand with commas between them. Raises ValueError with a sentence that shows nothing of the URL's secrets.
    """
    found = re.fullmatch(r"(redis|rediss|unix)://([^?]*)(?:\?(.*))?", url)
    if found is None or not found[2]:
        raise ValueError("must begin with redis://, rediss:// or unix://, and say where the server is")
    scheme, place, query = found[1], found[2], _parse_query(found[3] or "")
    if scheme == "unix":
        userinfo, mark, rest = place.partition("@") if not place.startswith("/") else ("", "", place)
    else:
        userinfo, mark, rest = place.rpartition("@")
    user, colon, password = userinfo.partition(":")
    fields: dict[str, Any] = {"user": unquote(user), "password": unquote(password), "tls": scheme == "rediss"}
    if mark and not colon:
        raise ValueError("the part before '@' must be USER:PASSWORD, or :PASSWORD")
    for word in ("ca", "cert", "key"):
        if word in query:
            if scheme != "rediss":
                raise ValueError(f"?{word}= belongs to rediss://")
            fields[word] = query[word]
    if ("cert" in query) != ("key" in query):
        raise ValueError("?cert= and ?key= come together")
    is_cluster = query.get("cluster", "false")
    if is_cluster not in ("true", "false"):
        raise ValueError("?cluster= must be true or false")
    fields["is_cluster"] = is_cluster == "true"
    fields["sentinel"] = query.get("sentinel", "")
    fields["sentinel_user"] = query.get("sentinelUser", "")
    fields["sentinel_password"] = query.get("sentinelPassword", "")
    if "sentinel" in query and not query["sentinel"]:
        raise ValueError("?sentinel= must name the primary that the Sentinels look after")
    if (fields["sentinel_user"] and not fields["sentinel_password"]) or (fields["sentinel_password"] and not fields["sentinel"]):
        raise ValueError("?sentinelUser= needs ?sentinelPassword=, and that ?sentinel=")
    if fields["sentinel"] and fields["is_cluster"]:
        raise ValueError("?sentinel= and ?cluster=true exclude each other")
    if scheme == "unix":
        if fields["sentinel"] or fields["is_cluster"]:
            raise ValueError("a Unix socket leads to one server: no Sentinels, no Cluster")
        if not rest.startswith("/") or rest == "/":
            raise ValueError("a Unix socket is named by its absolute path: unix:///run/redis.sock")
        return RedisAddress(path=unquote(rest), db=_parse_db(query.get("db", "0")), **fields)
    authority, _, path = rest.partition("/")
    if path and "db" in query:
        raise ValueError("the number of the database stands in the path or in ?db=, not in both")
    db = _parse_db(path or query.get("db", "0"))
    if db and fields["is_cluster"]:
        raise ValueError("a Cluster has database 0 alone")
    hosts = tuple(_parse_host(word, SENTINEL_PORT if fields["sentinel"] else PORT) for word in authority.split(","))
    if len(hosts) > 1 and not fields["sentinel"] and not fields["is_cluster"]:
        raise ValueError("several hosts are Sentinels (?sentinel=NAME) or nodes of a Cluster (?cluster=true)")
    return RedisAddress(hosts=hosts, db=db, **fields)


def _parse_query(text: str) -> dict[str, str]:
    query: dict[str, str] = {}
    for pair in text.split("&") if text else ():
        word, mark, value = pair.partition("=")
        if word not in QUERY or not mark:
            near = difflib.get_close_matches(word, QUERY, 1)
            hint = f"did you mean ?{near[0]}=" if near else f"known are {', '.join(QUERY)}"
            raise ValueError(f"?{word} is not known; {hint}")
        if word in query:
            raise ValueError(f"?{word}= stands twice")
        query[word] = unquote(value)
    return query


def _parse_db(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text):
        raise ValueError("the database is a number, such as /0")
    return int(text)


def _parse_host(text: str, port: int) -> tuple[str, int]:
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?", text)
    number = int(found[3]) if found and found[3] else port
    if found is None or not 0 < number < 65536:
        raise ValueError("each host is HOST or HOST:PORT, IPv6 in brackets; '?' and '%' in a password are %3F and %25")
    return found[1] or found[2], number
