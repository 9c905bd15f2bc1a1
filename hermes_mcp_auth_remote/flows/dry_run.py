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
from hermes_mcp_auth_remote.flows.discovery import PROBE, probe, with_device
from hermes_mcp_auth_remote.flows.login_preparation import AUTHORIZATION_PAGE
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.client import offers_device
from hermes_mcp_auth_remote.oauth.metadata import Discovery, discover
from hermes_mcp_auth_remote.oauth.wire import Exchange, Response
from hermes_mcp_auth_remote.values import Server

T = TypeVar("T")

Login = Callable[[Server], Exchange[object]]
_Known = dict[tuple[str, str], Response | NetworkError]


@dataclass(frozen=True, slots=True)
class Findings:
    """What a rehearsal came to.

    `challenge` is None where the server asked for no token, `discovery` where none was possible; `device` is
    the issuer that offers the device flow; `obstacles` are what a login would be refused for, in the order in
    which it meets them.
    """

    challenge: Challenge | None = None
    discovery: Discovery | None = None
    device: str | None = None
    obstacles: tuple[McpAuthError, ...] = ()


def rehearse(server: Server, login: Login, *, prefer_issuer: str | None = None) -> Exchange[Findings]:
    """Walk through a login of this server and stop where it would begin to matter.

    `login` makes the exchange that a login is, with the options of the server that it is given. Raises
    nothing that a server or the network can bring about, nor what the options lack: it is found.
    """
    options, known = server.options, _Known()
    findings = Findings()
    try:
        challenge = yield from _once(probe(server), known)
        findings = replace(findings, challenge=challenge)
        looking = discover(
            server.url,
            challenge or Challenge(),
            trusted_issuers=options.trusted_issuers,
            authorization_server=options.authorization_server,
            prefer_issuer=prefer_issuer,
        )
        found = yield from _once(looking, known)
    except (ServerError, NetworkError, ConfigError) as trouble:
        return replace(findings, obstacles=(trouble,))
    findings = replace(findings, discovery=found)
    if not found.authorization_server.is_guessed:
        elsewhere = yield from _once(with_device(server, found, "device"), known)
        issuer = elsewhere.authorization_server
        if offers_device(issuer):
            findings = replace(findings, device=issuer.issuer)
            if options.flow == "device":
                findings = replace(findings, discovery=elsewhere)
    first, second = (yield from _attempt(login(server), known)), None
    if isinstance(first, PkceNotSupported):
        # What else would stand in the way, were that one gone?
        without = replace(server, options=replace(options, allow_missing_pkce=True))
        second = yield from _attempt(login(without), known)
    return replace(findings, obstacles=tuple(each for each in (first, second) if each is not None))


def _attempt(login: Exchange[object], known: _Known) -> Exchange[McpAuthError | None]:
    try:
        yield from _once(_harmless(login), known)
    except McpAuthError as trouble:
        return trouble
    return None


def _once(steps: Exchange[T], known: _Known) -> Exchange[T]:
    """Run an exchange, and ask nothing twice."""
    try:
        request = next(steps)
        while True:
            place = request.method, request.url
            if place not in known:
                try:
                    known[place] = yield request
                except NetworkError as trouble:
                    known[place] = trouble
            outcome = known[place]
            request = steps.throw(outcome) if isinstance(outcome, NetworkError) else steps.send(outcome)
    except StopIteration as end:
        result: T = end.value
        return result


def _harmless(login: Exchange[object]) -> Exchange[None]:
    """Run a login until it is done, or would do something: any POST but the first, or a look at a page."""
    try:
        request = next(login)
        while request.step == PROBE or (request.method == "GET" and request.step != AUTHORIZATION_PAGE):
            try:
                response = yield request
            except NetworkError as trouble:
                request = login.throw(trouble)
            else:
                request = login.send(response)
    except StopIteration:
        return
    login.close()
