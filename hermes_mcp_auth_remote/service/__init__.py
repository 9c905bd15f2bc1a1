"""The service: the interface of this package for adapters, bindings and the command line.

`AuthService` starts and completes logins, returns sessions, and reads and writes stored credentials.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from pathlib import Path
from typing import TypeVar

from hermes_mcp_auth_remote.errors import McpAuthError, StoreError
from hermes_mcp_auth_remote.exit_delay import ExitDelay
from hermes_mcp_auth_remote.login import Connection, Login, PromptReason
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.metadata import Discovery, discover_metadata
from hermes_mcp_auth_remote.oauth.wire import Exchange
from hermes_mcp_auth_remote.service.blocking import BlockingReader
from hermes_mcp_auth_remote.service.boot_clock import read_boot_time
from hermes_mcp_auth_remote.service.chat_advice import ChatAdvice
from hermes_mcp_auth_remote.service.complete_login import LoginCompletion
from hermes_mcp_auth_remote.service.dependencies import Dependencies, ExchangeRunner
from hermes_mcp_auth_remote.service.device_logins import DeviceLogins
from hermes_mcp_auth_remote.service.known_servers import KnownServers
from hermes_mcp_auth_remote.service.leases import acquire_lease
from hermes_mcp_auth_remote.service.logins import Logins
from hermes_mcp_auth_remote.service.prompting import InteractiveLogins
from hermes_mcp_auth_remote.service.redirect_uris import new_redirect_uri
from hermes_mcp_auth_remote.service.refresh import TokenSource
from hermes_mcp_auth_remote.service.revocation import revoke_tokens
from hermes_mcp_auth_remote.service.sessions import Session
from hermes_mcp_auth_remote.service.single_flight import join
from hermes_mcp_auth_remote.store.connection import connection_from_credentials
from hermes_mcp_auth_remote.store.credentials import Credentials
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.store.protocol import ANY, AnyValue, Notice, Store, Unknown, Version
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.timeouts import TIME_LIMITS, TimeLimits
from hermes_mcp_auth_remote.traceback_redaction import with_hidden_locals
from hermes_mcp_auth_remote.values import (
    BootClock,
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
    # Imported with the first request: a process with a valid token sends none.
    from hermes_mcp_auth_remote.http.client import run_exchange  # noqa: PLC0415

    return await run_exchange(exchange, server)


def _make_exchange_runner(limits: TimeLimits) -> ExchangeRunner:
    async def run_with_limits(exchange: Exchange[T], server: Server) -> T:
        from hermes_mcp_auth_remote.http.client import run_exchange  # noqa: PLC0415  as in _run_exchange

        return await run_exchange(exchange, server, response_seconds=limits.response_seconds, limits=limits)

    return run_with_limits


def _select_store(home: Path | None, store: Store | None) -> Store:
    if home is not None and store is None:
        return FileStore(home)
    if store is None or home is not None:
        raise TypeError("AuthService takes either a home or a store.")
    return store


@with_hidden_locals
class AuthService:
    """Logins, sessions and stored credentials of one store. Any thread or event loop may use it.

    The coroutine methods call the store in worker threads, so they never block the event loop. The same reads
    for callers without an event loop are methods of `blocking`. The other methods never wait for the store.
    """

    def __init__(
        self,
        home: Path | None = None,
        *,
        store: Store | None = None,
        run_exchange: ExchangeRunner = _run_exchange,
        clock: Clock | None = None,
        boot_clock: BootClock | None = None,
        entropy: Entropy = secrets.token_urlsafe,
        device_platforms: Collection[str] | None = None,
        limits: TimeLimits = TIME_LIMITS,
    ) -> None:
        """Create the service of a HERMES_HOME or of another store; pass exactly one of the two.

        Tests pass their own network, clock and entropy. The default clock is that of the store.

        `device_platforms` are the values of `Origin.platform` on which the device flow is allowed. None
        allows all platforms; an empty collection allows none.
        """
        platforms = None if device_platforms is None else frozenset(device_platforms)
        # A runner that the caller passed also sends the device polls. None: polls use pooled connections.
        poll_runner = None if run_exchange is _run_exchange else run_exchange
        if run_exchange is _run_exchange and limits is not TIME_LIMITS:
            run_exchange = _make_exchange_runner(limits)
        store = _select_store(home, store)
        if clock is None and store.uses_system_clock:
            # The system clock may be set while a login waits.
            boot_clock = boot_clock or read_boot_time
        chat_advice = None if home is None else ChatAdvice(home, store.people)
        self._deps = Dependencies(
            store, run_exchange, clock or store.now, entropy, platforms, limits, boot_clock, chat_advice
        )
        self._servers = KnownServers()
        self._completion = LoginCompletion(self._deps, self._servers.server_of)
        device_logins = DeviceLogins(self._deps, self._completion, self._servers.server_of, poll_runner)
        self._logins = Logins(self._deps, self._completion, device_logins)
        self._interactive_logins = InteractiveLogins(self._deps, self._logins)
        # The reads for callers without an event loop, such as the command line.
        self.blocking = BlockingReader(self._deps, self._completion)
        self._sessions: dict[tuple[CredentialKey, str], Session] = {}

    def preload_modules(self) -> None:
        """Import the modules that the first login would import, for long-lived programs."""
        from hermes_mcp_auth_remote.http import client  # noqa: PLC0415
        from hermes_mcp_auth_remote.service import start_login  # noqa: PLC0415

        _ = client, start_login

    def register_server(self, server: Server) -> None:
        """Use this server's options for logins that another process started under its name."""
        self._servers.add(server)

    def session(self, server: Server, owner: Owner = None) -> Session:
        """Return the session of a server and owner; all callers share one object."""
        self.register_server(server)
        key = CredentialKey(server.name, owner)
        tokens = TokenSource(self._deps, server, key)
        return self._sessions.setdefault(
            (key, server.url), Session(tokens, self._interactive_logins, self._deps.clock, server, key)
        )

    async def needs_token(self, server: Server) -> bool | None:
        """Send a server a request without a token; return whether it demands a token, None if unknown.

        It is unknown if the server responds that it has a temporary problem. Raises a ServerError or
        NetworkError.
        """
        from hermes_mcp_auth_remote.flows.discovery import needs_token  # noqa: PLC0415  most programs log in

        return await self._deps.run_exchange(needs_token(server), server)

    async def redirect_uri(self, server: Server, owner: Owner = None) -> str:
        """Return the redirect URI that a login of this server should use; the caller may listen on it."""
        return await run_file_work(self.blocking.redirect_uri, server, owner)

    def new_redirect_uri(self, server: Server) -> str:
        """Return a redirect URI on a new loopback port; a login with it registers a new client."""
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
        """Start a login and store it. Stored credentials stay until the login succeeds.

        `origin` is where the user asked for the login; the user must complete it there or at a terminal.
        Pass `redirect_uri` if the caller listens on it. A caller that can show a user code
        (`Login.shown_code`) passes the flow "auto" or "device"; `wait_for_login` then polls the
        authorization server and completes the login. If `flow` is None, the login uses the device flow only
        if it is configured. Raises a ServerError, NetworkError, ConfigError or StoreError.
        """
        self.register_server(server)
        key = CredentialKey(server.name, owner)
        return await self._logins.start_login(
            server, key, origin, redirect_uri=redirect_uri, challenge=challenge, flow=flow
        )

    async def switch_flow(self, login_id: str, flow: Flow) -> Login:
        """Switch a waiting login to "paste" or "device" and return it; "device" also requests a new code.

        Raises DeviceRefused if there is no device flow, a LoginError if the login no longer waits, or what
        `start_login` raises. The login is then unchanged.
        """
        login = await self._logins.get(login_id)
        return await self._logins.switch_flow(login_id, flow, self._servers.server_of(login))

    async def complete_login(
        self, login_id: str, text: str | Secret, origin: Origin, *, is_pasted: bool = True
    ) -> Connection:
        """Complete a login with a pasted or received redirect URL (untrusted text); return the connection.

        `is_pasted` is False if a listener received the URL from a browser: then it is taken exactly as it is.
        If the user pasted an error of the provider, the login may continue with another link: call `login`
        after a PasteRefused to get it.

        Raises PasteRefused if the login still waits, or a LoginError, ServerError or NetworkError if it has
        failed. The credentials of an earlier login stay unless new ones replace them.
        """
        text = as_secret(text)
        if not is_pasted:
            # RFC 3986 appendix C: the quotation marks delimit the address, so its end is certain.
            text = Secret(f'"{text.reveal()}"')
        login = await self._logins.get(login_id)
        server = self._servers.server_of(login)
        credentials = await self._logins.complete_login(login_id, text, origin, server, is_pasted=is_pasted)
        if credentials.tokens is not None:
            self.session(server, login.key.owner).adopt(credentials.tokens, credentials.proof_key)
        return connection_from_credentials(login.key, login.server_url, credentials)

    async def login(self, login_id: str) -> Login:
        """Return the current state of a login; raises LoginNotFound, StoreError."""
        return await run_file_work(self.blocking.login, login_id)

    async def wait_for_login(self, login_id: str) -> Login:
        """Wait until a login is over, in this or another process, and return it. Polls a device login."""
        return await self._logins.wait_for_login(login_id)

    def allows_device(self, login: Login) -> bool:
        """True if the operator allows the device flow for this login."""
        return self._deps.allows_device(self._servers.server_of(login), login.origin)

    async def cancel(self, login_id: str) -> Login:
        """Cancel a login if it still waits, and return its new state."""
        return await self._logins.cancel(login_id)

    async def save_prompt_message(
        self, login_id: str, message_id: str, reason: PromptReason | None = None
    ) -> Login:
        """Store the id of the chat message that now shows a login, and return the login.

        The ids of earlier messages stay in the record, after this id. Unless `reason` is None, also store why
        the chat shows the login. Raises LoginNotFound, StoreError.
        """
        return await self._logins.save_prompt_message(login_id, message_id, reason)

    async def save_messages(self, login_id: str, message_ids: tuple[str, ...]) -> Login:
        """Store the ids of the chat messages that show a login, the prompt first; return the login.

        The process that continues the login updates these messages. Raises LoginNotFound, StoreError.
        """
        return await self._logins.save_messages(login_id, message_ids)

    async def change_extra_messages(
        self, login_id: str, *, added: Collection[str] = (), removed: Collection[str] = ()
    ) -> Login:
        """Add or remove ids of messages that the bot must delete when a login ends; return the login.

        A login whose prompt is not known does not change. Raises LoginNotFound, StoreError.
        """
        return await self._logins.change_extra_messages(login_id, added=added, removed=removed)

    async def logins(self) -> list[Login]:
        """List the stored logins in the order of their start, and mark those that have expired.

        The file store reads only the records that have changed since the last call. Starting a login removes
        the logins that expired over an hour ago.
        """
        return await run_file_work(self.blocking.logins)

    def glance_logins(self) -> Version | Unknown:
        """Return a version that differs after any login has changed; never waits.

        UNKNOWN (`store.protocol`) does not equal any version: the caller must list the logins.
        """
        return self._deps.store.logins.glance_all()

    async def waiting_logins(self) -> list[Login]:
        """List the logins that wait for a user, in the order of their start."""
        return await run_file_work(self.blocking.waiting_logins)

    async def connection(self, server: Server, owner: Owner = None) -> Connection | None:
        """Return the connection of a server and owner, or None if no token is stored. Raises StoreError."""
        return await run_file_work(self.blocking.connection, server, owner)

    async def discover(self, server: Server) -> Discovery:
        """Find a server's authorization server; raises a ServerError or NetworkError."""
        options = server.options
        discovery = discover_metadata(
            server.url,
            Challenge(),
            trusted_issuers=options.trusted_issuers,
            configured_issuer=options.authorization_server,
            configured_resource=options.resource or None,
        )
        return await self._deps.run_exchange(discovery, server)

    async def read_credentials(self, server: Server, owner: Owner = None) -> Credentials:
        """Return the stored credentials of a server and owner, secrets included; raises StoreError."""
        return await run_file_work(self.blocking.read_credentials, server, owner)

    async def unanswered_login(self, server: Server, owner: Owner = None) -> Login | None:
        """Return the last login of a server and owner if it ended without a response from the provider.

        If there is such a login, the next login registers another client. Raises StoreError.
        """
        return await run_file_work(self.blocking.unanswered_login, server, owner)

    async def is_cimd_disabled(self, server: Server, owner: Owner = None) -> bool:
        """True if the authorization server has rejected our metadata document (CIMD); raises StoreError."""
        return await run_file_work(self.blocking.is_cimd_disabled, server, owner)

    async def save_credentials(self, server: Server, credentials: Credentials, owner: Owner = None) -> None:
        """Store the credentials of a login that another library completed, and use them from now on.

        Raises StoreError. If the caller is cancelled, the credentials are stored all the same.
        """
        key, store = CredentialKey(server.name, owner), self._deps.store

        async def save_under_lock() -> None:
            with ExitDelay() as hold:
                hold.hold_for_storing(server.name, self._deps.limits.lock_seconds)
                async with acquire_lease(store, key, self._deps.limits.lock_seconds):
                    store.save_login(key, credentials)

        await join(self._deps.storing_flights.submit(object(), save_under_lock, server.url))
        if credentials.tokens is not None:
            self.session(server, owner).adopt(credentials.tokens, credentials.proof_key)

    async def keys(self, owner: Owner | AnyValue = ANY) -> list[CredentialKey]:
        """List every server and owner with stored tokens, or those of one owner; raises StoreError."""
        return await run_file_work(self.blocking.keys, owner)

    async def list_notices(self) -> list[Notice]:
        """List the notices that tell chat users that a session needs a login; raises StoreError."""
        return await run_file_work(self.blocking.notices.list_all)

    async def replace_notice(self, previous: Notice | None, replacement: Notice | None) -> bool:
        """Store a notice in the place of another one; return False if another process changed that one first.

        If `previous` is None, there is none yet. If `replacement` is None, removes `previous`. Raises
        StoreError.
        """
        return await run_file_work(self.blocking.notices.replace, previous, replacement)

    async def logout(self, server: Server, owner: Owner = None) -> bool:
        """Try to revoke the tokens at the authorization server, then delete the stored credentials.

        Ends waiting and exchanging logins, because completing one would log the user in again. Returns True
        if the authorization server accepted the revocation. Raises StoreError.
        """
        key = CredentialKey(server.name, owner)
        await self._completion.end_logins(key)
        store = self._deps.store
        async with acquire_lease(store, key, self._deps.limits.lock_seconds, in_flight=False):
            try:
                stored = await run_file_work(self.session(server, owner).read_credentials)
            except StoreError:
                # Unreadable credentials cannot be revoked; delete them all the same.
                stored = Credentials()
            try:
                revoked = await self._deps.run_exchange(
                    revoke_tokens(stored, await run_file_work(self._deps.signer_for, server)), server
                )
            except McpAuthError:
                # For example, a CA file is missing. Delete the stored credentials all the same.
                revoked = False
            await run_file_work(store.delete, key)
        self.session(server, owner).clear_cache()
        return revoked
