"""Add MCP logins to a bot on python-telegram-bot with one call, `TelegramLogins.from_home`.

    application = ApplicationBuilder().token(token).build()
    logins = TelegramLogins.from_home(application, users={42})

    async def ask_agent(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        with logins.prompt_in(update):  # a tool call that gets a 401 asks this user to log in, and waits
            auth = McpAuth(logins.session("linear", update))
            async with httpx2.AsyncClient(auth=auth) as client:
                await update.effective_message.reply_text(await run_agent(update, client))

    application.add_handler(MessageHandler(filters.TEXT, ask_agent, block=False))
    application.run_polling()

The agent's handler needs `block=False`, or the application needs `concurrent_updates(True)`. By default, the
library processes one update after the other, and the call waits for an answer that is a later update.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import Coroutine, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from telegram import Bot, Update
from telegram.ext import (
    Application,
    ApplicationHandlerStop,
    BaseHandler,
    CallbackContext,
    CommandHandler,
    ConversationHandler,
    PrefixHandler,
    TypeHandler,
)

from gateway_hooks.dialog.intents import COMMANDS
from gateway_hooks.dialog.messages import ENGLISH, Messages
from gateway_hooks.dialog.platform import Capabilities, Chat, ChatError, IncomingEvent, Sender
from gateway_hooks.dialog.policy import AllowList, Policy, UserIds
from gateway_hooks.dialog.servers import Servers
from gateway_hooks.log_redaction import redact_logs
from gateway_hooks.runtime.config_servers import ConfigServers
from gateway_hooks.runtime.dispatcher import Dispatcher, Work
from gateway_hooks.runtime.error_logging import log_errors
from gateway_hooks.runtime.message_sync import OnConnected
from gateway_hooks.telegram.api_calls import ApiCalls, Sleep
from gateway_hooks.telegram.chat import BusinessChat, TelegramChat
from gateway_hooks.telegram.menu import add_menu_commands
from gateway_hooks.telegram.updates import (
    PLATFORM,
    ParsedUpdate,
    parse_other_update,
    parse_update,
    parse_user_update,
)
from hermes_mcp_auth_remote.hermes_home import hermes_home
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.sessions import Session
from hermes_mcp_auth_remote.values import MAX_LOGIN_SECONDS, Clock, Origin, OwnershipMode

TelegramApplication = Application[Any, Any, Any, Any, Any, Any]
HandlerContext = CallbackContext[Any, Any, Any, Any]

# This group runs before the application's own handlers, which must not receive codes.
HANDLER_GROUP = -1000
# How often the dispatcher checks whether the application has stopped.
STOP_CHECK_SECONDS = 0.2
# The delay before the dispatcher restarts after an internal error.
RESTART_SECONDS = 5.0

log = logging.getLogger(__name__)
# The builder of an application logs the bot token at level DEBUG, and `from_home` gets an application that is
# already built. So redact the logs when this module is imported.
redact_logs()


class _StartSignal:
    """The first item in the application's queue: signals that the application runs."""


