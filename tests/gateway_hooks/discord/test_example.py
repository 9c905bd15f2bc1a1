"""The example in the cog's docstring, in a bot with an agent."""

from __future__ import annotations

import inspect
import re
import textwrap
from typing import Any

import discord
import httpx
from discord.ext import commands

import gateway_hooks.discord as room
from gateway_hooks.discord.api_url import use_api_url
from hermes_mcp_auth_remote.auth.httpx import McpAuth
from hermes_mcp_auth_remote.service import AuthService
from tests.gateway_hooks.discord.given import Scene, running
from tests.gateway_hooks.given import servers_of
from tests.requirements import covers


def example() -> str:
    found = re.search(r"\n\n((?:    .*\n|\n)+)", inspect.getdoc(room) or "")
    assert found is not None
    lines = textwrap.dedent(found[1])
    assert len([line for line in lines.splitlines() if line]) <= 10
    return lines


@covers("chat-asks", "discord-posted")
def test_the_example_asks_and_goes_on_and_keeps_codes_from_the_agent(scene: Scene) -> None:
    api, ada, heard = scene.api, scene.ada, list[str]()
    source = textwrap.indent(example(), "    ")
    intents = discord.Intents(guilds=True, guild_messages=True, dm_messages=True)
    bot = commands.Bot(commands.when_mentioned, intents=intents, guild_ready_timeout=0.5)

    async def answer(text: str, client: httpx.AsyncClient) -> str:
        heard.append(text)
        return f"The server says {(await client.get(scene.demo.ping_url)).status_code}"

    names: dict[str, Any] = {
        **vars(room),
        "bot": bot,
        "service": AuthService(scene.home, clock=scene.clock),
        "ConfigServers": lambda home: home,
        "home": servers_of(scene.demo),
        "policy": scene.policy,
        "httpx": httpx,
        "McpAuth": McpAuth,
        "answer": answer,
    }
    exec(f"async def set_up():\n{source}", names)

    async def main() -> None:
        use_api_url(bot, api.url)
        async with bot:
            vars(bot)["setup_hook"] = names["set_up"]
            await bot.start(api.token)

    with running(api, main):
        api.wait(lambda: len(api.commands) == 3)
        api.say(ada, scene.channel, f"<@{api.bot.id}> how is it?")
        scene.until_seen(api.dm(ada), "Connect notes", ada)
        first = scene.approve()
        api.say(ada, scene.channel, f"<@{api.bot.id}> {first}")
        scene.until_seen(scene.channel, "Do not post codes in a group", ada)
        prompt = scene.until_seen(api.dm(ada), "Connect notes", ada)
        scene.paste(ada, prompt, scene.approve())
        scene.until_seen(api.dm(ada), "notes: connected", ada)
        api.say(ada, scene.channel, f"<@{api.bot.id}> and now?")
        scene.until_seen(scene.channel, "The server says 200", ada)
    assert not any(first in text for text in heard)
