"""The service: all that adapters, bindings and the command line know of us.

`AuthService` is put together once from its edges and hands out logins, sessions and what is stored.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection
from pathlib import Path
from typing import TypeVar

from hermes_mcp_auth_remote.errors import McpAuthError, StoreError
from hermes_mcp_auth_remote.exit_hold import ExitHold
from hermes_mcp_auth_remote.login import Connection, Login
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.metadata import Discovery, discover_metadata
from hermes_mcp_auth_remote.oauth.wire import Exchange
from hermes_mcp_auth_remote.service.connections import connection_from_credentials, revoke_tokens
from hermes_mcp_auth_remote.service.dependencies import Dependencies, ExchangeRunner
from hermes_mcp_auth_remote.service.logins import Logins
from hermes_mcp_auth_remote.service.prompting import InteractiveLogins
from hermes_mcp_auth_remote.service.sessions import Session
from hermes_mcp_auth_remote.service.single_flight import acquire_lock, join
from hermes_mcp_auth_remote.service.start_login import new_redirect_uri, redirect_uri_for
from hermes_mcp_auth_remote.store.credentials import Credentials
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.store.files.notice_files import NoticeFile
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.timeouts import TIME_LIMITS, TimeLimits
from hermes_mcp_auth_remote.traceback_redaction import with_hidden_locals
from hermes_mcp_auth_remote.values import (
    Clock,
    CredentialKey,
    Entropy,
    Flow,
    Origin,
    Owner,
    Secret,
    Server,
    as_secret,
)

T = TypeVar("T")


async def _run_exchange(exchange: Exchange[T], server: Server) -> T:
    # Loaded when something is asked of a server; a process with a good token never does.
    from hermes_mcp_auth_remote.http.client import run_exchange  # noqa: PLC0415

    return await run_exchange(exchange, server)


def _make_exchange_runner(limits: TimeLimits) -> ExchangeRunner:
    async def run_with_limits(exchange: Exchange[T], server: Server) -> T:
        from hermes_mcp_auth_remote.http.client import run_exchange  # noqa: PLC0415  as above

        return await run_exchange(exchange, server, response_seconds=limits.response_seconds, limits=limits)

    return run_with_limits


@with_hidden_locals
class AuthService:
    """Logins, sessions and stored credentials of one HERMES_HOME. Any thread or event loop may use it.

    What is a coroutine leaves files to threads; what is not reads a small file or two, in a millisecond.
    """

    def __init__(
        self,
        home: Path,
        *,
        run_exchange: ExchangeRunner = _run_exchange,
        clock: Clock = time.time,
        entropy: Entropy = secrets.token_urlsafe,
        device_platforms: Collection[str] | None = None,
        limits: TimeLimits = TIME_LIMITS,
    ) -> None:
        """Put the service together; the edges are parameters, for tests.

        `device_platforms` are those of an Origin at which logins may go by a code for another device (None:
        all of them; none: nowhere).
        """
        platforms = None if device_platforms is None else frozenset(device_platforms)
        # Polls go out over connections that are kept, unless the way out is somebody else's.
        poll_run = None if run_exchange is _run_exchange else run_exchange
        if run_exchange is _run_exchange and limits is not TIME_LIMITS:
            run_exchange = _make_exchange_runner(limits)
        self._deps = Dependencies(FileStore(home), run_exchange, clock, entropy, platforms, limits)
        self._logins = Logins(self._deps, self._server_of, poll_run)
        self._interactive_logins = InteractiveLogins(self._deps, self._logins)
        # Whom chats have told that a session needs a person.
        self.notices = NoticeFile(self._deps.store.root)
        self._sessions: dict[tuple[CredentialKey, str], Session] = {}
        self._servers: dict[str, Server] = {}

    def preload_modules(self) -> None:
        """Load the code that the first login would load: for programs that live long."""
        from hermes_mcp_auth_remote.http import client  # noqa: PLC0415
        from hermes_mcp_auth_remote.service import start_login  # noqa: PLC0415

        _ = client, start_login

    def register_server(self, server: Server) -> None:
        """Use this server's options for logins that were begun by its name elsewhere."""
        self._servers[server.name] = server

    def session(self, server: Server, owner: Owner = None) -> Session:
        """Return the session of a server and owner: the same one to all who ask."""
        self.register_server(server)
        key = CredentialKey(server.name, owner)
        return self._sessions.setdefault(
            (key, server.url), Session(self._deps, self._interactive_logins, server, key)
        )

    def redirect_uri(self, server: Server, owner: Owner = None) -> str:
        """Return the redirect URI that a login of this server would best use, for whoever wants to listen."""
        stored = self._deps.store.read(CredentialKey(server.name, owner))
        return redirect_uri_for(server, stored.client, self._deps.entropy)

    def new_redirect_uri(self, server: Server) -> str:
        """Return a redirect URI on another loopback port than the last; a login with it registers anew."""
        return new_redirect_uri(server, self._deps.entropy)

    async def start_login(
        self,
        server: Server,
        origin: Origin,
        *,
        owner: Owner = None,
        redirect_uri: str | None = None,
        challenge: Challenge | None = None,
        flow: Flow | None = None,
    ) -> Login:
        """Begin a login and store it; what is stored of an earlier one stays until this one succeeds.

        `origin` is where it was asked for, and where it may be finished. `redirect_uri` is given by whoever
        listens there. Whoever can show a user code (`Login.shown_code`) passes the flow "auto", or "device":
        the login is then finished by `settled`, which polls. Without, it is "device" only where configured.
        Raises a ServerError, NetworkError, ConfigError or StoreError.
        """
        self.register_server(server)
        key = CredentialKey(server.name, owner)
        return await self._logins.start_login(
            server, key, origin, redirect_uri=redirect_uri, challenge=challenge, flow=flow
        )

    async def switch_flow(self, login_id: str, flow: Flow) -> Login:
        """Let a login that waits go on as "paste" or "device", the latter also for a new code; returns it.

        Raises DeviceRefused where there is no device flow, a LoginError where it waits no more, or a
        NetworkError; it then goes on as before.
        """
        login = await run_file_work(self._logins.get, login_id)
        return await self._logins.switch_flow(login_id, flow, self._server_of(login))

    async def complete_login(self, login_id: str, text: str | Secret, origin: Origin) -> Connection:
        """Finish a login with a pasted or received redirect URL (hostile text); returns what is connected.

        Raises PasteRefused where the login goes on waiting; a LoginError, ServerError or NetworkError where
        it is over. Whatever happens, an earlier login's credentials stay unless new ones took their place.
        """
        text = as_secret(text)
        login = await run_file_work(self._logins.get, login_id)
        server = self._server_of(login)
        credentials = await self._logins.complete_login(login_id, text, origin, server)
        if credentials.tokens is not None:
            self.session(server, login.key.owner).adopt(credentials.tokens, credentials.proof_key)
        return connection_from_credentials(login.key, login.server_url, credentials)

    def _server_of(self, login: Login) -> Server:
        server = self._servers.get(login.key.server_name)
        if server is None or server.url != login.server_url:
            return Server(login.key.server_name, login.server_url)
        return server

    def login(self, login_id: str) -> Login:
        """Return a login as it is now; raises LoginNotFound."""
        return self._logins.get(login_id)

    async def wait_for_login(self, login_id: str) -> Login:
        """Wait until a login is over, whichever process ends it, and return it; polls for one by a device."""
        return await self._logins.wait_for_login(login_id)

    def allows_device(self, login: Login) -> bool:
        """True where the operator lets a login go on by a code for another device."""
        return self._deps.allows_device(self._server_of(login), login.origin)

    async def cancel(self, login_id: str) -> Login:
        """Cancel a login that still waits, and return it as it then is."""
        return await self._logins.cancel(login_id)

    async def save_prompt_message(self, login_id: str, message_id: str) -> Login:
        """Keep the id of the chat message that shows a login from now on; returns the login.

        What showed it before stays noted, behind it. Raises LoginNotFound, StoreError.
        """
        return await self._logins.save_prompt_message(login_id, message_id)

    async def save_messages(self, login_id: str, message_ids: tuple[str, ...]) -> Login:
        """Keep the ids of the chat messages that show a login, the prompt first; returns the login.

        Whichever process goes on with it brings them up to date. Raises LoginNotFound, StoreError.
        """
        return await self._logins.save_messages(login_id, message_ids)

    def logins(self) -> list[Login]:
        """List all logins that have not been over for an hour, in the order in which they were begun.

        Reads what has changed since the last time, and writes down what has expired.
        """
        return [self._logins.with_expiry(login) for login in self._deps.store.logins.list_all()]

    def logins_changed_at_ns(self) -> int:
        """Return when a login was last added or changed, by the disk's clock in nanoseconds: one `stat`."""
        return self._deps.store.logins.changed_at()

    def waiting_logins(self) -> list[Login]:
        """List the logins that wait for a person, in the order in which they were begun."""
        return [login for login in self.logins() if login.status == "waiting"]

    def connection(self, server: Server, owner: Owner = None) -> Connection | None:
        """Return what is stored for a server and owner, None where no token is."""
        key = CredentialKey(server.name, owner)
        stored = self._deps.store.read(key)
        if stored.tokens is None:
            return None
        failure = self._deps.store.refresh_failures.read(key, stored.tokens)
        return connection_from_credentials(key, server.url, stored, failure)

    async def discover(self, server: Server) -> Discovery:
        """Find a server's authorization server; raises a ServerError or NetworkError."""
        options = server.options
        found = discover_metadata(
            server.url,
            Challenge(),
            trusted_issuers=options.trusted_issuers,
            configured_issuer=options.authorization_server,
        )
        return await self._deps.run_exchange(found, server)

    def read_credentials(self, server: Server, owner: Owner = None) -> Credentials:
        """Return all that is stored for a server and owner, secrets included; raises StoreError."""
        return self._deps.store.read(CredentialKey(server.name, owner))

    async def save_credentials(self, server: Server, credentials: Credentials, owner: Owner = None) -> None:
        """Store what a login brought that a library made in its own way, and use it from now on.

        Raises StoreError. Being cancelled loses nothing.
        """
        key, store = CredentialKey(server.name, owner), self._deps.store

        async def save_under_lock() -> None:
            with ExitHold() as hold:
                hold.hold_for_storing(server.name, self._deps.limits.lock_seconds)
                async with acquire_lock(store.lock(key), self._deps.limits.lock_seconds):
                    store.save_login(key, credentials)

        await join(self._deps.storing_flights.submit(object(), save_under_lock, server.url))
        if credentials.tokens is not None:
            self.session(server, owner).adopt(credentials.tokens, credentials.proof_key)

    def keys(self) -> list[CredentialKey]:
        """List every server and owner with stored tokens."""
        return self._deps.store.list_keys()

    async def logout(self, server: Server, owner: Owner = None) -> bool:
        """Revoke the tokens at the authorization server as best it goes, then delete all that is stored.

        Logins that wait, or are being exchanged, end: whoever finished one would be logged in again. True
        where the authorization server took the revocation. Raises StoreError.
        """
        key = CredentialKey(server.name, owner)
        await self._logins.end_logins(key)
        lock = await run_file_work(self._deps.store.lock, key)
        async with acquire_lock(lock, self._deps.limits.lock_seconds):
            try:
                stored = await run_file_work(self.session(server, owner).read_credentials)
            except StoreError:
                # What cannot be read cannot be revoked; it goes all the same.
                stored = Credentials()
            try:
                revoked = await self._deps.run_exchange(
                    revoke_tokens(stored, self._deps.signer_for(server)), server
                )
            except McpAuthError:
                # Such as a CA file that is gone; what is stored here goes all the same.
                revoked = False
            await run_file_work(self._deps.store.delete, key)
        self.session(server, owner).clear_cache()
        return revoked
