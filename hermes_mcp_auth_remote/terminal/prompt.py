"""Run a login at a terminal: choose a redirect URI, listen, show the login, wait for an answer.

The stdio bridge uses `start_login_with_listener` for a login that its client shows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from hermes_mcp_auth_remote.errors import LoginExpired, McpAuthError
from hermes_mcp_auth_remote.login import Connection, Login
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.redirect_uris import has_manual_client
from hermes_mcp_auth_remote.terminal.answers import TERMINAL_ORIGIN, LoginAnswers, Screen, open_listener
from hermes_mcp_auth_remote.terminal.input import LineSource
from hermes_mcp_auth_remote.terminal.loopback import Listener
from hermes_mcp_auth_remote.threads import run_in_own_thread
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
    login, listener = await start_login_with_listener(
        answers,
        service,
        server,
        owner,
        flow=channels.flow,
        should_listen=channels.should_listen,
        can_use_new_port=not channels.is_remote,
    )
    try:
        # Without a listener the browser would end on an error page.
        open_url = channels.open_browser if listener is not None and login.poll_state is None else None
        browser_opened = open_url is not None and await run_in_own_thread(open_url, login.authorization_url)
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


async def start_login_with_listener(
    answers: LoginAnswers,
    service: AuthService,
    server: Server,
    owner: Owner,
    *,
    challenge: Challenge | None = None,
    flow: Flow | None = None,
    should_listen: bool = True,
    can_use_new_port: bool = True,
) -> tuple[Login, Listener | None]:
    """Start a login, and listen for its redirect if possible. The caller closes the listener.

    The listener passes redirects to `answers`. Set `can_use_new_port` if the login may register another port
    because the registered one is in use. Raises as `AuthService.start_login` does.
    """
    redirect_uri, listener = await service.redirect_uri(server, owner), None
    if should_listen:
        listener = await open_listener(answers, redirect_uri)
        if listener is None and can_use_new_port and not _has_fixed_redirect_uri(server):
            # Another process uses the port, perhaps another login.
            redirect_uri = service.new_redirect_uri(server)
            listener = await open_listener(answers, redirect_uri)
    login: Login | None = None
    try:
        login = answers.login = await service.start_login(
            server, TERMINAL_ORIGIN, owner=owner, redirect_uri=redirect_uri, challenge=challenge, flow=flow
        )
        if listener is not None and login.request.redirect_uri != listener.redirect_uri:
            # The authorization server accepts only another spelling of the loopback host.
            await listener.close()
            listener = await open_listener(answers, login.request.redirect_uri)
    except BaseException:
        if listener is not None:
            await listener.close()
        if login is not None:
            with contextlib.suppress(McpAuthError):
                await service.cancel(login.id)
        raise
    return login, listener


def _has_fixed_redirect_uri(server: Server) -> bool:
    options = server.options
    return bool(options.redirect_uri or options.redirect_port) or has_manual_client(options)
