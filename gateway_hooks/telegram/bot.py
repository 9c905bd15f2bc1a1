"""Run a bot for logins only, by polling or webhook, until it is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Collection, Generator
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from telegram import Update
from telegram.error import Conflict, InvalidToken, NetworkError, RetryAfter, TelegramError
from telegram.ext import ApplicationBuilder, CommandHandler, filters
from telegram.request import HTTPXRequest

from gateway_hooks.dialog.messages import ENGLISH, Messages
from gateway_hooks.dialog.platform import ChatError
from gateway_hooks.dialog.policy import Policy
from gateway_hooks.dialog.servers import Servers
from gateway_hooks.log_redaction import redact_logs
from gateway_hooks.runtime.message_sync import OnConnected
from gateway_hooks.telegram import TelegramApplication, TelegramLogins
from gateway_hooks.telegram.api_calls import refusal_reason, retry_seconds
from gateway_hooks.telegram.menu import add_menu_commands
from hermes_mcp_auth_remote.cancellation import run_until_cancelled
from hermes_mcp_auth_remote.config.chats import Webhook
from hermes_mcp_auth_remote.errors import ConfigError
from hermes_mcp_auth_remote.http.proxies import check_httpx_proxies
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.traceback_redaction import with_hidden_locals
from hermes_mcp_auth_remote.values import Clock, Secret

POLL_TIMEOUT_SECONDS = 30
MAX_PAUSE_SECONDS = 30.0
# Enough for Telegram's limit of 30 messages per second. The pool searches all open connections for each
# call, so a larger pool would delay every call.
MAX_CONNECTIONS = 16
# The library's default of 1 second would lose messages when many users write at once.
POOL_TIMEOUT_SECONDS = 30.0
# Telegram rejects an invalid webhook URL each time, so more tries do not help.
WEBHOOK_TRIES = 2
# The time that the library needs to process the response to its poll.
POLL_END_SECONDS = 0.1
# In channels and business chats, the bot only looks for codes, to delete them.
ALLOWED_UPDATES = [
    Update.MESSAGE,
    Update.EDITED_MESSAGE,
    Update.CALLBACK_QUERY,
    Update.CHANNEL_POST,
    Update.EDITED_CHANNEL_POST,
    Update.BUSINESS_MESSAGE,
    Update.EDITED_BUSINESS_MESSAGE,
]

# After these statuses the library stops polling silently.
_POLL_ENDING_STATUSES = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND})

log = logging.getLogger(__name__)


class _Request(HTTPXRequest):
    """Sets an event on 401 or 404 so that `run_bot` can stop: the library stops polling silently."""

    def __init__(self, token_doubt: asyncio.Event, statuses: Collection[int], max_connections: int) -> None:
        super().__init__(connection_pool_size=max_connections, pool_timeout=POOL_TIMEOUT_SECONDS)
        self.is_token_refused = False
        self._token_doubt = token_doubt
        self._statuses = statuses

    async def do_request(self, *args: Any, **kwargs: Any) -> tuple[int, bytes]:  # noqa: ANN401  the library's
        """Make a request as the library does, and check the status of the response."""
        status, body = await super().do_request(*args, **kwargs)
        if status in self._statuses:
            self.is_token_refused = True
            self._token_doubt.set()
        return status, body


@with_hidden_locals
async def run_bot(  # noqa: PLR0913  one parameter per setting of the operator
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
    """Run the bot until cancelled.

    `api_url` is the base URL of another Bot API server. `on_started` is called with the bot's name once the
    bot runs. Raises ConfigError if Telegram rejects the token, now or later, and ChatError if the webhook
    cannot start.
    """
    redact_logs()
    check_httpx_proxies(os.environ)
    builder = ApplicationBuilder().token(token.reveal())
    token_doubt = asyncio.Event()
    call_request = _Request(token_doubt, {HTTPStatus.UNAUTHORIZED}, MAX_CONNECTIONS)
    # Two connections: when polling stops, a last request confirms the received updates.
    poll_request = _Request(token_doubt, _POLL_ENDING_STATUSES, 2)
    builder = builder.request(call_request).get_updates_request(poll_request)
    if api_url is not None:
        base = api_url.rstrip("/")
        builder = builder.base_url(f"{base}/bot").base_file_url(f"{base}/file/bot")
    application: TelegramApplication = builder.build()
    logins = TelegramLogins(
        service,
        servers,
        policy,
        messages,
        clock=clock,
        on_connected=on_connected,
        answers_all=True,
    )
    logins.add_to(application)
    # In a group, only a command gets an answer.
    in_groups = filters.UpdateType.MESSAGE & ~filters.ChatType.PRIVATE
    application.add_handler(CommandHandler(["start", "help"], logins.help, filters=in_groups))

    async def run_application() -> None:
        await _initialize(application)
        await application.start()
        await _start_updates(application, webhook)
        if on_started is not None:
            on_started(application.bot.username)
        await add_menu_commands(application.bot, messages)
        await _wait_until_token_refused(application, token_doubt, poll_request)

    try:
        # If a library loses the cancellation, this work is cancelled again, but `_stop` is not.
        await run_until_cancelled(run_application())
        with _silence_library_logs():
            # Let the library's poll end.
            await asyncio.sleep(POLL_END_SECONDS)
        raise _token_error()
    finally:
        await _stop(application)


def _token_error() -> ConfigError:
    return ConfigError("Telegram rejected this bot's token.", "Copy it again from BotFather.")


async def _wait_until_token_refused(
    application: TelegramApplication, token_doubt: asyncio.Event, poll_request: _Request
) -> None:
    """Return once Telegram rejects the token: in the poll, or in two calls in a row."""
    while True:
        await token_doubt.wait()
        token_doubt.clear()
        if poll_request.is_token_refused:
            return
        try:
            # Check the token again: the 401 may come from a proxy between this process and Telegram.
            await application.bot.get_me()
        except InvalidToken:
            return
        except TelegramError:
            continue


async def _initialize(application: TelegramApplication) -> None:
    """Log in to Telegram; retry while it is unreachable or asks to wait.

    Raises ConfigError for a wrong token.
    """
    pause = 1.0
    while True:
        try:
            await application.initialize()
        except InvalidToken:
            # The library's error text contains the token.
            raise _token_error() from None
        except RetryAfter as error:
            # A bot that ended here would be started again at once, and would never get out of the limit.
            seconds = retry_seconds(error)
            log.warning("Telegram asks to wait %.0f seconds; retrying then.", seconds)
            await asyncio.sleep(seconds)
        except NetworkError:
            if pause == 1.0:
                log.warning("Telegram cannot be reached; retrying.")
            await asyncio.sleep(pause)
            pause = min(2 * pause, MAX_PAUSE_SECONDS)
        else:
            return


async def _start_updates(application: TelegramApplication, webhook: Webhook | None) -> None:
    updater = application.updater
    if updater is None:
        raise ChatError("This application has no updater.")
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
    except TelegramError as error:
        raise ChatError(f"Telegram rejected the webhook: {refusal_reason(error)}.") from None
    except OSError as error:
        raise ChatError(f"The webhook's certificate or key cannot be read: {error.strerror}.") from None


def _check_port(host: str, port: int) -> None:
    """Raise ChatError if the port is unavailable: the library's server would leave a socket open."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise ChatError(f"Cannot listen on {host}:{port}: {error.strerror}.") from None


