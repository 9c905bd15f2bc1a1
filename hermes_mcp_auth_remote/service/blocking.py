"""What is stored, for callers that may block: the command line, and functions that run in threads.

An event loop must not call these methods: a store may take long, such as a database that is far away. The
methods of `AuthService` with the same names are for event loops.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.login import Connection, Login
from hermes_mcp_auth_remote.oauth.urls import is_same_address
from hermes_mcp_auth_remote.service.complete_login import LoginCompletion
from hermes_mcp_auth_remote.service.dependencies import Dependencies
from hermes_mcp_auth_remote.service.leases import release_lease
from hermes_mcp_auth_remote.service.redirect_uris import redirect_uri_for
from hermes_mcp_auth_remote.store.connection import connection_from_credentials
from hermes_mcp_auth_remote.store.credentials import Credentials
from hermes_mcp_auth_remote.store.protocol import (
    ANY,
    AnyValue,
    DueSession,
    NoticeStore,
    PeopleStore,
    StoredSession,
)
from hermes_mcp_auth_remote.traceback_redaction import hiding_locals, with_hidden_locals
from hermes_mcp_auth_remote.values import CredentialKey, Owner, Server

if TYPE_CHECKING:
    from hermes_mcp_auth_remote.config import Configuration


@with_hidden_locals
class BlockingReader:
    """Reads the store of a service in the caller's thread. Any thread may use it (`AuthService.blocking`)."""

    def __init__(self, deps: Dependencies, completion: LoginCompletion) -> None:
        self._deps = deps
        self._completion = completion

    def login(self, login_id: str) -> Login:
        """Return the current state of a login; raises LoginNotFound, StoreError."""
        return self._completion.get(login_id)

    def logins(self) -> list[Login]:
        """List the stored logins in the order of their start, and mark those that have expired.

        The file store reads only the records that have changed since the last call. Starting a login removes
        the logins that expired over an hour ago.
        """
        return [self._completion.with_expiry(login) for login in self._deps.store.logins.list_all()]

    def waiting_logins(self) -> list[Login]:
        """List the logins that wait for a user, in the order of their start."""
        return [login for login in self.logins() if login.status == "waiting"]

    def unanswered_login(self, server: Server, owner: Owner = None) -> Login | None:
        """Return the last login of a server and owner if it ended without a response from the provider.

        If there is such a login, the next login registers another client. Raises StoreError.
        """
        from hermes_mcp_auth_remote.service.unanswered_logins import unanswered_login  # noqa: PLC0415

        key, store = CredentialKey(server.name, owner), self._deps.store
        credentials = store.read(key).credentials
        return unanswered_login(store.logins.list_all(), key, credentials, self._deps.login_time)

    def connection(self, server: Server, owner: Owner = None) -> Connection | None:
        """Return the connection of a server and owner, or None if no token is stored. Raises StoreError."""
        key = CredentialKey(server.name, owner)
        stored = self._deps.store.read(key).credentials
        if stored.tokens is None:
            return None
        failure = self._deps.store.refresh_failures.read(key, stored.tokens)
        refusal = self._deps.store.token_refusals.read(key, stored.tokens)
        return connection_from_credentials(key, server.url, stored, failure, refusal)

    def read_credentials(self, server: Server, owner: Owner = None) -> Credentials:
        """Return the stored credentials of a server and owner, secrets included; raises StoreError."""
        return self._deps.store.read(CredentialKey(server.name, owner)).credentials

    def redirect_uri(self, server: Server, owner: Owner = None) -> str:
        """Return the redirect URI that a login of this server should use; the caller may listen on it."""
        return redirect_uri_for(server, self.read_credentials(server, owner).client, self._deps.entropy)

    def is_cimd_disabled(self, server: Server, owner: Owner = None) -> bool:
        """True if the authorization server has rejected our metadata document (CIMD); raises StoreError."""
        return self._deps.store.is_cimd_disabled(CredentialKey(server.name, owner))

    def save_config_identity(self, server: Server, owner: Owner = None) -> None:
        """Record which config.yaml and .env define the server, for the fast path of the `token` command.

        Does nothing if they are recorded already, or if another process holds the lease. Raises StoreError.
        """
        key, store = CredentialKey(server.name, owner), self._deps.store
        binding = store.read(key).credentials.binding
        if server.config_files is None or binding is None or binding.config_files == server.config_files:
            return
        if not is_same_address(binding.server_url, server.url):
            return
        if (lease := store.try_lease(key)) is not None:
            try:
                store.save_config_identity(key, binding.server_url, server.config_files)
            finally:
                release_lease(lease)

    def keys(self, owner: Owner | AnyValue = ANY) -> list[CredentialKey]:
        """List every server and owner with stored tokens, or those of one owner; raises StoreError."""
        store, keys = self._deps.store, list[CredentialKey]()
        while page := store.list_summaries(owner, keys[-1] if keys else None):
            keys += [summary.key for summary in page]
        return keys

    def sessions(
        self, configuration: Configuration, owner: Owner | AnyValue = ANY
    ) -> Iterator[tuple[StoredSession, Server | McpAuthError]]:
        """Yield the stored sessions of all owners or of one, secrets included, each with its server.

        If the server cannot be determined, the error comes in its place (`server_lookup.server_of_session`).
        The iterator raises StoreError.
        """
        from hermes_mcp_auth_remote.service.server_lookup import server_of_session  # noqa: PLC0415  only some commands need it

        store = self._deps.store
        with hiding_locals():
            for session in store.iterate_sessions(owner):
                server: Server | McpAuthError
                try:
                    server = server_of_session(session, configuration, store)
                except McpAuthError as error:
                    server = error
                yield session, server

    def find_server(
        self, name_or_url: str, owner: Owner, configuration: Configuration, *, with_suggestions: bool = True
    ) -> Server:
        """Return the server with a name or an address (`server_lookup.find_server`)."""
        # Imported when a program names a server: a bot has its servers from config.yaml.
        from hermes_mcp_auth_remote.service.server_lookup import find_server  # noqa: PLC0415

        store = self._deps.store
        return find_server(name_or_url, owner, configuration, store, with_suggestions=with_suggestions)

    def names_meant(
        self, configured_names: Collection[str], login_names: Collection[str], owner: Owner
    ) -> tuple[str, ...]:
        """Return the names of the servers that an address means (`server_lookup.names_meant`)."""
        from hermes_mcp_auth_remote.service.server_lookup import names_meant  # noqa: PLC0415  as above

        return names_meant(configured_names, login_names, owner, self._deps.store)

    def stored_names(self, owner: Owner) -> list[str]:
        """List the names of the servers with a stored or waiting login of an owner. Raises StoreError."""
        from hermes_mcp_auth_remote.service.server_lookup import stored_names  # noqa: PLC0415  as above

        return stored_names(owner, self._deps.store)

    def due_sessions(self, now: float) -> list[DueSession]:
        """List the sessions whose users must act at `now` (epoch seconds), the longest due first.

        Some may be of servers that need no user. Raises StoreError.
        """
        store, sessions = self._deps.store, list[DueSession]()
        while page := store.list_due(now, sessions[-1] if sessions else None):
            sessions += page
        return sessions

    @property
    def people(self) -> PeopleStore:
        """The users that administrators have admitted in a chat."""
        return self._deps.store.people

    @property
    def notices(self) -> NoticeStore:
        """The notices that tell chat users that a session needs a login."""
        return self._deps.store.notices
