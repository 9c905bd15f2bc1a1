"""What Discord refuses, as the three errors of a chat; their texts name no address, token or code."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import aiohttp
import discord

from gateway_hooks.dialog.platform import CannotWrite, ChatError, MessageGone

# https://docs.discord.com/developers/topics/opcodes-and-status-codes#json
UNKNOWN_MESSAGE = 10008
NOT_ALLOWED_IN_DM = 50003
# Unknown user; missing access or permissions; direct messages closed; no guild in common.
_CANNOT_WRITE_CODES = frozenset({10013, 50001, 50007, 50013, 50278})
# Unknown channel, message, webhook or interaction; somebody else's; a token that has run out.
_MESSAGE_GONE_CODES = frozenset({10003, UNKNOWN_MESSAGE, 10015, 10062, 50005, 50027})


@contextmanager
def translate_errors() -> Generator[None]:
    """Turn what the library raises inside into CannotWrite, MessageGone or ChatError."""
    try:
        yield
    except discord.HTTPException as error:
        # Not as the cause: its response holds the address of the request, with an interaction's token.
        raise _to_chat_error(error.status, error.code) from None
    except (aiohttp.ClientError, discord.DiscordException, OSError, TimeoutError) as error:
        raise ChatError(f"Discord could not be reached ({type(error).__name__}).") from None


def _to_chat_error(status: int, code: int) -> ChatError:
    if code in _CANNOT_WRITE_CODES:
        return CannotWrite(f"The bot may not write there (Discord's code {code}).")
    if code in _MESSAGE_GONE_CODES:
        return MessageGone(f"That message is out of reach (Discord's code {code}).")
    return ChatError(f"Discord refused ({status}, code {code}).")
