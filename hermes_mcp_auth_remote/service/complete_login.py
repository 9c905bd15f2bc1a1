"""The end of a login: claimed by what answers it, then stored, or failed (table: `login`).

Nowhere else does a login change what is stored.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace

from hermes_mcp_auth_remote.errors import (
    LoginError,
    LoginExpired,
    McpAuthError,
    PasteRefused,
    StoreError,
    TokenError,
)
from hermes_mcp_auth_remote.exit_hold import hold_exit_for_storing
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
from hermes_mcp_auth_remote.oauth.token import Tokens, require_dpop
from hermes_mcp_auth_remote.oauth.urls import host_of
from hermes_mcp_auth_remote.service.connections import revoke_tokens
from hermes_mcp_auth_remote.service.dependencies import Dependencies
from hermes_mcp_auth_remote.service.single_flight import acquire_lock, join
from hermes_mcp_auth_remote.store.credentials import Binding, Credentials
from hermes_mcp_auth_remote.store.files.login_files import LoginFiles
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.timeouts import TIME_LIMITS
from hermes_mcp_auth_remote.values import CredentialKey, Origin, Secret, Server

# Whoever claimed a login is gone after that.
CLAIM_SECONDS = TIME_LIMITS.claim_seconds


class LoginCompletion:
    """Brings logins to their end, whoever brought what ends them."""

    def __init__(self, deps: Dependencies, server_of: Callable[[Login], Server]) -> None:
        self._deps = deps
        self._server_of = server_of

    def get(self, login_id: str) -> Login:
        """Return a login as it is now, expired where its time is over; raises LoginNotFound."""
        return self.with_expiry(self._deps.store.logins.get(login_id))

    def with_expiry(self, login: Login) -> Login:
        """Return a login that was read as the clock has it: expired, or failed, where its time is over."""
        now = self._deps.clock()
        if is_expired(login, now):
            return self._deps.store.logins.change(login.id, _expire_login)
        if login.status == "exchanging" and now >= login.expires_at:
            if self._deps.exchange_flights.is_running(login.id) or self._deps.storing_flights.is_running(
                login.id
            ):
                # The clock was set, or the machine slept: this process goes on with it.
                return login
            # What it brought may be on the disk already.
            self._deps.store.recover_login(login.key)
            if (settled := self._deps.store.logins.get(login.id)).status != "exchanging":
                return settled
            if self._deps.store.is_partially_stored(login.key, login.id):
                # The process is stopped while it stores: it will not ask again whether the login has failed.
                return login
            gone = LoginError("The process that finished this login did not live to its end.")
            return self._fail_login(login.id, gone, expected_status="exchanging")
        return login

    def claim(self, login: Login) -> Login:
        """Take a login for the exchange of what answers it; one caller can, others get a LoginError."""
        now = self._deps.clock()

        def apply_claim(current: Login) -> Login:
            # Time went by since it was read.
            current = _expire_login(current) if is_expired(current, now) else current
            if current.status == "waiting" and not is_same_prompt(current, login):
                raise PasteRefused("This login has just been changed over elsewhere.", "Look at it again.")
            # From now on the time is not the person's, but the exchange's.
            return replace(apply_event(current, "claim"), expires_at=now + CLAIM_SECONDS)

        return self._deps.store.logins.change(login.id, apply_claim)

    async def save_granted_tokens(
        self, login: Login, tokens: Tokens, proof_key: Secret | None
    ) -> Credentials:
        """Store what a claimed login brought, and return it.

        Raises UnreadableAnswer for tokens that are bound to no key where the operator demands one, a
        LoginError where the login was ended meanwhile, as by a logout (in both cases the tokens are revoked,
        as best it goes), or a StoreError. The login has failed then.
        """
        config_files = self._server_of(login).config_files
        credentials = credentials_of(login, tokens, proof_key, self._deps.clock(), config_files)
        try:
            require_dpop(tokens, self._server_of(login).options, host_of(login.request.issuer))
        except McpAuthError as trouble:
            await run_file_work(self._fail_exchange, login, trouble)
            await self.revoke_unused_tokens(login, tokens)
            raise
        hold_exit_for_storing(login.key.server_name, self._deps.limits.lock_seconds)
        try:
            # By server: what cannot be stored is revoked, and that server may never answer.
            flight = self._deps.storing_flights.submit(
                login.id, lambda: self._save_credentials(login, credentials), login.server_url
            )
        except RuntimeError:
            # The process is about to end, and starts no threads any more.
            return await self._save_credentials(login, credentials)
        return await join(flight) or credentials

    async def _save_credentials(self, login: Login, new_credentials: Credentials) -> Credentials:
        """Store what a login brought, in a flight's own thread, and return it."""
        store, credentials = self._deps.store, new_credentials
        try:
            # A refresh under way elsewhere must not write its answer over the new tokens.
            async with acquire_lock(store.lock(login.key), self._deps.limits.lock_seconds):
                now = _reread_login(store.logins, login)
                if now.status == "exchanging":
                    with contextlib.suppress(StoreError):
                        credentials = carry_over_refresh_token(store.read(login.key), credentials)
                    store.save_login(login.key, credentials, login.id)
                    with contextlib.suppress(StoreError, LoginError):
                        store.logins.change(login.id, lambda it: apply_event(it, "succeed"))
                    return credentials
        except StoreError as trouble:
            self._fail_exchange(login, trouble)
            # What cannot be stored must not stay good over there; an error may come after the tokens were.
            if new_credentials.tokens is not None and not self._is_stored(login.key, new_credentials.tokens):
                await self.revoke_unused_tokens(login, new_credentials.tokens)
            raise
        # Whoever logged out, or was told that it is over, must not find themselves logged in.
        if new_credentials.tokens is not None:
            await self.revoke_unused_tokens(login, new_credentials.tokens)
        raise login_state_error(now)

    def _is_stored(self, key: CredentialKey, tokens: Tokens) -> bool:
        try:
            stored = self._deps.store.read(key).tokens
        except StoreError:
            return False
        return stored is not None and stored.access_token == tokens.access_token

    async def revoke_unused_tokens(self, login: Login, tokens: Tokens) -> None:
        """Revoke tokens that came for nothing, as best it goes."""
        server = self._server_of(login)
        unwanted = Credentials(tokens, login.request.client, login.authorization_server)
        with contextlib.suppress(McpAuthError):
            await self._deps.run_exchange(revoke_tokens(unwanted, self._deps.signer_for(server)), server)

    async def end_logins(self, key: CredentialKey) -> None:
        """Cancel the logins of a server and owner that wait, and let those fail that are being exchanged."""
        left = LoginError("This login was ended by a logout.")
        for login in await run_file_work(self._deps.store.logins.list_all):
            if login.key == key and not login.is_over:
                await run_file_work(
                    self._deps.store.logins.change,
                    login.id,
                    lambda it: apply_event(it, "cancel") if it.status == "waiting" else it,
                )
                await run_file_work(self._fail_exchange, login, left)

    def _fail_exchange(self, login: Login, error: McpAuthError) -> None:
        """Let a login fail that was being exchanged; what the disk says to that hides nothing from people."""
        with contextlib.suppress(StoreError, LoginError):
            self._fail_login(login.id, error, expected_status="exchanging")
            self._drop_unknown_client(login, error)

    def fail_device_login(self, login: Login, error: McpAuthError) -> None:
        """Let a login fail whose device was refused, unless it has been changed over since."""
        is_same = is_same_prompt(self._deps.store.logins.get(login.id), login)
        if is_same:
            self._fail_login(login.id, error, expected_status="waiting")
            self._drop_unknown_client(login, error)

    def _drop_unknown_client(self, login: Login, error: McpAuthError) -> None:
        if isinstance(error, TokenError) and error.error == "invalid_client":
            # The next login registers anew; with this client nothing could be refreshed either.
            self._deps.store.drop_client(login.key, login.request.client)

    def _fail_login(self, login_id: str, error: McpAuthError, *, expected_status: LoginStatus) -> Login:
        """Let a login of this status fail, and return it; one of another status stays as it is."""

        def apply_failure(login: Login) -> Login:
            if login.status != expected_status:
                return login
            failure = (str(error), error.advice)
            event: LoginEvent = (
                "expire" if expected_status == "waiting" and isinstance(error, LoginExpired) else "fail"
            )
            after = replace(apply_event(login, event), failure=failure, failure_code=error.code)
            return replace(after, server_message=error.server_message)

        return self._deps.store.logins.change(login_id, apply_failure)


