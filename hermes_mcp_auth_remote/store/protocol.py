"""What a store can do. The service uses only these protocols; `store.files` implements them with files.

All methods block, and any thread may call them. Code in an event loop calls them in a thread
(`threads.run_file_work`), except the `glance` methods and `now`, which never wait. After a fork, the child
process can use the store at once, and holds no lease of its parent.

Each write returns the version that it wrote, so a caller never takes another writer's version for its own.
A `change` function is pure: a store may call it again if another process has written in the meantime.

A server name or an owner may be any text, also one with a NUL or a lone surrogate, which some databases
refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, NamedTuple, NewType, Protocol, TypeAlias, TypeVar, cast

from hermes_mcp_auth_remote.errors import StoreError
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.oauth.client import Client
from hermes_mcp_auth_remote.oauth.refresh_failure import RefreshFailure
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.oauth.token_refusal import TokenRefusal
from hermes_mcp_auth_remote.store.credentials import Binding, Credentials
from hermes_mcp_auth_remote.values import CredentialKey, Owner

T = TypeVar("T")

Version = NewType("Version", str)
"""Identifies a stored value. Opaque: only `==` is allowed.

A key or a login never gets a version again that it had before, also not after a delete.
"""


# How many entries a listing returns at a time.
PAGE_SIZE = 1000


class _Marker(Enum):
    UNKNOWN = "unknown"
    ANY = "any"


# The result of a glance if the store cannot tell without waiting, or if a later change could give the same
# version.
UNKNOWN: Final = _Marker.UNKNOWN
Unknown: TypeAlias = Literal[_Marker.UNKNOWN]
# As the expected version of a write: replace any stored value. As a filter: match everything.
ANY: Final = _Marker.ANY
AnyValue: TypeAlias = Literal[_Marker.ANY]

ExpectedVersion: TypeAlias = Version | AnyValue | None
"""The version that a write replaces. None: the write fails if tokens are stored. ANY: no check.

