"""Places on Discord: a direct chat, a channel, and the answer to an interaction, which one person sees.

A person and the bot have one private conversation, wherever it takes place: as ephemeral messages in a
channel, or as direct messages. Its `Origin.chat` is the user's id, so that a login goes on in the one when
the other is out of reach. An ephemeral message can be changed for 15 minutes, by the token of the interaction
that made it or of a later one on it, and by nothing else.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import discord

from gateway_hooks.dialog.cards import Card
from gateway_hooks.dialog.platform import Capabilities, Chat, ChatError, MessageGone, Sender
from gateway_hooks.dialog.policy import Policy
from gateway_hooks.discord.errors import translate_errors
from gateway_hooks.discord.people import SenderLookup
from gateway_hooks.discord.render import NO_MENTIONS, RenderedMessage, render_card
from hermes_mcp_auth_remote.values import Clock, Origin

PLATFORM = "discord"
INTERACTION_TOKEN_SECONDS = 15 * 60


@dataclass(slots=True)
class EphemeralWebhooks:
    """The ephemeral messages that can still be changed: each message's newest token."""

    clock: Clock
    _by_message_id: dict[str, tuple[float, discord.Webhook]] = field(
        default_factory=dict[str, tuple[float, discord.Webhook]]
    )

    def remember(self, message_id: str, webhook: discord.Webhook) -> None:
        """Remember what a message can be changed by from now on."""
        oldest = self.clock() - INTERACTION_TOKEN_SECONDS
        self._by_message_id = {one: held for one, held in self._by_message_id.items() if held[0] > oldest}
        self._by_message_id[message_id] = (self.clock(), webhook)

    def find(self, message_id: str) -> discord.Webhook | None:
        """Return what changes a message, None where nothing does, or the bot itself."""
        held = self._by_message_id.get(message_id)
        return held[1] if held is not None else None

    def forget(self, message_id: str) -> None:
        """Discord takes that token no more."""
        self._by_message_id.pop(message_id, None)


class DiscordPlatform:
    """Discord, by one bot. `commands` is what stands before a command's name."""

    def __init__(
        self, client: discord.Client, policy: Policy, command_prefix: str = "/", clock: Clock = time.time
    ) -> None:
        self.client = client
        self.senders = SenderLookup(client, policy, clock)
        self.ephemeral_webhooks = EphemeralWebhooks(clock)
        # A bot cannot delete what a person wrote in a direct chat, and nothing here copies on a press.
        self._capabilities = Capabilities(
            has_forms=True, can_delete=False, can_copy=False, command_prefix=command_prefix
        )

    @property
    def name(self) -> str:
        """Return "discord"."""
        return PLATFORM

    @property
    def bot_id(self) -> str:
        """Return the bot's id; "" before it has logged in."""
        return str(self.client.user.id) if self.client.user is not None else ""

    @property
    def capabilities(self) -> Capabilities:
        """Return what people are offered here."""
        return self._capabilities

    def private_chat(self, user_id: str) -> Chat:
        """Return the direct chat with a user."""
        return DirectChat(self, user_id)

    async def fetch_sender(self, user_id: str) -> Sender:
        """Return a user with their roles in a guild that the bot is in; raises ChatError."""
        return await self.senders.find_sender(user_id)

    def deep_link(self, payload: str) -> str | None:  # noqa: ARG002  no address of Discord's brings it back
        """Return None: a button in the channel does it."""
        return None


class ChannelChat:
    """A channel of a guild, or a thread: everybody there reads it."""

    is_private = False

    def __init__(self, platform: DiscordPlatform, channel_id: int, user_id: str) -> None:
        self._platform = platform
        self._channel_id = channel_id
        self._user_id = user_id

    @property
    def origin(self) -> Origin:
        """Where this is."""
        return Origin(
            PLATFORM, chat_id=str(self._channel_id), user_id=self._user_id, bot_id=self._platform.bot_id
        )

    async def send(self, card: Card) -> str:
        """Write a message; raises CannotWrite, ChatError."""
        return await self._send_rendered(render_card(card))

    async def send_picture(self, png: bytes, card: Card) -> str:
        """Write a message with a picture; raises CannotWrite, ChatError."""
        return await self._send_rendered(render_card(card, png))

    async def edit(self, message_id: str, card: Card) -> None:
        """Change a message of ours; raises MessageGone, ChatError."""
        shown = render_card(card)
        with translate_errors():
            place = await self._channel()
            await place.get_partial_message(int(message_id)).edit(
                embeds=shown.embeds, view=shown.view, attachments=shown.files, allowed_mentions=NO_MENTIONS
            )

    async def delete(self, message_id: str) -> bool:
        """Delete a message; False where the bot may not, as with a person's own in a direct chat."""
        try:
            with translate_errors():
                place = await self._channel()
                await place.get_partial_message(int(message_id)).delete()
        except MessageGone:
            return True
        except ChatError:
            return False
        return True

    async def show_toast(self, text: str) -> None:
        """Do nothing: nobody pressed."""

    async def _send_rendered(self, rendered: RenderedMessage) -> str:
        view, mute = rendered.view or discord.utils.MISSING, NO_MENTIONS
        with translate_errors():
            place = await self._channel()
            sent = await place.send(
                embeds=rendered.embeds, view=view, files=rendered.files, allowed_mentions=mute
            )
        return str(sent.id)

    async def _channel(self) -> discord.PartialMessageable | discord.DMChannel:
        return self._platform.client.get_partial_messageable(self._channel_id)


