"""Start a login in a chat: check permission and limits, and replace an older login."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace
from weakref import WeakValueDictionary

from gateway_hooks.dialog.cards import Card
from gateway_hooks.dialog.intents import Connect
from gateway_hooks.dialog.platform import CannotWrite, Chat, ChatError, IncomingEvent
from gateway_hooks.dialog.policy import MAX_STARTS_PER_HOUR, MAX_WAITING_PER_USER, refusal
from gateway_hooks.dialog.servers import tag_of
from gateway_hooks.runtime.context import Context
from gateway_hooks.runtime.message_sync import PromptContext, usable_connection
from gateway_hooks.runtime.server_choice import ServerChoice
from gateway_hooks.runtime.user_servers import (
    has_lost_name,
    has_secret_part,
    is_url,
    lacks_scheme,
    unique_name_for,
)
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.login import Login, PromptReason
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import Origin, Owner, Server


class LoginStarter:
    """Starts the logins that users request."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._server_choice = ServerChoice(context)
        self._start_locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        # For each user, the times of failed starts (epoch seconds): they leave no login records to count.
        self._failed_starts: dict[str, deque[float]] = {}

    async def start_login(
        self, intent: Connect, event: IncomingEvent, chat: Chat, source_chat: Chat | None = None
    ) -> bool:
        """Start a login to the named server, or let the user choose a server; raises ChatError, StoreError.

        `source_chat` is the group of the request, or None. If the bot may not write to the user in private,
        it says so in that group, and this method returns False.
        """
        messages, user_id = self._context.messages, event.sender.user_id
        if not self._context.policy.may_change(event.sender):
            card = self._context.renderer.admins_only_card()
            await self._context.reply(chat, event, card)
            return True
        is_address = is_url(intent.server_name) or lacks_scheme(intent.server_name)
        if is_address and has_secret_part(intent.server_name):
            await self._delete_address(event, chat, source_chat)
        try:
            server = await self._server_choice.choose(intent, event.sender)
        except McpAuthError as error:
            title = messages.address_refused_title if is_address else messages.connections_title
            await self._context.reply(chat, event, self._context.renderer.error_card(title, error))
            return True
        if isinstance(server, Card):
            await self._context.reply(chat, event, server)
            return True
        await chat.show_toast(messages.please_wait)
        async with self._start_lock(user_id):
            return await self._start(server, event, chat, source_chat)

    async def _delete_address(self, event: IncomingEvent, chat: Chat, source_chat: Chat | None) -> None:
        """Delete a message with an address that may contain a key, or ask the user to delete it."""
        if event.message_id and not await self._context.delete_messages(event, source_chat or chat):
            messages = self._context.messages
            await chat.send(Card(messages.connections_title, paragraphs=(messages.delete_failed,)))

    async def _start(
        self, server: Server, event: IncomingEvent, chat: Chat, source_chat: Chat | None
    ) -> bool:
        """Start a login; it replaces the user's waiting logins of the same server."""
        user_id, owner = event.sender.user_id, self._context.owner(event.sender.user_id)
        logins = await self._context.logins()
        replaced_logins = [
            waiting_login
            for waiting_login in logins
            if waiting_login.status == "waiting"
            and waiting_login.origin.user_id == user_id
            and waiting_login.key.server_name == server.name
        ]
        others = [other_login for other_login in logins if other_login not in replaced_logins]
        counted_logins = [
            *others,
            *(replace(waiting_login, status="cancelled") for waiting_login in replaced_logins),
        ]
        refusal_reason = refusal(
            counted_logins,
            self._context.platform.name,
            user_id,
            self._context.clock(),
            self._failed_starts.get(user_id, ()),
        )
        if refusal_reason is not None:
            await self._context.reply(
                chat,
                event,
                self._context.connection_renderer.refusal_card(refusal_reason, MAX_WAITING_PER_USER),
            )
            return True
        try:
            login = await self._start_named_login(server, chat.origin, owner)
        except McpAuthError as error:
            failed_starts = self._failed_starts.setdefault(user_id, deque(maxlen=MAX_STARTS_PER_HOUR))
            failed_starts.append(self._context.clock())
            messages = self._context.messages
            # No record of this login says what the button of an unconfigured server means.
            button = self._context.renderer.connect_button(
                messages.try_again_button, server.name, tag_of(server.name)
            )
            try_again = () if server.is_public_only else ((button,),)
            now = self._context.clock()
            connection = await usable_connection(self._context.service, server, owner, now)
            title = self._context.renderer.failure_title(server.name, is_connected=connection is not None)
            await self._context.reply(chat, event, self._context.renderer.error_card(title, error, try_again))
            return True
        for waiting_login in replaced_logins:
            await self._context.service.cancel(waiting_login.id)
        try:
            reason: PromptReason = "command" if event.command and not event.callback_data else "button"
            prompt_context = PromptContext(reason, is_started_here=source_chat is None)
            await self._context.prompt_messages.show(login, chat, event.pressed_message_id, prompt_context)
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

    async def _start_named_login(self, server: Server, origin: Origin, owner: Owner) -> Login:
        """Start a login. If another new server got the name of its server meanwhile, use another name."""
        service = self._context.service
        login = await service.start_login(server, origin, owner=owner, flow="auto")
        if not server.is_public_only or not await run_file_work(has_lost_name, service, login):
            return login
        await service.cancel(login.id)
        server = replace(server, name=unique_name_for(server.url))
        return await service.start_login(server, origin, owner=owner, flow="auto")

    def _start_lock(self, user_id: str) -> asyncio.Lock:
        """Return the user's lock. With it, the user's logins start one by one, so the limits count each."""
        return self._start_locks.setdefault(user_id, asyncio.Lock())
