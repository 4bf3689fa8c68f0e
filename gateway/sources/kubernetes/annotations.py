"""Annotations of ingress-nginx in the words of Gateway API: values are read as what they are meant to be, and never as templates.

A reader remembers what was asked of it, so that what nobody asked for can be told at the end.
"""

import re
from typing import Any

from gateway.model.names import hostname_flaw, path_flaw

PREFIX = "nginx.ingress.kubernetes.io/"

NEEDLESS = frozenset(
    {
        "client-body-buffer-size", "connection-proxy-header", "enable-access-log", "enable-modsecurity", "preserve-trailing-slash",
        "proxy-buffer-size", "proxy-buffering", "proxy-buffers-number", "proxy-http-version", "proxy-max-temp-file-size",
        "proxy-request-buffering", "server-tokens", "service-upstream",
    }
)  # fmt: skip
"""How nginx goes about things that this gateway does in its own way; enable-modsecurity only when it is off."""

ELSEWHERE = {
    "affinity": "sessions are kept by loadBalancing ConsistentHash of a cluster, or not at all",
    "affinity-mode": "belongs to affinity",
    "auth-realm": "belongs to auth-type",
    "auth-response-headers": "belongs to auth-url",
    "auth-secret": "belongs to auth-type",
    "auth-signin": "belongs to auth-url",
    "auth-tls-secret": "clients' certificates are asked for by the Gateway: spec.tls.frontend.default.validation",
    "auth-tls-verify-client": "clients' certificates are asked for by the Gateway: spec.tls.frontend.default.validation",
    "auth-type": "passwords are not checked here",
    "auth-url": "external authorization is not translated; a filter of type ExternalAuth is its place",
    "configuration-snippet": "text of nginx's own language is never taken over",
    "custom-http-errors": "answers of backends go to the client as they are",
    "default-backend": "a backend for errors has no place in a route",
    "denylist-source-range": "addresses of clients are not filtered here; a NetworkPolicy or the load balancer is the place",
    "limit-connections": "limits of connections stand in the configuration: limits.maxConnections",
    "limit-rpm": "rates are limited by rateLimits of the configuration",
    "limit-rps": "rates are limited by rateLimits of the configuration",
    "limit-burst-multiplier": "rates are limited by rateLimits of the configuration",
    "load-balance": "the policy stands in the configuration: loadBalancing of a cluster",
    "mirror-target": "a filter of type RequestMirror names a Service, and not a URL",
    "proxy-body-size": "the size of requests is limited by the listener: limits.maxBodySize",
    "proxy-connect-timeout": "stands in the configuration: connectTimeout of a cluster",
    "proxy-cookie-path": "cookies of backends are not changed",
    "proxy-redirect-from": "redirects of backends are not changed",
    "proxy-redirect-to": "redirects of backends are not changed",
    "server-snippet": "text of nginx's own language is never taken over",
    "session-cookie-expires": "belongs to affinity",
    "session-cookie-max-age": "belongs to affinity",
    "session-cookie-name": "belongs to affinity",
    "ssl-passthrough": "TLS that is passed on is a TLSRoute on a listener of its own",
    "upstream-hash-by": "the policy stands in the configuration: loadBalancing ConsistentHash of a cluster",
    "whitelist-source-range": "addresses of clients are not filtered here; a NetworkPolicy or the load balancer is the place",
}
"""Why an annotation is not translated, and where what it wants has its place."""


class Annotations:
    """Those of one Ingress."""

    def __init__(self, annotations: dict[str, str]) -> None:
        self._values = {name[len(PREFIX) :]: value for name, value in annotations.items() if name.startswith(PREFIX)}
        self._asked: set[str] = set()
        self.notes: list[str] = []

    def text(self, name: str) -> str:
        """ "" when it is not there."""
        self._asked.add(name)
        return self._values.get(name, "").strip()

    def is_on(self, name: str, default: bool = False) -> bool:
        value = self.text(name)
        return value == "true" if value else default

    def number(self, name: str, default: int = 0) -> int:
        """A whole number; what is none is told and left out."""
        value = self.text(name)
        if value and not re.fullmatch(r"[0-9]{1,7}", value):
            self.refuse(name, f"'{value}' is not a number")
            return default
        return int(value) if value else default

    def words(self, name: str) -> list[str]:
        """Parts between commas."""
        return [part.strip() for part in self.text(name).split(",") if part.strip()]

    def refuse(self, name: str, why: str) -> None:
        """Says why something that was asked for cannot be taken over."""
        note = f"{name}: {why}"
        if note not in self.notes:
            self.notes.append(note)

    def rest(self) -> list[str]:
        """What was not taken over, each with the reason."""
        notes = [*self.notes]
        for name in sorted(set(self._values) - self._asked - NEEDLESS):
            notes.append(f"{name}: {ELSEWHERE.get(name, 'is not known here')}")
        return notes


