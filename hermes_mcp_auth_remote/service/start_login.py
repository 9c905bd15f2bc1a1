"""Prepare a new login of a server, and switch a waiting login to another flow."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from functools import partial
from typing import TypeVar

from hermes_mcp_auth_remote.commands import token_command
from hermes_mcp_auth_remote.errors import ConfigError, ProviderErrorPasted, TimedOut
from hermes_mcp_auth_remote.flows.client_selection import PreviousLogin, discover_and_register
from hermes_mcp_auth_remote.flows.discovery import run_discovery
from hermes_mcp_auth_remote.flows.login_preparation import (
    LoginNonces,
    PreparedLogin,
    prepare_login,
    prepare_retry,
    prepare_switch,
)
from hermes_mcp_auth_remote.login import (
    Login,
    apply_event,
    new_login_id,
)
from hermes_mcp_auth_remote.oauth.authorization import CODE_VERIFIER_BYTES, STATE_BYTES
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.client import Signer
from hermes_mcp_auth_remote.oauth.device_polling import PollState, start_polling
from hermes_mcp_auth_remote.oauth.token_errors import UNKNOWN_CLIENT_ERRORS
from hermes_mcp_auth_remote.oauth.urls import host_of
from hermes_mcp_auth_remote.service.dependencies import Dependencies
from hermes_mcp_auth_remote.service.redirect_uris import redirect_uri_for
from hermes_mcp_auth_remote.service.shared_discovery import DiscoveryKey
from hermes_mcp_auth_remote.service.unanswered_logins import save_replacement, unanswered_login
from hermes_mcp_auth_remote.signing import can_sign, check_can_sign
from hermes_mcp_auth_remote.store.credentials import Credentials
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.timeouts import TIME_LIMITS
from hermes_mcp_auth_remote.values import (
    MAX_LOGIN_SECONDS,
    CredentialKey,
    Entropy,
    Flow,
    Origin,
    Secret,
    Server,
)

T = TypeVar("T")

# The time limit of all requests together, up to a dozen. Each response also has its own limit.
LOGIN_START_SECONDS = TIME_LIMITS.login_start_seconds


async def start_login(
    deps: Dependencies,
    server: Server,
    key: CredentialKey,
    origin: Origin,
    *,
    redirect_uri: str | None = None,
    challenge: Challenge | None = None,
    flow: Flow | None = None,
) -> Login:
    """Prepare a login and return it; the caller stores it before it is shown.

    Raises a ServerError, NetworkError, ConfigError or StoreError.
    """
    if server.options.grant != "authorization_code":
        # The user's tokens would replace those of the machine grant.
        raise ConfigError(
            f"{server.name} needs no login: its `oauth.grant` is `{server.options.grant}`, without a user.",
            f"Use it as it is; `{token_command(server.name, key.owner)}` fetches a token.",
        )
    flow = _select_flow(deps, server, origin, flow)
    stored, previous_login, sign = await run_file_work(_read_stored_state, deps, server, key)
    is_new = redirect_uri is None and previous_login == PreviousLogin()
    if redirect_uri is None:
        redirect_uri = redirect_uri_for(server, stored.client, deps.entropy)
    if server.options.dpop:
        check_can_sign("Proofs (DPoP)")
    started_at = deps.clock()
    prepare = partial(
        prepare_login,
        server,
        _new_login_nonces(deps.entropy),
        redirect_uri,
        started_at,
        previous_login=previous_login,
        sign=sign,
        can_use_dpop=can_sign(),
        flow=flow,
    )
    discover = (
        partial(discover_and_register, server, challenge, flow, redirect_uri, started_at)
        if is_new
        else partial(run_discovery, server, previous_login.issuer, challenge, flow)
    )
    discovery_key = DiscoveryKey(server, previous_login.issuer, challenge, flow, is_new)
    preparation = deps.shared_discovery.discover_and_continue(
        deps.run_exchange, discovery_key, discover, lambda result: prepare(discovery_result=result)
    )
    prepared = await _with_time_limit(preparation, server)
    if previous_login.was_unanswered:
        await save_replacement(deps, key, server.url, prepared.request.client)
    now = deps.clock()
    poll_state, expires_at = _polling_and_expiry(prepared, server, started_at, now)
    granted_scope = stored.tokens.scope if stored.tokens and stored.tokens.scope else frozenset[str]()
    return Login(
        id=new_login_id(deps.entropy),
        key=key,
        server_url=server.url,
        request=prepared.request,
        authorization_server=prepared.authorization_server,
        origin=origin,
        started_at=now,
        expires_at=expires_at,
        deadline=deps.deadline_after(expires_at - now),
        added_scope=(prepared.request.scope or frozenset()) - granted_scope if granted_scope else frozenset(),
        poll_state=poll_state,
        is_public_only=server.is_public_only,
        # False if an unanswered login registered this client: then the next login registers no third one.
        is_client_reused=prepared.is_client_reused
        and stored.client is not None
        and stored.client.client_id == prepared.request.client.client_id,
    )


async def retry_login(
    deps: Dependencies, server: Server, login: Login, error: ProviderErrorPasted
) -> Login | None:
    """Return a waiting login with another request after an error of the provider; the caller stores it.

    Registers another client if the server does not know the login's client. Requests less scope if the server
    refuses the scope.
    Returns None if neither can help. Raises a ServerError, NetworkError or ConfigError.
    """
    request, is_unknown_client = login.request, error.error in UNKNOWN_CLIENT_ERRORS
    can_register = is_unknown_client and request.client.is_registered
    scope, options = request.scope, server.options
    # A configured scope is the operator's decision.
    can_reduce_scope = error.error == "invalid_scope" and bool(scope) and not options.scope
    if can_reduce_scope and scope is not None:
        # If the server does not say which scope it refuses, request none.
        scope = scope - (error.refused_scope or scope) or None
        # Without `scope`, the server grants its default, which may be wider than the cap.
        can_reduce_scope = scope is not None or options.scope_cap is None
    if error.error in login.retried_errors or not (can_register or can_reduce_scope):
        return None
    sign = await run_file_work(deps.signer_for, server)
    exchange = prepare_retry(
        server,
        PreparedLogin(request, login.authorization_server),
        _new_login_nonces(deps.entropy),
        scope=scope,
        with_new_client=can_register,
        sign=sign,
    )
    prepared = await _with_time_limit(deps.run_exchange(exchange, server), server)
    if can_register:
        await save_replacement(deps, login.key, server.url, prepared.request.client)
    now = deps.clock()
    _, expires_at = _polling_and_expiry(prepared, server, now, now)
    return replace(
        login,
        request=prepared.request,
        expires_at=expires_at,
        deadline=deps.deadline_after(expires_at - now),
        is_client_reused=False,
        retried_errors=login.retried_errors | {error.error},
    )


async def switch_flow(deps: Dependencies, server: Server, login: Login, flow: Flow) -> Login:
    """Return a waiting login switched to another flow or device code; the caller stores it.

    Raises DeviceRefused, a LoginError, ServerError, NetworkError or ConfigError.
    """
    apply_event(login, "switch")
    flow = _select_flow(deps, server, login.origin, flow)
    sign = await run_file_work(deps.signer_for, server)
    previous, requested_at = PreparedLogin(login.request, login.authorization_server), deps.clock()
    to_device = flow == "device"
    exchange = prepare_switch(
        server, previous, _new_login_nonces(deps.entropy), to_device=to_device, sign=sign
    )
    prepared = await _with_time_limit(deps.run_exchange(exchange, server), server)
    now = deps.clock()
    poll_state, expires_at = _polling_and_expiry(prepared, server, requested_at, now)
    return replace(
        login,
        request=prepared.request,
        authorization_server=prepared.authorization_server,
        expires_at=expires_at,
        deadline=deps.deadline_after(expires_at - now),
        paste_attempts=0,
        poll_state=poll_state,
        polled_by=None,
    )


async def _with_time_limit(awaitable: Awaitable[T], server: Server) -> T:
    """Await the requests that prepare a login, while a user waits; raises TimedOut."""
    try:
        async with asyncio.timeout(LOGIN_START_SECONDS):
            return await awaitable
    except TimeoutError:
        raise TimedOut(
            f"{host_of(server.url)} and its authorization server took too long to start a login."
        ) from None


def _select_flow(deps: Dependencies, server: Server, origin: Origin, flow: Flow | None) -> Flow:
    """Return the requested or the configured flow; raises ConfigError if the device flow is turned off."""
    configured = server.options.flow
    if flow is None:
        # A caller that does not name a flow may be unable to show a user code.
        flow = "paste" if configured == "auto" else configured
    elif flow == "auto":
        flow = configured
    if flow not in {"auto", "device"} or deps.allows_device(server, origin):
        return flow
    if flow == "auto":
        return "paste"
    # The server's own setting counts first: with it, the setting of the platform changes nothing.
    key = f"mcp_auth_chats.{origin.platform}.device" if server.options.device else "oauth.device"
    raise ConfigError(
        f"The device flow is turned off for {server.name} here.",
        f"Log in by pasting, or ask the operator to turn it on (`{key}`).",
    )


def _polling_and_expiry(
    prepared_login: PreparedLogin, server: Server, requested_at: float, now: float
) -> tuple[PollState | None, float]:
    """Return the poll state of a device login (else None), and when the login expires in epoch seconds."""
    request, device_authorization, configured_seconds = (
        prepared_login.request,
        prepared_login.device_authorization,
        server.options.login_seconds,
    )
    seconds = min(configured_seconds, MAX_LOGIN_SECONDS)
    if device_authorization is None:
        if request.lifetime_seconds is not None:
            seconds = min(seconds, int(request.lifetime_seconds))
        return None, now + seconds
    if configured_seconds < MAX_LOGIN_SECONDS:
        # The operator has set a limit. Without one, only the lifetime that the server names counts.
        device_authorization = replace(
            device_authorization,
            lifetime_seconds=min(device_authorization.lifetime_seconds, configured_seconds),
        )
    poll_state = start_polling(
        prepared_login.authorization_server,
        request.client,
        device_authorization,
        requested_at,
        scope=request.scope,
        resource=request.resource,
    )
    return replace(poll_state, next_at=now + poll_state.interval_seconds), poll_state.parameters.expires_at


def _new_login_nonces(entropy: Entropy) -> LoginNonces:
    return LoginNonces(state=Secret(entropy(STATE_BYTES)), code_verifier=Secret(entropy(CODE_VERIFIER_BYTES)))


def _read_stored_state(
    deps: Dependencies, server: Server, key: CredentialKey
) -> tuple[Credentials, PreviousLogin, Signer | None]:
    """Read the files that a new login needs; raises StoreError, ConfigError."""
    stored = deps.store.read(key).credentials
    return stored, _previous_login(deps, key, stored), deps.signer_for(server)


def _previous_login(deps: Dependencies, key: CredentialKey, credentials: Credentials) -> PreviousLogin:
    return previous_login_of(
        credentials,
        unanswered_login(deps.store.logins.list_all(), key, credentials, deps.login_time),
        is_cimd_disabled=deps.store.is_cimd_disabled(key),
    )


def previous_login_of(
    credentials: Credentials, unanswered_login: Login | None, *, is_cimd_disabled: bool
) -> PreviousLogin:
    """Return what a new login takes from the stored credentials, and from a login that got no response."""
    authorization_server, binding = credentials.authorization_server, credentials.binding
    previous_login = PreviousLogin(
        client=credentials.client,
        issuer=authorization_server.issuer if authorization_server else None,
        scope=(credentials.tokens.scope if credentials.tokens else None) or frozenset(),
        is_cimd_disabled=is_cimd_disabled,
        needed_scope=binding.needed_scope if binding else None,
    )
    mark = credentials.unanswered_client
    if mark is not None and mark.replacement is not None:
        return replace(previous_login, client=mark.replacement)
    return replace(previous_login, was_unanswered=mark is not None or unanswered_login is not None)
