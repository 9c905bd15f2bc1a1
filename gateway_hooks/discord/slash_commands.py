"""The slash commands of the cog, and how Discord comes to know them: once, and when one has changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

import discord
from discord import app_commands
from discord.ext import commands

from gateway_hooks.dialog.cards import truncate
from gateway_hooks.dialog.messages import Messages
from gateway_hooks.discord.errors import translate_errors

MAX_DESCRIPTION_CHARS = 100
MAX_CHOICES = 25
MAX_CHOICE_CHARS = 100

Interaction = discord.Interaction[discord.Client]
CommandCallback = Callable[[Interaction, str, str], Awaitable[None]]
"""Takes an interaction, the command's name without what stands before it, and the rest."""
ServerNamesCallback = Callable[[Interaction], Awaitable[list[str]]]
"""Returns the servers that this person may choose from."""


@dataclass(frozen=True, slots=True)
class CommandCallbacks:
    """What the commands call; discord.py reads the options from the signatures."""

    handle_command: CommandCallback
    list_server_names: ServerNamesCallback

    async def connect(self, interaction: Interaction, server: str = "") -> None:
        """Log in."""
        await self.handle_command(interaction, "connect", server)

    async def connections(self, interaction: Interaction) -> None:
        """List."""
        await self.handle_command(interaction, "connections", "")

    async def disconnect(self, interaction: Interaction, server: str = "") -> None:
        """Log out."""
        await self.handle_command(interaction, "disconnect", server)

    async def complete_server_name(
        self, interaction: Interaction, current: str
    ) -> list[app_commands.Choice[str]]:
        """Offer the servers whose names hold what was typed so far."""
        known = [
            name
            for name in await self.list_server_names(interaction)
            if current.casefold() in name.casefold()
        ]
        return [
            app_commands.Choice(name=name, value=name) for name in known if 0 < len(name) <= MAX_CHOICE_CHARS
        ][:MAX_CHOICES]


def make_commands(
    callbacks: CommandCallbacks, messages: Messages, prefix: str = "", *, in_guilds: bool = False
) -> list[app_commands.Command[Any, ..., Any]]:
    """Return the three commands, each with `prefix` before its name."""
    # In a guild's own commands there is nowhere else to allow or forbid.
    where = None if in_guilds else app_commands.AppCommandContext(guild=True, dm_channel=True)
    made: list[app_commands.Command[Any, ..., Any]] = []
    for name, about, callback in (
        ("connect", messages.connect_description, callbacks.connect),
        ("connections", messages.connections_description, callbacks.connections),
        ("disconnect", messages.disconnect_description, callbacks.disconnect),
    ):
        command = app_commands.Command[Any, ..., Any](
            name=f"{prefix}{name}",
            description=truncate(about, MAX_DESCRIPTION_CHARS),
            callback=callback,
            allowed_contexts=where,
        )
        if name != "connections":
            _add_autocomplete(
                command, callbacks, truncate(messages.server_option_description, MAX_DESCRIPTION_CHARS)
            )
        made.append(command)
    return made


def _add_autocomplete(
    command: app_commands.Command[Any, ..., Any], callbacks: CommandCallbacks, description: str
) -> None:
    @command.autocomplete("server")
    async def complete_server_name(interaction: Interaction, current: str) -> list[app_commands.Choice[str]]:
        return await callbacks.complete_server_name(interaction, current)

    command._params["server"].description = description  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


async def sync_commands(
    bot: commands.Bot, own_commands: Iterable[app_commands.Command[Any, ..., Any]], guild_ids: Iterable[int]
) -> int:
    """Tell Discord of those commands that it does not have, or has otherwise; returns how many.

    Others are left alone: those of the application around us, in its tree or not. Raises ChatError.
    """
    written, payloads = 0, [command.to_dict(bot.tree) for command in own_commands]
    app, http = cast("int", bot.application_id), bot.http
    places: list[int | None] = list(guild_ids) or [None]
    for guild in places:
        with translate_errors():
            listing = http.get_global_commands(app) if guild is None else http.get_guild_commands(app, guild)
            known = cast("list[dict[str, Any]]", await listing)
            there = {(each["type"], each["name"]): each for each in known}
            for payload in payloads:
                if matches_registered(payload, there.get((payload["type"], payload["name"]))):
                    continue
                await (
                    http.upsert_global_command(app, cast("Any", payload))
                    if guild is None
                    else http.upsert_guild_command(app, guild, payload)
                )
                written += 1
    return written


def matches_registered(own: object, registered: object) -> bool:
    """True where all that we say of a command is what Discord has; it adds members of its own."""
    if isinstance(own, dict) and isinstance(registered, dict):
        mine, other = cast("dict[str, object]", own), cast("dict[str, object]", registered)
        # An older word for what `contexts` says.
        return all(
            matches_registered(value, other.get(name))
            for name, value in mine.items()
            if name != "dm_permission"
        )
    if isinstance(own, list) and isinstance(registered, list):
        mine_listed, other_listed = cast("list[object]", own), cast("list[object]", registered)
        return len(mine_listed) == len(other_listed) and all(
            map(matches_registered, mine_listed, other_listed)
        )
    # What we leave open is as Discord has it by default.
    return own is None or own == registered or (not own and not registered)
