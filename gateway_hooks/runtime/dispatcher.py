"""The one driver of the conversation: takes what a person did, asks the policy, and has it done.

`hear` is all that an adapter calls. It says whether the event was ours: what is not goes on to the
application around us. Logins are shown and kept up to date by the `board`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from gateway_hooks.dialog.cards import Card
from gateway_hooks.dialog.code_detection import redirects_of
from gateway_hooks.dialog.connection_rendering import Lists
from gateway_hooks.dialog.intents import (
    Answer,
    Connect,
    Continue,
    Disconnect,
    Exposed,
    Intent,
    ListConnections,
    NotOurs,
    OnLogin,
    Over,
    Stray,
    carries_answer,
    meaning,
    needs_configuration,
    stands_alone,
    with_code_as_text,
)
from gateway_hooks.dialog.messages import ENGLISH, Words
from gateway_hooks.dialog.platform import CannotWrite, Chat, ChatError, Heard, Platform, Sender
from gateway_hooks.dialog.policy import STRANGER_SECONDS, Policy
from gateway_hooks.dialog.rendering import Conversation
from gateway_hooks.dialog.servers import Servers
from gateway_hooks.runtime.connection_actions import Listing
from gateway_hooks.runtime.context import Context
from gateway_hooks.runtime.error_logging import contained
from gateway_hooks.runtime.login_actions import Answering
from gateway_hooks.runtime.login_start import Beginning
from gateway_hooks.runtime.message_sync import Board, OnConnected
from gateway_hooks.runtime.reminders import Attention
from hermes_mcp_auth_remote.errors import AuthorizationRequired, McpAuthError
from hermes_mcp_auth_remote.login import Connection, Login
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.prompting import asking
from hermes_mcp_auth_remote.service.sessions import Session
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.traceback_redaction import hides_locals
from hermes_mcp_auth_remote.values import MAX_LOGIN_SECONDS, Clock, Owner

# Long enough for a bot to have started.
LOAD_SECONDS = 5.0

log = logging.getLogger(__name__)

Work = Callable[[], Awaitable[None]]
_Private = Connect | Disconnect | ListConnections | OnLogin | Continue


class Desk:
    """Takes care of the logins of one platform's people."""

    def __init__(
        self,
        service: AuthService,
        platform: Platform,
        servers: Servers,
        policy: Policy,
        words: Words = ENGLISH,
        clock: Clock = time.time,
        on_connected: OnConnected | None = None,
    ) -> None:
        conversation = Conversation(platform.can, words)
        self.board = Board(service, platform, servers, policy, conversation, clock, on_connected)
        self._context = Context(
            service, platform, servers, policy, conversation, Lists(conversation), self.board, clock
        )
        self._beginning = Beginning(self._context)
        self._answering = Answering(self._context, self._beginning)
        self._listing = Listing(self._context)
        self._attention = Attention(self._context)
        self._strangers: dict[str, float] = {}

    @hides_locals
    async def run(self) -> None:
        """Keep what people see up to date, and tell them where a login is needed, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.board.run())
            group.create_task(self._attention.run())
            group.create_task(self._load())

    async def _load(self) -> None:
        """Load what logins need off the event loop, after the start and before an upgrade replaces it."""
        await asyncio.sleep(LOAD_SECONDS)
        await run_file_work(self._context.service.load)

    async def hear(self, heard: Heard, chat: Chat) -> bool:
        """Take what a person did, and do it; False where it is not ours."""
        work = await self.heed(heard, chat)
        if work is None:
            return False
        await work()
        return True

    async def heed(self, heard: Heard, chat: Chat) -> Work | None:
        """Return what is to be done about what a person did, None where it is not ours; raises nothing.

        The work may take as long as servers do, and raises nothing either: whoever is handed one event after
        the other does it in a task of its own.
        """
        try:
            return await self._heed(heard, chat)
        except Exception as fault:  # noqa: BLE001  the policy's and the platform's, which are others' work
            log.error("A message could not be judged: %s.", type(fault).__name__)  # noqa: TRY400
            if not any(carries_answer(text) for text in (heard.text, heard.beside, *heard.parts)):
                return None
            # It is still let through to nobody.
            return partial(self._done, partial(self._answering.stray, heard, chat), chat)

    async def _heed(self, heard: Heard, chat: Chat) -> Work | None:
        context = self._context
        trouble: McpAuthError | None = None
        try:
            logins = [] if stands_alone(heard) else await context.logins()
        except McpAuthError as unreadable:
            # What carries a code is still not let through to anybody else.
            logins, trouble = [], unreadable
        configured = await context.redirect_uris() if needs_configuration(heard) else ()
        forms = context.platform.can.forms
        intent = meaning(
            heard, chat.origin, logins, is_private=chat.is_private, has_forms=forms, configured=configured
        )
        if isinstance(intent, NotOurs):
            if trouble is None or not needs_configuration(heard):
                return None
            # Without the logins, nobody knows whose address that is.
            intent = Stray()
        heard = with_code_as_text(heard, logins, redirects_of(logins, configured))
        if not context.policy.may_talk(heard.sender):
            if isinstance(intent, Answer | OnLogin | Exposed) and intent.login is not None:
                # It was allowed when that login began.
                return partial(self._done, partial(self._removed, intent.login, heard, chat), chat)
            if isinstance(intent, Exposed | Stray):
                # Another's address, or one for nobody: no other program gets it.
                return partial(self._done, partial(self._drop, heard, chat), chat)
            is_asked = bool(heard.command or heard.pressed)
            return partial(self._done, partial(self._stranger, heard, chat), chat) if is_asked else None
        return partial(self._done, partial(self._do, intent, heard, chat, trouble), chat)

    async def _done(self, work: Work, chat: Chat) -> None:
        """Do it; what goes wrong is said where that can be."""
        context = self._context
        with contained("A message was not dealt with", log):
            try:
                try:
                    await work()
                except McpAuthError as trouble:
                    await chat.send(context.conversation.trouble(context.words.connections_title, trouble))
            except ChatError as trouble:
                log.warning("A message could not be answered: %s", trouble)

    @hides_locals
    async def help(self, heard: Heard, chat: Chat) -> None:
        """Say what can be typed, to those who may; raises ChatError."""
        if not self._context.policy.may_talk(heard.sender):
            await self._stranger(heard, chat)
        else:
            await chat.send(self._context.lists.help())

    def owner(self, user: str) -> Owner:
        """Return whose tokens this user's calls go out with."""
        return self._context.owner(user)

    @hides_locals
    def session(self, server: str, user: str) -> Session:
        """Return the session for calls on behalf of a user; raises ServerNotFound, ConfigError."""
        return self._context.service.session(self._context.servers.find(server), self.owner(user))

    @contextmanager
    def asking(
        self, sender: Sender, chat: Chat | None = None, wait_seconds: float = MAX_LOGIN_SECONDS
    ) -> Generator[None]:
        """Let calls inside the block ask this user, in private, where a login is needed.

        `chat` is where the user asked for the work, None for nowhere: where that is a group, it is told that
        a private message was written. A call waits so many seconds, then raises AuthorizationRequired.
        """
        private = self._context.platform.private_chat(sender.user)
        place = chat if chat is not None and chat.is_private else private
        prompter = _Prompter(self._context, private, chat)
        may_change = self._context.policy.may_change(sender)
        # Who may not is nobody: no one's tokens are asked for there.
        origin = place.origin if may_change else replace(place.origin, user="")
        shared = may_change and self.owner(sender.user) is None
        with asking(prompter, origin, wait_seconds, may_connect_shared=shared, flow="auto"):
            yield

    async def _stranger(self, heard: Heard, chat: Chat) -> None:
        now, user = self._context.clock(), heard.sender.user
        self._strangers = {who: at for who, at in self._strangers.items() if at > now - STRANGER_SECONDS}
        if user not in self._strangers:
            self._strangers[user] = now
            await chat.send(self._context.lists.stranger(user))

    async def _drop(self, heard: Heard, chat: Chat) -> None:
        await self._context.deleted(heard, chat)

    async def _removed(self, login: Login, heard: Heard, chat: Chat) -> None:
        await self._answering.withdraw_answer(login, heard, chat)
        await self._stranger(heard, chat)

    async def _do(self, intent: Intent, heard: Heard, chat: Chat, trouble: McpAuthError | None) -> None:
        if trouble is not None:
            await self._context.deleted(heard, chat)
            raise trouble
        match intent:
            case Answer(login):
                await self._answering.answer(login, heard, chat)
            case Exposed(login):
                await self._answering.exposed(login, heard, chat)
            case Stray():
                await self._answering.stray(heard, chat)
            case Over():
                await self._context.say(chat, heard, self._context.words.login_over)
            case Connect() | Disconnect() | ListConnections() | OnLogin() | Continue():
                await self._in_private(intent, heard, chat)
            case NotOurs():
                pass

    async def _in_private(self, intent: _Private, heard: Heard, chat: Chat) -> None:
        """Answer in private what was asked, wherever that was, be it by a login's id."""
        place = chat
        if not chat.is_private:
            place = self._context.platform.private_chat(heard.sender.user)
            # What was pressed there is no message of the private chat.
            heard = replace(heard, on="")
        try:
            wrote = await self._at(place, intent, heard, None if chat.is_private else chat)
        except CannotWrite:
            if chat.is_private:
                raise
            await self._context.invite(chat)
            return
        if wrote and not chat.is_private:
            await chat.send(Card(self._context.words.wrote_privately))

    async def _at(self, place: Chat, intent: _Private, heard: Heard, asked_in: Chat | None) -> bool:
        """Answer in a private chat; False where only the group could be told."""
        match intent:
            case ListConnections():
                await self._listing.show(heard, place)
            case Connect():
                return await self._beginning.connect(intent, heard, place, asked_in)
            case Disconnect():
                await self._listing.disconnect(intent, heard, place)
            case OnLogin(login, verb):
                await self._answering.on_login(login, verb, heard, place)
            case Continue(login_id):
                await self._answering.continue_(login_id, heard, place)
        return True


class _Prompter:
    """Shows the logins that calls of an agent need, in private; the board says how they end."""

    def __init__(self, context: Context, private: Chat, asked_in: Chat | None) -> None:
        self._context = context
        self._private = private
        self._asked_in = asked_in

    async def show(self, login: Login) -> None:
        """Show it; raises AuthorizationRequired where that cannot be."""
        try:
            await self._show(login)
        except ChatError as trouble:
            # What an agent's call may raise; the chat's trouble is the operator's.
            log.warning("A login of %s could not be shown: %s", login.key.server, trouble)
            reason = "nobody could be asked in the chat"
            raise AuthorizationRequired(login.key.server, reason=reason) from None

    async def _show(self, login: Login) -> None:
        place, group = self._private, self._asked_in
        if group is not None and group.is_private:
            place, group = group, None
        try:
            await self._context.board.show(login, place)
        except CannotWrite:
            if group is None:
                raise
            await self._context.invite(group, login)
            return
        if group is not None:
            await group.send(Card(self._context.words.wrote_privately))

    async def settled(self, login: Login, connection: Connection | None) -> None:  # noqa: ARG002  a Prompter's
        """Leave it to the board, which looks at the logins itself."""
        self._context.board.poke()
