"""The standalone bot: its start and end, another API URL, and as few intents as possible."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import discord
import pytest
from discord.gateway import DiscordWebSocket
from discord.http import Route

from gateway_hooks.discord.api_url import route_at
from gateway_hooks.discord.bot import LoginBot, run_bot
from hermes_mcp_auth_remote import cancellation
from hermes_mcp_auth_remote.errors import ConfigError
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Secret
from tests.gateway_hooks.discord.environment import DiscordEnvironment, run_in_thread
from tests.gateway_hooks.fake_platform import demo_servers
from tests.parts.discord_api import serve_discord_api as running_api
from tests.requirements import covers

pytestmark = pytest.mark.slow

GUILDS, GUILD_MESSAGES, DIRECT_MESSAGES = 1 << 0, 1 << 9, 1 << 12


def bot_threads() -> list[threading.Thread]:
    """List the threads of this process without the pool for file work."""
    return [thread for thread in threading.enumerate() if not thread.name.startswith("mcp-auth-files")]


@covers("discord-bot")
def test_bot_runs_until_cancelled(env: DiscordEnvironment) -> None:
    started: list[str] = []

    async def main() -> None:
        service = AuthService(env.home, clock=env.clock)
        await run_bot(
            Secret(env.api.token),
            service,
            demo_servers(env.demo),
            env.policy,
            api_url=env.api.url,
            guild_ids=(int(env.guild.id),),
            on_started=started.append,
        )

    threads_before = set(bot_threads())
    with run_in_thread(env.api, main):
        env.api.wait(lambda: len(env.api.guild_commands(env.guild)) == 3)
        assert started == ["bot"]
        prompt = env.request_prompt(env.ada)
        assert "Connect notes" in prompt.text
    identify_frames = [frame for frame in env.api.gateway.received_frames if frame["op"] == 2]
    assert [frame["d"]["intents"] for frame in identify_frames] == [GUILDS | GUILD_MESSAGES | DIRECT_MESSAGES]
    env.api.wait(lambda: not env.api.gateway.connections)
    assert len(set(bot_threads()) - threads_before) <= 1


@covers("serve-stop")
def test_bot_ends_if_cancelled_in_the_moment_in_which_it_has_connected(
    env: DiscordEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On Python 3.11, `asyncio.wait_for` in `Client.connect` loses this cancellation.
    monkeypatch.setattr(cancellation, "RECANCEL_SECONDS", 0.01)
    connect = DiscordWebSocket.from_client
    run_tasks: list[asyncio.Task[None]] = []

    async def connect_and_cancel_bot(*args: Any, **kwargs: Any) -> DiscordWebSocket:
        websocket = await connect(*args, **kwargs)
        run_tasks[0].cancel()
        return websocket

    monkeypatch.setattr(DiscordWebSocket, "from_client", connect_and_cancel_bot)

    async def main() -> None:
        service, servers = AuthService(env.home, clock=env.clock), demo_servers(env.demo)
        bot_run = run_bot(Secret(env.api.token), service, servers, env.policy, api_url=env.api.url)
        run_tasks.append(asyncio.create_task(bot_run))
        await asyncio.wait(run_tasks, timeout=20)
        assert run_tasks[0].cancelled()

    asyncio.run(main())
    env.api.wait(lambda: not env.api.gateway.connections)


@covers("discord-bot")
def test_rejected_token_error_does_not_contain_token(env: DiscordEnvironment) -> None:
    secret = "MTI.not-a-token.of-any-bot-at-all"

    async def main() -> None:
        service = AuthService(env.home)
        await run_bot(Secret(secret), service, demo_servers(env.demo), env.policy, api_url=env.api.url)

    with pytest.raises(ConfigError) as error:
        asyncio.run(main())
    assert secret not in f"{error.value!r} {error.value.advice}"


def test_message_is_not_parsed_as_command(env: DiscordEnvironment, caplog: pytest.LogCaptureFixture) -> None:
    api = env.api
    with env.running_bot():
        api.say(env.ada, api.dm(env.ada), f"<@{api.bot.id}> connect")
        api.wait_for_response(api.slash(env.ada, env.channel, "connections"))
    assert "CommandNotFound" not in caplog.text


@covers("discord-bot")
def test_other_client_of_process_keeps_its_api_url(env: DiscordEnvironment) -> None:
    with running_api() as other_api, env.running_bot(), other_api.patch_discord_py():

        async def log_in_other_client() -> str:
            client = discord.Client(intents=discord.Intents.none())
            async with client:
                await client.login(other_api.token)
                return str(client.user)

        assert asyncio.run(log_in_other_client()) == "bot"
        assert next(call.path for call in other_api.calls).endswith("/users/@me")
        # The bot still uses its own API URL.
        assert "Connect notes" in env.request_prompt(env.ada).text
        assert all("/interactions" not in call.path for call in other_api.calls)


def test_route_at_keeps_routes_of_other_hosts() -> None:
    route = Route("GET", "/gateway")
    route.url = "https://elsewhere.example/gateway"
    assert route_at(route, "http://127.0.0.1:1/api/v10").url == "https://elsewhere.example/gateway"
    assert (
        route_at(Route("GET", "/gateway"), "http://127.0.0.1:1/api").url == "http://127.0.0.1:1/api/gateway"
    )


def test_bot_caches_no_messages_and_no_members() -> None:
    bot = LoginBot()
    assert list(bot.cached_messages) == []
    assert not bot.intents.members
    assert not bot.intents.message_content
