"""Keeps secrets out of discord.py's own log lines: at DEBUG it writes down every message and request."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import cast

LOGGERS = ("discord.http", "discord.gateway", "discord.webhook.async_", "discord.client", "discord.state")

# The token of an interaction lets anybody answer it.
_TOKEN = re.compile(r"(/(?:interactions|webhooks)/[^/\s]+/)[^/?\s]+")
_WORD = re.compile(r"[A-Za-z_]{1,40}")


class WithoutSecrets(logging.Filter):
    """Lets lines through with what is known to be harmless: numbers, words, addresses without tokens."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact a record in its place, before any handler sees it."""
        if record.args and not isinstance(record.args, Mapping):
            record.args = tuple(harmless(each) for each in record.args)
        return True


def harmless(value: object) -> object:
    """Return what may be logged of a value."""
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, str) and value.startswith(("https://", "http://", "wss://", "ws://", "/")):
        return _TOKEN.sub(r"\1…", value.partition("?")[0])
    if isinstance(value, Mapping):
        frame = cast("Mapping[str, object]", value)
        return {name: harmless(frame[name]) for name in ("op", "t", "s") if name in frame}
    text = str(value)
    return text if _WORD.fullmatch(text) else "…"


_FILTER = WithoutSecrets()


def redact() -> None:
    """From now on, in the whole process; to be called any number of times."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_FILTER)
