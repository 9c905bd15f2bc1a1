"""Complete a login: claim it, then store its tokens or mark it failed (state table: `login`).

No other module lets a login change the stored credentials.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace

from hermes_mcp_auth_remote.errors import (
    AuthorizationDenied,
    LoginError,
    LoginExpired,
    McpAuthError,
    PasteRefused,
    StoreError,
    TokenError,
)
from hermes_mcp_auth_remote.exit_delay import hold_exit_for_storing
from hermes_mcp_auth_remote.login import (
    Login,
    LoginEvent,
    LoginStatus,
    apply_event,
    is_expired,
    is_same_prompt,
    login_state_error,
    matches_origin,
)
from hermes_mcp_auth_remote.oauth.client import with_auth_method
from hermes_mcp_auth_remote.oauth.token import Tokens, require_dpop
from hermes_mcp_auth_remote.oauth.token_errors import UNKNOWN_CLIENT_ERRORS
from hermes_mcp_auth_remote.oauth.urls import host_of
from hermes_mcp_auth_remote.service.dependencies import Dependencies
from hermes_mcp_auth_remote.service.leases import acquire_lease
from hermes_mcp_auth_remote.service.revocation import revoke_tokens
from hermes_mcp_auth_remote.service.single_flight import join
from hermes_mcp_auth_remote.store.credentials import Binding, Credentials
from hermes_mcp_auth_remote.store.protocol import LoginStore
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.timeouts import TIME_LIMITS
from hermes_mcp_auth_remote.values import CredentialKey, Origin, Secret, Server

# If a login is still `exchanging` after this time, the process that claimed it has ended.
CLAIM_SECONDS = TIME_LIMITS.claim_seconds
# If the user enters the code at the last moment, a last poll gets the tokens after the login's time is over.
# So only the poller marks a device login as expired at once; other processes wait this much longer.
LAST_POLL_SECONDS = TIME_LIMITS.exchange_seconds + 10.0


class LoginCompletion:
    """Completes, fails and cancels logins for all flows."""

    def __init__(self, deps: Dependencies, server_of: Callable[[Login], Server]) -> None:
        self._deps = deps
        self._server_of = server_of

    def get(self, login_id: str) -> Login:
        """Return the current state of a login, expired if its time is over; raises LoginNotFound."""
        return self.with_expiry(self._deps.store.logins.get(login_id))

    def with_expiry(self, login: Login) -> Login:
        """Return the login, expired or failed if its time is over."""
        if self._is_over(login):
            return self._deps.store.logins.change(login.id, _expire_login).after
        if login.status == "exchanging" and self._deps.login_time(login) >= login.expires_at:
            if self._deps.exchange_flights.is_running(login.id) or self._deps.storing_flights.is_running(
                login.id
            ):
                # The time is over only because the clock was set or the machine slept: this process still
                # works on the login.
                return login
            # The tokens may be stored already.
            is_being_stored = self._deps.store.recover_login(login.key, login.id)
            if (current := self._deps.store.logins.get(login.id)).status != "exchanging":
                return current
            if is_being_stored:
                # Another live process is storing the tokens. Marking the login failed would not stop it.
                return login
            error = LoginError("The process that was completing this login ended too early.")
            return self.fail_login(login.id, error, expected_status="exchanging")
        return login

    def _is_over(self, login: Login) -> bool:
        """True if a login's time is over. A device login also has time for the response to a last poll."""
        grace_seconds = 0.0 if login.poll_state is None else LAST_POLL_SECONDS
        return is_expired(login, self._deps.login_time(login) - grace_seconds)

    def claim(self, login: Login) -> Login:
        """Claim a login for the token exchange; one caller succeeds, the others get a LoginError."""
        expires_at = self._deps.clock() + CLAIM_SECONDS
        deadline = self._deps.deadline_after(CLAIM_SECONDS)

        def apply_claim(current: Login) -> Login:
            # The login may have expired since it was read.
            current = _expire_login(current) if self._is_over(current) else current
            if current.status == "waiting" and not is_same_prompt(current, login):
                raise PasteRefused("This login was switched to another flow elsewhere.", "Look at it again.")
            # From now on, the time limit of the exchange applies, not that of the user.
            return replace(apply_event(current, "claim"), expires_at=expires_at, deadline=deadline)

        return self._deps.store.logins.change(login.id, apply_claim).after

    async def save_granted_tokens(
        self, login: Login, tokens: Tokens, proof_key: Secret | None
    ) -> Credentials:
        """Store the tokens of a claimed login and return the stored credentials.

        Raises MalformedResponse if the operator requires DPoP and the tokens are not bound to a key, a
        LoginError if the login has ended meanwhile (for example by a logout), or a StoreError. In each
        case, the login is over. If the tokens are not stored, this method has tried to revoke them.
        """
        config_files = self._server_of(login).config_files
        credentials = credentials_of(login, tokens, proof_key, self._deps.clock(), config_files)
        try:
            require_dpop(tokens, self._server_of(login).options, host_of(login.request.issuer))
        except McpAuthError as error:
            await run_file_work(self.fail_exchange, login, error)
            await self.revoke_unused_tokens(login, tokens)
            raise
        hold_exit_for_storing(login.key.server_name, self._deps.limits.lock_seconds)
        try:
            # One lane per server: if storing fails, the flight revokes the tokens, and that server may hang.
            flight = self._deps.storing_flights.submit(
                login.id, lambda: self._save_credentials(login, credentials), login.server_url
            )
        except RuntimeError:
            # The process is ending and can start no thread.
            return await self._save_credentials(login, credentials)
        return await join(flight) or credentials

    async def _save_credentials(self, login: Login, new_credentials: Credentials) -> Credentials:
        """Store the credentials of a login and return what was stored; runs in the thread of a flight."""
        store, credentials = self._deps.store, new_credentials
        try:
            # A refresh in another process must not overwrite the new tokens.
            async with acquire_lease(store, login.key, self._deps.limits.lock_seconds):
                current = _reread_login(store.logins, login)
                if current.status == "exchanging":
                    with contextlib.suppress(StoreError):
                        credentials = carry_over_refresh_token(store.read(login.key).credentials, credentials)
                    store.save_login(login.key, credentials, login.id)
                    return credentials
        except StoreError as error:
            self.fail_exchange(login, error)
            # Revoke tokens that are not stored. The error may also come after the tokens were written.
            if new_credentials.tokens is not None and not self._is_stored(login.key, new_credentials.tokens):
                await self.revoke_unused_tokens(login, new_credentials.tokens)
            raise
        # A user who logged out, or saw the login end, must not be logged in afterwards.
        if new_credentials.tokens is not None:
            await self.revoke_unused_tokens(login, new_credentials.tokens)
        raise login_state_error(current)

    def _is_stored(self, key: CredentialKey, tokens: Tokens) -> bool:
        try:
            stored = self._deps.store.read(key).credentials.tokens
        except StoreError:
            return False
        return stored is not None and stored.access_token == tokens.access_token

    async def revoke_unused_tokens(self, login: Login, tokens: Tokens) -> None:
        """Try to revoke tokens that are not stored; ignores errors."""
        server = self._server_of(login)
        unused_credentials = Credentials(tokens, login.request.client, login.authorization_server)
        with contextlib.suppress(McpAuthError):
            await self._deps.run_exchange(
                revoke_tokens(unused_credentials, self._deps.signer_for(server)), server
            )

    async def end_logins(self, key: CredentialKey) -> None:
        """Cancel the waiting logins of a server and owner, and mark exchanging logins failed."""
        error = LoginError("This login was ended by a logout.")
        for login in await run_file_work(self._deps.store.logins.list_open, key.owner):
            if login.key == key:
                await run_file_work(
                    self._deps.store.logins.change,
                    login.id,
                    lambda it: apply_event(it, "cancel") if it.status == "waiting" else it,
                )
                await run_file_work(self.fail_exchange, login, error)

    def fail_exchange(self, login: Login, error: McpAuthError) -> None:
        """Mark an exchanging login failed; a store error must not hide `error` from the user."""
        with contextlib.suppress(StoreError, LoginError):
            self.fail_login(login.id, error, expected_status="exchanging")
            self._drop_unknown_client(login, error)

    def fail_device_login(self, login: Login, error: McpAuthError) -> None:
        """Mark a device login failed, unless it was switched to another flow or code since."""
        is_same = is_same_prompt(self._deps.store.logins.get(login.id), login)
        if is_same:
            self.fail_login(login.id, error, expected_status="waiting")
            self._drop_unknown_client(login, error)

    def _drop_unknown_client(self, login: Login, error: McpAuthError) -> None:
        is_unknown = isinstance(error, TokenError) and error.error == "invalid_client"
        # The authorization page may also say that the server does not know the client (quirk 49).
        is_unknown |= isinstance(error, AuthorizationDenied) and error.error in UNKNOWN_CLIENT_ERRORS
        if is_unknown:
            # The next login registers a new client. A refresh with the unknown client would fail too.
            self._deps.store.drop_client(login.key, login.request.client)

    def fail_login(self, login_id: str, error: McpAuthError, *, expected_status: LoginStatus) -> Login:
        """Mark a login failed if it has this status, and return it; else return it unchanged."""

        def apply_failure(login: Login) -> Login:
            if login.status != expected_status:
                return login
            failure = (str(error), error.advice)
            event: LoginEvent = (
                "expire" if expected_status == "waiting" and isinstance(error, LoginExpired) else "fail"
            )
            failed = replace(apply_event(login, event), failure=failure, failure_code=error.code)
            return replace(failed, server_message=error.server_message)

        return self._deps.store.logins.change(login_id, apply_failure).after


