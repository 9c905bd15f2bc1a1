"""Pooled connections are shared, replaced and closed, under the same limits as all others."""

from __future__ import annotations

import asyncio

import pytest

from hermes_mcp_auth_remote.errors import AddressRefused
from hermes_mcp_auth_remote.http import pooled
from hermes_mcp_auth_remote.http.pooled import HttpClientPool
from hermes_mcp_auth_remote.oauth.wire import get_json
from hermes_mcp_auth_remote.values import Server
from tests.http.peers import (
    Peer,
    encode_response,
    make_sequence_resolver,
    make_server,
    make_table_resolver,
    respond_with,
    run_http_server,
    send_requests,
)

pytestmark = pytest.mark.slow


async def send_get(pool: HttpClientPool, server: Server, path: str = "/") -> None:
    [response] = await pool(send_requests(get_json(f"{server.url.removesuffix('/')}{path}", "step")), server)
    assert response.status == 200


def server_for_peer(peer: Peer, name: str = "s") -> Server:
    return Server(name, peer.url("/"))


def test_sequential_exchanges_share_a_connection_until_the_pool_closes() -> None:
    async def main() -> None:
        async with run_http_server(respond_with(encode_response())) as peer:
            pool = HttpClientPool(environ={})
            for _ in range(5):
                await send_get(pool, server_for_peer(peer))
            assert (peer.connections, len(peer.requests)) == (1, 5)
            await pool.aclose()
            async with asyncio.timeout(20):
                await peer.disconnected.wait()
            await send_get(pool, server_for_peer(peer))
            assert peer.connections == 2
            await pool.aclose()

    asyncio.run(main())


def test_concurrent_exchanges_share_open_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    # On a busy machine a connection can be idle for long before its next request.
    monkeypatch.setattr("hermes_mcp_auth_remote.http.client.IDLE_SECONDS", 60.0)
    # httpcore needs seconds for 200 exchanges at once over 64 connections.
    monkeypatch.setattr("hermes_mcp_auth_remote.http.client.MAX_CONNECTIONS", 8)

    async def main() -> None:
        async with run_http_server(respond_with(encode_response())) as peer:
            pool = HttpClientPool(environ={})
            await asyncio.gather(*(send_get(pool, server_for_peer(peer)) for _ in range(30)))
            assert peer.connections <= 8
            assert len(peer.requests) == 30
            await pool.aclose()

    asyncio.run(main())


def test_servers_and_changed_options_use_separate_connections() -> None:
    async def main() -> None:
        async with run_http_server(respond_with(encode_response())) as peer:
            pool = HttpClientPool(environ={})
            await send_get(pool, server_for_peer(peer, "one"))
            await send_get(pool, server_for_peer(peer, "other"))
            await send_get(pool, make_server(peer.url("/")))
            await send_get(pool, server_for_peer(peer))
            assert peer.connections == 4
            await pool.aclose()

    asyncio.run(main())


def test_host_names_are_resolved_again_after_the_client_lifetime(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with run_http_server(respond_with(encode_response())) as peer:
            queries: list[str] = []
            resolve = make_sequence_resolver("127.0.0.1", queries=queries)
            pool = HttpClientPool(environ={}, resolve=resolve)
            server = make_server(peer.url("/", host="localhost"))
            for seconds in (60.0, 60.0, 0.0, 0.0):
                monkeypatch.setattr(pooled, "CLIENT_LIFETIME_SECONDS", seconds)
                await send_get(pool, server)
            # The first client keeps its lifetime of a minute.
            assert (len(queries), peer.connections) == (1, 1)
            await pool.aclose()
            for _ in range(3):
                await send_get(pool, server)
            assert (len(queries), peer.connections) == (4, 4)
            await pool.aclose()

    asyncio.run(main())


def test_the_pool_refuses_internal_addresses() -> None:
    resolve = make_table_resolver(poll_example="10.0.0.1", mcp_example="93.184.215.14")

    async def main() -> None:
        pool = HttpClientPool(environ={}, resolve=resolve)
        with pytest.raises(AddressRefused):
            await pool(
                send_requests(get_json("https://poll.example/", "step")), Server("s", "https://mcp.example/")
            )
        await pool.aclose()

    asyncio.run(main())


def test_a_connection_in_use_is_closed_after_its_response() -> None:
    async def main() -> None:
        release, received = asyncio.Event(), asyncio.Event()

        async def respond_when_released(request: object, writer: asyncio.StreamWriter) -> None:
            received.set()
            await release.wait()
            writer.write(encode_response())

        async with run_http_server(respond_when_released) as peer:
            pool = HttpClientPool(environ={})
            waiting = asyncio.create_task(send_get(pool, server_for_peer(peer)))
            async with asyncio.timeout(20):
                await received.wait()
                await pool.aclose()
                assert not peer.disconnected.is_set()
                release.set()
                await waiting
                await peer.disconnected.wait()

    asyncio.run(main())
