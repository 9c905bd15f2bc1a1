"""Run a bot in its own process: `python -m benchmarks.chat_bot KIND URL HOME USERS`. BOT_TOKEN is its token.

The kinds are our bots and the floors: bots that use only the library and answer one command. Commands on
standard input: "begin" resets the measurements of the event loop, "report" prints them as JSON.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

# Each kind imports only what it needs: the benchmarks measure the start of this process.
if TYPE_CHECKING:
    from gateway_hooks.dialog.policy import AllowList
    from gateway_hooks.runtime.config_servers import ConfigServers
    from hermes_mcp_auth_remote.service import AuthService
    from hermes_mcp_auth_remote.values import Secret


def _run_telegram(url: str, home: str, users: str) -> None:
    from hermes_mcp_auth_remote.garbage_collection import pause_garbage_collection

    with pause_garbage_collection():
        from gateway_hooks.telegram.bot import run_bot

        service, servers, policy, token = _bot_arguments(home, users)
    _run_coroutine(run_bot(token, service, servers, policy, api_url=url))


def _run_discord(url: str, home: str, users: str) -> None:
    from hermes_mcp_auth_remote.garbage_collection import pause_garbage_collection

    with pause_garbage_collection():
        from gateway_hooks.discord.bot import run_bot

        service, servers, policy, token = _bot_arguments(home, users)
    _run_coroutine(run_bot(token, service, servers, policy, api_url=url))


def _bot_arguments(home: str, users: str) -> tuple[AuthService, ConfigServers, AllowList, Secret]:
    from pathlib import Path

    from gateway_hooks.dialog.policy import AllowList
    from gateway_hooks.runtime.config_servers import ConfigServers
    from hermes_mcp_auth_remote.service import AuthService
    from hermes_mcp_auth_remote.values import Secret

    home_path, user_ids = Path(home), frozenset(users.split(","))
    policy = AllowList(users=user_ids, owners="per_user")
    return AuthService(home_path), ConfigServers(home_path), policy, Secret(os.environ["BOT_TOKEN"])


def _run_telegram_floor(url: str, _home: str, _users: str) -> None:
    from telegram import InlineKeyboardButton, InlineKeyboardMarkup, Update
    from telegram.ext import ApplicationBuilder, CommandHandler

    buttons = InlineKeyboardMarkup([[InlineKeyboardButton("Hello", callback_data="hello")]])

    async def hello(update: Update, _context: Any) -> None:  # noqa: ANN401
        assert update.message is not None
        await update.message.reply_text("Hello.", reply_markup=buttons)

    builder = ApplicationBuilder().token(os.environ["BOT_TOKEN"]).base_url(f"{url}/bot")
    application = builder.base_file_url(f"{url}/file/bot").build()
    application.add_handler(CommandHandler("connect", hello, block=False))
    if not os.environ.get("BOT_WATCHED"):
        application.run_polling()
        return

    async def poll() -> None:
        assert application.updater is not None
        async with application:
            await application.start()
            await application.updater.start_polling()
            await asyncio.Event().wait()

    _run_coroutine(poll())


def _run_discord_floor(url: str, _home: str, _users: str) -> None:
    import discord
    import yarl
    from discord import app_commands
    from discord.gateway import DiscordWebSocket
    from discord.http import Route

    Route.BASE = url
    # The stand-in serves the gateway at the same origin. discord.py has the gateway's URL in a constant.
    DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(url.replace("http:", "ws:").replace("/api/v10", "/gateway"))
    client = discord.Client(intents=discord.Intents(guilds=True))
    tree = app_commands.CommandTree(client)

    @tree.command(description="Says hello.")
    async def hello(interaction: discord.Interaction[discord.Client]) -> None:
        await interaction.response.send_message("Hello.", ephemeral=True)

    client.run(os.environ["BOT_TOKEN"], log_handler=None)


BOT_RUNNERS: dict[str, Callable[[str, str, str], None]] = {
    "telegram": _run_telegram,
    "telegram floor": _run_telegram_floor,
    "discord": _run_discord,
    "discord floor": _run_discord_floor,
}


def _run_coroutine(coroutine: Coroutine[Any, Any, None]) -> None:
    if os.environ.get("BOT_WATCHED"):
        from benchmarks.loop_monitor import run_monitored

        coroutine = run_monitored(coroutine)
    asyncio.run(coroutine)


if __name__ == "__main__":
    BOT_RUNNERS[sys.argv[1]](*sys.argv[2:])
