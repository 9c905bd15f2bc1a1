"""Users, roles, guilds and channels. Ids are snowflakes, as text."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
Clock = Callable[[], float]

ADMINISTRATOR = 1 << 3
VIEW_CHANNEL, SEND_MESSAGES, MANAGE_MESSAGES, EMBED_LINKS, ATTACH_FILES, READ_MESSAGE_HISTORY = (
    1 << 10,
    1 << 11,
    1 << 13,
    1 << 14,
    1 << 15,
    1 << 16,
)
ADD_REACTIONS, USE_APPLICATION_COMMANDS, CREATE_PUBLIC_THREADS, SEND_MESSAGES_IN_THREADS = (
    1 << 6,
    1 << 31,
    1 << 35,
    1 << 38,
)
# The default permissions of @everyone in a new guild, as far as the local Discord uses them.
DEFAULT_PERMISSIONS = (
    VIEW_CHANNEL
    | SEND_MESSAGES
    | EMBED_LINKS
    | ATTACH_FILES
    | READ_MESSAGE_HISTORY
    | ADD_REACTIONS
    | USE_APPLICATION_COMMANDS
    | CREATE_PUBLIC_THREADS
    | SEND_MESSAGES_IN_THREADS
    | 1 << 0
    | 1 << 26
)
DM_CHANNEL, TEXT_CHANNEL = 1, 0
DISCORD_EPOCH = 1_420_070_400


class Snowflakes:
    """Generates ids from the time of the clock, each greater than the last."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = 0
        self._lock = threading.Lock()

    def __call__(self) -> str:
        with self._lock:
            now = max(0, int((self._clock() - DISCORD_EPOCH) * 1000)) << 22
            self._last = max(self._last + 1, now)
            return str(self._last)


@dataclass(frozen=True, slots=True)
class User:
    """A user or the bot."""

    id: str
    name: str
    bot: bool = False

    def payload(self) -> Json:
        return {
            "id": self.id,
            "username": self.name,
            "global_name": None if self.bot else self.name.title(),
            "discriminator": "0",
            "avatar": None,
            "bot": self.bot,
            "public_flags": 0,
        }


@dataclass(frozen=True, slots=True)
class Role:
    id: str
    name: str
    permissions: int

    def payload(self) -> Json:
        return {
            "id": self.id,
            "name": self.name,
            "permissions": str(self.permissions),
            "color": 0,
            "colors": {"primary_color": 0, "secondary_color": None, "tertiary_color": None},
            "hoist": False,
            "position": 1,
            "managed": False,
            "mentionable": False,
            "flags": 0,
        }


@dataclass(slots=True, eq=False)
class Channel:
    """A guild's text channel, a thread (has a parent), or a direct channel (has a recipient)."""

    id: str
    name: str
    guild_id: str | None = None
    recipient: User | None = None
    parent_id: str | None = None
    created_at: float = 0
    # If None, the bot's permissions in the guild apply.
    bot_permissions: int | None = None

    def payload(self) -> Json:
        if self.recipient is not None:
            recipients = [self.recipient.payload()]
            return {
                "id": self.id,
                "type": DM_CHANNEL,
                "flags": 0,
                "last_message_id": None,
                "recipients": recipients,
            }
        base = {
            "id": self.id,
            "guild_id": self.guild_id,
            "name": self.name,
            "flags": 0,
            "last_message_id": None,
            "rate_limit_per_user": 0,
            "parent_id": self.parent_id,
        }
        if self.parent_id is None:
            return {**base, "type": TEXT_CHANNEL, "position": 0, "topic": None, "nsfw": False}
        metadata = {
            "archived": False,
            "auto_archive_duration": 1440,
            "archive_timestamp": format_time(self.created_at),
            "locked": False,
            "create_timestamp": format_time(self.created_at),
        }
        counts = {"message_count": 0, "member_count": 1, "total_message_sent": 0}
        return {**base, **counts, "type": 11, "owner_id": "0", "thread_metadata": metadata}


@dataclass(slots=True, eq=False)
class Guild:
    """A guild. The bot's permissions here apply in each channel without permissions of its own."""

    id: str
    name: str
    owner_id: str
    bot_permissions: int
    members: dict[str, User] = field(default_factory=dict[str, User])
    roles: dict[str, Role] = field(default_factory=dict[str, Role])
    channels: dict[str, Channel] = field(default_factory=dict[str, Channel])
    role_ids_by_member: dict[str, set[str]] = field(default_factory=dict[str, set[str]])

    def channel(self, name: str) -> Channel:
        return next(channel for channel in self.channels.values() if channel.name == name)

    def role(self, name: str) -> Role:
        return next(role for role in self.roles.values() if role.name == name)

    def permissions(self, user_id: str) -> int:
        """Return a member's permissions. The owner and administrators have all."""
        if user_id == self.owner_id:
            return (1 << 53) - 1
        permissions = DEFAULT_PERMISSIONS
        for role_id in self.role_ids_by_member.get(user_id, ()):
            permissions |= self.roles[role_id].permissions
        return (1 << 53) - 1 if permissions & ADMINISTRATOR else permissions

    def member_payload(self, user: User, *, with_user: bool = True) -> Json:
        return {
            **({"user": user.payload()} if with_user else {}),
            "roles": sorted(self.role_ids_by_member.get(user.id, ())),
            "nick": None,
            "avatar": None,
            "joined_at": "2026-01-01T00:00:00+00:00",
            "premium_since": None,
            "deaf": False,
            "mute": False,
            "flags": 0,
            "pending": False,
            "communication_disabled_until": None,
        }

    def channel_payload(self, channel: Channel, bot_id: str) -> Json:
        """Return a channel with the permission overwrite that gives the bot its permissions."""
        if channel.parent_id is not None:
            return channel.payload()
        allowed = self.bot_permissions if channel.bot_permissions is None else channel.bot_permissions
        denied = DEFAULT_PERMISSIONS & ~allowed
        overwrite = {"id": bot_id, "type": 1, "allow": str(allowed), "deny": str(denied)}
        return {**channel.payload(), "permission_overwrites": [overwrite]}


def format_time(seconds: float) -> str:
    """Format a time as Discord does."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="microseconds")
