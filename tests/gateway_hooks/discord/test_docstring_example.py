"""The example in the cog's docstring, in a bot with an agent."""

from __future__ import annotations

import inspect
import re
import textwrap
from typing import Any

import discord
import httpx
from discord.ext import commands

import gateway_hooks.discord as discord_hooks
from gateway_hooks.discord.api_url import use_api_url
from hermes_mcp_auth_remote.auth.httpx import McpAuth
from hermes_mcp_auth_remote.service import AuthService
from tests.gateway_hooks.discord.environment import DiscordEnvironment, run_in_thread
from tests.gateway_hooks.fake_platform import demo_servers
from tests.requirements import covers


def read_example() -> str:
    match = re.search(r"\n\n((?:    .*\n|\n)+)", inspect.getdoc(discord_hooks) or "")
    assert match is not None
    lines = textwrap.dedent(match[1])
    assert len([line for line in lines.splitlines() if line]) <= 10
    return lines


@covers("chat-asks", "discord-posted")
def test_example_prompts_and_claims_codes(env: DiscordEnvironment) -> None:
    api, ada, agent_texts = env.api, env.ada, list[str]()
    source = textwrap.indent(read_example(), "    ")
    intents = discord.Intents(guilds=True, guild_messages=True, dm_messages=True)
    bot = commands.Bot(commands.when_mentioned, intents=intents, guild_ready_timeout=0.5)

    async def answer(text: str, client: httpx.AsyncClient) -> str:
        agent_texts.append(text)
        return f"The server says {(await client.get(env.demo.ping_url)).status_code}"

    names: dict[str, Any] = {
        **vars(discord_hooks),
        "bot": bot,
        "service": AuthService(env.home, clock=env.clock),
        "ConfigServers": lambda home: home,
        "home": demo_servers(env.demo),
        "policy": env.policy,
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

    with run_in_thread(api, main):
        api.wait(lambda: len(api.commands) == 3)
        api.say(ada, env.channel, f"<@{api.bot.id}> how is it?")
        env.wait_for_message(api.dm(ada), "Connect notes", ada)
        exposed_answer = env.approve_login()
        api.say(ada, env.channel, f"<@{api.bot.id}> {exposed_answer}")
        env.wait_for_message(env.channel, "Do not post codes in a group", ada)
        prompt = env.wait_for_message(api.dm(ada), "Connect notes", ada)
        env.submit_answer(ada, prompt, env.approve_login())
        env.wait_for_message(api.dm(ada), "notes: connected", ada)
        api.say(ada, env.channel, f"<@{api.bot.id}> and now?")
        env.wait_for_message(env.channel, "The server says 200", ada)
    assert not any(exposed_answer in text for text in agent_texts)
