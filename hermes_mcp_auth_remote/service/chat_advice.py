"""Advice for a call that no user can answer here: the user can log in from a chat, if a bot is configured.

A cron job or another background process cannot ask its user. Its error then names the command that asks in
the chat, and what the user can send to the bot.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_mcp_auth_remote.commands import login_command
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.hermes_home import config_identity
from hermes_mcp_auth_remote.platforms import PLATFORMS
from hermes_mcp_auth_remote.values import Owner, Server

if TYPE_CHECKING:
    from hermes_mcp_auth_remote.config import Configuration
    from hermes_mcp_auth_remote.config.chats import ChatSettings
    from hermes_mcp_auth_remote.store.protocol import PeopleStore

_Settings = tuple["Configuration", "ChatSettings"]


class ChatAdvice:
    """The bots of one HERMES_HOME. Reads config.yaml again only if it has changed."""

    def __init__(self, home: Path, people: PeopleStore) -> None:
        self._home = home
        self._people = people
        self._last_settings: tuple[str, _Settings] | None = None

    def text(self, server: Server, owner: Owner) -> str:
        """Say how the owner can log in from a chat; "" if no bot is configured for the owner.

        Blocking. Returns "" if config.yaml or another file cannot be read.
        """
        with suppress(McpAuthError, OSError):
            configuration, chats = self._read_settings()
            for name, user_id in self._users(owner, chats):
                # A login of this user must store the owner's tokens, not those of another owner.
                if chats.owner(name, user_id) == owner:
                    command = login_command(server, via=f"{name}:{user_id}", hides_url=True)
                    platform = PLATFORMS[name]
                    connect = f"{platform.command_prefix}connect {server.name}"
                    is_listed = server.name in configuration.server_names()
                    chat_command = f"send `{connect}` to the bot, or " if is_listed else ""
                    return f"To log in from {platform.title} instead, {chat_command}run `{command}`."
        return ""

    def _read_settings(self) -> _Settings:
        """Return config.yaml and its chat settings. Raises ConfigError, OSError."""
        # Import late: a program without such errors needs neither YAML nor the chat settings.
        from hermes_mcp_auth_remote.config import read_configuration  # noqa: PLC0415
        from hermes_mcp_auth_remote.config.chats import ChatSettings, read_chat_settings  # noqa: PLC0415

        identity = config_identity(self._home)
        if self._last_settings is None or self._last_settings[0] != identity:
            configuration = read_configuration(self._home, os.environ)
            chats = read_chat_settings(configuration) or ChatSettings()
            self._last_settings = identity, (configuration, chats)
        return self._last_settings[1]

    def _users(self, owner: Owner, chats: ChatSettings) -> Iterator[tuple[str, str]]:
        """Yield users who may log in for an owner, one of each platform. Raises StoreError."""
        platform_name, _, owner_id = (owner or "").partition(":")
        people = self._people.list_all()
        for name, platform in PLATFORMS.items():
            settings = chats.platform_settings(name)
            admins = settings.allow if settings.admins is None else settings.admins
            admins |= {person.user_id for person in people if person.platform == name and person.is_admin}
            if owner is None and admins:
                # The shortest id first, so that the text is always the same.
                yield name, min(admins, key=lambda user_id: (len(user_id), user_id))
            elif name == platform_name and platform.accepts_id(owner_id):
                is_admitted = any((it.platform, it.user_id) == (name, owner_id) for it in people)
                if name in chats.platforms or is_admitted:
                    yield name, owner_id
