"""The API server of a test: the small one, or Kubernetes' own where the test is run on it (see the fixture `each_server`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apiserver import ApiServer
from realserver import RealApiServer

from gateway.sources.kubernetes.client import Access, ApiClient

AnyServer = ApiServer | RealApiServer
HOME = "isthmus"
"""Where the gateway is at home: its leases are there."""
_is_real = False


def choose(kind: str) -> None:
    """What `new_server` makes from now on: small or real."""
    global _is_real
    _is_real = kind == "real"


def new_server() -> AnyServer:
    """One without any objects, not started."""
    return RealApiServer() if _is_real else ApiServer()


class NotingClient(ApiClient):
    """Notes what it asks, for a server that does not."""

    server: AnyServer

    async def _send(self, method: str, path: str, params: Mapping[str, str], *more: Any) -> Any:
        if isinstance(self.server, RealApiServer):
            self.server.requests.append((method, path, dict(params)))
        return await super()._send(method, path, params, *more)


def client_of(server: AnyServer) -> ApiClient:
    """Of a gateway that the server knows."""

    async def sign_in() -> Access:
        async def headers() -> dict[str, str]:
            return {"Authorization": f"Bearer {server.token}"}

        return Access(server.url, headers, ssl=server.tls, namespace=HOME)

    client = NotingClient(sign_in)
    client.server = server
    return client
