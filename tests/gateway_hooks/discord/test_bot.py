"""The standalone bot: its start and end, another API URL, and as few intents as possible."""

from __future__ import annotations

import asyncio
import threading

import discord
import pytest
from discord.http import Route

from gateway_hooks.discord.api_url import route_at
from gateway_hooks.discord.bot import LoginBot, run_bot
from hermes_mcp_auth_remote.errors import ConfigError
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Secret
from tests.gateway_hooks.discord.given import Scene, running
from tests.gateway_hooks.given import servers_of
from tests.parts.discord_api import running as running_api
from tests.requirements import covers

pytestmark = pytest.mark.slow

GUILDS, GUILD_MESSAGES, DIRECT_MESSAGES = 1 << 0, 1 << 9, 1 << 12


def threads() -> list[threading.Thread]:
    """List the threads of this process without the pool for file work."""
    return [each for each in threading.enumerate() if not each.name.startswith("mcp-auth-files")]


@covers("discord-bot")
def test_it_runs_until_cancelled(scene: Scene) -> None:
    started: list[str] = []

    async def main() -> None:
        service = AuthService(scene.home, clock=scene.clock)
        await run_bot(
            Secret(scene.api.token),
            service,
            servers_of(scene.demo),
            scene.policy,
            api_url=scene.api.url,
            guild_ids=(int(scene.guild.id),),
            on_started=started.append,
        )

    before = set(threads())
    with running(scene.api, main):
        scene.api.wait(lambda: len(scene.api.guild_commands(scene.guild)) == 3)
        assert started == ["bot"]
        prompt = scene.connect(scene.ada)
        assert "Connect notes" in prompt.text
    identified = [frame for frame in scene.api.gateway.heard if frame["op"] == 2]
    assert [frame["d"]["intents"] for frame in identified] == [GUILDS | GUILD_MESSAGES | DIRECT_MESSAGES]
    scene.api.wait(lambda: not scene.api.gateway.connections)
    assert len(set(threads()) - before) <= 1


@covers("discord-bot")
def test_a_token_that_is_not_taken_is_said_without_it(scene: Scene) -> None:
    secret = "MTI.not-a-token.of-any-bot-at-all"

    async def main() -> None:
        service = AuthService(scene.home)
        await run_bot(Secret(secret), service, servers_of(scene.demo), scene.policy, api_url=scene.api.url)

    with pytest.raises(ConfigError) as refused:
        asyncio.run(main())
    assert secret not in f"{refused.value!r} {refused.value.advice}"


def test_it_takes_no_message_for_a_command(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    api = scene.api
    with scene.bot():
        api.say(scene.ada, api.dm(scene.ada), f"<@{api.bot.id}> connect")
        api.answer(api.slash(scene.ada, scene.channel, "connections"))
    assert "CommandNotFound" not in caplog.text


@covers("discord-bot")
def test_another_client_of_the_process_stays_at_its_own_endpoint(scene: Scene) -> None:
    with running_api() as other, scene.bot(), other.used_by_discord_py():

        async def look() -> str:
            client = discord.Client(intents=discord.Intents.none())
            async with client:
                await client.login(other.token)
                return str(client.user)

        assert asyncio.run(look()) == "bot"
        assert next(call.path for call in other.calls).endswith("/users/@me")
        # The bot still uses its own API URL.
        assert "Connect notes" in scene.connect(scene.ada).text
        assert all("/interactions" not in call.path for call in other.calls)


def test_a_route_of_somebody_else_is_left_as_it_is() -> None:
    route = Route("GET", "/gateway")
    route.url = "https://elsewhere.example/gateway"
    assert route_at(route, "http://127.0.0.1:1/api/v10").url == "https://elsewhere.example/gateway"
    assert (
        route_at(Route("GET", "/gateway"), "http://127.0.0.1:1/api").url == "http://127.0.0.1:1/api/gateway"
    )


def test_it_keeps_no_messages_and_no_members() -> None:
    bot = LoginBot()
    assert list(bot.cached_messages) == []
    assert not bot.intents.members
    assert not bot.intents.message_content
