"""How the bridge asks a user to log in: in a chat, in a browser on this machine, or through the client.

The bridge has no terminal of its own. The client shows errors to a model, so no error contains an address.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from hermes_mcp_auth_remote.bridge.listeners import LoginListeners
from hermes_mcp_auth_remote.commands import finish_command
from hermes_mcp_auth_remote.errors import AuthorizationRequired, LoginNotFound, McpAuthError
from hermes_mcp_auth_remote.login import Connection, Login
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.urls import is_same_address
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.terminal.answers import TERMINAL_ORIGIN
from hermes_mcp_auth_remote.terminal.prompt import start_login_with_listener
from hermes_mcp_auth_remote.threads import run_in_own_thread
from hermes_mcp_auth_remote.values import CredentialKey, Server

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class BrowserPrompter:
    """Opens one page per login in a browser on this machine, and gets the redirect on a loopback port."""

    service: AuthService
    server: Server
    open_browser: Callable[[str], bool]
    _listeners: LoginListeners = field(init=False)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    def __post_init__(self) -> None:
        """Prepare to listen."""
        self._listeners = LoginListeners(self.service, self.server)

    async def show(self, login: Login) -> None:
        """Listen at the login's redirect URI and open its page. Raises AuthorizationRequired on failure.

        If the caller is cancelled while the command that opens the page runs, the login stays: its user may
        see the page.
        """
        is_listening = await self._listeners.listen(login)
        if login.device_authorization is None and not is_listening:
            raise AuthorizationRequired(
                self.server.name, reason="another program uses the port of the redirect"
            )
        opening = asyncio.create_task(run_in_own_thread(self.open_browser, elicitation_address(login)))
        try:
            is_opened = await asyncio.shield(opening)
        except asyncio.CancelledError:
            task = asyncio.create_task(self._cancel_if_not_opened(login, opening))
            # The event loop keeps no reference to a task.
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            _postpone_cancellation()
            return
        except BaseException:
            await self.show_outcome(login, None)
            raise
        if is_opened:
            _log.info("%s: a page for the login was opened in the browser of this machine.", self.server.name)
        elif (await self.service.login(login.id)).status == "waiting":
            await self.show_outcome(login, None)
            raise AuthorizationRequired(
                self.server.name, reason="no browser on this machine could be opened for the login"
            )

    async def _cancel_if_not_opened(self, login: Login, opening: asyncio.Task[bool]) -> None:
        is_opened = False
        with contextlib.suppress(McpAuthError):
            is_opened = await opening
        if not is_opened:
            with contextlib.suppress(McpAuthError):
                await self.service.cancel(login.id)

    async def join(self, login: Login) -> None:
        """Get the redirect of a login of another process, if that process ends first."""
        if login.poll_state is None:
            await self._listeners.listen_when_free(login)

    async def show_outcome(self, login: Login, connection: Connection | None) -> None:  # noqa: ARG002  Prompter protocol
        """Stop listening."""
        await self._listeners.close_listener(login.id)

    async def close(self) -> None:
        """Stop listening for all logins. The logins go on: the next bridge listens again."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._listeners.close()

    async def resume(self, key: CredentialKey) -> None:
        """Listen for a login that an earlier process of this bridge has shown. Opens no page."""
        with contextlib.suppress(McpAuthError):
            for login in await self.service.waiting_logins():
                if login.key == key and login.origin == TERMINAL_ORIGIN and login.poll_state is None:
                    await self._listeners.listen(login)


@dataclass(frozen=True, slots=True)
class ChatPrompter:
    """Leaves a login to the bot that `serve` runs: the bot shows the logins of its platform."""

    server_name: str

    async def show(self, login: Login) -> None:
        """Report that the bot shows the login."""
        origin = login.origin
        _log.info("%s: %s:%s is asked to log in.", self.server_name, origin.platform, origin.user_id)

    async def show_outcome(self, login: Login, connection: Connection | None) -> None:
        """Report nothing: the bot reports the outcome."""


