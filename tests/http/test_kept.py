"""Pooled connections are shared, replaced and closed, under the same limits as all others."""

from __future__ import annotations

import asyncio

import pytest

from hermes_mcp_auth_remote.errors import AddressRefused
from hermes_mcp_auth_remote.http import pooled
from hermes_mcp_auth_remote.http.pooled import HttpClientPool
from hermes_mcp_auth_remote.oauth.wire import get_json
from hermes_mcp_auth_remote.values import Server
from tests.http.peers import Peer, always, asking, configured, leading, leading_by_name, reply, serving

pytestmark = pytest.mark.slow


async def ask(connections: HttpClientPool, server: Server, path: str = "/") -> None:
    [answer] = await connections(asking(get_json(f"{server.url.removesuffix('/')}{path}", "step")), server)
    assert answer.status == 200


def server_of(peer: Peer, name: str = "s") -> Server:
    return Server(name, peer.url("/"))


def test_exchanges_one_after_another_share_a_connection_and_closing_ends_it() -> None:
    async def main() -> None:
        async with serving(always(reply())) as peer:
            connections = HttpClientPool(environ={})
            for _ in range(5):
                await ask(connections, server_of(peer))
            assert (peer.connections, len(peer.heard)) == (1, 5)
            await connections.aclose()
            async with asyncio.timeout(20):
                await peer.left.wait()
            await ask(connections, server_of(peer))
            assert peer.connections == 2
            await connections.aclose()

    asyncio.run(main())


def test_many_exchanges_at_once_share_what_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    # On a busy machine a connection can be idle for long before its next request.
    monkeypatch.setattr("hermes_mcp_auth_remote.http.client.IDLE_SECONDS", 60.0)

    async def main() -> None:
        async with serving(always(reply())) as peer:
            connections = HttpClientPool(environ={})
            await asyncio.gather(*(ask(connections, server_of(peer)) for _ in range(200)))
            assert peer.connections <= 64
            assert len(peer.heard) == 200
            await connections.aclose()

    asyncio.run(main())


def test_servers_share_nothing_and_new_options_count_at_once() -> None:
    async def main() -> None:
        async with serving(always(reply())) as peer:
            connections = HttpClientPool(environ={})
            await ask(connections, server_of(peer, "one"))
            await ask(connections, server_of(peer, "other"))
            await ask(connections, configured(peer.url("/")))
            await ask(connections, server_of(peer))
            assert peer.connections == 4
            await connections.aclose()

    asyncio.run(main())


def test_after_a_while_names_are_looked_up_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with serving(always(reply())) as peer:
            asked: list[str] = []
            resolve = leading("127.0.0.1", asked=asked)
            connections = HttpClientPool(environ={}, resolve=resolve)
            server = configured(peer.url("/", host="localhost"))
            for seconds in (60.0, 60.0, 0.0, 0.0):
                monkeypatch.setattr(pooled, "CLIENT_LIFETIME_SECONDS", seconds)
                await ask(connections, server)
            # The first client keeps its lifetime of a minute.
            assert (len(asked), peer.connections) == (1, 1)
            await connections.aclose()
            for _ in range(3):
                await ask(connections, server)
            assert (len(asked), peer.connections) == (4, 4)
            await connections.aclose()

    asyncio.run(main())


def test_an_address_that_is_refused_is_refused_here_too() -> None:
    resolve = leading_by_name(poll_example="10.0.0.1", mcp_example="93.184.215.14")

    async def main() -> None:
        connections = HttpClientPool(environ={}, resolve=resolve)
        with pytest.raises(AddressRefused):
            await connections(
                asking(get_json("https://poll.example/", "step")), Server("s", "https://mcp.example/")
            )
        await connections.aclose()

    asyncio.run(main())


def test_what_is_in_use_is_closed_after_use() -> None:
    async def main() -> None:
        hold, asked = asyncio.Event(), asyncio.Event()

        async def answer(heard: object, writer: asyncio.StreamWriter) -> None:
            asked.set()
            await hold.wait()
            writer.write(reply())

        async with serving(answer) as peer:
            connections = HttpClientPool(environ={})
            waiting = asyncio.create_task(ask(connections, server_of(peer)))
            async with asyncio.timeout(20):
                await asked.wait()
                await connections.aclose()
                assert not peer.left.is_set()
                hold.set()
                await waiting
                await peer.left.wait()

    asyncio.run(main())
