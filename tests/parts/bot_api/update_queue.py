"""The queue of updates for the bot: one long poll at a time, or a webhook."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import RLock

from tests.parts.bot_api.limits import LONG_POLL_SECONDS, UPDATES_PER_CALL
from tests.parts.bot_api.values import ApiError, Json

# The bot gets updates of these kinds only if its `allowed_updates` contain the kind.
OPT_IN_UPDATES = frozenset({"chat_member", "message_reaction", "message_reaction_count"})
CONFLICT = "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running"
WEBHOOK_ACTIVE = (
    "Conflict: can't use getUpdates method while webhook is active; "
    "use deleteWebhook to delete the webhook first"
)


@dataclass(slots=True)
class Webhook:
    """The webhook of the bot; `certificate` is the uploaded PEM text, empty if there is none."""

    url: str = ""
    secret_token: str = field(default="", repr=False)
    max_connections: int = 40
    certificate: str = field(default="", repr=False)
    last_error: str = ""
    last_error_at: float = 0


class UpdateQueue:
    """The queue of updates. It calls `listeners`, under the lock, at every change."""

    def __init__(self, lock: RLock) -> None:
        self.lock = lock
        self.pending: list[Json] = []
        self.all_updates: list[Json] = []
        self.allowed: frozenset[str] | None = None
        self.webhook = Webhook()
        self.listeners: list[Callable[[], None]] = []
        self.poller: object = None
        self.pollers_waiting = 0
        self._ids = itertools.count(700_000_001)

    def is_allowed(self, kind: str) -> bool:
        """Return True if the bot's `allowed_updates` include a kind."""
        return kind not in OPT_IN_UPDATES if self.allowed is None else kind in self.allowed

    def push(self, kind: str, content: Json) -> None:
        if not self.is_allowed(kind):
            return
        update: Json = {"update_id": next(self._ids), kind: content}
        self.pending.append(update)
        self.all_updates.append(update)
        self.wake()

    def wake(self) -> None:
        with self.lock:
            for listener in list(self.listeners):
                listener()

    def set_allowed(self, kinds: list[object] | None) -> None:
        """Store `allowed_updates`: None changes nothing, an empty list restores the default."""
        if kinds is not None:
            self.allowed = frozenset(map(str, kinds)) or None

    def confirm(self, offset: int) -> None:
        """Drop updates with an id below an offset; an offset of -N keeps only the last N updates."""
        if offset < 0:
            del self.pending[:offset]
        elif offset:
            self.pending[:] = [update for update in self.pending if update["update_id"] >= offset]  # type: ignore[operator]

    def start_poll(self, poller: object, offset: int) -> None:
        """Start a poll, which ends an earlier poll. Raise ApiError if a webhook is set."""
        if self.webhook.url:
            raise ApiError(409, WEBHOOK_ACTIVE)
        self.poller = poller
        self.confirm(offset)
        self.wake()

    def next_batch(self, poller: object, limit: int) -> list[Json]:
        """Return pending updates; raise ApiError if another poll or a webhook replaced this poll."""
        if self.webhook.url:
            raise ApiError(409, "Conflict: terminated by setWebhook request")
        if self.poller is not poller:
            raise ApiError(409, CONFLICT)
        return self.pending[: limit if 1 <= limit <= UPDATES_PER_CALL else UPDATES_PER_CALL]

    def end_poll(self, poller: object) -> None:
        if self.poller is poller:
            self.poller = None


def long_poll_seconds(timeout: int) -> int:
    """Return the duration of a poll with this `timeout`."""
    return max(0, min(timeout, LONG_POLL_SECONDS))
