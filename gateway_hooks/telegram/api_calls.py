"""Calls of the Bot API as they succeed: in a chat's order, after the waits that Telegram asks for.

What still fails becomes a ChatError. Its text holds no address and no token; the library's may hold both.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar
from weakref import WeakValueDictionary

from telegram.error import BadRequest, Forbidden, InvalidToken, NetworkError, RetryAfter, TelegramError

from gateway_hooks.dialog.platform import CannotWrite, ChatError

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]

# Longer than that nobody waits for a message; whoever keeps it up to date comes back later.
MAX_WAIT_SECONDS = 60.0
MAX_TRIES = 3
# Telegram takes some thirty messages a second; more connections than that needs only cost time.
MAX_CONCURRENT_CALLS = 8
_UNREACHABLE_CHAT = re.compile(
    r"(?i)chat not found|user not found|peer_id_invalid|have no rights to send|not enough rights to send"
)


class ApiCalls:
    """Makes the calls of one bot. A chat that Telegram lets wait keeps no other one waiting."""

    def __init__(self, sleep: Sleep = asyncio.sleep) -> None:
        self._sleep = sleep
        self._call_slots = asyncio.Semaphore(MAX_CONCURRENT_CALLS)
        self._chat_locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def call_in_order(self, chat_id: str, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call once those before it in this chat are through; else as `at_once`."""
        lock = self._chat_locks.setdefault(chat_id, asyncio.Lock())

        async def call_with_slot() -> T:
            async with self._call_slots:
                return await call()

        async with lock:
            return await self.call_now(call_with_slot)

    async def call_now(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call; raises BadRequest where the caller may know better, CannotWrite, ChatError.

        A call whose answer was lost is made again, although it may have been carried out: without its prompt
        a person waits for nothing, while a second one leads to the same login and is void once that is over.
        """
        waited, tries = 0.0, 0
        while True:
            try:
                return await call()
            except RetryAfter as limited:
                seconds = _retry_seconds(limited)
                waited += seconds
                if waited > MAX_WAIT_SECONDS:
                    raise ChatError(f"Telegram asks to wait {seconds:.0f} seconds.") from None
                await self._sleep(seconds)
            except BadRequest as refused:
                if _UNREACHABLE_CHAT.search(refused.message):
                    raise CannotWrite("The bot knows no such chat, or may not write there.") from None
                raise
            except NetworkError:
                tries += 1
                if tries == MAX_TRIES:
                    raise ChatError("Telegram cannot be reached.") from None
                await self._sleep(2.0 ** (tries - 1))
            except TelegramError as trouble:
                raise _to_chat_error(trouble) from None


def _to_chat_error(error: TelegramError) -> ChatError:
    if isinstance(error, Forbidden):
        return CannotWrite("The bot may not write there.")
    if isinstance(error, InvalidToken):
        return ChatError("Telegram does not take this bot's token.")
    return ChatError(f"Telegram refused: {type(error).__name__}.")


def refusal_reason(error: TelegramError) -> str:
    """Return Telegram's reason up to what it quotes, which may be an address."""
    return re.split(r"['\"`«]|https?:", error.message)[0].strip()[:100]


def _retry_seconds(error: RetryAfter) -> float:
    # A number or a time span, depending on the library's version and settings.
    after = error.retry_after
    return after.total_seconds() if isinstance(after, timedelta) else float(after)
