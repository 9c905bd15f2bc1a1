"""Call the Bot API: in order within a chat, with retries and the waits that Telegram requests.

If a call fails after the retries, it raises ChatError. The text of a ChatError contains no URL and no token.
The text of a library error may contain both.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar
from weakref import WeakValueDictionary

from telegram.error import BadRequest, Forbidden, InvalidToken, NetworkError, RetryAfter, TelegramError

from gateway_hooks.dialog.platform import CannotWrite, ChatError, PlatformUnreachable

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]

# The longest total wait of one call. `PromptMessages` retries later.
MAX_WAIT_SECONDS = 60.0
MAX_TRIES = 3
# Enough for Telegram's limit of about 30 messages per second. With more concurrent calls, each call
# would only take longer.
MAX_CONCURRENT_CALLS = 8
_UNREACHABLE_CHAT = re.compile(
    r"(?i)chat not found|user not found|peer_id_invalid|have no rights to send|not enough rights to send"
)


class ApiCalls:
    """Makes the calls of one bot. A rate-limited chat does not delay other chats."""

    def __init__(self, sleep: Sleep = asyncio.sleep) -> None:
        self._sleep = sleep
        self._call_slots = asyncio.Semaphore(MAX_CONCURRENT_CALLS)
        self._chat_locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def call_in_order(self, chat_id: str, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call as `call_now` does, but after the earlier calls of this chat."""
        lock = self._chat_locks.setdefault(chat_id, asyncio.Lock())

        async def call_with_slot() -> T:
            async with self._call_slots:
                return await call()

        async with lock:
            return await self.call_now(call_with_slot)

    async def call_now(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call; raises the ChatErrors, and BadRequest for the caller to interpret.

        If the response is lost, this method repeats the call, although Telegram may have executed it. A user
        may then get two prompts for the same login. Without the repetition, the user might get none.
        """
        waited_seconds, tries = 0.0, 0
        while True:
            try:
                return await call()
            except RetryAfter as error:
                seconds = retry_seconds(error)
                waited_seconds += seconds
                if waited_seconds > MAX_WAIT_SECONDS:
                    raise PlatformUnreachable(
                        f"Telegram asks to wait {seconds:.0f} seconds.", seconds
                    ) from None
                await self._sleep(seconds)
            except BadRequest as error:
                if _UNREACHABLE_CHAT.search(error.message):
                    raise CannotWrite("The bot knows no such chat, or may not write there.") from None
                raise
            except NetworkError:
                tries += 1
                if tries == MAX_TRIES:
                    raise PlatformUnreachable("Telegram cannot be reached.") from None
                await self._sleep(2.0 ** (tries - 1))
            except TelegramError as error:
                raise _to_chat_error(error) from None


def _to_chat_error(error: TelegramError) -> ChatError:
    if isinstance(error, Forbidden):
        return CannotWrite("The bot may not write there.")
    if isinstance(error, InvalidToken):
        return ChatError("Telegram rejected this bot's token.")
    return ChatError(f"Telegram refused a call: {type(error).__name__}.")


def refusal_reason(error: TelegramError) -> str:
    """Return Telegram's reason, cut before the first quotation, which may be a URL."""
    return re.split(r"['\"`«]|https?:", error.message)[0].strip()[:100]


def retry_seconds(error: RetryAfter) -> float:
    """Return how long Telegram asks to wait."""
    # `retry_after` is a number or a timedelta, depending on the library's version and settings.
    after = error.retry_after
    return after.total_seconds() if isinstance(after, timedelta) else float(after)
