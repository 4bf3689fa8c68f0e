"""Kubernetes' own API server over etcd, with the face of the small one in apiserver.py: one pair for all tests of a process.

`make kube-assets` builds it (tools/kube-apiserver) and `make test-kube` runs with it: KUBE_ASSETS names the folder of the program.
The gateway signs in as its ServiceAccount of k8s/base, with a token that the server issues and the rights that k8s/base gives it:
what passes here passes with these rights. What a test does as kubectl is done as cluster-admin.
"""

from __future__ import annotations

import asyncio
import atexit
import base64
import contextlib
import copy
import ctypes
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import pytest
import yaml
from apiserver import Json, Requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from manifests import ROOT, crd_files
from pki import Authority, write_pair
from until import wait_until

from gateway.sources.kubernetes.kinds import KINDS

T = TypeVar("T")
ADMIN = "kubectl"
OWN = "isthmus"  # the gateway's namespace and ServiceAccount
POD = "10.0.0.1"  # an EndpointSlice may not name a loopback address; `make test-kube` gives its own network this one
PLURALS = {"Lease": ("coordination.k8s.io/v1", "leases"), "ClusterRole": ("rbac.authorization.k8s.io/v1", "clusterroles")}


def why_not() -> str:
    """Why there is no real server to be had; "" when there is."""
    folder = os.environ.get("KUBE_ASSETS")
    if not folder:
        return "the real API server is for `make test-kube`"
    if not (Path(folder) / "kube-apiserver").is_file():
        return f"no kube-apiserver in {folder}: `make kube-assets` builds it"
    if shutil.which("etcd") is None:
        return "etcd is not installed (Debian: etcd-server)"
    if not crd_files("standard"):
        return "no CRDs of Gateway API: neither beside this checkout, in shared/gateway-api, nor by go"
    return ""


REAL = (pytest.mark.kube, pytest.mark.skipif(bool(why_not()), reason=why_not()))
"""Marks of what needs the real server."""


def needs_real(test: T) -> T:
    """Marks a test that runs on the real server alone."""
    for mark in REAL:
        test = mark(test)
    return test


