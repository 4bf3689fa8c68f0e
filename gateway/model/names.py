"""Grammars of the names in a configuration, and their normal forms. Checks answer None or a sentence that says what is wrong."""

import re

import re2  # type: ignore[import-untyped]

TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]+")
_FIELD_VALUE = re.compile(r"[!-~]+(?:[\t ]?[!-~]+)*")
_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_HOSTNAME = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_ORIGIN = re.compile(r"https?://(?:\*|(?:\*\.)?(?:[a-zA-Z0-9-]+\.)*[a-zA-Z0-9-]+)(?::(?P<port>[0-9]{1,5}))?", re.ASCII)
_PATH_CHARS = re.compile(r"(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|%[0-9a-fA-F]{2})+")
_ESCAPE = re.compile(r"%([0-9a-fA-F]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")

FRAMING_FIELDS = frozenset(
    {
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Fields that frame a message or belong to one hop: no filter may touch them."""


def hostname_flaw(name: str, *, wildcard: bool = True) -> str | None:
    """Of a hostname; upper case and one dot at the end are forgiven, see normal_hostname."""
    plain = normal_hostname(name)
    if plain.startswith("*.") and not wildcard:
        return f"'{name}' must not be a wildcard"
    if "*" in plain.removeprefix("*."):
        return f"'{name}': a wildcard is only '*.' at the begin, as in *.example.com"
    if not _HOSTNAME.fullmatch(plain) or len(plain) > 253:
        return f"'{name}' is not a host name"
    if plain.rpartition(".")[2].isdigit():
        return f"'{name}' is an IP address; a host name is meant"
    return None


def normal_hostname(name: str) -> str:
    """Lower case, without the dot at the end. "" stays "", any host."""
    return name.removesuffix(".").lower()


def intersect_hostnames(listener: str, route: str) -> str | None:
    """The hosts that both take, as one hostname; None: there are none. Both in normal form, "" takes every host."""
    if not listener or listener == route:
        return route
    if not route:
        return listener
    for wide, narrow in ((listener, route), (route, listener)):
        if wide.startswith("*.") and narrow.removeprefix("*").endswith(wide[1:]) and len(narrow.removeprefix("*")) > len(wide) - 1:
            return narrow
    return None


def field_name_flaw(name: str, *, modified: bool = False) -> str | None:
    """Of a header field's name; modified: a filter is going to change it."""
    if not TOKEN.fullmatch(name):
        return f"'{name}' is not a header field name"
    if modified and name.lower() == "host":
        return "'host' cannot be changed by a header modifier; use URLRewrite with a hostname"
    if modified and name.lower() in FRAMING_FIELDS:
        return f"'{name}' frames a message or belongs to one hop; a filter cannot change it"
    return None


def field_value_flaw(value: str) -> str | None:
    """Of a header field's value that a filter writes or a match compares."""
    if len(value) > 4096:
        return "the value is longer than 4096 characters"
    if not _FIELD_VALUE.fullmatch(value):
        return "the value must be visible ASCII, with single spaces inside and none around it"
    return None


def origin_flaw(origin: str) -> str | None:
    """Of an origin of a CORS filter: *, or scheme://host[:port] whose host may be a star or begin with "*."."""
    if origin == "*":
        return None
    match = _ORIGIN.fullmatch(origin)
    if match is None or not 0 < int(match["port"] or 1) <= 65535:
        return f"'{origin}' is not an origin, such as https://*.example.com, http://localhost:8080 or *"
    return None


def normal_origin(origin: str) -> str:
    """Lower case, without a port that the scheme has by itself, as browsers write it (RFC 6454 §6.2)."""
    plain = origin.lower()
    return plain.removesuffix(":80") if plain.startswith("http:") else plain.removesuffix(":443")


KEYED = ("header", "cookie", "query")


def keyed_flaw(key: str, plain: tuple[str, ...]) -> str | None:
    """Of a part of a request to count or to hash by: one of the plain words, or header:NAME, cookie:NAME, query:NAME."""
    kind, colon, name = key.partition(":")
    if key in plain or (kind in KEYED and colon and TOKEN.fullmatch(name)):
        return None
    known = [f"{kind}:NAME" for kind in KEYED]
    return f"'{key}' is not a key; one of {', '.join([*plain, *known])}"


def path_flaw(path: str, *, what: str = "path") -> str | None:
    """Of a path to match or to write."""
    if not path.startswith("/"):
        return f"'{path}': a {what} begins with '/'"
    if len(path) > 1024:
        return f"the {what} is longer than 1024 characters"
    if not _PATH_CHARS.fullmatch(path):
        return f"'{path}' has characters that a {what} cannot have; write them as %XX"
    plain = normal_path(path)
    if re.search(r"%(?:2f|5c|00)", plain, re.IGNORECASE):
        return f"'{path}': an escaped slash, backslash or NUL never reaches a route"
    if "//" in plain:
        return f"'{path}' has an empty element; requests are matched with '//' merged"
    if any(part.partition(";")[0] in (".", "..") for part in plain.split("/")):
        return f"'{path}' has a dot element; requests are matched with those resolved"
    return None


def normal_path(path: str) -> str:
    """With escapes of unreserved characters decoded, as the core does with a request's path before it matches."""

    def plain(escape: re.Match[str]) -> str:
        character = chr(int(escape[1], 16))
        return character if character in _UNRESERVED else escape[0]

    return _ESCAPE.sub(plain, path)


def normal_prefix(path: str) -> str:
    """As normal_path, without a slash at the end: /abc/ and /abc are one prefix, / is ""."""
    return normal_path(path).rstrip("/")


def pattern_flaw(pattern: str) -> str | None:
    """Of a regular expression for RE2."""
    if len(pattern) > 1024:
        return "the regular expression is longer than 1024 characters"
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(pattern, options)
    except re2.error as failure:
        text = failure.args[0] if failure.args else failure
        return f"'{pattern}' is not an RE2 expression: {text.decode() if isinstance(text, bytes) else text}"
    return None
