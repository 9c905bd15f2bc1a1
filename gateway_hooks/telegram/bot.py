"""A bot for logins and nothing else: polls Telegram, or takes what Telegram sends, until it is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import time
from collections.abc import Callable, Collection, Generator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from telegram import BotCommand, Update
from telegram.error import Conflict, InvalidToken, NetworkError, TelegramError
from telegram.ext import ApplicationBuilder, CommandHandler, filters
from telegram.request import HTTPXRequest

from gateway_hooks.dialog.messages import ENGLISH, Messages
from gateway_hooks.dialog.platform import ChatError
from gateway_hooks.dialog.policy import Policy
from gateway_hooks.dialog.servers import Servers
from gateway_hooks.log_redaction import redact_logs
from gateway_hooks.runtime.message_sync import OnConnected
from gateway_hooks.telegram import TelegramApplication, TelegramLogins
from gateway_hooks.telegram.api_calls import refusal_reason
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.traceback_redaction import with_hidden_locals
from hermes_mcp_auth_remote.values import Clock, Secret

POLL_TIMEOUT_SECONDS = 30
MAX_PAUSE_SECONDS = 30.0
# More than Telegram's thirty messages a second need; each call looks through all that are open.
MAX_CONNECTIONS = 16
# The library's one second would lose messages when many people come at once.
POOL_TIMEOUT_SECONDS = 30.0
# What Telegram refuses of an address it refuses again.
WEBHOOK_TRIES = 2
# Until the library has noticed what its poll was answered.
POLL_END_SECONDS = 0.1
# Of channels and business chats nothing is heard but codes, which are deleted.
ALLOWED_UPDATES = [
    Update.MESSAGE,
    Update.EDITED_MESSAGE,
    Update.CALLBACK_QUERY,
    Update.CHANNEL_POST,
    Update.EDITED_CHANNEL_POST,
    Update.BUSINESS_MESSAGE,
    Update.EDITED_BUSINESS_MESSAGE,
]

WRONG_TOKEN_MESSAGE = "Telegram does not take this bot's token: copy it anew from BotFather."  # noqa: S105  a sentence
# After these the library polls no more, and tells nobody.
_POLL_ENDING_STATUSES = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND})

log = logging.getLogger(__name__)


class _Request(HTTPXRequest):
    """Says when Telegram may take the token no more: a bot that hears nobody is not to go on as if it did."""

    def __init__(self, token_doubt: asyncio.Event, statuses: Collection[int], max_connections: int) -> None:
        super().__init__(connection_pool_size=max_connections, pool_timeout=POOL_TIMEOUT_SECONDS)
        self.is_token_refused = False
        self._token_doubt = token_doubt
        self._statuses = statuses

    async def do_request(self, *args: Any, **kwargs: Any) -> tuple[int, bytes]:  # noqa: ANN401  the library's
        """Make a request as the library does."""
        status, body = await super().do_request(*args, **kwargs)
        if status in self._statuses:
            self.is_token_refused = True
            self._token_doubt.set()
        return status, body


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where Telegram sends updates: `url` is public and https; `listen` and `port` are where we take them.

    What stands before us ends TLS, unless `certificate` and `key` (PEM files) are given: then we do. Telegram
    is given the certificate, which may be self-signed. It says `secret` with each update, a random one unless
    told.
    """

    url: str
    listen: str = "127.0.0.1"
    port: int = 8443
    secret: Secret | None = None
    certificate: Path | None = None
    key: Path | None = None


@with_hidden_locals
async def run_bot(  # noqa: PLR0913  one line for each choice of the operator's
    token: Secret,
    service: AuthService,
    servers: Servers,
    policy: Policy,
    *,
    api_url: str | None = None,
    webhook: Webhook | None = None,
    messages: Messages = ENGLISH,
    on_started: Callable[[str], None] | None = None,
    clock: Clock = time.time,
    on_connected: OnConnected | None = None,
) -> None:
    """Run until cancelled. `api_url` is a Bot API server of one's own; `started` hears the bot's name.

    Raises ChatError where Telegram does not take the token, or no longer, or webhooks need what is not
    installed.
    """
    redact_logs()
    builder = ApplicationBuilder().token(token.reveal())
    doubt = asyncio.Event()
    called = _Request(doubt, {HTTPStatus.UNAUTHORIZED}, MAX_CONNECTIONS)
    # As the poll that waits is given up, another one says what has been taken.
    polled = _Request(doubt, _POLL_ENDING_STATUSES, 2)
    builder = builder.request(called).get_updates_request(polled)
    if api_url is not None:
        base = api_url.rstrip("/")
        builder = builder.base_url(f"{base}/bot").base_file_url(f"{base}/file/bot")
    application: TelegramApplication = builder.build()
    logins = TelegramLogins(service, servers, policy, messages, clock=clock, on_connected=on_connected)
    logins.add_to(application)
    of_new_messages = filters.UpdateType.MESSAGE
    application.add_handler(CommandHandler(["start", "help"], logins.help, filters=of_new_messages))
    try:
        await _initialize(application)
        await application.start()
        await _start_updates(application, webhook)
        if on_started is not None:
            on_started(application.bot.username)
        await _set_menu_commands(application, messages)
        await _wait_until_token_refused(application, doubt, polled)
        with _silence_library_logs():
            # The library's own poll comes to its end meanwhile.
            await asyncio.sleep(POLL_END_SECONDS)
        raise ChatError(WRONG_TOKEN_MESSAGE)
    finally:
        await _stop(application)


