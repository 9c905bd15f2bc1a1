"""A login up to the first request that would change something: what is there, and what stands in the way.

Every step is the login's own (`preparation`), so what it finds is what a login would meet. Nothing is
registered, pushed or shown to anybody.
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
    """What a rehearsal came to.

    `challenge` is None where the server asked for no token, `discovery` where none was possible; `device` is
    the issuer that offers the device flow; `obstacles` are what a login would be refused for, in the order in
    which it meets them.
    """

    challenge: Challenge | None = None
    discovery: Discovery | None = None
    device_flow_issuer: str | None = None
    obstacles: tuple[McpAuthError, ...] = ()


def dry_run_login(
    server: Server, make_login: LoginFactory, *, preferred_issuer: str | None = None
) -> Exchange[Findings]:
    """Walk through a login of this server and stop where it would begin to matter.

    `login` makes the exchange that a login is, with the options of the server that it is given. Raises
    nothing that a server or the network can bring about, nor what the options lack: it is found.
    """
    options, known = server.options, _ResponseCache()
    findings = Findings()
    try:
        challenge = yield from _run_cached(probe_server(server), known)
        findings = replace(findings, challenge=challenge)
        looking = discover_metadata(
            server.url,
            challenge or Challenge(),
            trusted_issuers=options.trusted_issuers,
            configured_issuer=options.authorization_server,
            preferred_issuer=preferred_issuer,
        )
        found = yield from _run_cached(looking, known)
    except (ServerError, NetworkError, ConfigError) as trouble:
        return replace(findings, obstacles=(trouble,))
    findings = replace(findings, discovery=found)
    if not found.authorization_server.uses_default_endpoints:
        elsewhere = yield from _run_cached(find_device_server(server, found, "device"), known)
        issuer = elsewhere.authorization_server
        if supports_device_flow(issuer):
            findings = replace(findings, device_flow_issuer=issuer.issuer)
            if options.flow == "device":
                findings = replace(findings, discovery=elsewhere)
    first, second = (yield from _find_obstacle(make_login(server), known)), None
    if isinstance(first, PkceNotSupported):
        # What else would stand in the way, were that one gone?
        without = replace(server, options=replace(options, allow_missing_pkce=True))
        second = yield from _find_obstacle(make_login(without), known)
    return replace(findings, obstacles=tuple(each for each in (first, second) if each is not None))


def _find_obstacle(
    login_exchange: Exchange[object], response_cache: _ResponseCache
) -> Exchange[McpAuthError | None]:
    try:
        yield from _run_cached(_run_until_side_effect(login_exchange), response_cache)
    except McpAuthError as trouble:
        return trouble
    return None


def _run_cached(exchange: Exchange[T], response_cache: _ResponseCache) -> Exchange[T]:
    """Run an exchange, and ask nothing twice."""
    try:
        request = next(exchange)
        while True:
            place = request.method, request.url
            if place not in response_cache:
                try:
                    response_cache[place] = yield request
                except NetworkError as trouble:
                    response_cache[place] = trouble
            outcome = response_cache[place]
            request = exchange.throw(outcome) if isinstance(outcome, NetworkError) else exchange.send(outcome)
    except StopIteration as end:
        result: T = end.value
        return result


def _run_until_side_effect(login_exchange: Exchange[object]) -> Exchange[None]:
    """Run a login until it is done, or would do something: any POST but the first, or a look at a page."""
    try:
        request = next(login_exchange)
        while request.step == PROBE_STEP or (
            request.method == "GET" and request.step != AUTHORIZATION_PAGE_STEP
        ):
            try:
                response = yield request
            except NetworkError as trouble:
                request = login_exchange.throw(trouble)
            else:
                request = login_exchange.send(response)
    except StopIteration:
        return
    login_exchange.close()
