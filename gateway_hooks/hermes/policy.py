"""Who may, inside Hermes: its own authorisation and tier of administrators, asked anew at each event."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from gateway_hooks.dialog.platform import Sender
from gateway_hooks.hermes import internals as hermes
from hermes_mcp_auth_remote.values import Owner


@dataclass(frozen=True, slots=True)
class HermesSender(Sender):
    """Somebody who speaks in a place that Hermes knows; `where` is its SessionSource."""

    source: Any = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class HermesPolicy:
    """The policy of one adapter's people. Tokens are shared: Hermes has no others.

    A login that is asked for in a group ends in private, so what it takes must be allowed in both places.
    """

    gateway: Any
    adapter_ref: hermes.AdapterRef

    def may_talk(self, sender: Sender) -> bool:
        """True where Hermes listens to this person, there."""
        return hermes.is_user_authorized(self.gateway, self.source_of(sender))

    def may_run(self, sender: Sender) -> bool:
        """True where this person may type our command there; Hermes itself tells others that not."""
        rules = hermes.slash_policy(self.gateway, self.source_of(sender))
        return rules is None or bool(rules.can_run(sender.user_id, hermes.COMMAND))

    def may_change(self, sender: Sender) -> bool:
        """True for administrators, or for everybody where the operator has named none."""
        return all(self._may_change_at(sender.user_id, where) for where in self.required_sources(sender))

    def required_sources(self, sender: Sender) -> tuple[Any, ...]:
        """Return the places in which this person must be allowed."""
        return self.source_of(sender), hermes.make_source(self.adapter_ref, sender.user_id)

    def owner(self, platform: str, user_id: str) -> Owner:  # noqa: ARG002  the protocol's
        """Return None: whoever logs in does so for all."""
        return None

    def reminder_recipients(self) -> tuple[str, ...]:
        """Return the administrators of private chats; without any, the one person whom Hermes listens to."""
        rules = hermes.slash_policy(self.gateway, hermes.make_source(self.adapter_ref, "0"))
        admins: list[str] = sorted(str(user) for user in getattr(rules, "admin_user_ids", ()))
        if not admins:
            listed = os.environ.get(f"{self.adapter_ref.platform_name.upper()}_ALLOWED_USERS", "").split(",")
            people = [user.strip() for user in listed if user.strip().isalnum()]
            admins = people if len(people) == 1 else []
        return tuple(admins)

    def source_of(self, sender: Sender) -> Any:  # noqa: ANN401  Hermes's own
        """Return where somebody speaks, as Hermes describes it; in private where nothing else is known."""
        where = sender.source if isinstance(sender, HermesSender) else None
        return hermes.make_source(self.adapter_ref, sender.user_id) if where is None else where

    def _may_change_at(self, user_id: str, source: Any) -> bool:  # noqa: ANN401
        if not hermes.is_user_authorized(self.gateway, source):
            return False
        rules = hermes.slash_policy(self.gateway, source)
        return rules is not None and bool(rules.is_admin(user_id))