async def _wait_until_token_refused(
    application: TelegramApplication, token_doubt: asyncio.Event, poll_request: _Request
) -> None:
    """Return once Telegram takes the token no more: the poll has ended, or a call failed and another does."""
    while True:
        await token_doubt.wait()
        token_doubt.clear()
        if poll_request.is_token_refused:
            return
        try:
            # Something between us and Telegram may say so, too.
            await application.bot.get_me()
        except InvalidToken:
            return
        except TelegramError:
            continue


async def _initialize(application: TelegramApplication) -> None:
    """Learn who the bot is, however long Telegram cannot be reached; raises ChatError for a wrong token."""
    pause = 1.0
    while True:
        try:
            await application.initialize()
        except InvalidToken:
            # The library's own text holds the token.
            raise ChatError(WRONG_TOKEN_MESSAGE) from None
        except NetworkError:
            if pause == 1.0:
                log.warning("Telegram cannot be reached; trying again until it can.")
            await asyncio.sleep(pause)
            pause = min(2 * pause, MAX_PAUSE_SECONDS)
        else:
            return


async def _start_updates(application: TelegramApplication, webhook: Webhook | None) -> None:
    updater = application.updater
    if updater is None:
        raise ChatError("This application hears nothing.")
    if webhook is None:
        await updater.start_polling(
            poll_interval=0,
            timeout=POLL_TIMEOUT_SECONDS,
            bootstrap_retries=-1,
            allowed_updates=ALLOWED_UPDATES,
            error_callback=_PollingErrorLogger(),
        )
        return
    _check_port(webhook.listen, webhook.port)
    secret = webhook.secret or Secret(secrets.token_urlsafe(32))
    try:
        await updater.start_webhook(
            listen=webhook.listen,
            port=webhook.port,
            url_path=urlsplit(webhook.url).path.lstrip("/"),
            webhook_url=webhook.url,
            secret_token=secret.reveal(),
            cert=webhook.certificate,
            key=webhook.key,
            bootstrap_retries=WEBHOOK_TRIES,
            allowed_updates=ALLOWED_UPDATES,
        )
    except RuntimeError:
        raise ChatError("Webhooks need python-telegram-bot[webhooks] to be installed.") from None
    except TelegramError as refused:
        raise ChatError(f"Telegram does not take the webhook: {refusal_reason(refused)}.") from None
    except OSError as trouble:
        raise ChatError(f"The webhook's certificate or key cannot be read: {trouble.strerror}.") from None


def _check_port(host: str, port: int) -> None:
    """Raise ChatError where a port cannot be listened on: the library's server would leave a socket open."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as trouble:
        raise ChatError(f"{host}:{port} cannot be listened on: {trouble.strerror}.") from None


class _PollingErrorLogger:
    """Says once what is wrong with polling; the library goes on trying."""

    def __init__(self) -> None:
        self._logged_messages: set[str] = set()

    def __call__(self, error: TelegramError) -> None:
        """Log a kind of trouble the first time that it comes."""
        said = "Telegram cannot be reached; polling goes on."
        if isinstance(error, Conflict):
            said = (
                "Another program polls this bot, or a webhook is set for it: Telegram gives each update to "
                "one of them only. Stop the other one, or give this one a bot of its own. Polling goes on."
            )
        elif not isinstance(error, NetworkError):
            said = f"Polling failed and goes on: {type(error).__name__}."
        if said not in self._logged_messages:
            self._logged_messages.add(said)
            log.warning("%s", said)


async def _set_menu_commands(application: TelegramApplication, messages: Messages) -> None:
    """Put the commands into the menu, where they are not there yet: each call counts against the bot."""
    menu = [
        BotCommand("connect", messages.connect_description),
        BotCommand("connections", messages.connections_description),
        BotCommand("disconnect", messages.disconnect_description),
    ]
    try:
        if list(await application.bot.get_my_commands()) != menu:
            await application.bot.set_my_commands(menu)
    except TelegramError as trouble:
        log.warning("The menu of commands could not be set: %s.", type(trouble).__name__)


async def _stop(application: TelegramApplication) -> None:
    if application.updater is not None and application.updater.running:
        # Telegram not answering then is no trouble any more.
        with _silence_library_logs(), contextlib.suppress(TelegramError):
            await application.updater.stop()
    if application.running:
        await application.stop()
    await application.shutdown()
    # Where the application has not come as far as being initialized, it leaves its connections open.
    await application.bot.shutdown()


@contextlib.contextmanager
def _silence_library_logs() -> Generator[None]:
    """Keep the library's tracebacks about polling from an operator who is told in a sentence."""
    loggers = [logging.getLogger(name) for name in ("telegram.ext", "telegram.ext.Updater")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
