"""Discord chats: a channel, a direct chat, and the response to an interaction (only one user sees it).

A user has one private conversation with the bot: ephemeral messages in a channel, or direct messages. Its
`Origin.chat_id` is the user's id in both cases. So a login that started in ephemeral messages can continue in
direct messages, and the reverse.
The bot can edit an ephemeral message for 15 minutes. It needs the token of the interaction that created the
message, or of a later interaction on that message.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import discord

from gateway_hooks.dialog.cards import Card
from gateway_hooks.dialog.platform import (
    Capabilities,
    Chat,
    ChatBase,
    ChatError,
    MessageGone,
    PlatformUnreachable,
    Sender,
)
from gateway_hooks.dialog.policy import Policy
from gateway_hooks.discord.errors import translate_errors
from gateway_hooks.discord.render import NO_MENTIONS, RenderedMessage, render_card
from gateway_hooks.discord.senders import SenderLookup
from hermes_mcp_auth_remote.platforms import DISCORD
from hermes_mcp_auth_remote.values import Clock, Origin

PLATFORM = DISCORD.name
INTERACTION_TOKEN_SECONDS = 15 * 60


@dataclass(slots=True)
class EphemeralWebhooks:
    """The newest webhook of each ephemeral message that the bot can still edit."""

    clock: Clock
    _by_message_id: dict[str, tuple[float, discord.Webhook]] = field(
        default_factory=dict[str, tuple[float, discord.Webhook]]
    )

    def remember(self, message_id: str, webhook: discord.Webhook) -> None:
        """Store the webhook that can edit a message; drop expired ones."""
        oldest_valid_at = self.clock() - INTERACTION_TOKEN_SECONDS
        self._by_message_id = {
            known_id: entry for known_id, entry in self._by_message_id.items() if entry[0] > oldest_valid_at
        }
        self._by_message_id[message_id] = (self.clock(), webhook)

    def find(self, message_id: str) -> discord.Webhook | None:
        """Return the webhook that can edit a message; None if it is unknown or not ephemeral."""
        entry = self._by_message_id.get(message_id)
        return entry[1] if entry is not None else None

    def forget(self, message_id: str) -> None:
        """Remove a webhook whose token Discord no longer accepts."""
        self._by_message_id.pop(message_id, None)


class DiscordPlatform:
    """The Discord platform, connected through one bot. `command_prefix` precedes a command's name."""

    def __init__(
        self, client: discord.Client, policy: Policy, command_prefix: str = "/", clock: Clock = time.time
    ) -> None:
        self.client = client
        self.senders = SenderLookup(client, policy, clock)
        self.ephemeral_webhooks = EphemeralWebhooks(clock)
        # A bot cannot delete a user's message in a direct chat, and no Discord button copies a text.
        self._capabilities = Capabilities(
            has_forms=True,
            can_delete=False,
            can_copy=False,
            has_time_tags=True,
            command_prefix=command_prefix,
            # Discord sends no message that begins with "/".
            word_prefix="",
        )

    @property
    def name(self) -> str:
        """The value of `Origin.platform`: "discord"."""
        return PLATFORM

    @property
    def bot_id(self) -> str:
        """The bot's id; "" before it has logged in."""
        return str(self.client.user.id) if self.client.user is not None else ""

    @property
    def capabilities(self) -> Capabilities:
        """The features of Discord."""
        return self._capabilities

    def private_chat(self, user_id: str) -> Chat:
        """Return the direct chat with a user."""
        return DirectChat(self, user_id)

    async def fetch_sender(self, user_id: str) -> Sender:
        """Return a user with their roles in a guild that the bot is in; raises ChatError."""
        return await self.senders.find_sender(user_id)

    def deep_link(self, payload: str) -> str | None:  # noqa: ARG002  Platform protocol
        """Return None: Discord has no such URL, and the bot sends a button instead."""
        return None


class ChannelChat(ChatBase):
    """A channel or thread of a guild, which all its members can read."""

    def __init__(
        self, platform: DiscordPlatform, channel_id: int, user_id: str, *, is_private: bool = False
    ) -> None:
        origin = Origin(PLATFORM, chat_id=str(channel_id), user_id=user_id, bot_id=platform.bot_id)
        super().__init__(origin, is_private=is_private)
        self._platform = platform
        self._channel_id = channel_id

    async def send(self, card: Card) -> str:
        """Send a message and return its id; raises CannotWrite, ChatError."""
        return await self._send_rendered(render_card(card))

    async def send_picture(self, png: bytes, card: Card) -> str:
        """Send a message with a picture and return its id; raises CannotWrite, ChatError."""
        return await self._send_rendered(render_card(card, png))

    async def edit(self, message_id: str, card: Card) -> None:
        """Edit a message of the bot; raises MessageGone, ChatError."""
        rendered = render_card(card)
        with translate_errors():
            channel = await self._channel()
            await channel.get_partial_message(int(message_id)).edit(
                embeds=rendered.embeds,
                view=rendered.view,
                attachments=rendered.files,
                allowed_mentions=NO_MENTIONS,
            )

    async def delete(self, message_id: str) -> bool:
        """Delete a message; return False if Discord refuses, as for a user's message in a direct chat.

        Raises PlatformUnreachable.
        """
        try:
            with translate_errors():
                channel = await self._channel()
                await channel.get_partial_message(int(message_id)).delete()
        except MessageGone:
            return True
        except PlatformUnreachable:
            raise
        except ChatError:
            return False
        return True

    async def show_toast(self, text: str) -> None:
        """Do nothing: there is no button press to answer."""

    async def _send_rendered(self, rendered: RenderedMessage) -> str:
        view, mentions = rendered.view or discord.utils.MISSING, NO_MENTIONS
        with translate_errors():
            channel = await self._channel()
            sent = await channel.send(
                embeds=rendered.embeds, view=view, files=rendered.files, allowed_mentions=mentions
            )
        return str(sent.id)

    async def _channel(self) -> discord.PartialMessageable | discord.DMChannel:
        return self._platform.client.get_partial_messageable(self._channel_id)


