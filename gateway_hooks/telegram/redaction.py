"""Keeps secrets out of the log: the bot's token, which is in every address called, and the codes of people.

The library logs at DEBUG what it sends and receives, httpx each address at INFO, and either may put one into
an exception. A filter on their loggers and ours rewrites such records before any handler sees them.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Mapping

_HIDDEN = "****"
_TOKEN = re.compile(r"\d{6,}(?::|%3A)[A-Za-z0-9_-]{30,}")
_PARAMETER = re.compile(
    r"(?i)(?:(?<!\w)|(?<=%3F)|(?<=%26))"
    r"((?:code|state|code_verifier|user_code|device_code|access_token|refresh_token|id_token|client_secret"
    r"|assertion)(?:=|%3D|%253D))[^&\s'\"<>]+"
)
# Longer ones are bodies, and a body may hold anything.
_MAX_ARGUMENT_CHARS = 200
_BODIES = "telegram"
_LOGGERS = (
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


def hide(text: str) -> str:
    """Mask every token of a bot, and every parameter of OAuth's that is secret."""
    return _PARAMETER.sub(rf"\1{_HIDDEN}", _TOKEN.sub(_HIDDEN, text))


class Hiding(logging.Filter):
    """Lets every record through, rewritten where it would tell a secret."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record where needed."""
        if record.name.startswith(_BODIES):
            record.args = _without_bodies(record.args)
        said = record.getMessage()
        if (hidden := hide(said)) != said:
            record.msg, record.args = hidden, ()
        if record.exc_info and record.exc_info[1] is not None:
            told = "".join(traceback.format_exception(record.exc_info[1]))
            if (hidden := hide(told)) != told:
                # A formatter takes the text where there is no exception; others would print that anew.
                record.exc_info, record.exc_text = None, hidden.rstrip()
        return True


_FILTER = Hiding()


def guard_logs() -> None:
    """Put the filter on the loggers of all that handles the token or what people write; once is enough."""
    ours = ("telegram.", "gateway_hooks.")
    known = [name for name in logging.root.manager.loggerDict if name.startswith(ours)]
    for name in (*_LOGGERS, *known):
        # The same filter is not added twice.
        logging.getLogger(name).addFilter(_FILTER)


def _without_bodies(
    args: tuple[object, ...] | Mapping[str, object] | None,
) -> tuple[object, ...] | Mapping[str, object] | None:
    """Return a record's arguments without what was sent or received."""
    if isinstance(args, tuple):
        return tuple(_shown(each) for each in args)
    # A dictionary is a record's only argument, or holds them by name.
    return None if args is None else dict.fromkeys(args, _HIDDEN)


def _shown(argument: object) -> object:
    if argument is None or isinstance(argument, (int, float, Exception)):
        return argument
    if isinstance(argument, str) and len(argument) <= _MAX_ARGUMENT_CHARS:
        return argument
    return _HIDDEN
