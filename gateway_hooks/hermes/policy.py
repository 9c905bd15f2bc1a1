"""Decide which users may log in, by Hermes's rules and administrators. Each event is checked."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from gateway_hooks.dialog.platform import Sender
from gateway_hooks.hermes import internals as hermes
from hermes_mcp_auth_remote.values import Owner


@dataclass(frozen=True, slots=True)
class HermesSender(Sender):
    """The sender and the chat of a message. `source` is Hermes's SessionSource for both."""

    source: Any = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class HermesPolicy:
    """The policy for the users of one adapter. All users share tokens: Hermes has no tokens per user.

    If a user requests a login in a group, it ends in a private chat. So the user must be allowed in both.
    """

    gateway: Any
    adapter_ref: hermes.AdapterRef

    def may_talk(self, sender: Sender) -> bool:
        """Return whether Hermes answers this user in the chat of the message."""
        return hermes.is_user_authorized(self.gateway, self.source_of(sender))

    def may_run(self, sender: Sender) -> bool:
        """Return whether this user may run /mcpauth in that chat. If not, Hermes refuses the command."""
        rules = hermes.slash_policy(self.gateway, self.source_of(sender))
        return rules is None or bool(rules.can_run(sender.user_id, hermes.COMMAND))

    def may_change(self, sender: Sender) -> bool:
        """Return whether this user is an administrator. If the operator named none, every user is one."""
        return all(self._may_change_at(sender.user_id, source) for source in self.required_sources(sender))

    def required_sources(self, sender: Sender) -> tuple[Any, ...]:
        """Return the SessionSources in which this user must be allowed."""
        return self.source_of(sender), hermes.make_source(self.adapter_ref, sender.user_id)

    def owner(self, platform: str, user_id: str) -> Owner:  # noqa: ARG002  the protocol's
        """Return None: a login serves all users."""
        return None

    def reminder_recipients(self) -> tuple[str, ...]:
        """Return the administrators of private chats.

        If there are none and exactly one user is allowed, return that user.
        """
        rules = hermes.slash_policy(self.gateway, hermes.make_source(self.adapter_ref, "0"))
        admins: list[str] = sorted(str(user) for user in getattr(rules, "admin_user_ids", ()))
        if not admins:
            allowed = os.environ.get(f"{self.adapter_ref.platform_name.upper()}_ALLOWED_USERS", "").split(",")
            users = [user.strip() for user in allowed if user.strip().isalnum()]
            admins = users if len(users) == 1 else []
        return tuple(admins)

    def source_of(self, sender: Sender) -> Any:  # noqa: ANN401  Hermes's own
        """Return the sender's SessionSource; if none is known, the SessionSource of the private chat."""
        source = sender.source if isinstance(sender, HermesSender) else None
        return hermes.make_source(self.adapter_ref, sender.user_id) if source is None else source

    def _may_change_at(self, user_id: str, source: Any) -> bool:  # noqa: ANN401
        if not hermes.is_user_authorized(self.gateway, source):
            return False
        rules = hermes.slash_policy(self.gateway, source)
        return rules is not None and bool(rules.is_admin(user_id))
