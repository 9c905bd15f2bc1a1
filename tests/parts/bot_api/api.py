"""The interface for tests: users, faults, and the URLs for the bot."""

from __future__ import annotations

from tests.parts.bot_api.extended_user_actions import ExtendedUserActions
from tests.parts.bot_api.faults import FaultInjection, RateLimits
from tests.parts.bot_api.state import BotApiState
from tests.parts.bot_api.values import User


class BotApi(ExtendedUserActions, FaultInjection):
    """The endpoint: the actions of users, what they see, injected faults, and the URLs for the bot."""

    def __init__(self, state: BotApiState, origin: str, token: str, *, rate_limits: bool) -> None:
        ExtendedUserActions.__init__(self, state)
        FaultInjection.__init__(self)
        self.origin = origin
        self.token = token
        self.internal_errors: list[str] = []
        self.rate_limits: RateLimits | None = RateLimits(state.clock) if rate_limits else None

    @property
    def base_url(self) -> str:
        """Return the value for `ApplicationBuilder().base_url(...)`, which appends the token."""
        return f"{self.origin}/bot"

    @property
    def base_file_url(self) -> str:
        return f"{self.origin}/file/bot"

    @property
    def bot(self) -> User:
        return self.state.bot

    @property
    def is_polling(self) -> bool:
        """Return True while a long poll of the bot waits."""
        return self.state.updates.pollers_waiting > 0
