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
from gateway_hooks.dialog.code_detection import collect_redirect_locations
from gateway_hooks.dialog.connection_rendering import ConnectionRenderer
from gateway_hooks.dialog.intents import (
    Answer,
    Connect,
    ContinueLogin,
    Disconnect,
    ExposedAnswer,
    Intent,
    ListConnections,
    LoginCommand,
    StaleButton,
    UnmatchedAnswer,
    UnrelatedEvent,
    contains_authorization_response,
    depends_on_redirect_uris,
    is_independent_of_logins,
    parse_intent,
    with_code_as_text,
)
from gateway_hooks.dialog.messages import ENGLISH, Messages
from gateway_hooks.dialog.platform import CannotWrite, Chat, ChatError, IncomingEvent, Platform, Sender
from gateway_hooks.dialog.policy import UNKNOWN_USER_REPLY_SECONDS, Policy
from gateway_hooks.dialog.rendering import Renderer
from gateway_hooks.dialog.servers import Servers
from gateway_hooks.runtime.connection_actions import ConnectionActions
from gateway_hooks.runtime.context import Context
from gateway_hooks.runtime.error_logging import log_errors
from gateway_hooks.runtime.login_actions import LoginActions
from gateway_hooks.runtime.login_start import LoginStarter
from gateway_hooks.runtime.message_sync import OnConnected, PromptMessages
from gateway_hooks.runtime.reminders import ExpiryReminders
from hermes_mcp_auth_remote.errors import AuthorizationRequired, McpAuthError
from hermes_mcp_auth_remote.login import Connection, Login
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.prompting import prompting
from hermes_mcp_auth_remote.service.sessions import Session
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.traceback_redaction import with_hidden_locals
from hermes_mcp_auth_remote.values import MAX_LOGIN_SECONDS, Clock, Owner

# Long enough for a bot to have started.
LOAD_DELAY_SECONDS = 5.0

log = logging.getLogger(__name__)

Work = Callable[[], Awaitable[None]]
_PrivateIntent = Connect | Disconnect | ListConnections | LoginCommand | ContinueLogin


