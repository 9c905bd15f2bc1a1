"""What each login's prompt says now, made anew only where that is another text than the last time.

The board asks for all of them whenever anything has happened to any.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway_hooks.dialog.cards import Card
from gateway_hooks.dialog.rendering import Renderer, next_countdown_at
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.values import Clock


@dataclass(frozen=True, slots=True)
class _CachedPrompt:
    login: Login
    may_use_device: bool
    rendered_at: float
    valid_until: float
    card: Card


class PromptCache:
    """The prompts of one platform. `allows_device` says whether a login may go on by a device."""

    def __init__(self, renderer: Renderer, allows_device: Callable[[Login], bool], clock: Clock) -> None:
        self._renderer = renderer
        self._allows_device = allows_device
        self._clock = clock
        self._cached_prompts: dict[str, _CachedPrompt] = {}

    def card(self, login: Login) -> Card:
        """Return what is shown of a login that waits, or is being exchanged."""
        now, may_use_device = self._clock(), self._allows_device(login)
        known = self._cached_prompts.get(login.id)
        # The store hands out the same value until a login changes.
        is_same = known is not None and known.login is login and known.may_use_device == may_use_device
        if known is not None and is_same and known.rendered_at <= now < known.valid_until:
            return known.card
        card = self._renderer.prompt_card(login, now, may_use_device=may_use_device)
        self._cached_prompts[login.id] = _CachedPrompt(
            login, may_use_device, now, next_countdown_at(login, now), card
        )
        return card

    def forget(self, login_id: str) -> None:
        """Let go of a login that is over."""
        self._cached_prompts.pop(login_id, None)