@dataclass(slots=True)
class ClientLogin:
    """A login that the client shows by URL-mode elicitation; one at a time."""

    service: AuthService
    server: Server
    owner: str | None
    _login: Login | None = None
    # True if another process has started the login.
    _is_shared: bool = False
    _listeners: LoginListeners = field(init=False)
    # Concurrent calls share one login.
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        """Prepare to listen."""
        self._listeners = LoginListeners(self.service, self.server)

    async def start(self, error: AuthorizationRequired) -> Login | None:
        """Return the login that is not over, or start one.

        If another process uses the port of the redirect, return the login for which it listens, None if there
        is none. Raises as `AuthService.start_login` does.
        """
        async with self._lock:
            # Without its listener, a login whose code is being exchanged would fail.
            if self._login is not None and not await self._is_over(self._login):
                if self._is_shared:
                    # If the other process has ended, its port is free.
                    self._is_shared = not await self._listeners.listen(self._login)
                return self._login
            await self.close()
            return await self._start(error)

    async def _is_over(self, login: Login) -> bool:
        try:
            return (await self.service.login(login.id)).is_over
        except LoginNotFound:
            # The next login of any process deletes the records of old logins.
            return True

    async def _start(self, error: AuthorizationRequired) -> Login | None:
        answers = self._listeners.new_answers()
        challenge = error.challenge if isinstance(error.challenge, Challenge) else None
        login, listener = await start_login_with_listener(
            answers, self.service, self.server, self.owner, challenge=challenge, flow="auto"
        )
        if listener is None and login.device_authorization is None:
            await self.service.cancel(login.id)
            self._login = await self._find_shared_login(login)
            self._is_shared = self._login is not None
            return self._login
        self._login, self._is_shared = login, False
        if listener is not None and login.device_authorization is not None:
            # In the device flow no redirect comes.
            await listener.close()
        elif listener is not None:
            self._listeners.add(login, listener)
        return login

    async def _find_shared_login(self, login: Login) -> Login | None:
        """Return a login of another process that waits at the same redirect URI for the same access."""
        for other in reversed(await self.service.waiting_logins()):
            is_same_login = (
                other.key == login.key
                and other.origin == TERMINAL_ORIGIN
                and other.poll_state is None
                and other.request.redirect_uri == login.request.redirect_uri
                and is_same_address(other.server_url, login.server_url)
            )
            if is_same_login and (login.request.scope or frozenset()) <= (other.request.scope or frozenset()):
                return other
        return None

    async def wait(self) -> None:
        """Wait until the login that `start` returned is over."""
        if self._login is not None:
            with contextlib.suppress(LoginNotFound):
                await self.service.wait_for_login(self._login.id)

    async def cancel(self) -> None:
        """Cancel the login that `start` returned: its user declined it.

        A login of another process goes on: its user may not have declined it there.
        """
        if self._login is not None:
            login, self._login = self._login, None
            if not self._is_shared:
                with contextlib.suppress(McpAuthError):
                    await self.service.cancel(login.id)

    async def close(self) -> None:
        """Stop listening."""
        await self._listeners.close()


def _postpone_cancellation() -> None:
    """Cancel the current task again at its next await, after it has caught the CancelledError."""
    task = asyncio.current_task()
    if task is not None:
        # `asyncio.timeout` counts the requests: this is the same one, not another.
        task.uncancel()
        task.cancel()


def elicitation_address(login: Login) -> str:
    """Return the address at which the user logs in."""
    device = login.device_authorization
    if device is None:
        return login.authorization_url
    return device.verification_uri_complete or device.verification_uri


def elicitation_text(login: Login) -> str:
    """Return the text that the client shows beside the address."""
    text = f"Log in to {login.key.server_name}. The page must be at {login.authorization_host}."
    device = login.device_authorization
    return text if device is None else f"{text} Enter or compare the code {device.user_code}."


def login_error_text(error: AuthorizationRequired, command: str) -> str:
    """Return an error text for the client: the command and a waiting login's id, without an address."""
    text = f"{error} Run `{command}`. Then try again."
    if error.login_id is None:
        return text
    return f"{text} Or finish the login that waits: `{finish_command(error.login_id)}`."
