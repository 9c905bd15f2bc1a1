"""The slash commands of the cog, and how Discord comes to know them: once, and when one has changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

import discord
from discord import app_commands
from discord.ext import commands

from gateway_hooks.dialog.cards import short
from gateway_hooks.dialog.messages import Words
from gateway_hooks.discord.errors import refusals

MAX_ABOUT_CHARS = 100
MAX_CHOICES = 25
MAX_CHOICE_CHARS = 100

Interaction = discord.Interaction[discord.Client]
Told = Callable[[Interaction, str, str], Awaitable[None]]
"""Takes an interaction, the command's name without what stands before it, and the rest."""
Names = Callable[[Interaction], Awaitable[list[str]]]
"""Returns the servers that this person may choose from."""


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What the commands call; discord.py reads the options from the signatures."""

    told: Told
    names: Names

    async def connect(self, interaction: Interaction, server: str = "") -> None:
        """Log in."""
        await self.told(interaction, "connect", server)

    async def connections(self, interaction: Interaction) -> None:
        """List."""
        await self.told(interaction, "connections", "")

    async def disconnect(self, interaction: Interaction, server: str = "") -> None:
        """Log out."""
        await self.told(interaction, "disconnect", server)

    async def complete(self, interaction: Interaction, begun: str) -> list[app_commands.Choice[str]]:
        """Offer the servers whose names hold what was typed so far."""
        known = [name for name in await self.names(interaction) if begun.casefold() in name.casefold()]
        return [
            app_commands.Choice(name=name, value=name) for name in known if 0 < len(name) <= MAX_CHOICE_CHARS
        ][:MAX_CHOICES]


def commands_of(
    callbacks: Callbacks, words: Words, prefix: str = "", *, in_guilds: bool = False
) -> list[app_commands.Command[Any, ..., Any]]:
    """Return the three commands, each with `prefix` before its name."""
    # In a guild's own commands there is nowhere else to allow or forbid.
    where = None if in_guilds else app_commands.AppCommandContext(guild=True, dm_channel=True)
    made: list[app_commands.Command[Any, ..., Any]] = []
    for name, about, callback in (
        ("connect", words.connect_about, callbacks.connect),
        ("connections", words.connections_about, callbacks.connections),
        ("disconnect", words.disconnect_about, callbacks.disconnect),
    ):
        command = app_commands.Command[Any, ..., Any](
            name=f"{prefix}{name}",
            description=short(about, MAX_ABOUT_CHARS),
            callback=callback,
            allowed_contexts=where,
        )
        if name != "connections":
            _with_choices(command, callbacks, short(words.server_about, MAX_ABOUT_CHARS))
        made.append(command)
    return made


def _with_choices(command: app_commands.Command[Any, ..., Any], callbacks: Callbacks, about: str) -> None:
    @command.autocomplete("server")
    async def complete(interaction: Interaction, begun: str) -> list[app_commands.Choice[str]]:
        return await callbacks.complete(interaction, begun)

    command._params["server"].description = about  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


async def sync(
    bot: commands.Bot, ours: Iterable[app_commands.Command[Any, ..., Any]], guilds: Iterable[int]
) -> int:
    """Tell Discord of those commands that it does not have, or has otherwise; returns how many.

    Others are left alone: those of the application around us, in its tree or not. Raises ChatError.
    """
    written, payloads = 0, [command.to_dict(bot.tree) for command in ours]
    app, http = cast("int", bot.application_id), bot.http
    places: list[int | None] = list(guilds) or [None]
    for guild in places:
        with refusals():
            listing = http.get_global_commands(app) if guild is None else http.get_guild_commands(app, guild)
            known = cast("list[dict[str, Any]]", await listing)
            there = {(each["type"], each["name"]): each for each in known}
            for payload in payloads:
                if is_same(payload, there.get((payload["type"], payload["name"]))):
                    continue
                await (
                    http.upsert_global_command(app, cast("Any", payload))
                    if guild is None
                    else http.upsert_guild_command(app, guild, payload)
                )
                written += 1
    return written


def is_same(ours: object, theirs: object) -> bool:
    """True where all that we say of a command is what Discord has; it adds members of its own."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        mine, other = cast("dict[str, object]", ours), cast("dict[str, object]", theirs)
        # An older word for what `contexts` says.
        return all(is_same(value, other.get(name)) for name, value in mine.items() if name != "dm_permission")
    if isinstance(ours, list) and isinstance(theirs, list):
        mine_listed, other_listed = cast("list[object]", ours), cast("list[object]", theirs)
        return len(mine_listed) == len(other_listed) and all(map(is_same, mine_listed, other_listed))
    # What we leave open is as Discord has it by default.
    return ours is None or ours == theirs or (not ours and not theirs)
