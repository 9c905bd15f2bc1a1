"""Run a login at a terminal: choose a redirect URI, listen, show the login, wait for an answer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from hermes_mcp_auth_remote.errors import LoginExpired, McpAuthError
from hermes_mcp_auth_remote.login import Connection
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.redirect_uris import has_manual_client
from hermes_mcp_auth_remote.terminal.answers import TERMINAL_ORIGIN, LoginAnswers, Screen, open_listener
from hermes_mcp_auth_remote.terminal.input import LineSource
from hermes_mcp_auth_remote.terminal.loopback import Listener
from hermes_mcp_auth_remote.traceback_redaction import with_hidden_locals
from hermes_mcp_auth_remote.values import Flow, Owner, Server


@dataclass(frozen=True, slots=True)
class AnswerChannels:
    """The ways in which an answer can reach this terminal.

    `flow` is the flow that the login starts with; "auto" allows the device flow and a paste. `is_remote` is
    True in an SSH session.
    `open_browser` is None if the login must not open a browser. `at_keyboard` is True if the user types the
    lines: empty lines are then ignored, and the end of input (Ctrl-D) cancels the login. If a pipe ends
    without a line, the login waits for the listener. If a pipe ends after a refused answer, the login fails.
    """

    open_browser: Callable[[str], bool] | None = None
    should_listen: bool = True
    at_keyboard: bool = False
    flow: Flow | None = None
    is_remote: bool = False


@with_hidden_locals
async def log_in(
    service: AuthService,
    server: Server,
    screen: Screen,
    line_source: LineSource,
    channels: AnswerChannels,
    owner: Owner = None,
) -> Connection:
    """Log in to a server from this terminal and return the connection.

    Raises the LoginError, ServerError, NetworkError or StoreError that ended the login; the stored
    credentials are then unchanged. Cancelling the task cancels the login. If a user code expires, the user
    at the keyboard can request another code.
    """
    while True:
        answers = LoginAnswers(service, screen, server)
        try:
            return await _run_login(answers, service, server, line_source, channels, owner)
        except LoginExpired:
            login = answers.login
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
                # The authorization server accepts only another spelling of the loopback host.
                await listener.close()
                listener = await open_listener(answers, login.request.redirect_uri)
            # Without a listener the browser would end on an error page.
            open_url = channels.open_browser if listener is not None and login.poll_state is None else None
            browser_opened = open_url is not None and open_url(login.authorization_url)
            answers.port = None if listener is None else listener.port
            answers.screen.show(login, browser_opened=browser_opened, port=answers.port)
            return await answers.wait_for_connection(login, line_source, at_keyboard=channels.at_keyboard)
        except BaseException:
            # `cancel` does nothing if the login has ended. Raise the original error, not a failure to cancel.
            with contextlib.suppress(McpAuthError):
                await service.cancel(login.id)
            raise
    finally:
        if listener is not None:
            await listener.close()


async def _choose_redirect_uri(
    service: AuthService, server: Server, owner: Owner, answers: LoginAnswers, channels: AnswerChannels
) -> tuple[str, Listener | None]:
    """Choose the redirect URI, and listen at it if possible."""
    redirect_uri = await service.redirect_uri(server, owner)
    if not channels.should_listen:
        return redirect_uri, None
    listener = await open_listener(answers, redirect_uri)
    options = server.options
    is_fixed = options.redirect_uri is not None or options.redirect_port or has_manual_client(options)
    if listener is None and not is_fixed and not channels.is_remote:
        # Another process uses the port, perhaps another login. Use a new port; the login registers it.
        # Over SSH, the user pastes the address: that needs no other registration.
        redirect_uri = service.new_redirect_uri(server)
        listener = await open_listener(answers, redirect_uri)
    return redirect_uri, listener