class TelegramPlatform:
    """The Telegram platform, connected through one bot."""

    def __init__(self, bot: Bot, sleep: Sleep, command_prefix: str = "/") -> None:
        self._bot = bot
        self._api_calls = ApiCalls(sleep)
        self._capabilities = Capabilities(command_prefix=command_prefix)

    @property
    def name(self) -> str:
        """The value of `Origin.platform`."""
        return PLATFORM

    @property
    def bot_id(self) -> str:
        """The bot's own id."""
        return str(self._bot.id)

    @property
    def capabilities(self) -> Capabilities:
        """The features of Telegram: no forms, but a bot may delete a user's private messages."""
        return self._capabilities

    def private_chat(self, user_id: str) -> Chat:
        """Return a user's private chat with the bot. Its id is the user's id."""
        origin = Origin(PLATFORM, chat_id=user_id, user_id=user_id, bot_id=self.bot_id)
        return TelegramChat(self._bot, self._api_calls, origin, is_private=True)

    async def fetch_sender(self, user_id: str) -> Sender:
        """Return the same Sender as an event from this user has."""
        return Sender(user_id)

    def deep_link(self, payload: str) -> str | None:
        """Return the URL that opens the private chat with a Start button."""
        return f"https://t.me/{self._bot.username}?start={payload}"

    def read_update(self, update: Update) -> tuple[IncomingEvent, TelegramChat] | None:
        """Return the event of an update and the chat for the reply; None if it contains no user's event."""
        parsed = parse_update(update, self.bot_id, self._bot.username, self._capabilities.command_prefix)
        return None if parsed is None else (parsed.event, self._chat_for(parsed))

    def sender_and_chat(self, update: Update) -> tuple[Sender, TelegramChat] | None:
        """Return the sender and the chat of an update; None if no user sent it."""
        parsed = parse_user_update(update, self.bot_id, self._bot.username, self._capabilities.command_prefix)
        return None if parsed is None else (parsed.event.sender, self._chat_for(parsed))

    def read_other_update(self, update: Update) -> tuple[IncomingEvent, TelegramChat] | None:
        """Return the event of an update that no user sent to the bot; None if it cannot contain a code."""
        parsed = parse_other_update(update, self.bot_id)
        return None if parsed is None else (parsed.event, self._chat_for(parsed))

    def _chat_for(self, parsed_update: ParsedUpdate) -> TelegramChat:
        if parsed_update.business_connection_id:
            return BusinessChat(
                self._bot, self._api_calls, parsed_update.origin, parsed_update.business_connection_id
            )
        return TelegramChat(
            self._bot,
            self._api_calls,
            parsed_update.origin,
            is_private=parsed_update.is_private,
            query=parsed_update.query,
        )