def redirect_to(annotations: Annotations, name: str, status: int) -> dict[str, Any] | None:
    """A filter for a redirect to a URL. Only what a RequestRedirect can say: no query, no variables."""
    url = annotations.text(name)
    if not url:
        return None
    match = re.fullmatch(r"(?:(https?)://([A-Za-z0-9.-]+)(?::([0-9]{1,5}))?)?(/[^?#$]*)?", url)
    if match is None or (match[2] and hostname_flaw(match[2], wildcard=False)) or (match[4] and path_flaw(match[4])):
        annotations.refuse(name, f"'{url}' is no plain URL; variables, queries and fragments are not translated")
        return None
    redirect: dict[str, Any] = {"statusCode": status}
    if match[1]:
        redirect |= {"scheme": match[1], "hostname": match[2].lower()}
    if match[3]:
        redirect["port"] = int(match[3])
    if match[4]:
        redirect["path"] = {"type": "ReplaceFullPath", "replaceFullPath": match[4]}
    return {"type": "RequestRedirect", "requestRedirect": redirect}


def status_of(annotations: Annotations, name: str, default: int) -> int:
    """The status of a redirect."""
    status = annotations.number(name, default)
    if status not in (301, 302, 303, 307, 308):
        annotations.refuse(name, f"{status} is not the status of a redirect")
        return default
    return status


_TAIL = re.compile(r"(/[-A-Za-z0-9._~/]*?)/?\(/\|\$\)\(\.\*\)")
_WHOLE = re.compile(r"(/[-A-Za-z0-9._~/]*?)/?\(?\(?\.\*\)")


def rewritten(annotations: Annotations, path: str, is_exact: bool) -> tuple[dict[str, str], dict[str, Any] | None]:
    """(path match, URLRewrite's path) of a path under rewrite-target and use-regex.

    Three forms are known: a target without groups; /x(/|$)(.*) with $2; /x/(.*) with $1. They are what nearly everybody writes.
    """
    target, is_regex = annotations.text("rewrite-target"), annotations.is_on("use-regex")
    groups = re.fullmatch(r"(/[^$]*?)/?\$([12])", target) or re.fullmatch(r"()/?\$([12])", target)
    if target and groups:
        form = _TAIL if groups[2] == "2" else _WHOLE
        found = form.fullmatch(path)
        if found is not None:
            match = {"type": "PathPrefix", "value": found[1] or "/"}
            return match, {"type": "ReplacePrefixMatch", "replacePrefixMatch": groups[1].rstrip("/") or "/"}
        annotations.refuse("rewrite-target", f"'{target}' with the path '{path}' has no counterpart")
        target = ""
    elif target and ("$" in target or path_flaw(target)):
        annotations.refuse("rewrite-target", f"'{target}' has no counterpart")
        target = ""
    rewrite = {"type": "ReplaceFullPath", "replaceFullPath": target} if target else None
    if is_regex or re.search(r"[(\[|*+?\\^$]", path):
        # nginx asks without regard to case, and from the begin only.
        return {"type": "RegularExpression", "value": f"(?i){path.removeprefix('^')}.*"}, rewrite
    return {"type": "Exact" if is_exact else "PathPrefix", "value": path or "/"}, rewrite


def cors_of(annotations: Annotations) -> dict[str, Any] | None:
    """The CORS filter; nginx's own defaults where nothing is said."""
    names = ("allow-origin", "allow-methods", "allow-headers", "expose-headers")
    origins, methods, headers, exposed = (annotations.words(f"cors-{name}") for name in names)
    credentials, age = annotations.is_on("cors-allow-credentials", True), annotations.number("cors-max-age", 1_728_000)
    if not annotations.is_on("enable-cors"):
        return None
    cors: dict[str, Any] = {
        "allowOrigins": origins or ["*"],
        "allowMethods": methods or ["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"],
        "allowHeaders": headers or ["*"],
        "allowCredentials": credentials,
        "maxAge": max(age, 1),
    }
    if exposed:
        cors["exposeHeaders"] = exposed
    return {"type": "CORS", "cors": cors}


def retry_of(annotations: Annotations) -> dict[str, Any] | None:
    """What is tried again. nginx counts the first try, Gateway API does not."""
    when = annotations.text("proxy-next-upstream").split()
    tries = annotations.number("proxy-next-upstream-tries", 0)
    annotations.text("proxy-next-upstream-timeout")
    codes = sorted({int(word[5:]) for word in when if re.fullmatch(r"http_[45][0-9]{2}", word)})
    if when == ["off"] or tries == 1:
        return {"attempts": 0}
    if not codes and not tries:
        return None
    return {"attempts": max(tries - 1, 1)} | ({"codes": codes} if codes else {})


def timeouts_of(annotations: Annotations) -> dict[str, Any] | None:
    """nginx's silence between two reads or writes, as the time of one attempt, which is the nearest that there is."""
    seconds = [number for name in ("proxy-read-timeout", "proxy-send-timeout") if (number := annotations.number(name))]
    return {"backendRequest": f"{max(seconds)}s"} if seconds else None
