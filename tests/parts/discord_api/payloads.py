"""JSON payloads of messages, interactions and guilds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import entities
from .entities import Channel, Json
from .messages import Interaction, Message

if TYPE_CHECKING:
    from .state import State


def message_payload(state: State, message: Message) -> Json:
    """Return a message as REST returns it."""
    payload: Json = {
        "id": message.id,
        "channel_id": message.channel_id,
        "type": message.kind,
        "author": message.author.payload(),
        "content": message.content,
        "timestamp": entities.format_time(message.created_at),
        "edited_timestamp": None if message.edited_at is None else entities.format_time(message.edited_at),
        "tts": False,
        "mention_everyone": False,
        "mentions": [state.users[user].payload() for user in message.mentioned_user_ids],
        "mention_roles": [],
        # Discord does not list an attachment that an embed shows.
        "attachments": [
            attachment for attachment in message.attachments if attachment["url"] not in str(message.embeds)
        ],
        "embeds": message.embeds,
        "components": message.components,
        "pinned": False,
        "flags": message.flags,
    }
    if message.interaction is not None:
        payload["webhook_id"] = payload["application_id"] = state.bot.id
        payload["interaction_metadata"] = _interaction_metadata(message.interaction)
    if message.reply_to is not None:
        reference = {"type": 0, "channel_id": message.channel_id, "message_id": message.reply_to}
        payload["message_reference"] = reference
        reply_target = state.messages.get(message.reply_to)
        if reply_target is not None and not reply_target.deleted and reply_target.reply_to is None:
            payload["referenced_message"] = message_payload(state, reply_target)
        else:
            payload["referenced_message"] = None
    return payload | message.extra_fields


def message_event(state: State, message: Message, *, content: bool) -> Json:
    """Return a message as the gateway sends it. Without the content intent the content is empty."""
    payload = message_payload(state, message)
    guild_id = state.channels[message.channel_id].guild_id
    if guild_id is not None:
        guild = state.guilds[guild_id]
        payload["guild_id"] = guild_id
        if message.author.id in guild.members:
            payload["member"] = guild.member_payload(message.author, with_user=False)
    concerns_bot = message.author == state.bot or state.bot.id in message.mentioned_user_ids
    if guild_id is not None and not content and not concerns_bot:
        payload |= {"content": "", "embeds": [], "attachments": [], "components": []}
        # Discord also withholds polls and forwarded messages.
        for name in message.extra_fields:
            payload.pop(name)
    return payload


def interaction_payload(state: State, interaction: Interaction) -> Json:
    """Return an interaction as the gateway sends it."""
    channel = state.channels[interaction.channel_id]
    owner = interaction.guild_id or "0"
    payload: Json = {
        "id": interaction.id,
        "application_id": state.bot.id,
        "type": interaction.kind,
        "token": interaction.token,
        "version": 1,
        "data": interaction.data,
        "channel_id": channel.id,
        "channel": _partial_channel(state, channel, interaction),
        "app_permissions": str(state.bot_permissions(channel)),
        "locale": "en-US",
        "entitlements": [],
        "authorizing_integration_owners": {"0": owner},
        "context": 1 if interaction.guild_id is None else 0,
        "attachment_size_limit": 10 * 1024 * 1024,
    }
    if interaction.message is not None:
        payload["message"] = message_payload(state, interaction.message)
    if interaction.guild_id is None:
        payload["user"] = interaction.user.payload()
        return payload
    guild = state.guilds[interaction.guild_id]
    payload["guild_id"] = guild.id
    payload["guild"] = {"id": guild.id, "locale": "en-US", "features": []}
    payload["guild_locale"] = "en-US"
    permissions = str(guild.permissions(interaction.user.id))
    payload["member"] = {**guild.member_payload(interaction.user), "permissions": permissions}
    return payload


def guild_payload(state: State, guild_id: str) -> Json:
    """Return a guild as in GUILD_CREATE. The bot is the only member, as without the presences intent."""
    guild = state.guilds[guild_id]
    everyone = entities.Role(guild.id, "@everyone", entities.DEFAULT_PERMISSIONS)
    channels = [channel for channel in guild.channels.values() if channel.parent_id is None]
    return {
        "id": guild.id,
        "name": guild.name,
        "owner_id": guild.owner_id,
        "icon": None,
        "unavailable": False,
        "large": False,
        "member_count": len(guild.members),
        "members": [guild.member_payload(state.bot)],
        "roles": [everyone.payload(), *(role.payload() for role in guild.roles.values())],
        "channels": [guild.channel_payload(channel, state.bot.id) for channel in channels],
        "threads": [thread.payload() for thread in guild.channels.values() if thread.parent_id is not None],
        "emojis": [],
        "stickers": [],
        "features": [],
        "presences": [],
        "voice_states": [],
        "stage_instances": [],
        "guild_scheduled_events": [],
        "soundboard_sounds": [],
        "joined_at": "2026-01-01T00:00:00+00:00",
        "verification_level": 0,
        "default_message_notifications": 0,
        "explicit_content_filter": 0,
        "mfa_level": 0,
        "nsfw_level": 0,
        "premium_tier": 0,
        "premium_progress_bar_enabled": False,
        "preferred_locale": "en-US",
        "afk_timeout": 300,
        "system_channel_flags": 0,
    }


def _partial_channel(state: State, channel: Channel, interaction: Interaction) -> Json:
    if channel.guild_id is None:
        return channel.payload()
    permissions = state.guilds[channel.guild_id].permissions(interaction.user.id)
    return {**channel.payload(), "permissions": str(permissions)}


def _interaction_metadata(interaction: Interaction) -> Json:
    metadata: Json = {
        "id": interaction.id,
        "type": interaction.kind,
        "user": interaction.user.payload(),
        "authorizing_integration_owners": {"0": interaction.guild_id or "0"},
    }
    if interaction.kind == 2:
        metadata["name"] = interaction.data["name"]
    elif interaction.message is not None and interaction.kind == 3:
        metadata["interacted_message_id"] = interaction.message.id
    elif interaction.opened_by is not None:
        metadata["triggering_interaction_metadata"] = _interaction_metadata(interaction.opened_by)
    return metadata
