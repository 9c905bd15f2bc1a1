"""Redact secrets in the log records of the chat libraries, their HTTP clients and this package.

python-telegram-bot logs requests and responses at DEBUG. httpx logs each URL at INFO, including the bot
token in it. discord.py logs each message and each request at DEBUG. A filter on a logger rewrites the record
before any handler receives it. A filter on a handler also rewrites the records of loggers that a library
creates later.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Mapping
from typing import cast

_MASK = "****"
_BOT_TOKEN = re.compile(r"\d{6,}(?::|%3A)[A-Za-z0-9_-]{30,}")
_SECRET_PARAMETER = re.compile(
    r"(?i)(?:(?<!\w)|(?<=%3F)|(?<=%26))"
    r"((?:code|state|code_verifier|user_code|device_code|access_token|refresh_token|id_token|client_secret"
    r"|assertion)(?:=|%3D|%253D))[^&\s'\"<>]+"
)
# A longer argument is a request or response body, which may contain secrets.
_MAX_ARGUMENT_CHARS = 200
_TELEGRAM_LIBRARY = "telegram"
# A handler rewrites the records of these loggers and of the loggers below them.
_TELEGRAM_LOGGER_TREES = ("telegram", "httpx", "httpcore", "gateway_hooks")
_TELEGRAM_LOGGERS = (
    "telegram",
    "httpx",
    "httpcore",
    "httpcore.connection",
    "httpcore.http11",
    "httpcore.http2",
    "httpcore.proxy",
    "httpcore.socks",
    "gateway_hooks",
)
DISCORD_LOGGERS = (
    "discord.http",
    "discord.gateway",
    "discord.webhook.async_",
    "discord.client",
    "discord.state",
)
# The token of an interaction lets any client respond to it.
_INTERACTION_TOKEN = re.compile(r"(/(?:interactions|webhooks)/[^/\s]+/)[^/?\s]+")
_PLAIN_WORD = re.compile(r"[A-Za-z_]{1,40}")


def mask_secrets(text: str) -> str:
    """Return the text with every bot token and every secret OAuth parameter masked."""
    return _SECRET_PARAMETER.sub(rf"\1{_MASK}", _BOT_TOKEN.sub(_MASK, text))


class SecretFilter(logging.Filter):
    """Mask the secrets in each record, and let the record pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record if it contains a secret; always return True."""
        if record.name.startswith(_TELEGRAM_LIBRARY):
            record.args = _without_bodies(record.args)
        message = record.getMessage()
        if (masked := mask_secrets(message)) != message:
            record.msg, record.args = masked, ()
        if record.exc_info and record.exc_info[1] is not None:
            report = "".join(traceback.format_exception(record.exc_info[1]))
            if (masked := mask_secrets(report)) != report:
                # A formatter prints `exc_text` only if `exc_info` is None.
                record.exc_info, record.exc_text = None, masked.rstrip()
        return True


class HandlerFilter(SecretFilter):
    """Mask the secrets in the records of the chat libraries; other records stay as they are."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite a record of those loggers if it contains a secret; always return True."""
        is_of_library = f"{record.name}.".startswith(tuple(f"{name}." for name in _TELEGRAM_LOGGER_TREES))
        return super().filter(record) if is_of_library else True


class DiscordArgumentFilter(logging.Filter):
    """Keep only harmless arguments of each record: numbers, words, URLs without tokens."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace the record's arguments; always return True."""
        if isinstance(record.args, Mapping):
            # The mapping is the record's only argument, such as a frame, or contains the arguments by name.
            record.args = {**dict.fromkeys(record.args, "…"), **harmless_members(record.args)}
        elif record.args:
            record.args = tuple(harmless_value(argument) for argument in record.args)
        return True


class VoiceLineFilter(logging.Filter):
    """Drop the library's lines about missing voice libraries: this package uses no voice."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return False for such a line."""
        return "voice will NOT be supported" not in str(record.msg)


def harmless_value(value: object) -> object:
    """Return the part of a logged value that contains no secret."""
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, str) and value.startswith(("https://", "http://", "wss://", "ws://", "/")):
        return _INTERACTION_TOKEN.sub(r"\1…", value.partition("?")[0])
    if isinstance(value, Mapping):
        return harmless_members(cast("Mapping[str, object]", value))
    text = str(value)
    return text if _PLAIN_WORD.fullmatch(text) else "…"


def harmless_members(frame: Mapping[str, object]) -> dict[str, object]:
    """Return the members of a frame that contain no secret: operation, type and number."""
    return {name: harmless_value(frame[name]) for name in ("op", "t", "s") if name in frame}


_SECRET_FILTER = SecretFilter()
_HANDLER_FILTER = HandlerFilter()
_DISCORD_FILTER = DiscordArgumentFilter()
_VOICE_LINE_FILTER = VoiceLineFilter()


def redact_logs(*logger_names: str) -> None:
    """Filter the loggers of python-telegram-bot, httpx and this package, and those in `logger_names`.

    Also filter the handlers that exist now. If a logger or handler already has the filter, nothing changes.
    """
    prefixes = ("telegram.", "gateway_hooks.")
    loggers = dict(logging.root.manager.loggerDict)
    existing = [name for name in loggers if name.startswith(prefixes)]
    for name in (*_TELEGRAM_LOGGERS, *existing, *logger_names):
        logging.getLogger(name).addFilter(_SECRET_FILTER)
    for logger in (logging.root, *loggers.values()):
        for handler in logger.handlers if isinstance(logger, logging.Logger) else ():
            handler.addFilter(_HANDLER_FILTER)


def redact_discord_logs() -> None:
    """Redact the logs of discord.py. A second call has no effect."""
    for name in DISCORD_LOGGERS:
        logging.getLogger(name).addFilter(_DISCORD_FILTER)
    logging.getLogger("discord.client").addFilter(_VOICE_LINE_FILTER)


def _without_bodies(
    args: tuple[object, ...] | Mapping[str, object] | None,
) -> tuple[object, ...] | Mapping[str, object] | None:
    """Return a record's arguments with request and response bodies masked."""
    if isinstance(args, tuple):
        return tuple(_without_body(argument) for argument in args)
    # The mapping is the record's only argument, or contains the arguments by name.
    return None if args is None else dict.fromkeys(args, _MASK)


def _without_body(argument: object) -> object:
    if argument is None or isinstance(argument, (int, float, Exception)):
        return argument
    if isinstance(argument, str) and len(argument) <= _MAX_ARGUMENT_CHARS:
        return argument
    return _MASK
