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
from tests.parts.bot_api.values import Refused

Kind = Literal["down", "refuse", "gateway", "hang_up", "slow", "hold"]
LIMITED = ("send", "edit", "copy", "forward")
HTML = (
    "<html>\r\n<head><title>{status}</title></head>\r\n<body>\r\n<center><h1>{status}</h1></center>\r\n"
    "<hr><center>nginx/1.18.0</center>\r\n</body>\r\n</html>\r\n"
)


@dataclass(slots=True)
class Trouble:
    """One fault, for a number of calls of one method or of any method."""

    kind: Kind
    method: str | None
    left: int
    refusal: Refused | None = None
    status: str = ""
    seconds: float = 0
    reached: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    on_release: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])

    def release(self) -> None:
        """Release held calls."""
        self.left = 0
        self.released.set()
        for act in list(self.on_release):
            act()


class Troubles:
    """Injects faults. Without a method name, a fault affects all calls except getUpdates."""

    def __init__(self) -> None:
        self.ordered: list[Trouble] = []
        self.polls_dropped: list[Callable[[], None]] = []

    def _order(self, trouble: Trouble) -> Trouble:
        self.ordered.append(trouble)
        return trouble

    def network_down(self, calls: int = 1, method: str | None = None) -> Trouble:
        """Cut the connection of the next calls, including getUpdates, before they take effect."""
        return self._order(Trouble("down", method or "*", calls))

    def hang_up(self, method: str | None = None, times: int = 1) -> Trouble:
        """Execute the call, then cut the connection: the bot gets no response."""
        return self._order(Trouble("hang_up", method, times))

    def bad_gateway(
        self, method: str | None = None, times: int = 1, status: str = "502 Bad Gateway"
    ) -> Trouble:
        """Respond with a proxy's HTML page; do not execute the call."""
        return self._order(Trouble("gateway", method, times, status=status))

    def too_many(self, retry_after: int, method: str | None = None, times: int = 1) -> Trouble:
        """Respond with 429 and `retry_after` seconds."""
        return self._order(Trouble("refuse", method, times, too_many_requests(retry_after)))

    def refuse(self, error_code: int, description: str, method: str | None = None, times: int = 1) -> Trouble:
        """Respond with this error."""
        return self._order(Trouble("refuse", method, times, Refused(error_code, description)))

    def slow(self, seconds: float, method: str | None = None, times: int = 1) -> Trouble:
        """Wait some real seconds before a call is executed."""
        return self._order(Trouble("slow", method, times, seconds=seconds))

    def hold(self, method: str | None = None, times: int = 1) -> Trouble:
        """Hold calls until `.release()` before they are executed; `.reached` is set when one arrives."""
        return self._order(Trouble("hold", method, times))

    @contextmanager
    def offline(self) -> Generator[None]:
        """Cut all connections while the block lasts, also the waiting long poll."""
        down = self._order(Trouble("down", "*", 10**9))
        self.drop_long_poll()
        try:
            yield
        finally:
            down.release()

    def drop_long_poll(self) -> None:
        """Cut the connection of the waiting long poll, if any."""
        for drop in list(self.polls_dropped):
            drop()

    def heal(self) -> None:
        """Remove all faults and release held calls."""
        ordered, self.ordered[:] = list(self.ordered), []
        for trouble in ordered:
            trouble.release()

    def next(self, method: str) -> Trouble | None:
        """Return the fault for a call, if any, and count it."""
        for trouble in self.ordered:
            meant = trouble.method in {method, "*"} or (trouble.method is None and method != "getUpdates")
            if trouble.left > 0 and meant:
                trouble.left -= 1
                return trouble
        return None


def too_many_requests(retry_after: int) -> Refused:
    return Refused(429, f"Too Many Requests: retry after {retry_after}", retry_after=retry_after)


class RateLimits:
    """Telegram's limits from its FAQ: per chat and second, per group and minute, and in total."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.sent: list[tuple[float, int]] = []

    def check(self, method: str, chat_id: int) -> None:
        """Count a message; raise ApiError with `retry_after` if it exceeds a limit."""
        if not method.startswith(LIMITED) or method == "sendChatAction":
            return
        now = self.clock()
        self.sent = [(at, chat) for at, chat in self.sent if now - at < 60]
        here = [at for at, chat in self.sent if chat == chat_id]
        rules = [
            (here, CHAT_MESSAGES_PER_SECOND, 1.0),
            ([at for at, _ in self.sent], MESSAGES_PER_SECOND, 1.0),
        ]
        if chat_id < 0:
            rules.append((here, GROUP_MESSAGES_PER_MINUTE, 60.0))
        for times, most, seconds in rules:
            recent = [at for at in times if now - at < seconds]
            if len(recent) >= most:
                raise too_many_requests(max(1, math.ceil(recent[-most] + seconds - now)))
        self.sent.append((now, chat_id))