class Dispatcher:
    """Takes care of the logins of one platform's people."""

    def __init__(
        self,
        service: AuthService,
        platform: Platform,
        servers: Servers,
        policy: Policy,
        messages: Messages = ENGLISH,
        clock: Clock = time.time,
        on_connected: OnConnected | None = None,
    ) -> None:
        conversation = Renderer(platform.capabilities, messages)
        self.prompt_messages = PromptMessages(
            service, platform, servers, policy, conversation, clock, on_connected
        )
        self._context = Context(
            service,
            platform,
            servers,
            policy,
            conversation,
            ConnectionRenderer(conversation),
            self.prompt_messages,
            clock,
        )
        self._login_starter = LoginStarter(self._context)
        self._login_actions = LoginActions(self._context, self._login_starter)
        self._connection_actions = ConnectionActions(self._context)
        self._reminders = ExpiryReminders(self._context)
        self._unknown_users: dict[str, float] = {}

    @with_hidden_locals
    async def run(self) -> None:
        """Keep what people see up to date, and tell them where a login is needed, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.prompt_messages.run())
            group.create_task(self._reminders.run())
            group.create_task(self._load_service())

    async def _load_service(self) -> None:
        """Load what logins need off the event loop, after the start and before an upgrade replaces it."""
        await asyncio.sleep(LOAD_DELAY_SECONDS)
        await run_file_work(self._context.service.preload_modules)

    async def handle(self, event: IncomingEvent, chat: Chat) -> bool:
        """Take what a person did, and do it; False where it is not ours."""
        work = await self.plan(event, chat)
        if work is None:
            return False
        await work()
        return True

    async def plan(self, event: IncomingEvent, chat: Chat) -> Work | None:
        """Return what is to be done about what a person did, None where it is not ours; raises nothing.

        The work may take as long as servers do, and raises nothing either: whoever is handed one event after
        the other does it in a task of its own.
        """
        try:
            return await self._plan_or_raise(event, chat)
        except Exception as fault:  # noqa: BLE001  the policy's and the platform's, which are others' work
            log.error("A message could not be judged: %s.", type(fault).__name__)  # noqa: TRY400
            if not any(
                contains_authorization_response(text)
                for text in (event.text, event.quoted_text, *event.extra_texts)
            ):
                return None
            # It is still let through to nobody.
            return partial(
                self._run_work, partial(self._login_actions.reject_unmatched_answer, event, chat), chat
            )

    async def _plan_or_raise(self, event: IncomingEvent, chat: Chat) -> Work | None:
        context = self._context
        trouble: McpAuthError | None = None
        try:
            logins = [] if is_independent_of_logins(event) else await context.logins()
        except McpAuthError as unreadable:
            # What carries a code is still not let through to anybody else.
            logins, trouble = [], unreadable
        configured = await context.redirect_uris() if depends_on_redirect_uris(event) else ()
        forms = context.platform.capabilities.has_forms
        intent = parse_intent(
            event,
            chat.origin,
            logins,
            is_private=chat.is_private,
            has_forms=forms,
            configured_uris=configured,
        )
        if isinstance(intent, UnrelatedEvent):
            if trouble is None or not depends_on_redirect_uris(event):
                return None
            # Without the logins, nobody knows whose address that is.
            intent = UnmatchedAnswer()
        event = with_code_as_text(event, logins, collect_redirect_locations(logins, configured))
        if not context.policy.may_talk(event.sender):
            if isinstance(intent, Answer | LoginCommand | ExposedAnswer) and intent.login is not None:
                # It was allowed when that login began.
                return partial(
                    self._run_work, partial(self._cancel_for_removed_user, intent.login, event, chat), chat
                )
            if isinstance(intent, ExposedAnswer | UnmatchedAnswer):
                # Another's address, or one for nobody: no other program gets it.
                return partial(self._run_work, partial(self._delete_messages, event, chat), chat)
            is_asked = bool(event.command or event.callback_data)
            return (
                partial(self._run_work, partial(self._reply_to_unknown_user, event, chat), chat)
                if is_asked
                else None
            )
        return partial(self._run_work, partial(self._execute, intent, event, chat, trouble), chat)

    async def _run_work(self, work: Work, chat: Chat) -> None:
        """Do it; what goes wrong is said where that can be."""
        context = self._context
        with log_errors("A message was not dealt with", log):
            try:
                try:
                    await work()
                except McpAuthError as trouble:
                    await chat.send(context.renderer.error_card(context.messages.connections_title, trouble))
            except ChatError as trouble:
                log.warning("A message could not be answered: %s", trouble)

    @with_hidden_locals
    async def send_help(self, event: IncomingEvent, chat: Chat) -> None:
        """Say what can be typed, to those who may; raises ChatError."""
        if not self._context.policy.may_talk(event.sender):
            await self._reply_to_unknown_user(event, chat)
        else:
            await chat.send(self._context.connection_renderer.help_card())

    def owner(self, user_id: str) -> Owner:
        """Return whose tokens this user's calls go out with."""
        return self._context.owner(user_id)

    @with_hidden_locals
    def session(self, server_name: str, user_id: str) -> Session:
        """Return the session for calls on behalf of a user; raises ServerNotFound, ConfigError."""
        return self._context.service.session(self._context.servers.find(server_name), self.owner(user_id))

    @contextmanager
    def prompt_in(
        self, sender: Sender, chat: Chat | None = None, wait_seconds: float = MAX_LOGIN_SECONDS
    ) -> Generator[None]:
        """Let calls inside the block ask this user, in private, where a login is needed.

        `chat` is where the user asked for the work, None for nowhere: where that is a group, it is told that
        a private message was written. A call waits so many seconds, then raises AuthorizationRequired.
        """
        private = self._context.platform.private_chat(sender.user_id)
        place = chat if chat is not None and chat.is_private else private
        prompter = _ChatPrompter(self._context, private, chat)
        may_change = self._context.policy.may_change(sender)
        # Who may not is nobody: no one's tokens are asked for there.
        origin = place.origin if may_change else replace(place.origin, user_id="")
        shared = may_change and self.owner(sender.user_id) is None
        with prompting(prompter, origin, wait_seconds, can_connect_shared=shared, flow="auto"):
            yield

    async def _reply_to_unknown_user(self, event: IncomingEvent, chat: Chat) -> None:
        now, user = self._context.clock(), event.sender.user_id
        self._unknown_users = {
            who: at for who, at in self._unknown_users.items() if at > now - UNKNOWN_USER_REPLY_SECONDS
        }
        if user not in self._unknown_users:
            self._unknown_users[user] = now
            await chat.send(self._context.connection_renderer.unknown_user_card(user))

    async def _delete_messages(self, event: IncomingEvent, chat: Chat) -> None:
        await self._context.delete_messages(event, chat)

    async def _cancel_for_removed_user(self, login: Login, event: IncomingEvent, chat: Chat) -> None:
        await self._login_actions.cancel_and_delete_answer(login, event, chat)
        await self._reply_to_unknown_user(event, chat)

    async def _execute(
        self, intent: Intent, event: IncomingEvent, chat: Chat, error: McpAuthError | None
    ) -> None:
        if error is not None:
            await self._context.delete_messages(event, chat)
            raise error
        match intent:
            case Answer(login):
                await self._login_actions.submit_answer(login, event, chat)
            case ExposedAnswer(login):
                await self._login_actions.handle_exposed_answer(login, event, chat)
            case UnmatchedAnswer():
                await self._login_actions.reject_unmatched_answer(event, chat)
            case StaleButton():
                await self._context.reply_text(chat, event, self._context.messages.login_over)
            case Connect() | Disconnect() | ListConnections() | LoginCommand() | ContinueLogin():
                await self._execute_privately(intent, event, chat)
            case UnrelatedEvent():
                pass

    async def _execute_privately(self, intent: _PrivateIntent, event: IncomingEvent, chat: Chat) -> None:
        """Answer in private what was asked, wherever that was, be it by a login's id."""
        place = chat
        if not chat.is_private:
            place = self._context.platform.private_chat(event.sender.user_id)
            # What was pressed there is no message of the private chat.
            event = replace(event, pressed_message_id="")
        try:
            wrote = await self._execute_in(place, intent, event, None if chat.is_private else chat)
        except CannotWrite:
            if chat.is_private:
                raise
            await self._context.invite_to_private_chat(chat)
            return
        if wrote and not chat.is_private:
            await chat.send(Card(self._context.messages.wrote_privately))

    async def _execute_in(
        self, chat: Chat, intent: _PrivateIntent, event: IncomingEvent, source_chat: Chat | None
    ) -> bool:
        """Answer in a private chat; False where only the group could be told."""
        match intent:
            case ListConnections():
                await self._connection_actions.show_connections(event, chat)
            case Connect():
                return await self._login_starter.start_login(intent, event, chat, source_chat)
            case Disconnect():
                await self._connection_actions.disconnect(intent, event, chat)
            case LoginCommand(login, verb):
                await self._login_actions.handle_login_command(login, verb, event, chat)
            case ContinueLogin(login_id):
                await self._login_actions.show_login(login_id, event, chat)
        return True


