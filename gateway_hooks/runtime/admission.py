"""Admit users from the chat: a pairing code for the first administrator, then `/approve` and `/people`.

Codes are in memory only, work once and expire after ten minutes. After five wrong tries by any users, the
pairing code is invalid. A code only adds a user to the list that the store keeps.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from gateway_hooks.dialog.platform import Sender
from gateway_hooks.dialog.policy import AllowList
from hermes_mcp_auth_remote.errors import StoreError
from hermes_mcp_auth_remote.store.protocol import PeopleStore, Person
from hermes_mcp_auth_remote.values import Clock, Owner

CODE_SECONDS = 600.0
MAX_WRONG_TRIES = 5
MAX_REQUESTS = 1000
# Letters and digits that cannot be mistaken for each other. Eight of them have 38 bits.
CODE_ALPHABET, CODE_CHARS = "BCDFGHJKLMNPQRSTVWXZ2346789", 8
# A click on the link that `serve` prints sends the start command with this prefix and the code.
PAIR_PAYLOAD_PREFIX = "pair_"


def make_code() -> str:
    """Create a pairing code."""
    return "".join(secrets.choice(CODE_ALPHABET) for _ in range(CODE_CHARS))


@dataclass(frozen=True, slots=True)
class _Code:
    code: str
    valid_until: float


class Admission:
    """A policy that allows the users of an `AllowList`, and users admitted from the chat of one platform."""

    def __init__(
        self,
        allow_list: AllowList,
        platform: str,
        people_store: PeopleStore,
        clock: Clock,
        new_code: Callable[[], str] = make_code,
    ) -> None:
        """Read the admitted users; raises StoreError."""
        self.allow_list = allow_list
        self._platform = platform
        self._people_store = people_store
        self._clock = clock
        self._new_code = new_code
        self._owner_code: _Code | None = None
        self._wrong_tries = 0
        self._requests: dict[str, _Code] = {}
        self._policy = allow_list
        self._people: list[Person] = []
        self.reload()

    # The Policy protocol.

    def may_talk(self, sender: Sender) -> bool:
        """Return True if the user is listed or admitted."""
        return self._policy.may_talk(sender)

    def may_change(self, sender: Sender) -> bool:
        """Return True if the user may connect and disconnect servers."""
        return self._policy.may_change(sender)

    def owner(self, platform: str, user_id: str) -> Owner:
        """Return the owner of the tokens of this user's logins."""
        return self._policy.owner(platform, user_id)

    def reminder_recipients(self) -> tuple[str, ...]:
        """Return the users to remind of shared connections."""
        return self._policy.reminder_recipients()

    # Admission.

    @property
    def has_no_users(self) -> bool:
        """True if no user may use the bot yet."""
        policy = self._policy
        return not (policy.users or policy.admins or policy.roles or policy.admin_roles)

    def is_admin(self, sender: Sender) -> bool:
        """Return True for an administrator. If none is configured, return True for the operator's users."""
        return self._policy.is_admin(sender)

    @property
    def allows_urls(self) -> bool:
        """True if administrators may connect a server that the operator has not configured."""
        return self._policy.allows_urls

    def start_pairing(self) -> str:
        """Return a new code for the first administrator, for the operator's terminal."""
        self._owner_code, self._wrong_tries = _Code(self._new_code(), self._clock() + CODE_SECONDS), 0
        return self._owner_code.code

    def redeem(self, text: str, user_id: str) -> bool:
        """Make the user an administrator if the text is the pairing code; raises StoreError.

        Blocking. Each wrong text that looks like a code is counted; the fifth makes the pairing code invalid.
        """
        word = text.strip().removeprefix(PAIR_PAYLOAD_PREFIX).upper()
        owner_code = self._owner_code
        if owner_code is None or not _looks_like_code(word):
            return False
        if self._clock() >= owner_code.valid_until:
            self._owner_code = None
            return False
        if not hmac.compare_digest(word, owner_code.code):
            self._wrong_tries += 1
            if self._wrong_tries >= MAX_WRONG_TRIES:
                self._owner_code = None
            return False
        # Another user may send the code at the same moment.
        self._owner_code = None
        try:
            self._add(Person(self._platform, user_id, True, "", self._clock()))  # noqa: FBT003
        except StoreError:
            self._owner_code = owner_code
            raise
        return True

    def request_code(self, user_id: str) -> str:
        """Return the code with which an administrator can admit this stranger."""
        now = self._clock()
        self._requests = {
            requester: request for requester, request in self._requests.items() if request.valid_until > now
        }
        if user_id not in self._requests and len(self._requests) >= MAX_REQUESTS:
            del self._requests[next(iter(self._requests))]
        request = self._requests.setdefault(user_id, _Code(self._new_code(), now + CODE_SECONDS))
        return request.code

    def approve(self, text: str, admin_id: str) -> str | None:
        """Admit the stranger with this code and return the stranger's id. Raises StoreError.

        Return None if the code is unknown.
        """
        word, now = text.strip().upper(), self._clock()
        for user_id, request in self._requests.items():
            if request.valid_until > now and hmac.compare_digest(
                word.encode("utf-8", "replace"), request.code.encode()
            ):
                del self._requests[user_id]
                self._add(Person(self._platform, user_id, False, admin_id, now))  # noqa: FBT003
                return user_id
        return None

    def people(self) -> list[Person]:
        """Return the admitted users of this platform."""
        return [person for person in self._people if person.platform == self._platform]

    def revoke(self, user_id: str) -> bool:
        """Remove an admitted user; return False if this user is not admitted. Raises StoreError."""
        had_person = any(person.user_id == user_id for person in self.people())
        self._change(
            lambda people: [
                person for person in people if (person.platform, person.user_id) != (self._platform, user_id)
            ]
        )
        return had_person

    def reload(self) -> None:
        """Read the admitted users again; raises StoreError."""
        self._set_people(self._people_store.list_all())

    def _add(self, person: Person) -> None:
        self._change(
            lambda people: [
                *(
                    other
                    for other in people
                    if (other.platform, other.user_id) != (person.platform, person.user_id)
                ),
                person,
            ]
        )

    def _change(self, apply_change: Callable[[list[Person]], list[Person]]) -> None:
        self._set_people(self._people_store.change(apply_change))

    def _set_people(self, people: list[Person]) -> None:
        self._people = people
        base, own = self.allow_list, self.people()
        admin_ids = {person.user_id for person in own if person.is_admin}
        admins = base.admins
        if own and admins is None and not base.admin_roles:
            # Without administrators, every listed user may change connections, but admitted users must not.
            admins = base.users
        if admin_ids:
            admins = (admins or frozenset()) | admin_ids
        self._policy = AllowList(
            base.users | {person.user_id for person in own},
            admins,
            base.roles,
            base.admin_roles,
            base.guilds,
            base.owners,
            connect_urls=base.connect_urls,
        )


def _looks_like_code(word: str) -> bool:
    return len(word) == CODE_CHARS and all(character in CODE_ALPHABET for character in word)
