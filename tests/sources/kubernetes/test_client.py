"""Requests to the API server: how one gets in, and what a refusal says."""

import asyncio
import json
from pathlib import Path

import pytest
from apiserver import ApiServer
from servers import client_of

from gateway.sources.kubernetes.client import Access, ApiClient, ApiError, Unreachable, sign_in_by


def kubeconfig(folder: Path, url: str, token: str) -> str:
    path = folder / "kubeconfig"
    plain = {
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": url}}],
        "users": [{"name": "me", "user": {"token": token}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "home"}}],
    }  # fmt: skip
    path.write_text(json.dumps(plain))
    return str(path)


def test_a_kubeconfig_says_where_and_who(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POD_NAMESPACE", raising=False)

    async def story() -> None:
        server = ApiServer()
        client = ApiClient(sign_in_by(kubeconfig(tmp_path, await server.start(), server.token)))
        assert b'"items"' in await client.request("GET", "/api/v1/services")
        assert client.access is not None and client.access.namespace == "home"
        await client.close()
        await server.stop()

    asyncio.run(story())


def test_a_kubeconfig_that_is_none_is_said_and_not_raised(tmp_path: Path) -> None:
    async def story() -> None:
        (tmp_path / "broken").write_text("clusters: {")
        for name in ("missing", "broken"):
            with pytest.raises(Unreachable, match="no way to the API server"):
                await sign_in_by(str(tmp_path / name))()

    asyncio.run(story())


def test_a_refusal_says_why_and_when_to_come_again() -> None:
    async def story() -> None:
        server = ApiServer()
        await server.start()
        client = client_of(server)
        server.forbidden.add("/secrets")
        with pytest.raises(ApiError, match="403 Forbidden: /api/v1/secrets is forbidden"):
            await client.request("GET", "/api/v1/secrets")
        server.fail("/services", 429, retry_after="7")
        with pytest.raises(ApiError) as caught:
            await client.request("GET", "/api/v1/services")
        assert caught.value.retry_after_s == 7
        with pytest.raises(ApiError, match="404"):
            await client.request("GET", "/apis/nobody.example/v1/things")
        await client.close()
        await server.stop()
        with pytest.raises(Unreachable):
            await client_of(server).request("GET", "/api/v1/services")

    asyncio.run(story())


def test_who_is_not_known_any_more_signs_in_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        server = ApiServer()
        await server.start()
        tokens = [server.token, "renewed"]

        async def sign_in() -> Access:
            token = tokens.pop(0)

            async def headers() -> dict[str, str]:
                return {"Authorization": f"Bearer {token}"}

            return Access(server.url, headers)

        client = ApiClient(sign_in)
        monkeypatch.setattr("gateway.sources.kubernetes.client.SIGN_IN_AGAIN_AFTER_S", 0.0)
        await client.request("GET", "/api/v1/services")
        server.token = "renewed"
        with pytest.raises(ApiError, match="401"):
            await client.request("GET", "/api/v1/services")
        await client.request("GET", "/api/v1/services")
        assert not tokens
        await client.close()
        await server.stop()

    asyncio.run(story())


def test_events_come_whole_however_they_are_cut() -> None:
    async def story() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for part in (b'{"a"', b':1}\n{"b":2}\n', b"\n{", b'"c":3}', b"\n"):
                writer.write(b"%x\r\n%b\r\n" % (len(part), part))
                await writer.drain()
            writer.write(b"0\r\n\r\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]

        async def sign_in() -> Access:
            async def nothing() -> dict[str, str]:
                return {}

            return Access(f"http://127.0.0.1:{port}", nothing)

        client = ApiClient(sign_in)
        assert [json.loads(line) async for line in client.watch("/x", {})] == [{"a": 1}, {"b": 2}, {"c": 3}]
        await client.close()
        server.close()
        await server.wait_closed()

    asyncio.run(story())