def credentials_of(
    login: Login, tokens: Tokens, proof_key: Secret | None, now: float, config_files: str | None = None
) -> Credentials:
    """Return what is stored once a login has brought tokens. `now` is in epoch seconds.

    `config_files` is the identity of the files that gave the server its address (`Server.config_files`).
    """
    request = login.request
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
    )
    found = Credentials(tokens, request.client, login.authorization_server, binding)
    return replace(found, proof_key=proof_key) if tokens.scheme == "DPoP" else found


def carry_over_refresh_token(old: Credentials, new: Credentials) -> Credentials:
    """Keep the old refresh token where a provider grants one at the first consent alone (quirk 27).

    Only one that would bring what was granted now: of the same account, known by name, at the same client,
    issuer and resource, for no less scope, in a session that is not over.
    """
    before, after, was, now = old.tokens, new.tokens, old.binding, new.binding
    if before is None or after is None or was is None or now is None or after.refresh_token is not None:
        return new
    same = (was.issuer, was.client_id, was.resource, was.server_url, was.account)
    is_same = same == (now.issuer, now.client_id, now.resource, now.server_url, now.account)
    is_wide = before.scope is not None and after.scope is not None and after.scope <= before.scope
    is_plain = (before.scheme, after.scheme) == ("Bearer", "Bearer")
    if now.account is None or not (is_same and is_wide and is_plain) or was.login_needed is not None:
        return new
    kept = replace(after, refresh_token=before.refresh_token, refresh_expires_at=before.refresh_expires_at)
    binding = replace(now, refresh_expires_at=before.refresh_expires_at)
    return replace(new, tokens=kept, binding=binding)


def has_confirmed_pkce(login: Login) -> bool:
    """True where PKCE is known to be in use: all that ties a code alone to this login."""
    issuer = login.authorization_server
    return "S256" in (issuer.code_challenge_methods_supported or ()) and not issuer.uses_default_endpoints


def can_complete(login: Login, origin: Origin) -> bool:
    """True where an answer that comes from here counts for a login."""
    # Whoever sits at a terminal of this account can read the store anyway; a chat is held to the chat.
    return origin.platform == "terminal" or matches_origin(login, origin)


def _expire_login(login: Login) -> Login:
    if login.status != "waiting":
        return login
    late = LoginExpired("This login was not finished in time.")
    return replace(apply_event(login, "expire"), failure=(str(late), late.advice), failure_code=late.code)


def _reread_login(store: LoginFiles, login: Login) -> Login:
    """Return a login as it is stored; as it was where its record cannot be had, which ends nothing."""
    try:
        return store.get(login.id)
    except (StoreError, LoginError):
        return login
