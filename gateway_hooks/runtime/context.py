"""What the handlers of a platform share: its people, their logins, and ways to answer them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from gateway_hooks.dialog.cards import Button, Card, Link, action
from gateway_hooks.dialog.connection_rendering import Lists
from gateway_hooks.dialog.intents import START
from gateway_hooks.dialog.messages import Words
from gateway_hooks.dialog.platform import Chat, ChatError, Heard, MessageGone, Platform
from gateway_hooks.dialog.policy import Policy
from gateway_hooks.dialog.rendering import Conversation, name_of
from gateway_hooks.dialog.servers import Servers, redirect_uris
from gateway_hooks.runtime.message_sync import Board
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import Clock, Owner


@dataclass(frozen=True, slots=True)
class Context:
    """One platform's service, policy, words and messages, put together once."""

    service: AuthService
    platform: Platform
    servers: Servers
    policy: Policy
    conversation: Conversation
    lists: Lists
    board: Board
    clock: Clock = field(default=time.time)

    @property
    def words(self) -> Words:
        """The sentences that are said here."""
        return self.conversation.words

    def owner(self, user: str) -> Owner:
        """Return whose tokens a user's are."""
        return self.policy.owner(self.platform.name, user)

    async def logins(self) -> list[Login]:
        """List the logins of this platform that have not been over for an hour."""
        logins = await run_file_work(self.service.logins)
        return [each for each in logins if each.origin.platform == self.platform.name]

    async def redirect_uris(self) -> tuple[str, ...]:
        """List the redirect URIs that the configuration names; may read files, off the event loop."""
        return await run_file_work(redirect_uris, self.servers)

    async def invite(self, group: Chat, login: Login | None = None) -> None:
        """Say in a group how to go on where the bot may not write first: with a login that waits, or anew."""
        words, platform = self.words, self.platform
        title = (
            words.connections_title
            if login is None
            else words.connect_title.format(server=name_of(login.key.server))
        )
        link = platform.invitation(START if login is None else f"{START}{login.id}")
        if link is not None:
            card = Card(title, paragraphs=(words.open_private,), link=Link(words.open_private_button, link))
        elif login is not None and platform.can.buttons:
            button = Button(words.go_on_here_button, action("open", login.id))
            card = Card(title, paragraphs=(words.go_on_here,), buttons=((button,),))
        else:
            card = Card(title, paragraphs=(words.open_private,))
        await group.send(card)

    async def reply(self, chat: Chat, heard: Heard, card: Card) -> None:
        """Answer in the message whose button was pressed, else in a new one."""
        if heard.on:
            try:
                await chat.edit(heard.on, card)
            except MessageGone:
                await chat.send(card)
        else:
            await chat.send(card)

    async def say(self, chat: Chat, heard: Heard, text: str) -> None:
        """Answer in a word: a press by what does not stay."""
        await (chat.note(text) if heard.pressed else chat.send(Card(text)))

    async def deleted(self, heard: Heard, chat: Chat) -> bool:
        """Delete what a person wrote, and the message with a code beside it; True if nothing of it stays."""
        outcomes = [
            await self._delete(message, chat) for message in (heard.message, heard.beside_message) if message
        ]
        return all(outcomes)

    async def _delete(self, message: str, chat: Chat) -> bool:
        try:
            return await chat.delete(message)
        except ChatError:
            return False
