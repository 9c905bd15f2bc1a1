"""What is on its way to the bot: getUpdates with long polling, or a webhook. One poller at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import RLock

from tests.parts.bot_api.limits import LONG_POLL_SECONDS, UPDATES_PER_CALL
from tests.parts.bot_api.values import Json, Refused

# These come only to a bot that names them.
UNLESS_ASKED = frozenset({"chat_member", "message_reaction", "message_reaction_count"})
CONFLICT = "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running"
WEBHOOK_ACTIVE = (
    "Conflict: can't use getUpdates method while webhook is active; "
    "use deleteWebhook to delete the webhook first"
)


@dataclass(slots=True)
class Webhook:
    """Where updates go; `certificate` is PEM text that the bot uploaded, empty for none."""

    url: str = ""
    secret_token: str = field(default="", repr=False)
    max_connections: int = 40
    certificate: str = field(default="", repr=False)
    last_error: str = ""
    last_error_at: float = 0


class Updates:
    """The queue. `listeners` are called, under the lock, at every change: the server wakes its pollers so."""

    def __init__(self, lock: RLock) -> None:
        self.lock = lock
        self.waiting: list[Json] = []
        self.sent: list[Json] = []
        self.allowed: frozenset[str] | None = None
        self.webhook = Webhook()
        self.listeners: list[Callable[[], None]] = []
        self.poller: object = None
        self.pollers_waiting = 0
        self._ids = itertools.count(700_000_001)

    def wanted(self, kind: str) -> bool:
        """True where the bot's `allowed_updates` let a kind through."""
        return kind not in UNLESS_ASKED if self.allowed is None else kind in self.allowed

    def push(self, kind: str, content: Json) -> None:
        if not self.wanted(kind):
            return
        update: Json = {"update_id": next(self._ids), kind: content}
        self.waiting.append(update)
        self.sent.append(update)
        self.wake()

    def wake(self) -> None:
        with self.lock:
            for listener in list(self.listeners):
                listener()

    def allow(self, kinds: list[object] | None) -> None:
        """Keep `allowed_updates`: None changes nothing, an empty list goes back to the default."""
        if kinds is not None:
            self.allowed = frozenset(map(str, kinds)) or None

    def confirm(self, offset: int) -> None:
        """Forget what lies below an offset; a negative one leaves that many from the end."""
        if offset < 0:
            del self.waiting[:offset]
        elif offset:
            self.waiting[:] = [update for update in self.waiting if update["update_id"] >= offset]  # type: ignore[operator]

    def begin(self, poller: object, offset: int) -> None:
        """Let a new poller take over; the one before it is terminated. Raises Refused."""
        if self.webhook.url:
            raise Refused(409, WEBHOOK_ACTIVE)
        self.poller = poller
        self.confirm(offset)
        self.wake()

    def take(self, poller: object, limit: int) -> list[Json]:
        """Return what waits for a poller; raises Refused where another took over."""
        if self.webhook.url:
            raise Refused(409, "Conflict: terminated by setWebhook request")
        if self.poller is not poller:
            raise Refused(409, CONFLICT)
        return self.waiting[: limit if 1 <= limit <= UPDATES_PER_CALL else UPDATES_PER_CALL]

    def end(self, poller: object) -> None:
        if self.poller is poller:
            self.poller = None


def long_poll_seconds(timeout: int) -> int:
    """Return how long a poll may wait."""
    return max(0, min(timeout, LONG_POLL_SECONDS))
