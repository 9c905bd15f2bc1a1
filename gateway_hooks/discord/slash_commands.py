"""Create the cog's slash commands and register new and changed ones with Discord."""

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
"""Takes an interaction, the command's name without prefix, and the command's argument."""
ServerNamesCallback = Callable[[Interaction], Awaitable[list[str]]]
"""Returns the names of the servers that the user may choose from."""


@dataclass(frozen=True, slots=True)
class CommandCallbacks:
    """The callbacks of the commands. discord.py reads the options from the signatures."""

    handle_command: CommandCallback
    list_server_names: ServerNamesCallback

    async def connect(self, interaction: Interaction, server: str = "") -> None:
        """Handle /connect."""
        await self.handle_command(interaction, "connect", server)

    async def connections(self, interaction: Interaction) -> None:
        """Handle /connections."""
        await self.handle_command(interaction, "connections", "")

    async def disconnect(self, interaction: Interaction, server: str = "") -> None:
        """Handle /disconnect."""
        await self.handle_command(interaction, "disconnect", server)

    async def complete_server_name(
        self, interaction: Interaction, current: str
    ) -> list[app_commands.Choice[str]]:
        """Return the servers whose names contain the text typed so far."""
        matching_names = [
            name
            for name in await self.list_server_names(interaction)
            if current.casefold() in name.casefold()
        ]
        return [
            app_commands.Choice(name=name, value=name)
            for name in matching_names
            if 0 < len(name) <= MAX_CHOICE_CHARS
        ][:MAX_CHOICES]


def make_commands(
    callbacks: CommandCallbacks, messages: Messages, prefix: str = "", *, in_guilds: bool = False
) -> list[app_commands.Command[Any, ..., Any]]:
    """Return the three commands, each with `prefix` before its name."""
    # Guild commands have no contexts to set.
    contexts = None if in_guilds else app_commands.AppCommandContext(guild=True, dm_channel=True)
    slash_commands: list[app_commands.Command[Any, ..., Any]] = []
    for name, description, callback in (
        ("connect", messages.connect_description, callbacks.connect),
        ("connections", messages.connections_description, callbacks.connections),
        ("disconnect", messages.disconnect_description, callbacks.disconnect),
    ):
        command = app_commands.Command[Any, ..., Any](
            name=f"{prefix}{name}",
            description=truncate(description, MAX_DESCRIPTION_CHARS),
            callback=callback,
            allowed_contexts=contexts,
        )
        if name != "connections":
            _add_autocomplete(
                command, callbacks, truncate(messages.server_option_description, MAX_DESCRIPTION_CHARS)
            )
        slash_commands.append(command)
    return slash_commands


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
    """Register new and changed commands with Discord, and return their number. Raises ChatError.

    Leaves the application's other commands unchanged.
    """
    changed_count, payloads = 0, [command.to_dict(bot.tree) for command in own_commands]
    app, http = cast("int", bot.application_id), bot.http
    targets: list[int | None] = list(guild_ids) or [None]
    for guild_id in targets:
        with translate_errors():
            listing = (
                http.get_global_commands(app) if guild_id is None else http.get_guild_commands(app, guild_id)
            )
            registered_commands = cast("list[dict[str, Any]]", await listing)
            registered_by_name = {
                (registered["type"], registered["name"]): registered for registered in registered_commands
            }
            for payload in payloads:
                if matches_registered(payload, registered_by_name.get((payload["type"], payload["name"]))):
                    continue
                await (
                    http.upsert_global_command(app, cast("Any", payload))
                    if guild_id is None
                    else http.upsert_guild_command(app, guild_id, payload)
                )
                changed_count += 1
    return changed_count


def matches_registered(own: object, registered: object) -> bool:
    """Return True if a registered command equals our own, except for members that Discord adds."""
    if isinstance(own, dict) and isinstance(registered, dict):
        own_members, registered_members = (
            cast("dict[str, object]", own),
            cast("dict[str, object]", registered),
        )
        # `dm_permission` is deprecated in favour of `contexts`.
        return all(
            matches_registered(value, registered_members.get(name))
            for name, value in own_members.items()
            if name != "dm_permission"
        )
    if isinstance(own, list) and isinstance(registered, list):
        own_items, registered_items = cast("list[object]", own), cast("list[object]", registered)
        return len(own_items) == len(registered_items) and all(
            map(matches_registered, own_items, registered_items)
        )
    # An unset value means Discord's default.
    return own is None or own == registered or (not own and not registered)
