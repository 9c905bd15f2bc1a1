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

from gateway_hooks.dialog.messages import ENGLISH, Words
from gateway_hooks.dialog.platform import Abilities, Chat, ChatError, Heard, Sender
from gateway_hooks.dialog.policy import Policy
from gateway_hooks.dialog.servers import Servers
from gateway_hooks.log_redaction import redact_logs
from gateway_hooks.runtime.dispatcher import Desk, Work
from gateway_hooks.runtime.error_logging import contained
from gateway_hooks.runtime.message_sync import OnConnected
from gateway_hooks.telegram.api_calls import Calls, Sleep
from gateway_hooks.telegram.chat import BusinessChat, TelegramChat
from gateway_hooks.telegram.updates import PLATFORM, Read, overheard, read, whose
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.sessions import Session
from hermes_mcp_auth_remote.values import MAX_LOGIN_SECONDS, Clock, Origin

App = Application[Any, Any, Any, Any, Any, Any]
Context = CallbackContext[Any, Any, Any, Any]

# Before any handler of the application's own: what carries a code is for no one else.
FIRST = -1000
# How soon after the application has stopped nothing of ours runs any more.
STOP_SECONDS = 0.2
# After a fault of ours, before messages are kept up to date again.
AGAIN_SECONDS = 5.0

log = logging.getLogger(__name__)


class _Begin:
    """The first thing in an application's queue: it runs now."""


class TelegramPlatform:
    """Telegram, by one bot."""

    def __init__(self, bot: Bot, sleep: Sleep) -> None:
        self._bot = bot
        self._calls = Calls(sleep)

    @property
    def name(self) -> str:
        """The word in `Origin.platform`."""
        return PLATFORM

    @property
    def bot(self) -> str:
        """The bot's own id."""
        return str(self._bot.id)

    @property
    def can(self) -> Abilities:
        """What Telegram offers: no forms, but a bot may delete what a person wrote to it in private."""
        return Abilities()

    def private_chat(self, user: str) -> Chat:
        """Return a person's chat with the bot: its number is the person's."""
        origin = Origin(PLATFORM, chat=user, user=user, bot=self.bot)
        return TelegramChat(self._bot, self._calls, origin, is_private=True)

    async def sender(self, user: str) -> Sender:
        """Return a user as they would be heard."""
        return Sender(user)

    def invitation(self, payload: str) -> str | None:
        """Return the address that opens the private chat and has the person press Start."""
        return f"https://t.me/{self._bot.username}?start={payload}"

    def read(self, update: Update) -> tuple[Heard, TelegramChat] | None:
        """Return what an update says, and the chat for answering it; None where no person says anything."""
        found = read(update, self.bot, self._bot.username)
        return None if found is None else (found.heard, self._chat(found))

    def whose(self, update: Update) -> tuple[Sender, TelegramChat] | None:
        """Return who sent an update, and where; None where no person did."""
        found = whose(update, self.bot, self._bot.username)
        return None if found is None else (found.heard.sender, self._chat(found))

    def overhear(self, update: Update) -> tuple[Heard, TelegramChat] | None:
        """Return what may hold a code in an update that no person sends to the bot; None if nothing does."""
        found = overheard(update, self.bot)
        return None if found is None else (found.heard, self._chat(found))

    def _chat(self, found: Read) -> TelegramChat:
        if found.business:
            return BusinessChat(self._bot, self._calls, found.origin, found.business)
        return TelegramChat(
            self._bot, self._calls, found.origin, is_private=found.is_private, query=found.query
        )


