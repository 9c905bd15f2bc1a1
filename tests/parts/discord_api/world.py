"""What exists here: users, guilds, channels, messages, interactions. Ids are snowflakes, as text."""

from __future__ import annotations

import datetime as dt
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .components import walk
from .limits import EPHEMERAL, LOADING

Json = dict[str, Any]
Clock = Callable[[], float]

ADMINISTRATOR = 1 << 3
VIEW, SEND, MANAGE_MESSAGES, EMBED_LINKS, ATTACH, HISTORY = (
    1 << 10,
    1 << 11,
    1 << 13,
    1 << 14,
    1 << 15,
    1 << 16,
)
REACT, COMMANDS, THREADS, SEND_IN_THREADS = 1 << 6, 1 << 31, 1 << 35, 1 << 38
# What a server gives everybody when it is made, as far as it matters here.
EVERYBODY = (
    VIEW
    | SEND
    | EMBED_LINKS
    | ATTACH
    | HISTORY
    | REACT
    | COMMANDS
    | THREADS
    | SEND_IN_THREADS
    | 1 << 0
    | 1 << 26
)
DM, TEXT = 1, 0
EPOCH = 1_420_070_400
ACKNOWLEDGE_SECONDS = 3
TOKEN_SECONDS = 15 * 60


class Snowflakes:
    """New ids: the time of the clock, and always greater than the last."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = 0
        self._lock = threading.Lock()

    def __call__(self) -> str:
        with self._lock:
            now = max(0, int((self._clock() - EPOCH) * 1000)) << 22
            self._last = max(self._last + 1, now)
            return str(self._last)


@dataclass(frozen=True, slots=True)
class User:
    """Somebody, or the bot."""

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
    """A guild's text channel, a thread (type 11, with a parent), or a direct one, which has a recipient."""

    id: str
    name: str
    guild_id: str | None = None
    recipient: User | None = None
    parent_id: str | None = None
    created_at: float = 0
    # Absent: what the guild says.
    bot_permissions: int | None = None

    def payload(self) -> Json:
        if self.recipient is not None:
            people = [self.recipient.payload()]
            return {"id": self.id, "type": DM, "flags": 0, "last_message_id": None, "recipients": people}
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
            return {**base, "type": TEXT, "position": 0, "topic": None, "nsfw": False}
        metadata = {
            "archived": False,
            "auto_archive_duration": 1440,
            "archive_timestamp": iso(self.created_at),
            "locked": False,
            "create_timestamp": iso(self.created_at),
        }
        counts = {"message_count": 0, "member_count": 1, "total_message_sent": 0}
        return {**base, **counts, "type": 11, "owner_id": "0", "thread_metadata": metadata}


