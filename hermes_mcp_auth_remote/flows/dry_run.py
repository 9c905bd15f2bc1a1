"""Run a login up to the first request with a side effect, and report the obstacles.

The steps are those of a real login (`login_preparation`), so the result is the same. The dry run does not
register a client, push a request or show anything to the user.
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
from hermes_mcp_auth_remote.flows.discovery import PROBE_STEP, find_device_server, probe_server
from hermes_mcp_auth_remote.flows.login_preparation import AUTHORIZATION_PAGE_STEP
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.client import supports_device_flow
from hermes_mcp_auth_remote.oauth.metadata import Discovery, discover_metadata
from hermes_mcp_auth_remote.oauth.wire import Exchange, Response
from hermes_mcp_auth_remote.values import Server

T = TypeVar("T")

LoginFactory = Callable[[Server], Exchange[object]]
_ResponseCache = dict[tuple[str, str], Response | NetworkError]


@dataclass(frozen=True, slots=True)
class Findings:
    """The result of a dry run.

    `challenge` is None if the server asked for no token. `discovery` is None if discovery failed.
    `device_flow_issuer` is the issuer that offers the device flow, or None. `obstacles` are the errors that a
    login would raise, in order.
    """

    challenge: Challenge | None = None
    discovery: Discovery | None = None
    device_flow_issuer: str | None = None
    obstacles: tuple[McpAuthError, ...] = ()


def dry_run_login(
    server: Server, make_login: LoginFactory, *, preferred_issuer: str | None = None
) -> Exchange[Findings]:
    """Run a login of this server and stop before its first side effect.

    `make_login` creates the exchange of a login from a server and its options. A ServerError, NetworkError or
    ConfigError is not raised: it becomes an obstacle in the result.
    """
    options, response_cache = server.options, _ResponseCache()
    findings = Findings()
    try:
        challenge = yield from _run_cached(probe_server(server), response_cache)
        findings = replace(findings, challenge=challenge)
        discovery_exchange = discover_metadata(
            server.url,
            challenge or Challenge(),
            trusted_issuers=options.trusted_issuers,
            configured_issuer=options.authorization_server,
            preferred_issuer=preferred_issuer,
        )
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
    first_obstacle, second_obstacle = (yield from _find_obstacle(make_login(server), response_cache)), None
    if isinstance(first_obstacle, PkceNotSupported):
        # Find the next obstacle, as if the operator had allowed missing PKCE.
        lenient_server = replace(server, options=replace(options, allow_missing_pkce=True))
        second_obstacle = yield from _find_obstacle(make_login(lenient_server), response_cache)
    return replace(
        findings,
        obstacles=tuple(obstacle for obstacle in (first_obstacle, second_obstacle) if obstacle is not None),
    )


def _find_obstacle(
    login_exchange: Exchange[object], response_cache: _ResponseCache
) -> Exchange[McpAuthError | None]:
    try:
        yield from _run_cached(_run_until_side_effect(login_exchange), response_cache)
    except McpAuthError as error:
        return error
    return None


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


def _run_until_side_effect(login_exchange: Exchange[object]) -> Exchange[None]:
    """Run a login until it ends or before its first side effect: a POST after the probe, or a page view."""
    try:
        request = next(login_exchange)
        while request.step == PROBE_STEP or (
            request.method == "GET" and request.step != AUTHORIZATION_PAGE_STEP
        ):
            try:
                response = yield request
            except NetworkError as error:
                request = login_exchange.throw(error)
            else:
                request = login_exchange.send(response)
    except StopIteration:
        return
    login_exchange.close()
