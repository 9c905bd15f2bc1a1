"""Logins in Telegram: one line for an application on python-telegram-bot, which then takes what is ours.

    service = AuthService(home(os.environ))
    logins = TelegramLogins(service, Configured(home(os.environ)), AllowList(users=frozenset({"42"})))
    application = ApplicationBuilder().token(token).build()
    logins.add_to(application)

    async def ask_agent(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        with logins.asking(update):  # a tool call that meets a 401 now asks this person, and waits
            auth = McpAuth(logins.session("linear", update))
            async with httpx2.AsyncClient(auth=auth) as client:
                await update.effective_message.reply_text(await run_agent(update, client))

    application.add_handler(MessageHandler(filters.TEXT, ask_agent, block=False))
    application.run_polling()

The agent's handler needs `block=False` (or the application `concurrent_updates(True)`): the library hands
over one update after the other, and the answer that the call waits for is one of them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Generator
from contextlib import contextmanager
from typing import Any

from telegram import Bot, Update
from telegram.ext import Application, ApplicationHandlerStop, CallbackContext, TypeHandler

from gateway_hooks.dialog.messages import ENGLISH, Messages
from gateway_hooks.dialog.platform import Capabilities, Chat, ChatError, IncomingEvent, Sender
from gateway_hooks.dialog.policy import Policy
from gateway_hooks.dialog.servers import Servers
from gateway_hooks.log_redaction import redact_logs
from gateway_hooks.runtime.dispatcher import Dispatcher, Work
from gateway_hooks.runtime.error_logging import log_errors
from gateway_hooks.runtime.message_sync import OnConnected
from gateway_hooks.telegram.api_calls import ApiCalls, Sleep
from gateway_hooks.telegram.chat import BusinessChat, TelegramChat
from gateway_hooks.telegram.updates import (
    PLATFORM,
    ParsedUpdate,
    parse_other_update,
    parse_update,
    parse_user_update,
)
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.sessions import Session
from hermes_mcp_auth_remote.values import MAX_LOGIN_SECONDS, Clock, Origin

TelegramApplication = Application[Any, Any, Any, Any, Any, Any]
HandlerContext = CallbackContext[Any, Any, Any, Any]

# Before any handler of the application's own: what carries a code is for no one else.
HANDLER_GROUP = -1000
# How soon after the application has stopped nothing of ours runs any more.
STOP_CHECK_SECONDS = 0.2
# After a fault of ours, before messages are kept up to date again.
RESTART_SECONDS = 5.0

log = logging.getLogger(__name__)


class _StartSignal:
    """The first thing in an application's queue: it runs now."""


