"""Injected faults for the bot's next calls, and the real server's rate limits."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from tests.parts.bot_api.limits import (
    CHAT_MESSAGES_PER_SECOND,
    GROUP_MESSAGES_PER_MINUTE,
    MESSAGES_PER_SECOND,
)
from tests.parts.bot_api.values import ApiError

FaultKind = Literal["down", "refuse", "gateway", "hang_up", "slow", "hold"]
RATE_LIMITED_PREFIXES = ("send", "edit", "copy", "forward")
PROXY_ERROR_HTML = (
    "<html>\r\n<head><title>{status}</title></head>\r\n<body>\r\n<center><h1>{status}</h1></center>\r\n"
    "<hr><center>nginx/1.18.0</center>\r\n</body>\r\n</html>\r\n"
)


@dataclass(slots=True)
class Fault:
    """One fault, for a number of calls of one method or of any method."""

    kind: FaultKind
    method: str | None
    calls_left: int
    refusal: ApiError | None = None
    status: str = ""
    seconds: float = 0
    reached: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    on_release: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])

    def release(self) -> None:
        """Release held calls."""
        self.calls_left = 0
        self.released.set()
        for callback in list(self.on_release):
            callback()


class FaultInjection:
    """Injects faults. Without a method name, a fault affects all calls except getUpdates."""

    def __init__(self) -> None:
        self.pending_faults: list[Fault] = []
        self.poll_droppers: list[Callable[[], None]] = []

    def _add_fault(self, fault: Fault) -> Fault:
        self.pending_faults.append(fault)
        return fault

    def network_down(self, calls: int = 1, method: str | None = None) -> Fault:
        """Cut the connection of the next calls, including getUpdates, before they take effect."""
        return self._add_fault(Fault("down", method or "*", calls))

    def hang_up(self, method: str | None = None, times: int = 1) -> Fault:
        """Execute the call, then cut the connection: the bot gets no response."""
        return self._add_fault(Fault("hang_up", method, times))

    def bad_gateway(
        self, method: str | None = None, times: int = 1, status: str = "502 Bad Gateway"
    ) -> Fault:
        """Respond with a proxy's HTML page; do not execute the call."""
        return self._add_fault(Fault("gateway", method, times, status=status))

    def rate_limit(self, retry_after: int, method: str | None = None, times: int = 1) -> Fault:
        """Respond with 429 and `retry_after` seconds."""
        return self._add_fault(Fault("refuse", method, times, too_many_requests(retry_after)))

    def refuse(self, error_code: int, description: str, method: str | None = None, times: int = 1) -> Fault:
        """Respond with this error."""
        return self._add_fault(Fault("refuse", method, times, ApiError(error_code, description)))

    def delay(self, seconds: float, method: str | None = None, times: int = 1) -> Fault:
        """Wait some real seconds before a call is executed."""
        return self._add_fault(Fault("slow", method, times, seconds=seconds))

    def hold(self, method: str | None = None, times: int = 1) -> Fault:
        """Hold calls until `.release()` before they are executed; `.reached` is set when one arrives."""
        return self._add_fault(Fault("hold", method, times))

    @contextmanager
    def offline(self) -> Generator[None]:
        """Cut all connections while the block lasts, also the waiting long poll."""
        down = self._add_fault(Fault("down", "*", 10**9))
        self.drop_long_poll()
        try:
            yield
        finally:
            down.release()

    def drop_long_poll(self) -> None:
        """Cut the connection of the waiting long poll, if any."""
        for drop in list(self.poll_droppers):
            drop()

    def clear_faults(self) -> None:
        """Remove all faults and release held calls."""
        faults, self.pending_faults[:] = list(self.pending_faults), []
        for fault in faults:
            fault.release()

    def take_fault(self, method: str) -> Fault | None:
        """Return the fault for a call, if any, and count it."""
        for fault in self.pending_faults:
            matches = fault.method in {method, "*"} or (fault.method is None and method != "getUpdates")
            if fault.calls_left > 0 and matches:
                fault.calls_left -= 1
                return fault
        return None


def too_many_requests(retry_after: int) -> ApiError:
    return ApiError(429, f"Too Many Requests: retry after {retry_after}", retry_after=retry_after)


class RateLimits:
    """Telegram's limits from its FAQ: per chat and second, per group and minute, and in total."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.sent: list[tuple[float, int]] = []

    def check(self, method: str, chat_id: int) -> None:
        """Count a message; raise ApiError with `retry_after` if it exceeds a limit."""
        if not method.startswith(RATE_LIMITED_PREFIXES) or method == "sendChatAction":
            return
        now = self.clock()
        self.sent = [(at, chat) for at, chat in self.sent if now - at < 60]
        times_in_chat = [at for at, chat in self.sent if chat == chat_id]
        rules = [
            (times_in_chat, CHAT_MESSAGES_PER_SECOND, 1.0),
            ([at for at, _ in self.sent], MESSAGES_PER_SECOND, 1.0),
        ]
        if chat_id < 0:
            rules.append((times_in_chat, GROUP_MESSAGES_PER_MINUTE, 60.0))
        for times, limit, seconds in rules:
            recent = [at for at in times if now - at < seconds]
            if len(recent) >= limit:
                raise too_many_requests(max(1, math.ceil(recent[-limit] + seconds - now)))
        self.sent.append((now, chat_id))
