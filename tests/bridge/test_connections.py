"""The connections of the bridge: their number, their use, TLS and proxies."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import httpx2
import pytest

from hermes_mcp_auth_remote.bridge import connections as bridge_connections
from hermes_mcp_auth_remote.bridge.connections import ConnectionStack, open_http_client
from tests.bridge.client import SSL_CONTEXT, run_in_loop
from tests.bridge.raw_server import Reply, Request, serve
from tests.parts.certificates import issue_certificates

pytestmark = pytest.mark.slow


async def respond(_: Request, reply: Reply) -> None:
    await asyncio.sleep(0.01)
    await reply.send(200, b"{}")


@run_in_loop
async def test_requests_at_once_have_a_connection_each_up_to_the_limit_and_use_it_again() -> None:
    connections = list[Any]()
    client = httpx2.AsyncClient(transport=ConnectionStack(SSL_CONTEXT, 3))
    async with serve(respond, 0, connections) as url, client:
        for _ in range(3):
            responses = await asyncio.gather(*(client.get(url) for _ in range(10)))
            assert {response.status_code for response in responses} == {200}
    assert len(connections) == 3


@run_in_loop
async def test_connections_that_were_idle_for_too_long_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    connections = list[asyncio.StreamWriter]()
    client = httpx2.AsyncClient(transport=ConnectionStack(SSL_CONTEXT, 10))
    async with serve(respond, 0, connections) as url, client:
        await asyncio.gather(*(client.get(url) for _ in range(5)))
        monkeypatch.setattr(bridge_connections, "IDLE_SECONDS", 0.0)
        # The next response closes the four other connections: the server sees their ends.
        await client.get(url)
        assert len(connections) == 5
        open_connections = {asyncio.create_task(connection.wait_closed()) for connection in connections}
        while len(open_connections) > 1:
            _, open_connections = await asyncio.wait(open_connections, return_when=asyncio.FIRST_COMPLETED)


@run_in_loop
async def test_failed_and_cancelled_requests_free_their_connections() -> None:
    async def hang(request: Request, reply: Reply) -> None:
        if request.path == "/mcp/abort":
            reply.abort()
        elif request.path == "/mcp/hang":
            await reply.wait_for_disconnect()
        else:
            await reply.send(200, b"{}")

    client = httpx2.AsyncClient(transport=ConnectionStack(SSL_CONTEXT, 1), timeout=None)
    async with serve(hang) as url, client:
        for _ in range(3):
            with pytest.raises(httpx2.HTTPError):
                await client.get(f"{url}/abort")
            hanging = asyncio.create_task(client.get(f"{url}/hang"))
            waiting = asyncio.create_task(client.get(url))
            await asyncio.sleep(0.02)
            assert not waiting.done()
            hanging.cancel()
            assert (await waiting).status_code == 200
    with pytest.raises(httpx2.ConnectError):
        await httpx2.AsyncClient(transport=ConnectionStack(SSL_CONTEXT, 1)).get(url)


@run_in_loop
async def test_tls_checks_the_certificate(tmp_path: Path) -> None:
    certificates = issue_certificates(tmp_path)
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_context.load_cert_chain(certificates.cert_file, certificates.key_file)
    connections = list[Any]()
    async with serve(respond, 0, connections, server_context) as url:
        trusting = open_http_client(
            certificates.client_context(), auth=None, headers={"X-Own": "1"}, can_use_proxy=False
        )
        async with trusting:
            for _ in range(3):
                assert (await trusting.get(url)).status_code == 200
        assert len(connections) == 1
        async with open_http_client(SSL_CONTEXT, auth=None, headers={}, can_use_proxy=False) as client:
            with pytest.raises(httpx2.ConnectError, match="certificate"):
                await client.get(url)


@run_in_loop
async def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = list[Request]()

    async def act_as_proxy(request: Request, reply: Reply) -> None:
        requests.append(request)
        await reply.send(200, b"{}")

    async with serve(act_as_proxy) as url:
        monkeypatch.setenv("HTTP_PROXY", url.removesuffix("/mcp"))
        for can_use_proxy in (True, False):
            client = open_http_client(SSL_CONTEXT, auth=None, headers={}, can_use_proxy=can_use_proxy)
            async with client:
                if can_use_proxy:
                    assert (await client.get("http://server.invalid/mcp")).status_code == 200
                else:
                    with pytest.raises(httpx2.ConnectError):
                        await client.get("http://server.invalid/mcp")
    assert [request.path for request in requests] == ["http://server.invalid/mcp"]
