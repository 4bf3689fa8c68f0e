"""Ingresses, with the annotations of ingress-nginx -> objects of Gateway API, and a list of what was not translated.

Each namespace gets a Gateway, so that its Secrets need no grant; each host of an Ingress an HTTPRoute. A canary becomes backends or
rules of the Ingress that it belongs to.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from gateway.model.names import hostname_flaw, normal_hostname
from gateway.sources.kubernetes.annotations import (
    Annotations,
    cors_of,
    redirect_to,
    retry_of,
    rewritten,
    status_of,
    timeouts_of,
)
from gateway.sources.kubernetes.ingress import Ingress, IngressBackend
from gateway.sources.kubernetes.meta import GATEWAY_GROUP
from gateway.sources.kubernetes.service import Service
from gateway.sources.kubernetes.store import Store

VERSION = f"{GATEWAY_GROUP}/v1"
Plain = dict[str, Any]


@dataclass(slots=True)
class Imported:
    """Objects as plain values, and what is missing in them."""

    objects: list[Plain] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Canary:
    ingress: Ingress
    annotations: Annotations
    is_used: bool = False


def import_ingresses(store: Store, *, gateway: str = "isthmus", gateway_class: str = "isthmus") -> Imported:
    """All Ingresses of a store, whatever their class."""
    every = sorted(store.all(Ingress), key=lambda each: each.ref)
    readers = {each.ref: Annotations(each.annotations) for each in every}
    canaries = [_Canary(each, readers[each.ref]) for each in every if readers[each.ref].is_on("canary")]
    done = Imported()
    gateways: dict[str, list[Plain]] = {}
    routes: list[Plain] = []
    for ingress in every:
        reader = readers[ingress.ref]
        if reader.is_on("canary"):
            continue
        importer = _Importer(store, ingress, reader, gateway, [each for each in canaries if _same(each.ingress, ingress)], done)
        routes += importer.run(gateways.setdefault(ingress.metadata.namespace, []))
    for canary in canaries:
        if not canary.is_used:
            canary.annotations.refuse("canary", "no other Ingress has a host and a path of it")
    for each in every:
        done.notes += [f"{each.ref.text()}: {note}" for note in readers[each.ref].rest()]
    for namespace, listeners in gateways.items():
        spec = {"gatewayClassName": gateway_class, "listeners": [_plain_listener(), *listeners]}
        done.objects.append(_object("Gateway", gateway, namespace, spec))
    done.objects += routes
    return done


def _same(canary: Ingress, other: Ingress) -> bool:
    return canary.metadata.namespace == other.metadata.namespace


def _object(kind: str, name: str, namespace: str, spec: Plain) -> Plain:
    return {"apiVersion": VERSION, "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def _plain_listener() -> Plain:
    return {"name": "http", "port": 80, "protocol": "HTTP"}


class _Importer:
    """One Ingress."""

    def __init__(
        self, store: Store, ingress: Ingress, reader: Annotations, gateway: str, canaries: list[_Canary], done: Imported
    ) -> None:
        self.store = store
        self.ingress = ingress
        self.reader = reader
        self.gateway = gateway
        self.canaries = canaries
        self.done = done
        self.namespace = ingress.metadata.namespace

    def run(self, listeners: list[Plain]) -> list[Plain]:
        sections = self._listeners(listeners)
        hosts: dict[str, list[Plain]] = {}
        for rule in self.ingress.spec.rules:
            host = normal_hostname(rule.host)
            if host and (flaw := hostname_flaw(host)):
                self._note(flaw)
                continue
            if host.startswith("*."):
                self._note(f"'{host}': a wildcard takes any number of labels in Gateway API, and one in an Ingress")
            for path in rule.http.paths if rule.http else ():
                backends = self._backends(path.backend)
                if backends is not None:
                    hosts.setdefault(host, []).extend(self._rules(host, path.path, path.path_type == "Exact", backends))
        default = self.ingress.spec.default_backend
        if default is not None and (backends := self._backends(default)) is not None:
            hosts.setdefault("", []).append({"backendRefs": backends})
        routes = []
        for number, (host, rules) in enumerate(hosts.items()):
            routes += self._routes(host, number, rules, sections)
        self._policies(hosts)
        return routes

    def _note(self, text: str) -> None:
        self.done.notes.append(f"{self.ingress.ref.text()}: {text}")

    # --- listeners ---

    def _listeners(self, listeners: list[Plain]) -> dict[str, str]:
        """Host -> name of the listener that ends its TLS."""
        sections: dict[str, str] = {}
        for tls in self.ingress.spec.tls:
            for host in tls.hosts or ("",):
                if not tls.secret_name:
                    self._note(f"tls without secretName for '{host}': there is no certificate to fall back to")
                    continue
                name = f"https-{host.replace('*', 'any').replace('.', '-')}".rstrip("-")
                if not any(each["name"] == name for each in listeners):
                    shown = {"hostname": host} if host else {}
                    secret = {"certificateRefs": [{"name": tls.secret_name}]}
                    listeners.append({"name": name, "port": 443, "protocol": "HTTPS", **shown, "tls": secret})
                sections[host] = name
        return sections

    @staticmethod
    def _section(host: str, sections: dict[str, str]) -> str | None:
        wildcard = f"*.{host.partition('.')[2]}"
        return sections.get(host) or sections.get(wildcard) or sections.get("")

    # --- routes ---

    def _routes(self, host: str, number: int, rules: list[Plain], sections: dict[str, str]) -> list[Plain]:
        reader = self.reader
        name = self.ingress.metadata.name + (f"-{number}" if number else "")
        aliases = [alias for alias in reader.words("server-alias") if not hostname_flaw(alias)]
        section = self._section(host, sections)
        must_be_tls = reader.is_on("force-ssl-redirect") or (reader.is_on("ssl-redirect", True) and section is not None)
        hostnames = {"hostnames": [host, *aliases]} if host else {}
        plain = [{"name": self.gateway, "sectionName": "http"}]
        parents = [{"name": self.gateway, "sectionName": section}] if section else []
        found = [
            _object(
                "HTTPRoute",
                name,
                self.namespace,
                {"parentRefs": [*parents, *([] if must_be_tls else plain)] or plain, **hostnames, "rules": rules},
            )
        ]
        if must_be_tls:
            redirect = {"type": "RequestRedirect", "requestRedirect": {"scheme": "https", "statusCode": 308}}
            spec = {"parentRefs": plain, **hostnames, "rules": [{"filters": [redirect]}]}
            if section is None:
                # TLS ends in front of this gateway: a redirect here would never end.
                reader.refuse("force-ssl-redirect", "TLS ends somewhere else, and whoever ends it has to redirect")
            else:
                found.append(_object("HTTPRoute", f"{name}-to-https", self.namespace, spec))
        if reader.is_on("from-to-www-redirect") and host and not host.startswith("*."):
            other = host.removeprefix("www.") if host.startswith("www.") else f"www.{host}"
            redirect = {"type": "RequestRedirect", "requestRedirect": {"hostname": host, "statusCode": 308}}
            spec = {"parentRefs": [{"name": self.gateway}], "hostnames": [other], "rules": [{"filters": [redirect]}]}
            found.append(_object("HTTPRoute", f"{name}-www", self.namespace, spec))
        return found

    def _rules(self, host: str, path: str, is_exact: bool, backends: list[Plain]) -> list[Plain]:
        reader = self.reader
        match, rewrite = rewritten(reader, path, is_exact)
        redirect = redirect_to(reader, "permanent-redirect", status_of(reader, "permanent-redirect-code", 301)) or redirect_to(
            reader, "temporal-redirect", status_of(reader, "temporal-redirect-code", 302)
        )
        rule: Plain = {"matches": [{"path": match}]}
        if redirect is not None:
            return [{**rule, "filters": [redirect]}]
        filters: list[Plain] = []
        vhost, prefix = reader.text("upstream-vhost"), reader.text("x-forwarded-prefix")
        if vhost and hostname_flaw(vhost, wildcard=False):
            reader.refuse("upstream-vhost", f"'{vhost}' is not a host name")
            vhost = ""
        if vhost or rewrite:
            change = ({"hostname": vhost} if vhost else {}) | ({"path": rewrite} if rewrite else {})
            filters.append({"type": "URLRewrite", "urlRewrite": change})
        if prefix and re.fullmatch(r"/[-A-Za-z0-9._~/]*", prefix):
            header = {"name": "X-Forwarded-Prefix", "value": prefix}
            filters.append({"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [header]}})
        elif prefix:
            reader.refuse("x-forwarded-prefix", f"'{prefix}' is not a plain path")
        if (cors := cors_of(reader)) is not None:
            filters.append(cors)
        if filters:
            rule["filters"] = filters
        for key, value in (("timeouts", timeouts_of(reader)), ("retry", retry_of(reader))):
            if value is not None:
                rule[key] = value
        found = self._with_canaries(host, path, {**rule, "backendRefs": backends})
        root = reader.text("app-root")
        if root and path in ("", "/"):
            change = {"type": "ReplaceFullPath", "replaceFullPath": root}
            to_root = {"type": "RequestRedirect", "requestRedirect": {"path": change, "statusCode": 302}}
            found.insert(0, {"matches": [{"path": {"type": "Exact", "value": "/"}}], "filters": [to_root]})
        return found

    def _with_canaries(self, host: str, path: str, rule: Plain) -> list[Plain]:
        """The rule and, before it, those for requests that ask for a canary."""
        before: list[Plain] = []
        for canary in self.canaries:
            for other in canary.ingress.spec.rules:
                for each in other.http.paths if other.http else ():
                    if normal_hostname(other.host) != host or each.path != path:
                        continue
                    backends = self._backends(each.backend)
                    if backends is not None:
                        canary.is_used = True
                        before += self._canary_rules(canary.annotations, rule, backends)
        return [*before, rule]

    @staticmethod
    def _canary_rules(reader: Annotations, rule: Plain, backends: list[Plain]) -> list[Plain]:
        rules = []
        header, value, pattern = (reader.text(f"canary-by-header{end}") for end in ("", "-value", "-pattern"))
        cookie = reader.text("canary-by-cookie")
        weight, total = reader.number("canary-weight"), reader.number("canary-weight-total", 100) or 100
        conditions = []
        if header:
            kind = {"type": "RegularExpression"} if pattern and not value else {}
            conditions.append({"name": header, "value": value or pattern or "always", **kind})
        if cookie and re.fullmatch(r"[-A-Za-z0-9_.]+", cookie):
            name = cookie.replace(".", "[.]")
            conditions.append({"name": "cookie", "value": f"(?:.*; ?)?{name}=always(?:;.*)?", "type": "RegularExpression"})
        for condition in conditions:
            matches = [{**match, "headers": [condition]} for match in rule["matches"]]
            rules.append({**rule, "matches": matches, "backendRefs": backends})
        if weight:
            share = min(weight, total)
            rule["backendRefs"] = [
                *({**each, "weight": total - share} for each in rule["backendRefs"]),
                *({**each, "weight": share} for each in backends),
            ]
        return rules

    # --- backends ---

    def _backends(self, backend: IngressBackend) -> list[Plain] | None:
        wanted = backend.service
        if wanted is None:
            self._note("a backend that is not a Service has no counterpart")
            return None
        port = wanted.port.number
        if wanted.port.name:
            service = self.store.get(Service, self.namespace, wanted.name)
            named = next((each.port for each in service.spec.ports if each.name == wanted.port.name), 0) if service else 0
            if not named:
                self._note(
                    f"port '{wanted.port.name}' of Service {wanted.name} has a number that is not known; give the Service too"
                )
                return None
            port = named
        return [{"name": wanted.name, "port": port}]

    def _policies(self, hosts: dict[str, list[Plain]]) -> None:
        """What backend-protocol asks for."""
        reader = self.reader
        protocol = reader.text("backend-protocol").upper()
        name, verify = reader.text("proxy-ssl-name"), reader.text("proxy-ssl-verify")
        secret = reader.text("proxy-ssl-secret")
        services = sorted({ref["name"] for rules in hosts.values() for rule in rules for ref in rule.get("backendRefs", ())})
        if protocol in ("GRPC", "GRPCS"):
            shown = ", ".join(services)
            reader.refuse(
                "backend-protocol", f"{protocol}: set appProtocol: kubernetes.io/h2c at the ports of {shown}, or write GRPCRoutes"
            )
        if protocol in ("HTTPS", "GRPCS"):
            for service in services:
                host = name if name and not hostname_flaw(name, wildcard=False) else f"{service}.{self.namespace}.svc"
                spec = {
                    "targetRefs": [{"group": "", "kind": "Service", "name": service}],
                    "validation": {"hostname": host, "wellKnownCACertificates": "System"},
                }
                self.done.objects.append(_object("BackendTLSPolicy", f"{service}-tls", self.namespace, spec))
            why = (
                "the Secret's authorities belong into a ConfigMap that the policy names"
                if secret
                else "verified by the system's authorities"
            )
            unlike = "" if verify == "on" else "; nginx did not verify, here it always is"
            reader.refuse("backend-protocol", f"{protocol}: a BackendTLSPolicy for each Service, {why}{unlike}")
        elif protocol not in ("", "HTTP", "AUTO_HTTP", "GRPC"):
            reader.refuse("backend-protocol", f"{protocol} has no counterpart")
