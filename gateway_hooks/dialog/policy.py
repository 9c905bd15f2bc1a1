"""Decide which users may log in, who owns their tokens, and how often they may start logins."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from gateway_hooks.dialog.platform import Sender
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.values import Owner, OwnershipMode, owner_for

# RFC 8628 section 5.1 and RFC 10027 ask for a cap.
MAX_WAITING_PER_USER = 3
MAX_STARTS_PER_HOUR = 10
# The limit for all users of one bot together: far above real use, and low enough for one process.
MAX_WAITING = 1000
# The bot answers an unknown user at most once in this time. The code in it is valid for the same time.
UNKNOWN_USER_REPLY_SECONDS = 600.0

Refusal = Literal["too_many", "too_often", "too_busy"]


class Policy(Protocol):
    """Decides what users may do. An application with its own user database can implement this."""

    def may_talk(self, sender: Sender) -> bool:
        """Return True if this user may use the bot."""
        ...

    def may_change(self, sender: Sender) -> bool:
        """Return True if this user may connect and disconnect servers."""
        ...

    def owner(self, platform: str, user_id: str) -> Owner:
        """Return the owner of the tokens from this user's logins; None if all users share them."""
        ...

    def reminder_recipients(self) -> tuple[str, ...]:
        """Return the ids of the users to remind when a shared connection needs a login."""
        ...


@runtime_checkable
class UrlPolicy(Protocol):
    """The part of a policy that lets administrators connect servers by their address.

    With a policy that has no such part, users connect only the servers of the operator.
    """

    @property
    def allows_urls(self) -> bool:
        """True if administrators may connect a server that the operator has not configured."""
        ...

    def is_admin(self, sender: Sender) -> bool:
        """Return True for an administrator, also if each user has their own tokens."""
        ...


def allows_urls(policy: Policy) -> bool:
    """Return True if a policy lets administrators connect servers by their address."""
    return isinstance(policy, UrlPolicy) and policy.allows_urls


def may_log_in(policy: Policy, sender: Sender, *, is_configured: bool) -> bool:
    """Return True if a user may log in to a server. `is_configured`: the operator has configured it."""
    if not policy.may_change(sender):
        return False
    return is_configured or (isinstance(policy, UrlPolicy) and policy.allows_urls and policy.is_admin(sender))


UserIds = Iterable[str | int]
"""Ids of a platform, as numbers or as text."""


@dataclass(frozen=True, slots=True, init=False)
class AllowList:
    """A policy of id lists. A user who is on no list may do nothing.

    `admins` may change shared connections; None allows every user who may talk. If `guilds` is set, roles
    count only in those guilds. The ids in `users` and `admins` count everywhere. `owners`: "shared" or
    "per_user" tokens.
    `connect_urls`: administrators may connect servers that the operator has not configured; None allows this
    if each user has their own tokens.
    """

    users: frozenset[str] = frozenset()
    admins: frozenset[str] | None = None
    roles: frozenset[str] = frozenset()
    admin_roles: frozenset[str] = frozenset()
    guilds: frozenset[str] = frozenset()
    owners: OwnershipMode = "shared"
    connect_urls: bool | None = None

    def __init__(
        self,
        users: UserIds = (),
        admins: UserIds | None = None,
        roles: UserIds = (),
        admin_roles: UserIds = (),
        guilds: UserIds = (),
        owners: OwnershipMode = "shared",
        *,
        connect_urls: bool | None = None,
    ) -> None:
        """Raise TypeError if an argument is one id instead of a set of ids."""
        values = {
            "users": _ids(users, "users"),
            "admins": None if admins is None else _ids(admins, "admins"),
            "roles": _ids(roles, "roles"),
            "admin_roles": _ids(admin_roles, "admin_roles"),
            "guilds": _ids(guilds, "guilds"),
            "owners": owners,
            "connect_urls": connect_urls,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def may_talk(self, sender: Sender) -> bool:
        """Return True if the user, or one of their roles, is listed."""
        if sender.user_id in self.users or sender.user_id in (self.admins or ()):
            return True
        return self._has_role(self.roles | self.admin_roles, sender)

    def may_change(self, sender: Sender) -> bool:
        """Return True if the user may talk.

        If the tokens are shared and there are administrators, the user must also be an administrator.
        """
        if not self.may_talk(sender):
            return False
        if self.owners == "per_user" or (self.admins is None and not self.admin_roles):
            return True
        return self.is_admin(sender)

    @property
    def allows_urls(self) -> bool:
        """True if administrators may connect a server that the operator has not configured."""
        return self.owners == "per_user" if self.connect_urls is None else self.connect_urls

    def is_admin(self, sender: Sender) -> bool:
        """Return True for an administrator; if none is named, for each user that `users` lists."""
        if self.admins is None and not self.admin_roles:
            return sender.user_id in self.users
        return sender.user_id in (self.admins or ()) or self._has_role(self.admin_roles, sender)

    def _has_role(self, role_ids: frozenset[str], sender: Sender) -> bool:
        """Return True if the sender has one of the roles, in a guild whose roles count."""
        return bool(sender.roles & role_ids) and (not self.guilds or sender.guild_id in self.guilds)

    def owner(self, platform: str, user_id: str) -> Owner:
        """Return "<platform>:<user id>", or None if all users share the tokens."""
        return owner_for(self.owners, platform, user_id)

    def reminder_recipients(self) -> tuple[str, ...]:
        """Return the administrators. If `admins` is None, return the listed user if there is exactly one."""
        if self.admins is not None:
            return tuple(sorted(self.admins))
        return tuple(self.users) if len(self.users) == 1 else ()


def _ids(values: UserIds, name: str) -> frozenset[str]:
    """Return ids as text. Raises TypeError for one id alone: each character of a str would become an id."""
    if isinstance(values, (str, int)):
        raise TypeError(f"{name} is a set of ids: write {name}={{{values!r}}}.")
    ids = list(values)
    if any(type(value) not in {str, int} for value in ids):
        raise TypeError(f"{name} holds ids: numbers, or numbers as text.")
    return frozenset(str(value) for value in ids)


def refusal(
    logins: Iterable[Login],
    platform: str,
    user_id: str,
    now: float,
    failed_starts: Collection[float] = (),
) -> Refusal | None:
    """Return why a user may not start another login now; None if the user may. `now`: epoch seconds.

    `failed_starts` are the times at which this user's logins failed to start. No login was stored for them.
    """
    platform_logins = [login for login in logins if login.origin.platform == platform]
    waiting_logins = [login for login in platform_logins if login.status == "waiting"]
    user_logins = [login for login in platform_logins if login.origin.user_id == user_id]
    if sum(login.status == "waiting" for login in user_logins) >= MAX_WAITING_PER_USER:
        return "too_many"
    started_times = (*(login.started_at for login in user_logins), *failed_starts)
    if sum(started_at > now - 3600 for started_at in started_times) >= MAX_STARTS_PER_HOUR:
        return "too_often"
    return "too_busy" if len(waiting_logins) >= MAX_WAITING else None