class _ChatPrompter:
    """Shows the logins that calls of an agent need, in private; the board says how they end."""

    def __init__(self, context: Context, private_chat: Chat, source_chat: Chat | None) -> None:
        self._context = context
        self._private_chat = private_chat
        self._source_chat = source_chat

    async def show(self, login: Login) -> None:
        """Show it; raises AuthorizationRequired where that cannot be."""
        try:
            await self._show_in_chat(login)
        except ChatError as trouble:
            # What an agent's call may raise; the chat's trouble is the operator's.
            log.warning("A login of %s could not be shown: %s", login.key.server_name, trouble)
            reason = "nobody could be asked in the chat"
            raise AuthorizationRequired(login.key.server_name, reason=reason) from None

    async def _show_in_chat(self, login: Login) -> None:
        place, group = self._private_chat, self._source_chat
        if group is not None and group.is_private:
            place, group = group, None
        try:
            await self._context.prompt_messages.show(login, place)
        except CannotWrite:
            if group is None:
                raise
            await self._context.invite_to_private_chat(group, login)
            return
        if group is not None:
            await group.send(Card(self._context.messages.wrote_privately))

    async def show_outcome(self, login: Login, connection: Connection | None) -> None:  # noqa: ARG002  a Prompter's
        """Leave it to the board, which looks at the logins itself."""
        self._context.prompt_messages.wake()
