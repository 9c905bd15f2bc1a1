"""Cache the rendered prompt of each login until its text changes.

`PromptMessages` compares all prompts whenever any login changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway_hooks.dialog.cards import Card
from gateway_hooks.dialog.rendering import Renderer, next_countdown_at
from hermes_mcp_auth_remote.login import Login, PromptReason
from hermes_mcp_auth_remote.values import Clock


@dataclass(frozen=True, slots=True)
class _CachedPrompt:
    login: Login
    may_use_device: bool
    reason: PromptReason
    rendered_at: float
    valid_until: float
    card: Card


class PromptCache:
    """The prompts of one platform. `allows_device` returns whether a login may use the device flow."""

    def __init__(self, renderer: Renderer, allows_device: Callable[[Login], bool], clock: Clock) -> None:
        self._renderer = renderer
        self._allows_device = allows_device
        self._clock = clock
        self._cached_prompts: dict[str, _CachedPrompt] = {}

    def card(self, login: Login, reason: PromptReason = "unknown") -> Card:
        """Return the prompt of a login that waits or exchanges its code. `reason`: why the user gets it."""
        now, may_use_device = self._clock(), self._allows_device(login)
        cached = self._cached_prompts.get(login.id)
        # Until a login changes, the store returns the same object for it.
        is_same = (
            cached is not None
            and cached.login is login
            and (cached.may_use_device, cached.reason) == (may_use_device, reason)
        )
        if cached is not None and is_same and cached.rendered_at <= now < cached.valid_until:
            return cached.card
        card = self._renderer.prompt_card(login, now, may_use_device=may_use_device, reason=reason)
        self._cached_prompts[login.id] = _CachedPrompt(
            login, may_use_device, reason, now, next_countdown_at(login, now), card
        )
        return card

    def forget(self, login_id: str) -> None:
        """Remove a login that is over."""
        self._cached_prompts.pop(login_id, None)