def spare_port() -> int:
    """Neither etcd nor the API server can be told to choose one and say which."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _die_with_us() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Refused(Exception):
    """What the server said to kubectl."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Control:
    """etcd and kube-apiserver, with the CRDs and what k8s/base says of the gateway."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="isthmus-kube-"))
        self.etcd_port, self.port = spare_port(), spare_port()
        self._children: list[subprocess.Popen[bytes]] = []
        self._local = threading.local()
        authority = Authority()
        (self.folder / "ca.pem").write_bytes(authority.pem)
        write_pair(self.folder, "server", authority.issue("127.0.0.1", "localhost"))
        self.tls = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        self._write_keys()
        atexit.register(self.close)
        self._start_etcd()
        self._start_server()
        self._prepare()
        self.token = self._token()

    # ---- processes ----

    def _write_keys(self) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        (self.folder / "account.key").write_bytes(pem)
        (self.folder / "tokens.csv").write_text(f'{ADMIN},{ADMIN},{ADMIN},"system:masters"\n')

    def _spawn(self, *command: str) -> None:
        with (self.folder / f"{Path(command[0]).name}.log").open("ab") as log:
            self._children.append(
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_die_with_us)
            )

    def _start_etcd(self) -> None:
        client, fellow = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{spare_port()}"
        self._spawn(
            "etcd", "--data-dir", str(self.folder / "etcd"), "--unsafe-no-fsync",
            # Without it a kind in which nothing happens stays where it was, and its bookmarks with it: by default for ten minutes.
            "--experimental-watch-progress-notify-interval", "1s",
            "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", fellow, "--initial-advertise-peer-urls", fellow, "--initial-cluster", f"default={fellow}",
        )  # fmt: skip

    def _start_server(self) -> None:
        key, folder = str(self.folder / "account.key"), self.folder
        self._spawn(
            str(Path(os.environ["KUBE_ASSETS"]) / "kube-apiserver"),
            f"--etcd-servers=http://127.0.0.1:{self.etcd_port}", "--bind-address=127.0.0.1", f"--secure-port={self.port}",
            f"--tls-cert-file={folder / 'server.crt'}", f"--tls-private-key-file={folder / 'server.key'}",
            "--advertise-address=192.0.2.1", "--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}",
            "--authorization-mode=RBAC", f"--token-auth-file={folder / 'tokens.csv'}", "--profiling=false",
            # ConfigMaps straight from etcd, so that a compaction there is felt by their watches and lists at once.
            "--watch-cache-sizes=configmaps#0",
        )  # fmt: skip
        wait_until(self._is_ready, 120)

    def _is_ready(self) -> bool:
        for child in self._children:
            assert child.poll() is None, "\n".join(path.read_text()[-3000:] for path in sorted(self.folder.glob("*.log")))
        try:
            return self.ask("GET", "/readyz", raw=True) == b"ok"
        except (OSError, Refused, http.client.HTTPException):
            return False

    def close(self) -> None:
        for child in reversed(self._children):
            child.kill()
            child.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    # ---- kubectl ----

    def ask(
        self, method: str, path: str, body: Any = None, *, token: str = ADMIN, raw: bool = False, content: str = "application/json"
    ) -> Any:
        """One request; Refused for any status from 400 on."""
        connection: http.client.HTTPSConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=30, context=self.tls)
            self._local.connection = connection
        try:
            headers = {"Authorization": f"Bearer {token}", "Content-Type": content, "Accept": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            answer = response.read()
        except BaseException:
            self._local.connection = None
            connection.close()
            raise
        if response.status >= 400:
            raise Refused(response.status, answer.decode(errors="replace"))
        return answer if raw else json.loads(answer)

    def path(self, kind: str, name: str = "", namespace: str = "") -> str:
        if kind in PLURALS:
            version, plural = PLURALS[kind]
            base = f"/apis/{version}" + (f"/namespaces/{namespace}" if kind == "Lease" else "") + f"/{plural}"
        else:
            base = KINDS[kind].api_path("", namespace if KINDS[kind].is_namespaced else "")
        return f"{base}/{name}" if name else base

    def apply(self, value: Json, **query: str) -> None:
        """By server-side apply, whatever it is."""
        version, metadata, kind = value["apiVersion"], value["metadata"], value["kind"].lower()
        base = f"/apis/{version}" if "/" in version else f"/api/{version}"
        within = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
        plural = f"{kind[:-1]}ies" if kind.endswith("policy") else f"{kind}es" if kind.endswith("s") else f"{kind}s"
        asked = urlencode({"fieldManager": "kubectl", "force": "true", **query})
        self.ask("PATCH", f"{base}{within}/{plural}/{metadata['name']}?{asked}", value, content="application/apply-patch+yaml")

    def _prepare(self) -> None:
        for file in crd_files("standard"):
            for each in yaml.safe_load_all(file.read_text()):
                if each["kind"] == "CustomResourceDefinition":
                    self.apply(each)
        for name in ("namespace", "service-account", "rbac"):
            for each in yaml.safe_load_all((ROOT / "k8s" / "base" / f"{name}.yaml").read_text()):
                if each["kind"] in ("ServiceAccount", "Role", "RoleBinding"):
                    each["metadata"]["namespace"] = OWN
                elif each["kind"] == "Namespace":
                    each["metadata"]["name"] = OWN
                self.apply(each)
        for kind in KINDS:
            wait_until(lambda kind=kind: self._is_served(kind))  # type: ignore[misc]
        wait_until(lambda: self._is_served("Namespace", "default"))

    def _is_served(self, kind: str, name: str = "") -> bool:
        try:
            self.ask("GET", self.path(kind, name))
        except Refused:
            return False
        return True

    def _token(self) -> str:
        """What a pod of the gateway has mounted."""
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 86400}}
        path = f"/api/v1/namespaces/{OWN}/serviceaccounts/{OWN}/token"
        return str(self.ask("POST", path, request)["status"]["token"])

    def etcd(self, path: str, body: Json) -> Json:
        connection = http.client.HTTPConnection("127.0.0.1", self.etcd_port, timeout=30)
        try:
            connection.request("POST", path, json.dumps(body))
            answer: Json = json.loads(connection.getresponse().read())
            return answer
        finally:
            connection.close()

    def wipe(self) -> None:
        """Takes away all that tests have made but namespaces, which nobody here would finalize."""
        for kind in KINDS.values():
            if kind.name == "Namespace":
                continue
            for each in self.ask("GET", kind.api_path())["items"]:
                metadata = each["metadata"]
                namespace = metadata.get("namespace", "")
                if not namespace.startswith("kube-") and (namespace, metadata["name"]) != ("default", "kubernetes"):
                    self.ask("DELETE", self.path(kind.name, metadata["name"], namespace))
        for each in self.ask("GET", self.path("Lease", "", OWN))["items"]:
            self.ask("DELETE", self.path("Lease", each["metadata"]["name"], OWN))


@cache
def control() -> Control:
    """The pair of this process, started when it is first asked for: by the main thread, with which its children would die."""
    return Control()


class RealApiServer(Requests):
    """One test's way to the real server: a relay that can be cut or taken away, and an empty cluster behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.control = control()
        self.control.wipe()
        self.token = self.control.token
        self.port = 0
        self._relay: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()

    # ---- life ----

    async def start(self, port: int = 0) -> str:
        self._relay = await asyncio.start_server(self._take, "127.0.0.1", port)
        self.port = self._relay.sockets[0].getsockname()[1]
        return self.url

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def tls(self) -> ssl.SSLContext:
        return self.control.tls

    @property
    def authority(self) -> bytes:
        return (self.control.folder / "ca.pem").read_bytes()

    async def stop(self) -> None:
        if self._relay is not None:
            self._relay.close()
            self._relay = None
        await self.end_watches()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.control.port)
        except OSError:
            writer.close()
            return
        self._ends |= {writer, up_writer}
        for pump in (self._pump(reader, up_writer, writer), self._pump(up_reader, writer, up_writer)):
            task = asyncio.get_running_loop().create_task(pump)
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, own: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(1 << 16):
                writer.write(piece)
                await writer.drain()
        for each in (writer, own):
            self._ends.discard(each)
            each.close()

    # ---- kubectl ----

    @staticmethod
    def _namespace(kind: str, namespace: str) -> str:
        return namespace if kind == "Lease" or KINDS[kind].is_namespaced else ""

    async def put(self, *given: Json) -> None:
        """Creates, or replaces all but the status."""
        for value in given:
            self._put(copy.deepcopy(value))

    def _put(self, value: Json) -> None:
        kind, metadata = value["kind"], value["metadata"]
        if kind in PLURALS:
            value["apiVersion"] = PLURALS[kind][0]
        else:
            value.setdefault("apiVersion", f"{KINDS[kind].group}/{KINDS[kind].versions[0]}".strip("/"))
        namespace = self._namespace(kind, metadata.get("namespace", "default"))
        if namespace:
            metadata["namespace"] = namespace
            self._make_namespace(namespace)
        spec = value.get("spec", {})
        if kind == "Service" and spec.get("clusterIP") != "None":
            spec.pop("clusterIP", None)
        metadata.pop("generation", None)
        try:
            before = self.get(kind, metadata["name"], namespace or "default")
        except Refused as refusal:
            if refusal.status != 404:
                raise
            self.control.ask("POST", self.control.path(kind, "", namespace), value)
            return
        metadata["resourceVersion"] = before["metadata"]["resourceVersion"]
        if kind == "Service":
            value["spec"] = {**{key: before["spec"][key] for key in ("clusterIP", "clusterIPs") if key in before["spec"]}, **spec}
        self.control.ask("PUT", self.control.path(kind, metadata["name"], namespace), value)

    def _make_namespace(self, name: str) -> None:
        with contextlib.suppress(Refused):
            if name not in ("default", OWN):
                self.control.ask("POST", "/api/v1/namespaces", {"metadata": {"name": name}})

    async def delete(self, kind: str, name: str, namespace: str = "default") -> None:
        self.control.ask("DELETE", self.control.path(kind, name, self._namespace(kind, namespace)))

    def get(self, kind: str, name: str, namespace: str = "default") -> Json:
        found: Json = self.control.ask("GET", self.control.path(kind, name, self._namespace(kind, namespace)))
        return found

    def status(self, kind: str, name: str, namespace: str = "default") -> Json:
        """An empty one for an object that is not there."""
        try:
            found: Json = self.get(kind, name, namespace).get("status", {})
        except Refused:
            return {}
        return found

    async def set_status(self, kind: str, name: str, status: Json, namespace: str = "default") -> None:
        """As another controller would write it, over everything."""
        value = self.get(kind, name, namespace)
        value["status"] = status
        path = self.control.path(kind, name, self._namespace(kind, namespace))
        self.control.ask("PUT", f"{path}/status?{urlencode({'fieldManager': 'other'})}", value)

    # ---- what happens to API servers ----

    async def compact(self) -> None:
        """etcd forgets all versions but the present one."""
        found = self.control.etcd("/v3/kv/range", {"key": base64.b64encode(b"\0").decode()})
        self.control.etcd("/v3/kv/compaction", {"revision": found["header"]["revision"], "physical": True})

    async def end_watches(self) -> None:
        """And every other connection."""
        for each in [*self._ends]:
            each.transport.abort()
        self._ends.clear()
        await asyncio.sleep(0)
