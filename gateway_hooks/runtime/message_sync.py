"""Keep the messages that show logins in sync with the store.

`PromptMessages` polls the store, and edits a message when its login or its countdown changes. The login may
be one that another process completes, or one from before a restart of the bot. `PromptMessages` also shows
logins that another process started for a user of this platform.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

from gateway_hooks.dialog.cards import Card
from gateway_hooks.dialog.platform import (
    CannotWrite,
    Chat,
    ChatError,
    MessageGone,
    Platform,
    PlatformUnreachable,
)
from gateway_hooks.dialog.policy import Policy, may_log_in
from gateway_hooks.dialog.rendering import Renderer, next_countdown_at
from gateway_hooks.dialog.servers import Servers, tag_of
from gateway_hooks.runtime.prompt_cache import PromptCache
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.login import Connection, Login, PromptReason
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.status import session_status
from hermes_mcp_auth_remote.store.protocol import UNKNOWN, Unknown, Version
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import Clock, Owner, Server

SYNC_INTERVAL_SECONDS = 0.3
# If an update of a message fails, the delay before the retry.
RETRY_SECONDS = 5.0
# The prompt's id in the record of a login whose outcome is shown, while messages are left to delete.
OUTCOME_SHOWN = ""
# How often the permission of a user with a device login is checked.
PERMISSION_CHECK_SECONDS = 15.0

log = logging.getLogger(__name__)

OnConnected = Callable[[Login, Connection], Awaitable[None]]
"""Called after a user has connected a server. It must not raise."""


@dataclass(slots=True)
class PromptContext:
    """Why and where a login is shown. Only the reason is stored, in the record of the login.

    `is_started_here`: the user asked for the login in the chat that shows it. `agent_continues` returns
    whether the agent's call that needed the login still waits; None if there is no such call.
    """

    reason: PromptReason = "unknown"
    is_started_here: bool = True
    agent_continues: Callable[[], bool] | None = None


def _stored_context(reason: PromptReason) -> PromptContext:
    """Return the context of a login that an earlier process showed: no call of an agent waits any more."""
    return PromptContext(
        reason,
        is_started_here=reason != "other_process",
        agent_continues=(lambda: False) if reason == "agent" else None,
    )


def shows_prompt(login: Login) -> bool:
    """Return True if a message of the chat still shows the prompt of a login."""
    return bool(login.message_ids) and login.message_ids[0] != OUTCOME_SHOWN


async def usable_connection(
    service: AuthService, server: Server, owner: Owner, now: float
) -> Connection | None:
    """Return a server's connection; None if there is none, if its session is over or if it is unreadable."""
    with contextlib.suppress(McpAuthError):
        connection = await service.connection(server, owner)
        if connection is not None and not session_status(connection, now).is_over:
            return connection
    return None