A store whose leases end by time compares and writes in one step: a caller may have lost its lease.
"""


class Stored(NamedTuple):
    """Credentials and their version. The version is None if no tokens are stored."""

    credentials: Credentials
    version: Version | None


class Summary(NamedTuple):
    """A key with stored tokens, and the version of these tokens; contains no secret."""

    key: CredentialKey
    version: Version


class StoredSession(NamedTuple):
    """What is stored for a key with tokens: the credentials and both records, or why they cannot be read.

    The client may have only its id: a listing needs nothing else of it.
    """

    key: CredentialKey
    stored: Stored
    refresh_failure: RefreshFailure | None = None
    token_refusal: TokenRefusal | None = None
    error: StoreError | None = None


class DueSession(NamedTuple):
    """A session whose user must act from `remind_at` on (epoch seconds); contains no secret.

    It differs from an earlier one of the same key if the tokens or the reason to act have changed.
    """

    key: CredentialKey
    version: Version
    remind_at: float


class LoginChange(NamedTuple):
    """A login before and after a change, and the version of the record after it."""

    before: Login
    after: Login
    version: Version


class StoreConflict(StoreError):
    """Another program has replaced the tokens that a write expected. Nothing was written.

    `found` is what is stored now.
    """

    code = "store_conflict"
    advice = "Try again."

    def __init__(
        self,
        message: str,
        advice: str | None = None,
        *,
        server_message: str = "",
        found: Stored = Stored(Credentials(), None),  # noqa: B008  immutable
    ) -> None:
        super().__init__(message, advice, server_message=server_message)
        self.found = found

    def __reduce__(self) -> tuple[object, ...]:
        # Credentials contain secrets, which are never pickled.
        create, arguments, state = super().__reduce__()
        return create, arguments, {**cast("dict[str, object]", state), "found": Stored(Credentials(), None)}


@dataclass(frozen=True, slots=True)
class Poller:
    """The name of the lease that a process holds as long as it polls device logins."""

    poller_id: str


LeaseName: TypeAlias = CredentialKey | Poller
"""What a lease is for: credentials, which the holder may refresh; or a process that polls logins."""


class Lease(Protocol):
    """An exclusive right, also between threads of one process. It ends with `release` or with the process.

    A database cannot see a process die: there, a lease also ends by the time of the store's clock, and the
    store extends it while its holder lives. A holder that has lost its lease is not told. Its writes still
    count, because they name the version that they replace.
    """

    @property
    def request_sent_at(self) -> float | None:
        """When an earlier holder sent a token request, by the store's clock, if it never released its lease.

        None if no holder did so, or if tokens of the key have been stored since. The refresh token may be
        used up. So the record also stays if a later holder releases the lease without a request of its own.
        A file store does not record it.
        """
        ...

    def record_request(self) -> None:
        """Record that the holder now sends a token request; if this raises a StoreError, it sends none."""
        ...

    def release(self) -> None:
        """End the lease, and remove this holder's record of a request: it knows the result.

        Does nothing if the lease has ended, also if there is another holder by now. Raises StoreError; the
        service then goes on, and the lease ends by its time.
        """
        ...


class LeaseStore(Protocol):
    """Leases, for all threads and processes."""

    @property
    def lease_retry_seconds(self) -> float:
        """How long a caller waits before it asks again for a lease that another caller holds."""
        ...

    def try_lease(self, name: LeaseName) -> Lease | None:
        """Take a lease at once; None if another thread or process holds it. Raises StoreError."""
        ...

    def is_leased(self, name: LeaseName) -> bool:
        """True if a thread or process holds the lease. Raises StoreError."""
        ...


class CredentialStore(Protocol):
    """The credentials of each server and owner.

    A caller that reads, refreshes and writes holds the lease of the key all this time. It must also pass
    `expect`, because Hermes Agent 0.19 takes no lease.
    """

    @property
    def uses_system_clock(self) -> bool:
        """True if `now` is the wall clock of this system, which may be set while a login waits."""
        ...

    def now(self) -> float:
        """Return the time of the store's clock in epoch seconds; never waits.

        A database's clock is its own: the store measures now and then how far this system's clock is off.
        """
        ...

    def glance(self, key: CredentialKey) -> Version | Unknown | None:
        """Return the version of the stored tokens, None if there are none; never waits and never raises."""
        ...

    def read(self, key: CredentialKey) -> Stored:
        """Return what is stored, which may be empty. Raises StoreCorrupt, StoreUnsafe, StoreUnwritable."""
        ...

    def save_login(
        self,
        key: CredentialKey,
        credentials: Credentials,
        login_id: str | None = None,
        *,
        expect: ExpectedVersion = ANY,
    ) -> Version | None:
        """Store the credentials of a new login, all of them or none, and mark the login `login_id` as done.

        If client, metadata or binding is None, the stored one is removed, because it belongs to other tokens.
        The same holds for the proof key, unless tokens is None: then the stored tokens and their key stay. If
        the login `login_id` is gone or over, the credentials are stored all the same. Returns None if no
        tokens are stored. Raises StoreConflict, StoreUnwritable, StoreUnsafe.
        """
        ...

    def save_tokens(
        self, key: CredentialKey, tokens: Tokens, binding: Binding | None, *, expect: ExpectedVersion = ANY
    ) -> Version:
        """Store refreshed tokens and, unless it is None, their binding. Raises as `save_login` does."""
        ...

    def save_binding(
        self, key: CredentialKey, binding: Binding, *, expect: ExpectedVersion = ANY
    ) -> Version | None:
        """Store only a binding, such as one that says why a login is needed. Raises as `save_login` does."""
        ...

    def save_config_identity(self, key: CredentialKey, server_url: str, config_files: str) -> None:
        """Record which config.yaml and .env give the server this URL, for the fast path of `token`.

        The caller holds the lease. Does nothing if the binding is for another URL. Raises StoreError.
        """
        ...

    def drop_client(
        self, key: CredentialKey, client: Client, *, expect: ExpectedVersion = ANY
    ) -> Version | None:
        """Remove a client that the authorization server rejects, so that the next login registers a new one.

        If another client is stored by now, it stays. If the id of an unregistered client is an https URL, it
        names a client ID metadata document: record the rejection for `is_cimd_disabled`, whatever client is
        stored. Raises as `save_login` does.
        """
        ...

    def is_cimd_disabled(self, key: CredentialKey) -> bool:
        """True if the authorization server has rejected the client ID metadata document of this key.

        `drop_client` records it, and only `delete` resets it.
        """
        ...

    def check_can_store(self, key: CredentialKey) -> None:
        """Raise StoreUnwritable if new tokens certainly cannot be stored, such as on a read-only disk."""
        ...

    def recover_login(self, key: CredentialKey, login_id: str) -> bool:
        """Complete or undo the storing of a login whose process has died.

        Returns True if another process is still storing it.
        """
        ...

    def delete(self, key: CredentialKey) -> bool:
        """Remove everything that is stored for a key except its lease; True if there was something.

        The caller may hold the lease. Raises StoreError.
        """
        ...

    def list_summaries(
        self, owner: Owner | AnyValue = ANY, after: CredentialKey | None = None, limit: int = PAGE_SIZE
    ) -> list[Summary]:
        """List the stored tokens of all owners or of one, at most `limit`, in an order of the store.

        `after` is the last key of the page before, which may be deleted by now. Opens no secret. Raises
        StoreError.
        """
        ...

    def iterate_sessions(self, owner: Owner | AnyValue = ANY) -> Iterator[StoredSession]:
        """Yield the stored sessions in the order of `list_summaries`, each with credentials and records.

        A session that cannot be read has an error, and the others follow. The iterator raises StoreError. A
        store reads the sessions while the caller iterates, so that only one of them needs memory.
        """
        ...

    def list_due(
        self, now: float, after: DueSession | None = None, limit: int = PAGE_SIZE
    ) -> list[DueSession]:
        """List the sessions whose users must act at `now` (epoch seconds), at most `limit`.

        They are in the order of `remind_at`; `after` is the last one of the page before. A database stores
        `remind_at` (`store.connection.due_session`) with each write, also of a refresh failure, and opens no
        secret here. The file store keeps it in memory, because Hermes writes the same files: its first call
        reads all sessions, a later call those that have changed since. A store may list sessions of servers
        that need no user. Raises StoreError.
        """
        ...


class SessionRecordStore(Protocol[T]):
    """One small record about the tokens of each session, for other processes. No method raises."""

    def read(self, key: CredentialKey, tokens: Tokens) -> T | None:
        """Return the record of these tokens, None if there is none."""
        ...

    def write(self, key: CredentialKey, tokens: Tokens, record: T) -> None:
        """Store a record, in place of an earlier one."""
        ...

    def clear(self, key: CredentialKey) -> None:
        """Remove the stored record."""
        ...


RefreshFailureStore: TypeAlias = SessionRecordStore[RefreshFailure]
"""Why the last refresh of a session failed. A writer holds the lease of the key."""

TokenRefusalStore: TypeAlias = SessionRecordStore[TokenRefusal]
"""That a server refuses new tokens too."""


class LoginStore(Protocol):
    """Logins that wait for a user, or ended in the last hour. Any process can complete them."""

    def add(self, login: Login) -> Version:
        """Store a new login. Raises StoreUnwritable, StoreUnsafe."""
        ...

    def get(self, login_id: str) -> Login:
        """Return a login; raises LoginNotFound (also for an invalid id) and StoreError."""
        ...

    def glance(self, login_id: str) -> Version | Unknown | None:
        """Return the version of a login, None if there is none; never waits and never raises."""
        ...

    def glance_all(self) -> Version | Unknown:
        """Return a version that differs after any login was added, changed or removed.

        Never waits and never raises.
        """
        ...

    def change(self, login_id: str, apply_change: Callable[[Login], Login]) -> LoginChange:
        """Read, change and write a login in one step with respect to all processes.

        `apply_change` is pure, because it may run more than once. If it raises, nothing is written and the
        exception is passed on. Raises LoginNotFound and StoreError.
        """
        ...

    def list_all(self) -> list[Login]:
        """Return all logins in the order of their start; skips logins that cannot be read."""
        ...

    def list_open(self, owner: Owner | AnyValue = ANY, platform: str | AnyValue = ANY) -> list[Login]:
        """Return the logins that are not over, optionally of one owner or of one platform.

        They are in the order of their start. Skips logins that cannot be read.
        """
        ...

    def remove_expired(self, now: float) -> None:
        """Remove logins that expired over an hour before `now` (epoch seconds). Raises StoreError."""
        ...


@dataclass(frozen=True, slots=True)
class Notice:
    """One message to one user about one session.

    `message` is the message's id, and empty until the platform returns an id. `is_over` is True if the
    session had ended, False if it was about to end. `of_tokens` is a time that identifies the tokens of that
    session, or None if it is unknown. `at` is when a process started to write the message. Both times are in
    epoch seconds.
    """

    platform: str
    user: str
    key: CredentialKey
    is_over: bool
    at: float
    of_tokens: float | None = None
    message: str = ""

    @property
    def deduplication_key(self) -> tuple[str, str, CredentialKey]:
        """The recipient and the session; there is one notice for each combination."""
        return self.platform, self.user, self.key


class NoticeStore(Protocol):
    """The notices that users have received about their sessions: each user receives each notice once."""

    def list_all(self) -> list[Notice]:
        """Return all notices; raises StoreError."""
        ...

    def replace(self, previous: Notice | None, replacement: Notice | None) -> bool:
        """Store a notice in the place of another one with the same `deduplication_key`, in one step.

        If `previous` is None, there must be no notice with that key yet. If `replacement` is None, `previous`
        is removed. Returns False and writes nothing if another process has changed the notice first, so that
        only one process sends a message. Raises ValueError if both are None or the keys differ, StoreError.
        """
        ...


@dataclass(frozen=True, slots=True)
class Person:
    """An admitted user of a platform. `admitted_by` is a user's id, or "" for the operator's terminal.

    `admitted_at` is in epoch seconds.
    """

    platform: str
    user_id: str
    is_admin: bool
    admitted_by: str
    admitted_at: float


class PeopleStore(Protocol):
    """The users that administrators have admitted from a chat."""

    def list_all(self) -> list[Person]:
        """Return all admitted users; raises StoreError."""
        ...

    def change(self, apply_change: Callable[[list[Person]], Iterable[Person]]) -> list[Person]:
        """Read, change and write the users in one step; return them as they are after the change.

        `apply_change` is pure, because it may run more than once. Raises StoreError.
        """
        ...


class Store(CredentialStore, LeaseStore, Protocol):
    """Everything that one HERMES_HOME, or one database, stores."""

    @property
    def logins(self) -> LoginStore:
        """The logins."""
        ...

    @property
    def refresh_failures(self) -> RefreshFailureStore:
        """The last failed refresh of each session."""
        ...

    @property
    def token_refusals(self) -> TokenRefusalStore:
        """The refusals of tokens that were just refreshed."""
        ...

    @property
    def notices(self) -> NoticeStore:
        """The notices to users."""
        ...

    @property
    def people(self) -> PeopleStore:
        """The users that administrators have admitted from a chat."""
        ...