class TelegramLogins:
    """Handles the logins of one application's users."""

    def __init__(  # noqa: PLR0913  one parameter per choice of the application
        self,
        service: AuthService,
        servers: Servers,
        policy: Policy,
        messages: Messages = ENGLISH,
        *,
        clock: Clock = time.time,
        sleep: Sleep = asyncio.sleep,
        on_connected: OnConnected | None = None,
        command_prefix: str = "/",
        answers_all: bool = False,
    ) -> None:
        """Redact the logs of the library. Everything else starts with `add_to`.

        Create this object before you build the application, so that no log record shows the bot token or a
        code. `clock` returns epoch seconds. `sleep` waits when Telegram limits the rate of calls.
        `command_prefix` precedes each command's name: "/", or for example "/mcp_" if the application has its
        own /connect. With `answers_all`, the bot also answers the messages that concern no login: set it for
        a bot with no other job.

        Raises ValueError if Telegram does not allow the prefix in a command.
        """
        if not re.fullmatch(r"/[a-z0-9_]{0,20}", command_prefix):
            raise ValueError('command_prefix is "/" and at most 20 of a-z, 0-9 and _, such as "/mcp_".')
        redact_logs()
        self._command_prefix = command_prefix
        self._answers_all = answers_all
        self._messages = messages
        self._sets_menu = False
        self._dispatcher_arguments = (service, servers, policy, messages, clock, on_connected)
        self._sleep = sleep
        self._installation: tuple[TelegramApplication, TelegramPlatform, Dispatcher] | None = None
        self._dispatcher_task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    def from_home(
        cls,
        application: TelegramApplication,
        users: UserIds = (),
        *,
        admins: UserIds | None = None,
        owners: OwnershipMode = "shared",
        connect_urls: bool | None = None,
        home: Path | None = None,
        command_prefix: str = "/",
    ) -> TelegramLogins:
        """Add logins for these users to an application, with the servers and the store of HERMES_HOME.

        `home` replaces HERMES_HOME. The other arguments are those of `AllowList`, `TelegramLogins` and
        `add_to`; the command menu is set. Raises ConfigError if there is no home directory.
        """
        directory = Path(hermes_home(os.environ)) if home is None else home
        policy = AllowList(users, admins, owners=owners, connect_urls=connect_urls)
        logins = cls(AuthService(directory), ConfigServers(directory), policy, command_prefix=command_prefix)
        logins.add_to(application, sets_menu=True)
        return logins

    def add_to(
        self, application: TelegramApplication, group: int = HANDLER_GROUP, *, sets_menu: bool = False
    ) -> None:
        """Handle the login updates of this application, and keep the messages of logins up to date.

        Updates with login commands, login buttons or codes reach no other handler; all other updates do. A
        handler in a group below `group` would see codes. Call this method before the application runs (by
        `run_polling` or in any other way). With `sets_menu`, the commands are added to the bot's menu.

        Raises ValueError if the application handles a command of the same name. If it adds such a handler
        later, `run_polling` and `run_webhook` raise this error. An application that starts in another way
        passes the error to its error handlers, which log it if there are none.
        """
        _refuse_command_clash(application, self._command_prefix)
        # The application may have created loggers and handlers since `__init__`.
        redact_logs()
        service, servers, policy, messages, clock, on_connected = self._dispatcher_arguments
        platform = TelegramPlatform(application.bot, self._sleep, self._command_prefix)
        dispatcher = Dispatcher(
            service,
            platform,
            servers,
            policy,
            messages,
            clock,
            on_connected,
            answers_all=self._answers_all,
        )
        self._installation = application, platform, dispatcher
        _check_commands_before_start(application, self._command_prefix)
        self._sets_menu = sets_menu
        # `block` is explicit, because the application may have changed the default.
        application.add_handler(TypeHandler(object, self._handle_update, block=True), group)
        application.update_queue.put_nowait(_StartSignal())

    @property
    def dispatcher(self) -> Dispatcher:
        """The dispatcher of this application; raises RuntimeError before `add_to`."""
        return self._installed[2]

    @property
    def _installed(self) -> tuple[TelegramApplication, TelegramPlatform, Dispatcher]:
        if self._installation is None:
            raise RuntimeError("Call add_to(application) first.")
        return self._installation

    @contextmanager
    def prompt_in(self, update: Update, wait_seconds: float = MAX_LOGIN_SECONDS) -> Generator[None]:
        """If a call inside the block needs a login, ask the sender of the update in private to log in.

        A call waits `wait_seconds` for the login, then raises AuthorizationRequired. If no user sent the
        update, calls prompt no user. Raises RuntimeError in a handler that blocks the application: the
        application could not fetch the answer.
        """
        application, platform, dispatcher = self._installed
        _refuse_blocking_handler(application)
        sender_and_chat = platform.sender_and_chat(update)
        if sender_and_chat is None:
            yield
            return
        sender, chat = sender_and_chat
        with dispatcher.prompt_in(sender, chat, wait_seconds):
            yield

    def session(self, server_name: str, update: Update) -> Session:
        """Return the session for calls on behalf of the sender of the update.

        Raises ServerNotFound, ConfigError, and ValueError if no user sent the update.
        """
        _, platform, dispatcher = self._installed
        # Do not use `update.effective_user`: all users who write in a group's name share one id there.
        sender_and_chat = platform.sender_and_chat(update)
        if sender_and_chat is None:
            raise ValueError("No user sent this update.")
        return dispatcher.session(server_name, sender_and_chat[0].user_id)

    async def help(self, update: Update, _context: HandlerContext) -> None:
        """Send the list of commands. Use it as the callback of handlers for /start and /help."""
        _, platform, dispatcher = self._installed
        event_and_chat = platform.read_update(update)
        if event_and_chat is not None:
            event, chat = event_and_chat
            try:
                await dispatcher.send_help(event, chat)
            except ChatError as error:
                log.warning("A message could not be answered: %s", error)

    async def _handle_update(self, update: object, _context: HandlerContext) -> None:
        application, _, _ = self._installed
        is_first = self._dispatcher_task is None and application.running
        self._ensure_running(application)
        if is_first:
            self._check_once(application)
            await self._report_command_clash(application)
        # An update that cannot be searched for codes reaches no other handler.
        is_ours = True
        if not isinstance(update, _StartSignal):
            with log_errors("An update was not read", log):
                is_ours = isinstance(update, Update) and await self._claim_update(update)
        if is_ours:
            raise ApplicationHandlerStop

    async def _claim_update(self, update: Update) -> bool:
        """Start the work for an update; return False if it belongs to the application."""
        application, platform, dispatcher = self._installed
        event_and_chat = platform.read_update(update) or platform.read_other_update(update)
        if event_and_chat is None:
            return False
        work = await dispatcher.plan(*event_and_chat)
        if work is None:
            return False
        self._start_task(application, _run_work(work, event_and_chat[1]))
        return True

    def _start_task(
        self, application: TelegramApplication, coroutine: Coroutine[Any, Any, None]
    ) -> asyncio.Task[None]:
        """Run a coroutine concurrently with later updates. The application waits for it when it stops."""
        if application.running:
            # Do not pass the update: an error handler may print it with the code.
            return application.create_task(coroutine)
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _ensure_running(self, application: TelegramApplication) -> None:
        if application.running and (self._dispatcher_task is None or self._dispatcher_task.done()):
            self._dispatcher_task = self._start_task(application, self._run_dispatcher(application))

    def _check_once(self, application: TelegramApplication) -> None:
        """Set the command menu and redact new logs."""
        redact_logs()
        if self._sets_menu:
            menu = add_menu_commands(application.bot, self._messages, self._command_prefix)
            self._start_task(application, menu)

    async def _report_command_clash(self, application: TelegramApplication) -> None:
        """Report a clash of commands to the application's error handlers.

        The application may have added handlers since `add_to`, and may not have called `post_init`.
        """
        try:
            _refuse_command_clash(application, self._command_prefix)
        except ValueError as error:
            await application.process_error(None, error)

    async def _run_dispatcher(self, application: TelegramApplication) -> None:
        """Run the dispatcher while the application runs; restart it after an internal error."""
        run_task = asyncio.create_task(self.dispatcher.run())
        try:
            while application.running:
                await asyncio.wait({run_task}, timeout=STOP_CHECK_SECONDS)
                if run_task.done():
                    log.error(
                        "Messages are not kept up to date (internal error).", exc_info=run_task.exception()
                    )
                    await self._sleep(RESTART_SECONDS)
                    run_task = asyncio.create_task(self.dispatcher.run())
        finally:
            run_task.cancel()
            await asyncio.gather(run_task, return_exceptions=True)


