"""What people see of their logins, kept up to date: by whichever process runs the bot, also after a restart.

Nothing tells the board what has happened. It looks at the logins in the store, at their times, and edits the
messages that show something else. So it does not matter which process finished a login, or when the bot was
started again; a login that a command elsewhere began for a user of this platform is shown as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable

from gateway_hooks.cards import Card
from gateway_hooks.chat import CannotWrite, Chat, ChatError, MessageGone, Platform
from gateway_hooks.conversation import Conversation, next_mark
from gateway_hooks.policy import Policy
from gateway_hooks.servers import Servers, tag
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.login import Connection, Login
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Clock, Server

LOOK_SECONDS = 0.3
# After a platform did not take a message.
RETRY_SECONDS = 5.0
# A change within the same tick of the disk's clock as the last look would otherwise go unseen.
SETTLE_NS = 50_000_000

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
        self._clock = clock
        self._on_connected = on_connected
        # What each login's prompt shows, where it was shown, and who works on it.
        self._shown: dict[str, Card] = {}
        self._chats: dict[str, Chat] = {}
        self._working: dict[str, asyncio.Task[None]] = {}
        self._polling: dict[str, asyncio.Task[Login]] = {}
        self._not_before: dict[str, float] = {}
        self._seen_at = -1
        self._look_at = 0.0
        self._poked = asyncio.Event()

    async def run(self) -> None:
        """Keep messages up to date until cancelled."""
        try:
            while True:
                try:
                    await self.look()
                except McpAuthError as trouble:
                    log.warning("The logins cannot be read: %s", trouble)
                self._poked.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._poked.wait()
        finally:
            for task in (*self._working.values(), *self._polling.values()):
                task.cancel()
            await asyncio.gather(*self._working.values(), return_exceptions=True)
            await asyncio.gather(*self._polling.values(), return_exceptions=True)

    def poke(self) -> None:
        """Look at once: something has just happened."""
        self._seen_at = -1
        self._poked.set()

    async def look(self) -> None:
        """Look at all logins once, where one has changed or it is time; raises StoreError."""
        now, changed_at = self._clock(), self._service.logins_changed_at()
        if changed_at == self._seen_at and now < self._look_at:
            return
        logins = [each for each in await asyncio.to_thread(self._service.logins) if self._is_here(each)]
        is_settled = time.time_ns() - changed_at > SETTLE_NS
        self._seen_at = changed_at if is_settled else -1
        self._look_at = min((self._due(each, now) for each in logins if not each.is_over), default=now + 3600)
        for login in logins:
            if login.id not in self._working and self._not_before.get(login.id, 0.0) <= now:
                self._attend(login, now)
        self._forget(logins)

    async def show(self, login: Login, chat: Chat, message: str = "") -> None:
        """Show a login that waits in this chat, in a message of ours that is there; raises ChatError."""
        self._chats[login.id] = chat
        card = self._prompt(login)
        if message:
            try:
                await chat.edit(message, card)
            except MessageGone:
                message = ""
        if not message:
            message = await chat.send(card)
        self._shown[login.id] = card
        await self._service.note_messages(login.id, (message, *login.messages[1:]))
        self.poke()

    async def add(self, login_id: str, message: str) -> None:
        """Let a message go when the login is over, or goes on in another way."""
        login = await asyncio.to_thread(self._service.login, login_id)
        await self._service.note_messages(login_id, (*login.messages, message))
        self.poke()

    async def clear(self, login: Login, chat: Chat) -> None:
        """Delete the messages beside the prompt: what they show counts no more."""
        for message in login.messages[1:]:
            with contextlib.suppress(ChatError):
                await chat.delete(message)
        await self._service.note_messages(login.id, login.messages[:1])

    def _is_here(self, login: Login) -> bool:
        origin = login.origin
        return origin.platform == self._platform.name and origin.bot in {"", self._platform.bot}

    def _due(self, login: Login, now: float) -> float:
        return max(next_mark(login, now), self._not_before.get(login.id, 0.0))

    def _attend(self, login: Login, now: float) -> None:
        if login.status == "waiting" and login.device is not None and login.messages:
            self._poll(login)
        if login.is_over:
            if login.messages:
                self._work(login, self._finish(login, now))
        elif login.messages:
            card = self._prompt(login)
            if self._shown.get(login.id) != card:
                self._work(login, self._edit(login, card))
        elif not login.origin.bot and login.status == "waiting":
            self._work(login, self._show_for_another(login))

    def _prompt(self, login: Login) -> Card:
        may_use_device = self._service.allows_device(login)
        return self._conversation.prompt(login, self._clock(), may_use_device=may_use_device)

    async def _show_for_another(self, login: Login) -> None:
        """Show a login that another process began for a user of this platform."""
        user = login.origin.user
        if not self._policy.may_change(await self._platform.sender(user)):
            log.warning("A login of %s for user %s was cancelled: not on the list.", login.key.server, user)
            await self._service.cancel(login.id)
            return
        await self._know(login)
        try:
            await self.show(login, self._platform.private_chat(user))
        except CannotWrite:
            log.warning("The bot may not write to user %s, who has to open the chat first.", user)
            await self._service.cancel(login.id)

    async def _edit(self, login: Login, card: Card) -> None:
        try:
            await self._chat(login).edit(login.messages[0], card)
        except MessageGone:
            # The person deleted it, or it is out of reach: shown anew, in private.
            self._chats[login.id] = private = self._platform.private_chat(login.origin.user)
            message = await private.send(card)
            await self._service.note_messages(login.id, (message, *login.messages[1:]))
        self._shown[login.id] = card

    async def _finish(self, login: Login, now: float) -> None:
        """Say how a login ended, and take away what was shown beside it."""
        # A QR code may have come after it was read.
        login = await asyncio.to_thread(self._service.login, login.id)
        chat, found = self._chat(login), await self._connection(login)
        card = self._conversation.ended(login, found, now, tag(login.key.server))
        try:
            await chat.edit(login.messages[0], card)
        except MessageGone:
            await self._platform.private_chat(login.origin.user).send(card)
        for message in login.messages[1:]:
            with contextlib.suppress(ChatError):
                await chat.delete(message)
        await self._service.note_messages(login.id, ())
        if found is not None and self._on_connected is not None:
            await self._on_connected(login, found)

    async def _connection(self, login: Login) -> Connection | None:
        if login.status != "done":
            return None
        server = Server(login.key.server, login.server_url)
        return await asyncio.to_thread(self._service.connection, server, login.key.owner)

    def _chat(self, login: Login) -> Chat:
        return self._chats.get(login.id) or self._platform.private_chat(login.origin.user)

    def _poll(self, login: Login) -> None:
        """Ask for a device's tokens, whoever began the login; one process among all does."""
        if login.id in self._polling:
            return

        async def settled() -> Login:
            await self._know(login)
            return await self._service.settled(login.id)

        self._polling[login.id] = task = asyncio.create_task(settled())
        task.add_done_callback(lambda _: self.poke())

    async def _know(self, login: Login) -> None:
        """Give the service the server's own options (a CA, an allowed network), where it has an entry."""
        with contextlib.suppress(McpAuthError):
            self._service.know(await asyncio.to_thread(self._servers.find, login.key.server))

    def _work(self, login: Login, work: Coroutine[object, object, None]) -> None:
        async def worked() -> None:
            try:
                await work
            except (ChatError, McpAuthError) as trouble:
                log.warning("A login of %s could not be shown: %s", login.key.server, trouble)
                self._not_before[login.id] = self._clock() + RETRY_SECONDS
            finally:
                del self._working[login.id]
                self.poke()

        self._working[login.id] = asyncio.create_task(worked())

    def _forget(self, logins: Iterable[Login]) -> None:
        known = {login.id for login in logins if not login.is_over or login.messages}
        for memory in (self._shown, self._chats, self._not_before):
            for login_id in memory.keys() - known:
                del memory[login_id]
        for login_id in [each for each, task in self._polling.items() if task.done()]:
            del self._polling[login_id]