class TelegramPlatform:
    """Telegram, by one bot."""

    def __init__(self, bot: Bot, sleep: Sleep) -> None:
        self._bot = bot
        self._api_calls = ApiCalls(sleep)

    @property
    def name(self) -> str:
        """The word in `Origin.platform`."""
        return PLATFORM

    @property
    def bot_id(self) -> str:
        """The bot's own id."""
        return str(self._bot.id)

    @property
    def capabilities(self) -> Capabilities:
        """What Telegram offers: no forms, but a bot may delete what a person wrote to it in private."""
        return Capabilities()

    def private_chat(self, user_id: str) -> Chat:
        """Return a person's chat with the bot: its number is the person's."""
        origin = Origin(PLATFORM, chat_id=user_id, user_id=user_id, bot_id=self.bot_id)
        return TelegramChat(self._bot, self._api_calls, origin, is_private=True)

    async def fetch_sender(self, user_id: str) -> Sender:
        """Return a user as they would be heard."""
        return Sender(user_id)

    def deep_link(self, payload: str) -> str | None:
        """Return the address that opens the private chat and has the person press Start."""
        return f"https://t.me/{self._bot.username}?start={payload}"

    def read_update(self, update: Update) -> tuple[IncomingEvent, TelegramChat] | None:
        """Return what an update says, and the chat for answering it; None where no person says anything."""
        found = parse_update(update, self.bot_id, self._bot.username)
        return None if found is None else (found.event, self._chat_for(found))

    def sender_and_chat(self, update: Update) -> tuple[Sender, TelegramChat] | None:
        """Return who sent an update, and where; None where no person did."""
        found = parse_user_update(update, self.bot_id, self._bot.username)
        return None if found is None else (found.event.sender, self._chat_for(found))

    def read_other_update(self, update: Update) -> tuple[IncomingEvent, TelegramChat] | None:
        """Return what may hold a code in an update that no person sends to the bot; None if nothing does."""
        found = parse_other_update(update, self.bot_id)
        return None if found is None else (found.event, self._chat_for(found))

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
    """The logins of one application's people."""

    def __init__(
        self,
        service: AuthService,
        servers: Servers,
        policy: Policy,
        messages: Messages = ENGLISH,
        *,
        clock: Clock = time.time,
        sleep: Sleep = asyncio.sleep,
        on_connected: OnConnected | None = None,
    ) -> None:
        """Keep what the logins are about, and guard the log; nothing else happens before `add_to`.

        From now on no record of the library's shows a bot's token or a code: best before the application is
        built. `clock` is in epoch seconds; `sleep` waits where Telegram asks for it.
        """
        redact_logs()
        self._dispatcher_arguments = (service, servers, policy, messages, clock, on_connected)
        self._sleep = sleep
        self._installation: tuple[TelegramApplication, TelegramPlatform, Dispatcher] | None = None
        self._dispatcher_task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def add_to(self, application: TelegramApplication, group: int = HANDLER_GROUP) -> None:
        """Take from now on what is ours of this application's updates, and keep messages up to date.

        Commands, presses and codes that are ours go to no other handler; everything else goes on untouched. A
        handler in a group below ours would see codes. Call it before the application runs; it may then be run
        in any way.
        """
        service, servers, policy, words, clock, on_connected = self._dispatcher_arguments
        platform = TelegramPlatform(application.bot, self._sleep)
        desk = Dispatcher(service, platform, servers, policy, words, clock, on_connected)
        self._installation = application, platform, desk
        # `block` is said although it is the default: the application may have set another.
        application.add_handler(TypeHandler(object, self._handle_update, block=True), group)
        application.update_queue.put_nowait(_StartSignal())

    @property
    def dispatcher(self) -> Dispatcher:
        """What drives the conversation; raises RuntimeError before `add_to`."""
        return self._installed[2]

    @property
    def _installed(self) -> tuple[TelegramApplication, TelegramPlatform, Dispatcher]:
        if self._installation is None:
            raise RuntimeError("Call add_to(application) first.")
        return self._installation

    @contextmanager
    def prompt_in(self, update: Update, wait_seconds: float = MAX_LOGIN_SECONDS) -> Generator[None]:
        """Let calls inside the block ask whoever sent the update, in private, where a login is needed.

        A call waits so many seconds, then raises AuthorizationRequired. Nobody is asked where no person sent
        the update.
        """
        _, platform, desk = self._installed
        found = platform.sender_and_chat(update)
        if found is None:
            yield
            return
        sender, chat = found
        with desk.prompt_in(sender, chat, wait_seconds):
            yield

    def session(self, server_name: str, update: Update) -> Session:
        """Return the session for calls on behalf of whoever sent the update.

        Raises ServerNotFound, ConfigError, and ValueError where no person did.
        """
        _, platform, desk = self._installed
        # Not the update's effective user: in a group that may stand for all who write in the group's name.
        found = platform.sender_and_chat(update)
        if found is None:
            raise ValueError("Nobody sent this update.")
        return desk.session(server_name, found[0].user_id)

    async def help(self, update: Update, _context: HandlerContext) -> None:
        """Say what can be typed: a callback for handlers of /start and /help."""
        _, platform, desk = self._installed
        found = platform.read_update(update)
        if found is not None:
            heard, chat = found
            try:
                await desk.send_help(heard, chat)
            except ChatError as trouble:
                log.warning("A message could not be answered: %s", trouble)

    async def _handle_update(self, update: object, _context: HandlerContext) -> None:
        application, _, _ = self._installed
        self._ensure_running(application)
        # What cannot be searched for a code goes to nobody.
        is_ours = True
        if not isinstance(update, _StartSignal):
            with log_errors("An update was not read", log):
                is_ours = isinstance(update, Update) and await self._claim_update(update)
        if is_ours:
            raise ApplicationHandlerStop

    async def _claim_update(self, update: Update) -> bool:
        """Begin what is to be done about an update; False if it is not ours."""
        application, platform, desk = self._installed
        found = platform.read_update(update) or platform.read_other_update(update)
        if found is None:
            return False
        work = await desk.plan(*found)
        if work is None:
            return False
        self._start_task(application, _run_work(work, found[1]))
        return True

    def _start_task(
        self, application: TelegramApplication, coroutine: Coroutine[Any, Any, None]
    ) -> asyncio.Task[None]:
        """Do something beside the updates to come; a stopping application waits for it."""
        if application.running:
            # Without the update: an error handler may print it, and with it a code.
            return application.create_task(coroutine)
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _ensure_running(self, application: TelegramApplication) -> None:
        if application.running and (self._dispatcher_task is None or self._dispatcher_task.done()):
            self._dispatcher_task = self._start_task(application, self._run_dispatcher(application))

    async def _run_dispatcher(self, application: TelegramApplication) -> None:
        """Keep messages up to date while the application runs, whoever starts and stops it."""
        board = asyncio.create_task(self.dispatcher.run())
        try:
            while application.running:
                await asyncio.wait({board}, timeout=STOP_CHECK_SECONDS)
                if board.done():
                    log.error(
                        "Messages are not kept up to date: a fault of ours.", exc_info=board.exception()
                    )
                    await self._sleep(RESTART_SECONDS)
                    board = asyncio.create_task(self.dispatcher.run())
        finally:
            board.cancel()
            await asyncio.gather(board, return_exceptions=True)


async def _run_work(work: Work, chat: TelegramChat) -> None:
    # Raised, it would go to the error handlers of the application.
    with log_errors("A message was not answered", log):
        try:
            await work()
        finally:
            # A button turns until its press is answered.
            await chat.show_toast("")