class DirectChat(ChannelChat):
    """The private conversation with a user, through direct messages."""

    def __init__(self, platform: DiscordPlatform, user_id: str) -> None:
        # An id from a command line may be no number. If so, use 0: no user has that id.
        number = int(user_id) if user_id.isdecimal() and user_id.isascii() else 0
        super().__init__(platform, number, user_id, is_private=True)

    async def edit(self, message_id: str, card: Card) -> None:
        """Edit a message, ephemeral or direct; raises MessageGone, ChatError."""
        webhook = self._platform.ephemeral_webhooks.find(message_id)
        if webhook is None:
            await super().edit(message_id, card)
            return
        rendered = render_card(card)
        try:
            with translate_errors():
                await webhook.edit_message(
                    int(message_id),
                    embeds=rendered.embeds,
                    view=rendered.view,
                    attachments=rendered.files,
                    allowed_mentions=NO_MENTIONS,
                )
        except MessageGone:
            self._platform.ephemeral_webhooks.forget(message_id)
            raise

    async def delete(self, message_id: str) -> bool:
        """Delete a message, ephemeral or direct; return False if Discord does not allow it.

        Raises PlatformUnreachable.
        """
        webhook = self._platform.ephemeral_webhooks.find(message_id)
        if webhook is None:
            return await super().delete(message_id)
        is_deleted = True
        try:
            with translate_errors():
                await webhook.delete_message(int(message_id))
        except PlatformUnreachable:
            raise
        except ChatError:
            is_deleted = False
        self._platform.ephemeral_webhooks.forget(message_id)
        return is_deleted

    async def _channel(self) -> discord.DMChannel:
        return await self._platform.client.create_dm(discord.Object(self._channel_id))


class InteractionChat(DirectChat):
    """The private conversation, through responses to an interaction, which only this user sees.

    In a direct chat the responses are plain messages, which do not expire.
    """

    def __init__(
        self,
        platform: DiscordPlatform,
        interaction: discord.Interaction[discord.Client],
        ignored_toast: str = "",
    ) -> None:
        """`show_toast` ignores the text `ignored_toast`: the bot soon edits the message anyway."""
        super().__init__(platform, str(interaction.user.id))
        self._interaction = interaction
        self._ignored_toast = ignored_toast
        self._is_direct = interaction.context.dm_channel
        # The response to a command starts as "is thinking"; the first message replaces that.
        self._is_thinking = interaction.type is discord.InteractionType.application_command
        self._toast_text = ""

    async def acknowledge(self) -> None:
        """Defer the response, as Discord demands within 3 seconds; raises ChatError."""
        is_ephemeral = self._is_thinking and not self._is_direct
        with translate_errors():
            await self._interaction.response.defer(ephemeral=is_ephemeral, thinking=self._is_thinking)
        pressed_message = self._interaction.message
        if pressed_message is not None and pressed_message.flags.ephemeral:
            self._platform.ephemeral_webhooks.remember(str(pressed_message.id), self._interaction.followup)

    async def show_toast(self, text: str) -> None:
        """Store a text that `close` shows to this user."""
        if text != self._ignored_toast:
            self._toast_text = text

    async def close(self) -> None:
        """Send the stored toast; if there is none, remove an unused "is thinking". Raises ChatError."""
        with translate_errors():
            if self._toast_text:
                await self._interaction.followup.send(
                    embed=discord.Embed(description=self._toast_text),
                    ephemeral=True,
                    allowed_mentions=NO_MENTIONS,
                )
            elif self._is_thinking:
                await self._interaction.delete_original_response()

    async def _send_rendered(self, rendered: RenderedMessage) -> str:
        view, mentions = rendered.view or discord.utils.MISSING, NO_MENTIONS
        with translate_errors():
            sent = await self._interaction.followup.send(
                embeds=rendered.embeds,
                view=view,
                files=rendered.files,
                allowed_mentions=mentions,
                ephemeral=not self._is_direct,
                wait=True,
            )
        self._is_thinking = False
        if not self._is_direct:
            self._platform.ephemeral_webhooks.remember(str(sent.id), self._interaction.followup)
        return str(sent.id)
