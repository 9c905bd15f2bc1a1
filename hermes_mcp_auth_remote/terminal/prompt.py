"""A login at a terminal: a redirect URI and a listener are chosen, it is shown, answers race."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from hermes_mcp_auth_remote.errors import LoginExpired, McpAuthError
from hermes_mcp_auth_remote.login import Connection
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.terminal.answers import HERE, Race, Screen, listener_for
from hermes_mcp_auth_remote.terminal.input import Lines
from hermes_mcp_auth_remote.terminal.loopback import Listener
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.traceback_redaction import hides_locals
from hermes_mcp_auth_remote.values import Flow, Owner, Server


@dataclass(frozen=True, slots=True)
class Ways:
    """How this terminal may get its answer.

    `flow` is what the login is begun with: "auto" means that a device is as good as a paste.
    `open_browser` is None where none is to be opened. `at_keyboard` is True where the lines come from a
    person: an empty one is then nothing, and their end (Ctrl-D) means that the person gave up. A pipe that
    ends without a line leaves it to the listener; one whose last word was refused has no other.
    """

    open_browser: Callable[[str], bool] | None = None
    listen: bool = True
    at_keyboard: bool = False
    flow: Flow | None = None


@hides_locals
async def log_in(
    service: AuthService,
    server: Server,
    screen: Screen,
    lines: Lines,
    ways: Ways,
    owner: Owner = None,
) -> Connection:
    """Log in to a server from this terminal; returns what is connected.

    Raises the LoginError, ServerError, NetworkError or StoreError that ended it; stored credentials are then
    as they were. Being cancelled cancels the login. Where the code for a device expires, a person at the
    keyboard is offered another one.
    """
    while True:
        race = Race(service, screen, server)
        try:
            return await _raced(race, service, server, lines, ways, owner)
        except LoginExpired:
            login = race.login
            if login is None or login.device is None or not ways.at_keyboard:
                raise
            screen.expired(login)
            async with lines:
                if await lines.line() is None:
                    raise


async def _raced(
    race: Race, service: AuthService, server: Server, lines: Lines, ways: Ways, owner: Owner
) -> Connection:
    redirect_uri, listener = await _place(service, server, owner, race, ways)
    try:
        login = race.login = await service.begin(
            server, HERE, owner=owner, redirect_uri=redirect_uri, flow=ways.flow
        )
        try:
            if listener is not None and login.request.redirect_uri != listener.redirect_uri:
                # The provider wants loopback spelled in another way.
                await listener.close()
                listener = await listener_for(race, login.request.redirect_uri)
            # Without a listener the browser would end nowhere, in front of the person's eyes.
            browse = ways.open_browser if listener is not None and login.device is None else None
            opened = browse is not None and browse(login.authorization_url)
            race.port = None if listener is None else listener.port
            race.screen.show(login, opened=opened, port=race.port)
            return await race.run(login, lines, at_keyboard=ways.at_keyboard)
        except BaseException:
            # Does nothing to a login that is over. What ended it counts, not a disk that fails us on top.
            with contextlib.suppress(McpAuthError):
                await service.cancel(login.id)
            raise
    finally:
        if listener is not None:
            await listener.close()


async def _place(
    service: AuthService, server: Server, owner: Owner, race: Race, ways: Ways
) -> tuple[str, Listener | None]:
    """Choose the redirect URI, and listen there where that can be."""
    redirect_uri = await run_file_work(service.redirect_uri, server, owner)
    if not ways.listen:
        return redirect_uri, None
    listener = await listener_for(race, redirect_uri)
    is_fixed = server.options.redirect_uri is not None or server.options.redirect_port
    if listener is None and not is_fixed:
        # Somebody sits on the port, perhaps another login of ours: take a new one, and register it.
        redirect_uri = service.new_redirect_uri(server)
        listener = await listener_for(race, redirect_uri)
    return redirect_uri, listener
