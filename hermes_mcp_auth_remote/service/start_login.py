"""A login's beginning: from a server to a Login that waits; and its changing over to another flow."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit

from hermes_mcp_auth_remote.errors import ConfigError, TimedOut
from hermes_mcp_auth_remote.flows.client_selection import PreviousLogin, discover_and_register
from hermes_mcp_auth_remote.flows.discovery import run_discovery
from hermes_mcp_auth_remote.flows.login_preparation import (
    LoginNonces,
    PreparedLogin,
    prepare_login,
    prepare_switch,
)
from hermes_mcp_auth_remote.login import Login, apply_event, new_login_id
from hermes_mcp_auth_remote.oauth.authorization import CODE_VERIFIER_BYTES, STATE_BYTES
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.client import Client, Signer
from hermes_mcp_auth_remote.oauth.device_polling import PollState, start_polling
from hermes_mcp_auth_remote.oauth.urls import host_of, is_loopback_host
from hermes_mcp_auth_remote.service.dependencies import Dependencies
from hermes_mcp_auth_remote.service.shared_discovery import DiscoveryKey
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
    ServerOptions,
)

T = TypeVar("T")

# Each answer has a limit of its own; there are up to a dozen.
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
    """Prepare a login, which nobody has stored or seen yet.

    Raises a ServerError, NetworkError, ConfigError or StoreError.
    """
    if server.options.grant != "authorization_code":
        # A person's tokens would take the place of the job's.
        raise ConfigError(
            f"{server.name} needs no login: its `oauth.grant` is `{server.options.grant}`, without a person.",
            f"Use it as it is; `hermes-mcp-auth token {server.name}` fetches a token.",
        )
    flow = _select_flow(deps, server, origin, flow)
    stored, known, sign = await run_file_work(_read_stored_state, deps, server, key)
    is_new = redirect_uri is None and known == PreviousLogin()
    if redirect_uri is None:
        redirect_uri = redirect_uri_for(server, stored.client, deps.entropy)
    if server.options.dpop:
        check_can_sign("Proofs (DPoP)")
    begun_at = deps.clock()
    preparing = partial(
        prepare_login,
        server,
        _new_login_nonces(deps.entropy),
        redirect_uri,
        begun_at,
        previous_login=known,
        sign=sign,
        can_use_dpop=can_sign(),
        flow=flow,
    )
    look = (
        partial(discover_and_register, server, challenge, flow, redirect_uri, begun_at)
        if is_new
        else partial(run_discovery, server, known.issuer, challenge, flow)
    )
    question = DiscoveryKey(server, known.issuer, challenge, flow, is_new)
    looking = deps.shared_discovery.discover_and_continue(
        deps.run_exchange, question, look, lambda found: preparing(discovery_result=found)
    )
    prepared = await _with_time_limit(looking, server)
    now = deps.clock()
    device, expires_at = _polling_and_expiry(prepared, server, begun_at, now)
    granted = stored.tokens.scope if stored.tokens and stored.tokens.scope else frozenset[str]()
    return Login(
        id=new_login_id(deps.entropy),
        key=key,
        server_url=server.url,
        request=prepared.request,
        authorization_server=prepared.authorization_server,
        origin=origin,
        started_at=now,
        expires_at=expires_at,
        added_scope=(prepared.request.scope or frozenset()) - granted if granted else frozenset(),
        poll_state=device,
    )


async def switch_flow(deps: Dependencies, server: Server, login: Login, flow: Flow) -> Login:
    """Return a login that waits by another flow, or for another code; nothing is stored yet.

    Raises whatever stands in the way; the login is then as it was.
    """
    apply_event(login, "switch")
    flow = _select_flow(deps, server, login.origin, flow)
    sign = await run_file_work(deps.signer_for, server)
    before, asked_at = PreparedLogin(login.request, login.authorization_server), deps.clock()
    device = flow == "device"
    switching = prepare_switch(server, before, _new_login_nonces(deps.entropy), to_device=device, sign=sign)
    after = await _with_time_limit(deps.run_exchange(switching, server), server)
    pending, expires_at = _polling_and_expiry(after, server, asked_at, deps.clock())
    return replace(
        login,
        request=after.request,
        authorization_server=after.authorization_server,
        expires_at=expires_at,
        paste_attempts=0,
        poll_state=pending,
        polled_by=None,
    )


async def _with_time_limit(awaitable: Awaitable[T], server: Server) -> T:
    """Do all that servers are asked for a login, while a person waits; raises TimedOut."""
    try:
        async with asyncio.timeout(LOGIN_START_SECONDS):
            return await awaitable
    except TimeoutError:
        raise TimedOut(
            f"{host_of(server.url)} and its authorization server took too long to begin a login."
        ) from None


def _select_flow(deps: Dependencies, server: Server, origin: Origin, flow: Flow | None) -> Flow:
    """Settle the flow: as asked for, else as configured; raises ConfigError where devices are turned off."""
    configured = server.options.flow
    if flow is None:
        # Whoever does not say so may be unable to show a user code.
        flow = "paste" if configured == "auto" else configured
    elif flow == "auto":
        flow = configured
    if flow not in {"auto", "device"} or deps.allows_device(server, origin):
        return flow
    if flow == "auto":
        return "paste"
    raise ConfigError(
        f"The device flow is turned off for {server.name} here.",
        "Log in by pasting, or ask whoever runs this to turn it on (`oauth.device`).",
    )


def _polling_and_expiry(
    prepared_login: PreparedLogin, server: Server, requested_at: float, now: float
) -> tuple[PollState | None, float]:
    """Say what is polled, and until when the login waits, in epoch seconds."""
    request, code, wanted = (
        prepared_login.request,
        prepared_login.device_authorization,
        server.options.login_seconds,
    )
    seconds = min(wanted, MAX_LOGIN_SECONDS)
    if code is None:
        if request.lifetime_seconds is not None:
            seconds = min(seconds, int(request.lifetime_seconds))
        return None, now + seconds
    if wanted < MAX_LOGIN_SECONDS:
        # The operator wants it shorter than the server does; else the server's word counts.
        code = replace(code, lifetime_seconds=min(code.lifetime_seconds, wanted))
    pending = start_polling(
        prepared_login.authorization_server,
        request.client,
        code,
        requested_at,
        scope=request.scope,
        resource=request.resource,
    )
    return replace(pending, next_at=now + pending.interval_seconds), pending.parameters.expires_at


def _new_login_nonces(entropy: Entropy) -> LoginNonces:
    return LoginNonces(state=Secret(entropy(STATE_BYTES)), code_verifier=Secret(entropy(CODE_VERIFIER_BYTES)))


def _read_stored_state(
    deps: Dependencies, server: Server, key: CredentialKey
) -> tuple[Credentials, PreviousLogin, Signer | None]:
    """Read what files hold for a login to come; raises StoreError, ConfigError."""
    stored = deps.store.read(key)
    return stored, _previous_login(deps, key, stored), deps.signer_for(server)


def _previous_login(deps: Dependencies, key: CredentialKey, credentials: Credentials) -> PreviousLogin:
    issuer = credentials.authorization_server
    return PreviousLogin(
        client=credentials.client,
        issuer=issuer.issuer if issuer else None,
        scope=(credentials.tokens.scope if credentials.tokens else None) or frozenset(),
        is_cimd_disabled=deps.store.is_cimd_disabled(key),
    )


CALLBACK_PATH = "/callback"


_DEFAULT_HOST = ServerOptions().redirect_host


def redirect_uri_for(server: Server, client: Client | None, entropy: Entropy) -> str:
    """Return the redirect URI to use for a login; `client` is the stored one.

    Some providers admit only the very port that was registered (quirk 18), so a port once registered is
    kept. Where nobody listens on it the browser ends on an error page, and its address is pasted.
    """
    options = server.options
    if options.redirect_uri is not None:
        return options.redirect_uri
    if client is not None and client.is_registered and client.redirect_uris and not options.redirect_port:
        known = urlsplit(client.redirect_uris[0])
        host = known.hostname or ""
        # A host that was configured since counts; the default gives way to what the provider took.
        is_asked = options.redirect_host in {host, _DEFAULT_HOST}
        if known.port and is_loopback_host(host) and is_asked:
            return client.redirect_uris[0]
    return new_redirect_uri(server, entropy)


def new_redirect_uri(server: Server, entropy: Entropy) -> str:
    """Return a loopback redirect URI on the configured port, else on a random one."""
    # RFC 6335 section 6: the dynamic ports, which no service may claim.
    dynamic = 49152 + int.from_bytes(entropy(8).encode(), "big") % 16384
    port, host = server.options.redirect_port or dynamic, server.options.redirect_host
    return f"http://{f'[{host}]' if ':' in host else host}:{port}{CALLBACK_PATH}"
