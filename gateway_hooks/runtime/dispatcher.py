"""Dispatch the events of a platform: parse the intent, check the policy, run the action.

An adapter calls `Dispatcher.handle` or `Dispatcher.plan` with each event. Both say whether this package
handles the event; if not, the adapter passes it on to the embedding application. `PromptMessages` shows
logins and updates their messages.
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
    RevokePerson,
    StaleButton,
    UnmatchedAnswer,
    UnrelatedEvent,
    WrongAddress,
    contains_authorization_response,
    depends_on_redirect_uris,
    is_independent_of_logins,
    parse_intent,
    with_code_as_text,
)
from gateway_hooks.dialog.messages import ENGLISH, Messages
from gateway_hooks.dialog.platform import CannotWrite, Chat, ChatError, IncomingEvent, Platform, Sender
from gateway_hooks.dialog.policy import UNKNOWN_USER_REPLY_SECONDS, Policy, may_log_in
from gateway_hooks.dialog.rendering import Renderer
from gateway_hooks.dialog.servers import Servers
from gateway_hooks.runtime.admission import Admission
from gateway_hooks.runtime.connection_actions import ConnectionActions
from gateway_hooks.runtime.context import Context
from gateway_hooks.runtime.error_logging import log_errors
from gateway_hooks.runtime.held_parts import HeldParts
from gateway_hooks.runtime.login_actions import LoginActions
from gateway_hooks.runtime.login_start import LoginStarter
from gateway_hooks.runtime.message_sync import OnConnected, PromptContext, PromptMessages
from gateway_hooks.runtime.people_actions import PeopleActions
from gateway_hooks.runtime.reminders import ExpiryReminders
from hermes_mcp_auth_remote.errors import AuthorizationRequired, LoginNotFound, McpAuthError
from hermes_mcp_auth_remote.login import Connection, Login
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.prompting import prompting
from hermes_mcp_auth_remote.service.sessions import Session
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.traceback_redaction import with_hidden_locals
from hermes_mcp_auth_remote.values import MAX_LOGIN_SECONDS, Clock, Owner

# Before the imports, wait until the bot has started: the imports would delay the start.
PRELOAD_DELAY_SECONDS = 5.0

log = logging.getLogger(__name__)

Work = Callable[[], Awaitable[None]]
_PrivateIntent = Connect | Disconnect | ListConnections | LoginCommand | ContinueLogin


class Dispatcher:
    """Handles the events of one platform's users and shows them their logins."""

    def __init__(
        self,
        service: AuthService,
        platform: Platform,
        servers: Servers,
        policy: Policy,
        messages: Messages = ENGLISH,
        clock: Clock = time.time,
        on_connected: OnConnected | None = None,
        *,
        answers_all: bool = False,
    ) -> None:
        """Set `answers_all` if no application handles the other messages: the bot then answers with its help.

        If the policy is an `Admission`, the bot also admits users from the chat.
        """
        renderer = Renderer(platform.capabilities, messages)
        self.prompt_messages = PromptMessages(
            service, platform, servers, policy, renderer, clock, on_connected
        )
        self._context = Context(
            service,
            platform,
            servers,
            policy,
            renderer,
            ConnectionRenderer(renderer),
            self.prompt_messages,
            clock,
        )
        self._login_starter = LoginStarter(self._context)
        self._login_actions = LoginActions(self._context, self._login_starter)
        self._connection_actions = ConnectionActions(self._context)
        self.reminders = ExpiryReminders(self._context)
        self._unknown_users: dict[str, float] = {}
        self._admission = policy if isinstance(policy, Admission) else None
        self._people_actions = (
            None if self._admission is None else PeopleActions(self._context, self._admission)
        )
        # A stranger sends the pairing code as an ordinary message, so the bot must handle ordinary messages.
        self._answers_all = answers_all or self._admission is not None
        self._held_parts = HeldParts()

    @with_hidden_locals
    async def run(self) -> None:
        """Update messages and remind users of needed logins, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.prompt_messages.run())
            group.create_task(self.reminders.run())
            group.create_task(self._load_service())

    async def _load_service(self) -> None:
        """Import the modules that logins need, in a thread.

        A later import could fail, because an upgrade could replace the files of the modules.
        """
        await asyncio.sleep(PRELOAD_DELAY_SECONDS)
        await run_file_work(self._context.service.preload_modules)

    async def handle(self, event: IncomingEvent, chat: Chat) -> bool:
        """Handle an event; return False if it belongs to the embedding application."""
        work = await self.plan(event, chat)
        if work is None:
            return False
        await work()
        return True

    async def plan(self, event: IncomingEvent, chat: Chat) -> Work | None:
        """Return the work for an event; None if the event belongs to the embedding application. Never raises.

        The work waits for servers and never raises. An adapter that receives events one after the other must
        run it in a separate task.
        """
        try:
            return await self._plan_or_raise(event, chat)
        except Exception as error:  # noqa: BLE001  the policy and the platform are third-party code
            log.error("A message could not be parsed: %s.", type(error).__name__)  # noqa: TRY400
            if not any(
                contains_authorization_response(text)
                for text in (event.text, event.quoted_text, *event.extra_texts)
            ):
                return None
            # No other program may receive the code.
            return partial(
                self._run_work, partial(self._login_actions.reject_unmatched_answer, event, chat), chat
            )

    async def handle_intent(
        self, intent: Intent, event: IncomingEvent, chat: Chat, store_error: McpAuthError | None = None
    ) -> None:
        """Run an intent that the adapter has parsed. The policy must allow its user. Never raises.

        `store_error` says why the logins could not be read; the bot tells the user.
        """
        await self._run_work(partial(self._execute, intent, event, chat, store_error), chat)

    async def _plan_or_raise(self, event: IncomingEvent, chat: Chat) -> Work | None:
        context = self._context
        event = self._held_parts.join(event, chat)
        store_error: McpAuthError | None = None
        try:
            logins = [] if is_independent_of_logins(event) else await context.logins()
        except McpAuthError as error:
            # The logins cannot be read. Other programs still must not receive a message with a code.
            logins, store_error = [], error
        configured_uris = await context.redirect_uris() if depends_on_redirect_uris(event) else ()
        has_forms = context.platform.capabilities.has_forms
        intent = parse_intent(
            event,
            chat.origin,
            logins,
            is_private=chat.is_private,
            has_forms=has_forms,
            configured_uris=configured_uris,
        )
        if isinstance(intent, UnrelatedEvent):
            if store_error is None or not depends_on_redirect_uris(event):
                return self._plan_unrelated(event, chat)
            # The logins cannot be read, so this process cannot find the login that the code belongs to.
            intent = UnmatchedAnswer()
        if event.command and chat.is_private and not isinstance(intent, Answer | UnmatchedAnswer):
            self.prompt_messages.note_message(chat)
        event = with_code_as_text(event, logins, collect_redirect_locations(logins, configured_uris))
        if not context.policy.may_talk(event.sender):
            if isinstance(intent, Answer | LoginCommand | ExposedAnswer) and intent.login is not None:
                # The policy allowed this user when the login started, but no longer does.
                return partial(
                    self._run_work, partial(self._cancel_for_removed_user, intent.login, event, chat), chat
                )
            if isinstance(intent, ExposedAnswer | UnmatchedAnswer):
                # The code belongs to another login or to none: no other program may receive it.
                return partial(self._run_work, partial(self._delete_messages, event, chat), chat)
            is_request = bool(event.command or event.callback_data)
            return (
                partial(self._run_work, partial(self._reply_to_unknown_user, event, chat), chat)
                if is_request
                else None
            )
        work = partial(self._execute, intent, event, chat, store_error)
        if isinstance(intent, Answer) and store_error is None and not event.callback_data:
            return partial(
                self._run_work, self._held_parts.hold(event, chat, intent.login.request, work), chat
            )
        return partial(self._run_work, work, chat)

    def _plan_unrelated(self, event: IncomingEvent, chat: Chat) -> Work | None:
        """Return the work for an event that concerns no login; None if an application handles the event."""
        if not chat.is_private or event.callback_data:
            return None
        self.prompt_messages.note_message(chat)
        is_readable = bool(event.command or event.text or event.extra_texts)
        if not (self._answers_all and is_readable and event.sender.user_id):
            return None
        return partial(self._run_work, partial(self._send_help_or_hint, event, chat), chat)

    async def _send_help_or_hint(self, event: IncomingEvent, chat: Chat) -> None:
        if self._people_actions is not None and await self._people_actions.handle(event, chat):
            return
        # An unknown command comes as text, if the adapter does not know it.
        marks = ("/", self._context.platform.capabilities.command_prefix.strip())
        if event.command or event.text.startswith(tuple(filter(None, marks))):
            await self.send_help(event, chat)
        elif not self._context.policy.may_talk(event.sender):
            await self._reply_to_unknown_user(event, chat)
        else:
            waiting_logins = [
                login
                for login in await self._context.logins()
                if login.status == "waiting" and login.origin.user_id == event.sender.user_id
            ]
            waiting_server = waiting_logins[-1].key.server_name if waiting_logins else None
            await chat.send(self._context.connection_renderer.hint_card(waiting_server))

    async def _run_work(self, work: Work, chat: Chat) -> None:
        """Run the work; report an error in the chat if possible."""
        context = self._context
        with log_errors("A message was not handled", log):
            try:
                try:
                    await work()
                except McpAuthError as error:
                    await chat.send(context.renderer.error_card(context.messages.connections_title, error))
            except ChatError as error:
                log.warning("A message could not be answered: %s", error)

    @with_hidden_locals
    async def send_help(self, event: IncomingEvent, chat: Chat) -> None:
        """Send the list of commands, if the user may use the bot; raises ChatError."""
        if not self._context.policy.may_talk(event.sender):
            await self._reply_to_unknown_user(event, chat)
        else:
            await chat.send(self._context.connection_renderer.help_card())

    async def takes_answer(self, login_id: str) -> bool:
        """Return False if a form for this login's answer would be useless: the login no longer waits."""
        try:
            return (await self._context.service.login(login_id)).status == "waiting"
        except LoginNotFound:
            return False
        except McpAuthError:
            # The bot says why when the user has sent the form.
            return True

    def owner(self, user_id: str) -> Owner:
        """Return the owner of the tokens for this user's calls."""
        return self._context.owner(user_id)

    @with_hidden_locals
    def session(self, server_name: str, user_id: str) -> Session:
        """Return the session for calls on behalf of a user; raises ServerNotFound, ConfigError."""
        owner = self.owner(user_id)
        return self._context.service.session(self._context.servers_of(owner).find(server_name), owner)

    def server_names(self, user_id: str) -> list[str]:
        """Return the names of the servers that a user sees. Reads files; raises ConfigError, StoreError."""
        return self._context.servers_of(self.owner(user_id)).names()

    @contextmanager
    def prompt_in(
        self,
        sender: Sender,
        chat: Chat | None = None,
        wait_seconds: float = MAX_LOGIN_SECONDS,
        *,
        agent_continues: Callable[[], bool] | None = None,
    ) -> Generator[None]:
        """If a call inside the block needs a login, prompt this user in private.

        `chat` is the chat of the user's request, or None. If it is a group, the bot says there that it wrote
        privately. A call waits `wait_seconds` for the login, then raises AuthorizationRequired. After the
        login, the bot tells the user that the agent goes on, or to ask the agent again. Pass
        `agent_continues` if something else than the call waits for the login: it decides which.
        """
        private_chat = self._context.platform.private_chat(sender.user_id)
        prompt_chat = chat if chat is not None and chat.is_private else private_chat
        prompter = _ChatPrompter(self._context, sender, private_chat, chat, wait_seconds, agent_continues)
        may_change = self._context.policy.may_change(sender)
        # Without permission, the call gets no user id, so that no login starts.
        origin = prompt_chat.origin if may_change else replace(prompt_chat.origin, user_id="")
        can_connect_shared = may_change and self.owner(sender.user_id) is None
        with prompting(prompter, origin, wait_seconds, can_connect_shared=can_connect_shared, flow="auto"):
            try:
                yield
            except BaseException:
                prompter.wait_seconds = -1.0
                raise

    async def _reply_to_unknown_user(self, event: IncomingEvent, chat: Chat) -> None:
        now, user_id = self._context.clock(), event.sender.user_id
        self._unknown_users = {
            known_id: replied_at
            for known_id, replied_at in self._unknown_users.items()
            if replied_at > now - UNKNOWN_USER_REPLY_SECONDS
        }
        if user_id not in self._unknown_users:
            self._unknown_users[user_id] = now
            # Show no code in a group: another member could ask an administrator to approve that code.
            code = self._admission.request_code(user_id) if self._admission and chat.is_private else ""
            await chat.send(self._context.connection_renderer.unknown_user_card(user_id, code))

    async def _delete_messages(self, event: IncomingEvent, chat: Chat) -> None:
        await self._context.delete_messages(event, chat)

    async def _cancel_for_removed_user(self, login: Login, event: IncomingEvent, chat: Chat) -> None:
        await self._login_actions.cancel_and_delete_answer(login, event, chat)
        await self._reply_to_unknown_user(event, chat)

    async def _execute(  # noqa: C901  one case per intent
        self, intent: Intent, event: IncomingEvent, chat: Chat, error: McpAuthError | None
    ) -> None:
        if error is not None:
            await self._context.delete_messages(event, chat)
            raise error
        match intent:
            case Answer(login):
                await self._login_actions.submit_answer(login, event, chat)
            case WrongAddress(login):
                await self._login_actions.refuse_wrong_address(login, event, chat)
            case ExposedAnswer(login):
                await self._login_actions.handle_exposed_answer(login, event, chat)
            case UnmatchedAnswer():
                await self._login_actions.reject_unmatched_answer(event, chat)
            case RevokePerson(user_tag):
                if self._people_actions is not None and chat.is_private:
                    await self._people_actions.revoke(user_tag, event, chat)
            case StaleButton():
                await self._login_actions.answer_stale_button(event, chat)
            case Connect() | Disconnect() | ListConnections() | LoginCommand() | ContinueLogin():
                await self._execute_privately(intent, event, chat)
            case UnrelatedEvent():
                pass

    async def _execute_privately(self, intent: _PrivateIntent, event: IncomingEvent, chat: Chat) -> None:
        """Run an intent in the private chat with the user, even if it came from a group."""
        reply_chat = chat
        if not chat.is_private:
            reply_chat = self._context.platform.private_chat(event.sender.user_id)
            # The pressed message is not in the private chat.
            event = replace(event, pressed_message_id="")
        try:
            has_replied = await self._execute_in(reply_chat, intent, event, None if chat.is_private else chat)
        except CannotWrite:
            if chat.is_private:
                raise
            await self._context.invite_to_private_chat(chat)
            return
        if has_replied and not chat.is_private:
            await chat.send(Card(self._context.messages.wrote_privately))

    async def _execute_in(
        self, chat: Chat, intent: _PrivateIntent, event: IncomingEvent, source_chat: Chat | None
    ) -> bool:
        """Run an intent in a private chat; return False if the bot could only write to the group."""
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
    """Shows, in private, the logins that an agent's calls need. `PromptMessages` shows their outcome."""

    def __init__(
        self,
        context: Context,
        sender: Sender,
        private_chat: Chat,
        source_chat: Chat | None,
        wait_seconds: float,
        agent_continues: Callable[[], bool] | None,
    ) -> None:
        """`wait_seconds`: how long the agent's call waits for the login; below 0 if it does not wait."""
        self.wait_seconds = wait_seconds
        self._agent_continues = agent_continues
        self._context = context
        self._sender = sender
        self._private_chat = private_chat
        self._source_chat = source_chat

    async def show(self, login: Login) -> None:
        """Show a login; raises AuthorizationRequired if the platform fails, or if the user may not log in."""
        if not may_log_in(self._context.policy, self._sender, is_configured=not login.is_public_only):
            reason = "the user may not log in to this server"
            raise AuthorizationRequired(login.key.server_name, reason=reason)
        try:
            await self._show_in_chat(login)
        except ChatError as error:
            # The call gets an error that it expects; the log tells the operator that the chat failed.
            log.warning("A login to %s could not be shown: %s", login.key.server_name, error)
            reason = "the login could not be shown in the chat"
            raise AuthorizationRequired(login.key.server_name, reason=reason) from None

    async def _show_in_chat(self, login: Login) -> None:
        chat, group = self._private_chat, self._source_chat
        if group is not None and group.is_private:
            chat, group = group, None
        shown_at, clock = self._context.clock(), self._context.clock
        agent_continues = self._agent_continues or (lambda: clock() - shown_at <= self.wait_seconds)
        prompt_context = PromptContext("agent", group is None, agent_continues)
        try:
            await self._context.prompt_messages.show(login, chat, context=prompt_context)
        except CannotWrite:
            if group is None:
                raise
            await self._context.invite_to_private_chat(group, login)
            return
        if group is not None:
            await group.send(Card(self._context.messages.wrote_privately))

    async def show_outcome(self, login: Login, connection: Connection | None) -> None:  # noqa: ARG002  Prompter protocol
        """Wake `PromptMessages`, which reads the login and shows its outcome."""
        self._context.prompt_messages.wake()