def credentials_of(
    login: Login, tokens: Tokens, proof_key: Secret | None, now: float, config_files: str | None = None
) -> Credentials:
    """Return the credentials to store for a login and its tokens. `now` is in epoch seconds.

    `config_files` is the identity of the files that configure the server's URL (`Server.config_files`).
    """
    request = login.request
    client = request.client
    if tokens.client_auth_method is not None:
        client = with_auth_method(client, tokens.client_auth_method)
    binding = Binding(
        server_name=login.key.server_name,
        server_url=login.server_url,
        issuer=request.issuer,
        client_id=request.client.client_id,
        resource=request.resource,
        requested_scope=request.scope,
        account=tokens.account,
        connected_at=now,
        refresh_expires_at=tokens.refresh_expires_at,
        config_files=config_files,
        is_public_only=login.is_public_only,
    )
    credentials = Credentials(tokens, client, login.authorization_server, binding)
    return replace(credentials, proof_key=proof_key) if tokens.scheme == "DPoP" else credentials


def carry_over_refresh_token(old: Credentials, new: Credentials) -> Credentials:
    """Keep the old refresh token if the server issues one only at the first consent (quirk 27).

    The old refresh token must give the same access: the same named account, client, issuer and resource, at
    least the new scope, and a session that has not ended.
    """
    old_tokens, new_tokens, old_binding, new_binding = old.tokens, new.tokens, old.binding, new.binding
    if (
        old_tokens is None
        or new_tokens is None
        or old_binding is None
        or new_binding is None
        or new_tokens.refresh_token is not None
    ):
        return new
    old_grant = (
        old_binding.issuer,
        old_binding.client_id,
        old_binding.resource,
        old_binding.server_url,
        old_binding.account,
    )
    is_same = old_grant == (
        new_binding.issuer,
        new_binding.client_id,
        new_binding.resource,
        new_binding.server_url,
        new_binding.account,
    )
    is_covered = (
        old_tokens.scope is not None and new_tokens.scope is not None and new_tokens.scope <= old_tokens.scope
    )
    is_bearer = (old_tokens.scheme, new_tokens.scheme) == ("Bearer", "Bearer")
    if (
        new_binding.account is None
        or not (is_same and is_covered and is_bearer)
        or old_binding.login_needed is not None
    ):
        return new
    tokens = replace(
        new_tokens, refresh_token=old_tokens.refresh_token, refresh_expires_at=old_tokens.refresh_expires_at
    )
    binding = replace(new_binding, refresh_expires_at=old_tokens.refresh_expires_at)
    return replace(new, tokens=tokens, binding=binding)


def has_confirmed_pkce(login: Login) -> bool:
    """True if the metadata confirms PKCE (S256), which alone ties a bare code to this login."""
    authorization_server = login.authorization_server
    return (
        "S256" in (authorization_server.code_challenge_methods_supported or ())
        and not authorization_server.uses_default_endpoints
    )


def can_complete(login: Login, origin: Origin) -> bool:
    """True if a user at this origin may complete the login."""
    # A terminal user of this system account can read the store anyway. A chat login stays in its chat.
    return origin.platform == "terminal" or matches_origin(login, origin)


def _expire_login(login: Login) -> Login:
    if login.status != "waiting":
        return login
    error = LoginExpired("This login was not finished in time.")
    return replace(apply_event(login, "expire"), failure=(str(error), error.advice), failure_code=error.code)


def _reread_login(store: LoginStore, login: Login) -> Login:
    """Return the stored login, or `login` itself if its record cannot be read."""
    try:
        return store.get(login.id)
    except (StoreError, LoginError):
        return login