class DirectChat(ChannelChat):
    """The private conversation with a user, continued by direct messages where nothing else reaches it."""

    is_private = True

    def __init__(self, platform: DiscordPlatform, user_id: str) -> None:
        # A login may be begun for anybody's word of an id; there is no user of the id 0.
        super().__init__(platform, int(user_id) if user_id.isdecimal() and user_id.isascii() else 0, user_id)

    async def edit(self, message_id: str, card: Card) -> None:
        """Change a message, ephemeral or direct; raises MessageGone, ChatError."""
        webhook = self._platform.ephemeral_webhooks.find(message_id)
        if webhook is None:
            await super().edit(message_id, card)
            return
        shown = render_card(card)
        try:
            with translate_errors():
                await webhook.edit_message(
                    int(message_id),
                    embeds=shown.embeds,
                    view=shown.view,
                    attachments=shown.files,
                    allowed_mentions=NO_MENTIONS,
                )
        except MessageGone:
            self._platform.ephemeral_webhooks.forget(message_id)
            raise

    async def delete(self, message_id: str) -> bool:
        """Delete a message, ephemeral or direct; False where that cannot be."""
        webhook = self._platform.ephemeral_webhooks.find(message_id)
        if webhook is None:
            return await super().delete(message_id)
        self._platform.ephemeral_webhooks.forget(message_id)
        try:
            with translate_errors():
                await webhook.delete_message(int(message_id))
        except ChatError:
            return False
        return True

    async def _channel(self) -> discord.DMChannel:
        return await self._platform.client.create_dm(discord.Object(self._channel_id))


class InteractionChat(DirectChat):
    """The private conversation, spoken in answer to an interaction: nobody else sees what is said.

    In a direct chat the answers are plain messages, which last.
    """

    def __init__(
        self,
        platform: DiscordPlatform,
        interaction: discord.Interaction[discord.Client],
        ignored_toast: str = "",
    ) -> None:
        """`quiet` is the note that is not passed on: the message changes by itself soon."""
        super().__init__(platform, str(interaction.user.id))
        self._interaction = interaction
        self._ignored_toast = ignored_toast
        self._is_direct = interaction.context.dm_channel
        # A command's answer begins as "is thinking", which the first message takes the place of.
        self._is_thinking = interaction.type is discord.InteractionType.application_command
        self._toast_text = ""

    async def acknowledge(self) -> None:
        """Tell Discord within its three seconds that an answer will come; raises ChatError."""
        hidden = self._is_thinking and not self._is_direct
        with translate_errors():
            await self._interaction.response.defer(ephemeral=hidden, thinking=self._is_thinking)
        pressed_on = self._interaction.message
        if pressed_on is not None and pressed_on.flags.ephemeral:
            self._platform.ephemeral_webhooks.remember(str(pressed_on.id), self._interaction.followup)

    async def show_toast(self, text: str) -> None:
        """Answer a press by a word that only they see, once all is done."""
        if text != self._ignored_toast:
            self._toast_text = text

    async def close(self) -> None:
        """Leave no question open: say what was noted, or take "is thinking" away; raises ChatError."""
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
        view, mute = rendered.view or discord.utils.MISSING, NO_MENTIONS
        with translate_errors():
            sent = await self._interaction.followup.send(
                embeds=rendered.embeds,
                view=view,
                files=rendered.files,
                allowed_mentions=mute,
                ephemeral=not self._is_direct,
                wait=True,
            )
        self._is_thinking = False
        if not self._is_direct:
            self._platform.ephemeral_webhooks.remember(str(sent.id), self._interaction.followup)
        return str(sent.id)
