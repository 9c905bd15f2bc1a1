"""Beginning a login in a chat: who may, how often, in the place of which other one."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from weakref import WeakValueDictionary

from gateway_hooks.dialog.cards import Button, Card, action
from gateway_hooks.dialog.intents import Connect
from gateway_hooks.dialog.platform import CannotWrite, Chat, ChatError, Heard
from gateway_hooks.dialog.policy import MAX_WAITING_PER_USER, refusal
from gateway_hooks.dialog.rendering import name_of
from gateway_hooks.dialog.servers import named, tag
from gateway_hooks.runtime.context import Context
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import Server


class Beginning:
    """Begins logins that people ask for."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def connect(self, intent: Connect, heard: Heard, chat: Chat, asked_in: Chat | None = None) -> bool:
        """Begin a login of the server that is meant, or ask which; raises ChatError, StoreError.

        `asked_in` is the group where it was asked for: there the person is told where the bot may not write,
        and False comes back.
        """
        words, user = self._context.words, heard.sender.user
        if not self._context.policy.may_change(heard.sender):
            card = Card(words.connections_title, paragraphs=(words.admins_only,))
            await self._context.reply(chat, heard, card)
            return True
        try:
            server = await run_file_work(named, self._context.servers, intent.server, intent.tag)
            names = [] if server else await run_file_work(self._context.servers.names)
        except McpAuthError as trouble:
            card = self._context.conversation.trouble(words.connections_title, trouble)
            await self._context.reply(chat, heard, card)
            return True
        if server is None:
            await self._context.reply(chat, heard, self._context.lists.servers(names))
            return True
        await chat.note(words.working)
        async with self._turn(user):
            return await self._begin(server, heard, chat, asked_in)

    async def _begin(self, server: Server, heard: Heard, chat: Chat, asked_in: Chat | None) -> bool:
        """Begin a login, in the place of one of the same server that waits here."""
        user, owner = heard.sender.user, self._context.owner(heard.sender.user)
        logins = await self._context.logins()
        older = [
            each
            for each in logins
            if each.status == "waiting" and each.origin.user == user and each.key.server == server.name
        ]
        others = [each for each in logins if each not in older]
        begun = [*others, *(replace(each, status="cancelled") for each in older)]
        why = refusal(begun, self._context.platform.name, user, self._context.clock())
        if why is not None:
            await self._context.reply(chat, heard, self._context.lists.refused(why, MAX_WAITING_PER_USER))
            return True
        try:
            login = await self._context.service.begin(server, chat.origin, owner=owner, flow="auto")
        except McpAuthError as trouble:
            words = self._context.words
            again = ((Button(words.try_again, action("connect", tag(server.name))),),)
            title = words.failed_title.format(server=name_of(server.name))
            await self._context.reply(chat, heard, self._context.conversation.trouble(title, trouble, again))
            return True
        for each in older:
            await self._context.service.cancel(each.id)
        try:
            await self._context.board.show(login, chat, heard.on)
        except CannotWrite:
            if asked_in is None:
                await self._context.service.cancel(login.id)
                raise
            await self._context.invite(asked_in, login)
            return False
        except ChatError:
            await self._context.service.cancel(login.id)
            raise
        return True

    def _turn(self, user: str) -> asyncio.Lock:
        """Let one login of a user begin after the other, so that they can be counted."""
        return self._turns.setdefault(user, asyncio.Lock())