@dataclass(slots=True, eq=False)
class Guild:
    """A server of some members and roles; the bot's permissions hold in each of its channels."""

    id: str
    name: str
    owner_id: str
    bot_permissions: int
    members: dict[str, User] = field(default_factory=dict[str, User])
    roles: dict[str, Role] = field(default_factory=dict[str, Role])
    channels: dict[str, Channel] = field(default_factory=dict[str, Channel])
    held: dict[str, set[str]] = field(default_factory=dict[str, set[str]])

    def channel(self, name: str) -> Channel:
        return next(channel for channel in self.channels.values() if channel.name == name)

    def role(self, name: str) -> Role:
        return next(role for role in self.roles.values() if role.name == name)

    def permissions(self, user_id: str) -> int:
        """A member's permissions; the owner's and an administrator's are all."""
        if user_id == self.owner_id:
            return (1 << 53) - 1
        mine = EVERYBODY
        for role_id in self.held.get(user_id, ()):
            mine |= self.roles[role_id].permissions
        return (1 << 53) - 1 if mine & ADMINISTRATOR else mine

    def member(self, user: User, *, with_user: bool = True) -> Json:
        return {
            **({"user": user.payload()} if with_user else {}),
            "roles": sorted(self.held.get(user.id, ())),
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
        """A channel, with the overwrite by which the bot has the permissions that it was given."""
        if channel.parent_id is not None:
            return channel.payload()
        allowed = self.bot_permissions if channel.bot_permissions is None else channel.bot_permissions
        denied = EVERYBODY & ~allowed
        overwrite = {"id": bot_id, "type": 1, "allow": str(allowed), "deny": str(denied)}
        return {**channel.payload(), "permission_overwrites": [overwrite]}


@dataclass(slots=True, eq=False)
class Message:
    """A message as it stands; `only_for` is the one who sees an ephemeral one. Copies are handed out."""

    id: str
    channel_id: str
    author: User
    content: str
    created_at: float
    embeds: list[Json] = field(default_factory=list[Json])
    components: list[Json] = field(default_factory=list[Json])
    attachments: list[Json] = field(default_factory=list[Json])
    flags: int = 0
    only_for: str | None = None
    interaction: Interaction | None = None
    allowed_mentions: Json | None = None
    mentioned: list[str] = field(default_factory=list[str])
    reply_to: str | None = None
    edited_at: float | None = None
    deleted: bool = False
    dismissed: bool = False
    kind: int = 0
    reactions: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def __repr__(self) -> str:
        # What it says may be a secret of a test.
        return f"<Message {self.id} of {self.author.name}, {len(self.content)} characters, {self.labels}>"

    @property
    def ephemeral(self) -> bool:
        return bool(self.flags & EPHEMERAL)

    @property
    def loading(self) -> bool:
        """True while a deferred answer shows "is thinking"."""
        return bool(self.flags & LOADING)

    @property
    def buttons(self) -> list[Json]:
        """Every button, link buttons as well."""
        return [part for part in walk(self.components) if part["type"] == 2]

    @property
    def labels(self) -> list[str]:
        return [button.get("label", "") for button in self.buttons]

    @property
    def text(self) -> str:
        """All the text that a reader sees: content, embeds, text displays, labels; for searching."""
        parts: list[str | None] = [self.content]
        for embed in self.embeds:
            parts += [embed.get("title"), embed.get("description"), embed.get("url")]
            parts += [text for one in embed.get("fields") or [] for text in (one["name"], one["value"])]
            parts += [(embed.get("footer") or {}).get("text"), (embed.get("author") or {}).get("name")]
        for part in walk(self.components):
            parts += [part.get("content"), part.get("label"), part.get("url")]
        return "\n".join(text for text in parts if text)


@dataclass(slots=True, eq=False)
class Interaction:
    """One thing that a person did; `acknowledged_at` is when the bot answered it first (None: not yet)."""

    id: str
    token: str
    kind: int
    user: User
    channel_id: str
    guild_id: str | None
    created_at: float
    data: Json
    # Of a component or of a modal that a component opened.
    message: Message | None = None
    # Of a modal's submit: what opened the modal.
    opened_by: Interaction | None = None
    acknowledged_at: float | None = None
    answer_type: int | None = None
    original: Message | None = None
    modal: Modal | None = None
    choices: list[Json] | None = None
    followups: list[str] = field(default_factory=list[str])

    def __repr__(self) -> str:
        # Its token lets anybody answer it.
        return f"<Interaction {self.id} of {self.user.name}, answered with {self.answer_type}>"


@dataclass(slots=True, eq=False)
class Modal:
    """A window with questions that one user has open; `submitted` once they sent it off."""

    title: str
    custom_id: str
    components: list[Json]
    user: User
    interaction: Interaction
    submitted: bool = False

    @property
    def inputs(self) -> list[Json]:
        """The fields, each with "shown_label" added."""
        found: list[Json] = []
        for component in self.components:
            if component["type"] == 18:
                found.append({**component["component"], "shown_label": component["label"]})
            elif component["type"] == 1:
                held = component["components"][0]
                found.append({**held, "shown_label": held["label"]})
        return found


def iso(seconds: float) -> str:
    """A time as Discord writes it."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="microseconds")


def pinged(content: str, allowed: Json | None, known: dict[str, User]) -> list[str]:
    """The ids of users that a message's text pings: those it names, where `allowed_mentions` lets it."""
    named = [one for one in dict.fromkeys(re.findall(r"<@!?(\d+)>", content)) if one in known]
    if allowed is None or "users" in (allowed.get("parse") or []):
        return named
    return [one for one in named if one in {str(user) for user in allowed.get("users") or []}]
