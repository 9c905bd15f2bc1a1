"""Translate Discord's errors into the chat errors, with no URL, token or code in their texts."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from http import HTTPStatus

import aiohttp
import discord

from gateway_hooks.dialog.platform import CannotWrite, ChatError, MessageGone, PlatformUnreachable

# https://docs.discord.com/developers/topics/opcodes-and-status-codes#json
UNKNOWN_MESSAGE = 10008
# Unknown user; missing access or permissions; direct messages closed; no guild in common.
_CANNOT_WRITE_CODES = frozenset({10013, 50001, 50007, 50013, 50278})
# Unknown channel, message, webhook or interaction; another author's message; an expired token.
_MESSAGE_GONE_CODES = frozenset({10003, UNKNOWN_MESSAGE, 10015, 10062, 50005, 50027})


@contextmanager
def translate_errors() -> Generator[None]:
    """Raise one of the ChatErrors for the library's errors inside the block."""
    try:
        yield
    except discord.HTTPException as error:
        # Drop the cause: its response contains the request URL with an interaction's token.
        raise _to_chat_error(error.status, error.code) from None
    except discord.RateLimited as error:
        # Only with the application's own `max_ratelimit_timeout`; else the library waits.
        seconds = error.retry_after
        raise PlatformUnreachable(f"Discord asks to wait {seconds:.0f} seconds.", seconds) from None
    except (aiohttp.ClientError, discord.DiscordException, OSError, TimeoutError) as error:
        raise PlatformUnreachable(f"Discord could not be reached ({type(error).__name__}).") from None


def _to_chat_error(status: int, code: int) -> ChatError:
    if code in _CANNOT_WRITE_CODES:
        return CannotWrite(f"The bot may not write there (Discord error {code}).")
    if code in _MESSAGE_GONE_CODES:
        return MessageGone(f"That message is out of reach (Discord error {code}).")
    if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return PlatformUnreachable(f"Discord is out of service or asks to wait ({status}, code {code}).")
    return ChatError(f"Discord refused ({status}, code {code}).")
