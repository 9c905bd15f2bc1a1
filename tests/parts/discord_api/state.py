"""The state of the local Discord, and its changes. Only the server's thread uses it."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from . import entities
from .commands import CommandScope
from .components import assign_ids
from .entities import Channel, Clock, Guild, Json, Snowflakes, User
from .form_errors import api_error
from .gateway import Gateway
from .limits import COMPONENTS_V2, EPHEMERAL, LOADING, SUPPRESS_EMBEDS
from .messages import ACKNOWLEDGE_SECONDS, TOKEN_SECONDS, Interaction, Message, Modal, pinged_user_ids


@dataclass(frozen=True, slots=True)
class Call:
    """One request and its response. `body` is the request's JSON, `files` are names and contents."""

    method: str
    path: str
    body: Any
    files: tuple[tuple[str, bytes], ...]
    status: int
    response: Any
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
        self.users_with_closed_dms: set[str] = set()
        self.guilds: dict[str, Guild] = {}
        self.channels: dict[str, Channel] = {}
        self.messages: dict[str, Message] = {}
        self.interactions: dict[str, Interaction] = {}
        self.modals: list[Modal] = []
        self.commands: dict[str | None, CommandScope] = {}
        self.commands[None] = CommandScope(self.bot.id)
        self.calls: list[Call] = []
        self.files: dict[str, bytes] = {}
        self.base_url = ""

    def command_scope(self, guild_id: str | None) -> CommandScope:
        if guild_id is not None and guild_id not in self.guilds:
            raise api_error(50001)
        return self.commands.setdefault(guild_id, CommandScope(self.bot.id, guild_id))

    def guild(self, guild_id: str) -> Guild:
        if guild_id not in self.guilds:
            raise api_error(10004)
        return self.guilds[guild_id]

    def channel(self, channel_id: str) -> Channel:
        """Return a channel that the bot may view."""
        if channel_id not in self.channels:
            raise api_error(10003)
        if not self.bot_permissions(self.channels[channel_id]) & entities.VIEW_CHANNEL:
            raise api_error(50001)
        return self.channels[channel_id]

    def bot_permissions(self, channel: Channel) -> int:
        if channel.guild_id is None:
            return entities.DEFAULT_PERMISSIONS
        permission_channel = self.channels[channel.parent_id] if channel.parent_id else channel
        if permission_channel.bot_permissions is not None:
            return permission_channel.bot_permissions
        return self.guilds[channel.guild_id].bot_permissions

    def dm(self, user: User) -> Channel:
        """Return the direct channel with a user; create it if needed."""
        for channel in self.channels.values():
            if channel.recipient == user:
                return channel
        new_channel = Channel(self.new_id(), user.name, recipient=user)
        self.channels[new_channel.id] = new_channel
        return new_channel

    def can_see(self, user_id: str, channel: Channel) -> bool:
        if channel.recipient is not None:
            return channel.recipient.id == user_id
        return channel.guild_id is not None and user_id in self.guilds[channel.guild_id].members

    def message(self, channel_id: str, message_id: str) -> Message:
        """Return a message that the bot can address: not deleted, not ephemeral."""
        message = self.messages.get(message_id)
        if message is None or message.deleted or message.ephemeral or message.channel_id != channel_id:
            raise api_error(10008)
        return message

    def visible_messages(self, channel_id: str, seen_by: str | None) -> list[Message]:
        """Return the messages in a channel, oldest first. Without `seen_by`, include all ephemeral ones."""
        channel = self.channels[channel_id]
        if seen_by is not None and not self.can_see(seen_by, channel):
            return []
        return [
            message
            for message in self.messages.values()
            if message.channel_id == channel_id
            and not message.deleted
            and not message.dismissed
            and (seen_by is None or message.visible_to in {None, seen_by})
        ]

    def create_message(
        self,
        channel: Channel,
        author: User,
        body: Json,
        files: Iterable[tuple[str, bytes]] = (),
        *,
        interaction: Interaction | None = None,
        flags: int = 0,
        kind: int = 0,
        extra_fields: Json | None = None,
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
            components=assign_ids(body.get("components") or []),
            flags=flags,
            visible_to=interaction.user.id if interaction is not None and flags & EPHEMERAL else None,
            interaction=interaction,
            allowed_mentions=body.get("allowed_mentions"),
            reply_to=str(reply["message_id"]) if reply.get("message_id") else None,
            kind=19 if reply.get("message_id") else kind,
            extra_fields=extra_fields or {},
        )
        message.mentioned_user_ids = pinged_user_ids(message.content, message.allowed_mentions, self.users)
        message.attachments = [self._store_attachment(channel.id, name, content) for name, content in files]
        _resolve_attachment_urls(message)
        self.messages[message.id] = message
        if not message.ephemeral:
            self.gateway.send_message_event("MESSAGE_CREATE", message)
        return message

    def edit_message(self, message: Message, body: Json, files: Iterable[tuple[str, bytes]] = ()) -> Message:
        """Edit a message. Fields that the body omits stay; attachments stay only if the body lists them.

        Raises ApiError (50006) if the message would be empty.
        """
        files = tuple(files)
        content_fields = ("content", "embeds", "components", "attachments")
        if not files and not any(
            body[one] if one in body else getattr(message, one) for one in content_fields
        ):
            raise api_error(50006)
        if "content" in body:
            message.content = body["content"] or ""
            allowed = body.get("allowed_mentions", message.allowed_mentions)
            message.mentioned_user_ids = pinged_user_ids(message.content, allowed, self.users)
        if "embeds" in body:
            message.embeds = [{"type": "rich", **embed} for embed in body["embeds"] or []]
        if "components" in body:
            message.components = assign_ids(body["components"] or [])
        if "attachments" in body:
            kept_ids = {str(one.get("id")) for one in body["attachments"] or []}
            message.attachments = [one for one in message.attachments if one["id"] in kept_ids]
        added = [self._store_attachment(message.channel_id, name, content) for name, content in files]
        message.attachments = [*message.attachments, *added]
        _resolve_attachment_urls(message)
        changeable_flags = SUPPRESS_EMBEDS | COMPONENTS_V2
        message.flags = (message.flags & ~LOADING & ~SUPPRESS_EMBEDS) | (
            int(body.get("flags") or message.flags & SUPPRESS_EMBEDS) & changeable_flags
        )
        message.edited_at = self.clock()
        if not message.ephemeral:
            self.gateway.send_message_event("MESSAGE_UPDATE", message)
        return message

    def delete_message(self, message: Message) -> None:
        message.deleted = True
        if not message.ephemeral:
            self.gateway.send_message_deleted(message)

    def _store_attachment(self, channel_id: str, name: str, content: bytes) -> Json:
        attachment_id = self.new_id()
        path = f"/attachments/{channel_id}/{attachment_id}/{name}"
        self.files[path] = content
        url = f"{self.base_url}{path}"
        kind = "image/png" if name.endswith(".png") else "application/octet-stream"
        size = {"size": len(content), "content_type": kind}
        return {"id": attachment_id, "filename": name, "url": url, "proxy_url": url, **size}

    def create_interaction(
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
        self.gateway.send_interaction(interaction)
        return interaction

    def has_failed(self, interaction: Interaction) -> bool:
        """Return whether the user sees that the application did not respond in time."""
        age_seconds = self.clock() - interaction.created_at
        if interaction.acknowledged_at is None:
            return age_seconds > ACKNOWLEDGE_SECONDS
        original = interaction.original
        return age_seconds > TOKEN_SECONDS and original is not None and original.loading

    def copy_message(self, message: Message) -> Message:
        return replace(message)


def _resolve_attachment_urls(message: Message) -> None:
    """Replace attachment:// URLs in embeds with the URLs of the attachments."""
    urls = {f"attachment://{attachment['filename']}": attachment["url"] for attachment in message.attachments}
    for embed in message.embeds:
        for name in ("image", "thumbnail"):
            if embed.get(name):
                embed[name] = {**embed[name], "url": urls.get(embed[name]["url"], embed[name]["url"])}


@dataclass(slots=True)
class ResponseOverride:
    """A response to the next requests of a method whose path contains `path_part`."""

    method: str
    path_part: str
    status: int
    body: Json
    headers: dict[str, str]
    remaining: int
