"""Requests to the API server: where it is and who asks comes from kubernetes-asyncio, what is said is bytes.

Objects are decoded elsewhere, once and into small structs; the models of the client library are never made.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec

if TYPE_CHECKING:
    import ssl

log = logging.getLogger("gateway.sources.kubernetes")

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
REQUEST_WITHIN_S = 60.0
CONNECT_WITHIN_S = 10.0
SILENT_AFTER_S = 150.0       # a watch without an event or a bookmark (about one in a minute) for so long is begun again
LONGEST_EVENT = 16 << 20     # bytes of one object
SIGN_IN_AGAIN_AFTER_S = 10.0

APPLY = "application/apply-patch+yaml"
JSON = "application/json"


class Unreachable(Exception):
    """The API server does not answer, or there is no telling where it is."""


class ApiError(Exception):
    """The API server refused."""

    def __init__(self, status: int, reason: str, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(f"{status} {reason}: {message}" if message else f"{status} {reason}")
        self.status = status
        self.retry_after_s = retry_after_s


class _Refusal(msgspec.Struct, frozen=True):
    """A Status object, as far as it matters."""

    reason: str = ""
    message: str = ""


@dataclass(slots=True)
class Access:
    """Where the API server is and how to get in."""

    url: str
    headers: Callable[[], Awaitable[Mapping[str, str]]]
    """Asked for each request: tokens change."""
    ssl: ssl.SSLContext | bool = True
    server_name: str | None = None
    proxy: str | None = None
    namespace: str = "default"
    """Where this gateway itself is at home."""


SignIn = Callable[[], Awaitable[Access]]




def sign_in_by(kubeconfig: str | None) -> SignIn:
    """In the cluster when this is one of its pods, else by kubeconfig: the named one, $KUBECONFIG, or ~/.kube/config."""

    async def sign_in() -> Access:
        # A second of importing and of reading files does not belong on the loop.
        return await asyncio.to_thread(lambda: asyncio.run(_sign_in(kubeconfig)))

    return sign_in


async def _sign_in(kubeconfig: str | None) -> Access:
    from kubernetes_asyncio import config
    from kubernetes_asyncio.client.configuration import Configuration

    loaders: Any = config
    settings: Any = Configuration()
    namespace = os.environ.get("POD_NAMESPACE", "")
    try:
        if kubeconfig is None and os.environ.get("KUBERNETES_SERVICE_HOST"):
            loaders.load_incluster_config(client_configuration=settings)
            if not namespace and (ACCOUNT / "namespace").is_file():
                namespace = (ACCOUNT / "namespace").read_text().strip()
        else:
            file = os.path.expanduser(kubeconfig) if kubeconfig else None
            loader: Any = await loaders.load_kube_config(config_file=file, client_configuration=settings, persist_config=False)
            current: Any = loader.current_context
            namespace = namespace or current["context"].get("namespace", "")
        return Access(
            url=settings.host.rstrip("/"),
            headers=_headers_of(settings),
            ssl=_tls_of(settings),
            server_name=settings.tls_server_name,
            proxy=settings.proxy,
            namespace=namespace or "default",
        )
    except Exception as error:
        # What a kubeconfig, a plug-in that it names, or a cloud can make the library raise has no end.
        raise Unreachable(f"no way to the API server: {error or type(error).__name__}") from None


def _headers_of(settings: Any) -> Callable[[], Awaitable[Mapping[str, str]]]:
    async def headers() -> Mapping[str, str]:
        found = {}
        for each in (await settings.auth_settings()).values():
            if each["in"] == "header" and each["value"]:
                found[str(each["key"])] = str(each["value"])
        return found

    return headers


def _tls_of(settings: Any) -> ssl.SSLContext | bool:
    import ssl

    if not settings.host.startswith("https:"):
        return True
    made = ssl.create_default_context(cafile=settings.ssl_ca_cert or None)
    # The authorities of many clusters lack what RFC 5280 wants of them.
    made.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if settings.cert_file:
        made.load_cert_chain(settings.cert_file, settings.key_file)
    if not settings.verify_ssl:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made


@dataclass(slots=True)
class ApiClient:
    """One session with the API server; signs in at the first request and again when it is not known any more."""

    sign_in: SignIn
    access: Access | None = None
    _session: aiohttp.ClientSession | None = None
    _signed_in: float = 0.0
    _is_refused: bool = False
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def request(
        self, method: str, path: str, params: Mapping[str, str] | None = None, *, body: bytes | None = None, content: str = JSON
    ) -> bytes:
        """One request; the content of the answer. ApiError for a refusal, Unreachable for none."""
        timeout = aiohttp.ClientTimeout(total=REQUEST_WITHIN_S, connect=CONNECT_WITHIN_S)
        try:
            async with await self._send(method, path, params or {}, timeout, body, content) as response:
                answer: bytes = await response.read()
                if response.status >= 400:
                    raise self._refusal(response, answer)
                return answer
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(_words(error)) from None

    async def watch(
        self, path: str, params: Mapping[str, str], on_open: Callable[[], None] = lambda: None
    ) -> AsyncIterator[bytes]:
        """The events of a watch, undecoded, until the server ends it; `on_open` is called once it has granted it, however long
        the first event takes. ApiError for a refusal, Unreachable when it breaks off or falls silent."""
        timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_WITHIN_S, sock_read=SILENT_AFTER_S)
        try:
            async with await self._send("GET", path, {**params, "watch": "true"}, timeout) as response:
                if response.status >= 400:
                    raise self._refusal(response, await response.read())
                on_open()
                rest = bytearray()
                async for chunk in response.content.iter_any():
                    begin = len(rest)
                    rest += chunk
                    if (end := rest.rfind(b"\n", begin)) >= 0:
                        lines = bytes(rest[:end]).split(b"\n")
                        del rest[: end + 1]
                        for line in lines:
                            if line:
                                yield line
                    elif len(rest) > LONGEST_EVENT:
                        raise Unreachable(f"an event of more than {LONGEST_EVENT >> 20} MiB")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(_words(error)) from None

    async def close(self) -> None:
        """Ends all that is under way."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ready(self) -> Access:
        """Signed in."""
        async with self._lock:
            is_due = self._is_refused and time.monotonic() - self._signed_in >= SIGN_IN_AGAIN_AFTER_S
            if self.access is None or is_due:
                self.access = await self.sign_in()
                self._signed_in, self._is_refused = time.monotonic(), False
            if self._session is None:
                # As many connections as there are watches; they are all held open.
                self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), trust_env=True)
            return self.access

    async def _send(
        self,
        method: str,
        path: str,
        params: Mapping[str, str],
        timeout: aiohttp.ClientTimeout,
        body: bytes | None = None,
        content: str = JSON,
    ) -> Any:
        access = await self.ready()
        assert self._session is not None
        headers = {"Accept": JSON, "User-Agent": "isthmus", **await access.headers()}
        if body is not None:
            headers["Content-Type"] = content
        return self._session.request(
            method, access.url + path, params=params, data=body, headers=headers, timeout=timeout,
            ssl=access.ssl, server_hostname=access.server_name, proxy=access.proxy, allow_redirects=False,
        )  # fmt: skip

    def _refusal(self, response: aiohttp.ClientResponse, answer: bytes) -> ApiError:
        if response.status == 401:
            self._is_refused = True
        try:
            said = msgspec.json.decode(answer, type=_Refusal)
        except msgspec.MsgspecError:
            said = _Refusal(response.reason or "")
        after = response.headers.get("Retry-After", "")
        wait_s = min(float(after), 60.0) if after.isascii() and after.isdigit() else 0.0
        return ApiError(response.status, said.reason or response.reason or "refused", said.message[:300], wait_s)


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
