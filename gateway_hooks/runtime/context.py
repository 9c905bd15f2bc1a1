"""The dependencies and helpers that the handlers of one platform share."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway_hooks.dialog.cards import Button, Card, Link, encode_action
from gateway_hooks.dialog.connection_rendering import ConnectionRenderer
from gateway_hooks.dialog.intents import START_PAYLOAD_PREFIX
from gateway_hooks.dialog.messages import Messages
from gateway_hooks.dialog.platform import Chat, ChatError, IncomingEvent, MessageGone, Platform, Sender
from gateway_hooks.dialog.policy import Policy, allows_urls, may_log_in
from gateway_hooks.dialog.rendering import Renderer, display_name
from gateway_hooks.dialog.servers import Servers, redirect_uris
from gateway_hooks.runtime.message_sync import PromptMessages
from gateway_hooks.runtime.user_servers import UserServers
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import Clock, Owner


@dataclass(frozen=True, slots=True)
class Context:
    """The service, policy, renderers and prompts of one platform."""

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
        """The texts of the chat."""
        return self.renderer.messages

    def owner(self, user_id: str) -> Owner:
        """Return the owner of a user's tokens."""
        return self.policy.owner(self.platform.name, user_id)

    def may_log_in(self, sender: Sender, login: Login) -> bool:
        """Return True if a user may still complete this login."""
        return may_log_in(self.policy, sender, is_configured=not login.is_public_only)

    def servers_of(self, owner: Owner, logins: Iterable[Login] = ()) -> UserServers:
        """Return the servers that the owner's users see, with those of these recent logins."""
        includes_stored = owner is not None or allows_urls(self.policy)
        return UserServers(self.servers, self.service, owner, includes_stored=includes_stored, logins=logins)

    async def servers_of_user(self, user_id: str) -> UserServers:
        """Return the servers that a user sees, also those of recent logins; raises StoreError.

        The logins of other platforms count: two servers of one owner must not get the same name.
        """
        return self.servers_of(self.owner(user_id), await self.service.logins())

    async def logins(self) -> list[Login]:
        """Return this platform's logins, except those that ended more than an hour ago."""
        logins = await self.service.logins()
        return [login for login in logins if login.origin.platform == self.platform.name]

    async def redirect_uris(self) -> tuple[str, ...]:
        """Return the redirect URIs of the configuration. Reads files off the event loop."""
        return await run_file_work(redirect_uris, self.servers)

    async def invite_to_private_chat(self, group_chat: Chat, login: Login | None = None) -> None:
        """Tell a user in a group how to continue. Use it if the bot may not write to the user first."""
        messages, platform = self.messages, self.platform
        title = (
            messages.connections_title
            if login is None
            else messages.connect_title.format(server=display_name(login.key.server_name))
        )
        link = platform.deep_link(
            START_PAYLOAD_PREFIX if login is None else f"{START_PAYLOAD_PREFIX}{login.id}"
        )
        if link is not None:
            card = Card(
                title, paragraphs=(messages.open_private,), link=Link(messages.open_private_button, link)
            )
        elif login is not None and platform.capabilities.has_buttons:
            button = Button(messages.continue_here_button, encode_action("open", login.id))
            card = Card(title, paragraphs=(messages.continue_here,), buttons=((button,),))
        else:
            card = Card(title, paragraphs=(messages.open_private,))
        await group_chat.send(card)

    async def reply(self, chat: Chat, event: IncomingEvent, card: Card) -> None:
        """Edit the message whose button was pressed; without a pressed button, send a new message."""
        if event.pressed_message_id:
            try:
                await chat.edit(event.pressed_message_id, card)
            except MessageGone:
                await chat.send(card)
        else:
            await chat.send(card)

    async def reply_text(self, chat: Chat, event: IncomingEvent, text: str) -> None:
        """Reply with a short text: a toast after a button press, else a message."""
        await (chat.show_toast(text) if event.callback_data else chat.send(Card(text)))

    async def delete_messages(self, event: IncomingEvent, chat: Chat) -> bool:
        """Delete the user's message and a quoted message with a code; return True if all are deleted."""
        outcomes = [await self._try_delete(message_id, chat) for message_id in event.message_ids]
        return all(outcomes)

    async def _try_delete(self, message_id: str, chat: Chat) -> bool:
        try:
            return await chat.delete(message_id)
        except ChatError:
            return False
