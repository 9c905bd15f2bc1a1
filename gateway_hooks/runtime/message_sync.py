"""What people see of their logins, kept up to date: by whichever process runs the bot, also after a restart.

Nothing tells the board what has happened. It looks at the logins in the store, at their times, and edits the
messages that show something else. So it does not matter which process finished a login, or when the bot was
started again; a login that a command elsewhere began for a user of this platform is shown as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable
from weakref import WeakValueDictionary

from gateway_hooks.dialog.cards import Card
from gateway_hooks.dialog.platform import CannotWrite, Chat, ChatError, MessageGone, Platform
from gateway_hooks.dialog.policy import Policy
from gateway_hooks.dialog.rendering import Conversation, next_mark
from gateway_hooks.dialog.servers import Servers, tag
from gateway_hooks.runtime.prompt_cache import Prompts
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.login import Connection, Login
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.store.files.private_files import SETTLE_NS
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import Clock, Server

LOOK_SECONDS = 0.3
# After a platform did not take a message.
RETRY_SECONDS = 5.0
# How often it is asked whether a person may still do what their device is about to.
RIGHTS_SECONDS = 15.0

log = logging.getLogger(__name__)

OnConnected = Callable[[Login, Connection], Awaitable[None]]
"""What the application around us does once somebody has connected a server; it raises nothing."""


class Board:
    """The messages that show logins on one platform."""

    def __init__(
        self,
        service: AuthService,
        platform: Platform,
        servers: Servers,
        policy: Policy,
        conversation: Conversation,
        clock: Clock = time.time,
        on_connected: OnConnected | None = None,
    ) -> None:
        self._service = service
        self._platform = platform
        self._servers = servers
        self._policy = policy
        self._conversation = conversation
        self._prompts = Prompts(conversation, service.allows_device, clock)
        self._clock = clock
        self._on_connected = on_connected
        # What each login's prompt shows, where it was shown, and who works on it.
        self._shown: dict[str, Card] = {}
        self._chats: dict[str, Chat] = {}
        self._working: dict[str, asyncio.Task[None]] = {}
        self._polling: dict[str, asyncio.Task[None]] = {}
        self._not_before: dict[str, float] = {}
        # A login's list of messages is read and written by one at a time.
        self._noting: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._seen_at = -1
        self._look_at = 0.0
        self._poked = asyncio.Event()

    async def run(self) -> None:
        """Keep messages up to date until cancelled."""
        try:
            while True:
                self._poked.clear()
                try:
                    await self.look()
                except McpAuthError as trouble:
                    log.warning("The logins cannot be read: %s", trouble)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._poked.wait()
        finally:
            tasks = (*self._working.values(), *self._polling.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def poke(self) -> None:
        """Look at once: something has just happened."""
        self._seen_at = -1
        self._poked.set()

    async def look(self) -> None:
        """Look at all logins once, where one has changed or it is time; raises StoreError."""
        now, changed_at = self._clock(), self._service.logins_changed_at()
        if changed_at == self._seen_at and now < self._look_at:
            return
        # What is shown while we read is not forgotten.
        remembered = {*self._shown, *self._chats, *self._not_before}
        logins = [each for each in await run_file_work(self._service.logins) if self._is_here(each)]
        self._seen_at = changed_at if time.time_ns() - changed_at > SETTLE_NS else -1
        self._look_at = min((self._due(each, now) for each in logins), default=math.inf)
        for login in logins:
            if login.id not in self._working and self._not_before.get(login.id, 0.0) <= now:
                self._attend(login)
        self._forget(remembered, logins)

    async def show(self, login: Login, chat: Chat, message: str = "") -> None:
        """Show a login that waits in this chat, in a message of ours that is there; raises ChatError."""
        async with self._noted(login.id):
            await self._show(login, chat, message)

    async def _show(self, login: Login, chat: Chat, message: str = "") -> None:
        self._chats[login.id] = chat
        card = self._prompts.card(login)
        if message:
            try:
                await chat.edit(message, card)
            except MessageGone:
                message = ""
        if not message:
            message = await chat.send(card)
        self._shown[login.id] = card
        # What showed it before goes when the login is over.
        await self._service.note_prompt(login.id, message)

    async def add(self, login_id: str, message: str, chat: Chat) -> None:
        """Let a message of ours go when the login is over, or goes on in another way; raises StoreError."""
        async with self._noted(login_id):
            login = await self._fresh(login_id)
            if login.is_over and not login.messages:
                # All that showed it is tidied away already.
                await self._delete([message], chat)
            else:
                await self._service.note_messages(login_id, (*login.messages, message))

    async def clear(self, login_id: str, chat: Chat) -> None:
        """Delete the messages beside the prompt: what they show counts no more."""
        async with self._noted(login_id):
            messages = (await self._fresh(login_id)).messages
            await self._delete(messages[1:], chat)
            await self._service.note_messages(login_id, messages[:1])

    def _noted(self, login_id: str) -> asyncio.Lock:
        return self._noting.setdefault(login_id, asyncio.Lock())

    async def _fresh(self, login_id: str) -> Login:
        return await run_file_work(self._service.login, login_id)

    async def _delete(self, messages: Iterable[str], chat: Chat) -> None:
        for message in messages:
            with contextlib.suppress(ChatError):
                await chat.delete(message)

    def _is_here(self, login: Login) -> bool:
        origin = login.origin
        return origin.platform == self._platform.name and origin.bot in {"", self._platform.bot}

    def _due(self, login: Login, now: float) -> float:
        """Return when there may be something to do about a login that nothing happens to."""
        if login.is_over:
            return self._not_before.get(login.id, math.inf) if login.messages else math.inf
        return max(next_mark(login, now), self._not_before.get(login.id, 0.0))

    def _attend(self, login: Login) -> None:
        is_for_a_device = login.status == "waiting" and login.device is not None and login.messages
        if is_for_a_device and login.id not in self._polling:
            self._polling[login.id] = asyncio.create_task(self._settled(login))
        if login.is_over:
            if login.messages:
                self._work(login, self._finish)
        elif login.messages:
            if self._shown.get(login.id) != self._prompts.card(login):
                self._work(login, self._edit)
        elif login.origin.user and not login.origin.bot and login.status == "waiting":
            self._work(login, self._show_for_another)

    async def _show_for_another(self, login: Login) -> None:
        """Show a login that another process began for a user of this platform."""
        if login.status != "waiting" or login.messages or not await self._may_go_on(login):
            return
        await self._know(login)
        user = login.origin.user
        try:
            await self._show(login, self._platform.private_chat(user))
        except CannotWrite:
            log.warning("The bot may not write to user %s, who has to open the chat first.", user)
            await self._service.cancel(login.id)

    async def _edit(self, login: Login) -> None:
        if login.is_over or not login.messages:
            return
        prompt, *others = login.messages
        card = self._prompts.card(login)
        with contextlib.suppress(CannotWrite):
            try:
                await self._chat(login).edit(prompt, card)
            except MessageGone:
                # The person deleted it, or it is out of reach: shown anew, in private.
                self._chats[login.id] = private = self._platform.private_chat(login.origin.user)
                message = await private.send(card)
                await self._service.note_messages(login.id, (message, *others))
        self._shown[login.id] = card

    async def _finish(self, login: Login) -> None:
        """Say how a login ended, and take away what was shown beside it."""
        if not login.messages:
            return
        prompt, *others = login.messages
        chat, found = self._chat(login), await self._connection(login)
        card = self._conversation.ended(login, found, self._clock(), tag(login.key.server))
        # Whoever cannot be written to is not tried again and again.
        with contextlib.suppress(CannotWrite):
            try:
                await chat.edit(prompt, card)
            except MessageGone:
                await self._platform.private_chat(login.origin.user).send(card)
        await self._delete(others, chat)
        await self._service.note_messages(login.id, ())
        if found is not None and self._on_connected is not None:
            await self._on_connected(login, found)

    async def _connection(self, login: Login) -> Connection | None:
        if login.status != "done":
            return None
        server = Server(login.key.server, login.server_url)
        return await run_file_work(self._service.connection, server, login.key.owner)

    def _chat(self, login: Login) -> Chat:
        return self._chats.get(login.id) or self._platform.private_chat(login.origin.user)

    async def _settled(self, login: Login) -> None:
        """Ask for a device's tokens, whoever began the login; one process among all does."""
        try:
            await self._know(login)
            ending = asyncio.create_task(self._service.settled(login.id))
            try:
                while not ending.done():
                    with contextlib.suppress(ChatError):
                        await self._may_go_on(login)
                    await asyncio.wait({ending}, timeout=RIGHTS_SECONDS)
                await ending
            finally:
                ending.cancel()
        except Exception as trouble:  # noqa: BLE001  one login's trouble is not another's
            self._put_off(login, trouble)
        finally:
            del self._polling[login.id]
            self.poke()

    async def _may_go_on(self, login: Login) -> bool:
        """Cancel a login, and return False, where its user may not log in (any more); raises ChatError."""
        if self._policy.may_change(await self._platform.sender(login.origin.user)):
            return True
        user = login.origin.user
        log.warning("A login of %s for user %s was cancelled: not on the list.", login.key.server, user)
        await self._service.cancel(login.id)
        return False

    async def _know(self, login: Login) -> None:
        """Give the service the server's own options (a CA, an allowed network), where it has an entry."""
        with contextlib.suppress(McpAuthError):
            self._service.know(await run_file_work(self._servers.find, login.key.server))

    def _work(self, login: Login, work: Callable[[Login], Awaitable[None]]) -> None:
        async def worked() -> None:
            try:
                async with self._noted(login.id):
                    # Something may have happened since it was read.
                    await work(await self._fresh(login.id))
            except Exception as trouble:  # noqa: BLE001  one login's trouble is not another's
                self._put_off(login, trouble)
            finally:
                del self._working[login.id]
                self.poke()

        self._working[login.id] = asyncio.create_task(worked())

    def _put_off(self, login: Login, trouble: Exception) -> None:
        """Leave a login alone for a while."""
        # What a library says may hold anything.
        is_ours = isinstance(trouble, (ChatError, McpAuthError))
        said = str(trouble) if is_ours else type(trouble).__name__
        log.warning("A login of %s could not be brought up to date: %s", login.key.server, said)
        self._not_before[login.id] = self._clock() + RETRY_SECONDS

    def _forget(self, remembered: Iterable[str], logins: Iterable[Login]) -> None:
        for login_id in set(remembered) - {each.id for each in logins if not each.is_over or each.messages}:
            for memory in (self._shown, self._chats, self._not_before):
                memory.pop(login_id, None)
            self._prompts.forget(login_id)