class TelegramLogins:
    """The logins of one application's people."""

    def __init__(
        self,
        service: AuthService,
        servers: Servers,
        policy: Policy,
        words: Words = ENGLISH,
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
        self._parts = (service, servers, policy, words, clock, on_connected)
        self._sleep = sleep
        self._added: tuple[App, TelegramPlatform, Desk] | None = None
        self._living: asyncio.Task[None] | None = None
        self._working: set[asyncio.Task[None]] = set()

    def add_to(self, application: App, group: int = FIRST) -> None:
        """Take from now on what is ours of this application's updates, and keep messages up to date.

        Commands, presses and codes that are ours go to no other handler; everything else goes on untouched. A
        handler in a group below ours would see codes. Call it before the application runs; it may then be run
        in any way.
        """
        service, servers, policy, words, clock, on_connected = self._parts
        platform = TelegramPlatform(application.bot, self._sleep)
        desk = Desk(service, platform, servers, policy, words, clock, on_connected)
        self._added = application, platform, desk
        # `block` is said although it is the default: the application may have set another.
        application.add_handler(TypeHandler(object, self._first, block=True), group)
        application.update_queue.put_nowait(_Begin())

    @property
    def desk(self) -> Desk:
        """What drives the conversation; raises RuntimeError before `add_to`."""
        return self._all[2]

    @property
    def _all(self) -> tuple[App, TelegramPlatform, Desk]:
        if self._added is None:
            raise RuntimeError("Call add_to(application) first.")
        return self._added

    @contextmanager
    def asking(self, update: Update, wait_seconds: float = MAX_LOGIN_SECONDS) -> Generator[None]:
        """Let calls inside the block ask whoever sent the update, in private, where a login is needed.

        A call waits so many seconds, then raises AuthorizationRequired. Nobody is asked where no person sent
        the update.
        """
        _, platform, desk = self._all
        found = platform.whose(update)
        if found is None:
            yield
            return
        sender, chat = found
        with desk.asking(sender, chat, wait_seconds):
            yield

    def session(self, server: str, update: Update) -> Session:
        """Return the session for calls on behalf of whoever sent the update.

        Raises ServerNotFound, ConfigError, and ValueError where no person did.
        """
        _, platform, desk = self._all
        # Not the update's effective user: in a group that may stand for all who write in the group's name.
        found = platform.whose(update)
        if found is None:
            raise ValueError("Nobody sent this update.")
        return desk.session(server, found[0].user)

    async def help(self, update: Update, _context: Context) -> None:
        """Say what can be typed: a callback for handlers of /start and /help."""
        _, platform, desk = self._all
        found = platform.read(update)
        if found is not None:
            heard, chat = found
            try:
                await desk.help(heard, chat)
            except ChatError as trouble:
                log.warning("A message could not be answered: %s", trouble)

    async def _first(self, update: object, _context: Context) -> None:
        application, _, _ = self._all
        self._live(application)
        # What cannot be searched for a code goes to nobody.
        is_ours = True
        if not isinstance(update, _Begin):
            with contained("An update was not read", log):
                is_ours = isinstance(update, Update) and await self._take(update)
        if is_ours:
            raise ApplicationHandlerStop

    async def _take(self, update: Update) -> bool:
        """Begin what is to be done about an update; False if it is not ours."""
        application, platform, desk = self._all
        found = platform.read(update) or platform.overhear(update)
        if found is None:
            return False
        work = await desk.heed(*found)
        if work is None:
            return False
        self._begin(application, _answered(work, found[1]))
        return True

    def _begin(self, application: App, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something beside the updates to come; a stopping application waits for it."""
        if application.running:
            # Without the update: an error handler may print it, and with it a code.
            return application.create_task(work)
        task = asyncio.create_task(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        return task

    def _live(self, application: App) -> None:
        if application.running and (self._living is None or self._living.done()):
            self._living = self._begin(application, self._run(application))

    async def _run(self, application: App) -> None:
        """Keep messages up to date while the application runs, whoever starts and stops it."""
        board = asyncio.create_task(self.desk.run())
        try:
            while application.running:
                await asyncio.wait({board}, timeout=STOP_SECONDS)
                if board.done():
                    log.error(
                        "Messages are not kept up to date: a fault of ours.", exc_info=board.exception()
                    )
                    await self._sleep(AGAIN_SECONDS)
                    board = asyncio.create_task(self.desk.run())
        finally:
            board.cancel()
            await asyncio.gather(board, return_exceptions=True)


async def _answered(work: Work, chat: TelegramChat) -> None:
    # Raised, it would go to the error handlers of the application.
    with contained("A message was not answered", log):
        try:
            await work()
        finally:
            # A button turns until its press is answered.
            await chat.note("")
