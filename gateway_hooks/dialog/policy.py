"""Who may log in, whose the tokens are then, and how often: the operator decides. Nobody, unless listed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from gateway_hooks.dialog.platform import Sender
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.values import Owner

OwnershipMode = Literal["shared", "per_user"]

# A person can hardly follow more at once (RFC 8628 section 5.1 and RFC 10027 ask for a cap).
MAX_WAITING_PER_USER = 3
MAX_STARTS_PER_HOUR = 10
# All people of one bot together: far more than ever log in at once, and little enough to keep up with.
MAX_WAITING = 1000
# An unknown person is answered so often, and then no more.
UNKNOWN_USER_REPLY_SECONDS = 3600.0

Refusal = Literal["too_many", "too_often", "too_busy"]


class Policy(Protocol):
    """Who may. An application that knows its people itself brings its own."""

    def may_talk(self, sender: Sender) -> bool:
        """True where this person may use the bot at all."""
        ...

    def may_change(self, sender: Sender) -> bool:
        """True where this person may connect and disconnect."""
        ...

    def owner(self, platform: str, user_id: str) -> Owner:
        """Return whose tokens a login of this user becomes; None for those that all share."""
        ...

    def reminder_recipients(self) -> tuple[str, ...]:
        """Return the users who hear that a shared connection needs a person."""
        ...


@dataclass(frozen=True, slots=True)
class AllowList:
    """A policy by lists of ids (as text). Fails closed: who is on no list may nothing.

    `admins` change what is shared; None: everybody who may talk. With `guilds`, a person must also come from
    one of them, or be named in `users` or `admins`. `owners` says whose the tokens are.
    """

    users: frozenset[str] = frozenset()
    admins: frozenset[str] | None = None
    roles: frozenset[str] = frozenset()
    admin_roles: frozenset[str] = frozenset()
    guilds: frozenset[str] = frozenset()
    owners: OwnershipMode = "shared"

    def may_talk(self, sender: Sender) -> bool:
        """True where the person, or one of their roles, is listed."""
        if sender.user_id in self.users or sender.user_id in (self.admins or ()):
            return True
        return self._has_role(self.roles | self.admin_roles, sender)

    def may_change(self, sender: Sender) -> bool:
        """True for everybody's own tokens; shared ones are for administrators, where any are named."""
        if not self.may_talk(sender):
            return False
        if self.owners == "per_user" or (self.admins is None and not self.admin_roles):
            return True
        return sender.user_id in (self.admins or ()) or self._has_role(self.admin_roles, sender)

    def _has_role(self, role_ids: frozenset[str], sender: Sender) -> bool:
        """True where one of the roles is the sender's, in a guild whose roles count."""
        return bool(sender.roles & role_ids) and (not self.guilds or sender.guild_id in self.guilds)

    def owner(self, platform: str, user_id: str) -> Owner:
        """Return "platform:user", or None where all share."""
        return f"{platform}:{user_id}" if self.owners == "per_user" else None

    def reminder_recipients(self) -> tuple[str, ...]:
        """Return the administrators; without any, the one person on the list, where there is but one."""
        if self.admins is not None:
            return tuple(sorted(self.admins))
        return tuple(self.users) if len(self.users) == 1 else ()


def refusal(logins: Iterable[Login], platform: str, user_id: str, now: float) -> Refusal | None:
    """Say why a person may not begin another login now; None where they may. `now` is in epoch seconds."""
    here = [login for login in logins if login.origin.platform == platform]
    waiting = [login for login in here if login.status == "waiting"]
    theirs = [login for login in here if login.origin.user_id == user_id]
    if sum(login.status == "waiting" for login in theirs) >= MAX_WAITING_PER_USER:
        return "too_many"
    if sum(login.started_at > now - 3600 for login in theirs) >= MAX_STARTS_PER_HOUR:
        return "too_often"
    return "too_busy" if len(waiting) >= MAX_WAITING else None
