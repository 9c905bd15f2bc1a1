"""Run a login up to the first request with a side effect, and report the obstacles.

The steps are those of a real login (`login_preparation`), so the result is the same. The dry run registers no
client, requests no code and no token, and shows nothing to the user. To see if the server refuses a stored
client, it loads the sign-in page. If the server takes pushed requests, it pushes one for a stored or
configured client instead; that request expires unused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from hermes_mcp_auth_remote.errors import (
    ConfigError,
    McpAuthError,
    NetworkError,
    PkceNotSupported,
    ServerError,
)
from hermes_mcp_auth_remote.flows.discovery import (
    PROBE_STEP,
    discover_for_login,
    find_device_server,
    probe_server,
    token_probe_request,
)
from hermes_mcp_auth_remote.flows.login_preparation import AUTHORIZATION_PAGE_STEP
from hermes_mcp_auth_remote.oauth.authorization import PUSHED_REQUEST_STEP
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.client import REGISTRATION_STEP, supports_device_flow
from hermes_mcp_auth_remote.oauth.metadata import Discovery
from hermes_mcp_auth_remote.oauth.wire import Exchange, Response
from hermes_mcp_auth_remote.values import Secret, Server

T = TypeVar("T")

LoginFactory = Callable[[Server], Exchange[object]]
_ResponseCache = dict[tuple[str, str], Response | NetworkError]


@dataclass(frozen=True, slots=True)
class Findings:
    """The result of a dry run.

    `challenge` is None if the server asked for no token. `discovery` is None if discovery failed.
    `device_flow_issuer` is the issuer that offers the device flow, or None. `obstacles` are the errors that a
    login would raise, in order. `is_client_forgotten` is True if the server does not know the stored client.
    `refuses_token` is True if the server responds to the stored token with 401.
    """

    challenge: Challenge | None = None
    discovery: Discovery | None = None
    device_flow_issuer: str | None = None
    obstacles: tuple[McpAuthError, ...] = ()
    is_client_forgotten: bool = False
    refuses_token: bool = False


def dry_run_login(
    server: Server,
    make_login: LoginFactory,
    *,
    preferred_issuer: str | None = None,
    authorization: Secret | None = None,
) -> Exchange[Findings]:
    """Run a login of this server and stop before its first side effect.

    `authorization` is the Authorization header of a stored token that should still be valid.
    `make_login` creates the exchange of a login from a server and its options. A ServerError, NetworkError or
    ConfigError is not raised: it becomes an obstacle in the result.
    """
    options, response_cache = server.options, _ResponseCache()
    findings = Findings()
    if authorization is not None:
        findings = replace(findings, refuses_token=(yield from _is_token_refused(server, authorization)))
    try:
        challenge = yield from _run_cached(probe_server(server), response_cache)
        findings = replace(findings, challenge=challenge)
        discovery_exchange = discover_for_login(server, challenge, preferred_issuer)
        discovery = yield from _run_cached(discovery_exchange, response_cache)
    except (ServerError, NetworkError, ConfigError) as error:
        return replace(findings, obstacles=(error,))
    findings = replace(findings, discovery=discovery)
    if not discovery.authorization_server.uses_default_endpoints:
        device_discovery = yield from _run_cached(
            find_device_server(server, discovery, "device"), response_cache
        )
        device_server = device_discovery.authorization_server
        if supports_device_flow(device_server):
            findings = replace(findings, device_flow_issuer=device_server.issuer)
            if options.flow == "device":
                findings = replace(findings, discovery=device_discovery)
    first_obstacle, is_forgotten = yield from _find_obstacle(make_login(server), response_cache)
    second_obstacle: McpAuthError | None = None
    if isinstance(first_obstacle, PkceNotSupported):
        # Find the next obstacle, as if the operator had allowed missing PKCE.
        lenient_server = replace(server, options=replace(options, allow_missing_pkce=True))
        second_obstacle, is_forgotten = yield from _find_obstacle(make_login(lenient_server), response_cache)
    return replace(
        findings,
        obstacles=tuple(obstacle for obstacle in (first_obstacle, second_obstacle) if obstacle is not None),
        is_client_forgotten=is_forgotten,
    )


def _is_token_refused(server: Server, authorization: Secret) -> Exchange[bool]:
    try:
        response = yield token_probe_request(server, authorization)
    except NetworkError:
        # The next request to the server reports the error.
        return False
    return response.status == 401


def _find_obstacle(
    login_exchange: Exchange[object], response_cache: _ResponseCache
) -> Exchange[tuple[McpAuthError | None, bool]]:
    """Return the error that a login would raise, and True if the server does not know the stored client."""
    try:
        is_forgotten = yield from _run_cached(_run_until_side_effect(login_exchange), response_cache)
    except McpAuthError as error:
        return error, False
    return None, is_forgotten


def _run_cached(exchange: Exchange[T], response_cache: _ResponseCache) -> Exchange[T]:
    """Run an exchange; send each request once and reuse its response."""
    try:
        request = next(exchange)
        while True:
            cache_key = request.method, request.url
            if cache_key not in response_cache:
                try:
                    response_cache[cache_key] = yield request
                except NetworkError as error:
                    response_cache[cache_key] = error
            outcome = response_cache[cache_key]
            request = exchange.throw(outcome) if isinstance(outcome, NetworkError) else exchange.send(outcome)
    except StopIteration as end:
        result: T = end.value
        return result


def _run_until_side_effect(login_exchange: Exchange[object]) -> Exchange[bool]:
    """Run a login until it ends, or until its next request has a side effect.

    Any POST has a side effect, except the probe and a pushed authorization request. Returns True if the login
    would register another client because the server does not know the stored one.
    """
    last_step = ""
    try:
        request = next(login_exchange)
        while request.method == "GET" or request.step in {PROBE_STEP, PUSHED_REQUEST_STEP}:
            last_step = request.step
            try:
                response = yield request
            except NetworkError as error:
                request = login_exchange.throw(error)
            else:
                request = login_exchange.send(response)
    except StopIteration:
        return False
    login_exchange.close()
    # A registration follows these steps only if the client was that of an earlier login.
    return request.step == REGISTRATION_STEP and last_step in {AUTHORIZATION_PAGE_STEP, PUSHED_REQUEST_STEP}