class PromptMessages:
    """The messages that show logins on one platform."""

    def __init__(
        self,
        service: AuthService,
        platform: Platform,
        servers: Servers,
        policy: Policy,
        renderer: Renderer,
        clock: Clock = time.time,
        on_connected: OnConnected | None = None,
    ) -> None:
        self._service = service
        self._platform = platform
        self._servers = servers
        self._policy = policy
        self._renderer = renderer
        self._prompt_cache = PromptCache(renderer, service.allows_device, clock)
        self._clock = clock
        self._on_connected = on_connected
        # The keys are login ids. `_retry_at` is in epoch seconds.
        self._shown_cards: dict[str, Card] = {}
        self._chats: dict[str, Chat] = {}
        self._contexts: dict[str, PromptContext] = {}
        # For each chat id, the number of messages that users wrote in that chat. For each login id, that
        # number at the time when the prompt was shown.
        self._written_counts: dict[str, int] = {}
        self._counts_at_prompt: dict[str, int] = {}
        self._update_tasks: dict[str, asyncio.Task[None]] = {}
        self._poll_tasks: dict[str, asyncio.Task[None]] = {}
        self._retry_at: dict[str, float] = {}
        # The messages of logins whose record could not be written: without them, each retry would send a
        # message again.
        self._unsaved_ids: dict[str, tuple[str, ...]] = {}
        # What was logged last about reading all logins, and about each login: it is not logged again.
        self._logged_read_error = ""
        self._logged_reasons: dict[str, str] = {}
        # One task at a time reads and writes a login's list of messages.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._synced_version: Version | Unknown = UNKNOWN
        self._next_sync_at = 0.0
        self._wake_event = asyncio.Event()
        self._before_message: Callable[[], Awaitable[None]] = _do_nothing

    async def run(self) -> None:
        """Keep messages up to date until cancelled."""
        try:
            while True:
                self._wake_event.clear()
                try:
                    await self.sync()
                except McpAuthError as error:
                    if str(error) != self._logged_read_error:
                        self._logged_read_error = str(error)
                        log.warning("The logins cannot be read: %s", error)
                else:
                    self._logged_read_error = ""
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(SYNC_INTERVAL_SECONDS):
                        await self._wake_event.wait()
        finally:
            tasks = (*self._update_tasks.values(), *self._poll_tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def call_before_messages(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Register a callback that is awaited before each time that a login is shown or updated.

        The callback may, for example, refresh a cache of logins.
        """
        self._before_message = callback

    def wake(self) -> None:
        """Sync now: a login has changed."""
        self._synced_version = UNKNOWN
        self._wake_event.set()

    async def sync(self) -> None:
        """Sync all logins once, if one has changed or an update is due; raises StoreError."""
        now, version = self._clock(), self._service.glance_logins()
        if version is not UNKNOWN and version == self._synced_version and now < self._next_sync_at:
            return
        # Collect the ids before the read: `_forget_absent` must not drop a login that `show` adds during it.
        remembered_ids = {*self._shown_cards, *self._chats, *self._retry_at, *self._unsaved_ids}
        logins = [
            self._with_unsaved_messages(login)
            for login in await self._service.logins()
            if self._is_for_this_bot(login)
        ]
        self._synced_version = version
        self._next_sync_at = min((self._next_due_at(login, now) for login in logins), default=math.inf)
        for login in logins:
            if login.id not in self._update_tasks and self._retry_at.get(login.id, 0.0) <= now:
                self._schedule_updates(login)
        self._forget_absent(remembered_ids, logins)

    def note_message(self, chat: Chat) -> None:
        """Count a user's message that stays in this chat."""
        if self._counts_at_prompt:
            chat_id = chat.origin.chat_id
            self._written_counts[chat_id] = self._written_counts.get(chat_id, 0) + 1

    def count_from_now(self, login: Login) -> None:
        """Count the messages that the user writes after this prompt, if an earlier process showed it."""
        if login.id not in self._counts_at_prompt:
            chat_id = self._chat_for(login).origin.chat_id
            self._counts_at_prompt[login.id] = self._written_counts.get(chat_id, 0)

    async def show(
        self, login: Login, chat: Chat, message_id: str = "", context: PromptContext | None = None
    ) -> None:
        """Show a waiting login in this chat: edit `message_id` if it is given. Raises ChatError."""
        async with self._lock_for(login.id):
            if context is not None:
                self._contexts[login.id] = context
            elif login.id in self._contexts:
                # The user has just asked to see the login in this chat.
                self._contexts[login.id].is_started_here = True
            await self._show_locked(login, chat, message_id)

    async def show_answered(self, login: Login, chat: Chat) -> None:
        """Say that the answer has arrived, if the message that shows this login is not known.

        The process that sent that message was killed before it had stored the message's id. Without a known
        message, the user would not see the outcome. Raises ChatError, StoreError.
        """
        async with self._lock_for(login.id):
            if not (await self._read_login(login.id)).message_ids:
                await self._show_locked(replace(login, status="exchanging"), chat)

    async def _show_locked(self, login: Login, chat: Chat, message_id: str = "") -> None:
        self._chats[login.id] = chat
        await self._before_message()
        self._counts_at_prompt[login.id] = self._written_counts.get(chat.origin.chat_id, 0)
        card = self._prompt_card(login)
        if message_id:
            try:
                await chat.edit(message_id, card)
            except MessageGone:
                message_id = ""
        if not message_id:
            message_id = await chat.send(card)
        self._shown_cards[login.id] = card
        # The store keeps the ids of this login's earlier messages. The bot deletes them when the login ends.
        other_ids = (other_id for other_id in login.message_ids if other_id != message_id)
        self._unsaved_ids[login.id] = (message_id, *other_ids)
        await self._service.save_prompt_message(login.id, message_id, self._context_of(login).reason)
        self._unsaved_ids.pop(login.id, None)

    async def add_message(self, login_id: str, message_id: str, chat: Chat) -> None:
        """Register a message of a login. The bot deletes it when the login ends or switches its flow.

        Raises StoreError.
        """
        async with self._lock_for(login_id):
            login = await self._read_login(login_id)
            if login.is_over and not login.message_ids:
                # The login's messages have been deleted already.
                await self._save_messages(login_id, (OUTCOME_SHOWN, message_id))
                await self._delete_left_messages(login_id, [message_id], chat)
            else:
                await self._save_messages(login_id, (*login.message_ids, message_id))

    async def delete_extra_messages(self, login_id: str, chat: Chat) -> None:
        """Delete all messages of a login except the prompt, such as a QR code that is no longer valid."""
        async with self._lock_for(login_id):
            message_ids = (await self._read_login(login_id)).message_ids
            left_ids, _ = await self._delete_messages(message_ids[1:], chat)
            # When the login ends, the bot tries again.
            await self._save_messages(login_id, (*message_ids[:1], *left_ids))

    def _lock_for(self, login_id: str) -> asyncio.Lock:
        return self._locks.setdefault(login_id, asyncio.Lock())

    async def _read_login(self, login_id: str) -> Login:
        return self._with_unsaved_messages(await self._service.login(login_id))

    def _with_unsaved_messages(self, login: Login) -> Login:
        message_ids = self._unsaved_ids.get(login.id)
        return login if message_ids is None else replace(login, message_ids=message_ids)

    async def _save_messages(self, login_id: str, message_ids: tuple[str, ...]) -> None:
        """Store the ids of a login's messages, and remember them until they are stored.

        Raises LoginNotFound, StoreError.
        """
        self._unsaved_ids[login_id] = message_ids
        await self._service.save_messages(login_id, message_ids)
        # Another save may have completed meanwhile.
        self._unsaved_ids.pop(login_id, None)

    async def _delete_messages(self, message_ids: Iterable[str], chat: Chat) -> tuple[tuple[str, ...], float]:
        """Delete messages; return those that a later try may delete, and how long the platform asks to wait.

        Messages are left if the platform is unreachable. If it asks to wait, no further call is made.
        """
        waiting_ids, left_ids = list(message_ids), list[str]()
        while waiting_ids:
            message_id = waiting_ids.pop(0)
            try:
                await chat.delete(message_id)
            except PlatformUnreachable as error:
                left_ids.append(message_id)
                if error.retry_seconds:
                    return (*left_ids, *waiting_ids), error.retry_seconds
            except ChatError:
                continue
        return tuple(left_ids), 0.0

    async def _delete_left_messages(self, login_id: str, message_ids: Iterable[str], chat: Chat) -> None:
        """Delete the last messages of a login whose outcome is shown.

        Raises PlatformUnreachable if some are left, which a later try must delete, and StoreError.
        """
        left_ids, asked_seconds = await self._delete_messages(message_ids, chat)
        await self._save_messages(login_id, (OUTCOME_SHOWN, *left_ids) if left_ids else ())
        if left_ids:
            reason = "Messages are left to delete, and the platform cannot be reached."
            raise PlatformUnreachable(reason, asked_seconds)

    def _is_for_this_bot(self, login: Login) -> bool:
        origin = login.origin
        return origin.platform == self._platform.name and origin.bot_id in {"", self._platform.bot_id}

    def _next_due_at(self, login: Login, now: float) -> float:
        """Return the time of the next countdown update or retry of this login (epoch seconds)."""
        if login.id in self._unsaved_ids:
            return self._retry_at.get(login.id, now)
        if login.is_over:
            return self._retry_at.get(login.id, math.inf) if login.message_ids else math.inf
        return max(next_countdown_at(login, now), self._retry_at.get(login.id, 0.0))

    def _schedule_updates(self, login: Login) -> None:
        if login.status == "waiting" and login.message_ids:
            self.count_from_now(login)
        needs_polling = login.status == "waiting" and login.poll_state is not None and login.message_ids
        if needs_polling and login.id not in self._poll_tasks:
            self._poll_tasks[login.id] = asyncio.create_task(self._wait_for_device(login))
        if login.is_over:
            if login.message_ids:
                self._start_update(login, self._show_outcome)
        elif login.message_ids:
            if self._shown_cards.get(login.id) != self._prompt_card(login):
                self._start_update(login, self._update_prompt)
        elif login.origin.user_id and not login.origin.bot_id and login.status == "waiting":
            self._start_update(login, self._show_login_of_other_process)
        if login.id in self._unsaved_ids and login.id not in self._update_tasks:
            self._start_update(login, _update_nothing)

    async def _show_login_of_other_process(self, login: Login) -> None:
        """Show a login that another process started for a user of this platform."""
        if login.status != "waiting" or login.message_ids or not await self._cancel_unless_allowed(login):
            return
        await self._register_server(login)
        user_id = login.origin.user_id
        self._contexts[login.id] = PromptContext("other_process", is_started_here=False)
        try:
            await self._show_locked(login, self._platform.private_chat(user_id))
        except CannotWrite:
            log.warning("The bot may not write to user %s. The user must open the chat first.", user_id)
            await self._service.cancel(login.id)

    async def _update_prompt(self, login: Login) -> None:
        if login.is_over or not login.message_ids:
            return
        prompt_id, *extra_ids = login.message_ids
        await self._before_message()
        card = self._prompt_card(login)
        with contextlib.suppress(CannotWrite):
            try:
                await self._chat_for(login).edit(prompt_id, card)
            except MessageGone:
                # The user deleted the message, or the bot cannot reach it: send a new message in private.
                self._chats[login.id] = private_chat = self._platform.private_chat(login.origin.user_id)
                message_id = await private_chat.send(card)
                self._shown_cards[login.id] = card
                await self._save_messages(login.id, (message_id, *extra_ids))
        self._shown_cards[login.id] = card

    async def _show_outcome(self, login: Login) -> None:
        """Show the outcome of a login, and delete its extra messages."""
        if not login.message_ids:
            return
        prompt_id, *extra_ids = login.message_ids
        if not shows_prompt(login):
            await self._delete_left_messages(login.id, extra_ids, self._chat_for(login))
            return
        await self._before_message()
        chat, connection = self._chat_for(login), await self._connection(login)
        card = await self.outcome_card(login)
        # Do not retry if the bot may not write to the user.
        with contextlib.suppress(CannotWrite):
            if connection is not None and await self._try_notify(login, chat, card):
                extra_ids.insert(0, prompt_id)
            else:
                try:
                    await chat.edit(prompt_id, card)
                except MessageGone:
                    await self._platform.private_chat(login.origin.user_id).send(card)
        # Store first that the outcome is shown: the user must not see it twice.
        try:
            await self._save_messages(login.id, (OUTCOME_SHOWN, *extra_ids) if extra_ids else ())
        finally:
            if connection is not None and self._on_connected is not None:
                await self._on_connected(login, connection)
        if extra_ids:
            await self._delete_left_messages(login.id, extra_ids, chat)

    async def outcome_card(self, login: Login) -> Card:
        """Return the card of a login that is over; raises StoreError."""
        if login.status == "done":
            connection = await self._connection(login)
        else:
            server = Server(login.key.server_name, login.server_url)
            connection = await usable_connection(self._service, server, login.key.owner, self._clock())
        call = self._context_of(login).agent_continues
        return self._renderer.outcome_card(
            login,
            connection,
            self._clock(),
            tag_of(login.key.server_name),
            agent_continues=None if call is None else call(),
        )

    async def _try_notify(self, login: Login, chat: Chat, card: Card) -> bool:
        """If the user could miss an edit, send the card as a new message; return False if it was not sent.

        Raises PlatformUnreachable: a later try may send it.
        """
        if not self._should_notify(login, chat):
            return False
        try:
            await chat.send(card)
        except PlatformUnreachable:
            raise
        except ChatError:
            # The prompt may still be editable.
            return False
        return True

    def _should_notify(self, login: Login, chat: Chat) -> bool:
        """Return True if the user could miss an edit: the prompt is out of view or unexpected."""
        if not self._context_of(login).is_started_here or login.id not in self._counts_at_prompt:
            # An earlier process showed the prompt and got the answer.
            return True
        written_count = self._written_counts.get(chat.origin.chat_id, 0)
        return written_count > self._counts_at_prompt[login.id]

    def _context_of(self, login: Login) -> PromptContext:
        return self._contexts.get(login.id) or _stored_context(login.prompt_reason)

    def _prompt_card(self, login: Login) -> Card:
        return self._prompt_cache.card(login, self._context_of(login).reason)

    async def _connection(self, login: Login) -> Connection | None:
        if login.status != "done":
            return None
        server = Server(login.key.server_name, login.server_url)
        return await self._service.connection(server, login.key.owner)

    def _chat_for(self, login: Login) -> Chat:
        return self._chats.get(login.id) or self._platform.private_chat(login.origin.user_id)

    async def _wait_for_device(self, login: Login) -> None:
        """Poll for the tokens of a device login. The service lets only one process poll for a login."""
        try:
            await self._register_server(login)
            completion = asyncio.create_task(self._service.wait_for_login(login.id))
            try:
                while not completion.done():
                    with contextlib.suppress(ChatError):
                        await self._cancel_unless_allowed(login)
                    await asyncio.wait({completion}, timeout=PERMISSION_CHECK_SECONDS)
                await completion
            finally:
                completion.cancel()
        except Exception as error:  # noqa: BLE001  an error must not affect other logins
            self._postpone(login, error)
        finally:
            del self._poll_tasks[login.id]
            self.wake()

    async def _cancel_unless_allowed(self, login: Login) -> bool:
        """Return True if the user may log in, else cancel the login; raises ChatError."""
        sender = await self._platform.fetch_sender(login.origin.user_id)
        if may_log_in(self._policy, sender, is_configured=not login.is_public_only):
            return True
        user_id = login.origin.user_id
        log.warning(
            "The login to %s was cancelled: user %s is not on the list.", login.key.server_name, user_id
        )
        await self._service.cancel(login.id)
        return False

    async def _register_server(self, login: Login) -> None:
        """If the server is configured, register its options (a CA, an allowed network) with the service."""
        with contextlib.suppress(McpAuthError):
            self._service.register_server(await run_file_work(self._servers.find, login.key.server_name))

    def _start_update(self, login: Login, update: Callable[[Login], Awaitable[None]]) -> None:
        async def run_update() -> None:
            try:
                async with self._lock_for(login.id):
                    # The login may have changed since it was read.
                    await update(await self._read_login(login.id))
                    if login.id in self._unsaved_ids:
                        await self._save_messages(login.id, self._unsaved_ids[login.id])
                self._logged_reasons.pop(login.id, None)
            except Exception as error:  # noqa: BLE001  an error must not affect other logins
                self._postpone(login, error)
            finally:
                del self._update_tasks[login.id]
                self.wake()

        self._update_tasks[login.id] = asyncio.create_task(run_update())

    def _postpone(self, login: Login, error: Exception) -> None:
        """Log the error and retry the update of the login's messages later."""
        # A library's error text may contain secrets.
        is_own_error = isinstance(error, (ChatError, McpAuthError))
        reason = str(error) if is_own_error else type(error).__name__
        if self._logged_reasons.get(login.id) != reason:
            self._logged_reasons[login.id] = reason
            server_name = login.key.server_name
            log.warning("The messages of a login to %s could not be updated: %s", server_name, reason)
        # Another call would make a platform that asks to wait extend that time.
        asked_seconds = error.retry_seconds if isinstance(error, PlatformUnreachable) else 0.0
        self._retry_at[login.id] = self._clock() + max(RETRY_SECONDS, asked_seconds)

    def _forget_absent(self, login_ids: Iterable[str], logins: Iterable[Login]) -> None:
        for login_id in set(login_ids) - {
            login.id
            for login in logins
            if not login.is_over or login.message_ids or login.id in self._unsaved_ids
        }:
            for values_by_login in (
                self._shown_cards,
                self._chats,
                self._retry_at,
                self._unsaved_ids,
                self._logged_reasons,
                self._contexts,
                self._counts_at_prompt,
            ):
                values_by_login.pop(login_id, None)
            self._prompt_cache.forget(login_id)
        if not self._counts_at_prompt:
            self._written_counts.clear()


async def _update_nothing(_login: Login) -> None:
    """Update no message: only the record of the login is written."""


async def _do_nothing() -> None:
    """Await nothing."""
