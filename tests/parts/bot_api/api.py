"""The interface for tests: users, faults, and the URLs for the bot."""

from __future__ import annotations

from tests.parts.bot_api.shapes import Shapes
from tests.parts.bot_api.trouble import RateLimits, Troubles
from tests.parts.bot_api.values import User
from tests.parts.bot_api.world import World


class BotApi(Shapes, Troubles):
    """The endpoint: the actions of users, what they see, injected faults, and the URLs for the bot."""

    def __init__(self, world: World, origin: str, token: str, *, rate_limits: bool) -> None:
        Shapes.__init__(self, world)
        Troubles.__init__(self)
        self.origin = origin
        self.token = token
        self.faults: list[str] = []
        self.rate_limits: RateLimits | None = RateLimits(world.clock) if rate_limits else None

    @property
    def base_url(self) -> str:
        """Return the value for `ApplicationBuilder().base_url(...)`, which appends the token."""
        return f"{self.origin}/bot"

    @property
    def base_file_url(self) -> str:
        return f"{self.origin}/file/bot"

    @property
    def bot(self) -> User:
        return self.world.bot

    @property
    def polling(self) -> bool:
        """Return True while a long poll of the bot waits."""
        return self.world.updates.pollers_waiting > 0
