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
from gateway_hooks.dialog.platform import Abilities, Chat, ChatError, MessageGone, Sender
from gateway_hooks.dialog.policy import Policy
from gateway_hooks.discord.errors import refusals
from gateway_hooks.discord.people import People
from gateway_hooks.discord.render import NOBODY, Drawn, drawn
from hermes_mcp_auth_remote.values import Clock, Origin

PLATFORM = "discord"
TOKEN_SECONDS = 15 * 60


@dataclass(slots=True)
class Reach:
    """The ephemeral messages that can still be changed: each message's newest token."""

    clock: Clock
    _by_message: dict[str, tuple[float, discord.Webhook]] = field(
        default_factory=dict[str, tuple[float, discord.Webhook]]
    )

    def note(self, message: str, webhook: discord.Webhook) -> None:
        """Remember what a message can be changed by from now on."""
        oldest = self.clock() - TOKEN_SECONDS
        self._by_message = {one: held for one, held in self._by_message.items() if held[0] > oldest}
        self._by_message[message] = (self.clock(), webhook)

    def find(self, message: str) -> discord.Webhook | None:
        """Return what changes a message, None where nothing does, or the bot itself."""
        held = self._by_message.get(message)
        return held[1] if held is not None else None

    def forget(self, message: str) -> None:
        """Discord takes that token no more."""
        self._by_message.pop(message, None)


class DiscordPlatform:
    """Discord, by one bot. `commands` is what stands before a command's name."""

    def __init__(
        self, bot: discord.Client, policy: Policy, commands: str = "/", clock: Clock = time.time
    ) -> None:
        self.client = bot
        self.people = People(bot, policy, clock)
        self.reach = Reach(clock)
        # A bot cannot delete what a person wrote in a direct chat, and nothing here copies on a press.
        self._can = Abilities(forms=True, deletes=False, copies=False, commands=commands)

    @property
    def name(self) -> str:
        """Return "discord"."""
        return PLATFORM

    @property
    def bot(self) -> str:
        """Return the bot's id; "" before it has logged in."""
        return str(self.client.user.id) if self.client.user is not None else ""

    @property
    def can(self) -> Abilities:
        """Return what people are offered here."""
        return self._can

    def private_chat(self, user: str) -> Chat:
        """Return the direct chat with a user."""
        return DirectChat(self, user)

    async def sender(self, user: str) -> Sender:
        """Return a user with their roles in a guild that the bot is in; raises ChatError."""
        return await self.people.find(user)

    def invitation(self, payload: str) -> str | None:  # noqa: ARG002  no address of Discord's brings it back
        """Return None: a button in the channel does it."""
        return None


class ChannelChat:
    """A channel of a guild, or a thread: everybody there reads it."""

    is_private = False

    def __init__(self, platform: DiscordPlatform, channel: int, user: str) -> None:
        self._platform = platform
        self._channel_id = channel
        self._user = user

    @property
    def origin(self) -> Origin:
        """Where this is."""
        return Origin(PLATFORM, chat=str(self._channel_id), user=self._user, bot=self._platform.bot)

    async def send(self, card: Card) -> str:
        """Write a message; raises CannotWrite, ChatError."""
        return await self._write(drawn(card))

    async def send_picture(self, png: bytes, card: Card) -> str:
        """Write a message with a picture; raises CannotWrite, ChatError."""
        return await self._write(drawn(card, png))

    async def edit(self, message: str, card: Card) -> None:
        """Change a message of ours; raises MessageGone, ChatError."""
        shown = drawn(card)
        with refusals():
            place = await self._channel()
            await place.get_partial_message(int(message)).edit(
                embeds=shown.embeds, view=shown.view, attachments=shown.files, allowed_mentions=NOBODY
            )

    async def delete(self, message: str) -> bool:
        """Delete a message; False where the bot may not, as with a person's own in a direct chat."""
        try:
            with refusals():
                place = await self._channel()
                await place.get_partial_message(int(message)).delete()
        except MessageGone:
            return True
        except ChatError:
            return False
        return True

    async def note(self, text: str) -> None:
        """Do nothing: nobody pressed."""

    async def _write(self, shown: Drawn) -> str:
        view, mute = shown.view or discord.utils.MISSING, NOBODY
        with refusals():
            place = await self._channel()
            sent = await place.send(embeds=shown.embeds, view=view, files=shown.files, allowed_mentions=mute)
        return str(sent.id)

    async def _channel(self) -> discord.PartialMessageable | discord.DMChannel:
        return self._platform.client.get_partial_messageable(self._channel_id)


