"""Beginning a login in a chat: who may, how often, in the place of which other one."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from weakref import WeakValueDictionary

from gateway_hooks.dialog.cards import Button, Card, encode_action
from gateway_hooks.dialog.intents import Connect
from gateway_hooks.dialog.platform import CannotWrite, Chat, ChatError, IncomingEvent
from gateway_hooks.dialog.policy import MAX_WAITING_PER_USER, refusal
from gateway_hooks.dialog.rendering import display_name
from gateway_hooks.dialog.servers import resolve_server, tag_of
from gateway_hooks.runtime.context import Context
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import Server


class LoginStarter:
    """Begins logins that people ask for."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._start_locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def start_login(
        self, intent: Connect, event: IncomingEvent, chat: Chat, source_chat: Chat | None = None
    ) -> bool:
        """Begin a login of the server that is meant, or ask which; raises ChatError, StoreError.

        `asked_in` is the group where it was asked for: there the person is told where the bot may not write,
        and False comes back.
        """
        words, user = self._context.messages, event.sender.user_id
        if not self._context.policy.may_change(event.sender):
            card = Card(words.connections_title, paragraphs=(words.admins_only,))
            await self._context.reply(chat, event, card)
            return True
        try:
            server = await run_file_work(
                resolve_server, self._context.servers, intent.server_name, intent.server_tag
            )
            names = [] if server else await run_file_work(self._context.servers.names)
        except McpAuthError as trouble:
            card = self._context.renderer.error_card(words.connections_title, trouble)
            await self._context.reply(chat, event, card)
            return True
        if server is None:
            await self._context.reply(
                chat, event, self._context.connection_renderer.server_choice_card(names)
            )
            return True
        await chat.show_toast(words.working)
        async with self._start_lock(user):
            return await self._start(server, event, chat, source_chat)

    async def _start(
        self, server: Server, event: IncomingEvent, chat: Chat, source_chat: Chat | None
    ) -> bool:
        """Begin a login, in the place of one of the same server that waits here."""
        user, owner = event.sender.user_id, self._context.owner(event.sender.user_id)
        logins = await self._context.logins()
        older = [
            each
            for each in logins
            if each.status == "waiting"
            and each.origin.user_id == user
            and each.key.server_name == server.name
        ]
        others = [each for each in logins if each not in older]
        begun = [*others, *(replace(each, status="cancelled") for each in older)]
        why = refusal(begun, self._context.platform.name, user, self._context.clock())
        if why is not None:
            await self._context.reply(
                chat, event, self._context.connection_renderer.refusal_card(why, MAX_WAITING_PER_USER)
            )
            return True
        try:
            login = await self._context.service.start_login(server, chat.origin, owner=owner, flow="auto")
        except McpAuthError as trouble:
            words = self._context.messages
            again = ((Button(words.try_again_button, encode_action("connect", tag_of(server.name))),),)
            title = words.failed_title.format(server=display_name(server.name))
            await self._context.reply(chat, event, self._context.renderer.error_card(title, trouble, again))
            return True
        for each in older:
            await self._context.service.cancel(each.id)
        try:
            await self._context.prompt_messages.show(login, chat, event.pressed_message_id)
        except CannotWrite:
            if source_chat is None:
                await self._context.service.cancel(login.id)
                raise
            await self._context.invite_to_private_chat(source_chat, login)
            return False
        except ChatError:
            await self._context.service.cancel(login.id)
            raise
        return True

    def _start_lock(self, user_id: str) -> asyncio.Lock:
        """Let one login of a user begin after the other, so that they can be counted."""
        return self._start_locks.setdefault(user_id, asyncio.Lock())