class _PollingErrorLogger:
    """Logs each kind of polling error once. The library continues polling."""

    def __init__(self) -> None:
        self._logged_messages: set[str] = set()

    def __call__(self, error: TelegramError) -> None:
        """Log an error unless the same text has been logged before."""
        text = "Telegram cannot be reached; polling continues."
        if isinstance(error, Conflict):
            text = (
                "Another program polls this bot, or it has a webhook: Telegram sends each update to only "
                "one of them. Stop the other program, or use a separate bot. Polling continues."
            )
        elif not isinstance(error, NetworkError):
            text = f"A poll failed: {type(error).__name__}. Polling continues."
        if text not in self._logged_messages:
            self._logged_messages.add(text)
            log.warning("%s", text)


async def _stop(application: TelegramApplication) -> None:
    if application.updater is not None and application.updater.running:
        # Also stop the application if Telegram is unreachable.
        with _silence_library_logs(), contextlib.suppress(TelegramError):
            await application.updater.stop()
    if application.running:
        await application.stop()
    await application.shutdown()
    # An application that was never initialized leaves its connections open.
    await application.bot.shutdown()


@contextlib.contextmanager
def _silence_library_logs() -> Generator[None]:
    """Silence the library's tracebacks about polling: this module reports such errors in one sentence."""
    loggers = [logging.getLogger(name) for name in ("telegram.ext", "telegram.ext.Updater")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