class DirectChat(ChannelChat):
    """The private conversation with a user, continued by direct messages where nothing else reaches it."""

    is_private = True

    def __init__(self, platform: DiscordPlatform, user: str) -> None:
        # A login may be begun for anybody's word of an id; there is no user of the id 0.
        super().__init__(platform, int(user) if user.isdecimal() and user.isascii() else 0, user)

    async def edit(self, message: str, card: Card) -> None:
        """Change a message, ephemeral or direct; raises MessageGone, ChatError."""
        webhook = self._platform.reach.find(message)
        if webhook is None:
            await super().edit(message, card)
            return
        shown = drawn(card)
        try:
            with refusals():
                await webhook.edit_message(
                    int(message),
                    embeds=shown.embeds,
                    view=shown.view,
                    attachments=shown.files,
                    allowed_mentions=NOBODY,
                )
        except MessageGone:
            self._platform.reach.forget(message)
            raise

    async def delete(self, message: str) -> bool:
        """Delete a message, ephemeral or direct; False where that cannot be."""
        webhook = self._platform.reach.find(message)
        if webhook is None:
            return await super().delete(message)
        self._platform.reach.forget(message)
        try:
            with refusals():
                await webhook.delete_message(int(message))
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
        self, platform: DiscordPlatform, interaction: discord.Interaction[discord.Client], quiet: str = ""
    ) -> None:
        """`quiet` is the note that is not passed on: the message changes by itself soon."""
        super().__init__(platform, str(interaction.user.id))
        self._interaction = interaction
        self._quiet = quiet
        self._is_direct = interaction.context.dm_channel
        # A command's answer begins as "is thinking", which the first message takes the place of.
        self._thinks = interaction.type is discord.InteractionType.application_command
        self._noted = ""

    async def acknowledge(self) -> None:
        """Tell Discord within its three seconds that an answer will come; raises ChatError."""
        hidden = self._thinks and not self._is_direct
        with refusals():
            await self._interaction.response.defer(ephemeral=hidden, thinking=self._thinks)
        pressed_on = self._interaction.message
        if pressed_on is not None and pressed_on.flags.ephemeral:
            self._platform.reach.note(str(pressed_on.id), self._interaction.followup)

    async def note(self, text: str) -> None:
        """Answer a press by a word that only they see, once all is done."""
        if text != self._quiet:
            self._noted = text

    async def close(self) -> None:
        """Leave no question open: say what was noted, or take "is thinking" away; raises ChatError."""
        with refusals():
            if self._noted:
                await self._interaction.followup.send(
                    embed=discord.Embed(description=self._noted), ephemeral=True, allowed_mentions=NOBODY
                )
            elif self._thinks:
                await self._interaction.delete_original_response()

    async def _write(self, shown: Drawn) -> str:
        view, mute = shown.view or discord.utils.MISSING, NOBODY
        with refusals():
            sent = await self._interaction.followup.send(
                embeds=shown.embeds,
                view=view,
                files=shown.files,
                allowed_mentions=mute,
                ephemeral=not self._is_direct,
                wait=True,
            )
        self._thinks = False
        if not self._is_direct:
            self._platform.reach.note(str(sent.id), self._interaction.followup)
        return str(sent.id)
