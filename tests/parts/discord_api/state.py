"""The state of the local Discord, and its changes. Only the server's thread uses it."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from . import world
from .commands import Commands
from .components import numbered
from .form import refused
from .gateway import Gateway
from .limits import COMPONENTS_V2, EPHEMERAL, LOADING, SUPPRESS_EMBEDS
from .messages import ACKNOWLEDGE_SECONDS, TOKEN_SECONDS, Interaction, Message, Modal, pinged
from .world import Channel, Clock, Guild, Json, Snowflakes, User


@dataclass(frozen=True, slots=True)
class Call:
    """One request and its response. `body` is the request's JSON, `files` are names and contents."""

    method: str
    path: str
    body: Any
    files: tuple[tuple[str, bytes], ...]
    status: int
    answer: Any
    time: float

    def __repr__(self) -> str:
        # Do not show the whole path: it may contain an interaction token.
        return f"<Call {self.method} {self.path.split('?')[0][:40]} -> {self.status}>"


class State:
    """All users, guilds, channels and messages. Methods raise ApiError as Discord does."""

    def __init__(self, clock: Clock, token: str, privileged_intents: int) -> None:
        self.clock = clock
        self.token = token
        self.new_id = Snowflakes(clock)
        self.bot = User(self.new_id(), "bot", bot=True)
        self.owner = User(self.new_id(), "owner")
        self.gateway = Gateway(self, privileged_intents)
        self.users: dict[str, User] = {self.bot.id: self.bot, self.owner.id: self.owner}
        self.dms_closed: set[str] = set()
        self.guilds: dict[str, Guild] = {}
        self.channels: dict[str, Channel] = {}
        self.messages: dict[str, Message] = {}
        self.interactions: dict[str, Interaction] = {}
        self.modals: list[Modal] = []
        self.commands: dict[str | None, Commands] = {}
        self.commands[None] = Commands(self.bot.id)
        self.calls: list[Call] = []
        self.files: dict[str, bytes] = {}
        self.base_url = ""

    def scope(self, guild_id: str | None) -> Commands:
        if guild_id is not None and guild_id not in self.guilds:
            raise refused(50001)
        return self.commands.setdefault(guild_id, Commands(self.bot.id, guild_id))

    def guild(self, guild_id: str) -> Guild:
        if guild_id not in self.guilds:
            raise refused(10004)
        return self.guilds[guild_id]

    def channel(self, channel_id: str) -> Channel:
        """Return a channel that the bot may view."""
        if channel_id not in self.channels:
            raise refused(10003)
        if not self.bot_permissions(self.channels[channel_id]) & world.VIEW:
            raise refused(50001)
        return self.channels[channel_id]

    def bot_permissions(self, channel: Channel) -> int:
        if channel.guild_id is None:
            return world.EVERYBODY
        own = self.channels[channel.parent_id] if channel.parent_id else channel
        if own.bot_permissions is not None:
            return own.bot_permissions
        return self.guilds[channel.guild_id].bot_permissions

    def dm(self, user: User) -> Channel:
        """Return the direct channel with a user; create it if needed."""
        for channel in self.channels.values():
            if channel.recipient == user:
                return channel
        made = Channel(self.new_id(), user.name, recipient=user)
        self.channels[made.id] = made
        return made

    def may_see(self, user_id: str, channel: Channel) -> bool:
        if channel.recipient is not None:
            return channel.recipient.id == user_id
        return channel.guild_id is not None and user_id in self.guilds[channel.guild_id].members

    def message(self, channel_id: str, message_id: str) -> Message:
        """Return a message that the bot can address: not deleted, not ephemeral."""
        found = self.messages.get(message_id)
        if found is None or found.deleted or found.ephemeral or found.channel_id != channel_id:
            raise refused(10008)
        return found

    def shown(self, channel_id: str, seen_by: str | None) -> list[Message]:
        """Return the messages in a channel, oldest first; if `seen_by` is None, all ephemeral ones too."""
        channel = self.channels[channel_id]
        if seen_by is not None and not self.may_see(seen_by, channel):
            return []
        return [
            message
            for message in self.messages.values()
            if message.channel_id == channel_id
            and not message.deleted
            and not message.dismissed
            and (seen_by is None or message.only_for in {None, seen_by})
        ]

    def write(
        self,
        channel: Channel,
        author: User,
        body: Json,
        files: Iterable[tuple[str, bytes]] = (),
        *,
        interaction: Interaction | None = None,
        flags: int = 0,
        kind: int = 0,
        more: Json | None = None,
    ) -> Message:
        """Create a message in a channel and send its gateway event."""
        reply = body.get("message_reference") or {}
        message = Message(
            self.new_id(),
            channel.id,
            author,
            body.get("content") or "",
            self.clock(),
            embeds=[{"type": "rich", **embed} for embed in body.get("embeds") or []],
            components=numbered(body.get("components") or []),
            flags=flags,
            only_for=interaction.user.id if interaction is not None and flags & EPHEMERAL else None,
            interaction=interaction,
            allowed_mentions=body.get("allowed_mentions"),
            reply_to=str(reply["message_id"]) if reply.get("message_id") else None,
            kind=19 if reply.get("message_id") else kind,
            more=more or {},
        )
        message.mentioned = pinged(message.content, message.allowed_mentions, self.users)
        message.attachments = [self._keep(channel.id, name, content) for name, content in files]
        _show_attachments(message)
        self.messages[message.id] = message
        if not message.ephemeral:
            self.gateway.tell_message("MESSAGE_CREATE", message)
        return message

    def change(self, message: Message, body: Json, files: Iterable[tuple[str, bytes]] = ()) -> Message:
        """Edit a message. Fields that the body omits stay, attachments stay if it lists them.

        Raises ApiError (50006) if the message would be empty.
        """
        files = tuple(files)
        parts = ("content", "embeds", "components", "attachments")
        if not files and not any(body[one] if one in body else getattr(message, one) for one in parts):
            raise refused(50006)
        if "content" in body:
            message.content = body["content"] or ""
            allowed = body.get("allowed_mentions", message.allowed_mentions)
            message.mentioned = pinged(message.content, allowed, self.users)
        if "embeds" in body:
            message.embeds = [{"type": "rich", **embed} for embed in body["embeds"] or []]
        if "components" in body:
            message.components = numbered(body["components"] or [])
        if "attachments" in body:
            kept = {str(one.get("id")) for one in body["attachments"] or []}
            message.attachments = [one for one in message.attachments if one["id"] in kept]
        added = [self._keep(message.channel_id, name, content) for name, content in files]
        message.attachments = [*message.attachments, *added]
        _show_attachments(message)
        changeable = SUPPRESS_EMBEDS | COMPONENTS_V2
        message.flags = (message.flags & ~LOADING & ~SUPPRESS_EMBEDS) | (
            int(body.get("flags") or message.flags & SUPPRESS_EMBEDS) & changeable
        )
        message.edited_at = self.clock()
        if not message.ephemeral:
            self.gateway.tell_message("MESSAGE_UPDATE", message)
        return message

    def delete(self, message: Message) -> None:
        message.deleted = True
        if not message.ephemeral:
            self.gateway.tell_deleted(message)

    def _keep(self, channel_id: str, name: str, content: bytes) -> Json:
        attachment_id = self.new_id()
        path = f"/attachments/{channel_id}/{attachment_id}/{name}"
        self.files[path] = content
        url = f"{self.base_url}{path}"
        kind = "image/png" if name.endswith(".png") else "application/octet-stream"
        size = {"size": len(content), "content_type": kind}
        return {"id": attachment_id, "filename": name, "url": url, "proxy_url": url, **size}

    def interact(
        self,
        kind: int,
        user: User,
        channel: Channel,
        data: Json,
        *,
        message: Message | None = None,
        opened_by: Interaction | None = None,
    ) -> Interaction:
        """Create an interaction of a user and send its gateway event."""
        interaction = Interaction(
            self.new_id(),
            f"aW50ZXJhY3Rpb246{secrets.token_urlsafe(60)}",
            kind,
            user,
            channel.id,
            channel.guild_id,
            self.clock(),
            data,
            message=message,
            opened_by=opened_by,
        )
        self.interactions[interaction.id] = interaction
        self.gateway.tell_interaction(interaction)
        return interaction

    def failed(self, interaction: Interaction) -> bool:
        """Return whether the user sees that the application did not respond in time."""
        late = self.clock() - interaction.created_at
        if interaction.acknowledged_at is None:
            return late > ACKNOWLEDGE_SECONDS
        original = interaction.original
        return late > TOKEN_SECONDS and original is not None and original.loading

    def copy(self, message: Message) -> Message:
        return replace(message)


def _show_attachments(message: Message) -> None:
    """Replace attachment:// URLs in embeds with the URLs of the attachments."""
    urls = {f"attachment://{one['filename']}": one["url"] for one in message.attachments}
    for embed in message.embeds:
        for name in ("image", "thumbnail"):
            if embed.get(name):
                embed[name] = {**embed[name], "url": urls.get(embed[name]["url"], embed[name]["url"])}


@dataclass(slots=True)
class Instead:
    """A response to the next requests of a method whose path contains `path_part`."""

    method: str
    part: str
    status: int
    body: Json
    headers: dict[str, str]
    times: int
