"""A login at a terminal: a redirect URI and a listener are chosen, it is shown, answers race."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from hermes_mcp_auth_remote.errors import LoginExpired, McpAuthError
from hermes_mcp_auth_remote.login import Connection
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.terminal.answers import TERMINAL_ORIGIN, LoginAnswers, Screen, open_listener
from hermes_mcp_auth_remote.terminal.input import LineSource
from hermes_mcp_auth_remote.terminal.loopback import Listener
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.traceback_redaction import with_hidden_locals
from hermes_mcp_auth_remote.values import Flow, Owner, Server


@dataclass(frozen=True, slots=True)
class AnswerChannels:
    """How this terminal may get its answer.

    `flow` is what the login is begun with: "auto" means that a device is as good as a paste.
    `open_browser` is None where none is to be opened. `at_keyboard` is True where the lines come from a
    person: an empty one is then nothing, and their end (Ctrl-D) means that the person gave up. A pipe that
    ends without a line leaves it to the listener; one whose last word was refused has no other.
    """

    open_browser: Callable[[str], bool] | None = None
    should_listen: bool = True
    at_keyboard: bool = False
    flow: Flow | None = None


@with_hidden_locals
async def log_in(
    service: AuthService,
    server: Server,
    screen: Screen,
    line_source: LineSource,
    channels: AnswerChannels,
    owner: Owner = None,
) -> Connection:
    """Log in to a server from this terminal; returns what is connected.

    Raises the LoginError, ServerError, NetworkError or StoreError that ended it; stored credentials are then
    as they were. Being cancelled cancels the login. Where the code for a device expires, a person at the
    keyboard is offered another one.
    """
    while True:
        race = LoginAnswers(service, screen, server)
        try:
            return await _run_login(race, service, server, line_source, channels, owner)
        except LoginExpired:
            login = race.login
            if login is None or login.poll_state is None or not channels.at_keyboard:
                raise
            screen.show_expiry(login)
            async with line_source:
                if await line_source.read_line() is None:
                    raise


async def _run_login(
    answers: LoginAnswers,
    service: AuthService,
    server: Server,
    line_source: LineSource,
    channels: AnswerChannels,
    owner: Owner,
) -> Connection:
    redirect_uri, listener = await _choose_redirect_uri(service, server, owner, answers, channels)
    try:
        login = answers.login = await service.start_login(
            server, TERMINAL_ORIGIN, owner=owner, redirect_uri=redirect_uri, flow=channels.flow
        )
        try:
            if listener is not None and login.request.redirect_uri != listener.redirect_uri:
                # The provider wants loopback spelled in another way.
                await listener.close()
                listener = await open_listener(answers, login.request.redirect_uri)
            # Without a listener the browser would end nowhere, in front of the person's eyes.
            browse = channels.open_browser if listener is not None and login.poll_state is None else None
            opened = browse is not None and browse(login.authorization_url)
            answers.port = None if listener is None else listener.port
            answers.screen.show(login, browser_opened=opened, port=answers.port)
            return await answers.wait_for_connection(login, line_source, at_keyboard=channels.at_keyboard)
        except BaseException:
            # Does nothing to a login that is over. What ended it counts, not a disk that fails us on top.
            with contextlib.suppress(McpAuthError):
                await service.cancel(login.id)
            raise
    finally:
        if listener is not None:
            await listener.close()


async def _choose_redirect_uri(
    service: AuthService, server: Server, owner: Owner, answers: LoginAnswers, channels: AnswerChannels
) -> tuple[str, Listener | None]:
    """Choose the redirect URI, and listen there where that can be."""
    redirect_uri = await run_file_work(service.redirect_uri, server, owner)
    if not channels.should_listen:
        return redirect_uri, None
    listener = await open_listener(answers, redirect_uri)
    is_fixed = server.options.redirect_uri is not None or server.options.redirect_port
    if listener is None and not is_fixed:
        # Somebody sits on the port, perhaps another login of ours: take a new one, and register it.
        redirect_uri = service.new_redirect_uri(server)
        listener = await open_listener(answers, redirect_uri)
    return redirect_uri, listener
