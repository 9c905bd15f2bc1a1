"""What the handlers of a platform share: its people, their logins, and ways to answer them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from gateway_hooks.dialog.cards import Button, Card, Link, encode_action
from gateway_hooks.dialog.connection_rendering import ConnectionRenderer
from gateway_hooks.dialog.intents import START_PAYLOAD_PREFIX
from gateway_hooks.dialog.messages import Messages
from gateway_hooks.dialog.platform import Chat, ChatError, IncomingEvent, MessageGone, Platform
from gateway_hooks.dialog.policy import Policy
from gateway_hooks.dialog.rendering import Renderer, display_name
from gateway_hooks.dialog.servers import Servers, redirect_uris
from gateway_hooks.runtime.message_sync import PromptMessages
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
    renderer: Renderer
    connection_renderer: ConnectionRenderer
    prompt_messages: PromptMessages
    clock: Clock = field(default=time.time)

    @property
    def messages(self) -> Messages:
        """The sentences that are said here."""
        return self.renderer.messages

    def owner(self, user_id: str) -> Owner:
        """Return whose tokens a user's are."""
        return self.policy.owner(self.platform.name, user_id)

    async def logins(self) -> list[Login]:
        """List the logins of this platform that have not been over for an hour."""
        logins = await run_file_work(self.service.logins)
        return [each for each in logins if each.origin.platform == self.platform.name]

    async def redirect_uris(self) -> tuple[str, ...]:
        """List the redirect URIs that the configuration names; may read files, off the event loop."""
        return await run_file_work(redirect_uris, self.servers)

    async def invite_to_private_chat(self, group_chat: Chat, login: Login | None = None) -> None:
        """Say in a group how to go on where the bot may not write first: with a login that waits, or anew."""
        words, platform = self.messages, self.platform
        title = (
            words.connections_title
            if login is None
            else words.connect_title.format(server=display_name(login.key.server_name))
        )
        link = platform.deep_link(
            START_PAYLOAD_PREFIX if login is None else f"{START_PAYLOAD_PREFIX}{login.id}"
        )
        if link is not None:
            card = Card(title, paragraphs=(words.open_private,), link=Link(words.open_private_button, link))
        elif login is not None and platform.capabilities.has_buttons:
            button = Button(words.continue_here_button, encode_action("open", login.id))
            card = Card(title, paragraphs=(words.continue_here,), buttons=((button,),))
        else:
            card = Card(title, paragraphs=(words.open_private,))
        await group_chat.send(card)

    async def reply(self, chat: Chat, event: IncomingEvent, card: Card) -> None:
        """Answer in the message whose button was pressed, else in a new one."""
        if event.pressed_message_id:
            try:
                await chat.edit(event.pressed_message_id, card)
            except MessageGone:
                await chat.send(card)
        else:
            await chat.send(card)

    async def reply_text(self, chat: Chat, event: IncomingEvent, text: str) -> None:
        """Answer in a word: a press by what does not stay."""
        await (chat.show_toast(text) if event.callback_data else chat.send(Card(text)))

    async def delete_messages(self, event: IncomingEvent, chat: Chat) -> bool:
        """Delete what a person wrote, and the message with a code beside it; True if nothing of it stays."""
        outcomes = [
            await self._try_delete(message, chat)
            for message in (event.message_id, event.quoted_message_id)
            if message
        ]
        return all(outcomes)

    async def _try_delete(self, message_id: str, chat: Chat) -> bool:
        try:
            return await chat.delete(message_id)
        except ChatError:
            return False
