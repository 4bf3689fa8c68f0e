"""Objects in YAML, as a cluster of the tests: translated, built, compiled, and asked through the router that serves."""

from __future__ import annotations

import datetime
import textwrap
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from gateway._core.snapshot import load
from gateway.control.build import Backend, Model, Rule, build
from gateway.control.compile import compile_model
from gateway.control.explain import Explanation, explain_request
from gateway.model.config import Config
from gateway.sources.document import parse
from gateway.sources.kubernetes.kinds import KINDS
from gateway.sources.kubernetes.meta import Ref
from gateway.sources.kubernetes.options import Options
from gateway.sources.kubernetes.status import Condition, GatewayStatus, ListenerSetStatus, ListenerStatus, PolicyStatus, RouteStatus
from gateway.sources.kubernetes.store import Store, decode_value
from gateway.sources.kubernetes.translate import Translation, translate

CLASS = """
kind: GatewayClass
metadata: {name: isthmus}
spec: {controllerName: isthmus.io/gateway-controller}
"""


def store_of(*texts: str) -> Store:
    """The objects of YAML documents. Namespace `default` is where an object stands that names none."""
    store = Store()
    for text in texts:
        for document in parse(textwrap.dedent(text), "test"):
            assert not document.flaws, document.flaws
            value = document.value
            if value is None:
                continue
            kind = KINDS[value["kind"]]
            if kind.is_namespaced:
                value["metadata"].setdefault("namespace", "default")
            store.put(kind, decode_value(kind, value))
    return store


def service(
    name: str, *ports: int, namespace: str = "default", address: str = "10.0.0.1", more: str = "", port_more: str = ""
) -> str:
    """A Service with one ready endpoint. Its first port has no name when it is the only one, else p0, p1."""
    named = len(ports) > 1
    spec = "".join(
        f"\n  - {{port: {port}{f', name: p{n}' if named else ''}, targetPort: {port + 8000}{port_more}}}"
        for n, port in enumerate(ports)
    )
    slice_ports = "".join(f"\n- {{port: {port + 8000}, name: {f'p{n}' if named else repr('')}}}" for n, port in enumerate(ports))
    return f"""
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  clusterIP: 10.96.0.1
  {more}
  ports:{spec}
---
kind: EndpointSlice
metadata: {{name: {name}-x, namespace: {namespace}, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
endpoints:
- {{addresses: [{address}], conditions: {{ready: true}}}}
ports:{slice_ports}
---
"""


def gateway(
    name: str = "gw", listeners: str = "[{name: http, port: 80, protocol: HTTP}]", namespace: str = "default", more: str = ""
) -> str:
    return f"""
kind: Gateway
metadata: {{name: {name}, namespace: {namespace}, generation: 1}}
spec:
  gatewayClassName: isthmus
  listeners: {listeners}
  {more}
---
"""


def route(
    name: str, rules: str, parents: str = "[{name: gw}]", hosts: str = "[]", *,
    namespace: str = "default", kind: str = "HTTPRoute", created: str = "null", generation: int = 1,
) -> str:  # fmt: skip
    hostnames = "" if kind == "TCPRoute" else f"hostnames: {hosts}"
    return f"""
kind: {kind}
metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: {created}, generation: {generation}}}
spec:
  parentRefs: {parents}
  {hostnames}
  rules: {rules}
---
"""


def to(name: str, port: int = 80) -> str:
    """Rules that send everything to a Service."""
    return f"[{{backendRefs: [{{name: {name}, port: {port}}}]}}]"


class Cluster:
    """Objects and what they come to."""

    def __init__(self, *texts: str, options: Options | None = None) -> None:
        self.store = store_of(CLASS, *texts)
        self.options = options or Options()
        self.translation: Translation = translate(self.store, self.options)
        self.model: Model = build(self.translation.add_to(Config()))
        compiled = compile_model(self.model, 1)
        assert not compiled.problems, compiled.problems
        self.snapshot = load(compiled.blob)

    def explain(self, path: str, host: str = "any.test", port: int = 80, **request: Any) -> Explanation:
        return explain_request(self.snapshot, host, path, port=str(port), **request)

    def ask(self, path: str, host: str = "any.test", port: int = 80, **request: Any) -> str:
        """The backends that answer, such as "web:80" or "web:80*9 500*1"; "404", "302 LOCATION" or "no port"."""
        found = self.explain(path, host, port, **request)
        if found.location is not None:
            return f"{found.status} {found.location}"
        if found.winner is None:
            return str(found.status or found.outcome)
        return self.backends(self.rule(found.winner.route, found.winner.rule))

    def who(self, path: str, host: str = "any.test", port: int = 80, **request: Any) -> str:
        """The route and rule that answer, such as "HTTPRoute/default/shop[0]"; "404"."""
        found = self.explain(path, host, port, **request)
        return f"{found.winner.route}[{found.winner.rule}]" if found.winner else str(found.status or found.outcome)

    def rule(self, name: str, number: int = 0) -> Rule:
        return next(each for each in self.model.routes if each.name == name).rules[number]

    def backends(self, rule: Rule) -> str:
        def text(backend: Backend) -> str:
            name = "500" if backend.cluster is None else backend.cluster.removeprefix("Service/default/")
            return name if len(rule.backends) == 1 else f"{name}*{backend.weight}"

        return " ".join(text(each) for each in rule.backends)

    def endpoints(self, cluster: str) -> list[str]:
        return [each.text for found in self.model.clusters if found.name == cluster for each in found.endpoints]

    # --- statuses ---

    def conditions(self, kind: str, name: str, namespace: str = "default", parent: int = 0) -> dict[str, str]:
        """Type -> "True Reason", of an object or of a route's or policy's n-th parent."""
        status = self.translation.statuses[Ref(kind, "" if kind == "GatewayClass" else namespace, name)]
        found: tuple[Condition, ...]
        if isinstance(status, RouteStatus):
            found = status.parents[parent].conditions
        elif isinstance(status, PolicyStatus):
            found = status.ancestors[parent].conditions
        else:
            found = status.conditions  # type: ignore[union-attr]
        return {each.type: f"{each.status} {each.reason}" for each in found}

    def listener(self, name: str, of: str = "gw", kind: str = "Gateway", namespace: str = "default") -> ListenerStatus:
        status = self.translation.statuses[Ref(kind, namespace, of)]
        assert isinstance(status, GatewayStatus | ListenerSetStatus)
        return next(each for each in status.listeners if each.name == name)

    def listener_conditions(self, name: str, of: str = "gw", kind: str = "Gateway", namespace: str = "default") -> dict[str, str]:
        return {each.type: f"{each.status} {each.reason}" for each in self.listener(name, of, kind, namespace).conditions}

    def problems(self) -> list[str]:
        return [each.text() for each in self.translation.problems]


def make_pair(*names: str) -> tuple[str, str]:
    """A self-signed certificate for these names and its key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=90))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(each) for each in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(Encoding.PEM).decode()
    return pem, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def secret(name: str, pair: tuple[str, str], namespace: str = "default") -> str:
    cert, key = (textwrap.indent(each, "    ") for each in pair)
    return f"""
kind: Secret
type: kubernetes.io/tls
metadata: {{name: {name}, namespace: {namespace}}}
stringData:
  tls.crt: |
{cert}
  tls.key: |
{key}
---
"""


def authorities(name: str, pem: str, namespace: str = "default") -> str:
    content = textwrap.indent(pem, "    ")
    return f"""
kind: ConfigMap
metadata: {{name: {name}, namespace: {namespace}}}
data:
  ca.crt: |
{content}
---
"""