async def _run_work(work: Work, chat: TelegramChat) -> None:
    # An error must not reach the application's error handlers.
    with log_errors("A message was not answered", log):
        try:
            await work()
        finally:
            # A pressed button shows a spinner until the press is answered.
            await chat.show_toast("")


def _check_commands_before_start(application: TelegramApplication, command_prefix: str) -> None:
    """Let `run_polling` and `run_webhook` raise ValueError for a clash, after the application's own hook."""
    own_post_init = application.post_init

    async def check_commands(initialized_application: TelegramApplication) -> None:
        if own_post_init is not None:
            await own_post_init(initialized_application)
        _refuse_command_clash(initialized_application, command_prefix)

    application.post_init = check_commands


def _refuse_command_clash(application: TelegramApplication, command_prefix: str) -> None:
    """Raise ValueError if a handler of the application would never get its command: this package takes it."""
    own_names = {f"{command_prefix.removeprefix('/')}{name}" for name in COMMANDS - {"start"}}
    for handlers in application.handlers.values():
        if clashing_names := own_names & _command_names(handlers):
            raise ValueError(
                f"This application handles /{min(clashing_names)} itself. "
                'Pass another command_prefix to TelegramLogins, such as "/mcp_".'
            )


def _command_names(handlers: Iterable[BaseHandler[Any, Any, Any]]) -> set[str]:
    """Return the names of the commands that start these handlers, without the slash."""
    names = set[str]()
    for handler in handlers:
        if isinstance(handler, CommandHandler):
            names |= handler.commands
        elif isinstance(handler, PrefixHandler):
            names |= {command.removeprefix("/") for command in handler.commands if command.startswith("/")}
        elif isinstance(handler, ConversationHandler):
            states = (other for others in handler.states.values() for other in others)
            names |= _command_names([*handler.entry_points, *states, *handler.fallbacks])
    return names


def _refuse_blocking_handler(application: TelegramApplication) -> None:
    """Raise RuntimeError in the task that fetches updates: it must stay free to fetch the user's answer."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return
    if task is not None and task.get_name() == f"Application:{application.bot.id}:update_fetcher":
        raise RuntimeError(
            "This handler would wait for an update that the application cannot fetch meanwhile. Add the "
            "handler with block=False, or build the application with concurrent_updates(True)."
        )
