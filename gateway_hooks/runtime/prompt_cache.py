"""What each login's prompt says now, made anew only where that is another text than the last time.

The board asks for all of them whenever anything has happened to any.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway_hooks.dialog.cards import Card
from gateway_hooks.dialog.rendering import Conversation, next_mark
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.values import Clock


@dataclass(frozen=True, slots=True)
class _Made:
    login: Login
    may_use_device: bool
    made_at: float
    until: float
    card: Card


class Prompts:
    """The prompts of one platform. `allows_device` says whether a login may go on by a device."""

    def __init__(
        self, conversation: Conversation, allows_device: Callable[[Login], bool], clock: Clock
    ) -> None:
        self._conversation = conversation
        self._allows_device = allows_device
        self._clock = clock
        self._made: dict[str, _Made] = {}

    def card(self, login: Login) -> Card:
        """Return what is shown of a login that waits, or is being exchanged."""
        now, may_use_device = self._clock(), self._allows_device(login)
        known = self._made.get(login.id)
        # The store hands out the same value until a login changes.
        is_same = known is not None and known.login is login and known.may_use_device == may_use_device
        if known is not None and is_same and known.made_at <= now < known.until:
            return known.card
        card = self._conversation.prompt(login, now, may_use_device=may_use_device)
        self._made[login.id] = _Made(login, may_use_device, now, next_mark(login, now), card)
        return card

    def forget(self, login_id: str) -> None:
        """Let go of a login that is over."""
        self._made.pop(login_id, None)
