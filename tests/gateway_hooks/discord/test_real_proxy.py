"""The standalone bot behind a real proxy (CONNECT), with Discord's own names and TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from socket import AddressFamily
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from gateway_hooks.discord import bot as bot_module
from gateway_hooks.discord.bot import run_bot
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Secret
from tests.gateway_hooks.discord.environment import DiscordEnvironment, run_in_thread
from tests.gateway_hooks.fake_platform import demo_servers
from tests.http.peers import Peer, run_proxy
from tests.parts.certificates import Certificates, issue_certificates
from tests.requirements import covers

pytestmark = pytest.mark.slow

REST_HOST, GATEWAY_HOST = "discord.com", "gateway.discord.gg"
PASSWORD = "ada:a b/c"
PASSWORD_IN_URL = "ada:a%20b%2Fc"


@dataclass
class FrontResolver(AbstractResolver):
    """Resolves every name to the front, and records the names: those of direct connections."""

    port: int
    names: set[str] = field(default_factory=set[str])

    async def resolve(
        self, host: str, port: int = 0, family: AddressFamily = AddressFamily.AF_INET
    ) -> list[ResolveResult]:
        self.names.add(host)
        return [
            {
                "hostname": host,
                "host": "127.0.0.1",
                "port": self.port,
                "family": AddressFamily.AF_INET,
                "proto": 0,
                "flags": 0,
            }
        ]

    async def close(self) -> None:
        pass


@asynccontextmanager
async def run_front(env: DiscordEnvironment, certificates: Certificates) -> AsyncGenerator[Peer]:
    """Serve the local Discord with TLS, at the paths of the real one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.cert_file, certificates.key_file)
    target = urlsplit(env.api.url)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while part := await reader.read(65536):
            writer.write(part)
            await writer.drain()
        writer.close()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        target_reader, target_writer = await asyncio.open_connection(target.hostname, target.port)
        # Discord's gateway is at the root of its host.
        target_writer.write(head.replace(b"GET /?", b"GET /gateway?", 1))
        await asyncio.gather(copy(reader, target_writer), copy(target_reader, writer), return_exceptions=True)

    async with await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context) as server:
        yield Peer(server.sockets[0].getsockname()[1])


@covers("bot-proxy")
@pytest.mark.parametrize(
    ("no_proxy", "direct_names"),
    [
        ("", set[str]()),
        (".discord.gg", {GATEWAY_HOST}),
        ("discord.com", {REST_HOST}),
        ("*", {REST_HOST, GATEWAY_HOST}),
    ],
    ids=["none", "gateway", "rest and webhooks", "all"],
)
def test_a_login_goes_through_the_proxy_on_every_leg(
    env: DiscordEnvironment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_proxy: str,
    direct_names: set[str],
) -> None:
    certificates = issue_certificates(tmp_path, REST_HOST, GATEWAY_HOST)
    resolvers, proxies = list[FrontResolver](), list[Peer]()

    def make_connector(_environ: object) -> aiohttp.BaseConnector:
        return aiohttp.TCPConnector(ssl=certificates.client_context(), resolver=resolvers[0])

    async def main() -> None:
        async with run_front(env, certificates) as front, run_proxy(front, password=PASSWORD) as proxy:
            resolvers.append(FrontResolver(front.port))
            proxies.append(proxy)
            monkeypatch.setattr(bot_module, "make_connector", make_connector)
            monkeypatch.setenv("HTTPS_PROXY", f"http://{PASSWORD_IN_URL}@127.0.0.1:{proxy.port}")
            monkeypatch.setenv("NO_PROXY", no_proxy)
            service = AuthService(env.home, clock=env.clock)
            # No `api_url`: the bot uses Discord's own addresses.
            await run_bot(Secret(env.api.token), service, demo_servers(env.demo), env.policy)

    with run_in_thread(env.api, main):
        env.api.wait(lambda: len(env.api.commands) >= 3)
        # The response to an interaction is the leg of webhooks.
        prompt = env.request_prompt(env.ada)
        env.submit_answer(env.ada, prompt, env.approve_login())
        env.wait_for_text(prompt, "notes: connected")
    assert resolvers[0].names == direct_names
    tunnels = {request.target.removesuffix(":443") for request in proxies[0].requests}
    assert tunnels == {REST_HOST, GATEWAY_HOST} - direct_names
